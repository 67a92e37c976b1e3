//! What is captured: its place in files, also in those of before, its room in the queue, and its salt.

use super::super::queue::CAPTURED_BYTES;
use super::super::salt::Salt;
use super::super::stats::CaptureLoss;
use super::*;

/// Half of the HMAC of `alice` with salt `0123456789abcdef`: what openssl says.
const ALICE: &str = "fdbf8b1cacd3d578e062d0e41104357d";

fn capturing(number: u64, text: &str) -> Record {
    Record { captured: Some(text.into()), ..request(number) }
}

#[test]
fn it_comes_back_by_columns_and_by_what_is_in_it() {
    let (_folder, path) = folder();
    let tenant = r#"{"headers":{"x-tenant":"a"}}"#;
    // A stranger's row is in another table.
    let stranger = Record { peer: None, verdict: Verdict::Refused, ..capturing(1, tenant) };
    written(&path, vec![capturing(0, tenant), stranger, request(2)]);
    assert_eq!(
        ask(&path, "SELECT path, captured ->> '$.headers.x-tenant' FROM requests ORDER BY path"),
        "/orders/0,a\n/orders/1,a\n/orders/2,"
    );
}

/// What version 7 left: its columns, a row of a known client and one of a stranger.
const VERSION_7: &str = concat!(
    include_str!("schema-5.sql"),
    "ALTER TABLE decision ADD COLUMN message_type; ALTER TABLE decision ADD COLUMN chain BLOB;
     ALTER TABLE refusal ADD COLUMN message_type; ALTER TABLE refusal ADD COLUMN chain BLOB;
     CREATE TABLE link (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, hash BLOB NOT NULL, proof BLOB);
     CREATE TABLE chain_end (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, proof BLOB NOT NULL);
     INSERT INTO decision (seq, time, kind, verdict, path) VALUES (1, 1700000000000000, 0, 0, '/old/0');
     INSERT INTO refusal (seq, time, kind, verdict, path) VALUES (2, 1700000000000001, 0, 1, '/old/1');
     PRAGMA user_version = 7"
);

#[test]
fn a_file_from_before_keeps_its_rows_and_gets_the_columns() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    execute(&path, VERSION_7);
    let stranger = Record { peer: None, verdict: Verdict::Refused, ..capturing(1, "{}") };
    written(&path, vec![capturing(0, "{}"), stranger]);
    assert_eq!(
        ask(&path, "SELECT path, captured, bodies FROM requests ORDER BY time"),
        "/old/0,,\n/old/1,,\n/orders/0,{},\n/orders/1,{},"
    );
    assert_columns_of_a_new_file(&path);
}

#[test]
fn rows_that_wait_have_so_much_of_it_and_no_more() {
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = channel(1000, 1000, Arc::clone(&stats));
    let large = || "a".repeat(CAPTURED_BYTES / 4);
    let send = |number| sender.send(Box::new(capturing(number, &large())));
    (0..6).for_each(send);
    // Four have room, and the others say that they had none.
    assert_eq!(stats.captures_lost(CaptureLoss::QueueFull), 2);
    let mut batch = Vec::new();
    assert!(receiver.gather(&mut batch, Duration::ZERO, None));
    let told: Vec<_> = batch.iter().filter_map(|record| record.captured.as_deref()).collect();
    assert_eq!(told[3..], [large().as_str(), r#"{"truncated":true}"#, r#"{"truncated":true}"#]);
    // What is being written counts until it is.
    send(6);
    assert_eq!(stats.captures_lost(CaptureLoss::QueueFull), 3);
    receiver.recycle(&mut batch);
    (7..10).for_each(send);
    assert_eq!(stats.captures_lost(CaptureLoss::QueueFull), 3);
    receiver.discard();
    assert_eq!(stats.captured_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn what_has_no_place_gives_its_room_back() {
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = channel(2, 2, Arc::clone(&stats));
    (0..5).for_each(|number| sender.send(Box::new(capturing(number, "{}"))));
    assert_eq!(stats.rows_dropped(DropReason::QueueFull), 3);
    let held = || stats.captured_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(held(), 2 * "{}".len());
    drop(receiver);
    sender.send(Box::new(capturing(5, "{}")));
    assert_eq!((stats.rows_dropped_total(), held()), (4, 2 * "{}".len()), "nobody is there to write it");
}

#[test]
fn a_salt_is_of_16_bytes_at_least_and_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Salt::new(Some(path))
    };
    assert_eq!(Salt::new(None).hash(b"alice"), None);
    assert_eq!(Salt::new(Some(folder.path().join("none"))).hash(b"alice"), None);
    assert_eq!(file("short", "0123456789abcde\n").hash(b"alice"), None);
    let hash = file("one", "0123456789abcdef\n").hash(b"alice");
    let expected = u128::from_str_radix(ALICE, 16).unwrap().to_be_bytes();
    assert_eq!(hash, Some(expected));
    assert_ne!(file("other", "fedcba9876543210").hash(b"alice"), hash);
    // Equal values stay equal, whatever becomes of the file.
    let salt = file("changed", "0123456789abcdef");
    assert_eq!(salt.hash(b"alice"), hash);
    file("changed", "fedcba9876543210");
    assert_eq!(salt.hash(b"alice"), hash);
}

#[test]
fn what_is_wrong_with_a_salt_is_told_once_and_again_where_it_is_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("salt");
    let (salt, start) = (Salt::new(Some(path.clone())), Instant::now());
    let told = |seconds| {
        let why = salt.look(start + Duration::from_secs(seconds));
        why.map(|why| why.replace(path.to_str().unwrap(), "SALT"))
    };
    let missing = Some("SALT: No such file or directory (os error 2)".to_owned());
    let short = Some("SALT has 15 bytes; write at least 16".to_owned());
    assert_eq!([0, 1, 5, 10].map(told), [missing.clone(), None, None, None]);
    std::fs::write(&path, "0123456789abcde\n").unwrap();
    assert_eq!([14, 15, 20, 25].map(told), [None, short, None, None]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!([30, 35].map(told), [missing, None]);
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    assert_eq!([40, 45].map(told), [None, None]);
    assert!(salt.hash(b"alice").is_some());
}
