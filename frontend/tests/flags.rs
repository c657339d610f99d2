//! Lazy flags: however a program is cut into blocks, its instructions find the flags that they find when all six are written
//! after each instruction.
#![forbid(unsafe_code)]

mod common;

use common::{flat32, ram};
use mimus_frontend::x86::lift::{Request, lift};
use mimus_frontend::x86::state::{Efer, Rflags};
use mimus_frontend::x86::{Cpu, Features};
use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::{Interp, Op};

/// xorshift64*: the same programs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A number, often next to where a carry or an overflow begins.
    fn operand(&mut self) -> u64 {
        let edge = 1u64 << self.pick(&[0, 4, 7, 8, 15, 16, 31, 32, 63]);
        match self.below(4) {
            0 => edge,
            1 => edge.wrapping_sub(1),
            2 => edge.wrapping_neg(),
            _ => self.next(),
        }
    }
}

/// What an opcode is followed by.
#[derive(Clone, Copy)]
enum Form {
    /// Nothing.
    Plain,
    /// Two general registers of 8 bits, or wider with the next opcode.
    Sized,
    /// The same, never of 8 bits.
    Wide,
    /// One register, with this extension of the opcode; of 8 bits, or wider with the next opcode.
    Group(u8),
    /// The same and a count.
    GroupCount(u8),
    /// One register of 8 bits.
    Byte,
    /// XMM0 and XMM1.
    Vector,
}

use Form::{Byte, Group, GroupCount, Plain, Sized, Vector, Wide};

/// What sets flags.
const SETTERS: [(&[u8], Form); 35] = [
    (&[0x00], Sized),              // add
    (&[0x08], Sized),              // or
    (&[0x10], Sized),              // adc
    (&[0x18], Sized),              // sbb
    (&[0x20], Sized),              // and
    (&[0x28], Sized),              // sub
    (&[0x30], Sized),              // xor
    (&[0x38], Sized),              // cmp
    (&[0x84], Sized),              // test
    (&[0xfe], Group(0)),           // inc
    (&[0xfe], Group(1)),           // dec
    (&[0xf6], Group(3)),           // neg
    (&[0xf6], Group(4)),           // mul
    (&[0xf6], Group(5)),           // imul
    (&[0x0f, 0xaf], Wide),         // imul
    (&[0xd0], Group(4)),           // shl by 1
    (&[0xd0], Group(5)),           // shr by 1
    (&[0xd0], Group(7)),           // sar by 1
    (&[0xd0], Group(0)),           // rol by 1
    (&[0xd0], Group(2)),           // rcl by 1
    (&[0xc0], GroupCount(4)),      // shl
    (&[0xc0], GroupCount(7)),      // sar
    (&[0xc0], GroupCount(1)),      // ror
    (&[0xd2], Group(5)),           // shr by cl
    (&[0xd2], Group(0)),           // rol by cl
    (&[0x0f, 0xa3], Wide),         // bt
    (&[0x0f, 0xab], Wide),         // bts
    (&[0x0f, 0xbc], Wide),         // bsf
    (&[0xf3, 0x0f, 0xb8], Wide),   // popcnt
    (&[0xf8], Plain),              // clc
    (&[0xf9], Plain),              // stc
    (&[0xf5], Plain),              // cmc
    (&[0x9e], Plain),              // sahf
    (&[0x66, 0x0f, 0x2f], Vector), // comisd
    (&[0x0f, 0x2e], Vector),       // ucomiss
];

/// An instruction of a row.
fn encode((opcode, form): (&[u8], Form), random: &mut Random) -> Vec<u8> {
    let mut insn = Vec::new();
    let log2 = match form {
        Sized | Group(_) | GroupCount(_) => random.below(4),
        Wide => 1 + random.below(3),
        Plain | Byte | Vector => 0,
    };
    let mandatory = usize::from(opcode[0] == 0xf3);
    if log2 == 1 {
        insn.push(0x66);
    }
    insn.extend_from_slice(&opcode[..mandatory]);
    if log2 == 3 {
        insn.push(0x48);
    }
    insn.extend_from_slice(&opcode[mandatory..]);
    if matches!(form, Sized | Group(_) | GroupCount(_)) && log2 != 0 {
        *insn.last_mut().expect("an opcode") |= 1;
    }
    let registers = [random.below(4) as u8, random.below(4) as u8];
    match form {
        Plain => {}
        Sized | Wide => insn.push(0xc0 | registers[0] << 3 | registers[1]),
        Group(n) | GroupCount(n) => insn.push(0xc0 | n << 3 | registers[1]),
        Byte => insn.push(0xc0 | registers[1]),
        Vector => insn.push(0xc1),
    }
    if let GroupCount(_) = form {
        insn.push(random.below(64) as u8);
    }
    insn
}

