//! The composition root: connects, watches, takes turns until it is told to stop.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::authority::{self, Signer};
use crate::identity::Reconciler;
use crate::index::Index;
use crate::inject::audit::Auditor;
use crate::inject::upkeep::Upkeep;
use crate::limits::{STOP_TIMEOUT, TURN_TIMEOUT, TURNS, URGENT_TURNS};
use crate::pki::authority::{AuthoritySettings, INTERMEDIATE_SECONDS, ROOT_SECONDS};
use crate::pki::names::{ExtraNames, Names};
use crate::queue::{Key, Outcome, Pace, Queue, Turn};
use crate::settings::Settings;
use crate::workload::apply::Writer;
use crate::workload::ask::Asker;
use crate::workload::authorities::Authorities;
use crate::workload::board::Board;
use crate::workload::memory::Memories;
use crate::workload::trust::Trusts;
use crate::workload::turn::Worker;

/// Runs until `stop` is there, and ends the turns under way.
///
/// # Errors
/// When the API server cannot be reached at start, or there is nobody to sign.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let client = connect(&settings).await?;
    let organisation = settings.trust_domain.clone();
    let authority = AuthoritySettings {
        algorithm: settings.authority_algorithm,
        root_seconds: ROOT_SECONDS,
        intermediate_seconds: INTERMEDIATE_SECONDS,
        organisation,
    };
    let now = Timestamp::now().as_second();
    let issuer = authority::load(&client, &settings.operator_namespace, &authority, now).await;
    let issuer = issuer.context("there is nobody to sign certificates")?;
    let queue = Arc::new(Queue::default());
    let index = Index::new(Arc::clone(&queue));
    let worker = Arc::new(Worker {
        client: client.clone(),
        index: Arc::clone(&index),
        queue: Arc::clone(&queue),
        board: Board::default(),
        asker: Asker::new(settings.status_port),
        writer: Writer::new(client.clone(), Arc::clone(&index)),
        signer: Signer::new(authority, issuer),
        names: names(&settings),
        trusts: Trusts::default(),
        authorities: Authorities::new(client.clone()),
        reconciler: Reconciler::new(client.clone(), settings.operator_namespace.clone()),
        quota: settings.identities_per_namespace,
        operator_namespace: settings.operator_namespace.clone(),
        started: Instant::now(),
        memories: Memories::default(),
        auditor: Auditor::new(client.clone(), settings.scope.clone(), settings.operator_namespace.clone()),
        upkeep: Upkeep::new(client.clone(), settings.operator_namespace.clone(), settings.webhook_names.clone()),
    });
    let mut watches = JoinSet::new();
    index.watch(&client, &settings.scope, &settings.operator_namespace, &mut watches);
    tokio::pin!(stop);
    tokio::select! {
        () = &mut stop => return Ok(()),
        () = index.complete() => {}
    }
    tracing::info!(namespaces = ?settings.scope, trust_domain = settings.trust_domain, "everything is seen; taking turns");
    queue.add(Key::Authority, Pace::Gathered);
    queue.add(Key::Webhook, Pace::Now);
    queue.add(Key::Audit, Pace::Calm);
    // Clients that went while nobody looked.
    let namespaces = index.cluster().namespaces();
    namespaces.into_iter().for_each(|namespace| queue.add(Key::Ledger(namespace), Pace::Now));
    let mut turns = JoinSet::new();
    for _ in 0..TURNS {
        turns.spawn(take_turns(Arc::clone(&worker), Arc::clone(&queue)));
    }
    for _ in 0..URGENT_TURNS {
        turns.spawn(take_urgent_turns(Arc::clone(&worker), Arc::clone(&queue)));
    }
    stop.await;
    tracing::info!("stopping");
    queue.close();
    if timeout(STOP_TIMEOUT, async { while turns.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("some turns did not end in time; the next start goes on from there");
    }
    Ok(())
}

async fn connect(settings: &Settings) -> Result<Client> {
    let config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context("--kubeconfig")?
        }
        None => Config::infer().await.context("no API server: give --kubeconfig, or run in a pod")?,
    };
    Client::try_from(config).context("cannot talk to the API server")
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
async fn take_turns(worker: Arc<Worker>, queue: Arc<Queue>) {
    while let Some(turn) = queue.next().await {
        take_turn(&worker, turn).await;
    }
}

/// The same with urgent ones alone.
async fn take_urgent_turns(worker: Arc<Worker>, queue: Arc<Queue>) {
    while let Some(turn) = queue.next_urgent().await {
        take_turn(&worker, turn).await;
    }
}

async fn take_turn(worker: &Worker, turn: Turn) {
    let ended = timeout(TURN_TIMEOUT, async {
        match turn.key() {
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
    let outcome = match ended.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            tracing::warn!(key = %turn.key(), %error, "a turn failed; it is tried again");
            Outcome::Failed
        }
        Err(_) => {
            tracing::warn!(key = %turn.key(), "a turn took too long; it is tried again");
            Outcome::Failed
        }
    };
    turn.end(outcome);
}
