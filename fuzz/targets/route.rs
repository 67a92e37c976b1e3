//! Any routes and any request: the compiled table answers as one that tries every match in the order of precedence.
//! Most requests are made to meet one of the matches, all but one part of it: what is drawn blindly hardly ever meets
//! two conditions at once.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use sidecar_decide::route::{Request, Sent};
use sidecar_decide::{Parts, Reason, accept, link, path};

// Few words, so that routes and requests meet.
const HOSTNAMES: [&str; 6] = ["a.test", "b.a.test", "*.a.test", "*.test", "*.b.a.test", "A.Test."];
const HOSTS: [&str; 8] = ["a.test", "x.a.test", "b.a.test", "x.b.a.test", "test", "other", "A.TEST:8443", "a.test."];
const SEGMENTS: [&str; 8] = ["a", "b", "ab", "a", "b", "a,x", "a%2Cx", "a%2Cx"];
/// Documents must not ask for parameters without a match for the path that has none.
const ASKED_SEGMENTS: [&str; 10] = ["a", "b", "ab", "a", "b", "a,x", "a%2Cx", "a%2Cx", "a;x", "a%3Bx"];
const METHODS: [&str; 3] = ["GET", "PUT", "POST"];
const HEADERS: [&str; 2] = ["x-a", "x-b"];
const PARAMETERS: [&str; 3] = ["q", "r", "a b"];
const VALUES: [&str; 4] = ["1", "2", "1,2", ""];
/// Queries' names and values as clients write them.
const WRITTEN_NAMES: [&str; 5] = ["q", "%71", "r", "a+b", "a%20b"];
const WRITTEN_VALUES: [&str; 5] = ["1", "%31", "2", "1%2C2", ""];

