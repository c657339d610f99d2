//! One x86 vCPU: its env, MMU and bus, and how helpers reach memory and raise exceptions.

use std::collections::BTreeSet;
use std::sync::Arc;

use mimus_ir::Stop;
use mimus_softmmu::{Access, AccessFlags, Backing, CodeSink, MmioBus, Ram, Stored};
use serde::{Deserialize, Serialize};

use crate::common::NoDevices;
use crate::common::vcpu::{Arch, Core};
use crate::has_core;

use super::cpuid::Identity;
use super::exception::Exception;
use super::features::FeatureSet;
use super::mode::Mode;
use super::paging::{PHYSICAL_MASK, PageFault};
use super::state::{Cr0, Cr4, Seg, State, halt, reg};

/// What the machine gives a vCPU beside memory. What is not said is that of a machine without a local APIC, whose time stands
/// still.
pub trait Bus: MmioBus + Send {
    /// IN of `size` (1, 2, 4) bytes.
    fn port_in(&mut self, port: u16, size: u8) -> u32;
    /// As many INs of `size` bytes as fill `to`, whose length is a multiple of that.
    fn port_in_string(&mut self, port: u16, size: u8, to: &mut [u8]) {
        for unit in to.chunks_exact_mut(size.into()) {
            unit.copy_from_slice(&self.port_in(port, size).to_le_bytes()[..unit.len()]);
        }
    }
    /// OUT of `size` (1, 2, 4) bytes.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
    /// OUTs of elements of `size` bytes, one or more; how many were done, which ends behind one that the vCPU has to hear of.
    fn port_out_string(&mut self, port: u16, size: u8, from: &[u8]) -> u64 {
        let mut value = [0; 4];
        value[..size.into()].copy_from_slice(&from[..size.into()]);
        self.port_out(port, size, u32::from_le_bytes(value));
        1
    }
    /// What pages of guest-physical memory reach from now on, if the last OUT or write to IA32_APIC_BASE has changed that: for each
    /// piece its first address and its size in bytes.
    fn take_backings(&mut self) -> Option<Vec<(u64, u64, Backing)>> {
        None
    }
    /// The machine's time stamp counter, before the guest's offset.
    fn tsc(&mut self) -> u64 {
        0
    }
    /// IA32_APIC_BASE.
    fn apic_base(&mut self) -> u64 {
        0
    }
    /// Sets IA32_APIC_BASE; false raises #GP.
    fn set_apic_base(&mut self, value: u64) -> bool {
        let _ = value;
        false
    }
    /// IA32_TSC_DEADLINE, in units of the machine's TSC.
    fn tsc_deadline(&mut self) -> u64 {
        0
    }
    /// Sets IA32_TSC_DEADLINE.
    fn set_tsc_deadline(&mut self, value: u64) {
        let _ = value;
    }
    /// Local APIC task priority, 8 bits.
    fn tpr(&mut self) -> u8 {
        0
    }
    /// Sets the task priority.
    fn set_tpr(&mut self, value: u8) {
        let _ = value;
    }
    /// Drives FERR#, which tells of x87 exceptions where CR0.NE is 0; whether IGNNE# answers that they are ignored.
    fn set_ferr(&mut self, asserted: bool) -> bool {
        let _ = asserted;
        false
    }
}

impl Bus for NoDevices {
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_out(&mut self, _: u16, _: u8, _: u32) {}
}

/// A fault was raised and is pending in the vCPU; the helper must return.
pub use crate::common::vcpu::Raised;

/// The result of what may raise an exception.
pub type Result<T> = std::result::Result<T, Raised>;

/// MMU modes, each with a bank of the TLB.
#[allow(missing_docs)]
pub mod bank {
    /// CPL below 3, user pages accessible.
    pub const KERNEL: usize = 0;
    /// CPL 3.
    pub const USER: usize = 1;
    /// CPL below 3 with SMAP in force.
    pub const KERNEL_SMAP: usize = 2;
    pub const COUNT: usize = 3;
}

