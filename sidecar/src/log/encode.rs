//! A record as the row of table `decision`: pure.

use std::borrow::Cow;
use std::ffi::CStr;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::ids::RowIds;
use super::insert::Value;
use sidecar_decide::Verdict;

use super::record::{Kind, Record, clipped};

/// Inserts one row of [`encode`]; `seq` is SQLite's to count.
pub(super) const INSERT_SQL: &CStr = c"INSERT INTO decision (time, kind, repeat, verdict, reason, scope, peer, sni, resumed, \
     protocol, method, host, path, status, request_bytes, response_bytes, duration_us, connect_us, upstream_us, upstream, \
     attempts, client) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const COLUMNS: usize = 22;

/// The columns of [`INSERT_SQL`], in its order.
pub(super) fn encode<'a>(record: &'a Record, ids: &RowIds) -> [Value<'a>; COLUMNS] {
    let gap = record.kind == Kind::Gap;
    [
        Value::Integer(micros(record.time)),
        Value::Integer(kind(record.kind)),
        // What adds `repeat` up counts decisions, and a gap is none.
        if gap { Value::Integer(0) } else { Value::Null },
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
        record.client_addr.map_or(Value::Null, address),
    ]
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
    match name {
        "HTTP/1.1" => Value::Integer(0),
        "HTTP/2" => Value::Integer(1),
        _ => Value::Null,
    }
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

fn count(number: u64) -> Value<'static> {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// IPv4, the usual case, as a number of 6 bytes; IPv6 is written out.
fn address(address: SocketAddr) -> Value<'static> {
    match address {
        SocketAddr::V4(v4) => Value::Integer(i64::from(v4.ip().to_bits()) << 16 | i64::from(v4.port())),
        SocketAddr::V6(v6) => Value::Text(Cow::Owned(v6.to_string())),
    }
}
