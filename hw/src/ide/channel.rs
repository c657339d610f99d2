//! A channel: a cable with its two drives, and the bus master that serves it (82371SB data sheet, 2.7).

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::ata::{COMMAND, DEV, DEVICE, ERROR, HOB, NIEN, SRST, STATUS, TaskFile, TaskFileState};
use crate::buffer::{Buffer, Segment};

/// The command that both drives obey.
const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;

/// Bits of a bus master's command: start, and to RAM.
const START: u8 = 1 << 0;
const TO_RAM: u8 = 1 << 3;

/// Bits of a bus master's status: active, error, interrupt; and what software keeps there.
const ACTIVE: u8 = 1 << 0;
const FAILED: u8 = 1 << 1;
const INTERRUPT: u8 = 1 << 2;
const CAPABLE: u8 = 3 << 5;

/// Entries of a descriptor table, which is at most 64 KiB long (82371SB, 2.7.3: it does not cross that boundary).
const MAX_ENTRIES: u32 = 0x1_0000 / 8;
/// Last entry of a descriptor table.
const END_OF_TABLE: u32 = 1 << 31;

/// A bus master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct BusMaster {
    command: u8,
    status: u8,
    /// Address of the descriptor table.
    table: u32,
    /// What the drive moves is all that the table has room for.
    exact: bool,
    /// The interrupt line as last seen.
    line: bool,
    /// It may not use the bus.
    held: bool,
}

/// What of a channel is not a drive's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Common {
    selected: bool,
    control: u8,
    bus_master: BusMaster,
}

/// A channel as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChannelState {
    common: Common,
    drives: [Option<TaskFileState>; 2],
}

/// A channel.
#[derive(Default)]
pub(super) struct Channel {
    drives: [Option<TaskFile>; 2],
    common: Common,
}

/// The pieces that a descriptor table names, and whether it was read well.
struct Table {
    pieces: Vec<Segment>,
    bytes: u64,
}

/// Reads the descriptor table at `table` as far as `needed` bytes go, or to its end.
fn read_table(mem: &Dma, table: u32, needed: u64) -> Option<Table> {
    let mut result = Table { pieces: Vec::new(), bytes: 0 };
    for index in 0..MAX_ENTRIES {
        let mut entry = [0; 8];
        let at = u64::from(table).checked_add(u64::from(index) * 8)?;
        mem.read_slice(&mut entry, GuestAddress(at)).ok()?;
        let [a, b, c, d, e, f, g, h] = entry;
        let (gpa, word) = (u32::from_le_bytes([a, b, c, d]) & !1, u32::from_le_bytes([e, f, g, h]));
        // 0 stands for 64 KiB.
        let len = if word & 0xfffe == 0 { 0x1_0000 } else { word & 0xfffe };
        let wanted = needed.saturating_sub(result.bytes).min(len.into()) as u32;
        result.bytes += u64::from(len);
        if wanted != 0 {
            result.pieces.push(Segment { gpa: gpa.into(), len: wanted });
        }
        // More is nobody's business, but whether the table is longer is.
        if word & END_OF_TABLE != 0 || result.bytes > needed {
            return Some(result);
        }
    }
    Some(result)
}

impl Channel {
    pub(super) fn plug(&mut self, unit: usize, drive: TaskFile) -> bool {
        match self.drives.get_mut(unit) {
            Some(place @ None) => {
                *place = Some(drive);
                true
            }
            _ => false,
        }
    }

    pub(super) fn has(&self, unit: usize) -> bool {
        self.drives.get(unit).is_some_and(Option::is_some)
    }

    pub(super) fn drive_mut(&mut self, unit: usize) -> Option<&mut TaskFile> {
        self.drives.get_mut(unit)?.as_mut()
    }

    fn selected(&self) -> Option<&TaskFile> {
        let [first, second] = &self.drives;
        if self.common.selected { second.as_ref() } else { first.as_ref() }
    }

