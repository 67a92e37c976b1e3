//! A record as the row of table `decision`, or of `refusal`: pure.

use std::borrow::Cow;
use std::ffi::CStr;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::chain::Hash;
use super::ids::{PEER_COLUMNS, RowIds, peer_values};
use super::insert::{Blob, Value};
use crate::message_type::Message;
use sidecar_decide::Verdict;
use sidecar_decide::filter::{RequestId, Uuid7};

use super::record::{Client, Kind, Record, clipped};

/// Inserts one row of [`encode`].
pub(super) const INSERT_SQL: &CStr = c"INSERT INTO decision (seq, time, kind, repeat, verdict, reason, scope, peer, sni, resumed, \
     protocol, method, host, path, status, request_bytes, response_bytes, duration_us, connect_us, upstream_us, upstream, \
     attempts, client, request_id, trace_id, queue_us, grpc_status, limiter, message_type, chain, captured, bodies) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Inserts one row of [`encode_refusal`].
pub(super) const INSERT_REFUSAL_SQL: &CStr = c"INSERT INTO refusal (seq, time, kind, repeat, verdict, reason, scope, sni, \
     resumed, protocol, method, host, path, status, request_bytes, response_bytes, duration_us, connect_us, upstream_us, \
     upstream, attempts, client, request_id, trace_id, queue_us, grpc_status, limiter, message_type, chain, captured, bodies, identity, bundle, subject, san, issuer, serial, fingerprint, \
     spki, lfdi, sfdi, tls_version, cipher) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const COLUMNS: usize = 32;

/// Where `decision` refers to the peer; `refusal` has it in the row instead.
const PEER: usize = 7;

/// A row in the making.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) record: &'a Record,
    pub(super) ids: &'a RowIds,
    pub(super) seq: i64,
    /// What may be told of where its client is.
    pub(super) client: Option<Client>,
    /// What is kept of its bodies, sealed.
    pub(super) bodies: Option<&'a [u8]>,
    /// Its place in the chain, where there is one.
    pub(super) hash: Option<Hash>,
}

/// The columns of [`INSERT_SQL`], in its order.
pub(super) fn encode<'a>(row: &Row<'a>) -> [Value<'a>; COLUMNS] {
    let Row { record, ids, seq, client, bodies, hash } = *row;
    let gap = record.kind == Kind::Gap;
    [
        Value::Integer(seq),
        Value::Integer(micros(record.time)),
        Value::Integer(kind(record.kind)),
        if record.repeat == 1 { Value::Null } else { count(record.repeat) },
        if gap { Value::Null } else { Value::Integer(verdict(record.verdict)) },
        ids.reason.map_or(Value::Null, Value::Integer),
        ids.scope.map_or(Value::Null, Value::Integer),
        ids.peer.map_or(Value::Null, Value::Integer),
        word_or_text(ids.sni, record.sni.as_deref()),
        Value::Integer(i64::from(record.resumed)),
        record.protocol.map_or(Value::Null, protocol),
        word_or_text(ids.method, record.method.as_ref().map(http::Method::as_str)),
        word_or_text(ids.host, record.host.as_deref()),
        record.path.as_deref().map_or(Value::Null, text),
        record.status.map_or(Value::Null, |status| Value::Integer(i64::from(status))),
        count(record.request_bytes),
        count(record.response_bytes),
        count(record.duration_us),
        record.connect_us.map_or(Value::Null, count),
        record.upstream_us.map_or(Value::Null, count),
        record.upstream.map_or(Value::Null, address),
        Value::Integer(i64::from(record.attempts)),
        match client {
            None => Value::Null,
            Some(Client::Address(client)) => address(client),
            Some(Client::Network(network)) => Value::Text(Cow::Owned(network.to_string())),
        },
        record.request_id.as_ref().map_or(Value::Null, |id| request_id(id, record.time)),
        record.trace_id.map_or(Value::Null, |id| Value::Blob(Blob::of(&[], id))),
        record.queue_us.map_or(Value::Null, count),
        record.grpc_status.map_or(Value::Null, |status| Value::Integer(i64::from(status))),
        ids.limiter.map_or(Value::Null, Value::Integer),
        word_or_text(ids.message_type, record.message_type.as_ref().map(Message::name)),
        hash.map_or(Value::Null, |hash| Value::Blob(Blob::of(&[], hash))),
        record.captured.as_deref().map_or(Value::Null, text),
        bodies.map_or(Value::Null, Value::Bytes),
    ]
}

