//! The local APIC in xAPIC mode (SDM vol. 3A, chapter 10).
//!
//! [`Lapic`] has the registers that are its processor's alone; what others have for the processor is in its [`Mailbox`], IRR and TMR
//! among it. A write that concerns others (an IPI, an EOI of a level-triggered interrupt) returns an [`Effect`] for the board to
//! carry out; a local APIC never sees another one.

mod mailbox;
mod timer;

use std::sync::Arc;

use crate::fabric::{Drives, Timer as Alarm};
pub use mailbox::Signals;
pub(crate) use mailbox::{Mailbox, MailboxData, Reception};
use serde::{Deserialize, Serialize};
use timer::{Timer, TimerMode};

/// Where the register page is after reset.
pub(crate) const DEFAULT_BASE: u64 = 0xfee0_0000;
/// IA32_APIC_BASE bits (SDM vol. 3A, figure 10-5).
const BASE_BSP: u64 = 1 << 8;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Version 0x14, six LVT entries.
const VERSION: u32 = 0x0005_0014;

const LVT_MASKED: u32 = 1 << 16;
const SVR_ENABLE: u32 = 1 << 8;
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

const LVT_TIMER: usize = 0;
const LVT_LINT0: usize = 3;
const LVT_LINT1: usize = 4;
const LVT_ERROR: usize = 5;
/// Writable bits of LVT timer, thermal, performance, LINT0, LINT1 and error (figure 10-8).
const LVT_WRITABLE: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];

/// Delivery mode of an interrupt message (SDM vol. 3A, 10.6.1; 82093AA data sheet, 3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    StartUp,
    ExtInt,
}

impl Delivery {
    /// Decodes the three-bit field; the reserved encoding is `None`.
    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            6 => Delivery::StartUp,
            7 => Delivery::ExtInt,
            _ => return None,
        })
    }
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Physical(u8),
    Logical(u8),
    Sender,
    All,
    AllButSender,
}

/// An interrupt message between APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) destination: Destination,
    pub(crate) delivery: Delivery,
    pub(crate) vector: u8,
    pub(crate) level: bool,
}

/// What a register write asks of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Send(Message),
    /// A level-triggered interrupt with this vector is at its end.
    EndOfInterrupt(u8),
}

/// One processor's local APIC, but for what is in its mailbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lapic {
    base: u64,
    id: u8,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: [u32; 8],
    icr_low: u32,
    icr_high: u32,
    lvt: [u32; 6],
    esr: u32,
    esr_pending: u32,
    timer: Timer,
}

/// What a local APIC is wired to.
pub(crate) struct LapicHandles {
    alarm: Alarm,
    mailbox: Arc<Mailbox>,
    /// The processor has been told of an interrupt.
    told: bool,
}

impl LapicHandles {
    /// A timer, and the processor's mailbox.
    pub(crate) fn new(alarm: Alarm, mailbox: Arc<Mailbox>) -> LapicHandles {
        LapicHandles { alarm, mailbox, told: false }
    }
}

impl Drives for Lapic {
    type Handles = LapicHandles;

    fn drive(&mut self, handles: &mut LapicHandles) {
        handles.alarm.set(self.next_deadline());
        handles.mailbox.publish(self.reception());
        let wants = self.wants_interrupt(&handles.mailbox);
        let told = std::mem::replace(&mut handles.told, wants);
        if wants && !told {
            handles.mailbox.notify();
        }
    }
}

impl Lapic {
    /// The local APIC of processor `id` after reset; processor 0 is the bootstrap processor.
    pub(crate) fn new(id: u8) -> Self {
        let bsp = id == 0;
        Lapic {
            base: DEFAULT_BASE | BASE_ENABLE | if bsp { BASE_BSP } else { 0 },
            id,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: [0; 8],
            icr_low: 0,
            icr_high: 0,
            lvt: [LVT_MASKED; 6],
            esr: 0,
            esr_pending: 0,
            timer: Timer::new(),
        }
    }

