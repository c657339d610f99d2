//! The core of a vCPU, which is no guest's own: env and the header, the MMU, what is known of code by virtual address, the fault that
//! is pending, and how instructions and helpers reach memory.
//!
//! A guest's `Cpu` has a [`Core`] as its first field and dereferences to it; what it needs of the guest is [`Arch`].

use std::sync::Arc;

use bytemuck::Pod;
use mimus_ir::op::RmwKind;
use mimus_ir::{MemFlags, Stop, Type};
use mimus_softmmu::header::jump_cache_offset;
use mimus_softmmu::{
    Access, AccessFlags, CodePolicy, CodeSink, EnvHeader, JumpCacheEntry, Mapping, MmioBus, Mmu, NO_CONTEXT, PAGE_SIZE,
    Ram, SPACES, Stored, Verdict, Walker,
};

use super::context::{ContextKey, Contexts};

/// A fault was raised and is pending in the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raised;

/// Jump caches that a vCPU is to have: one for code that all address spaces share, and one for each of those kept.
pub const JUMP_CACHES: usize = 1 + SPACES;

/// What a page walk of a guest fails with.
pub type WalkFault<A> = <<A as Arch>::State as Walker>::Fault;

/// What the core of a vCPU needs of its guest.
pub trait Arch: Sized + 'static {
    /// Env: the registers, in the order in which compiled code finds them, the general ones first.
    type State: Walker + Pod;
    /// What the machine gives a vCPU beside memory.
    type Bus: MmioBus + ?Sized;
    /// What an instruction has raised.
    type Pending;

    /// Whether an access raises something where nobody answers on the bus, as [`Arch::answers`] and [`Arch::unanswered`] say.
    const BUS_FAULTS: bool = false;

    /// Whether a compare-and-swap that fails writes the old value back.
    const FAILED_CAS_WRITES: bool = false;

    /// What an instruction raises whose access cannot be translated; `None` if it is to be executed by itself
    /// ([`Walker::watched`]).
    fn refused(fault: WalkFault<Self>) -> Option<Self::Pending>;

    /// Whether something answers at a guest-physical address outside RAM.
    fn answers(_bus: &mut Self::Bus, _gpa: u64, _size: u8) -> bool {
        true
    }

    /// What an instruction raises to whose access at `addr` nobody answers.
    fn unanswered(_addr: u64, _access: Access) -> Option<Self::Pending> {
        None
    }
}

/// The flags of a memory op as guest memory knows them: the numbers are the same.
#[inline(always)]
const fn access_flags(flags: MemFlags) -> AccessFlags {
    const {
        assert!(MemFlags::FOR_WRITE.bits() == AccessFlags::FOR_WRITE.bits());
        assert!(MemFlags::RELAXED.bits() == AccessFlags::RELAXED.bits());
        assert!(MemFlags::all().bits() == AccessFlags::all().bits());
    }
    AccessFlags::from_bits_retain(flags.bits())
}

/// The core of a vCPU. Its address is the env pointer: `state` comes first, the header that compiled code shares with the runtime
/// follows.
#[repr(C)]
pub struct Core<A: Arch> {
    /// Registers.
    pub state: A::State,
    /// What compiled code shares with the runtime.
    pub header: EnvHeader,
    /// Memory.
    pub mmu: Mmu,
    /// Devices.
    pub bus: Box<A::Bus>,
    /// What the instruction at the program counter has raised, not delivered yet.
    pub pending: Option<A::Pending>,
    /// TLB bank of loads and stores; the guest's `update_mode` keeps it.
    pub bank: usize,
    /// What is known by virtual address holds in one of these.
    pub contexts: Contexts,
    /// What the current context is of beside translations; the guest's `update_mode` keeps it.
    pub(crate) place: ContextKey,
    /// Whether instructions are run one at a time, so that no jump cache may lead anywhere.
    pub(crate) single: bool,
    /// Whether compiled code is running, which cannot stop behind a store that changes the rest of its block: such a store is
    /// refused, and the interpreter's.
    pub in_compiled_code: bool,
    /// The jump caches; [`EnvHeader::jump_cache`] is the one in use.
    pub jump_caches: Box<[JumpCacheEntry]>,
}

