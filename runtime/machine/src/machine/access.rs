//! What leads threads of the host to a device of a board, whichever the device and the board are.

use mimus_host::net;
use mimus_hw::net::{Adapter, Batch, FrameQueue, Offloads};

/// A way to a device. What is done by it is done at the present time, with the devices locked, and what it sets off is passed on.
pub(super) trait DeviceAccess: Clone + Send + 'static {
    /// Has the device go on with what its host side has done.
    fn attend(&self);

    /// Does something with the device, which is a network adapter.
    fn adapter<T: Default>(&self, f: impl FnOnce(&mut dyn Adapter) -> T) -> T;
}

/// A network adapter as the thread of its network sees it.
pub(super) struct AdapterExchange<A>(pub(super) A);

impl<A: DeviceAccess> net::Exchange for AdapterExchange<A> {
    fn transmit(&self, batch: &mut Batch) -> bool {
        self.0.adapter(|adapter| adapter.transmit(batch))
    }

    fn receive(&self, queue: &mut FrameQueue) -> bool {
        self.0.adapter(|adapter| adapter.receive(queue))
    }

    fn offloads(&self) -> Offloads {
        self.0.adapter(|adapter| adapter.offloads())
    }

    fn set_link(&self, up: bool) {
        self.0.adapter(|adapter| adapter.set_link(up));
    }
}
