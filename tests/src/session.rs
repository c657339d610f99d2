//! A running `mimus`: what it prints is waited for, what is typed is sent, and it ends in time or is ended.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::files::program;

/// The longest wait between two looks at whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What Rust's runtime says of a panic, and the exit code that it brings.
const PANICKED: &str = "panicked at";
const PANIC_CODE: i32 = 101;

/// What SIGHUP does to a program when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// Ends it, as in a shell.
    Ends,
    /// Nothing, as under `nohup`.
    Ignored,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Everything it printed.
    pub text: String,
}

/// A `mimus` whose output and input are the test's. Dropping it kills it.
#[derive(Debug)]
pub struct Session {
    name: String,
    child: Child,
    /// What it prints, standard error included, is read here.
    output: OwnedFd,
    /// What it reads is written here.
    input: Option<OwnedFd>,
    /// Its terminal, as it sees it.
    tty: Option<OwnedFd>,
    bytes: Vec<u8>,
    /// How much of `bytes` has been waited for.
    seen: usize,
    closed: bool,
    /// When patience ends.
    end: Instant,
}

impl Session {
    /// Runs `mimus` with `args` over pipes. Whatever waits for it fails after `limit` in all.
    pub fn piped<S: AsRef<str>>(name: &str, args: &[S], limit: Duration) -> Session {
        Session::in_environment(name, &[], args, limit)
    }

    /// The same with `NAME=VALUE`s in its environment.
    pub fn in_environment<S: AsRef<str>>(name: &str, environment: &[&str], args: &[S], limit: Duration) -> Session {
        let (output, writer) = std::io::pipe().expect("a pipe");
        let (reader, input) = std::io::pipe().expect("a pipe");
        let mut command = with_signals(Hangup::Ends, environment, args);
        command.stdin(reader).stdout(writer.try_clone().expect("a pipe")).stderr(writer);
        let child = command.spawn().expect("mimus starts");
        Session::new(name, child, output.into(), Some(input.into()), None, limit)
    }

