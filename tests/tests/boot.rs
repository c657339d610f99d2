//! Debian's kernels boot to BusyBox and pass the selftest in the guest (`tools/init/selftest`), in each tier.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iced_x86::code_asm::word_ptr;
use mimus_tests::files::{CLOUD, GENERIC, I386, RISCV64};
use mimus_tests::image::{exit, kernel, multiboot, pvh};
use mimus_tests::{Folder, Guest, Session, progress, random};
use serde_json::Value;

/// How long a boot may take, an idle host needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(600);

/// How far the guest's date may be from the host's, in seconds.
const DATE: u64 = 3;

/// How far the guest's sleep may be from what the host measures, in percent.
const SLEEP: f64 = 2.0;

/// Boots `guest`, has it check itself, and returns the counters of the run.
fn selftest(name: &str, guest: Guest, options: &[&str], append: &str) -> Value {
    let folder = Folder::new();
    let stats = folder.path("stats.json");
    let nonce = format!("{:016x}", random());
    let mut args = guest.args(&format!("mimus.run mimus.nonce={nonce} {append}"));
    args.extend(["-no-reboot", "-stats", &stats].map(str::to_owned));
    args.extend(options.iter().map(|option| (*option).to_owned()));
    progress(&format!("{name}: boots"));
    let start = Instant::now();
    let mut session = Session::piped(name, &args, LIMIT);
    session.close_input();
    session.expect("Run /init as init process");
    progress(&format!("{name}: init after {:.1} s", start.elapsed().as_secs_f64()));

    assert_eq!(session.line("nonce: "), nonce, "{name}");
    let date: u64 = session.line("date: ").parse().expect("seconds since 1970");
    let host = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs();
    assert!(date.abs_diff(host) <= DATE, "{name}: the guest's date is {date}, the host's {host}");

    let begins = session.expect("\nsleep: begins");
    let ends = session.expect("\nsleep: ends");
    if let Some(seconds) = append.strip_prefix("mimus.sleep=") {
        let (seconds, measured) = (seconds.parse::<f64>().expect("a number"), (ends - begins).as_secs_f64());
        progress(&format!("{name}: sleep {seconds} took {measured:.3} s"));
        let off = (measured / seconds - 1.0).abs() * 100.0;
        assert!(off <= SLEEP, "{name}: sleep {seconds} took {measured:.3} s of the host's time");
    }

    let result = session.line("selftest: ");
    let ended = session.finish();
    let wrong: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("FAIL ")).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    let (passed, failed) = result.split_once(", ").expect("two counts");
    let passed: u32 = passed.strip_suffix(" passed").and_then(|count| count.parse().ok()).expect("a count");
    assert_eq!(failed, "0 failed", "{name}");
    assert!(passed >= 35, "{name}: only {passed} checks");
    assert!(ended.text.contains("init: script exited with status 0"), "{name}");
    assert_eq!((ended.code, ended.signal), (Some(0), None), "{name}");
    progress(&format!("{name}: {passed} checks passed after {:.1} s", start.elapsed().as_secs_f64()));
    let text = std::fs::read_to_string(&stats).expect("-stats wrote its file");
    serde_json::from_str(&text).expect("-stats writes JSON")
}

/// A counter.
fn count(stats: &Value, path: &str) -> u64 {
    stats.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {stats}"))
}

/// A disk of `len` bytes, with a boot sector that prints its text by the BIOS and ends the run by the debug exit port.
fn boot_sector(text: &str, len: usize) -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x19, 0x7c, // mov si, text
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz done
        0xb4, 0x0e, // mov ah, 14: teletype output
        0xcd, 0x10, // int 0x10
        0xeb, 0xf5, // jmp next
        0xb0, 0x10, // done: mov al, 0x10
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // hlt
        0xeb, 0xfd, // jmp hlt
    ];
    sector.extend(text.bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(len, 0);
    sector
}

