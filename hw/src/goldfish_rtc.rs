//! The Goldfish real-time clock (Android emulator's "Goldfish virtual hardware guide", section "Goldfish RTC"): nanoseconds
//! since 1970 and one alarm.

use crate::fabric::{Drives, IrqLine, Timer};
use serde::{Deserialize, Serialize};

/// Size in bytes of its registers.
pub(crate) const SIZE: u64 = 0x1000;

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

/// The clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GoldfishRtc {
    /// What the clock shows at guest nanosecond 0, in nanoseconds since 1970.
    base: u64,
    /// The high half of the time when its low half was read.
    latched: u32,
    /// The high half for the next write of a low half.
    high: u32,
    alarm: u64,
    armed: bool,
    enabled: bool,
    pending: bool,
    /// The guest nanosecond up to which the alarm is known.
    now: u64,
}

/// What the clock is wired to.
pub(crate) struct GoldfishHandles {
    pub(crate) irq: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for GoldfishRtc {
    type Handles = GoldfishHandles;

    fn drive(&mut self, handles: &mut GoldfishHandles) {
        handles.irq.set(self.irq());
        handles.timer.set(self.next_deadline());
    }
}

impl GoldfishRtc {
    /// A clock that shows `unix_time` seconds at guest nanosecond 0.
    pub(crate) fn new(unix_time: u64) -> Self {
        GoldfishRtc {
            base: unix_time.wrapping_mul(1_000_000_000),
            latched: 0,
            high: 0,
            alarm: 0,
            armed: false,
            enabled: false,
            pending: false,
            now: 0,
        }
    }

    /// The reset line: the time goes on.
    pub(crate) fn reset(&mut self) {
        *self = GoldfishRtc { base: self.base, now: self.now, ..GoldfishRtc::new(0) };
    }

    fn time(&self, now: u64) -> u64 {
        self.base.wrapping_add(now)
    }

    /// The level of the interrupt line.
    fn irq(&self) -> bool {
        self.enabled && self.pending
    }

    /// Lets the alarm go off if its time has come.
    pub(crate) fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.armed && self.time(now) >= self.alarm {
            self.armed = false;
            self.pending = true;
        }
    }

    /// When the alarm goes off, in guest nanoseconds: what the clock shows may be less than the guest has run for.
    fn next_deadline(&self) -> Option<u64> {
        let left = self.alarm.saturating_sub(self.time(self.now));
        self.now.checked_add(left).filter(|&at| self.armed && at < 1 << 62)
    }

    /// Reads the 32-bit register at `offset`.
    pub(crate) fn read(&mut self, now: u64, offset: u64) -> u32 {
        self.advance(now);
        match offset {
            TIME_LOW => {
                let time = self.time(now);
                self.latched = (time >> 32) as u32;
                time as u32
            }
            TIME_HIGH => self.latched,
            ALARM_LOW => self.alarm as u32,
            ALARM_HIGH => (self.alarm >> 32) as u32,
            IRQ_ENABLED => self.enabled.into(),
            ALARM_STATUS => self.armed.into(),
            _ => 0,
        }
    }

    /// Writes the 32-bit register at `offset`.
    pub(crate) fn write(&mut self, now: u64, offset: u64, value: u32) {
        let whole = u64::from(self.high) << 32 | u64::from(value);
        match offset {
            // The high half is written first; the low half makes both count.
            TIME_HIGH | ALARM_HIGH => self.high = value,
            TIME_LOW => self.base = whole.wrapping_sub(now),
            ALARM_LOW => {
                self.alarm = whole;
                self.armed = true;
            }
            IRQ_ENABLED => self.enabled = value & 1 != 0,
            CLEAR_ALARM => self.armed = false,
            CLEAR_INTERRUPT => self.pending = false,
            _ => {}
        }
        self.advance(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1_700_000_000;

    fn time(r: &mut GoldfishRtc, now: u64) -> u64 {
        let low = r.read(now, TIME_LOW);
        // The high half belongs to the low half's moment.
        u64::from(r.read(now + (5 << 32), TIME_HIGH)) << 32 | u64::from(low)
    }

    #[test]
    fn an_alarm_of_a_clock_that_was_set_back_is_in_the_future() {
        let mut r = GoldfishRtc::new(BASE);
        r.write(5000, TIME_LOW, 10);
        r.write(5000, ALARM_LOW, 110);
        assert_eq!(r.next_deadline(), Some(5100));
        r.advance(5100);
        assert!(r.pending && r.next_deadline().is_none());
        r.write(5100, ALARM_HIGH, u32::MAX);
        r.write(5100, ALARM_LOW, u32::MAX);
        assert_eq!(r.next_deadline(), None, "not in the past");
    }

    #[test]
    fn time_runs_and_can_be_set() {
        let mut r = GoldfishRtc::new(BASE);
        assert_eq!(time(&mut r, 5), BASE * 1_000_000_000 + 5);
        r.write(1000, TIME_HIGH, 3);
        r.write(1000, TIME_LOW, 7);
        assert_eq!(time(&mut r, 1003), (3 << 32) + 10);
        r.reset();
        assert_eq!(time(&mut r, 1003), (3 << 32) + 10, "battery-backed");
    }

    #[test]
    fn the_alarm_interrupts_once_if_enabled() {
        let mut r = GoldfishRtc::new(0);
        r.write(0, ALARM_HIGH, 0);
        r.write(0, ALARM_LOW, 500);
        assert_eq!((r.next_deadline(), r.read(0, ALARM_STATUS)), (Some(500), 1));
        r.advance(499);
        assert_eq!(r.read(499, ALARM_STATUS), 1);
        r.advance(500);
        assert_eq!((r.next_deadline(), r.read(500, ALARM_STATUS), r.irq()), (None, 0, false));
        r.write(500, IRQ_ENABLED, 1);
        assert!(r.irq(), "it was pending");
        r.write(500, CLEAR_INTERRUPT, 1);
        assert!(!r.irq());
        r.write(500, ALARM_LOW, 100);
        assert!(r.irq(), "a time that is over goes off at once");
        r.write(600, CLEAR_INTERRUPT, 0);
        r.write(600, ALARM_LOW, 900);
        r.write(600, CLEAR_ALARM, 0);
        r.advance(1000);
        assert!(!r.irq());
    }

    #[test]
    fn state_round_trips() {
        let mut r = GoldfishRtc::new(BASE);
        r.write(3, ALARM_HIGH, 1 << 30);
        r.write(3, ALARM_LOW, 9);
        r.write(3, IRQ_ENABLED, 1);
        let back: GoldfishRtc = postcard::from_bytes(&postcard::to_stdvec(&r).unwrap()).unwrap();
        assert_eq!(back, r);
        assert_eq!(back.next_deadline(), r.next_deadline());
    }
}
