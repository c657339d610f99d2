//! Boots a kernel with the library: `cargo run --release --example boot -- KERNEL [INITRD [APPEND]]`.
//!
//! Without arguments it runs the built-in demo guest.

use std::path::PathBuf;
use std::process::ExitCode;

use mimus::{Config, ExitStatus, Machine};

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let config = Config {
        ram_size: 256 << 20,
        kernel: args.next().map(PathBuf::from),
        initrd: args.next().map(PathBuf::from),
        append: args.next().unwrap_or_default(),
        no_reboot: true,
        ..Config::default()
    };
    let mut machine = Machine::new(&config)?;
    let status: ExitStatus = machine.run()?;
    let stats = machine.stats();
    eprintln!("{status:?} after {} ms: {} blocks compiled", stats.guest_ns / 1_000_000, stats.cache.compiled);
    Ok(ExitCode::from(status.code()))
}
