//! The chain: what was written fits, whatever the log does with it itself; what anybody else does is found.

use std::fs;

use sidecar_decide::{Limiter, Reason};

use super::super::segments::{self, Compressor};
use super::bodies::{bodies, key};
use super::*;
use crate::message_type::Message;

/// A chained store's options, with the key of the test.
fn keyed(path: &Path, sizes: Sizes) -> StoreOptions {
    let key = path.with_file_name("key");
    fs::write(&key, "a key that nobody can guess\n").unwrap();
    StoreOptions { chain: Chained::Keyed(key), ..options(path, sizes) }
}

fn unkeyed(path: &Path, sizes: Sizes) -> StoreOptions {
    StoreOptions { chain: Chained::Unkeyed, ..options(path, sizes) }
}

fn small(total: u64) -> Sizes {
    Sizes { segment: 128 << 10, ..whole(total) }
}

fn open(options: &StoreOptions) -> Store {
    block_on(Store::open(options, Opening::First)).unwrap()
}

/// Writes rows of these numbers, 100 at a time.
fn write(store: &mut Store, numbers: std::ops::Range<u64>, record: impl Fn(u64) -> Record) {
    for first in numbers.clone().step_by(100) {
        let batch: Vec<_> = (first..numbers.end.min(first + 100)).map(|number| Box::new(record(number))).collect();
        block_on(store.write(&batch)).unwrap();
    }
}

fn close(store: Store) {
    block_on(store.close_clean()).unwrap();
}

/// Each tenth is refused to somebody who is known, each eleventh to a stranger.
fn mixed(number: u64) -> Record {
    match number {
        number if number % 10 == 0 => {
            Record { verdict: Verdict::Refused, reason: Some(Reason::PolicyNotAllowed), ..request(number) }
        }
        number if number % 11 == 0 => Record { verdict: Verdict::Refused, peer: None, ..request(number) },
        number => request(number),
    }
}

/// What is found, with the chain's own way to make hashes.
fn verified(options: &StoreOptions) -> Result<Verified, Fault> {
    anchored(options, None)
}

fn anchored(options: &StoreOptions, anchor: Option<&str>) -> Result<Verified, Fault> {
    let chain = options.chain.open().unwrap().unwrap();
    match block_on(verify(&options.path, &chain, anchor)) {
        Ok(verified) => Ok(verified),
        Err(VerifyError::Fault { fault, .. }) => Err(fault),
        Err(VerifyError::Query(error)) => panic!("{error}"),
    }
}

/// Rows that fit, rows that the log has deleted, rows from before the chain.
fn counted(options: &StoreOptions) -> Result<(u64, u64, u64), Fault> {
    verified(options).map(|found| (found.rows, found.deleted, found.before))
}

