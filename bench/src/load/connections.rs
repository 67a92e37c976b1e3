//! New connections: a handshake, one request, and the end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::tls::{TlsClient, connect};

/// Clients at once, each of which makes one connection after the other.
const CLIENTS: usize = 8;

const REQUEST: &[u8] = b"GET /orders/17 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// What every handshake of a measurement has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Both sides show their certificates and sign.
    Full,
    /// A session ticket stands for them.
    Resumed,
}

impl Handshake {
    /// Makes new connections to `address` for this long; how many there were. One handshake that is not as it should be
    /// fails the measurement: clients and servers resume without saying so.
    pub fn repeat(self, client: &TlsClient, address: SocketAddr, duration: Duration) -> Result<u64> {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let until = Instant::now() + duration;
            let mut clients = JoinSet::new();
            for _ in 0..CLIENTS {
                let client = if self == Self::Resumed { client.resuming() } else { client.clone() };
                clients.spawn(self.repeat_one(client.speaking(b"http/1.1").connector(), address, until));
            }
            let mut connections = 0;
            while let Some(made) = clients.join_next().await {
                connections += made??;
            }
            Ok(connections)
        })
    }

    async fn repeat_one(self, connector: TlsConnector, address: SocketAddr, until: Instant) -> Result<u64> {
        let mut connections = 0;
        while Instant::now() < until {
            let kind = one(&connector, address).await?;
            // The first has nothing to resume yet.
            let is_right = match self {
                Self::Full => kind == HandshakeKind::Full,
                Self::Resumed => kind == HandshakeKind::Resumed || connections == 0,
            };
            ensure!(is_right, "a handshake was {kind:?} and should have been {self:?}");
            connections += 1;
        }
        Ok(connections)
    }
}

async fn one(connector: &TlsConnector, address: SocketAddr) -> Result<HandshakeKind> {
    let mut stream = connect(connector, address).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "the proxy answered {}", String::from_utf8_lossy(&answer));
    stream.get_ref().1.handshake_kind().context("a finished handshake has a kind")
}
