//! The program's allocator: the system's, before which each worker keeps what it freed for what it allocates next.
//!
//! A request allocates some two dozen times, with the same sizes as the request before. The C library keeps small blocks for
//! their thread, too, but few of each size and none above 1 KiB: what a future, a read buffer and many requests at once
//! need goes through its arena, is joined with its neighbours and cut again. With this a request costs a tenth less.
//!
//! Unsafe, as every allocator. What it keeps is bounded, for each worker, and it knows nothing of blocks but their layout.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

use crate::limits::{KEPT_BLOCKS, KEPT_BYTES};

/// The allocator.
pub struct Allocator;

/// The C library's alignment: what needs more is not kept.
const ALIGNMENT: usize = 16;
/// Between the sizes of small blocks.
const STEP: usize = 16;
/// Of each small block the C library takes so much itself: sizes are such that nothing is lost.
const HEADER: usize = 8;
/// Sizes of small blocks: 24, 40, … 1032.
const SMALL_SIZES: usize = 64;
const SMALL_MAX: usize = SMALL_SIZES * STEP + HEADER;
/// Larger ones are kept by their exact size, up to this one, which a full record of TLS fits in.
const LARGE_MAX: usize = 20 << 10;
/// Different sizes of those that are kept at a time.
const LARGE_SIZES: usize = 16;

/// From now on the calling thread keeps blocks. They are lost when it ends: for threads that do not.
pub fn keep_blocks() {
    KEPT.with(|kept| kept.room.set(KEPT_BYTES));
}

/// Gives back to the system what the calling thread keeps.
pub fn give_back_blocks() {
    KEPT.with(Kept::give_back);
}

thread_local! {
    /// Needs no destructor, so that it is there as long as the thread.
    static KEPT: Kept = const { Kept::new() };
}

/// Free blocks of one thread.
struct Kept {
    small: [List; SMALL_SIZES],
    large: [List; LARGE_SIZES],
    /// Bytes that may still be kept; none in a thread that keeps nothing.
    room: Cell<usize>,
}

/// Free blocks of one size, each of which begins with the address of the next.
struct List {
    first: Cell<*mut u8>,
    count: Cell<usize>,
    /// Their size; of large ones only while there are any.
    bytes: Cell<usize>,
}

/// Where a block belongs.
#[derive(Clone, Copy)]
enum Place {
    Small(usize),
    Large(usize),
    Nowhere,
}

impl Kept {
    const fn new() -> Self {
        Self {
            small: [const { List::new() }; SMALL_SIZES],
            large: [const { List::new() }; LARGE_SIZES],
            room: Cell::new(0),
        }
    }

    fn list(&self, place: Place) -> Option<&List> {
        match place {
            Place::Small(index) => self.small.get(index),
            Place::Large(index) => self.large.get(index),
            Place::Nowhere => None,
        }
    }

    /// A block of these many bytes, or null.
    fn take(&self, place: Place, bytes: usize) -> *mut u8 {
        self.list(place).map_or(ptr::null_mut(), |list| self.take_from(list, bytes))
    }

    fn take_from(&self, list: &List, bytes: usize) -> *mut u8 {
        let block = list.first.get();
        if block.is_null() || list.bytes.get() != bytes {
            return ptr::null_mut();
        }
        // SAFETY: a block in the list begins with what `keep` wrote there, and nobody else has it.
        list.first.set(unsafe { block.cast::<*mut u8>().read() });
        list.count.set(list.count.get() - 1);
        self.room.set(self.room.get() + bytes);
        block
    }

    fn give_back(&self) {
        for list in self.small.iter().chain(&self.large) {
            loop {
                let bytes = list.bytes.get();
                let block = self.take_from(list, bytes);
                if block.is_null() {
                    break;
                }
                // SAFETY: what is kept was made with this layout, and is nobody's.
                unsafe { System.dealloc(block, kept_layout(bytes)) };
            }
        }
    }

