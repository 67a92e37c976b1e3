//! Several certificates of the gate's own: the name a client asks for chooses, and a connection is good for its names.

use postern_tests::ca::{Issued, LeafOptions, Purpose};
use postern_tests::clients::{Answer, Curl};
use postern_tests::gate::Gate;
use serde_json::{Value, json};
use sidecar_decide::Reason;

use crate::observed::{columns, newest, status, wait_until};

const REQUEST: &str = "GET /orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn server(gate: &Gate, name: &str, dns_names: &[&str], addresses: &[&str]) -> Issued {
    let leaf = LeafOptions {
        common_name: name.to_owned(),
        dns_names: dns_names.iter().map(|&name| name.to_owned()).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        purposes: vec![Purpose::Server],
        ..LeafOptions::default()
    };
    gate.authority.issue(&leaf).unwrap()
}

/// Changes the document and waits until another identity is loaded.
fn load(gate: &mut Gate, change: impl FnOnce(&mut Value)) {
    let before = status(&gate.sidecar).parts.identity.loaded;
    change(&mut gate.document);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("another identity", || status(&gate.sidecar).parts.identity.loaded != before);
}

/// A gate of two listeners, the second of which refuses unknown names, with certificates for a shop and an order desk.
fn two_listeners() -> Gate {
    let mut gate = Gate::start_with(|document| {
        let mut strict = document["policy"]["listeners"][0].clone();
        strict["name"] = json!("strict");
        strict["tls"]["unknownServerName"] = json!("Refuse");
        document["policy"]["listeners"].as_array_mut().unwrap().push(strict);
        document["policy"]["routes"][0]["hostnames"] = json!([]);
        let mut route = document["policy"]["routes"][0].clone();
        (route["name"], route["listener"]) = (json!("demo/strict"), json!("strict"));
        document["policy"]["routes"].as_array_mut().unwrap().push(route);
    })
    .unwrap();
    gate.keep("shop", &server(&gate, "shop", &["shop.example", "*.shop.example"], &[])).unwrap();
    gate.keep("orders", &server(&gate, "orders", &["orders.shop.example"], &["127.0.0.2"])).unwrap();
    let pair = |stem: &str| json!({ "chain": format!("{stem}.pem"), "key": format!("{stem}.key") });
    load(&mut gate, |document| document["identity"]["certificates"] = json!([pair("shop"), pair("orders")]));
    gate
}

/// Subject of the certificate that a listener shows, or the alert.
fn shown(gate: &Gate, listener: &str, name: Option<&str>, flag: &str) -> Result<String, Option<u8>> {
    let client = postern_tests::clients::OpensslClient::new(gate.sidecar.listener(listener).unwrap());
    let client = client.folder(gate.folder.path()).authority("ca.pem").certificate("billing").arg(flag);
    let handshake = client.asking_for(name).talk(REQUEST).unwrap();
    match handshake.subject() {
        Some(subject) => Ok(subject.trim_start_matches("CN = ").to_owned()),
        None => Err(handshake.alert()),
    }
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let gate = two_listeners();
    let alert = Reason::TlsUnknownSni.facts().alert;
    let refused = || Err(alert);
    let shows = |name: &str| Ok(name.to_owned());
    let table = [
        ("gate", Some("shop.example"), shows("shop")),
        ("gate", Some("a.shop.example"), shows("shop")),
        ("gate", Some("Orders.Shop.Example"), shows("orders")),
        ("gate", Some("localhost"), shows("gate")),
        ("gate", Some("other.example"), shows("gate")),
        ("gate", None, shows("gate")),
        ("strict", Some("shop.example"), shows("shop")),
        ("strict", Some("localhost"), shows("gate")),
        ("strict", None, shows("gate")),
        ("strict", Some("other.example"), refused()),
        ("strict", Some("b.a.shop.example"), refused()),
    ];
    let mut refusals = 0;
    for (listener, name, expected) in table {
        for flag in ["-tls1_3", "-tls1_2"] {
            let case = format!("{listener} {name:?} {flag}");
            assert_eq!(shown(&gate, listener, name, flag), expected, "{case}");
            if expected.is_err() {
                refusals += 1;
                let query = "select * from requests where reason = 'tls_unknown_sni' order by id";
                let rows = || gate.sidecar.launch().query(query).unwrap();
                wait_until("its row", || rows().len() == refusals);
                let shown = ["kind", "verdict", "listener", "sni", "subject", "status"];
                let expected = json!(["handshake", "refused", "strict", name, null, null]);
                assert_eq!(columns(&rows()[refusals - 1], &shown), expected, "{case}");
            }
        }
    }
}

