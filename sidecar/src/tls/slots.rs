//! A server configuration per handshake, without making one for each.
//!
//! The verifier of a handshake needs a place of its own to leave what it saw, and rustls keeps the verifier inside the
//! configuration. Making a configuration costs some 20 KiB of allocations (its builder makes a session cache that is
//! thrown away), so a worker keeps some of those whose handshake has ended.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::server::NoServerSessionStorage;
use rustls::{DistinguishedName, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};
use sidecar_config::policy::{Protocol, TlsVersion, UnknownServerName};
use sidecar_decide::snapshot::Bundle;
use sidecar_decide::{Certificate, Listener, Reason, Snapshot};

use super::certificates::{Chosen, OwnCertificates, Shown};
use super::chains::Chains;
use super::groups::Groups;
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
    hybrid: Arc<CryptoProvider>,
    classical: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    /// Offered by ALPN; nothing where any protocol may be inside.
    protocols: &'static [&'static [u8]],
    trust: Arc<Trust>,
    certificates: OwnCertificates,
    /// Those of the listener's own.
    own: Box<[usize]>,
    unknown_server_name: UnknownServerName,
    tickets: TicketKeys,
    binding: Sum,
}

impl TlsContext {
    /// For a listener of a snapshot and the certificates it presents.
    pub fn new(snapshot: &Snapshot, listener: &Listener, certificates: OwnCertificates, tickets: TicketKeys) -> Self {
        let classical = Groups::Classical.provider();
        let bundles: Vec<_> = listener.bundles.iter().map(|index| &snapshot.bundles[*index]).collect();
        let trust = Trust {
            client_auth: listener.client_auth,
            hints: hints(&bundles),
            bundles: bundles.iter().map(|bundle| anchors(bundle)).collect(),
            algorithms: algorithms(&classical),
        };
        let versions = match listener.min_version {
            TlsVersion::V1_2 => ALL_VERSIONS,
            TlsVersion::V1_3 => ONLY_TLS13,
        };
        let protocols = match listener.protocol {
            Protocol::Https => HTTP,
            Protocol::Http | Protocol::Tls => &[],
        };
        Self {
            hybrid: Groups::Hybrid.provider(),
            classical,
            versions,
            protocols,
            trust: Arc::new(trust),
            certificates,
            own: listener.certificates.clone(),
            unknown_server_name: listener.unknown_server_name,
            tickets,
            binding: binding(snapshot, listener),
        }
    }

    /// How a client that was verified before stands today.
    pub fn standing(&self, peer: &TlsPeer) -> Standing {
        self.trust.standing(peer)
    }

    fn slot(&self, groups: Groups, chains: &Arc<Chains>) -> Result<Slot, rustls::Error> {
        let provider = match groups {
            Groups::Hybrid => &self.hybrid,
            Groups::Classical => &self.classical,
        };
        let cell = Cell::default();
        let verifier = Arc::new(Verifier::new(Arc::clone(&self.trust), Arc::clone(chains), Arc::clone(&cell)));
        let (keys, binding) = (self.tickets.clone(), self.binding);
        let shown = Arc::new(Shown::default());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(self.versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&shown) as Arc<_>);
        config.ignore_client_order = true;
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // The default storage would resume TLS 1.2 by session id, and ask neither verifier nor ticketer.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(BoundTickets { keys, binding, cell: Arc::clone(&cell) });
        config.send_tls13_tickets = 1;
        Ok(Slot { config: Arc::new(config), groups, cell, shown })
    }
}

/// What a session is resumed under, or not at all: its listener with its mode and bundles, the trust, and the gate's own
/// certificates, which a client that resumes does not get to see.
fn binding(snapshot: &Snapshot, listener: &Listener) -> Sum {
    let bundles: Vec<_> = listener.bundles.iter().map(|index| &snapshot.bundles[*index].name).collect();
    let name = (listener.address.port() == 0).then_some(&listener.name);
    let server = snapshot.server.as_ref().map(|server| &server.revision);
    let server = (server, &listener.certificates);
    let bound = (listener.address, name, listener.client_auth, bundles, &snapshot.trust_revision, server);
    // Derived and therefore unambiguous; it never leaves the process.
    Sha256::digest(format!("{bound:?}")).into()
}

pub(super) fn anchors(bundle: &Bundle) -> Anchors {
    let roots = bundle.roots.iter().filter_map(|root| {
        let der = CertificateDer::from(root.der.as_slice());
        // A root was read as a certificate when its bundle was accepted; one that webpki cannot read anchors nothing.
        webpki::anchor_from_trusted_cert(&der).ok().map(|anchor: TrustAnchor<'_>| anchor.to_owned())
    });
    let roots: Vec<_> = roots.collect();
    let sums = roots.iter().map(anchor_sum).collect();
    let der = |certificate: &Certificate| CertificateDer::from(certificate.der.clone());
    Anchors {
        bundle: Arc::clone(&bundle.name),
        roots,
        sums,
        intermediates: bundle.intermediates.iter().map(der).collect(),
        revoked: Arc::clone(&bundle.revoked),
        listed: Arc::clone(&bundle.listed),
    }
}

fn hints(bundles: &[&Bundle]) -> Vec<DistinguishedName> {
    let mut store = RootCertStore::empty();
    // Some clients send nothing unless the name of their certificate's very issuer is among them.
    let authorities = bundles.iter().flat_map(|bundle| bundle.roots.iter().chain(&bundle.intermediates));
    store.add_parsable_certificates(authorities.map(|root| CertificateDer::from(root.der.clone())));
    store.subjects()
}

/// One handshake's configuration, and what is inside it that belongs to this handshake alone.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) config: Arc<ServerConfig>,
    groups: Groups,
    /// Where it leaves what it learns.
    cell: Cell,
    /// What it shows.
    pub(super) shown: Arc<Shown>,
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
    chains: Arc<Chains>,
    free: RefCell<Vec<Slot>>,
}

impl Slots {
    /// No slots yet, for a listener. The chains that it has known so far stay known as long as it judges alike.
    pub fn new(context: Arc<TlsContext>, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.context.binding == context.binding);
        let chains = before.map(|before| Arc::clone(&before.chains)).unwrap_or_default();
        Self { context, chains, free: RefCell::default() }
    }

    /// The certificate for a client that asks for `name`, or for none and has reached `address`.
    pub(super) fn choose(&self, name: Option<&str>, address: Option<IpAddr>) -> Result<Chosen, Reason> {
        self.context.certificates.choose(&self.context.own, name, address, self.context.unknown_server_name)
    }

    /// One for a handshake in these groups.
    pub(super) fn take(&self, groups: Groups) -> Result<Slot, rustls::Error> {
        let mut free = self.free.borrow_mut();
        match free.iter().rposition(|slot| slot.groups == groups) {
            Some(index) => Ok(free.swap_remove(index)),
            None => self.context.slot(groups, &self.chains),
        }
    }

    /// Takes a slot back, unless its connection still holds on to the configuration.
    pub(super) fn give_back(&self, slot: Slot) {
        let mut free = self.free.borrow_mut();
        if Arc::strong_count(&slot.config) == 1 {
            // Of as many as are kept one goes that was not asked for lately.
            if free.len() == HANDSHAKE_SLOTS {
                free.remove(0);
            }
            free.push(slot);
        }
    }
}
