//! The ACPI fixed hardware: PM1a event and control blocks, PM timer, a GPE block without events and the SMI command port
//! (ACPI specification 6.5, 4.8.3 and 4.8.4).

use crate::fabric::{Drives, IrqLine, Timer};
use crate::time::{ns_of_tick, ticks_at};
use serde::{Deserialize, Serialize};

/// First port of the power management registers.
pub(crate) const PM_BASE: u16 = 0x600;
/// Offsets from [`PM_BASE`].
pub(crate) const PM1_EVENT: u16 = 0;
pub(crate) const PM1_CONTROL: u16 = 4;
pub(crate) const PM_TIMER: u16 = 8;
/// Ports that belong to the block.
pub(crate) const PM_LENGTH: u16 = 0x40;
/// First port of GPE0; four ports, without any event.
pub(crate) const GPE0_BASE: u16 = 0xafe0;
/// The SMI command port and the values that switch ACPI mode on and off.
pub(crate) const SMI_COMMAND: u16 = 0xb2;
pub(crate) const ACPI_ENABLE: u8 = 0xf1;
pub(crate) const ACPI_DISABLE: u8 = 0xf0;
/// The sleep types, in the DSDT's `\_S3`, `\_S4` and `\_S5`, too.
pub(crate) const S3_SLEEP_TYPE: u8 = 1;
/// See [`S3_SLEEP_TYPE`].
pub(crate) const S4_SLEEP_TYPE: u8 = 2;
/// See [`S3_SLEEP_TYPE`].
pub(crate) const S5_SLEEP_TYPE: u8 = 0;
/// The system control interrupt.
pub(crate) const SCI_IRQ: u8 = 9;

const PM_TIMER_HZ: u64 = 3_579_545;
/// The timer is 32 bits wide (FADT flag TMR_VAL_EXT): its status bit is set whenever bit 31 changes.
const TIMER_HALF: u64 = 1 << 31;

const TIMER_EVENT: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
/// Bits of the status and enable registers: the clock's alarm; and of the status register only, the machine has slept.
pub(crate) const CLOCK_ALARM: u16 = 1 << 10;
const WAKE: u16 = 1 << 15;
/// Status bits: timer, bus master, global, power button, sleep button, RTC, wake.
const STATUS_BITS: u16 = 0x8731;
const ENABLE_BITS: u16 = 0x0721;
const SCI_ENABLE: u16 = 1 << 0;
const SLEEP_ENABLE: u16 = 1 << 13;

/// A sleep state that a guest has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sleep {
    /// S3: RAM keeps its contents.
    ToRam,
    /// S4: the guest has written them to a disk.
    ToDisk,
    /// S5.
    Off,
}

/// The fixed power management hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AcpiPm {
    status: u16,
    enable: u16,
    control: u16,
    /// The enable half of GPE0. No event ever sets the status half.
    gpe_enable: [u8; 2],
    smi_command: u8,
    smi_status: u8,
    /// The timer tick up to which changes of bit 31 are in `status`.
    checked: u64,
    /// What the guest has entered, and nobody has taken yet.
    entered: Option<Sleep>,
    /// The machine sleeps in S3.
    asleep: bool,
    /// Status bits of what ends that.
    causes: u16,
}

/// What power management is wired to.
pub(crate) struct PmHandles {
    /// The system control interrupt.
    pub(crate) sci: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for AcpiPm {
    type Handles = PmHandles;

    fn drive(&mut self, handles: &mut PmHandles) {
        handles.sci.set(self.sci());
        handles.timer.set(self.next_deadline());
    }
}

impl AcpiPm {
    pub(crate) fn new() -> Self {
        AcpiPm {
            status: 0,
            enable: 0,
            control: 0,
            gpe_enable: [0; 2],
            smi_command: 0,
            smi_status: 0,
            checked: 0,
            entered: None,
            asleep: false,
            causes: 0,
        }
    }

    /// Back to power-on values; the timer runs on.
    pub(crate) fn reset(&mut self) {
        *self = AcpiPm { checked: self.checked, ..AcpiPm::new() };
    }

