//! Connections that take no further request, though they are open.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::upstream::Transport;

/// Far more than both ends' buffers, so that most of it stays where it is.
const BODY_BYTES: usize = 200 << 10;

fn post() -> Outgoing {
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("app"))]);
    let head = Head { method: Method::POST, target: Uri::from_static("/"), headers };
    Outgoing { head, body: Body::Bytes(Bytes::from(vec![b'x'; BODY_BYTES])) }
}

/// Both ends of a connection with little room between them.
async fn narrow() -> (TcpStream, TcpStream) {
    let listening = TcpSocket::new_v4().unwrap();
    listening.set_recv_buffer_size(4096).unwrap();
    listening.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = listening.listen(1).unwrap();
    let connecting = TcpSocket::new_v4().unwrap();
    connecting.set_send_buffer_size(4096).unwrap();
    let client = connecting.connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// An upstream that answers early and never takes the rest of the request: the next one is not sent there, and soon
/// goes elsewhere.
#[tokio::test]
async fn a_connection_that_does_not_become_ready_takes_nothing_more() {
    LocalSet::new()
        .run_until(async {
            let (client, mut server) = narrow().await;
            let mut upstream = connect(Transport::Plain(client), Version::Http1, &Rc::default()).await.unwrap();
            let answering = async {
                server.read_exact(&mut [0; 64]).await.unwrap();
                server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            };
            let mut request = post();
            let (received, ()) = tokio::join!(upstream.send(&mut request), answering);
            assert!(received.is_ok_and(|received| received.status == StatusCode::OK && received.body.is_end_stream()));
            assert!(!upstream.is_ready() && !upstream.is_closed());
            let begun = Instant::now();
            let mut request = post();
            let sent = timeout(100 * UPSTREAM_READY_TIME, upstream.send(&mut request)).await.unwrap();
            assert!(matches!(sent, Err(NotSent::Unsent)) && request.head.method == Method::POST);
            assert!(begun.elapsed() >= UPSTREAM_READY_TIME);
        })
        .await;
}
