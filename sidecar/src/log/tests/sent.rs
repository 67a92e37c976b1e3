//! Rows as they are sent: what the view shows, in PostgreSQL's binary form.

use postern_postgres::columns::Values;

use super::super::print::Cell;
use super::super::segments::{self, Segment};
use super::super::ship::rows::{self, Rows};
use super::*;

/// Microseconds from 1970 to 2000.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Bytes before the first row.
const HEADER: usize = 19;

/// All rows of a file, or those of a batch.
fn read(connection: &mut SqliteConnection, after: i64, limit: u32) -> Rows {
    let mut handle = block_on(connection.lock_handle()).unwrap();
    rows::read(&mut handle, (after, i64::MAX), limit).unwrap()
}

/// A field as the view shows it.
fn shown(values: Values, field: &[u8]) -> String {
    let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
    match values {
        Values::Text => String::from_utf8(field.to_vec()).unwrap(),
        Values::Uuid => {
            let digits = hex(field);
            [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
        }
        Values::Bytes => format!("\\x{}", hex(field)),
        Values::Time => (i64::from_be_bytes(field.try_into().unwrap()) + POSTGRES_EPOCH).to_string(),
        Values::Flag => u8::from_be_bytes(field.try_into().unwrap()).to_string(),
        Values::Integer => i32::from_be_bytes(field.try_into().unwrap()).to_string(),
        Values::Large => number(field).to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is sent of each row.
fn sent(rows: &Rows) -> Vec<Vec<Option<String>>> {
    let row = |row| rows.fields(row).zip(rows::values()).map(|(field, values)| field.map(|field| shown(values, field)));
    rows.each.iter().map(|each| row(each).collect()).collect()
}

/// The same, by the view of any version.
fn viewed(connection: &mut SqliteConnection) -> Vec<Vec<Option<String>>> {
    let columns = rows::columns().collect::<Vec<_>>().join(", ");
    let known = block_on(segments::known(connection, &columns)).unwrap();
    // PostgreSQL has a number for the time.
    let columns = known.replacen(" time,", " at,", 1);
    let rows =
        block_on(sqlx::query(AssertSqlSafe(format!("SELECT {columns} FROM entry ORDER BY seq"))).fetch_all(connection));
    let text = |row: &sqlx::sqlite::SqliteRow, column| match query::cell(row, column).unwrap() {
        Cell::Null => None,
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Text(text) => Some(text.replace('\0', "\u{fffd}")),
        other => panic!("{other:?}"),
    };
    let rows = rows.unwrap();
    rows.iter().map(|row| (0..sqlx::Row::len(row)).map(|column| text(row, column)).collect()).collect()
}

fn opened(path: &Path) -> SqliteConnection {
    block_on(query::open(path, query::Reads::Now)).unwrap()
}

#[test]
fn every_column_is_sent() {
    let mut sent: Vec<_> = rows::columns().collect();
    let mut all: Vec<_> = postern_postgres::columns::COLUMNS.iter().map(|(name, _)| *name).collect();
    sent.sort_unstable();
    all.sort_unstable();
    assert_eq!(sent, all);
}

#[test]
fn rows_of_every_kind_are_sent_as_the_view_shows_them() {
    let (_folder, path) = folder();
    let with_nul = Record { sni: Some("\0a\0".into()), path: Some("\0".into()), ..request(99) };
    let rows: Vec<_> = chain::zoo().into_iter().chain([with_nul]).map(Box::new).collect();
    for options in
        [options(&path, whole(LARGE)), StoreOptions { chain: Chained::Unkeyed, ..options(&path, whole(LARGE)) }]
    {
        let mut store = block_on(Store::open(&options, Opening::First)).unwrap();
        block_on(store.write(&rows)).unwrap();
        block_on(store.close_clean()).unwrap();
    }
    let mut connection = opened(&path);
    let all = read(&mut connection, 0, u32::MAX);
    let expected = viewed(&mut connection);
    assert!(expected.len() >= 2 * rows.len());
    for (sent, expected) in sent(&all).into_iter().zip(&expected) {
        assert_eq!(&sent, expected);
    }
    assert_eq!(all.each.len(), expected.len());
    assert!(all.copy.starts_with(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0") && all.copy.ends_with(b"\xff\xff"));
    let fields = u8::try_from(rows::columns().count()).unwrap();
    assert_eq!(all.copy[HEADER..HEADER + 2], [0, fields], "each row begins with how many it has");
    let (mut after, mut parts) = (0, Vec::new());
    loop {
        let part = read(&mut connection, after, 7);
        assert!(part.each.len() <= 7);
        let Some(last) = part.each.last() else { break };
        after = last.seq;
        parts.extend(sent(&part));
    }
    assert_eq!(parts, expected, "in batches");
}

#[test]
fn what_an_earlier_version_wrote_is_sent_as_its_view_shows_it() {
    for (version, sql) in [(1, reading::VERSION_1), (3, ids::VERSION_3)] {
        let (_folder, path) = folder();
        let segment = Segment { first: 1, last: 3, newest: 1_700_000_000_000_002 };
        std::fs::write(segment.path(&path), "").unwrap();
        execute(&segment.path(&path), sql);
        let mut old = block_on(segments::open(&path, &segment)).unwrap().expect("a segment");
        let expected = viewed(&mut old);
        let mut current = block_on(segments::open_current(&path, &segment)).unwrap().expect("a segment");
        let mut sent = sent(&read(&mut current, 0, u32::MAX));
        if version == 1 {
            // What did not exist then, and is made of what did.
            let place = rows::columns().position(|name| name == "sfdi").unwrap();
            assert_eq!(sent[0][place].take().as_deref(), Some("167261211391"));
        }
        assert_eq!(sent, expected, "version {version}");
    }
}
