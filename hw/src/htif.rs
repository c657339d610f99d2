//! The host-target interface: two words of memory by which bare-metal test programs end and print (Spike's "HTIF"; riscv-tests
//! and the proxy kernel use it). A word is a device in bits 63..56, a command in bits 55..48 and a payload.

/// Device 0: system calls.
const SYSCALL: u64 = 0;
/// Device 1: the console.
const CONSOLE: u64 = 1;
/// Command of device 1: print one character.
const PUT: u64 = 1;
/// Command of device 1: read one character.
const GET: u64 = 0;
/// Linux's number of write, the one system call that programs without an operating system make.
const SYS_WRITE: u64 = 64;
/// The most bytes that one write prints; a program that prints more is told how many it were.
const MAX_WRITE: u64 = 4096;

/// Bytes of a system call's arguments in memory: number and three arguments.
pub(crate) const CALL_SIZE: usize = 32;

/// What a word in `tohost` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing.
    Nothing,
    /// The program ends with this code.
    Exit(u8),
    /// The system call whose arguments are at this address.
    Call(u64),
    /// Print this character.
    Put(u8),
    /// Read a character: there never is one.
    Get,
    /// Something else.
    Unknown,
}

/// Reads a word of `tohost`.
pub(crate) fn request(tohost: u64) -> Request {
    let payload = tohost & 0xffff_ffff_ffff;
    match (tohost >> 56, tohost >> 48 & 0xff) {
        _ if tohost == 0 => Request::Nothing,
        (SYSCALL, 0) if payload & 1 != 0 => Request::Exit(u8::try_from(payload >> 1).unwrap_or(u8::MAX)),
        (SYSCALL, 0) => Request::Call(payload),
        (CONSOLE, PUT) => Request::Put(payload as u8),
        (CONSOLE, GET) => Request::Get,
        _ => Request::Unknown,
    }
}

/// Address and length of what a system call with these arguments prints, if it prints.
pub(crate) fn printed(arguments: &[u8; CALL_SIZE]) -> Option<(u64, u64)> {
    let word = |index: usize| arguments.get(8 * index..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let (number, address, len) = (word(0)?, word(2)?, word(3)?);
    (number == SYS_WRITE).then_some((address, len.min(MAX_WRITE)))
}

/// What `fromhost` holds to answer `tohost` with `value`.
pub(crate) fn answer(tohost: u64, value: u64) -> u64 {
    tohost & 0xffff << 48 | value & 0xffff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, expected) in [
            (0, Request::Nothing),
            (1, Request::Exit(0)),
            (3 << 1 | 1, Request::Exit(3)),
            (300 << 1 | 1, Request::Exit(255)),
            (0x8000_1000, Request::Call(0x8000_1000)),
            (0x0101_0000_0000_0041, Request::Put(b'A')),
            (0x0100_0000_0000_0000, Request::Get),
            (0x0200_0000_0000_0001, Request::Unknown),
            (u64::MAX, Request::Unknown),
        ] {
            assert_eq!(request(word), expected, "{word:#x}");
        }
        assert_eq!(answer(0x0101_0000_0000_0041, 1), 0x0101_0000_0000_0001);
    }

    #[test]
    fn only_write_prints_and_no_more_than_a_bound() {
        let call = |number: u64, len: u64| {
            let mut bytes = [0; CALL_SIZE];
            for (i, word) in [number, 1, 0x8000_2000, len].iter().enumerate() {
                bytes[8 * i..8 * i + 8].copy_from_slice(&word.to_le_bytes());
            }
            bytes
        };
        assert_eq!(printed(&call(64, 5)), Some((0x8000_2000, 5)));
        assert_eq!(printed(&call(64, u64::MAX)), Some((0x8000_2000, MAX_WRITE)));
        assert_eq!(printed(&call(63, 5)), None);
    }
}