/// Rows of all kinds, with everything that a row can have, and with nothing.
pub(super) fn zoo() -> Vec<Record> {
    let told = |id: &str| Some(RequestId::Told(id.into()));
    let odd = "odd\u{7f}\n\"'\\é=3:x\n".repeat(300);
    let mut rows: Vec<_> =
        Kind::ALL.into_iter().zip(0..).map(|(kind, number)| Record { kind, ..request(number) }).collect();
    rows.extend([
        Record::new(Kind::Gap, UNIX_EPOCH),
        Record::new(Kind::Handshake, UNIX_EPOCH + Duration::from_secs(253_402_300_799)),
        Record::new(Kind::Handshake, UNIX_EPOCH + Duration::from_secs(253_402_300_800)),
        Record { repeat: 77, verdict: Verdict::WouldRefuse, ..request(10) },
        Record { reason: Some(Reason::LimitStreams), limiter: Some(Limiter::MaxStreams), ..request(11) },
        Record { method: Some(Method::from_bytes(b"ODD").unwrap()), host: Some(odd.as_str().into()), ..request(12) },
        Record { path: Some(odd.as_str().into()), sni: Some(odd.as_str().into()), ..request(13) },
        Record { protocol: Some("HTTP/1.1"), status: None, grpc_status: Some(7), ..request(14) },
        Record { request_bytes: u64::MAX, response_bytes: 0, duration_us: u64::MAX, attempts: 255, ..request(15) },
        Record { queue_us: None, connect_us: None, upstream_us: None, upstream: None, ..request(16) },
        Record { upstream: Some("[2001:db8::1]:80".parse().unwrap()), client_addr: None, ..request(17) },
        Record { client_addr: Some(Client::Network(Network::of("2001:db8::1".parse().unwrap()))), ..request(18) },
        Record { request_id: told("01890a5d-ac96-774b-bcce-b302099a8057"), trace_id: Some([0; 16]), ..request(19) },
        Record { request_id: told("0123456789abcdef0123456789abcdef"), trace_id: None, ..request(20) },
        Record { request_id: told("one/of+its=own"), resumed: false, ..request(21) },
        Record { request_id: None, message_type: Some(Message::Call("shop.v1.Stock/Count".into())), ..request(22) },
        Record {
            captured: Some(r#"{"headers":{"x-tenant":"a"}}"#.into()),
            bodies: bodies(b"asked", b""),
            ..request(23)
        },
        Record { peer: None, scope: None, ..request(24) },
    ]);
    let strangers = rows.clone().into_iter().map(|row| Record { peer: None, verdict: Verdict::Refused, ..row });
    let known = strangers.collect::<Vec<_>>();
    rows.extend(known);
    rows
}

#[test]
fn rows_of_every_kind_fit_as_the_view_shows_them() {
    for keyed_too in [false, true] {
        let (_folder, path) = folder();
        let options = if keyed_too { keyed(&path, whole(LARGE)) } else { unkeyed(&path, whole(LARGE)) };
        let rows: Vec<_> = zoo().into_iter().map(Box::new).collect();
        let mut store = open(&options);
        block_on(store.write(&rows)).unwrap();
        close(store);
        assert_eq!(counted(&options), Ok((rows.len() as u64, 0, 0)));
    }
}

#[test]
fn what_is_hashed_is_what_is_written_down() {
    let (_folder, path) = folder();
    let options = unkeyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..1, request);
    close(store);
    let sha256 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec();
    let text = |columns: &[(&str, &[u8])]| {
        let column = |(name, value): &(&str, &[u8])| {
            [name.as_bytes(), format!("={}:", value.len()).as_bytes(), value, b"\n"].concat()
        };
        columns.iter().flat_map(column).collect::<Vec<u8>>()
    };
    let row = ask_columns(&path);
    let of = |names: &[&str]| {
        let named = row.iter().filter(|(name, _)| names.contains(&name.as_str()));
        text(&named.map(|(name, value)| (name.as_str(), value.as_bytes())).collect::<Vec<_>>())
    };
    let scope = ["pod", "pod_uid", "namespace", "workload", "listener", "route", "rule", "mode", "policy_revision"];
    let peer = [
        "identity",
        "bundle",
        "subject",
        "san",
        "issuer",
        "serial",
        "fingerprint",
        "spki",
        "lfdi",
        "sfdi",
        "tls_version",
        "cipher",
    ];
    let own = row
        .iter()
        .filter(|(name, _)| name != "chain" && !scope.contains(&name.as_str()) && !peer.contains(&name.as_str()));
    let mut hashed = text(&own.map(|(name, value)| (name.as_str(), value.as_bytes())).collect::<Vec<_>>());
    hashed.extend(text(&[("scope", &sha256(&of(&scope))), ("peer", &sha256(&of(&peer)))]));
    let store: i64 = ask(&path, "SELECT value FROM meta WHERE key = 'store'").parse().unwrap();
    let begin = sha256(&[&b"B"[..], &store.to_be_bytes(), &0_i64.to_be_bytes()].concat());
    let hash = sha256(&[&b"R"[..], &begin[..16], &hashed].concat());
    let expected: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ask(&path, "SELECT chain FROM requests"), expected);
}

/// Names and values of the only row, without what is NULL.
fn ask_columns(path: &Path) -> Vec<(String, String)> {
    let mut out = Vec::new();
    block_on(query::sql(path, "SELECT * FROM requests", Output::Json, &mut out, &Unread::default())).unwrap();
    let row: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
    let names = ask(path, "SELECT name FROM pragma_table_info('requests')");
    let shown = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let columns = names.lines().filter(|name| row.get(*name).is_some_and(|value| !value.is_null()));
    columns.map(|name| (name.to_owned(), shown(&row[name]))).collect()
}

#[test]
fn a_restart_and_a_kill_go_on_with_the_chain() {
    let (_folder, path) = folder();
    let options = keyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..150, mixed);
    close(store);
    let mut store = open(&options);
    write(&mut store, 150..300, mixed);
    block_on(store.close()).unwrap();
    // As after a kill: a gap is the row that follows.
    let mut store = open(&options);
    write(&mut store, 300..350, mixed);
    close(store);
    assert_eq!(counted(&options), Ok((351, 0, 0)));
    assert_eq!(ask(&path, "SELECT count(*) FROM requests WHERE kind = 'gap'"), "1");
}

