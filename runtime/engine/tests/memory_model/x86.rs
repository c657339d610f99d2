//! x86: locked instructions at every alignment, and total store order (SDM vol. 3A, 9.1 and 9.2).

use std::sync::Arc;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_engine::cache::Cache;
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Segment};
use mimus_frontend::x86::{Cpu, Features, NoDevices};
use mimus_softmmu::Ram;

use crate::pair::{Guest, PAIRS, Run, Start, ram, run_pair};

/// Guest-physical places.
mod at {
    pub const TABLES: u64 = 0x1000;
    /// Code, a page for each program.
    pub const CODE: u64 = 0x1_0000;
    /// Counts vCPUs that have begun.
    pub const BEGUN: u64 = 0x10_0000;
    /// Behind a lock.
    pub const GUARDED: u64 = 0x10_1000;
    /// Cells of the litmus tests, and what was seen, of each vCPU.
    pub const CELLS: [u64; 2] = [0x12_0000, 0x13_0000];
    pub const SEEN: [u64; 2] = [0x14_0000, 0x15_0000];
    /// Where each vCPU tells its round.
    pub const ROUND: [u64; 2] = [0x16_0000, 0x16_1000];
    /// The pages from [`super::OPERAND`] on: the second is no neighbour of the first, but the third of the second.
    pub const OPERANDS: [u64; 3] = [0x20_0000, 0x20_5000, 0x20_6000];
}

/// Virtual address of the operands' pages; below are guest-physical addresses.
const OPERAND: u64 = 0x40_0000;

const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;
const R12: usize = 12;
const R13: usize = 13;
const R14: usize = 14;
const R15: usize = 15;

impl Guest for Cpu {
    fn make(ram: &Arc<Ram>, cache: &Arc<Cache>) -> Box<Cpu> {
        let mut cpu = Cpu::new(ram.clone(), cache.clone(), Box::new(NoDevices), Features::default());
        let flat = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
        let s = &mut cpu.state;
        s.seg = [flat(0xc093); 6];
        s.seg[1] = flat(0xa09b);
        (s.cr3, s.cr4, s.efer) = (Cr3::from_bits_retain(at::TABLES), s.cr4 | Cr4::PAE, s.efer | Efer::LME | Efer::LMA);
        s.cr0 |= Cr0::PE | Cr0::PG;
        cpu.update_mode();
        cpu
    }

    fn start(&mut self, pc: u64, registers: &[(usize, u64)]) {
        self.state.rip = pc;
        self.state.halted = 0;
        registers.iter().for_each(|&(number, value)| self.state.gpr[number] = value);
    }

    fn ended(&self) -> bool {
        assert!(!self.triple_fault, "at {:#x}", self.state.rip);
        self.state.halted != 0
    }
}

fn set_up(ram: &Ram) {
    let table = |number: u64| at::TABLES + 0x1000 * number;
    let put = |gpa, value| ram.write_u64(gpa, value).unwrap();
    put(table(0), table(1) | 3);
    put(table(1), table(2) | 3);
    put(table(2), 0x83);
    put(table(2) + 8 * (OPERAND >> 21), table(3) | 3);
    at::OPERANDS.iter().zip(0..).for_each(|(gpa, page)| put(table(3) + 8 * page, gpa | 3));
}

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Assembles a program that waits for the other vCPU, does `body` as often as R15 says, and halts.
fn program(ram: &Ram, at: u64, body: Emit) {
    let mut a = CodeAssembler::new(64).unwrap();
    let mut emit = || {
        let (mut wait, mut again) = (a.create_label(), a.create_label());
        a.lock().inc(dword_ptr(r12))?;
        a.set_label(&mut wait)?;
        a.pause()?;
        a.cmp(dword_ptr(r12), 2)?;
        a.jb(wait)?;
        a.set_label(&mut again)?;
        body(&mut a)?;
        a.dec(r15)?;
        a.jnz(again)?;
        a.hlt()
    };
    emit().unwrap();
    let code = a.assemble(at).unwrap();
    assert!(code.len() < 0x1000 && ram.write_bytes(at, &code));
}

/// A read-modify-write instruction, with the operand at RDI.
struct Row {
    name: &'static str,
    size: u64,
    /// Operands that are no multiple of their size raise an exception.
    aligned: bool,
    body: Emit,
    before: u128,
    /// Added to the operand, or to the word at `GUARDED`, in each round.
    adds: u128,
    guarded: bool,
}

