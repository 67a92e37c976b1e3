//! More clients than one object holds.

use std::fmt::Write;
use std::time::Duration;

use postern_tests::ca::{Authority, LeafOptions};
use serde_json::{Value, json};

use super::scene::Scene;

/// Identities, each with as many digests as the API takes. Digests can hardly be made smaller, and an object holds 700 KiB,
/// some twenty thousand of them.
const IDENTITIES: usize = 400;
const DIGESTS: usize = 64;

const PATIENCE: Duration = Duration::from_secs(180);

/// Digits that look like chance and are the same in each run.
struct Chance(u64);

impl Chance {
    fn digest(&mut self) -> String {
        let mut text = "sha256:".to_owned();
        for _ in 0..4 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            write!(text, "{:016x}", self.0).unwrap();
        }
        text
    }
}

#[test]
fn clients_of_every_chunk_are_known() {
    let authority = Authority::new("partner").unwrap();
    let scene = Scene::start();
    scene.apply(&scene.service());
    scene.apply(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "partner-ca"},
        "data": {"ca.crt": authority.root_pem()},
    }));
    let mut route = scene.route(&[]);
    let trust = json!([{"name": "partner", "caCertificateRefs": [{"name": "partner-ca"}]}]);
    route["spec"]["listener"]["tls"] = json!({"trust": trust});
    route["spec"]["rules"][0]["allow"] = json!([{"identitySelector": {"matchLabels": {"kind": "meter"}}}]);
    let mut chance = Chance(88_172_645_463_325_252);
    let devices = [0, IDENTITIES / 2, IDENTITIES - 1].map(|number| {
        let issued = authority.issue(&LeafOptions::client("device", "urn:device:7")).unwrap();
        (number, issued)
    });
    let identity = |number: usize| -> Value {
        let mut digests: Vec<_> = (0..DIGESTS).map(|_| chance.digest()).collect();
        if let Some((_, issued)) = devices.iter().find(|(known, _)| *known == number) {
            digests[DIGESTS / 2] = format!("sha256:{}", issued.fingerprint().unwrap());
        }
        json!({
            "apiVersion": "postern.dev/v1alpha1",
            "kind": "ClientIdentity",
            "metadata": {"name": format!("meter-{number:04}"), "labels": {"kind": "meter"}},
            "spec": {"external": {"trust": {"caCertificateRefs": [{"name": "partner-ca"}]}, "fingerprints": digests}},
        })
    };
    let items: Vec<_> = (0..IDENTITIES).map(identity).collect();
    scene.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    scene.apply(&route);
    scene.pods(&["orders-1"]);
    // The operator is built without optimisation here, and has twenty thousand digests to go through at each step.
    scene.wait_condition_within(PATIENCE, "proxyroute/orders", "Programmed", "True", "Programmed");
    scene.client("other");
    scene.keep_certificate("other");
    for (number, issued) in &devices {
        scene.keep("device", issued);
        scene.wait_answer("orders-1", "device", (Some(200), None));
        assert!(scene.call("orders-1", Some("device")).status == Some(200), "meter {number}");
    }
    let size = |chunk: usize| {
        let object = scene.namespace.object(&format!("configmap/postern-identities-orders-{chunk}")).unwrap();
        object.map(|object| object["binaryData"][format!("identities.{chunk}.zst")].as_str().unwrap_or_default().len())
    };
    let sizes: Vec<_> = (0..4).filter_map(size).collect();
    // In base64: more than one object holds.
    assert!(sizes.len() > 1 && sizes.iter().sum::<usize>() * 3 / 4 > 800 << 10, "{sizes:?}");
    assert_eq!(scene.call("orders-1", Some("other")).status, Some(403));
}