/// The columns of [`INSERT_REFUSAL_SQL`], in its order.
pub(super) fn encode_refusal<'a>(row: &Row<'a>) -> [Value<'a>; COLUMNS - 1 + PEER_COLUMNS.len()] {
    let decision = encode(row).into_iter().enumerate().filter(|(column, _)| *column != PEER);
    let peer = row.record.peer.as_deref().map_or([None; PEER_COLUMNS.len()], peer_values);
    let peer = peer.into_iter().map(|value| value.map_or(Value::Null, text));
    let mut row = decision.map(|(_, value)| value).chain(peer);
    std::array::from_fn(|_| row.next().unwrap_or(Value::Null))
}

/// A row's id, as the view makes it of these.
pub(super) fn row_id(store: i64, seq: i64, time: SystemTime) -> RequestId {
    RequestId::Own(uuid_of(store, seq, micros(time)))
}

/// The same, of microseconds.
pub(super) fn uuid_of(store: i64, seq: i64, at: i64) -> Uuid7 {
    let chance = store.cast_unsigned() << 32 | seq.cast_unsigned() & 0xffff_ffff;
    Uuid7::new(at.cast_unsigned(), chance)
}

/// Microseconds since the epoch; a clock before it reads as the epoch.
pub(super) fn micros(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

// The numbers are those the view in views.sql decodes. 0 and 1 take no byte in a row, so they are the usual cases.

fn kind(kind: Kind) -> i64 {
    match kind {
        Kind::Request => 0,
        Kind::Handshake => 1,
        Kind::Connection => 2,
        Kind::Gap => 3,
        Kind::Cut => 4,
        Kind::Tunnel => 5,
    }
}

fn verdict(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Allowed => 0,
        Verdict::Refused => 1,
        Verdict::WouldRefuse => 2,
    }
}

fn protocol(name: &'static str) -> Value<'static> {
    PROTOCOLS
        .into_iter()
        .zip(0..)
        .find(|(known, _)| *known == name)
        .map_or(Value::Null, |(_, number)| Value::Integer(number))
}

/// In the order of their numbers.
const PROTOCOLS: [&str; 2] = ["HTTP/1.1", "HTTP/2"];

pub(super) fn kind_name(number: i64) -> Option<&'static str> {
    Kind::ALL.into_iter().find(|known| kind(*known) == number).map(Kind::name)
}

pub(super) fn verdict_name(number: i64) -> Option<&'static str> {
    let all = [Verdict::Allowed, Verdict::Refused, Verdict::WouldRefuse];
    all.into_iter().find(|known| verdict(*known) == number).map(Verdict::name)
}

pub(super) fn protocol_name(number: i64) -> Option<&'static str> {
    PROTOCOLS.get(usize::try_from(number).ok()?).copied()
}

fn word_or_text(word: Option<i64>, inline: Option<&str>) -> Value<'_> {
    match (word, inline) {
        (Some(id), _) => Value::Integer(id),
        (None, Some(inline)) => text(inline),
        (None, None) => Value::Null,
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(clipped(text)))
}

/// The gate's own begins with the row's time, so that its chance is enough; of others a UUID is its bytes, and 32 hex
/// digits are their bytes behind one that tells them from a UUID. All of it reads again as it was.
fn request_id(id: &RequestId, time: SystemTime) -> Value<'_> {
    match id {
        RequestId::Own(id) if i64::try_from(id.micros()) == Ok(micros(time)) => count(id.chance()),
        RequestId::Own(id) => Value::Blob(Blob::of(&[], id.bytes())),
        RequestId::Told(told) => match (uuid(told), hex_digits(told)) {
            (Some(bytes), _) => Value::Blob(Blob::of(&[], bytes)),
            (None, Some(bytes)) => Value::Blob(Blob::of(&[0], bytes)),
            (None, None) => text(told),
        },
    }
}

/// The bytes of a UUID as it is usually written (RFC 9562 §4), in lower case.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    let is_written_so = digits.len() == 36 && [8, 13, 18, 23].into_iter().all(|place| digits[place] == b'-');
    if is_written_so { bytes(digits.iter().copied().filter(|digit| *digit != b'-')) } else { None }
}

fn hex_digits(text: &str) -> Option<[u8; 16]> {
    bytes(text.bytes())
}

/// What exactly 32 lower-case hex digits stand for.
fn bytes(digits: impl Iterator<Item = u8>) -> Option<[u8; 16]> {
    let mut number = 0_u128;
    let mut count = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
        count += 1;
    }
    (count == 32).then(|| number.to_be_bytes())
}

fn count(number: u64) -> Value<'static> {
    Value::Integer(count_of(number))
}

/// A number as SQLite can have it.
pub(super) fn count_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// IPv4, the usual case, as a number of 6 bytes; IPv6 is written out.
fn address(address: SocketAddr) -> Value<'static> {
    match address {
        SocketAddr::V4(v4) => Value::Integer(i64::from(v4.ip().to_bits()) << 16 | i64::from(v4.port())),
        SocketAddr::V6(v6) => Value::Text(Cow::Owned(v6.to_string())),
    }
}
