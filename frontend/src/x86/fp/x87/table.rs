//! The table of x87 operations.

use super::arith::{Arithmetic, Comparison, Kind, OperandForm};
use super::{Fpu, transcendental};
use crate::x86::fp::{CF, PF, ZF};
use iced_x86::Code;

/// The format of a memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemFormat {
    /// There is none.
    None,
    /// A 16-bit integer.
    Int16,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// Single precision.
    Float32,
    /// Double precision.
    Float64,
    /// Double extended precision, 10 bytes.
    Float80,
    /// 18 packed decimal digits and a sign, 10 bytes.
    Bcd,
    /// The control or status word.
    Word,
    /// An environment, of 14 or 28 bytes by the operand size. FNSTENV: write [`Fpu::environment`], then call
    /// [`Fpu::exec`] for what it does to the unit. FLDENV: call `exec`, which checks for pending exceptions only, then read
    /// memory, then [`Fpu::load_environment`].
    Environment,
    /// An environment with the eight registers, of 94 or 108 bytes: as for the environment, with [`Fpu::save`] and
    /// [`Fpu::restore`].
    State,
}

impl MemFormat {
    /// Bytes in memory; `None` for images, whose size depends on the operand size.
    pub const fn bytes(self) -> Option<u8> {
        Some(match self {
            Self::None => 0,
            Self::Int16 | Self::Word => 2,
            Self::Int32 | Self::Float32 => 4,
            Self::Int64 | Self::Float64 => 8,
            Self::Float80 | Self::Bcd => 10,
            Self::Environment | Self::State => return None,
        })
    }
}

/// One operation.
pub struct X87Row {
    /// Its name, which is that of its first code.
    pub op: X87Op,
    /// The decoder's codes that it implements.
    pub codes: &'static [Code],
    /// The memory operand's format.
    pub memory: MemFormat,
    /// Whether it stores a value to memory: [`Fpu::store_value`] applies.
    pub store: bool,
    /// Whether a pending exception raises #MF first.
    pub waits: bool,
    /// Whether it is a control instruction, which leaves FIP, FDP and FOP alone.
    pub control: bool,
    pub(super) kind: Kind,
}

impl X87Row {
    /// The condition that FCMOVcc tests, by the low 4 opcode bits of Jcc.
    pub fn condition(&self) -> Option<u8> {
        let Kind::Move { mask, wanted } = self.kind else { return None };
        let code = match mask {
            CF => 2,
            ZF => 4,
            PF => 10,
            _ => 6,
        };
        Some(code | u8::from(!wanted))
    }

    /// The operand of [`Fpu::exec`] that FCMOVcc finds its condition in, true or not.
    pub fn eflags_where(&self, holds: bool) -> u32 {
        match self.kind {
            Kind::Move { mask, wanted } if holds == wanted => mask,
            _ => 0,
        }
    }

    /// Whether the result goes to ZF, PF and CF.
    pub fn sets_eflags(&self) -> bool {
        matches!(self.kind, Kind::Compare(Comparison { eflags: true, .. }))
    }

    /// Whether all processors do the same, bit by bit: FPREM, whose steps they choose, and transcendental functions are not
    /// such. Neither are images, which hold more than the unit.
    pub fn is_exact(&self) -> bool {
        match self.kind {
            Kind::Arith(..)
            | Kind::Compare(_)
            | Kind::Load
            | Kind::LoadSti
            | Kind::Constant(..)
            | Kind::StoreFloat { .. }
            | Kind::StoreInt { .. }
            | Kind::StoreSti { .. }
            | Kind::Exchange
            | Kind::Move { .. }
            | Kind::LoadControl
            | Kind::StoreControl
            | Kind::StoreStatus
            | Kind::StatusAx => self.memory != MemFormat::Bcd,
            Kind::StoreBcd => false,
            Kind::Stack(_) | Kind::Register(_) | Kind::Control(_) | Kind::NoWait(_) => matches!(
                self.op,
                X87Op::Fchs
                    | X87Op::Fabs
                    | X87Op::Fxam
                    | X87Op::Fsqrt
                    | X87Op::Frndint
                    | X87Op::Fdecstp
                    | X87Op::Fincstp
                    | X87Op::Ffree_sti
                    | X87Op::Fnop
                    | X87Op::Fnclex
            ),
        }
    }
}

