//! Tests against real pipes, a real pseudo-terminal and real signals.

use super::*;
use crate::signals::ignored_signals;
use std::fs;
use std::io::{BufRead, BufReader, Read, pipe};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A pseudo-terminal that is nobody's controlling terminal: (the user's side, the program's side).
fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let tty = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (user, tty)
}

/// The part of a terminal's mode that raw mode changes.
fn mode(tty: &OwnedFd) -> String {
    let mode = tcgetattr(tty).unwrap();
    format!("{:?} {:?} {:?} {:?}", mode.input_modes, mode.output_modes, mode.control_modes, mode.local_modes)
}

#[test]
fn escapes() {
    let rows: &[(&[u8], &[u8], &[EscapeAction])] = &[
        (b"", b"", &[]),
        (b"ls\r", b"ls\r", &[]),
        (b"\x03\x1a\x00\xff", b"\x03\x1a\x00\xff", &[]),
        (b"x\x01x", b"x", &[EscapeAction::Quit]),
        (b"\x01h", b"", &[EscapeAction::Help]),
        (b"\x01?q", b"q", &[EscapeAction::Help]),
        (b"\x01b", b"", &[EscapeAction::Break]),
        (b"\x01cx", b"x", &[EscapeAction::Monitor]),
        (b"\x01\x01", b"\x01", &[]),
        (b"\x01\x01x", b"\x01x", &[]),
        (b"\x01\x01\x01x", b"\x01", &[EscapeAction::Quit]),
        (b"a\x01", b"a", &[]),
    ];
    for (typed, guest, actions) in rows {
        let mut parser = EscapeParser::default();
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        for &byte in *typed {
            match parser.step(byte) {
                Typed::Guest(byte) => bytes.push(byte),
                Typed::Action(action) => seen.push(action),
                Typed::Nothing => {}
            }
        }
        assert_eq!((bytes.as_slice(), seen.as_slice()), (*guest, *actions), "{typed:?}");
    }
}

#[test]
fn what_is_no_terminal_stays_as_it_is() {
    let (reader, _writer) = pipe().unwrap();
    assert!(RawTerminal::enter(reader, true).unwrap().is_none());
}

#[test]
fn raw_while_it_lives() {
    let (_user, tty) = pseudo_terminal();
    let before = mode(&tty);
    let terminal = RawTerminal::enter(&tty, true).unwrap().unwrap();
    let raw = tcgetattr(&tty).unwrap();
    assert!(!raw.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    assert_eq!(raw.output_modes, rustix::termios::OutputModes::OPOST | rustix::termios::OutputModes::ONLCR);
    drop(terminal);
    assert_eq!(mode(&tty), before);
}

#[test]
fn ctrl_c_is_a_byte_only_with_mux() {
    for (mux, expected) in [(true, b"\x03a".as_slice()), (false, b"a")] {
        let (user, tty) = pseudo_terminal();
        let _terminal = RawTerminal::enter(&tty, mux).unwrap().unwrap();
        rustix::io::write(&user, b"\x03a").unwrap();
        let mut bytes = Vec::new();
        while bytes.last() != Some(&b'a') {
            let mut byte = [0];
            assert_eq!(rustix::io::read(&tty, &mut byte), Ok(1));
            bytes.push(byte[0]);
        }
        assert_eq!(bytes, expected, "mux: {mux}");
    }
}

/// Tells this test program, run again as a child, what to do with the terminal on its standard input.
const CHILD: &str = "MIMUS_TEST_TERMINAL_CHILD";

/// Runs the test `name` of this program again with `tty` as its standard input, and waits until that is raw.
fn child(name: &str, tty: &OwnedFd) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("terminal::tests::{name}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .stdin(tty.try_clone().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("raw now") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended early: {:?}", child.wait());
    }
    (child, output)
}

/// Whether this is the child that [`child`] started for the test `name`.
fn is_child(name: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|value| value == name)
}

