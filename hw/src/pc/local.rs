//! A processor's accesses to its own local APIC, which take no lock of the board's.

use super::interrupts::{Interrupts, ioapic_offset};
use crate::lapic::{Lapic, Signals};

impl Interrupts {
    /// Reads `size` bytes at guest-physical address `gpa` on behalf of processor `cpu`, if its local APIC or the I/O APIC is there.
    pub fn read(&self, now: u64, cpu: usize, gpa: u64, size: u8) -> Option<u64> {
        // The registers are 32 bits wide and 16 bytes apart; a narrower access sees its part.
        let shift = 8 * (gpa & 3) as u32;
        let register = match self.page_offset(cpu, gpa) {
            Some(offset) => self.local(cpu, |lapic, mailbox| lapic.read(mailbox, now, offset & !3))?,
            None => self.read_ioapic(ioapic_offset(gpa)? & !3),
        };
        Some(u64::from(register >> shift) & u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))))
    }

    /// Writes the low `size` bytes of `value` on behalf of processor `cpu`, if its local APIC or the I/O APIC is at `gpa`; whether
    /// one is. They take aligned double words only (SDM vol. 3A, 10.4.1).
    pub fn write(&self, now: u64, cpu: usize, gpa: u64, size: u8, value: u64) -> bool {
        let (lapic, ioapic) = (self.page_offset(cpu, gpa), ioapic_offset(gpa));
        if lapic.is_none() && ioapic.is_none() {
            return false;
        }
        if size < 4 || gpa & 3 != 0 {
            tracing::debug!(gpa, size, "narrow or unaligned APIC write ignored");
        } else if let Some(offset) = lapic {
            self.write_local(now, cpu, offset, value as u32);
        } else if let Some(offset) = ioapic {
            self.write_ioapic(offset, value as u32);
        }
        true
    }

    /// Has `wake` called when processor `cpu` is to look for an interrupt or [`Interrupts::take_signals`]; at once, if it is already.
    /// Later calls change nothing.
    pub fn on_wake(&self, cpu: usize, wake: impl Fn() + Send + Sync + 'static) {
        if let Some(local) = self.of(cpu) {
            local.mailbox.connect(wake);
        }
    }

    /// Takes what is in the mailbox of processor `cpu` beside interrupts. It is to look for those afterwards, and is woken for what
    /// comes later. An NMI is held back by nothing of the board's: what bit 7 of port 0x70 masks, parity and bus errors, does not
    /// happen here.
    pub fn take_signals(&self, cpu: usize) -> Signals {
        let Some(local) = self.of(cpu) else { return Signals::default() };
        let signals = local.mailbox.take();
        if signals.init {
            local.with(Lapic::clear_registers);
        }
        if local.mailbox.has_illegal() {
            local.with(Lapic::note_illegal);
        }
        signals
    }

    /// When the timer of processor `cpu` raises an interrupt, in guest nanoseconds: it is to call [`Interrupts::advance`] then. Takes
    /// no lock.
    pub fn next_deadline(&self, cpu: usize) -> Option<u64> {
        self.of(cpu)?.timers.next_deadline()
    }

    /// Has `alarm` called whenever that deadline gets earlier. Later calls change nothing.
    pub fn on_earlier(&self, cpu: usize, alarm: impl Fn(u64) + Send + Sync + 'static) {
        if let Some(local) = self.of(cpu) {
            local.timers.on_earlier(alarm);
        }
    }

    /// Brings the timer of processor `cpu` to `now`.
    pub fn advance(&self, cpu: usize, now: u64) {
        if self.next_deadline(cpu).is_some_and(|due| due <= now) {
            self.local(cpu, |lapic, mailbox| lapic.advance(mailbox, now));
        }
    }

    /// The task priority register of processor `cpu`; CR8 is its upper four bits.
    pub fn tpr(&self, cpu: usize) -> u8 {
        self.look(cpu, |lapic, _| lapic.tpr()).unwrap_or(0)
    }

    /// Sets the task priority register of processor `cpu`.
    pub fn set_tpr(&self, cpu: usize, tpr: u8) {
        self.local(cpu, |lapic, _| lapic.set_tpr(tpr));
    }

    /// IA32_APIC_BASE of processor `cpu`.
    pub fn apic_base(&self, cpu: usize) -> u64 {
        self.look(cpu, |lapic, _| lapic.base()).unwrap_or(0)
    }

    /// Writes IA32_APIC_BASE of processor `cpu`; false asks for #GP, and nothing has changed.
    pub fn set_apic_base(&self, cpu: usize, value: u64) -> bool {
        let accepted = self.local(cpu, |lapic, mailbox| lapic.set_base(mailbox, value)).unwrap_or(false);
        // It may take what it has refused.
        self.settle();
        accepted
    }

    /// Writes IA32_TSC_DEADLINE of processor `cpu` at a time when its time-stamp counter, of `tsc_hz`, is `tsc_now`. Ignored unless
    /// the timer is in TSC-deadline mode; 0 disarms.
    pub fn set_tsc_deadline(&self, cpu: usize, now: u64, tsc_now: u64, tsc_hz: u64, deadline: u64) {
        self.local(cpu, |lapic, mailbox| lapic.set_tsc_deadline(mailbox, now, (tsc_now, tsc_hz), deadline));
    }

    /// IA32_TSC_DEADLINE of processor `cpu`; 0 when the timer is not armed.
    pub fn tsc_deadline(&self, cpu: usize) -> u64 {
        self.look(cpu, |lapic, _| lapic.tsc_deadline()).unwrap_or(0)
    }

    fn page_offset(&self, cpu: usize, gpa: u64) -> Option<u16> {
        self.look(cpu, |lapic, _| lapic.page_offset(gpa)).flatten()
    }
}
