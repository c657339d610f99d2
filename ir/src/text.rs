//! The text form of blocks: printed for dumps and tests, parsed for tests.
//!
//! ```text
//! block pc=0xffffffff81000000 fallthrough=0xffffffff81000010 insns=3 bytes=16
//!   insn 0xffffffff81000000, len=3
//!   v1 = ldenv.i64 [0x18]
//!   v2 = add.i.i32 v1, 0x3
//!   stenv.i64 [0x18], v2
//!   v4 = load.i64 v2, disp=-0x8, flags=for_write
//!   v5 = call.i64 v4, -, -, helper=12, effects=read_env|fault, arg=0x5
//!   branch v5, 0xffffffff81000000
//! ```
//!
//! The mnemonic is the op's name with its type. Positional operands come first, named constants after them;
//! a displacement of 0, no flags, no effects and a zero call argument are left out. Parsing a printed block
//! gives an equal one if the block is valid ([`crate::verify()`]) and was printed without [`Names`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bitflags::Flags;

use crate::block::{Block, CallInfo, EnvSlot, Inst, MAX_INSTS, MemFlags, NONE, Value};
use crate::op::{Effects, JumpKind, Op, RmwKind, Shape, Type};
use crate::vec::{VecInfo, VecKind};
use crate::verify::fixed_type;

/// Names of a guest's env slots and helpers, for reading.
pub trait Names {
    /// Name of the register held in `slot`.
    fn slot(&self, slot: EnvSlot) -> Option<Cow<'_, str>>;
    /// Name of the helper numbered `helper`.
    fn helper(&self, helper: u16) -> Option<Cow<'_, str>>;
}

/// No names: the form that can be parsed.
struct NoNames;

impl Names for NoNames {
    fn slot(&self, _: EnvSlot) -> Option<Cow<'_, str>> {
        None
    }

    fn helper(&self, _: u16) -> Option<Cow<'_, str>> {
        None
    }
}

/// The text of `block`, with `names` for its env slots and helpers if given.
pub fn print(block: &Block, names: Option<&dyn Names>) -> String {
    let printer = Printer { block, names: names.unwrap_or(&NoNames) };
    printer.to_string()
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer { block: self, names: &NoNames }.fmt(f)
    }
}

struct Printer<'a> {
    block: &'a Block,
    names: &'a dyn Names,
}

impl fmt::Display for Printer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Block { pc, fallthrough, guest_insns, guest_bytes, ref insts } = *self.block;
        writeln!(f, "block pc={pc:#x} fallthrough={fallthrough:#x} insns={guest_insns} bytes={guest_bytes}")?;
        for (index, inst) in insts.iter().enumerate() {
            self.inst(f, index, inst)?;
        }
        Ok(())
    }
}

/// An operand, `-` if absent.
struct Operand(Value);

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == NONE { f.write_str("-") } else { write!(f, "v{}", self.0) }
    }
}

/// Flags are called in the text as their type calls them, in lower case.
fn bits<F: Flags>(f: &mut fmt::Formatter<'_>, key: &str, value: &F) -> fmt::Result {
    for (index, (name, _)) in value.iter_names().enumerate() {
        let name = name.to_ascii_lowercase();
        if index == 0 { write!(f, "{key}={name}")? } else { write!(f, "|{name}")? }
    }
    Ok(())
}

fn jump_kind(f: &mut fmt::Formatter<'_>, inst: &Inst) -> fmt::Result {
    match inst.jump_kind().name() {
        Some(name) => write!(f, ", kind={name}"),
        None => Ok(()),
    }
}

