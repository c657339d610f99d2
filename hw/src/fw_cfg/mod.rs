//! The firmware configuration device (QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device"): items by number,
//! files by name, read byte by byte at a port or by DMA.

pub mod files;

use std::collections::BTreeMap;

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::acpi_tables::{self, AcpiConfig};

/// The first port: selector, data, two ports without meaning, the DMA address.
pub(crate) const BASE: u16 = 0x510;
/// Ports.
pub(crate) const LENGTH: u16 = 12;

/// Numbers of items.
const SIGNATURE: u16 = 0x00;
const ID: u16 = 0x01;
const FILE_DIRECTORY: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;
/// Bytes of a file's name with its terminator.
const NAME_SIZE: usize = 56;
/// Bit 14 of a selector asks for writing, which no item allows: it is as if it were not there.
const SELECTOR_MASK: u16 = !(1 << 14);

/// What [`ID`] says: the traditional interface and DMA.
const FEATURES: u32 = 1 | 2;
/// What the DMA address register reads as.
const DMA_SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");

/// Bits of the control word of a DMA access.
const DMA_ERROR: u32 = 1 << 0;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 16;

/// The device with its items.
#[derive(Debug)]
pub struct FwCfg {
    mem: Dma,
    items: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, u16>,
    /// What the ACPI tables among the files say.
    acpi: Option<AcpiConfig>,
    state: FwCfgData,
}

/// What it remembers of accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FwCfgData {
    select: u16,
    offset: u32,
    dma_high: u32,
}

impl FwCfg {
    /// A device without files that reaches RAM by `mem`.
    pub fn new(mem: Dma) -> FwCfg {
        let (items, files, state) = (BTreeMap::new(), BTreeMap::new(), FwCfgData::default());
        let mut device = FwCfg { mem, items, files, acpi: None, state };
        device.add(SIGNATURE, b"QEMU".to_vec());
        device.add(ID, FEATURES.to_le_bytes().to_vec());
        device.write_directory();
        device
    }

    /// Adds or replaces item `key`.
    pub fn add(&mut self, key: u16, bytes: Vec<u8>) {
        self.items.insert(key, bytes);
    }

    /// Adds or replaces a file. A name is cut after 55 bytes.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) {
        let next = FIRST_FILE.saturating_add(self.files.len() as u16);
        let key = *self.files.entry(name.to_owned()).or_insert(next);
        self.items.insert(key, bytes);
        self.write_directory();
    }

    /// Adds the ACPI tables as files. They are made again when firmware reads them after it has moved what they tell of.
    pub fn add_acpi(&mut self, config: AcpiConfig) {
        for (name, bytes) in acpi_tables::loadable(&config) {
            self.add_file(name, bytes);
        }
        self.acpi = Some(config);
    }

    fn write_directory(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (name, key) in &self.files {
            let size = self.items.get(key).map_or(0, Vec::len) as u32;
            directory.extend(size.to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; NAME_SIZE];
            for (place, byte) in field.iter_mut().take(NAME_SIZE - 1).zip(name.bytes()) {
                *place = byte;
            }
            directory.extend(field);
        }
        self.items.insert(FILE_DIRECTORY, directory);
    }

    /// Reads `size` bytes at [`BASE`] + `offset`.
    pub(crate) fn read(&mut self, offset: u16, size: u8) -> u32 {
        match (offset, size) {
            (0, 2) => self.state.select.into(),
            (1, 1) => self.next_byte().into(),
            // Big-endian, byte by byte.
            (4..=11, _) => {
                let bytes = DMA_SIGNATURE.to_be_bytes();
                let at = usize::from(offset) - 4;
                bytes.iter().skip(at).take(size.into()).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
            }
            _ => 0,
        }
    }

    /// Writes the low `size` bytes of `value` at [`BASE`] + `offset`, while the power management registers are at `pm_base`.
    pub(crate) fn write(&mut self, offset: u16, size: u8, value: u32, pm_base: Option<u16>) {
        match (offset, size) {
            (0, 2) => self.select(value as u16, pm_base),
            // No item can be written.
            (1, 1) => {}
            (4, 4) => self.state.dma_high = value.swap_bytes(),
            (8, 4) => {
                let address = u64::from(self.state.dma_high) << 32 | u64::from(value.swap_bytes());
                self.state.dma_high = 0;
                self.transfer(address, pm_base);
            }
            _ => tracing::debug!(offset, size, "fw_cfg: write ignored"),
        }
    }

    fn select(&mut self, key: u16, pm_base: Option<u16>) {
        if let Some(pm_base) = pm_base
            && let Some(acpi) = self.acpi.take_if(|acpi| acpi.pm_base != pm_base)
        {
            self.add_acpi(AcpiConfig { pm_base, ..acpi });
        }
        self.state.select = key & SELECTOR_MASK;
        self.state.offset = 0;
    }

    /// What is left of the selected item.
    fn rest(&self) -> &[u8] {
        let item = self.items.get(&self.state.select).map_or(&[][..], Vec::as_slice);
        item.get(self.state.offset as usize..).unwrap_or_default()
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.state.offset = self.state.offset.saturating_add(1);
        byte
    }

    /// Does what the DMA access structure at `address` says: control, length and address, all big-endian.
    fn transfer(&mut self, address: u64, pm_base: Option<u16>) {
        let mut request = [0; 16];
        if self.mem.read_slice(&mut request, GuestAddress(address)).is_err() {
            tracing::debug!(address, "fw_cfg: a DMA request outside RAM is ignored");
            return;
        }
        let word = |at: usize| request.iter().skip(at).take(4).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let (control, length) = (word(0), word(4));
        let target = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16, pm_base);
        }
        let done = match control & (DMA_READ | DMA_WRITE | DMA_SKIP) {
            0 => true,
            kind if kind & DMA_READ != 0 => self.copy(target, length),
            kind if kind & DMA_WRITE != 0 => false,
            _ => {
                self.state.offset = self.state.offset.saturating_add(length);
                true
            }
        };
        let result: u32 = if done { 0 } else { DMA_ERROR };
        // The request was RAM a moment ago; a ROM keeps what it holds.
        let _ = self.mem.write_obj(result.to_be(), GuestAddress(address));
    }

    /// Copies `length` bytes of the selected item, zeros beyond its end, to `target`; false where that is not RAM.
    fn copy(&mut self, target: u64, length: u32) -> bool {
        let (mut at, mut left) = (target, length as usize);
        let zeros = [0; 4096];
        while left != 0 {
            let rest = self.rest();
            let source = if rest.is_empty() { &zeros[..] } else { rest };
            let now = source.len().min(left).min(CHUNK);
            if self.mem.write_slice(source.get(..now).unwrap_or_default(), GuestAddress(at)).is_err() {
                return false;
            }
            self.state.offset = self.state.offset.saturating_add(now as u32);
            at = at.wrapping_add(now as u64);
            left -= now;
        }
        true
    }

    pub(crate) fn reset(&mut self) {
        self.state = FwCfgData::default();
    }

    pub(crate) fn save(&self) -> FwCfgData {
        self.state
    }

    pub(crate) fn restore(&mut self, data: FwCfgData) {
        self.state = data;
    }
}

#[cfg(test)]
mod tests;
