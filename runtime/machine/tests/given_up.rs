//! A machine runs in a process that has given up what it does not need, for good: so in a process of its own.

use std::process::Command;

use mimus_host::config::Chardev;
use mimus_host::sandbox::begin;
use mimus_machine::config::{Config, Device, ExitStatus};

/// Tells this test program, run again as a child, that it is the child.
const CHILD: &str = "MIMUS_TEST_GIVEN_UP";

#[test]
fn a_machine_runs_with_all_that_given_up() {
    if std::env::var_os(CHILD).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["a_machine_runs_with_all_that_given_up", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "")
            .output()
            .unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    let mut config = Config::default();
    config.devices[0] = Device::com1(Chardev::Null);
    let needs = config.needs();
    let settling = begin(&mut config.process, needs, &["-serial".into(), "null".into()]).unwrap();
    // The demo guest compiles and runs code, and powers off.
    assert_eq!(mimus_machine::machine::run(&config, settling).unwrap(), ExitStatus::PowerOff);
    assert!(Command::new("/bin/true").status().is_err());
}
