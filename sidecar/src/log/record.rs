//! One decision as the request path hands it over, and the two parts of it that many decisions share.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use sha2::{Digest, Sha256};
use sidecar_config::settings::ClientAddress;
use sidecar_decide::filter::RequestId;
use sidecar_decide::{Limiter, Reason, Verdict};

use super::bodies::Bodies;
use crate::message_type::Message;
use crate::metrics::Counted;

/// Bytes of one text that are kept: a client chooses its path, host and names, and must not choose the log's memory.
pub const TEXT_MAX: usize = 2048;

/// What a row says for whose captures there was no room.
const TRUNCATED: &str = r#"{"truncated":true}"#;

/// One decision. Sent boxed, so that a place in the queue is a pointer.
#[derive(Clone, Debug)]
pub struct Record {
    /// Wall clock when what was decided about began.
    pub time: SystemTime,
    /// What was decided about.
    pub kind: Kind,
    /// Decisions it stands for: none for a gap, several where refusals share a row.
    pub repeat: u64,
    /// The decision; not shown for a gap.
    pub verdict: Verdict,
    /// Why it was refused, or why an allowed request failed.
    pub reason: Option<Reason>,
    /// Which limit the reason is about, if it is about one.
    pub limiter: Option<Limiter>,
    /// Where it was decided; absent for a gap.
    pub scope: Option<Arc<Scope>>,
    /// Who asked; absent where there is no fact of TLS at all.
    pub peer: Option<Arc<Peer>>,
    /// The server name the client asked for.
    pub sni: Option<Arc<str>>,
    /// Whether the TLS session was resumed.
    pub resumed: bool,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: Option<&'static str>,
    /// The request's method.
    pub method: Option<Method>,
    /// The request's authority.
    pub host: Option<Arc<str>>,
    /// The request's path, without its query.
    pub path: Option<Box<str>>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// How a gRPC request ended, as its client was told.
    pub grpc_status: Option<u8>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// From the beginning to the end of what was decided about.
    pub duration_us: u64,
    /// Time that it had to wait until its turn came, where it had to.
    pub queue_us: Option<u64>,
    /// Time until a connection to the upstream was there, where one was made.
    pub connect_us: Option<u64>,
    /// Time until the upstream's response head.
    pub upstream_us: Option<u64>,
    /// The upstream's address.
    pub upstream: Option<SocketAddr>,
    /// How often the request was sent to an upstream.
    pub attempts: u8,
    /// The request's id, as the application was told it.
    pub request_id: Option<RequestId>,
    /// The trace the request belongs to.
    pub trace_id: Option<[u8; 16]>,
    /// What the request was about, where that is known.
    pub message_type: Option<Message>,
    /// What its route says is to be captured of its head: JSON of at most [`TEXT_MAX`] bytes.
    pub captured: Option<Box<str>>,
    /// What is kept of its bodies.
    pub bodies: Option<Arc<Bodies>>,
    /// Where the client is; absent for a gap, and for refusals of clients too many to tell apart.
    pub client_addr: Option<Client>,
}

impl Record {
    /// A row that knows nothing yet, and so is a refusal.
    #[must_use]
    pub fn new(kind: Kind, time: SystemTime) -> Self {
        Self {
            time,
            kind,
            repeat: u64::from(kind != Kind::Gap),
            verdict: Verdict::Refused,
            reason: None,
            limiter: None,
            scope: None,
            peer: None,
            sni: None,
            resumed: false,
            protocol: None,
            method: None,
            host: None,
            path: None,
            status: None,
            grpc_status: None,
            request_bytes: 0,
            response_bytes: 0,
            duration_us: 0,
            queue_us: None,
            connect_us: None,
            upstream_us: None,
            upstream: None,
            attempts: 0,
            request_id: None,
            trace_id: None,
            message_type: None,
            captured: None,
            bodies: None,
            client_addr: None,
        }
    }

    /// Notes why it was refused or failed, and the limit that the reason is about.
    pub fn fail(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.limiter = reason.limiter();
    }

    /// Bytes of what is captured of its head.
    pub(super) fn captured_bytes(&self) -> usize {
        self.captured.as_ref().map_or(0, |text| text.len())
    }

    /// Goes without what is captured, and says so.
    pub(super) fn forget_captured(&mut self) {
        self.captured = Some(TRUNCATED.into());
    }

    /// Whether it is a refusal that anybody can cause, as often as he likes, without being known to anyone.
    pub(super) fn is_before_authentication(&self) -> bool {
        self.verdict == Verdict::Refused && matches!(self.kind, Kind::Handshake | Kind::Connection)
    }

    /// Whether it is a refusal of a client that nothing vouches for: such rows have a part of the store to themselves.
    pub(super) fn is_strangers(&self) -> bool {
        let is_vouched_for = self.peer.as_ref().is_some_and(|peer| peer.bundle.is_some());
        self.is_before_authentication()
            || (self.verdict == Verdict::Refused && self.kind == Kind::Request && !is_vouched_for)
    }
}

/// One client, or the network in which several are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Its address and port.
    Address(SocketAddr),
    /// The network of several.
    Network(Network),
}

