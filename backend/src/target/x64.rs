//! x86-64 hosts: the quick tier, and what compiled code needs of such a host alone.

pub(crate) mod frame;
pub(crate) mod listing;
pub(crate) mod mxcsr;
#[cfg(all(feature = "native-oracle", target_arch = "x86_64", target_os = "linux"))]
pub mod native;
pub(crate) mod quick;
pub(crate) mod stubs;
pub(crate) mod x87;
