//! What cannot be read: whoever asks is told which files, and gets all that the others have.

use std::fs;
use std::io;
use std::sync::Mutex;

use super::super::follow::{Followed, Look};
use super::super::print::Printer;
use super::super::segments::{self, Segment};
use super::reading::{Enough, with_time};
use super::segments::{compress, everything, open, small, write};
use super::writing::overwrite;
use super::*;

const ROWS: u64 = 800;

const DAMAGED: &str = "of segments that are damaged (restore them, or try `sqlite3 FILE .recover`)";
const NEWER: &str = "of segments of a newer version (a newer postern-sidecar reads them)";

/// A log with all that cannot be read: set aside, torn, a later version's, with a bad page; the rest of its segments, and
/// how these files are called.
fn with_all_that_cannot_be_read() -> (TempDir, PathBuf, Vec<Segment>, [String; 4]) {
    let (folder, path) = folder();
    // Each hundred in a segment of its own, but for the newest.
    let mut store = open(&path, Sizes { age: Duration::ZERO, ..small(LARGE) });
    write(&mut store, 0..ROWS);
    block_on(store.close_clean()).unwrap();
    let mut closed = segments::list(&path).unwrap();
    let plain = |segment: &Segment, end: &str| format!("{}{end}", segment.path(&path).display());
    let later = "DROP VIEW requests; DROP VIEW entry; PRAGMA user_version = 1000";
    execute(&closed[2].path(&path), later);
    compress(&path, small(64 << 20));
    segments::set_aside(&path, &closed[0]).unwrap();
    let torn = plain(&closed[1], ".zst");
    fs::write(&torn, &fs::read(&torn).unwrap()[..1000]).unwrap();
    // All but the schema.
    let image = block_on(async {
        let mut connection = segments::open(&path, &closed[4]).await.unwrap().unwrap();
        connection.serialize(None).await.unwrap().to_vec()
    });
    fs::write(plain(&closed[4], ""), image).unwrap();
    overwrite(&closed[4].path(&path), 2 * 4096, fs::metadata(closed[4].path(&path)).unwrap().len());
    let names = [plain(&closed[0], ".zst.damaged"), torn, plain(&closed[2], ".zst"), plain(&closed[4], "")];
    for place in [4, 2, 1, 0] {
        closed.remove(place);
    }
    (folder, path, closed, names)
}

/// The numbers of the rows that can be read.
fn left(path: &Path, whole: &[Segment]) -> Vec<u64> {
    let live = 1 + whole.last().unwrap().last..=i64::try_from(ROWS).unwrap();
    let closed = whole.iter().flat_map(|segment| segment.first..=segment.last);
    assert_eq!(segments::list_all(path).unwrap().last(), whole.last());
    closed.chain(live).map(|seq| u64::try_from(seq - 1).unwrap()).collect()
}

/// The numbers in the paths of rows.
fn numbers(rows: &[u8]) -> Vec<u64> {
    let number = |line: &str| line.split("/orders/").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let mut numbers: Vec<_> = String::from_utf8_lossy(rows).lines().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn whoever_asks_is_told_once_what_cannot_be_read_and_gets_the_rest() {
    let (_folder, path, whole, [aside, torn, later, bad]) = with_all_that_cannot_be_read();
    let left = left(&path, &whole);
    let all = format!("rows are missing {DAMAGED}: {aside}, {torn}, {bad}; {NEWER}: {later}");
    let mut files = crate::log::Store::Files(path.clone());
    let asked = |ask: &mut dyn FnMut(&mut Vec<u8>, &Unread)| {
        let (mut out, unread) = (Vec::new(), Unread::default());
        ask(&mut out, &unread);
        let news = unread.news();
        assert_eq!(unread.news(), None, "it was told");
        (numbers(&out), news)
    };
    let expected = (left.clone(), Some(all.clone()));
    let rows = asked(&mut |out, unread| {
        block_on(query::rows(&path, &everything(), Output::Json, out, unread)).map(drop).unwrap();
    });
    assert_eq!(rows, expected);
    // Twice through all of them.
    let sql = "SELECT path FROM requests WHERE path IN (SELECT path FROM requests)";
    let rows = asked(&mut |out, unread| {
        block_on(query::sql(&path, sql, Output::Json, out, unread)).map(drop).unwrap();
    });
    assert_eq!(rows, expected);
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let rows = asked(&mut |out, unread| {
            block_on(export(&mut files, &everything(), order, Output::Json, out, &mut |_| {}, unread)).unwrap();
        });
        assert_eq!(rows, expected, "{order:?}");
    }
    let options = TopOptions { by: By::Listeners, counts: false, output: Output::Csv };
    let (mut out, unread) = (Vec::new(), Unread::default());
    block_on(top(&mut files, &everything(), options, &mut out, &mut |_| {}, &unread)).unwrap();
    assert!(String::from_utf8(out).unwrap().contains(&format!("main,{},", left.len())));
    assert_eq!(unread.news(), Some(all.clone()));
    // One that is not found may be there.
    for id in ["018bcfe5-687b-774b-8123-456789abcdff", "one-of-a-client"] {
        let unread = Unread::default();
        assert_eq!(block_on(find(&mut files, &Filter::default(), id, &unread)).unwrap(), None);
        assert_eq!(unread.news(), Some(all.clone()), "{id}");
    }
    // What is found by its own id is not, whatever is damaged.
    let unread = Unread::default();
    let id = ask(&path, "SELECT id FROM requests ORDER BY time LIMIT 1");
    assert!(block_on(find(&mut files, &Filter::default(), &id, &unread)).unwrap().is_some());
    assert_eq!(unread.news(), None);
}

