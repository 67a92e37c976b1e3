//! The life of a connection: admission, handshake, then requests, or bytes both ways, until it ends.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustls::{CipherSuite, ProtocolVersion};
use sidecar_config::policy::Protocol;
use sidecar_decide::filter::{Client, IdentityHeaders, PeerAddress};
use sidecar_decide::{Caller, Reason, ServerCertificate, Verdict, Who};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::gate::{Gate, Served};
use super::http::handle;
use super::live::Live;
use super::record::{blank, microseconds};
use super::tcp;
use super::tunnel::Tunnels;
use crate::alarm::Alarm;
use crate::config::{Generation, ListenerKey};
use crate::duplex::Duplex;
use crate::ending::Ending;
use crate::filter::{ConnectionIds, Fields, Told};
use crate::identity::{self, Negotiated};
use crate::log::{Kind, Peer, Scope, ScopeFacts};
use crate::metrics::{Amount, Event, Outcome};
use crate::protocol::{self, Closing, NoRequest, ServeError, Version};
use crate::tls::{self, Session, SessionStream, Slots, TlsPeer};

/// One client connection after its handshake.
pub(super) struct Connection {
    pub(super) gate: Rc<Gate>,
    pub(super) ending: Rc<Ending>,
    pub(super) listener: ListenerKey,
    /// What its handshake showed; `None` without TLS.
    peer: Option<TlsPeer>,
    /// Where its certificates are, for as long as HTTP is spoken over TLS.
    session: OnceCell<Session>,
    pub(super) is_resumed: bool,
    negotiated: Negotiated,
    pub(super) sni: Option<Arc<str>>,
    /// Where the client has reached the gate, if it asked for no name.
    reached: Option<IpAddr>,
    /// The certificate of the gate's own that it was shown; `None` without TLS.
    certificate: Option<Arc<ServerCertificate>>,
    pub(super) version: Version,
    pub(super) client: SocketAddr,
    /// The same as requests tell it, once one does.
    peer_address: OnceCell<PeerAddress>,
    pub(super) arrival: Arrival,
    /// Requests begun on it.
    requests: Cell<u64>,
    pub(super) request_ids: ConnectionIds,
    view: RefCell<Option<Rc<View>>>,
    /// The host that it was asked for last.
    pub(super) host: RefCell<Option<Arc<str>>>,
    /// What requests wait with that come one after the other.
    pub(super) alarm: RefCell<Alarm>,
    pub(super) tunnels: Tunnels,
}

/// The client as one generation sees it; the same for all requests until the next generation.
pub(super) struct View {
    pub(super) served: Rc<Served>,
    /// Index of the connection's listener, while the generation has it.
    pub(super) listener: Option<usize>,
    /// Where decisions are made that no rule makes.
    pub(super) scope: Arc<Scope>,
    pub(super) caller: Caller,
    /// Why the client would not be let in any more, if it would not.
    pub(super) standing: Option<Reason>,
    /// `None` without TLS.
    pub(super) peer: Option<Arc<Peer>>,
    /// What rules tell the application of it.
    told: Told,
}

/// How a client comes in.
#[derive(Clone)]
pub enum Door {
    /// Without TLS.
    Open,
    /// By a handshake.
    Tls(Rc<Slots>),
}

/// When a connection was accepted.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) time: SystemTime,
    pub(super) started: Instant,
}

/// Serves one accepted socket to its end. Nothing of it is left behind but rows.
pub async fn serve(
    gate: Rc<Gate>,
    listener: ListenerKey,
    door: Door,
    stream: TcpStream,
    client: SocketAddr,
    closing: Closing,
) {
    let arrival = Arrival { time: SystemTime::now(), started: Instant::now() };
    let Some(_gauge) = gate.handshakes.open_one(connection_limit(&gate)) else {
        let refusal = Refusal { kind: Kind::Connection, client, arrival, peer: None, sni: &None };
        refuse(&gate, &listener, &refusal, Reason::LimitConnections);
        return;
    };
    match door {
        Door::Open => plain(gate, listener, stream, client, arrival, closing).await,
        Door::Tls(slots) => secured(gate, listener, slots, stream, client, arrival, closing).await,
    }
}

