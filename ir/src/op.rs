//! The op table. Printer, parser, verifier, interpreter and lowering all derive from its rows: an op that
//! lacks one does not compile.

use std::fmt;

use bitflags::bitflags;

/// Type of an SSA value.
///
/// Integers are held zero-extended. An operand that is wider or narrower than the op's type is truncated or
/// zero-extended to it implicitly: guest code mixes widths in almost every instruction, and explicit
/// conversions would be a third of all ops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Type {
    /// 8 bits; also the type of conditions, whose value is 0 or 1.
    I8 = 0,
    /// 16 bits.
    I16 = 1,
    /// 32 bits.
    I32 = 2,
    /// 64 bits.
    I64 = 3,
    /// 128 bits: a vector, whose operations are in a table of their own ([`crate::vec`]).
    V128 = 4,
}

impl Type {
    /// Every type, in order of width.
    pub const ALL: [Type; 5] = [Type::I8, Type::I16, Type::I32, Type::I64, Type::V128];

    /// Width in bits.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }

    /// Width in bytes.
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }

    /// Mask of the value bits that an integer of this type has (all ones for [`Type::V128`]).
    pub const fn mask(self) -> u64 {
        const MASKS: [u64; 5] = [0xff, 0xffff, 0xffff_ffff, u64::MAX, u64::MAX];
        MASKS[self as usize]
    }

    /// The integer type of `bytes` bytes, if there is one.
    pub const fn int(bytes: u32) -> Option<Type> {
        match bytes {
            1 => Some(Type::I8),
            2 => Some(Type::I16),
            4 => Some(Type::I32),
            8 => Some(Type::I64),
            _ => None,
        }
    }

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        ["i8", "i16", "i32", "i64", "v128"][self as usize]
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which fields of an [`crate::Inst`] an op uses, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// `imm` is the value.
    Const,
    /// `imm` is a guest PC, as the block has it.
    Pc,
    /// Operand `a`.
    Unary,
    /// Operand `a` truncated to the type numbered `c`, then extended. `c` may be the op's own type: then it
    /// only truncates.
    Extend,
    /// Operands `a`, `b`.
    Binary,
    /// Operand `a` and the constant `imm`.
    BinaryImm,
    /// Operands `a`, `b` compared as `ty`; the result is an [`Type::I8`] 0 or 1.
    Compare,
    /// Operand `a` and the constant `imm` compared as `ty`; the result is an [`Type::I8`] 0 or 1.
    CompareImm,
    /// `a` is a condition, `b` the value if it is not 0, `c` the value otherwise.
    Select,
    /// Operands `a`, `b`; bit position in `imm` bits 0..8, length in bits 8..16.
    Deposit,
    /// Operand `a`; bit position in `imm` bits 0..8, length in bits 8..16.
    Extract,
    /// Operands `a`, `b`, shift of `b` in `c`, displacement in `imm`.
    Lea,
    /// Env offset in `c`.
    LoadEnv,
    /// Value `a`, env offset in `c`.
    StoreEnv,
    /// Value `imm`, env offset in `c`.
    StoreEnvImm,
    /// Address `a`, displacement and flags in `imm` ([`crate::MemFlags`]).
    Load,
    /// Address `a`, value `b`, displacement and flags in `imm`.
    Store,
    /// Address `a`, value `b`, kind ([`RmwKind`]) in `c`; the result is the old value.
    Rmw,
    /// Address `a`, expected `b`, new `c`; the result is the old value.
    Cas,
    /// Nothing.
    Fence,
    /// Arguments `a`, `b`, `c` (each may be absent), helper in `imm` ([`crate::block::CallInfo`]).
    Call,
    /// Operands `a`, `b`, `c` as the row of the vector table says that `imm` names ([`crate::vec::VecInfo`]).
    Vec,
    /// Condition `a`, guest-defined trap code in `imm`.
    TrapIf,
    /// Start of a guest instruction: its guest PC in `imm`, its length in bytes in `c`. This and the other guest PCs in `imm` are as
    /// the block has them: relative to a base that whoever runs it knows ([`Op::Pc`]).
    Insn,
    /// Direct jump to the guest PC `imm`, link slot `c`; a [`JumpKind`] in `b`.
    Jump,
    /// Condition `a`: if not 0, to guest PC `imm` by link slot 0, else to the block's `fallthrough` by slot 1.
    Branch,
    /// Jump to the guest PC in `a`; a [`JumpKind`] in `b`.
    JumpInd,
    /// Back to the dispatcher with the guest-defined reason `imm`; the guest PC is in env already.
    Exit,
}

