//! What an attacker or an accident tries: requests that two servers read differently, files that are half written.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::Curl;
use postern_tests::config::{ConfigFolder, client_uri, document};
use postern_tests::gate::Gate;
use postern_tests::process::{Launch, Sidecar, built_sidecar};
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::observed::{metric, newest, wait_until};

/// `/` is open to everyone the listener lets in, `/admin` to billing alone.
fn narrow_in_wide() -> Gate {
    Gate::start_with(|document| {
        let backends = document["policy"]["routes"][0]["rules"][0]["backends"].clone();
        let admin = json!({ "path": { "type": "PathPrefix", "value": "/admin" } });
        document["policy"]["routes"][0]["rules"] = json!([
            { "name": "all", "allow": [{ "anyone": {} }], "backends": backends },
            { "name": "admin", "matches": [admin], "allow": [{ "identity": "demo/billing" }], "backends": backends },
        ]);
    })
    .unwrap()
}

#[test]
fn path_parameters_do_not_lead_around_a_narrow_rule() {
    let gate = narrow_in_wide();
    let table = [
        ("/admin/s", 403, Some("policy_not_allowed")),
        ("/admin;x=1/s", 400, Some("route_bad_path")),
        ("/admin;/s", 400, Some("route_bad_path")),
        ("/;x/admin/s", 400, Some("route_bad_path")),
        ("/admin%3bx/s", 400, Some("route_bad_path")),
        ("/open;x=1/s", 200, None),
        ("/open/a;b;c", 200, None),
    ];
    for (index, (path, status, reason)) in table.into_iter().enumerate() {
        let answer = gate.curl(Some("reports"), path).unwrap().arg("--path-as-is").call().unwrap();
        assert_eq!(answer.status, Some(status), "{path}");
        assert_eq!(newest(&gate.sidecar, index + 1)["reason"], json!(reason), "{path}");
    }
}

#[test]
fn a_host_is_a_host_and_a_port() {
    let gate = Gate::start().unwrap();
    let table = [
        ("localhost:80, evil.com", 400),
        ("localhost:evil.com/../x?y", 400),
        ("localhost:123456", 400),
        ("user@localhost", 400),
        ("localhost evil", 400),
        ("[::1", 400),
        ("localhost:", 200),
        ("LOCALHOST:8443", 200),
    ];
    for (host, status) in table {
        let curl = gate.curl(Some("billing"), "/orders").unwrap().arg("--http1.1");
        let answer = curl.arg("-H").arg(format!("Host: {host}")).call().unwrap();
        assert_eq!(answer.status, Some(status), "{host}");
    }
}

/// A folder with certificates; the configuration is the test's.
struct Files {
    folder: ConfigFolder,
    upstream: Upstream,
}

impl Files {
    fn new() -> Self {
        let folder = ConfigFolder::new().unwrap();
        let authority = Authority::new("Postern test authority").unwrap();
        folder.write("ca.pem", authority.root_pem()).unwrap();
        authority.issue(&LeafOptions::server("gate")).unwrap().write(folder.path(), "server").unwrap();
        let options = LeafOptions::client("billing", &client_uri("billing"));
        authority.issue(&options).unwrap().write(folder.path(), "billing").unwrap();
        Self { folder, upstream: Upstream::start().unwrap() }
    }

    /// The usual document with the state of billing.
    fn document(&self, state: Option<&str>) -> Value {
        let mut document = document(self.upstream.address());
        let states: Vec<_> = state.map(|state| json!({ "name": "demo/billing", "state": state })).into_iter().collect();
        document["trust"]["revocations"] = json!({ "identities": states });
        document
    }

    fn status(&self, sidecar: &Sidecar) -> Option<u16> {
        let port = sidecar.listener("gate").unwrap().port();
        let curl = Curl::new(format!("https://localhost:{port}/orders")).authority("ca.pem").certificate("billing");
        curl.folder(self.folder.path()).call().unwrap().status
    }
}

