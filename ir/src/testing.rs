//! Random valid blocks and a small guest to run them on, for differential tests of passes and backends.
//!
//! The generator walks the op table, so a new op is generated without a change here; a new [`Shape`] does not
//! compile until it is handled. It is driven by bytes, which proptest shrinks and a fuzzer mutates: fewer or
//! smaller bytes make a shorter or simpler block.

use crate::block::{Block, Builder, CallInfo, EnvSlot, Inst, MemFlags, NONE, Value};
use crate::interp::{Guest, Stop};
use crate::op::{Effects, JumpKind, Op, RmwKind, Shape, Type};
use crate::vec::{VecInfo, VecKind};

/// Bytes of env that generated blocks use.
pub const ENV_SIZE: usize = 64;

/// Bytes of guest memory of a [`ToyGuest`].
pub const MEM_SIZE: usize = 512;

/// Addresses of a [`ToyGuest`] repeat with this period; those from [`MEM_SIZE`] on fault.
pub const ADDRESS_PERIOD: u64 = 560;

/// Stores below this address of a [`ToyGuest`] count as a change of translated code.
pub const CODE_SIZE: usize = 32;

/// Most ops of a generated block, its terminator not counted.
pub const MAX_GENERATED: usize = 200;

/// Entropy: bytes, then zeros.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        let wide = if limit > 256 { u16::from_le_bytes([self.byte(), self.byte()]).into() } else { self.byte().into() };
        let wide: usize = wide;
        wide % limit.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }

    /// A constant: small, at an edge of some type, or anything.
    fn constant(&mut self) -> u64 {
        let small = u64::from(self.byte());
        match small % 8 {
            0..3 => u64::from(self.byte()),
            3 => u64::from(self.byte()).wrapping_neg(),
            4 => 1 << (self.byte() % 64),
            5 => (1 << (self.byte() % 64)) - 1,
            6 => (1u64 << (self.byte() % 64)).wrapping_neg(),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }
}

struct Generator<'a> {
    source: Source<'a>,
    builder: Builder,
    /// Values defined so far.
    ints: Vec<Value>,
    vectors: Vec<Value>,
}

/// A valid block made from `bytes`, for a guest whose env has [`ENV_SIZE`] bytes.
pub fn block(bytes: &[u8]) -> Block {
    let mut source = Source(bytes);
    let pc = source.constant();
    let mut g = Generator { source, builder: Builder::new(pc), ints: Vec::new(), vectors: Vec::new() };
    let (mut next_pc, mut left_of_insn) = (pc, 0);
    while !g.source.0.is_empty() && g.builder.len() < MAX_GENERATED {
        if left_of_insn == 0 {
            g.builder.insn(next_pc, 4);
            next_pc = next_pc.wrapping_add(4);
            left_of_insn = 1 + g.source.below(8);
        }
        let op = Op::ALL[g.source.below(Op::ALL.len())];
        if op != Op::Insn && !op.info().effects.contains(Effects::END) {
            g.emit(op);
            left_of_insn -= 1;
        }
    }
    let ends: Vec<Op> = Op::ALL.iter().copied().filter(|op| op.info().effects.contains(Effects::END)).collect();
    let end = g.source.pick(&ends).unwrap_or(Op::Exit);
    g.emit(end);
    g.builder.finish(next_pc)
}