/// Lets a guest's `Cpu`, whose first field is `core: Core<Cpu>`, be used as its core, and execute micro-ops by it.
#[macro_export]
macro_rules! has_core {
    ($cpu:ty) => {
        const _: () = assert!(std::mem::offset_of!($cpu, core) == 0, "the env pointer is the vCPU's address");

        impl std::ops::Deref for $cpu {
            type Target = $crate::common::vcpu::Core<$cpu>;

            #[inline(always)]
            fn deref(&self) -> &Self::Target {
                &self.core
            }
        }

        impl std::ops::DerefMut for $cpu {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.core
            }
        }

        impl mimus_ir::Guest for $cpu {
            #[inline(always)]
            fn env(&mut self) -> &mut [u8] {
                self.core.env()
            }

            #[inline(always)]
            fn pc_base(&self) -> u64 {
                self.core.header.pc_base
            }

            #[inline(always)]
            fn load(
                &mut self,
                addr: u64,
                ty: mimus_ir::Type,
                flags: mimus_ir::MemFlags,
            ) -> std::result::Result<[u64; 2], mimus_ir::Stop> {
                self.core.load(addr, ty, flags)
            }

            #[inline(always)]
            fn store(
                &mut self,
                addr: u64,
                ty: mimus_ir::Type,
                value: [u64; 2],
                flags: mimus_ir::MemFlags,
            ) -> std::result::Result<(), mimus_ir::Stop> {
                self.core.store(addr, ty, value, flags)
            }

            fn rmw(
                &mut self,
                kind: mimus_ir::op::RmwKind,
                addr: u64,
                ty: mimus_ir::Type,
                operand: u64,
            ) -> std::result::Result<(u64, bool), mimus_ir::Stop> {
                self.core.rmw(kind, addr, ty, operand)
            }

            fn cas(
                &mut self,
                addr: u64,
                ty: mimus_ir::Type,
                expected: u64,
                new: u64,
            ) -> std::result::Result<(u64, bool), mimus_ir::Stop> {
                self.core.cas(addr, ty, expected, new)
            }

            #[inline(always)]
            fn call(&mut self, helper: u16, args: [u64; 3], arg: u32) -> std::result::Result<u64, mimus_ir::Stop> {
                $crate::common::guest::GuestCpu::call_helper(self, helper, args, arg)
            }

            fn float(&mut self, info: mimus_ir::VecInfo, operands: [u128; 3]) -> u128 {
                $crate::common::guest::GuestCpu::compute_float(self, info, operands)
            }

            fn trap(&mut self, code: u64) {
                $crate::common::guest::GuestCpu::raise_trap(self, code);
            }
        }
    };
}

/// The bus for one access, which notes when nobody answers.
struct Port<'a, A: Arch> {
    bus: &'a mut A::Bus,
    missing: bool,
}

impl<A: Arch> MmioBus for Port<'_, A> {
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        if A::answers(self.bus, gpa, size) {
            self.bus.mmio_read(gpa, size)
        } else {
            self.missing = true;
            0
        }
    }

    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        if A::answers(self.bus, gpa, size) {
            self.bus.mmio_write(gpa, size, value);
        } else {
            self.missing = true;
        }
    }

    fn ends_block(&self, gpa: u64) -> bool {
        self.bus.ends_block(gpa)
    }
}

/// Makes an access with the bus as `$bus`, and its fault pending.
macro_rules! on_bus {
    ($core:ident, ($addr:expr, $access:expr), $bus:ident => $call:expr) => {
        if A::BUS_FAULTS {
            let mut port = Port::<A> { bus: &mut $core.bus, missing: false };
            let $bus = &mut port;
            match $call {
                Ok(_) if port.missing => Err($core.unanswered($addr, $access)),
                Ok(done) => Ok(done),
                Err(fault) => Err($core.refuse(fault)),
            }
        } else {
            let $bus = &mut *$core.bus;
            let result = $call;
            result.map_err(|fault| $core.refuse(fault))
        }
    };
}

impl<A: Arch> Core<A> {
    /// Offset of [`Core::header`] from the env pointer, in bytes.
    pub const HEADER_OFFSET: usize = std::mem::offset_of!(Core<A>, header);

    /// A core whose MMU has `banks` modes, of which `private` is the one that address spaces differ in most.
    pub fn new(
        state: A::State,
        ram: Arc<Ram>,
        sink: Arc<dyn CodeSink>,
        bus: Box<A::Bus>,
        (banks, private): (usize, usize),
    ) -> Self {
        let mmu = Mmu::new(ram, banks, private, sink);
        Core {
            state,
            header: EnvHeader { watches: mmu.ram.watches(), ..EnvHeader::default() },
            mmu,
            bus,
            pending: None,
            bank: 0,
            contexts: Contexts::default(),
            place: ContextKey::default(),
            single: false,
            in_compiled_code: false,
            jump_caches: Box::default(),
        }
    }

