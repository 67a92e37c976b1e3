//! What finding a rule costs among few routes and among many, in instructions: `make decide-figures` counts those of
//! `find_routes`.
//!
//! `decide-route-cost KIND ROUTES`: routes that are told apart by what the kind says, asked for the first and the last of them.
#![expect(clippy::expect_used, clippy::panic, reason = "a measurement says what it expects by unwrapping")]

use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use sidecar_decide::route::{Request, Sent};
use sidecar_decide::{Parts, RouteTable, Snapshot, accept, link};

/// Kinds of routes; each has its host and its path.
const KINDS: usize = 4;

/// Lookups that are counted.
const LOOKUPS: usize = 1000;

/// A route and a request that falls under it.
struct Example {
    document: Value,
    host: String,
    path: String,
    method: Method,
    headers: HeaderMap,
}

impl Example {
    fn new(number: usize, hostname: &str, condition: &Value) -> Self {
        let rules = json!([{
            "name": "rule",
            "matches": [condition],
            "allow": [{"anyone": {}}],
            "backends": [{"address": "127.0.0.1:8080"}],
        }]);
        let name = format!("shop/{number}");
        let document = json!({"name": name, "listener": "gate", "hostnames": [hostname], "rules": rules});
        let (host, path) = (hostname.replace('*', "a"), String::new());
        Self { document, host, path, method: Method::GET, headers: HeaderMap::new() }
    }

    fn at(mut self, path: String) -> Self {
        self.path = path;
        self
    }
}

/// The example of a number.
fn example(kind: &str, number: usize) -> Example {
    let shared = |condition: Value| Example::new(number, "shop.example.com", &condition);
    let template = |value: String| shared(json!({"path": {"type": "Template", "value": value}, "method": "GET"}));
    match kind {
        "mixed" => mixed(number),
        // These share their first segments.
        "templates" => {
            template(format!("/v1/shops/{{shop}}/of-{number}/{{id}}")).at(format!("/v1/shops/7/of-{number}/8"))
        }
        "below-parameters" => template(format!("/{{shop}}/{{year}}/x{number}")).at(format!("/7/2026/x{number}")),
        "methods" => {
            let method = format!("M{number}");
            let made = shared(json!({"path": {"type": "Exact", "value": "/orders"}, "method": method}));
            Example { method: method.parse().expect("a method"), ..made.at("/orders".to_owned()) }
        }
        "headers" => {
            let header =
                json!([{"name": "x-version", "value": "1"}, {"name": "x-tenant", "value": number.to_string()}]);
            let mut made = shared(json!({"path": {"type": "PathPrefix", "value": "/"}, "headers": header}));
            made.headers.insert("x-version", HeaderValue::from_static("1"));
            made.headers.insert("x-tenant", HeaderValue::from(number));
            made.at("/orders".to_owned())
        }
        other => panic!("there is no kind {other}"),
    }
}

/// Every kind of host and path. The kinds take turns, so that many routes have all of them.
fn mixed(number: usize) -> Example {
    let own = format!("service-{number}.example.com");
    let (hostname, kind, value, path) = match number % KINDS {
        0 => (own.as_str(), "Exact", format!("/v1/orders/{number}"), format!("/v1/orders/{number}")),
        1 => (own.as_str(), "PathPrefix", format!("/v1/files/{number}"), format!("/v1/files/{number}/a/b")),
        // These share their hosts, so that their trees grow with the routes.
        2 => (
            "*.many.example.com",
            "Template",
            format!("/v1/of-{number}/{{id}}/lines"),
            format!("/v1/of-{number}/7/lines"),
        ),
        _ => ("shop.example.com", "PathPrefix", format!("/v1/shop-{number}"), format!("/v1/shop-{number}/a/b")),
    };
    Example::new(number, hostname, &json!({"path": {"type": kind, "value": value}, "method": "GET"})).at(path)
}

fn snapshot(routes: &[Value]) -> Snapshot {
    let listener = json!({"name": "gate", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": {}});
    let document = serde_json::from_value(json!({"listeners": [listener], "routes": routes})).expect("a document");
    let policy = accept::policy(&document).expect("a good document");
    let (snapshot, _) = link(&Parts { policy: Some(policy.into()), ..Parts::default() });
    snapshot
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "mixed".to_owned());
    let count = arguments.next().map_or(10, |text| text.parse().expect("a number"));
    let made: Vec<_> = (0..count).map(|number| example(&kind, number)).collect();
    let documents: Vec<_> = made.iter().map(|example| example.document.clone()).collect();
    let snapshot = snapshot(&documents);
    let table = &snapshot.listener("gate").expect("the listener").table;
    let asked: Vec<_> = made[..KINDS].iter().chain(&made[count - KINDS..]).collect();
    assert_eq!(find_routes(table, &asked), LOOKUPS, "every request falls under a route");
}

/// How many of the lookups find a rule.
#[inline(never)]
fn find_routes(table: &RouteTable, asked: &[&Example]) -> usize {
    let lookups = asked.iter().cycle().take(LOOKUPS).filter(|example| {
        let Example { host, path, method, headers, .. } = example;
        table.find(&Request { host, path, method, headers, query: None, message: Sent::Nothing }).is_ok()
    });
    lookups.count()
}
