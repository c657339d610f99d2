//! Random blocks: compiled code and the interpreter must agree on all of them.

use mimus_ir::op::{JumpKind, RmwKind, Shape};
use mimus_ir::{Block, Builder, Inst, MemFlags, NONE, Op, Type, Value};

use crate::toy::{How, INTS, PAGE, RAM, Random, Toy, call, conditional_call, reg, wide};

fn int(random: &mut Random) -> Type {
    INTS[random.below(4) as usize]
}

/// An address: mostly within ordinary pages, sometimes anywhere. Never near the watched page, where the tiers
/// differ by design.
fn address(b: &mut Builder, random: &mut Random, value: Value) -> Value {
    if random.below(12) == 0 {
        let page = [2, 3, 4][random.below(3) as usize];
        return b.iconst(Type::I64, RAM + page * PAGE + random.below(PAGE - 40));
    }
    let offset = b.binary_imm(Op::AndI, Type::I64, value, 2 * PAGE - 1);
    let addr = b.binary_imm(Op::AddI, Type::I64, offset, RAM);
    if random.below(2) == 0 { b.binary_imm(Op::AndI, Type::I64, addr, !7) } else { addr }
}

/// A random block of up to ten instructions.
pub fn block(random: &mut Random) -> Block {
    let pc = random.next() & !0xfff | random.below(0xf00);
    let mut b = Builder::new(pc);
    let count = 1 + random.below(10);
    for i in 0..count {
        b.insn(pc + 4 * i, 4);
        let mut values: Vec<Value> = Vec::new();
        for _ in 0..2 + random.below(2) {
            values.push(b.load_env(reg(random.below(16) as u16, int(random))));
        }
        for _ in 0..1 + random.below(6) {
            let pick = |random: &mut Random| values[random.below(values.len() as u64) as usize];
            let (x, y, z) = (pick(random), pick(random), pick(random));
            let value = step(&mut b, random, [x, y, z]);
            values.extend(value);
        }
        let last = values[values.len() - 1];
        b.store_env(reg(random.below(16) as u16, int(random)), last);
    }
    let last = b.load_env(reg(random.below(16) as u16, int(random)));
    let target = if random.below(3) == 0 { random.next() } else { pc & !0xfff | random.below(PAGE) };
    match random.below(5) {
        0 => b.exit(random.next()),
        1 => b.jump_ind(JumpKind::Plain, last),
        2 => b.jump(target),
        _ => b.branch(last, target),
    }
    b.finish(pc + 4 * count)
}

/// One random op on integer operands; its value, if that is an integer.
pub fn step(b: &mut Builder, random: &mut Random, [x, y, z]: [Value; 3]) -> Option<Value> {
    let ty = int(random);
    match random.below(16) {
        0 => {
            let addr = address(b, random, x);
            let flags = MemFlags::from_bits_retain(random.below(4) as u8);
            Some(b.load(ty, addr, random.below(16) as i32 - 8, flags))
        }
        1 => {
            let addr = address(b, random, x);
            b.store(ty, addr, random.below(16) as i32, y, MemFlags::empty());
            None
        }
        2 if random.below(2) == 0 => {
            let addr = address(b, random, x);
            let kind = RmwKind::ALL[random.below(5) as usize];
            Some(b.rmw(kind, ty, addr, y))
        }
        2 => {
            let addr = address(b, random, x);
            Some(b.cas(ty, addr, y, z))
        }
        3 => {
            let addr = address(b, random, x);
            let n = random.below(4) as u16;
            if random.below(2) == 0 {
                let v = b.load(Type::V128, addr, 0, MemFlags::empty());
                b.store_env(wide(n), v);
            } else {
                let v = b.load_env(wide(n));
                b.store(Type::V128, addr, 0, v, MemFlags::empty());
            }
            None
        }
        4 if random.below(3) == 0 => {
            let helper = random.below(3) as u16;
            let args = [x, if random.below(2) == 0 { NONE } else { y }, z];
            Some(call(b, ty, helper, helper == 2, args, random.next() as u32))
        }
        4 if random.below(3) == 0 => {
            let guard = b.binary_imm(Op::AndI, ty, x, random.below(3) << random.below(64));
            Some(conditional_call(b, ty, [guard, y, z], random.next() as u32))
        }
        4 if random.below(3) == 0 => {
            let cond = b.binary_imm(Op::EqI, ty, x, random.below(3));
            b.trap_if(cond, random.next());
            None
        }
        _ => Some(pure(b, random, ty, [x, y, z])),
    }
}

fn pure(b: &mut Builder, random: &mut Random, ty: Type, [x, y, z]: [Value; 3]) -> Value {
    loop {
        let op = Op::ALL[random.below(Op::ALL.len() as u64) as usize];
        let (c, imm) = match op.info().shape {
            Shape::Const => (NONE, random.operand() & ty.mask()),
            Shape::Pc if ty == Type::I64 => (NONE, random.operand()),
            Shape::Unary | Shape::Binary | Shape::Compare => (NONE, 0),
            Shape::BinaryImm | Shape::CompareImm => (NONE, random.operand() & ty.mask()),
            Shape::Extend => (int(random) as u16, 0),
            Shape::Select => (z, 0),
            Shape::Deposit | Shape::Extract => (NONE, random.below(64) | (1 + random.below(64)) << 8),
            Shape::Lea => (random.below(4) as u16, random.operand() & ty.mask()),
            _ => continue,
        };
        return b.push(Inst { op, ty, a: x, b: y, c, imm });
    }
}

#[test]
fn random_blocks_agree_with_the_interpreter() {
    let mut toy = Toy::new();
    let mut random = Random(0x1234_5678);
    let mut codes = [0; 6];
    for i in 0..1500u64 {
        let block = block(&mut random);
        let how = How {
            counted: i % 2 == 0,
            may_link: i % 5 != 0,
            link_slot: (i % 32) as u32,
            linear_offset: i % 3 * 64,
            region: false,
        };
        toy.env.header.pc_base = [0, 0x7fff_1234_5000, random.next() & !0xfff][(i % 3) as usize];
        let (entry, info) = toy.compile(&block, how);
        let quick = toy.compile_quick(&block, how);
        for j in 0..4 {
            let state = Toy::fresh(i * 4 + j + 1);
            let code = toy.same_again(&block, how, &state, entry, &info);
            codes[code as usize] += 1;
            if let Some((entry, info)) = &quick {
                assert_eq!(toy.same_again(&block, how, &state, *entry, info), code);
            }
        }
        if i % 7 == 0 {
            toy.machine.tlb.flush(false);
        }
    }
    let [link, indirect, main, stopped, requested, hot] = codes;
    assert!(link > 300 && indirect > 300 && main > 300 && stopped > 300 && requested + hot == 0, "{codes:?}");
    if toy.quick.is_some() {
        assert_eq!(toy.quick_blocks, [1500, 0]);
    }
}
