//! The host's side of semihosting: what a program prints, reads and ends with.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use mimus_frontend::riscv::semihost::{Host, Semihosting, Stream};
use mimus_hw::CharSink;

use super::Devices;
use crate::config::{self, Config};
use crate::machine::Parts;
use crate::machine::input::Input;

/// Characters that wait to be read.
const INPUT: usize = 256;

/// How long a call sleeps that waits for a character, before it is made again.
const PATIENCE: Duration = Duration::from_millis(1);

/// What was typed, between the thread that brings it and the vCPU's.
type Typed = Arc<Mutex<VecDeque<u8>>>;

struct Calls {
    devices: Arc<Devices>,
    /// The character device that all goes to; the process's own outputs if there is none.
    chardev: Option<(Box<dyn CharSink>, Typed)>,
    command_line: Vec<u8>,
    user_mode: bool,
}

/// What a vCPU is to be given for semihosting, and what is typed at it by.
pub(super) fn open(
    parts: &Parts,
    wanted: &config::Semihosting,
    devices: &Arc<Devices>,
) -> Result<(Semihosting, Option<Input>)> {
    let (mut chardev, mut input) = (None, None);
    if let Some(target) = &wanted.chardev {
        let (sink, source) = parts.open("-semihosting-config", target)?;
        let typed = Typed::default();
        chardev = Some((sink, typed.clone()));
        let deliver = move |bytes: &[u8]| {
            let mut typed = typed.lock().unwrap_or_else(PoisonError::into_inner);
            let count = bytes.len().min(INPUT.saturating_sub(typed.len()));
            typed.extend(bytes.iter().take(count));
            count
        };
        input = Some(Input { chardev: target.clone(), source, deliver: Box::new(deliver) });
    }
    let command_line = command_line(parts.config, wanted).into_bytes();
    let calls = Calls { devices: devices.clone(), chardev, command_line, user_mode: wanted.user_mode };
    Ok((Semihosting::new(Box::new(calls)), input))
}

/// The arguments, or the kernel's name and command line if there are none.
fn command_line(config: &Config, wanted: &config::Semihosting) -> String {
    if !wanted.arguments.is_empty() {
        return wanted.arguments.join(" ");
    }
    let kernel = config.kernel.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    if config.append.is_empty() { kernel } else { format!("{kernel} {}", config.append) }
}

impl Host for Calls {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some((sink, _)) = &mut self.chardev {
            return sink.write(bytes);
        }
        // Nobody is told when they are gone: the program goes on.
        let _ = match stream {
            Stream::Output => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Debug | Stream::Error => std::io::stderr().write_all(bytes),
        };
    }

    fn read(&mut self, out: &mut [u8]) -> Option<usize> {
        let Some((_, typed)) = &self.chardev else { return Some(0) };
        let mut typed = typed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = out.len().min(typed.len());
        if count == 0 {
            drop(typed);
            std::thread::sleep(PATIENCE);
            return None;
        }
        for (out, byte) in out.iter_mut().zip(typed.drain(..count)) {
            *out = byte;
        }
        Some(count)
    }

    fn exit(&mut self, code: u8) {
        self.devices.access(|virt, _| virt.end(code));
    }

    fn command_line(&self) -> &[u8] {
        &self.command_line
    }

    fn unix_time(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn user_mode(&self) -> bool {
        self.user_mode
    }
}
