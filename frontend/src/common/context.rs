//! Numbers for what is known of code by its virtual address alone: jump caches, the dispatcher's caches.
//!
//! A *context* is everything beside the address that decides which block is there: the mode, the base and limit of the code
//! segment where a guest has one, and how addresses are translated. What was found in a context may be followed while the
//! context has its number. A number is never given twice, so nothing has to be searched for when a context ends.
//!
//! **Translations.** What was fetched through global pages only, in a mode, holds in every address space until they are
//! flushed (SDM vol. 3A, 4.10.4.1: MOV to CR3 does not invalidate global translations; likewise a write to RISC-V's satp): the
//! kernel's context outlives a switch of processes. A context in which a page was fetched that is not global belongs to its
//! address space's present generation ([`Mmu::space_generation`](mimus_softmmu::Mmu::space_generation)).

use mimus_softmmu::PageFilter;

/// What identifies a context beside translations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ContextKey {
    /// The guest's mode bits.
    pub mode: u32,
    /// Base and limit of the code segment; 0 where it is flat or there is none.
    pub code: (u64, u32),
}

#[derive(Clone, Copy, Debug, Default)]
struct Context {
    place: ContextKey,
    /// [`Contexts::epoch`] in which it holds; 0 for a free entry.
    epoch: u64,
    /// Address space generation that it is bound to; 0 as long as only global pages were fetched in it.
    space: u64,
    number: u64,
}

/// Contexts remembered: modes times address spaces.
const KNOWN: usize = 32;

/// Modes between which a guest goes to and fro, each with the context that it had last.
const RECENT: usize = 8;

/// The contexts of a vCPU.
#[derive(Debug)]
pub struct Contexts {
    known: [Context; KNOWN],
    current: usize,
    recent: [usize; RECENT],
    /// Where the next one goes.
    next: usize,
    epoch: u64,
    last: u64,
    /// Global pages fetched from since `epoch` began.
    global: PageFilter,
    /// The others, in whichever address space, since the contexts that are bound to one were last ended.
    private: PageFilter,
}

impl Default for Contexts {
    fn default() -> Self {
        let known = [Context::default(); KNOWN];
        let (global, private) = Default::default();
        Contexts { known, current: 0, recent: [0; RECENT], next: 0, epoch: 1, last: 0, global, private }
    }
}

impl Contexts {
    /// Number of the current context; 0 before the first.
    pub fn number(&self) -> u64 {
        self.known[self.current].number
    }

    /// Whether the current context belongs to its address space alone.
    pub(crate) fn bound(&self) -> bool {
        self.known[self.current].space != 0
    }

    /// Makes the context of `place` in address space generation `space` the current one.
    #[inline]
    pub(crate) fn select(&mut self, place: ContextKey, space: u64) {
        if !self.holds(self.current, place, space) {
            let mode = place.mode;
            let recent = (mode ^ mode >> 13 ^ mode >> 15) as usize % RECENT;
            self.current = self.recent[recent];
            if !self.holds(self.current, place, space) {
                self.current = self.find(place, space);
                self.recent[recent] = self.current;
            }
        }
    }

    /// Whether known context `at` is that of `place` and may be used in `space`: it is bound to it or to none.
    fn holds(&self, at: usize, place: ContextKey, space: u64) -> bool {
        let known = &self.known[at];
        known.place == place && known.epoch == self.epoch && (known.space == space || known.space == 0)
    }

    fn find(&mut self, place: ContextKey, space: u64) -> usize {
        if let Some(found) = (0..KNOWN).find(|&at| self.holds(at, place, space)) {
            return found;
        }
        let at = self.next;
        self.next = (at + 1) % KNOWN;
        self.last += 1;
        self.known[at] = Context { place, epoch: self.epoch, space: 0, number: self.last };
        at
    }

    /// Notes that the page of 2^`shift` bytes at `addr` was fetched from in the current context; `space` is the generation of
    /// the address space it belongs to, 0 for a global page. Whether that bound the context.
    pub(crate) fn fetched(&mut self, addr: u64, shift: u32, space: u64) -> bool {
        if space == 0 { &mut self.global } else { &mut self.private }.insert(addr, shift);
        let binds = space != 0 && !self.bound();
        if binds {
            self.known[self.current].space = space;
        }
        binds
    }

