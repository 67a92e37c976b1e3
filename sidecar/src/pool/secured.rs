//! The connections with TLS of one shelf, in use or idle, judged anew when trust or the gate's certificate changes.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sidecar_decide::Reason;

use crate::limits::CLOCK_CHECK;
use crate::protocol::Wire;
use crate::tls::{Secured, UpstreamStanding, UpstreamTls};

/// What is known of a connection with TLS, for as long as it lives.
pub(super) struct SecuredLine {
    secured: Secured,
    wire: Rc<Wire>,
    is_old: Cell<bool>,
}

impl SecuredLine {
    /// Whether it takes no further request.
    pub(super) fn is_done(&self) -> bool {
        self.is_old.get() || self.wire.failure().is_some() || self.left().is_zero()
    }

    /// The time until the server's certificate has expired.
    fn left(&self) -> Duration {
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(self.secured.expires()));
        // So late that there is no such time: never.
        expires.map_or(Duration::MAX, |expires| expires.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// TLS as a shelf speaks it today, and what was made with it.
#[derive(Default)]
pub(super) struct SecuredLines {
    tls: RefCell<Option<Arc<UpstreamTls>>>,
    lines: RefCell<Vec<Weak<SecuredLine>>>,
}

impl SecuredLines {
    /// What new connections are made with; `None` where none can be.
    pub(super) fn tls(&self) -> Option<Arc<UpstreamTls>> {
        self.tls.borrow().clone()
    }

    /// Watches over a new connection that was made with `tls`.
    pub(super) fn enter(&self, secured: Secured, wire: &Rc<Wire>) -> Rc<SecuredLine> {
        let line = Rc::new(SecuredLine { secured, wire: Rc::clone(wire), is_old: Cell::new(false) });
        // What was served may have changed while it was being made.
        self.judge(&line);
        let mut lines = self.lines.borrow_mut();
        if lines.len() == lines.capacity() {
            lines.retain(|line| line.strong_count() > 0);
        }
        lines.push(Rc::downgrade(&line));
        line
    }

    /// Speaks it so from now on. Connections that would not be made any more are cut; those that show another
    /// certificate of the gate end with their request.
    pub(super) fn serve(&self, tls: Option<&Arc<UpstreamTls>>) {
        let is_same = match (&*self.tls.borrow(), tls) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !is_same {
            *self.tls.borrow_mut() = tls.cloned();
            self.each(|line| self.judge(line));
        }
    }

    fn judge(&self, line: &SecuredLine) {
        let standing = self.tls.borrow().as_ref().map(|tls| tls.standing(&line.secured));
        match standing {
            Some(UpstreamStanding::Good) => {}
            Some(UpstreamStanding::Old) => line.is_old.set(true),
            Some(UpstreamStanding::Refused(reason)) => line.wire.cut(reason),
            None => line.wire.cut(Reason::UpstreamTls),
        }
    }

    /// Cuts those whose certificate has expired; when to look again, while there are any.
    pub(super) fn expire(&self) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        self.each(|line| {
            let left = line.left();
            if left.is_zero() {
                line.wire.cut(Reason::UpstreamTlsExpired);
            } else {
                // The wall clock may be set.
                let left = left.min(CLOCK_CHECK);
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        });
        next
    }

    fn each(&self, mut visit: impl FnMut(&SecuredLine)) {
        self.lines.borrow_mut().retain(|line| line.upgrade().inspect(|line| visit(line)).is_some());
    }
}
