//! Two gates, one behind the other: HTTP on loopback into the first, mutual TLS between them; and what becomes of the
//! connections between them when trust or a certificate changes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use postern_tests::ca::{Authority, LeafOptions, Purpose};
use postern_tests::clients::{Answer, Curl};
use postern_tests::gate::{GATE_URI, Gate};
use postern_tests::nginx::Nginx;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::observed::{columns, metric, newest, rows, status, wait_metric, wait_until};

const OPEN: &str = "postern_upstream_connections_open";

/// The gate in front of the application: it knows the other one as `demo/front`.
fn server() -> Gate {
    Gate::start_with(|document| {
        let front = json!({ "name": "demo/front", "recognise": [{ "bundle": "ours", "uri": GATE_URI }] });
        document["identities"].as_array_mut().unwrap().push(front);
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        rule["allow"] = json!([{ "identity": "demo/front" }]);
    })
    .unwrap()
}

/// The gate in front of the caller: without TLS on loopback, and with it to the other one.
fn client(server: &Gate) -> Gate {
    let address = server.sidecar.listener("gate").unwrap();
    server
        .start_beside(|document| {
            document["version"] = json!("1.3");
            document["settings"]["workers"] = json!(1);
            let known = json!({ "name": "demo/orders", "recognise": [{ "bundle": "ours", "uri": GATE_URI }] });
            document["identities"].as_array_mut().unwrap().push(known);
            document["policy"]["listeners"] = json!([{ "name": "out", "address": "127.0.0.1:0", "protocol": "HTTP" }]);
            let tls = json!({ "mode": "Mutual", "trust": ["ours"], "peers": [GATE_URI] });
            document["policy"]["routes"] = json!([{
                "name": "demo/out",
                "listener": "out",
                "rules": [{
                    "name": "all",
                    "allow": [{ "anyone": {} }],
                    "backends": [{ "address": address, "tls": tls }],
                }],
            }]);
        })
        .unwrap()
}

fn call(client: &Gate, path: &str, arguments: &[&str]) -> Answer {
    let port = client.sidecar.listener("out").unwrap().port();
    let curl = Curl::new(format!("http://localhost:{port}{path}"));
    arguments.iter().fold(curl, |curl, argument| curl.arg(*argument)).call().unwrap()
}

/// Replaces the client gate's document and waits until all of it is served.
fn change(gate: &Gate, change: impl FnOnce(&mut Value)) {
    let before = status(&gate.sidecar).parts;
    let mut document = gate.document.clone();
    change(&mut document);
    gate.folder.write_document(&document).unwrap();
    wait_until("the reload", || status(&gate.sidecar).parts != before);
}

#[test]
fn two_gates_make_a_hop_of_mutual_tls() {
    let server = server();
    let client = client(&server);
    for path in ["/orders/1", "/orders/2"] {
        let answer = call(&client, path, &[]);
        assert_eq!((answer.status, answer.json().unwrap()["path"].as_str()), (Some(200), Some(path)));
    }
    let fields = ["listener", "route", "verdict", "status", "path", "identity", "tls_version", "protocol", "attempts"];
    let of = |gate: &Gate| rows(&gate.sidecar, 2).iter().map(|row| columns(row, &fields)).collect::<Vec<_>>();
    let sent = |path: &str| json!(["out", "demo/out", "allowed", 200, path, null, null, "HTTP/1.1", 1]);
    assert_eq!(of(&client), [sent("/orders/1"), sent("/orders/2")]);
    let came =
        |path: &str| json!(["gate", "demo/orders", "allowed", 200, path, "demo/front", "TLSv1.3", "HTTP/1.1", 1]);
    assert_eq!(of(&server), [came("/orders/1"), came("/orders/2")]);
    assert_eq!(newest(&client.sidecar, 2)["upstream"], json!(server.sidecar.listener("gate").unwrap()));
    // Somebody who comes without the gate has no certificate.
    let direct = server.curl(None, "/orders").unwrap().call().unwrap();
    assert_eq!(direct.status, None);
}

