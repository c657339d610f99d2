//! Code that is written while it is in use: a store takes effect at the next instruction, wherever it is and whoever runs it,
//! and data beside code costs no translation.

use std::sync::Arc;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::{Cache, CacheStats};
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::x86::state::{Cr0, Cr4, Segment};
use mimus_frontend::x86::{Cpu, Features, HEADER_OFFSET, NoDevices};
use mimus_softmmu::Ram;
use mimus_softmmu::kick::Kicker;
use vm_memory::{GuestAddress, GuestMemoryMmap};

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const MAIN: u32 = 0x1_0000;
/// A page with a function, and data from its second half on.
const FUNCTION: u32 = 0x2_0000;
const STACK: u32 = 0x4_0000;

/// Turns of each program.
const TURNS: u32 = 3000;

fn assemble(at: u32, emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    emit(&mut a).unwrap();
    a.assemble(at.into()).unwrap()
}

/// What a program leaves in EAX, and what became of the cache.
struct Outcome {
    result: u32,
    cache: CacheStats,
    interpreted_once: u64,
}

/// Executions after which a block gets quick code, and is compiled; `None` for the interpreter alone.
type Tiers = Option<(u32, u32)>;

/// Runs `program`, with `function` at [`FUNCTION`], until it halts.
fn run_as(program: Emit, function: &[u8], tiers: Tiers) -> Outcome {
    let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()));
    assert!(ram.write_bytes(MAIN.into(), &assemble(MAIN, program)) && ram.write_bytes(FUNCTION.into(), function));
    let arena = Arena::new(1 << 20).unwrap();
    let host = HostIsa::native().unwrap();
    let thunks = Thunks::new(&host, HEADER_OFFSET as i32).unwrap();
    let settings = Settings { header_offset: HEADER_OFFSET, counted: false, chain: true, sync: true, dump: false };
    let compiling = Compiling::start(host, settings, None).unwrap();
    let cache = Arc::new(Cache::new(ram.clone(), 8 << 20, Some((arena, thunks.exit_stub().0))));
    let regions = Regions::after(64);
    let jit = tiers.map(|(quick, threshold)| Arc::new(Jit { thunks, compiling, quick, threshold, regions }));
    let mut cpu = Cpu::new(ram, cache.clone(), Box::new(NoDevices), Features::default());
    let flat = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
    cpu.state.cr0 |= Cr0::PE;
    cpu.state.cr4 |= Cr4::OSFXSR;
    cpu.state.seg = [flat(0xc093); 6];
    cpu.state.seg[1] = flat(0xc09b);
    cpu.state.rip = MAIN.into();
    cpu.state.gpr[4] = STACK.into();
    cpu.update_mode();
    let mut vcpu = Vcpu::new(cpu, cache.clone(), jit, None, Kicker::new());
    while vcpu.cpu.state.halted == 0 {
        vcpu.step().unwrap();
        assert!(!vcpu.cpu.triple_fault, "at {:#x}", vcpu.cpu.state.rip);
    }
    let result = vcpu.cpu.state.gpr[0] as u32;
    Outcome { result, cache: cache.stats(), interpreted_once: vcpu.stats.interpreted_once }
}

/// Everything compiled at once, without quick code.
const COMPILED: Tiers = Some((0, 1));

/// Runs it in every engine; what became of it where most was compiled.
fn run(program: Emit, function: &[u8], result: u32) -> Outcome {
    for tiers in [None, COMPILED, Some((1, u32::MAX)), Some((2, 20))] {
        assert_eq!(run_as(program, function, tiers).result, result, "with {tiers:?}");
    }
    run_as(program, function, COMPILED)
}

/// `TURNS` times what `turn` does, with EDX = [`FUNCTION`] and ESI the turn, and the sum in EAX.
fn turns(
    a: &mut CodeAssembler,
    turn: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.xor(eax, eax)?;
    a.xor(esi, esi)?;
    a.mov(edx, FUNCTION)?;
    a.set_label(&mut again)?;
    turn(a)?;
    a.inc(esi)?;
    a.cmp(esi, TURNS as i32)?;
    a.jb(again)?;
    a.hlt()
}

