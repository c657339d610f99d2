//! What a configuration says of any device, whatever it is: its id and its place on a bus.

/// What `-device` says of any device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plug {
    /// What monitors call it; empty for nothing.
    pub id: String,
    /// Its place on the PCI bus, `device << 3 | function`; where there is room if none is given.
    pub addr: Option<u8>,
    /// Its slot on a board with virtio-mmio; where there is room if none is given.
    pub slot: Option<u8>,
    /// Its place in the order in which firmware tries to boot devices, the lowest first.
    pub boot_index: Option<u32>,
}
