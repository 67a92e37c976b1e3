//! The thread that sends spans: batches from a bounded queue to a collector, which may be slow, away, or overloaded.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::uri::Authority;
use http::{StatusCode, Uri};
use opentelemetry_proto::tonic::resource::v1::Resource;
use sidecar_config::settings::{Pod, Tracing};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::stats::{SpanDrop, SpanStats};
use super::{Ended, span};
use crate::limits::{
    TRACES_BACKOFF, TRACES_BACKOFF_MAX, TRACES_BATCH, TRACES_EVERY, TRACES_LOOK_EVERY, TRACES_QUEUE,
    TRACES_STOP_TIMEOUT, TRACES_TIMEOUT, TRACES_TRIES,
};
use crate::protocol::post;

/// Where spans go below a collector's address (OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// A worker's end of the queue.
#[derive(Clone)]
pub struct Spans {
    queue: mpsc::Sender<Ended>,
    stats: Arc<SpanStats>,
}

impl Spans {
    pub(super) fn send(&self, ended: Ended) {
        let spans = ended.spans();
        if self.queue.try_send(ended).is_err() {
            self.stats.add_dropped(SpanDrop::QueueFull, spans);
        }
    }
}

/// The running thread.
pub struct Exporter {
    stop: watch::Sender<bool>,
    ended: std::sync::mpsc::Receiver<()>,
}

