//! qcow2 (QEMU's docs/interop/qcow2.txt): images of all kinds of clusters and refcounts, with any part of them changed.

use mimus_host::block::Image;
use mimus_host::config::{Cache, Disk, ImageFormat, Zeroes};

use super::{SIZE, TestFolder, disk, using};
use crate::input::Input;

/// Offsets and bytes of the header's fields.
const FIELDS: &[(usize, usize)] = &[
    (4, 4),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 4),
    (104, 4),
];
/// Types of extensions, of which the last is not one.
const EXTENSIONS: &[u32] = &[0xe279_2aca, 0x6803_f857, 0x0537_be77, 0x2385_2875, 0x4441_5441, 0x1234_5678];
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// An image that is being made.
struct Made {
    bytes: Vec<u8>,
    cluster: u64,
    refcount_bits: u64,
    /// Clusters of the first refcount block, the L1 table, and the first L2 table.
    block: u64,
    l1: u64,
    l2: u64,
    tables: u64,
    /// Where the next extension goes.
    extension: usize,
}

impl Made {
    fn new(cluster_bits: u32, refcount_order: u32) -> Made {
        let cluster = 1u64 << cluster_bits;
        let tables = SIZE.div_ceil(cluster * cluster / 8);
        let l1_clusters = (tables * 8).div_ceil(cluster);
        let (block, l1) = (2, 3);
        let l2 = l1 + l1_clusters;
        let data = l2 + tables;
        let mut made = Made {
            bytes: vec![0; ((data + 8) * cluster) as usize],
            cluster,
            refcount_bits: 1 << refcount_order,
            block,
            l1,
            l2,
            tables,
            extension: 104,
        };
        made.bytes[..4].copy_from_slice(b"QFI\xfb");
        for (at, value) in [(4, 3), (20, cluster_bits), (36, tables as u32), (56, 1), (96, refcount_order), (100, 104)]
        {
            made.put32(at, value);
        }
        for (at, value) in [(24, SIZE), (40, l1 * cluster), (48, cluster)] {
            made.put(at, value);
        }
        made.put(cluster, block * cluster);
        (0..data + 8).for_each(|index| made.count(index, true));
        (0..tables).for_each(|index| made.put(l1 * cluster + 8 * index, COPIED | ((l2 + index) * cluster)));
        (0..4).for_each(|index| made.put(l2 * cluster + 8 * index, COPIED | ((data + index) * cluster)));
        made
    }

