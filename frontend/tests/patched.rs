//! Immediate operands that are read when they are executed: the block does what one translated anew would do.
#![forbid(unsafe_code)]

mod common;

use common::{flat32, ram};
use mimus_frontend::x86::lift::{Patched, Request, lift, lift_patched};
use mimus_frontend::x86::state::Efer;
use mimus_frontend::x86::{Cpu, Features};
use mimus_ir::{Block, Interp};

/// Where the code and its operand in memory are.
const CODE: u64 = 0x3000;
const OPERAND: u64 = 0x5000;

fn request<'a>(bytes: &'a [u8], cpu: &Cpu) -> Request<'a> {
    Request { bytes, in_page: bytes.len(), rip: CODE, base: 0, mode: cpu.mode, max_insns: 1 }
}

/// The block of `bytes` if `writes` are written often, and the offsets and lengths of what it reads.
fn patched(cpu: &Cpu, bytes: &[u8], writes: &[(u64, u64)]) -> (Block, Vec<(u32, u32)>) {
    let mut read = Vec::new();
    let block = lift_patched(&request(bytes, cpu), &Patched { gpa: CODE, writes }, &mut read);
    (block.expect("whole instruction"), read)
}

fn vcpu(long: bool) -> Box<Cpu> {
    let mut cpu = flat32(ram(), Features::default());
    if long {
        cpu.state.efer |= Efer::LME | Efer::LMA;
        cpu.state.seg[1].access = 0xa09b;
        cpu.update_mode();
    }
    cpu.state.gpr = std::array::from_fn(|i| 0x8123_4567_89ab_cdefu64.rotate_left(7 * i as u32));
    cpu.state.gpr[3] = OPERAND;
    cpu.state.gpr[4] = OPERAND + 0x100;
    cpu
}

/// State and memory after running `block`.
fn run(cpu: &mut Cpu, block: &Block) -> (Vec<u8>, [u64; 64]) {
    let before = cpu.state;
    let ram = cpu.mmu.ram.clone();
    let memory = |i: usize| OPERAND + 8 * i as u64;
    (0..64).for_each(|i| ram.write_u64(memory(i), 0x1122_3344_5566_7788).unwrap());
    Interp::default().run(block, &mut *cpu);
    let after = std::mem::replace(&mut cpu.state, before);
    (bytemuck::bytes_of(&after).to_vec(), std::array::from_fn(|i| ram.read_u64(memory(i)).unwrap()))
}

/// Whether it is 64-bit code, the instruction, and how many bytes its immediate operand has at the end.
const ROWS: [(bool, &[u8], usize); 16] = [
    (false, &[0x04, 0], 1),                           // add al, imm8
    (false, &[0x05, 0, 0, 0, 0], 4),                  // add eax, imm32
    (false, &[0x66, 0x05, 0, 0], 2),                  // add ax, imm16
    (false, &[0x83, 0xd9, 0], 1),                     // sbb ecx, imm8
    (true, &[0x48, 0x83, 0x2b, 0], 1),                // sub qword [rbx], imm8
    (true, &[0x48, 0x81, 0x33, 0, 0, 0, 0], 4),       // xor qword [rbx], imm32
    (false, &[0x66, 0x83, 0x3b, 0], 1),               // cmp word [ebx], imm8
    (true, &[0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0], 8), // mov rcx, imm64
    (true, &[0xb9, 0, 0, 0, 0], 4),                   // mov ecx, imm32
    (true, &[0xb5, 0], 1),                            // mov ch, imm8
    (true, &[0x48, 0xc7, 0x03, 0, 0, 0, 0], 4),       // mov qword [rbx], imm32
    (true, &[0x6a, 0], 1),                            // push imm8
    (false, &[0x68, 0, 0, 0, 0], 4),                  // push imm32
    (true, &[0x48, 0x69, 0xc9, 0, 0, 0, 0], 4),       // imul rcx, rcx, imm32
    (true, &[0xf6, 0x03, 0], 1),                      // test byte [rbx], imm8
    (false, &[0x0f, 0xba, 0x2b, 0], 1),               // bts dword [ebx], imm8
];

#[test]
fn the_operand_is_what_is_there_when_the_block_runs() {
    for (long, insn, len) in ROWS {
        let mut cpu = vcpu(long);
        let offset = insn.len() - len;
        let (block, read) = patched(&cpu, insn, &[(CODE + offset as u64, len as u64)]);
        assert_eq!(read, [(offset as u32, len as u32)], "{insn:02x?}");
        let mut outcomes = Vec::new();
        for value in [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, u64::MAX, 1 << 63, 0x1234_5678]
        {
            let mut now = insn.to_vec();
            now[offset..].copy_from_slice(&value.to_le_bytes()[..len]);
            cpu.mmu.ram.write_bytes(CODE, &now);
            let fresh = lift(&request(&now, &cpu)).expect("whole instruction");
            let got = run(&mut cpu, &block);
            assert!(got == run(&mut cpu, &fresh), "{now:02x?}");
            outcomes.push(got);
        }
        outcomes.dedup();
        assert!(outcomes.len() > 1, "the operand of {insn:02x?} matters");
    }
}

#[test]
fn only_operands_that_are_written_by_themselves_are_read() {
    let cpu = vcpu(true);
    let add = &[0x48, 0x05, 1, 2, 3, 4];
    // Where it is written, how many bytes, whether the operand is read.
    let rows = [(2, 4, true), (3, 1, true), (4, 2, true), (1, 5, false), (2, 5, false), (0, 1, false), (6, 1, false)];
    for (offset, len, reads) in rows {
        let (block, read) = patched(&cpu, add, &[(CODE + offset, len)]);
        assert_eq!(!read.is_empty(), reads, "{len} bytes at {offset}");
        assert_eq!(block == lift(&request(add, &cpu)).unwrap(), !reads);
    }
    // Displacements, targets of jumps, counts of shifts and what is in the next page are translated.
    for (insn, offset, in_page) in [
        (&[0x8b, 0x8b, 0, 1, 0, 0][..], 2, 6),
        (&[0xe9, 0, 1, 0, 0], 1, 5),
        (&[0xc1, 0xe1, 3], 2, 3),
        (&[0x48, 0x05, 1, 2, 3, 4], 2, 5),
    ] {
        let mut read = Vec::new();
        let request = Request { in_page, ..request(insn, &cpu) };
        let writes = [(CODE + offset, 1)];
        let block = lift_patched(&request, &Patched { gpa: CODE, writes: &writes }, &mut read).unwrap();
        assert!(read.is_empty() && block == lift(&request).unwrap(), "{insn:02x?}");
    }
}