impl Client {
    /// What of it may be told.
    #[must_use]
    pub fn told(self, how: ClientAddress) -> Option<Self> {
        match (how, self) {
            (ClientAddress::None, _) => None,
            (ClientAddress::Network, Self::Address(address)) => Some(Self::Network(Network::of(address.ip()))),
            (ClientAddress::Full, _) | (ClientAddress::Network, Self::Network(_)) => Some(self),
        }
    }
}

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// A network of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// A /24: its first 24 bits.
    V4(u32),
    /// A /48: its first 48 bits.
    V6(u64),
}

impl Network {
    /// The network of a client: what one customer or one subscriber usually has.
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits() >> 8),
            IpAddr::V6(v6) => Self::V6(u64::try_from(v6.to_bits() >> 80).unwrap_or_default()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(bits) => write!(f, "{}/24", Ipv4Addr::from_bits(bits << 8)),
            Self::V6(bits) => write!(f, "{}/48", Ipv6Addr::from_bits(u128::from(*bits) << 80)),
        }
    }
}

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One HTTP request.
    Request,
    /// A TLS handshake that did not become a connection.
    Handshake,
    /// A connection that was closed before its handshake.
    Connection,
    /// A request that was upgraded, and the bytes that followed it.
    Tunnel,
    /// A connection that was open and was ended, because it would not be let in any more or its time was over.
    Cut,
    /// Not a decision: here the process died and rows may be missing.
    Gap,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Request, Self::Handshake, Self::Connection, Self::Tunnel, Self::Cut, Self::Gap];

    /// The word in rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Handshake => "handshake",
            Self::Connection => "connection",
            Self::Tunnel => "tunnel",
            Self::Cut => "cut",
            Self::Gap => "gap",
        }
    }
}

/// Where a decision was made; one value per snapshot and rule.
pub type Scope = Interned<ScopeFacts>;

/// Who asked; one value per handshake.
pub type Peer = Interned<PeerFacts>;

/// What a [`Scope`] knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeFacts {
    /// Name of the listener.
    pub listener: Option<Box<str>>,
    /// The route, `namespace/name`, once one matched.
    pub route: Option<Box<str>>,
    /// The rule's name, once one matched.
    pub rule: Option<Box<str>>,
    /// The rule's mode, in the policy's words.
    pub mode: Option<&'static str>,
    /// Revision of the policy that decided.
    pub policy_revision: Option<Box<str>>,
    /// Where metrics count what is decided here; nothing of it is in a row.
    pub counted: Counted,
}

/// What a [`Peer`] knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerFacts {
    /// The identity, where the certificate is a known one's.
    pub identity: Option<Box<str>>,
    /// The bundle that ended the chain.
    pub bundle: Option<Box<str>>,
    /// The certificate's subject.
    pub subject: Option<Box<str>>,
    /// Its subject alternative names.
    pub san: Option<Box<str>>,
    /// Its issuer.
    pub issuer: Option<Box<str>>,
    /// Its serial number.
    pub serial: Option<Box<str>>,
    /// SHA-256 of the certificate.
    pub fingerprint: Option<Box<str>>,
    /// SHA-256 of its public key.
    pub spki: Option<Box<str>>,
    /// The IEEE 2030.5 long-form device identifier.
    pub lfdi: Option<Box<str>>,
    /// The IEEE 2030.5 short-form device identifier.
    pub sfdi: Option<Box<str>>,
    /// The version that was negotiated.
    pub tls_version: Option<&'static str>,
    /// The cipher suite that was negotiated.
    pub cipher: Option<&'static str>,
}

/// Facts with their hash, computed once: the writer finds the row of a value it has seen by 8 bytes and a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interned<T> {
    // First, because the derived comparison goes in this order and a different hash ends it.
    hash: u64,
    facts: T,
}

impl<T: Hash> Interned<T> {
    /// Computes the hash of `facts`.
    #[must_use]
    pub fn new(facts: T) -> Self {
        let mut digest = StableHasher(Sha256::new());
        facts.hash(&mut digest);
        Self { hash: digest.finish(), facts }
    }
}

impl<T> Interned<T> {
    /// The same for the same facts in every run, so that the store finds the row an earlier run made.
    pub(super) fn stable_hash(&self) -> u64 {
        self.hash
    }
}

impl<T> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.facts
    }
}

impl<T> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// `text`, cut at [`TEXT_MAX`] bytes; what was cut ends in an ellipsis.
#[must_use]
pub fn clip(text: &str) -> Box<str> {
    match clipped(text) {
        whole if whole.len() == text.len() => whole.into(),
        cut => format!("{cut}…").into_boxed_str(),
    }
}

/// The same of a text that others have too.
#[must_use]
pub fn clip_shared(text: &Arc<str>) -> Arc<str> {
    if clipped(text).len() == text.len() { Arc::clone(text) } else { clip(text).into() }
}

/// At most [`TEXT_MAX`] bytes of `text` and the ellipsis [`clip`] adds.
pub(super) fn clipped(text: &str) -> &str {
    const ELLIPSIS: usize = '…'.len_utf8();
    if text.len() <= TEXT_MAX + ELLIPSIS { text } else { &text[..text.floor_char_boundary(TEXT_MAX)] }
}

/// SHA-256 as a hasher: the standard one's result may change with a release.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }
}
