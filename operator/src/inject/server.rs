//! The webhook as a process: reviews over HTTPS, probes over HTTP. It asks nobody anything and keeps nothing.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::certificate::ServingCertificate;
use super::metrics::Metrics;
use super::review;
use super::settings::Settings;
use crate::inject::Common;
use crate::limits::{
    CERTIFICATE_LOOK, REVIEW_BYTES, REVIEW_TIMEOUT, REVIEWS, SERVED_CONNECTIONS, SERVED_HANDSHAKE_TIMEOUT,
    SERVED_IDLE_TIMEOUT, STOP_TIMEOUT,
};
use crate::metrics::PAGE;

/// Where pods are reviewed whose namespace asks for sidecars, and those that ask by themselves. A review does not say
/// what labels a namespace has, and the webhook may not look.
pub const NAMESPACE_PATH: &str = "/inject/namespace";
/// The other.
pub const POD_PATH: &str = "/inject/pod";
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers.
struct Server {
    common: Common,
    certificate: Arc<ServingCertificate>,
    acceptor: TlsAcceptor,
    reviews: Semaphore,
    metrics: Metrics,
}

/// Where somebody comes in.
#[derive(Clone, Copy)]
enum Door {
    Reviews,
    Probes,
}

type Answer = Response<Full<Bytes>>;

/// Serves until `stop` is there, and lets what is under way end.
///
/// # Errors
/// When an address cannot be had.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let certificate = Arc::new(ServingCertificate::new(settings.certificate_folder));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    let config = config.with_cert_resolver(Arc::clone(&certificate) as _);
    let bind = async |address: SocketAddr| TcpListener::bind(address).await.with_context(|| address.to_string());
    let (reviews, probes) = (bind(settings.address).await?, bind(settings.status_address).await?);
    let addresses = (reviews.local_addr()?, probes.local_addr()?);
    tracing::info!(address = %addresses.0, status_address = %addresses.1, image = settings.common.image, "listening");
    let server = Arc::new(Server {
        common: settings.common,
        certificate,
        acceptor: TlsAcceptor::from(Arc::new(config)),
        reviews: Semaphore::new(REVIEWS),
        metrics: Metrics::new()?,
    });
    let (stopping, stopped) = watch::channel(false);
    let look = follow(Arc::clone(&server.certificate));
    let secured = accept(reviews, stopped.clone(), Arc::clone(&server), Door::Reviews);
    let probed = accept(probes, stopped, server, Door::Probes);
    let serving = async { tokio::join!(secured, probed) };
    tokio::pin!(serving, look, stop);
    tokio::select! {
        _ = &mut serving => {}
        () = &mut look => {}
        () = &mut stop => {
            tracing::info!("stopping");
            // A receiver that is gone has ended already.
            let _ = stopping.send(true);
            let _ = timeout(STOP_TIMEOUT, serving).await;
        }
    }
    Ok(())
}

