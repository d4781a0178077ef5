//! Random numbers of the system that repeat themselves, so that the hash maps of a thread do, too.
//!
//! The order of a `HashMap` follows from keys that the standard library gets once for each thread from `getrandom`. A
//! test that links this crate has its own `getrandom`: on a thread with a seed its numbers follow from the seed, on
//! all others they come from the system. So the order of every hash map is part of what a seed fixes, those of
//! libraries too, and another seed tries another order. For tests only.

use std::{cell::Cell, ffi::c_uint, fs::File, io::Read, slice};

thread_local! {
    /// The state of the generator of this thread, once it has a seed.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on the random numbers of the system repeat themselves on this thread. The keys of hash maps are taken when
/// the thread makes its first one, so this must come before.
pub fn seed_thread(seed: u64) {
    STATE.set(Some(seed));
}

/// In place of the function of the C library, whose signature and results it has (man 2 getrandom).
///
/// # Safety
/// `buffer` points at `length` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: c_uint) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: as the caller promises, and there is at least one byte, so the pointer is not null
    let bytes = unsafe { slice::from_raw_parts_mut(buffer, length) };
    match STATE.get() {
        Some(state) => STATE.set(Some(fill(bytes, state))),
        None if from_system(bytes).is_err() => return -1,
        None => {}
    }
    // no slice is longer than this
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// Fills the bytes with numbers that follow from the state (SplitMix64); returns the next state.
fn fill(bytes: &mut [u8], mut state: u64) -> u64 {
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
    }
    state
}

fn from_system(bytes: &mut [u8]) -> std::io::Result<()> {
    File::open("/dev/urandom")?.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    /// The order of a set that a new thread makes.
    fn order(seed: Option<u64>) -> Vec<u32> {
        let made = thread::spawn(move || {
            seed.into_iter().for_each(seed_thread);
            (0..100).collect::<HashSet<u32>>().into_iter().collect()
        });
        made.join().expect("no panic")
    }

    #[test]
    fn order_of_hash_maps_follows_from_the_seed() {
        assert_eq!(order(Some(7)), order(Some(7)));
        assert_ne!(order(Some(7)), order(Some(8)));
    }

    #[test]
    fn threads_without_a_seed_are_random() {
        assert_ne!(order(None), order(None));
    }
}
