//! The MC146818 real-time clock with its CMOS memory (MC146818A data sheet; PC memory map of the CMOS bytes from the
//! IBM PC/AT technical reference and later firmware).
//!
//! While the clock runs its time registers are computed from guest time; setting SET in register B, or holding the
//! divider in reset, freezes them into memory, where the guest edits them.

use crate::fabric::{Drives, IrqLine, Timer};
use crate::time::NS_PER_SEC;
use serde::{Deserialize, Serialize};

/// The year's first two digits, in the same number format as the other time registers.
pub(crate) const CENTURY: u8 = 0x32;

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const TIME_REGISTERS: [u8; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];
const ALARM_SECONDS: u8 = 1;
const ALARM_MINUTES: u8 = 3;
const ALARM_HOURS: u8 = 5;

const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;

const A_UIP: u8 = 0x80;
const A_DIVIDER_RESET: u8 = 0x60;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const C_IRQF: u8 = 0x80;
/// Flags of register C, which are the enables of register B as well.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const D_VALID: u8 = 0x80;
const HOUR_PM: u8 = 0x80;
const ALARM_ANY: u8 = 0xc0;

/// Where else the century is.
const PS2_CENTURY: u8 = 0x37;
const CMOS_SIZE: usize = 128;
const CRYSTAL_HZ: i128 = 32_768;
const DAY_SECONDS: i64 = 86_400;
/// UIP is set 244 µs before an update cycle, which takes 1984 µs and ends at the new second (table 5 and figure 16).
const UIP_NS: i128 = 244_000 + 1_984_000;

/// A calendar date and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Calendar {
    /// The proleptic Gregorian date of `unix` seconds.
    fn from_unix(unix: i64) -> Self {
        let (days, seconds) = (unix.div_euclid(DAY_SECONDS), unix.rem_euclid(DAY_SECONDS));
        // Years start in March here, so that the leap day is a year's last day; the epoch is 0000-03-01.
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Calendar {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    fn to_unix(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let march_month = (self.month + 9) % 12;
        let of_year = (153 * march_month + 2) / 5 + self.day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        (era * 146_097 + of_era - 719_468) * DAY_SECONDS + self.hour * 3_600 + self.minute * 60 + self.second
    }
}

/// Day of the week, 0 for Sunday.
fn weekday(unix: i64) -> i64 {
    (unix.div_euclid(DAY_SECONDS) + 4).rem_euclid(7)
}

/// The byte of the memory that says why the machine was shut down, and what it is while it sleeps in S3.
const SHUTDOWN_STATUS: u8 = 0x0f;
const SHUTDOWN_TO_RAM: u8 = 0xfe;

/// What a disk must have to be translated by block.
const SECTORS_OF_A_CYLINDER: u64 = 16 * 63;

/// The clock, its interrupts and 128 bytes of CMOS memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rtc {
    index: u8,
    cmos: Vec<u8>,
    /// Unix seconds at guest time `anchor`, which may lie before power-on.
    seconds: i64,
    anchor: i64,
    weekday_offset: i64,
    /// Guest time up to which events are in register C.
    checked: u64,
}

/// What the clock is wired to.
pub(crate) struct RtcHandles {
    pub(crate) irq: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for Rtc {
    type Handles = RtcHandles;

    fn drive(&mut self, handles: &mut RtcHandles) {
        handles.irq.set(self.irq());
        handles.timer.set(self.next_deadline());
    }
}

impl Rtc {
    /// A clock that shows `unix_time` seconds at power-on, in BCD and 24-hour mode, with the CMOS bytes that firmware
    /// would have left for `ram_size` bytes of RAM and `cpus` processors.
    pub(crate) fn new(unix_time: u64, ram_size: u64, cpus: u8) -> Self {
        let mut rtc = Rtc {
            index: REG_D,
            cmos: vec![0; CMOS_SIZE],
            seconds: i64::try_from(unix_time).unwrap_or(i64::MAX / 4).min(i64::MAX / 4),
            anchor: 0,
            weekday_offset: 0,
            checked: 0,
        };
        rtc.set(REG_A, 0x26);
        rtc.set(REG_B, B_24_HOURS);
        rtc.describe_machine(ram_size, cpus);
        rtc
    }

