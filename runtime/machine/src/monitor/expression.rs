//! Numbers as they are typed in the human monitor: constants, registers and arithmetic in 64 bits.

use crate::control::Controlled;

/// Parentheses and signs within one another.
const DEPTH: usize = 64;

/// Registers by names that a debugger does not have: the name, the register, and its width in bits.
const ALIASES: &[(&str, &str, u32)] = &[
    ("eax", "rax", 32),
    ("ebx", "rbx", 32),
    ("ecx", "rcx", 32),
    ("edx", "rdx", 32),
    ("esi", "rsi", 32),
    ("edi", "rdi", 32),
    ("ebp", "rbp", 32),
    ("esp", "rsp", 32),
    ("eip", "rip", 32),
    ("sp", "rsp", 64),
    ("fs.base", "fs_base", 64),
    ("gs.base", "gs_base", 64),
];

struct Parser<'a> {
    rest: &'a str,
    machine: &'a mut dyn Controlled,
    depth: usize,
}

/// The value of the expression that `text` begins with, and what follows it. An operator goes on after white space.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub(super) fn evaluate<'a>(machine: &mut dyn Controlled, text: &'a str) -> Result<(u64, &'a str), String> {
    let mut parser = Parser { rest: text, machine, depth: 0 };
    let value = parser.sum()?;
    let used = text.len() - parser.rest.len();
    Ok((value, text.get(used..).unwrap_or_default().trim_start()))
}

/// The value of an expression that is all of `text`.
///
/// # Errors
///
/// As for [`evaluate`].
pub(super) fn whole(machine: &mut dyn Controlled, text: &str) -> Result<u64, String> {
    match evaluate(machine, text)? {
        (value, "") => Ok(value),
        (_, rest) => Err(format!("unexpected '{rest}'")),
    }
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    /// Takes one of these operators.
    fn operator(&mut self, of: &[char]) -> Option<char> {
        let c = self.next().filter(|c| of.contains(c))?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn sum(&mut self) -> Result<u64, String> {
        let mut value = self.logic()?;
        while let Some(c) = self.operator(&['+', '-']) {
            let other = self.logic()?;
            value = if c == '+' { value.wrapping_add(other) } else { value.wrapping_sub(other) };
        }
        Ok(value)
    }

    fn logic(&mut self) -> Result<u64, String> {
        let mut value = self.product()?;
        while let Some(c) = self.operator(&['&', '|', '^']) {
            let other = self.product()?;
            value = match c {
                '&' => value & other,
                '|' => value | other,
                _ => value ^ other,
            };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<u64, String> {
        let mut value = self.unary()?;
        while let Some(c) = self.operator(&['*', '/', '%']) {
            let other = self.unary()?;
            let result = match c {
                '*' => Some(value.wrapping_mul(other)),
                '/' => value.checked_div(other),
                _ => value.checked_rem(other),
            };
            value = result.ok_or("division by zero")?;
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<u64, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("the expression is too deep".to_owned());
        }
        let value = match self.operator(&['+', '-', '~', '(']) {
            Some('+') => self.unary(),
            Some('-') => self.unary().map(u64::wrapping_neg),
            Some('~') => self.unary().map(|value| !value),
            Some(_) => {
                let value = self.sum()?;
                self.operator(&[')']).map(|_| value).ok_or_else(|| "')' expected".to_owned())
            }
            None => self.operand(),
        };
        self.depth -= 1;
        value
    }

    fn operand(&mut self) -> Result<u64, String> {
        let register = self.operator(&['$']).is_some();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_' && !(register && c == '.'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if register {
            return self.register(word).ok_or_else(|| format!("unknown register '{word}'"));
        }
        number(word).ok_or_else(|| match word {
            "" => "a number is missing".to_owned(),
            _ => format!("'{word}' is not a number"),
        })
    }

    fn register(&mut self, name: &str) -> Option<u64> {
        if name == "pc" {
            return Some(self.machine.linear_pc());
        }
        let alias = ALIASES.iter().find(|(alias, ..)| *alias == name);
        let (name, bits) = alias.map_or((name, 64), |&(_, register, bits)| (register, bits));
        let description = self.machine.description();
        // The same name may be another machine's register.
        let number = description.number(name).or_else(|| description.number(alias.map(|(alias, ..)| *alias)?))?;
        let value = self.machine.register(number)? as u64;
        Some(if bits == 32 { value & 0xffff_ffff } else { value })
    }
}

/// A constant: decimal, hexadecimal after `0x`, octal after `0`.
pub(super) fn number(word: &str) -> Option<u64> {
    let lower = word.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    match lower.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => u64::from_str_radix(digits, 8).ok(),
        _ => lower.parse().ok(),
    }
}
