//! Code that is mapped at several addresses, of which there is one translation: what it computes of its address is right at each,
//! and what differs from one to the other is not shared.

use std::sync::Arc;

use iced_x86::code_asm::*;
use iced_x86::{Code, Decoder, IcedError, Instruction, MemoryOperand, Register};
use mimus_engine::cache::CacheStats;
use mimus_engine::kept;
use mimus_engine::translator::{Options, Tiers, Translator};
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Segment, TableReg};
use mimus_frontend::x86::{Cpu, Features, NoDevices};
use mimus_softmmu::Ram;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const MAIN: u64 = 0x1_0000;
const HANDLER: u64 = 0x1_8000;
const TABLES: u64 = 0x2_0000;
const IDT: u64 = 0x3_0000;
const GDT: u64 = 0x3_1000;
const STACK: u64 = 0x4_0000;
/// Where the handler leaves the address of the instruction that raised #UD.
const RAISED: u64 = 0x5_0000;

/// Guest-physical addresses of the page with the code, and of the page behind it for each mapping.
const CODE: u64 = 0x6_0000;
const BEHIND: u64 = 0x7_0000;

/// Where the code is: linear addresses far from each other, and more than a jump of 32 bits reaches.
const PLACES: [u64; 4] = [0x40_0000, 0x7fff_1234_5000, 0x5555_0000_0000, 0xffff_8000_0123_4000];

/// Offsets in the page: of a function, of one that raises #UD, of one whose last instruction goes into the page behind.
const FUNCTION: u64 = 0x100;
const RAISES: u64 = 0x200;
const STRADDLES: u64 = 0xfe0;
/// Of the constant that the page behind has.
const DATA: u64 = 0x1800;

const GOOD: u64 = 0x600d;
const TURNS: u32 = 600;

type Emit<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

fn assemble(bits: u32, at: u64, emit: Emit<'_>) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).unwrap();
    emit(&mut a).unwrap();
    a.assemble(at).unwrap()
}

/// The function at [`FUNCTION`].
struct Function {
    code: Vec<u8>,
    /// Offset in the function of the address that it returns.
    returned: u64,
    /// Offset in the page of an 8-bit constant in it.
    constant: u64,
}

/// Leaves its own address in RAX, ten times the mapping's constant in R8, and a constant that is written to in R10.
fn function() -> Function {
    let code = assemble(64, FUNCTION, &|a| {
        let (mut inner, mut returned, mut again, mut bad) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        let mut tail = a.create_label();
        a.call(inner)?;
        a.set_label(&mut returned)?;
        a.lea(rdx, ptr(returned))?;
        a.cmp(rax, rdx)?;
        a.jne(bad)?;
        let data = MemoryOperand::with_base_displ(Register::RIP, DATA as i64);
        a.add_instruction(Instruction::with2(Code::Mov_r64_rm64, Register::RCX, data)?)?;
        a.xor(r8d, r8d)?;
        a.mov(r9d, 10)?;
        a.set_label(&mut again)?;
        a.add(r8, rcx)?;
        a.dec(r9d)?;
        a.jne(again)?;
        a.lea(r11, ptr(tail))?;
        a.jmp(r11)?;
        a.set_label(&mut bad)?;
        a.hlt()?;
        a.set_label(&mut inner)?;
        a.mov(rax, qword_ptr(rsp))?;
        a.ret()?;
        a.set_label(&mut tail)?;
        a.mov(r10d, 0)?;
        a.nop()?;
        a.add(r10d, 5)?;
        a.ret()
    });
    let decoded: Vec<_> = Decoder::with_ip(64, &code, FUNCTION, 0).into_iter().collect();
    let add = decoded.iter().rfind(|insn| insn.mnemonic() == iced_x86::Mnemonic::Add).unwrap();
    Function { returned: decoded[1].ip() - FUNCTION, constant: add.next_ip() - 1, code }
}

/// Calls `offset` in each of the places and has `check` look at what it did; a wrong answer halts with something else than
/// [`GOOD`] in RAX.
fn calls(
    a: &mut CodeAssembler,
    fail: CodeLabel,
    offset: u64,
    check: &dyn Fn(&mut CodeAssembler, u64, u64) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    for (number, place) in (0..).zip(PLACES) {
        a.mov(rbx, place + offset)?;
        a.call(rbx)?;
        check(a, number, place)?;
        a.jne(fail)?;
    }
    Ok(())
}