macro_rules! x87_table {
    ($($code:ident $(+ $also:ident)*: $memory:ident = $kind:expr;)*) => {
        /// An operation, named like the decoder's code.
        #[expect(non_camel_case_types, reason = "the names are those of iced_x86::Code")]
        #[expect(missing_docs, reason = "each is an instruction of the manual in the form that its name says")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum X87Op { $($code,)* }

        /// The rows, in the order of [`X87Op`].
        pub static TABLE: &[X87Row] = {
            use Arithmetic::*;
            use Kind::*;
            &[$(row(X87Op::$code, &[Code::$code, $(Code::$also),*], MemFormat::$memory, $kind),)*]
        };

        impl X87Op {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$code,)*];
        }
    };
}

const fn row(op: X87Op, codes: &'static [Code], memory: MemFormat, kind: Kind) -> X87Row {
    let waits = !matches!(kind, Kind::NoWait(_) | Kind::StatusAx | Kind::StoreControl | Kind::StoreStatus);
    let control = !waits || matches!(kind, Kind::LoadControl | Kind::Control(_));
    let store = matches!(
        kind,
        Kind::StoreFloat { .. } | Kind::StoreInt { .. } | Kind::StoreBcd | Kind::StoreControl | Kind::StoreStatus
    );
    X87Row { op, codes, memory, store, waits, control, kind }
}

impl X87Op {
    /// The operation's row.
    pub fn row(self) -> &'static X87Row {
        &TABLE[self as usize]
    }
}

impl TryFrom<u16> for X87Op {
    type Error = u16;

    fn try_from(x: u16) -> Result<Self, u16> {
        Self::ALL.get(usize::from(x)).copied().ok_or(x)
    }
}

const fn compare(place: OperandForm, quiet: bool, pops: u8, eflags: bool) -> Kind {
    Kind::Compare(Comparison { place, quiet, pops, eflags })
}

const fn mov(mask: u32, wanted: bool) -> Kind {
    Kind::Move { mask, wanted }
}

