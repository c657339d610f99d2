//! The helper table: what translated code calls for instructions too large to be micro-ops.

use mimus_ir::Stop;

use super::cpu::Cpu;
use super::csr::Action;
use super::float;
use super::isa::{CACHE_BLOCK, Code, TABLE as ISA};
use super::state::{Envcfg, Mstatus, privilege};
use super::trap::{Trap, cause};

crate::helpers! {
    Cpu:
    /// Carry-less multiplications and permutations of `a` and `b`, which of them in `arg`.
    Bits bits [LEAF];
    /// A floating-point instruction on `a`, `b`, `c`; which in `arg` bits 0..8, rounding mode in 8..16.
    Float float_operation [FLOAT LEAF];
    /// Makes floating-point state dirty.
    FloatDirty float_dirty [READ_ENV WRITE_ENV];
    /// Reads CSR `arg` bits 0..12 and does [`Action`] 12..14 with `a`; the instruction's word is `b`.
    Csr access_csr [READ_ENV WRITE_ENV FAULT MEMORY];
    /// The same for a CSR of floating point.
    CsrFloat access_csr [READ_ENV WRITE_ENV FAULT FLOAT];
    /// Has code count instructions, for an instruction on a CSR; `b` and `arg` as for [`Helper::Csr`].
    CountInstructions count_instructions [READ_ENV WRITE_ENV FAULT];
    /// Has the dispatcher look for interrupts if one is to be taken.
    OpenInterrupts open_interrupts [READ_ENV MEMORY];
    /// ECALL at `a`.
    Ecall ecall [READ_ENV WRITE_ENV FAULT];
    /// MRET, whose word is `b`.
    Mret mret [READ_ENV WRITE_ENV FAULT];
    /// SRET.
    Sret sret [READ_ENV WRITE_ENV FAULT];
    /// WFI, after which comes `a`.
    Wfi wfi [READ_ENV WRITE_ENV FAULT];
    /// SFENCE.VMA of address `a` and address space `b`, if bit 0 and bit 1 of `arg` are set; the word is `c`. Bit 2: one of the
    /// instructions of Svinval that order only.
    Sfence sfence [READ_ENV WRITE_ENV FAULT];
    /// A CBO instruction at address `a`; which in `arg`, its word is `b`.
    CacheBlock cache_block [READ_ENV FAULT MEMORY];
}

/// The instruction that a helper's constant names.
fn code_of(arg: u32) -> Option<Code> {
    ISA.get((arg & 0xff) as usize).map(|row| row.code)
}

/// The product of polynomials over the field of two elements.
fn carry_less(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |product, bit| product ^ u128::from(a) << bit)
}

/// Pieces of `table` of `size` bits, each chosen by one of `indices`; 0 where there is none of that number.
fn permute(table: u64, indices: u64, size: u32) -> u64 {
    let mask = (1 << size) - 1;
    let piece = |index: u64| if index < u64::from(64 / size) { table >> (index as u32 * size) & mask } else { 0 };
    (0..64).step_by(size as usize).fold(0, |value, at| value | piece(indices >> at & mask) << at)
}

extern "C" fn bits(_: &mut Cpu, a: u64, b: u64, _: u64, arg: u32) -> u64 {
    match code_of(arg) {
        Some(Code::Clmul) => carry_less(a, b) as u64,
        Some(Code::Clmulr) => (carry_less(a, b) >> 63) as u64,
        Some(Code::Clmulh) => (carry_less(a, b) >> 64) as u64,
        Some(Code::Xperm4) => permute(a, b, 4),
        _ => permute(a, b, 8),
    }
}

extern "C" fn float_operation(cpu: &mut Cpu, a: u64, b: u64, c: u64, arg: u32) -> u64 {
    match code_of(arg) {
        Some(code) => float::compute(&mut cpu.state, code, (arg >> 8) as u8, [a, b, c]),
        None => 0,
    }
}

extern "C" fn float_dirty(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.state.mstatus |= Mstatus::FS;
    cpu.update_mode();
    0
}

extern "C" fn access_csr(cpu: &mut Cpu, operand: u64, word: u64, _: u64, arg: u32) -> u64 {
    match cpu.access_csr((arg & 0xfff) as u16, Action::from_code(arg), operand) {
        Some(value) => value,
        None => {
            cpu.raise_illegal(word as u32);
            0
        }
    }
}

