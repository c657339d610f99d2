//! Boots images made here, whole, cut short and damaged.

mod staged;

use std::fs;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A file that goes with the value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("mimus-boot-{}-{name}", std::process::id()));
        fs::write(&path, contents).unwrap();
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // What is left behind in the temporary directory harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

fn ram(size: u64) -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&ram_ranges(size)).unwrap()
}

fn config(kernel: &Path, ram_size: u64) -> BootConfig<'_> {
    BootConfig {
        kernel,
        initrd: None,
        cmdline: "console=ttyS0",
        ram_size,
        acpi: &[],
        rsdp: 0,
        screen: BootScreen::None,
    }
}

fn load_bytes(name: &str, image: &[u8], ram_size: u64) -> Result<BootState, BootError> {
    let file = TempFile::new(name, image);
    load(&ram(ram_size), &config(&file.0, ram_size))
}

/// The error's message; its reason must not be lost.
fn message(result: Result<BootState, BootError>) -> String {
    result.expect_err("this must not boot").to_string()
}

fn read(mem: &GuestMemoryMmap<()>, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mem.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn word(mem: &GuestMemoryMmap<()>, address: u64) -> u32 {
    mem.read_obj(GuestAddress(address)).unwrap()
}

fn quad(mem: &GuestMemoryMmap<()>, address: u64) -> u64 {
    mem.read_obj(GuestAddress(address)).unwrap()
}

fn string(mem: &GuestMemoryMmap<()>, address: u64) -> String {
    let bytes = read(mem, address, 256);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap();
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

const BZ_PAYLOAD: usize = 0x400;
const BZ_SETUP: usize = 1024;
const BZ_XLOADFLAGS: usize = 0x236;
const BZ_VERSION: usize = 0x206;

/// A bzImage of protocol 2.15 with both entry points, 16 MiB preferred, 1 MiB
/// of working memory.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0u8; BZ_SETUP];
    image[0x1f1] = 1;
    put(&mut image, 0x1f4, &(BZ_PAYLOAD as u32 / 16).to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, BZ_VERSION, &[0x0f, 0x02]);
    image[0x211] = 0x41;
    put(&mut image, 0x214, &0x10_0000u32.to_le_bytes());
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, 0x230, &0x20_0000u32.to_le_bytes());
    image[0x234] = 1;
    put(&mut image, BZ_XLOADFLAGS, &[0x7f, 0]);
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut image, 0x260, &0x10_0000u32.to_le_bytes());
    image.extend((0..BZ_PAYLOAD).map(|index| index as u8 ^ 0x5a));
    image
}

const ELF_LOAD: usize = 0x400;
const ELF_MEMORY: u32 = 0x300;
const ELF_FILE: u32 = 0x200;
const ELF_ADDRESS: u32 = 0x20_0000;

/// A 32-bit ELF file with one segment at 2 MiB (virtually at 3 GiB and 2 MiB)
/// entered 16 bytes in, a note and a Multiboot header where asked for.
fn elf32(note: bool, multiboot: Option<u32>) -> Vec<u8> {
    let mut image = vec![0u8; ELF_LOAD];
    put(&mut image, 0, b"\x7fELF\x01\x01\x01");
    put(&mut image, 16, &[2, 0, 3, 0, 1, 0, 0, 0]);
    put(&mut image, 24, &(0xc000_0010 + ELF_ADDRESS).to_le_bytes());
    put(&mut image, 28, &52u32.to_le_bytes());
    put(&mut image, 42, &[32, 0, 2, 0]);
    let load = [1, ELF_LOAD as u32, 0xc000_0000 + ELF_ADDRESS, ELF_ADDRESS, ELF_FILE, ELF_MEMORY, 7, 4096];
    let notes = [if note { 4 } else { 0 }, 0x100, 0, 0, 52, 52, 4, 4];
    for (index, field) in load.into_iter().chain(notes).enumerate() {
        put(&mut image, 52 + 4 * index, &field.to_le_bytes());
    }
    put(&mut image, 0x100, &notes_of(&(ELF_ADDRESS + 0x20).to_le_bytes()));
    if let Some(flags) = multiboot {
        put_multiboot(&mut image, 0x200, flags);
    }
    image.extend((0..ELF_FILE).map(|index| index as u8 | 1));
    image
}