/// Every way in which a server can lose what its connections rest on, with what rows say of them.
#[test]
fn connections_that_would_not_be_made_any_more_are_cut() {
    let server = server();
    let serial = known_serial(&server);
    let client = client(&server);
    let foreign = Authority::new("Foreign").unwrap();
    client.folder.write("foreign.pem", foreign.root_pem()).unwrap();
    let revoke = |state: Value| json!({ "identities": [state] });
    let table: [(&str, Value, &str); 4] = [
        ("revocations", json!({ "serials": [{ "bundle": "ours", "serial": serial }] }), "upstream_tls_revoked"),
        ("revocations", revoke(json!({ "name": "demo/orders", "state": "Suspended" })), "upstream_tls_revoked"),
        (
            "revocations",
            revoke(json!({ "name": "demo/orders", "acceptIssuedAfter": "2999-01-01T00:00:00Z" })),
            "upstream_tls_revoked",
        ),
        (
            "bundles",
            json!({ "ours": { "roots": ["foreign.pem"], "vouchesFor": { "spiffe": ["demo.local"] } } }),
            "upstream_tls_untrusted",
        ),
    ];
    for (part, value, reason) in table {
        assert_eq!(call(&client, "/orders", &[]).status, Some(200), "{value}");
        thread::scope(|scope| {
            let before = server.upstream.requests();
            let waiting = scope.spawn(|| call(&client, "/slow?ms=60000", &[]));
            let reading = scope.spawn(|| call(&client, "/bytes?n=100000000", &["--limit-rate", "2M"]));
            wait_until("both", || server.upstream.requests() == before + 2);
            wait_metric(&client.sidecar, OPEN, 2);
            change(&client, |document| document["trust"][part] = value.clone());
            let refused = waiting.join().unwrap();
            assert_eq!((refused.status, refused.header("postern-reason")), (Some(502), Some(reason)), "{value}");
            wait_metric(&client.sidecar, OPEN, 0);
            let broken = reading.join().unwrap();
            assert!(broken.status == Some(200) && broken.exit_code != Some(0), "{value}: {broken:?}");
        });
        let refused = call(&client, "/orders", &[]);
        assert_eq!((refused.status, refused.header("postern-reason")), (Some(502), Some(reason)), "{value}");
        change(&client, |_| {});
    }
    let reasons = client.sidecar.launch().query("select path, reason from requests where reason is not null").unwrap();
    assert_eq!(reasons.len(), 12, "{reasons:?}");
}