/// Features a machine may switch off; everything on by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Features {
    /// 57-bit linear addresses.
    pub la57: bool,
    /// TSC frequency in Hz, told by CPUID where it has a leaf for it.
    pub tsc_hz: u64,
    /// What CPUID does not tell of, though it is there.
    pub hidden: FeatureSet,
    /// The hypervisor's name in CPUID.
    pub hypervisor: [u8; 12],
    /// What CPUID says that the CPU is.
    pub identity: Identity,
}

impl Default for Features {
    fn default() -> Self {
        Features {
            la57: false,
            tsc_hz: 1_000_000_000,
            hidden: FeatureSet::default(),
            hypervisor: *b"mimusmimus  ",
            identity: Identity::default(),
        }
    }
}

/// One x86 vCPU. Its address is the env pointer: its core comes first.
#[repr(C)]
pub struct Cpu {
    pub(super) core: Core<Cpu>,
    /// What translated code depends on; [`Cpu::update_mode`] keeps it.
    pub mode: Mode,
    /// Set when the vCPU shut down: a fault while delivering a double fault.
    pub triple_fault: bool,
    /// Whether an interrupt waits for RFLAGS.IF; the machine keeps it.
    pub interrupt_waits: bool,
    /// Whether a single-step trap follows the instruction that is being executed by itself.
    pub step_trap: bool,
    /// CPU features.
    pub features: Features,
    /// Interrupts and exceptions delivered, by vector.
    pub vectors: Box<[u64; 256]>,
    /// MSRs that do not exist and were used, as far as they have been logged.
    pub unknown_msrs: BTreeSet<u32>,
}

has_core!(Cpu);

impl Arch for Cpu {
    type State = State;
    type Bus = dyn Bus;
    type Pending = Exception;

    // CMPXCHG (SDM vol. 2A).
    const FAILED_CAS_WRITES: bool = true;

    fn refused(fault: PageFault) -> Option<Exception> {
        match fault {
            PageFault::Page { addr, code } => Some(Exception::page_fault(addr, code.bits())),
            PageFault::NonCanonical => Some(Exception::non_canonical()),
            PageFault::Watched => None,
        }
    }
}

/// Offset of the header from the env pointer, in bytes.
pub const HEADER_OFFSET: usize = Core::<Cpu>::HEADER_OFFSET;

/// Offset from the env pointer of MXCSR, which is the floating-point environment as it is; in bytes.
const FP_ENV_OFFSET: u32 = std::mem::offset_of!(State, fp_env) as u32 + if cfg!(target_endian = "big") { 4 } else { 0 };

impl Cpu {
    /// A vCPU in its reset state.
    pub fn new(ram: Arc<Ram>, sink: Arc<dyn CodeSink>, bus: Box<dyn Bus>, features: Features) -> Box<Cpu> {
        let mut cpu = Box::new(Cpu {
            core: Core::new(State::default(), ram, sink, bus, (bank::COUNT, bank::USER)),
            mode: Mode::default(),
            triple_fault: false,
            interrupt_waits: false,
            step_trap: false,
            features,
            vectors: Box::new([0; 256]),
            unknown_msrs: BTreeSet::new(),
        });
        cpu.header.fp_env_offset = FP_ENV_OFFSET;
        cpu.update_mode();
        cpu
    }

    /// Back to the reset state, where all but the bootstrap processor wait for a start-up IPI; memory and devices are the machine's to
    /// reset.
    pub fn reset(&mut self) {
        self.start_from(State::default());
        self.state.gpr[reg::RDX] = self.features.identity.signature.into();
    }

