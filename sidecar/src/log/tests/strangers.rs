//! Refusals before authentication: every one is counted, and none takes the place of what a known client did.

use std::net::Ipv4Addr;

use sidecar_decide::Reason;

use super::*;

/// A refused handshake from one of many addresses, with a certificate of its own.
fn stranger(number: u32) -> Box<Record> {
    let peer = PeerFacts {
        subject: Some(format!("CN=stranger {number}, O={}", "x".repeat(500)).into()),
        fingerprint: Some(format!("sha256:{number:064x}").into()),
        ..PeerFacts::default()
    };
    let address = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 | number << 4), 4242));
    Box::new(Record {
        reason: Some(Reason::TlsUnknownCa),
        scope: Some(Arc::new(Scope::new(ScopeFacts { listener: Some("main".into()), ..ScopeFacts::default() }))),
        peer: Some(Arc::new(Peer::new(peer))),
        client_addr: Some(address.into()),
        ..Record::new(Kind::Handshake, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    })
}

#[test]
fn a_flood_is_few_rows_and_every_refusal_counts() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    thread::scope(|threads| {
        for worker in 0..4 {
            let sender = log.sender.clone();
            threads.spawn(move || (0..5000).for_each(|number| sender.send(stranger(5000 * worker + number))));
        }
    });
    assert_eq!(log.stats.refusals_held(), 20_000 - 1010);
    assert_eq!(log.stop(), Summary { written: 1011, lost: 0, clean: true });
    assert_eq!(
        ask(&path, "SELECT count(*), sum(repeat), max(repeat), count(DISTINCT id) FROM requests"),
        "1011,20000,18990,1011"
    );
    assert_eq!(
        ask(&path, "SELECT kind, verdict, reason, listener, subject, client_addr FROM requests WHERE repeat > 1"),
        "handshake,refused,tls_unknown_ca,main,,"
    );
}

#[test]
fn what_is_held_is_written_when_its_time_is_over() {
    let (_folder, path) = folder();
    let log = Log::start_with(Refusals::new(Duration::from_millis(100)), &path, LARGE);
    for _ in 0..30 {
        log.sender.send(stranger(7));
    }
    wait("the shared row", || log.stats.rows_written() == 11);
    assert_eq!((log.stats.refusals_held(), log.stats.queue_depth()), (0, 0));
    let row = "SELECT repeat, client_addr, substr(subject, 1, 13) FROM requests WHERE repeat > 1";
    assert_eq!(ask(&path, row), "20,10.0.0.0/24,CN=stranger 7");
    // The next one begins another window, and a row.
    log.sender.send(stranger(7));
    wait("the next row", || log.stats.rows_written() == 12);
    assert!(log.stop().clean);
}

#[test]
fn while_the_store_is_away_half_the_queue_is_for_known_clients() {
    let (folder, _) = folder();
    let late = folder.path().join("late");
    let path = late.join("requests.db");
    let log = Log::start(&path, LARGE);
    wait("the first failure", || log.stats.write_errors() > 0);
    // Not so many that they share rows for another cause.
    let half = u32::try_from(QUEUE_ROWS).unwrap() / 2;
    for number in 0..half + 1000 {
        log.sender.send(stranger(number % 900));
    }
    assert_eq!((log.stats.queue_depth(), log.stats.refusals_held()), (QUEUE_ROWS / 2 + 1, 999));
    for number in 0..u64::from(half) - 1 {
        log.sender.send(Box::new(request(number)));
    }
    assert_eq!((log.stats.queue_depth(), log.stats.rows_dropped_total()), (QUEUE_ROWS, 0));
    std::fs::create_dir(&late).unwrap();
    let rows = log.stop();
    assert_eq!((rows.lost, rows.clean), (0, true));
    assert_eq!(
        ask(&path, "SELECT sum(repeat), sum(kind = 'request') FROM requests"),
        format!("{},{}", 2 * half + 999, half - 1)
    );
}

#[test]
fn what_is_held_and_cannot_be_written_at_the_stop_is_counted() {
    let (folder, _) = folder();
    let log = Log::start(&folder.path().join("absent").join("requests.db"), LARGE);
    for _ in 0..30 {
        log.sender.send(stranger(7));
    }
    let (stats, sender) = (Arc::clone(&log.stats), log.sender.clone());
    assert_eq!(log.writer.stop(Duration::from_millis(50)), Summary { written: 0, lost: 30, clean: false });
    sender.send(stranger(7));
    let dropped = [DropReason::WriteFailed, DropReason::Stopped].map(|reason| stats.rows_dropped(reason));
    assert_eq!((dropped, stats.waiting()), ([30, 1], 0));
}

/// Writes `count` records, 500 at a time; how many rows made place for them.
fn write(store: &mut Store, max_size: u64, count: u32, record: impl Fn(u32) -> Box<Record>) -> u64 {
    (0..count)
        .step_by(500)
        .map(|first| {
            let batch: Vec<_> = (first..first + 500).map(&record).collect();
            let done = block_on(store.write(&batch)).unwrap();
            assert!(done.live_bytes < max_size + max_size / 4, "{} bytes", done.live_bytes);
            done.pruned + done.pruned_strangers
        })
        .sum()
}

