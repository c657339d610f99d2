//! The SMBIOS structures that firmware passes on (System Management BIOS Reference Specification 2.8).

/// Bytes of the 32-bit entry point (5.2.1).
const ANCHOR_SIZE: usize = 31;
/// Handles of structures.
const CHASSIS: u16 = 0x300;
const PROCESSOR: u16 = 0x400;
const MEMORY_ARRAY: u16 = 0x1000;
const MEMORY_DEVICE: u16 = 0x1100;

struct Structures {
    bytes: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Structures {
    /// Adds a structure of type `kind`: what follows its header, and its strings.
    fn add(&mut self, kind: u8, handle: u16, body: &[&[u8]], strings: &[&str]) {
        let start = self.bytes.len();
        let body = body.concat();
        self.bytes.extend([kind, 4 + body.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(body);
        for string in strings {
            self.bytes.extend(string.bytes());
            self.bytes.push(0);
        }
        // Two zeros end a structure, also one without strings (6.1.3).
        self.bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
        self.count += 1;
        self.largest = self.largest.max((self.bytes.len() - start) as u16);
    }
}

/// The entry point, whose address and checksums firmware fills in, and the structures of a machine.
pub(crate) fn build(ram_size: u64, cpus: u8) -> (Vec<u8>, Vec<u8>) {
    let mut s = Structures { bytes: Vec::new(), count: 0, largest: 0 };
    let word = u16::to_le_bytes;
    let double = u32::to_le_bytes;
    // System: maker, product, version, serial number, UUID, wake-up by the power switch, SKU and family (7.2).
    s.add(1, 0x100, &[&[1, 2, 3, 0], &[0; 16], &[6, 0, 0]], &["mimus", "Standard PC (i440FX + PIIX, 1996)", "pc"]);
    // Chassis: maker, other, version, no serial number or tag, states safe, nothing else (7.4).
    s.add(3, CHASSIS, &[&[1, 1, 2, 0, 0, 3, 3, 3, 2], &[0; 4], &[0, 0, 0, 0]], &["mimus", "pc"]);
    for cpu in 0..u16::from(cpus.max(1)) {
        // Processor: socket, central, family "other", maker, no ID, version, voltage and clocks unknown, enabled (7.5).
        let parts: [&[u8]; 4] = [&[1, 3, 1, 2], &[0; 8], &[3, 0], &[0; 6]];
        // One core, one thread of it, nothing of caches and numbers known.
        let rest: [&[u8]; 6] = [&[0x41, 1], &[0xff; 6], &[0, 0, 0], &[1, 1, 1], &word(2), &word(1)];
        s.add(4, PROCESSOR + cpu, &[&parts[..], &rest[..]].concat(), &["CPU 0", "mimus", "pc"]);
    }
    // Memory array: on the board, for the system, no known error correction, its size in KiB (7.17).
    let kib = u32::try_from(ram_size >> 10).unwrap_or(u32::MAX).min(0x7fff_ffff);
    s.add(16, MEMORY_ARRAY, &[&[1, 3, 6], &double(kib), &word(0xfffe), &word(1)], &[]);
    // Memory device: in that array, widths unknown, its size in MiB, a DIMM of RAM (7.18).
    let mib = ram_size >> 20;
    let small = if mib < 0x7fff { mib as u16 } else { 0x7fff };
    let large = if mib < 0x7fff { 0 } else { u32::try_from(mib).unwrap_or(u32::MAX).min(0x7fff_ffff) };
    let head: [&[u8]; 6] =
        [&word(MEMORY_ARRAY), &word(0xfffe), &word(0xffff), &word(0xffff), &word(small), &[9, 0, 1, 0, 7]];
    let tail: [&[u8]; 5] = [&word(2), &word(0), &[2, 0, 0, 0, 0], &double(large), &[0; 8]];
    s.add(17, MEMORY_DEVICE, &[&head[..], &tail[..]].concat(), &["DIMM 0", "mimus"]);
    // Where the array is: first and last KiB of each piece (7.20).
    let low = crate::low_ram_size(ram_size);
    for (index, (start, size)) in [(0, low), (1 << 32, ram_size - low)].into_iter().enumerate() {
        if let (1.., Ok(first), Ok(last)) =
            (size, u32::try_from(start >> 10), u32::try_from((start + size).saturating_sub(1) >> 10))
        {
            let body: [&[u8]; 4] = [&double(first), &double(last), &word(MEMORY_ARRAY), &[1]];
            s.add(19, 0x1300 + index as u16, &[&body[..], &[&[0; 16]]].concat(), &[]);
        }
    }
    // Boot status: no errors (7.33); and the end (7.45).
    s.add(32, 0x2000, &[&[0; 7]], &[]);
    s.add(127, 0x7f00, &[], &[]);

    let mut anchor = b"_SM_\0".to_vec();
    // Length, version 2.8, the largest structure, revision 0.
    anchor.extend([ANCHOR_SIZE as u8, 2, 8]);
    anchor.extend(word(s.largest));
    anchor.extend([0; 6]);
    anchor.extend(b"_DMI_\0");
    anchor.extend(word(s.bytes.len() as u16));
    anchor.extend(double(0));
    anchor.extend(word(s.count));
    anchor.push(0x28);
    (anchor, s.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_follow_each_other_to_the_end() {
        for ram_size in [64 << 20, 5 << 30, 1 << 40] {
            let (anchor, bytes) = build(ram_size, 2);
            assert_eq!(anchor.len(), ANCHOR_SIZE);
            assert_eq!(usize::from(u16::from_le_bytes([anchor[22], anchor[23]])), bytes.len());
            let (mut at, mut kinds) = (0, Vec::new());
            while at < bytes.len() {
                kinds.push(bytes[at]);
                at += usize::from(bytes[at + 1]);
                at += bytes[at..].windows(2).position(|pair| pair == [0, 0]).unwrap() + 2;
            }
            assert_eq!(at, bytes.len());
            assert_eq!(usize::from(u16::from_le_bytes([anchor[28], anchor[29]])), kinds.len());
            assert_eq!((kinds[0], kinds.last()), (1, Some(&127)));
        }
    }

    #[test]
    fn lengths_are_those_of_version_2_8() {
        let (_, bytes) = build(1 << 30, 1);
        let (mut at, mut lengths) = (0, Vec::new());
        while at < bytes.len() {
            lengths.push((bytes[at], bytes[at + 1]));
            at += usize::from(bytes[at + 1]);
            at += bytes[at..].windows(2).position(|pair| pair == [0, 0]).unwrap() + 2;
        }
        let expected = [(1, 0x1b), (3, 0x15), (4, 0x2a), (16, 0x0f), (17, 0x28), (19, 0x1f), (32, 0x0b), (127, 4)];
        assert_eq!(lengths, expected);
    }
}
