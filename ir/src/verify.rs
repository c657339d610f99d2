//! Checks that a block is well-formed: what the interpreter, the passes and a backend take for granted.
//!
//! Beside the rules of SSA and of each op's [`Shape`], fields that an op does not use must be as the
//! [`crate::Builder`] leaves them, so that equal blocks compare equal and the text form loses nothing.

use crate::block::{Block, CallInfo, Inst, MAX_INSTS, MemFlags, NONE, Value};
use crate::op::{Effects, JumpKind, Op, RmwKind, Shape, Type};

/// What is wrong with an instruction or with the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// More than [`MAX_INSTS`] instructions.
    #[error("more than {MAX_INSTS} instructions")]
    TooLong,
    /// The last instruction is not a terminator, or there is none.
    #[error("the block does not end with a terminator")]
    NoTerminator,
    /// A terminator before the last instruction.
    #[error("a terminator inside the block")]
    EarlyTerminator,
    /// An op that may leave the block before the first [`Op::Insn`], hence without a guest PC.
    #[error("may fault before the first guest instruction")]
    FaultInPrefix,
    /// An operand that is absent, or defined here or later.
    #[error("v{0} is not defined before its use")]
    Undefined(Value),
    /// An operand that names an instruction without a result.
    #[error("v{0} has no value")]
    NoValue(Value),
    /// A 128-bit operand where an integer is meant, or the reverse.
    #[error("v{0} has the wrong kind of type")]
    OperandType(Value),
    /// The op cannot have this type.
    #[error("type {0} is not allowed here")]
    Type(Type),
    /// An env slot that ends beyond env.
    #[error("env slot at {0:#x} is outside env")]
    EnvRange(u16),
    /// An env slot whose offset is not a multiple of its width.
    #[error("env slot at {0:#x} is not aligned")]
    EnvAlign(u16),
    /// `c` is no valid source type, shift, kind, or link slot.
    #[error("{0:#x} is out of range for this op's small constant")]
    SmallConstant(u16),
    /// `imm` has bits that the op's type or encoding does not.
    #[error("constant {0:#x} does not fit")]
    Constant(u64),
    /// A bit field that is empty or does not fit the type.
    #[error("bit field at {pos}, {len} bits long, does not fit")]
    BitField {
        /// First bit.
        pos: u32,
        /// Number of bits.
        len: u32,
    },
    /// A field that the op does not use is not as the builder leaves it.
    #[error("an unused field is set")]
    Unused,
}

