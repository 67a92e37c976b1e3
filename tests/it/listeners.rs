//! Listeners of every protocol and address: plain HTTP, and bytes that are passed on over TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use postern_tests::clients::Curl;
use postern_tests::gate::Gate;
use postern_tests::python::python;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use crate::observed::{columns, metric, newest, rows, wait_metric, wait_until};

/// What a connection's row says of how it went.
const HOW: [&str; 7] = ["kind", "verdict", "reason", "identity", "route", "request_bytes", "response_bytes"];

/// An application that speaks no HTTP: each connection gets a thread with this in it.
pub(crate) fn application(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends back what it gets, and how much it was when it gets no more.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut total = 0;
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        total += count;
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    // The client may be gone, which is its business.
    let _ = stream.write_all(format!("total {total}").as_bytes());
}

/// Listener `gate` passes bytes on to an application.
pub(crate) fn forwarding(application: SocketAddr, change: impl FnOnce(&mut Value)) -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        document["policy"]["listeners"][0]["protocol"] = json!("TLS");
        let rule = &mut document["policy"]["routes"][0]["rules"][0];
        rule.as_object_mut().unwrap().remove("matches");
        rule["backends"] = json!([{ "address": application }]);
        change(document);
    })
    .unwrap()
}

/// What a script says that talks to listener `gate`.
pub(crate) fn script(gate: &Gate, script: &str) -> String {
    let finished = python(gate.folder.path(), gate.sidecar.listener("gate").unwrap(), script).unwrap();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{script}");
    finished.text()
}

#[test]
fn bytes_pass_both_ways_and_each_direction_ends_by_itself() {
    let gate = forwarding(application(echo), |_| {});
    let said = script(
        &gate,
        r#"
client = Tls(ADDRESS)
client.send(b"hello")
print(client.read())
client.end()
print(client.read_all())
"#,
    );
    assert_eq!(said, "b'hello'\nb'total 5'\n");
    let row = newest(&gate.sidecar, 1);
    let how = json!(["connection", "allowed", null, "demo/billing", "demo/orders", 5, 12]);
    assert_eq!(columns(&row, &HOW), how);
    let empty = ["protocol", "method", "host", "path", "status"];
    assert_eq!(columns(&row, &empty), json!([null, null, null, null, null]));
    assert_eq!(columns(&row, &["sni", "tls_version", "attempts"]), json!(["localhost", "TLSv1.3", 1]));
    let (duration, connect) = (row["duration_us"].as_u64().unwrap(), row["connect_us"].as_u64().unwrap());
    assert!(connect < duration && row["upstream"].is_string(), "{row}");
    let counted = r#"postern_forwarded_connections_total{listener="gate",route="demo/orders",rule="all",verdict="allowed",reason=""}"#;
    assert_eq!(metric(&gate.sidecar, counted), 1);
}

#[test]
fn an_application_may_end_first() {
    let greets = |mut stream: TcpStream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"still here");
    };
    let gate = forwarding(application(greets), |_| {});
    let said = script(
        &gate,
        r#"
client = Tls(ADDRESS)
print(client.read_all())
client.send(b"still here")
client.end()
"#,
    );
    assert_eq!(said, "b'bye'\n");
    let how = json!(["connection", "allowed", null, "demo/billing", "demo/orders", 10, 3]);
    assert_eq!(columns(&newest(&gate.sidecar, 1), &HOW), how);
}

#[test]
fn who_may_not_connect_is_closed_with_a_row() {
    let gate = forwarding(application(echo), |document| {
        document["policy"]["listeners"][0]["tls"]["clientAuth"] = json!("Optional");
    });
    let table = [
        ("\"reports\"", json!(["connection", "refused", "policy_not_allowed", "demo/reports", "demo/orders", 0, 0])),
        (
            "\"mallory\"",
            json!(["connection", "refused", "policy_identity_revoked", "demo/mallory", "demo/orders", 0, 0]),
        ),
        ("None", json!(["connection", "refused", "policy_no_certificate", null, "demo/orders", 0, 0])),
        ("\"billing\", \"elsewhere\"", json!(["connection", "refused", "route_no_host", "demo/billing", null, 0, 0])),
    ];
    for (index, (arguments, how)) in table.into_iter().enumerate() {
        // What is sent along goes nowhere, and does not keep the client from reading the end.
        let text =
            format!("client = Tls(ADDRESS, {arguments})\nclient.send(b'x' * 100000)\nprint(client.read_all())\n");
        assert_eq!(script(&gate, &text), "b''\n", "{arguments}");
        assert_eq!(columns(&newest(&gate.sidecar, index + 1), &HOW), how, "{arguments}");
    }
}

