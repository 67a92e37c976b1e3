//! Rows as PostgreSQL's COPY takes them in binary (PostgreSQL's documentation, COPY, "Binary Format"), made straight of the
//! log's tables: what many rows share is looked up and written once for all of them.

use std::collections::HashMap;
use std::ffi::c_int;
use std::ops::Range;

use bytes::{BufMut, Bytes};
use postern_postgres::columns::{COLUMNS, Values};
use sidecar_decide::filter::Uuid7;
use sqlx::sqlite::LockedSqliteHandle;

use super::super::chain::decimal;
use super::super::encode;
use super::super::handle::{Database, HandleError, Statement, Stored};
use super::super::ids::{PEER_COLUMNS, SCOPE_COLUMNS};

/// Bytes at which a batch ends, however few its rows: a client may choose texts of 2 KiB each.
pub(super) const BATCH_BYTES: usize = 512 << 10;

/// What a row of usual texts takes.
const ROW_BYTES: usize = 512;

/// Signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// In place of a row's number of fields: there is no more.
const TRAILER: i16 = -1;

/// In place of a field's length: it is NULL.
const NULL: i32 = -1;

/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The columns that a row begins with, made of its number and time.
const FIRST: [&str; 2] = ["id", "time"];

/// How a column of the log is sent. What is stored as text is sent as it is, by any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Kind,
    Verdict,
    Protocol,
    /// NULL is 1.
    Repeat,
    /// The number of a word.
    Word,
    Text,
    Flag,
    Integer,
    Large,
    /// An IPv4 address and a port, as one number.
    Address,
    RequestId,
    /// Bytes, as hex digits.
    Hex,
    Bytes,
}

/// A row's own columns: what the log calls them, what users do, and how they are sent.
const OWN: [(&str, &str, Sent); 28] = [
    ("kind", "kind", Sent::Kind),
    ("repeat", "repeat", Sent::Repeat),
    ("sni", "sni", Sent::Word),
    ("verdict", "verdict", Sent::Verdict),
    ("reason", "reason", Sent::Word),
    ("limiter", "limiter", Sent::Word),
    ("resumed", "resumed", Sent::Flag),
    ("protocol", "protocol", Sent::Protocol),
    ("method", "method", Sent::Word),
    ("host", "host", Sent::Word),
    ("path", "path", Sent::Text),
    ("status", "status", Sent::Integer),
    ("grpc_status", "grpc_status", Sent::Integer),
    ("request_bytes", "request_bytes", Sent::Large),
    ("response_bytes", "response_bytes", Sent::Large),
    ("duration_us", "duration_us", Sent::Large),
    ("queue_us", "queue_us", Sent::Large),
    ("connect_us", "connect_us", Sent::Large),
    ("upstream_us", "upstream_us", Sent::Large),
    ("upstream", "upstream", Sent::Address),
    ("attempts", "attempts", Sent::Integer),
    ("request_id", "request_id", Sent::RequestId),
    ("trace_id", "trace_id", Sent::Hex),
    ("message_type", "message_type", Sent::Word),
    ("client", "client_addr", Sent::Address),
    ("chain", "chain", Sent::Hex),
    ("captured", "captured", Sent::Text),
    ("bodies", "bodies", Sent::Bytes),
];

/// Fields of each row: as many as [`columns`].
const FIELDS: i16 = 51;

/// The columns of a row, in the order of its fields.
pub(in crate::log) fn columns() -> impl Iterator<Item = &'static str> {
    FIRST.into_iter().chain(OWN.map(|(_, name, _)| name)).chain(SCOPE_COLUMNS).chain(PEER_COLUMNS)
}

/// What their values are.
pub(in crate::log) fn values() -> impl Iterator<Item = Values> {
    let of = |name| COLUMNS.iter().find(|(known, _)| *known == name).map_or(Values::Text, |(_, values)| *values);
    columns().map(of)
}

/// Rows that are to be sent.
#[derive(Clone, Debug, Default)]
pub(in crate::log) struct Rows {
    pub(in crate::log) each: Vec<Row>,
    /// All of them, from header to trailer.
    pub(in crate::log) copy: Bytes,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log) struct Row {
    pub(in crate::log) seq: i64,
    /// Microseconds since the epoch.
    pub(super) at: i64,
    /// Where its fields are.
    pub(super) place: Range<usize>,
}

impl Rows {
    /// The fields of one of these rows; `None` is NULL.
    pub(in crate::log) fn fields(&self, row: &Row) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.copy.get(row.place.clone()).unwrap_or_default();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk()?;
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                rest = after;
                return Some(None);
            };
            let (field, after) = after.split_at_checked(length)?;
            rest = after;
            Some(Some(field))
        })
    }
}