#[test]
fn what_the_log_deletes_itself_leaves_a_note_and_no_fault() {
    let (_folder, path) = folder();
    let sizes = small(2 << 20);
    let options = keyed(&path, sizes);
    let stats = Arc::new(Stats::default());
    let mut compressor = Compressor::new(path.clone(), sizes, Arc::clone(&stats), options.chain.clone());
    let mut store = open(&options);
    let mut most_deleted = 0;
    for round in 1..=16_u64 {
        write(&mut store, (round - 1) * 1500..round * 1500, mixed);
        compressor.start();
        wait("the compressor", || !compressor.is_at_work());
        if round % 4 == 0 {
            let (rows, deleted, before) = counted(&options).expect("nothing but the log's own doing");
            assert_eq!((rows + deleted, before), (round * 1500, 0), "round {round}");
            most_deleted = deleted;
        }
    }
    close(store);
    compressor.stop();
    assert!(most_deleted > 5000, "{most_deleted}");
    let kept = segments::list(&path).unwrap();
    let thinned = kept.iter().filter(|segment| segment.thinned_path(&path).exists()).count();
    assert!(thinned > 2, "{thinned} of {}", kept.len());
    // A segment that somebody else deletes is missed, whichever it is: the oldest, one between, the newest.
    for segment in [0, kept.len() / 2, kept.len() - 1].map(|index| &kept[index]) {
        let file = fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
        let name = segment.path(&path);
        let file = file.into_iter().find(|file| file.to_str().unwrap().starts_with(name.to_str().unwrap())).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(matches!(verified(&options), Err(Fault::Missing { .. } | Fault::NoBeginning(_))), "{}", file.display());
        fs::write(&file, bytes).unwrap();
    }
    assert!(verified(&options).is_ok());
}

#[test]
fn segments_that_go_whole_leave_a_note() {
    for keep in [None, Some(Duration::from_secs(1))] {
        let (_folder, path) = folder();
        let options = keyed(&path, Sizes { keep, ..small(1 << 20) });
        let mut store = open(&options);
        write(&mut store, 0..15_000, mixed);
        close(store);
        let (rows, deleted, before) = counted(&options).expect("nothing but the log's own doing");
        assert_eq!((rows + deleted, before), (15_000, 0), "{keep:?}");
        assert!(deleted > 5_000, "{deleted}, {keep:?}");
    }
}

#[test]
fn strangers_that_make_room_for_others_leave_a_note() {
    let (_folder, path) = folder();
    let options = keyed(&path, whole(4 << 20));
    let mut store = open(&options);
    let stranger = |number| Record { verdict: Verdict::Refused, peer: None, ..request(number) };
    let every_tenth = |number| if number % 10 == 0 { request(number) } else { stranger(number) };
    write(&mut store, 0..20_000, every_tenth);
    close(store);
    let (rows, deleted, _) = counted(&options).unwrap();
    assert!(rows + deleted == 20_000 && deleted > 1000, "{rows} {deleted}");
}

