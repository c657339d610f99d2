//! Every op that computes, at every type, on edge and random operands.

use mimus_ir::op::Shape;
use mimus_ir::{Block, Builder, Inst, NONE, Op, Type, VecInfo, VecKind};

use crate::toy::{EDGES, How, INTS, Random, Toy, alone, one, reg, wide};

/// Blocks of up to eight ops, each from registers 0 to 2 into its own of 3 to 10, with the operands loaded as `from`.
fn check(toy: &mut Toy, from: Type, ops: &[Inst], random: &mut Random) {
    for chunk in ops.chunks(8) {
        let block = one(0x1000, |b: &mut Builder| {
            let operands: Vec<_> = (0..3).map(|i| b.load_env(reg(i, from))).collect();
            for (i, inst) in chunk.iter().enumerate() {
                let mut inst = *inst;
                inst.for_each_operand(|v| *v = operands[usize::from(*v)]);
                let result = b.push(inst);
                b.store_env(reg(3 + i as u16, Type::I64), result);
            }
        });
        let (entry, info) = toy.compile(&block, How::default());
        let mut state = Toy::fresh(1);
        let mut run = |toy: &mut Toy, regs: [u64; 3]| {
            state.regs[..3].copy_from_slice(&regs);
            toy.same_again(&block, How::default(), &state, entry, &info);
        };
        for a in EDGES {
            for b in EDGES {
                run(toy, [a, b, a ^ 1]);
            }
        }
        for _ in 0..60 {
            run(toy, [random.operand(), random.operand(), random.operand()]);
        }
    }
}

