//! One check of one endpoint, on a connection of its own, which counts in no limit of traffic.

use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body::Body as _;
use rustix::io::Errno;
use sidecar_config::health::{GrpcCheck, HealthCheck, HttpCheck};
use sidecar_config::probe::{HttpProbe, Probe};
use sidecar_decide::Reason;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::grpc;
use crate::limits::HEALTH_BODY_BYTES;
use crate::protocol::{self, Body, BodyError, Head, Inbound, NotSent, Outgoing, Received, Upstream, Version};
use crate::tls::{self, UpstreamTls};
use crate::upstream::{EndpointState, Transport};

/// The method of gRPC's health service.
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";
const GRPC_STATUS: &str = "grpc-status";

/// Why an endpoint is not well.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No connection.
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    /// No TLS with whoever answers.
    #[error("TLS: {0}")]
    Tls(Reason),
    /// No answer, or none by HTTP.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Another status than it should have.
    #[error("status {0}")]
    Status(u16),
    /// Its health service does not say that it serves.
    #[error("gRPC: {0}")]
    Grpc(String),
    /// Nothing in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// What a check cannot be made without, of which the endpoint knows nothing.
    #[error("no check: {0}")]
    Own(String),
}

impl ProbeError {
    /// Whether it says anything of the endpoint.
    pub fn is_its_fault(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    fn connect(error: io::Error) -> Self {
        let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        match Errno::from_io_error(&error) {
            Some(errno) if own.contains(&errno) => Self::Own(error.to_string()),
            _ => Self::Connect(error),
        }
    }
}

/// Asks an endpoint whether it is well, over TLS where requests go over it.
///
/// # Errors
/// Why it is not.
pub async fn probe(endpoint: &EndpointState, tls: Option<&UpstreamTls>, check: &HealthCheck) -> Result<(), ProbeError> {
    let time = check.timeout.as_std();
    let asking = async {
        let stream = connect(endpoint, tls).await?;
        match (&check.http, &check.grpc) {
            (Some(http), _) => ask_http(stream, endpoint, http).await,
            (None, Some(grpc)) => ask_grpc(stream, &endpoint.address().to_string(), grpc).await,
            (None, None) => Ok(()),
        }
    };
    timeout(time, asking).await.unwrap_or(Err(ProbeError::Timeout(time)))
}

async fn connect(endpoint: &EndpointState, tls: Option<&UpstreamTls>) -> Result<Transport, ProbeError> {
    let no_tls = || ProbeError::Own("the gate has no certificate to show".to_owned());
    // Before a connection is made, so that nobody sees one that ends in silence.
    let tls = if endpoint.is_secured() { Some(tls.ok_or_else(no_tls)?) } else { None };
    let stream = TcpStream::connect(endpoint.address()).await.map_err(ProbeError::connect)?;
    let Some(tls) = tls else { return Ok(Transport::Plain(stream)) };
    let (stream, _secured) = tls.connect(stream).await.map_err(ProbeError::Tls)?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// Makes a probe of the application in the same pod, as the kubelet would if it could reach it.
///
/// # Errors
/// Why it has not passed.
pub async fn probe_application(probe: &Probe) -> Result<(), ProbeError> {
    let time = probe.timeout.as_std();
    let asking = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, probe.port)).await.map_err(ProbeError::connect)?;
        let authority = format!("localhost:{}", probe.port);
        let stream = if probe.http.as_ref().is_some_and(|http| http.tls) {
            let secured = tls::blind::connect(stream).await;
            Transport::Tls(Box::new(secured.map_err(|error| ProbeError::NoAnswer(format!("TLS: {error}")))?))
        } else {
            Transport::Plain(stream)
        };
        match (&probe.http, &probe.grpc) {
            (Some(http), _) => ask_page(stream, &authority, http).await,
            (None, Some(grpc)) => ask_grpc(stream, &authority, grpc).await,
            (None, None) => Ok(()),
        }
    };
    timeout(time, asking).await.unwrap_or(Err(ProbeError::Timeout(time)))
}

