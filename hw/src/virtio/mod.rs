//! Virtio devices behind any transport ("Virtual I/O Device (VIRTIO) Version 1.2").
//!
//! A [`Virtio`] is a device type with its queues and its status. A transport ([`mmio`], [`VirtioPci`]) is a register layout in front of
//! it: it selects queues, passes accesses on, and makes an interrupt of what [`Virtio::interrupt`] or [`Virtio::take_signals`]
//! say. What a device writes to guest RAM goes through [`Dma`] and so past the code watches.
//!
//! A driver that breaks the rules gets DEVICE_NEEDS_RESET, and the device does nothing until it is reset (2.1.2).

mod block;
mod console;
pub(crate) mod mmio;
mod net;
mod pci;
mod queue;
mod rng;
mod share;
#[cfg(test)]
mod testing;

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_ANY_LAYOUT,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

pub use crate::block::{BlockBackend, BlockInfo, BlockJob, BlockOp, SECTOR_SIZE};
pub use crate::share::{MAX_MESSAGE, ShareBackend, ShareRequest};
pub use pci::{Interface, VirtioPci};
pub use rng::Entropy;

pub use console::{ConsolePort, MAX_PORTS};

use block::Block;
use console::{Console, ConsoleData};
use net::Net;
use queue::{Broken, QueueData, VirtQueue};
use rng::Rng;
use share::{Share, ShareData};

use crate::fabric::CharSink;
use crate::net::{Adapter, Batch, FrameQueue, NetPeer, Offloads};

/// Features of every device: the rings' and the standard's (6).
const COMMON_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// The same of a device from before the standard (6.3).
const LEGACY_FEATURES: u64 = COMMON_FEATURES & !(1 << VIRTIO_F_VERSION_1) | 1 << VIRTIO_F_ANY_LAYOUT;

/// Bits of the device status (2.1).
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;

/// Bits of the interrupt status (4.2.2): used buffers, changed configuration.
const ISR_QUEUE: u8 = VIRTIO_MMIO_INT_VRING as u8;
const ISR_CONFIG: u8 = VIRTIO_MMIO_INT_CONFIG as u8;

/// What the parts of a device that its type determines have in common.
trait Device {
    /// Its number (5).
    fn id(&self) -> u32;

    /// The features that only this type has.
    fn features(&self) -> u64;

    /// The largest sizes of its queues.
    fn queue_sizes(&self) -> &'static [u16];

    /// The configuration space's bytes.
    fn config(&self) -> Vec<u8>;

    /// Forgets everything but its host handles.
    fn reset(&mut self);

    /// The driver has stopped it, or has broken the rules. What waits gets no answer, and from now on nothing is written to guest
    /// RAM on its behalf.
    fn stop(&mut self) {}

    /// Does what the driver has made available in queue `index`, a bounded part of it at once; whether there is more.
    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken>;
}

/// A device type with its state and its host handle.
enum Model {
    Block(Block),
    Rng(Rng),
    Console(Console),
    Net(Net),
    Share(Share),
}

impl Model {
    fn device(&self) -> &dyn Device {
        match self {
            Model::Block(device) => device,
            Model::Rng(device) => device,
            Model::Console(device) => device,
            Model::Net(device) => device,
            Model::Share(device) => device,
        }
    }

    fn device_mut(&mut self) -> &mut dyn Device {
        match self {
            Model::Block(device) => device,
            Model::Rng(device) => device,
            Model::Console(device) => device,
            Model::Net(device) => device,
            Model::Share(device) => device,
        }
    }
}

/// A virtio device.
pub struct Virtio {
    model: Model,
    mem: Dma,
    queues: Vec<VirtQueue>,
    common: Common,
    /// It is one from before the standard.
    legacy: bool,
}

/// What every device has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Common {
    status: u8,
    /// What the driver has accepted.
    features: u64,
    isr: u8,
    /// Queues, bit by number, whose driver is to be told.
    signals: u64,
    /// Queues, bit by number, with more to do.
    more: u64,
    /// The driver has placed a queue as before the standard. Such drivers may use it before they say DRIVER_OK.
    early: bool,
}

impl Common {
    fn runs(&self) -> bool {
        self.status & NEEDS_RESET == 0 && (self.early || self.status & DRIVER_OK != 0)
    }
}

/// A [`Virtio`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VirtioData {
    id: u32,
    common: Common,
    queues: Vec<QueueData>,
    block: Option<block::BlockData>,
    console: Option<ConsoleData>,
    share: Option<ShareData>,
}

impl Virtio {
    fn new(model: Model, mem: Dma) -> Virtio {
        let queues = model.device().queue_sizes().iter().map(|&size| VirtQueue::new(size)).collect();
        Virtio { model, mem, queues, common: Common::default(), legacy: false }
    }