#[test]
fn what_a_rule_under_trial_would_refuse_passes() {
    let gate = forwarding(application(echo), |document| {
        document["policy"]["routes"][0]["rules"][0]["mode"] = json!("Audit");
    });
    assert_eq!(
        script(&gate, "client = Tls(ADDRESS, 'reports')\nclient.end()\nprint(client.read_all())\n"),
        "b'total 0'\n"
    );
    let how = json!(["connection", "would_refuse", "policy_not_allowed", "demo/reports", "demo/orders", 0, 7]);
    assert_eq!(columns(&newest(&gate.sidecar, 1), &HOW), how);
}

#[test]
fn an_application_that_cannot_be_reached_closes_the_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table = [
        (json!([{ "address": nobody }]), "upstream_connect", 1),
        (json!([{ "endpoints": "empty" }]), "upstream_no_endpoint", 0),
        (json!([{ "endpoints": "missing" }]), "route_invalid", 0),
    ];
    for (backends, reason, attempts) in table {
        let gate = forwarding(nobody, |document| {
            document["endpoints"] = json!([{ "name": "empty" }]);
            document["policy"]["routes"][0]["rules"][0]["backends"] = backends;
        });
        // No proper end, which would be an empty answer.
        let said = script(&gate, "print(how_it_ends(Tls(ADDRESS).read_all))\n");
        assert_eq!(said, "cut short\n", "{reason}");
        let row = newest(&gate.sidecar, 1);
        let shown = columns(&row, &["kind", "verdict", "reason", "attempts", "connect_us"]);
        assert_eq!(shown, json!(["connection", "allowed", reason, attempts, null]));
    }
}

#[test]
fn what_breaks_at_one_end_breaks_at_the_other() {
    let reset = |mut stream: TcpStream| {
        stream.write_all(b"part").unwrap();
        // Closing with something unread is a reset.
        stream.peek(&mut [0]).unwrap();
    };
    let gate = forwarding(application(reset), |_| {});
    let text = "client = Tls(ADDRESS)\nprint(client.read())\nclient.send(b'x')\nprint(how_it_ends(client.read_all))\n";
    let said = script(&gate, text);
    assert!(["b'part'\nreset\n", "b'part'\ncut short\n"].contains(&said.as_str()), "no proper end: {said}");
    let how = json!(["connection", "allowed", "upstream_reset", "demo/billing", "demo/orders", 1, 4]);
    assert_eq!(columns(&newest(&gate.sidecar, 1), &HOW), how);
}

#[test]
fn a_client_that_vanishes_resets_the_application() {
    let (told, tell) = std::sync::mpsc::channel();
    let greets = move |mut stream: TcpStream| {
        stream.write_all(b"hi").unwrap();
        told.send(stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind())).unwrap();
    };
    let gate = forwarding(application(greets), |_| {});
    let begin = "client = Tls(ADDRESS)\nclient.read()\n";
    // Linger zero: close is a reset.
    let linger = "import struct\nclient.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n";
    script(&gate, &format!("{begin}{linger}client.raw.close()\n"));
    assert_eq!(tell.recv_timeout(PATIENCE).unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    // One that only leaves out TLS' own end is passed on as an end, so that nothing it sent is lost.
    script(&gate, &format!("{begin}client.send(b'yz')\nclient.raw.close()\n"));
    assert_eq!(tell.recv_timeout(PATIENCE).unwrap(), Ok(2));
    for (row, bytes) in rows(&gate.sidecar, 2).iter().zip([0, 2]) {
        let how = json!(["connection", "allowed", "client_closed", "demo/billing", "demo/orders", bytes, 2]);
        assert_eq!(columns(row, &HOW), how);
    }
}

