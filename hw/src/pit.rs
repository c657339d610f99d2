//! The 8254 interval timer and port 0x61 (8254 data sheet; 82371SB data sheet, section 2.5.4.1 for the port).
//!
//! Time is counted in absolute ticks of the input clock. A count takes effect at the clock after it was written.

use crate::fabric::{Drives, IrqLine, Timer};
use crate::time::{TimerLine, ns_of_tick, ticks_at};
use serde::{Deserialize, Serialize};

/// Input clock in Hz: a twelfth of 14.31818 MHz.
pub(crate) const PIT_HZ: u64 = 1_193_182;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Channel {
    mode: u8,
    bcd: bool,
    /// The read/write field of the control word: 1 low byte, 2 high byte, 3 low then high.
    access: u8,
    low_byte: Option<u8>,
    reads_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    gate: bool,
    /// A count is loaded and, in modes 1 and 5, was triggered.
    counting: bool,
    /// The count in force, 1..=65536 (10000 in BCD).
    period: u32,
    /// A written count that waits for the end of the period (modes 2, 3) or for the trigger (modes 1, 5).
    next_period: Option<u32>,
    /// The tick at which the count was loaded.
    start: u64,
    /// Ticks counted when a low gate stopped the count.
    halted: Option<u64>,
}

impl Channel {
    fn new(gate: bool) -> Self {
        Channel {
            mode: 3,
            bcd: false,
            access: 3,
            low_byte: None,
            reads_high: false,
            latched_count: None,
            latched_status: None,
            gate,
            counting: false,
            period: 0,
            next_period: None,
            start: 0,
            halted: None,
        }
    }

    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    fn elapsed(&self, tick: u64) -> u64 {
        self.halted.unwrap_or(tick.saturating_sub(self.start))
    }

    fn period64(&self) -> u64 {
        u64::from(self.period.max(1))
    }

    /// Loads a count that waited for the end of the period.
    fn sync(&mut self, tick: u64) {
        if !self.is_periodic() || !self.counting || self.halted.is_some() {
            return;
        }
        let end = self.start.saturating_add(self.period64());
        if tick >= end
            && let Some(next) = self.next_period.take()
        {
            self.start = end;
            self.period = next;
        }
    }

    fn load(&mut self, period: u32, tick: u64) {
        self.period = period;
        self.counting = true;
        self.start = tick.saturating_add(1);
        self.halted = if self.gate { None } else { Some(0) };
    }

    fn control(&mut self, value: u8, tick: u64) {
        let access = (value >> 4) & 3;
        if access == 0 {
            self.latch_count(tick);
            return;
        }
        let mode = (value >> 1) & 7;
        *self = Channel {
            // Modes 6 and 7 are 2 and 3: the bit is "don't care".
            mode: if mode > 5 { mode - 4 } else { mode },
            bcd: value & 1 != 0,
            access,
            ..Channel::new(self.gate)
        };
    }