/// The same segment, in a 64-bit file with a PVH note.
fn elf64() -> Vec<u8> {
    let mut image = vec![0u8; ELF_LOAD];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut image, 24, &(0xffff_ffff_8000_0000 + u64::from(ELF_ADDRESS)).to_le_bytes());
    put(&mut image, 32, &64u64.to_le_bytes());
    put(&mut image, 54, &[56, 0, 2, 0]);
    let quads = |kind: u64, rest: [u64; 6]| [kind].into_iter().chain(rest);
    let (address, file, memory) = (u64::from(ELF_ADDRESS), u64::from(ELF_FILE), u64::from(ELF_MEMORY));
    let load = quads(1, [ELF_LOAD as u64, address, address, file, memory, 4096]);
    for (index, field) in load.chain(quads(4, [0x100, 0, 0, 56, 56, 4])).enumerate() {
        put(&mut image, 64 + 8 * index, &field.to_le_bytes());
    }
    put(&mut image, 0x100, &notes_of(&(u64::from(ELF_ADDRESS) + 0x20).to_le_bytes()));
    image.extend((0..ELF_FILE).map(|index| index as u8 | 1));
    image
}

/// A note of another owner with an odd size, then the PVH note.
fn notes_of(entry: &[u8]) -> Vec<u8> {
    let mut notes = Vec::new();
    let pvh = (b"Xen\0".as_slice(), 18u32, entry);
    for (name, kind, descriptor) in [(b"Linux\0".as_slice(), 18, b"abc".as_slice()), pvh] {
        for field in [name.len() as u32, descriptor.len() as u32, kind] {
            notes.extend(field.to_le_bytes());
        }
        for part in [name, descriptor] {
            notes.extend(part);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
    }
    notes
}

fn put_multiboot(image: &mut [u8], offset: usize, flags: u32) {
    for (index, field) in [0x1bad_b002, flags, 0x1bad_b002u32.wrapping_add(flags).wrapping_neg()].iter().enumerate() {
        put(image, offset + 4 * index, &field.to_le_bytes());
    }
}

/// A Multiboot kernel without ELF headers: loaded at 1 MiB from file offset
/// 0x80, header 0x10 bytes in, 0x300 bytes and 0x100 of BSS.
fn multiboot_raw() -> Vec<u8> {
    let mut image: Vec<u8> = (0..0x400).map(|index| index as u8).collect();
    put_multiboot(&mut image, 0x90, 0x1_0003);
    for (index, field) in [0x10_0010u32, 0x10_0000, 0x10_0300, 0x10_0400, 0x10_0040].iter().enumerate() {
        put(&mut image, 0x90 + 12 + 4 * index, &field.to_le_bytes());
    }
    image
}

#[test]
fn bzimage_starts_in_long_mode_with_a_zero_page() {
    let size = 5 * GIB;
    let mem = ram(size);
    let kernel = TempFile::new("long", &bzimage());
    let initrd = TempFile::new("long-initrd", &vec![0xa5; 5000]);
    let acpi = [(0xe_0000, b"RSD PTR ".to_vec()), (0xbfff_0010, vec![7; 16])];
    let config = BootConfig { initrd: Some(&initrd.0), acpi: &acpi, rsdp: 0xe_0000, ..config(&kernel.0, size) };
    let state = load(&mem, &config).unwrap();
    let BootMode::Long { entry, boot_params: zero_page, cr3 } = state.mode else { panic!("{:?}", state.mode) };
    assert_eq!((entry, state.rip, state.gpr[6]), (0x10_0200, 0x10_0200, zero_page));
    assert_eq!(read(&mem, 0x10_0000, BZ_PAYLOAD), bzimage()[BZ_SETUP..]);

    let byte = |offset| read(&mem, zero_page + offset, 1)[0];
    assert_eq!(quad(&mem, zero_page + 0x70), 0xe_0000, "acpi_rsdp_addr");
    assert_eq!((byte(0x1ef), byte(0x210), byte(0x211)), (0, 0xff, 0x01), "sentinel, loader, loadflags");
    assert_eq!(read(&mem, zero_page + 0x1fe, 10), bzimage()[0x1fe..0x208], "the header is copied");
    assert_eq!(string(&mem, word(&mem, zero_page + 0x228).into()), "console=ttyS0");
    assert_eq!(word(&mem, zero_page + 0x214), 0x10_0000, "code32_start");
    let (image, length) = (word(&mem, zero_page + 0x218), word(&mem, zero_page + 0x21c));
    assert_eq!((image, length), (0x7fff_e000, 5000), "as high as initrd_addr_max allows");
    assert_eq!(read(&mem, image.into(), 5000), vec![0xa5; 5000]);
    assert_eq!(read(&mem, 0xbfff_0010, 16), vec![7; 16]);

    let map: Vec<(u64, u64, u32)> = (0..u64::from(byte(0x1e8)))
        .map(|index| zero_page + 0x2d0 + 20 * index)
        .map(|at| (quad(&mem, at), quad(&mem, at + 8), word(&mem, at + 16)))
        .collect();
    let expected = [
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x6_0400, 2),
        (0x10_0000, 0xbfef_0000, 1),
        (0xbfff_0000, 0x1000, 3),
        (0xbfff_1000, 0xf000, 1),
        (4 * GIB, 2 * GIB, 1),
    ];
    assert_eq!(map, expected);

    assert_eq!(cr3 & 0xfff, 0);
    assert!(cr3 + 6 * 0x1000 <= TABLES_LIMIT);
    for address in [0, 0x10_0200, 0x7fff_e000, 0xffff_f000, 0x1_0000_0000u64] {
        assert_eq!(translate(&mem, cr3, address), (address < 4 * GIB).then_some(address), "{address:#x}");
    }
    let gdt = read(&mem, state.gdt.base, 0x30);
    assert_eq!(gdt[0x10..0x18], state.segments.cs.descriptor().to_le_bytes());
    assert_eq!(state.segments.cs.access, 0xa09b);
}

