//! One RISC-V vCPU: its env, MMU and bus, and how helpers reach memory.

use std::sync::Arc;

use mimus_ir::op::RmwKind;
use mimus_ir::{Guest, MemFlags, Stop, Type, VecInfo};
use mimus_softmmu::{
    Access, CodePolicy, CodeSink, EnvHeader, JumpCacheEntry, MmioBus, Mmu, PAGE_SIZE, Ram, Stored, Verdict,
};
use serde::{Deserialize, Serialize};

use super::bus::{Bus, Lines};
use super::float;
use super::helpers;
use super::mode::Mode;
use super::paging::{access_fault, satp};
use super::semihost::Semihosting;
use super::state::{State, envcfg, mstatus, privilege};
use super::trap::{Pending, Trap, TrapCode, cause};
use crate::common::context::{Contexts, Place};
use crate::common::guest::{GuestCpu, Raised};

/// The result of what may raise an exception.
pub type Result<T> = std::result::Result<T, Raised>;

/// MMU modes, each with a bank of the TLB.
#[allow(missing_docs)]
pub mod bank {
    pub const MACHINE: usize = 0;
    pub const USER: usize = 1;
    /// Supervisor mode, to which user pages are closed.
    pub const SUPERVISOR: usize = 2;
    /// Supervisor mode with mstatus.SUM.
    pub const SUPERVISOR_SUM: usize = 3;
    pub const COUNT: usize = 4;
}

/// Jump caches that a vCPU is to have: one for code that all address spaces share, and one for each of those kept.
pub const JUMP_CACHES: usize = 1 + mimus_softmmu::SPACES;

/// What a machine decides about a hart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Features {
    /// mhartid.
    pub hart: u64,
    /// Where it starts after reset.
    pub reset_pc: u64,
}

/// Traps taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TrapCounts {
    /// Exceptions, environment calls included.
    pub exceptions: u64,
    /// Interrupts.
    pub interrupts: u64,
}

/// One RISC-V vCPU. Its address is the env pointer: `state` comes first, the header that compiled code shares with the runtime
/// follows.
#[repr(C)]
pub struct Cpu {
    /// Registers.
    pub state: State,
    /// What compiled code shares with the runtime.
    pub header: EnvHeader,
    /// Memory.
    pub mmu: Mmu,
    /// Devices.
    pub bus: Box<dyn Bus>,
    /// Interrupt lines.
    pub lines: Lines,
    /// What the instruction at `state.pc` has raised, not delivered yet.
    pub pending: Option<Pending>,
    /// TLB bank of loads and stores; [`Cpu::update_mode`] keeps it.
    pub bank: usize,
    /// What translated code depends on; [`Cpu::update_mode`] keeps it.
    pub mode: Mode,
    /// What is known by virtual address holds in one of these; [`Cpu::update_mode`] and flushes keep the current one.
    pub contexts: Contexts,
    /// Whether compiled code is running, which cannot stop behind a store that changes the rest of its block.
    pub in_compiled_code: bool,
    /// The jump caches; [`EnvHeader::jump_cache`] is the one in use.
    pub jump_caches: Box<[JumpCacheEntry]>,
    /// What the machine decided.
    pub features: Features,
    /// Traps taken.
    pub traps: TrapCounts,
    /// Calls to the host, if a program may make them.
    pub semihosting: Option<Semihosting>,
}

/// Offset of the [`EnvHeader`] from the env pointer, in bytes.
pub const HEADER_OFFSET: usize = std::mem::offset_of!(Cpu, header);

/// Offset of [`State::mxcsr`]'s low half from the env pointer, in bytes.
const MXCSR_OFFSET: u32 = (std::mem::offset_of!(Cpu, state) + std::mem::offset_of!(State, mxcsr)) as u32
    + if cfg!(target_endian = "big") { 4 } else { 0 };

/// The bus for one access, which notes when nobody answers.
struct Port<'a> {
    bus: &'a mut dyn Bus,
    missing: bool,
}

impl MmioBus for Port<'_> {
    fn mmio_read(&mut self, gpa: u64, size: u8) -> u64 {
        if self.bus.exists(gpa, size) {
            self.bus.mmio_read(gpa, size)
        } else {
            self.missing = true;
            0
        }
    }

    fn mmio_write(&mut self, gpa: u64, size: u8, value: u64) {
        if self.bus.exists(gpa, size) {
            self.bus.mmio_write(gpa, size, value);
        } else {
            self.missing = true;
        }
    }

    fn ends_block(&self, gpa: u64) -> bool {
        self.bus.ends_block(gpa)
    }
}