#[test]
fn what_somebody_else_does_to_a_row_is_found() {
    let seq = |fault: Result<Verified, Fault>| match fault {
        Err(Fault::Missing { first, .. } | Fault::Forged { first, .. }) => Some(first),
        Err(Fault::Changed(row) | Fault::NoHash(row) | Fault::NoBeginning(row) | Fault::Anew(row)) => Some(row.seq),
        Err(Fault::End { last }) => Some(last),
        Err(Fault::Unreadable) | Ok(_) => None,
    };
    let table = [
        ("UPDATE decision SET path = '/other' WHERE seq = 17", 17),
        ("UPDATE decision SET verdict = 0 WHERE seq = 11", 11),
        ("UPDATE decision SET client = client + 1 WHERE seq = 200", 200),
        ("UPDATE decision SET time = time + 1 WHERE seq = 200", 200),
        ("UPDATE refusal SET status = 404 WHERE seq = 12", 12),
        ("DELETE FROM decision WHERE seq = 17", 17),
        ("DELETE FROM decision WHERE seq < 17", 12),
        ("DELETE FROM refusal WHERE seq = 12", 12),
        ("DELETE FROM decision WHERE seq >= 199", 200),
        ("DELETE FROM decision; DELETE FROM refusal", 1),
        ("UPDATE decision SET chain = NULL WHERE seq = 17", 17),
        ("UPDATE decision SET chain = NULL WHERE seq >= 17", 17),
        ("UPDATE scope SET route = 'shop/other'", 1),
        ("UPDATE peer SET identity = 'shop/other'", 1),
        ("UPDATE word SET text = 'POST' WHERE text = 'GET'", 1),
        ("DELETE FROM link", 1),
        ("DELETE FROM chain_end", 1),
        ("UPDATE chain_end SET last = 199", 200),
        ("DELETE FROM decision WHERE seq = 200; UPDATE chain_end SET last = 199", 199),
        // As the log itself would note it, without its key.
        (
            "INSERT INTO link SELECT 17, 17, chain, chain FROM decision WHERE seq = 17; DELETE FROM decision WHERE seq = 17",
            17,
        ),
        (
            "UPDATE decision SET seq = 201 WHERE seq = 17; UPDATE decision SET seq = 17 WHERE seq = 18; UPDATE decision SET seq = 18 WHERE seq = 201",
            17,
        ),
        (
            "INSERT INTO decision (seq, time, kind, repeat, verdict, reason, scope, peer, sni, resumed, protocol, method, host, path, status, request_bytes, response_bytes, duration_us, connect_us, upstream_us, upstream, attempts, client, request_id, trace_id, queue_us, grpc_status, limiter, message_type, chain, captured, bodies) SELECT 201, time, kind, repeat, verdict, reason, scope, peer, sni, resumed, protocol, method, host, path, status, request_bytes, response_bytes, duration_us, connect_us, upstream_us, upstream, attempts, client, request_id, trace_id, queue_us, grpc_status, limiter, message_type, chain, captured, bodies FROM decision WHERE seq = 200",
            201,
        ),
    ];
    let (_folder, path) = folder();
    let options = keyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..200, mixed);
    close(store);
    assert_eq!(counted(&options), Ok((200, 0, 0)));
    let whole_file = fs::read(&path).unwrap();
    for (deed, expected) in table {
        fs::write(&path, &whole_file).unwrap();
        execute(&path, deed);
        assert_eq!(seq(verified(&options)), Some(expected), "{deed}");
        // The gate that goes on hides nothing of it.
        let mut store = open(&options);
        write(&mut store, 200..300, mixed);
        close(store);
        assert!(verified(&options).is_err(), "{deed}, then a restart");
    }
}

/// A copy of a log that is one file: one that is written over may still be open, with what was done to it before.
fn copied(options: &StoreOptions, number: usize) -> StoreOptions {
    let path = options.path.with_file_name(format!("copy-{number}.db"));
    fs::copy(&options.path, &path).unwrap();
    StoreOptions { path, ..options.clone() }
}

