//! The translator without a machine: the cache of translations, the dispatcher of one vCPU, its tiers, and the lockstep that
//! compares them. With `mimus-ir`, `mimus-frontend`, `mimus-backend` and `mimus-softmmu` it is all that an embedder needs;
//! `mimus-machine` puts vCPUs of it on boards.

pub mod cache;
pub mod compile;
pub mod kept;
pub mod lockstep;
pub mod log;
mod near;
mod slow;
pub mod stats;
pub mod translator;
pub mod vcpu;
