//! How backends are used, as documents say it: bounds, and which rules share an endpoint.

use serde_json::{Value, json};
use sidecar_config::backend::{LoadBalancerType, PoolPolicy};
use sidecar_decide::{Snapshot, Target, accept};

use crate::fixture::{Documents, listener, read, told};

/// A policy of one route with one rule, both changed.
fn policy(change: impl FnOnce(&mut Value)) -> Value {
    let rule = json!({"name": "r", "allow": [{"anyone": {}}], "backends": [{"address": "10.0.0.1:80"}]});
    let mut route = json!({"name": "a/r", "listener": "main", "rules": [rule]});
    route["backendPolicy"]["healthCheck"] = json!({"tcp": {}});
    change(&mut route);
    json!({"listeners": [listener("main", 8443)], "routes": [route]})
}

/// Sets one field, named by its path, to a value.
fn with(path: &str, value: &Value) -> Value {
    policy(|route| {
        let place = path.split('.').fold(route, |place, field| match field.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[field],
        });
        *place = value.clone();
    })
}

/// Fields, the values that are just good, and those that are just not, with what is told about them.
#[test]
fn fields_have_bounds() {
    const COUNT: &str = "write a number from 1 to 1000000";
    const COUNT_0: &str = "write a number from 0 to 1000000";
    const TIME: &str = "write a duration from 1ms to 24h";
    const TIME_0: &str = "write a duration from 0s to 24h";
    let (count, count_0) = ([json!(1), json!(1_000_000)], [json!(0), json!(1_000_000)]);
    let (time, time_0) = ([json!("1ms"), json!("24h")], [json!("0s"), json!("24h")]);
    let (zero, much) = (("0", json!(0)), ("1000001", json!(1_000_001)));
    let (no_time, long) = (("0s", json!("0s")), ("24h1ms", json!("24h1ms")));
    type Bad = (&'static str, Value);
    let (pool, outlier) = ("backendPolicy.pool", "backendPolicy.outlierDetection");
    const THRESHOLD: &str = "write a number from 1 to 1000";
    let threshold = [json!(1), json!(1000)];
    let (percent_0, many) = ([json!(0), json!(100)], ("1001", json!(1001)));
    let health = "backendPolicy.healthCheck";
    const INTERVAL: &str = "write a duration from 100ms to 24h";
    const TIMEOUT: &str = "write a duration from 1ms to 1m";
    let (interval, timeout) = ([json!("100ms"), json!("24h")], [json!("1ms"), json!("1m")]);
    let (percent, above) = ([json!(1), json!(100)], ("101", json!(101)));
    type Row<'a> = (&'a str, &'a str, &'a [Value], Vec<Bad>, &'a str);
    let table: [Row<'_>; 20] = [
        (pool, "maxConnections", &count, vec![zero.clone(), much.clone()], COUNT),
        (pool, "maxPending", &count_0, vec![much.clone()], COUNT_0),
        (pool, "maxIdle", &count_0, vec![much.clone()], COUNT_0),
        (pool, "maxRequestsPerConnection", &count, vec![zero.clone(), much.clone()], COUNT),
        (outlier, "consecutiveLocalOriginFailures", &count, vec![zero.clone(), much.clone()], COUNT),
        (outlier, "consecutiveGatewayErrors", &count, vec![zero.clone(), much.clone()], COUNT),
        (health, "healthyThreshold", &threshold, vec![zero.clone(), many.clone()], THRESHOLD),
        (health, "unhealthyThreshold", &threshold, vec![zero.clone(), many], THRESHOLD),
        (health, "intervalJitterPercent", &percent_0, vec![above.clone()], "write a number from 0 to 100"),
        (health, "interval", &interval, vec![("99ms", json!("99ms")), long.clone()], INTERVAL),
        (health, "timeout", &timeout, vec![no_time.clone(), ("1m1ms", json!("1m1ms"))], TIMEOUT),
        (outlier, "maxEjectionPercent", &percent, vec![zero, above], "write a number from 1 to 100"),
        (pool, "pendingTimeout", &time, vec![no_time.clone(), long.clone()], TIME),
        (pool, "connectTimeout", &time, vec![no_time.clone(), long.clone()], TIME),
        (pool, "idleTimeout", &time, vec![no_time.clone(), long.clone()], TIME),
        (pool, "maxAge", &time, vec![no_time.clone(), long.clone()], TIME),
        (outlier, "baseEjectionTime", &[json!("1ms"), json!("5m")], vec![no_time], TIME),
        ("rules.0.timeouts", "request", &time_0, vec![long.clone()], TIME_0),
        ("rules.0.timeouts", "backendRequest", &time_0, vec![long], TIME_0),
        ("rules.0.backends.0", "weight", &count_0, vec![much], COUNT_0),
    ];
    for (object, field, good, bad, remedy) in table {
        let path = format!("{object}.{field}");
        for value in good {
            accept::policy(&read(with(&path, value))).unwrap_or_else(|refusal| panic!("{path} {value}: {refusal:?}"));
        }
        let place = format!("policy.routes[0].{object}.{field}").replace(".0", "[0]");
        for (text, value) in bad {
            let refusal = accept::policy(&read(with(&path, &value))).expect_err("a value out of bounds");
            assert_eq!(told(&refusal.problems), [(place.clone(), format!("is {text}; {remedy}"))]);
        }
    }
}

#[test]
fn the_longest_ejection_is_no_shorter_than_the_first() {
    let times = |base: &str, most: &str| {
        with("backendPolicy.outlierDetection", &json!({"baseEjectionTime": base, "maxEjectionTime": most}))
    };
    assert!(accept::policy(&read(times("2s", "2s"))).is_ok());
    let refusal = accept::policy(&read(times("2s", "1s"))).expect_err("shorter");
    let place = "policy.routes[0].backendPolicy.outlierDetection.maxEjectionTime".to_owned();
    let detail = "is 1s, shorter than baseEjectionTime, 2s; write the same or a longer time".to_owned();
    assert_eq!(told(&refusal.problems), [(place, detail)]);
}

#[test]
fn a_health_check_says_how() {
    const PLACE: &str = "policy.routes[0].backendPolicy.healthCheck";
    let http = |check: &Value| json!({"http": check});
    let good = [
        json!({"tcp": {}}),
        http(&json!({"path": "/"})),
        http(&json!({"path": "/a?b=c", "host": "app.example.com:8080", "expectedStatuses": [200, 599]})),
        http(&json!({"path": "/%20", "host": "[::1]:80"})),
    ];
    for check in good {
        let accepted = accept::policy(&read(with("backendPolicy.healthCheck", &check)));
        accepted.unwrap_or_else(|refusal| panic!("{check}: {refusal:?}"));
    }
    let empty = "is empty, so that no check passes; name a status, or leave it out";
    let bad = [
        (json!({}), "", "says not how; write exactly one of http, tcp and grpc"),
        (json!({"tcp": {}, "http": {"path": "/"}}), "", "has several ways; write exactly one of http, tcp and grpc"),
        (
            json!({"grpc": {"service": "x".repeat(1025)}}),
            ".grpc.service",
            "is 1025 bytes long; at most 1024 are allowed",
        ),
        (http(&json!({"path": "healthz"})), ".http.path", "`healthz` is no path; write one such as `/healthz`"),
        (http(&json!({"path": "/a b"})), ".http.path", "`/a b` is no path; write one such as `/healthz`"),
        (http(&json!({"path": "/a#b"})), ".http.path", "`/a#b` is no path; write one such as `/healthz`"),
        (
            http(&json!({"path": "/", "host": "http://a"})),
            ".http.host",
            "`http://a` is no host; write one such as `app.example.com` or `localhost:8080`",
        ),
        (http(&json!({"path": "/", "expectedStatuses": []})), ".http.expectedStatuses", empty),
        (
            http(&json!({"path": "/", "expectedStatuses": [200, 100]})),
            ".http.expectedStatuses[1]",
            "is 100; write a status from 200 to 599",
        ),
    ];
    for (check, place, detail) in bad {
        let mut document = with("backendPolicy.healthCheck", &check);
        document["routes"][0]["rules"][0]["backends"][0]["protocol"] = json!("HTTP2");
        let refusal = accept::policy(&read(document)).expect_err("a bad check");
        assert_eq!(told(&refusal.problems), [(format!("{PLACE}{place}"), detail.to_owned())], "{check}");
    }
}

/// gRPC is HTTP/2, and what a backend speaks is said once.
#[test]
fn a_check_by_grpc_is_for_backends_that_speak_http2() {
    let route = |backend: &Value| {
        policy(|route| {
            route["backendPolicy"]["healthCheck"] = json!({"grpc": {}});
            route["rules"][0]["backends"] = json!([{"address": "10.0.0.2:80", "protocol": "HTTP2"}, backend]);
        })
    };
    assert!(accept::policy(&read(route(&json!({"address": "10.0.0.1:80", "protocol": "HTTP2"})))).is_ok());
    let refusal = accept::policy(&read(route(&json!({"address": "10.0.0.1:80"})))).expect_err("HTTP/1.1");
    let place = "policy.routes[0].rules[0].backends[1].protocol".to_owned();
    let detail = "is `HTTP`, and the route's health check is gRPC's; write `HTTP2`".to_owned();
    assert_eq!(told(&refusal.problems), [(place, detail)]);
}

#[test]
fn a_part_takes_no_longer_than_the_whole() {
    let timeouts = |request: &str, backend: &str| {
        accept::policy(&read(with("rules.0.timeouts", &json!({"request": request, "backendRequest": backend}))))
    };
    for (request, backend) in [("2s", "2s"), ("2s", "1s"), ("0s", "9s"), ("2s", "0s")] {
        assert!(timeouts(request, backend).is_ok(), "{request} {backend}");
    }
    let refusal = timeouts("2s", "2001ms").expect_err("longer");
    let detail = "is 2s1ms, longer than request, 2s; a part takes no longer than the whole";
    let place = "policy.routes[0].rules[0].timeouts.backendRequest";
    assert_eq!(told(&refusal.problems), [(place.to_owned(), detail.to_owned())]);
}

fn linked(routes: &Value) -> Snapshot {
    let policy = json!({"listeners": [listener("main", 8443)], "routes": routes});
    let (snapshot, problems) = Documents { policy, ..Documents::default() }.link();
    assert_eq!(problems, []);
    snapshot
}

fn route(name: &str, address: &str, policy: &Value) -> Value {
    let backends = json!([{"address": address, "weight": 3}]);
    let rule = json!({"name": "r", "allow": [{"anyone": {}}], "backends": backends});
    json!({"name": name, "listener": "main", "rules": [rule], "backendPolicy": policy})
}

/// The same address used in the same way is one endpoint, whoever says so.
#[test]
fn endpoints_are_shared_by_those_who_use_them_alike() {
    let few = json!({"pool": {"maxConnections": 2}});
    let written_out = json!({"loadBalancer": {"type": "RoundRobin"}, "pool": {"maxConnections": 1024}});
    let snapshot = linked(&json!([
        route("a", "10.0.0.1:80", &json!({})),
        route("b", "10.0.0.1:80", &written_out),
        route("c", "10.0.0.1:80", &few),
        route("d", "10.0.0.2:80", &few),
        route("e", "10.0.0.1:80", &few),
    ]));
    let endpoint = |rule: &sidecar_decide::Rule| match &rule.target {
        Target::Backends(backends) => (backends[0].weight, backends[0].endpoints[0]),
        Target::Invalid => panic!("no endpoints"),
    };
    let used: Vec<_> = snapshot.rules.iter().map(endpoint).collect();
    assert_eq!(used, [(3, 0), (3, 0), (3, 1), (3, 2), (3, 1)]);
    let limits: Vec<_> = snapshot.endpoints.iter().map(|endpoint| endpoint.policy.pool.max_connections).collect();
    assert_eq!(limits, [1024, 2, 2]);
}

#[test]
fn what_is_not_said_is_the_default() {
    let snapshot = linked(&json!([route("a", "10.0.0.1:80", &json!({"loadBalancer": {"type": "LeastRequest"}}))]));
    assert_eq!(snapshot.rules[0].load_balancer, LoadBalancerType::LeastRequest);
    assert_eq!(snapshot.endpoints[0].policy.pool, PoolPolicy::default());
    assert_eq!(snapshot.rules[0].timeouts, sidecar_config::backend::Timeouts::default());
}

/// What a backend may say of where it is, and what is told where it says something else.
#[test]
fn a_backend_says_where_it_is() {
    let accept = |backend: &Value| accept::policy(&read(with("rules.0.backends.0", backend)));
    let label = "a".repeat(63);
    let long = [&*label; 4].join(".");
    let good = [
        json!({"host": "app", "port": 80}),
        json!({"host": "_grpc.App-1.example.com.", "port": 65535, "weight": 0}),
        json!({"host": format!("{label}.example"), "port": 1}),
    ];
    for backend in good {
        accept(&backend).unwrap_or_else(|refusal| panic!("{backend}: {refusal:?}"));
    }
    let no_name = |host: &str| {
        format!("`{host}` is not a host name; write one such as `app.example.com`, without scheme and port")
    };
    let no_port = "host `app` has no port; write `port`, from 1 to 65535".to_owned();
    let several = "has several of address, endpoints and host; write exactly one".to_owned();
    let address = "10.0.0.1:80";
    let bad = [
        (json!({}), "has neither address nor endpoints nor host; write exactly one".to_owned()),
        (json!({"address": address, "endpoints": "a"}), several.clone()),
        (json!({"address": address, "host": "app", "port": 80}), several),
        (json!({"address": address, "port": 80}), "has a port without a host; leave it out".to_owned()),
        (json!({"endpoints": "a", "port": 80}), "has a port without a host; leave it out".to_owned()),
        (json!({"host": "app"}), no_port.clone()),
        (json!({"host": "app", "port": 0}), no_port),
        (
            json!({"host": "10.0.0.1", "port": 80}),
            "host `10.0.0.1` is an address; write it as `address`, with its port".to_owned(),
        ),
        (
            json!({"host": "fd00::1", "port": 80}),
            "host `fd00::1` is an address; write it as `address`, with its port".to_owned(),
        ),
        (json!({"host": "app:80", "port": 80}), no_name("app:80")),
        (json!({"host": "a..b", "port": 80}), no_name("a..b")),
        (json!({"host": ".", "port": 80}), no_name(".")),
        (json!({"host": "", "port": 80}), no_name("")),
        (json!({"host": "b\u{fc}ro", "port": 80}), no_name("b\u{fc}ro")),
        (json!({"host": format!("{label}a"), "port": 80}), no_name(&format!("{label}a"))),
        (json!({"host": long, "port": 80}), no_name(&long)),
    ];
    for (backend, detail) in bad {
        let refusal = accept(&backend).expect_err("a bad backend");
        let place = "policy.routes[0].rules[0].backends[0]".to_owned();
        assert_eq!(told(&refusal.problems), [(place, detail)], "{backend}");
    }
}

/// Every address of a name is an endpoint; a name that nobody knows has none, and is asked for all the same.
#[test]
fn names_are_linked_with_their_addresses() {
    let backends = json!([{"host": "app", "port": 80}, {"host": "none", "port": 80}, {"address": "10.0.0.1:80"}]);
    let rule = json!({"name": "r", "allow": [{"anyone": {}}], "backends": backends});
    let routes = json!([{"name": "a", "listener": "main", "rules": [rule]}]);
    let policy = json!({"listeners": [listener("main", 8443)], "routes": routes});
    let mut parts = Documents { policy, ..Documents::default() }.accept();
    parts.resolved.insert("app".to_owned(), ["10.0.0.1", "fd00::1"].map(|address| address.parse().unwrap()).into());
    let (snapshot, problems) = sidecar_decide::link(&parts);
    assert_eq!(problems, []);
    let addresses: Vec<_> = snapshot.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:80", "[fd00::1]:80"]);
    let Target::Backends(backends) = &snapshot.rules[0].target else { panic!("no backends") };
    let linked: Vec<_> =
        backends.iter().map(|backend| (&*backend.name, &*backend.endpoints, backend.is_named)).collect();
    let expected = [("app:80", &[0, 1][..], true), ("none:80", &[][..], true), ("10.0.0.1:80", &[0][..], false)];
    assert_eq!(linked, expected);
    assert_eq!(snapshot.names.iter().collect::<Vec<_>>(), ["app", "none"]);
}
