//! Which refusals are rows of their own, and what the others become.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::super::record::{Peer, PeerFacts, Scope, ScopeFacts};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A refused handshake in the given second, from this address, with a certificate of this fingerprint.
fn refusal(second: u64, address: &str, fingerprint: &str) -> Box<Record> {
    let fingerprint = (!fingerprint.is_empty()).then(|| fingerprint.into());
    let scope = ScopeFacts { listener: Some("gate".into()), ..ScopeFacts::default() };
    Box::new(Record {
        reason: Some(Reason::TlsUnknownCa),
        scope: Some(Arc::new(Scope::new(scope))),
        peer: Some(Arc::new(Peer::new(PeerFacts { fingerprint, ..PeerFacts::default() }))),
        sni: Some("orders.example".into()),
        duration_us: 5,
        client_addr: Some(SocketAddr::new(address.parse().unwrap(), 4242).into()),
        ..Record::new(Kind::Handshake, UNIX_EPOCH + Duration::from_secs(second))
    })
}

/// See [`shown`].
type Shown = (u64, String, String, u64, u64);

/// What a row says of those it stands for: how many, where, which certificate, from when on, how long.
fn shown(record: &Record) -> Shown {
    let client = match record.client_addr {
        None => String::new(),
        Some(Client::Address(address)) => address.to_string(),
        Some(Client::Network(network)) => network.to_string(),
    };
    let fingerprint = record.peer.as_ref().and_then(|peer| peer.fingerprint.as_deref()).unwrap_or_default();
    let began = record.time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    (record.repeat, client, fingerprint.to_owned(), began, record.duration_us)
}

/// Refusals of one window: how many are rows of their own, and what the others become.
fn counted(records: impl IntoIterator<Item = Box<Record>>) -> (usize, Vec<Shown>) {
    let (mut refusals, now) = (Refusals::new(MINUTE), Instant::now());
    let rows = records.into_iter().filter_map(|record| refusals.take(record, now, false)).count();
    let held = refusals.held();
    let joined = refusals.flush();
    assert_eq!(joined.iter().map(|record| record.repeat).sum::<u64>(), held);
    assert_eq!((refusals.held(), refusals.due()), (0, None));
    (rows, joined.iter().map(|record| shown(record)).collect())
}

#[test]
fn the_first_ten_of_a_key_are_rows_and_the_rest_share_one() {
    let row = |repeat, client: &str, fingerprint: &str, began, duration_us| {
        (repeat, client.to_owned(), fingerprint.to_owned(), began, duration_us)
    };
    let flood = |count: u64, address: &'static str, fingerprint: &'static str| {
        (0..count).map(move |second| refusal(second, address, fingerprint)).collect::<Vec<_>>()
    };
    let table = [
        ("none", vec![], (0, vec![])),
        ("ten", flood(10, "192.0.2.9", "f1"), (10, vec![])),
        // One that is alone in its row is told as it was.
        ("eleven", flood(11, "192.0.2.9", "f1"), (10, vec![row(1, "192.0.2.9:4242", "f1", 10, 5)])),
        ("thirty", flood(30, "192.0.2.9", "f1"), (10, vec![row(20, "192.0.2.0/24", "f1", 10, 19_000_000)])),
        ("without a certificate", flood(30, "192.0.2.9", ""), (10, vec![row(20, "192.0.2.0/24", "", 10, 19_000_000)])),
        ("over IPv6", flood(12, "2001:db8:7:8::9", "f1"), (10, vec![row(2, "2001:db8:7::/48", "f1", 10, 1_000_000)])),
        (
            "IPv4 on a socket of IPv6",
            [flood(10, "::ffff:192.0.2.1", "f1"), flood(2, "192.0.2.200", "f1")].concat(),
            (10, vec![row(2, "192.0.2.0/24", "f1", 0, 1_000_000)]),
        ),
        ("from two networks", [flood(10, "192.0.2.9", "f1"), flood(10, "192.0.3.9", "f1")].concat(), (20, vec![])),
        ("with two certificates", [flood(10, "192.0.2.9", "f1"), flood(10, "192.0.2.9", "f2")].concat(), (20, vec![])),
    ];
    for (case, records, expected) in table {
        assert_eq!(counted(records), expected, "{case}");
    }
}

#[test]
fn what_is_refused_for_another_reason_or_elsewhere_is_another_key() {
    let changes: [fn(&mut Record); 3] = [
        |record| record.reason = Some(Reason::TlsExpired),
        |record| record.kind = Kind::Connection,
        |record| record.scope = None,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let same = (0..10).map(|second| refusal(second, "192.0.2.9", "f1"));
        let mut other = refusal(11, "192.0.2.9", "f1");
        change(&mut other);
        assert_eq!(counted(same.chain([other])), (11, vec![]), "{index}");
    }
}

