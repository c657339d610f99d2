//! Semihosting: calls to the host by an EBREAK between two instructions that do nothing ("RISC-V Semihosting" 1.0; the calls are
//! those of "Semihosting for AArch32 and AArch64", 2024Q3). A program may print, read what is typed and end; files of the host
//! are not opened.

use std::sync::atomic::Ordering;

use mimus_softmmu::AccessFlags;

use super::cpu::Cpu;
use super::state::privilege;

/// The machine's side of the calls.
pub trait Host: Send {
    /// Takes what the program prints.
    fn write(&mut self, stream: Stream, bytes: &[u8]);
    /// Fills the beginning of `out` with what was typed; how many bytes that were, 0 at its end; `None` if there is nothing yet.
    fn read(&mut self, out: &mut [u8]) -> Option<usize>;
    /// The program ends with this code.
    fn exit(&mut self, code: u8);
    /// The program's name and arguments.
    fn command_line(&self) -> &[u8];
    /// Seconds since 1970-01-01 00:00 UTC.
    fn unix_time(&self) -> u64;
    /// Whether user mode may call, too.
    fn user_mode(&self) -> bool;
}

/// Where something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// By the calls for a debugger's console.
    Debug,
    /// Standard output.
    Output,
    /// Standard error output.
    Error,
}

/// `slli x0, x0, 0x1f`, `ebreak`, `srai x0, x0, 7`.
const MARK: [u32; 3] = [0x01f0_1013, 0x0010_0073, 0x4070_5013];

/// The most bytes that one call prints, reads or looks through.
const MOST: u64 = 1 << 16;
/// What most calls return when they fail.
const FAILED: u64 = u64::MAX;
/// Errors as the C library numbers them.
const EACCES: u64 = 13;
const EBADF: u64 = 9;
/// Nanoseconds of a tick of [`CLOCK`].
const CENTISECOND: u64 = 10_000_000;
/// The reason of an orderly end.
const APPLICATION_EXIT: u64 = 0x2_0026;

// Numbers of the calls.
const OPEN: u64 = 0x01;
const CLOSE: u64 = 0x02;
const WRITEC: u64 = 0x03;
const WRITE0: u64 = 0x04;
const WRITE: u64 = 0x05;
const READ: u64 = 0x06;
const READC: u64 = 0x07;
const ISERROR: u64 = 0x08;
const ISTTY: u64 = 0x09;
const CLOCK: u64 = 0x10;
const TIME: u64 = 0x11;
const ERRNO: u64 = 0x13;
const GET_CMDLINE: u64 = 0x15;
const HEAPINFO: u64 = 0x16;
const EXIT: u64 = 0x18;
const EXIT_EXTENDED: u64 = 0x20;
const ELAPSED: u64 = 0x30;
const TICKFREQ: u64 = 0x31;

/// Handles of `:tt`: what is typed, and both outputs.
const TYPED: u64 = 1;
const PRINTED: u64 = 2;
const COMPLAINED: u64 = 3;

/// The host's side and what the calls have left behind.
pub struct Semihosting {
    host: Box<dyn Host>,
    errno: u64,
}

impl Semihosting {
    /// Calls go to `host`.
    pub fn new(host: Box<dyn Host>) -> Semihosting {
        Semihosting { host, errno: 0 }
    }

    fn fail(&mut self, errno: u64) -> u64 {
        self.errno = errno;
        FAILED
    }
}

impl std::fmt::Debug for Semihosting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Semihosting").finish_non_exhaustive()
    }
}

impl Cpu {
    /// Does the call that the EBREAK at the program counter is, and goes on behind it; false if it is none. The call is made again
    /// if it waits for something.
    pub(crate) fn semihost(&mut self) -> bool {
        let Some(mut semihosting) = self.semihosting.take() else { return false };
        let allowed = self.state.privilege > privilege::USER || semihosting.host.user_mode();
        let is_call = allowed && self.is_marked();
        if is_call {
            let [call, argument] = [10, 11].map(|a: usize| self.state.x[a]);
            if let Some(result) = self.host_call(&mut semihosting, call, argument) {
                self.state.x[10] = result;
                self.executed();
            }
        }
        self.semihosting = Some(semihosting);
        is_call
    }

    /// Whether the EBREAK at the program counter is between its marks, all in one page.
    fn is_marked(&mut self) -> bool {
        let pc = self.state.pc;
        let places = MARK.into_iter().zip([pc.wrapping_sub(4), pc, pc.wrapping_add(4)]);
        let same_page = places.clone().all(|(_, at)| at >> 12 == pc >> 12 && at.wrapping_add(3) >> 12 == pc >> 12);
        same_page && places.into_iter().all(|(word, at)| self.fetched(at) == Some(word))
    }

    /// The instruction at `at`, in two halves since it may be aligned to two bytes.
    fn fetched(&mut self, at: u64) -> Option<u32> {
        let gpa = self.translate_fetch(at);
        if gpa.is_err() {
            self.take_back();
        }
        let mut bytes = [0; 4];
        self.mmu.ram.read_bytes(gpa.ok()?, &mut bytes).then(|| u32::from_le_bytes(bytes))
    }

    fn byte(&mut self, at: u64) -> Option<u8> {
        let value = self.core.read_in(self.core.bank, at, 1, AccessFlags::empty());
        if value.is_err() {
            self.take_back();
        }
        value.ok().map(|value| value as u8)
    }

