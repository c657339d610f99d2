//! Every integer instruction on random operands, against what the manual says of it, written down a second time.

use mimus_frontend::riscv::isa::{Code, Field, Insn, TABLE};

use crate::hart::{BASE, DATA, Hart, Numbers, i, r, s};

fn w(value: u32) -> u64 {
    value as i32 as u64
}

/// By the definition: the sum of `a` shifted by each bit of `b`, without carries.
fn carry_less(a: u64, b: u64) -> u128 {
    let mut product = 0;
    for bit in 0..64 {
        if b & 1 << bit != 0 {
            product ^= u128::from(a) << bit;
        }
    }
    product
}

/// What an instruction of two operands, the second a register or an immediate, writes to `rd`.
fn expected(code: Code, pc: u64, a: u64, b: u64) -> Option<u64> {
    use Code::*;
    let (sa, sb) = (a as i64, b as i64);
    let (wa, wb) = (a as u32, b as u32);
    let (swa, swb) = (a as i32, b as i32);
    Some(match code {
        Lui => b,
        Auipc => pc.wrapping_add(b),
        Add | Addi => a.wrapping_add(b),
        Sub => a.wrapping_sub(b),
        Addw | Addiw => w(wa.wrapping_add(wb)),
        Subw => w(wa.wrapping_sub(wb)),
        Sll | Slli => a << (b & 63),
        Srl | Srli => a >> (b & 63),
        Sra | Srai => (sa >> (b & 63)) as u64,
        Sllw | Slliw => w(wa << (b & 31)),
        Srlw | Srliw => w(wa >> (b & 31)),
        Sraw | Sraiw => w((swa >> (b & 31)) as u32),
        Slt | Slti => (sa < sb).into(),
        Sltu | Sltiu => (a < b).into(),
        Xor | Xori => a ^ b,
        Or | Ori => a | b,
        And | Andi => a & b,
        Mul => a.wrapping_mul(b),
        Mulh => ((i128::from(sa) * i128::from(sb)) >> 64) as u64,
        Mulhsu => ((i128::from(sa) * i128::from(b)) >> 64) as u64,
        Mulhu => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        Mulw => w(wa.wrapping_mul(wb)),
        Div if b == 0 => u64::MAX,
        Div if a == 1 << 63 && sb == -1 => a,
        Div => (sa / sb) as u64,
        Divu if b == 0 => u64::MAX,
        Divu => a / b,
        Rem if b == 0 => a,
        Rem if a == 1 << 63 && sb == -1 => 0,
        Rem => (sa % sb) as u64,
        Remu if b == 0 => a,
        Remu => a % b,
        Divw if wb == 0 => u64::MAX,
        Divw if wa == 1 << 31 && swb == -1 => w(wa),
        Divw => w((swa / swb) as u32),
        Divuw if wb == 0 => u64::MAX,
        Divuw => w(wa / wb),
        Remw if wb == 0 => w(wa),
        Remw if wa == 1 << 31 && swb == -1 => 0,
        Remw => w((swa % swb) as u32),
        Remuw if wb == 0 => w(wa),
        Remuw => w(wa % wb),
        AddUw => u64::from(wa).wrapping_add(b),
        Sh1add => (a << 1).wrapping_add(b),
        Sh2add => (a << 2).wrapping_add(b),
        Sh3add => (a << 3).wrapping_add(b),
        Sh1addUw => (u64::from(wa) << 1).wrapping_add(b),
        Sh2addUw => (u64::from(wa) << 2).wrapping_add(b),
        Sh3addUw => (u64::from(wa) << 3).wrapping_add(b),
        SlliUw => u64::from(wa) << (b & 63),
        Andn => a & !b,
        Orn => a | !b,
        Xnor => !(a ^ b),
        Clz => a.leading_zeros().into(),
        Ctz => a.trailing_zeros().into(),
        Cpop => a.count_ones().into(),
        Clzw => wa.leading_zeros().into(),
        Ctzw => wa.trailing_zeros().into(),
        Cpopw => wa.count_ones().into(),
        Max => sa.max(sb) as u64,
        Maxu => a.max(b),
        Min => sa.min(sb) as u64,
        Minu => a.min(b),
        SextB => a as i8 as u64,
        SextH => a as i16 as u64,
        Clmul => carry_less(a, b) as u64,
        Clmulr => (carry_less(a, b) >> 63) as u64,
        Clmulh => (carry_less(a, b) >> 64) as u64,
        Pack => u64::from(wa) | b << 32,
        Packh => u64::from(a as u8) | u64::from(b as u8) << 8,
        Packw => w(wa & 0xffff | wb << 16),
        Brev8 => u64::from_le_bytes(a.to_le_bytes().map(u8::reverse_bits)),
        Xperm4 => (0..16).fold(0, |x, i| x | (a >> (4 * (b >> (4 * i) & 15)) & 15) << (4 * i)),
        Xperm8 => {
            let bytes = a.to_le_bytes();
            u64::from_le_bytes(b.to_le_bytes().map(|index| bytes.get(usize::from(index)).copied().unwrap_or(0)))
        }
        Rol => a.rotate_left(b as u32 & 63),
        Ror | Rori => a.rotate_right(b as u32 & 63),
        Rolw => w(wa.rotate_left(b as u32 & 31)),
        Rorw | Roriw => w(wa.rotate_right(b as u32 & 31)),
        OrcB => u64::from_le_bytes(a.to_le_bytes().map(|byte| if byte == 0 { 0 } else { 0xff })),
        Rev8 => a.swap_bytes(),
        Bclr | Bclri => a & !(1 << (b & 63)),
        Bset | Bseti => a | 1 << (b & 63),
        Binv | Binvi => a ^ 1 << (b & 63),
        Bext | Bexti => a >> (b & 63) & 1,
        CzeroEqz => {
            if b == 0 {
                0
            } else {
                a
            }
        }
        CzeroNez => {
            if b != 0 {
                0
            } else {
                a
            }
        }
        _ => return None,
    })
}