/// SeaBIOS starts, finds the disk, and runs its boot sector; both are on the serial port.
fn firmware(interface: &str, len: usize) {
    let folder = Folder::new();
    let disk = folder.path("disk.img");
    std::fs::write(&disk, boot_sector("the boot sector runs to its end", len)).expect("a disk image");
    let drive = format!("file={disk},format=raw,if={interface}");
    let exit = "isa-debug-exit,iobase=0xf4,iosize=1";
    let args = ["-m", "64", "-nographic", "-drive", &drive, "-device", exit].map(str::to_owned);
    let mut session = Session::piped(interface, &args, LIMIT);
    session.close_input();
    session.expect("SeaBIOS (version ");
    session.expect("Booting from Hard Disk...");
    // The firmware holds the last character back: it could be written over.
    session.expect("the boot sector runs");
    let ended = session.finish();
    assert_eq!((ended.code, ended.signal), (Some(0x21), None), "{interface}");
}

#[test]
fn firmware_boots_an_ide_disk() {
    firmware("ide", 1 << 20);
}

#[test]
fn firmware_boots_a_virtio_disk() {
    firmware("virtio", 1 << 20);
}

/// Less than a cylinder, by the usual count of heads and sectors of a track.
#[test]
fn firmware_boots_disks_of_a_sector() {
    for interface in ["ide", "virtio"] {
        firmware(interface, 512);
    }
}

/// A program that looks like Linux of protocol 2.03: its set-up code ends the run if its data segment is its own.
fn real_mode_program() -> Vec<u8> {
    let mut image = vec![0; 1024];
    let code = [
        0xeb, 0x66, // jmp behind the header
        b'H', b'd', b'r', b'S', 0x03, 0x02,
    ];
    image[0x200..0x200 + code.len()].copy_from_slice(&code);
    let code = [
        0xa1, 0x06, 0x02, // mov ax, [0x206]: the version
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // hlt
    ];
    image[0x268..0x268 + code.len()].copy_from_slice(&code);
    (image[0x1f1], image[0x211]) = (1, 1);
    image.extend([0xf4; 64]);
    image
}

/// The firmware runs, then an option ROM that loads the kernel: by default for what is no Linux with an entry for loaders.
#[test]
fn firmware_starts_kernels() {
    // The BIOS' data area has the serial port, and a video BIOS has set its interrupt.
    let kernel = kernel(|a| {
        let mut other = a.create_label();
        a.cmp(word_ptr(0x400), 0x3f8)?;
        a.jne(other)?;
        a.cmp(word_ptr(4 * 0x10 + 2), 0xc000)?;
        a.jne(other)?;
        exit(a, 9)?;
        a.set_label(&mut other)?;
        exit(a, 8)
    });
    let images =
        [("multiboot", multiboot(kernel.clone()), 19), ("pvh", pvh(&kernel), 19), ("set-up", real_mode_program(), 7)];
    let folder = Folder::new();
    for (name, image, code) in images {
        let file = folder.write(name, &image);
        let exit = if name == "set-up" { "isa-debug-exit,iobase=0xf4" } else { "isa-debug-exit" };
        let ended = {
            let args = ["-m", "64", "-display", "none", "-kernel", &file, "-device", exit];
            let mut session = Session::piped(name, &args, LIMIT);
            session.close_input();
            session.finish()
        };
        assert_eq!((ended.code, ended.signal), (Some(code), None), "{name}: {}", ended.text);
    }
}

#[test]
fn cloud_kernel() {
    let stats = selftest("cloud", CLOUD, &[], "mimus.sleep=5");
    assert!(count(&stats, "/blocks/compiled") > 1000, "{stats:#}");
    assert!(count(&stats, "/instructions/compiled") > count(&stats, "/instructions/interpreted"), "{stats:#}");
}

/// Code memory for a fraction of what runs: blocks are evicted and translated again all the time.
#[test]
fn cloud_kernel_in_a_small_cache() {
    let stats = selftest("cloud, tb-size=2", CLOUD, &["-accel", "jit,tb-size=2"], "mimus.quick");
    assert!(count(&stats, "/cache/evictions") > 1000, "{stats:#}");
    assert!(count(&stats, "/cache/peak_metadata_bytes") <= 2 << 20, "{stats:#}");
}

#[test]
fn cloud_kernel_interpreted() {
    let stats = selftest("cloud, interp", CLOUD, &["-accel", "interp"], "mimus.quick");
    assert_eq!(count(&stats, "/blocks/compiled"), 0, "{stats:#}");
}