impl Generator<'_> {
    fn push(&mut self, inst: Inst) -> Value {
        let value = self.builder.push(inst);
        match inst.result_type() {
            Some(Type::V128) => self.vectors.push(value),
            Some(_) => self.ints.push(value),
            None => {}
        }
        value
    }

    fn load_env(&mut self, ty: Type) -> Value {
        let c = self.offset(ty);
        self.push(Inst { op: Op::LoadEnv, ty, a: NONE, b: NONE, c, imm: 0 })
    }

    /// An integer value: a recent one as a rule, or a constant.
    fn int(&mut self) -> Value {
        let choice = usize::from(self.source.byte());
        if choice < 40 || self.ints.is_empty() {
            let ty = self.int_type();
            let imm = self.source.constant() & ty.mask();
            return self.push(Inst { op: Op::Const, ty, a: NONE, b: NONE, c: NONE, imm });
        }
        if choice < 80 {
            let ty = self.int_type();
            return self.load_env(ty);
        }
        let window = if choice < 200 { 4 } else { self.ints.len() };
        let recent = &self.ints[self.ints.len().saturating_sub(window)..];
        recent[choice % recent.len()]
    }

    /// An integer, or a comparison of one with 0.
    fn condition(&mut self) -> Value {
        let a = self.int();
        if self.source.byte() < 128 {
            return a;
        }
        let ty = self.int_type();
        self.push(Inst { op: Op::NeI, ty, a, b: NONE, c: NONE, imm: 0 })
    }

    fn operand(&mut self, ty: Type) -> Value {
        if ty != Type::V128 {
            return self.int();
        }
        match self.source.pick(&self.vectors) {
            Some(value) => value,
            None => self.load_env(Type::V128),
        }
    }

    fn int_type(&mut self) -> Type {
        Type::ALL[3 - self.source.below(4)]
    }

    fn any_type(&mut self) -> Type {
        Type::ALL[4 - self.source.below(5)]
    }

    fn offset(&mut self, ty: Type) -> u16 {
        let bytes = ty.bytes() as usize;
        (self.source.below(ENV_SIZE / bytes) * bytes) as u16
    }

    fn bit_field(&mut self, ty: Type) -> u64 {
        let pos = self.source.below(ty.bits() as usize) as u64;
        let len = u64::from(ty.bits()) - pos;
        // Half of the fields reach to the top.
        let len = if self.source.byte() & 1 == 0 { len } else { 1 + self.source.below(len as usize) as u64 };
        pos | len << 8
    }

    fn access(&mut self) -> u64 {
        let disp = i32::from(self.source.byte() as i8);
        let flags = self.source.below(4) as u64;
        u64::from(disp as u32) | flags << 32
    }

    fn jump_kind(&mut self) -> u16 {
        [JumpKind::Plain, JumpKind::Call, JumpKind::Return][self.source.below(3)] as u16
    }

    fn emit(&mut self, op: Op) {
        let shape = op.info().shape;
        let ty = match shape {
            Shape::LoadEnv | Shape::StoreEnv | Shape::Load | Shape::Store => self.any_type(),
            _ => crate::verify::fixed_type(shape).unwrap_or_else(|| self.int_type()),
        };
        let mut inst = Inst { op, ty, a: NONE, b: NONE, c: NONE, imm: 0 };
        match shape {
            Shape::Const | Shape::Pc => inst.imm = self.source.constant() & ty.mask(),
            Shape::Unary => inst.a = self.int(),
            Shape::JumpInd => (inst.a, inst.b) = (self.int(), self.jump_kind()),
            Shape::Extend => {
                inst.a = self.int();
                inst.c = self.source.below(ty as usize + 1) as u16;
            }
            Shape::Binary | Shape::Compare => (inst.a, inst.b) = (self.int(), self.int()),
            Shape::BinaryImm => (inst.a, inst.imm) = (self.int(), self.source.constant() & ty.mask()),
            Shape::CompareImm if self.source.byte() < 64 => {
                // Near the largest value that the operand can have.
                let (a, bits) = (self.int(), self.source.below(ty.bits() as usize));
                let max = (1 << bits) - 1;
                inst.a = self.push(Inst { op: Op::AndI, ty, a, b: NONE, c: NONE, imm: max });
                inst.imm = [max, max.saturating_sub(1), max + 1][self.source.below(3)] & ty.mask();
            }
            Shape::CompareImm => (inst.a, inst.imm) = (self.int(), self.source.constant() & ty.mask()),
            Shape::Select => (inst.a, inst.b, inst.c) = (self.condition(), self.int(), self.int()),
            Shape::Cas => (inst.a, inst.b, inst.c) = (self.int(), self.int(), self.int()),
            Shape::Deposit => (inst.a, inst.b, inst.imm) = (self.int(), self.int(), self.bit_field(ty)),
            Shape::Extract => (inst.a, inst.imm) = (self.int(), self.bit_field(ty)),
            Shape::Lea => {
                (inst.a, inst.b) = (self.int(), self.int());
                let limit = if self.source.byte() < 224 { 4 } else { 64 };
                inst.c = self.source.below(limit) as u16;
                inst.imm = self.source.constant() & ty.mask();
            }
            Shape::LoadEnv => inst.c = self.offset(ty),
            Shape::StoreEnv => (inst.c, inst.a) = (self.offset(ty), self.operand(ty)),
            Shape::StoreEnvImm => (inst.c, inst.imm) = (self.offset(ty), self.source.constant() & ty.mask()),
            Shape::Load => (inst.a, inst.imm) = (self.int(), self.access()),
            Shape::Store => (inst.a, inst.b, inst.imm) = (self.int(), self.operand(ty), self.access()),
            Shape::Rmw => {
                (inst.a, inst.b) = (self.int(), self.int());
                inst.c = self.source.below(RmwKind::ALL.len()) as u16;
            }
            Shape::Call => {
                for operand in 0..3 {
                    if self.source.byte() & 1 != 0 {
                        *[&mut inst.a, &mut inst.b, &mut inst.c][operand] = self.int();
                    }
                }
                let helper = u16::from(self.source.byte());
                let arg = self.source.constant() as u32;
                if helper_effects(helper).contains(Effects::CONDITIONAL) {
                    // As often 0 as not.
                    let a = self.int();
                    inst.a = self.push(Inst { op: Op::AndI, ty: Type::I8, a, b: NONE, c: NONE, imm: 1 });
                    inst.b = self.int();
                }
                inst.imm = CallInfo { helper, effects: helper_effects(helper), arg }.encode();
            }
            Shape::Vec => {
                let kinds: Vec<VecKind> = VecKind::ALL.iter().copied().filter(|k| k.row().op == op).collect();
                let Some(kind) = self.source.pick(&kinds) else { return };
                let row = kind.row();
                for (n, operand) in row.shape.operands().into_iter().enumerate() {
                    let value = match operand {
                        Some(true) => self.operand(Type::V128),
                        Some(false) => self.int(),
                        None => NONE,
                    };
                    *[&mut inst.a, &mut inst.b, &mut inst.c][n] = value;
                }
                let imm = self.source.below(row.immediates.into()) as u8;
                (inst.ty, inst.imm) = (row.ty, VecInfo { kind, imm }.encode());
            }
            Shape::TrapIf => {
                // Seldom true, or most blocks would end here.
                let ty = Type::I32;
                let a = self.int();
                let a = self.push(Inst { op: Op::AndI, ty, a, b: NONE, c: NONE, imm: 7 });
                let imm = u64::from(self.source.byte() & 7);
                inst.a = self.push(Inst { op: Op::EqI, ty, a, b: NONE, c: NONE, imm });
                inst.imm = self.source.constant();
            }
            Shape::Branch => (inst.a, inst.imm) = (self.condition(), self.source.constant()),
            Shape::Jump => {
                (inst.c, inst.imm) = (self.source.below(2) as u16, self.source.constant());
                inst.b = self.jump_kind();
            }
            Shape::Exit => inst.imm = self.source.constant(),
            Shape::Fence => {}
            // `block` places the markers, which count instructions.
            Shape::Insn => return,
        }
        self.push(inst);
    }
}

