//! Tests of loading firmware, kernels and device trees for the RISC-V boards.

use std::fs;

use super::*;
use crate::config::PieceContent;
use mimus_hw::virt::VirtModel;

const MIB: u64 = 1 << 20;

/// A file that goes with the value.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("mimus-riscv-{}-{name}", std::process::id()));
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

fn tree(ram_size: u64) -> TreeConfig<'static> {
    TreeConfig {
        model: VirtModel::Virt,
        own_htif: false,
        ram_size,
        harts: 1,
        extensions: &["i"],
        cache_block: 64,
        mmu: "riscv,sv39",
        bootargs: "quiet",
        initrd: None,
        rng_seed: [0; 32],
    }
}

fn ram(size: u64) -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&riscv_ram_ranges(size)).unwrap()
}

fn boot<'a>(bios: Bios<'a>, kernel: &'a Path, ram_size: u64) -> RiscvBoot<'a> {
    RiscvBoot { bios, kernel: Some(kernel), pieces: &[], initrd: None, tree: tree(ram_size), dtb: None, dump: None }
}

fn quad(mem: &GuestMemoryMmap<()>, at: u64) -> u64 {
    mem.read_obj(GuestAddress(at)).unwrap()
}

/// A Linux Image of 4 KiB that needs `size` bytes at `offset`.
fn image(offset: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![0x13; 4096];
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&size.to_le_bytes());
    bytes[56..60].copy_from_slice(b"RSC\x05");
    bytes
}

/// An ELF file with one segment of 16 bytes at `paddr`, mapped at `vaddr`, and symbols.
fn elf(machine: u16, vaddr: u64, paddr: u64, symbols: &[(&str, u64)]) -> Vec<u8> {
    let mut names = vec![0];
    let mut table = vec![0; SYMBOL];
    for (name, value) in symbols {
        let mut symbol = [0; SYMBOL];
        symbol[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
        symbol[8..16].copy_from_slice(&value.to_le_bytes());
        table.extend(symbol);
        names.extend(name.bytes().chain([0]));
    }
    const SYMBOL: usize = 24;
    let code_at = 64 + 56;
    let table_at = code_at + 16;
    let names_at = table_at + table.len();
    let sections_at = names_at + names.len();
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for half in [2, machine] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1u32.to_le_bytes());
    for word in [vaddr + 4, 64, sections_at as u64] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 3, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for word in [1, 5] {
        bytes.extend(u32::to_le_bytes(word));
    }
    for word in [code_at as u64, vaddr, paddr, 16, 32, 16] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0x13; 16]);
    bytes.extend(&table);
    bytes.extend(&names);
    let section = |kind: u32, at: usize, len: usize, link: u32| {
        let mut header = [0; 64];
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
        header[40..44].copy_from_slice(&link.to_le_bytes());
        header
    };
    bytes.extend(section(0, 0, 0, 0));
    bytes.extend(section(2, table_at, table.len(), 2));
    bytes.extend(section(3, names_at, names.len(), 0));
    bytes
}

