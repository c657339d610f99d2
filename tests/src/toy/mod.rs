//! A toy guest, which shows that a guest needs nothing of another: a load-store machine with 16 registers of 64 bits, the first
//! always 0, 16 of double precision, a page table of one level and a timer interrupt. `tests/tests/toy.rs` runs it in every tier.
//! What it has to say of itself is here and in [`isa`]; all else is `mimus_frontend::common`.

pub mod isa;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable};
use mimus_frontend::common::NoDevices;
use mimus_frontend::common::fp::{self, Env};
use mimus_frontend::common::guest::{Code, GuestCpu, Raised, TbWords, Truncated};
use mimus_frontend::common::helpers::HelperRow;
use mimus_frontend::common::vcpu::{Arch, Core};
use mimus_frontend::{has_core, helpers};
use mimus_ir::{Block, FpEnv, FpFlags, VecInfo};
use mimus_softmmu::{Access, CodeSink, Mapping, PAGE_SIZE, PageTables, Ram, Walker};

/// Numbers of the special registers.
#[expect(missing_docs, reason = "the names say what they are")]
pub mod special {
    /// Address of the page table; 0 where addresses are physical.
    pub const TABLE: usize = 0;
    pub const HANDLER: usize = 1;
    /// Bit 0: interrupts are taken; bit 1: they were before the last trap.
    pub const STATUS: usize = 2;
    pub const PC: usize = 3;
    pub const CAUSE: usize = 4;
    /// Address of the access that raised the last fault.
    pub const ADDRESS: usize = 5;
    /// Writing it answers the timer.
    pub const TIMER: usize = 6;
    pub const FLAGS: usize = 7;
    pub const COUNT: usize = 8;
}

/// Causes of traps.
#[expect(missing_docs, reason = "the names say what they are")]
pub mod cause {
    pub const NOT_MAPPED: u64 = 1;
    pub const READ_ONLY: u64 = 2;
    pub const ILLEGAL: u64 = 3;
    pub const TIMER: u64 = 4;
}

/// Bits of an entry of the page table, which has one of 64 bits for each page of the first MiB; the page's address is in its place.
#[expect(missing_docs, reason = "the names say what they are")]
pub mod entry {
    pub const VALID: u64 = 1;
    pub const WRITABLE: u64 = 2;
    /// Set by the first store.
    pub const DIRTY: u64 = 4;
    pub const COUNT: u64 = 256;
}

/// Registers.
#[expect(missing_docs, reason = "the names say what they are")]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(16))]
pub struct State {
    pub r: [u64; 16],
    pub pc: u64,
    /// The floating-point environment ([`FpEnv`]).
    pub fp: u64,
    pub f: [[u64; 2]; 16],
    pub special: [u64; special::COUNT],
    pub halted: u64,
    pub pad: u64,
}

impl State {
    fn fp_env(&self) -> FpEnv {
        FpEnv::from_bits_retain(self.fp as u32)
    }
}

/// A trap: its cause, and the address that it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap(pub u64, pub u64);

/// Stands for an access that a watchpoint refused.
const WATCHED: Trap = Trap(0, 0);

impl Walker for State {
    type Fault = Trap;

    fn walk(&self, tables: &PageTables<'_>, addr: u64, access: Access, _: usize) -> Result<Mapping, Trap> {
        let page = addr / PAGE_SIZE;
        let table = self.special[special::TABLE];
        if table == 0 {
            return Ok(Mapping { gpa: page * PAGE_SIZE, writable: true, global: false, shift: 12 });
        }
        let at = table.wrapping_add(8 * page);
        loop {
            let found = if page < entry::COUNT { tables.read_u64(at) } else { None };
            let found = found.filter(|found| found & entry::VALID != 0).ok_or(Trap(cause::NOT_MAPPED, addr))?;
            let new = match access {
                Access::Write if found & entry::WRITABLE == 0 => return Err(Trap(cause::READ_ONLY, addr)),
                Access::Write => found | entry::DIRTY,
                _ => found,
            };
            if new == found || tables.replace(at, 8, found, new) == Some(true) {
                let writable = new & entry::DIRTY != 0;
                return Ok(Mapping { gpa: new & !(PAGE_SIZE - 1), writable, global: false, shift: 12 });
            }
        }
    }

    fn watched() -> Trap {
        WATCHED
    }
}

/// A vCPU.
#[repr(C)]
pub struct Cpu {
    core: Core<Cpu>,
    /// Whether the timer wants attention; any thread may set it, and kicks the vCPU then.
    pub timer: Arc<AtomicBool>,
}

has_core!(Cpu);

