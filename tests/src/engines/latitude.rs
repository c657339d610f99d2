//! What the manuals leave to the processor, so that no two kinds of host need agree: one table, by which every comparison with
//! the host's processor goes. References are to the SDM where no other manual is named.

use iced_x86::{
    Code, CpuidFeature, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, RflagsBits,
    UsedMemory,
};

use super::Registers;
use super::layout::{CODE, DATA, DATA_END, GS_BASE, PAGE, WRITABLE};

/// Which instructions a row is about.
#[derive(Clone, Copy, Debug)]
enum Forms {
    All,
    X87,
    Mnemonics(&'static [Mnemonic]),
    Codes(&'static [Code]),
}

/// What is left to the processor.
#[derive(Clone, Copy, Debug)]
enum Latitude {
    /// All of it.
    Form,
    /// The result, with these registers before it.
    Result(fn(&Instruction, &Registers) -> bool),
    /// Flags of RFLAGS, with these registers before it.
    Flags(fn(&Instruction, &Registers) -> u64),
    /// Bits of the x87 status word.
    Status(u16),
    /// Which fault is told where two memory operands fault.
    FaultOrder,
    /// How much of the memory operand, and which general registers, have been written when it faults, and which page it faults
    /// at: it is accessed in several steps.
    Steps,
    /// All but the upper bits of the result: an approximation.
    Approximation,
    /// The last bits of the result: no two processors' functions are the same.
    Function,
    /// Which NaN it is that comes out.
    Nan,
    /// Arithmetic flags, where it faults after some elements.
    FaultFlags,
    /// The upper halves of 64-bit registers that count or address by their lower ones, as long as no element was done.
    Counters,
    /// Whether an exception of its own comes before one of its memory operand.
    OwnFirst,
    /// The x87 unit, where a store of an MMX register faults.
    Transition,
    /// Parts of what it writes to memory, as offsets and lengths, by the operand's size in bytes.
    Image(&'static [(usize, &'static [(usize, usize)])]),
}

struct Row {
    forms: Forms,
    latitude: Latitude,
    reason: &'static str,
}

const fn row(forms: Forms, latitude: Latitude, reason: &'static str) -> Row {
    Row { forms, latitude, reason }
}

/// C0, C2 and C3 of the x87 status word, and with them C1.
const CODES: u16 = 0x4500;
const ALL_CODES: u16 = CODES | 0x200;

