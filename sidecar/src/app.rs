//! The one composition root: binds everything, tells the real addresses, runs until it is told to stop.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use postern_telemetry::Exporter;
use sidecar_config::Size;
use sidecar_config::settings::Settings;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::admin::Asker;
use crate::admin::socket::{Held, SocketError};
use crate::config::{self, Change, Changes, Generation, Keeper, Publisher, Reading};
use crate::dns::Names;
use crate::health::Checker;
use crate::limit::Room;
use crate::limits::{
    BIND_RETRY, CONFIG_REST, FILES_RESERVED, HANDSHAKE_TIMEOUT, LOG_STOP_TIMEOUT, RESPONSE_HEAD_TIMEOUT, SHIP_STOP_MIN,
    STATE_STOP_TIMEOUT,
};
use crate::listener::{Binder, Handles, Sockets, Worker, spawn};
use crate::log::QUEUE_ROWS;
use crate::processors::Workers;
use crate::state::State;
use crate::telemetry::{self, Spans, Tracer};
use crate::upstream::Budget;
use crate::{admin, control_groups, log, memory, settings};

/// Sent where a file would grow beyond the process's limit (setrlimit(2)).
const SIGXFSZ: i32 = 25;

/// A running gate.
pub struct App {
    config: PathBuf,
    digest: [u8; 32],
    publisher: Publisher,
    changes: Changes,
    keeper: Option<Keeper>,
    binder: Binder,
    checker: Checker,
    names: Names,
    workers: Vec<Worker>,
    /// What is served now.
    generation: Arc<Generation>,
    state: Arc<State>,
    log: log::Writer,
    shipper: Option<log::Shipper>,
    traces: Option<Exporter>,
    status_address: SocketAddr,
    status_server: JoinHandle<()>,
    admin: Option<AdminSocket>,
    room: Room,
}

/// The admin socket while it is served.
struct AdminSocket {
    server: JoinHandle<()>,
    _held: Held,
}

/// Why it could not start or had to end.
#[derive(Debug, Error)]
pub enum AppError {
    /// The status port.
    #[error("cannot serve status on {address}: {why}; free the address or set settings.statusAddress")]
    StatusAddress {
        /// The address.
        address: SocketAddr,
        /// Why.
        why: io::Error,
    },
    /// The admin socket.
    #[error("cannot serve the admin socket {}: {why}", path.display())]
    AdminSocket {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: SocketError,
    },
    /// A thread or runtime.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A worker ended by itself. Its connections are gone and new ones would hang, so the process must end too.
    #[error("worker {0} ended")]
    WorkerEnded(usize),
}

