//! Who is traced, what it costs not to be, and what is lost when nobody takes spans.

use std::alloc::{GlobalAlloc, Layout, System};
use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use postern_telemetry::{Queue, SpanDrop, SpanStats, queue};
use sidecar_decide::Reason;

use super::export::Traces;
use super::*;
use crate::log::Kind;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _thread_is_ending = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(of: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    of();
    ALLOCATIONS.get() - before
}

fn tracer(millionths: u32) -> (Tracer, Arc<SpanStats>, Queue<Traces>) {
    let stats = Arc::new(SpanStats::default());
    let (spans, queue) = queue(Arc::clone(&stats));
    (Tracer::new(spans, Ratio::from_millionths(millionths), ClientAddress::Full), stats, queue)
}

fn parent(flags: u8) -> TraceContext {
    TraceContext { trace_id: [7; 16], span_id: [8; 8], flags }
}

#[test]
fn whoever_asks_decides_and_else_chance() {
    let now = Instant::now();
    for (millionths, least, most) in [(0, 0, 0), (250_000, 24_000, 26_000), (1_000_000, 100_000, 100_000)] {
        let (tracer, ..) = tracer(millionths);
        let sampled = (0..100_000).filter(|_| tracer.begin(None, now).is_some()).count();
        assert!((least..=most).contains(&sampled), "{sampled} of 100000 at {millionths}");
        for (flags, expected) in [(0, false), (1, true), (2, false), (3, true), (0xff, true)] {
            assert_eq!(tracer.begin(Some(&parent(flags)), now).is_some(), expected, "{millionths} {flags}");
        }
    }
}

#[test]
fn a_trace_goes_on_below_the_gates_spans() {
    let (tracer, ..) = tracer(1_000_000);
    let child = tracer.begin(Some(&parent(0xff)), Instant::now()).unwrap();
    let context = child.context();
    assert_eq!((context.trace_id, child.parent, context.flags), ([7; 16], Some([8; 8]), 3));
    let roots: Vec<_> = (0..1000).map(|_| tracer.begin(None, Instant::now()).unwrap()).collect();
    let ids: std::collections::HashSet<_> =
        roots.iter().flat_map(|trace| [trace.server, trace.client]).chain([child.server, child.client]).collect();
    assert_eq!(ids.len(), 2002, "every span has an id of its own");
    let traces: std::collections::HashSet<_> = roots.iter().map(|trace| trace.trace_id).collect();
    assert_eq!(traces.len(), 1000);
    assert!(roots.iter().all(|trace| trace.parent.is_none() && trace.context().flags == 3));
}

#[test]
fn what_is_not_traced_allocates_nothing() {
    let now = Instant::now();
    let (never, ..) = tracer(0);
    let (always, ..) = tracer(1_000_000);
    let unsampled = parent(0);
    assert_eq!(allocations(|| drop(never.begin(None, now))), 0);
    assert_eq!(allocations(|| drop(always.begin(Some(&unsampled), now))), 0);
    assert_eq!(allocations(|| drop(always.begin(None, now))), 1, "what is traced does");
}

#[test]
fn a_full_queue_counts_spans_and_never_blocks() {
    let (tracer, stats, queue) = tracer(1_000_000);
    let record = Record::new(Kind::Request, SystemTime::now());
    let limit = u64::try_from(postern_telemetry::limits::QUEUE).unwrap();
    for _ in 0..limit + 3 {
        let mut trace = tracer.begin(None, Instant::now()).unwrap();
        trace.ask(&Uri::from_static("/"));
        tracer.end(trace, &record);
    }
    assert_eq!((stats.dropped(SpanDrop::QueueFull), stats.exported()), (6, 0), "two spans a request");
    drop(queue);
    tracer.end(tracer.begin(None, Instant::now()).unwrap(), &record);
    assert_eq!(stats.dropped(SpanDrop::QueueFull), 7);
}

/// Whether the gate's span and the application's say that something failed, for a row with this status of the
/// application's, or of the gate's where there is none, and this reason.
#[test]
fn a_response_that_breaks_off_is_an_error_whatever_its_status() {
    let table = [
        (200, true, None, [false, false]),
        (200, true, Some(Reason::UpstreamReset), [true, true]),
        (200, true, Some(Reason::UpstreamTimeout), [true, true]),
        // The client's doing.
        (200, true, Some(Reason::ClientClosed), [false, false]),
        (499, false, Some(Reason::ClientClosed), [false, true]),
        // A rule under trial would have refused it.
        (200, true, Some(Reason::PolicyNotAllowed), [false, false]),
        (404, true, None, [false, true]),
        (500, true, None, [true, true]),
        (502, false, Some(Reason::UpstreamConnect), [true, true]),
        (413, false, Some(Reason::LimitBodySize), [false, true]),
    ];
    let (tracer, ..) = tracer(1_000_000);
    for (status, answered, reason, expected) in table {
        let mut trace = tracer.begin(None, Instant::now()).unwrap();
        trace.ask(&Uri::from_static("/"));
        let mut record = Record::new(Kind::Request, SystemTime::now());
        (record.status, record.reason) = (Some(status), reason);
        record.upstream_us = answered.then_some(1);
        let spans = span::of(&Ended { trace, record });
        assert_eq!(spans.map(|span| span.unwrap().status.is_some()), expected, "{status} {answered} {reason:?}");
    }
}

#[test]
fn a_url_says_how_the_application_is_asked() {
    let (tracer, ..) = tracer(1_000_000);
    for (asks_by_tls, expected) in [(false, "http://127.0.0.1:80/a"), (true, "https://127.0.0.1:80/a")] {
        let mut trace = tracer.begin(None, Instant::now()).unwrap();
        trace.ask(&Uri::from_static("/a?secret"));
        trace.asks_by_tls = asks_by_tls;
        let mut record = Record::new(Kind::Request, SystemTime::now());
        record.upstream = Some("127.0.0.1:80".parse().unwrap());
        let [_, client] = span::of(&Ended { trace, record });
        let attributes = client.unwrap().attributes;
        let url = attributes.into_iter().find(|attribute| attribute.key == "url.full").unwrap().value.unwrap();
        assert_eq!(url.value, Some(Value::StringValue(expected.to_owned())));
    }
}
