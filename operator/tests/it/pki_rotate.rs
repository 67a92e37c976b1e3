//! When a certificate is kept and when it is made anew.

use postern_operator::pki::fresh;
use postern_operator::pki::issue::{BACKDATED_SECONDS, Request, Usage, leaf};
use postern_operator::pki::key::{Algorithm, PrivateKey};
use postern_operator::pki::rotate::{Decision, Held, KeyOf, Reason, Wanted, decide, renewal_time};

use crate::pki_fixture::{DAY, Made, NOW, issued, key, made, request};

/// A Secret with a certificate that was issued now.
struct Secret {
    made: Made,
    chain: String,
    key: PrivateKey,
    request: Request,
    issued: [String; 1],
}

fn secret() -> Secret {
    let made = made(Algorithm::default());
    let (leaf, key) = issued(&made.issuer, &request(), Algorithm::default());
    Secret { issued: [leaf.certificate.facts.serial], chain: leaf.chain_pem, key, made, request: request() }
}

impl Secret {
    fn held(&self) -> Held {
        Held::read(Some(self.chain.as_bytes()), Some(self.key.pem().as_bytes()))
    }

    /// What is decided about something held, when something else may be wanted.
    fn decide<'a>(&'a self, held: &Held, now: i64, change: impl FnOnce(&mut Wanted<'a>)) -> Decision {
        let mut wanted = Wanted {
            name: "shop/billing",
            request: &self.request,
            issuer: &self.made.issuer,
            key: KeyOf::Ours(Algorithm::default()),
            renew_before_seconds: None,
            issued: Some(&self.issued),
        };
        change(&mut wanted);
        decide(held, &wanted, now)
    }
}

#[test]
fn a_certificate_is_kept_until_two_thirds_of_its_life() {
    let secret = secret();
    let held = secret.held();
    let leaf = held.leaf().unwrap();
    let life = leaf.facts.not_after - leaf.facts.not_before;
    let thirds = leaf.facts.not_before + life / 3 * 2;
    let at = renewal_time(leaf, "shop/billing", None);
    assert!((thirds - life / 20..=thirds).contains(&at), "{at} is not shortly before {thirds}");
    for (now, expected) in [
        (NOW, Decision::Keep { next_look: at }),
        (at - 1, Decision::Keep { next_look: at }),
        (at, Decision::Renew(Reason::Due)),
        (leaf.facts.not_after + DAY, Decision::Renew(Reason::Due)),
    ] {
        assert_eq!(secret.decide(&held, now, |_| {}), expected, "at {now}");
    }
}

#[test]
fn renew_before_counts_from_the_end_and_within_reason() {
    let secret = secret();
    let held = secret.held();
    let leaf = held.leaf().unwrap();
    let (from, until) = (leaf.facts.not_before, leaf.facts.not_after);
    let life = until - from;
    let rows = [
        (30 * DAY, until - 30 * DAY - life / 20..=until - 30 * DAY),
        (0, until - life / 20..=until),
        // Before a third of its life it would be renewed again and again.
        (100 * DAY, from + life / 3..=from + life / 3),
    ];
    for (before, expected) in rows {
        let at = renewal_time(leaf, "shop/billing", Some(before));
        assert!(expected.contains(&at), "{before}: {at} is not in {expected:?}");
    }
}

#[test]
fn what_was_issued_together_is_not_renewed_together() {
    let secret = secret();
    let held = secret.held();
    let leaf = held.leaf().unwrap();
    let times: std::collections::BTreeSet<_> =
        (0..100).map(|number| renewal_time(leaf, &format!("shop/client-{number}"), None)).collect();
    let (first, last) = (times.first().unwrap(), times.last().unwrap());
    assert!(times.len() > 95 && last - first > 3 * DAY, "{} times in {} s", times.len(), last - first);
    assert_eq!(renewal_time(leaf, "shop/a", None), renewal_time(leaf, "shop/a", None));
}