/// Walks 4-level page tables down to a 2 MiB page.
fn translate(mem: &GuestMemoryMmap<()>, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3;
    for shift in [39, 30, 21] {
        let entry = quad(mem, table + 8 * (address >> shift & 0x1ff));
        if entry & 1 == 0 {
            return None;
        }
        assert_eq!(entry & 0x80 != 0, shift == 21);
        table = entry & 0xf_ffff_ffff_f000;
    }
    Some(table | address & 0x1f_ffff)
}

#[test]
fn bzimage_without_a_64_bit_entry_starts_in_protected_mode() {
    let mut image = bzimage();
    image[BZ_XLOADFLAGS] = 0;
    let state = load_bytes("i386", &image, 32 * MIB).unwrap();
    let BootMode::Protected32 { entry, eax: 0, ebx: 0, esi } = state.mode else { panic!("{:?}", state.mode) };
    assert_eq!((entry, state.rip, state.gpr[6]), (0x10_0000, 0x10_0000, esi.into()));
    assert_eq!((state.gpr[3], state.gpr[5], state.gpr[7], state.rflags), (0, 0, 0, 2));
    assert_eq!((state.segments.cs.selector, state.segments.ss.selector), (0x10, 0x18));
    assert_eq!((state.cr0, state.segments.cs.access), (0x11, 0xc09b));
}

#[test]
fn bzimage_headers_are_checked() {
    let cases: [(&str, usize, &[u8], &str); 8] = [
        ("old", BZ_VERSION, &[0x05, 0x02], "2.05 is too old"),
        ("zimage", 0x211, &[0], "zImage"),
        ("low", 0x214, &[0, 0, 1, 0], "below 1 MiB"),
        ("high", 0x214, &[0, 0xf0, 0xff, 0xff], "does not fit"),
        ("empty", 0x1f4, &[0, 0, 0, 0], "protected-mode part"),
        ("align", 0x230, &[0, 0, 3, 0], "not a power of two"),
        ("end", 0x201, &[0x10], "ends at"),
        ("init-size", 0x260, &[0xff, 0xff, 0xff, 0xff], "4112 MiB"),
    ];
    for (name, offset, bytes, reason) in cases {
        let mut image = bzimage();
        put(&mut image, offset, bytes);
        let text = message(load_bytes(name, &image, 32 * MIB));
        assert!(text.contains(reason) && text.contains(name), "{name}: {text}");
    }
}

#[test]
fn fields_after_the_headers_end_are_not_copied() {
    let mut image = bzimage();
    put(&mut image, BZ_VERSION, &[0x09, 0x02]);
    image[0x201] = 0x3c;
    let (file, mem) = (TempFile::new("short-header", &image), ram(8 * MIB));
    let state = load(&mem, &config(&file.0, 8 * MIB)).unwrap();
    assert_eq!(read(&mem, state.gpr[6] + 0x23e, 0x2d), vec![0; 0x2d]);
    assert_eq!(word(&mem, state.gpr[6] + 0x22c), 0x7fff_ffff);
}

