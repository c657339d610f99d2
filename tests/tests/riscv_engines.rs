//! Random RISC-V programs on all engines: the interpreter on blocks as they are lifted is the reference for the interpreter on
//! optimized blocks, for compiled code and for the quick tier's. All of env and all of the data must be the same after each block.
#![forbid(unsafe_code)]

use std::sync::Arc;

use mimus_engine::lockstep::{BlockRunner, Left};
use mimus_frontend::guest::{Code as Bytes, GuestCpu};
use mimus_frontend::riscv::isa::{Code, Field, Insn, TABLE, decode};
use mimus_frontend::riscv::state::{Mstatus, State};
use mimus_frontend::riscv::{Cpu, Features, NoDevices};
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::{Block, Exit, Interp};
use mimus_softmmu::{Ram, Verdict};
use mimus_tests::rng::Rng;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const BASE: u64 = 0x8000_0000;
const CODE: u64 = BASE;
const HANDLER: u64 = BASE + 0xf00;
/// Data: two pages, in whose middle the pointers are.
const DATA: u64 = BASE + 0x4000;
const DATA_LEN: usize = 0x2000;
/// A pointer to the middle of the data, and one that is aligned for atomics; no instruction writes them.
const POINTER: u8 = 8;
const ALIGNED: u8 = 9;
/// Instructions of a program.
const LENGTH: usize = 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Engine {
    Lifted,
    Optimized,
    Compiled,
    Quick,
}

struct Hart {
    engine: Engine,
    cpu: Box<Cpu>,
    interp: Interp,
    scratch: Scratch,
    runner: Option<BlockRunner<Cpu>>,
    /// Blocks that the quick tier did.
    quick: u32,
}

impl Hart {
    fn new(engine: Engine) -> Hart {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), 0x1_0000)]).expect("guest RAM");
        let cpu = Cpu::new(Arc::new(Ram::new(memory)), Arc::new(NoDevices), Box::new(NoDevices), Features::default());
        let compiles = matches!(engine, Engine::Compiled | Engine::Quick);
        let runner = compiles.then(|| BlockRunner::new().expect("a compiler for this host"));
        Hart { engine, cpu, interp: Interp::default(), scratch: Scratch::default(), runner, quick: 0 }
    }

    fn load(&mut self, state: &State, words: &[u32], data: &[u8]) {
        let ram = &self.cpu.mmu.ram;
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(ram.write_bytes(CODE, &code) && ram.write_bytes(DATA, data));
        self.cpu.state = *state;
        self.cpu.pending = None;
        self.cpu.header.verdict = 0;
        self.cpu.update_mode();
    }

    fn interpret(&mut self, block: &Block) -> u64 {
        match self.interp.run(block, &mut *self.cpu).exit {
            Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::CodeChanged { pc } | Exit::Fault { pc } => pc,
            Exit::Main(_) => self.cpu.state.pc,
            Exit::Malformed => panic!("malformed\n{block}"),
        }
    }

    /// Runs the block at the program counter and delivers what it raised.
    fn block(&mut self) {
        let gpa = self.cpu.translate_fetch(self.cpu.state.pc).expect("code is mapped");
        let mut bytes = [0; 128];
        assert!(self.cpu.mmu.ram.read_bytes(gpa, &mut bytes));
        let code = Bytes { bytes: &bytes, in_page: bytes.len(), max_insns: 64 };
        let mut block = self.cpu.lift(&code).expect("whole instructions");
        if self.engine != Engine::Lifted {
            optimize(&mut block, &mut self.scratch);
        }
        let compiled = match (&mut self.runner, self.engine) {
            (Some(runner), Engine::Compiled) => Some(runner.compile(&block).expect("compiles")),
            (Some(runner), _) => runner.compile_quick(&block),
            _ => None,
        };
        let pc = match (&mut self.runner, compiled) {
            (Some(runner), Some(compiled)) => {
                self.quick += u32::from(self.engine == Engine::Quick);
                match runner.run(compiled, &mut self.cpu).expect("just compiled") {
                    Left::To(pc) | Left::Stopped(pc) => pc,
                    Left::Main => self.cpu.state.pc,
                }
            }
            _ => self.interpret(&block),
        };
        self.cpu.state.pc = pc;
        let verdict = std::mem::take(&mut self.cpu.header.verdict);
        assert!(verdict == Verdict::Done as u32 || verdict == Verdict::Fault as u32, "verdict {verdict}\n{block}");
        if verdict != 0 {
            self.cpu.deliver_pending();
        }
    }

    /// Env, but for what has no meaning: x86's denormal flag and the upper halves of floating-point registers.
    fn state(&self) -> State {
        let mut state = self.cpu.state;
        state.fp_env &= !u64::from(mimus_ir::FpFlags::DENORMAL.bits());
        state.f.iter_mut().for_each(|f| f[1] = 0);
        state
    }

    fn data(&self) -> Vec<u8> {
        let mut data = vec![0; DATA_LEN];
        assert!(self.cpu.mmu.ram.read_bytes(DATA, &mut data));
        data
    }
}

