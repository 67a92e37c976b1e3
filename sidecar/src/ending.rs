//! How a connection is asked to end from outside, by whoever watches over it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use sidecar_decide::Reason;

/// What a connection was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing yet.
    Open,
    /// To take nothing new and to end when what it carries has ended.
    Finish,
    /// To end now, whatever it carries.
    Cut(Reason),
}

/// One connection's end, shared by those who ask for it and those who carry it out. It only gets nearer.
#[derive(Debug)]
pub struct Ending {
    asked: Cell<End>,
    /// Of whoever carries it out. Asked for whenever its connection is woken, so that it is no more than this.
    waiting: RefCell<Option<Waker>>,
}

impl Default for Ending {
    fn default() -> Self {
        Self { asked: Cell::new(End::Open), waiting: RefCell::default() }
    }
}

impl Ending {
    /// What was asked so far.
    pub fn asked(&self) -> End {
        self.asked.get()
    }

    /// Why the connection is cut, if it is.
    pub fn cut_reason(&self) -> Option<Reason> {
        match self.asked.get() {
            End::Cut(reason) => Some(reason),
            End::Open | End::Finish => None,
        }
    }

    /// Asks it to finish.
    pub fn finish(&self) {
        if self.asked.get() == End::Open {
            self.asked.set(End::Finish);
            self.wake();
        }
    }

    /// Asks it to end now. `false` where it was asked before: the first reason stays.
    pub fn cut(&self, reason: Reason) -> bool {
        let is_first = self.cut_reason().is_none();
        if is_first {
            self.asked.set(End::Cut(reason));
            self.wake();
        }
        is_first
    }

    /// Waits until more was asked than `known`. For one task at a time.
    pub async fn beyond(&self, known: End) -> End {
        poll_fn(|cx| {
            let asked = self.asked.get();
            if asked != known {
                return Poll::Ready(asked);
            }
            let mut waiting = self.waiting.borrow_mut();
            match &mut *waiting {
                Some(waiting) => waiting.clone_from(cx.waker()),
                None => *waiting = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Resolves when it has to end now. For what carries one thing only, so that being asked to finish changes nothing.
    pub async fn cut_short(&self) -> Reason {
        let mut known = End::Open;
        loop {
            known = self.beyond(known).await;
            if let End::Cut(reason) = known {
                return reason;
            }
        }
    }
}
