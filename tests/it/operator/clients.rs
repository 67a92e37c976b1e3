//! Clients of every kind, by calls through a gate that the operator has configured: who is known, and who is not.

use std::path::Path;
use std::process::Command;

use postern_tests::ca::{Authority, Issued, LeafOptions};
use postern_tests::clients::{Answer, run};
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};

use super::scene::Scene;

/// Status and reason of an answer.
fn told(answer: &Answer) -> (Option<u16>, Option<&str>) {
    (answer.status, answer.header("postern-reason"))
}

/// A pod behind route `orders` with this `allow`, called by its Service.
fn start(allow: &Value) -> Scene {
    start_with(allow, None)
}

/// The same, whose gate lets clients of somebody else's authority in.
fn start_with(allow: &Value, partner: Option<&Authority>) -> Scene {
    let scene = Scene::start();
    scene.apply(&scene.service());
    let mut route = scene.route(&[]);
    route["spec"]["rules"][0]["allow"] = allow.clone();
    if let Some(partner) = partner {
        scene.apply(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "partner-ca"},
            "data": {"ca.crt": partner.root_pem()},
        }));
        let trust = json!([{"name": "partner", "caCertificateRefs": [{"name": "partner-ca"}]}]);
        route["spec"]["listener"]["tls"] = json!({"trust": trust});
    }
    scene.apply(&route);
    scene.pods(&["orders-1"]);
    scene
}

pub(super) fn identity(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity", "metadata": {"name": name}, "spec": spec})
}

/// A request for a certificate by somebody who keeps the key in a file, in base64.
pub(super) fn request(key: &Path) -> String {
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=meter"];
    let request = openssl(&[&["req", "-new", "-keyout", key.to_str().unwrap()], &curve[..]].concat(), "");
    openssl(&["base64", "-A"], &request)
}

fn openssl(arguments: &[&str], input: &str) -> String {
    let finished = run(Command::new("openssl").args(arguments), input.as_bytes(), PATIENCE).unwrap();
    assert_eq!(finished.code, Some(0), "openssl {arguments:?}: {}", finished.stderr);
    finished.text()
}

fn call_with(scene: &Scene, name: &str, issued: &Issued) -> Answer {
    scene.keep(name, issued);
    scene.call("orders-1", Some(name))
}

/// The key stays with the client.
#[test]
fn a_client_with_a_key_of_its_own_is_issued_a_certificate() {
    let scene = start(&json!([{"identity": {"name": "meter"}}]));
    scene.apply(&identity("meter", &json!({"csr": {"request": request(&scene.file("meter.key"))}})));
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.wait_condition("clientidentity/meter", "Ready", "True", "Ready");
    let object = scene.namespace.object("clientidentity/meter").unwrap().unwrap();
    std::fs::write(scene.file("meter.pem"), object["status"]["certificate"]["chain"].as_str().unwrap()).unwrap();
    // The authorities come with the Secret of a client that is given one.
    scene.client("other");
    scene.keep_certificate("other");
    scene.wait_answer("orders-1", "meter", (Some(200), None));
    // What no rule of a workload names is not known to it.
    assert_eq!(told(&scene.call("orders-1", Some("other"))), (Some(403), Some("policy_no_identity")));
}

/// Recognised by what its certificate is, under authorities that vouch for nothing; and no longer once it is suspended.
#[test]
fn a_client_of_other_authorities_is_recognised_by_its_digest() {
    let authority = Authority::new("partner").unwrap();
    let scene = start_with(&json!([{"identity": {"name": "device"}}]), Some(&authority));
    let device = authority.issue(&LeafOptions::client("device", "urn:device:7")).unwrap();
    let fingerprint = format!("sha256:{}", device.fingerprint().unwrap());
    let spec = |state: &str| {
        let external = json!({"trust": {"caCertificateRefs": [{"name": "partner-ca"}]}, "fingerprints": [fingerprint]});
        json!({"external": external, "state": state})
    };
    scene.apply(&identity("device", &spec("Active")));
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.client("other");
    scene.keep_certificate("other");
    scene.keep("device", &device);
    scene.wait_answer("orders-1", "device", (Some(200), None));
    let another = authority.issue(&LeafOptions::client("device", "urn:device:7")).unwrap();
    assert_eq!(told(&call_with(&scene, "another", &another)), (Some(403), Some("policy_no_identity")));
    scene.apply(&identity("device", &spec("Suspended")));
    scene.wait_answer("orders-1", "device", (Some(403), Some("policy_identity_suspended")));
}

