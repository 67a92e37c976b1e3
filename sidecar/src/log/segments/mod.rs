//! Closed parts of the log: files beside the live one, each with the rows of a range of `seq`, never written again.
//!
//! A file's name says what is in it, so that nobody opens it to find out: `LIVE.FIRST-LAST-NEWEST`, where the first two are
//! numbers of rows and the third is the time of the newest, in microseconds. Ranges do not overlap, and the live file has
//! what comes after the `cut` that its table `meta` names. A packed one is called the same and `.zst`.

mod compress;
mod cut;
mod open;
mod pace;
mod pack;
mod retain;
mod table;
mod thin;
mod unread;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) use compress::Compressor;
pub(super) use cut::{Cutter, is_large, move_away, set_cut, times, write};
pub(super) use open::{Part, Source, as_one_table, cut_of, known, newest, open, open_current, open_to_read};
pub(super) use retain::{Gone, LOOK_EVERY, Retention, Tally, closed_bytes, tidy};
pub use unread::Unread;

/// The largest segment: it is opened in memory, which is the pod's.
pub const SIZE_MAX: u64 = 8 << 20;

/// What a segment has beside the rows that make it full: its tables, and the last batch with its bodies.
const AROUND: u64 = 1 << 20;

/// The smallest: what empty tables take is a small part of it.
const SIZE_MIN: u64 = 128 << 10;

/// A store has at least so many segments, or little would be left when the oldest goes.
const SEGMENTS: u64 = 16;

/// What a file is called while it is written. Nobody reads one, and the next start removes it.
const UNFINISHED: &str = ".part";

/// What the name of a packed one ends in, and of one that has been thinned, too.
const PACKED: &str = ".zst";
const THINNED: &str = ".refused.zst";

/// What the name of one ends in that was damaged.
const DAMAGED: &str = ".damaged";

/// Segments set aside that are kept, the newest: enough to look at, and damage does not fill the disk.
const ASIDE_MAX: usize = 4;

/// Digits of a number of a row, and of a time, in a name; more are not cut off.
const SEQ_DIGITS: usize = 12;
const TIME_DIGITS: usize = 16;

/// When the live file is cut, and what all files may take.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of rows at which the live file is cut.
    pub segment: u64,
    /// Time after which the live file is cut, however few its rows.
    pub age: Duration,
    /// Bytes that all files may take.
    pub total: u64,
    /// Age at which a segment is deleted; none is for its age where it is absent.
    pub keep: Option<Duration>,
}

impl Sizes {
    /// The segment's size that is asked for, or less where the whole store is small.
    #[must_use]
    pub fn new(segment: u64, age: Duration, total: u64, keep: Option<Duration>) -> Self {
        let segment = segment.min(total / SEGMENTS).clamp(SIZE_MIN.min(total), SIZE_MAX - AROUND);
        Self { segment, age, total, keep }
    }
}

/// How a segment is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it was cut.
    Plain,
    /// As it was left by an earlier version, and too large to be opened in memory.
    Large,
    /// Packed.
    Packed,
    /// Packed, without the rows of what was allowed.
    Thinned,
}

/// A closed part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of its first row.
    pub first: i64,
    /// Number of its last row.
    pub last: i64,
    /// Time of its newest row, in microseconds since the epoch.
    pub newest: i64,
}

impl Segment {
    /// Where it is.
    #[must_use]
    pub fn path(&self, live: &Path) -> PathBuf {
        let Self { first, last, newest } = self;
        beside(live, &format!(".{first:0SEQ_DIGITS$}-{last:0SEQ_DIGITS$}-{newest:0TIME_DIGITS$}"))
    }

    /// Where it is when it is packed.
    pub(super) fn packed_path(&self, live: &Path) -> PathBuf {
        self.path_with(live, PACKED)
    }

    /// Where it is when it has been thinned.
    pub(super) fn thinned_path(&self, live: &Path) -> PathBuf {
        self.path_with(live, THINNED)
    }