    fn describe_machine(&mut self, ram_size: u64, cpus: u8) {
        let low = crate::low_ram_size(ram_size);
        let above_1m = (low.saturating_sub(1 << 20) >> 10).min(0xffff);
        let above_16m = (low.saturating_sub(16 << 20) >> 16).min(0xffff);
        let [h0, h1, h2, ..] = ((ram_size - low) >> 16).to_le_bytes();
        let [m0, m1, ..] = above_1m.to_le_bytes();
        let [x0, x1, ..] = above_16m.to_le_bytes();
        let bytes = [
            // Equipment: an FPU and a mouse, no floppy drive.
            (0x14, 0x06),
            // Conventional memory: 640 KiB.
            (0x15, 0x80),
            (0x16, 0x02),
            (0x17, m0),
            (0x18, m1),
            (0x30, m0),
            (0x31, m1),
            (0x34, x0),
            (0x35, x1),
            (0x5b, h0),
            (0x5c, h1),
            (0x5d, h2),
            (0x5f, cpus.saturating_sub(1)),
        ];
        for (index, value) in bytes {
            self.set(index, value);
        }
        self.sum_up();
    }

    /// What to boot from, as [`crate::Pc::set_boot_order`] has it.
    pub(crate) fn set_boot_order(&mut self, [first, second, third]: [u8; 3]) {
        self.set(0x3d, second << 4 | first & 0x0f);
        // Bit 0: a floppy disk's boot sector needs no signature.
        self.set(0x38, third << 4 | 1);
    }

    /// The hard disks, as [`crate::Pc::set_disks`] has them: geometry and type of the first two, and how the BIOS interface
    /// translates the geometry of all.
    pub(crate) fn set_disks(&mut self, sectors: [Option<u64>; 4]) {
        for (place, sectors) in sectors.iter().take(2).enumerate() {
            let Some(sectors) = sectors else { continue };
            let (cylinders, heads, track) = crate::ata::geometry(*sectors);
            let [low, high, ..] = cylinders.to_le_bytes();
            // Type 47, which the other bytes describe; 15 stands for all types above it.
            self.set(0x12, self.get(0x12) | [0xf0, 0x0f][place]);
            self.set(0x19 + place as u8, 47);
            // Of no meaning for these disks: where writes are compensated for, and where heads are parked.
            let control = 0xc0 | if heads > 8 { 8 } else { 0 };
            let bytes = [low, high, heads as u8, 0xff, 0xff, control, low, high, track as u8];
            for (index, value) in ([0x1b, 0x24][place]..).zip(bytes) {
                self.set(index, value);
            }
        }
        // Two bits for each: 0 is the drive's own geometry, 1 translation by logical block. A disk of less than a cylinder would
        // have none to translate.
        let by_block = |sectors: &Option<u64>| sectors.is_none_or(|sectors| sectors >= SECTORS_OF_A_CYLINDER);
        self.set(0x39, sectors.iter().rev().fold(0, |bits, sectors| bits << 2 | u8::from(by_block(sectors))));
        self.sum_up();
    }

    fn sum_up(&mut self) {
        let sum: u16 = (0x10..=0x2d).map(|index| u16::from(self.get(index))).sum();
        let [low, high] = sum.to_le_bytes();
        self.set(0x2e, high);
        self.set(0x2f, low);
    }

    /// The reset input: interrupts off, flags clear. Time and memory run on the battery (data sheet, "RESET").
    pub(crate) fn reset(&mut self) {
        let b = self.get(REG_B);
        self.set(REG_B, b & !(PERIODIC | ALARM | UPDATE | 0x08));
        self.set(REG_C, 0);
    }

    /// Whether a restored state has the memory that every access relies on and a day of the week.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.cmos.len() == CMOS_SIZE && (0..7).contains(&self.weekday_offset)
    }