/// What reads flags, and changes none: a condition into a byte, a conditional move, LAHF.
fn reader(random: &mut Random) -> Vec<u8> {
    let condition = random.below(16) as u8;
    let row: (&[u8], Form) = match random.below(8) {
        0 => (&[0x9f], Plain),
        1 | 2 => (&[0x0f, 0x40 | condition], Wide),
        _ => (&[0x0f, 0x90 | condition], Byte),
    };
    encode(row, random)
}

fn vcpu(random: &mut Random) -> Box<Cpu> {
    let mut cpu = flat32(ram(), Features::default());
    cpu.state.efer |= Efer::LME | Efer::LMA;
    cpu.state.seg[1].access = 0xa09b;
    cpu.update_mode();
    restart(&mut cpu, random);
    cpu
}

/// New contents of registers and flags.
fn restart(cpu: &mut Cpu, random: &mut Random) {
    cpu.state.gpr = std::array::from_fn(|_| random.operand());
    cpu.state.set_arith_flags(Rflags::from_bits_retain(random.next()));
    let numbers = [0, 1, 0x3f80_0000_3ff0_0000, 0x3ff0_0000_3f80_0000, 0x7fc0_0000_7fc0_0000, 0x7ff8_0000_0000_0000];
    for xmm in &mut cpu.state.xmm[..2] {
        *xmm = [random.pick(&numbers), 0];
    }
}

/// Runs `program`, a block from each cut to the next.
fn run(cpu: &mut Cpu, program: &[Vec<u8>], cuts: impl Fn(usize) -> bool, written: bool) -> ([u64; 16], Rflags) {
    let mut scratch = Scratch::default();
    let mut interp = Interp::default();
    let mut from = 0;
    for to in 1..=program.len() {
        if to < program.len() && !cuts(to) {
            continue;
        }
        let bytes = program[from..to].concat();
        let request = Request {
            bytes: &bytes,
            in_page: bytes.len(),
            rip: 0x3000,
            base: 0,
            mode: cpu.mode,
            max_insns: (to - from) as u32,
        };
        let mut block = lift(&request).expect("whole instructions");
        assert_eq!(block.guest_insns as usize, to - from, "{:02x?}", &program[from..to]);
        optimize(&mut block, &mut scratch);
        interp.run(&block, &mut *cpu);
        if written {
            let flags = cpu.state.arith_flags();
            cpu.state.set_arith_flags(flags);
        }
        from = to;
    }
    (cpu.state.gpr, cpu.state.arith_flags())
}

#[test]
fn blocks_find_the_flags_that_others_left() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut cpu = vcpu(&mut random);
    for _ in 0..30_000 {
        restart(&mut cpu, &mut random);
        let len = 2 + random.below(5);
        let program: Vec<Vec<u8>> = (0..len)
            .map(|at| {
                if at + 1 == len || random.below(4) == 0 {
                    reader(&mut random)
                } else {
                    encode(random.pick(&SETTERS), &mut random)
                }
            })
            .collect();
        let start = cpu.state;
        let wanted = run(&mut cpu, &program, |_| true, true);
        let pattern = random.next();
        for cuts in [u64::MAX, 0, pattern] {
            cpu.state = start;
            let found = run(&mut cpu, &program, |at| cuts >> at & 1 != 0, false);
            assert_eq!(found, wanted, "{program:02x?} cut at {cuts:#x}");
        }
    }
}

#[test]
fn what_a_comparison_left_is_compared_in_line() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut cpu = vcpu(&mut random);
    let mut interp = Interp::default();
    // or, and, sub, xor, cmp, test
    let comparisons = [SETTERS[1], SETTERS[4], SETTERS[5], SETTERS[6], SETTERS[7], SETTERS[8]];
    for condition in (0..16u8).filter(|condition| !matches!(condition >> 1, 0 | 5)) {
        for _ in 0..500 {
            restart(&mut cpu, &mut random);
            let program = [encode(random.pick(&comparisons), &mut random), vec![0x0f, 0x90 | condition, 0xc0]];
            run(&mut cpu, &program[..1], |_| true, false);
            let start = cpu.state;
            let wanted = run(&mut cpu, &program[1..], |_| true, false);
            let bytes = &program[1];
            let request = Request { bytes, in_page: bytes.len(), rip: 0x3000, base: 0, mode: cpu.mode, max_insns: 1 };
            let mut block = lift(&request).expect("a whole instruction");
            let calls = block.insts.iter_mut().filter(|inst| inst.op == Op::Call);
            // A helper that answers wrongly makes no difference: it is not asked.
            calls.for_each(|call| call.imm ^= 1 << 32);
            cpu.state = start;
            interp.run(&block, &mut *cpu);
            assert_eq!((cpu.state.gpr, cpu.state.arith_flags()), wanted, "{program:02x?}");
        }
    }
}