    /// The level of the system control interrupt.
    fn sci(&self) -> bool {
        self.control & SCI_ENABLE != 0 && self.status & self.enable & ENABLE_BITS != 0
    }

    /// Someone pressed the power button.
    pub(crate) fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// The sleep state that the guest entered since the last call.
    pub(crate) fn take_sleep(&mut self) -> Option<Sleep> {
        self.entered.take()
    }

    /// Whether the machine sleeps in S3.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Something happens that ends the machine's sleep, if it sleeps. For who is awake it is a press of the power button.
    pub(crate) fn wake(&mut self) {
        self.wake_by(POWER_BUTTON);
    }

    /// The clock's alarm goes off, which ends the machine's sleep if the guest wants that.
    pub(crate) fn wake_by_clock(&mut self) {
        if self.enable & CLOCK_ALARM != 0 {
            self.wake_by(CLOCK_ALARM);
        }
    }

    fn wake_by(&mut self, cause: u16) {
        if self.asleep {
            self.causes |= cause;
        }
    }

    /// Whether a sleeping machine is to go on.
    pub(crate) fn wakes(&self) -> bool {
        self.causes != 0
    }

    /// A sleeping machine goes on: as after a reset, but for the status, which says that it has slept and what ended that.
    pub(crate) fn resume(&mut self) {
        let status = WAKE | self.causes;
        self.reset();
        self.status = status;
    }

    pub(crate) fn advance(&mut self, now: u64) {
        let tick = ticks_at(now, PM_TIMER_HZ).max(self.checked);
        if tick / TIMER_HALF != self.checked / TIMER_HALF {
            self.status |= TIMER_EVENT;
            self.wake_by(TIMER_EVENT & self.enable);
        }
        self.checked = tick;
    }

    /// When the timer event will raise the SCI.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let armed = self.control & SCI_ENABLE != 0 && self.enable & !self.status & TIMER_EVENT != 0;
        armed.then(|| ns_of_tick((self.checked / TIMER_HALF + 1).saturating_mul(TIMER_HALF), PM_TIMER_HZ))
    }

    /// Reads `size` bytes at [`PM_BASE`] + `offset`.
    pub(crate) fn read(&mut self, now: u64, offset: u16, size: u8) -> u32 {
        self.advance(now);
        let bytes: [u8; 4] = std::array::from_fn(|byte| self.byte(offset.saturating_add(byte as u16)));
        u32::from_le_bytes(bytes) & u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
    }

    fn byte(&self, offset: u16) -> u8 {
        let (register, first) = match offset {
            0 | 1 => (u32::from(self.status), 0),
            2 | 3 => (u32::from(self.enable), 2),
            4 | 5 => (u32::from(self.control), 4),
            8..=11 => (self.checked as u32, 8),
            _ => return 0xff,
        };
        register.to_le_bytes().get(usize::from(offset - first)).copied().unwrap_or(0)
    }

    /// Writes `size` bytes at [`PM_BASE`] + `offset`.
    pub(crate) fn write(&mut self, now: u64, offset: u16, size: u8, value: u32) {
        self.advance(now);
        let bytes = value.to_le_bytes();
        // SLP_TYP and SLP_EN share the control register's high byte, so bytes can be taken one by one.
        for (byte, at) in bytes.into_iter().take(usize::from(size)).zip(offset..) {
            let (word, mask) = if at & 1 == 0 { (u16::from(byte), 0x00ff) } else { (u16::from(byte) << 8, 0xff00) };
            match at {
                0 | 1 => self.status &= !(word & STATUS_BITS),
                2 | 3 => self.enable = self.enable & !mask | word & mask,
                4 | 5 => self.write_control(word, mask),
                _ => {}
            }
        }
    }

