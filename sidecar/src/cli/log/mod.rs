//! The `log` command: its flags and its own commands, and how rows are written.

mod body;
mod deliver;
mod filters;
mod store;
mod verify;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

pub(super) use self::deliver::Stopped;

use self::body::{BodyArgs, body};
use self::deliver::{Delivery, ProgressLine, stopped};
use self::filters::FilterArgs;
use self::store::StoreArgs;
use self::verify::{VerifyArgs, verify};
use crate::log::{self, By, Order, Output, Store, TopOptions, Unread, query};
use crate::settings;

/// What `--sql` replaces.
const FILTERS: [&str; 19] = [
    "since",
    "until",
    "kind",
    "verdict",
    "reason",
    "limiter",
    "identity",
    "listener",
    "route",
    "host",
    "path",
    "status",
    "client",
    "fingerprint",
    "serial",
    "request_id",
    "trace_id",
    "message_type",
    "limit",
];

/// Rows of `log` unless told otherwise.
const ROWS: u32 = 100;

/// Rows of `log top` unless told otherwise: a screen.
const TOP_ROWS: u32 = 20;

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: Option<LogCommand>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    filters: FilterArgs,
    /// At most this many rows, the newest [100]; of `top` those with the most decisions [20]
    #[arg(global = true, long)]
    limit: Option<u32>,
    /// Go on printing rows as they come, until interrupted
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// How rows are printed [table]
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Print the result of a SELECT on the view `requests` instead, in PostgreSQL on what is in schema `postern`
    #[arg(long, value_name = "SELECT", conflicts_with_all = FILTERS, conflicts_with = "follow")]
    sql: Option<String>,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Explain one decision: which rule, who it was, why, and what would have let it pass
    Why(WhyArgs),
    /// Write a body that a row keeps, as it came (settings.log.bodyKeyFile)
    Body(BodyArgs),
    /// Count decisions by identity, route, reason and the like
    Top(TopArgs),
    /// Write all columns of every row that matches
    Export(ExportArgs),
    /// Find out whether a row was changed, put in or taken away since it was written (settings.log.chain)
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
struct WhyArgs {
    /// Of the row, or of the request: what answers and applications have in x-request-id
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Args, Debug)]
struct TopArgs {
    /// What is counted
    #[arg(value_enum, default_value_t = By::Identities)]
    by: By,
    /// Without latencies. PostgreSQL then counts identities, routes, rules, reasons, namespaces and workloads from its sums by
    /// the hour, also of days whose rows are gone
    #[arg(long)]
    counts: bool,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args, Debug)]
struct ExportArgs {
    /// How rows are written
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// A new file, in place of standard output: there when it is whole
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The newest rows first
    #[arg(long)]
    newest_first: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    Csv,
    Jsonl,
}

impl Format {
    fn output(self) -> Output {
        match self {
            Self::Table if io::stdout().is_terminal() && settings::may_be_coloured() => Output::Painted,
            Self::Table => Output::Table,
            Self::Json => Output::Json,
            Self::Csv => csv(io::stdout().is_terminal()),
        }
    }
}

fn csv(is_on_terminal: bool) -> Output {
    if is_on_terminal { Output::CsvShown } else { Output::Csv }
}

/// The exit status where all was answered but for rows that cannot be read; 2 is what a command line that is wrong ends with.
pub(super) const INCOMPLETE: u8 = 3;

/// What the answer lacks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Incomplete(String);

/// Prints what is asked for, and then what of it cannot be read.
pub(super) fn print(args: &LogArgs) -> Result<()> {
    if args.command.is_some() && (args.follow || args.sql.is_some() || args.output.is_some()) {
        bail!("--follow, --sql and an --output before the command's name are of rows alone");
    }
    log::bound_memory();
    let unread = &Unread::default();
    let done = super::runtime()?.block_on(async {
        match &args.command {
            None => rows(args, args.store.open().await?, unread).await,
            Some(LogCommand::Why(of)) => why(args, args.store.open().await?, of, unread).await,
            Some(LogCommand::Body(of)) => body(&args.store, &args.filters, of, unread).await,
            Some(LogCommand::Top(of)) => top(args, args.store.open().await?, of, unread).await,
            Some(LogCommand::Export(of)) => export(args, args.store.open().await?, of, unread).await,
            Some(LogCommand::Verify(of)) => verify(&args.store, of).await,
        }
    });
    match (unread.news(), done) {
        (None, done) => done,
        (Some(news), Ok(())) => bail!(Incomplete(news)),
        (Some(news), failed) => {
            tell(&news);
            failed
        }
    }
}