/// The first row of a kind that has an instruction is the one that counts for it.
const TABLE: &[Row] = {
    use Forms::*;
    use Latitude::*;
    use Mnemonic::*;
    &[
        row(Codes(&[Code::Movsxd_r16_rm16]), Form, "AMD's read 4 bytes"),
        row(Codes(&[Code::Bswap_r16]), Form, "vol. 2A, BSWAP: undefined"),
        row(
            Codes(&[Code::Reservednop_rm16_r16_0F0D, Code::Reservednop_rm32_r32_0F0D, Code::Reservednop_rm64_r64_0F0D]),
            Form,
            "undefined on AMD's",
        ),
        row(
            Codes(&[Code::Pushd_ES, Code::Pushd_CS, Code::Pushd_SS, Code::Pushd_DS, Code::Pushd_FS, Code::Pushd_GS]),
            Form,
            "vol. 2B, PUSH: the upper half is zero, or not written",
        ),
        row(Mnemonics(&[Shld, Shrd]), Result(beyond_width), "vol. 2B, SHLD: a count beyond the width"),
        row(
            Mnemonics(&[Bsf, Bsr]),
            Result(scans_nothing),
            "vol. 2A, BSF: the upper half of a register for a source of 0",
        ),
        row(Mnemonics(&[Cvtpi2ps]), Result(from_memory), "vol. 2A, CVTPI2PS: a transition to MMX; AMD's make none"),
        row(
            Mnemonics(&[Maskmovq, Maskmovdqu]),
            Result(masks_all),
            "vol. 2B, MASKMOVDQU: whether a mask of 0 can fault",
        ),
        row(Mnemonics(&[F2xm1]), Result(beyond_one), "vol. 2A, F2XM1: a source beyond -1 to 1"),
        row(
            Mnemonics(&[Fyl2xp1]),
            Result(beyond_root),
            "vol. 2A, FYL2XP1: ST(0) beyond -(1 - sqrt(2)/2) to 1 - sqrt(2)/2",
        ),
        row(Mnemonics(&[Shl, Sal, Shr, Sar]), Flags(|insn, before| shift_undefined(insn, 1, before)), SHIFT),
        row(Mnemonics(&[Rol, Ror, Rcl, Rcr]), Flags(|insn, before| shift_undefined(insn, 1, before)), SHIFT),
        row(Mnemonics(&[Shld, Shrd]), Flags(|insn, before| shift_undefined(insn, 2, before)), SHIFT),
        row(All, Flags(|insn, _| undefined_by_manual(insn)), "vol. 2, \"Flags Affected\""),
        row(
            Mnemonics(&[
                Fcom, Fcomp, Fcompp, Fucom, Fucomp, Fucompp, Ficom, Ficomp, Ftst, Fxam, Fprem, Fprem1, Fninit, Fnsave,
                Fldenv, Frstor,
            ]),
            Status(0),
            "they say what these bits are",
        ),
        row(
            Mnemonics(&[Fsin, Fcos, Fsincos, Fptan]),
            Status(0x4330),
            "C2 is defined; PE, UE and C1 tell how the last bit was rounded",
        ),
        row(Mnemonics(&[Fpatan, F2xm1, Fyl2x, Fyl2xp1]), Status(CODES | 0x230), "as FSIN's, and no C2"),
        row(
            Mnemonics(&[Fnclex, Fldcw, Fnstcw, Fnstsw, Fnop, Ffree, Ffreep, Fneni, Fndisi, Fnsetpm, Wait, Fnstenv]),
            Status(ALL_CODES),
            "vol. 2A, \"FPU Flags Affected\": C0 to C3 are undefined",
        ),
        row(X87, Status(CODES), "vol. 2A, \"FPU Flags Affected\": C0, C2 and C3 are undefined"),
        row(
            Mnemonics(&[Cmpsb, Cmpsw, Cmpsd, Cmpsq, Movsb, Movsw, Movsd, Movsq, Push, Pop, Call]),
            FaultOrder,
            "no manual says which operand is accessed first",
        ),
        row(
            Mnemonics(&[
                Fldenv, Frstor, Fnstenv, Fnsave, Fbstp, Fxsave, Fxsave64, Fxrstor, Fxrstor64, Enter, Maskmovq,
                Maskmovdqu, Pusha, Pushad, Popa, Popad,
            ]),
            Steps,
            "nothing is said of operands larger than a register",
        ),
        row(Codes(&[Code::Fstp_m80fp]), Steps, "likewise: Intel's write the significand first"),
        row(
            Mnemonics(&[Cmpsb, Cmpsw, Cmpsd, Cmpsq, Scasb, Scasw, Scasd, Scasq]),
            FaultFlags,
            "vol. 2B, REP: Intel's restore them; AMD's leave those of the last element",
        ),
        row(
            Mnemonics(&[
                Cmpsb, Cmpsw, Cmpsd, Cmpsq, Movsb, Movsw, Movsd, Movsq, Scasb, Scasw, Scasd, Scasq, Lodsb, Lodsw,
                Lodsd, Lodsq, Stosb, Stosw, Stosd, Stosq,
            ]),
            Counters,
            "with addresses of 32 bits, Intel's clear them for a count of 0 and before a fault; AMD's leave them",
        ),
        row(
            Mnemonics(&[Fst, Fstp, Fist, Fistp, Fisttp, Fbstp, Bound]),
            OwnFirst,
            "vol. 3A, 6.9: faults within an instruction come in any order; Intel's do not look at memory, or at the upper bound, then",
        ),
        row(
            Mnemonics(&[Movd, Movq, Movntq]),
            Transition,
            "vol. 3A, 12.5: Intel's have made the transition to MMX before the fault, AMD's have not",
        ),
        row(Mnemonics(&[Dpps, Dppd]), Nan, "vol. 1, 4.8.3.5: it depends on the order of the sums' operands"),
        row(
            Mnemonics(&[Rcpss, Rcpps, Rsqrtss, Rsqrtps]),
            Approximation,
            "vol. 2B, RCPPS: a relative error of 1.5 * 2^-12",
        ),
        row(
            Mnemonics(&[Fsin, Fcos, Fsincos, Fptan, Fpatan, F2xm1, Fyl2x, Fyl2xp1]),
            Function,
            "vol. 1, 8.3.10: accurate to some units of the last place",
        ),
        row(
            Mnemonics(&[Fnstenv, Fnsave]),
            Image(&[(14, &[(6, 8)]), (28, &[(12, 16)]), (94, &[(6, 8)]), (108, &[(12, 16)])]),
            POINTERS,
        ),
        row(Mnemonics(&[Fxsave, Fxsave64]), Image(&[(512, &[(6, 18), (28, 4)])]), POINTERS),
    ]
};

