//! A gate whose configuration changes again and again while it is busy: no request fails, no stream breaks, and its memory
//! does not grow.

mod changes;
pub mod faults;
mod memory;
mod traffic;
mod tunnels;

use std::fmt;

use anyhow::{Result, ensure};

use self::changes::Scene;
use self::memory::Memory;
use self::traffic::{Tally, Traffic};
use crate::grpc::GrpcServer;
use crate::upstream::Upstream;
use crate::websocket::WebSocketServer;

/// What a soak came to.
#[derive(Debug)]
pub struct Report {
    /// Changes made, all of which took effect.
    pub reloads: usize,
    /// What each kind of client did.
    pub clients: Vec<(&'static str, Tally)>,
    /// The gate's own memory after each tenth of the changes.
    pub memory_kib: Vec<u64>,
    /// Bytes it grew by with each change of the second half.
    pub slope_bytes: f64,
}

/// Makes so many changes under load, each of another part in turn.
///
/// # Errors
/// When a change does not take effect, a request fails, a stream breaks, or a connection ends that nobody told to move.
pub fn run(reloads: usize) -> Result<Report> {
    let upstreams = [Upstream::start()?, Upstream::start()?];
    let websockets = WebSocketServer::start()?;
    let grpc = GrpcServer::start(None)?;
    let change = |document: &mut _| tunnels::pass_on(document, websockets.address(), grpc.address());
    let mut scene = Scene::start([upstreams[0].address(), upstreams[1].address()], change)?;
    let traffic = Traffic::start(&scene.gate)?;
    let mut memory = Memory::of(scene.gate.sidecar.id());
    for number in 0..reloads {
        scene.change(number)?;
        memory.sample()?;
    }
    let clients = traffic.finish()?;
    let failed = clients.iter().flat_map(|(name, tally)| tally.failed.iter().map(move |failed| (name, failed)));
    let failed: Vec<_> = failed.collect();
    ensure!(failed.is_empty(), "{} requests failed, such as {:?}", failed.len(), &failed[..failed.len().min(5)]);
    for (name, tally) in &clients {
        ensure!(tally.made > 0, "no request of {name} ended in all that time");
        // A connection that was told to move is followed by another; whoever makes more lost one. curl does not show the
        // GOAWAY of HTTP/2; a new certificate gives cause for one.
        let told = if name.contains("HTTP/2") { reloads.div_ceil(changes::KINDS) } else { tally.told };
        let lost = tally.connects - tally.runs;
        ensure!(lost <= told, "{name}: {lost} connections ended, and {told} were told to move");
    }
    scene.check_rows()?;
    // What is passed on as it is has one decision for each connection.
    let decisions =
        clients.iter().map(|(name, tally)| if name.starts_with("L4") { tally.connects } else { tally.made });
    scene.gate.sidecar.has_decided(decisions.sum::<usize>() as u64)?;
    Ok(Report { reloads, clients, memory_kib: memory.tenths(), slope_bytes: memory.slope_bytes() })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reloads                {:>8}", self.reloads)?;
        for (name, tally) in &self.clients {
            let Tally { made, connects, told, .. } = tally;
            writeln!(f, "{name:<22} {made:>8} requests, {connects} connections, {told} told to move, 0 failed")?;
        }
        let memory: Vec<_> = self.memory_kib.iter().map(ToString::to_string).collect();
        writeln!(f, "memory after tenths    {} KiB", memory.join(", "))?;
        write!(f, "slope                  {:>8.0} bytes for each reload of the second half", self.slope_bytes)
    }
}
