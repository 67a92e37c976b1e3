//! The chain over rows: each row's hash covers the one before and what the view `requests` says of the row, so that a row
//! that is changed, put in or taken out is found. Pure.
//!
//! What is hashed is written down in docs/request-log.md, for whoever wants to verify it by other means.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use sidecar_config::settings::Pod;
use sidecar_decide::filter::RequestId;
use time::OffsetDateTime;

use super::encode::{Row, count_of, micros, row_id};
use super::ids::{PEER_COLUMNS, SCOPE_COLUMNS, peer_values, scope_values};
use super::record::{Client, Interned, Kind, PeerFacts, ScopeFacts, clipped};
use crate::message_type::Message;

/// Bytes of a hash that are kept: a row costs 16 more. Whoever wants to change a row has to find another with its hash.
const BYTES: usize = 16;

/// Digests of scopes and peers that are kept, each; beyond it they are made again.
const KEPT: usize = 2048;

/// A row's hash.
pub(super) type Hash = [u8; BYTES];

/// How hashes are made: with a key, only who has it can.
#[derive(Clone)]
pub struct Chain {
    key: Option<hmac::Key>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.key.is_some() { "Chain(keyed)" } else { "Chain" })
    }
}

/// What a hash is about, so that one of a kind is never taken for another's.
#[derive(Clone, Copy)]
#[repr(u8)]
enum About {
    Begin = b'B',
    Anew = b'A',
    Row = b'R',
    Removed = b'D',
    End = b'E',
}

impl Chain {
    /// With these bytes as its key, if any.
    #[must_use]
    pub fn new(secret: Option<&[u8]>) -> Self {
        Self { key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)) }
    }

    /// What the first row is chained to, behind row `last` of a store.
    pub(super) fn begin(&self, store: i64, last: i64) -> Hash {
        self.hash(About::Begin, &[&store.to_be_bytes(), &last.to_be_bytes()])
    }

    /// What the first row is chained to where there was a chain before, whose end is not what it was.
    pub(super) fn anew(&self, store: i64, last: i64) -> Hash {
        self.hash(About::Anew, &[&store.to_be_bytes(), &last.to_be_bytes()])
    }

    /// A row's hash, behind that of the row before.
    pub(super) fn next(&self, before: &Hash, row: &[u8]) -> Hash {
        self.hash(About::Row, &[before, row])
    }

    /// Says that the log itself has deleted these rows, of which the last has this hash.
    pub(super) fn removed(&self, store: i64, first: i64, last: i64, hash: &Hash) -> Hash {
        let [store, first, last] = [store, first, last].map(i64::to_be_bytes);
        self.hash(About::Removed, &[&store, &first, &last, hash])
    }

    /// Says that the newest row is `last`, with this hash.
    pub(super) fn end(&self, store: i64, last: i64, hash: &Hash) -> Hash {
        self.hash(About::End, &[&store.to_be_bytes(), &last.to_be_bytes(), hash])
    }

    fn hash(&self, about: About, parts: &[&[u8]]) -> Hash {
        let about = [about as u8];
        let mut hash = Hash::default();
        match &self.key {
            None => {
                let mut context = digest::Context::new(&digest::SHA256);
                context.update(&about);
                parts.iter().for_each(|part| context.update(part));
                hash.copy_from_slice(&context.finish().as_ref()[..BYTES]);
            }
            Some(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(&about);
                parts.iter().for_each(|part| context.update(part));
                hash.copy_from_slice(&context.sign().as_ref()[..BYTES]);
            }
        }
        hash
    }
}

/// With what a column is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// With the others that are the row's own.
    Own,
    /// With what many rows have in common: their digest is a column of the row.
    Scope,
    /// The same of who asked.
    Peer,
}

impl Part {
    /// Of a column of the view.
    pub(super) fn of(name: &str) -> Self {
        match name {
            scope if SCOPE_COLUMNS.contains(&scope) => Self::Scope,
            peer if PEER_COLUMNS.contains(&peer) => Self::Peer,
            _ => Self::Own,
        }
    }
}

/// A row in the form that is hashed: `name=LENGTH:value` and a line feed for each column that is not NULL.
#[derive(Debug, Default)]
pub(super) struct Text {
    own: Vec<u8>,
    scope: Vec<u8>,
    peer: Vec<u8>,
}