const SHIFT: &str = "vol. 2B, SAL and RCL: by count and width";
const POINTERS: &str = "vol. 1, 8.1.8: opcode, pointers and selectors are kept for every instruction or for exceptions, or not \
                        at all; MXCSR_MASK is the processor's own";

impl Forms {
    fn have(self, code: Code) -> bool {
        use CpuidFeature::{FPU, FPU287, FPU387};
        match self {
            Forms::All => true,
            Forms::X87 => code.cpuid_features().iter().any(|f| matches!(*f, FPU | FPU287 | FPU387)),
            Forms::Mnemonics(list) => list.contains(&code.mnemonic()),
            Forms::Codes(list) => list.contains(&code),
        }
    }
}

/// What `pick` takes of the first row that has `code`.
fn first<T>(code: Code, pick: impl Fn(&'static Row) -> Option<T>) -> Option<T> {
    TABLE.iter().filter(|row| row.forms.have(code)).find_map(pick)
}

/// Why a form is not compared at all.
pub fn undefined_form(code: Code) -> Option<&'static str> {
    first(code, |row| matches!(row.latitude, Latitude::Form).then_some(row.reason))
}

/// Why the result of `insn` with these registers is not compared.
pub fn undefined_result(insn: &Instruction, before: &Registers) -> Option<&'static str> {
    first(insn.code(), |row| match row.latitude {
        Latitude::Result(undefined) if undefined(insn, before) => Some(row.reason),
        _ => None,
    })
}

/// Flags that are undefined after `insn` with these registers before it.
pub fn undefined_flags(insn: &Instruction, before: &Registers) -> u64 {
    let flags = first(insn.code(), |row| match row.latitude {
        Latitude::Flags(undefined) => Some(undefined(insn, before)),
        _ => None,
    });
    flags.unwrap_or(0)
}

/// Bits of the x87 status word that are undefined after `insn`.
pub fn undefined_status(insn: &Instruction) -> u16 {
    let bits = first(insn.code(), |row| match row.latitude {
        Latitude::Status(bits) => Some(bits),
        _ => None,
    });
    bits.unwrap_or(0)
}

/// Whether an instruction accesses memory in several steps.
pub fn several_steps(insn: &Instruction) -> bool {
    first(insn.code(), |row| matches!(row.latitude, Latitude::Steps).then_some(())).is_some()
}

/// Whether the result is an approximation.
pub fn approximate(insn: &Instruction) -> bool {
    first(insn.code(), |row| matches!(row.latitude, Latitude::Approximation).then_some(())).is_some()
}