#[test]
fn refusals_of_strangers_displace_themselves_alone() {
    let (_folder, path) = folder();
    let max_size = 4 << 20;
    let options = options(&path, whole(max_size));
    let mut store = block_on(Store::open(&options, Opening::First)).unwrap();
    // What known clients did fills their part of the log.
    while write(&mut store, max_size, 500, |number| Box::new(request(number.into()))) == 0 {}
    let known = "SELECT count(*), min(seq), max(seq) FROM decision";
    let yesterday = ask(&path, known);
    // Far more than the log can hold, in every way a stranger can be refused.
    let pruned = write(&mut store, max_size, 60_000, |number| {
        let record = *stranger(number);
        Box::new(match number % 3 {
            0 => record,
            1 => Record { kind: Kind::Connection, ..record },
            _ => Record { kind: Kind::Request, path: Some("/admin".into()), ..record },
        })
    });
    assert_eq!(ask(&path, known), yesterday);
    let strangers: u64 = ask(&path, "SELECT count(*) FROM refusal").parse().unwrap();
    assert_eq!(strangers + pruned, 60_000);
    assert!((400..2000).contains(&strangers), "{strangers} refusals in an eighth of the log");
    // Their size is in the file: whoever opens it next goes on from there.
    block_on(store.close_clean()).unwrap();
    let mut store = block_on(Store::open(&options, Opening::First)).unwrap();
    let pruned = write(&mut store, max_size, 3000, stranger);
    assert!((2000..4000).contains(&pruned), "{pruned}");
    block_on(store.close_clean()).unwrap();
    assert_eq!(ask(&path, known), yesterday);
    assert_eq!(ask(&path, "SELECT count(*), sum(listener = 'main') FROM refusal_scope"), "1,1");
    assert_eq!(ask(&path, "SELECT count(*) FROM peer"), "1", "what strangers show is in their rows");
    let whole = "SELECT count(*) = count(DISTINCT id), count(*) = count(listener) FROM requests";
    assert_eq!(ask(&path, whole), "1,1");
}

#[test]
fn where_both_have_more_than_their_part_refusals_of_strangers_go_first() {
    let (_folder, path) = folder();
    let mut store = block_on(Store::open(&options(&path, whole(LARGE)), Opening::First)).unwrap();
    let refused = |number: u64| Record { verdict: Verdict::Refused, peer: None, ..request(number) };
    for first in (0..60_000).step_by(500) {
        let batch = (first..first + 500).map(|number| if number % 3 == 0 { refused(number) } else { request(number) });
        block_on(store.write(&batch.map(Box::new).collect::<Vec<_>>())).unwrap();
    }
    block_on(store.close_clean()).unwrap();
    // A smaller size was set, by which both have far too much, and the file cannot be cut.
    std::fs::create_dir(path.with_file_name("requests.db.part")).unwrap();
    let mut store = block_on(Store::open(&options(&path, whole(2 << 20)), Opening::First)).unwrap();
    let mut turns = Vec::new();
    loop {
        let done = block_on(store.write(&[])).unwrap();
        if (done.pruned, done.pruned_strangers) == (0, 0) {
            break;
        }
        turns.push((done.pruned, done.pruned_strangers));
    }
    block_on(store.close_clean()).unwrap();
    // So many as one turn may delete are all theirs, and none is once the others make room.
    assert_eq!(turns[0], (0, 8_000), "{turns:?}");
    let began = turns.iter().position(|(known, _)| *known > 0).unwrap();
    assert!(turns[began + 1..].iter().all(|(_, strangers)| *strangers == 0), "{turns:?}");
    let left = ask(&path, "SELECT (SELECT count(*) FROM decision), (SELECT count(*) FROM refusal)");
    let left: Vec<u64> = left.split(',').map(|count| count.parse().unwrap()).collect();
    assert!(left[0] > 10_000 && (1_000..5_000).contains(&left[1]), "{left:?}, {turns:?}");
}

#[test]
fn who_is_a_stranger() {
    let bundle = |bundle: Option<&str>| {
        Some(Arc::new(Peer::new(PeerFacts { bundle: bundle.map(Into::into), ..PeerFacts::default() })))
    };
    let refused = |kind, peer| Record { peer, ..Record::new(kind, UNIX_EPOCH) };
    let table = [
        (refused(Kind::Handshake, None), true),
        (refused(Kind::Handshake, bundle(Some("fleet"))), true),
        (refused(Kind::Connection, None), true),
        (refused(Kind::Request, None), true),
        (refused(Kind::Request, bundle(None)), true),
        (refused(Kind::Request, bundle(Some("fleet"))), false),
        (Record { verdict: Verdict::Allowed, ..refused(Kind::Request, None) }, false),
        (Record { verdict: Verdict::WouldRefuse, ..refused(Kind::Request, None) }, false),
        (refused(Kind::Cut, None), false),
        (refused(Kind::Gap, None), false),
    ];
    for (record, expected) in table {
        assert_eq!(record.is_strangers(), expected, "{record:?}");
    }
}
