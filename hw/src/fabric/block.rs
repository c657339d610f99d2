//! The jobs of a disk: the device's end of the way to the host side that does them.
//!
//! A device makes jobs by its [`BlockClient`], a controller's drives each by their own. A job has with it where its bytes are, so
//! whoever does it copies them by himself, without the device and whatever lock it is behind. What both sides hold of that is the
//! [`JobBuffer`], which is locked for the copy of one piece. A device that is reset calls its jobs off: it waits for the piece that
//! is under way, and nothing is copied after it. That waiting, and not a look at a generation before each copy, is what makes sure
//! that a driver which has seen the reset done has its memory for itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use mimus_softmmu::{Dma, DmaWatch};
use serde::{Deserialize, Serialize};
use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};

use super::lock::lock;
use crate::block::{BlockBackend, BlockOp};
use crate::buffer::{Buffer, Segment};

/// Where the bytes of a job are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Data {
    /// It moves none.
    None,
    /// The processor moves them, by way of this.
    Bytes(Vec<u8>),
    /// In guest RAM.
    Memory(Buffer),
}

impl Data {
    /// Bytes that there is room for.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Data::None => 0,
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Memory(buffer) => buffer.len(),
        }
    }

    fn has(&self, at: u64, count: usize) -> bool {
        at.checked_add(count as u64).is_some_and(|end| end <= self.len())
    }
}

/// Something for a [`BlockBackend`] to do.
#[derive(Clone, Debug)]
pub struct BlockJob {
    /// The device's name for it.
    pub token: u64,
    /// What.
    pub op: BlockOp,
    /// Where the bytes are.
    pub buffer: JobBuffer,
}

impl BlockJob {
    /// It is done, or has failed, once and for all. The device sees it when it is attended to, which is up to the caller:
    /// [`Virtio::attend`](crate::virtio::Virtio::attend), [`Function::attend`](crate::pci::Function::attend).
    pub fn finish(&self, ok: bool) {
        // Only the first one counts.
        let _ = self.buffer.0.outcome.set(ok);
    }

    /// Whether it went well, if it is over.
    pub fn outcome(&self) -> Option<bool> {
        self.buffer.0.outcome.get().copied()
    }
}

/// A job that somebody waited for is over.
pub(crate) struct Finished {
    pub(crate) token: u64,
    pub(crate) data: Data,
    pub(crate) ok: bool,
}

struct Shared {
    mem: Dma,
    /// Nobody waits for the job. Set before the lock is waited for, so that whoever copies piece after piece lets it go.
    off: AtomicBool,
    /// Whether it went well.
    outcome: OnceLock<bool>,
    /// Locked while a piece is copied.
    data: Mutex<Data>,
}

/// Where the bytes of a job are, as its device and the host side share it. Clones are the same buffer.
#[derive(Clone)]
pub struct JobBuffer(Arc<Shared>);

impl JobBuffer {
    pub(crate) fn new(mem: &Dma, data: Data) -> JobBuffer {
        let (mem, off, outcome) = (mem.clone(), AtomicBool::new(false), OnceLock::new());
        JobBuffer(Arc::new(Shared { mem, off, outcome, data: Mutex::new(data) }))
    }

    /// These parts of guest RAM, one behind the other: guest-physical address and bytes of each.
    pub fn of_ram(mem: &Dma, parts: &[(u64, u32)]) -> JobBuffer {
        let pieces = parts.iter().map(|&(gpa, len)| Segment { gpa, len }).collect();
        JobBuffer::new(mem, Data::Memory(Buffer::new(pieces)))
    }

    /// Whether nobody waits for the job any more: its device was reset.
    pub fn is_off(&self) -> bool {
        self.0.off.load(Ordering::Acquire)
    }