/// Whether the result is a function's.
pub fn transcendental(insn: &Instruction) -> bool {
    first(insn.code(), |row| matches!(row.latitude, Latitude::Function).then_some(())).is_some()
}

/// Width in bits of the lanes in which one NaN is as good as another; 0 if none is.
pub fn any_nan(insn: &Instruction) -> u32 {
    let any = first(insn.code(), |row| matches!(row.latitude, Latitude::Nan).then_some(())).is_some();
    match insn.mnemonic() {
        _ if !any => 0,
        Mnemonic::Dppd => 64,
        _ => 32,
    }
}

/// Flags that are undefined where `insn` faults.
pub fn undefined_fault_flags(insn: &Instruction) -> u64 {
    let any = first(insn.code(), |row| matches!(row.latitude, Latitude::FaultFlags).then_some(())).is_some();
    if any && (insn.has_rep_prefix() || insn.has_repne_prefix()) { ARITH } else { 0 }
}

/// Numbers of general registers whose upper halves are undefined as long as the lower ones are what they were.
pub fn counters(insn: &Instruction) -> &'static [usize] {
    let any = first(insn.code(), |row| matches!(row.latitude, Latitude::Counters).then_some(())).is_some();
    let short = |op: u32| matches!(insn.op_kind(op), OpKind::MemorySegESI | OpKind::MemoryESEDI);
    if any && (0..insn.op_count()).any(short) { &[1, 6, 7] } else { &[] }
}

/// Whether an exception of `insn` itself and one of its memory operand come in any order.
pub fn own_first(insn: &Instruction) -> bool {
    let any = first(insn.code(), |row| matches!(row.latitude, Latitude::OwnFirst).then_some(())).is_some();
    any && (0..insn.op_count()).any(|op| insn.op_kind(op) == OpKind::Memory)
}

/// Whether the x87 unit is undefined where `insn` faults.
pub fn undefined_transition(insn: &Instruction) -> bool {
    let any = first(insn.code(), |row| matches!(row.latitude, Latitude::Transition).then_some(())).is_some();
    any && insn.op1_register().is_mm()
}

/// Offsets and lengths of what of its memory operand is not compared.
pub fn undefined_memory(insn: &Instruction) -> &'static [(usize, usize)] {
    let parts = first(insn.code(), |row| match row.latitude {
        Latitude::Image(sizes) => {
            sizes.iter().find(|(size, _)| *size == insn.memory_size().size()).map(|(_, parts)| *parts)
        }
        _ => None,
    });
    parts.unwrap_or_default()
}

/// Whether two memory operands of an instruction whose faults have no order fault, with the registers at the fault.
pub fn either_fault(insn: &Instruction, at: &Registers) -> bool {
    let unordered = first(insn.code(), |row| matches!(row.latitude, Latitude::FaultOrder).then_some(())).is_some();
    let mut factory = InstructionInfoFactory::new();
    unordered && factory.info(insn).used_memory().iter().filter(|memory| faults(insn, memory, at)).count() > 1
}

/// Whether an operand is not wholly where it can be accessed so.
fn faults(insn: &Instruction, memory: &UsedMemory, at: &Registers) -> bool {
    let register = |register: Register, _, _| {
        Some(match register {
            Register::GS => GS_BASE,
            _ if register.is_segment_register() => 0,
            _ if register.size() == 4 => at.gpr[register.full_register().number()] & 0xffff_ffff,
            _ => at.gpr[register.full_register().number()],
        })
    };
    let Some(first) = memory.virtual_address(0, register) else { return false };
    // A repeated instruction's operands have no size of their own: the failing element is the instruction's.
    let size = memory.memory_size().size().max(insn.memory_size().size());
    let end = first.wrapping_add(size as u64);
    let writes = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
    let inside = |from: u64, to: u64| from <= first && first <= end && end <= to;
    let accessible = inside(if writes { WRITABLE } else { DATA }, DATA_END) || !writes && inside(CODE, CODE + PAGE);
    memory.access() != OpAccess::NoMemAccess && !accessible
}

