//! Which segments go: the oldest, whole, when all files would take more than they may, or when they are too old.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Form, Segment, Sizes, UNFINISHED, beside, bytes, compress, damaged, list};
use crate::log::prune::Room;
use crate::log::stats::Stats;
use crate::log::store::ASIDE;

/// The part of the log that is for what was refused and is older than all that was allowed: one in so many.
const REFUSED_PART: u64 = 4;

/// How many cuts before a segment would be deleted it is thinned, so that there is time for it.
pub(super) const CUTS_AHEAD: u64 = 2;

/// Thinned segments there are at most: each is small, and has to be opened by whoever reads all of the log.
const THINNED_MAX: usize = 256;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct Gone {
    /// Rows of segments that made room.
    pub(in crate::log) for_size: u64,
    /// Rows of segments that were too old.
    pub(in crate::log) for_age: u64,
}

impl AddAssign for Gone {
    fn add_assign(&mut self, other: Self) {
        self.for_size += other.for_size;
        self.for_age += other.for_age;
    }
}

/// Segments that are to be deleted.
#[derive(Clone, Debug, Default)]
pub(in crate::log) struct ToGo {
    /// Because they are too old.
    pub(in crate::log) for_age: Vec<Segment>,
    /// To make room.
    pub(in crate::log) for_size: Vec<Segment>,
}

/// Keeps all files within their size.
#[derive(Clone, Debug)]
pub(in crate::log) struct Retention {
    pub(in crate::log) sizes: Sizes,
    /// Bytes that the write-ahead log may take.
    pub(in crate::log) wal_bytes: u64,
    /// What knows how far rows were sent.
    pub(in crate::log) stats: Arc<Stats>,
}

impl Retention {
    pub(in crate::log) fn new(sizes: Sizes, stats: &Arc<Stats>) -> Self {
        Self { sizes, wal_bytes: 2 * Room::wal_bytes(sizes.total), stats: Arc::clone(stats) }
    }

    /// What is to be deleted: what is too old, and the oldest until there is room for `more` bytes: rows, the write-ahead
    /// log at its longest, and a file while another is made of it.
    pub(in crate::log) fn to_go(&self, live: &Path, more: u64, now: SystemTime) -> io::Result<ToGo> {
        let oldest = self.sizes.keep.and_then(|keep| now.checked_sub(keep));
        let (for_age, segments): (Vec<_>, Vec<_>) =
            list(live)?.into_iter().partition(|segment| oldest.is_some_and(|oldest| segment.is_before(oldest)));
        let most = self.sizes.total.saturating_sub(more);
        let mut left = used(live)?.saturating_sub(for_age.iter().map(|segment| all_bytes(live, segment)).sum());
        if left > most {
            // Somebody may still want to look at what was damaged, but not at the cost of what is whole.
            let live_ones = ["", "-wal"].map(|end| beside(live, &format!("{ASIDE}{end}")));
            for path in damaged(live)?.iter().chain(&live_ones) {
                let bytes = bytes(path);
                if fs::remove_file(path).is_ok() {
                    left = left.saturating_sub(bytes);
                }
            }
        }
        let mut for_size = Vec::new();
        for segment in self.order(live, segments) {
            if left <= most {
                break;
            }
            left = left.saturating_sub(all_bytes(live, &segment));
            for_size.push(segment);
        }
        Ok(ToGo { for_age, for_size })
    }

    /// The order in which segments make room.
    fn order(&self, live: &Path, segments: Vec<Segment>) -> Vec<Segment> {
        // What was refused keeps its part; without it, it would go first, for it is the oldest. What is still to be sent has
        // no bound but that of all.
        let is_thinned = |segment: &Segment| segment.form(live) == Some(Form::Thinned);
        let (mut thinned, whole): (Vec<_>, Vec<_>) = segments.into_iter().partition(is_thinned);
        let mut part: u64 = thinned.iter().map(|segment| bytes(&segment.thinned_path(live))).sum();
        let mut first = Vec::new();
        while part > self.sizes.total / REFUSED_PART || thinned.len() > THINNED_MAX {
            if thinned.len() <= THINNED_MAX && !self.is_shipped(&thinned[0]) {
                break;
            }
            let segment = thinned.remove(0);
            part -= bytes(&segment.thinned_path(live));
            first.push(segment);
        }
        let mut order: Vec<_> = first.into_iter().chain(whole).chain(thinned).collect();
        // What is still to be sent goes after all that was.
        order.sort_by_key(|segment| !self.is_shipped(segment));
        order
    }

    /// Deletes it.
    pub(in crate::log) fn delete(&self, live: &Path, to_go: &ToGo) -> io::Result<Gone> {
        let mut gone = Gone::default();
        for segment in &to_go.for_age {
            gone.for_age += delete(live, segment)?;
            self.stats.ship.aged(segment.last);
        }
        for segment in &to_go.for_size {
            gone.for_size += delete(live, segment)?;
        }
        Ok(gone)
    }