#[test]
fn whoever_asks_for_what_can_be_read_is_told_nothing() {
    let (_folder, path, whole, [_, _, later, bad]) = with_all_that_cannot_be_read();
    let told = |filter: Filter| {
        let unread = Unread::default();
        block_on(query::rows(&path, &filter, Output::Json, &mut Vec::new(), &unread)).unwrap();
        unread.news()
    };
    let rows = u32::try_from(left(&path, &whole[1..]).len()).unwrap();
    assert_eq!(told(Filter { limit: rows, ..everything() }), None);
    assert_eq!(told(Filter { limit: rows + 1, ..everything() }), Some(format!("rows are missing {DAMAGED}: {bad}")));
    let since = |segment: &Segment| UNIX_EPOCH + Duration::from_micros(u64::try_from(segment.newest).unwrap());
    let filter = Filter { since: Some(since(&whole[0]) - Duration::from_micros(1)), ..everything() };
    assert_eq!(told(filter), Some(format!("rows are missing {DAMAGED}: {bad}")));
    // A segment that was deleted is none that cannot be read.
    for file in [&later, &bad] {
        fs::remove_file(file).unwrap();
    }
    let unread = Unread::default();
    unread.note(&path, &Segment { first: 1, last: 1, newest: 1 });
    assert_eq!(unread.news(), None);
}

#[test]
fn of_many_the_first_are_named_and_the_rest_counted() {
    let (_folder, path) = folder();
    let unread = Unread::default();
    let name = |number: i64| Segment { first: number, last: number, newest: number };
    let file = |number| name(number).path(&path).display().to_string();
    for number in 1..=6 {
        fs::write(file(number), "no database").unwrap();
        (0..2).for_each(|_| unread.note(&path, &name(number)));
    }
    let named = [1, 2, 3, 4].map(file).join(", ");
    assert_eq!(unread.news(), Some(format!("rows are missing {DAMAGED}: {named} and 2 more")));
    fs::write(file(7), "no database").unwrap();
    unread.note(&path, &name(7));
    assert_eq!(
        unread.news(),
        Some(format!("rows are missing {DAMAGED}: {}", file(7))),
        "what was told is not told again"
    );
}

#[test]
fn who_follows_is_told_once_of_each() {
    let (_folder, path, whole, names) = with_all_that_cannot_be_read();
    let mut store = open(&path, small(64 << 20));
    block_on(store.write(&[Box::new(Record { path: Some("/orders/last".into()), ..request(ROWS) })])).unwrap();
    block_on(store.close_clean()).unwrap();
    let (out, mut told) = (Arc::new(Mutex::new(Vec::new())), Vec::new());
    let mut enough = Enough { out: Arc::clone(&out) };
    let mut tell = |news: &str| told.push(news.to_owned());
    let filter = everything();
    let followed = with_time().block_on(follow(&path, &filter, Output::Json, &mut enough, &mut tell));
    assert!(matches!(followed, Err(QueryError::Output(_))));
    let told = told.join("\n");
    for name in names {
        assert_eq!(told.matches(&name).count(), 1, "{name} in {told}");
    }
    let out = String::from_utf8(out.lock().unwrap().clone()).unwrap();
    let rows: Vec<_> = out.lines().filter(|row| !row.contains("/orders/last")).collect();
    assert_eq!(numbers(rows.join("\n").as_bytes()), left(&path, &whole));
}

#[test]
fn what_is_damaged_while_it_is_followed_is_told() {
    let (_folder, path) = folder();
    let mut store = open(&path, Sizes { age: Duration::ZERO, ..small(LARGE) });
    write(&mut store, 0..100);
    let (filter, unread, runtime) = (Filter { limit: 1, ..everything() }, Unread::default(), with_time());
    let look = Look::new(&path, &filter, "path".to_owned(), &unread);
    let mut out = Vec::new();
    let mut printer = Printer::<dyn io::Write>::new(Output::Json, &mut out, vec!["path".to_owned()]).unwrap();
    let mut file = runtime.block_on(Followed::begin(&path, &filter, &unread)).unwrap();
    // What was the live file then, and what is cut off next.
    write(&mut store, 100..300);
    block_on(store.close_clean()).unwrap();
    let closed: Vec<_> = segments::list(&path).unwrap().iter().map(|segment| segment.path(&path)).collect();
    overwrite(&closed[0], 2 * 4096, fs::metadata(&closed[0]).unwrap().len());
    fs::write(&closed[1], "no database").unwrap();
    runtime.block_on(async { while file.print_new(&look, &mut printer).await.unwrap() {} });
    let names = closed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(unread.news(), Some(format!("rows are missing {DAMAGED}: {names}")));
    assert_eq!(numbers(&out), (200..300).collect::<Vec<_>>());
}