/// A connection without TLS: HTTP from its first byte, and nobody has a certificate.
async fn plain(
    gate: Rc<Gate>,
    listener: ListenerKey,
    stream: TcpStream,
    client: SocketAddr,
    arrival: Arrival,
    closing: Closing,
) {
    let begun = protocol::first_version(&stream, closing.clone()).await;
    let connection = Rc::new(Connection {
        request_ids: gate.request_ids.connection(),
        gate,
        ending: Rc::default(),
        listener,
        peer: None,
        session: OnceCell::new(),
        reached: None,
        certificate: None,
        is_resumed: false,
        negotiated: Negotiated::default(),
        sni: None,
        version: begun.unwrap_or(Version::Http1),
        client,
        peer_address: OnceCell::new(),
        arrival,
        requests: Cell::new(0),
        view: RefCell::default(),
        host: RefCell::default(),
        alarm: RefCell::default(),
        tunnels: Tunnels::default(),
    });
    match begun {
        Ok(_) => {
            let place = Live::enter(&connection);
            connection.run(stream, closing).await;
            drop(place);
        }
        Err(NoRequest::Timeout) => connection.no_request(Reason::ClientTimeout, Some(408)),
        Err(NoRequest::Closed) => drop(count_refused(&connection.gate, &connection.listener, None)),
        Err(NoRequest::Closing) => {}
    }
}

async fn secured(
    gate: Rc<Gate>,
    listener: ListenerKey,
    slots: Rc<Slots>,
    stream: TcpStream,
    client: SocketAddr,
    arrival: Arrival,
    closing: Closing,
) {
    // In boxes, the handshake and then its stream: what a future holds at any time, its task has room for at all times, and
    // an idle connection is to be small.
    let accepted = match Box::pin(tls::accept(stream, &slots, &gate.handshake_turns)).await {
        Ok(accepted) => accepted,
        Err(failure) => return refuse_handshake(&gate, &listener, client, arrival, *failure).await,
    };
    gate.handshakes.complete(accepted.is_resumed, accepted.is_known);
    let connection = Rc::new(Connection {
        negotiated: negotiated(&accepted.stream),
        request_ids: gate.request_ids.connection(),
        gate,
        ending: Rc::default(),
        is_resumed: accepted.is_resumed,
        listener,
        peer: Some(accepted.peer),
        session: OnceCell::new(),
        sni: accepted.sni,
        reached: accepted.reached,
        certificate: Some(accepted.certificate),
        version: Version::of_alpn(accepted.stream.get_ref().1.alpn_protocol()),
        client,
        peer_address: OnceCell::new(),
        arrival,
        requests: Cell::new(0),
        view: RefCell::default(),
        host: RefCell::default(),
        alarm: RefCell::default(),
        tunnels: Tunnels::default(),
    });
    // The slots belong to a generation, which a connection does not hold on to.
    drop(slots);
    let place = Live::enter(&connection);
    match connection.listener.protocol {
        Protocol::Tls => Box::pin(tcp::serve(connection, accepted.stream)).await,
        Protocol::Http | Protocol::Https => {
            let stream = SessionStream::new(accepted.stream);
            // Nobody else sets it.
            let _new = connection.session.set(stream.session());
            connection.run(stream, closing).await;
        }
    }
    drop(place);
}

async fn refuse_handshake(
    gate: &Gate,
    listener: &ListenerKey,
    client: SocketAddr,
    arrival: Arrival,
    failure: tls::Failure,
) {
    let Some(reason) = failure.reason else {
        count_refused(gate, listener, None);
        return;
    };
    let elapsed_us = microseconds(arrival.started.elapsed());
    tracing::debug!(%client, %reason, elapsed_us, "handshake refused");
    let refusal = Refusal { kind: Kind::Handshake, client, arrival, peer: Some(&failure.peer), sni: &failure.sni };
    refuse(gate, listener, &refusal, reason);
    failure.linger().await;
}

fn connection_limit(gate: &Gate) -> usize {
    gate.served().generation.limits.connections
}

/// A connection that got no request through.
struct Refusal<'a> {
    kind: Kind,
    client: SocketAddr,
    arrival: Arrival,
    peer: Option<&'a TlsPeer>,
    sni: &'a Option<Arc<str>>,
}

