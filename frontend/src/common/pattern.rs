//! Instruction words by bit patterns: what a table of instructions with one line each is decoded by.
//!
//! A pattern is text with one character a bit, from the highest on, spaces left out: a digit is a bit of the opcode, a letter a bit
//! of the operand that it stands for. Everything is parsed while the program is compiled. Guests say in their tables what the
//! letters are.

/// A pattern of `N` bits, 32 at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern<const N: usize> {
    /// Bits of the opcode.
    pub mask: u32,
    /// Their values.
    pub value: u32,
    /// For each bit from the lowest on its letter or digit.
    pub bits: [u8; N],
}

impl<const N: usize> Pattern<N> {
    /// The pattern that is written as `text`, which must have `N` bits.
    pub const fn parse(text: &str) -> Pattern<N> {
        let text = text.as_bytes();
        let mut pattern = Pattern { mask: 0, value: 0, bits: [0; N] };
        let (mut at, mut bit) = (0, N);
        while at < text.len() {
            let c = text[at];
            at += 1;
            if c == b' ' {
                continue;
            }
            bit -= 1;
            pattern.bits[bit] = c;
            if c == b'0' || c == b'1' {
                pattern.mask |= 1 << bit;
                pattern.value |= ((c - b'0') as u32) << bit;
            }
        }
        assert!(bit == 0, "as many bits as the word has");
        pattern
    }

    /// Whether a word is of this pattern.
    #[inline]
    pub const fn matches(&self, word: u32) -> bool {
        word & self.mask == self.value
    }

    /// Whether there are words of both patterns.
    pub const fn overlaps(&self, other: &Pattern<N>) -> bool {
        let both = self.mask & other.mask;
        self.value & both == other.value & both
    }

    /// Whether the pattern has an operand.
    pub fn has(&self, letter: u8) -> bool {
        self.bits.contains(&letter)
    }

    /// The bits of an operand in a word, the highest first wherever they are.
    pub fn field(&self, letter: u8, word: u32) -> u32 {
        let bits = self.bits.iter().enumerate().rev().filter(|&(_, &c)| c == letter);
        bits.fold(0, |value, (i, _)| value << 1 | word >> i & 1)
    }

    /// The lowest bits of `value` in the places that [`Pattern::field`] takes them from.
    pub fn place(&self, letter: u8, value: u32) -> u32 {
        let bits = self.bits.iter().enumerate().filter(|&(_, &c)| c == letter);
        bits.enumerate().fold(0, |word, (at, (i, _))| word | (value >> at & 1) << i)
    }
}

/// Rows of a table by some bits of their words that are opcode in all of them, the key: what a decoder looks through is one list
/// of `KEYS`, each of fewer than `ROWS`.
#[derive(Clone, Copy, Debug)]
pub struct Index<const KEYS: usize, const ROWS: usize> {
    /// Number of the key's lowest bit.
    shift: u32,
    lists: [[u8; ROWS]; KEYS],
}

/// The end of a list.
const NO_ROW: u8 = u8::MAX;

impl<const KEYS: usize, const ROWS: usize> Index<KEYS, ROWS> {
    /// An index without rows, whose key's lowest bit is bit `shift`.
    pub const fn new(shift: u32) -> Self {
        assert!(KEYS.is_power_of_two());
        Index { shift, lists: [[NO_ROW; ROWS]; KEYS] }
    }

    /// The same with row `number` of the table.
    pub const fn with<const N: usize>(mut self, number: usize, pattern: &Pattern<N>) -> Self {
        let key_mask = (KEYS as u32 - 1) << self.shift;
        assert!(pattern.mask & key_mask == key_mask, "the key is opcode");
        assert!(number < NO_ROW as usize, "rows have numbers of 8 bits");
        let list = &mut self.lists[(pattern.value >> self.shift) as usize & (KEYS - 1)];
        let mut at = 0;
        while list[at] != NO_ROW {
            at += 1;
        }
        assert!(at + 1 < ROWS, "the list has an end");
        list[at] = number as u8;
        self
    }

    /// The row of `table` whose pattern, by `pattern`, a word is of.
    #[inline]
    pub fn find<'a, R, const N: usize>(
        &self,
        table: &'a [R],
        word: u32,
        pattern: impl Fn(&R) -> &Pattern<N>,
    ) -> Option<&'a R> {
        let list = &self.lists[(word >> self.shift) as usize & (KEYS - 1)];
        list.iter().map_while(|&row| table.get(usize::from(row))).find(|row| pattern(row).matches(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: Pattern<16> = Pattern::parse("01 ddd sssss iiiii i");
    const SPLIT: Pattern<16> = Pattern::parse("10 i sss iii 0000 iii");

    #[test]
    fn digits_are_opcode_and_letters_operands_wherever_their_bits_are() {
        assert_eq!((ADD.mask, ADD.value), (0xc000, 0x4000));
        let word = 0b1010_1101_0000_0110;
        assert!(SPLIT.matches(word) && !ADD.matches(word) && !ADD.overlaps(&SPLIT));
        assert_eq!([SPLIT.field(b'i', word), SPLIT.field(b's', word), SPLIT.field(b'd', word)], [0b101_0110, 3, 0]);
        assert_eq!(SPLIT.value | SPLIT.place(b'i', 0b101_0110) | SPLIT.place(b's', 3), word);
        assert!(SPLIT.has(b'i') && !SPLIT.has(b'd'));
    }

    #[test]
    fn an_index_finds_the_row_of_a_word() {
        const TABLE: [Pattern<16>; 3] = [ADD, SPLIT, Pattern::parse("10 0 sss 111 1111 111")];
        static INDEX: Index<4, 4> = Index::new(14).with(0, &TABLE[0]).with(1, &TABLE[1]).with(2, &TABLE[2]);
        let find = |word| INDEX.find(&TABLE, word, |row| row).copied();
        assert_eq!(find(0x7fff), Some(TABLE[0]));
        assert_eq!(find(0x8000), Some(TABLE[1]));
        assert_eq!(find(0x87ff & !0x1800 | 0x03ff), Some(TABLE[2]));
        assert_eq!([find(0x0000), find(0xffff)], [None, None]);
    }
}
