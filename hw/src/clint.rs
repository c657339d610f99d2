//! The core-local interruptor: software interrupts and the timer of each hart (SiFive FU540-C000 Manual, chapter 9; the
//! registers of the ACLINT's MSWI and MTIMER devices at the same places: RISC-V ACLINT Specification 1.0-rc4).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fabric::{Drives, IrqLine, Timer, Wired};
use crate::time::{NS_PER_SEC, ns_of_tick, ticks_at};
use serde::{Deserialize, Serialize};

/// Size in bytes of its registers.
pub(crate) const SIZE: u64 = 0x1_0000;

/// Frequency of mtime in Hz.
pub(crate) const TIME_HZ: u64 = 10_000_000;

/// The most harts that its registers have room for.
pub(crate) const MAX_HARTS: usize = 4095;

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

/// One hart's registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Hart {
    msip: bool,
    mtimecmp: u64,
}

/// What one aligned double word of the register space is.
enum Word {
    /// Two harts' msip, 32 bits each.
    Msip(usize),
    Mtimecmp(usize),
    Mtime,
    Nothing,
}

fn word(offset: u64) -> Word {
    match offset & !7 {
        MTIME => Word::Mtime,
        at if at < MTIMECMP => Word::Msip((at / 4) as usize),
        at if at < MTIME => Word::Mtimecmp(((at - MTIMECMP) / 8) as usize),
        _ => Word::Nothing,
    }
}

/// A CLINT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clint {
    harts: Vec<Hart>,
    /// What software has added to mtime by writing it.
    shift: u64,
    /// The guest nanosecond that its lines are driven as of.
    now: u64,
}

/// What a hart's registers are wired to.
pub(crate) struct ClintHandles {
    /// The software interrupt.
    pub(crate) msip: IrqLine,
    /// The timer's.
    pub(crate) mtip: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for Clint {
    type Handles = Vec<ClintHandles>;

    fn drive(&mut self, handles: &mut Vec<ClintHandles>) {
        for (hart, handles) in handles.iter_mut().enumerate() {
            handles.msip.set(self.software(hart));
            handles.mtip.set(self.timer(self.now, hart));
            handles.timer.set(self.next_deadline(self.now, hart));
        }
    }
}

impl Clint {
    pub(crate) fn new(harts: usize) -> Self {
        // An mtimecmp that is never reached: the manual leaves its reset value open, and zero would interrupt at once.
        Clint { harts: vec![Hart { msip: false, mtimecmp: u64::MAX }; harts.min(MAX_HARTS)], shift: 0, now: 0 }
    }

    pub(crate) fn harts(&self) -> usize {
        self.harts.len()
    }

    /// mtime at guest nanosecond `now`.
    pub(crate) fn time(&self, now: u64) -> u64 {
        ticks_at(now, TIME_HZ).wrapping_add(self.shift)
    }

    /// Brings it to `now`; guest time never runs backwards, whatever the caller says.
    pub(crate) fn advance(&mut self, now: u64) {
        self.now = self.now.max(now.min(1 << 62));
    }

    /// Whether hart `hart` has a software interrupt pending.
    pub(crate) fn software(&self, hart: usize) -> bool {
        self.harts.get(hart).is_some_and(|hart| hart.msip)
    }

    /// Whether the timer of hart `hart` has expired (vol. II, "Machine Timer (mtime and mtimecmp) Registers").
    pub(crate) fn timer(&self, now: u64, hart: usize) -> bool {
        self.harts.get(hart).is_some_and(|hart| self.time(now) >= hart.mtimecmp)
    }

    /// The guest nanosecond at which the timer of hart `hart` expires, if that is yet to come.
    fn next_deadline(&self, now: u64, hart: usize) -> Option<u64> {
        let time = self.time(now);
        let next = self.harts.get(hart).map(|hart| hart.mtimecmp).filter(|&compare| compare > time)?;
        let tick = ticks_at(now, TIME_HZ).saturating_add(next - time);
        // What is centuries away is never.
        Some(ns_of_tick(tick, TIME_HZ)).filter(|&at| at < 1 << 62)
    }

