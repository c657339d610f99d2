//! Code and data behind addresses whose mapping changes: after what invalidates a translation the guest sees the new one,
//! however it got to the old one before, and what may be kept is kept.

use std::sync::Arc;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::Cache;
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Segment};
use mimus_frontend::x86::{Cpu, Features, HEADER_OFFSET, NoDevices};
use mimus_softmmu::Ram;
use mimus_softmmu::kick::Kicker;
use vm_memory::{GuestAddress, GuestMemoryMmap};

type Emit = fn(&mut CodeAssembler, &mut Check) -> Result<(), IcedError>;

/// Places in guest memory, identity-mapped below `RAM`.
mod at {
    pub const RAM: u64 = 16 << 20;
    pub const TABLES: u64 = 0x1_0000;
    pub const MAIN: u64 = 0x2_0000;
    pub const STACK: u64 = 0x3_0000;
    pub const RESULT: u64 = 0x3_1000;
    /// Descriptor of INVPCID.
    pub const DESCRIPTOR: u64 = 0x3_2000;
    /// Page `n` has a function and a word that are `n`.
    pub const PAGES: u64 = 0x10_0000;
    /// Two large pages, 4 MiB and 6 MiB, with such a page at this offset.
    pub const LARGE: u64 = 4 << 20;
    pub const IN_LARGE: u64 = 0x5000;
    /// Where the function is called, in either address space.
    pub const SMALL_VIRT: u64 = 0x4000_0000;
    pub const LARGE_VIRT: u64 = 0x4020_0000;
}

const P: u64 = 1;
const W: u64 = 2;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;

/// Of address space `space` (0 or 1): tables in this order.
const fn table(space: u64, level: u64) -> u64 {
    at::TABLES + 0x1000 * (4 * space + 4 - level)
}

const fn page(n: u64) -> u64 {
    at::PAGES + 0x1000 * n
}

/// Where the page table entry of the small page is, and the directory entry of the large one.
const fn small_entry(space: u64) -> u64 {
    table(space, 1)
}

const fn large_entry(space: u64) -> u64 {
    table(space, 2) + 8
}

const GOOD: i32 = 0x600d;

/// How often a program does what it does.
const TURNS: i32 = 40;

/// What a run may look up in its first turns, until everything is compiled and known.
const START: u64 = 30;

struct Check {
    fail: CodeLabel,
}

impl Check {
    /// Calls the function of the page at `virt` and reads its word: both must be `n`.
    fn expect(&mut self, a: &mut CodeAssembler, virt: u64, n: i32) -> Result<(), IcedError> {
        a.mov(rdx, virt)?;
        a.call(rdx)?;
        a.cmp(eax, n)?;
        a.jne(self.fail)?;
        a.mov(eax, dword_ptr(rdx + 0x800))?;
        a.cmp(eax, n)?;
        a.jne(self.fail)
    }
}

fn set_entry(a: &mut CodeAssembler, entry: u64, value: u64) -> Result<(), IcedError> {
    a.mov(rax, value)?;
    a.mov(qword_ptr(entry), rax)
}

/// MOV to CR3 of the tables of `space`, with `low` and bit 63 as given.
fn enter(a: &mut CodeAssembler, space: u64, low: u64, keep: bool) -> Result<(), IcedError> {
    a.mov(rax, table(space, 4) | low | u64::from(keep) << 63)?;
    a.mov(cr3, rax)
}

fn invlpg(a: &mut CodeAssembler, virt: u64) -> Result<(), IcedError> {
    a.mov(rax, virt)?;
    a.invlpg(byte_ptr(rax))
}

fn invpcid(a: &mut CodeAssembler, kind: u64, pcid: u64, virt: u64) -> Result<(), IcedError> {
    for (i, value) in [pcid, virt].into_iter().enumerate() {
        a.mov(rax, value)?;
        a.mov(qword_ptr(at::DESCRIPTOR + 8 * i as u64), rax)?;
    }
    a.mov(rax, kind)?;
    a.invpcid(rax, xmmword_ptr(at::DESCRIPTOR))
}

