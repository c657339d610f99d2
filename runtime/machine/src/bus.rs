//! What a PC gives its vCPU: ports, device memory, time, the local APIC's registers.

use std::sync::Arc;

use mimus_frontend::x86::Bus;
use mimus_host::devices::{SharedPc, lock};
use mimus_hw::Pc;
use mimus_softmmu::MmioBus;

use crate::machine::memory_map::{Piece, memory_map};
use mimus_host::clock::{Alarm, Clock};
use mimus_softmmu::kick::Kicker;

/// The way to the devices of whoever is not one of them.
#[derive(Clone)]
pub struct Outside {
    /// The devices.
    pub pc: SharedPc,
    /// Guest time.
    pub clock: Clock,
    /// Wakes the vCPU at a device's next deadline.
    pub alarm: Alarm,
    /// Gets the vCPU's attention when a device has an interrupt or event.
    pub kicker: Arc<Kicker>,
}

impl Outside {
    /// Does one device access at the present time, and passes on what it set off in the first vCPU.
    pub fn access<T>(&self, f: impl FnOnce(&mut Pc, u64) -> T) -> T {
        self.access_for(0, f)
    }

    /// The same for the vCPU with this number.
    fn access_for<T>(&self, index: usize, f: impl FnOnce(&mut Pc, u64) -> T) -> T {
        let now = self.clock.now();
        let mut pc = lock(&self.pc);
        let result = f(&mut pc, now);
        let wanted = pc.wants_attention(index);
        let deadline = pc.next_deadline();
        drop(pc);
        if wanted {
            self.kicker.kick();
        }
        self.alarm.set(deadline);
        result
    }
}

/// One vCPU's way to the devices.
pub struct PcBus {
    /// The devices, and whom to tell.
    pub outside: Outside,
    /// Number of the vCPU.
    pub index: usize,
    /// Bytes of the firmware's ROM, where there is one.
    pub rom: Option<u64>,
    /// What an OUT, or a write to IA32_APIC_BASE, has changed in the memory map, for the vCPU to take.
    pub backings: Option<Vec<Piece>>,
}

impl PcBus {
    fn access<T>(&self, f: impl FnOnce(&mut Pc, u64) -> T) -> T {
        self.outside.access_for(self.index, f)
    }
}

impl MmioBus for PcBus {
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        let index = self.index;
        self.access(|pc, now| pc.mmio_read(now, index, gpa, size))
    }

    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        let index = self.index;
        self.access(|pc, now| pc.mmio_write(now, index, gpa, size, value));
    }
}

impl Bus for PcBus {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        self.access(|pc, now| pc.port_read(now, port, size))
    }

    fn port_in_string(&mut self, port: u16, size: u8, to: &mut [u8]) {
        self.access(|pc, now| pc.port_read_string(now, port, size, to));
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        let rom = self.rom;
        self.backings = self.access(|pc, now| {
            pc.port_write(now, port, size, value);
            pc.take_map_changed().then(|| memory_map(pc, rom))
        });
    }

    fn take_backings(&mut self) -> Option<Vec<Piece>> {
        self.backings.take()
    }

    fn tsc(&mut self) -> u64 {
        self.outside.clock.now()
    }

    fn apic_base(&mut self) -> u64 {
        lock(&self.outside.pc).apic_base(self.index)
    }

    fn set_apic_base(&mut self, value: u64) -> bool {
        let (index, rom) = (self.index, self.rom);
        let (accepted, backings) = self.access(|pc, _| {
            let accepted = pc.set_apic_base(index, value);
            (accepted, pc.take_map_changed().then(|| memory_map(pc, rom)))
        });
        self.backings = backings;
        accepted
    }

    fn tsc_deadline(&mut self) -> u64 {
        lock(&self.outside.pc).tsc_deadline(self.index)
    }

    fn set_tsc_deadline(&mut self, value: u64) {
        let index = self.index;
        // The machine's counter counts nanoseconds: `now` is its value.
        self.access(|pc, now| pc.set_tsc_deadline(index, now, now, value));
    }

    fn tpr(&mut self) -> u8 {
        lock(&self.outside.pc).tpr(self.index)
    }

    fn set_tpr(&mut self, value: u8) {
        let index = self.index;
        self.access(|pc, _| pc.set_tpr(index, value));
    }

    fn set_ferr(&mut self, asserted: bool) -> bool {
        self.access(|pc, _| pc.set_ferr(asserted))
    }
}

impl std::fmt::Debug for PcBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcBus").field("clock", &self.outside.clock).field("index", &self.index).finish_non_exhaustive()
    }
}
