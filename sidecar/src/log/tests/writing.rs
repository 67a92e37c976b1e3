//! From the queue into the file: complete, bounded, and through every failure of the store.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::writer::{RETRY_MIN, longer};
use super::segments::bytes;
use super::*;

/// Opens the store, writes `rows` and leaves it as a kill does.
fn killed(path: &Path, rows: u64) {
    let options = options(path, whole(LARGE));
    block_on(async {
        let mut store = Store::open(&options, Opening::First).await.unwrap();
        let batch: Vec<_> = (0..rows).map(|number| Box::new(request(number))).collect();
        store.write(&batch).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn a_full_queue_counts_and_never_blocks() {
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = channel(4, 2, Arc::clone(&stats));
    for number in 0..10 {
        sender.send(Box::new(request(number)));
    }
    assert_eq!((stats.queue_depth(), stats.rows_dropped(DropReason::QueueFull)), (4, 6));
    drop(receiver);
    sender.send(Box::new(request(10)));
    assert_eq!(stats.rows_dropped_total(), 7);
}

#[test]
fn the_queue_gathers_full_batches_and_what_is_left() {
    let stats = Arc::new(Stats::default());
    let (sender, receiver) = channel(100, 8, Arc::clone(&stats));
    for number in 0..20 {
        sender.send(Box::new(request(number)));
    }
    receiver.attach();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let mut batch = Vec::new();
        assert!(receiver.gather(&mut batch, Duration::from_millis(1), None));
        sizes.push(batch.len());
    }
    assert_eq!(sizes, [8, 8, 4]);
    receiver.closer().close(Instant::now());
    assert!(!receiver.gather(&mut Vec::new(), PATIENCE, None), "closed and empty ends at once");
    sender.send(Box::new(request(21)));
    assert_eq!(stats.rows_dropped(DropReason::Stopped), 1);
}

#[test]
fn many_senders_lose_nothing() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let sender = log.sender.clone();
                for number in 0..1500 {
                    sender.send(Box::new(request(number)));
                }
            });
        }
    });
    let stats = Arc::clone(&log.stats);
    assert_eq!(log.stop(), Summary { written: 6000, lost: 0, clean: true });
    assert_eq!((stats.rows_written(), stats.rows_dropped_total(), stats.queue_depth()), (6000, 0, 0));
    assert_eq!(ask(&path, "SELECT count(*), sum(repeat), count(DISTINCT id) FROM requests"), "6000,6000,6000");
    // Every record brought scope and peer of its own, of the same content.
    assert_eq!(ask(&path, "SELECT (SELECT count(*) FROM scope), (SELECT count(*) FROM peer)"), "1,1");
}

