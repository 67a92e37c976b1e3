//! ClientIdentities on a real API server: what the operator's reconcile makes of each, with openssl as witness.

mod authorities;
mod scene;

use postern_operator::pki::issue::CLIENT_SECONDS;
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::json;

use self::scene::{DAY, NOW, Scene, openssl};

fn issue() -> serde_json::Value {
    json!({"issue": {"secretName": "billing-client"}})
}

#[test]
fn an_identity_is_given_a_certificate_that_verifies_and_then_left_alone() {
    let scene = Scene::new("issue");
    scene.apply("billing", &issue());
    let done = scene.turn_at("billing", NOW).unwrap();
    let secret = scene.secret("billing-client").unwrap();
    assert_eq!(secret.kind, "kubernetes.io/tls");
    assert_eq!(secret.entries(), ["ca.crt", "tls.crt", "tls.key"]);
    secret.verifies(NOW).unwrap();
    let identity = scene.identity("billing").unwrap();
    let expected = [
        ("Accepted", "True", "Accepted"),
        ("Issued", "True", "Issued"),
        ("Enforced", "True", "Enforced"),
        ("Ready", "True", "Ready"),
    ];
    assert_eq!(scene.conditions("billing"), expected.map(|(kind, so, why)| format!("{kind} {so} {why}")));
    let told = &identity["status"]["certificate"];
    assert_eq!(told["spiffeId"], format!("spiffe://demo.local/ns/{}/client/billing", scene.namespace.name));
    assert_eq!(told["serial"].as_str().unwrap().replace(':', ""), secret.serial());
    assert_eq!(scene.live("billing"), [told["serial"].as_str().unwrap()]);
    assert_eq!(identity["metadata"]["finalizers"], json!(["postern.dev/revoke"]));
    assert_eq!(secret.object["metadata"]["ownerReferences"][0]["uid"], identity["metadata"]["uid"]);
    let before = scene.writes();
    let again = scene.turn_at("billing", NOW + DAY).unwrap();
    assert_eq!((again.next_look, again.revoked), (done.next_look, false));
    assert!(done.written.is_some() && again.written.is_none());
    assert_eq!(scene.writes(), before, "nothing has changed, so nothing is written");
}

#[test]
fn key_and_chain_are_made_anew_together_when_they_are_due_or_touched() {
    let scene = Scene::new("renew");
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    let mut last = scene.secret("billing-client").unwrap();
    let other = json!({"data": {"tls.key": "AAAA"}}).to_string();
    let garbage = json!({"stringData": {"tls.crt": "garbage"}}).to_string();
    let emptied = json!({"data": {"tls.crt": "", "tls.key": ""}}).to_string();
    let patch = |document: &str| {
        scene.namespace.run(&["patch", "secret/billing-client", "--patch", document]).unwrap();
    };
    let names = json!({"spec": {"certificate": {"dnsNames": [format!("b.{}.svc", scene.namespace.name)]}}}).to_string();
    let touched: [(&str, &dyn Fn(), i64); 6] = [
        ("deleted", &|| drop(scene.namespace.run(&["delete", "secret/billing-client"]).unwrap()), NOW),
        ("the key is damaged", &|| patch(&other), NOW),
        ("the chain is damaged", &|| patch(&garbage), NOW),
        ("emptied", &|| patch(&emptied), NOW),
        (
            "other names",
            &|| drop(scene.namespace.run(&["patch", "cid/billing", "--type=merge", "--patch", &names]).unwrap()),
            NOW,
        ),
        ("due", &|| {}, NOW + CLIENT_SECONDS * 2 / 3),
    ];
    let mut serials = vec![last.serial()];
    for (what, touch, now) in touched {
        touch();
        scene.turn_at("billing", now).unwrap();
        let secret = scene.secret("billing-client").unwrap();
        secret.verifies(now).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_ne!(secret.serial(), last.serial(), "{what}");
        assert_ne!(secret.entry("tls.key"), last.entry("tls.key"), "{what}: a new key, too");
        serials.push(secret.serial());
        last = secret;
    }
    serials.sort();
    let live: Vec<_> = scene.live("billing").iter().map(|serial| serial.replace(':', "")).collect();
    assert_eq!(live, serials, "none of them is forgotten");
}

#[test]
fn what_is_around_a_certificate_is_put_right_without_a_new_one() {
    let scene = Scene::new("rewrite");
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    let before = scene.secret("billing-client").unwrap();
    let patch = json!({"data": {"ca.crt": "AAAA", "keystore.p12": "AAAA", "notes": "AAAA"}}).to_string();
    scene.namespace.run(&["patch", "secret/billing-client", "--patch", &patch]).unwrap();
    scene.turn_at("billing", NOW).unwrap();
    let after = scene.secret("billing-client").unwrap();
    assert_eq!((after.serial(), after.entry("ca.crt")), (before.serial(), before.entry("ca.crt")));
    assert_eq!(after.entries(), ["ca.crt", "notes", "tls.crt", "tls.key"], "what others put there stays");
}

