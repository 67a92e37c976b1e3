//! What a gate's log is about, by the millisecond: as its files tell, so that looking costs the gate nothing. And a PostgreSQL
//! that hangs now and then.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(1);

/// Whoever looks so long after the last time was held up himself, and so was the client on the same core. Others at work
/// there take some milliseconds.
const HELD_UP: Duration = Duration::from_millis(10);

/// A live file that was cut is smaller, and one that is about to be is larger.
const CUT_BYTES: u64 = 1 << 20;

/// Where SQLite has in a log's shared memory how far it is folded into the database, and how far it is to be while that is
/// under way (https://www.sqlite.org/walformat.html#the_wal_index_file_format).
const FOLDED: u64 = 96;
const TO_BE_FOLDED: u64 = 128;

/// How long there is no PostgreSQL, and how long there is one then.
const TURN: Duration = Duration::from_secs(8);

/// What may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A segment is cut off the live file, with a checkpoint at its end.
    Cut,
    /// SQLite folds the write-ahead log into the live file.
    Checkpoint,
    /// A segment is made small.
    Compression,
    /// A PostgreSQL that says nothing is waited for.
    Hanging,
}

impl Work {
    /// All, that first which holds up most: what is under way with another counts as that.
    pub const ALL: [Self; 4] = [Self::Cut, Self::Checkpoint, Self::Compression, Self::Hanging];
}

/// From when to when.
pub type Span = (Instant, Instant);

/// When what was under way, in order.
#[derive(Debug, Default)]
pub struct Spans {
    /// Of each kind.
    pub each: [Vec<Span>; Work::ALL.len()],
    /// When the client's core did something else, or nothing because the machine stood still; and as long again, in which
    /// the client makes up for it.
    pub held_up: Vec<Span>,
}

impl Spans {
    /// Of one kind.
    pub fn of(&self, work: Work) -> &[Span] {
        &self.each[work as usize]
    }

    /// Notes what is under way now. What has come began when it was looked before, at the earliest.
    fn note(&mut self, work: Work, before: Instant, now: Instant, is_going_on: &mut bool, is: bool) {
        let spans = &mut self.each[work as usize];
        if is && !*is_going_on {
            spans.push((before, now));
        } else if *is_going_on && let Some(last) = spans.last_mut() {
            last.1 = now;
        }
        *is_going_on = is;
    }
}

/// Whether something was under way in a span.
pub fn is_any_in(spans: &[Span], (from, to): Span) -> bool {
    let next = spans.partition_point(|span| span.1 < from);
    spans.get(next).is_some_and(|span| span.0 <= to)
}

/// The log of a gate, and a PostgreSQL that it is told of now and then.
pub struct Watch<'a> {
    live: PathBuf,
    /// What all who have the log open share.
    shared: File,
    is_cutting: bool,
    server: TcpListener,
    connection: Option<TcpStream>,
    /// Where the gate looks for its URL.
    url: &'a Path,
    is_there: bool,
}

impl<'a> Watch<'a> {
    /// Of a live file.
    pub fn new(live: PathBuf, url: &'a Path) -> Result<Self> {
        // It takes connections, and nobody ever answers on them.
        let server = TcpListener::bind("127.0.0.1:0")?;
        server.set_nonblocking(true)?;
        let mut shared = live.clone().into_os_string();
        shared.push("-shm");
        Ok(Self {
            live,
            shared: File::open(shared)?,
            is_cutting: false,
            server,
            connection: None,
            url,
            is_there: false,
        })
    }

    /// Looks until it is stopped.
    pub fn run(mut self, is_over: &AtomicBool) -> Result<Spans> {
        let (mut spans, mut going_on) = (Spans::default(), [false; Work::ALL.len()]);
        let begun = Instant::now();
        let mut before = begun;
        while !is_over.load(Ordering::Relaxed) {
            let now = Instant::now();
            let (is_cutting, is_compressing) = self.segments()?;
            let under_way = [is_cutting, self.is_folding()?, is_compressing, self.is_hanging(begun.elapsed())?];
            for ((work, is), going_on) in Work::ALL.into_iter().zip(under_way).zip(&mut going_on) {
                spans.note(work, before, now, going_on, is);
            }
            if now - before > HELD_UP {
                spans.held_up.push((before, now + (now - before)));
            }
            before = now;
            sleep(EVERY);
        }
        Ok(spans)
    }

    /// Whether one is cut, and whether there is one to be made small.
    fn segments(&mut self) -> Result<(bool, bool)> {
        let name = self.live.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (mut is_written, mut is_plain) = (false, false);
        for entry in fs::read_dir(self.live.parent().unwrap_or(Path::new(".")))? {
            let entry = entry?.file_name();
            let Some(rest) = entry.to_str().and_then(|entry| entry.strip_prefix(&name)?.strip_prefix('.')) else {
                continue;
            };
            is_written |= rest == "part";
            is_plain |= rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        }
        let is_large = fs::metadata(&self.live)?.len() > CUT_BYTES;
        self.is_cutting = is_written || (self.is_cutting && is_large);
        Ok((self.is_cutting, is_plain))
    }

    fn is_folding(&self) -> Result<bool> {
        let number = |at: u64| -> Result<u32> {
            let mut bytes = [0; size_of::<u32>()];
            self.shared.read_exact_at(&mut bytes, at)?;
            Ok(u32::from_ne_bytes(bytes))
        };
        Ok(number(FOLDED)? < number(TO_BE_FOLDED)?)
    }

    /// Sees to it that there is a PostgreSQL or none, as it is its time; whether it is waited for.
    fn is_hanging(&mut self, since: Duration) -> Result<bool> {
        let is_its_time = !(since.as_secs() / TURN.as_secs()).is_multiple_of(2);
        if is_its_time && !self.is_there {
            fs::write(self.url, format!("postgres://gate@{}/postgres", self.server.local_addr()?))?;
        } else if !is_its_time && self.is_there {
            fs::remove_file(self.url)?;
            self.connection = None;
        }
        self.is_there = is_its_time;
        match &mut self.connection {
            None if is_its_time => {
                self.connection = self.server.accept().ok().map(|(connection, _)| connection);
                if let Some(connection) = &self.connection {
                    connection.set_nonblocking(true)?;
                }
            }
            None => {}
            // What it says does not matter, but that it goes.
            Some(connection) => match connection.read(&mut [0; 1024]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => self.connection = None,
            },
        }
        Ok(self.connection.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_in_a_span_that_it_has_a_moment_in_common_with() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let spans = [(at(10), at(20)), (at(30), at(40))];
        let table = [
            ((0, 9), false),
            ((0, 10), true),
            ((0, 50), true),
            ((12, 13), true),
            ((20, 25), true),
            ((21, 29), false),
            ((25, 30), true),
            ((41, 50), false),
        ];
        for ((from, to), expected) in table {
            assert_eq!(is_any_in(&spans, (at(from), at(to))), expected, "{from} to {to}");
        }
        assert!(!is_any_in(&[], (at(0), at(100))));
    }

    #[test]
    fn what_has_come_began_before_it_was_seen() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let (mut spans, mut is_going_on) = (Spans::default(), false);
        for (ms, is) in [(1, false), (2, true), (3, true), (4, false), (5, false), (6, true), (7, false)] {
            spans.note(Work::Cut, at(ms - 1), at(ms), &mut is_going_on, is);
        }
        assert_eq!(spans.of(Work::Cut), [(at(1), at(4)), (at(5), at(7))]);
        assert!(spans.of(Work::Hanging).is_empty());
    }
}
