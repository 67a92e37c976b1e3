//! Configuration that changes under load: each change takes effect, no request fails, and what is bad changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use postern_tests::ca::{Authority, LeafOptions};
use postern_tests::clients::Curl;
use postern_tests::config::client_uri;
use postern_tests::gate::Gate;
use postern_tests::upstream::Upstream;
use serde_json::{Value, json};
use sidecar_config::status::{PartStatus, Parts};

use crate::observed::{metric, status, wait_until};

/// How files are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Emptied and written, as a shell's `>` does: a reader may find any part of it.
    InPlace,
    /// Written beside and renamed, as editors do.
    Rename,
    /// All at once, as the kubelet does.
    Swap,
}

/// A gate whose configuration changes in one way.
struct Scene {
    gate: Gate,
    way: Way,
    /// What the gate reads.
    files: BTreeMap<String, String>,
}

impl Scene {
    fn start(way: Way) -> Self {
        let mut gate = Gate::start().unwrap();
        let names = ["ca.pem", "server.pem", "server.key", "postern.json"];
        let files = names.map(|name| (name.to_owned(), fs::read_to_string(gate.folder.file(name)).unwrap()));
        let files = BTreeMap::from(files);
        // Clients must find their authority while the folder's files are swapped.
        gate.folder.write("clients-ca.crt", &files["ca.pem"]).unwrap();
        if way == Way::Swap {
            gate.sidecar.terminate().unwrap();
            gate.sidecar.wait_exit().unwrap();
            names.iter().for_each(|name| fs::remove_file(gate.folder.file(name)).unwrap());
            publish(&mut gate, &files);
            gate.sidecar = gate.sidecar.launch().start_ready().unwrap();
        }
        Self { gate, way, files }
    }

    fn curl(&self, listener: &str, certificate: &str, path: &str) -> Curl {
        let port = self.gate.sidecar.listener(listener).unwrap().port();
        let curl = Curl::new(format!("https://localhost:{port}{path}")).authority("clients-ca.crt");
        curl.certificate(certificate).folder(self.gate.folder.path())
    }

    fn call(&self, certificate: &str, path: &str) -> Outcome {
        let answer = self.curl("gate", certificate, path).call().unwrap();
        (answer.status, answer.header("postern-reason").map(str::to_owned))
    }

    /// Calls until this comes of it: a new revision is told a moment before every worker serves it.
    fn wait_call(&self, certificate: &str, path: &str, expected: &Outcome) {
        wait_until(&format!("{certificate} {path} {expected:?}"), || self.call(certificate, path) == *expected);
    }

    /// Replaces files, in this order.
    fn write(&mut self, changed: &[(&str, String)]) {
        self.files.extend(changed.iter().map(|(name, text)| ((*name).to_owned(), text.clone())));
        match self.way {
            Way::Swap => publish(&mut self.gate, &self.files),
            Way::Rename => changed.iter().for_each(|(name, text)| self.gate.folder.write(name, text).unwrap()),
            Way::InPlace => {
                changed.iter().for_each(|(name, text)| fs::write(self.gate.folder.file(name), text).unwrap())
            }
        }
    }

    /// Changes the document and waits until the part is another revision.
    fn change(&mut self, part: fn(&Parts) -> &PartStatus, change: impl FnOnce(&mut Value)) {
        let before = part(&status(&self.gate.sidecar).parts).loaded.clone();
        change(&mut self.gate.document);
        self.write(&[("postern.json", format!("{:#}", self.gate.document))]);
        wait_until("another revision", || part(&status(&self.gate.sidecar).parts).loaded != before);
    }
}

fn publish(gate: &mut Gate, files: &BTreeMap<String, String>) {
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    gate.folder.publish(&files).unwrap();
}

