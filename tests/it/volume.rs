//! A pod's volume as the kubelet makes it: the sidecar reads labels, a policy for need, and identities in chunks.

use postern_tests::config::ConfigFolder;
use postern_tests::gate::Gate;
use postern_tests::process::{Launch, Sidecar};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::observed::{page, status, wait_metric, wait_until};

/// The files of a volume, by name.
type Files = Vec<(String, Vec<u8>)>;

/// A gate's configuration as a pod's volume, with its labels; the gate itself ends.
fn volume(change: impl FnOnce(&mut Value)) -> (Gate, Files) {
    let mut gate = Gate::start_with(|document| document["version"] = json!("1.3")).unwrap();
    gate.sidecar.kill().unwrap();
    change(&mut gate.document);
    let mut files = vec![("labels".to_owned(), b"app=\"orders\"".to_vec())];
    for part in ["settings", "trust", "identity", "policy"] {
        files.push((format!("{part}.json"), document(part, &gate.document[part])));
    }
    for name in ["ca.pem", "server.pem", "server.key"] {
        files.push((name.to_owned(), std::fs::read(gate.folder.file(name)).unwrap()));
    }
    put_identities(&mut files, &gate.document["identities"]);
    (gate, files)
}

fn document(part: &str, value: &Value) -> Vec<u8> {
    json!({"version": "1.3", part: value}).to_string().into_bytes()
}

fn put(files: &mut Files, name: &str, bytes: Vec<u8>) {
    files.retain(|(known, _)| known != name);
    files.push((name.to_owned(), bytes));
}

/// Identities in two chunks, the second of which begins in the middle of a word.
fn put_identities(files: &mut Files, identities: &Value) {
    let document = document("identities", identities);
    let (first, second) = document.split_at(document.len() / 2);
    let mut sums = String::new();
    for (index, half) in [first, second].into_iter().enumerate() {
        let chunk = zstd::bulk::compress(half, 1).unwrap();
        let digest = Sha256::digest(&chunk).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        sums += &format!("{digest}\n");
        put(files, &format!("identities.{index}.zst"), chunk);
    }
    put(files, "identities.sum", sums.into_bytes());
}

fn publish(folder: &mut ConfigFolder, files: &Files) {
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes)).collect();
    folder.publish(&files).unwrap();
}

fn start(files: &Files) -> (ConfigFolder, Sidecar) {
    let mut folder = ConfigFolder::new().unwrap();
    publish(&mut folder, files);
    let sidecar = Launch::new(folder.path()).unwrap().start_ready().unwrap();
    (folder, sidecar)
}

/// The status of a call to a sidecar with a client's certificate.
fn call(gate: &Gate, sidecar: &Sidecar, host: &str, client: &str) -> Option<u16> {
    let port = sidecar.listener("gate").unwrap().port();
    let curl = postern_tests::clients::Curl::new(format!("https://localhost:{port}/"));
    let to_host = format!("Host: {host}");
    let curl = curl.authority("ca.pem").folder(gate.folder.path()).certificate(client).arg("-H").arg(to_host);
    curl.call().unwrap().status
}

fn select(document: &mut Value, labels: &Value) {
    document["policy"]["routes"][0]["podSelector"] = json!({"matchLabels": labels});
}

#[test]
fn a_pod_serves_the_routes_that_select_its_labels() {
    let (gate, mut files) = volume(|document| select(document, &json!({"app": "orders"})));
    let (mut folder, sidecar) = start(&files);
    assert_eq!(call(&gate, &sidecar, "localhost", "billing"), Some(200));
    assert_eq!(call(&gate, &sidecar, "localhost", "reports"), Some(403), "known by a chunk, and not allowed");
    assert_eq!(status(&sidecar).routes.into_keys().collect::<Vec<_>>(), ["demo/orders"]);
    put(&mut files, "labels", b"app=\"stock\"".to_vec());
    publish(&mut folder, &files);
    wait_until("the route to be another pod's", || status(&sidecar).routes.is_empty());
    assert_eq!(call(&gate, &sidecar, "localhost", "billing"), Some(404));
    files.retain(|(name, _)| name != "labels");
    put(&mut files, "policy.json", document("policy", &json!({})));
    publish(&mut folder, &files);
    wait_until("another policy", || status(&sidecar).parts.policy.why.is_none());
    assert_eq!(status(&sidecar).parts.policy.refused, None, "labels that are gone are no error");
}

