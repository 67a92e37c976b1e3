//! Connections that stay open: requests on them one after the other, or none at all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::alarm::Alarm;
use super::tls::{TlsClient, connect};

/// Handshakes at once while connections are opened.
const OPENED_AT_ONCE: usize = 16;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Open connections. Each has been asked once, so that the proxy has accepted its certificate.
pub struct Connections {
    // First, because a connection that outlives its runtime cannot be closed.
    senders: Vec<Sender>,
    runtime: Runtime,
    connector: TlsConnector,
    version: Version,
    address: SocketAddr,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connections {
    /// None yet.
    pub fn new(client: &TlsClient, version: Version, address: SocketAddr) -> Result<Self> {
        let protocol: &[u8] = if version == Version::Http1 { b"http/1.1" } else { b"h2" };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { senders: Vec::new(), runtime, connector: client.speaking(protocol).connector(), version, address })
    }

    /// Opens more until there are `count`.
    pub fn open(&mut self, count: usize) -> Result<()> {
        let mut missing = count.saturating_sub(self.senders.len());
        let (version, address) = (self.version, self.address);
        self.runtime.block_on(async {
            let mut opening = JoinSet::new();
            loop {
                while missing > 0 && opening.len() < OPENED_AT_ONCE {
                    opening.spawn(open_one(self.connector.clone(), version, address));
                    missing -= 1;
                }
                match opening.join_next().await {
                    Some(opened) => self.senders.push(opened??),
                    None => return Ok(()),
                }
            }
        })
    }

    /// Asks on all of them, `streams` requests at a time on each (one on HTTP/1.1), for this long; how many answers came.
    pub fn ask(&mut self, streams: usize, duration: Duration) -> Result<u64> {
        let until = Instant::now() + duration;
        self.runtime.block_on(async {
            let (mut asking, mut answers) = (JoinSet::new(), 0);
            let mut sharing = JoinSet::new();
            for sender in self.senders.drain(..) {
                if let Sender::Http2(sender) = &sender {
                    for _ in 1..streams {
                        sharing.spawn(ask_until(Sender::Http2(sender.clone()), until));
                    }
                }
                asking.spawn(ask_until(sender, until));
            }
            while let Some(asked) = asking.join_next().await {
                let (sender, count) = asked??;
                answers += count;
                self.senders.push(sender);
            }
            // Those that shared a connection are not kept: the next call would share each of theirs again.
            while let Some(asked) = sharing.join_next().await {
                answers += asked??.1;
            }
            Ok(answers)
        })
    }
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When it was time to ask.
    pub due: Instant,
    /// When all of it was there.
    pub came: Instant,
}

impl Connections {
    /// Asks once in every so long, each time on the next of them, however long answers take: a request that comes too late,
    /// for its connection still waits, is late by that as its answer tells.
    pub fn ask_on_time(&mut self, every: Duration, duration: Duration) -> Result<Vec<Answer>> {
        let begin = Instant::now();
        let until = begin + duration;
        let turn = every * u32::try_from(self.senders.len())?;
        self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for (place, mut sender) in (0..).zip(self.senders.drain(..)) {
                let (alarm, mut due) = (Alarm::new()?, begin + every * place);
                asking.spawn(async move {
                    let mut answers = Vec::new();
                    while due < until {
                        alarm.wait_until(due).await?;
                        sender.ask().await?;
                        answers.push(Answer { due, came: Instant::now() });
                        due += turn;
                    }
                    anyhow::Ok((sender, answers))
                });
            }
            let mut all = Vec::new();
            while let Some(asked) = asking.join_next().await {
                let (sender, answers) = asked??;
                all.extend(answers);
                self.senders.push(sender);
            }
            Ok(all)
        })
    }
}

async fn open_one(connector: TlsConnector, version: Version, address: SocketAddr) -> Result<Sender> {
    let stream = TokioIo::new(connect(&connector, address).await?);
    let mut sender = match version {
        Version::Http1 => {
            let (sender, connection) = http1::handshake(stream).await?;
            // How it ends is told to whoever asks on it.
            tokio::spawn(async move {
                let _ended = connection.await;
            });
            Sender::Http1(sender)
        }
        Version::Http2 => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(async move {
                let _ended = connection.await;
            });
            Sender::Http2(sender)
        }
    };
    sender.ask().await?;
    Ok(sender)
}

async fn ask_until(mut sender: Sender, until: Instant) -> Result<(Sender, u64)> {
    let mut answers = 0;
    while Instant::now() < until {
        sender.ask().await?;
        answers += 1;
    }
    Ok((sender, answers))
}

impl Sender {
    async fn ask(&mut self) -> Result<()> {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                let request = Request::get("/orders/17").header("host", "localhost").body(Empty::new())?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(Request::get("https://localhost/orders/17").body(Empty::new())?).await?
            }
        };
        ensure!(response.status() == StatusCode::OK, "the proxy answered {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    }
}
