//! One check of one endpoint, on a connection of its own, which counts in no limit of traffic.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Uri};
use http_body::Body as _;
use rustix::io::Errno;
use sidecar_config::health::{HealthCheck, HttpCheck};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::HEALTH_BODY_BYTES;
use crate::protocol::{self, Body, Head, Inbound, NotSent, Outgoing};
use crate::upstream::{EndpointState, Transport};

/// Why an endpoint is not well.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No connection.
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    /// No answer, or none by HTTP.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Another status than it should have.
    #[error("status {0}")]
    Status(u16),
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

/// Asks an endpoint whether it is well.
///
/// # Errors
/// Why it is not.
pub async fn probe(endpoint: &EndpointState, check: &HealthCheck) -> Result<(), ProbeError> {
    let time = check.timeout.as_std();
    let asking = async {
        let stream = TcpStream::connect(endpoint.address()).await.map_err(ProbeError::connect)?;
        match &check.http {
            Some(http) => ask_http(stream, endpoint, http).await,
            None => Ok(()),
        }
    };
    timeout(time, asking).await.unwrap_or(Err(ProbeError::Timeout(time)))
}

async fn ask_http(stream: TcpStream, endpoint: &EndpointState, check: &HttpCheck) -> Result<(), ProbeError> {
    let head = head(endpoint, check)?;
    let no_answer = |error: &dyn ToString| ProbeError::NoAnswer(error.to_string());
    let mut connection =
        protocol::connect(Transport::Plain(stream), endpoint.version()).await.map_err(|error| no_answer(&error))?;
    let received = connection.send(Outgoing { head, body: Body::EMPTY }).await.map_err(|error| match error {
        NotSent::Unsent(_) => no_answer(&"the connection ended"),
        NotSent::Refused => no_answer(&"the request was refused unread"),
        NotSent::Broken { error, .. } => no_answer(&error),
    })?;
    let status = received.status.as_u16();
    if !check.expected_statuses.contains(&status) {
        return Err(ProbeError::Status(status));
    }
    read_to_end(received.body).await;
    Ok(())
}

fn head(endpoint: &EndpointState, check: &HttpCheck) -> Result<Head, ProbeError> {
    let own = |error: &dyn ToString| ProbeError::Own(error.to_string());
    let host = check.host.clone().unwrap_or_else(|| endpoint.address().to_string());
    let target = check.path.parse::<Uri>().map_err(|error| own(&error))?;
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(HOST, HeaderValue::try_from(host).map_err(|error| own(&error))?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("postern-health/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(Head { method: Method::GET, target, headers })
}

/// Its status has said all; a page that is not read to its end is an error in some application's log.
async fn read_to_end(mut body: Inbound) {
    let mut left = HEALTH_BODY_BYTES;
    while left > 0 {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => left = left.saturating_sub(frame.data_ref().map_or(1, |data| data.len().max(1))),
            Some(Err(_)) | None => return,
        }
    }
}
