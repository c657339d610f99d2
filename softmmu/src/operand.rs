//! Operands of stores and atomic operations that the TLB does not serve: where their bytes are, and whether they may be written.
//!
//! The slow paths of [`Mmu::write`] and [`Mmu::update`] use it. Both pages of an operand are found before anything is done to either,
//! so that a fault leaves memory unchanged.

use crate::access;
use crate::mmu::{Access, CodePolicy, MmioBus, Mmu, Walker};
use crate::ram::Ram;
use crate::tlb::PAGE_SIZE;

/// Where the bytes of an operand are: guest-physical address and count in its first page, and in the next one if there are more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) size: u8,
    first: (u64, u64),
    rest: (u64, u64),
}

impl Operand {
    pub(crate) fn parts(&self) -> impl Iterator<Item = (u64, u64)> {
        [self.first, self.rest].into_iter().filter(|part| part.1 != 0)
    }

    /// The pieces that one access each is made of, with their bytes' position in the operand: all of it, or the bytes of an
    /// operand in two pages.
    pub(crate) fn pieces(self) -> impl Iterator<Item = (u64, u8, u32)> {
        let (unit, count) = match self.rest.1 {
            0 => (self.size.min(8), self.size.div_ceil(8)),
            _ => (1, self.size),
        };
        (0..u64::from(count)).map(move |i| {
            let at = i * u64::from(unit);
            let gpa = if at < self.first.1 { self.first.0 + at } else { self.rest.0 + (at - self.first.1) };
            (gpa, unit, 8 * at as u32)
        })
    }

    /// Host address of the operand if it is one piece of RAM that is read and written alike.
    pub(crate) fn host(&self, ram: &Ram) -> Option<*mut u8> {
        let place = |(gpa, len): (u64, u64)| ram.writable(gpa, len).filter(|&p| ram.readable(gpa, len) == Some(p));
        let start = place(self.first)?;
        let follows = self.rest.1 == 0 || place(self.rest)? == start.wrapping_add(self.first.1 as usize);
        follows.then_some(start)
    }
}

impl Mmu {
    /// Finds the `size` (1, 2, 4, 8, 16) bytes at `addr`, to be written.
    ///
    /// # Errors
    ///
    /// The walker's fault.
    pub(crate) fn find_operand<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        size: u8,
    ) -> Result<Operand, W::Fault> {
        let first = (PAGE_SIZE - (addr & (PAGE_SIZE - 1))).min(size.into());
        let rest = u64::from(size) - first;
        let watched = self.writable(bank, addr, size.into()).filter(|&gpa| self.ram.note_store(gpa));
        let gpa = match watched {
            Some(gpa) => gpa,
            None => self.translate(walker, bank, addr, Access::Write)?,
        };
        let next = if rest == 0 { 0 } else { self.translate(walker, bank, addr.wrapping_add(first), Access::Write)? };
        Ok(Operand { size, first: (gpa, first), rest: (next, rest) })
    }

    /// Whether `policy` lets `operand` be written: `None` if not, and otherwise whether the block ends with that.
    pub(crate) fn admits(
        &self,
        bus: &mut (impl MmioBus + ?Sized),
        operand: Operand,
        policy: CodePolicy,
    ) -> Option<bool> {
        let ends = operand.parts().any(|(gpa, _)| self.ends_block(bus, gpa));
        let refused = operand.parts().any(|(gpa, len)| self.refuses(gpa, len, policy));
        (!refused && (!ends || policy == CodePolicy::Write)).then_some(ends)
    }

    /// Writes `value` at `operand`, piece by piece; whether translated code has changed by it.
    pub(crate) fn write_operand(&mut self, bus: &mut (impl MmioBus + ?Sized), operand: Operand, value: u128) -> bool {
        let mut code = false;
        for (gpa, size, position) in operand.pieces() {
            code |= self.phys_write(bus, gpa, size, (value >> position & access::mask(size)) as u64);
        }
        code
    }
}