/// The rows behind number `after` and up to `until`, at most `limit` and [`BATCH_BYTES`], of a file of this version.
pub(in crate::log) fn read(
    handle: &mut LockedSqliteHandle<'_>,
    (after, until): (i64, i64),
    limit: u32,
) -> Result<Rows, HandleError> {
    let database = Database::of(handle);
    let mut decisions = Cursor::new(database, "decision", false, (after, until))?;
    let mut refusals = Cursor::new(database, "refusal", true, (after, until))?;
    let mut writer = Writer::new(database, limit)?;
    let mut each = Vec::new();
    while each.len() < limit as usize && writer.bytes.len() < BATCH_BYTES {
        let next = match (decisions.seq, refusals.seq) {
            (Some(decision), Some(refusal)) if refusal < decision => &mut refusals,
            (None, Some(_)) => &mut refusals,
            _ => &mut decisions,
        };
        let Some(seq) = next.seq else { break };
        each.push(writer.row(next, seq)?);
        next.step()?;
    }
    writer.bytes.put_i16(TRAILER);
    Ok(Rows { each, copy: writer.bytes.into() })
}

/// Rows of one table, in their order.
struct Cursor<'h> {
    statement: Statement<'h>,
    /// Whether they are of strangers, of whom a row has all itself.
    is_strangers: bool,
    /// Number of the row it is at.
    seq: Option<i64>,
}

impl<'h> Cursor<'h> {
    fn new(
        database: Database<'h>,
        table: &str,
        is_strangers: bool,
        (after, until): (i64, i64),
    ) -> Result<Self, HandleError> {
        let own = OWN.map(|(stored, _, _)| stored).join(", ");
        let peer = if is_strangers { PEER_COLUMNS.join(", ") } else { "peer".to_owned() };
        let sql =
            format!("SELECT seq, time, {own}, scope, {peer} FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq");
        let mut statement = database.prepare_text(sql)?;
        statement.bind(1, after)?;
        statement.bind(2, until)?;
        let mut cursor = Self { statement, is_strangers, seq: None };
        cursor.step()?;
        Ok(cursor)
    }

    fn step(&mut self) -> Result<(), HandleError> {
        self.seq = if self.statement.step()? { Some(self.integer(0)) } else { None };
        Ok(())
    }

    fn integer(&self, column: c_int) -> i64 {
        if let Stored::Integer(number) = self.statement.value(column) { number } else { 0 }
    }
}

/// Texts that rows refer to by number, as fields.
struct Known<'h> {
    select: Statement<'h>,
    columns: c_int,
    found: HashMap<i64, Vec<u8>>,
}

impl<'h> Known<'h> {
    fn new(database: Database<'h>, table: &str, columns: &[&str]) -> Result<Self, HandleError> {
        let select = database.prepare_text(format!("SELECT {} FROM {table} WHERE id = ?", columns.join(", ")))?;
        Ok(Self { select, columns: c_int::try_from(columns.len()).unwrap_or(0), found: HashMap::new() })
    }

    /// Adds what a row refers to; NULL where it does not, or to nothing.
    fn add(&mut self, bytes: &mut Vec<u8>, stored: Stored<'_>) -> Result<(), HandleError> {
        let Stored::Integer(id) = stored else {
            (0..self.columns).for_each(|_| bytes.put_i32(NULL));
            return Ok(());
        };
        if let Some(known) = self.found.get(&id) {
            bytes.extend_from_slice(known);
            return Ok(());
        }
        self.select.reset();
        self.select.bind(1, id)?;
        let start = bytes.len();
        self.select.step()?;
        for column in 0..self.columns {
            text(bytes, self.select.value(column));
        }
        self.found.insert(id, bytes[start..].to_vec());
        Ok(())
    }
}

/// Writes rows, of one look at one file.
struct Writer<'h> {
    bytes: Vec<u8>,
    store: i64,
    words: Known<'h>,
    scopes: Known<'h>,
    strangers_scopes: Known<'h>,
    peers: Known<'h>,
}

impl<'h> Writer<'h> {
    fn new(database: Database<'h>, rows: u32) -> Result<Self, HandleError> {
        let mut meta = database.prepare(c"SELECT value FROM meta WHERE key = 'store'")?;
        meta.step()?;
        let store = if let Stored::Integer(store) = meta.value(0) { store } else { 0 };
        let mut bytes = Vec::with_capacity(BATCH_BYTES.min(rows as usize * ROW_BYTES));
        bytes.extend_from_slice(HEADER);
        Ok(Self {
            bytes,
            store,
            words: Known::new(database, "word", &["text"])?,
            scopes: Known::new(database, "scope", &SCOPE_COLUMNS)?,
            strangers_scopes: Known::new(database, "refusal_scope", &SCOPE_COLUMNS)?,
            peers: Known::new(database, "peer", &PEER_COLUMNS)?,
        })
    }

