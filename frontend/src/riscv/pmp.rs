//! Physical memory protection (vol. II, "Physical Memory Protection"), with a granularity of 4 KiB: a region is some whole
//! pages, so that a page has one permission.

use mimus_softmmu::Access;

use super::state::{PMP_ENTRIES, State, privilege};

/// The manual's G: regions are multiples of 2^(G + 2) bytes.
const G: u32 = 10;

/// Bits of a configuration byte.
mod cfg {
    pub const R: u8 = 1 << 0;
    pub const W: u8 = 1 << 1;
    pub const X: u8 = 1 << 2;
    pub const A: u8 = 3 << 3;
    pub const TOR: u8 = 1 << 3;
    pub const NA4: u8 = 2 << 3;
    pub const NAPOT: u8 = 3 << 3;
    pub const L: u8 = 1 << 7;
}

/// Bits of pmpaddr that exist: address bits 2 to 55.
const ADDRESS: u64 = (1 << 54) - 1;

impl State {
    /// Whether entry `i` is locked, itself or as the lower bound of the next.
    fn pmp_locked(&self, i: usize) -> bool {
        let next = self.pmpcfg.get(i + 1).is_some_and(|c| c & (cfg::L | cfg::A) == cfg::L | cfg::TOR);
        self.pmpcfg[i] & cfg::L != 0 || next
    }

    /// pmpcfg of the eight entries from `first` on.
    pub(crate) fn read_pmpcfg(&self, first: usize) -> u64 {
        let bytes = self.pmpcfg.iter().skip(first).take(8);
        bytes.zip(0..).fold(0, |value, (&byte, i)| value | u64::from(byte) << (8 * i))
    }

    /// Writes it; locked entries stay as they are. NA4 cannot be chosen with this granularity: it is taken for NAPOT.
    pub(crate) fn write_pmpcfg(&mut self, first: usize, value: u64) {
        for (byte, i) in self.pmpcfg.iter_mut().skip(first).take(8).zip(0..) {
            let mut new = (value >> (8 * i)) as u8 & (cfg::R | cfg::W | cfg::X | cfg::A | cfg::L);
            if new & (cfg::R | cfg::W) == cfg::W {
                new &= !cfg::W;
            }
            if new & cfg::A == cfg::NA4 {
                new |= cfg::NAPOT;
            }
            if *byte & cfg::L == 0 {
                *byte = new;
            }
        }
    }

    /// pmpaddr of entry `i`: which of the bits below the granularity read as what depends on its mode.
    pub(crate) fn read_pmpaddr(&self, i: usize) -> u64 {
        let Some(&value) = self.pmpaddr.get(i) else { return 0 };
        if self.pmpcfg[i] & cfg::A == cfg::NAPOT { value | ((1 << (G - 1)) - 1) } else { value & !((1 << G) - 1) }
    }

    /// Writes it, unless it is locked.
    pub(crate) fn write_pmpaddr(&mut self, i: usize, value: u64) {
        if i < PMP_ENTRIES && !self.pmp_locked(i) {
            self.pmpaddr[i] = value & ADDRESS;
        }
    }

    /// First and last page number of an entry's region, if it has one.
    fn pmp_region(&self, i: usize) -> Option<(u64, u64)> {
        let pages = |address: u64| address >> G;
        match self.pmpcfg[i] & cfg::A {
            cfg::TOR => {
                let from = if i == 0 { 0 } else { pages(self.pmpaddr[i - 1]) };
                Some((from, pages(self.pmpaddr[i]).checked_sub(1)?)).filter(|(from, last)| from <= last)
            }
            cfg::NAPOT => {
                let address = self.read_pmpaddr(i);
                // The ones at the end, and the zero above them, are not part of the base.
                let size = 1u64 << (address.trailing_ones() + 1).min(63);
                let base = address & !(size - 1);
                Some((pages(base), pages(base) + (pages(size) - 1)))
            }
            _ => None,
        }
    }

