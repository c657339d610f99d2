//! Blocks of guest code, to be translated.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_frontend::x86::Mode;
use mimus_frontend::x86::lift::{MAX_GUEST_INSNS, Request, lift};
use mimus_ir::Block;

use crate::guest::CODE;

/// A block of 64-bit guest code.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it stands for.
    pub name: &'static str,
    /// Its bytes, at guest PC [`CODE`].
    pub bytes: Vec<u8>,
}

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const SAMPLES: [(&str, Emit); 6] =
    [("integer", integer), ("memory", memory), ("call", call), ("string", string), ("sse", sse), ("x87", x87)];

/// The blocks.
///
/// # Panics
///
/// If the assembler refuses one, which no input can cause.
pub fn samples() -> Vec<Sample> {
    let sample = |(name, emit): (&'static str, Emit)| {
        let mut a = CodeAssembler::new(64).expect("a bitness that exists");
        emit(&mut a).expect("instructions that exist");
        Sample { name, bytes: a.assemble(CODE).expect("a block that can be encoded") }
    };
    SAMPLES.map(sample).into()
}

fn integer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lea(eax, ptr(rax + rcx * 4 + 12))?;
    a.shr(ecx, 3)?;
    a.xor(edx, eax)?;
    a.add(r8, rdx)?;
    a.imul_2(eax, edx)?;
    a.cmp(edx, 100)?;
    a.jne(CODE)
}

fn memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rsi + 8))?;
    a.movzx(ecx, byte_ptr(rsi + 3))?;
    a.add(eax, ecx)?;
    a.mov(qword_ptr(rdi + 16), rax)?;
    a.inc(dword_ptr(rdi + 24))?;
    a.test(edx, edx)?;
    a.jnz(CODE)
}

fn call(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.push(rbp)?;
    a.mov(rbp, rsp)?;
    a.push(rbx)?;
    a.sub(rsp, 24)?;
    a.mov(rbx, rdi)?;
    a.mov(rdi, qword_ptr(rbx))?;
    a.call(CODE + 0x100)
}

fn string(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.cld()?;
    a.mov(ecx, 32)?;
    a.rep().movsb()?;
    a.lodsb()?;
    a.stosb()?;
    a.test(al, al)?;
    a.jnz(CODE)
}

fn sse(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.movups(xmm0, xmmword_ptr(rsi))?;
    a.mulps(xmm0, xmm1)?;
    a.addps(xmm2, xmm0)?;
    a.cvtps2pd(xmm3, xmm2)?;
    a.sqrtsd(xmm4, xmm3)?;
    a.movups(xmmword_ptr(rdi), xmm2)?;
    a.ucomisd(xmm4, xmm3)?;
    a.ja(CODE)
}

fn x87(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.fld(qword_ptr(rsi))?;
    a.fmul(qword_ptr(rdi))?;
    a.faddp(st1, st0)?;
    a.fld(st0)?;
    a.fstp(qword_ptr(rdi + 8))?;
    a.dec(ecx)?;
    a.jnz(CODE)
}

impl Sample {
    /// As micro-ops, not optimized.
    ///
    /// # Panics
    ///
    /// If it is not a whole block.
    pub fn lift(&self, mode: Mode) -> Block {
        lift_at(&self.bytes, CODE, mode)
    }
}

/// The block at guest PC `rip`, of which `bytes` are all there is.
pub(crate) fn lift_at(bytes: &[u8], rip: u64, mode: Mode) -> Block {
    let request = Request { bytes, in_page: bytes.len(), rip, base: 0, mode, max_insns: MAX_GUEST_INSNS };
    lift(&request).expect("a whole block")
}
