//! Reading: rows of one SELECT, page by page, so that the server holds no more than a page
//! and this side no more than a row, which may have bodies in it.

use tokio_postgres::SimpleQueryMessage;

use crate::session::{Error, Session};

/// Values of a row, as PostgreSQL writes them.
pub type Texts<'r> = [Option<&'r str>];

impl Session {
    /// Begins to read what a SELECT answers, with texts in the places of its values. What else was being read ends.
    ///
    /// # Errors
    /// What the server said, or why it said nothing in time.
    pub async fn select(&mut self, sql: &str, texts: &[&str]) -> Result<(), Error> {
        self.query("ROLLBACK; BEGIN READ ONLY").await?;
        self.execute(&format!("DECLARE page NO SCROLL CURSOR FOR {sql}"), texts).await?;
        Ok(())
    }

    /// The next rows, at most `limit`; how many there were, fewer than that at the end.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub async fn page(&mut self, limit: u32, each: &mut dyn FnMut(&Texts<'_>)) -> Result<u32, Error> {
        let mut rows = 0;
        let take = |message| {
            if let SimpleQueryMessage::Row(row) = message {
                let texts: Vec<_> = (0..row.len()).map(|column| row.get(column)).collect();
                each(&texts);
                rows += 1;
            }
        };
        self.messages(&format!("FETCH {limit} FROM page"), take).await?;
        Ok(rows)
    }
}