    /// Whether `access` with `level`'s privilege is allowed to the page at physical address `gpa`: the first entry whose region
    /// has the page decides.
    pub(crate) fn pmp_allows(&self, gpa: u64, access: Access, level: u64) -> bool {
        let page = gpa >> 12;
        let machine = level == privilege::MACHINE;
        let found = (0..PMP_ENTRIES).find(|&i| {
            self.pmpcfg[i] & cfg::A != 0 && self.pmp_region(i).is_some_and(|(from, last)| (from..=last).contains(&page))
        });
        let Some(i) = found else { return machine };
        let bit = match access {
            Access::Read => cfg::R,
            Access::Write => cfg::W,
            Access::Fetch => cfg::X,
        };
        self.pmpcfg[i] & bit != 0 || machine && self.pmpcfg[i] & cfg::L == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(s: &State, gpa: u64, level: u64) -> [bool; 3] {
        [Access::Read, Access::Write, Access::Fetch].map(|access| s.pmp_allows(gpa, access, level))
    }

    #[test]
    fn without_entries_only_machine_mode_gets_through() {
        let s = State::default();
        assert_eq!(allowed(&s, 0x8000_0000, privilege::MACHINE), [true; 3]);
        assert_eq!(allowed(&s, 0x8000_0000, privilege::SUPERVISOR), [false; 3]);
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        let mut s = State::default();
        // 64 KiB at 0x8000_0000 for machine mode alone; everything for all; as OpenSBI has it.
        s.write_pmpaddr(0, 0x8000_0000 >> 2 | 0x1fff);
        s.write_pmpaddr(1, u64::MAX);
        s.write_pmpcfg(0, 0x1f18);
        assert_eq!(allowed(&s, 0x8000_f000, privilege::SUPERVISOR), [false; 3]);
        assert_eq!(allowed(&s, 0x8000_f000, privilege::MACHINE), [true; 3]);
        assert_eq!(allowed(&s, 0x8001_0000, privilege::USER), [true; 3]);
        assert_eq!(allowed(&s, (1 << 56) - 4096, privilege::USER), [true; 3]);
    }

    #[test]
    fn tops_of_ranges_are_rounded_to_pages_and_empty_ranges_match_nothing() {
        let mut s = State::default();
        s.write_pmpaddr(0, 0x8000_1000 >> 2);
        s.write_pmpaddr(1, 0x8000_3ffc >> 2);
        s.write_pmpcfg(0, 0x0900 | 0x08);
        assert_eq!(s.read_pmpaddr(1), 0x8000_3000 >> 2);
        assert_eq!(allowed(&s, 0x8000_0000, privilege::USER), [false; 3], "entry 0: no permission");
        assert_eq!(allowed(&s, 0x8000_1000, privilege::USER), [true, false, false]);
        assert_eq!(allowed(&s, 0x8000_2000, privilege::USER), [true, false, false]);
        assert_eq!(allowed(&s, 0x8000_3000, privilege::USER), [false; 3]);
        s.write_pmpaddr(1, 0x1000);
        assert_eq!(allowed(&s, 0x8000_1000, privilege::USER), [false; 3]);
    }

    #[test]
    fn locked_entries_bind_machine_mode_and_cannot_be_changed() {
        let mut s = State::default();
        s.write_pmpaddr(0, 0x1000 >> 2);
        s.write_pmpaddr(1, 0x2000 >> 2);
        s.write_pmpcfg(0, 0x8900);
        assert_eq!(allowed(&s, 0x1000, privilege::MACHINE), [true, false, false]);
        s.write_pmpcfg(0, 0x0f0f);
        assert_eq!(s.read_pmpcfg(0), 0x890f);
        s.write_pmpaddr(0, 0);
        s.write_pmpaddr(1, 0);
        assert_eq!([s.read_pmpaddr(0), s.read_pmpaddr(1)], [0x400, 0x800], "the lower bound is locked too");
    }

    #[test]
    fn what_reads_back_tells_the_granularity() {
        let mut s = State::default();
        s.write_pmpaddr(3, u64::MAX);
        assert_eq!(s.read_pmpaddr(3), ADDRESS & !0x3ff);
        s.write_pmpcfg(0, 0x1f << 24);
        assert_eq!(s.read_pmpaddr(3), ADDRESS);
        s.write_pmpaddr(3, 0);
        assert_eq!(s.read_pmpaddr(3), 0x1ff);
        s.write_pmpcfg(0, 0x10 << 24);
        assert_eq!(s.read_pmpcfg(0) >> 24, 0x18, "NA4 is not there");
        s.write_pmpcfg(0, 0x1a << 24);
        assert_eq!(s.read_pmpcfg(0) >> 24, 0x18, "W without R is reserved");
    }
}
