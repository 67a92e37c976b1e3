//! When a changed configuration is noticed: without inotify too, among other changes too, and never for what is gone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postern_tests::gate::Gate;
use postern_tests::process::{Launch, built_sidecar};
use serde_json::json;
use sidecar_config::status::{PartStatus, Parts};

use crate::observed::{status, wait_until};

/// A part's revision changes with it, and no client is concerned.
fn suspend_somebody(gate: &mut Gate, name: &str) -> String {
    gate.document["trust"]["revocations"]["identities"] = json!([{ "name": name, "state": "Suspended" }]);
    format!("{:#}", gate.document)
}

/// A program that runs the sidecar in a user namespace of its own, in which there is none of an inotify resource.
/// Nobody else on the machine has less of it for that.
fn without(gate: &Gate, limit: &str) -> Option<Launch> {
    let script = gate.folder.file("without-inotify");
    let inner = format!("echo 0 > /proc/sys/user/{limit} && exec \"$0\" \"$@\"");
    let sidecar = built_sidecar().unwrap();
    let text =
        format!("#!/bin/sh\nexec unshare --user --map-root-user sh -c '{inner}' '{}' \"$@\"\n", sidecar.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let works = Command::new(&script).arg("version").output().unwrap();
    works.status.success().then(|| Launch::of(script, gate.folder.path()))
}

#[test]
fn without_inotify_changes_are_found_by_comparing() {
    let told = "cannot watch the configuration; comparing it at an interval";
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let mut gate = Gate::start().unwrap();
        let Some(launch) = without(&gate, limit) else {
            writeln!(std::io::stderr(), "skipped: user namespaces are not to be had here").unwrap();
            return;
        };
        gate.sidecar.kill().unwrap();
        gate.sidecar = launch.start_ready().unwrap();
        gate.sidecar.wait_for(told, |line| line.message() == told).unwrap();
        let before = status(&gate.sidecar).parts.trust.loaded;
        let text = suspend_somebody(&mut gate, "demo/reports");
        if limit == "max_inotify_watches" {
            fs::remove_file(gate.folder.file("postern.json")).unwrap();
            gate.folder.publish(&[("postern.json", &text)]).unwrap();
        } else {
            gate.folder.write("postern.json", &text).unwrap();
        }
        wait_until("the change", || status(&gate.sidecar).parts.trust.loaded != before);
        let answer = gate.curl(Some("reports"), "/orders").unwrap().call().unwrap();
        assert_eq!(answer.header("postern-reason"), Some("policy_identity_suspended"), "{limit}");
    }
}

#[test]
fn a_stream_of_changes_does_not_put_off_reading_them() {
    let mut gate = Gate::start().unwrap();
    let noise = gate.folder.file("noise");
    let stop = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(&noise, "x").unwrap();
                // Far below the quiet time that ends a change.
                thread::sleep(Duration::from_millis(5));
            }
        });
        let tries = ["demo/reports", "demo/mallory", "demo/other"].map(|name| {
            let seen = gate.sidecar.lines().len();
            let text = suspend_somebody(&mut gate, name);
            let written = Instant::now();
            gate.folder.write("postern.json", &text).unwrap();
            let loaded = "configuration loaded";
            let line = gate.sidecar.wait_for_after(seen, loaded, |line| line.message() == loaded);
            line.map(|line| line.at.duration_since(written))
        });
        stop.store(true, Ordering::Relaxed);
        tries.map(Result::unwrap)
    });
    // At most 200 ms by design, and what a machine takes to read it; the best of some, because others are at work on it.
    assert!(took.iter().any(|took| *took < Duration::from_millis(400)), "{took:?}");
}

type Part = fn(&Parts) -> &PartStatus;

const PARTS: [(&str, Part); 5] = [
    ("trust", |parts| &parts.trust),
    ("identity", |parts| &parts.identity),
    ("identities", |parts| &parts.identities),
    ("policy", |parts| &parts.policy),
    ("endpoints", |parts| &parts.endpoints),
];

#[test]
fn what_is_empty_or_gone_is_no_change_in_any_part() {
    let gate = Gate::start_with(|document| {
        document["endpoints"] = json!([{ "name": "pool", "addresses": [] }]);
    })
    .unwrap();
    let file = |part: &str| format!("{part}.json");
    for (part, _) in PARTS {
        let document = json!({ "version": "1.0", part: gate.document[part] });
        gate.folder.write(&file(part), &document.to_string()).unwrap();
    }
    fs::remove_file(gate.folder.file("postern.json")).unwrap();
    let calm = |parts: &Parts| PARTS.iter().all(|(_, of)| of(parts).why.is_none());
    wait_until("the same in five files", || calm(&status(&gate.sidecar).parts));
    let before = status(&gate.sidecar);
    let empty = "the file is empty, which is never a change; write the document, or an empty part";
    let torn = "not valid JSON: line 1, column 1: EOF while parsing an object";
    let table = [
        (None, "not there any more; the last good stays in use".to_owned()),
        (Some(""), format!("DIR/FILE: {empty}")),
        (Some(" \n"), format!("DIR/FILE: {empty}")),
        (Some("{"), format!("DIR/FILE: {torn}")),
    ];
    let folder = gate.folder.path().display().to_string();
    for (part, of) in PARTS {
        let good = fs::read_to_string(gate.folder.file(&file(part))).unwrap();
        for (text, why) in &table {
            match text {
                None => fs::remove_file(gate.folder.file(&file(part))).unwrap(),
                Some(text) => gate.folder.write(&file(part), text).unwrap(),
            }
            let why = why.replace("DIR", &folder).replace("FILE", &file(part));
            wait_until(&why, || of(&status(&gate.sidecar).parts).why.as_ref() == Some(&why));
            let now = status(&gate.sidecar);
            let loaded = |parts: &Parts| PARTS.map(|(_, of)| of(parts).loaded.clone());
            assert_eq!((loaded(&now.parts), now.ready), (loaded(&before.parts), true), "{part} {text:?}");
            let answer = gate.curl(Some("billing"), "/orders").unwrap().call().unwrap();
            assert_eq!(answer.status, Some(200), "{part} {text:?}");
            gate.folder.write(&file(part), &good).unwrap();
            wait_until("the part again", || status(&gate.sidecar) == before);
        }
    }
}
