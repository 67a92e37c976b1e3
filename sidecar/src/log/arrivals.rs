//! Rows of PostgreSQL as they arrive. They are in order of their time, and come later than that: a request's when it has
//! ended, and those of a gate that had to wait when it can send again. So each look is at all of the last while, but for
//! what was shown of it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use postern_postgres::{Error, Failure};
use tokio::time::sleep;

use super::Remote;
use super::filter::Filter;
use super::print::{Cell, Output, Printer};
use super::query::{self, QueryError};
use super::remote::{MOMENT, columns, numbers};
use super::walk::{Progress, Sink};

/// How often it is looked for new rows: the server is one for many.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How late a row may come that is shown.
const LATE: &str = "10 minutes";

/// Rows that are known to have been shown, the newest, each in 150 bytes or so. Where more match in [`LATE`], rows that come
/// late for the time before these are not shown.
const SHOWN_MAX: u32 = 4096;

/// Rows of one look.
const LOOK_ROWS: u32 = 1000;

/// After a failure it is tried again, each time later, and then this often.
const AGAIN_EVERY: Duration = Duration::from_secs(30);

/// Less than every id.
const NO_ID: &str = "00000000-0000-0000-0000-000000000000";

impl Remote {
    /// Prints the newest rows that match and then every new one, without end. A connection that is lost is told of and made
    /// anew: nothing is missing then, or there twice.
    ///
    /// # Errors
    /// When rows cannot be read and trying again cannot help, or `out` cannot be written.
    pub async fn follow(
        mut self,
        filter: &Filter,
        output: Output,
        out: &mut dyn Write,
        told: &mut dyn FnMut(&Error),
    ) -> Result<(), QueryError> {
        let mut arrivals = Arrivals::begin(&mut self, filter, output, out).await?;
        let mut pause = LOOK_EVERY;
        loop {
            match arrivals.look(&mut self, filter, columns(output)).await {
                Ok(true) => continue,
                Ok(false) => pause = LOOK_EVERY,
                Err(QueryError::Postgres(error)) if can_pass(error.failure) => {
                    if pause == LOOK_EVERY {
                        told(&error);
                    }
                    pause = AGAIN_EVERY.min(2 * pause);
                }
                Err(error) => return Err(error),
            }
            sleep(pause).await;
            if pause > LOOK_EVERY {
                match self.again().await {
                    Ok(again) => self = again,
                    Err(error) if can_pass(error.failure) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// Whether it may be over when it is tried again.
fn can_pass(failure: Failure) -> bool {
    matches!(failure, Failure::Connect | Failure::Timeout | Failure::Full)
}

/// The time and the id of a row, as texts that have their order.
type Place = (String, String);

struct Arrivals<'o> {
    printer: Printer<'o>,
    /// What was shown behind `floor`.
    shown: BTreeSet<Place>,
    /// What is at it or before it is not looked for any more.
    floor: Place,
    /// The floor, when a look that is begun now has seen all there is.
    next: String,
}

impl<'o> Arrivals<'o> {
    /// Prints the newest rows.
    async fn begin(
        remote: &mut Remote,
        filter: &Filter,
        output: Output,
        out: &'o mut dyn Write,
    ) -> Result<Self, QueryError> {
        let printer = Printer::new(output, out, query::names(columns(output)))?;
        let floor = (late(remote).await?, NO_ID.to_owned());
        let mut arrivals = Self { printer, shown: BTreeSet::new(), next: floor.0.clone(), floor };
        // What is there is as good as shown: before rows are, so that none that comes meanwhile is passed over.
        let found = remote.newest(&Filter { limit: SHOWN_MAX, ..filter.clone() }, "id, time", &mut arrivals).await?;
        if found == u64::from(SHOWN_MAX) {
            arrivals.forget();
        }
        remote.newest(filter, &format!("id, time, {}", columns(output)), &mut arrivals).await?;
        arrivals.printer.show()?;
        Ok(arrivals)
    }

    /// Prints rows that came since, a bounded number; whether there may be more.
    async fn look(&mut self, remote: &mut Remote, filter: &Filter, columns: &str) -> Result<bool, QueryError> {
        let (conditions, mut values) = filter.remote_conditions();
        let columns = format!("id, time, {columns}");
        let (shown, first) = (remote.shown(&columns), values.len() + 1);
        let sql = format!(
            "SELECT {shown} FROM postern.requests r WHERE {conditions} AND r.time >= ${first}::timestamptz \
             AND (r.time, r.id) > (${first}::timestamptz, ${}::uuid) AND r.id NOT IN (SELECT unnest(${}::uuid[])) \
             ORDER BY r.time, r.id LIMIT {LOOK_ROWS}",
            first + 1,
            first + 2
        );
        let ids: Vec<_> = self.shown.iter().map(|(_, id)| id.as_str()).collect();
        values.extend([self.floor.0.clone(), self.floor.1.clone(), format!("{{{}}}", ids.join(","))]);
        let rows = remote.read(&sql, &values, &numbers(&columns), self).await?;
        self.printer.show()?;
        let next = late(remote).await?;
        if rows == u64::from(LOOK_ROWS) {
            return Ok(true);
        }
        let seen = (std::mem::replace(&mut self.next, next), NO_ID.to_owned());
        if seen > self.floor {
            self.shown = self.shown.split_off(&seen);
            self.floor = seen;
        }
        Ok(false)
    }

    /// The oldest row: nothing before it is looked for any more.
    fn forget(&mut self) {
        if let Some(oldest) = self.shown.pop_first() {
            self.floor = oldest.max(self.floor.clone());
        }
    }
}

/// The server's time, less how late a row may come. Nothing is held there afterwards.
async fn late(remote: &mut Remote) -> Result<String, Error> {
    let sql = format!("ROLLBACK; SELECT to_char((now() - interval '{LATE}') AT TIME ZONE 'UTC', {MOMENT})");
    Ok(remote.session.query(&sql).await?.unwrap_or_default())
}

impl Sink for Arrivals<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let [Cell::Text(id), Cell::Text(time), cells @ ..] = cells else { return Ok(()) };
        self.shown.insert(((*time).to_owned(), (*id).to_owned()));
        if self.shown.len() > SHOWN_MAX as usize {
            self.forget();
        }
        if cells.is_empty() { Ok(()) } else { self.printer.row(cells) }
    }

    fn page(&mut self, _progress: Progress) -> io::Result<()> {
        Ok(())
    }
}
