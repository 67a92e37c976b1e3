//! Bytes both ways between a client and an upstream, until both have ended.
//!
//! Nothing is held for a connection that is quiet, and 16 KiB at most for one whose receiver is slow: one side is read only
//! when the other has nothing left to send, into one buffer for all connections of a worker, and what comes is handed over
//! at once. Only a socket that takes a part leaves a rest to keep.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use sidecar_decide::Reason;
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::duplex::{Duplex, Opened};
use crate::limits::{RELAY_BUFFER_BYTES, RELAY_ENDING_TIMEOUT, RELAY_IDLE_TIMEOUT, RELAY_ROUNDS};

/// What one worker reads into.
pub struct RelayBuffer(RefCell<Box<[u8]>>);

impl Default for RelayBuffer {
    fn default() -> Self {
        Self(RefCell::new(vec![0; RELAY_BUFFER_BYTES].into_boxed_slice()))
    }
}

/// Bytes that have passed; read by whoever writes the row, however the relay ends.
#[derive(Default)]
pub(super) struct Passed {
    /// From the client to the upstream.
    pub(super) up: Cell<u64>,
    /// From the upstream to the client.
    pub(super) down: Cell<u64>,
}

/// Both ends, and how far each has come.
pub(super) struct Relay<'a> {
    client: Box<dyn Duplex>,
    upstream: Box<dyn Duplex>,
    buffer: &'a RelayBuffer,
    passed: &'a Passed,
    up: Direction,
    down: Direction,
    /// Both directions have ended; until then dropping it breaks both ends off.
    is_over: bool,
    /// Who was the first to end without saying so in TLS, if anybody did.
    cut_short: Option<Reason>,
}

/// One direction: what is on its way, and how far it has come.
struct Direction {
    stage: Stage,
    /// What came and was not taken yet.
    rest: Bytes,
    /// Its sender ended without saying so in TLS, as many do (RFC 8446 §6.1): what it sent is passed on, and may be a part.
    is_cut_short: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Its sender has ended; its receiver is to be told.
    Ended,
    Closed,
}

/// Which end failed.
enum Broken {
    Sender,
    Receiver,
}

impl<'a> Relay<'a> {
    pub(super) fn new(client: Opened, upstream: Opened, buffer: &'a RelayBuffer, passed: &'a Passed) -> Self {
        let (up, down) = (Direction::beginning_with(client.first), Direction::beginning_with(upstream.first));
        let (client, upstream) = (client.stream, upstream.stream);
        Self { client, upstream, buffer, passed, up, down, is_over: false, cut_short: None }
    }

    /// Passes bytes until both directions have ended.
    ///
    /// # Errors
    /// Why it broke off.
    pub(super) async fn run(mut self) -> Result<(), Reason> {
        self.pass().await?;
        self.is_over = true;
        self.cut_short.map_or(Ok(()), Err)
    }

    async fn pass(&mut self) -> Result<(), Reason> {
        let mut quiet = Quiet::begin();
        poll_fn(|cx| {
            let before = self.progress();
            let up = self.poll_up(cx)?;
            let down = self.poll_down(cx)?;
            let who = [(self.up.is_cut_short, Reason::ClientClosed), (self.down.is_cut_short, Reason::UpstreamReset)];
            let who = who.into_iter().find_map(|(is_cut_short, reason)| is_cut_short.then_some(reason));
            self.cut_short = self.cut_short.or(who);
            if up.is_ready() && down.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let patience = if self.down.stage == Stage::Closed { RELAY_ENDING_TIMEOUT } else { RELAY_IDLE_TIMEOUT };
            quiet.poll(self.progress() != before, patience, cx).map(|()| Err(Reason::LimitIdle))
        })
        .await
    }

    fn progress(&self) -> (u64, u64, Stage, Stage) {
        (self.passed.up.get(), self.passed.down.get(), self.up.stage, self.down.stage)
    }

