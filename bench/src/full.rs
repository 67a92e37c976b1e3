//! A gate at its limit whose store is full, while PostgreSQL hangs: its log has most to do then, and least time for it. Rows
//! that find no place in its queue are counted.
#![expect(clippy::print_stdout, reason = "a run of minutes shows how far it is")]

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
use postern_tests::config::ConfigFolder;
use serde_json::json;

use crate::load::{Connections, TlsClient, Version};
use crate::measure::{Core, on_core};
use crate::peers::{Scene, start_postern};

/// Connections that ask as fast as they can.
const CONNECTIONS: usize = 32;

/// A store that is full after [`FILL`], compressed as it is.
const SIZE: &str = "16Mi";
const FILL: Duration = Duration::from_secs(14);

/// How long it is watched then.
const WINDOW: Duration = Duration::from_secs(10);

/// What one round found, before the store was full and then.
struct Found {
    requests: [u64; 2],
    dropped: [u64; 2],
}

/// All rounds.
#[derive(Default)]
pub struct Full {
    rounds: Vec<Found>,
}

impl Full {
    /// One run of a gate that is started for it.
    pub fn round(&mut self, scene: &Scene, client: &TlsClient) -> Result<()> {
        // It takes connections, and nobody ever answers on them.
        let server = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("postgres://gate@{}/postgres", server.local_addr()?);
        let folder = ConfigFolder::new()?;
        let gate = on_core(Core::Proxy, || {
            start_postern(scene, folder, |settings| {
                settings["log"]["maxSize"] = json!(SIZE);
                settings["log"]["postgres"] = json!({ "url": url, "caFile": scene.path().join("postgres.pem") });
            })
        })?;
        let mut open = Connections::new(client, Version::Http1, gate.address)?;
        open.open(CONNECTIONS)?;
        let (mut requests, mut dropped) = ([0; 2], [0; 2]);
        let mut before = 0;
        for (place, time) in [FILL, WINDOW].into_iter().enumerate() {
            requests[place] = open.ask(1, time)?;
            let all = gate.dropped()?;
            dropped[place] = all - before;
            before = all;
        }
        println!("  at its limit, its store full: {requests:?} requests, {dropped:?} rows dropped");
        self.rounds.push(Found { requests, dropped });
        Ok(())
    }

    /// The part of the page.
    pub fn page(&self) -> String {
        let sum = |of: &dyn Fn(&Found) -> u64| self.rounds.iter().map(of).sum::<u64>();
        let mut text = String::from("\n| at its limit, PostgreSQL hangs | requests | rows dropped |\n|---|--:|--:|\n");
        for (place, name) in ["until the store is full", "the store is full"].into_iter().enumerate() {
            let (requests, dropped) = (sum(&|found| found.requests[place]), sum(&|found| found.dropped[place]));
            text.push_str(&format!("| {name} | {requests} | {dropped} |\n"));
        }
        text
    }
}
