//! Wrong arguments, broken files and hostile guests: each ends in a clear message or in a fault of the guest, in time, and
//! never in a panic (for which every session looks).

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_tests::image::{DEBUG_PORT, FREE, TINY_SELECTOR, exit, exit_code, kernel, multiboot, pvh, raw};
use mimus_tests::rng::Rng;
use mimus_tests::{Ended, Folder, Session, guest, progress};
use rustix::process::Signal;
use serde_json::Value;

/// How long anything here may take that is to end by itself.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs mimus to its end, without input.
fn run<S: AsRef<str>>(name: &str, args: &[S]) -> Ended {
    let mut session = Session::piped(name, args, LIMIT);
    session.close_input();
    session.finish()
}

/// The lines that are no warnings: root gets one, and so does who sees no screen.
fn lines(ended: &Ended) -> Vec<&str> {
    ended.text.lines().filter(|line| !line.starts_with("mimus: warning: ")).collect()
}

/// Checks that mimus refuses these arguments with one line that says `message`.
fn refused<S: AsRef<str>>(name: &str, args: &[S], message: &str) {
    let ended = run(name, args);
    assert_eq!(ended.code, Some(1), "{name}: {ended:?}");
    let said = lines(&ended);
    assert!(said.len() == 1 && said[0].starts_with("mimus: ") && said[0].contains(message), "{name}: {ended:?}");
}

#[test]
fn arguments_that_make_no_sense() {
    let folder = Folder::new();
    let image = folder.write("guest", &multiboot(kernel(|a| exit(a, 0))));
    let rows: &[(&[&str], &str)] = &[
        (&["-krenel", &image], "did you mean -kernel?"),
        (&["-kernel"], "-kernel"),
        (&["-kernel", ""], "file name is empty"),
        (&["-initrd", &image], "needs -kernel"),
        (&["-kernel", &image, "-m", "0"], "out of range"),
        (&["-kernel", &image, "-m", "lots"], "-m"),
        (&["-kernel", &image, "-m", "99999999999999999999"], "-m"),
        (&["-kernel", &image, "-smp", "4,maxcpus=2"], "-smp"),
        (&["-kernel", &image, "-accel", "tgc"], "-accel"),
        (&["-kernel", &image, "-accel", "jit,tb-size=0"], "tb-size"),
        (&["-kernel", &image, "-accel", "jit,treshold=1"], "threshold"),
        (&["-kernel", &image, "-accel", "interp,tb-size=1"], "tb-size"),
        (&["-kernel", &image, "-machine", "q35"], "-machine"),
        (&["-kernel", &image, "-device", "isa-debug-exit,iobase=0xffff,iosize=4"], "0xffff"),
        (&["-kernel", &image, "-serial", "tcp:localhost:1"], "Connection refused"),
        (&["-kernel", &image, "-serial", "telnet:localhost:1"], "Connection refused"),
        (&["-kernel", &image, "-serial", "file:/nonexistent/log"], "cannot create"),
        (&["-kernel", &image, "-stats", "/nonexistent/stats"], "cannot create"),
        (&["-kernel", &image, "-drive", "file=disk.img"], "No such file"),
        (&["disk.img"], "No such file"),
    ];
    for (args, message) in rows {
        refused(&args.join(" "), args, message);
    }
}