    fn latch_count(&mut self, tick: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(tick));
        }
    }

    fn latch_status(&mut self, tick: u64) {
        if self.latched_status.is_none() {
            let null = !self.counting || self.next_period.is_some() || tick < self.start;
            self.latched_status = Some(
                u8::from(self.out(tick)) << 7
                    | u8::from(null) << 6
                    | self.access << 4
                    | self.mode << 1
                    | u8::from(self.bcd),
            );
        }
    }

    fn write(&mut self, value: u8, tick: u64) {
        let count = match self.access {
            1 => u16::from(value),
            2 => u16::from(value) << 8,
            _ => match self.low_byte.take() {
                Some(low) => u16::from_le_bytes([low, value]),
                None => {
                    self.low_byte = Some(value);
                    // The first byte stops a mode 0 count.
                    if self.mode == 0 {
                        self.counting = false;
                    }
                    return;
                }
            },
        };
        let count = if self.bcd { from_bcd(count) } else { u32::from(count) };
        let mut period = if count == 0 { self.modulus() as u32 } else { count };
        if self.is_periodic() {
            // One is not allowed there.
            period = period.max(2);
        }
        match self.mode {
            1 | 5 => self.next_period = Some(period),
            2 | 3 if self.counting => {
                let whole = self.elapsed(tick) / self.period64() * self.period64();
                if self.halted.is_none() {
                    self.start = self.start.saturating_add(whole);
                }
                self.next_period = Some(period);
            }
            _ => self.load(period, tick),
        }
    }

    fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.count(tick)).to_le_bytes();
        let read_high = match self.access {
            1 => false,
            2 => true,
            _ => {
                self.reads_high = !self.reads_high;
                !self.reads_high
            }
        };
        if self.access != 3 || read_high {
            self.latched_count = None;
        }
        if read_high { high } else { low }
    }

    fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (1 | 5, true) => {
                if let Some(period) = self.next_period.take() {
                    self.period = period;
                }
                if self.period != 0 {
                    self.load(self.period, tick);
                }
            }
            (1 | 5, false) => {}
            _ if !self.counting => {}
            (2 | 3, true) => {
                let period = self.next_period.take().unwrap_or(self.period);
                self.load(period, tick);
            }
            (_, true) => {
                if let Some(elapsed) = self.halted.take() {
                    self.start = tick.saturating_sub(elapsed);
                }
            }
            (_, false) => self.halted = Some(self.elapsed(tick)),
        }
    }

    fn count(&self, tick: u64) -> u16 {
        if !self.counting {
            return 0;
        }
        let (period, elapsed, modulus) = (self.period64(), self.elapsed(tick), self.modulus());
        let value = match self.mode {
            2 => period - elapsed % period,
            3 => {
                // Counts down by two, once for each half of the square wave.
                let phase = elapsed % period;
                let high = period.div_ceil(2);
                let into_half = if phase < high { phase } else { phase - high };
                (period & !1).saturating_sub(2 * into_half)
            }
            _ => period + modulus - elapsed % modulus,
        } % modulus;
        if self.bcd { to_bcd(value) } else { value as u16 }
    }

    /// The level of OUT (figures 15-20 of the data sheet).
    fn out(&self, tick: u64) -> bool {
        if !self.counting {
            return self.mode != 0;
        }
        let (period, elapsed) = (self.period64(), self.elapsed(tick));
        match self.mode {
            0 | 1 => elapsed >= period,
            2 => !self.gate || elapsed % period != period - 1,
            3 => !self.gate || elapsed % period < period.div_ceil(2),
            _ => elapsed != period,
        }
    }

    /// The first tick after `after` at which OUT rises.
    fn next_rise(&self, after: u64) -> Option<u64> {
        if !self.counting || self.halted.is_some() {
            return None;
        }
        let period = self.period64();
        let rise = match self.mode {
            0 | 1 => self.start.saturating_add(period),
            2 | 3 => {
                let periods = after.saturating_sub(self.start) / period + 1;
                self.start.saturating_add(periods.saturating_mul(period))
            }
            _ => self.start.saturating_add(period + 1),
        };
        (rise > after).then_some(rise)
    }
}

fn from_bcd(value: u16) -> u32 {
    [0, 4, 8, 12].iter().rev().fold(0, |sum, shift| sum * 10 + u32::from((value >> shift) & 0xf))
}

fn to_bcd(value: u64) -> u16 {
    [1, 10, 100, 1000]
        .iter()
        .enumerate()
        .fold(0, |bcd, (digit, weight)| bcd | (((value / weight % 10) as u16) << (4 * digit)))
}

/// The interval timer with the system control port B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pit {
    channels: [Channel; 3],
    /// The tick up to which rises of channel 0 are known.
    checked: u64,
    rose: bool,
    /// Bits 1-3 of port 0x61 as written: speaker data and the two NMI disables.
    port_b: u8,
}