    /// What is behind the lock is whole whoever panicked.
    fn data(&self) -> MutexGuard<'_, Data> {
        lock(&self.0.data)
    }

    /// The bytes, while nobody calls the job off.
    fn hold(&self) -> Option<MutexGuard<'_, Data>> {
        if self.is_off() {
            return None;
        }
        let data = self.data();
        (!self.is_off()).then_some(data)
    }

    /// Calls the job off, and waits until the piece that is being copied is there.
    pub fn call_off(&self) {
        self.end();
    }

    /// The same; what the job was to move.
    fn end(&self) -> Data {
        self.0.off.store(true, Ordering::Release);
        std::mem::replace(&mut *self.data(), Data::None)
    }

    /// Where in guest RAM bytes `at..at + count` go, to be written to by the host itself. `None` when the job is off, or they are
    /// not in guest RAM.
    pub fn target(&self, at: u64, count: usize) -> Option<DmaTarget<'_>> {
        let held = self.hold()?;
        let Data::Memory(buffer) = &*held else { return None };
        let parts = buffer.parts_of(at, count)?;
        Some(DmaTarget { mem: &self.0.mem, parts, _held: held })
    }

    /// Brings bytes `at..`, which were read from the medium. False when the job is off.
    pub fn fill(&self, at: u64, bytes: &[u8]) -> bool {
        let Some(mut data) = self.hold().filter(|data| data.has(at, bytes.len())) else { return false };
        match &mut *data {
            Data::None => bytes.is_empty(),
            Data::Memory(buffer) => buffer.write(&self.0.mem, at, bytes) == bytes.len(),
            Data::Bytes(room) => {
                let room = room.get_mut(at as usize..).and_then(|room| room.get_mut(..bytes.len()));
                room.map(|room| room.copy_from_slice(bytes)).is_some()
            }
        }
    }

    /// Copies bytes `at..`, which are to be written to the medium. False when the job is off.
    pub fn take(&self, at: u64, out: &mut [u8]) -> bool {
        let Some(data) = self.hold().filter(|data| data.has(at, out.len())) else { return false };
        match &*data {
            Data::None => out.is_empty(),
            Data::Memory(buffer) => buffer.read(&self.0.mem, at, out) == out.len(),
            Data::Bytes(bytes) => {
                let bytes = bytes.get(at as usize..).and_then(|bytes| bytes.get(..out.len()));
                bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
            }
        }
    }
}

impl std::fmt::Debug for JobBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobBuffer").field("off", &self.is_off()).finish_non_exhaustive()
    }
}

/// Where in guest RAM a piece of what is read goes. As long as this is there, whoever calls the job off waits.
pub struct DmaTarget<'a> {
    mem: &'a Dma,
    parts: Vec<(u64, usize)>,
    _held: MutexGuard<'a, Data>,
}

impl DmaTarget<'_> {
    /// The parts in their order. Whoever writes to one behind its back marks it dirty afterwards. `None` if any of it is not RAM.
    pub fn slices(&self) -> Option<Vec<VolatileSlice<'_, DmaWatch<'_>>>> {
        let slice = |&(gpa, len): &(u64, usize)| {
            let mut slices = self.mem.get_slices(GuestAddress(gpa), len, Permissions::Write).ok()?;
            slices.next()?.ok()
        };
        self.parts.iter().map(slice).collect()
    }
}

impl std::fmt::Debug for DmaTarget<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmaTarget").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// The handle of a disk: what it has its jobs done by. Without a host side, as a drive without a medium, there is room for none.
pub(crate) struct BlockClient {
    mem: Dma,
    backend: Option<Box<dyn BlockBackend>>,
    /// The most jobs that may be under way.
    most: usize,
    /// Never used twice, not even after a reset: the host side may be late.
    last_token: u64,
    /// What the host side has, and what of that is over, those included that are off: a driver must not make them more and more by
    /// resetting.
    jobs: Vec<(u64, JobBuffer)>,
}

impl BlockClient {
    /// A client of `backend`, to which no more than `most` jobs are given at once, on guest RAM as `mem` has it.
    pub(crate) fn new(mem: Dma, backend: Option<Box<dyn BlockBackend>>, most: usize) -> BlockClient {
        BlockClient { mem, backend, most, last_token: 0, jobs: Vec::new() }
    }

    /// Has another host side do what comes from now on. What the former one has it still does.
    pub(crate) fn connect(&mut self, backend: Option<Box<dyn BlockBackend>>) {
        self.backend = backend;
    }

    /// Whether another job may be made.
    pub(crate) fn has_room(&self) -> bool {
        self.backend.is_some() && self.jobs.len() < self.most
    }

    /// Has `op` done on `data`; the job's token.
    pub(crate) fn submit(&mut self, op: BlockOp, data: Data) -> u64 {
        self.last_token += 1;
        let (token, buffer) = (self.last_token, JobBuffer::new(&self.mem, data));
        if let Some(backend) = &mut self.backend {
            self.jobs.push((token, buffer.clone()));
            backend.submit(BlockJob { token, op, buffer });
        }
        token
    }

    /// Calls job `token` off: none of its bytes are touched any more.
    pub(crate) fn cancel(&mut self, token: u64) {
        self.jobs.iter().filter(|(job, _)| *job == token).for_each(|(_, buffer)| buffer.call_off());
    }

    /// Calls all jobs off.
    pub(crate) fn cancel_all(&mut self) {
        self.jobs.iter().for_each(|(_, buffer)| buffer.call_off());
    }

    /// The next job that is over, of those that somebody waits for.
    pub(crate) fn next_finished(&mut self) -> Option<Finished> {
        loop {
            let index = self.jobs.iter().position(|(_, buffer)| buffer.0.outcome.get().is_some())?;
            let (token, buffer) = self.jobs.remove(index);
            let ok = buffer.0.outcome.get().copied().unwrap_or(false);
            if !buffer.is_off() {
                return Some(Finished { token, data: buffer.end(), ok });
            }
        }
    }
}

#[cfg(test)]
mod tests;