/// `add eax, 0; ret` with an operand of 32 bits at offset 2, or behind instructions of `before`.
fn add_immediate(before: &[u8]) -> Vec<u8> {
    [before, &[0x81, 0xc0, 0, 0, 0, 0, 0xc3]].concat()
}

/// 0 + 1 + ... + (`TURNS` - 1).
const SUM: u32 = TURNS * (TURNS - 1) / 2;

#[test]
fn a_function_whose_operand_is_written_each_time_is_translated_a_few_times_only() {
    let outcome = run(
        |a| {
            turns(a, |a| {
                a.mov(dword_ptr(edx + 2), esi)?;
                a.call(edx)
            })
        },
        &add_immediate(&[]),
        SUM,
    );
    assert!(outcome.cache.invalidations < 50, "{:?}", outcome.cache);
    assert!(outcome.interpreted_once < 50, "{}", outcome.interpreted_once);
}

#[test]
fn a_function_whose_instruction_is_written_is_that_instruction() {
    // `add eax, imm8` and `sub eax, imm8` in turn, with an operand that is written together with it.
    let outcome = run(
        |a| {
            turns(a, |a| {
                a.mov(ecx, esi)?;
                a.and(ecx, 1)?;
                a.imul_3(ecx, ecx, 0x2800)?;
                a.add(ecx, 0x05_c083)?;
                a.mov(dword_ptr(edx), ecx)?;
                a.mov(byte_ptr(edx + 3), 0xc3u32)?;
                a.call(edx)?;
                a.inc(eax)
            })
        },
        &[0x83, 0xc0, 5, 0xc3],
        TURNS,
    );
    assert!(outcome.cache.invalidations >= u64::from(TURNS) - 1, "{:?}", outcome.cache);
}

#[test]
fn a_block_that_writes_its_own_next_instruction_runs_the_new_one() {
    // mov [edx + 9], esi; nop; add eax, imm32 (at offset 6 + 1 + 2); ret
    let function = add_immediate(&[0x89, 0xb2, 9, 0, 0, 0, 0x90]);
    run(|a| turns(a, |a| a.call(edx)), &function, SUM);
    // Together with its opcode, so that it cannot be read: mov [edx + 8], ecx, with ModRM of the ADD in ECX.
    let function = add_immediate(&[0x89, 0x8a, 8, 0, 0, 0, 0x90]);
    run(
        |a| {
            turns(a, |a| {
                a.mov(ecx, esi)?;
                a.shl(ecx, 8)?;
                a.add(ecx, 0xc0)?;
                a.call(edx)
            })
        },
        &function,
        SUM,
    );
}

#[test]
fn data_beside_code_costs_no_translation() {
    // In another granule, and in the one of the function, right behind it.
    for outcome in [
        run(|a| beside(a, 0x800), &add_immediate(&[]), SUM),
        run(|a| beside(a, 0x0c), &add_immediate(&[]), SUM),
        run(|a| beside(a, 0x07), &add_immediate(&[]), SUM),
    ] {
        assert!(outcome.cache.invalidations <= 1 && outcome.cache.translated < 20, "{:?}", outcome.cache);
        assert_eq!(outcome.interpreted_once, 0);
    }
}

/// Counts in memory at `FUNCTION + offset`, by stores of all widths, and calls the function.
fn beside(a: &mut CodeAssembler, offset: u32) -> Result<(), IcedError> {
    a.mov(dword_ptr(FUNCTION + offset), 0)?;
    turns(a, |a| {
        a.call(edx)?;
        a.add(eax, dword_ptr(edx + offset as i32))?;
        a.inc(dword_ptr(edx + offset as i32))?;
        a.mov(byte_ptr(edx + offset as i32 + 4), 1)?;
        a.mov(word_ptr(edx + offset as i32 + 5), 1)?;
        a.movdqu(xmmword_ptr(edx + offset as i32 + 8), xmm0)?;
        a.lock().inc(dword_ptr(edx + offset as i32 + 24))?;
        a.xchg(dword_ptr(edx + offset as i32 + 28), ebx)
    })
}