/// Whatever a partner's authority writes into certificates, it makes none of our clients: neither of somebody nobody
/// knows, nor of the partner's own client, who is known and may do something else.
#[test]
fn a_partner_that_issues_our_names_makes_nobody_of_ours() {
    let authority = Authority::new("partner").unwrap();
    let allow = json!([{"identity": {"name": "billing"}}, {"serviceAccount": {"namespace": "web", "name": "front"}}]);
    let scene = start_with(&allow, Some(&authority));
    let mut route = scene.namespace.object("proxyroute/orders").unwrap().unwrap();
    let mut rule = route["spec"]["rules"][0].clone();
    rule["name"] = json!("partner");
    rule["matches"] = json!([{"path": {"type": "Exact", "value": "/partner"}}]);
    rule["allow"] = json!([{"identity": {"name": "partner"}}]);
    route["spec"]["rules"].as_array_mut().unwrap().push(rule);
    let spec = json!({"podSelector": route["spec"]["podSelector"], "listener": route["spec"]["listener"], "rules": route["spec"]["rules"]});
    scene.apply(
        &json!({"apiVersion": route["apiVersion"], "kind": "ProxyRoute", "metadata": {"name": "orders"}, "spec": spec}),
    );
    let known = "client.partner.example".to_owned();
    let external = json!({"trust": {"caCertificateRefs": [{"name": "partner-ca"}]}, "dnsNames": [known]});
    scene.apply(&identity("partner", &json!({"external": external})));
    scene.client("billing");
    scene.keep_certificate("billing");
    scene.keep(
        "partner",
        &authority
            .issue(&LeafOptions { dns_names: vec![known.clone()], ..LeafOptions::client("partner", "urn:x") })
            .unwrap(),
    );
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    scene.wait_answer("orders-1", "partner", (Some(403), Some("policy_not_allowed")));
    let uri = |kind: &str| format!("spiffe://cluster.local/ns/{}/{kind}", scene.namespace.name);
    let named =
        |uri: &str, name: &str| LeafOptions { dns_names: vec![name.to_owned()], ..LeafOptions::client("billing", uri) };
    let forged = [
        ("client", uri("client/billing")),
        ("workload", uri("sa/orders")),
        ("account", "spiffe://cluster.local/ns/web/sa/front".to_owned()),
        ("common-name", "urn:x".to_owned()),
    ];
    for (name, uri) in forged {
        for (dns_name, reason) in [(scene.host(), "policy_no_identity"), (known.clone(), "policy_not_allowed")] {
            let answer = call_with(&scene, name, &authority.issue(&named(&uri, &dns_name)).unwrap());
            assert_eq!(told(&answer), (Some(403), Some(reason)), "{name} as {dns_name}");
        }
    }
}

/// A rule that names nobody refuses whoever is revoked all the same.
#[test]
fn a_suspended_client_passes_no_rule_that_lets_any_pass() {
    let scene = start(&json!([{"verified": {}}]));
    for client in ["billing", "reports"] {
        scene.client(client);
        scene.wait_condition(&format!("clientidentity/{client}"), "Ready", "True", "Ready");
        scene.keep_certificate(client);
    }
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    for client in ["billing", "reports"] {
        scene.wait_answer("orders-1", client, (Some(200), None));
    }
    scene.patch_identity("reports", &json!({"state": "Suspended"}));
    scene.wait_answer("orders-1", "reports", (Some(403), Some("policy_identity_suspended")));
    assert_eq!(told(&scene.call("orders-1", Some("billing"))), (Some(200), None));
}

/// What is deleted was revoked: its certificates are good for nothing as long as they live.
#[test]
fn a_deleted_clients_certificate_is_revoked() {
    let scene = start(&json!([{"verified": {}}]));
    scene.client("billing");
    scene.keep_certificate("billing");
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    scene.namespace.run(&["delete", "clientidentity/billing"]).unwrap();
    scene.wait_answer("orders-1", "billing", (None, None));
    let refused = scene.call("orders-1", Some("billing"));
    assert!(refused.stderr.contains("certificate revoked"), "{}", refused.stderr);
}

/// Traffic, and the restart of a container, need nobody but the pod.
#[test]
fn a_gate_goes_on_without_the_operator() {
    let mut scene = start(&json!([{"identity": {"name": "billing"}}]));
    scene.client("billing");
    scene.keep_certificate("billing");
    scene.wait_condition("proxyroute/orders", "Programmed", "True", "Programmed");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    scene.operator.end();
    scene.kubelet.with("orders-1", postern_tests::minikubelet::Pod::restart).unwrap();
    scene.kubelet.wait_started("orders-1").unwrap();
    assert_eq!(told(&scene.call("orders-1", Some("billing"))), (Some(200), None));
}

/// Older certificates are gone without a list, and the client has another one by then.
#[test]
fn certificates_from_before_a_time_are_replaced_and_refused() {
    let scene = start(&json!([{"identity": {"name": "billing"}}]));
    scene.client("billing");
    scene.keep_certificate("billing");
    scene.wait_programmed(1);
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    let before = scene.certificate("billing");
    let now = this_moment();
    scene.patch_identity("billing", &json!({"acceptIssuedAfter": now}));
    scene.wait_answer("orders-1", "billing", (Some(403), Some("policy_issued_too_early")));
    let renewed = || Ok((scene.certificate("billing") != before).then_some(()));
    scene.operator.wait_for("another certificate", renewed).unwrap();
    scene.keep_certificate("billing");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
}

/// This moment, as Kubernetes writes it.
fn this_moment() -> String {
    let finished = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]), b"", PATIENCE).unwrap();
    finished.text().trim_end().to_owned()
}
