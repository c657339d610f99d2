//! Tests of the VNC server with a client of their own, over a socket.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mimus_hw::vga::{DEVFN, StdVga, VRAM_SIZE};
use mimus_hw::{Pc, PcConfig};
use mimus_softmmu::Vram;

use super::super::{Console, DisplayHandle};
use super::*;
use crate::clock::Clock;
use crate::devices::{KeyboardHandle, VgaHandle};
use mimus_softmmu::kick::Kicker;

struct Machine {
    console: Console,
    pc: crate::devices::SharedPc,
    vram: Arc<Vram>,
    // Dropped in this order.
    server: VncServer,
    _view: View,
}

fn machine() -> Machine {
    let place = VncPlace::Display { host: "127.0.0.1".into(), display: free_display() };
    machine_at(VncTarget { place, password: false })
}

fn machine_at(target: VncTarget) -> Machine {
    let config = PcConfig { ram_size: 64 << 20, tsc_hz: 1_000_000_000, ..PcConfig::default() };
    let mut pc = Pc::new(config);
    let vram = Arc::new(Vram::new(VRAM_SIZE as usize).expect("16 MiB"));
    pc.plug(Some(DEVFN), Box::new(StdVga::new(vram.clone(), None)));
    pc.set_up_as_firmware();
    pc.function(0, DEVFN, |vga: &mut StdVga, _| vga.vga_mut().set_text_mode());
    let pc = Arc::new(Mutex::new(pc));
    let display = DisplayHandle { adapter: Arc::new(VgaHandle { pc: pc.clone(), devfn: DEVFN }), vram: vram.clone() };
    let inputs = Arc::new(KeyboardHandle(pc.clone()));
    let console = Console::new(inputs, Some(display), Clock::start(), Kicker::new());
    let view = View::start(console.clone()).expect("a thread");
    let server = VncServer::start(&target, &view).expect("a free port");
    Machine { console, pc, vram, server, _view: view }
}

/// A display whose port nobody listens at, as far as one can tell.
fn free_display() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    port.checked_sub(place::FIRST_PORT).unwrap_or(99)
}

fn connect(machine: &Machine) -> TcpStream {
    TcpStream::connect(machine.server.address().expect("a TCP port")).expect("it listens")
}

struct Client {
    stream: TcpStream,
    size: (u16, u16),
    /// What the updates so far have drawn.
    picture: HashMap<(u16, u16), u32>,
}