async fn ask_page(stream: Transport, authority: &str, probe: &HttpProbe) -> Result<(), ProbeError> {
    let own = |error: &dyn ToString| ProbeError::Own(error.to_string());
    let mut head = head(Method::GET, &probe.path, authority)?;
    for field in &probe.headers {
        let name = HeaderName::try_from(field.name.as_str()).map_err(|error| own(&error))?;
        head.headers.insert(name, HeaderValue::try_from(field.value.as_str()).map_err(|error| own(&error))?);
    }
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let (received, _connection) = exchange(stream, Version::Http1, Outgoing { head, body: Body::EMPTY }).await?;
    if !(200..400).contains(&received.status.as_u16()) {
        return Err(ProbeError::Status(received.status.as_u16()));
    }
    let _ignored = read(received.body).await;
    Ok(())
}

async fn ask_http(stream: Transport, endpoint: &EndpointState, check: &HttpCheck) -> Result<(), ProbeError> {
    let version = endpoint.version();
    let authority = check.host.clone().unwrap_or_else(|| endpoint.address().to_string());
    let mut head = head(Method::GET, &check.path, &authority)?;
    if version == Version::Http1 {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let (received, _connection) = exchange(stream, version, Outgoing { head, body: Body::EMPTY }).await?;
    let status = received.status.as_u16();
    if !check.expected_statuses.contains(&status) {
        return Err(ProbeError::Status(status));
    }
    // Its status has said all; a page that is not read to its end is an error in some application's log.
    let _ignored = read(received.body).await;
    Ok(())
}

/// Asks gRPC's health service. The status of the call is in the trailers, or in the head where there is nothing else.
async fn ask_grpc(stream: Transport, authority: &str, check: &GrpcCheck) -> Result<(), ProbeError> {
    let mut head = head(Method::POST, GRPC_CHECK, authority)?;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(TE, HeaderValue::from_static("trailers"));
    let body = Body::Bytes(grpc::request(&check.service));
    let (received, _connection) = exchange(stream, Version::Http2, Outgoing { head, body }).await?;
    if received.status != StatusCode::OK {
        return Err(ProbeError::Status(received.status.as_u16()));
    }
    let (message, trailers) = read(received.body).await.map_err(|error| ProbeError::NoAnswer(error.to_string()))?;
    let status = trailers.get(GRPC_STATUS).or_else(|| received.headers.get(GRPC_STATUS));
    let status = status.and_then(|status| status.to_str().ok()).unwrap_or("missing");
    if status != "0" {
        return Err(ProbeError::Grpc(format!("grpc-status {status}")));
    }
    match grpc::is_serving(&message) {
        Some(true) => Ok(()),
        Some(false) => Err(ProbeError::Grpc("not serving".to_owned())),
        None => Err(ProbeError::Grpc("malformed answer".to_owned())),
    }
}

/// One request on a connection, which the response needs until it is read.
async fn exchange(
    stream: Transport,
    version: Version,
    mut request: Outgoing,
) -> Result<(Received, Upstream), ProbeError> {
    let no_answer = |error: &dyn ToString| ProbeError::NoAnswer(error.to_string());
    let mut connection = protocol::connect(stream, version, &Rc::default()).await.map_err(|error| no_answer(&error))?;
    let received = connection.send(&mut request).await.map_err(|error| match error {
        NotSent::Unsent => no_answer(&"the connection ended"),
        NotSent::Refused => no_answer(&"the request was refused unread"),
        NotSent::Broken { error, .. } => no_answer(&error),
    })?;
    Ok((received, connection))
}

fn head(method: Method, path: &str, host: &str) -> Result<Head, ProbeError> {
    let own = |error: &dyn ToString| ProbeError::Own(error.to_string());
    let target = path.parse::<Uri>().map_err(|error| own(&error))?;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(HOST, HeaderValue::try_from(host).map_err(|error| own(&error))?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern-health/", env!("CARGO_PKG_VERSION"))));
    Ok(Head { method, target, headers })
}

/// A body up to what is read of one, and its trailers.
async fn read(mut body: Inbound) -> Result<(Vec<u8>, HeaderMap), BodyError> {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while bytes.len() < HEALTH_BODY_BYTES {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((bytes, trailers))
}
