//! The host side of a guest's console: the terminal's mode, its input and the sinks for output.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use crate::config::Chardev;
use crate::error::{HostError, append_output, open_output};
use crate::signals::{Restore, Signals};
use crate::wake::Wake;

pub use mimus_hw::CharSink;

/// A terminal in raw mode. Dropping it restores the mode it had; so do a panic and the signals that end the process,
/// and SIGTSTP for as long as the process is stopped. Only SIGKILL and `std::process::exit` leave it raw.
#[derive(Debug)]
pub struct RawTerminal {
    modes: Arc<Modes>,
}

/// The two modes of a terminal.
struct Modes {
    tty: OwnedFd,
    cooked: Termios,
    raw: Termios,
    /// What is written to the terminal before it is cooked.
    leave: &'static [u8],
    /// Set once the terminal is to stay cooked.
    done: Mutex<bool>,
}

impl std::fmt::Debug for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Modes").field("tty", &self.tty).finish_non_exhaustive()
    }
}

impl RawTerminal {
    /// Puts `tty` (usually standard input) in raw mode: bytes arrive at once, unchanged and without echo. With `mux`
    /// Ctrl-C, Ctrl-\ and Ctrl-Z are bytes as well; without it they are signals. Output processing stays as it was, so
    /// that a message with a bare line feed looks right. `None` when `tty` is not a terminal.
    ///
    /// Takes over signals as [`Signals::of_process`] does.
    pub fn enter(tty: impl AsFd, mux: bool) -> io::Result<Option<RawTerminal>> {
        RawTerminal::enter_with(tty, mux, b"")
    }

    /// As [`RawTerminal::enter`] with `mux`, for a terminal that is drawn on: whatever restores it writes `leave` to it first.
    pub fn enter_screen(tty: impl AsFd, leave: &'static [u8]) -> io::Result<Option<RawTerminal>> {
        RawTerminal::enter_with(tty, true, leave)
    }

    fn enter_with(tty: impl AsFd, mux: bool, leave: &'static [u8]) -> io::Result<Option<RawTerminal>> {
        let tty = tty.as_fd();
        if !isatty(tty) {
            return Ok(None);
        }
        let cooked = tcgetattr(tty)?;
        let modes = Arc::new(Modes {
            tty: tty.try_clone_to_owned()?,
            raw: raw_mode(&cooked, mux),
            cooked,
            leave,
            done: Mutex::new(false),
        });
        let terminal = RawTerminal { modes: Arc::clone(&modes) };
        Signals::of_process()?.restore(&modes);
        restore_on_panic(Arc::clone(&modes));
        modes.make_raw()?;
        Ok(Some(terminal))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.modes.restore();
    }
}

impl Modes {
    fn make_raw(&self) -> io::Result<()> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if !*done {
            tcsetattr(&self.tty, OptionalActions::Now, &self.raw)?;
        }
        Ok(())
    }

    /// A terminal that does not take it is not worth waiting for.
    fn write_leave(&self) {
        if !self.leave.is_empty() {
            let _ = rustix::io::write(&self.tty, self.leave);
        }
    }
}

impl Restore for Modes {
    fn restore(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *done, true) {
            self.write_leave();
            // A terminal that is gone (EIO) has no mode left to restore.
            let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.cooked);
        }
    }

    fn suspend(&self) {
        self.write_leave();
        // Not `Drain` or `Flush`: a terminal that nobody reads must not hold the process up.
        let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.cooked);
        let _ = emulate_default_handler(SIGTSTP);
        let _ = self.make_raw();
    }
}

fn raw_mode(cooked: &Termios, mux: bool) -> Termios {
    let mut raw = cooked.clone();
    raw.make_raw();
    raw.output_modes = cooked.output_modes;
    if !mux {
        raw.local_modes |= cooked.local_modes & LocalModes::ISIG;
    }
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    raw
}

