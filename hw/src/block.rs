//! What disks of any kind ask of the host side.
//!
//! A device makes [`BlockJob`]s of what its driver wants. The host side does them on a thread of its own and asks for the data,
//! or brings them, piece by piece. What crosses is copied while the device is locked, so that a device that was reset is left
//! alone; or it is read straight into a [`DmaTarget`], and a reset waits for that. What is under way is state: a restored device
//! gives it to its backend once more.

use mimus_softmmu::{Dma, DmaWatch};
use serde::{Deserialize, Serialize};
use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};

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
    /// Read, and hand over by the device's `fill`, as [`Virtio::block_fill`](crate::virtio::Virtio::block_fill), or write to its
    /// `target`, as [`Virtio::block_target`](crate::virtio::Virtio::block_target).
    Read {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Get the data by the device's `take`, as [`Virtio::block_take`](crate::virtio::Virtio::block_take), and write them.
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

/// Something for a [`BlockBackend`] to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockJob {
    /// Names the job when data are exchanged and when it is done.
    pub token: u64,
    /// What.
    pub op: BlockOp,
}

/// The host side of a disk.
pub trait BlockBackend: Send {
    /// Takes a job, to be done soon, and returns at once. No more than 256 are ever under way. The device hears of the end by
    /// its `done`, as [`Virtio::block_done`](crate::virtio::Virtio::block_done), from another call than this one.
    fn submit(&mut self, job: BlockJob);

    /// Waits until nothing is written to a [`DmaTarget`] that the device gave before: it is about to be reset. Called with the
    /// device locked, which whoever has a target therefore must not wait for. A host side that asks for no targets needs none.
    fn settle(&mut self) {}
}

/// Where in guest RAM a piece of what is read goes. Nothing may be written to it once the backend has
/// [settled](BlockBackend::settle).
#[derive(Debug)]
pub struct DmaTarget {
    mem: Dma,
    parts: Vec<(u64, usize)>,
}

impl DmaTarget {
    /// These parts of RAM: guest-physical address and bytes of each.
    pub fn new(mem: &Dma, parts: Vec<(u64, usize)>) -> DmaTarget {
        DmaTarget { mem: mem.clone(), parts }
    }

    /// The parts in their order. Whoever writes to one behind its back marks it dirty afterwards. `None` if any of it is not RAM.
    pub fn slices(&self) -> Option<Vec<VolatileSlice<'_, DmaWatch<'_>>>> {
        let slice = |&(gpa, len): &(u64, usize)| {
            let mut slices = self.mem.get_slices(GuestAddress(gpa), len, Permissions::Write).ok()?;
            slices.next()?.ok()
        };
        self.parts.iter().map(slice).collect()
    }
}