#[test]
fn command_line_has_the_headers_limit() {
    let kernel = TempFile::new("cmdline", &bzimage());
    let mem = ram(32 * MIB);
    let boot = |cmdline: &str| load(&mem, &BootConfig { cmdline, ..config(&kernel.0, 32 * MIB) });
    let state = boot(&"x".repeat(2047)).unwrap();
    let address = u64::from(word(&mem, state.gpr[6] + 0x228));
    assert_eq!(read(&mem, address + 2046, 2), b"x\0");
    assert!(message(boot(&"x".repeat(2048))).contains("2048 bytes are too long: this kernel takes at most 2047"));
    assert!(message(boot("a\0b")).contains("NUL"));
}

#[test]
fn what_is_larger_than_ram_is_refused() {
    let kernel = TempFile::new("sizes", &bzimage());
    let initrd = TempFile::new("sizes-initrd", b"x");
    // Sparse, so that it takes no space.
    let set = |len| fs::OpenOptions::new().write(true).open(&initrd.0).unwrap().set_len(len).unwrap();
    let mem = ram(32 * MIB);
    let config = BootConfig { initrd: Some(&initrd.0), ..config(&kernel.0, 32 * MIB) };
    for len in [15 * MIB + 1, 32 * MIB, 1 << 40] {
        set(len);
        let text = message(load(&mem, &config));
        assert!(text.contains("initrd") && text.contains("sizes-initrd") && text.contains("do not fit"), "{text}");
    }
    set(15 * MIB);
    load(&mem, &config).unwrap();
    set(0);
    assert!(message(load(&mem, &config)).contains("empty"));

    for size in [0x1000, MIB, 17 * MIB - 1] {
        let text = message(load_bytes("small-ram", &bzimage(), size));
        assert!(text.contains("it needs 17 MiB of RAM"), "{text}");
    }
    let mut large = bzimage();
    put(&mut large, 0x1f4, &(8 * MIB as u32 / 16).to_le_bytes());
    put(&mut large, BZ_VERSION, &[0x09, 0x02]);
    large.resize(BZ_SETUP + 8 * MIB as usize, 0);
    assert!(message(load_bytes("large", &large, 8 * MIB)).contains("it needs 9 MiB of RAM"));
    for (name, image) in [("elf-1m", elf32(true, None)), ("multiboot-1m", elf32(true, Some(3)))] {
        assert!(message(load_bytes(name, &image, MIB)).contains("does not fit"), "{name}");
    }
}

#[test]
fn pvh_kernels_of_both_classes_get_start_info() {
    for (name, image) in [("pvh32", elf32(true, None)), ("pvh64", elf64())] {
        let kernel = TempFile::new(name, &image);
        let initrd = TempFile::new(&format!("{name}-initrd"), b"initrd");
        let mem = ram(16 * MIB);
        mem.write_slice(&[0xff; 0x1000], GuestAddress(ELF_ADDRESS.into())).unwrap();
        let config = BootConfig { initrd: Some(&initrd.0), rsdp: 0xe_0000, ..config(&kernel.0, 16 * MIB) };
        let state = load(&mem, &config).unwrap();
        let BootMode::Protected32 { entry, eax: 0, ebx, esi: 0 } = state.mode else { panic!("{:?}", state.mode) };
        assert_eq!((entry, state.gpr[3]), (ELF_ADDRESS + 0x20, ebx.into()));
        let loaded = read(&mem, ELF_ADDRESS.into(), 0x400);
        assert_eq!(loaded[..0x200], image[ELF_LOAD..]);
        assert!(loaded[0x200..0x300].iter().all(|&byte| byte == 0), "BSS is zeroed");
        assert!(loaded[0x300..].iter().all(|&byte| byte == 0xff), "and nothing after it");

        let info = u64::from(ebx);
        let words: Vec<u32> = (0..4).map(|index| word(&mem, info + 4 * index)).collect();
        assert_eq!(words, [0x336e_c578, 1, 0, 1]);
        let [modules, cmdline, rsdp, map] = [16, 24, 32, 40].map(|offset| quad(&mem, info + offset));
        assert_eq!(string(&mem, cmdline), "console=ttyS0");
        assert_eq!(rsdp, 0xe_0000);
        let (address, size) = (quad(&mem, modules), quad(&mem, modules + 8));
        assert_eq!(read(&mem, address, size as usize), b"initrd");
        assert_eq!(word(&mem, info + 48), 3);
        assert_eq!((quad(&mem, map + 48), quad(&mem, map + 56), word(&mem, map + 64)), (MIB, 15 * MIB, 1));
    }
}