#[test]
fn files_that_are_no_kernels() {
    let folder = Folder::new();
    let (empty, text) = (folder.write("empty", b""), folder.write("text", b"#!/bin/sh\nexit 1\n"));
    let garbage = folder.write("garbage", &Rng::new(1).bytes(1 << 20));
    let rows: &[(&str, &str)] = &[
        (&folder.path("missing"), "No such file or directory"),
        ("/", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (&empty, "the file is empty"),
        (&text, "not a kernel that mimus can boot"),
        (&garbage, "not a kernel that mimus can boot"),
        (&guest("busybox").display().to_string(), "neither a PVH note nor a Multiboot header"),
        (&guest("initramfs.gz").display().to_string(), "not a kernel that mimus can boot"),
    ];
    for (path, message) in rows {
        refused(path, &["-kernel", path, "-display", "none"], message);
    }
    let image = folder.write("guest", &multiboot(kernel(|a| exit(a, 0))));
    for (initrd, message) in
        [(&folder.path("missing"), "No such file"), (&empty, "the file is empty"), (&"/".into(), "not a regular")]
    {
        refused(initrd, &["-kernel", &image, "-initrd", initrd, "-display", "none"], message);
    }
    let large = fs::File::create(folder.path("large")).expect("a file");
    large.set_len(65 << 20).expect("a sparse file");
    let large = folder.path("large");
    refused("initrd", &["-m", "64", "-kernel", &image, "-initrd", &large], "do not fit");
    let linux = guest("cloud/vmlinuz").display().to_string();
    refused("linux, large initrd", &["-m", "128", "-kernel", &linux, "-initrd", &large], "do not fit");
    refused("linux, -m 1", &["-m", "1", "-kernel", &linux], "it needs");
    let long = "x".repeat(5000);
    refused("linux, long command line", &["-m", "512", "-kernel", &linux, "-append", &long], "too long");
}

/// A kernel that ends somewhere, everywhere where its parts begin and end.
#[test]
fn kernels_that_are_truncated() {
    let folder = Folder::new();
    for name in ["cloud/vmlinuz", "i386/vmlinuz"] {
        let whole = fs::read(guest(name)).expect("a kernel");
        // Before the "HdrS" of the setup header nothing tells a bzImage.
        for length in
            [1, 0x1f1, 0x201, 0x205, 0x206, 0x20f, 0x230, 0x268, 0x400, 0x1000, 0x2001, 1 << 16, whole.len() / 2]
        {
            let path = folder.write("truncated", &whole[..length]);
            let message = if length < 0x206 { "not a kernel that mimus can boot" } else { "truncated" };
            refused(&format!("{name}: {length} bytes"), &["-m", "512", "-kernel", &path, "-display", "none"], message);
        }
    }
    for (name, whole) in [("multiboot", multiboot(kernel(|a| exit(a, 0)))), ("pvh", pvh(&kernel(|a| exit(a, 0))))] {
        for length in (0..whole.len()).step_by(13) {
            let path = folder.write("truncated", &whole[..length]);
            // A short Multiboot kernel is one that runs into the memory behind it: only what its header names must be there.
            let args = [
                "-m",
                "2",
                "-no-reboot",
                "-display",
                "none",
                "-kernel",
                &path,
                "-device",
                EXIT_DEVICE,
                "-bios",
                "none",
            ];
            let ended = run(&format!("{name}: {length} bytes"), &args);
            assert!(ended.code.is_some(), "{name}: {length} bytes: {ended:?}");
        }
    }
}

/// The machine of the guests below.
const HOSTILE: [&str; 8] = ["-m", "64", "-no-reboot", "-display", "none", "-debugcon", "stdio", "-device"];
const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0x501,iosize=1";

fn hostile<'a>(image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&HOSTILE[..], &[EXIT_DEVICE, "-bios", "none", "-kernel", image], more].concat()
}

/// `perf record` gives its programs this variable, for which the code generator's own module opens a file in a folder that is
/// closed by then.
#[test]
fn an_environment_that_asks_for_a_profile() {
    let folder = Folder::new();
    let image = folder.write("guest", &multiboot(kernel(|a| exit(a, 3))));
    let name = "PERF_BUILDID_DIR";
    let mut session = Session::in_environment(name, &["PERF_BUILDID_DIR=/nonexistent"], &hostile(&image, &[]), LIMIT);
    session.close_input();
    let ended = session.finish();
    assert_eq!(ended.code, Some(exit_code(3)), "{ended:?}");
}

