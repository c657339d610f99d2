//! The programs of `tools/suite` compute in a guest what they compute natively, in each tier and with a cache that is too
//! small for them: integers, SSE, x87, memory, system calls, code that writes code.

#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use mimus_tests::files::{CLOUD, suite};
use mimus_tests::{Folder, Session, progress};

/// How long a run may take; an idle host needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(600);

/// Name and checksum of each row that the suite printed.
fn results(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("row "));
    rows.map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [name, _kind, checksum, _seconds] = words[..] else { panic!("not a result: {row}") };
        (name.to_owned(), checksum.to_owned())
    })
    .collect()
}

/// Runs the suite in a guest under `accel` with its work divided by `divisor`, and compares.
fn compare(accel: &str, divisor: u32) {
    let divisor = divisor.to_string();
    let folder = Folder::new();
    let native = Command::new(suite("suite")).args(["-q", &divisor, "-t", &folder.path("")]).output();
    let native = native.expect("the suite runs natively");
    assert!(native.status.success(), "{native:?}");
    let expected = results(&String::from_utf8_lossy(&native.stdout));
    assert!(expected.len() > 35, "only {} rows: {expected:?}", expected.len());

    let append = format!("mimus.script=suite-run suite.divisor={divisor}");
    let mut args = CLOUD.args_with(&suite("initramfs.gz"), &append);
    args.extend(["-no-reboot", "-accel", accel].map(str::to_owned));
    progress(&format!("{accel}: boots"));
    let mut session = Session::piped(accel, &args, LIMIT);
    session.close_input();
    session.expect("suite begins");
    progress(&format!("{accel}: runs the suite"));
    session.expect("init: suite-run exited with status 0");
    let ended = session.finish();
    assert_eq!((ended.code, ended.signal), (Some(0), None), "{accel}");
    assert_eq!(results(&ended.text), expected, "{accel}");
}

#[test]
fn by_default() {
    compare("jit", 300);
}

/// The quick tier does all that it can.
#[test]
fn made_quickly() {
    compare("jit,quick=1,threshold=1000000000", 600);
}

/// Everything is compiled the first time that it runs, and in regions as soon as it is gone back to.
#[test]
fn compiled_at_once() {
    compare("jit,threshold=1,region=1", 300);
}

/// Code memory for a fraction of what runs.
#[test]
fn in_a_small_cache() {
    compare("jit,tb-size=2", 300);
}

#[test]
fn interpreted() {
    compare("interp", 1000);
}
