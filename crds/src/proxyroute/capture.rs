//! What rows of the request log tell of a route's requests beyond what they tell of all.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is captured of a route's requests: nothing that is not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.headers) || has(self.query) || has(self.cookies) || has(self.bodies)",
    "capture takes nothing; write headers, query, cookies or bodies",
))]
pub struct Capture {
    /// Of the request's header fields, as the client sent them. The first entry that has a name counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub headers: Vec<Captured>,
    /// Of the parameters of its query, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub query: Vec<Captured>,
    /// Of its cookies, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub cookies: Vec<Captured>,
    /// Of the bodies of requests and responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bodies: Option<CapturedBodies>,
}

/// Some values by their name, and what of them is in the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.__as__ != 'Keep' || !(self.name.lowerAscii() in ['authorization', 'proxy-authorization', 'cookie', 'set-cookie', 'x-api-key', 'api-key', 'api_key', 'apikey', 'x-auth-token', 'x-access-token', 'x-amz-security-token', 'x-csrf-token', 'x-xsrf-token', 'csrftoken', 'xsrf-token', 'access_token', 'id_token', 'refresh_token', 'token', 'password', 'client_secret', 'session', 'sessionid', 'session_id', 'sid', 'jsessionid', 'phpsessid', 'connect.sid'])",
    "capture: a secret is not kept as it is; write `as: Mask`, `Sha256` or `Drop`, and cookies by their names in capture.cookies",
))]
#[x_kube(validation = (
    "!self.name.contains('*') || self.name.indexOf('*') == size(self.name) - 1",
    "capture: in a name `*` stands at its end alone, for every name that begins so",
))]
pub struct Captured {
    /// The name, of a header field in any case; one that ends in `*` is every name that begins so.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What is in the row.
    #[serde(rename = "as", default)]
    pub kept: CapturedAs,
}

/// What of a value is in the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::words)]
pub enum CapturedAs {
    /// The value, up to 256 bytes of it.
    #[default]
    Keep,
    /// That there was one: `***`.
    Mask,
    /// Its HMAC with SHA-256 and the salt that the Secret `postern-log` has as `capture-salt`: equal values can be told to
    /// be equal. Without a salt as `Mask`.
    Sha256,
    /// Nothing.
    Drop,
}

/// What is kept of bodies, encrypted with the key that the Secret `postern-log` has as `body-key`; without one nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.request || self.response", "capture.bodies keeps none; write `request: true` or `response: true`"))]
pub struct CapturedBodies {
    /// Whether those of requests are.
    #[serde(default)]
    pub request: bool,
    /// Whether those of responses are.
    #[serde(default)]
    pub response: bool,
    /// Bytes of each body that are kept, from its beginning.
    #[serde(default = "default_max_bytes")]
    #[schemars(range(min = 1, max = 65_536))]
    pub max_bytes: u32,
}

fn default_max_bytes() -> u32 {
    8192
}
