//! What accesses to guest-physical pages reach: their RAM, other RAM, or a device.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::tlb::PAGE_SIZE;

/// Where reads (and fetches of instructions) or writes of a page go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To the RAM that is at the page's own address.
    Own,
    /// To the bus.
    Device,
    /// To the RAM or display memory at this guest-physical address, a multiple of the page size below 4 GiB, whatever is to be
    /// reached there.
    At(u64),
}

/// What accesses to a page reach. Where reads and writes are not both of one piece of RAM, no TLB lets writes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backing {
    /// Reads and fetches.
    pub read: Route,
    /// Writes. What is `At` an address must be so for reads too.
    pub write: Route,
}

impl Backing {
    /// The page's own RAM.
    pub const RAM: Backing = Backing { read: Route::Own, write: Route::Own };
    /// The page's own memory, which writes do not reach.
    pub const ROM: Backing = Backing { read: Route::Own, write: Route::Device };
    /// A device's registers.
    pub const DEVICE: Backing = Backing { read: Route::Device, write: Route::Device };

    /// That of what is `bytes` after a page with this backing.
    pub(crate) fn after(self, bytes: u64) -> Backing {
        let after = |route| match route {
            Route::At(at) => Route::At(at + bytes),
            route => route,
        };
        Backing { read: after(self.read), write: after(self.write) }
    }

    fn encode(self) -> u32 {
        let (read, at) = match self.read {
            Route::Own => (0, 0),
            Route::Device => (READ_DEVICE, 0),
            Route::At(at) => (READ_AT, at as u32 & !FLAGS),
        };
        let write = match self.write {
            Route::Own => 0,
            Route::At(_) if read == READ_AT => WRITE_AT,
            Route::Device | Route::At(_) => WRITE_DEVICE,
        };
        read | write | at
    }
}

/// In a page's word, besides the address that is read at.
const READ_DEVICE: u32 = 1 << 0;
const WRITE_DEVICE: u32 = 1 << 1;
const READ_AT: u32 = 1 << 2;
const WRITE_AT: u32 = 1 << 3;
const FLAGS: u32 = PAGE_SIZE as u32 - 1;

/// The backing of each page, by page number; beyond the table's end it is [`Backing::RAM`].
pub(crate) struct Backings(Box<[AtomicU32]>);

impl Backings {
    /// All RAM; a table of `pages` pages.
    pub(crate) fn new(pages: usize) -> Backings {
        // Zeroed memory, which the host gives as it is written.
        Backings(bytemuck::zeroed_slice_box(pages))
    }