/// Whether an instruction may be in a program: what goes elsewhere, or depends on the machine, may not.
fn allowed(code: Code) -> bool {
    use Code::*;
    !matches!(code, Jal | Jalr | Mret | Sret | Wfi | SfenceVma | SinvalVma | Csrrw | Csrrs | Csrrc)
        && !matches!(code, Beq | Bne | Blt | Bge | Bltu | Bgeu | SfenceWInval | SfenceInvalIr | Csrrwi | Ecall | Ebreak)
}

fn instruction(rng: &mut Rng) -> u32 {
    loop {
        let row = &TABLE[rng.below(TABLE.len() as u64) as usize];
        if !allowed(row.code) {
            continue;
        }
        let Some(mut insn) = decode(row.pattern.value | rng.next_u64() as u32 & !row.pattern.mask) else { continue };
        if matches!(insn.rd, POINTER | ALIGNED) {
            continue;
        }
        if row.syntax.contains("(s)") {
            let atomic = row.syntax.ends_with(",(s)");
            insn.rs1 = if atomic && rng.below(8) != 0 { ALIGNED } else { POINTER };
        }
        if row.has(Field::Rm) {
            // The reserved modes now and then.
            insn.rm = [0, 1, 2, 3, 4, 7, 7, 7, 7, 7, 7, if rng.below(20) == 0 { 5 } else { 7 }][rng.below(12) as usize];
        }
        if row.imm == Some(Field::Csr) {
            insn.imm = [1, 2, 3, 0x340][rng.below(4) as usize];
        }
        return insn.encode();
    }
}

/// Bits of a number that is interesting as an integer, or as a float of either width.
fn number(rng: &mut Rng) -> u64 {
    const SPECIAL: [u64; 15] = [
        0,
        1,
        u64::MAX,
        1 << 63,
        0x3ff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0x7ff4_0000_0000_0001,
        0x7ff0_0000_0000_0000,
        0xffff_ffff_3f80_0000,
        0xffff_ffff_7fc0_0000,
        0xffff_ffff_7fa0_0000,
        0x0000_0000_3f80_0000,
        0xffff_ffff_ffff_3c00,
        0xffff_ffff_ffff_7d01,
        0xffff_ffff_ffff_fc00,
    ];
    let n = rng.next_u64();
    match rng.below(7) {
        0 => SPECIAL[rng.below(SPECIAL.len() as u64) as usize],
        1 => n >> rng.below(64),
        // Of moderate exponents, so that sums and products are numbers.
        2 => n & !(0x7ff << 52) | (1015 + rng.below(16)) << 52,
        3 => n & 0x807f_ffff | (120 + rng.below(16)) << 23 | 0xffff_ffff << 32,
        4 => n >> 32 | 0xffff_ffff << 32,
        5 => n | !0xffff,
        _ => n,
    }
}

fn first_state(rng: &mut Rng, cpu: &Cpu) -> State {
    let mut state = cpu.state;
    (state.pc, state.mtvec, state.mstatus) = (CODE, HANDLER, Mstatus::FS);
    state.x[1..].iter_mut().for_each(|x| *x = number(rng));
    state.x[usize::from(POINTER)] = DATA + 0x1000 - rng.below(16);
    state.x[usize::from(ALIGNED)] = DATA + 0x1000 + 8 * rng.below(8);
    state.f.iter_mut().for_each(|f| *f = [number(rng), 0]);
    state.frm = rng.below(5);
    mimus_frontend::riscv::float::set_rounding(&mut state);
    state.counting = rng.below(2);
    state
}

#[test]
fn all_engines_do_the_same() {
    let seed = mimus_tests::random();
    let mut rng = Rng::new(seed);
    let mut reference = Hart::new(Engine::Lifted);
    let mut others = [Engine::Optimized, Engine::Compiled, Engine::Quick].map(Hart::new);
    let first = reference.cpu.state;
    for program in 0..1000 {
        let mut words: Vec<u32> = (0..LENGTH).map(|_| instruction(&mut rng)).collect();
        // Faults go on with the next program: handlers end it as its own end does.
        words.push(Insn::new(Code::Ebreak).encode());
        reference.cpu.state = first;
        let state = first_state(&mut rng, &reference.cpu);
        let data: Vec<u8> = (0..DATA_LEN / 8).flat_map(|_| number(&mut rng).to_le_bytes()).collect();
        reference.load(&state, &words, &data);
        others.iter_mut().for_each(|hart| hart.load(&state, &words, &data));
        for _ in 0..2 * LENGTH {
            let from = reference.cpu.state.pc;
            if from == HANDLER {
                // What faulted is skipped, so that what follows is tried too.
                let next = reference.cpu.state.mepc + 4;
                for hart in others.iter_mut().chain([&mut reference]) {
                    hart.cpu.state.pc = next;
                }
            }
            if reference.cpu.state.pc >= CODE + 4 * LENGTH as u64 {
                break;
            }
            reference.block();
            for hart in &mut others {
                hart.block();
                let what = format!("{:?}, seed {seed}, program {program}, block at {from:#x}", hart.engine);
                let (want, got) = (reference.state(), hart.state());
                if want != got || reference.data() != hart.data() {
                    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    let listing = reference.cpu.disassemble(&bytes, CODE);
                    assert_eq!(want, got, "{what}{listing}");
                    panic!("{what}: data differ{listing}");
                }
            }
        }
    }
    if cfg!(target_arch = "x86_64") {
        assert!(others[2].quick > 100, "the quick tier did {} blocks", others[2].quick);
    }
}
