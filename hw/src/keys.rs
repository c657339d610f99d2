//! The keys of a PC's keyboard: one table of names, scan codes and what they type.

use serde::{Deserialize, Serialize};

/// In a scan code: the code comes after the prefix 0xe0.
const E0: u16 = 0xe000;

/// A key: its name as QEMU's monitor has it, its codes in scan code sets 1 and 2 (IBM PS/2 Hardware Interface Technical
/// Reference, "Keyboards (101- and 102-key)"), and the X keysyms that it types on a US keyboard, without and with Shift; 0 is
/// none.
struct Row {
    name: &'static str,
    set_1: u16,
    set_2: u16,
    keysyms: [u32; 2],
}

const fn key(name: &'static str, set_1: u16, set_2: u16, keysym: u32) -> Row {
    Row { name, set_1, set_2, keysyms: [keysym, 0] }
}

const fn both(name: &'static str, set_1: u16, set_2: u16, keysym: u32, shifted: u32) -> Row {
    Row { name, set_1, set_2, keysyms: [keysym, shifted] }
}

/// A key that types Latin characters.
const fn latin(name: &'static str, set_1: u16, set_2: u16, plain: u8, shifted: u8) -> Row {
    Row { name, set_1, set_2, keysyms: [plain as u32, shifted as u32] }
}

