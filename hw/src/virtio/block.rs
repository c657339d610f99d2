//! The block device (VIRTIO 1.2, 5.2).
//!
//! A request becomes a [`BlockJob`](crate::block::BlockJob) for the host side: see [`crate::block`].

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_GEOMETRY, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::Device;
use super::queue::{Broken, Chain, VirtQueue};
use crate::block::{BlockBackend, BlockInfo, BlockOp, SECTOR_SIZE};
use crate::buffer::Buffer;
use crate::fabric::{BlockClient, Data, Finished};

/// The request queue.
pub(super) const QUEUE: usize = 0;
const QUEUE_SIZE: u16 = 256;
/// Bytes of a request's header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of the range of a discard or write-zeroes request: sector, count, flags.
const RANGE: usize = 16;
/// The most sectors that one discard or write-zeroes request may name: 1 GiB.
const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// A request that the backend has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    token: u64,
    head: u16,
    op: BlockOp,
    /// Read from or written to, without header and status.
    data: Buffer,
    /// The byte for the status.
    status: Buffer,
}

/// A disk's state as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BlockData {
    pending: Vec<Pending>,
}

/// A disk.
pub(super) struct Block {
    info: BlockInfo,
    client: BlockClient,
    pending: Vec<Pending>,
}

/// What becomes of a request.
enum Verdict {
    /// It is the backend's.
    Submit(BlockOp),
    /// It is over, with this status and this many bytes of data written.
    Over(u32, u32),
}

impl Block {
    pub(super) fn new(mem: Dma, info: BlockInfo, backend: Box<dyn BlockBackend>) -> Self {
        Block { info, client: BlockClient::new(mem, Some(backend), QUEUE_SIZE.into()), pending: Vec::new() }
    }

    /// Cylinders, heads and sectors of a track, where firmware is to use them (5.2.4): of a disk of less than a cylinder by the
    /// usual count, of which firmware that goes by blocks would make one without any. They reach no more than the disk has.
    fn geometry(&self) -> Option<(u16, u8, u8)> {
        let sectors = self.info.sectors;
        let track = sectors.min(63);
        let heads = sectors.checked_div(track)?;
        (heads < 16).then_some((1, heads as u8, track as u8))
    }

    /// The bytes that `sectors` from `sector` on are, if the disk has them all.
    fn range(&self, sector: u64, bytes: u64) -> Option<(u64, u64)> {
        let end = sector.checked_mul(SECTOR_SIZE)?.checked_add(bytes)?;
        (end <= self.info.sectors.checked_mul(SECTOR_SIZE)?).then_some((sector * SECTOR_SIZE, bytes))
    }

    fn start(&mut self, chain: Chain, queues: &mut [VirtQueue], mem: &Dma) -> Result<(), Broken> {
        let Chain { head, mut readable, mut writable } = chain;
        let mut header = [0; HEADER];
        let front = readable.take_front(HEADER as u64).ok_or(Broken("a disk request has no header"))?;
        front.read(mem, 0, &mut header);
        let [kind, _, low, high] = words(&header);
        let sector = u64::from(high) << 32 | u64::from(low);
        let room = writable.len().checked_sub(1).ok_or(Broken("a disk request has no room for its status"))?;
        let data = writable.take_front(room).unwrap_or_default();
        let status = writable;
        match self.judge(kind, sector, &readable, &data, mem) {
            Verdict::Submit(op) => {
                let data = if matches!(op, BlockOp::Read { .. }) { data } else { readable };
                self.submit(Pending { token: 0, head, op, data, status });
                Ok(())
            }
            Verdict::Over(code, written) => {
                status.write(mem, 0, &[code as u8]);
                match queues.get_mut(QUEUE) {
                    Some(queue) => queue.push(mem, head, written + 1),
                    None => Ok(()),
                }
            }
        }
    }

    /// Gives the backend a request under a new token.
    fn submit(&mut self, request: Pending) {
        let data = match request.op {
            BlockOp::Read { .. } | BlockOp::Write { .. } => Data::Memory(request.data.clone()),
            _ => Data::None,
        };
        let token = self.client.submit(request.op, data);
        self.pending.push(Pending { token, ..request });
    }

