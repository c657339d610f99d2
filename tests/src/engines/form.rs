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
        exclude("depends on the kernel's descriptor tables", &[Lar, Lsl, Verr, Verw, Lfs, Lgs, Lss]),
        exclude("the kernel may emulate it", &[Sgdt, Sidt, Sldt, Str, Smsw]),
        exclude("changes bases that the host process uses", &[Rdfsbase, Rdgsbase, Wrfsbase, Wrgsbase]),
        exclude("enters the kernel", &[Syscall, Sysenter, Sysret, Sysretq, Sysexit, Sysexitq, Int, Int1, Int3, Hlt]),
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
    if system_operands(code) {
        return Some("loads a segment, control or debug register");
    }
    match code.flow_control() {
        FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return => Some("leaves the code page"),
        _ => None,
    }
}

/// Every form that is lifted in 64-bit mode.
pub fn lifted() -> impl Iterator<Item = Code> {
    Code::values().filter(|&code| {
        code.op_code().is_instruction()
            && code.op_code().mode64()
            && code.encoding() == EncodingKind::Legacy
            && lift::supported(code)
    })
}

/// Every form that is compared with the host.
pub fn compared() -> impl Iterator<Item = Code> {
    lifted().filter(|&code| excluded(code).is_none())
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

/// With a count of 0 no flag changes; OF is defined for a count of 1 only; CF is undefined once a count passes the width.
fn shift_undefined(insn: &Instruction, operand: u32, before: &Registers) -> u64 {
    const AF: u64 = 0x10;
    let bits = match insn.op0_kind() {
        iced_x86::OpKind::Register => 8 * insn.op0_register().size() as u64,
        _ => 8 * insn.memory_size().size() as u64,
    };
    let count =
        if insn.op_kind(operand) == iced_x86::OpKind::Register { before.gpr[1] } else { insn.immediate(operand) };
    let count = count & if bits == 64 { 63 } else { 31 };
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