/// Clients that call all the time, many requests on each connection.
struct Load {
    stop: Arc<AtomicBool>,
    /// Each ends with how many requests it made and what failed.
    threads: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn start(scene: &Scene) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = ["--http1.1", "--http2", "--http1.1"].map(|flag| {
            let curl = scene.curl("gate", "billing", "/orders/[1-100]").arg(flag);
            curl.arg("-o").arg("/dev/null").arg("-w").arg("%{http_code} %{errormsg}\\n")
        });
        let threads = clients.map(|curl| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || call_until(&stop, &curl))
        });
        Self { stop, threads: threads.into() }
    }

    /// Ends it and returns how many requests were made, none of which failed.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let outcomes: Vec<_> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let failed: Vec<_> = outcomes.iter().flat_map(|(_, failed)| failed).collect();
        assert!(failed.is_empty(), "{} requests failed: {:?}", failed.len(), failed.iter().take(5).collect::<Vec<_>>());
        outcomes.iter().map(|(made, _)| made).sum()
    }
}

fn call_until(stop: &AtomicBool, curl: &Curl) -> (usize, Vec<String>) {
    let (mut made, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = curl.call().unwrap();
        let text = answer.text();
        made += text.lines().count();
        failed.extend(text.lines().filter(|line| line.trim_end() != "200").map(str::to_owned));
        if answer.exit_code != Some(0) {
            failed.push(answer.stderr);
        }
    }
    (made, failed)
}

/// Status and reason of a call; neither where there was no answer.
type Outcome = (Option<u16>, Option<String>);

const ALLOWED: Outcome = (Some(200), None);
const NO_HANDSHAKE: Outcome = (None, None);

fn refused(reason: &str) -> Outcome {
    (Some(403), Some(reason.to_owned()))
}

/// A rule for one path, which comes before the rule for all paths.
fn rule(name: &str, allow: &Value, backend: &Value) -> Value {
    json!({
        "name": name, "allow": [allow], "backends": [backend],
        "matches": [{ "path": { "type": "Exact", "value": format!("/{name}") } }],
    })
}

fn rules(document: &mut Value) -> &mut Vec<Value> {
    document["policy"]["routes"][0]["rules"].as_array_mut().unwrap()
}

fn every_change_takes_effect_without_a_failed_request(way: Way) {
    let mut scene = Scene::start(way);
    let load = Load::start(&scene);
    routes_change(&mut scene);
    identities_change(&mut scene);
    trust_changes(&mut scene);
    key_and_chain_change(&mut scene);
    endpoints_change(&mut scene);
    listeners_change(&mut scene);
    let made = load.finish();
    assert!(made > 100, "{made} requests are no load");
    // What the clients counted and more: the calls of this test.
    let labels = r#"listener="gate",route="demo/orders",rule="all",verdict="allowed",reason="""#;
    assert!(metric(&scene.gate.sidecar, &format!("postern_requests_total{{{labels}}}")) >= made as u64);
}

fn routes_change(scene: &mut Scene) {
    scene.wait_call("reports", "/extra", &refused("policy_not_allowed"));
    let address = json!({ "address": scene.gate.upstream.address() });
    scene.change(
        |parts| &parts.policy,
        |document| {
            rules(document).push(rule("extra", &json!({ "identity": "demo/reports" }), &address));
        },
    );
    scene.wait_call("reports", "/extra", &ALLOWED);
}

fn identities_change(scene: &mut Scene) {
    scene.change(
        |parts| &parts.trust,
        |document| {
            let states = document["trust"]["revocations"]["identities"].as_array_mut().unwrap();
            states.push(json!({ "name": "demo/reports", "state": "Suspended" }));
        },
    );
    scene.wait_call("reports", "/extra", &refused("policy_identity_suspended"));
    scene.change(
        |parts| &parts.trust,
        |document| {
            document["trust"]["revocations"]["identities"].as_array_mut().unwrap().pop();
        },
    );
    scene.wait_call("reports", "/extra", &ALLOWED);
}

