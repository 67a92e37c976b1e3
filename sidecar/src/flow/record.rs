//! A row in the making: opened when a request or a connection arrives, sent once, whatever becomes of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue};
use sidecar_decide::{Limiter, Reason, Verdict};

use super::body::Upload;
use super::gate::{Asked, Gate};
use super::grpc;
use super::relay::Passed;
use crate::ending::Ending;
use crate::limit::{Limits, Place};
use crate::log::{Bodies, Copied, Kind, Record, Scope};
use crate::metrics::{Amount, Event, Outcome};
use crate::protocol::Inbound;
use crate::telemetry::Trace;

/// The row of a request, or of a connection that is passed on as it is. Dropped before it is finished, it says that the
/// client went away, or why its connection was cut.
pub(super) struct Draft {
    gate: Rc<Gate>,
    /// Its connection's.
    ending: Rc<Ending>,
    started: Instant,
    scope: Arc<Scope>,
    /// Taken when it is sent.
    record: Option<Box<Record>>,
    /// What was asked for it last.
    asked: Option<Asked>,
    /// Its place among what is being passed on, once it has one.
    stream: Option<Place>,
    /// Counted by the request's body, which hyper owns; `None` without one.
    upload: Option<Rc<Upload>>,
    /// What the row keeps of the response's body, where its route asks for that.
    copied: Option<Copied>,
    /// Bytes of what is passed on as it is.
    passed: Passed,
    /// The request's trace, if it is one of those that have one.
    trace: Option<Box<Trace>>,
    /// Whether it is of gRPC, whose clients look into trailers for how it went.
    is_grpc: bool,
}

impl Draft {
    pub(super) fn new(
        gate: Rc<Gate>,
        ending: Rc<Ending>,
        scope: Arc<Scope>,
        started: Instant,
        record: Box<Record>,
    ) -> Self {
        Self {
            gate,
            ending,
            started,
            scope,
            record: Some(record),
            asked: None,
            stream: None,
            upload: None,
            copied: None,
            passed: Passed::default(),
            trace: None,
            is_grpc: false,
        }
    }

    /// Takes a place among what is being passed on, until the row is sent.
    ///
    /// # Errors
    /// Why there is none; the row then says that it was refused.
    pub(super) fn enter(&mut self, limits: &Limits) -> Result<(), Reason> {
        match self.gate.stream(limits) {
            Ok(place) => self.stream = Some(place),
            Err(reason) => return Err(self.refused(reason)),
        }
        Ok(())
    }

    /// Gives that place up, for another kind of place.
    pub(super) fn leave(&mut self) {
        self.stream = None;
    }

    /// It was allowed by its rule, and is refused for want of a place.
    pub(super) fn refused(&mut self, reason: Reason) -> Reason {
        let scope = Arc::clone(&self.scope);
        self.decided(&scope, Verdict::Refused, Some(reason));
        reason
    }

    /// Where the request's body is counted, if it has one; and what the row keeps of it, and of the response's.
    pub(super) fn uploads(&mut self, upload: Option<Rc<Upload>>, [copied, answered]: [Option<Copied>; 2]) {
        if let Some(upload) = &upload {
            upload.copies(copied);
        }
        (self.upload, self.copied) = (upload, answered);
    }

    /// A piece of the response's body, as it passes.
    pub(super) fn copy(&mut self, data: &[u8]) {
        if let Some(copied) = &mut self.copied {
            copied.feed(data);
        }
    }

    /// Where the bytes are counted of what is passed on as it is.
    pub(super) fn passed(&self) -> &Passed {
        &self.passed
    }