/// Translations that are kept between runs: the second run takes them, and those that are damaged, or that others could have written,
/// are told of in one line and not used.
#[test]
fn translations_that_are_kept() {
    let folder = Folder::new();
    let image = folder.write(
        "guest",
        &multiboot(kernel(|a| {
            let mut again = a.create_label();
            a.mov(ecx, 100_000)?;
            a.xor(eax, eax)?;
            a.set_label(&mut again)?;
            a.add(eax, ecx)?;
            a.dec(ecx)?;
            a.jne(again)?;
            exit(a, 5)
        })),
    );
    let (kept, stats) = (folder.path("kept"), folder.path("stats"));
    let accel = format!("jit,cache={kept}");
    let taken = |warnings: &[&str]| {
        let ended = run("kept", &hostile(&image, &["-accel", &accel, "-stats", &stats]));
        assert_eq!(ended.code, Some(exit_code(5)), "{ended:?}");
        let said: Vec<&str> = ended.text.lines().filter(|line| line.contains("cache: ")).collect();
        let right = said.len() == warnings.len() && said.iter().zip(warnings).all(|(line, text)| line.contains(text));
        assert!(right, "{warnings:?}: {ended:?}");
        let stats: Value = serde_json::from_slice(&fs::read(&stats).unwrap()).unwrap();
        stats["blocks"]["kept"].as_u64().unwrap()
    };
    assert_eq!(taken(&[]), 0);
    assert!(taken(&[]) > 0);
    let files = || fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
    let file = files().find(|path| path.extension().is_some_and(|end| end == "translations")).unwrap();
    assert_eq!(files().count(), 2, "the file and its lock");
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(taken(&["is damaged"]), 0);
    assert!(taken(&[]) > 0, "it was written anew");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).unwrap();
    assert_eq!(taken(&["may write it (mode 622)"]), 0);
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(taken(&["may write it (mode 777)", "may write it (mode 777)"]), 0);
}

/// What assembles a guest.
type Build = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The accelerators that every small guest runs on.
const ACCELS: [&str; 4] = ["jit", "interp", "jit,compile=sync,threshold=1", "jit,tb-size=1,threshold=2"];

/// A guest, what it prints, and how it ends.
struct Row {
    name: &'static str,
    build: Build,
    text: &'static str,
    code: i32,
}

/// What mimus says when a guest runs into its third fault.
const TRIPLE_FAULT: &str = "triple fault";

/// Jumps to where no code is; nothing there ends in something that the guest can see.
fn jump(a: &mut CodeAssembler, to: u32) -> Result<(), IcedError> {
    a.mov(eax, to)?;
    a.jmp(eax)
}

const ROWS: &[Row] = &[
    Row { name: "exit", build: |a| exit(a, 0x10), text: "", code: 0x21 },
    Row { name: "exit 0xff", build: |a| exit(a, 0xff), text: "", code: 0xff },
    Row { name: "debug console", build: hello, text: "hello\n", code: 1 },
    Row { name: "no interrupt table", build: no_table, text: TRIPLE_FAULT, code: 0 },
    Row { name: "no stack", build: no_stack, text: TRIPLE_FAULT, code: 0 },
    Row { name: "undefined instruction", build: |a| a.ud2(), text: "", code: code(6) },
    Row { name: "division by zero", build: divide, text: "", code: code(0) },
    Row { name: "16 bytes", build: |a| long_instruction(a, 15), text: "", code: code(13) },
    Row { name: "17 bytes", build: |a| long_instruction(a, 16), text: "", code: code(13) },
    Row { name: "privileged in no mode", build: |a| a.db(&[0x0f, 0x22, 0xe8]), text: "", code: code(6) },
    Row { name: "a segment that is not there", build: bad_segment, text: "", code: code(13) },
    Row { name: "page tables nowhere", build: bad_paging, text: TRIPLE_FAULT, code: 0 },
    Row { name: "jump to the local APIC", build: |a| jump(a, 0xfee0_0000), text: "", code: -1 },
    Row { name: "jump to the video memory", build: |a| jump(a, 0xa_0000), text: "", code: -1 },
    Row { name: "jump to nowhere", build: |a| jump(a, 0xd000_0000), text: "", code: -1 },
    Row { name: "jump to the last byte", build: |a| jump(a, 0xffff_ffff), text: "", code: -1 },
    Row { name: "runs off the end of RAM", build: |a| jump(a, (64 << 20) - 0x1003), text: "", code: -1 },
    Row { name: "every port", build: every_port, text: "", code: code(0x22) },
    Row { name: "device memory by string instructions", build: string_mmio, text: "", code: code(0x33) },
    Row { name: "a computation", build: sieve, text: "", code: code(54) },
];

