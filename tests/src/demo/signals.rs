//! Ctrl-C and its relatives: they end the demo in order, at the next step.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches for SIGINT, SIGTERM and SIGHUP, which a closing terminal sends.
pub(crate) struct Signals {
    raised: Arc<AtomicBool>,
    first: mpsc::Receiver<()>,
}

/// A signal asked for the end.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Signals {
    /// Takes the signals over from their default, which would leave everything behind.
    pub(crate) fn watch() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let mut signals = Vec::new();
        for kind in kinds {
            signals.push(signal(kind).context("watch for signals")?);
        }
        drop(guard);
        let raised = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&raised);
        let (sender, first) = mpsc::channel();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(any(signals));
            flag.store(true, Ordering::SeqCst);
            // Nobody listens any more when the demo is at its end.
            let _ = sender.send(());
        })?;
        Ok(Self { raised, first })
    }

    /// Fails if a signal came; called between any two steps.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.raised.load(Ordering::SeqCst) { Err(Interrupted) } else { Ok(()) }
    }

    /// Waits for a signal.
    pub(crate) fn wait(&self) -> Result<()> {
        self.first.recv().context("the thread that watches for signals ended")
    }
}

async fn any(signals: Vec<Signal>) {
    let mut waiting = tokio::task::JoinSet::new();
    for mut signal in signals {
        waiting.spawn(async move { signal.recv().await });
    }
    waiting.join_next().await;
}
