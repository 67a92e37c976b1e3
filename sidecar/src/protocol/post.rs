//! One request of the gate's own, on a connection of its own.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Body;

/// Sends bytes, and waits for the head of the answer; what follows it is not read.
///
/// # Errors
/// When the connection breaks before.
pub async fn post(
    stream: TcpStream,
    target: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, HeaderMap), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut message = http::Request::new(Body::Bytes(body));
    *message.method_mut() = Method::POST;
    *message.uri_mut() = target;
    *message.headers_mut() = headers;
    let mut answer = pin!(sender.send_request(message));
    let answer = tokio::select! {
        answer = answer.as_mut() => answer,
        // It may have brought the answer with its last bytes.
        _ended = connection => answer.await,
    }?;
    let (head, _) = answer.into_parts();
    Ok((head.status, head.headers))
}