    /// Selects TLB bank, context and jump cache. `mode` is all that translations depend on beside bytes and addresses, `code`
    /// base and limit of the code segment where it is not flat. With `single`, instructions are run one at a time.
    #[inline]
    pub fn select(&mut self, bank: usize, mode: u32, code: (u64, u32), single: bool) {
        (self.bank, self.place, self.single) = (bank, ContextKey { mode, code }, single);
        self.update_mappings();
    }

    /// Recomputes what is derived from the mode and the address space.
    fn update_mappings(&mut self) {
        (self.header.tlb, self.header.tlb_mask) = self.mmu.tlb.select(self.bank);
        self.contexts.select(self.place, self.mmu.space_generation());
        // Single steps and breakpoints are the dispatcher's work: no jump cache has an entry for them.
        self.header.jump_context = if self.single { NO_CONTEXT } else { self.contexts.number() };
        // Address spaces have different code at the same addresses; what they share is in one of its own.
        self.header.use_jump_cache(if self.contexts.bound() { 1 + self.mmu.space() } else { 0 });
    }

    /// Flushes the TLB of all address spaces, everything or but for global pages; `asid` is the current one.
    pub fn flush(&mut self, keep_global: bool, asid: u64) {
        self.mmu.flush(keep_global, asid);
        if !keep_global {
            self.contexts.end_all();
        }
        self.update_mappings();
    }

    /// Enters address space `asid`, whose entries are flushed unless `keep`.
    pub fn enter_space(&mut self, asid: u64, keep: bool) {
        self.mmu.enter_space(asid, keep);
        self.update_mappings();
    }

    /// Flushes the entries of address space `asid` but for global pages.
    pub fn flush_space(&mut self, asid: u64) {
        self.mmu.flush_space(asid);
        self.update_mappings();
    }

    /// Flushes one page of the TLB in every address space.
    pub fn flush_page(&mut self, addr: u64) {
        self.mmu.flush_page(addr);
        if self.contexts.flush_page(addr) {
            self.update_mappings();
        }
    }

    /// What compiled code shares with the runtime.
    #[inline(always)]
    pub fn header(&mut self) -> &mut EnvHeader {
        &mut self.header
    }

    /// Memory.
    #[inline(always)]
    pub fn mmu(&mut self) -> &mut Mmu {
        &mut self.mmu
    }

    /// The header, and the jump caches that it points to.
    #[inline(always)]
    pub fn jump_caches(&mut self) -> (&mut EnvHeader, &mut Box<[JumpCacheEntry]>) {
        (&mut self.header, &mut self.jump_caches)
    }

    /// Says whether compiled code is running ([`Core::in_compiled_code`]).
    #[inline(always)]
    pub fn set_in_compiled_code(&mut self, running: bool) {
        self.in_compiled_code = running;
    }

    /// Number of the present translation context; never 0.
    #[inline]
    pub fn context(&self) -> u64 {
        self.contexts.number()
    }

    /// Ends every context: nothing that leads to code by virtual address may be followed any more.
    pub fn forget_code(&mut self) {
        self.contexts.end_all();
        self.update_mappings();
    }

    /// Takes what leads to guest PC `pc` out of the jump caches.
    pub fn forget_block(&mut self, pc: u64) {
        let mask = self.header.jump_cache_mask;
        let first = jump_cache_offset(pc, mask) as usize / size_of::<JumpCacheEntry>();
        let each = mask as usize / size_of::<JumpCacheEntry>() + 1;
        for cache in 0..JUMP_CACHES {
            if let Some(entry) = self.jump_caches.get_mut(cache * each + first).filter(|entry| entry.pc == pc) {
                *entry = JumpCacheEntry::default();
            }
        }
    }

    /// Nothing leads to the blocks that this vCPU's stores have dropped any more.
    #[cold]
    pub fn forget_dropped(&mut self) {
        let dropped = self.mmu.take_dropped();
        match dropped.pcs() {
            Some(pcs) => pcs.iter().for_each(|&pc| self.forget_block(pc)),
            None => self.forget_code(),
        }
    }

    /// Makes `pending` pending. The instruction at the program counter must have had no side effect yet.
    #[cold]
    pub fn raise(&mut self, pending: A::Pending) -> Raised {
        self.pending = Some(pending);
        self.header.verdict = Verdict::Fault as u32;
        Raised
    }

    /// Forgets what was raised.
    pub fn take_back(&mut self) {
        self.pending = None;
        self.header.verdict = Verdict::Done as u32;
    }

    /// Makes pending what a failed page walk raises; for a watchpoint the instruction is executed by itself.
    #[cold]
    pub fn refuse(&mut self, fault: WalkFault<A>) -> Raised {
        self.raise_or_interpret(A::refused(fault))
    }