/// The forms of one op at one type that are tried.
fn forms(op: Op, ty: Type, random: &mut Random) -> Vec<Inst> {
    let base = Inst { op, ty, a: 0, b: 1, c: 2, imm: 0 };
    let imms = || {
        let mut imms = EDGES.map(|i| i & ty.mask()).to_vec();
        imms.sort_unstable();
        imms.dedup();
        imms
    };
    match op.info().shape {
        Shape::Unary | Shape::Binary | Shape::Compare | Shape::Select => vec![base],
        Shape::Extend => INTS.map(|from| Inst { c: from as u16, ..base }).to_vec(),
        Shape::BinaryImm | Shape::CompareImm => imms().into_iter().map(|imm| Inst { imm, ..base }).collect(),
        Shape::Pc => imms().into_iter().map(|imm| Inst { ty: Type::I64, imm, ..base }).collect(),
        Shape::Const => imms().into_iter().map(|imm| Inst { imm, ..base }).collect(),
        Shape::Deposit | Shape::Extract => {
            let fields = [
                (0, 8),
                (8, 8),
                (0, 16),
                (16, 16),
                (0, 32),
                (32, 32),
                (0, 1),
                (7, 1),
                (3, 7),
                (11, 20),
                (0, 64),
                (63, 1),
            ];
            fields.iter().map(|&(pos, len)| Inst { imm: pos | len << 8, ..base }).collect()
        }
        Shape::Lea => (0..12)
            .map(|i| Inst {
                c: i as u16 * 3 % 34,
                imm: if i % 3 == 0 { 0 } else { random.operand() & ty.mask() },
                ..base
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[test]
fn pure_ops_agree_with_the_interpreter() {
    let mut toy = Toy::new();
    toy.env.header.pc_base = 0x7fff_1234_5000;
    let mut random = Random(42);
    let mut tried = 0;
    for ty in INTS {
        let ops: Vec<Inst> = Op::ALL.iter().flat_map(|&op| forms(op, ty, &mut random)).collect();
        tried += ops.len();
        for from in INTS {
            check(&mut toy, from, &ops, &mut random);
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn every_op_is_either_pure_or_tested_elsewhere() {
    let mut random = Random(1);
    for &op in Op::ALL {
        let elsewhere = matches!(
            op.info().shape,
            Shape::LoadEnv
                | Shape::StoreEnv
                | Shape::StoreEnvImm
                | Shape::Load
                | Shape::Store
                | Shape::Rmw
                | Shape::Cas
                | Shape::Fence
                | Shape::Call
                | Shape::Vec
                | Shape::TrapIf
                | Shape::Insn
                | Shape::Jump
                | Shape::Branch
                | Shape::JumpInd
                | Shape::Exit
        );
        assert_eq!(forms(op, Type::I32, &mut random).is_empty(), elsewhere, "{op:?}");
    }
}

/// A block with one vector operation on the wide registers 0 to 2 and register 0, its result in wide register 3 or
/// register 1.
pub fn vector_block(info: VecInfo) -> Block {
    let row = info.kind.row();
    one(0x1000, |b| {
        let mut n = 0;
        let operands = row.shape.operands().map(|operand| match operand {
            Some(true) => {
                n += 1;
                b.load_env(wide(n - 1))
            }
            Some(false) => b.load_env(reg(0, Type::I64)),
            None => NONE,
        });
        let value = b.vec(info.kind, info.imm, operands);
        b.store_env(if row.ty == Type::V128 { wide(3) } else { reg(1, Type::I64) }, value);
    })
}

#[test]
fn vector_operations_agree_with_the_interpreter() {
    let mut toy = Toy::new();
    let mut random = Random(7);
    for &kind in VecKind::ALL.iter().filter(|k| k.row().op == Op::Vec) {
        let immediates = kind.row().immediates;
        let step = if immediates > 16 { 7 } else { 1 };
        for imm in (0..immediates).filter(|i| i % step == 0 || *i < 40) {
            let block = vector_block(VecInfo { kind, imm: imm as u8 });
            let (entry, info) = toy.compile(&block, How::default());
            for _ in 0..40 {
                let mut state = Toy::fresh(random.next() | 1);
                for wide in &mut state.wide {
                    *wide = [random.operand(), random.operand()];
                    // Equal lanes, and shift counts around the lanes' widths.
                    if random.below(3) == 0 {
                        wide[0] = random.below(70);
                    }
                    if random.below(3) == 0 {
                        wide[1] = wide[0];
                    }
                }
                if random.below(3) == 0 {
                    state.wide[1] = state.wide[0];
                }
                toy.same_again(&block, How::default(), &state, entry, &info);
            }
        }
    }
}

#[test]
fn constants_are_used_in_any_type() {
    let mut toy = Toy::new();
    for value in EDGES {
        for ty in INTS {
            let block = one(0x1000, |b| {
                let c = b.iconst(ty, value);
                for (i, to) in INTS.into_iter().enumerate() {
                    b.store_env(reg(i as u16, to), c);
                    let sum = b.binary(Op::Add, to, c, c);
                    b.store_env(reg(4 + i as u16, Type::I64), sum);
                    let signed = b.extend(Op::Sext, Type::I64, to, c);
                    b.store_env(reg(8 + i as u16, Type::I64), signed);
                }
            });
            toy.same(&block, How::default(), &Toy::fresh(value));
        }
    }
}

#[test]
fn env_is_read_and_written_at_every_type() {
    let mut toy = Toy::new();
    let block = one(0x1000, |b| {
        for (i, ty) in INTS.into_iter().enumerate() {
            let n = i as u16;
            let value = b.load_env(reg(n, ty));
            b.store_env(reg(4 + n, ty), value);
            b.store_env_imm(reg(8 + n, ty), 0x8182_8384_8586_8788);
        }
        let w = b.load_env(wide(0));
        b.store_env(wide(1), w);
        b.store_env_imm(wide(2), 0x1234_5678_9abc_def0);
        // The second byte of a register, as the x86 frontend would write AH.
        let mut high = reg(12, Type::I8);
        high.offset += 1;
        b.store_env_imm(high, 0x5a);
        let byte = b.load_env(high);
        b.store_env(reg(13, Type::I64), byte);
    });
    for seed in 1..20 {
        toy.same(&block, How::default(), &Toy::fresh(seed));
    }
    assert_eq!(toy.env.wide[1], Toy::fresh(19).wide[0]);
    assert_eq!(toy.env.regs[13], 0x5a);
}

#[test]
fn malformed_blocks_are_rejected() {
    let mut toy = Toy::new();
    let mut rejected = |what: &str, body: &dyn Fn(&mut Builder)| {
        let mut b = Builder::new(0);
        body(&mut b);
        let block = b.finish(4);
        let mut code = Vec::new();
        let result = toy.compiler.compile(Toy::request(&alone(&block), How::default()), &mut code);
        assert!(result.is_err(), "{what}");
        // The compiler is usable afterwards.
        let good = one(0, |b| b.store_env_imm(reg(0, Type::I64), 1));
        toy.compiler.compile(Toy::request(&alone(&good), How::default()), &mut code).unwrap();
    };
    rejected("empty", &|_| {});
    rejected("no terminator", &|b| b.insn(0, 1));
    rejected("two terminators", &|b| {
        b.exit(0);
        b.exit(0);
    });
    rejected("operand defined later", &|b| {
        b.unary(Op::Neg, Type::I32, 5);
        b.exit(0);
    });
    rejected("absent operand", &|b| {
        b.unary(Op::Neg, Type::I32, NONE);
        b.exit(0);
    });
    rejected("operand without a value", &|b| {
        b.insn(0, 1);
        b.unary(Op::Neg, Type::I32, 0);
        b.exit(0);
    });
    rejected("128-bit arithmetic", &|b| {
        let v = b.load_env(wide(0));
        b.unary(Op::Neg, Type::V128, v);
        b.exit(0);
    });
    rejected("128-bit value as an integer", &|b| {
        let v = b.load_env(wide(0));
        b.unary(Op::Neg, Type::I64, v);
        b.exit(0);
    });
    rejected("integer as a 128-bit value", &|b| {
        let v = b.load_env(reg(0, Type::I64));
        b.store_env(wide(0), v);
        b.exit(0);
    });
    rejected("extension from 128 bits", &|b| {
        let v = b.load_env(reg(0, Type::I64));
        b.extend(Op::Zext, Type::I64, Type::V128, v);
        b.exit(0);
    });
    rejected("no such vector operation", &|b| {
        b.push(Inst { op: Op::Vec, ty: Type::V128, a: NONE, b: NONE, c: NONE, imm: 0xffff });
        b.exit(0);
    });
    rejected("vector operation of another type", &|b| {
        let imm = VecInfo { kind: VecKind::Zero, imm: 0 }.encode();
        b.push(Inst { op: Op::Vec, ty: Type::I64, a: NONE, b: NONE, c: NONE, imm });
        b.exit(0);
    });
    rejected("link slot 2", &|b| {
        b.push(Inst { op: Op::Jump, ty: Type::I64, a: NONE, b: NONE, c: 2, imm: 0 });
    });
}
