//! The QEMU machine protocol: JSON objects in and out ("QEMU Machine Protocol Specification", docs/interop).
//!
//! A command is a row of [`commands`], and what its arguments and results are follows from that row and those of [`types`].

mod commands;
mod control;
mod descriptors;
mod input;
mod machine;
mod media;
mod migrate;
mod network;
mod objects;
mod probe;
mod qom;
mod schema;
mod splitter;
mod types;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::server::{Flow, Session};
use crate::control::{Control, Controlled, Gone, Notice, StopReason};
use commands::{By, COMMANDS, Command};
use mimus_host::block::Fault;
pub(super) use probe::commands_text;
pub(super) use qom::tree_text;
use splitter::{Piece, Splitter};

/// The one command before all others.
const CAPABILITIES: &str = "qmp_capabilities";

/// The version of QEMU whose protocol this is: major, minor, micro.
const QEMU: [u8; 3] = [7, 2, 0];

/// An error's class and description.
type Failure = (&'static str, String);

fn generic(text: impl Into<String>) -> Failure {
    ("GenericError", text.into())
}

fn version() -> Value {
    let [major, minor, micro] = QEMU;
    let package = format!("mimus {}", env!("CARGO_PKG_VERSION"));
    json!({ "qemu": { "major": major, "minor": minor, "micro": micro }, "package": package })
}

/// An argument that is text; empty if it is missing.
fn text<'a>(args: &'a Map<String, Value>, name: &str) -> &'a str {
    args.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// An argument that is a number.
fn number(args: &Map<String, Value>, name: &str, default: u64) -> u64 {
    args.get(name).map_or(default, |value| value.as_u64().unwrap_or_default())
}

/// A session.
#[derive(Debug)]
pub(super) struct Qmp {
    control: Arc<Control>,
    splitter: Splitter,
    /// `qmp_capabilities` was executed.
    negotiated: bool,
    /// And asked for execution out of band.
    oob: bool,
    /// Answers are written over several lines.
    pretty: bool,
    /// File descriptors that came with the last message that had any.
    handed: VecDeque<OwnedFd>,
    /// What preceded was no JSON: it is told once, not for each byte.
    in_garbage: bool,
}

impl Qmp {
    /// A session that greets its client.
    pub(super) fn new(control: Arc<Control>, pretty: bool, out: &mut Vec<u8>) -> Qmp {
        let (splitter, handed) = (Splitter::default(), VecDeque::new());
        let qmp = Qmp { control, splitter, negotiated: false, oob: false, pretty, handed, in_garbage: false };
        qmp.write(&json!({ "QMP": { "version": version(), "capabilities": ["oob"] } }), out);
        qmp
    }