impl App {
    /// Starts everything on what was read. Call it on a local tokio runtime.
    ///
    /// # Errors
    /// When a thread or the status port cannot be had. A listener that cannot be had is no error: it is not ready, says
    /// why, and is tried again.
    pub async fn start(config: &Path, settings: &Settings, reading: Reading) -> Result<Self, AppError> {
        let (room, upstreams) = room();
        let mut publisher = Publisher::new(config).listening_on(settings.listen_address).with_room(room);
        let nothing = Arc::new(publisher.nothing());
        let state = Arc::new(State::new(
            settings.clone(),
            Arc::clone(&nothing),
            publisher.states(),
            (Budget::new(upstreams), Arc::clone(publisher.ejections())),
        ));
        let status_server = serve_status(settings.status_address, &state).await?;
        let admin = settings::socket_path(settings, config).map(|path| serve_admin(&path, &state)).transpose()?;
        // Before the log: what is still to be sent is not to make room for anything.
        let shipper = settings::shipping(settings, config)
            .map(|options| log::start_shipper(options, Arc::clone(&state.log)).map_err(AppError::Thread))
            .transpose()?;
        let (sender, log) = start_log(config, settings, &state)?;
        let (spans, traces) = start_traces(settings, &state)?.unzip();
        let sampling_ratio = settings.tracing.as_ref().map(|tracing| tracing.sampling_ratio);
        let client_address = settings.log.client_address;
        let count = tell_limits(config, settings, &room, upstreams);
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let handles = Handles {
                log: sender.clone(),
                tracer: spans
                    .clone()
                    .zip(sampling_ratio)
                    .map(|(spans, ratio)| Tracer::new(spans, ratio, client_address)),
                cells: state.counted.worker(),
                handshakes: Arc::clone(&state.handshakes),
                under_way: state.under_way.clone(),
                upstreams: Arc::clone(&state.upstreams),
                drain_timeout: settings.drain_timeout.as_std(),
            };
            workers.push(spawn(index, Arc::clone(&nothing), handles).map_err(AppError::Thread)?);
        }
        let (status_address, status_server) = status_server;
        let state_path = settings::state_path(settings, config);
        let keeper = match &state_path {
            Some(folder) => Some(start_keeper(folder, &mut publisher, &state, &reading).map_err(AppError::Thread)?),
            None => None,
        };
        let mut app = Self {
            config: config.to_owned(),
            digest: [0; 32],
            publisher,
            changes: config::watch(&settings::log_path(settings, config), state_path.as_deref()),
            keeper,
            binder: Binder::new(count),
            names: Names::new(&settings.dns, Arc::clone(&state.lookups)),
            checker: Checker::new(Arc::clone(&state.checks)),
            workers,
            generation: nothing,
            state,
            log,
            shipper,
            traces,
            status_address,
            status_server,
            admin,
            room,
        };
        app.load(reading).await;
        Ok(app)
    }

    /// Where the status port is.
    pub fn status_address(&self) -> SocketAddr {
        self.status_address
    }

    /// Real addresses of the listeners, by name.
    pub fn listeners(&self) -> BTreeMap<String, SocketAddr> {
        let bound = self.binder.bound().iter();
        bound.map(|(key, address)| (self.generation.listener_name(key).to_string(), *address)).collect()
    }

    /// Serves and reloads until `stop` resolves, then drains.
    ///
    /// # Errors
    /// When a worker ended by itself.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let mut stop = std::pin::pin!(stop);
        let mut hangup = signal(SignalKind::hangup()).map_err(AppError::Thread)?;
        let state = Arc::clone(&self.state);
        let mut memory = std::pin::pin!(memory::give_back(&state.handshakes, &state.trims));
        // Handled, it does not end the process: the log's write fails instead, and is counted and tried again.
        let _file_size = signal(SignalKind::from_raw(SIGXFSZ)).map_err(AppError::Thread)?;
        loop {
            let retry = !self.binder.unbound().is_empty();
            tokio::select! {
                () = stop.as_mut() => break,
                change = self.changes.next() => match change {
                    Change::Noticed => self.reload().await,
                    Change::Due => self.compare().await,
                },
                _ = hangup.recv() => self.reload().await,
                () = self.names.changed() => self.renew().await,
                () = sleep(BIND_RETRY), if retry => self.bind_again().await,
                () = self.state.drain_asked() => {
                    tokio::select! {
                        () = self.drain() => {}
                        () = stop.as_mut() => break,
                    }
                    // Who asked, such as a preStop hook, is followed by whoever ends the process; until then it tells.
                    stop.as_mut().await;
                    break;
                }
                () = memory.as_mut() => {}
                index = any_ended(&mut self.workers) => return Err(AppError::WorkerEnded(index)),
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Accepts nothing more, and waits until what is under way has ended, or its time is over.
    async fn drain(&mut self) {
        tracing::info!("draining");
        self.state.drain();
        for worker in &self.workers {
            worker.drain().await;
        }
        for worker in &mut self.workers {
            worker.ended().await;
        }
        self.state.finish_drain();
        tracing::info!("drained");
    }

    async fn stop(mut self) {
        let grace_end = Instant::now() + self.state.settings.drain_timeout.as_std() + LOG_STOP_TIMEOUT;
        let keeper = self.keeper.take();
        let keeper = keeper.map(|keeper| tokio::task::spawn_blocking(move || keeper.stop(STATE_STOP_TIMEOUT)));
        if !self.state.is_drained() {
            self.drain().await;
        }
        // Nothing is sent to either any more, so what is queued now is all there is.
        let traces = self.traces.map(|traces| tokio::task::spawn_blocking(move || traces.stop()));
        let log = self.log;
        let summary = tokio::task::spawn_blocking(move || log.stop(LOG_STOP_TIMEOUT)).await.unwrap_or_default();
        let unshipped = match self.shipper {
            Some(shipper) => {
                let left = grace_end.saturating_duration_since(Instant::now()).max(SHIP_STOP_MIN);
                tokio::task::spawn_blocking(move || shipper.stop(left)).await.ok().flatten()
            }
            None => None,
        };
        tracing::info!(rows = summary.written, lost = summary.lost, unshipped, "stopped");
        if let Some(traces) = traces {
            let _counted = traces.await;
        }
        if let Some(keeper) = keeper {
            // It tells by itself what it could not write.
            let _told = keeper.await;
        }
        self.status_server.abort();
        if let Some(admin) = self.admin {
            admin.server.abort();
        }
    }

    /// Takes up a change that nobody told about, once it has rested.
    async fn compare(&mut self) {
        // What cannot be read now was told when it was noticed.
        let Ok(reading) = config::read(&self.config) else { return };
        let rested = reading.changed.is_none_or(|changed| changed.elapsed().is_ok_and(|age| age >= CONFIG_REST));
        if reading.digest != self.digest && rested {
            self.changes.forget();
            self.load(reading).await;
        }
    }

    async fn reload(&mut self) {
        match config::read(&self.config) {
            Ok(reading) if reading.digest == self.digest => {}
            Ok(reading) => self.load(reading).await,
            Err(error) => tracing::warn!(%error, "configuration not read; what is loaded stays in use"),
        }
    }

    /// Tries the listeners again whose address could not be had.
    async fn bind_again(&mut self) {
        let sockets = self.binder.reconcile(&self.generation);
        if !sockets.iter().all(Vec::is_empty) {
            self.spread(sockets).await;
            self.tell_ready(false);
        }
    }

    /// Gives every worker the generation with its new sockets, and tells the world when all of them serve it.
    async fn spread(&mut self, sockets: Vec<Sockets>) {
        let mut answers = Vec::with_capacity(self.workers.len());
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            answers.push(worker.serve(&self.generation, sockets).await);
        }
        for answer in answers {
            answer.wait().await;
        }
        self.checker.follow(&self.generation.endpoints, &self.generation.upstream_tls);
        let unbound = self.binder.unbound().iter();
        let unbound = unbound
            .map(|(key, why)| format!("listener {} on {}: {why}", self.generation.listener_name(key), key.address));
        let unbound = unbound.collect();
        self.state.load(Arc::clone(&self.generation), &self.publisher, unbound);
    }

    async fn load(&mut self, mut reading: Reading) {
        self.digest = reading.digest;
        self.changes.follow(&reading.folders, std::mem::take(&mut reading.names));
        let was_ready = self.state.not_ready().is_empty();
        let mut generation = self.publisher.offer(&mut reading);
        if self.names.follow(&generation.snapshot.names) {
            self.names.first().await;
            generation = self.publisher.relink(self.names.resolved());
        }
        self.serve(generation).await;
        // Served first, then kept: a revocation waits for no disk.
        if let Some(keeper) = &self.keeper {
            keeper.keep(self.publisher.accepted(), &mut reading);
        }
        self.tell_loaded();
        self.tell_ready(was_ready);
    }

    /// Serves the same with the addresses that names have now.
    async fn renew(&mut self) {
        let generation = self.publisher.relink(self.names.resolved());
        self.serve(generation).await;
    }

    async fn serve(&mut self, generation: Generation) {
        self.generation = Arc::new(generation);
        let sockets = self.binder.reconcile(&self.generation);
        self.spread(sockets).await;
    }

    fn tell_loaded(&self) {
        for finding in self.publisher.findings() {
            tracing::warn!(file = %finding.file.display(), "configuration: {}", finding.detail);
        }
        for misfit in self.room.misfits(&self.generation.snapshot.limits) {
            tracing::warn!("configuration: {misfit}");
        }
        for advice in self.publisher.advice() {
            tracing::warn!(file = %advice.file.display(), "configuration: {}", advice.detail);
        }
        let parts = self.publisher.states();
        for (part, state) in parts.named() {
            if let Some(since) = &state.kept_since {
                let why = state.why.as_deref().unwrap_or_default();
                tracing::warn!(part, since, why, "running on what was accepted last, from the state directory");
            }
        }
        tracing::info!(
            trust = parts.trust.loaded,
            identity = parts.identity.loaded,
            identities = parts.identities.loaded,
            policy = parts.policy.loaded,
            endpoints = parts.endpoints.loaded,
            "configuration loaded"
        );
    }

    fn tell_ready(&self, was_ready: bool) {
        match self.state.not_ready() {
            reasons if !reasons.is_empty() => tracing::warn!(reasons = reasons.join("; "), "not ready"),
            _ if !was_ready => tracing::info!("ready"),
            _ => {}
        }
    }
}

