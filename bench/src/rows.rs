//! What rows cost: the same gate without them, with them, and with them sent to PostgreSQL, in turns. Whether anybody waits
//! for them is in waits.rs.
#![expect(clippy::print_stdout, reason = "a run of minutes shows how far it is")]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postern_postgres::schema;
use postern_tests::ca::Authority;
use postern_tests::config::ConfigFolder;
use postern_tests::postgres::Postgres;
use serde_json::{Value, json};

use crate::figures::Spread;
use crate::full::Full;
use crate::load::{Connections, Exchange, TlsClient, Version};
use crate::measure::{Core, cpu, cpu_of_ended_threads, cpu_of_thread, on_core, yield_to_others};
use crate::peers::{Running, Scene, start_postern};
use crate::waits::Waits;

/// Connections that ask as fast as they can.
const CONNECTIONS: usize = 32;
/// Time for each sample of processor time: some segments are cut and compressed in it.
const WINDOW: Duration = Duration::from_secs(4);
/// Time before it, for caches, pools and branch predictors.
const WARM_UP: Duration = Duration::from_millis(500);

/// A gate that uses less than this within [`LOOK`] has nothing left to do.
const REST: Duration = Duration::from_millis(3);
const LOOK: Duration = Duration::from_millis(500);
/// The longest that it may take until all rows are packed and sent.
const PATIENCE: Duration = Duration::from_secs(180);

/// The log's threads, by the names that the kernel has of them. The one that compresses is there only while there is something
/// to compress: hardly another ever ends.
const THREADS: [(&str, Option<&str>); 4] = [
    ("writes", Some("log")),
    ("commits, folds, cuts", Some("sqlx-sqlite-wor")),
    ("compresses", None),
    ("sends", Some("log-ship")),
];

/// What becomes of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// Nothing is in a row but refusals, of which there are none here.
    None,
    /// In the gate's own log.
    Kept,
    /// Kept, and sent to PostgreSQL.
    Sent,
}

impl Rows {
    const ALL: [Self; 3] = [Self::None, Self::Kept, Self::Sent];

    fn name(self) -> &'static str {
        match self {
            Self::None => "no rows (`allowedRatio` 0)",
            Self::Kept => "rows",
            Self::Sent => "rows, sent to PostgreSQL",
        }
    }
}

/// Microseconds for each request.
#[derive(Clone, Debug, PartialEq)]
struct Cost {
    rows: Rows,
    all: f64,
    threads: [f64; THREADS.len()],
}

/// What is measured with.
pub struct RowsBench<'a> {
    scene: &'a Scene,
    server: Postgres,
    client: TlsClient,
    costs: Vec<Cost>,
    waits: Waits,
    full: Full,
}

impl<'a> RowsBench<'a> {
    /// Starts PostgreSQL.
    pub fn new(scene: &'a Scene) -> Result<Self> {
        let authority = Authority::new("Postern bench authority")?;
        let server = Postgres::start(&authority)?;
        yield_to_others(server.id().context("the server is not running")?)?;
        server.sql(&schema::text())?;
        server.sql("CREATE ROLE gate LOGIN PASSWORD 'bench' IN ROLE postern_writer")?;
        scene.write("postgres.pem", authority.root_pem())?;
        scene.write("password", "bench")?;
        Ok(Self {
            scene,
            server,
            client: TlsClient::new(scene, Exchange::Classical)?,
            costs: Vec::new(),
            waits: Waits::default(),
            full: Full::default(),
        })
    }

    /// One sample of each; every round begins with another.
    pub fn round(&mut self, round: usize) -> Result<()> {
        let mut costs = Rows::ALL;
        costs.rotate_left(round % Rows::ALL.len());
        for rows in costs {
            let cost = self.cost(rows)?;
            println!("  {:<42} {:>7.1} µs", rows.name(), cost.all);
            self.costs.push(cost);
        }
        self.waits.round(self.scene, &self.client)?;
        self.full.round(self.scene, &self.client)
    }

