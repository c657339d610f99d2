//! The interface between the 9P device and the host side that serves a shared folder.
//!
//! A device hands over the messages of its driver one by one. The host side reads each when it comes to it, does what it says on a
//! thread of its own, and answers in the order in which they came. Messages are copied while the device is locked, so that a device
//! that was reset is left alone.

/// The host side of a shared folder.
pub trait ShareBackend: Send {
    /// Message `token` waits: to be read by [`Virtio::share_request`](crate::virtio::Virtio::share_request) and answered by
    /// [`Virtio::share_answer`](crate::virtio::Virtio::share_answer), from another call than this one, in order. Returns at once. No
    /// more than 128 ever wait.
    fn submit(&mut self, token: u64);

    /// The driver has reset the device: what it had open is closed once the messages before this are done.
    fn reset(&mut self);
}

/// A message, and what there is room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareRequest {
    /// The message.
    pub message: Vec<u8>,
    /// Bytes that its answer may have.
    pub room: u64,
}

/// Bytes that a message may have, and that are copied at once.
pub const MAX_MESSAGE: u32 = 1 << 20;
