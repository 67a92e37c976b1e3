//! `kubectl postern`: the same program by another name, for people.

pub mod analyze;
pub mod cluster;
pub mod enable;
pub mod inject;
pub mod manifests;
pub mod status;
pub mod version;
pub mod why;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// The name by which kubectl finds it in `PATH`.
const NAME: &str = "kubectl-postern";
/// How a command ends that could not be carried out, as does one that is not understood.
const FAILED: u8 = 2;

/// Looks after a cluster's gates
#[derive(Debug, Parser)]
#[command(name = "kubectl postern", disable_version_flag = true)]
struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what is wrong with the routes and clients of files, before they are applied
    Analyze(analyze::Arguments),
    /// Put the gate into manifests: Deployments, Jobs, pods and whatever else has a template of pods
    Inject(inject::Arguments),
    /// Show routes and identities, what is wrong with them first; ends with 1 if something is
    Status(status::Arguments),
    /// Tell what a gate decides about a request, rule by rule, and the smallest change that would turn it
    Why(Box<why::Arguments>),
    /// Let the operator work in namespaces
    Enable(enable::Arguments),
    /// Let it not work there any more
    Disable(enable::Undo),
    /// Show versions: of this program, of what it writes, of the cluster
    Version(version::Arguments),
}

/// How a command has ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is as it should be.
    Well,
    /// It has told of something that is not.
    Found,
}

impl Plugin {
    fn run(self, output: &mut dyn Write) -> Result<Ended> {
        match self.command {
            Command::Analyze(arguments) => analyze::run(&arguments, output),
            Command::Inject(arguments) => inject::run(&arguments, output),
            Command::Status(arguments) => status::run(&arguments, output),
            Command::Why(arguments) => why::run(&arguments, output),
            Command::Enable(arguments) => enable::run(&arguments, output),
            Command::Disable(arguments) => enable::undo(&arguments, output),
            Command::Version(arguments) => version::run(&arguments, output),
        }
    }
}

/// Its command line, for pages about it.
#[must_use]
pub fn command() -> clap::Command {
    Plugin::command()
}

/// Whether this process was started by the plugin's name.
#[must_use]
pub fn is_called() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name() == Some(OsStr::new(NAME))
}

/// Runs the command of the command line: ends with 0 if all is well, 1 if it has found something, 2 if it has failed.
#[must_use]
pub fn main() -> ExitCode {
    match Plugin::parse().run(&mut io::stdout().lock()) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Found) => ExitCode::FAILURE,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even that cannot be written there is nobody to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// A line as it may be shown: what others have written into objects moves no cursor and ends no line.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
