//! Which pages something was done with, as a set that may say yes too often.

/// log2 of the number of bits.
const BITS_SHIFT: u32 = 15;

/// A set of guest-virtual pages of several sizes. It never forgets a page; it may take one for another.
#[derive(Debug)]
pub struct PageFilter {
    bits: Box<[u64]>,
    /// Bit n: pages of 2^n bytes were inserted.
    sizes: u64,
}

impl Default for PageFilter {
    fn default() -> Self {
        PageFilter { bits: vec![0; 1 << (BITS_SHIFT - 6)].into_boxed_slice(), sizes: 0 }
    }
}

impl PageFilter {
    /// Word and bit of the page of 2^`shift` bytes at `addr`.
    fn place(addr: u64, shift: u32) -> (usize, u64) {
        // Multiplicative hashing: the high bits of the product depend on all bits of the page number.
        let hash = (addr >> shift ^ u64::from(shift) << 58).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS_SHIFT);
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    /// Adds the page of 2^`shift` bytes (`shift` below 64) that contains `addr`.
    #[inline]
    pub fn insert(&mut self, addr: u64, shift: u32) {
        let (word, bit) = PageFilter::place(addr, shift & 63);
        self.sizes |= 1 << (shift & 63);
        if let Some(word) = self.bits.get_mut(word) {
            *word |= bit;
        }
    }

    /// False when no page that contains `addr` was inserted.
    #[inline]
    pub fn may_contain(&self, addr: u64) -> bool {
        let mut sizes = self.sizes;
        while sizes != 0 {
            let (word, bit) = PageFilter::place(addr, sizes.trailing_zeros());
            if self.bits.get(word).is_some_and(|word| word & bit != 0) {
                return true;
            }
            sizes &= sizes - 1;
        }
        false
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        if self.sizes != 0 {
            self.bits.fill(0);
            self.sizes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PageFilter;

    #[test]
    fn every_byte_of_an_inserted_page_is_contained_and_few_others() {
        let mut filter = PageFilter::default();
        assert!(!filter.may_contain(0));
        filter.insert(0x7f00_1234_5678, 12);
        filter.insert(0xffff_8000_0030_0000, 21);
        for addr in [0x7f00_1234_5000, 0x7f00_1234_5fff, 0xffff_8000_0020_0000, 0xffff_8000_003f_ffff] {
            assert!(filter.may_contain(addr), "{addr:#x}");
        }
        for addr in [0x7f00_1234_4fff, 0x7f00_1234_6000, 0xffff_8000_001f_ffff, 0xffff_8000_0040_0000] {
            assert!(!filter.may_contain(addr), "{addr:#x}");
        }
        let wrong = (0..1000u64).filter(|i| filter.may_contain(0x5555_0000_0000 + i * 4096)).count();
        assert!(wrong < 5, "{wrong} of 1000 pages mistaken for one of two");
        filter.clear();
        assert!(!filter.may_contain(0x7f00_1234_5000));
    }
}
