//! The operator's binary: parses the command line, runs, and ends with an exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use postern_operator::metrics::Metrics;
use postern_operator::settings::{Flags, Settings};
use postern_operator::{app, check, heap, inject, log_keep, log_schema, plugin, telemetry};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The control plane of Postern: certificates, documents for sidecars, and a status that tells the truth
#[derive(Debug, Parser)]
#[command(name = "postern-operator", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    Run(Box<Flags>),
    /// Put the gate into pods: the webhook, which has no rights, until SIGTERM or SIGINT
    Inject(Box<inject::settings::Flags>),
    /// Tell whether what is installed works together: definitions, operator and webhook
    Check(check::Flags),
    /// Print the schema of the request log in Postgres, or apply it
    LogSchema(log_schema::Flags),
    /// Keep the request log in Postgres in order: call it by the clock
    LogKeep(log_keep::Flags),
}

fn main() -> ExitCode {
    if plugin::is_called() {
        return plugin::main();
    }
    let ended = match Cli::parse().command {
        Command::Run(flags) => Settings::read(*flags).map_err(anyhow::Error::from).and_then(run),
        Command::Inject(flags) => {
            inject::settings::Settings::read(*flags).map_err(anyhow::Error::from).and_then(run_injector)
        }
        Command::LogSchema(flags) => log_schema::run(&flags, &mut io::stdout()),
        Command::LogKeep(flags) => log_keep::run(&flags, &mut io::stdout()),
        Command::Check(flags) => plugin::cluster::run(check::run(&flags, &mut io::stdout())),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    // Where even that cannot be written there is nobody to tell.
    let _ = writeln!(io::stderr(), "{error:#}");
    ExitCode::FAILURE
}

fn run(settings: Settings) -> anyhow::Result<()> {
    heap::prepare();
    let metrics = Metrics::new()?;
    let metrics = Arc::new(if settings.tracing.is_some() { metrics.with_traces() } else { metrics });
    let traces = telemetry::start_with(&settings, &metrics)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let stop = stopped(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        app::run(settings, metrics, stop).await
    });
    // Whoever leads no more ends at once, whatever is still being waited for.
    runtime.shutdown_background();
    // Nor for a collector then: nobody waits for it who has to be gone.
    if let Some(traces) = traces.filter(|_| ended.is_ok()) {
        traces.stop();
    }
    ended
}

fn run_injector(settings: inject::settings::Settings) -> anyhow::Result<()> {
    telemetry::start(settings.log);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let stop = stopped(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        inject::server::run(settings, stop).await
    })
}

async fn stopped(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
