//! A collector of traces: a program in Go that decodes them with OpenTelemetry's own code.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::peers::built;
use crate::wait::{PATIENCE, eventually};

/// A running collector.
pub struct Collector {
    child: Child,
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// Starts one with these flags of `tests/peers/collector/main.go`.
    ///
    /// # Errors
    /// When it cannot be built, or does not come up.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let mut child = Command::new(built("collector")?)
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
