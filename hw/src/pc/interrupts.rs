//! The interrupt controllers of a PC, from the ISA interrupt lines to its processors' local APICs.
//!
//! They are shared: whoever drives a line ([`IrqSink`]) settles what follows from that, with a lock of their own and without the
//! board's. What is for a processor is posted into its mailbox, without a lock; its local APIC and the queue of its timer are the
//! processor's own, with locks that nobody else takes but to save and restore.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::fabric::{IrqSink, TimerQueue, Wired, lock};
use crate::ioapic::{self, IoApic};
use crate::lapic::{Delivery, Destination, Effect, Lapic, LapicHandles, Mailbox, MailboxData, Message};
use crate::pci::{MsiMessage, MsiSink};
use crate::pic::Pic;

/// ISA interrupt lines; the inputs above are those of the I/O APIC alone.
const ISA_LINES: u32 = 16;

/// The I/O APIC input of an ISA interrupt line: the timer's is input 2, as the MADT and the MP table say.
fn ioapic_pin(irq: u8) -> u8 {
    if irq == 0 { 2 } else { irq }
}

/// What firmware writes to the 8259As: vectors 0x08 and 0x70, cascade on input 2, and what it has handlers for not masked.
const FIRMWARE_PIC_WRITES: [(u16, u8); 10] = [
    (0x20, 0x11),
    (0x21, 0x08),
    (0x21, 0x04),
    (0x21, 0x01),
    (0x21, 0xb8),
    (0xa0, 0x11),
    (0xa1, 0x70),
    (0xa1, 0x02),
    (0xa1, 0x01),
    (0xa1, 0x8e),
];

/// The ports of the 8259As' edge/level control registers, one after the other.
const ELCR: u16 = 0x4d0;

/// The I/O APIC input that carries the 8259A's output.
const EXT_INT_PIN: u8 = 0;

/// The controllers that all processors share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chips {
    pic: Pic,
    ioapic: IoApic,
    /// The 8259As' output as last driven.
    intr: bool,
}

impl Chips {
    fn new() -> Chips {
        Chips { pic: Pic::new(), ioapic: IoApic::new(), intr: false }
    }

    fn set_input(&mut self, input: u32, level: bool) {
        let pin = input as u8;
        if input < ISA_LINES {
            self.pic.set_irq(pin, level);
            self.ioapic.set_pin(ioapic_pin(pin), level);
        } else {
            self.ioapic.set_pin(pin, level);
        }
    }
}

/// The state of all interrupt controllers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct InterruptData {
    chips: Chips,
    locals: Vec<(Lapic, MailboxData)>,
}

impl InterruptData {
    /// Processors that it is of.
    pub(super) fn cpus(&self) -> usize {
        self.locals.len()
    }
}

/// What belongs to a processor.
pub(super) struct Local {
    pub(super) mailbox: Arc<Mailbox>,
    apic: Mutex<Wired<Lapic>>,
    /// The deadline of its local APIC's timer.
    pub(super) timers: TimerQueue,
}

impl Local {
    fn new(cpu: u8) -> Local {
        let (mailbox, timers) = (Arc::new(Mailbox::default()), TimerQueue::new());
        let handles = LapicHandles::new(timers.timer(0), mailbox.clone());
        Local { apic: Mutex::new(Wired::new(Lapic::new(cpu), handles)), mailbox, timers }
    }

    /// Does something with the local APIC.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Lapic, &Mailbox) -> T) -> T {
        lock(&self.apic).with(|lapic| f(lapic, &self.mailbox))
    }

    /// Looks at the local APIC.
    fn look<T>(&self, f: impl FnOnce(&Lapic, &Mailbox) -> T) -> T {
        f(lock(&self.apic).state(), &self.mailbox)
    }
}

/// The 8259As, the I/O APIC, and each processor's local APIC.
///
/// A processor's own accesses to its local APIC, and its acknowledge cycles, take no lock but those here: see the methods that are
/// public.
pub struct Interrupts {
    chips: Mutex<Chips>,
    locals: Vec<Local>,
}

impl IrqSink for Interrupts {
    fn set_input(&self, input: u32, level: bool) {
        self.with_chips(|chips| chips.set_input(input, level));
    }

