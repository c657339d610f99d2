//! Text of instructions, from the table's syntax.

use super::isa::Insn;
use super::{compressed, csr, isa};

/// ABI names of the integer registers (vol. I, "RISC-V Assembly Programmer's Handbook").
pub const X_NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "s2",
    "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

/// ABI names of the floating-point registers.
pub const F_NAMES: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];

/// Rounding modes by number; 5 and 6 are reserved.
const ROUNDING: [&str; 8] = ["rne", "rtz", "rdn", "rup", "rmm", "rm5", "rm6", "dyn"];

/// An instruction at `pc` as an assembler takes it; targets of jumps are absolute.
pub fn text(insn: &Insn, pc: u64) -> String {
    let row = insn.row();
    let mut out = row.name.to_owned();
    if !row.syntax.is_empty() {
        out.push(' ');
    }
    for c in row.syntax.chars() {
        let register = |n: u8| (if c.is_ascii_uppercase() { F_NAMES } else { X_NAMES })[usize::from(n & 31)];
        match c.to_ascii_lowercase() {
            'd' => out.push_str(register(insn.rd)),
            's' => out.push_str(register(insn.rs1)),
            't' => out.push_str(register(insn.rs2)),
            'u' => out.push_str(register(insn.rs3)),
            'm' if insn.rm == 7 => drop(out.pop()),
            'm' => out.push_str(ROUNDING[usize::from(insn.rm & 7)]),
            'b' | 'j' => out.push_str(&format!("{:#x}", pc.wrapping_add(insn.imm as u64))),
            'n' => out.push_str(&format!("{:#x}", insn.imm >> 12 & 0xf_ffff)),
            'i' | 'v' | 'h' => out.push_str(&insn.imm.to_string()),
            'z' => out.push_str(&insn.rs1.to_string()),
            'c' => match csr::name(insn.imm as u16) {
                Some(name) => out.push_str(&name),
                None => out.push_str(&format!("{:#x}", insn.imm)),
            },
            other => out.push(other),
        }
    }
    out
}

/// Length in bytes of the instruction that begins with `half` (vol. I, "Expanded Instruction-Length Encoding"); longer ones
/// than 4 are not defined.
pub const fn length(half: u16) -> usize {
    if half & 3 == 3 { 4 } else { 2 }
}

/// The instruction that `bytes` begin with, its length in bytes; none if it is not defined.
pub fn decode(bytes: &[u8]) -> Option<(Insn, usize)> {
    let half = u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]);
    if length(half) == 2 {
        return Some((compressed::expand(half)?, 2));
    }
    let word = u32::from(half) | u32::from(u16::from_le_bytes([*bytes.get(2)?, *bytes.get(3)?])) << 16;
    Some((isa::decode(word)?, 4))
}

/// Text of the code in `bytes`, whose first is at `pc`: a line an instruction, with its address.
pub fn listing(bytes: &[u8], pc: u64) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while let Some(&[low, high]) = bytes.get(at..at + 2) {
        let half = u16::from_le_bytes([low, high]);
        let here = pc.wrapping_add(at as u64);
        let line = match decode(&bytes[at..]) {
            Some((insn, _)) => text(&insn, here),
            None if length(half) == 2 => format!(".2byte {half:#06x}"),
            None => ".4byte, not defined".to_owned(),
        };
        out.push_str(&format!("\n{here:#018x}  {line}"));
        at += length(half);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::riscv::isa::Code;

    /// What an assembler makes of an instruction's text: the table read the other way round.
    fn assemble(text: &str, pc: u64) -> Option<Insn> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let row = isa::TABLE.iter().find(|row| row.name == name)?;
        let mut insn = Insn { rm: 7, ..Insn::new(row.code) };
        let mut words = rest.split([',', '(', ')']).filter(|w| !w.is_empty());
        let x: HashMap<_, _> = X_NAMES.iter().zip(0u8..).collect();
        let f: HashMap<_, _> = F_NAMES.iter().zip(0u8..).collect();
        let number = |w: &str| match w.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(|v| v as i64),
            None => w.parse().ok(),
        };
        for c in row.syntax.chars().filter(|c| c.is_ascii_alphabetic()) {
            let Some(word) = words.next() else {
                assert_eq!(c, 'm');
                continue;
            };
            let register = if c.is_ascii_uppercase() { f.get(&word) } else { x.get(&word) };
            match c.to_ascii_lowercase() {
                'd' => insn.rd = *register?,
                's' => insn.rs1 = *register?,
                't' => insn.rs2 = *register?,
                'u' => insn.rs3 = *register?,
                'm' => insn.rm = ROUNDING.iter().position(|r| *r == word)? as u8,
                'b' | 'j' => insn.imm = number(word)?.wrapping_sub(pc as i64),
                'n' => insn.imm = i64::from((number(word)? as i32) << 12),
                'z' => insn.rs1 = number(word)? as u8,
                'c' => {
                    insn.imm =
                        (0..4096).find(|&n| csr::name(n).as_deref() == Some(word)).map(i64::from).or(number(word))?
                }
                _ => insn.imm = number(word)?,
            }
        }
        Some(insn)
    }

    #[test]
    fn text_says_all_of_every_instruction() {
        let mut state = 0x9876_5432_1fed_cba1u64;
        for row in isa::TABLE {
            for _ in 0..300 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let word = row.pattern.value | (state >> 32) as u32 & !row.pattern.mask;
                let insn = isa::decode(word).unwrap();
                let text = text(&insn, 0x8000_0000);
                let again = assemble(&text, 0x8000_0000).unwrap_or_else(|| panic!("{text}"));
                assert_eq!(again.encode(), insn.encode(), "{text}");
            }
        }
    }

    #[test]
    fn a_listing_has_a_line_for_every_instruction_even_those_not_defined() {
        let bytes = [0x13, 0x05, 0x05, 0x80, 0x82, 0x80, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x13];
        let lines = "\n0x0000000000001000  addi a0,a0,-2048\n0x0000000000001004  jalr zero,0(ra)\
                     \n0x0000000000001006  .2byte 0x0000\n0x0000000000001008  .4byte, not defined";
        assert_eq!(listing(&bytes, 0x1000), lines);
        assert_eq!(decode(&bytes[..4]).map(|(insn, len)| (insn.code, len)), Some((Code::Addi, 4)));
        assert_eq!(decode(&bytes[..3]), None);
    }
}