/// Random operands for one instruction: registers may be the same, and `x0`.
fn one(hart: &mut Hart, code: Code, numbers: &mut Numbers) {
    let row = code.row();
    let word = row.pattern.value | numbers.next() as u32 & !row.pattern.mask;
    let insn = mimus_frontend::riscv::isa::decode(word).expect("of the table");
    for x in &mut hart.cpu.state.x[1..] {
        *x = numbers.operand();
    }
    hart.cpu.state.pc = BASE;
    let before = hart.cpu.state;
    let a = before.x[usize::from(insn.rs1)];
    let b = if row.has(Field::Rs2) { before.x[usize::from(insn.rs2)] } else { insn.imm as u64 };
    let value = expected(code, BASE, a, b).expect(row.name);
    hart.run(&[insn]);
    let mut after = before;
    after.pc = BASE + 4;
    if insn.rd != 0 {
        after.x[usize::from(insn.rd)] = value;
    }
    assert_eq!(hart.cpu.state.x, after.x, "{} of {a:#x} and {b:#x}", row.name);
    assert_eq!(hart.cpu.state.pc, after.pc);
}

#[test]
fn computing_is_as_the_manual_says() {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for mut hart in [Hart::new(), Hart::optimizing()] {
        let rows = TABLE.iter().filter(|row| expected(row.code, 0, 1, 1).is_some());
        let mut count = 0;
        for row in rows {
            count += 1;
            for _ in 0..400 {
                one(&mut hart, row.code, &mut numbers);
            }
        }
        assert_eq!(count, 93, "instructions");
    }
}

/// Values worked out by hand, and zext.h as Zbb's assemblers write it (0x0805_453b: zext.h a0,a0).
#[test]
fn carry_less_products_and_permutations_of_known_values() {
    for mut hart in [Hart::new(), Hart::optimizing()] {
        for (code, a, b, value) in [
            // (x + 1)^2 = x^2 + 1, and x^63 * x^63 = x^126.
            (Code::Clmul, 3, 3, 5),
            (Code::Clmulh, 1 << 63, 1 << 63, 1 << 62),
            (Code::Clmulr, 1 << 63, 1 << 63, 1 << 63),
            (Code::Clmulr, u64::MAX, 1, 1),
            (Code::Xperm8, 0x1716_1514_1312_1110, 0x0807_00ff_0102_0304, 0x0017_1000_1112_1314),
            (Code::Xperm4, 0xfedc_ba98_7654_3210, 0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdef),
            (Code::Brev8, 0x0180_0f00_0000_0055, 0, 0x8001_f000_0000_00aa),
        ] {
            (hart.cpu.state.x[5], hart.cpu.state.x[6], hart.cpu.state.pc) = (a, b, BASE);
            hart.run(&[r(code, 7, 5, 6)]);
            assert_eq!(hart.cpu.state.x[7], value, "{code:?} of {a:#x} and {b:#x}");
        }
        (hart.cpu.state.x[10], hart.cpu.state.pc) = (0xffff_ffff_ffff_8001, BASE);
        hart.write(BASE, &[0x0805_453b]);
        hart.block(1);
        assert_eq!(hart.cpu.state.x[10], 0x8001);
    }
}

#[test]
fn branches_go_where_they_say() {
    use Code::*;
    let mut numbers = Numbers(0x9876_5432_1fed_cba9);
    let mut hart = Hart::new();
    for code in [Beq, Bne, Blt, Bge, Bltu, Bgeu] {
        for round in 0..200 {
            let (a, b) = (numbers.operand(), if round % 4 == 0 { 0 } else { numbers.operand() });
            (hart.cpu.state.x[5], hart.cpu.state.x[6], hart.cpu.state.pc) = (a, b, BASE + 0x1000);
            let taken = match code {
                Beq => a == b,
                Bne => a != b,
                Blt => (a as i64) < b as i64,
                Bge => a as i64 >= b as i64,
                Bltu => a < b,
                _ => a >= b,
            };
            hart.run(&[s(code, 6, 5, -4096)]);
            assert_eq!(hart.cpu.state.pc, if taken { BASE } else { BASE + 0x1004 }, "{code:?} {a:#x} {b:#x}");
        }
    }
}