    fn pulse_input(&self, input: u32) {
        self.with_chips(|chips| {
            chips.set_input(input, false);
            chips.set_input(input, true);
        });
    }
}

impl MsiSink for Interrupts {
    fn send(&self, message: MsiMessage) {
        match message.decode() {
            Some(message) => {
                self.deliver(message, None);
            }
            None => tracing::debug!(address = message.address, "PCI: a message for no local APIC is dropped"),
        }
    }
}

impl Interrupts {
    /// Those of a machine with `cpus` processors, as at power-on.
    pub(super) fn new(cpus: u8) -> Interrupts {
        Interrupts { chips: Mutex::new(Chips::new()), locals: (0..cpus).map(Local::new).collect() }
    }

    /// What belongs to processor `cpu`.
    pub(super) fn of(&self, cpu: usize) -> Option<&Local> {
        self.locals.get(cpu)
    }

    /// As after a reset. Lines that are high have to be announced afterwards.
    pub(super) fn reset(&self) {
        *lock(&self.chips) = Chips::new();
        for (cpu, local) in (0..).zip(&self.locals) {
            local.mailbox.reset();
            lock(&local.apic).restore(Lapic::new(cpu));
        }
    }

    pub(super) fn save(&self) -> InterruptData {
        InterruptData {
            chips: lock(&self.chips).clone(),
            locals: self.locals.iter().map(|local| local.look(|lapic, mail| (lapic.clone(), mail.save()))).collect(),
        }
    }

    /// Takes over the state of as many processors.
    pub(super) fn restore(&self, data: InterruptData) {
        *lock(&self.chips) = data.chips;
        for (local, (lapic, mailbox)) in self.locals.iter().zip(data.locals) {
            local.mailbox.restore(&mailbox);
            lock(&local.apic).restore(lapic);
        }
    }

    /// Leaves them as firmware does: the 8259As initialised, these of their inputs level-triggered, the bootstrap processor's local
    /// APIC in virtual wire mode.
    pub(super) fn set_up_as_firmware(&self, level_triggered: u16) {
        self.with_chips(|chips| {
            for (port, value) in FIRMWARE_PIC_WRITES {
                chips.pic.write(port, value);
            }
            for (port, value) in (ELCR..).zip(level_triggered.to_le_bytes()) {
                chips.pic.write(port, value);
            }
        });
        if let Some(bsp) = self.locals.first() {
            bsp.with(|lapic, _| lapic.enter_virtual_wire_mode());
        }
        self.settle();
    }

    /// Does something with the shared controllers and passes on what it set off.
    fn with_chips<T>(&self, f: impl FnOnce(&mut Chips) -> T) -> T {
        let chips = &mut *lock(&self.chips);
        let result = f(chips);
        let output = chips.pic.output();
        self.drive_intr(chips, output);
        let mut active = chips.ioapic.active();
        while active != 0 {
            let pin = active.trailing_zeros() as u8;
            active &= active - 1;
            if let Some(message) = chips.ioapic.request(pin)
                && self.deliver(message, None)
            {
                chips.ioapic.accepted(pin);
            }
        }
        result
    }

    /// Drives the 8259As' output.
    fn drive_intr(&self, chips: &mut Chips, level: bool) {
        if std::mem::replace(&mut chips.intr, level) != level {
            chips.ioapic.set_pin(EXT_INT_PIN, level);
            self.locals.iter().for_each(|local| local.mailbox.set_lint0(level));
        }
    }

    /// Posts a message to the processors it is for; true when a local APIC took it.
    fn deliver(&self, message: Message, sender: Option<usize>) -> bool {
        let chosen = |(index, mailbox): &(usize, &Mailbox)| match message.destination {
            Destination::Sender => sender == Some(*index),
            Destination::AllButSender => sender != Some(*index),
            destination => mailbox.reception().matches(destination),
        };
        let mailboxes = self.locals.iter().map(|local| &*local.mailbox).enumerate().filter(chosen);
        if message.delivery == Delivery::LowestPriority {
            let mut candidates: Vec<_> = mailboxes.collect();
            // Once for each: priorities change meanwhile.
            candidates.sort_by_cached_key(|(_, mailbox)| mailbox.reception().priority);
            return candidates.into_iter().any(|(_, mailbox)| mailbox.post(message));
        }
        mailboxes.fold(false, |taken, (_, mailbox)| mailbox.post(message) || taken)
    }