/// Effects of helper `helper` of a [`ToyGuest`].
pub const fn helper_effects(helper: u16) -> Effects {
    if helper & 16 == 0 {
        Effects::from_bits_retain(helper & 15)
    } else {
        Effects::READ_ENV.union(Effects::CONDITIONAL)
    }
}

/// What a [`ToyGuest`] saw, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A load.
    Load(u64, Type, MemFlags),
    /// A store.
    Store(u64, Type, [u64; 2], MemFlags),
    /// An atomic read-modify-write.
    Rmw(RmwKind, u64, Type, u64),
    /// An atomic compare-and-swap.
    Cas(u64, Type, u64, u64),
    /// A helper call, with env if the helper reads it.
    Call(u16, [u64; 3], u32, Option<Vec<u8>>),
    /// A floating-point operation.
    Float(VecInfo, [u128; 3]),
    /// A trap.
    Trap(u64),
}

/// A guest with a little env and memory. Its helpers have the effects that [`helper_effects`] says, and its
/// log holds everything that a block did to the outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToyGuest {
    /// The env.
    pub env: Vec<u8>,
    /// Guest memory, from address 0.
    pub mem: Vec<u8>,
    /// Accesses, calls and traps.
    pub log: Vec<Event>,
    /// What is added to guest PCs.
    pub pc_base: u64,
}

