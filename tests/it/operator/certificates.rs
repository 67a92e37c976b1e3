//! Certificates of users in front of the gate's own: from their Secret to what a client is shown.

use std::fs;
use std::net::SocketAddr;

use postern_tests::ca::{Authority, Issued, LeafOptions, Purpose};
use postern_tests::clients::OpensslClient;
use postern_tests::wait::PATIENCE;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::prober::Prober;
use super::scene::{PORT, Scene};

const ROUTE: &str = "proxyroute/orders";
/// What the listener is called by the users' own certificate.
const HOST: &str = "web.example";
/// What [`Web::shown`] says of the workload's own certificate, which has no subject.
pub(super) const OURS: &str = "";

/// Somebody who issues certificates, as cert-manager does.
pub(super) struct Web {
    authority: Authority,
}

impl Web {
    /// Whom the scene's clients trust as `web-ca.pem`.
    pub(super) fn new(scene: &Scene) -> Self {
        let authority = Authority::new("web").unwrap();
        fs::write(scene.file("web-ca.pem"), authority.root_pem()).unwrap();
        Self { authority }
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut LeafOptions)) -> Issued {
        let mut leaf = LeafOptions {
            common_name: name.to_owned(),
            dns_names: vec![HOST.to_owned()],
            purposes: vec![Purpose::Server],
            ..LeafOptions::default()
        };
        change(&mut leaf);
        self.authority.issue(&leaf).unwrap()
    }

    /// Secret `web-tls` with a new certificate, told apart from others by its common name.
    pub(super) fn secret(&self, name: &str) -> Value {
        secret(&self.issue(name, |_| ()))
    }

    /// Common name of what a client is shown that asks for the name.
    pub(super) fn shown(&self, scene: &Scene) -> String {
        shown(scene, Some(HOST))
    }

    pub(super) fn wait_shown(&self, scene: &Scene, name: &str) {
        let is_shown = || Ok((self.shown(scene) == name).then_some(()));
        scene.operator.wait_for("the certificate to be shown", is_shown).unwrap();
    }
}

fn secret(issued: &Issued) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-tls"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": issued.chain_pem, "tls.key": issued.key_pem},
    })
}

/// Common name of what a client is shown that asks for a name or none.
fn shown(scene: &Scene, name: Option<&str>) -> String {
    let address = scene.kubelet.with("orders-1", |pod| Ok(pod.address())).unwrap();
    let client = OpensslClient::new(SocketAddr::from((address, PORT))).folder(scene.file("").as_path());
    let client = client.certificate("billing").asking_for(name);
    let handshake = client.talk("GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n").unwrap();
    handshake.subject().unwrap_or("nothing").trim_start_matches("CN = ").to_owned()
}

/// Names of the files with users' certificates in the workload's Secret.
pub(super) fn carried(scene: &Scene) -> Vec<String> {
    let secret = scene.namespace.object("secret/postern-id-orders-orders").unwrap().unwrap();
    let names = secret["data"].as_object().unwrap().keys().cloned();
    names.filter(|name| name.starts_with("certificate-")).collect()
}

/// Route `orders`, whose listener shows the certificate in Secret `web-tls`.
fn showing(scene: &Scene) -> Value {
    let mut route = scene.route(&["billing"]);
    route["spec"]["listener"]["tls"] = json!({"certificateRefs": [{"name": "web-tls"}]});
    route
}

/// Waits for a message of why the certificate is not shown as it is.
fn wait_wrong(scene: &Scene, why: &str) {
    let expected = format!(
        "spec.listener.tls.certificateRefs[0]: Secret {}/web-tls{why}; what was shown last is shown on, or else the workload's own",
        scene.namespace.name
    );
    let mut last = None;
    let waited = scene.operator.wait_for("why it is not shown", || {
        last = scene.condition(ROUTE, "ResolvedRefs");
        let told =
            last.clone().filter(|(_, reason, message)| reason == "InvalidCertificateRef" && *message == expected);
        Ok(told.map(|_| ()))
    });
    waited.unwrap_or_else(|error| panic!("expected {expected}, it was {last:?}: {error:#}"));
}