fn trust_changes(scene: &mut Scene) {
    let partner = Authority::new("Partner authority").unwrap();
    let client = LeafOptions::client("guest", &client_uri("guest"));
    scene.gate.keep("guest", &partner.issue(&client).unwrap()).unwrap();
    scene.wait_call("guest", "/partner", &NO_HANDSHAKE);
    let address = json!({ "address": scene.gate.upstream.address() });
    scene.write(&[("partner.pem", partner.root_pem().to_owned())]);
    scene.change(
        |parts| &parts.trust,
        |document| {
            document["trust"]["bundles"]["partner"] = json!({ "roots": ["partner.pem"] });
            document["policy"]["listeners"][0]["tls"]["trust"] = json!(["ours", "partner"]);
            rules(document).push(rule("partner", &json!({ "verified": "partner" }), &address));
        },
    );
    scene.wait_call("guest", "/partner", &ALLOWED);
    // The file behind a bundle changes, and the document does not.
    let other = Authority::new("Partner authority").unwrap();
    let before = status(&scene.gate.sidecar).parts.trust.loaded;
    scene.write(&[("partner.pem", other.root_pem().to_owned())]);
    wait_until("another trust", || status(&scene.gate.sidecar).parts.trust.loaded != before);
    scene.wait_call("guest", "/partner", &NO_HANDSHAKE);
}