/// A call to `https://NAME`, wherever that is, with `Host: HOST`.
fn call(gate: &Gate, listener: &str, name: &str, host: &str, flag: &str) -> Answer {
    let port = gate.sidecar.listener(listener).unwrap().port();
    let curl =
        Curl::new(format!("https://{name}:{port}/orders")).arg("--resolve").arg(format!("{name}:{port}:127.0.0.1"));
    let curl = curl.authority("ca.pem").folder(gate.folder.path()).certificate("billing").arg(flag);
    curl.arg("-H").arg(format!("Host: {host}")).call().unwrap()
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let gate = two_listeners();
    let table = [
        ("gate", "shop.example", "shop.example", 200),
        ("gate", "shop.example", "a.shop.example:443", 200),
        ("gate", "shop.example", "localhost", 421),
        ("gate", "shop.example", "other.example", 421),
        ("gate", "orders.shop.example", "shop.example", 421),
        ("gate", "localhost", "other.example", 200),
        ("gate", "localhost", "shop.example", 421),
        ("strict", "localhost", "other.example", 421),
        ("strict", "localhost", "127.0.0.1", 200),
    ];
    let mut rows = 0;
    for (listener, name, host, expected) in table {
        for (flag, protocol) in [("--http2", "HTTP/2"), ("--http1.1", "HTTP/1.1")] {
            let case = format!("{listener} {name} {host} {protocol}");
            let answer = call(&gate, listener, name, host, flag);
            assert_eq!(answer.status, Some(expected), "{case}: {}", answer.stderr);
            rows += 1;
            let reason = (expected == 421).then_some("route_misdirected");
            assert_eq!(answer.header("postern-reason"), reason, "{case}");
            assert_eq!(
                columns(&newest(&gate.sidecar, rows), &["reason", "sni", "host", "status", "protocol", "identity"]),
                json!([reason, name, host, expected, protocol, "demo/billing"]),
                "{case}"
            );
        }
    }
}

#[test]
fn a_listener_with_its_own_certificate_shows_that_before_the_others() {
    let mut gate = two_listeners();
    // As a device's: no name that a client could ask for.
    gate.keep("device", &server(&gate, "device", &[], &[])).unwrap();
    gate.keep("web", &server(&gate, "web", &["localhost"], &[])).unwrap();
    let pair = |name: &str| json!({ "name": name, "chain": format!("{name}.pem"), "key": format!("{name}.key") });
    load(&mut gate, |document| {
        let certificates = document["identity"]["certificates"].as_array_mut().unwrap();
        certificates.extend([pair("device"), pair("web")]);
        document["policy"]["listeners"][0]["tls"]["certificates"] = json!(["device", "web"]);
    });
    let table = [
        ("gate", Some("localhost"), "web"),
        ("gate", Some("other.example"), "device"),
        ("gate", Some("shop.example"), "shop"),
        // It has the address.
        ("gate", None, "gate"),
        ("strict", Some("localhost"), "gate"),
    ];
    for (listener, name, expected) in table {
        assert_eq!(shown(&gate, listener, name, "-tls1_3"), Ok(expected.to_owned()), "{listener} {name:?}");
    }
}

#[test]
fn a_client_that_comes_by_address_is_shown_the_certificate_of_the_address() {
    let mut gate = Gate::start_with(|document| {
        document["policy"]["listeners"][0]["address"] = json!("[::]:0");
        document["policy"]["routes"][0]["hostnames"] = json!([]);
    })
    .unwrap();
    gate.keep("second", &server(&gate, "second", &[], &["127.0.0.2", "::1"])).unwrap();
    load(&mut gate, |document| {
        document["identity"]["certificates"] = json!([{ "chain": "second.pem", "key": "second.key" }]);
    });
    let port = gate.sidecar.listener("gate").unwrap().port();
    for address in ["127.0.0.1", "127.0.0.2", "[::1]"] {
        // curl compares the address with the certificate.
        let curl = Curl::new(format!("https://{address}:{port}/orders")).authority("ca.pem").folder(gate.folder.path());
        let answer = curl.certificate("billing").call().unwrap();
        assert_eq!(answer.status, Some(200), "{address}: {}", answer.stderr);
    }
}

#[test]
fn all_pairs_change_together_or_none() {
    let gate = two_listeners();
    let before = status(&gate.sidecar).parts.identity;
    let renewed = server(&gate, "orders renewed", &["orders.shop.example"], &[]);
    let shop = server(&gate, "shop renewed", &["shop.example"], &[]);
    gate.folder.write("shop.pem", &shop.chain_pem).unwrap();
    gate.folder.write("shop.key", &shop.key_pem).unwrap();
    gate.folder.write("orders.pem", &renewed.chain_pem).unwrap();
    wait_until("a refused identity", || status(&gate.sidecar).parts.identity.refused.is_some());
    let why = "`identity.certificates[1].key`: is not the key of `CN=orders renewed` in `orders.pem`; write the chain with \
         its leaf first, and the key that leaf was issued for";
    let state = status(&gate.sidecar).parts.identity;
    assert_eq!(state.why.as_deref(), Some(why));
    // Loaded meanwhile may be the shop's new pair, which came whole; the orders' old pair stays.
    assert_eq!(shown(&gate, "gate", Some("orders.shop.example"), "-tls1_3"), Ok("orders".to_owned()));
    gate.folder.write("orders.key", &renewed.key_pem).unwrap();
    wait_until("the new pair", || {
        let state = status(&gate.sidecar).parts.identity;
        state.refused.is_none() && state.loaded != before.loaded
    });
    wait_until("orders renewed", || {
        shown(&gate, "gate", Some("orders.shop.example"), "-tls1_3") == Ok("orders renewed".to_owned())
    });
    assert_eq!(shown(&gate, "gate", Some("shop.example"), "-tls1_3"), Ok("shop renewed".to_owned()));
}