    /// Wherever it may be, what has most rows first: that is the one that counts, and another is about to be deleted, or
    /// was about to be when the process was killed.
    fn paths(&self, live: &Path) -> [PathBuf; 3] {
        [self.path(live), self.packed_path(live), self.thinned_path(live)]
    }

    fn path_with(&self, live: &Path, end: &str) -> PathBuf {
        let mut path = self.path(live).into_os_string();
        path.push(end);
        path.into()
    }

    /// How it is kept; `None` where it is gone.
    pub(super) fn form(&self, live: &Path) -> Option<Form> {
        let [plain, packed, thinned] = self.paths(live);
        match fs::metadata(plain) {
            Ok(file) if file.len() > SIZE_MAX => Some(Form::Large),
            Ok(_) => Some(Form::Plain),
            Err(_) if packed.exists() => Some(Form::Packed),
            Err(_) => thinned.exists().then_some(Form::Thinned),
        }
    }

    /// Bytes of its file.
    pub(super) fn bytes(&self, live: &Path) -> u64 {
        self.paths(live).iter().map(|path| bytes(path)).find(|bytes| *bytes > 0).unwrap_or(0)
    }

    /// Whether every row is from before `time`.
    #[must_use]
    pub fn is_before(&self, time: SystemTime) -> bool {
        let micros = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        u128::try_from(self.newest).is_ok_and(|newest| newest < micros)
    }

    /// Of a file that is called `LIVE.` and then so. Nothing else than what [`Self::path`] writes is one.
    fn of(name: &str) -> Option<Self> {
        let name = name.strip_suffix(THINNED).or(name.strip_suffix(PACKED)).unwrap_or(name);
        let mut numbers = name.split('-');
        let mut number = |digits: usize| {
            let text =
                numbers.next().filter(|text| text.len() >= digits && text.bytes().all(|byte| byte.is_ascii_digit()));
            text.and_then(|text| text.parse::<i64>().ok())
        };
        let segment = Self { first: number(SEQ_DIGITS)?, last: number(SEQ_DIGITS)?, newest: number(TIME_DIGITS)? };
        let is_whole = numbers.next().is_none() && segment.first <= segment.last;
        is_whole.then_some(segment)
    }
}

/// The segments of the log whose live file this is, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(live: &Path) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<_> = names(live)?.iter().filter_map(|name| Segment::of(name.to_str()?)).collect();
    segments.sort_unstable_by_key(|segment| segment.first);
    segments.dedup();
    Ok(segments)
}

/// The same, and those that were set aside: whoever reads is told that their rows are missing.
pub(super) fn list_all(live: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = list(live)?;
    segments.extend(aside(live)?);
    segments.sort_unstable_by_key(|segment| segment.first);
    segments.dedup();
    Ok(segments)
}

/// Gives a damaged segment another name, and deletes the oldest of those that have one.
pub(super) fn set_aside(live: &Path, segment: &Segment) -> io::Result<()> {
    for path in segment.paths(live) {
        match fs::rename(&path, aside_path(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut aside = damaged(live)?;
    aside.sort_unstable();
    for path in aside.iter().rev().skip(ASIDE_MAX) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// What a segment's file is called when it was set aside.
fn aside_path(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED);
    aside.into()
}

/// Files of segments that were set aside.
fn damaged(live: &Path) -> io::Result<Vec<PathBuf>> {
    let is_one = |name: &&OsString| set_aside_as(name).is_some();
    Ok(names(live)?.iter().filter(is_one).map(|name| beside(live, &format!(".{}", name.display()))).collect())
}

/// Segments that were set aside and are still there.
pub(super) fn aside(live: &Path) -> io::Result<Vec<Segment>> {
    Ok(names(live)?.iter().filter_map(|name| set_aside_as(name)).collect())
}

fn set_aside_as(name: &OsStr) -> Option<Segment> {
    Segment::of(name.to_str()?.strip_suffix(DAMAGED)?)
}

/// What files beside the live one are called after its name and a dot.
fn names(live: &Path) -> io::Result<Vec<OsString>> {
    let (folder, name) = (folder(live), live.file_name().unwrap_or_default());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let (entry, name) = (entry.as_encoded_bytes(), name.as_encoded_bytes());
        let rest = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"."));
        // A name of ours is text; another is nobody's here.
        if let Some(rest) = rest.and_then(|rest| str::from_utf8(rest).ok()) {
            names.push(rest.into());
        }
    }
    Ok(names)
}

