//! What the host side of a machine is told: plain typed values, no command-line syntax.

mod chardev;
mod disk;
mod net;
mod plug;
mod process;
mod pty;
mod share;

pub use chardev::{Chardev, MonitorSocket};
pub use disk::{Cache, Disk, ImageFormat, Layers, Limit, Limits, OnError, Zeroes};
pub use net::{
    Capture, Endpoint, FIRST_MAC, Forward, GuestForward, Link, NetBackend, NetBoot, Netdev, Protocol, Service, UserNet,
};
pub use plug::Plug;
pub use process::{OnSigterm, Process, RunAs, Sandbox};
pub use pty::PtyName;
pub use share::{OtherDevices, SecurityModel, SharedFolder};
