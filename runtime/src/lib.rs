//! Placeholder documentation, replaced as the crate grows.

pub mod boot;