    #[inline(always)]
    fn word(&self, gpa: u64) -> u32 {
        let index = usize::try_from(gpa / PAGE_SIZE).unwrap_or(usize::MAX);
        self.0.get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets the backing of the page of `gpa`; whether it was another.
    pub(crate) fn set(&self, gpa: u64, backing: Backing) -> bool {
        let index = usize::try_from(gpa / PAGE_SIZE).unwrap_or(usize::MAX);
        let new = backing.encode();
        self.0.get(index).is_some_and(|word| word.swap(new, Ordering::AcqRel) != new)
    }

    /// Where the RAM is that reads of `len` bytes at `gpa` reach; `None` if they reach something else, or more than one piece.
    #[inline(always)]
    pub(crate) fn read(&self, gpa: u64, len: u64) -> Option<u64> {
        self.find(gpa, len, READ_DEVICE, READ_AT)
    }

    /// As [`Backings::read`] for writes.
    #[inline(always)]
    pub(crate) fn write(&self, gpa: u64, len: u64) -> Option<u64> {
        self.find(gpa, len, WRITE_DEVICE, WRITE_AT)
    }

    #[inline(always)]
    fn find(&self, gpa: u64, len: u64, device: u32, at: u32) -> Option<u64> {
        let offset = gpa & (PAGE_SIZE - 1);
        if offset + len > PAGE_SIZE {
            return self.find_pages(gpa, len, device, at);
        }
        match self.word(gpa) {
            word if word & (device | at) == 0 => Some(gpa),
            word if word & at != 0 => Some(u64::from(word & !FLAGS) | offset),
            _ => None,
        }
    }

    /// An access to several pages is to one piece if what each of them reaches follows that of the one before.
    #[cold]
    fn find_pages(&self, gpa: u64, len: u64, device: u32, at: u32) -> Option<u64> {
        let last = gpa.checked_add(len)?.checked_sub(1)? / PAGE_SIZE;
        let found = self.find(gpa, 1, device, at)?;
        // What is beyond the table is RAM.
        let last = last.min(self.0.len() as u64);
        let follows = |page: u64| {
            let expected = (found & !(PAGE_SIZE - 1)).wrapping_add((page - gpa / PAGE_SIZE) * PAGE_SIZE);
            self.find(page * PAGE_SIZE, 1, device, at) == Some(expected)
        };
        (gpa / PAGE_SIZE..=last).all(follows).then_some(found)
    }

    /// Whether accesses to the page of `gpa` reach its own RAM.
    #[inline(always)]
    pub(crate) fn is_plain(&self, gpa: u64) -> bool {
        self.word(gpa) == 0
    }

    /// Whether reads and writes of the page of `gpa` reach the same RAM.
    #[inline(always)]
    pub(crate) fn is_one(&self, gpa: u64) -> bool {
        let word = self.word(gpa);
        word & (READ_DEVICE | WRITE_DEVICE) == 0 && (word & READ_AT != 0) == (word & WRITE_AT != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_page() {
        let backings = Backings::new(16);
        let other = Backing { read: Route::At(0x9000), write: Route::At(0x9000) };
        let shadow = Backing { read: Route::At(0x9000), write: Route::Own };
        let sink = Backing { read: Route::Device, write: Route::Own };
        for (page, backing) in [(1, Backing::ROM), (2, Backing::DEVICE), (3, other), (4, shadow), (5, sink)] {
            assert!(backings.set(page << 12, backing) && !backings.set(page << 12, backing));
        }
        let found = |page: u64| {
            let gpa = page << 12 | 0x10;
            (backings.read(gpa, 8), backings.write(gpa, 8), backings.is_one(gpa))
        };
        assert_eq!(found(0), (Some(0x10), Some(0x10), true));
        assert_eq!(found(1), (Some(0x1010), None, false));
        assert_eq!(found(2), (None, None, false));
        assert_eq!(found(3), (Some(0x9010), Some(0x9010), true));
        assert_eq!(found(4), (Some(0x9010), Some(0x4010), false));
        assert_eq!(found(5), (None, Some(0x5010), false));
        assert_eq!(found(99), (Some(99 << 12 | 0x10), Some(99 << 12 | 0x10), true), "beyond the table");
        assert!(!backings.set(99 << 12, Backing::ROM));
    }

    #[test]
    fn an_access_to_several_pages_needs_them_in_one_piece() {
        let backings = Backings::new(16);
        backings.set(0x2000, Backing::ROM);
        backings.set(0x4000, Backing { read: Route::At(0x8000), write: Route::Own });
        assert_eq!(backings.read(0x1ff8, 0x1010), Some(0x1ff8));
        assert_eq!(backings.write(0x1ff8, 0x10), None);
        assert_eq!(backings.read(0x3ff8, 0x10), None);
        assert_eq!(backings.write(0x3ff8, 0x10), Some(0x3ff8));
        assert_eq!(backings.read(0xf000, u64::MAX), None);
        assert_eq!(backings.read(0xf000, 1 << 60), Some(0xf000));
        let piece = |at| Backing { read: Route::At(at), write: Route::At(at) };
        for (page, at) in [(0x6000, 0xa000), (0x7000, 0xb000), (0x8000, 0xd000)] {
            backings.set(page, piece(at));
        }
        assert_eq!((backings.read(0x6ff8, 0x10), backings.write(0x6ff8, 0x1008)), (Some(0xaff8), Some(0xaff8)));
        assert_eq!((backings.read(0x7ff8, 0x10), backings.write(0x5ff8, 0x10)), (None, None));
    }
}
