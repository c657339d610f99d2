//! Kernels as firmware's option ROM gets them.

use super::*;

/// What the ROM of `staged` copies: address and bytes, zeros included.
fn copied(staged: &Staged) -> Vec<(u64, Vec<u8>)> {
    const JOBS: usize = 0x60;
    let requests = staged.rom[JOBS..].chunks(16);
    let jobs = requests.map_while(|request| {
        let field = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        let (control, len, address) = (field(0), field(4), u64::from(field(12)));
        let item = staged.items.iter().find(|(key, _)| u32::from(*key) == control >> 16);
        let (_, bytes) = item.filter(|_| control & 0xffff == 10 && field(8) == 0)?;
        let mut bytes = bytes.clone();
        bytes.resize(len as usize, 0);
        Some((address, bytes))
    });
    jobs.collect()
}

/// The piece that begins at `address`.
fn piece(pieces: &[(u64, Vec<u8>)], address: u64) -> &[u8] {
    &pieces.iter().find(|piece| piece.0 == address).unwrap_or_else(|| panic!("nothing at {address:#x}")).1
}

#[test]
fn set_up_code_is_told_where_everything_is() {
    let kernel = TempFile::new("staged", &bzimage());
    let initrd = TempFile::new("staged-initrd", &[0xa5; 5000]);
    let config = BootConfig { initrd: Some(&initrd.0), cmdline: "vga=ask quiet", ..config(&kernel.0, 64 * MIB) };
    let staged = stage(&config).unwrap();
    let pieces = copied(&staged);
    assert_eq!(pieces.len(), 4);
    let setup = piece(&pieces, 0x1_0000);
    assert_eq!(setup.len(), BZ_SETUP);
    let field = |at: usize| u32::from_le_bytes(setup[at..at + 4].try_into().unwrap());
    assert_eq!((setup[0x210], setup[0x211]), (0xff, 0xc1), "loader, and there is a heap");
    assert_eq!((&setup[0x1fa..0x1fc], &setup[0x224..0x226]), (&[0xfd, 0xff][..], &[0x00, 0xfe][..]));
    assert_eq!(piece(&pieces, field(0x228).into()), b"vga=ask quiet\0");
    assert_eq!(piece(&pieces, MIB), &bzimage()[BZ_SETUP..]);
    assert_eq!((field(0x218), field(0x21c)), (63 * MIB as u32 - 0x2000, 5000), "below what is firmware's");
    assert_eq!(piece(&pieces, field(0x218).into()), [0xa5; 5000]);
    // Firmware that loads kernels by itself asks for sizes.
    let size = |key| staged.items.iter().find(|item| item.0 == key).unwrap().1.clone();
    assert_eq!([0x17, 0x08, 0x0b].map(size), [1024u32, 1024, 5000].map(|size| size.to_le_bytes().to_vec()));
    let places = [0x1_0000, MIB as u32, field(0x218), field(0x228)].map(|at| at.to_le_bytes().to_vec());
    assert_eq!([0x16, 0x07, 0x0a, 0x13].map(size), places, "and some for places");
}

