//! Monitors and debuggers from outside: the human monitor, QMP and gdb's protocol on sockets, with clients that behave and
//! clients that do not.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_tests::client::{ANSWER, Qmp, connect};
use mimus_tests::image::{BASE, FREE, exit, exit_code, kernel, multiboot};
use mimus_tests::rng::Rng;
use mimus_tests::{Folder, Session};
use serde_json::json;

/// How long a run may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a loop runs until it surely is compiled.
const WARM: Duration = Duration::from_millis(150);

/// What the guest stores to, and what it reads.
const STORED: u32 = FREE + 0x10;
const READ: u32 = FREE + 0x20;

/// A kernel that counts in ESI for ever, stores that, and calls a function. The addresses of store and function.
fn counting() -> (Vec<u8>, u32, u32) {
    fn build(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let (mut again, mut function) = (a.create_label(), a.create_label());
        a.xor(esi, esi)?;
        a.mov(ebx, FREE)?;
        a.set_label(&mut again)?;
        a.inc(esi)?;
        a.mov(dword_ptr(ebx + 0x10), esi)?;
        a.mov(eax, dword_ptr(ebx + 0x20))?;
        a.add(eax, esi)?;
        a.call(function)?;
        a.jmp(again)?;
        a.set_label(&mut function)?;
        a.nop()?;
        a.ret()
    }
    let image = kernel(build);
    let find = |bytes: &[u8]| {
        let at = image.windows(bytes.len()).rposition(|window| window == bytes);
        BASE + at.expect("the instruction is there") as u32
    };
    let (store, function) = (find(&[0x89, 0x73, 0x10]), find(&[0x90, 0xc3]));
    (multiboot(image), store, function)
}

/// A debugger, as far as tests need one.
struct Debugger(UnixStream);

impl Debugger {
    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("the gdb server answers");
        byte[0]
    }

    /// The next packet's contents.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                // Run-length encoding: the character before is repeated.
                b'*' => {
                    let (count, last) = (self.byte() - 29, text.pop().expect("a character is repeated"));
                    text.extend(std::iter::repeat_n(last, usize::from(count) + 1));
                }
                byte => text.push(byte.into()),
            }
        }
        self.byte();
        self.byte();
        // The server is gone after the last answer of all.
        let _ = self.0.write_all(b"+");
        text
    }

    fn send(&mut self, text: &str) {
        let sum = text.bytes().fold(0u8, |sum, byte| sum.wrapping_add(byte));
        self.0.write_all(format!("${text}#{sum:02x}").as_bytes()).expect("the gdb server reads");
    }

    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.receive()
    }

    fn ok(&mut self, text: &str) {
        assert_eq!(self.ask(text), "OK", "{text}");
    }

    /// Bytes as the protocol has them, as a number.
    fn number(&mut self, text: &str) -> u64 {
        let answer = self.ask(text);
        let digits: Vec<&str> = (0..answer.len()).step_by(2).map(|at| &answer[at..at + 2]).collect();
        let byte = |digits: &&str| u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text}: {answer}"));
        digits.iter().rev().map(byte).fold(0, |value, byte| value << 8 | byte)
    }

    fn pc(&mut self) -> u32 {
        self.number("p10") as u32
    }

    fn esi(&mut self) -> u32 {
        self.number("p4") as u32
    }

    /// Lets the guest run for a while and stops it.
    fn run_for(&mut self, time: Duration) {
        self.send("c");
        std::thread::sleep(time);
        self.0.write_all(&[3]).expect("the gdb server reads");
        let answer = self.receive();
        assert!(answer.get(1..3) == Some("02"), "{answer}");
    }
}

/// The packet that a debugger begins with.
const SUPPORTED: &str = "qSupported:multiprocess-;swbreak+;hwbreak+;vContSupported+";

/// Starts the counting kernel with these arguments more, one of which may have a socket's name in `folder`.
fn start(name: &str, folder: &Folder, image: &[u8], args: &[&str]) -> Session {
    let file = folder.write("guest", image);
    let mut all = vec!["-kernel", &file, "-bios", "none", "-display", "none", "-device", "isa-debug-exit"];
    all.extend(args);
    let mut session = Session::piped(name, &all, LIMIT);
    session.close_input();
    session
}

