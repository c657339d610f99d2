//! A buffer of scattered pieces of guest RAM, as descriptors of virtio and of ATA's bus master name them.

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

/// A piece of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Guest-physical address.
    pub(crate) gpa: u64,
    /// Bytes.
    pub(crate) len: u32,
}

/// Pieces of guest RAM that form one buffer, all of them within RAM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Buffer(Vec<Segment>);

impl Buffer {
    /// A buffer of these pieces, which are all within RAM.
    pub(crate) fn new(pieces: Vec<Segment>) -> Buffer {
        Buffer(pieces)
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|segment| u64::from(segment.len)).sum()
    }

    /// Whether all of it is RAM.
    pub(crate) fn is_in(&self, mem: &Dma) -> bool {
        self.0
            .iter()
            .all(|segment| mem.check_range(GuestAddress(segment.gpa), segment.len as usize, Permissions::ReadWrite))
    }

    /// Takes the first `count` bytes off; `None`, and nothing has changed, if there are fewer.
    pub(crate) fn take_front(&mut self, count: u64) -> Option<Buffer> {
        if self.len() < count {
            return None;
        }
        let (mut front, mut rest, mut left) = (Vec::new(), Vec::new(), count);
        for segment in self.0.drain(..) {
            // At most the segment's length.
            let here = left.min(u64::from(segment.len)) as u32;
            left -= u64::from(here);
            if here != 0 {
                front.push(Segment { gpa: segment.gpa, len: here });
            }
            if here != segment.len {
                rest.push(Segment { gpa: segment.gpa + u64::from(here), len: segment.len - here });
            }
        }
        self.0 = rest;
        Some(Buffer(front))
    }

    /// The parts that hold `count` bytes from byte `at` on: address and length. Stops at the end.
    fn parts(&self, at: u64, count: usize) -> impl Iterator<Item = (u64, usize)> {
        let (mut skip, mut left) = (at, count);
        self.0.iter().filter_map(move |segment| {
            let len = u64::from(segment.len);
            let from = skip.min(len);
            skip -= from;
            let here = usize::try_from(len - from).unwrap_or(usize::MAX).min(left);
            left -= here;
            (here != 0).then_some((segment.gpa + from, here))
        })
    }

    /// Where bytes `at..at + count` are, address and length of each part; `None` if there are not so many.
    pub(crate) fn parts_of(&self, at: u64, count: usize) -> Option<Vec<(u64, usize)>> {
        let parts: Vec<_> = self.parts(at, count).collect();
        (parts.iter().map(|(_, len)| len).sum::<usize>() == count).then_some(parts)
    }

    /// Copies from byte `at` on into `out`; how many bytes that were.
    pub(crate) fn read(&self, mem: &Dma, at: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        for (gpa, len) in self.parts(at, out.len()) {
            let read = out.get_mut(done..done + len).map(|out| mem.read_slice(out, GuestAddress(gpa)));
            if !matches!(read, Some(Ok(()))) {
                break;
            }
            done += len;
        }
        done
    }

    /// Copies `bytes` to byte `at` on; how many bytes that were.
    pub(crate) fn write(&self, mem: &Dma, at: u64, bytes: &[u8]) -> usize {
        let mut done = 0;
        for (gpa, len) in self.parts(at, bytes.len()) {
            let written = bytes.get(done..done + len).map(|bytes| mem.write_slice(bytes, GuestAddress(gpa)));
            if !matches!(written, Some(Ok(()))) {
                break;
            }
            done += len;
        }
        done
    }
}
