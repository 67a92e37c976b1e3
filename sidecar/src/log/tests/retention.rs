//! What the store keeps: within its size whatever happens, what was refused longest, and nothing beyond its age.

use std::collections::BTreeSet;
use std::fs;

use super::super::segments::{self, Compressor, Retention, Segment};
use super::segments::{bytes, compress, everything, files, open, paths, settle, small, write};
use super::*;

#[test]
fn all_files_together_never_take_more_than_they_may() {
    let (_folder, path) = folder();
    let total = 2 << 20;
    // What was damaged is a part of it, as long as there is room.
    for aside in ["requests.db.damaged", "requests.db.000000000001-000000000002-1700000000123456.damaged"] {
        fs::write(path.with_file_name(aside), vec![0; 512 << 10]).unwrap();
    }
    let mut store = open(&path, small(total));
    let mut gone = 0;
    for first in (0..30_000).step_by(100) {
        let batch: Vec<_> = (first..first + 100).map(|number| Box::new(request(number))).collect();
        gone += block_on(store.write(&batch)).unwrap().gone.for_size;
        assert!(bytes(&path) <= total, "{} bytes after {first} rows: {:?}", bytes(&path), files(&path));
    }
    block_on(store.close_clean()).unwrap();
    assert!(gone > 5_000, "{gone}");
    assert_eq!(paths(&path, &everything()), (gone..30_000).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_copied_has_its_room_beside_what_was() {
    let (_folder, path) = folder();
    let sizes = small(2 << 20);
    let mut store = open(&path, sizes);
    write(&mut store, 0..10_000);
    let closed = segments::list(&path).unwrap();
    let obstacle = path.with_file_name("requests.db.part");
    fs::create_dir(&obstacle).unwrap();
    for first in (10_000..40_000).step_by(500) {
        write(&mut store, first..first + 500);
        assert!(bytes(&path) <= sizes.total, "{} bytes after {first} rows: {:?}", bytes(&path), files(&path));
    }
    assert!(closed.iter().any(|segment| segment.path(&path).exists()), "{closed:?}");
    block_on(store.close_clean()).unwrap();
    assert!(paths(&path, &everything()).contains(&39_999));
}

#[test]
fn what_was_refused_outlives_what_was_allowed() {
    const ROWS: u64 = 40_000;
    // Each hundredth is refused; of each two hundredth nobody knows the client. What compresses as little as in life.
    let row = |number: u64| {
        let chance = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let record = Record { trace_id: Some((chance ^ chance >> 61).to_be_bytes()), ..request(number) };
        let peer = number.is_multiple_of(200).then(|| Arc::new(peer("meter-8")));
        let refused = number.is_multiple_of(100);
        Box::new(if refused { Record { verdict: Verdict::Refused, peer, ..record } } else { record })
    };
    let (_folder, path) = folder();
    let sizes = small(2 << 20);
    let mut store = open(&path, sizes);
    let stats = Arc::new(Stats::default());
    let mut compressor = Compressor::new(path.clone(), sizes, Arc::clone(&stats), Chained::Off);
    let mut pruned = 0;
    for first in (0..ROWS).step_by(100) {
        let batch: Vec<_> = (first..first + 100).map(row).collect();
        let written = block_on(store.write(&batch)).unwrap();
        pruned += written.gone.for_size;
        if written.has_cut {
            settle(&mut compressor, &path, sizes);
        }
        assert!(bytes(&path) <= sizes.total, "{}", bytes(&path));
    }
    block_on(store.close_clean()).unwrap();
    let left: BTreeSet<_> = paths(&path, &everything()).into_iter().collect();
    let gone: Vec<_> = (0..ROWS).step_by(100).filter(|number| !left.contains(number)).collect();
    assert_eq!(gone, [] as [u64; 0], "{:?}", files(&path));
    assert!(left.len() < 36_000, "{}", left.len());
    assert_eq!(left.len() as u64 + pruned + stats.rows_pruned(PruneReason::Size), ROWS);
    // Who was refused is told as before.
    let refused = "SELECT count(*), sum(identity = 'meter-8'), sum(route = 'shop/orders') FROM requests WHERE verdict = 'refused'";
    assert_eq!(ask(&path, refused), "400,200,400");
    let thinned = files(&path).into_iter().find(|end| end.ends_with(".refused.zst")).unwrap();
    assert!(fs::metadata(path.with_file_name(format!("requests.db{thinned}"))).unwrap().len() < 20 << 10);
}

#[test]
fn refusals_of_long_ago_have_their_part_and_no_more() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..10_000);
    block_on(store.close_clean()).unwrap();
    // As if some were full of refusals.
    compress(&path, small(64 << 20));
    let closed = segments::list(&path).unwrap();
    let part = 4 * (300 << 10);
    for segment in &closed[..4] {
        let plain = segment.path(&path).display().to_string();
        fs::remove_file(format!("{plain}.zst")).unwrap();
        fs::write(format!("{plain}.refused.zst"), vec![0; 300 << 10]).unwrap();
    }
    // A quarter of it is what two of them take.
    let sizes = small(2 * part);
    let retention = Retention { sizes, wal_bytes: 0, stats: Arc::default() };
    let gone = make_room(&retention, &path, 2 * part - bytes(&path) + 1);
    assert_eq!(gone.for_size, u64::try_from(closed[0].last).unwrap(), "the oldest, which is beyond their part");
    let gone = make_room(&retention, &path, 2 * part - bytes(&path) + 1);
    assert_eq!(gone.for_size, u64::try_from(closed[1].last - closed[0].last).unwrap());
    // The rest is within their part, and the oldest of the others goes.
    let gone = make_room(&retention, &path, 2 * part - bytes(&path) + 1);
    assert_eq!(gone.for_size, u64::try_from(closed[4].last - closed[3].last).unwrap());
}

