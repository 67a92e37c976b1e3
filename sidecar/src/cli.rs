//! The command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sidecar_config::settings::{LogLevel, Settings};
use sidecar_decide::{Reason, Verdict};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::app::App;
use crate::config::{self, Publisher, Reading};
use crate::log::{Output, query};
use crate::settings::{self, Flags};
use crate::status;

/// The guarded gate in front of one pod: mTLS, identity policy, and a row for every decision
#[derive(Debug, Parser)]
#[command(name = "postern-sidecar", disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        flags: Flags,
    },
    /// Read a configuration as `run` would, and tell everything that is wrong with it
    Validate {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Print rows of the request log
    Log(LogArgs),
    /// Print what a running sidecar has loaded
    Status {
        /// Its status port
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6190")]
        address: String,
    },
    /// Print the version and the contract versions it reads
    Version,
}

#[derive(Args, Debug)]
struct ConfigPath {
    /// Configuration file (TOML, YAML or JSON), or a folder of them
    #[arg(long, value_name = "PATH", default_value = "/etc/postern")]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct LogArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// The database file; by default the one the configuration names
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Only rows of this last while, such as 15m or 24h
    #[arg(long, value_name = "DURATION")]
    since: Option<sidecar_config::Duration>,
    /// Only rows of this verdict: allowed, refused, would_refuse
    #[arg(long, value_parser = verdict)]
    verdict: Option<Verdict>,
    /// Only rows of this reason, such as policy_not_allowed
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Only rows of this identity, namespace/name
    #[arg(long)]
    identity: Option<String>,
    /// At most this many rows, the newest
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// How rows are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Print the result of a SELECT on the view `requests` instead
    #[arg(long, value_name = "SELECT", conflicts_with_all = ["since", "verdict", "reason", "identity", "limit"])]
    sql: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
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

impl Cli {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run { config, flags } => run(&config.config, &flags),
            Command::Validate { config } => validate(&config.config),
            Command::Log(args) => print_log(&args),
            Command::Status { address } => print_status(&address),
            Command::Version => print_version(),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // A reader that has seen enough, such as `head`, is no failure.
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                let _nowhere_to_tell = writeln!(io::stderr(), "postern-sidecar: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn runtime() -> Result<LocalRuntime> {
    Ok(Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?)
}

fn run(config: &Path, flags: &Flags) -> Result<()> {
    let reading = read(config, flags)?;
    let settings = settings::load(&reading, flags).map_err(|errors| anyhow!("{}", errors.join("\n")))?;
    start_diagnostics(&settings);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.display(), "starting");
    runtime()?.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let app = App::start(config, &settings, reading).await?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Ok(app.run(stop).await?)
    })
}

/// The configuration, or nothing yet where it can be waited for: in a pod a Secret may come late, and what was accepted
/// last may be used until then.
fn read(config: &Path, flags: &Flags) -> Result<Reading> {
    let mut reading = match config::read(config) {
        Ok(reading) if reading.settings.is_some() || reading.is_complete() => return Ok(reading),
        Ok(reading) => reading,
        Err(error) => {
            let nothing = Reading::nothing(config, &error);
            if !config.is_dir() && settings::recall(config, flags).is_none() {
                return Err(error.into());
            }
            let _nowhere_to_tell = writeln!(io::stderr(), "postern-sidecar: {error}; waiting for it");
            nothing
        }
    };
    reading.settings = settings::recall(config, flags);
    Ok(reading)
}

/// JSON lines on stderr, for whatever gathers a pod's output.
fn start_diagnostics(settings: &Settings) {
    let level = match settings.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt().json().flatten_event(true).with_max_level(level).with_writer(io::stderr).init();
}

fn validate(config: &Path) -> Result<()> {
    let mut reading = config::read(config)?;
    let mut errors = settings::load(&reading, &Flags::default()).err().unwrap_or_default();
    let mut publisher = Publisher::new(config);
    let generation = publisher.offer(&mut reading);
    errors.extend(publisher.findings().iter().map(ToString::to_string));
    let mut out = io::stdout().lock();
    for advice in publisher.advice().iter().chain(&publisher.unknown_revocations(&reading)) {
        writeln!(out, "warning: {advice}")?;
    }
    if errors.is_empty() {
        let (listeners, routes) = (generation.snapshot.listeners.len(), generation.snapshot.routes.len());
        writeln!(out, "{}: valid ({listeners} listeners, {routes} routes)", config.display())?;
        return Ok(());
    }
    for error in &errors {
        writeln!(out, "{error}")?;
    }
    let what = if errors.len() == 1 { "error" } else { "errors" };
    bail!("{}: {} {what}", config.display(), errors.len())
}

fn print_log(args: &LogArgs) -> Result<()> {
    let database = match &args.database {
        Some(database) => database.clone(),
        None => {
            let reading = config::read(&args.config.config).context("which log? give --config or --database")?;
            let settings = settings::load(&reading, &Flags::default()).map_err(|errors| anyhow!(errors.join("\n")))?;
            settings::log_path(&settings, &args.config.config)
        }
    };
    let output = match args.output {
        Format::Table => Output::Table,
        Format::Json => Output::Json,
        Format::Csv => Output::Csv,
    };
    let filter = query::Filter {
        since: args.since.and_then(|since| SystemTime::now().checked_sub(since.as_std())),
        verdict: args.verdict,
        reason: args.reason.clone(),
        identity: args.identity.clone(),
        limit: args.limit,
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = runtime()?.block_on(async {
        match &args.sql {
            Some(sql) => query::sql(&database, sql, output, &mut out).await,
            None => query::rows(&database, &filter, output, &mut out).await,
        }
    })?;
    out.flush()?;
    if printed.cut {
        let _nowhere_to_tell = writeln!(io::stderr(), "postern-sidecar: cut after {} rows", query::ROWS_MAX);
    }
    Ok(())
}

fn print_status(address: &str) -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let asked = runtime()?.block_on(async { tokio::time::timeout(TIMEOUT, status::ask(address)).await });
    let status = asked
        .map_err(|_| anyhow!("no answer within {TIMEOUT:?}"))
        .and_then(|answer| answer)
        .with_context(|| format!("asking {address} (is the sidecar running, and is that its status port?)"))?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&status)?)?;
    Ok(())
}

fn print_version() -> Result<()> {
    let (min, max) = (sidecar_config::CONTRACT_MIN, sidecar_config::CONTRACT_MAX);
    writeln!(io::stdout(), "postern-sidecar {} (contract {min} to {max})", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
