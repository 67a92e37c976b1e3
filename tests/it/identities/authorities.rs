//! The Secrets of the authorities on a real API server: made once, the intermediate made anew, and nothing taken over.

use postern_operator::pki::authority::INTERMEDIATE_SECONDS;
use postern_operator::pki::key::Algorithm;
use serde_json::json;

use super::scene::{NOW, Scene, openssl};

const DUE: i64 = NOW + INTERMEDIATE_SECONDS * 2 / 3;
const GARBAGE: &str = r#"{"stringData": {"tls.crt": "garbage"}}"#;

fn patch(scene: &Scene, secret: &str, arguments: &[&str]) {
    let secret = format!("secret/{secret}");
    scene.own.run(&[&["patch", secret.as_str()], arguments].concat()).unwrap();
}

#[test]
fn authorities_are_made_once_and_the_intermediate_anew_when_it_is_due_or_broken() {
    let scene = Scene::new("authorities");
    let first = scene.load(Algorithm::Rsa2048, NOW).unwrap();
    let printed = openssl("x509 -noout -text -in {c}", &[("c", first.roots_pem().as_bytes())]).unwrap();
    assert!(printed.contains("Public-Key: (2048 bit)"), "{printed}");
    openssl("verify -CAfile {r} {c}", &[("r", first.roots_pem().as_bytes()), ("c", first.chain_pem().as_bytes())])
        .unwrap();
    let written = scene.own_writes();
    let again = scene.load(Algorithm::EcdsaP256, NOW + 1).unwrap();
    assert_eq!((again.chain_pem(), again.roots_pem()), (first.chain_pem(), first.roots_pem()));
    assert_eq!(scene.own_writes(), written, "what is there stays, whatever kind of keys is asked for");

    let due = scene.load(Algorithm::EcdsaP256, DUE).unwrap();
    assert_ne!(due.chain_pem(), first.chain_pem(), "two thirds of its life are over");
    patch(&scene, "postern-intermediate", &["--patch", GARBAGE]);
    let mended = scene.load(Algorithm::EcdsaP256, DUE).unwrap();
    assert_ne!(mended.chain_pem(), due.chain_pem(), "nobody can read it");
    for issuer in [due, mended] {
        assert_eq!(issuer.roots_pem(), first.roots_pem(), "the root stays");
        let roots = issuer.roots_pem();
        openssl(
            &format!("verify -attime {DUE} -CAfile {{r}} {{c}}"),
            &[("r", roots.as_bytes()), ("c", issuer.chain_pem().as_bytes())],
        )
        .unwrap();
    }
}

#[test]
fn without_the_roots_key_the_intermediate_stays_while_it_can() {
    let scene = Scene::new("offline");
    let first = scene.load(Algorithm::EcdsaP256, NOW).unwrap();
    patch(&scene, "postern-root", &["--type=json", "--patch", r#"[{"op": "remove", "path": "/data/tls.key"}]"#]);
    let written = scene.own_writes();
    assert_eq!(scene.load(Algorithm::EcdsaP256, DUE).unwrap().chain_pem(), first.chain_pem());
    patch(&scene, "postern-intermediate", &["--patch", GARBAGE]);
    let name = format!("{}/postern-intermediate", scene.own.name);
    let error = scene.load(Algorithm::EcdsaP256, DUE).unwrap_err().to_string();
    assert!(error.starts_with(&format!("Secret {name}: ")), "{error}");
    assert_eq!(scene.own_writes(), written, "nobody can sign another one");
}

#[test]
fn no_root_is_replaced_and_nothing_that_was_brought() {
    let scene = Scene::new("brought");
    scene.load(Algorithm::EcdsaP256, NOW).unwrap();
    let written = scene.own_writes();
    patch(&scene, "postern-intermediate", &["--patch", r#"{"metadata": {"labels": null}}"#]);
    let brought = scene.load(Algorithm::EcdsaP256, DUE).unwrap();
    patch(&scene, "postern-intermediate", &["--patch", GARBAGE]);
    assert!(scene.load(Algorithm::EcdsaP256, NOW).is_err(), "it is not ours to make anew");
    patch(&scene, "postern-root", &["--patch", GARBAGE]);
    assert!(scene.load(Algorithm::EcdsaP256, NOW).is_err(), "another root would end all trust");
    assert_eq!(scene.own_writes(), written);
    assert!(!brought.chain_pem().is_empty());

    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "postern-root"}, "type": "Opaque"});
    scene.own.run(&["delete", "secret/postern-root"]).unwrap();
    scene.own.apply(&other).unwrap();
    let error = scene.load(Algorithm::EcdsaP256, NOW).unwrap_err().to_string();
    let name = format!("{}/postern-root", scene.own.name);
    assert_eq!(error, format!("Secret {name} is not of type postern.dev/authority; rename it, or give it that type"));
}
