//! How servers of a backend are spoken to with TLS, and which of them are the right ones.

use std::sync::Arc;

use sidecar_config::upstream::{BackendTls, BackendTlsMode};

use crate::snapshot::Bundle;
use crate::spiffe::{self, Pattern};

/// TLS to the servers of a backend, as a document says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Whether the gate shows its own certificate to a server that asks for one.
    pub shows_certificate: bool,
    /// The name that servers are asked for.
    pub server_name: Option<Box<str>>,
    /// Names of the bundles that their certificates must come from.
    pub bundles: Box<[Arc<str>]>,
    /// Who they may be; where nobody is named, whoever has the name.
    peers: Box<[Pattern]>,
}

impl UpstreamTls {
    /// As an accepted document says it.
    pub(crate) fn of(document: &BackendTls) -> Self {
        Self {
            shows_certificate: document.mode == BackendTlsMode::Mutual,
            server_name: document.server_name.as_deref().map(Box::from),
            bundles: document.trust.iter().map(|name| Arc::from(name.as_str())).collect(),
            // The part was accepted, so they can be read.
            peers: document.peers.iter().filter_map(|peer| Pattern::parse(peer)).collect(),
        }
    }

    /// Whether servers are known by their SPIFFE ID, and not by a name.
    #[must_use]
    pub fn is_by_identity(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Whether a server with these URIs is one of those that are named, if its chain ends in these bundles.
    ///
    /// As for callers, an ID counts only under a bundle that vouches for its trust domain, and a certificate with two of
    /// them has none (X509-SVID §2).
    #[must_use]
    pub fn is_peer<'a>(&self, uris: &[String], mut bundles: impl Iterator<Item = &'a Bundle>) -> bool {
        let Some((id, domain)) = spiffe::only_id(uris) else { return false };
        self.peers.iter().any(|peer| peer.matches(id)) && bundles.any(|bundle| bundle.vouches_for_domain(domain))
    }

    /// The trust domains of the peers for which none of these bundles vouches.
    pub(crate) fn unvouched<'a>(&'a self, bundles: &'a [&Bundle]) -> impl Iterator<Item = &'a str> {
        let domains = self.peers.iter().map(Pattern::trust_domain);
        domains.filter(|domain| !bundles.iter().any(|bundle| bundle.vouches_for_domain(domain)))
    }
}
