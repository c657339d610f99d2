//! What is no guest's own. Guests import from here and never from one another; `tests/tests/crate_arrows.rs` sees to it.

pub mod context;
pub mod debug;
pub mod fp;
pub mod guest;
pub mod helpers;
mod no_devices;
pub mod pattern;
pub(crate) mod registers;
pub mod reservation;
pub mod vcpu;

pub use no_devices::NoDevices;