/// Lets a panic's message appear on a restored terminal, whatever happens to the thread afterwards.
fn restore_on_panic(modes: Arc<Modes>) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        modes.restore();
        previous(info);
    }));
}

/// The key that starts an escape unless another is chosen: Ctrl-A.
pub const ESCAPE: u8 = 0x01;

/// What an escape asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapeAction {
    /// Ctrl-A x: end the run.
    Quit,
    /// Ctrl-A h, and any escape that means nothing else: show the escapes.
    Help,
    /// Ctrl-A b: a break on the serial line.
    Break,
    /// Ctrl-A c: switch to the monitor.
    Monitor,
}

/// What one typed byte means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// A byte for the guest.
    Guest(u8),
    /// The end of an escape.
    Action(EscapeAction),
    /// The beginning of an escape.
    Nothing,
}

/// Separates a user's escapes from what the guest is to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscapeParser {
    key: u8,
    escaped: bool,
}

impl Default for EscapeParser {
    fn default() -> Self {
        EscapeParser::new(ESCAPE)
    }
}

impl EscapeParser {
    /// One whose escapes `key` starts.
    pub fn new(key: u8) -> EscapeParser {
        EscapeParser { key, escaped: false }
    }

    /// What the escapes are.
    pub fn help(&self) -> String {
        let key = match self.key {
            control @ 0..0x20 => format!("Ctrl-{}", char::from(control | 0x40)),
            other => char::from(other).to_string(),
        };
        let rows = [
            ("h", "show this help"),
            ("x", "quit mimus"),
            ("b", "send a break to the serial port"),
            ("c", "switch between the guest and the monitor"),
        ];
        let rows = rows.map(|(letter, what)| format!("{:<15}{what}\n", format!("{key} {letter}")));
        format!("\n{}{:<15}send {key} to the guest\n", rows.concat(), format!("{key} {key}"))
    }

    /// What the user is told of an action, on standard error.
    fn notice(&self, action: EscapeAction) -> String {
        match action {
            EscapeAction::Quit => "\nmimus: terminated\n".to_owned(),
            EscapeAction::Help => self.help(),
            EscapeAction::Break => String::new(),
            EscapeAction::Monitor => "\nmimus: there is no monitor here\n".to_owned(),
        }
    }

    /// Takes the next byte that was typed.
    pub fn step(&mut self, byte: u8) -> Typed {
        if !std::mem::replace(&mut self.escaped, false) {
            self.escaped = byte == self.key;
            return if self.escaped { Typed::Nothing } else { Typed::Guest(byte) };
        }
        match byte {
            key if key == self.key => Typed::Guest(key),
            b'x' => Typed::Action(EscapeAction::Quit),
            b'b' => Typed::Action(EscapeAction::Break),
            b'c' => Typed::Action(EscapeAction::Monitor),
            _ => Typed::Action(EscapeAction::Help),
        }
    }
}

/// Bytes that wait for room in the guest; more stay with the host until there is room.
const QUEUE_LIMIT: usize = 4096;
/// How soon bytes that the guest had no room for are offered again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// What takes the terminal's input in the guest's place after Ctrl-A c.
pub trait Console: Send {
    /// It begins to.
    fn enter(&mut self);
    /// A byte was typed.
    fn typed(&mut self, byte: u8);
    /// Ctrl-A c was typed, by who has spoken to it if `within`; whether it is spoken to from now on.
    fn turn(&mut self, within: bool) -> bool {
        if !within {
            self.enter();
        }
        !within
    }
}

