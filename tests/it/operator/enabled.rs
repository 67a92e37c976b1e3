//! Namespaces that are enabled and disabled while the operator runs, under the rights that are shipped.

use postern_tests::apiserver::Namespace;
use serde_json::json;

use super::plugin::postern;
use super::scene::Scene;

impl Scene {
    fn enable(&self, namespace: &Namespace<'_>) {
        let said = postern(namespace, &["enable", &namespace.name, "--operator-namespace", &self.own.name]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }

    /// Disables a namespace in which nothing is under way, and waits until the operator has let go of it.
    fn disable(&self, namespace: &Namespace<'_>, left: usize) {
        self.settled_writes();
        let said = postern(namespace, &["disable", &namespace.name]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        self.wait_watches(left);
    }

    /// Waits until routes are watched in so many namespaces.
    fn wait_watches(&self, count: usize) {
        let watching = |page: &str| {
            let family = "postern_operator_watches{kind=\"route\",state=\"watching\"} ";
            page.lines().find_map(|line| line.strip_prefix(family)?.parse::<usize>().ok()).unwrap_or(0)
        };
        let waited = self.operator.wait_for("the watches", || {
            let page = self.operator.page("/metrics")?.text();
            Ok((watching(&page) == count).then_some(()))
        });
        waited.unwrap();
    }
}

#[test]
fn a_namespace_is_served_while_it_is_enabled_and_goes_on_when_it_is_not() {
    let scene = Scene::start_enabled();
    scene.apply(&scene.service());
    scene.apply(&scene.route(&["billing"]));
    scene.client("billing");
    scene.client("reports");
    scene.pods(&["orders-1"]);
    // It is ready to serve, and serves nobody.
    let ready = || Ok((scene.operator.page("/readyz")?.status == Some(200)).then_some(()));
    scene.operator.wait_for("the operator", ready).unwrap();
    assert_eq!(scene.writes(), [""; 0]);
    scene.enable(&scene.namespace);
    scene.wait_programmed(1);
    for client in ["billing", "reports"] {
        scene.keep_certificate(client);
        scene.wait_enforced(client, 1);
    }
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    assert_eq!(scene.operator.page("/readyz").unwrap().status, Some(200));
    scene.wait_promoted();

    scene.disable(&scene.namespace, 0);
    let (before, policies) = (scene.writes(), scene.policies());
    scene.apply(&scene.route(&["billing", "reports"]));
    assert_eq!(scene.call("orders-1", Some("billing")).status, Some(200), "what was written stays");
    assert_eq!(scene.call("orders-1", Some("reports")).status, Some(403));
    assert_eq!(scene.writes(), before);
    assert_eq!(scene.policies(), policies);

    scene.enable(&scene.namespace);
    scene.wait_programmed(1);
    scene.wait_answer("orders-1", "reports", (Some(200), None));
    let written = scene.writes().split_off(before.len());
    let others: Vec<_> = written.iter().filter(|write| write.contains("secrets")).collect();
    assert_eq!(others, [""; 0], "certificates are as they were");
}

/// A client may be shown anywhere, so what its namespace says of it counts there, whether it is enabled or not.
#[test]
fn who_is_suspended_in_a_namespace_that_was_disabled_is_refused_elsewhere() {
    let scene = Scene::start_enabled();
    let web = scene.own.server.namespace("web").unwrap();
    scene.enable(&scene.namespace);
    scene.enable(&web);
    let front = json!({
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "ClientIdentity",
        "metadata": {"name": "front"},
        "spec": {"issue": {"secretName": "front-client"}},
    });
    web.apply(&front).unwrap();
    let mut route = scene.route(&[]);
    route["spec"]["rules"][0]["allow"] = json!([{"identity": {"namespace": web.name, "name": "front"}}]);
    scene.apply(&scene.service());
    scene.apply(&route);
    scene.pods(&["orders-1"]);
    scene.keep_certificate_of(&web, "front");
    scene.wait_programmed(1);
    scene.wait_answer("orders-1", "front", (Some(200), None));
    scene.disable(&web, 1);
    scene.wait_answer("orders-1", "front", (Some(200), None));
    web.run(&["patch", "clientidentity/front", "--type=merge", "--patch", r#"{"spec": {"state": "Suspended"}}"#])
        .unwrap();
    scene.wait_answer("orders-1", "front", (Some(403), Some("policy_identity_suspended")));
}
