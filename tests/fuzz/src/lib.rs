//! Fuzz targets: a guest that obeys no rule, a network peer, a display's client, a debugger that sends anything.
//!
//! A target takes bytes and makes of them a sequence of what its bad company does: accesses of any size, anything in RAM that
//! a device reads, time, resets, and now and then a machine that is saved and goes on as a second one beside the first. What
//! must hold:
//!
//! * nothing panics; the crates are built with overflow checks and debug assertions (Cargo's `dev` profile);
//! * an access ends soon, in time of the host's processor, and a machine is done at some point of time;
//! * what a device keeps is bounded: jobs, frames, pictures, and the process's memory;
//! * a machine made of what was saved gives what the first one gives: values, output, memory, and what is saved again.
//!
//! The same targets run on a seed (`cargo run -p mimus-fuzz`), for some seconds in the tests, and under cargo-fuzz
//! (`tests/fuzz/libfuzzer`).
#![forbid(unsafe_code)]

mod bench;
mod devices;
mod drivers;
mod host;
#[cfg(feature = "host")]
mod hosts;
mod input;
mod virtio;

use input::Input;

/// Bytes of a case made from a seed.
const CASE: u64 = 3000;

/// A target: its name, and what runs a case.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// How many cases are too many for a test of all targets; the others take a few milliseconds each.
    pub few: bool,
    case: Case,
}

#[derive(Clone, Copy)]
enum Case {
    Device(&'static devices::Device),
    #[cfg(feature = "host")]
    Host(fn(&mut Input)),
}

impl Target {
    /// Runs one case.
    ///
    /// # Panics
    ///
    /// When something is wrong.
    pub fn run(&self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        match self.case {
            Case::Device(device) => device.run(&mut input),
            #[cfg(feature = "host")]
            Case::Host(run) => run(&mut input),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All targets.
pub fn targets() -> Vec<Target> {
    let devices = devices::DEVICES.iter();
    let devices = devices.map(|device| Target { name: device.name, few: false, case: Case::Device(device) });
    #[cfg(feature = "host")]
    let devices =
        devices.chain(hosts::HOSTS.iter().map(|(name, run)| Target { name, few: true, case: Case::Host(*run) }));
    devices.collect()
}

/// The bytes of the case that a seed stands for (SplitMix64).
pub fn case(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let len = next() % CASE;
    (0..len).map(|_| next() as u8).collect()
}
