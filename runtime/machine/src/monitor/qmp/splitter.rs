//! Cuts what a client sends into objects.

/// Longest object in bytes.
const OBJECT: usize = 1 << 20;

/// Cuts a stream of bytes into JSON objects by their braces.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// An object that is too long is being skipped.
    overflown: bool,
}

/// What a splitter found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Object(Vec<u8>),
    TooLong,
    /// Something that no object begins with.
    Garbage,
}

impl Splitter {
    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> Option<Piece> {
        if self.depth == 0 {
            return match byte {
                b' ' | b'\t' | b'\r' | b'\n' => None,
                b'{' => {
                    self.bytes.clear();
                    self.bytes.push(byte);
                    self.depth = 1;
                    self.overflown = false;
                    None
                }
                _ => Some(Piece::Garbage),
            };
        }
        if self.bytes.len() < OBJECT {
            self.bytes.push(byte);
        } else {
            self.overflown = true;
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return None;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        if self.depth > 0 {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        Some(if self.overflown { Piece::TooLong } else { Piece::Object(bytes) })
    }
}

impl Splitter {
    /// Whether no object has begun.
    pub fn is_idle(&self) -> bool {
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &[u8]) -> Vec<Piece> {
        let mut splitter = Splitter::default();
        bytes.iter().filter_map(|&byte| splitter.push(byte)).collect()
    }

    #[test]
    fn objects_end_with_their_last_brace() {
        let two = br#" {"a": "}\"{", "b": [{}, 1]}{"c":1}"#;
        let expected = [&br#"{"a": "}\"{", "b": [{}, 1]}"#[..], br#"{"c":1}"#];
        assert_eq!(pieces(two), expected.map(|object| Piece::Object(object.to_vec())));
        assert_eq!(pieces(b"x{}"), [Piece::Garbage, Piece::Object(b"{}".to_vec())]);
    }

    #[test]
    fn an_object_without_an_end_takes_no_memory_without_an_end() {
        let mut splitter = Splitter::default();
        splitter.push(b'{');
        assert!((0..3 * OBJECT).all(|_| splitter.push(b' ').is_none()));
        assert!(splitter.bytes.len() <= OBJECT);
        assert_eq!(splitter.push(b'}'), Some(Piece::TooLong));
        assert_eq!(splitter.push(b'{'), None);
        assert_eq!(splitter.push(b'}'), Some(Piece::Object(b"{}".to_vec())));
    }
}
