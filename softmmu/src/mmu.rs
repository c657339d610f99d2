//! The soft MMU of one vCPU: the TLB, its refill, and every access that the inline probe does not serve.
//!
//! What the TLB does not serve is in total store order whatever its flags say.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::access::{self, AccessFlags};
use crate::backing::Backing;
use crate::exclusive::Member;
use crate::page_tables::PageTables;
use crate::ram::{CodeSink, Dropped, Ram, Stores};
use crate::space::Spaces;
use crate::tlb::{META_GLOBAL, META_SIZE, META_WRITABLE, PAGE_SIZE, Tlb, probe};
use crate::watch::{Watch, WatchOwner, Watches};

/// Kind of a guest access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// What a page walk found for one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Guest-physical address of the 4 KiB page.
    pub gpa: u64,
    /// Stores are allowed and the page's dirty bit is set already.
    pub writable: bool,
    /// The translation survives a change of address space.
    pub global: bool,
    /// log2 of the size in bytes of the guest's page: 12, or more for the 4 KiB of a larger one.
    pub shift: u32,
}

/// Translates guest virtual addresses; implemented by each guest's state.
pub trait Walker {
    /// The guest's description of a failed walk.
    type Fault;

    /// Translates the page of `addr` for `access` in MMU mode `bank`, setting accessed and dirty bits.
    fn walk(&self, tables: &PageTables<'_>, addr: u64, access: Access, bank: usize) -> Result<Mapping, Self::Fault>;

    /// What stands for an access that was refused for a watchpoint ([`Watches::refuse`]): the instruction is to be executed by
    /// itself.
    fn watched() -> Self::Fault;
}

/// Where physical accesses outside RAM go.
pub trait MmioBus {
    /// Reads `size` (1, 2, 4, 8) bytes at `gpa`.
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64;
    /// Writes the low `size` (1, 2, 4, 8) bytes of `value` at `gpa`.
    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64);
    /// Whether a write at `gpa` may end the run, or the machine's: nothing of the block behind that instruction is executed.
    fn ends_block(&self, _gpa: u64) -> bool {
        false
    }
}

/// Counts of one vCPU's MMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmuStats {
    /// Accesses served by the TLB in the interpreter and helpers (compiled code counts none).
    pub hits: u64,
    /// Page walks.
    pub refills: u64,
    /// Accesses that went to a device.
    pub mmio: u64,
    /// Flushes of everything or of all non-global pages.
    pub flushes: u64,
    /// Changes of the address space without a flush.
    pub switches: u64,
    /// Flushes of one page.
    pub page_flushes: u64,
}

/// How a store to translated code is to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodePolicy {
    /// Do it, tell the sink, and report it.
    Write,
    /// The same, but for one that changes the code of the instruction at this guest PC, or what was translated together with
    /// it, and one to a device that ends the block: that is reported without doing it.
    Refuse(u64),
}

/// What became of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Done.
    Done,
    /// Done; translated code is not what it was, or a device wants nothing more of the block executed
    /// ([`MmioBus::ends_block`]).
    Code,
    /// Not done, by [`CodePolicy::Refuse`].
    Refused,
}

/// Address spaces whose translations are kept.
pub const SPACES: usize = Spaces::COUNT;

/// The soft MMU of one vCPU.
pub struct Mmu {
    /// Guest RAM.
    pub ram: Arc<Ram>,
    /// The TLB.
    pub tlb: Tlb,
    /// Counters.
    pub stats: MmuStats,
    /// Watchpoints on data; [`Mmu::set_watches`] changes them.
    pub watches: Watches,
    spaces: Spaces,
    sink: Arc<dyn CodeSink>,
    dropped: Dropped,
    member: Arc<Member>,
}

impl Mmu {
    /// An MMU with `modes` modes, of which `private` is the one that address spaces differ in most.
    pub fn new(ram: Arc<Ram>, modes: usize, private: usize, sink: Arc<dyn CodeSink>) -> Mmu {
        let tlb = Tlb::with_spaces(modes, private, SPACES);
        let (stats, watches, member) = (MmuStats::default(), Watches::default(), ram.exclusive().join());
        Mmu { ram, tlb, stats, watches, spaces: Spaces::default(), sink, dropped: Dropped::NONE, member }
    }

    /// The vCPU's part in the exclusive sections of all that have the same RAM.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Watches these ranges, all `owner`'s, instead of those that it had before.
    pub fn set_watches(&mut self, owner: WatchOwner, list: Vec<Watch>) {
        self.watches.set(owner, list);
        self.tlb.flush(false);
    }