impl Text {
    /// Adds a column, in the order of the view.
    pub(super) fn column(&mut self, part: Part, name: &str, value: &[u8]) {
        let text = match part {
            Part::Own => &mut self.own,
            Part::Scope => &mut self.scope,
            Part::Peer => &mut self.peer,
        };
        column(text, name, value);
    }

    /// The row, and what the next one is made in.
    pub(super) fn hashed<T>(&mut self, hash: impl FnOnce(&[u8]) -> T) -> T {
        column(&mut self.own, "scope", digest::digest(&digest::SHA256, &self.scope).as_ref());
        column(&mut self.own, "peer", digest::digest(&digest::SHA256, &self.peer).as_ref());
        let hashed = hash(&self.own);
        [&mut self.own, &mut self.scope, &mut self.peer].into_iter().for_each(Vec::clear);
        hashed
    }
}

fn column(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    decimal(text, value.len() as u64);
    text.push(b':');
    text.extend_from_slice(value);
    text.push(b'\n');
}

/// Adds a number's digits.
pub(super) fn decimal(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[first..]);
}

/// The end of the chain, to which rows are added.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) chain: Chain,
    pub(super) store: i64,
    /// Hash of the newest row.
    pub(super) last: Hash,
    pod: Pod,
    scopes: Digests<ScopeFacts>,
    peers: Digests<PeerFacts>,
    text: Vec<u8>,
    value: Vec<u8>,
    /// The second that was written last, and how.
    second: (i64, String),
}

impl Links {
    /// Of a store whose newest row has this hash.
    pub(super) fn new(chain: Chain, store: i64, last: Hash, pod: Pod) -> Self {
        let second = (i64::MIN, String::new());
        let (scopes, peers) = (Digests::default(), Digests::default());
        Self { chain, store, last, pod, scopes, peers, text: Vec::new(), value: Vec::new(), second }
    }

    /// Adds a row; its hash.
    pub(super) fn add(&mut self, row: &Row<'_>) -> Hash {
        self.text.clear();
        self.write(row);
        let scope = row.record.scope.as_ref();
        let scope = self.scopes.of(scope, |scope| named(&SCOPE_COLUMNS, &scope_values(&self.pod, scope)));
        let peer = self.peers.of(row.record.peer.as_ref(), |peer| named(&PEER_COLUMNS, &peer_values(peer)));
        column(&mut self.text, "scope", &scope);
        column(&mut self.text, "peer", &peer);
        self.last = self.chain.next(&self.last, &self.text);
        self.last
    }

    /// All columns that are the row's own, in the order of the view and as it shows them.
    fn write(&mut self, row: &Row<'_>) {
        let record = row.record;
        let at = micros(record.time);
        self.shown("id", &row_id(self.store, row.seq, record.time));
        self.time(at);
        self.text("kind", record.kind.name());
        self.number("repeat", count_of(record.repeat));
        self.some_text("sni", record.sni.as_deref());
        if record.kind != Kind::Gap {
            self.text("verdict", record.verdict.name());
        }
        self.some_text("reason", record.reason.map(|reason| reason.code()));
        self.some_text("limiter", record.limiter.map(|limiter| limiter.name()));
        self.number("resumed", i64::from(record.resumed));
        self.some_text("protocol", record.protocol);
        self.some_text("method", record.method.as_ref().map(http::Method::as_str));
        self.some_text("host", record.host.as_deref());
        self.some_text("path", record.path.as_deref());
        self.some_number("status", record.status.map(i64::from));
        self.some_number("grpc_status", record.grpc_status.map(i64::from));
        self.number("request_bytes", count_of(record.request_bytes));
        self.number("response_bytes", count_of(record.response_bytes));
        self.number("duration_us", count_of(record.duration_us));
        self.some_number("queue_us", record.queue_us.map(count_of));
        self.some_number("connect_us", record.connect_us.map(count_of));
        self.some_number("upstream_us", record.upstream_us.map(count_of));
        if let Some(upstream) = record.upstream {
            self.shown("upstream", &upstream);
        }
        self.number("attempts", i64::from(record.attempts));
        match &record.request_id {
            None => {}
            Some(RequestId::Told(told)) => self.text("request_id", told),
            Some(own) => self.shown("request_id", own),
        }
        if let Some(trace_id) = record.trace_id {
            self.shown("trace_id", &format_args!("{:032x}", u128::from_be_bytes(trace_id)));
        }
        self.some_text("message_type", record.message_type.as_ref().map(Message::name));
        match row.client {
            None => {}
            Some(Client::Address(address)) => self.shown("client_addr", &address),
            Some(Client::Network(network)) => self.shown("client_addr", &network),
        }
        self.some_text("captured", record.captured.as_deref());
        self.some_bytes("bodies", row.bodies);
    }

