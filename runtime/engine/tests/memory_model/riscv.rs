//! RISC-V: atomic memory operations, reservations, and what fences order (vol. I, "A" extension and RVWMO).

use std::sync::Arc;

use mimus_engine::cache::Cache;
use mimus_frontend::riscv::isa::Code::{self, *};
use mimus_frontend::riscv::isa::Insn;
use mimus_frontend::riscv::{Cpu, Features, NoDevices};
use mimus_softmmu::Ram;

use crate::pair::{Guest, PAIRS, Run, Start, ram, run_pair};

const BASE: u64 = 0x8000_0000;
const CODE: u64 = BASE + 0x1_0000;
const BEGUN: u64 = BASE + 0x10_0000;
const OPERAND: u64 = BASE + 0x11_0000;
const GUARDED: u64 = BASE + 0x12_0000;
const CELLS: [u64; 2] = [BASE + 0x13_0000, BASE + 0x14_0000];
const SEEN: [u64; 2] = [BASE + 0x15_0000, BASE + 0x16_0000];

/// Registers: the operand's address, the number of rounds left, what is free, and errors found.
const A0: u8 = 10;
const A1: u8 = 11;
const A2: u8 = 12;
const A3: u8 = 13;
const A4: u8 = 14;
const A5: u8 = 15;
const S2: u8 = 18;
const S3: u8 = 19;
const S4: u8 = 20;
const S5: u8 = 21;

impl Guest for Cpu {
    fn make(ram: &Arc<Ram>, cache: &Arc<Cache>) -> Box<Cpu> {
        Cpu::new(ram.clone(), cache.clone(), Box::new(NoDevices), Features { hart: 0, reset_pc: CODE })
    }

    fn start(&mut self, pc: u64, registers: &[(usize, u64)]) {
        self.state.pc = pc;
        self.state.halted = 0;
        registers.iter().for_each(|&(number, value)| self.state.x[number] = value);
    }

    fn ended(&self) -> bool {
        assert_eq!(self.traps.exceptions, 0, "at {:#x}, cause {}", self.state.mepc, self.state.mcause);
        self.state.halted != 0
    }
}

fn r(code: Code, rd: u8, rs1: u8, rs2: u8) -> Insn {
    Insn { rd, rs1, rs2, ..Insn::new(code) }
}

fn i(code: Code, rd: u8, rs1: u8, imm: i64) -> Insn {
    Insn { rd, rs1, imm, ..Insn::new(code) }
}

/// A store, or a branch.
fn s(code: Code, rs2: u8, rs1: u8, imm: i64) -> Insn {
    Insn { rs1, rs2, imm, ..Insn::new(code) }
}

/// A word of a program; fences have operands that the table's instructions do not.
fn fence(ordered: u32) -> u32 {
    0x0000_000f | ordered << 20
}

/// Of atomic instructions: after all accesses before it, and before all behind it.
const AQ_RL: u32 = 3 << 25;
const RW_RW: u32 = 0x33;
const W_W: u32 = 0x11;
const R_R: u32 = 0x22;

fn words(insns: &[Insn]) -> Vec<u32> {
    insns.iter().map(Insn::encode).collect()
}

/// Writes a program that waits for the other vCPU, does `body` as often as S2 says, and halts.
fn program(ram: &Ram, at: u64, body: &[u32]) {
    let mut code =
        words(&[i(Addi, A5, 0, 1), r(AmoaddW, 0, S3, A5), i(Addi, A5, 0, 2), i(Lw, A4, S3, 0), s(Blt, A5, A4, -4)]);
    code.extend(body);
    code.extend(words(&[i(Addi, S2, S2, -1), s(Bne, 0, S2, -4 * (body.len() as i64 + 1)), Insn::new(Wfi)]));
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(ram.write_bytes(at, &bytes));
}