    fn selected_mut(&mut self) -> Option<&mut TaskFile> {
        let [first, second] = &mut self.drives;
        if self.common.selected { second.as_mut() } else { first.as_mut() }
    }

    /// Who answers reads: the first drive stands in for an absent second one (ATA/ATAPI-7 volume 2, 5.2.1), and nobody for an
    /// absent first one.
    fn responder(&self) -> Option<&TaskFile> {
        self.selected().or(self.drives.first().and_then(Option::as_ref))
    }

    pub(super) fn data_read(&mut self, size: u8, mem: &Dma) -> u32 {
        let value = self.selected_mut().map_or(0, |drive| drive.data_read(size));
        self.settle(mem);
        value
    }

    pub(super) fn data_write(&mut self, size: u8, value: u32, mem: &Dma) {
        if let Some(drive) = self.selected_mut() {
            drive.data_write(size, value);
        }
        self.settle(mem);
    }

    pub(super) fn read(&mut self, offset: u16, mem: &Dma) -> u8 {
        let previous = usize::from(self.common.control & HOB != 0);
        match offset {
            STATUS => {
                let status = self.alternate_status();
                self.lower_irq();
                self.settle(mem);
                status
            }
            // A register beyond the block is another device's.
            8.. => 0xff,
            DEVICE => self.responder().map_or(0, |drive| drive.device_register(self.common.selected)),
            ERROR => self.responder().map_or(0, TaskFile::error_register),
            _ => self.responder().map_or(0, |drive| drive.register(offset, previous)),
        }
    }

    pub(super) fn alternate_status(&self) -> u8 {
        self.selected().map_or(0, TaskFile::status)
    }

    pub(super) fn write(&mut self, offset: u16, value: u8, mem: &Dma) {
        // Any write to the command block switches back to the present contents.
        self.common.control &= !HOB;
        match offset {
            COMMAND if value == EXECUTE_DEVICE_DIAGNOSTIC => {
                self.common.selected = false;
                self.drives.iter_mut().flatten().for_each(TaskFile::diagnose);
                // The first drive speaks for both.
                if let Some(drive) = self.selected_mut() {
                    drive.interrupt();
                }
            }
            COMMAND => {
                if let Some(drive) = self.selected_mut() {
                    drive.command(value);
                }
            }
            8.. => {}
            _ => {
                if offset == DEVICE {
                    self.common.selected = value & DEV != 0;
                }
                self.drives.iter_mut().flatten().for_each(|drive| drive.write_register(offset, value));
            }
        }
        self.settle(mem);
    }

    pub(super) fn write_control(&mut self, value: u8, mem: &Dma) {
        let before = std::mem::replace(&mut self.common.control, value);
        let rises = value & !before & SRST != 0;
        let falls = before & !value & SRST != 0;
        if rises {
            self.common.selected = false;
            self.drives.iter_mut().flatten().for_each(TaskFile::begin_reset);
        }
        if falls {
            self.drives.iter_mut().flatten().for_each(TaskFile::end_reset);
        }
        self.settle(mem);
    }

    pub(super) fn irq(&self) -> bool {
        self.common.control & NIEN == 0 && self.selected().is_some_and(TaskFile::interrupts)
    }

    pub(super) fn lower_irq(&mut self) {
        if let Some(drive) = self.selected_mut() {
            drive.acknowledge();
        }
        self.common.bus_master.line = self.irq();
    }

    pub(super) fn enable_bus_master(&mut self, enabled: bool, mem: &Dma) {
        self.common.bus_master.held = !enabled;
        if !enabled {
            self.drives.iter_mut().flatten().for_each(TaskFile::recall_dma);
        }
        self.settle(mem);
    }

    pub(super) fn bus_master_read(&self, offset: u16) -> u8 {
        let bus_master = &self.common.bus_master;
        match offset {
            0 => bus_master.command,
            2 => bus_master.status,
            4..=7 => bus_master.table.to_le_bytes().get(usize::from(offset - 4)).copied().unwrap_or(0),
            _ => 0,
        }
    }