/// The first problem found in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("instruction {inst}: {problem}")]
pub struct VerifyError {
    /// Number of the instruction.
    pub inst: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Checks `block` for a guest whose env has `env_size` bytes.
///
/// # Errors
///
/// The first problem, with the number of its instruction.
pub fn verify(block: &Block, env_size: usize) -> Result<(), VerifyError> {
    let count = block.insts.len();
    if count > MAX_INSTS {
        return Err(VerifyError { inst: MAX_INSTS, problem: Problem::TooLong });
    }
    if block.terminator().is_none() {
        return Err(VerifyError { inst: count.saturating_sub(1), problem: Problem::NoTerminator });
    }
    let mut in_prefix = true;
    for (index, inst) in block.insts.iter().enumerate() {
        in_prefix &= inst.op != Op::Insn;
        let effects = inst.effects();
        let result = if effects.contains(Effects::END) && index + 1 != count {
            Err(Problem::EarlyTerminator)
        } else if in_prefix && effects.intersects(Effects::FAULT | Effects::MEMORY) {
            Err(Problem::FaultInPrefix)
        } else {
            check(&block.insts[..index], inst, env_size)
        };
        result.map_err(|problem| VerifyError { inst: index, problem })?;
    }
    Ok(())
}

fn ensure(ok: bool, problem: Problem) -> Result<(), Problem> {
    if ok { Ok(()) } else { Err(problem) }
}

/// Checks an operand against the earlier instructions; it must be a vector exactly if `vector`.
fn operand(earlier: &[Inst], v: Value, vector: bool) -> Result<(), Problem> {
    let def = earlier.get(usize::from(v)).ok_or(Problem::Undefined(v))?;
    let ty = def.result_type().ok_or(Problem::NoValue(v))?;
    ensure((ty == Type::V128) == vector, Problem::OperandType(v))
}

fn env_slot(inst: &Inst, env_size: usize) -> Result<(), Problem> {
    let bytes = inst.ty.bytes() as usize;
    ensure(usize::from(inst.c).is_multiple_of(bytes), Problem::EnvAlign(inst.c))?;
    ensure(usize::from(inst.c) + bytes <= env_size, Problem::EnvRange(inst.c))
}

/// The only type of an op whose type says nothing.
pub(crate) fn fixed_type(shape: Shape) -> Option<Type> {
    match shape {
        Shape::TrapIf | Shape::Branch => Some(Type::I8),
        Shape::Pc | Shape::Fence | Shape::Insn | Shape::Jump | Shape::JumpInd | Shape::Exit => Some(Type::I64),
        _ => None,
    }
}

fn check(earlier: &[Inst], inst: &Inst, env_size: usize) -> Result<(), Problem> {
    let Inst { ty, a, b, c, imm, .. } = *inst;
    let shape = inst.op.info().shape;
    let vector = ty == Type::V128;
    let vector_allowed = matches!(shape, Shape::LoadEnv | Shape::StoreEnv | Shape::Load | Shape::Store | Shape::Vec);
    ensure(!vector || vector_allowed, Problem::Type(ty))?;
    ensure(fixed_type(shape).is_none_or(|fixed| fixed == ty), Problem::Type(ty))?;

    let int = |v| operand(earlier, v, false);
    let absent = |unused: &[u16]| ensure(unused.iter().all(|&v| v == NONE), Problem::Unused);
    let no_imm = || ensure(imm == 0, Problem::Unused);
    let imm_fits = || ensure(imm & !ty.mask() == 0, Problem::Constant(imm));
    let small = |ok| ensure(ok, Problem::SmallConstant(c));
    let mem_imm = || {
        let all_flags = u64::from(MemFlags::all().bits());
        ensure(imm >> 32 & !all_flags == 0, Problem::Constant(imm))
    };
    let bit_field = || {
        let (pos, len) = inst.bit_field();
        ensure(imm >> 16 == 0, Problem::Constant(imm))?;
        ensure(len != 0 && pos + len <= ty.bits(), Problem::BitField { pos, len })
    };
    match shape {
        Shape::Const | Shape::Pc => absent(&[a, b, c]).and_then(|()| imm_fits()),
        Shape::Unary => int(a).and_then(|()| absent(&[b, c])).and_then(|()| no_imm()),
        Shape::Extend => {
            int(a)?;
            absent(&[b])?;
            no_imm()?;
            small(c <= ty as u16)
        }
        Shape::Binary | Shape::Compare => {
            int(a)?;
            int(b)?;
            absent(&[c])?;
            no_imm()
        }
        Shape::BinaryImm | Shape::CompareImm => {
            int(a)?;
            absent(&[b, c])?;
            imm_fits()
        }
        Shape::Select | Shape::Cas => {
            int(a)?;
            int(b)?;
            int(c)?;
            no_imm()
        }
        Shape::Deposit => {
            int(a)?;
            int(b)?;
            absent(&[c])?;
            bit_field()
        }
        Shape::Extract => {
            int(a)?;
            absent(&[b, c])?;
            bit_field()
        }
        Shape::Lea => {
            int(a)?;
            int(b)?;
            small(c < 64)?;
            imm_fits()
        }
        Shape::LoadEnv => {
            absent(&[a, b])?;
            no_imm()?;
            env_slot(inst, env_size)
        }
        Shape::StoreEnv => {
            operand(earlier, a, vector)?;
            absent(&[b])?;
            no_imm()?;
            env_slot(inst, env_size)
        }
        Shape::StoreEnvImm => {
            absent(&[a, b])?;
            imm_fits()?;
            env_slot(inst, env_size)
        }
        Shape::Load => {
            int(a)?;
            absent(&[b, c])?;
            mem_imm()
        }
        Shape::Store => {
            int(a)?;
            operand(earlier, b, vector)?;
            absent(&[c])?;
            mem_imm()
        }
        Shape::Rmw => {
            int(a)?;
            int(b)?;
            small(RmwKind::from_code(c).is_some())?;
            no_imm()
        }
        Shape::Fence => absent(&[a, b, c]).and_then(|()| no_imm()),
        Shape::Call => {
            for v in [a, b, c] {
                if v != NONE {
                    int(v)?;
                }
            }
            let info = CallInfo::decode(imm);
            ensure(info.encode() == imm && CALL_EFFECTS.contains(info.effects), Problem::Constant(imm))?;
            if info.effects.contains(Effects::CONDITIONAL) {
                ensure(CONDITIONAL_EFFECTS.contains(info.effects), Problem::Constant(imm))?;
                int(a)?;
                int(b)?;
            }
            Ok(())
        }
        Shape::Vec => {
            let info = inst.vec_info().ok_or(Problem::Constant(imm))?;
            let row = info.kind.row();
            ensure(info.encode() == imm && u16::from(info.imm) < row.immediates, Problem::Constant(imm))?;
            ensure(row.op == inst.op, Problem::Constant(imm))?;
            ensure(row.ty == ty, Problem::Type(ty))?;
            for (v, kind) in [a, b, c].into_iter().zip(row.shape.operands()) {
                match kind {
                    Some(vector) => operand(earlier, v, vector)?,
                    None => absent(&[v])?,
                }
            }
            Ok(())
        }
        Shape::TrapIf | Shape::Branch => int(a).and_then(|()| absent(&[b, c])),
        Shape::JumpInd => {
            int(a).and_then(|()| absent(&[c])).and_then(|()| small(JumpKind::from_code(b).is_some()))?;
            no_imm()
        }
        Shape::Insn => absent(&[a, b]),
        Shape::Jump => absent(&[a]).and_then(|()| small(c <= 1 && JumpKind::from_code(b).is_some())),
        Shape::Exit => absent(&[a, b, c]),
    }
}

/// Effects that a call may declare.
const CALL_EFFECTS: Effects = Effects::all().difference(Effects::END);

/// Effects of a helper that need not be called.
const CONDITIONAL_EFFECTS: Effects =
    Effects::CONDITIONAL.union(Effects::READ_ENV).union(Effects::LEAF).union(Effects::MARK);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vec::VecKind;