    fn cost(&self, rows: Rows) -> Result<Cost> {
        let gate = self.start(rows)?;
        let process = gate.process();
        let mut open = Connections::new(&self.client, Version::Http1, gate.address)?;
        open.open(CONNECTIONS)?;
        open.ask(1, WARM_UP)?;
        wait_for_rest(process)?;
        let used = || -> Result<(Duration, [Duration; THREADS.len()])> {
            let mut threads = [Duration::ZERO; THREADS.len()];
            let ended = cpu_of_ended_threads(process)?;
            for (used, (_, name)) in threads.iter_mut().zip(THREADS) {
                *used = name.map_or(Ok(ended), |name| cpu_of_thread(process, name))?;
            }
            Ok((cpu(process)? + ended, threads))
        };
        let before = used()?;
        let count = open.ask(1, WINDOW)?;
        // What is still to be packed and sent is part of it.
        wait_for_rest(process)?;
        let after = used()?;
        let each = |from: Duration, to: Duration| microseconds_each(to.saturating_sub(from), count);
        let threads = std::array::from_fn(|thread| each(before.1[thread], after.1[thread]));
        Ok(Cost { rows, all: each(before.0, after.0), threads })
    }

    fn start(&self, rows: Rows) -> Result<Running> {
        let file = |name: &str| self.scene.path().join(name);
        let sent = |url: String| json!({ "url": url, "passwordFile": file("password"), "caFile": file("postgres.pem"), "batchRows": 500 });
        let change = |settings: &mut Value| {
            let log = &mut settings["log"];
            match rows {
                Rows::None => log["allowedRatio"] = json!(0),
                Rows::Kept => {}
                Rows::Sent => log["postgres"] = sent(self.server.url("gate")),
            }
        };
        let folder = ConfigFolder::new()?;
        on_core(Core::Proxy, || start_postern(self.scene, folder, change))
    }

    /// Writes the page.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.page()?;
        println!("{text}");
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    fn page(&self) -> Result<String> {
        let rounds = self.costs.len() / Rows::ALL.len();
        let mut text = format!(
            "# What rows cost\n\n{NOTES}\nOf {rounds} rounds the median, and in brackets least and most.\n\n| a request | µs | of it: {} |\n|---|--:|{}\n",
            THREADS.map(|(name, _)| name).join(" | "),
            "--:|".repeat(THREADS.len())
        );
        for rows in Rows::ALL {
            let of = |value: &dyn Fn(&Cost) -> f64| {
                spread(self.costs.iter().filter(|cost| cost.rows == rows).map(value).collect())
            };
            let threads: Result<Vec<_>> = (0..THREADS.len()).map(|thread| of(&|cost| cost.threads[thread])).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} | {} | {} |", rows.name(), of(&|cost| cost.all)?, threads?.join(" | "));
        }
        let of = |rows: Rows| self.costs.iter().filter(move |cost| cost.rows == rows).map(|cost| cost.all);
        for rows in [Rows::Kept, Rows::Sent] {
            let more = of(rows).zip(of(Rows::None)).map(|(with, without)| with - without).collect();
            let share = of(rows).zip(of(Rows::None)).map(|(with, without)| (with / without - 1.0) * 100.0).collect();
            let _ =
                writeln!(text, "\n{}: {} µs more than without, {} % more.", rows.name(), spread(more)?, spread(share)?);
        }
        text.push_str(&self.waits.page());
        text.push_str(&self.full.page());
        Ok(text)
    }
}

/// How it was measured.
const NOTES: &str = include_str!("rows.md");

fn spread(values: Vec<f64>) -> Result<String> {
    let Spread { median, min, max } = Spread::of(values).context("nothing was measured")?;
    Ok(format!("{median:.2} ({min:.2} to {max:.2})"))
}

fn wait_for_rest(process: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        let before = cpu(process)?;
        sleep(LOOK);
        if cpu(process)?.saturating_sub(before) < REST {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the gate does not come to rest");
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of seconds are far below 2^52")]
fn microseconds_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}