/// Expressions with what they mean.
type Expression = (&'static str, fn(&str) -> bool);
const PATH_EXPRESSIONS: [Expression; 3] = [
    ("/a.*", |path| path.starts_with("/a")),
    (".*b", |path| path.ends_with('b')),
    ("/[^/]+/[^/]+", |path| path[1..].split('/').count() == 2 && !path[1..].split('/').any(str::is_empty)),
];
const VALUE_EXPRESSIONS: [Expression; 2] =
    [("[12]", |value| matches!(value, "1" | "2")), ("1.*", |value| value.starts_with('1'))];

#[derive(Debug, Arbitrary)]
struct Input {
    routes: Vec<Route>,
    requests: Vec<Asked>,
}

#[derive(Debug, Arbitrary)]
struct Route {
    hostnames: Vec<u8>,
    matches: Vec<Condition>,
}

#[derive(Clone, Debug, Arbitrary)]
struct Condition {
    path: Option<PathKind>,
    method: Option<u8>,
    headers: Vec<(u8, Wanted)>,
    parameters: Vec<(u8, Wanted)>,
}

#[derive(Clone, Debug, Arbitrary)]
enum PathKind {
    Exact(Vec<u8>, bool),
    Prefix(Vec<u8>, bool),
    /// `None` is a parameter; the last says whether a rest follows.
    Template(Vec<Option<u8>>, bool, bool),
    Expression(u8),
}

#[derive(Clone, Debug, Arbitrary)]
enum Wanted {
    Exact(u8),
    Expression(u8),
}

#[derive(Clone, Debug, Arbitrary)]
struct Asked {
    /// Which route, hostname and match it is to meet, and which part of it not.
    aim: Option<(u8, u8, u8, u8)>,
    host: u8,
    path: Vec<u8>,
    slash: bool,
    method: u8,
    headers: Vec<(u8, u8)>,
    query: Option<Vec<(u8, u8)>>,
}

fuzz_target!(|input: Input| {
    let Input { mut routes, requests } = input;
    routes.truncate(12);
    for route in &mut routes {
        route.hostnames.truncate(3);
        route.matches.truncate(4);
        route.matches.iter_mut().for_each(Condition::bound);
    }
    let documents: Vec<_> = routes.iter().enumerate().map(|(index, route)| route.document(index)).collect();
    let listener = json!({"name": "gate", "address": "127.0.0.1:8443", "protocol": "HTTPS", "tls": {}});
    let policy = serde_json::from_value(json!({"listeners": [listener], "routes": documents})).expect("a document");
    let policy = accept::policy(&policy).expect("a good document");
    let (snapshot, problems) = link(&Parts { policy: Some(policy.into()), ..Parts::default() });
    assert_eq!(problems, []);
    for request in requests.iter().take(8) {
        let request = request.aimed(&routes);
        let seen = request.seen();
        let headers = request.header_map();
        let asked = Request {
            host: pick(&HOSTS, request.host),
            path: &seen.path,
            method: &Method::from_bytes(seen.method.as_bytes()).expect("a method"),
            headers: &headers,
            query: seen.query.as_deref(),
            message: Sent::Nothing,
        };
        let found = snapshot.listeners[0].table.find(&asked);
        assert_eq!(found, naive(&routes, &seen), "{seen:?}\n{}", json!(documents));
    }
});

fn pick<T: Copy>(words: &[T], number: u8) -> T {
    words[usize::from(number) % words.len()]
}

/// Where a word stands in a list.
fn place(words: &[&str], word: &str) -> u8 {
    let at = words.iter().position(|known| *known == word).expect("a known word");
    u8::try_from(at).expect("a short list")
}

fn joined(words: &[&str], segments: &[u8], slash: bool) -> String {
    let mut path: String = segments.iter().map(|number| format!("/{}", pick(words, *number))).collect();
    if slash || path.is_empty() {
        path.push('/');
    }
    path
}

/// Delimiters as they compare.
fn plain(path: &str) -> String {
    path.replace("%3B", ";").replace("%2C", ",")
}

impl Route {
    fn document(&self, index: usize) -> Value {
        let hostnames: Vec<_> = self.hostnames.iter().map(|number| pick(&HOSTNAMES, *number)).collect();
        let matches: Vec<_> = self.matches.iter().map(Condition::document).collect();
        let rule = json!({
            "name": "rule", "matches": matches, "allow": [{"anyone": {}}], "backends": [{"address": "127.0.0.1:1"}],
        });
        json!({"name": format!("route-{index}"), "listener": "gate", "hostnames": hostnames, "rules": [rule]})
    }
}

impl Condition {
    const EVERYTHING: Self = Self { path: None, method: None, headers: Vec::new(), parameters: Vec::new() };

    /// Each name once, as accepting wants it, and few segments.
    fn bound(&mut self) {
        for (list, names) in [(&mut self.headers, HEADERS.len()), (&mut self.parameters, PARAMETERS.len())] {
            let mut seen = Vec::new();
            list.retain(|(name, _)| {
                let name = usize::from(*name) % names;
                let is_new = !seen.contains(&name);
                seen.push(name);
                is_new
            });
        }
        // At most 64 expressions are allowed, so that few are asked for here.
        for list in [&mut self.headers, &mut self.parameters] {
            list.iter_mut().skip(1).for_each(|(_, wanted)| {
                if let Wanted::Expression(number) = wanted {
                    *wanted = Wanted::Exact(*number);
                }
            });
        }
        if !self.headers.is_empty() {
            for (_, wanted) in &mut self.parameters {
                if let Wanted::Expression(number) = wanted {
                    *wanted = Wanted::Exact(*number);
                }
            }
            if let Some(PathKind::Expression(number)) = self.path {
                self.path = Some(PathKind::Prefix(vec![number], false));
            }
        } else if !self.parameters.is_empty() && matches!(self.path, Some(PathKind::Expression(_))) {
            self.path = None;
        }
        match &mut self.path {
            Some(PathKind::Exact(segments, _) | PathKind::Prefix(segments, _)) => segments.truncate(5),
            Some(PathKind::Template(segments, ..)) => segments.truncate(6),
            Some(PathKind::Expression(_)) | None => {}
        }
    }

    fn document(&self) -> Value {
        let value = |names: &[&str], (name, wanted): &(u8, Wanted)| match wanted {
            Wanted::Exact(number) => json!({"name": pick(names, *name), "value": pick(&VALUES, *number)}),
            Wanted::Expression(number) => json!({
                "name": pick(names, *name), "type": "RegularExpression", "value": pick(&VALUE_EXPRESSIONS, *number).0,
            }),
        };
        let headers: Vec<_> = self.headers.iter().map(|header| value(&HEADERS, header)).collect();
        let parameters: Vec<_> = self.parameters.iter().map(|parameter| value(&PARAMETERS, parameter)).collect();
        let mut document = json!({"headers": headers, "queryParams": parameters});
        if let Some(path) = &self.path {
            document["path"] = path.document();
        }
        if let Some(method) = self.method {
            document["method"] = json!(pick(&METHODS, method));
        }
        document
    }
}

impl Wanted {
    /// The place of a value that meets it.
    fn met(&self) -> u8 {
        match self {
            Self::Exact(number) => *number % count_of(&VALUES),
            Self::Expression(_) => 0,
        }
    }
}

impl PathKind {
    fn document(&self) -> Value {
        let (kind, value) = match self {
            Self::Exact(segments, slash) => ("Exact", joined(&SEGMENTS, segments, *slash)),
            Self::Prefix(segments, slash) => ("PathPrefix", joined(&SEGMENTS, segments, *slash)),
            Self::Template(segments, slash, rest) => {
                let segment = |(index, segment): (usize, &Option<u8>)| match segment {
                    Some(number) => format!("/{}", pick(&SEGMENTS, *number)),
                    None => format!("/{{p{index}}}"),
                };
                let mut value: String = segments.iter().enumerate().map(segment).collect();
                if *rest {
                    value.push_str("/{rest...}");
                } else if *slash || value.is_empty() {
                    value.push('/');
                }
                ("Template", value)
            }
            Self::Expression(number) => ("RegularExpression", pick(&PATH_EXPRESSIONS, *number).0.to_owned()),
        };
        json!({"type": kind, "value": value})
    }
}

/// A request in the words of the naive matcher.
#[derive(Debug)]
struct Seen {
    host: String,
    path: String,
    method: &'static str,
    headers: Vec<(&'static str, String)>,
    query: Option<String>,
    parameters: Vec<(String, String)>,
}

/// A host below a hostname, by its place among them.
const BELOW: [&str; HOSTNAMES.len()] = ["a.test", "b.a.test", "x.a.test", "a.test", "x.b.a.test", "A.TEST:8443"];

impl Asked {
    /// Made to meet a match, where it aims at one.
    fn aimed(&self, routes: &[Route]) -> Self {
        let mut asked = self.clone();
        let Some((route, hostname, condition, missed)) = self.aim.filter(|_| !routes.is_empty()) else { return asked };
        let route = &routes[usize::from(route) % routes.len()];
        let missed = missed % 8;
        if missed != 3 && !route.hostnames.is_empty() {
            let hostname = usize::from(pick(&route.hostnames, hostname)) % HOSTNAMES.len();
            asked.host = place(&HOSTS, BELOW[hostname]);
        }
        if route.matches.is_empty() {
            return asked;
        }
        let condition = &route.matches[usize::from(condition) % route.matches.len()];
        if missed != 4 {
            asked.meet_path(condition.path.as_ref());
        }
        if missed != 5 {
            asked.method = condition.method.unwrap_or(self.method);
        }
        // Another line of a header would change its value; of a parameter only the first counts.
        if missed != 6 {
            asked.headers = condition.headers.iter().map(|(name, wanted)| (*name, wanted.met())).collect();
        }
        if missed != 7 && !condition.parameters.is_empty() {
            let name = |name: u8| place(&WRITTEN_NAMES, pick(&["q", "r", "a+b"], name));
            let value = |wanted: &Wanted| place(&WRITTEN_VALUES, ["1", "2", "1%2C2", ""][usize::from(wanted.met())]);
            let met = condition.parameters.iter().map(|(number, wanted)| (name(*number), value(wanted)));
            asked.query = Some(met.chain(self.query.clone().into_iter().flatten()).collect());
        }
        asked
    }

    /// Takes a path that meets a condition; what was drawn stands in for its parameters and its rest.
    fn meet_path(&mut self, kind: Option<&PathKind>) {
        let known = |segment: &u8| segment % count_of(&SEGMENTS);
        let mut drawn = std::mem::take(&mut self.path);
        match kind {
            None => self.path = drawn,
            Some(PathKind::Exact(segments, slash)) => {
                (self.path, self.slash) = (segments.iter().map(known).collect(), *slash);
            }
            Some(PathKind::Prefix(segments, _)) => {
                drawn.truncate(7 - segments.len());
                self.path = segments.iter().map(known).chain(drawn).collect();
            }
            Some(PathKind::Template(segments, slash, rest)) => {
                let parameter = drawn.first().copied().unwrap_or_default();
                self.path = segments.iter().map(|segment| segment.as_ref().map_or(parameter, known)).collect();
                if *rest && segments.len() < 7 {
                    self.path.extend(drawn.pop());
                }
                self.slash = *slash || (*rest && self.path.len() == segments.len());
            }
            // It meets all of them.
            Some(PathKind::Expression(_)) => (self.path, self.slash) = (vec![0, 1], false),
        }
    }

    fn seen(&self) -> Seen {
        let host = pick(&HOSTS, self.host).to_ascii_lowercase();
        let host = host.split(':').next().expect("a first part").trim_end_matches('.').to_owned();
        let segments = &self.path[..self.path.len().min(7)];
        let path = path::normalise(&joined(&ASKED_SEGMENTS, segments, self.slash)).expect("a good path").into_owned();
        let line = |name: &str| {
            let named = self.headers.iter().filter(|(number, _)| pick(&HEADERS, *number) == name);
            let values: Vec<_> = named.map(|(_, value)| pick(&VALUES, *value)).collect();
            (!values.is_empty()).then(|| values.join(","))
        };
        let headers = HEADERS.iter().filter_map(|name| Some((*name, line(name)?))).collect();
        let pairs = self.query.iter().flatten();
        let written: Vec<_> = pairs
            .map(|(name, value)| format!("{}={}", pick(&WRITTEN_NAMES, *name), pick(&WRITTEN_VALUES, *value)))
            .collect();
        let read = |text: &str| {
            text.replace('+', " ").replace("%20", " ").replace("%71", "q").replace("%31", "1").replace("%2C", ",")
        };
        let parameters = written.iter().map(|pair| pair.split_once('=').expect("a pair"));
        let parameters = parameters.map(|(name, value)| (read(name), read(value))).collect();
        let query = self.query.is_some().then(|| written.join("&"));
        Seen { host, path, method: pick(&METHODS, self.method), headers, query, parameters }
    }

    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_static(pick(&VALUES, *value));
            map.append(HeaderName::from_static(pick(&HEADERS, *name)), value);
        }
        map
    }
}