fn from_memory(insn: &Instruction, _: &Registers) -> bool {
    insn.op1_kind() == OpKind::Memory
}

fn beyond_width(insn: &Instruction, before: &Registers) -> bool {
    shift_count(insn, 2, before) > operand_bits(insn)
}

/// A 32-bit scan of what is 0, or may be: what is in memory is not known here.
fn scans_nothing(insn: &Instruction, before: &Registers) -> bool {
    let source = insn.op1_register();
    let may_be_zero = !source.is_gpr32() || before.gpr[source.full_register().number()] as u32 == 0;
    operand_bits(insn) == 32 && may_be_zero
}

fn masks_all(insn: &Instruction, before: &Registers) -> bool {
    let (mask, number) = (insn.op2_register(), insn.op2_register().number());
    let (value, signs) = if mask.is_mm() {
        (before.st(number), 0x8080_8080_8080_8080)
    } else {
        (before.xmm(number), 0x8080_8080_8080_8080_8080_8080_8080_8080)
    };
    value & signs == 0
}

/// Exponent of an 80-bit float, biased by 16383.
fn exponent(value: u128) -> u128 {
    value >> 64 & 0x7fff
}

fn beyond_one(_: &Instruction, before: &Registers) -> bool {
    let st0 = before.st(0);
    exponent(st0) >= 0x3fff && st0 << 49 != 0x3fff_8000_0000_0000_0000 << 49
}

fn beyond_root(_: &Instruction, before: &Registers) -> bool {
    // 1 - sqrt(2)/2 is a little more than 0.29: from a quarter on.
    exponent(before.st(0)) >= 0x3ffd
}

/// CF, PF, AF, ZF, SF, OF.
pub const ARITH: u64 = 0x8d5;

fn undefined_by_manual(insn: &Instruction) -> u64 {
    let bits = insn.rflags_undefined();
    let table = [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::OF, 0x800),
    ];
    table.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |all, (_, flag)| all | flag)
}

/// Width of the first operand.
fn operand_bits(insn: &Instruction) -> u64 {
    match insn.op0_kind() {
        OpKind::Register => 8 * insn.op0_register().size() as u64,
        _ => 8 * insn.memory_size().size() as u64,
    }
}

