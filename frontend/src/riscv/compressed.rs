//! Compressed instructions: one line each, with the instruction that it stands for (vol. I, "C" extension and Zcb).
//!
//! The pattern has 16 bits from the highest on: digits of the opcode, `A` and `B` registers in bits 7 to 11 and 2 to 6, `a`
//! and `b` registers `x8` to `x15` in bits 7 to 9 and 2 to 4, `i` the immediate. Then: destination and source registers of the
//! expansion, each one of those letters or a digit for `x0`, `x1` or `x2`; which bits of the immediate the `i`s are; whether
//! it is signed; and what must not be 0.

use super::isa::{Code, Insn};
use crate::common::pattern::Pattern;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Mnemonic.
    pub name: &'static str,
    /// The instruction that it stands for.
    pub code: Code,
    pattern: Pattern<16>,
    /// Destination, first and second source.
    registers: [u8; 3],
    /// For each bit of the word from the lowest on its place in the immediate.
    imm: [u8; 16],
    /// Number of the immediate's sign bit; none if it is unsigned.
    sign: Option<u8>,
    /// Letters of fields that must not be 0.
    nonzero: &'static str,
}

const NO_BIT: u8 = u8::MAX;

const fn parse(
    name: &'static str,
    code: Code,
    pattern: &str,
    registers: &str,
    imm: &[u8],
    rest: (bool, &'static str),
) -> Row {
    let (signed, nonzero) = rest;
    let regs = registers.as_bytes();
    let registers = [regs[0], regs[1], regs[2]];
    let pattern = Pattern::parse(pattern);
    let mut row = Row { name, code, pattern, registers, imm: [NO_BIT; 16], sign: None, nonzero };
    let (mut bit, mut next) = (16, 0);
    while bit > 0 {
        bit -= 1;
        if pattern.bits[bit] == b'i' {
            row.imm[bit] = imm[next];
            row.sign = match row.sign {
                Some(sign) if sign > imm[next] => row.sign,
                _ => Some(imm[next]),
            };
            next += 1;
        }
    }
    if !signed {
        row.sign = None;
    }
    assert!(next == imm.len());
    row
}

macro_rules! compressed {
    ($($name:literal $pattern:literal => $code:ident $regs:literal [$($imm:literal)*] $sign:ident $nonzero:literal;)*) => {
        /// The table; where two rows match, the first one is meant.
        pub static TABLE: &[Row] = &[$(
            parse($name, Code::$code, $pattern, $regs, &[$($imm),*], (compressed!(@$sign), $nonzero))
        ),*];
    };
    (@signed) => { true };
    (@unsigned) => { false };
}

compressed! {
    "c.addi4spn" "000 iiiiiiii bbb 00" => Addi "b20" [5 4 9 8 7 6 2 3] unsigned "i";
    "c.fld" "001 iii aaa ii bbb 00" => Fld "ba0" [5 4 3 7 6] unsigned "";
    "c.lw" "010 iii aaa ii bbb 00" => Lw "ba0" [5 4 3 2 6] unsigned "";
    "c.ld" "011 iii aaa ii bbb 00" => Ld "ba0" [5 4 3 7 6] unsigned "";
    "c.fsd" "101 iii aaa ii bbb 00" => Fsd "0ab" [5 4 3 7 6] unsigned "";
    "c.sw" "110 iii aaa ii bbb 00" => Sw "0ab" [5 4 3 2 6] unsigned "";
    "c.sd" "111 iii aaa ii bbb 00" => Sd "0ab" [5 4 3 7 6] unsigned "";
    "c.addi" "000 i AAAAA iiiii 01" => Addi "AA0" [5 4 3 2 1 0] signed "";
    "c.addiw" "001 i AAAAA iiiii 01" => Addiw "AA0" [5 4 3 2 1 0] signed "A";
    "c.li" "010 i AAAAA iiiii 01" => Addi "A00" [5 4 3 2 1 0] signed "";
    "c.addi16sp" "011 i 00010 iiiii 01" => Addi "220" [9 4 6 8 7 5] signed "i";
    "c.lui" "011 i AAAAA iiiii 01" => Lui "A00" [17 16 15 14 13 12] signed "i";
    "c.srli" "100 i 00 aaa iiiii 01" => Srli "aa0" [5 4 3 2 1 0] unsigned "";
    "c.srai" "100 i 01 aaa iiiii 01" => Srai "aa0" [5 4 3 2 1 0] unsigned "";
    "c.andi" "100 i 10 aaa iiiii 01" => Andi "aa0" [5 4 3 2 1 0] signed "";
    "c.sub" "100 0 11 aaa 00 bbb 01" => Sub "aab" [] unsigned "";
    "c.xor" "100 0 11 aaa 01 bbb 01" => Xor "aab" [] unsigned "";
    "c.or" "100 0 11 aaa 10 bbb 01" => Or "aab" [] unsigned "";
    "c.and" "100 0 11 aaa 11 bbb 01" => And "aab" [] unsigned "";
    "c.subw" "100 1 11 aaa 00 bbb 01" => Subw "aab" [] unsigned "";
    "c.addw" "100 1 11 aaa 01 bbb 01" => Addw "aab" [] unsigned "";
    "c.j" "101 iiiiiiiiiii 01" => Jal "000" [11 4 9 8 10 6 7 3 2 1 5] signed "";
    "c.beqz" "110 iii aaa iiiii 01" => Beq "0a0" [8 4 3 7 6 2 1 5] signed "";
    "c.bnez" "111 iii aaa iiiii 01" => Bne "0a0" [8 4 3 7 6 2 1 5] signed "";
    "c.slli" "000 i AAAAA iiiii 10" => Slli "AA0" [5 4 3 2 1 0] unsigned "";
    "c.fldsp" "001 i AAAAA iiiii 10" => Fld "A20" [5 4 3 8 7 6] unsigned "";
    "c.lwsp" "010 i AAAAA iiiii 10" => Lw "A20" [5 4 3 2 7 6] unsigned "A";
    "c.ldsp" "011 i AAAAA iiiii 10" => Ld "A20" [5 4 3 8 7 6] unsigned "A";
    "c.jr" "100 0 AAAAA 00000 10" => Jalr "0A0" [] unsigned "A";
    "c.mv" "100 0 AAAAA BBBBB 10" => Add "A0B" [] unsigned "B";
    "c.ebreak" "100 1 00000 00000 10" => Ebreak "000" [] unsigned "";
    "c.jalr" "100 1 AAAAA 00000 10" => Jalr "1A0" [] unsigned "A";
    "c.add" "100 1 AAAAA BBBBB 10" => Add "AAB" [] unsigned "B";
    "c.fsdsp" "101 iiiiii BBBBB 10" => Fsd "02B" [5 4 3 8 7 6] unsigned "";
    "c.swsp" "110 iiiiii BBBBB 10" => Sw "02B" [5 4 3 2 7 6] unsigned "";
    "c.sdsp" "111 iiiiii BBBBB 10" => Sd "02B" [5 4 3 8 7 6] unsigned "";
    // Zcb. What the manual describes by a constant is here an instruction with x0: ANDI of 255 is PACKH, XORI of -1 is XNOR.
    "c.lbu" "100000 aaa ii bbb 00" => Lbu "ba0" [0 1] unsigned "";
    "c.lhu" "100001 aaa 0 i bbb 00" => Lhu "ba0" [1] unsigned "";
    "c.lh" "100001 aaa 1 i bbb 00" => Lh "ba0" [1] unsigned "";
    "c.sb" "100010 aaa ii bbb 00" => Sb "0ab" [0 1] unsigned "";
    "c.sh" "100011 aaa 0 i bbb 00" => Sh "0ab" [1] unsigned "";
    "c.zext.b" "100111 aaa 11000 01" => Packh "aa0" [] unsigned "";
    "c.sext.b" "100111 aaa 11001 01" => SextB "aa0" [] unsigned "";
    "c.zext.h" "100111 aaa 11010 01" => Packw "aa0" [] unsigned "";
    "c.sext.h" "100111 aaa 11011 01" => SextH "aa0" [] unsigned "";
    "c.zext.w" "100111 aaa 11100 01" => AddUw "aa0" [] unsigned "";
    "c.not" "100111 aaa 11101 01" => Xnor "aa0" [] unsigned "";
    "c.mul" "100111 aaa 10 bbb 01" => Mul "aab" [] unsigned "";
}

impl Row {
    fn register(half: u16, letter: u8) -> u8 {
        match letter {
            b'A' => (half >> 7 & 31) as u8,
            b'B' => (half >> 2 & 31) as u8,
            b'a' => 8 + (half >> 7 & 7) as u8,
            b'b' => 8 + (half >> 2 & 7) as u8,
            digit => digit - b'0',
        }
    }

    fn immediate(&self, half: u16) -> i64 {
        let bits = (0..).zip(&self.imm).filter(|&(i, &place)| place != NO_BIT && half >> i & 1 != 0);
        let value = bits.fold(0i64, |value, (_, &place)| value | 1 << place);
        self.sign.map_or(value, |sign| value << (63 - sign) >> (63 - sign))
    }

    fn expand(&self, half: u16) -> Option<Insn> {
        if !self.pattern.matches(half.into()) {
            return None;
        }
        let imm = self.immediate(half);
        let zero = |c: u8| if c == b'i' { imm == 0 } else { Row::register(half, c) == 0 };
        if self.nonzero.bytes().any(zero) {
            return None;
        }
        let [rd, rs1, rs2] = self.registers.map(|letter| Row::register(half, letter));
        Some(Insn { rd, rs1, rs2, imm, ..Insn::new(self.code) })
    }
}

/// The row of a compressed instruction, and what it stands for; `None` if it is not defined.
pub fn decode(half: u16) -> Option<(&'static Row, Insn)> {
    TABLE.iter().find_map(|row| row.expand(half).map(|insn| (row, insn)))
}

/// What a compressed instruction stands for; `None` if it is not defined.
pub fn expand(half: u16) -> Option<Insn> {
    decode(half).map(|(_, insn)| insn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::riscv::{disasm, isa};

    #[test]
    fn expansions_are_those_of_the_manual() {
        // By GNU as: c.addi4spn s0,sp,16; c.ld a0,8(a1); c.addi sp,-32; c.li a5,-1; c.addi16sp sp,-64; c.lui a0,0x1f;
        // c.srai a5,63; c.j .-2; c.bnez a0,.+8; c.ldsp ra,24(sp); c.jr ra; c.mv a0,a1; c.sdsp ra,24(sp).
        for (half, text) in [
            (0x0800, "addi s0,sp,16"),
            (0x6588, "ld a0,8(a1)"),
            (0x1101, "addi sp,sp,-32"),
            (0x57fd, "addi a5,zero,-1"),
            (0x7139, "addi sp,sp,-64"),
            (0x657d, "lui a0,0x1f"),
            (0x97fd, "srai a5,a5,63"),
            (0xbffd, "jal zero,0xffe"),
            (0xe501, "bne a0,zero,0x1008"),
            (0x60e2, "ld ra,24(sp)"),
            (0x8082, "jalr zero,0(ra)"),
            (0x852e, "add a0,zero,a1"),
            (0xec06, "sd ra,24(sp)"),
        ] {
            let insn = expand(half).expect(text);
            assert_eq!(disasm::text(&insn, 0x1000), text, "{half:#x}");
        }
    }

    #[test]
    fn what_is_reserved_is_not_defined() {
        for (half, why) in [
            (0x0000, "all zeros"),
            (0x8002, "c.jr x0"),
            (0x2001, "c.addiw x0"),
            (0x4002, "c.lwsp x0"),
            (0x6081, "c.lui of 0"),
            (0x9c79, "c.not's neighbours"),
            (0x8c40, "c.sh's neighbours"),
            (0x9000, "reserved in quadrant 0"),
        ] {
            assert_eq!(expand(half), None, "{why}");
        }
    }

    #[test]
    fn every_row_is_reached_and_every_expansion_is_an_instruction() {
        let mut seen = vec![false; TABLE.len()];
        for half in (0..=u16::MAX).filter(|half| half & 3 != 3) {
            let Some((row, insn)) = decode(half) else { continue };
            let index = TABLE.iter().position(|r| r.name == row.name).unwrap();
            seen[index] = true;
            // Where the 32-bit form has no place for a field, it has none in its text either.
            let again = isa::decode(insn.encode()).expect(row.name);
            assert_eq!(disasm::text(&again, 0), disasm::text(&insn, 0), "{half:#x}");
        }
        assert!(seen.iter().all(|&s| s));
    }
}
