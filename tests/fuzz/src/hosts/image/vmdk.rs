//! vmdk: descriptors of lines that do not belong together, and sparse extents with any part of them changed.

use mimus_host::config::{Disk, ImageFormat};

use super::{SIZE, TestFolder, disk, using};
use crate::input::Input;

/// Lines of a descriptor.
const LINES: &[&str] = &[
    "# Disk DescriptorFile",
    "version=1",
    "version=99999999999999999999",
    "CID=fffffffe",
    "parentCID=ffffffff",
    "parentCID=12345678",
    "parentFileNameHint=\"raw\"",
    "createType=\"monolithicFlat\"",
    "createType=\"x",
    "RW 16 FLAT \"raw\" 0",
    "RW 1024 FLAT \"raw\" 1",
    "RW 18446744073709551615 FLAT \"raw\" 0",
    "RW 16 FLAT \"raw\" 18446744073709551615",
    "RDONLY 16 ZERO",
    "NOACCESS 1 ZERO",
    "RW 16 SPARSE \"disk\"",
    "RW 16 SPARSE \"sparse\"",
    "RW 4096 SPARSE \"sparse\"",
    "RW 16 FLAT \"disk\" 0",
    "RW 0 FLAT \"raw\" 0",
    "RW -1 ZERO",
    "RW",
    "=",
    "ddb.adapterType = \"ide\"",
    "\"",
];

/// Offsets and bytes of the header's fields.
const FIELDS: &[(usize, usize)] =
    &[(4, 4), (8, 4), (12, 8), (20, 8), (28, 8), (36, 8), (44, 4), (48, 8), (56, 8), (64, 8), (72, 4), (77, 2)];

const SECTOR: usize = 512;
/// Sectors of a grain; entries of a table.
const GRAIN: usize = 16;
const ENTRIES: usize = 64;

fn put(bytes: &mut [u8], at: usize, count: usize, value: u64) {
    if let Some(part) = bytes.get_mut(at..at + count) {
        part.copy_from_slice(&value.to_le_bytes()[..count]);
    }
}

/// A sparse extent: header, descriptor, grain directory, two grain tables, grains.
fn sparse() -> Vec<u8> {
    let mut bytes = vec![0; 64 * SECTOR];
    bytes[..4].copy_from_slice(b"KDMV");
    let capacity = SIZE / SECTOR as u64;
    for (at, count, value) in [(4, 4, 1), (8, 4, 3), (12, 8, capacity), (20, 8, GRAIN as u64), (28, 8, 1), (36, 8, 1)] {
        put(&mut bytes, at, count, value);
    }
    put(&mut bytes, 44, 4, ENTRIES as u64);
    put(&mut bytes, 56, 8, 2);
    let text = b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 2048 SPARSE \"disk\"\n";
    bytes[SECTOR..SECTOR + text.len()].copy_from_slice(text);
    put(&mut bytes, 2 * SECTOR, 4, 3);
    put(&mut bytes, 2 * SECTOR + 4, 4, 4);
    for (entry, grain) in [(0, 16), (5, 32), (64, 48), (70, 16)] {
        put(&mut bytes, 3 * SECTOR + entry / ENTRIES * SECTOR + 4 * (entry % ENTRIES), 4, grain);
    }
    bytes
}

fn change(input: &mut Input, bytes: &mut Vec<u8>) {
    let value = match input.u8() % 3 {
        0 => input.below(80),
        1 => input.u64(),
        _ => input.value(),
    };
    match input.u8() % 5 {
        0 | 1 => {
            let (at, count) = input.pick(FIELDS);
            put(bytes, at, count, value);
        }
        // Compressed grains, with markers.
        2 => {
            put(bytes, 8, 4, 3 << 16 | 1);
            put(bytes, 77, 2, 1);
        }
        3 => put(bytes, 2 * SECTOR + 4 * input.below(3 * SECTOR as u64 / 4) as usize, 4, value),
        _ => {
            let len = bytes.len() as u64;
            bytes.resize(input.below(len + 4096) as usize, 0);
        }
    }
}

/// Descriptors, and extents that are a whole image.
pub fn run(input: &mut Input) {
    let folder = TestFolder::new();
    let mut extent = sparse();
    for _ in 0..input.u8() % 5 {
        change(input, &mut extent);
    }
    let disk = Disk { read_only: true, ..disk(&folder.file("disk"), ImageFormat::Vmdk) };
    if input.one_in(2) {
        return using(input, &folder, &extent, &disk, &[]);
    }
    std::fs::write(folder.file("sparse"), &extent).expect("a file");
    let mut text = String::from("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n");
    for _ in 0..input.u8() % 12 {
        match input.one_in(3) {
            true => text.push_str(&format!(
                "RW 16 {} \"{}\" 0",
                input.pick(&["FLAT", "SPARSE", "VMFS"]),
                folder.name(input)
            )),
            false => text.push_str(input.pick(LINES)),
        }
        text.push_str(input.pick(&["\n", "\n", "\n", "\r\n", " "]));
    }
    let mut bytes = text.into_bytes();
    if input.one_in(4) {
        let at = input.below(bytes.len() as u64) as usize;
        bytes[at] = input.u8();
    }
    using(input, &folder, &bytes, &disk, &[]);
}
