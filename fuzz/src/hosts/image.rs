//! Disk images that somebody has made by hand: what is opened must be refused or read, and cost no more than it has.

use std::sync::atomic::AtomicBool;

use mimus_runtime::block::Image;
use mimus_runtime::config::{Disk, ImageFormat};

use super::Folder;
use crate::input::Input;

/// Clusters of the images here are of 2^16 bytes.
const CLUSTER: u64 = 1 << 16;
/// Bytes of the disk.
const SIZE: u64 = 8 << 20;

/// An image of qcow2, version 3 (QEMU's docs/interop/qcow2.txt): header, refcount table and block, L1 and L2 table, one
/// cluster of data.
fn good() -> Vec<u8> {
    let mut header = b"QFI\xfb".to_vec();
    header.extend(3u32.to_be_bytes());
    // No backing file.
    header.extend([0; 12]);
    header.extend(16u32.to_be_bytes());
    header.extend(SIZE.to_be_bytes());
    // No encryption; the L1 table's size and place; the refcount table's place and size; no snapshots.
    header.extend([0; 4]);
    header.extend(1u32.to_be_bytes());
    header.extend((3 * CLUSTER).to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    header.extend(1u32.to_be_bytes());
    header.extend([0; 12]);
    // Features: incompatible, compatible, autoclear; refcounts of 16 bits; the header's length.
    header.extend([0; 24]);
    header.extend(4u32.to_be_bytes());
    header.extend(104u32.to_be_bytes());
    header.extend([0; 8]);
    let mut image = vec![0; 6 * CLUSTER as usize];
    let mut put = |at: u64, bytes: &[u8]| image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    put(0, &header);
    put(CLUSTER, &(2 * CLUSTER).to_be_bytes());
    (0..6).for_each(|cluster| put(2 * CLUSTER + 2 * cluster, &[0, 1]));
    put(3 * CLUSTER, &((4 * CLUSTER) | (1 << 63)).to_be_bytes());
    put(4 * CLUSTER, &((5 * CLUSTER) | (1 << 63)).to_be_bytes());
    put(5 * CLUSTER, &[0x77; 512]);
    image
}

/// Opens an image and uses it.
fn using(input: &mut Input, bytes: &[u8], format: ImageFormat, name: &str) {
    let folder = Folder::new();
    let path = folder.file(name);
    std::fs::write(&path, bytes).expect("a file");
    let read_only = format == ImageFormat::Vmdk;
    let disk = Disk { format: Some(format), read_only, discard: true, ..Disk::new(&path) };
    let Ok(mut image) = Image::open("-drive", &disk) else { return };
    let sectors = image.info("").sectors;
    let mut piece = vec![0x33; 4096];
    for _ in 0..8 {
        let offset = match input.u8() % 4 {
            0 => input.value() & !511,
            1 => (sectors * 512).saturating_sub(4096),
            _ => 512 * u64::from(input.u16()),
        };
        // Whatever comes of it: bytes, or an error.
        let _ = image.read(&mut piece, offset);
        if !read_only {
            let _ = image.write(&piece, offset);
            let _ = image.discard(offset, CLUSTER);
            let _ = image.write_zeroes(offset, CLUSTER, input.one_in(2), &AtomicBool::new(false));
            let _ = image.flush();
        }
    }
    let len = std::fs::metadata(&path).expect("the file is there still").len();
    assert!(len < 256 << 20, "the image has grown to {len} bytes");
}

/// qcow2 with fields of its header and entries of its tables changed.
pub fn qcow2(input: &mut Input) {
    let mut bytes = good();
    for _ in 0..1 + input.u8() % 3 {
        let place = match input.u8() % 8 {
            0 => CLUSTER,
            1 => 2 * CLUSTER + 2 * u64::from(input.u8()),
            2 => 3 * CLUSTER,
            3 => 4 * CLUSTER + 8 * input.below(8),
            _ => 4 + 4 * input.below(26),
        } as usize;
        let value = match input.u8() % 4 {
            0 => input.u64(),
            1 => CLUSTER * u64::from(input.u8()),
            2 => (CLUSTER * u64::from(input.u8())) | (1 << (62 + input.u8() % 2)),
            _ => input.value(),
        };
        let wide = place >= CLUSTER as usize || input.one_in(3);
        match wide {
            true => bytes[place..place + 8].copy_from_slice(&value.to_be_bytes()),
            false => bytes[place..place + 4].copy_from_slice(&(value as u32).to_be_bytes()),
        }
    }
    if input.one_in(8) {
        bytes.truncate(input.u16() as usize);
    }
    using(input, &bytes, ImageFormat::Qcow2, "disk.qcow2");
}

/// Lines of a descriptor.
const LINES: &[&str] = &[
    "# Disk DescriptorFile",
    "version=1",
    "version=99999999999999999999",
    "CID=fffffffe",
    "parentCID=ffffffff",
    "parentCID=12345678",
    "createType=\"monolithicFlat\"",
    "createType=\"twoGbMaxExtentFlat\"",
    "createType=\"x",
    "RW 16 FLAT \"part\" 0",
    "RW 18446744073709551615 FLAT \"part\" 0",
    "RW 16 FLAT \"part\" 18446744073709551615",
    "RDONLY 16 ZERO",
    "NOACCESS 1 ZERO",
    "RW 16 SPARSE \"disk.vmdk\"",
    "RW 16 FLAT \"disk.vmdk\" 0",
    "RW 0 FLAT \"part\" 0",
    "RW -1 ZERO",
    "RW",
    "=",
    "ddb.adapterType = \"ide\"",
    "\"",
];

/// vmdk descriptors of lines that do not belong together.
pub fn vmdk(input: &mut Input) {
    let mut text = String::from("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n");
    for _ in 0..input.u8() % 12 {
        text.push_str(input.pick(LINES));
        text.push_str(input.pick(&["\n", "\n", "\n", "\r\n", " "]));
    }
    let mut bytes = text.into_bytes();
    if input.one_in(4) {
        let at = input.below(bytes.len() as u64) as usize;
        bytes[at] = input.u8();
    }
    using(input, &bytes, ImageFormat::Vmdk, "disk.vmdk");
}
