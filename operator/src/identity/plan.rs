//! What is to be done for one identity, given what it asks for and what is there. Pure.

use k8s_openapi::api::core::v1::Secret;
use postern_crds::ClientIdentity;
use postern_crds::clientidentity::State;
use sidecar_decide::Certificate;

use super::objects::{self, CERTIFICATE_TYPE, CHAIN, FINALIZER, KEY, KEYSTORE, PASSWORD, PASSWORD_TYPE, ROOTS};
use super::observe::Observed;
use super::validate::{Issued, Refusal, Target, Valid};
use crate::pki::authority::Issuer;
use crate::pki::keystore;
use crate::pki::rotate::{Decision, Held, KeyOf, Reason, Wanted, decide};

/// How soon an identity is looked at again whose certificate could not be made, where nothing tells that it now can.
pub const AGAIN_SECONDS: i64 = 60;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is being deleted: its certificates are revoked in the ledger, then it may go.
    Release,
    /// It is gone but for others' finalizers, or its namespace is on its way out: nothing, not even a status.
    Leave,
    /// Whatever is there stays.
    Stay {
        /// All its certificates are revoked in the ledger first.
        revoke: bool,
        /// What is there, and how it stands.
        certificate: Standing,
        /// When to look again.
        next_look: Option<i64>,
    },
    /// The certificate is good, and what is around it in its Secret is not.
    Rewrite {
        /// When the certificate is due.
        next_look: i64,
    },
    /// A certificate is made, with a key where the key is ours.
    Make(Reason),
}

/// How the certificate of an identity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none to be.
    NoneToBe,
    /// It is as it should be, and due then.
    Good {
        /// In seconds since the epoch.
        renewal: i64,
    },
    /// What is there stays as it is, because it cannot be made anew.
    AsItIs {
        /// Why.
        why: String,
    },
    /// An object of somebody else has the name.
    Taken {
        /// Which one.
        what: String,
    },
}

/// What surrounds an identity when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// When.
    pub now: i64,
    /// Who signs, or why nobody does.
    pub issuer: Result<&'a Issuer, &'a str>,
    /// Whether its namespace is being deleted.
    pub is_ending: bool,
}

/// Decides.
#[must_use]
pub fn plan(
    identity: &ClientIdentity,
    valid: &Result<Valid, Refusal>,
    observed: &Observed,
    around: Around<'_>,
) -> Plan {
    if identity.metadata.deletion_timestamp.is_some() {
        return if has_finalizer(identity) { Plan::Release } else { Plan::Leave };
    }
    if around.is_ending {
        return Plan::Leave;
    }
    let stay = |why: String, next_look: Option<i64>| Plan::Stay {
        revoke: false,
        certificate: Standing::AsItIs { why },
        next_look,
    };
    let again = Some(around.now + AGAIN_SECONDS);
    let issued = match valid {
        Err(refusal) => return stay(refusal.message.clone(), None),
        Ok(Valid::Recognised) => return Plan::Stay { revoke: false, certificate: Standing::NoneToBe, next_look: None },
        Ok(Valid::Issued(issued)) => issued,
    };
    if let Some(error) = &observed.ledger_error {
        return stay(error.to_string(), again);
    }
    if identity.spec.state == State::Revoked {
        let why = "it is revoked, so nothing is issued any more".to_owned();
        let revoke = observed.ledger.has_unrevoked(uid(identity));
        return Plan::Stay { revoke, certificate: Standing::AsItIs { why }, next_look: None };
    }
    if let Some(what) = taken(identity, issued, observed) {
        return Plan::Stay { revoke: false, certificate: Standing::Taken { what }, next_look: None };
    }
    match around.issuer {
        Ok(issuer) => for_certificate(identity, issued, observed, issuer, around.now),
        Err(why) => stay(why.to_owned(), again),
    }
}

