//! The status port: alive, ready and why not, what is loaded, and counts that match what happened.

use std::net::TcpListener;
use std::process::Command;

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::{Finished, run};
use postern_tests::config::{ConfigFolder, document};
use postern_tests::gate::Gate;
use postern_tests::process::{Launch, Sidecar, built_sidecar};
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use sidecar_config::status::Status;

use crate::observed::{metric, page, rows, status, wait_metric, wait_readiness, wait_until};

/// A folder with the harness's document, changed, and its certificates; the server's is that of these options.
fn folder(server: &LeafOptions, change: impl FnOnce(&mut Value)) -> (ConfigFolder, Authority) {
    let folder = ConfigFolder::new().unwrap();
    let authority = Authority::new("Postern test authority").unwrap();
    folder.write("ca.pem", authority.root_pem()).unwrap();
    authority.issue(server).unwrap().write(folder.path(), "server").unwrap();
    let mut document = document("127.0.0.1:1".parse().unwrap());
    change(&mut document);
    folder.write_document(&document).unwrap();
    (folder, authority)
}

fn start(folder: &ConfigFolder) -> Sidecar {
    Launch::new(folder.path()).unwrap().start().unwrap()
}

/// The binary alone: these subcommands take no configuration.
fn sidecar(arguments: &[&str]) -> Finished {
    run(Command::new(built_sidecar().unwrap()).args(arguments), b"", PATIENCE).unwrap()
}

#[test]
fn a_gate_that_is_ready_says_so() {
    let gate = Gate::start().unwrap();
    wait_metric(&gate.sidecar, "postern_log_up", 1);
    let table = [
        ("/livez", 200, "live\n"),
        ("/readyz", 200, "ready\n"),
        ("/startupz", 200, "started\n"),
        ("/", 404, "try /livez /readyz /startupz /status /metrics\n"),
        ("/debug", 404, "try /livez /readyz /startupz /status /metrics\n"),
    ];
    for (path, status, body) in table {
        let answer = page(&gate.sidecar, path);
        assert_eq!((answer.status, answer.text().as_str()), (Some(status), body), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
    }
    assert_eq!(metric(&gate.sidecar, "postern_ready"), 1);
}

#[test]
fn a_gate_that_is_not_ready_says_why() {
    let expired = || LeafOptions::server("gate").expired();
    let valid = || LeafOptions::server("gate");
    let drop_part =
        |part: &'static str| move |document: &mut Value| drop(document.as_object_mut().unwrap().remove(part));
    type Change = Box<dyn FnOnce(&mut Value)>;
    let table: [(&str, LeafOptions, Change, &str); 5] = [
        ("expired", expired(), Box::new(|_| {}), "certificate expired"),
        ("no policy", valid(), Box::new(drop_part("policy")), "no policy loaded"),
        ("no certificate", valid(), Box::new(drop_part("identity")), "no certificate loaded"),
        (
            "a certificate that is not there",
            valid(),
            Box::new(|document| document["identity"]["chain"] = json!("absent.pem")),
            "no certificate loaded",
        ),
        (
            "a policy that is refused",
            valid(),
            Box::new(|document| document["policy"]["listeners"][0]["protocol"] = json!("QUIC")),
            "no policy loaded",
        ),
    ];
    for (case, server, change, why) in table {
        let (folder, _authority) = folder(&server, change);
        let sidecar = start(&folder);
        wait_metric(&sidecar, "postern_log_up", 1);
        wait_readiness(&sidecar, 503, &format!("not ready: {why}\n"));
        let startup = page(&sidecar, "/startupz");
        assert_eq!((startup.status, startup.text()), (Some(503), format!("not ready: {why}\n")), "{case}");
        assert_eq!(page(&sidecar, "/livez").status, Some(200), "{case}");
        assert!(!status(&sidecar).ready, "{case}");
        assert_eq!(metric(&sidecar, "postern_ready"), 0, "{case}");
    }
}

#[test]
fn a_taken_port_is_told_and_tried_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (folder, _authority) = folder(&LeafOptions::server("gate"), |document| {
        document["policy"]["listeners"][0]["address"] = json!(address);
    });
    let sidecar = start(&folder);
    wait_metric(&sidecar, "postern_log_up", 1);
    let why = format!("not ready: listener gate on {address}: Address already in use (os error 98)\n");
    wait_readiness(&sidecar, 503, &why);
    drop(taken);
    wait_readiness(&sidecar, 200, "ready\n");
    assert_eq!(sidecar.listener("gate").unwrap(), address);
}

