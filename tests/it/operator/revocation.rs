//! From `kubectl patch` to a refusal: how long it takes until no pod of a workload lets a client pass any more.

use std::env;
use std::time::{Duration, Instant};

use serde_json::json;

use super::prober::Prober;
use super::scene::Scene;

/// As many pods and samples as tests have time for; `make revocations` asks for 20 and 200.
const PODS: usize = 3;
const SAMPLES: usize = 5;
/// What the design allows on a real node. Here it only finds what is stuck: other tests share the machine.
const BOUND: Duration = Duration::from_secs(15);

fn count(variable: &str, default: usize) -> usize {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Every sidecar, on connections that were open before; and back again.
#[test]
fn a_suspension_reaches_every_pod_and_can_be_taken_back() {
    let (pods, samples) = (count("REVOCATION_PODS", PODS), count("REVOCATION_SAMPLES", SAMPLES));
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    let names: Vec<_> = (0..pods).map(|number| format!("orders-{number}")).collect();
    scene.pods(&names.iter().map(String::as_str).collect::<Vec<_>>());
    scene.wait_programmed(pods);
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    scene.keep_certificate("billing");
    let probers: Vec<_> = names.iter().map(|pod| Prober::start(&scene, pod, "billing")).collect();
    let wait = |passes| probers.iter().map(|prober: &Prober| prober.wait(passes, BOUND)).max().unwrap();
    wait(true);
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let patched = Instant::now();
        state(&scene, "Suspended");
        times.push(wait(false).duration_since(patched));
        state(&scene, "Active");
        wait(true);
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share).div_ceil(100).max(1) - 1].as_millis();
    let line = format!(
        "from kubectl patch to refused by all of {pods} pods, {samples} samples: p50 {} ms, p90 {} ms, p99 {} ms, most {} ms",
        at(50),
        at(90),
        at(99),
        at(100)
    );
    std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes()).unwrap();
    state(&scene, "Revoked");
    wait(false);
    scene.wait_condition("clientidentity/billing", "Enforced", "True", "Enforced");
    // The certificate goes with the identity: the handshake is refused already.
    let refused = scene.call("orders-0", Some("billing"));
    assert_eq!(refused.status, None);
    assert!(refused.stderr.contains("certificate revoked"), "{}", refused.stderr);
}

fn state(scene: &Scene, state: &str) {
    scene.patch_identity("billing", &json!({"state": state}));
}
