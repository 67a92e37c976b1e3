//! `log verify`: whether every row is the one that was written, from the oldest file to the newest, one file at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::chain::{Chain, Hash, Part, Text};
use super::links::{hex, is_chained, store};
use super::print::Cell;
use super::query::{self, QueryError, Reads, cell};
use super::segments::{self, Segment};

/// What is found where everything fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows that fit.
    pub rows: u64,
    /// Rows of the chain that the log itself has deleted.
    pub deleted: u64,
    /// Rows from before the chain.
    pub before: u64,
    /// The newest row.
    pub newest: Option<Verse>,
    /// Whether a row had the hash that was looked for.
    pub has_anchor: bool,
}

/// A row, as somebody finds it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verse {
    /// Its number in the store.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// Its time.
    pub time: String,
    /// Its hash.
    pub hash: String,
}

impl fmt::Display for Verse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, {}, of {}", self.seq, self.id, self.time)
    }
}

/// The first thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Numbers without rows.
    #[error("rows {first} to {last} are missing, and the log has not deleted them itself")]
    Missing {
        /// Number of the first.
        first: i64,
        /// Number of the last.
        last: i64,
    },
    /// A note of deleted rows that the log has not made.
    #[error("that rows {first} to {last} were deleted, the log has not noted itself, or with another key")]
    Forged {
        /// Number of the first.
        first: i64,
        /// Number of the last.
        last: i64,
    },
    /// A row is another than was written, or follows another.
    #[error("{0}: it was changed, or does not follow the row before it, or the chain was made with another key")]
    Changed(Verse),
    /// The chain breaks off.
    #[error("{0}: it has no hash, though rows before it have")]
    NoHash(Verse),
    /// Nothing is known of what was before.
    #[error("{0}: the chain begins here, and nothing says so, or with another key")]
    NoBeginning(Verse),
    /// The chain begins a second time.
    #[error("{0}: the chain begins anew here, and nothing says what was before")]
    Anew(Verse),
    /// What is noted of the newest row is of another.
    #[error("its end, row {last}, is not the one that was noted when it was written")]
    End {
        /// Number of the newest row.
        last: i64,
    },
    /// A segment that cannot be read.
    #[error("it cannot be read, or is damaged")]
    Unreadable,
}

/// Why it is not known, or known not to be so.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// It is not what was written.
    #[error("{}: {fault}", file.display())]
    Fault {
        /// The file that has it.
        file: PathBuf,
        /// What it is.
        fault: Fault,
    },
}

/// Verifies a log.
///
/// # Errors
/// The first thing that does not fit; or when the log cannot be read.
pub async fn verify(path: &Path, chain: &Chain, anchor: Option<&str>) -> Result<Verified, VerifyError> {
    let mut walk = Walk::new(chain, anchor);
    let mut unreadable = None;
    loop {
        let wrong = |fault, file: &Path| VerifyError::Fault { file: file.to_owned(), fault };
        // Not held for longer than a look, but for the last one: the writer cannot fold its file meanwhile.
        let mut live = query::open(path, Reads::Snapshot).await?;
        let cut = segments::cut_of(&mut live).await.map_err(QueryError::from)?;
        let next = walk.next.unwrap_or(0);
        let segments = segments::list(path).map_err(QueryError::from)?;
        let segment = segments.into_iter().find(|segment| segment.last <= cut && segment.last >= next);
        let first = segment.as_ref().map_or(cut + 1, |segment| segment.first);
        let notes = Notes::load(&mut live, walk.next.unwrap_or(first) - 1, first - 1).await?;
        walk.enter(&notes, first).map_err(|fault| wrong(fault, path))?;
        let Some(segment) = segment else {
            walk.file(&mut live, first, None).await?.map_err(|fault| wrong(fault, path))?;
            return Ok(walk.verified);
        };
        live.close().await.map_err(QueryError::from)?;
        let Some(mut closed) = segments::open(path, &segment).await? else {
            // Deleted just now; or it is still there at the next look.
            if unreadable.as_ref() == Some(&segment) {
                return Err(wrong(Fault::Unreadable, &segment.path(path)));
            }
            unreadable = Some(segment);
            continue;
        };
        let Segment { first, last, .. } = segment;
        walk.file(&mut closed, first, Some(last)).await?.map_err(|fault| wrong(fault, &segment.path(path)))?;
    }
}

