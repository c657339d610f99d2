//! Memory for code: one file mapped twice, writable at one place and executable at another.
//!
//! The file is cut into generations of equal size. Translations are allocated in the current one; when it is full,
//! [`Arena::rotate`] goes on in a free one and names the oldest other to be evicted. The size given at the start is a
//! hard bound.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap_fixed, munmap,
};

use crate::compile::CODE_ALIGN;
use crate::error::BackendError;
use crate::exec::HostAddr;
use crate::icache;

/// Unit of mapping, in bytes: the largest page size of the hosts.
const GRANULE: usize = 64 << 10;

/// Bytes written after which the writable mapping's pages are let go of.
const RELEASE: usize = 1 << 20;

/// Generations an arena is cut into unless told otherwise.
const GENERATIONS: u32 = 8;

/// One use of one part of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Generation {
    index: u32,
    /// How often the part had been freed before.
    epoch: u32,
}

impl Generation {
    /// Number of the part, below [`Arena::generations`]: for tables with a row a part.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Memory allocated and not yet written.
#[derive(Debug)]
pub struct Allocation {
    generation: Generation,
    offset: usize,
    len: usize,
}

impl Allocation {
    /// The generation it lies in.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// What became of [`Arena::rotate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// Allocation goes on in a free generation, and there is another one for the next time.
    Ready,
    /// Allocation goes on in the last free generation. This one must be evicted meanwhile: unlink what lies in it,
    /// wait for every vCPU to pass its dispatcher, then [`Arena::free`] it.
    Evict(Generation),
    /// No generation is free: the one named by the last [`Rotation::Evict`] must be freed first.
    Blocked,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Current,
    Full,
    Evicting,
}

#[derive(Debug)]
struct Part {
    state: State,
    epoch: u32,
    start: usize,
    used: usize,
}

/// The code arena. It takes no lock: callers do, while other threads execute what was published.
#[derive(Debug)]
pub struct Arena {
    written: NonNull<u8>,
    executed: NonNull<u8>,
    len: usize,
    /// Bytes written since the writable mapping was last let go of.
    unreleased: usize,
    part_len: usize,
    parts: Vec<Part>,
    current: u32,
    /// Full parts, the oldest first. What is in use is copied out of an evicted part, and is among the newest then.
    order: VecDeque<u32>,
}

// SAFETY: the pointers are to mappings that the arena owns alone and that are not bound to a thread.
unsafe impl Send for Arena {}

impl Arena {
    /// An arena of at most `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`BackendError::ArenaTooSmall`] below 512 KiB; [`BackendError::Memory`] if the system refuses.
    pub fn new(bytes: usize) -> Result<Arena, BackendError> {
        Arena::with_generations(bytes, GENERATIONS)
    }

    /// An arena cut into `generations` generations, at least 3: one current, one free, one to evict.
    ///
    /// # Errors
    ///
    /// As for [`Arena::new`]; each generation takes a multiple of 64 KiB.
    pub fn with_generations(bytes: usize, generations: u32) -> Result<Arena, BackendError> {
        let generations = generations.max(3);
        let part_len = bytes / generations as usize / GRANULE * GRANULE;
        if part_len == 0 {
            return Err(BackendError::ArenaTooSmall(bytes));
        }
        let len = part_len * generations as usize;
        let (written, executed) = map_twice(len).map_err(|e| BackendError::Memory(e.into()))?;
        icache::register();
        let mut parts: Vec<Part> = (0..generations as usize)
            .map(|i| Part { state: State::Free, epoch: 0, start: i * part_len, used: 0 })
            .collect();
        parts[0].state = State::Current;
        Ok(Arena {
            written,
            executed,
            len,
            unreleased: 0,
            part_len,
            parts,
            current: 0,
            order: VecDeque::with_capacity(generations as usize),
        })
    }

    /// Bytes mapped: the bound.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Number of generations.
    pub fn generations(&self) -> usize {
        self.parts.len()
    }

    /// The longest piece of code that fits a generation, in bytes.
    pub fn max_len(&self) -> usize {
        self.part_len
    }

    /// Bytes allocated in all generations.
    pub fn used(&self) -> usize {
        self.parts.iter().map(|p| p.used).sum()
    }

    /// The generation allocated in.
    pub fn current(&self) -> Generation {
        self.generation(self.current)
    }

    fn generation(&self, index: u32) -> Generation {
        Generation { index, epoch: self.parts[index as usize].epoch }
    }

