//! What a node does for a pod's gate, without a node: pods are objects of a real API server, each with an address of
//! loopback, and what their volume names lies in a folder where the *real* sidecar runs on that address.
//!
//! As with the kubelet, a change of an object alone is not seen. It is when the pod itself changes, which is what the
//! operator's touch is for; here a change without a touch is never seen.

mod objects;
mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub use self::pod::{ADDRESS, NO_SIDECAR, Pod, SIDECAR_CONTAINER, STATUS_PORT, pod};
use crate::apiserver::Namespace;
use crate::wait::{PATIENCE, eventually};

/// The label that says of which workload a pod is; a pod without it is not watched.
pub const WORKLOAD: &str = "postern.dev/workload";
/// Between two looks at whether a sidecar has started; a kubelet's probe looks once a second.
const STARTUP_PROBE: Duration = Duration::from_millis(20);

/// The node of a namespace. Its sidecars end when it is dropped.
pub struct MiniKubelet {
    node: Arc<Node>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the node's thread and the tests share.
#[derive(Default)]
struct Node {
    pods: Mutex<BTreeMap<String, Pod>>,
    /// Why the thread ended before it was told to.
    failed: Mutex<Option<String>>,
}

impl MiniKubelet {
    /// Watches the pods of a namespace from now on.
    ///
    /// # Errors
    /// When there can be no thread for it.
    pub fn start(namespace: &Namespace<'_>) -> Result<Self> {
        let node = Arc::new(Node::default());
        let (stop, stopped) = oneshot::channel();
        let (shared, kubeconfig, name) = (Arc::clone(&node), namespace.kubeconfig(), namespace.name.clone());
        let thread = thread::Builder::new().name("minikubelet".to_owned()).spawn(move || {
            if let Err(error) = run(&kubeconfig, &name, &shared, stopped) {
                *lock(&shared.failed) = Some(format!("{error:#}"));
            }
        });
        Ok(Self { node, stop: Some(stop), thread: Some(thread?) })
    }

    /// Does something with a pod, as soon as the node has it.
    ///
    /// # Errors
    /// When it does not get it in time.
    pub fn with<T>(&self, pod: &str, action: impl FnOnce(&mut Pod) -> Result<T>) -> Result<T> {
        eventually(&format!("pod {pod} on its node"), PATIENCE, || {
            self.check()?;
            Ok(lock(&self.node.pods).contains_key(pod).then_some(()))
        })?;
        action(lock(&self.node.pods).get_mut(pod).with_context(|| format!("pod {pod} is gone"))?)
    }

    /// Waits until the sidecar of a pod has started.
    ///
    /// # Errors
    /// When it does not in time, with its last lines.
    pub fn wait_started(&self, pod: &str) -> Result<()> {
        let waited = eventually(&format!("the sidecar of pod {pod} to start"), PATIENCE, || {
            Ok(self.with(pod, |pod| Ok(pod.has_started()))?.then_some(()))
        });
        waited.or_else(|error| bail!("{error:#}:\n{}", self.with(pod, |pod| Ok(pod.last_lines()))?))
    }

    /// Whether the node still works.
    fn check(&self) -> Result<()> {
        lock(&self.node.failed).as_ref().map_or(Ok(()), |error| Err(anyhow!("the mini-kubelet ended: {error}")))
    }
}

impl Drop for MiniKubelet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(kubeconfig: &Path, namespace: &str, node: &Node, stopped: oneshot::Receiver<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let pods = watcher(Api::namespaced(client.clone(), namespace), watcher::Config::default().labels(WORKLOAD));
        // A node outlives its API server, and looks again.
        let pods = pods.default_backoff().filter_map(async |event| event.ok());
        let pods = std::pin::pin!(pods);
        tokio::select! {
            _ = stopped => Ok(()),
            result = follow(pods, &client, namespace, node) => result,
        }
    });
    lock(&node.pods).clear();
    result
}

/// Takes up what happens to pods. What has come at once is mounted together.
async fn follow(
    mut events: impl Stream<Item = Event<PodObject>> + Unpin,
    client: &Client,
    namespace: &str,
    node: &Node,
) -> Result<()> {
    while let Some(event) = events.next().await {
        let mut due = BTreeSet::new();
        note(&event, node, &mut due)?;
        while let Some(Some(event)) = events.next().now_or_never() {
            note(&event, node, &mut due)?;
        }
        if due.is_empty() {
            continue;
        }
        let objects = objects::read(client, namespace).await?;
        for name in due {
            let started = match lock(&node.pods).get_mut(&name) {
                Some(pod) => pod.mount(&objects)?,
                None => None,
            };
            if let Some(start) = started {
                let pods = Api::namespaced(client.clone(), namespace);
                pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(start.status(false))).await?;
                if start.has_sidecar {
                    tokio::spawn(probe(pods, name, start));
                }
            }
        }
    }
    bail!("the watch of pods ended")
}

/// Enters a pod, or a change of one, and names those whose folder is due.
fn note(event: &Event<PodObject>, node: &Node, due: &mut BTreeSet<String>) -> Result<()> {
    let (Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) = event else { return Ok(()) };
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut pods = lock(&node.pods);
    if matches!(event, Event::Delete(_)) || object.metadata.deletion_timestamp.is_some() {
        let is_it = pods.get(&name).is_some_and(|pod| pod.is(object));
        if is_it {
            pods.remove(&name);
        }
        return Ok(());
    }
    let is_changed = match pods.get_mut(&name).filter(|pod| pod.is(object)) {
        Some(pod) => pod.see(object),
        None => {
            pods.insert(name.clone(), Pod::new(object)?);
            true
        }
    };
    if is_changed {
        due.insert(name);
    }
    Ok(())
}

/// Looks until the sidecar has started, and says so in the pod's status, as the kubelet does after a startup probe.
async fn probe(pods: Api<PodObject>, name: String, start: pod::Start) {
    while !is_started(&start).await {
        tokio::time::sleep(STARTUP_PROBE).await;
    }
    // The pod may be gone meanwhile.
    let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(start.status(true))).await;
}

async fn is_started(start: &pod::Start) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((start.address, STATUS_PORT)).await?;
        stream.write_all(b"GET /startupz HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    ask.await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200 "))
}

impl pod::Start {
    /// The pod's status, before or after its sidecar has started.
    fn status(&self, started: bool) -> serde_json::Value {
        let ready = if started { "True" } else { "False" };
        let sidecar = json!({
            "name": SIDECAR_CONTAINER,
            "image": "none",
            "imageID": "",
            "ready": started,
            "started": started,
            "restartCount": self.restarts,
            "state": {"running": {}},
        });
        json!({"status": {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [{"type": "Ready", "status": ready}],
            "initContainerStatuses": [sidecar],
        }})
    }
}
