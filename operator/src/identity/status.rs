//! What an identity's owner is told, from one look at everything. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use postern_crds::clientidentity::{CertificateStatus, ClientIdentityStatus, Kind, Source, State};
use postern_crds::condition::{self, ConditionStatus, ConditionType, Reason, Verdict};
use postern_crds::{ClientIdentity, UtcTime};
use sidecar_decide::Certificate;

use super::enforced::{ToKnow, TrustView, enforced};
use super::validate::{Refusal, Valid};

/// Longest subject that is told.
const SUBJECT_MAX_BYTES: usize = 2048;

/// How it stands with the certificate of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is none to be.
    NoneToBe,
    /// It is in its place.
    Good(Told),
    /// It could not be made anew; what is there may be good for a while yet.
    Stuck {
        /// Why.
        why: String,
        /// Whether the name is taken by somebody else's object.
        is_taken: bool,
        /// What is there and still valid.
        certificate: Option<Told>,
        /// Whether what is there has expired.
        has_expired: bool,
    },
}

/// A certificate that is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// It.
    pub certificate: Certificate,
    /// Its chain, where it has no other place.
    pub chain: Option<String>,
    /// When it is renewed, if it is.
    pub renewal: Option<i64>,
}

/// All that a status is made of.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Whose status it is.
    pub identity: &'a ClientIdentity,
    /// What became of its spec.
    pub valid: &'a Result<Valid, Refusal>,
    /// What it is recognised by.
    pub subject: Option<String>,
    /// How it stands with its certificate.
    pub outcome: &'a Outcome,
    /// What sidecars are to know.
    pub to_know: ToKnow<'a>,
    /// What they know.
    pub view: TrustView<'a>,
    /// When.
    pub now: i64,
}

/// The status. It is the same as before where nothing has changed.
#[must_use]
pub fn status(facts: &Facts<'_>) -> ClientIdentityStatus {
    let accepted = accepted(facts);
    let issued = issued(facts);
    let (counted, enforced) = enforced(&facts.to_know, facts.view);
    let ready = ready(facts.identity.spec.state, [&accepted, &issued, &enforced]);
    let before = facts.identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = facts.identity.metadata.generation.unwrap_or_default();
    let now = Time(Timestamp::from_second(facts.now).unwrap_or_default());
    let conditions = condition::conditions(&[accepted, issued, enforced, ready], generation, before, &now);
    let told = match facts.outcome {
        Outcome::Good(told) => Some(told),
        Outcome::Stuck { certificate, .. } => certificate.as_ref(),
        Outcome::NoneToBe => None,
    };
    ClientIdentityStatus {
        conditions,
        kind: kind(facts.identity),
        subject: facts.subject.clone().filter(|subject| subject.len() <= SUBJECT_MAX_BYTES),
        certificate: told.map(certificate_status),
        enforced: Some(counted),
    }
}

fn kind(identity: &ClientIdentity) -> Option<Kind> {
    identity.spec.source().map(|source| match source {
        Source::Issue(_) => Kind::Issue,
        Source::Csr(_) => Kind::Csr,
        Source::ServiceAccount(_) => Kind::ServiceAccount,
        Source::External(_) => Kind::External,
    })
}

fn certificate_status(told: &Told) -> CertificateStatus {
    let facts = &told.certificate.facts;
    CertificateStatus {
        serial: facts.serial.clone(),
        not_before: time(facts.not_before),
        not_after: time(facts.not_after),
        renewal_time: told.renewal.map(time),
        sha256: facts.fingerprint().trim_start_matches("sha256:").to_owned(),
        spiffe_id: facts.uris.first().cloned().unwrap_or_default(),
        lfdi: facts.lfdi_hex(),
        sfdi: facts.sfdi_digits(),
        chain: told.chain.clone(),
    }
}

/// The words of a time; certificates have none that cannot be written.
fn time(seconds: i64) -> UtcTime {
    let text = sidecar_config::UtcTime::from_seconds(seconds).map(|time| time.to_string());
    UtcTime(text.unwrap_or_default())
}

fn accepted(facts: &Facts<'_>) -> Verdict {
    let (status, reason, message) = match (facts.valid, facts.outcome) {
        (Err(refusal), _) => (ConditionStatus::False, refusal.reason, refusal.message.clone()),
        (Ok(_), Outcome::Stuck { is_taken: true, why, .. }) => (ConditionStatus::False, Reason::NameTaken, why.clone()),
        (Ok(_), _) => (ConditionStatus::True, Reason::Accepted, String::new()),
    };
    Verdict { kind: ConditionType::Accepted, status, reason, message }
}

fn issued(facts: &Facts<'_>) -> Verdict {
    let until = |told: &Told| format!("valid until {}", time(told.certificate.facts.not_after));
    let (status, reason, message) = match facts.outcome {
        Outcome::NoneToBe => (ConditionStatus::True, Reason::NotIssued, "certificates come from elsewhere".to_owned()),
        Outcome::Good(told) => (ConditionStatus::True, Reason::Issued, until(told)),
        Outcome::Stuck { certificate: Some(told), why, .. } => {
            (ConditionStatus::True, Reason::Issued, format!("{}, and not renewed: {why}", until(told)))
        }
        Outcome::Stuck { has_expired: true, why, .. } => (ConditionStatus::False, Reason::Expired, why.clone()),
        Outcome::Stuck { why, .. } => (ConditionStatus::False, Reason::IssueFailed, why.clone()),
    };
    Verdict { kind: ConditionType::Issued, status, reason, message }
}

/// All of the others, and being welcome.
fn ready(state: State, others: [&Verdict; 3]) -> Verdict {
    let said = match state {
        State::Suspended => Some((ConditionStatus::False, Reason::Suspended, "it is suspended".to_owned())),
        State::Revoked => Some((ConditionStatus::False, Reason::Revoked, "it is revoked".to_owned())),
        State::Active => {
            // What is known to be wrong is told before what is not known.
            let of = |status| others.iter().find(move |verdict| verdict.status == status);
            let worst = of(ConditionStatus::False).or_else(|| of(ConditionStatus::Unknown));
            worst.map(|verdict| (verdict.status, verdict.reason, verdict.message.clone()))
        }
    };
    let (status, reason, message) = said.unwrap_or((ConditionStatus::True, Reason::Ready, String::new()));
    Verdict { kind: ConditionType::Ready, status, reason, message }
}
