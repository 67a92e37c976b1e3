//! The store cut into segments: one log to whoever reads it, bounded as a whole, and through every kill.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use sidecar_config::Ratio;
use sidecar_decide::Reason;

use super::super::follow::{Followed, Look};
use super::super::print::Printer;
use super::super::segments::{self, Compressor, Retention, Segment};
use super::reading::{Enough, with_time};
use super::*;

/// Segments as small as they get, in a store of that size.
pub(super) fn small(total: u64) -> Sizes {
    Sizes { segment: 128 << 10, ..whole(total) }
}

pub(in crate::log) fn open(path: &Path, sizes: Sizes) -> Store {
    block_on(Store::open(&options(path, sizes), Opening::First)).unwrap()
}

/// Writes rows of these numbers, 100 at a time.
pub(super) fn write(store: &mut Store, numbers: std::ops::Range<u64>) {
    for first in numbers.clone().step_by(100) {
        let batch: Vec<_> = (first..numbers.end.min(first + 100)).map(|number| Box::new(request(number))).collect();
        block_on(store.write(&batch)).unwrap();
    }
}

pub(super) fn paths(path: &Path, filter: &Filter) -> Vec<u64> {
    let mut out = Vec::new();
    block_on(query::rows(path, filter, Output::Json, &mut out, &Unread::default())).unwrap();
    let rows = String::from_utf8(out).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["path"].as_str().map_or(0, |path| path.trim_start_matches("/orders/").parse().unwrap()))
        .collect()
}

pub(super) fn everything() -> Filter {
    Filter { limit: 100_000, ..Filter::default() }
}

/// All files of the log, by what comes after the live one's name, but those that any reader makes.
pub(super) fn files(path: &Path) -> BTreeSet<String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let files = fs::read_dir(path.parent().unwrap()).unwrap();
    let files = files.filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_prefix(name)?.to_owned()));
    files.filter(|end| !["-wal", "-shm"].contains(&end.as_str())).collect()
}

pub(super) fn bytes(path: &Path) -> u64 {
    let folder = path.parent().unwrap();
    let files = fs::read_dir(folder).unwrap().filter_map(|file| file.unwrap().metadata().ok());
    files.filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[test]
fn what_is_cut_is_read_as_one_table() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..10_000);
    let closed = segments::list(&path).unwrap();
    assert!(closed.len() >= 5, "{closed:?}");
    let ends: Vec<_> = closed.iter().map(|segment| (segment.first, segment.last)).collect();
    assert!(ends.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ends:?}");
    for segment in &closed {
        assert!(fs::metadata(segment.path(&path)).unwrap().len() < 300 << 10, "{segment:?}");
        assert_eq!(segment.newest, 1_700_000_000_123_456 + segment.last - 1);
    }
    // While it is written, and closed.
    for _ in 0..2 {
        assert_eq!(paths(&path, &everything()), (0..10_000).collect::<Vec<_>>());
        let newest = Filter { limit: 7000, ..Filter::default() };
        assert_eq!(paths(&path, &newest), (3000..10_000).collect::<Vec<_>>());
        let old = Filter { until: Some(request(5).time), ..everything() };
        assert_eq!(paths(&path, &old), [0, 1, 2, 3, 4]);
        let late = Filter { since: Some(request(9_998).time), ..everything() };
        assert_eq!(paths(&path, &late), [9_998, 9_999]);
        let one = Filter { path: Some("/orders/1234".into()), ..everything() };
        assert_eq!(paths(&path, &one), [1234]);
    }
    block_on(store.close_clean()).unwrap();
    assert_eq!(paths(&path, &everything()).len(), 10_000);
    // A segment is a file for any program that reads SQLite.
    let oldest = closed[0].path(&path);
    assert_eq!(ask(&oldest, "SELECT count(*), min(path) FROM requests"), format!("{},/orders/0", closed[0].last));
    // The next start goes on.
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 10_000..10_100);
    block_on(store.close_clean()).unwrap();
    assert_eq!(paths(&path, &everything()), (0..10_100).collect::<Vec<_>>());
}

