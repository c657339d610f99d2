//! One client: handshake, its messages, and the updates it gets.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mimus_hw::vga::Screen;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::{Viewer, lock};
use super::input::Input;
use super::password::{CHALLENGE, Penalty};
use super::pixels::{Canvas, DESKTOP_SIZE, HEXTILE, PixelFormat, RAW, Rect, ZRLE, Zrle, hextile, raw};
use super::{Password, Security};
use crate::socket::Stream;

const NAME: &[u8] = b"mimus";

/// How long a client may take for its part of the handshake, or to accept what is sent to it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a thread that waits for the screen to change checks whether its client is still connected.
const WAIT: Duration = Duration::from_secs(1);

/// A longer clipboard is not listened to.
const LONGEST_TEXT: u32 = 1 << 20;

/// Unchanged lines between changed ones that are sent along.
const GAP: u32 = 16;

/// Security types (RFC 6143, 7.1.2): none, and a challenge that a password answers.
const SECURITY_NONE: u8 = 1;
const SECURITY_VNC: u8 = 2;

/// What the reader tells the writer.
#[derive(Debug)]
struct Wishes {
    format: PixelFormat,
    /// The map of colours is to be sent.
    map: bool,
    encoding: i32,
    /// The client can change the size of its picture.
    resizes: bool,
    /// It waits for an update; true: of all, false: of what has changed.
    request: Option<bool>,
    closed: bool,
}

