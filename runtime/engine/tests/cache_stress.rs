//! Several vCPUs, each in its own thread, on one translation cache: they run the same code, rewrite each other's, and make
//! each other's be evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::{Cache, CacheStats, MIN_BYTES};
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::x86::state::{Cr0, Segment, State};
use mimus_frontend::x86::{Cpu, Features, HEADER_OFFSET, NoDevices};
use mimus_softmmu::Ram;
use mimus_softmmu::kick::Kicker;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Guest-physical places. Code and data of different vCPUs share pages, and code some granules.
mod at {
    /// Main program of each vCPU.
    pub const MAIN: u32 = 0x1_0000;
    /// A function of each vCPU that it rewrites all the time.
    pub const PATCH: u32 = 0x2_0000;
    /// A function that both rewrite in turn.
    pub const SHARED: u32 = 0x2_0400;
    /// A function with a loop that is always hot.
    pub const HOT: u32 = 0x3_0000;
    /// Stacks.
    pub const STACK: u32 = 0x4_0000;
    /// Outcome of each vCPU.
    pub const RESULT: u32 = 0x5_0000;
    /// Whose turn it is with `SHARED`.
    pub const TURN: u32 = 0x5_1000;
    /// What `SHARED` returns.
    pub const VALUE: u32 = 0x5_1040;
    /// Many functions.
    pub const CHURN: u32 = 0x10_0000;
}

/// Functions at `CHURN`, each with several blocks: more code than the arena holds.
const FUNCTIONS: u32 = 600;

/// Turns of the main program a run.
const TURNS: u32 = 400;

/// What a vCPU leaves at its `RESULT` when all was as expected.
const GOOD: u32 = 0x600d;

fn assemble(at: u32, emit: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    emit(&mut a).unwrap();
    a.assemble(at.into()).unwrap()
}

/// `mov eax, value; ret`, whose immediate is at offset 1.
fn constant(a: &mut CodeAssembler, value: u32) -> Result<(), IcedError> {
    a.mov(eax, value)?;
    a.ret()
}

/// The two instructions that are second in a function that is patched: `nop` and `not eax`.
const SECOND: [u16; 2] = [0x9066, 0xd0f7];

/// `mov eax, 0; nop; ret`, whose immediate is at offset 1 and the instruction of two bytes behind it at offset 5.
fn patched(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 0)?;
    a.db(&SECOND[0].to_le_bytes())?;
    a.ret()
}

/// Returns `4 * k` in EAX after a loop, with jumps within the page.
fn churn(a: &mut CodeAssembler, k: u32) -> Result<(), IcedError> {
    let (mut again, mut out) = (a.create_label(), a.create_label());
    a.mov(eax, k)?;
    a.mov(ecx, 3u32)?;
    a.set_label(&mut again)?;
    a.add(eax, k as i32)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.jmp(out)?;
    a.nop()?;
    a.set_label(&mut out)?;
    a.ret()
}

fn hot(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.xor(eax, eax)?;
    a.mov(ecx, 16u32)?;
    a.set_label(&mut again)?;
    a.add(eax, ecx)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.ret()
}