#[test]
fn a_query_of_ones_own_has_all_rows_in_one_table() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..5_000);
    let table = [
        ("SELECT count(*), count(DISTINCT id), sum(repeat), min(path) FROM requests", "5000,5000,5000,/orders/0"),
        ("SELECT path FROM requests LIMIT 2", "/orders/0\n/orders/1"),
        ("SELECT seq, status, client_addr FROM entry ORDER BY seq DESC LIMIT 1", "5000,200,192.0.2.9:51000"),
        ("SELECT count(*) FROM requests a JOIN requests b USING (id) WHERE a.path = '/orders/7'", "1"),
        (
            "SELECT count(*) FROM requests WHERE path IN (SELECT path FROM requests WHERE path LIKE '/orders/499_')",
            "10",
        ),
        ("SELECT max(seq) - count(*) < 5000 FROM decision", "1"),
    ];
    for (sql, expected) in table {
        assert_eq!(ask(&path, sql), expected, "{sql}");
    }
    let columns = "SELECT count(*), sum(\"notnull\") FROM pragma_table_info('requests')";
    assert_eq!(ask(&path, columns), "51,0");
    let mut out = Vec::new();
    for sql in ["DROP TABLE requests", "DELETE FROM requests", "SELECT absent FROM requests"] {
        assert!(block_on(query::sql(&path, sql, Output::Csv, &mut out, &Unread::default())).is_err(), "{sql}");
    }
    // A segment that is gone, or damaged, costs its own rows.
    let closed = segments::list(&path).unwrap();
    fs::remove_file(closed[0].path(&path)).unwrap();
    fs::write(closed[1].path(&path), "no database").unwrap();
    let rows = "SELECT count(*), min(seq) FROM entry";
    assert_eq!(ask(&path, rows), format!("{},{}", 5_000 - closed[1].last, closed[2].first));
    let left: Vec<_> = (u64::try_from(closed[1].last).unwrap()..5_000).collect();
    assert_eq!(paths(&path, &everything()), left);
    // Of a torn page what is on the others may still be read.
    let torn = closed[2].path(&path);
    let mut bytes = fs::read(&torn).unwrap();
    bytes[4096..].fill(0x5a);
    fs::write(&torn, bytes).unwrap();
    let left: Vec<_> = (u64::try_from(closed[2].last).unwrap()..5_000).collect();
    assert_eq!(paths(&path, &everything()), left);
    assert_eq!(ask(&path, rows), format!("{},{}", 5_000 - closed[2].last, closed[2].last + 1));
    block_on(store.close_clean()).unwrap();
}

#[test]
fn a_copy_that_finds_no_room_leaves_rows_where_they_are() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".part");
    // All that is written there finds the disk full (full(4)).
    std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
    write(&mut store, 0..4_000);
    assert_eq!(files(&path), BTreeSet::from([String::new()]), "nothing is left of the copy");
    assert_eq!(paths(&path, &everything()), (0..4_000).collect::<Vec<_>>());
    block_on(store.close_clean()).unwrap();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 4_000..4_500);
    assert_eq!(segments::list(&path).unwrap().len(), 1, "it is tried again");
    assert_eq!(paths(&path, &everything()), (0..4_500).collect::<Vec<_>>());
}

/// Makes all segments small, as the log's thread does.
pub(super) fn compress(path: &Path, sizes: Sizes) -> Arc<Stats> {
    let stats = Arc::new(Stats::default());
    let mut compressor = Compressor::new(path.to_owned(), sizes, Arc::clone(&stats), Chained::Off);
    settle(&mut compressor, path, sizes);
    compressor.stop();
    stats.count_segments(path);
    stats
}

pub(super) fn settle(compressor: &mut Compressor, path: &Path, sizes: Sizes) {
    compressor.start();
    wait("all segments", || {
        let is_room = Retention::new(sizes, &Arc::default()).next_to_go(path, 2).unwrap().is_none();
        is_room && segments::Tally::of(path).unwrap().plain.0 == 0 && !compressor.is_at_work()
    });
}

#[test]
fn compressed_segments_are_read_as_the_others() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..8_000);
    let before = bytes(&path);
    let closed = segments::list(&path).unwrap();
    let stats = compress(&path, small(64 << 20));
    assert_eq!(stats.segments(SegmentForm::Compressed).0, closed.len() as u64);
    assert!(bytes(&path) < before / 2, "{} of {before}", bytes(&path));
    assert_eq!(segments::list(&path).unwrap(), closed);
    assert!(closed.iter().all(|segment| !segment.path(&path).exists()));
    write(&mut store, 8_000..10_000);
    // Some are small, some are not, and some rows are in the live file.
    assert!(segments::list(&path).unwrap().len() > closed.len());
    let modes = fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().metadata().unwrap().mode());
    assert!(modes.into_iter().all(|mode| mode & 0o777 == 0o600), "its owner's alone");
    assert_eq!(paths(&path, &everything()), (0..10_000).collect::<Vec<_>>());
    let one = Filter { path: Some("/orders/1234".into()), ..everything() };
    assert_eq!(paths(&path, &one), [1234]);
    let all = "SELECT count(*), count(DISTINCT id), min(path), sum(duration_us) FROM requests";
    assert_eq!(ask(&path, all), "10000,10000,/orders/0,15000000");
    block_on(store.close_clean()).unwrap();
}

