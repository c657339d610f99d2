//! The human monitor's line: what is typed, its echo, and the answers.

use std::io::{self, Write};
use std::sync::Arc;

use super::commands::{State, execute};
use super::server::{Flow, Session};
use crate::control::Control;
use mimus_host::terminal::Console;

/// Longest line in bytes; what goes beyond is not taken.
const LINE: usize = 4095;

/// Lines remembered.
const HISTORY: usize = 100;

const PROMPT: &str = "(qemu) ";

/// Where a sequence of an arrow key has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    Bracket,
}

/// One human monitor.
#[derive(Debug)]
pub(super) struct Hmp {
    control: Arc<Control>,
    line: Vec<u8>,
    escape: Escape,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    after_return: bool,
    /// Line of the history that is shown; its length for none.
    shown: usize,
    state: State,
}

impl Hmp {
    /// A monitor of the machine; what it begins with goes to `out`.
    pub(super) fn new(control: Arc<Control>, out: &mut Vec<u8>) -> Hmp {
        let banner =
            format!("mimus {} monitor - type 'help' for more information\r\n{PROMPT}", env!("CARGO_PKG_VERSION"));
        out.extend_from_slice(banner.as_bytes());
        Hmp { control, line: Vec::new(), escape: Escape::None, after_return: false, shown: 0, state: State::default() }
    }

    fn erase(&mut self, count: usize, out: &mut Vec<u8>) {
        for _ in 0..count {
            // The bytes of a character after the first take no place.
            while let Some(byte) = self.line.pop() {
                if byte & 0xc0 != 0x80 {
                    out.extend_from_slice(b"\x08 \x08");
                    break;
                }
            }
        }
    }

    fn show(&mut self, at: usize, out: &mut Vec<u8>) {
        self.erase(self.line.len(), out);
        self.shown = at.min(self.state.history.len());
        let line = self.state.history.get(self.shown).cloned().unwrap_or_default();
        out.extend_from_slice(line.as_bytes());
        self.line = line.into_bytes();
    }

    fn arrow(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'A' => self.show(self.shown.saturating_sub(1), out),
            b'B' => self.show(self.shown + 1, out),
            _ => {}
        }
    }

    fn enter(&mut self, out: &mut Vec<u8>) -> Flow {
        out.extend_from_slice(b"\r\n");
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let history = &mut self.state.history;
        if !line.trim().is_empty() && history.last() != Some(&line) {
            if history.len() == HISTORY {
                history.remove(0);
            }
            history.push(line.clone());
        }
        self.shown = history.len();
        let mut state = self.state.clone();
        let done = self.control.call(move |machine| {
            let text = execute(machine, &mut state, &line);
            (text, state)
        });
        let Ok((text, state)) = done else { return Flow::End };
        self.state = state;
        out.extend_from_slice(text.replace('\n', "\r\n").as_bytes());
        out.extend_from_slice(PROMPT.as_bytes());
        Flow::Go
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Flow {
        let feed = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
        match (std::mem::take(&mut self.escape), byte) {
            (Escape::None, 0x1b) => self.escape = Escape::Begun,
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Bracket,
            (Escape::Begun, _) => {}
            (Escape::Bracket, b'0'..=b'9' | b';') => self.escape = Escape::Bracket,
            (Escape::Bracket, _) => self.arrow(byte, out),
            (Escape::None, b'\n') if feed => {}
            (Escape::None, b'\r' | b'\n') => return self.enter(out),
            (Escape::None, 0x08 | 0x7f) => self.erase(1, out),
            // Ctrl-C and Ctrl-U.
            (Escape::None, 0x03 | 0x15) => self.erase(self.line.len(), out),
            // Ctrl-P and Ctrl-N.
            (Escape::None, 0x10) => self.arrow(b'A', out),
            (Escape::None, 0x0e) => self.arrow(b'B', out),
            (Escape::None, 0x20..) if self.line.len() < LINE => {
                self.line.push(byte);
                out.push(byte);
            }
            _ => {}
        }
        Flow::Go
    }
}

impl Session for Hmp {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        for &byte in bytes {
            if self.byte(byte, out) == Flow::End {
                return Flow::End;
            }
        }
        Flow::Go
    }
}

/// The human monitor behind Ctrl-A c, which shares the terminal with the guest.
pub(super) struct TerminalConsole {
    control: Arc<Control>,
    monitor: Option<Hmp>,
}

impl TerminalConsole {
    pub(super) fn new(control: Arc<Control>) -> TerminalConsole {
        TerminalConsole { control, monitor: None }
    }
}

fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    // The guest's own output finds out when nobody reads it.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

impl Console for TerminalConsole {
    fn enter(&mut self) {
        let mut out = Vec::new();
        match self.monitor {
            None => self.monitor = Some(Hmp::new(self.control.clone(), &mut out)),
            Some(_) => out.extend_from_slice(PROMPT.as_bytes()),
        }
        print(&[b"\r\n", &*out].concat());
    }

    fn typed(&mut self, byte: u8) {
        let mut out = Vec::new();
        if let Some(monitor) = &mut self.monitor {
            // The end of the machine ends the input, too.
            let _ = monitor.byte(byte, &mut out);
        }
        print(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimus_softmmu::kick::Kicker;

    fn monitor() -> Hmp {
        let mut out = Vec::new();
        let monitor = Hmp::new(Control::new(Kicker::new()), &mut out);
        assert!(out.ends_with(PROMPT.as_bytes()));
        monitor
    }

    #[test]
    fn a_line_is_edited_and_echoed() {
        let (mut monitor, mut out) = (monitor(), Vec::new());
        assert_eq!(monitor.input(b"infx\x7fo st\x1b[5~\x1bzz", &mut out), Flow::Go);
        assert_eq!((&*monitor.line, &*out), (&b"info stz"[..], &b"infx\x08 \x08o stz"[..]));
        monitor.input(b"\x15\x7f\xc3\xa4b\x08\x08", &mut out);
        assert!(monitor.line.is_empty());
    }

    #[test]
    fn no_line_is_longer_than_it_may_be() {
        let (mut monitor, mut out) = (monitor(), Vec::new());
        monitor.input(&vec![b'a'; 3 * LINE], &mut out);
        assert_eq!((monitor.line.len(), out.len()), (LINE, LINE));
    }

    #[test]
    fn the_end_of_the_machine_ends_the_monitor() {
        let (mut monitor, mut out) = (monitor(), Vec::new());
        monitor.state.history = vec!["stop".into(), "cont".into()];
        monitor.shown = 2;
        monitor.input(b"\x1b[A\x1b[A\x1b[B", &mut out);
        assert_eq!(monitor.line, b"cont");
        monitor.control.close();
        assert_eq!(monitor.input(b"\n", &mut out), Flow::End);
    }
}
