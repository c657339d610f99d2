//! Every op lowers for every host: compiled, not run.
#![cfg(feature = "all-arch")]

use mimus_backend::{Compiler, HostIsa};
use mimus_ir::op::{JumpKind, RmwKind, Shape};
use mimus_ir::{Block, Builder, Inst, MemFlags, NONE, Op, Type, VecInfo, VecKind};

use crate::random;
use crate::toy::{How, INTS, Random, Toy, alone, call, conditional_call, one, reg, wide};

const HOSTS: [&str; 4] = ["x86_64", "aarch64", "riscv64gc", "s390x"];

/// A block for each op and type.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for &op in Op::ALL {
        for ty in Type::ALL {
            for from in INTS {
                blocks.extend(block(op, ty, from));
            }
        }
    }
    for &kind in VecKind::ALL {
        let immediates = kind.row().immediates;
        for imm in (0..immediates).filter(|i| i % 17 == 0 || *i == 3) {
            blocks.push(crate::ops::vector_block(VecInfo { kind, imm: imm as u8 }));
        }
    }
    let mut random = Random(3);
    blocks.extend((0..200).map(|_| random::block(&mut random)));
    blocks.extend((0..200).map(|_| {
        let bytes: Vec<u8> = (0..random.below(900)).map(|_| random.next() as u8).collect();
        mimus_ir::testing::block(&bytes)
    }));
    blocks
}

fn block(op: Op, ty: Type, from: Type) -> Option<Block> {
    let int = ty != Type::V128;
    let shape = op.info().shape;
    let memory = matches!(shape, Shape::LoadEnv | Shape::StoreEnv | Shape::StoreEnvImm | Shape::Load | Shape::Store);
    if !int && !memory || shape == Shape::Pc && ty != Type::I64 {
        return None;
    }
    let slot = |n| if int { reg(n, ty) } else { wide(n) };
    let pure = |b: &mut Builder, c, imm| {
        let x = b.load_env(reg(0, from));
        let y = b.load_env(reg(1, from));
        let c = if shape == Shape::Select { y } else { c };
        let value = b.push(Inst { op, ty, a: x, b: y, c, imm });
        b.store_env(reg(2, Type::I64), value);
    };
    let body = |b: &mut Builder| {
        let x = b.load_env(reg(0, from));
        let y = b.load_env(reg(1, from));
        match shape {
            Shape::Const | Shape::Pc | Shape::Unary | Shape::Binary | Shape::Compare | Shape::Select => {
                pure(b, NONE, 0)
            }
            Shape::BinaryImm | Shape::CompareImm => pure(b, NONE, 0x8765_4321_8765_4321 & ty.mask()),
            Shape::Extend => INTS.iter().for_each(|&t| pure(b, t as u16, 0)),
            Shape::Deposit | Shape::Extract => [0x800, 0x808, 0x705].iter().for_each(|&f| pure(b, NONE, f)),
            Shape::Lea => (0..4).for_each(|s| pure(b, s, 0x1_0000_0000 & ty.mask())),
            Shape::LoadEnv | Shape::StoreEnv => {
                let v = b.load_env(slot(0));
                b.store_env(slot(1), v);
            }
            Shape::StoreEnvImm => b.store_env_imm(slot(1), 0x1234_5678_9abc),
            Shape::Load | Shape::Store => {
                for flags in [MemFlags::empty(), MemFlags::RELAXED, MemFlags::FOR_WRITE] {
                    let v = b.load(ty, x, 0x12345, flags);
                    b.store(ty, y, -3, v, flags);
                }
            }
            Shape::Rmw => RmwKind::ALL.iter().for_each(|&kind| {
                let v = b.rmw(kind, ty, x, y);
                b.store_env(slot(1), v);
            }),
            Shape::Cas => {
                let v = b.cas(ty, x, y, x);
                b.store_env(slot(1), v);
            }
            Shape::Fence => b.fence(),
            Shape::Call => {
                let v = call(b, ty, 300, true, [x, NONE, y], 0x8000_0001);
                let v = conditional_call(b, ty, [x, v, y], 1);
                b.store_env(slot(1), v);
            }
            Shape::TrapIf => b.trap_if(x, 0xffff_0000_1111),
            // In `blocks`, by the vector table.
            Shape::Vec => {}
            Shape::Insn | Shape::Jump | Shape::Branch | Shape::JumpInd | Shape::Exit => {}
        }
        x
    };
    let pc = 0x7fff_1234_5000;
    Some(match shape {
        Shape::Jump | Shape::Branch | Shape::JumpInd => {
            let mut b = Builder::new(pc);
            b.insn(pc, 4);
            let x = body(&mut b);
            match shape {
                Shape::Jump => b.jump(pc),
                Shape::Branch => b.branch(x, pc + 0x4000),
                _ => b.jump_ind(JumpKind::Plain, x),
            }
            b.finish(pc + 4)
        }
        _ => one(pc, |b| {
            body(b);
        }),
    })
}

#[test]
fn every_op_lowers_for_every_host() {
    let blocks = blocks();
    for name in HOSTS {
        let mut compiler = Compiler::new(HostIsa::named(name).unwrap());
        let mut code = Vec::new();
        let mut total = 0;
        for (i, block) in blocks.iter().enumerate() {
            let how = How { counted: i % 2 == 0, ..How::default() };
            // Relocations, traps and unknown instructions are errors.
            if let Err(error) = compiler.compile(Toy::request(&alone(block), how), &mut code) {
                panic!("{name}: {error} in {block:x?}");
            }
            total += code.len();
        }
        assert!(total > 50 * blocks.len(), "{name}: {total} bytes");
    }
}
