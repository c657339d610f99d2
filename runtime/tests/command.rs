//! The `mimus` command as a shell sees it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

fn mimus(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mimus")).args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn texts_go_to_standard_output() {
    for args in [["-version"].as_slice(), &["-help"], &["-d", "help"], &["-M", "help"]] {
        let output = mimus(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn errors_are_one_line_on_standard_error() {
    let rows: &[(&[&str], &str)] = &[
        (&["-krenel", "x"], "mimus: -krenel: unknown option; did you mean -kernel? (-help lists all)\n"),
        (&["-accel", "qtest"], "mimus: -accel: 'qtest' is not supported yet (supported: jit, tcg, interp)\n"),
        (&["-D", "/nonexistent/log"], "mimus: -D: cannot create '/nonexistent/log': No such file or directory\n"),
    ];
    for (args, expected) in rows {
        let output = mimus(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), *expected, "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let child = Command::new(env!("CARGO_BIN_EXE_mimus")).arg("-help").stdout(writer).stderr(Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(rustix::process::Signal::PIPE.as_raw()));
    assert!(output.stderr.is_empty());
}
