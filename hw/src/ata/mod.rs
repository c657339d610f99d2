//! ATA drives without the bus that they are on: disks and CD-ROM drives ("ATA/ATAPI Command Set - 2 (ACS-2)"; "ATA/ATAPI-7"
//! volumes 1 and 2, where a rule is of the old parallel interface; "MultiMedia Commands - 3 (MMC-3)").
//!
//! `Disk` is what is behind the registers: it decodes a command, and keeps the operations on the medium that commands wait for,
//! of which there may be several. `TaskFile` is the registers and the protocols by which one command at a time moves its data,
//! as [`ide`](crate::ide) has them; a controller that takes commands from memory needs the former only.

mod disk;
mod identify;
mod packet;
mod regs;
mod task_file;

use crate::block::{BlockBackend, BlockInfo};
pub(crate) use disk::{Disk, Kind, MAKER};
pub(crate) use identify::geometry;
pub(crate) use regs::{COMMAND, DEV, DEVICE, ERROR, HOB, NIEN, SRST, STATUS};
pub(crate) use task_file::{TaskFile, TaskFileState};

/// What a drive is called, where it is not as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The drive's model; 40 characters of it at most. Empty: the usual one.
    pub model: String,
    /// The revision of the drive's firmware; 8 characters of it at most. Empty: the usual one.
    pub revision: String,
    /// The drive's world wide name; 0 is none.
    pub world_wide: u64,
}

/// A medium, and who does its jobs.
pub type Medium = (BlockInfo, Box<dyn BlockBackend>);

/// How a drive's tray is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tray {
    /// The guest has ejected the medium; the host has it in the drive still.
    pub open: bool,
    /// The guest does not want the medium to be taken out.
    pub locked: bool,
}