    /// What is beyond the end, because that was cut off, stays away.
    fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(part) = self.bytes.get_mut(at..at + bytes.len()) {
            part.copy_from_slice(bytes);
        }
    }

    fn put(&mut self, at: u64, value: u64) {
        self.set(at as usize, &value.to_be_bytes());
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_be_bytes());
    }

    /// Makes a refcount 1 or 0.
    fn count(&mut self, cluster: u64, used: bool) {
        let bits = self.refcount_bits;
        // The lowest bit of a wide one is in its last byte, that of a narrow one where it begins.
        let (byte, bit) = match bits < 8 {
            true => (cluster * bits / 8, cluster * bits % 8),
            false => (cluster * bits / 8 + bits / 8 - 1, 0),
        };
        let at = (self.block * self.cluster + byte) as usize;
        if let Some(bits) = self.bytes.get_mut(at).filter(|_| byte < self.cluster) {
            *bits = *bits & !(1 << bit) | u8::from(used) << bit;
        }
    }

    fn extend(&mut self, kind: u32, data: &[u8]) {
        let (at, end) = (self.extension, self.extension + 8 + data.len().next_multiple_of(8));
        if end + 8 <= self.cluster as usize {
            self.put32(at, kind);
            self.put32(at + 4, data.len() as u32);
            self.set(at + 8, data);
            self.extension = end;
        }
    }

    fn back(&mut self, name: &str) {
        let at = self.cluster as usize - 256;
        if name.len() <= 256 {
            self.put(8, at as u64);
            self.put32(16, name.len() as u32);
            self.set(at, name.as_bytes());
        }
    }

    /// An offset, as one would be in a table.
    fn entry(&self, input: &mut Input) -> u64 {
        let clusters = self.bytes.len() as u64 / self.cluster + 2;
        let offset = input.below(clusters) * self.cluster;
        match input.u8() % 6 {
            0 => COPIED | offset,
            1 => offset,
            2 => COMPRESSED | offset | input.u16() as u64,
            3 => COPIED | offset | 1,
            4 => input.u64(),
            _ => input.value(),
        }
    }

    /// Adds a table of snapshots, in the last clusters of the data, with L1 tables that are somewhere.
    fn snapshot(&mut self, input: &mut Input) {
        let count = 1 + input.below(4);
        let table = (self.l2 + self.tables + 6) * self.cluster;
        for index in 0..count {
            let at = table + 40 * index;
            let l1 = if input.one_in(2) { self.l1 * self.cluster } else { self.entry(input) & !(3 << 62) };
            let entries = if input.one_in(2) { self.tables } else { input.value() };
            self.put(at, l1);
            self.put32(at as usize + 8, entries as u32);
        }
        self.put32(60, count as u32);
        self.put(64, table);
    }

    /// Changes one thing.
    fn change(&mut self, input: &mut Input, folder: &TestFolder) {
        let cluster = self.cluster;
        match input.u8() % 13 {
            12 => self.snapshot(input),
            0 | 1 => {
                let ((at, bytes), value) = (input.pick(FIELDS), self.entry(input));
                let value = if input.one_in(2) { input.below(70) } else { value };
                match bytes {
                    4 => self.put32(at, value as u32),
                    _ => self.put(at as u64, value),
                }
            }
            2 | 3 => {
                let index = input.below(self.l2 + self.tables + 8);
                self.count(index, false);
            }
            4 => self.put(cluster + 8 * input.below(3), self.entry(input) & !(3 << 62)),
            5 => self.put(self.l1 * cluster + 8 * input.below(self.tables + 1), self.entry(input)),
            6 | 7 => self.put(self.l2 * cluster + 8 * input.below(16), self.entry(input)),
            8 => {
                let name = folder.name(input);
                self.back(&name);
            }
            9 => {
                let (kind, name) = (input.pick(EXTENSIONS), folder.name(input));
                self.extend(kind, name.as_bytes());
                // With an external data file.
                self.put(72, if input.one_in(2) { 4 } else { 0 });
            }
            10 => {
                let len = self.bytes.len() as u64;
                self.bytes.resize(input.below(len + 4 * cluster) as usize, 0);
            }
            _ => {
                let at = input.below(self.bytes.len().max(1) as u64) as usize;
                if let Some(byte) = self.bytes.get_mut(at) {
                    *byte = input.u8();
                }
            }
        }
    }
}

/// A header that names the file that nobody may reach, for the guest to write.
fn forged(folder: &TestFolder) -> Vec<u8> {
    let mut made = Made::new(16, 4);
    let decoy = folder.decoy();
    made.extend(0x4441_5441, decoy.to_str().unwrap_or_default().as_bytes());
    made.back(decoy.to_str().unwrap_or_default());
    made.put(72, 4);
    made.bytes.truncate(1 << 16);
    made.bytes
}

/// An image that is taken for a raw one, whatever its guest does.
fn guessed(input: &mut Input, folder: &TestFolder) {
    let direct = input.one_in(2);
    let cache = Cache { direct, ..Cache::default() };
    let disk = Disk { format: None, cache, ..disk(&folder.file("disk"), ImageFormat::Raw) };
    using(input, folder, &vec![0; SIZE as usize], &disk, &forged(folder));
    if let Ok(image) = Image::open("-drive", &disk) {
        assert_eq!(image.format(), ImageFormat::Raw);
    }
}

/// Images of which up to six things are changed, and some that have no format.
pub fn run(input: &mut Input) {
    let folder = TestFolder::new();
    if input.one_in(16) {
        return guessed(input, &folder);
    }
    let mut made = Made::new(input.pick(&[9, 10, 12, 16, 16]), input.pick(&[4, 4, 0, 1, 2, 3, 5, 6]));
    for _ in 0..input.u8() % 7 {
        made.change(input, &folder);
    }
    let read_only = input.one_in(6);
    let zeroes = if input.one_in(4) { Zeroes::Unmapped } else { Zeroes::AsTheyAre };
    let disk = Disk {
        read_only,
        snapshot: input.one_in(6),
        copy_on_read: input.one_in(4),
        zeroes,
        ..disk(&folder.file("disk"), ImageFormat::Qcow2)
    };
    using(input, &folder, &made.bytes, &disk, &forged(&folder));
}
