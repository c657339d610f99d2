//! The high precision event timer (IA-PC HPET specification 1.0a): a 64-bit counter at 100 MHz with three timers, each periodic
//! if software wants, without interrupts by messages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fabric::{Drives, IrqLine, IrqSwitch, Timer as Alarm};
use crate::time::{TimerLine, earlier, ns_of_tick, ticks_at};

/// Guest-physical address of its registers (2.3).
pub const BASE: u64 = 0xfed0_0000;
/// Bytes of its registers.
pub const LENGTH: u64 = 0x400;
/// The low half of the capabilities (2.3.4), which ACPI's table repeats: Intel's, legacy replacement, 64 bits, three timers,
/// revision 1.
pub(crate) const ID: u32 = 0x8086_a201;

const HZ: u64 = 100_000_000;
const PERIOD_FS: u64 = 1_000_000_000_000_000 / HZ;

/// Registers (2.3.3, table 2).
const CAPABILITIES: u64 = 0x000;
const CONFIGURATION: u64 = 0x010;
const STATUS: u64 = 0x020;
const COUNTER: u64 = 0x0f0;
const TIMERS: u64 = 0x100;
const TIMER_SIZE: u64 = 0x20;
const TIMER_CONFIGURATION: u64 = 0x00;
const TIMER_COMPARATOR: u64 = 0x08;

/// The general configuration: the counter runs; timers 0 and 1 replace the 8254 and the clock of the CMOS.
const ENABLE: u64 = 1 << 0;
const LEGACY: u64 = 1 << 1;

/// A timer's configuration (2.3.8).
const LEVEL: u64 = 1 << 1;
const INTERRUPT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const VALUE_SET: u64 = 1 << 6;
const MODE_32: u64 = 1 << 8;
const ROUTE: u32 = 9;
const WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | VALUE_SET | MODE_32 | 0x1f << ROUTE;
/// All can be periodic and are 64 bits wide, and lead to the I/O APIC's inputs 20 to 23, which nothing else of a PC drives.
const TIMER_CAPABILITIES: u64 = 1 << 4 | 1 << 5 | 0x00f0_0000 << 32;

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Timer {
    config: u64,
    comparator: u64,
    period: u64,
    /// It matched since the line was last asked for, with interrupts by edges.
    rose: bool,
    /// The line of interrupts by edges is high: from the first on, since an interrupt controller wants to see it until it
    /// acknowledges.
    high: bool,
}

impl Timer {
    /// As after a reset, which sets all bits of the comparator (2.3.9.2).
    const RESET: Timer = Timer { config: 0, comparator: u64::MAX, period: 0, rose: false, high: false };

    /// What the counter is compared in.
    fn mask(&self) -> u64 {
        if self.config & MODE_32 != 0 { u32::MAX.into() } else { u64::MAX }
    }

    /// Ticks from counter `from` to the next match: 1 or more.
    fn until_match(&self, from: u64) -> u128 {
        match self.comparator.wrapping_sub(from) & self.mask() {
            0 => u128::from(self.mask()) + 1,
            distance => distance.into(),
        }
    }

    /// Whether the counter matched on its `ticks` ticks after `from`. A periodic timer then looks for its next match.
    fn run(&mut self, from: u64, ticks: u64) -> bool {
        let distance = self.until_match(from);
        if distance > u128::from(ticks) {
            return false;
        }
        if self.config & PERIODIC != 0 && self.period & self.mask() != 0 {
            let period = self.period & self.mask();
            let late = u128::from(ticks) - distance;
            let periods = late / u128::from(period) + 1;
            let step = u128::from(period).wrapping_mul(periods) as u64;
            self.comparator = self.comparator.wrapping_add(step) & self.mask();
        }
        true
    }

    fn write_config(&mut self, value: u64) {
        self.config = value & WRITABLE;
        if self.config & INTERRUPT == 0 || self.config & LEVEL != 0 {
            (self.rose, self.high) = (false, false);
        }
        if self.config & MODE_32 != 0 {
            self.comparator &= u64::from(u32::MAX);
            self.period &= u64::from(u32::MAX);
        }
    }

    /// Writes the comparator (2.3.9.2.2): for a periodic timer this is the period, and the next match only if software has
    /// said that it sets that.
    fn write_comparator(&mut self, value: u64, mask: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        if self.config & PERIODIC == 0 || self.config & VALUE_SET != 0 {
            self.comparator = merge(self.comparator) & self.mask();
        }
        self.period = merge(self.period) & self.mask();
        self.config &= !VALUE_SET;
    }