#[test]
fn much_passes_both_ways_at_once() {
    let gate = forwarding(application(echo), |_| {});
    let said = script(
        &gate,
        r#"
total = 20 * 1000 * 1000
client = Tls(ADDRESS)
client.raw.setblocking(False)
import select
block, sent, got, ended = bytes(range(256)) * 256, 0, bytearray(), False
waiting = memoryview(b"")
while True:
    if not waiting and sent < total:
        piece = block[: min(len(block), total - sent)]
        client.tls.write(piece)
        sent += len(piece)
        waiting = memoryview(client.outgoing.read())
    if not waiting and sent == total and not ended:
        ended = True
        try:
            client.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        waiting = memoryview(client.outgoing.read())
    readable, writable, _ = select.select([client.raw], [client.raw] if waiting else [], [], 30)
    assert readable or writable, (sent, len(got))
    if writable:
        waiting = waiting[client.raw.send(waiting):]
    if readable:
        client.incoming.write(client.raw.recv(1 << 18))
        try:
            while piece := client.tls.read(1 << 18):
                got += piece
            break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            break
expected = (block * (total // len(block) + 1))[:total] + b"total %d" % total
print(got == expected, len(got))
"#,
    );
    assert_eq!(said, "True 20000014\n");
    let how = json!(["connection", "allowed", null, "demo/billing", "demo/orders", 20_000_000, 20_000_014]);
    assert_eq!(columns(&newest(&gate.sidecar, 1), &HOW), how);
}

#[test]
fn a_client_that_reads_nothing_holds_up_its_application_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let stalled = folder.path().join("stalled");
    let tell = stalled.clone();
    let pours = move |mut stream: TcpStream| {
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        while stream.write_all(&[0; 64 << 10]).is_ok() {}
        // Everything on the way is full, or the client is gone.
        fs::write(&tell, "").unwrap();
        stream.set_write_timeout(None).unwrap();
        while stream.write_all(&[0; 64 << 10]).is_ok() {}
    };
    let gate = forwarding(application(pours), |_| {});
    let said = script(
        &gate,
        &format!(
            "client = Tls(ADDRESS)\nother = Tls(ADDRESS)\nwhile not os.path.exists({stalled:?}): time.sleep(0.01)\n\
             print(len(other.read(1000)))\n"
        ),
    );
    assert_eq!(said, "1000\n");
    for row in rows(&gate.sidecar, 2) {
        assert_eq!(columns(&row, &["verdict", "reason"]), json!(["allowed", "client_closed"]));
        // The kernel's buffers hold some MB; what the gate would gather besides has no bound.
        assert!(row["response_bytes"].as_u64().unwrap() < 64 << 20, "{row}");
    }
}

#[test]
fn a_client_that_never_begins_is_given_up() {
    let gate = forwarding(application(echo), |_| {});
    let silent = TcpStream::connect(gate.sidecar.listener("gate").unwrap()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut torn = silent.try_clone().unwrap();
    assert_eq!(torn.read(&mut [0]).unwrap(), 0);
    let shown = columns(&newest(&gate.sidecar, 1), &["kind", "verdict", "reason", "listener"]);
    assert_eq!(shown, json!(["handshake", "refused", "tls_timeout", "gate"]));
    drop(silent);
}

#[test]
fn what_is_open_at_the_end_of_the_drain_is_cut() {
    let mut gate = forwarding(application(echo), |document| document["settings"]["drainTimeout"] = json!("300ms"));
    let folder = gate.folder.path().to_owned();
    let address = gate.sidecar.listener("gate").unwrap();
    let text = "client = Tls(ADDRESS)\nclient.send(b'x')\nclient.read()\nprint(how_it_ends(client.read_all))\n";
    let client = thread::spawn(move || python(&folder, address, text).unwrap().text());
    wait_metric(&gate.sidecar, "postern_upstream_connections_open", 1);
    wait_until("the first byte", || metric(&gate.sidecar, "postern_handshakes_completed_total") == 1);
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    let said = client.join().unwrap();
    assert!(["reset\n", "cut short\n"].contains(&said.as_str()), "{said}");
    gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
    let shown = rows(&gate.sidecar, 2).into_iter().map(|row| columns(&row, &["kind", "verdict", "reason", "status"]));
    let mut shown: Vec<_> = shown.map(|row| row.to_string()).collect();
    shown.sort();
    let reason = "gate_drain_timeout";
    let expected = [json!(["connection", "allowed", reason, null]), json!(["cut", "refused", reason, null])];
    assert_eq!(shown, expected.map(|row| row.to_string()));
}

#[test]
fn an_open_connection_obeys_the_policy() {
    let mut gate = forwarding(application(echo), |document| {
        document["policy"]["routes"][0]["rules"][0]["allow"] =
            json!([{ "identity": "demo/billing" }, { "identity": "demo/reports" }]);
    });
    let (folder, address) = (gate.folder.path().to_owned(), gate.sidecar.listener("gate").unwrap());
    let open = |certificate: &str| {
        let text = format!(
            "client = Tls(ADDRESS, '{certificate}')\nclient.send(b'x')\nclient.read()\nprint(how_it_ends(client.read_all))\n"
        );
        let folder = folder.clone();
        thread::spawn(move || python(&folder, address, &text).unwrap().text())
    };
    let (reports, billing) = (open("reports"), open("billing"));
    wait_metric(&gate.sidecar, "postern_upstream_connections_open", 2);
    gate.document["policy"]["routes"][0]["rules"][0]["allow"] = json!([{ "identity": "demo/billing" }]);
    gate.folder.write_document(&gate.document).unwrap();
    let ends = ["reset\n", "cut short\n"];
    assert!(ends.contains(&reports.join().unwrap().as_str()));
    assert_eq!(metric(&gate.sidecar, "postern_upstream_connections_open"), 1, "nobody else's is cut");
    gate.document["trust"]["revocations"]["identities"] = json!([{ "name": "demo/billing", "state": "Revoked" }]);
    gate.folder.write_document(&gate.document).unwrap();
    assert!(ends.contains(&billing.join().unwrap().as_str()));
    let shown = rows(&gate.sidecar, 4).into_iter().map(|row| columns(&row, &["kind", "verdict", "reason", "identity"]));
    let mut shown: Vec<_> = shown.map(|row| row.to_string()).collect();
    shown.sort();
    let expected = [
        json!(["connection", "allowed", "policy_identity_revoked", "demo/billing"]),
        json!(["connection", "allowed", "policy_not_allowed", "demo/reports"]),
        json!(["cut", "refused", "policy_identity_revoked", "demo/billing"]),
        json!(["cut", "refused", "policy_not_allowed", "demo/reports"]),
    ];
    assert_eq!(shown, expected.map(|row| row.to_string()));
}

/// A gate whose second listener, `plain`, has no TLS, and lets anyone GET and POST under any name.
fn with_plain() -> Gate {
    Gate::start_with(|document| {
        document["version"] = json!("1.2");
        let plain = json!({ "name": "plain", "address": "127.0.0.1:0", "protocol": "HTTP" });
        document["policy"]["listeners"].as_array_mut().unwrap().push(plain);
        let mut route = document["policy"]["routes"][0].clone();
        (route["name"], route["listener"], route["hostnames"]) = (json!("demo/open"), json!("plain"), json!([]));
        route["rules"][0]["allow"] = json!([{ "anyone": {} }]);
        document["policy"]["routes"].as_array_mut().unwrap().push(route);
    })
    .unwrap()
}

#[test]
fn plain_http_is_served_in_both_versions() {
    let gate = with_plain();
    let address = gate.sidecar.listener("plain").unwrap();
    let table = [
        ("--http1.1", "HTTP/1.1"),
        ("--http2-prior-knowledge", "HTTP/2"),
        // An offer to upgrade from HTTP/1.1 is not taken.
        ("--http2", "HTTP/1.1"),
    ];
    for (index, (flag, protocol)) in table.into_iter().enumerate() {
        let answer = Curl::new(format!("http://{address}/orders")).arg(flag).call().unwrap();
        assert_eq!((answer.status, answer.version.as_deref()), (Some(200), Some(protocol)), "{flag}");
        let row = newest(&gate.sidecar, index + 1);
        let how = columns(&row, &["kind", "verdict", "listener", "route", "protocol", "status"]);
        assert_eq!(how, json!(["request", "allowed", "plain", "demo/open", protocol, 200]), "{flag}");
        let peer = ["sni", "identity", "bundle", "subject", "fingerprint", "tls_version", "cipher"];
        assert_eq!(columns(&row, &peer), json!([null, null, null, null, null, null, null]), "{flag}");
    }
    assert_eq!(metric(&gate.sidecar, "postern_handshakes_completed_total"), 0);
}

#[test]
fn plain_http_counts_who_never_asks_and_ends_with_the_gate() {
    let mut gate = with_plain();
    let address = gate.sidecar.listener("plain").unwrap();
    drop(TcpStream::connect(address).unwrap());
    let closed = r#"postern_handshakes_refused_total{listener="plain",reason="closed_before_first_byte"}"#;
    wait_metric(&gate.sidecar, closed, 1);
    let mut malformed = TcpStream::connect(address).unwrap();
    malformed.write_all(b"\x16\x03\x01 no HTTP\r\n\r\n").unwrap();
    let mut answer = String::new();
    malformed.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let how = columns(&newest(&gate.sidecar, 1), &["kind", "verdict", "reason", "status", "listener"]);
    assert_eq!(how, json!(["request", "refused", "client_malformed", 400, "plain"]));
    // One that was let in and has not asked yet keeps nobody from stopping.
    let idle = TcpStream::connect(address).unwrap();
    wait_metric(&gate.sidecar, "postern_connections_open", 1);
    gate.sidecar.terminate().unwrap();
    assert_eq!(gate.sidecar.wait_exit().unwrap().code(), Some(0));
    drop(idle);
}

#[test]
fn every_kind_of_address_is_listened_on() {
    let table = [
        ("0.0.0.0:0", &["127.0.0.1"][..], &["[::1]"][..]),
        ("127.0.0.1:0", &["127.0.0.1"], &["[::1]", "127.0.0.2"]),
        ("[::]:0", &["127.0.0.1", "[::1]", "127.0.0.2"], &[]),
        ("[::1]:0", &["[::1]"], &["127.0.0.1"]),
    ];
    let gate = Gate::start_with(|document| {
        document["version"] = json!("1.2");
        let addresses = table.iter().enumerate();
        let listeners = addresses.map(
            |(index, (address, _, _))| json!({ "name": format!("l{index}"), "address": address, "protocol": "HTTP" }),
        );
        document["policy"]["listeners"] = listeners.collect();
        let backends = document["policy"]["routes"][0]["rules"][0]["backends"].clone();
        let routes = (0..table.len()).map(|index| {
            let rules = [json!({ "name": "all", "allow": [{ "anyone": {} }], "backends": backends })];
            json!({ "name": format!("demo/l{index}"), "listener": format!("l{index}"), "rules": rules })
        });
        document["policy"]["routes"] = routes.collect();
    })
    .unwrap();
    for (index, (address, reached, not)) in table.iter().enumerate() {
        let port = gate.sidecar.listener(&format!("l{index}")).unwrap().port();
        let call = |host: &str, path: &str| Curl::new(format!("http://{host}:{port}{path}")).call().unwrap();
        // First what must not be seen: refused, or answered by somebody else who has the port there.
        for host in *not {
            call(host, "/elsewhere");
        }
        for host in *reached {
            assert_eq!(call(host, "/orders").status, Some(200), "{address} at {host}");
        }
    }
    let rows = rows(&gate.sidecar, 6);
    assert!(rows.iter().all(|row| row["path"] == "/orders"), "{rows:?}");
    let clients: Vec<_> = rows.iter().map(|row| row["client_addr"].as_str().unwrap().to_owned()).collect();
    assert!(clients.iter().any(|client| client.starts_with("[::1]:")), "{clients:?}");
}

#[test]
fn a_listener_changes_its_protocol() {
    let mut gate = Gate::start_with(|document| {
        document["policy"]["listeners"][0]["address"] = json!(free_address());
    })
    .unwrap();
    let address = gate.sidecar.listener("gate").unwrap();
    let plain =
        || Curl::new(format!("http://{address}/orders")).arg("-H").arg("Host: localhost").call().unwrap().status;
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    assert_eq!(plain(), None);
    let https = gate.document.clone();
    gate.document["version"] = json!("1.2");
    gate.document["policy"]["listeners"][0] = json!({ "name": "gate", "address": address, "protocol": "HTTP" });
    gate.document["policy"]["routes"][0]["rules"][0]["allow"] = json!([{ "anyone": {} }]);
    gate.folder.write_document(&gate.document).unwrap();
    wait_until("plain HTTP", || plain() == Some(200));
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, None);
    gate.folder.write_document(&https).unwrap();
    let call = || gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status;
    wait_until("HTTPS", || call() == Some(200));
    assert_eq!(plain(), None);
}

/// An address that is free now; a listener that is to keep its port over a reload needs one.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
