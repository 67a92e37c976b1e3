//! What is deleted while rows are still to be sent.

use std::fs;

use super::super::links::Chained;
use super::super::segments::{self, Compressor, Retention, Segment};
use super::segments::{bytes, compress, open, small, write};
use super::writing::overwrite;
use super::*;

/// A log of which so many segments, the oldest, have only what was refused; its segments.
fn thinned(count: usize) -> (TempDir, PathBuf, Sizes, Vec<Segment>) {
    let (folder, path) = folder();
    let sizes = small(64 << 20);
    let mut store = open(&path, sizes);
    write(&mut store, 0..12_000);
    block_on(store.close_clean()).unwrap();
    compress(&path, sizes);
    let closed = segments::list(&path).unwrap();
    for segment in &closed[..count] {
        let plain = segment.path(&path).display().to_string();
        fs::rename(format!("{plain}.zst"), format!("{plain}.refused.zst")).unwrap();
    }
    (folder, path, sizes, closed)
}

#[test]
fn what_is_still_to_be_sent_goes_after_all_that_was() {
    let (_folder, path, sizes, closed) = thinned(2);
    // The oldest four were sent.
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
    let (_folder, path, sizes, closed) = thinned(4);
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
fn a_cut_waits_until_what_was_refused_and_is_not_sent_has_a_place() {
    let (_folder, path) = folder();
    let sizes = small(2 << 20);
    let stats = Arc::new(Stats::default());
    stats.ship.begin(true, (0, 0));
    let options = StoreOptions { stats: Arc::clone(&stats), ..options(&path, sizes) };
    let mut store = block_on(Store::open(&options, Opening::First)).unwrap();
    // As the writer has it, where its thread is never fast enough.
    let mut compressor = Compressor::new(path.clone(), sizes, stats, Chained::Off);
    let mut waited = 0;
    assert!(!compressor.is_urgent());
    for first in (0..30_000).step_by(100) {
        let verdict = |number| if number == first { Verdict::Refused } else { Verdict::Allowed };
        let row = |number| Box::new(Record { verdict: verdict(number), ..request(number) });
        let batch: Vec<_> = (first..first + 100).map(row).collect();
        let written = block_on(store.write(&batch)).unwrap();
        assert_eq!(written.gone, Gone::default(), "after {first} rows");
        if written.is_short {
            waited += 1;
            assert!(compressor.is_urgent());
            compressor.thin_unsent().unwrap();
            assert!(!compressor.is_urgent());
        }
        assert!(bytes(&path) <= sizes.total, "{}", bytes(&path));
    }
    block_on(store.close_clean()).unwrap();
    assert!(waited > 3, "{waited}");
    assert_eq!(ask(&path, "SELECT count(*) FROM requests WHERE verdict = 'refused'"), "300");
}

#[test]
fn a_live_file_that_is_damaged_costs_what_was_not_sent_of_it() {
    let (_folder, path) = folder();
    let log = Log::start(&path, LARGE);
    log.stats.ship.begin(true, (3, 0));
    (0..10).for_each(|number| log.sender.send(Box::new(request(number))));
    wait("the rows", || log.stats.rows_written() == 10);
    // Another one who writes has the gate read the file again.
    execute(&path, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE meta SET value = value");
    overwrite(&path, 4096, fs::metadata(&path).unwrap().len());
    log.sender.send(Box::new(request(10)));
    wait("the next one", || log.stats.rows_written() == 11);
    assert_eq!((log.stats.files_set_aside(), log.stats.ship.lost(Lost::Damaged)), (1, 7));
    assert!(log.stop().clean);
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
        assert!(
            block_on(query::sql(&path, "SELECT 1 FROM requests", Output::Json, &mut Vec::new(), &Unread::default()))
                .is_err(),
            "{end}"
        );
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