/// Whether all rows of a segment fit, by what it says of the row before its first.
pub(super) async fn fits(
    connection: &mut SqliteConnection,
    chain: &Chain,
    segment: &Segment,
) -> Result<bool, QueryError> {
    let Segment { first, last, .. } = *segment;
    let notes = Notes::load(connection, first - 1, first - 1).await?;
    let mut walk = Walk::new(chain, None);
    walk.next = Some(first);
    walk.state = notes.links.get(&(first - 1)).map(|link| link.hash);
    Ok(walk.file(connection, first, Some(last)).await?.is_ok())
}

/// What a file notes of some numbers (links.sql).
#[derive(Debug)]
struct Notes {
    store: i64,
    /// By the number of the last.
    links: BTreeMap<i64, Link>,
}

#[derive(Debug)]
struct Link {
    first: i64,
    hash: Hash,
    proof: Option<Vec<u8>>,
}

/// `last`, `first`, `hash` and `proof`.
type LinkRow = (i64, i64, Vec<u8>, Option<Vec<u8>>);

impl Notes {
    async fn load(connection: &mut SqliteConnection, from: i64, to: i64) -> Result<Self, QueryError> {
        let store = store(connection).await?;
        if !is_chained(connection).await? {
            return Ok(Self { store, links: BTreeMap::new() });
        }
        let sql = "SELECT last, first, hash, proof FROM link WHERE last BETWEEN ? AND ?";
        let rows: Vec<LinkRow> = sqlx::query_as(sql).bind(from).bind(to).fetch_all(connection).await?;
        let links = rows.into_iter().filter_map(|(last, first, hash, proof)| {
            Some((last, Link { first, hash: Hash::try_from(hash).ok()?, proof }))
        });
        Ok(Self { store, links: links.collect() })
    }
}

/// How far all is well.
struct Walk<'a> {
    chain: &'a Chain,
    anchor: Option<&'a str>,
    /// Hash of the row before the next; `None` before the chain begins.
    state: Option<Hash>,
    /// Number of the next row; `None` before the first file.
    next: Option<i64>,
    text: Text,
    verified: Verified,
}

impl<'a> Walk<'a> {
    fn new(chain: &'a Chain, anchor: Option<&'a str>) -> Self {
        Self { chain, anchor, state: None, next: None, text: Text::default(), verified: Verified::default() }
    }

    /// On to the file that begins with row `first`: what is between, or before all files, the live one has noted.
    fn enter(&mut self, notes: &Notes, first: i64) -> Result<(), Fault> {
        if self.next.is_none() {
            self.next = notes.links.get(&(first - 1)).map(|link| link.first.min(first)).or(Some(first));
        }
        self.pass(notes, first)
    }

    /// Passes numbers before `until` which the log itself has deleted.
    fn pass(&mut self, notes: &Notes, until: i64) -> Result<(), Fault> {
        while let Some(next) = self.next.filter(|next| *next < until) {
            let found = notes.links.range(next..).next().filter(|(_, link)| link.first <= next);
            let Some((last, link)) = found else {
                if self.state.is_some() {
                    return Err(Fault::Missing { first: next, last: until - 1 });
                }
                self.next = Some(until);
                break;
            };
            let proof = self.chain.removed(notes.store, link.first, *last, &link.hash);
            if link.proof.as_deref() != Some(&proof[..]) || *last >= until {
                return Err(Fault::Forged { first: link.first, last: *last });
            }
            self.verified.deleted += u64::try_from(last + 1 - next).unwrap_or(0);
            self.reached(*last, link.hash);
        }
        Ok(())
    }

    fn reached(&mut self, seq: i64, hash: Hash) {
        self.state = Some(hash);
        self.next = Some(seq + 1);
        self.verified.has_anchor |= self.anchor.is_some_and(|anchor| anchor.eq_ignore_ascii_case(&hex(&hash)));
    }