impl Arch for Cpu {
    type State = State;
    type Bus = NoDevices;
    type Pending = Trap;

    fn refused(trap: Trap) -> Option<Trap> {
        if trap == WATCHED { None } else { Some(trap) }
    }
}

helpers! {
    Cpu:
    /// Writes special register `arg`.
    Put put [READ_ENV WRITE_ENV FAULT FLOAT MEMORY];
    /// The flags of floating point.
    Flags flags [READ_ENV FLOAT];
    /// Returns from a trap.
    Return leave [READ_ENV WRITE_ENV];
}

extern "C" fn put(cpu: &mut Cpu, value: u64, _: u64, _: u64, arg: u32) -> u64 {
    let number = arg as usize % special::COUNT;
    cpu.state.special[number] = value;
    match number {
        special::TABLE => cpu.flush(false, 0),
        special::STATUS => cpu.look_for_interrupts(),
        special::TIMER => cpu.timer.store(false, Ordering::Release),
        special::FLAGS => cpu.state.fp = FpEnv::RESET.raise(FpFlags::from_bits_truncate(value as u32)).bits().into(),
        _ => {}
    }
    0
}

extern "C" fn flags(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.state.fp_env().flags().bits().into()
}

extern "C" fn leave(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.state.special[special::STATUS] >>= 1;
    cpu.state.pc = cpu.state.special[special::PC];
    cpu.look_for_interrupts();
    0
}

impl Cpu {
    /// A vCPU that begins at `pc`.
    pub fn new(ram: Arc<Ram>, sink: Arc<dyn CodeSink>, pc: u64) -> Box<Cpu> {
        let state = State { pc, fp: FpEnv::RESET.bits().into(), ..State::zeroed() };
        let core = Core::new(state, ram, sink, Box::new(NoDevices), (1, 0));
        let mut cpu = Box::new(Cpu { core, timer: Arc::default() });
        cpu.header.fp_env_offset = std::mem::offset_of!(State, fp) as u32;
        cpu.update_mode();
        cpu
    }

    fn wants_interrupt(&self) -> bool {
        self.state.special[special::STATUS] & 1 != 0 && self.timer.load(Ordering::Acquire)
    }

    /// An interrupt may be taken now that could not before: has the dispatcher look.
    fn look_for_interrupts(&mut self) {
        if self.wants_interrupt() {
            self.header.exit_request.store(1, Ordering::Release);
        }
    }

    /// Takes the timer's interrupt if it may be taken.
    pub fn take_interrupt(&mut self) {
        if self.wants_interrupt() {
            self.enter(Trap(cause::TIMER, 0));
        }
    }

    fn enter(&mut self, Trap(cause, address): Trap) {
        let state = &mut self.core.state;
        state.special[special::STATUS] = state.special[special::STATUS] << 1 & 2;
        state.special[special::PC] = state.pc;
        (state.special[special::CAUSE], state.special[special::ADDRESS]) = (cause, address);
        state.pc = state.special[special::HANDLER];
    }
}

impl GuestCpu for Cpu {
    const MAX_INSN_LEN: usize = isa::INSN_LEN;
    const MAX_BLOCK_INSNS: u32 = isa::MAX_INSNS;

    fn helper_table() -> &'static [HelperRow<Cpu>] {
        TABLE
    }

    fn compute_float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128 {
        let mut env = Env::of(self.state.fp_env());
        let value = fp::float(&mut env, info, operands);
        self.state.fp |= u64::from(env.finish());
        value
    }

    fn raise_trap(&mut self, code: u64) {
        let pc = self.state.pc;
        self.raise(Trap(code, pc));
    }

    fn pc(&self) -> u64 {
        self.state.pc
    }

    fn set_pc(&mut self, pc: u64) {
        self.state.pc = pc;
    }

    fn tb_words(&self) -> TbWords {
        [0; 2]
    }

    fn update_mode(&mut self) {
        self.core.select(0, 0, (0, 0), false);
    }

    fn lift(&self, code: &Code<'_>) -> Result<Block, Truncated> {
        isa::lift(code, self.state.pc)
    }

    fn raise_too_long(&mut self) -> Raised {
        let pc = self.state.pc;
        self.raise(Trap(cause::ILLEGAL, pc))
    }

    fn deliver(&mut self) {
        if let Some(trap) = self.pending.take() {
            self.enter(trap);
        }
    }

    fn disassemble(&self, bytes: &[u8], pc: u64) -> String {
        isa::disassemble(bytes, pc)
    }

    fn pending_text(&self) -> Option<Cow<'static, str>> {
        self.pending.map(|trap| format!("{trap:x?} at {:#x}", self.state.pc).into())
    }
}
