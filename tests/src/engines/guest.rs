//! A vCPU in 64-bit mode at privilege level 3 whose pages are those of the host oracle.

use std::sync::Arc;

use mimus_engine::lockstep::{BlockRunner, Compiled, Left};
use mimus_frontend::x86::cpu::Features;
use mimus_frontend::x86::fp::mxcsr::from_mxcsr;
use mimus_frontend::x86::lift::{self, Request};
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Rflags, Seg, Segment, State};
use mimus_frontend::x86::{Cpu, Mode, NoDevices};
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::{Block, Exit, Interp};
use mimus_softmmu::{Ram, Verdict};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::layout::{CODE, DATA, DATA_LEN, GS_BASE, PAGE, WRITABLE};
use super::{Outcome, Registers, Trap};

/// Guest-physical address of the data.
const DATA_GPA: u64 = 0x1_0000;
/// Guest-physical address of the code.
const CODE_GPA: u64 = 0x2_0000;
/// Guest-physical address of the page tables.
const TABLES: u64 = 0x1000;

/// How a block is prepared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passes {
    /// As it was lifted.
    None,
    /// Optimized.
    All,
}

/// The vCPU with its memory.
pub struct Guest {
    cpu: Box<Cpu>,
    /// What is the same before each step.
    initial: State,
    ram: Arc<Ram>,
    interp: Interp,
    scratch: Scratch,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

impl Default for Guest {
    fn default() -> Guest {
        Guest::new(World::USER)
    }
}

/// Four levels of tables for the data's pages.
fn map(ram: &Ram) {
    const USER: u64 = 0x25; // P, U/S, A
    const WRITE: u64 = 0x42; // R/W, D
    let index = |addr: u64, level: u32| addr >> (12 + 9 * level) & 511;
    let write = |at: u64, value: u64| ram.write_u64(at, value).expect("tables are in RAM");
    for level in (1..4).rev() {
        let table = TABLES + PAGE * u64::from(3 - level);
        write(table + 8 * index(DATA, level), (table + PAGE) | USER | 2);
    }
    write(TABLES + 3 * PAGE + 8 * index(CODE, 0), CODE_GPA | USER);
    for n in 0..DATA_LEN as u64 / PAGE {
        let page = DATA + n * PAGE;
        let writable = if page >= WRITABLE { WRITE } else { 0 };
        write(TABLES + 3 * PAGE + 8 * index(page, 0), (DATA_GPA + n * PAGE) | USER | writable);
    }
}

/// Width of code and privilege level of a [`Guest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct World {
    /// 64 for 64-bit mode, 32 for compatibility mode.
    pub bits: u32,
    /// Privilege level: 0 or 3.
    pub cpl: u16,
}

impl World {
    /// As a process of the host sees itself.
    pub const USER: World = World { bits: 64, cpl: 3 };
    /// As a 32-bit one does.
    pub const USER32: World = World { bits: 32, cpl: 3 };

    fn enter(self, s: &mut State) {
        s.cr0 = Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG;
        s.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::FSGSBASE;
        s.efer = Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
        s.cr3 = Cr3::from_bits_retain(TABLES);
        // Selectors as Linux has them, so that reading them compares.
        let dpl = self.cpl << 5;
        let data = Segment { base: 0, limit: u32::MAX, selector: 0, access: 0xc093 | dpl };
        s.seg = [data; 6];
        for seg in [Seg::Ss, Seg::Ds, Seg::Es] {
            s.seg[seg as usize].selector = 0x28 | self.cpl;
        }
        let (width, selector) = if self.bits == 64 { (0x2000, 0x30) } else { (0x4000, 0x20) };
        s.seg[Seg::Cs as usize] =
            Segment { base: 0, limit: u32::MAX, selector: selector | self.cpl, access: 0x809b | width | dpl };
        s.seg[Seg::Gs as usize].base = GS_BASE;
    }
}

impl Guest {
    /// A vCPU with its data zero.
    pub fn new(world: World) -> Guest {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("guest RAM");
        let ram = Arc::new(Ram::new(memory));
        map(&ram);
        let mut cpu = Cpu::new(ram.clone(), Arc::new(NoDevices), Box::new(NoDevices), Features::default());
        world.enter(&mut cpu.state);
        cpu.update_mode();
        cpu.flush_tlb(false);
        let initial = cpu.state;
        Guest { cpu, initial, ram, interp: Interp::default(), scratch: Scratch::default() }
    }

    /// The vCPU.
    pub fn cpu(&mut self) -> &mut Cpu {
        &mut self.cpu
    }

    /// Copies the data out.
    pub fn read_data(&self, out: &mut [u8]) {
        assert!(self.ram.read_bytes(DATA_GPA, out));
    }

    /// Sets data from [`DATA`] on.
    pub fn write_data(&mut self, data: &[u8]) {
        assert!(data.len() <= DATA_LEN && self.ram.write_bytes(DATA_GPA, data));
    }

    /// Puts code at [`CODE`].
    pub fn write_code(&mut self, code: &[u8]) {
        assert!(code.len() <= PAGE as usize && self.ram.write_bytes(CODE_GPA, code));
    }

