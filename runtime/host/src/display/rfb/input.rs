//! What clients do with keyboard and mouse.

use mimus_hw::MouseEvent;
use mimus_hw::keys::Key;

use super::super::Console;

/// X keysyms of the two Shift keys.
const SHIFTS: [u32; 2] = [0xffe1, 0xffe2];

/// Keyboard and pointer of all clients together.
#[derive(Debug, Default)]
pub struct Input {
    /// Keys that are down, and the Shift that was added to one.
    down: Vec<(Key, bool)>,
    shift: bool,
    /// Where the pointer was, once it has been anywhere.
    pointer: Option<(u16, u16)>,
    /// Bits as in the protocol.
    mask: u8,
}

impl Input {
    /// A key event (RFC 6143, 7.5.4).
    pub fn key(&mut self, console: &Console, keysym: u32, down: bool) {
        let Some((key, wants_shift)) = Key::of_keysym(keysym) else {
            tracing::debug!("VNC: no key types keysym {keysym:#x}");
            return;
        };
        if SHIFTS.contains(&keysym) {
            self.shift = down;
        }
        // A client that types a sign by some other combination of its own keyboard. Letters may come from Caps Lock, which the
        // guest has heard of.
        let is_sign = matches!(keysym, 0x21..=0x7e) && !char::from(keysym as u8).is_ascii_alphabetic();
        let held = self.down.iter().position(|(other, _)| *other == key);
        match (down, held) {
            (true, None) => {
                let add_shift = is_sign && wants_shift && !self.shift;
                if add_shift {
                    self.add_shift(console, true);
                }
                self.down.push((key, add_shift));
                console.key(key, true);
            }
            (false, Some(place)) => {
                let (_, shift) = self.down.swap_remove(place);
                console.key(key, false);
                if shift {
                    self.add_shift(console, false);
                }
            }
            // The keyboard repeats by itself.
            _ => {}
        }
    }

    fn add_shift(&self, console: &Console, down: bool) {
        if let Some(shift) = Key::named("shift") {
            console.key(shift, down);
        }
    }

    /// Releases what is down: a client has gone.
    pub fn release_keys(&mut self, console: &Console) {
        for (key, shift) in std::mem::take(&mut self.down) {
            console.key(key, false);
            if shift {
                self.add_shift(console, false);
            }
        }
        self.shift = false;
    }

    /// A pointer event (RFC 6143, 7.5.5): the mouse moves as far as the pointer does.
    pub fn pointer(&mut self, console: &Console, mask: u8, x: u16, y: u16) {
        let (old_x, old_y) = self.pointer.replace((x, y)).unwrap_or((x, y));
        let pressed = mask & !self.mask;
        self.mask = mask;
        // Bits 3 and 4 are the wheel's steps: away from the user, towards the user.
        let dz = i32::from(pressed >> 4 & 1) - i32::from(pressed >> 3 & 1);
        // The protocol has the middle button before the right one.
        let buttons = mask & 1 | (mask & 2) << 1 | (mask & 4) >> 1;
        let (dx, dy) = (i32::from(x) - i32::from(old_x), i32::from(y) - i32::from(old_y));
        console.mouse(MouseEvent { dx, dy, dz, buttons });
    }
}
