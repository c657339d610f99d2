//! The core-local interruptor: software interrupts and the timer of each hart (SiFive FU540-C000 Manual, chapter 9; the
//! registers of the ACLINT's MSWI and MTIMER devices at the same places: RISC-V ACLINT Specification 1.0-rc4).
//!
//! msip and mtimecmp belong to their hart, each with a lock of its own and the timer with a queue of its own, which the hart's vCPU
//! looks at: no access to one hart's registers waits for another's, nor for the board. Telling the time takes no lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fabric::{IrqLine, Timer, TimerQueue, lock};
use crate::time::{NS_PER_SEC, ns_of_tick, ticks_at};
use serde::{Deserialize, Serialize};

/// Size in bytes of its registers.
pub(crate) const SIZE: u64 = 0x1_0000;

/// Frequency of mtime in Hz.
pub(crate) const TIME_HZ: u64 = 10_000_000;

/// The most harts that its registers have room for.
pub(crate) const MAX_HARTS: usize = 4095;

pub(crate) const MTIMECMP: u64 = 0x4000;
pub(crate) const MTIME: u64 = 0xbff8;

/// What an access has of the double word that it begins in: first bit, and bits.
fn part(offset: u64, size: u8) -> (u32, u64) {
    let within = 8 * (offset & 7) as u32;
    (within, u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))) << within)
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

/// One hart's registers, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct HartData {
    msip: bool,
    mtimecmp: u64,
}

/// A CLINT's state, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clint {
    harts: Vec<HartData>,
    /// What software has added to mtime by writing it.
    shift: u64,
    /// The guest nanosecond that its lines are driven as of.
    now: u64,
}

impl Clint {
    pub(crate) fn harts(&self) -> usize {
        self.harts.len()
    }
}

/// What a hart's registers are wired to.
pub(crate) struct ClintHandles {
    /// The software interrupt.
    pub(crate) msip: IrqLine,
    /// The timer's.
    pub(crate) mtip: IrqLine,
}

/// A hart's timer.
struct Compare {
    mtimecmp: u64,
    /// The guest nanosecond that its line is driven as of.
    now: u64,
    mtip: IrqLine,
    alarm: Timer,
}

impl Compare {
    /// Drives its line and sets its deadline as of `now`, when mtime is ahead of the clock by `shift`. Guest time never runs
    /// backwards, whatever the caller says.
    fn settle(&mut self, now: u64, shift: u64) {
        self.now = self.now.max(now.min(1 << 62));
        let ticks = ticks_at(self.now, TIME_HZ);
        let time = ticks.wrapping_add(shift);
        self.mtip.set(time >= self.mtimecmp);
        let ahead = self.mtimecmp.checked_sub(time).filter(|&ahead| ahead != 0);
        let expires = ahead.map(|ahead| ns_of_tick(ticks.saturating_add(ahead), TIME_HZ));
        // What is centuries away is never.
        self.alarm.set(expires.filter(|&at| at < 1 << 62));
    }
}

/// What belongs to one hart.
struct Hart {
    /// Its level is msip.
    msip: Mutex<IrqLine>,
    compare: Mutex<Compare>,
    /// When the timer expires, if that is yet to come.
    timers: TimerQueue,
}

impl Hart {
    fn new(ClintHandles { msip, mtip }: ClintHandles) -> Hart {
        let timers = TimerQueue::new();
        // An mtimecmp that is never reached: the manual leaves its reset value open, and zero would interrupt at once.
        let compare = Compare { mtimecmp: u64::MAX, now: 0, mtip, alarm: timers.timer(0) };
        Hart { msip: Mutex::new(msip), compare: Mutex::new(compare), timers }
    }

    fn software(&self) -> bool {
        lock(&self.msip).level()
    }
}

/// A CLINT, which harts reach without the board.
pub struct SharedClint {
    harts: Vec<Hart>,
    /// What software has added to mtime by writing it.
    shift: AtomicU64,
}

impl SharedClint {
    /// A CLINT for as many harts as there are handles.
    pub(crate) fn new(harts: Vec<ClintHandles>) -> SharedClint {
        SharedClint { harts: harts.into_iter().take(MAX_HARTS).map(Hart::new).collect(), shift: AtomicU64::new(0) }
    }

    /// mtime at guest nanosecond `now`. Takes no lock.
    pub fn time(&self, now: u64) -> u64 {
        // Nanoseconds of a tick are a whole number: no wide division where time is read often.
        (now / (NS_PER_SEC / TIME_HZ)).wrapping_add(self.shift.load(Ordering::Acquire))
    }