#[test]
fn a_taken_status_port_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (folder, _authority) = folder(&LeafOptions::server("gate"), |_| {});
    let launch = Launch::new(folder.path()).unwrap().variable("POSTERN__STATUS_ADDRESS", &address.to_string());
    let mut sidecar = launch.start().unwrap();
    assert_eq!(sidecar.wait_exit().unwrap().code(), Some(1));
    let last = sidecar.lines().pop().unwrap();
    let error = format!(
        "postern-sidecar: cannot serve status on {address}: Address already in use (os error 98); \
         free the address or set settings.statusAddress"
    );
    assert_eq!(last.message(), error);
}

#[test]
fn started_stays_true_when_ready_does_not() {
    let (folder, authority) = folder(&LeafOptions::server("gate"), |_| {});
    let sidecar = Launch::new(folder.path()).unwrap().start_ready().unwrap();
    let expired = authority.issue(&LeafOptions::server("gate").expired()).unwrap();
    folder.write("server.key", &expired.key_pem).unwrap();
    folder.write("server.pem", &expired.chain_pem).unwrap();
    wait_until("not ready", || page(&sidecar, "/readyz").text() == "not ready: certificate expired\n");
    assert_eq!(page(&sidecar, "/startupz").text(), "started\n");
}

#[test]
fn a_folder_without_documents_is_waited_for() {
    let folder = ConfigFolder::new().unwrap();
    let launch = Launch::new(folder.path()).unwrap().variable("POSTERN__STATUS_ADDRESS", "127.0.0.1:0");
    let sidecar = launch.variable("POSTERN__LOG__PATH", "/dev/null/absent").start().unwrap();
    wait_readiness(&sidecar, 503, "not ready: no policy loaded\nrequest log: not writing\n");
    folder.write_document(&json!({ "version": "1.0", "policy": {} })).unwrap();
    wait_readiness(&sidecar, 200, "ready\nrequest log: not writing\n");
}

#[test]
fn a_log_that_fails_is_told_and_no_reason_to_stop() {
    let gate = Gate::start_with(|document| document["settings"]["log"]["path"] = json!("absent/requests.db")).unwrap();
    wait_readiness(&gate.sidecar, 200, "ready\nrequest log: not writing\n");
    assert_eq!(metric(&gate.sidecar, "postern_log_up"), 0);
    assert_eq!(gate.curl(Some("billing"), "/orders").unwrap().call().unwrap().status, Some(200));
    std::fs::create_dir(gate.folder.file("absent")).unwrap();
    wait_readiness(&gate.sidecar, 200, "ready\n");
    assert_eq!(rows(&gate.sidecar, 1).len(), 1, "the row waited for the log");
}

#[test]
fn the_status_document_tells_what_is_loaded() {
    let gate = Gate::start_with(|document| document["settings"]["pod"] = json!({ "uid": "pod-1" })).unwrap();
    let answer = page(&gate.sidecar, "/status");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: Status = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(serde_json::to_value(&status.contract).unwrap(), json!({ "min": "1.0", "max": "1.8" }));
    assert_eq!((status.pod_uid.as_str(), status.ready), ("pod-1", true));
    assert_eq!(status.routes.keys().collect::<Vec<_>>(), ["demo/orders"]);
    let parts = &status.parts;
    for part in [&parts.trust, &parts.identity, &parts.identities, &parts.policy] {
        assert!(part.loaded.len() == 12 && part.loaded.bytes().all(|byte| byte.is_ascii_hexdigit()), "{part:?}");
        assert_eq!((&part.refused, &part.why), (&None, &None));
    }
    assert_eq!(parts.endpoints.loaded, "none", "a folder that does not have a part says nothing about it");
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-serial", "-in"]).arg(gate.folder.file("server.pem"));
    let printed = run(&mut command, b"", PATIENCE).unwrap().text().trim_end().to_ascii_lowercase();
    let serial = status.leaf_serial.unwrap().replace(':', "");
    assert_eq!(format!("serial={serial}"), printed);
    assert!(status.leaf_not_after.unwrap().ends_with('Z'));
}

