//! Prints what the operator needs at the size of a cluster: time, requests, memory.
#![expect(clippy::print_stdout, reason = "a program whose result is what it prints")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use postern_tests::apiserver::ApiServer;
use postern_tests::scale::{Sizes, run};

/// What the operator is made for.
const SIZES: Sizes =
    Sizes { namespaces: 10, workloads: 200, pods: 1000, identities: 2000, changes: 100, serves_all: true };
/// Aims, printed beside the figures: they depend on the machine, so they fail nothing.
const AIMS: &str = "aims: one change p50 1 s, p99 3 s; memory under 60 MB";

fn main() -> Result<()> {
    let operator = std::env::args_os().nth(1).map(PathBuf::from).context("usage: postern-scale OPERATOR [PAGE]")?;
    let page = std::env::args_os().nth(2).map(PathBuf::from);
    let server = ApiServer::start()?;
    let Sizes { namespaces, workloads, pods, identities, changes, serves_all: _ } = SIZES;
    println!("{workloads} workloads, {pods} pods, {identities} ClientIdentities in {namespaces} namespaces");
    let figures = run(&server, &operator, &SIZES)?;
    println!("cold start to all routes Programmed  {:>8.1} s", figures.programmed.as_secs_f64());
    println!("cold start to all clients Issued     {:>8.1} s", figures.issued.as_secs_f64());
    println!("certificates issued in a second      {:>8.1}", figures.leaves_a_second());
    println!("requests to the API server until then{:>8.0}", figures.cold_requests);
    println!("processor time until then            {:>8.1} s", figures.cpu_seconds);
    println!("one change, p50                      {:>8} ms   ({changes} changes)", figures.change(50).as_millis());
    println!("one change, p99                      {:>8} ms", figures.change(99).as_millis());
    println!("requests to the API server, a change {:>8.1}", figures.requests);
    println!("resident memory, settled             {:>8.1} MB", figures.memory / 1e6);
    println!(
        "resident memory, most                {:>8.1} MB",
        f64::from(u32::try_from(figures.peak_kib).unwrap_or(u32::MAX)) * 1024.0 / 1e6
    );
    println!("answers of pods                      {:>8}", figures.answers);
    println!("{AIMS}");
    page.map_or(Ok(()), |path| std::fs::write(path, figures.page).context("write the page"))
}
