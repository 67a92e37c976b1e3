//! TLS to upstreams: what all connections to the servers of a backend share, and how each of them stands when trust or
//! the gate's own certificate changes.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme, version};
use sidecar_config::policy::ClientAuth;
use sidecar_config::upstream::BackendProtocol;
use sidecar_decide::{CertificateFacts, Reason, Revision, Snapshot};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::OwnCertificates;
use super::chains::Chains;
use super::peer::TlsPeer;
use super::reason::{broken_off, upstream_reason};
use super::server_verifier::ServerJudge;
use super::slots::anchors;
use super::verifier::{Trust, algorithms};
use crate::limits::UPSTREAM_SESSIONS;

/// How the gate connects to the servers of a backend, for one trust and one certificate of its own. Sessions are resumed
/// among its connections only, so none outlives what it was verified under.
#[derive(Debug)]
pub struct UpstreamTls {
    judge: Arc<ServerJudge>,
    config: Arc<ClientConfig>,
    /// What the gate shows of itself, if a server asks.
    shows: Option<Arc<CertifiedKey>>,
    protocol: BackendProtocol,
}

/// What a connection to an upstream rests on.
#[derive(Debug)]
pub struct Secured {
    server: TlsPeer,
    shown: Option<Arc<CertifiedKey>>,
}

/// How a connection to an upstream stands under what is served today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamStanding {
    /// As if it were new.
    Good,
    /// A new one would show another certificate of the gate: it takes no further request.
    Old,
    /// It would not be made any more.
    Refused(Reason),
}

impl UpstreamTls {
    /// For a backend of a snapshot, and the gate's own certificates.
    ///
    /// # Errors
    /// When the gate has no certificate to show, or rustls cannot be set up so.
    fn new(
        snapshot: &Snapshot,
        tls: &Arc<sidecar_decide::UpstreamTls>,
        protocol: BackendProtocol,
        own: Option<&OwnCertificates>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let bundles = tls.bundles.iter().filter_map(|name| snapshot.bundle(name));
        let bundles: Vec<_> = bundles.map(|index| (index, snapshot.bundles[index].clone())).collect();
        let trust = Trust {
            client_auth: ClientAuth::Required,
            bundles: bundles.iter().map(|(_, bundle)| anchors(bundle)).collect(),
            hints: Vec::new(),
            algorithms: algorithms(&provider),
        };
        let shows = if tls.shows_certificate { own.and_then(OwnCertificates::first) } else { None };
        if tls.shows_certificate && shows.is_none() {
            return Err(rustls::Error::General("no certificate to show".to_owned()));
        }
        let judge = Arc::new(ServerJudge {
            trust: Arc::new(trust),
            bundles,
            directory: Arc::clone(&snapshot.directory),
            tls: Arc::clone(tls),
            name: server_name(tls)?,
            chains: Chains::default(),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            // What is called dangerous is to bring one's own verifier, which asks for more than the usual one.
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<_>);
        let mut config = match &shows {
            Some(certified) => builder.with_client_cert_resolver(Arc::new(Shows(Arc::clone(certified)))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn(protocol).to_vec()];
        config.resumption = Resumption::in_memory_sessions(UPSTREAM_SESSIONS);
        Ok(Self { judge, config: Arc::new(config), shows, protocol })
    }

    /// Shakes hands with a server on a connected socket.
    ///
    /// # Errors
    /// Why there is no TLS with it.
    pub async fn connect(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Secured), Reason> {
        let address = stream.peer_addr().ok();
        let refused = |error: &dyn std::fmt::Display, reason: Reason| {
            tracing::debug!(?address, %reason, %error, "no TLS with the upstream");
            reason
        };
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(self.judge.name.clone(), stream);
        let stream = connecting.await.map_err(|error: io::Error| {
            let reason = broken_off(&error).unwrap_or(Reason::UpstreamTls);
            refused(&error, reason)
        })?;
        // HTTP/2 has to be agreed on (RFC 9113 §3.2); a server that says nothing speaks HTTP/1.1.
        if self.protocol == BackendProtocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(alpn(self.protocol)) {
            return Err(refused(&"the server does not agree on HTTP/2", Reason::UpstreamTls));
        }
        // A resumed session asks no verifier: its certificates are judged here, by what holds now.
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(refused(&"no certificate", Reason::UpstreamTlsUntrusted));
        };
        let server = self.judge.judge(leaf, intermediates, UnixTime::now());
        let server = server.map_err(|error| refused(&error, upstream_reason(&error)))?;
        let facts = server.facts.as_deref();
        let (subject, san) = (facts.map(|facts| &*facts.subject), facts.map(|facts| &*facts.san));
        tracing::debug!(?address, subject, san, bundle = ?server.bundles().next(), "TLS with the upstream");
        Ok((stream, Secured { server, shown: self.shows.clone() }))
    }

    /// How a connection stands that was made by this or by another one for the same backend.
    pub fn standing(&self, secured: &Secured) -> UpstreamStanding {
        if let Some(reason) = self.judge.refuses(&secured.server) {
            return UpstreamStanding::Refused(reason);
        }
        let leaf = |shown: &Option<Arc<CertifiedKey>>| shown.as_ref().map(|shown| shown.cert.clone());
        let is_same = match (&self.shows, &secured.shown) {
            (Some(now), Some(then)) if Arc::ptr_eq(now, then) => true,
            (now, then) => leaf(now) == leaf(then),
        };
        if is_same { UpstreamStanding::Good } else { UpstreamStanding::Old }
    }
}

impl Secured {
    /// What the server's certificate says.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        self.server.facts.as_deref()
    }

