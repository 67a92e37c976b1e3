//! Upstreams by their names, out of a real DNS server: both families, changes, and servers that fail.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::thread;

use postern_tests::dnsmasq::Dnsmasq;
use postern_tests::gate::Gate;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, wait_metric, wait_until};

const RESOLVED: &str = "postern_dns_names{state=\"resolved\"}";
const STALE: &str = "postern_dns_names{state=\"stale\"}";
const UNRESOLVED: &str = "postern_dns_names{state=\"unresolved\"}";
const USABLE: &str = "postern_upstream_endpoints{state=\"usable\"}";

/// A gate whose one rule sends everything to a name at a port, and asks this server for it.
fn gate(server: SocketAddr, host: &str, port: u16) -> Gate {
    gate_with(server, host, port, |_| {})
}

fn gate_with(server: SocketAddr, host: &str, port: u16, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.3");
        document["settings"]["dns"] = json!({ "servers": [server] });
        // Turns are each worker's own.
        document["settings"]["workers"] = json!(1);
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        rule["matches"] = json!([]);
        rule["backends"] = json!([{ "host": host, "port": port }]);
        change(document);
    })
    .unwrap()
}

/// An upstream at every address, of both families.
fn everywhere() -> Upstream {
    Upstream::start_on("[::]:0".parse().unwrap()).unwrap()
}

fn call(gate: &Gate) -> u16 {
    gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status.unwrap()
}

/// Where the last of so many requests went.
fn used(gate: &Gate, from: usize, to: usize) -> BTreeSet<String> {
    let all = rows(&gate.sidecar, to);
    all[from..].iter().map(|row| row["upstream"].as_str().unwrap().to_owned()).collect()
}

fn set(addresses: &[&str], port: u16) -> BTreeSet<String> {
    let text = |address: &&str| SocketAddr::new(address.parse().unwrap(), port).to_string();
    addresses.iter().map(text).collect()
}

/// Waits until the gate says that the name has this address, and no other.
fn wait_addresses(gate: &Gate, wanted: &str) {
    let is_it = |line: &postern_tests::process::LogLine| {
        line.message() == "a name has these addresses" && line.text("addresses") == Some(wanted)
    };
    gate.sidecar.wait_for(wanted, is_it).unwrap();
}

#[test]
fn all_addresses_of_both_families_are_used() {
    let upstream = everywhere();
    let port = upstream.address().port();
    let server = Dnsmasq::start("127.0.0.2 app.test\n127.0.0.3 app.test\n::1 app.test\n").unwrap();
    for (host, settings) in [
        ("app.test", json!({})),
        ("App.Test.", json!({})),
        ("alias.test", json!({})),
        ("app", json!({ "search": ["elsewhere.test", "test"] })),
        ("app.test", json!({ "search": ["elsewhere.test"], "ndots": 5 })),
    ] {
        let gate = gate_with(server.address(), host, port, |document| {
            for (field, value) in settings.as_object().unwrap() {
                document["settings"]["dns"][field] = value.clone();
            }
        });
        // The first answer was waited for.
        assert_eq!([(); 6].map(|()| call(&gate)), [200; 6], "{host} {settings}");
        assert_eq!(used(&gate, 0, 6), set(&["127.0.0.2", "127.0.0.3", "::1"], port), "{host} {settings}");
        assert_eq!((metric(&gate.sidecar, RESOLVED), metric(&gate.sidecar, USABLE)), (1, 3));
    }
}

/// Addresses come and go while requests are under way, the slow ones among them: none fails.
#[test]
fn a_change_of_addresses_fails_no_request() {
    const CALLS: usize = 2000;
    let upstream = everywhere();
    let port = upstream.address().port();
    let server = Dnsmasq::start("127.0.0.2 app.test\n").unwrap();
    let gate = gate(server.address(), "app.test", port);
    let curl = |pattern: &str, arguments: &[&str]| {
        let curl = gate.curl(Some("billing"), pattern).unwrap().arg("-o").arg("/dev/null");
        let curl = arguments.iter().fold(curl, |curl, argument| curl.arg(*argument));
        curl.arg("-w").arg("%{http_code}\\n")
    };
    thread::scope(|scope| {
        let slow = scope.spawn(|| curl("/slow?ms=5000", &[]).call().unwrap().text());
        wait_until("the slow one", || upstream.requests() == 1);
        let many = scope.spawn(|| {
            let pattern = format!("/slow?ms=5&n=[1-{CALLS}]");
            curl(&pattern, &["--http2", "--parallel", "--parallel-max", "5"]).call().unwrap().text()
        });
        for last in [3, 4, 5] {
            server.serve(&format!("127.0.0.{last} app.test\n")).unwrap();
            wait_addresses(&gate, &format!("[127.0.0.{last}]"));
        }
        assert_eq!(slow.join().unwrap(), "200\n");
        assert_eq!(many.join().unwrap(), "200\n".repeat(CALLS));
    });
    assert_eq!(call(&gate), 200);
    let all = rows(&gate.sidecar, CALLS + 2);
    assert_eq!(all.iter().filter(|row| !row["reason"].is_null()).count(), 0);
    let used = used(&gate, 0, CALLS + 2);
    assert!(used.contains(&format!("127.0.0.2:{port}")), "{used:?}");
    assert_eq!(all.last().unwrap()["upstream"], json!(format!("127.0.0.5:{port}")));
    wait_metric(&gate.sidecar, USABLE, 1);
}