impl Cpu {
    /// A vCPU in its reset state.
    pub fn new(ram: Arc<Ram>, sink: Arc<dyn CodeSink>, bus: Box<dyn Bus>, features: Features) -> Box<Cpu> {
        let mut cpu = Box::new(Cpu {
            state: State::default(),
            header: EnvHeader { mxcsr_offset: MXCSR_OFFSET, ..EnvHeader::default() },
            mmu: Mmu::new(ram, bank::COUNT, bank::USER, sink),
            bus,
            lines: Lines::default(),
            pending: None,
            bank: bank::MACHINE,
            mode: Mode::default(),
            contexts: Contexts::default(),
            in_compiled_code: false,
            jump_caches: Box::default(),
            features,
            traps: TrapCounts::default(),
            semihosting: None,
        });
        cpu.header.watches = cpu.mmu.ram.watches();
        cpu.reset();
        cpu
    }

    /// Back to the reset state; memory, devices and lines are the machine's to reset.
    pub fn reset(&mut self) {
        // With Svadu and without Svade, accessed and dirty bits are written from the beginning on, as by QEMU's harts.
        self.state = State { pc: self.features.reset_pc, menvcfg: envcfg::ADUE, ..State::default() };
        self.pending = None;
        self.header.verdict = Verdict::Done as u32;
        self.bus.set_timer(u64::MAX);
        self.flush_tlb();
        self.update_mode();
    }

    /// TLB bank of accesses with a privilege.
    fn bank_of(&self, level: u64) -> usize {
        match level {
            privilege::USER => bank::USER,
            privilege::SUPERVISOR if self.state.mstatus & mstatus::SUM != 0 => bank::SUPERVISOR_SUM,
            privilege::SUPERVISOR => bank::SUPERVISOR,
            _ => bank::MACHINE,
        }
    }

    /// Recomputes everything that is derived from registers. To be called after any change of the privilege mode, mstatus,
    /// or frm.
    pub fn update_mode(&mut self) {
        self.mode = Mode::of(&self.state);
        self.bank = self.bank_of(self.state.data_privilege());
        self.update_mappings();
    }

    /// Recomputes what is derived from the mode and the address space.
    fn update_mappings(&mut self) {
        (self.header.tlb, self.header.tlb_mask) = self.mmu.tlb.select(self.bank);
        self.contexts.select(Place { mode: self.mode.0, code: (0, 0) }, self.mmu.space_generation());
        self.header.jump_context = self.contexts.number();
        // Address spaces have different code at the same addresses; what they share is in one of its own.
        self.header.use_jump_cache(if self.contexts.bound() { 1 + self.mmu.space() } else { 0 });
    }

    /// The address space of satp.
    fn asid(&self) -> u64 {
        self.state.satp >> satp::ASID_SHIFT & satp::ASID
    }

    /// Flushes the TLB of all address spaces.
    pub fn flush_tlb(&mut self) {
        self.mmu.flush(false, self.asid());
        self.contexts.end_all();
        self.update_mappings();
    }

    /// Enters the address space of satp as it is now.
    pub(crate) fn enter_space(&mut self) {
        self.mmu.enter_space(self.asid(), true);
        self.update_mappings();
    }

    /// Flushes the entries of an address space but for global pages.
    pub(crate) fn flush_space(&mut self, asid: u64) {
        self.mmu.flush_space(asid & satp::ASID);
        self.update_mappings();
    }

    /// Flushes one page of the TLB in every address space.
    pub(crate) fn flush_page(&mut self, addr: u64) {
        self.mmu.flush_page(addr);
        if self.contexts.flush_page(addr) {
            self.update_mappings();
        }
    }

    /// Ends every context: nothing that leads to code by virtual address may be followed any more.
    pub fn forget_code(&mut self) {
        self.contexts.end_all();
        self.update_mappings();
    }

