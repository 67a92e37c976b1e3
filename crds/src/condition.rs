//! Conditions: what users are told, in a closed set of types and reasons.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{Schema, SchemaGenerator, json_schema};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Longest message of a condition, in bytes. What is longer is cut, so that it can be written.
pub const MESSAGE_MAX_BYTES: usize = 1024;

/// Declares an enum of words that objects carry as text: old programs must be able to read what newer ones wrote.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $meaning:literal])* $word:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[doc = $meaning])* $word,)+
        }

        impl $name {
            /// All of them, in the order in which they are declared.
            pub const ALL: &[Self] = &[$(Self::$word,)+];

            /// The word itself.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$word => concat!($($meaning),*),)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a condition is about.
    ConditionType {
        /// Both kinds: the object makes sense, and nothing older is in its way.
        Accepted,
        /// ProxyRoute: everything it refers to is there and may be used.
        ResolvedRefs,
        /// ProxyRoute: every sidecar that has started and that it concerns has loaded it.
        Programmed,
        /// ProxyRoute: there is no way around the gate.
        Enclosed,
        /// ClientIdentity: its certificate is there and valid, where it is to have one.
        Issued,
        /// ClientIdentity: every sidecar that has started knows its state.
        Enforced,
        /// Both kinds: all of the others.
        Ready,
    }
}

words! {
    /// Whether it is so.
    ConditionStatus {
        /// It is so.
        True,
        /// It is not.
        False,
        /// It is not known, or not yet.
        Unknown,
    }
}

words! {
    /// Why a condition is as it is.
    Reason {
        /// Accepted is true.
        Accepted,
        /// Accepted is false: something in the spec cannot work; the message says where and what to write instead.
        Invalid,
        /// Accepted is false: an older object has what this one asks for.
        Conflicted,
        /// Accepted is false: a name of another object is in the way, such as a Secret that the operator did not make.
        NameTaken,
        /// Accepted is false: a name is asked for that the namespace has no authority over.
        NotPermitted,
        /// Accepted is false: the namespace has as many as it may have.
        QuotaExceeded,
        /// Accepted is false: the pods' sidecars are too old for a field of the spec.
        NeedsNewerSidecar,
        /// Accepted, ResolvedRefs or Enforced is false: the documents of a workload or a namespace, or the addresses of its
        /// Services, would be larger than an object may be.
        TooLarge,
        /// ResolvedRefs is true.
        ResolvedRefs,
        /// ResolvedRefs is false: an object or a key in it does not exist.
        RefNotFound,
        /// ResolvedRefs is false: a Service, or the port of one, does not exist.
        BackendNotFound,
        /// ResolvedRefs is false: a Secret that a listener names does not exist, or holds no certificate and key that can be
        /// shown today.
        InvalidCertificateRef,
        /// ResolvedRefs is false: an object of another namespace is named, and no ReferenceGrant there permits it.
        RefNotPermitted,
        /// ResolvedRefs is false: a Service is of a type that has no addresses, ExternalName.
        InvalidKind,
        /// Programmed is true.
        Programmed,
        /// Programmed is false or unknown: written, and not yet loaded by all.
        Pending,
        /// Programmed is false: no pod that it concerns has started.
        NoPods,
        /// Programmed is false: a sidecar has refused it.
        Rejected,
        /// Programmed or Enforced is unknown: a sidecar could not be asked.
        Unreachable,
        /// Enclosed is true.
        Enclosed,
        /// Enclosed is unknown: not every sidecar that has started has told.
        NotChecked,
        /// Enclosed is false: a Service sends to the application past the gate.
        ServiceBypasses,
        /// Enclosed is false: a sidecar sees the application listen on more than loopback.
        AppListensOnAllAddresses,
        /// Issued is true.
        Issued,
        /// Issued is true: there is nothing to issue, certificates of this client come from elsewhere.
        NotIssued,
        /// Issued is false: a certificate could not be made; the message says why.
        IssueFailed,
        /// Issued is false: the certificate has expired.
        Expired,
        /// Enforced is true.
        Enforced,
        /// Enforced or Ready is false: not every sidecar that has started has the state yet.
        Propagating,
        /// Ready is false: the identity is suspended.
        Suspended,
        /// Ready is false: the identity is revoked.
        Revoked,
        /// Ready is true.
        Ready,
    }
}

