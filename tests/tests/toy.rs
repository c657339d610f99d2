//! A third guest, the toy of `tests/src/toy`, in every tier: the engine knows of no guest what it could not know of this one. One
//! program has a loop of integers, loads and stores through a page table with faults, floating point with its flags, and a timer
//! that interrupts it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::{Cache, CacheStats};
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::guest::GuestCpu;
use mimus_softmmu::Ram;
use mimus_softmmu::kick::Kicker;
use mimus_tests::toy::isa::{Code, Code::*, encode};
use mimus_tests::toy::{Cpu, cause, entry, special};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const MAIN: u64 = 0x1000;
const HANDLER: u64 = 0x2000;
const NUMBERS: u64 = 0x3000;
const TABLE: u64 = 0x8000;
/// A page that is mapped at [`ALIAS`], too.
const PAGE: u64 = 0xa000;
const ALIAS: u64 = 0x1_a000;
const READ_ONLY: u64 = 0xb000;
const NOT_MAPPED: u64 = 0xc000;

/// Turns of the loop, and interrupts that the program waits for.
const TURNS: i32 = 5000;
const TICKS: i32 = 5;

/// Registers with a meaning of their own: what the loop adds up, faults counted, their addresses added up, interrupts counted.
const SUM: u8 = 2;
const FAULTS: u8 = 12;
const ADDRESSES: u8 = 13;
const INTERRUPTS: u8 = 14;
const FLAGS: u8 = 15;

const INEXACT: u64 = 0x20;
const DIVIDED_BY_ZERO: u64 = 4;

type Line = (Code, u8, u8, i32);

fn words(lines: &[Line]) -> Vec<u8> {
    lines.iter().flat_map(|&(code, d, a, rest)| encode(code, d, a, rest).to_le_bytes()).collect()
}

/// Bytes from an instruction to the one `lines` further on.
const fn lines(lines: i32) -> i32 {
    4 * lines
}

fn main_program() -> Vec<u8> {
    let start = [
        (Addi, 1, 0, HANDLER as i32),
        (Put, 0, 1, special::HANDLER as i32),
        (Addi, 1, 0, TABLE as i32),
        (Put, 0, 1, special::TABLE as i32),
        (Addi, 4, 0, TURNS),
        (Addi, 5, 0, PAGE as i32),
        (LoadF, 1, 0, NUMBERS as i32),
        // The loop: what is stored by one name of the page is loaded by the other.
        (Addi, 3, 3, 1),
        (Store, 3, 5, 8),
        (Load, 6, 0, ALIAS as i32 + 8),
        (Add, SUM, SUM, 6),
        (AddF, 0, 0, 1),
        (Call, 7, 0, lines(3)),
        (Blt, 3, 4, lines(-6)),
        (Beq, 0, 0, lines(3)),
        (Add, SUM, SUM, 3),
        (Jump, 0, 7, 0),
    ];
    let rest = [
        (Get, 8, 0, special::FLAGS as i32),
        (DivF, 2, 1, 3),
        (Get, FLAGS, 0, special::FLAGS as i32),
        (Store, 3, 0, READ_ONLY as i32 + 16),
        (Load, 6, 0, NOT_MAPPED as i32),
        (StoreF, 0, 5, 16),
        // Wait for interrupts.
        (Addi, 1, 0, 1),
        (Addi, 4, 0, TICKS),
        (Put, 0, 1, special::STATUS as i32),
        (Addi, 9, 9, 1),
        (Blt, INTERRUPTS, 4, lines(-1)),
        (Halt, 0, 0, 0),
    ];
    words(&[&start[..], &rest[..]].concat())
}

/// Skips what faults, and answers the timer.
fn handler() -> Vec<u8> {
    words(&[
        (Get, 10, 0, special::CAUSE as i32),
        (Addi, 11, 0, cause::TIMER as i32),
        (Beq, 10, 11, lines(8)),
        (Addi, FAULTS, FAULTS, 1),
        (Get, 10, 0, special::ADDRESS as i32),
        (Add, ADDRESSES, ADDRESSES, 10),
        (Get, 10, 0, special::PC as i32),
        (Addi, 10, 10, lines(1)),
        (Put, 0, 10, special::PC as i32),
        (Return, 0, 0, 0),
        (Addi, INTERRUPTS, INTERRUPTS, 1),
        (Put, 0, 0, special::TIMER as i32),
        (Return, 0, 0, 0),
    ])
}

fn memory() -> Arc<Ram> {
    let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2_0000)]).expect("guest RAM")));
    let mut table = vec![0u64; entry::COUNT as usize];
    for page in [MAIN, HANDLER, NUMBERS, READ_ONLY] {
        table[page as usize >> 12] = page | entry::VALID;
    }
    table[PAGE as usize >> 12] = PAGE | entry::VALID | entry::WRITABLE;
    table[ALIAS as usize >> 12] = PAGE | entry::VALID | entry::WRITABLE;
    let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    assert!(ram.write_bytes(MAIN, &main_program()) && ram.write_bytes(HANDLER, &handler()));
    assert!(ram.write_bytes(TABLE, &table) && ram.write_bytes(NUMBERS, &0.1f64.to_le_bytes()));
    ram
}

