//! The memory contract: how bytes of guest RAM are accessed by everything that is not compiled code.
//!
//! * A load is acquired and a store released, unless it is [`AccessFlags::RELAXED`]. On hosts with total store order all are
//!   plain accesses, so that x86 guests get their own model and RISC-V guests a stronger one; on others they are the host's
//!   ordered accesses. Compiled code keeps the same order, by the same flags.
//! * An access whose address is a multiple of its size is never seen in parts, up to 8 bytes.
//! * [`compare_and_swap`] and [`update`] are atomic with respect to every access of all threads, compiled code included, and
//!   sequentially consistent. An operand that is no multiple of its size is the host's locked instruction's work on x86-64 hosts
//!   (SDM vol. 3A, 9.1.2.2), across pages too that follow one another on the host. What the host has no instruction for is
//!   refused, and done in an exclusive section instead ([`crate::exclusive`]).
//!
//! Values are numbers; guest memory is little-endian on every host.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use bitflags::bitflags;

bitflags! {
    /// What a load or store of a vCPU asks for; with no flag it is in total store order. The numbers are those of the flags that
    /// memory ops carry.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct AccessFlags: u8 {
        /// The load is the first half of a read-modify-write: write permission is checked too.
        const FOR_WRITE = 1;
        /// It needs no order among other accesses.
        const RELAXED = 2;
    }
}

/// Whether each load and store of the host is in total store order, so that none has to ask for it.
const TOTAL_STORE_ORDER: bool = cfg!(any(target_arch = "x86_64", target_arch = "s390x"));

impl AccessFlags {
    /// Whether the access is one of the host's ordered ones. Where the host has total store order they all are: asking for it
    /// costs nothing there, and looking at the flag would.
    const fn ordered(self, total_store_order: bool) -> bool {
        total_store_order || !self.contains(AccessFlags::RELAXED)
    }
}

/// An integer that guest memory holds.
pub(crate) trait Int: Copy {
    /// Reads at `p`, acquired if `ordered`.
    ///
    /// # Safety
    /// `p` points at so many readable bytes of guest RAM.
    unsafe fn read(p: *const u8, ordered: bool) -> Self;

    /// Writes at `p`, released if `ordered`.
    ///
    /// # Safety
    /// `p` points at so many writable bytes of guest RAM.
    unsafe fn write(self, p: *mut u8, ordered: bool);

    /// Stores `new` at `p` if `expected` is there; what was there.
    ///
    /// # Safety
    /// `p` points at so many writable bytes of guest RAM, and is a multiple of their number.
    unsafe fn swap_aligned(p: *mut u8, expected: Self, new: Self) -> Self;
}

macro_rules! int {
    ($int:ty, $atomic:ty) => {
        impl Int for $int {
            #[inline(always)]
            unsafe fn read(p: *const u8, ordered: bool) -> $int {
                let value = if (p as usize).is_multiple_of(size_of::<$int>()) {
                    let order = if ordered { Ordering::Acquire } else { Ordering::Relaxed };
                    // SAFETY: readable by the caller's promise, and aligned; atomics are the only references made.
                    unsafe { <$atomic>::from_ptr(p.cast_mut().cast()) }.load(order)
                } else {
                    // SAFETY: readable by the caller's promise.
                    let value = unsafe { p.cast::<$int>().read_unaligned() };
                    if ordered {
                        fence(Ordering::Acquire);
                    }
                    value
                };
                <$int>::from_le(value)
            }

            #[inline(always)]
            unsafe fn write(self, p: *mut u8, ordered: bool) {
                if (p as usize).is_multiple_of(size_of::<$int>()) {
                    let order = if ordered { Ordering::Release } else { Ordering::Relaxed };
                    // SAFETY: writable by the caller's promise, and aligned; atomics are the only references made.
                    unsafe { <$atomic>::from_ptr(p.cast()) }.store(self.to_le(), order);
                } else {
                    if ordered {
                        fence(Ordering::Release);
                    }
                    // SAFETY: writable by the caller's promise.
                    unsafe { p.cast::<$int>().write_unaligned(self.to_le()) };
                }
            }

            unsafe fn swap_aligned(p: *mut u8, expected: $int, new: $int) -> $int {
                // SAFETY: writable and aligned by the caller's promise; atomics are the only references made.
                let word = unsafe { <$atomic>::from_ptr(p.cast()) };
                let (expected, new) = (expected.to_le(), new.to_le());
                let swapped = word.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst);
                <$int>::from_le(swapped.unwrap_or_else(|seen| seen))
            }
        }
    };
}