    fn pin(&self) -> u8 {
        (self.config >> ROUTE & 0x1f) as u8
    }
}

/// The event timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hpet {
    config: u64,
    status: u8,
    counter: u64,
    /// The tick since power-on up to which the counter has counted and matches are known.
    checked: u64,
    timers: [Timer; 3],
}

/// The first input of the I/O APIC that its timers lead to.
pub(crate) const FIRST_PIN: u8 = 20;
/// Inputs of the I/O APIC that its timers lead to.
pub(crate) const PINS: usize = 4;

/// What the event timer is wired to.
pub(crate) struct HpetHandles {
    /// What timers 0 and 1 take the places of others by, and their lines there.
    pub(crate) places: [(Arc<IrqSwitch>, IrqLine); 2],
    /// The inputs of the I/O APIC from [`FIRST_PIN`] on.
    pub(crate) pins: [IrqLine; PINS],
    pub(crate) alarm: Alarm,
}

impl Drives for Hpet {
    type Handles = HpetHandles;

    fn drive(&mut self, handles: &mut HpetHandles) {
        let legacy = self.is_legacy();
        for (index, (switch, line)) in handles.places.iter_mut().enumerate() {
            switch.select(legacy);
            line.follow(if legacy { self.take_line(index) } else { TimerLine::default() });
        }
        for (line, timer) in handles.pins.iter_mut().zip(self.take_pins()) {
            line.follow(timer);
        }
        handles.alarm.set(self.next_deadline());
    }
}

impl Hpet {
    pub(crate) fn new() -> Hpet {
        Hpet { config: 0, status: 0, counter: 0, checked: 0, timers: [Timer::RESET; 3] }
    }

