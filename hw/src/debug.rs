//! Debugging ports: POST code, debug exit and debug console.

use serde::{Deserialize, Serialize};

/// The POST diagnostic port, 0x80. Guests also write it for its delay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PostCode {
    last: u8,
}

impl PostCode {
    pub(crate) fn read(&self) -> u8 {
        self.last
    }

    pub(crate) fn write(&mut self, value: u8) {
        self.last = value;
    }
}

/// The process exit code for a write of `value` to the debug exit port: odd, so that it is never success.
pub(crate) fn debug_exit_code(value: u32) -> u8 {
    let [low, ..] = value.to_le_bytes();
    (low << 1) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_odd() {
        assert_eq!(debug_exit_code(0), 1);
        assert_eq!(debug_exit_code(0x10), 0x21);
        assert_eq!(debug_exit_code(0xffff_ff80), 1);
    }

    #[test]
    fn post_code_keeps_the_last_value_across_a_save() {
        let mut post = PostCode::default();
        post.write(0x55);
        post.write(0xaa);
        let back: PostCode = postcard::from_bytes(&postcard::to_stdvec(&post).unwrap()).unwrap();
        assert_eq!(back.read(), 0xaa);
    }
}
