//! What identities ask for, judged; what is then to be done; and what their owners are told.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use postern_crds::clientidentity::ClientIdentityStatus;
use postern_crds::condition::ConditionType;
use postern_crds::{ClientIdentity, Reason};
use postern_operator::identity::directory::Directory;
use postern_operator::identity::enforced::{SidecarSeen, ToKnow, TrustView};
use postern_operator::identity::objects::{CERTIFICATE_TYPE, Content, certificate_secret, is_of, label_value};
use postern_operator::identity::observe::Observed;
use postern_operator::identity::plan::{Around, Plan, Standing, plan};
use postern_operator::identity::status::{Facts, Outcome, Told, status};
use postern_operator::identity::validate::{Issued, Refusal, Target, Valid, validate};
use postern_operator::pki::key::Algorithm;
use postern_operator::pki::ledger::{Entry, Ledger, LedgerError};
use postern_operator::pki::rotate;
use serde_json::{Value, json};

use crate::identity_fixture::{external, identity, issue};
use crate::pki_fixture::{DAY, Made, NOW, issued, made, names, openssl};

fn judged(identity: &ClientIdentity) -> Result<Valid, Refusal> {
    let directory = Directory::of([identity], &names());
    let name = format!("shop/{}", identity.metadata.name.as_deref().unwrap());
    validate(identity, directory.entry(&name).unwrap(), &names(), 10)
}

fn accepted(spec: &Value) -> Issued {
    match judged(&identity("billing", 1, spec)) {
        Ok(Valid::Issued(issued)) => *issued,
        other => panic!("{other:?}"),
    }
}

fn with_certificate(certificate: &Value) -> Value {
    json!({"issue": {"secretName": "billing-client"}, "certificate": certificate})
}

#[test]
fn what_a_spec_says_is_what_the_certificate_says() {
    let plain = accepted(&issue());
    assert_eq!(plain.request.names.common_name.as_deref(), Some("billing"));
    assert_eq!(plain.request.duration_seconds, 90 * DAY);
    assert_eq!(plain.renew_before_seconds, None);
    let said = json!({
        "commonName": "Billing", "dnsNames": ["b.shop.svc", "a.shop.svc", "b.shop.svc"],
        "uris": ["spiffe://demo.local/ns/shop/client/billing"], "duration": "24h", "renewBefore": "1h30m",
    });
    let said = accepted(&with_certificate(&said));
    assert_eq!(said.request.names.common_name.as_deref(), Some("Billing"));
    assert_eq!(said.request.names.dns_names, ["a.shop.svc", "b.shop.svc"]);
    assert_eq!((said.request.duration_seconds, said.renew_before_seconds), (DAY, Some(5400)));
    // A name with dots might be somebody's host.
    let dotted = identity("www.example.com", 1, &issue());
    let Ok(Valid::Issued(dotted)) = judged(&dotted) else { panic!("a name of an object is no fault") };
    assert_eq!(dotted.request.names.common_name, None);
}

#[test]
fn keys_are_made_as_they_are_asked_for() {
    let rows = [
        (json!({}), Algorithm::EcdsaP256),
        (json!({"algorithm": "ECDSA", "size": 256}), Algorithm::EcdsaP256),
        (json!({"algorithm": "Ed25519"}), Algorithm::Ed25519),
        (json!({"algorithm": "RSA"}), Algorithm::Rsa2048),
        (json!({"algorithm": "RSA", "size": 3072}), Algorithm::Rsa3072),
        (json!({"algorithm": "RSA", "size": 4096}), Algorithm::Rsa4096),
    ];
    for (key, expected) in rows {
        let issued = accepted(&json!({"issue": {"secretName": "a", "privateKey": key, "keystore": "PKCS12"}}));
        let password = Some("a-password".to_owned());
        assert_eq!(issued.target, Target::Secret { name: "a".into(), algorithm: expected, password });
    }
}

