//! The x86 guest.

pub mod fp;
