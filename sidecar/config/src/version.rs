//! The contract's version, `1.N`: a field gets its place when it works, and raises N.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The oldest contract version this sidecar reads.
pub const CONTRACT_MIN: ContractVersion = ContractVersion { major: 1, minor: 0 };
/// The newest contract version this sidecar reads.
pub const CONTRACT_MAX: ContractVersion = ContractVersion { major: 1, minor: 8 };

/// A contract version such as `1.0`. A document names the smallest version that can express it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContractVersion {
    /// Raised when an old sidecar would misread a document.
    pub major: u16,
    /// Raised when a field is added.
    pub minor: u16,
}

impl ContractVersion {
    /// Whether this build can read a document of this version.
    #[must_use]
    pub fn is_supported(self) -> bool {
        (CONTRACT_MIN..=CONTRACT_MAX).contains(&self)
    }
}

impl fmt::Display for ContractVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ContractVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('.').and_then(|(major, minor)| {
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(major) || !digits(minor) {
                return None;
            }
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("`{text}` is not a contract version; write it as `{CONTRACT_MAX}`"))
    }
}

impl<'de> Deserialize<'de> for ContractVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for ContractVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for ContractVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ContractVersion".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9]{1,5}\\.[0-9]{1,5}$",
            "description": "Contract version of a document, `major.minor`: the smallest that can express it.",
        })
    }
}