async fn any_ended(workers: &mut [Worker]) -> usize {
    let ended = workers.iter_mut().map(Worker::ended);
    let mut ended: Vec<_> = ended.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        let first = ended.iter_mut().position(|worker| worker.as_mut().poll(cx).is_ready());
        first.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    })
    .await
}

async fn serve_status(address: SocketAddr, state: &Arc<State>) -> Result<(SocketAddr, JoinHandle<()>), AppError> {
    let error = |why| AppError::StatusAddress { address, why };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    tracing::info!(%address, "status server listening");
    let accept = async move || Ok(listener.accept().await?.0);
    Ok((address, tokio::task::spawn_local(admin::serve(Asker::Anyone, accept, Arc::clone(state)))))
}

fn serve_admin(path: &Path, state: &Arc<State>) -> Result<AdminSocket, AppError> {
    let (listener, held) =
        admin::socket::bind(path).map_err(|why| AppError::AdminSocket { path: path.to_owned(), why })?;
    tracing::info!(path = %path.display(), "admin socket listening");
    let accept = async move || Ok(listener.accept().await?.0);
    let server = tokio::task::spawn_local(admin::serve(Asker::Owner, accept, Arc::clone(state)));
    Ok(AdminSocket { server, _held: held })
}

fn start_keeper(folder: &Path, publisher: &mut Publisher, state: &State, reading: &Reading) -> io::Result<Keeper> {
    let (keeper, kept) = Keeper::start(folder, Arc::clone(&state.kept))?;
    publisher.fall_back(kept);
    keeper.keep_settings(reading.settings.as_ref().map(|(_, settings)| settings));
    Ok(keeper)
}