/// Looks for another certificate for as long as the process runs.
async fn follow(certificate: Arc<ServingCertificate>) {
    let mut last = String::new();
    loop {
        let looking = Arc::clone(&certificate);
        let told = match spawn_blocking(move || looking.look()).await {
            Ok(Ok(None)) => String::new(),
            Ok(Ok(Some(not_after))) => {
                tracing::info!(not_after, "a certificate is in use");
                String::new()
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !told.is_empty() && told != last {
            tracing::warn!(error = told, "the certificate cannot be used; looking again");
        }
        last = told;
        sleep(CERTIFICATE_LOOK).await;
    }
}

/// Gives each connection to a task, a bounded number at once, until it is told to stop; then waits for them.
async fn accept(listener: TcpListener, mut stopped: watch::Receiver<bool>, server: Arc<Server>, door: Door) {
    let places = Arc::new(Semaphore::new(SERVED_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = async { (Arc::clone(&places).acquire_owned().await, listener.accept().await) } => accepted,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let (server, stopped) = (Arc::clone(&server), stopped.clone());
                tasks.spawn_local(async move {
                    match door {
                        Door::Reviews => {
                            match timeout(SERVED_HANDSHAKE_TIMEOUT, server.acceptor.accept(stream)).await {
                                Ok(Ok(stream)) => serve(stream, stopped, server, door).await,
                                Ok(Err(error)) => server.handshake_failed(&error),
                                Err(late) => server.handshake_failed(&late),
                            }
                        }
                        Door::Probes => serve(stream, stopped, server, door).await,
                    }
                    drop(place);
                });
            }
            (Err(_), _) => break,
            (_, Err(error)) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Answers the requests of one connection until it ends, or is asked to.
async fn serve<S>(stream: S, mut stopped: watch::Receiver<bool>, server: Arc<Server>, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = async |request| match door {
        Door::Reviews => server.review(request).await,
        Door::Probes => server.probe(&request),
    };
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(request).await));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SERVED_IDLE_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.wait_for(|stopped| *stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

impl Server {
    fn handshake_failed(&self, error: &dyn Display) {
        self.metrics.handshake_failed();
        tracing::debug!(%error, "a handshake failed");
    }

    async fn review(&self, request: Request<Incoming>) -> Answer {
        let begun = Instant::now();
        let (result, answer) = self.judge(request).await;
        self.metrics.review(result, begun.elapsed());
        answer
    }

    /// The answer to a review, and what it is counted as.
    async fn judge(&self, request: Request<Incoming>) -> (&'static str, Answer) {
        let is_asked = match (request.method(), request.uri().path()) {
            (&Method::POST, NAMESPACE_PATH) => true,
            (&Method::POST, POD_PATH) => false,
            _ => return ("not_found", plain(StatusCode::NOT_FOUND, "POST /inject/namespace or /inject/pod\n")),
        };
        let answered = timeout(REVIEW_TIMEOUT, async {
            // It is never closed; without it there is one bound less.
            let _place = self.reviews.acquire().await;
            let body = Limited::new(request.into_body(), REVIEW_BYTES).collect().await;
            match body {
                Ok(body) => self.answer(&body.to_bytes(), is_asked),
                Err(error) if error.is::<LengthLimitError>() => {
                    ("too_large", plain(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large\n"))
                }
                Err(_) => ("broken_off", plain(StatusCode::BAD_REQUEST, "the review broke off\n")),
            }
        });
        let late = || ("timeout", plain(StatusCode::REQUEST_TIMEOUT, "the review did not come in time\n"));
        answered.await.unwrap_or_else(|_| late())
    }

    fn answer(&self, body: &[u8], is_asked: bool) -> (&'static str, Answer) {
        match review::answer(body, is_asked, &self.common) {
            Ok((answer, told)) => {
                let review::Told { namespace, verdict, detail } = told;
                tracing::info!(namespace, verdict, detail, "reviewed a pod");
                let body = serde_json::to_vec(&answer).unwrap_or_default();
                let mut response = Response::new(Full::new(Bytes::from(body)));
                response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                (verdict, response)
            }
            Err(error) => ("unreadable", plain(StatusCode::BAD_REQUEST, format!("{error}\n"))),
        }
    }

    fn probe(&self, request: &Request<Incoming>) -> Answer {
        match request.uri().path() {
            "/livez" => plain(StatusCode::OK, "live\n"),
            "/readyz" if self.certificate.is_good(Timestamp::now().as_second()) => plain(StatusCode::OK, "ready\n"),
            "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: no valid certificate\n"),
            "/metrics" => match self.metrics.page(self.certificate.not_after()) {
                Ok(page) => prometheus(page),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => plain(StatusCode::NOT_FOUND, "try /livez /readyz /metrics\n"),
        }
    }
}

/// A page in Prometheus' text format.
fn prometheus(page: String) -> Answer {
    let mut response = plain(StatusCode::OK, page);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(PAGE));
    response
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
