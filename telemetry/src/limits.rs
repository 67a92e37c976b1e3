//! Bounds of traces, with their reasons.

use std::time::Duration;

/// What has ended and waits to be sent: of the gate a second of 2,000 traced requests a second, some megabytes at most; of
/// the operator more spans than a cluster's worth of turns has in a second.
pub const QUEUE: usize = 2048;
/// What is sent at once, which is a quarter of the queue.
pub const BATCH: usize = 512;
/// How long the first of a batch waits for others.
pub const EVERY: Duration = Duration::from_secs(1);
/// How often the queue is looked at meanwhile, so that it does not fill up.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time for a collector to take a batch, connecting included; the default of OTLP's exporters.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is tried: what is newer is worth more.
pub const TRIES: u32 = 4;
/// Pause after the first failure, twice as long after each that follows.
pub const BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause, whatever a collector asks for.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Time for the last spans at the end.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(1);