    #[cold]
    fn unanswered(&mut self, addr: u64, access: Access) -> Raised {
        self.raise_or_interpret(A::unanswered(addr, access))
    }

    fn raise_or_interpret(&mut self, pending: Option<A::Pending>) -> Raised {
        match pending {
            Some(pending) => self.raise(pending),
            None => {
                self.header.verdict = Verdict::Interpret as u32;
                Raised
            }
        }
    }

    /// Notes that code is fetched from the page of linear address `linear`, which is at `map`, in the current context;
    /// guest-physical address of the byte at `linear`.
    pub fn fetched(&mut self, linear: u64, map: Mapping) -> u64 {
        let space = if map.global { 0 } else { self.mmu.space_generation() };
        if self.contexts.fetched(linear, map.shift, space) {
            self.update_mappings();
        }
        map.gpa | linear & (PAGE_SIZE - 1)
    }

    /// Guest-physical address of an instruction byte at `addr`, by the translations of MMU mode `bank`.
    pub fn fetch(&mut self, bank: usize, addr: u64) -> Result<u64, Raised> {
        match self.mmu.walk(&self.state, bank, addr, Access::Fetch) {
            Ok(map) => Ok(self.fetched(addr, map)),
            Err(fault) => Err(self.refuse(fault)),
        }
    }

    /// Reads a byte of code that is not in RAM.
    pub fn read_code(&mut self, gpa: u64) -> u8 {
        self.mmu.phys_read(&mut *self.bus, gpa, 1) as u8
    }

    /// Whether a guest-physical address is RAM, or a device is there.
    fn exists(&mut self, gpa: u64) -> bool {
        !A::BUS_FAULTS || self.mmu.ram.is_ram(gpa) || A::answers(&mut self.bus, gpa, 1)
    }

    /// Reads a byte at a guest-physical address: RAM or device; 0 where nobody answers.
    pub fn read_physical(&mut self, gpa: u64) -> u8 {
        if self.exists(gpa) { self.read_code(gpa) } else { 0 }
    }

    /// Writes a byte at a guest-physical address: RAM or device. Translated code is dropped where it changes.
    pub fn write_physical(&mut self, gpa: u64, value: u8) {
        if self.exists(gpa) && self.mmu.phys_write(&mut *self.bus, gpa, 1, value.into()) {
            self.forget_dropped();
        }
    }

    /// Reads `size` (1, 2, 4, 8) bytes in MMU mode `bank`.
    #[inline(always)]
    pub fn read_in(&mut self, bank: usize, addr: u64, size: u8, flags: AccessFlags) -> Result<u64, Raised> {
        let access = if flags.contains(AccessFlags::FOR_WRITE) { Access::Write } else { Access::Read };
        on_bus!(self, (addr, access), bus => self.mmu.read(&self.state, bus, bank, addr, size, flags))
    }

    /// Writes the low `size` (1, 2, 4, 8) bytes in MMU mode `bank`. A write to translated code is done, and the code dropped.
    #[inline(always)]
    pub fn write_in(&mut self, bank: usize, addr: u64, size: u8, value: u64) -> Result<(), Raised> {
        let operand = (addr, size, value);
        let stored = on_bus!(self, (addr, Access::Write), bus => {
            self.mmu.write(&self.state, bus, bank, operand, AccessFlags::empty(), CodePolicy::Write)
        })?;
        if stored == Stored::Code {
            self.forget_dropped();
        }
        Ok(())
    }

    /// Replaces an operand by what `new` makes of it in one step, in MMU mode `bank`, for a helper whose block ends with its
    /// instruction: translated code that is hit is dropped. The old value.
    pub fn update_in(
        &mut self,
        bank: usize,
        addr: u64,
        size: u8,
        new: impl FnMut(u128) -> Option<u128>,
    ) -> Result<u128, Raised> {
        let (old, stored) = on_bus!(self, (addr, Access::Write), bus => {
            self.mmu.update(&self.state, bus, bank, (addr, size), CodePolicy::Write, new)
        })?;
        if stored == Stored::Code {
            self.forget_dropped();
        }
        Ok(old)
    }

    /// Checks that `size` bytes can be written with the privilege of the current instruction, writing nothing.
    pub fn probe_write(&mut self, addr: u64, size: u64) -> Result<(), Raised> {
        self.probe_write_in(self.bank, addr, size)
    }

    /// [`Core::probe_write`] in MMU mode `bank`.
    pub fn probe_write_in(&mut self, bank: usize, addr: u64, size: u64) -> Result<(), Raised> {
        let result = self.mmu.probe_write(&self.state, bank, addr, size);
        result.map_err(|fault| self.refuse(fault))
    }

