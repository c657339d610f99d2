//! The tables as firmware gets them: two files of tables and a script of commands that place them, add their addresses to the
//! pointers between them, and sum them up (QEMU documentation, "ACPI table loader"; each command is 128 bytes).

use super::Layout;

/// Names of the files.
const RSDP_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";
const SCRIPT_FILE: &str = "etc/table-loader";

/// Commands.
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Where a file is to be: anywhere, or in the segment below 1 MiB that is scanned.
const ZONE_HIGH: u8 = 1;
const ZONE_SCANNED: u8 = 2;

const COMMAND_SIZE: usize = 128;
const NAME_SIZE: usize = 56;

/// Where the header of a table holds its length and its checksum (ACPI specification 6.5, 5.2.6).
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;

/// The commands so far.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, number: u32, names: &[&str], rest: &[&[u8]]) {
        let start = self.0.len();
        self.0.extend(number.to_le_bytes());
        for name in names {
            let end = self.0.len() + NAME_SIZE;
            self.0.extend(name.bytes());
            self.0.resize(end, 0);
        }
        rest.iter().for_each(|bytes| self.0.extend(*bytes));
        self.0.resize(start + COMMAND_SIZE, 0);
    }

    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.command(ALLOCATE, &[file], &[&align.to_le_bytes(), &[zone]]);
    }

    /// The field of `size` bytes at `offset` of `file` is an offset in the tables: add where they are.
    fn add_pointer(&mut self, file: &str, offset: u32, size: u8) {
        self.command(ADD_POINTER, &[file, TABLES_FILE], &[&offset.to_le_bytes(), &[size]]);
    }

    /// The byte at `offset` makes `length` bytes from `start` on sum to 0.
    fn add_checksum(&mut self, file: &str, offset: u32, start: u32, length: u32) {
        self.command(ADD_CHECKSUM, &[file], &[&offset.to_le_bytes(), &start.to_le_bytes(), &length.to_le_bytes()]);
    }
}

/// The files for tables that are laid out from 0 on.
pub(super) fn files(layout: Layout, mut rsdp: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
    let mut script = Script::default();
    script.allocate(RSDP_FILE, 16, ZONE_SCANNED);
    script.allocate(TABLES_FILE, 64, ZONE_HIGH);
    for &(at, size) in &layout.pointers {
        script.add_pointer(TABLES_FILE, at as u32, size);
    }
    let mut tables = vec![0; layout.next as usize];
    for blob in &layout.blobs {
        let start = blob.address as usize;
        for (place, byte) in tables.iter_mut().skip(start).zip(&blob.bytes) {
            *place = *byte;
        }
        // The FACS has no checksum, and whatever has no pointers keeps its own.
        let end = blob.address + blob.bytes.len() as u64;
        if layout.pointers.iter().any(|(at, _)| (blob.address..end).contains(at)) {
            if let Some(sum) = tables.get_mut(start + CHECKSUM) {
                *sum = 0;
            }
            let length = blob.bytes.get(LENGTH..LENGTH + 4).map_or(0, |_| blob.bytes.len() as u32);
            script.add_checksum(TABLES_FILE, (start + CHECKSUM) as u32, start as u32, length);
        }
    }
    // Both pointers and both sums of the RSDP (5.2.5.3).
    for (offset, size) in [(16, 4), (24, 8)] {
        script.add_pointer(RSDP_FILE, offset, size);
    }
    for (offset, length) in [(8, 20), (32, rsdp.len())] {
        if let Some(sum) = rsdp.get_mut(offset) {
            *sum = 0;
        }
        script.add_checksum(RSDP_FILE, offset as u32, 0, length as u32);
    }
    vec![(RSDP_FILE, rsdp), (TABLES_FILE, tables), (SCRIPT_FILE, script.0)]
}

#[cfg(test)]
mod tests {
    use super::super::{AcpiConfig, loadable, negated_sum};
    use super::*;

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Does what firmware does, with the tables at `base`.
    fn run(files: &mut [(&'static str, Vec<u8>)], base: u64) {
        let script = files[2].1.clone();
        assert_eq!(script.len() % COMMAND_SIZE, 0);
        for command in script.chunks(COMMAND_SIZE) {
            let name = |at: usize| {
                let bytes = &command[at..at + NAME_SIZE];
                String::from_utf8(bytes.iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
            };
            let file = files.iter().position(|file| file.0 == name(4)).unwrap();
            let bytes = &mut files[file].1;
            match word(command, 0) as u32 {
                ALLOCATE => assert!(word(command, 60).is_power_of_two()),
                ADD_POINTER => {
                    assert_eq!(name(60), TABLES_FILE);
                    let (at, size) = (word(command, 116), usize::from(command[120]));
                    let mut field = [0; 8];
                    field[..size].copy_from_slice(&bytes[at..at + size]);
                    let value = u64::from_le_bytes(field) + base;
                    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
                }
                _ => {
                    let (at, start, length) = (word(command, 60), word(command, 64), word(command, 68));
                    assert_eq!(bytes[at], 0);
                    bytes[at] = negated_sum(&bytes[start..start + length]);
                }
            }
        }
    }

    #[test]
    fn the_script_makes_tables_that_hang_together() {
        let mut files = loadable(&AcpiConfig {
            cpus: 2,
            vga: true,
            hpet: true,
            serials: [true; 4],
            sleeps: [true; 2],
            ..AcpiConfig::default()
        });
        let base = 0x3ffe_0000;
        run(&mut files, base);
        let (rsdp, tables) = (&files[0].1, &files[1].1);
        assert_eq!((negated_sum(&rsdp[..20]), negated_sum(rsdp)), (0, 0));
        let table = |at: usize, signature: &[u8; 4]| {
            let start = at - base as usize;
            let bytes = &tables[start..start + word(tables, start + LENGTH)];
            assert_eq!((&bytes[..4], negated_sum(bytes)), (&signature[..], 0));
            bytes
        };
        let (rsdt, xsdt) = (table(word(rsdp, 16), b"RSDT"), table(word(rsdp, 24), b"XSDT"));
        for (index, signature) in [b"FACP", b"APIC", b"HPET"].into_iter().enumerate() {
            assert_eq!(word(rsdt, 36 + 4 * index), word(xsdt, 36 + 8 * index));
            table(word(rsdt, 36 + 4 * index), signature);
        }
        let fadt = table(word(rsdt, 36), b"FACP");
        table(word(fadt, 40), b"DSDT");
        assert_eq!(word(fadt, 40), word(fadt, 140));
        let facs = word(fadt, 36) - base as usize;
        assert_eq!((&tables[facs..facs + 4], facs % 64), (&b"FACS"[..], 0));
    }
}
