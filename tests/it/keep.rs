//! The state directory: what was accepted last is used by a start whose configuration is gone, broken or refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postern_tests::gate::Gate;
use postern_tests::process::{Launch, built_sidecar};
use serde_json::{Value, json};
use sidecar_config::status::{PartStatus, Parts};

use crate::observed::{metric, status, wait_metric, wait_until};

const PARTS: [&str; 5] = ["trust", "identity", "identities", "policy", "endpoints"];

/// How the configuration is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One file, which is the whole configuration.
    File,
    /// A file for each part and one for the settings.
    Folder,
}

/// A gate with a state directory, whose parts are all on disk.
fn start(layout: Layout) -> Gate {
    let mut gate = Gate::start_with(|document| {
        document["settings"]["stateDir"] = json!("state");
        document["endpoints"] = json!([{ "name": "pool", "addresses": [] }]);
    })
    .unwrap();
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    gate.sidecar.kill().unwrap();
    fs::remove_dir_all(gate.folder.file("state")).unwrap();
    if layout == Layout::Folder {
        for part in PARTS.into_iter().chain(["settings"]) {
            let document = json!({ "version": "1.0", part: gate.document[part] });
            gate.folder.write(&format!("{part}.json"), &document.to_string()).unwrap();
        }
        fs::remove_file(gate.folder.file("postern.json")).unwrap();
    }
    restart(&mut gate, layout);
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    gate
}

fn launch(gate: &Gate, layout: Layout) -> Launch {
    let path = if layout == Layout::File { gate.folder.file("postern.json") } else { gate.folder.path().to_owned() };
    Launch::of(built_sidecar().unwrap(), &path)
}

fn restart(gate: &mut Gate, layout: Layout) {
    let _ = gate.sidecar.kill();
    gate.sidecar = launch(gate, layout).start_ready().unwrap();
}

fn call(gate: &Gate, certificate: &str) -> (Option<u16>, Option<String>) {
    // The authority's file may be what was broken.
    let curl = gate.curl(Some(certificate), "/orders").unwrap().authority("clients-ca.crt");
    let answer = curl.call().unwrap();
    (answer.status, answer.header("postern-reason").map(str::to_owned))
}

const ALLOWED: (Option<u16>, Option<String>) = (Some(200), None);

fn loaded(parts: &Parts) -> Vec<String> {
    parts.named().map(|(_, part)| part.loaded.clone()).to_vec()
}

/// Names of the parts that come from the state directory.
fn kept(parts: &Parts) -> Vec<&'static str> {
    parts.named().into_iter().filter(|(_, part)| part.kept_since.is_some()).map(|(name, _)| name).collect()
}

fn part<'a>(parts: &'a Parts, name: &str) -> &'a PartStatus {
    parts.named().into_iter().find(|(part, _)| *part == name).unwrap().1
}

/// What happens to a file while no gate runs.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Removed,
    Holds(&'static str),
}