/// How the program is run: executions after which blocks get quick code and are compiled, and back edges after which regions are
/// made; `None` for the interpreter alone.
type Tiers = Option<(u32, u32, u32)>;

/// Runs the program to its end, with a timer that ticks all the time.
fn run(tiers: Tiers) -> (Box<Vcpu<Cpu>>, CacheStats) {
    let ram = memory();
    let arena = Arena::new(1 << 20).expect("memory for code");
    let host = HostIsa::native().expect("a host");
    let thunks = Thunks::new(&host, Cpu::HEADER_OFFSET as i32).expect("thunks");
    let header_offset = Cpu::HEADER_OFFSET;
    let settings = Settings { header_offset, counted: false, chain: true, sync: true, dump: false };
    let cache = Arc::new(Cache::new(ram.clone(), 8 << 20, Some((arena, thunks.exit_stub().0))));
    let jit = tiers.map(|(quick, threshold, regions)| {
        let compiling = Compiling::start(host, settings, None).expect("a compiler");
        Arc::new(Jit { thunks, compiling, quick, threshold, regions: Regions::after(regions) })
    });
    let kicker = Kicker::new();
    let mut vcpu = Box::new(Vcpu::new(Cpu::new(ram, cache.clone(), MAIN), cache.clone(), jit, None, kicker.clone()));
    let (timer, done) = (vcpu.cpu.timer.clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            // Not for ever: the thread ends after a failed run, too.
            for _ in (0..50_000).take_while(|_| !done.load(Ordering::Acquire)) {
                thread::sleep(Duration::from_micros(200));
                timer.store(true, Ordering::Release);
                kicker.kick();
            }
        });
        while vcpu.cpu.state.halted == 0 {
            if vcpu.cpu.header.exit_request.swap(0, Ordering::AcqRel) != 0 {
                vcpu.cpu.take_interrupt();
                vcpu.moved();
            }
            vcpu.step().expect("no block is malformed");
        }
        done.store(true, Ordering::Release);
    });
    let stats = cache.stats();
    (vcpu, stats)
}

/// Runs the program and looks at all that it has done.
fn check(tiers: Tiers) -> CacheStats {
    let (vcpu, stats) = run(tiers);
    let (state, ram) = (&vcpu.cpu.state, &vcpu.cpu.mmu.ram);
    let turns = TURNS as u64;
    assert_eq!(state.r[usize::from(SUM)], turns * (turns + 1), "each number twice");
    let sum = (0..TURNS).fold(0.0f64, |sum, _| sum + 0.1);
    assert_eq!(state.f[0][0], sum.to_bits());
    assert_eq!(state.f[2][0], f64::INFINITY.to_bits());
    assert_eq!([state.r[8], state.r[usize::from(FLAGS)]], [INEXACT, INEXACT | DIVIDED_BY_ZERO]);
    assert_eq!(state.r[usize::from(FAULTS)], 2);
    assert_eq!(state.r[usize::from(ADDRESSES)], READ_ONLY + 16 + NOT_MAPPED);
    assert_eq!(state.r[6], turns, "the load that faults has no result");
    assert!(state.r[usize::from(INTERRUPTS)] >= TICKS as u64);
    assert_eq!([ram.read_u64(PAGE + 8), ram.read_u64(PAGE + 16)], [Some(turns), Some(sum.to_bits())]);
    assert_eq!(ram.read_u64(READ_ONLY + 16), Some(0));
    let dirty = |page: u64| ram.read_u64(TABLE + 8 * (page >> 12)).expect("a table in RAM") & entry::DIRTY != 0;
    assert_eq!([dirty(PAGE), dirty(ALIAS), dirty(READ_ONLY)], [true, false, false]);
    stats
}

#[test]
fn the_interpreter_runs_it() {
    assert_eq!(check(None).compiled, 0);
}

#[test]
fn the_quick_tier_runs_it() {
    let stats = check(Some((1, u32::MAX, 0)));
    assert!(stats.quick > 0 || cfg!(not(target_arch = "x86_64")), "{stats:?}");
    assert_eq!(stats.compiled, 0);
}

#[test]
fn compiled_blocks_run_it() {
    let stats = check(Some((0, 1, 0)));
    assert!(stats.compiled > 0 && stats.quick == 0 && stats.regions == 0, "{stats:?}");
}

#[test]
fn regions_run_it() {
    let stats = check(Some((2, 20, 64)));
    assert!(stats.regions > 0, "{stats:?}");
}
