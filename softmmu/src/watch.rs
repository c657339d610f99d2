//! Watchpoints on data: ranges of guest virtual addresses whose accesses a debugger, or the guest's own debug registers, want
//! to hear of.
//!
//! A page with a watchpoint is never in the TLB, so that every access to it takes the slow path, which looks here. Code that runs
//! many instructions at once cannot stop right behind one of them: it has the access refused, and whoever drives the vCPU then
//! executes that instruction by itself, where the access is made and noted.

use crate::tlb::PAGE_SIZE;

/// Whose a watchpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchOwner {
    /// A debugger's outside of the machine.
    Debugger,
    /// The guest's: one of its debug registers.
    Guest,
}

/// A watched range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// First guest virtual address.
    pub addr: u64,
    /// Bytes; at least 1.
    pub len: u64,
    /// Loads count.
    pub read: bool,
    /// Stores count.
    pub write: bool,
    /// Whose it is.
    pub owner: WatchOwner,
    /// What it is to its owner.
    pub tag: u32,
}

/// An access to a watched range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchHit {
    /// The watchpoint.
    pub watch: Watch,
    /// Whether it was a store.
    pub write: bool,
}

/// Hits remembered between two looks: an instruction makes few accesses, and one is enough to stop.
const HITS: usize = 8;

/// The watchpoints of one vCPU.
#[derive(Debug, Default)]
pub struct Watches {
    list: Vec<Watch>,
    hits: Vec<WatchHit>,
    /// Accesses to watched ranges are to be refused: more than one instruction is being run.
    pub refuse: bool,
}

impl Watches {
    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn list(&self) -> &[Watch] {
        &self.list
    }

    pub(crate) fn set(&mut self, owner: WatchOwner, list: Vec<Watch>) {
        self.list.retain(|watch| watch.owner != owner);
        self.list.extend(list);
        self.hits.retain(|hit| hit.watch.owner != owner);
    }

    /// Whether the page of `addr` has a watchpoint.
    pub(crate) fn on_page(&self, addr: u64) -> bool {
        let page = addr & !(PAGE_SIZE - 1);
        // Ranges may end at the top of the address space: no sum is made that could wrap.
        self.list.iter().any(|w| {
            let last = w.addr.saturating_add(w.len.saturating_sub(1));
            w.addr & !(PAGE_SIZE - 1) <= page && page <= last
        })
    }

    /// Notes an access of `size` bytes; whether it is to be refused, in which case it is not noted.
    pub(crate) fn access(&mut self, addr: u64, size: u64, write: bool) -> bool {
        let hit = |w: &&Watch| {
            let wanted = if write { w.write } else { w.read };
            wanted && (addr.wrapping_sub(w.addr) < w.len || w.addr.wrapping_sub(addr) < size)
        };
        if self.refuse {
            return self.list.iter().any(|w| hit(&w));
        }
        for &watch in self.list.iter().filter(hit) {
            if self.hits.len() < HITS {
                self.hits.push(WatchHit { watch, write });
            }
        }
        false
    }

    /// The hits of an owner's watchpoints since the last call.
    pub fn take_hits(&mut self, owner: WatchOwner) -> Vec<WatchHit> {
        self.hits.extract_if(.., |hit| hit.watch.owner == owner).collect()
    }

    /// Whether there are hits, of any owner.
    #[inline]
    pub fn has_hits(&self) -> bool {
        !self.hits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(addr: u64, len: u64) -> Watches {
        let mut watches = Watches::default();
        let owner = WatchOwner::Debugger;
        watches.set(owner, vec![Watch { addr, len, read: false, write: true, owner, tag: 7 }]);
        watches
    }

    #[test]
    fn accesses_that_touch_a_byte_hit() {
        for (addr, size, expected) in
            [(0xffc, 4, false), (0xffd, 4, true), (0x1003, 1, true), (0x1004, 1, false), (0xff0, 64, true)]
        {
            let mut watches = one(0x1000, 4);
            assert!(!watches.access(addr, size, true));
            assert_eq!(watches.has_hits(), expected, "{addr:#x} {size}");
            assert!(!watches.access(addr, size, false));
            assert_eq!(watches.take_hits(WatchOwner::Guest), []);
            assert_eq!(watches.take_hits(WatchOwner::Debugger).len(), usize::from(expected));
        }
    }

    #[test]
    fn refused_accesses_are_not_noted() {
        let mut watches = one(u64::MAX - 3, 4);
        watches.refuse = true;
        assert!(watches.access(u64::MAX, 1, true));
        assert!(!watches.access(0x2000, 1, true) && !watches.has_hits());
    }

    #[test]
    fn pages_between_are_watched_and_those_beside_are_not() {
        let watches = one(0x1fff, 0x1002);
        let watched: Vec<u64> = (0..5).filter(|page| watches.on_page(page << 12)).collect();
        assert_eq!(watched, [1, 2, 3]);
        assert!(one(u64::MAX - 3, 4).on_page(u64::MAX) && !one(u64::MAX - 3, 4).on_page(0));
    }
}