int!(u8, AtomicU8);
int!(u16, AtomicU16);
int!(u32, AtomicU32);
int!(u64, AtomicU64);

/// Reads `size` (1, 2, 4, 8) bytes in the order that `flags` ask for.
///
/// # Safety
/// `p` points at `size` readable bytes of guest RAM.
#[inline(always)]
pub(crate) unsafe fn load(p: *const u8, size: u8, flags: AccessFlags) -> u64 {
    let ordered = flags.ordered(TOTAL_STORE_ORDER);
    // SAFETY: by the caller's promise, in every arm.
    unsafe {
        match size {
            1 => u8::read(p, ordered).into(),
            2 => u16::read(p, ordered).into(),
            4 => u32::read(p, ordered).into(),
            _ => u64::read(p, ordered),
        }
    }
}

/// Writes the low `size` (1, 2, 4, 8) bytes of `value` in the order that `flags` ask for.
///
/// # Safety
/// `p` points at `size` writable bytes of guest RAM.
#[inline(always)]
pub(crate) unsafe fn store(p: *mut u8, size: u8, value: u64, flags: AccessFlags) {
    let ordered = flags.ordered(TOTAL_STORE_ORDER);
    // SAFETY: by the caller's promise, in every arm.
    unsafe {
        match size {
            1 => (value as u8).write(p, ordered),
            2 => (value as u16).write(p, ordered),
            4 => (value as u32).write(p, ordered),
            _ => value.write(p, ordered),
        }
    }
}

/// Mask of the bits that a value of `size` (1, 2, 4, 8, 16) bytes has.
pub(crate) const fn mask(size: u8) -> u128 {
    u128::MAX >> (128 - 8 * size as u32)
}

/// Stores `new` in the `size` (1, 2, 4, 8, 16) bytes at `p` if `expected` is there, in one step; what was there. `None`, with
/// nothing done, where the host has no instruction for that.
///
/// # Safety
/// `p` points at `size` readable and writable bytes of guest RAM.
pub(crate) unsafe fn compare_and_swap(p: *mut u8, size: u8, expected: u128, new: u128) -> Option<u128> {
    let aligned = (p as usize).is_multiple_of(size.into());
    // SAFETY: by the caller's promise, in every arm, and aligned where that is asked for.
    unsafe {
        match size {
            1 => Some(u8::swap_aligned(p, expected as u8, new as u8).into()),
            2 if aligned => Some(u16::swap_aligned(p, expected as u16, new as u16).into()),
            4 if aligned => Some(u32::swap_aligned(p, expected as u32, new as u32).into()),
            8 if aligned => Some(u64::swap_aligned(p, expected as u64, new as u64).into()),
            16 if aligned => host::swap_pair(p, expected, new),
            2 | 4 | 8 => host::swap_unaligned(p, size, expected as u64, new as u64).map(u128::from),
            _ => None,
        }
    }
}

/// What the host's own instructions do beyond Rust's atomics.
#[cfg(target_arch = "x86_64")]
mod host {
    use std::arch::asm;