fn assemble(at: u64, emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    emit(&mut a).unwrap();
    a.assemble(at).unwrap()
}

/// `turn` again and again.
fn main_program(a: &mut CodeAssembler, turn: Emit) -> Result<(), IcedError> {
    let (mut again, mut fail) = (a.create_label(), a.create_label());
    a.xor(esi, esi)?;
    a.set_label(&mut again)?;
    turn(a, &mut Check { fail })?;
    a.inc(esi)?;
    a.mov(dword_ptr(at::RESULT + 4), esi)?;
    a.cmp(esi, TURNS)?;
    a.jb(again)?;
    a.mov(dword_ptr(at::RESULT), GOOD)?;
    a.hlt()?;
    a.set_label(&mut fail)?;
    a.hlt()
}

/// RAM with both address spaces and the program; `global` is the G bit of the program's own mapping.
fn guest(turn: Emit, global: u64) -> Arc<Ram> {
    let ram = Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), at::RAM as usize)]).unwrap());
    let put = |at: u64, bytes: &[u8]| assert!(ram.write_bytes(at, bytes));
    let set = |at: u64, value: u64| ram.write_u64(at, value).unwrap();
    let identity = at::TABLES + 0x8000;
    for i in 0..at::RAM >> 21 {
        set(identity + 8 * i, i << 21 | P | W | PS | A | D | global);
    }
    for space in 0..2 {
        set(table(space, 4), table(space, 3) | P | W);
        set(table(space, 3), identity | P | W);
        set(table(space, 3) + 8, table(space, 2) | P | W);
        set(table(space, 2), table(space, 1) | P | W);
        set(small_entry(space), page(1 + space) | P | W);
        set(large_entry(space), (at::LARGE + (space << 21)) | P | W | PS);
    }
    let of_value = |at: u64, n: u32| {
        put(
            at,
            &assemble(at, |a| {
                a.mov(eax, n)?;
                a.ret()
            }),
        );
        ram.write_u32(at + 0x800, n).unwrap();
    };
    for n in 1..8 {
        of_value(page(n.into()), n);
    }
    put(page(7) + 0xffd, &[0xb8, 0x01, 0x00]);
    for n in 8..11 {
        put(page(n), &[n as u8, 0x00, 0xc3]);
    }
    for n in 0..2 {
        of_value(at::LARGE + (u64::from(n) << 21) + at::IN_LARGE, n + 1);
    }
    put(at::MAIN, &assemble(at::MAIN, |a| main_program(a, turn)));
    Arc::new(ram)
}

/// A function that begins in the last three bytes of page 7, with 16 bits of its operand in the next one.
const ACROSS: u64 = at::SMALL_VIRT + 0xffd;

/// What one run had to look up.
struct Counts {
    walks: u64,
    indirect: u64,
}