#[test]
fn jumps_link_and_clear_bit_0_even_when_their_registers_are_one() {
    let mut hart = Hart::new();
    hart.run(&[i(Code::Jal, 1, 0, 0x100)]);
    assert_eq!((hart.cpu.state.pc, hart.cpu.state.x[1]), (BASE + 0x100, BASE + 4));
    hart.cpu.state.x[1] = BASE + 0x201;
    hart.run(&[i(Code::Jalr, 1, 1, 2)]);
    assert_eq!((hart.cpu.state.pc, hart.cpu.state.x[1]), (BASE + 0x202, BASE + 0x104));
    // Two bytes on: a compressed jump to itself.
    hart.write(BASE + 0x200, &[0xa001_0001]);
    hart.block(9);
    assert_eq!(hart.cpu.state.pc, BASE + 0x202);
}

#[test]
fn loads_extend_and_stores_cut_also_where_nothing_is_aligned() {
    use Code::*;
    let mut hart = Hart::new();
    let value = 0x8877_6655_f433_82f1u64;
    for at in [DATA, DATA + 3, DATA + 0xffd] {
        hart.cpu.state.pc = BASE;
        hart.cpu.state.x[10] = at + 16;
        hart.cpu.state.x[11] = value;
        hart.run(&[s(Sd, 11, 10, -16)]);
        let expected = [
            (Lb, value as i8 as u64),
            (Lbu, value & 0xff),
            (Lh, value as i16 as u64),
            (Lhu, value & 0xffff),
            (Lw, value as i32 as u64),
            (Lwu, value & 0xffff_ffff),
            (Ld, value),
        ];
        for (code, want) in expected {
            hart.cpu.state.pc = BASE;
            hart.run(&[i(code, 12, 10, -16)]);
            assert_eq!(hart.cpu.state.x[12], want, "{code:?} at {at:#x}");
        }
        for (code, bytes) in [(Sb, 1), (Sh, 2), (Sw, 4)] {
            hart.cpu.state.pc = BASE;
            hart.cpu.state.x[13] = u64::MAX;
            hart.cpu.state.x[14] = 0;
            hart.run(&[s(Sd, 13, 10, -16), s(code, 14, 10, -16), i(Ld, 12, 10, -16)]);
            assert_eq!(hart.cpu.state.x[12], u64::MAX << (8 * bytes), "{code:?} at {at:#x}");
        }
    }
}

#[test]
fn a_block_of_many_gives_what_its_instructions_give_one_by_one() {
    let codes: Vec<Code> = TABLE.iter().map(|row| row.code).filter(|&c| expected(c, 0, 1, 1).is_some()).collect();
    let mut numbers = Numbers(0x0bad_cafe_1234_5679);
    for _ in 0..60 {
        let (mut whole, mut single) = (Hart::optimizing(), Hart::new());
        let words: Vec<u32> = (0..40)
            .map(|_| {
                let row = codes[numbers.next() as usize % codes.len()].row();
                // Few registers, so that results are used.
                row.pattern.value | numbers.next() as u32 & !row.pattern.mask & !(0x18 << 7 | 0x18 << 15 | 0x18 << 20)
            })
            .filter(|word| mimus_frontend::riscv::isa::decode(*word).is_some())
            .collect();
        for hart in [&mut whole, &mut single] {
            hart.write(BASE, &words);
            for (n, x) in (1..).zip(&mut hart.cpu.state.x[1..]) {
                *x = u64::wrapping_mul(n, 0x9e37_79b9_7f4a_7c15);
            }
        }
        whole.block(words.len() as u32);
        words.iter().for_each(|_| single.block(1));
        assert_eq!(whole.cpu.state, single.cpu.state);
    }
}

#[test]
fn what_is_not_defined_is_illegal() {
    let mut hart = Hart::new();
    for word in [0u32, u32::MAX, 0x0000_707f, 0x0400_1013, 0xc000_1073, 0x1234_5073] {
        hart.cpu.state.pc = BASE;
        hart.write(BASE, &[word]);
        hart.block(1);
        let value = if word & 3 == 3 { word } else { word & 0xffff };
        assert_eq!((hart.cpu.state.mcause, hart.cpu.state.mtval), (2, value.into()), "{word:#x}");
        assert_eq!(hart.cpu.state.mepc, BASE);
    }
    let _: Insn = r(Code::Add, 0, 0, 0);
}

/// vol. I, "Zihintpause": a FENCE of nothing.
#[test]
fn a_hint_to_pause_does_nothing() {
    let mut hart = Hart::optimizing();
    let before = hart.cpu.state;
    hart.write(BASE, &[0x0100_000f]);
    hart.block(1);
    hart.cpu.state.pc -= 4;
    assert_eq!(hart.cpu.state, before);
}
