//! Many pods without processes: each has an address of loopback where somebody answers `/status`, and loads what is in its
//! volume when it is touched, as the kubelet would have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod as PodObject, Secret};
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::loaded::{Loaded, Memory, Object, Objects};
use crate::minikubelet::{SIDECAR_CONTAINER, STATUS_PORT, WORKLOAD};

/// What says that a pod's volume is to be looked at.
const TOUCH: &str = "postern.dev/touch";
/// After a touch what comes is seen for so long: the watch of the pods may be faster than that of the objects.
const LOOKS_FOR: Duration = Duration::from_secs(2);
/// How often all volumes are looked at, touched or not, as a kubelet does. Nothing that is timed should have to wait for it.
const LOOKS_AGAIN: Duration = Duration::from_secs(60);
/// Statuses of pods written at once.
const WRITES: usize = 16;
/// Every process has addresses of its own, other than those of pods that have a sidecar.
const FIRST_ADDRESS: u32 = 0x7fa0_0000;
const PROCESSES: u32 = 1 << 9;
const ADDRESSES: u32 = 1 << 12;

/// A kubeconfig's client.
///
/// # Errors
/// When the file cannot be read.
pub(super) async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The pods of some namespaces. They go when this is dropped.
pub(super) struct Crowd {
    shared: Arc<Mutex<Pods>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Pods {
    pods: HashMap<(String, String), Pod>,
    objects: Objects,
    memory: Memory,
    answers: u64,
    failed: Option<String>,
}

struct Pod {
    uid: String,
    workload: String,
    account: String,
    labels: BTreeMap<String, String>,
    touch: Option<String>,
    touched: Instant,
    address: Ipv4Addr,
    loaded: Option<Arc<Loaded>>,
    is_started: bool,
}

fn lock(pods: &Mutex<Pods>) -> MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    /// Takes up the pods of these namespaces from now on.
    pub(super) fn start(kubeconfig: &Path, namespaces: &BTreeSet<String>) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Pods::default()));
        let (stop, stopped) = oneshot::channel();
        let (pods, kubeconfig, namespaces) = (Arc::clone(&shared), kubeconfig.to_owned(), namespaces.clone());
        let thread = thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            let run = async {
                tokio::select! {
                    _ = stopped => Ok(()),
                    result = run(&kubeconfig, &namespaces, &pods) => result,
                }
            };
            let runtime = Builder::new_current_thread().enable_all().build();
            let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run));
            lock(&pods).failed = ended.err().map(|error| format!("{error:#}"));
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Pods that have an address.
    pub(super) fn pods(&self) -> usize {
        lock(&self.shared).pods.len()
    }

    /// How often one of them has answered.
    pub(super) fn answers(&self) -> u64 {
        lock(&self.shared).answers
    }

    /// Why it does not work any more.
    pub(super) fn failed(&self) -> Option<String> {
        lock(&self.shared).failed.clone()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

async fn run(kubeconfig: &Path, namespaces: &BTreeSet<String>, pods: &Arc<Mutex<Pods>>) -> Result<()> {
    let client = client(kubeconfig).await?;
    let managed = watcher::Config::default().labels("app.kubernetes.io/managed-by=postern");
    let maps = follow::<ConfigMap>(&client, managed.clone(), |event| note_object(pods, event, "c", entries_of_map));
    let secrets = follow::<Secret>(&client, managed, |event| note_object(pods, event, "s", entries_of_secret));
    let mut tasks = JoinSet::new();
    let permits = Arc::new(Semaphore::new(WRITES));
    let all = follow::<PodObject>(&client, watcher::Config::default().labels(WORKLOAD), |event| {
        if let Event::Apply(pod) | Event::InitApply(pod) = event
            && namespaces.contains(&pod.namespace().unwrap_or_default())
        {
            note_pod(pods, &pod, |address| {
                tasks.spawn(live(client.clone(), Arc::clone(pods), pod.clone(), address, Arc::clone(&permits)));
            });
        }
    });
    tokio::try_join!(maps, secrets, all, look_again(pods)).map(|_| ())
}

/// Looks at all volumes again and again.
async fn look_again(pods: &Mutex<Pods>) -> Result<()> {
    loop {
        tokio::time::sleep(LOOKS_AGAIN).await;
        let mut pods = lock(pods);
        let names: Vec<_> = pods.pods.keys().cloned().collect();
        names.iter().for_each(|name| mount(&mut pods, name));
    }
}

async fn follow<K>(client: &Client, config: watcher::Config, mut note: impl FnMut(Event<K>)) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(Api::<K>::all(client.clone()), config));
    while let Some(event) = events.next().await {
        note(event?);
    }
    Ok(())
}

fn entries_of_map(map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.into_iter().flatten().map(|(name, text)| (name, text.into_bytes()));
    text.chain(map.binary_data.into_iter().flatten().map(|(name, bytes)| (name, bytes.0))).collect()
}