const ROW: Row = Row { name: "", size: 8, aligned: false, body: |_| Ok(()), before: 0, adds: 1, guarded: false };

fn rows() -> Vec<Row> {
    vec![
        Row { name: "lock inc word", size: 2, body: |a| a.lock().inc(word_ptr(rdi)), ..ROW },
        Row { name: "lock inc dword", size: 4, body: |a| a.lock().inc(dword_ptr(rdi)), ..ROW },
        Row { name: "lock xadd", body: xadd, adds: 3, ..ROW },
        Row { name: "lock adc", size: 4, body: adc, adds: 6, ..ROW },
        Row { name: "lock cmpxchg", body: cmpxchg, ..ROW },
        Row { name: "lock cmpxchg8b", body: cmpxchg8b, before: 0xffff_ff00, ..ROW },
        Row {
            name: "lock cmpxchg16b",
            size: 16,
            aligned: true,
            body: cmpxchg16b,
            before: 0xffff_ffff_ffff_ff00,
            ..ROW
        },
        Row { name: "lock bts, btr", size: 4, body: bits, adds: 0, ..ROW },
        Row { name: "xchg", size: 4, body: spinlock, adds: 1, guarded: true, ..ROW },
    ]
}

fn xadd(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 3)?;
    a.lock().xadd(qword_ptr(rdi), rax)
}

fn adc(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.stc()?;
    a.lock().adc(dword_ptr(rdi), 5)
}

fn cmpxchg(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut retry = a.create_label();
    a.mov(rax, qword_ptr(rdi))?;
    a.set_label(&mut retry)?;
    a.lea(rdx, ptr(rax + 1))?;
    a.lock().cmpxchg(qword_ptr(rdi), rdx)?;
    a.jne(retry)
}

fn cmpxchg8b(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut retry = a.create_label();
    a.mov(eax, dword_ptr(rdi))?;
    a.mov(edx, dword_ptr(rdi + 4))?;
    a.set_label(&mut retry)?;
    a.mov(ebx, eax)?;
    a.mov(ecx, edx)?;
    a.add(ebx, 1)?;
    a.adc(ecx, 0)?;
    a.lock().cmpxchg8b(qword_ptr(rdi))?;
    a.jne(retry)
}

fn cmpxchg16b(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut retry = a.create_label();
    a.mov(rax, qword_ptr(rdi))?;
    a.mov(rdx, qword_ptr(rdi + 8))?;
    a.set_label(&mut retry)?;
    a.mov(rbx, rax)?;
    a.mov(rcx, rdx)?;
    a.add(rbx, 1)?;
    a.adc(rcx, 0)?;
    a.lock().cmpxchg16b(xmmword_ptr(rdi))?;
    a.jne(retry)
}

/// Sets and clears the bit of this vCPU's number; counts in R14 when it was not as it had left it.
fn bits(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lock().bts(dword_ptr(rdi), r13d)?;
    a.adc(r14, 0)?;
    a.lock().btr(dword_ptr(rdi), r13d)?;
    a.cmc()?;
    a.adc(r14, 0)
}

/// Adds to the word at RSI with the lock at RDI held.
fn spinlock(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut take, mut taken) = (a.create_label(), a.create_label());
    // No label is at the same place as the round's.
    a.nop()?;
    a.set_label(&mut take)?;
    a.mov(eax, 1)?;
    a.xchg(dword_ptr(rdi), eax)?;
    a.test(eax, eax)?;
    a.je(taken)?;
    a.pause()?;
    a.jmp(take)?;
    a.set_label(&mut taken)?;
    a.inc(qword_ptr(rsi))?;
    a.mov(dword_ptr(rdi), 0)
}

