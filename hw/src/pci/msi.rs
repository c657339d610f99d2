//! Message-signalled interrupts: the capabilities MSI and MSI-X (PCI Local Bus Specification 3.0, 6.8).

use serde::{Deserialize, Serialize};

use super::Config;
use crate::lapic::{Delivery, Destination, Message};

const MSI_CAPABILITY: u8 = 0x05;
const MSIX_CAPABILITY: u8 = 0x11;
/// Bits of MSI's message control: enabled, 64-bit addresses.
const MSI_ENABLE: u8 = 1 << 0;
const MSI_64BIT: u8 = 1 << 7;
/// Bits of the high byte of MSI-X's message control: all masked, enabled.
const MSIX_FUNCTION_MASK: u8 = 1 << 6;
const MSIX_ENABLE: u8 = 1 << 7;
/// Bytes of an entry of MSI-X's table; bit 0 of its last double word masks it.
const ENTRY_SIZE: u64 = 16;
const ENTRY_MASKED: u32 = 1;

/// An interrupt message: a write of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Guest-physical address.
    pub address: u64,
    /// What is written there.
    pub data: u32,
}

impl MsiMessage {
    /// What it is to the local APICs (SDM vol. 3A, 10.11); `None` if it is not for them.
    pub(crate) fn decode(self) -> Option<Message> {
        if self.address & !0xf_ffff != 0xfee0_0000 {
            return None;
        }
        let destination = (self.address >> 12) as u8;
        Some(Message {
            destination: if self.address & 1 << 2 != 0 {
                Destination::Logical(destination)
            } else {
                Destination::Physical(destination)
            },
            delivery: Delivery::from_bits(self.data >> 8)?,
            vector: self.data as u8,
            level: self.data & 1 << 15 != 0,
        })
    }
}

/// An MSI capability of one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    offset: u8,
}

impl Msi {
    /// Adds the capability to `config`; `None` when there is no room.
    pub fn add(config: &mut Config) -> Option<Msi> {
        let body = [MSI_64BIT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let writable = [MSI_ENABLE, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        Some(Msi { offset: config.add_capability(MSI_CAPABILITY, &body, &writable)? })
    }

    /// Whether it is enabled: then the function must not use INTx.
    pub fn is_enabled(&self, config: &Config) -> bool {
        config.u8(self.offset + 2) & MSI_ENABLE != 0
    }

    /// The message, if it is enabled and the function may send it.
    pub fn message(&self, config: &Config) -> Option<MsiMessage> {
        let address = u64::from(config.u32(self.offset + 8)) << 32 | u64::from(config.u32(self.offset + 4));
        let enabled = self.is_enabled(config) && config.is_master();
        enabled.then(|| MsiMessage { address, data: config.u16(self.offset + 12).into() })
    }
}

/// An MSI-X capability with its table and its pending bits, both of which lie in a memory window of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msix {
    offset: u8,
    entries: Vec<[u32; 4]>,
    /// Vectors, bit by number, whose message waits for being unmasked; and those to be sent.
    pending: u64,
}

/// An [`Msix`] as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixData {
    entries: Vec<[u32; 4]>,
    pending: u64,
}

impl Msix {
    /// Adds the capability for `vectors` (1-64) to `config`: its table at `table` and its pending bits at `pending` in base
    /// address register `bar`; `None` when there is no room.
    pub fn add(config: &mut Config, vectors: u8, bar: u8, table: u32, pending: u32) -> Option<Msix> {
        let vectors = vectors.clamp(1, 64);
        let mut body = vec![vectors - 1, 0];
        body.extend((table | u32::from(bar)).to_le_bytes());
        body.extend((pending | u32::from(bar)).to_le_bytes());
        let offset = config.add_capability(MSIX_CAPABILITY, &body, &[0, MSIX_FUNCTION_MASK | MSIX_ENABLE])?;
        Some(Msix { offset, entries: vec![[0, 0, 0, ENTRY_MASKED]; vectors.into()], pending: 0 })
    }