    /// Guest-physical address of an instruction byte at virtual address `addr`.
    pub fn translate_fetch(&mut self, addr: u64) -> Result<u64> {
        let bank = self.bank_of(self.state.privilege);
        let map = match self.mmu.walk(&self.state, bank, addr, Access::Fetch) {
            Ok(map) => map,
            Err(trap) => return Err(self.raise(trap)),
        };
        if !self.mmu.ram.is_ram(map.gpa) && !self.bus.exists(map.gpa | addr & (PAGE_SIZE - 1), 2) {
            return Err(self.raise(Trap { cause: cause::FETCH_ACCESS_FAULT, tval: addr }));
        }
        let space = if map.global { 0 } else { self.mmu.space_generation() };
        if self.contexts.fetched(addr, map.shift, space) {
            self.update_mappings();
        }
        Ok(map.gpa | addr & (PAGE_SIZE - 1))
    }

    /// Reads `size` (1, 2, 4, 8) bytes with the privilege of loads; with `for_write`, as the first half of a store.
    #[inline(always)]
    pub(crate) fn load_one(&mut self, addr: u64, size: u8, for_write: bool) -> Result<u64> {
        let mut port = Port { bus: &mut *self.bus, missing: false };
        match self.mmu.read(&self.state, &mut port, self.bank, addr, size, for_write) {
            Ok(value) if !port.missing => Ok(value),
            Ok(_) => {
                let access = if for_write { Access::Write } else { Access::Read };
                Err(self.raise(Trap { cause: access_fault(access), tval: addr }))
            }
            Err(trap) => Err(self.raise(trap)),
        }
    }

    /// What is to become of an instruction's own store that hits translated code.
    fn code_policy(&self) -> CodePolicy {
        if self.in_compiled_code { CodePolicy::Refuse(self.header.exit_value) } else { CodePolicy::Write }
    }

    /// Replaces an operand by what `new` makes of it, as an atomic instruction does; the old value, and whether code changed.
    /// Never weaker than with both aq and rl.
    fn update(
        &mut self,
        addr: u64,
        ty: Type,
        new: impl FnMut(u128) -> Option<u128>,
    ) -> std::result::Result<(u64, bool), Stop> {
        let (policy, operand) = (self.code_policy(), (addr, ty.bytes() as u8));
        let mut port = Port { bus: &mut *self.bus, missing: false };
        let trap = match self.mmu.update(&self.state, &mut port, self.bank, operand, policy, new) {
            Ok(_) if port.missing => Trap { cause: cause::STORE_ACCESS_FAULT, tval: addr },
            Ok((old, Stored::Done)) => return Ok((old as u64, false)),
            Ok((old, stored)) => {
                return match self.hit_code(stored) {
                    Err(Stop::Fault) => Err(Stop::Fault),
                    other => Ok((old as u64, other.is_err())),
                };
            }
            Err(trap) => trap,
        };
        self.raise(trap);
        Err(Stop::Fault)
    }

    #[inline(always)]
    pub(crate) fn store_one(&mut self, addr: u64, size: u8, value: u64) -> std::result::Result<(), Stop> {
        let policy = self.code_policy();
        let mut port = Port { bus: &mut *self.bus, missing: false };
        let result = self.mmu.write(&self.state, &mut port, self.bank, (addr, size, value), policy);
        let trap = match result {
            Ok(_) if port.missing => Trap { cause: cause::STORE_ACCESS_FAULT, tval: addr },
            Ok(Stored::Done) => return Ok(()),
            Ok(stored) => return self.hit_code(stored),
            Err(trap) => trap,
        };
        self.raise(trap);
        Err(Stop::Fault)
    }

    /// A store hit translated code, or a device that ends the block.
    #[cold]
    fn hit_code(&mut self, stored: Stored) -> std::result::Result<(), Stop> {
        if stored == Stored::Refused {
            self.header.verdict = Verdict::Interpret as u32;
            return Err(Stop::Fault);
        }
        self.forget_dropped();
        // Not the code that runs, if it is compiled: that would have been refused.
        if self.in_compiled_code { Ok(()) } else { Err(Stop::CodeChanged) }
    }

    /// Checks that `size` bytes can be read, or written with `write`, with the privilege of loads and stores.
    pub(crate) fn probe(&mut self, addr: u64, size: u64, write: bool) -> Result<()> {
        let access = if write { Access::Write } else { Access::Read };
        let result = self.mmu.translate(&self.state, self.bank, addr, access);
        let first = PAGE_SIZE - (addr & (PAGE_SIZE - 1));
        let result = result.and_then(|gpa| {
            if size <= first {
                return Ok(gpa);
            }
            self.mmu.translate(&self.state, self.bank, addr.wrapping_add(first), access)
        });
        match result {
            Ok(_) => Ok(()),
            Err(trap) => Err(self.raise(trap)),
        }
    }

