//! The network device (VIRTIO 1.2, 5.1).
//!
//! The rings are walked on the thread of what the adapter is plugged into, see [`crate::net`]: a notification only wakes it.
//! Checksums and segmentation of TCP over IPv4 are left to the other side where that can do without.

use mimus_softmmu::Dma;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_S_LINK_UP,
};

use super::Device;
use super::queue::{Broken, Chain, VirtQueue};
use crate::fabric::NetPort;
use crate::net::{Batch, Frame, FrameQueue, MAX_FRAME, MAX_SEGMENTED, NetPeer, Offload, Offloads};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZE: u16 = 256;
/// Bytes of the header in front of each frame (5.1.6).
const HEADER: usize = 12;
/// The same where the number of buffers is not in it: to a driver that knows neither the standard nor merged buffers (5.1.6.1).
const SHORT_HEADER: usize = 10;
/// Frames and bytes that are given to the guest at once: as long as the device may be kept from its vCPU.
const RECEIVE_AT_ONCE: (usize, usize) = (64, 256 << 10);

/// What depends on a peer that takes unfinished frames (5.1.3).
const OFFLOADS: u64 =
    1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4 | 1 << VIRTIO_NET_F_HOST_TSO4;

/// Whether feature bit `bit` is among `features`.
fn has(features: u64, bit: u32) -> bool {
    features >> bit & 1 != 0
}

/// Bytes of the header for a driver that has accepted `features`.
fn header_len(features: u64) -> usize {
    let long = has(features, VIRTIO_F_VERSION_1) || has(features, VIRTIO_NET_F_MRG_RXBUF);
    if long { HEADER } else { SHORT_HEADER }
}

/// The header in front of a frame (5.1.6).
struct Header([u8; HEADER]);

impl Header {
    /// The header of a frame for the guest, which is in `buffers` chains.
    fn new(offload: Offload, buffers: u16) -> Header {
        let (mut flags, mut gso, mut checksum) = (0, 0, (0, 0));
        if let Some(at) = offload.checksum {
            (flags, checksum) = (VIRTIO_NET_HDR_F_NEEDS_CSUM as u8, at);
        }
        if offload.segment != 0 {
            gso = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
        }
        let words = [offload.headers, offload.segment, checksum.0, checksum.1, buffers].map(u16::to_le_bytes);
        let mut bytes = [0; HEADER];
        for (out, byte) in bytes.iter_mut().zip([flags, gso].into_iter().chain(words.into_iter().flatten())) {
            *out = byte;
        }
        Header(bytes)
    }

    /// What the driver leaves to the device, if it is something that the device offered.
    fn offload(&self, features: u64) -> Option<Offload> {
        let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, ..] = self.0;
        let word = |low, high| u16::from_le_bytes([low, high]);
        let mut offload = Offload::default();
        if u32::from(flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
            offload.checksum = Some((word(c0, c1), word(o0, o1)));
        }
        if gso != 0 {
            (offload.headers, offload.segment) = (word(h0, h1), word(s0, s1));
        }
        let segments = gso == 0
            || u32::from(gso) == VIRTIO_NET_HDR_GSO_TCPV4
                && has(features, VIRTIO_NET_F_HOST_TSO4)
                && offload.segment != 0;
        (segments && (offload.checksum.is_none() || has(features, VIRTIO_NET_F_CSUM))).then_some(offload)
    }
}

/// A network adapter.
pub(super) struct Net {
    mac: [u8; 6],
    port: NetPort,
}

impl Net {
    pub(super) fn new(mac: [u8; 6], peer: Option<Box<dyn NetPeer>>) -> Self {
        Net { mac, port: NetPort::new(peer) }
    }

    /// Plugs the cable in, or pulls it out; whether that changes anything.
    pub(super) fn set_link(&mut self, up: bool) -> bool {
        self.port.set_link(up)
    }

    /// Whether the cable is plugged in.
    pub(super) fn is_up(&self) -> bool {
        self.port.is_up()
    }

    /// What a driver that has accepted `features` takes.
    pub(super) fn offloads(features: u64) -> Offloads {
        Offloads {
            checksum: has(features, VIRTIO_NET_F_GUEST_CSUM),
            segment: has(features, VIRTIO_NET_F_GUEST_TSO4) && has(features, VIRTIO_NET_F_GUEST_CSUM),
        }
    }

