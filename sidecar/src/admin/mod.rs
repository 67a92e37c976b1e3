//! What a sidecar tells over plain HTTP: on the status port to probes and Prometheus, on the admin socket to its owner.

mod answers;
mod config;
mod documents;
mod probe;
pub mod socket;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

pub use documents::{DrainState, EndpointLine, Identities, Upstreams};

use crate::duplex::Duplex;
use crate::limits::{ACCEPT_BACKOFF, ADMIN_CONNECTIONS, ADMIN_SOCKET_CONNECTIONS, ADMIN_TIMEOUT};
use crate::metrics;
use crate::protocol::{self, Body, Request, Response, Version};
use crate::state::State;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Prometheus' text exposition format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Whoever reaches the status port.
    Anyone,
    /// Whoever may open the admin socket.
    Owner,
}

impl Asker {
    fn connections(self) -> usize {
        match self {
            Self::Anyone => ADMIN_CONNECTIONS,
            Self::Owner => ADMIN_SOCKET_CONNECTIONS,
        }
    }
}

/// Answers on what is accepted until the task is dropped.
pub async fn serve<S>(asker: Asker, accept: impl AsyncFn() -> io::Result<S>, state: Arc<State>)
where
    S: Duplex + 'static,
{
    let places = Arc::new(Semaphore::new(asker.connections()));
    // Kept, so that nothing is told to close before the process ends.
    let (_keep, closing) = watch::channel(false);
    let state = Rc::new(state);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match accept().await {
            Ok(stream) => {
                let (state, counts) = (Rc::clone(&state), Rc::clone(&state));
                let closing = closing.clone();
                tokio::task::spawn_local(async move {
                    let handler = move |request: Request| answer(asker, Arc::clone(&state), request);
                    let serving = protocol::serve(stream, Version::Http1, handler, closing, Rc::default());
                    match timeout(ADMIN_TIMEOUT, serving).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "status connection ended"),
                        Err(_) => counts.cut_admin(asker),
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, ?asker, "accept failed on the status port or the admin socket");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn answer(asker: Asker, state: Arc<State>, request: Request) -> Response {
    let path = request.head.target.path();
    if (asker, path) == (Asker::Owner, "/drain") {
        return drain(&state, &request.head.method);
    }
    if request.head.method != Method::GET && request.head.method != Method::HEAD {
        return not_allowed("GET, HEAD");
    }
    match (asker, path) {
        (_, "/livez") => text(StatusCode::OK, "live\n".to_owned()),
        (_, "/startupz") => match state.not_started() {
            reasons if reasons.is_empty() => text(StatusCode::OK, "started\n".to_owned()),
            reasons => not_ready(&state, &reasons),
        },
        (_, "/readyz") => match state.not_ready() {
            reasons if reasons.is_empty() => text(StatusCode::OK, format!("ready\n{}", of_log(&state))),
            reasons => not_ready(&state, &reasons),
        },
        (_, "/status") => json(&state.status()),
        (_, "/metrics") => page(&state),
        (Asker::Anyone, path) if path.starts_with(probe::PATH) => {
            probe::answer(&state, path.strip_prefix(probe::PATH).unwrap_or_default()).await
        }
        (Asker::Owner, "/upstreams") => apart(move || answers::upstreams(&state)).await,
        (Asker::Owner, "/identities") => {
            let asked = answers::Asked::of(request.head.target.query().unwrap_or_default());
            match asked {
                Ok(asked) => apart(move || answers::identities(&state, &asked)).await,
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            }
        }
        (Asker::Owner, "/config") => apart(move || config::document(&state)).await,
        (Asker::Anyone, _) => text(StatusCode::NOT_FOUND, "try /livez /readyz /startupz /status /metrics\n".to_owned()),
        (Asker::Owner, _) => {
            let help = "try /status /upstreams /identities /config /drain /livez /readyz /startupz /metrics\n";
            text(StatusCode::NOT_FOUND, help.to_owned())
        }
    }
}

/// Makes an answer that may be large on a thread of its own: the control thread has revocations to publish.
async fn apart<T: Serialize>(make: impl FnOnce() -> T + Send + 'static) -> Response {
    match spawn_blocking(move || serde_json::to_vec(&make())).await {
        Ok(Ok(document)) => response(StatusCode::OK, JSON, document),
        Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Tells how the drain fares; asked with POST, begins it.
fn drain(state: &State, method: &Method) -> Response {
    if *method == Method::POST {
        state.ask_drain();
    } else if *method != Method::GET && *method != Method::HEAD {
        return not_allowed("GET, HEAD, POST");
    }
    json(&answers::drain(state))
}

fn not_ready(state: &State, reasons: &[String]) -> Response {
    let told = format!("not ready: {}\n{}", reasons.join("; "), of_log(state));
    text(StatusCode::SERVICE_UNAVAILABLE, told)
}

/// What there is to say of the request log, which no readiness depends on.
fn of_log(state: &State) -> &'static str {
    if state.log.store_up() { "" } else { "request log: not writing\n" }
}

fn page(state: &State) -> Response {
    let status = state.status();
    let generation = state.generation();
    let sources = metrics::Sources {
        counted: &state.counted,
        handshakes: &state.handshakes,
        upstreams: &state.upstreams,
        endpoints: &generation.endpoints,
        ejections: &state.ejections,
        checks: &state.checks,
        lookups: &state.lookups,
        log: &state.log,
        log_bytes: state.settings.log.max_size.bytes(),
        traces: state.traces.as_deref(),
        trims: &state.trims,
        kept: &state.kept,
        status: &status,
        under_way: &state.under_way,
        limits: &generation.limits,
        leaf_not_after: state.leaf_not_after(),
        bundle_expiries: state.bundle_expiries(),
        reloads: state.reloads(),
        admin_cut: state.admin_cut(),
        crl_next_updates: state.crl_next_updates(),
    };
    response(StatusCode::OK, METRICS, metrics::render(&sources))
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}\n"));
    response.headers.insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn json(document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(document) => response(StatusCode::OK, JSON, document),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response {
    response(status, TEXT, text.into_bytes())
}

fn response(status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Response {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(CONTENT_TYPE, content_type);
    Response::new(status, headers, Body::Bytes(Bytes::from(body)))
}