    /// Forgets a fault that was raised to find something out.
    pub(crate) fn take_back(&mut self) {
        self.pending = None;
        self.header.verdict = Verdict::Done as u32;
    }

    /// The pending exception's address is `addr`, not that of the first byte looked at.
    pub(crate) fn fault_address(&mut self, addr: u64) {
        if let Some(Pending::Trap(trap)) = &mut self.pending {
            trap.tval = addr;
        }
    }

    /// Tells the machine when stimecmp wants to be looked at.
    pub(crate) fn arm_timer(&mut self) {
        let armed = self.state.menvcfg & envcfg::STCE != 0;
        self.bus.set_timer(if armed { self.state.stimecmp } else { u64::MAX });
    }

    /// Writes zeros to the cache block of `addr` (CBO.ZERO); whether code was changed.
    pub(crate) fn zero_block(&mut self, addr: u64) -> std::result::Result<(), Stop> {
        let words = super::isa::CACHE_BLOCK / 8;
        // What cannot be written at once (no RAM, or watched) is written singly, and so are faults found again.
        let done = self.mmu.fill(&self.state, self.bank, addr, (8, 0), words).unwrap_or(0);
        let mut result = Ok(());
        for at in (done..words).map(|word| 8 * word) {
            match self.store_one(addr.wrapping_add(at), 8, 0) {
                Ok(()) => {}
                Err(Stop::CodeChanged) => result = Err(Stop::CodeChanged),
                Err(Stop::Fault) => return Err(Stop::Fault),
            }
        }
        result
    }
}

impl Guest for Cpu {
    #[inline(always)]
    fn env(&mut self) -> &mut [u8] {
        bytemuck::bytes_of_mut(&mut self.state)
    }

    #[inline(always)]
    fn load(&mut self, addr: u64, ty: Type, flags: MemFlags) -> std::result::Result<[u64; 2], Stop> {
        // No instruction loads 128 bits.
        let size = ty.bytes().min(8) as u8;
        match self.load_one(addr, size, flags.has(MemFlags::FOR_WRITE)) {
            Ok(value) => Ok([value, 0]),
            Err(Raised) => Err(Stop::Fault),
        }
    }

    #[inline(always)]
    fn store(&mut self, addr: u64, ty: Type, value: [u64; 2], _: MemFlags) -> std::result::Result<(), Stop> {
        self.store_one(addr, ty.bytes().min(8) as u8, value[0])
    }

    fn rmw(&mut self, kind: RmwKind, addr: u64, ty: Type, operand: u64) -> std::result::Result<(u64, bool), Stop> {
        let new = |old| Some(kind.apply(old as u64, operand).into());
        self.update(addr, ty, new)
    }

    fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> std::result::Result<(u64, bool), Stop> {
        let expected = u128::from(expected & ty.mask());
        self.update(addr, ty, |old| (old == expected).then_some(new.into()))
    }

    #[inline(always)]
    fn call(&mut self, helper: u16, args: [u64; 3], arg: u32) -> std::result::Result<u64, Stop> {
        let Some(row) = helpers::TABLE.get(usize::from(helper)) else { return Err(Stop::Fault) };
        let value = (row.function)(self, args[0], args[1], args[2], arg);
        if self.header.verdict != 0 { Err(Stop::Fault) } else { Ok(value) }
    }

    fn float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128 {
        float::operation(&mut self.state, info, operands)
    }

    fn trap(&mut self, code: u64) {
        match TrapCode::decode(code) {
            TrapCode::Known(trap) => self.set_pending(Pending::Trap(trap)),
            TrapCode::Register { cause, register } => {
                let tval = self.state.x[usize::from(register & 31)];
                self.set_pending(Pending::Trap(Trap { cause, tval }));
            }
            TrapCode::FailedStore { rd } => self.set_pending(Pending::FailedStore { rd }),
            TrapCode::Float { word } => self.set_pending(Pending::Float { word }),
            TrapCode::Retry => self.header.verdict = Verdict::Again as u32,
        }
    }
}