    /// The registers of `size` bytes at `offset`, of any alignment.
    pub(crate) fn read(&self, now: u64, offset: u64, size: u8) -> u64 {
        let within = 8 * (offset & 7) as u32;
        // An access across two double words sees the first.
        self.read_word(now, offset) >> within & u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
    }

    fn read_word(&self, now: u64, offset: u64) -> u64 {
        match word(offset) {
            Word::Msip(hart) => u64::from(self.software(hart)) | u64::from(self.software(hart + 1)) << 32,
            Word::Mtimecmp(hart) => self.harts.get(hart).map_or(0, |hart| hart.mtimecmp),
            Word::Mtime => self.time(now),
            Word::Nothing => 0,
        }
    }

    /// Writes the low `size` bytes of `value`; the rest of a wider register stays.
    pub(crate) fn write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        let within = 8 * (offset & 7) as u32;
        let mask = (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))) << within;
        let merged = self.read_word(now, offset) & !mask | value << within & mask;
        match word(offset) {
            Word::Msip(first) => {
                for (hart, bit) in self.harts.iter_mut().skip(first).take(2).zip([0, 32]) {
                    hart.msip = merged >> bit & 1 != 0;
                }
            }
            Word::Mtimecmp(hart) => {
                if let Some(hart) = self.harts.get_mut(hart) {
                    hart.mtimecmp = merged;
                }
            }
            Word::Mtime => self.shift = merged.wrapping_sub(ticks_at(now, TIME_HZ)),
            Word::Nothing => {}
        }
    }
}

/// A CLINT that harts reach with a lock of its own, and without one to tell the time.
pub struct SharedClint {
    clint: Mutex<Wired<Clint>>,
    /// A copy of the CLINT's.
    shift: AtomicU64,
}

impl SharedClint {
    /// A CLINT for as many harts as there are handles.
    pub(crate) fn new(harts: Vec<ClintHandles>) -> SharedClint {
        let clint = Mutex::new(Wired::new(Clint::new(harts.len()), harts));
        SharedClint { clint, shift: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Wired<Clint>> {
        self.clint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Clint) -> T) -> T {
        let mut clint = self.lock();
        let result = clint.with(f);
        self.shift.store(clint.state().shift, Ordering::Release);
        result
    }

    /// mtime at guest nanosecond `now`. Takes no lock.
    pub fn time(&self, now: u64) -> u64 {
        // Nanoseconds of a tick are a whole number: no wide division where time is read often.
        (now / (NS_PER_SEC / TIME_HZ)).wrapping_add(self.shift.load(Ordering::Acquire))
    }

    /// Reads `size` bytes at `offset` of the registers.
    pub fn read(&self, now: u64, offset: u64, size: u8) -> u64 {
        self.lock().state().read(now, offset, size)
    }

    /// Writes the low `size` bytes of `value` at `offset` of the registers.
    pub fn write(&self, now: u64, offset: u64, size: u8, value: u64) {
        self.with(|clint| {
            clint.advance(now);
            clint.write(now, offset, size, value);
        });
    }

    /// Brings its lines to `now`.
    pub(crate) fn advance(&self, now: u64) {
        self.with(|clint| clint.advance(now));
    }

    /// Whether the timer of hart `hart` has expired at `now`.
    pub(crate) fn timer(&self, now: u64, hart: usize) -> bool {
        self.lock().state().timer(now, hart)
    }

    /// The reset line.
    pub(crate) fn reset(&self, now: u64) {
        self.with(|clint| {
            *clint = Clint::new(clint.harts());
            clint.advance(now);
        });
    }

    /// Its state.
    pub(crate) fn save(&self) -> Clint {
        self.lock().state().clone()
    }

    /// Replaces its state by one of as many harts.
    pub(crate) fn restore(&self, clint: Clint) {
        self.with(|state| *state = clint);
    }
}

impl std::fmt::Debug for SharedClint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedClint").field(self.lock().state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the first of the timers expires.
    fn next(clint: &Clint, now: u64) -> Option<u64> {
        (0..clint.harts()).filter_map(|hart| clint.next_deadline(now, hart)).min()
    }

