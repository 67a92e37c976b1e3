//! The `log` command: its flags, and how they are written.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use sidecar_decide::{Limiter, MessageType, Reason, Verdict};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::verify::{VerifyArgs, verify};
use crate::config;
use crate::log::{self, Chained, Filter, Kind, Output, query};
use crate::settings::{self, Flags};

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

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: Option<LogCommand>,
    /// Configuration file (TOML, YAML or JSON), or a folder of them
    #[arg(global = true, long, value_name = "PATH", default_value = "/etc/postern")]
    config: PathBuf,
    /// The database file; by default the one the configuration names
    #[arg(global = true, long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Only rows of this last while, such as 15m or 24h, or from this time on, such as 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Only rows from before this time, or this long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
    /// Only rows of this kind: request, handshake, connection, tunnel, cut, gap
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Only rows of this verdict: allowed, refused, would_refuse
    #[arg(long, value_parser = verdict)]
    verdict: Option<Verdict>,
    /// Only rows of this reason, such as policy_not_allowed
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Only rows of what this limit refused, such as limits.maxStreams
    #[arg(long, value_name = "LIMIT", value_parser = limiter)]
    limiter: Option<String>,
    /// Only rows of this identity, namespace/name
    #[arg(long)]
    identity: Option<String>,
    /// Only rows of this listener
    #[arg(long)]
    listener: Option<String>,
    /// Only rows of this route, namespace/name
    #[arg(long)]
    route: Option<String>,
    /// Only rows of this host, as the client wrote it
    #[arg(long)]
    host: Option<String>,
    /// Only rows whose path begins so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only rows with this status: 404, 5xx, 400-499
    #[arg(long, value_parser = log::statuses)]
    status: Option<(u16, u16)>,
    /// Only rows of clients with this address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Only rows of the certificate with this SHA-256, in any notation
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<String>,
    /// Only rows of certificates with this serial number, hexadecimal
    #[arg(long)]
    serial: Option<String>,
    /// Only rows of the request with this id, which answers and applications have in x-request-id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Only rows of this trace: its id, or a traceparent
    #[arg(long, value_name = "ID")]
    trace_id: Option<String>,
    /// Only rows of messages of this type: an element of IEEE 2030.5, a method of gRPC, exi, json, other
    #[arg(long, value_name = "TYPE", value_parser = message_type)]
    message_type: Option<String>,
    /// At most this many rows, the newest
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Go on printing rows as they come, until interrupted
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// How rows are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Print the result of a SELECT on the view `requests` instead
    #[arg(long, value_name = "SELECT", conflicts_with_all = FILTERS, conflicts_with = "follow")]
    sql: Option<String>,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Find out whether a row was changed, put in or taken away since it was written (settings.log.chain)
    Verify(VerifyArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = text.parse::<sidecar_config::Duration>() {
        return SystemTime::now().checked_sub(ago.as_std()).ok_or_else(|| "is too long ago".to_owned());
    }
    let midnight = format!("{text}T00:00:00Z");
    let moment = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&midnight, &Rfc3339));
    moment.map(SystemTime::from).map_err(|_| {
        "write a duration such as `15m` or `24h`, or a time such as `2026-11-21` or `2026-11-21T10:00:00Z`".to_owned()
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("write one of {names}"))
}

fn verdict(text: &str) -> Result<Verdict, String> {
    let names = Verdict::ALL.map(Verdict::name).join(", ");
    Verdict::ALL.into_iter().find(|verdict| verdict.name() == text).ok_or_else(|| format!("write one of {names}"))
}

fn reason(text: &str) -> Result<String, String> {
    let known = Reason::ALL.into_iter().any(|reason| reason.code() == text);
    let codes = Reason::ALL.map(Reason::code).join(", ");
    if known { Ok(text.to_owned()) } else { Err(format!("write one of {codes}")) }
}

fn limiter(text: &str) -> Result<String, String> {
    let known = Limiter::ALL.into_iter().any(|limiter| limiter.name() == text);
    let names = Limiter::ALL.map(Limiter::name).join(", ");
    if known { Ok(text.to_owned()) } else { Err(format!("write one of {names}")) }
}

/// A method of gRPC is whatever the policy called so when the row was written.
fn message_type(text: &str) -> Result<String, String> {
    let known = MessageType::named(text).is_some() || text.contains('/');
    let advice = "write a root element of IEEE 2030.5 such as `EndDeviceList`, a method such as `shop.v1.Stock/Count`, \
                  or one of exi, json, other";
    if known { Ok(text.to_owned()) } else { Err(advice.to_owned()) }
}

impl LogArgs {
    /// Where the log is, and how its rows are chained as far as the configuration says so.
    fn database(&self) -> Result<(PathBuf, Chained)> {
        if let Some(database) = &self.database {
            return Ok((database.clone(), Chained::Off));
        }
        let reading = config::read(&self.config).context("which log? give --config or --database")?;
        let settings = settings::load(&reading, &Flags::default()).map_err(|errors| anyhow!(errors.join("\n")))?;
        Ok((settings::log_path(&settings, &self.config), settings::log_chain(&settings, &self.config)))
    }

    fn filter(&self) -> Filter {
        Filter {
            since: self.since,
            until: self.until,
            kind: self.kind,
            verdict: self.verdict,
            reason: self.reason.clone(),
            limiter: self.limiter.clone(),
            identity: self.identity.clone(),
            listener: self.listener.clone(),
            route: self.route.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            status: self.status,
            client: self.client,
            fingerprint: self.fingerprint.as_deref().map(log::fingerprint),
            serial: self.serial.as_deref().map(log::serial),
            request_id: self.request_id.clone(),
            trace_id: self.trace_id.as_deref().map(log::trace_id),
            message_type: self.message_type.clone(),
            limit: self.limit,
        }
    }
}

/// Prints what is asked for.
pub(super) fn print(args: &LogArgs) -> Result<()> {
    let (database, chained) = args.database()?;
    if let Some(LogCommand::Verify(args)) = &args.command {
        log::bound_memory();
        return verify(&database, chained, args);
    }
    let output = match args.output {
        Format::Table => Output::Table,
        Format::Json => Output::Json,
        Format::Csv => Output::Csv,
    };
    log::bound_memory();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = super::runtime()?.block_on(async {
        match &args.sql {
            Some(sql) => query::sql(&database, sql, output, &mut out).await.map(Some),
            None if args.follow => log::follow(&database, &args.filter(), output, &mut out).await.map(|()| None),
            None => query::rows(&database, &args.filter(), output, &mut out).await.map(Some),
        }
    })?;
    out.flush()?;
    if printed.is_some_and(|printed| printed.cut) {
        let _nowhere_to_tell = writeln!(io::stderr(), "postern-sidecar: cut after {} rows", query::ROWS_MAX);
    }
    Ok(())
}