#[test]
fn firmware_kernel_initrd_and_tree() {
    let bios = TempFile::new("fw", &[0x6f; 1000]);
    let kernel = TempFile::new("image", &image(2 * MIB, 3 * MIB));
    let initrd = TempFile::new("initrd", &[9; 5000]);
    let mem = ram(64 * MIB);
    let boot = RiscvBoot { initrd: Some(&initrd.0), ..boot(Bios::File(&bios.0), &kernel.0, 64 * MIB) };
    let start = load_riscv(&mem, &boot).unwrap();
    assert_eq!(start, RiscvStart { pc: 0x1000, htif: None });
    assert_eq!(quad(&mem, RAM_BASE), 0x6f6f_6f6f_6f6f_6f6f);
    assert_eq!(quad(&mem, RAM_BASE + 2 * MIB + 64), 0x1313_1313_1313_1313);
    // The ROM's words: firmware, tree, then what the firmware is told.
    let words: Vec<u64> = (0..8).map(|i| quad(&mem, 0x1018 + 8 * i)).collect();
    let tree = words[1];
    assert_eq!(words, [RAM_BASE, tree, 0x4942_534f, 2, RAM_BASE + 2 * MIB, 1, 0, 0]);
    assert_eq!(quad(&mem, tree) as u32, 0xd00d_feedu32.swap_bytes());
    let end = RAM_BASE + 64 * MIB;
    assert!(tree > RAM_BASE + 5 * MIB && tree < end - TREE_SLACK);
    // The initrd is where the tree says.
    let mut blob = vec![0; (end - tree) as usize];
    mem.read_slice(&mut blob, GuestAddress(tree)).unwrap();
    let at = (end - 5000) & !0xfff;
    assert!(blob.windows(8).any(|bytes| bytes == at.to_be_bytes()));
    assert!(blob.windows(8).any(|bytes| bytes == (at + 5000).to_be_bytes()));
    assert_eq!(quad(&mem, at + 4992), 0x0909_0909_0909_0909);
}

#[test]
fn the_rom_loads_what_firmware_expects() {
    let rom = rom(0x1111, 0x2222, 0x3333);
    let words: Vec<u32> = rom.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    // auipc t0, 0; addi a2, t0, 40; csrr a0, mhartid; ld a1, 32(t0); ld t0, 24(t0); jr t0
    assert_eq!(words[..6], [0x297, 0x0282_8613, 0xf140_2573, 0x0202_b583, 0x0182_b283, 0x0002_8067]);
    assert_eq!((words[6], words[8], words[14]), (0x1111, 0x2222, 0x3333));
}

#[test]
fn a_large_firmware_moves_the_kernel_up() {
    let bios = TempFile::new("large", &vec![1; 2 * MIB as usize + 1]);
    let kernel = TempFile::new("moved", &image(2 * MIB, 0));
    let mem = ram(16 * MIB);
    load_riscv(&mem, &boot(Bios::File(&bios.0), &kernel.0, 16 * MIB)).unwrap();
    assert_eq!(quad(&mem, 0x1018 + 32), RAM_BASE + 4 * MIB);
}

#[test]
fn without_firmware_an_elf_file_starts_and_has_its_interface() {
    let file = elf(243, 0xffff_8000, RAM_BASE + 0x100, &[("other", 1), ("tohost", 0xffff_8008), ("fromhost", 0x77)]);
    let kernel = TempFile::new("elf", &file);
    let mem = ram(4 * MIB);
    let start = load_riscv(&mem, &boot(Bios::None, &kernel.0, 4 * MIB)).unwrap();
    assert_eq!(start.htif, Some(Htif { tohost: RAM_BASE + 0x108, fromhost: Some(0x77) }));
    assert_eq!(quad(&mem, 0x1018), RAM_BASE + 0x104, "the entry, as a physical address");
    assert_eq!(quad(&mem, RAM_BASE + 0x100), 0x1313_1313_1313_1313);
    // Any end of the file, and any byte of it wrong.
    for cut in 0..file.len() {
        let kernel = TempFile::new("cut", &file[..cut]);
        let _ = load_riscv(&mem, &boot(Bios::None, &kernel.0, 4 * MIB));
        let mut damaged = file.clone();
        damaged[cut] ^= 0xff;
        let kernel = TempFile::new("damaged", &damaged);
        let _ = load_riscv(&mem, &boot(Bios::None, &kernel.0, 4 * MIB));
    }
}

