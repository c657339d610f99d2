//! An assembler for one RISC-V instruction, made of the instruction table's syntax: it takes what the disassembler writes.

use mimus_frontend::riscv::csr;
use mimus_frontend::riscv::disasm::{F_NAMES, X_NAMES};
use mimus_frontend::riscv::isa::{Insn, TABLE};

/// A number, decimal or hexadecimal, with a sign or without.
fn number(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let value = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(sign * value)
}

/// A register's number by its name in `names`.
fn register(names: [&str; 32], text: &str) -> Option<u8> {
    names.iter().position(|name| *name == text).map(|n| n as u8)
}

/// A CSR's number by name.
fn csr(text: &str) -> Option<i64> {
    (0..4096u16).find(|&n| csr::name(n).is_some_and(|name| name == text)).map(i64::from)
}

/// Puts the operand `text`, which the table has the letter `field` for, into `insn`.
fn operand(insn: &mut Insn, field: char, text: &str, pc: u64) -> Option<()> {
    let names = if field.is_ascii_uppercase() { F_NAMES } else { X_NAMES };
    match field.to_ascii_lowercase() {
        'd' => insn.rd = register(names, text)?,
        's' => insn.rs1 = register(names, text)?,
        't' => insn.rs2 = register(names, text)?,
        'u' => insn.rs3 = register(names, text)?,
        'm' => insn.rm = ["rne", "rtz", "rdn", "rup", "rmm"].iter().position(|name| *name == text)? as u8,
        'b' | 'j' => insn.imm = number(text)?.wrapping_sub(pc as i64),
        'n' => insn.imm = number(text)? << 12,
        'i' | 'v' | 'h' => insn.imm = number(text)?,
        'z' => insn.rs1 = number(text)? as u8,
        'c' => insn.imm = csr(text).or_else(|| number(text))?,
        _ => return None,
    }
    Some(())
}

/// The instruction `text`, which is at `pc`.
///
/// # Errors
///
/// What is wrong with it.
pub fn assemble(text: &str, pc: u64) -> Result<Insn, String> {
    let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
    let row = TABLE.iter().find(|row| row.name == name).ok_or_else(|| format!("no instruction `{name}`"))?;
    let words = |text: &str| -> Vec<String> {
        text.split([',', '(', ')']).map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    };
    let (fields, given) = (words(row.syntax), words(operands));
    let mut insn = Insn::new(row.code);
    // Without a rounding mode it is that of frm.
    insn.rm = 7;
    let least = fields.len() - usize::from(row.syntax.ends_with('m'));
    if given.len() < least || given.len() > fields.len() {
        return Err(format!("`{text}`: the operands are `{}`", row.syntax));
    }
    for (field, text) in fields.iter().zip(&given) {
        let field = field.chars().next().unwrap_or_default();
        operand(&mut insn, field, text, pc).ok_or_else(|| format!("`{text}` is no operand of `{name}`"))?;
    }
    Ok(insn)
}