fn tell(what: &str) {
    let _nowhere_to_tell = writeln!(io::stderr(), "postern-sidecar: {what}");
}

async fn rows(args: &LogArgs, store: Store, unread: &Unread) -> Result<()> {
    let filter = args.filters.filter(args.limit.unwrap_or(ROWS));
    let output = args.output.unwrap_or(Format::Table).output();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match (store, &args.sql) {
        (Store::Server(mut remote), Some(sql)) => Some(remote.sql(sql, output, &mut out).await?),
        (Store::Server(remote), None) if args.follow => {
            let mut told = |error: &postern_postgres::Error| tell(&format!("PostgreSQL: {error}; trying again"));
            remote.follow(&filter, output, &mut out, &mut told).await?;
            None
        }
        (Store::Server(mut remote), None) => Some(remote.rows(&filter, output, &mut out).await?),
        (Store::Files(path), Some(sql)) => Some(query::sql(&path, sql, output, &mut out, unread).await?),
        (Store::Files(path), None) if args.follow => {
            log::follow(&path, &filter, output, &mut out, &mut tell).await?;
            None
        }
        (Store::Files(path), None) => Some(query::rows(&path, &filter, output, &mut out, unread).await?),
    };
    out.flush()?;
    if printed.is_some_and(|printed| printed.cut) {
        tell(&format!("cut after {} rows", query::ROWS_MAX));
    }
    Ok(())
}

async fn why(args: &LogArgs, mut store: Store, of: &WhyArgs, unread: &Unread) -> Result<()> {
    match log::find(&mut store, &args.filters.filter(1), &of.id, unread).await? {
        Some(found) => {
            let beside = args.store.parts().map(|parts| found.beside(&parts)).unwrap_or_default();
            Ok(write!(io::stdout(), "{}{beside}", found.explanation())?)
        }
        None => bail!("no row and no request has the id {}", log::safe(&of.id)),
    }
}

async fn top(args: &LogArgs, mut store: Store, of: &TopArgs, unread: &Unread) -> Result<()> {
    let filter = args.filters.filter(args.limit.unwrap_or(TOP_ROWS));
    log::yield_to_the_gate();
    let mut line = ProgressLine::new();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut told = |progress| line.tell(progress);
    let options = TopOptions { by: of.by, counts: of.counts, output: of.output.output() };
    log::top(&mut store, &filter, options, &mut out, &mut told, unread).await?;
    drop(line);
    Ok(out.flush()?)
}

async fn export(args: &LogArgs, mut store: Store, of: &ExportArgs, unread: &Unread) -> Result<()> {
    if args.limit.is_some() {
        bail!("an export has every row that matches: leave out --limit");
    }
    let output = match of.format {
        ExportFormat::Csv => csv(of.output.is_none() && io::stdout().is_terminal()),
        ExportFormat::Jsonl => Output::Json,
    };
    let order = if of.newest_first { Order::NewestFirst } else { Order::OldestFirst };
    log::yield_to_the_gate();
    let mut delivery = Delivery::begin(of.output.as_deref())?;
    let mut line = ProgressLine::new();
    let mut told = |progress| line.tell(progress);
    let filter = args.filters.filter(0);
    let work = log::export(&mut store, &filter, order, output, delivery.writer(), &mut told, unread);
    tokio::select! {
        done = work => done?,
        stopped = stopped(of.output.is_some()) => bail!(stopped?),
    };
    drop(line);
    delivery.finish()
}