x87_table! {
    Fadd_m32fp: Float32 = Arith(Add, OperandForm::Memory);
    Fadd_m64fp: Float64 = Arith(Add, OperandForm::Memory);
    Fiadd_m16int: Int16 = Arith(Add, OperandForm::Memory);
    Fiadd_m32int: Int32 = Arith(Add, OperandForm::Memory);
    Fadd_st0_sti: None = Arith(Add, OperandForm::Top);
    Fadd_sti_st0: None = Arith(Add, OperandForm::Sti);
    Faddp_sti_st0: None = Arith(Add, OperandForm::StiPop);
    Fmul_m32fp: Float32 = Arith(Mul, OperandForm::Memory);
    Fmul_m64fp: Float64 = Arith(Mul, OperandForm::Memory);
    Fimul_m16int: Int16 = Arith(Mul, OperandForm::Memory);
    Fimul_m32int: Int32 = Arith(Mul, OperandForm::Memory);
    Fmul_st0_sti: None = Arith(Mul, OperandForm::Top);
    Fmul_sti_st0: None = Arith(Mul, OperandForm::Sti);
    Fmulp_sti_st0: None = Arith(Mul, OperandForm::StiPop);
    Fsub_m32fp: Float32 = Arith(Sub, OperandForm::Memory);
    Fsub_m64fp: Float64 = Arith(Sub, OperandForm::Memory);
    Fisub_m16int: Int16 = Arith(Sub, OperandForm::Memory);
    Fisub_m32int: Int32 = Arith(Sub, OperandForm::Memory);
    Fsub_st0_sti: None = Arith(Sub, OperandForm::Top);
    Fsub_sti_st0: None = Arith(Sub, OperandForm::Sti);
    Fsubp_sti_st0: None = Arith(Sub, OperandForm::StiPop);
    Fsubr_m32fp: Float32 = Arith(SubReversed, OperandForm::Memory);
    Fsubr_m64fp: Float64 = Arith(SubReversed, OperandForm::Memory);
    Fisubr_m16int: Int16 = Arith(SubReversed, OperandForm::Memory);
    Fisubr_m32int: Int32 = Arith(SubReversed, OperandForm::Memory);
    Fsubr_st0_sti: None = Arith(SubReversed, OperandForm::Top);
    Fsubr_sti_st0: None = Arith(SubReversed, OperandForm::Sti);
    Fsubrp_sti_st0: None = Arith(SubReversed, OperandForm::StiPop);
    Fdiv_m32fp: Float32 = Arith(Div, OperandForm::Memory);
    Fdiv_m64fp: Float64 = Arith(Div, OperandForm::Memory);
    Fidiv_m16int: Int16 = Arith(Div, OperandForm::Memory);
    Fidiv_m32int: Int32 = Arith(Div, OperandForm::Memory);
    Fdiv_st0_sti: None = Arith(Div, OperandForm::Top);
    Fdiv_sti_st0: None = Arith(Div, OperandForm::Sti);
    Fdivp_sti_st0: None = Arith(Div, OperandForm::StiPop);
    Fdivr_m32fp: Float32 = Arith(DivReversed, OperandForm::Memory);
    Fdivr_m64fp: Float64 = Arith(DivReversed, OperandForm::Memory);
    Fidivr_m16int: Int16 = Arith(DivReversed, OperandForm::Memory);
    Fidivr_m32int: Int32 = Arith(DivReversed, OperandForm::Memory);
    Fdivr_st0_sti: None = Arith(DivReversed, OperandForm::Top);
    Fdivr_sti_st0: None = Arith(DivReversed, OperandForm::Sti);
    Fdivrp_sti_st0: None = Arith(DivReversed, OperandForm::StiPop);
    Fcom_m32fp: Float32 = compare(OperandForm::Memory, false, 0, false);
    Fcom_m64fp: Float64 = compare(OperandForm::Memory, false, 0, false);
    Ficom_m16int: Int16 = compare(OperandForm::Memory, false, 0, false);
    Ficom_m32int: Int32 = compare(OperandForm::Memory, false, 0, false);
    Fcom_st0_sti + Fcom_st0_sti_DCD0: None = compare(OperandForm::Sti, false, 0, false);
    Fucom_st0_sti: None = compare(OperandForm::Sti, true, 0, false);
    Fcomi_st0_sti: None = compare(OperandForm::Sti, false, 0, true);
    Fucomi_st0_sti: None = compare(OperandForm::Sti, true, 0, true);
    Fcomp_m32fp: Float32 = compare(OperandForm::Memory, false, 1, false);
    Fcomp_m64fp: Float64 = compare(OperandForm::Memory, false, 1, false);
    Ficomp_m16int: Int16 = compare(OperandForm::Memory, false, 1, false);
    Ficomp_m32int: Int32 = compare(OperandForm::Memory, false, 1, false);
    Fcomp_st0_sti + Fcomp_st0_sti_DCD8 + Fcomp_st0_sti_DED0: None = compare(OperandForm::Sti, false, 1, false);
    Fucomp_st0_sti: None = compare(OperandForm::Sti, true, 1, false);
    Fcomip_st0_sti: None = compare(OperandForm::Sti, false, 1, true);
    Fucomip_st0_sti: None = compare(OperandForm::Sti, true, 1, true);
    Fcompp: None = compare(OperandForm::Under, false, 2, false);
    Fucompp: None = compare(OperandForm::Under, true, 2, false);
    Ftst: None = compare(OperandForm::Zero, false, 0, false);
    Fld_m32fp: Float32 = Load;
    Fld_m64fp: Float64 = Load;
    Fld_m80fp: Float80 = Load;
    Fild_m16int: Int16 = Load;
    Fild_m32int: Int32 = Load;
    Fild_m64int: Int64 = Load;
    Fbld_m80bcd: Bcd = Load;
    Fld_sti: None = LoadSti;
    Fld1: None = Constant(1 << 127, 0);
    Fldl2t: None = Constant(transcendental::LOG2_10, 1);
    Fldl2e: None = Constant(transcendental::LOG2_E, 0);
    Fldpi: None = Constant(transcendental::PI, 1);
    Fldlg2: None = Constant(transcendental::LOG10_2, -2);
    Fldln2: None = Constant(transcendental::LN_2, -1);
    Fldz: None = Constant(0, 0);
    Fst_m32fp: Float32 = StoreFloat { pops: false };
    Fst_m64fp: Float64 = StoreFloat { pops: false };
    Fstp_m32fp: Float32 = StoreFloat { pops: true };
    Fstp_m64fp: Float64 = StoreFloat { pops: true };
    Fstp_m80fp: Float80 = StoreFloat { pops: true };
    Fist_m16int: Int16 = StoreInt { truncate: false, pops: false };
    Fist_m32int: Int32 = StoreInt { truncate: false, pops: false };
    Fistp_m16int: Int16 = StoreInt { truncate: false, pops: true };
    Fistp_m32int: Int32 = StoreInt { truncate: false, pops: true };
    Fistp_m64int: Int64 = StoreInt { truncate: false, pops: true };
    Fisttp_m16int: Int16 = StoreInt { truncate: true, pops: true };
    Fisttp_m32int: Int32 = StoreInt { truncate: true, pops: true };
    Fisttp_m64int: Int64 = StoreInt { truncate: true, pops: true };
    Fbstp_m80bcd: Bcd = StoreBcd;
    Fst_sti: None = StoreSti { pops: false };
    Fstpnce_sti: None = Register(Fpu::store_pop_quietly);
    Fstp_sti + Fstp_sti_DFD0 + Fstp_sti_DFD8: None = StoreSti { pops: true };
    Fxch_st0_sti + Fxch_st0_sti_DDC8 + Fxch_st0_sti_DFC8: None = Exchange;
    Fcmovb_st0_sti: None = mov(CF, true);
    Fcmovnb_st0_sti: None = mov(CF, false);
    Fcmove_st0_sti: None = mov(ZF, true);
    Fcmovne_st0_sti: None = mov(ZF, false);
    Fcmovbe_st0_sti: None = mov(CF | ZF, true);
    Fcmovnbe_st0_sti: None = mov(CF | ZF, false);
    Fcmovu_st0_sti: None = mov(PF, true);
    Fcmovnu_st0_sti: None = mov(PF, false);
    Fchs: None = Stack(Fpu::change_sign);
    Fabs: None = Stack(Fpu::absolute);
    Fxam: None = Stack(Fpu::examine);
    Fsqrt: None = Stack(Fpu::square_root);
    Frndint: None = Stack(Fpu::round_to_integer);
    Fscale: None = Stack(Fpu::scale);
    Fxtract: None = Stack(Fpu::extract);
    Fprem: None = Stack(Fpu::remainder_truncated);
    Fprem1: None = Stack(Fpu::remainder_nearest);
    F2xm1: None = Stack(Fpu::exp2_minus_1);
    Fyl2x: None = Stack(Fpu::log2);
    Fyl2xp1: None = Stack(Fpu::log2_plus_1);
    Fsin: None = Stack(Fpu::sine);
    Fcos: None = Stack(Fpu::cosine);
    Fsincos: None = Stack(Fpu::sine_cosine);
    Fptan: None = Stack(Fpu::tangent);
    Fpatan: None = Stack(Fpu::arctangent);
    Fdecstp: None = Register(|fpu, _| fpu.rotate(7));
    Fincstp: None = Register(|fpu, _| fpu.rotate(1));
    Ffree_sti: None = Register(Fpu::free_sti);
    Ffreep_sti: None = Register(Fpu::free_pop);
    Fnop + Wait: None = Control(|_| ());
    Fldcw_m2byte: Word = LoadControl;
    Fnstcw_m2byte: Word = StoreControl;
    Fnstsw_m2byte: Word = StoreStatus;
    Fnstsw_AX: None = StatusAx;
    Fldenv_m14byte + Fldenv_m28byte: Environment = Control(|_| ());
    Fnstenv_m14byte + Fnstenv_m28byte: Environment = NoWait(Fpu::mask_all);
    Frstor_m94byte + Frstor_m108byte: State = Control(|_| ());
    Fnsave_m94byte + Fnsave_m108byte: State = NoWait(Fpu::init);
    Fnclex: None = NoWait(Fpu::clear_exceptions);
    Fninit: None = NoWait(Fpu::init);
    Fneni + Fndisi + Fnsetpm: None = NoWait(|_| ());
}

const NO_ROW: u16 = u16::MAX;

const CODE_LIMIT: usize = {
    let mut limit = 0;
    let mut i = 0;
    while i < TABLE.len() {
        let mut k = 0;
        while k < TABLE[i].codes.len() {
            if limit <= TABLE[i].codes[k] as usize {
                limit = TABLE[i].codes[k] as usize + 1;
            }
            k += 1;
        }
        i += 1;
    }
    limit
};

static BY_CODE: [u16; CODE_LIMIT] = {
    let mut index = [NO_ROW; CODE_LIMIT];
    let mut i = 0;
    while i < TABLE.len() {
        let mut k = 0;
        while k < TABLE[i].codes.len() {
            let code = TABLE[i].codes[k] as usize;
            assert!(index[code] == NO_ROW, "a code has two rows");
            index[code] = i as u16;
            k += 1;
        }
        i += 1;
    }
    index
};

/// The row of a decoded instruction; `None` for one that this table does not have (FXSAVE and FXRSTOR among them).
pub fn lookup(code: Code) -> Option<&'static X87Row> {
    TABLE.get(usize::from(*BY_CODE.get(code as usize)?))
}