fn refuse(gate: &Gate, listener: &ListenerKey, refusal: &Refusal<'_>, reason: Reason) {
    let scope = count_refused(gate, listener, Some(reason));
    let mut record = blank(refusal.kind, refusal.client);
    record.fail(reason);
    record.time = refusal.arrival.time;
    record.duration_us = microseconds(refusal.arrival.started.elapsed());
    record.scope = Some(scope).filter(|scope| scope.listener.is_some());
    record.peer = refusal.peer.map(identity::logged_unresolved);
    record.sni.clone_from(refusal.sni);
    gate.log.send(Box::new(record));
}

/// Counts a handshake or a connection that came to nothing; where that was.
fn count_refused(gate: &Gate, listener: &ListenerKey, reason: Option<Reason>) -> Arc<Scope> {
    let generation = &gate.served().generation;
    let scope = listener_scope(generation, generation.listener(listener));
    gate.count(&scope, Outcome::refused(Event::Refused, reason), &Amount::default());
    scope
}

/// Where decisions are made at a listener that no rule makes.
fn listener_scope(generation: &Generation, listener: Option<usize>) -> Arc<Scope> {
    let scope = listener.and_then(|index| generation.listener_scopes.get(index)).cloned();
    scope.unwrap_or_else(|| Arc::new(Scope::new(ScopeFacts::default())))
}

fn negotiated(stream: &TlsStream<TcpStream>) -> Negotiated {
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
        Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
        _ => None,
    };
    Negotiated { version, cipher: session.negotiated_cipher_suite().and_then(|suite| cipher(suite.suite())) }
}

/// The suite's name in the IANA registry; rustls has names of its own for TLS 1.3.
fn cipher(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.as_str(),
    }
}

impl Connection {
    async fn run(self: Rc<Self>, stream: impl Duplex + 'static, closing: Closing) {
        let connection = Rc::clone(&self);
        let handler = move |request| {
            connection.requests.set(connection.requests.get() + 1);
            // In a box of its own: hyper keeps room for it with each connection, and moves it about.
            Box::pin(handle(Rc::clone(&connection), request))
        };
        match protocol::serve(stream, self.version, handler, closing, Rc::clone(&self.ending)).await {
            Err(ServeError::Malformed { status, source }) => {
                tracing::debug!(client = %self.client, error = %source, "not valid HTTP");
                self.no_request(Reason::ClientMalformed, status);
            }
            // A connection that has served and then idled has nothing to be blamed for.
            Err(ServeError::Timeout) if self.requests.get() == 0 => self.no_request(Reason::ClientTimeout, Some(408)),
            Err(ServeError::Broken(error)) => tracing::debug!(client = %self.client, %error, "connection broke"),
            Err(ServeError::Timeout) | Ok(()) => {}
        }
    }

    /// The first second since the epoch in which the client's certificate, or one above it, has expired.
    pub(super) fn expires(&self) -> Option<u64> {
        self.peer.as_ref()?.path.as_ref().map(|path| path.expires())
    }

    /// When the certificate expires that it was shown, if a new connection would be shown another one.
    pub(super) fn replaced(&self) -> Option<u64> {
        let generation = &self.gate.served().generation;
        let listener = generation.snapshot.listeners.get(generation.listener(&self.listener)?)?;
        let server = generation.snapshot.server.as_ref()?;
        // Who would be shown none any more has nowhere to move to.
        let now = server
            .choose(&listener.certificates, self.sni.as_deref(), self.reached, listener.unknown_server_name)
            .ok()?;
        let (shown, now) = (self.certificate.as_ref()?.facts()?, server.certificates.get(now)?.facts()?);
        (shown.sha256 != now.sha256).then(|| u64::try_from(shown.not_after).unwrap_or(0).saturating_add(1))
    }

    /// Ends it now, with a row that says why.
    pub(super) fn cut(&self, reason: Reason) {
        if !self.ending.cut(reason) {
            return;
        }
        let view = self.view();
        let mut record = blank(Kind::Cut, self.client);
        record.verdict = Verdict::Refused;
        record.fail(reason);
        record.duration_us = microseconds(self.arrival.started.elapsed());
        record.scope = Some(Arc::clone(&view.scope));
        record.peer.clone_from(&view.peer);
        record.sni.clone_from(&self.sni);
        record.resumed = self.is_resumed;
        record.protocol = (self.listener.protocol != Protocol::Tls).then(|| self.version.name());
        self.gate.count(&view.scope, Outcome::refused(Event::Cut, Some(reason)), &Amount::default());
        self.gate.log.send(Box::new(record));
    }