#[test]
fn a_note_that_goes_too_far_is_found() {
    let (_folder, path) = folder();
    let options = keyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..200, mixed);
    close(store);
    let chain = options.chain.open().unwrap().unwrap();
    // As the log itself notes rows, with its key: of numbers up to the second, with the hash of the row `seq`.
    let note = |path: &Path, first: i64, last: i64, seq: i64| {
        block_on(async {
            let mut connection = connect(path).await;
            let sql = "SELECT (SELECT value FROM meta WHERE key = 'store'), unhex(chain) FROM entry WHERE seq = ?";
            let row = sqlx::query_as(sql).bind(seq).fetch_one(&mut connection).await;
            let (store, hash): (i64, Vec<u8>) = row.unwrap();
            let proof = chain.removed(store, first, last, &hash[..].try_into().unwrap());
            let sql = "INSERT INTO link VALUES (?, ?, ?, ?)";
            let note = sqlx::query(sql).bind(last).bind(first).bind(&hash).bind(proof.to_vec());
            note.execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    };
    let table = [
        // Noted, and then the log was killed before it deleted them.
        ((17, 20, 20), "", Ok((200, 0, 0))),
        ((17, 20, 20), "DELETE FROM decision WHERE seq BETWEEN 17 AND 20", Ok((196, 4, 0))),
        ((17, 20, 20), "DELETE FROM decision WHERE seq BETWEEN 17 AND 19", Err(Fault::Forged { first: 17, last: 20 })),
        ((17, 20, 20), "DELETE FROM decision WHERE seq = 17", Err(Fault::Forged { first: 17, last: 20 })),
        ((200, 200, 200), "DELETE FROM decision WHERE seq = 200", Ok((199, 1, 0))),
        ((200, 201, 200), "DELETE FROM decision WHERE seq = 200", Err(Fault::Forged { first: 200, last: 201 })),
    ];
    for (number, ((first, last, seq), deed, expected)) in table.into_iter().enumerate() {
        let copy = copied(&options, number);
        note(&copy.path, first, last, seq);
        execute(&copy.path, deed);
        assert_eq!(counted(&copy), expected, "{first} to {last} noted, {deed}");
    }
}

#[test]
fn a_cell_of_another_kind_is_found() {
    let (_folder, path) = folder();
    let options = StoreOptions { body_key: Some(Arc::new(key())), ..keyed(&path, whole(LARGE)) };
    let mut store = open(&options);
    let full = |number| Record {
        captured: Some(r#"{"headers":{"x-tenant":"a"}}"#.into()),
        bodies: bodies(b"asked", b"answered"),
        message_type: Some(Message::Call("shop.v1.Stock/Count".into())),
        ..request(number)
    };
    write(&mut store, 0..20, |number| if number == 10 { full(number) } else { request(number) });
    close(store);
    assert_eq!(counted(&options), Ok((20, 0, 0)));
    // What a row has, and what it does not have.
    let mut number = 0;
    for column in
        ["captured", "bodies", "request_id", "trace_id", "message_type", "path", "status", "grpc_status", "queue_us"]
    {
        for value in ["x'00'", "x'0000'", "1.5", "-0.5", "'?'"] {
            for seq in [11, 17] {
                number += 1;
                let copy = copied(&options, number);
                execute(&copy.path, &format!("UPDATE decision SET {column} = {value} WHERE seq = {seq}"));
                let found = verified(&copy);
                assert!(matches!(&found, Err(Fault::Changed(row)) if row.seq == seq), "{column} = {value}: {found:?}");
            }
        }
    }
}

#[test]
fn a_view_that_lies_is_found() {
    let (_folder, path) = folder();
    let options = unkeyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..10, mixed);
    close(store);
    let view = block_on(async {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = 'entry'";
        sqlx::query_scalar::<_, String>(sql).fetch_one(&mut connect(&path).await).await.unwrap()
    });
    execute(&path, &format!("DROP VIEW entry; {}", view.replace("WHEN 1 THEN 'refused'", "WHEN 1 THEN 'allowed'")));
    let found = verified(&options);
    assert!(matches!(&found, Err(Fault::Changed(row)) if row.seq == 1), "{found:?}");
}

#[test]
fn without_a_key_a_hash_that_is_kept_elsewhere_shows_a_chain_made_anew() {
    let (_folder, path) = folder();
    let options = unkeyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..100, mixed);
    close(store);
    let anchor = ask(&path, "SELECT chain FROM requests WHERE path = '/orders/98'");
    assert!(anchored(&options, Some(&anchor)).unwrap().has_anchor);
    // Somebody writes the same rows, but for one, and chains them as anybody can.
    fs::remove_file(&path).unwrap();
    let mut store = open(&options);
    write(&mut store, 0..100, |number| if number == 50 { request(number) } else { mixed(number) });
    close(store);
    let found = anchored(&options, Some(&anchor)).unwrap();
    assert_eq!((found.rows, found.has_anchor), (100, false));
}

#[test]
fn a_chain_that_comes_later_covers_what_comes_then() {
    let (_folder, path) = folder();
    let plain = options(&path, whole(LARGE));
    let mut store = open(&plain);
    write(&mut store, 0..50, mixed);
    close(store);
    let options = unkeyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 50..120, mixed);
    close(store);
    assert_eq!(counted(&options), Ok((70, 0, 50)));
    // One that is switched off ends, and that is no secret.
    let mut store = open(&plain);
    write(&mut store, 120..130, mixed);
    close(store);
    assert!(matches!(verified(&options), Err(Fault::NoHash(row)) if row.seq == 121));
}

#[test]
fn another_key_does_not_fit_and_begins_anew() {
    let (_folder, path) = folder();
    let options = keyed(&path, whole(LARGE));
    let mut store = open(&options);
    write(&mut store, 0..10, mixed);
    close(store);
    let other = unkeyed(&path, whole(LARGE));
    assert!(matches!(verified(&other), Err(Fault::NoBeginning(row)) if row.seq == 1));
    let mut store = open(&other);
    write(&mut store, 10..20, mixed);
    close(store);
    assert!(matches!(verified(&options), Err(Fault::Changed(row)) if row.seq == 11));
}

#[test]
fn a_key_that_is_none_is_told_with_its_remedy() {
    let (_folder, path) = folder();
    let key = path.with_file_name("key");
    let chain = Chained::Keyed(key.clone());
    let refused = || chain.open().unwrap_err().to_string().replace(key.to_str().unwrap(), "KEY");
    assert_eq!(refused(), "the chain's key KEY: No such file or directory (os error 2)");
    fs::write(&key, "too short\n").unwrap();
    assert_eq!(refused(), "the chain's key KEY: it has 9 bytes; write at least 16");
}