/// `tiers`: executions before the quick tier, if any, and before the compiler; `None` to interpret.
fn run_as(turn: Emit, global: u64, tiers: Option<(u32, u32)>) -> Counts {
    let ram = guest(turn, global);
    let host = HostIsa::native().unwrap();
    let arena = Arena::new(1 << 20).unwrap();
    let thunks = Thunks::new(&host, HEADER_OFFSET as i32).unwrap();
    let settings = Settings { header_offset: HEADER_OFFSET, counted: false, chain: true, sync: true, dump: false };
    let compiling = Compiling::start(host, settings, None).unwrap();
    let cache = Arc::new(Cache::new(ram.clone(), 8 << 20, Some((arena, thunks.exit_stub().0))));
    if let Some(stub) = thunks.checked_stub() {
        cache.link_straddling_by(stub.0);
    }
    let regions = Regions::after(64);
    let jit = tiers.map(|(quick, threshold)| Arc::new(Jit { thunks, compiling, quick, threshold, regions }));

    let mut cpu = Cpu::new(ram.clone(), cache.clone(), Box::new(NoDevices), Features::default());
    let segment = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
    let s = &mut cpu.state;
    s.seg = [segment(0xc093); 6];
    s.seg[1] = segment(0xa09b);
    s.cr0 |= Cr0::PE | Cr0::PG | Cr0::WP;
    s.cr3 = Cr3::from_bits_retain(table(0, 4));
    s.cr4 = Cr4::PAE | Cr4::PGE | Cr4::PCIDE;
    s.efer |= Efer::LME | Efer::LMA;
    s.rip = at::MAIN;
    s.gpr[4] = at::STACK + 0x1000;
    cpu.flush_tlb(false);
    cpu.update_mode();
    let kicker = Kicker::new();
    let mut vcpu = Vcpu::new(cpu, cache, jit, None, kicker);
    let turns = || ram.read_u32(at::RESULT + 4).unwrap();
    while vcpu.cpu.state.halted == 0 {
        vcpu.step().unwrap();
        assert!(!vcpu.cpu.triple_fault, "at {:#x} in turn {}", vcpu.cpu.state.rip, turns());
    }
    let state = &vcpu.cpu.state;
    let got = (state.gpr[0], state.gpr[2]);
    assert_eq!(ram.read_u32(at::RESULT), Some(GOOD as u32), "turn {}: {got:x?} with {tiers:?}", turns());
    Counts { walks: vcpu.cpu.mmu.stats.refills, indirect: vcpu.stats.exits[1] }
}

/// Runs in every engine, with the program itself in global pages and in others; what compiled code did where it is global.
fn run(turn: Emit) -> Counts {
    for tiers in [None, Some((0, 5)), Some((0, 1)), Some((1, 1000)), Some((2, 5))] {
        run_as(turn, 0, tiers);
        run_as(turn, G, tiers);
    }
    run_as(turn, G, Some((0, 1)))
}

#[test]
fn each_address_space_has_its_own_page_there() {
    run(|a, check| {
        for space in [0, 1, 0] {
            enter(a, space, 0, false)?;
            check.expect(a, at::SMALL_VIRT, 1 + space as i32)?;
            check.expect(a, at::LARGE_VIRT + at::IN_LARGE, 1 + space as i32)?;
        }
        Ok(())
    });
}

#[test]
fn the_same_tables_loaded_again_flush() {
    run(|a, check| {
        for n in [3, 4] {
            set_entry(a, small_entry(0), page(n) | P | W)?;
            enter(a, 0, 0, false)?;
            check.expect(a, at::SMALL_VIRT, n as i32)?;
        }
        Ok(())
    });
}

#[test]
fn invlpg_shows_the_new_page() {
    run(|a, check| {
        for n in [3, 4, 5] {
            set_entry(a, small_entry(0), page(n) | P | W)?;
            invlpg(a, at::SMALL_VIRT + 0xfff)?;
            check.expect(a, at::SMALL_VIRT, n as i32)?;
        }
        Ok(())
    });
}

#[test]
fn invlpg_of_any_address_of_a_large_page_shows_the_new_one() {
    run(|a, check| {
        for n in [0, 1] {
            set_entry(a, large_entry(0), (at::LARGE + (n << 21)) | P | W | PS)?;
            invlpg(a, at::LARGE_VIRT + 0x12_3456)?;
            check.expect(a, at::LARGE_VIRT + at::IN_LARGE, 1 + n as i32)?;
        }
        Ok(())
    });
}

#[test]
fn an_instruction_across_two_pages_depends_on_both() {
    run(|a, check| {
        set_entry(a, small_entry(0), page(7) | P | W)?;
        invlpg(a, at::SMALL_VIRT)?;
        for n in [8, 9, 10] {
            set_entry(a, small_entry(0) + 8, page(n) | P | W)?;
            invlpg(a, at::SMALL_VIRT + 0x1000)?;
            for _ in 0..2 {
                a.mov(rdx, ACROSS)?;
                a.call(rdx)?;
                a.cmp(eax, (n as i32) << 16 | 1)?;
                a.jne(check.fail)?;
            }
        }
        Ok(())
    });
}