    /// Loads registers, with nothing pending.
    pub fn load(&mut self, registers: &Registers, rip: u64) {
        let cpu = &mut *self.cpu;
        let paging = |s: &State| (s.cr0, s.cr3, s.cr4, s.efer);
        if paging(&cpu.state) != paging(&self.initial) {
            cpu.flush_tlb(false);
        }
        cpu.state = self.initial;
        let s = &mut cpu.state;
        s.gpr = registers.gpr;
        s.rip = rip;
        s.set_rflags(Rflags::from_bits_retain(registers.rflags) | Rflags::IF);
        let (image, _) = registers.fx.split_first_chunk::<160>().expect("long enough");
        s.fpu.fxrstor(true, image);
        s.set_float_env(from_mxcsr(registers.mxcsr()).expect("cases set no reserved bits"));
        for n in 0..16 {
            let value = registers.xmm(n);
            s.xmm[n] = [value as u64, (value >> 64) as u64];
        }
        cpu.pending = None;
        cpu.header.verdict = 0;
        cpu.update_mode();
        cpu.header.pc_base = if cpu.mode.intersects(Mode::CODE64) { CODE } else { 0 };
    }

    /// The registers now.
    pub fn registers(&self) -> Registers {
        let s = &self.cpu.state;
        let mut fx = [0; 512];
        fx[..160].copy_from_slice(&s.fpu.fxsave(true, s.float_env()));
        for (n, xmm) in s.xmm.iter().enumerate() {
            let value = u128::from(xmm[0]) | u128::from(xmm[1]) << 64;
            fx[160 + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
        }
        Registers { gpr: s.gpr, rflags: s.rflags().bits(), fx }
    }

    /// All registers, the system's too, in a form in which equal ones are equal.
    pub fn whole_state(&self) -> State {
        let mut s = self.cpu.state;
        let flags = s.rflags();
        s.set_rflags(flags);
        s.vtmp = [[0; 2]; 2];
        s
    }

    /// A block of at most `max` instructions from `code`, which lies at [`CODE`], beginning at `rip`.
    ///
    /// # Errors
    ///
    /// What is wrong with the block.
    pub fn lift(&mut self, code: &[u8], rip: u64, max: u32, passes: Passes) -> Result<Block, String> {
        let bytes = &code[(rip - CODE) as usize..];
        let request = Request {
            bytes,
            in_page: bytes.len(),
            rip,
            base: self.cpu.header.pc_base,
            mode: self.cpu.mode,
            max_insns: max,
        };
        let mut block = lift::lift(&request).map_err(|_| "truncated".to_owned())?;
        mimus_ir::verify(&block, size_of::<State>()).map_err(|error| format!("malformed block: {error:?}"))?;
        if passes == Passes::All {
            optimize(&mut block, &mut self.scratch);
        }
        Ok(block)
    }

    /// Interprets a block.
    ///
    /// # Errors
    ///
    /// As for [`Guest::outcome`].
    pub fn interpret(&mut self, block: &Block) -> Result<Outcome, String> {
        let outcome = self.interp.run(block, &mut *self.cpu);
        let rip = match outcome.exit {
            Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::Fault { pc } | Exit::CodeChanged { pc } => pc,
            Exit::Main(_) => self.cpu.state.rip,
            Exit::Malformed => return Err("malformed block".into()),
        };
        self.outcome(rip)
    }

    /// The outcome when control has come back at `rip`.
    ///
    /// # Errors
    ///
    /// The block wants to be started again, as when an interrupt is due.
    pub fn outcome(&mut self, rip: u64) -> Result<Outcome, String> {
        if self.cpu.header.verdict == Verdict::Again as u32 {
            return Err("wants to be started again".into());
        }
        self.cpu.state.rip = rip;
        let trap = self.cpu.take_settled().map(|e| Trap {
            vector: e.vector,
            error: e.error.unwrap_or(0),
            address: if e.vector == 14 { e.address } else { 0 },
        });
        Ok(Outcome { registers: self.registers(), rip, trap })
    }

    /// Runs a compiled block.
    ///
    /// # Errors
    ///
    /// As for [`Guest::outcome`]; or the block is lost.
    pub fn run_compiled(&mut self, runner: &mut BlockRunner<Cpu>, block: Compiled) -> Result<Outcome, String> {
        let left = runner.run(block, &mut self.cpu).ok_or("the compiled block is lost")?;
        let rip = match left {
            Left::To(pc) | Left::Stopped(pc) => pc,
            Left::Main => self.cpu.state.rip,
        };
        self.outcome(rip)
    }

    /// Interprets the one instruction `code` at [`CODE`].
    ///
    /// # Errors
    ///
    /// As for [`Guest::lift`] and [`Guest::outcome`].
    pub fn step(&mut self, code: &[u8], registers: &Registers, passes: Passes) -> Result<Outcome, String> {
        self.load(registers, CODE);
        self.write_code(code);
        let block = self.lift(code, CODE, 1, passes)?;
        self.interpret(&block)
    }
}
