//! Programs in Go that speak with the gate by libraries that others wrote: `tests/peers`, each with its modules' checksums.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clients::run;

/// A first build compiles the libraries, on a busy machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// The program of a folder of `tests/peers`, built if nobody in this process has yet.
///
/// # Errors
/// When Go is missing or cannot build it.
pub fn built(name: &str) -> Result<PathBuf> {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    // Held while it is built, so that it is built once.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(program) = built.get(name) {
        return Ok(program.clone());
    }
    let program = build(name)?;
    built.insert(name.to_owned(), program.clone());
    Ok(program)
}

fn build(name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    // Beside the tests, so that it goes with the build folder.
    let folder = env::current_exe()?.parent().context("a folder of tests")?.to_owned();
    let program = folder.join(format!("postern-peer-{name}"));
    let mut go = Command::new("go");
    // Debuggers are not needed, and the linker is faster without.
    go.args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program).arg(".").current_dir(source);
    let finished = run(&mut go, b"", BUILD_PATIENCE)?;
    ensure!(finished.code == Some(0), "go build of {name}: {}", finished.stderr);
    Ok(program)
}