    /// A disk of `info`, whose jobs `backend` does.
    pub fn block(mem: Dma, info: BlockInfo, backend: Box<dyn BlockBackend>) -> Virtio {
        Virtio::new(Model::Block(Block::new(mem.clone(), info, backend)), mem)
    }

    /// A source of random numbers.
    pub fn rng(mem: Dma, entropy: Box<dyn Entropy>) -> Virtio {
        Virtio::new(Model::Rng(Rng::new(entropy)), mem)
    }

    /// A console.
    pub fn console(mem: Dma, sink: Box<dyn CharSink>) -> Virtio {
        Virtio::new(Model::Console(Console::new(sink)), mem)
    }

    /// Ports of characters that a control queue tells of, each with a number of its own.
    pub fn ports(mem: Dma, ports: Vec<ConsolePort>) -> Virtio {
        Virtio::new(Model::Console(Console::of_ports(ports)), mem)
    }

    /// A network adapter with this hardware address, plugged into `peer` or into nothing.
    pub fn net(mem: Dma, mac: [u8; 6], peer: Option<Box<dyn NetPeer>>) -> Virtio {
        Virtio::new(Model::Net(Net::new(mac, peer)), mem)
    }

    /// A folder that the guest mounts by `tag`, whose messages `backend` answers.
    pub fn share(mem: Dma, tag: String, backend: Box<dyn ShareBackend>) -> Virtio {
        Virtio::new(Model::Share(Share::new(tag, backend)), mem)
    }

    /// Device type (5).
    pub(crate) fn id(&self) -> u32 {
        self.model.device().id()
    }

    /// Makes it a device from before the standard, which its transport must be, too.
    pub(crate) fn make_legacy(&mut self) {
        self.legacy = true;
    }

    /// What the device offers.
    pub(crate) fn features(&self) -> u64 {
        self.model.device().features() | if self.legacy { LEGACY_FEATURES } else { COMMON_FEATURES }
    }

    /// What the driver has accepted of it.
    pub(crate) fn accepted_features(&self) -> u64 {
        self.common.features
    }

    /// Writes half `high` of the features that the driver accepts, until FEATURES_OK (3.1.1). That status is not there on a legacy
    /// device, which drops what it did not offer.
    pub(crate) fn accept_features(&mut self, high: bool, value: u32) {
        if self.common.status & FEATURES_OK == 0 {
            let (shift, kept) = if high { (32, 0xffff_ffff) } else { (0, 0xffff_ffff << 32) };
            self.common.features = self.common.features & kept | u64::from(value) << shift;
            if self.legacy {
                self.common.features &= self.features();
            }
        }
    }

    /// Writes the features that the driver accepts by an interface from before the standard: of those that it is offered there.
    pub(crate) fn accept_legacy_features(&mut self, value: u32) {
        self.common.features = u64::from(value) & self.features();
    }

    /// The device status.
    pub(crate) fn status(&self) -> u8 {
        self.common.status
    }