    /// Adds what the guest has sent to `batch`; whether there is more.
    pub(super) fn transmit(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &Dma,
        features: u64,
        batch: &mut Batch,
    ) -> Result<bool, Broken> {
        let Some(queue) = queues.get_mut(TRANSMIT) else { return Ok(false) };
        let longest = if has(features, VIRTIO_NET_F_HOST_TSO4) { MAX_SEGMENTED } else { MAX_FRAME };
        while batch.has_room() {
            let Some(chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            let (mut header, size) = (Header([0; HEADER]), header_len(features));
            let complete = chain.readable.read(mem, 0, header.0.get_mut(..size).unwrap_or_default()) == size;
            let len = (chain.readable.len() as usize).saturating_sub(size);
            // A frame without its header, or too long, is lost.
            if let Some(offload) = header.offload(features).filter(|_| complete && (1..=longest).contains(&len)) {
                batch.add(len, offload, |bytes| chain.readable.read(mem, size as u64, bytes) == len);
            }
            queue.push(mem, chain.head, 0)?;
        }
        Ok(true)
    }

    /// Chains for a frame of `len` bytes with its header; none, and nothing has changed, if they are not there.
    fn chains(queue: &mut VirtQueue, mem: &Dma, len: usize, merge: bool) -> Result<Option<Vec<Chain>>, Broken> {
        let (mut chains, mut room) = (Vec::new(), 0);
        while chains.is_empty() || merge && room < len as u64 && chains.len() < usize::from(QUEUE_SIZE) {
            if let Some(chain) = queue.pop(mem)? {
                room += chain.writable.len();
                chains.push(chain);
            } else if !queue.rearm(mem)? {
                chains.iter().for_each(|_| queue.unpop());
                return Ok(None);
            }
        }
        Ok(Some(chains))
    }

    /// Writes a frame to chains. One that they do not hold is lost (5.1.6.4).
    fn write(
        queue: &mut VirtQueue,
        mem: &Dma,
        chains: &[Chain],
        header_len: usize,
        Frame { bytes, offload }: &Frame,
    ) -> Result<(), Broken> {
        let room: u64 = chains.iter().map(|chain| chain.writable.len()).sum();
        let first = chains.first().map_or(0, |chain| chain.writable.len());
        if room < (header_len + bytes.len()) as u64 || first < header_len as u64 {
            chains.iter().for_each(|_| queue.unpop());
            return Ok(());
        }
        let header = Header::new(*offload, chains.len() as u16);
        let header = header.0.get(..header_len).unwrap_or_default();
        let (mut skip, mut rest) = (header_len as u64, bytes.as_slice());
        let mut done = Vec::with_capacity(chains.len());
        for chain in chains {
            let mut written = if skip == 0 { 0 } else { chain.writable.write(mem, 0, header) };
            let here = (chain.writable.len() - skip).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at(here);
            written += chain.writable.write(mem, skip, now);
            done.push((chain.head, written as u32));
            (skip, rest) = (0, later);
        }
        queue.push_together(mem, &done)
    }

    /// Gives frames to the guest's buffers; whether to go on.
    pub(super) fn receive(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &Dma,
        features: u64,
        frames: &mut FrameQueue,
    ) -> Result<bool, Broken> {
        let Some(queue) = queues.get_mut(RECEIVE) else { return Ok(false) };
        let (merge, header_len) = (has(features, VIRTIO_NET_F_MRG_RXBUF), header_len(features));
        let (most_frames, most_bytes) = RECEIVE_AT_ONCE;
        let (mut count, mut bytes) = (0, 0);
        while let Some(frame) = frames.front() {
            if count == most_frames || bytes >= most_bytes {
                return Ok(true);
            }
            let Some(chains) = Net::chains(queue, mem, header_len + frame.bytes.len(), merge)? else {
                self.port.starve();
                return Ok(false);
            };
            Net::write(queue, mem, &chains, header_len, frame)?;
            (count, bytes) = (count + 1, bytes + frame.bytes.len());
            frames.pop();
        }
        Ok(false)
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        let offloads = if self.port.offloads() { OFFLOADS } else { 0 };
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MRG_RXBUF | offloads
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// Hardware address, then the link's status (5.1.4).
    fn config(&self) -> Vec<u8> {
        let status = if self.port.is_up() { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let [low, high] = status.to_le_bytes();
        self.mac.into_iter().chain([low, high]).collect()
    }

    fn reset(&mut self) {
        self.port.reset();
    }

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        match index {
            // No cable: frames are lost.
            TRANSMIT if !self.port.has_peer() => return self.transmit(queues, mem, 0, &mut Batch::default()),
            TRANSMIT => self.port.notify(),
            _ => self.port.has_room(),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use mimus_softmmu::{CodeSink, Dropped, Ram};

    use super::*;
    use crate::net::Adapter;
    use crate::virtio::Virtio;
    use crate::virtio::testing::{Driver, setup};

    /// Counts what it is told.
    #[derive(Clone, Default)]
    struct Peer(Arc<AtomicUsize>, bool);

    impl NetPeer for Peer {
        fn notify(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn offloads(&self) -> bool {
            self.1
        }
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        [&[0; HEADER][..], text].concat()
    }

    fn plain(bytes: &[u8]) -> Frame {
        Frame { bytes: bytes.to_vec(), offload: Offload::default() }
    }

    fn sent(device: &mut Virtio) -> Vec<(Vec<u8>, Offload)> {
        let mut batch = Batch::default();
        assert!(!device.transmit(&mut batch));
        batch.iter().map(|(bytes, offload)| (bytes.to_vec(), offload)).collect()
    }

    #[test]
    fn frames_go_out_and_come_in_with_a_header() {
        let (ram, mem) = setup();
        let peer = Peer::default();
        let mut device = Virtio::net(mem, [2, 0, 0, 0, 0, 1], Some(Box::new(peer.clone())));
        let mut driver = Driver::start(&mut device, &ram);
        let mut config = [0; 8];
        device.read_config(0, &mut config);
        assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0]);
        assert_eq!(device.offloads(), Offloads::default());
        let before = peer.0.load(Ordering::Relaxed);
        driver.offer(1, &[&frame(b"ping")], &[]);
        device.notify(1);
        assert_eq!(peer.0.load(Ordering::Relaxed), before + 1);
        assert_eq!(driver.used(1), [], "the peer takes it");
        assert_eq!(sent(&mut device), [(b"ping".to_vec(), Offload::default())]);
        assert_eq!(driver.used(1).len(), 1);
        // Without a buffer a frame waits for one, and the peer is told.
        let mut queue = FrameQueue::default();
        queue.push(plain(b"pong"));
        assert!(!device.receive(&mut queue));
        assert_eq!(queue.len(), 1);
        let buffer = driver.offer(0, &[], &[12, 100]);
        device.notify(0);
        assert_eq!(peer.0.load(Ordering::Relaxed), before + 2);
        assert!(!device.receive(&mut queue) && queue.is_empty());
        assert_eq!(driver.used(0), [(buffer.head, 16)]);
        let received = driver.bytes(&buffer.writable);
        assert_eq!(received[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'p', b'o', b'n', b'g']);
        driver.offer(0, &[], &[64]);
        device.notify(0);
        assert_eq!(peer.0.load(Ordering::Relaxed), before + 2, "nothing waits");
    }

    #[test]
    fn without_its_cable_an_adapter_loses_frames_and_tells_the_guest() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [2, 0, 0, 0, 0, 1], Some(Box::new(Peer::default())));
        let mut driver = Driver::start(&mut device, &ram);
        let status = |device: &Virtio| {
            let mut bytes = [0; 2];
            device.read_config(6, &mut bytes);
            (u16::from_le_bytes(bytes), device.isr() & 2)
        };
        assert_eq!(status(&device), (1, 0));
        device.set_link(false);
        assert_eq!(status(&device), (0, 2));
        device.acknowledge(2);
        device.set_link(false);
        assert_eq!(status(&device), (0, 0), "nothing has changed");
        driver.offer(1, &[&frame(b"lost")], &[]);
        driver.offer(0, &[], &[12, 100]);
        assert_eq!((sent(&mut device), driver.used(1).len()), (vec![], 1));
        let mut queue = FrameQueue::default();
        queue.push(plain(b"lost"));
        assert!(!device.receive(&mut queue) && queue.is_empty() && driver.used(0).is_empty());
        device.set_link(true);
        assert_eq!(status(&device), (1, 2));
        queue.push(plain(b"pong"));
        assert!(!device.receive(&mut queue) && queue.is_empty());
        assert_eq!(driver.used(0).len(), 1);
    }

    #[test]
    fn a_long_frame_is_merged_from_buffers() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], Some(Box::new(Peer::default())));
        let mut driver = Driver::start(&mut device, &ram);
        let mut queue = FrameQueue::default();
        queue.push(plain(&[7; 150]));
        let first = driver.offer(0, &[], &[100]);
        assert!(!device.receive(&mut queue));
        assert_eq!((driver.used(0), queue.len()), (vec![], 1), "half of it is not given");
        let second = driver.offer(0, &[], &[100]);
        assert!(!device.receive(&mut queue) && queue.is_empty());
        assert_eq!(driver.used(0), [(first.head, 100), (second.head, 62)]);
        assert_eq!((driver.bytes(&first.writable)[10], driver.bytes(&second.writable)[61]), (2, 7));
    }

    /// Notes what is written to where it watches.
    #[derive(Default)]
    struct Writes(Mutex<Vec<u64>>);

    impl CodeSink for Writes {
        fn code_written(&self, gpa: u64, _: u64) -> Dropped {
            self.0.lock().unwrap().push(gpa);
            Dropped::NONE
        }
    }

    #[test]
    fn a_driver_that_looks_meanwhile_sees_all_buffers_of_a_frame_or_none() {
        let (ram, _) = setup();
        let writes = Arc::new(Writes::default());
        let mut device = Virtio::net(Dma::new(ram.clone(), writes.clone()), [0; 6], Some(Box::new(Peer::default())));
        let mut driver = Driver::start(&mut device, &ram);
        let index = driver.rings(0)[2] + 2;
        ram.mark_code(index & !0xfff, Ram::granules(index, 2));
        let mut queue = FrameQueue::default();
        queue.push(plain(&[7; 250]));
        queue.push(plain(&[8; 150]));
        for _ in 0..5 {
            driver.offer(0, &[], &[100]);
        }
        assert!(!device.receive(&mut queue) && queue.is_empty());
        assert_eq!(writes.0.lock().unwrap().iter().filter(|gpa| **gpa == index).count(), 2, "the index, once a frame");
        let lengths: Vec<u32> = driver.used(0).iter().map(|&(_, written)| written).collect();
        assert_eq!(lengths, [100, 100, 62, 100, 62]);
    }

    #[test]
    fn unfinished_frames_need_a_peer_that_takes_them() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], Some(Box::new(Peer(Arc::default(), true))));
        let mut driver = Driver::start(&mut device, &ram);
        assert_eq!(device.offloads(), Offloads { checksum: true, segment: true });
        let mut large = vec![1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
        large.extend([9; 3000]);
        driver.offer(1, &[&large], &[]);
        // Segments of UDP were not offered.
        let mut wrong = large.clone();
        wrong[1] = 3;
        driver.offer(1, &[&wrong], &[]);
        let offload = Offload { checksum: Some((34, 16)), segment: 1460, headers: 54 };
        assert_eq!(sent(&mut device), [(vec![9; 3000], offload)]);
        assert_eq!(driver.used(1).len(), 2);
        let buffer = driver.offer(0, &[], &[4000]);
        let mut queue = FrameQueue::default();
        queue.push(Frame { bytes: vec![9; 3000], offload });
        device.receive(&mut queue);
        assert_eq!(driver.bytes(&buffer.writable)[..12], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0]);
    }

    #[test]
    fn what_is_no_frame_is_lost() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], Some(Box::new(Peer::default())));
        let mut driver = Driver::start(&mut device, &ram);
        let chains: [&[&[u8]]; 4] = [&[b"short"], &[&[0; 3000]], &[], &[&frame(b"")]];
        for chain in chains {
            driver.offer(1, chain, &[]);
        }
        driver.offer(1, &[&[&[1][..], &[0; 50]].concat()], &[]);
        driver.offer(1, &[&frame(b"fits")], &[]);
        assert_eq!(sent(&mut device), [(b"fits".to_vec(), Offload::default())]);
        assert_eq!(driver.used(1).len(), 6);
        // Buffers too small even for the header.
        let mut queue = FrameQueue::default();
        queue.push(plain(&[0; 60]));
        (0..20).for_each(|_| drop(driver.offer(0, &[], &[4])));
        device.receive(&mut queue);
        assert_eq!(driver.used(0), []);
    }

    #[test]
    fn no_cable_swallows() {
        let (ram, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], None);
        let mut driver = Driver::start(&mut device, &ram);
        driver.offer(0, &[], &[64]);
        driver.offer(1, &[&frame(b"x")], &[]);
        device.notify(1);
        assert_eq!((driver.used(1).len(), driver.used(0).len()), (1, 0));
    }

    #[test]
    fn a_device_that_does_not_run_loses_frames() {
        let (_, mem) = setup();
        let mut device = Virtio::net(mem, [0; 6], Some(Box::new(Peer::default())));
        let mut queue = FrameQueue::default();
        queue.push(plain(&[0; 60]));
        assert!(!device.receive(&mut queue) && queue.is_empty());
        assert_eq!(sent(&mut device), []);
    }
}
