//! The mouse behind the controller (IBM PS/2 Hardware Interface Technical Reference, "Mouse"), with the wheel and the two
//! more buttons that Microsoft's IntelliMouse and IntelliMouse Explorer have.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{ACK, RESEND};

/// Bytes that wait; movements add up meanwhile.
pub(super) const QUEUE_LIMIT: usize = 16;

/// Counts in a direction that are kept for a guest that does not read.
const FARTHEST: i32 = 4096;

/// Sample rates set in a row that make it tell of its wheel, and of its buttons 4 and 5.
const WHEEL_KNOCK: [u8; 3] = [200, 100, 80];
const BUTTONS_KNOCK: [u8; 3] = [200, 200, 80];

const PLAIN: u8 = 0;
const WHEEL: u8 = 3;
const FIVE_BUTTONS: u8 = 4;

/// What a user does with a mouse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MouseEvent {
    /// Counts to the right.
    pub dx: i32,
    /// Counts down.
    pub dy: i32,
    /// Steps of the wheel towards the user.
    pub dz: i32,
    /// Buttons that are down now: bit 0 the left one, 1 the right one, 2 the middle one, 3 and 4 those of the side.
    pub buttons: u8,
}

/// The mouse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mouse {
    queue: VecDeque<u8>,
    /// A command that waits for its parameter.
    command: Option<u8>,
    /// It reports by itself, once it may.
    stream: bool,
    reporting: bool,
    wrap: bool,
    scaling: bool,
    resolution: u8,
    rate: u8,
    /// The last sample rates set.
    knock: [u8; 3],
    id: u8,
    buttons: u8,
    /// Buttons as last reported.
    reported: u8,
    moved: [i32; 3],
}

impl Mouse {
    pub fn new() -> Mouse {
        Mouse {
            queue: VecDeque::new(),
            command: None,
            stream: true,
            reporting: false,
            wrap: false,
            scaling: false,
            resolution: 2,
            rate: 100,
            knock: [0; 3],
            id: PLAIN,
            buttons: 0,
            reported: 0,
            moved: [0; 3],
        }
    }

    pub fn is_well_formed(&self) -> bool {
        self.queue.len() <= QUEUE_LIMIT && self.moved.iter().all(|count| count.abs() <= FARTHEST)
    }

    /// The next byte for the controller.
    pub fn pop(&mut self) -> Option<u8> {
        if self.queue.is_empty() && self.stream && self.reporting {
            self.report_news();
        }
        self.queue.pop_front()
    }

    pub fn event(&mut self, event: MouseEvent) {
        for (sum, count) in self.moved.iter_mut().zip([event.dx, event.dy, event.dz]) {
            *sum = sum.saturating_add(count).clamp(-FARTHEST, FARTHEST);
        }
        self.buttons = event.buttons & 0x1f;
    }

    fn report_news(&mut self) {
        let seen = if self.id == FIVE_BUTTONS { 0x1f } else { 7 };
        let wheel = self.id != PLAIN && self.moved[2] != 0;
        if self.moved[0] != 0 || self.moved[1] != 0 || wheel || (self.buttons ^ self.reported) & seen != 0 {
            self.report();
        }
    }

    /// Takes as much of the movement along an axis as a packet can say.
    fn take(&mut self, axis: usize, low: i32, high: i32) -> i32 {
        let count = self.moved[axis].clamp(low, high);
        self.moved[axis] -= count;
        count
    }

    fn report(&mut self) {
        let dx = self.take(0, -256, 255);
        // Upwards is positive.
        let dy = -self.take(1, -255, 256);
        let sign = |count: i32, bit: u8| if count < 0 { bit } else { 0 };
        let first = 0x08 | self.buttons & 7 | sign(dx, 0x10) | sign(dy, 0x20);
        self.reported = self.buttons;
        self.answer(&[first, dx as u8, dy as u8]);
        match self.id {
            WHEEL => {
                let dz = self.take(2, -127, 127);
                self.answer(&[dz as u8]);
            }
            FIVE_BUTTONS => {
                let dz = self.take(2, -8, 7);
                self.answer(&[dz as u8 & 0xf | (self.buttons & 0x18) << 1]);
            }
            _ => self.moved[2] = 0,
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.queue.len() < QUEUE_LIMIT {
                self.queue.push_back(byte);
            }
        }
    }

    fn set_defaults(&mut self) {
        let (id, buttons) = (self.id, self.buttons);
        *self = Mouse { id, buttons, ..Mouse::new() };
    }

    /// The controller passes a byte on.
    pub fn write(&mut self, value: u8) {
        // A command interrupts what is being sent.
        self.queue.clear();
        if self.wrap && !matches!(value, 0xec | 0xff) {
            self.answer(&[value]);
            return;
        }
        match (self.command.take(), value) {
            (Some(0xe8), _) => {
                self.resolution = value & 3;
                self.answer(&[ACK]);
            }
            (Some(_), _) => self.set_rate(value),
            (None, 0xe6 | 0xe7) => {
                self.scaling = value == 0xe7;
                self.answer(&[ACK]);
            }
            (None, 0xe8 | 0xf3) => {
                self.command = Some(value);
                self.answer(&[ACK]);
            }
            (None, 0xe9) => {
                let flag = |on: bool, bit: u8| if on { bit } else { 0 };
                // The left button is bit 2 here, the right one bit 0.
                let buttons = (self.buttons & 1) << 2 | self.buttons >> 1 & 1 | self.buttons >> 1 & 2;
                let modes = flag(!self.stream, 0x40) | flag(self.reporting, 0x20) | flag(self.scaling, 0x10);
                self.answer(&[ACK, modes | buttons, self.resolution, self.rate]);
            }
            (None, 0xea | 0xf0) => {
                self.stream = value == 0xea;
                self.answer(&[ACK]);
            }
            (None, 0xeb) => {
                self.answer(&[ACK]);
                self.report();
            }
            (None, 0xec | 0xee) => {
                self.wrap = value == 0xee;
                self.answer(&[ACK]);
            }
            (None, 0xf2) => self.answer(&[ACK, self.id]),
            (None, 0xf4 | 0xf5) => {
                self.reporting = value == 0xf4;
                self.moved = [0; 3];
                self.answer(&[ACK]);
            }
            (None, 0xf6) => {
                self.set_defaults();
                self.answer(&[ACK]);
            }
            (None, 0xff) => {
                self.id = PLAIN;
                self.set_defaults();
                self.answer(&[ACK, 0xaa, self.id]);
            }
            (None, _) => self.answer(&[RESEND]),
        }
    }

    fn set_rate(&mut self, rate: u8) {
        self.rate = rate;
        self.knock = [self.knock[1], self.knock[2], rate];
        match self.knock {
            WHEEL_KNOCK if self.id == PLAIN => self.id = WHEEL,
            BUTTONS_KNOCK => self.id = FIVE_BUTTONS,
            _ => {}
        }
        self.answer(&[ACK]);
    }
}