impl Printer<'_> {
    fn inst(&self, f: &mut fmt::Formatter<'_>, index: usize, inst: &Inst) -> fmt::Result {
        let info = inst.op.info();
        let (a, b, c) = (Operand(inst.a), Operand(inst.b), Operand(inst.c));
        let imm = inst.imm;
        f.write_str("  ")?;
        if info.has_result {
            write!(f, "v{index} = ")?;
        }
        f.write_str(info.name)?;
        if fixed_type(info.shape).is_none() {
            write!(f, ".{}", inst.ty)?;
        }
        if info.shape != Shape::Fence {
            f.write_str(" ")?;
        }
        match info.shape {
            Shape::Const | Shape::Pc | Shape::Exit => write!(f, "{imm:#x}")?,
            Shape::Unary => write!(f, "{a}")?,
            Shape::JumpInd => {
                write!(f, "{a}")?;
                jump_kind(f, inst)?;
            }
            Shape::Extend => {
                let from = Type::ALL.get(usize::from(inst.c)).map_or("?", |ty| ty.name());
                write!(f, "{a}, from={from}")?;
            }
            Shape::Binary | Shape::Compare => write!(f, "{a}, {b}")?,
            Shape::BinaryImm | Shape::CompareImm | Shape::Branch => write!(f, "{a}, {imm:#x}")?,
            Shape::Select | Shape::Cas => write!(f, "{a}, {b}, {c}")?,
            Shape::Deposit => {
                let (pos, len) = inst.bit_field();
                write!(f, "{a}, {b}, pos={pos}, len={len}")?;
            }
            Shape::Extract => {
                let (pos, len) = inst.bit_field();
                write!(f, "{a}, pos={pos}, len={len}")?;
            }
            Shape::Lea => write!(f, "{a}, {b}, shift={}, disp={imm:#x}", inst.c)?,
            Shape::LoadEnv => self.slot(f, inst)?,
            Shape::StoreEnv => {
                self.slot(f, inst)?;
                write!(f, ", {a}")?;
            }
            Shape::StoreEnvImm => {
                self.slot(f, inst)?;
                write!(f, ", {imm:#x}")?;
            }
            Shape::Load => {
                write!(f, "{a}")?;
                self.access(f, inst)?;
            }
            Shape::Store => {
                write!(f, "{a}, {b}")?;
                self.access(f, inst)?;
            }
            Shape::Rmw => {
                write!(f, "{a}, {b}, kind={}", RmwKind::from_code(inst.c).map_or("?", RmwKind::name))?;
            }
            Shape::Fence => {}
            Shape::Call => {
                let CallInfo { helper, effects, arg } = CallInfo::decode(imm);
                write!(f, "{a}, {b}, {c}, helper=")?;
                match self.names.helper(helper) {
                    Some(name) => f.write_str(&name)?,
                    None => write!(f, "{helper}")?,
                }
                bits(f, ", effects", &effects)?;
                if arg != 0 {
                    write!(f, ", arg={arg:#x}")?;
                }
            }
            Shape::Vec => {
                let info = inst.vec_info();
                let name = info.map_or("?", |i| i.kind.row().name);
                write!(f, "{a}, {b}, {c}, kind={name}")?;
                if let Some(VecInfo { imm: 1.., .. }) = info {
                    write!(f, ", imm={:#x}", imm >> 16)?;
                }
            }
            Shape::TrapIf => write!(f, "{a}, code={imm:#x}")?,
            Shape::Insn => write!(f, "{imm:#x}, len={}", inst.c)?,
            Shape::Jump => {
                write!(f, "{imm:#x}, slot={}", inst.c)?;
                jump_kind(f, inst)?;
            }
        }
        writeln!(f)
    }

    fn slot(&self, f: &mut fmt::Formatter<'_>, inst: &Inst) -> fmt::Result {
        match self.names.slot(EnvSlot { offset: inst.c, ty: inst.ty }) {
            Some(name) => write!(f, "[{name}]"),
            None => write!(f, "[{:#x}]", inst.c),
        }
    }

    fn access(&self, f: &mut fmt::Formatter<'_>, inst: &Inst) -> fmt::Result {
        let disp = inst.mem_disp();
        if disp != 0 {
            write!(f, ", disp={}{:#x}", if disp < 0 { "-" } else { "" }, disp.unsigned_abs())?;
        }
        bits(f, ", flags", &inst.mem_flags())
    }
}

/// Where and why a text is not a block.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line number, from 1.
    pub line: usize,
    /// What was wrong.
    pub message: String,
}

/// Parses the numeric text form. Empty lines, and whatever follows a `#`, are skipped. The block need not
/// be valid.
///
/// # Errors
///
/// The first line that is not as [`print()`] writes it.
pub fn parse(text: &str) -> Result<Block, ParseError> {
    let mut block: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let result = match &mut block {
            None => header(line).map(|b| block = Some(b)),
            Some(b) if b.insts.len() >= MAX_INSTS => Err(format!("more than {MAX_INSTS} instructions")),
            Some(b) => parse_inst(line, b.insts.len()).map(|inst| b.insts.push(inst)),
        };
        result.map_err(|message| ParseError { line: number + 1, message })?;
    }
    block.ok_or_else(|| ParseError { line: 1, message: "no block".into() })
}

