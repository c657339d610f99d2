//! Clients of the human monitor, QMP and the gdb server that send lines of a dictionary, cut and mixed.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mimus_host::config::{Chardev, MonitorSocket};
use mimus_machine::config::{Backend, Config};
use mimus_machine::machine::Machine;

use super::{ANSWER, Folder};
use crate::input::Input;

/// Words of the human monitor; those that end the machine are not among them.
const WORDS: &[&str] = &[
    "info",
    "registers",
    "tlb",
    "mem",
    "jit",
    "pci",
    "block",
    "network",
    "status",
    "qtree",
    "mtree",
    "pic",
    "history",
    "x",
    "xp",
    "/",
    "16xb",
    "4294967295xw",
    "i",
    "10i",
    "3gx",
    "s",
    "c",
    "print",
    "p",
    "$rip",
    "$eax",
    "$nothing",
    "(",
    ")",
    "+",
    "-",
    "*",
    "~",
    "0x7c00",
    "18446744073709551615",
    "-1",
    "0",
    "%",
    "sum",
    "o",
    "nmi",
    "sendkey",
    "ctrl-alt-delete",
    "a",
    "0x1ff",
    "memsave",
    "pmemsave",
    "100",
    "/dev/null",
    "screendump",
    "-f",
    "ppm",
    "png",
    "cont",
    "stop",
    "system_reset",
    "system_powerdown",
    "help",
    "gva2gpa",
    "gpa2hva",
    "\u{1b}[A",
    "\u{8}",
    "\t",
    "\"",
    "\\",
    "ä",
];

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "null",
    "true",
    "\"execute\"",
    "\"arguments\"",
    "\"id\"",
    "\"qmp_capabilities\"",
    "\"query-status\"",
    "\"query-commands\"",
    "\"human-monitor-command\"",
    "\"command-line\"",
    "\"info registers\"",
    "\"stop\"",
    "\"cont\"",
    "\"send-key\"",
    "\"keys\"",
    "\"qcode\"",
    "\"data\"",
    "\"type\"",
    "\"number\"",
    "\"screendump\"",
    "\"filename\"",
    "\"/dev/null\"",
    "\"pmemsave\"",
    "\"val\"",
    "\"size\"",
    "18446744073709551616",
    "\"device\"",
    "\"query-block\"",
    "\"query-pci\"",
    "\"system_reset\"",
    "\n",
    " ",
    "\u{ff}",
];

const REQUESTS: &[&str] = &[
    r#"{"execute":"qmp_capabilities"}"#,
    r#"{"execute":"query-status","id":1}"#,
    r#"{"execute":"human-monitor-command","arguments":{"command-line":"x/3i $pc"}}"#,
    r#"{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"a"}],"hold-time":9}}"#,
    r#"{"execute":"query-pci"}"#,
    r#"{"execute":"pmemsave","arguments":{"val":0,"size":4096,"filename":"/dev/null"}}"#,
];

/// Packets of gdb's protocol, but for `k`, which ends the machine.
const PACKETS: &[&str] = &[
    "?",
    "g",
    "G00",
    "p0",
    "p20",
    "P0=0",
    "P1f=ff",
    "m0,10",
    "m7c00,ffffffff",
    "M0,4:00112233",
    "X0,0:",
    "Z0,7c00,1",
    "Z1,7c00,1",
    "Z2,500,4",
    "Z3,500,8",
    "Z4,500,ffffffff",
    "z0,7c00,1",
    "z2,500,4",
    "s",
    "vCont?",
    "vCont;s",
    "qSupported:multiprocess+;swbreak+",
    "qXfer:features:read:target.xml:0,fff",
    "qXfer:features:read:target.xml:ffffffff,ffffffff",
    "qXfer:memory-map:read::0,10",
    "Hg0",
    "Hc-1",
    "T1",
    "qC",
    "qfThreadInfo",
    "qsThreadInfo",
    "qRcmd,696e666f",
    "qRcmd,zz",
    "vMustReplyEmpty",
    "QStartNoAckMode",
    "!",
    "bs",
    "bc",
];

/// A kernel that does nothing for ever (Multiboot Specification 0.6.96, 3.1): a guest that ends would end the machine.
fn idle() -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const ADDRESSES: u32 = 1 << 16;
    const BASE: u32 = 1 << 20;
    let checksum = 0u32.wrapping_sub(MAGIC.wrapping_add(ADDRESSES));
    // Header, load, end of load, end of what is zeroed, entry.
    let words = [MAGIC, ADDRESSES, checksum, BASE, BASE, BASE + 34, BASE + 34, BASE + 32];
    words.iter().flat_map(|word| word.to_le_bytes()).chain([0xeb, 0xfe]).collect()
}

/// A stopped machine with a place for clients.
fn machine(kernel: &Path, place: MonitorSocket, f: impl FnOnce(&mut Config, MonitorSocket) + Send) -> Machine {
    let mut config =
        Config { ram_size: 16 << 20, start_stopped: true, catalogue: mimus_cli::OFFERED, ..Config::default() };
    config.kernel = Some(kernel.to_owned());
    let terminal = config.devices.iter_mut().filter(|device| device.chardev().is_some());
    terminal.for_each(|device| device.backend = Backend::Chardev(Chardev::Null));
    f(&mut config, place);
    Machine::new(&config).expect("a machine")
}