fn for_certificate(identity: &ClientIdentity, issued: &Issued, observed: &Observed, issuer: &Issuer, now: i64) -> Plan {
    let held = held(identity, observed);
    let remembered: Vec<_> = observed.ledger.issued(uid(identity)).map(str::to_owned).collect();
    let wanted = Wanted {
        name: &super::directory::full_name(identity),
        request: &issued.request,
        issuer,
        key: match &issued.target {
            Target::Secret { algorithm, .. } => KeyOf::Ours(*algorithm),
            Target::Status { key } => KeyOf::Theirs(key),
        },
        renew_before_seconds: issued.renew_before_seconds,
        issued: Some(&remembered),
    };
    match decide(&held, &wanted, now) {
        Decision::Renew(reason) => Plan::Make(reason),
        Decision::Keep { next_look } => {
            // A certificate that has to wait for `acceptIssuedAfter` is kept as it is, whatever it is.
            let waits = issued.request.accept_issued_after.is_some_and(|from| from > now);
            match &issued.target {
                Target::Secret { password, .. } if !waits && !is_whole(observed, password.is_some(), issuer, &held) => {
                    Plan::Rewrite { next_look }
                }
                _ if waits => Plan::Stay {
                    revoke: false,
                    certificate: Standing::AsItIs { why: "the next one is issued at `acceptIssuedAfter`".to_owned() },
                    next_look: Some(next_look),
                },
                _ => Plan::Stay {
                    revoke: false,
                    certificate: Standing::Good { renewal: next_look },
                    next_look: Some(next_look),
                },
            }
        }
    }
}

/// What an identity holds by now: in its Secret, or in its status.
#[must_use]
pub fn held(identity: &ClientIdentity, observed: &Observed) -> Held {
    let secret = observed.secret.as_ref();
    if identity.spec.issue.is_some() {
        let name = identity.metadata.name.as_deref().unwrap_or_default();
        let secret = secret.filter(|secret| objects::is_of(secret, name, CERTIFICATE_TYPE));
        return Held::read(objects::entry(secret, CHAIN), objects::entry(secret, KEY));
    }
    let certificate = identity.status.as_ref().and_then(|status| status.certificate.as_ref());
    Held::read(certificate.and_then(|certificate| certificate.chain.as_deref()).map(str::as_bytes), None)
}

/// The certificate that an identity holds, if it is ours and still valid.
#[must_use]
pub fn usable(held: &Held, issuer: Result<&Issuer, &str>, now: i64) -> Option<Certificate> {
    let leaf = held.leaf().filter(|leaf| leaf.facts.not_after > now)?;
    // Without an issuer it cannot be told, and nothing has changed since it could.
    issuer.map_or(true, |issuer| issuer.has_signed(leaf)).then(|| leaf.clone())
}

/// Whether a Secret has, beside key and certificate, what it should, and nothing that it should not.
fn is_whole(observed: &Observed, wants_keystore: bool, issuer: &Issuer, held: &Held) -> bool {
    let secret = observed.secret.as_ref();
    if objects::entry(secret, ROOTS) != Some(issuer.roots_pem().as_bytes()) {
        return false;
    }
    let store = objects::entry(secret, KEYSTORE);
    if !wants_keystore {
        return store.is_none();
    }
    let password = objects::entry(observed.password.as_ref(), PASSWORD).and_then(|bytes| str::from_utf8(bytes).ok());
    match (store, password, held.leaf()) {
        (Some(store), Some(password), Some(leaf)) => keystore::holds(store, password, &leaf.der),
        _ => false,
    }
}

/// The object of somebody else that has a name that is needed.
fn taken(identity: &ClientIdentity, issued: &Issued, observed: &Observed) -> Option<String> {
    let Target::Secret { name, password, .. } = &issued.target else { return None };
    let own = identity.metadata.name.as_deref().unwrap_or_default();
    let foreign = |secret: &Option<Secret>, kind| secret.as_ref().is_some_and(|one| !objects::is_of(one, own, kind));
    let advice = "was not made for this identity; delete it or write another issue.secretName";
    if foreign(&observed.secret, CERTIFICATE_TYPE) {
        return Some(format!("Secret `{name}` {advice}"));
    }
    let password = password.as_ref()?;
    foreign(&observed.password, PASSWORD_TYPE).then(|| format!("Secret `{password}` {advice}"))
}

/// Whether our finalizer is on an identity.
#[must_use]
pub fn has_finalizer(identity: &ClientIdentity) -> bool {
    identity.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER)
}

/// The UID of an identity.
#[must_use]
pub fn uid(identity: &ClientIdentity) -> &str {
    identity.metadata.uid.as_deref().unwrap_or_default()
}
