//! Virtqueues: virtio-queue's walking, and the checks that keep a hostile driver's chains within bounds.
//!
//! Section numbers of this module are those of "Virtual I/O Device (VIRTIO) Version 1.2".

use std::sync::atomic::{Ordering, fence};

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, Permissions};

use crate::buffer::{Buffer, Segment};

/// The driver broke the rules of its queue; the device needs a reset (2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) &'static str);

/// What the driver made available at once.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Names the chain when it is given back.
    pub(crate) head: u16,
    /// What the device reads.
    pub(crate) readable: Buffer,
    /// What the device writes.
    pub(crate) writable: Buffer,
}

/// One virtqueue.
#[derive(Debug)]
pub(crate) struct VirtQueue {
    queue: Queue,
    /// Where the used ring was when the driver was last told, or was not to be told.
    told: u16,
}

/// A virtqueue as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueData {
    next_avail: u16,
    next_used: u16,
    event_idx: bool,
    size: u16,
    ready: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
    told: u16,
}

impl VirtQueue {
    /// A queue of at most `max_size` chains, a power of two up to 32768.
    pub(crate) fn new(max_size: u16) -> Self {
        // A device's table of sizes is ours; a wrong one gives a queue that takes nothing.
        VirtQueue { queue: Queue::new(max_size).unwrap_or_default(), told: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.queue.reset();
        self.told = 0;
    }

    pub(crate) fn max_size(&self) -> u16 {
        self.queue.max_size()
    }

    /// The size that it has, or will have.
    pub(crate) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Where a ring is.
    pub(crate) fn address(&self, ring: Ring) -> u64 {
        match ring {
            Ring::Descriptors => self.queue.desc_table(),
            Ring::Available => self.queue.avail_ring(),
            Ring::Used => self.queue.used_ring(),
        }
    }

    /// Sizes that are no power of two or too large are ignored.
    pub(crate) fn set_size(&mut self, size: u16) {
        if !self.queue.ready() {
            self.queue.set_size(size);
        }
    }

    pub(crate) fn ready(&self) -> bool {
        self.queue.ready()
    }

    /// Switches the queue on or off.
    pub(crate) fn set_ready(&mut self, mem: &Dma, ready: bool, event_idx: bool) -> Result<(), Broken> {
        self.queue.set_event_idx(event_idx);
        self.queue.set_ready(ready);
        if ready && !self.queue.is_valid(mem) {
            return Err(Broken("a queue's rings are not in RAM"));
        }
        Ok(())
    }

    /// Sets a half of an address; a queue that is on keeps its own (4.2.2.2).
    pub(crate) fn set_address(&mut self, ring: Ring, low: Option<u32>, high: Option<u32>) {
        if self.queue.ready() {
            return;
        }
        match ring {
            Ring::Descriptors => self.queue.set_desc_table_address(low, high),
            Ring::Available => self.queue.set_avail_ring_address(low, high),
            Ring::Used => self.queue.set_used_ring_address(low, high),
        }
    }

    /// The page of `1 << bits` bytes that its rings begin at, as drivers of the legacy interface have it; 0 while it is off.
    pub(crate) fn page(&self, bits: u32) -> u32 {
        if self.queue.ready() { (self.queue.desc_table() >> bits) as u32 } else { 0 }
    }

    /// Puts all three rings at `base`, as the legacy interface has them (2.7.2): the used ring begins at a multiple of `align`
    /// bytes. The size stays, and the queue begins anew.
    pub(crate) fn place(&mut self, base: u64, align: u32) {
        let size = self.queue.size();
        self.reset();
        self.queue.set_size(size);
        let available = base.saturating_add(16 * u64::from(size));
        let used = available.saturating_add(2 * (3 + u64::from(size))).checked_next_multiple_of(align.max(1).into());
        for (ring, address) in
            [(Ring::Descriptors, base), (Ring::Available, available), (Ring::Used, used.unwrap_or(u64::MAX))]
        {
            self.set_address(ring, Some(address as u32), Some((address >> 32) as u32));
        }
    }

    /// The next chain that the driver has made available.
    pub(crate) fn pop(&mut self, mem: &Dma) -> Result<Option<Chain>, Broken> {
        if !self.queue.ready() {
            return Ok(None);
        }
        let size = usize::from(self.queue.size());
        let mut available = self.queue.iter(mem).map_err(|_| Broken("the available ring is ahead of its size"))?;
        let Some(descriptors) = available.next() else { return Ok(None) };
        let head = descriptors.head_index();
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let (mut count, mut unfinished) = (0, true);
        for descriptor in descriptors {
            count += 1;
            // 2.7.5.3.1: no chain is longer than the queue's size, an indirect one included.
            if count > size {
                return Err(Broken("a chain is longer than its queue"));
            }
            unfinished = descriptor.has_next();
            let (addr, len) = (descriptor.addr(), descriptor.len());
            if len == 0 {
                continue;
            }
            let (list, access) = match descriptor.is_write_only() {
                true => (&mut writable, Permissions::Write),
                false if writable.is_empty() => (&mut readable, Permissions::Read),
                false => return Err(Broken("a readable buffer follows a writable one")),
            };
            if !mem.check_range(addr, len as usize, access) {
                return Err(Broken("a buffer is not in RAM"));
            }
            list.push(Segment { gpa: addr.0, len });
        }
        if unfinished {
            return Err(Broken("a chain has a loop or leads nowhere"));
        }
        Ok(Some(Chain { head, readable: Buffer::new(readable), writable: Buffer::new(writable) }))
    }

    /// Puts the chain that was popped last back, to be popped again.
    pub(crate) fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back, `written` bytes of it written.
    pub(crate) fn push(&mut self, mem: &Dma, head: u16, written: u32) -> Result<(), Broken> {
        self.push_together(mem, &[(head, written)])
    }

    /// Gives chains back, each with how many bytes of it were written: the driver sees all of them or none, as it must where they
    /// are one packet (5.1.6.4.1).
    pub(crate) fn push_together(&mut self, mem: &Dma, chains: &[(u16, u32)]) -> Result<(), Broken> {
        const OUTSIDE: Broken = Broken("the used ring is not in RAM");
        let Some((&(last, last_written), before)) = chains.split_last() else { return Ok(()) };
        let size = self.queue.size().max(1);
        let mut next = self.queue.next_used();
        for &(head, written) in before {
            // 2.7.8: two words of flags and index, then elements of two words.
            let at = GuestAddress(self.queue.used_ring()).checked_add(4 + 8 * u64::from(next % size)).ok_or(OUTSIDE)?;
            let element = u64::from(head) | u64::from(written) << 32;
            mem.write_slice(&element.to_le_bytes(), at).map_err(|_| OUTSIDE)?;
            next = next.wrapping_add(1);
        }
        self.queue.set_next_used(next);
        self.queue.add_used(mem, last, last_written).map_err(|_| OUTSIDE)
    }

    /// Asks the driver to tell of what it makes available next; whether it has already made something available.
    pub(crate) fn rearm(&mut self, mem: &Dma) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        self.queue.enable_notification(mem).map_err(|_| Broken("the used ring is not in RAM"))
    }

