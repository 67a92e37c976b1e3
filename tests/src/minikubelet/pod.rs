//! One pod on the node: its address, the folder that is its volume, and its sidecar.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Container, Pod as PodObject, VolumeProjection};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::WORKLOAD;
use super::objects::{File, Objects};
use crate::config::ConfigFolder;
use crate::process::{Launch, Sidecar};

/// Where `/status` and the probes are.
pub const STATUS_PORT: u16 = 6190;
/// The sidecar's container.
pub const SIDECAR_CONTAINER: &str = "postern-sidecar";
/// An annotation of a pod that names its address, such as one that another pod had.
pub const ADDRESS: &str = "tests.postern.dev/address";
/// An annotation of a pod whose sidecar is not run.
pub const NO_SIDECAR: &str = "tests.postern.dev/no-sidecar";
/// What the operator changes so that the kubelet looks at the pod's volume.
const TOUCH: &str = "postern.dev/touch";
/// The first address of all: 127.64.0.0, of which each process has 512 for itself, so that runs side by side differ.
const FIRST_ADDRESS: u32 = 0x7f40_0000;
const PROCESSES: u32 = 1 << 13;
const PODS: u32 = 1 << 9;
/// Lines of a sidecar's output that an error shows.
const SHOWN_LINES: usize = 8;

/// A pod's object, with labels beside the workload's.
#[must_use]
pub fn pod(name: &str, workload: &str, account: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = json!({WORKLOAD: workload, "postern.dev/sidecar-contract": "1"});
    for (label, value) in labels {
        all[label] = json!(value);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": all},
        "spec": {
            "serviceAccountName": account,
            "initContainers": [{"name": SIDECAR_CONTAINER, "image": "none", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "none"}],
        },
    })
}

/// What the kubelet knows of a pod.
pub struct Pod {
    // Ended before its folders go.
    sidecar: Option<Sidecar>,
    uid: String,
    name: String,
    namespace: String,
    workload: String,
    account: String,
    address: Ipv4Addr,
    has_sidecar: bool,
    /// The container and its volume, where they were put in by the webhook and not by a test.
    injected: Option<(Container, Vec<VolumeProjection>)>,
    restarts: u32,
    seen: Seen,
    mounted: Vec<File>,
    volume: ConfigFolder,
    /// The request log and the state directory.
    data: TempDir,
}

/// What of a pod's object has the kubelet look at its volume.
#[derive(PartialEq, Eq)]
struct Seen {
    touch: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Seen {
    fn of(object: &PodObject) -> Self {
        let touch = annotation(object, TOUCH);
        Self { touch, labels: object.metadata.labels.clone().unwrap_or_default() }
    }
}

/// A start of a sidecar, for whoever tells of it.
pub(super) struct Start {
    pub(super) address: Ipv4Addr,
    pub(super) restarts: u32,
    pub(super) has_sidecar: bool,
}

impl Pod {
    pub(super) fn new(object: &PodObject) -> Result<Self> {
        let metadata = &object.metadata;
        let address = annotation(object, ADDRESS).map_or_else(|| Ok(next_address()), |text| text.parse())?;
        let workload = metadata.labels.iter().flatten().find(|(label, _)| *label == WORKLOAD);
        Ok(Self {
            sidecar: None,
            uid: metadata.uid.clone().context("a pod without a UID")?,
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            workload: workload.map(|(_, name)| name.clone()).unwrap_or_default(),
            account: object.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
            address,
            has_sidecar: annotation(object, NO_SIDECAR).is_none(),
            injected: injected(object),
            restarts: 0,
            seen: Seen::of(object),
            mounted: Vec::new(),
            volume: ConfigFolder::new()?,
            data: tempfile::Builder::new().prefix("postern-pod-").tempdir()?,
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its sidecar.
    ///
    /// # Errors
    /// When it has none.
    pub fn sidecar(&mut self) -> Result<&mut Sidecar> {
        self.sidecar.as_mut().with_context(|| format!("pod {} has no sidecar", self.name))
    }

    /// Runs the sidecar anew, as the kubelet does with a container that has ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.sidecar = None;
        self.restarts += 1;
        self.run()
    }

    /// Whether its sidecar was ready once.
    #[must_use]
    pub fn has_started(&self) -> bool {
        let lines = self.sidecar.as_ref().map(Sidecar::lines).unwrap_or_default();
        lines.iter().any(|line| line.message() == "ready")
    }

    /// The last that its sidecar said.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let lines = self.sidecar.as_ref().map(Sidecar::lines).unwrap_or_default();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].iter();
        last.map(|line| Value::from(line.fields.clone()).to_string()).collect::<Vec<_>>().join("\n")
    }

    /// Whether an object is this very pod, and not one of the same name.
    pub(super) fn is(&self, object: &PodObject) -> bool {
        object.metadata.uid.as_deref() == Some(&self.uid)
    }

    /// Takes note of an object. Whether the volume is to be looked at for it.
    pub(super) fn see(&mut self, object: &PodObject) -> bool {
        let seen = Seen::of(object);
        let is_changed = seen != self.seen;
        self.seen = seen;
        is_changed
    }

    /// Writes the volume if it has changed, and runs the sidecar if it does not run yet.
    pub(super) fn mount(&mut self, objects: &Objects) -> Result<Option<Start>> {
        let is_first = self.mounted.is_empty();
        let mut files = match &self.injected {
            Some((_, sources)) => objects.projected(sources),
            None => objects.files(&self.workload, &self.account),
        };
        let labels = self.seen.labels.iter().map(|(label, value)| format!("{label}=\"{value}\""));
        files.push(("labels".to_owned(), labels.collect::<Vec<_>>().join("\n").into_bytes()));
        if files != self.mounted {
            let named: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes)).collect();
            self.volume.publish(&named)?;
            self.mounted = files;
        }
        if !is_first {
            return Ok(None);
        }
        if self.has_sidecar {
            self.run()?;
        }
        let (address, restarts, has_sidecar) = (self.address, self.restarts, self.has_sidecar);
        Ok(Some(Start { address, restarts, has_sidecar }))
    }