    /// Virtual wire mode, as firmware leaves the bootstrap processor: the 8259A on LINT0, NMI on LINT1
    /// (MultiProcessor Specification 1.4, 3.6.2.2).
    pub(crate) fn enter_virtual_wire_mode(&mut self) {
        self.svr |= SVR_ENABLE;
        self.lvt[LVT_LINT0] = 0x700;
        self.lvt[LVT_LINT1] = 0x400;
    }

    /// Registers back to their reset values, as by INIT; the identity and IA32_APIC_BASE stay, and what the processor has not taken.
    pub(crate) fn clear_registers(&mut self, mailbox: &Mailbox) {
        *self = Lapic { base: self.base, ..Lapic::new(self.id) };
        mailbox.clear_requests();
    }

    /// What it says to those who send to it.
    pub(crate) fn reception(&self) -> Reception {
        Reception {
            enabled: self.enabled(),
            software_enabled: self.software_enabled(),
            id: self.id,
            logical: (self.ldr >> 24) as u8,
            model: (self.dfr >> 28) as u8,
            priority: self.ppr(),
            lint: [self.lvt[LVT_LINT0], self.lvt[LVT_LINT1]],
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE; false asks for #GP: a reserved bit, or x2APIC mode, which is not offered.
    pub(crate) fn set_base(&mut self, mailbox: &Mailbox, value: u64) -> bool {
        if value & !(BASE_ADDRESS | BASE_ENABLE | BASE_BSP) != 0 {
            return false;
        }
        if value & BASE_ENABLE == 0 && self.enabled() {
            // Enabling it again finds the registers as after power-up (10.4.3).
            self.clear_registers(mailbox);
        }
        self.base = (value & !BASE_BSP) | (self.base & BASE_BSP);
        true
    }

    /// The global enable of IA32_APIC_BASE.
    pub(crate) fn enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    fn software_enabled(&self) -> bool {
        self.enabled() && self.svr & SVR_ENABLE != 0
    }

    /// The offset of `gpa` in the register page, if it is in it and the APIC is enabled.
    pub(crate) fn page_offset(&self, gpa: u64) -> Option<u16> {
        (self.enabled() && gpa & !0xfff == self.base & BASE_ADDRESS).then_some((gpa & 0xfff) as u16)
    }

    pub(crate) fn tpr(&self) -> u8 {
        self.tpr
    }

    pub(crate) fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    pub(crate) fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline()
    }

    /// Writes IA32_TSC_DEADLINE at a time when the time-stamp counter, of `tsc_hz`, is `tsc_now`.
    pub(crate) fn set_tsc_deadline(
        &mut self,
        mailbox: &Mailbox,
        now: u64,
        (tsc_now, tsc_hz): (u64, u64),
        deadline: u64,
    ) {
        self.timer.set_tsc_deadline(now, tsc_now, tsc_hz, deadline);
        self.advance(mailbox, now);
    }

    /// When the timer will raise an interrupt. A masked timer needs nobody: its registers are worked out when they are
    /// read. In TSC-deadline mode expiry also clears the MSR, masked or not.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let silent = self.lvt[LVT_TIMER] & LVT_MASKED != 0 && self.timer.tsc_deadline() == 0;
        if silent { None } else { self.timer.next_deadline() }
    }

    /// Fires the timer if it is due.
    pub(crate) fn advance(&mut self, mailbox: &Mailbox, now: u64) {
        if self.timer.expire(now) {
            let lvt = self.lvt[LVT_TIMER];
            if lvt & LVT_MASKED == 0 {
                self.request(mailbox, lvt as u8);
            }
        }
    }

    /// Requests an interrupt of its own.
    fn request(&mut self, mailbox: &Mailbox, vector: u8) {
        match vector {
            0..16 => self.error(mailbox, ESR_RECEIVE_ILLEGAL),
            _ => mailbox.request(vector, false),
        }
    }

    /// Notes that messages with illegal vectors have come, if any have.
    pub(crate) fn note_illegal(&mut self, mailbox: &Mailbox) {
        if mailbox.take_illegal() {
            self.error(mailbox, ESR_RECEIVE_ILLEGAL);
        }
    }