#[test]
fn what_cannot_be_is_refused_in_a_word_and_in_words() {
    let long = "a".repeat(250);
    let csr = |text: &str| json!({"csr": {"request": text}});
    let bad_key = json!({"issue": {"secretName": "a", "privateKey": {"algorithm": "RSA", "size": 256}}});
    let rows = [
        (bad_key, Reason::Invalid, "issue.privateKey.size 256 does not fit its algorithm"),
        (
            json!({"issue": {"secretName": long, "keystore": "PKCS12"}}),
            Reason::Invalid,
            "issue.secretName is longer than 244 bytes",
        ),
        (
            with_certificate(&json!({"dnsNames": ["a.web.svc"]})),
            Reason::NotPermitted,
            "certificate.dnsNames: `a.web.svc` is not under namespace `shop`",
        ),
        (csr("!"), Reason::Invalid, "csr.request is not base64"),
        (csr("aGVsbG8="), Reason::Invalid, "csr.request: the request holds no PEM block"),
        (external(&json!({"sfdi": ["000000000001"]})), Reason::Invalid, "`000000000001` is not an SFDI"),
    ];
    for (spec, reason, beginning) in rows {
        let refusal = judged(&identity("billing", 1, &spec)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{}", refusal.message);
        assert!(refusal.message.starts_with(beginning), "{}", refusal.message);
    }
}

#[test]
fn labels_hold_any_name() {
    assert_eq!(label_value("billing"), "billing");
    let names = ["a".repeat(64), "a".repeat(65), format!("{}.b", "a".repeat(49)) + &"c".repeat(80)];
    let values: std::collections::BTreeSet<_> = names.iter().map(|name| label_value(name)).collect();
    assert_eq!(values.len(), 3);
    for value in values {
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        assert!(value.len() <= 63 && ends(value.bytes().next()) && ends(value.bytes().last()), "{value}");
    }
}

/// An identity that has what it should.
struct Settled {
    made: Made,
    identity: ClientIdentity,
    observed: Observed,
}

fn settled() -> Settled {
    let made = made(Algorithm::default());
    let identity = identity("billing", 1, &issue());
    let Ok(Valid::Issued(wanted)) = judged(&identity) else { panic!("it is good") };
    let (leaf, key) = issued(&made.issuer, &wanted.request, Algorithm::default());
    let mut ledger = Ledger::default();
    let entry = Entry {
        identity: "billing".into(),
        uid: identity.metadata.uid.clone().unwrap(),
        not_after: "2026-12-20T00:00:00Z".parse().unwrap(),
        over: None,
        revoked: false,
    };
    ledger.remember(&leaf.certificate.facts.serial, entry, NOW).unwrap();
    let content = Content {
        chain: leaf.chain_pem,
        key: key.pem().as_bytes().to_vec().into(),
        roots: made.issuer.roots_pem(),
        keystore: None,
    };
    let secret = certificate_secret(&identity, "billing-client", None, &content);
    assert!(is_of(&secret, "billing", CERTIFICATE_TYPE) && !is_of(&secret, "other", CERTIFICATE_TYPE));
    Settled { made, identity, observed: Observed { secret: Some(secret), ledger, ..Observed::default() } }
}

impl Settled {
    fn plan(&self, identity: &ClientIdentity, observed: &Observed, now: i64) -> Plan {
        let around = Around { now, issuer: Ok(&self.made.issuer), is_ending: false };
        plan(identity, &judged(identity), observed, around)
    }

    fn change(&self, change: impl FnOnce(&mut Value)) -> ClientIdentity {
        let mut value = serde_json::to_value(&self.identity).unwrap();
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let settled = settled();
    let Plan::Stay { revoke: false, certificate: Standing::Good { renewal }, next_look } =
        settled.plan(&settled.identity, &settled.observed, NOW)
    else {
        panic!("it is good");
    };
    assert_eq!(next_look, Some(renewal));
    assert_eq!(settled.plan(&settled.identity, &settled.observed, renewal), Plan::Make(rotate::Reason::Due));
}

#[test]
fn each_state_of_things_has_its_plan() {
    let settled = settled();
    let observed = |change: &dyn Fn(&mut Observed)| {
        let mut observed = settled.observed.clone();
        change(&mut observed);
        observed
    };
    let data = |name: &'static str, bytes: &'static [u8]| {
        observed(&|observed| {
            let data = observed.secret.as_mut().unwrap().data.as_mut().unwrap();
            data.insert(name.to_owned(), ByteString(bytes.to_vec()));
        })
    };
    let make = Plan::Make;
    let rows = [
        ("no Secret", observed(&|o| o.secret = None), make(rotate::Reason::Missing)),
        ("no key", data("tls.key", b""), make(rotate::Reason::Damaged)),
        ("a lost ledger", observed(&|o| o.ledger = Ledger::default()), make(rotate::Reason::Edited)),
        ("a revoked certificate", observed(&|o| _ = o.ledger.revoke("uid-shop-billing")), make(rotate::Reason::Edited)),
    ];
    for (what, observed, expected) in rows {
        assert_eq!(settled.plan(&settled.identity, &observed, NOW), expected, "{what}");
    }
    for (what, observed) in
        [("other roots", data("ca.crt", b"x")), ("a keystore nobody asked for", data("keystore.p12", b"x"))]
    {
        let planned = settled.plan(&settled.identity, &observed, NOW);
        assert!(matches!(planned, Plan::Rewrite { .. }), "{what}: {planned:?}");
    }
    let unreadable = observed(&|o| o.ledger_error = Some(LedgerError::Newer(2)));
    let planned = settled.plan(&settled.identity, &unreadable, NOW + 80 * DAY);
    assert!(matches!(planned, Plan::Stay { next_look: Some(_), .. }), "nothing is issued unremembered: {planned:?}");
    let foreign = observed(&|o| o.secret = Some(Secret { type_: Some(CERTIFICATE_TYPE.into()), ..Secret::default() }));
    let planned = settled.plan(&settled.identity, &foreign, NOW);
    assert!(matches!(planned, Plan::Stay { certificate: Standing::Taken { .. }, .. }), "{planned:?}");
    let refused = settled.change(|value| value["spec"]["certificate"] = json!({"dnsNames": ["a.web.svc"]}));
    let planned = settled.plan(&refused, &settled.observed, NOW + 80 * DAY);
    assert!(matches!(planned, Plan::Stay { certificate: Standing::AsItIs { .. }, next_look: None, .. }), "{planned:?}");
}

#[test]
fn the_end_of_an_identity_goes_before_all_else() {
    let settled = settled();
    let revoked = settled.change(|value| value["spec"]["state"] = json!("Revoked"));
    let planned = settled.plan(&revoked, &settled.observed, NOW + 80 * DAY);
    assert!(matches!(planned, Plan::Stay { revoke: true, next_look: None, .. }), "{planned:?}");
    let mut once = settled.observed.clone();
    once.ledger.revoke("uid-shop-billing");
    let planned = settled.plan(&revoked, &once, NOW);
    assert!(matches!(planned, Plan::Stay { revoke: false, .. }), "{planned:?}");
    let going = |finalizers: Value| {
        settled.change(|value| {
            value["metadata"]["deletionTimestamp"] = json!("2026-09-21T15:00:00Z");
            value["metadata"]["finalizers"] = finalizers;
        })
    };
    let ours = going(json!(["x", "postern.dev/revoke"]));
    assert_eq!(settled.plan(&ours, &settled.observed, NOW), Plan::Release);
    assert_eq!(settled.plan(&going(json!(["x"])), &settled.observed, NOW), Plan::Leave);
    let ending = Around { now: NOW, issuer: Ok(&settled.made.issuer), is_ending: true };
    assert_eq!(plan(&settled.identity, &judged(&settled.identity), &Observed::default(), ending), Plan::Leave);
    assert_eq!(plan(&ours, &judged(&ours), &settled.observed, ending), Plan::Release, "it never keeps a namespace");
}

#[test]
fn without_an_issuer_what_is_there_stays_and_is_looked_at_again() {
    let settled = settled();
    let around = Around { now: NOW, issuer: Err("the root cannot be read"), is_ending: false };
    let planned = plan(&settled.identity, &judged(&settled.identity), &settled.observed, around);
    let why = "the root cannot be read".to_owned();
    let expected = Plan::Stay { revoke: false, certificate: Standing::AsItIs { why }, next_look: Some(NOW + 60) };
    assert_eq!(planned, expected);
}

/// Conditions as `Type Status Reason`, of every combination of what they are made of.
#[test]
fn conditions_never_contradict_each_other() {
    let settled = settled();
    let chain = settled.observed.secret.as_ref().and_then(|secret| secret.data.as_ref()?.get("tls.crt")).unwrap();
    let der = pem::parse_many(&chain.0).unwrap().remove(0).into_contents();
    let certificate = sidecar_decide::Certificate::from_der(der).unwrap();
    let told = Told { certificate, chain: None, renewal: Some(NOW + DAY) };
    let stuck = |is_taken, certificate: Option<Told>, has_expired| Outcome::Stuck {
        why: "why".into(),
        is_taken,
        certificate,
        has_expired,
    };
    let outcomes = [
        Outcome::NoneToBe,
        Outcome::Good(told.clone()),
        stuck(false, Some(told.clone()), false),
        stuck(false, None, true),
        stuck(true, None, false),
        stuck(false, None, false),
    ];
    let refusal = Refusal { reason: Reason::NotPermitted, message: "names".into() };
    let valids = [Ok(Valid::Recognised), Err(refusal)];
    let seen = |loaded: Option<&str>| {
        vec![SidecarSeen { namespace: "shop".into(), pod: "a".into(), trust_loaded: loaded.map(str::to_owned) }]
    };
    let all_seen = [Vec::new(), seen(None), seen(Some("old"))];
    for state in ["Active", "Suspended", "Revoked"] {
        let identity = settled.change(|value| value["spec"]["state"] = json!(state));
        for outcome in &outcomes {
            for valid in &valids {
                for seen in &all_seen {
                    let facts = Facts {
                        identity: &identity,
                        valid,
                        subject: None,
                        outcome,
                        to_know: ToKnow { name: "shop/billing", revocation: None, serials: &[] },
                        view: TrustView { written: &BTreeMap::new(), seen, held_up: &BTreeMap::new() },
                        now: NOW,
                    };
                    let first = status(&facts);
                    check(&first, state);
                    // The same facts, later: the same status.
                    let mut again = identity.clone();
                    again.status = Some(first.clone());
                    assert_eq!(status(&Facts { identity: &again, now: NOW + DAY, ..facts }), first);
                }
            }
        }
    }
}

fn check(status: &ClientIdentityStatus, state: &str) {
    let of = |kind: ConditionType| {
        let mut found = status.conditions.iter().filter(|condition| condition.type_ == kind.as_str());
        let one = found.next().expect("each is told");
        assert!(found.next().is_none(), "and once");
        assert_eq!(one.observed_generation, Some(1));
        (one.status.as_str(), one.reason.as_str())
    };
    let others = [ConditionType::Accepted, ConditionType::Issued, ConditionType::Enforced].map(of);
    let ready = of(ConditionType::Ready);
    let all_good = others.iter().all(|(status, _)| *status == "True");
    assert_eq!(ready.0 == "True", all_good && state == "Active", "{others:?} {ready:?}");
    match state {
        "Active" if !all_good => assert!(others.contains(&ready), "{others:?} {ready:?}"),
        "Active" => assert_eq!(ready.1, "Ready"),
        _ => assert_eq!(ready, ("False", state)),
    }
    assert_eq!(status.certificate.is_some(), others[1] == ("True", "Issued"));
}

#[test]
fn openssl_and_the_status_agree_on_a_certificate() {
    let settled = settled();
    let chain = settled.observed.secret.as_ref().and_then(|secret| secret.data.as_ref()?.get("tls.crt")).unwrap();
    let certificate =
        sidecar_decide::Certificate::from_der(pem::parse_many(&chain.0).unwrap().remove(0).into_contents());
    let outcome = Outcome::Good(Told { certificate: certificate.unwrap(), chain: None, renewal: Some(NOW + DAY) });
    let facts = Facts {
        identity: &settled.identity,
        valid: &Ok(Valid::Recognised),
        subject: Some("s".into()),
        outcome: &outcome,
        to_know: ToKnow { name: "shop/billing", revocation: None, serials: &[] },
        view: TrustView { written: &BTreeMap::new(), seen: &[], held_up: &BTreeMap::new() },
        now: NOW,
    };
    let told = status(&facts).certificate.unwrap();
    let fact = |option: &str| {
        let printed = openssl(&format!("x509 -noout {option} -in {{c}}"), &[("c", &chain.0)]).unwrap();
        printed.trim().split_once('=').unwrap().1.replace(':', "").to_lowercase()
    };
    assert_eq!(told.sha256, fact("-sha256 -fingerprint"));
    assert_eq!(told.lfdi, told.sha256[..40]);
    assert_eq!(told.serial.replace(':', ""), fact("-serial"));
    assert_eq!(told.renewal_time.unwrap().as_str(), "2026-09-22T14:13:20Z");
    assert_eq!((told.not_before.as_str(), told.not_after.as_str()), ("2026-09-21T14:08:20Z", "2026-12-20T14:13:20Z"));
}