#[test]
fn old_kernels_are_where_their_protocol_says() {
    // Version, flags; set-up code, kernel, command line.
    let cases = [
        (0x203, 1, 0x1_0000, MIB, 0x2_0000),
        (0x201, 1, 0x9_0000, MIB, 0x9_9ff0),
        (0x200, 0, 0x9_0000, 0x1_0000, 0x9_9ff0),
    ];
    for (version, flags, setup, code, line) in cases {
        let mut image = bzimage();
        put(&mut image, BZ_VERSION, &u16::to_le_bytes(version));
        image[0x211] = flags;
        let kernel = TempFile::new("staged-old", &image);
        let pieces = copied(&stage(&BootConfig { cmdline: "quiet", ..config(&kernel.0, 64 * MIB) }).unwrap());
        let header = piece(&pieces, setup);
        assert_eq!((piece(&pieces, code).len(), piece(&pieces, line)), (BZ_PAYLOAD, b"quiet\0".as_slice()));
        if version < 0x202 {
            assert_eq!(header[0x20..0x24], [0x3f, 0xa3, 0xf0, 0x9f]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut image = bzimage();
    image[0x1f1] = 64;
    image.resize(100_000, 0);
    let kernel = TempFile::new("staged-set-up", &image);
    let text = |config: &BootConfig| stage(config).expect_err("this must not boot").to_string();
    assert!(text(&config(&kernel.0, 64 * MIB)).contains("set-up code has 33280 bytes"));
    let kernel = TempFile::new("staged-cmdline", &bzimage());
    let long = "x".repeat(2048);
    assert!(text(&BootConfig { cmdline: &long, ..config(&kernel.0, 64 * MIB) }).contains("at most 2047"));
    let initrd = TempFile::new("staged-large", b"x");
    fs::OpenOptions::new().write(true).open(&initrd.0).unwrap().set_len(4 * MIB).unwrap();
    let text = text(&BootConfig { initrd: Some(&initrd.0), ..config(&kernel.0, 5 * MIB) });
    assert!(text.contains("4096 KiB does not fit"), "{text}");
}

#[test]
fn a_rom_has_room_for_so_many_pieces() {
    let kernel = TempFile::new("staged-many", &elf32(false, Some(7)));
    let module = TempFile::new("staged-one", b"x");
    // Each module is a piece, and so is its text.
    let list = |count: usize| PathBuf::from(vec![module.0.display().to_string(); count].join(","));
    let stage = |list: &Path| stage(&BootConfig { initrd: Some(list), ..config(&kernel.0, 64 * MIB) });
    assert!(stage(&list(100)).unwrap().rom.len() < 0x1_0000);
    let error = stage(&list(rom::JOBS_MOST)).expect_err("too many").to_string();
    assert!(error.contains("no room") || error.contains("pieces of memory"), "{error}");
}

#[test]
fn modules_have_arguments_and_commas() {
    let kernel = TempFile::new("staged-mb", &elf32(false, Some(7)));
    let (one, two) = (TempFile::new("staged-mod,1", b"first"), TempFile::new("staged-mod2", b"second"));
    let name = one.0.display().to_string().replace(',', ",,");
    let list = PathBuf::from(format!("{name} x=1,, y, {}", two.0.display()));
    let config = BootConfig { initrd: Some(&list), ..config(&kernel.0, 16 * MIB) };
    let texts = [format!("{} x=1, y", one.0.display()), two.0.display().to_string()];

    let pieces = copied(&stage(&config).unwrap());
    let string = |text: &str| pieces.iter().any(|piece| piece.1 == [text.as_bytes(), &[0]].concat());
    assert!(texts.iter().all(|text| string(text)));
    let kernel = piece(&pieces, ELF_ADDRESS.into());
    assert_eq!((kernel.len(), &kernel[..2]), (ELF_FILE as usize, &[1, 1][..]));
    assert_eq!(piece(&pieces, u64::from(ELF_ADDRESS + ELF_FILE)), [0; (ELF_MEMORY - ELF_FILE) as usize]);

    let mem = ram(16 * MIB);
    let state = load(&mem, &config).unwrap();
    let field = |index: u64| word(&mem, state.gpr[3] + 4 * index);
    assert_eq!(field(5), 2);
    for (index, (text, contents)) in texts.iter().zip([b"first".as_slice(), b"second"]).enumerate() {
        let module = u64::from(field(6)) + 16 * index as u64;
        assert_eq!(read(&mem, word(&mem, module).into(), contents.len()), contents);
        assert_eq!(super::string(&mem, word(&mem, module + 8).into()), *text);
    }
}

#[test]
fn only_kernels_that_say_what_they_need_start_at_once() {
    let starts = |name: &str, image: &[u8]| {
        let file = TempFile::new(&format!("direct-{name}"), image);
        starts_without_firmware(&file.0).unwrap()
    };
    assert!(starts("bzimage", &bzimage()));
    let mut old = bzimage();
    put(&mut old, BZ_VERSION, &[7, 2]);
    assert!(!starts("old", &old));
    assert!(!starts("multiboot", &multiboot_raw()) && !starts("pvh", &elf64()) && !starts("empty", &[]));
}

#[test]
fn damaged_files_are_staged_or_refused() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for (name, image) in images() {
        let file = TempFile::new(&format!("staged-damaged-{name}"), &image);
        for _ in 0..500 {
            let mut damaged = image.clone();
            for _ in 0..1 + random.next() % 4 {
                let value = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][(random.next() % 6) as usize];
                let at = random.next() as usize % (ELF_LOAD.min(damaged.len()) - 4);
                damaged[at..at + 4].fill(value);
            }
            damaged.truncate(random.next() as usize % (2 * image.len()));
            fs::write(&file.0, &damaged).unwrap();
            if let Ok(staged) = stage(&config(&file.0, 32 * MIB)) {
                assert!(copied(&staged).iter().all(|(at, bytes)| at + bytes.len() as u64 <= 32 * MIB), "{name}");
            }
        }
    }
}