#[test]
fn the_file_is_its_owners_only() {
    let (_folder, path) = folder();
    written(&path, vec![request(1)]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn shared_rows_are_found_again_after_a_restart() {
    let (_folder, path) = folder();
    written(&path, vec![request(1)]);
    written(&path, vec![request(2)]);
    assert_eq!(ask(&path, "SELECT (SELECT count(*) FROM scope), (SELECT count(*) FROM peer)"), "1,1");
    assert_eq!(ask(&path, "SELECT count(*) FROM word"), "2", "GET and the host");
    assert_eq!(ask(&path, "SELECT count(*) FROM requests WHERE kind = 'gap'"), "0");
}

#[test]
fn a_store_that_appears_late_gets_every_row() {
    let (folder, _) = folder();
    let late = folder.path().join("late");
    let path = late.join("requests.db");
    let log = Log::start(&path, LARGE);
    for number in 0..100 {
        log.sender.send(Box::new(request(number)));
    }
    wait("the first failure", || log.stats.write_errors() > 0);
    assert!(!log.stats.store_up());
    fs::create_dir(&late).unwrap();
    wait("the rows", || log.stats.rows_written() == 100);
    assert!(log.stats.store_up());
    assert_eq!(log.stop(), Summary { written: 100, lost: 0, clean: true });
    assert_eq!(ask(&path, "SELECT count(*), sum(kind = 'gap') FROM requests"), "100,0");
}

#[test]
fn a_locked_store_gets_every_row_afterwards() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    wait("the store", || log.stats.store_up());
    block_on(async {
        let mut other = connect(&path).await;
        sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
        for number in 0..50 {
            log.sender.send(Box::new(request(number)));
        }
        wait("a failed attempt", || log.stats.write_errors() > 0);
        assert_eq!(log.stats.rows_written(), 0);
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    });
    wait("the rows", || log.stats.rows_written() == 50);
    assert_eq!(log.stop(), Summary { written: 50, lost: 0, clean: true });
    assert_eq!(ask(&path, "SELECT count(*), count(DISTINCT id) FROM requests"), "50,50");
}

#[test]
fn a_store_that_is_repaired_is_tried_within_five_seconds() {
    let pauses = std::iter::successors(Some(RETRY_MIN), |pause| Some(longer(*pause)));
    let milliseconds: Vec<_> = pauses.take(100).map(|pause| pause.as_millis()).collect();
    assert_eq!(milliseconds[..8], [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert_eq!(milliseconds.iter().max(), Some(&5000));
}

#[test]
fn a_removed_file_is_made_anew() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    log.sender.send(Box::new(request(1)));
    wait("the first row", || log.stats.rows_written() == 1);
    fs::remove_file(&path).unwrap();
    log.sender.send(Box::new(request(2)));
    wait("the second row", || log.stats.rows_written() == 2);
    let _ = log.stop();
    assert_eq!(ask(&path, "SELECT path FROM requests"), "/orders/2");
}

#[test]
fn what_cannot_be_written_at_the_stop_is_counted() {
    let (folder, _) = folder();
    let log = Log::start(&folder.path().join("absent").join("requests.db"), LARGE);
    for number in 0..30 {
        log.sender.send(Box::new(request(number)));
    }
    let stats = Arc::clone(&log.stats);
    assert_eq!(log.writer.stop(Duration::from_millis(50)), Summary { written: 0, lost: 30, clean: false });
    assert_eq!(stats.rows_dropped(DropReason::WriteFailed), 30);
}

#[test]
fn a_kill_leaves_a_gap() {
    let (_folder, path) = folder();
    killed(&path, 3);
    written_after_kill(&path);
    assert_eq!(
        ask(&path, "SELECT kind, repeat, coalesce(verdict, 'none'), pod, duration_us > 0 FROM requests"),
        "request,1,allowed,orders-1,1\n".repeat(3) + "gap,0,none,orders-1,1"
    );
    // The start after a clean stop finds nothing missing.
    written_after_kill(&path);
    assert_eq!(ask(&path, "SELECT sum(kind = 'gap'), sum(repeat) FROM requests"), "1,3");
}

fn written_after_kill(path: &Path) {
    let log = Log::start(path, LARGE);
    wait("the store", || log.stats.store_up());
    assert!(log.stop().clean);
}

#[test]
fn a_kill_before_the_first_row_is_a_gap_of_no_length() {
    let (_folder, path) = folder();
    killed(&path, 0);
    written_after_kill(&path);
    assert_eq!(ask(&path, "SELECT kind, duration_us FROM requests"), "gap,0");
}

#[test]
fn the_size_is_bounded_and_the_newest_rows_stay() {
    let (_folder, path) = folder();
    let max_size = 2 << 20;
    let options = options(&path, whole(max_size));
    let rows = block_on(async {
        let mut store = Store::open(&options, Opening::First).await.unwrap();
        let mut pruned = 0;
        let mut number = 0;
        // A stranger with a new certificate each time: the worst for what rows share.
        while pruned < 20_000 {
            let batch: Vec<_> = (0..500)
                .map(|row| {
                    let peer = Some(Arc::new(peer(&format!("stranger-{}", (number + row) / 5))));
                    Box::new(Record { peer, ..request(number + row) })
                })
                .collect();
            let written = store.write(&batch).await.unwrap();
            number += 500;
            pruned += written.pruned;
            assert!(bytes(&path) <= max_size, "{} bytes", bytes(&path));
        }
        store.close_clean().await.unwrap();
        (number, pruned)
    });
    let (number, pruned) = rows;
    assert_eq!(
        ask(&path, "SELECT count(*), max(seq), min(seq) FROM entry"),
        format!("{},{number},{}", number - pruned, pruned + 1)
    );
    assert_eq!(ask(&path, "SELECT count(*) FROM requests WHERE identity IS NULL OR route IS NULL"), "0");
    let peers: u64 = ask(&path, "SELECT count(*) FROM peer").parse().unwrap();
    assert!(peers < (number - pruned + 2 * 4096) / 5, "peers of deleted rows stay: {peers}");
}

#[test]
fn a_reader_that_does_not_end_bounds_the_log_and_no_row_is_lost() {
    let (_folder, path) = folder();
    let options = options(&path, whole(2 << 20));
    block_on(async {
        let mut store = Store::open(&options, Opening::First).await.unwrap();
        store.write(&[Box::new(request(0))]).await.unwrap();
        let mut reader = connect(&path).await;
        sqlx::raw_sql("BEGIN; SELECT * FROM decision").execute(&mut reader).await.unwrap();
        let batch: Vec<_> = (0..500).map(|number| Box::new(request(number))).collect();
        let error = loop {
            if let Err(error) = store.write(&batch).await {
                break error;
            }
        };
        assert!(matches!(error, StoreError::Pinned), "{error}");
        store.close().await.unwrap();
        let mut store = Store::open(&options, Opening::Again).await.unwrap();
        assert!(matches!(store.write(&batch).await, Err(StoreError::Pinned)));
        sqlx::raw_sql("ROLLBACK").execute(&mut reader).await.unwrap();
        store.write(&batch).await.unwrap();
        store.close_clean().await.unwrap();
        reader.close().await.unwrap();
    });
}

#[test]
fn files_of_others_and_of_the_future_are_refused() {
    let cases = [
        ("CREATE TABLE other (a)", "it is a database, but not a request log: use another file"),
        (
            "CREATE TABLE decision (a); PRAGMA user_version = 1",
            "it is a database, but not a request log: use another file",
        ),
        (
            "PRAGMA user_version = 9",
            "its schema is version 9 and this program knows versions up to 8: use a newer one, or another file",
        ),
    ];
    for (made_by, expected) in cases {
        let (_folder, path) = folder();
        fs::write(&path, "").unwrap();
        execute(&path, made_by);
        let options = options(&path, whole(LARGE));
        let refused = block_on(Store::open(&options, Opening::First)).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some(expected), "{made_by}");
    }
}

/// What a damage is, and how it is done.
type Damage = (&'static str, fn(&Path));

/// Ways in which a file is damaged.
const DAMAGES: [Damage; 4] = [
    ("no database at all", |path| fs::write(path, "no database at all, and longer than a header".repeat(100)).unwrap()),
    ("a header of garbage", |path| overwrite(path, 0, 100)),
    ("a page that is torn", |path| overwrite(path, 4096, 2 * 4096)),
    ("every page but the first", |path| overwrite(path, 4096, fs::metadata(path).unwrap().len())),
];

pub(super) fn overwrite(path: &Path, from: u64, to: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0x5a; usize::try_from(to - from).unwrap()], from).unwrap();
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    for (damage, make) in DAMAGES {
        let (folder, path) = folder();
        written(&path, (0..5000).map(request).collect());
        make(&path);
        let log = Log::start(&path, LARGE);
        for number in 0..50 {
            log.sender.send(Box::new(request(number)));
        }
        // A gap before them says where rows may be missing.
        wait(damage, || log.stats.rows_written() == 50);
        assert_eq!(log.stats.files_set_aside(), 1, "{damage}");
        assert_eq!(log.stop(), Summary { written: 50, lost: 0, clean: true }, "{damage}");
        assert_eq!(ask(&path, "SELECT count(*), sum(repeat), min(kind) FROM requests"), "51,50,gap", "{damage}");
        let aside = folder.path().join("requests.db.damaged");
        assert!(fs::metadata(&aside).unwrap().len() > 4000, "{damage}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{damage}");
    }
}

#[test]
fn places_of_what_was_written_are_used_again() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    let scope = Arc::new(scope());
    let record = log.sender.place(Record { scope: Some(Arc::clone(&scope)), ..request(1) });
    let place = &raw const *record;
    log.sender.send(record);
    // What a generation owns is not kept with a place: the next row may be long in coming. The writer knows it for its id.
    wait("the row is let go", || log.stats.rows_written() == 1 && Arc::strong_count(&scope) == 2);
    // Held on to, or the next one could have their place by chance.
    let others = RefCell::new(Vec::new());
    wait("its place is there again", || {
        let record = log.sender.place(request(2));
        let is_same = std::ptr::eq(&raw const *record, place);
        others.borrow_mut().push(record);
        is_same
    });
    let again = others.borrow_mut().pop().unwrap();
    log.sender.send(again);
    assert_eq!(log.stop(), Summary { written: 2, lost: 0, clean: true });
    assert_eq!(ask(&path, "SELECT path FROM decision ORDER BY seq"), "/orders/1\n/orders/2");
}
