//! Who the client of a connection is, for the generation that decides.

use std::sync::Arc;

use sidecar_decide::{Caller, Snapshot, Who};

use crate::log::{Peer, PeerFacts};
use crate::tls::{Standing, TlsPeer};

/// What TLS agreed on, for rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Negotiated {
    /// The version.
    pub version: Option<&'static str>,
    /// The cipher suite.
    pub cipher: Option<&'static str>,
}

/// Resolves a client against a snapshot, by the bundles that vouch for it today. One that would not be let in any more is
/// refused by every rule, until its connection is cut.
pub fn resolve(snapshot: &Snapshot, standing: &Standing, peer: &TlsPeer) -> Caller {
    let bundles: Vec<_> = standing.bundles.iter().filter_map(|name| snapshot.bundle(name)).collect();
    let mut caller = match &peer.facts {
        Some(facts) if !bundles.is_empty() => snapshot.directory.resolve(facts, bundles),
        _ => Caller::ANONYMOUS,
    };
    caller.revoked = standing.refused.or(caller.revoked);
    caller
}

/// What rows say of a client whose identity is resolved.
pub fn logged(snapshot: &Snapshot, peer: &TlsPeer, caller: &Caller, negotiated: Negotiated) -> Arc<Peer> {
    let identity = match caller.who {
        Who::Known(identity) => snapshot.directory.name(identity).map(|name| Box::from(&**name)),
        Who::Unknown | Who::Ambiguous => None,
    };
    describe(peer, identity, negotiated)
}

/// What rows say of a client that was refused before anybody asked who it is.
pub fn logged_unresolved(peer: &TlsPeer) -> Arc<Peer> {
    describe(peer, None, Negotiated::default())
}

fn describe(peer: &TlsPeer, identity: Option<Box<str>>, negotiated: Negotiated) -> Arc<Peer> {
    let facts = peer.facts.as_deref();
    let text = |text: &String| (!text.is_empty()).then(|| Box::from(text.as_str()));
    Arc::new(Peer::new(PeerFacts {
        identity,
        bundle: peer.bundles().next().map(|name| Box::from(&**name)),
        subject: facts.and_then(|facts| text(&facts.subject)),
        san: facts.and_then(|facts| text(&facts.san)),
        issuer: facts.and_then(|facts| text(&facts.issuer)),
        serial: facts.and_then(|facts| text(&facts.serial)),
        fingerprint: facts.map(|facts| facts.fingerprint().into()),
        spki: facts.map(|facts| facts.spki_fingerprint().into()),
        lfdi: facts.map(|facts| facts.lfdi_hex().into()),
        sfdi: facts.map(|facts| facts.sfdi_digits().into()),
        tls_version: negotiated.version,
        cipher: negotiated.cipher,
    }))
}
