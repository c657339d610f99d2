//! Guest-physical memory as page walks reach it.

use crate::ram::{CodeSink, Ram};

/// What a [`Walker`](crate::Walker) reads page tables by, and sets accessed and dirty bits with: in one step, as the processors
/// do (SDM vol. 3A, 9.1.2.1; RISC-V vol. II, "Addressing and Memory Protection"), and seen by the code watches.
#[derive(Clone, Copy)]
pub struct PageTables<'a> {
    ram: &'a Ram,
    sink: Option<&'a dyn CodeSink>,
}

impl<'a> PageTables<'a> {
    /// The tables in `ram`. `sink` hears of code that is hit.
    pub fn new(ram: &'a Ram, sink: &'a dyn CodeSink) -> PageTables<'a> {
        PageTables { ram, sink: Some(sink) }
    }

    /// The tables in `ram`, which cannot be changed.
    pub fn read_only(ram: &'a Ram) -> PageTables<'a> {
        PageTables { ram, sink: None }
    }

    /// Reads an entry; `None` outside RAM.
    #[inline(always)]
    pub fn read_u32(&self, gpa: u64) -> Option<u32> {
        self.ram.read_u32(gpa)
    }

    /// Reads an entry; `None` outside RAM.
    #[inline(always)]
    pub fn read_u64(&self, gpa: u64) -> Option<u64> {
        self.ram.read_u64(gpa)
    }

    /// Replaces the entry of `size` (4, 8) bytes at `gpa`, a multiple of that, if it still is `old`: whether it was. `None` where
    /// it cannot be written.
    pub fn replace(&self, gpa: u64, size: u8, old: u64, new: u64) -> Option<bool> {
        let sink = self.sink?;
        let done = self.ram.compare_and_swap(gpa, size, old, new)?;
        // The swap is sequentially consistent: as for stores, whoever marks code first and then reads is seen here.
        if done && self.ram.hits_code(gpa, size.into()) {
            sink.table_written(gpa, size.into());
        }
        Some(done)
    }
}

impl std::fmt::Debug for PageTables<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageTables").field("ram", &self.ram).finish_non_exhaustive()
    }
}