fn main_program(function: &Function) -> Vec<u8> {
    let Function { returned, constant, .. } = *function;
    assemble(64, MAIN, &|a| {
        let (mut again, mut fail) = (a.create_label(), a.create_label());
        a.xor(esi, esi)?;
        a.set_label(&mut again)?;
        // Written by one of the mappings in each turn, and now and then another: an operand of the function.
        a.mov(edi, esi)?;
        a.shr(edi, 5)?;
        a.and(edi, 1)?;
        a.mov(rbx, PLACES[1] + constant)?;
        a.mov(byte_ptr(rbx), dil)?;
        calls(a, fail, FUNCTION, &|a, number, place| {
            a.mov(rdx, place + FUNCTION + returned)?;
            a.cmp(rax, rdx)?;
            a.jne(fail)?;
            a.cmp(r10d, edi)?;
            a.jne(fail)?;
            a.cmp(r8, (10 * (1000 + number)) as i32)
        })?;
        calls(a, fail, RAISES, &|a, _, place| {
            a.mov(rdx, place + RAISES + 1)?;
            a.cmp(qword_ptr(RAISED), rdx)
        })?;
        calls(a, fail, STRADDLES, &|a, number, _| a.cmp(eax, (number + 7) as i32))?;
        a.inc(esi)?;
        a.cmp(esi, TURNS as i32)?;
        a.jb(again)?;
        a.mov(eax, GOOD as u32)?;
        a.set_label(&mut fail)?;
        a.hlt()
    })
}

/// RAM with everything; the low megabyte is mapped where it is, and the code at each of [`PLACES`].
fn ram(function: &Function) -> Arc<Ram> {
    let ram = Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let put = |at: u64, bytes: &[u8]| assert!(ram.write_bytes(at, bytes));
    let word = |at: u64, value: u64| put(at, &value.to_le_bytes());
    let mut next = TABLES;
    let mut map = |linear: u64, gpa: u64| {
        let mut table = TABLES;
        for level in (1..4).rev() {
            let at = table + 8 * (linear >> (12 + 9 * level) & 511);
            let entry = ram.read_u64(at).unwrap();
            table = if entry == 0 {
                next += 0x1000;
                word(at, next | 7);
                next
            } else {
                entry & !0xfff
            };
        }
        word(table + 8 * (linear >> 12 & 511), gpa | 0x63);
    };
    (0..256).for_each(|page| map(page << 12, page << 12));
    for (number, place) in (0..).zip(PLACES) {
        map(place, CODE);
        map(place + 0x1000, BEHIND + (number << 12));
        // The rest of `mov eax, number + 7`, and a return.
        put(BEHIND + (number << 12), &[&(number as u32 + 7).to_le_bytes()[..], &[0xc3]].concat());
        put(BEHIND + (number << 12) - 0x1000 + DATA, &(1000 + number).to_le_bytes());
    }
    assert!(next < IDT);
    put(CODE + FUNCTION, &function.code);
    // nop; ud2; ret
    put(CODE + RAISES, &[0x90, 0x0f, 0x0b, 0xc3]);
    put(CODE + STRADDLES, &assemble(64, STRADDLES, &|a| a.jmp(0xfff)));
    // mov eax, imm32, of which the page behind has the operand.
    put(CODE + 0xfff, &[0xb8]);
    put(MAIN, &main_program(function));
    // pop [RAISED]; add qword [RAISED], 2; push [RAISED]; sub qword [RAISED], 2; iretq
    put(
        HANDLER,
        &assemble(64, HANDLER, &|a| {
            a.pop(qword_ptr(RAISED))?;
            a.add(qword_ptr(RAISED), 2)?;
            a.push(qword_ptr(RAISED))?;
            a.sub(qword_ptr(RAISED), 2)?;
            a.iretq()
        }),
    );
    word(GDT + 8, 0x00af_9b00_0000_ffff);
    word(GDT + 16, 0x00cf_9300_0000_ffff);
    word(IDT + 6 * 16, HANDLER & 0xffff | 8 << 16 | 0x8e << 40 | HANDLER >> 16 << 48);
    Arc::new(ram)
}

/// The executions after which a block gets quick code and is compiled, and a region is made; `None` for the interpreter alone.
const TIERS: [Option<(u32, u32, u32)>; 5] =
    [None, Some((0, 1, 0)), Some((1, u32::MAX, 0)), Some((2, 20, 64)), Some((0, 2, 16))];

fn options(tiers: Option<(u32, u32, u32)>, kept: Option<&kept::Options>) -> Options {
    let tiers = tiers.map(|(quick, threshold, region)| Tiers {
        quick,
        threshold: Some(threshold),
        region,
        sync: true,
        ..Tiers::default()
    });
    Options { bytes: 8 << 20, tiers, kept: kept.cloned() }
}

