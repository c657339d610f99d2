//! Placeholder documentation, replaced as the crate grows.
