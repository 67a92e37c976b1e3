//! The real operator on a real API server, with real sidecars in front of an application.

mod away;
mod backends;
mod captured;
mod certificates;
mod clients;
mod command;
mod enabled;
mod enclosed;
mod events;
mod grants;
mod identities;
mod kept;
mod killed;
mod leading;
mod mended;
mod merged;
pub(crate) mod monitor;
pub(crate) mod plugin;
mod prober;
mod revocation;
mod rights;
mod scale;
pub(crate) mod scene;
mod silent;
mod stand_in;
mod taken;
mod telemetry;
mod traces;
mod untouched;
mod unused;

use postern_tests::minikubelet::{ADDRESS, NO_SIDECAR, pod};
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use self::monitor::series;
use self::prober::Prober;
use self::scene::Scene;
use self::stand_in::StandIn;
use crate::observed::status;

/// From `kubectl apply` to a call that passes.
#[test]
fn a_route_and_a_client_that_are_applied_become_a_call_that_passes() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.client("reports");
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    let row = json!({"name": "orders", "pods": 1, "started": 1, "programmed": 1, "rejected": 0, "unreachable": 0, "message": ""});
    assert_eq!(scene.workload("proxyroute/orders"), row);
    for client in ["billing", "reports"] {
        scene.wait_condition(&format!("clientidentity/{client}"), "Ready", "True", "Ready");
        scene.keep_certificate(client);
    }
    assert_eq!(scene.call("orders-1", Some("billing")).status, Some(200));
    assert_eq!(scene.call("orders-1", Some("reports")).status, Some(403));
    assert_eq!(scene.call("orders-1", None).status, None, "a handshake without a certificate is refused");
}

/// A restart writes nothing, and neither does a wait: what it would write is there.
#[test]
fn what_has_not_changed_is_not_written() {
    let mut scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.pods(&["orders-1", "orders-2"]);
    scene.wait_programmed(2);
    scene.wait_condition("clientidentity/billing", "Ready", "True", "Ready");
    scene.wait_enforced("billing", 2);
    scene.wait_promoted();
    let before = scene.settled_writes();
    scene.restart_operator();
    // Something new, to see that it works again and has seen what there is.
    scene.client("late");
    scene.wait_condition("clientidentity/late", "Ready", "True", "Ready");
    let written = scene.writes().split_off(before.len());
    // What is made has no name in the request: the Secret of the new client, and the event that tells of it.
    let its = ["create secrets", "create events"];
    let is_of_late = |write: &&String| write.contains("late") || its.contains(&write.as_str());
    let others: Vec<_> = written.iter().filter(|write| !is_of_late(write)).collect();
    assert_eq!(others, [""; 0], "all of it: {written:?}");
}

#[test]
fn a_route_without_pods_says_so() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.wait_condition("proxyroute/orders", "Programmed", "False", "NoPods");
    scene.pods(&["orders-1"]);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.namespace.run(&["delete", "pod/orders-1", "--grace-period=0", "--force"]).unwrap();
    scene.wait_condition("proxyroute/orders", "Programmed", "False", "NoPods");
}

/// What all pods have accepted is kept for their next start; a pod that has not is waited for.
#[test]
fn a_candidate_that_all_pods_have_loaded_becomes_the_good_one() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1", "orders-2"]);
    scene.wait_programmed(2);
    let first = scene.wait_promoted();
    scene.kubelet.with("orders-2", |pod| pod.sidecar()?.pause()).unwrap();
    let mut changed = scene.route(&["billing"]);
    changed["spec"]["hostnames"] = json!(["orders.example.com"]);
    scene.apply(&changed);
    let candidate = scene.operator.wait_for("another candidate", || {
        let (candidate, _) = scene.policies();
        Ok((candidate != first).then_some(candidate))
    });
    let candidate = candidate.unwrap();
    // Both have the change in their volume, and one of them has told that it is loaded.
    scene.wait_loaded("orders-1");
    let counted = || Ok((scene.workload("proxyroute/orders")["programmed"] == 1).then_some(()));
    scene.operator.wait_for("the pod that is not paused to be counted", counted).unwrap();
    let (_, good) = scene.policies();
    assert_eq!(good, first);
    scene.kubelet.with("orders-2", |pod| pod.sidecar()?.resume()).unwrap();
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    assert_eq!(scene.wait_promoted(), candidate);
}