    /// Invalidates every entry of every address space, or every non-global one. The current one is `asid` from now on.
    pub fn flush(&mut self, keep_global: bool, asid: u64) {
        self.stats.flushes += 1;
        tracing::info!(target: "mmu", "flush of {}", if keep_global { "non-global pages" } else { "everything" });
        self.tlb.flush(keep_global);
        self.spaces.forget_all(asid);
    }

    /// Enters address space `asid`, which never is `u64::MAX`. Its entries, global ones apart, are invalidated unless `keep`.
    pub fn enter_space(&mut self, asid: u64, keep: bool) {
        let (space, kept) = self.spaces.enter(asid, keep);
        self.tlb.switch_space(space);
        if kept {
            self.stats.switches += 1;
            tracing::info!(target: "mmu", "switch to address space {asid:#x}");
        } else {
            self.stats.flushes += 1;
            tracing::info!(target: "mmu", "flush of address space {asid:#x}");
            self.tlb.flush_space();
        }
    }

    /// Invalidates the entries of address space `asid`, global ones apart.
    pub fn flush_space(&mut self, asid: u64) {
        self.stats.flushes += 1;
        tracing::info!(target: "mmu", "flush of address space {asid:#x}");
        if self.spaces.forget(asid) {
            self.tlb.flush_space();
        }
    }

    /// The current address space's place among [`SPACES`].
    pub fn space(&self) -> usize {
        self.spaces.current()
    }

    /// A number that the current address space's non-global translations have had since they were last flushed, and that
    /// nothing else ever has. Never 0.
    pub fn space_generation(&self) -> u64 {
        self.spaces.generation()
    }

    /// Invalidates the page of `addr` in every mode.
    pub fn flush_page(&mut self, addr: u64) {
        self.stats.page_flushes += 1;
        tracing::info!(target: "mmu", "flush of the page of {addr:#x}");
        self.tlb.flush_page(addr);
    }

    /// What this vCPU's stores have dropped since it last asked.
    pub fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// Translates the page of `addr`, leaving the TLB alone.
    pub fn walk<W: Walker>(&mut self, walker: &W, bank: usize, addr: u64, access: Access) -> Result<Mapping, W::Fault> {
        self.stats.refills += 1;
        let walked = walker.walk(&PageTables::new(&self.ram, &*self.sink), addr, access, bank);
        match &walked {
            Ok(map) => tracing::info!(target: "mmu", "{access:?} of {addr:#x} in mode {bank}: {map:x?}"),
            Err(_) => tracing::info!(target: "mmu", "{access:?} of {addr:#x} in mode {bank}: fault"),
        }
        walked
    }

    /// Translates `addr` for data and refills the TLB if its page is RAM; the guest-physical address.
    pub fn translate<W: Walker>(
        &mut self,
        walker: &W,
        bank: usize,
        addr: u64,
        access: Access,
    ) -> Result<u64, W::Fault> {
        let map = self.walk(walker, bank, addr, access)?;
        if self.watches.on_page(addr) {
            return Ok(map.gpa | addr & (PAGE_SIZE - 1));
        }
        if let Some(host) = self.ram.readable(map.gpa, PAGE_SIZE) {
            let page = addr & !(PAGE_SIZE - 1);
            let stores = if map.writable { self.ram.stores(map.gpa, access) } else { Stores::Refused };
            let writable = stores != Stores::Refused;
            let write = writable && !self.ram.is_watched(map.gpa);
            let meta = map.gpa
                | if map.global { META_GLOBAL } else { 0 }
                | if writable { META_WRITABLE } else { 0 }
                | u64::from(map.shift) << META_SIZE;
            self.tlb.fill(bank, page, true, write, (host as u64).wrapping_sub(page), meta);
            if stores == Stores::Recorded {
                self.tlb.note_recorded(bank, page);
            }
        }
        Ok(map.gpa | addr & (PAGE_SIZE - 1))
    }

    /// Makes the next store to each page of display memory be recorded, before the record is taken: until then this vCPU's TLB
    /// lets stores to pages that are in the record through. Where compiled code runs nobody may call this.
    pub fn record_stores(&mut self) {
        let ram = &self.ram;
        self.tlb.close_recorded(|gpa| ram.is_displayed(gpa));
    }