/// Gateway API's precedence, as a value of which the least goes first.
type Precedence = ((u8, isize), (u8, [isize; 3]), bool, isize, isize, usize);

fn naive(routes: &[Route], seen: &Seen) -> Result<usize, Reason> {
    let mut best: Option<(Precedence, usize)> = None;
    let mut furthest = Reason::RouteNoHost;
    let mut order = 0;
    let everything = [Condition::EVERYTHING];
    for (rule, route) in routes.iter().enumerate() {
        let matches = if route.matches.is_empty() { &everything[..] } else { &route.matches };
        for condition in matches {
            order += 1;
            for host in hosts(route, &seen.host) {
                furthest = furthest.max(Reason::RouteNoPath);
                let Some(path) = path_precedence(condition.path.as_ref(), &seen.path) else { continue };
                furthest = furthest.max(Reason::RouteNoMethod);
                if condition.method.is_some_and(|method| pick(&METHODS, method) != seen.method) {
                    continue;
                }
                furthest = furthest.max(Reason::RouteNoMatch);
                if !values_hold(condition, seen) {
                    continue;
                }
                let (headers, parameters) = (count(&condition.headers), count(&condition.parameters));
                let precedence = (host, path, condition.method.is_none(), -headers, -parameters, order);
                if best.as_ref().is_none_or(|(best, _)| precedence < *best) {
                    best = Some((precedence, rule));
                }
            }
        }
    }
    best.map(|(_, rule)| rule).ok_or(furthest)
}

