//! Bodies in rows: sealed, each for its own row, and within their bounds.

use std::fs;

use super::super::bodies::{BODIES_BYTES, Bodies, BodyRoom, Copied, Missed};
use super::super::sealed::{BodyKey, OpenError, Opened, Which};
use super::super::segments::{self, SIZE_MAX};
use super::segments::{bytes, compress, small};
use super::*;

const LARGEST: usize = 64 << 10;

const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

pub(super) fn key() -> BodyKey {
    BodyKey::parse(DIGITS.as_bytes()).unwrap()
}

fn key_beside(path: &Path) -> PathBuf {
    let file = path.with_extension("key");
    fs::write(&file, DIGITS).unwrap();
    file
}

fn copied(room: &Arc<BodyRoom>, body: &[u8]) -> Copied {
    let mut copied = Copied::new(room, LARGEST);
    copied.feed(body);
    copied
}

/// What a row keeps of these bodies.
pub(super) fn bodies(request: &[u8], response: &[u8]) -> Option<Arc<Bodies>> {
    let room = Arc::new(BodyRoom::default());
    room.has_key();
    Bodies::of(Some(copied(&room, request)), Some(copied(&room, response)))
}

/// Request `number` and its bodies.
fn exchange(number: u64) -> (Record, [Vec<u8>; 2]) {
    let body = |word: &str| format!("{word} {number} ").repeat(800).into_bytes();
    let both = [body("asked"), body("answered")];
    (Record { bodies: bodies(&both[0], &both[1]), request_id: None, ..request(number) }, both)
}

/// The bodies of the row with this id.
fn opened(path: &Path, id: &str, keys: &[BodyKey]) -> Result<Vec<Opened>, OpenError> {
    let mut store = crate::log::Store::Files(path.to_owned());
    block_on(find(&mut store, &Filter::default(), id, &Unread::default())).unwrap().unwrap().bodies(keys)
}

fn ids(path: &Path) -> Vec<String> {
    ask(path, "SELECT id FROM requests ORDER BY id").lines().map(str::to_owned).collect()
}

#[test]
fn bodies_come_back_from_files_of_every_form_and_are_plain_in_none() {
    const ROWS: u64 = 60;
    let (folder, path) = folder();
    let sizes = small(64 << 20);
    let mut store = block_on(Store::open(&options(&path, sizes), Opening::First)).unwrap();
    for number in 0..ROWS {
        block_on(store.write(&[Box::new(exchange(number).0)])).unwrap();
    }
    let plain = |when: &str| {
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap().path();
            let found =
                fs::read(&file).unwrap().windows(8).any(|window| window == b"asked 7 " || window == b"answered");
            assert!(!found, "{} {when}", file.display());
        }
    };
    plain("while it is written");
    block_on(store.close_clean()).unwrap();
    let closed = segments::list(&path).unwrap();
    assert!(closed.len() >= 3, "{closed:?}");
    for packed in [false, true] {
        if packed {
            compress(&path, sizes);
        }
        plain("closed");
        for (number, id) in (0..ROWS).zip(ids(&path)) {
            let [asked, answered] = exchange(number).1;
            let expected = [(Which::Request, asked), (Which::Response, answered)].map(|(which, bytes)| Opened {
                which,
                whole: bytes.len() as u64,
                bytes,
            });
            assert_eq!(opened(&path, &id, &[key()]).as_deref(), Ok(&expected[..]), "{number}");
        }
    }
}

#[test]
fn bodies_are_of_their_own_row_and_key_alone() {
    let (_folder, path) = folder();
    let rows = [exchange(0).0, exchange(1).0, request(2)].map(Box::new);
    let mut store = block_on(Store::open(&options(&path, whole(LARGE)), Opening::First)).unwrap();
    block_on(store.write(&rows)).unwrap();
    block_on(store.close_clean()).unwrap();
    let ids = ids(&path);
    let other = BodyKey::parse(DIGITS.replace("00", "ff").as_bytes()).unwrap();
    let name = ask(&path, "SELECT substr(bodies, 5, 16) FROM requests LIMIT 1");
    assert_eq!(opened(&path, &ids[0], &[other]), Err(OpenError::Key(name)));
    assert_eq!(opened(&path, &ids[0], &[key()]).map(|bodies| bodies.len()), Ok(2));
    assert_eq!(opened(&path, &ids[2], &[key()]), Ok(Vec::new()), "a row without");
    execute(&path, "UPDATE decision SET bodies = (SELECT bodies FROM decision WHERE seq = 1) WHERE seq IN (2, 3)");
    assert_eq!(opened(&path, &ids[0], &[key()]).map(|bodies| bodies.len()), Ok(2));
    assert_eq!(opened(&path, &ids[1], &[key()]), Err(OpenError::Changed));
    assert_eq!(opened(&path, &ids[2], &[key()]), Err(OpenError::Changed));
    execute(&path, "UPDATE decision SET bodies = 'text' WHERE seq = 1");
    assert_eq!(opened(&path, &ids[0], &[key()]), Err(OpenError::Layout));
}