    /// Whether the upstream was sent the whole request.
    pub(super) fn upload_ended(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.ended())
    }

    /// Whether the request itself says what it is about.
    pub(super) fn says_message(&self) -> bool {
        self.is_grpc || self.upload.as_ref().is_some_and(|upload| upload.is_message())
    }

    /// Why the request's body broke off, if it did.
    pub(super) fn upload_failed(&self) -> Option<Reason> {
        self.upload.as_ref().and_then(|upload| upload.failed())
    }

    /// The request is traced.
    pub(super) fn traces(&mut self, trace: Box<Trace>) {
        self.edit(|record| record.trace_id = Some(trace.trace_id));
        self.trace = Some(trace);
    }

    /// The request's trace, to fill in, if it has one.
    pub(super) fn trace(&mut self, edit: impl FnOnce(&mut Trace)) {
        if let Some(trace) = &mut self.trace {
            edit(trace);
        }
    }

    /// What the application is told of the trace; nothing of one that is not the gate's, which passes as it came.
    pub(super) fn traceparent(&self) -> Option<HeaderValue> {
        self.trace.as_ref()?.context().header()
    }

    /// What is left of the request's body, if anything is.
    pub(super) fn unwanted(&self) -> Option<Inbound> {
        self.upload.as_ref().and_then(|upload| upload.unwanted())
    }

    /// It is a request of gRPC.
    pub(super) fn speaks_grpc(&mut self) {
        self.is_grpc = true;
    }

    /// Whether it is one.
    pub(super) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Notes how a gRPC request ended, where these fields say it.
    pub(super) fn note_grpc(&mut self, fields: &HeaderMap) {
        if self.is_grpc
            && let Some(status) = grpc::status(fields)
        {
            self.edit(|record| record.grpc_status = Some(status));
        }
    }

    /// The request's id, as it is told.
    pub(super) fn request_id(&self) -> Option<HeaderValue> {
        self.record.as_ref()?.request_id.as_ref()?.header()
    }

    /// The row, to fill in; nothing once it is sent.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            edit(record);
        }
    }

    /// It had to wait for so long until its turn came, if it had to.
    pub(super) fn waited(&mut self, time: Option<Duration>) {
        if let Some(time) = time {
            self.edit(|record| record.queue_us = Some(record.queue_us.unwrap_or(0).saturating_add(microseconds(time))));
        }
    }

    pub(super) fn decided(&mut self, scope: &Arc<Scope>, verdict: Verdict, reason: Option<Reason>) {
        self.scope = Arc::clone(scope);
        self.edit(|record| {
            record.scope = Some(Arc::clone(scope));
            record.verdict = verdict;
            record.reason = reason;
        });
    }

    /// It is about to be tried there.
    pub(super) fn asks(&mut self, asked: Asked) {
        self.gate.count_upstream(&asked, Outcome::allowed(Event::Attempt, None), Duration::ZERO);
        self.asked = Some(asked);
    }

    /// A connection was made to where it is tried, in so long.
    pub(super) fn connected(&mut self, time: Duration) {
        self.count_upstream(Outcome::allowed(Event::Connect, None), time);
        self.edit(|record| record.connect_us = Some(microseconds(time)));
    }

    /// The try failed, or the response broke off. Where a limit did it that the reason alone does not tell, `limiter` does.
    pub(super) fn upstream_failed(&mut self, reason: Reason, limiter: Option<Limiter>) {
        let outcome = Outcome { limiter, ..Outcome::allowed(Event::Failure, Some(reason)) };
        self.count_upstream(outcome, Duration::ZERO);
        self.edit(|record| record.limiter = limiter);
    }

    fn count_upstream(&self, outcome: Outcome, time: Duration) {
        if let Some(asked) = &self.asked {
            self.gate.count_upstream(asked, outcome, time);
        }
    }

    /// Sends the row; a reason given here is why an allowed request failed.
    pub(super) fn finish(self, failure: Option<Reason>) {
        self.finish_at(Instant::now(), failure);
    }

    /// The same where the time is known.
    pub(super) fn finish_at(mut self, now: Instant, failure: Option<Reason>) {
        self.send(now, failure);
    }

    fn send(&mut self, now: Instant, failure: Option<Reason>) {
        let Some(mut record) = self.record.take() else { return };
        let elapsed = now.saturating_duration_since(self.started);
        // What a rule under trial would have refused stays the reason, or the trial would lose its evidence.
        if record.verdict != Verdict::WouldRefuse {
            record.reason = failure.or(record.reason);
        }
        // A try's own, if that try is what the row tells of; another one may have had an answer.
        let of_try = record.limiter.filter(|_| record.reason == Some(Reason::UpstreamPoolFull));
        record.limiter = of_try.or(record.reason.and_then(Reason::limiter));
        if let Some(upload) = &self.upload {
            record.request_bytes = upload.bytes();
            record.message_type = upload.message().or(record.message_type.take());
        }
        record.bodies = Bodies::of(self.upload.as_ref().and_then(|upload| upload.copied()), self.copied.take());
        if record.kind != Kind::Request {
            (record.request_bytes, record.response_bytes) = (self.passed.up.get(), self.passed.down.get());
        }
        record.duration_us = microseconds(elapsed);
        let event = match record.kind {
            Kind::Request => Event::Request,
            Kind::Tunnel => Event::Tunnel,
            _ => Event::Forwarded,
        };
        let outcome = Outcome { event, verdict: record.verdict, reason: record.reason, limiter: record.limiter };
        let (request_bytes, response_bytes) = (record.request_bytes, record.response_bytes);
        self.gate.count(&self.scope, outcome, &Amount { duration: elapsed, request_bytes, response_bytes });
        if let Some(message) = record.message_type.as_ref().filter(|message| message.is_telling()) {
            self.gate.count_message(&self.scope, message);
        }
        if let (Some(trace), Some(tracer)) = (self.trace.take(), &self.gate.tracer) {
            tracer.end(trace, &record);
        }
        self.gate.log.send(record);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.record.is_none() {
            return;
        }
        let failure = self.ending.cut_reason().unwrap_or(Reason::ClientClosed);
        self.edit(|record| {
            if record.kind == Kind::Request {
                record.status = record.status.or(failure.facts().http);
            }
        });
        self.send(Instant::now(), Some(failure));
    }
}

/// A length of time in whole microseconds.
pub(super) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An empty row of a kind, for a client.
pub(super) fn blank(kind: Kind, client: std::net::SocketAddr) -> Record {
    Record { client_addr: Some(client.into()), ..Record::new(kind, SystemTime::now()) }
}