    fn error(&mut self, mailbox: &Mailbox, bit: u32) {
        self.esr_pending |= bit;
        let lvt = self.lvt[LVT_ERROR];
        // An illegal vector in the error entry itself must not report itself for ever.
        if lvt & LVT_MASKED == 0 && lvt as u8 >= 16 {
            mailbox.request(lvt as u8, false);
        }
    }

    /// Whether the 8259A's INTR reaches the processor.
    pub(crate) fn ext_int_pending(&self, mailbox: &Mailbox) -> bool {
        let lvt = self.lvt[LVT_LINT0];
        let wired =
            !self.enabled() || (lvt & LVT_MASKED == 0 && Delivery::from_bits(lvt >> 8) == Some(Delivery::ExtInt));
        let (lint0, ext_int) = mailbox.lint0_and_ext_int();
        ext_int || (lint0 && wired)
    }

    /// The processor priority (10.8.3.1).
    pub(crate) fn ppr(&self) -> u8 {
        let serviced = highest(&self.isr).unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= serviced { self.tpr } else { serviced }
    }

    /// The vector that the processor would get now.
    pub(crate) fn pending(&self, mailbox: &Mailbox) -> Option<u8> {
        let vector = mailbox.highest()?;
        (self.enabled() && vector & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Moves the pending vector into service.
    pub(crate) fn acknowledge(&mut self, mailbox: &Mailbox) -> Option<u8> {
        let vector = self.pending(mailbox)?;
        mailbox.clear(vector);
        set_bit(&mut self.isr, vector, true);
        Some(vector)
    }

    /// Whether the processor is asked to take an interrupt: one of its own above its priority, or the 8259As'.
    pub(crate) fn wants_interrupt(&self, mailbox: &Mailbox) -> bool {
        self.pending(mailbox).is_some() || self.ext_int_pending(mailbox)
    }

    /// Reads the 32-bit register at `offset` of the page (table 10-1).
    pub(crate) fn read(&mut self, mailbox: &Mailbox, now: u64, offset: u16) -> u32 {
        self.advance(mailbox, now);
        let word = usize::from((offset >> 4) & 7);
        match offset {
            0x020 => u32::from(self.id) << 24,
            0x030 => VERSION,
            0x080 => u32::from(self.tpr),
            // Arbitration priority and remote read: the buses they belong to are gone.
            0x090 | 0x0c0 => 0,
            0x0a0 => u32::from(self.ppr()),
            0x0d0 => self.ldr,
            0x0e0 => self.dfr,
            0x0f0 => self.svr,
            0x100..=0x17f if offset & 0xf == 0 => self.isr[word],
            0x180..=0x1ff if offset & 0xf == 0 => mailbox.tmr()[word],
            0x200..=0x27f if offset & 0xf == 0 => mailbox.irr()[word],
            0x280 => self.esr,
            0x300 => self.icr_low,
            0x310 => self.icr_high,
            0x320..=0x370 if offset & 0xf == 0 => self.lvt[usize::from((offset - 0x320) >> 4)],
            0x380 => self.timer.initial(),
            0x390 => self.timer.current(now),
            0x3e0 => u32::from(self.timer.divide()),
            0x0b0 => 0,
            _ => {
                self.error(mailbox, ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Whether the register at `offset` is one of those that say which messages are accepted: name, destination, enable.
    pub(crate) fn decides_acceptance(offset: u16) -> bool {
        matches!(offset, 0x020 | 0x0d0 | 0x0e0 | 0x0f0)
    }

    /// Writes the 32-bit register at `offset` of the page.
    pub(crate) fn write(&mut self, mailbox: &Mailbox, now: u64, offset: u16, value: u32) -> Option<Effect> {
        self.note_illegal(mailbox);
        self.advance(mailbox, now);
        match offset {
            0x020 => self.id = (value >> 24) as u8,
            0x080 => self.tpr = value as u8,
            0x0b0 => return self.end_of_interrupt(mailbox),
            0x0d0 => self.ldr = value & 0xff00_0000,
            0x0e0 => self.dfr = value | 0x0fff_ffff,
            0x0f0 => self.write_svr(value),
            0x280 => self.esr = std::mem::take(&mut self.esr_pending),
            0x300 => {
                // Delivery is immediate: its status bit (12) stays 0.
                self.icr_low = value & 0x000c_cfff;
                return self.send(mailbox);
            }
            0x310 => self.icr_high = value & 0xff00_0000,
            0x320..=0x370 if offset & 0xf == 0 => self.write_lvt(usize::from((offset - 0x320) >> 4), value),
            0x380 => self.timer.set_initial(now, value),
            0x3e0 => self.timer.set_divide(now, value as u8),
            0x030 | 0x090 | 0x0a0 | 0x0c0 | 0x100..=0x270 | 0x390 if offset & 0xf == 0 => {}
            _ => self.error(mailbox, ESR_ILLEGAL_REGISTER),
        }
        self.advance(mailbox, now);
        None
    }

    fn end_of_interrupt(&mut self, mailbox: &Mailbox) -> Option<Effect> {
        let vector = highest(&self.isr)?;
        set_bit(&mut self.isr, vector, false);
        bit(&mailbox.tmr(), vector).then_some(Effect::EndOfInterrupt(vector))
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & 0x3ff;
        if value & SVR_ENABLE == 0 {
            // 10.4.7.2: the mask bits are set and can not be cleared.
            for lvt in &mut self.lvt {
                *lvt |= LVT_MASKED;
            }
        }
    }

    fn write_lvt(&mut self, entry: usize, value: u32) {
        let (Some(writable), Some(lvt)) = (LVT_WRITABLE.get(entry), self.lvt.get_mut(entry)) else {
            return;
        };
        *lvt = value & writable | if self.svr & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        if entry == LVT_TIMER {
            self.timer.set_mode(match (value >> 17) & 3 {
                1 => TimerMode::Periodic,
                2 => TimerMode::TscDeadline,
                _ => TimerMode::OneShot,
            });
        }
    }

    /// Carries out a write to ICR (10.6.1).
    fn send(&mut self, mailbox: &Mailbox) -> Option<Effect> {
        let icr = self.icr_low;
        let vector = icr as u8;
        let delivery = Delivery::from_bits(icr >> 8)?;
        let (assert, level_triggered) = (icr & (1 << 14) != 0, icr & (1 << 15) != 0);
        if delivery == Delivery::Init && level_triggered && !assert {
            // INIT level de-assert only synchronised arbitration IDs.
            return None;
        }
        if delivery == Delivery::ExtInt {
            return None;
        }
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && vector < 16 {
            self.error(mailbox, ESR_SEND_ILLEGAL);
            return None;
        }
        let address = (self.icr_high >> 24) as u8;
        let destination = match (icr >> 18) & 3 {
            0 if icr & (1 << 11) != 0 => Destination::Logical(address),
            0 => Destination::Physical(address),
            1 => Destination::Sender,
            2 => Destination::All,
            _ => Destination::AllButSender,
        };
        // An IPI is always edge-triggered but for INIT de-assert.
        Some(Effect::Send(Message { destination, delivery, vector, level: false }))
    }
}

fn bit(words: &[u32; 8], vector: u8) -> bool {
    words[usize::from(vector >> 5)] & (1 << (vector & 31)) != 0
}

fn set_bit(words: &mut [u32; 8], vector: u8, value: bool) {
    let (word, mask) = (&mut words[usize::from(vector >> 5)], 1 << (vector & 31));
    *word = if value { *word | mask } else { *word & !mask };
}

/// The highest vector whose bit is set.
fn highest(words: &[u32; 8]) -> Option<u8> {
    let (index, word) = words.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
    Some((index as u8) << 5 | (31 - word.leading_zeros()) as u8)
}

#[cfg(test)]
mod tests;
