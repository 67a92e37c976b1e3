//! The header fields that are the gate's to write, in every spelling that an application could take for them.

use std::borrow::Cow;
use std::collections::HashSet;

use http::header::{HeaderMap, HeaderName};
use sidecar_config::filters::{Filter, ForwardIdentity};
use sidecar_config::policy::Route;

/// What the fields begin with, or are, that say who a caller is: those the gate can write, and their relatives.
const CLAIMS: [&str; 4] = ["x-forwarded-client-", "ssl-client-", "x-ssl-client-", "postern-"];
const CLAIM_NAMES: [&str; 2] = ["client-cert", "client-cert-chain"];

/// Fields that say how a request came to the gate.
const HOPS: &str = "x-forwarded-";
const HOP_NAMES: [&str; 3] = ["forwarded", "x-real-ip", "x-request-id"];

/// Fields that frame a message, say whom it is for, or end at a hop (RFC 9110 §7.6.1).
const FIXED: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What all of these names begin with.
const INITIALS: [u8; 5] = *b"cfpsx";

/// Whether a field, by its folded name, says who a caller is, whatever is configured.
fn is_claim(folded: &str) -> bool {
    CLAIMS.iter().any(|prefix| folded.starts_with(prefix)) || CLAIM_NAMES.contains(&folded)
}

/// Whether a field, in any spelling, says how a request came to the gate.
pub(crate) fn is_hop(name: &HeaderName) -> bool {
    is_folded_hop(&folded(name.as_str()))
}

fn is_folded_hop(folded: &str) -> bool {
    (folded.starts_with(HOPS) && !is_claim(folded)) || HOP_NAMES.contains(&folded)
}

/// Whether a field is none that a rule may touch.
pub(crate) fn is_fixed(name: &HeaderName) -> bool {
    FIXED.contains(&name.as_str())
}

/// A name as an application may come to see it: letters and digits stay, everything else is one sign. CGI, and so WSGI,
/// Rack and PHP, make underscores of hyphens; some make underscores of every other sign too.
pub(super) fn folded(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect())
}

/// The fields no client can set, for one configuration.
#[derive(Clone, Debug, Default)]
pub struct GateNames {
    /// Folded: what rules forward identities in, of all listeners.
    configured: HashSet<Box<str>>,
    trusts_hops: bool,
}

impl GateNames {
    /// Of a policy's routes.
    pub(crate) fn of<'a>(routes: impl IntoIterator<Item = &'a Route>, trusted_hops: u8) -> Self {
        let rules = routes.into_iter().flat_map(|route| &route.rules);
        let names = rules.flat_map(|rule| &rule.filters).flat_map(forwarded_names);
        let configured = names.map(|name| folded(&name.to_ascii_lowercase()).into()).collect();
        Self { configured, trusts_hops: trusted_hops > 0 }
    }

    /// Whether a client's copy of a field is dropped.
    #[must_use]
    pub fn owns(&self, name: &HeaderName) -> bool {
        let spelled = name.as_str();
        // Most names are none of these by their first letter.
        if self.configured.is_empty() && !spelled.as_bytes().first().is_some_and(|first| INITIALS.contains(first)) {
            return false;
        }
        let folded = folded(spelled);
        if is_claim(&folded) || self.configured.contains(&*folded) {
            return true;
        }
        // A trusted hop spells them as they are, and no hop that is looked at writes the others.
        let is_told = self.trusts_hops && *folded == *spelled && !matches!(spelled, "forwarded" | "x-real-ip");
        is_folded_hop(&folded) && !is_told
    }

    /// Drops what a client must not say from a head.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let owned: Vec<HeaderName> = headers.keys().filter(|name| self.owns(name)).cloned().collect();
        for name in owned {
            headers.remove(name);
        }
    }

    /// Drops it from trailers, with what belongs to a head only (RFC 9110 §6.5.1): some servers merge the two.
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) {
        let owned = |name: &&HeaderName| self.owns(name) || is_hop(name) || is_fixed(name);
        let owned: Vec<HeaderName> = trailers.keys().filter(owned).cloned().collect();
        for name in owned {
            trailers.remove(name);
        }
    }
}

/// Names that a filter writes the caller's identity in, beyond the fixed ones.
pub(crate) fn forwarded_names(filter: &Filter) -> Vec<&str> {
    match filter {
        Filter::ForwardIdentity(ForwardIdentity { headers, .. }) => {
            headers.iter().map(|header| header.name.as_str()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{CLAIM_NAMES, CLAIMS, HOP_NAMES, HOPS, INITIALS};

    #[test]
    fn every_name_begins_as_is_asked_first() {
        let names = CLAIMS.into_iter().chain(CLAIM_NAMES).chain([HOPS]).chain(HOP_NAMES);
        for name in names {
            assert!(INITIALS.contains(&name.as_bytes()[0]), "{name}");
        }
    }
}
