//! The toy's instructions: one line each, by which they are decoded and encoded, and their meaning in micro-ops. `d`, `a` and `b`
//! are registers, `i` is an immediate with a sign; `x` is ignored.

use mimus_frontend::common::guest::{self, Truncated};
use mimus_frontend::common::pattern::{Index, Pattern};
use mimus_ir::block::{Block, Builder, NONE, Value};
use mimus_ir::op::{JumpKind, Op, Type};
use mimus_ir::{EnvSlot, MemFlags, VecKind};

use super::{Helper, State, cause, special};

const FLAGS: u32 = special::FLAGS as u32;

/// Bytes of an instruction.
pub const INSN_LEN: usize = 4;
/// Most instructions of a block.
pub const MAX_INSNS: u32 = 32;

struct Row {
    code: Code,
    pattern: Pattern<32>,
}

macro_rules! isa {
    ($($code:ident $pattern:literal;)*) => {
        /// An instruction.
        #[expect(missing_docs, reason = "the table's rows say what each is")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Code { $($code),* }

        static TABLE: &[Row] = &[$(Row { code: Code::$code, pattern: Pattern::parse($pattern) }),*];
    };
}

isa! {
    Add "000001 dddd aaaa bbbb xxxxxxxxxxxxxx"; // `d = a + b`.
    Addi "000010 dddd aaaa iiiiiiiiiiiiiiiiii"; // `d = a + i`.
    Load "000011 dddd aaaa iiiiiiiiiiiiiiiiii"; // Loads `d` from `a + i`.
    Store "000100 dddd aaaa iiiiiiiiiiiiiiiiii"; // Stores `d` at `a + i`.
    Beq "000101 dddd aaaa iiiiiiiiiiiiiiiiii"; // Goes `i` bytes on from here if `d` is `a`.
    Blt "000110 dddd aaaa iiiiiiiiiiiiiiiiii"; // The same if it is less, as a number with a sign.
    Call "000111 dddd xxxx iiiiiiiiiiiiiiiiii"; // Calls `i` bytes on; `d` is where to return.
    Jump "001000 xxxx aaaa xxxxxxxxxxxxxxxxxx"; // Goes to `a`.
    LoadF "001001 dddd aaaa iiiiiiiiiiiiiiiiii"; // Loads floating-point register `d`.
    StoreF "001010 dddd aaaa iiiiiiiiiiiiiiiiii"; // Stores it.
    AddF "001011 dddd aaaa bbbb xxxxxxxxxxxxxx"; // `d = a + b`.
    DivF "001100 dddd aaaa bbbb xxxxxxxxxxxxxx"; // `d = a / b`.
    Get "001101 dddd xxxx iiiiiiiiiiiiiiiiii"; // `d` is special register `i`.
    Put "001110 xxxx aaaa iiiiiiiiiiiiiiiiii"; // Special register `i` is `a`.
    Return "001111 xxxx xxxx xxxxxxxxxxxxxxxxxx"; // Returns from a trap.
    Halt "010000 xxxx xxxx xxxxxxxxxxxxxxxxxx"; // Stops the machine.
}

/// Rows by the upper six bits.
static INDEX: Index<64, 2> = {
    let mut index = Index::new(26);
    let mut i = 0;
    while i < TABLE.len() {
        index = index.with(i, &TABLE[i].pattern);
        i += 1;
    }
    index
};

/// The word of an instruction; `rest` is register `b` or the immediate.
pub fn encode(code: Code, d: u8, a: u8, rest: i32) -> u32 {
    let pattern = &TABLE[code as usize].pattern;
    let fields = [(b'd', d.into()), (b'a', a.into()), (b'b', rest as u32), (b'i', rest as u32)];
    fields.iter().fold(pattern.value, |word, &(letter, value)| word | pattern.place(letter, value))
}

fn decode(word: u32) -> Option<&'static Row> {
    INDEX.find(TABLE, word, |row| &row.pattern)
}

/// The instructions in `bytes`, the first at `pc`, as text.
pub fn disassemble(bytes: &[u8], pc: u64) -> String {
    let words = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    let lines = words.zip((pc..).step_by(INSN_LEN));
    lines.map(|(word, at)| format!("\n{at:#018x}  {word:#010x} {:?}", decode(word).map(|row| row.code))).collect()
}

const fn slot(offset: usize, number: u32, bytes: usize, ty: Type) -> EnvSlot {
    EnvSlot { offset: (offset + bytes * (number as usize & 15)) as u16, ty }
}

fn f_slot(number: u32) -> EnvSlot {
    slot(std::mem::offset_of!(State, f), number, 16, Type::V128)
}

struct Lift {
    b: Builder,
    pc: u64,
    ended: bool,
}

/// Translates the block at `pc`.
pub(super) fn lift(code: &guest::Code<'_>, pc: u64) -> Result<Block, Truncated> {
    let mut lift = Lift { b: Builder::new(pc), pc, ended: false };
    let words = code.bytes.as_chunks().0;
    let Some(&first) = words.first() else { return Err(Truncated) };
    let rest = code.bytes[..code.in_page.min(code.bytes.len())].as_chunks().0.iter().copied().skip(1);
    for word in std::iter::once(first).chain(rest).take(code.max_insns as usize) {
        lift.b.insn(lift.pc, INSN_LEN as u32);
        lift.instruction(u32::from_le_bytes(word));
        lift.pc += INSN_LEN as u64;
        if lift.ended {
            break;
        }
    }
    if !lift.ended {
        lift.b.jump(lift.pc);
    }
    Ok(lift.b.finish(lift.pc))
}

