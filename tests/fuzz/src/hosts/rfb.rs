//! A VNC client that sends anything (RFC 6143).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mimus_host::clock::Clock;
use mimus_host::devices::{KeyboardHandle, VgaHandle};
use mimus_host::display::{Console, DisplayHandle, View, VncPlace, VncServer, VncTarget};
use mimus_hw::vga::{DEVFN, StdVga, VRAM_SIZE};
use mimus_hw::{Pc, PcConfig};
use mimus_softmmu::Vram;
use mimus_softmmu::kick::Kicker;

use super::ANSWER;
use crate::input::Input;

const VERSION: &[u8] = b"RFB 003.008\n";
const FIRST_PORT: u16 = 5900;

/// A display whose port nobody listens at, as far as one can tell.
fn free_display() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        if let Some(display) = listener.local_addr().expect("it is bound").port().checked_sub(FIRST_PORT) {
            return display;
        }
    }
}

/// A message of a client, more or less.
fn message(input: &mut Input) -> Vec<u8> {
    match input.u8() % 10 {
        0 => {
            let mut bytes = vec![0, 0, 0, 0];
            bytes.extend([input.pick(&[8, 16, 32, 0]), input.pick(&[24, 8, 16, 255]), input.u8() & 1, input.u8() & 1]);
            for _ in 0..3 {
                bytes.extend(input.pick(&[255u16, 31, 7, 0, 65_535]).to_be_bytes());
            }
            bytes.extend([input.u8() % 40, input.u8() % 40, input.u8() % 40, 0, 0, 0]);
            bytes
        }
        1 | 2 => {
            let count = input.u8() % 6;
            let mut bytes = vec![2, 0, if input.one_in(32) { 0xff } else { 0 }, count];
            for _ in 0..count {
                bytes.extend(input.pick(&[0i32, 5, 16, -223, -239, 7, 1]).to_be_bytes());
            }
            bytes
        }
        3..=5 => {
            let mut bytes = vec![3, input.u8() & 1];
            for _ in 0..4 {
                bytes.extend(input.pick(&[0u16, 1, 640, 0xffff]).to_be_bytes());
            }
            bytes
        }
        6 => [&[4, input.u8() & 1, 0, 0][..], &(input.value() as u32 & 0xffff).to_be_bytes()].concat(),
        7 => [&[5, input.u8()][..], &input.u32().to_be_bytes()].concat(),
        8 => {
            let text = input.bytes(50);
            let len = if input.one_in(8) { input.u32() } else { text.len() as u32 };
            [&[6, 0, 0, 0][..], &len.to_be_bytes(), &text].concat()
        }
        _ => input.bytes(30),
    }
}

/// A client that behaves: it gets a picture.
fn looks(server: &VncServer) {
    let mut stream = TcpStream::connect(server.address().expect("a port")).expect("it listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a socket");
    let mut version = [0; 12];
    stream.read_exact(&mut version).expect("the server answers still");
    assert_eq!(version, VERSION);
    stream.write_all(&[VERSION, &[1, 1]].concat()).expect("it reads");
    let mut bytes = [0; 2 + 4 + 24 + 5];
    stream.read_exact(&mut bytes).expect("the server answers still");
    stream.write_all(&[3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).expect("it reads");
    stream.read_exact(&mut [0; 4 + 12]).expect("there is a picture");
}

/// Runs a case.
pub fn run(input: &mut Input) {
    let config = PcConfig { ram_size: 64 << 20, tsc_hz: 1_000_000_000, ..PcConfig::default() };
    let mut pc = Pc::new(config);
    let vram = Arc::new(Vram::new(VRAM_SIZE as usize).expect("display memory"));
    pc.plug(Some(DEVFN), Box::new(StdVga::new(vram.clone(), None)));
    pc.set_up_as_firmware();
    pc.function(0, DEVFN, |vga: &mut StdVga, _| vga.vga_mut().set_text_mode());
    let pc = Arc::new(Mutex::new(pc));
    let display = DisplayHandle { adapter: Arc::new(VgaHandle { pc: pc.clone(), devfn: DEVFN }), vram: vram.clone() };
    let inputs = Arc::new(KeyboardHandle(pc.clone()));
    let console = Console::new(inputs, Some(display), Clock::start(), Kicker::new());
    let view = View::start(console.clone()).expect("a thread");
    let place = VncPlace::Display { host: "127.0.0.1".into(), display: free_display() };
    let target = VncTarget { place, password: false };
    let server = VncServer::start(&target, &view).expect("a free port");
    // The vCPU's part.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                if console.harvest().is_wanted() {
                    console.harvest().hand_over(&vram);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        client(input, &server, &pc, &vram);
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| looks(&server)));
        stop.store(true, Ordering::Release);
        assert!(looked.is_ok(), "the VNC server does not answer any more");
    });
    drop(server);
}

/// Clients that do not behave, while the guest sets modes and draws.
fn client(input: &mut Input, server: &VncServer, pc: &Mutex<Pc>, vram: &Vram) {
    while !input.is_over() {
        let Some(Ok(mut stream)) = server.address().map(TcpStream::connect) else { return };
        // A client that does not read does not hold this up.
        if stream.set_write_timeout(Some(Duration::from_millis(100))).is_err() {
            return;
        }
        let greeting = if input.one_in(6) { input.bytes(20) } else { [VERSION, &[1, 1]].concat() };
        let mut ok = stream.write_all(&greeting).is_ok();
        for _ in 0..input.u8() % 40 {
            ok = ok && stream.write_all(&message(input)).is_ok();
            if input.one_in(4) {
                vram.write(u64::from(input.u16()) * 16, 8, input.u64());
            }
            if input.one_in(8) {
                let (width, height) = (input.pick(&[8, 640, 1024, 2048]), input.pick(&[1, 480, 768, 1100]));
                let mut pc = pc.lock().unwrap_or_else(PoisonError::into_inner);
                pc.function(0, DEVFN, |vga: &mut StdVga, _| vga.vga_mut().set_linear_mode(width, height));
            }
            if input.one_in(8) {
                let mut bytes = [0; 4096];
                let short = Some(Duration::from_millis(5));
                // Whatever comes.
                let _ = stream.set_read_timeout(short).and_then(|()| stream.read(&mut bytes));
            }
        }
    }
}