#[test]
fn large_bodies_keep_the_log_and_its_segments_within_their_sizes() {
    let body = vec![0x5a; LARGEST];
    let largest = || Box::new(Record { bodies: bodies(&body, &body), ..request(1) });
    for (segment, total, rows) in [(SIZE_MAX, 256 << 20, 150), (128 << 10, 2 << 20, 60)] {
        let (_folder, path) = folder();
        let sizes = Sizes::new(segment, Duration::from_secs(1 << 32), total, None);
        let log = Log::start_sealed(&path, sizes, Some(key_beside(&path)));
        let mut most = 0;
        for row in 1..=rows {
            log.sender.send(largest());
            // Some one by one, and the others many at once.
            if row % 50 > 20 {
                wait("rows", || log.stats.rows_written() == row);
                most = most.max(bytes(&path));
            }
        }
        let stats = Arc::clone(&log.stats);
        assert_eq!(log.stop().lost, 0);
        most = most.max(bytes(&path));
        assert!(most <= total + DIGITS.len() as u64, "{most} of {total}");
        assert_eq!(stats.bodies.missed(Missed::Memory), 0);
        let closed = segments::list(&path).unwrap();
        assert!(!closed.is_empty());
        for segment in closed {
            let length = segment.bytes(&path);
            assert!(length <= SIZE_MAX, "{segment:?} has {length} bytes");
        }
    }
}

#[test]
fn while_the_store_is_away_bodies_take_what_they_may() {
    const ROWS: usize = 100;
    let (folder, _) = folder();
    let late = folder.path().join("late");
    let path = late.join("requests.db");
    let log = Log::start_sealed(&path, whole(LARGE), Some(key_beside(&late)));
    let body = vec![0x5a; LARGEST];
    let room = Arc::clone(&log.stats.bodies);
    for number in 0..ROWS as u64 {
        let bodies = Bodies::of(Some(copied(&room, &body)), None);
        log.sender.send(Box::new(Record { bodies, ..request(number) }));
        assert!(room.held_bytes() <= BODIES_BYTES);
    }
    let kept = BODIES_BYTES / LARGEST;
    assert_eq!(room.missed(Missed::Memory), (ROWS - kept) as u64);
    fs::create_dir(&late).unwrap();
    wait("the rows", || log.stats.rows_written() == ROWS as u64);
    wait("the memory", || room.held_bytes() == 0);
    assert_eq!(log.stop(), Summary { written: ROWS as u64, lost: 0, clean: true });
    assert_eq!(ask(&path, "SELECT count(*), count(bodies) FROM requests"), format!("{ROWS},{kept}"));
}

#[test]
fn rows_that_are_not_written_give_the_memory_of_their_bodies_back() {
    let stats = Arc::new(Stats::default());
    stats.bodies.has_key();
    let (sender, receiver) = channel(2, 2, Arc::clone(&stats));
    for number in 0..5 {
        let bodies = Bodies::of(Some(copied(&stats.bodies, b"asked")), None);
        sender.send(Box::new(Record { bodies, ..request(number) }));
    }
    assert_eq!(stats.rows_dropped(DropReason::QueueFull), 3);
    assert_eq!(stats.bodies.held_bytes(), 2 * 512);
    let mut batch = Vec::new();
    receiver.attach();
    assert!(receiver.gather(&mut batch, Duration::from_millis(1), None));
    receiver.recycle(&mut batch);
    assert_eq!(stats.bodies.held_bytes(), 0);
}

#[test]
fn without_a_key_that_can_be_read_rows_have_no_bodies() {
    for key in [None, Some("no key"), Some("")] {
        let (_folder, path) = folder();
        let file = path.with_extension("key");
        if let Some(key) = key {
            fs::write(&file, key).unwrap();
        }
        let log = Log::start_sealed(&path, whole(LARGE), Some(file));
        let bodies = bodies(b"asked", b"answered");
        log.sender.send(Box::new(Record { bodies, ..request(1) }));
        let mut passing = Copied::new(&log.stats.bodies, LARGEST);
        passing.feed(b"asked");
        assert_eq!((passing.bytes(), log.stats.bodies.missed(Missed::NoKey)), (&b""[..], 1));
        assert_eq!(log.stop(), Summary { written: 1, lost: 0, clean: true });
        assert_eq!(ask(&path, "SELECT count(bodies) FROM requests"), "0");
    }
}