    /// Brings it to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        let tick = ticks_at(now, HZ).max(self.checked);
        let ticks = tick - self.checked;
        self.checked = tick;
        if self.config & ENABLE == 0 || ticks == 0 {
            return;
        }
        for (index, timer) in self.timers.iter_mut().enumerate() {
            if !timer.run(self.counter, ticks) {
                continue;
            }
            if timer.config & LEVEL != 0 {
                self.status |= 1 << index;
            } else if timer.config & INTERRUPT != 0 {
                (timer.rose, timer.high) = (true, true);
            }
        }
        self.counter = self.counter.wrapping_add(ticks);
    }

    /// The guest nanosecond of the next interrupt.
    fn next_deadline(&self) -> Option<u64> {
        if self.config & ENABLE == 0 {
            return None;
        }
        let wants = |(index, timer): &(usize, &Timer)| {
            timer.config & INTERRUPT != 0 && (timer.config & LEVEL == 0 || self.status & 1 << index == 0)
        };
        let due = |(_, timer): (usize, &Timer)| {
            let ticks = u64::try_from(timer.until_match(self.counter)).unwrap_or(u64::MAX);
            Some(ns_of_tick(self.checked.saturating_add(ticks), HZ))
        };
        self.timers.iter().enumerate().filter(wants).map(due).fold(None, earlier)
    }

    /// Whether timers 0 and 1 have taken the place of the 8254 (ISA interrupt 0) and the CMOS's clock (8).
    fn is_legacy(&self) -> bool {
        self.config & LEGACY != 0
    }

    /// Reports what timer `index` does to its interrupt line, and forgets the rises reported.
    fn take_line(&mut self, index: usize) -> TimerLine {
        let enabled = self.config & ENABLE != 0;
        let Some(timer) = self.timers.get_mut(index) else { return TimerLine::default() };
        let rose = std::mem::take(&mut timer.rose);
        let active = timer.config & INTERRUPT != 0 && self.status & 1 << index != 0;
        let level = enabled && if timer.config & LEVEL != 0 { active } else { timer.high };
        TimerLine { rose: rose && enabled, level }
    }

    /// The inputs of the I/O APIC that timers lead to, those that have replaced others left out.
    fn take_pins(&mut self) -> [TimerLine; PINS] {
        let mut pins = [TimerLine::default(); PINS];
        for index in if self.is_legacy() { 2..3 } else { 0..3 } {
            let line = self.take_line(index);
            let pin = self.timers.get(index).map_or(0, Timer::pin);
            if let Some(shared) = pin.checked_sub(FIRST_PIN).and_then(|pin| pins.get_mut(usize::from(pin))) {
                shared.rose |= line.rose;
                shared.level |= line.level;
            }
        }
        pins
    }

    /// Reads `size` bytes at [`BASE`] + `offset`; none beyond the register that the first is in.
    pub(crate) fn read(&mut self, now: u64, offset: u64, size: u8) -> u64 {
        self.advance(now);
        let mask = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        self.register(offset & !7) >> (8 * (offset & 7)) & mask
    }

    fn register(&self, offset: u64) -> u64 {
        match offset {
            CAPABILITIES => PERIOD_FS << 32 | u64::from(ID),
            CONFIGURATION => self.config,
            STATUS => self.status.into(),
            COUNTER => self.counter,
            _ => match self.timer(offset) {
                Some((index, TIMER_CONFIGURATION)) => {
                    self.timers.get(index).map_or(0, |timer| timer.config | TIMER_CAPABILITIES)
                }
                Some((index, TIMER_COMPARATOR)) => self.timers.get(index).map_or(0, |timer| timer.comparator),
                _ => 0,
            },
        }
    }

    /// The timer that a register belongs to, and the register's offset among its own.
    fn timer(&self, offset: u64) -> Option<(usize, u64)> {
        let offset = offset.checked_sub(TIMERS)?;
        let index = (offset / TIMER_SIZE) as usize;
        (index < self.timers.len()).then_some((index, offset % TIMER_SIZE))
    }

    /// Writes the low `size` bytes of `value` at [`BASE`] + `offset`; none beyond the register that the first is in.
    pub(crate) fn write(&mut self, now: u64, offset: u64, size: u8, value: u64) {
        self.advance(now);
        let shift = 8 * (offset & 7);
        let mask = (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))) << shift;
        let (value, register) = (value << shift & mask, offset & !7);
        let merged = self.register(register) & !mask | value;
        match register {
            CONFIGURATION => self.config = merged & (ENABLE | LEGACY),
            // Written ones clear.
            STATUS => self.status &= !(value as u8),
            COUNTER if self.config & ENABLE == 0 => self.counter = merged,
            COUNTER => tracing::debug!("HPET: a write to the running counter is ignored"),
            _ => {
                let Some((index, register)) = self.timer(register) else { return };
                let Some(timer) = self.timers.get_mut(index) else { return };
                match register {
                    TIMER_CONFIGURATION => timer.write_config(merged),
                    TIMER_COMPARATOR => timer.write_comparator(value, mask),
                    _ => {}
                }
            }
        }
    }

    /// As at power-on; time goes on.
    pub(crate) fn reset(&mut self) {
        *self = Hpet { checked: self.checked, ..Hpet::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds in a tick.
    const TICK: u64 = 10;
    const T0: u64 = 0x100;
    const T1: u64 = 0x120;

    fn started(config: u64) -> Hpet {
        let mut hpet = Hpet::new();
        hpet.write(0, 0x10, 8, config);
        hpet
    }

    #[test]
    fn capabilities_are_what_the_table_says() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(0, 0, 8), 0x0098_9680_8086_a201);
        assert_eq!((hpet.read(0, 0, 4), hpet.read(0, 4, 4)), (0x8086_a201, 10_000_000));
        assert_eq!(hpet.read(0, 0x100, 8), 0x00f0_0000_0000_0030);
        assert_eq!(hpet.read(0, 0x108, 8), u64::MAX, "the comparator after a reset");
        assert_eq!((hpet.read(0, 0x160, 8), hpet.read(0, 0x3f8, 8)), (0, 0), "there are three timers");
    }

    #[test]
    fn the_counter_counts_while_it_is_enabled() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(500, 0xf0, 8), 0);
        hpet.write(1000, 0xf0, 8, 0xffff_fff0);
        hpet.write(1000, 0x10, 4, 1);
        assert_eq!(hpet.read(1000 + 0x20 * TICK, 0xf0, 8), 0x1_0000_0010);
        assert_eq!(hpet.read(1000 + 0x20 * TICK, 0xf4, 4), 1);
        hpet.write(2000, 0xf0, 8, 0);
        assert_eq!(hpet.read(2000, 0xf0, 8), 0xffff_fff0 + 100, "not written while it runs");
        hpet.write(2000, 0x10, 4, 0);
        assert_eq!(hpet.read(9000, 0xf0, 8), 0xffff_fff0 + 100);
    }

    #[test]
    fn a_one_shot_interrupts_once_in_a_round_of_the_counter() {
        let mut hpet = started(ENABLE | LEGACY);
        hpet.write(0, T0, 4, INTERRUPT | MODE_32);
        hpet.write(0, T0 + 8, 4, 1000);
        assert_eq!(hpet.next_deadline(), Some(1000 * TICK));
        hpet.advance(999 * TICK);
        assert_eq!(hpet.take_line(0), TimerLine { rose: false, level: false });
        hpet.advance(1000 * TICK);
        assert_eq!(hpet.take_line(0), TimerLine { rose: true, level: true });
        assert_eq!(hpet.take_line(0), TimerLine { rose: false, level: true });
        assert_eq!(hpet.next_deadline(), Some(((1 << 32) + 1000) * TICK));
        hpet.write(1001 * TICK, T0, 4, MODE_32);
        assert_eq!((hpet.take_line(0).level, hpet.next_deadline()), (false, None));
    }

    #[test]
    fn a_periodic_timer_keeps_its_pace_however_late_it_is_looked_at() {
        let mut hpet = started(ENABLE | LEGACY);
        hpet.write(0, T0, 4, INTERRUPT | PERIODIC | VALUE_SET | MODE_32);
        hpet.write(0, T0 + 8, 4, 500);
        assert_eq!(hpet.read(0, T0, 4) & VALUE_SET, 0, "it clears itself");
        hpet.write(0, T0 + 8, 4, 300);
        assert_eq!((hpet.read(0, T0 + 8, 4), hpet.next_deadline()), (500, Some(500 * TICK)));
        hpet.advance(500 * TICK);
        assert!(hpet.take_line(0).rose);
        assert_eq!(hpet.next_deadline(), Some(800 * TICK));
        hpet.advance(1399 * TICK);
        assert_eq!(hpet.next_deadline(), Some(1400 * TICK));
        hpet.advance(1400 * TICK);
        assert_eq!(hpet.next_deadline(), Some(1700 * TICK));
        hpet.advance((1 << 33) * TICK);
        let next = hpet.next_deadline().unwrap() / TICK;
        assert!(next > 1 << 33 && next <= (1 << 33) + 300 && (next - 500).is_multiple_of(300));
    }

    #[test]
    fn a_level_stays_until_its_status_is_cleared() {
        let mut hpet = started(ENABLE);
        hpet.write(0, T1, 8, INTERRUPT | LEVEL | 21 << ROUTE);
        hpet.write(0, T1 + 8, 8, 7);
        hpet.advance(7 * TICK);
        assert_eq!((hpet.read(70, 0x20, 8), hpet.take_pins()[1]), (2, TimerLine { rose: false, level: true }));
        assert_eq!(hpet.next_deadline(), None);
        hpet.write(80, 0x20, 4, 1);
        assert!(hpet.take_line(1).level, "that was another timer's");
        hpet.write(80, 0x20, 4, 2);
        assert!(!hpet.take_line(1).level && hpet.next_deadline().is_some());
    }

    #[test]
    fn a_period_of_none_and_extreme_values_do_not_loop_or_overflow() {
        let mut hpet = started(ENABLE);
        for timer in [T0, T1] {
            hpet.write(0, timer, 8, INTERRUPT | PERIODIC);
            hpet.write(0, timer + 8, 8, if timer == T0 { 0 } else { u64::MAX });
        }
        for now in [1, 100, 1 << 62] {
            hpet.advance(now);
            assert!(hpet.next_deadline().is_none_or(|due| due > now));
        }
        hpet.write(1 << 62, 0x3ff, 8, u64::MAX);
        assert_eq!(hpet.read(1 << 62, 0x3ff, 8), 0);
    }

    #[test]
    fn state_round_trips() {
        let mut hpet = started(ENABLE | LEGACY);
        hpet.write(0, T0, 4, INTERRUPT | PERIODIC);
        hpet.write(0, T0 + 8, 4, 300);
        hpet.advance(12_345);
        let mut back: Hpet = postcard::from_bytes(&postcard::to_stdvec(&hpet).unwrap()).unwrap();
        assert_eq!(back, hpet);
        back.advance(99_999);
        hpet.advance(99_999);
        assert_eq!((back.take_line(0), back.next_deadline()), (hpet.take_line(0), hpet.next_deadline()));
    }
}