extern "C" fn count_instructions(cpu: &mut Cpu, _: u64, word: u64, _: u64, arg: u32) -> u64 {
    if !cpu.count_instructions((arg & 0xfff) as u16, Action::from_code(arg)) {
        cpu.raise_illegal(word as u32);
    }
    0
}

extern "C" fn open_interrupts(cpu: &mut Cpu, _: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.open_interrupts();
    0
}

extern "C" fn ecall(cpu: &mut Cpu, pc: u64, _: u64, _: u64, _: u32) -> u64 {
    cpu.state.pc = pc;
    let cause = cause::ECALL + cpu.state.privilege;
    cpu.enter_trap(Trap { cause, tval: 0 }, false);
    0
}

extern "C" fn mret(cpu: &mut Cpu, _: u64, word: u64, _: u64, _: u32) -> u64 {
    if cpu.state.privilege < privilege::MACHINE {
        cpu.raise_illegal(word as u32);
    } else {
        cpu.return_from_machine();
    }
    0
}

/// Whether supervisor mode is the least that may do something, and `bit` of mstatus does not keep it from it.
fn supervisor_may(cpu: &Cpu, bit: Mstatus) -> bool {
    let level = cpu.state.privilege;
    level == privilege::MACHINE || level == privilege::SUPERVISOR && !cpu.state.mstatus.intersects(bit)
}

extern "C" fn sret(cpu: &mut Cpu, _: u64, word: u64, _: u64, _: u32) -> u64 {
    if supervisor_may(cpu, Mstatus::TSR) {
        cpu.return_from_supervisor();
    } else {
        cpu.raise_illegal(word as u32);
    }
    0
}

extern "C" fn wfi(cpu: &mut Cpu, next: u64, word: u64, _: u64, _: u32) -> u64 {
    if supervisor_may(cpu, Mstatus::TW) {
        cpu.state.pc = next;
        cpu.state.halted = 1;
    } else {
        cpu.raise_illegal(word as u32);
    }
    0
}

extern "C" fn sfence(cpu: &mut Cpu, addr: u64, asid: u64, word: u64, arg: u32) -> u64 {
    let orders_only = arg & 4 != 0;
    let allowed =
        if orders_only { cpu.state.privilege >= privilege::SUPERVISOR } else { supervisor_may(cpu, Mstatus::TVM) };
    match arg {
        _ if !allowed => {
            cpu.raise_illegal(word as u32);
        }
        0 => cpu.flush_tlb(),
        2 => cpu.flush_space(asid),
        1 | 3 => cpu.flush_page(addr),
        _ => {}
    }
    0
}

/// Whether a field of menvcfg and senvcfg lets the present mode go on.
fn environment_allows(cpu: &Cpu, field: Envcfg) -> bool {
    let s = &cpu.state;
    match s.privilege {
        privilege::MACHINE => true,
        privilege::SUPERVISOR => s.menvcfg.intersects(field),
        _ => s.menvcfg.intersects(field) && s.senvcfg.intersects(field),
    }
}

/// Memory is coherent and has no cache model: beside CBO.ZERO these only check. A block may be managed if it may be read or
/// written.
extern "C" fn cache_block(cpu: &mut Cpu, addr: u64, word: u64, _: u64, arg: u32) -> u64 {
    let code = code_of(arg);
    let field = match code {
        Some(Code::CboZero) => Envcfg::CBZE,
        Some(Code::CboInval) => Envcfg::CBIE,
        _ => Envcfg::CBCFE,
    };
    if !environment_allows(cpu, field) {
        cpu.raise_illegal(word as u32);
        return 0;
    }
    let block = addr & !(CACHE_BLOCK - 1);
    if code == Some(Code::CboZero) {
        // What stopped it is in the verdict; stores to code end the block that has them.
        let stopped = cpu.zero_block(block);
        debug_assert!(stopped != Err(Stop::CodeChanged) || !cpu.in_compiled_code);
        return 0;
    }
    if cpu.probe(block, 1, false).is_err() {
        cpu.take_back();
        if cpu.probe(block, 1, true).is_err() {
            cpu.fault_address(addr);
        }
    }
    0
}