#[test]
fn a_secret_that_others_made_is_not_taken_over() {
    let scene = Scene::new("taken");
    scene.namespace.run(&["create", "secret", "generic", "billing-client", "--from-literal=a=b"]).unwrap();
    scene.apply("billing", &issue());
    scene.apply("second", &json!({"issue": {"secretName": "shared"}}));
    scene.apply("third", &json!({"issue": {"secretName": "shared"}}));
    for name in ["billing", "second", "third"] {
        scene.turn_at(name, NOW).unwrap();
    }
    assert_eq!(scene.secret("billing-client").unwrap().entries(), ["a"]);
    let taken =
        ["Accepted False NameTaken", "Issued False IssueFailed", "Enforced True Enforced", "Ready False NameTaken"];
    assert_eq!(scene.conditions("billing"), taken);
    assert_eq!(scene.conditions("second")[0], "Accepted True Accepted");
    assert_eq!(scene.conditions("third"), taken);
    assert_eq!(scene.identity("billing").unwrap()["metadata"].get("finalizers"), None, "nothing was issued to it");
}

#[test]
fn a_keystore_comes_with_its_password_in_a_secret_of_its_own() {
    let scene = Scene::new("keystore");
    scene.apply("billing", &json!({"issue": {"secretName": "billing-client", "keystore": "PKCS12"}}));
    scene.turn_at("billing", NOW).unwrap();
    let before = scene.writes();
    scene.turn_at("billing", NOW).unwrap();
    assert_eq!(scene.writes(), before, "nothing has changed, so nothing is written");
    let opens = || {
        let secret = scene.secret("billing-client").unwrap();
        let password = scene.secret("billing-client-password").unwrap().entry("password");
        let arguments =
            format!("pkcs12 -in {{p}} -passin pass:{} -nodes -nocerts", String::from_utf8(password).unwrap());
        let key = openssl(&arguments, &[("p", &secret.entry("keystore.p12"))]).unwrap();
        let public = openssl("pkey -in {k} -pubout", &[("k", key.as_bytes())]).unwrap();
        assert_eq!(public, openssl("x509 -noout -pubkey -in {c}", &[("c", &secret.entry("tls.crt"))]).unwrap());
        secret.serial()
    };
    let serial = opens();
    scene.namespace.run(&["delete", "secret/billing-client-password"]).unwrap();
    scene.turn_at("billing", NOW).unwrap();
    assert_eq!(opens(), serial, "another password is no reason for another certificate");
}

#[test]
fn a_request_is_answered_in_the_status_and_the_key_stays_with_its_owner() {
    let scene = Scene::new("csr");
    let request = || {
        openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=device", &[])
            .unwrap()
    };
    let csr = |text: &str| {
        let start = text.find("-----BEGIN").unwrap();
        json!({"csr": {"request": scene::base64(&text.as_bytes()[start..])}})
    };
    let first = request();
    scene.apply("device", &csr(&first));
    scene.turn_at("device", NOW).unwrap();
    let chain = |status: &serde_json::Value| status["status"]["certificate"]["chain"].as_str().unwrap().to_owned();
    let told = chain(&scene.identity("device").unwrap());
    scene.verifies(&told, NOW).unwrap();
    let of_request = openssl("req -noout -pubkey -in {r}", &[("r", first.as_bytes())]).unwrap();
    assert_eq!(of_request, openssl("x509 -noout -pubkey -in {c}", &[("c", told.as_bytes())]).unwrap());
    scene.turn_at("device", NOW + DAY).unwrap();
    assert_eq!(chain(&scene.identity("device").unwrap()), told, "it is not issued again");
    // Another request is another key; one that asks for more is refused, and what was issued stays.
    scene.apply("device", &csr(&request()));
    scene.turn_at("device", NOW).unwrap();
    let second = chain(&scene.identity("device").unwrap());
    assert_ne!(second, told);
    assert_eq!(scene.live("device").len(), 2);
    let greedy =
        openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=admin", &[])
            .unwrap();
    scene.apply("device", &csr(&greedy));
    scene.turn_at("device", NOW).unwrap();
    assert_eq!(chain(&scene.identity("device").unwrap()), second);
    let conditions = scene.conditions("device");
    assert_eq!(
        conditions,
        ["Accepted False NotPermitted", "Issued True Issued", "Enforced True Enforced", "Ready False NotPermitted"]
    );
}