/// The main program of vCPU `i` of 2.
fn main_program(a: &mut CodeAssembler, i: u32) -> Result<(), IcedError> {
    let (patch, result) = (at::PATCH + 16 * i, at::RESULT + 64 * i);
    let (mut turn, mut inner, mut no_wrap) = (a.create_label(), a.create_label(), a.create_label());
    let (mut not_mine, mut fail) = (a.create_label(), a.create_label());
    a.xor(esi, esi)?;
    a.set_label(&mut turn)?;
    // Its own function returns what was just written into it.
    a.imul_3(edi, edi, 1_664_525)?;
    a.add(edi, 1_013_904_223)?;
    a.mov(dword_ptr(patch + 1), edi)?;
    a.mov(edx, patch)?;
    // In every other turn all bits of it are inverted.
    a.mov(ecx, esi)?;
    a.and(ecx, 1)?;
    a.imul_3(ecx, ecx, i32::from(SECOND[1]) - i32::from(SECOND[0]))?;
    a.add(ecx, i32::from(SECOND[0]))?;
    a.mov(word_ptr(patch + 5), cx)?;
    a.call(edx)?;
    a.mov(ecx, esi)?;
    a.and(ecx, 1)?;
    a.neg(ecx)?;
    a.xor(eax, ecx)?;
    a.cmp(eax, edi)?;
    a.jne(fail)?;
    // The next 8 functions.
    a.mov(ebp, 8)?;
    a.set_label(&mut inner)?;
    a.mov(edx, ebx)?;
    a.shl(edx, 6)?;
    a.add(edx, at::CHURN as i32)?;
    a.call(edx)?;
    a.lea(ecx, ptr(ebx * 4))?;
    a.cmp(eax, ecx)?;
    a.jne(fail)?;
    a.inc(ebx)?;
    a.cmp(ebx, FUNCTIONS as i32)?;
    a.jb(no_wrap)?;
    a.xor(ebx, ebx)?;
    a.set_label(&mut no_wrap)?;
    a.dec(ebp)?;
    a.jnz(inner)?;
    a.mov(edx, at::HOT)?;
    a.call(edx)?;
    a.cmp(eax, 136)?;
    a.jne(fail)?;
    // If it is its turn, the shared function returns what the other vCPU wrote into it, and then what itself does.
    a.cmp(dword_ptr(at::TURN), i as i32)?;
    a.jne(not_mine)?;
    a.mov(edx, at::SHARED)?;
    a.call(edx)?;
    a.cmp(eax, dword_ptr(at::VALUE))?;
    a.jne(fail)?;
    a.inc(eax)?;
    a.mov(dword_ptr(at::VALUE), eax)?;
    a.mov(dword_ptr(at::SHARED + 1), eax)?;
    a.call(edx)?;
    a.cmp(eax, dword_ptr(at::VALUE))?;
    a.jne(fail)?;
    a.mov(dword_ptr(at::TURN), 1 - i as i32)?;
    a.set_label(&mut not_mine)?;
    a.inc(dword_ptr(result + 8))?;
    a.inc(esi)?;
    a.cmp(esi, TURNS as i32)?;
    a.jb(turn)?;
    a.mov(dword_ptr(result), GOOD as i32)?;
    a.hlt()?;
    a.set_label(&mut fail)?;
    a.mov(dword_ptr(result + 4), eax)?;
    a.mov(dword_ptr(result), 0xbad)?;
    a.hlt()
}

fn guest() -> Arc<Ram> {
    let ram = Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap());
    let put = |at: u32, code: Vec<u8>| assert!(ram.write_bytes(at.into(), &code));
    for i in 0..2 {
        put(at::MAIN + 0x1000 * i, assemble(at::MAIN + 0x1000 * i, |a| main_program(a, i)));
        put(at::PATCH + 16 * i, assemble(at::PATCH, patched));
    }
    put(at::SHARED, assemble(at::SHARED, |a| constant(a, 0)));
    put(at::HOT, assemble(at::HOT, hot));
    for k in 0..FUNCTIONS {
        let code = assemble(at::CHURN + 64 * k, |a| churn(a, k));
        assert!(code.len() <= 64);
        put(at::CHURN + 64 * k, code);
    }
    Arc::new(ram)
}

struct Setup {
    ram: Arc<Ram>,
    cache: Arc<Cache>,
    jit: Arc<Jit>,
}

impl Setup {
    fn new(bytes: usize, arena_bytes: usize, quick: u32, threshold: u32) -> Setup {
        let ram = guest();
        let host = HostIsa::native().unwrap();
        let arena = Arena::with_generations(arena_bytes, 3).unwrap();
        let thunks = Thunks::new(&host, HEADER_OFFSET as i32).unwrap();
        let settings = Settings { header_offset: HEADER_OFFSET, counted: false, chain: true, sync: false, dump: false };
        let compiling = Compiling::start(host, settings, None).unwrap();
        let cache = Arc::new(Cache::new(ram.clone(), bytes, Some((arena, thunks.exit_stub().0))));
        if let Some(stub) = thunks.checked_stub() {
            cache.link_straddling_by(stub.0);
        }
        Setup { ram, cache, jit: Arc::new(Jit { thunks, compiling, quick, threshold, regions: Regions::after(16) }) }
    }

    /// vCPU `i` in 32-bit flat mode without paging.
    fn vcpu(&self, i: u32) -> (Vcpu<Cpu>, Arc<Kicker>) {
        let mut cpu = Cpu::new(self.ram.clone(), self.cache.clone(), Box::new(NoDevices), Features::default());
        cpu.state.cr0 |= Cr0::PE;
        let flat = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
        cpu.state.seg = [flat(0xc093); 6];
        cpu.state.seg[1] = flat(0xc09b);
        cpu.state.gpr[7] = u64::from(i) + 1;
        cpu.update_mode();
        let kicker = Kicker::new();
        (Vcpu::new(cpu, self.cache.clone(), Some(self.jit.clone()), None, kicker.clone()), kicker)
    }