    fn bytes(&mut self, at: u64, len: u64) -> Option<Vec<u8>> {
        (0..len.min(MOST)).map(|i| self.byte(at.wrapping_add(i))).collect()
    }

    /// Words of a call's parameter block.
    fn block<const N: usize>(&mut self, at: u64) -> Option<[u64; N]> {
        let bytes = self.bytes(at, 8 * N as u64)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(words)
    }

    /// Writes `bytes`; whether they could be written. Code among them is dropped, as by a store.
    fn put(&mut self, at: u64, bytes: &[u8]) -> bool {
        (0..).zip(bytes).all(|(i, &byte)| {
            let written = self.store_one(at.wrapping_add(i), 1, byte.into(), AccessFlags::empty());
            let failed = written == Err(mimus_ir::Stop::Fault);
            if failed {
                self.take_back();
            }
            !failed
        })
    }

    /// The result of a call; `None` if it waits.
    fn host_call(&mut self, s: &mut Semihosting, call: u64, argument: u64) -> Option<u64> {
        Some(match call {
            OPEN => self.open_terminal(s, argument).unwrap_or_else(|| s.fail(EACCES)),
            ISTTY => match self.block(argument) {
                Some([TYPED..=COMPLAINED]) => 1,
                _ => s.fail(EBADF),
            },
            CLOSE => 0,
            WRITEC => {
                if let Some(byte) = self.byte(argument) {
                    s.host.write(Stream::Debug, &[byte]);
                }
                call
            }
            WRITE0 => {
                let text: Vec<u8> =
                    (0..MOST).map_while(|i| self.byte(argument.wrapping_add(i)).filter(|byte| *byte != 0)).collect();
                s.host.write(Stream::Debug, &text);
                call
            }
            WRITE => self.print(s, argument).unwrap_or_else(|| s.fail(EBADF)),
            READ => {
                let Some([TYPED, to, len]) = self.block(argument) else { return Some(s.fail(EBADF)) };
                let mut bytes = vec![0; len.min(MOST) as usize];
                let count = if bytes.is_empty() { 0 } else { s.host.read(&mut bytes)? };
                bytes.truncate(count);
                if self.put(to, &bytes) { len - bytes.len() as u64 } else { s.fail(EBADF) }
            }
            READC => {
                let mut byte = [0];
                if s.host.read(&mut byte)? == 0 { FAILED } else { byte[0].into() }
            }
            ISERROR => self.block(argument).is_some_and(|[value]: [u64; 1]| (value as i64) < 0).into(),
            CLOCK => self.bus.nanoseconds() / CENTISECOND,
            TIME => s.host.unix_time(),
            ERRNO => s.errno,
            GET_CMDLINE => self.give_command_line(s, argument).unwrap_or(FAILED),
            // Four times 0: the program has to know by itself.
            HEAPINFO => match self.block(argument) {
                Some([at]) if self.put(at, &[0; 32]) => 0,
                _ => FAILED,
            },
            EXIT | EXIT_EXTENDED => {
                let code = match self.block(argument) {
                    Some([APPLICATION_EXIT, code]) => code as u8,
                    _ => 1,
                };
                s.host.exit(code);
                self.header.exit_request.store(1, Ordering::Release);
                call
            }
            ELAPSED => {
                let now = self.bus.nanoseconds();
                if self.put(argument, &now.to_le_bytes()) { 0 } else { FAILED }
            }
            TICKFREQ => 1_000_000_000,
            _ => {
                tracing::warn!(target: "unimp", "semihosting: no call {call:#x}");
                s.fail(EACCES)
            }
        })
    }

    /// Opens `:tt`, which is the only file: read, written or appended to by its mode.
    fn open_terminal(&mut self, s: &mut Semihosting, argument: u64) -> Option<u64> {
        let [name, mode, len] = self.block(argument)?;
        let name = self.bytes(name, len)?;
        if name != b":tt" {
            tracing::warn!(target: "unimp", "semihosting: files are not opened: '{}'", name.escape_ascii());
            return None;
        }
        s.errno = 0;
        match mode {
            0..4 => Some(TYPED),
            4..8 => Some(PRINTED),
            8..12 => Some(COMPLAINED),
            _ => None,
        }
    }

    /// Prints; how many bytes are left.
    fn print(&mut self, s: &mut Semihosting, argument: u64) -> Option<u64> {
        let [handle, from, len] = self.block(argument)?;
        let stream = match handle {
            PRINTED => Stream::Output,
            COMPLAINED => Stream::Error,
            _ => return None,
        };
        let bytes = self.bytes(from, len)?;
        s.host.write(stream, &bytes);
        Some(len - bytes.len() as u64)
    }

    /// Writes the command line and its length where the program wants them.
    fn give_command_line(&mut self, s: &mut Semihosting, argument: u64) -> Option<u64> {
        let [to, room] = self.block(argument)?;
        let line = s.host.command_line();
        let len = line.len() as u64;
        if len >= room {
            return None;
        }
        let text: Vec<u8> = line.iter().copied().chain([0]).collect();
        let done = self.put(to, &text) && self.put(argument.wrapping_add(8), &len.to_le_bytes());
        done.then_some(0)
    }
}
