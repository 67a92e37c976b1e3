//! The operator with a cluster's worth of objects on a real API server: how long it takes, what it asks for, what it needs.
//! Pods are simulated; what they answer is what real sidecars would (`loaded`).

mod crowd;
mod loaded;
mod objects;
mod seen;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use self::crowd::{Crowd, client};
use self::seen::Seen;
use crate::apiserver::{ApiServer, MASTERS};
use crate::clients::Curl;
use crate::together::{Program, Together};
use crate::wait::PATIENCE;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// How long things may take before the run fails.
const LIMIT: Duration = Duration::from_secs(420);
/// Before a change the operator has had nothing to do for so long.
const CALM: Duration = Duration::from_secs(4);

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Namespaces that the rest is spread over.
    pub namespaces: usize,
    /// Workloads, each with a Service and a route.
    pub workloads: usize,
    /// Pods.
    pub pods: usize,
    /// Clients with certificates.
    pub identities: usize,
    /// Changes of a route that are timed.
    pub changes: usize,
    /// Whether the operator serves all namespaces there are, as it does unless it is told otherwise.
    pub serves_all: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Figures {
    /// From the start of the operator to every route being loaded by all its pods.
    pub programmed: Duration,
    /// From there to every client having its certificate.
    pub issued: Duration,
    /// Certificates that were made, of clients and workloads.
    pub leaves: u64,
    /// From a change of a route to `Programmed` being true of it, in order.
    pub changes: Vec<Duration>,
    /// Requests to the API server for each change, without watches.
    pub requests: f64,
    /// Requests until everything was there.
    pub cold_requests: f64,
    /// Memory when everything is there, in bytes.
    pub memory: f64,
    /// Most memory that it ever had, in KiB.
    pub peak_kib: u64,
    /// Processor time until everything was there.
    pub cpu_seconds: f64,
    /// Answers of pods.
    pub answers: u64,
    /// The page of metrics at the end.
    pub page: String,
}

impl Figures {
    /// The time within which so many of a hundred changes were loaded.
    #[must_use]
    pub fn change(&self, share: usize) -> Duration {
        let index = (self.changes.len() * share).div_ceil(100).max(1) - 1;
        self.changes.get(index).copied().unwrap_or_default()
    }

    /// Certificates made in a second.
    #[must_use]
    pub fn leaves_a_second(&self) -> f64 {
        f64::from(u32::try_from(self.leaves).unwrap_or(u32::MAX)) / self.issued.as_secs_f64()
    }
}

/// Runs it, on an API server whose other namespaces are left alone.
///
/// # Errors
/// When something does not come in time, with what the operator said last.
pub fn run(server: &ApiServer, operator: &Path, sizes: &Sizes) -> Result<Figures> {
    let own = server.namespace("scale-operator")?;
    let namespaces: Vec<_> = (0..sizes.namespaces).map(|number| format!("{}-{number}", own.name)).collect();
    let all: BTreeSet<_> = namespaces.iter().cloned().collect();
    let kubeconfig = server.kubeconfig();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(client(&kubeconfig))?;
    let crowd = Crowd::start(&kubeconfig, &all)?;
    runtime.block_on(objects::make(&client, sizes, &namespaces))?;
    let seen = Seen::start(&runtime, &client, &all);
    let mut scene = Scene { runtime, client, crowd, seen, operator: None, sizes: *sizes, namespaces };
    scene.wait("the pods", |scene| scene.crowd.pods() == sizes.pods)?;
    let begun = Instant::now();
    let user = server.user(&own.name, MASTERS)?;
    scene.operator = Some(Running::start(operator, &user, &own.name, &scene.served())?);
    scene.wait("the routes", |scene| scene.seen.programmed() == sizes.workloads)?;
    let programmed = begun.elapsed();
    scene.wait("the clients", |scene| scene.seen.issued() == sizes.identities)?;
    let issued = begun.elapsed();
    scene.settle()?;
    let page = scene.running()?.page()?;
    let (cold_requests, cpu_seconds) = (requests(&page), series(&page, "process_cpu_seconds_total"));
    let memory = series(&page, "process_resident_memory_bytes");
    let mut changes = scene.changes()?;
    changes.sort_unstable();
    let page = scene.running()?.page()?;
    let count = u32::try_from(sizes.changes).unwrap_or(u32::MAX);
    Ok(Figures {
        programmed,
        issued,
        leaves: (sizes.identities + sizes.workloads) as u64,
        requests: (requests(&page) - cold_requests) / f64::from(count),
        changes,
        cold_requests,
        memory,
        peak_kib: scene.running()?.peak_kib()?,
        cpu_seconds,
        answers: scene.crowd.answers(),
        page,
    })
}