#[test]
fn half_a_document_is_no_change() {
    let files = Files::new();
    let whole = files.document(Some("Revoked"));
    // YAML without its end is YAML, and here it is a configuration without the revocation.
    let mut first = whole.clone();
    first["trust"].as_object_mut().unwrap().remove("revocations");
    let bundles = serde_json::to_string(&first["trust"]["bundles"]).unwrap();
    let mut head = String::new();
    for (part, value) in first.as_object().unwrap().iter().filter(|(part, _)| *part != "trust") {
        head.push_str(&format!("{part}: {value}\n"));
    }
    head.push_str(&format!("trust:\n  bundles: {bundles}\n"));
    let tail = format!("  revocations: {}\n", whole["trust"]["revocations"]);
    let path = files.folder.file("postern.yaml");
    fs::write(&path, format!("{head}{tail}")).unwrap();
    let sidecar = Launch::new(&path).unwrap().start_ready().unwrap();
    assert_eq!(files.status(&sidecar), Some(403));

    let mut writer = File::create(&path).unwrap();
    writer.write_all(head.as_bytes()).unwrap();
    writer.sync_all().unwrap();
    // A change of another file is taken up meanwhile; the document that is being written is not.
    for _ in 0..20 {
        assert_eq!(files.status(&sidecar), Some(403), "a writer has not finished");
    }
    writer.write_all(tail.replace("Revoked", "Suspended").as_bytes()).unwrap();
    drop(writer);
    sidecar.wait_for("the whole document", |line| line.message() == "configuration loaded").unwrap();
    assert_eq!(files.status(&sidecar), Some(403));
}

fn release(files: &Files, name: &str, state: Option<&str>) {
    let folder = files.folder.file(name);
    fs::create_dir(&folder).unwrap();
    for file in ["ca.pem", "server.pem", "server.key"] {
        fs::copy(files.folder.file(file), folder.join(file)).unwrap();
    }
    fs::write(folder.join("postern.json"), files.document(state).to_string()).unwrap();
}

#[test]
fn a_link_above_the_folder_is_followed_when_it_turns() {
    let files = Files::new();
    release(&files, "release-1", None);
    release(&files, "release-2", Some("Revoked"));
    release(&files, "release-3", None);
    let turn = |to: &str| {
        let (link, next) = (files.folder.file("current"), files.folder.file("next"));
        symlink(Path::new(to), &next).unwrap();
        fs::rename(next, link).unwrap();
    };
    turn("release-1");
    let sidecar = Launch::new(&files.folder.file("current/postern.json")).unwrap().start_ready().unwrap();
    assert_eq!(files.status(&sidecar), Some(200));
    turn("release-2");
    wait_until("the second release", || files.status(&sidecar) == Some(403));
    turn("release-3");
    wait_until("the third release", || files.status(&sidecar) == Some(200));
    // Each release has a log of its own, where the link leads to.
    sidecar.leave_unaudited();
}

#[test]
fn requests_of_one_client_leave_files_for_everybody_else() {
    const FILES: usize = 264;
    const UPSTREAMS: usize = (FILES - 128) / 2;
    let limited = Files::new();
    let script = limited.folder.file("limited");
    let binary = built_sidecar().unwrap();
    fs::write(&script, format!("#!/bin/sh\nulimit -n {FILES}\nexec {} \"$@\"\n", binary.display())).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let open = |document: &mut Value| document["policy"]["routes"][0]["rules"][0]["matches"] = json!([]);
    let gate = Gate::start_binary(script, open).unwrap();
    let curl = gate.curl(Some("billing"), "/slow?ms=3000&number=[1-100]").unwrap().arg("--parallel");
    let curl = curl.arg("--parallel-max").arg("100").arg("-o").arg("/dev/null").arg("-w").arg("%{http_code}\\n");
    let calls = thread::spawn(move || curl.call().unwrap().text());
    let in_use = "postern_upstream_connections_open";
    wait_until("all connections to upstreams are in use", || metric(&gate.sidecar, in_use) == UPSTREAMS as u64);
    let live = Curl::new(format!("http://{}/livez", gate.sidecar.status_address().unwrap())).call().unwrap();
    assert_eq!(live.status, Some(200));
    let codes = calls.join().unwrap();
    let count = |code: &str| codes.lines().filter(|line| *line == code).count();
    assert_eq!((count("200"), count("503")), (UPSTREAMS, 100 - UPSTREAMS));
}