    /// Reads a port of the 8259As.
    pub(super) fn read_pic(&self, port: u16) -> u8 {
        self.with_chips(|chips| chips.pic.read(port))
    }

    /// Writes a port of the 8259As.
    pub(super) fn write_pic(&self, port: u16, value: u8) {
        self.with_chips(|chips| chips.pic.write(port, value));
    }

    /// The 8259As as lines of text.
    pub(super) fn pic_text(&self) -> String {
        lock(&self.chips).pic.text()
    }

    /// Reads the I/O APIC's register at `offset` of its page.
    pub(super) fn read_ioapic(&self, offset: u64) -> u32 {
        lock(&self.chips).ioapic.read(offset)
    }

    /// Writes the I/O APIC's register at `offset` of its page.
    pub(super) fn write_ioapic(&self, offset: u64, value: u32) {
        self.with_chips(|chips| chips.ioapic.write(offset, value));
    }

    /// Does something with the local APIC of processor `cpu`; `None` if there is none. Nothing else follows from it.
    pub(super) fn local<T>(&self, cpu: usize, f: impl FnOnce(&mut Lapic, &Mailbox) -> T) -> Option<T> {
        self.of(cpu).map(|local| local.with(f))
    }

    /// Looks at the local APIC of processor `cpu`.
    pub(super) fn look<T>(&self, cpu: usize, f: impl FnOnce(&Lapic, &Mailbox) -> T) -> Option<T> {
        self.of(cpu).map(|local| local.look(f))
    }

    /// Offers again what local APICs have refused.
    pub(super) fn settle(&self) {
        self.with_chips(|_| ());
    }

    /// Writes a register of the local APIC of processor `cpu`, and carries out what that asks of others.
    pub(super) fn write_local(&self, now: u64, cpu: usize, offset: u16, value: u32) {
        match self.local(cpu, |lapic, mailbox| lapic.write(mailbox, now, offset, value)).flatten() {
            Some(Effect::Send(message)) => {
                self.deliver(message, Some(cpu));
            }
            Some(Effect::EndOfInterrupt(vector)) => self.with_chips(|chips| chips.ioapic.end_of_interrupt(vector)),
            // Enabled, or with another name, it may take what it has refused.
            None if Lapic::decides_acceptance(offset) => self.settle(),
            None => {}
        }
    }

    /// Raises the chipset's NMI, which is at every processor's LINT1.
    pub fn raise_nmi(&self) {
        self.locals.iter().for_each(|local| local.mailbox.raise_lint1());
    }

    /// Whether processor `cpu` is asked to take an interrupt: one in its local APIC above the processor priority, or the 8259As'.
    pub fn pending(&self, cpu: usize) -> bool {
        self.look(cpu, Lapic::wants_interrupt).unwrap_or(false)
    }

    /// Runs the interrupt acknowledge cycle of processor `cpu` and returns the vector; none when nothing is pending.
    pub fn acknowledge(&self, cpu: usize) -> Option<u8> {
        let (own, external) = self.local(cpu, |lapic, mailbox| {
            let own = lapic.acknowledge(mailbox);
            let external = own.is_none() && lapic.ext_int_pending(mailbox);
            if external {
                // The acknowledge cycle, which goes to the 8259A, answers an ExtINT message.
                mailbox.clear_ext_int();
            }
            (own, external)
        })?;
        if !external {
            return own;
        }
        Some(self.with_chips(|chips| {
            let vector = chips.pic.acknowledge();
            // The 8259A drops INT during the cycle; another request is a new edge.
            self.drive_intr(chips, false);
            vector
        }))
    }
}

impl std::fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupts").field("cpus", &self.locals.len()).finish_non_exhaustive()
    }
}

/// The I/O APIC's register that an address is of.
pub(super) fn ioapic_offset(gpa: u64) -> Option<u64> {
    (gpa & !0xfff == ioapic::BASE).then_some(gpa & 0xfff)
}

#[cfg(test)]
mod tests;