/// Starts the thread that sends traces, if there are to be any.
fn start_traces(settings: &Settings, state: &State) -> Result<Option<(Spans, Exporter)>, AppError> {
    let Some((tracing, stats)) = settings.tracing.as_ref().zip(state.traces.as_ref()) else { return Ok(None) };
    telemetry::start(tracing, &settings.pod, Arc::clone(stats)).map(Some).map_err(AppError::Thread)
}

fn start_log(config: &Path, settings: &Settings, state: &State) -> Result<(log::Sender, log::Writer), AppError> {
    let flush_rows = usize::try_from(settings.log.flush_rows).unwrap_or(QUEUE_ROWS);
    let (sender, receiver) = log::channel(QUEUE_ROWS, flush_rows, Arc::clone(&state.log));
    let options = log::WriterOptions {
        path: settings::log_path(settings, config),
        flush_every: settings.log.flush_every.as_std(),
        sizes: settings::log_sizes(settings),
        pod: settings.pod.clone(),
        client_address: settings.log.client_address,
        chain: settings::log_chain(settings, config),
        body_key: Some(settings::log_body_key(settings, config)),
    };
    let sender = sender.keeping(settings.log.allowed_ratio).salting(settings::capture_salt(settings, config));
    Ok((sender, log::start(options, receiver).map_err(AppError::Thread)?))
}

/// Tells within which limits this process works, and how many workers it starts.
fn tell_limits(config: &Path, settings: &Settings, room: &Room, upstream_connections: usize) -> usize {
    let (connections, connections_why) = room.connections();
    let Workers { count, why } = settings::workers(settings);
    tracing::info!(
        workers = count,
        workers_why = %why,
        connections,
        %connections_why,
        memory_limit = room.memory.map(|bytes| Size::from_bytes(bytes).to_string()),
        upstream_connections,
        log = %settings::log_path(settings, config).display(),
        log_queue_rows = QUEUE_ROWS,
        log_max_size = %settings.log.max_size,
        handshake_timeout = ?HANDSHAKE_TIMEOUT,
        response_head_timeout = ?RESPONSE_HEAD_TIMEOUT,
        drain_timeout = %settings.drain_timeout,
        "limits"
    );
    count
}

/// How much clients may take, and how many connections to upstreams there may be. Raises the limit of open files as far as
/// it goes, and shares it out between both; what is reserved stays free for configuration, log and status port.
fn room() -> (Room, usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = if raised.is_ok() { limit.maximum } else { limit.current };
    let half = files.map_or(u64::MAX, |files| files.saturating_sub(FILES_RESERVED) / 2).max(1);
    let room = Room { memory: control_groups::memory_limit(), files: u32::try_from(half).unwrap_or(u32::MAX) };
    (room, usize::try_from(half).unwrap_or(usize::MAX))
}
