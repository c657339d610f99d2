//! What a PC gives its vCPU: ports, device memory, time, the local APIC's registers.

use std::sync::Arc;

use mimus_frontend::x86::Bus;
use mimus_host::devices::{SharedPc, lock};
use mimus_hw::{Interrupts, Pc};
use mimus_softmmu::MmioBus;

use crate::memory_map::{Piece, memory_map};
use mimus_host::clock::{Clock, TSC_HZ};
use mimus_softmmu::kick::Kicker;

/// A handle by which vCPUs and threads of the host access a PC's devices.
#[derive(Clone)]
pub struct DeviceHandle {
    /// The devices.
    pub pc: SharedPc,
    /// Guest time.
    pub clock: Clock,
    /// Gets the vCPU's attention when a device has an event.
    pub kicker: Arc<Kicker>,
}

impl DeviceHandle {
    /// Does one device access at the present time. Interrupts and deadlines go their own ways; what the guest asks of the machine is
    /// passed on here.
    pub fn access<T>(&self, f: impl FnOnce(&mut Pc, u64) -> T) -> T {
        let now = self.clock.now();
        let mut pc = lock(&self.pc);
        let result = f(&mut pc, now);
        let wanted = pc.has_event();
        drop(pc);
        if wanted {
            self.kicker.kick();
        }
        result
    }
}

/// The bus of one vCPU: ports, device memory, time, and its local APIC.
pub struct PcBus {
    /// The devices, and whom to tell.
    pub devices: DeviceHandle,
    /// The interrupt controllers, its own local APIC among them: these accesses do not lock the devices.
    pub interrupts: Arc<Interrupts>,
    /// Number of the vCPU.
    pub index: usize,
    /// Bytes of the firmware's ROM, where there is one.
    pub rom: Option<u64>,
    /// What an OUT, or a write to IA32_APIC_BASE, has changed in the memory map, for the vCPU to take.
    pub backings: Option<Vec<Piece>>,
}

impl PcBus {
    fn access<T>(&self, f: impl FnOnce(&mut Pc, u64) -> T) -> T {
        self.devices.access(f)
    }
}

impl MmioBus for PcBus {
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        let index = self.index;
        let own = self.interrupts.read(self.devices.clock.now(), index, gpa, size);
        own.unwrap_or_else(|| self.access(|pc, now| pc.mmio_read(now, index, gpa, size)))
    }

    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        let index = self.index;
        if !self.interrupts.write(self.devices.clock.now(), index, gpa, size, value) {
            self.access(|pc, now| pc.mmio_write(now, index, gpa, size, value));
        }
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

    fn port_out_string(&mut self, port: u16, size: u8, from: &[u8]) -> u64 {
        let rom = self.rom;
        let (done, backings) = self.access(|pc, now| {
            let (done, changed) = pc.port_write_string(now, port, size, from);
            (done, changed.then(|| memory_map(pc, rom)))
        });
        self.backings = backings;
        done
    }

    fn take_backings(&mut self) -> Option<Vec<Piece>> {
        self.backings.take()
    }

    fn tsc(&mut self) -> u64 {
        self.devices.clock.now()
    }

    fn apic_base(&mut self) -> u64 {
        self.interrupts.apic_base(self.index)
    }

    fn set_apic_base(&mut self, value: u64) -> bool {
        let rom = self.rom;
        let accepted = self.interrupts.set_apic_base(self.index, value);
        self.backings = self.access(|pc, _| pc.take_map_changed().then(|| memory_map(pc, rom)));
        accepted
    }

    fn tsc_deadline(&mut self) -> u64 {
        self.interrupts.tsc_deadline(self.index)
    }

    fn set_tsc_deadline(&mut self, value: u64) {
        // The machine's counter counts nanoseconds: `now` is its value.
        let now = self.devices.clock.now();
        self.interrupts.set_tsc_deadline(self.index, now, now, TSC_HZ, value);
    }

    fn tpr(&mut self) -> u8 {
        self.interrupts.tpr(self.index)
    }

    fn set_tpr(&mut self, value: u8) {
        self.interrupts.set_tpr(self.index, value);
    }

    fn set_ferr(&mut self, asserted: bool) -> bool {
        self.access(|pc, _| pc.set_ferr(asserted))
    }
}

impl std::fmt::Debug for PcBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcBus").field("clock", &self.devices.clock).field("index", &self.index).finish_non_exhaustive()
    }
}