    /// What is to become of an instruction's own store that hits translated code.
    #[inline(always)]
    fn code_policy(&self) -> CodePolicy {
        if self.in_compiled_code { CodePolicy::Refuse(self.header.exit_value) } else { CodePolicy::Write }
    }

    /// A store hit translated code, or a device that ends the block.
    #[cold]
    fn hit_code(&mut self, stored: Stored) -> Result<(), Stop> {
        if stored == Stored::Refused {
            self.header.verdict = Verdict::Interpret as u32;
            return Err(Stop::Fault);
        }
        self.forget_dropped();
        // Not the code that runs, if it is compiled: that would have been refused.
        if self.in_compiled_code { Ok(()) } else { Err(Stop::CodeChanged) }
    }

    /// An instruction's own store of `size` (1, 2, 4, 8) bytes.
    #[inline(always)]
    pub fn store_one(&mut self, addr: u64, size: u8, value: u64, flags: AccessFlags) -> Result<(), Stop> {
        let (policy, operand) = (self.code_policy(), (addr, size, value));
        let stored = on_bus!(self, (addr, Access::Write), bus => {
            self.mmu.write(&self.state, bus, self.bank, operand, flags, policy)
        });
        match stored {
            Ok(Stored::Done) => Ok(()),
            Ok(stored) => self.hit_code(stored),
            Err(Raised) => Err(Stop::Fault),
        }
    }

    /// What [`mimus_ir::Guest::env`] asks for.
    #[inline(always)]
    pub fn env(&mut self) -> &mut [u8] {
        bytemuck::bytes_of_mut(&mut self.state)
    }

    /// What [`mimus_ir::Guest::load`] asks for; a vector is two accesses.
    #[inline(always)]
    pub fn load(&mut self, addr: u64, ty: Type, flags: MemFlags) -> Result<[u64; 2], Stop> {
        let flags = access_flags(flags);
        let size = if ty == Type::V128 { 8 } else { ty.bytes() as u8 };
        let Ok(low) = self.read_in(self.bank, addr, size, flags) else { return Err(Stop::Fault) };
        if ty != Type::V128 {
            return Ok([low, 0]);
        }
        let high = self.read_in(self.bank, addr.wrapping_add(8), 8, flags);
        high.map_or(Err(Stop::Fault), |high| Ok([low, high]))
    }

    /// What [`mimus_ir::Guest::store`] asks for.
    #[inline(always)]
    pub fn store(&mut self, addr: u64, ty: Type, value: [u64; 2], flags: MemFlags) -> Result<(), Stop> {
        let flags = access_flags(flags);
        if ty != Type::V128 {
            return self.store_one(addr, ty.bytes() as u8, value[0], flags);
        }
        // Both halves are checked before either is written.
        if addr & 0xfff > 0xff0 && self.probe_write(addr, 16).is_err() {
            return Err(Stop::Fault);
        }
        let first = self.store_one(addr, 8, value[0], flags);
        if first == Err(Stop::Fault) {
            return first;
        }
        self.store_one(addr.wrapping_add(8), 8, value[1], flags).and(first)
    }

    /// Replaces an operand by what `new` makes of it, as an instruction's own atomic operation; the old value, and whether code
    /// changed.
    pub fn update(&mut self, addr: u64, ty: Type, new: impl FnMut(u128) -> Option<u128>) -> Result<(u64, bool), Stop> {
        let (policy, operand) = (self.code_policy(), (addr, ty.bytes() as u8));
        let updated = on_bus!(self, (addr, Access::Write), bus => {
            self.mmu.update(&self.state, bus, self.bank, operand, policy, new)
        });
        match updated {
            Ok((old, Stored::Done)) => Ok((old as u64, false)),
            Ok((old, stored)) => match self.hit_code(stored) {
                Err(Stop::Fault) => Err(Stop::Fault),
                other => Ok((old as u64, other.is_err())),
            },
            Err(Raised) => Err(Stop::Fault),
        }
    }

    /// What [`mimus_ir::Guest::rmw`] asks for.
    pub fn rmw(&mut self, kind: RmwKind, addr: u64, ty: Type, operand: u64) -> Result<(u64, bool), Stop> {
        self.update(addr, ty, |old| Some(kind.apply(old as u64, operand).into()))
    }

    /// What [`mimus_ir::Guest::cas`] asks for.
    pub fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> Result<(u64, bool), Stop> {
        let expected = u128::from(expected & ty.mask());
        self.update(addr, ty, |old| {
            let kept = if A::FAILED_CAS_WRITES { Some(old) } else { None };
            if old == expected { Some(new.into()) } else { kept }
        })
    }
}
