//! The instruction forms that are compared, and what is known about some of them.

use iced_x86::{Code, EncodingKind, FlowControl, Instruction, Mnemonic, OpCodeOperandKind, RflagsBits};
use mimus_frontend::x86::lift;

use super::Registers;

/// Why forms are not compared with the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exclusion {
    /// Instructions.
    pub mnemonics: &'static [Mnemonic],
    /// Reason.
    pub reason: &'static str,
}

const fn exclude(reason: &'static str, mnemonics: &'static [Mnemonic]) -> Exclusion {
    Exclusion { mnemonics, reason }
}

/// Instructions that cannot be compared with the host.
pub const EXCLUDED: &[Exclusion] = {
    use Mnemonic::*;
    &[
        exclude("tells of the machine", &[Cpuid, Rdtsc, Rdtscp, Rdpmc, Rdmsr, Xgetbv]),
        exclude("depends on the kernel's descriptor tables", &[Lar, Lsl, Verr, Verw, Lds, Les, Lfs, Lgs, Lss]),
        exclude("the kernel may emulate it", &[Sgdt, Sidt, Sldt, Str, Smsw]),
        exclude("changes bases that the host process uses", &[Rdfsbase, Rdgsbase, Wrfsbase, Wrgsbase]),
        exclude(
            "enters the kernel",
            &[Syscall, Sysenter, Sysret, Sysretq, Sysexit, Sysexitq, Int, Int1, Int3, Into, Hlt],
        ),
        exclude("input and output", &[In, Out, Insb, Insw, Insd, Outsb, Outsw, Outsd]),
        exclude("leaves the code page", &[Ret, Retf, Iret, Iretd, Iretq]),
        exclude(
            "for privilege level 0",
            &[
                Lgdt, Lidt, Lldt, Ltr, Lmsw, Clts, Invlpg, Invpcid, Wbinvd, Invd, Wrmsr, Xsetbv, Swapgs, Clac, Stac,
                Cli, Sti,
            ],
        ),
        exclude("the guest's processor has neither BMI1 nor LZCNT: they are BSF and BSR", &[Tzcnt, Lzcnt]),
    ]
};

/// Forms that processors do differently.
pub const EXCLUDED_CODES: &[(Code, &str)] = &[
    (Code::Movsxd_r16_rm16, "AMD's read 4 bytes"),
    (Code::Bswap_r16, "undefined"),
    (Code::Reservednop_rm16_r16_0F0D, RESERVED_NOP),
    (Code::Reservednop_rm32_r32_0F0D, RESERVED_NOP),
    (Code::Reservednop_rm64_r64_0F0D, RESERVED_NOP),
];

const RESERVED_NOP: &str = "undefined on AMD's";

/// Whether a form has operands of privilege, or ones that a process must not change.
fn system_operands(code: Code) -> bool {
    use OpCodeOperandKind as K;
    let kinds = code.op_code().op_kinds();
    let loads_segment = matches!(kinds.first(), Some(K::seg_reg | K::es | K::ss | K::ds | K::fs | K::gs))
        && code.mnemonic() != Mnemonic::Push;
    loads_segment || kinds.iter().any(|k| matches!(k, K::cr_reg | K::dr_reg | K::tr_reg))
}

/// Why a form that is lifted is not compared with the host; `None` if it is.
pub fn excluded(code: Code) -> Option<&'static str> {
    if let Some(row) = EXCLUDED.iter().find(|row| row.mnemonics.contains(&code.mnemonic())) {
        return Some(row.reason);
    }
    if let Some((_, reason)) = EXCLUDED_CODES.iter().find(|(excluded, _)| *excluded == code) {
        return Some(reason);
    }
    if system_operands(code) {
        return Some("loads a segment, control or debug register");
    }
    let branches_out = |k: &OpCodeOperandKind| {
        use OpCodeOperandKind as K;
        matches!(k, K::br16_1 | K::br16_2 | K::farbr2_2 | K::farbr4_2)
    };
    if code.op_code().op_kinds().iter().any(branches_out) {
        return Some("leaves the code page");
    }
    match code.flow_control() {
        FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return => Some("leaves the code page"),
        _ => None,
    }
}