    fn write_control(&mut self, word: u16, mask: u16) {
        // SCI_EN included (82371AB data sheet, 7.2.3): ACPI mode can be left without the SMI command.
        let mask = mask & !SLEEP_ENABLE;
        self.control = self.control & !mask | word & mask;
        if word & SLEEP_ENABLE == 0 {
            return;
        }
        let sleep_type = ((self.control >> 10) & 7) as u8;
        self.entered = match sleep_type {
            S3_SLEEP_TYPE => Some(Sleep::ToRam),
            S4_SLEEP_TYPE => Some(Sleep::ToDisk),
            S5_SLEEP_TYPE => Some(Sleep::Off),
            _ => {
                tracing::warn!(sleep_type, "unsupported sleep state ignored");
                return;
            }
        };
        (self.asleep, self.causes) = (self.entered == Some(Sleep::ToRam), 0);
    }

    /// Reads port [`GPE0_BASE`] + `offset`.
    pub(crate) fn read_gpe(&self, offset: u16) -> u8 {
        offset.checked_sub(2).and_then(|at| self.gpe_enable.get(usize::from(at)).copied()).unwrap_or(0)
    }

    /// Writes port [`GPE0_BASE`] + `offset`.
    pub(crate) fn write_gpe(&mut self, offset: u16, value: u8) {
        if let Some(enable) = offset.checked_sub(2).and_then(|at| self.gpe_enable.get_mut(usize::from(at))) {
            *enable = value;
        }
    }

    /// Reads port [`SMI_COMMAND`] or the status port after it.
    pub(crate) fn read_smi(&self, offset: u16) -> u8 {
        if offset == 0 { self.smi_command } else { self.smi_status }
    }