/// What the interval timer is wired to.
pub(crate) struct PitHandles {
    /// Counter 0's output.
    pub(crate) irq: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for Pit {
    type Handles = PitHandles;

    fn drive(&mut self, handles: &mut PitHandles) {
        handles.irq.follow(self.take_irq0());
        handles.timer.set(self.next_deadline());
    }
}

impl Pit {
    pub(crate) fn new() -> Self {
        Pit {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            checked: 0,
            rose: false,
            port_b: 0,
        }
    }

    /// Brings the timer to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        let tick = ticks_at(now, PIT_HZ);
        let [timer, ..] = &self.channels;
        if timer.next_rise(self.checked).is_some_and(|rise| rise <= tick) {
            self.rose = true;
        }
        self.checked = self.checked.max(tick);
        for channel in &mut self.channels {
            channel.sync(tick);
        }
    }

    /// The guest nanosecond of the next rise of channel 0.
    fn next_deadline(&self) -> Option<u64> {
        let [timer, ..] = &self.channels;
        timer.next_rise(self.checked).map(|rise| ns_of_tick(rise, PIT_HZ))
    }

    /// Reports the timer interrupt line and forgets the rises reported. The low phases of the periodic modes are left out: they
    /// last for one clock, or would take back a request that the guest had no time to see.
    fn take_irq0(&mut self) -> TimerLine {
        let [timer, ..] = &self.channels;
        let level = timer.mode != 0 || timer.out(self.checked);
        TimerLine { rose: std::mem::take(&mut self.rose), level }
    }

    /// Reads port 0x40 + `offset`.
    pub(crate) fn read(&mut self, now: u64, offset: u8) -> u8 {
        self.advance(now);
        let tick = self.checked;
        match self.channels.get_mut(usize::from(offset)) {
            Some(channel) => channel.read(tick),
            None => 0xff,
        }
    }

    /// Writes port 0x40 + `offset`.
    pub(crate) fn write(&mut self, now: u64, offset: u8, value: u8) {
        self.advance(now);
        let tick = self.checked;
        if let Some(channel) = self.channels.get_mut(usize::from(offset)) {
            channel.write(value, tick);
        } else if value >> 6 == 3 {
            // Read-back: bits 5 and 4 are active low, bits 3-1 select channels.
            for (index, channel) in self.channels.iter_mut().enumerate() {
                if value & (2 << index) != 0 {
                    if value & 0x20 == 0 {
                        channel.latch_count(tick);
                    }
                    if value & 0x10 == 0 {
                        channel.latch_status(tick);
                    }
                }
            }
        } else if let Some(channel) = self.channels.get_mut(usize::from(value >> 6)) {
            channel.control(value, tick);
        }
    }

    /// Reads port 0x61: gate 2, speaker data, refresh toggle (bit 4, every 15 µs) and OUT 2 (bit 5).
    pub(crate) fn read_port_b(&mut self, now: u64) -> u8 {
        self.advance(now);
        let [_, _, speaker] = &self.channels;
        let refresh = (now / 15_085) & 1 != 0;
        self.port_b | u8::from(speaker.gate) | u8::from(refresh) << 4 | u8::from(speaker.out(self.checked)) << 5
    }

