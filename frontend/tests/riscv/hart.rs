//! A hart without a machine around it, and an assembler for it: the instruction table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mimus_frontend::guest::{Code as Bytes, GuestCpu};
use mimus_frontend::riscv::isa::{Code, Insn};
use mimus_frontend::riscv::state::Mstatus;
use mimus_frontend::riscv::{Bus, Cpu, Features, NoDevices};
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::{Exit, Interp, verify};
use mimus_softmmu::{MmioBus, Ram, Verdict};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Where RAM begins, and code.
pub const BASE: u64 = 0x8000_0000;
/// Bytes of RAM.
pub const SIZE: usize = 1 << 20;
/// Where the handler of machine mode is.
pub const HANDLER: u64 = BASE + 0x800;
/// A place for data.
pub const DATA: u64 = BASE + 0x4000;
/// Where a device answers, with what was last written there.
pub const DEVICE: u64 = 0x1000_0000;

/// Clock, timer and one device.
#[derive(Clone, Debug, Default)]
pub struct Board {
    pub now: Arc<AtomicU64>,
    pub deadline: Arc<AtomicU64>,
    pub word: Arc<AtomicU64>,
}

impl MmioBus for Board {
    fn mmio_read(&mut self, _: u64, _: u8) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
    fn mmio_write(&mut self, _: u64, _: u8, value: u64) {
        self.word.store(value, Ordering::Relaxed);
    }
}

impl Bus for Board {
    fn time(&mut self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
    fn nanoseconds(&mut self) -> u64 {
        100 * self.time()
    }
    fn set_timer(&mut self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }
    fn exists(&mut self, gpa: u64, _: u8) -> bool {
        gpa & !0xfff == DEVICE
    }
}

/// A hart in machine mode at [`BASE`], its handler at [`HANDLER`].
pub struct Hart {
    pub cpu: Box<Cpu>,
    pub board: Board,
    interp: Interp,
    scratch: Box<Scratch>,
    optimized: bool,
}

impl Hart {
    pub fn new() -> Hart {
        let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), SIZE)]).expect("guest RAM")));
        let board = Board::default();
        let features = Features { hart: 3, reset_pc: BASE };
        let mut cpu = Cpu::new(ram, Arc::new(NoDevices), Box::new(board.clone()), features);
        cpu.state.mtvec = HANDLER;
        Hart { cpu, board, interp: Interp::default(), scratch: Box::default(), optimized: false }
    }

    /// One whose blocks go through the passes.
    pub fn optimizing() -> Hart {
        Hart { optimized: true, ..Hart::new() }
    }

    /// Opens all memory to all modes, as firmware does.
    pub fn open_pmp(mut self) -> Hart {
        self.cpu.access_csr(0x3b0, action::WRITE, u64::MAX).expect("pmpaddr0");
        self.cpu.access_csr(0x3a0, action::WRITE, 0x1f).expect("pmpcfg0");
        self
    }

    /// Turns the floating-point unit on.
    pub fn with_float(mut self) -> Hart {
        self.cpu.state.mstatus |= Mstatus::FS;
        self.cpu.update_mode();
        self
    }

    /// Writes words at `at`.
    pub fn write(&self, at: u64, words: &[u32]) {
        for (i, word) in (0..).zip(words) {
            self.cpu.mmu.ram.write_u32(at + 4 * i, *word).expect("in RAM");
        }
    }

    /// Writes instructions at the program counter.
    pub fn code(&self, insns: &[Insn]) {
        let words: Vec<u32> = insns.iter().map(Insn::encode).collect();
        self.write(self.cpu.state.pc, &words);
    }

    /// Runs one block of at most `max` instructions, or takes the fault that it begins with.
    pub fn block(&mut self, max: u32) {
        let pc = self.cpu.state.pc;
        let mut bytes = [0; 256];
        let Ok(gpa) = self.cpu.translate_fetch(pc) else { return self.deliver() };
        let in_page = (4096 - (gpa as usize & 4095)).min(bytes.len());
        for (i, byte) in (0..).zip(&mut bytes[..in_page]) {
            *byte = self.cpu.mmu.ram.read_u8(gpa + i).unwrap_or(0);
        }
        let code = Bytes { bytes: &bytes[..in_page], in_page, max_insns: max };
        let lifted = self.cpu.lift(&code).or_else(|_| {
            let second = self.cpu.translate_fetch((pc & !4095) + 4096).expect("a second page");
            for i in 0..4 {
                bytes[in_page + i] = self.cpu.mmu.ram.read_u8(second + i as u64).unwrap_or(0);
            }
            self.cpu.lift(&Bytes { bytes: &bytes[..in_page + 4], in_page, max_insns: max })
        });
        let mut block = lifted.expect("whole instruction");
        if self.optimized {
            optimize(&mut block, &mut self.scratch);
        }
        verify(&block, <Cpu as GuestCpu>::STATE_BYTES).unwrap_or_else(|error| panic!("{error}\n{block}"));
        match self.interp.run(&block, &mut *self.cpu).exit {
            Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::CodeChanged { pc } => self.cpu.state.pc = pc,
            Exit::Main(_) => {}
            Exit::Fault { pc } => {
                self.cpu.state.pc = pc;
                self.deliver();
            }
            Exit::Malformed => panic!("malformed\n{block}"),
        }
        assert_eq!(self.cpu.state.x[0], 0);
    }

    fn deliver(&mut self) {
        let verdict = std::mem::take(&mut self.cpu.header.verdict);
        if verdict == Verdict::Fault as u32 {
            self.cpu.deliver_pending();
        }
    }

    /// Runs these instructions, at the program counter, each by itself.
    pub fn run(&mut self, insns: &[Insn]) {
        self.code(insns);
        for _ in insns {
            self.block(1);
        }
    }

    /// Runs one instruction that traps to machine mode: mcause and mtval.
    pub fn trap(&mut self, insn: Insn) -> (u64, u64) {
        let pc = self.cpu.state.pc;
        self.run(&[insn]);
        assert_eq!((self.cpu.state.pc, self.cpu.state.mepc), (HANDLER, pc), "{insn:?}");
        (self.cpu.state.mcause, self.cpu.state.mtval)
    }

    /// Goes to `pc` in a privilege mode.
    pub fn enter(&mut self, privilege: u64, pc: u64) {
        self.cpu.state.privilege = privilege;
        self.cpu.state.pc = pc;
        self.cpu.update_mode();
    }
}