    /// The same on a pseudo-terminal of 80 columns and 24 lines, whose mode before is returned, too.
    pub fn on_terminal<S: AsRef<str>>(name: &str, args: &[S], hangup: Hangup, limit: Duration) -> (Session, Termios) {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
        grantpt(&user).expect("grantpt");
        unlockpt(&user).expect("unlockpt");
        let path = ptsname(&user, Vec::new()).expect("ptsname");
        let tty = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let tty = tty.expect("the pseudo-terminal opens");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&tty, size).expect("a terminal has a size");
        let before = tcgetattr(&tty).expect("a terminal has a mode");
        let stdio = || Stdio::from(tty.try_clone().expect("a descriptor"));
        let mut command = with_signals(hangup, &[], args);
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let child = command.spawn().expect("mimus starts");
        let input = user.try_clone().expect("a descriptor");
        (Session::new(name, child, user, Some(input), Some(tty), limit), before)
    }

    fn new(
        name: &str,
        child: Child,
        output: OwnedFd,
        input: Option<OwnedFd>,
        tty: Option<OwnedFd>,
        limit: Duration,
    ) -> Session {
        let end = Instant::now() + limit;
        Session { name: name.to_owned(), child, output, input, tty, bytes: Vec::new(), seen: 0, closed: false, end }
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The mode of its terminal.
    pub fn mode(&self) -> Termios {
        tcgetattr(self.tty.as_ref().expect("a session on a terminal")).expect("a terminal has a mode")
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let input = self.input.as_ref().expect("input that is open");
            match rustix::io::write(input, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.fail(&format!("cannot type {text:?}: {error}")),
            }
        }
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is a child that was not waited for");
    }

    /// Waits until `text` is printed after what was waited for last, and returns when it arrived.
    pub fn expect(&mut self, text: &str) -> Instant {
        loop {
            if let Some(at) = find(&self.bytes[self.seen..], text.as_bytes()) {
                self.seen += at + text.len();
                return Instant::now();
            }
            if self.closed {
                self.fail(&format!("it closed its output before it printed {text:?}"));
            }
            if !self.read(LOOK) && self.ended().is_some() && !self.read(Duration::ZERO) {
                self.fail(&format!("it ended before it printed {text:?}"));
            }
            if Instant::now() > self.end {
                self.fail(&format!("it did not print {text:?} in time"));
            }
        }
    }

    /// Waits for a line that begins with `prefix`, and returns the rest of it.
    pub fn line(&mut self, prefix: &str) -> String {
        self.expect(&format!("\n{prefix}"));
        let line = self.until("\n").trim().to_owned();
        // The next line begins with it.
        self.seen -= 1;
        line
    }

    /// Waits for `text`, and returns what was printed before it.
    pub fn until(&mut self, text: &str) -> String {
        let start = self.seen;
        self.expect(text);
        String::from_utf8_lossy(&self.bytes[start..self.seen - text.len()]).into_owned()
    }

    /// Waits for the end of a line, at most for `time`, and returns the line. Fails when the program has ended.
    pub fn next_line(&mut self, time: Duration) -> Option<String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.bytes[self.seen..].contains(&b'\n') {
                return Some(self.until("\n").trim_end().to_owned());
            }
            if !self.read(LOOK) && self.ended().is_some() {
                self.fail("it ended");
            }
        }
        None
    }

    /// Reads what it prints for that long.
    pub fn watch(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.closed {
                std::thread::sleep(left);
            } else {
                self.read(left.min(LOOK));
            }
        }
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for it to end.
    pub fn finish(mut self) -> Ended {
        self.wait()
    }

    /// Waits for it to end, and returns the mode that it left its terminal in.
    pub fn finish_terminal(mut self) -> (Ended, Termios) {
        let ended = self.wait();
        let mode = self.mode();
        (ended, mode)
    }

    fn wait(&mut self) -> Ended {
        loop {
            let status = self.ended();
            // Whatever it printed before it ended is there by now.
            let more = !self.closed && self.read(if status.is_some() { Duration::ZERO } else { LOOK });
            if let Some(status) = status.filter(|_| !more) {
                return self.over(status);
            }
            if self.closed {
                std::thread::sleep(LOOK);
            }
            if Instant::now() > self.end {
                self.fail("it did not end in time");
            }
        }
    }

    /// Waits for it to end, at most for `time`; then it is killed, which no panic is.
    pub fn finish_within(mut self, time: Duration) -> Ended {
        let until = Instant::now() + time;
        while self.running() && Instant::now() < until {
            self.watch(Duration::from_millis(5));
        }
        // Fails when it ended just now.
        let _ = self.child.kill();
        self.finish()
    }

    fn over(&mut self, status: ExitStatus) -> Ended {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        if text.contains(PANICKED) || status.code() == Some(PANIC_CODE) {
            self.fail("it panicked");
        }
        Ended { code: status.code(), signal: status.signal(), text }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Reads once, waiting for at most `time`; whether there was something.
    fn read(&mut self, time: Duration) -> bool {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return false,
            Ok(_) => {}
            Err(error) => self.fail(&format!("cannot wait for its output: {error}")),
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.output, &mut buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
            Err(error) => self.fail(&format!("cannot read its output: {error}")),
        }
        !self.closed
    }

    /// Panics with the end of what was printed.
    pub fn fail(&self, reason: &str) -> ! {
        const LINES: usize = 40;
        let text = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<&str> = text.lines().collect();
        let mut tail = String::new();
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            // Infallible: writing to a String.
            let _ = writeln!(tail, "    | {}", line.escape_debug());
        }
        panic!("{}: {reason}. Its last lines:\n{tail}", self.name);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Fails when it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mimus` with `args` and `environment`, and signals as `hangup` says, whatever they do to the test itself: what is ignored
/// stays so in a child.
fn with_signals<S: AsRef<str>>(hangup: Hangup, environment: &[&str], args: &[S]) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP,INT,QUIT,TERM,TSTP");
    if hangup == Hangup::Ignored {
        command.arg("--ignore-signal=HUP");
    }
    command.args(environment).arg(program()).args(args.iter().map(AsRef::as_ref));
    command
}

/// Where `what` is in `bytes`.
fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