/// What vCPU `vcpu` of two starts with.
fn start(vcpu: u64, rounds: u64) -> Start {
    let registers =
        [(A0, OPERAND), (A1, vcpu + 1), (S2, rounds), (S3, BEGUN), (S4, GUARDED), (S5, 0), (A3, 0), (A2, 0)];
    (CODE + 0x1000 * vcpu, registers.iter().map(|&(number, value)| (usize::from(number), value)).collect())
}

/// Atomic instructions on the operand at A0, and what the operand and the word at S4 are after so many rounds of both.
struct Row {
    name: &'static str,
    body: Vec<u32>,
    expected: fn(u64) -> [u64; 2],
}

fn rows() -> Vec<Row> {
    let row = |name, body: &[Insn], expected| Row { name, body: words(body), expected };
    // Retries until the store goes through.
    let reserved = |load, store| [r(load, A4, A0, 0), i(Addi, A4, A4, 1), r(store, A5, A0, A4), s(Bne, 0, A5, -12)];
    vec![
        row("amoadd.d", &[r(AmoaddD, A4, A0, A1)], |rounds| [3 * rounds, 0]),
        row("amoadd.w", &[r(AmoaddW, A4, A0, A1)], |rounds| [(3 * rounds) & 0xffff_ffff, 0]),
        // Each vCPU flips its own bit an even number of times.
        row("amoxor.d", &[r(AmoxorD, A4, A0, A1)], |_| [0, 0]),
        row("amoor.d", &[r(AmoorD, A4, A0, A1)], |_| [3, 0]),
        row("amomaxu.d", &[r(Add, A2, A2, A1), r(AmomaxuD, A4, A0, A2)], |rounds| [2 * rounds, 0]),
        row("lr.d, sc.d", &reserved(LrD, ScD), |rounds| [2 * rounds, 0]),
        row("lr.w, sc.w", &reserved(LrW, ScW), |rounds| [2 * rounds, 0]),
        row(
            "amoswap.w",
            &[
                i(Addi, A4, 0, 1),
                r(AmoswapW, A4, A0, A4),
                s(Bne, 0, A4, -8),
                i(Ld, A4, S4, 0),
                i(Addi, A4, A4, 1),
                s(Sd, A4, S4, 0),
                // Released by an AMO, which is never weaker than with aq and rl.
                r(AmoswapW, 0, A0, 0),
            ],
            |rounds| [0, 2 * rounds],
        ),
    ]
}

#[test]
fn no_atomic_memory_operation_is_lost() {
    const ROUNDS: u64 = 4000;
    let rows = rows();
    for tiers in PAIRS {
        let ram = ram(BASE);
        for row in &rows {
            let run = Run {
                prepare: Box::new(|ram: &Ram| {
                    (0..2).for_each(|vcpu| program(ram, CODE + 0x1000 * vcpu, &row.body));
                    [BEGUN, OPERAND, GUARDED].iter().for_each(|&gpa| ram.write_u64(gpa, 0).unwrap());
                }),
                starts: [start(0, ROUNDS), start(1, ROUNDS)],
                check: Box::new(|ram: &Ram, _: [&Cpu; 2]| {
                    let found = [OPERAND, GUARDED].map(|gpa| ram.read_u64(gpa).unwrap());
                    assert_eq!(found, (row.expected)(ROUNDS), "{} {tiers:?}", row.name);
                }),
            };
            run_pair(&ram, tiers, &[run]);
        }
    }
}

/// Rounds of a litmus test.
const ROUNDS: u64 = 1500;

/// Begins a round together with the other vCPU: at 0(S4) is its own number of rounds, at 8(S4) that of the other.
fn meet(vcpu: u64) -> Vec<u32> {
    let own = 512 * vcpu as i64;
    words(&[i(Addi, A2, A2, 1), s(Sd, A2, S4, own), i(Ld, A4, S4, 512 - own), s(Bltu, A2, A4, -4)])
}

