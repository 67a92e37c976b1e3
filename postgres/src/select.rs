//! Reading: rows of one SELECT, page by page, so that the server holds no more than a page
//! and this side no more than a row, which may have bodies in it.

use tokio_postgres::SimpleQueryMessage;

use crate::session::{Error, GOODBYE, Session};

/// What a SELECT stands behind: the server takes only one there, that only reads.
const CURSOR: &str = "DECLARE page NO SCROLL CURSOR FOR ";

/// Values of a row, as PostgreSQL writes them.
pub type Texts<'r> = [Option<&'r str>];

impl Session {
    /// Begins to read what a SELECT answers, with texts in the places of its values. What else was being read ends. Tables
    /// of the schema can be named without it, and times are of UTC.
    ///
    /// # Errors
    /// What the server said, or why it said nothing in time.
    pub async fn select(&mut self, sql: &str, texts: &[&str]) -> Result<(), Error> {
        // The server gives up before we do, and by its own bound where it has one: it would go on for nobody.
        let patience_ms = self.timeout.saturating_sub(GOODBYE).as_millis();
        self.query(&format!(
            "ROLLBACK; BEGIN READ ONLY; SET LOCAL search_path = postern, public; SET LOCAL TimeZone = 'UTC'; SELECT \
             set_config('statement_timeout', '{patience_ms}', true) WHERE current_setting('statement_timeout') = '0'"
        ))
        .await?;
        self.execute(&format!("{CURSOR}{sql}"), texts).await?;
        Ok(())
    }

    /// The same of a SELECT that a user wrote. With `as_json` each row is one text, an object of JSON: only the server knows
    /// their types.
    ///
    /// # Errors
    /// What the server said and where in `sql`, or why it said nothing in time.
    pub async fn ask(&mut self, sql: &str, as_json: bool) -> Result<(), Error> {
        // A comment at its end ends with the line.
        let [before, behind] = if as_json { ["SELECT row_to_json(r) FROM (", "\n) r"] } else { [""; 2] };
        let asked = self.select(&format!("{before}{sql}{behind}"), &[]).await;
        asked.map_err(|error| error.behind(CURSOR.len() + before.len()))
    }

    /// The names of the columns that are read.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub async fn names(&mut self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut take = |message| {
            if let SimpleQueryMessage::RowDescription(columns) = message {
                names = columns.iter().map(|column| column.name().to_owned()).collect();
            }
        };
        // Before the first row, which stays the next one.
        self.messages("FETCH 0 FROM page", &mut take).await?;
        Ok(names)
    }

    /// The next rows, at most `limit`; how many there were, fewer than that at the end.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub async fn page(&mut self, limit: u32, each: &mut dyn FnMut(&Texts<'_>)) -> Result<u32, Error> {
        let mut rows = 0;
        let mut take = |message| {
            if let SimpleQueryMessage::Row(row) = message {
                let texts: Vec<_> = (0..row.len()).map(|column| row.get(column)).collect();
                each(&texts);
                rows += 1;
            }
        };
        self.messages(&format!("FETCH {limit} FROM page"), &mut take).await?;
        Ok(rows)
    }
}
