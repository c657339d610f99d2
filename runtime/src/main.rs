//! The `mimus` command.
#![forbid(unsafe_code)]

fn main() {}
