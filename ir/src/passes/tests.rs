//! Golden tests: a block before and after the passes, in `snapshots/`.

use super::equivalence::check;
use super::{Scratch, optimize};
use crate::block::Block;
use crate::testing::ENV_SIZE;
use crate::text::parse;
use crate::verify::verify;

fn golden(name: &str, body: &str) {
    let head = "block pc=0x1000 fallthrough=0x100c insns=3 bytes=12\ninsn 0x1000, len=4\n";
    let block = parse(&format!("{head}{body}")).unwrap();
    assert_eq!(verify(&block, ENV_SIZE), Ok(()));
    let after = check(&block, &mut Scratch::default(), &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    insta::assert_snapshot!(name, format!("{block}=>\n{after}"));
}

macro_rules! goldens {
    ($($name:ident $body:literal;)*) => { $(
        #[test]
        fn $name() {
            golden(stringify!($name), $body);
        }
    )* };
}

goldens! {
    binary_with_constant_becomes_immediate "
        v1 = ldenv.i32 [0x0]
        v2 = const.i64 0x1ffffffff
        v3 = and.i64 v2, v1
        v4 = const.i8 0x21
        v5 = shl.i32 v1, v4
        v6 = sub.i32 v1, v4
        v7 = ult.i32 v1, v4
        v8 = ult.i32 v4, v1
        v9 = call.i64 v3, v5, v6, helper=1
        v10 = call.i64 v7, v8, -, helper=2
        exit 0x0
    ";
    constants_fold "
        v1 = const.i8 0xff
        v2 = const.i64 0x100000001
        v3 = add.i8 v1, v2
        v4 = add.i16 v1, v2
        v5 = sext.i32 v1, from=i8
        v6 = umulhi.i32 v2, v5
        v7 = deposit.i32 v5, v3, pos=4, len=8
        v8 = extract.i32 v7, pos=4, len=12
        v9 = slt.i8 v1, v3
        v10 = lea.i32 v2, v1, shift=2, disp=0x7
        v11 = bswap.i16 v1
        stenv.i8 [0x0], v3
        stenv.i16 [0x2], v4
        stenv.i32 [0x4], v5
        stenv.i32 [0x8], v6
        stenv.i32 [0xc], v8
        stenv.i8 [0x10], v9
        stenv.i32 [0x14], v10
        stenv.i64 [0x18], v11
        exit 0x0
    ";
    identities "
        v1 = ldenv.i32 [0x0]
        v2 = ldenv.i32 [0x4]
        v3 = xor.i32 v1, v1
        v4 = and.i32 v2, v2
        v5 = or.i.i32 v4, 0x0
        v6 = and.i.i32 v5, 0x0
        v7 = rotl.i.i32 v5, 0x20
        v8 = mul.i.i32 v7, 0x8
        v9 = mul.i.i32 v7, 0x1
        v10 = ule.i32 v1, v1
        v11 = shr.i.i64 v9, 0x20
        v12 = or.i.i16 v9, 0xffff
        v13 = sub.i32 v3, v2
        v14 = call.i64 v3, v6, v8, helper=1
        v15 = call.i64 v9, v10, v11, helper=1
        v16 = call.i64 v12, v13, -, helper=1
        exit 0x0
    ";
    narrow_identities_truncate "
        v1 = ldenv.i64 [0x0]
        v2 = add.i.i32 v1, 0x0
        v3 = or.i16 v1, v1
        v4 = and.i.i8 v1, 0xff
        v5 = add.i.i64 v4, 0x0
        v6 = call.i64 v2, v3, v5, helper=1
        exit 0x0
    ";
    extensions_of_narrow_values "
        v1 = ldenv.i8 [0x0]
        v2 = zext.i32 v1, from=i8
        v3 = zext.i64 v2, from=i32
        v4 = and.i.i64 v3, 0xffff
        v5 = ult.i.i64 v4, 0x10
        v6 = sext.i64 v5, from=i8
        v7 = sext.i64 v1, from=i8
        v8 = zext.i64 v7, from=i32
        v9 = zext.i64 v8, from=i16
        v10 = sext.i32 v9, from=i32
        v11 = sext.i64 v8, from=i16
        v12 = call.i64 v4, v6, v8, helper=1
        v13 = call.i64 v9, v10, v11, helper=1
        exit 0x0
    ";
    add_chains "
        v1 = ldenv.i64 [0x0]
        v2 = add.i.i64 v1, 0x10
        v3 = sub.i.i64 v2, 0x8
        v4 = add.i.i32 v3, 0xffffffff
        v5 = add.i.i64 v4, 0x1
        v6 = sub.i.i64 v3, 0x8
        v7 = call.i64 v3, v4, v5, helper=1
        v8 = call.i64 v6, -, -, helper=1
        exit 0x0
    ";
    addresses_take_the_constant "
        v1 = ldenv.i64 [0x0]
        v2 = add.i.i64 v1, 0x7ffffff0
        v3 = load.i8 v2, disp=0xf
        v4 = load.i8 v2, disp=0x10
        v5 = sub.i.i64 v1, 0x80
        v6 = load.i64 v5, flags=for_write
        store.i64 v5, v6, disp=0x78, flags=relaxed
        v8 = add.i.i32 v1, 0x4
        v9 = load.i8 v8
        v10 = add.i.i64 v9, 0x4
        store.i16 v10, v10
        exit 0x0
    ";
    lea_forms "
        v1 = ldenv.i64 [0x0]
        v2 = ldenv.i64 [0x8]
        v3 = const.i64 0x10
        v4 = lea.i64 v1, v3, shift=2, disp=0x4
        v5 = lea.i64 v3, v1, shift=0, disp=0x4
        v6 = lea.i64 v3, v1, shift=3, disp=0xfffffffffffffff0
        v7 = lea.i64 v1, v2, shift=0, disp=0x0
        v8 = lea.i64 v4, v5, shift=3, disp=0x1
        v9 = lea.i32 v3, v1, shift=3, disp=0x0
        v10 = call.i64 v4, v5, v6, helper=1
        v11 = call.i64 v7, v8, v9, helper=1
        v12 = lea.i8 v3, v1, shift=8, disp=0xf0
        v13 = lea.i8 v3, v1, shift=7, disp=0xf0
        v14 = call.i64 v12, v13, -, helper=1
        exit 0x0
    ";
    comparisons_decided_by_width "
        v1 = ldenv.i8 [0x0]
        v2 = eq.i.i32 v1, 0x100
        v3 = ult.i.i32 v1, 0x100
        v4 = ult.i.i32 v1, 0xff
        v5 = ule.i.i32 v1, 0xff
        v6 = ult.i.i64 v1, 0x0
        v7 = slt.i.i8 v1, 0x0
        v8 = ne.i.i64 v7, 0x0
        v9 = call.i64 v2, v3, v4, helper=1
        v10 = call.i64 v5, v6, v8, helper=1
        v11 = ule.i.i32 v1, 0xfe
        v12 = ne.i.i32 v1, 0xff
        v13 = ne.i.i32 v1, 0x1ff
        v14 = call.i64 v11, v12, v13, helper=1
        exit 0x0
    ";
    conditions_invert "
        v1 = ldenv.i64 [0x0]
        v2 = ldenv.i64 [0x8]
        v3 = ult.i64 v1, v2
        v4 = eq.i.i8 v3, 0x0
        v5 = eq.i.i64 v1, 0x5
        v6 = ne.i.i8 v5, 0x1
        v7 = slt.i.i32 v1, 0x5
        v8 = eq.i.i8 v7, 0x0
        v9 = call.i64 v4, v6, v8, helper=1
        exit 0x0
    ";
    inverted_conditions_are_comparisons "
        v1 = ldenv.i64 [0x0]
        v2 = ldenv.i64 [0x8]
        v3 = eq.i32 v1, v2
        v4 = xor.i.i8 v3, 0x1
        v5 = slt.i.i32 v1, 0x5
        v6 = xor.i.i8 v5, 0x1
        v7 = xor.i.i8 v1, 0x1
        v8 = call.i64 v4, v6, v7, helper=1
        exit 0x0
    ";
    selects "
        v1 = ldenv.i64 [0x0]
        v2 = ldenv.i64 [0x8]
        v3 = const.i64 0x100
        v4 = select.i32 v3, v1, v2
        v5 = const.i8 0x1
        v6 = const.i8 0x0
        v7 = eq.i64 v1, v2
        v8 = ne.i.i8 v7, 0x0
        v9 = select.i64 v8, v5, v6
        v10 = select.i64 v7, v1, v1
        v11 = ne.i.i64 v1, 0x0
        v12 = select.i64 v11, v1, v2
        v13 = call.i64 v4, v9, v10, helper=1
        v14 = call.i64 v12, -, -, helper=1
        v15 = and.i.i32 v1, 0x1ff
        v16 = ne.i.i32 v15, 0x0
        v17 = select.i64 v16, v1, v2
        v18 = and.i.i32 v1, 0xfe
        v19 = ne.i.i32 v18, 0x0
        v20 = select.i64 v19, v1, v2
        v21 = call.i64 v17, v20, -, helper=1
        exit 0x0
    ";
    whole_width_fields "
        v1 = ldenv.i64 [0x0]
        v2 = ldenv.i64 [0x8]
        v3 = deposit.i64 v1, v2, pos=0, len=64
        v4 = deposit.i32 v1, v2, pos=0, len=32
        v5 = deposit.i64 v1, v2, pos=0, len=32
        v6 = extract.i64 v1, pos=0, len=64
        v7 = extract.i64 v4, pos=0, len=32
        v8 = extract.i64 v4, pos=32, len=8
        v9 = call.i64 v3, v4, v5, helper=1
        v10 = call.i64 v6, v7, v8, helper=1
        v11 = extract.i64 v4, pos=31, len=2
        v12 = extract.i64 v4, pos=0, len=31
        v13 = call.i64 v11, v12, -, helper=1
        exit 0x0
    ";
    what_was_deposited_low_is_taken_from_there "
        v1 = ldenv.i64 [0x0]
        v2 = load.i8 v1
        v3 = deposit.i64 v1, v2, pos=0, len=8
        v4 = zext.i32 v3, from=i8
        v5 = sext.i64 v3, from=i8
        v6 = sext.i64 v3, from=i16
        v7 = call.i64 v4, v5, v6, helper=1
        v8 = deposit.i64 v1, v7, pos=0, len=16
        v9 = sub.i16 v8, v3
        v10 = shl.i8 v8, v8
        v11 = slt.i.i16 v8, 0x7
        v12 = call.i64 v9, v10, v11, helper=1
        v13 = deposit.i64 v1, v7, pos=8, len=8
        v14 = and.i.i8 v13, 0x3
        v15 = add.i.i8 v8, 0x3
        v16 = add.i.i32 v8, 0x3
        v17 = call.i64 v14, v15, v16, helper=1
        exit 0x0
    ";
    env_loads_take_the_stored_value "
        v1 = ldenv.i64 [0x0]
        v2 = load.i32 v1
        stenv.i64 [0x8], v2
        v4 = ldenv.i64 [0x8]
        stenv.i32 [0x10], v1
        v6 = ldenv.i32 [0x10]
        stenv.i.i16 [0x14], 0x1234
        v8 = ldenv.i16 [0x14]
        v9 = ldenv.i64 [0x0]
        v10 = call.i64 v4, v6, v8, helper=1
        v11 = call.i64 v9, -, -, helper=1
        exit 0x0
    ";
    env_slots_that_overlap "
        v1 = ldenv.i64 [0x0]
        stenv.i8 [0x1], v1
        v3 = ldenv.i64 [0x0]
        v4 = ldenv.i8 [0x1]
        stenv.i64 [0x0], v1
        v6 = ldenv.i8 [0x1]
        v7 = ldenv.i32 [0x0]
        v8 = ldenv.v128 [0x10]
        stenv.i64 [0x18], v1
        v10 = ldenv.v128 [0x10]
        stenv.v128 [0x20], v10
        v12 = ldenv.i64 [0x20]
        stenv.v128 [0x30], v8
        v14 = ldenv.v128 [0x30]
        store.v128 v1, v14
        v16 = call.i64 v3, v4, v6, helper=1
        v17 = call.i64 v7, v12, -, helper=1
        exit 0x0
    ";
    calls_that_write_env_end_what_is_known "
        v1 = ldenv.i64 [0x0]
        v2 = call.i64 v1, -, -, helper=1, effects=read_env
        v3 = ldenv.i64 [0x0]
        v4 = call.i64 v3, -, -, helper=2, effects=write_env
        v5 = ldenv.i64 [0x0]
        v6 = call.i64 v5, -, -, helper=1
        exit 0x0
    ";
    stores_of_what_env_holds "
        v1 = ldenv.i64 [0x0]
        stenv.i64 [0x0], v1
        stenv.i.i32 [0x8], 0x7
        v4 = load.i8 v1
        stenv.i.i32 [0x8], 0x7
        stenv.i8 [0x8], v4
        stenv.i.i32 [0x8], 0x7
        exit 0x0
    ";
    hidden_stores "
        v1 = ldenv.i64 [0x0]
        stenv.i64 [0x0], v1
        stenv.i.i64 [0x8], 0x1
        stenv.i.i32 [0x10], 0x1
        stenv.i.i32 [0x14], 0x1
        insn 0x1004, len=4
        stenv.i.i64 [0x8], 0x2
        stenv.i.i64 [0x10], 0x2
        stenv.i.i8 [0x18], 0x2
        stenv.i.i64 [0x18], 0x3
        stenv.i.i8 [0x18], 0x4
        exit 0x0
    ";
    faults_observe_env "
        v1 = ldenv.i64 [0x0]
        stenv.i.i64 [0x8], 0x1
        v3 = load.i64 v1
        stenv.i.i64 [0x8], 0x2
        v5 = eq.i.i64 v3, 0x0
        trap_if v5, code=0x0
        stenv.i.i64 [0x8], 0x3
        v8 = call.i64 -, -, -, helper=4, effects=fault
        stenv.i.i64 [0x8], 0x4
        v10 = call.i64 -, -, -, helper=1, effects=read_env
        stenv.i.i64 [0x8], 0x5
        v12 = call.i64 -, -, -, helper=2, effects=write_env
        stenv.i.i64 [0x8], 0x6
        v14 = call.i64 -, -, -, helper=0
        stenv.i.i64 [0x8], 0x7
        v16 = call.i64 -, -, -, helper=8, effects=memory
        stenv.i.i64 [0x8], 0x8
        exit 0x0
    ";
    marker_after_a_store_observes_env "
        v1 = ldenv.i64 [0x0]
        store.i64 v1, v1
        stenv.i.i64 [0x8], 0x1
        insn 0x1004, len=4
        stenv.i.i64 [0x8], 0x2
        insn 0x1008, len=4
        stenv.i.i64 [0x8], 0x3
        exit 0x0
    ";
    vectors_made_and_taken_apart "
        v1 = ldenv.i64 [0x0]
        v2 = vec.v128 v1, -, -, kind=from.i32
        v3 = vec.i32 v2, -, -, kind=extract.i32x4
        v4 = vec.i64 v2, -, -, kind=extract.i64x2
        v5 = ldenv.v128 [0x10]
        v6 = vec.v128 v5, v1, -, kind=insert.i64x2, imm=0x1
        v7 = vec.i64 v6, -, -, kind=extract.i64x2, imm=0x1
        v8 = vec.i64 v6, -, -, kind=extract.i64x2
        stenv.v128 [0x10], v6
        v10 = ldenv.v128 [0x10]
        v11 = vec.v128 v10, v6, -, kind=xor
        v12 = vec.v128 v10, v6, -, kind=eq.i16x8
        v13 = vec.v128 v11, v11, -, kind=or
        v14 = vec.v128 v12, v13, -, kind=add.i32x4
        stenv.v128 [0x20], v14
        v16 = call.i64 v3, v4, v7, helper=1
        v17 = call.i64 v8, -, -, helper=1
        exit 0x0
    ";
    float_flags_are_kept "
        v1 = ldenv.v128 [0x0]
        v2 = ldenv.v128 [0x10]
        v3 = float.v128 v1, v2, -, kind=add.f64
        v4 = float_test.i8 v1, v2, -, kind=test.f64, imm=0x1
        stenv.v128 [0x0], v3
        v6 = vec.v128 v3, v3, -, kind=xor
        v7 = float.v128 v1, v2, -, kind=mul.f32x4
        stenv.v128 [0x0], v6
        exit 0x0
    ";
    alignments_are_checked_once "
        v1 = ldenv.i64 [0x0]
        v2 = add.i.i64 v1, 0x10
        v3 = and.i.i8 v2, 0xf
        v4 = ne.i.i8 v3, 0x0
        trap_if v4, code=0x1
        v6 = load.v128 v2
        v7 = add.i.i64 v1, 0x20
        v8 = and.i.i8 v7, 0xf
        v9 = ne.i.i8 v8, 0x0
        trap_if v9, code=0x1
        v11 = load.v128 v7
        v12 = and.i.i8 v1, 0xf
        trap_if v12, code=0x1
        v14 = add.i.i64 v1, 0x8
        v15 = and.i.i8 v14, 0xf
        trap_if v15, code=0x1
        v17 = and.i.i8 v14, 0x7
        trap_if v17, code=0x1
        exit 0x0
    ";
    unused_ops "
        v1 = ldenv.i64 [0x0]
        v2 = ldenv.i64 [0x8]
        v3 = mul.i64 v1, v2
        v4 = load.i64 v1
        v5 = rmw.i64 v1, v2, kind=add
        v6 = call.i64 -, -, -, helper=0
        v7 = clz.i64 v3
        exit 0x0
    ";
    branch_of_a_constant_taken "
        v1 = const.i8 0x1
        branch v1, 0x2000
    ";
    branch_of_a_constant_not_taken "
        v1 = const.i64 0x100
        branch v1, 0x2000
    ";
    branch_on_a_comparison_with_0 "
        v1 = ldenv.i8 [0x0]
        v2 = ne.i.i64 v1, 0x0
        branch v2, 0x2000
    ";
    traps_of_a_constant "
        v1 = ldenv.i64 [0x0]
        stenv.i.i64 [0x8], 0x1
        v3 = xor.i64 v1, v1
        trap_if v3, code=0x1
        stenv.i.i64 [0x8], 0x2
        v6 = const.i8 0x1
        trap_if v6, code=0x2
        exit 0x0
    ";
}

#[test]
fn too_long_a_block_is_left_alone() {
    let one = parse("block pc=0x0 fallthrough=0x0 insns=0 bytes=0\nv0 = const.i8 0x0").unwrap();
    let insts = vec![one.insts[0]; crate::MAX_INSTS + 1];
    let mut block = Block { insts, ..one };
    let before = block.clone();
    optimize(&mut block, &mut Scratch::default());
    assert_eq!(block, before);
}
