//! The 8042 keyboard controller with a keyboard and a mouse (IBM PS/2 hardware interface technical reference, "Keyboard and
//! auxiliary device controller"), and the fast A20 and reset port 0x92.

mod keyboard;
mod mouse;

use crate::fabric::{Drives, IrqLine, Timer};
use crate::keys::Key;
use keyboard::Keyboard;
use mouse::Mouse;
pub use mouse::MouseEvent;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_AUX: u8 = 1 << 5;

const MODE_IRQ1: u8 = 1 << 0;
const MODE_IRQ12: u8 = 1 << 1;
const MODE_SYSTEM: u8 = 1 << 2;
const MODE_KEYBOARD_OFF: u8 = 1 << 4;
const MODE_AUX_OFF: u8 = 1 << 5;
const MODE_TRANSLATE: u8 = 1 << 6;

const OUTPUT_NO_RESET: u8 = 1 << 0;
/// Lines of the output port that nothing pulls low: those of keyboard and mouse.
const OUTPUT_ONES: u8 = 0xcc;
const OUTPUT_A20: u8 = 1 << 1;
const OUTPUT_IRQ1: u8 = 1 << 4;
const OUTPUT_IRQ12: u8 = 1 << 5;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;

/// Bytes from the controller itself that wait behind the output buffer; more are lost.
const QUEUE_LIMIT: usize = 16;

/// A byte on its way to the guest, with its source's status bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    byte: u8,
    status: u8,
}

/// The keyboard controller, the keyboard and the mouse behind it, and the A20 gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct I8042 {
    mode: u8,
    ram: [u8; 32],
    output: Option<Answer>,
    last_data: u8,
    queue: VecDeque<Answer>,
    /// A controller command that waits for its data byte.
    command: Option<u8>,
    keyboard: Keyboard,
    mouse: Mouse,
    a20: bool,
    port_92: u8,
    reset_requested: bool,
}

/// What the keyboard controller is wired to.
pub(crate) struct I8042Handles {
    /// The keyboard's interrupt line.
    pub(crate) irq1: IrqLine,
    /// The mouse's.
    pub(crate) irq12: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for I8042 {
    type Handles = I8042Handles;

    fn drive(&mut self, handles: &mut I8042Handles) {
        self.drive_irqs(handles);
        // The lines have fallen before the next byte raises one.
        self.refill();
        self.drive_irqs(handles);
        handles.timer.set(self.next_deadline());
    }
}

impl I8042 {
    fn drive_irqs(&self, handles: &mut I8042Handles) {
        handles.irq1.set(self.irq1());
        handles.irq12.set(self.irq12());
    }

    /// The controller as firmware leaves it: keyboard interrupt and translation on, A20 open.
    pub(crate) fn new() -> Self {
        I8042 {
            mode: MODE_IRQ1 | MODE_SYSTEM | MODE_AUX_OFF | MODE_TRANSLATE,
            ram: [0; 32],
            output: None,
            last_data: 0,
            queue: VecDeque::new(),
            command: None,
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            a20: true,
            port_92: 0,
            reset_requested: false,
        }
    }

    /// Whether a restored state keeps to the queues' bounds.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.queue.len() <= QUEUE_LIMIT && self.keyboard.is_well_formed() && self.mouse.is_well_formed()
    }

    pub(crate) fn a20_enabled(&self) -> bool {
        self.a20
    }

