//! `/livez`, `/readyz` and `/metrics`, on a thread of their own: it answers, and says why, when the rest is stuck.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::index::Index;
use crate::limits::{
    ACCEPT_AGAIN, HEARTBEAT_LATE, MONITOR_CONNECTIONS, MONITOR_HEAD_TIMEOUT, MONITOR_TIMEOUT, TURN_STUCK,
};
use crate::metrics::{Metrics, PAGE};
use crate::queue::Queue;

pub use self::heartbeat::Heartbeat;

/// What is answered from.
pub struct Watched {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What there is in the cluster.
    pub index: Arc<Index>,
    /// What there is to do.
    pub queue: Arc<Queue>,
    /// Whether the rest of the process is alive.
    pub heartbeat: Arc<Heartbeat>,
}

/// The running thread. It ends when this is dropped.
pub struct Monitor {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Listens, and answers from now on.
    ///
    /// # Errors
    /// When the address cannot be listened on, or there can be no thread.
    pub fn start(address: SocketAddr, watched: Watched) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("monitor".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _stop_or_gone = stopped => {}
                    Err(error) = serve(listener, Arc::new(watched)) => {
                        tracing::error!(%error, "cannot answer probes any more");
                    }
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked_or_not = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, watched: Arc<Watched>) -> io::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(MONITOR_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Never closed; what waits for a place waits in the kernel.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { continue };
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            // Out of files, or one that went before it was accepted.
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let watched = Arc::clone(&watched);
        connections.spawn(async move {
            let _permit = permit;
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&watched, request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            // One request a connection: whoever keeps one open would keep a place.
            http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(MONITOR_HEAD_TIMEOUT);
            let _ended = timeout(MONITOR_TIMEOUT, http.serve_connection(TokioIo::new(stream), answer)).await;
        });
    }
}

fn answer(watched: &Watched, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET".to_owned());
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let probed = |wrong: Option<String>| match wrong {
        None => text(StatusCode::OK, "ok".to_owned()),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    match path {
        "/livez" => probed(stuck(watched.heartbeat.late(), watched.queue.longest())),
        "/readyz" => probed(missing(&watched.index)),
        "/metrics" => match watched.metrics.page(&watched.index, &watched.queue, Timestamp::now().as_second()) {
            Ok(page) => text(StatusCode::OK, page),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here".to_owned()),
    }
}

/// Why the process is not alive.
fn stuck(late: Duration, longest: Option<(String, Duration)>) -> Option<String> {
    if late > HEARTBEAT_LATE {
        return Some(format!("nothing has run for {} s", late.as_secs()));
    }
    let (key, took) = longest.filter(|(_, took)| *took > TURN_STUCK)?;
    Some(format!("the turn of {key} has not ended for {} s", took.as_secs()))
}

/// What has not been seen yet. Whoever waits to lead is as ready as whoever leads.
fn missing(index: &Index) -> Option<String> {
    let watches = index.watches();
    let missing: Vec<_> =
        watches.into_iter().filter(|((_, state), _)| *state == "listing").map(|((kind, _), _)| kind).collect();
    (!index.is_complete()).then(|| format!("not all has been seen yet: {}", missing.join(", ")))
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(PAGE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

mod heartbeat {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use tokio::time::sleep;

    use crate::limits::HEARTBEAT;

    /// When the rest of the process has run last.
    #[derive(Debug)]
    pub struct Heartbeat {
        begun: Instant,
        last_millis: AtomicU64,
    }

    impl Default for Heartbeat {
        fn default() -> Self {
            Self { begun: Instant::now(), last_millis: AtomicU64::new(0) }
        }
    }

    impl Heartbeat {
        /// Notes, again and again, that tasks run.
        pub async fn beat(&self) {
            loop {
                self.last_millis.store(self.millis(), Ordering::Relaxed);
                sleep(HEARTBEAT).await;
            }
        }

        /// For how long none has.
        pub(super) fn late(&self) -> Duration {
            Duration::from_millis(self.millis().saturating_sub(self.last_millis.load(Ordering::Relaxed)))
        }

        fn millis(&self) -> u64 {
            u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::stuck;
    use crate::limits::{HEARTBEAT_LATE, TURN_STUCK, TURN_TIMEOUT};

    #[test]
    fn what_is_slow_is_alive_and_what_is_stuck_is_not() {
        let (beat, turn) = (HEARTBEAT_LATE, TURN_STUCK);
        let more = Duration::from_millis(1);
        let key = |took| Some(("route shop/orders".to_owned(), took));
        for (late, longest, expected) in [
            (Duration::ZERO, None, None),
            (beat, key(turn), None),
            (beat + more, None, Some("nothing has run for 30 s")),
            (Duration::ZERO, key(turn + more), Some("the turn of route shop/orders has not ended for 90 s")),
        ] {
            assert_eq!(stuck(late, longest).as_deref(), expected);
        }
        assert!(turn >= TURN_TIMEOUT * 2, "a turn ends by itself before");
    }
}