#[rustfmt::skip]
const KEYS: [Row; 112] = [
    key("esc", 0x01, 0x76, 0xff1b),
    latin("1", 0x02, 0x16, b'1', b'!'), latin("2", 0x03, 0x1e, b'2', b'@'), latin("3", 0x04, 0x26, b'3', b'#'),
    latin("4", 0x05, 0x25, b'4', b'$'), latin("5", 0x06, 0x2e, b'5', b'%'), latin("6", 0x07, 0x36, b'6', b'^'),
    latin("7", 0x08, 0x3d, b'7', b'&'), latin("8", 0x09, 0x3e, b'8', b'*'), latin("9", 0x0a, 0x46, b'9', b'('),
    latin("0", 0x0b, 0x45, b'0', b')'), latin("minus", 0x0c, 0x4e, b'-', b'_'), latin("equal", 0x0d, 0x55, b'=', b'+'),
    key("backspace", 0x0e, 0x66, 0xff08), both("tab", 0x0f, 0x0d, 0xff09, 0xfe20),
    latin("q", 0x10, 0x15, b'q', b'Q'), latin("w", 0x11, 0x1d, b'w', b'W'), latin("e", 0x12, 0x24, b'e', b'E'),
    latin("r", 0x13, 0x2d, b'r', b'R'), latin("t", 0x14, 0x2c, b't', b'T'), latin("y", 0x15, 0x35, b'y', b'Y'),
    latin("u", 0x16, 0x3c, b'u', b'U'), latin("i", 0x17, 0x43, b'i', b'I'), latin("o", 0x18, 0x44, b'o', b'O'),
    latin("p", 0x19, 0x4d, b'p', b'P'),
    latin("bracket_left", 0x1a, 0x54, b'[', b'{'), latin("bracket_right", 0x1b, 0x5b, b']', b'}'),
    key("ret", 0x1c, 0x5a, 0xff0d), key("ctrl", 0x1d, 0x14, 0xffe3),
    latin("a", 0x1e, 0x1c, b'a', b'A'), latin("s", 0x1f, 0x1b, b's', b'S'), latin("d", 0x20, 0x23, b'd', b'D'),
    latin("f", 0x21, 0x2b, b'f', b'F'), latin("g", 0x22, 0x34, b'g', b'G'), latin("h", 0x23, 0x33, b'h', b'H'),
    latin("j", 0x24, 0x3b, b'j', b'J'), latin("k", 0x25, 0x42, b'k', b'K'), latin("l", 0x26, 0x4b, b'l', b'L'),
    latin("semicolon", 0x27, 0x4c, b';', b':'), latin("apostrophe", 0x28, 0x52, b'\'', b'"'),
    latin("grave_accent", 0x29, 0x0e, b'`', b'~'),
    key("shift", 0x2a, 0x12, 0xffe1), latin("backslash", 0x2b, 0x5d, b'\\', b'|'),
    latin("z", 0x2c, 0x1a, b'z', b'Z'), latin("x", 0x2d, 0x22, b'x', b'X'), latin("c", 0x2e, 0x21, b'c', b'C'),
    latin("v", 0x2f, 0x2a, b'v', b'V'), latin("b", 0x30, 0x32, b'b', b'B'), latin("n", 0x31, 0x31, b'n', b'N'),
    latin("m", 0x32, 0x3a, b'm', b'M'),
    latin("comma", 0x33, 0x41, b',', b'<'), latin("dot", 0x34, 0x49, b'.', b'>'), latin("slash", 0x35, 0x4a, b'/', b'?'),
    key("shift_r", 0x36, 0x59, 0xffe2), key("kp_multiply", 0x37, 0x7c, 0xffaa), both("alt", 0x38, 0x11, 0xffe9, 0xffe7),
    latin("spc", 0x39, 0x29, b' ', 0), key("caps_lock", 0x3a, 0x58, 0xffe5),
    key("f1", 0x3b, 0x05, 0xffbe), key("f2", 0x3c, 0x06, 0xffbf), key("f3", 0x3d, 0x04, 0xffc0),
    key("f4", 0x3e, 0x0c, 0xffc1), key("f5", 0x3f, 0x03, 0xffc2), key("f6", 0x40, 0x0b, 0xffc3),
    key("f7", 0x41, 0x83, 0xffc4), key("f8", 0x42, 0x0a, 0xffc5), key("f9", 0x43, 0x01, 0xffc6),
    key("f10", 0x44, 0x09, 0xffc7), key("num_lock", 0x45, 0x77, 0xff7f), key("scroll_lock", 0x46, 0x7e, 0xff14),
    both("kp_7", 0x47, 0x6c, 0xffb7, 0xff95), both("kp_8", 0x48, 0x75, 0xffb8, 0xff97),
    both("kp_9", 0x49, 0x7d, 0xffb9, 0xff9a), key("kp_subtract", 0x4a, 0x7b, 0xffad),
    both("kp_4", 0x4b, 0x6b, 0xffb4, 0xff96), both("kp_5", 0x4c, 0x73, 0xffb5, 0xff9d),
    both("kp_6", 0x4d, 0x74, 0xffb6, 0xff98), key("kp_add", 0x4e, 0x79, 0xffab),
    both("kp_1", 0x4f, 0x69, 0xffb1, 0xff9c), both("kp_2", 0x50, 0x72, 0xffb2, 0xff99),
    both("kp_3", 0x51, 0x7a, 0xffb3, 0xff9b), both("kp_0", 0x52, 0x70, 0xffb0, 0xff9e),
    both("kp_decimal", 0x53, 0x71, 0xffae, 0xff9f), key("sysrq", 0x54, 0x84, 0xff15), key("less", 0x56, 0x61, 0),
    key("f11", 0x57, 0x78, 0xffc8), key("f12", 0x58, 0x07, 0xffc9),
    key("kp_enter", E0 | 0x1c, E0 | 0x5a, 0xff8d), key("ctrl_r", E0 | 0x1d, E0 | 0x14, 0xffe4),
    key("kp_divide", E0 | 0x35, E0 | 0x4a, 0xffaf), key("print", E0 | 0x37, E0 | 0x7c, 0xff61),
    both("alt_r", E0 | 0x38, E0 | 0x11, 0xffea, 0xfe03),
    key("home", E0 | 0x47, E0 | 0x6c, 0xff50), key("up", E0 | 0x48, E0 | 0x75, 0xff52),
    key("pgup", E0 | 0x49, E0 | 0x7d, 0xff55), key("left", E0 | 0x4b, E0 | 0x6b, 0xff51),
    key("right", E0 | 0x4d, E0 | 0x74, 0xff53), key("end", E0 | 0x4f, E0 | 0x69, 0xff57),
    key("down", E0 | 0x50, E0 | 0x72, 0xff54), key("pgdn", E0 | 0x51, E0 | 0x7a, 0xff56),
    key("insert", E0 | 0x52, E0 | 0x70, 0xff63), key("delete", E0 | 0x53, E0 | 0x71, 0xffff),
    key("meta_l", E0 | 0x5b, E0 | 0x1f, 0xffeb), key("meta_r", E0 | 0x5c, E0 | 0x27, 0xffec),
    key("compose", E0 | 0x5d, E0 | 0x2f, 0xff67), key("power", E0 | 0x5e, E0 | 0x37, 0x1008_ff2a),
    key("sleep", E0 | 0x5f, E0 | 0x3f, 0x1008_ff2f), key("wake", E0 | 0x63, E0 | 0x5e, 0x1008_ff2b),
    key("audiomute", E0 | 0x20, E0 | 0x23, 0x1008_ff12), key("volumedown", E0 | 0x2e, E0 | 0x21, 0x1008_ff11),
    key("volumeup", E0 | 0x30, E0 | 0x32, 0x1008_ff13),
    // What it sends is not like the others: see `Key::codes`.
    key("pause", E0 | 0x46, E0 | 0x7f, 0xff13),
];

/// Other names for keys in QEMU's monitor.
const ALIASES: [(&str, &str); 5] =
    [("asterisk", "kp_multiply"), ("altgr", "alt_r"), ("enter", "ret"), ("space", "spc"), ("win", "meta_l")];

/// What Pause sends when it is pressed; nothing when it is released. Sets 1 and 2.
const PAUSE: [&[u8]; 2] = [&[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5], &[0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]];

/// A scan code set that the keyboard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ScanCodes {
    One,
    Two,
}

/// A key of the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(u8);

impl Key {
    /// How many there are: a key's [`Key::number`] is less.
    pub const COUNT: usize = KEYS.len();

    fn find(wanted: impl Fn(&Row) -> bool) -> Option<Key> {
        KEYS.iter().position(wanted).map(|index| Key(index as u8))
    }

