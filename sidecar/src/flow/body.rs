//! Bodies as they pass: counted, bounded, and known to have ended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use sidecar_decide::Reason;
use sidecar_decide::filter::GateNames;
use tokio::time::{Instant, Sleep, sleep_until};

use super::grpc;
use super::http::POSTERN_REASON;
use super::record::Draft;
use super::rest::Rest;
use super::watch::Watch;
use crate::limits::REPLAY_BYTES;
use crate::log::Copied;
use crate::message_type::{Message, Reading};
use crate::pool::Lease;
use crate::protocol::{Body, BodyError, Inbound};

/// A request's body, and how far it has come.
pub(super) struct Upload {
    /// Until nobody upstream wants it any more.
    inner: RefCell<Option<Inbound>>,
    max_bytes: u64,
    /// What its trailers must not say either.
    names: Arc<GateNames>,
    begun: Cell<bool>,
    bytes: Cell<u64>,
    last_progress: Cell<Instant>,
    ended: Cell<bool>,
    failed: Cell<Option<Reason>>,
    /// What was taken, while all of it is kept.
    kept: RefCell<Option<Kept>>,
    /// How often it was sent.
    sendings: Cell<u32>,
    /// What it is about.
    reading: RefCell<Reading>,
    /// What the row keeps of it, where its route asks for that.
    copied: RefCell<Option<Copied>>,
    /// Whoever sends it, while nothing comes.
    waiting: RefCell<Option<Waker>>,
}

/// The beginning of a body, to be sent again.
#[derive(Default)]
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Upload {
    /// A body that ends with an error at its bound.
    pub(super) fn new(inner: Inbound, max_bytes: u64, names: Arc<GateNames>, reading: Reading) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(Some(inner)),
            max_bytes,
            names,
            begun: Cell::new(false),
            bytes: Cell::new(0),
            last_progress: Cell::new(Instant::now()),
            ended: Cell::new(false),
            failed: Cell::new(None),
            kept: RefCell::new(None),
            sendings: Cell::new(0),
            reading: RefCell::new(reading),
            copied: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// The body on its way to an upstream.
    pub(super) fn body(self: &Rc<Self>) -> Body {
        self.sendings.set(self.sendings.get() + 1);
        let repeats: VecDeque<_> = self.kept.borrow().iter().flat_map(|kept| &kept.pieces).cloned().collect();
        let sending = self.sendings.get();
        // Not of this sending yet.
        self.ended.set(self.ended() && repeats.is_empty());
        Body::Stream(Box::pin(UploadBody { upload: Rc::clone(self), sending, repeats }))
    }

    /// Keeps what is taken from now on, if it is all and not too much.
    pub(super) fn keep(&self) {
        if !self.begun() {
            *self.kept.borrow_mut() = Some(Kept::default());
        }
    }

    /// Keeps it no longer: nobody will send it again.
    pub(super) fn settle(&self) {
        self.kept.borrow_mut().take();
    }

    /// Whether all that was taken can be sent again.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.borrow().is_some()
    }

    /// Keeps a frame.
    fn keep_frame(&self, frame: &Frame<Bytes>) {
        let mut kept = self.kept.borrow_mut();
        if let (Some(keeping), data) = (&mut *kept, frame.data_ref()) {
            keeping.bytes = keeping.bytes.saturating_add(data.map_or(usize::MAX, Bytes::len));
            match data {
                Some(data) if keeping.bytes <= REPLAY_BYTES => keeping.pieces.push(data.clone()),
                _ => *kept = None,
            }
        }
    }

    /// Bytes that have passed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether it says what the request is about.
    pub(super) fn is_message(&self) -> bool {
        self.reading.borrow().is_of_something()
    }

    /// What it is about, as far as it has come.
    pub(super) fn message(&self) -> Option<Message> {
        self.reading.borrow().found(self.ended()).map(Message::Known)
    }

    /// The row keeps some of it.
    pub(super) fn copies(&self, copied: Option<Copied>) {
        self.copied.replace(copied);
    }

    /// What the row keeps of it; nothing the next time.
    pub(super) fn copied(&self) -> Option<Copied> {
        self.copied.take()
    }

    /// When the last of them did.
    pub(super) fn last_progress(&self) -> Instant {
        self.last_progress.get()
    }

    /// Whether any of it was taken.
    pub(super) fn begun(&self) -> bool {
        self.begun.get()
    }

    /// Whether all of it was handed on.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether its client owes more of it: it was asked for, and has not come. What nobody upstream takes is not asked for.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.borrow().is_some()
    }

    /// Why the body broke off on the client's side.
    pub(super) fn failed(&self) -> Option<Reason> {
        self.failed.get()
    }

    /// What is left of it when the request has its answer, if it has not ended by then.
    pub(super) fn unwanted(&self) -> Option<Inbound> {
        let unwanted = if self.ended() { None } else { self.inner.take() };
        // Whoever waits for more of it is to find out: left alone, HTTP/2 would keep its stream to the upstream open.
        if let Some(sender) = self.waiting.take() {
            sender.wake();
        }
        unwanted
    }

    /// Notes what was taken, and lets it pass or not.
    fn take(
        &self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
        is_end: bool,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.begun.set(true);
        self.last_progress.set(Instant::now());
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.names.strip_trailers(trailers);
                }
                let passed = self.bytes.get() + frame.data_ref().map_or(0, |data| data.len() as u64);
                if passed > self.max_bytes {
                    self.failed.set(Some(Reason::LimitBodySize));
                    return Some(Err(BodyError::TooLarge));
                }
                if let Some(data) = frame.data_ref() {
                    self.reading.borrow_mut().feed(data);
                    if let Some(copied) = &mut *self.copied.borrow_mut() {
                        copied.feed(data);
                    }
                }
                self.bytes.set(passed);
                // Behind trailers there is nothing, whether it says so by itself or not.
                self.ended.set(is_end || frame.is_trailers());
                self.keep_frame(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.failed.set(Some(reason_of(&error)));
                Some(Err(error))
            }
            None => {
                self.ended.set(true);
                None
            }
        }
    }
}

