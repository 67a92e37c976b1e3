//! The composition root: connects, watches, takes turns until it is told to stop.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use rustix::system::uname;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::field::Empty;
use tracing::{Instrument, Span, error_span};

use crate::api;
use crate::authority::{self, Signer};
use crate::events::{self, Events};
use crate::heap;
use crate::identity::Reconciler;
use crate::index::{Index, ObjectName};
use crate::inject::audit::Auditor;
use crate::inject::upkeep::Upkeep;
use crate::lease::{Election, Leadership, Lost};
use crate::limits::{CLIENT_TURNS, EVENTS_STOP_TIMEOUT, STOP_TIMEOUT, TURN_TIMEOUT, TURNS, URGENT_TURNS};
use crate::metrics::Metrics;
use crate::monitor::{Heartbeat, Monitor, Watched};
use crate::pki::authority::{AuthoritySettings, INTERMEDIATE_SECONDS, ROOT_SECONDS};
use crate::pki::fresh;
use crate::pki::names::{ExtraNames, Names};
use crate::queue::{Key, Outcome, Queue, Turn};
use crate::references::{Certificates, Follower};
use crate::settings::Settings;
use crate::telemetry::traces::RESULT;
use crate::workload::apply::Writer;
use crate::workload::ask::Asker;
use crate::workload::authorities::Authorities;
use crate::workload::board::Board;
use crate::workload::memory::Memories;
use crate::workload::trust::Trusts;
use crate::workload::turn::Worker;

/// Watches, waits until this process leads, takes turns until `stop` is there, and ends those under way.
///
/// # Errors
/// When nothing says where the API server is, the status address is taken, there is nobody to sign, or another process
/// may lead.
pub async fn run(settings: Settings, metrics: Arc<Metrics>, stop: impl Future<Output = ()>) -> Result<()> {
    let mut stop = Box::pin(stop);
    let leadership = Leadership::none();
    let client = api::connect(&settings, &metrics, &leadership).await?;
    let queue = Queue::held();
    let index = Index::new(Arc::clone(&queue), Arc::clone(&metrics));
    let heartbeat = Arc::new(Heartbeat::default());
    let watched = Watched {
        metrics: Arc::clone(&metrics),
        index: Arc::clone(&index),
        queue: Arc::clone(&queue),
        heartbeat: Arc::clone(&heartbeat),
    };
    let monitor = Monitor::start(settings.status_address, watched);
    let monitor = monitor.with_context(|| format!("--status-address {}", settings.status_address))?;
    tracing::info!(address = %monitor.address(), "answering probes");
    // Ended when this function is left, however that happens.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { heartbeat.beat().await });
    tasks.spawn(heap::give_back());
    index.watch(&client, &settings.scope, &settings.operator_namespace, &mut tasks);
    // On a connection of its own: what turns have under way does not hold up a renewal.
    let lease_client = api::connect(&settings, &metrics, &leadership).await?;
    let election = settings.lease.map(|times| {
        Election::new(lease_client, &settings.operator_namespace, identity(), times, Arc::clone(&leadership))
    });
    let parts = Parts { settings, client, queue, index, metrics };
    let led = async {
        parts.index.complete().await;
        tracing::info!(namespaces = ?parts.index.scope(), "everything is seen");
        match &election {
            Some(election) => election.lead().await,
            None => leadership.hold(),
        }
    };
    let leads = tokio::select! {
        () = &mut stop => false,
        () = led => true,
    };
    if leads {
        parts.metrics.set_leader(true);
        tokio::select! {
            ended = Box::pin(parts.serve(stop)) => ended?,
            lost = lost(election.as_ref()) => bail!("not leading any more: {lost}"),
        }
    }
    if let Some(election) = &election {
        election.release().await;
    }
    Ok(())
}

/// When leading is over; never where nobody else is there.
async fn lost(election: Option<&Election>) -> Lost {
    match election {
        Some(election) => election.keep().await,
        None => pending().await,
    }
}

