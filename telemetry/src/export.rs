//! The thread that sends spans: batches from a bounded queue to a collector, which may be slow, away, or overloaded.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::uri::Authority;
use http::{StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{BACKOFF, BACKOFF_MAX, BATCH, EVERY, LOOK_EVERY, QUEUE, STOP_TIMEOUT, TIMEOUT, TRIES};
use crate::stats::{SpanDrop, SpanStats};

/// Where spans go below a collector's address (OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// How a program makes spans of what has ended, and how it speaks HTTP.
pub trait Outlet: Send + 'static {
    /// What has ended.
    type Ended: Send + 'static;

    /// How many spans it has.
    fn spans(ended: &Self::Ended) -> u64;

    /// A batch as an `ExportTraceServiceRequest` in bytes.
    fn encode(&self, batch: &[Self::Ended]) -> Vec<u8>;

    /// Sends bytes on a connection of their own, and waits for the head of the answer.
    fn post(
        stream: TcpStream,
        target: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> impl Future<Output = Result<(StatusCode, HeaderMap), String>>;
}

/// The queue's end for whoever has something that ended.
pub struct Spans<O: Outlet> {
    queue: mpsc::Sender<O::Ended>,
    stats: Arc<SpanStats>,
}

// A derived one would have the outlet be clonable.
impl<O: Outlet> Clone for Spans<O> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), stats: Arc::clone(&self.stats) }
    }
}

impl<O: Outlet> Spans<O> {
    /// Hands it on. Never waits: what there is no place for is counted.
    pub fn send(&self, ended: O::Ended) {
        let spans = O::spans(&ended);
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
pub fn start<O: Outlet>(endpoint: &str, outlet: O, stats: Arc<SpanStats>) -> io::Result<(Spans<O>, Exporter)> {
    let collector = collector(endpoint).map_err(io::Error::other)?;
    let (spans, received) = queue(Arc::clone(&stats));
    let (stop, stopping) = watch::channel(false);
    let (alive, ended) = std::sync::mpsc::channel();
    let sending = Sending { queue: received, batch: Vec::new(), stats, collector, outlet, stopping, is_failing: false };
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
pub type Queue<O> = mpsc::Receiver<<O as Outlet>::Ended>;

/// The queue's two ends.
#[must_use]
pub fn queue<O: Outlet>(stats: Arc<SpanStats>) -> (Spans<O>, Queue<O>) {
    let (queue, received) = mpsc::channel(QUEUE);
    (Spans { queue, stats }, received)
}

impl Exporter {
    /// Has what is queued sent, as far as that goes within a moment, and waits for it. What ends later is lost.
    pub fn stop(self) {
        self.stop.send_replace(true);
        let _ended_or_stuck = self.ended.recv_timeout(STOP_TIMEOUT * 2);
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
            Err("collectors are not spoken to over TLS; write `http://` and the address of one nearby".to_owned())
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

struct Sending<O: Outlet> {
    queue: Queue<O>,
    batch: Vec<O::Ended>,
    stats: Arc<SpanStats>,
    collector: Authority,
    outlet: O,
    stopping: watch::Receiver<bool>,
    /// Told once, and once more when it is over.
    is_failing: bool,
}

impl<O: Outlet> Sending<O> {
    async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        let late = async move {
            let _stopping_or_gone = stopping.wait_for(|stopping| *stopping).await;
            sleep(STOP_TIMEOUT).await;
        };
        tokio::select! {
            () = self.send_all() => {}
            () = late => {}
        }
        while let Ok(ended) = self.queue.try_recv() {
            self.batch.push(ended);
        }
        if !self.batch.is_empty() {
            self.stats.add_dropped(SpanDrop::Stopped, spans::<O>(&self.batch));
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
        let mut stopping = self.stopping.clone();
        let first = tokio::select! {
            biased;
            first = self.queue.recv() => first,
            // Whoever has sent may be there still, with nothing more to send.
            _stopping_or_gone = stopping.wait_for(|stopping| *stopping) => self.queue.try_recv().ok(),
        };
        let Some(first) = first else { return false };
        self.batch.push(first);
        let due = Instant::now() + EVERY;
        // Looked at now and then instead of waited for: whoever sends wakes nobody then.
        loop {
            match self.queue.try_recv() {
                Ok(next) => self.batch.push(next),
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
                Err(mpsc::error::TryRecvError::Empty) if self.is_stopping() || Instant::now() >= due => return true,
                Err(mpsc::error::TryRecvError::Empty) => self.pause(LOOK_EVERY).await,
            }
            if self.batch.len() >= BATCH {
                return true;
            }
        }
    }

    /// Sends the batch, again and again while that may help; at the end once.
    async fn send(&mut self) {
        let body = Bytes::from(self.outlet.encode(&self.batch));
        let count = spans::<O>(&self.batch);
        let mut backoff = BACKOFF;
        for left in (0..TRIES).rev() {
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
                    self.pause(asked.unwrap_or(backoff).min(BACKOFF_MAX)).await;
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
            O::post(stream, Uri::from_static(PATH), headers, body.clone()).await
        };
        match timeout(TIMEOUT, tried).await {
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
                tracing::warn!(collector, why, "traces cannot be sent; all else goes on");
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

fn spans<O: Outlet>(batch: &[O::Ended]) -> u64 {
    batch.iter().map(O::spans).sum()
}

/// Seconds; a date is too much to ask for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::collector;

    #[test]
    fn collectors_have_addresses() {
        let table = [
            ("http://127.0.0.1:4318", Some("127.0.0.1:4318")),
            ("http://collector.observability:4318/", Some("collector.observability:4318")),
            ("http://[::1]:4318", Some("[::1]:4318")),
            ("http://collector", Some("collector")),
            ("https://collector:4318", None),
            ("http://collector:4318/v1/traces", None),
            ("http://collector:4318?a", None),
            ("http://me:secret@collector:4318", None),
            ("collector:4318", None),
            ("grpc://collector:4317", None),
            ("http://", None),
            ("", None),
        ];
        for (endpoint, expected) in table {
            let found = collector(endpoint).ok();
            assert_eq!(found.as_ref().map(http::uri::Authority::as_str), expected, "{endpoint}");
        }
    }
}