    /// Writes port 0x61.
    pub(crate) fn write_port_b(&mut self, now: u64, value: u8) {
        self.advance(now);
        let tick = self.checked;
        let [_, _, speaker] = &mut self.channels;
        speaker.set_gate(value & 1 != 0, tick);
        self.port_b = value & 0x0e;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time within tick `n`.
    fn at(tick: u64) -> u64 {
        ns_of_tick(tick, PIT_HZ)
    }

    fn program(pit: &mut Pit, tick: u64, channel: u8, mode: u8, count: u16) {
        pit.write(at(tick), 3, channel << 6 | 0x30 | mode << 1);
        let [low, high] = count.to_le_bytes();
        pit.write(at(tick), channel, low);
        pit.write(at(tick), channel, high);
    }

    fn count(pit: &mut Pit, tick: u64, channel: u8) -> u16 {
        pit.write(at(tick), 3, channel << 6);
        u16::from_le_bytes([pit.read(at(tick), channel), pit.read(at(tick), channel)])
    }

    fn out2(pit: &mut Pit, tick: u64) -> bool {
        pit.read_port_b(at(tick)) & 0x20 != 0
    }

    #[test]
    fn mode_2_ticks_for_ever_and_late_ticks_merge() {
        let mut p = Pit::new();
        program(&mut p, 10, 0, 2, 1000);
        assert_eq!(p.next_deadline(), Some(at(1011)));
        p.advance(at(1010));
        assert!(!p.take_irq0().rose);
        p.advance(at(1011));
        assert_eq!(p.take_irq0(), TimerLine { rose: true, level: true });
        assert!(!p.take_irq0().rose);
        assert_eq!(p.next_deadline(), Some(at(2011)));
        p.advance(at(1_000_000_011 + 500));
        assert!(p.take_irq0().rose);
        assert_eq!(p.next_deadline(), Some(at(1_000_001_011)));
        assert_eq!(count(&mut p, 1_000_000_011 + 500, 0), 500);
    }

    #[test]
    fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
        let mut p = Pit::new();
        program(&mut p, 0, 0, 2, 100);
        p.write(at(350), 0, 50);
        p.write(at(350), 0, 0);
        assert_eq!(count(&mut p, 351, 0), 50, "351 is 50 into the fourth period");
        assert_eq!(p.next_deadline(), Some(at(401)));
        p.advance(at(401));
        assert_eq!(p.next_deadline(), Some(at(451)));
    }

    #[test]
    fn mode_3_is_a_square_wave() {
        let mut p = Pit::new();
        p.write_port_b(0, 1);
        program(&mut p, 0, 2, 3, 10);
        let wave: Vec<bool> = (1..21).map(|tick| out2(&mut p, tick)).collect();
        let half = |level| std::iter::repeat_n(level, 5);
        let expected: Vec<bool> = half(true).chain(half(false)).chain(half(true)).chain(half(false)).collect();
        assert_eq!(wave, expected);
        assert_eq!((count(&mut p, 21, 2), count(&mut p, 22, 2), count(&mut p, 26, 2)), (10, 8, 10));
        program(&mut p, 30, 2, 3, 5);
        let high = (31..41).filter(|&tick| out2(&mut p, tick)).count();
        assert_eq!(high, 6, "an odd count is high one clock longer than low");
    }

    #[test]
    fn mode_0_counts_once_and_the_gate_stops_it() {
        let mut p = Pit::new();
        p.write_port_b(0, 0);
        program(&mut p, 0, 2, 0, 1000);
        assert!(!out2(&mut p, 500));
        assert_eq!(count(&mut p, 500, 2), 1000, "the gate is low");
        p.write_port_b(at(500), 1);
        assert_eq!(count(&mut p, 600, 2), 900);
        p.write_port_b(at(600), 0);
        assert_eq!(count(&mut p, 700, 2), 900);
        p.write_port_b(at(700), 1);
        assert!(!out2(&mut p, 1599));
        assert!(out2(&mut p, 1600));
        assert_eq!(count(&mut p, 1601, 2), 0xffff, "it wraps and counts on");
    }

    #[test]
    fn mode_0_raises_irq0_once() {
        let mut p = Pit::new();
        program(&mut p, 5, 0, 0, 100);
        assert_eq!(p.take_irq0(), TimerLine { rose: false, level: false });
        assert_eq!(p.next_deadline(), Some(at(106)));
        p.advance(at(106));
        assert_eq!(p.take_irq0(), TimerLine { rose: true, level: true });
        assert_eq!(p.next_deadline(), None);
    }

    #[test]
    fn mode_4_strobes_after_the_count() {
        let mut p = Pit::new();
        program(&mut p, 0, 0, 4, 100);
        assert_eq!(p.next_deadline(), Some(at(102)));
        p.advance(at(102));
        assert!(p.take_irq0().rose);
        assert_eq!(p.next_deadline(), None);
        program(&mut p, 200, 0, 4, 0);
        assert_eq!(p.next_deadline(), Some(at(200 + 1 + 65_536 + 1)));
    }

