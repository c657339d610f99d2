//! A PC's devices, as the vCPU's thread and the threads of displays share them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimus_hw::keys::Key;
use mimus_hw::pci::DevFn;
use mimus_hw::vga::{Regs, Screen, StdVga};
use mimus_hw::{MouseEvent, Pc};

use crate::display::{Adapter, Inputs};

/// The devices, shared with the threads that bring input.
pub type SharedPc = Arc<Mutex<Pc>>;

/// Locks the devices. A device that panicked is a bug that was reported; its state is still consistent enough to go on.
pub fn lock(pc: &SharedPc) -> MutexGuard<'_, Pc> {
    pc.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The VGA at a place of a PC's bus, as displays reach it.
pub struct VgaHandle {
    /// The devices.
    pub pc: SharedPc,
    /// Where it is.
    pub devfn: DevFn,
}

impl VgaHandle {
    fn look<T>(&self, now: u64, f: impl FnOnce(&StdVga, u64) -> T) -> Option<T> {
        lock(&self.pc).function(now, self.devfn, |vga: &mut StdVga, now| f(vga, now))
    }
}

impl Adapter for VgaHandle {
    fn registers(&self, now: u64) -> Option<Regs> {
        self.look(now, |vga, _| vga.vga().regs().clone())
    }

    fn picture(&self, now: u64) -> Option<Screen> {
        self.look(now, |vga, now| vga.vga().picture(now))
    }
}

/// A PC's keyboard controller, as displays reach it.
pub struct KeyboardHandle(
    /// The devices.
    pub SharedPc,
);

impl Inputs for KeyboardHandle {
    fn key(&self, now: u64, key: Key, down: bool) {
        lock(&self.0).key(now, key, down);
    }

    fn keyboard_room(&self) -> usize {
        lock(&self.0).keyboard_room()
    }

    fn mouse(&self, now: u64, event: MouseEvent) {
        lock(&self.0).mouse(now, event);
    }
}
