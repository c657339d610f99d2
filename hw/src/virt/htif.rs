//! The board's side of the host-target interface: where its words are, and what is done about them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::{Htif, Virt, VirtEvent};
use crate::htif;

/// How often the words in memory are looked at, in nanoseconds.
const PERIOD: u64 = 1_000_000;
/// The same after a request, for one of the longer periods.
const QUICK_PERIOD: u64 = 10_000;
/// Characters that wait to be asked for.
const INPUT: usize = 64;
/// In an answer: there is a character.
const CHARACTER: u64 = 0x100;

/// The interface's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Port {
    /// Where in RAM the words are; nowhere, and they are registers where the board has those.
    pub(super) memory: Option<Htif>,
    /// What is in the register from the guest.
    tohost: u64,
    /// What is in the register to the guest.
    fromhost: u64,
    /// A request for a character that was not answered yet.
    asked: Option<u64>,
    input: VecDeque<u8>,
    /// Until when the words in memory are looked at more often, in guest nanoseconds.
    busy_until: u64,
}

impl Port {
    /// As after a reset, with the words where they are.
    pub(super) fn reset(&mut self) {
        *self = Port { memory: self.memory, ..Port::default() };
    }

    /// Whether a restored state keeps to its bound.
    pub(super) fn is_well_formed(&self) -> bool {
        self.input.len() <= INPUT
    }

    /// When the words in memory are to be looked at next; never where they are registers. A program that has just asked for
    /// something is likely to ask again.
    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        let period = if now < self.busy_until { QUICK_PERIOD } else { PERIOD };
        self.memory.map(|_| now.saturating_add(period))
    }

    /// How many characters can be received now.
    pub(super) fn room(&self) -> usize {
        INPUT.saturating_sub(self.input.len())
    }

    /// Receives as many of `bytes` as there is room for; how many that were.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.input.extend(bytes.iter().take(count));
        count
    }

    /// Reads the registers: the word to the guest, then the one from it.
    pub(super) fn read(&self, offset: u64, size: u8) -> u64 {
        let word = match offset & !7 {
            0 => self.fromhost,
            8 => self.tohost,
            _ => 0,
        };
        match (size, offset & 7) {
            (8, 0) => word,
            (4, at @ (0 | 4)) => word >> (8 * at) & 0xffff_ffff,
            _ => 0,
        }
    }

    /// Writes the registers; whether the guest has asked for something, as it has with the upper half of its word.
    pub(super) fn write(&mut self, offset: u64, size: u8, value: u64) -> bool {
        let from_guest = match offset & !7 {
            0 => false,
            8 => true,
            _ => return false,
        };
        let word = if from_guest { &mut self.tohost } else { &mut self.fromhost };
        *word = match (size, offset & 7) {
            (8, 0) => value,
            (4, 0) => *word & !0xffff_ffff | value & 0xffff_ffff,
            (4, 4) => *word & 0xffff_ffff | value << 32,
            _ => return false,
        };
        from_guest && (size == 8 || offset & 7 == 4)
    }
}

impl Virt {
    /// The word from the guest.
    fn tohost(&self) -> u64 {
        let port = &self.devices.htif;
        match port.memory {
            Some(Htif { tohost, .. }) => self.mem.read_obj::<u64>(GuestAddress(tohost)).map_or(0, u64::from_le),
            None => port.tohost,
        }
    }

    /// The word to the guest; `None` if there is none.
    fn fromhost(&self) -> Option<u64> {
        let port = &self.devices.htif;
        match port.memory {
            Some(Htif { fromhost, .. }) => self.mem.read_obj::<u64>(GuestAddress(fromhost?)).ok().map(u64::from_le),
            None => Some(port.fromhost),
        }
    }

    fn set_words(&mut self, tohost: Option<u64>, fromhost: Option<u64>) {
        let port = &mut self.devices.htif;
        let Some(memory) = port.memory else {
            port.tohost = tohost.unwrap_or(port.tohost);
            port.fromhost = fromhost.unwrap_or(port.fromhost);
            return;
        };
        for (value, at) in [(tohost, Some(memory.tohost)), (fromhost, memory.fromhost)] {
            if let (Some(value), Some(at)) = (value, at) {
                // The words were RAM when the program was loaded.
                let _ = self.mem.write_obj(value.to_le(), GuestAddress(at));
            }
        }
    }

    /// Does what a program asks for by the interface.
    pub(super) fn poll_htif(&mut self) {
        let word = self.tohost();
        let request = htif::request(word);
        if request != htif::Request::Nothing {
            self.devices.htif.busy_until = self.devices.now.saturating_add(PERIOD);
        }
        let reply = match request {
            htif::Request::Nothing => None,
            htif::Request::Exit(0) => return self.devices.request(VirtEvent::PowerOff),
            htif::Request::Exit(code) => return self.devices.request(VirtEvent::Exit(code)),
            htif::Request::Put(byte) => {
                self.serial.send(&[byte]);
                Some(1)
            }
            htif::Request::Call(at) => Some(self.htif_call(at)),
            htif::Request::Get => {
                self.devices.htif.asked = Some(word);
                self.set_words(Some(0), None);
                None
            }
            htif::Request::Unknown => {
                tracing::debug!(word, "unknown request in tohost");
                Some(0)
            }
        };
        if let Some(reply) = reply {
            self.set_words(Some(0), Some(htif::answer(word, reply)));
        }
        self.answer_htif();
    }

    /// Gives the program the character that it has asked for, if there is one and it has taken the answer before.
    pub(super) fn answer_htif(&mut self) {
        let port = &self.devices.htif;
        if port.input.is_empty() || port.asked.is_none() || self.fromhost() != Some(0) {
            return;
        }
        let port = &mut self.devices.htif;
        if let (Some(word), Some(byte)) = (port.asked.take(), port.input.pop_front()) {
            self.set_words(None, Some(htif::answer(word, CHARACTER | u64::from(byte))));
        }
    }

    /// Does a system call; what it returns, which is also put in place of its number.
    fn htif_call(&mut self, at: u64) -> u64 {
        let mut arguments = [0; htif::CALL_SIZE];
        let printed =
            self.mem.read_slice(&mut arguments, GuestAddress(at)).ok().and_then(|()| htif::printed(&arguments));
        let mut result = u64::MAX;
        if let Some((address, len)) = printed {
            let mut text = vec![0; len as usize];
            if self.mem.read_slice(&mut text, GuestAddress(address)).is_ok() {
                self.serial.send(&text);
                result = len;
            }
        }
        let _ = self.mem.write_obj(result.to_le(), GuestAddress(at));
        1
    }
}
