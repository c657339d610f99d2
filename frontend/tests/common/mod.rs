//! A vCPU without a machine around it.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use mimus_frontend::x86::lift::{MAX_INSN_LEN, Request, lift};
use mimus_frontend::x86::state::{Cr0, Cr4, Segment};
use mimus_frontend::x86::{Cpu, Features, NoDevices};
use mimus_ir::{Exit, Interp};
use mimus_softmmu::Ram;
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub const RAM_SIZE: usize = 1 << 20;

pub fn ram() -> Arc<Ram> {
    Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_SIZE)]).expect("guest RAM")))
}

/// A vCPU in 32-bit protected mode with flat segments, CPL 0, without paging.
pub fn flat32(ram: Arc<Ram>, features: Features) -> Box<Cpu> {
    let mut cpu = Cpu::new(ram, Arc::new(NoDevices), Box::new(NoDevices), features);
    cpu.state.cr0 = Cr0::PE | Cr0::ET | Cr0::NE | Cr0::MP;
    cpu.state.cr4 = Cr4::OSFXSR;
    let flat = |access| Segment { base: 0, limit: u32::MAX, selector: 8, access };
    cpu.state.seg = [flat(0xc093); 6];
    cpu.state.seg[1] = flat(0xc09b);
    cpu.update_mode();
    cpu
}

/// Interprets one instruction.
pub fn step(cpu: &mut Cpu, interp: &mut Interp) {
    let mut bytes = [0; MAX_INSN_LEN];
    let rip = cpu.state.rip;
    for (i, byte) in (0..).zip(&mut bytes) {
        let gpa = cpu.translate_fetch(rip + i).expect("mapped code");
        *byte = cpu.mmu.ram.read_u8(gpa).expect("code in RAM");
    }
    let request = Request { bytes: &bytes, in_page: bytes.len(), rip, base: 0, mode: cpu.mode, max_insns: 1 };
    let block = lift(&request).expect("whole instruction");
    match interp.run(&block, cpu).exit {
        Exit::Jump { pc, .. } | Exit::Indirect { pc } | Exit::CodeChanged { pc } => cpu.state.rip = pc,
        Exit::Main(_) => {}
        other => panic!("{other:?} at {rip:#x}"),
    }
}