fn folder(live: &Path) -> &Path {
    match live.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

pub(super) fn beside(live: &Path, end: &str) -> PathBuf {
    let mut name = live.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Makes a file of bytes, as [`write_whole`] does.
fn write_file(unfinished: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(unfinished, path, |file| bytes.chunks(PIECE).try_for_each(|piece| write_piece(file, piece)))
}

/// Writes some bytes, and has whoever waits for this processor go first.
fn write_piece(file: &mut File, piece: &[u8]) -> io::Result<()> {
    file.write_all(piece)?;
    thread::yield_now();
    Ok(())
}

/// Makes a file: whole and on the disk under its name, or not at all.
fn write_whole<E: From<io::Error>>(
    unfinished: &Path,
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
        write(&mut file)?;
        file.sync_all()?;
        Ok(fs::rename(unfinished, path)?)
    })();
    if written.is_err() {
        let _nothing_of_it_is_needed = fs::remove_file(unfinished);
    }
    written
}

/// Bytes of a file that are written at once: 0.1 milliseconds.
const PIECE: usize = 256 << 10;

/// Makes sure that names which were given or taken away are so after a power cut, too.
fn sync_folder(live: &Path) -> io::Result<()> {
    File::open(folder(live))?.sync_all()
}

/// Bytes of a file; none where there is none.
fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_in_a_file_and_no_other_does() {
        let segment = Segment { first: 1, last: 80_000, newest: 1_700_000_000_123_456 };
        let live = Path::new("/logs/requests.db");
        assert_eq!(segment.path(live), Path::new("/logs/requests.db.000000000001-000000080000-1700000000123456"));
        let late = Segment { first: 1, last: i64::MAX, newest: i64::MAX };
        for segment in [segment, late] {
            let path = segment.path(live);
            let name = path.to_str().unwrap().strip_prefix("/logs/requests.db.").unwrap();
            assert_eq!(Segment::of(name), Some(segment));
        }
        let wrong = [
            "",
            "damaged",
            "part",
            "000000000001-000000080000",
            "000000000001-000000080000-1700000000123456-1",
            "000000000001-000000080000-1700000000123456.part",
            "000000080001-000000080000-1700000000123456",
            "-00000000001-000000080000-1700000000123456",
            "1-2-3",
            "00000000000a-000000080000-1700000000123456",
            "999999999999999999999-9999999999999999999999-1700000000123456",
        ];
        for name in wrong {
            assert_eq!(Segment::of(name), None, "{name}");
        }
    }

    #[test]
    fn of_what_is_set_aside_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("requests.db");
        let segment = |number| Segment { first: number, last: number, newest: number };
        for number in 1..=6 {
            let path = if number % 2 == 0 { segment(number).path(&live) } else { segment(number).thinned_path(&live) };
            fs::write(path, "damaged").unwrap();
            set_aside(&live, &segment(number)).unwrap();
        }
        let mut aside = aside(&live).unwrap();
        aside.sort_unstable_by_key(|segment| segment.first);
        assert_eq!((aside, list(&live).unwrap()), ([3, 4, 5, 6].map(segment).to_vec(), vec![]));
    }

    #[test]
    fn a_small_store_has_small_segments() {
        let size = |segment, total| Sizes::new(segment, Duration::ZERO, total, None).segment;
        let table = [
            ((4 << 20, 256 << 20), 4 << 20),
            ((4 << 20, 16 << 20), 1 << 20),
            ((4 << 20, 1 << 20), 128 << 10),
            ((64 << 20, 1 << 30), SIZE_MAX - AROUND),
            ((1, 1 << 30), 128 << 10),
        ];
        for ((segment, total), expected) in table {
            assert_eq!(size(segment, total), expected, "{segment} of {total}");
        }
    }
}
