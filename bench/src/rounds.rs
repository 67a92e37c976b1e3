//! One round: every figure of both proxies, in turns.
#![expect(clippy::print_stdout, reason = "a run of minutes shows how far it is")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postern_tests::wait::{PATIENCE, eventually};

use crate::figures::{Figure, Figures};
use crate::load::{Connections, Exchange, Foreign, Handshake, TlsClient, Version};
use crate::measure::{cpu, open_files, resident_kib};
use crate::peers::{Peer, Running, Scene};

/// Time for each figure of processor time.
const WINDOW: Duration = Duration::from_secs(2);
/// Time before it, for caches, pools and branch predictors.
const WARM_UP: Duration = Duration::from_millis(300);

/// Connections that send requests: HTTP/1.1 one at a time, HTTP/2 some.
const HTTP1_CONNECTIONS: usize = 32;
const HTTP2_CONNECTIONS: usize = 8;
const HTTP2_STREAMS: usize = 8;
/// Requests of the other client: about as many as ours sends in its window.
const FOREIGN_REQUESTS: u64 = 30_000;

/// Idle connections at first.
const IDLE: usize = 1000;
/// Time after the last event before memory is read: what runs at intervals of seconds has run.
const REST: Duration = Duration::from_secs(3);
/// Files beyond those of before that say that not all connections are closed: a proxy keeps some to the application.
const FILES_MARGIN: usize = 100;

/// What rounds are made with.
pub struct Rounds<'a> {
    scene: &'a Scene,
    classical: TlsClient,
    post_quantum: TlsClient,
    foreign: Foreign,
    many: usize,
}

impl<'a> Rounds<'a> {
    /// Prepares the clients.
    pub fn new(scene: &'a Scene, many: usize) -> Result<Self> {
        Ok(Self {
            scene,
            classical: TlsClient::new(scene, Exchange::Classical)?,
            post_quantum: TlsClient::new(scene, Exchange::PostQuantum)?,
            foreign: Foreign::new(scene)?,
            many,
        })
    }

    /// Processor time. Every figure is taken from one proxy, then from the other, and the next round in the other order.
    pub fn cpu(&self, round: usize, figures: &mut Figures) -> Result<()> {
        let peers = in_turn(round);
        let running = [peers[0].start(self.scene)?, peers[1].start(self.scene)?];
        for figure in Figure::ALL {
            for (peer, running) in peers.into_iter().zip(&running) {
                if let Some(value) = self.cpu_of(figure, running)? {
                    println!("  {:<42} {:<8} {value:>7.1} {}", figure.name(self.many), peer.name(), figure.unit());
                    figures.add(figure, peer, value);
                }
            }
        }
        Ok(())
    }

    fn cpu_of(&self, figure: Figure, running: &Running) -> Result<Option<f64>> {
        let value = match figure {
            Figure::Http1 => self.requests(running, Version::Http1, HTTP1_CONNECTIONS, 1)?,
            Figure::Http2 => self.requests(running, Version::Http2, HTTP2_CONNECTIONS, HTTP2_STREAMS)?,
            Figure::Http1Foreign => {
                let ask = |requests| self.foreign.ask(running.address, HTTP1_CONNECTIONS, requests);
                ask(FOREIGN_REQUESTS / 10)?;
                microseconds_each(running, || ask(FOREIGN_REQUESTS).map(|()| FOREIGN_REQUESTS))?
            }
            Figure::Full => self.connections(running, Handshake::Full, &self.classical)?,
            Figure::PostQuantum => self.connections(running, Handshake::Full, &self.post_quantum)?,
            Figure::Resumed => self.connections(running, Handshake::Resumed, &self.classical)?,
            Figure::Idle | Figure::IdleMany | Figure::Kept => return Ok(None),
        };
        Ok(Some(value))
    }

    fn requests(&self, running: &Running, version: Version, connections: usize, streams: usize) -> Result<f64> {
        let mut open = Connections::new(&self.classical, version, running.address)?;
        open.open(connections)?;
        open.ask(streams, WARM_UP)?;
        microseconds_each(running, || open.ask(streams, WINDOW))
    }

    fn connections(&self, running: &Running, handshake: Handshake, client: &TlsClient) -> Result<f64> {
        handshake.repeat(client, running.address, WARM_UP)?;
        microseconds_each(running, || handshake.repeat(client, running.address, WINDOW))
    }

    /// Memory of processes that were started for it.
    pub fn memory(&self, round: usize, figures: &mut Figures) -> Result<()> {
        for peer in in_turn(round) {
            let running = peer.start(self.scene)?;
            let process = running.process();
            // What the first connection brings along for good is no connection's.
            let mut open = Connections::new(&self.classical, Version::Http1, running.address)?;
            open.open(1)?;
            std::thread::sleep(REST);
            let (before, files) = (resident_kib(process)?, open_files(process)?);
            let mut add = |figure: Figure, connections: usize| -> Result<()> {
                let value = kib_each(before, resident_kib(process)?, connections);
                println!("  {:<42} {:<8} {value:>7.1} KiB", figure.name(self.many), peer.name());
                figures.add(figure, peer, value);
                Ok(())
            };
            for (figure, connections) in [(Figure::Idle, IDLE), (Figure::IdleMany, self.many)] {
                open.open(connections)?;
                std::thread::sleep(REST);
                ensure!(open_files(process)? >= connections, "{} does not hold all connections", peer.name());
                add(figure, connections)?;
            }
            drop(open);
            eventually("all connections to be closed", PATIENCE, || {
                Ok((open_files(process)? < files + FILES_MARGIN).then_some(()))
            })?;
            std::thread::sleep(REST);
            add(Figure::Kept, self.many)?;
        }
        Ok(())
    }
}

/// Who begins changes from round to round.
fn in_turn(round: usize) -> [Peer; 2] {
    if round.is_multiple_of(2) { [Peer::Haproxy, Peer::Postern] } else { [Peer::Postern, Peer::Haproxy] }
}

/// Processor time of the proxy for each of what `work` did.
fn microseconds_each(running: &Running, work: impl FnOnce() -> Result<u64>) -> Result<f64> {
    let (process, begun) = (running.process(), Instant::now());
    let before = cpu(process)?;
    let count = work()?;
    let used = cpu(process)?.saturating_sub(before);
    ensure!(count > 0, "nothing was done within {:?}", begun.elapsed());
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
    Ok(used.as_secs_f64() * 1e6 / count as f64)
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a process and counts of connections are far below 2^52")]
fn kib_each(before_kib: u64, now_kib: u64, connections: usize) -> f64 {
    now_kib.saturating_sub(before_kib) as f64 / connections as f64
}
