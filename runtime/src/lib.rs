//! Machines that run guests, and a translator for one's own.
