//! The network device without offloads (VIRTIO 1.2, 5.1).

use std::collections::VecDeque;

use mimus_softmmu::Dma;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP};

use super::Device;
use super::queue::{Broken, VirtQueue};

/// The queue of buffers for frames to the guest.
pub(super) const RECEIVE: usize = 0;
const QUEUE_SIZE: u16 = 256;
/// Bytes of the header in front of each frame (5.1.6).
const HEADER: u64 = 12;
/// Where in the header the number of buffers is.
const NUM_BUFFERS: usize = 10;
/// The longest frame: without offloads 1514 bytes and a VLAN tag, and some room.
const MAX_FRAME: u64 = 2048;

/// What a network adapter is plugged into.
pub trait NetBackend: Send {
    /// Takes a frame from the guest. Returns at once; a frame that cannot be sent is lost.
    fn send(&mut self, frame: &[u8]);

    /// The next frame for the guest; the host calls [`Virtio::net_poll`](super::Virtio::net_poll) when there are new ones.
    fn receive(&mut self) -> Option<Vec<u8>>;
}

/// No cable: frames are lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeer;

impl NetBackend for NoPeer {
    fn send(&mut self, _frame: &[u8]) {}

    fn receive(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// Every frame comes back.
#[derive(Clone, Debug, Default)]
pub struct Loopback(VecDeque<Vec<u8>>);

impl NetBackend for Loopback {
    fn send(&mut self, frame: &[u8]) {
        if self.0.len() < usize::from(QUEUE_SIZE) {
            self.0.push_back(frame.to_vec());
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.0.pop_front()
    }
}

/// A network adapter.
pub(super) struct Net {
    mac: [u8; 6],
    backend: Box<dyn NetBackend>,
    /// A frame for which there was no buffer.
    waiting: Option<Vec<u8>>,
}

impl Net {
    pub(super) fn new(mac: [u8; 6], backend: Box<dyn NetBackend>) -> Self {
        Net { mac, backend, waiting: None }
    }

    /// Sends what the guest has made available; whether there is more.
    fn transmit(&mut self, queue: &mut VirtQueue, mem: &Dma) -> Result<bool, Broken> {
        for _ in 0..QUEUE_SIZE {
            let Some(mut chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            // A frame without its header, or too long, is lost.
            if chain.readable.take_front(HEADER).is_some() && chain.readable.len() <= MAX_FRAME {
                let mut frame = vec![0; chain.readable.len() as usize];
                chain.readable.read(mem, 0, &mut frame);
                self.backend.send(&frame);
            }
            queue.push(mem, chain.head, 0)?;
        }
        Ok(true)
    }

    /// Gives frames to the guest's buffers; whether there is more.
    fn receive(&mut self, queue: &mut VirtQueue, mem: &Dma) -> Result<bool, Broken> {
        for _ in 0..QUEUE_SIZE {
            let Some(frame) = self.waiting.take().or_else(|| self.backend.receive()) else { return Ok(false) };
            let Some(chain) = queue.pop(mem)? else {
                self.waiting = Some(frame);
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            let mut header = [0; HEADER as usize];
            if let Some(buffers) = header.get_mut(NUM_BUFFERS) {
                *buffers = 1;
            }
            let mut written = 0;
            // Without mergeable buffers a frame that does not fit is lost (5.1.6.4).
            if chain.writable.len() >= HEADER + frame.len() as u64 {
                written = chain.writable.write(mem, 0, &header) + chain.writable.write(mem, HEADER, &frame);
            }
            if written == 0 {
                queue.unpop();
            } else {
                queue.push(mem, chain.head, written as u32)?;
            }
        }
        Ok(true)
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// Hardware address, then the link's status (5.1.4).
    fn config(&self) -> Vec<u8> {
        let [low, high] = (VIRTIO_NET_S_LINK_UP as u16).to_le_bytes();
        self.mac.into_iter().chain([low, high]).collect()
    }

    fn reset(&mut self) {
        self.waiting = None;
    }

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        let [receive, transmit] = queues else { return Ok(false) };
        if index == RECEIVE {
            return self.receive(receive, mem);
        }
        let more = self.transmit(transmit, mem)?;
        // The backend may have answered at once.
        let waits = self.receive(receive, mem)?;
        Ok(more || waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::Virtio;
    use crate::virtio::testing::{Driver, setup};

    fn frame(text: &[u8]) -> Vec<u8> {
        [&[0; HEADER as usize][..], text].concat()
    }

    #[test]
    fn frames_go_out_and_come_back_with_a_header() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [2, 0, 0, 0, 0, 1], Box::new(Loopback::default()));
        let mut driver = Driver::start(&mut device, &ram);
        let mut config = [0; 8];
        device.read_config(0, &mut config);
        assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0]);
        let buffer = driver.offer(0, &[], &[12, 100]);
        driver.offer(1, &[&frame(b"ping")], &[]);
        device.notify(1);
        assert_eq!(driver.used(1).len(), 1);
        assert_eq!(driver.used(0), [(buffer.head, 16)]);
        let received = driver.bytes(&buffer.writable);
        assert_eq!(received[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'p', b'i', b'n', b'g']);
        // Without a buffer the frame waits for one.
        driver.offer(1, &[&frame(b"late")], &[]);
        device.notify(1);
        let buffer = driver.offer(0, &[], &[64]);
        device.notify(0);
        assert_eq!(driver.used(0), [(buffer.head, 16)]);
    }

    #[test]
    fn what_is_no_frame_is_lost() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], Box::new(Loopback::default()));
        let mut driver = Driver::start(&mut device, &ram);
        let buffer = driver.offer(0, &[], &[16]);
        let chains: [&[&[u8]]; 4] = [&[b"short"], &[&[0; 3000]], &[], &[&frame(b"larger than the buffer")]];
        for chain in chains {
            driver.offer(1, chain, &[]);
        }
        device.notify(1);
        assert_eq!(driver.used(1).len(), 4);
        assert_eq!(driver.used(0), []);
        driver.offer(1, &[&frame(b"fits")], &[]);
        device.notify(1);
        assert_eq!(driver.used(0), [(buffer.head, 16)], "the buffer is still there");
    }

    #[test]
    fn no_peer_swallows() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], Box::new(NoPeer));
        let mut driver = Driver::start(&mut device, &ram);
        driver.offer(0, &[], &[64]);
        driver.offer(1, &[&frame(b"x")], &[]);
        device.notify(1);
        device.net_poll();
        assert_eq!((driver.used(1).len(), driver.used(0).len()), (1, 0));
    }
}
