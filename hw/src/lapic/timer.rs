//! The local APIC timer (SDM vol. 3A, 10.5.4).

use crate::time::{NS_PER_SEC, ns_of_tick};
use serde::{Deserialize, Serialize};

/// Input clock of the timer in Hz, before the divider.
pub(crate) const TIMER_HZ: u64 = 1_000_000_000;

/// The timer mode field of LVT Timer, bits 17-18 (SDM vol. 3A, figure 10-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timer {
    mode: TimerMode,
    divide: u8,
    initial: u32,
    /// The count from which it counts down since guest nanosecond `start`; 0 when it stands still.
    from: u32,
    start: u64,
    /// IA32_TSC_DEADLINE and the guest nanosecond at which it is reached.
    tsc_deadline: u64,
    tsc_due: u64,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Timer { mode: TimerMode::OneShot, divide: 0, initial: 0, from: 0, start: 0, tsc_deadline: 0, tsc_due: 0 }
    }

    /// Nanoseconds that `counts` take.
    fn duration(&self, counts: u64) -> u64 {
        ns_of_tick(counts.saturating_mul(self.divisor()), TIMER_HZ)
    }

    /// Divide configuration, bits 0, 1 and 3 (figure 10-10): 0 divides by 2, 6 by 128, 7 by 1.
    fn divisor(&self) -> u64 {
        let field = (self.divide & 3) | ((self.divide >> 1) & 4);
        1 << ((field + 1) & 7)
    }

    fn counts_since_start(&self, now: u64) -> u64 {
        let ticks = u128::from(now.saturating_sub(self.start)) * u128::from(TIMER_HZ) / u128::from(NS_PER_SEC);
        u64::try_from(ticks / u128::from(self.divisor())).unwrap_or(u64::MAX)
    }

    pub(crate) fn set_mode(&mut self, mode: TimerMode) {
        if mode == self.mode {
            return;
        }
        // Entering or leaving TSC-deadline mode disarms the timer (10.5.4.1).
        if mode == TimerMode::TscDeadline || self.mode == TimerMode::TscDeadline {
            self.from = 0;
            self.initial = 0;
            self.tsc_deadline = 0;
        }
        self.mode = mode;
    }

    pub(crate) fn divide(&self) -> u8 {
        self.divide
    }

    pub(crate) fn set_divide(&mut self, now: u64, value: u8) {
        let current = self.current(now);
        self.divide = value & 0x0b;
        self.from = current;
        self.start = now;
    }

    pub(crate) fn initial(&self) -> u32 {
        self.initial
    }

    pub(crate) fn set_initial(&mut self, now: u64, value: u32) {
        if self.mode != TimerMode::TscDeadline {
            self.initial = value;
            self.from = value;
            self.start = now;
        }
    }

    /// The current count register.
    pub(crate) fn current(&self, now: u64) -> u32 {
        let counted = self.counts_since_start(now);
        let from = u64::from(self.from);
        let left = if counted < from {
            from - counted
        } else if self.mode == TimerMode::Periodic && self.initial != 0 && self.from != 0 {
            let initial = u64::from(self.initial);
            initial - (counted - from) % initial
        } else {
            0
        };
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    pub(crate) fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE; ignored in the other modes.
    pub(crate) fn set_tsc_deadline(&mut self, now: u64, tsc_now: u64, tsc_hz: u64, deadline: u64) {
        if self.mode == TimerMode::TscDeadline {
            self.tsc_deadline = deadline;
            self.tsc_due = now.saturating_add(ns_of_tick(deadline.saturating_sub(tsc_now), tsc_hz));
        }
    }

    /// The guest nanosecond of the next expiry.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        match self.mode {
            TimerMode::TscDeadline => (self.tsc_deadline != 0).then_some(self.tsc_due),
            _ => (self.from != 0).then(|| self.start.saturating_add(self.duration(u64::from(self.from)))),
        }
    }

    /// Whether the timer expired up to `now`; however often it did, it reports once.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        if self.next_deadline().is_none_or(|due| due > now) {
            return false;
        }
        match self.mode {
            TimerMode::OneShot => self.from = 0,
            TimerMode::TscDeadline => self.tsc_deadline = 0,
            TimerMode::Periodic => {
                let past = self.counts_since_start(now).saturating_sub(u64::from(self.from));
                let periods = past.checked_div(u64::from(self.initial)).unwrap_or(0);
                let counts = u64::from(self.from).saturating_add(periods.saturating_mul(u64::from(self.initial)));
                self.start = self.start.saturating_add(self.duration(counts));
                self.from = self.initial;
            }
        }
        true
    }
}