    /// [`super::compare_and_swap`] of 2, 4 or 8 bytes at any address.
    ///
    /// # Safety
    /// As for [`super::compare_and_swap`].
    pub(super) unsafe fn swap_unaligned(p: *mut u8, size: u8, expected: u64, new: u64) -> Option<u64> {
        let mut seen = expected;
        // SAFETY: the instruction accesses `size` bytes at `p`, which are guest RAM by the caller's promise, and no others; it
        // changes RAX and flags. A bus lock makes it one step at any address (SDM vol. 3A, 9.1.2).
        unsafe {
            match size {
                2 => asm!("lock cmpxchg word ptr [{}], {:x}", in(reg) p, in(reg) new, inout("rax") seen),
                4 => asm!("lock cmpxchg dword ptr [{}], {:e}", in(reg) p, in(reg) new, inout("rax") seen),
                _ => asm!("lock cmpxchg qword ptr [{}], {}", in(reg) p, in(reg) new, inout("rax") seen),
            }
        }
        let mask = super::mask(size) as u64;
        Some(seen & mask)
    }

    /// [`super::compare_and_swap`] of 16 bytes at a multiple of 16; `None` on the first processors that had 64 bits.
    ///
    /// # Safety
    /// As for [`super::compare_and_swap`], and aligned.
    pub(super) unsafe fn swap_pair(p: *mut u8, expected: u128, new: u128) -> Option<u128> {
        if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
            return None;
        }
        let (mut low, mut high) = (expected as u64, (expected >> 64) as u64);
        // SAFETY: the processor has the instruction, which accesses the 16 bytes at `p`, aligned and writable by the caller's
        // promise, and no others; it changes RAX, RDX and flags. RBX, which no operand can be in, is as before afterwards.
        unsafe {
            asm!(
                "xchg rbx, rsi",
                "lock cmpxchg16b [rdi]",
                "mov rbx, rsi",
                in("rdi") p,
                inout("rsi") new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") low,
                inout("rdx") high,
            );
        }
        Some(u128::from(low) | u128::from(high) << 64)
    }
}

/// Hosts whose atomics want aligned operands of 8 bytes at most.
#[cfg(not(target_arch = "x86_64"))]
mod host {
    /// # Safety
    /// As for [`super::compare_and_swap`].
    pub(super) unsafe fn swap_unaligned(_: *mut u8, _: u8, _: u64, _: u64) -> Option<u64> {
        None
    }

    /// # Safety
    /// As for [`super::compare_and_swap`].
    pub(super) unsafe fn swap_pair(_: *mut u8, _: u128, _: u128) -> Option<u128> {
        None
    }
}

/// The `size` (1, 2, 4, 8, 16) bytes at `p`; 16 of them, or such that are not aligned, perhaps in parts of different times.
///
/// # Safety
/// `p` points at `size` readable bytes of guest RAM.
unsafe fn guess(p: *const u8, size: u8) -> u128 {
    // SAFETY: by the caller's promise.
    unsafe {
        match size {
            16 => u128::from(u64::read(p, true)) | u128::from(u64::read(p.add(8), true)) << 64,
            _ => load(p, size, AccessFlags::empty()).into(),
        }
    }
}

/// Replaces the value of `size` (1, 2, 4, 8, 16) bytes at `p` by what `new` makes of it, in one step: the old value and the new.
/// Where `new` gives `None` the value stays. `new` may be asked more than once; its last answer counts. `None`, with nothing
/// done, as for [`compare_and_swap`].
///
/// # Safety
/// `p` points at `size` readable and writable bytes of guest RAM.
pub(crate) unsafe fn update(p: *mut u8, size: u8, new: &mut impl FnMut(u128) -> Option<u128>) -> Option<(u128, u128)> {
    // SAFETY: by the caller's promise.
    let mut old = unsafe { guess(p, size) };
    loop {
        let value = new(old).unwrap_or(old) & mask(size);
        // A value that stays is swapped for itself: only so is it known to have been there at one time.
        // SAFETY: by the caller's promise.
        let seen = unsafe { compare_and_swap(p, size, old, value) }?;
        if seen == old {
            return Some((old, value));
        }
        old = seen;
    }
}

