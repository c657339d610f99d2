//! Placeholder documentation, replaced as the crate grows.
#![forbid(unsafe_code)]
