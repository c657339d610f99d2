//! Accesses of many bytes at once, for repeated string instructions: a page at a time where all pages are plain RAM. Their callers
//! do an element singly where one of these does none, which is also how a fault is raised for exactly that element.

use crate::access::{self, AccessFlags};
use crate::mmu::{Access, Mmu, Walker};
use crate::tlb::{PAGE_SIZE, probe};

/// Elements of a repeated string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elements {
    /// Bytes of each: 1, 2, 4 or 8.
    pub size: u8,
    /// How many are left.
    pub count: u64,
    /// Whether each lies below the one before it, rather than above.
    pub down: bool,
}

impl Elements {
    /// How many of them are within the page of the first one, which is at `addr`.
    fn in_page(self, addr: u64) -> u64 {
        let (offset, size) = (addr & (PAGE_SIZE - 1), u64::from(self.size));
        let room = if !self.down {
            (PAGE_SIZE - offset) / size
        } else if offset + size <= PAGE_SIZE {
            offset / size + 1
        } else {
            0
        };
        self.count.min(room)
    }

    /// The first `count` of them.
    const fn first(self, count: u64) -> Elements {
        Elements { count, ..self }
    }

    /// Bytes of all.
    fn len(self) -> usize {
        (self.count * u64::from(self.size)) as usize
    }

    /// Address of the lowest byte of elements `at..at + count`, if the first of all is at `host`.
    fn lowest(self, host: u64, at: u64, count: u64) -> *mut u8 {
        let size = u64::from(self.size);
        let low = if self.down { host.wrapping_sub((at + count - 1) * size) } else { host.wrapping_add(at * size) };
        low as *mut u8
    }

    /// The low bytes of `value`, as often as they fit into 8 bytes.
    const fn splat(self, value: u64) -> u64 {
        match self.size {
            1 => (value & 0xff) * 0x0101_0101_0101_0101,
            2 => (value & 0xffff) * 0x0001_0001_0001_0001,
            4 => (value & 0xffff_ffff) * 0x0000_0001_0000_0001,
            _ => value,
        }
    }

    /// Whether any of the elements in a word is 0.
    const fn any_zero(self, word: u64) -> bool {
        let tops = self.splat(1 << (8 * self.size as u32 - 1));
        word.wrapping_sub(self.splat(1)) & !word & tops != 0
    }
}

/// What elements are compared with those in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// Others in memory, the first of which is there.
    With(u64),
    /// A value, always the same.
    Value(u64),
}

/// How far a comparison got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Elements that were compared, one or more.
    pub done: u64,
    /// The operands of the last one.
    pub last: (u64, u64),
}

/// What a comparison has on one of its sides.
#[derive(Clone, Copy)]
enum Side {
    /// Elements within one page of RAM, the first of which is at this host address.
    Host(u64),
    Value(u64),
}

impl Side {
    /// Element number `at`.
    ///
    /// # Safety
    /// `elements`, of which it is one, are readable bytes of guest RAM.
    #[inline(always)]
    unsafe fn element(self, elements: Elements, at: u64) -> u64 {
        match self {
            // SAFETY: by the caller's promise.
            Side::Host(host) => unsafe {
                access::load(elements.lowest(host, at, 1), elements.size, AccessFlags::empty())
            },
            Side::Value(value) => value & u64::MAX >> (64 - 8 * u32::from(elements.size)),
        }
    }

    /// The 8 bytes of elements from number `at` on.
    ///
    /// # Safety
    /// As of [`Side::element`], for all of them.
    #[inline(always)]
    unsafe fn word(self, elements: Elements, at: u64) -> u64 {
        let low = |host| elements.lowest(host, at, 8 / u64::from(elements.size));
        match self {
            // SAFETY: by the caller's promise.
            Side::Host(host) => unsafe { access::load(low(host), 8, AccessFlags::empty()) },
            Side::Value(value) => elements.splat(value),
        }
    }
}