const EMPTY: Loss = Loss::Holds("");
const TORN: Loss = Loss::Holds("{");
const NO_POLICY: Loss = Loss::Holds(r#"{"version": "1.0", "policy": {"limits": {"maxConnections": 0}}}"#);
const UNKNOWN: Loss = Loss::Holds(r#"{"version": "1.0", "identities": [{"name": "a", "recognise": [], "x": 1}]}"#);

#[test]
fn a_start_without_its_configuration_serves_what_was_accepted_last() {
    const NO_FILE: &str = "cannot be read: No such file or directory (os error 2)";
    const NOT_THERE: &str = "not there; what was accepted last is in use";
    let empty = "the file is empty, which is never a change; write the document, or an empty part";
    let no_ca = format!("`trust.bundles.ours.roots[0]`: `ca.pem`: {NO_FILE}");
    let no_certificate =
        "`identity.chain`: `server.pem` holds no certificate; put PEM blocks `BEGIN CERTIFICATE` into it";
    let no_key = "`identity.key`: `server.key`: holds no private key (no items found); put a PEM block `BEGIN PRIVATE \
                  KEY` into it";
    let limit = "`policy.limits.maxConnections`: is 0; write a number from 1 to 1000000";
    let field = "`identities[0].x`: unknown field `x`, expected one of `name`, `labels`, `recognise`";
    let (all, file) = (&PARTS[..], "DIR/postern.json");
    let table: [(Layout, &str, Loss, &[&str], String); 13] = [
        (Layout::File, "postern.json", EMPTY, all, format!("{file}: {empty}")),
        (Layout::File, "postern.json", Loss::Removed, all, format!("{file}: {NO_FILE}")),
        (
            Layout::File,
            "postern.json",
            TORN,
            all,
            format!("{file}: not valid JSON: line 1, column 1: EOF while parsing an object"),
        ),
        (Layout::File, "ca.pem", Loss::Removed, &["trust"], no_ca.clone()),
        (Layout::File, "server.pem", EMPTY, &["identity"], no_certificate.to_owned()),
        (Layout::File, "server.key", EMPTY, &["identity"], no_key.to_owned()),
        (Layout::Folder, "trust.json", Loss::Removed, &["trust"], NOT_THERE.to_owned()),
        (Layout::Folder, "identity.json", Loss::Removed, &["identity"], NOT_THERE.to_owned()),
        (Layout::Folder, "endpoints.json", Loss::Removed, &["endpoints"], NOT_THERE.to_owned()),
        (Layout::Folder, "policy.json", NO_POLICY, &["policy"], limit.to_owned()),
        (Layout::Folder, "identities.json", UNKNOWN, &["identities"], field.to_owned()),
        (Layout::Folder, "identities.json", EMPTY, &["identities"], format!("DIR/identities.json: {empty}")),
        // Nothing is lost but the settings: the status port is where it was, and so is the state directory.
        (Layout::Folder, "settings.json", Loss::Removed, &[], String::new()),
    ];
    for layout in [Layout::File, Layout::Folder] {
        let mut gate = start(layout);
        gate.folder.write("clients-ca.crt", gate.authority.root_pem()).unwrap();
        let before = loaded(&status(&gate.sidecar).parts);
        for (_, name, loss, expected, why) in table.iter().filter(|(of, ..)| *of == layout) {
            let path = gate.folder.file(name);
            let good = fs::read_to_string(&path).unwrap();
            gate.sidecar.kill().unwrap();
            match loss {
                Loss::Removed => fs::remove_file(&path).unwrap(),
                Loss::Holds(text) => fs::write(&path, text).unwrap(),
            }
            restart(&mut gate, layout);
            let parts = status(&gate.sidecar).parts;
            assert_eq!((loaded(&parts), kept(&parts)), (before.clone(), expected.to_vec()), "{name} {loss:?}");
            let whys = expected.iter().map(|name| part(&parts, name).why.clone().unwrap());
            let folder = gate.folder.path().display().to_string();
            whys.for_each(|found| assert_eq!(found.replace(&folder, "DIR"), *why, "{name} {loss:?}"));
            assert_eq!(call(&gate, "billing"), ALLOWED, "{name} {loss:?}");
            gate.folder.write(name, &good).unwrap();
            wait_until("the configuration again", || kept(&status(&gate.sidecar).parts).is_empty());
            assert_eq!(loaded(&status(&gate.sidecar).parts), before, "{name} {loss:?}");
        }
    }
}

#[test]
fn a_revocation_survives_a_restart_with_broken_trust() {
    let mut gate = start(Layout::Folder);
    gate.folder.write("clients-ca.crt", gate.authority.root_pem()).unwrap();
    assert_eq!(call(&gate, "billing"), ALLOWED);
    let before = status(&gate.sidecar).parts.trust.loaded;
    let mut trust = json!({ "version": "1.0", "trust": gate.document["trust"] });
    trust["trust"]["revocations"]["identities"] = json!([{ "name": "demo/billing", "state": "Revoked" }]);
    gate.folder.write("trust.json", &trust.to_string()).unwrap();
    wait_until("the revocation", || status(&gate.sidecar).parts.trust.loaded != before);
    let revoked = status(&gate.sidecar).parts.trust.loaded;
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    for broken in [Some(""), Some("{"), Some(r#"{"version": "1.0", "trust": {"bundles": 1}}"#), None] {
        gate.sidecar.kill().unwrap();
        match broken {
            Some(text) => gate.folder.write("trust.json", text).unwrap(),
            None => fs::remove_file(gate.folder.file("trust.json")).unwrap(),
        }
        restart(&mut gate, Layout::Folder);
        assert_eq!(status(&gate.sidecar).parts.trust.loaded, revoked, "{broken:?}");
        assert_eq!(call(&gate, "billing"), (Some(403), Some("policy_identity_revoked".to_owned())), "{broken:?}");
        assert_eq!(metric(&gate.sidecar, r#"postern_config_kept{part="trust"}"#), 1, "{broken:?}");
        assert_eq!(metric(&gate.sidecar, r#"postern_config_kept{part="policy"}"#), 0, "{broken:?}");
        let told = "running on what was accepted last, from the state directory";
        let line = gate.sidecar.wait_for(told, |line| line.message() == told).unwrap();
        let since = status(&gate.sidecar).parts.trust.kept_since;
        assert_eq!((line.text("part"), line.text("since")), (Some("trust"), since.as_deref()), "{broken:?}");
    }
}

#[test]
fn a_file_that_leaves_a_part_out_says_that_it_is_empty() {
    let mut gate = start(Layout::File);
    gate.document.as_object_mut().unwrap().retain(|name, _| name != "policy" && name != "identity");
    gate.sidecar.kill().unwrap();
    gate.folder.write_document(&gate.document).unwrap();
    restart(&mut gate, Layout::File);
    let parts = status(&gate.sidecar).parts;
    // There is no empty certificate: without a file that says another, the last one stays, as in a running gate.
    assert_eq!(kept(&parts), ["identity"]);
    assert_eq!(status(&gate.sidecar).routes.len(), 0);
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn what_is_kept_is_its_owners_only_and_written_when_it_changes() {
    let mut gate = start(Layout::Folder);
    let folder = gate.folder.file("state");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
    let files = entries(&folder);
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let expected = ["endpoints", "identities", "identity", "policy", "settings", "trust"];
    assert_eq!(names, expected.map(|name| format!("{name}.state")));
    let key = fs::read_to_string(gate.folder.file("server.key")).unwrap();
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600, "{}", file.display());
        let has_key = String::from_utf8_lossy(&fs::read(file).unwrap()).contains(key.trim());
        assert_eq!(has_key, file.ends_with("identity.state"), "{}", file.display());
    }
    // A file that is written is another file.
    let inodes = || files.iter().map(|file| fs::metadata(file).unwrap().ino()).collect::<Vec<_>>();
    let before = inodes();
    fs::write(folder.join(".identity.state.new"), "what a kill left").unwrap();
    restart(&mut gate, Layout::Folder);
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    assert_eq!((inodes(), entries(&folder).len()), (before.clone(), 6));
    let policy = fs::read_to_string(gate.folder.file("policy.json")).unwrap();
    let loaded = status(&gate.sidecar).parts.policy.loaded;
    gate.folder.write("policy.json", &policy.replace("/orders", "/other").replace("\"all\"", "\"every\"")).unwrap();
    wait_until("another policy", || status(&gate.sidecar).parts.policy.loaded != loaded);
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    let changed: Vec<_> = inodes().iter().zip(&before).map(|(now, before)| now != before).collect();
    assert_eq!(changed, [false, false, false, true, false, false]);
    let told: Vec<_> = gate.sidecar.lines().iter().map(|line| Value::from(line.fields.clone()).to_string()).collect();
    assert!(!told.iter().any(|line| line.contains("PRIVATE KEY")), "{told:?}");
}

/// Warnings about the state directory, with its path as `STATE`.
fn warnings(gate: &Gate) -> Vec<String> {
    let state = gate.folder.file("state").display().to_string();
    let lines = gate.sidecar.lines();
    let ours = lines.iter().filter(|line| line.message().contains("kept"));
    ours.map(|line| line.message().replace(&state, "STATE")).collect()
}

#[test]
fn a_state_file_that_cannot_be_used_costs_its_part_only() {
    let mut gate = start(Layout::Folder);
    gate.folder.write("clients-ca.crt", gate.authority.root_pem()).unwrap();
    let file = gate.folder.file("state").join("identities.state");
    let good = fs::read(&file).unwrap();
    let foreign = fs::read(gate.folder.file("state").join("policy.state")).unwrap();
    let newer = String::from_utf8(good.clone()).unwrap().replacen("state 1 ", "state 7 ", 1).into_bytes();
    let table: [(&[u8], &str); 5] = [
        (&good[..good.len() - 1], "is torn or was changed: its digest is another"),
        (b"", "is torn or no state file"),
        (&foreign, "is of `policy`, not of `identities`"),
        (&newer, "has format 7, and this sidecar reads 1"),
        (b"#!/bin/sh\n", "is no state file"),
    ];
    fs::write(gate.folder.file("identities.json"), "{").unwrap();
    fs::write(gate.folder.file("policy.json"), "{").unwrap();
    for (bytes, why) in table {
        gate.sidecar.kill().unwrap();
        fs::write(&file, bytes).unwrap();
        restart(&mut gate, Layout::Folder);
        let parts = status(&gate.sidecar).parts;
        assert_eq!((kept(&parts), parts.identities.loaded.as_str()), (vec!["policy"], "none"), "{why}");
        assert_eq!(call(&gate, "billing"), (Some(403), Some("policy_no_identity".to_owned())), "{why}");
        assert_eq!(warnings(&gate), [format!("cannot use what was kept: STATE/identities.state: {why}")]);
    }
}

#[test]
fn a_directory_that_others_can_use_is_not_used() {
    let mut gate = start(Layout::Folder);
    let folder = gate.folder.file("state");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    gate.sidecar.kill().unwrap();
    fs::write(gate.folder.file("trust.json"), "{").unwrap();
    gate.sidecar = launch(&gate, Layout::Folder).start_ready().unwrap();
    let why = "STATE: can be used by others; `chmod 700` it, or name a folder in it, which is made as needed";
    assert_eq!(kept(&status(&gate.sidecar).parts), Vec::<&str>::new());
    wait_until("failed writes", || metric(&gate.sidecar, "postern_state_write_errors_total") >= 5);
    assert_eq!(metric(&gate.sidecar, "postern_state_unsaved"), 5);
    let expected = [
        format!("cannot use what was kept: {why}"),
        format!("cannot keep what was accepted: {why}; a restart would use what was kept before"),
    ];
    assert_eq!(warnings(&gate), expected);
    // It is tried again, by whatever comes next or after a while.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    gate.sidecar.wait_for("the recovery", |line| line.message() == "the state directory is written again").unwrap();
}

#[test]
fn a_directory_is_found_by_a_variable_where_no_file_can_name_it() {
    let mut gate = start(Layout::File);
    let before = loaded(&status(&gate.sidecar).parts);
    gate.sidecar.kill().unwrap();
    fs::rename(gate.folder.file("state"), gate.folder.file("elsewhere")).unwrap();
    fs::write(gate.folder.file("postern.json"), "{").unwrap();
    let launch = launch(&gate, Layout::File);
    // Without it the gate does not know of its state, nor on which port its status is: it waits.
    gate.sidecar = launch.clone().variable("POSTERN__STATUS_ADDRESS", "127.0.0.1:0").start().unwrap();
    gate.sidecar.wait_for("not ready", |line| line.message() == "not ready").unwrap();
    assert_eq!(loaded(&status(&gate.sidecar).parts), ["none"; 5]);
    gate.sidecar.kill().unwrap();
    gate.sidecar = launch.variable("POSTERN__STATE_DIR", "elsewhere").start_ready().unwrap();
    assert_eq!(loaded(&status(&gate.sidecar).parts), before);
}

#[test]
fn a_directory_that_is_the_configurations_own_hides_no_change() {
    let mut gate = start(Layout::Folder);
    let seen = gate.sidecar.lines().len();
    let loaded = "configuration loaded";
    for part in PARTS {
        fs::remove_file(gate.folder.file(&format!("{part}.json"))).unwrap();
    }
    gate.document["settings"]["stateDir"] = json!(".");
    gate.folder.write_document(&gate.document).unwrap();
    fs::remove_file(gate.folder.file("settings.json")).unwrap();
    gate.sidecar.wait_for_after(seen, loaded, |line| line.message() == loaded).unwrap();
    fs::set_permissions(gate.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    restart(&mut gate, Layout::Folder);
    wait_metric(&gate.sidecar, "postern_state_unsaved", 0);
    assert!(gate.folder.file("trust.state").is_file());
    gate.document["trust"]["revocations"]["identities"] = json!([{ "name": "demo/billing", "state": "Revoked" }]);
    let (seen, written) = (gate.sidecar.lines().len(), Instant::now());
    gate.folder.write_document(&gate.document).unwrap();
    let line = gate.sidecar.wait_for_after(seen, loaded, |line| line.message() == loaded).unwrap();
    // Comparing would find it too, and not before the file has rested for two seconds.
    assert!(line.at.duration_since(written) < Duration::from_secs(2));
}
