//! What is deleted while rows are still to be sent.

use std::fs;

use super::super::links::Chained;
use super::super::segments::{self, Compressor, Retention, Segment};
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
        let thinned = full.next_to_go(&path, 2).unwrap();
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

#[test]
fn what_was_refused_and_is_still_to_be_sent_goes_after_all_that_was_allowed() {
    let (_folder, path) = folder();
    let sizes = small(64 << 20);
    let mut store = open(&path, sizes);
    write(&mut store, 0..12_000);
    block_on(store.close_clean()).unwrap();
    compress(&path, sizes);
    let closed = segments::list(&path).unwrap();
    for segment in &closed[..4] {
        let plain = segment.path(&path).display().to_string();
        fs::rename(format!("{plain}.zst"), format!("{plain}.refused.zst")).unwrap();
    }
    // They take twice as much as their part.
    let thinned: u64 = closed[..4].iter().map(|segment| segment.bytes(&path)).sum();
    let sizes = Sizes { total: 2 * thinned, ..sizes };
    for (shipped, expected) in
        [(0, closed[4].clone()), (closed[0].last, closed[0].clone()), (closed[5].last, closed[0].clone())]
    {
        let stats = Arc::new(Stats::default());
        stats.ship.begin(true, (shipped, 0));
        let retention = Retention { sizes, wal_bytes: 0, stats };
        let to_go = retention.to_go(&path, 1, SystemTime::now()).unwrap();
        assert_eq!(to_go.for_size.first(), Some(&expected), "up to {shipped} was sent");
    }
}

#[test]
fn what_cannot_be_read_now_is_not_damaged() {
    let (_folder, path) = folder();
    let sizes = small(64 << 20);
    let mut store = open(&path, sizes);
    write(&mut store, 0..5_000);
    block_on(store.close_clean()).unwrap();
    let segment = segments::list(&path).unwrap().remove(0);
    // What takes its place is no file: it cannot be opened, as any where there is no descriptor left.
    let (plain, kept) = (segment.path(&path), path.with_file_name("kept"));
    for end in ["", ".zst"] {
        let place = PathBuf::from(format!("{}{end}", plain.display()));
        fs::rename(&place, &kept).unwrap();
        fs::create_dir(&place).unwrap();
        assert!(block_on(segments::open(&path, &segment)).is_err(), "{end}");
        assert!(block_on(query::sql(&path, "SELECT 1 FROM requests", Output::Json, &mut Vec::new())).is_err(), "{end}");
        let mut compressor = Compressor::new(path.clone(), sizes, Arc::default(), Chained::Off);
        compressor.start();
        wait("that it gives up", || !compressor.is_at_work());
        assert!(place.is_dir(), "{end}: nothing is set aside");
        fs::remove_dir(&place).unwrap();
        fs::rename(&kept, &place).unwrap();
        compress(&path, sizes);
        assert!(block_on(segments::open(&path, &segment)).unwrap().is_some(), "{end}");
    }
}
