//! Debian's kernels boot to BusyBox and pass the selftest in the guest (`tools/init/selftest`), in each tier.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mimus_tests::files::{CLOUD, GENERIC, I386};
use mimus_tests::{Folder, Guest, Session, progress, random};
use serde_json::Value;

/// How long a boot may take, an idle host needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(600);

/// How far the guest's date may be from the host's, in seconds.
const DATE: u64 = 3;

/// How far the guest's sleep may be from what the host measures, in percent.
const SLEEP: f64 = 2.0;

/// Boots `guest`, has it check itself, and returns the counters of the run.
fn selftest(name: &str, guest: Guest, options: &[&str], append: &str) -> Value {
    let folder = Folder::new();
    let stats = folder.path("stats.json");
    let nonce = format!("{:016x}", random());
    let mut args = guest.args(&format!("mimus.run mimus.nonce={nonce} {append}"));
    args.extend(["-no-reboot", "-stats", &stats].map(str::to_owned));
    args.extend(options.iter().map(|option| (*option).to_owned()));
    progress(&format!("{name}: boots"));
    let start = Instant::now();
    let mut session = Session::piped(name, &args, LIMIT);
    session.close_input();
    session.expect("Run /init as init process");
    progress(&format!("{name}: init after {:.1} s", start.elapsed().as_secs_f64()));

    assert_eq!(session.line("nonce: "), nonce, "{name}");
    let date: u64 = session.line("date: ").parse().expect("seconds since 1970");
    let host = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs();
    assert!(date.abs_diff(host) <= DATE, "{name}: the guest's date is {date}, the host's {host}");

    let begins = session.expect("\nsleep: begins");
    let ends = session.expect("\nsleep: ends");
    if let Some(seconds) = append.strip_prefix("mimus.sleep=") {
        let (seconds, measured) = (seconds.parse::<f64>().expect("a number"), (ends - begins).as_secs_f64());
        progress(&format!("{name}: sleep {seconds} took {measured:.3} s"));
        let off = (measured / seconds - 1.0).abs() * 100.0;
        assert!(off <= SLEEP, "{name}: sleep {seconds} took {measured:.3} s of the host's time");
    }

    let result = session.line("selftest: ");
    let ended = session.finish();
    let wrong: Vec<&str> = ended.text.lines().filter(|line| line.starts_with("FAIL ")).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    let (passed, failed) = result.split_once(", ").expect("two counts");
    let passed: u32 = passed.strip_suffix(" passed").and_then(|count| count.parse().ok()).expect("a count");
    assert_eq!(failed, "0 failed", "{name}");
    assert!(passed >= 35, "{name}: only {passed} checks");
    assert!(ended.text.contains("init: script exited with status 0"), "{name}");
    assert_eq!((ended.code, ended.signal), (Some(0), None), "{name}");
    progress(&format!("{name}: {passed} checks passed after {:.1} s", start.elapsed().as_secs_f64()));
    let text = std::fs::read_to_string(&stats).expect("-stats wrote its file");
    serde_json::from_str(&text).expect("-stats writes JSON")
}

/// A counter.
fn count(stats: &Value, path: &str) -> u64 {
    stats.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {stats}"))
}

#[test]
fn cloud_kernel() {
    let stats = selftest("cloud", CLOUD, &[], "mimus.sleep=5");
    assert!(count(&stats, "/blocks/compiled") > 1000, "{stats:#}");
    assert!(count(&stats, "/instructions/compiled") > count(&stats, "/instructions/interpreted"), "{stats:#}");
}

/// Code memory for a fraction of what runs: blocks are evicted and translated again all the time.
#[test]
fn cloud_kernel_in_a_small_cache() {
    let stats = selftest("cloud, tb-size=2", CLOUD, &["-accel", "jit,tb-size=2"], "mimus.quick");
    assert!(count(&stats, "/cache/evictions") > 1000, "{stats:#}");
    assert!(count(&stats, "/cache/peak_metadata_bytes") <= 2 << 20, "{stats:#}");
}

#[test]
fn cloud_kernel_interpreted() {
    let stats = selftest("cloud, interp", CLOUD, &["-accel", "interp"], "mimus.quick");
    assert_eq!(count(&stats, "/blocks/compiled"), 0, "{stats:#}");
}

#[test]
fn generic_kernel() {
    selftest("generic", GENERIC, &[], "");
}

#[test]
fn i386_kernel() {
    selftest("i386", I386, &[], "");
}
