//! Host code as text, for `-d out_asm`: the compiler's and the quick tier's, as it lies in the arena.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

/// A line an instruction: its offset from the first one in hexadecimal, and Intel's notation. Constants that stand behind the
/// code are shown as instructions, too.
pub(crate) fn listing(code: &[u8]) -> String {
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    let mut line = String::new();
    for inst in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        line.clear();
        formatter.format(&inst, &mut line);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:6x}  {line}", inst.ip());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::listing;

    #[test]
    fn a_line_has_offset_and_instruction() {
        assert_eq!(listing(&[0x48, 0x89, 0xf8, 0xc3]), "     0  mov rax,rdi\n     3  ret\n");
    }

    #[test]
    fn bytes_that_are_no_instruction_end_it() {
        assert_eq!(listing(&[0xc3, 0x06]), "     0  ret\n     1  (bad)\n");
        assert_eq!(listing(&[]), "");
    }
}
