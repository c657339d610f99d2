//! Several devices and monitors on one character device (`mux=on`): all write to it, and one of them hears what is typed. The escape
//! key and `c` lead to the next.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimus_hw::CharSink;
use rustix::process::{Signal, getpid, kill_process};

use super::{CharThread, Deliver, Source};
use crate::config::Chardev;
use crate::error::HostError;
use crate::terminal::{EscapeAction, EscapeParser, OnSinkError, Typed};

/// Bytes that a monitor has said before anybody has turned to it, at most.
const HELD: usize = 64 << 10;

/// Who is on it.
struct Frontend {
    /// Gives it what is typed, once it takes any.
    deliver: Option<Deliver>,
    /// What it has said so far is shown when it is turned to first; `None` for what is shown at once.
    waiting: Arc<Mutex<Option<Vec<u8>>>>,
}

/// What is typed, and to whom.
#[derive(Default)]
struct Typing {
    frontends: Vec<Frontend>,
    focus: usize,
    parser: EscapeParser,
    /// Where it comes from, until somebody reads there.
    source: Option<Source>,
}

/// A device that is shared. Clones are the same.
#[derive(Clone)]
pub struct Mux(Arc<Shared>);

struct Shared {
    chardev: Chardev,
    /// Not held while a device's lock is taken, as that of `typing` may be.
    output: Mutex<Option<Box<dyn CharSink>>>,
    typing: Mutex<Typing>,
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mux").field(&self.0.chardev).finish()
    }
}

impl fmt::Display for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chardev.fmt(f)
    }
}

impl PartialEq for Mux {
    /// Two that are not open yet are equal when they share equal character devices.
    fn eq(&self, other: &Mux) -> bool {
        self.0.chardev == other.0.chardev
    }
}

impl Eq for Mux {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mux {
    /// Shares `chardev`, which is opened by its first user. `escape` is the key that leads to the next user.
    pub fn new(chardev: Chardev, escape: u8) -> Mux {
        let typing = Typing { parser: EscapeParser::new(escape), ..Typing::default() };
        Mux(Arc::new(Shared { chardev, output: Mutex::new(None), typing: Mutex::new(typing) }))
    }

    /// What is shared.
    pub fn chardev(&self) -> &Chardev {
        &self.0.chardev
    }

    /// Another one on it, who has what is typed from now on. A `quiet` one has it when it is turned to, and is not heard before.
    ///
    /// # Errors
    ///
    /// What the host refuses when the device is opened.
    pub fn attach(
        &self,
        option: &str,
        label: &str,
        quiet: bool,
        on_error: OnSinkError,
    ) -> Result<(Box<dyn CharSink>, Source), HostError> {
        let mut typing = lock(&self.0.typing);
        let mut output = lock(&self.0.output);
        if output.is_none() {
            let (sink, source) = super::open_as(option, label, &self.0.chardev, on_error)?;
            (*output, typing.source) = (Some(sink), source);
        }
        let number = typing.frontends.len();
        let waiting = Arc::new(Mutex::new(quiet.then(Vec::new)));
        typing.frontends.push(Frontend { deliver: None, waiting: waiting.clone() });
        if !quiet {
            typing.focus = number;
        }
        let voice = Voice { mux: self.clone(), waiting };
        Ok((Box::new(voice), Source { mux: Some((self.clone(), number)), ..Source::default() }))
    }

    /// Gives number `number` what is typed at it; the thread that reads it, if there was none yet.
    pub(super) fn connect(&self, number: usize, deliver: Deliver) -> io::Result<Option<CharThread>> {
        let source = {
            let mut typing = lock(&self.0.typing);
            if let Some(frontend) = typing.frontends.get_mut(number) {
                frontend.deliver = Some(deliver);
            }
            typing.source.take()
        };
        let own = self.clone();
        source.map(|source| CharThread::start(source, Box::new(move |bytes| own.typed(bytes)))).transpose()
    }

