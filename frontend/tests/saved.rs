//! A vCPU's state is saved and restored between any two instructions.
#![forbid(unsafe_code)]

mod common;

use common::{RAM_SIZE, flat32, ram, step};
use iced_x86::code_asm::*;
use mimus_frontend::x86::state::Cr0;
use mimus_frontend::x86::{Cpu, CpuState, Features, RestoreError};
use mimus_ir::Interp;

const START: u64 = 0x1000;

/// Integer, flags, stack, x87, MMX-free SSE and control registers, in a loop.
fn program() -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    let mut again = a.create_label();
    a.mov(esp, 0x9000).unwrap();
    a.mov(ecx, 5).unwrap();
    a.fninit().unwrap();
    a.fldpi().unwrap();
    a.set_label(&mut again).unwrap();
    a.add(eax, 0x7123_4567).unwrap();
    a.adc(ebx, ecx).unwrap();
    a.imul_3(edx, eax, 12345).unwrap();
    a.push(edx).unwrap();
    a.fild(dword_ptr(esp)).unwrap();
    a.faddp(st1, st0).unwrap();
    a.fld(st0).unwrap();
    a.movd(xmm0, edx).unwrap();
    a.paddd(xmm1, xmm0).unwrap();
    a.punpcklqdq(xmm2, xmm1).unwrap();
    a.cvtdq2ps(xmm3, xmm1).unwrap();
    a.mov(cr2, ebx).unwrap();
    a.std().unwrap();
    a.dec(ecx).unwrap();
    a.jnz(again).unwrap();
    a.hlt().unwrap();
    a.assemble(START).unwrap()
}

fn start() -> Box<Cpu> {
    let ram = ram();
    assert!(ram.write_bytes(START, &program()));
    let mut cpu = flat32(ram, Features::default());
    cpu.state.rip = START;
    cpu
}

/// Runs to HLT; how many instructions.
fn finish(cpu: &mut Cpu, interp: &mut Interp) -> u32 {
    let mut count = 0;
    while cpu.state.halted == 0 {
        step(cpu, interp);
        count += 1;
        assert!(count < 1000, "no HLT");
    }
    count
}

fn memory(cpu: &Cpu) -> Vec<u8> {
    let mut bytes = vec![0; RAM_SIZE];
    assert!(cpu.mmu.ram.read_bytes(0, &mut bytes));
    bytes
}

#[test]
fn a_restored_vcpu_goes_on_as_the_saved_one() {
    let mut interp = Interp::default();
    let total = finish(&mut start(), &mut interp);
    assert!(total > 60);
    for steps in 0..total {
        let mut original = start();
        for _ in 0..steps {
            step(&mut original, &mut interp);
        }
        let bytes = postcard::to_stdvec(&original.save()).unwrap();
        let saved: CpuState = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(saved, original.save());

        // Into a vCPU that did something else before.
        let mut restored = start();
        assert!(restored.mmu.ram.write_bytes(0, &memory(&original)));
        let context = restored.header.jump_context;
        restored.state.cr0 = Cr0::empty();
        restored.update_mode();
        restored.restore(&saved).unwrap();
        assert!(restored.header.jump_context > context, "what is known by virtual address is forgotten");
        assert_eq!((restored.mode, restored.bank), (original.mode, original.bank));

        assert_eq!(finish(&mut original, &mut interp), total - steps);
        assert_eq!(finish(&mut restored, &mut interp), total - steps);
        assert!(original.state == restored.state, "after {steps} steps");
        assert!(memory(&original) == memory(&restored), "after {steps} steps");
    }
}

#[test]
fn states_of_others_are_refused() {
    let mut cpu = start();
    let mut bytes = postcard::to_stdvec(&cpu.save()).unwrap();
    bytes[0] += 1;
    let newer: CpuState = postcard::from_bytes(&bytes).unwrap();
    let before = cpu.save();
    assert_eq!(cpu.restore(&newer), Err(RestoreError::Version { found: bytes[0].into() }));
    let other = flat32(ram(), Features { la57: true, ..Features::default() }).save();
    assert_eq!(cpu.restore(&other), Err(RestoreError::Features));
    assert_eq!(cpu.save(), before, "nothing changed");
}

#[test]
fn a_fault_waiting_for_its_delivery_is_part_of_the_state() {
    let mut cpu = start();
    cpu.raise(mimus_frontend::x86::exception::Exception::gp(0x18));
    let saved = cpu.save();
    let mut other = start();
    other.restore(&saved).unwrap();
    assert_eq!((other.pending, other.header.verdict), (cpu.pending, cpu.header.verdict));
    // Once it was delivered, it is not.
    other.restore(&start().save()).unwrap();
    assert_eq!((other.pending, other.header.verdict), (None, 0));
}
