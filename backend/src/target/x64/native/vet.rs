//! Which instructions may run natively: those whose every access can be told beforehand to stay within the oracle's
//! addresses, or to fault.

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use thiserror::Error;

use super::{CODE, GS_BASE, RESERVED, Registers, Width};

/// Flags that may be set on entry: all but TF, AC, NT and those that only a kernel changes.
pub(super) const LOADABLE_FLAGS: u64 = 0x20_0cd5;

/// Why an instruction is not executed natively.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The bytes are not exactly one instruction.
    #[error("not one instruction")]
    Decode,
    /// It could leave the oracle's control: a system call, a segment load, a jump out of the code page.
    #[error("not an instruction that can be contained")]
    Uncontained,
    /// It may access other memory of this process.
    #[error("access to {0:#x}, which is not the oracle's")]
    Memory(u64),
}

/// Distance from the ends of the reservation that addresses keep, in bytes: more than any one instruction spans.
const MARGIN: u64 = 1 << 20;

/// Whether every x86-64-v2 processor has the extension (System V ABI, AMD64 supplement, 3.1.1); older ones too, and hints that
/// do nothing elsewhere.
pub fn in_x86_64_v2(feature: CpuidFeature) -> bool {
    use CpuidFeature::*;
    matches!(
        feature,
        INTEL8086_ONLY
            | INTEL8086
            | INTEL186
            | INTEL286
            | INTEL386
            | INTEL486
            | X64
            | CMOV
            | FPU
            | FPU287
            | FPU387
            | MMX
            | SSE
            | SSE2
            | SSE3
            | SSSE3
            | SSE4_1
            | SSE4_2
            | POPCNT
            | CX8
            | CMPXCHG16B
            | FXSR
            | CLFSH
            | MULTIBYTENOP
            | PREFETCHW
            | PAUSE
            | CET_IBT
    )
}

/// Extensions whose user instructions do nothing but what their operands say.
fn contained(feature: CpuidFeature) -> bool {
    use CpuidFeature::{BMI1, LZCNT, MOVBE};
    in_x86_64_v2(feature) || matches!(feature, BMI1 | LZCNT | MOVBE)
}

/// Whether an access at `addr` stays within the reservation, or faults for certain.
fn harmless(addr: u64) -> bool {
    let inside = (RESERVED.start + MARGIN..RESERVED.end - MARGIN).contains(&addr);
    // Neither user pages nor close to any.
    let beyond = addr >= (1 << 47) + MARGIN && addr < MARGIN.wrapping_neg();
    inside || beyond
}

fn check(addr: u64) -> Result<(), Refusal> {
    if harmless(addr) { Ok(()) } else { Err(Refusal::Memory(addr)) }
}

/// Value of a general register; 0 for RIP's pseudo base, bases of segments as they are.
fn value(registers: &Registers, register: Register) -> Option<u64> {
    if register.is_segment_register() {
        return match register {
            Register::FS => None,
            Register::GS => Some(GS_BASE),
            _ => Some(0),
        };
    }
    if !register.is_gpr() {
        return None;
    }
    let whole = registers.gpr[register.full_register().number() & 15];
    Some(match (register.size(), register) {
        (1, Register::AH | Register::CH | Register::DH | Register::BH) => whole >> 8 & 0xff,
        (1, _) => whole & 0xff,
        (2, _) => whole & 0xffff,
        (4, _) => whole & 0xffff_ffff,
        _ => whole,
    })
}

/// Checks the instruction. The target of a direct branch within the code page, if it is one.
pub(super) fn vet(width: Width, code: &[u8], registers: &Registers) -> Result<Option<u64>, Refusal> {
    let bits = if width == Width::Bits64 { 64 } else { 32 };
    let mut decoder = Decoder::with_ip(bits, code, CODE, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() || insn.len() != code.len() {
        return Err(Refusal::Decode);
    }
    let special = matches!(insn.mnemonic(), Mnemonic::Ud2 | Mnemonic::Int3 | Mnemonic::Lahf | Mnemonic::Sahf);
    let known = insn.cpuid_features().iter().all(|&f| contained(f));
    let refused = matches!(insn.mnemonic(), Mnemonic::In | Mnemonic::Out)
        || insn.is_privileged()
        || insn.segment_prefix() == Register::FS;
    if !(known || special) || refused {
        return Err(Refusal::Uncontained);
    }
    let target = match insn.flow_control() {
        FlowControl::Next | FlowControl::Exception => None,
        FlowControl::Interrupt if insn.code() == Code::Int3 => None,
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call
            if matches!(insn.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32) =>
        {
            let target = insn.near_branch_target();
            let first = CODE + (code.len() + super::control::leave_code(width).len()) as u64;
            if !(first..CODE + super::control::TRAMPOLINE as u64).contains(&target) {
                return Err(Refusal::Uncontained);
            }
            Some(target)
        }
        _ => return Err(Refusal::Uncontained),
    };
    memory(width, &insn, registers)?;
    Ok(target)
}

fn memory(width: Width, insn: &Instruction, registers: &Registers) -> Result<(), Refusal> {
    // Bases of segments other than GS are 0; GS is not usable in compatibility mode.
    if width == Width::Bits32 && insn.segment_prefix() == Register::GS {
        return Err(Refusal::Uncontained);
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(insn);
    let writes = |access| {
        matches!(access, OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite)
    };
    let loads_system_register = info.used_registers().iter().any(|used| {
        let register = used.register();
        writes(used.access()) && (register.is_segment_register() || register.is_cr() || register.is_dr())
    });
    if loads_system_register {
        return Err(Refusal::Uncontained);
    }
    for memory in info.used_memory() {
        if memory.access() == OpAccess::NoMemAccess {
            continue;
        }
        let address = memory.virtual_address(0, |register, _, _| value(registers, register));
        let address = address.ok_or(Refusal::Uncontained)?;
        let reach = address.wrapping_add(bit_offset(insn, registers));
        // Addresses of 32-bit code wrap.
        let wrap = |x: u64| if width == Width::Bits32 { x & 0xffff_ffff } else { x };
        check(wrap(address))?;
        check(wrap(reach))?;
    }
    if insn.mnemonic() == Mnemonic::Enter {
        check(if width == Width::Bits32 { registers.gpr[5] & 0xffff_ffff } else { registers.gpr[5] })?;
    }
    // A repeated instruction goes on for as many elements as the count says.
    if insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix()) {
        let wide = (0..insn.op_count())
            .any(|i| matches!(insn.op_kind(i), OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI));
        let count = if wide { registers.gpr[1] } else { registers.gpr[1] & 0xffff_ffff };
        if count > MARGIN / 16 {
            return Err(Refusal::Uncontained);
        }
    }
    Ok(())
}

/// How far from its operand's address a bit test with its offset in a register reaches, in bytes.
fn bit_offset(insn: &Instruction, registers: &Registers) -> u64 {
    let bit_test = matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    if !bit_test || insn.op1_kind() != OpKind::Register {
        return 0;
    }
    let offset = value(registers, insn.op1_register()).unwrap_or(0);
    let bits = 64 - 8 * insn.op1_register().size() as u32;
    (((offset << bits) as i64 >> bits) >> 3) as u64
}
