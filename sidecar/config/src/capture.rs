//! What rows tell of a route's requests beyond what they tell of all: only what is listed here. Since contract 1.8.

use serde::{Deserialize, Serialize};

use crate::backend::is_default;

/// What is captured of a route's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capture {
    /// Of the request's header fields, as the client sent them; at most 16 entries, of which the first that has a name
    /// counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Captured>,
    /// Of the parameters of its query, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<Captured>,
    /// Of its cookies, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<Captured>,
    /// Of the bodies of requests and responses; absent means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bodies: Option<CapturedBodies>,
}

/// Some values by their name, and what of them is in the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Captured {
    /// The name, of a header field in any case; one that ends in `*` is every name that begins so.
    pub name: String,
    /// What is in the row.
    #[serde(rename = "as", default, skip_serializing_if = "is_default")]
    pub kept: CapturedAs,
}

/// What of a value is in the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CapturedAs {
    /// The value, up to 256 bytes of it.
    #[default]
    Keep,
    /// That there was one: `***`.
    Mask,
    /// Its HMAC with SHA-256 and the salt of `settings.log.captureSaltFile`: equal values can be told to be equal. Without
    /// a salt as `Mask`.
    Sha256,
    /// Nothing.
    Drop,
}

/// What is kept of bodies, encrypted with the key of `settings.log.bodyKeyFile`; without one nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapturedBodies {
    /// Whether those of requests are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request: bool,
    /// Whether those of responses are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub response: bool,
    /// Bytes of each body that are kept, from its beginning; 1 to 65536.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u32,
}

/// What most messages of an API have.
fn default_max_bytes() -> u32 {
    8192
}