/// An address that another pod has now: what answers there is not the pod that is asked.
#[test]
fn another_pods_answer_does_not_count() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1"]);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    let address = scene.kubelet.with("orders-1", |pod| Ok(pod.address())).unwrap();
    let mut other = pod("orders-2", "orders", "orders", &[("app", "orders")]);
    other["metadata"]["annotations"] = json!({ADDRESS: address, NO_SIDECAR: "true"});
    scene.apply(&other);
    scene.kubelet.with("orders-2", |_| Ok(())).unwrap();
    scene.say_started("orders-2");
    let row = |row: &Value| (row["pods"].clone(), row["started"].clone(), row["programmed"].clone());
    scene
        .operator
        .wait_for("the second pod", || {
            Ok((row(&scene.workload("proxyroute/orders")) == (json!(2), json!(2), json!(1))).then_some(()))
        })
        .unwrap();
    let (status, _, _) = scene.condition("proxyroute/orders", "Programmed").unwrap();
    assert_ne!(status, "True");
}

/// The words of a sidecar that refuses what others accept come to whoever wrote the route.
#[test]
fn what_a_sidecar_refuses_is_told_in_its_words() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    scene.pods(&["orders-1"]);
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    let stand_in = StandIn::start(&scene, "orders-2");
    let why = "`policy.routes[0].podSelector`: unknown field `podSelector`";
    let refused = scene.policy_revision();
    stand_in.change(|status| {
        status.parts.policy.refused = Some(refused);
        status.parts.policy.why = Some(why.to_owned());
    });
    let message = scene.wait_condition("proxyroute/orders", "Programmed", "False", "Rejected");
    assert!(message.contains(why) && message.contains("orders-2"), "{message}");
    let row = scene.workload("proxyroute/orders");
    assert_eq!([&row["started"], &row["programmed"], &row["rejected"]], [2, 1, 1].map(|count| json!(count)).each_ref());
}

/// Whoever has changed a pod's image has not changed the label that was put in with the first one.
#[test]
fn a_sidecar_of_another_version_is_told_of_whatever_its_label_says() {
    let scene = Scene::start();
    scene.apply(&scene.route(&["billing"]));
    let stand_in = StandIn::start(&scene, "orders-1");
    for (version, expected) in [("0.0.1", 1.0), (env!("CARGO_PKG_VERSION"), 0.0)] {
        stand_in.change(|status| status.version = Some(version.to_owned()));
        let counted = || {
            let page = scene.operator.page("/metrics")?.text();
            let old = series(&page, "postern_operator_pods_without_sidecar{reason=\"old\"}");
            Ok((old == expected && page.contains("kind=\"audit\"")).then_some(()))
        };
        scene.operator.wait_for(version, counted).unwrap();
    }
}

/// A certificate that is gone is made anew at once, and no request fails for it.
#[test]
fn a_gate_gets_another_certificate_and_drops_nothing() {
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.keep_certificate("billing");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    let prober = Prober::start(&scene, "orders-1", "billing");
    let since = prober.wait(true, PATIENCE);
    let serial = || scene.kubelet.with("orders-1", |pod| Ok(status(pod.sidecar()?).leaf_serial));
    let first = serial().unwrap();
    for _ in 0..3 {
        let last = serial().unwrap();
        scene.namespace.run(&["delete", "secret/postern-id-orders-orders"]).unwrap();
        let renewed = || Ok(serial()?.filter(|serial| Some(serial) != last.as_ref()));
        scene.operator.wait_for("another certificate", renewed).unwrap();
    }
    assert_ne!(serial().unwrap(), first);
    assert_eq!(scene.call("orders-1", Some("billing")).status, Some(200));
    assert_eq!((prober.wait(true, PATIENCE), prober.cut()), (since, 0), "every request passed");
}