/// What a condition says, without the time since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why.
    pub reason: Reason,
    /// Why, in words.
    pub message: String,
}

/// Conditions that say these verdicts about one generation of an object. A condition whose status stays the same keeps
/// the time since when it has it, so that nothing is written while nothing changes.
#[must_use]
pub fn conditions(verdicts: &[Verdict], generation: i64, before: &[Condition], now: &Time) -> Vec<Condition> {
    let condition = |verdict: &Verdict| {
        let since = before
            .iter()
            .find(|old| old.type_ == verdict.kind.as_str() && old.status == verdict.status.as_str())
            .map_or(now, |old| &old.last_transition_time);
        Condition {
            type_: verdict.kind.as_str().to_owned(),
            status: verdict.status.as_str().to_owned(),
            reason: verdict.reason.as_str().to_owned(),
            message: cut(&verdict.message).to_owned(),
            observed_generation: Some(generation),
            last_transition_time: since.clone(),
        }
    };
    verdicts.iter().map(condition).collect()
}

/// As much of a message as a condition takes, at a boundary of characters.
fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_MAX_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// The schema of a status' conditions. Types and reasons are not enumerated, so that a newer operator can write to an
/// older definition.
pub(crate) fn list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One thing that is so, is not, or is not known.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "description": "What it is about.",
                    "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Z][A-Za-z0-9]*$",
                },
                "status": {
                    "description": "Whether it is so: `True`, `False` or `Unknown`.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "description": "Why, in one word.",
                    "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Z][A-Za-z0-9]*$",
                },
                "message": {
                    "description": "Why, and what to do about it.",
                    "type": "string", "maxLength": MESSAGE_MAX_BYTES,
                },
                "observedGeneration": {
                    "description": "The generation of the object that it is about.",
                    "type": "integer", "format": "int64", "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "Since when it has its status.",
                    "type": "string", "format": "date-time", "maxLength": 40,
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: ConditionStatus, message: &str) -> Verdict {
        Verdict { kind: ConditionType::Programmed, status, reason: Reason::Pending, message: message.to_owned() }
    }

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let (yes, no) = (ConditionStatus::True, ConditionStatus::False);
        let before = conditions(&[verdict(no, "1 of 3")], 1, &[], &at(10));
        let rows = [
            // The status now, the generation now, since when.
            (no, 1, 10),
            (no, 2, 10),
            (yes, 1, 20),
            (ConditionStatus::Unknown, 1, 20),
        ];
        for (status, generation, since) in rows {
            let after = conditions(&[verdict(status, "2 of 3")], generation, &before, &at(20));
            let condition = Condition {
                type_: "Programmed".to_owned(),
                status: status.as_str().to_owned(),
                reason: "Pending".to_owned(),
                message: "2 of 3".to_owned(),
                observed_generation: Some(generation),
                last_transition_time: at(since),
            };
            assert_eq!(after, [condition], "{status} {generation}");
        }
    }

    #[test]
    fn nothing_changes_while_nothing_changes() {
        let verdicts = [verdict(ConditionStatus::False, "1 of 3")];
        let before = conditions(&verdicts, 1, &[], &at(10));
        assert_eq!(conditions(&verdicts, 1, &before, &at(20)), before);
    }

    #[test]
    fn long_messages_are_cut_between_letters() {
        for (message, length) in
            [("a".repeat(1025), 1024), ("ä".repeat(512), 1024), (format!("a{}", "ä".repeat(512)), 1023)]
        {
            assert_eq!(cut(&message).len(), length);
            assert!(message.starts_with(cut(&message)));
        }
    }

    #[test]
    fn words_fit_their_schema_and_are_told() {
        for reason in Reason::ALL {
            assert!(reason.as_str().len() <= 63 && !reason.meaning().trim().is_empty(), "{reason}");
        }
        assert!(ConditionType::ALL.len() <= 8);
    }
}
