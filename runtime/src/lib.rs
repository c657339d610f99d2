//! Machines that run guests, and the pieces of the `mimus` command.

pub mod block;
pub mod boot;
pub mod bus;
pub mod cache;
pub mod chardev;
pub mod cli;
pub mod clock;
pub mod compile;
pub mod config;
pub mod control;
pub mod demo;
pub mod display;
pub mod kick;
pub mod lockstep;
mod log;
pub mod machine;
pub mod monitor;
pub mod net;
mod patience;
pub mod signals;
mod slow;
mod socket;
pub mod stats;
pub mod terminal;
mod throttle;
pub mod vcpu;
mod wake;