/// A pod with new labels may come before the operator has written the route that selects it.
#[test]
fn a_pod_is_not_started_before_a_route_of_its_workload_selects_it() {
    let (_gate, mut files) = volume(|document| select(document, &json!({"app": "orders", "release": "one"})));
    put(&mut files, "labels", b"app=\"orders\"\nrelease=\"two\"".to_vec());
    let (mut folder, sidecar) = start(&files);
    assert_eq!(page(&sidecar, "/readyz").status, Some(200), "what it has been told to serve it serves");
    let startup = page(&sidecar, "/startupz");
    let why = "not ready: no route of its workload selects this pod by its labels; it starts without one in ";
    assert!(startup.status == Some(503) && startup.text().starts_with(why), "{}", startup.text());
    put(&mut files, "labels", b"app=\"orders\"\nrelease=\"one\"".to_vec());
    publish(&mut folder, &files);
    wait_until("its start", || page(&sidecar, "/startupz").status == Some(200));
    assert_eq!(status(&sidecar).routes.into_keys().collect::<Vec<_>>(), ["demo/orders"]);
    put(&mut files, "labels", b"app=\"orders\"".to_vec());
    publish(&mut folder, &files);
    wait_until("no route to select it", || status(&sidecar).routes.is_empty());
    assert_eq!(page(&sidecar, "/startupz").text(), "started\n", "what has started waits for nothing");
}

/// Of pods that no route is meant for nobody knows it.
#[test]
fn a_pod_that_no_route_selects_starts_after_a_while() {
    let (_gate, mut files) = volume(|document| select(document, &json!({"app": "orders"})));
    put(&mut files, "labels", b"app=\"other\"".to_vec());
    let (_folder, sidecar) = start(&files);
    assert_eq!(page(&sidecar, "/startupz").status, Some(503));
    wait_until("its start", || page(&sidecar, "/startupz").status == Some(200));
    assert!(status(&sidecar).routes.is_empty());
}

#[test]
fn chunks_of_two_states_are_never_joined() {
    let (gate, files) = volume(|_| {});
    let (mut folder, sidecar) = start(&files);
    let loaded = status(&sidecar).parts.identities.loaded;
    let mut newer = files.clone();
    put_identities(&mut newer, &json!([]));
    let mut torn = files;
    // The first object was delivered, the second not yet.
    for name in ["identities.sum", "identities.0.zst"] {
        let (_, bytes) = newer.iter().find(|(known, _)| known == name).unwrap().clone();
        put(&mut torn, name, bytes);
    }
    publish(&mut folder, &torn);
    wait_until("the torn state to be refused", || status(&sidecar).parts.identities.refused.is_some());
    let identities = status(&sidecar).parts.identities;
    let place = folder.file("identities.sum").display().to_string();
    let why = "`identities.1.zst`: is not what identities.sum says; what was there before stays until both fit";
    assert_eq!((identities.loaded, identities.why), (loaded, Some(format!("{place}: {why}"))));
    assert_eq!(call(&gate, &sidecar, "localhost", "billing"), Some(200));
    publish(&mut folder, &newer);
    wait_until("the newer state", || status(&sidecar).parts.identities.refused.is_none());
    assert_eq!(call(&gate, &sidecar, "localhost", "billing"), Some(403));
}