/// Connects to a machine; none if it ends, as it may when it is asked to.
fn connect(path: &Path, ended: impl Fn() -> bool) -> Option<UnixStream> {
    let end = Instant::now() + ANSWER;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Some(stream),
            Err(_) if ended() => return None,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends what it takes, and reads what there is.
fn send(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    let mut answer = [0; 65_536];
    let sent = stream.write_all(bytes);
    let read = stream.read(&mut answer);
    let waits = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    !matches!(&read, Ok(0)) && sent.as_ref().err().is_none_or(waits) && read.as_ref().err().is_none_or(waits)
}

/// Has relative names of files, which clients give, be in a folder until it is dropped.
struct Within(PathBuf);

impl Within {
    fn new(folder: &Path) -> Within {
        let before = std::env::current_dir().expect("a current folder");
        std::env::set_current_dir(folder).expect("a folder");
        Within(before)
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        std::env::set_current_dir(&self.0).expect("a folder");
    }
}

/// Runs a machine, clients that `next` has the words of, and at the end one that sends `question` and waits for `answer` and
/// then ends the machine by `end`.
fn run(
    input: &mut Input,
    set: impl FnOnce(&mut Config, MonitorSocket) + Send,
    next: impl Fn(&mut Input) -> Vec<u8>,
    (question, answer, end): (&[u8], &[u8], &[u8]),
) {
    let folder = Folder::new();
    let _within = Within::new(&folder.file(""));
    let path = folder.file("socket");
    let kernel = folder.file("kernel");
    std::fs::write(&kernel, idle()).expect("a file");
    let place = MonitorSocket::Unix { path: path.clone(), server: true, wait: false };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| machine(&kernel, place, set).run().expect("a run"));
        while !input.is_over() {
            let Some(mut stream) = connect(&path, || thread.is_finished()) else { return };
            stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a socket");
            stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a socket");
            for _ in 0..input.u8() % 64 {
                if !send(&mut stream, &next(input)) || input.is_over() {
                    break;
                }
            }
        }
        let Some(mut stream) = connect(&path, || thread.is_finished()) else { return };
        stream.set_read_timeout(Some(ANSWER)).expect("a socket");
        stream.write_all(question).expect("it reads");
        let mut read = Vec::new();
        while !read.windows(answer.len()).any(|window| window == answer) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).expect("there is an answer still");
            assert!(count != 0 && read.len() < 1 << 20, "no answer but {:?}", String::from_utf8_lossy(&read));
            read.extend(&bytes[..count]);
        }
        // It may be gone before it has all.
        let _ = stream.write_all(end);
        let begin = Instant::now();
        while !thread.is_finished() {
            assert!(begin.elapsed() < ANSWER, "the machine does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// The human monitor.
pub fn hmp(input: &mut Input) {
    let line = |input: &mut Input| {
        let mut line = Vec::new();
        for _ in 0..input.u8() % 6 {
            line.extend(input.pick(WORDS).bytes());
            line.extend(input.pick(&[" ", " ", " ", "", "/"]).bytes());
        }
        if input.one_in(8) {
            // Not a word that ends the machine.
            line.extend(input.bytes(20).into_iter().filter(|byte| *byte != b'q'));
        }
        if input.one_in(100) {
            line.extend([b'('; 5000]);
        }
        line.push(b'\n');
        line
    };
    let set = |config: &mut Config, place| config.monitors = vec![place];
    run(input, set, line, (b"\x15stop\ninfo version\n", env!("CARGO_PKG_VERSION").as_bytes(), b"quit\n"));
}

/// QMP.
pub fn qmp(input: &mut Input) {
    let request = |input: &mut Input| {
        let mut text = String::new();
        match input.u8() % 4 {
            0 => (0..input.u8() % 30).for_each(|_| text.push_str(input.pick(PIECES))),
            1 => text = "[".repeat(5000),
            _ => text.push_str(input.pick(REQUESTS)),
        }
        let mut bytes = text.into_bytes();
        if input.one_in(3) && !bytes.is_empty() {
            let at = input.below(bytes.len() as u64) as usize;
            bytes[at] = input.pick(b"{}[]\":,\\\0 x\xff");
        }
        bytes.push(b'\n');
        bytes
    };
    let set = |config: &mut Config, place| config.qmp = vec![place];
    let question = br#"{"execute":"qmp_capabilities"}{"execute":"query-status","id":"alive"}"#;
    run(input, set, request, (question, b"alive", br#"{"execute":"quit"}"#));
}

/// The gdb server.
pub fn gdb(input: &mut Input) {
    let packet = |input: &mut Input| {
        let mut body = input.pick(PACKETS).as_bytes().to_vec();
        for _ in 0..(input.u8() % 8).saturating_sub(5) {
            let at = input.below(body.len().max(1) as u64) as usize;
            // Letters that end or begin a run are left out of it.
            body[at] = input.pick(b"0123456789abdefmMXpPzZ,:;=*}#$");
        }
        framed(&body, input.one_in(12))
    };
    let set = |config: &mut Config, place| config.gdb = Some(place);
    run(input, set, packet, (&[b"+".to_vec(), framed(b"?", false)].concat(), b"$", &framed(b"k", false)));
}

/// A packet with its checksum, or a wrong one.
fn framed(body: &[u8], wrong: bool) -> Vec<u8> {
    let sum = body.iter().fold(u8::from(wrong), |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}
