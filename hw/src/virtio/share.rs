//! The 9P transport: a folder that the guest shares with the host.
//!
//! The standard only reserves its number (VIRTIO 1.2, 5): what it does is what Linux's driver expects. There is one queue. A chain has a
//! message in what the device reads and room for the answer in what it writes; the configuration space has the tag that the folder is
//! mounted by, after its length.

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};

use super::Device;
use super::queue::{Broken, Chain, VirtQueue};
use crate::buffer::Buffer;
use crate::share::{MAX_MESSAGE, ShareBackend, ShareRequest};

/// The type's number (5).
const ID_9P: u32 = 9;
/// The configuration space has a tag.
const MOUNT_TAG: u64 = 1 << 0;
/// The queue of messages.
pub(super) const QUEUE: usize = 0;
const QUEUE_SIZE: u16 = 128;
/// Bytes of the shortest message: size, type, tag.
const HEADER: u64 = 7;

/// A message that the backend has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    token: u64,
    head: u16,
    message: Buffer,
    answer: Buffer,
}

/// A shared folder's state as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ShareData {
    pending: Vec<Pending>,
}

/// A shared folder.
pub(super) struct Share {
    tag: String,
    backend: Box<dyn ShareBackend>,
    pending: Vec<Pending>,
    /// Never used twice, not even after a reset: the backend may be late.
    next_token: u64,
    /// Messages that the backend has, those of before a reset included: a driver must not make them more and more by resetting.
    under_way: usize,
}

impl Share {
    pub(super) fn new(tag: String, backend: Box<dyn ShareBackend>) -> Share {
        Share { tag, backend, pending: Vec::new(), next_token: 0, under_way: 0 }
    }

    fn start(&mut self, chain: Chain) -> Result<(), Broken> {
        let Chain { head, readable, writable } = chain;
        if readable.len() < HEADER || writable.len() < HEADER {
            return Err(Broken("a message or the room for its answer is too short"));
        }
        self.submit(Pending { token: 0, head, message: readable, answer: writable });
        Ok(())
    }

    /// Gives the backend a message under a new token.
    fn submit(&mut self, message: Pending) {
        self.next_token += 1;
        self.under_way += 1;
        self.pending.push(Pending { token: self.next_token, ..message });
        self.backend.submit(self.next_token);
    }

    /// The backend is done with a message, wanted or not.
    pub(super) fn returned(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The backend is done with a message whose driver stopped the device and gets no answer.
    pub(super) fn forget(&mut self, token: u64) {
        self.pending.retain(|message| message.token != token);
    }

    pub(super) fn request(&self, mem: &Dma, token: u64) -> Option<ShareRequest> {
        let pending = self.pending.iter().find(|pending| pending.token == token)?;
        // What is longer than any message may be is cut, and no message then, by its own size.
        let mut message = vec![0; pending.message.len().min(MAX_MESSAGE.into()) as usize];
        let read = pending.message.read(mem, 0, &mut message);
        message.truncate(read);
        Some(ShareRequest { message, room: pending.answer.len() })
    }

    pub(super) fn answer(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &Dma,
        token: u64,
        answer: &[u8],
    ) -> Result<(), Broken> {
        let Some(index) = self.pending.iter().position(|pending| pending.token == token) else { return Ok(()) };
        let pending = self.pending.remove(index);
        if answer.len() as u64 > pending.answer.len() {
            return Err(Broken("there is no room for an answer"));
        }
        let written = pending.answer.write(mem, 0, answer);
        match queues.get_mut(QUEUE) {
            Some(queue) => queue.push(mem, pending.head, u32::try_from(written).unwrap_or(u32::MAX)),
            None => Ok(()),
        }
    }

    pub(super) fn save(&self) -> ShareData {
        ShareData { pending: self.pending.clone() }
    }

    /// Whether this device would have begun what is under way.
    pub(super) fn fits(&self, mem: &Dma, data: &ShareData) -> bool {
        let is_one = |message: &Pending| {
            message.message.len() >= HEADER
                && message.answer.len() >= HEADER
                && message.message.is_in(mem)
                && message.answer.is_in(mem)
        };
        data.pending.len() <= usize::from(QUEUE_SIZE) && data.pending.iter().all(is_one)
    }

    pub(super) fn restore(&mut self, data: ShareData) {
        data.pending.into_iter().for_each(|message| self.submit(message));
    }
}

impl Device for Share {
    fn id(&self) -> u32 {
        ID_9P
    }

    fn features(&self) -> u64 {
        MOUNT_TAG
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        let len = u16::try_from(self.tag.len()).unwrap_or(u16::MAX);
        len.to_le_bytes().into_iter().chain(self.tag.bytes().take(len.into())).collect()
    }

