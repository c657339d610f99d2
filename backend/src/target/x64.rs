//! x86-64 hosts.

pub(crate) mod mxcsr;
pub(crate) mod x87;