#[test]
fn generic_kernel() {
    selftest("generic", GENERIC, &[], "");
}

#[test]
fn i386_kernel() {
    selftest("i386", I386, &[], "");
}

#[test]
fn riscv64_kernel() {
    let stats = selftest("riscv64", RISCV64, &[], "mimus.sleep=5");
    assert!(count(&stats, "/blocks/compiled") > 1000, "{stats:#}");
}

#[test]
fn riscv64_kernel_in_a_small_cache() {
    let stats = selftest("riscv64, tb-size=2", RISCV64, &["-accel", "jit,tb-size=2"], "mimus.quick");
    assert!(count(&stats, "/cache/evictions") > 1000, "{stats:#}");
    assert!(count(&stats, "/cache/peak_metadata_bytes") <= 2 << 20, "{stats:#}");
}

/// Sends `body` by HTTP to whoever asks, once; the port.
fn http_server(body: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest asks");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).expect("the guest listens");
    });
    port
}

/// Receives what somebody sends, once; the port.
fn receiver() -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("the guest sends");
        all
    });
    (port, thread)
}

/// Disks, random numbers and a network adapter behind a gateway (`tools/init/virtio`); what is in the images afterwards, and
/// what came by the network.
#[test]
fn riscv64_virtio() {
    const SIZE: usize = 4 << 20;
    const MIB: usize = 1 << 20;
    // Of an image in which each 8 bytes are their own number, little-endian.
    const DIGEST: &str = "7253837bd5e0b4bea94526c79120e064";
    let image: Vec<u8> = (0..SIZE as u64 / 8).flat_map(u64::to_le_bytes).collect();
    let folder = Folder::new();
    let (first, second) = (folder.write("first.img", &image), folder.write("second,.img", &image));
    let (receives, received) = receiver();
    let sends = http_server(image.clone());
    // Nobody has it now.
    let forwarded = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let append = format!(
        "mimus.script=virtio mimus.sectors={} mimus.md5={DIGEST} mimus.mac=02:4d:4d:53:00:01 \
         mimus.ports={sends},{receives},{forwarded}",
        SIZE / 512
    );
    let mut args = RISCV64.args(&append);
    let disk = |file: &str, rest: &str| format!("file={},format=raw,if=none,{rest}", file.replace(',', ",,"));
    for (option, value) in [
        ("-drive", disk(&first, "id=a,discard=unmap")),
        ("-drive", disk(&second, "id=b,readonly=on")),
        ("-device", "virtio-blk-device,drive=a,serial=serial-of-a-disk".to_owned()),
        ("-device", "virtio-blk-device,drive=b".to_owned()),
        ("-device", "virtio-rng-device".to_owned()),
        ("-netdev", format!("user,id=net,hostfwd=tcp:127.0.0.1:{forwarded}-:80")),
        ("-device", "virtio-net-device,mac=02:4d:4d:53:00:01,netdev=net".to_owned()),
    ] {
        args.extend([option.to_owned(), value]);
    }
    let mut session = Session::piped("riscv64, virtio", &args, LIMIT);
    session.close_input();
    let ended = session.finish();
    let wrong: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("FAIL ")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(ended.text.contains("virtio: 20 passed, 0 failed"), "{}", ended.text);
    assert_eq!((ended.code, ended.signal), (Some(0), None));
    assert!(received.join().expect("it ended") == image, "what the guest sent");
    let read = |path: &str| std::fs::read(path).expect("the image is there");
    assert!(read(&second) == image, "the read-only disk is as it was");
    let written = read(&first);
    assert_eq!(written.len(), SIZE);
    assert!(written[..MIB] == image[..MIB] && written[3 * MIB..] == image[3 * MIB..], "beside what was written");
    let lines: Vec<u8> = b"mimus\n".iter().copied().cycle().take(MIB).collect();
    assert!(written[MIB..2 * MIB] == lines[..], "what was written");
    assert!(written[2 * MIB..3 * MIB].iter().all(|byte| *byte == 0), "what was discarded reads as zeros on this host");
}
