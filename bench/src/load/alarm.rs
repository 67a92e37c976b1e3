//! Waking on time: the runtime's own timers are late by a millisecond, which is more than an answer takes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A timer of the kernel.
pub(super) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// One that is not set. Within a runtime.
    #[expect(
        deprecated,
        reason = "what came in its place is unsafe, and what it is about a file of one's own does not do"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Waits until then; not at all where that is over.
    pub(super) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec::try_from(left).map_err(io::Error::other)?;
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value })?;
        loop {
            let mut ready = self.0.readable().await?;
            // How often it went off: once.
            let mut times = [0; size_of::<u64>()];
            if let Ok(read) = ready.try_io(|timer| Ok(read(timer, &mut times)?)) {
                return read.map(drop);
            }
        }
    }
}