    /// Takes what is typed, as far as who it is for does.
    fn typed(&self, bytes: &[u8]) -> usize {
        let mut typing = lock(&self.0.typing);
        for (taken, &byte) in bytes.iter().enumerate() {
            let mut parser = typing.parser.clone();
            let Typing { frontends, focus, .. } = &mut *typing;
            match parser.step(byte) {
                Typed::Guest(byte) => {
                    let deliver = frontends.get_mut(*focus).and_then(|frontend| frontend.deliver.as_mut());
                    if deliver.is_some_and(|deliver| deliver(&[byte]) == 0) {
                        return taken;
                    }
                }
                Typed::Action(EscapeAction::Monitor) => {
                    *focus = (*focus + 1) % frontends.len().max(1);
                    let said = frontends.get(*focus).and_then(|frontend| lock(&frontend.waiting).take());
                    self.write(&said.unwrap_or_default());
                }
                // As from a terminal: an orderly end, by the process's own handler.
                Typed::Action(EscapeAction::Quit) => drop(kill_process(getpid(), Signal::INT)),
                Typed::Action(EscapeAction::Help) => self.write(parser.help().replace('\n', "\r\n").as_bytes()),
                // Its devices know breaks from a terminal only.
                Typed::Action(EscapeAction::Break) | Typed::Nothing => {}
            }
            typing.parser = parser;
        }
        bytes.len()
    }

    fn write(&self, bytes: &[u8]) {
        if let Some(output) = &mut *lock(&self.0.output) {
            output.write(bytes);
        }
    }
}

/// The output of one of those on it.
struct Voice {
    mux: Mux,
    waiting: Arc<Mutex<Option<Vec<u8>>>>,
}

impl CharSink for Voice {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(waiting) = &mut *lock(&self.waiting) {
            let room = HELD.saturating_sub(waiting.len());
            waiting.extend(bytes.iter().take(room));
            return;
        }
        self.mux.write(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::MonitorSocket;

    /// What one of them has heard.
    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<u8>>>);

    impl Ear {
        fn deliver(&self) -> Deliver {
            let own = self.0.clone();
            Box::new(move |bytes: &[u8]| {
                own.lock().unwrap().extend(bytes);
                bytes.len()
            })
        }

        fn heard(&self, text: &[u8]) {
            let end = Instant::now() + Duration::from_secs(20);
            while *self.0.lock().unwrap() != text {
                assert!(Instant::now() < end, "{:?}", self.0.lock().unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn one_hears_and_all_speak() {
        let path = std::env::temp_dir().join(format!("mimus-mux-{}", std::process::id()));
        let place = MonitorSocket::Unix { path: path.clone(), server: true, wait: false };
        let mux = Mux::new(Chardev::Socket(place), 0x14);
        let attach = |quiet| mux.attach("-serial", "-serial", quiet, Box::new(|_| panic!("no error"))).unwrap();
        let (mut serial, typed) = attach(false);
        let (mut monitor, commands) = attach(true);
        let (ear, other) = (Ear::default(), Ear::default());
        let threads = [CharThread::start(typed, ear.deliver()), CharThread::start(commands, other.deliver())];
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"ls\x01").unwrap();
        ear.heard(b"ls\x01");
        monitor.write(b"(qemu) ");
        serial.write(b"file\n");
        let mut read = |len| {
            let mut bytes = vec![0; len];
            client.read_exact(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(read(5), "file\n", "the monitor is not heard yet");
        client.write_all(b"\x14cstop\x14c!\x14\x14").unwrap();
        other.heard(b"stop");
        ear.heard(b"ls\x01!\x14");
        let mut bytes = [0; 7];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"(qemu) ");
        monitor.write(b"ok");
        client.read_exact(&mut bytes[..2]).unwrap();
        client.write_all(b"\x14h").unwrap();
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\r\nCtrl-");
        drop(threads);
    }
}