    /// The oldest segment that has what was allowed, where so many cuts would delete it: what was refused is to stay.
    pub(in crate::log) fn next_to_go(&self, live: &Path, cuts: u64) -> io::Result<Option<Segment>> {
        let most = self.sizes.total.saturating_sub(self.ahead() + cuts * self.sizes.segment);
        if used(live)? <= most {
            return Ok(None);
        }
        let segments = list(live)?;
        // Rows that are still to be sent stay while there is a segment that can go in their place.
        let can_go =
            |segment: &Segment| self.is_shipped(segment) || !segments.iter().any(|other| self.is_shipped(other));
        Ok(segments.iter().find(|segment| has_all(live, segment)).filter(|segment| can_go(segment)).cloned())
    }

    /// The first that the next cut would delete of those that have what was allowed and are still to be sent.
    pub(in crate::log) fn next_unsent(&self, live: &Path, now: SystemTime) -> io::Result<Option<Segment>> {
        let to_go = self.to_go(live, self.ahead() + self.sizes.segment, now)?;
        let is_one = |segment: &Segment| !self.is_shipped(segment) && has_all(live, segment);
        Ok(to_go.for_size.into_iter().find(is_one))
    }

    /// Whether all of its rows were sent, or none is to be.
    fn is_shipped(&self, segment: &Segment) -> bool {
        segment.last <= self.stats.ship.shipped()
    }

    /// What is to be free after a cut: the live file grows, its write-ahead log too, then it is copied, and a segment is
    /// made smaller.
    pub(in crate::log) fn ahead(&self) -> u64 {
        let ahead = 3 * self.sizes.segment + self.wal_bytes;
        // Where segments are as large as the log, it is not to be empty for that.
        ahead.min(self.sizes.total / 4 * 3)
    }
}

/// Whether it has what was allowed, too, and that can be taken out.
fn has_all(live: &Path, segment: &Segment) -> bool {
    matches!(segment.form(live), Some(Form::Plain | Form::Packed))
}

/// Bytes of a segment, wherever it is.
fn all_bytes(live: &Path, segment: &Segment) -> u64 {
    segment.paths(live).iter().map(|path| bytes(path)).sum()
}

/// Deletes a segment; how many rows that were, at most.
fn delete(live: &Path, segment: &Segment) -> io::Result<u64> {
    for path in segment.paths(live) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(u64::try_from(segment.last - segment.first + 1).unwrap_or(0))
}

/// Bytes of all files of a log, those of SQLite included, and what was set aside. A file of another name is nobody's here.
pub(in crate::log) fn used(live: &Path) -> io::Result<u64> {
    Ok(["", "-wal", "-shm"].iter().map(|end| bytes(&beside(live, end))).sum::<u64>() + closed_bytes(live)?)
}

/// Bytes of what is not the live file.
pub(in crate::log) fn closed_bytes(live: &Path) -> io::Result<u64> {
    let tally = Tally::of(live)?;
    Ok(tally.plain.1 + tally.packed.1 + tally.others)
}

/// How many segments there are and their bytes, by how they are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct Tally {
    pub(in crate::log) plain: (u64, u64),
    pub(in crate::log) packed: (u64, u64),
    /// Bytes of what is no segment.
    pub(in crate::log) others: u64,
}

impl Tally {
    pub(in crate::log) fn of(live: &Path) -> io::Result<Self> {
        let mut tally = Self::default();
        for segment in list(live)? {
            let [plain, packed, thinned] = segment.paths(live).map(|path| bytes(&path));
            let packed = packed + thinned;
            if plain > 0 {
                tally.plain = (tally.plain.0 + 1, tally.plain.1 + plain);
                // Most often there is none.
                tally.packed.1 += packed;
            } else {
                tally.packed = (tally.packed.0 + 1, tally.packed.1 + packed);
            }
        }
        let others = [UNFINISHED, compress::UNFINISHED, ASIDE].map(|end| beside(live, end));
        let others = others.into_iter().chain([beside(live, &format!("{ASIDE}-wal"))]).chain(damaged(live)?);
        tally.others = others.map(|path| bytes(&path)).sum();
        Ok(tally)
    }
}

/// Removes what a kill left unfinished.
pub(in crate::log) fn tidy(live: &Path) {
    for end in [UNFINISHED, compress::UNFINISHED] {
        let _most_often_there_is_none = fs::remove_file(beside(live, end));
    }
}

/// How long an idle log waits before it looks for segments that are too old.
pub(in crate::log) const LOOK_EVERY: Duration = Duration::from_secs(600);