fn count_of<T>(list: &[T]) -> u8 {
    u8::try_from(list.len()).expect("a short list")
}

fn count<T>(list: &[T]) -> isize {
    isize::try_from(list.len()).expect("a small number")
}

/// How specific each hostname of a route is that covers a host.
fn hosts(route: &Route, host: &str) -> Vec<(u8, isize)> {
    if route.hostnames.is_empty() {
        return vec![(2, 0)];
    }
    let names = route.hostnames.iter().map(|number| pick(&HOSTNAMES, *number).to_ascii_lowercase());
    names
        .filter_map(|name| match name.trim_end_matches('.').strip_prefix('*') {
            Some(end) => host.ends_with(end).then_some((1, -isize::try_from(end.len()).expect("a small number"))),
            None => (name.trim_end_matches('.') == host).then_some((0, 0)),
        })
        .collect()
}

fn path_precedence(kind: Option<&PathKind>, path: &str) -> Option<(u8, [isize; 3])> {
    let path = plain(path);
    let length = |text: &str| isize::try_from(text.len()).expect("a small number");
    match kind {
        None => Some((2, [0; 3])),
        Some(PathKind::Exact(segments, slash)) => {
            (plain(&joined(&SEGMENTS, segments, *slash)) == path).then_some((0, [0; 3]))
        }
        Some(PathKind::Prefix(segments, slash)) => {
            let value = plain(&joined(&SEGMENTS, segments, *slash));
            let prefix = value.strip_suffix('/').unwrap_or(&value);
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((2, [-length(prefix), 0, 0]))
        }
        Some(PathKind::Template(segments, slash, rest)) => {
            let mut wanted: Vec<_> =
                segments.iter().map(|segment| segment.map(|number| pick(&SEGMENTS, number))).collect();
            if !*rest && (*slash || wanted.is_empty()) {
                wanted.push(Some(""));
            }
            let given: Vec<_> = path[1..].split('/').collect();
            let enough = if *rest { given.len() > wanted.len() } else { given.len() == wanted.len() };
            let fits = |(wanted, given): (&Option<&str>, &&str)| match wanted {
                Some(literal) => plain(literal) == **given,
                None => !given.is_empty(),
            };
            let literals = count(&wanted.iter().flatten().filter(|literal| !literal.is_empty()).collect::<Vec<_>>());
            (enough && wanted.iter().zip(&given).all(fits))
                .then(|| (1, [-literals, isize::from(*rest), -count(&wanted)]))
        }
        Some(PathKind::Expression(number)) => pick(&PATH_EXPRESSIONS, *number).1(&path).then_some((3, [0; 3])),
    }
}

fn values_hold(condition: &Condition, seen: &Seen) -> bool {
    let holds = |wanted: &Wanted, given: &str| match wanted {
        Wanted::Exact(number) => pick(&VALUES, *number) == given,
        Wanted::Expression(number) => pick(&VALUE_EXPRESSIONS, *number).1(given),
    };
    condition.headers.iter().all(|(name, wanted)| {
        let given = seen.headers.iter().find(|(given, _)| *given == pick(&HEADERS, *name));
        given.is_some_and(|(_, value)| holds(wanted, value))
    }) && condition.parameters.iter().all(|(name, wanted)| {
        let given = seen.parameters.iter().find(|(given, _)| given == pick(&PARAMETERS, *name));
        given.is_some_and(|(_, value)| holds(wanted, value))
    })
}