impl Shape {
    /// How many of `a`, `b`, `c`, from the first on, are values.
    pub const fn operands(self) -> usize {
        match self {
            Shape::Const
            | Shape::Pc
            | Shape::LoadEnv
            | Shape::StoreEnvImm
            | Shape::Fence
            | Shape::Insn
            | Shape::Jump
            | Shape::Exit => 0,
            Shape::Unary
            | Shape::Extend
            | Shape::BinaryImm
            | Shape::CompareImm
            | Shape::Extract
            | Shape::StoreEnv
            | Shape::Load
            | Shape::TrapIf
            | Shape::Branch
            | Shape::JumpInd => 1,
            Shape::Binary | Shape::Compare | Shape::Deposit | Shape::Lea | Shape::Store | Shape::Rmw => 2,
            Shape::Select | Shape::Cas | Shape::Call | Shape::Vec => 3,
        }
    }
}

bitflags! {
    /// What an op may do beside computing its result; a pure one does nothing.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Effects: u16 {
        /// Reads env.
        const READ_ENV = 1;
        /// Writes env.
        const WRITE_ENV = 2;
        /// May leave the block with a guest fault, before any side effect of its own.
        const FAULT = 4;
        /// Reads or writes guest memory or devices.
        const MEMORY = 8;
        /// Ends the block.
        const END = 16;
        /// Must be kept and kept in order although it has no result.
        const MARK = 32;
        /// Reads or changes the guest's floating-point environment ([`crate::fp`]).
        const FLOAT = 64;
        /// Of a helper: integer computing only, so that it may run while units of the host hold state of the guest's extension.
        const LEAF = 128;
        /// Of a helper: it does an operation of the guest's *extension*, a unit that some hosts have too and then may execute the
        /// operation in its place. Argument `a` is the address of its memory operand, `c` another operand, and
        /// [`arg`](crate::block::CallInfo::arg) says which operation it is: what it means is between the guest and the target that
        /// has it.
        const EXTENSION = 256;
        /// Of a helper: it returns argument `b` where `a` is 0, so that code need not call it then. It has no other effects but
        /// reading env.
        const CONDITIONAL = 512;
    }
}

/// A row of the op table.
#[derive(Clone, Copy, Debug)]
pub struct OpInfo {
    /// Name in the text form.
    pub name: &'static str,
    /// Operand shape.
    pub shape: Shape,
    /// [`Shape::operands`] of the shape, looked up rather than matched.
    pub operands: u8,
    /// Whether it defines a value.
    pub has_result: bool,
    /// Effects; those of [`Op::Call`] are in its instruction.
    pub effects: Effects,
    /// For a [`Shape::Binary`] or [`Shape::Compare`] op, its form with a constant right operand.
    pub imm_form: Option<Op>,
}

macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident $name:literal $shape:ident $result:literal [$($effect:ident)*] $($imm:ident)?;)*) => {
        /// An operation; the rows of the op table.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $op),* }

        impl Op {
            /// Every op, in table order.
            pub const ALL: &'static [Op] = &[$(Op::$op),*];

            const INFO: &'static [OpInfo] = &[$(OpInfo {
                name: $name,
                shape: Shape::$shape,
                operands: Shape::$shape.operands() as u8,
                has_result: $result == 1,
                effects: Effects::empty()$(.union(Effects::$effect))*,
                imm_form: ops!(@imm $($imm)?),
            }),*];
        }
    };
    (@imm) => { None };
    (@imm $imm:ident) => { Some(Op::$imm) };
}

