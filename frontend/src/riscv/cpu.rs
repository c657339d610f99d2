//! One RISC-V vCPU: its env, MMU and bus, and how helpers reach memory.

use std::sync::Arc;

use mimus_ir::Stop;
use mimus_softmmu::bulk::Elements;
use mimus_softmmu::{Access, AccessFlags, CodeSink, PAGE_SIZE, Ram, Verdict};
use serde::{Deserialize, Serialize};

use super::bus::{Bus, Lines};
use super::mode::Mode;
use super::paging::{access_fault, satp};
use super::semihost::Semihosting;
use super::state::{Envcfg, Mstatus, State, privilege};
use super::trap::{Pending, Trap, cause};
use crate::common::vcpu::{Arch, Core, Raised};
use crate::has_core;

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

/// One RISC-V vCPU. Its address is the env pointer: its core comes first.
#[repr(C)]
pub struct Cpu {
    pub(super) core: Core<Cpu>,
    /// Interrupt lines.
    pub lines: Lines,
    /// What translated code depends on; [`Cpu::update_mode`] keeps it.
    pub mode: Mode,
    /// What the machine decided.
    pub features: Features,
    /// Traps taken.
    pub traps: TrapCounts,
    /// Calls to the host, if a program may make them.
    pub semihosting: Option<Semihosting>,
}

has_core!(Cpu);

impl Arch for Cpu {
    type State = State;
    type Bus = dyn Bus;
    type Pending = Pending;

    const BUS_FAULTS: bool = true;

    fn refused(trap: Trap) -> Option<Pending> {
        if trap == Trap::WATCHED { None } else { Some(Pending::Trap(trap)) }
    }

    fn answers(bus: &mut (dyn Bus + 'static), gpa: u64, size: u8) -> bool {
        bus.exists(gpa, size)
    }

    fn unanswered(addr: u64, access: Access) -> Option<Pending> {
        Some(Pending::Trap(Trap { cause: access_fault(access), tval: addr }))
    }
}

/// Offset of [`State::fp_env`]'s low half from the env pointer, in bytes.
const FP_ENV_OFFSET: u32 = std::mem::offset_of!(State, fp_env) as u32 + if cfg!(target_endian = "big") { 4 } else { 0 };

impl Cpu {
    /// A vCPU in its reset state.
    pub fn new(ram: Arc<Ram>, sink: Arc<dyn CodeSink>, bus: Box<dyn Bus>, features: Features) -> Box<Cpu> {
        let mut cpu = Box::new(Cpu {
            core: Core::new(State::default(), ram, sink, bus, (bank::COUNT, bank::USER)),
            lines: Lines::default(),
            mode: Mode::default(),
            features,
            traps: TrapCounts::default(),
            semihosting: None,
        });
        cpu.header.fp_env_offset = FP_ENV_OFFSET;
        cpu.reset();
        cpu
    }

    /// Back to the reset state; memory, devices and lines are the machine's to reset.
    pub fn reset(&mut self) {
        // With Svadu and without Svade, accessed and dirty bits are written from the beginning on, as by QEMU's harts.
        self.state = State { pc: self.features.reset_pc, menvcfg: Envcfg::ADUE, ..State::default() };
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
            privilege::SUPERVISOR if self.state.mstatus.intersects(Mstatus::SUM) => bank::SUPERVISOR_SUM,
            privilege::SUPERVISOR => bank::SUPERVISOR,
            _ => bank::MACHINE,
        }
    }

    /// Recomputes everything that is derived from registers. To be called after any change of the privilege mode, mstatus,
    /// or frm.
    pub fn update_mode(&mut self) {
        self.mode = Mode::of(&self.state);
        let bank = self.bank_of(self.state.data_privilege());
        let mode = self.mode.bits();
        self.core.select(bank, mode, (0, 0), false);
    }

    /// The address space of satp.
    fn asid(&self) -> u64 {
        self.state.satp >> satp::ASID_SHIFT & satp::ASID
    }

    /// Flushes the TLB of all address spaces.
    pub fn flush_tlb(&mut self) {
        let asid = self.asid();
        self.core.flush(false, asid);
    }

    /// Enters the address space of satp as it is now.
    pub(crate) fn enter_space(&mut self) {
        let asid = self.asid();
        self.core.enter_space(asid, true);
    }

    /// Flushes the entries of an address space but for global pages.
    pub(crate) fn flush_space(&mut self, asid: u64) {
        self.core.flush_space(asid & satp::ASID);
    }

    /// Guest-physical address of an instruction byte at virtual address `addr`.
    pub fn translate_fetch(&mut self, addr: u64) -> Result<u64> {
        let bank = self.bank_of(self.state.privilege);
        let core = &mut self.core;
        let map = match core.mmu.walk(&core.state, bank, addr, Access::Fetch) {
            Ok(map) => map,
            Err(trap) => return Err(core.refuse(trap)),
        };
        if !core.mmu.ram.is_ram(map.gpa) && !core.bus.exists(map.gpa | addr & (PAGE_SIZE - 1), 2) {
            return Err(self.raise(Trap { cause: cause::FETCH_ACCESS_FAULT, tval: addr }));
        }
        Ok(core.fetched(addr, map))
    }

    /// Checks that `size` bytes can be read, or written with `write`, with the privilege of loads and stores.
    pub(crate) fn probe(&mut self, addr: u64, size: u64, write: bool) -> Result<()> {
        let access = if write { Access::Write } else { Access::Read };
        let core = &mut self.core;
        let result = core.mmu.translate(&core.state, core.bank, addr, access);
        let first = PAGE_SIZE - (addr & (PAGE_SIZE - 1));
        let result = result.and_then(|gpa| {
            if size <= first {
                return Ok(gpa);
            }
            core.mmu.translate(&core.state, core.bank, addr.wrapping_add(first), access)
        });
        match result {
            Ok(_) => Ok(()),
            Err(trap) => Err(core.refuse(trap)),
        }
    }

    /// The pending exception's address is `addr`, not that of the first byte looked at.
    pub(crate) fn fault_address(&mut self, addr: u64) {
        if let Some(Pending::Trap(trap)) = &mut self.pending {
            trap.tval = addr;
        }
    }

    /// Tells the machine when stimecmp wants to be looked at.
    pub(crate) fn arm_timer(&mut self) {
        let armed = self.state.menvcfg.intersects(Envcfg::STCE);
        let deadline = if armed { self.state.stimecmp } else { u64::MAX };
        self.bus.set_timer(deadline);
    }

    /// Writes zeros to the cache block of `addr` (CBO.ZERO); whether code was changed.
    pub(crate) fn zero_block(&mut self, addr: u64) -> std::result::Result<(), Stop> {
        let words = super::isa::CACHE_BLOCK / 8;
        // What cannot be written at once (no RAM, or watched) is written singly, and so are faults found again.
        let core = &mut self.core;
        let elements = Elements { size: 8, count: words, down: false };
        let done = core.mmu.fill(&core.state, core.bank, addr, elements, 0).unwrap_or(0);
        let mut result = Ok(());
        for at in (done..words).map(|word| 8 * word) {
            match self.store_one(addr.wrapping_add(at), 8, 0, AccessFlags::empty()) {
                Ok(()) => {}
                Err(Stop::CodeChanged) => result = Err(Stop::CodeChanged),
                Err(Stop::Fault) => return Err(Stop::Fault),
            }
        }
        result
    }
}