/// Whether the result of `insn` with these registers is undefined, or known to be another one on the host: why.
pub fn undefined_result(insn: &Instruction, before: &Registers) -> Option<&'static str> {
    match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => {
            let count = shift_count(insn, 2, before);
            (count > operand_bits(insn)).then_some("a count beyond the width")
        }
        // SDM vol. 2A, CVTPI2PS: a transition to MMX; AMD's make none.
        Mnemonic::Cvtpi2ps if insn.op1_kind() == iced_x86::OpKind::Memory => Some("AMD's leave the x87 unit alone"),
        _ => None,
    }
}

/// Whether an instruction accesses memory in several steps, so that at a fault an engine may have written some of its
/// operand, and the page fault is for whichever page it accessed first.
pub fn several_steps(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Fldenv | Frstor | Fnstenv | Fnsave | Fxsave | Fxsave64 | Fxrstor | Fxrstor64 | Enter | Maskmovq | Maskmovdqu
    )
}

/// Every form that is lifted in code of `bits` (32 or 64) bits.
pub fn lifted(bits: u32) -> impl Iterator<Item = Code> {
    Code::values().filter(move |&code| {
        let row = code.op_code();
        row.is_instruction()
            // Nor what only the oldest processors had.
            && row.decoder_option() == 0
            && code != Code::Popw_CS
            // Not the forms that other makers' processors have instead.
            && if bits == 64 { row.mode64() && row.intel_decoder64() } else { row.mode32() && row.intel_decoder32() }
            && code.encoding() == EncodingKind::Legacy
            && lift::supported(code)
    })
}

/// Every form that is compared with the host.
pub fn compared(bits: u32) -> impl Iterator<Item = Code> {
    lifted(bits).filter(|&code| excluded(code).is_none())
}

/// CF, PF, AF, ZF, SF, OF.
pub const ARITH: u64 = 0x8d5;

/// Flags that are undefined after `insn` with these registers before it (SDM vol. 2, "Flags Affected").
pub fn undefined_flags(insn: &Instruction, before: &Registers) -> u64 {
    let bits = insn.rflags_undefined();
    let table = [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::OF, 0x800),
    ];
    let undefined = table.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |all, (_, flag)| all | flag);
    match insn.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr => shift_undefined(insn, 1, before),
        Mnemonic::Shld | Mnemonic::Shrd => shift_undefined(insn, 2, before),
        _ => undefined,
    }
}

/// Width of the first operand.
fn operand_bits(insn: &Instruction) -> u64 {
    match insn.op0_kind() {
        iced_x86::OpKind::Register => 8 * insn.op0_register().size() as u64,
        _ => 8 * insn.memory_size().size() as u64,
    }
}

/// The count of a shift in operand `operand`, masked.
fn shift_count(insn: &Instruction, operand: u32, before: &Registers) -> u64 {
    let in_register = insn.op_kind(operand) == iced_x86::OpKind::Register;
    let count = if in_register { before.gpr[1] } else { insn.immediate(operand) };
    count & if operand_bits(insn) == 64 { 63 } else { 31 }
}

/// With a count of 0 no flag changes; OF is defined for a count of 1 only; CF is undefined once a count passes the width.
fn shift_undefined(insn: &Instruction, operand: u32, before: &Registers) -> u64 {
    const AF: u64 = 0x10;
    let bits = operand_bits(insn);
    let count = shift_count(insn, operand, before);
    let rotates = matches!(insn.mnemonic(), Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr);
    let adjust = if rotates { 0 } else { AF };
    let double = operand == 2;
    match count {
        0 => 0,
        1 => adjust,
        _ if double && count > bits => ARITH,
        _ if !rotates && count >= bits && insn.mnemonic() != Mnemonic::Sar => adjust | 0x801,
        _ => adjust | 0x800,
    }
}