    fn judge(&self, kind: u32, sector: u64, readable: &Buffer, writable: &Buffer, mem: &Dma) -> Verdict {
        const FAILED: Verdict = Verdict::Over(VIRTIO_BLK_S_IOERR, 0);
        const UNSUPPORTED: Verdict = Verdict::Over(VIRTIO_BLK_S_UNSUPP, 0);
        match kind {
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT => {
                let write = kind == VIRTIO_BLK_T_OUT;
                let bytes = if write { readable.len() } else { writable.len() };
                match self.range(sector, bytes).filter(|_| bytes.is_multiple_of(SECTOR_SIZE)) {
                    Some((offset, len)) if !write => Verdict::Submit(BlockOp::Read { offset, len }),
                    Some((offset, len)) if !self.info.read_only => Verdict::Submit(BlockOp::Write { offset, len }),
                    _ => FAILED,
                }
            }
            VIRTIO_BLK_T_FLUSH => Verdict::Submit(BlockOp::Flush),
            VIRTIO_BLK_T_GET_ID => {
                let mut serial = [0; VIRTIO_BLK_ID_BYTES as usize];
                serial.iter_mut().zip(self.info.serial.bytes()).for_each(|(to, from)| *to = from);
                let written = writable.write(mem, 0, &serial);
                Verdict::Over(VIRTIO_BLK_S_OK, written as u32)
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if self.can_discard() => {
                let mut range = [0; RANGE];
                // One range at a time, as the configuration space says.
                if readable.len() != RANGE as u64 || readable.read(mem, 0, &mut range) != RANGE {
                    return FAILED;
                }
                let [low, high, sectors, flags] = words(&range);
                let zeroes = kind == VIRTIO_BLK_T_WRITE_ZEROES;
                let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
                // 5.2.6.2: unknown flags, and unmap on a discard, are unsupported.
                if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || unmap && !zeroes {
                    return UNSUPPORTED;
                }
                let range = self.range(u64::from(high) << 32 | u64::from(low), u64::from(sectors) * SECTOR_SIZE);
                match range.filter(|_| sectors <= MAX_RANGE_SECTORS) {
                    Some((offset, len)) if zeroes => Verdict::Submit(BlockOp::WriteZeroes { offset, len, unmap }),
                    Some((offset, len)) => Verdict::Submit(BlockOp::Discard { offset, len }),
                    None => FAILED,
                }
            }
            _ => UNSUPPORTED,
        }
    }

    fn can_discard(&self) -> bool {
        self.info.discard && !self.info.read_only
    }

    /// The next job that the backend is done with.
    pub(super) fn next_finished(&mut self) -> Option<Finished> {
        self.client.next_finished()
    }

    /// Gives the request of a job that is over back to the driver.
    pub(super) fn finish(&mut self, queues: &mut [VirtQueue], mem: &Dma, job: &Finished) -> Result<(), Broken> {
        let Finished { token, ok, .. } = *job;
        let Some(index) = self.pending.iter().position(|pending| pending.token == token) else { return Ok(()) };
        // The others stay in the order in which they were made: a restored device gives them to its backend in it.
        let job = self.pending.remove(index);
        job.status.write(mem, 0, &[if ok { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR } as u8]);
        let data = match job.op {
            BlockOp::Read { len, .. } if ok => u32::try_from(len).unwrap_or(u32::MAX),
            _ => 0,
        };
        match queues.get_mut(QUEUE) {
            Some(queue) => queue.push(mem, job.head, data.saturating_add(1)),
            None => Ok(()),
        }
    }

    pub(super) fn save(&self) -> BlockData {
        BlockData { pending: self.pending.clone() }
    }

    /// Whether the jobs under way are such that this disk would have begun.
    pub(super) fn fits(&self, mem: &Dma, data: &BlockData) -> bool {
        data.pending.len() <= usize::from(QUEUE_SIZE)
            && data.pending.iter().all(|job| match job.op {
                BlockOp::Flush => true,
                BlockOp::Read { offset, len } => self.has(offset, len) && job.data.len() == len && job.data.is_in(mem),
                BlockOp::Write { offset, len } => {
                    !self.info.read_only && self.has(offset, len) && job.data.len() == len && job.data.is_in(mem)
                }
                BlockOp::Discard { offset, len } | BlockOp::WriteZeroes { offset, len, .. } => {
                    self.can_discard() && self.has(offset, len)
                }
            })
    }

    fn has(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.info.sectors.saturating_mul(SECTOR_SIZE))
    }

    pub(super) fn restore(&mut self, data: BlockData) {
        data.pending.into_iter().for_each(|request| self.submit(request));
    }
}

/// Four little-endian words.
fn words(bytes: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// What of the configuration space is not 0: offset and little-endian value (5.2.4).
type Field<'a> = (usize, &'a [u8]);

impl Device for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let mut features = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;
        if self.info.read_only {
            features |= 1 << VIRTIO_BLK_F_RO;
        }
        if self.geometry().is_some() {
            features |= 1 << VIRTIO_BLK_F_GEOMETRY;
        }
        if self.can_discard() {
            features |= 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        }
        features
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        let capacity = self.info.sectors.to_le_bytes();
        // Beside header and status.
        let seg_max = (u32::from(QUEUE_SIZE) - 2).to_le_bytes();
        let block_size = (SECTOR_SIZE as u32).to_le_bytes();
        let (range, one) = (MAX_RANGE_SECTORS.to_le_bytes(), 1u32.to_le_bytes());
        let (cylinders, heads, track) = self.geometry().unwrap_or_default();
        let [low, high] = cylinders.to_le_bytes();
        let geometry = [low, high, heads, track];
        let mut fields: Vec<Field> = vec![(0, &capacity), (12, &seg_max), (16, &geometry), (20, &block_size)];
        if self.can_discard() {
            fields.extend::<[Field; 6]>([(36, &range), (40, &one), (44, &one), (48, &range), (52, &one), (56, &[1])]);
        }
        let mut config = vec![0; 60];
        for (at, bytes) in fields {
            config.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        }
        config
    }

    fn reset(&mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.client.cancel_all();
        self.pending.clear();
    }

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        // A queue's worth at once. Requests that end here and now could keep this going as long as others make them.
        for _ in 0..QUEUE_SIZE {
            // A driver has no more under way than its queue holds; one that seems to, or has reset the device, must wait.
            if !self.client.has_room() {
                return Ok(false);
            }
            let Some(queue) = queues.get_mut(index) else { return Ok(false) };
            match queue.pop(mem)? {
                Some(chain) => self.start(chain, queues, mem)?,
                None if queue.rearm(mem)? => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
