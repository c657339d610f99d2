//! A vCPU in 64-bit mode that runs programs on a chosen tier.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::{Cache, CacheStats};
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::guest::GuestCpu;
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Segment, TableReg, reg};
use mimus_frontend::x86::{Cpu, Features, HEADER_OFFSET, NoDevices};
use mimus_softmmu::kick::Kicker;
use mimus_softmmu::{CodeSink, Ram};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Guest PC of programs. Addresses are guest-virtual and guest-physical ones at once.
pub(crate) const CODE: u64 = 0x1_0000;

/// Data of programs, filled with numbers.
pub(crate) const DATA: u64 = 0x20_0000;

/// Another place for data, in other sets of the TLB.
pub(crate) const MORE_DATA: u64 = DATA + 0x1_0000;

/// An address that is not mapped.
pub(crate) const UNMAPPED: u64 = 0x4000_0000;

const RAM: usize = 16 << 20;
const TABLES: u64 = 0x1000;
const IDT: u64 = 0x4000;
const GDT: u64 = 0x5000;
const HANDLER: u64 = 0x6000;
const STACK: u64 = 0x9_0000;

/// Host memory for translations and their metadata, in bytes.
const CACHE: usize = 32 << 20;

/// The part of it that is for host code, in bytes.
const ARENA: usize = 8 << 20;

/// How guest code is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Interpreted.
    Interpreter,
    /// By the quick tier, where there is one.
    Quick,
    /// Compiled block by block.
    Blocks,
    /// Compiled, the hottest as regions.
    Regions,
}

/// A vCPU with a program.
#[derive(Debug)]
pub struct Guest {
    vcpu: Vcpu<Cpu>,
    cache: Arc<Cache>,
    kicker: Arc<Kicker>,
}

/// Guest RAM with page tables that map all of it where it is by pages of 2 MiB (SDM vol. 3A, 4.5), descriptor tables, a
/// handler of page faults, and numbers to work with.
fn ram(code: &[u8]) -> Arc<Ram> {
    let ram = Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("guest RAM"));
    let put = |at: u64, bytes: &[u8]| assert!(ram.write_bytes(at, bytes));
    let words = |at: u64, words: &[u64]| (at..).step_by(8).zip(words).for_each(|(at, w)| put(at, &w.to_le_bytes()));
    words(TABLES, &[(TABLES + 0x1000) | 7]);
    words(TABLES + 0x1000, &[(TABLES + 0x2000) | 7]);
    let pages: Vec<u64> = (0..RAM as u64).step_by(2 << 20).map(|gpa| gpa | 0xe7).collect();
    words(TABLES + 0x2000, &pages);
    // Code and data segment as of `cpu`; an interrupt gate for #PF (SDM vol. 3A, 3.4.5 and 6.14.1).
    words(GDT, &[0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
    words(IDT + 14 * 16, &[HANDLER & 0xffff | 8 << 16 | 0x8e << 40, 0]);
    // add rsp, 8; add qword [rsp], 3; iretq: goes on after an instruction of three bytes.
    put(HANDLER, &[0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x04, 0x24, 0x03, 0x48, 0xcf]);
    let mut number = 1u64;
    let numbers: Vec<u64> = (0..0x1_0000 / 8)
        .map(|_| {
            // A double between 1 and 2, whose low half serves as an integer.
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            0x3ff << 52 | number >> 12
        })
        .collect();
    words(DATA, &numbers);
    words(MORE_DATA, &numbers);
    put(CODE, code);
    Arc::new(ram)
}

/// A vCPU in 64-bit mode at privilege level 0.
fn cpu(ram: Arc<Ram>, sink: Arc<dyn CodeSink>) -> Box<Cpu> {
    let mut cpu = Cpu::new(ram, sink, Box::new(NoDevices), Features::default());
    let state = &mut cpu.state;
    state.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::ET | Cr0::NE | Cr0::MP;
    state.cr3 = Cr3::from_bits_retain(TABLES);
    state.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    state.efer = Efer::LME | Efer::LMA;
    state.seg = [Segment { base: 0, limit: u32::MAX, selector: 16, access: 0xc093 }; 6];
    state.seg[1] = Segment { base: 0, limit: u32::MAX, selector: 8, access: 0xa09b };
    state.gdtr = TableReg { base: GDT, limit: 23 };
    state.idtr = TableReg { base: IDT, limit: 0xfff };
    cpu.update_mode();
    cpu
}

/// The mode that all guest code here runs in.
pub(crate) fn mode() -> mimus_frontend::x86::Mode {
    cpu(ram(&[]), Arc::new(NoDevices)).mode
}

impl Guest {
    /// A vCPU with `code` at [`CODE`].
    ///
    /// # Panics
    ///
    /// If the host has no memory, or no code generator.
    pub fn new(code: &[u8], tier: Tier) -> Guest {
        let ram = ram(code);
        let jit = (tier != Tier::Interpreter).then(|| {
            let host = HostIsa::native().expect("a host with a code generator").for_guest(Cpu::EXTENSIONS);
            let arena = Arena::new(ARENA).expect("memory for code");
            let thunks = Thunks::new(&host, HEADER_OFFSET as i32).expect("thunks that compile");
            let settings =
                Settings { header_offset: HEADER_OFFSET, counted: false, chain: true, sync: true, dump: false };
            let compiling = Compiling::start(host, settings, None).expect("a host with a code generator");
            let regions = Regions::after(if tier == Tier::Regions { 64 } else { 0 });
            let (quick, threshold) = if tier == Tier::Quick { (2, u32::MAX) } else { (0, 2) };
            (arena, Jit { thunks, compiling, quick, threshold, regions })
        });
        let (arena, jit) = jit.unzip();
        let arena = arena.zip(jit.as_ref().map(|jit| jit.thunks.exit_stub().0));
        let cache = Arc::new(Cache::new(ram.clone(), CACHE, arena));
        let kicker = Kicker::new();
        let cpu = cpu(ram, cache.clone());
        let vcpu = Vcpu::new(cpu, cache.clone(), jit.map(Arc::new), None, kicker.clone());
        Guest { vcpu, cache, kicker }
    }

    /// Runs the program until it halts, with `rounds` in RDI; not at all for no rounds.
    ///
    /// # Panics
    ///
    /// If the program makes the vCPU shut down.
    pub fn run(&mut self, rounds: u64) {
        if rounds == 0 {
            return;
        }
        let state = &mut self.vcpu.cpu.state;
        state.rip = CODE;
        state.gpr[reg::RDI] = rounds;
        state.gpr[reg::RSP] = STACK;
        state.halted = 0;
        while self.vcpu.cpu.state.halted == 0 {
            if self.vcpu.cpu.header.exit_request.swap(0, Ordering::AcqRel) != 0 {
                self.kicker.clear();
            }
            self.vcpu.step().expect("a block that is well formed");
            assert!(!self.vcpu.cpu.triple_fault, "the program failed at {:#x}", self.vcpu.cpu.state.rip);
        }
    }

    /// General registers and vector registers.
    pub fn registers(&self) -> ([u64; 16], [[u64; 2]; 16]) {
        (self.vcpu.cpu.state.gpr, self.vcpu.cpu.state.xmm)
    }

    /// Guest instructions interpreted so far.
    pub fn interpreted(&self) -> u64 {
        self.vcpu.stats.interpreted_insns
    }

    /// Counters of its cache.
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }
}
