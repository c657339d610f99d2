//! Machines that run guests, and the pieces of the `mimus` command.

pub mod block;
pub mod boot;
pub mod bus;
pub mod chardev;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod display;
pub mod host;
pub mod machine;
pub mod monitor;
pub mod net;
pub mod share;
pub mod signals;
mod socket;
pub mod terminal;
mod throttle;
mod wake;