fn debugs(name: &str, accel: &str) {
    let folder = Folder::new();
    let (socket, monitor) = (folder.path("gdb"), folder.path("monitor"));
    let (image, store, function) = counting();
    let (gdb, hmp) = (format!("unix:{socket}"), format!("unix:{monitor},server=on,wait=off"));
    let session = start(name, &folder, &image, &["-gdb", &gdb, "-S", "-accel", accel, "-monitor", &hmp]);
    let mut d = Debugger(connect(&socket));
    assert!(d.ask(SUPPORTED).contains("PacketSize="));
    assert!(d.ask("?").contains("05"));
    assert!(d.ask("qXfer:features:read:target.xml:0,ffb").contains("i386:x86-64"));

    // Breakpoints in cold code.
    d.ok(&format!("Z1,{function:x},1"));
    assert!(d.ask("c").contains("hwbreak"));
    assert_eq!((d.pc(), d.esi()), (function, 1));
    assert!(d.ask("s").contains("05") && d.pc() == function + 1);
    d.ok(&format!("z1,{function:x},1"));

    // In hot code, as debuggers do it: taken away for the step across.
    d.run_for(WARM);
    let mut count = d.esi();
    assert!(count > 1000, "{count}");
    for _ in 0..3 {
        d.ok(&format!("Z0,{function:x},1"));
        assert!(d.ask("c").contains("swbreak"));
        assert_eq!(d.pc(), function);
        let next = d.esi();
        assert!(next.wrapping_sub(count) <= 1, "{count} {next}");
        d.ok(&format!("z0,{function:x},1"));
        d.ask("s");
        count = next + 1;
    }
    d.run_for(WARM);

    // Watchpoints: behind the store, behind the load, and not for what is beside them.
    d.ok(&format!("Z2,{STORED:x},4"));
    assert!(d.ask("c").contains(&format!("watch:{STORED:x}")));
    assert_eq!(d.pc(), store + 3);
    let counted = d.esi();
    assert_eq!(d.number(&format!("m{STORED:x},4")), u64::from(counted));
    assert!(d.ask("c").contains("watch") && d.esi() == counted + 1);
    d.ok(&format!("z2,{STORED:x},4"));
    d.ok(&format!("Z3,{READ:x},1"));
    assert!(d.ask("c").contains(&format!("rwatch:{READ:x}")));
    assert_eq!(d.pc(), store + 6);
    d.ok(&format!("z3,{READ:x},1"));
    d.ok(&format!("Z4,{:x},8", FREE + 0x800));
    d.run_for(WARM);
    let count = d.esi();
    d.ok(&format!("z4,{:x},8", FREE + 0x800));

    // Registers and memory are written, code too.
    d.ok(&format!("M{READ:x},4:78563412"));
    assert_eq!(d.number(&format!("m{READ:x},4")), 0x1234_5678);
    d.ok("P4=0100000000000000");
    d.run_for(WARM);
    assert!(d.esi() != count);
    d.ok(&format!("M{function:x},1:46"));
    d.ok(&format!("Z0,{function:x},1"));
    d.ask("c");
    let count = d.esi();
    d.ask("s");
    assert_eq!(d.esi(), count + 1, "the function is INC ESI now");
    d.ok(&format!("z0,{function:x},1"));

    // A monitor's command, and what nobody knows.
    d.send("qRcmd,696e666f20737461747573");
    let text = d.receive();
    assert!(text.starts_with('O') && d.receive() == "OK", "{text}");
    assert_eq!(d.ask("vNonsense"), "");
    assert!(d.ask("p999").starts_with('E'));

    // Who asks for all memory is told some of it.
    assert!(d.ask("m0,ffffffff").len() < 4 << 20);
    // A debugger that goes away leaves no breakpoint behind; the next one finds the machine as it was.
    d.ok(&format!("Z0,{function:x},1"));
    drop(d);
    let mut d = Debugger(connect(&socket));
    d.ask(SUPPORTED);
    d.run_for(WARM);
    d.ok("D");
    let mut hmp = Hmp::new(&monitor);
    let until = Instant::now() + ANSWER;
    while !hmp.ask("info status").contains("running") {
        assert!(Instant::now() < until, "a detached guest runs");
    }
    // Garbage ends a session at most.
    let mut garbage = connect(&socket);
    // It may be disconnected before all is sent.
    let _ = garbage.write_all(&Rng::new(7).bytes(20_000));
    drop(garbage);
    let mut d = Debugger(connect(&socket));
    d.ask(SUPPORTED);
    d.send("k");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn a_debugger_stops_interpreted_code() {
    debugs("gdb, interpreter", "interp");
}

#[test]
fn a_debugger_stops_compiled_code() {
    debugs("gdb, compiler", "jit,quick=0,threshold=20,region=0,compile=sync");
}

#[test]
fn a_debugger_stops_regions_and_quick_code() {
    debugs("gdb, all tiers", "jit,quick=1,threshold=100,region=64,compile=sync");
}

#[test]
fn a_debugger_stops_a_risc_v_hart() {
    const CODE: [u32; 4] = [
        0x0000_1317, // auipc t1, 1
        0x0012_8293, // addi t0, t0, 1
        0x0053_3023, // sd t0, 0(t1)
        0xff9f_f06f, // j -8
    ];
    let folder = Folder::new();
    let code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (file, socket) = (folder.write("firmware", &code), folder.path("gdb"));
    let gdb = format!("unix:{socket}");
    let args = ["-arch", "riscv64", "-bios", &file, "-display", "none", "-gdb", &gdb, "-S"];
    let mut session = Session::piped("gdb, RISC-V", &args, LIMIT);
    session.close_input();
    let mut d = Debugger(connect(&socket));
    d.ask(SUPPORTED);
    assert!(d.ask("qXfer:features:read:target.xml:0,ffb").contains("riscv:rv64"));
    d.ok("Z1,80000008,4");
    // The ROM leaves the address here.
    let first = 0x8000_0001;
    assert!(d.ask("c").contains("hwbreak"));
    assert_eq!((d.number("p20"), d.number("p5")), (0x8000_0008, first));
    d.ok("z1,80000008,4");
    d.run_for(WARM);
    let count = d.number("p5");
    assert!(count > first + 1000);
    d.ok("Z2,80001000,8");
    assert!(d.ask("c").contains("watch:80001000"));
    assert_eq!(d.number("p20"), 0x8000_000c);
    let count = d.number("p5");
    assert_eq!(d.number("m80001000,8"), count);
    d.ok("z2,80001000,8");
    d.ok("P5=0000000000000080");
    d.ask("s");
    d.ask("s");
    assert_eq!(d.number("p5"), 1 << 63 | 1);
    // Where nothing is mapped and no device answers.
    assert_eq!(d.number("p41"), 3, "machine mode");
    d.send("k");
    assert_eq!(session.finish().code, Some(0));
}

/// A human monitor's user.
struct Hmp(UnixStream);

const PROMPT: &str = "(qemu) ";

impl Hmp {
    fn new(path: &str) -> Hmp {
        let mut hmp = Hmp(connect(path));
        assert!(hmp.answer().contains("monitor"));
        hmp
    }

    /// What is printed up to the next prompt.
    fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(PROMPT.as_bytes()) {
            let mut part = [0; 4096];
            let count = self.0.read(&mut part).expect("the monitor answers");
            assert_ne!(count, 0, "the monitor went away: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\n").as_bytes()).expect("the monitor reads");
        self.answer()
    }
}