    /// INIT: back to the reset state, but for the x87 unit, SSE registers, time, and MSRs other than IA32_EFER (SDM vol. 3A, table
    /// 9-1). All but the bootstrap processor wait for a start-up IPI then.
    pub fn init(&mut self) {
        let old = self.state;
        let mut state = State { fpu: old.fpu, xmm: old.xmm, fp_env: old.fp_env, ferr: old.ferr, ..State::default() };
        state.cr0 = state.cr0 & !(Cr0::CD | Cr0::NW) | old.cr0 & (Cr0::CD | Cr0::NW);
        (state.star, state.lstar, state.cstar, state.sfmask) = (old.star, old.lstar, old.cstar, old.sfmask);
        (state.sysenter_cs, state.sysenter_esp, state.sysenter_eip) =
            (old.sysenter_cs, old.sysenter_esp, old.sysenter_eip);
        (state.kernel_gs_base, state.pat, state.tsc_aux, state.tsc_offset) =
            (old.kernel_gs_base, old.pat, old.tsc_aux, old.tsc_offset);
        (state.mtrr_def_type, state.mtrr_fixed, state.mtrr_var) = (old.mtrr_def_type, old.mtrr_fixed, old.mtrr_var);
        (state.misc_enable, state.spec_ctrl, state.xcr0) = (old.misc_enable, old.spec_ctrl, old.xcr0);
        self.start_from(state);
        self.state.gpr[reg::RDX] = self.features.identity.signature.into();
    }

    /// Goes on from `state`, whatever was going on.
    fn start_from(&mut self, state: State) {
        self.state = state;
        if self.is_application_processor() {
            self.state.halted = halt::START_UP;
        }
        self.pending = None;
        self.header.verdict = 0;
        self.triple_fault = false;
        self.flush_tlb(false);
        self.update_mode();
        self.update_data_breakpoints();
    }

    /// Recomputes everything that is derived from control registers, segments and flags. To be called after any change of
    /// CR0, CR4, EFER, CS, SS, another segment's flatness, CPL, MXCSR, or the flags TF, AC, VM.
    pub fn update_mode(&mut self) {
        self.state.sync_seg_bases();
        self.mode = Mode::of(&self.state);
        let cs = &self.state.seg[Seg::Cs as usize];
        let code = if self.mode.intersects(Mode::CS_FLAT) {
            (0, 0)
        } else {
            (self.state.seg_base[Seg::Cs as usize], cs.limit)
        };
        let mode = self.mode;
        self.core.select(mode.bank(), mode.bits(), code, mode.intersects(Mode::TF | Mode::BREAKPOINTS));
    }

    /// Flushes the TLB of all address spaces, everything or but for global pages.
    pub fn flush_tlb(&mut self, keep_global: bool) {
        let pcid = self.pcid();
        self.core.flush(keep_global, pcid);
    }

