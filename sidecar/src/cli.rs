//! The command line.

mod admin;
mod log;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use rustix::process::Signal;
use sidecar_config::settings::{LogLevel, Settings};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::app::App;
use crate::config::{self, Publisher, Reading};
use crate::log::query::QueryError;
use crate::settings::{self, Flags};

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
    Log(Box<log::LogArgs>),
    /// Print what a running sidecar has loaded
    Status(admin::StatusArgs),
    /// Print where a running sidecar sends requests, and how that fares
    Upstreams(admin::AdminArgs),
    /// Print the clients a running sidecar knows, and their states
    Identities(admin::IdentitiesArgs),
    /// Print the configuration a running sidecar uses, without keys
    Config(admin::AdminArgs),
    /// Have a running sidecar accept nothing more, and wait until what is under way has ended. There is no way back
    Drain(admin::DrainArgs),
    /// Print the version and the contract versions it reads
    Version,
}

#[derive(Args, Debug)]
struct ConfigPath {
    /// Configuration file (TOML, YAML or JSON), or a folder of them
    #[arg(long, value_name = "PATH", default_value = "/etc/postern")]
    config: PathBuf,
}

impl Cli {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run { config, flags } => run(&config.config, &flags),
            Command::Validate { config } => validate(&config.config),
            Command::Log(args) => log::print(&args),
            Command::Status(args) => admin::status(&args),
            Command::Upstreams(args) => admin::upstreams(&args),
            Command::Identities(args) => admin::identities(&args),
            Command::Config(args) => admin::config(&args),
            Command::Drain(args) => admin::drain(&args),
            Command::Version => print_version(),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // A reader that has seen enough, such as `head`, is no failure.
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                let _nowhere_to_tell = writeln!(io::stderr(), "postern-sidecar: {error:#}");
                if error.is::<log::Incomplete>() {
                    return ExitCode::from(log::INCOMPLETE);
                }
                // As a shell tells that a signal ended a program.
                error.downcast_ref().map_or(ExitCode::FAILURE, |log::Stopped(signal)| ExitCode::from(128 + signal))
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| match cause.downcast_ref() {
        Some(QueryError::Output(error)) => Some(error),
        _ => cause.downcast_ref::<io::Error>(),
    });
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
        // Caught, so that a limit on the size of files fails the log's writes, and does not end the gate.
        let _file_too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
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

fn print_version() -> Result<()> {
    let (min, max) = (sidecar_config::CONTRACT_MIN, sidecar_config::CONTRACT_MAX);
    writeln!(io::stdout(), "postern-sidecar {} (contract {min} to {max})", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