const fn code(value: u8) -> i32 {
    (value as i32) << 1 & 0xff | 1
}

fn hello(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dx, DEBUG_PORT)?;
    for byte in b"hello\n" {
        a.mov(al, u32::from(*byte))?;
        a.out(dx, al)?;
    }
    exit(a, 0)
}

fn no_table(a: &mut CodeAssembler) -> Result<(), IcedError> {
    // Where RAM is zero: a limit of 0.
    a.mov(eax, FREE)?;
    a.db(&[0x0f, 0x01, 0x18])?;
    a.ud2()
}

fn no_stack(a: &mut CodeAssembler) -> Result<(), IcedError> {
    // Nothing can be pushed, for no fault and no double fault.
    a.mov(eax, TINY_SELECTOR)?;
    a.mov(ss, eax)?;
    a.ud2()
}

fn divide(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.xor(ecx, ecx)?;
    a.div(ecx)
}

fn long_instruction(a: &mut CodeAssembler, prefixes: usize) -> Result<(), IcedError> {
    let mut bytes = vec![0x66; prefixes];
    bytes.push(0x90);
    a.db(&bytes)?;
    exit(a, 0x44)
}

fn bad_segment(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 0x1230u32)?;
    a.mov(ds, eax)
}

fn bad_paging(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 0xd000_0000u32)?;
    a.mov(cr3, eax)?;
    a.mov(eax, cr0)?;
    a.or(eax, 0x8000_0000u32)?;
    a.mov(cr0, eax)?;
    exit(a, 0x44)
}

/// Reads and writes every port but those that end the run or reset the machine, in each width.
fn every_port(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut next = a.create_label();
    let mut done = a.create_label();
    a.cli()?;
    a.xor(edx, edx)?;
    let mut each = a.create_label();
    a.set_label(&mut each)?;
    // The debug exit, the keyboard controller, the reset register, the power-off register of ACPI.
    for (from, to) in
        [(0x4fe, 0x502), (0x5d, 0x64), (0x8f, 0x92), (0xcf6, 0xcf9), (0x5fd, 0x607), (0xb000, 0xb03f), (0xe6, 0xe9)]
    {
        let mut clear = a.create_label();
        a.cmp(edx, from)?;
        a.jb(clear)?;
        a.cmp(edx, to)?;
        a.jbe(next)?;
        a.set_label(&mut clear)?;
        a.nop()?;
    }
    a.in_(al, dx)?;
    a.in_(ax, dx)?;
    a.in_(eax, dx)?;
    a.mov(eax, 0xffff_ffffu32)?;
    a.out(dx, al)?;
    a.out(dx, ax)?;
    a.xor(eax, eax)?;
    a.out(dx, eax)?;
    a.set_label(&mut next)?;
    a.inc(edx)?;
    a.cmp(edx, 0xffff)?;
    a.ja(done)?;
    a.jmp(each)?;
    a.set_label(&mut done)?;
    exit(a, 0x22)
}

/// String instructions between RAM, the local APIC, the I/O APIC, nothing, and the end of the address space.
fn string_mmio(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.cld()?;
    for (from, to, count) in [
        (0xfee0_0000, FREE, 0x1_0000u32),
        (FREE, 0xd000_0000, 0x1_0000),
        (0xfec0_0000, FREE, 0x400),
        (0xd000_0000, 0xd100_0000, 0x1_0000),
        (0xffff_ff00, FREE, 0x100),
        (FREE, 0xa_0000, 0x8000),
        ((64 << 20) - 0x100, (64 << 20) - 0x80, 0x100),
    ] {
        for width in [1, 4] {
            a.mov(esi, from)?;
            a.mov(edi, to)?;
            a.mov(ecx, count / width)?;
            if width == 1 {
                a.rep().movsb()?
            } else {
                a.rep().movsd()?
            }
            a.mov(esi, from)?;
            a.mov(edi, from)?;
            a.mov(ecx, count / width)?;
            if width == 1 { a.repe().cmpsb()? } else { a.repne().scasd()? }
        }
    }
    exit(a, 0x33)
}