    /// OUT of `size` bytes, and what it changes in the memory map.
    pub fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.bus.port_out(port, size, value);
        self.follow_memory_map();
    }

    /// OUTs of elements of `size` bytes, one or more, and what they change in the memory map; how many were done.
    pub(crate) fn port_out_string(&mut self, port: u16, size: u8, from: &[u8]) -> u64 {
        let done = self.bus.port_out_string(port, size, from);
        self.follow_memory_map();
        done
    }

    /// Writes IA32_APIC_BASE, and what it changes in the memory map; false raises #GP.
    pub(crate) fn set_apic_base(&mut self, value: u64) -> bool {
        let accepted = value & !PHYSICAL_MASK == 0 && self.bus.set_apic_base(value);
        self.follow_memory_map();
        accepted
    }

    fn follow_memory_map(&mut self) {
        if let Some(pieces) = self.bus.take_backings() {
            self.set_backings(&pieces);
        }
    }

    /// Says what pages of guest-physical memory reach: for each piece its first address and its size in bytes.
    pub fn set_backings(&mut self, pieces: &[(u64, u64, Backing)]) {
        if self.mmu.set_backings(pieces) {
            self.forget_dropped();
            self.flush_tlb(false);
        }
    }

    /// Guest-physical address of an instruction byte at linear address `addr`.
    pub fn translate_fetch(&mut self, addr: u64) -> Result<u64> {
        let core = &mut self.core;
        match core.mmu.walk(&core.state, core.bank, addr, Access::Fetch) {
            Ok(map) => Ok(core.fetched(core.state.linear(addr), map)),
            Err(fault) => Err(core.refuse(fault)),
        }
    }

    /// Reads `size` (1, 2, 4, 8) bytes at a linear address with the privilege of the current instruction.
    #[inline]
    pub fn read(&mut self, addr: u64, size: u8) -> Result<u64> {
        self.read_as(self.bank, addr, size)
    }

    /// Reads in MMU mode `bank`.
    #[inline]
    pub fn read_as(&mut self, bank: usize, addr: u64, size: u8) -> Result<u64> {
        self.core.read_in(bank, addr, size, AccessFlags::empty())
    }

    /// Writes the low `size` (1, 2, 4, 8) bytes with the privilege of the current instruction. A write to translated
    /// code is done, and the code dropped.
    #[inline]
    pub fn write(&mut self, addr: u64, size: u8, value: u64) -> Result<()> {
        self.write_as(self.bank, addr, size, value)
    }

    /// Writes in MMU mode `bank`.
    #[inline]
    pub fn write_as(&mut self, bank: usize, addr: u64, size: u8, value: u64) -> Result<()> {
        self.core.write_in(bank, addr, size, value)
    }

    /// Reads as the processor itself does from GDT, LDT, IDT and TSS: with supervisor privilege.
    pub fn read_system(&mut self, addr: u64, size: u8) -> Result<u64> {
        self.unrefused(|cpu| cpu.read_as(cpu.system_bank(), addr, size))
    }

    /// Writes as the processor itself does to descriptors and TSS: with supervisor privilege.
    pub fn write_system(&mut self, addr: u64, size: u8, value: u64) -> Result<()> {
        self.unrefused(|cpu| cpu.write_as(cpu.system_bank(), addr, size, value))
    }

    /// Sets or clears bits of a byte of a descriptor, as the processor itself does: in one step.
    pub fn update_system(&mut self, addr: u64, set: u8, clear: u8) -> Result<()> {
        let new = |old| Some((old | u128::from(set)) & !u128::from(clear));
        let bank = self.system_bank();
        self.unrefused(|cpu| cpu.update_in(bank, addr, 1, new)).map(drop)
    }

    /// Makes accesses that watchpoints note but do not refuse: they are not the instruction's own.
    fn unrefused<T>(&mut self, f: impl FnOnce(&mut Cpu) -> T) -> T {
        let refuse = std::mem::take(&mut self.mmu.watches.refuse);
        let result = f(self);
        self.mmu.watches.refuse = refuse;
        result
    }

    /// MMU mode of implicit supervisor accesses: SMAP is in force whatever EFLAGS.AC says (SDM vol. 3A, 4.6.1).
    fn system_bank(&self) -> usize {
        if self.state.cr4.contains(Cr4::SMAP) { bank::KERNEL_SMAP } else { bank::KERNEL }
    }

    /// RSP masked to the stack width.
    pub fn stack_mask(&self) -> u64 {
        self.mode.stack_mask()
    }

    /// Writes the stack pointer, leaving the bits above the stack width alone.
    pub fn set_sp(&mut self, value: u64) {
        let mask = self.stack_mask();
        let old = self.state.gpr[reg::RSP];
        self.state.gpr[reg::RSP] = if mask == 0xffff_ffff { value & mask } else { old & !mask | value & mask };
    }

    /// Writes an operand of up to 10 bytes as an instruction's own store: all of it or, where a page is missing, nothing. Where
    /// translated code would be changed and may not be, the instruction is to be started again by the interpreter.
    pub(crate) fn store_operand(&mut self, addr: u64, bytes: &[u8]) -> Result<Stored> {
        self.probe_write(addr, bytes.len() as u64)?;
        let mut stored = Stored::Done;
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let value = chunk.iter().rev().fold(0, |acc, &byte| acc << 8 | u64::from(byte));
            match self.store_one(addr.wrapping_add(8 * i as u64), chunk.len() as u8, value, AccessFlags::empty()) {
                Ok(()) => {}
                Err(Stop::CodeChanged) => stored = Stored::Code,
                Err(Stop::Fault) => return Err(Raised),
            }
        }
        Ok(stored)
    }
}