#[test]
fn multiboot_kernels_get_their_information() {
    let raw = multiboot_raw();
    let cases = [
        ("mb-elf", elf32(false, Some(0x7)), ELF_ADDRESS + 0x10, ELF_ADDRESS, ELF_LOAD..ELF_LOAD + 0x200),
        ("mb-raw", raw, 0x10_0040, 0x10_0000, 0x80..0x380),
    ];
    for (name, image, entry, address, bytes) in cases {
        let kernel = TempFile::new(name, &image);
        let initrd = TempFile::new(&format!("{name}-initrd"), b"module");
        let mem = ram(16 * MIB);
        mem.write_slice(&[0xff; 0x1000], GuestAddress(address.into())).unwrap();
        let config = BootConfig { initrd: Some(&initrd.0), ..config(&kernel.0, 16 * MIB) };
        let state = load(&mem, &config).unwrap();
        let BootMode::Protected32 { ebx, .. } = state.mode else { panic!("{:?}", state.mode) };
        assert_eq!((state.rip, state.gpr[0], state.gpr[3]), (entry.into(), 0x2bad_b002, ebx.into()), "{name}");
        assert_eq!(read(&mem, address.into(), bytes.len()), image[bytes.clone()], "{name}");
        assert_eq!(word(&mem, u64::from(address) + bytes.len() as u64), 0, "{name}: BSS");

        let field = |index: u64| word(&mem, u64::from(ebx) + 4 * index);
        assert_eq!([field(0), field(1), field(2)], [0x24d, 639, 15 * 1024], "{name}");
        assert_eq!(string(&mem, field(4).into()), format!("{} console=ttyS0", kernel.0.display()));
        assert_eq!(string(&mem, field(16).into()), "mimus");
        let module = u64::from(field(6));
        let [start, end, name_at] = [0, 4, 8].map(|offset| word(&mem, module + offset));
        assert_eq!((field(5), start % 4096, end - start), (1, 0, 6), "{name}");
        assert_eq!(read(&mem, start.into(), 6), b"module");
        assert_eq!(string(&mem, name_at.into()), initrd.0.display().to_string());
        assert_eq!((field(11), word(&mem, field(12).into())), (3 * 24, 20));
        let third = u64::from(field(12)) + 48;
        assert_eq!((quad(&mem, third + 4), quad(&mem, third + 12), word(&mem, third + 20)), (MIB, 15 * MIB, 1));
    }
}

#[test]
fn multiboot_headers_are_checked() {
    let text = message(load_bytes("mb-feature", &elf32(false, Some(0x8003)), 16 * MIB));
    assert!(text.contains("unknown features (flags 0x8000)"), "{text}");
    // Header address, load, load end, BSS end, entry.
    let cases: [(&str, [u32; 5], &str); 7] = [
        ("mb-before", [0, 0x10_0000, 0, 0, 0x10_0000], "outside the file"),
        ("mb-far", [0x10_0200, 0x10_0000, 0, 0, 0x10_0000], "outside the file"),
        ("mb-negative", [0x10_0010, 0x10_0000, 0xf_0000, 0, 0x10_0000], "negative"),
        ("mb-long", [0x10_0010, 0x10_0000, 0x10_0400, 0, 0x10_0000], "truncated"),
        ("mb-bss", [0x10_0010, 0x10_0000, 0x10_0300, 0x10_0200, 0x10_0000], "BSS"),
        ("mb-entry", [0x10_0010, 0x10_0000, 0x10_0300, 0, 0x10_0300], "entry point"),
        ("mb-hole", [0xa_0010, 0xa_0000, 0xa_0300, 0, 0xa_0000], "reserved for devices"),
    ];
    for (name, fields, reason) in cases {
        let mut image = multiboot_raw();
        for (index, field) in fields.iter().enumerate() {
            put(&mut image, 0x90 + 12 + 4 * index, &field.to_le_bytes());
        }
        let text = message(load_bytes(name, &image, 16 * MIB));
        assert!(text.contains(reason), "{name}: {text}");
    }
    // A wrong checksum, or beyond 8 KiB, is no header.
    let mut image = multiboot_raw();
    image[0x90 + 8] ^= 1;
    assert!(message(load_bytes("mb-checksum", &image, 16 * MIB)).contains("supported are"));
    let mut image = vec![0; 8192];
    image.extend(multiboot_raw());
    assert!(message(load_bytes("mb-late", &image, 16 * MIB)).contains("supported are"));
}

