//! The relay between pipes of this process, and what counts as quiet.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sidecar_decide::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::{Instant, advance, timeout};

use super::{Passed, Quiet, Relay, RelayBuffer};
use crate::duplex::{Duplex, Opened};
use crate::limits::{RELAY_BUFFER_BYTES, RELAY_ENDING_TIMEOUT, RELAY_IDLE_TIMEOUT};

const SECOND: Duration = Duration::from_secs(1);

/// One end of a pipe, and whether it was broken off.
struct Pipe {
    stream: DuplexStream,
    is_broken: Rc<Cell<bool>>,
}

impl Duplex for Pipe {
    fn break_off(&self) {
        self.is_broken.set(true);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client and an upstream with a relay between them, over pipes that hold so many bytes.
struct Scene {
    client: DuplexStream,
    upstream: DuplexStream,
    ends: [Opened; 2],
    is_broken: [Rc<Cell<bool>>; 2],
    buffer: RelayBuffer,
    passed: Passed,
}

impl Scene {
    fn new(capacity: usize, first: [&'static str; 2]) -> Self {
        let ((client, near), (upstream, far)) = (duplex(capacity), duplex(capacity));
        let is_broken = [Rc::new(Cell::new(false)), Rc::new(Cell::new(false))];
        let open = |stream, index: usize| Opened {
            stream: Box::new(Pipe { stream, is_broken: Rc::clone(&is_broken[index]) }),
            first: Bytes::from_static(first[index].as_bytes()),
        };
        let ends = [open(near, 0), open(far, 1)];
        Self { client, upstream, ends, is_broken, buffer: RelayBuffer::default(), passed: Passed::default() }
    }

    /// What the relay says in the end, while `talk` has both of its ends; who has passed how much, and whether it broke.
    async fn relay<T>(
        self,
        talk: impl AsyncFnOnce(DuplexStream, DuplexStream) -> T,
    ) -> (Result<(), Reason>, T, [u64; 2], [bool; 2]) {
        let Self { client, upstream, ends: [near, far], is_broken, buffer, passed } = self;
        let relay = Relay::new(near, far, &buffer, &passed);
        let (ended, talked) = tokio::join!(relay.run(), talk(client, upstream));
        (ended, talked, [passed.up.get(), passed.down.get()], is_broken.map(|is_broken| is_broken.get()))
    }
}

async fn all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    got
}

#[tokio::test]
async fn what_was_read_before_goes_first() {
    for capacity in [1, 3, 1000] {
        let scene = Scene::new(capacity, ["hello ", "good "]);
        let (ended, got, passed, broken) = scene
            .relay(async |client, upstream| {
                let ((client_reads, mut client_writes), (upstream_reads, mut upstream_writes)) =
                    (tokio::io::split(client), tokio::io::split(upstream));
                let client = async {
                    client_writes.write_all(b"world").await.unwrap();
                    client_writes.shutdown().await.unwrap();
                };
                let upstream = async {
                    upstream_writes.write_all(b"bye").await.unwrap();
                    upstream_writes.shutdown().await.unwrap();
                };
                let (up, down, (), ()) = tokio::join!(all(upstream_reads), all(client_reads), client, upstream);
                (up, down)
            })
            .await;
        assert_eq!((ended, got), (Ok(()), (b"hello world".to_vec(), b"good bye".to_vec())), "{capacity}");
        assert_eq!((passed, broken), ([11, 8], [false, false]), "{capacity}");
    }
}

#[tokio::test]
async fn a_receiver_that_takes_little_gets_everything_in_order() {
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for capacity in [7, 1000, RELAY_BUFFER_BYTES + 1] {
        let scene = Scene::new(capacity, ["", ""]);
        let (ended, (up, down), passed, _) = scene
            .relay(async |client, upstream| {
                let ((client_reads, mut client_writes), (mut upstream_reads, mut upstream_writes)) =
                    (tokio::io::split(client), tokio::io::split(upstream));
                // The upstream sends back what it gets, and so waits for the client to read.
                let echo = async {
                    let up = tokio::io::copy(&mut upstream_reads, &mut upstream_writes).await.unwrap();
                    upstream_writes.shutdown().await.unwrap();
                    up
                };
                let send = async {
                    client_writes.write_all(&sent).await.unwrap();
                    client_writes.shutdown().await.unwrap();
                };
                let (up, down, ()) = tokio::join!(echo, all(client_reads), send);
                (up, down)
            })
            .await;
        assert!(down == sent, "{capacity}: {} bytes came back otherwise", down.len());
        let bytes = sent.len() as u64;
        assert_eq!((ended, up, passed), (Ok(()), bytes, [bytes, bytes]), "{capacity}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_held_back_by_a_receiver_that_takes_nothing() {
    const PIPE: usize = 1000;
    let scene = Scene::new(PIPE, ["", ""]);
    let (_, taken, _, _) = scene
        .relay(async |mut client, upstream| {
            let mut taken = 0;
            // In virtual time, which passes only when nothing else can be done.
            while let Ok(written) = timeout(SECOND, client.write(&[7; PIPE])).await {
                taken += written.unwrap();
            }
            drop(upstream);
            taken
        })
        .await;
    let held = taken - 2 * PIPE;
    assert!(held <= RELAY_BUFFER_BYTES, "{held} bytes are held for a receiver that takes none");
}

#[tokio::test]
async fn what_breaks_at_one_end_breaks_at_the_other() {
    let scene = Scene::new(10, ["", "more than the pipe holds"]);
    let (ended, _upstream, _, broken) = scene
        .relay(async |client, upstream| {
            drop(client);
            upstream
        })
        .await;
    assert_eq!((ended, broken), (Err(Reason::ClientClosed), [true, true]));
    let scene = Scene::new(10, ["more than the pipe holds", ""]);
    let (ended, _client, _, broken) = scene
        .relay(async |client, upstream| {
            drop(upstream);
            client
        })
        .await;
    assert_eq!((ended, broken), (Err(Reason::UpstreamReset), [true, true]));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_relay_ends_after_its_time() {
    let begun = Instant::now();
    let scene = Scene::new(10, ["", ""]);
    let (ended, _kept, _, broken) = scene.relay(async |client, upstream| (client, upstream)).await;
    assert_eq!((ended, broken), (Err(Reason::LimitIdle), [true, true]));
    assert!(begun.elapsed().abs_diff(RELAY_IDLE_TIMEOUT) < SECOND);
    let begun = Instant::now();
    let scene = Scene::new(10, ["", ""]);
    let (ended, _kept, _, broken) = scene
        .relay(async |client, mut upstream| {
            upstream.shutdown().await.unwrap();
            (client, upstream)
        })
        .await;
    assert_eq!((ended, broken), (Err(Reason::LimitIdle), [true, true]));
    assert!(begun.elapsed().abs_diff(RELAY_ENDING_TIMEOUT) < SECOND);
}

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
