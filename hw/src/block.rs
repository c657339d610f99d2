//! The interface between a disk of any kind (virtio, ATA) and the host side that reads and writes its image.
//!
//! A device makes [`BlockJob`]s of what its driver wants, by the [`fabric`](crate::fabric)'s handle for that. The host side does them
//! on a thread of its own, moves their bytes by itself by way of the [`JobBuffer`](crate::fabric::JobBuffer) that each has with it,
//! and has the device attend to it when one is done. What is under way is state: a restored device gives it to its backend once
//! more.

#[cfg(test)]
pub(crate) mod testing;

use serde::{Deserialize, Serialize};

pub use crate::fabric::{BlockJob, DmaTarget, JobBuffer};

/// Bytes of a sector, the unit of all positions and sizes.
pub const SECTOR_SIZE: u64 = 512;

/// What a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// The guest may not write.
    pub read_only: bool,
    /// The backend can discard and write zeroes.
    pub discard: bool,
    /// What the guest sees as its serial number; 20 bytes of it at most.
    pub serial: String,
}

/// What is to be done to the medium. Offsets and lengths are in bytes and lie within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockOp {
    /// Read, and bring the bytes to the job's buffer.
    Read {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Write the bytes of the job's buffer.
    Write {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Make everything that was written before last.
    Flush,
    /// The contents are not needed any more.
    Discard {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Write zeroes.
    WriteZeroes {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
        /// The host may free the space.
        unmap: bool,
    },
}

/// The host side of a disk.
pub trait BlockBackend: Send {
    /// Takes a job, to be done and [finished](BlockJob::finish) soon, and returns at once. No more than 256 are ever under way. The
    /// device is told from another call than this one.
    fn submit(&mut self, job: BlockJob);
}