/// A thread that delivers a host's input to a guest. Dropping it ends the thread and waits for it, so no lock that the
/// callbacks take may be held then.
#[derive(Debug)]
pub struct InputThread {
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl InputThread {
    /// Starts to read `input`. The key `escapes`, if there is one, starts an [`EscapeAction`],
    /// of which one leads to `console` and back. `deliver` returns how many of the
    /// bytes the guest took, which may be none: they are offered again shortly, and at once after [`wake`](Self::wake).
    /// `send_break` is called for Ctrl-A b, and `quit` for Ctrl-A x, after which nothing more is read. The end of the input ends the thread, not the
    /// machine.
    pub fn spawn(
        input: OwnedFd,
        console: Option<Box<dyn Console>>,
        escapes: Option<u8>,
        deliver: impl FnMut(&[u8]) -> usize + Send + 'static,
        send_break: impl FnMut() + Send + 'static,
        quit: impl FnOnce() + Send + 'static,
    ) -> io::Result<InputThread> {
        let wake = Arc::new(Wake::new()?);
        let pump = Pump {
            input,
            wake: Arc::clone(&wake),
            parser: escapes.map(EscapeParser::new),
            console,
            in_console: false,
            queue: VecDeque::with_capacity(QUEUE_LIMIT),
            open: true,
        };
        let thread =
            thread::Builder::new().name("input".to_owned()).spawn(move || pump.run(deliver, send_break, quit))?;
        Ok(InputThread { wake, thread: Some(thread) })
    }

    /// Tells the thread that the guest may have room now.
    pub fn wake(&self) {
        self.wake.signal();
    }
}

impl Drop for InputThread {
    fn drop(&mut self) {
        self.wake.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// What the input thread works on.
struct Pump {
    input: OwnedFd,
    wake: Arc<Wake>,
    parser: Option<EscapeParser>,
    console: Option<Box<dyn Console>>,
    /// What is typed is the console's.
    in_console: bool,
    queue: VecDeque<u8>,
    open: bool,
}

impl Pump {
    fn run(mut self, mut deliver: impl FnMut(&[u8]) -> usize, mut send_break: impl FnMut(), quit: impl FnOnce()) {
        let mut retry = RETRY.0;
        loop {
            if self.wake.is_stopped() {
                return;
            }
            if self.hand_over(&mut deliver) {
                retry = RETRY.0;
            }
            if self.queue.is_empty() && !self.open {
                return;
            }
            let timeout = (!self.queue.is_empty()).then_some(retry);
            match self.wait(timeout) {
                Ok(Ready { timed_out: true, .. }) => retry = (retry * 2).min(RETRY.1),
                Ok(Ready { woken, input, .. }) => {
                    if woken {
                        self.wake.clear();
                        retry = RETRY.0;
                    }
                    if input && self.read(&mut deliver, &mut send_break) == Some(EscapeAction::Quit) {
                        return quit();
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!("standard input is no longer read: {error}");
                    return;
                }
            }
        }
    }

    /// Offers the queue to the guest; whether it took anything.
    fn hand_over(&mut self, deliver: &mut impl FnMut(&[u8]) -> usize) -> bool {
        let mut any = false;
        loop {
            let front = self.queue.as_slices().0;
            let taken = if front.is_empty() { 0 } else { deliver(front).min(front.len()) };
            if taken == 0 {
                return any;
            }
            self.queue.drain(..taken);
            any = true;
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> rustix::io::Result<Ready> {
        let timeout = timeout.map(|time| Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() });
        let mut fds = [PollFd::new(&*self.wake, PollFlags::IN), PollFd::new(&self.input, PollFlags::IN)];
        let reading = self.open && self.queue.len() < QUEUE_LIMIT;
        let count = if reading { 2 } else { 1 };
        let ready = poll(&mut fds[..count], timeout.as_ref())?;
        Ok(Ready { timed_out: ready == 0, woken: !fds[0].revents().is_empty(), input: !fds[1].revents().is_empty() })
    }

    /// Reads once into the queue. Returns the quit action, which what follows it does not matter to; other actions are
    /// done here.
    fn read(
        &mut self,
        deliver: &mut impl FnMut(&[u8]) -> usize,
        send_break: &mut impl FnMut(),
    ) -> Option<EscapeAction> {
        let mut buffer = [0; 256];
        let room = buffer.len().min(QUEUE_LIMIT - self.queue.len());
        let count = match rustix::io::read(&self.input, &mut buffer[..room]) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return None,
            Err(error) => {
                // EIO is a terminal that hung up or belongs to another process group: the end of its input.
                if error != Errno::IO {
                    tracing::warn!("standard input is no longer read: {error}");
                }
                0
            }
        };
        if count == 0 {
            self.open = false;
        }
        for &byte in &buffer[..count] {
            match self.parser.as_mut().map_or(Typed::Guest(byte), |parser| parser.step(byte)) {
                Typed::Guest(byte) if self.in_console => {
                    if let Some(console) = &mut self.console {
                        console.typed(byte);
                    }
                }
                Typed::Guest(byte) => self.queue.push_back(byte),
                Typed::Nothing => {}
                Typed::Action(EscapeAction::Monitor) if self.console.is_some() => {
                    // What was typed before is for who was spoken to then, as far as there is room.
                    self.hand_over(deliver);
                    if let Some(console) = &mut self.console {
                        self.in_console = console.turn(self.in_console);
                    }
                }
                Typed::Action(EscapeAction::Break) => {
                    // Behind what was typed before, as far as there is room for that.
                    self.hand_over(deliver);
                    send_break();
                }
                Typed::Action(action) => {
                    // Without a standard error there is nobody to tell.
                    let notice = self.parser.as_ref().map(|parser| parser.notice(action)).unwrap_or_default();
                    let _ = io::stderr().write_all(notice.as_bytes());
                    if action == EscapeAction::Quit {
                        return Some(action);
                    }
                }
            }
        }
        None
    }
}

/// What the input thread was waiting for.
struct Ready {
    timed_out: bool,
    woken: bool,
    input: bool,
}

/// Called once, with the first error of a sink, from inside the guest's write: it may note the error and ask the machine
/// to stop, but must not wait for the machine. `ErrorKind::BrokenPipe` means that nobody reads any more, which ends a
/// program quietly (the machine ends with `OutputClosed`).
pub type OnSinkError = Box<dyn FnOnce(io::Error) + Send>;

/// A sink that writes to a file descriptor: all of the bytes, at once, waiting for room where it must.
pub struct FdSink {
    fd: OwnedFd,
    /// Taken by the first error, after which bytes are discarded.
    on_error: Option<OnSinkError>,
}

impl FdSink {
    /// A sink over `fd`.
    pub fn new(fd: OwnedFd, on_error: OnSinkError) -> Self {
        FdSink { fd, on_error: Some(on_error) }
    }
}

impl CharSink for FdSink {
    fn write(&mut self, bytes: &[u8]) {
        if self.on_error.is_none() {
            return;
        }
        if let Err(error) = write_all(self.fd.as_fd(), bytes)
            && let Some(on_error) = self.on_error.take()
        {
            on_error(error.into());
        }
    }
}

/// Standard output is shared with other processes and may be non-blocking on their account.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A sink that discards everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl CharSink for NullSink {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// Opens the output side of `chardev`, which `option` (as typed, such as `-serial`) names. Those with two sides are opened by
/// [`chardev::open`](crate::chardev::open).
pub fn open_sink(option: &str, chardev: &Chardev, on_error: OnSinkError) -> Result<Box<dyn CharSink>, HostError> {
    match chardev {
        Chardev::File(path) => {
            let file = open_output(option, path)?;
            Ok(Box::new(FdSink::new(file.into(), on_error)))
        }
        Chardev::Append(path) => {
            let file = append_output(option, path)?;
            Ok(Box::new(FdSink::new(file.into(), on_error)))
        }
        Chardev::Stdio { .. } => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            let stdout = stdout.map_err(|error| HostError::new(option, format!("standard output: {error}")))?;
            Ok(Box::new(FdSink::new(stdout, on_error)))
        }
        _ => Ok(Box::new(NullSink)),
    }
}

#[cfg(test)]
mod tests;
