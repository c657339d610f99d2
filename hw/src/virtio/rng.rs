//! The entropy device (VIRTIO 1.2, 5.4).

use mimus_softmmu::Dma;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::Device;
use super::queue::{Broken, VirtQueue};

const QUEUE_SIZE: u16 = 8;
/// The most bytes that one request gets; 5.4.6.1 asks for one at least.
const MAX_BYTES: u64 = 4096;

/// Where random numbers come from on the host side.
pub trait Entropy: Send {
    /// Fills `out`. Returns at once.
    fn fill(&mut self, out: &mut [u8]);
}

/// A source of random numbers.
pub(super) struct Rng {
    entropy: Box<dyn Entropy>,
}

impl Rng {
    pub(super) fn new(entropy: Box<dyn Entropy>) -> Self {
        Rng { entropy }
    }
}

impl Device for Rng {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn reset(&mut self) {}

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        let Some(queue) = queues.get_mut(index) else { return Ok(false) };
        for _ in 0..QUEUE_SIZE {
            let Some(chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            let mut bytes = vec![0; chain.writable.len().min(MAX_BYTES) as usize];
            self.entropy.fill(&mut bytes);
            let written = chain.writable.write(mem, 0, &bytes);
            queue.push(mem, chain.head, written as u32)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::Virtio;
    use crate::virtio::testing::{Driver, setup};

    /// Counts up.
    struct Counter(u8);

    impl Entropy for Counter {
        fn fill(&mut self, out: &mut [u8]) {
            for byte in out {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
        }
    }

    #[test]
    fn buffers_are_filled_up_to_a_bound() {
        let (ram, mem) = setup();
        let mut device = Virtio::rng(mem, Box::new(Counter(0)));
        let mut driver = Driver::start(&mut device, &ram);
        let small = driver.offer(0, &[], &[4, 3]);
        let large = driver.offer(0, &[], &[8192]);
        device.notify(0);
        assert_eq!(driver.used(0), [(small.head, 7), (large.head, MAX_BYTES as u32)]);
        assert_eq!(driver.bytes(&small.writable), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(driver.bytes(&large.writable)[..2], [8, 9]);
        assert_eq!(driver.bytes(&large.writable)[MAX_BYTES as usize], 0);
        assert_eq!((device.isr(), device.take_signals()), (1, 1));
    }

    #[test]
    fn what_is_too_much_at_once_is_done_later() {
        let (ram, mem) = setup();
        let mut device = Virtio::rng(mem, Box::new(Counter(0)));
        let mut driver = Driver::start(&mut device, &ram);
        for _ in 0..QUEUE_SIZE {
            driver.offer(0, &[], &[1]);
        }
        device.notify(0);
        assert_eq!((driver.used(0).len(), device.has_more()), (usize::from(QUEUE_SIZE), true));
        // Nobody tells of this one: the device is still at it.
        driver.offer(0, &[], &[1]);
        device.go_on();
        assert_eq!((driver.used(0).len(), device.has_more()), (1, false));
    }

    #[test]
    fn a_chain_without_room_comes_back_empty() {
        let (ram, mem) = setup();
        let mut device = Virtio::rng(mem, Box::new(Counter(0)));
        let mut driver = Driver::start(&mut device, &ram);
        let chain = driver.offer(0, &[b"ab"], &[]);
        device.notify(0);
        assert_eq!(driver.used(0), [(chain.head, 0)]);
    }
}
