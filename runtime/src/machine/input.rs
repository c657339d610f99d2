//! What a guest's serial port and consoles are typed at by.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::{Board, Runner};
use crate::chardev::{CharThread, Deliver, Source};
use crate::config::Chardev;
use crate::monitor;
use crate::terminal::{ESCAPE, InputThread, RawTerminal};

/// Where a device's input comes from, and how it gets it.
pub(super) struct Input {
    /// What the device is connected to.
    pub(super) chardev: Chardev,
    /// That, unless it is the terminal or has no input.
    pub(super) source: Option<Source>,
    /// The way to the device.
    pub(super) deliver: Deliver,
}

/// The threads that bring it.
#[derive(Default)]
pub(super) struct Inputs {
    // The thread goes before the terminal that it uses.
    pub(super) stdin: Option<InputThread>,
    pub(super) terminal: Option<RawTerminal>,
    others: Vec<CharThread>,
}

impl<B: Board> Runner<B> {
    /// Connects the devices with what they are typed at by.
    pub(super) fn connect_inputs(&mut self) -> Result<()> {
        for Input { chardev, source, deliver } in self.board.inputs() {
            match (chardev.plain(), source) {
                (Chardev::Stdio { mux }, _) => self.connect_stdin(*mux, deliver)?,
                (_, Some(source)) => {
                    let thread =
                        CharThread::start(source, deliver).context("cannot start a character device's thread")?;
                    self.inputs.others.push(thread);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn connect_stdin(&mut self, mux: bool, deliver: Deliver) -> Result<()> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            self.inputs.terminal = RawTerminal::enter(&stdin, mux).context("cannot set up the terminal")?;
        }
        let (requests, kicker) = (self.requests.clone(), self.kicker.clone());
        let quit = move || {
            requests.quit.store(true, Ordering::Release);
            kicker.kick();
        };
        let fd = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).context("standard input")?;
        let console = mux.then(|| monitor::console(self.control.clone()));
        let escapes = mux.then(|| self.config.settings.escape_key.unwrap_or(ESCAPE));
        let input = InputThread::spawn(fd, console, escapes, deliver, self.board.send_break(), quit);
        self.inputs.stdin = Some(input.context("standard input")?);
        Ok(())
    }
}