    /// Guest-physical address of the `size` bytes at `addr`, if they are in a page of RAM that could be stored to but for
    /// watches, and the TLB has it.
    pub(crate) fn writable(&self, bank: usize, addr: u64, size: u64) -> Option<u64> {
        let entry = self.tlb.entry(bank, addr);
        let found = probe::hits(entry.read, addr, size) && entry.meta & META_WRITABLE != 0;
        found.then_some(entry.meta & !(PAGE_SIZE - 1) | addr & (PAGE_SIZE - 1))
    }

    /// Reads `size` (1, 2, 4, 8) bytes.
    #[inline]
    pub fn read<W: Walker>(
        &mut self,
        walker: &W,
        bus: &mut (impl MmioBus + ?Sized),
        bank: usize,
        addr: u64,
        size: u8,
        flags: AccessFlags,
    ) -> Result<u64, W::Fault> {
        let entry = self.tlb.entry(bank, addr);
        let for_write = flags.contains(AccessFlags::FOR_WRITE);
        let tag = if for_write { entry.write } else { entry.read };
        if probe::hits(tag, addr, size.into()) {
            self.stats.hits += 1;
            let p = addr.wrapping_add(entry.addend) as *const u8;
            // SAFETY: a matching tag says that `addend` maps this page into RAM that `self.ram` keeps mapped, and
            // the compare also says that the access stays within the page.
            return Ok(unsafe { access::load(p, size, flags) });
        }
        self.read_slow(walker, bus, bank, addr, size, for_write)
    }

    #[cold]
    fn read_slow<W: Walker>(
        &mut self,
        walker: &W,
        bus: &mut (impl MmioBus + ?Sized),
        bank: usize,
        addr: u64,
        size: u8,
        for_write: bool,
    ) -> Result<u64, W::Fault> {
        if let Some(gpa) = self.writable(bank, addr, size.into()) {
            return Ok(self.phys_read(bus, gpa, size));
        }
        let access = if for_write { Access::Write } else { Access::Read };
        let offset = addr & (PAGE_SIZE - 1);
        let first = PAGE_SIZE - offset;
        let within = first >= u64::from(size);
        let gpa = self.translate(walker, bank, addr, access)?;
        let next = if within { 0 } else { self.translate(walker, bank, addr.wrapping_add(first), access)? };
        if !self.watches.is_empty() {
            let Watches { refuse, .. } = self.watches;
            // The store of an access that is both can be refused only here, before anything was done.
            if self.watches.access(addr, size.into(), false)
                || for_write && refuse && self.watches.access(addr, size.into(), true)
            {
                return Err(W::watched());
            }
        }
        if within {
            return Ok(self.phys_read(bus, gpa, size));
        }
        let mut value = 0;
        for i in 0..u64::from(size) {
            let at = if i < first { gpa + i } else { next + (i - first) };
            value |= self.phys_read(bus, at, 1) << (8 * i);
        }
        Ok(value)
    }

    /// Writes the low `size` (1, 2, 4, 8) bytes of `value`.
    ///
    /// # Errors
    ///
    /// The walker's fault; nothing was written then.
    #[inline]
    pub fn write<W: Walker>(
        &mut self,
        walker: &W,
        bus: &mut (impl MmioBus + ?Sized),
        bank: usize,
        (addr, size, value): (u64, u8, u64),
        flags: AccessFlags,
        policy: CodePolicy,
    ) -> Result<Stored, W::Fault> {
        let entry = self.tlb.entry(bank, addr);
        if probe::hits(entry.write, addr, size.into()) {
            self.stats.hits += 1;
            let p = addr.wrapping_add(entry.addend) as *mut u8;
            // SAFETY: as in `read`; the write tag also says that nobody watches the page.
            unsafe { access::store(p, size, value, flags) };
            return Ok(Stored::Done);
        }
        self.write_slow(walker, bus, bank, (addr, size, value), policy)
    }

    #[cold]
    fn write_slow<W: Walker>(
        &mut self,
        walker: &W,
        bus: &mut (impl MmioBus + ?Sized),
        bank: usize,
        (addr, size, value): (u64, u8, u64),
        policy: CodePolicy,
    ) -> Result<Stored, W::Fault> {
        let operand = self.find_operand(walker, bank, addr, size)?;
        if !self.watches.is_empty() && self.watches.access(addr, size.into(), true) {
            return Err(W::watched());
        }
        let Some(ends) = self.admits(bus, operand, policy) else { return Ok(Stored::Refused) };
        let code = self.write_operand(bus, operand, value.into());
        Ok(if code || ends { Stored::Code } else { Stored::Done })
    }