    /// From the client to the upstream. Ready when the upstream was told the end.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let Self { client, upstream, up, .. } = self;
        up.poll(&mut **client, &mut **upstream, self.buffer, &self.passed.up, cx).map_err(|broken| match broken {
            Broken::Sender => Reason::ClientClosed,
            Broken::Receiver => Reason::UpstreamReset,
        })
    }

    /// From the upstream to the client. Ready when the client was told the end.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let Self { client, upstream, down, .. } = self;
        down.poll(&mut **upstream, &mut **client, self.buffer, &self.passed.down, cx).map_err(|broken| match broken {
            Broken::Sender => Reason::UpstreamReset,
            Broken::Receiver => Reason::ClientClosed,
        })
    }
}

impl Direction {
    fn beginning_with(first: Bytes) -> Self {
        Self { stage: Stage::Open, rest: first, is_cut_short: false }
    }

    /// Ready when the receiver was told the end.
    fn poll(
        &mut self,
        sender: &mut dyn Duplex,
        receiver: &mut dyn Duplex,
        buffer: &RelayBuffer,
        passed: &Cell<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..RELAY_ROUNDS {
            while !self.rest.is_empty() {
                let written = ready!(take(receiver, &self.rest, cx))?;
                passed.set(passed.get() + written as u64);
                self.rest.advance(written);
            }
            // What was passed on is not kept either.
            self.rest = Bytes::new();
            if self.stage == Stage::Closed {
                return Poll::Ready(Ok(()));
            }
            // With nothing left to send, TLS takes a whole buffer over, whether or not its socket has room.
            ready!(Pin::new(&mut *receiver).poll_flush(cx)).map_err(|_| Broken::Receiver)?;
            if self.stage == Stage::Ended {
                // All it was to get is sent; a receiver that is gone need not be told the end.
                let receiver = Pin::new(&mut *receiver);
                let told = if self.is_cut_short { receiver.poll_cut_short(cx) } else { receiver.poll_shutdown(cx) };
                let _gone = ready!(told);
                self.stage = Stage::Closed;
                continue;
            }
            let mut bytes = buffer.0.borrow_mut();
            let mut read = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut *sender).poll_read(cx, &mut read)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.is_cut_short = true,
                Err(_) => return Poll::Ready(Err(Broken::Sender)),
            }
            let bytes = read.filled();
            if bytes.is_empty() {
                self.stage = Stage::Ended;
                continue;
            }
            let written = match take(receiver, bytes, cx) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            passed.set(passed.get() + written as u64);
            if written < bytes.len() {
                self.rest = Bytes::copy_from_slice(&bytes[written..]);
            }
        }
        again_later(cx)
    }
}

/// How much of some bytes a receiver takes; at least one.
fn take(receiver: &mut dyn Duplex, bytes: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
    Pin::new(receiver).poll_write(cx, bytes).map(|written| match written {
        Ok(written @ 1..) => Ok(written),
        Ok(0) | Err(_) => Err(Broken::Receiver),
    })
}

impl Drop for Relay<'_> {
    /// What ends in the middle breaks off at both ends.
    fn drop(&mut self) {
        if !self.is_over {
            self.client.break_off();
            self.upstream.break_off();
        }
    }
}

/// Since when nothing has passed.
struct Quiet {
    last_progress: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    fn begin() -> Self {
        let now = Instant::now();
        Self { last_progress: now, timer: Box::pin(sleep_until(now + RELAY_IDLE_TIMEOUT)) }
    }

    /// Ready when nothing has passed for that long.
    fn poll(&mut self, has_progress: bool, patience: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if has_progress {
            self.last_progress = Instant::now();
        }
        // The timer is moved when it fires and when the time gets shorter, and not at every byte.
        let due = self.last_progress + patience;
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.timer.deadline() >= due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// Lets the other direction and other connections have their turn: two fast ends would never wait.
fn again_later<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests;