#[test]
fn the_human_monitor_looks_at_a_machine_and_holds_it_up() {
    let folder = Folder::new();
    let (socket, saved) = (folder.path("monitor"), folder.path("saved"));
    let (image, store, _) = counting();
    let hmp = format!("unix:{socket},server=on,wait=off");
    let session = start("human monitor", &folder, &image, &["-monitor", &hmp, "-S", "-name", "guest=probe"]);
    let mut m = Hmp::new(&socket);
    assert!(m.ask("info status").contains("VM status: paused (prelaunch)"));
    assert!(m.ask("cont").ends_with(PROMPT));
    std::thread::sleep(WARM);
    m.ask("stop");
    let stopped = m.ask("p $esi");
    std::thread::sleep(WARM);
    assert_eq!(stopped, m.ask("p $esi"));
    assert!(m.ask("info status").contains("VM status: paused\r\n"));
    let registers = m.ask("info registers");
    assert!(registers.contains("EAX=") && registers.contains("CR0=00000011"), "{registers}");
    assert!(m.ask(&format!("x/3xb {store:#x}")).contains(": 0x89 0x73 0x10"));
    assert!(m.ask(&format!("xp /i {store}")).contains("mov [ebx+10h],esi"));
    assert!(m.ask(&format!("xp/i {store}")).contains("mov [ebx+10h],esi"), "{}", m.ask(&format!("xp/i {store}")));
    assert!(m.ask("print (2+3)*4-0x10").contains("\r\n0x4\r\n"));
    assert!(m.ask("gva2gpa $pc").contains("gpa: 0x10"));
    assert!(m.ask("i/b 0x61").contains("portb[0x0061] = 0x"));
    assert!(m.ask("info name").contains("probe"));
    assert!(m.ask("info mem").contains("PG disabled"));
    assert!(m.ask("info jit").contains("blocks translated"));
    assert!(m.ask("help").contains("system_powerdown"));
    m.ask(&format!("pmemsave {store:#x} 3 \"{saved}\""));
    assert_eq!(std::fs::read(&saved).expect("it was saved"), [0x89, 0x73, 0x10]);
    for (line, error) in [
        ("nonsense", "unknown command"),
        ("info nonsense", "unknown command"),
        ("x", "arguments are missing"),
        ("x/99999999 0", "the count"),
        ("p 1/0", "division by zero"),
        ("p ((((1", "')' expected"),
        ("p $nonsense", "unknown register"),
        ("stop now", "extraneous"),
        ("pmemsave 0 0x7fffffffffffffff /dev/null", "no more than"),
    ] {
        let answer = m.ask(line);
        assert!(answer.contains(error), "{line}: {answer}");
    }
    assert!(m.ask(&format!("p {}1", "(".repeat(3000))).contains("too deep"));
    // The monitor is one client's at a time; the next one finds a new one.
    let mut garbage = Rng::new(3).bytes(100_000);
    garbage.retain(|&byte| byte != b'q');
    m.0.write_all(&garbage).expect("the monitor reads");
    drop(m);
    let mut m = Hmp::new(&socket);
    m.ask("cont");
    let before = m.ask("p $esi");
    std::thread::sleep(WARM);
    assert_ne!(before, m.ask("p $esi"));
    m.0.write_all(b"quit\n").expect("the monitor reads");
    assert_eq!(session.finish().code, Some(0));
    assert!(!std::path::Path::new(&socket).exists(), "the socket is taken away");
}