    /// Whether the driver is to be told of the chains that were given back since the last call.
    pub(crate) fn take_signal(&mut self, mem: &Dma) -> Result<bool, Broken> {
        let now = self.queue.next_used();
        let new = now.wrapping_sub(std::mem::replace(&mut self.told, now));
        if new == 0 {
            return Ok(false);
        }
        // The driver looks at the index after it has said what it wants to be told of.
        fence(Ordering::SeqCst);
        if !self.queue.event_idx_enabled() {
            // 2.7.7: without event indices the driver suppresses interrupts by a flag.
            let flags: u16 = mem
                .load(GuestAddress(self.queue.avail_ring()), Ordering::Acquire)
                .map_err(|_| Broken("the available ring is not in RAM"))?;
            return Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        // 2.7.7: the driver wants to be told of the chain with this number, the event.
        let event = GuestAddress(self.queue.avail_ring()).checked_add(4 + 2 * u64::from(self.queue.size()));
        let event: u16 = event
            .and_then(|at| mem.load(at, Ordering::Relaxed).ok())
            .ok_or(Broken("the available ring is not in RAM"))?;
        Ok(now.wrapping_sub(u16::from_le(event)).wrapping_sub(1) < new)
    }

    pub(crate) fn save(&self) -> QueueData {
        let state = self.queue.state();
        QueueData {
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_idx: state.event_idx_enabled,
            size: state.size,
            ready: state.ready,
            desc_table: state.desc_table,
            avail_ring: state.avail_ring,
            used_ring: state.used_ring,
            told: self.told,
        }
    }

    /// The queue that `data` describes, if it is one of at most `max_size` chains.
    pub(crate) fn restore(max_size: u16, data: &QueueData) -> Option<Self> {
        let state = QueueState {
            max_size,
            next_avail: data.next_avail,
            next_used: data.next_used,
            event_idx_enabled: data.event_idx,
            size: data.size,
            ready: data.ready,
            desc_table: data.desc_table,
            avail_ring: data.avail_ring,
            used_ring: data.used_ring,
        };
        Some(VirtQueue { queue: Queue::try_from(state).ok()?, told: data.told })
    }
}

/// The three parts of a virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The descriptor table.
    Descriptors,
    /// The available ring.
    Available,
    /// The used ring.
    Used,
}