impl FromStr for Block {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Block, ParseError> {
        parse(text)
    }
}

type Parsed<T> = Result<T, String>;

fn number(text: &str) -> Parsed<u64> {
    let value = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    value.map_err(|_| format!("`{text}` is not a number"))
}

fn narrow<T: TryFrom<u64>>(text: &str) -> Parsed<T> {
    T::try_from(number(text)?).map_err(|_| format!("{text} is out of range"))
}

fn value(text: &str) -> Parsed<Value> {
    match text.strip_prefix('v') {
        _ if text == "-" => Ok(NONE),
        Some(index) => narrow(index),
        None => Err(format!("`{text}` is not a value")),
    }
}

fn type_named(text: &str) -> Parsed<Type> {
    Type::ALL.into_iter().find(|ty| ty.name() == text).ok_or_else(|| format!("`{text}` is not a type"))
}

fn flags<F: Flags>(text: &str) -> Parsed<F> {
    text.split('|').try_fold(F::empty(), |all, name| {
        let known = (name == name.to_ascii_lowercase()).then(|| F::from_name(&name.to_ascii_uppercase())).flatten();
        known.map(|flag| all.union(flag)).ok_or_else(|| format!("`{name}` is not a flag"))
    })
}

fn header(line: &str) -> Parsed<Block> {
    let mut words = line.split_whitespace();
    let mut field = |key: &str| {
        let word = words.next().ok_or_else(|| format!("`{key}` is missing"))?;
        word.strip_prefix(key).ok_or_else(|| format!("`{key}` expected, not `{word}`"))
    };
    field("block")?;
    let block = Block {
        pc: number(field("pc=")?)?,
        fallthrough: number(field("fallthrough=")?)?,
        guest_insns: narrow(field("insns=")?)?,
        guest_bytes: narrow(field("bytes=")?)?,
        insts: Vec::new(),
    };
    match words.next() {
        None => Ok(block),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

/// The comma-separated operands of a line, taken one by one.
struct Args<'a> {
    rest: Option<&'a str>,
}

impl<'a> Args<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.map(|rest| rest.split(',').next().unwrap_or_default().trim())
    }

    fn optional(&mut self, key: &str) -> Option<&'a str> {
        let found = self.peek()?.strip_prefix(key)?;
        self.rest = self.rest.and_then(|rest| rest.split_once(',')).map(|(_, rest)| rest);
        Some(found)
    }

    fn required(&mut self, key: &str) -> Parsed<&'a str> {
        self.optional(key).ok_or_else(|| match key {
            "" => "an operand is missing".into(),
            _ => format!("`{key}` is missing"),
        })
    }

    fn value(&mut self) -> Parsed<Value> {
        value(self.required("")?)
    }

    fn number(&mut self) -> Parsed<u64> {
        number(self.required("")?)
    }

    fn slot(&mut self) -> Parsed<u16> {
        let text = self.required("[")?;
        narrow(text.strip_suffix(']').ok_or("`]` is missing")?)
    }

    fn access(&mut self) -> Parsed<u64> {
        let disp = match self.optional("disp=") {
            None => 0,
            Some(text) => {
                let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
                let wide = sign * narrow::<i64>(digits)?;
                i32::try_from(wide).map_err(|_| format!("{text} is out of range"))?
            }
        };
        let flags: MemFlags = self.optional("flags=").map_or(Ok(MemFlags::empty()), flags)?;
        Ok(u64::from(disp as u32) | u64::from(flags.bits()) << 32)
    }

    fn jump_kind(&mut self) -> Parsed<u16> {
        let Some(name) = self.optional("kind=") else { return Ok(JumpKind::Plain as u16) };
        JumpKind::named(name).map(|kind| kind as u16).ok_or_else(|| format!("`{name}` is no kind of jump"))
    }

    fn bit_field(&mut self) -> Parsed<u64> {
        let pos: u8 = narrow(self.required("pos=")?)?;
        let len: u8 = narrow(self.required("len=")?)?;
        Ok(u64::from(pos) | u64::from(len) << 8)
    }
}

