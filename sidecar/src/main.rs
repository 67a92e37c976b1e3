//! The sidecar's binary: parses the command line, runs, and ends with an exit code.

use std::process::ExitCode;

use clap::Parser;
use postern_sidecar::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