    /// Reads `size` bytes at `offset` of the registers, of any alignment.
    pub fn read(&self, now: u64, offset: u64, size: u8) -> u64 {
        let (within, mask) = part(offset, size);
        let word = match word(offset) {
            Word::Msip(first) => {
                self.pair(first, mask).fold(0, |word, (hart, bit)| word | u64::from(hart.software()) << bit)
            }
            Word::Mtimecmp(hart) => self.harts.get(hart).map_or(0, |hart| lock(&hart.compare).mtimecmp),
            Word::Mtime => self.time(now),
            Word::Nothing => 0,
        };
        // An access across two double words sees the first.
        (word & mask) >> within
    }

    /// Writes the low `size` bytes of `value` at `offset` of the registers; the rest of a wider register stays.
    pub fn write(&self, now: u64, offset: u64, size: u8, value: u64) {
        let (within, mask) = part(offset, size);
        let value = value << within & mask;
        match word(offset) {
            Word::Msip(first) => {
                for (hart, bit) in self.pair(first, mask) {
                    lock(&hart.msip).set(value >> bit & 1 != 0);
                }
            }
            Word::Mtimecmp(hart) => self.compare(hart, now, |compare| {
                compare.mtimecmp = compare.mtimecmp & !mask | value;
            }),
            Word::Mtime => {
                let ticks = ticks_at(now, TIME_HZ);
                let new = |shift: u64| (ticks.wrapping_add(shift) & !mask | value).wrapping_sub(ticks);
                let changed = self.shift.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(new(old)));
                debug_assert!(changed.is_ok(), "every value has a successor");
                (0..self.harts.len()).for_each(|hart| self.compare(hart, now, |_| ()));
            }
            Word::Nothing => {}
        }
    }

    /// Of the two harts whose msip share a double word those that an access to the bits `mask` is for, and where their bits are. The
    /// other's may be changing.
    fn pair(&self, first: usize, mask: u64) -> impl Iterator<Item = (&Hart, u32)> {
        self.harts.iter().skip(first).zip([0, 32]).filter(move |(_, bit)| mask >> bit & 1 != 0)
    }

    /// Does something with the timer of hart `hart` at `now`, and settles what it drives.
    fn compare(&self, hart: usize, now: u64, f: impl FnOnce(&mut Compare)) {
        if let Some(hart) = self.harts.get(hart) {
            let mut compare = lock(&hart.compare);
            f(&mut compare);
            // With the lock held: whoever changes it settles all timers afterwards.
            compare.settle(now, self.shift.load(Ordering::Acquire));
        }
    }

    /// When the timer of hart `hart` expires, in guest nanoseconds, if that is yet to come: its vCPU is to call
    /// [`SharedClint::advance`] then. Takes no lock.
    pub fn next_deadline(&self, hart: usize) -> Option<u64> {
        self.harts.get(hart)?.timers.next_deadline()
    }

    /// Has `alarm` called whenever that deadline gets earlier. Later calls change nothing.
    pub fn on_earlier(&self, hart: usize, alarm: impl Fn(u64) + Send + Sync + 'static) {
        if let Some(hart) = self.harts.get(hart) {
            hart.timers.on_earlier(alarm);
        }
    }

    /// Brings the timer of hart `hart` to `now`.
    pub fn advance(&self, hart: usize, now: u64) {
        if self.next_deadline(hart).is_some_and(|due| due <= now) {
            self.compare(hart, now, |_| ());
        }
    }

    /// Whether the timer of hart `hart` has expired at `now` (vol. II, "Machine Timer (mtime and mtimecmp) Registers").
    pub(crate) fn timer(&self, now: u64, hart: usize) -> bool {
        self.harts.get(hart).is_some_and(|hart| self.time(now) >= lock(&hart.compare).mtimecmp)
    }

    /// The reset line.
    pub(crate) fn reset(&self, now: u64) {
        let hart = HartData { msip: false, mtimecmp: u64::MAX };
        self.restore(&Clint { harts: vec![hart; self.harts.len()], shift: 0, now });
    }

    /// The state, to be saved.
    pub(crate) fn save(&self) -> Clint {
        let hart = |hart: &Hart| HartData { msip: hart.software(), mtimecmp: lock(&hart.compare).mtimecmp };
        let now = self.harts.iter().map(|hart| lock(&hart.compare).now).max();
        Clint {
            harts: self.harts.iter().map(hart).collect(),
            shift: self.shift.load(Ordering::Acquire),
            now: now.unwrap_or(0),
        }
    }

    /// Replaces its state by one of as many harts.
    pub(crate) fn restore(&self, clint: &Clint) {
        self.shift.store(clint.shift, Ordering::Release);
        for (index, (hart, data)) in self.harts.iter().zip(&clint.harts).enumerate() {
            lock(&hart.msip).set(data.msip);
            self.compare(index, clint.now, |compare| (compare.mtimecmp, compare.now) = (data.mtimecmp, clint.now));
        }
    }
}