    fn write(&self, value: &Value, out: &mut Vec<u8>) {
        let text = if self.pretty { format!("{value:#}") } else { value.to_string() };
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn fail(&self, (class, desc): Failure, id: Option<Value>, out: &mut Vec<u8>) {
        let mut answer = json!({ "error": { "class": class, "desc": desc } });
        if let Some(id) = id {
            answer["id"] = id;
        }
        self.write(&answer, out);
    }

    fn object(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Gone> {
        let Ok(Value::Object(mut request)) = serde_json::from_slice(bytes) else {
            self.fail(generic("Invalid JSON syntax"), None, out);
            return Ok(());
        };
        let id = request.remove("id");
        match self.request(request) {
            Ok(Ok(value)) => {
                let mut answer = json!({ "return": value });
                if let Some(id) = id {
                    answer["id"] = id;
                }
                self.write(&answer, out);
            }
            Ok(Err(failure)) => self.fail(failure, id, out),
            Err(Gone) => return Err(Gone),
        }
        Ok(())
    }

    fn request(&mut self, mut request: Map<String, Value>) -> Result<Result<Value, Failure>, Gone> {
        match self.command(&mut request) {
            Ok((command, args)) => self.execute(command, args),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// The command that a request names, and its arguments as they are.
    fn command(&self, request: &mut Map<String, Value>) -> Result<(&'static Command, Map<String, Value>), Failure> {
        let (in_band, oob) = (request.remove("execute"), request.remove("exec-oob").filter(|_| self.oob));
        let (member, name) = match (in_band, oob) {
            (Some(_), Some(_)) => return Err(generic("QMP input member 'exec-oob' clashes with 'execute'")),
            (Some(name), None) => ("execute", name),
            (None, Some(name)) => ("exec-oob", name),
            (None, None) => return Err(generic("QMP input lacks member 'execute'")),
        };
        let Value::String(name) = name else {
            return Err(generic(format!("QMP input member '{member}' must be a string")));
        };
        let args = match request.remove("arguments") {
            None => Map::new(),
            Some(Value::Object(args)) => args,
            Some(_) => return Err(generic("QMP input member 'arguments' must be an object")),
        };
        if let Some(member) = request.keys().next() {
            return Err(generic(format!("QMP input member '{member}' is unexpected")));
        }
        let not_found = |text: String| Err(("CommandNotFound", text));
        match (name == CAPABILITIES, self.negotiated) {
            (true, true) => {
                not_found(format!("Capabilities negotiation is already complete, command '{name}' ignored"))
            }
            (false, false) => not_found(format!("Expecting capabilities negotiation with '{CAPABILITIES}'")),
            _ => match COMMANDS.iter().find(|command| command.name == name) {
                Some(command) if member == "exec-oob" && !command.is_oob() => {
                    Err(generic(format!("The command {name} does not support OOB")))
                }
                Some(command) => Ok((command, args)),
                None => not_found(format!("The command {name} has not been found")),
            },
        }
    }

    fn execute(&mut self, command: &Command, args: Map<String, Value>) -> Result<Result<Value, Failure>, Gone> {
        if let Err(failure) = schema::check_arguments(command.args, &args) {
            return Ok(Err(failure));
        }
        match command.by {
            By::Machine(run) => self.control.call(move |machine| run(machine, &args)),
            By::Session(run) => Ok(run(self, &args)),
            By::Anybody(run) => Ok(run(&args)),
        }
    }

    /// `qmp_capabilities`.
    fn negotiate(&mut self, args: &Map<String, Value>) -> Result<Value, Failure> {
        self.negotiated = true;
        self.oob = args.get("enable").and_then(Value::as_array).is_some_and(|wanted| !wanted.is_empty());
        Ok(json!({}))
    }
}

/// The data of BLOCK_IO_ERROR.
fn fault_data(fault: &Fault) -> Value {
    let (device, node) = fault.counters.names();
    json!({
        "device": device,
        "node-name": node,
        "operation": if fault.writes { "write" } else { "read" },
        "action": fault.action.name(),
        "nospace": fault.no_space,
        "reason": fault.reason,
    })
}

/// An event's name and data.
fn event(notice: &Notice) -> (&'static str, Option<Value>) {
    match notice {
        Notice::Disk(fault) => ("BLOCK_IO_ERROR", Some(fault_data(fault))),
        Notice::Stop(StopReason::User | StopReason::Breakpoint | StopReason::Watchpoint(_) | StopReason::Step) => {
            ("STOP", None)
        }
        Notice::Resume => ("RESUME", None),
        Notice::Powerdown => ("POWERDOWN", None),
        Notice::Suspend => ("SUSPEND", None),
        Notice::SuspendToDisk => ("SUSPEND_DISK", None),
        Notice::Wakeup => ("WAKEUP", None),
        Notice::GuestPanicked { action } => ("GUEST_PANICKED", Some(json!({ "action": action }))),
        Notice::GuestCrashLoaded => ("GUEST_CRASHLOADED", Some(json!({ "action": "run" }))),
        Notice::Watchdog(action) => ("WATCHDOG", Some(json!({ "action": action.word() }))),
        Notice::Reset { guest } => (
            "RESET",
            Some(json!({ "guest": guest, "reason": if *guest { "guest-reset" } else { "host-qmp-system-reset" } })),
        ),
        Notice::Shutdown { guest, reason } => ("SHUTDOWN", Some(json!({ "guest": guest, "reason": reason }))),
    }
}

/// What a command answers that the machine executes, for other monitors.
///
/// # Errors
///
/// What it says is wrong.
pub(super) fn perform(machine: &mut dyn Controlled, name: &str, args: &Map<String, Value>) -> Result<Value, String> {
    let command = COMMANDS.iter().find(|command| command.name == name);
    let missing = || format!("The command {name} has not been found");
    let Command { args: members, by: By::Machine(run), .. } = command.ok_or_else(missing)? else {
        return Err(missing());
    };
    schema::check_arguments(members, args).and_then(|()| run(machine, args)).map_err(|(_, text)| text)
}

/// What a query without arguments answers.
///
/// # Errors
///
/// As for [`perform`].
pub(super) fn query(machine: &mut dyn Controlled, name: &str) -> Result<Value, String> {
    perform(machine, name, &Map::new())
}

/// The machine's devices: path and type of each.
pub(super) fn devices(machine: &mut dyn Controlled) -> Value {
    commands::listed(machine, "qmp-devices")
}

impl Session for Qmp {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        for &byte in bytes {
            let piece = self.splitter.push(byte);
            let garbage = piece == Some(Piece::Garbage);
            match piece {
                None => {}
                Some(Piece::Object(object)) if self.object(&object, out).is_err() => return Flow::End,
                Some(Piece::Object(_)) => {}
                Some(Piece::TooLong) => self.fail(generic("JSON token size limit exceeded"), None, out),
                Some(Piece::Garbage) if !self.in_garbage => self.fail(generic("Invalid JSON syntax"), None, out),
                Some(Piece::Garbage) => {}
            }
            self.in_garbage = garbage || self.in_garbage && byte != b'\n' && self.splitter.is_idle();
        }
        Flow::Go
    }

    fn handed(&mut self, fds: Vec<OwnedFd>) {
        self.handed = fds.into();
    }

    fn notices(&mut self, notices: &[(Notice, SystemTime)], out: &mut Vec<u8>) -> Flow {
        for (notice, time) in notices.iter().filter(|_| self.negotiated) {
            let (name, data) = event(notice);
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let timestamp = json!({ "seconds": since.as_secs(), "microseconds": since.subsec_micros() });
            let mut message = json!({ "event": name, "timestamp": timestamp });
            if let Some(data) = data {
                message["data"] = data;
            }
            self.write(&message, out);
        }
        Flow::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimus_host::block::{Action, Counters};
    use mimus_softmmu::kick::Kicker;

    fn session() -> Qmp {
        let mut out = Vec::new();
        let qmp = Qmp::new(Control::new(Kicker::new()), false, &mut out);
        let greeting: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(greeting["QMP"]["version"]["qemu"]["major"], 7);
        qmp
    }

    fn ask(qmp: &mut Qmp, text: &str) -> Vec<Value> {
        let mut out = Vec::new();
        qmp.input(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_is_wrong_has_qemus_error_class_and_the_id() {
        let mut qmp = session();
        for (request, class, id) in [
            (r#"{"execute":"stop","id":4}"#, "CommandNotFound", json!(4)),
            (r#"{"execute":7,"id":"x"}"#, "GenericError", json!("x")),
            (r#"{"id":[1]}"#, "GenericError", json!([1])),
            (r#"{"execute":"qmp_capabilities","arguments":3}"#, "GenericError", Value::Null),
            (r#"{"execute":"qmp_capabilities","more":3}"#, "GenericError", Value::Null),
            (r#"{"execute":"qmp_capabilities","arguments":{"enable":["nonsense"]}}"#, "GenericError", Value::Null),
            (r#"{"exec-oob":"query-yank"}"#, "GenericError", Value::Null),
            (r#"{"a":}"#, "GenericError", Value::Null),
            ("garbage all the line\n", "GenericError", Value::Null),
        ] {
            let answers = ask(&mut qmp, request);
            assert_eq!(answers.len(), 1, "{request}");
            assert_eq!(answers[0]["error"]["class"], class, "{request}");
            assert_eq!(answers[0]["id"], id, "{request}");
        }
        assert_eq!(ask(&mut qmp, r#"{"execute":"qmp_capabilities"}"#), [json!({ "return": {} })]);
        let again = ask(&mut qmp, r#"{"execute":"qmp_capabilities"}{"execute":"nonsense"}"#);
        assert_eq!(
            (&again[0]["error"]["class"], &again[1]["error"]["class"]),
            (&json!("CommandNotFound"), &json!("CommandNotFound"))
        );
        assert_eq!(again[1]["error"]["desc"], "The command nonsense has not been found");
    }

    #[test]
    fn events_are_sent_once_capabilities_are_settled() {
        let mut qmp = session();
        let notices = [(Notice::Shutdown { guest: true, reason: "guest-shutdown" }, UNIX_EPOCH)];
        let mut out = Vec::new();
        qmp.notices(&notices, &mut out);
        assert!(out.is_empty());
        ask(&mut qmp, r#"{"execute":"qmp_capabilities"}"#);
        qmp.notices(&notices, &mut out);
        let event: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&event["event"], &event["data"]["reason"]), (&json!("SHUTDOWN"), &json!("guest-shutdown")));
    }

    #[test]
    fn a_disks_fault_is_told_as_qemu_tells_it() {
        let mut qmp = session();
        ask(&mut qmp, r#"{"execute":"qmp_capabilities"}"#);
        let counters = Arc::new(Counters::default());
        counters.name("virtio0", "#virtio0");
        let (writes, no_space, reason) = (true, true, "No space left on device".to_owned());
        let fault = Fault { counters, writes, action: Action::Stop, no_space, reason };
        let mut out = Vec::new();
        qmp.notices(&[(Notice::Disk(fault), UNIX_EPOCH)], &mut out);
        let event: Value = serde_json::from_slice(&out).unwrap();
        let data = json!({
            "device": "virtio0", "node-name": "#virtio0", "operation": "write", "action": "stop", "nospace": true,
            "reason": "No space left on device",
        });
        assert_eq!((&event["event"], &event["data"]), (&json!("BLOCK_IO_ERROR"), &data));
    }
}