    /// Writes the device status: 0 resets (2.1, 3.1.1).
    pub(crate) fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let mut value = value | self.common.status & NEEDS_RESET;
        // A driver that leaves out VIRTIO_F_VERSION_1 may be refused (6.2), and is not: some know the first 32 features only.
        if self.common.features & !self.features() != 0 {
            value &= !FEATURES_OK;
        }
        let started = value & !self.common.status & DRIVER_OK != 0;
        self.common.status = value;
        if started {
            // Whatever was made available before, the notification of which came too early.
            (0..self.queues.len()).for_each(|index| self.process(index));
        }
        if !self.runs() {
            self.model.device_mut().stop();
        }
    }

    /// Its transport may not reach RAM any more: it stops, until its driver starts it again.
    pub(crate) fn lose_bus(&mut self) {
        self.common.status &= !DRIVER_OK;
        self.common.early = false;
        self.model.device_mut().stop();
    }

    /// As at power-on. A job that the backend still has is finished without effect.
    pub(crate) fn reset(&mut self) {
        self.common = Common::default();
        self.queues.iter_mut().for_each(VirtQueue::reset);
        self.model.device_mut().reset();
    }

    pub(crate) fn queue(&self, index: usize) -> Option<&VirtQueue> {
        self.queues.get(index)
    }

    pub(crate) fn queue_mut(&mut self, index: usize) -> Option<&mut VirtQueue> {
        self.queues.get_mut(index)
    }

    /// Switches queue `index` on or off.
    pub(crate) fn set_queue_ready(&mut self, index: usize, ready: bool) {
        let event_idx = self.common.features >> VIRTIO_RING_F_EVENT_IDX & 1 != 0;
        if let Some(queue) = self.queues.get_mut(index) {
            let result = queue.set_ready(&self.mem, ready, event_idx);
            self.check(result);
        }
    }

    /// Places queue `index` as before the standard, see [`VirtQueue::place`], and switches it on.
    pub(crate) fn place_queue(&mut self, index: usize, base: u64, align: u32) {
        if let Some(queue) = self.queues.get_mut(index) {
            queue.place(base, align);
            self.common.early = true;
            self.set_queue_ready(index, true);
        }
    }

    /// The driver has made something available in queue `index`.
    pub(crate) fn notify(&mut self, index: usize) {
        if index < self.queues.len() {
            self.process(index);
        }
    }

    /// Bytes of the configuration space.
    pub(crate) fn config_len(&self) -> usize {
        self.model.device().config().len()
    }

    /// Reads `out.len()` bytes of the configuration space; zeros beyond its end.
    pub(crate) fn read_config(&self, offset: u64, out: &mut [u8]) {
        let config = self.model.device().config();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (out, index) in out.iter_mut().zip(from..) {
            *out = config.get(index).copied().unwrap_or(0);
        }
    }

    /// The interrupt status (4.2.2).
    pub(crate) fn isr(&self) -> u8 {
        self.common.isr
    }

    /// The driver has seen these bits of the interrupt status.
    pub(crate) fn acknowledge(&mut self, bits: u8) {
        self.common.isr &= !bits;
    }

    /// The level of the one interrupt line that a transport without MSI-X has.
    pub(crate) fn interrupt(&self) -> bool {
        self.common.isr != 0
    }

    /// Queues, bit by number, with an interrupt since the last call: for a transport with a vector each.
    pub fn take_signals(&mut self) -> u64 {
        std::mem::take(&mut self.common.signals)
    }

    /// Whether [`Virtio::go_on`] has something to do.
    pub(crate) fn has_more(&self) -> bool {
        self.common.more != 0
    }

    /// Goes on with what was left because it was too much at once.
    pub(crate) fn go_on(&mut self) {
        let more = std::mem::take(&mut self.common.more);
        for index in (0..self.queues.len()).filter(|index| more >> index & 1 != 0) {
            self.process(index);
        }
    }

    fn runs(&self) -> bool {
        self.common.runs()
    }

    /// Whether what a network adapter sends goes anywhere.
    fn is_up(&self) -> bool {
        matches!(&self.model, Model::Net(net) if net.is_up())
    }

    fn process(&mut self, index: usize) {
        if self.runs() {
            let result = self.model.device_mut().process(index, &mut self.queues, &self.mem);
            if let Some(true) = self.check(result) {
                self.common.more |= 1 << index;
            }
            self.signal();
        }
    }

    /// Tells the driver of chains that were given back.
    fn signal(&mut self) {
        for index in 0..self.queues.len() {
            let Some(queue) = self.queues.get_mut(index) else { break };
            let wanted = queue.take_signal(&self.mem);
            if self.check(wanted) == Some(true) {
                self.common.isr |= ISR_QUEUE;
                self.common.signals |= 1 << index;
            }
        }
    }

    /// Stops the device if the driver broke the rules.
    fn check<T>(&mut self, result: Result<T, Broken>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(broken) => {
                tracing::debug!(device = self.id(), "virtio: {broken}: the device needs a reset");
                self.common.status |= NEEDS_RESET;
                self.common.more = 0;
                self.model.device_mut().stop();
                if self.common.status & DRIVER_OK != 0 {
                    self.common.isr |= ISR_CONFIG;
                }
                None
            }
        }
    }

    /// Whether this is a disk.
    pub fn is_block(&self) -> bool {
        matches!(self.model, Model::Block(_))
    }

    /// The host side has done something: jobs of a disk are over.
    pub fn attend(&mut self) {
        if let Model::Block(_) = self.model {
            while let Model::Block(block) = &mut self.model
                && let Some(job) = block.next_finished()
            {
                let result = block.finish(&mut self.queues, &self.mem, &job);
                self.check(result);
            }
            // There is room for others.
            self.process(block::QUEUE);
        }
    }

    /// Message `token` of a shared folder's driver. `None` when nobody waits for an answer: the device was reset.
    pub fn share_request(&mut self, token: u64) -> Option<ShareRequest> {
        match &self.model {
            Model::Share(share) if self.runs() => share.request(&self.mem, token),
            _ => None,
        }
    }

    /// The answer to message `token`.
    pub fn share_answer(&mut self, token: u64, answer: &[u8]) {
        let Model::Share(share) = &mut self.model else { return };
        share.returned();
        if !self.common.runs() {
            share.forget(token);
            return;
        }
        let result = share.answer(&mut self.queues, &self.mem, token, answer);
        self.check(result);
        // There is room for another message.
        self.process(share::QUEUE);
    }

    /// Bytes of input for port `port` of a console, as many as the guest has buffers for; how many that were.
    pub fn console_receive(&mut self, port: u32, bytes: &[u8]) -> usize {
        if !self.runs() {
            return 0;
        }
        let Model::Console(console) = &mut self.model else { return 0 };
        let result = console.receive(&mut self.queues, &self.mem, self.common.features, (port, bytes));
        let taken = self.check(result).unwrap_or(0);
        self.signal();
        taken
    }

    /// Somebody is at the other end of port `port` of a console, or nobody is any more.
    pub fn console_attend(&mut self, port: u32, here: bool) {
        if let Model::Console(console) = &mut self.model
            && console.attend(port, here)
        {
            self.process(console::CONTROL_RECEIVE);
        }
    }

    pub(crate) fn save(&self) -> VirtioData {
        VirtioData {
            id: self.id(),
            common: self.common.clone(),
            queues: self.queues.iter().map(VirtQueue::save).collect(),
            block: match &self.model {
                Model::Block(block) => Some(block.save()),
                _ => None,
            },
            console: match &self.model {
                Model::Console(console) => Some(console.save()),
                _ => None,
            },
            share: match &self.model {
                Model::Share(share) => Some(share.save()),
                _ => None,
            },
        }
    }

    /// Whether `data` is the state of such a device.
    pub(crate) fn fits(&self, data: &VirtioData) -> bool {
        let sizes = self.model.device().queue_sizes();
        data.id == self.id()
            && data.queues.len() == sizes.len()
            && data.queues.iter().zip(sizes).all(|(data, &size)| VirtQueue::restore(size, data).is_some())
            && match &self.model {
                Model::Block(block) => data.block.as_ref().is_some_and(|data| block.fits(&self.mem, data)),
                _ => data.block.is_none(),
            }
            && match &self.model {
                Model::Console(console) => data.console.as_ref().is_some_and(|data| console.fits(data)),
                _ => data.console.is_none(),
            }
            && match &self.model {
                Model::Share(share) => data.share.as_ref().is_some_and(|data| share.fits(&self.mem, data)),
                _ => data.share.is_none(),
            }
    }

    /// Replaces the state by `data`, which fits. A disk's unfinished jobs are given to its backend again.
    pub(crate) fn restore(&mut self, data: VirtioData) {
        let sizes = self.model.device().queue_sizes();
        self.queues =
            data.queues.iter().zip(sizes).filter_map(|(data, &size)| VirtQueue::restore(size, data)).collect();
        self.common = data.common;
        self.model.device_mut().reset();
        if let (Model::Block(block), Some(data)) = (&mut self.model, data.block) {
            block.restore(data);
        }
        if let (Model::Console(console), Some(data)) = (&mut self.model, data.console) {
            console.restore(data);
        }
        if let (Model::Share(share), Some(data)) = (&mut self.model, data.share) {
            share.restore(data);
        }
    }
}