    /// Whether the guest pulled the reset line since the last call.
    pub(crate) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset_requested)
    }

    /// Moves the next waiting byte into the output buffer.
    fn refill(&mut self) {
        if self.output.is_some() {
            return;
        }
        self.output = self.queue.pop_front();
        if self.output.is_none() && self.mode & MODE_KEYBOARD_OFF == 0 {
            self.output = self.keyboard.pop().map(|byte| Answer { byte, status: 0 });
        }
        if self.output.is_none() && self.mode & MODE_AUX_OFF == 0 {
            self.output = self.mouse.pop().map(|byte| Answer { byte, status: STATUS_AUX });
        }
    }

    fn translates(&self) -> bool {
        self.mode & MODE_TRANSLATE != 0
    }

    /// A key is pressed or released.
    pub(crate) fn key(&mut self, now: u64, key: Key, down: bool) {
        self.keyboard.key(now, key, down, self.translates());
    }

    /// How many bytes of keys the keyboard can take before it loses some.
    pub(crate) fn keyboard_room(&self) -> usize {
        self.keyboard.room()
    }

    /// The mouse is moved, or its buttons are.
    pub(crate) fn mouse(&mut self, event: MouseEvent) {
        self.mouse.event(event);
    }

    /// The keyboard's lights: bit 0 is Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    pub(crate) fn leds(&self) -> u8 {
        self.keyboard.leds()
    }

    /// Brings the keyboard to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        self.keyboard.advance(now, self.translates());
    }

    /// When a key that is held repeats next, in guest nanoseconds.
    fn next_deadline(&self) -> Option<u64> {
        self.keyboard.next_deadline()
    }

    /// The keyboard's interrupt line.
    fn irq1(&self) -> bool {
        self.mode & MODE_IRQ1 != 0 && self.output.is_some_and(|answer| answer.status & STATUS_AUX == 0)
    }

    /// The auxiliary device's interrupt line.
    fn irq12(&self) -> bool {
        self.mode & MODE_IRQ12 != 0 && self.output.is_some_and(|answer| answer.status & STATUS_AUX != 0)
    }

    /// Reads port 0x60.
    pub(crate) fn read_data(&mut self) -> u8 {
        if let Some(answer) = self.output.take() {
            self.last_data = answer.byte;
        }
        self.last_data
    }

    /// Reads port 0x64.
    pub(crate) fn read_status(&self) -> u8 {
        // The last write was a command: so it always was on QEMU.
        let mut status = STATUS_UNLOCKED | STATUS_COMMAND;
        if let Some(answer) = self.output {
            status |= STATUS_OUTPUT_FULL | answer.status;
        }
        if self.mode & MODE_SYSTEM != 0 {
            status |= STATUS_SYSTEM;
        }
        status
    }

    /// Writes port 0x64.
    pub(crate) fn write_command(&mut self, value: u8) {
        self.command = None;
        match value {
            0x20 => self.reply(self.mode),
            0x21..=0x3f => self.reply(self.ram[usize::from(value & 0x1f)]),
            0x60..=0x7f | 0xd1..=0xd4 => self.command = Some(value),
            0xa7 => self.mode |= MODE_AUX_OFF,
            0xa8 => self.mode &= !MODE_AUX_OFF,
            // Interface tests: no error.
            0xa9 | 0xab => self.reply(0x00),
            0xaa => {
                self.mode |= MODE_SYSTEM;
                self.reply(0x55);
            }
            0xad => self.mode |= MODE_KEYBOARD_OFF,
            0xae => self.mode &= !MODE_KEYBOARD_OFF,
            // Input port: keyboard unlocked.
            0xc0 => self.reply(0x80),
            0xd0 => {
                let output = self.output_port();
                self.reply(output);
            }
            0xdd => self.a20 = false,
            0xdf => self.a20 = true,
            // Pulse the output lines whose bit is 0; line 0 is reset.
            0xf0..=0xff => self.reset_requested |= value & 1 == 0,
            _ => tracing::debug!(value, "unknown keyboard controller command"),
        }
    }

    /// Writes port 0x60.
    pub(crate) fn write_data(&mut self, value: u8) {
        match self.command.take() {
            None => {
                self.mode &= !MODE_KEYBOARD_OFF;
                self.keyboard.write(value, self.translates());
            }
            Some(0x60) => self.mode = value,
            Some(command @ 0x61..=0x7f) => self.ram[usize::from(command & 0x1f)] = value,
            Some(0xd1) => {
                self.a20 = value & OUTPUT_A20 != 0;
                self.reset_requested |= value & OUTPUT_NO_RESET == 0;
            }
            Some(0xd2) => self.reply(value),
            Some(0xd3) => self.answer(value, STATUS_AUX),
            Some(_) => {
                self.mode &= !MODE_AUX_OFF;
                self.mouse.write(value);
            }
        }
    }

    /// Reads port 0x92.
    pub(crate) fn read_port_92(&self) -> u8 {
        self.port_92 & !2 | if self.a20 { 2 } else { 0 }
    }

    /// Writes port 0x92: bit 1 opens A20, a rise of bit 0 resets.
    pub(crate) fn write_port_92(&mut self, value: u8) {
        self.a20 = value & 2 != 0;
        self.reset_requested |= value & !self.port_92 & 1 != 0;
        self.port_92 = value & 1;
    }

    fn output_port(&self) -> u8 {
        let mut value = OUTPUT_NO_RESET | OUTPUT_ONES;
        for (bit, set) in [(OUTPUT_A20, self.a20), (OUTPUT_IRQ1, self.irq1()), (OUTPUT_IRQ12, self.irq12())] {
            if set {
                value |= bit;
            }
        }
        value
    }

    /// The controller's own answers overtake what the keyboard has queued.
    fn reply(&mut self, byte: u8) {
        self.output = Some(Answer { byte, status: 0 });
    }

    fn answer(&mut self, byte: u8, status: u8) {
        if self.queue.len() < QUEUE_LIMIT {
            self.queue.push_back(Answer { byte, status });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(k: &mut I8042, value: u8) {
        k.write_command(value);
        k.refill();
    }

    fn data(k: &mut I8042, value: u8) {
        k.write_data(value);
        k.refill();
    }

    /// Every byte that waits, with its status.
    fn drain(k: &mut I8042) -> Vec<u8> {
        let mut bytes = Vec::new();
        while k.read_status() & STATUS_OUTPUT_FULL != 0 {
            bytes.push(k.read_data());
            k.refill();
        }
        bytes
    }

    #[test]
    fn self_tests() {
        let mut k = I8042::new();
        for (value, answer) in [(0xaa, 0x55), (0xab, 0), (0xa9, 0), (0x20, 0x65)] {
            command(&mut k, value);
            assert_eq!(k.read_status(), STATUS_UNLOCKED | STATUS_SYSTEM | STATUS_COMMAND | STATUS_OUTPUT_FULL);
            assert_eq!(drain(&mut k), [answer]);
        }
    }

    #[test]
    fn keyboard_commands() {
        let mut k = I8042::new();
        for (sent, answer) in [
            (&[0xff][..], &[0xfa, 0xaa][..]),
            (&[0xf2], &[0xfa, 0xab, 0x41]),
            (&[0xed, 0x07], &[0xfa, 0xfa]),
            (&[0xf3, 0x20], &[0xfa, 0xfa]),
            (&[0xf0, 0x00], &[0xfa, 0xfa, 0x41]),
            (&[0xf0, 0x03], &[0xfa, 0xfe]),
            (&[0xf0, 0x01], &[0xfa, 0xfa]),
            (&[0xf0, 0x00], &[0xfa, 0xfa, 0x43]),
            (&[0xf4], &[0xfa]),
            (&[0xee], &[0xee]),
            (&[0xfe], &[0xee]),
            (&[0x42], &[0xfe]),
        ] {
            for &byte in sent {
                data(&mut k, byte);
            }
            assert_eq!(drain(&mut k), answer, "{sent:x?}");
        }
        command(&mut k, 0x60);
        data(&mut k, 0x05);
        data(&mut k, 0xf2);
        assert_eq!(drain(&mut k), [0xfa, 0xab, 0x83], "untranslated");
    }

    #[test]
    fn each_byte_raises_the_line() {
        let mut k = I8042::new();
        data(&mut k, 0xff);
        assert!(k.irq1());
        assert_eq!(k.read_data(), 0xfa);
        assert!(!k.irq1());
        k.refill();
        assert!(k.irq1());
        assert_eq!(drain(&mut k), [0xaa]);
        assert!(!k.irq1());
        assert_eq!(k.read_data(), 0xaa, "an empty buffer repeats its last byte");
    }

    #[test]
    fn disabled_keyboard_holds_its_bytes() {
        let mut k = I8042::new();
        k.write_data(0xf4);
        command(&mut k, 0xad);
        assert_eq!(drain(&mut k), [0u8; 0]);
        command(&mut k, 0xae);
        assert_eq!(drain(&mut k), [0xfa]);
    }

    fn aux(k: &mut I8042, bytes: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        for &byte in bytes {
            command(k, 0xd4);
            data(k, byte);
            assert!(k.read_status() & STATUS_AUX != 0 || k.read_status() & STATUS_OUTPUT_FULL == 0);
            answers.extend(drain(k));
        }
        answers
    }

    #[test]
    fn auxiliary_port_loops() {
        let mut k = I8042::new();
        command(&mut k, 0x60);
        data(&mut k, 0x47);
        command(&mut k, 0xd3);
        data(&mut k, 0xa5);
        assert!(k.irq12() && !k.irq1());
        assert_eq!(k.read_status() & STATUS_AUX, STATUS_AUX);
        assert_eq!(drain(&mut k), [0xa5]);
    }

    fn press(k: &mut I8042, now: u64, name: &str, down: bool) {
        k.key(now, Key::named(name).unwrap(), down);
        k.refill();
    }

    #[test]
    fn keys_arrive_in_the_set_that_is_chosen() {
        let mut k = I8042::new();
        for down in [true, false] {
            press(&mut k, 0, "delete", down);
        }
        assert!(k.irq1());
        assert_eq!(drain(&mut k), [0xe0, 0x53, 0xe0, 0xd3], "translated to set 1");
        command(&mut k, 0x60);
        data(&mut k, 0x05);
        press(&mut k, 0, "delete", true);
        press(&mut k, 0, "delete", false);
        assert_eq!(drain(&mut k), [0xe0, 0x71, 0xe0, 0xf0, 0x71], "set 2");
        data(&mut k, 0xf0);
        data(&mut k, 0x01);
        press(&mut k, 0, "a", true);
        assert_eq!(drain(&mut k), [0xfa, 0xfa, 0x1e], "set 1");
        data(&mut k, 0xf5);
        press(&mut k, 0, "b", true);
        assert_eq!(drain(&mut k), [0xfa], "not scanning");
    }

    #[test]
    fn a_key_that_is_held_repeats() {
        const MS: u64 = 1_000_000;
        let mut k = I8042::new();
        assert_eq!(k.next_deadline(), None);
        press(&mut k, 0, "x", true);
        press(&mut k, 100 * MS, "x", true);
        assert_eq!(drain(&mut k), [0x2d], "who presses it again does not count");
        assert_eq!(k.next_deadline(), Some(500 * MS));
        let mut times = Vec::new();
        for now in 0..1000 {
            k.advance(now * MS);
            k.refill();
            times.extend(drain(&mut k).iter().map(|_| now));
        }
        assert_eq!(times, [500, 592, 684, 776, 868, 960], "10.9 times a second");
        press(&mut k, 1000 * MS, "x", false);
        assert_eq!((drain(&mut k), k.next_deadline()), (vec![0xad], None));
        // Another key ends it; Pause does not repeat at all.
        press(&mut k, 1000 * MS, "x", true);
        press(&mut k, 1000 * MS, "pause", true);
        assert_eq!(k.next_deadline(), None);
        data(&mut k, 0xf3);
        data(&mut k, 0x00);
        drain(&mut k);
        press(&mut k, 2000 * MS, "y", true);
        assert_eq!(k.next_deadline(), Some(2250 * MS));
        data(&mut k, 0xed);
        data(&mut k, 0x02);
        assert_eq!(k.leds(), 2);
    }

    #[test]
    fn the_mouse_answers() {
        let mut k = I8042::new();
        command(&mut k, 0xa8);
        for (sent, answer) in [
            (&[0xff][..], &[0xfa, 0xaa, 0x00][..]),
            (&[0xf2], &[0xfa, 0x00]),
            (&[0xe8, 0x03, 0xe7, 0xe9], &[0xfa, 0xfa, 0xfa, 0xfa, 0x10, 0x03, 100]),
            (&[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2], &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x03]),
            (&[0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2], &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x04]),
            (&[0xee, 0x12, 0xf2, 0xec], &[0xfa, 0x12, 0xf2, 0xfa]),
            (&[0x42], &[0xfe]),
            (&[0xff, 0xf2], &[0xfa, 0xaa, 0x00, 0xfa, 0x00]),
        ] {
            assert_eq!(aux(&mut k, sent), answer, "{sent:x?}");
        }
    }

    #[test]
    fn the_mouse_reports_what_it_does() {
        let mut k = I8042::new();
        let move_it = |k: &mut I8042, dx, dy, dz, buttons| {
            k.mouse(MouseEvent { dx, dy, dz, buttons });
            k.refill();
            drain(k)
        };
        assert_eq!(move_it(&mut k, 5, 5, 0, 1), [], "not yet");
        aux(&mut k, &[0xf4]);
        assert_eq!(move_it(&mut k, 3, -2, 1, 0), [0x08, 3, 2], "downwards is negative, and there is no wheel");
        assert_eq!(move_it(&mut k, 0, 0, 1, 0), []);
        assert_eq!(move_it(&mut k, -300, 1, 0, 2), [0x3a, 0x00, 0xff, 0x1a, 212, 0], "two packets");
        aux(&mut k, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(move_it(&mut k, 0, 0, -1, 0), [0x08, 0, 0, 0xff]);
        aux(&mut k, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(move_it(&mut k, 0, 0, 1, 0x10), [0x08, 0, 0, 0x21]);
        assert_eq!(aux(&mut k, &[0xf0]), [0xfa]);
        assert_eq!(move_it(&mut k, 9, 0, 0, 0), [], "when asked only");
        assert_eq!(aux(&mut k, &[0xeb]), [0xfa, 0x08, 9, 0, 0]);
        // A guest that does not read: what waits is bounded.
        for _ in 0..10_000 {
            k.mouse(MouseEvent { dx: i32::MAX, dy: i32::MIN, dz: 1, buttons: 7 });
            k.key(0, Key::named("a").unwrap(), true);
            k.key(0, Key::named("a").unwrap(), false);
        }
        assert!(k.is_well_formed());
    }

    #[test]
    fn a20_has_three_switches() {
        let mut k = I8042::new();
        assert!(k.a20_enabled());
        command(&mut k, 0xd1);
        data(&mut k, 0x01);
        assert!(!k.a20_enabled());
        command(&mut k, 0xd0);
        assert_eq!(drain(&mut k), [OUTPUT_ONES | OUTPUT_NO_RESET]);
        k.write_port_92(2);
        assert!(k.a20_enabled());
        assert_eq!(k.read_port_92(), 2);
        command(&mut k, 0xdd);
        assert!(!k.a20_enabled());
        assert_eq!(k.read_port_92(), 0);
        command(&mut k, 0xdf);
        assert!(k.a20_enabled() && !k.take_reset());
    }

    #[test]
    fn resets() {
        let mut k = I8042::new();
        command(&mut k, 0xff);
        assert!(!k.take_reset(), "no line is pulsed");
        command(&mut k, 0xfe);
        assert!(k.take_reset() && !k.take_reset());
        k.write_port_92(3);
        assert!(k.take_reset());
        k.write_port_92(3);
        assert!(!k.take_reset());
        command(&mut k, 0xd1);
        data(&mut k, 0x02);
        assert!(k.take_reset());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut k = I8042::new();
        for _ in 0..1000 {
            k.write_data(0xf2);
            k.write_command(0xd3);
            k.write_data(1);
        }
        assert!(k.is_well_formed());
        assert_eq!(k.queue.len(), QUEUE_LIMIT);
    }

    #[test]
    fn state_round_trips() {
        let mut k = I8042::new();
        data(&mut k, 0xf2);
        command(&mut k, 0xd1);
        let mut back: I8042 = postcard::from_bytes(&postcard::to_stdvec(&k).unwrap()).unwrap();
        assert_eq!(back, k);
        data(&mut back, 0x01);
        assert!(!back.a20_enabled());
        assert_eq!(drain(&mut back), [0xfa, 0xab, 0x41]);
    }
}