#[test]
fn what_is_not_there_is_told_and_networks_are_changed() {
    let folder = Folder::new();
    let socket = folder.path("monitor");
    let (image, ..) = counting();
    let hmp = format!("unix:{socket},server=on,wait=off");
    let session = start("nothing in a monitor", &folder, &image, &["-monitor", &hmp, "-object", "iothread,id=t"]);
    let mut m = Hmp::new(&socket);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a free port");
    let (add, remove) = (format!("hostfwd_add tcp:{port}-:22"), format!("hostfwd_remove tcp:{port}"));
    let removed = format!("host forwarding rule for tcp:{port} removed");
    for (line, wanted) in [
        ("info snapshots", "no block device can store vmstate"),
        ("info usb", "Error: USB support not enabled"),
        ("info migrate_capabilities", "xbzrle: off\r\nrdma-pin-all: off"),
        ("info iothreads", "t:\r\n  thread_id="),
        ("info hotpluggable-cpus", "type: \"max-x86_64-cpu\""),
        ("info memory_size_summary", "base memory: 134217728"),
        ("info memdev", "memory backend: pc.ram\r\n  size:      134217728"),
        ("info virtio", "No VirtIO devices"),
        ("info", "info balloon -- "),
        ("savevm x", "Error: the state of a whole machine cannot be saved yet"),
        ("help savevm", "not supported"),
        ("device_add e1000,id=x", "name it on the command line"),
        ("device_add nonsense", "not a valid device model name"),
        ("netdev_del x", "Device 'x' not found"),
        ("object_add secret,id=s,data=x", ""),
        ("object_add secret,id=s", "duplicate property"),
        ("object_del s", ""),
        ("object_del s", "object 's' not found"),
        ("closefd x", "File descriptor named 'x' not found"),
        ("cpu 1", "invalid CPU index"),
        ("set_link e1000.0 off", ""),
        ("set_link #net0 on", ""),
        ("set_link nonsense on", "Device 'nonsense' not found"),
        ("set_link e1000.0 maybe", "'on' or 'off'"),
        (&*add, ""),
        ("info usernet", &*port.port().to_string()),
        (&*add, "Could not set up host forwarding rule"),
        (&*remove, &*removed),
        (&*remove, "not found"),
        ("hostfwd_add net9 tcp::1-:2", "unrecognized netdev id 'net9'"),
        ("hostfwd_add nonsense", "Invalid host forwarding rule 'nonsense'"),
    ] {
        let answer = m.ask(line);
        assert!(answer.contains(wanted) && (!wanted.is_empty() || !answer.contains("Error")), "{line}: {answer}");
    }
    m.0.write_all(b"quit\n").expect("the monitor reads");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn devices_are_told_and_media_changed() {
    let folder = Folder::new();
    let socket = folder.path("monitor");
    let (disk, cd) = (folder.write("disk", &[0; 65536]), folder.write("cd", &[0; 8192]));
    let (image, ..) = counting();
    let (hmp, drive) = (format!("unix:{socket},server=on,wait=off"), format!("file={disk},if=none,id=d,format=raw"));
    let args = ["-monitor", &hmp, "-drive", &drive, "-device", "virtio-blk-pci,drive=d,id=v,addr=1e"];
    let session = start("devices in a monitor", &folder, &image, &args);
    let mut m = Hmp::new(&socket);
    for (topic, wanted) in [
        ("block", &*format!("d (#d): {disk} (raw)\r\n    Attached to:      /machine/peripheral/v/virtio-backend\r\n")),
        ("block", "ide1-cd0: [not inserted]"),
        ("blockstats", "d: rd_bytes=0"),
        ("network", "e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56"),
        ("network", "type=user,net=10.0.2.0,restrict=off"),
        ("usernet", "Hub -1 (#net0):"),
        ("pci", "device  30, function 0:"),
        ("pci", "id \"v\""),
        ("qtree", "dev: virtio-blk-pci, id \"v\"\r\n        addr = 1e.0\r\n"),
        ("qtree", "dev: VGA, id \"\"\r\n        addr = 02.0"),
        ("mtree", "0000000000000000-0000000007ffffff (prio 0, ram): ram-below-4g"),
        ("mtree", "00000000000003f8-00000000000003ff (prio 1, i/o): serial"),
        ("mtree", "(prio 1, i/o): virtio-blk-pci bar"),
    ] {
        let answer = m.ask(&format!("info {topic}"));
        assert!(answer.contains(wanted), "{topic}: no {wanted:?} in {answer}");
    }
    assert!(m.ask(&format!("change ide1-cd0 {cd} raw")).ends_with(PROMPT));
    let inserted = format!("ide1-cd0 (#ide1-cd0): {cd} (raw, read-only)");
    assert!(m.ask("info block").contains(&inserted));
    let errors = [
        ("change ide1-cd0 /nonexistent", "cannot open"),
        ("change d /nonexistent", "'d' is not removable"),
        ("eject v", "'v' is not removable"),
        ("eject nothing", "'nothing' not found"),
        ("eject -f", "a device is needed"),
    ];
    for (line, error) in errors {
        let answer = m.ask(line);
        assert!(answer.contains(error), "{line}: {answer}");
    }
    assert!(m.ask("info block").contains(&inserted), "a medium that cannot be opened takes none away");
    assert!(!m.ask("eject ide1-cd0").contains("Error"));
    assert!(m.ask("info block").contains("ide1-cd0: [not inserted]"));
    m.0.write_all(b"quit\n").expect("the monitor reads");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn qmp_is_what_harnesses_expect() {
    let folder = Folder::new();
    let (socket, pid) = (folder.path("qmp"), folder.path("pid"));
    let (image, ..) = counting();
    let qmp = format!("unix:{socket},server=on,wait=off");
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let args = ["-qmp", &qmp, "-S", "-uuid", uuid, "-pidfile", &pid];
    let session = start("QMP", &folder, &image, &args);
    let mut q = Qmp::new(&socket);
    assert_eq!(q.ask(&json!({ "execute": "query-status" }))["error"]["class"], "CommandNotFound");
    assert_eq!(q.execute("qmp_capabilities"), json!({}));
    assert_eq!(q.execute("query-status")["status"], "prelaunch");
    assert_eq!(q.execute("query-uuid")["UUID"], uuid);
    let own = std::fs::read_to_string(&pid).expect("the process's number is written");
    assert_eq!(own.trim(), session.id().to_string());
    q.execute("cont");
    assert_eq!(q.execute("query-status")["running"], true);
    q.execute("stop");
    assert_eq!(q.execute("query-status")["status"], "paused");
    assert_eq!(q.events, ["RESUME", "STOP"]);
    let commands = q.execute("query-commands");
    for name in commands.as_array().expect("a list").iter().map(|command| &command["name"]) {
        let name = name.as_str().expect("a name");
        if name.starts_with("query-") {
            let answer = q.ask(&json!({ "execute": name }));
            let error = &answer["error"];
            let says = |words: &str| error["desc"].as_str().is_some_and(|desc| desc.contains(words));
            let is_meant = ["is missing", "not enabled", "not available", "not found"].into_iter().any(says);
            assert!(answer.get("return").is_some() || is_meant || error["class"] == "DeviceNotActive", "{answer}");
        }
    }
    let cd = folder.write("cd", &[0; 4096]);
    let arguments = json!({ "id": "ide1-cd0", "filename": cd, "format": "raw" });
    assert_eq!(q.ask(&json!({ "execute": "blockdev-change-medium", "arguments": arguments }))["return"], json!({}));
    let drive = &q.execute("query-block")[0];
    assert_eq!(
        (&drive["device"], &drive["removable"], &drive["tray_open"]),
        (&json!("ide1-cd0"), &json!(true), &json!(false))
    );
    assert_eq!(drive["inserted"]["image"]["virtual-size"], 4096);
    assert_eq!(q.execute("query-blockstats")[0]["stats"]["rd_operations"], 0);
    assert_eq!(q.ask(&json!({ "execute": "eject", "arguments": { "device": "ide1-cd0" } }))["return"], json!({}));
    assert!(q.execute("query-block")[0]["inserted"].is_null());
    let line = json!({ "command-line": "info status" });
    let answer = q.ask(&json!({ "execute": "human-monitor-command", "arguments": line }));
    assert_eq!(answer["return"], "VM status: paused\r\n");
    for (request, text) in [
        (json!({ "execute": "human-monitor-command" }), "Parameter 'command-line' is missing"),
        (json!({ "execute": "stop", "arguments": { "x": 1 } }), "Parameter 'x' is unexpected"),
        (json!({ "execute": "send-key", "arguments": { "keys": 3 } }), "expected: array"),
        (json!([1]), "Invalid JSON syntax"),
    ] {
        let answer = q.ask(&request);
        assert!(answer["error"]["desc"].as_str().is_some_and(|desc| desc.contains(text)), "{request}: {answer}");
    }
    q.stream.write_all(b"no json\n{\"execute\"").expect("QMP reads");
    assert_eq!(q.answer()["error"]["class"], "GenericError");
    std::thread::sleep(Duration::from_millis(20));
    q.stream.write_all(b": \"query-name\"}").expect("QMP reads");
    assert_eq!(q.answer()["return"], json!({}));
    q.execute("system_reset");
    assert_eq!(q.event("RESET")["data"]["guest"], false);
    q.execute("cont");
    drop(q);
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    q.execute("quit");
    assert_eq!(q.event("SHUTDOWN")["data"], json!({ "guest": false, "reason": "host-qmp-quit" }));
    assert_eq!(session.finish().code, Some(0));
    assert!(!std::path::Path::new(&pid).exists());
}

#[test]
fn a_machine_that_is_not_to_end_stops_when_the_guest_powers_it_off() {
    fn build(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut wait = a.create_label();
        a.mov(dx, 0x604)?;
        a.mov(ax, 0x2000)?;
        a.out(dx, ax)?;
        a.set_label(&mut wait)?;
        a.hlt()?;
        a.jmp(wait)
    }
    let folder = Folder::new();
    let socket = folder.path("qmp");
    let qmp = format!("unix:{socket},server=on,wait=on");
    let session = start("-no-shutdown", &folder, &multiboot(kernel(build)), &["-qmp", &qmp, "-no-shutdown", "-S"]);
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    for _ in 0..2 {
        q.execute("cont");
        assert_eq!(q.event("SHUTDOWN")["data"], json!({ "guest": true, "reason": "guest-shutdown" }));
        q.event("STOP");
        assert_eq!(q.execute("query-status")["status"], "shutdown");
        assert_eq!(q.ask(&json!({ "execute": "cont" }))["error"]["class"], "GenericError");
        q.execute("system_reset");
        assert_eq!(q.execute("query-status")["status"], "prelaunch");
    }
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn the_terminal_is_the_monitors_after_ctrl_a_c() {
    let folder = Folder::new();
    let (image, ..) = counting();
    let file = folder.write("guest", &image);
    let mut session = Session::piped("Ctrl-A c", &["-kernel", &file, "-bios", "none", "-nographic"], LIMIT);
    session.send("\x01c");
    session.expect(PROMPT);
    session.send("info status\r");
    session.expect("VM status: running");
    session.expect(PROMPT);
    session.send("stop\rinfo status\r\x01c\x01c");
    session.expect("VM status: paused");
    session.send("quit\r");
    assert_eq!(session.finish().code, Some(0));
}

/// A TCP port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it has an address").port()
}

#[test]
fn a_page_in_a_browser_is_no_client() {
    let (folder, image) = (Folder::new(), counting().0);
    let ports = [free_port(), free_port(), free_port()];
    let at = ports.map(|port| format!("tcp:127.0.0.1:{port},server=on,wait=off"));
    let gdb = format!("tcp:127.0.0.1:{}", ports[2]);
    let socket = folder.path("qmp");
    let own = format!("unix:{socket},server=on,wait=off");
    let args = ["-monitor", &at[0], "-qmp", &at[1], "-gdb", &gdb, "-qmp", &own];
    let session = start("browser", &folder, &image, &args);
    let mut qmp = Qmp::new(&socket);
    qmp.execute("qmp_capabilities");
    for port in ports {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a socket has a timeout");
        let request = "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nquit\n{\"execute\": \"quit\"}\n$k#6b";
        stream.write_all(request.as_bytes()).expect("it reads");
        // Ends, with or without an error.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(qmp.execute("query-status")["status"], "running");
    qmp.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn what_the_process_makes_and_holds_is_nobody_elses() {
    let (folder, image) = (Folder::new(), counting().0);
    for (dumped, option) in [(false, "pc"), (true, "pc,dump-guest-core=on")] {
        let made = ["qmp", "serial", "log", "pid", "stats"].map(|name| folder.path(name));
        let [socket, serial, log, pid, stats] = &made;
        let (place, chardev) = (format!("unix:{socket},server=on,wait=off"), format!("file:{serial}"));
        let args = [
            "-M", option, "-m", "48", "-qmp", &place, "-serial", &chardev, "-D", log, "-pidfile", pid, "-stats", stats,
        ];
        let session = start("made", &folder, &image, &args);
        let mut qmp = Qmp::new(socket);
        qmp.execute("qmp_capabilities");
        for file in &made {
            let mode = std::fs::metadata(file).expect("it is made").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
        }
        // A mapping, its size, and more about it up to its flags, of which dd says that it is in no core dump.
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", session.id())).expect("the process runs");
        let ram = maps.split("VmFlags:").zip(maps.split("VmFlags:").skip(1));
        let flags = ram.filter(|(about, _)| about.contains("49152 kB\nKernelPageSize")).map(|(_, rest)| rest);
        let kept: Vec<bool> = flags.map(|rest| !rest.lines().next().unwrap_or_default().contains(" dd")).collect();
        assert_eq!(kept, [dumped], "{option}");
        qmp.execute("quit");
        assert_eq!(session.finish().code, Some(0));
    }
}

#[test]
fn places_that_cannot_be_had_are_named_with_their_option() {
    let folder = Folder::new();
    let (image, ..) = counting();
    let (file, plain) = (folder.write("guest", &image), folder.write("plain", b"no socket"));
    let plain_socket = format!("unix:{plain},server=on,wait=off");
    for (option, value, text) in [
        ("-monitor", "unix:/nonexistent/socket,server=on,wait=off", "No such file"),
        ("-qmp", "unix:/nonexistent/socket", "No such file"),
        ("-gdb", "tcp:192.0.2.1:1234", "192.0.2.1"),
        ("-monitor", &plain_socket, "in use"),
        ("-monitor", "braille", "not supported"),
        ("-qmp", "tcp:localhost", "HOST:PORT"),
        ("-uuid", "1234", "not a UUID"),
        ("-pidfile", "/nonexistent/pid", "cannot create"),
    ] {
        let mut session = Session::piped(option, &["-kernel", &file, "-display", "none", option, value], LIMIT);
        session.close_input();
        let ended = session.finish();
        assert_eq!(ended.code, Some(1), "{option} {value}: {ended:?}");
        assert!(ended.text.contains(option) && ended.text.contains(text), "{option} {value}: {ended:?}");
    }
    assert_eq!(std::fs::read(&plain).expect("it is there"), b"no socket");
}

/// A kernel that sets DR0 and DR7 and makes an access.
fn data_breakpoint(kind: u32, access: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let build = |a: &mut CodeAssembler| {
        a.mov(eax, FREE)?;
        a.mov(dr0, eax)?;
        // Global, 4 bytes.
        a.mov(eax, 2u32 | kind << 16 | 3 << 18)?;
        a.mov(dr7, eax)?;
        a.mov(edi, FREE)?;
        a.mov(ecx, 1u32)?;
        access(a)?;
        a.nop()?;
        exit(a, 0x42)
    };
    multiboot(kernel(build))
}

#[test]
fn a_guests_own_data_breakpoints_trap() {
    const WRITES: u32 = 1;
    const BOTH: u32 = 3;
    type Access = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let rows: [(&str, u32, Access, u8); 6] = [
        ("store", WRITES, |a| a.mov(dword_ptr(edi), 5), 1),
        ("load", WRITES, |a| a.mov(eax, dword_ptr(edi)), 0x42),
        ("load of both", BOTH, |a| a.mov(eax, dword_ptr(edi)), 1),
        ("a byte that crosses in", WRITES, |a| a.mov(dword_ptr(edi - 3), 5), 1),
        ("beside", BOTH, |a| a.mov(dword_ptr(edi + 4), 5), 0x42),
        ("string", WRITES, |a| a.rep().stosd(), 1),
    ];
    for (name, kind, access, value) in rows {
        let folder = Folder::new();
        let session = start(name, &folder, &data_breakpoint(kind, access), &[]);
        assert_eq!(session.finish().code, Some(exit_code(value)), "{name}");
    }
}

/// A kernel whose NMI handler sends an NMI to itself, the first time, and ends the run the third time. What it counts is at
/// [`FREE`]; when two were handled, one after the other, it says so and halts with interrupts off.
fn nmi_kernel() -> Vec<u8> {
    const GATE: u32 = BASE + 0x110;
    const COMMAND: u32 = 0xfee0_0300;
    const NMI_TO_SELF: u32 = 0x4_0400;
    /// The handler was entered while it ran.
    const NESTED: u32 = 0x50;
    let wait = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.mov(ecx, 100_000)?;
        a.set_label(&mut again)?;
        a.nop()?;
        a.dec(ecx)?;
        a.jnz(again)
    };
    let build = |a: &mut CodeAssembler| {
        let [mut begin, mut second, mut third, mut fine, mut halted] = std::array::from_fn(|_| a.create_label());
        // What it pushes is the handler's address.
        a.call(begin)?;
        a.inc(dword_ptr(FREE))?;
        a.cmp(dword_ptr(FREE), 2)?;
        a.je(second)?;
        a.ja(third)?;
        a.push(ecx)?;
        a.mov(dword_ptr(COMMAND), NMI_TO_SELF)?;
        wait(a)?;
        a.pop(ecx)?;
        a.cmp(dword_ptr(FREE), 1)?;
        a.je(fine)?;
        exit(a, NESTED)?;
        a.set_label(&mut fine)?;
        a.iretd()?;
        a.set_label(&mut second)?;
        a.mov(al, b'2' as u32)?;
        a.out(0xe9, al)?;
        a.iretd()?;
        a.set_label(&mut third)?;
        exit(a, 0x42)?;
        a.set_label(&mut begin)?;
        a.pop(eax)?;
        a.mov(word_ptr(GATE), ax)?;
        a.shr(eax, 16)?;
        a.mov(word_ptr(GATE + 6), ax)?;
        a.mov(dword_ptr(FREE), 0)?;
        a.mov(dword_ptr(COMMAND), NMI_TO_SELF)?;
        wait(a)?;
        a.cli()?;
        a.set_label(&mut halted)?;
        a.hlt()?;
        a.jmp(halted)
    };
    multiboot(kernel(build))
}

#[test]
fn nmis_come_one_after_the_other_from_the_local_apic_and_from_a_monitor() {
    let image = nmi_kernel();
    for accel in ["interp", "jit,quick=1,threshold=1000000000", "jit,quick=0,threshold=1,compile=sync", "jit"] {
        let folder = Folder::new();
        let socket = folder.path("monitor");
        let hmp = format!("unix:{socket},server=on,wait=off");
        let args = ["-accel", accel, "-monitor", &hmp, "-debugcon", "stdio", "-serial", "null"];
        let mut session = start(accel, &folder, &image, &args);
        session.expect("2");
        let mut m = Hmp::new(&socket);
        // It halts soon, if it does not yet.
        std::thread::sleep(WARM);
        m.0.write_all(b"nmi\n").expect("the monitor reads");
        assert_eq!(session.finish().code, Some(exit_code(0x42)), "{accel}");
    }
}