/// Compares elements in order, up to the first that is not equal, or with `while_equal` false that is. There is at least one.
///
/// # Safety
/// `elements` of both sides are readable bytes of guest RAM.
unsafe fn compare(left: Side, right: Side, elements: Elements, while_equal: bool) -> Comparison {
    let in_word = 8 / u64::from(elements.size);
    let mut at = 0;
    // The last element is always looked at singly, and whatever a word is left for: other threads may write meanwhile.
    while at + in_word < elements.count {
        // SAFETY: these elements are among those of the caller's promise.
        let differences = unsafe { left.word(elements, at) ^ right.word(elements, at) };
        if if while_equal { differences != 0 } else { elements.any_zero(differences) } {
            break;
        }
        at += in_word;
    }
    loop {
        // SAFETY: as above.
        let last = unsafe { (left.element(elements, at), right.element(elements, at)) };
        at += 1;
        if at == elements.count || (last.0 == last.1) != while_equal {
            return Comparison { done: at, last };
        }
    }
}

impl Mmu {
    /// Host address of the first of `elements`, which is at `addr`, and those of them that are in its page, if that page is RAM
    /// that may be accessed directly: `None` for device memory and, when writing, for a page that is watched, and where the
    /// first is not in one page.
    fn span<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        elements: Elements,
        write: bool,
    ) -> Result<Option<(u64, Elements)>, W::Fault> {
        let within = elements.first(elements.in_page(addr));
        if within.count == 0 {
            return Ok(None);
        }
        for translated in [false, true] {
            let entry = self.tlb.entry(bank, addr);
            let tag = if write { entry.write } else { entry.read };
            if probe::hits(tag, addr, 1) {
                return Ok(Some((addr.wrapping_add(entry.addend), within)));
            }
            if !translated {
                self.translate(walker, bank, addr, if write { Access::Write } else { Access::Read })?;
            }
        }
        Ok(None)
    }

    /// Writes those of `elements`, the first of which is at `addr`, that are in its page, all `value`. How many were written: 0 when
    /// the next one must be written singly.
    ///
    /// # Errors
    ///
    /// The walker's fault for `addr`; nothing was written then.
    pub fn fill<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        elements: Elements,
        value: u64,
    ) -> Result<u64, W::Fault> {
        let Some((host, elements)) = self.span(walker, bank, addr, elements, true)? else { return Ok(0) };
        let (p, len, word) = (elements.lowest(host, 0, elements.count), elements.len(), elements.splat(value));
        let bytes = word.to_le_bytes();
        // SAFETY: the write tag says that the page is RAM, mapped as long as `self.ram`, and watched by nobody; the `len` bytes of
        // `elements` are within it, and whole words and what is left of one are no more.
        unsafe {
            if bytes == [bytes[0]; 8] {
                std::ptr::write_bytes(p, bytes[0], len);
            } else {
                let words = len / 8;
                (0..words).for_each(|at| p.cast::<u64>().add(at).write_unaligned(word.to_le()));
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), p.add(8 * words), len % 8);
            }
        }
        Ok(elements.count)
    }

    /// Writes those of `elements`, the first of which is at `addr`, that are in its page, upwards; `bring` puts them into the buffer
    /// that it is given. How many were written: 0 when the next one must be written singly, and `bring` was not called then.
    ///
    /// # Errors
    ///
    /// The walker's fault for `addr`; nothing was written then.
    pub fn take_in<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        elements: Elements,
        bring: impl FnOnce(&mut [u8]),
    ) -> Result<u64, W::Fault> {
        let elements = Elements { down: false, ..elements };
        let Some((host, elements)) = self.span(walker, bank, addr, elements, true)? else { return Ok(0) };
        let mut buffer = [0; PAGE_SIZE as usize];
        let bytes = &mut buffer[..elements.len()];
        bring(bytes);
        // SAFETY: as in `fill`: the page is RAM that may be written directly, `bytes.len()` bytes from `host` on are within it,
        // and `bring` cannot have changed that, since it has no access to `self`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host as *mut u8, bytes.len()) };
        Ok(elements.count)
    }

    /// Reads those of `elements`, the first of which is at `addr`, that are in its page and fit into `to`, upwards. How many were
    /// read: 0 when the next one must be read singly.
    ///
    /// # Errors
    ///
    /// The walker's fault for `addr`.
    pub fn take_out<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        elements: Elements,
        to: &mut [u8],
    ) -> Result<u64, W::Fault> {
        let fitting = (to.len() / usize::from(elements.size)) as u64;
        let elements = Elements { down: false, ..elements.first(elements.count.min(fitting)) };
        let Some((host, elements)) = self.span(walker, bank, addr, elements, false)? else { return Ok(0) };
        // SAFETY: the read tag says that the page is RAM, mapped as long as `self.ram`; the bytes of `elements` are within it, and
        // fit into `to`.
        unsafe { std::ptr::copy_nonoverlapping(host as *const u8, to.as_mut_ptr(), elements.len()) };
        Ok(elements.count)
    }

    /// How many of `elements`, the first of which is at `addr`, are in its page, and the last one of them. `None` when the next one
    /// must be read singly.
    ///
    /// # Errors
    ///
    /// The walker's fault for `addr`.
    pub fn last<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        elements: Elements,
    ) -> Result<Option<(u64, u64)>, W::Fault> {
        let Some((host, elements)) = self.span(walker, bank, addr, elements, false)? else { return Ok(None) };
        // SAFETY: the read tag says that the page is RAM, mapped as long as `self.ram`; all of `elements` are within it.
        let value = unsafe { Side::Host(host).element(elements, elements.count - 1) };
        Ok(Some((elements.count, value)))
    }

    /// Compares `elements` with `left`, the first of them at `right`, to the end of a page at most, and up to the first that is not
    /// equal, or with `while_equal` false that is. `None` when the next one must be compared singly.
    ///
    /// # Errors
    ///
    /// The walker's fault for the address of `left` or else `right`.
    pub fn compare<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        (left, right): (Compared, u64),
        elements: Elements,
        while_equal: bool,
    ) -> Result<Option<Comparison>, W::Fault> {
        let (left, elements) = match left {
            Compared::Value(value) => (Side::Value(value), elements),
            Compared::With(addr) => match self.span(walker, bank, addr, elements, false)? {
                Some((host, elements)) => (Side::Host(host), elements),
                None => return Ok(None),
            },
        };
        let Some((right, elements)) = self.span(walker, bank, right, elements, false)? else { return Ok(None) };
        // SAFETY: the read tags say that the pages are RAM, mapped as long as `self.ram`; all of `elements` are within one on each
        // side, and are one or more.
        Ok(Some(unsafe { compare(left, Side::Host(right), elements, while_equal) }))
    }

    /// Copies those of `elements`, the first of them from `src` to `dst`, that are in the first one's page on either side, in order.
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
        elements: Elements,
    ) -> Result<u64, W::Fault> {
        let Some((from, elements)) = self.span(walker, bank, src, elements, false)? else { return Ok(0) };
        let Some((to, elements)) = self.span(walker, bank, dst, elements, true)? else { return Ok(0) };
        let count = elements.count;
        let ahead = if elements.down { from.wrapping_sub(to) } else { to.wrapping_sub(from) };
        if ahead == 0 || ahead >= elements.len() as u64 {
            let (from, to) = (elements.lowest(from, 0, count), elements.lowest(to, 0, count));
            // SAFETY: the tags say that both pages are RAM, mapped as long as `self.ram`; all of `elements` are within each. No
            // element is written before it is read, so that their order does not matter.
            unsafe { std::ptr::copy(from, to, elements.len()) };
        } else {
            // The destination is ahead inside the source: what was copied is copied again, element by element.
            for at in 0..count {
                let (from, to) = (elements.lowest(from, at, 1), elements.lowest(to, at, 1));
                // SAFETY: as above; the element is read whole before it is written.
                unsafe {
                    let value = access::load(from, elements.size, AccessFlags::empty());
                    access::store(to, elements.size, value, AccessFlags::empty());
                }
            }
        }
        Ok(count)
    }
}
