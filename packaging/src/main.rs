//! Writes manual pages and completions for shells, from the command lines that the programs themselves read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use postern_operator::plugin;
use postern_sidecar::cli::Cli;

/// Shells, and the folder of each.
const SHELLS: [(Shell, &str); 3] = [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: postern-pages FOLDER")?;
    // By what people type in a shell; kubectl finds the plugin by the same name.
    for (command, name) in [(Cli::command(), "postern-sidecar"), (plugin::command(), "kubectl-postern")] {
        let command = command.version(env!("CARGO_PKG_VERSION"));
        write(&command, name, &folder.join(name)).with_context(|| format!("the pages of {name}"))?;
    }
    Ok(())
}

fn write(command: &Command, name: &'static str, folder: &Path) -> Result<()> {
    let manual = folder.join("man1");
    fs::create_dir_all(&manual)?;
    clap_mangen::generate_to(command.clone().name(name), &manual)?;
    for (shell, place) in SHELLS {
        let place = folder.join(place);
        fs::create_dir_all(&place)?;
        generate_to(shell, &mut command.clone(), name, &place)?;
    }
    Ok(())
}
