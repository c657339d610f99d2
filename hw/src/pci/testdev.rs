//! `pci-testdev`: a function for measurements and tests of single accesses. Each of its two windows, memory and ports, begins
//! with a header that says what to write where, and counts how often that was done.

use serde::{Deserialize, Serialize};

use super::{BarKind, Config, Function, Identity};

const IDENTITY: Identity =
    Identity { vendor: 0x1b36, device: 0x0005, revision: 0, class: 0x00_ff00, subsystem: (0x1af4, 0x1100) };

/// Bytes of the window in memory, and ports of the other; the tests' places are in the second half.
const SIZES: [u64; 2] = [0x1000, 0x100];
const KINDS: [&str; 2] = ["mmio", "portio"];
/// The tests: name, the value to write, and whether a write is told to the device at all. Where it is told to a waiting host
/// process instead, the device does not count it.
const TESTS: [(&str, u8, bool); 3] =
    [("no-eventfd", 0xfa, true), ("wildcard-eventfd", 0xce, false), ("datamatch-eventfd", 0xfa, false)];
/// Bytes of a header without the test's name: number, width, two of padding, then offset, value, count.
const HEADER: usize = 16;

/// The test that was started: the window and the number that its header was chosen with, and what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Running {
    window: usize,
    test: usize,
    count: u32,
}

impl Running {
    fn number(&self) -> usize {
        self.window * TESTS.len() + self.test
    }

    fn offset(&self) -> u64 {
        SIZES.get(self.window).map_or(0, |size| size / 2) + self.number() as u64
    }

    /// The header, with the test's name and its end.
    fn header(&self) -> Vec<u8> {
        let (name, value, _) = TESTS.get(self.test).copied().unwrap_or_default();
        let kind = KINDS.get(self.window).copied().unwrap_or_default();
        let mut bytes = vec![self.number() as u8, 1, 0, 0];
        for word in [self.offset() as u32, value.into(), self.count] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), HEADER);
        bytes.extend_from_slice(format!("{kind}-{name}\0").as_bytes());
        bytes
    }
}

/// The function.
pub struct PciTestdev {
    config: Config,
    running: Option<Running>,
}

impl PciTestdev {
    /// One in which no test runs.
    pub fn new() -> PciTestdev {
        let config = Config::new(IDENTITY).with_bar(0, BarKind::Memory, SIZES[0]).with_bar(1, BarKind::Io, SIZES[1]);
        PciTestdev { config, running: None }
    }
}

impl Default for PciTestdev {
    fn default() -> Self {
        PciTestdev::new()
    }
}

impl Function for PciTestdev {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn bar_read(&mut self, _now: u64, _bar: usize, offset: u64, size: u8) -> u64 {
        let header = self.running.map(|running| running.header()).unwrap_or_default();
        // The end of the name is never read.
        let bytes = header.split_last().map_or(&[][..], |(_, bytes)| bytes);
        let bytes = bytes.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(size.into());
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn bar_write(&mut self, _now: u64, bar: usize, offset: u64, _size: u8, value: u64) {
        let [byte, ..] = value.to_le_bytes();
        if offset == 0 {
            let test = usize::from(byte);
            let started = test < TESTS.len() && bar < SIZES.len();
            self.running = started.then_some(Running { window: bar, test, count: 0 });
        } else if let Some(running) = &mut self.running
            && let Some((_, wanted, true)) = TESTS.get(running.test)
            && (bar, offset, byte) == (running.window, running.offset(), *wanted)
        {
            running.count = running.count.wrapping_add(1);
        }
    }

    fn reset(&mut self) {
        self.running = None;
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.running).unwrap_or_default()
    }

    fn fits(&self, data: &[u8]) -> bool {
        let known = |running: Running| running.window < SIZES.len() && running.test < TESTS.len();
        postcard::from_bytes::<Option<Running>>(data).is_ok_and(|running| running.is_none_or(known))
    }

    fn restore(&mut self, data: &[u8]) {
        if let Ok(running) = postcard::from_bytes(data) {
            self.running = running;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(device: &mut PciTestdev, bar: usize) -> Vec<u8> {
        (0..40).map(|offset| device.bar_read(0, bar, offset, 1) as u8).collect()
    }

    /// What QEMU's shows.
    #[test]
    fn headers_of_the_ports() {
        let mut device = PciTestdev::new();
        assert_eq!((device.config.u32(0), device.config.u32(8), device.config.u8(0x3d)), (0x0005_1b36, 0x00ff_0000, 0));
        assert_eq!(header(&mut device, 1), [0; 40]);
        device.bar_write(0, 1, 0, 1, 0);
        let bytes = header(&mut device, 1);
        assert_eq!(bytes[..16], [3, 1, 0, 0, 0x83, 0, 0, 0, 0xfa, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[16..34], b"portio-no-eventfd\0");
        device.bar_write(0, 1, 0, 1, 1);
        assert_eq!(header(&mut device, 1)[..9], [4, 1, 0, 0, 0x84, 0, 0, 0, 0xce]);
        device.bar_write(0, 0, 0, 1, 2);
        assert_eq!(device.bar_read(0, 0, 4, 4), 0x802);
        device.bar_write(0, 1, 0, 1, 3);
        assert_eq!(header(&mut device, 1), [0; 40], "there are three");
    }

    #[test]
    fn the_value_at_its_place_counts() {
        let mut device = PciTestdev::new();
        device.bar_write(0, 1, 0, 1, 0);
        for (bar, offset, value) in
            [(1, 0x83, 0xfa), (1, 0x83, 0xfa), (1, 0x83, 0x11), (1, 0x84, 0xfa), (0, 0x83, 0xfa)]
        {
            device.bar_write(0, bar, offset, 1, value);
        }
        assert_eq!(device.bar_read(0, 1, 12, 4), 2);
        let data = device.save();
        let mut other = PciTestdev::new();
        assert!(other.fits(&data) && !other.fits(&[1, 9, 0, 0]));
        other.restore(&data);
        assert_eq!(other.bar_read(0, 1, 12, 4), 2);
        for test in [1, 2] {
            device.bar_write(0, 1, 0, 1, test);
            let offset = device.bar_read(0, 1, 4, 4);
            device.bar_write(0, 1, offset, 1, 0xfa);
            assert_eq!(device.bar_read(0, 1, 12, 4), 0, "a process was told");
        }
    }
}