    /// Ends the contexts that may know something about the page of `addr`, whose translations were flushed in every address
    /// space; whether there were any, so that the current one is to be selected anew.
    pub(crate) fn flush_page(&mut self, addr: u64) -> bool {
        if self.global.may_contain(addr) {
            self.end_all();
            return true;
        }
        let known = self.private.may_contain(addr);
        if known {
            // The kernel's, which knows of global pages only, goes on.
            self.known.iter_mut().filter(|known| known.space != 0).for_each(|known| known.epoch = 0);
            self.private.clear();
        }
        known
    }

    /// Ends every context; the current one is to be selected anew.
    pub(crate) fn end_all(&mut self) {
        self.epoch += 1;
        self.global.clear();
        self.private.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: ContextKey = ContextKey { mode: 2, code: (0, 0) };
    const USER: ContextKey = ContextKey { mode: 2 | 3 << 16, code: (0, 0) };

    fn number(contexts: &mut Contexts, place: ContextKey, space: u64) -> u64 {
        contexts.select(place, space);
        contexts.number()
    }

    #[test]
    fn global_code_keeps_its_number_in_every_space_and_other_code_has_one_for_each() {
        let mut c = Contexts::default();
        let kernel = number(&mut c, KERNEL, 1);
        c.fetched(0xffff_8000_0000_0000, 21, 0);
        let user = number(&mut c, USER, 1);
        c.fetched(0x40_0000, 12, 1);
        assert_ne!(kernel, user);
        assert_eq!(number(&mut c, KERNEL, 2), kernel);
        let other = number(&mut c, USER, 2);
        assert!(![kernel, user].contains(&other));
        c.fetched(0x40_0000, 12, 2);
        assert_eq!([number(&mut c, USER, 1), number(&mut c, USER, 2)], [user, other], "both spaces are remembered");
        assert!(![kernel, user, other].contains(&number(&mut c, USER, 3)), "a flushed space has another generation");
    }

    #[test]
    fn kernel_code_that_is_not_global_is_bound_to_its_space() {
        let mut c = Contexts::default();
        let first = number(&mut c, KERNEL, 1);
        c.fetched(0xffff_8000_0000_0000, 21, 0);
        c.fetched(0x1000, 12, 1);
        let second = number(&mut c, KERNEL, 2);
        assert_ne!(first, second);
        c.fetched(0x1000, 12, 2);
        assert_eq!([number(&mut c, KERNEL, 1), number(&mut c, KERNEL, 2)], [first, second]);
    }

    #[test]
    fn flushing_a_page_ends_those_that_may_know_it() {
        let mut c = Contexts::default();
        let kernel = number(&mut c, KERNEL, 1);
        c.fetched(0xffff_8000_0000_0000, 21, 0);
        let user = number(&mut c, USER, 1);
        c.fetched(0x40_0000, 12, 1);
        let other = number(&mut c, USER, 2);
        c.fetched(0x50_0000, 12, 2);
        assert!(!c.flush_page(0x40_1000) && !c.flush_page(0xffff_8000_0020_0000));
        assert!(c.flush_page(0x40_0fff), "in any address space");
        assert!(number(&mut c, USER, 1) > user && number(&mut c, USER, 2) > other);
        assert_eq!(number(&mut c, KERNEL, 1), kernel);
        assert!(!c.flush_page(0x40_0000), "nobody has fetched from it since");
        assert!(c.flush_page(0xffff_8000_001f_f000));
        assert!(number(&mut c, KERNEL, 1) > kernel);
    }

    #[test]
    fn ending_all_and_forgetting_the_oldest_give_new_numbers() {
        let mut c = Contexts::default();
        let first = number(&mut c, KERNEL, 1);
        c.fetched(0x1000, 12, 0);
        c.end_all();
        let second = number(&mut c, KERNEL, 1);
        assert!(second > first);
        for mode in 0..KNOWN as u32 {
            number(&mut c, ContextKey { mode: mode << 24, code: (0, 0) }, 1);
        }
        assert!(number(&mut c, KERNEL, 1) > second, "pushed out: never the old number");
        let segment = ContextKey { code: (0x1000, 0xffff), ..KERNEL };
        assert_ne!(number(&mut c, segment, 1), number(&mut c, ContextKey { code: (0x1000, 0xfff), ..KERNEL }, 1));
    }
}