#[test]
fn a_name_that_is_not_there_refuses_its_requests_until_it_is() {
    let upstream = everywhere();
    let port = upstream.address().port();
    let server = Dnsmasq::start("127.0.0.2 other.test\n").unwrap();
    let gate = gate(server.address(), "app.test", port);
    assert_eq!(call(&gate), 503);
    let shown = columns(&newest(&gate.sidecar, 1), &["verdict", "reason", "status", "attempts"]);
    assert_eq!(shown, json!(["allowed", "upstream_dns", 503, 0]));
    assert_eq!(metric(&gate.sidecar, UNRESOLVED), 1);
    server.serve("127.0.0.2 app.test\n").unwrap();
    wait_until("an address", || call(&gate) == 200);
    // And once more: "there is none" is an answer, too.
    server.serve("127.0.0.2 other.test\n").unwrap();
    wait_metric(&gate.sidecar, UNRESOLVED, 1);
    wait_until("none", || call(&gate) == 503);
    assert!(metric(&gate.sidecar, "postern_dns_lookups_total{result=\"nothing\"}") >= 2);
}

#[test]
fn what_is_known_is_used_while_nobody_answers() {
    let upstream = everywhere();
    let port = upstream.address().port();
    let mut server = Dnsmasq::start("127.0.0.2 app.test\n").unwrap();
    let gate = gate(server.address(), "app.test", port);
    assert_eq!(call(&gate), 200);
    server.stop();
    wait_metric(&gate.sidecar, STALE, 1);
    assert!(metric(&gate.sidecar, "postern_dns_lookups_total{result=\"failed\"}") >= 1);
    assert_eq!(call(&gate), 200);
    let told = "a name is not confirmed; its addresses stay in use";
    assert_eq!(gate.sidecar.wait_for(told, |line| line.message() == told).unwrap().text("name"), Some("app.test"));
    server.restart("127.0.0.3 app.test\n").unwrap();
    wait_addresses(&gate, "[127.0.0.3]");
    wait_metric(&gate.sidecar, RESOLVED, 1);
    wait_until("the other address", || {
        call(&gate);
        rows(&gate.sidecar, 3).last().unwrap()["upstream"] == json!(format!("127.0.0.3:{port}"))
    });
}

/// A server that never answers holds up neither the start nor other routes.
#[test]
fn who_never_answers_holds_nothing_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gate = gate_with(silent.local_addr().unwrap(), "app.test", 80, |document| {
        let route = &mut document["policy"]["routes"][0];
        let mut rule = route["rules"][0].clone();
        rule["name"] = json!("other");
        rule["matches"] = json!([{ "path": { "type": "PathPrefix", "value": "/other" } }]);
        // Names and addresses stand side by side.
        rule["backends"] = json!([{ "host": "app.test", "port": 80 }, { "host": "localhost", "port": 1, "weight": 0 }]);
        route["rules"].as_array_mut().unwrap().push(rule);
    });
    assert_eq!(call(&gate), 503);
    assert_eq!(columns(&newest(&gate.sidecar, 1), &["reason"]), json!(["upstream_dns"]));
    // What the hosts file says needs no server.
    wait_metric(&gate.sidecar, RESOLVED, 1);
}

/// More than fits into a packet comes over TCP.
#[test]
fn many_addresses_come_whole() {
    let hosts: String = (1..=200).map(|host| format!("127.0.1.{host} app.test\n")).collect();
    let server = Dnsmasq::start(&hosts).unwrap();
    let gate = gate(server.address(), "app.test", 80);
    wait_metric(&gate.sidecar, USABLE, 200);
}