#[test]
fn a_log_compresses_what_it_cuts_and_what_it_finds() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..3_000);
    block_on(store.close_clean()).unwrap();
    let closed = segments::list(&path).unwrap();
    // A kill after the small one had its name, one in the middle of it, and one that was damaged meanwhile.
    compress(&path, small(64 << 20));
    fs::write(closed[0].path(&path), "the larger one, not deleted yet").unwrap();
    fs::write(path.with_file_name("requests.db.zst.part"), "half").unwrap();
    let packed =
        closed[1].path(&path).with_extension(format!("{}.zst", closed[1].path(&path).extension().unwrap().display()));
    let torn = fs::read(&packed).unwrap();
    fs::write(&packed, &torn[..torn.len() / 2]).unwrap();
    let log = Log::start_cut(Refusals::new(WINDOW), &path, small(64 << 20));
    for number in 3_000..6_000 {
        log.sender.send(Box::new(request(number)));
    }
    let stats = Arc::clone(&log.stats);
    wait("the rows", || stats.rows_written() == 3_000);
    let plain = || {
        stats.count_segments(&path);
        stats.segments(SegmentForm::Plain).0
    };
    wait("all of it compressed", || plain() == 0 && stats.files_set_aside() == 1);
    assert!(log.stop().clean);
    assert!(segments::list(&path).unwrap().len() > closed.len());
    let aside: Vec<_> = files(&path).into_iter().filter(|end| end.ends_with(".damaged")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    let lost = u64::try_from(closed[1].first - 1).unwrap()..u64::try_from(closed[1].last).unwrap();
    let left: Vec<_> = (0..6_000).filter(|number| !lost.contains(number)).collect();
    assert_eq!(paths(&path, &everything()), left);
}

#[test]
fn a_file_of_another_name_is_nobodys() {
    let (_folder, path) = folder();
    let others = ["backup", "000000000001-000000000002", "000000000009-000000000002-1700000000123456", "part-2"];
    for name in others {
        fs::write(path.with_file_name(format!("requests.db.{name}")), vec![0; 2 << 20]).unwrap();
    }
    // What a kill left behind in the middle of a copy.
    fs::write(path.with_file_name("requests.db.part"), "half").unwrap();
    let mut store = open(&path, small(1 << 20));
    write(&mut store, 0..200);
    block_on(store.close_clean()).unwrap();
    assert_eq!(paths(&path, &everything()).len(), 200);
    assert_eq!(files(&path).len(), others.len() + 1);
}

#[test]
fn an_idle_log_is_cut_when_its_time_is_over() {
    let (_folder, path) = folder();
    let sizes = Sizes { age: Duration::from_millis(50), ..small(64 << 20) };
    let log = Log::start_cut(Refusals::new(WINDOW), &path, sizes);
    log.sender.send(Box::new(Record { time: SystemTime::now(), ..request(7) }));
    wait("the segment", || !segments::list(&path).unwrap().is_empty());
    assert!(log.stop().clean);
    assert_eq!(paths(&path, &everything()), [7]);
}

/// A store with rows in a segment and in the live file, as a kill leaves it: what it was before the last cut, and after.
fn killed_in_a_cut(path: &Path) -> (Vec<u8>, Segment) {
    let mut store = open(path, small(64 << 20));
    write(&mut store, 0..100);
    block_on(store.close()).unwrap();
    let before = fs::read(path).unwrap();
    let mut store = open(path, Sizes { age: Duration::ZERO, ..small(64 << 20) });
    block_on(store.write(&[])).unwrap();
    block_on(store.close()).unwrap();
    (before, segments::list(path).unwrap().pop().unwrap())
}

