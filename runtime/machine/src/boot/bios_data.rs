//! What a PC's BIOS leaves in memory, for a kernel that starts without one: interrupt vectors, the BIOS data area and the extended
//! one (IBM PC/AT technical reference, "Compatibility BIOS"; Ralf Brown's interrupt list, "MEMORY.LST"). The vectors lead to
//! handlers that do nothing but end: there is nobody who would answer.

use super::layout::CONVENTIONAL_END;

/// Where the BIOS' own code is: what answers interrupts, from this offset of its segment on.
const BIOS_SEGMENT: u16 = 0xf000;
/// Nothing else is at or above this address of the BIOS' segment.
pub const HANDLERS: u64 = 0xf_ff00;
/// An interrupt of no device, and those of the first and the second 8259A.
const NOTHING: (u16, &[u8]) = (0xff53, &[0xcf]);
/// PUSH AX; MOV AL, 20h; OUT 20h, AL; POP AX; IRET.
const FIRST_8259A: (u16, &[u8]) = (0xff00, &[0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]);
/// The same with OUT A0h, AL before.
const SECOND_8259A: (u16, &[u8]) = (0xff10, &[0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]);
/// Where the processor is reset to: MOV DX, CF9h; MOV AL, 6; OUT DX, AL; HLT.
const RESET: (u16, &[u8]) = (0xfff0, &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4]);

const VECTORS: usize = 256;
const DATA_AREA: u64 = 0x400;
const DATA_AREA_SIZE: usize = 0x100;

/// What is attached: an FPU and a mouse; an initial video mode of 80 columns in color; how far left the number of serial ports is.
const EQUIPMENT: u16 = 0x0006;
const EQUIPMENT_COLOR: u16 = 0x20;
const EQUIPMENT_SERIAL: u32 = 9;
/// The keyboard's buffer, first and last offset in the area, which is empty.
const KEYS: (u16, u16) = (0x1e, 0x3e);
/// The color adapter's index register.
const CRTC: u16 = 0x3d4;

/// Pieces of memory by guest-physical address; with a screen it is in text mode, 80 by 25. `serials` are the first ports of up to
/// four serial ports.
pub fn bios_data(screen: bool, serials: &[u16]) -> Vec<(u64, Vec<u8>)> {
    let code = |(offset, bytes): (u16, &[u8])| (u64::from(BIOS_SEGMENT) * 16 + u64::from(offset), bytes.to_vec());
    let mut pieces = vec![(0, vectors()), (DATA_AREA, data_area(screen, serials)), (CONVENTIONAL_END, extended_area())];
    pieces.extend([NOTHING, FIRST_8259A, SECOND_8259A, RESET].map(code));
    pieces
}

fn vectors() -> Vec<u8> {
    let handler = |vector| match vector {
        0x08..=0x0f => FIRST_8259A.0,
        0x70..=0x77 => SECOND_8259A.0,
        _ => NOTHING.0,
    };
    (0..VECTORS).flat_map(|vector| [handler(vector), BIOS_SEGMENT].map(u16::to_le_bytes)).flatten().collect()
}

fn data_area(screen: bool, serials: &[u16]) -> Vec<u8> {
    let conventional_kib = (CONVENTIONAL_END / 1024) as u16;
    let equipment =
        EQUIPMENT | if screen { EQUIPMENT_COLOR } else { 0 } | (serials.len() as u16 & 7) << EQUIPMENT_SERIAL;
    let ports = (0..8).step_by(2).zip(serials.iter().copied());
    let words = [
        (0x0e, (CONVENTIONAL_END / 16) as u16),
        (0x10, equipment),
        (0x13, conventional_kib),
        (0x1a, KEYS.0),
        (0x1c, KEYS.0),
        (0x80, KEYS.0),
        (0x82, KEYS.1),
        // Time-outs of the serial port, and an enhanced keyboard.
        (0x7c, 0x0a),
        (0x96, 0x10),
    ];
    let of_screen = [
        // Mode, columns, bytes of a page, the cursor's lines, port.
        (0x49, 3),
        (0x4a, 80),
        (0x4c, 0x1000),
        (0x60, 0x0607),
        (0x63, CRTC),
        // Lines less one, and a character's height.
        (0x84, 24),
        (0x85, 16),
        (0x87, 0xf960),
    ];
    let mut area = vec![0; DATA_AREA_SIZE];
    for (offset, word) in words.into_iter().chain(ports).chain(of_screen.into_iter().filter(|_| screen)) {
        area.iter_mut().skip(offset).zip(u16::to_le_bytes(word)).for_each(|(place, byte)| *place = byte);
    }
    area
}

/// Its first byte is its size in KiB.
fn extended_area() -> Vec<u8> {
    vec![1, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_leads_to_code_that_returns() {
        let pieces = bios_data(true, &[0x3f8]);
        let piece = |address: u64| &pieces.iter().find(|piece| piece.0 == address).expect("it is there").1;
        let vectors = piece(0);
        for vector in vectors.chunks(4) {
            let word = |at: usize| u64::from(u16::from_le_bytes([vector[at], vector[at + 1]]));
            assert_eq!(piece(word(2) * 16 + word(0)).last(), Some(&0xcf));
        }
        assert_eq!(vectors.len(), 0x400);
        let area = piece(DATA_AREA);
        assert_eq!((&area[..2], &area[0x0e..0x11], area[0x49]), (&[0xf8, 3][..], &[0xc0, 0x9f, 0x26][..], 3));
        assert_eq!((area[0x10], u16::from_le_bytes([area[0x13], area[0x14]])), (0x26, 639));
        assert!(pieces.iter().all(|(address, _)| *address < 0xa_0000 || *address >= HANDLERS));
        let without = &bios_data(false, &[])[1].1;
        assert_eq!((&without[..2], without[0x10], without[0x49]), (&[0, 0][..], 0x06, 0));
    }
}