    /// Keeps a block of these many bytes, if there is room.
    ///
    /// # Safety
    /// The block is free, of that size, aligned to [`ALIGNMENT`], and from the system's allocator.
    unsafe fn keep(&self, place: Place, block: *mut u8, bytes: usize) -> bool {
        let Some(list) = self.list(place) else { return false };
        let count = list.count.get();
        let is_ours = count == 0 || list.bytes.get() == bytes;
        if self.room.get() < bytes || count >= KEPT_BLOCKS || !is_ours {
            return false;
        }
        // SAFETY: the block is the caller's to give, is aligned for a pointer and larger than one.
        unsafe { block.cast::<*mut u8>().write(list.first.get()) };
        list.first.set(block);
        list.bytes.set(bytes);
        list.count.set(count + 1);
        self.room.set(self.room.get() - bytes);
        true
    }
}

impl List {
    const fn new() -> Self {
        Self { first: Cell::new(ptr::null_mut()), count: Cell::new(0), bytes: Cell::new(0) }
    }
}

/// Where a block of this layout belongs, and as what it is made. Whichever thread asks: blocks wander.
fn place_of(layout: Layout) -> (Place, Layout) {
    let bytes = layout.size();
    if layout.align() > ALIGNMENT || bytes > LARGE_MAX {
        return (Place::Nowhere, layout);
    }
    if bytes > SMALL_MAX {
        return (Place::Large(large_index(bytes)), kept_layout(bytes));
    }
    let index = (bytes.max(STEP) - HEADER - 1) / STEP;
    (Place::Small(index), kept_layout((index + 1) * STEP + HEADER))
}

/// As what blocks of this size are made, which is at most [`LARGE_MAX`].
fn kept_layout(bytes: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and the size is nowhere near the largest.
    unsafe { Layout::from_size_align_unchecked(bytes, ALIGNMENT) }
}

/// Sizes that are powers of two must not meet.
#[inline]
fn large_index(bytes: usize) -> usize {
    (bytes.wrapping_mul(0x9e37_79b9) >> 20) % LARGE_SIZES
}

