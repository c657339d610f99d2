//! The instruction forms that are compared, and those that cannot be.

use iced_x86::{Code, EncodingKind, FlowControl, Mnemonic, OpCodeOperandKind};
use mimus_frontend::x86::lift;

use super::latitude;

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
        exclude("a host of x86-64-v2 may lack it", &[Movbe]),
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
    if let Some(reason) = latitude::undefined_form(code) {
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

#[cfg(test)]
mod tests {
    use iced_x86::CpuidFeature;
    use mimus_backend::native::in_x86_64_v2;

    use super::*;

    /// RDSSP is a hint where shadow stacks are off, as they are in tests.
    fn has_v2(feature: CpuidFeature) -> bool {
        in_x86_64_v2(feature) || feature == CpuidFeature::CET_SS
    }

    #[test]
    fn any_host_of_x86_64_v2_has_what_is_compared() {
        for bits in [32, 64] {
            let beyond: Vec<Code> =
                compared(bits).filter(|code| !code.cpuid_features().iter().all(|feature| has_v2(*feature))).collect();
            assert!(beyond.is_empty(), "{beyond:?}");
        }
    }
}