#[test]
fn other_files_are_named_and_refused() {
    let vmlinux = message(load_bytes("vmlinux", &elf32(false, None), 16 * MIB));
    assert!(vmlinux.contains("neither a PVH note nor a Multiboot header"), "{vmlinux}");
    for (name, image) in [("text", b"#!/bin/sh\n".to_vec()), ("nothing", vec![]), ("zeros", vec![0; 20_000])] {
        let text = message(load_bytes(name, &image, 16 * MIB));
        assert!(text.contains(name) && text.contains("supported are Linux bzImage"), "{text}");
    }
    let mem = ram(16 * MIB);
    for path in ["/", "/dev/zero", "/no/such/file"] {
        let text = message(load(&mem, &config(Path::new(path), 16 * MIB)));
        assert!(text.contains("could not open kernel file") && text.contains(path), "{text}");
    }
    let kernel = TempFile::new("no-initrd", &bzimage());
    let initrd = Some(Path::new("/no/such/initrd"));
    let text = message(load(&ram(32 * MIB), &BootConfig { initrd, ..config(&kernel.0, 32 * MIB) }));
    assert!(text.contains("/no/such/initrd"), "{text}");
}

#[test]
fn acpi_tables_outside_ram_are_refused() {
    let kernel = TempFile::new("acpi", &bzimage());
    let acpi = [(32 * MIB - 1, vec![0; 2])];
    let text = message(load(&ram(32 * MIB), &BootConfig { acpi: &acpi, ..config(&kernel.0, 32 * MIB) }));
    assert!(text.contains("table at 0x1ffffff (0x2 bytes) does not fit"), "{text}");
}

/// All images, with a name for their files.
fn images() -> [(&'static str, Vec<u8>); 5] {
    [
        ("bzimage", bzimage()),
        ("elf32", elf32(true, None)),
        ("elf64", elf64()),
        ("mb-elf", elf32(true, Some(7))),
        ("mb-raw", multiboot_raw()),
    ]
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let mem = ram(32 * MIB);
    for (name, image) in images() {
        let needed = match name {
            // The raw Multiboot kernel does not need the file's last bytes,
            "mb-raw" => 0x380,
            // a bzImage's size is in units of 16 bytes.
            "bzimage" => image.len() - 15,
            _ => image.len(),
        };
        let file = TempFile::new(&format!("cut-{name}"), &image);
        load(&mem, &config(&file.0, 32 * MIB)).unwrap();
        for len in (0..needed).rev() {
            fs::OpenOptions::new().write(true).open(&file.0).unwrap().set_len(len as u64).unwrap();
            let text = message(load(&mem, &config(&file.0, 32 * MIB)));
            assert!(text.contains(name), "{name} of {len} bytes: {text}");
        }
    }
}

/// xorshift64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn damaged_files_end_in_an_error_or_a_sound_state() {
    let mem = ram(32 * MIB);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut booted = 0;
    for (name, image) in images() {
        let file = TempFile::new(&format!("damaged-{name}"), &image);
        for _ in 0..2000 {
            let mut damaged = image.clone();
            for _ in 0..1 + random.next() % 4 {
                // Values at the edges find more than evenly spread ones.
                let value = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][(random.next() % 6) as usize];
                let width = [1, 2, 4, 8][(random.next() % 4) as usize];
                let at = random.next() as usize % (ELF_LOAD.min(damaged.len()) - 8);
                damaged[at..at + width].fill(value);
            }
            fs::write(&file.0, &damaged).unwrap();
            match load(&mem, &config(&file.0, 32 * MIB)) {
                Ok(state) => {
                    booted += 1;
                    assert!(state.gdt.base + u64::from(state.gdt.limit) < TABLES_LIMIT);
                }
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
            }
        }
    }
    assert!(booted > 0, "most damage is to unused bytes");
    for len in [1, 100, 1000, 10_000] {
        let garbage: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        message(load_bytes("garbage", &garbage, 32 * MIB));
    }
}
