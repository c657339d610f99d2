//! The keyboard behind the controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)").

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{ACK, RESEND};
use crate::keys::{Key, ScanCodes};

/// Bytes of keys that wait for a guest that does not read; more keys are lost.
const KEYS_LIMIT: usize = 48;
/// Bytes in all: answers come on top.
pub(super) const QUEUE_LIMIT: usize = KEYS_LIMIT + 16;

/// 10.9 times a second, after half a second.
const DEFAULT_TYPEMATIC: u8 = 0x2b;

const TEST_PASSED: u8 = 0xaa;
const ECHO: u8 = 0xee;

/// The keyboard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Keyboard {
    queue: VecDeque<u8>,
    /// A command that waits for its parameter.
    command: Option<u8>,
    scan_codes: ScanCodes,
    /// What "resend" sends.
    last: u8,
    /// Keys are reported.
    scanning: bool,
    leds: u8,
    /// Delay and rate as the command sets them.
    typematic: u8,
    /// The key that repeats, and when it does so next, in guest nanoseconds.
    repeating: Option<(Key, u64)>,
    /// Keys that are down, bit by number.
    down: u128,
}

impl Keyboard {
    pub fn new() -> Keyboard {
        Keyboard {
            queue: VecDeque::new(),
            command: None,
            scan_codes: ScanCodes::Two,
            last: 0,
            scanning: true,
            leds: 0,
            typematic: DEFAULT_TYPEMATIC,
            repeating: None,
            down: 0,
        }
    }

    pub fn is_well_formed(&self) -> bool {
        let known = |(key, _): (Key, u64)| key.number() < Key::COUNT;
        self.queue.len() <= QUEUE_LIMIT && self.repeating.is_none_or(known)
    }

    /// The next byte for the controller.
    pub fn pop(&mut self) -> Option<u8> {
        self.queue.pop_front()
    }

    /// How many bytes of keys it can take before it loses some.
    pub fn room(&self) -> usize {
        KEYS_LIMIT.saturating_sub(self.queue.len())
    }

    /// Bit 0 is Scroll Lock's light, bit 1 Num Lock's, bit 2 Caps Lock's.
    pub fn leds(&self) -> u8 {
        self.leds
    }

    fn answer(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.last = byte;
            if self.queue.len() < QUEUE_LIMIT {
                self.queue.push_back(byte);
            }
        }
    }

    /// A key is pressed or released at `now`. With `translated`, the controller makes set 1 of set 2.
    pub fn key(&mut self, now: u64, key: Key, down: bool, translated: bool) {
        let bit = 1u128 << key.number();
        let was_down = self.down & bit != 0;
        if was_down == down {
            // The keyboard repeats by itself.
            return;
        }
        self.down ^= bit;
        if down {
            self.repeating = key.repeats().then_some((key, now.saturating_add(self.delay())));
        } else if self.repeating.is_some_and(|(repeating, _)| repeating == key) {
            self.repeating = None;
        }
        self.send(key, down, translated);
    }

    fn send(&mut self, key: Key, down: bool, translated: bool) {
        let set = if translated { ScanCodes::One } else { self.scan_codes };
        let codes = key.codes(set, down);
        // All of a key or nothing.
        if self.scanning && self.queue.len() + codes.len() <= KEYS_LIMIT {
            self.queue.extend(codes);
        }
    }

    /// Nanoseconds until a key begins to repeat.
    fn delay(&self) -> u64 {
        (u64::from(self.typematic >> 5 & 3) + 1) * 250_000_000
    }

    /// Nanoseconds from one time to the next: (8 + A) * 2^B / 240 seconds.
    fn period(&self) -> u64 {
        ((8 + u64::from(self.typematic & 7)) << (self.typematic >> 3 & 3)) * 1_000_000_000 / 240
    }

    /// Repeats the key that is held, if its time has come.
    pub fn advance(&mut self, now: u64, translated: bool) {
        if let Some((key, due)) = self.repeating.filter(|(_, due)| *due <= now) {
            // One at a time: a guest that is late does not get all that it has missed.
            self.repeating = Some((key, due.max(now).saturating_add(self.period())));
            if self.queue.is_empty() {
                self.send(key, true, translated);
            }
        }
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.repeating.filter(|_| self.scanning).map(|(_, due)| due)
    }

    fn set_defaults(&mut self) {
        self.scan_codes = ScanCodes::Two;
        self.typematic = DEFAULT_TYPEMATIC;
        self.repeating = None;
    }

    /// The controller passes a byte on.
    pub fn write(&mut self, value: u8, translated: bool) {
        match (self.command.take(), value) {
            // Scan code set: 0 asks for the current one. Set 3 is not there.
            (Some(0xf0), 0) => {
                // The controller translates this byte like a scan code.
                let set = match (self.scan_codes, translated) {
                    (ScanCodes::One, false) => 1,
                    (ScanCodes::One, true) => 0x43,
                    (ScanCodes::Two, false) => 2,
                    (ScanCodes::Two, true) => 0x41,
                };
                self.answer(&[ACK, set]);
            }
            (Some(0xf0), 1 | 2) => {
                self.scan_codes = if value == 1 { ScanCodes::One } else { ScanCodes::Two };
                self.answer(&[ACK]);
            }
            (Some(0xf0), _) => self.answer(&[RESEND]),
            (Some(0xed), _) => {
                self.leds = value & 7;
                self.answer(&[ACK]);
            }
            (Some(_), _) => {
                self.typematic = value & 0x7f;
                self.answer(&[ACK]);
            }
            (None, 0xed | 0xf0 | 0xf3) => {
                self.command = Some(value);
                self.answer(&[ACK]);
            }
            (None, 0xee) => self.answer(&[ECHO]),
            (None, 0xf2) => self.answer(&[ACK, 0xab, if translated { 0x41 } else { 0x83 }]),
            (None, 0xf4) => {
                self.scanning = true;
                self.answer(&[ACK]);
            }
            (None, 0xf5 | 0xf6) => {
                self.set_defaults();
                self.scanning = value == 0xf6;
                self.answer(&[ACK]);
            }
            // How keys behave in set 3.
            (None, 0xf7..=0xfd) => self.answer(&[ACK]),
            (None, 0xfe) => self.answer(&[self.last]),
            (None, 0xff) => {
                self.queue.clear();
                self.set_defaults();
                self.scanning = true;
                self.leds = 0;
                self.answer(&[ACK, TEST_PASSED]);
            }
            (None, _) => self.answer(&[RESEND]),
        }
    }
}