#[test]
fn too_many_keys_share_one() {
    let strangers = |count: u64| (0..count).map(|number| refusal(7, "192.0.2.9", &format!("f{number}")));
    let most = KEYS as u64;
    assert_eq!(counted(strangers(most)), (KEYS, vec![]));
    assert_eq!(counted(strangers(most + 10)), (KEYS + 10, vec![]));
    // They have the network in common and not the certificate.
    let row = (500, "192.0.2.0/24".to_owned(), String::new(), 7, 5);
    assert_eq!(counted(strangers(most + 510)), (KEYS + 10, vec![row]));
    // A key that is known stays told apart.
    let known = (0..20).map(|_| refusal(7, "192.0.2.9", "f0"));
    let rows = counted(strangers(most).chain(known));
    assert_eq!(rows, (KEYS + 9, vec![(11, "192.0.2.0/24".to_owned(), "f0".to_owned(), 7, 5)]));
    let elsewhere = (0..20).map(|number| refusal(7, &format!("10.0.{number}.1"), "new"));
    let rows = counted(strangers(most).chain(elsewhere));
    assert_eq!(rows, (KEYS + 10, vec![(10, String::new(), "new".to_owned(), 7, 5)]));
}

#[test]
fn a_window_begins_with_its_first_refusal_and_lasts_until_what_is_held_is_written() {
    let (mut refusals, start) = (Refusals::new(MINUTE), Instant::now());
    let rows = |refusals: &mut Refusals, seconds, count| {
        let now = start + Duration::from_secs(seconds);
        (0..count).filter_map(|_| refusals.take(refusal(seconds, "192.0.2.9", "f1"), now, false)).count()
    };
    assert_eq!(rows(&mut refusals, 0, 6), 6);
    assert_eq!(rows(&mut refusals, 59, 4), 4);
    assert_eq!(refusals.due(), None, "nothing is held");
    assert_eq!(rows(&mut refusals, 60, 10), 10, "a window with nothing to write ends by itself");
    assert_eq!(rows(&mut refusals, 90, 3), 0);
    assert_eq!(refusals.due(), Some(start + Duration::from_secs(120)));
    // The store is away: nothing is written, and nothing grows.
    assert_eq!(rows(&mut refusals, 1000, 20), 0);
    assert_eq!(refusals.due(), Some(start + Duration::from_secs(120)));
    let held: Vec<_> = refusals.flush().iter().map(|record| shown(record)).collect();
    assert_eq!(held, [(23, "192.0.2.0/24".to_owned(), "f1".to_owned(), 90, 910_000_000)]);
    assert_eq!(rows(&mut refusals, 1001, 11), 10);
}

#[test]
fn without_a_place_in_the_queue_all_share_a_row() {
    let (mut refusals, now) = (Refusals::new(MINUTE), Instant::now());
    for second in 0..5 {
        assert!(refusals.take(refusal(second, "192.0.2.9", "f1"), now, true).is_none());
    }
    assert!(refusals.take(refusal(5, "192.0.2.9", "f1"), now, false).is_some());
    assert_eq!(refusals.flush().iter().map(|record| record.repeat).collect::<Vec<_>>(), [5]);
}

#[test]
fn of_each_client_ten_refusals_a_minute_are_rows() {
    let (mut refusals, start) = (Refusals::new(WINDOW), Instant::now());
    let mut rows = std::collections::BTreeMap::<_, u64>::new();
    // Each second one of one client, and ten of another.
    for second in 0..180 {
        let now = start + Duration::from_secs(second);
        if refusals.due().is_some_and(|due| due <= now) {
            assert_eq!(second % 60, 0, "what is held becomes rows by the minute");
            let held: Vec<_> = refusals.flush().iter().map(|record| shown(record).0).collect();
            assert_eq!(held.iter().sum::<u64>(), 50 + 590);
        }
        for (client, count) in [("192.0.2.9", 1), ("198.51.100.9", 10)] {
            for _ in 0..count {
                let row = refusals.take(refusal(second, client, "f1"), now, false);
                *rows.entry((second / 60, client)).or_default() += u64::from(row.is_some());
            }
        }
    }
    let expected = (0..3).flat_map(|minute| ["192.0.2.9", "198.51.100.9"].map(|client| ((minute, client), 10)));
    assert_eq!(rows, expected.collect());
}
