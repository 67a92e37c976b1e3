//! Certificates of gates that last a minute: they are made anew all the time, and no call fails.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use postern_tests::wait::eventually;
use serde_json::Value;

use crate::cluster::{OWN, in_checkout, path};
use crate::load::{Load, say};
use crate::scene::Scene;

/// Certificates that are to be seen, one after the other: the next one comes after some twenty seconds.
const SEEN: usize = 4;
/// For all of them.
const LIMIT: Duration = Duration::from_mins(3);

#[test]
fn certificates_of_a_minute_are_made_anew_without_a_failed_request() {
    let scene = Scene::alone("rotation");
    let chart = in_checkout("charts/postern");
    let mut upgrade = vec!["-n", OWN, "upgrade", "postern", path(&chart).unwrap()];
    // Another case has applied the same objects by kubectl, which counts as somebody else's word.
    upgrade.extend(["--force-conflicts", "--set", "operator.settings.gate-certificate-duration=1m"]);
    scene.cluster.helm(&upgrade).unwrap();
    scene.cluster.rolled_out(OWN, "deployment/postern-operator").unwrap();
    let load = Load::start(&scene);
    let mut seen = BTreeSet::new();
    let told = eventually("certificates one after the other", LIMIT, || {
        let words =
            ["exec", "deployment/orders", "-c", "postern-sidecar", "--", "postern-sidecar", "status", "-o", "json"];
        let status: Value = serde_json::from_str(&scene.kubectl(&words)?)?;
        seen.extend(status["leafSerial"].as_str().map(str::to_owned));
        // Looking is not to be what keeps the machine busy.
        thread::sleep(Duration::from_millis(500));
        Ok((seen.len() >= SEEN).then_some(()))
    });
    load.wait_for_more();
    // Whoever comes next has what everybody has.
    scene.cluster.install().unwrap();
    told.unwrap();
    say(&format!("{} certificates of a minute: {} calls, none failed", seen.len(), load.none_failed()));
}
