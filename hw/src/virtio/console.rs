//! The console device with one port (VIRTIO 1.2, 5.3).

use mimus_softmmu::Dma;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::Device;
use super::queue::{Broken, VirtQueue};
use crate::CharSink;

/// The queue of buffers for input.
const RECEIVE: usize = 0;
const QUEUE_SIZE: u16 = 128;
/// Bytes that are copied at once.
const PIECE: u64 = 4096;
/// The most bytes that one notification prints.
const MAX_OUTPUT: u64 = 1 << 20;

/// A console.
pub(super) struct Console {
    sink: Box<dyn CharSink>,
}

impl Console {
    pub(super) fn new(sink: Box<dyn CharSink>) -> Self {
        Console { sink }
    }

    /// Gives input to the driver's buffers; how many bytes they took.
    pub(super) fn receive(&mut self, queues: &mut [VirtQueue], mem: &Dma, mut bytes: &[u8]) -> Result<usize, Broken> {
        let all = bytes.len();
        let Some(queue) = queues.get_mut(RECEIVE) else { return Ok(0) };
        // Buffers without room would come back for ever.
        for _ in 0..QUEUE_SIZE {
            if bytes.is_empty() {
                break;
            }
            let Some(chain) = queue.pop(mem)? else {
                // The driver says when there are buffers again.
                if queue.rearm(mem)? {
                    continue;
                }
                break;
            };
            let written = chain.writable.write(mem, 0, bytes);
            queue.push(mem, chain.head, written as u32)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(all - bytes.len())
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// Columns, rows and the number of ports count with features that are not offered.
    fn config(&self) -> Vec<u8> {
        vec![0; 12]
    }

    fn reset(&mut self) {}

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        let Some(queue) = queues.get_mut(index) else { return Ok(false) };
        if index == RECEIVE {
            // The buffers wait for input.
            return Ok(false);
        }
        let mut printed = 0;
        for _ in 0..QUEUE_SIZE {
            let Some(chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            let len = chain.readable.len();
            let mut at = 0;
            while at < len.min(MAX_OUTPUT) {
                let mut piece = vec![0; (len - at).min(PIECE) as usize];
                let read = chain.readable.read(mem, at, &mut piece);
                self.sink.write(piece.get(..read).unwrap_or_default());
                at += PIECE;
            }
            printed += len;
            queue.push(mem, chain.head, 0)?;
            if printed >= MAX_OUTPUT {
                break;
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
    use crate::virtio::testing::{Driver, setup};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl CharSink for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }
    }

    #[test]
    fn output_in_order_and_input_into_buffers() {
        let (ram, mem) = setup();
        let sink = Sink::default();
        let mut device = Virtio::console(mem, Box::new(sink.clone()));
        let mut driver = Driver::start(&mut device, &ram);
        assert_eq!(device.console_receive(b"early"), 0, "no buffers yet");
        driver.offer(1, &[b"hello, ", b"world"], &[]);
        driver.offer(1, &[b"!"], &[]);
        device.notify(1);
        assert_eq!(*sink.0.lock().unwrap(), b"hello, world!");
        assert_eq!(driver.used(1).len(), 2);
        let first = driver.offer(0, &[], &[3]);
        let second = driver.offer(0, &[], &[8]);
        device.notify(0);
        assert_eq!(driver.used(0), []);
        assert_eq!(device.console_receive(b"abcde"), 5);
        assert_eq!(driver.used(0), [(first.head, 3), (second.head, 2)]);
        assert_eq!(driver.bytes(&first.writable), b"abc");
        assert_eq!(driver.bytes(&second.writable)[..2], *b"de");
        assert_eq!(device.isr(), 1);
        driver.offer(0, &[], &[2]);
        assert_eq!(device.console_receive(b"xyz"), 2, "the rest stays with the host");
    }
}