/// Starts the thread for a collector. It ends by itself once every sender is gone and everything is sent.
///
/// # Errors
/// When it cannot be made, or the collector has no address.
pub fn start(tracing: &Tracing, pod: &Pod, stats: Arc<SpanStats>) -> io::Result<(Spans, Exporter)> {
    let collector = collector(&tracing.endpoint).map_err(io::Error::other)?;
    let (spans, received) = queue(Arc::clone(&stats));
    let (stop, stopping) = watch::channel(false);
    let (alive, ended) = std::sync::mpsc::channel();
    let sending = Sending {
        queue: received,
        batch: Vec::new(),
        stats,
        collector,
        resource: span::resource(tracing, pod),
        stopping,
        is_failing: false,
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("traces".to_owned()).spawn(move || {
        // Dropped when the thread ends, by a panic too.
        let _alive = alive;
        runtime.block_on(sending.run());
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
    })?;
    Ok((spans, Exporter { stop, ended }))
}

/// What the thread reads from.
pub(super) type Queue = mpsc::Receiver<Ended>;

/// The queue's two ends.
pub(super) fn queue(stats: Arc<SpanStats>) -> (Spans, Queue) {
    let (queue, received) = mpsc::channel(TRACES_QUEUE);
    (Spans { queue, stats }, received)
}

impl Exporter {
    /// Has what is queued sent, as far as that goes within a moment, and waits for it. The workers have ended before.
    pub fn stop(self) {
        self.stop.send_replace(true);
        let _ended_or_stuck = self.ended.recv_timeout(TRACES_STOP_TIMEOUT * 2);
    }
}

/// The collector's address.
///
/// # Errors
/// What to write instead.
pub fn collector(endpoint: &str) -> Result<Authority, String> {
    let advice = "write `http://HOST:PORT`";
    let uri: Uri = endpoint.parse().map_err(|_| format!("`{endpoint}` is no address of a collector; {advice}"))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    match (uri.scheme_str(), authority, uri.path(), uri.query()) {
        (Some("https"), ..) => {
            Err("collectors are not spoken to over TLS; write `http://` and the address of one beside the gate"
                .to_owned())
        }
        (Some("http"), Some(authority), "/" | "", None) => Ok(authority.clone()),
        _ => Err(format!("`{endpoint}` is no address of a collector; {advice}")),
    }
}

/// What became of a try.
enum Tried {
    Taken,
    Rejected(StatusCode),
    /// Worth another try, after as long as the collector says.
    Failed(String, Option<Duration>),
}

struct Sending {
    queue: Queue,
    batch: Vec<Ended>,
    stats: Arc<SpanStats>,
    collector: Authority,
    resource: Resource,
    stopping: watch::Receiver<bool>,
    /// Told once, and once more when it is over.
    is_failing: bool,
}

impl Sending {
    async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        let late = async move {
            let _stopping_or_gone = stopping.wait_for(|stopping| *stopping).await;
            sleep(TRACES_STOP_TIMEOUT).await;
        };
        tokio::select! {
            () = self.send_all() => {}
            () = late => {}
        }
        while let Ok(ended) = self.queue.try_recv() {
            self.batch.push(ended);
        }
        if !self.batch.is_empty() {
            self.stats.add_dropped(SpanDrop::Stopped, spans(&self.batch));
        }
    }

    async fn send_all(&mut self) {
        while self.gather().await {
            self.send().await;
            self.batch.clear();
        }
    }

    /// Waits for a span and gathers what comes after it; false when none will come any more.
    async fn gather(&mut self) -> bool {
        let Some(first) = self.queue.recv().await else { return false };
        self.batch.push(first);
        let due = Instant::now() + TRACES_EVERY;
        // Looked at now and then instead of waited for: whoever sends wakes nobody then.
        loop {
            match self.queue.try_recv() {
                Ok(next) => self.batch.push(next),
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
                Err(mpsc::error::TryRecvError::Empty) if self.is_stopping() || Instant::now() >= due => return true,
                Err(mpsc::error::TryRecvError::Empty) => self.pause(TRACES_LOOK_EVERY).await,
            }
            if self.batch.len() >= TRACES_BATCH {
                return true;
            }
        }
    }

    /// Sends the batch, again and again while that may help; at the end once.
    async fn send(&mut self) {
        let body = Bytes::from(span::encode(&self.resource, &self.batch));
        let count = spans(&self.batch);
        let mut backoff = TRACES_BACKOFF;
        for left in (0..TRACES_TRIES).rev() {
            match self.try_once(&body).await {
                Tried::Taken => {
                    self.stats.add_exported(count);
                    self.tell(None);
                    return;
                }
                Tried::Rejected(status) => {
                    self.stats.add_dropped(SpanDrop::Rejected, count);
                    self.tell(Some(&format!("it answers {status}")));
                    return;
                }
                Tried::Failed(why, asked) => {
                    self.tell(Some(&why));
                    if left == 0 || self.is_stopping() {
                        break;
                    }
                    self.pause(asked.unwrap_or(backoff).min(TRACES_BACKOFF_MAX)).await;
                    backoff *= 2;
                }
            }
        }
        self.stats.add_dropped(SpanDrop::Unavailable, count);
    }

    async fn try_once(&self, body: &Bytes) -> Tried {
        let tried = async {
            let port = self.collector.port_u16().unwrap_or(80);
            let host = self.collector.host().trim_matches(['[', ']']);
            let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            if let Ok(host) = HeaderValue::from_str(self.collector.as_str()) {
                headers.insert(HOST, host);
            }
            post(stream, Uri::from_static(PATH), headers, body.clone()).await.map_err(|error| error.to_string())
        };
        match timeout(TRACES_TIMEOUT, tried).await {
            Ok(Ok((status, _))) if status.is_success() => Tried::Taken,
            // OTLP/HTTP, "Retryable Response Codes".
            Ok(Ok((status, headers))) if matches!(status.as_u16(), 429 | 502 | 503 | 504) => {
                Tried::Failed(format!("it answers {status}"), retry_after(&headers))
            }
            Ok(Ok((status, _))) => Tried::Rejected(status),
            Ok(Err(why)) => Tried::Failed(why, None),
            Err(_) => Tried::Failed("it does not answer in time".to_owned(), None),
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits for so long, or until it is time to stop.
    async fn pause(&self, time: Duration) {
        let mut stopping = self.stopping.clone();
        let _stopping_or_not = timeout(time, stopping.wait_for(|stopping| *stopping)).await;
    }

    /// Tells that spans cannot be sent, once, and that they can again.
    fn tell(&mut self, failure: Option<&str>) {
        let collector = self.collector.as_str();
        match failure {
            Some(why) if !self.is_failing => {
                tracing::warn!(collector, why, "traces cannot be sent; traffic goes on");
                self.is_failing = true;
            }
            None if self.is_failing => {
                tracing::info!(collector, "traces are sent again");
                self.is_failing = false;
            }
            _ => {}
        }
    }
}

fn spans(batch: &[Ended]) -> u64 {
    batch.iter().map(|ended| ended.spans()).sum()
}

/// Seconds; a date is too much to ask for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}