ops! {
    /// The constant `imm`.
    Const      "const"     Const      1 [];
    /// The guest PC `imm` as the guest has it: the base of the block's guest PCs is added.
    Pc         "pc"        Pc         1 [];
    /// Two's complement negation.
    Neg        "neg"       Unary      1 [];
    /// Bitwise complement.
    Not        "not"       Unary      1 [];
    /// Leading zeros; the width for 0.
    Clz        "clz"       Unary      1 [];
    /// Trailing zeros; the width for 0.
    Ctz        "ctz"       Unary      1 [];
    /// Number of one bits.
    Popcnt     "popcnt"    Unary      1 [];
    /// Byte order reversed.
    Bswap      "bswap"     Unary      1 [];
    /// Truncated to the source type, then zero-extended.
    Zext       "zext"      Extend     1 [];
    /// Truncated to the source type, then sign-extended.
    Sext       "sext"      Extend     1 [];
    /// Sum.
    Add        "add"       Binary     1 [] AddI;
    /// Difference.
    Sub        "sub"       Binary     1 [] SubI;
    /// Low half of the product.
    Mul        "mul"       Binary     1 [] MulI;
    /// High half of the unsigned product.
    UMulHi     "umulhi"    Binary     1 [];
    /// High half of the signed product.
    SMulHi     "smulhi"    Binary     1 [];
    /// Unsigned quotient; all ones for a divisor of 0. The remainder is the dividend less the product of quotient and divisor, for that
    /// divisor too.
    UDiv       "udiv"      Binary     1 [];
    /// Signed quotient, rounded towards 0; -1 for a divisor of 0, the dividend where it overflows. The remainder is as of [`Op::UDiv`].
    SDiv       "sdiv"      Binary     1 [];
    /// Bitwise and.
    And        "and"       Binary     1 [] AndI;
    /// Bitwise or.
    Or         "or"        Binary     1 [] OrI;
    /// Bitwise exclusive or.
    Xor        "xor"       Binary     1 [] XorI;
    /// Left shift, count modulo the width.
    Shl        "shl"       Binary     1 [] ShlI;
    /// Logical right shift, count modulo the width.
    Shr        "shr"       Binary     1 [] ShrI;
    /// Arithmetic right shift, count modulo the width.
    Sar        "sar"       Binary     1 [] SarI;
    /// Left rotation, count modulo the width.
    Rotl       "rotl"      Binary     1 [] RotlI;
    /// Right rotation, count modulo the width.
    Rotr       "rotr"      Binary     1 [] RotrI;
    /// [`Op::Add`] of a constant.
    AddI       "add.i"     BinaryImm  1 [];
    /// [`Op::Sub`] of a constant.
    SubI       "sub.i"     BinaryImm  1 [];
    /// [`Op::Mul`] by a constant.
    MulI       "mul.i"     BinaryImm  1 [];
    /// [`Op::And`] with a constant.
    AndI       "and.i"     BinaryImm  1 [];
    /// [`Op::Or`] with a constant.
    OrI        "or.i"      BinaryImm  1 [];
    /// [`Op::Xor`] with a constant.
    XorI       "xor.i"     BinaryImm  1 [];
    /// [`Op::Shl`] by a constant.
    ShlI       "shl.i"     BinaryImm  1 [];
    /// [`Op::Shr`] by a constant.
    ShrI       "shr.i"     BinaryImm  1 [];
    /// [`Op::Sar`] by a constant.
    SarI       "sar.i"     BinaryImm  1 [];
    /// [`Op::Rotl`] by a constant.
    RotlI      "rotl.i"    BinaryImm  1 [];
    /// [`Op::Rotr`] by a constant.
    RotrI      "rotr.i"    BinaryImm  1 [];
    /// Equal.
    Eq         "eq"        Compare    1 [] EqI;
    /// Not equal.
    Ne         "ne"        Compare    1 [] NeI;
    /// Unsigned less.
    Ult        "ult"       Compare    1 [] UltI;
    /// Unsigned less or equal.
    Ule        "ule"       Compare    1 [] UleI;
    /// Signed less.
    Slt        "slt"       Compare    1 [] SltI;
    /// Signed less or equal.
    Sle        "sle"       Compare    1 [] SleI;
    /// [`Op::Eq`] to a constant.
    EqI        "eq.i"      CompareImm 1 [];
    /// [`Op::Ne`] to a constant.
    NeI        "ne.i"      CompareImm 1 [];
    /// [`Op::Ult`] a constant.
    UltI       "ult.i"     CompareImm 1 [];
    /// [`Op::Ule`] a constant.
    UleI       "ule.i"     CompareImm 1 [];
    /// [`Op::Slt`] a constant.
    SltI       "slt.i"     CompareImm 1 [];
    /// [`Op::Sle`] a constant.
    SleI       "sle.i"     CompareImm 1 [];
    /// One of two values.
    Select     "select"    Select     1 [];
    /// `a` with `len` bits from `pos` on replaced by the low bits of `b`.
    Deposit    "deposit"   Deposit    1 [];
    /// `len` bits of `a` from `pos` on, zero-extended.
    Extract    "extract"   Extract    1 [];
    /// `a + (b << c) + imm`.
    Lea        "lea"       Lea        1 [];
    /// Reads env.
    LoadEnv    "ldenv"     LoadEnv    1 [READ_ENV];
    /// Writes env.
    StoreEnv   "stenv"     StoreEnv   0 [WRITE_ENV];
    /// Writes a constant to env.
    StoreEnvI  "stenv.i"   StoreEnvImm 0 [WRITE_ENV];
    /// Reads guest memory.
    Load       "load"      Load       1 [FAULT MEMORY];
    /// Writes guest memory.
    Store      "store"     Store      0 [FAULT MEMORY];
    /// Atomic read-modify-write of guest memory, sequentially consistent.
    Rmw        "rmw"       Rmw        1 [FAULT MEMORY];
    /// Atomic compare-and-swap of guest memory, sequentially consistent.
    Cas        "cas"       Cas        1 [FAULT MEMORY];
    /// Keeps loads behind it after stores before it, as whoever else accesses guest memory sees them.
    Fence      "fence"     Fence      0 [MARK];
    /// Calls a helper of the guest.
    Call       "call"      Call       1 [MARK];
    /// An operation of the vector table, without floating point.
    Vec        "vec"       Vec        1 [];
    /// An operation of the vector table with floating point: its flags are an effect, whether its result is used or not.
    Float      "float"     Vec        1 [FLOAT];
    /// A comparison of floating-point numbers whose flags were raised by an earlier [`Op::Float`] on the same operands.
    FloatTest  "float_test" Vec       1 [];
    /// Leaves the block with a guest trap if the condition holds.
    TrapIf     "trap_if"   TrapIf     0 [FAULT MARK];
    /// Marks the start of a guest instruction.
    Insn       "insn"      Insn       0 [MARK];
    /// Direct jump.
    Jump       "jump"      Jump       0 [READ_ENV END];
    /// Conditional direct jump.
    Branch     "branch"    Branch     0 [READ_ENV END];
    /// Indirect jump.
    JumpInd    "jump_ind"  JumpInd    0 [READ_ENV END];
    /// Back to the dispatcher.
    Exit       "exit"      Exit       0 [READ_ENV END];
}

