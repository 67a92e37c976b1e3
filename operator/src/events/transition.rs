//! Which changes of conditions are worth an event. Pure: a function of the status before and after, so that a restart,
//! which changes none, tells nothing.

use postern_crds::clientidentity::State;
use postern_crds::{ClientIdentity, ClientIdentityStatus, Condition, Reason};

use crate::index::concern::is_restricted;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether somebody has to do something.
    pub is_warning: bool,
    /// Why, in one word: the condition's, as a rule.
    pub reason: String,
    /// What the operator was at.
    pub action: &'static str,
    /// Why, in words.
    pub note: String,
}

/// Certificate of a client, anew.
const RENEWED: &str = "Renewed";
/// A client that is not suspended any more: the state it has then.
const RESUMED: &str = "Active";

/// Of a route.
#[must_use]
pub fn of_route(before: &[Condition], after: &[Condition]) -> Vec<Told> {
    let worth = |change: &Change<'_>| match (change.kind(), change.status(), change.reason()) {
        // Whether pods come and go is told by their own events.
        ("Programmed", "True", _) => Some(false),
        ("Programmed", _, reason) if is(reason, Reason::Rejected) || is(reason, Reason::Unreachable) => Some(true),
        ("Accepted" | "ResolvedRefs" | "Enclosed", "False", _) => Some(true),
        ("Accepted" | "ResolvedRefs" | "Enclosed", "True", _) if change.was("False") => Some(false),
        _ => None,
    };
    changes(before, after).filter_map(|change| Some(change.told(worth(&change)?))).collect()
}

/// Of a client.
#[must_use]
pub fn of_identity(
    identity: &ClientIdentity,
    before: Option<&ClientIdentityStatus>,
    after: &ClientIdentityStatus,
) -> Vec<Told> {
    let is_restricted = is_restricted(identity);
    let worth = |change: &Change<'_>| match (change.kind(), change.status(), change.reason()) {
        ("Accepted" | "Issued", "False", _) => Some(true),
        ("Accepted", "True", _) if change.was("False") => Some(false),
        // With every pod that starts it is so anew; somebody waits for it only where something is to be refused.
        ("Enforced", "True", _) if is_restricted => Some(false),
        ("Enforced", _, reason) if is_restricted && is(reason, Reason::Unreachable) => Some(true),
        ("Ready", "False", reason) if is(reason, Reason::Revoked) || is(reason, Reason::Suspended) => Some(false),
        _ => None,
    };
    let old = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut told: Vec<_> =
        changes(old, &after.conditions).filter_map(|change| Some(change.told(worth(&change)?))).collect();
    let resumes = |change: &Change<'_>| change.had(Reason::Suspended);
    if identity.spec.state == State::Active && changes(old, &after.conditions).any(|change| resumes(&change)) {
        let note = "it is not suspended any more".to_owned();
        told.push(Told { is_warning: false, reason: RESUMED.to_owned(), action: "Enforce", note });
    }
    let serial =
        |status: &ClientIdentityStatus| status.certificate.as_ref().map(|certificate| certificate.serial.clone());
    let (old, new) = (before.and_then(serial), serial(after));
    if let Some(certificate) = after.certificate.as_ref().filter(|_| new != old) {
        let reason = if old.is_some() { RENEWED } else { Reason::Issued.as_str() };
        let note = format!("certificate {} is valid until {}", certificate.serial, certificate.not_after.as_str());
        told.push(Told { is_warning: false, reason: reason.to_owned(), action: "Issue", note });
    }
    told
}

/// A condition that is so for another reason, or is another.
struct Change<'a> {
    before: Option<&'a Condition>,
    after: &'a Condition,
}

impl Change<'_> {
    fn kind(&self) -> &str {
        &self.after.type_
    }

    fn status(&self) -> &str {
        &self.after.status
    }

    fn reason(&self) -> &str {
        &self.after.reason
    }

    fn was(&self, status: &str) -> bool {
        self.before.is_some_and(|before| before.status == status)
    }

    fn had(&self, reason: Reason) -> bool {
        self.before.is_some_and(|before| is(&before.reason, reason))
    }

    fn told(&self, is_warning: bool) -> Told {
        let action = match self.kind() {
            "Programmed" => "Program",
            "Issued" => "Issue",
            "Enforced" => "Enforce",
            "Enclosed" => "Check",
            _ => "Accept",
        };
        Told { is_warning, reason: self.after.reason.clone(), action, note: self.after.message.clone() }
    }
}

fn changes<'a>(before: &'a [Condition], after: &'a [Condition]) -> impl Iterator<Item = Change<'a>> {
    after.iter().filter_map(|after| {
        let before = before.iter().find(|before| before.type_ == after.type_);
        let is_same = before.is_some_and(|before| (&before.status, &before.reason) == (&after.status, &after.reason));
        (!is_same).then_some(Change { before, after })
    })
}

fn is(text: &str, reason: Reason) -> bool {
    text == reason.as_str()
}

#[cfg(test)]
mod tests;