/// Why a request's body broke off.
pub(super) fn reason_of(error: &BodyError) -> Reason {
    if matches!(error, BodyError::Malformed(_)) { Reason::ClientMalformed } else { Reason::ClientClosed }
}

struct UploadBody {
    upload: Rc<Upload>,
    /// Which of the sendings this is: the last one alone gets anything.
    sending: u32,
    /// Pieces of earlier sendings that are to be sent again: its own, because an answer ends their being kept.
    repeats: VecDeque<Bytes>,
}

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.sending != self.upload.sendings.get() {
            return Poll::Ready(Some(Err(BodyError::Unwanted)));
        }
        if let Some(piece) = self.repeats.pop_front() {
            self.upload.ended.set(self.is_end_stream());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let mut inner = self.upload.inner.borrow_mut();
        // An end here would be taken for the body's own.
        let Some(inner) = inner.as_mut() else { return Poll::Ready(Some(Err(BodyError::Unwanted))) };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
            let mut waiting = self.upload.waiting.borrow_mut();
            match &mut *waiting {
                Some(waiting) => waiting.clone_from(cx.waker()),
                None => *waiting = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        self.upload.waiting.take();
        Poll::Ready(self.upload.take(frame, inner.is_end_stream()))
    }

    fn is_end_stream(&self) -> bool {
        self.repeats.is_empty() && self.upload.inner.borrow().as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.upload.begun() {
            return SizeHint::default();
        }
        self.upload.inner.borrow().as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

/// A response's body on its way to the client: at its end the row is sent and the connection goes back to the pool.
/// Until `deadline` it has to have come.
pub(super) fn download(
    begun: Begun,
    (lease, watch): (Lease, Option<Watch>),
    draft: Draft,
    reading: Reading,
    deadline: Option<Instant>,
) -> Body {
    let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
    let Begun { inner, first } = begun;
    let open = Some((lease, draft));
    let mut body = DownloadBody { inner, first, deadline, open, watch, bytes: 0, reading, rest: None, broken: None };
    body.finish_if_ended();
    Body::Stream(Box::pin(body))
}

/// A response's body, and what of it was there with its head.
pub(super) struct Begun {
    inner: Inbound,
    first: Option<Frame<Bytes>>,
}

impl Begun {
    /// Looks whether the body has failed by now: as long as its head was not sent, something else can be answered. hyper
    /// writes a head together with the body's first bytes, or nothing of both, and a client that gets nothing asks again.
    ///
    /// # Errors
    /// When it has.
    pub(super) async fn of(mut inner: Inbound) -> Result<Self, BodyError> {
        let now = poll_fn(|cx| Poll::Ready(Pin::new(&mut inner).poll_frame(cx))).await;
        match now {
            Poll::Ready(Some(frame)) => Ok(Self { inner, first: Some(frame?) }),
            Poll::Ready(None) | Poll::Pending => Ok(Self { inner, first: None }),
        }
    }
}

struct DownloadBody {
    inner: Inbound,
    first: Option<Frame<Bytes>>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Until the body has ended.
    open: Option<(Lease, Draft)>,
    /// Who wants to know how it ends.
    watch: Option<Watch>,
    bytes: u64,
    /// What it is about, where the request does not say it.
    reading: Reading,
    /// What the upstream did not want to hear any more, which it need not: it has answered.
    rest: Option<Rest>,
    /// How it broke off, as soon as what came before it is written.
    broken: Option<BodyError>,
}

impl DownloadBody {
    /// Ends the row as soon as the last byte has come: hyper need not ask again once the length is reached.
    fn finish_if_ended(&mut self) {
        if self.first.is_none() && self.inner.is_end_stream() {
            self.finish();
        }
    }

    fn is_cut(&self) -> bool {
        self.open.as_ref().is_some_and(|(lease, _)| lease.connection.wire().failure().is_some())
    }

    /// Notes what has passed, and whether that is all.
    fn note(&mut self, has_ended: bool) {
        let Some((_, draft)) = &mut self.open else { return };
        let found = self.reading.found(has_ended);
        draft.edit(|record| {
            record.response_bytes = self.bytes;
            record.message_type = found.map(Message::Known).or(record.message_type.take());
        });
    }

    fn finish(&mut self) {
        self.note(true);
        if let Some((lease, draft)) = self.open.take() {
            let now = Instant::now();
            // An upstream that answered without taking the whole request cannot be asked again on this connection.
            if draft.upload_ended() {
                lease.give_back(now);
            } else {
                drop(lease);
                // gRPC's clients know by trailers that all is said, and may keep their side open until then.
                self.rest = draft.unwanted().filter(|_| !draft.is_grpc()).map(Rest::new);
            }
            if let Some(watch) = &self.watch {
                watch.completed();
            }
            draft.finish_at(now.into_std(), None);
        }
    }

    /// Sends the row of a response that breaks off; what gRPC's client is told of it in trailers.
    fn fail(&mut self, reason: Reason) -> Option<HeaderMap> {
        self.note(false);
        let (lease, mut draft) = self.open.take()?;
        let reason = draft.upload_failed().or(lease.connection.wire().failure()).unwrap_or(reason);
        draft.upstream_failed(reason, None);
        if let Some(watch) = &self.watch {
            watch.interrupted(reason);
        }
        let trailers = draft.is_grpc().then(|| grpc::trailers(reason));
        if let Some(trailers) = &trailers {
            draft.note_grpc(trailers);
        }
        draft.finish(Some(reason));
        trailers
    }

    /// Ends it, by trailers where those say why, and else with an error the next time it is asked: hyper forgets what it was
    /// given and has not written by then, the response's head too, and a client that gets nothing asks again.
    fn break_off(
        &mut self,
        reason: Reason,
        error: BodyError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let trailers = self.fail(reason);
        self.broken = Some(error);
        if let Some(trailers) = trailers {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl http_body::Body for DownloadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) && self.open.is_some() {
            return self.break_off(Reason::UpstreamTimeout, BodyError::TooSlow, cx);
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(rest) = &mut self.rest {
            ready!(rest.poll(cx));
            return Poll::Ready(None);
        }
        let frame = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(Pin::new(&mut self.inner).poll_frame(cx)),
        };
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    self.reading.feed(data);
                    if let Some((_, draft)) = &mut self.open {
                        draft.copy(data);
                    }
                }
                if let Some(trailers) = frame.trailers_mut() {
                    // Only the gate speaks for the gate.
                    trailers.remove(&POSTERN_REASON);
                }
                if let (Some(trailers), Some((_, draft))) = (frame.trailers_ref(), &mut self.open) {
                    draft.note_grpc(trailers);
                }
                self.finish_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => self.break_off(Reason::UpstreamReset, error, cx),
            // A connection that was cut ends its body like one that is whole.
            None if self.is_cut() => self.break_off(Reason::UpstreamReset, BodyError::Cut, cx),
            None => {
                self.finish();
                if self.rest.is_some() { self.poll_frame(cx) } else { Poll::Ready(None) }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.inner.is_end_stream() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}

impl Drop for DownloadBody {
    fn drop(&mut self) {
        // Still open: the client went away, and the draft says so when it is dropped.
        self.note(false);
    }
}