    /// Runs the main program of vCPU `i` once, from its start.
    fn run(&self, i: u32, vcpu: &mut Vcpu<Cpu>, kicker: &Kicker) {
        let state: &mut State = &mut vcpu.cpu.state;
        state.rip = (at::MAIN + 0x1000 * i).into();
        state.gpr[4] = (at::STACK + 0x1000 * (i + 1)).into();
        state.halted = 0;
        while vcpu.cpu.state.halted == 0 {
            if vcpu.cpu.header.exit_request.swap(0, Ordering::AcqRel) != 0 {
                kicker.clear();
            }
            vcpu.step().unwrap();
            assert!(!vcpu.cpu.triple_fault, "vCPU {i} at {:#x}", vcpu.cpu.state.rip);
        }
        let result = u64::from(at::RESULT + 64 * i);
        let word = |n: u64| self.ram.read_u32(result + 4 * n).unwrap();
        assert_eq!(word(0), GOOD, "vCPU {i}: got {:#x} in turn {}", word(1), word(2));
        self.ram.write_u32(result, 0).unwrap();
    }

    /// Runs both until `enough`, and says how often.
    fn run_both(&self, enough: impl Fn(&CacheStats) -> bool + Sync) -> [u32; 2] {
        let done = AtomicBool::new(false);
        let start = Instant::now();
        let runs = |i: u32| {
            // However it ends: the other one must not wait for ever.
            struct Finish<'a>(&'a AtomicBool);
            impl Drop for Finish<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _finish = Finish(&done);
            let (mut vcpu, kicker) = self.vcpu(i);
            let mut count = 0;
            while !done.load(Ordering::Relaxed) && !enough(&self.cache.stats()) {
                assert!(start.elapsed() < Duration::from_secs(120), "not enough in time: {:?}", self.cache.stats());
                self.run(i, &mut vcpu, &kicker);
                vcpu.go_offline();
                std::thread::yield_now();
                vcpu.wake();
                count += 1;
            }
            count
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| runs(1));
            let first = runs(0);
            [first, other.join().unwrap()]
        })
    }

    fn assert_turns(&self, runs: [u32; 2]) {
        for (i, runs) in (0u64..).zip(runs) {
            assert_eq!(self.ram.read_u32(u64::from(at::RESULT) + 64 * i + 8), Some(runs * TURNS), "vCPU {i}");
        }
        assert!(self.ram.read_u32(at::VALUE.into()).unwrap() > 0, "nobody had a turn with the shared function");
    }
}

/// Bytes of an arena of 3 generations of the least size.
const TINY_ARENA: usize = 256 << 10;

#[test]
fn two_vcpus_share_a_cache_that_is_too_small() {
    for (quick, threshold) in [(0, 2), (1, 4)] {
        let setup = Setup::new(MIN_BYTES, TINY_ARENA, quick, threshold);
        let runs = setup.run_both(|s| s.evictions > 2000 && s.survivals > 20 && s.invalidations > 2000);
        setup.assert_turns(runs);
        let stats = setup.cache.stats();
        assert!(stats.links > 0 && stats.compiled > 0, "{stats:?}");
        assert!(stats.quick > 0 || quick == 0 || !cfg!(target_arch = "x86_64"), "{stats:?}");
    }
}

#[test]
fn two_vcpus_share_a_cache_with_no_room_for_metadata() {
    // The code of all functions, but few blocks' micro-ops.
    let setup = Setup::new(512 << 10, TINY_ARENA, 1, 6);
    let runs = setup.run_both(|s| s.evictions > 5000 && s.compiled > 200);
    setup.assert_turns(runs);
    let (held, bound) = setup.cache.metadata_bytes();
    assert!(held <= bound, "{held} of {bound} bytes");
}

#[test]
fn one_vcpu_waits_for_no_other() {
    let setup = Setup::new(MIN_BYTES, TINY_ARENA, 0, 2);
    let (mut gone, kicker) = setup.vcpu(1);
    setup.run(1, &mut gone, &kicker);
    drop(gone);
    let (sleeping, _) = setup.vcpu(1);
    sleeping.go_offline();
    let (mut vcpu, kicker) = setup.vcpu(0);
    let start = Instant::now();
    // More than three generations were filled: those filled first were reused.
    while setup.cache.stats().code_bytes < 4 * TINY_ARENA as u64 {
        setup.run(0, &mut vcpu, &kicker);
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", setup.cache.stats());
    }
}
