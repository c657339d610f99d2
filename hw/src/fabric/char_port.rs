//! The handle by which a serial port sends characters to the host.

use std::sync::{Arc, Mutex};

use super::lock::lock;

/// Where a device's characters go on the host side: a terminal, a file, nowhere.
pub trait CharSink: Send {
    /// Takes `bytes`, in order. The device does not wait and does not learn of failures.
    fn write(&mut self, bytes: &[u8]);
}

/// The handle of a device that sends characters. Clones send to the same place; one that is not connected drops them.
#[derive(Clone, Default)]
pub(crate) struct CharPort(Option<Arc<Mutex<Box<dyn CharSink>>>>);

impl CharPort {
    /// A port that sends to `sink`.
    pub(crate) fn new(sink: Box<dyn CharSink>) -> CharPort {
        CharPort(Some(Arc::new(Mutex::new(sink))))
    }

    /// Sends `bytes`, in order.
    pub(crate) fn send(&self, bytes: &[u8]) {
        if let Some(sink) = &self.0 {
            lock(sink).write(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_send_to_one_place() {
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl CharSink for Sink {
            fn write(&mut self, bytes: &[u8]) {
                self.0.lock().unwrap().extend_from_slice(bytes);
            }
        }
        let sent = Arc::default();
        let port = CharPort::new(Box::new(Sink(Arc::clone(&sent))));
        port.send(b"ab");
        port.clone().send(b"c");
        CharPort::default().send(b"d");
        assert_eq!(*sent.lock().unwrap(), b"abc");
    }
}