    /// The first second since the epoch in which the server's certificate, or one above it, has expired.
    pub fn expires(&self) -> u64 {
        self.server.path.as_ref().map_or(0, |path| path.expires())
    }
}

/// How ALPN calls it (RFC 7301 §6, RFC 9113 §11.1).
fn alpn(protocol: BackendProtocol) -> &'static [u8] {
    match protocol {
        BackendProtocol::Http => b"http/1.1",
        BackendProtocol::Http2 => b"h2",
    }
}

/// What the servers of a backend are asked for. One that has no name is asked for none: an address is never sent.
fn server_name(tls: &sidecar_decide::UpstreamTls) -> Result<ServerName<'static>, rustls::Error> {
    let nameless = || ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into());
    match &tls.server_name {
        Some(name) => ServerName::try_from(name.to_string())
            .map_err(|error| rustls::Error::General(format!("serverName {name}: {error}"))),
        None => Ok(nameless()),
    }
}

/// Shows the gate's certificate to whoever asks: whose authorities a server names is not asked, because it judges anyway.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What decides how an [`UpstreamTls`] judges: what the document says of the backend, trust, identities, and the gate's own
/// certificates.
type StateKey = (Arc<sidecar_decide::UpstreamTls>, BackendProtocol, [Option<Revision>; 3]);

/// Those of all generations that are in use, so that a new one resumes the sessions of the old one while nothing that they
/// rest on has changed.
#[derive(Debug, Default)]
pub struct UpstreamTlsStates {
    known: HashMap<StateKey, Weak<UpstreamTls>>,
}

impl UpstreamTlsStates {
    /// TLS by endpoint of a snapshot; `None` where there is none to speak, or none that can be spoken.
    pub fn of(&mut self, snapshot: &Snapshot, own: Option<&OwnCertificates>) -> Vec<Option<Arc<UpstreamTls>>> {
        self.known.retain(|_, state| state.strong_count() > 0);
        let server = snapshot.server.as_ref().map(|server| server.revision.clone());
        let revisions = [snapshot.trust_revision.clone(), snapshot.identities_revision.clone(), server];
        // Held here until the end, so that endpoints of one backend share theirs.
        let mut states = Vec::with_capacity(snapshot.endpoints.len());
        for endpoint in &snapshot.endpoints {
            let state = endpoint.tls.as_ref().and_then(|tls| {
                let key = (Arc::clone(tls), endpoint.protocol, revisions.clone());
                if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
                    return Some(known);
                }
                let made = UpstreamTls::new(snapshot, tls, endpoint.protocol, own)
                    .inspect_err(|error| tracing::error!(%error, "no TLS with a backend"));
                let made = Arc::new(made.ok()?);
                self.known.insert(key, Arc::downgrade(&made));
                Some(made)
            });
            states.push(state);
        }
        states
    }
}