    /// The machine goes to sleep: the shutdown status tells firmware that RAM has its contents when it is woken, and the alarm is
    /// one to come.
    pub(crate) fn fall_asleep(&mut self) {
        self.set(SHUTDOWN_STATUS, SHUTDOWN_TO_RAM);
        self.set(REG_C, self.get(REG_C) & !ALARM);
    }

    /// Whether an alarm that is wanted has gone off.
    pub(crate) fn alarm(&self) -> bool {
        self.get(REG_C) & self.get(REG_B) & ALARM != 0
    }

    /// The level of the interrupt line.
    fn irq(&self) -> bool {
        self.get(REG_C) & self.get(REG_B) & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// Writes port 0x70.
    pub(crate) fn write_index(&mut self, value: u8) {
        // Bit 7 masks the chipset's NMI for errors of memory and bus, which there are none of.
        self.index = match value & 0x7f {
            // The century has a second place, where a PS/2 has it.
            PS2_CENTURY => CENTURY,
            index => index,
        };
    }

    /// Reads port 0x71.
    pub(crate) fn read(&mut self, now: u64) -> u8 {
        self.advance(now);
        match self.index {
            REG_A => {
                let to_update = i128::from(NS_PER_SEC) - self.phase(now).rem_euclid(i128::from(NS_PER_SEC));
                let uip = self.running() && to_update <= UIP_NS;
                self.get(REG_A) & !A_UIP | if uip { A_UIP } else { 0 }
            }
            REG_C => {
                let flags = self.get(REG_C) | if self.irq() { C_IRQF } else { 0 };
                self.set(REG_C, 0);
                flags
            }
            REG_D => D_VALID,
            index if TIME_REGISTERS.contains(&index) && self.running() => self.time_register(index, now),
            index => self.get(index),
        }
    }

    /// Writes port 0x71.
    pub(crate) fn write(&mut self, now: u64, value: u8) {
        self.advance(now);
        match self.index {
            REG_A => self.write_control(now, value & !A_UIP, self.get(REG_B)),
            REG_B => {
                // SET clears the update interrupt's enable (register B, bit 7).
                let value = if value & B_SET != 0 { value & !UPDATE } else { value };
                self.write_control(now, self.get(REG_A), value);
            }
            REG_C | REG_D => {}
            index if TIME_REGISTERS.contains(&index) && self.running() => {
                self.freeze(now);
                self.set(index, value);
                let shown = self.shown_seconds(now);
                self.seconds = self.seconds.saturating_add(self.decode_time().saturating_sub(shown));
                self.keep_weekday();
            }
            index => self.set(index, value),
        }
    }

    /// Sets the flags of everything that happened up to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        let from = self.checked;
        if now <= from {
            return;
        }
        self.checked = now;
        let mut flags = 0;
        if self.running() {
            let (old, new) = (self.shown_seconds(from), self.shown_seconds(now));
            if new > old {
                flags |= UPDATE;
                if self.next_alarm(old).is_some_and(|alarm| alarm <= new) {
                    flags |= ALARM;
                }
            }
        }
        if let Some(period) = self.period()
            && self.crystal_ticks(from) / period != self.crystal_ticks(now) / period
        {
            flags |= PERIODIC;
        }
        let c = self.get(REG_C);
        self.set(REG_C, c | flags);
    }

