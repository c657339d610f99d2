//! `ib700`: the watchdog timer of iBASE's IB700 single-board computers (its manual, "Watchdog Timer Configuration"). A driver
//! writes a port again and again; when it has not done so for as long as it said, the machine does what `-action watchdog=` says.

use super::IsaDevice;
use crate::PcEvent;
use serde::{Deserialize, Serialize};

/// A write here stops the timer, whatever is written.
pub(crate) const DISABLE_PORT: u16 = 0x441;
/// A write here starts the timer anew.
pub(crate) const ENABLE_PORT: u16 = 0x443;

/// The longest interval in seconds, which 0 stands for. Each number above it stands for two seconds less.
const LONGEST: u64 = 30;
const SECOND: u64 = 1_000_000_000;

/// What the device remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// When it expires, in guest nanoseconds; none while it is stopped.
    deadline: Option<u64>,
    expired: bool,
}

/// The device.
#[derive(Default)]
pub(crate) struct Ib700(State);

impl IsaDevice for Ib700 {
    fn ports(&self) -> Vec<(u16, u16)> {
        [DISABLE_PORT, ENABLE_PORT].map(|port| (port, port)).to_vec()
    }

    fn write(&mut self, now: u64, port: u16, value: u8) {
        let seconds = LONGEST - 2 * u64::from(value & 0xf);
        self.0.deadline = (port == ENABLE_PORT).then(|| now.saturating_add(seconds * SECOND));
    }

    fn advance(&mut self, now: u64) {
        if self.0.deadline.is_some_and(|deadline| deadline <= now) {
            self.0 = State { deadline: None, expired: true };
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.0.deadline
    }

    fn take_event(&mut self) -> Option<PcEvent> {
        std::mem::take(&mut self.0.expired).then_some(PcEvent::Watchdog)
    }

    fn reset(&mut self) {
        self.0 = State::default();
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.0).unwrap_or_default()
    }

    fn fits(&self, data: &[u8]) -> bool {
        postcard::from_bytes::<State>(data).is_ok()
    }

    fn restore(&mut self, data: &[u8]) {
        if let Ok(state) = postcard::from_bytes(data) {
            self.0 = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_expires_once_unless_it_is_started_anew_or_stopped() {
        let mut device = Ib700::default();
        for (value, seconds) in [(0, 30), (1, 28), (0xe, 2), (0xf, 0), (0xf3, 24)] {
            device.write(SECOND, ENABLE_PORT, value);
            assert_eq!(device.next_deadline(), Some((seconds + 1) * SECOND), "{value}");
        }
        device.write(SECOND, ENABLE_PORT, 0xe);
        device.advance(3 * SECOND - 1);
        assert_eq!(device.take_event(), None);
        device.advance(3 * SECOND);
        assert_eq!((device.take_event(), device.take_event()), (Some(PcEvent::Watchdog), None));
        assert_eq!((device.next_deadline(), device.read(0, ENABLE_PORT)), (None, 0xff));
        for stop in [|device: &mut Ib700| device.write(0, DISABLE_PORT, 0xe), |device: &mut Ib700| device.reset()] {
            device.write(0, ENABLE_PORT, 0);
            stop(&mut device);
            device.advance(u64::MAX);
            assert_eq!((device.next_deadline(), device.take_event()), (None, None));
        }
    }

    #[test]
    fn its_state_is_kept() {
        let (mut device, mut other) = (Ib700::default(), Ib700::default());
        device.write(5, ENABLE_PORT, 0);
        assert!(other.fits(&device.save()) && !other.fits(&[7]));
        other.restore(&device.save());
        assert_eq!(other.next_deadline(), device.next_deadline());
        other.write(u64::MAX, ENABLE_PORT, 0);
        assert_eq!(other.next_deadline(), Some(u64::MAX));
    }
}