impl std::fmt::Debug for SharedClint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedClint").field(&self.save()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;
    const MSIP: u64 = 0;

    fn clint(harts: usize) -> SharedClint {
        let handles = |_| ClintHandles { msip: IrqLine::default(), mtip: IrqLine::default() };
        SharedClint::new((0..harts).map(handles).collect())
    }

    /// When the first of the timers expires, as of `now`.
    fn next(clint: &SharedClint, now: u64) -> Option<u64> {
        let harts = 0..clint.harts.len();
        harts.filter_map(|hart| (clint.advance(hart, now), clint.next_deadline(hart)).1).min()
    }

    #[test]
    fn mtime_counts_at_ten_megahertz_and_can_be_set() {
        let c = clint(1);
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
        let c = clint(2);
        assert!(!c.timer(1 << 60, 0) && next(&c, 0).is_none(), "never, after reset");
        c.write(0, MTIMECMP + 8, 8, 1000);
        assert_eq!(next(&c, 0), Some(100_000));
        assert!(!c.timer(99_999, 1) && c.timer(100_000, 1) && !c.timer(100_000, 0));
        assert_eq!(next(&c, 100_000), None, "it has expired");
        // As 32-bit software does it: high half to the maximum first.
        c.write(100_000, MTIMECMP + 12, 4, 0xffff_ffff);
        c.write(100_000, MTIMECMP + 8, 4, 2000);
        c.write(100_000, MTIMECMP + 12, 4, 0);
        assert_eq!((c.read(0, MTIMECMP + 8, 8), next(&c, 100_000)), (2000, Some(200_000)));
        c.write(100_000, MTIME, 8, 0);
        assert_eq!(next(&c, 100_000), Some(300_000), "mtime was set back");
    }

    #[test]
    fn software_interrupts_are_bit_zero_of_a_word_each() {
        let c = clint(3);
        let software = || [0, 1, 2].map(|hart: usize| c.harts[hart].software());
        c.write(0, MSIP + 4, 4, 0xffff_ffff);
        assert_eq!(software(), [false, true, false]);
        assert_eq!((c.read(0, MSIP, 4), c.read(0, MSIP + 4, 4)), (0, 1));
        c.write(0, MSIP, 4, 1);
        c.write(0, MSIP + 4, 4, 0xfffe);
        assert_eq!(software(), [true, false, false]);
        c.write(0, MSIP + 1, 1, 0xff);
        c.write(0, MSIP + 12, 4, 1);
        assert_eq!((software(), c.read(0, MSIP + 12, 4)), ([true, false, false], 0), "no such hart");
    }

    #[test]
    fn any_access_is_survived() {
        let c = clint(1);
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
        let c = clint(2);
        c.write(0, MTIMECMP, 8, 5000);
        c.write(0, MSIP + 4, 4, 1);
        c.write(SECOND, MTIME, 8, 1);
        let back = clint(2);
        back.restore(&postcard::from_bytes(&postcard::to_stdvec(&c.save()).unwrap()).unwrap());
        assert_eq!((back.save(), back.next_deadline(0)), (c.save(), c.next_deadline(0)));
        assert!(back.harts[1].software() && back.time(SECOND) == 1);
        back.reset(SECOND);
        assert_eq!((back.read(SECOND, MSIP, 8), back.time(SECOND), back.next_deadline(0)), (0, TIME_HZ, None));
    }

    #[test]
    fn a_hart_waits_for_no_lock_of_anothers() {
        let c = Arc::new(clint(2));
        let _held = (lock(&c.harts[1].compare), lock(&c.harts[0].msip));
        let (other, (done, wait)) = (c.clone(), mpsc::channel());
        std::thread::spawn(move || {
            other.write(0, MTIMECMP, 8, 1000);
            // An IPI: to the other's software interrupt, whatever becomes of its timer.
            other.write(0, MSIP + 4, 4, 1);
            other.advance(0, 100_000);
            let _ = done.send((other.timer(100_000, 0), other.read(0, MSIP + 4, 4), other.time(100_000)));
        });
        // A thread that waits for a lock waits for ever.
        assert_eq!(wait.recv_timeout(Duration::from_secs(100)), Ok((true, 1, 1000)));
    }

    #[test]
    fn two_harts_software_interrupts_are_apart() {
        const ROUNDS: usize = 10_000;
        let c = clint(2);
        // Both in one double word: who writes one must not write the other.
        std::thread::scope(|scope| {
            for hart in 0..2u64 {
                let c = &c;
                scope.spawn(move || {
                    for round in 0..ROUNDS as u64 {
                        c.write(0, MSIP + 4 * hart, 4, round & 1);
                        assert_eq!(c.read(0, MSIP + 4 * hart, 4), round & 1);
                    }
                });
            }
        });
    }
}