    /// Whether it is enabled: then the function must not use INTx.
    pub fn is_enabled(&self, config: &Config) -> bool {
        config.u8(self.offset + 3) & MSIX_ENABLE != 0
    }

    /// The function signals an interrupt at `vector`. One that is masked is sent when it no longer is; without MSI-X, nothing
    /// happens.
    pub fn signal(&mut self, config: &Config, vector: u16) {
        if self.is_enabled(config) && usize::from(vector) < self.entries.len() {
            self.pending |= 1 << vector;
        }
    }

    /// Appends the messages that are to be sent.
    pub fn take(&mut self, config: &Config, out: &mut Vec<MsiMessage>) {
        let control = config.u8(self.offset + 3);
        if self.pending == 0 || control & (MSIX_ENABLE | MSIX_FUNCTION_MASK) != MSIX_ENABLE || !config.is_master() {
            return;
        }
        for (vector, [low, high, data, mask]) in self.entries.iter().enumerate() {
            if self.pending >> vector & 1 != 0 && mask & ENTRY_MASKED == 0 {
                self.pending &= !(1 << vector);
                out.push(MsiMessage { address: u64::from(*high) << 32 | u64::from(*low), data: *data });
            }
        }
    }

    /// Reads the table: `size` (4 or 8) bytes at `offset`. 0 for other sizes.
    pub fn read_table(&self, offset: u64, size: u8) -> u64 {
        let word = |offset: u64| {
            let entry = self.entries.get((offset / ENTRY_SIZE) as usize);
            entry.and_then(|entry| entry.get((offset % ENTRY_SIZE / 4) as usize)).copied().unwrap_or(0)
        };
        match (size, offset % 4) {
            (4, 0) => word(offset).into(),
            (8, 0) => u64::from(word(offset)) | u64::from(word(offset.saturating_add(4))) << 32,
            _ => 0,
        }
    }

    /// Writes the table: `size` (4 or 8) bytes at `offset`. Other sizes are ignored (6.8.2 allows none).
    pub fn write_table(&mut self, offset: u64, size: u8, value: u64) {
        let mut write = |offset: u64, value: u32| {
            let entry = self.entries.get_mut((offset / ENTRY_SIZE) as usize);
            if let Some(word) = entry.and_then(|entry| entry.get_mut((offset % ENTRY_SIZE / 4) as usize)) {
                *word = match offset % ENTRY_SIZE {
                    0 => value & !3,
                    12 => value & ENTRY_MASKED,
                    _ => value,
                };
            }
        };
        match (size, offset % 4) {
            (4, 0) => write(offset, value as u32),
            (8, 0) => {
                write(offset, value as u32);
                write(offset.saturating_add(4), (value >> 32) as u32);
            }
            _ => tracing::debug!(offset, size, "MSI-X: write of this size ignored"),
        }
    }

    /// Reads the pending bits, `size` bytes at `offset`.
    pub fn read_pending(&self, offset: u64, size: u8) -> u64 {
        let bits = self.pending.checked_shr(8 * offset.min(8) as u32).unwrap_or(0);
        bits & u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
    }

    /// As at power-on; the capability's registers are reset with their configuration space.
    pub fn reset(&mut self) {
        self.entries.fill([0, 0, 0, ENTRY_MASKED]);
        self.pending = 0;
    }

    /// The state as data.
    pub fn save(&self) -> MsixData {
        MsixData { entries: self.entries.clone(), pending: self.pending }
    }

    /// Takes over `data`; false, and nothing has changed, if it is of another number of vectors.
    pub fn restore(&mut self, data: MsixData) -> bool {
        let fits = data.entries.len() == self.entries.len();
        if fits {
            (self.entries, self.pending) = (data.entries, data.pending);
        }
        fits
    }
}
