//! Bodies that rows keep: copies of what passes, clipped, within a bound of memory that all of them share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Bytes of bodies that are held at once, of requests under way and of rows that wait to be written: a sixteenth of the
/// 64 MiB that a sidecar usually has, and 256 requests with 8 KiB each way.
pub const BODIES_BYTES: usize = 4 << 20;

/// The least that is taken of it for a body: most grow no further.
const LEAST: usize = 512;

/// Why a body is not in its row. Closed: a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// There is no key to seal it with.
    NoKey,
    /// Others take [`BODIES_BYTES`] already.
    Memory,
}

impl Missed {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::NoKey, Self::Memory];

    /// The word in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::Memory => "memory",
        }
    }
}

/// What all bodies share.
#[derive(Debug, Default)]
pub struct BodyRoom {
    has_key: AtomicBool,
    held: AtomicUsize,
    missed: [AtomicU64; Missed::ALL.len()],
}

impl BodyRoom {
    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bodies that were to be kept and are not, for `reason`.
    pub fn missed(&self, reason: Missed) -> u64 {
        self.missed[reason as usize].load(Ordering::Relaxed)
    }

    /// There is a key.
    pub(super) fn has_key(&self) {
        self.has_key.store(true, Ordering::Relaxed);
    }

    pub(super) fn miss(&self, reason: Missed) {
        let before = self.missed[reason as usize].fetch_add(1, Ordering::Relaxed);
        if reason == Missed::NoKey && before == 0 {
            tracing::warn!("a route's rows are to keep bodies, and there is no key: see settings.log.bodyKeyFile");
        }
    }

    fn take(&self, bytes: usize) -> Result<(), Missed> {
        if !self.has_key.load(Ordering::Relaxed) {
            return Err(Missed::NoKey);
        }
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= BODIES_BYTES);
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| Missed::Memory)
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A copy of a body's beginning, made as the body passes.
#[derive(Debug)]
pub struct Copied {
    room: Arc<BodyRoom>,
    bytes: Vec<u8>,
    /// Bytes that it has of the room.
    taken: usize,
    /// Bytes of it at most; none once it is missed.
    most: usize,
    whole: u64,
}

impl Copied {
    /// Of a body that has not begun: its first `most` bytes.
    #[must_use]
    pub fn new(room: &Arc<BodyRoom>, most: usize) -> Self {
        Self { room: Arc::clone(room), bytes: Vec::new(), taken: 0, most, whole: 0 }
    }

    /// Copies of what passes as much as is wanted. Where there is no room for it, nothing of the body is kept.
    pub fn feed(&mut self, data: &[u8]) {
        self.whole += data.len() as u64;
        let wanted = data.len().min(self.most.saturating_sub(self.bytes.len()));
        if wanted == 0 {
            return;
        }
        match self.grow(wanted) {
            Ok(()) => self.bytes.extend_from_slice(&data[..wanted]),
            Err(reason) => {
                self.room.miss(reason);
                self.room.give_back(self.taken);
                (self.bytes, self.taken, self.most) = (Vec::new(), 0, 0);
            }
        }
    }

    fn grow(&mut self, more: usize) -> Result<(), Missed> {
        let needed = self.bytes.len() + more;
        if needed > self.taken {
            let taken = needed.next_power_of_two().max(LEAST).min(self.most);
            self.room.take(taken - self.taken)?;
            self.taken = taken;
            self.bytes.reserve_exact(taken - self.bytes.len());
        }
        Ok(())
    }

    /// The beginning.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of all of it that passed.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.room.give_back(self.taken);
    }
}

/// What a row keeps of its bodies.
#[derive(Debug)]
pub struct Bodies {
    pub(super) request: Option<Copied>,
    pub(super) response: Option<Copied>,
}

impl Bodies {
    /// Those that are there.
    #[must_use]
    pub fn of(request: Option<Copied>, response: Option<Copied>) -> Option<Arc<Self>> {
        let [request, response] = [request, response].map(|body| body.filter(|body| !body.bytes.is_empty()));
        (request.is_some() || response.is_some()).then(|| Arc::new(Self { request, response }))
    }

    /// Bytes of both.
    pub(super) fn bytes(&self) -> usize {
        [&self.request, &self.response].into_iter().flatten().map(|body| body.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Arc<BodyRoom> {
        let room = BodyRoom::default();
        room.has_key();
        Arc::new(room)
    }

    #[test]
    fn of_a_body_its_beginning_is_copied_and_all_of_it_counted() {
        let table: [(usize, &[&str], &str, u64); 6] = [
            (8, &[], "", 0),
            (8, &["", ""], "", 0),
            (8, &["abc", "", "def"], "abcdef", 6),
            (8, &["abcdefgh"], "abcdefgh", 8),
            (8, &["abcdef", "ghi", "j"], "abcdefgh", 10),
            (1, &["abc"], "a", 3),
        ];
        for (most, pieces, kept, whole) in table {
            let room = room();
            let mut copied = Copied::new(&room, most);
            pieces.iter().for_each(|piece| copied.feed(piece.as_bytes()));
            assert_eq!((copied.bytes(), copied.whole()), (kept.as_bytes(), whole), "{pieces:?}");
            assert!(room.held_bytes() <= most && room.held_bytes() >= kept.len(), "{} held", room.held_bytes());
            assert_eq!(Bodies::of(Some(copied), None).map(|bodies| bodies.bytes()).unwrap_or(0), kept.len());
            assert_eq!(room.held_bytes(), 0, "all is given back");
        }
    }

    #[test]
    fn bodies_take_no_more_memory_than_all_may_and_who_has_none_is_counted() {
        const EACH: usize = 64 << 10;
        let room = room();
        let mut held: Vec<_> = (0..BODIES_BYTES / EACH + 3).map(|_| Copied::new(&room, EACH)).collect();
        for piece in 0..16 {
            held.iter_mut().for_each(|copied| copied.feed(&[piece; EACH / 16]));
            assert!(room.held_bytes() <= BODIES_BYTES);
        }
        let whole = held.iter().filter(|copied| copied.bytes().len() == EACH).count();
        let none = held.iter().filter(|copied| copied.bytes().is_empty()).count();
        assert_eq!(whole + none, held.len(), "a body is kept to its bound, or not at all");
        assert_eq!(room.missed(Missed::Memory), none as u64);
        assert!(none >= 3 && whole > 0, "{none} of {}", held.len());
        assert!(held.iter().all(|copied| copied.whole() == EACH as u64));
        drop(held);
        assert_eq!(room.held_bytes(), 0);
        let mut next = Copied::new(&room, EACH);
        next.feed(b"x");
        assert_eq!((next.bytes(), room.missed(Missed::NoKey)), (&b"x"[..], 0));
    }

    #[test]
    fn without_a_key_nothing_is_copied() {
        let room = Arc::new(BodyRoom::default());
        let mut copied = Copied::new(&room, 100);
        copied.feed(b"");
        assert_eq!(room.missed(Missed::NoKey), 0, "there is no body yet");
        copied.feed(b"secret");
        copied.feed(b"secret");
        assert_eq!((room.missed(Missed::NoKey), room.held_bytes()), (1, 0));
        assert!(Bodies::of(Some(copied), Some(Copied::new(&room, 100))).is_none());
    }
}