impl Op {
    /// Its row of the table.
    #[inline]
    pub const fn info(self) -> &'static OpInfo {
        &Op::INFO[self as usize]
    }
}

/// What a guest uses a jump for. It is a hint: a call and its return are known to belong together, but either may go
/// anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u16)]
pub enum JumpKind {
    /// Neither of the others.
    #[default]
    Plain = u16::MAX,
    /// A call that returns to the block's `fallthrough`.
    Call = 0,
    /// A return.
    Return = 1,
}

impl JumpKind {
    /// The kind that an instruction's `b` field holds.
    pub const fn from_code(code: u16) -> Option<JumpKind> {
        match code {
            0 => Some(JumpKind::Call),
            1 => Some(JumpKind::Return),
            u16::MAX => Some(JumpKind::Plain),
            _ => None,
        }
    }

    /// Its name in the text form; none for a plain jump.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            JumpKind::Plain => None,
            JumpKind::Call => Some("call"),
            JumpKind::Return => Some("return"),
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<JumpKind> {
        [JumpKind::Call, JumpKind::Return].into_iter().find(|kind| kind.name() == Some(name))
    }
}

macro_rules! rmw_kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal;)*) => {
        /// What [`Op::Rmw`] does to memory.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum RmwKind { $($(#[$doc])* $kind),* }

        impl RmwKind {
            /// Every kind, in table order.
            pub const ALL: &'static [RmwKind] = &[$(RmwKind::$kind),*];

            /// Name in the text form.
            pub const fn name(self) -> &'static str {
                match self { $(RmwKind::$kind => $name),* }
            }
        }
    };
}

rmw_kinds! {
    /// Sum.
    Add "add";
    /// Bitwise and.
    And "and";
    /// Bitwise or.
    Or "or";
    /// Bitwise exclusive or.
    Xor "xor";
    /// The operand alone.
    Xchg "xchg";
}

impl RmwKind {
    /// The kind numbered `n` in an instruction's `c` field.
    pub fn from_code(n: u16) -> Option<RmwKind> {
        RmwKind::ALL.get(usize::from(n)).copied()
    }

    /// The new memory value, not yet masked to its type.
    pub const fn apply(self, old: u64, operand: u64) -> u64 {
        match self {
            RmwKind::Add => old.wrapping_add(operand),
            RmwKind::And => old & operand,
            RmwKind::Or => old | operand,
            RmwKind::Xor => old ^ operand,
            RmwKind::Xchg => operand,
        }
    }
}