#[test]
fn invlpg_takes_global_pages_too() {
    run(|a, check| {
        for n in [3, 4] {
            set_entry(a, small_entry(0), page(n) | P | W | G)?;
            invlpg(a, at::SMALL_VIRT)?;
            check.expect(a, at::SMALL_VIRT, n as i32)?;
        }
        set_entry(a, small_entry(0), page(1) | P | W)?;
        invlpg(a, at::SMALL_VIRT)
    });
}

#[test]
fn changing_cr4_pge_flushes_global_pages() {
    run(|a, check| {
        for n in [3, 4] {
            set_entry(a, small_entry(0), page(n) | P | W | G)?;
            a.mov(rax, cr4)?;
            a.xor(rax, Cr4::PGE.bits() as i32)?;
            a.mov(cr4, rax)?;
            check.expect(a, at::SMALL_VIRT, n as i32)?;
        }
        Ok(())
    });
}

#[test]
fn a_pcid_that_is_entered_with_a_flush_shows_the_new_page() {
    run(|a, check| {
        for n in [3, 4] {
            set_entry(a, small_entry(0), page(n) | P | W)?;
            enter(a, 0, 1, false)?;
            check.expect(a, at::SMALL_VIRT, n as i32)?;
            enter(a, 1, 2, true)?;
            check.expect(a, at::SMALL_VIRT, 2)?;
            enter(a, 0, 1, true)?;
            check.expect(a, at::SMALL_VIRT, n as i32)?;
        }
        enter(a, 0, 0, false)
    });
}

#[test]
fn invpcid_flushes_the_pcid_that_it_names_while_another_runs() {
    const KINDS: [Emit; 4] = [
        |a, check| invpcid_turn(a, check, 0),
        |a, check| invpcid_turn(a, check, 1),
        |a, check| invpcid_turn(a, check, 2),
        |a, check| invpcid_turn(a, check, 3),
    ];
    for turn in KINDS {
        run(turn);
    }
}

fn invpcid_turn(a: &mut CodeAssembler, check: &mut Check, kind: u64) -> Result<(), IcedError> {
    for n in [3, 4] {
        enter(a, 1, 2, true)?;
        check.expect(a, at::SMALL_VIRT, 2)?;
        set_entry(a, small_entry(0), page(n) | P | W)?;
        invpcid(a, kind, 1, at::SMALL_VIRT)?;
        check.expect(a, at::SMALL_VIRT, 2)?;
        enter(a, 0, 1, true)?;
        check.expect(a, at::SMALL_VIRT, n as i32)?;
    }
    Ok(())
}

#[test]
fn more_pcids_than_are_kept() {
    run(|a, check| {
        for pcid in 1..12 {
            let space = pcid % 2;
            enter(a, space, pcid, true)?;
            check.expect(a, at::SMALL_VIRT, 1 + space as i32)?;
        }
        Ok(())
    });
}

#[test]
fn pcids_keep_what_they_know() {
    let counts = run(|a, check| {
        for space in [0, 1] {
            enter(a, space, space + 1, true)?;
            check.expect(a, at::SMALL_VIRT, 1 + space as i32)?;
        }
        Ok(())
    });
    // The data page is not global and of a mode without a bank for each space: it is walked once a switch.
    assert!(counts.walks <= START + 2 * TURNS as u64, "{} walks", counts.walks);
    assert!(counts.indirect <= START, "{} jumps were looked up", counts.indirect);
}

#[test]
fn global_code_is_still_known_after_a_change_of_tables() {
    let counts = run(|a, check| {
        set_entry(a, small_entry(0), page(1) | P | W | G)?;
        set_entry(a, small_entry(1), page(1) | P | W | G)?;
        for space in [0, 1] {
            enter(a, space, 0, false)?;
            check.expect(a, at::SMALL_VIRT, 1)?;
        }
        Ok(())
    });
    assert!(counts.walks <= START, "{} walks", counts.walks);
    assert!(counts.indirect <= START, "{} jumps were looked up", counts.indirect);
}