#[test]
fn restored_by_signals_that_end_the_process() {
    const NAME: &str = "restored_by_signals_that_end_the_process";
    if is_child(NAME) {
        let _terminal = RawTerminal::enter(io::stdin(), true).unwrap().unwrap();
        println!("raw now");
        thread::sleep(Duration::from_secs(60));
        panic!("no signal came");
    }
    let ignored = ignored_signals(&fs::read_to_string("/proc/self/status").unwrap());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let (_user, tty) = pseudo_terminal();
        let before = mode(&tty);
        let (mut child, _output) = child(NAME, &tty);
        assert_ne!(mode(&tty), before);
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        // What whoever started the tests ignores (nohup, a shell's background job) stays ignored.
        let end = if ignored & (1 << (signal.as_raw() - 1)) == 0 { signal } else { Signal::TERM };
        if end != signal {
            kill_process(pid, end).unwrap();
        }
        assert_eq!(child.wait().unwrap().signal(), Some(end.as_raw()));
        assert_eq!(mode(&tty), before, "{signal:?}");
    }
}

#[test]
fn restored_while_stopped() {
    const NAME: &str = "restored_while_stopped";
    if is_child(NAME) {
        let _terminal = RawTerminal::enter(io::stdin(), true).unwrap().unwrap();
        println!("raw now");
        thread::sleep(Duration::from_secs(60));
        panic!("no signal came");
    }
    let (_user, tty) = pseudo_terminal();
    let before = mode(&tty);
    let (mut child, _output) = child(NAME, &tty);
    let raw = mode(&tty);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TSTP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped());
    assert_eq!(mode(&tty), before);
    kill_process(pid, Signal::CONT).unwrap();
    let patience = Instant::now() + Duration::from_secs(30);
    while mode(&tty) != raw {
        assert!(Instant::now() < patience, "still not raw");
        thread::sleep(Duration::from_millis(1));
    }
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    assert_eq!(mode(&tty), before);
}

#[test]
fn restored_by_a_panic() {
    const NAME: &str = "restored_by_a_panic";
    if is_child(NAME) {
        // Forgotten, so that only the hook can restore the terminal.
        std::mem::forget(RawTerminal::enter(io::stdin(), true).unwrap().unwrap());
        println!("raw now");
        let mut byte = [0];
        io::stdin().read_exact(&mut byte).unwrap();
        panic!("as asked");
    }
    let (user, tty) = pseudo_terminal();
    let before = mode(&tty);
    let (mut child, mut output) = child(NAME, &tty);
    assert_ne!(mode(&tty), before);
    rustix::io::write(&user, b"p").unwrap();
    output.read_to_string(&mut String::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(101));
    assert_eq!(mode(&tty), before);
}

/// An input thread over a pipe whose guest takes at most as many bytes at a time as `room` says in turn, then all.
fn delivered(text: &[u8], escapes: bool, room: Vec<usize>) -> (Vec<u8>, bool) {
    let (reader, mut writer) = pipe().unwrap();
    let (sender, receiver) = mpsc::channel();
    let (quitter, quitted) = mpsc::channel();
    let breaks = sender.clone();
    let mut room = room.into_iter();
    let deliver = move |bytes: &[u8]| {
        let count = bytes.len().min(room.next().unwrap_or(usize::MAX));
        sender.send(bytes[..count].to_vec()).map_or(0, |()| count)
    };
    // A break shows as what nobody types.
    let send_break = move || drop(breaks.send(b"<break>".to_vec()));
    let escapes = escapes.then_some(ESCAPE);
    let thread =
        InputThread::spawn(reader.into(), None, escapes, deliver, send_break, move || quitter.send(()).unwrap())
            .unwrap();
    // A quit closes the pipe's other end before everything is written.
    let _ = writer.write_all(text);
    drop(writer);
    // Ends when the thread does, and with it the sender.
    let bytes = receiver.iter().flatten().collect();
    drop(thread);
    (bytes, quitted.try_recv().is_ok())
}

