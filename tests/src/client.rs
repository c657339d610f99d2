//! Clients of QMP and the human monitor, for tests.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// How long an answer may take.
pub const ANSWER: Duration = Duration::from_secs(20);

/// Connects to a socket that is about to be there.
pub fn connect(path: &str) -> UnixStream {
    let until = Instant::now() + ANSWER;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(ANSWER)).expect("a socket has a timeout");
                return stream;
            }
            Err(error) if Instant::now() > until => panic!("{path}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A client of QMP.
pub struct Qmp {
    /// Its connection.
    pub stream: UnixStream,
    bytes: Vec<u8>,
    /// Names of the events that came before answers.
    pub events: Vec<String>,
}

impl Qmp {
    /// Connects and is greeted.
    pub fn new(path: &str) -> Qmp {
        let mut qmp = Qmp { stream: connect(path), bytes: Vec::new(), events: Vec::new() };
        assert!(qmp.message()["QMP"]["version"].is_object());
        qmp
    }

    fn message(&mut self) -> Value {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("an answer is JSON");
            }
            let mut part = [0; 4096];
            let count = self.stream.read(&mut part).expect("QMP answers");
            assert_ne!(count, 0, "QMP went away");
            self.bytes.extend_from_slice(&part[..count]);
        }
    }

    /// The next message that is no event; events are remembered.
    pub fn answer(&mut self) -> Value {
        loop {
            let message = self.message();
            match message["event"].as_str() {
                Some(event) => self.events.push(event.to_owned()),
                None => return message,
            }
        }
    }

    /// The answer to a request.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.stream.write_all(format!("{request}\n").as_bytes()).expect("QMP reads");
        self.answer()
    }

    /// The answer to a request with which file descriptors are handed over.
    pub fn hand_over(&mut self, request: &Value, fds: &[BorrowedFd<'_>]) -> Value {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        let text = format!("{request}\n");
        let bytes = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg(&self.stream, &bytes, &mut control, SendFlags::empty()).expect("QMP reads");
        assert_eq!(sent, text.len());
        self.answer()
    }

    /// The result of a command without arguments.
    pub fn execute(&mut self, name: &str) -> Value {
        let answer = self.ask(&json!({ "execute": name, "id": name }));
        assert_eq!(answer["id"], name, "{answer}");
        answer["return"].clone()
    }

    /// Waits for an event.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let message = self.message();
            if message["event"] == name {
                return message;
            }
        }
    }
}