#[test]
fn a_flat_kernel_is_behind_the_firmware() {
    let bios = TempFile::new("flat-fw", &[1; 8]);
    let kernel = TempFile::new("flat", b"anything");
    let mem = ram(8 * MIB);
    load_riscv(&mem, &boot(Bios::File(&bios.0), &kernel.0, 8 * MIB)).unwrap();
    assert_eq!(quad(&mem, 0x1018 + 32), RAM_BASE + 2 * MIB);
    assert_eq!(quad(&mem, RAM_BASE + 2 * MIB), u64::from_le_bytes(*b"anything"));
    load_riscv(&mem, &boot(Bios::None, &kernel.0, 8 * MIB)).unwrap();
    assert_eq!((quad(&mem, 0x1018), quad(&mem, RAM_BASE)), (RAM_BASE, u64::from_le_bytes(*b"anything")));
}

#[test]
fn what_of_an_elf_file_is_below_ram_is_left_out() {
    // 16 bytes of the file, of which 8 are in RAM, then zeros.
    let kernel = TempFile::new("below", &elf(243, RAM_BASE - 8, RAM_BASE - 8, &[]));
    let mem = ram(4 * MIB);
    mem.write_slice(&[0xff; 64], GuestAddress(RAM_BASE)).unwrap();
    load_riscv(&mem, &boot(Bios::None, &kernel.0, 4 * MIB)).unwrap();
    let quads: Vec<u64> = (0..4).map(|i| quad(&mem, RAM_BASE + 8 * i)).collect();
    assert_eq!(quads, [0x1313_1313_1313_1313, 0, 0, u64::MAX]);
    // And above: two bytes of it are in RAM.
    let kernel = TempFile::new("above", &elf(243, 0, RAM_BASE + 4 * MIB - 2, &[]));
    load_riscv(
        &mem,
        &RiscvBoot { kernel: None, pieces: &[file(&kernel.0, 0, false)], ..boot(Bios::None, &kernel.0, 4 * MIB) },
    )
    .unwrap();
    assert_eq!(quad(&mem, RAM_BASE + 4 * MIB - 8) >> 48, 0x1313);
}

fn file(path: &Path, addr: u64, raw: bool) -> LoadedPiece {
    LoadedPiece { content: PieceContent::File { path: path.into(), raw }, addr, starts: false }
}

#[test]
fn pieces_are_put_beside_the_rest() {
    let flat = TempFile::new("piece", b"piece of");
    let program = TempFile::new("piece-elf", &elf(243, 0x40, RAM_BASE + 0x1000, &[]));
    let words = LoadedPiece { content: PieceContent::Words(vec![1, 2, 3]), addr: RAM_BASE + 0x100, starts: false };
    let (mem, end) = (ram(4 * MIB), RAM_BASE + 4 * MIB);
    let load = |pieces: &[LoadedPiece]| {
        load_riscv(&mem, &RiscvBoot { kernel: None, pieces, ..boot(Bios::None, &flat.0, 4 * MIB) })
    };
    let start = load(&[
        file(&flat.0, RAM_BASE, false),
        words.clone(),
        LoadedPiece { starts: true, ..file(&program.0, 0, false) },
        file(&program.0, end - 0x4000, true),
    ]);
    assert_eq!(start.unwrap(), RiscvStart { pc: RAM_BASE + 0x1004, htif: None });
    let at = [RAM_BASE, RAM_BASE + 0x100, RAM_BASE + 0x1000, end - 0x4000].map(|at| quad(&mem, at));
    assert_eq!(at[..3], [u64::from_le_bytes(*b"piece of"), 0x3_0201, 0x1313_1313_1313_1313]);
    assert_eq!(at[3] as u32, u32::from_le_bytes(*b"\x7fELF"));
    // The device tree is where they are not; without a kernel the beginning of RAM is entered.
    assert_eq!(quad(&mem, 0x1018), RAM_BASE);
    assert!(quad(&mem, 0x1020) + TREE_SLACK < end - 0x4000);
    let message = |piece: LoadedPiece| load(&[piece]).unwrap_err().to_string();
    for (piece, expected) in [
        (LoadedPiece { addr: end - 2, ..words.clone() }, "3 bytes at 0x803ffffe are not in RAM"),
        (LoadedPiece { addr: u64::MAX, ..words }, "not in RAM"),
        (file(&flat.0, end, false), "does not fit"),
        (file(Path::new("/nonexistent"), RAM_BASE, false), "/nonexistent"),
        (file(&program.0, 0, true), "does not fit"),
    ] {
        let message = message(piece);
        assert!(message.contains(expected), "{message:?} instead of {expected:?}");
    }
}