#[test]
fn whatever_is_not_as_it_should_be_is_renewed_at_once() {
    let secret = secret();
    let held = secret.held();
    let renewed = |reason| Decision::Renew(reason);
    let chain = secret.chain.as_bytes();
    let key_pem = secret.key.pem();
    let key_pem = Some(key_pem.as_bytes());
    let stranger = key(Algorithm::default());
    let stranger_pem = stranger.pem();
    let (other, other_key) = issued(&secret.made.issuer, &request(), Algorithm::default());
    let other_key_pem = other_key.pem();
    let leaf_only = secret.chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let halved = &chain[..chain.len() / 2];
    let rows = [
        ("deleted", Held::read(None, None), Reason::Missing),
        ("emptied", Held::read(Some(b""), Some(b" ")), Reason::Missing),
        ("cut", Held::read(Some(halved), key_pem), Reason::Damaged),
        ("the chain is gone", Held::read(None, key_pem), Reason::Damaged),
        ("the key is gone", Held::read(Some(chain), None), Reason::Damaged),
        ("no PEM", Held::read(Some(b"x"), key_pem), Reason::Damaged),
        ("the key is damaged", Held::read(Some(chain), Some(b"-----BEGIN PRIVATE KEY-----\nAA\n")), Reason::Damaged),
        ("another key", Held::read(Some(chain), Some(stranger_pem.as_bytes())), Reason::OtherKey),
        ("without the intermediate", Held::read(Some(leaf_only.as_bytes()), key_pem), Reason::Issuer),
        (
            "another certificate of ours that we do not remember for it",
            Held::read(Some(other.chain_pem.as_bytes()), Some(other_key_pem.as_bytes())),
            Reason::Edited,
        ),
    ];
    for (what, held, reason) in rows {
        assert_eq!(secret.decide(&held, NOW, |_| {}), renewed(reason), "{what}");
    }
    let request = request();
    let names = |change: fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        request
    };
    let rows = [
        (names(|r| r.names.dns_names.truncate(1)), Reason::Names),
        (names(|r| r.names.uris = vec!["urn:shop:1".into()]), Reason::Names),
        (names(|r| r.names.common_name = None), Reason::Names),
        (names(|r| r.spiffe_id = "spiffe://demo.local/ns/shop/sa/other".into()), Reason::Names),
        (names(|r| r.usage = Usage::Both), Reason::Usage),
        (names(|r| r.duration_seconds = DAY), Reason::TooLong),
        (names(|r| r.accept_issued_after = Some(NOW)), Reason::IssuedTooEarly),
    ];
    for (request, reason) in &rows {
        assert_eq!(secret.decide(&held, NOW, |wanted| wanted.request = request), renewed(*reason));
    }
    let rsa = KeyOf::Ours(Algorithm::Rsa2048);
    assert_eq!(secret.decide(&held, NOW, |wanted| wanted.key = rsa), renewed(Reason::Algorithm));
    let other = made(Algorithm::default());
    assert_eq!(secret.decide(&held, NOW, |wanted| wanted.issuer = &other.issuer), renewed(Reason::Issuer));
    assert_eq!(secret.decide(&held, NOW, |wanted| wanted.issued = Some(&[])), renewed(Reason::Edited));
    assert!(matches!(secret.decide(&held, NOW, |wanted| wanted.issued = None), Decision::Keep { .. }));
}

#[test]
fn a_forgery_with_the_same_words_is_not_kept() {
    let secret = secret();
    let forger = made(Algorithm::default());
    let serial = {
        // The same serial number, from another authority, with our intermediate behind it.
        let public = secret.key.public();
        let bytes = secret.issued[0].split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
        let mut all = [0; 16];
        let bytes: Vec<_> = bytes.collect();
        all[16 - bytes.len()..].copy_from_slice(&bytes);
        let serial = postern_operator::pki::issue::Serial::from_random(all);
        leaf(&forger.issuer, &request(), &public, serial, NOW).unwrap()
    };
    let own = secret.chain.split_inclusive("-----END CERTIFICATE-----\n").nth(1).unwrap();
    let forged = serial.chain_pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let held = Held::read(Some(format!("{forged}{own}").as_bytes()), Some(secret.key.pem().as_bytes()));
    assert_eq!(secret.decide(&held, NOW, |_| {}), Decision::Renew(Reason::Edited));
}

#[test]
fn a_certificate_of_a_request_has_no_key_beside_it() {
    let secret = secret();
    let (public, next) = (secret.key.public(), key(Algorithm::default()).public());
    let held = Held::read(Some(secret.chain.as_bytes()), None);
    let decided = secret.decide(&held, NOW, |wanted| wanted.key = KeyOf::Theirs(&public));
    assert!(matches!(decided, Decision::Keep { .. }), "{decided:?}");
    let decided = secret.decide(&held, NOW, |wanted| wanted.key = KeyOf::Theirs(&next));
    assert_eq!(decided, Decision::Renew(Reason::OtherKey), "a new request has a new key");
}

#[test]
fn nothing_is_issued_before_it_would_be_accepted() {
    let secret = secret();
    let later = Request { accept_issued_after: Some(NOW + 60), ..request() };
    for held in [secret.held(), Held::Nothing] {
        let decided = secret.decide(&held, NOW, |wanted| wanted.request = &later);
        assert_eq!(decided, Decision::Keep { next_look: NOW + 60 });
        let decided = secret.decide(&held, NOW + 60, |wanted| wanted.request = &later);
        assert!(matches!(decided, Decision::Renew(_)), "{decided:?}");
    }
    // What is issued then is kept.
    let (fresh_leaf, key) = {
        let key = key(Algorithm::default());
        let made = leaf(&secret.made.issuer, &later, &key.public(), fresh::serial().unwrap(), NOW + 60).unwrap();
        (made, key)
    };
    assert_eq!(fresh_leaf.certificate.facts.not_before, NOW + 60);
    let held = Held::read(Some(fresh_leaf.chain_pem.as_bytes()), Some(key.pem().as_bytes()));
    let issued = [fresh_leaf.certificate.facts.serial.clone()];
    let decided = secret.decide(&held, NOW + 60 + BACKDATED_SECONDS, |wanted| {
        wanted.request = &later;
        wanted.issued = Some(&issued);
    });
    assert!(matches!(decided, Decision::Keep { .. }), "{decided:?}");
}