impl Lift {
    fn r(&mut self, number: u32) -> Value {
        let r0 = std::mem::offset_of!(State, r);
        if number == 0 { self.b.iconst(Type::I64, 0) } else { self.b.load_env(slot(r0, number, 8, Type::I64)) }
    }

    fn set_r(&mut self, number: u32, value: Value) {
        if number != 0 {
            self.b.store_env(slot(std::mem::offset_of!(State, r), number, 8, Type::I64), value);
        }
    }

    fn call(&mut self, helper: Helper, arg: u32, a: Value) -> Value {
        self.b.call(Type::I64, helper.info(arg), [a, NONE, NONE])
    }

    /// Ends the block and goes to `target`.
    fn go(&mut self, target: Value) {
        self.b.jump_ind(JumpKind::Plain, target);
        self.ended = true;
    }

    fn illegal(&mut self) {
        let always = self.b.iconst(Type::I8, 1);
        self.b.trap_if(always, cause::ILLEGAL);
        self.b.exit(0);
        self.ended = true;
    }

    fn instruction(&mut self, word: u32) {
        let Some(row) = decode(word) else { return self.illegal() };
        let [d, a, b] = [b'd', b'a', b'b'].map(|letter| row.pattern.field(letter, word));
        let imm = (row.pattern.field(b'i', word) << 14) as i32 >> 14;
        let target = self.pc.wrapping_add(imm as u64);
        let next = self.pc + INSN_LEN as u64;
        match row.code {
            Code::Add => {
                let (a, b) = (self.r(a), self.r(b));
                let value = self.b.binary(Op::Add, Type::I64, a, b);
                self.set_r(d, value);
            }
            Code::Addi => {
                let a = self.r(a);
                let value = self.b.binary_imm(Op::Add, Type::I64, a, imm as u64);
                self.set_r(d, value);
            }
            Code::Load => {
                let base = self.r(a);
                let value = self.b.load(Type::I64, base, imm, MemFlags::empty());
                self.set_r(d, value);
            }
            Code::Store => {
                let (base, value) = (self.r(a), self.r(d));
                self.b.store(Type::I64, base, imm, value, MemFlags::empty());
            }
            Code::Beq | Code::Blt => {
                let (d, a) = (self.r(d), self.r(a));
                let op = if row.code == Code::Beq { Op::Eq } else { Op::Slt };
                let condition = self.b.binary(op, Type::I64, d, a);
                self.b.branch(condition, target);
                self.ended = true;
            }
            Code::Call => {
                let link = self.b.iconst(Type::I64, next);
                self.set_r(d, link);
                self.b.jump_as(JumpKind::Call, target);
                self.ended = true;
            }
            Code::Jump => {
                let target = self.r(a);
                self.go(target);
            }
            Code::LoadF => {
                let base = self.r(a);
                let value = self.b.load(Type::I64, base, imm, MemFlags::empty());
                let value = self.b.vec(VecKind::From64, 0, [value, NONE, NONE]);
                self.b.store_env(f_slot(d), value);
            }
            Code::StoreF => {
                let (base, value) = (self.r(a), self.b.load_env(f_slot(d)));
                let value = self.b.vec(VecKind::Extract64, 0, [value, NONE, NONE]);
                self.b.store(Type::I64, base, imm, value, MemFlags::empty());
            }
            Code::AddF | Code::DivF => {
                let kind = if row.code == Code::AddF { VecKind::AddF64 } else { VecKind::DivF64 };
                let (a, b) = (self.b.load_env(f_slot(a)), self.b.load_env(f_slot(b)));
                let value = self.b.vec(kind, 0, [a, b, NONE]);
                self.b.store_env(f_slot(d), value);
            }
            Code::Get => {
                let value = match imm as u32 % special::COUNT as u32 {
                    FLAGS => self.call(Helper::Flags, 0, NONE),
                    number => self.b.load_env(slot(std::mem::offset_of!(State, special), number, 8, Type::I64)),
                };
                self.set_r(d, value);
            }
            Code::Put => {
                let value = self.r(a);
                self.call(Helper::Put, imm as u32, value);
                // How addresses are translated may have changed.
                let next = self.b.iconst(Type::I64, next);
                self.go(next);
            }
            Code::Return => {
                self.call(Helper::Return, 0, NONE);
                let pc = self.b.load_env(slot(std::mem::offset_of!(State, pc), 0, 8, Type::I64));
                self.go(pc);
            }
            Code::Halt => {
                self.b.store_env_imm(slot(std::mem::offset_of!(State, pc), 0, 8, Type::I64), next);
                self.b.store_env_imm(slot(std::mem::offset_of!(State, halted), 0, 8, Type::I64), 1);
                self.b.exit(0);
                self.ended = true;
            }
        }
    }
}