impl ToyGuest {
    /// A guest whose env and memory are filled from `seed`.
    pub fn new(seed: u64) -> ToyGuest {
        let mut state = seed;
        let mut fill = |len| (0..len).map(|_| (mix(&mut state) >> 32) as u8).collect();
        ToyGuest { env: fill(ENV_SIZE), mem: fill(MEM_SIZE), log: Vec::new(), pc_base: mix(&mut state) & !0xfff }
    }

    fn place(&self, addr: u64, ty: Type) -> Result<usize, Stop> {
        let at = (addr % ADDRESS_PERIOD) as usize;
        if at + ty.bytes() as usize <= MEM_SIZE { Ok(at) } else { Err(Stop::Fault) }
    }

    fn read(&self, at: usize, ty: Type) -> u128 {
        let mut bytes = [0; 16];
        let len = ty.bytes() as usize;
        bytes[..len].copy_from_slice(&self.mem[at..at + len]);
        u128::from_le_bytes(bytes)
    }

    fn write(&mut self, at: usize, ty: Type, value: u128) -> bool {
        let len = ty.bytes() as usize;
        self.mem[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        at < CODE_SIZE
    }
}

/// SplitMix64, by Steele, Lea and Flood (OOPSLA 2014).
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Guest for ToyGuest {
    fn env(&mut self) -> &mut [u8] {
        &mut self.env
    }

    fn pc_base(&self) -> u64 {
        self.pc_base
    }

    fn load(&mut self, addr: u64, ty: Type, flags: MemFlags) -> Result<[u64; 2], Stop> {
        self.log.push(Event::Load(addr, ty, flags));
        let value = self.read(self.place(addr, ty)?, ty);
        Ok([value as u64, (value >> 64) as u64])
    }

    fn store(&mut self, addr: u64, ty: Type, value: [u64; 2], flags: MemFlags) -> Result<(), Stop> {
        let high = if ty == Type::V128 { value[1] } else { 0 };
        self.log.push(Event::Store(addr, ty, [value[0] & ty.mask(), high], flags));
        let at = self.place(addr, ty)?;
        let changed = self.write(at, ty, u128::from(value[0]) | u128::from(high) << 64);
        if changed { Err(Stop::CodeChanged) } else { Ok(()) }
    }

    fn rmw(&mut self, kind: RmwKind, addr: u64, ty: Type, operand: u64) -> Result<(u64, bool), Stop> {
        self.log.push(Event::Rmw(kind, addr, ty, operand));
        let at = self.place(addr, ty)?;
        let old = self.read(at, ty) as u64;
        Ok((old, self.write(at, ty, kind.apply(old, operand).into())))
    }

    fn cas(&mut self, addr: u64, ty: Type, expected: u64, new: u64) -> Result<(u64, bool), Stop> {
        self.log.push(Event::Cas(addr, ty, expected, new));
        let at = self.place(addr, ty)?;
        let old = self.read(at, ty) as u64;
        Ok((old, old == expected && self.write(at, ty, new.into())))
    }

    fn call(&mut self, helper: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop> {
        let effects = helper_effects(helper);
        if effects.contains(Effects::CONDITIONAL) && args[0] == 0 {
            return Ok(args[1]);
        }
        let env = effects.contains(Effects::READ_ENV).then(|| self.env.clone());
        let mut state = u64::from(helper) << 32 | u64::from(arg);
        for part in args.into_iter().chain(env.iter().flatten().map(|&byte| byte.into())) {
            state ^= part;
            mix(&mut state);
        }
        self.log.push(Event::Call(helper, args, arg, env));
        if effects.contains(Effects::FAULT) && mix(&mut state).is_multiple_of(8) {
            return Err(Stop::Fault);
        }
        if effects.contains(Effects::WRITE_ENV) {
            for _ in 0..4 {
                let at = mix(&mut state) as usize % ENV_SIZE;
                self.env[at] = mix(&mut state) as u8;
            }
        }
        if effects.contains(Effects::MEMORY) {
            let at = mix(&mut state) as usize % (MEM_SIZE - 8);
            if self.write(at, Type::I64, mix(&mut state).into()) {
                return Err(Stop::CodeChanged);
            }
        }
        Ok(mix(&mut state))
    }

    fn float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128 {
        let [a, b, c] = operands;
        if info.kind.row().op == Op::Float {
            self.log.push(Event::Float(info, operands));
        }
        let mut state = info.encode() ^ a as u64 ^ ((a >> 64) as u64).rotate_left(7) ^ (b as u64).rotate_left(17);
        state ^= ((b >> 64) as u64).rotate_left(31) ^ (c as u64).rotate_left(41) ^ ((c >> 64) as u64).rotate_left(53);
        let row = info.kind.row();
        let low = mix(&mut state);
        if row.ty == Type::V128 {
            u128::from(low) | u128::from(mix(&mut state)) << 64
        } else {
            (low & row.ty.mask()).into()
        }
    }

    fn trap(&mut self, code: u64) {
        self.log.push(Event::Trap(code));
    }
}

/// A [`EnvSlot`] for each aligned place in a generated block's env, of every type.
pub fn env_slots() -> impl Iterator<Item = EnvSlot> {
    Type::ALL
        .into_iter()
        .flat_map(|ty| (0..ENV_SIZE as u32 / ty.bytes()).map(move |n| EnvSlot { offset: (n * ty.bytes()) as u16, ty }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough bytes for every op to appear, from a fixed seed.
    fn bytes(seed: u64) -> Vec<u8> {
        let mut state = seed;
        (0..1500).map(|_| (mix(&mut state) >> 24) as u8).collect()
    }

    #[test]
    fn every_op_and_slot_is_generated() {
        let blocks: Vec<Block> = (0..2000).map(|seed| block(&bytes(seed))).collect();
        let insts: Vec<&Inst> = blocks.iter().flat_map(|b| &b.insts).collect();
        for &op in Op::ALL {
            assert!(insts.iter().any(|i| i.op == op), "{op:?}");
        }
        for &kind in VecKind::ALL {
            let op = kind.row().op;
            let found = |i: &&Inst| i.op == op && i.vec_info().is_some_and(|info| info.kind == kind);
            assert!(insts.iter().any(found), "{kind:?}");
        }
        for slot in env_slots() {
            assert!(insts.iter().any(|i| i.op == Op::LoadEnv && i.ty == slot.ty && i.c == slot.offset), "{slot:?}");
        }
    }

    #[test]
    fn no_bytes_make_the_smallest_block() {
        assert_eq!(block(&[]).insts.len(), 1);
    }
}