#[test]
fn a_users_certificate_is_shown_and_changed_without_a_failed_request() {
    let mut scene = Scene::start();
    let web = Web::new(&scene);
    scene.apply(&scene.service());
    scene.apply(&showing(&scene));
    scene.client("billing");
    scene.pods(&["orders-1"]);
    scene.wait_programmed(1);
    scene.keep_certificate("billing");
    // Nothing waits for it.
    wait_wrong(&scene, " does not exist");
    scene.wait_answer("orders-1", "billing", (Some(200), None));
    assert_eq!(web.shown(&scene), OURS);

    scene.apply(&web.secret("web 1"));
    web.wait_shown(&scene, "web 1");
    scene.wait_condition(ROUTE, "ResolvedRefs", "True", "ResolvedRefs");
    assert_eq!(shown(&scene, None), "web 1", "whoever asks for no name is shown it, too");
    let call = |host: &str, authority: &str| scene.curl_at("orders-1", Some("billing"), host, authority, "/").call();
    assert_eq!(call(HOST, "web-ca.pem").unwrap().status, Some(200));
    assert_eq!(call(&scene.host(), "ca.pem").unwrap().status, Some(200), "callers in the cluster know its Service");

    let probers = [
        Prober::start_at(&scene, "orders-1", "billing", HOST, "web-ca.pem"),
        Prober::start(&scene, "orders-1", "billing"),
    ];
    let since = probers.each_ref().map(|prober| prober.wait(true, PATIENCE));
    for name in ["web 2", "web 3", "web 4"] {
        scene.apply(&web.secret(name));
        web.wait_shown(&scene, name);
    }

    // What cannot be shown is not, and what was shown last is.
    let (one, other) = (web.issue("web 5", |_| ()), web.issue("web 6", |_| ()));
    let mut swapped = secret(&one);
    swapped["stringData"]["tls.key"] = json!(other.key_pem);
    scene.apply(&swapped);
    let advice = "write the chain with its leaf first, and the key that leaf was issued for";
    wait_wrong(&scene, &format!(": `tls.key` is not the key of `CN=web 5` in `tls.crt`; {advice}"));
    let past = OffsetDateTime::from_unix_timestamp(1_767_225_600).unwrap();
    let expired = web.issue("web 7", |leaf| (leaf.not_before, leaf.not_after) = (past - Duration::DAY, past));
    scene.apply(&secret(&expired));
    wait_wrong(&scene, ": `tls.crt` has expired at 2026-01-01T00:00:00Z; renew it");
    scene.namespace.run(&["delete", "secret/web-tls"]).unwrap();
    wait_wrong(&scene, " does not exist");
    assert_eq!(web.shown(&scene), "web 4");

    // Whoever starts anew knows no other, and writes nothing.
    let before = scene.settled_writes();
    scene.restart_operator();
    scene.client("late");
    scene.wait_condition("clientidentity/late", "Ready", "True", "Ready");
    let written = scene.writes().split_off(before.len());
    let is_known = |write: &&String| write.contains("postern-id") || write.contains("proxyroutes");
    assert_eq!(written.iter().filter(is_known).collect::<Vec<_>>(), [""; 0], "{written:?}");
    assert_eq!(web.shown(&scene), "web 4");
    scene.apply(&web.secret("web 8"));
    web.wait_shown(&scene, "web 8");
    scene.wait_condition(ROUTE, "ResolvedRefs", "True", "ResolvedRefs");

    let [by_name, by_service] = &probers;
    assert_eq!((by_name.wait(true, PATIENCE), by_name.cut()), (since[0], 0), "every request passed");

    // Nobody names it any more, and its key is gone.
    scene.apply(&scene.route(&["billing"]));
    let is_gone = || Ok(carried(&scene).is_empty().then_some(()));
    scene.operator.wait_for("the key to be gone from the workload's Secret", is_gone).unwrap();
    web.wait_shown(&scene, OURS);
    assert_eq!((by_service.wait(true, PATIENCE), by_service.cut()), (since[1], 0), "every request passed");
}

#[test]
fn authorities_of_others_that_come_late_are_trusted_at_once() {
    let scene = Scene::start();
    let partner = Authority::new("partner").unwrap();
    let mut route = scene.route(&[]);
    let trust = json!([{"name": "partner", "caCertificateRefs": [{"name": "partner-ca"}]}]);
    route["spec"]["listener"]["tls"] = json!({"trust": trust});
    route["spec"]["rules"][0]["allow"] = json!([{"verified": {"trust": "partner"}}]);
    scene.apply(&scene.service());
    scene.apply(&route);
    scene.pods(&["orders-1"]);
    scene.wait_condition(ROUTE, "ResolvedRefs", "False", "RefNotFound");
    // Nothing but the object itself tells that it is there.
    scene.settled_writes();
    let object = |pem: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "partner-ca"}, "data": {"ca.crt": pem},
        })
    };
    scene.apply(&object(partner.root_pem()));
    scene.wait_condition(ROUTE, "ResolvedRefs", "True", "ResolvedRefs");
    scene.client("other");
    scene.keep_certificate("other");
    scene.keep("device", &partner.issue(&LeafOptions::client("device", "urn:device:7")).unwrap());
    scene.wait_answer("orders-1", "device", (Some(200), None));
    // Another one instead.
    scene.apply(&object(Authority::new("partner 2").unwrap().root_pem()));
    scene.wait_answer("orders-1", "device", (None, None));
    scene.namespace.run(&["delete", "configmap/partner-ca"]).unwrap();
    scene.wait_condition(ROUTE, "ResolvedRefs", "False", "RefNotFound");
}