/// A place's name, the offset of an operand of some size, and rounds.
type Place = (&'static str, fn(u64) -> u64, u64);

/// The places of operands: where one of some size is among the pages, and how many rounds are made there.
const PLACES: [Place; 4] = [
    ("aligned", |_| 0x100, 4000),
    ("across cache lines", |size| 0x140 - size / 2, 500),
    ("across pages that are neighbours", |size| 0x2000 - size / 2, 200),
    ("across pages that are none", |size| 0x1000 - size / 2, 60),
];

/// The operand's value, from its pages.
fn operand(ram: &Ram, at: u64, size: u64) -> u128 {
    (0..size).fold(0, |value, i| {
        let offset = at + i;
        let byte = ram.read_u8(at::OPERANDS[(offset >> 12) as usize] + (offset & 0xfff)).unwrap();
        value | u128::from(byte) << (8 * i)
    })
}

fn set_operand(ram: &Ram, at: u64, size: u64, value: u128) {
    for i in 0..size {
        let offset = at + i;
        ram.write_u8(at::OPERANDS[(offset >> 12) as usize] + (offset & 0xfff), (value >> (8 * i)) as u8).unwrap();
    }
}

fn atomic_run<'a>(row: &'a Row, number: u64, (place, offset, rounds): Place) -> Run<'a, Cpu> {
    let (at, size) = (offset(row.size), row.size);
    let code = move |vcpu: u64| at::CODE + 0x1000 * (2 * number + vcpu);
    let start = |vcpu: u64| -> Start {
        let registers =
            [(RDI, OPERAND + at), (RSI, at::GUARDED), (R12, at::BEGUN), (R13, vcpu), (R14, 0), (R15, rounds)];
        (code(vcpu), registers.to_vec())
    };
    Run {
        prepare: Box::new(move |ram| {
            (0..2).for_each(|vcpu| program(ram, code(vcpu), row.body));
            [at::BEGUN, at::GUARDED].iter().for_each(|&gpa| ram.write_u64(gpa, 0).unwrap());
            set_operand(ram, at, size, row.before);
        }),
        starts: [start(0), start(1)],
        check: Box::new(move |ram, cpus| {
            let what = format!("{} {place}", row.name);
            let sum = u128::from(2 * rounds) * row.adds;
            let (guarded, free) = if row.guarded { (sum, 0) } else { (0, sum) };
            let mask = u128::MAX >> (128 - 8 * size);
            assert_eq!(operand(ram, at, size), (row.before + free) & mask, "{what}");
            assert_eq!(u128::from(ram.read_u64(at::GUARDED).unwrap()), guarded, "{what}");
            assert_eq!(cpus.map(|cpu| cpu.state.gpr[R14]), [0; 2], "{what}");
        }),
    }
}

#[test]
fn no_locked_instruction_is_lost() {
    let rows = rows();
    for tiers in PAIRS {
        let ram = ram(0);
        set_up(&ram);
        let mut runs = Vec::new();
        for (row, number) in rows.iter().zip(0..) {
            let places = PLACES.iter().take(if row.aligned { 1 } else { PLACES.len() });
            runs.extend(places.map(|&place| atomic_run(row, number, place)));
        }
        run_pair(&ram, tiers, &runs);
    }
}

/// Rounds of a litmus test.
const ROUNDS: u64 = 500;

/// Begins a round together with the other vCPU: RBX counts rounds from 1 on, which go to [R8] and are waited for at [R9].
fn meet(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut wait, mut met) = (a.create_label(), a.create_label());
    a.inc(rbx)?;
    a.mov(qword_ptr(r8), rbx)?;
    a.set_label(&mut wait)?;
    a.cmp(qword_ptr(r9), rbx)?;
    a.jae(met)?;
    a.pause()?;
    a.jmp(wait)?;
    a.set_label(&mut met)
}

/// Stores to a new cell at RDI, does `between`, loads the other vCPU's at RSI, and stores what it saw at RBP.
fn store_buffer(a: &mut CodeAssembler, between: Emit) -> Result<(), IcedError> {
    meet(a)?;
    a.mov(qword_ptr(rdi + rbx * 8), 1)?;
    between(a)?;
    a.mov(rax, qword_ptr(rsi + rbx * 8))?;
    a.mov(qword_ptr(rbp + rbx * 8), rax)
}

const RBX: usize = 3;
const R8: usize = 8;
const R9: usize = 9;

fn litmus_starts() -> [Start; 2] {
    [0, 1].map(|i| {
        let other = 1 - i;
        let registers = vec![
            (RBX, 0),
            (RSP, at::GUARDED + 0x800 * (i as u64 + 1)),
            (RBP, at::SEEN[i]),
            (RSI, at::CELLS[other]),
            (RDI, at::CELLS[i]),
            (R8, at::ROUND[i]),
            (R9, at::ROUND[other]),
            (R12, at::BEGUN),
            (R14, 0),
            (R15, ROUNDS),
        ];
        (at::CODE + 0x1000 * i as u64, registers)
    })
}