#[test]
fn a_kill_in_the_middle_of_a_cut_costs_no_row_and_doubles_none() {
    // After the copy has its name, and before the rows are deleted.
    let (_folder, path) = folder();
    let (before, segment) = killed_in_a_cut(&path);
    assert_eq!((segment.first, segment.last), (1, 101), "with the gap of the second start");
    fs::remove_file(segment.path(&path)).unwrap();
    fs::write(&path, &before).unwrap();
    let mut store = open(&path, small(64 << 20));
    block_on(store.close_clean()).unwrap();
    assert_eq!(paths(&path, &everything()).len(), 101, "nothing was copied: the live file is as it was, and a gap");
    fs::copy(&path, path.with_file_name("copy")).unwrap();
    let copied = Segment { last: 101, ..segment };
    fs::copy(&path, copied.path(&path)).unwrap();
    assert_eq!(paths(&path, &everything()).len(), 101, "a reader leaves the copy out");
    store = open(&path, small(64 << 20));
    assert_eq!(ask(&path, "SELECT count(*) FROM decision"), "0");
    write(&mut store, 100..110);
    block_on(store.close_clean()).unwrap();
    let numbers: BTreeSet<_> = paths(&path, &everything()).into_iter().collect();
    assert_eq!((numbers.len(), paths(&path, &everything()).len()), (110, 111), "and the gap");
}

#[test]
fn a_live_file_that_is_lost_goes_on_after_its_segments() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..5_000);
    block_on(store.close_clean()).unwrap();
    let last = segments::list(&path).unwrap().pop().unwrap().last;
    fs::remove_file(&path).unwrap();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 5_000..5_001);
    block_on(store.close_clean()).unwrap();
    assert_eq!(
        ask(&path, "SELECT min(seq), max(seq), max(kind) FROM decision"),
        format!("{},{},3", last + 1, last + 2)
    );
    assert_eq!(paths(&path, &everything()).len(), usize::try_from(last).unwrap() + 2);
}

#[test]
fn a_large_file_of_an_earlier_version_becomes_a_segment() {
    let (_folder, path) = folder();
    let mut store = open(&path, whole(64 << 20));
    while fs::metadata(&path).unwrap().len() < 9 << 20 {
        write(&mut store, 0..10_000);
    }
    block_on(store.close_clean()).unwrap();
    let rows: i64 = ask(&path, "SELECT count(*) FROM requests").parse().unwrap();
    let store_id = ask(&path, "SELECT value FROM meta WHERE key = 'store'");
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..100);
    block_on(store.close_clean()).unwrap();
    let segments = segments::list(&path).unwrap();
    assert_eq!(segments.iter().map(|segment| (segment.first, segment.last)).collect::<Vec<_>>(), [(1, rows)]);
    assert_eq!(ask(&path, "SELECT min(seq), max(seq) FROM decision"), format!("{},{}", rows + 1, rows + 100));
    assert_eq!(ask(&path, "SELECT value FROM meta WHERE key = 'store'"), store_id);
    let filter = Filter { path: Some("/orders/99".into()), ..everything() };
    assert_eq!(
        paths(&path, &filter).iter().filter(|number| **number == 99).count(),
        usize::try_from(rows / 10_000 + 1).unwrap()
    );
}

#[test]
fn what_cannot_be_copied_stays_in_the_live_file() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    // In the place of what is written first.
    let obstacle = path.with_file_name("requests.db.part");
    fs::create_dir(&obstacle).unwrap();
    write(&mut store, 0..5_000);
    assert_eq!(segments::list(&path).unwrap(), []);
    block_on(store.close_clean()).unwrap();
    assert_eq!(paths(&path, &everything()).len(), 5_000);
    fs::remove_dir(&obstacle).unwrap();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 5_000..5_100);
    block_on(store.close_clean()).unwrap();
    assert_eq!(segments::list(&path).unwrap().len(), 1);
    assert_eq!(paths(&path, &everything()), (0..5_100).collect::<Vec<_>>());
}

