//! Runs targets on seeds for a time, or one case again.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use mimus_fuzz::{Target, case, targets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "\
Usage: cargo run -p mimus-fuzz -- TARGET|all [SECONDS] [SEED]
       cargo run -p mimus-fuzz -- TARGET --seed SEED
       cargo run -p mimus-fuzz -- TARGET --file FILE

Plays bad company for TARGET, for SECONDS (60; each, with all) from SEED on, and says
which seed found something. --seed and --file (of cargo-fuzz) run one case again.
Without --release there are overflow checks and debug assertions.
Targets:";

/// Bytes of memory that the process may have when a case is over, and address space that it may have at all.
const MEMORY: u64 = 1 << 30;
const ADDRESS_SPACE: u64 = 16 << 30;

/// Targets whose cases name files of the host.
const IMAGES: &[&str] = &["qcow2", "vmdk", "share"];
/// Debian's and others' user and group that own nothing.
const NOBODY: u32 = 65_534;

/// Begins anew as somebody who may do nothing, if images are among what is `chosen` and it is root who runs this: what an image
/// names would be opened as root. Comes back only if that is not so, or failed.
fn leave_root(chosen: &[Target], words: &[String]) -> bool {
    if !rustix::process::geteuid().is_root() || !chosen.iter().any(|target| IMAGES.contains(&target.name)) {
        return true;
    }
    println!("images and folders are not looked at as root: going on as user {NOBODY}");
    let error = Command::new("/proc/self/exe").args(words).uid(NOBODY).gid(NOBODY).exec();
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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let limit = getrlimit(Resource::As);
    // What asks for more ends with a message of the allocator. A hard limit that is lower stays.
    let _ = setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE), ..limit });
    let all = targets();
    let Some(chosen) = words.first().filter(|word| !word.starts_with('-')) else {
        let names: Vec<&str> = all.iter().map(|target| target.name).collect();
        println!("{USAGE}\n  {}", names.join("\n  "));
        return ExitCode::from(2);
    };
    let chosen: Vec<Target> = all.into_iter().filter(|target| *chosen == "all" || target.name == *chosen).collect();
    if !leave_root(&chosen, &arguments) {
        return ExitCode::FAILURE;
    }
    let number = |at: usize, default: u64| words.get(at).map_or(Some(default), |word| word.parse().ok());
    let ok = match (&chosen[..], words.get(1).copied()) {
        ([], _) => {
            println!("no such target; without arguments there is a list");
            false
        }
        ([target], Some("--seed")) => {
            target.run(&case(number(2, 0).unwrap_or(0)));
            true
        }
        ([target], Some("--file")) => {
            let bytes = std::fs::read(words.get(2).unwrap_or(&"")).expect("the file can be read");
            target.run(&bytes);
            true
        }
        (targets, _) => match (number(1, 60), number(2, 1)) {
            (Some(seconds), Some(seed)) => {
                let results: Vec<bool> =
                    targets.iter().map(|target| run(*target, Duration::from_secs(seconds), seed)).collect();
                results.iter().all(|ok| *ok)
            }
            _ => {
                println!("{USAGE}");
                false
            }
        },
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
