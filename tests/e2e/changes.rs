//! How long it takes until what is changed with kubectl is so in a gate. `make e2e-figures` takes 200 samples of each.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::PATIENCE;
use crate::load::{Load, Prober, print, samples, say};
use crate::scene::Scene;

/// Samples where others wait for the end of it.
const FEW: usize = 10;
/// What the design allows of a revocation on a quiet machine is 2 s. Here it only finds what is stuck: others share it.
const BOUND: Duration = Duration::from_secs(15);

fn state(scene: &Scene, state: &str) {
    let patch = json!({"spec": {"state": state}}).to_string();
    scene.kubectl(&["patch", "clientidentity/billing", "--type=merge", "-p", &patch]).unwrap();
}

/// And let in again, each time; at last for good, by its certificate.
#[test]
fn a_client_that_is_suspended_is_refused_in_a_moment() {
    let scene = Scene::serving("revoked");
    scene.call(Some("billing"), "/orders/7");
    let mut prober = Prober::start(&scene, "%{http_code}").unwrap();
    prober.says("200", PATIENCE).unwrap();
    let mut times = Vec::new();
    for _ in 0..samples(FEW) {
        let patched = Instant::now();
        state(&scene, "Suspended");
        times.push(prober.says("403", BOUND).unwrap() - patched);
        state(&scene, "Active");
        prober.says("200", BOUND).unwrap();
    }
    print("from kubectl patch to refused", &mut times).unwrap();
    state(&scene, "Revoked");
    prober.says("000", BOUND).unwrap();
    let refused = scene.call(Some("billing"), "/orders/7");
    assert!(refused.stderr.contains("certificate revoked"), "{refused:?}");
}

/// Each change is seen in an answer before the next one is made.
#[test]
fn changes_of_a_route_fail_no_request_and_are_soon_there() {
    let scene = Scene::serving("changed");
    let load = Load::start(&scene);
    let mut prober = Prober::start(&scene, "%{http_code} %header{x-change}").unwrap();
    let mut times = Vec::new();
    for number in 0..samples(FEW) {
        let filters = json!([{"responseHeaderModifier": {"set": [{"name": "x-change", "value": number.to_string()}]}}]);
        let patch = json!([{"op": "add", "path": "/spec/rules/0/filters", "value": filters}]).to_string();
        let patched = Instant::now();
        scene.kubectl(&["patch", "proxyroute/orders", "--type=json", "-p", &patch]).unwrap();
        times.push(prober.says(&format!("200 {number}"), BOUND).unwrap() - patched);
    }
    print("from kubectl patch to an answer by the new route", &mut times).unwrap();
    let failed: Vec<_> = prober.seen.iter().filter(|line| !line.starts_with("200 ")).collect();
    assert!(failed.is_empty(), "{failed:?}");
    say(&format!("{} changes: {} calls, none failed", times.len(), prober.seen.len() + load.none_failed()));
}