impl Client {
    /// Connects as soon as those that went before have their places left.
    fn connect(machine: &Machine) -> Client {
        let end = Instant::now() + Duration::from_secs(20);
        let (mut stream, greeting) = loop {
            let mut stream = connect(machine);
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            let mut greeting = [0; 12];
            if stream.read_exact(&mut greeting).is_ok() {
                break (stream, greeting);
            }
            assert!(Instant::now() < end, "there is no room");
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut client =
            Client { stream: stream.try_clone().expect("a socket"), size: (0, 0), picture: HashMap::new() };
        assert_eq!(&greeting, b"RFB 003.008\n");
        stream.write_all(b"RFB 003.008\n").expect("it reads");
        assert_eq!(client.read::<2>(), [1, 1]);
        stream.write_all(&[1]).expect("it reads");
        assert_eq!(client.read::<4>(), [0; 4]);
        stream.write_all(&[1]).expect("it reads");
        let [w, w_low, h, h_low] = client.read::<4>();
        client.size = (u16::from_be_bytes([w, w_low]), u16::from_be_bytes([h, h_low]));
        assert_eq!(client.read::<16>(), pixels::PixelFormat::NATIVE.to_bytes());
        assert_eq!(client.read::<9>()[4..], *b"mimus");
        client
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("the server sends");
        bytes
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    fn request(&mut self, incremental: bool) {
        self.send(&[3, incremental.into(), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }

    /// Pixels of the picture; no colour where nothing was drawn.
    fn pixels(&self, rect: pixels::Rect) -> impl Iterator<Item = u32> {
        places(rect).map(|place| self.picture.get(&place).copied().unwrap_or(u32::MAX))
    }

    /// The rectangles of the next update, in encoding Raw, and whether the size has changed.
    fn update(&mut self) -> Vec<(pixels::Rect, i32, Vec<u32>)> {
        let [kind, _, high, low] = self.read();
        assert_eq!(kind, 0);
        let mut rects = Vec::new();
        for _ in 0..u16::from_be_bytes([high, low]) {
            let header = self.read::<12>();
            let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            let rect = pixels::Rect { x: word(0), y: word(2), width: word(4), height: word(6) };
            let encoding = i32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            let mut pixels = Vec::new();
            if encoding == pixels::RAW {
                let mut bytes = vec![0; usize::from(rect.width) * usize::from(rect.height) * 4];
                self.stream.read_exact(&mut bytes).expect("the server sends");
                pixels = bytes.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                self.picture.extend(places(rect).zip(pixels.iter().copied()));
            } else {
                assert_eq!(encoding, pixels::DESKTOP_SIZE);
                self.size = (rect.width, rect.height);
            }
            rects.push((rect, encoding, pixels));
        }
        rects
    }
}

/// Where the pixels of a rectangle are, in their order.
fn places(rect: pixels::Rect) -> impl Iterator<Item = (u16, u16)> {
    (rect.y..rect.y + rect.height).flat_map(move |y| (rect.x..rect.x + rect.width).map(move |x| (x, y)))
}

/// The vCPU's part: hands over what was written.
fn harvest(machine: &Machine) {
    let end = Instant::now() + Duration::from_secs(20);
    while !machine.console.harvest().is_wanted() {
        assert!(Instant::now() < end, "nobody asks");
        std::thread::sleep(Duration::from_millis(1));
    }
    machine.console.harvest().hand_over(&machine.vram);
}

#[test]
fn a_client_sees_the_screen_and_what_changes() {
    let machine = machine();
    let mut client = Client::connect(&machine);
    assert!([(720, 400), (640, 480)].contains(&client.size), "before or after the first look");
    client.send(&[2, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x21]);
    client.request(false);
    harvest(&machine);
    let mut first = client.update();
    if first.iter().all(|(rect, ..)| rect.width != 720) {
        client.request(false);
        first = client.update();
    }
    assert_eq!(client.size, (720, 400));
    let (rect, _, _) = first.last().expect("a picture");
    assert_eq!((rect.width, rect.height), (720, 400));
    // A block, which covers its ninth dot, too.
    crate::devices::lock(&machine.pc).mmio_write(0, 0, 0xb_8000 + 2 * 85, 2, 0x1edb);
    client.request(true);
    harvest(&machine);
    let end = Instant::now() + Duration::from_secs(20);
    let cell = pixels::Rect { x: 45, y: 16, width: 9, height: 16 };
    // The cursor blinks meanwhile, in a rectangle of its own or in one with the block.
    while client.pixels(cell).any(|pixel| pixel != 0xffff55) {
        assert!(Instant::now() < end);
        for (rect, encoding, _) in client.update() {
            assert!(encoding != pixels::RAW || u32::from(rect.width) * u32::from(rect.height) < 720 * 400 / 4);
        }
        client.request(true);
    }
    // Another mode is another size.
    crate::devices::lock(&machine.pc).function(0, DEVFN, |vga: &mut StdVga, _| vga.vga_mut().set_linear_mode(800, 600));
    machine.console.harvest().hand_over(&machine.vram);
    while client.size != (800, 600) {
        assert!(Instant::now() < end);
        client.request(true);
        client.update();
    }
}

#[test]
fn keys_and_mouse_arrive() {
    let machine = machine();
    let mut client = Client::connect(&machine);
    let port = |port: u16| crate::devices::lock(&machine.pc).port_read(0, port, 1) as u8;
    let next = || {
        let end = Instant::now() + Duration::from_secs(20);
        while port(0x64) & 1 == 0 {
            assert!(Instant::now() < end, "nothing arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        (port(0x60), port(0x64) & 0x20 != 0)
    };
    // A question mark without Shift: the server adds it.
    client.send(&[4, 1, 0, 0, 0, 0, 0, b'?']);
    client.send(&[4, 0, 0, 0, 0, 0, 0, b'?']);
    assert_eq!([next().0, next().0, next().0, next().0], [0x2a, 0x35, 0xb5, 0xaa]);
    // A key that is down when the client goes is released.
    client.send(&[4, 1, 0, 0, 0, 0, 0xff, 0x1b]);
    assert_eq!(next().0, 0x01);
    drop(client);
    assert_eq!(next().0, 0x81);
    for (to, value) in [(0x64, 0xa8), (0x64, 0xd4), (0x60, 0xf4)] {
        crate::devices::lock(&machine.pc).port_write(0, to, 1, value);
    }
    assert_eq!(next().0, 0xfa);
    let mut client = Client::connect(&machine);
    client.send(&[5, 0, 0, 100, 0, 100]);
    client.send(&[5, 4, 0, 110, 0, 95]);
    assert_eq!([next().0, next().0, next().0], [0x0a, 10, 5], "the right button, to the right, upwards");
}

#[test]
fn what_is_no_client_is_sent_away() {
    let machine = machine();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"RFB 003.008\n\x02",
        b"RFB 003.008\n\x01\x01\xff",
        b"RFB 003.008\n\x01\x01\0\0\0\0\x18",
    ] {
        let mut stream = connect(&machine);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(bytes).expect("it reads");
        if bytes.ends_with(b"\x18") {
            stream.write_all(&[24; 16]).expect("it reads");
        }
        let mut rest = Vec::new();
        // Ends, with or without an error.
        let _ = stream.read_to_end(&mut rest);
    }
    let clients: Vec<Client> = (0..MOST_CLIENTS).map(|_| Client::connect(&machine)).collect();
    let mut one_more = connect(&machine);
    one_more.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    assert_eq!(one_more.read(&mut [0; 1]).expect("a clean end"), 0);
    drop(clients);
}

#[test]
fn clients_need_the_password() {
    let place = VncPlace::Display { host: "127.0.0.1".into(), display: free_display() };
    let machine = machine_at(VncTarget { place, password: true });
    let try_with = |version: &[u8; 12], answer: &dyn Fn(&[u8; 16]) -> [u8; 16]| {
        let mut stream = connect(&machine);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut client =
            Client { stream: stream.try_clone().expect("a socket"), size: (0, 0), picture: HashMap::new() };
        client.read::<12>();
        stream.write_all(version).expect("it reads");
        if version.ends_with(b"3\n") {
            assert_eq!(client.read::<4>(), [0, 0, 0, 2]);
        } else {
            assert_eq!(client.read::<2>(), [1, 2]);
            stream.write_all(&[2]).expect("it reads");
        }
        let challenge: [u8; 16] = client.read();
        stream.write_all(&answer(&challenge)).expect("it reads");
        let result = client.read::<4>();
        if result == [0; 4] {
            stream.write_all(&[1]).expect("it reads");
            assert_eq!(client.read::<24>()[4..20], pixels::PixelFormat::NATIVE.to_bytes());
        } else {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("a clean end");
            assert_eq!(rest.is_empty(), version.ends_with(b"3\n"));
        }
        result[3]
    };
    let secret = |challenge: &[u8; 16]| Password::new("secret").answer(challenge);
    assert_eq!(try_with(b"RFB 003.008\n", &secret), 1, "none is set");
    assert!(machine.server.set_password("secret"));
    assert_eq!(try_with(b"RFB 003.008\n", &secret), 0);
    assert_eq!(try_with(b"RFB 003.003\n", &secret), 0);
    assert_eq!(try_with(b"RFB 003.008\n", &|challenge| *challenge), 1);
    assert_eq!(try_with(b"RFB 003.003\n", &|_| [0; 16]), 1);
    assert!(machine.server.set_password("other"));
    assert_eq!(try_with(b"RFB 003.008\n", &secret), 1);
}

#[test]
fn a_socket_in_the_file_system() {
    let path = std::env::temp_dir().join(format!("mimus-vnc-{}", std::process::id()));
    let machine = machine_at(VncTarget { place: VncPlace::Unix(path.clone()), password: false });
    assert!(!machine.server.set_password("secret"));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    let mut version = [0; 12];
    stream.read_exact(&mut version).expect("a greeting");
    assert_eq!(&version, b"RFB 003.008\n");
    drop(machine);
    assert!(!path.exists());
}
