//! What network adapters and the host's side of a network pass each other: Ethernet frames, many at once.
//!
//! The host's side calls an adapter from a thread of its own: it takes what the guest has sent
//! ([`Adapter::transmit`]) and gives what has come for it ([`Adapter::receive`]). The adapter only says that there is something to
//! do ([`NetPeer::notify`]). So a guest that sends is slowed down by its own ring, and one that does not receive loses frames of
//! a queue that is bounded.

use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of destination, source and type in front of a frame (IEEE 802.3, 3.1.1).
pub const ETHERNET_HEADER: usize = 14;
/// The longest frame that is not [segmented](Offload::segment), in bytes: 1500 of payload, headers and a VLAN tag.
pub const MAX_FRAME: usize = 1518;
/// The longest frame at all, in bytes: an IPv4 packet of 64 KiB, its Ethernet header and a VLAN tag.
pub const MAX_SEGMENTED: usize = 0xffff + 18;

/// The hardware address that is written as six bytes in hexadecimal, two digits each, with colons between them.
pub fn mac_address(text: &str) -> Option<[u8; 6]> {
    let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes?.try_into().ok()
}

/// What a frame leaves to its receiver: checksums to be inserted, and segments to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The internet checksum from byte `.0` of the frame to its end is still to be computed and to be put at byte `.0 + .1`,
    /// where the pseudo header's sum is.
    pub checksum: Option<(u16, u16)>,
    /// Bytes of payload in each of the TCP segments that the frame stands for; 0 if it is one.
    pub segment: u16,
    /// Bytes of headers in front of the payload of a frame with segments.
    pub headers: u16,
}

/// What a guest's driver takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames whose checksum is not computed.
    pub checksum: bool,
    /// Frames that stand for many TCP segments.
    pub segment: bool,
}

/// A frame and what is left to do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From the destination's address on, without a frame check sequence.
    pub bytes: Vec<u8>,
    /// What is left to do.
    pub offload: Offload,
}

/// Frames that wait for a guest: a bounded queue whose buffers are used again.
#[derive(Debug, Default)]
pub struct FrameQueue {
    frames: VecDeque<Frame>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl FrameQueue {
    /// Frames at most.
    const FRAMES: usize = 512;
    /// Bytes after which no frame is added; as much again as the longest frame may be in it.
    const BYTES: usize = 1 << 20;
    /// Buffers of up to this size are kept, in bytes.
    const SPARE: usize = 1 << 17;

    /// Whether another frame may be added.
    pub fn has_room(&self) -> bool {
        self.frames.len() < Self::FRAMES && self.bytes < Self::BYTES
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// An empty buffer to build a frame in.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Adds a frame; one that there is no room for is lost.
    pub fn push(&mut self, frame: Frame) {
        if self.has_room() {
            self.bytes += frame.bytes.len();
            self.frames.push_back(frame);
        } else {
            self.recycle(frame.bytes);
        }
    }

    /// The frames in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter()
    }

    /// The first frame.
    pub fn front(&self) -> Option<&Frame> {
        self.frames.front()
    }

    /// Drops the first frame.
    pub fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.bytes.len();
            self.recycle(frame.bytes);
        }
    }

    /// Drops all of them.
    pub fn clear(&mut self) {
        while !self.frames.is_empty() {
            self.pop();
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < 64 && buffer.capacity() <= Self::SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// Frames that a guest has sent, one behind the other in one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    frames: Vec<(Range<usize>, Offload)>,
}

impl Batch {
    /// Frames at most.
    const FRAMES: usize = 256;
    /// Bytes after which no frame is added.
    const BYTES: usize = 256 << 10;

    /// Whether another frame may be added.
    pub fn has_room(&self) -> bool {
        self.frames.len() < Self::FRAMES && self.bytes.len() < Self::BYTES
    }

    /// Forgets the frames.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    /// Adds a frame of `len` bytes, at most [`MAX_SEGMENTED`], that `fill` writes; it is dropped if `fill` says false.
    pub fn add(&mut self, len: usize, offload: Offload, fill: impl FnOnce(&mut [u8]) -> bool) {
        let start = self.bytes.len();
        let end = start + len.min(MAX_SEGMENTED);
        self.bytes.resize(end, 0);
        if self.bytes.get_mut(start..).is_some_and(fill) {
            self.frames.push((start..end, offload));
        } else {
            self.bytes.truncate(start);
        }
    }

    /// The frames in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Offload)> {
        self.frames.iter().map(|(range, offload)| (self.bytes.get(range.clone()).unwrap_or_default(), *offload))
    }
}

/// What a network adapter is plugged into, as the adapter sees it.
pub trait NetPeer: Send {
    /// The guest has sent something, or has room again. Returns at once.
    fn notify(&mut self);

    /// Whether it takes and gives frames with something [left to do](Offload).
    fn offloads(&self) -> bool;
}

/// A network adapter as what it is plugged into sees it.
pub trait Adapter {
    /// Adds what the guest has sent to `batch`; whether there is more.
    fn transmit(&mut self, batch: &mut Batch) -> bool;

    /// Gives the guest what waits in `queue`, some at once; whether to call again. What stays in the queue waits for
    /// [`NetPeer::notify`].
    fn receive(&mut self, queue: &mut FrameQueue) -> bool;

    /// What the guest's driver takes at present.
    fn offloads(&self) -> Offloads;

    /// The cable is plugged in, or pulled out, which the guest is told. Without it frames are lost, both ways.
    fn set_link(&mut self, up: bool);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_bounded_by_frames_and_by_bytes() {
        let mut queue = FrameQueue::default();
        for _ in 0..2000 {
            queue.push(Frame { bytes: vec![0; 60], offload: Offload::default() });
        }
        assert_eq!(queue.len(), FrameQueue::FRAMES);
        queue.clear();
        assert!(queue.is_empty() && queue.has_room() && queue.bytes == 0);
        for _ in 0..2000 {
            queue.push(Frame { bytes: vec![0; MAX_SEGMENTED], offload: Offload::default() });
        }
        assert!(queue.bytes < FrameQueue::BYTES + MAX_SEGMENTED);
        queue.pop();
        assert!(queue.buffer().is_empty());
    }

    #[test]
    fn a_batch_keeps_frames_apart() {
        let mut batch = Batch::default();
        let fill = |value: u8| move |bytes: &mut [u8]| (bytes.fill(value), value != 2).1;
        (1..4).for_each(|value| batch.add(usize::from(value), Offload::default(), fill(value)));
        assert_eq!(batch.iter().map(|(bytes, _)| bytes.to_vec()).collect::<Vec<_>>(), [vec![1], vec![3, 3, 3]]);
        batch.clear();
        while batch.has_room() {
            batch.add(usize::MAX, Offload::default(), |_| true);
        }
        assert!(batch.bytes.len() <= Batch::BYTES + MAX_SEGMENTED);
    }
}