#[test]
fn a_start_with_a_bad_policy_uses_the_one_that_all_pods_accepted() {
    let (gate, mut files) = volume(|_| {});
    let good = files.iter().find(|(name, _)| name == "policy.json").unwrap().1.clone();
    put(&mut files, "policy.good", good);
    let (mut folder, sidecar) = start(&files);
    let loaded = status(&sidecar).parts.policy.loaded;
    drop(sidecar);
    put(&mut files, "policy.json", document("policy", &json!({"listeners": [], "surprise": 1})));
    publish(&mut folder, &files);
    let sidecar = Launch::new(folder.path()).unwrap().start_ready().unwrap();
    assert_eq!(call(&gate, &sidecar, "localhost", "billing"), Some(200));
    let policy = status(&sidecar).parts.policy;
    let why =
        "`policy.surprise`: unknown field `surprise`, expected one of `listeners`, `routes`, `limits`, `forwarding`";
    let expected = (loaded.clone(), Some("unreadable".to_owned()), Some(why.to_owned()));
    assert_eq!((policy.loaded, policy.refused, policy.why), expected);
    // From now on the last good is its own: another policy for need is not looked at.
    put(&mut files, "policy.good", document("policy", &json!({})));
    put(&mut files, "endpoints.json", document("endpoints", &json!([])));
    publish(&mut folder, &files);
    wait_until("the change", || status(&sidecar).parts.endpoints.loaded != "none");
    assert_eq!(status(&sidecar).parts.policy.loaded, loaded);
    drop(sidecar);
    files.retain(|(name, _)| name != "policy.json");
    publish(&mut folder, &files);
    let sidecar = Launch::new(folder.path()).unwrap().start_ready().unwrap();
    let why = status(&sidecar).parts.policy.why;
    assert_eq!(why.as_deref(), Some("not there; what all pods accepted is in use"));
}

/// What it began with for need is what it had accepted last when all of it is gone.
#[test]
fn what_a_gate_began_with_for_need_is_kept_for_its_next_start() {
    let (gate, mut files) = volume(|_| {});
    let good = files.iter().find(|(name, _)| name == "policy.json").unwrap().1.clone();
    put(&mut files, "policy.good", good);
    put(&mut files, "policy.json", document("policy", &json!({"listeners": [], "surprise": 1})));
    let (mut folder, place) = (ConfigFolder::new().unwrap(), tempfile::tempdir().unwrap());
    let state = place.path().join("state");
    publish(&mut folder, &files);
    let launch = |folder: &ConfigFolder| {
        Launch::new(folder.path()).unwrap().variable("POSTERN__STATE_DIR", state.to_str().unwrap())
    };
    let mut sidecar = launch(&folder).start_ready().unwrap();
    let loaded = status(&sidecar).parts.policy.loaded;
    wait_metric(&sidecar, "postern_state_unsaved", 0);
    sidecar.kill().unwrap();
    files.retain(|(name, _)| !name.starts_with("policy."));
    publish(&mut folder, &files);
    let sidecar = launch(&folder).start_ready().unwrap();
    let policy = status(&sidecar).parts.policy;
    let why = "not there; what was accepted last is in use";
    assert_eq!((policy.loaded, policy.refused, policy.why.as_deref()), (loaded, None, Some(why)));
    assert_eq!(call(&gate, &sidecar, "localhost", "billing"), Some(200));
}

/// Two gates with one policy on one machine, each with an address of its own.
#[test]
fn all_addresses_can_stand_for_one() {
    let (_gate, mut files) = volume(|document| document["policy"]["listeners"][0]["address"] = json!("0.0.0.0:0"));
    let (folder, first) = start(&files);
    let port = first.listener("gate").unwrap().port();
    assert!(first.listener("gate").unwrap().ip().is_unspecified());
    drop((first, folder));
    let mut policy: Value =
        serde_json::from_slice(&files.iter().find(|(name, _)| name == "policy.json").unwrap().1).unwrap();
    policy["policy"]["listeners"][0]["address"] = json!(format!("0.0.0.0:{port}"));
    put(&mut files, "policy.json", policy.to_string().into_bytes());
    let mut folder = ConfigFolder::new().unwrap();
    publish(&mut folder, &files);
    let launch = |address: &str| Launch::new(folder.path()).unwrap().variable("POSTERN__LISTEN_ADDRESS", address);
    let gates = ["127.0.1.1", "127.0.1.2"]
        .map(|address| launch(address).variable("POSTERN__LOG__PATH", &format!("{address}.db")).start_ready().unwrap());
    for (gate, address) in gates.iter().zip(["127.0.1.1", "127.0.1.2"]) {
        assert_eq!(gate.listener("gate").unwrap().to_string(), format!("{address}:{port}"));
        assert_eq!(page(gate, "/readyz").status, Some(200));
    }
}
