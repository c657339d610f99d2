//! The soak test, started by `tools/soak`: a guest works for minutes, its digests stay those that the same commands give on
//! the host, and the memory of mimus stays what it was after two minutes.
//!
//! Needs an x86 host that runs Linux, since the guest's BusyBox runs on the host as well.
#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use mimus_tests::files::root;
use mimus_tests::{Folder, Session, guest};

/// The minute whose memory later ones are compared with, and how much more they may have, in KiB.
const BASE_MINUTE: u64 = 2;
const GROWTH: u64 = 8 << 10;

/// How long the guest may take to boot, or for one round of its work.
const PATIENCE: Duration = Duration::from_secs(240);
const MINUTE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let minutes = args.next().and_then(|minutes| minutes.parse::<u64>().ok()).filter(|minutes| *minutes > BASE_MINUTE);
    let Some(minutes) = minutes else {
        eprintln!("usage: soak MINUTES [MIMUS-OPTION...], more than {BASE_MINUTE} minutes");
        return ExitCode::from(2);
    };
    let wrong = soak(minutes, &args.collect::<Vec<_>>());
    for reason in &wrong {
        eprintln!("soak: FAILED: {reason}");
    }
    if wrong.is_empty() {
        println!("soak: passed");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What one round of the work prints on the host.
fn on_the_host() -> Vec<String> {
    let folder = Folder::new();
    let (bin, work) = (folder.path("bin"), folder.path("work"));
    let busybox = guest("busybox");
    for path in [&bin, &work] {
        fs::create_dir(path).expect("an empty folder");
    }
    let installed = Command::new(&busybox).args(["--install", "-s", &bin]).status().expect("BusyBox runs on this host");
    assert!(installed.success(), "busybox --install: {installed}");
    let script = root().join("tools/init/soak-work");
    let output = Command::new(&busybox).arg("sh").arg(script).arg(work).env("PATH", bin).output();
    let output = output.expect("BusyBox runs on this host");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Resident memory of a process in KiB: all of it, and what is shared memory (guest RAM is not, host code is).
fn memory(id: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("mimus runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc/PID/status");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    };
    (field("VmRSS:"), field("RssShmem:"))
}

/// Runs for so many minutes; returns what went wrong.
fn soak(minutes: u64, options: &[String]) -> Vec<String> {
    let expected = on_the_host();
    for line in &expected {
        println!("host: {line}");
    }
    let (kernel, initrd) = (guest("cloud/vmlinuz").display().to_string(), guest("soak.gz").display().to_string());
    let append = "console=ttyS0 quiet mimus.script=soak";
    let mut args = ["-m", "256", "-nographic", "-no-reboot", "-kernel", &kernel, "-initrd", &initrd, "-append", append]
        .map(str::to_owned)
        .to_vec();
    args.extend_from_slice(options);
    let mut session = Session::piped("soak", &args, MINUTE * minutes as u32 + 2 * PATIENCE);
    session.expect("soak: begins");
    session.expect("\n");

    let start = Instant::now();
    let mut wrong = Vec::new();
    let (mut base, mut minute, mut rounds, mut at) = (u64::MAX, 0, 0, 0);
    let mut last = start;
    while minute < minutes {
        if let Some(line) = session.next_line(Duration::from_millis(200)) {
            let key = line.split(' ').next().unwrap_or_default();
            if key == "round" {
                if at != expected.len() {
                    wrong.push(format!("round {rounds} has {at} of {} results", expected.len()));
                }
                (rounds, at, last) = (rounds + 1, 0, Instant::now());
            } else if expected.iter().any(|line| line.split(' ').next() == Some(key)) {
                if expected.get(at) != Some(&line) {
                    wrong.push(format!("round {rounds}: the guest has '{line}', the host {:?}", expected.get(at)));
                }
                at += 1;
            } else {
                println!("guest: {line}");
            }
        }
        if last.elapsed() > PATIENCE {
            wrong.push(format!("no round ended in {PATIENCE:?}"));
            break;
        }
        if start.elapsed() >= MINUTE * (minute + 1) as u32 {
            minute += 1;
            let (all, shared) = memory(session.id());
            println!("minute {minute}: {all} KiB resident, {shared} KiB of it shared; {rounds} rounds");
            if minute == BASE_MINUTE {
                base = all;
            }
            if minute == minutes && all > base + GROWTH {
                wrong.push(format!("{all} KiB after {minute} minutes, {base} KiB after {BASE_MINUTE}"));
            }
        }
    }
    println!("{rounds} rounds, {} results compared, {} wrong", rounds * expected.len(), wrong.len());
    session.send("\x01x");
    let ended = session.finish();
    if ended.code != Some(0) {
        wrong.push(format!("mimus ended with {:?}", (ended.code, ended.signal)));
    }
    wrong
}
