//! The MP configuration table for guests without ACPI (MultiProcessor Specification 1.4, chapter 4).

use crate::{ioapic, ioapic::RESET_ID as IOAPIC_ID, lapic};

const ISA_BUS: u8 = 0;
/// CPU signature and feature flags of a generic P6: family 6, with FPU and APIC on chip.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES: u32 = 0x201;
/// Interrupt types of table 4-11 and the flags "conforms to the bus" and "active high, level".
const TYPE_INT: u8 = 0;
const TYPE_NMI: u8 = 1;
const TYPE_EXTINT: u8 = 3;
const FLAGS_BUS: u16 = 0;
const FLAGS_HIGH_LEVEL: u16 = 0x0d;

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// An interrupt assignment entry: 3 for the I/O APIC, 4 for local APICs.
fn assignment(kind: u8, interrupt: u8, flags: u16, source: u8, apic: u8, pin: u8) -> [u8; 8] {
    let [low, high] = flags.to_le_bytes();
    [kind, interrupt, low, high, ISA_BUS, source, apic, pin]
}

/// The floating pointer structure, for `address` (16-byte aligned), followed by the table it points to.
pub(crate) fn build(address: u32, cpus: u8, sci_irq: u8) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count: u16 = 0;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for cpu in 0..cpus {
        let mut entry = vec![0, cpu, 0x14, 1 | if cpu == 0 { 2 } else { 0 }];
        entry.extend_from_slice(&CPU_SIGNATURE.to_le_bytes());
        entry.extend_from_slice(&CPU_FEATURES.to_le_bytes());
        entry.extend_from_slice(&[0; 8]);
        add(&entry);
    }
    add(b"\x01\x00ISA   ");
    let [a, b, c, d] = (ioapic::BASE as u32).to_le_bytes();
    add(&[2, IOAPIC_ID, 0x20, 1, a, b, c, d]);
    for irq in (0..16).filter(|irq| *irq != 2) {
        let flags = if irq == sci_irq { FLAGS_HIGH_LEVEL } else { FLAGS_BUS };
        add(&assignment(3, TYPE_INT, flags, irq, IOAPIC_ID, if irq == 0 { 2 } else { irq }));
    }
    add(&assignment(4, TYPE_EXTINT, FLAGS_BUS, 0, 0, 0));
    add(&assignment(4, TYPE_NMI, FLAGS_BUS, 0, 0xff, 1));

    let mut table = Vec::from(*b"PCMP");
    table.extend_from_slice(&(44 + entries.len() as u16).to_le_bytes());
    table.extend_from_slice(&[4, 0]);
    table.extend_from_slice(b"MIMUS   MIMUSPC     ");
    table.extend_from_slice(&[0; 6]);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&(lapic::DEFAULT_BASE as u32).to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend_from_slice(&entries);
    table[7] = checksum(&table);

    let mut blob = Vec::from(*b"_MP_");
    blob.extend_from_slice(&(address + 16).to_le_bytes());
    // One paragraph, specification 1.4, no default configuration; virtual wire mode.
    blob.extend_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    blob[10] = checksum(&blob);
    blob.extend_from_slice(&table);
    blob
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_and_checksums() {
        let blob = build(0xf_0000, 3, 9);
        let (pointer, table) = blob.split_at(16);
        assert_eq!(&pointer[..8], b"_MP_\x10\x00\x0f\x00");
        assert_eq!(checksum(pointer), 0);
        assert_eq!(checksum(table), 0);
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        // Walk the entries: 20 bytes for a processor, 8 for the others.
        let (mut at, mut count) = (44, 0);
        while at < table.len() {
            at += if table[at] == 0 { 20 } else { 8 };
            count += 1;
        }
        assert_eq!((at, count), (table.len(), 3 + 1 + 1 + 15 + 2));
        assert_eq!(u16::from_le_bytes([table[34], table[35]]), count);
    }
}
