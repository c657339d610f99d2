//! Machines that run guests, and the pieces of the `mimus` command.

pub mod boot;
pub mod cli;
pub mod config;
pub mod terminal;