#[test]
fn input_arrives_whole_and_in_order() {
    assert_eq!(delivered(b"", false, vec![]), (vec![], false));
    assert_eq!(delivered(b"hello\x01x", false, vec![]), (b"hello\x01x".to_vec(), false));
    assert_eq!(delivered(b"hello", false, vec![0, 0, 1, 0, 2, 0]), (b"hello".to_vec(), false));
    assert_eq!(delivered(b"a\x01\x01b\x01hc", true, vec![]), (b"a\x01bc".to_vec(), false));
    let long: Vec<u8> = (0..100_000u32).map(|index| (index % 251) as u8).collect();
    let room = std::iter::repeat_n([0, 16, 1], 50).flatten().collect();
    assert_eq!(delivered(&long, false, room), (long, false));
}

#[test]
fn quit_ends_the_input() {
    let (bytes, quit) = delivered(b"a\x01xb", true, vec![]);
    assert!(quit);
    assert!(bytes.is_empty() || bytes == b"a");
}

#[test]
fn a_guest_without_room_does_not_make_the_queue_grow() {
    let (reader, writer) = pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let thread = InputThread::spawn(reader.into(), None, None, |_| 0, || (), || ()).unwrap();
    // Far more than the pipe's 64 KiB and the queue hold.
    let mut written = 0;
    let mut refused = 0;
    while refused < 20 && written < 1 << 20 {
        match rustix::io::write(&writer, &[b'x'; 512]) {
            Ok(count) => written += count,
            Err(_) => {
                refused += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    assert!(written < 1 << 20, "everything was read");
    drop(thread);
}

#[test]
fn stops_while_it_waits_and_wakes_at_once() {
    let (reader, mut writer) = pipe().unwrap();
    let (sender, receiver) = mpsc::channel();
    let mut calls = 0;
    let deliver = move |bytes: &[u8]| {
        calls += 1;
        sender.send(calls).unwrap();
        if calls == 1 { 0 } else { bytes.len() }
    };
    let thread = InputThread::spawn(reader.into(), None, None, deliver, || (), || ()).unwrap();
    writer.write_all(b"x").unwrap();
    assert_eq!(receiver.recv(), Ok(1));
    thread.wake();
    assert_eq!(receiver.recv(), Ok(2));
    // Nothing to read, nothing to deliver: ends only because it is told to.
    drop(thread);
    assert!(receiver.recv().is_err());
}

#[test]
fn a_slow_reader_gets_everything() {
    let (mut reader, writer) = pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let text: Vec<u8> = (0..300_000u32).map(|index| (index % 253) as u8).collect();
    let expected = text.clone();
    let thread = thread::spawn(move || {
        let mut sink = FdSink::new(writer.into(), Box::new(|error| panic!("{error}")));
        sink.write(&text);
    });
    thread::sleep(Duration::from_millis(20));
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(bytes == expected);
    thread.join().unwrap();
}

#[test]
fn a_closed_pipe_is_reported_once() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let (sender, receiver) = mpsc::channel();
    let mut sink = FdSink::new(writer.into(), Box::new(move |error| sender.send(error.kind()).unwrap()));
    sink.write(b"");
    sink.write(b"a");
    sink.write(b"b");
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [io::ErrorKind::BrokenPipe]);
}

#[test]
fn sinks_of_chardevs() {
    let fail = || -> OnSinkError { Box::new(|error| panic!("{error}")) };
    let missing = Chardev::File("/nonexistent/log".into());
    let error = open_sink("-serial", &missing, fail()).err().unwrap();
    assert_eq!(error.to_string(), "-serial: cannot create '/nonexistent/log': No such file or directory");
    open_sink("-serial", &Chardev::Null, fail()).unwrap().write(b"gone");
    let path = std::env::temp_dir().join(format!("mimus-sink-{}", std::process::id()));
    let mut sink = open_sink("-serial", &Chardev::File(path.clone()), fail()).unwrap();
    sink.write(b"to a ");
    sink.write(b"file");
    // Before the sink is dropped: nothing is buffered.
    let text = fs::read(&path);
    fs::remove_file(&path).unwrap();
    assert_eq!(text.unwrap(), b"to a file");
}