#[test]
fn what_is_followed_goes_on_through_cuts() {
    let (_folder, path) = folder();
    let mut store = open(&path, small(64 << 20));
    write(&mut store, 0..5_000);
    block_on(store.close_clean()).unwrap();
    let out = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|threads| {
        let follower = threads.spawn(|| {
            let filter = Filter { limit: 4_500, ..Filter::default() };
            let mut enough = Enough { out: Arc::clone(&out) };
            with_time().block_on(follow(&path, &filter, Output::Json, &mut enough, &mut |_| {}))
        });
        wait("the first row", || !out.lock().unwrap().is_empty());
        // Cut again and again while it is read.
        let mut store = open(&path, small(64 << 20));
        write(&mut store, 5_000..12_000);
        block_on(store.write(&[Box::new(Record { path: Some("/orders/last".into()), ..request(12_000) })])).unwrap();
        let ended = follower.join().unwrap().unwrap_err();
        assert!(matches!(ended, QueryError::Output(_)), "{ended}");
        block_on(store.close_clean()).unwrap();
    });
    let lines = String::from_utf8(out.lock().unwrap().clone()).unwrap();
    let numbers =
        lines.lines().map(|line| line.split("/orders/").nth(1).unwrap().split('"').next().unwrap().to_owned());
    let expected = (500..12_000).map(|number: u64| number.to_string()).chain(["last".to_owned()]);
    assert_eq!(numbers.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// Writes rows of these numbers into a store that is cut at each turn before that.
fn turn(store: &Mutex<Store>, numbers: std::ops::Range<u64>) {
    let batch: Vec<_> = numbers.map(|number| Box::new(request(number))).collect();
    // Whoever calls may be in a runtime.
    thread::scope(|threads| threads.spawn(|| block_on(store.lock().unwrap().write(&batch)).map(drop)).join())
        .unwrap()
        .unwrap();
}

/// What is printed, and a store that is cut when the first of it is, once.
struct Cutting<'s> {
    out: Vec<u8>,
    store: Option<&'s Mutex<Store>>,
}

impl io::Write for Cutting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(store) = self.store.take() {
            turn(store, 0..0);
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_row_is_passed_over_wherever_a_cut_falls() {
    let hasty = Sizes { age: Duration::ZERO, ..whole(LARGE) };
    // Before it is seen which rows there are, before they are printed, while they are, and when they were.
    for places in 0..16_u8 {
        let is_at = |place: u8| places & (1 << place) != 0;
        let (_folder, path) = folder();
        let store = Mutex::new(open(&path, hasty));
        turn(&store, 0..10);
        let mut out = Cutting { out: Vec::new(), store: Some(&store).filter(|_| is_at(2)) };
        with_time().block_on(async {
            let (filter, unread) = (Filter { limit: 4, ..Filter::default() }, Unread::default());
            let look = Look::new(&path, &filter, "path".to_owned(), &unread);
            let mut printer = Printer::<dyn io::Write>::new(Output::Json, &mut out, vec!["path".to_owned()]).unwrap();
            let mut file = Followed::begin(&path, &filter, &unread).await.unwrap();
            let cut_at = |place: u8| {
                if is_at(place) {
                    turn(&store, 0..0)
                }
            };
            cut_at(0);
            let seen = file.see().await.unwrap();
            cut_at(1);
            file.print_seen(seen, &look, &mut printer).await.unwrap();
            cut_at(3);
            turn(&store, 10..12);
            while file.print_new(&look, &mut printer).await.unwrap() {}
        });
        let printed = String::from_utf8(out.out).unwrap();
        let expected: String = (6..12).map(|number| format!("{{\"path\":\"/orders/{number}\"}}\n")).collect();
        assert_eq!(printed, expected, "{places:04b}");
        block_on(store.into_inner().unwrap().close_clean()).unwrap();
    }
}

#[test]
fn of_what_is_allowed_a_part_is_rows_and_the_rest_is_counted() {
    for (millionths, kept) in [(0, 0), (100_000, 100), (333_333, 333), (1_000_000, 1_000)] {
        let (_folder, path) = folder();
        let mut log = Log::start(&path, LARGE);
        log.sender = log.sender.keeping(Ratio::from_millionths(millionths));
        // Of each kind as many, by turns: which of them is chosen is not for whoever asks.
        for number in 0..1_000 {
            let others = [
                Record { verdict: Verdict::Refused, reason: Some(Reason::PolicyNotAllowed), ..request(number) },
                Record { verdict: Verdict::WouldRefuse, ..request(number) },
                Record { reason: Some(Reason::RouteInvalid), ..request(number) },
            ];
            for record in others.into_iter().chain([request(number)]) {
                wait("a place", || log.stats.queue_depth() < 2_000);
                log.sender.send(Box::new(record));
            }
        }
        let stats = Arc::clone(&log.stats);
        assert_eq!(log.stop().lost, 0);
        let plain = "SELECT count(*) FROM requests WHERE verdict = 'allowed' AND reason IS NULL";
        assert_eq!(ask(&path, plain), kept.to_string(), "{millionths}");
        assert_eq!(ask(&path, "SELECT sum(repeat) FROM requests"), (3_000 + kept).to_string(), "{millionths}");
        assert_eq!(stats.rows_sampled_away(), 1_000 - kept, "{millionths}");
    }
}
