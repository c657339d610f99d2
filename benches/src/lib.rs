//! What the benches measure: a few fixed blocks of guest code, and a vCPU to interpret them on.
#![forbid(unsafe_code)]

use std::sync::Arc;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_frontend::x86::lift::{MAX_GUEST_INSNS, Request, lift};
use mimus_frontend::x86::state::{Segment, cr0, cr4};
use mimus_frontend::x86::{Bus, Cpu, Features, Mode};
use mimus_ir::Block;
use mimus_softmmu::{CodeSink, MmioBus, Ram};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Guest PC of every block.
const PC: u64 = 0x1000;

/// A block of 32-bit guest code that leaves the registers it addresses memory by as they are.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it stands for.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The blocks: what most blocks of a kernel look like, one with the memory accesses of a copying loop, and one of
/// floating-point code.
///
/// # Panics
///
/// If the assembler refuses one, which no input can cause.
pub fn samples() -> Vec<Sample> {
    type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let rows: [(&'static str, Emit); 3] = [("integer", integer), ("memory", memory), ("float", float)];
    rows.map(|(name, emit)| {
        let mut a = CodeAssembler::new(32).expect("a bitness that exists");
        emit(&mut a).and_then(|()| a.jnz(PC)).expect("instructions that exist");
        Sample { name, bytes: a.assemble(PC).expect("a block that can be encoded") }
    })
    .into()
}

fn integer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lea(eax, ptr(eax + ecx * 4 + 12))?;
    a.shr(ecx, 3)?;
    a.xor(edx, eax)?;
    a.cmp(edx, 100)
}

fn memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, dword_ptr(esi + 8))?;
    a.movzx(ecx, byte_ptr(esi + 3))?;
    a.add(eax, ecx)?;
    a.mov(dword_ptr(edi + 16), eax)?;
    a.inc(edx)?;
    a.test(edx, edx)
}

fn float(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.movups(xmm0, xmmword_ptr(esi))?;
    a.mulps(xmm0, xmm1)?;
    a.addps(xmm2, xmm0)?;
    a.movups(xmmword_ptr(edi), xmm2)?;
    a.dec(ecx)
}

impl Sample {
    /// As micro-ops, not optimized.
    ///
    /// # Panics
    ///
    /// If it is not a whole block.
    pub fn lift(&self, mode: Mode) -> Block {
        let bytes = &self.bytes;
        let request = Request { bytes, in_page: bytes.len(), rip: PC, mode, max_insns: MAX_GUEST_INSNS };
        lift(&request).expect("a whole block")
    }
}

/// No devices.
struct Nothing;

impl MmioBus for Nothing {
    fn mmio_read(&mut self, _: u64, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: u64, _: u8, _: u64) {}
}

impl Bus for Nothing {
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_out(&mut self, _: u16, _: u8, _: u32) {}
    fn tsc(&mut self) -> u64 {
        0
    }
    fn apic_base(&mut self) -> u64 {
        0
    }
    fn set_apic_base(&mut self, _: u64) -> bool {
        false
    }
    fn tsc_deadline(&mut self) -> u64 {
        0
    }
    fn set_tsc_deadline(&mut self, _: u64) {}
    fn tpr(&mut self) -> u8 {
        0
    }
    fn set_tpr(&mut self, _: u8) {}
}

impl CodeSink for Nothing {
    fn code_written(&self, _: u64, _: u64) {}
}

/// A vCPU in 32-bit protected mode with flat segments, whose ESI and EDI point into RAM.
///
/// # Panics
///
/// If the host has no memory for 1 MiB of guest RAM.
pub fn vcpu() -> Box<Cpu> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("1 MiB of memory");
    let mut cpu = Cpu::new(Arc::new(Ram::new(memory)), Arc::new(Nothing), Box::new(Nothing), Features::default());
    cpu.state.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::MP;
    cpu.state.cr4 = cr4::OSFXSR;
    let flat = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
    cpu.state.seg = [flat(0xc093); 6];
    cpu.state.seg[1] = flat(0xc09b);
    cpu.state.gpr[6] = 0x8000;
    cpu.state.gpr[7] = 0x9000;
    cpu.update_mode();
    cpu
}