    /// The row of a request that never became one.
    fn no_request(&self, reason: Reason, status: Option<u16>) {
        let view = self.view();
        let mut record = blank(Kind::Request, self.client);
        record.verdict = Verdict::Refused;
        record.fail(reason);
        record.status = status;
        record.scope = Some(Arc::clone(&view.scope));
        record.peer.clone_from(&view.peer);
        record.sni.clone_from(&self.sni);
        record.resumed = self.is_resumed;
        record.protocol = Some(self.version.name());
        self.gate.count(&view.scope, Outcome::refused(Event::Request, Some(reason)), &Amount::default());
        self.gate.log.send(Box::new(record));
    }

    /// Who is at its other end, as requests tell it.
    pub(super) fn peer_address(&self) -> &PeerAddress {
        self.peer_address.get_or_init(|| PeerAddress::of(self.client.ip()))
    }

    /// Whether what is asked on it comes over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.listener.protocol == Protocol::Https
    }

    /// Whether a host is another certificate's than the one that this connection was opened with.
    pub(super) fn is_misdirected(&self, view: &View, host: &str) -> bool {
        let snapshot = &view.served.generation.snapshot;
        let listener = view.listener.and_then(|index| snapshot.listeners.get(index));
        let (Some(server), Some(shown), Some(listener)) = (&snapshot.server, &self.certificate, listener) else {
            return false;
        };
        server.is_misdirected(&listener.certificates, shown, host, listener.unknown_server_name)
    }

    /// Why what it carries would not be let in any more, if it would not. What is asked on it is decided each time; what
    /// is passed on as it comes was decided once.
    pub(super) fn refusal(&self) -> Option<Reason> {
        let view = self.view();
        let is_forwarded = self.listener.protocol == Protocol::Tls && view.listener.is_some();
        view.caller.revoked.or_else(|| if is_forwarded { tcp::refusal(self, &view) } else { None })
    }

    /// The client as the generation that is served now sees it.
    pub(super) fn view(&self) -> Rc<View> {
        let served = self.gate.served();
        let mut cached = self.view.borrow_mut();
        match &*cached {
            Some(view) if Rc::ptr_eq(&view.served, &served) => Rc::clone(view),
            _ => {
                let view = Rc::new(self.look(served));
                *cached = Some(Rc::clone(&view));
                view
            }
        }
    }

    /// What a rule tells the application of the client; nothing of one whose certificate nobody vouches for.
    pub(super) fn told(&self, view: &View, headers: &Arc<IdentityHeaders>) -> Rc<Fields> {
        view.told.fields(headers, |headers| {
            let snapshot = &view.served.generation.snapshot;
            let bundles: Vec<_> = view.caller.bundles.iter().filter_map(|index| snapshot.bundles.get(*index)).collect();
            let facts = self.peer.as_ref().and_then(|peer| peer.facts.as_deref());
            let Some(facts) = facts.filter(|_| !bundles.is_empty()) else { return Ok(Vec::new()) };
            let identity = match view.caller.who {
                Who::Known(index) => snapshot.directory.name(index).map(|name| &**name),
                Who::Unknown | Who::Ambiguous => None,
            };
            let session = self.session.get();
            let fields = session.and_then(|session| {
                session.chain(|chain| {
                    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
                    headers.of_client(&Client { chain: &chain, facts, identity, bundles: &bundles })
                })
            });
            // A client with a certificate has a session; were it gone, nothing could be said, and silence would be a lie.
            fields.unwrap_or(Err(Reason::PolicyIdentityUnwritable))
        })
    }

    fn look(&self, served: Rc<Served>) -> View {
        let generation = &served.generation;
        let snapshot = &generation.snapshot;
        let listener = generation.listener(&self.listener);
        let context = listener.and_then(|index| generation.tls.get(index)?.as_ref());
        // Without its listener no rule serves the connection either.
        let standing = context.zip(self.peer.as_ref()).map(|(context, peer)| context.standing(peer));
        let standing = standing.unwrap_or_default();
        let caller = self.peer.as_ref().map(|peer| identity::resolve(snapshot, &standing, peer));
        let caller = caller.unwrap_or(Caller::ANONYMOUS);
        let peer = self.peer.as_ref().map(|peer| identity::logged(snapshot, peer, &caller, self.negotiated));
        let scope = listener_scope(generation, listener);
        View { listener, scope, caller, standing: standing.refused, peer, told: Told::default(), served }
    }
}