    /// The part of a generation that was not freed yet.
    fn part(&mut self, generation: Generation) -> Option<&mut Part> {
        self.parts.get_mut(generation.index()).filter(|p| p.epoch == generation.epoch && p.state != State::Free)
    }

    /// Memory for `len` bytes of code in the current generation; `None` when it is full.
    pub fn alloc(&mut self, len: usize) -> Option<Allocation> {
        let generation = self.current();
        let part_len = self.part_len;
        let part = &mut self.parts[self.current as usize];
        let end = part.used.checked_add(len.checked_next_multiple_of(CODE_ALIGN as usize)?)?;
        if end > part_len {
            return None;
        }
        let offset = part.start + part.used;
        part.used = end;
        Some(Allocation { generation, offset, len })
    }

    /// Writes code into its allocation and returns where it can be executed.
    ///
    /// # Panics
    ///
    /// If `code` is longer than the allocation, or the allocation's generation was freed meanwhile: the caller's bug, which
    /// would overwrite code that runs.
    pub fn publish(&mut self, allocation: Allocation, code: &[u8]) -> HostAddr {
        assert!(code.len() <= allocation.len, "code of {} bytes in an allocation of {}", code.len(), allocation.len);
        assert!(self.part(allocation.generation).is_some(), "allocation in a freed generation");
        self.write(allocation.offset, code)
    }

    /// Writes what was published at `from` into an allocation as well, and returns where it can be executed there. `None` if the
    /// bytes at `from` are not those of a generation that still holds them.
    ///
    /// # Panics
    ///
    /// As for [`Arena::publish`]; the code is as long as the allocation.
    pub fn republish(&mut self, allocation: Allocation, from: HostAddr) -> Option<HostAddr> {
        let start = usize::try_from(from.0.checked_sub(self.executed.as_ptr() as u64)?).ok()?;
        let end = start.checked_add(allocation.len)?;
        let held = |p: &Part| p.state != State::Free && start >= p.start && end <= p.start + p.used;
        if !self.parts.iter().any(held) {
            return None;
        }
        // SAFETY: within the writable mapping, by `held`; only `write` changes these bytes, through `&mut self`.
        let code = unsafe { std::slice::from_raw_parts(self.written.as_ptr().add(start), allocation.len) }.to_vec();
        Some(self.publish(allocation, &code))
    }

    /// The generation that the next [`Arena::rotate`] names for eviction, if it names one and what is being evicted now is
    /// freed before.
    pub fn next_victim(&self) -> Option<Generation> {
        let available = self.parts.iter().filter(|p| matches!(p.state, State::Free | State::Evicting)).count();
        let oldest = self.order.front().filter(|_| available <= 1)?;
        Some(self.generation(*oldest))
    }

    fn write(&mut self, offset: usize, code: &[u8]) -> HostAddr {
        assert!(offset + code.len() <= self.len);
        // SAFETY: `offset..offset + code.len()` lies within both mappings (checked above), which live as long as
        // `self`. No one executes it: it was allocated since its part was last freed, and `Arena::free` has its
        // caller promise that nothing there runs any more. No reference to the mappings is ever made.
        unsafe {
            let written = self.written.as_ptr().add(offset);
            let executed = self.executed.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(code.as_ptr(), written, code.len());
            icache::sync(written, executed, code.len());
            self.unreleased += code.len();
            if self.unreleased >= RELEASE {
                self.release();
            }
            HostAddr(executed as u64)
        }
    }

    /// Lets go of the pages of the writable mapping, which are in memory, and counted, a second time: hardly any is written
    /// again. They are there still, in the file.
    fn release(&mut self) {
        self.unreleased = 0;
        // SAFETY: the whole of a shared mapping that `self` owns, whose contents the file keeps.
        let released = unsafe {
            use rustix::mm::{Advice, madvise};
            madvise(self.written.as_ptr().cast(), self.len, Advice::LinuxDontNeed)
        };
        // It only costs memory.
        let _ = released;
    }

    /// Goes on allocating in a free generation.
    pub fn rotate(&mut self) -> Rotation {
        let mut free = (0..self.parts.len() as u32).filter(|&i| self.parts[i as usize].state == State::Free);
        let Some(next) = free.next() else { return Rotation::Blocked };
        let another = free.next().is_some();
        self.parts[self.current as usize].state = State::Full;
        self.order.push_back(self.current);
        self.parts[next as usize].state = State::Current;
        self.current = next;
        if another {
            return Rotation::Ready;
        }
        match self.order.pop_front() {
            Some(victim) => {
                self.parts[victim as usize].state = State::Evicting;
                Rotation::Evict(self.generation(victim))
            }
            None => Rotation::Ready,
        }
    }

