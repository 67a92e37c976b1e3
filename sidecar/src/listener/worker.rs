//! A worker: one thread with its own runtime, sockets, connections and pools. Workers share no lock on the request path.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sidecar_config::policy::Protocol;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::accept::Acceptor;
use super::bind::Sockets;
use crate::config::{Generation, ListenerKey};
use crate::flow::{Door, Gate};
use crate::limit::UnderWay;
use crate::limits::{WORKER_ANSWER, WORKER_UPDATES};
use crate::log;
use crate::metrics::{Cells, Handshakes};
use crate::pool::Pool;
use crate::telemetry::Tracer;
use crate::tls::Slots;
use crate::upstream::Budget;

/// What a worker is told.
enum Update {
    /// Serve this from now on.
    Serve {
        /// What to serve.
        generation: Arc<Generation>,
        /// Sockets of the listeners that are new in it.
        sockets: Sockets,
        /// To be told, or dropped, when it is served.
        served: oneshot::Sender<()>,
    },
    /// Accept nothing more, finish what is in flight, and end.
    Drain,
}

/// What a worker works with.
pub struct Handles {
    /// Where its rows go.
    pub log: log::Sender,
    /// How it traces requests, if it does.
    pub tracer: Option<Tracer>,
    /// Where it counts what it decides.
    pub cells: Cells,
    /// Where all workers count connections.
    pub handshakes: Arc<Handshakes>,
    /// Where all workers count what is under way.
    pub under_way: UnderWay,
    /// What its connections to upstreams count in.
    pub upstreams: Arc<Budget>,
    /// Time for connections to finish.
    pub drain_timeout: Duration,
}

/// A running worker.
pub struct Worker {
    updates: mpsc::Sender<Update>,
    /// Resolves when its thread has ended, for whatever reason.
    ended: oneshot::Receiver<()>,
    /// It has.
    is_over: bool,
}

/// Starts a worker that serves a generation without sockets yet.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(index: usize, generation: Arc<Generation>, handles: Handles) -> io::Result<Worker> {
    let (updates, received) = mpsc::channel(WORKER_UPDATES);
    let (alive, ended) = oneshot::channel();
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // Dropped when the thread ends, by a panic too.
        let _alive = alive;
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run(generation, handles, received)),
            Err(error) => tracing::error!(%error, "cannot make the worker's runtime"),
        }
    })?;
    Ok(Worker { updates, ended, is_over: false })
}

impl Worker {
    /// Has the worker serve a generation.
    pub async fn serve(&self, generation: &Arc<Generation>, sockets: Sockets) -> Answer {
        let (served, is_served) = oneshot::channel();
        let update = Update::Serve { generation: Arc::clone(generation), sockets, served };
        // A worker that has ended drops the answer, too.
        let _ended = self.updates.send(update).await;
        Answer(is_served)
    }

    /// Tells the worker to accept nothing more and to end.
    pub async fn drain(&self) {
        let _ended_already = self.updates.send(Update::Drain).await;
    }

    /// Waits until the worker's thread has ended.
    pub async fn ended(&mut self) {
        if !self.is_over {
            let _sender_dropped = (&mut self.ended).await;
            self.is_over = true;
        }
    }
}

/// A worker's answer to a generation.
#[must_use]
pub struct Answer(oneshot::Receiver<()>);

impl Answer {
    /// Resolves when the worker serves it and has cut what it does not let in any more, or has ended.
    pub async fn wait(self) {
        if timeout(WORKER_ANSWER, self.0).await.is_err() {
            tracing::error!(after = ?WORKER_ANSWER, "a worker does not answer");
        }
    }
}

struct Listening {
    door: watch::Sender<Door>,
    /// Tells the acceptor and its connections to finish, by being set or dropped.
    closing: watch::Sender<bool>,
}

async fn run(generation: Arc<Generation>, handles: Handles, mut updates: mpsc::Receiver<Update>) {
    let Handles { log, tracer, cells, handshakes, under_way, upstreams, drain_timeout } = handles;
    let gate = Rc::new(Gate::new(generation, Pool::new(upstreams), (log, tracer), cells, handshakes, under_way));
    let mut listeners: HashMap<ListenerKey, Listening> = HashMap::new();
    let mut acceptors = JoinSet::new();
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                Some(Update::Serve { generation, sockets, served }) => {
                    let before = Arc::clone(&gate.served().generation);
                    gate.serve(Arc::clone(&generation));
                    refresh(&mut listeners, &generation);
                    for (key, socket) in sockets {
                        match listen(&gate, &generation, &key, drain_timeout) {
                            Some((listening, acceptor)) => {
                                listeners.insert(key, listening);
                                acceptors.spawn_local(accept_on(acceptor, socket));
                            }
                            None => tracing::error!(address = %key.address, "a socket came for a listener that is not there"),
                        }
                    }
                    if generation.judges_anew(&before, gate.live.has_tunnels()) {
                        gate.live.review().await;
                    }
                    if generation.presents_another(&before) {
                        gate.live.rotate().await;
                    }
                    // Nobody waits any more where the process is ending.
                    let _told = served.send(());
                }
                Some(Update::Drain) | None => break,
            },
            Some(_ended) = acceptors.join_next() => {}
            () = gate.live.tend() => {}
        }
    }
    for listening in listeners.values() {
        listening.closing.send_replace(true);
    }
    // What is still open expires as ever.
    while !acceptors.is_empty() {
        tokio::select! {
            _ = acceptors.join_next() => {}
            () = gate.live.tend() => {}
        }
    }
}

/// Gives the listeners that stay the new generation's TLS settings, and tells those that go to finish.
fn refresh(listeners: &mut HashMap<ListenerKey, Listening>, generation: &Generation) {
    let keys = generation.listening();
    listeners.retain(|key, listening| {
        let stays = keys.contains(key);
        let next = door(generation, key, Some(&listening.door.borrow()));
        match next {
            Some(door) if stays => drop(listening.door.send_replace(door)),
            _ => drop(listening.closing.send_replace(true)),
        }
        stays
    });
}

fn door(generation: &Generation, key: &ListenerKey, before: Option<&Door>) -> Option<Door> {
    if key.protocol == Protocol::Http {
        return Some(Door::Open);
    }
    let context = generation.tls.get(generation.listener(key)?)?.as_ref()?;
    let before = before.and_then(|door| match door {
        Door::Open => None,
        Door::Tls(slots) => Some(&**slots),
    });
    Some(Door::Tls(Rc::new(Slots::new(Arc::clone(context), before))))
}

fn listen(
    gate: &Rc<Gate>,
    generation: &Generation,
    key: &ListenerKey,
    drain_timeout: Duration,
) -> Option<(Listening, Acceptor)> {
    let (door, newest) = watch::channel(door(generation, key, None)?);
    let (closing, is_closing) = watch::channel(false);
    let acceptor =
        Acceptor { gate: Rc::clone(gate), key: key.clone(), door: newest, closing: is_closing, drain_timeout };
    Some((Listening { door, closing }, acceptor))
}

async fn accept_on(acceptor: Acceptor, socket: std::net::TcpListener) {
    match TcpListener::from_std(socket) {
        Ok(listener) => acceptor.run(listener).await,
        Err(error) => tracing::error!(%error, "cannot accept on a socket"),
    }
}