fn key_and_chain_change(scene: &mut Scene) {
    let before = status(&scene.gate.sidecar);
    let issued = scene.gate.authority.issue(&LeafOptions::server("gate")).unwrap();
    // Between the two a key that is not the chain's may be read: the pair is taken whole or not at all.
    scene.write(&[("server.key", issued.key_pem.clone()), ("server.pem", issued.chain_pem.clone())]);
    wait_until("another certificate", || status(&scene.gate.sidecar).leaf_serial != before.leaf_serial);
    let after = status(&scene.gate.sidecar);
    assert_eq!(after.leaf_serial.unwrap().replace(':', ""), issued.serial().unwrap());
    assert_eq!((after.parts.identity.refused, after.parts.identity.why), (None, None));
    let client = postern_tests::clients::OpensslClient::new(scene.gate.sidecar.listener("gate").unwrap());
    let client = client.folder(scene.gate.folder.path()).authority("clients-ca.crt").certificate("billing");
    let handshake = client.talk("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let leaf = issued.chain_pem.trim_end();
    assert!(handshake.status() == Some(200) && handshake.output.contains(leaf), "{handshake:?}");
}

fn endpoints_change(scene: &mut Scene) {
    let other = Upstream::start().unwrap();
    let set = |address: SocketAddr| json!([{ "name": "pool", "addresses": [{ "address": address }] }]);
    let first = set(scene.gate.upstream.address());
    scene.change(
        |parts| &parts.endpoints,
        |document| {
            document["endpoints"] = first;
            rules(document).push(rule("pool", &json!({ "identity": "demo/billing" }), &json!({ "endpoints": "pool" })));
        },
    );
    scene.wait_call("billing", "/pool", &ALLOWED);
    assert_eq!(other.requests(), 0);
    scene.change(|parts| &parts.endpoints, |document| document["endpoints"] = set(other.address()));
    wait_until("a request to the other upstream", || {
        assert_eq!(scene.call("billing", "/pool"), ALLOWED);
        other.requests() > 0
    });
}

fn listeners_change(scene: &mut Scene) {
    let second = |document: &mut Value| {
        let mut listener = document["policy"]["listeners"][0].clone();
        listener["name"] = json!("second");
        let mut route = document["policy"]["routes"][0].clone();
        route["name"] = json!("demo/second");
        route["listener"] = json!("second");
        (listener, route)
    };
    let (listener, route) = second(&mut scene.gate.document);
    scene.change(
        |parts| &parts.policy,
        |document| {
            document["policy"]["listeners"].as_array_mut().unwrap().push(listener);
            document["policy"]["routes"].as_array_mut().unwrap().push(route);
        },
    );
    let curl = scene.curl("second", "billing", "/orders");
    wait_until("an open listener", || curl.call().unwrap().status == Some(200));
    let routes = status(&scene.gate.sidecar).routes;
    assert_eq!(routes.keys().collect::<Vec<_>>(), ["demo/orders", "demo/second"]);
    scene.change(
        |parts| &parts.policy,
        |document| {
            document["policy"]["listeners"].as_array_mut().unwrap().pop();
            document["policy"]["routes"].as_array_mut().unwrap().pop();
        },
    );
    // curl's code for a connection that is refused.
    wait_until("a closed listener", || curl.call().unwrap().exit_code == Some(7));
}

#[test]
fn changes_by_writing_in_place() {
    every_change_takes_effect_without_a_failed_request(Way::InPlace);
}

#[test]
fn changes_by_renaming() {
    every_change_takes_effect_without_a_failed_request(Way::Rename);
}

#[test]
fn changes_by_swapping_a_folder() {
    every_change_takes_effect_without_a_failed_request(Way::Swap);
}

/// A connection that stays open between requests; openssl ends when this is dropped.
pub(crate) struct KeepAlive {
    openssl: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl KeepAlive {
    pub(crate) fn open(gate: &Gate, certificate: &str) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-ign_eof", "-servername", "localhost", "-CAfile", "ca.pem"]);
        command.arg("-connect").arg(gate.sidecar.listener("gate").unwrap().to_string());
        command.arg("-cert").arg(format!("{certificate}.pem")).arg("-key").arg(format!("{certificate}.key"));
        command.current_dir(gate.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = command.spawn().unwrap();
        let (input, output) = (openssl.stdin.take().unwrap(), openssl.stdout.take().unwrap());
        Self { openssl, input, output: BufReader::new(output) }
    }

    /// Whether the gate has closed it.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.openssl.try_wait().unwrap().is_some()
    }

    /// Asks for a path and reads the answer to its end: its status.
    pub(crate) fn ask(&mut self, path: &str) -> u16 {
        self.ask_head(path).split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Asks for a path and reads the answer to its end: its head, in lower case.
    pub(crate) fn ask_head(&mut self, path: &str) -> String {
        self.exchange(path).0
    }

    /// Asks for a path: the head of the answer in lower case, and its body.
    pub(crate) fn exchange(&mut self, path: &str) -> (String, Vec<u8>) {
        write!(self.input, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.output.read_line(&mut head).unwrap(), 0, "the connection ended: {head}");
        }
        let head = head.to_ascii_lowercase();
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let length: usize = rest.lines().next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).unwrap();
        (head, body)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

#[test]
fn a_refused_part_keeps_its_last_good_and_the_others_change() {
    let mut scene = Scene::start(Way::Rename);
    let good = scene.gate.document.clone();
    let loaded = status(&scene.gate.sidecar).parts.policy.loaded;
    scene.change(
        |parts| &parts.trust,
        |document| {
            rules(document)[0]["allow"] = json!([]);
            document["trust"]["revocations"]["identities"] = json!([{ "name": "demo/billing", "state": "Suspended" }]);
        },
    );
    let parts = status(&scene.gate.sidecar).parts;
    let why = "`policy.routes[0].rules[0].allow`: is empty; name who may call, or write `[{ anyone = {} }]`: \
               absence never means anyone";
    assert_eq!((parts.policy.loaded.as_str(), parts.policy.why.as_deref()), (loaded.as_str(), Some(why)));
    assert!(parts.policy.refused.is_some_and(|refused| refused != loaded));
    assert_eq!((parts.trust.refused, parts.trust.why), (None, None));
    assert_eq!(metric(&scene.gate.sidecar, r#"postern_config_refused{part="policy"}"#), 1);
    assert_eq!(metric(&scene.gate.sidecar, r#"postern_config_refused{part="trust"}"#), 0);
    scene.wait_call("billing", "/orders", &refused("policy_identity_suspended"));
    scene.wait_call("reports", "/orders", &refused("policy_not_allowed"));
    scene.change(|parts| &parts.trust, |document| *document = good);
    let parts = status(&scene.gate.sidecar).parts;
    assert_eq!((parts.policy.loaded, parts.policy.refused, parts.policy.why), (loaded, None, None));
    scene.wait_call("billing", "/orders", &ALLOWED);
}

#[test]
fn what_cannot_be_read_is_no_change() {
    let mut scene = Scene::start(Way::InPlace);
    let document = scene.files["postern.json"].clone();
    let before = status(&scene.gate.sidecar);
    let path = scene.gate.folder.file("postern.json").display().to_string();
    let empty = "the file is empty, which is never a change; write the document, or an empty part";
    let table = [
        ("", empty),
        ("\n", empty),
        ("{", "not valid JSON: line 1, column 1: EOF while parsing an object"),
        ("{}", "`version` is missing; write `version = \"1.8\"` at the top"),
    ];
    for (text, why) in table {
        scene.write(&[("postern.json", text.to_owned())]);
        let why = format!("{path}: {why}");
        wait_until(&why, || status(&scene.gate.sidecar).parts.policy.why.as_ref() == Some(&why));
        let now = status(&scene.gate.sidecar);
        for (part, before) in [(&now.parts.trust, &before.parts.trust), (&now.parts.policy, &before.parts.policy)] {
            assert_eq!((&part.loaded, part.refused.as_deref()), (&before.loaded, Some("unreadable")), "{text:?}");
        }
        assert!(now.ready, "{text:?}");
        assert_eq!(scene.call("billing", "/orders"), ALLOWED, "{text:?}");
    }
    scene.write(&[("postern.json", document)]);
    wait_until("the document again", || status(&scene.gate.sidecar) == before);
}

#[test]
fn what_vanishes_is_no_change() {
    let scene = Scene::start(Way::Rename);
    let before = status(&scene.gate.sidecar);
    let absent = "cannot be read: No such file or directory (os error 2)";
    type Why = fn(&Parts) -> &PartStatus;
    let table: [(&str, Why, String); 3] = [
        ("ca.pem", |parts| &parts.trust, format!("`trust.bundles.ours.roots[0]`: `ca.pem`: {absent}")),
        ("server.pem", |parts| &parts.identity, format!("`identity.chain`: `server.pem`: {absent}")),
        ("server.key", |parts| &parts.identity, format!("`identity.key`: `server.key`: {absent}")),
    ];
    for (name, part, why) in table {
        fs::remove_file(scene.gate.folder.file(name)).unwrap();
        wait_until(&why, || part(&status(&scene.gate.sidecar).parts).why.as_ref() == Some(&why));
        let now = status(&scene.gate.sidecar);
        assert_eq!(
            (part(&now.parts).loaded.as_str(), now.ready),
            (part(&before.parts).loaded.as_str(), true),
            "{name}"
        );
        assert_eq!(scene.call("billing", "/orders"), ALLOWED, "{name}");
        scene.gate.folder.write(name, &scene.files[name]).unwrap();
        wait_until("the file again", || status(&scene.gate.sidecar) == before);
    }
    let seen = scene.gate.sidecar.lines().len();
    fs::remove_file(scene.gate.folder.file("postern.json")).unwrap();
    let told = "configuration not read; what is loaded stays in use";
    scene.gate.sidecar.wait_for_after(seen, told, |line| line.message() == told).unwrap();
    assert_eq!(status(&scene.gate.sidecar), before);
    assert_eq!(scene.call("billing", "/orders"), ALLOWED);
    // Without its configuration nobody finds its log.
    scene.gate.sidecar.leave_unaudited();
}

#[test]
fn a_part_whose_file_vanishes_from_a_folder_stays() {
    let scene = Scene::start(Way::Rename);
    let part = |name: &str| json!({ "version": "1.0", name: scene.gate.document[name] }).to_string();
    let before = status(&scene.gate.sidecar).parts;
    for name in ["trust", "identity", "identities", "policy"] {
        scene.gate.folder.write(&format!("{name}.json"), &part(name)).unwrap();
    }
    fs::remove_file(scene.gate.folder.file("postern.json")).unwrap();
    let calm = |parts: &Parts| parts.policy.why.is_none() && parts.trust.why.is_none();
    wait_until("the same in four files", || calm(&status(&scene.gate.sidecar).parts));
    fs::remove_file(scene.gate.folder.file("identities.json")).unwrap();
    let why = "not there any more; the last good stays in use";
    wait_until(why, || status(&scene.gate.sidecar).parts.identities.why.as_deref() == Some(why));
    let now = status(&scene.gate.sidecar).parts;
    assert_eq!((now.identities.loaded, now.policy.loaded), (before.identities.loaded, before.policy.loaded));
    assert_eq!(scene.call("billing", "/orders"), ALLOWED);
}
