//! Bytes both ways between a client and an upstream, until both have ended.
//!
//! Nothing is held for a connection that is quiet or slow: what the client sends is written upstream from where TLS has
//! decrypted it, and what the upstream sends is read only when TLS has nothing left to send, into one buffer for all
//! connections of a worker, and taken over by TLS at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sidecar_decide::Reason;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::limits::{RELAY_BUFFER_BYTES, RELAY_ENDING_TIMEOUT, RELAY_IDLE_TIMEOUT, RELAY_ROUNDS};

/// What one worker reads from upstreams into.
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
    client: TlsStream<TcpStream>,
    upstream: TcpStream,
    buffer: &'a RelayBuffer,
    passed: &'a Passed,
    up: Direction,
    down: Direction,
    /// Both directions have ended; until then dropping it resets both ends.
    is_over: bool,
    /// The client's stream ended without saying so in TLS: what it sent may be cut short.
    is_cut_short: bool,
}

/// How far one direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// Its sender has ended; its receiver is to be told.
    Ended,
    Closed,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        client: TlsStream<TcpStream>,
        upstream: TcpStream,
        buffer: &'a RelayBuffer,
        passed: &'a Passed,
    ) -> Self {
        let (up, down) = (Direction::Open, Direction::Open);
        Self { client, upstream, buffer, passed, up, down, is_over: false, is_cut_short: false }
    }

    /// Passes bytes until both directions have ended.
    ///
    /// # Errors
    /// Why it broke off.
    pub(super) async fn run(mut self) -> Result<(), Reason> {
        self.pass().await?;
        self.is_over = true;
        if self.is_cut_short { Err(Reason::ClientClosed) } else { Ok(()) }
    }

    async fn pass(&mut self) -> Result<(), Reason> {
        let mut quiet = Quiet::begin();
        poll_fn(|cx| {
            let before = self.progress();
            let up = self.poll_up(cx)?;
            let down = self.poll_down(cx)?;
            if up.is_ready() && down.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let patience = if self.down == Direction::Closed { RELAY_ENDING_TIMEOUT } else { RELAY_IDLE_TIMEOUT };
            quiet.poll(self.progress() != before, patience, cx).map(|()| Err(Reason::LimitIdle))
        })
        .await
    }

    fn progress(&self) -> (u64, u64, Direction, Direction) {
        (self.passed.up.get(), self.passed.down.get(), self.up, self.down)
    }

    /// From the client to the upstream. Ready when the upstream was told the end.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        for _ in 0..RELAY_ROUNDS {
            match self.up {
                Direction::Closed => return Poll::Ready(Ok(())),
                Direction::Ended => {
                    // An upstream that is gone already need not be told.
                    let _gone = ready!(Pin::new(&mut self.upstream).poll_shutdown(cx));
                    self.up = Direction::Closed;
                }
                Direction::Open => {
                    let bytes = match ready!(Pin::new(&mut self.client).poll_fill_buf(cx)) {
                        Ok(bytes) => bytes,
                        // Many clients close the connection and leave out TLS' own end (RFC 8446 §6.1).
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                            self.is_cut_short = true;
                            &[]
                        }
                        Err(_) => return Poll::Ready(Err(Reason::ClientClosed)),
                    };
                    if bytes.is_empty() {
                        self.up = Direction::Ended;
                        continue;
                    }
                    let written = ready!(Pin::new(&mut self.upstream).poll_write(cx, bytes));
                    let written = written.map_err(|_| Reason::UpstreamReset)?;
                    Pin::new(&mut self.client).consume(written);
                    self.passed.up.set(self.passed.up.get() + written as u64);
                }
            }
        }
        again_later(cx)
    }

    /// From the upstream to the client. Ready when the client was told the end.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        for _ in 0..RELAY_ROUNDS {
            if self.down == Direction::Closed {
                return Poll::Ready(Ok(()));
            }
            // With nothing left to send, TLS takes a whole buffer over, whether or not its socket has room.
            ready!(Pin::new(&mut self.client).poll_flush(cx)).map_err(|_| Reason::ClientClosed)?;
            if self.down == Direction::Ended {
                // All it was to get is sent; a client that is gone need not be told the end.
                let _gone = ready!(Pin::new(&mut self.client).poll_shutdown(cx));
                self.down = Direction::Closed;
                continue;
            }
            let mut bytes = self.buffer.0.borrow_mut();
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.upstream).poll_read(cx, &mut read)).map_err(|_| Reason::UpstreamReset)?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.down = Direction::Ended;
                continue;
            }
            match Pin::new(&mut self.client).poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) if written == bytes.len() => {}
                // A part alone is not taken where all fits; if it were, bytes would be missing.
                _ => return Poll::Ready(Err(Reason::ClientClosed)),
            }
            self.passed.down.set(self.passed.down.get() + bytes.len() as u64);
        }
        again_later(cx)
    }
}

impl Drop for Relay<'_> {
    /// What ends in the middle is reset at both ends, so that nobody takes a part for the whole.
    fn drop(&mut self) {
        if !self.is_over {
            // A socket that cannot be told so any more is gone already.
            let _gone = self.client.get_ref().0.set_zero_linger();
            let _gone = self.upstream.set_zero_linger();
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
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::{Instant, advance, timeout};

    use super::Quiet;
    use crate::limits::{RELAY_ENDING_TIMEOUT, RELAY_IDLE_TIMEOUT};

    const SECOND: Duration = Duration::from_secs(1);

    /// How long it takes from now until it is over, when nothing passes any more.
    async fn over(quiet: &mut Quiet, patience: Duration) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| quiet.poll(false, patience, cx)).await;
        begun.elapsed()
    }

    async fn something_passes(quiet: &mut Quiet) {
        let waited = timeout(Duration::ZERO, poll_fn(|cx| quiet.poll(true, RELAY_IDLE_TIMEOUT, cx)));
        assert!(waited.await.is_err(), "not over while something passes");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_quiet_is_over_after_its_time() {
        assert!(over(&mut Quiet::begin(), RELAY_IDLE_TIMEOUT).await.abs_diff(RELAY_IDLE_TIMEOUT) < SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_begins_the_time_anew() {
        let mut quiet = Quiet::begin();
        for _ in 0..3 {
            advance(RELAY_IDLE_TIMEOUT - SECOND * 2).await;
            something_passes(&mut quiet).await;
        }
        assert!(over(&mut quiet, RELAY_IDLE_TIMEOUT).await.abs_diff(RELAY_IDLE_TIMEOUT) < SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_upstream_shortens_it() {
        let mut quiet = Quiet::begin();
        something_passes(&mut quiet).await;
        assert!(over(&mut quiet, RELAY_ENDING_TIMEOUT).await.abs_diff(RELAY_ENDING_TIMEOUT) < SECOND);
    }
}
