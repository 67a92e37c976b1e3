//! Asks sidecars what they have loaded.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use sidecar_config::ContractVersion;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::index::Pod;
use crate::limits::{ASK_TIMEOUT, ASKS, STATUS_BYTES};

/// What a sidecar answers, as far as it is needed. What else it says is a newer sidecar's, and no reason not to listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Contract versions it reads.
    pub contract: Range,
    /// UID of its pod; nothing once it is known to be the one that was asked, so that answers of many pods are one.
    pub pod_uid: String,
    /// The parts, by name.
    pub parts: BTreeMap<String, PartAnswer>,
    /// Hash of every route that is served, by name.
    pub routes: BTreeMap<String, String>,
    /// Ports of backends at which the application can be reached around the gate; `None` while nobody can tell.
    #[serde(default)]
    pub exposed_ports: Option<Vec<u16>>,
    /// Version of the program; nothing of one that is older than this.
    #[serde(default)]
    pub version: Option<String>,
}

/// Contract versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// The newest.
    pub max: ContractVersion,
}

/// The state of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PartAnswer {
    /// Revision in use.
    pub loaded: String,
    /// Revision that was refused last.
    #[serde(default)]
    pub refused: Option<String>,
    /// Why.
    #[serde(default)]
    pub why: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AskError {
    /// The pod has no address.
    #[error("the pod has no address")]
    NoAddress,
    /// Nobody listens there, or something is in the way.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, String),
    /// No answer in time.
    #[error("no answer from {0} in time; a NetworkPolicy may keep the operator away from that port")]
    Timeout(SocketAddr),
    /// Not an answer of a sidecar.
    #[error("{0} answers {1}")]
    Unreadable(SocketAddr, String),
    /// The address is another pod's by now.
    #[error("{0} is another pod's address by now")]
    OtherPod(IpAddr),
}

/// Asks, a bounded number at once.
#[derive(Debug)]
pub struct Asker {
    port: u16,
    permits: Semaphore,
}

impl Asker {
    /// Asks at this port.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { port, permits: Semaphore::new(ASKS) }
    }

    /// Asks the sidecar of a pod.
    ///
    /// # Errors
    /// When there is no answer, or it is not this pod's.
    pub async fn ask(&self, pod: &Pod) -> Result<Answer, AskError> {
        // The semaphore is never closed; without it there is one bound less.
        let _permit = self.permits.acquire().await;
        let address = SocketAddr::new(pod.address.ok_or(AskError::NoAddress)?, self.port);
        let exchanged = timeout(ASK_TIMEOUT, exchange(address)).await.map_err(|_| AskError::Timeout(address))?;
        let mut answer: Answer = exchanged?;
        if std::mem::take(&mut answer.pod_uid) == pod.uid { Ok(answer) } else { Err(AskError::OtherPod(address.ip())) }
    }
}

async fn exchange(address: SocketAddr) -> Result<Answer, AskError> {
    let refused = |error: &dyn std::fmt::Display| AskError::Connect(address, error.to_string());
    let unreadable = |error: &dyn std::fmt::Display| AskError::Unreadable(address, error.to_string());
    let stream = TcpStream::connect(address).await.map_err(|error| refused(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| refused(&error))?;
    let request = Request::get("/status").header(header::HOST, address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| unreadable(&error))?;
    let exchanged = async {
        let response = sender.send_request(request).await.map_err(|error| unreadable(&error))?;
        if response.status() != StatusCode::OK {
            return Err(unreadable(&response.status()));
        }
        let body = Limited::new(response.into_body(), STATUS_BYTES).collect().await;
        let body = body.map_err(|error| unreadable(&error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| unreadable(&error))
    };
    // The connection is driven beside the exchange and ends with it: no task is left behind.
    tokio::pin!(exchanged, connection);
    tokio::select! {
        answer = &mut exchanged => answer,
        end = &mut connection => match end {
            Ok(()) => exchanged.await,
            Err(error) => Err(unreadable(&error)),
        },
    }
}

#[cfg(test)]
mod tests;
