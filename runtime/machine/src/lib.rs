//! Whole machines: boards with their devices and vCPUs, what they boot, their threads, and who watches and controls them.
//!
//! [`config`] says what a machine is to be; `mimus-cli` makes that of a command line, and an embedder makes it of nothing but
//! values. [`machine::Machine`] runs it.

pub mod boot;
pub mod bus;
pub mod config;
pub mod control;
pub mod demo;
mod descriptors;
pub mod machine;
mod memory_map;
pub mod monitor;
pub mod offers;
mod throttle;
