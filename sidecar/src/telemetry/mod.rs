//! Traces of requests: a span for the gate's part and one for the application's, sent to a collector by OTLP.
//!
//! A worker decides in a moment whether a request is traced, and hands what it knows of one to the thread `traces` when it
//! has ended. Everything else is done there: what spans look like (`span`), and how they are sent (`export`, with what the
//! operator has as well). Where nothing
//! is configured there is neither a thread nor a queue.

mod export;
mod span;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use http::Uri;
use sidecar_config::Ratio;
use sidecar_config::settings::ClientAddress;
use sidecar_decide::filter::TraceContext;

pub use export::{Spans, start};

use crate::log::Record;
use crate::log::clip;

/// The flags that a span passes on: that it is sampled, and that its trace's id is random (W3C Trace Context, level 2).
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// One worker's way to trace requests.
pub struct Tracer {
    spans: Spans,
    /// Of a million requests that do not say themselves.
    millionths: u32,
    client_address: ClientAddress,
    key: RandomState,
    count: Cell<u64>,
}

/// A request that is traced.
pub struct Trace {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// The span that the gate was asked in, if there is one.
    parent: Option<[u8; 8]>,
    /// The gate's span.
    server: [u8; 8],
    /// The application's, as the gate sees it.
    client: [u8; 8],
    flags: u8,
    /// When the request began.
    begun: Instant,
    /// Whether the client speaks TLS.
    pub is_tls: bool,
    /// Whether the application does.
    pub asks_by_tls: bool,
    /// What the paths have in common that its rule matches.
    pub path_pattern: Option<Arc<str>>,
    /// When the application was first asked, since it began, and what for.
    asked: Option<(u64, Box<str>)>,
}

/// A traced request that has ended.
pub struct Ended {
    trace: Box<Trace>,
    record: Record,
}

impl Tracer {
    /// A worker's own.
    pub fn new(spans: Spans, ratio: Ratio, client_address: ClientAddress) -> Self {
        let (millionths, key) = (ratio.millionths(), RandomState::new());
        Self { spans, millionths, client_address, key, count: Cell::new(0) }
    }

    /// Begins a request's trace if it has one: if whoever asks records it, or where he says nothing, by chance.
    pub fn begin(&self, parent: Option<&TraceContext>, begun: Instant) -> Option<Box<Trace>> {
        let is_sampled = match parent {
            Some(parent) => parent.is_sampled(),
            None => self.chance() % 1_000_000 < u64::from(self.millionths),
        };
        is_sampled.then(|| {
            let trace_id = parent.map_or_else(|| self.trace_id(), |parent| parent.trace_id);
            // What is random about somebody else's id, he knows.
            let flags = parent.map_or(RANDOM, |parent| parent.flags & RANDOM);
            Box::new(Trace {
                trace_id,
                parent: parent.map(|parent| parent.span_id),
                server: self.span_id(),
                client: self.span_id(),
                flags: SAMPLED | flags,
                begun,
                is_tls: false,
                asks_by_tls: false,
                path_pattern: None,
                asked: None,
            })
        })
    }

    /// Hands on what is known of a request that has ended. Never waits: what there is no place for is counted.
    pub fn end(&self, trace: Box<Trace>, record: &Record) {
        let client_addr = record.client_addr.and_then(|client| client.told(self.client_address));
        self.spans.send(Ended { trace, record: Record { client_addr, ..record.clone() } });
    }

    /// As good as chance to tell traces apart: a keyed hash of a counter.
    fn chance(&self) -> u64 {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        self.key.hash_one(count)
    }

    fn span_id(&self) -> [u8; 8] {
        // Zero is no id.
        self.chance().max(1).to_be_bytes()
    }

    fn trace_id(&self) -> [u8; 16] {
        (u128::from(self.chance()) << 64 | u128::from(self.chance().max(1))).to_be_bytes()
    }
}

impl Trace {
    /// What the application is told: its part of the trace is below the gate's span for it.
    pub fn context(&self) -> TraceContext {
        TraceContext { trace_id: self.trace_id, span_id: self.client, flags: self.flags }
    }

    /// Now the application is asked.
    pub fn ask(&mut self, target: &Uri) {
        let since = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // A copy, and no longer than in a row: the target itself would hold on to all that was read with it.
        self.asked = Some((since, clip(target.path())));
    }
}

impl Ended {
    /// How many spans it has.
    fn spans(&self) -> u64 {
        if self.trace.asked.is_some() { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests;