#[test]
fn of_what_was_thinned_there_are_so_many_files_and_no_more() {
    let (_folder, path) = folder();
    let name = |number: i64| Segment { first: number, last: number, newest: number };
    let thinned = |number| PathBuf::from(format!("{}.refused.zst", name(number).path(&path).display()));
    (1..=258).for_each(|number| fs::write(thinned(number), [0]).unwrap());
    fs::write(name(259).path(&path), [0; 1000]).unwrap();
    let retention = Retention { sizes: small(1 << 20), wal_bytes: 0, stats: Arc::default() };
    let to_go = retention.to_go(&path, (1 << 20) - bytes(&path) + 3, SystemTime::now()).unwrap();
    // 256 of them stay, and then the others go.
    assert_eq!(to_go.for_size, [1, 2, 259].map(name));
}

#[test]
fn rows_that_are_too_old_go_with_their_segment() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..10_000);
    let before = segments::list(&path).unwrap().len();
    assert!(before > 3);
    block_on(store.close_clean()).unwrap();
    // Rows of 2023. Those in segments go although no row comes and nothing is cut.
    let cut = u64::try_from(segments::list(&path).unwrap().pop().unwrap().last).unwrap();
    let mut store = open(&path, Sizes { keep: Some(Duration::from_secs(1)), ..small(64 << 20) });
    assert_eq!(block_on(store.write(&[])).unwrap().gone.for_age, cut);
    assert_eq!(segments::list(&path).unwrap(), []);
    block_on(store.close_clean()).unwrap();
    let day = Duration::from_secs(86_400);
    let sizes = Sizes { age: day, keep: Some(day), ..small(64 << 20) };
    let mut store = open(&path, sizes);
    // The live file's are as old, and are cut off before the next row comes.
    let done = block_on(store.write(&[])).unwrap();
    assert_eq!(done.gone.for_age, 10_000 - cut);
    let row = Record { time: SystemTime::now(), ..request(10_000) };
    block_on(store.write(&[Box::new(row)])).unwrap();
    block_on(store.close_clean()).unwrap();
    assert_eq!(paths(&path, &everything()), [10_000]);
    assert_eq!(files(&path), BTreeSet::from([String::new()]));
}