    const SECOND: u64 = 1_000_000_000;
    const MSIP: u64 = 0;

    #[test]
    fn mtime_counts_at_ten_megahertz_and_can_be_set() {
        let mut c = Clint::new(1);
        assert_eq!(c.read(SECOND, MTIME, 8), TIME_HZ);
        assert_eq!(c.read(SECOND, MTIME + 4, 4), 0);
        c.write(SECOND, MTIME, 8, 5 << 32 | 7);
        assert_eq!(c.read(SECOND, MTIME, 8), 5 << 32 | 7);
        assert_eq!((c.read(SECOND, MTIME, 4), c.read(SECOND, MTIME + 4, 4)), (7, 5));
        assert_eq!(c.time(SECOND + 1000), (5 << 32 | 7) + 10);
        c.write(2 * SECOND, MTIME + 4, 4, 0);
        assert_eq!(c.time(2 * SECOND), 7 + TIME_HZ);
    }

    #[test]
    fn the_timer_is_a_level_and_has_a_deadline() {
        let mut c = Clint::new(2);
        assert!(!c.timer(1 << 60, 0) && next(&c, 0).is_none(), "never, after reset");
        c.write(0, MTIMECMP + 8, 8, 1000);
        assert_eq!(next(&c, 0), Some(100_000));
        assert!(!c.timer(99_999, 1) && c.timer(100_000, 1) && !c.timer(100_000, 0));
        assert_eq!(next(&c, 100_000), None, "it has expired");
        // As 32-bit software does it: high half to the maximum first.
        c.write(0, MTIMECMP + 12, 4, 0xffff_ffff);
        c.write(0, MTIMECMP + 8, 4, 2000);
        c.write(0, MTIMECMP + 12, 4, 0);
        assert_eq!((c.read(0, MTIMECMP + 8, 8), next(&c, 100_000)), (2000, Some(200_000)));
        c.write(100_000, MTIME, 8, 0);
        assert_eq!(next(&c, 100_000), Some(300_000), "mtime was set back");
    }

    #[test]
    fn software_interrupts_are_bit_zero_of_a_word_each() {
        let mut c = Clint::new(3);
        c.write(0, MSIP + 4, 4, 0xffff_ffff);
        assert_eq!((c.software(0), c.software(1), c.software(2)), (false, true, false));
        assert_eq!((c.read(0, MSIP, 4), c.read(0, MSIP + 4, 4)), (0, 1));
        c.write(0, MSIP, 4, 1);
        c.write(0, MSIP + 4, 4, 0xfffe);
        assert_eq!((c.software(0), c.software(1)), (true, false));
        c.write(0, MSIP + 12, 4, 1);
        assert_eq!(c.read(0, MSIP + 12, 4), 0, "no such hart");
    }

    #[test]
    fn any_access_is_survived() {
        let mut c = Clint::new(1);
        for offset in [0, 1, 3, 7, 0x3ffc, 0x3fff, 0x4001, 0xbff4, 0xbfff, 0xc000, 0xfff9] {
            for size in [1, 2, 4, 8] {
                c.write(u64::MAX, offset, size, u64::MAX);
                c.read(u64::MAX, offset, size);
                next(&c, u64::MAX);
            }
        }
    }

    #[test]
    fn state_round_trips() {
        let mut c = Clint::new(2);
        c.write(0, MTIMECMP, 8, 5000);
        c.write(0, MSIP + 4, 4, 1);
        c.write(SECOND, MTIME, 8, 1);
        let back: Clint = postcard::from_bytes(&postcard::to_stdvec(&c).unwrap()).unwrap();
        assert_eq!(back, c);
        assert!(back.software(1) && back.time(SECOND) == 1);
    }
}
