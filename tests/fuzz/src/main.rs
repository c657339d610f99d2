//! Runs targets on seeds for a time, or one case again.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};
use mimus_fuzz::{Target, case, targets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Plays bad company for a target, and says which seed found something.
///
/// Without --release there are overflow checks and debug assertions.
#[derive(Parser)]
#[command(name = "cargo run -p mimus-fuzz --")]
struct Arguments {
    /// The target, or "all"; without one there is a list
    target: Option<String>,
    /// For how long, each
    #[arg(default_value_t = 60)]
    seconds: u64,
    /// The seed to begin with
    #[arg(default_value_t = 1)]
    first_seed: u64,
    /// Runs the case of this seed again
    #[arg(long, conflicts_with = "file")]
    seed: Option<u64>,
    /// Runs a case of cargo-fuzz's again
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Bytes of memory that the process may have when a case is over, and address space that it may have at all.
const MEMORY: u64 = 1 << 30;
const ADDRESS_SPACE: u64 = 16 << 30;

/// Targets whose cases name files of the host.
const IMAGES: &[&str] = &["qcow2", "vmdk", "share"];
/// Debian's and others' user and group that own nothing.
const NOBODY: u32 = 65_534;

/// Begins anew as somebody who may do nothing, if images are among what is `chosen` and it is root who runs this: what an image
/// names would be opened as root. Comes back only if that is not so, or failed.
fn leave_root(chosen: &[Target]) -> bool {
    if !rustix::process::geteuid().is_root() || !chosen.iter().any(|target| IMAGES.contains(&target.name)) {
        return true;
    }
    println!("images and folders are not looked at as root: going on as user {NOBODY}");
    let error = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).uid(NOBODY).gid(NOBODY).exec();
    println!("that failed ({error}): run it as an ordinary user");
    false
}

/// Bytes of memory that the process has.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Runs cases of `target` until `end`; whether all went well.
fn run(target: Target, time: Duration, seed: u64) -> bool {
    let (begin, mut said) = (Instant::now(), Instant::now());
    let mut count = 0u64;
    while begin.elapsed() < time {
        let seed = seed + count;
        if catch_unwind(|| target.run(&case(seed))).is_err() {
            println!("{}: failed; again with: cargo run -p mimus-fuzz -- {0} --seed {seed}", target.name);
            return false;
        }
        count += 1;
        if memory() > MEMORY {
            println!("{}: {} MiB of memory after seed {seed}", target.name, memory() >> 20);
            return false;
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!("{}: {count} cases, {} MiB", target.name, memory() >> 20);
        }
    }
    println!("{}: {count} cases, {} MiB, nothing found", target.name, memory() >> 20);
    true
}

/// Runs one case of `target` again.
fn again(target: Target, bytes: &[u8]) -> bool {
    target.run(bytes);
    true
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let limit = getrlimit(Resource::As);
    // What asks for more ends with a message of the allocator. A hard limit that is lower stays.
    let _ = setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE), ..limit });
    let all = targets();
    let Some(name) = &arguments.target else {
        let names: Vec<&str> = all.iter().map(|target| target.name).collect();
        println!("{}\nTargets:\n  {}", Arguments::command().render_help(), names.join("\n  "));
        return ExitCode::from(2);
    };
    let chosen: Vec<Target> = all.into_iter().filter(|target| name == "all" || target.name == name).collect();
    if !leave_root(&chosen) {
        return ExitCode::FAILURE;
    }
    let ok = match (&chosen[..], arguments.seed, &arguments.file) {
        ([], ..) => {
            println!("no such target; without arguments there is a list");
            false
        }
        ([target], Some(seed), _) => again(*target, &case(seed)),
        ([target], _, Some(file)) => again(*target, &std::fs::read(file).expect("the file can be read")),
        (_, Some(_), _) | (_, _, Some(_)) => {
            println!("--seed and --file are a case of one target");
            false
        }
        (targets, ..) => {
            let time = Duration::from_secs(arguments.seconds);
            let results: Vec<bool> = targets.iter().map(|target| run(*target, time, arguments.first_seed)).collect();
            results.iter().all(|ok| *ok)
        }
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
        let again = Arguments::try_parse_from(["fuzz", "ide", "--seed", "7"]).expect("a case again");
        assert_eq!((again.target.as_deref(), again.seed), (Some("ide"), Some(7)));
        assert!(Arguments::try_parse_from(["fuzz", "ide", "--seed", "7", "--file", "x"]).is_err());
    }
}