    /// Says what accesses to pages reach: for each piece its first guest-physical address and its size, both multiples of the page
    /// size. Translations of code in pages that have changed are dropped; whether any has: then every TLB is to be flushed.
    pub fn set_backings(&mut self, pieces: &[(u64, u64, Backing)]) -> bool {
        let mut changed = false;
        for &(base, size, backing) in pieces {
            for gpa in (base..base.saturating_add(size)).step_by(PAGE_SIZE as usize) {
                if self.ram.set_backing(gpa, backing.after(gpa - base)) {
                    changed = true;
                    if self.ram.hits_code(gpa, PAGE_SIZE) {
                        let dropped = self.sink.code_written(gpa, PAGE_SIZE);
                        self.dropped.add(&dropped);
                    }
                }
            }
        }
        changed
    }

    /// Checks that `size` bytes at `addr` can be written, without writing.
    pub fn probe_write<W: Walker>(&mut self, walker: &W, bank: usize, addr: u64, size: u64) -> Result<(), W::Fault> {
        self.translate(walker, bank, addr, Access::Write)?;
        if (addr & (PAGE_SIZE - 1)) + size > PAGE_SIZE {
            self.translate(walker, bank, (addr | (PAGE_SIZE - 1)).wrapping_add(1), Access::Write)?;
        }
        Ok(())
    }

    /// Reads `size` (1, 2, 4, 8) bytes at a guest-physical address: RAM or device.
    pub fn phys_read(&mut self, bus: &mut (impl MmioBus + ?Sized), gpa: u64, size: u8) -> u64 {
        match self.ram.readable(gpa, u64::from(size)) {
            // SAFETY: `readable` checked that the bytes are RAM.
            Some(p) => unsafe { access::load(p, size, AccessFlags::empty()) },
            None => {
                self.stats.mmio += 1;
                bus.mmio_read(gpa, size)
            }
        }
    }

    /// Writes at a guest-physical address: RAM (telling the sink when code is hit) or device. Whether translated code has
    /// changed by it.
    pub fn phys_write(&mut self, bus: &mut (impl MmioBus + ?Sized), gpa: u64, size: u8, value: u64) -> bool {
        let len = u64::from(size);
        let Some(p) = self.ram.writable(gpa, len) else {
            self.stats.mmio += 1;
            bus.mmio_write(gpa, size, value);
            return false;
        };
        let changed = if self.ram.hits_code(gpa, len) {
            // Which bytes are others now is known only if nobody else comes between.
            // SAFETY: `writable` checked that the bytes are RAM.
            match unsafe { access::update(p, size, &mut |_| Some(value.into())) } {
                Some((old, new)) => access::changed_bytes(old, new, size),
                None => {
                    // SAFETY: as above.
                    unsafe { access::store(p, size, value, AccessFlags::empty()) };
                    Some((0, len))
                }
            }
        } else {
            // SAFETY: as above.
            unsafe { access::store(p, size, value, AccessFlags::empty()) };
            Some((0, len))
        };
        self.ram.record(gpa, len);
        // Between writing and looking at the mark: whoever marks first and then reads (a translation being made by
        // another vCPU) either sees these bytes or is seen here.
        fence(Ordering::SeqCst);
        changed.is_some_and(|(at, len)| self.tell_written(gpa + at, len))
    }

    /// Tells the sink of `len` bytes at `gpa`, within one page, that were written, if they hit code; whether translations were
    /// dropped.
    pub(crate) fn tell_written(&mut self, gpa: u64, len: u64) -> bool {
        if !self.ram.hits_code(gpa, len) {
            return false;
        }
        let dropped = self.sink.code_written(gpa, len);
        self.dropped.add(&dropped);
        dropped.any()
    }

    /// Whether nothing may be executed behind a store at `gpa`, which is to a device.
    pub(crate) fn ends_block(&self, bus: &mut (impl MmioBus + ?Sized), gpa: u64) -> bool {
        self.ram.writable(gpa, 1).is_none() && bus.ends_block(gpa)
    }

    /// Whether a store of `len` bytes at `gpa`, within one page, is to be refused by `policy`.
    pub(crate) fn refuses(&self, gpa: u64, len: u64, policy: CodePolicy) -> bool {
        let CodePolicy::Refuse(pc) = policy else { return false };
        self.ram.hits_code(gpa, len) && self.ram.writable(gpa, len).is_some() && self.sink.translates(gpa, len, pc)
    }
}

impl std::fmt::Debug for Mmu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mmu").field("ram", &self.ram).field("stats", &self.stats).finish_non_exhaustive()
    }
}
