//! Accesses of many bytes at once, for repeated string instructions: a page at a time where both pages are plain RAM.

use crate::mmu::{Access, Mmu, Walker};
use crate::tlb::{PAGE_SIZE, probe};

impl Mmu {
    /// Host address of `addr`, and how many bytes of its page follow, if that page is RAM that may be accessed directly:
    /// `None` for device memory and, when writing, for a page that is watched.
    fn span<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        write: bool,
    ) -> Result<Option<(u64, u64)>, W::Fault> {
        for translated in [false, true] {
            let entry = self.tlb.entry(bank, addr);
            let tag = if write { entry.write } else { entry.read };
            if probe::hits(tag, addr, 1) {
                return Ok(Some((addr.wrapping_add(entry.addend), PAGE_SIZE - (addr & (PAGE_SIZE - 1)))));
            }
            if !translated {
                self.translate(walker, bank, addr, if write { Access::Write } else { Access::Read })?;
            }
        }
        Ok(None)
    }

    /// Writes up to `count` elements of `size` (1, 2, 4, 8) bytes, all `value`, upwards from `addr` to the end of its page at
    /// most. How many were written: 0 when the next one must be written singly.
    ///
    /// # Errors
    ///
    /// The walker's fault for `addr`; nothing was written then.
    pub fn fill<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        (size, value): (u8, u64),
        count: u64,
    ) -> Result<u64, W::Fault> {
        let Some((host, room)) = self.span(walker, bank, addr, true)? else { return Ok(0) };
        let done = count.min(room / u64::from(size));
        let bytes = value.to_le_bytes();
        let unit = &bytes[..usize::from(size.min(8))];
        let p = host as *mut u8;
        let len = (done * u64::from(size)) as usize;
        if unit.iter().all(|b| *b == unit[0]) {
            // SAFETY: the write tag says that the page is RAM, mapped as long as `self.ram`, and watched by nobody; `len` bytes
            // from `p` on are within it.
            unsafe { std::ptr::write_bytes(p, unit[0], len) };
        } else {
            for at in (0..len).step_by(unit.len()) {
                // SAFETY: as above; `at + unit.len()` is at most `len`.
                unsafe { std::ptr::copy_nonoverlapping(unit.as_ptr(), p.add(at), unit.len()) };
            }
        }
        Ok(done)
    }

    /// Writes up to `count` elements of `size` (1, 2, 4, 8) bytes, which `bring` puts into the buffer that it is given, upwards
    /// from `addr` to the end of its page at most. How many were written: 0 when the next one must be written singly, and
    /// `bring` was not called then.
    ///
    /// # Errors
    ///
    /// The walker's fault for `addr`; nothing was written then.
    pub fn take_in<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        size: u8,
        count: u64,
        bring: impl FnOnce(&mut [u8]),
    ) -> Result<u64, W::Fault> {
        let Some((host, room)) = self.span(walker, bank, addr, true)? else { return Ok(0) };
        let done = count.min(room / u64::from(size));
        let mut buffer = [0; PAGE_SIZE as usize];
        let bytes = &mut buffer[..(done * u64::from(size)) as usize];
        bring(bytes);
        // SAFETY: as in `fill`: the page is RAM that may be written directly, `bytes.len()` bytes from `host` on are within it,
        // and `bring` cannot have changed that, since it has no access to `self`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host as *mut u8, bytes.len()) };
        Ok(done)
    }

    /// Copies up to `count` elements of `size` bytes upwards from `src` to `dst`, in order, to the end of either page at most.
    /// How many were copied: 0 when the next one must be copied singly.
    ///
    /// # Errors
    ///
    /// The walker's fault for `src` or else `dst`; nothing was written then.
    pub fn copy<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        (dst, src): (u64, u64),
        size: u8,
        count: u64,
    ) -> Result<u64, W::Fault> {
        let Some((from, from_room)) = self.span(walker, bank, src, false)? else { return Ok(0) };
        let Some((to, to_room)) = self.span(walker, bank, dst, true)? else { return Ok(0) };
        let done = count.min(from_room.min(to_room) / u64::from(size));
        let len = done * u64::from(size);
        let ahead = to.wrapping_sub(from);
        let (from, to) = (from as *const u8, to as *mut u8);
        if ahead == 0 || ahead >= len {
            // SAFETY: the tags say that both pages are RAM, mapped as long as `self.ram`; `len` bytes are within each. The copy is
            // upwards or of the same bytes, or the ranges do not overlap in the direction that matters.
            unsafe { std::ptr::copy(from, to, len as usize) };
        } else {
            // The destination begins inside the source: what was copied is copied again, element by element.
            for at in (0..len as usize).step_by(usize::from(size)) {
                // SAFETY: as above; the element is read whole before it is written.
                unsafe {
                    let mut unit = [0u8; 8];
                    std::ptr::copy_nonoverlapping(from.add(at), unit.as_mut_ptr(), usize::from(size.min(8)));
                    std::ptr::copy_nonoverlapping(unit.as_ptr(), to.add(at), usize::from(size.min(8)));
                }
            }
        }
        Ok(done)
    }
}