#[test]
fn counts_match_what_happened() {
    let gate = Gate::start().unwrap();
    let calls = [
        (Some("billing"), "/orders", "allowed", "", 3),
        (Some("reports"), "/orders", "refused", "policy_not_allowed", 2),
        (Some("mallory"), "/orders", "refused", "policy_identity_revoked", 1),
        (Some("billing"), "/close", "allowed", "upstream_reset", 1),
    ];
    for (certificate, path, _, _, count) in calls {
        for _ in 0..count {
            gate.curl(certificate, path).unwrap().call().unwrap();
        }
    }
    for _ in 0..2 {
        assert_eq!(gate.curl(None, "/orders").unwrap().call().unwrap().status, None);
    }
    let rule = r#"listener="gate",route="demo/orders",rule="all""#;
    wait_metric(&gate.sidecar, "postern_log_rows_written_total", 9);
    for (_, _, verdict, reason, count) in calls {
        let series = format!(r#"postern_requests_total{{{rule},verdict="{verdict}",reason="{reason}"}}"#);
        assert_eq!(metric(&gate.sidecar, &series), count, "{series}");
    }
    let duration = "postern_request_duration_seconds";
    let table = [
        (format!("{duration}_count{{listener=\"gate\"}}"), 4),
        (format!("{duration}_bucket{{listener=\"gate\",le=\"+Inf\"}}"), 4),
        (format!("postern_request_bytes_total{{{rule}}}"), 0),
        (r#"postern_handshakes_refused_total{listener="gate",reason="tls_no_certificate"}"#.to_owned(), 2),
        ("postern_handshakes_completed_total".to_owned(), 7),
        ("postern_log_queue_rows".to_owned(), 0),
        ("postern_log_queue_limit".to_owned(), 8192),
        (r#"postern_log_rows_dropped_total{reason="queue_full"}"#.to_owned(), 0),
        (r#"postern_log_rows_dropped_total{reason="write_failed"}"#.to_owned(), 0),
        ("postern_log_write_errors_total".to_owned(), 0),
        ("postern_log_up".to_owned(), 1),
    ];
    for (series, value) in table {
        assert_eq!(metric(&gate.sidecar, &series), value, "{series}");
    }
    wait_metric(&gate.sidecar, "postern_connections_open", 0);
    let loaded = status(&gate.sidecar).parts.policy.loaded;
    assert_eq!(metric(&gate.sidecar, &format!(r#"postern_config_info{{part="policy",revision="{loaded}"}}"#)), 1);
}

#[test]
fn status_prints_the_document() {
    let gate = Gate::start().unwrap();
    let address = gate.sidecar.status_address().unwrap().to_string();
    let printed = sidecar(&["status", "--address", &address, "--output", "json"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let expected = serde_json::to_string_pretty(&status(&gate.sidecar)).unwrap();
    assert_eq!(printed.text(), format!("{expected}\n"));
}

#[test]
fn status_of_nobody_is_one_clear_error() {
    let printed = sidecar(&["status", "--address", "127.0.0.1:1"]);
    let error = "postern-sidecar: asking 127.0.0.1:1 (is the sidecar running, and is that its status port?): \
                 Connection refused (os error 111)\n";
    assert_eq!((printed.code, printed.text().as_str(), printed.stderr.as_str()), (Some(1), "", error));
}

#[test]
fn version_names_the_contracts_it_reads() {
    let printed = sidecar(&["version"]);
    let expected = format!("postern-sidecar {} (contract 1.0 to 1.8)\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((printed.code, printed.text(), printed.stderr.as_str()), (Some(0), expected, ""));
}