/// What is under way goes on when its backend becomes another one, and is judged all the same.
#[test]
fn what_is_under_way_is_judged_though_nobody_uses_its_backend_any_more() {
    let server = server();
    let client = client(&server);
    let revoked = json!({ "identities": [{ "name": "demo/orders", "state": "Revoked" }] });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = |document: &mut Value| {
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": { "maxIdle": 7 } });
    };
    let gone = |document: &mut Value| {
        document["policy"]["routes"][0]["rules"][0]["backends"][0]["address"] = json!(nobody);
    };
    let somebody_else = |document: &mut Value| {
        document["policy"]["routes"][0]["rules"][0]["backends"][0]["tls"]["peers"] =
            json!(["spiffe://demo.local/else"]);
    };
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let table: [(Edit<'_>, Option<&Value>, &str); 3] = [
        (&other, Some(&revoked), "upstream_tls_revoked"),
        (&gone, Some(&revoked), "upstream_tls"),
        (&somebody_else, None, "upstream_tls_peer"),
    ];
    for (index, (edit, revocations, reason)) in table.into_iter().enumerate() {
        thread::scope(|scope| {
            let before = server.upstream.requests();
            let reading = scope.spawn(|| call(&client, "/bytes?n=100000000", &["--limit-rate", "2M"]));
            wait_until("a download", || server.upstream.requests() == before + 1);
            change(&client, |document| edit(document));
            if let Some(revocations) = revocations {
                assert_eq!(metric(&client.sidecar, OPEN), 1, "{reason}: it goes on");
                change(&client, |document| {
                    edit(document);
                    document["trust"]["revocations"] = revocations.clone();
                });
            }
            wait_metric(&client.sidecar, OPEN, 0);
            let broken = reading.join().unwrap();
            assert!(broken.status == Some(200) && broken.exit_code != Some(0), "{reason}: {broken:?}");
        });
        let row = newest(&client.sidecar, index + 1);
        assert_eq!(columns(&row, &["status", "reason"]), json!([200, reason]));
        change(&client, |_| {});
    }
}

/// A tunnel goes with the connection that it passes on.
#[test]
fn a_tunnel_to_a_server_that_is_revoked_is_cut() {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server();
    change(&server, |document| {
        document["policy"]["routes"][0]["rules"][0]["backends"][0]["address"] = json!(echo.local_addr().unwrap());
    });
    let client = client(&server);
    let mut tunnel = TcpStream::connect(client.sidecar.listener("out").unwrap()).unwrap();
    tunnel.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    let (mut upstream, _) = echo.accept().unwrap();
    read_head(&mut upstream);
    upstream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    read_head(&mut tunnel);
    tunnel.write_all(b"up").unwrap();
    upstream.read_exact(&mut [0; 2]).unwrap();
    change(&client, |document| {
        document["trust"]["revocations"] = json!({ "identities": [{ "name": "demo/orders", "state": "Revoked" }] });
    });
    // However it ends, it does.
    let _ended = tunnel.read(&mut [0; 1]);
    let row = newest(&client.sidecar, 1);
    assert_eq!(columns(&row, &["kind", "status", "reason"]), json!(["tunnel", 101, "upstream_tls_revoked"]));
    wait_metric(&client.sidecar, OPEN, 0);
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

/// Gives the gate in front of the application a certificate whose serial number is known.
fn known_serial(server: &Gate) -> String {
    let issued = server.authority.issue(&gate_certificate()).unwrap();
    let before = status(&server.sidecar).parts.identity;
    server.keep("server", &issued).unwrap();
    wait_until("the certificate", || status(&server.sidecar).parts.identity != before);
    issued.serial().unwrap()
}

fn gate_certificate() -> LeafOptions {
    let gate = LeafOptions { uris: vec![GATE_URI.to_owned()], ..LeafOptions::server("gate") };
    gate.with_purposes(&[Purpose::Server, Purpose::Client])
}

/// A connection that shows the gate's old certificate is let go after its request; new ones show the new one.
#[test]
fn a_new_certificate_is_shown_by_the_next_connection() {
    let server = server();
    let client = client(&server);
    let certificates = |count| {
        let rows = rows(&server.sidecar, count);
        rows.iter().map(|row| row["fingerprint"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(call(&client, "/orders", &[]).status, Some(200));
    let old = certificates(1);
    let issued = client.authority.issue(&gate_certificate()).unwrap();
    thread::scope(|scope| {
        let before = server.upstream.requests();
        let slow = scope.spawn(|| call(&client, "/slow?ms=3000", &[]));
        wait_until("the slow one", || server.upstream.requests() > before);
        let before = status(&client.sidecar).parts.identity;
        client.keep("server", &issued).unwrap();
        wait_until("the certificate", || status(&client.sidecar).parts.identity != before);
        assert_eq!(call(&client, "/orders", &[]).status, Some(200));
        let new = json!(format!("sha256:{}", issued.fingerprint().unwrap()));
        // Rows are in the order in which requests began, and the slow one has none yet.
        assert_eq!(certificates(2), [old[0].clone(), new.clone()]);
        assert_eq!(slow.join().unwrap().status, Some(200));
        assert_eq!(call(&client, "/orders", &[]).status, Some(200));
        assert_eq!(certificates(4), [old[0].clone(), old[0].clone(), new.clone(), new]);
    });
    // The one that was in use is gone, and the two others were one.
    assert_eq!(metric(&client.sidecar, OPEN), 1);
}

/// What is open ends in the second in which the server's certificate expires, in use or not.
#[test]
fn a_server_certificate_that_expires_ends_its_connections() {
    let server = server();
    let client = client(&server);
    let leaf = LeafOptions { not_after: OffsetDateTime::now_utc() + Duration::seconds(8), ..gate_certificate() };
    client.keep("short", &client.authority.issue(&leaf).unwrap()).unwrap();
    let folder = client.folder.path().display();
    let certificate = format!("ssl_certificate {folder}/short.pem; ssl_certificate_key {folder}/short.key;");
    let slow = format!("location /slow {{ proxy_pass http://{}; }}", server.upstream.address());
    let nginx = Nginx::listening("ssl", &format!("{certificate} keepalive_timeout 1h; {slow}")).unwrap();
    change(&client, |document| {
        document["policy"]["routes"][0]["backendPolicy"] = json!({ "pool": { "idleTimeout": "1h" } });
        document["policy"]["routes"][0]["rules"][0]["backends"][0]["address"] = json!(nginx.address());
    });
    let slow = call(&client, "/slow?ms=60000", &[]);
    assert_eq!((slow.status, slow.header("postern-reason")), (Some(502), Some("upstream_tls_expired")));
    wait_metric(&client.sidecar, OPEN, 0);
    let later = call(&client, "/orders", &[]);
    assert_eq!((later.status, later.header("postern-reason")), (Some(502), Some("upstream_tls_expired")));
}