#[test]
fn names_of_others_are_refused_with_what_and_why() {
    let scene = Scene::new("names");
    let spec = json!({
        "issue": {"secretName": "billing-client"},
        "certificate": {"commonName": "www.example.com", "dnsNames": ["orders.web.svc"], "uris": ["spiffe://demo.local/ns/web/sa/front"]},
    });
    scene.apply("billing", &spec);
    scene.turn_at("billing", NOW).unwrap();
    assert!(scene.secret("billing-client").is_none());
    assert_eq!(scene.conditions("billing")[0], "Accepted False NotPermitted");
    let message = scene.message("billing", "Accepted");
    for name in ["`www.example.com`", "`orders.web.svc`", "`spiffe://demo.local/ns/web/sa/front`"] {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_namespace_has_as_many_as_it_may_and_the_older_keep_theirs() {
    let mut scene = Scene::new("quota");
    scene.quota = 2;
    for name in ["a", "b", "c"] {
        scene.apply(name, &json!({"issue": {"secretName": name}}));
        scene.turn_at(name, NOW).unwrap();
    }
    let accepted = ["a", "b", "c"].map(|name| scene.conditions(name)[0].clone());
    assert_eq!(accepted, ["Accepted True Accepted", "Accepted True Accepted", "Accepted False QuotaExceeded"]);
}

#[test]
fn what_is_revoked_is_in_the_ledger_and_gets_nothing_any_more() {
    let scene = Scene::new("revoked");
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    let serial = scene.live("billing");
    let state = |state: &str| json!({"spec": {"state": state}}).to_string();
    scene.namespace.run(&["patch", "cid/billing", "--type=merge", "--patch", &state("Revoked")]).unwrap();
    assert!(scene.turn_at("billing", NOW).unwrap().revoked);
    assert_eq!(scene.revoked(), serial);
    assert_eq!(scene.conditions("billing")[3], "Ready False Revoked");
    let held = scene.secret("billing-client").unwrap().serial();
    assert_eq!(scene.turn_at("billing", NOW + CLIENT_SECONDS).unwrap().next_look, None);
    assert_eq!(scene.secret("billing-client").unwrap().serial(), held, "it is not renewed");
    assert_eq!(scene.conditions("billing")[1], "Issued False Expired");
    let back = scene.namespace.run(&["patch", "cid/billing", "--type=merge", "--patch", &state("Active")]).unwrap_err();
    assert!(back.to_string().contains("what is revoked stays revoked"), "{back}");
}

#[test]
fn who_is_suspended_or_cut_off_by_time_is_told_so_and_comes_back() {
    let scene = Scene::new("suspended");
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    let first = scene.secret("billing-client").unwrap().serial();
    let patch = |document: serde_json::Value| {
        scene.namespace.run(&["patch", "cid/billing", "--type=merge", "--patch", &document.to_string()]).unwrap();
        scene.turn_at("billing", NOW).unwrap();
    };
    patch(json!({"spec": {"state": "Suspended"}}));
    assert_eq!(scene.conditions("billing")[3], "Ready False Suspended");
    assert!(scene.revoked().is_empty(), "it may come back");
    patch(json!({"spec": {"state": "Active"}}));
    assert_eq!(scene.conditions("billing")[3], "Ready True Ready");
    assert_eq!(scene.secret("billing-client").unwrap().serial(), first);
    // Older certificates are refused from now on, so there has to be a newer one, which is not backdated.
    patch(json!({"spec": {"acceptIssuedAfter": "2026-09-21T14:13:20Z"}}));
    let secret = scene.secret("billing-client").unwrap();
    assert_ne!(secret.serial(), first);
    assert_eq!(scene.identity("billing").unwrap()["status"]["certificate"]["notBefore"], "2026-09-21T14:13:20Z");
}

#[test]
fn what_is_deleted_leaves_its_serial_numbers_and_goes() {
    let scene = Scene::new("deleted");
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    let serial = scene.live("billing");
    scene.namespace.run(&["delete", "cid/billing", "--wait=false"]).unwrap();
    assert!(scene.identity("billing").is_some(), "the finalizer keeps it");
    assert!(scene.turn_at("billing", NOW).unwrap().revoked);
    assert_eq!(scene.revoked(), serial);
    assert!(scene.identity("billing").is_none());
    // Another one of the same name is another.
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    assert_eq!(scene.revoked(), serial);
    assert_eq!(scene.live("billing").len(), 1);
}

#[test]
fn a_namespace_ends_even_where_the_ledger_cannot_be_written() {
    let mut scene = Scene::new("ending");
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    let ledger = format!("configmap/postern-ledger-{}", scene.namespace.name);
    scene.own.run(&["patch", &ledger, "--type=merge", "--patch", r#"{"data": {"ledger.json": "garbage"}}"#]).unwrap();
    scene.namespace.run(&["delete", "cid/billing", "--wait=false"]).unwrap();
    let error = scene.turn_at("billing", NOW).unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().starts_with("the ledger cannot be read"), "{error}");
    assert!(scene.identity("billing").is_some(), "nothing is forgotten while somebody can mend it");
    scene.is_ending = true;
    scene.turn_at("billing", NOW).unwrap();
    assert!(scene.identity("billing").is_none());
}

#[test]
fn nothing_is_made_in_a_namespace_that_ends() {
    let mut scene = Scene::new("ends");
    scene.is_ending = true;
    scene.apply("billing", &issue());
    scene.turn_at("billing", NOW).unwrap();
    assert!(scene.secret("billing-client").is_none());
    assert_eq!(scene.identity("billing").unwrap().get("status"), None);
}

#[test]
fn who_was_removed_past_the_finalizer_is_revoked_nonetheless() {
    let scene = Scene::new("sweep");
    for name in ["billing", "other"] {
        scene.apply(name, &json!({"issue": {"secretName": name}}));
        scene.turn_at(name, NOW).unwrap();
    }
    let serial = scene.live("billing");
    scene
        .namespace
        .run(&["patch", "cid/billing", "--type=merge", "--patch", r#"{"metadata": {"finalizers": []}}"#])
        .unwrap();
    scene.namespace.run(&["delete", "cid/billing"]).unwrap();
    scene.sweep(NOW);
    assert_eq!(scene.revoked(), serial);
    let before = scene.own_writes();
    scene.sweep(NOW);
    assert_eq!(scene.own_writes(), before);
}

#[test]
fn who_undoes_every_certificate_gets_no_more_of_them() {
    let scene = Scene::new("fight");
    scene.apply("billing", &issue());
    for _ in 0..postern_operator::pki::ledger::LIVE_MAX {
        scene.turn_at("billing", NOW).unwrap();
        scene.namespace.run(&["delete", "secret/billing-client"]).unwrap();
    }
    let done = scene.turn_at("billing", NOW).unwrap();
    assert!(scene.secret("billing-client").is_none());
    assert_eq!(scene.conditions("billing")[1], "Issued False IssueFailed");
    assert!(scene.message("billing", "Issued").starts_with("32 certificates of this identity are still valid"));
    assert_eq!(done.next_look, Some(NOW + 60));
}

/// What no Secret takes has been given to nobody, however often it is tried.
#[test]
fn a_secret_that_is_refused_uses_nothing_up() {
    let scene = Scene::new("refused");
    scene.namespace.run(&["create", "quota", "none", "--hard=secrets=0"]).unwrap();
    // What a controller would do.
    let status = json!({"status": {"hard": {"secrets": "0"}, "used": {"secrets": "0"}}}).to_string();
    let quota = "resourcequota/none";
    scene.namespace.run(&["patch", quota, "--subresource=status", "--type=merge", "--patch", &status]).unwrap();
    let is_refused = || Ok(scene.namespace.run(&["create", "secret", "generic", "any", "--dry-run=server"]).err());
    eventually("a Secret to be refused", PATIENCE, is_refused).unwrap();
    scene.apply("billing", &issue());
    for _ in 0..3 {
        drop(scene.turn_at("billing", NOW));
        assert_eq!(scene.live("billing"), [""; 0]);
    }
    assert!(scene.secret("billing-client").is_none());
    let issued = scene.conditions("billing").into_iter().find(|condition| condition.starts_with("Issued"));
    assert_eq!(issued.as_deref(), Some("Issued False IssueFailed"));
    scene.namespace.run(&["delete", quota]).unwrap();
    let is_issued = || {
        drop(scene.turn_at("billing", NOW));
        Ok(scene.secret("billing-client"))
    };
    eventually("the Secret", PATIENCE, is_issued).unwrap();
    assert_eq!(scene.live("billing").len(), 1);
}

#[test]
fn others_are_recognised_and_never_issued() {
    let scene = Scene::new("recognised");
    scene.apply("front", &json!({"serviceAccount": {"name": "front"}}));
    let external = json!({"trust": {"caCertificateRefs": [{"name": "partner-ca"}]}, "dnsNames": ["a.example"]});
    scene.apply("partner", &json!({"external": external}));
    scene.apply("the-same", &json!({"serviceAccount": {"name": "front"}}));
    let expected = [("front", "ServiceAccount"), ("partner", "External")];
    for (name, kind) in expected {
        scene.turn_at(name, NOW).unwrap();
        let identity = scene.identity(name).unwrap();
        assert_eq!(identity["status"]["kind"], kind);
        assert_eq!(scene.conditions(name)[1], "Issued True NotIssued");
        assert_eq!(identity["metadata"].get("finalizers"), None);
    }
    assert_eq!(scene.identity("partner").unwrap()["status"]["subject"], "a.example");
    scene.turn_at("the-same", NOW).unwrap();
    assert_eq!(scene.conditions("the-same")[0], "Accepted False Conflicted");
    assert!(scene.own_writes().is_empty(), "no ledger without a certificate");
}