/// Stores to a new cell at A0, loads the other vCPU's at A1 into A4 as `load` says, and stores what it saw at A3.
fn store_buffer(vcpu: u64, load: &[u32]) -> Vec<u32> {
    let mut body = meet(vcpu);
    body.extend(words(&[s(Sd, A2, A0, 0)]));
    body.extend(load);
    body.extend(words(&[s(Sd, A4, A3, 0), i(Addi, A0, A0, 8), i(Addi, A1, A1, 8), i(Addi, A3, A3, 8)]));
    body
}

fn clear(ram: &Ram) {
    let zeros = vec![0; 8 * ROUNDS as usize];
    CELLS.iter().chain(&SEEN).for_each(|&gpa| assert!(ram.write_bytes(gpa, &zeros)));
    [BEGUN, GUARDED, GUARDED + 512].iter().for_each(|&gpa| ram.write_u64(gpa, 0).unwrap());
}

#[test]
fn a_load_does_not_overtake_a_store_that_it_follows() {
    let litmus_start = |vcpu: usize| -> Start {
        let (code, mut registers) = start(vcpu as u64, ROUNDS);
        let places = [(A0, CELLS[vcpu]), (A1, CELLS[1 - vcpu]), (A3, SEEN[vcpu])];
        registers.extend(places.map(|(number, value)| (usize::from(number), value)));
        (code, registers)
    };
    let plain = i(Ld, A4, A1, 0).encode();
    let ways = [
        ("ld", false, vec![plain]),
        ("fence, ld", true, vec![fence(RW_RW), plain]),
        ("lr.d.aqrl", true, vec![r(LrD, A4, A1, 0).encode() | AQ_RL]),
    ];
    for (tiers, (name, forbidden, load)) in PAIRS.into_iter().flat_map(|tiers| ways.iter().map(move |way| (tiers, way)))
    {
        let ram = ram(BASE);
        let run = Run {
            prepare: Box::new(|ram: &Ram| {
                (0..2).for_each(|vcpu| program(ram, CODE + 0x1000 * vcpu, &store_buffer(vcpu, load)));
                clear(ram);
            }),
            starts: [litmus_start(0), litmus_start(1)],
            check: Box::new(|ram: &Ram, _: [&Cpu; 2]| {
                let seen = |vcpu: usize, round: u64| ram.read_u64(SEEN[vcpu] + 8 * round).unwrap();
                let count = (0..ROUNDS).filter(|&round| seen(0, round) == 0 && seen(1, round) == 0).count();
                assert!(!forbidden || count == 0, "{name}: {count} of {ROUNDS}, {tiers:?}");
                if !forbidden {
                    println!("{tiers:?}: {count} loads of {ROUNDS} overtook both stores where they may");
                }
            }),
        };
        run_pair(&ram, tiers, &[run]);
    }
}

#[test]
fn what_was_stored_before_a_message_is_seen_after_it_across_fences() {
    let mut writer = words(&[i(Addi, A2, A2, 1), s(Sd, A2, A0, 0)]);
    writer.push(fence(W_W));
    writer.extend(words(&[s(Sd, A2, A0, 1024)]));
    let mut reader = words(&[i(Ld, A4, A0, 1024)]);
    reader.push(fence(R_R));
    // The data are never older than the message.
    reader.extend(words(&[i(Ld, A5, A0, 0), r(Sltu, A5, A5, A4), r(Add, S5, S5, A5)]));
    for tiers in PAIRS {
        let ram = ram(BASE);
        let run = Run {
            prepare: Box::new(|ram: &Ram| {
                [(0, &writer), (1, &reader)].iter().for_each(|(vcpu, body)| program(ram, CODE + 0x1000 * vcpu, body));
                [BEGUN, OPERAND, OPERAND + 1024].iter().for_each(|&gpa| ram.write_u64(gpa, 0).unwrap());
            }),
            starts: [start(0, 20 * ROUNDS), start(1, 20 * ROUNDS)],
            check: Box::new(|_, cpus: [&Cpu; 2]| assert_eq!(cpus[1].state.x[usize::from(S5)], 0, "{tiers:?}")),
        };
        run_pair(&ram, tiers, &[run]);
    }
}