fn run(tiers: Option<(u32, u32, u32)>, kept: Option<&kept::Options>) -> CacheStats {
    let function = function();
    let ram = ram(&function);
    let translator = Translator::new::<Cpu>(&ram, &options(tiers, kept)).unwrap();
    let mut cpu = Cpu::new(ram, translator.cache.clone(), Box::new(NoDevices), Features::default());
    let state = &mut cpu.state;
    state.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::ET | Cr0::NE | Cr0::MP;
    state.cr3 = Cr3::from_bits_retain(TABLES);
    state.cr4 = Cr4::PAE;
    state.efer = Efer::LME | Efer::LMA;
    state.seg = [Segment { base: 0, limit: u32::MAX, selector: 16, access: 0xc093 }; 6];
    state.seg[1] = Segment { base: 0, limit: u32::MAX, selector: 8, access: 0xa09b };
    state.gdtr = TableReg { base: GDT, limit: 23 };
    state.idtr = TableReg { base: IDT, limit: 0xfff };
    state.rip = MAIN;
    state.gpr[4] = STACK;
    cpu.update_mode();
    let mut vcpu = translator.vcpu(cpu);
    while vcpu.cpu.state.halted == 0 {
        vcpu.step().unwrap();
        assert!(!vcpu.cpu.triple_fault, "at {:#x}", vcpu.cpu.state.rip);
    }
    let state = &vcpu.cpu.state;
    assert_eq!(state.gpr[0], GOOD, "{tiers:?}, turn {}: {:x?} at {:#x}", state.gpr[6], state.gpr, state.rip);
    translator.keep();
    translator.cache.stats()
}

/// A second run takes what the first has kept, at all addresses, and does with it what it does by itself; so it does where code has
/// changed since.
#[test]
fn code_is_right_when_an_earlier_run_has_kept_it() {
    for (number, tiers) in TIERS.into_iter().enumerate().filter(|(_, tiers)| tiers.is_some()) {
        let folder = std::env::temp_dir().join(format!("mimus-kept-runs-{number}-{}", std::process::id()));
        let kept = kept::Options { folder: folder.clone(), bound: kept::BOUND, build: b"this one".to_vec() };
        let [first, second, third] = [0; 3].map(|_| run(tiers, Some(&kept)));
        assert_eq!(first.kept, 0, "{tiers:?}");
        assert!(second.kept > 0 && second.translated < first.translated, "{tiers:?}: {first:?} {second:?}");
        assert!(third.kept > 0 && third.compiled <= second.compiled, "{tiers:?}: {second:?} {third:?}");
        let other = kept::Options { build: b"another one".to_vec(), ..kept };
        assert_eq!(run(tiers, Some(&other)).kept, 0, "{tiers:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn code_is_right_at_each_of_its_addresses_and_translated_once() {
    for tiers in TIERS {
        let stats = run(tiers, None);
        // But for what straddles two pages, of which the second is another each time.
        assert!(stats.translated < 4 * u64::from(TURNS) + 65, "{tiers:?}: {stats:?}");
    }
}

/// A base of CS is no part of EIP, whatever bits of the two are where: the same code at other bases, in one cache.
#[test]
fn code_at_a_base_of_cs_knows_its_eip() {
    /// EIP of the program's beginning, near the end of a page at some of the bases.
    const START: u64 = 0x1fd0;
    let program = assemble(32, START, &|a| {
        let (mut again, mut next, mut over) = (a.create_label(), a.create_label(), a.create_label());
        a.xor(eax, eax)?;
        a.mov(ecx, 200)?;
        a.set_label(&mut again)?;
        a.call(next)?;
        a.set_label(&mut next)?;
        a.pop(edx)?;
        a.add(eax, edx)?;
        a.jmp(over)?;
        (0..40).try_for_each(|_| a.int3())?;
        a.set_label(&mut over)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.hlt()
    });
    // The call is behind XOR and MOV, of two and five bytes, and has five.
    const BASES: [u64; 6] = [0, 0x80, 0x1000, 0x1234, 0x8000, 0x1_f010];
    let sum = 200 * (START as u32 + 12);
    for tiers in TIERS {
        let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()));
        assert!(BASES.iter().all(|base| ram.write_bytes(base + START, &program)) && program.len() < 0x80);
        let translator = Translator::new::<Cpu>(&ram, &options(tiers, None)).unwrap();
        let mut cpu = Cpu::new(ram, translator.cache.clone(), Box::new(NoDevices), Features::default());
        cpu.state.cr0 |= Cr0::PE;
        cpu.state.seg = [Segment { base: 0, limit: u32::MAX, selector: 16, access: 0xc093 }; 6];
        let mut vcpu = translator.vcpu(cpu);
        for base in BASES.repeat(2) {
            vcpu.moved();
            let state = &mut vcpu.cpu.state;
            state.seg[1] = Segment { base, limit: u32::MAX, selector: 8, access: 0xc09b };
            (state.rip, state.halted, state.gpr[4]) = (START, 0, STACK);
            vcpu.cpu.update_mode();
            while vcpu.cpu.state.halted == 0 {
                vcpu.step().unwrap();
                assert!(!vcpu.cpu.triple_fault, "{tiers:?}, base {base:#x}");
            }
            assert_eq!(vcpu.cpu.state.gpr[0] as u32, sum, "{tiers:?}, base {base:#x}");
        }
    }
}
