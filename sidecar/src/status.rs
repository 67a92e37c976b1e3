//! Asks a running sidecar for its status.

use std::rc::Rc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::{Method, StatusCode, Uri};
use http_body::Body as _;
use sidecar_config::status::Status;

use crate::protocol::{Body, Head, Inbound, NotSent, Outgoing, Version, connect};
use crate::upstream::Transport;

/// Largest document that is read.
const DOCUMENT_MAX_BYTES: usize = 4 << 20;

/// The status document of the sidecar whose status port this is.
pub(crate) async fn ask(address: &str) -> Result<Status> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let mut connection = connect(Transport::Plain(stream), Version::Http1, &Rc::default()).await?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, address.parse()?);
    let head = Head { method: Method::GET, target: Uri::from_static("/status"), headers };
    let answer = match connection.send(&mut Outgoing { head, body: Body::EMPTY }).await {
        Ok(answer) => answer,
        Err(NotSent::Unsent | NotSent::Refused) => bail!("it closed the connection"),
        Err(NotSent::Broken { error, .. }) => return Err(error.into()),
    };
    if answer.status != StatusCode::OK {
        bail!("it answered {}", answer.status);
    }
    let document = gather(answer.body).await?;
    serde_json::from_slice(&document).context("its answer is not a status document")
}

async fn gather(mut body: Inbound) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(&frame?.into_data().unwrap_or_else(|_| Bytes::new()));
        if bytes.len() > DOCUMENT_MAX_BYTES {
            bail!("its answer is longer than {DOCUMENT_MAX_BYTES} bytes");
        }
    }
    Ok(bytes)
}
