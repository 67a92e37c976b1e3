//! What is deleted while rows are still to be sent.

use std::fs;

use super::super::segments::{self, Retention, Segment};
use super::segments::{bytes, compress, open, small, write};
use super::*;

#[test]
fn what_is_still_to_be_sent_goes_after_all_that_was() {
    let (_folder, path) = folder();
    let sizes = small(64 << 20);
    let mut store = open(&path, sizes);
    write(&mut store, 0..12_000);
    block_on(store.close_clean()).unwrap();
    compress(&path, sizes);
    let closed = segments::list(&path).unwrap();
    // The oldest two have only what was refused, and the oldest four were sent.
    for segment in &closed[..2] {
        let plain = segment.path(&path).display().to_string();
        fs::rename(format!("{plain}.zst"), format!("{plain}.refused.zst")).unwrap();
    }
    let stats = Arc::new(Stats::default());
    stats.ship.begin(true, (closed[3].last, 0));
    let place = |segment: &Segment| closed.iter().position(|other| other == segment).unwrap();
    let mut turns = Vec::new();
    for _ in 0..6 {
        // Where there is no room at all for more.
        let full = Retention { sizes: Sizes { total: bytes(&path), ..sizes }, wal_bytes: 0, stats: Arc::clone(&stats) };
        let thinned = full.next_to_go(&path).unwrap();
        let before = segments::list(&path).unwrap();
        let one = Retention::new(sizes, &stats);
        make_room(&one, &path, sizes.total - bytes(&path) + 1);
        let after = segments::list(&path).unwrap();
        let gone: Vec<_> = before.iter().filter(|segment| !after.contains(segment)).map(place).collect();
        turns.push((thinned.as_ref().map(place), gone));
    }
    let expected = [
        (Some(2), vec![2]),
        (Some(3), vec![3]),
        // Rather refusals of long ago that were sent.
        (None, vec![0]),
        (None, vec![1]),
        (Some(4), vec![4]),
        (Some(5), vec![5]),
    ];
    assert_eq!(turns, expected);
}
