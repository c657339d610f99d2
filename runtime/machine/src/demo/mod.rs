//! The guest that runs when the user names none: a small kernel, assembled here, that goes through what a PC kernel
//! needs of its processor and its board, does some work that gets hot, says on COM1 what it did, and powers off.
//!
//! It needs a PC with 4 MiB of RAM, 8259A, 8254, a 16550A at 0x3f8, an ACPI PM timer at 0x608 and PM1a control at
//! 0x604, and an x86-64 processor with NX and SSE2. Real machines and other emulators run it too, started from any
//! boot loader that places it.

mod console;
mod kernel;
mod layout;
mod protected;
mod real;
mod stages;
mod traps;
mod user;
mod work;

use iced_x86::IcedError;
use layout::{GDT_POINTER, KERNEL, PROTECTED, REAL, USER};
use thiserror::Error;

/// The PM1a control port, and SLP_TYP 0, which is S5, with SLP_EN.
const POWER_OFF_PORT: u32 = 0x604;
const POWER_OFF_VALUE: u32 = 0x2000;

/// What emitting and assembling results in.
type Asm<T = ()> = Result<T, IcedError>;

/// The demo guest, to be placed in guest RAM and started in real mode with CS:IP = [`Self::entry_segment`] :
/// [`Self::entry_offset`] and everything else as after a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoImage {
    /// Guest-physical address of the first byte.
    pub load_address: u64,
    /// The image, below 64 KiB.
    pub bytes: Vec<u8>,
    /// CS; its base is 16 times this.
    pub entry_segment: u16,
    /// IP.
    pub entry_offset: u16,
}

/// Why there is no demo: a mistake in it, since it takes no input.
#[derive(Debug, Error)]
pub enum DemoError {
    /// An instruction does not exist or a label is missing.
    #[error("the demo does not assemble: {0}")]
    Assemble(#[from] IcedError),
    /// A part of the image does not fit its place.
    #[error("the demo's {what} has {size} bytes and room for {room}")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// Bytes that it may have.
        room: usize,
    },
}

/// Assembles the demo guest.
///
/// # Errors
///
/// Only if the demo itself is wrong.
pub fn image() -> Result<DemoImage, DemoError> {
    let (real, entry_offset) = real::assemble()?;
    let user = user::assemble()?;
    let parts = [
        ("16-bit code", REAL, GDT_POINTER, real),
        ("GDT", GDT_POINTER, PROTECTED, real::gdt()),
        ("32-bit code", PROTECTED, KERNEL, protected::assemble()?),
        ("64-bit code", KERNEL, USER, kernel::assemble(&user)?),
        ("ring-3 program", USER, USER + layout::PAGE, user.bytes),
    ];
    let mut bytes = Vec::new();
    for (what, start, end, part) in parts {
        let room = (end - start) as usize;
        if part.len() > room {
            return Err(DemoError::TooLarge { what, size: part.len(), room });
        }
        bytes.resize((start - REAL) as usize, 0);
        bytes.extend(part);
    }
    Ok(DemoImage { load_address: REAL as u64, bytes, entry_segment: (REAL >> 4) as u16, entry_offset })
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    use super::*;

    /// The first `N` instructions at `address`.
    fn decode<const N: usize>(image: &DemoImage, bits: u32, address: u64) -> [Mnemonic; N] {
        let bytes = &image.bytes[(address - image.load_address) as usize..];
        let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
        std::array::from_fn(|_| decoder.decode().mnemonic())
    }

    #[test]
    fn assembles_for_every_code_size() {
        let image = image().unwrap();
        assert_eq!(image.load_address, u64::from(image.entry_segment) * 16);
        let entry = image.load_address + u64::from(image.entry_offset);
        assert_eq!(decode(&image, 16, entry), [Mnemonic::Cli, Mnemonic::Cld, Mnemonic::Mov]);
        assert_eq!(decode(&image, 16, image.load_address), [Mnemonic::Mov, Mnemonic::Iret]);
        let loads = [Mnemonic::Mov; 5];
        assert_eq!(decode(&image, 32, PROTECTED as u64), loads);
        assert_eq!(decode(&image, 64, KERNEL as u64), [Mnemonic::Mov, Mnemonic::Mov, Mnemonic::Mov, Mnemonic::Mov]);
        assert_eq!(decode(&image, 64, USER as u64), [Mnemonic::Lea, Mnemonic::Mov]);
        assert!(image.bytes.len() <= 0x1_0000, "real mode's segment holds the image");
    }

    #[test]
    fn texts_leave_room_for_the_verdict() {
        let image = image().unwrap();
        let texts = image.bytes.split(|byte| !(b' '..=b'~').contains(byte)).filter(|text| text.starts_with(b"  "));
        let texts: Vec<_> = texts.map(String::from_utf8_lossy).filter(|text| text.len() > 8).collect();
        assert!(texts.len() > 15, "{texts:?}");
        for text in texts {
            assert!(text.trim_end_matches("ok").trim_end().len() <= console::TEXT_END, "{text}");
        }
    }

    #[test]
    fn is_the_same_every_time() {
        assert_eq!(image().unwrap(), image().unwrap());
    }

    #[test]
    fn powers_off_by_entering_s5() {
        let (sleep_type, sleep_enable) = (0, 1 << 13);
        assert_eq!(POWER_OFF_VALUE, sleep_type << 10 | sleep_enable);
        // mov dx, 0x604; mov ax, 0x2000; out dx, ax
        let write = [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef];
        let kernel = &image().unwrap().bytes[(KERNEL - REAL) as usize..];
        assert!(kernel.windows(write.len()).any(|bytes| bytes == write));
    }
}
