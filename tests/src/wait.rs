//! Waiting for conditions, never for time to pass.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a condition may take before a test gives up: far above what a loaded machine with two cores needs.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Between two looks at a condition that cannot announce itself, such as a row in a database.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `probe` finds something, and returns it.
///
/// # Errors
/// When `probe` fails, or has found nothing by the time `limit` has passed; the error names `what` was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {} ms in vain for {what}", limit.as_millis());
        }
        thread::sleep(PROBE_INTERVAL);
    }
}
