//! What stays known of a name, and when it is looked up again.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Answer, Known, Standing};
use crate::limits::{DNS_ADDRESSES, DNS_NEGATIVE_TTL_MAX, DNS_RETRY, DNS_STALE_MAX, DNS_TTL_MAX, DNS_TTL_MIN};

fn found(addresses: &[&str], ttl: u64) -> Answer {
    Answer::Found(addresses.iter().map(|address| address.parse().unwrap()).collect(), Duration::from_secs(ttl))
}

fn nothing(ttl: u64) -> Answer {
    Answer::Nothing(Duration::from_secs(ttl))
}

fn failed() -> Answer {
    Answer::Failed("no answer".to_owned())
}

fn texts(known: &Known) -> Vec<String> {
    known.addresses().iter().map(IpAddr::to_string).collect()
}

#[test]
fn times_have_bounds() {
    let table = [
        (found(&["10.0.0.1"], 0), nothing(3000), DNS_TTL_MIN),
        (found(&["10.0.0.1"], 20), nothing(3000), Duration::from_secs(20)),
        (found(&["10.0.0.1"], 86_400), found(&["fd00::1"], 86_400), DNS_TTL_MAX),
        (nothing(0), nothing(3000), DNS_TTL_MIN),
        (nothing(3000), nothing(3000), DNS_NEGATIVE_TTL_MAX),
        // The earlier of both.
        (found(&["10.0.0.1"], 20), found(&["fd00::1"], 10), Duration::from_secs(10)),
        (found(&["10.0.0.1"], 200), failed(), DNS_RETRY),
        (failed(), failed(), DNS_RETRY),
    ];
    for (four, six, wait) in table {
        let told = format!("{four:?} {six:?}");
        assert_eq!(Known::default().after([four, six], Instant::now()).1, wait, "{told}");
    }
}

#[test]
fn what_is_known_is_what_was_said_last() {
    /// Answers one after the other, and what is known after the last.
    type Row = (Vec<[Answer; 2]>, &'static [&'static str], Standing);
    let one = || found(&["10.0.0.1"], 5);
    let six = || found(&["fd00::1"], 5);
    let table: [Row; 10] = [
        (vec![], &[], Standing::Unresolved),
        (vec![[one(), nothing(5)]], &["10.0.0.1"], Standing::Resolved),
        (vec![[nothing(5), six()]], &["fd00::1"], Standing::Resolved),
        (
            vec![[found(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], 5), six()]],
            &["10.0.0.1", "10.0.0.2", "fd00::1"],
            Standing::Resolved,
        ),
        (vec![[one(), six()], [found(&["10.0.0.9"], 5), nothing(5)]], &["10.0.0.9"], Standing::Resolved),
        (vec![[failed(), failed()]], &[], Standing::Unresolved),
        // A server that fails takes nothing away, of one family or of both.
        (vec![[one(), six()], [failed(), failed()]], &["10.0.0.1", "fd00::1"], Standing::Stale),
        (vec![[one(), six()], [found(&["10.0.0.9"], 5), failed()]], &["10.0.0.9", "fd00::1"], Standing::Stale),
        (vec![[one(), failed()]], &["10.0.0.1"], Standing::Resolved),
        // One that says that there is nothing does.
        (vec![[one(), six()], [nothing(5), nothing(5)]], &[], Standing::Unresolved),
    ];
    for (answers, expected, standing) in table {
        let told = format!("{answers:?}");
        let known = answers.into_iter().fold(Known::default(), |known, answer| known.after(answer, Instant::now()).0);
        assert_eq!(
            (texts(&known), known.standing()),
            (expected.iter().map(|text| (*text).to_owned()).collect(), standing),
            "{told}"
        );
    }
}

#[test]
fn what_nobody_confirms_is_given_up_at_last() {
    let start = Instant::now();
    let (known, _) = Known::default().after([found(&["10.0.0.1"], 60), nothing(5)], start);
    let until = start + Duration::from_secs(60) + DNS_STALE_MAX;
    let just_before = until - Duration::from_millis(1);
    let after = |now| known.clone().after([failed(), failed()], now).0.standing();
    assert_eq!([just_before, until].map(after), [Standing::Stale, Standing::Unresolved]);
}

#[test]
fn no_name_has_more_addresses_than_so_many() {
    let many = (0..1000).map(|index: u32| IpAddr::from(std::net::Ipv4Addr::from(index))).collect();
    let (known, _) = Known::default().after([Answer::Found(many, DNS_TTL_MIN), nothing(5)], Instant::now());
    assert_eq!(known.addresses().len(), DNS_ADDRESSES);
}
