//! The SiFive test finisher: one register that ends the run (device tree binding "sifive,test0"; `syscon-poweroff` and
//! `syscon-reboot` write it).

/// Size in bytes of its registers.
pub(crate) const SIZE: u64 = 0x1000;

/// Written to power off.
pub(crate) const PASS: u32 = 0x5555;
/// Written to reset.
pub(crate) const RESET: u32 = 0x7777;
/// Written, in the low half, to end with the exit code in the high half.
pub(crate) const FAIL: u32 = 0x3333;

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Power off.
    PowerOff,
    /// Reset.
    Reset,
    /// End with this exit code.
    Fail(u8),
}

/// What a write of `value` at `offset` asks for.
pub(crate) fn finish(offset: u64, value: u32) -> Option<Finish> {
    if offset != 0 {
        return None;
    }
    match value & 0xffff {
        PASS => Some(Finish::PowerOff),
        RESET => Some(Finish::Reset),
        // A process's exit code has eight bits; failure must not become success.
        FAIL => Some(Finish::Fail(u8::try_from(value >> 16).unwrap_or(u8::MAX).max(1))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finishes() {
        for (value, expected) in [
            (0x5555, Some(Finish::PowerOff)),
            (0x1234_7777, Some(Finish::Reset)),
            (0x0003_3333, Some(Finish::Fail(3))),
            (0x0100_3333, Some(Finish::Fail(255))),
            (0x0000_3333, Some(Finish::Fail(1))),
            (0x1111, None),
        ] {
            assert_eq!(finish(0, value), expected, "{value:#x}");
        }
        assert_eq!(finish(4, 0x5555), None);
    }
}