    #[test]
    fn modes_1_and_5_wait_for_the_gate() {
        let mut p = Pit::new();
        program(&mut p, 0, 2, 1, 100);
        assert!(out2(&mut p, 50));
        p.write_port_b(at(50), 1);
        assert!(!out2(&mut p, 52));
        assert!(!out2(&mut p, 150));
        assert!(out2(&mut p, 151));
        p.write_port_b(at(160), 0);
        p.write_port_b(at(170), 1);
        assert!(!out2(&mut p, 200), "retriggered");
        program(&mut p, 300, 2, 5, 10);
        p.write_port_b(at(310), 0);
        p.write_port_b(at(320), 1);
        assert!(out2(&mut p, 330));
        assert!(!out2(&mut p, 331));
        assert!(out2(&mut p, 332));
    }

    #[test]
    fn low_gate_forces_a_periodic_output_high_and_restarts() {
        let mut p = Pit::new();
        p.write_port_b(0, 1);
        program(&mut p, 0, 2, 3, 100);
        assert!(!out2(&mut p, 60));
        p.write_port_b(at(60), 0);
        assert!(out2(&mut p, 61));
        p.write_port_b(at(80), 1);
        assert_eq!(count(&mut p, 81, 2), 100);
    }

    #[test]
    fn bcd_counts_in_decimal() {
        let mut p = Pit::new();
        p.write(0, 3, 0x35);
        p.write(0, 0, 0x00);
        p.write(0, 0, 0x10);
        assert_eq!(count(&mut p, 2, 0), 0x0999);
        assert_eq!(p.next_deadline(), Some(at(1001)));
        p.write(0, 3, 0x31);
        p.write(0, 0, 0);
        p.write(0, 0, 0);
        p.advance(0);
        assert_eq!(p.next_deadline(), Some(at(p.checked + 10_001)));
    }

    #[test]
    fn latch_holds_until_both_bytes_are_read() {
        let mut p = Pit::new();
        program(&mut p, 0, 0, 2, 0x1234);
        p.write(at(1), 3, 0x00);
        p.write(at(100), 3, 0x00);
        assert_eq!((p.read(at(200), 0), p.read(at(200), 0)), (0x34, 0x12));
        assert_eq!(p.read(at(201), 0), (0x1234u16 - 200) as u8);
    }

    #[test]
    fn read_back_gives_status_then_count() {
        let mut p = Pit::new();
        program(&mut p, 0, 0, 2, 100);
        p.write(at(0), 3, 0xe2);
        assert_eq!(p.read(at(0), 0), 0xf4, "OUT high, null count, low/high, mode 2");
        p.write(at(11), 3, 0xc2);
        assert_eq!(p.read(at(50), 0), 0xb4);
        assert_eq!((p.read(at(50), 0), p.read(at(50), 0)), (90, 0));
    }

    #[test]
    fn single_byte_access() {
        let mut p = Pit::new();
        p.write(0, 3, 0x14);
        p.write(0, 0, 200);
        assert_eq!(p.read(at(11), 0), 190);
        assert_eq!(p.read(at(12), 0), 189);
        p.write(at(20), 3, 0x24);
        p.write(at(20), 0, 2);
        assert_eq!(p.next_deadline(), Some(at(21 + 512)));
        assert_eq!(p.read(at(22), 0), 1);
    }

    #[test]
    fn state_round_trips() {
        let mut p = Pit::new();
        program(&mut p, 0, 0, 2, 1000);
        program(&mut p, 0, 2, 0, 500);
        p.write(at(10), 0, 7);
        let mut back: Pit = postcard::from_bytes(&postcard::to_stdvec(&p).unwrap()).unwrap();
        assert_eq!(back, p);
        for pit in [&mut back, &mut p] {
            pit.write(at(20), 0, 1);
            pit.advance(at(5000));
        }
        assert_eq!(back, p);
        assert_eq!(back.next_deadline(), p.next_deadline());
    }
}
