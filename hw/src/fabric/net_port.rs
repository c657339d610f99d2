//! Where a network adapter is plugged in.

use crate::net::NetPeer;

/// The handle of a network adapter: its end of a cable, which may be pulled out, and may lead nowhere.
pub(crate) struct NetPort {
    peer: Option<Box<dyn NetPeer>>,
    up: bool,
    /// The peer has frames for which the guest had no room.
    starved: bool,
}

impl NetPort {
    /// A port with its cable plugged in, which leads to `peer`.
    pub(crate) fn new(peer: Option<Box<dyn NetPeer>>) -> NetPort {
        NetPort { peer, up: true, starved: false }
    }

    /// Whether the cable leads anywhere, plugged in or not.
    pub(crate) fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether the peer takes and gives frames that are unfinished.
    pub(crate) fn offloads(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.offloads())
    }

    /// Whether the cable is plugged in.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Plugs the cable in, or pulls it out; whether that changes anything.
    pub(crate) fn set_link(&mut self, up: bool) -> bool {
        std::mem::replace(&mut self.up, up) != up
    }

    /// Tells the peer that there is something for it to do.
    pub(crate) fn notify(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.notify();
        }
    }

    /// There was no room for a frame of the peer's, or it is not known whether there was.
    pub(crate) fn starve(&mut self) {
        self.starved = true;
    }

    /// The adapter is reset, which does nothing to the cable.
    pub(crate) fn reset(&mut self) {
        self.starved = false;
    }

    /// The guest has made room: tells the peer, if that waits for it.
    pub(crate) fn has_room(&mut self) {
        if std::mem::take(&mut self.starved) {
            self.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Peer(Arc<AtomicUsize>);

    impl NetPeer for Peer {
        fn notify(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn offloads(&self) -> bool {
            true
        }
    }

    #[test]
    fn the_peer_is_told_of_room_once_if_it_waits() {
        let told = Arc::new(AtomicUsize::new(0));
        let mut port = NetPort::new(Some(Box::new(Peer(told.clone()))));
        port.has_room();
        assert_eq!(told.load(Ordering::Relaxed), 0);
        port.starve();
        port.has_room();
        port.has_room();
        assert_eq!((told.load(Ordering::Relaxed), port.offloads()), (1, true));
        assert!(port.is_up() && port.set_link(false) && !port.set_link(false) && !port.is_up() && port.has_peer());
        let mut nowhere = NetPort::new(None);
        nowhere.notify();
        assert!(nowhere.is_up() && !nowhere.has_peer() && !nowhere.offloads());
    }
}
