//! What an answer lacks: segments that could not be read, to be told with it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::compress::read;
use super::{Form, Segment, aside_path};
use crate::log::schema::VERSION;

/// How many are told by name: all of it is one line.
const NAMED: usize = 4;

/// Where SQLite has `user_version` in a file (sqlite.org/fileformat2.html#the_database_header).
const VERSION_AT: std::ops::Range<usize> = 60..64;

/// Segments that were passed over. A query of the user's own is done by a thread of its own, which has a clone.
#[derive(Clone, Debug, Default)]
pub struct Unread(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    /// Each with whether it is a newer version's.
    known: Vec<(PathBuf, bool)>,
    /// So many were told.
    told: usize,
}

impl Unread {
    /// Notes a segment of which rows could not be read; one that was deleted meanwhile is none.
    pub(in crate::log) fn note(&self, live: &Path, segment: &Segment) {
        let paths = segment.paths(live);
        let aside = paths.each_ref().map(|path| aside_path(path));
        let Some(path) = paths.into_iter().chain(aside).find(|path| path.exists()) else { return };
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.known.iter().any(|(known, _)| *known == path) {
            files.known.push((path, is_newer(live, segment)));
        }
    }

    /// What is to be told of those that were not told yet, in one line; `None` where there are none.
    #[must_use]
    pub fn news(&self) -> Option<String> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, all) = (files.told, files.known.len());
        files.told = all;
        let part = |what, newer| {
            let of = files.known[told..].iter().filter(|(_, is_newer)| *is_newer == newer);
            let mut names: Vec<_> = of.map(|(path, _)| path.display().to_string()).collect();
            names.sort_unstable();
            let more = names.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (!names.is_empty()).then(|| format!("{what}: {}{more}", names[..names.len().min(NAMED)].join(", ")))
        };
        let parts = [
            part("of segments that are damaged (restore them, or try `sqlite3 FILE .recover`)", false),
            part("of segments of a newer version (a newer postern-sidecar reads them)", true),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("rows are missing {}", parts.join("; ")))
    }
}

/// Whether a later version of this program wrote it.
fn is_newer(live: &Path, segment: &Segment) -> bool {
    // A large one is an earlier version's.
    let is_small = segment.form(live).is_some_and(|form| form != Form::Large);
    let image = if is_small { read(live, segment).ok() } else { None };
    let version = image.as_ref().and_then(|image| image.get(VERSION_AT)?.try_into().ok());
    version.is_some_and(|version| i64::from(u32::from_be_bytes(version)) > VERSION)
}