/// What may be done to a CSR.
pub mod action {
    use mimus_frontend::riscv::csr::Action;

    pub const READ: Action = Action::Read;
    pub const WRITE: Action = Action::Write;
}

/// `code rd, rs1, rs2`.
pub fn r(code: Code, rd: u8, rs1: u8, rs2: u8) -> Insn {
    Insn { rd, rs1, rs2, ..Insn::new(code) }
}

/// `code rd, rs1, imm`, or with the registers that the code has.
pub fn i(code: Code, rd: u8, rs1: u8, imm: i64) -> Insn {
    Insn { rd, rs1, imm, ..Insn::new(code) }
}

/// A store of `rs2` at `imm(rs1)`.
pub fn s(code: Code, rs2: u8, rs1: u8, imm: i64) -> Insn {
    Insn { rs1, rs2, imm, ..Insn::new(code) }
}

/// xorshift64*, with numbers that are special now and then.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn operand(&mut self) -> u64 {
        const SPECIAL: [u64; 10] =
            [0, 1, u64::MAX, 1 << 63, u64::MAX >> 1, 1 << 31, 0xffff_ffff_8000_0000, 0x7fff_ffff, 0xffff_ffff, 63];
        let (n, choice) = (self.next(), self.next() >> 32);
        match choice % 4 {
            0 => SPECIAL[(n >> 40) as usize % SPECIAL.len()],
            1 => n >> (choice >> 8 & 63),
            2 => ((n as i64) >> (choice >> 8 & 63)) as u64,
            _ => n,
        }
    }
}
