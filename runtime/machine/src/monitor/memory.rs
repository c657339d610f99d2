//! `x`, `xp`, `print`, `i`: values in the formats of a debugger.

use std::fmt::Write;

use super::expression::number;
use crate::control::{Controlled, Space};

/// Items of one dump.
const MAX_COUNT: u64 = 1 << 16;

/// Bytes of the longest instruction of any guest.
const LONGEST_INSN: u64 = 15;

/// How many values, of which form and width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// How many.
    pub count: u64,
    /// `x` hexadecimal, `d` decimal, `u` without a sign, `o` octal, `c` characters, `i` instructions.
    pub form: char,
    /// Bytes of each.
    pub size: usize,
}

impl Default for Format {
    fn default() -> Format {
        Format { count: 1, form: 'x', size: 4 }
    }
}

impl Format {
    /// From what follows the slash, such as `20xw`; what it does not say is as the last time.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub(super) fn parse(text: &str, last: Format) -> Result<Format, String> {
        let letters = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &text[..text.len() - letters.len()];
        let count = if digits.is_empty() { 1 } else { number(digits.trim_start_matches('0')).unwrap_or(0) };
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(format!("the count must be between 1 and {MAX_COUNT}"));
        }
        let mut format = Format { count, ..last };
        for c in letters.chars() {
            match c {
                'x' | 'd' | 'u' | 'o' | 'c' | 'i' => format.form = c,
                'b' => format.size = 1,
                'h' => format.size = 2,
                'w' => format.size = 4,
                'g' => format.size = 8,
                _ => return Err(format!("invalid char in format: '{c}'")),
            }
        }
        if format.form == 'c' && !letters.contains(['h', 'w', 'g']) {
            format.size = 1;
        }
        Ok(format)
    }

    /// One value as text.
    pub(super) fn value(self, value: u64) -> String {
        let bits = 8 * self.size as u32;
        let value = value & (u64::MAX >> (64 - bits));
        let signed = ((value << (64 - bits)) as i64) >> (64 - bits);
        match self.form {
            'd' => signed.to_string(),
            'u' => value.to_string(),
            'o' => format!("{value:#o}").replacen("0o", "0", 1),
            'c' => match char::from_u32(value as u32).filter(|c| c.is_ascii_graphic() || *c == ' ') {
                Some(c) => format!("'{c}'"),
                None => format!("'\\x{value:02x}'"),
            },
            _ => format!("{value:#x}"),
        }
    }

    /// One value as a dump has it, as wide as the widest.
    fn column(self, value: u64) -> String {
        let digits = match (self.form, self.size) {
            ('x', size) => return format!("0x{value:0width$x}", width = 2 * size),
            ('o', size) => return format!("0{value:0width$o}", width = (8 * size).div_ceil(3)),
            ('c', _) => 0,
            (_, 1) => 3,
            (_, 2) => 5,
            (_, 4) => 10,
            _ => 20,
        };
        let width = if self.form == 'd' { digits + 1 } else { digits };
        format!("{:>width$}", self.value(value))
    }
}

/// What memory at `addr` holds. What cannot be read ends it with a sentence.
pub(super) fn dump(machine: &mut dyn Controlled, format: Format, space: Space, addr: u64) -> String {
    if format.form == 'i' {
        return instructions(machine, format.count, space, addr);
    }
    let per_line = (if format.form == 'c' { 8 } else { 16 }) / format.size as u64;
    let mut out = String::new();
    for i in 0..format.count {
        let at = addr.wrapping_add(i * format.size as u64);
        let mut bytes = [0; 8];
        let part = &mut bytes[..format.size];
        if i % per_line == 0 {
            let _ = write!(out, "{}{at:016x}:", if i == 0 { "" } else { "\n" });
        }
        if machine.read(space, at, part) < format.size {
            out.push_str(" Cannot access memory");
            break;
        }
        let _ = write!(out, " {}", format.column(u64::from_le_bytes(bytes)));
    }
    out.push('\n');
    out
}

fn instructions(machine: &mut dyn Controlled, count: u64, space: Space, addr: u64) -> String {
    let mut out = String::new();
    let mut at = addr;
    for _ in 0..count {
        let mut bytes = [0; LONGEST_INSN as usize];
        let len = machine.read(space, at, &mut bytes);
        let found = machine.disassemble(&bytes[..len], at);
        let Some((_, text)) = found.first().filter(|_| len > 0) else {
            let _ = writeln!(out, "0x{at:08x}:  Cannot access memory");
            break;
        };
        // The last of the bytes may be another instruction's beginning.
        let end = found.get(1).map_or(at.wrapping_add(len as u64), |(next, _)| *next);
        let used = (end.wrapping_sub(at) as usize).min(len);
        let hex: Vec<String> = bytes[..used].iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(out, "0x{at:08x}:  {:<24} {text}", hex.join(" "));
        at = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_parsed_and_remembered() {
        let last = Format { count: 7, form: 'd', size: 8 };
        assert_eq!(Format::parse("", last), Ok(Format { count: 1, ..last }));
        assert_eq!(Format::parse("20xw", last), Ok(Format { count: 20, form: 'x', size: 4 }));
        assert_eq!(Format::parse("c", last), Ok(Format { count: 1, form: 'c', size: 1 }));
        for wrong in ["0x", "99999999999999999999x", "4z"] {
            assert!(Format::parse(wrong, last).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_have_their_width_and_sign() {
        let value = |text: &str, value| Format::parse(text, Format::default()).unwrap().value(value);
        assert_eq!(value("xw", 0x1_2345_6789), "0x23456789");
        assert_eq!(value("db", 0xff), "-1");
        assert_eq!(value("ub", 0x1ff), "255");
        assert_eq!(value("og", 64), "0100");
        assert_eq!(value("c", 0x41), "'A'");
        let column = |text: &str, value| Format::parse(text, Format::default()).unwrap().column(value);
        assert_eq!(column("xh", 0x12), "0x0012");
        assert_eq!(column("db", 0xff), "  -1");
        assert_eq!(column("ob", 7), "0007");
    }
}