/// Only a network adapter sends or takes anything.
impl Adapter for Virtio {
    fn transmit(&mut self, batch: &mut Batch) -> bool {
        let features = self.common.features;
        let result = match &mut self.model {
            Model::Net(net) if self.common.runs() => net.transmit(&mut self.queues, &self.mem, features, batch),
            _ => return false,
        };
        let more = self.check(result).unwrap_or(false);
        self.signal();
        if !self.is_up() {
            batch.clear();
        }
        more
    }

    fn receive(&mut self, queue: &mut FrameQueue) -> bool {
        let features = self.common.features;
        let result = match &mut self.model {
            Model::Net(net) if self.common.runs() && net.is_up() => {
                net.receive(&mut self.queues, &self.mem, features, queue)
            }
            _ => {
                // Nobody listens.
                queue.clear();
                return false;
            }
        };
        let more = self.check(result).unwrap_or(false);
        self.signal();
        more
    }

    fn offloads(&self) -> Offloads {
        match self.model {
            Model::Net(_) if self.runs() => Net::offloads(self.common.features),
            _ => Offloads::default(),
        }
    }

    fn set_link(&mut self, up: bool) {
        let changed = if let Model::Net(net) = &mut self.model { net.set_link(up) } else { false };
        if changed && self.common.status & DRIVER_OK != 0 {
            self.common.isr |= ISR_CONFIG;
        }
    }
}

impl std::fmt::Debug for Virtio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Virtio").field("id", &self.id()).field("common", &self.common).finish_non_exhaustive()
    }
}