/// The count of a shift in operand `operand`, masked.
fn shift_count(insn: &Instruction, operand: u32, before: &Registers) -> u64 {
    let in_register = insn.op_kind(operand) == OpKind::Register;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::case::registers;
    use crate::rng::Rng;

    fn decode(bytes: &[u8]) -> Instruction {
        iced_x86::Decoder::with_ip(64, bytes, CODE, iced_x86::DecoderOptions::NONE).decode()
    }

    #[test]
    fn either_of_two_faults() {
        let cmpsd = decode(&[0xa7]);
        let mut at = registers(&mut Rng::new(1));
        for (source, target, either) in [
            (DATA, DATA_END - 4, false),
            (DATA_END - 3, DATA, false),
            (DATA, DATA - 1, false),
            (DATA_END - 3, DATA - 1, true),
            (1 << 47, DATA_END, true),
        ] {
            (at.gpr[6], at.gpr[7]) = (source, target);
            assert_eq!(either_fault(&cmpsd, &at), either, "{source:#x} {target:#x}");
        }
        // One element of a repeated instruction that ends beyond.
        let repeated = decode(&[0xf3, 0xa7]);
        (at.gpr[6], at.gpr[7]) = (DATA_END - 1, DATA_END + 14);
        assert!(either_fault(&repeated, &at));
        // A move may not write to its target.
        (at.gpr[6], at.gpr[7]) = (DATA_END, DATA);
        assert!(either_fault(&decode(&[0xa5]), &at) && !either_fault(&cmpsd, &at));
        assert!(!either_fault(&decode(&[0x8b, 0x06]), &at));
    }

    #[test]
    fn rows_of_one_kind_go_by_their_order() {
        let at = registers(&mut Rng::new(1));
        assert_eq!(undefined_flags(&decode(&[0xd1, 0xe0]), &at), 0x10, "a shift by 1");
        assert_eq!(undefined_flags(&decode(&[0x0f, 0xaf, 0xc1]), &at), 0xd4, "IMUL");
        assert_eq!(undefined_status(&decode(&[0xd8, 0xc1])), CODES, "FADD");
        assert_eq!(undefined_status(&decode(&[0xd8, 0xd1])), 0, "FCOM");
        assert_eq!(undefined_status(&decode(&[0x90])), 0);
        assert_eq!(undefined_memory(&decode(&[0xd9, 0x30])), [(12, 16)], "FNSTENV");
        assert!(undefined_form(Code::Bswap_r16).is_some() && undefined_form(Code::Bswap_r32).is_none());
    }

    #[test]
    fn where_processors_of_two_makers_differ() {
        let (a32_movsb, rep_movsb) = (decode(&[0x67, 0xf3, 0xa4]), decode(&[0xf3, 0xa4]));
        assert!(counters(&a32_movsb) == [1, 6, 7] && counters(&rep_movsb).is_empty());
        let (repne_scasb, scasb) = (decode(&[0xf2, 0xae]), decode(&[0xae]));
        assert_eq!([&repne_scasb, &scasb, &rep_movsb].map(undefined_fault_flags), [ARITH, 0, 0]);
        let (to_memory, to_stack) = (decode(&[0xd9, 0x1f]), decode(&[0xdd, 0xd9]));
        assert!(own_first(&to_memory) && !own_first(&to_stack));
        let [store, load, sse] = [&[0x0f, 0x7e, 0x07][..], &[0x0f, 0x6e, 0x07], &[0x66, 0x0f, 0x7e, 0x07]].map(decode);
        assert_eq!([store, load, sse].each_ref().map(undefined_transition), [true, false, false]);
        let [dpps, dppd, addps] =
            [&[0x66, 0x0f, 0x3a, 0x40, 0xc1, 0xff][..], &[0x66, 0x0f, 0x3a, 0x41, 0xc1, 0xff], &[0x0f, 0x58, 0xc1]]
                .map(decode);
        assert_eq!([dpps, dppd, addps].each_ref().map(any_nan), [32, 64, 0]);
    }

    #[test]
    fn scans_of_zero() {
        let mut before = registers(&mut Rng::new(1));
        before.gpr[1] = 1 << 32;
        let bsf = |bytes: &[u8]| undefined_result(&decode(bytes), &before).is_some();
        assert!(bsf(&[0x0f, 0xbc, 0xc1]) && bsf(&[0x0f, 0xbc, 0x01]), "a register's low half, memory");
        assert!(!bsf(&[0x48, 0x0f, 0xbc, 0xc1]) && !bsf(&[0x66, 0x0f, 0xbc, 0x01]), "64 and 16 bits");
    }

    #[test]
    fn sources_that_functions_are_not_defined_for() {
        let mut before = registers(&mut Rng::new(1));
        let f2xm1 = decode(&[0xd9, 0xf0]);
        for (st0, undefined) in [
            (0x3fff_8000_0000_0000_0000u128, false),
            (0xbfff_8000_0000_0000_0000, false),
            (0x3ffe_ffff_ffff_ffff_ffff, false),
            (0x3fff_8000_0000_0000_0001, true),
            (0xc000_8000_0000_0000_0000, true),
        ] {
            before.fx[32..42].copy_from_slice(&st0.to_le_bytes()[..10]);
            assert_eq!(undefined_result(&f2xm1, &before).is_some(), undefined, "{st0:#x}");
        }
    }
}