/// The number of primes below 256 (54), by a sieve, a hundred times.
fn sieve(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const BOUND: u32 = 256;
    a.mov(ebp, 100u32)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.mov(edi, FREE)?;
    a.mov(ecx, BOUND)?;
    a.mov(al, 1)?;
    a.rep().stosb()?;
    a.xor(ebx, ebx)?;
    a.mov(esi, 2u32)?;
    let (mut each, mut mark, mut marked, mut composite) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.set_label(&mut each)?;
    a.cmp(byte_ptr(esi + FREE), 0)?;
    a.je(composite)?;
    a.inc(ebx)?;
    a.mov(edi, esi)?;
    a.set_label(&mut mark)?;
    a.add(edi, esi)?;
    a.cmp(edi, BOUND)?;
    a.jae(marked)?;
    a.mov(byte_ptr(edi + FREE), 0)?;
    a.jmp(mark)?;
    a.set_label(&mut marked)?;
    a.nop()?;
    a.set_label(&mut composite)?;
    a.inc(esi)?;
    a.cmp(esi, BOUND)?;
    a.jb(each)?;
    a.dec(ebp)?;
    a.jne(again)?;
    a.mov(eax, ebx)?;
    a.mov(dx, mimus_tests::image::EXIT_PORT)?;
    a.out(dx, al)
}

#[test]
fn small_guests_end_alike_in_every_tier() {
    let folder = Folder::new();
    for Row { name, build, text, code } in ROWS {
        let kernel = kernel(build);
        let images = [folder.write("multiboot", &multiboot(kernel.clone())), folder.write("pvh", &pvh(&kernel))];
        for image in &images {
            let mut ends = Vec::new();
            for accel in ACCELS {
                let what = format!("{name}, -accel {accel}, {image}");
                let ended = run(&what, &hostile(image, &["-accel", accel]));
                assert!(ended.text.contains(text), "{what}: {ended:?}");
                // Memory that reads as something or nothing: any fault that the guest gets will do.
                assert!(*code == -1 || ended.code == Some(*code), "{what}: {ended:?}");
                ends.push((accel, ended.code));
            }
            assert!(ends[0].1.is_some(), "{name}: {ends:?}");
            assert!(ends.iter().all(|end| end.1 == ends[0].1), "{name}: the tiers differ: {ends:?}");
            progress(&format!("{name}: exit code {}", ends[0].1.unwrap_or_default()));
        }
    }
}

/// Makes a function at a new place, `count` times, `stride` bytes apart and round again, and calls each 4 times. Ends with
/// 0x11 when the functions returned what they should.
fn one_off_code(a: &mut CodeAssembler, count: u32, stride: u32) -> Result<(), IcedError> {
    const CALLS: u32 = 4;
    const END: u32 = 60 << 20;
    let (mut each, mut call, mut inside) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(edi, FREE)?;
    a.xor(ebx, ebx)?;
    a.mov(esi, count)?;
    a.set_label(&mut each)?;
    // mov eax, esi; add ebx, eax; nop; nop; ret
    a.mov(byte_ptr(edi), 0xb8)?;
    a.mov(dword_ptr(edi + 1), esi)?;
    a.mov(dword_ptr(edi + 5), 0x9090_c301u32)?;
    a.mov(byte_ptr(edi + 9), 0xc3)?;
    a.mov(ecx, CALLS)?;
    a.set_label(&mut call)?;
    a.call(edi)?;
    a.dec(ecx)?;
    a.jne(call)?;
    a.add(edi, stride)?;
    a.cmp(edi, END)?;
    a.jb(inside)?;
    a.mov(edi, FREE)?;
    a.set_label(&mut inside)?;
    a.dec(esi)?;
    a.jne(each)?;
    let sum = u64::from(count) * (u64::from(count) + 1) / 2 * u64::from(CALLS);
    let mut wrong = a.create_label();
    a.cmp(ebx, sum as u32)?;
    a.jne(wrong)?;
    exit(a, 0x11)?;
    a.set_label(&mut wrong)?;
    exit(a, 0x12)
}

/// The most memory that a process has had, in KiB.
fn peak_kib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

