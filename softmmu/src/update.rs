//! Atomic operations of a vCPU on what it addresses: read-modify-write and compare-and-swap of 1 to 16 bytes.

use std::sync::atomic::{Ordering, fence};

use crate::access;
use crate::mmu::{CodePolicy, MmioBus, Mmu, Stored, Walker};
use crate::operand::Operand;
use crate::tlb::probe;

impl Mmu {
    /// Replaces the value of `size` (1, 2, 4, 8, 16) bytes at `addr` by what `new` makes of it: the old value, and what became of
    /// the store. It is one step for whoever else accesses the operand, at any alignment, and sequentially consistent with other
    /// such operations. On a device, a `new` that gives `None` writes nothing; in RAM the old value is written. `new` may be asked
    /// more than once; its last answer counts.
    ///
    /// # Errors
    ///
    /// The walker's fault; nothing was done then.
    #[inline]
    pub fn update<W: Walker>(
        &mut self,
        walker: &W,
        bus: &mut (impl MmioBus + ?Sized),
        bank: usize,
        (addr, size): (u64, u8),
        policy: CodePolicy,
        mut new: impl FnMut(u128) -> Option<u128>,
    ) -> Result<(u128, Stored), W::Fault> {
        let entry = self.tlb.entry(bank, addr);
        if probe::hits(entry.write, addr, size.into()) {
            self.stats.hits += 1;
            let p = addr.wrapping_add(entry.addend) as *mut u8;
            // SAFETY: a matching tag for stores says that `addend` maps this page into RAM that `self.ram` keeps mapped, that
            // nobody watches it, and that the operand is within it.
            if let Some((old, _)) = unsafe { access::update(p, size, &mut new) } {
                return Ok((old, Stored::Done));
            }
        }
        self.update_slow(walker, bus, bank, (addr, size), policy, &mut new)
    }

    #[cold]
    fn update_slow<W: Walker>(
        &mut self,
        walker: &W,
        bus: &mut (impl MmioBus + ?Sized),
        bank: usize,
        (addr, size): (u64, u8),
        policy: CodePolicy,
        new: &mut impl FnMut(u128) -> Option<u128>,
    ) -> Result<(u128, Stored), W::Fault> {
        let operand = self.find_operand(walker, bank, addr, size)?;
        if !self.watches.is_empty() {
            let [read, write] = [false, true].map(|write| self.watches.access(addr, size.into(), write));
            if read || write {
                return Err(W::watched());
            }
        }
        let Some(ends) = self.admits(bus, operand, policy) else { return Ok((0, Stored::Refused)) };
        // SAFETY: `host` found that all of the operand is RAM.
        let at_once = operand.host(&self.ram).and_then(|p| unsafe { access::update(p, size, new) });
        let (old, code) = match at_once {
            Some((old, value)) => (old, self.wrote(&operand, old, value)),
            None => {
                let member = self.member().clone();
                member.exclusively(|| self.update_alone(bus, operand, new))
            }
        };
        fence(Ordering::SeqCst);
        Ok((old, if code || ends { Stored::Code } else { Stored::Done }))
    }

    /// RAM has `value` at `operand` now, where it had `old`; whether translated code has changed by it.
    fn wrote(&mut self, operand: &Operand, old: u128, value: u128) -> bool {
        operand.parts().for_each(|(gpa, len)| self.ram.record(gpa, len));
        // Between writing and looking at the marks: see `Mmu::phys_write`.
        fence(Ordering::SeqCst);
        let Some((at, len)) = access::changed_bytes(old, value, operand.size) else { return false };
        let (mut start, mut code) = (0, false);
        for (gpa, bytes) in operand.parts() {
            // What has changed of this part.
            let (from, to) = (at.max(start), (at + len).min(start + bytes));
            code |= from < to && self.tell_written(gpa + (from - start), to - from);
            start += bytes;
        }
        code
    }

    /// The operation where it takes several accesses, while no other vCPU runs guest code: the old value, and whether translated
    /// code has changed.
    fn update_alone(
        &mut self,
        bus: &mut (impl MmioBus + ?Sized),
        operand: Operand,
        new: &mut impl FnMut(u128) -> Option<u128>,
    ) -> (u128, bool) {
        let mut old = 0;
        for (gpa, size, position) in operand.pieces() {
            old |= u128::from(self.phys_read(bus, gpa, size)) << position;
        }
        let Some(value) = new(old) else { return (old, false) };
        (old, self.write_operand(bus, operand, value))
    }
}