struct Session {
    wishes: Mutex<Wishes>,
    asked: Condvar,
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(stream: &mut impl Read, count: u64) -> io::Result<()> {
    let skipped = io::copy(&mut stream.take(count), &mut io::sink())?;
    if skipped < count { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Serves a client until it goes.
pub fn serve(stream: &Stream, viewer: &Viewer, security: &Security, input: &Mutex<Input>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = io::BufReader::new(stream.try_clone()?);
    let canvas = handshake(&mut reader, stream, viewer, security)?;
    stream.set_read_timeout(None)?;
    let session = Arc::new(Session {
        wishes: Mutex::new(Wishes {
            format: PixelFormat::NATIVE,
            map: false,
            encoding: RAW,
            resizes: false,
            request: None,
            closed: false,
        }),
        asked: Condvar::new(),
    });
    let writer =
        Writer { canvas, version: None, zrle: Zrle::default(), viewer: viewer.clone(), session: session.clone() };
    let sending = stream.try_clone()?;
    let thread = std::thread::Builder::new().name("vnc updates".into()).spawn(move || {
        let result = writer.run(&sending);
        // The reader ends with it.
        sending.close();
        result
    })?;
    let result = listen(&mut reader, viewer, input, &session);
    lock(&session.wishes).closed = true;
    session.asked.notify_all();
    viewer.wake();
    stream.close();
    // A panic was printed by the thread itself.
    let _ = thread.join();
    result
}

/// Versions, security and the picture's size (7.1 to 7.3).
fn handshake(reader: &mut impl Read, mut stream: &Stream, viewer: &Viewer, security: &Security) -> io::Result<Canvas> {
    stream.write_all(b"RFB 003.008\n")?;
    let version: [u8; 12] = read(reader)?;
    let minor = match &version {
        [b'R', b'F', b'B', b' ', b'0', b'0', b'3', b'.', b'0', b'0', minor @ b'0'..=b'9', b'\n'] => minor - b'0',
        _ => return Err(invalid("not a VNC client")),
    };
    let kind = match security {
        Security::None => SECURITY_NONE,
        Security::Password(..) => SECURITY_VNC,
    };
    if minor < 7 {
        stream.write_all(&u32::from(kind).to_be_bytes())?;
    } else {
        stream.write_all(&[1, kind])?;
        if read::<1>(reader)? != [kind] {
            return Err(invalid("a security type that was not offered"));
        }
    }
    match security {
        Security::None if minor >= 8 => stream.write_all(&0u32.to_be_bytes())?,
        Security::None => {}
        Security::Password(password, penalty) => {
            wait_for(penalty, stream)?;
            // Whoever sets one meanwhile is not kept waiting.
            let password = *lock(password);
            let right = authenticate(reader, stream, password)?;
            let right = lock(penalty).tried(right, Instant::now());
            tell_result(stream, right, minor)?;
        }
    }
    // Whether others may stay connected: they may.
    read::<1>(reader)?;
    let (width, height) = viewer.look(size);
    let mut init = Vec::new();
    init.extend(width.to_be_bytes());
    init.extend(height.to_be_bytes());
    init.extend(PixelFormat::NATIVE.to_bytes());
    init.extend((NAME.len() as u32).to_be_bytes());
    init.extend(NAME);
    stream.write_all(&init)?;
    Ok(Canvas { width, height, pixels: vec![0; usize::from(width) * usize::from(height)] })
}

/// Waits until passwords may be tried again; an error when the connection ends meanwhile.
fn wait_for(penalty: &Mutex<Penalty>, stream: &Stream) -> io::Result<()> {
    loop {
        let left = lock(penalty).left(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // What the client sends can wait; its end, and the server's, are told in any case.
        match poll(&mut [PollFd::new(stream, PollFlags::RDHUP)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Has the client answer a challenge (7.2.2); whether the answer is right. Without a password none is.
fn authenticate(reader: &mut impl Read, mut stream: &Stream, password: Option<Password>) -> io::Result<bool> {
    let mut challenge = [0; CHALLENGE];
    let filled = rustix::rand::getrandom(&mut challenge, rustix::rand::GetRandomFlags::empty())?;
    if filled < CHALLENGE {
        return Err(invalid("no random numbers"));
    }
    stream.write_all(&challenge)?;
    let answer: [u8; CHALLENGE] = read(reader)?;
    Ok(password.is_some_and(|password| password.accepts(&challenge, &answer)))
}

/// Tells the client whether it may go on (7.1.3); an error if not.
fn tell_result(mut stream: &Stream, right: bool, minor: u8) -> io::Result<()> {
    if right {
        return stream.write_all(&0u32.to_be_bytes());
    }
    let reason = b"Authentication failed";
    let mut refusal = 1u32.to_be_bytes().to_vec();
    if minor >= 8 {
        refusal.extend((reason.len() as u32).to_be_bytes());
        refusal.extend(reason);
    }
    stream.write_all(&refusal)?;
    Err(invalid("a wrong password"))
}

fn size(screen: &Screen) -> (u16, u16) {
    let frame = screen.frame();
    (frame.width.min(u32::from(u16::MAX)) as u16, frame.height.min(u32::from(u16::MAX)) as u16)
}

/// Reads the client's messages (7.5) until it goes.
fn listen(reader: &mut impl Read, viewer: &Viewer, input: &Mutex<Input>, session: &Session) -> io::Result<()> {
    loop {
        let [kind] = match read::<1>(reader) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            kind => kind?,
        };
        match kind {
            0 => {
                let message: [u8; 19] = read(reader)?;
                let mut format = [0; 16];
                format.copy_from_slice(&message[3..]);
                let format = PixelFormat::parse(&format).ok_or_else(|| invalid("an impossible pixel format"))?;
                let mut wishes = lock(&session.wishes);
                wishes.format = format;
                wishes.map = format.map().is_some();
            }
            2 => {
                let [_, high, low] = read(reader)?;
                let mut encodings = None;
                let mut resizes = false;
                for _ in 0..u16::from_be_bytes([high, low]) {
                    let encoding = i32::from_be_bytes(read(reader)?);
                    resizes |= encoding == DESKTOP_SIZE;
                    if matches!(encoding, RAW | HEXTILE | ZRLE) {
                        // The first is the one that it prefers.
                        encodings.get_or_insert(encoding);
                    }
                }
                let mut wishes = lock(&session.wishes);
                wishes.encoding = encodings.unwrap_or(RAW);
                wishes.resizes = resizes;
            }
            3 => {
                let [incremental, ..] = read::<9>(reader)?;
                let mut wishes = lock(&session.wishes);
                let all = incremental == 0 || wishes.request == Some(true);
                wishes.request = Some(all);
                drop(wishes);
                session.asked.notify_all();
                if all {
                    viewer.wake();
                }
            }
            4 => {
                let [down, _, _, keysym @ ..] = read::<7>(reader)?;
                lock(input).key(viewer.console(), u32::from_be_bytes(keysym), down != 0);
            }
            5 => {
                let [mask, x, x_low, y, y_low] = read(reader)?;
                let (x, y) = (u16::from_be_bytes([x, x_low]), u16::from_be_bytes([y, y_low]));
                lock(input).pointer(viewer.console(), mask, x, y);
            }
            6 => {
                let [_, _, _, length @ ..] = read::<7>(reader)?;
                let length = u32::from_be_bytes(length);
                if length > LONGEST_TEXT {
                    return Err(invalid("a clipboard of more than a mebibyte"));
                }
                skip(reader, length.into())?;
            }
            _ => return Err(invalid("an unknown message")),
        }
    }
}

struct Writer {
    canvas: Canvas,
    /// The version of the screen that the canvas shows; `None` before the first update.
    version: Option<u64>,
    zrle: Zrle,
    viewer: Viewer,
    session: Arc<Session>,
}

impl Writer {
    /// Sends updates until the client goes.
    fn run(mut self, mut stream: &Stream) -> io::Result<()> {
        loop {
            let wishes = lock(&self.session.wishes);
            let waiting = |wishes: &mut Wishes| wishes.request.is_none() && !wishes.closed;
            let wishes = self.session.asked.wait_while(wishes, waiting).unwrap_or_else(PoisonError::into_inner);
            if wishes.closed {
                return Ok(());
            }
            let all = wishes.request == Some(true) || self.version.is_none();
            let (format, map, encoding, resizes) = (wishes.format, wishes.map, wishes.encoding, wishes.resizes);
            drop(wishes);
            let mut message = Vec::new();
            if map {
                put_map(format, &mut message);
                lock(&self.session.wishes).map = false;
            }
            if !self.update(all, format, encoding, resizes, &mut message)? {
                self.viewer.wait(self.version.unwrap_or(0), WAIT);
                continue;
            }
            // A request that comes while this is sent is another one.
            lock(&self.session.wishes).request = None;
            stream.write_all(&message)?;
        }
    }

    /// Appends an update; false if there is nothing to send.
    fn update(
        &mut self,
        all: bool,
        format: PixelFormat,
        encoding: i32,
        resizes: bool,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let (resized, rects) = self.take(all, resizes);
        if rects.is_empty() && !resized {
            return Ok(false);
        }
        let count = rects.len() as u16 + u16::from(resized);
        out.extend([0, 0]);
        out.extend(count.to_be_bytes());
        if resized {
            put_rect(Rect { x: 0, y: 0, width: self.canvas.width, height: self.canvas.height }, DESKTOP_SIZE, out);
        }
        for rect in rects {
            put_rect(rect, encoding, out);
            match encoding {
                HEXTILE => hextile(&self.canvas, rect, format, out),
                ZRLE => {
                    if !self.zrle.encode(&self.canvas, rect, format, out) {
                        return Err(invalid("compression failed"));
                    }
                }
                _ => raw(&self.canvas, rect, format, out),
            }
        }
        Ok(true)
    }

    /// Copies what has changed on the screen to the canvas: whether the size has, and what else.
    fn take(&mut self, all: bool, resizes: bool) -> (bool, Vec<Rect>) {
        let (canvas, version) = (&mut self.canvas, &mut self.version);
        self.viewer.look(|screen| {
            let (width, height) = size(screen);
            let resized = resizes && (canvas.width, canvas.height) != (width, height);
            if resized {
                let pixels = vec![0; usize::from(width) * usize::from(height)];
                *canvas = Canvas { width, height, pixels };
            }
            // Changes of the size that the client cannot follow show as changes of all lines.
            let since = version.replace(screen.version());
            let mut rects: Vec<Rect> = Vec::new();
            for y in 0..u32::from(canvas.height) {
                let outside = y >= screen.frame().height;
                if all || resized || outside || since.is_none_or(|since| screen.has_changed(y, since)) {
                    copy_line(canvas, screen, y, &mut rects);
                }
            }
            if all || resized {
                rects = vec![Rect { x: 0, y: 0, width: canvas.width, height: canvas.height }];
            }
            (resized, rects)
        })
    }
}

/// Copies line `y` and adds where it differs to `rects`, which are in order.
fn copy_line(canvas: &mut Canvas, screen: &Screen, y: u32, rects: &mut Vec<Rect>) {
    let width = usize::from(canvas.width);
    let Some(old) = canvas.pixels.get_mut(y as usize * width..(y as usize + 1) * width) else { return };
    let new = screen.frame().line(y);
    // Beyond the screen's edge all is black.
    let at = |x: usize| new.get(x).copied().unwrap_or(0);
    let Some(first) = (0..width).find(|x| old[*x] != at(*x)) else { return };
    let last = (first..width).rev().find(|x| old[*x] != at(*x)).unwrap_or(first);
    for (x, pixel) in old.iter_mut().enumerate().take(last + 1).skip(first) {
        *pixel = at(x);
    }
    let (y, first, end) = (y as u16, first as u16, last as u16 + 1);
    match rects.last_mut().filter(|rect| u32::from(y) <= u32::from(rect.y + rect.height) + GAP) {
        Some(rect) => {
            let right = end.max(rect.x + rect.width);
            rect.x = rect.x.min(first);
            rect.width = right - rect.x;
            rect.height = y + 1 - rect.y;
        }
        None => rects.push(Rect { x: first, y, width: end - first, height: 1 }),
    }
}

/// The header of a rectangle (7.6.1).
fn put_rect(rect: Rect, encoding: i32, out: &mut Vec<u8>) {
    for value in [rect.x, rect.y, rect.width, rect.height] {
        out.extend(value.to_be_bytes());
    }
    out.extend(encoding.to_be_bytes());
}

/// The map of colours (7.6.2).
fn put_map(format: PixelFormat, out: &mut Vec<u8>) {
    if let Some(map) = format.map() {
        out.extend([1, 0, 0, 0, 1, 0]);
        map.iter().flatten().for_each(|component| out.extend(component.to_be_bytes()));
    }
}