#[test]
fn code_that_is_never_seen_again_fills_no_memory() {
    let folder = Folder::new();
    for (name, stride, compile) in [
        ("one page", 64, "background"),
        ("many pages", 4096 + 64, "background"),
        ("compiled at once", 4096 + 64, "sync"),
    ] {
        let count = if compile == "sync" { 30_000 } else { 200_000 };
        let image = folder.write("guest", &multiboot(kernel(|a| one_off_code(a, count, stride))));
        let stats = folder.path("stats");
        let accel = format!("jit,tb-size=2,threshold=2{}", if compile == "sync" { ",compile=sync" } else { "" });
        let start = Instant::now();
        let mut session = Session::piped(name, &hostile(&image, &["-accel", &accel, "-stats", &stats]), LIMIT);
        let mut peak = 0;
        while session.running() {
            peak = peak_kib(session.id()).max(peak);
            session.watch(Duration::from_millis(50));
        }
        let ended = session.finish();
        assert_eq!(ended.code, Some(exit_code(0x11)), "{name}: {ended:?}");
        // 64 MiB of RAM, 2 MiB of translations, the program itself.
        assert!(peak < 128 << 10, "{name}: {peak} KiB of memory");
        let stats: Value = serde_json::from_str(&fs::read_to_string(&stats).expect("-stats")).expect("JSON");
        let evictions = stats["cache"]["evictions"].as_u64().expect("a counter");
        progress(&format!(
            "{name}: {count} functions, {evictions} evictions, at most {peak} KiB, {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        assert!(evictions > 1000, "{name}: {stats:#}");
    }
}

/// Whatever the guest is at, Ctrl-A x and SIGTERM end the run.
#[test]
fn guests_that_never_end_can_be_ended() {
    let rows: &[(&str, Build)] = &[
        ("jmp .", |a| a.db(&[0xeb, 0xfe])),
        ("cli; hlt", |a| {
            a.cli()?;
            a.hlt()
        }),
        ("rep stosd to nothing", |a| {
            a.mov(edi, 0xd000_0000u32)?;
            a.mov(ecx, 0x0b00_0000u32)?;
            a.rep().stosd()?;
            a.db(&[0xeb, 0xfe])
        }),
        ("rep lodsb of the local APIC", |a| {
            a.mov(esi, 0xfee0_0000u32)?;
            a.mov(ecx, 0xffff_ffffu32)?;
            a.rep().lodsb()?;
            a.db(&[0xeb, 0xfe])
        }),
        ("rep insb", |a| {
            a.mov(dx, 0x80)?;
            a.mov(edi, FREE)?;
            a.mov(ecx, 0x0200_0000u32)?;
            a.rep().insb()?;
            a.db(&[0xeb, 0xf0])
        }),
        ("repe cmpsb in RAM", |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(esi, FREE)?;
            a.mov(edi, FREE)?;
            a.mov(ecx, 0x0200_0000u32)?;
            a.repe().cmpsb()?;
            a.jmp(again)
        }),
        ("interrupts all the time", |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.sti()?;
            a.nop()?;
            a.cli()?;
            a.jmp(again)
        }),
    ];
    let folder = Folder::new();
    for ((name, build), accel) in rows.iter().flat_map(|row| ACCELS.map(|accel| (row, accel))) {
        let what = format!("{name}, -accel {accel}");
        let image = folder.write("guest", &multiboot(kernel(build)));
        let args = ["-m", "64", "-nographic", "-bios", "none", "-kernel", &image, "-accel", accel];
        let mut session = Session::piped(&what, &args, LIMIT);
        session.watch(Duration::from_millis(300));
        assert!(session.running(), "{what}: it ended");
        session.send("\x01x");
        let ended = session.finish();
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
    }
    let image = folder.write("guest", &multiboot(kernel(rows[0].1)));
    let mut session = Session::piped("SIGTERM", &["-m", "64", "-nographic", "-kernel", &image], LIMIT);
    session.watch(Duration::from_millis(300));
    session.signal(Signal::TERM);
    let ended = session.finish();
    assert!(ended.code == Some(0) && ended.text.contains("terminating on signal 15 from pid"), "{ended:?}");
}

/// Seconds of processor time that a process has used (proc_pid_stat(5): fields 14 and 15, in hundredths).
fn processor_time(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("the process runs");
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1;
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
}

#[test]
fn a_halted_guest_uses_no_processor() {
    let folder = Folder::new();
    let image = folder.write(
        "guest",
        &multiboot(kernel(|a| {
            a.cli()?;
            a.hlt()
        })),
    );
    let mut session = Session::piped("cli; hlt", &["-m", "64", "-nographic", "-kernel", &image], LIMIT);
    session.watch(Duration::from_millis(500));
    let before = processor_time(session.id());
    session.watch(Duration::from_secs(2));
    assert!(session.running());
    let used = processor_time(session.id()) - before;
    assert!(used <= 0.05, "{used} s of processor time in 2 s of HLT");
}

/// Images with a few bits or bytes wrong, and guests that are nothing but noise.
#[test]
fn noise() {
    const IMAGES: u64 = 150;
    const TIME: Duration = Duration::from_millis(400);
    let folder = Folder::new();
    let small = kernel(|a| exit(a, 0));
    let linux = {
        // A kernel's real header before a payload of noise, whose size the header has in units of 16 bytes at 0x1f4.
        let mut head = fs::read(guest("cloud/vmlinuz")).expect("a kernel");
        head.truncate((usize::from(head[0x1f1]) + 1) * 512);
        head[0x1f4..0x1f8].copy_from_slice(&0x1000u32.to_le_bytes());
        head
    };
    let mut codes = [0; 4];
    for seed in 0..IMAGES {
        let mut rng = Rng::new(seed);
        let image = match seed % 5 {
            // The headers are at the beginning of both.
            0 | 1 => {
                let mut image = if seed % 5 == 0 { multiboot(small.clone()) } else { pvh(&small) };
                for _ in 0..1 + rng.below(4) {
                    let at = rng.below(0x80) as usize;
                    image[at] = rng.next_u64() as u8;
                }
                image
            }
            2 => multiboot(raw(&rng.bytes(1 << 16))),
            3 => [linux.clone(), rng.bytes(1 << 16)].concat(),
            _ => {
                let mut image = [linux.clone(), vec![0xf4; 1 << 16]].concat();
                for _ in 0..1 + rng.below(6) {
                    let at = 0x1f1 + rng.below(0x80) as usize;
                    image[at] = rng.next_u64() as u8;
                }
                image
            }
        };
        let path = folder.write("noise", &image);
        let accel = rng.pick(&ACCELS);
        let args = ["-m", "512", "-no-reboot", "-display", "none", "-bios", "none", "-kernel", &path, "-accel", accel];
        let ended = Session::piped(&format!("noise {seed}, -accel {accel}"), &args, LIMIT).finish_within(TIME);
        let index = match (ended.code, ended.signal) {
            (Some(0), _) => 0,
            (Some(1), _) => 1,
            (None, Some(signal)) if signal == Signal::KILL.as_raw() => 2,
            _ => panic!("noise {seed}, -accel {accel}: {ended:?}"),
        };
        codes[index] += 1;
    }
    let [reset, refused, running, _] = codes;
    progress(&format!("noise: {reset} reset the machine, {refused} were refused, {running} still ran"));
    assert!(reset > 0 && refused > 0, "{codes:?}");
}

/// A long output through the debug console arrives whole.
#[test]
fn the_debug_console_is_lossless() {
    const COUNT: u32 = 1 << 20;
    let folder = Folder::new();
    let image = folder.write(
        "guest",
        &multiboot(kernel(|a| {
            a.mov(edi, FREE)?;
            a.mov(al, u32::from(b'm'))?;
            a.mov(ecx, COUNT)?;
            a.rep().stosb()?;
            a.mov(esi, FREE)?;
            a.mov(ecx, COUNT)?;
            a.mov(dx, DEBUG_PORT)?;
            a.rep().outsb()?;
            exit(a, 0)
        })),
    );
    let ended = run("debug console", &hostile(&image, &[]));
    assert_eq!(ended.code, Some(1), "{:?}", ended.code);
    let text = lines(&ended).concat();
    assert!(text.bytes().all(|byte| byte == b'm') && text.len() == COUNT as usize, "{}", text.len());
}
