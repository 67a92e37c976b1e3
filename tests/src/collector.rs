//! A collector of traces: a program in Go that decodes them with OpenTelemetry's own code.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::built_sidecar;
use crate::wait::{PATIENCE, eventually};

/// A running collector.
pub struct Collector {
    child: Child,
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// Starts one with these flags of `tests/collector/main.go`.
    ///
    /// # Errors
    /// When it cannot be built, or does not come up.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let mut child = Command::new(built()?)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the collector")?;
        let mut lines = BufReader::new(child.stdout.take().context("the collector's output")?).lines();
        let address = lines.next().context("the collector's address")??.parse()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&requests);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let request = serde_json::from_str(&line).unwrap_or(Value::String(line));
                told.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            }
        });
        Ok(Self { child, address, requests })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was sent and has answered.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans that it has taken, as soon as there are so many.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn spans(&self, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} spans"), PATIENCE, || {
            let requests = self.requests();
            let taken = requests.iter().filter(|request| request["status"] == 200);
            let spans: Vec<Value> =
                taken.flat_map(|request| request["spans"].as_array().cloned().unwrap_or_default()).collect();
            Ok((spans.len() >= count).then_some(spans))
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The program, built once for all tests of a process. Its modules come with their checksums (`go.sum`).
fn built() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let program = built_sidecar()?.with_file_name("postern-test-collector");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("collector");
    let mut command = Command::new("go");
    command.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".").current_dir(source);
    let built = command.output().context("run go; is it installed?")?;
    ensure!(built.status.success(), "the collector is not built: {}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}