    /// The rows of a file, from number `first` on, to its `last` if it is closed.
    async fn file(
        &mut self,
        connection: &mut SqliteConnection,
        first: i64,
        last: Option<i64>,
    ) -> Result<Result<(), Fault>, QueryError> {
        query::time(connection).await?;
        let notes = Notes::load(connection, first - 1, last.unwrap_or(i64::MAX)).await?;
        let end = end(connection).await?;
        if let Err(fault) = self.rows(connection, &notes, first).await? {
            return Ok(Err(fault));
        }
        let behind = last.max(end.as_ref().map(|(last, _)| *last)).map_or(0, |last| last + 1);
        if let Err(fault) = self.pass(&notes, behind) {
            return Ok(Err(fault));
        }
        let (Some(state), Some(next)) = (self.state, self.next) else {
            // There was a chain, and nothing of it is left.
            return Ok(end.map_or(Ok(()), |(last, _)| Err(Fault::Missing { first, last })));
        };
        let proof = self.chain.end(notes.store, next - 1, &state);
        let is_end = end.is_some_and(|(last, noted)| last == next - 1 && noted == proof);
        Ok(if is_end { Ok(()) } else { Err(Fault::End { last: next - 1 }) })
    }

    async fn rows(
        &mut self,
        connection: &mut SqliteConnection,
        notes: &Notes,
        first: i64,
    ) -> Result<Result<(), Fault>, QueryError> {
        let sql = "SELECT name FROM pragma_table_info('requests') WHERE name <> 'chain'";
        let columns: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await?;
        let parts: Vec<_> = columns.iter().map(|name| (Part::of(name), name.as_str())).collect();
        let hash = segments::known(connection, "chain").await?;
        let sql =
            format!("SELECT seq, {hash}, id, time, {} FROM entry WHERE seq >= ? ORDER BY seq", columns.join(", "));
        let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(first).fetch(connection);
        while let Some(row) = rows.try_next().await? {
            for (index, (part, name)) in parts.iter().enumerate() {
                match cell(&row, OWN + index)? {
                    Cell::Null => {}
                    Cell::Integer(number) => self.text.column(*part, name, number.to_string().as_bytes()),
                    Cell::Text(text) => self.text.column(*part, name, text.as_bytes()),
                    // The gate writes no such values.
                    Cell::Real(_) | Cell::Blob(_) => self.text.column(*part, name, b"?"),
                }
            }
            let verse = Verse {
                seq: row.try_get(0)?,
                hash: row.try_get::<Option<String>, _>(1)?.unwrap_or_default(),
                id: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
                time: row.try_get::<Option<String>, _>(3)?.unwrap_or_default(),
            };
            if let Err(fault) = self.row(notes, verse) {
                return Ok(Err(fault));
            }
        }
        Ok(Ok(()))
    }

    /// The row whose text is at hand.
    fn row(&mut self, notes: &Notes, verse: Verse) -> Result<(), Fault> {
        let (chain, seq) = (self.chain, verse.seq);
        self.pass(notes, seq)?;
        if verse.hash.is_empty() {
            self.text.hashed(|_| ());
            self.verified.before += 1;
            self.next = Some(seq + 1);
            return if self.state.is_some() { Err(Fault::NoHash(verse)) } else { Ok(()) };
        }
        let begins = [chain.begin(notes.store, seq - 1), chain.anew(notes.store, seq - 1)];
        let noted = notes.links.get(&(seq - 1)).and_then(|link| begins.into_iter().find(|begin| link.hash == *begin));
        let before = self.state.or(noted.filter(|noted| *noted == begins[0]));
        let (next, anew) = self.text.hashed(|text| {
            let hash = |before: Option<Hash>| before.map(|before| chain.next(&before, text));
            (hash(before), hash(noted))
        });
        let fits = |hash: Option<Hash>| hash.filter(|hash| hex(hash) == verse.hash);
        let Some(next) = fits(next) else {
            return Err(match (fits(anew), self.state.or(noted)) {
                (Some(_), _) => Fault::Anew(verse),
                (None, None) => Fault::NoBeginning(verse),
                (None, Some(_)) => Fault::Changed(verse),
            });
        };
        self.verified.rows += 1;
        self.verified.newest = Some(verse);
        self.reached(seq, next);
        Ok(())
    }
}

/// Columns before the row's own.
const OWN: usize = 4;

/// What a file notes of its newest row.
async fn end(connection: &mut SqliteConnection) -> Result<Option<(i64, Vec<u8>)>, QueryError> {
    if !is_chained(connection).await? {
        return Ok(None);
    }
    let sql = "SELECT last, proof FROM chain_end";
    Ok(sqlx::query_as(sql).fetch_optional(connection).await?)
}