/// Which bytes of a value of `size` bytes differ, as an offset and a count from the first to the last of them.
pub(crate) fn changed_bytes(old: u128, new: u128, size: u8) -> Option<(u64, u64)> {
    let changed = (old ^ new) & mask(size);
    let first = u64::from(changed.trailing_zeros() / 8);
    (changed != 0).then(|| (first, u64::from(16 - changed.leading_zeros() / 8) - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two host cache lines and more, aligned to one.
    #[repr(C, align(64))]
    struct Lines([u8; 192]);

    impl Lines {
        fn at(&mut self, at: usize, size: u8) -> *mut u8 {
            self.0[at..at + usize::from(size)].as_mut_ptr()
        }

        fn value(&mut self, at: usize, size: u8) -> u128 {
            // SAFETY: `at` checked the range, which nobody else uses.
            unsafe { guess(self.at(at, size), size) }
        }

        fn swap(&mut self, at: usize, size: u8, expected: u128, new: u128) -> Option<u128> {
            // SAFETY: as in `value`.
            unsafe { compare_and_swap(self.at(at, size), size, expected, new) }
        }

        fn update(&mut self, at: usize, size: u8, mut new: impl FnMut(u128) -> Option<u128>) -> Option<(u128, u128)> {
            // SAFETY: as in `value`.
            unsafe { update(self.at(at, size), size, &mut new) }
        }
    }

    #[test]
    fn hosts_are_asked_for_an_order_that_they_do_not_keep_anyway() {
        let (plain, relaxed) = (AccessFlags::empty(), AccessFlags::RELAXED | AccessFlags::FOR_WRITE);
        assert_eq!([plain, relaxed].map(|flags| flags.ordered(false)), [true, false]);
        assert_eq!(
            [plain, relaxed].map(|flags| flags.ordered(true)),
            [true; 2],
            "no choice to make while the guest runs"
        );
    }

    #[test]
    fn bytes_that_differ() {
        assert_eq!(changed_bytes(5, 5, 8), None);
        assert_eq!(changed_bytes(0x1_0000, 0, 2), None, "beyond the value");
        assert_eq!(changed_bytes(0x1234_0000, 0x1235_00ff, 4), Some((0, 3)));
        assert_eq!(changed_bytes(1 << 127, 0, 16), Some((15, 1)));
    }

    #[test]
    fn swaps_of_every_size_and_alignment_touch_their_bytes_only() {
        const FACTOR: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        let mut lines = Lines(std::array::from_fn(|i| i as u8 ^ 0x5a));
        for (size, at) in [1, 2, 4, 8, 16].into_iter().flat_map(|size| (40..72).map(move |at| (size, at))) {
            let before = lines.0;
            let old = lines.value(at, size);
            let new = old.wrapping_mul(FACTOR).wrapping_add(1) & mask(size);
            let Some(seen) = lines.swap(at, size, old ^ 1, new) else {
                assert!(
                    size == 16 || !cfg!(target_arch = "x86_64") && !at.is_multiple_of(size.into()),
                    "{size} at {at}"
                );
                assert_eq!(lines.0, before);
                continue;
            };
            assert_eq!((seen, lines.0), (old, before), "what was expected is not there");
            assert_eq!(lines.swap(at, size, old, new), Some(old));
            assert_eq!(lines.value(at, size), new);
            let end = at + usize::from(size);
            assert_eq!((&lines.0[..at], &lines.0[end..]), (&before[..at], &before[end..]), "{size} at {at}");
        }
    }

    #[test]
    fn an_update_that_changes_nothing_tells_what_was_there() {
        let mut lines = Lines([7; 192]);
        assert_eq!(lines.update(8, 4, |_| None), Some((0x0707_0707, 0x0707_0707)));
        assert_eq!(lines.update(8, 2, |old| Some(old + 0x1_0001)), Some((0x707, 0x708)));
    }
}
