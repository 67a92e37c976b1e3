//! Every row that matches, all columns, as it is asked for by other programs.

use std::io::{self, Write};

use postern_postgres::columns::NAMES;

use super::filter::Filter;
use super::print::{Cell, Output, Printer};
use super::query::{self, QueryError};
use super::segments::Unread;
use super::walk::{Order, Progress, Sink};
use super::{Store, walk};

/// Writes all columns of every row that matches to `out`, and tells `told` after each page how far it is. What cannot be
/// read is noted in `unread`.
///
/// # Errors
/// When the log cannot be read, or `out` cannot be written.
pub async fn export(
    store: &mut Store,
    filter: &Filter,
    order: Order,
    output: Output,
    out: &mut dyn Write,
    told: &mut dyn FnMut(Progress),
    unread: &Unread,
) -> Result<u64, QueryError> {
    let mut page = Vec::new();
    let printer = Printer::new(output, &mut page, query::names(NAMES))?;
    let mut exported = Exported { printer, out, told };
    let rows = match store {
        Store::Files(path) => walk::walk(path, filter, NAMES, order, &mut exported, unread).await?,
        Store::Server(remote) => remote.walk(filter, NAMES, order, &mut exported).await?,
    };
    exported.page(Progress { rows, walked: None })?;
    Ok(rows)
}

/// Rows are written when nothing of the log is held: whoever reads them may be slow.
struct Exported<'e> {
    printer: Printer<'e, Vec<u8>>,
    out: &'e mut dyn Write,
    told: &'e mut dyn FnMut(Progress),
}

impl Sink for Exported<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        self.printer.row(cells)
    }

    fn page(&mut self, progress: Progress) -> io::Result<()> {
        let page = self.printer.written();
        self.out.write_all(page)?;
        page.clear();
        (self.told)(progress);
        Ok(())
    }
}
