//! What a terminal sends, as keys of a keyboard.

use mimus_hw::keys::Key;

const ESCAPE: u8 = 0x1b;

/// What terminals send after ESC [ or ESC O for keys that type nothing, with the key's name.
const FINAL: [(u8, &str); 12] = [
    (b'A', "up"),
    (b'B', "down"),
    (b'C', "right"),
    (b'D', "left"),
    (b'F', "end"),
    (b'H', "home"),
    (b'P', "f1"),
    (b'Q', "f2"),
    (b'R', "f3"),
    (b'S', "f4"),
    (b'Z', "tab"),
    (b'M', "kp_enter"),
];

/// The same with a number and a tilde.
const NUMBERED: [(u16, &str); 20] = [
    (1, "home"),
    (2, "insert"),
    (3, "delete"),
    (4, "end"),
    (5, "pgup"),
    (6, "pgdn"),
    (7, "home"),
    (8, "end"),
    (11, "f1"),
    (12, "f2"),
    (13, "f3"),
    (14, "f4"),
    (15, "f5"),
    (17, "f6"),
    (18, "f7"),
    (19, "f8"),
    (20, "f9"),
    (21, "f10"),
    (23, "f11"),
    (24, "f12"),
];

/// Longer sequences are none that a key sends.
const LONGEST: usize = 16;

/// Keys held while another is struck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    shift: bool,
    alt: bool,
    ctrl: bool,
}

/// Turns what a terminal sends into what happens on a keyboard.
#[derive(Debug, Default)]
pub struct Typist;

impl Typist {
    /// The first key in `bytes`, which are not empty: how many of them it takes, and what is pressed and released in order. A
    /// sequence that is not complete stands for the keys of its characters: terminals send them in one piece.
    pub fn next(&mut self, bytes: &[u8]) -> (usize, Vec<(Key, bool)>) {
        match bytes {
            [ESCAPE, b'[' | b'O', ..] => match sequence(bytes) {
                Some((used, name, held)) => (used, strokes(Key::named(name), held)),
                None => (1, strokes(Key::named("esc"), Held::default())),
            },
            // Alt and a character.
            [ESCAPE, character @ 0x20..=0x7e, ..] => {
                let (key, held) = character_key(*character);
                (2, strokes(key, Held { alt: true, ..held }))
            }
            [byte, ..] => {
                let (key, held) = character_key(*byte);
                (1, strokes(key, held))
            }
            [] => (0, Vec::new()),
        }
    }
}

/// A sequence at the beginning of `bytes`: its length, the key's name, and what is held (xterm's parameters: one more than the sum
/// of Shift 1, Alt 2, Ctrl 4).
fn sequence(bytes: &[u8]) -> Option<(usize, &'static str, Held)> {
    let end = bytes.iter().take(LONGEST).skip(2).position(|byte| (0x40..=0x7e).contains(byte))? + 2;
    let last = *bytes.get(end)?;
    let parameters = std::str::from_utf8(bytes.get(2..end)?).ok()?;
    let mut numbers = parameters.split(';').map(|number| number.parse::<u16>().unwrap_or(1));
    let first = numbers.next().unwrap_or(1);
    let modifiers = numbers.next().unwrap_or(1).wrapping_sub(1);
    let name = match last {
        b'~' => NUMBERED.iter().find(|(number, _)| *number == first)?.1,
        _ => FINAL.iter().find(|(byte, _)| *byte == last)?.1,
    };
    let shift = modifiers & 1 != 0 || last == b'Z';
    Some((end + 1, name, Held { shift, alt: modifiers & 2 != 0, ctrl: modifiers & 4 != 0 }))
}

/// The key that types a byte, and what is held for it.
fn character_key(byte: u8) -> (Option<Key>, Held) {
    match byte {
        b'\r' | b'\n' | b'\t' | 0x08 | 0x7f | ESCAPE => {
            (Key::of_char(char::from(byte)).map(|(key, _)| key), Held::default())
        }
        // Ctrl and a letter, or one of the signs after the letters.
        0..=0x1f => {
            let sign = if byte == 0 { b' ' } else { (byte + 0x40).to_ascii_lowercase() };
            let found = Key::of_char(char::from(sign));
            let shift = found.is_some_and(|(_, shift)| shift);
            (found.map(|(key, _)| key), Held { ctrl: true, shift, alt: false })
        }
        _ => {
            let found = Key::of_char(char::from(byte));
            let shift = found.is_some_and(|(_, shift)| shift);
            (found.map(|(key, _)| key), Held { shift, ..Held::default() })
        }
    }
}

/// Presses what is held and the key, and releases them. Nothing without a key.
fn strokes(key: Option<Key>, held: Held) -> Vec<(Key, bool)> {
    let Some(key) = key else { return Vec::new() };
    let modifiers = [(held.ctrl, "ctrl"), (held.alt, "alt"), (held.shift, "shift")];
    let mut keys: Vec<Key> = modifiers.iter().filter(|(on, _)| *on).filter_map(|(_, name)| Key::named(name)).collect();
    keys.push(key);
    let releases: Vec<(Key, bool)> = keys.iter().rev().map(|key| (*key, false)).collect();
    keys.into_iter().map(|key| (key, true)).chain(releases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(mut bytes: &[u8]) -> String {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (used, strokes) = Typist.next(bytes);
            assert!(used > 0);
            bytes = &bytes[used..];
            let (down, up) = strokes.split_at(strokes.len() / 2);
            assert!(down.iter().all(|(_, down)| *down) && up.iter().all(|(_, down)| !down));
            assert!(down.iter().map(|(key, _)| key).eq(up.iter().rev().map(|(key, _)| key)));
            out.push(down.iter().map(|(key, _)| key.name()).collect::<Vec<_>>().join("-"));
        }
        out.join(" ")
    }

    #[test]
    fn what_terminals_send_is_typed() {
        for (bytes, keys) in [
            (&b"aA?\r"[..], "a shift-a shift-slash ret"),
            (b"\x03\x1c\x00\x7f\t", "ctrl-c ctrl-backslash ctrl-spc backspace tab"),
            (b"\x1b[A\x1bOB\x1b[5~\x1b[24~\x1bOP", "up down pgup f12 f1"),
            (b"\x1b[1;5C\x1b[3;2~\x1b[Z", "ctrl-right shift-delete shift-tab"),
            (b"\x1b", "esc"),
            (b"\x1bx\x1bX", "alt-x alt-shift-x"),
            (b"\x1b\x1b", "esc esc"),
            (b"\x1b[", "esc bracket_left"),
            (b"\x1b[99~", "esc bracket_left 9 9 shift-grave_accent"),
            ("ä".as_bytes(), " "),
        ] {
            assert_eq!(typed(bytes), keys, "{bytes:?}");
        }
    }
}
