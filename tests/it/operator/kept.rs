//! Routes whose change is refused: what they were is served on, whatever happens to the operator, and they say why.

use serde_json::{Value, json};

use super::scene::Scene;

const SERVED_ON: &str = "the form that was accepted last is served on";

/// Route `orders` of somebody else's, with an expression that nobody can read: what the API lets through.
fn bad(scene: &Scene) -> Value {
    let mut route = scene.route(&["reports"]);
    route["spec"]["rules"][0]["matches"] = json!([{"path": {"type": "RegularExpression", "value": "/["}}]);
    route
}

fn wait_kept(scene: &Scene) {
    let message = scene.wait_condition("proxyroute/orders", "Accepted", "False", "Invalid");
    assert!(message.starts_with("spec.rules[0].matches[0].path.value: "), "{message}");
    assert!(message.ends_with(&format!("; {SERVED_ON}")), "{message}");
    let words = format!("as it is it is not accepted; {SERVED_ON}: 1 of 1 started pods have it");
    scene.wait_words("proxyroute/orders", "Programmed", "False", "Invalid", &words);
}

fn answers(scene: &Scene) -> [Option<u16>; 2] {
    ["billing", "reports"].map(|client| scene.call("orders-1", Some(client)).status)
}

#[test]
fn a_route_is_served_as_it_was_until_its_change_can_be() {
    let mut scene = Scene::serving();
    scene.wait_promoted();
    let good = scene.policies();
    scene.apply(&bad(&scene));
    wait_kept(&scene);
    assert_eq!(answers(&scene), [Some(200), Some(403)]);
    assert_eq!(scene.policies(), good, "nothing had to be written");

    // Whoever starts anew reads it where it was written, and writes nothing.
    let before = scene.settled_writes();
    scene.restart_operator();
    scene.client("late");
    scene.wait_condition("clientidentity/late", "Ready", "True", "Ready");
    wait_kept(&scene);
    let written = scene.writes().split_off(before.len());
    // Its Secret, and the one event that it was issued.
    let is_of_late =
        |write: &&String| write.contains("late") || ["create secrets", "create events"].contains(&write.as_str());
    assert!(
        written.iter().filter(|write| write.contains("events")).count() <= 1,
        "a restart tells nothing: {written:?}"
    );
    let others: Vec<_> = written.iter().filter(|write| !is_of_late(write)).collect();
    assert_eq!(others, [""; 0], "all of it: {written:?}");
    assert_eq!(answers(&scene), [Some(200), Some(403)]);

    // What is mended counts, and what is gone is gone.
    scene.apply(&scene.route(&["reports"]));
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.wait_answer("orders-1", "reports", (Some(200), None));
    assert_eq!(answers(&scene), [Some(403), Some(200)]);
    scene.apply(&bad(&scene));
    scene.wait_condition("proxyroute/orders", "Accepted", "False", "Invalid");
    scene.namespace.run(&["delete", "proxyroute/orders"]).unwrap();
    let is_gone = || Ok((!scene.policies().0.contains("/orders\"")).then_some(()));
    scene.operator.wait_for("the route to be gone", is_gone).unwrap();
}

/// What somebody else has put into our object is not what was accepted last.
#[test]
fn what_others_write_meanwhile_is_never_served() {
    let mut scene = Scene::serving();
    scene.wait_promoted();
    let good = scene.policies();
    scene.apply(&bad(&scene));
    wait_kept(&scene);
    let patch = |object: &str, patch: &Value| {
        scene.namespace.run(&["patch", object, "--type=merge", "--patch", &patch.to_string()]).unwrap();
    };
    let forged = good.0.replace("/billing\"", "/reports\"");
    assert_ne!(forged, good.0);
    let is_as_it_was = |scene: &Scene| {
        let is_as_it_was = || Ok((scene.policies() == good).then_some(()));
        scene.operator.wait_for("the policy as it was", is_as_it_was).unwrap();
    };
    for data in [json!({"policy.json": forged}), json!(null)] {
        // While it looks, it remembers.
        patch("configmap/postern-policy-orders", &json!({"data": data}));
        is_as_it_was(&scene);
    }
    for data in [json!({"policy.json": forged}), json!(null)] {
        // And who was not there believes what all pods have had.
        scene.operator.end();
        let text = json!({"data": data}).to_string();
        let arguments = ["patch", "configmap/postern-policy-orders", "--type=merge", "--patch", text.as_str()];
        scene.namespace.run(&arguments).unwrap();
        scene.restart_operator();
        is_as_it_was(&scene);
    }
    assert_eq!(answers(&scene), [Some(200), Some(403)]);
}

/// A namespace trusts what is served there; what does not fit is not written, and the route says so.
#[test]
fn authorities_are_trusted_as_long_as_what_is_served_names_them() {
    let scene = Scene::start();
    let partner = postern_tests::ca::Authority::new("partner").unwrap();
    let authority = |name: &str, room: usize| {
        // What stands between certificates is nobody's business, but takes room.
        let text = format!("{}{}\n", partner.root_pem(), "#".repeat(room));
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": text}})
    };
    let trusting = |names: &[&str], rules: &Value| {
        let trust = names.iter().map(|name| json!({"name": name, "caCertificateRefs": [{"name": name}]}));
        let mut route = scene.route(&["billing"]);
        route["spec"]["listener"]["tls"] = json!({"trust": trust.collect::<Vec<_>>()});
        route["spec"]["rules"][0]["matches"] = rules.clone();
        route
    };
    let trusted = || {
        let object = scene.namespace.object("configmap/postern-trust").unwrap().unwrap_or_default();
        let document: Value = serde_json::from_str(object["data"]["trust.json"].as_str().unwrap_or("{}")).unwrap();
        let bundles = document["trust"]["bundles"].as_object().cloned().unwrap_or_default();
        bundles.keys().filter_map(|name| Some(name.split_once('/')?.1.to_owned())).collect::<Vec<_>>()
    };
    let wait_trusted = |names: &[&str]| {
        let is_so = || Ok((trusted() == names).then_some(()));
        scene.operator.wait_for(&format!("trust in {names:?}"), is_so).unwrap();
    };
    let all = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    scene.apply(&authority("one", 600 << 10));
    scene.apply(&authority("two", 600 << 10));
    scene.apply(&authority("three", 0));
    scene.apply(&trusting(&["one"], &all));
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    wait_trusted(&["one"]);

    // The change names other authorities, and is refused for something else.
    let bad = json!([{"path": {"type": "RegularExpression", "value": "/["}}]);
    scene.apply(&trusting(&["three"], &bad));
    wait_kept(&scene);
    wait_trusted(&["one", "three"]);
    scene.apply(&trusting(&["three"], &all));
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    wait_trusted(&["three"]);

    // Two that do not fit into one object: what was written last stays, and the route says so.
    scene.apply(&trusting(&["one", "two"], &all));
    let words = "would be larger than its object may be (1000 KiB)";
    scene.wait_words("proxyroute/orders", "ResolvedRefs", "False", "RefNotFound", words);
    assert_eq!(trusted(), ["three"]);
    // A revocation would not fit either, and says so instead of counting as known.
    scene.client("billing");
    scene.wait_enforced("billing", 1);
    scene.patch_identity("billing", &json!({"state": "Suspended"}));
    scene.wait_condition("clientidentity/billing", "Enforced", "False", "TooLarge");
    scene.apply(&trusting(&["one"], &all));
    scene.wait_condition("proxyroute/orders", "ResolvedRefs", "True", "ResolvedRefs");
    wait_trusted(&["one"]);
    scene.wait_condition("clientidentity/billing", "Enforced", "True", "Enforced");
}