    fn text(&mut self, name: &str, value: &str) {
        column(&mut self.text, name, clipped(value).as_bytes());
    }

    fn some_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// As the view shows them; none is as if there were none.
    fn some_bytes(&mut self, name: &str, value: Option<&[u8]>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let Some(bytes) = value.filter(|bytes| !bytes.is_empty()) else { return };
        self.value.clear();
        self.value.extend_from_slice(b"\\x");
        for byte in bytes {
            self.value.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        column(&mut self.text, name, &self.value);
    }

    fn number(&mut self, name: &str, value: i64) {
        self.value.clear();
        decimal(&mut self.value, value.unsigned_abs());
        column(&mut self.text, name, &self.value);
    }

    fn some_number(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    fn shown(&mut self, name: &str, value: &dyn fmt::Display) {
        self.value.clear();
        let _memory_takes_it = write!(self.value, "{value}");
        column(&mut self.text, name, &self.value);
    }

    fn time(&mut self, at: i64) {
        let (second, fraction) = (at / 1_000_000, at % 1_000_000);
        if self.second.0 != second {
            self.second = (second, written(second));
        }
        // SQLite writes no year of five digits.
        if !self.second.1.is_empty() {
            let text = std::mem::take(&mut self.second.1);
            self.shown("time", &format_args!("{text}.{fraction:06}Z"));
            self.second.1 = text;
        }
    }
}

/// A second as the view writes it.
fn written(second: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(second) else { return String::new() };
    let (date, clock) = (time.date(), time.time());
    let (month, day) = (u8::from(date.month()), date.day());
    let (hour, minute, second) = (clock.hour(), clock.minute(), clock.second());
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", date.year())
}

fn named(names: &[&str], values: &[Option<&str>]) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in names.iter().zip(values) {
        if let Some(value) = value {
            column(&mut text, name, clipped(value).as_bytes());
        }
    }
    text
}

/// SHA-256 of what many rows have in common.
#[derive(Debug)]
struct Digests<T> {
    kept: HashMap<Arc<Interned<T>>, [u8; 32]>,
}

impl<T> Default for Digests<T> {
    fn default() -> Self {
        Self { kept: HashMap::new() }
    }
}

impl<T: Eq + std::hash::Hash> Digests<T> {
    fn of(&mut self, facts: Option<&Arc<Interned<T>>>, text: impl FnOnce(&Interned<T>) -> Vec<u8>) -> [u8; 32] {
        if let Some(known) = facts.and_then(|facts| self.kept.get(facts)) {
            return *known;
        }
        let text = facts.map_or_else(Vec::new, |facts| text(facts));
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
        if let Some(facts) = facts {
            if self.kept.len() >= KEPT {
                self.kept.clear();
            }
            self.kept.insert(Arc::clone(facts), bytes);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_that_are_kept_are_bounded_and_made_again_as_they_were() {
        let mut digests = Digests::default();
        let text = |peer: &Interned<PeerFacts>| named(&PEER_COLUMNS, &peer_values(peer));
        for number in (0..=KEPT).chain(0..10) {
            let subject = Some(format!("CN={number}").into());
            let peer = Arc::new(Interned::new(PeerFacts { subject, ..PeerFacts::default() }));
            let expected = digest::digest(&digest::SHA256, &text(&peer));
            assert_eq!(digests.of(Some(&peer), text), expected.as_ref(), "{number}");
            assert!(digests.kept.len() <= KEPT, "{} after {number}", digests.kept.len());
        }
    }
}
