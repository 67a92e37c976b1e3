//! Bodies as they pass: counted, bounded, and known to have ended.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use sidecar_decide::Reason;
use sidecar_decide::filter::GateNames;
use tokio::time::{Instant, Sleep, sleep};

use super::gate::Gate;
use super::record::Draft;
use crate::limits::{LINGER_BYTES, LINGER_TIMEOUT};
use crate::pool::Lease;
use crate::protocol::{Body, BodyError, Inbound};

/// How far a request's body has come.
pub(super) struct Upload {
    bytes: Cell<u64>,
    last_progress: Cell<Instant>,
    ended: Cell<bool>,
    failed: Cell<Option<Reason>>,
}

impl Upload {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            last_progress: Cell::new(Instant::now()),
            ended: Cell::new(false),
            failed: Cell::new(None),
        })
    }

    /// Bytes that have passed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// When the last of them did.
    pub(super) fn last_progress(&self) -> Instant {
        self.last_progress.get()
    }

    /// Whether all of it was handed on.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Why the body broke off on the client's side.
    pub(super) fn failed(&self) -> Option<Reason> {
        self.failed.get()
    }
}

/// A request's body on its way to the upstream, which ends with an error at its bound.
pub(super) fn upload(inner: Inbound, max_bytes: u64, names: Arc<GateNames>, state: Rc<Upload>) -> Body {
    Body::Stream(Box::pin(UploadBody { inner, max_bytes, names, state }))
}

struct UploadBody {
    inner: Inbound,
    max_bytes: u64,
    /// What its trailers must not say either.
    names: Arc<GateNames>,
    state: Rc<Upload>,
}

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.state.last_progress.set(Instant::now());
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    self.names.strip_trailers(trailers);
                }
                let passed = self.state.bytes.get() + frame.data_ref().map_or(0, |data| data.len() as u64);
                if passed > self.max_bytes {
                    self.state.failed.set(Some(Reason::LimitBodySize));
                    Some(Err(BodyError::TooLarge))
                } else {
                    self.state.bytes.set(passed);
                    self.state.ended.set(self.inner.is_end_stream());
                    Some(Ok(frame))
                }
            }
            Some(Err(error)) => {
                let is_malformed = matches!(error, BodyError::Malformed(_));
                let reason = if is_malformed { Reason::ClientMalformed } else { Reason::ClientClosed };
                self.state.failed.set(Some(reason));
                Some(Err(error))
            }
            None => {
                self.state.ended.set(true);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The gate's own answer to a request whose body is still coming. It ends when that body has, or was listened to for
/// long enough: HTTP/2 resets the stream of a body that nobody wants, and clients take the reset for the answer.
pub(super) fn refusal(text: Bytes, unwanted: Inbound) -> Body {
    Body::Stream(Box::pin(RefusalBody {
        text: Some(text),
        unwanted,
        deadline: Box::pin(sleep(LINGER_TIMEOUT)),
        bytes_left: LINGER_BYTES,
    }))
}

struct RefusalBody {
    text: Option<Bytes>,
    unwanted: Inbound,
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl http_body::Body for RefusalBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(text) = self.text.take() {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        while self.bytes_left > 0 && self.deadline.as_mut().poll(cx).is_pending() {
            match ready!(Pin::new(&mut self.unwanted).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let read = frame.data_ref().map_or(0, Bytes::len);
                    self.bytes_left = self.bytes_left.saturating_sub(read);
                }
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(None)
    }
}

/// A response's body on its way to the client: at its end the row is sent and the connection goes back to the pool.
pub(super) fn download(inner: Inbound, gate: Rc<Gate>, lease: Lease, draft: Draft) -> Body {
    let mut body = DownloadBody { inner, gate, open: Some((lease, draft)), bytes: 0 };
    body.finish_if_ended();
    Body::Stream(Box::pin(body))
}

struct DownloadBody {
    inner: Inbound,
    gate: Rc<Gate>,
    /// Until the body has ended.
    open: Option<(Lease, Draft)>,
    bytes: u64,
}

impl DownloadBody {
    /// Ends the row as soon as the last byte has come: hyper need not ask again once the length is reached.
    fn finish_if_ended(&mut self) {
        if self.inner.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some((lease, mut draft)) = self.open.take() {
            // An upstream that answered without taking the whole request cannot be asked again on this connection.
            if draft.upload_ended() {
                self.gate.pool.give_back(lease);
            }
            draft.edit(|record| record.response_bytes = self.bytes);
            draft.finish(None);
        }
    }

    fn fail(&mut self) {
        if let Some((_, mut draft)) = self.open.take() {
            draft.edit(|record| record.response_bytes = self.bytes);
            let reason = draft.upload_failed().unwrap_or(Reason::UpstreamReset);
            draft.finish(Some(reason));
        }
    }
}

impl http_body::Body for DownloadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.finish_if_ended();
            }
            Some(Err(_)) => self.fail(),
            None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for DownloadBody {
    fn drop(&mut self) {
        // Still open: the client went away, and the draft says so when it is dropped.
        if let Some((_, draft)) = &mut self.open {
            draft.edit(|record| record.response_bytes = self.bytes);
        }
    }
}
