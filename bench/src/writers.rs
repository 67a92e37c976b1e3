//! Many gates that send their rows to one Postgres: how fast they come in, what that costs on both sides, and how many
//! connections it takes. `make bench-log-writers` runs it.
#![expect(clippy::print_stdout, reason = "a run of minutes shows how far it is")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postern_postgres::schema;
use postern_tests::ca::Authority;
use postern_tests::config::ConfigFolder;
use postern_tests::postgres::Postgres;
use serde_json::json;

use crate::load::{Connections, Exchange, TlsClient, Version};
use crate::measure::{cpu, cpu_of_ended_threads, cpu_of_thread, cpu_of_tree};
use crate::peers::{Application, Running, Scene, start_postern};

/// Gates, where nobody asks for another number: what one Postgres is to bear.
pub const GATES: usize = 200;
/// Connections that the server takes beyond one for each gate: for who looks on.
const CONNECTIONS_BEYOND: usize = 20;
/// Connections of clients to each gate.
const CLIENTS: usize = 4;
/// For how long each gate is asked while there is no Postgres.
const FILL: Duration = Duration::from_millis(150);
/// For how long they are asked a little, in turn, while there is one.
const STEADY: Duration = Duration::from_secs(30);
/// How long each is asked in a turn then.
const TURN: Duration = Duration::from_millis(4);
/// Between two looks at the server.
const LOOK: Duration = Duration::from_millis(200);
/// The longest that rows may take until all of them are there.
const PATIENCE: Duration = Duration::from_secs(600);
/// The thread of a gate that sends rows.
const SENDS: &str = "log-ship";

/// What one phase came to.
#[derive(Clone, Copy, Debug)]
struct Phase {
    rows: u64,
    took: Duration,
    /// Processor time of all gates.
    gates: Duration,
    /// Processor time of the server.
    server: Duration,
    most_connections: u64,
}

/// Whose processor time of a gate is counted.
#[derive(Clone, Copy, Debug)]
enum Gates {
    /// All threads': they have nothing else to do.
    Whole,
    /// That of the thread that sends.
    Sending,
}

/// The server, and the gates that know it once a file says where it is.
struct Crowd {
    server: Postgres,
    gates: Vec<(Running, Connections)>,
    url_file: PathBuf,
    client: TlsClient,
    // Last, because its folder is everybody's.
    _scene: Scene,
}

/// Runs it and writes `result`.
pub fn run(sidecar: PathBuf, result: &Path, gates: usize) -> Result<()> {
    let application = Application::start()?;
    let mut crowd = Crowd::start(Scene::new(application.address(), sidecar, CLIENTS + 1)?, gates)?;
    println!("{gates} gates are there");
    let asked = crowd.open()? + crowd.ask(FILL)?;
    println!("{asked} rows wait in their logs");
    fs::write(&crowd.url_file, crowd.server.url("gate"))?;
    let backlog = crowd.measure(Gates::Whole, |_| Ok(asked))?;
    crowd.wait_for_idle()?;
    let steady = crowd.measure(Gates::Sending, |crowd| {
        let mut asked = crowd.open()?;
        let until = Instant::now() + STEADY;
        while Instant::now() < until {
            asked += crowd.ask(TURN)?;
        }
        Ok(asked)
    })?;
    crowd.wait_for_idle()?;
    let text = page(gates, &[("all at once, a backlog", backlog), ("as rows come", steady)]);
    print!("{text}");
    fs::write(result, text).with_context(|| format!("write {}", result.display()))
}

impl Crowd {
    fn start(scene: Scene, gates: usize) -> Result<Self> {
        let authority = Authority::new("Postern bench authority")?;
        let mut server = Postgres::start(&authority)?;
        server.sql(&format!("ALTER SYSTEM SET max_connections = {}", gates + CONNECTIONS_BEYOND))?;
        server.kill();
        server.resume()?;
        server.sql(&schema::text())?;
        server.sql("CREATE ROLE gate LOGIN PASSWORD 'bench' IN ROLE postern_writer")?;
        scene.write("postgres.pem", authority.root_pem())?;
        scene.write("password", "bench")?;
        let file = |name: &str| scene.path().join(name);
        let url_file = file("url");
        let client = TlsClient::new(&scene, Exchange::Classical)?;
        let gate = |number: usize| {
            let folder = ConfigFolder::new()?;
            let running = start_postern(&scene, folder, |settings| {
                settings["pod"] = json!({ "name": format!("gate-{number}"), "namespace": "bench", "workload": format!("gate-{}", number % 40) });
                settings["log"]["postgres"] = json!({
                    "urlFile": url_file, "passwordFile": file("password"), "caFile": file("postgres.pem"),
                });
            })?;
            let connections = Connections::new(&client, Version::Http1, running.address)?;
            Ok((running, connections))
        };
        let gates = (0..gates).map(gate).collect::<Result<_>>()?;
        Ok(Self { server, gates, url_file, client, _scene: scene })
    }