    /// The key of this name in QEMU's monitor: `ret`, `f1`, `ctrl_r`.
    pub fn named(name: &str) -> Option<Key> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        Key::find(|row| row.name == name)
    }

    /// The key with this code in scan code set 1; those with the prefix 0xe0 have bit 7 set, as in QEMU's `sendkey 0x9c`.
    pub fn of_code(code: u8) -> Option<Key> {
        let code = u16::from(code & 0x7f) | if code & 0x80 != 0 { E0 } else { 0 };
        Key::find(|row| row.set_1 == code)
    }

    /// The key that types this X keysym on a US keyboard, and whether Shift belongs to it.
    pub fn of_keysym(keysym: u32) -> Option<(Key, bool)> {
        let with = |shift: usize| Key::find(|row| keysym != 0 && row.keysyms[shift] == keysym);
        with(0).map(|key| (key, false)).or_else(|| with(1).map(|key| (key, true)))
    }

    /// The key that types this character on a US keyboard, and whether Shift belongs to it.
    pub fn of_char(character: char) -> Option<(Key, bool)> {
        match character {
            ' '..='~' => Key::of_keysym(u32::from(character)),
            '\n' | '\r' => Key::named("ret").map(|key| (key, false)),
            '\t' => Key::named("tab").map(|key| (key, false)),
            '\x08' | '\x7f' => Key::named("backspace").map(|key| (key, false)),
            '\x1b' => Key::named("esc").map(|key| (key, false)),
            _ => None,
        }
    }

    /// The key's name in QEMU's monitor.
    pub fn name(self) -> &'static str {
        KEYS.get(usize::from(self.0)).map_or("", |row| row.name)
    }

    /// The key's number among all keys.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// The key at this place.
    pub fn of_number(number: usize) -> Option<Key> {
        (number < Key::COUNT).then_some(Key(number as u8))
    }

    /// The names of all keys.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|row| row.name)
    }

    /// Whether it goes on sending while it is held.
    pub(crate) fn repeats(self) -> bool {
        !matches!(self.name(), "pause")
    }

    /// What the keyboard sends when it is pressed or released.
    pub(crate) fn codes(self, set: ScanCodes, down: bool) -> Vec<u8> {
        let Some(row) = KEYS.get(usize::from(self.0)) else { return Vec::new() };
        if row.name == "pause" {
            let bytes = if set == ScanCodes::One { PAUSE[0] } else { PAUSE[1] };
            return if down { bytes.to_vec() } else { Vec::new() };
        }
        let mut bytes = Vec::new();
        let code = match set {
            ScanCodes::One => row.set_1,
            ScanCodes::Two => row.set_2,
        };
        if code & E0 != 0 {
            bytes.push(0xe0);
        }
        let code = code as u8;
        match (set, down) {
            (_, true) => bytes.push(code),
            (ScanCodes::One, false) => bytes.push(code | 0x80),
            (ScanCodes::Two, false) => bytes.extend([0xf0, code]),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_codes_and_keysyms_are_unique() {
        let unique = |values: Vec<u32>| {
            let mut seen = HashSet::new();
            values.into_iter().filter(|value| *value != 0).all(|value| seen.insert(value))
        };
        assert!(unique(KEYS.iter().map(|row| row.set_1.into()).collect()));
        assert!(unique(KEYS.iter().map(|row| row.set_2.into()).collect()));
        assert!(unique(KEYS.iter().flat_map(|row| row.keysyms).collect()));
        assert_eq!(Key::names().collect::<HashSet<_>>().len(), Key::COUNT);
        assert!(ALIASES.iter().all(|(alias, name)| Key::named(name).is_some() && !Key::names().any(|n| n == *alias)));
    }

    #[test]
    fn keys_are_found_by_what_they_are() {
        let key = Key::named("slash").expect("a key");
        assert_eq!((Key::of_keysym(0x2f), Key::of_keysym(0x3f)), (Some((key, false)), Some((key, true))));
        assert_eq!((Key::of_char('?'), Key::of_code(0x35)), (Some((key, true)), Some(key)));
        assert_eq!(Key::of_code(0x9c), Key::named("kp_enter"));
        assert_eq!(Key::of_keysym(0), None);
        assert_eq!((Key::named("enter"), Key::named("nonsense")), (Key::named("ret"), None));
        assert!((' '..='~').all(|character| Key::of_char(character).is_some()));
        assert_eq!(Key::of_number(key.number()), Some(key));
        assert_eq!(Key::of_number(Key::COUNT), None);
    }

    #[test]
    fn codes_of_both_sets() {
        for (name, set, down, codes) in [
            ("a", ScanCodes::One, true, &[0x1e][..]),
            ("a", ScanCodes::One, false, &[0x9e]),
            ("a", ScanCodes::Two, true, &[0x1c]),
            ("a", ScanCodes::Two, false, &[0xf0, 0x1c]),
            ("up", ScanCodes::One, false, &[0xe0, 0xc8]),
            ("up", ScanCodes::Two, false, &[0xe0, 0xf0, 0x75]),
            ("pause", ScanCodes::One, true, &[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]),
            ("pause", ScanCodes::Two, false, &[]),
        ] {
            assert_eq!(Key::named(name).expect("a key").codes(set, down), codes, "{name}");
        }
    }
}