    fn row(&mut self, from: &Cursor<'_>, seq: i64) -> Result<Row, HandleError> {
        let at = from.integer(1);
        self.bytes.put_i16(FIELDS);
        let start = self.bytes.len();
        self.bytes.put_i32(16);
        self.bytes.extend_from_slice(&encode::uuid_of(self.store, seq, at).bytes());
        self.large(at.saturating_sub(POSTGRES_EPOCH));
        let mut column = FIRST.len().try_into().unwrap_or(0);
        let mut next = || {
            column += 1;
            from.statement.value(column - 1)
        };
        for (_, _, sent) in OWN {
            self.own(sent, next(), at)?;
        }
        let scopes = if from.is_strangers { &mut self.strangers_scopes } else { &mut self.scopes };
        scopes.add(&mut self.bytes, next())?;
        if from.is_strangers {
            PEER_COLUMNS.iter().for_each(|_| text(&mut self.bytes, next()));
        } else {
            self.peers.add(&mut self.bytes, next())?;
        }
        Ok(Row { seq, at, place: start..self.bytes.len() })
    }

    fn own(&mut self, sent: Sent, stored: Stored<'_>, at: i64) -> Result<(), HandleError> {
        let bytes = &mut self.bytes;
        match (sent, stored) {
            (Sent::Repeat, Stored::Null) => self.large(1),
            (Sent::Word, Stored::Integer(_)) => self.words.add(bytes, stored)?,
            (Sent::Kind, Stored::Integer(number)) => name(bytes, encode::kind_name(number)),
            (Sent::Verdict, Stored::Integer(number)) => name(bytes, encode::verdict_name(number)),
            (Sent::Protocol, Stored::Integer(number)) => name(bytes, encode::protocol_name(number)),
            (Sent::Flag, Stored::Integer(number)) => field(bytes, |bytes| bytes.put_u8((number != 0).into())),
            // One that is too large is the server's to refuse.
            (Sent::Integer, Stored::Integer(number)) => match i32::try_from(number) {
                Ok(number) => field(bytes, |bytes| bytes.put_i32(number)),
                Err(_) => self.large(number),
            },
            (Sent::Repeat | Sent::Large, Stored::Integer(number)) => self.large(number),
            (Sent::Address, Stored::Integer(number)) => field(bytes, |bytes| address(bytes, number)),
            (Sent::RequestId, Stored::Integer(chance)) => {
                uuid(bytes, &Uuid7::new(at.cast_unsigned(), chance.cast_unsigned()).bytes());
            }
            (Sent::RequestId, Stored::Blob(id)) => match id.split_first() {
                // Behind a mark.
                Some((_, digits)) if digits.len() == 16 => hex(bytes, digits),
                _ => uuid(bytes, id),
            },
            (Sent::Hex, Stored::Blob(id)) if !id.is_empty() => hex(bytes, id),
            (Sent::Bytes, Stored::Blob(sealed)) if !sealed.is_empty() => field(bytes, |bytes| bytes.extend(sealed)),
            (_, Stored::Text(_)) => text(bytes, stored),
            _ => bytes.put_i32(NULL),
        }
        Ok(())
    }

    fn large(&mut self, number: i64) {
        field(&mut self.bytes, |bytes| bytes.put_i64(number));
    }
}

/// Adds a field of what `write` adds.
fn field(bytes: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.put_i32(0);
    write(bytes);
    let length = i32::try_from(bytes.len() - start - 4).unwrap_or(i32::MAX);
    bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// PostgreSQL has no NUL in texts: what a certificate says may have one, and is sent with the mark of what cannot be shown.
fn text(bytes: &mut Vec<u8>, stored: Stored<'_>) {
    let Stored::Text(text) = stored else {
        bytes.put_i32(NULL);
        return;
    };
    field(bytes, |bytes| {
        let mut parts = text.split(|byte| *byte == 0);
        bytes.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            bytes.extend_from_slice("\u{fffd}".as_bytes());
            bytes.extend_from_slice(part);
        }
    });
}

fn name(bytes: &mut Vec<u8>, name: Option<&str>) {
    text(bytes, name.map_or(Stored::Null, |name| Stored::Text(name.as_bytes())));
}

/// As it is usually written; by hand, for each row has two.
fn address(bytes: &mut Vec<u8>, number: i64) {
    let [.., a, b, c, d, high, low] = number.to_be_bytes();
    for (part, end) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
        decimal(bytes, part.into());
        bytes.push(end);
    }
    decimal(bytes, u16::from_be_bytes([high, low]).into());
}

fn hex(bytes: &mut Vec<u8>, id: &[u8]) {
    field(bytes, |bytes| digits(bytes, id));
}

fn digits(bytes: &mut Vec<u8>, id: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.extend(id.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

/// As RFC 9562 §4 writes it.
fn uuid(bytes: &mut Vec<u8>, id: &[u8]) {
    /// Bytes that stand together.
    const GROUPS: [usize; 5] = [4, 2, 2, 2, 6];
    field(bytes, |bytes| {
        let mut rest = id;
        for (number, length) in GROUPS.into_iter().enumerate() {
            if number > 0 {
                bytes.push(b'-');
            }
            let (group, after) = rest.split_at(length.min(rest.len()));
            digits(bytes, group);
            rest = after;
        }
    });
}