fn entries_of_secret(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.into_iter().flatten().map(|(name, bytes)| (name, bytes.0)).collect()
}

fn note_object<K: Resource<DynamicType = ()>>(
    pods: &Mutex<Pods>,
    event: Event<K>,
    kind: &str,
    entries: fn(K) -> BTreeMap<String, Vec<u8>>,
) {
    let (object, is_gone) = match event {
        Event::Apply(object) | Event::InitApply(object) => (object, false),
        Event::Delete(object) => (object, true),
        Event::Init | Event::InitDone => return,
    };
    let namespace = object.namespace().unwrap_or_default();
    let key = (namespace.clone(), format!("{kind} {}", object.name_any()));
    let version = format!("{}/{}", object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default());
    let mut pods = lock(pods);
    if is_gone {
        pods.objects.remove(&key);
    } else {
        pods.objects.insert(key, Arc::new(Object { version, entries: entries(object) }));
    }
    let now = Instant::now();
    let due = pods.pods.iter().filter(|((of, _), pod)| *of == namespace && now < pod.touched + LOOKS_FOR);
    let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
    due.iter().for_each(|name| mount(&mut pods, name));
}

/// Loads what is in a pod's volume.
fn mount(all: &mut Pods, name: &(String, String)) {
    let Pods { pods, objects, memory, .. } = all;
    if let Some(pod) = pods.get_mut(name) {
        let loaded = memory.load(objects, &name.0, (&pod.workload, &pod.account), &pod.labels);
        if pod.is_started || loaded.is_startable() {
            pod.loaded = Some(loaded);
        }
    }
}

fn note_pod(pods: &Mutex<Pods>, object: &PodObject, begin: impl FnOnce(Ipv4Addr)) {
    let name = (object.namespace().unwrap_or_default(), object.name_any());
    let touch = object.annotations().get(TOUCH).cloned();
    let mut pods = lock(pods);
    let number = u32::try_from(pods.pods.len()).unwrap_or(u32::MAX) % ADDRESSES;
    let mut is_new = false;
    let pod = pods.pods.entry(name.clone()).or_insert_with(|| {
        is_new = true;
        let address = FIRST_ADDRESS + (std::process::id() % PROCESSES) * ADDRESSES + number + 1;
        Pod {
            uid: object.uid().unwrap_or_default(),
            workload: object.labels().get(WORKLOAD).cloned().unwrap_or_default(),
            account: object.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
            labels: object.labels().clone(),
            touch: None,
            touched: Instant::now(),
            address: Ipv4Addr::from(address),
            loaded: None,
            is_started: false,
        }
    });
    let address = pod.address;
    if touch != pod.touch {
        pod.touch = touch;
        pod.touched = Instant::now();
        mount(&mut pods, &name);
    }
    drop(pods);
    if is_new {
        begin(address);
    }
}

/// The life of a pod: it gets its address, starts when it has loaded what it needs, and answers.
async fn live(
    client: Client,
    pods: Arc<Mutex<Pods>>,
    object: PodObject,
    address: Ipv4Addr,
    permits: Arc<Semaphore>,
) -> Result<()> {
    let name = (object.namespace().unwrap_or_default(), object.name_any());
    let listener = TcpListener::bind((address, STATUS_PORT)).await.context("bind a pod's address")?;
    let api = Api::<PodObject>::namespaced(client, &name.0);
    let write = async |started: bool| {
        let _permit = permits.acquire().await;
        let patch = Patch::Merge(status(address, started));
        api.patch_status(&name.1, &PatchParams::default(), &patch).await.map(drop)
    };
    write(false).await?;
    let serving = serve(&listener, &pods, &name);
    let started = async {
        // A kubelet's startup probe looks once a second.
        while lock(&pods).pods.get(&name).is_none_or(|pod| pod.loaded.is_none()) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if let Some(pod) = lock(&pods).pods.get_mut(&name) {
            pod.is_started = true;
        }
        write(true).await
    };
    let (_, started) = tokio::join!(serving, started);
    Ok(started?)
}

async fn serve(listener: &TcpListener, pods: &Arc<Mutex<Pods>>, name: &(String, String)) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let body = {
                let mut pods = lock(pods);
                pods.answers += 1;
                let pod = pods.pods.get(name);
                let status = pod.and_then(|pod| Some(pod.loaded.as_ref()?.status(&pod.uid)));
                serde_json::to_string(&status).unwrap_or_default()
            };
            let _gone = answer(stream, &body).await;
        }
    }
}

async fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

fn status(address: Ipv4Addr, started: bool) -> serde_json::Value {
    let sidecar = json!({
        "name": SIDECAR_CONTAINER, "image": "none", "imageID": "", "ready": started, "started": started,
        "restartCount": 0, "state": {"running": {}},
    });
    let ready = if started { "True" } else { "False" };
    json!({"status": {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": ready}],
        "initContainerStatuses": [sidecar],
    }})
}