    /// Writes port [`SMI_COMMAND`] or the status port after it. The command port does what firmware's SMI handler
    /// would: it switches ACPI mode.
    pub(crate) fn write_smi(&mut self, offset: u16, value: u8) {
        if offset != 0 {
            self.smi_status = value;
            return;
        }
        self.smi_command = value;
        match value {
            ACPI_ENABLE => self.control |= SCI_ENABLE,
            ACPI_DISABLE => self.control &= !SCI_ENABLE,
            _ => tracing::debug!(value, "SMI command ignored"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_runs_at_its_frequency() {
        let mut pm = AcpiPm::new();
        assert_eq!(pm.read(1_000_000_000, PM_TIMER, 4), 3_579_545);
        assert_eq!(pm.read(2_000_000_000, PM_TIMER, 2), 7_159_090 & 0xffff);
        assert_eq!(pm.read(2_000_000_000, PM_TIMER + 2, 1), 7_159_090 >> 16);
    }

    #[test]
    fn acpi_mode_and_timer_event() {
        let mut pm = AcpiPm::new();
        pm.write(0, PM1_EVENT + 2, 2, 0xffff);
        assert_eq!(pm.read(0, PM1_EVENT, 4), 0xffff_0000);
        assert_eq!(pm.next_deadline(), None);
        pm.write_smi(0, ACPI_ENABLE);
        assert_eq!(pm.read(0, PM1_CONTROL, 2), 1);
        let due = pm.next_deadline().unwrap();
        pm.advance(due - 1);
        assert!(!pm.sci());
        pm.advance(due);
        assert!(pm.sci());
        assert_eq!(pm.next_deadline(), None);
        pm.write(due, PM1_EVENT, 2, 1);
        assert!(!pm.sci());
        assert_eq!(pm.next_deadline(), Some(ns_of_tick(2 * TIMER_HALF, PM_TIMER_HZ)));
        pm.write_smi(0, ACPI_DISABLE);
        assert_eq!(pm.read(due, PM1_CONTROL, 2), 0);
    }

    #[test]
    fn control_and_gpe_enables_keep_what_is_written() {
        let mut pm = AcpiPm::new();
        pm.write(0, PM1_CONTROL, 2, 0x1c03);
        assert_eq!(pm.read(0, PM1_CONTROL, 2), 0x1c03);
        pm.write(0, PM1_EVENT + 2, 2, POWER_BUTTON.into());
        pm.press_power_button();
        assert!(pm.sci());
        pm.write(0, PM1_CONTROL, 1, 0);
        assert!(!pm.sci());
        assert_eq!(pm.read(0, PM1_CONTROL, 2), 0x1c00);
        for offset in 0..4 {
            pm.write_gpe(offset, 0xa0 | offset as u8);
        }
        assert_eq!([0, 1, 2, 3, 4].map(|offset| pm.read_gpe(offset)), [0, 0, 0xa2, 0xa3, 0]);
        pm.reset();
        assert_eq!(pm.read_gpe(2), 0);
    }

    #[test]
    fn power_button() {
        let mut pm = AcpiPm::new();
        pm.write_smi(0, ACPI_ENABLE);
        pm.write(0, PM1_EVENT + 3, 1, 0x01);
        pm.press_power_button();
        assert!(pm.sci());
        pm.write(0, PM1_EVENT + 1, 1, 0x01);
        assert!(!pm.sci());
    }

    #[test]
    fn soft_off() {
        let mut pm = AcpiPm::new();
        pm.write(0, PM1_CONTROL, 2, 5 << 10 | 1 << 13);
        assert_eq!(pm.take_sleep(), None, "there is no such state");
        pm.write(0, PM1_CONTROL, 2, u32::from(S5_SLEEP_TYPE) << 10);
        assert_eq!(pm.take_sleep(), None);
        for (sleep_type, sleep) in [(S5_SLEEP_TYPE, Sleep::Off), (S4_SLEEP_TYPE, Sleep::ToDisk)] {
            pm.write(0, PM1_CONTROL, 2, u32::from(sleep_type) << 10 | 1 << 13);
            assert_eq!((pm.take_sleep(), pm.take_sleep(), pm.is_asleep()), (Some(sleep), None, false));
        }
        assert_eq!(pm.read(0, PM1_CONTROL, 2) & 1 << 13, 0, "SLP_EN reads as 0");
    }

    #[test]
    fn sleep_ends_for_a_cause() {
        let asleep = |enable: u32| {
            let mut pm = AcpiPm::new();
            pm.write_smi(0, ACPI_ENABLE);
            pm.wake();
            pm.write(0, PM1_EVENT + 2, 2, enable);
            pm.write(0, PM1_CONTROL, 2, u32::from(S3_SLEEP_TYPE) << 10 | 1 << 13);
            assert_eq!((pm.take_sleep(), pm.is_asleep(), pm.wakes()), (Some(Sleep::ToRam), true, false));
            pm
        };
        let mut pm = asleep(0);
        pm.wake_by_clock();
        pm.advance(ns_of_tick(TIMER_HALF, PM_TIMER_HZ));
        assert!(!pm.wakes(), "the guest does not want these");
        pm.wake();
        assert!(pm.wakes());
        pm.resume();
        assert_eq!((pm.read(0, PM1_EVENT, 4), pm.read(0, PM1_CONTROL, 2)), (0x8100, 0));
        assert!(!pm.wakes() && !pm.is_asleep());
        let mut pm = asleep(CLOCK_ALARM.into());
        pm.wake_by_clock();
        pm.resume();
        assert_eq!(pm.read(0, PM1_EVENT, 2), 0x8400);
        let mut pm = asleep(TIMER_EVENT.into());
        pm.advance(ns_of_tick(TIMER_HALF, PM_TIMER_HZ));
        assert!(pm.wakes());
        pm.reset();
        assert!(!pm.wakes() && !pm.is_asleep(), "a reset ends it, too");
    }

    #[test]
    fn state_round_trips() {
        let mut pm = AcpiPm::new();
        pm.write_smi(0, ACPI_ENABLE);
        pm.write(77, PM1_EVENT + 2, 2, 0x0101);
        pm.press_power_button();
        let mut back: AcpiPm = postcard::from_bytes(&postcard::to_stdvec(&pm).unwrap()).unwrap();
        assert_eq!(back, pm);
        assert!(back.sci());
        assert_eq!(back.read(99_999, PM_TIMER, 4), pm.read(99_999, PM_TIMER, 4));
    }
}