fn parse_inst(line: &str, index: usize) -> Parsed<Inst> {
    let (result, line) = match line.split_once(" = ") {
        Some((result, rest)) => (Some(value(result)?), rest),
        None => (None, line),
    };
    let (mnemonic, operands) = match line.split_once(' ') {
        Some((mnemonic, operands)) => (mnemonic, Some(operands)),
        None => (line, None),
    };
    let op_named = |name: &str| Op::ALL.iter().copied().find(|op| op.info().name == name);
    let unknown = || format!("`{mnemonic}` is not an op");
    let (op, ty) = match op_named(mnemonic).and_then(|op| Some((op, fixed_type(op.info().shape)?))) {
        Some(found) => found,
        None => {
            let (name, ty) = mnemonic.rsplit_once('.').ok_or_else(unknown)?;
            let op = op_named(name).filter(|op| fixed_type(op.info().shape).is_none()).ok_or_else(unknown)?;
            (op, type_named(ty)?)
        }
    };
    let expected = op.info().has_result.then_some(index as Value);
    if result != expected {
        return Err(match expected {
            Some(v) => format!("this instruction defines v{v}"),
            None => format!("`{mnemonic}` defines no value"),
        });
    }
    let mut args = Args { rest: operands };
    let args = &mut args;
    let mut inst = Inst { op, ty, a: NONE, b: NONE, c: NONE, imm: 0 };
    match op.info().shape {
        Shape::Const | Shape::Pc | Shape::Exit => inst.imm = args.number()?,
        Shape::Unary => inst.a = args.value()?,
        Shape::JumpInd => (inst.a, inst.b) = (args.value()?, args.jump_kind()?),
        Shape::Extend => {
            inst.a = args.value()?;
            inst.c = type_named(args.required("from=")?)? as u16;
        }
        Shape::Binary | Shape::Compare => (inst.a, inst.b) = (args.value()?, args.value()?),
        Shape::BinaryImm | Shape::CompareImm | Shape::Branch => (inst.a, inst.imm) = (args.value()?, args.number()?),
        Shape::Select | Shape::Cas => (inst.a, inst.b, inst.c) = (args.value()?, args.value()?, args.value()?),
        Shape::Deposit => (inst.a, inst.b, inst.imm) = (args.value()?, args.value()?, args.bit_field()?),
        Shape::Extract => (inst.a, inst.imm) = (args.value()?, args.bit_field()?),
        Shape::Lea => {
            (inst.a, inst.b) = (args.value()?, args.value()?);
            inst.c = narrow(args.required("shift=")?)?;
            inst.imm = number(args.required("disp=")?)?;
        }
        Shape::LoadEnv => inst.c = args.slot()?,
        Shape::StoreEnv => (inst.c, inst.a) = (args.slot()?, args.value()?),
        Shape::StoreEnvImm => (inst.c, inst.imm) = (args.slot()?, args.number()?),
        Shape::Load => (inst.a, inst.imm) = (args.value()?, args.access()?),
        Shape::Store => (inst.a, inst.b, inst.imm) = (args.value()?, args.value()?, args.access()?),
        Shape::Rmw => {
            (inst.a, inst.b) = (args.value()?, args.value()?);
            let name = args.required("kind=")?;
            let kind = RmwKind::ALL.iter().find(|kind| kind.name() == name);
            inst.c = *kind.ok_or_else(|| format!("`{name}` is not a kind"))? as u16;
        }
        Shape::Fence => {}
        Shape::Call => {
            (inst.a, inst.b, inst.c) = (args.value()?, args.value()?, args.value()?);
            let helper = narrow(args.required("helper=")?)?;
            let effects = args.optional("effects=").map_or(Ok(Effects::empty()), flags)?;
            let arg = args.optional("arg=").map_or(Ok(0), narrow)?;
            inst.imm = CallInfo { helper, effects, arg }.encode();
        }
        Shape::Vec => {
            (inst.a, inst.b, inst.c) = (args.value()?, args.value()?, args.value()?);
            let name = args.required("kind=")?;
            let kind = VecKind::ALL.iter().copied().find(|kind| kind.row().name == name);
            let kind = kind.ok_or_else(|| format!("`{name}` is not a kind"))?;
            let imm = args.optional("imm=").map_or(Ok(0), narrow)?;
            inst.imm = VecInfo { kind, imm }.encode();
        }
        Shape::TrapIf => {
            inst.a = args.value()?;
            inst.imm = number(args.required("code=")?)?;
        }
        Shape::Insn => {
            inst.imm = args.number()?;
            inst.c = narrow(args.required("len=")?)?;
        }
        Shape::Jump => {
            inst.imm = args.number()?;
            inst.c = narrow(args.required("slot=")?)?;
            inst.b = args.jump_kind()?;
        }
    }
    match args.peek() {
        None => Ok(inst),
        Some(rest) => Err(format!("unexpected `{rest}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
block pc=0xffffffff81000000 fallthrough=0xffffffff81000010 insns=3 bytes=16
  insn 0xffffffff81000000, len=3
  v1 = ldenv.i64 [0x18]
  v2 = add.i.i32 v1, 0x3
  stenv.i64 [0x18], v2
  v4 = load.i64 v2, disp=-0x8, flags=for_write|relaxed
  v5 = call.i64 v4, -, v1, helper=12, effects=read_env|fault, arg=0x5
  v6 = rmw.i16 v4, v5, kind=xchg
  v7 = zext.i64 v6, from=i8
  v8 = deposit.i64 v7, v6, pos=8, len=8
  store.i32 v8, v7, disp=0x7fffffff
  v10 = lea.i32 v8, v7, shift=2, disp=0xfffffff8
  v11 = ldenv.v128 [0x40]
  v12 = vec.v128 v11, v8, -, kind=insert.i32x4, imm=0x3
  v13 = vec.i8 v12, -, -, kind=any
  trap_if v7, code=0x6
  branch v5, 0xffffffff81000000
";

    #[test]
    fn sample_survives() {
        let block = parse(SAMPLE).unwrap();
        assert_eq!(block.to_string(), SAMPLE);
        assert_eq!(SAMPLE.parse(), Ok(block));
    }

    #[test]
    fn names_are_shown() {
        struct Guest;
        impl Names for Guest {
            fn slot(&self, slot: EnvSlot) -> Option<Cow<'_, str>> {
                (slot == EnvSlot { offset: 0x18, ty: Type::I64 }).then_some("rbx".into())
            }
            fn helper(&self, helper: u16) -> Option<Cow<'_, str>> {
                (helper == 12).then_some("div64".into())
            }
        }
        let text = print(&parse(SAMPLE).unwrap(), Some(&Guest));
        assert!(text.contains("v1 = ldenv.i64 [rbx]\n"), "{text}");
        assert!(text.contains("stenv.i64 [rbx], v2\n"), "{text}");
        assert!(text.contains("helper=div64, effects=read_env|fault"), "{text}");
    }

    #[test]
    fn errors_name_the_line() {
        let head = "# a comment\nblock pc=0x0 fallthrough=0x0 insns=0 bytes=0\n\n";
        for (line, message) in [
            ("frob.i64 v1", "`frob.i64` is not an op"),
            ("jump.i64 0x0, slot=0", "`jump.i64` is not an op"),
            ("v0 = const.i7 0x0", "`i7` is not a type"),
            ("v1 = const.i8 0x0", "this instruction defines v0"),
            ("const.i8 0x0", "this instruction defines v0"),
            ("v0 = exit 0x0", "`exit` defines no value"),
            ("v0 = neg.i8 1", "`1` is not a value"),
            ("v0 = add.i8 v1", "an operand is missing"),
            ("v0 = neg.i8 v1, v2", "unexpected `v2`"),
            ("v0 = neg.i8 v1,", "unexpected ``"),
            ("v0 = load.i8 v1, disp=0x80000000", "0x80000000 is out of range"),
            ("v0 = load.i8 v1, disp=-0x80000001", "-0x80000001 is out of range"),
            ("v0 = load.i8 v1, flags=fast", "`fast` is not a flag"),
            ("v0 = lea.i8 v1, v2, disp=0x0", "`shift=` is missing"),
            ("v0 = ldenv.i8 [0x10000]", "0x10000 is out of range"),
            ("v0 = ldenv.i8 [0x10", "`]` is missing"),
            ("v0 = vec.v128 -, -, -, kind=none", "`none` is not a kind"),
            ("v0 = vec.v128 -, -, -, kind=zero, imm=0x100", "0x100 is out of range"),
            ("insn zero, len=1", "`zero` is not a number"),
            ("exit", "an operand is missing"),
            ("fence v1", "unexpected `v1`"),
        ] {
            let error = parse(&format!("{head}{line}\n")).unwrap_err();
            assert_eq!(error.line, 4, "{line}");
            assert_eq!(error.message, message, "{line}");
        }
        assert_eq!(parse("").unwrap_err().message, "no block");
        assert_eq!(parse("block pc=0x0").unwrap_err().message, "`fallthrough=` is missing");
    }
}
