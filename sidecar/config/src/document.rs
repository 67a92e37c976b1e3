//! A document: one file's worth of configuration, whose parts are read each on its own.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{CONTRACT_MAX, CONTRACT_MIN, ContractVersion, Readable};

/// One of the five parts of a configuration, each accepted or refused on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Root bundles and revocations.
    Trust,
    /// The workload's own certificate.
    Identity,
    /// Known clients.
    Identities,
    /// Listeners and routes.
    Policy,
    /// Addresses of backends.
    Endpoints,
}

impl Part {
    /// All parts, in the order they are loaded.
    pub const ALL: [Self; 5] = [Self::Trust, Self::Identity, Self::Identities, Self::Policy, Self::Endpoints];

    /// The part's name in documents, `/status` and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Identity => "identity",
            Self::Identities => "identities",
            Self::Policy => "policy",
            Self::Endpoints => "endpoints",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One file's worth of configuration. A part that is absent here may be in another file of the same folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Document {
    /// Contract version.
    pub version: ContractVersion,
    /// How the process runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::settings::Settings>"))]
    pub settings: Option<Value>,
    /// Root bundles and revocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::trust::Trust>"))]
    pub trust: Option<Value>,
    /// The workload's own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::identity::Identity>"))]
    pub identity: Option<Value>,
    /// Known clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<crate::identities::KnownIdentity>>"))]
    pub identities: Option<Value>,
    /// Listeners and routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::policy::Policy>"))]
    pub policy: Option<Value>,
    /// Addresses of backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<crate::endpoints::EndpointSet>>"))]
    pub endpoints: Option<Value>,
}

/// Why a whole file is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DocumentError {
    /// The file's top level is a list or a scalar.
    #[error("the top level is not a table of parts; start with `version = \"{CONTRACT_MAX}\"`")]
    NotATable,
    /// No version.
    #[error("`version` is missing; write `version = \"{CONTRACT_MAX}\"` at the top")]
    NoVersion,
    /// Not of the form `1.N`.
    #[error("`version`: {0}")]
    BadVersion(String),
    /// A version this build does not read.
    #[error(
        "`version`: {0} is not supported; this sidecar reads {CONTRACT_MIN} to {CONTRACT_MAX}: use one of those, or a sidecar that reads {0}"
    )]
    UnsupportedVersion(ContractVersion),
    /// A key that no part has.
    #[error("`{0}` is not a part; the parts are settings, trust, identity, identities, policy and endpoints")]
    UnknownPart(String),
}

/// Why one part is refused: where in it, and what is wrong there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{path}`: {detail}")]
pub struct PartError {
    /// Path from the document's top, such as `policy.routes[0].rules[1].mode`.
    pub path: String,
    /// What is wrong and what is accepted instead.
    pub detail: String,
}

impl Document {
    /// Takes a file's values apart into its parts, without looking into them.
    ///
    /// # Errors
    /// When the file as a whole cannot be read: no version, an unsupported one, or a part that does not exist.
    pub fn from_value(value: Value) -> Result<Self, DocumentError> {
        let Value::Object(mut fields) = value else { return Err(DocumentError::NotATable) };
        let version = match fields.remove("version") {
            None => return Err(DocumentError::NoVersion),
            Some(Value::String(text)) => text.parse::<ContractVersion>().map_err(DocumentError::BadVersion)?,
            Some(other) => {
                let detail = format!("{other} is not text; write it in quotes, `\"{CONTRACT_MAX}\"`");
                return Err(DocumentError::BadVersion(detail));
            }
        };
        if !version.is_supported() {
            return Err(DocumentError::UnsupportedVersion(version));
        }
        let document = Self {
            version,
            settings: fields.remove("settings"),
            trust: fields.remove("trust"),
            identity: fields.remove("identity"),
            identities: fields.remove("identities"),
            policy: fields.remove("policy"),
            endpoints: fields.remove("endpoints"),
        };
        match first_key(fields) {
            Some(key) => Err(DocumentError::UnknownPart(key)),
            None => Ok(document),
        }
    }

    /// The values of one part, if this document has it.
    pub fn take(&mut self, part: Part) -> Option<Value> {
        match part {
            Part::Trust => self.trust.take(),
            Part::Identity => self.identity.take(),
            Part::Identities => self.identities.take(),
            Part::Policy => self.policy.take(),
            Part::Endpoints => self.endpoints.take(),
        }
    }

    /// Reads the values of a part (or of `settings`) as its type.
    ///
    /// # Errors
    /// With the place of the first value that does not fit, and what would.
    pub fn read<T: Readable>(name: &str, value: Value) -> Result<T, PartError> {
        T::read(value).map_err(|(place, error)| {
            let path = match place.as_str() {
                "" => name.to_owned(),
                place if place.starts_with('[') => format!("{name}{place}"),
                place => format!("{name}.{place}"),
            };
            PartError { path, detail: error.to_string() }
        })
    }
}

fn first_key(fields: Map<String, Value>) -> Option<String> {
    fields.into_iter().next().map(|(key, _)| key)
}
