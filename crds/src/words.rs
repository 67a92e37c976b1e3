//! Durations, sizes and times as they stand in objects, and the schemas of names, hosts and labels.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Declares a word of the API: text that the schema has checked and whoever uses it reads. It is kept as it was written,
/// so that nothing that once passed a schema fails to be read.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident: $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// As it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

pub(crate) const DURATION_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
pub(crate) const SIZE_PATTERN: &str = "^[0-9]{1,10}(Ki|Mi|Gi)?$";

word! {
    /// A length of time by GEP-2257: one to four of `h`, `m`, `s`, `ms`, each with up to five digits, such as `1h30m`.
    Duration: {
        "type": "string",
        "pattern": DURATION_PATTERN,
        // Four times five digits with two letters.
        "maxLength": 28,
    }
}

word! {
    /// A number of bytes: digits alone, or with `Ki`, `Mi` or `Gi`, such as `256Mi`.
    Size: {
        "type": "string",
        "pattern": SIZE_PATTERN,
        "maxLength": 12,
    }
}

word! {
    /// A second in UTC, such as `2026-11-20T00:00:00Z`.
    UtcTime: {
        "type": "string",
        "format": "date-time",
        // Of the many forms of a date-time the one that Kubernetes writes.
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        "maxLength": 20,
    }
}

const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const SUBDOMAIN_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const HOSTNAME_PATTERN: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

fn text(pattern: &str, max: u32) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": max, "pattern": pattern})
}

fn list(items: &Schema, min: u32, max: u32) -> Schema {
    let mut schema = json_schema!({"type": "array", "items": items, "maxItems": max});
    if min > 0 {
        schema.insert("minItems".to_owned(), min.into());
    }
    schema
}

/// A name of one label (RFC 1123): of a namespace, a rule, a bundle.
pub(crate) fn label(_: &mut SchemaGenerator) -> Schema {
    text(LABEL_PATTERN, 63)
}

/// The name of an object in Kubernetes.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(SUBDOMAIN_PATTERN, 253)
}

/// One host, without a wildcard.
pub(crate) fn precise_hostname(_: &mut SchemaGenerator) -> Schema {
    text(SUBDOMAIN_PATTERN, 253)
}

/// Hosts of a route.
pub(crate) fn hostnames(_: &mut SchemaGenerator) -> Schema {
    list(&text(HOSTNAME_PATTERN, 253), 0, 16)
}

/// DNS names that a certificate gets.
pub(crate) fn dns_names(_: &mut SchemaGenerator) -> Schema {
    list(&text(HOSTNAME_PATTERN, 253), 0, 16)
}

/// DNS names that certificates are recognised by.
pub(crate) fn claimed_dns_names(_: &mut SchemaGenerator) -> Schema {
    list(&text(HOSTNAME_PATTERN, 253), 1, 16)
}

const URI_PATTERN: &str = "^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$";

/// URIs that a certificate gets.
pub(crate) fn uris(_: &mut SchemaGenerator) -> Schema {
    list(&text(URI_PATTERN, 2048), 0, 16)
}

/// URIs that certificates are recognised by.
pub(crate) fn claimed_uris(_: &mut SchemaGenerator) -> Schema {
    list(&text(URI_PATTERN, 2048), 1, 16)
}

/// SPIFFE IDs, each whole or ending in `/*`.
pub(crate) fn spiffe_patterns(_: &mut SchemaGenerator) -> Schema {
    list(&text(SPIFFE_PATTERN, 2048), 1, 16)
}

const SPIFFE_PATTERN: &str = r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)*(/\*)?$";

/// A SPIFFE ID, whole or ending in `/*`.
pub(crate) fn spiffe_pattern(_: &mut SchemaGenerator) -> Schema {
    text(SPIFFE_PATTERN, 2048)
}

/// A SPIFFE trust domain.
pub(crate) fn trust_domain(_: &mut SchemaGenerator) -> Schema {
    text("^[a-z0-9._-]+$", 255)
}

/// SPIFFE trust domains.
pub(crate) fn trust_domains(_: &mut SchemaGenerator) -> Schema {
    list(&text("^[a-z0-9._-]+$", 255), 0, 16)
}

/// A segment of a SPIFFE ID that names a service account.
pub(crate) fn service_account(generator: &mut SchemaGenerator) -> Schema {
    object_name(generator)
}

/// Labels to choose by. Keys cannot be bounded in a schema; the number of labels is.
pub(crate) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
        "minProperties": 1,
        "maxProperties": 16,
    })
}

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Name of a header field (RFC 9110 §5.1).
pub(crate) fn header_name(_: &mut SchemaGenerator) -> Schema {
    text(HEADER_PATTERN, 256)
}

const HEADER_PATTERN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// Names of header fields.
pub(crate) fn header_names(_: &mut SchemaGenerator) -> Schema {
    list(&text(HEADER_PATTERN, 256), 1, 16)
}

/// SHA-256 digests.
pub(crate) fn sha256_digests(_: &mut SchemaGenerator) -> Schema {
    list(&text("^sha256:[0-9A-Fa-f]{64}$", 71), 1, 64)
}

/// Long form device identifiers (IEEE 2030.5).
pub(crate) fn lfdis(_: &mut SchemaGenerator) -> Schema {
    list(&text("^[0-9A-Fa-f]{40}$", 40), 1, 64)
}

/// Short form device identifiers (IEEE 2030.5).
pub(crate) fn sfdis(_: &mut SchemaGenerator) -> Schema {
    list(&text("^[0-9]{12}$", 12), 1, 64)
}

/// Serial numbers in hex digits, with or without colons.
pub(crate) fn serials(_: &mut SchemaGenerator) -> Schema {
    list(&text("^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){0,19}$", 59), 1, 64)
}

/// Common names of certificates' subjects (RFC 5280: at most 64 characters).
pub(crate) fn common_names(_: &mut SchemaGenerator) -> Schema {
    list(&text(r"^[^\x00-\x1f\x7f]+$", 64), 1, 64)
}

/// A common name of a certificate's subject (RFC 5280: at most 64 characters).
pub(crate) fn common_name(_: &mut SchemaGenerator) -> Schema {
    text(r"^[^\x00-\x1f\x7f]+$", 64)
}
