//! Display memory that compiled code stores to directly: whoever follows the record of written pages sees every store, wherever
//! the memory is, and code in it is what was written last.

use std::sync::Arc;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::Cache;
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::x86::state::{Cr0, Cr4, Segment};
use mimus_frontend::x86::{Bus, Cpu, Features, HEADER_OFFSET};
use mimus_softmmu::kick::Kicker;
use mimus_softmmu::{Backing, DirtyPages, MmioBus, PAGE_SIZE, Ram, Route, Vram};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const MAIN: u64 = 0x2_0000;
const STACK: u32 = 0x4_0000;
const RESULT: u64 = 0x5_0000;
const GOOD: u32 = 0x600d;

/// Where backings find display memory, and its size in pages.
const HOME: u64 = 0xe000_0000;
const PAGES: u64 = 32;
const SIZE: u32 = (PAGES * PAGE_SIZE) as u32;
/// Where the guest moves it to and fro.
const PLACES: [u32; 2] = [0xfd00_0000, 0x8000_0000];

/// Ports: the place of display memory; a byte that the adapter itself writes at offset [`FUNCTION`] and 1.
const MOVE: u32 = 0x10;
const ADAPTER: u32 = 0x11;
const FUNCTION: u32 = 0x7000;

type Piece = (u64, u64, Backing);

/// Moves display memory; reads as all ones elsewhere.
struct Adapter {
    vram: Arc<Vram>,
    place: u64,
    moved: Option<Vec<Piece>>,
}

fn window(at: u64, place: Route) -> Piece {
    (at, PAGES * PAGE_SIZE, Backing { read: place, write: place })
}

impl MmioBus for Adapter {
    fn mmio_read(&mut self, _: u64, _: u8) -> u64 {
        u64::MAX
    }

    fn mmio_write(&mut self, _: u64, _: u8, _: u64) {}
}

impl Bus for Adapter {
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        0
    }

    fn port_out(&mut self, port: u16, _: u8, value: u32) {
        if u32::from(port) == MOVE {
            let old = std::mem::replace(&mut self.place, value.into());
            self.moved = Some(vec![window(old, Route::Device), window(value.into(), Route::At(HOME))]);
        } else {
            self.vram.write(u64::from(FUNCTION) + 1, 1, value.into());
        }
    }

    fn take_backings(&mut self) -> Option<Vec<Piece>> {
        self.moved.take()
    }
}

type Emit = fn(&mut CodeAssembler, CodeLabel) -> Result<(), IcedError>;

/// Does `turn` as often as said, with its number in ESI. It may jump to the label if something is wrong.
fn program(turn: Emit, turns: u32) -> Vec<u8> {
    let emit = || {
        let mut a = CodeAssembler::new(32)?;
        let (mut again, mut fail) = (a.create_label(), a.create_label());
        a.xor(esi, esi)?;
        a.set_label(&mut again)?;
        turn(&mut a, fail)?;
        a.inc(esi)?;
        a.cmp(esi, turns)?;
        a.jb(again)?;
        a.mov(dword_ptr(RESULT as u32), GOOD)?;
        a.set_label(&mut fail)?;
        a.hlt()?;
        a.assemble(MAIN)
    };
    emit().unwrap()
}

/// `tiers`: executions before the quick tier, if any, and before the compiler; `None` to interpret.
fn run_as(turn: Emit, turns: u32, tiers: Option<(u32, u32)>) {
    let vram = Arc::new(Vram::new(SIZE as usize).unwrap());
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let ram = Arc::new(Ram::with_display(memory, Some((HOME, vram.clone()))));
    assert!(ram.write_bytes(MAIN, &program(turn, turns)));
    let host = HostIsa::native().unwrap();
    let arena = Arena::new(1 << 20).unwrap();
    let thunks = Thunks::new(&host, HEADER_OFFSET as i32).unwrap();
    let settings = Settings { header_offset: HEADER_OFFSET, counted: false, chain: true, sync: true, dump: false };
    let compiling = Compiling::start(host, settings, None).unwrap();
    let cache = Arc::new(Cache::new(ram.clone(), 8 << 20, Some((arena, thunks.exit_stub().0))));
    let regions = Regions::after(64);
    let jit = tiers.map(|(quick, threshold)| Arc::new(Jit { thunks, compiling, quick, threshold, regions }));

    let adapter = Adapter { vram: vram.clone(), place: PLACES[0].into(), moved: None };
    let mut cpu = Cpu::new(ram.clone(), cache.clone(), Box::new(adapter), Features::default());
    let segment = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
    cpu.state.seg = [segment(0xc093); 6];
    cpu.state.seg[1] = segment(0xc09b);
    cpu.state.cr0 |= Cr0::PE;
    cpu.state.cr4 |= Cr4::OSFXSR;
    cpu.state.rip = MAIN;
    cpu.state.gpr[4] = STACK.into();
    cpu.set_backings(&[window(PLACES[0].into(), Route::At(HOME))]);
    cpu.flush_tlb(false);
    cpu.update_mode();
    let kicker = Kicker::new();
    let mut vcpu = Vcpu::new(cpu, cache, jit, None, kicker);

    // Somebody who looks now and then, at pages of the record only.
    let mut seen = vec![0; SIZE as usize];
    let mut look = |vcpu: &mut Vcpu<Cpu>| {
        let mut pages = DirtyPages::default();
        vcpu.cpu.mmu.record_stores();
        vram.take_dirty(&mut pages);
        for (page, bytes) in (0..).zip(seen.chunks_mut(PAGE_SIZE as usize)) {
            if pages.touches(page * PAGE_SIZE, 1) {
                vram.copy_to(page * PAGE_SIZE, bytes);
            }
        }
        let mut now = vec![0; SIZE as usize];
        vram.copy_to(0, &mut now);
        assert!(now == seen, "a store was not recorded, with {tiers:?}");
    };
    let mut steps = 0u32;
    while vcpu.cpu.state.halted == 0 {
        vcpu.step().unwrap();
        assert!(!vcpu.cpu.triple_fault, "at {:#x}", vcpu.cpu.state.rip);
        steps += 1;
        if steps.is_multiple_of(7) {
            look(&mut vcpu);
        }
    }
    look(&mut vcpu);
    let gpr = &vcpu.cpu.state.gpr;
    assert_eq!(ram.read_u32(RESULT), Some(GOOD), "turn {}: {:x?} with {tiers:?}", gpr[6], &gpr[..4]);
}

