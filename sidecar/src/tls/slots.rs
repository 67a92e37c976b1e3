//! A server configuration per handshake, without making one for each.
//!
//! The verifier of a handshake needs a place of its own to leave what it saw, and rustls keeps the verifier inside the
//! configuration. Making a configuration costs some 20 KiB of allocations (its builder makes a session cache that is
//! thrown away), so a worker keeps some of those whose handshake has ended.

use std::cell::RefCell;
use std::sync::{Arc, PoisonError};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};
use sidecar_config::policy::{Protocol, TlsVersion};
use sidecar_decide::snapshot::Bundle;
use sidecar_decide::{Listener, Snapshot};

use super::path::{Sum, anchor_sum};
use super::peer::{Standing, TlsPeer};
use super::ticket::{BoundTickets, Cell, Seen, TicketKeys};
use super::verifier::{Anchors, Trust, Verifier, algorithms};
use crate::limits::HANDSHAKE_SLOTS;

static ALL_VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

static HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];

/// What all handshakes of one listener share, for one generation of the configuration.
#[derive(Debug)]
pub struct TlsContext {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    /// Offered by ALPN; nothing where any protocol may be inside.
    protocols: &'static [&'static [u8]],
    trust: Arc<Trust>,
    resolver: Arc<OneCertificate>,
    leaf: Option<ServerLeaf>,
    tickets: TicketKeys,
    binding: Sum,
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

/// Which certificate of the gate's own a client was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLeaf {
    /// SHA-256 over it.
    pub sha256: [u8; 32],
    /// The first second since the epoch in which it has expired.
    pub expires: u64,
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl TlsContext {
    /// For a listener of a snapshot and the certificate it presents.
    pub fn new(snapshot: &Snapshot, listener: &Listener, certificate: Arc<CertifiedKey>, tickets: TicketKeys) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let bundles: Vec<_> = listener.bundles.iter().map(|index| &snapshot.bundles[*index]).collect();
        let trust = Trust {
            client_auth: listener.client_auth,
            hints: hints(&bundles),
            bundles: bundles.iter().map(|bundle| anchors(bundle)).collect(),
            algorithms: algorithms(&provider),
        };
        let versions = match listener.min_version {
            TlsVersion::V1_2 => ALL_VERSIONS,
            TlsVersion::V1_3 => ONLY_TLS13,
        };
        let protocols = match listener.protocol {
            Protocol::Https => HTTP,
            Protocol::Http | Protocol::Tls => &[],
        };
        let leaf = snapshot.server.as_ref().and_then(|server| server.chain.first()).map(|leaf| ServerLeaf {
            sha256: leaf.facts.sha256,
            expires: u64::try_from(leaf.facts.not_after).unwrap_or(0).saturating_add(1),
        });
        Self {
            provider,
            versions,
            protocols,
            trust: Arc::new(trust),
            resolver: Arc::new(OneCertificate(certificate)),
            leaf,
            tickets,
            binding: binding(snapshot, listener),
        }
    }

    /// The certificate that a client gets to see that asks for this name.
    pub fn leaf(&self, _name: Option<&str>) -> Option<ServerLeaf> {
        self.leaf
    }

    /// How a client that was verified before stands today.
    pub fn standing(&self, peer: &TlsPeer) -> Standing {
        self.trust.standing(peer)
    }

    fn slot(&self) -> Result<Slot, rustls::Error> {
        let cell = Cell::default();
        let verifier = Arc::new(Verifier::new(Arc::clone(&self.trust), Arc::clone(&cell)));
        let (keys, binding) = (self.tickets.clone(), self.binding);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.resolver) as Arc<_>);
        config.ignore_client_order = true;
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // The default storage would resume TLS 1.2 by session id, and ask neither verifier nor ticketer.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(BoundTickets { keys, binding, cell: Arc::clone(&cell) });
        config.send_tls13_tickets = 1;
        Ok(Slot { config: Arc::new(config), cell })
    }
}

/// What a session is resumed under, or not at all: its listener with its mode and bundles, the trust, and the gate's own
/// certificate, which a client that resumes does not get to see.
fn binding(snapshot: &Snapshot, listener: &Listener) -> Sum {
    let bundles: Vec<_> = listener.bundles.iter().map(|index| &snapshot.bundles[*index].name).collect();
    let name = (listener.address.port() == 0).then_some(&listener.name);
    let server = snapshot.server.as_ref().map(|server| &server.revision);
    let bound = (listener.address, name, listener.client_auth, bundles, &snapshot.trust_revision, server);
    // Derived and therefore unambiguous; it never leaves the process.
    Sha256::digest(format!("{bound:?}")).into()
}

fn anchors(bundle: &Bundle) -> Anchors {
    let roots = bundle.roots.iter().filter_map(|root| {
        let der = CertificateDer::from(root.der.as_slice());
        // A root was read as a certificate when its bundle was accepted; one that webpki cannot read anchors nothing.
        webpki::anchor_from_trusted_cert(&der).ok().map(|anchor: TrustAnchor<'_>| anchor.to_owned())
    });
    let roots: Vec<_> = roots.collect();
    let sums = roots.iter().map(anchor_sum).collect();
    Anchors { bundle: Arc::clone(&bundle.name), roots, sums, revoked: Arc::clone(&bundle.revoked) }
}

fn hints(bundles: &[&Bundle]) -> Vec<DistinguishedName> {
    let mut store = RootCertStore::empty();
    let roots = bundles.iter().flat_map(|bundle| &bundle.roots);
    store.add_parsable_certificates(roots.map(|root| CertificateDer::from(root.der.clone())));
    store.subjects()
}

/// One handshake's configuration, and where it leaves what it learns.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) config: Arc<ServerConfig>,
    cell: Cell,
}

impl Slot {
    /// Takes out what the handshake learned, and leaves the cell empty for the next one.
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut *self.cell.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A worker's slots for one listener.
#[derive(Debug)]
pub struct Slots {
    context: Arc<TlsContext>,
    free: RefCell<Vec<Slot>>,
}

impl Slots {
    /// No slots yet, for a listener.
    pub fn new(context: Arc<TlsContext>) -> Self {
        Self { context, free: RefCell::default() }
    }

    /// What they share.
    pub fn context(&self) -> &TlsContext {
        &self.context
    }

    pub(super) fn take(&self) -> Result<Slot, rustls::Error> {
        match self.free.borrow_mut().pop() {
            Some(slot) => Ok(slot),
            None => self.context.slot(),
        }
    }

    /// Takes a slot back, unless its connection still holds on to the configuration.
    pub(super) fn give_back(&self, slot: Slot) {
        let mut free = self.free.borrow_mut();
        if free.len() < HANDSHAKE_SLOTS && Arc::strong_count(&slot.config) == 1 {
            free.push(slot);
        }
    }
}