#[test]
fn a_tree_of_the_users_takes_the_place_of_the_boards() {
    let kernel = TempFile::new("dtb-kernel", b"anything");
    let dumped = TempFile::new("dumped", b"");
    let mem = ram(8 * MIB);
    let boot = RiscvBoot { dump: Some(&dumped.0), ..boot(Bios::None, &kernel.0, 8 * MIB) };
    load_riscv(&mem, &boot).unwrap();
    let own = fs::read(&dumped.0).unwrap();
    assert_eq!(own[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    let again = TempFile::new("again", b"");
    let quiet = TreeConfig { bootargs: "", ..boot.tree.clone() };
    load_riscv(&mem, &RiscvBoot { dtb: Some(&dumped.0), dump: Some(&again.0), tree: quiet.clone(), ..boot.clone() })
        .unwrap();
    assert_eq!(fs::read(&again.0).unwrap(), own, "as it is, where nothing is said of kernel and initrd");
    let other = TreeConfig { bootargs: "other words", ..boot.tree.clone() };
    load_riscv(&mem, &RiscvBoot { dtb: Some(&dumped.0), dump: Some(&again.0), tree: other, ..boot.clone() }).unwrap();
    let changed = fs::read(&again.0).unwrap();
    let has = |blob: &[u8], text: &[u8]| blob.windows(text.len()).any(|window| window == text);
    assert!(has(&changed, b"other words\0") && has(&own, b"quiet\0") && !has(&changed, b"quiet\0"));
    for (blob, expected) in
        [(&own[..39], "no device tree"), (b"hello".as_slice(), "no device tree"), (&own[..200], "truncated")]
    {
        let bad = TempFile::new("bad-dtb", blob);
        let error =
            load_riscv(&mem, &RiscvBoot { dtb: Some(&bad.0), tree: quiet.clone(), ..boot.clone() }).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn what_cannot_be_booted_is_named() {
    let message = |bios: Bios, kernel: &[u8], ram_size: u64| {
        let kernel = TempFile::new("bad", kernel);
        load_riscv(&ram(ram_size), &boot(bios, &kernel.0, ram_size)).expect_err("this must not boot").to_string()
    };
    let bios = TempFile::new("any", &[1; 8]);
    let with = Bios::File(&bios.0);
    let cases = [
        (message(with, b"", 8 * MIB), "empty"),
        (message(Bios::None, b"", 8 * MIB), "empty"),
        (message(with, b"\x1f\x8b\x08\0", 8 * MIB), "gzip"),
        (message(with, &image(2 * MIB, 7 * MIB), 8 * MIB), "does not fit"),
        (message(with, &image(u64::MAX, 0), 8 * MIB), "does not fit"),
        (message(with, &image(2 * MIB, u64::MAX), 8 * MIB), "does not fit"),
        (message(with, &elf(62, 0, RAM_BASE, &[]), 8 * MIB), "not RISC-V"),
        (message(with, &elf(243, 0, 0x1000, &[]), 8 * MIB), "does not fit"),
        (message(with, &elf(243, 0, RAM_BASE, &[]), 8 * MIB), "overlaps"),
        (message(Bios::None, &image(0, 8 * MIB), 8 * MIB), "no room for the device tree"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message:?} instead of {expected:?}");
    }
}

#[test]
fn the_message_about_missing_firmware_says_what_to_install() {
    let message = BootError::NoFirmware(DEFAULT_BIOS).to_string();
    assert!(message.contains("opensbi") && message.contains(DEFAULT_BIOS[0]), "{message}");
}