/// Who this process is among those that may lead: its pod, and nothing that another process was before in the same pod.
fn identity() -> String {
    // Without randomness there are no keys either, which is said when one is made.
    let own = fresh::password().map(|drawn| drawn[..8].to_owned()).unwrap_or_else(|_| std::process::id().to_string());
    format!("{}_{own}", host())
}

/// What the machine is called: in a pod, the pod's name.
fn host() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// What whoever leads works with.
struct Parts {
    settings: Settings,
    client: Client,
    queue: Arc<Queue>,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
}

impl Parts {
    /// Takes turns until it is told to stop.
    async fn serve(&self, stop: Pin<Box<impl Future<Output = ()>>>) -> Result<()> {
        let (events, publisher) = events::channel(self.client.clone(), host(), Arc::clone(&self.metrics));
        let mut telling = JoinSet::new();
        telling.spawn(publisher.run());
        let worker = Arc::new(self.worker(events).await?);
        let queue = &self.queue;
        queue.open();
        let everything = self.index.cluster().everything();
        everything.into_iter().for_each(|(key, pace)| queue.add(key, pace));
        tracing::info!(trust_domain = self.settings.trust_domain, "taking turns");
        let mut turns = JoinSet::new();
        for _ in 0..TURNS {
            turns.spawn(take_turns(Arc::clone(&worker), Arc::clone(queue), Arc::clone(&self.metrics)));
        }
        for _ in 0..URGENT_TURNS {
            turns.spawn(take_urgent_turns(Arc::clone(&worker), Arc::clone(queue), Arc::clone(&self.metrics)));
        }
        for _ in 0..CLIENT_TURNS {
            turns.spawn(take_client_turns(Arc::clone(&worker), Arc::clone(queue), Arc::clone(&self.metrics)));
        }
        stop.await;
        tracing::info!("stopping");
        queue.close();
        if timeout(STOP_TIMEOUT, async { while turns.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("some turns did not end in time; the next start goes on from there");
            turns.shutdown().await;
        }
        // Nobody can tell anything any more; what waits is written, as far as that goes.
        drop(worker);
        let _late = timeout(EVENTS_STOP_TIMEOUT, telling.join_next()).await;
        Ok(())
    }

    async fn worker(&self, events: Events) -> Result<Worker> {
        let Self { settings, client, queue, index, metrics } = self;
        let authority = AuthoritySettings {
            algorithm: settings.authority_algorithm,
            root_seconds: ROOT_SECONDS,
            intermediate_seconds: INTERMEDIATE_SECONDS,
            organisation: settings.trust_domain.clone(),
        };
        let now = Timestamp::now().as_second();
        let issuer = authority::load(client, &settings.operator_namespace, &authority, now).await;
        let issuer = issuer.context("there is nobody to sign certificates")?;
        let follower = Follower::new(client.clone(), Arc::clone(queue), Arc::clone(metrics));
        Ok(Worker {
            client: client.clone(),
            index: Arc::clone(index),
            queue: Arc::clone(queue),
            metrics: Arc::clone(metrics),
            events: events.clone(),
            board: Board::default(),
            asker: Asker::new(settings.status_port),
            writer: Writer::new(client.clone(), Arc::clone(index)),
            signer: Signer::new(authority, issuer),
            names: names(settings),
            trusts: Trusts::default(),
            authorities: Authorities::new(client.clone(), follower.clone()),
            certificates: Certificates::new(client.clone(), follower),
            reconciler: Reconciler::new(client.clone(), settings.operator_namespace.clone()).telling(events),
            quota: settings.identities_per_namespace,
            certificate_seconds: settings.gate_certificate_seconds,
            operator_namespace: settings.operator_namespace.clone(),
            started: Instant::now(),
            memories: Memories::default(),
            auditor: Auditor::new(client.clone(), Arc::clone(index), settings.operator_namespace.clone()),
            upkeep: Upkeep::new(client.clone(), settings.operator_namespace.clone(), settings.webhook_names.clone()),
        })
    }
}

fn names(settings: &Settings) -> Names {
    let mut names = Names {
        trust_domain: settings.trust_domain.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        extra: Default::default(),
    };
    let mut extra =
        |namespace: &String, add: &dyn Fn(&mut ExtraNames)| add(names.extra.entry(namespace.clone()).or_default());
    for (namespace, dns_names) in &settings.extra_dns_names {
        extra(namespace, &|extra| extra.dns_names.extend(dns_names.iter().cloned()));
    }
    for (namespace, prefixes) in &settings.extra_uri_prefixes {
        extra(namespace, &|extra| extra.uri_prefixes.extend(prefixes.iter().cloned()));
    }
    names
}

/// Takes one turn after the other until the queue is closed.
async fn take_turns(worker: Arc<Worker>, queue: Arc<Queue>, metrics: Arc<Metrics>) {
    while let Some(turn) = queue.next().await {
        take_turn(&worker, &metrics, turn).await;
    }
}

/// The same with urgent ones alone.
async fn take_urgent_turns(worker: Arc<Worker>, queue: Arc<Queue>, metrics: Arc<Metrics>) {
    while let Some(turn) = queue.next_urgent().await {
        take_turn(&worker, &metrics, turn).await;
    }
}

/// The same with those of clients alone.
async fn take_client_turns(worker: Arc<Worker>, queue: Arc<Queue>, metrics: Arc<Metrics>) {
    while let Some(turn) = queue.next_client().await {
        take_turn(&worker, &metrics, turn).await;
    }
}

async fn take_turn(worker: &Worker, metrics: &Metrics, turn: Turn) {
    metrics.waited(turn.lane(), turn.waited());
    let span = span(turn.key());
    let (outcome, word) = attempt(worker, turn.key()).instrument(span.clone()).await;
    span.record(RESULT, word);
    metrics.turn(turn.key(), word, turn.taken().elapsed());
    turn.end(outcome);
}

async fn attempt(worker: &Worker, key: &Key) -> (Outcome, &'static str) {
    if key.namespace().is_some_and(|namespace| !worker.index.serves(namespace)) {
        worker.let_go(key);
        return (Outcome::Done, "not_served");
    }
    let ended = timeout(TURN_TIMEOUT, async {
        match key {
            Key::Authority => worker.authority().await,
            Key::Webhook => worker.webhook().await,
            Key::Audit => worker.audit().await,
            Key::Trust(namespace) => worker.trust(namespace).await,
            Key::Workload(workload) => worker.workload(workload).await,
            Key::Route(route) => worker.route(route).await,
            Key::Ledger(namespace) => worker.sweep(namespace).await,
            Key::Identity(client) => worker.client(client).await,
        }
    });
    match ended.await {
        Ok(Ok(Outcome::Done)) => (Outcome::Done, "done"),
        Ok(Ok(Outcome::Again(wait))) => (Outcome::Again(wait), "again"),
        Ok(Ok(Outcome::Failed)) => (Outcome::Failed, "failed"),
        Ok(Err(error)) => {
            tracing::warn!(%key, %error, "a turn failed; it is tried again");
            (Outcome::Failed, "failed")
        }
        Err(_) => {
            tracing::warn!(%key, "a turn took too long; it is tried again");
            (Outcome::Failed, "timeout")
        }
    }
}

/// What every line of a turn says that is logged, and what a trace is called. At the highest level, so that lines of all
/// levels are in it.
fn span(key: &Key) -> Span {
    match key {
        Key::Authority => error_span!("authority", result = Empty),
        Key::Webhook => error_span!("webhook", result = Empty),
        Key::Audit => error_span!("audit", result = Empty),
        Key::Trust(namespace) => error_span!("trust", namespace, result = Empty),
        Key::Ledger(namespace) => error_span!("ledger", namespace, result = Empty),
        Key::Workload(ObjectName { namespace, name }) => {
            error_span!("workload", namespace, object = name, result = Empty)
        }
        Key::Route(ObjectName { namespace, name }) => error_span!("route", namespace, object = name, result = Empty),
        Key::Identity(ObjectName { namespace, name }) => {
            error_span!("identity", namespace, object = name, result = Empty)
        }
    }
}