    fn problem(text: &str) -> Result<(), VerifyError> {
        verify(&crate::text::parse(text).unwrap(), 0x40)
    }

    const HEAD: &str = "block pc=0x0 fallthrough=0x4 insns=1 bytes=4\n insn 0x0, len=4\n v1 = ldenv.i64 [0x0]\n v2 = ldenv.v128 [0x10]\n";

    fn body(text: &str) -> Result<(), Problem> {
        let result = problem(&format!("{HEAD}{text}\n exit 0x0\n"));
        result.map_err(|e| {
            assert_eq!(e.inst, 3);
            e.problem
        })
    }

    #[test]
    fn valid_lines_pass() {
        for text in [
            "v3 = const.i8 0xff",
            "v3 = zext.i8 v1, from=i8",
            "v3 = sext.i64 v1, from=i32",
            "v3 = lea.i32 v1, v1, shift=63, disp=0xffffffff",
            "v3 = extract.i32 v1, pos=31, len=1",
            "v3 = deposit.i64 v1, v1, pos=0, len=64",
            "stenv.v128 [0x30], v2",
            "store.v128 v1, v2, disp=-0x80000000, flags=relaxed",
            "v3 = load.v128 v1, flags=for_write|relaxed",
            "v3 = call.i64 -, v1, -, helper=3, effects=read_env|write_env|fault|memory, arg=0xffffffff",
            "v3 = call.i8 v1, v1, -, helper=3, effects=read_env|leaf|conditional",
            "v3 = cas.i8 v1, v1, v1",
            "v3 = vec.v128 v2, v1, -, kind=insert.i64x2, imm=0x1",
            "v3 = vec.i8 v2, -, -, kind=any",
        ] {
            assert_eq!(body(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, expected) in [
            ("v3 = neg.i64 v3", Problem::Undefined(3)),
            ("v3 = neg.i64 v9", Problem::Undefined(9)),
            ("v3 = neg.i64 -", Problem::Undefined(NONE)),
            ("v3 = neg.i64 v0", Problem::NoValue(0)),
            ("v3 = neg.i64 v2", Problem::OperandType(2)),
            ("stenv.i64 [0x0], v2", Problem::OperandType(2)),
            ("stenv.v128 [0x0], v1", Problem::OperandType(1)),
            ("store.v128 v1, v1", Problem::OperandType(1)),
            ("v3 = const.v128 0x0", Problem::Type(Type::V128)),
            ("stenv.i.v128 [0x0], 0x0", Problem::Type(Type::V128)),
            ("v3 = ldenv.i64 [0x4]", Problem::EnvAlign(4)),
            ("v3 = ldenv.v128 [0x40]", Problem::EnvRange(0x40)),
            ("v3 = ldenv.i8 [0xffff]", Problem::EnvRange(0xffff)),
            ("v3 = zext.i8 v1, from=i16", Problem::SmallConstant(1)),
            ("v3 = lea.i64 v1, v1, shift=64, disp=0x0", Problem::SmallConstant(64)),
            ("v3 = extract.i32 v1, pos=31, len=2", Problem::BitField { pos: 31, len: 2 }),
            ("v3 = extract.i32 v1, pos=3, len=0", Problem::BitField { pos: 3, len: 0 }),
            ("v3 = const.i8 0x100", Problem::Constant(0x100)),
            ("v3 = add.i.i32 v1, 0x100000000", Problem::Constant(1 << 32)),
            ("jump 0x0, slot=0", Problem::EarlyTerminator),
            ("v3 = vec.v128 v2, v2, -, kind=insert.i64x2", Problem::OperandType(2)),
            ("v3 = vec.v128 v2, v1, -, kind=add.i8x16", Problem::OperandType(1)),
            ("v3 = vec.v128 v2, v2, v2, kind=add.i8x16", Problem::Unused),
            ("v3 = vec.v128 v2, -, -, kind=add.i8x16", Problem::Undefined(NONE)),
            ("v3 = vec.i64 v2, -, -, kind=any", Problem::Type(Type::I64)),
            (
                "v3 = vec.i64 v2, -, -, kind=extract.i64x2, imm=0x2",
                Problem::Constant(2 << 16 | VecKind::Extract64 as u64),
            ),
        ] {
            assert_eq!(body(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_block_as_a_whole() {
        let head = "block pc=0x0 fallthrough=0x4 insns=1 bytes=4\n";
        let at = |inst, problem| Err(VerifyError { inst, problem });
        assert_eq!(problem(head), at(0, Problem::NoTerminator));
        assert_eq!(problem(&format!("{head} insn 0x0, len=4\n")), at(0, Problem::NoTerminator));
        let prefix = format!("{head} v0 = const.i64 0x0\n v1 = load.i64 v0\n exit 0x0\n");
        assert_eq!(problem(&prefix), at(1, Problem::FaultInPrefix));
        let long = Block { insts: vec![Inst { op: Op::Insn, ..block_inst() }; MAX_INSTS + 1], ..Block::default() };
        assert_eq!(verify(&long, 0), at(MAX_INSTS, Problem::TooLong));
    }

    fn block_inst() -> Inst {
        Inst { op: Op::Exit, ty: Type::I64, a: NONE, b: NONE, c: NONE, imm: 0 }
    }

    #[test]
    fn unused_fields_and_codes() {
        let check = |inst: Inst| {
            let insts = vec![inst, block_inst()];
            verify(&Block { insts, ..Block::default() }, 0x40).map_err(|e| e.problem)
        };
        let constant = Inst { op: Op::Const, ..block_inst() };
        assert_eq!(check(constant), Ok(()));
        assert_eq!(check(Inst { a: 0, ..constant }), Err(Problem::Unused));
        assert_eq!(check(Inst { op: Op::LoadEnv, c: 0, imm: 1, ..constant }), Err(Problem::Unused));
        let call = Inst { op: Op::Call, ..block_inst() };
        assert_eq!(check(Inst { imm: u64::from(Effects::WRITE_ENV.bits()) << 16, ..call }), Ok(()));
        let end = u64::from(Effects::END.bits()) << 16;
        assert_eq!(check(Inst { imm: end, ..call }), Err(Problem::EarlyTerminator));
        let unknown = 1 << 31;
        assert_eq!(check(Inst { imm: unknown, ..call }), Err(Problem::Constant(unknown)));
        let rmw = Inst { op: Op::Rmw, a: 1, b: 1, c: RmwKind::ALL.len() as u16, ..block_inst() };
        let insts = vec![Inst { op: Op::Insn, c: 4, ..block_inst() }, constant, rmw, block_inst()];
        let error = verify(&Block { insts, ..Block::default() }, 0).unwrap_err();
        assert_eq!(error.problem, Problem::SmallConstant(RmwKind::ALL.len() as u16));
        let slot = Inst { op: Op::Jump, c: 2, ..block_inst() };
        let error = verify(&Block { insts: vec![slot], ..Block::default() }, 0).unwrap_err();
        assert_eq!(error.problem, Problem::SmallConstant(2));
        let typed = Inst { ty: Type::I32, ..block_inst() };
        let error = verify(&Block { insts: vec![typed], ..Block::default() }, 0).unwrap_err();
        assert_eq!(error.problem, Problem::Type(Type::I32));
    }
}