    fn reset(&mut self) {
        self.pending.clear();
        self.backend.reset();
    }

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        for _ in 0..QUEUE_SIZE {
            // A driver has no more under way than its queue holds; one that seems to, or has reset the device, must wait.
            if self.under_way >= usize::from(QUEUE_SIZE) {
                return Ok(false);
            }
            let Some(queue) = queues.get_mut(index) else { return Ok(false) };
            match queue.pop(mem)? {
                Some(chain) => self.start(chain)?,
                None if queue.rearm(mem)? => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::virtio::Virtio;
    use crate::virtio::testing::{BASE, Driver, NEXT, SIZE, WRITE, setup};

    /// What waits, and how often the device was reset.
    #[derive(Clone, Default)]
    struct Host(Arc<Mutex<(Vec<u64>, u32)>>);

    impl ShareBackend for Host {
        fn submit(&mut self, token: u64) {
            self.0.lock().unwrap().0.push(token);
        }

        fn reset(&mut self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    impl Host {
        fn take(&self) -> Vec<u64> {
            std::mem::take(&mut self.0.lock().unwrap().0)
        }
    }

    fn device() -> (Virtio, Driver, Host) {
        let (ram, mem) = setup();
        let host = Host::default();
        let mut device = Virtio::share(mem, "tag".into(), Box::new(host.clone()));
        let driver = Driver::start(&mut device, &ram);
        (device, driver, host)
    }

    #[test]
    fn the_tag_is_in_the_configuration_space() {
        let (device, ..) = device();
        let mut config = [0xff; 6];
        device.read_config(0, &mut config);
        assert_eq!((device.id(), device.features() & 0xffff, &config), (9, 1, b"\x03\0tag\0"));
    }

    #[test]
    fn messages_are_answered_in_the_chains_that_they_came_in() {
        let (mut device, mut driver, host) = device();
        let first = driver.offer(0, &[b"mess", b"age"], &[4, 8]);
        let second = driver.offer(0, &[b"another"], &[7]);
        device.notify(0);
        let tokens = host.take();
        let request = |message: &[u8], room| Some(ShareRequest { message: message.to_vec(), room });
        assert_eq!(device.share_request(tokens[0]), request(b"message", 12));
        device.share_answer(tokens[0], b"answer of 12");
        assert_eq!(device.share_request(tokens[0]), None);
        assert_eq!(device.share_request(tokens[1]), request(b"another", 7));
        device.share_answer(tokens[1], b"shorter");
        assert_eq!(driver.used(0), [(first.head, 12), (second.head, 7)]);
        assert_eq!(driver.bytes(&first.writable), b"answer of 12");
        assert!(device.interrupt());
    }

    #[test]
    fn who_leaves_no_room_needs_a_reset() {
        let short: [(&[&[u8]], &[u32]); 3] = [(&[b"short."], &[100]), (&[b"long enough"], &[6]), (&[], &[])];
        for (readable, writable) in short {
            let (mut device, mut driver, host) = device();
            driver.offer(0, readable, writable);
            device.notify(0);
            assert_ne!(device.status() & 0x40, 0, "{readable:?} {writable:?}");
            assert!(host.take().is_empty());
        }
        let (mut device, mut driver, host) = device();
        driver.offer(0, &[b"message"], &[7]);
        device.notify(0);
        device.share_answer(host.take()[0], b"too long");
        assert_ne!(device.status() & 0x40, 0);
        assert!(driver.used(0).is_empty());
    }

    /// A chain of as many bytes as there is RAM, all of them the same ones.
    #[test]
    fn no_more_is_copied_than_a_message_may_have() {
        let (mut device, mut driver, host) = device();
        let [table, ..] = driver.rings(0);
        for index in 0..4 {
            driver.describe(table, index, (BASE, SIZE as u32), NEXT, index + 1);
        }
        driver.describe(table, 4, (BASE, 64), WRITE, 0);
        driver.publish(0, 0);
        device.notify(0);
        let request = device.share_request(host.take()[0]).unwrap();
        assert_eq!((request.message.len(), request.room), (MAX_MESSAGE as usize, 64));
    }

    #[test]
    fn a_reset_device_answers_nothing_and_takes_no_more_than_its_queue_holds() {
        let (mut device, mut driver, host) = device();
        driver.offer(0, &[b"message"], &[7]);
        device.notify(0);
        let old = host.take()[0];
        let resets = host.0.lock().unwrap().1;
        device.set_status(0);
        assert_eq!((host.0.lock().unwrap().1, device.share_request(old)), (resets + 1, None));
        let (ram, mem) = setup();
        let mut device = Virtio::share(mem, "tag".into(), Box::new(host.clone()));
        let mut driver = Driver::start(&mut device, &ram);
        for round in 0..3 {
            if round != 0 {
                driver = Driver::start(&mut device, &ram);
            }
            for _ in 0..40 {
                driver.offer(0, &[b"message"], &[7]);
            }
            device.notify(0);
        }
        assert_eq!(host.take().len(), 120);
        driver = Driver::start(&mut device, &ram);
        for _ in 0..40 {
            driver.offer(0, &[b"message"], &[7]);
        }
        device.notify(0);
        let last = host.take();
        assert_eq!(last.len(), 8);
        // What is done makes room for what waits.
        device.share_answer(1, b"nobody waits");
        assert_eq!(host.take().len(), 1);
    }

    #[test]
    fn what_is_under_way_is_state() {
        let (mut device, mut driver, host) = device();
        let chain = driver.offer(0, &[b"message"], &[7]);
        device.notify(0);
        let data = device.save();
        assert!(device.fits(&data));
        device.restore(data);
        let tokens = host.take();
        assert_eq!((tokens.len(), device.share_request(tokens[0])), (2, None));
        device.share_answer(tokens[0], b"too late");
        device.share_answer(tokens[1], b"answer!");
        assert_eq!(driver.used(0), [(chain.head, 7)]);
    }
}
