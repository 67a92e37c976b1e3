//! The API server is away for a while and comes back, under an operator that leads. It is this test's own.

use std::sync::OnceLock;

use postern_tests::apiserver::ApiServer;
use postern_tests::operator::Operator;
use serde_json::json;

use super::scene::Scene;

/// Longer than an API server takes to come back beside a build: what happens when a Lease runs out is tested by itself.
const LEASE: [&str; 4] =
    ["--leader-election=On", "--lease-duration=10m", "--lease-renew-deadline=9m", "--lease-retry-period=300ms"];

fn server() -> &'static ApiServer {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    SERVER.get_or_init(|| ApiServer::start_again_and_again().unwrap())
}

#[test]
fn an_api_server_that_was_away_finds_everything_as_it_left_it() {
    let mut scene = Scene::start_on(server());
    let leading = Operator::start_with(&scene.own, &scene.namespace, &LEASE).unwrap();
    drop(std::mem::replace(&mut scene.operator, leading));
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    for client in ["billing", "reports"] {
        scene.client(client);
        scene.keep_certificate(client);
    }
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.wait_enforced("billing", 1);
    scene.wait_promoted();
    let before = scene.settled_writes();
    let holder = || scene.own.object("lease/postern-operator").unwrap().unwrap()["spec"]["holderIdentity"].clone();
    let (leader, page) = (holder(), scene.operator.page("/livez").unwrap());
    assert_eq!(page.status, Some(200));

    scene.operator.may_be_refused();
    server().take_away().unwrap();
    // The operator has noticed: what it asks for is not answered.
    let noticed = || {
        let page = scene.operator.page("/metrics")?.text();
        let is_of_lease = |line: &&str| line.contains(r#"outcome="unreachable",resource="leases""#);
        Ok(page.lines().find(is_of_lease).map(|_| ()))
    };
    scene.operator.wait_for("the operator to miss the API server", noticed).unwrap();
    assert_eq!(scene.call("orders-1", Some("billing")).status, Some(200), "gates do without");
    assert_eq!(scene.call("orders-1", Some("reports")).status, Some(403));
    assert_eq!(scene.operator.page("/livez").unwrap().status, Some(200), "it waits");

    server().bring_back().unwrap();
    // Something new, to see that it works again; and that with it, nothing else was written.
    scene.apply(&scene.route(&["billing", "reports"]));
    scene.wait_programmed(1);
    scene.wait_answer("orders-1", "reports", (Some(200), None));
    scene.wait_promoted();
    assert_eq!(holder(), leader, "it leads, and never did not");
    let written = scene.settled_writes().split_off(before.len());
    let about = ["/postern-policy-orders", "/postern-identities-orders-0", "proxyroutes/", "pods/", "events"];
    assert_eq!(others(&written, &about), [""; 0], "all of it: {written:?}");
    // And for a moment only, so that watches go on where they were.
    let before = scene.settled_writes();
    server().take_away().unwrap();
    server().bring_back().unwrap();
    scene.patch_identity("reports", &json!({"state": "Suspended"}));
    scene.wait_answer("orders-1", "reports", (Some(403), Some("policy_identity_suspended")));
    let written = scene.settled_writes().split_off(before.len());
    let about = ["/postern-trust", "/postern-identities-orders-0", "clientidentities/", "pods/", "events"];
    assert_eq!(others(&written, &about), [""; 0], "all of it: {written:?}");
}

/// Writes that are about nothing of this.
fn others<'a>(written: &'a [String], about: &[&str]) -> Vec<&'a String> {
    written.iter().filter(|write| !about.iter().any(|word| write.contains(word))).collect()
}
