//! The host side of machines: images and their locks, character devices, sockets, the terminal, networks, shared folders,
//! screens, guest time, and what the process gives up of its rights.
//!
//! Boards (`mimus-machine`) give devices of `mimus-hw` what they need of this. Nothing here knows of vCPUs, of translated
//! code or of the command line: an error names the option that it was told about.

pub mod block;
pub mod chardev;
pub mod clock;
pub mod config;
pub mod devices;
pub mod display;
pub mod error;
pub mod net;
pub mod sandbox;
pub mod share;
pub mod signals;
pub mod socket;
pub mod terminal;
pub mod wake;