fn clear(ram: &Ram) {
    let zeros = vec![0; 8 * (ROUNDS as usize + 1)];
    at::CELLS.iter().chain(&at::SEEN).for_each(|&gpa| assert!(ram.write_bytes(gpa, &zeros)));
    at::ROUND.iter().chain(&[at::BEGUN]).for_each(|&gpa| ram.write_u64(gpa, 0).unwrap());
}

/// How often neither vCPU saw the other's store.
fn neither(ram: &Ram) -> usize {
    let seen = |i: usize, round: u64| ram.read_u64(at::SEEN[i] + 8 * round).unwrap();
    (1..=ROUNDS).filter(|&round| seen(0, round) == 0 && seen(1, round) == 0).count()
}

#[test]
fn a_load_does_not_overtake_a_store_across_a_fence_or_a_locked_instruction() {
    let fenced: [(&str, Emit); 4] = [
        ("mfence", |a| store_buffer(a, |a| a.mfence())),
        ("lock or", |a| store_buffer(a, |a| a.lock().or(dword_ptr(rsp), 0))),
        ("xchg across cache lines", |a| store_buffer(a, |a| a.xchg(qword_ptr(rsp - 4), rdx))),
        ("cmpxchg16b", |a| store_buffer(a, same_pair)),
    ];
    let plain: Emit = |a| store_buffer(a, |_| Ok(()));
    for tiers in PAIRS {
        let ram = ram(0);
        set_up(&ram);
        let run = |name: &'static str, body: Emit, forbidden: bool| Run {
            prepare: Box::new(move |ram| {
                (0..2).for_each(|vcpu| program(ram, at::CODE + 0x1000 * vcpu, body));
                clear(ram);
            }),
            starts: litmus_starts(),
            check: Box::new(move |ram, _: [&Cpu; 2]| {
                let count = neither(ram);
                assert!(!forbidden || count == 0, "{name}: {count} of {ROUNDS}, {tiers:?}");
                if !forbidden {
                    println!("{tiers:?}: {count} loads of {ROUNDS} overtook both stores where they may");
                }
            }),
        };
        // Each has vCPUs and caches of its own.
        for (name, body) in fenced {
            run_pair(&ram, tiers, &[run(name, body, true)]);
        }
        run_pair(&ram, tiers, &[run("nothing", plain, false)]);
    }
}

/// A CMPXCHG16B that stores what is there, or fails; RBX is the round's number.
fn same_pair(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(r10, rbx)?;
    a.xor(eax, eax)?;
    a.xor(edx, edx)?;
    a.lock().cmpxchg16b(xmmword_ptr(rsp))?;
    a.mov(rbx, r10)
}

/// The first vCPU writes data, then a number; the second one reads the number, then data. Counts in R14 what is out of order.
fn message(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut reader, mut end) = (a.create_label(), a.create_label());
    a.inc(rbx)?;
    a.test(r13, r13)?;
    a.jnz(reader)?;
    a.mov(qword_ptr(rdi), rbx)?;
    a.mov(qword_ptr(rdi + 0x400), rbx)?;
    a.jmp(end)?;
    a.set_label(&mut reader)?;
    a.mov(rax, qword_ptr(rdi + 0x400))?;
    a.mov(rdx, qword_ptr(rdi))?;
    a.cmp(rdx, rax)?;
    a.adc(r14, 0)?;
    a.set_label(&mut end)?;
    a.nop()
}

#[test]
fn what_was_stored_before_a_message_is_seen_after_it() {
    for tiers in PAIRS {
        let ram = ram(0);
        set_up(&ram);
        let starts = [0, 1].map(|i: u64| {
            let registers = [(RBX, 0), (RDI, at::CELLS[0]), (R12, at::BEGUN), (R13, i), (R14, 0), (R15, 20 * ROUNDS)];
            (at::CODE + 0x1000 * i, registers.to_vec())
        });
        let run = Run {
            prepare: Box::new(|ram: &Ram| {
                (0..2).for_each(|vcpu| program(ram, at::CODE + 0x1000 * vcpu, message));
                clear(ram);
            }),
            starts,
            check: Box::new(|_, cpus: [&Cpu; 2]| assert_eq!(cpus[1].state.gpr[R14], 0, "{tiers:?}")),
        };
        run_pair(&ram, tiers, &[run]);
    }
}