// SAFETY: blocks are the system's, at least as large as asked for and as aligned. `place_of` alone decides how large a block
// is made, by its layout, so that every thread knows from the layout how large a block is. A block that is kept is in one
// list, and is taken out before it is anybody's again. Nothing here allocates or panics.
unsafe impl GlobalAlloc for Allocator {
    // Calls, all of them: there are thousands of places, and in line they are a quarter of a megabyte.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (place, layout) = place_of(layout);
        let kept = KEPT.with(|kept| kept.take(place, layout.size()));
        // SAFETY: the caller's layout has a size, and this one is no smaller.
        if kept.is_null() { unsafe { System.alloc(layout) } } else { kept }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (place, layout) = place_of(layout);
        // SAFETY: the block was made by `alloc` with this layout, so that it has this size, and nobody uses it any more.
        if !KEPT.with(|kept| unsafe { kept.keep(place, block, layout.size()) }) {
            // SAFETY: as above; `alloc` has asked the system for this layout.
            unsafe { System.dealloc(block, layout) };
        }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGE_MAX {
            // SAFETY: the caller's layout has a size. Fresh pages of the system are zero already.
            return unsafe { System.alloc_zeroed(place_of(layout).1) };
        }
        // SAFETY: as above.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is at least as large as its layout.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller says that the new size is one of a layout of this alignment.
        let next = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (place_of(layout), place_of(next)) {
            ((Place::Nowhere, _), (Place::Nowhere, _)) => {
                // SAFETY: the system made the block with this layout, and makes it one with the other size.
                return unsafe { System.realloc(block, layout, bytes) };
            }
            ((_, made), (_, wanted)) if made == wanted => return block,
            _ => {}
        }
        // SAFETY: as the caller says of its layouts; the blocks are two, and what is copied is in both.
        unsafe {
            let moved = self.alloc(next);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(bytes));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};
    use std::{ptr, thread};

    use super::{Allocator, KEPT, LARGE_MAX, Place, SMALL_MAX, give_back_blocks, keep_blocks, place_of};
    use crate::limits::{KEPT_BLOCKS, KEPT_BYTES};

    /// On a thread of its own, which keeps blocks.
    fn keeping<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        let kept = thread::spawn(|| {
            keep_blocks();
            act()
        });
        kept.join().unwrap()
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 8).unwrap()
    }

    fn room() -> usize {
        KEPT.with(|kept| kept.room.get())
    }

    #[test]
    fn a_block_is_at_least_as_large_as_asked_for_and_known_by_its_layout() {
        for bytes in (1..=LARGE_MAX + 100).step_by(3) {
            let (place, made) = place_of(layout(bytes));
            assert!(made.size() >= bytes && made.size() < bytes + 24, "{bytes}");
            assert_eq!(matches!(place, Place::Small(_)), bytes <= SMALL_MAX, "{bytes}");
            assert_eq!(matches!(place, Place::Nowhere), bytes > LARGE_MAX, "{bytes}");
            // A block is asked for again as what it was made.
            assert_eq!(place_of(made).1.size(), made.size(), "{bytes}");
        }
        assert!(matches!(place_of(Layout::from_size_align(64, 64).unwrap()).0, Place::Nowhere));
    }

    #[test]
    fn what_was_freed_is_given_out_again_as_what_fits_only() {
        let table = [
            (24, 1, true),
            (24, 25, false),
            (500, 489, true),
            (500, 488, false),
            (SMALL_MAX, SMALL_MAX + 1, false),
            (6152, 6152, true),
            (6152, 6150, false),
            (LARGE_MAX, LARGE_MAX, true),
        ];
        for (freed, asked, is_same) in table {
            let same = keeping(move || {
                // SAFETY: each block is freed once, with its own layout.
                unsafe {
                    let first = Allocator.alloc(layout(freed));
                    Allocator.dealloc(first, layout(freed));
                    let second = Allocator.alloc(layout(asked));
                    let same = first == second;
                    Allocator.dealloc(second, layout(asked));
                    same
                }
            });
            assert_eq!(same, is_same, "{freed} {asked}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        for bytes in [24, 1000, 6152, LARGE_MAX] {
            let (begun, full) = keeping(move || {
                let begun = room();
                // SAFETY: each block is freed once, with its own layout.
                unsafe {
                    let blocks: Vec<_> = (0..KEPT_BLOCKS * 3).map(|_| Allocator.alloc(layout(bytes))).collect();
                    blocks.iter().for_each(|block| Allocator.dealloc(*block, layout(bytes)));
                }
                (begun, room())
            });
            assert_eq!(begun, KEPT_BYTES);
            assert!(KEPT_BYTES - full <= KEPT_BLOCKS * (bytes + 24), "{bytes}");
        }
        let left = keeping(|| {
            // SAFETY: the block is freed once, with its own layout.
            unsafe { Allocator.dealloc(Allocator.alloc(layout(100)), layout(100)) };
            let kept = KEPT_BYTES - room();
            give_back_blocks();
            (kept, KEPT_BYTES - room())
        });
        assert_eq!(left, (104, 0));
        // A thread that was not told to keeps nothing.
        assert_eq!(thread::spawn(room).join().unwrap(), 0);
    }

    #[test]
    fn bytes_stay_what_they_are_while_blocks_grow_shrink_and_wander() {
        keeping(|| {
            // SAFETY: each block is used up to its size, and freed once with its last layout.
            unsafe {
                let mut sizes =
                    [1, 17, 24, 25, 1000, 1032, 1033, 6000, 6152, LARGE_MAX, LARGE_MAX + 1, 1 << 20, 300, 5];
                for _ in 0..3 {
                    let mut bytes = sizes[0];
                    let mut block = Allocator.alloc_zeroed(layout(bytes));
                    assert_eq!(block.read(), 0);
                    block.write(7);
                    for next in sizes {
                        block = Allocator.realloc(block, layout(bytes), next);
                        bytes = next;
                        assert_eq!(block.read(), 7, "{next}");
                        block.add(1).write_bytes(9, next - 1);
                    }
                    let address = block.expose_provenance();
                    let free = move || Allocator.dealloc(ptr::with_exposed_provenance_mut(address), layout(bytes));
                    thread::spawn(free).join().unwrap();
                    sizes.reverse();
                }
            }
        });
    }
}
