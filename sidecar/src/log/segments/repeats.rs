//! What a segment's bytes repeat, found for ruzstd to write down. Its own search knows only where something came first, and
//! only in the block of 128 KiB at hand; a row is most like those shortly before it.

use ruzstd::encoding::{CompressionLevel, Matcher, Sequence};

/// The largest block there is (RFC 8878 §3.1.1.2.4).
const BLOCK: usize = 128 << 10;

/// Bytes before a block that may be repeated in it: some thousand rows. More is no better.
const HISTORY: usize = 128 << 10;

/// Bytes that are worth a repeat, and that places are known by.
const LENGTH_MIN: usize = 5;

/// Places of the same first bytes that are known, the newest first. Four save 2 % of the bytes, for a fifth more of work.
const PLACES: usize = 2;

/// As many kinds of first bytes are told apart: with [`PLACES`] 128 KiB.
const KINDS_LOG: u32 = 14;

/// After so many bytes in which nothing repeats, one is passed over at each step, after twice as many two, up to
/// [`PASSED_MAX`]: what is sealed never does, and a row is longer.
const PASSED_AFTER: usize = 64;
const PASSED_MAX: usize = 16;

/// Bits that a repeat saves for each of its bytes, and that it takes besides those of its distance.
const BYTE_BITS: i64 = 6;
const REPEAT_BITS: i64 = 10;

/// Finds repeats by the first bytes of each place.
pub(super) struct Repeats {
    /// Up to [`HISTORY`] bytes, and the block.
    window: Vec<u8>,
    /// Where the block begins.
    block: usize,
    /// Number of the window's first byte; 0 is none.
    first: u32,
    places: Vec<[u32; PLACES]>,
    /// For the next block.
    space: Vec<u8>,
}

/// What is at a place was there before, so far back.
#[derive(Clone, Copy)]
struct Repeat {
    distance: usize,
    length: usize,
    /// Bits that are saved, by and large.
    gain: i64,
}

impl Repeats {
    pub(super) fn new() -> Self {
        let places = vec![[0; PLACES]; 1 << KINDS_LOG];
        Self { window: Vec::new(), block: 0, first: 1, places, space: Vec::new() }
    }

    /// Which places are known that begin like this one; `None` at the end.
    fn kind(&self, at: usize) -> Option<usize> {
        /// Makes all bits depend on all: 2⁶⁴ divided by the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let (eight, _) = self.window.get(at..)?.split_first_chunk()?;
        let first = u64::from_le_bytes(*eight) << (64 - 8 * LENGTH_MIN);
        usize::try_from(first.wrapping_mul(SPREAD) >> (64 - KINDS_LOG)).ok()
    }

    fn learn(&mut self, at: usize) {
        if let Some(kind) = self.kind(at) {
            let [newest, _] = self.places[kind];
            let number = self.first.wrapping_add(u32::try_from(at).unwrap_or_default());
            self.places[kind] = [number, newest];
        }
    }

    /// The best repeat at a place, if one saves anything; `last` is the distance of the one before, as rows have it again.
    fn find(&self, at: usize, last: usize) -> Option<Repeat> {
        let known = self.places[self.kind(at)?].iter();
        let known = known.map_while(|number| usize::try_from(number.checked_sub(self.first)?).ok());
        let here = &self.window[at..];
        let mut best: Option<Repeat> = None;
        for before in at.checked_sub(last).into_iter().chain(known).filter(|before| *before < at) {
            let beaten = best.map_or(LENGTH_MIN - 1, |best| best.length);
            // Places come ever further back, so that the same length is no better.
            if self.window[before + beaten..].first() != here.get(beaten) {
                continue;
            }
            let (length, distance) = (common(&self.window[before..], here), at - before);
            let gain = BYTE_BITS * i64::try_from(length).unwrap_or(0) - i64::from(distance.ilog2()) - REPEAT_BITS;
            if gain > best.map_or(0, |best| best.gain) && length >= LENGTH_MIN {
                best = Some(Repeat { distance, length, gain });
            }
        }
        best
    }
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let eights = one.chunks_exact(8).zip(other.chunks_exact(8)).take_while(|(one, other)| one == other).count() * 8;
    eights + one[eights..].iter().zip(&other[eights..]).take_while(|(one, other)| one == other).count()
}

impl Matcher for Repeats {
    fn get_next_space(&mut self) -> Vec<u8> {
        let mut space = std::mem::take(&mut self.space);
        space.resize(BLOCK, 0);
        space
    }

    fn get_last_space(&mut self) -> &[u8] {
        &self.window[self.block..]
    }

    fn commit_space(&mut self, space: Vec<u8>) {
        let gone = self.window.len().saturating_sub(HISTORY);
        self.window.drain(..gone);
        self.first = self.first.wrapping_add(u32::try_from(gone).unwrap_or_default());
        self.block = self.window.len();
        self.window.extend_from_slice(&space);
        self.space = space;
    }

    /// The block is one byte again and again, which nothing else repeats.
    fn skip_matching(&mut self) {}

    fn start_matching(&mut self, mut write: impl for<'a> FnMut(Sequence<'a>)) {
        let block = &self.window[self.block..];
        let same = block.iter().take_while(|byte| **byte == block[0]).count();
        // ruzstd panics where all that is left of a block is one byte again and again, or where nothing is left before any
        // repeat: its first bytes are left until two differ, as two do, or it were not asked.
        let (mut at, mut written, mut last) = (self.block + same + 1, self.block, 0);
        while at < self.window.len() {
            let found = self.find(at, last);
            self.learn(at);
            let Some(mut repeat) = found else {
                at += 1 + ((at - written) / PASSED_AFTER).min(PASSED_MAX);
                continue;
            };
            // One that begins a byte later may save more.
            if let Some(next) = self.find(at + 1, last).filter(|next| next.gain > repeat.gain + BYTE_BITS) {
                repeat = next;
                at += 1;
                self.learn(at);
            }
            let literals = &self.window[written..at];
            write(Sequence::Triple { literals, offset: repeat.distance, match_len: repeat.length });
            written = at + repeat.length;
            (at + 1..written).for_each(|place| self.learn(place));
            (at, last) = (written, repeat.distance);
        }
        if written < self.window.len() {
            write(Sequence::Literals { literals: &self.window[written..] });
        }
    }

    fn reset(&mut self, _: CompressionLevel) {
        *self = Self::new();
    }

    fn window_size(&self) -> u64 {
        (HISTORY + BLOCK) as u64
    }
}