    /// When an enabled interrupt is due whose flag is not yet set.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let waiting = self.get(REG_B) & !self.get(REG_C);
        let mut due: Option<i128> = None;
        let mut add = |ns: i128| due = Some(due.map_or(ns, |old| old.min(ns)));
        let anchor = i128::from(self.anchor);
        let nanoseconds = i128::from(NS_PER_SEC);
        if waiting & PERIODIC != 0
            && let Some(period) = self.period()
        {
            let next = (self.crystal_ticks(self.checked) / period + 1) * period;
            add(anchor + (next * nanoseconds + CRYSTAL_HZ - 1) / CRYSTAL_HZ);
        }
        if self.running() {
            let shown = self.shown_seconds(self.checked);
            let mut add_second =
                |second: i64| add(anchor + (i128::from(second) - i128::from(self.seconds)) * nanoseconds);
            if waiting & UPDATE != 0 {
                add_second(shown.saturating_add(1));
            }
            if waiting & ALARM != 0
                && let Some(alarm) = self.next_alarm(shown)
            {
                add_second(alarm);
            }
        }
        due.map(|ns| u64::try_from(ns.max(0)).unwrap_or(u64::MAX))
    }

    fn get(&self, index: u8) -> u8 {
        self.cmos.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn set(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.cmos.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn divider_runs(&self) -> bool {
        self.get(REG_A) & A_DIVIDER_RESET != A_DIVIDER_RESET
    }

    fn running(&self) -> bool {
        self.get(REG_B) & B_SET == 0 && self.divider_runs()
    }

    /// Nanoseconds since the anchor.
    fn phase(&self, now: u64) -> i128 {
        i128::from(now) - i128::from(self.anchor)
    }

    fn shown_seconds(&self, now: u64) -> i64 {
        let passed = self.phase(now).div_euclid(i128::from(NS_PER_SEC));
        self.seconds.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    fn crystal_ticks(&self, now: u64) -> i128 {
        self.phase(now).max(0) * CRYSTAL_HZ / i128::from(NS_PER_SEC)
    }

    /// The periodic interrupt's period in crystal ticks (table 3).
    fn period(&self) -> Option<i128> {
        match self.get(REG_A) & 0x0f {
            0 => None,
            _ if !self.divider_runs() => None,
            rate @ (1 | 2) => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn write_control(&mut self, now: u64, a: u8, b: u8) {
        let (ran, divider_ran) = (self.running(), self.divider_runs());
        if ran {
            self.freeze(now);
        }
        self.set(REG_A, a);
        self.set(REG_B, b);
        if !divider_ran && self.divider_runs() {
            // The first update comes half a second after the divider leaves reset ("Divider control").
            self.seconds = self.shown_seconds(now);
            self.anchor = i64::try_from(now).unwrap_or(i64::MAX) - (NS_PER_SEC / 2) as i64;
        }
        if !ran && self.running() {
            let shown = self.shown_seconds(now);
            self.seconds = self.seconds.saturating_add(self.decode_time().saturating_sub(shown));
            self.keep_weekday();
        }
    }

    /// Stores the time registers as they show now.
    fn freeze(&mut self, now: u64) {
        for index in TIME_REGISTERS {
            let value = self.time_register(index, now);
            self.set(index, value);
        }
    }

    fn time_register(&self, index: u8, now: u64) -> u8 {
        let unix = self.shown_seconds(now);
        let time = Calendar::from_unix(unix);
        match index {
            SECONDS => self.encode(time.second),
            MINUTES => self.encode(time.minute),
            HOURS if self.get(REG_B) & B_24_HOURS != 0 => self.encode(time.hour),
            HOURS => self.encode((time.hour + 11) % 12 + 1) | if time.hour >= 12 { HOUR_PM } else { 0 },
            WEEKDAY => self.encode((weekday(unix) + self.weekday_offset).rem_euclid(7) + 1),
            DAY => self.encode(time.day),
            MONTH => self.encode(time.month),
            YEAR => self.encode(time.year.rem_euclid(100)),
            _ => self.encode(time.year.div_euclid(100).rem_euclid(100)),
        }
    }

    /// A number below 100 in the format that register B asks for.
    fn encode(&self, value: i64) -> u8 {
        let value = value as u8;
        if self.get(REG_B) & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> i64 {
        i64::from(if self.get(REG_B) & B_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) })
    }

    fn decode_hour(&self, value: u8) -> i64 {
        if self.get(REG_B) & B_24_HOURS != 0 {
            return self.decode(value);
        }
        self.decode(value & !HOUR_PM) % 12 + if value & HOUR_PM != 0 { 12 } else { 0 }
    }

    /// The frozen time registers as Unix seconds; values out of range are brought into it.
    fn decode_time(&self) -> i64 {
        Calendar {
            year: self.decode(self.get(CENTURY)) * 100 + self.decode(self.get(YEAR)),
            month: self.decode(self.get(MONTH)).clamp(1, 12),
            day: self.decode(self.get(DAY)).clamp(1, 31),
            hour: self.decode_hour(self.get(HOURS)).clamp(0, 23),
            minute: self.decode(self.get(MINUTES)).clamp(0, 59),
            second: self.decode(self.get(SECONDS)).clamp(0, 59),
        }
        .to_unix()
    }

    /// The chip counts the day of the week on its own: keep what the guest wrote, even if the date disagrees.
    fn keep_weekday(&mut self) {
        let written = self.decode(self.get(WEEKDAY)) - 1;
        self.weekday_offset = (written - weekday(self.decode_time())).rem_euclid(7);
    }

    /// The first second after `after` that the alarm registers match.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let field = |index, hour: bool| match self.get(index) {
            any if any & ALARM_ANY == ALARM_ANY => None,
            value if hour => Some(self.decode_hour(value)),
            value => Some(self.decode(value)),
        };
        let (hour, minute, second) =
            (field(ALARM_HOURS, true), field(ALARM_MINUTES, false), field(ALARM_SECONDS, false));
        let mut at = after.checked_add(1)?;
        let limit = at.checked_add(DAY_SECONDS)?;
        // At most 24 hours, 60 minutes and 60 seconds are stepped over.
        while at < limit {
            let of_day = at.rem_euclid(DAY_SECONDS);
            at += if hour.is_some_and(|hour| hour != of_day / 3_600) {
                3_600 - of_day % 3_600
            } else if minute.is_some_and(|minute| minute != of_day / 60 % 60) {
                60 - of_day % 60
            } else if second.is_some_and(|second| second != of_day % 60) {
                1
            } else {
                return Some(at);
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = NS_PER_SEC;
    /// 2024-02-29 23:59:58, a Thursday.
    const START: u64 = 1_709_251_198;

    fn rtc() -> Rtc {
        Rtc::new(START, 512 << 20, 1)
    }

    fn read(rtc: &mut Rtc, now: u64, index: u8) -> u8 {
        rtc.write_index(index);
        rtc.read(now)
    }

    fn write(rtc: &mut Rtc, now: u64, index: u8, value: u8) {
        rtc.write_index(index);
        rtc.write(now, value);
    }

    fn all(rtc: &mut Rtc, now: u64) -> [u8; 8] {
        TIME_REGISTERS.map(|index| read(rtc, now, index))
    }

    #[test]
    fn calendar_round_trips() {
        assert_eq!(Calendar::from_unix(0).year, 1970);
        assert_eq!(weekday(0), 4);
        for unix in (-3_000_000_000..20_000_000_000i64).step_by(123_456_789) {
            assert_eq!(Calendar::from_unix(unix).to_unix(), unix);
        }
    }

    #[test]
    fn shows_bcd_and_crosses_a_leap_day() {
        let mut r = rtc();
        assert_eq!(all(&mut r, 0), [0x58, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20]);
        assert_eq!(all(&mut r, 2 * SEC), [0x00, 0x00, 0x00, 6, 0x01, 0x03, 0x24, 0x20]);
    }

    #[test]
    fn the_century_is_where_a_ps2_has_it_too() {
        let mut rtc = rtc();
        assert_eq!(read(&mut rtc, 0, PS2_CENTURY), 0x20);
        write(&mut rtc, 0, PS2_CENTURY, 0x21);
        assert_eq!(read(&mut rtc, 0, CENTURY), 0x21);
    }

    #[test]
    fn binary_and_twelve_hour_formats() {
        let mut r = rtc();
        write(&mut r, 0, REG_B, B_BINARY | B_24_HOURS);
        assert_eq!(all(&mut r, 0), [58, 59, 23, 5, 29, 2, 24, 20]);
        write(&mut r, 0, REG_B, 0);
        assert_eq!(read(&mut r, 0, HOURS), 0x91, "11 PM");
        assert_eq!(read(&mut r, 2 * SEC, HOURS), 0x12, "12 AM");
    }

    #[test]
    fn the_guest_sets_the_time() {
        let mut r = rtc();
        write(&mut r, 0, REG_B, B_SET | B_24_HOURS);
        for (index, value) in TIME_REGISTERS.into_iter().zip([0x30, 0x15, 0x08, 3, 0x31, 0x12, 0x99, 0x19]) {
            write(&mut r, 0, index, value);
        }
        assert_eq!(read(&mut r, 5 * SEC, SECONDS), 0x30, "SET stops the clock");
        write(&mut r, 5 * SEC, REG_B, B_24_HOURS);
        assert_eq!(all(&mut r, 5 * SEC), [0x30, 0x15, 0x08, 3, 0x31, 0x12, 0x99, 0x19]);
        assert_eq!(read(&mut r, 6 * SEC, SECONDS), 0x31);
        assert_eq!(read(&mut r, 5 * SEC + 16 * 3600 * SEC, YEAR), 0x00);
        assert_eq!(read(&mut r, 5 * SEC + 16 * 3600 * SEC, CENTURY), 0x20);
        // Without SET a single register is honoured too.
        write(&mut r, 6 * SEC, MINUTES, 0x20);
        assert_eq!(read(&mut r, 7 * SEC, MINUTES), 0x20);
        assert_eq!(read(&mut r, 7 * SEC, SECONDS), 0x32);
    }

    #[test]
    fn leaving_divider_reset_starts_half_a_second_in() {
        let mut r = rtc();
        write(&mut r, 0, REG_B, B_SET | B_24_HOURS);
        write(&mut r, 0, REG_A, 0x76);
        write(&mut r, 0, SECONDS, 0x10);
        write(&mut r, 300_000_000, REG_B, B_24_HOURS);
        assert_eq!(read(&mut r, 3 * SEC, SECONDS), 0x10);
        write(&mut r, 3 * SEC, REG_A, 0x26);
        assert_eq!(read(&mut r, 3 * SEC + 499_999_999, SECONDS), 0x10);
        assert_eq!(read(&mut r, 3 * SEC + 500_000_000, SECONDS), 0x11);
    }

    #[test]
    fn update_in_progress_precedes_the_second() {
        let mut r = rtc();
        assert_eq!(read(&mut r, 0, REG_A) & A_UIP, 0);
        assert_eq!(read(&mut r, SEC - 1_000, REG_A) & A_UIP, A_UIP);
        assert_eq!(read(&mut r, SEC, REG_A) & A_UIP, 0);
        write(&mut r, SEC, REG_B, B_SET);
        assert_eq!(read(&mut r, 2 * SEC - 1_000, REG_A) & A_UIP, 0);
    }

    #[test]
    fn update_interrupt_until_c_is_read() {
        let mut r = rtc();
        write(&mut r, 100, REG_B, UPDATE | B_24_HOURS);
        assert_eq!(r.next_deadline(), Some(SEC));
        r.advance(SEC - 1);
        assert!(!r.irq());
        r.advance(SEC);
        assert!(r.irq());
        assert_eq!(r.next_deadline(), None, "nothing to do until C is read");
        assert_eq!(read(&mut r, SEC, REG_C) & (C_IRQF | UPDATE), C_IRQF | UPDATE);
        assert!(!r.irq());
        assert_eq!(read(&mut r, SEC, REG_C), 0);
        assert_eq!(r.next_deadline(), Some(2 * SEC));
    }

    #[test]
    fn periodic_interrupt_at_1024_hz() {
        let mut r = rtc();
        write(&mut r, 0, REG_B, PERIODIC | B_24_HOURS);
        let mut ticks = 0;
        while let Some(due) = r.next_deadline().filter(|&due| due <= SEC) {
            r.advance(due);
            assert_eq!(read(&mut r, due, REG_C) & PERIODIC, PERIODIC);
            ticks += 1;
        }
        assert_eq!(ticks, 1024);
        write(&mut r, SEC, REG_A, 0x20);
        assert_eq!(r.next_deadline(), None);
    }

    #[test]
    fn alarm_matches_exactly_or_with_wildcards() {
        let mut r = rtc();
        for (index, value) in [(ALARM_HOURS, 0x00), (ALARM_MINUTES, 0x00), (ALARM_SECONDS, 0x05)] {
            write(&mut r, 0, index, value);
        }
        write(&mut r, 0, REG_B, ALARM | B_24_HOURS);
        assert_eq!(r.next_deadline(), Some(7 * SEC));
        r.advance(7 * SEC);
        assert!(r.irq());
        read(&mut r, 7 * SEC, REG_C);
        assert_eq!(r.next_deadline(), Some((7 + 86_400) * SEC));
        write(&mut r, 7 * SEC, ALARM_HOURS, 0xff);
        assert_eq!(r.next_deadline(), Some((7 + 3_600) * SEC));
        write(&mut r, 7 * SEC, ALARM_MINUTES, 0xc0);
        write(&mut r, 7 * SEC, ALARM_SECONDS, 0xff);
        assert_eq!(r.next_deadline(), Some(8 * SEC));
        write(&mut r, 7 * SEC, ALARM_SECONDS, 0x75);
        assert_eq!(r.next_deadline(), None, "never matches");
        r.advance(100_000_000 * SEC);
        assert_eq!(r.get(REG_C) & ALARM, 0);
    }

    #[test]
    fn memory_sizes_and_status() {
        let mut r = Rtc::new(START, 6 << 30, 4);
        assert_eq!((read(&mut r, 0, 0x30), read(&mut r, 0, 0x31)), (0xff, 0xff));
        assert_eq!((read(&mut r, 0, 0x34), read(&mut r, 0, 0x35)), (0x00, 0xbf));
        assert_eq!(read(&mut r, 0, 0x5c), (3u64 << 30 >> 24) as u8);
        assert_eq!(read(&mut r, 0, 0x5f), 3);
        assert_eq!(read(&mut r, 0, REG_D), D_VALID);
        write(&mut r, 0, 0x0f, 0x0a);
        r.reset();
        assert_eq!(read(&mut r, 0, 0x0f), 0x0a, "memory survives a reset");
    }

    #[test]
    fn disks_have_types_and_translations() {
        let mut r = rtc();
        r.set_disks([Some(16384), Some(1000), None, Some(1 << 30)]);
        let drives: Vec<u8> = (0x19..=0x2c).map(|index| read(&mut r, 0, index)).collect();
        assert_eq!(drives, [47, 47, 16, 0, 16, 0xff, 0xff, 0xc8, 16, 0, 63, 2, 0, 16, 0xff, 0xff, 0xc8, 2, 0, 63]);
        assert_eq!([0x12, 0x39].map(|index| read(&mut r, 0, index)), [0xff, 0b01_01_00_01]);
        let sum: u16 = (0x10..=0x2d).map(|index| u16::from(read(&mut r, 0, index))).sum();
        assert_eq!([0x2e, 0x2f].map(|index| read(&mut r, 0, index)), sum.to_be_bytes());
    }

    #[test]
    fn malformed_states_are_recognised() {
        assert!(rtc().is_well_formed());
        assert!(!Rtc { cmos: vec![0; 64], ..rtc() }.is_well_formed());
        assert!(!Rtc { weekday_offset: i64::MAX, ..rtc() }.is_well_formed());
    }

    #[test]
    fn state_round_trips() {
        let mut r = rtc();
        write(&mut r, 123_456_789, REG_B, PERIODIC | UPDATE | B_24_HOURS);
        r.advance(SEC + 5);
        let mut back: Rtc = postcard::from_bytes(&postcard::to_stdvec(&r).unwrap()).unwrap();
        assert_eq!(back, r);
        assert_eq!(read(&mut back, 2 * SEC, REG_C), read(&mut r, 2 * SEC, REG_C));
        assert_eq!(back.next_deadline(), r.next_deadline());
    }
}