    pub(super) fn bus_master_write(&mut self, offset: u16, value: u8, mem: &Dma) {
        let bus_master = &mut self.common.bus_master;
        match offset {
            0 => {
                let before = std::mem::replace(&mut bus_master.command, value & (START | TO_RAM));
                if value & !before & START != 0 {
                    bus_master.status |= ACTIVE;
                } else if before & !value & START != 0 && bus_master.status & ACTIVE != 0 {
                    bus_master.status &= !ACTIVE;
                    // What is under way must not touch RAM any more.
                    self.drives.iter_mut().flatten().for_each(TaskFile::cut_dma);
                }
            }
            2 => {
                let kept = bus_master.status & !CAPABLE & !(value & (FAILED | INTERRUPT));
                bus_master.status = kept | value & CAPABLE;
            }
            4..=7 => {
                let shift = 8 * u32::from(offset - 4);
                bus_master.table = bus_master.table & !(0xff << shift) | u32::from(value) << shift;
                bus_master.table &= !3;
            }
            _ => {}
        }
        self.settle(mem);
    }

    /// Brings bus master and drives together, and notices what the interrupt line does.
    fn settle(&mut self, mem: &Dma) {
        if self.common.bus_master.status & ACTIVE != 0 && !self.common.bus_master.held {
            self.start_dma(mem);
        }
        let moved = self.drives.iter_mut().flatten().any(TaskFile::take_dma_done);
        let irq = self.irq();
        let bus_master = &mut self.common.bus_master;
        // A table with more room than was used leaves the bus master active (82371SB, 2.7.2).
        if moved && bus_master.exact {
            bus_master.status &= !ACTIVE;
        }
        if irq && !bus_master.line {
            bus_master.status |= INTERRUPT;
        }
        bus_master.line = irq;
    }

    fn start_dma(&mut self, mem: &Dma) {
        let table = self.common.bus_master.table;
        let Some(needed) = self.selected().and_then(TaskFile::awaits_dma) else { return };
        let result = read_table(mem, table, needed).map(|table| (table.bytes, Buffer::new(table.pieces)));
        let bus_master = &mut self.common.bus_master;
        match result {
            Some((bytes, buffer)) if buffer.is_in(mem) => {
                bus_master.exact = bytes == needed;
                if bytes < needed {
                    // The table ends early: the bus master stops, and the drive waits for one that goes on.
                    bus_master.status &= !ACTIVE;
                } else if let Some(drive) = self.selected_mut() {
                    drive.start_dma(mem, buffer);
                }
            }
            _ => {
                bus_master.status = bus_master.status & !ACTIVE | FAILED;
                if let Some(drive) = self.selected_mut() {
                    drive.fail_dma();
                }
            }
        }
    }

    pub(super) fn attend(&mut self, mem: &Dma) {
        self.drives.iter_mut().flatten().for_each(TaskFile::attend);
        self.settle(mem);
    }

    pub(super) fn reset(&mut self) {
        self.common = Common::default();
        self.drives.iter_mut().flatten().for_each(TaskFile::reset);
    }

    pub(super) fn save(&self) -> ChannelState {
        let drives = self.drives.each_ref().map(|drive| drive.as_ref().map(TaskFile::save));
        ChannelState { common: self.common.clone(), drives }
    }

    pub(super) fn fits(&self, state: &ChannelState, mem: &Dma) -> bool {
        self.drives.iter().zip(&state.drives).all(|pair| match pair {
            (Some(drive), Some(state)) => drive.fits(state, mem),
            (None, None) => true,
            _ => false,
        })
    }

    pub(super) fn restore(&mut self, state: ChannelState) {
        self.common = state.common;
        for (drive, state) in self.drives.iter_mut().zip(state.drives) {
            if let (Some(drive), Some(state)) = (drive, state) {
                drive.restore(state);
            }
        }
    }
}