    /// Makes the memory of an evicted generation available again. Does nothing for one that is not being evicted.
    ///
    /// # Safety
    ///
    /// No link slot, jump cache entry or table leads into the generation, and since none did, every vCPU has been in
    /// its dispatcher: no thread executes its code now or ever after.
    pub unsafe fn free(&mut self, generation: Generation) {
        let Some(part) = self.part(generation).filter(|p| p.state == State::Evicting) else { return };
        part.state = State::Free;
        part.epoch = part.epoch.wrapping_add(1);
        part.used = 0;
        icache::sync_all_threads();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: both mappings were made by `map_twice` with this length and are owned by `self`; who still runs
        // code breaks the contract of `enter`.
        unsafe {
            let _ = munmap(self.written.as_ptr().cast(), self.len);
            let _ = munmap(self.executed.as_ptr().cast(), self.len);
        }
    }
}

/// Maps the same memory twice: writable, and executable. Nobody who knows where one is knows where the other is.
fn map_twice(len: usize) -> rustix::io::Result<(NonNull<u8>, NonNull<u8>)> {
    let (written, executed) = match map_file_twice(len) {
        // The process may not have files that large (RLIMIT_FSIZE), not even in memory.
        Err(Errno::FBIG) => map_shared_twice(len)?,
        result => result?,
    };
    let pointer = |p: *mut c_void| NonNull::new(p.cast()).ok_or(Errno::NOMEM);
    Ok((pointer(written)?, pointer(executed)?))
}

/// An address to map something at, if there is room: any page of the lower half of 46 bits.
fn somewhere() -> *mut c_void {
    let mut bytes = [0; 8];
    // Without random numbers it is where the kernel puts it.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let address = u64::from_ne_bytes(bytes) & 0x3fff_ffff_0000;
    std::ptr::without_provenance_mut(address as usize)
}

fn map_file_twice(len: usize) -> rustix::io::Result<(*mut c_void, *mut c_void)> {
    let flags = MemfdFlags::CLOEXEC;
    // Kernels before 6.3 do not know the flag and allow execution anyway.
    let file = memfd_create("mimus-code", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("mimus-code", flags))?;
    ftruncate(&file, len as u64)?;
    let map = |hint, protection| {
        // SAFETY: a new mapping at an address of the kernel's choice, for which the hint is no more than that, overlaps nothing.
        unsafe { mmap(hint, len, protection, MapFlags::SHARED, &file, 0) }
    };
    let executed = map(std::ptr::null_mut(), ProtFlags::READ | ProtFlags::EXEC)?;
    let written = map(somewhere(), ProtFlags::READ | ProtFlags::WRITE).inspect_err(|_| unmap(executed, len))?;
    Ok((written, executed))
}

/// The same without a file: mremap(2) maps what is shared again when it is told an old size of 0.
fn map_shared_twice(len: usize) -> rustix::io::Result<(*mut c_void, *mut c_void)> {
    let map = |hint, protection, flags| {
        // SAFETY: as above.
        unsafe { mmap_anonymous(hint, len, protection, flags) }
    };
    let executed = map(std::ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
    let written = map(somewhere(), ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)
        .inspect_err(|_| unmap(executed, len))?;
    // SAFETY: what is replaced was reserved for it just now, and neither mapping is used yet.
    let result = unsafe {
        mremap_fixed(executed, 0, len, MremapFlags::MAYMOVE, written)
            .and_then(|_| mprotect(executed, len, MprotectFlags::READ | MprotectFlags::EXEC))
    };
    result.inspect_err(|_| [executed, written].into_iter().for_each(|at| unmap(at, len)))?;
    Ok((written, executed))
}

/// Undoes a mapping of this file that nobody has seen.
fn unmap(at: *mut c_void, len: usize) {
    // SAFETY: mapped just now and not used yet.
    let _ = unsafe { munmap(at, len) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_map_the_same_memory_far_apart() {
        let len = 1 << 20;
        for map in [map_file_twice, map_shared_twice] {
            let (written, executed) = map(len).unwrap();
            assert!(written.addr().abs_diff(executed.addr()) > 64 * len, "{written:?} {executed:?}");
            let (first, last) = (written.cast::<u8>(), executed.cast::<u8>());
            // SAFETY: both are mappings of this length, which nobody else uses.
            let read = unsafe {
                first.add(len - 1).write_volatile(7);
                last.add(len - 1).read_volatile()
            };
            assert_eq!(read, 7);
            unmap(written, len);
            unmap(executed, len);
        }
    }
}
