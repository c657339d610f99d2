//! Input of a guest's serial ports and consoles: the threads that read it, and the devices that it is brought to.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use super::{Board, Runner};
use crate::monitor;
use mimus_host::chardev::{CharThread, Deliver, Source};
use mimus_host::config::Chardev;
use mimus_host::terminal::{Console, ESCAPE, InputThread, RawTerminal};

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

/// Which of the devices on a terminal hears what is typed. Clones are the same.
#[derive(Clone)]
struct Round {
    at: Arc<AtomicUsize>,
    devices: usize,
}

impl Round {
    /// The last one of so many hears it first, as QEMU has it.
    fn of(devices: usize) -> Round {
        Round { at: Arc::new(AtomicUsize::new(devices.saturating_sub(1))), devices }
    }

    fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// Goes on to the next one; false behind the last, where the first comes next.
    fn next(&self) -> bool {
        let next = (self.at() + 1) % self.devices.max(1);
        self.at.store(next, Ordering::Relaxed);
        next != 0
    }
}

/// The devices on a terminal, and the monitor behind the last.
struct Turns {
    monitor: Box<dyn Console>,
    round: Round,
}

impl Console for Turns {
    fn enter(&mut self) {
        self.monitor.enter();
    }

    fn typed(&mut self, byte: u8) {
        self.monitor.typed(byte);
    }

    fn turn(&mut self, within: bool) -> bool {
        if within || self.round.next() {
            return false;
        }
        self.enter();
        true
    }
}

impl<B: Board> Runner<B> {
    /// Connects the devices with what they are typed at by.
    pub(super) fn connect_inputs(&mut self) -> Result<()> {
        let (mut devices, mut shared) = (Vec::new(), false);
        for Input { chardev, source, deliver } in self.board.inputs() {
            match (chardev.plain(), source) {
                (Chardev::Stdio { mux }, _) => {
                    shared = *mux;
                    devices.push(deliver);
                }
                (_, Some(source)) => {
                    let thread =
                        CharThread::start(source, deliver).context("cannot start a character device's thread")?;
                    self.inputs.others.push(thread);
                }
                _ => {}
            }
        }
        if devices.is_empty() { Ok(()) } else { self.connect_stdin(shared, devices) }
    }

    /// Connects `devices` with the terminal, of which one hears what is typed; with `mux` the monitor is among them.
    fn connect_stdin(&mut self, mux: bool, mut devices: Vec<Deliver>) -> Result<()> {
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
        let round = Round::of(devices.len());
        let console: Option<Box<dyn Console>> = match mux {
            true => Some(Box::new(Turns { monitor: monitor::console(self.control.clone()), round: round.clone() })),
            false => None,
        };
        let deliver = move |bytes: &[u8]| devices.get_mut(round.at()).map_or(bytes.len(), |device| device(bytes));
        let escapes = mux.then(|| self.config.settings.escape_key.unwrap_or(ESCAPE));
        let input = InputThread::spawn(fd, console, escapes, deliver, self.board.send_break(), quit);
        self.inputs.stdin = Some(input.context("standard input")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Monitor(usize);

    impl Console for Monitor {
        fn enter(&mut self) {
            self.0 += 1;
        }

        fn typed(&mut self, _: u8) {}
    }

    #[test]
    fn the_monitor_comes_behind_the_last_device() {
        for (devices, expected) in
            [(1, vec![(true, 0), (false, 0), (true, 0)]), (2, vec![(true, 0), (false, 0), (false, 1), (true, 0)])]
        {
            let round = Round::of(devices);
            assert_eq!(round.at(), devices - 1);
            let mut turns = Turns { monitor: Box::new(Monitor(0)), round: round.clone() };
            let mut within = false;
            let seen: Vec<_> = expected
                .iter()
                .map(|_| {
                    within = turns.turn(within);
                    (within, round.at())
                })
                .collect();
            assert_eq!(seen, expected);
        }
    }
}