fn run(turn: Emit, turns: u32) {
    for tiers in [None, Some((0, 5)), Some((0, 1)), Some((1, 1000)), Some((2, 5))] {
        run_as(turn, turns, tiers);
    }
}

#[test]
fn stores_of_every_kind() {
    // EBX walks over the memory, in steps that come to every page.
    let turn = |a: &mut CodeAssembler, fail| {
        a.imul_3(ebx, esi, 0x1234)?;
        a.and(ebx, SIZE / 2 - 8)?;
        a.add(ebx, PLACES[0])?;
        a.mov(dword_ptr(ebx), esi)?;
        a.add(dword_ptr(ebx), 1)?;
        a.mov(word_ptr(ebx + 0x103), si)?;
        a.xchg(byte_ptr(ebx + 0x2000), al)?;
        a.lock().add(dword_ptr(ebx + 0x3000), esi)?;
        a.movd(xmm0, esi)?;
        a.movups(xmmword_ptr(ebx + 0x4000), xmm0)?;
        a.lea(edi, ptr(ebx + 0x5ff0))?;
        a.mov(eax, esi)?;
        a.mov(ecx, 16)?;
        a.cld()?;
        a.rep().stosd()?;
        a.push(esi)?;
        a.mov(esi, ebx)?;
        a.lea(edi, ptr(ebx + 0x8000))?;
        a.mov(ecx, 300)?;
        a.rep().movsd()?;
        a.pop(esi)?;
        a.lea(eax, ptr(esi + 1))?;
        a.cmp(dword_ptr(ebx + 0x8000), eax)?;
        a.jne(fail)
    };
    run(turn, 200);
}

#[test]
fn a_loop_over_many_pages() {
    let turn = |a: &mut CodeAssembler, fail| {
        let mut again = a.create_label();
        a.mov(ebx, PLACES[0])?;
        a.set_label(&mut again)?;
        a.mov(dword_ptr(ebx), esi)?;
        a.mov(eax, dword_ptr(ebx))?;
        a.cmp(eax, esi)?;
        a.jne(fail)?;
        a.add(ebx, 0x40)?;
        a.cmp(ebx, PLACES[0] + SIZE)?;
        a.jb(again)
    };
    run(turn, 40);
}

#[test]
fn memory_that_moves() {
    // Stores a number at one place and looks for it at the other, where display memory is then.
    let turn = |a: &mut CodeAssembler, fail| {
        for (from, to) in [(PLACES[0], PLACES[1]), (PLACES[1], PLACES[0])] {
            a.lea(edi, ptr(esi * 4 + from))?;
            a.mov(dword_ptr(edi), esi)?;
            a.mov(edx, MOVE)?;
            a.mov(eax, to)?;
            a.out(dx, eax)?;
            // Nothing is there any more.
            a.mov(dword_ptr(edi), 0x5555_5555)?;
            a.cmp(dword_ptr(edi), -1)?;
            a.jne(fail)?;
            a.cmp(dword_ptr(edi + to.wrapping_sub(from) as i32), esi)?;
            a.jne(fail)?;
        }
        a.nop()
    };
    run(turn, 60);
}

#[test]
fn code_in_display_memory() {
    // MOV AL, n; RET, with n written by the program and by the adapter.
    let turn = |a: &mut CodeAssembler, fail| {
        a.mov(ebx, PLACES[0] + FUNCTION)?;
        a.mov(dword_ptr(ebx), 0x00c3_00b0)?;
        a.mov(edx, esi)?;
        a.mov(byte_ptr(ebx + 1), dl)?;
        a.mov(ebp, 5)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.call(ebx)?;
        a.cmp(al, byte_ptr(ebx + 1))?;
        a.jne(fail)?;
        a.lea(eax, ptr(ebp + 0x60))?;
        a.mov(edx, ADAPTER)?;
        a.out(dx, eax)?;
        a.dec(ebp)?;
        a.jne(again)
    };
    run(turn, 40);
}
