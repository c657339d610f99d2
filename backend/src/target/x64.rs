//! x86-64 hosts.

pub(crate) mod x87;
