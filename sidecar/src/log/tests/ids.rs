//! The ids of requests and traces: few bytes in the file, and whole again for whoever asks.

use super::*;

fn told(id: &str) -> Option<RequestId> {
    Some(RequestId::Told(id.into()))
}

fn found(path: &Path, filter: &Filter) -> String {
    let mut out = Vec::new();
    block_on(query::rows(path, filter, Output::Json, &mut out, &Unread::default())).unwrap();
    let rows = std::str::from_utf8(&out).unwrap().lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["path"].as_str().unwrap().trim_start_matches("/orders/").to_owned()
    });
    rows.collect::<Vec<_>>().join(" ")
}

/// Each with the number of bytes that it takes in the file, beside one for its kind.
#[test]
fn ids_of_requests_come_back_as_they_were() {
    let own = |micros, chance| Some(RequestId::Own(Uuid7::new(micros, chance)));
    let now = 1_700_000_000_123_456;
    let other = "0191d3a2-0b1c-7fff-9234-56789abcdef0";
    let long = "x".repeat(128);
    let table = [
        (own(now, 0), "018bcfe5-687b-774b-8000-000000000000".to_owned(), "0"),
        (own(now, u64::MAX), "018bcfe5-687b-774b-bfff-ffffffffffff".to_owned(), "8"),
        (own(now, 0x0123_4567_89ab), "018bcfe5-687b-774b-8000-0123456789ab".to_owned(), "8"),
        // A row whose time is another's.
        (own(now + 1_000_000, 1), "018bcfe5-6c63-774b-8000-000000000001".to_owned(), "16"),
        (told(other), other.to_owned(), "16"),
        (told("7d444840-9dc0-11d1-b245-5ffdce74fad2"), "7d444840-9dc0-11d1-b245-5ffdce74fad2".to_owned(), "16"),
        (told("7D444840-9DC0-11D1-B245-5FFDCE74FAD2"), "7D444840-9DC0-11D1-B245-5FFDCE74FAD2".to_owned(), "36"),
        (told("7d4448409dc011d1b2455ffdce74fad2"), "7d4448409dc011d1b2455ffdce74fad2".to_owned(), "17"),
        (told("7d4448409dc0-11d1-b245-5ffdce74fad2-"), "7d4448409dc0-11d1-b245-5ffdce74fad2-".to_owned(), "36"),
        (told("7d444840-9dc0-11d1-b245-5ffdce74fadg"), "7d444840-9dc0-11d1-b245-5ffdce74fadg".to_owned(), "36"),
        (told("12345"), "12345".to_owned(), "5"),
        (told(&long), long.clone(), "128"),
        (None, "none".to_owned(), "0"),
    ];
    let (_folder, path) = folder();
    written(&path, table.iter().map(|(id, ..)| Record { request_id: id.clone(), ..request(0) }).collect());
    let ids = ask(&path, "SELECT coalesce(request_id, 'none') FROM requests");
    assert_eq!(ids.lines().collect::<Vec<_>>(), table.each_ref().map(|(_, id, _)| id.as_str()));
    // An integer's size in a record is that of its value (https://www.sqlite.org/fileformat2.html#record_format).
    let bytes = "SELECT CASE typeof(request_id) WHEN 'null' THEN 0 WHEN 'integer' THEN 8 * (request_id > 1) \
                 ELSE length(request_id) END FROM decision";
    assert_eq!(ask(&path, bytes).lines().collect::<Vec<_>>(), table.each_ref().map(|(.., size)| *size));
}

#[test]
fn a_request_and_a_trace_are_found_by_their_ids() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let trace = Some(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
    let (_folder, path) = folder();
    let stranger = Record { verdict: Verdict::Refused, peer: None, request_id: told("theirs"), ..request(3) };
    let records = [
        request(0),
        Record { request_id: told("theirs"), trace_id: None, ..request(1) },
        Record { trace_id: trace, ..request(2) },
        Record { trace_id: trace, ..stranger },
    ];
    written(&path, records.to_vec());
    let text = |text: &str| Some(text.to_owned());
    let table = [
        (Filter { request_id: text("018bcfe5-687b-774b-8123-456789abcdef"), ..Filter::default() }, "0"),
        (Filter { request_id: text("theirs"), ..Filter::default() }, "1 3"),
        (Filter { request_id: text("their"), ..Filter::default() }, ""),
        (Filter { trace_id: text(TRACE), ..Filter::default() }, "2 3"),
        (Filter { trace_id: text(&trace_id(&TRACE.to_ascii_uppercase())), ..Filter::default() }, "2 3"),
        (Filter { trace_id: text(&trace_id(&format!("00-{TRACE}-b7ad6b7169203331-01"))), ..Filter::default() }, "2 3"),
        (Filter { trace_id: text(""), ..Filter::default() }, ""),
    ];
    for (filter, expected) in table {
        assert_eq!(found(&path, &Filter { limit: 100, ..filter.clone() }), expected, "{filter:?}");
    }
}

/// What version 3 left: its schema, the row of a known client and of a stranger.
pub(super) const VERSION_3: &str = concat!(
    include_str!("schema-3.sql"),
    "INSERT INTO scope (id, hash, last, listener) VALUES (1, 7, 1, 'main');
     INSERT INTO decision (seq, time, kind, verdict, scope, path) VALUES (1, 1700000000000000, 0, 0, 1, '/old/0');
     INSERT INTO refusal (seq, time, kind, verdict, scope, path, subject) VALUES (2, 1700000000000001, 0, 1, 1, '/old/1', 'CN=a');
     PRAGMA user_version = 3"
);

#[test]
fn a_file_without_ids_keeps_its_rows_and_gets_ids() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    execute(&path, VERSION_3);
    // A copy is read as it is.
    assert_eq!(found(&path, &Filter { request_id: Some("a".into()), limit: 1, ..Filter::default() }), "");
    let refused = Record { verdict: Verdict::Refused, peer: None, ..request(1) };
    written(&path, vec![request(0), refused]);
    assert_eq!(
        ask(&path, "SELECT path, subject, request_id, trace_id FROM requests ORDER BY time"),
        "/old/0,,,\n\
         /old/1,CN=a,,\n\
         /orders/0,CN=meter-7,018bcfe5-687b-774b-8123-456789abcdef,7472616365206f66206e6f2d6f6e652e\n\
         /orders/1,,018bcfe5-687b-774f-8123-456789abcdef,7472616365206f66206e6f2d6f6e652e"
    );
    assert_eq!(ask(&path, "SELECT user_version FROM pragma_user_version"), "8");
    assert_columns_of_a_new_file(&path);
}

/// Two gates of one name have a log each, and may count alike in the same microsecond.
#[test]
fn the_same_row_of_two_logs_has_two_ids() {
    let id = || {
        let (_folder, path) = folder();
        written(&path, vec![request(1)]);
        ask(&path, "SELECT id FROM requests")
    };
    assert_ne!(id(), id());
}