struct Scene {
    // Dropped in order: the operator first.
    operator: Option<Running>,
    crowd: Crowd,
    seen: Seen,
    client: Client,
    runtime: Runtime,
    sizes: Sizes,
    namespaces: Vec<String>,
}

impl Scene {
    fn running(&self) -> Result<&Running> {
        self.operator.as_ref().context("an operator that was started")
    }

    fn served(&self) -> String {
        if self.sizes.serves_all { "all".to_owned() } else { self.namespaces.join(",") }
    }

    /// Lets watches go on for a while.
    fn pause(&self, time: Duration) {
        self.runtime.block_on(async { sleep(time).await });
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self) {
            if let Some(error) = self.crowd.failed().or_else(|| self.seen.failed()) {
                bail!("the simulated pods ended: {error}");
            }
            if begun.elapsed() > LIMIT || self.operator.as_ref().is_some_and(Running::has_ended) {
                let said = self.operator.as_ref().map(Running::last_words).unwrap_or_default();
                let (programmed, issued) = (self.seen.programmed(), self.seen.issued());
                bail!(
                    "waited for {what}: {} pods, {programmed} routes programmed, {issued} clients; it said last:\n{said}",
                    self.crowd.pods()
                );
            }
            self.pause(LOOK);
        }
        Ok(())
    }

    /// Waits until the operator asks the API server for nothing any more.
    fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        let (mut last, mut since) = (0.0, Instant::now());
        while since.elapsed() < CALM {
            ensure!(begun.elapsed() < LIMIT, "it does not come to rest");
            let now = requests(&self.running()?.page()?);
            if now > last {
                (last, since) = (now, Instant::now());
            }
            self.pause(LOOK * 100);
        }
        Ok(())
    }

    /// Changes routes one after the other, each when the one before is loaded.
    fn changes(&self) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(self.sizes.changes);
        for change in 0..self.sizes.changes {
            let workload = change * 7 % self.sizes.workloads;
            let namespace = &self.namespaces[workload % self.namespaces.len()];
            let name = format!("app-{workload}");
            let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &objects::routes());
            let hostnames = [format!("change-{change}.example.com")];
            let patch = Patch::Merge(json!({"spec": {"hostnames": hostnames}}));
            let begun = Instant::now();
            let changed = self.runtime.block_on(api.patch(&name, &PatchParams::default(), &patch))?;
            let generation = changed.metadata.generation.unwrap_or_default();
            self.wait("a change", |scene| scene.seen.is_programmed(namespace, &name, generation))?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}

/// The operator.
struct Running {
    programs: Together,
    folder: PathBuf,
}

impl Running {
    fn start(operator: &Path, kubeconfig: &Path, own: &str, served: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-scale-").tempdir()?.keep();
        let arguments = vec![
            "run".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--operator-namespace={own}"),
            format!("--namespaces={served}"),
            "--identities-per-namespace=100000".to_owned(),
            "--status-address=127.0.0.1:0".to_owned(),
            // Everything shares two cores with the API server: who leads is not what is measured.
            "--leader-election=Off".to_owned(),
        ];
        let program = Program { name: "operator".to_owned(), path: operator.to_owned(), arguments };
        Ok(Self { programs: Together::start(&folder, &[program])?, folder })
    }

    fn has_ended(&self) -> bool {
        self.programs.have_ended()
    }

    fn last_words(&self) -> String {
        self.programs.last_words("operator")
    }

    fn page(&self) -> Result<String> {
        let log = self.programs.output("operator");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let address = lines.filter_map(|line| Some(line["address"].as_str()?.to_owned())).next();
        let address = address.context("the operator's status address")?;
        Ok(Curl::new(format!("http://{address}/metrics")).within(PATIENCE).call()?.text())
    }

    /// Most memory that it ever had.
    fn peak_kib(&self) -> Result<u64> {
        let wanted = self.folder.join("operator.log");
        for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let error = fs::read_link(process.path().join("fd/2"));
            let Ok(status) = fs::read_to_string(process.path().join("status")) else { continue };
            let is_it = status.starts_with("Name:\tpostern-operato") && error.is_ok_and(|path| path == wanted);
            if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).filter(|_| is_it) {
                return Ok(peak.trim().trim_end_matches(" kB").parse()?);
            }
        }
        bail!("the operator's process is not found")
    }
}

/// The value of a series; 0 where it is not there.
#[must_use]
pub fn series(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Requests to the API server, without watches and what the Lease takes.
fn requests(page: &str) -> f64 {
    let families = page.lines().filter(|line| line.starts_with("postern_operator_api_requests_total{"));
    let counted = families.filter(|line| !line.contains(r#"verb="watch""#) && !line.contains(r#"resource="leases""#));
    counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
