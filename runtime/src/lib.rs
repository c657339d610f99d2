//! Machines that run guests, and the pieces of the `mimus` command.

pub mod boot;
pub mod bus;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod machine;
pub mod monitor;
mod throttle;
