//! The status port: liveness, readiness, start-up, metrics and the status document, over plain HTTP.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::limits::{ACCEPT_BACKOFF, ADMIN_CONNECTIONS, ADMIN_TIMEOUT};
use crate::metrics;
use crate::protocol::{self, Body, Request, Response, Version};
use crate::state::State;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Prometheus' text exposition format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers on a socket until the task is dropped.
pub async fn serve(listener: TcpListener, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
    // Kept, so that nothing is told to close before the process ends.
    let (_keep, closing) = watch::channel(false);
    let state = Rc::new(state);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Rc::clone(&state);
                let closing = closing.clone();
                tokio::task::spawn_local(async move {
                    let handler = move |request: Request| std::future::ready(answer(&state, &request));
                    let serving = protocol::serve(stream, Version::Http1, handler, closing, Rc::default());
                    if let Ok(Err(error)) = timeout(ADMIN_TIMEOUT, serving).await {
                        tracing::debug!(%error, "status connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the status port failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn answer(state: &State, request: &Request) -> Response {
    if request.head.method != Method::GET && request.head.method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
    }
    match request.head.target.path() {
        "/livez" => text(StatusCode::OK, "live\n".to_owned()),
        "/startupz" if state.is_started() => text(StatusCode::OK, "started\n".to_owned()),
        "/startupz" | "/readyz" => readiness(state),
        "/status" => status(state),
        "/metrics" => page(state),
        _ => text(StatusCode::NOT_FOUND, "try /livez /readyz /startupz /status /metrics\n".to_owned()),
    }
}

fn readiness(state: &State) -> Response {
    let log = if state.log.store_up() { "" } else { "request log: not writing\n" };
    match state.not_ready() {
        reasons if reasons.is_empty() => text(StatusCode::OK, format!("ready\n{log}")),
        reasons => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n{log}", reasons.join("; "))),
    }
}

fn status(state: &State) -> Response {
    match serde_json::to_vec(&state.status()) {
        Ok(document) => response(StatusCode::OK, JSON, document),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn page(state: &State) -> Response {
    let status = state.status();
    let generation = state.generation();
    let sources = metrics::Sources {
        requests: &state.requests,
        connections: &state.connections,
        tunnels: &state.tunnels,
        handshakes: &state.handshakes,
        upstreams: &state.upstreams,
        endpoints: &generation.endpoints,
        ejections: &state.ejections,
        checks: &state.checks,
        log: &state.log,
        traces: state.traces.as_deref(),
        kept: &state.kept,
        status: &status,
        under_way: &state.under_way,
        workers: state.requests.workers(),
        limits: state.limits(),
        leaf_not_after: state.leaf_not_after(),
        crl_next_updates: state.crl_next_updates(),
    };
    match metrics::render(&sources) {
        Ok(page) => response(StatusCode::OK, METRICS, page),
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