    /// Opens connections to each gate anew, which closes those that wait for long; one request on each.
    fn open(&mut self) -> Result<u64> {
        for (running, connections) in &mut self.gates {
            *connections = Connections::new(&self.client, Version::Http1, running.address)?;
            connections.open(CLIENTS)?;
        }
        Ok((self.gates.len() * CLIENTS) as u64)
    }

    /// Asks each gate for so long, one after the other; how many answers there were.
    fn ask(&mut self, duration: Duration) -> Result<u64> {
        self.gates.iter_mut().map(|(_, connections)| connections.ask(1, duration)).sum()
    }

    /// What it costs until all rows are there that `work` made.
    fn measure(&mut self, of: Gates, work: impl FnOnce(&mut Self) -> Result<u64>) -> Result<Phase> {
        let (begun, before) = (Instant::now(), (self.rows()?, self.cpu_of_gates(of)?, self.cpu_of_server()?));
        let rows = work(self)?;
        let mut most_connections = 0;
        loop {
            most_connections = self.connections()?.max(most_connections);
            let there = self.rows()? - before.0;
            if there >= rows {
                ensure!(there == rows, "{there} rows are there of {rows}");
                break;
            }
            ensure!(begun.elapsed() < PATIENCE, "{there} rows are there of {rows}");
            sleep(LOOK);
        }
        let (took, gates) = (begun.elapsed(), self.cpu_of_gates(of)? - before.1);
        Ok(Phase { rows, took, gates, server: self.cpu_of_server()? - before.2, most_connections })
    }

    /// Waits until every gate has closed its connection.
    fn wait_for_idle(&self) -> Result<()> {
        let begun = Instant::now();
        while self.connections()? > 0 {
            ensure!(begun.elapsed() < PATIENCE, "a connection stays open on which nothing is sent");
            sleep(LOOK);
        }
        println!("no connection is open {:.0} s later", begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn rows(&self) -> Result<u64> {
        // By the sums, which are exact, and take no look at each row.
        self.number("SELECT coalesce(sum(requests), 0) FROM postern.requests_per_minute")
    }

    fn connections(&self) -> Result<u64> {
        self.number("SELECT count(*) FROM pg_stat_activity WHERE usename = 'gate'")
    }

    fn number(&self, sql: &str) -> Result<u64> {
        Ok(self.server.sql(sql)?.parse()?)
    }

    fn cpu_of_gates(&self, of: Gates) -> Result<Duration> {
        let one = |process| match of {
            Gates::Whole => Ok(cpu(process)? + cpu_of_ended_threads(process)?),
            Gates::Sending => cpu_of_thread(process, SENDS),
        };
        self.gates.iter().map(|(running, _)| one(running.process())).sum()
    }

    fn cpu_of_server(&self) -> Result<Duration> {
        cpu_of_tree(self.server.id().context("the server is not running")?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
fn page(gates: usize, phases: &[(&str, Phase)]) -> String {
    let mut text = format!(
        "# {gates} gates and one PostgreSQL\n\n{NOTES}\n| phase | rows | a second | gates, ms for 1,000 | server, ms for 1,000 | connections at most |\n|---|--:|--:|--:|--:|--:|\n"
    );
    for (name, phase) in phases {
        let rows = phase.rows as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / rows;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {:.0} | {:.1} | {:.1} | {} |",
            phase.rows,
            rows / phase.took.as_secs_f64(),
            each(phase.gates),
            each(phase.server),
            phase.most_connections
        );
    }
    text
}

/// How it was measured.
const NOTES: &str = include_str!("writers.md");
