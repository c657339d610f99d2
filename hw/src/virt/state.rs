//! The RISC-V boards' state as data: what is saved of each device, and how it is checked before it is restored.

use super::htif::Port;
use super::{CONTEXTS, SERIAL, Virt, VirtEvent};
use crate::clint::Clint;
use crate::error::StateError;
use crate::fabric::Wired;
use crate::goldfish_rtc::GoldfishRtc;
use crate::plic::Plic;
use crate::uart::Uart;
use crate::virtio::mmio::SlotData;
use serde::{Deserialize, Serialize};

/// Changes whenever a device's state changes its shape.
const VERSION: u32 = 5;

/// The board's devices but for virtio slots, with what they are wired to.
pub(super) struct Devices {
    /// Guest nanoseconds since power-on, as far as the board knows.
    pub(super) now: u64,
    pub(super) uart: Wired<Uart>,
    pub(super) rtc: Wired<GoldfishRtc>,
    pub(super) htif: Port,
    pub(super) event: Option<VirtEvent>,
}

/// What [`Devices`] and the interrupt controller remember.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DeviceData {
    now: u64,
    clint: Clint,
    plic: Plic,
    uart: Uart,
    rtc: GoldfishRtc,
    htif: Port,
    event: Option<VirtEvent>,
}

impl Devices {
    /// Keeps the first request that nobody has taken yet.
    pub(super) fn request(&mut self, event: VirtEvent) {
        self.event.get_or_insert(event);
    }
}

/// The state of a [`Virt`] at a moment between two accesses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtState {
    version: u32,
    devices: DeviceData,
    slots: Vec<SlotData>,
}

impl Virt {
    /// The state of every device.
    pub fn save(&self) -> VirtState {
        VirtState {
            version: VERSION,
            devices: DeviceData {
                now: self.devices.now,
                clint: self.clint.save(),
                plic: self.plic.save(),
                uart: self.devices.uart.state().clone(),
                rtc: self.devices.rtc.state().clone(),
                htif: self.devices.htif.clone(),
                event: self.devices.event,
            },
            slots: self.slots.iter().map(|slot| slot.state().save()).collect(),
        }
    }

    /// Replaces the state of every device; host handles and what is plugged in stay. On an error nothing has changed. RAM must
    /// be restored first: disks go on with what they were doing.
    pub fn restore(&mut self, state: VirtState) -> Result<(), StateError> {
        if state.version != VERSION {
            return Err(StateError::Version { found: state.version, expected: VERSION });
        }
        let harts = self.harts;
        let devices = state.devices;
        for (what, same) in [
            ("number of harts", devices.clint.harts() == harts),
            ("serial port", devices.uart.config() == SERIAL),
            ("number of virtio slots", state.slots.len() == self.slots.len()),
            ("set of virtio devices", self.slots.iter().zip(&state.slots).all(|(slot, data)| slot.state().fits(data))),
        ] {
            if !same {
                return Err(StateError::Machine(what));
            }
        }
        for (what, well_formed) in [
            ("serial port", devices.uart.is_well_formed()),
            ("host-target interface", devices.htif.is_well_formed()),
            ("interrupt controller", devices.plic.is_well_formed(CONTEXTS * harts)),
        ] {
            if !well_formed {
                return Err(StateError::Malformed(what));
            }
        }
        let live = &mut self.devices;
        live.now = devices.now;
        live.uart.restore(devices.uart);
        live.rtc.restore(devices.rtc);
        live.htif = devices.htif;
        live.event = devices.event;
        for (slot, data) in self.slots.iter_mut().zip(state.slots) {
            slot.with(|slot| slot.restore(data));
        }
        self.look_at_htif_later();
        // After all that drives its sources: it is as it was, whatever they have just told it.
        self.plic.restore(devices.plic);
        self.clint.restore(&devices.clint);
        Ok(())
    }
}
