//! Some cases of each target. `cargo run -p mimus-fuzz` runs as many as there is time for.
#![forbid(unsafe_code)]

use mimus_fuzz::{Target, case, targets};

/// Cases of each.
const CASES: u64 = 60;
const FEW: u64 = 3;

fn run(target: &Target) {
    for seed in 1..=if target.few { FEW } else { CASES } {
        let result = std::panic::catch_unwind(|| target.run(&case(seed)));
        assert!(result.is_ok(), "{} with seed {seed}: cargo run -p mimus-fuzz -- {0} --seed {1}", target.name, seed);
    }
}

#[test]
fn no_device_minds_a_malicious_guest() {
    targets().iter().filter(|target| !target.few).for_each(run);
}

#[test]
fn no_host_side_minds_a_malicious_peer() {
    targets().iter().filter(|target| target.few).for_each(run);
}

/// Cargo has no tables that others could be made of.
#[test]
#[cfg(feature = "host")]
fn each_target_is_one_of_cargo_fuzz() {
    let manifest = include_str!("../libfuzzer/Cargo.toml");
    let rows = manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|row| row.split('"').next());
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(rows.collect()), sorted(targets().iter().map(|target| target.name).collect()));
}