    fn run(&mut self) -> Result<()> {
        let launch = match &self.injected {
            Some((container, _)) => self.variables(container)?,
            None => self.usual_variables(),
        };
        let launch =
            launch.iter().fold(Launch::new(self.volume.path())?, |launch, (name, value)| launch.variable(name, value));
        self.sidecar = Some(launch.ends_with_thread().start()?);
        Ok(())
    }

    /// What an injected container says, with folders of this machine for those it mounts, and the pod's address for all
    /// addresses: a pod has a network of its own.
    fn variables(&self, container: &Container) -> Result<Vec<(String, String)>> {
        ensure!(
            container.args.as_deref() == Some(&["run", "--config", "/etc/postern"].map(str::to_owned)),
            "the container's arguments are {:?}",
            container.args
        );
        let mut variables = vec![
            ("POSTERN__LISTEN_ADDRESS".to_owned(), self.address.to_string()),
            ("POSTERN__LOG__FLUSH_EVERY".to_owned(), "20ms".to_owned()),
        ];
        for variable in container.env.iter().flatten() {
            let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
            let value = match field.map(|field| field.field_path.as_str()) {
                Some("metadata.name") => self.name.clone(),
                Some("metadata.uid") => self.uid.clone(),
                Some("metadata.namespace") => self.namespace.clone(),
                Some(other) => anyhow::bail!("{} is of {other}", variable.name),
                None => variable.value.clone().unwrap_or_default(),
            };
            let earlier =
                variables.iter().fold(value, |value, (name, known)| value.replace(&format!("$({name})"), known));
            let mounted = [("/run/postern", "run"), ("/var/lib/postern", "log")];
            let value = mounted.iter().fold(earlier, |value, (path, folder)| match value.strip_prefix(path) {
                Some(rest) => format!("{}{rest}", self.data.path().join(folder).display()),
                None => value,
            });
            variables.push((variable.name.clone(), value.replace("0.0.0.0", &self.address.to_string())));
        }
        for folder in ["run", "log"] {
            fs::create_dir_all(self.data.path().join(folder))?;
        }
        Ok(variables)
    }

    fn usual_variables(&self) -> Vec<(String, String)> {
        let file = |name: &str| self.data.path().join(name).display().to_string();
        let launch = [
            ("STATUS_ADDRESS", format!("{}:{STATUS_PORT}", self.address)),
            ("LISTEN_ADDRESS", self.address.to_string()),
            ("WORKERS", "1".to_owned()),
            ("LOG__PATH", file("requests.db")),
            ("LOG__FLUSH_EVERY", "20ms".to_owned()),
            ("STATE_DIR", file("state")),
            ("POD__NAME", self.name.clone()),
            ("POD__UID", self.uid.clone()),
            ("POD__NAMESPACE", self.namespace.clone()),
            ("POD__WORKLOAD", self.workload.clone()),
        ];
        launch.map(|(name, value)| (format!("POSTERN__{name}"), value)).into()
    }
}

/// The sidecar's container and what its volume is made of, if the webhook has put it in.
fn injected(object: &PodObject) -> Option<(Container, Vec<VolumeProjection>)> {
    let spec = object.spec.as_ref()?;
    let container = spec.init_containers.iter().flatten().find(|container| container.name == SIDECAR_CONTAINER)?;
    container.env.as_ref()?;
    let volume = spec
        .volumes
        .iter()
        .flatten()
        .find_map(|volume| volume.projected.as_ref().filter(|_| volume.name == "postern-config"));
    Some((container.clone(), volume?.sources.clone()?))
}

fn annotation(object: &PodObject, name: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(name).cloned()
}

/// An address that no other pod of this process has had.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % PODS;
    Ipv4Addr::from(FIRST_ADDRESS + std::process::id() % PROCESSES * PODS + number)
}
