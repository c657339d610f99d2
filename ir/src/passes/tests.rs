use super::{Scratch, optimize};
use crate::block::{Block, Builder, EnvSlot, MemFlags};
use crate::op::{Op, Type};

fn optimized(mut block: Block) -> Block {
    optimize(&mut block, &mut Scratch::default());
    block
}

const A: EnvSlot = EnvSlot { offset: 0, ty: Type::I64 };
const B: EnvSlot = EnvSlot { offset: 8, ty: Type::I64 };

#[test]
fn stack_adjustments_become_one_displacement() {
    let mut b = Builder::new(0x1000);
    for pc in [0x1000, 0x1001] {
        b.insn(pc, 1);
        let sp = b.load_env(A);
        let eight = b.iconst(Type::I64, 8);
        let sp = b.binary(Op::Sub, Type::I64, sp, eight);
        let value = b.load_env(B);
        b.store(Type::I64, sp, 0, value, MemFlags::NONE);
        b.store_env(A, sp);
    }
    b.jump(0x1002);
    let block = optimized(b.finish(0x1002));
    let ops: Vec<Op> = block.insts.iter().map(|i| i.op).collect();
    use Op::*;
    assert_eq!(ops, [Insn, LoadEnv, AddI, LoadEnv, Store, StoreEnv, Insn, AddI, Store, StoreEnv, Jump]);
    assert_eq!(block.insts[8].mem_disp(), -16);
    assert_eq!(block.insts[8].a, 1);
}

#[test]
fn flags_hidden_by_the_next_instruction_are_not_stored() {
    let mut b = Builder::new(0x1000);
    for pc in [0x1000, 0x1001, 0x1002] {
        b.insn(pc, 1);
        let v = b.load_env(A);
        let v = b.binary_imm(Op::MulI, Type::I64, v, 3);
        b.store_env(A, v);
        b.store_env(B, v);
    }
    b.jump(0x1003);
    let block = optimized(b.finish(0x1003));
    assert_eq!(block.insts.iter().filter(|i| i.op == Op::StoreEnv).count(), 2);
}
