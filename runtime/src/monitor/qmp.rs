//! The QEMU machine protocol: JSON objects in and out ("QEMU Machine Protocol Specification", docs/interop).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::commands::{self, State};
use super::server::{Flow, Session};
use crate::config::{ImageFormat, MachineKind};
use crate::control::{Control, Controlled, Gone, Notice, RunState, StopReason};

/// Longest object in bytes.
const OBJECT: usize = 1 << 20;

/// The version of QEMU whose protocol this is: major, minor, micro.
const QEMU: [u8; 3] = [7, 2, 0];

/// Cuts a stream of bytes into JSON objects by their braces.
#[derive(Debug, Default)]
struct Splitter {
    bytes: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// An object that is too long is being skipped.
    overflown: bool,
}

/// What a splitter found.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Object(Vec<u8>),
    TooLong,
    /// Something that no object begins with.
    Garbage,
}

impl Splitter {
    fn push(&mut self, byte: u8) -> Option<Piece> {
        if self.depth == 0 {
            return match byte {
                b' ' | b'\t' | b'\r' | b'\n' => None,
                b'{' => {
                    self.bytes.clear();
                    self.bytes.push(byte);
                    self.depth = 1;
                    self.overflown = false;
                    None
                }
                _ => Some(Piece::Garbage),
            };
        }
        if self.bytes.len() < OBJECT {
            self.bytes.push(byte);
        } else {
            self.overflown = true;
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return None;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        if self.depth > 0 {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        Some(if self.overflown { Piece::TooLong } else { Piece::Object(bytes) })
    }
}

/// An error's class and description.
type Failure = (&'static str, String);

fn generic(text: impl Into<String>) -> Failure {
    ("GenericError", text.into())
}

/// What a command does with its arguments.
type Run = fn(&mut dyn Controlled, &Map<String, Value>) -> Result<Value, Failure>;

/// A command: its name, its arguments, and what it does.
struct Command {
    name: &'static str,
    /// Names of arguments; those that end in `?` may be missing.
    args: &'static [&'static str],
    run: Run,
}

macro_rules! commands {
    ($($name:literal [$($arg:literal)*] $run:expr;)*) => {
        &[$(Command { name: $name, args: &[$($arg),*], run: $run }),*]
    };
}

/// The commands that work on a machine. `qmp_capabilities` is the session's own.
static COMMANDS: &[Command] = commands! {
    "blockdev-change-medium" ["device?" "id?" "filename" "format?" "force?" "read-only-mode?"] change_medium;
    "change-vnc-password" ["password"] |m, args| vnc_password(m, text(args, "password")?);
    "cont" [] |m, _| if m.resume() { Ok(json!({})) } else { Err(generic(commands::CANNOT_GO_ON)) };
    "eject" ["device?" "id?" "force?"] eject;
    "human-monitor-command" ["command-line" "cpu-index?"] human;
    "inject-nmi" [] |m, _| if m.raise_nmi() { Ok(json!({})) } else { Err(generic("machine does not provide NMIs")) };
    "memsave" ["val" "size" "filename" "cpu-index?"] |m, args| save(m, args, "memsave");
    "pmemsave" ["val" "size" "filename"] |m, args| save(m, args, "pmemsave");
    "query-block" [] |m, _| Ok(listed(m, "qmp-block"));
    "query-blockstats" ["query-nodes?"] |m, _| Ok(listed(m, "qmp-blockstats"));
    "query-chardev" [] query_chardev;
    "query-commands" [] |_, _| Ok(query_commands());
    "query-cpus-fast" [] query_cpus;
    "query-current-machine" [] |_, _| Ok(json!({ "wakeup-suspend-support": false }));
    "query-events" [] |_, _| Ok(EVENTS.iter().map(|name| json!({ "name": name })).collect());
    "query-kvm" [] |_, _| Ok(json!({ "enabled": false, "present": false }));
    "query-machines" [] |_, _| Ok(query_machines());
    "query-name" [] |m, _| Ok(m.config().name.as_ref().map_or(json!({}), |name| json!({ "name": name })));
    "query-named-block-nodes" [] |m, _| Ok(listed(m, "qmp-block-nodes"));
    "query-pci" [] |m, _| Ok(listed(m, "qmp-pci"));
    "query-status" [] query_status;
    "query-target" [] query_target;
    "query-uuid" [] |m, _| Ok(json!({ "UUID": m.config().uuid.as_deref().unwrap_or(NO_UUID) }));
    "query-version" [] |_, _| Ok(version());
    "quit" [] |m, _| { m.quit(); Ok(json!({})) };
    "screendump" ["filename" "format?" "device?" "head?"] screendump;
    "send-key" ["keys" "hold-time?"] send_key;
    "set_password" ["protocol" "password" "connected?" "display?"] set_password;
    "stop" [] |m, _| { m.stop(RunState::Paused); Ok(json!({})) };
    "system_powerdown" [] |m, _| { m.press_power_button(); Ok(json!({})) };
    "system_reset" [] |m, _| { m.reset(); Ok(json!({})) };
};

/// The one command before all others.
const CAPABILITIES: &str = "qmp_capabilities";

/// Events that are sent.
const EVENTS: [&str; 5] = ["POWERDOWN", "RESET", "RESUME", "SHUTDOWN", "STOP"];

const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

fn version() -> Value {
    let [major, minor, micro] = QEMU;
    let package = format!("mimus {}", env!("CARGO_PKG_VERSION"));
    json!({ "qemu": { "major": major, "minor": minor, "micro": micro }, "package": package })
}

/// What the machine's devices list under `topic`, as JSON text; an empty list if there are none.
fn listed(machine: &mut dyn Controlled, topic: &str) -> Value {
    let text = machine.info(topic).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| json!([]))
}

fn query_commands() -> Value {
    let names = COMMANDS.iter().map(|command| command.name).chain([CAPABILITIES]);
    names.map(|name| json!({ "name": name })).collect()
}

fn query_machines() -> Value {
    let machine = |name: &str, alias: Option<&str>, default: bool| {
        let mut machine = json!({
            "name": name,
            "cpu-max": 1,
            "hotpluggable-cpus": false,
            "numa-mem-supported": false,
            "deprecated": false,
        });
        if let Some(alias) = alias {
            machine["alias"] = alias.into();
        }
        if default {
            machine["is-default"] = true.into();
        }
        machine
    };
    json!([machine("pc-i440fx-7.2", Some("pc"), true), machine("virt", None, false)])
}

fn query_status(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let state = machine.state();
    Ok(json!({ "running": state == RunState::Running, "singlestep": false, "status": state.name() }))
}

fn query_target(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(json!({ "arch": arch(machine) }))
}

fn arch(machine: &dyn Controlled) -> &'static str {
    match machine.config().machine {
        MachineKind::Pc => "x86_64",
        MachineKind::Virt | MachineKind::Spike => "riscv64",
    }
}

fn query_cpus(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(json!([{
        "cpu-index": 0,
        "qom-path": "/machine/unattached/device[0]",
        "thread-id": std::process::id(),
        "target": arch(machine),
        "props": { "core-id": 0, "thread-id": 0, "socket-id": 0 },
    }]))
}

fn query_chardev(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let all = commands::chardevs(machine).into_iter();
    Ok(all.map(|(label, place)| json!({ "label": label, "filename": place, "frontend-open": true })).collect())
}

fn text<'a>(args: &'a Map<String, Value>, name: &str) -> Result<&'a str, Failure> {
    match args.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(generic(format!("Invalid parameter type for '{name}', expected: string"))),
        None => Ok(""),
    }
}

fn number(args: &Map<String, Value>, name: &str, default: u64) -> Result<u64, Failure> {
    let wrong = || generic(format!("Invalid parameter type for '{name}', expected: integer"));
    args.get(name).map_or(Ok(default), |value| value.as_u64().ok_or_else(wrong))
}

fn human(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let line = text(args, "command-line")?;
    Ok(commands::execute(machine, &mut State::default(), line).replace('\n', "\r\n").into())
}

fn save(machine: &mut dyn Controlled, args: &Map<String, Value>, command: &str) -> Result<Value, Failure> {
    let line =
        format!("{command} {} {} {}", number(args, "val", 0)?, number(args, "size", 0)?, text(args, "filename")?);
    match commands::execute(machine, &mut State::default(), &line) {
        done if done.is_empty() => Ok(json!({})),
        error => Err(generic(error.trim().trim_start_matches("Error: "))),
    }
}

/// The drive that `id` or `device` names, and whether `force` is set.
fn drive(args: &Map<String, Value>) -> Result<(&str, bool), Failure> {
    let name = if args.contains_key("id") { text(args, "id")? } else { text(args, "device")? };
    if name.is_empty() {
        return Err(generic("Parameter 'id' or 'device' is missing"));
    }
    let force = args.get("force").map_or(Some(false), Value::as_bool);
    Ok((name, force.ok_or_else(|| generic("Invalid parameter type for 'force', expected: boolean"))?))
}

fn change_medium(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let ((name, force), file, format) = (drive(args)?, text(args, "filename")?, text(args, "format")?);
    if !matches!(text(args, "read-only-mode")?, "" | "retain" | "read-only") {
        return Err(generic("read-only-mode: a CD-ROM drive does not write"));
    }
    let known = ImageFormat::named(format);
    if known.is_none() && !format.is_empty() {
        return Err(generic(format!("Unknown driver '{format}'")));
    }
    machine.change_medium(name, Some(commands::medium(file, known)), force).map(|()| json!({})).map_err(generic)
}

fn eject(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let (name, force) = drive(args)?;
    machine.change_medium(name, None, force).map(|()| json!({})).map_err(generic)
}

fn screendump(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    // QMP's default is a PPM, whatever the name.
    let format = if args.contains_key("format") { text(args, "format")? } else { "ppm" };
    commands::screen_to(machine, text(args, "filename")?, format).map(|()| json!({})).map_err(generic)
}

fn vnc_password(machine: &mut dyn Controlled, password: &str) -> Result<Value, Failure> {
    machine.set_vnc_password(password).map(|()| json!({})).map_err(generic)
}

fn set_password(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    match (text(args, "protocol")?, text(args, "connected")?) {
        ("vnc", "" | "keep") => vnc_password(machine, text(args, "password")?),
        ("vnc", _) => Err(generic("who is connected stays so: 'keep' is all there is")),
        _ => Err(generic("the protocol is vnc")),
    }
}

fn send_key(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let wrong = || generic("Invalid parameter type for 'keys', expected: array");
    let keys = args.get("keys").and_then(Value::as_array).ok_or_else(wrong)?;
    let name = |key: &Value| match (key.get("type")?.as_str()?, key.get("data")?) {
        ("qcode", data) => Some(data.as_str()?.to_owned()),
        ("number", data) => Some(format!("{:#x}", data.as_u64()?)),
        _ => None,
    };
    let keys: Option<Vec<String>> = keys.iter().map(name).collect();
    let hold = number(args, "hold-time", 100)?.min(60_000);
    machine.send_keys(&keys.ok_or_else(|| generic("Invalid key"))?, hold).map(|()| json!({})).map_err(generic)
}

/// Executes a command that has been looked up already by its name.
fn execute(machine: &mut dyn Controlled, command: &Command, args: &Map<String, Value>) -> Result<Value, Failure> {
    let allowed = |arg: &String| command.args.iter().any(|name| name.trim_end_matches('?') == arg);
    if let Some(unknown) = args.keys().find(|arg| !allowed(arg)) {
        return Err(generic(format!("Parameter '{unknown}' is unexpected")));
    }
    if let Some(missing) = command.args.iter().find(|name| !name.ends_with('?') && !args.contains_key(**name)) {
        return Err(generic(format!("Parameter '{missing}' is missing")));
    }
    (command.run)(machine, args)
}

/// A session.
#[derive(Debug)]
pub(super) struct Qmp {
    control: Arc<Control>,
    splitter: Splitter,
    /// `qmp_capabilities` was executed.
    negotiated: bool,
    /// Answers are written over several lines.
    pretty: bool,
    /// What preceded was no JSON: it is told once, not for each byte.
    in_garbage: bool,
}

impl Qmp {
    /// A session that greets its client.
    pub(super) fn new(control: Arc<Control>, pretty: bool, out: &mut Vec<u8>) -> Qmp {
        let qmp = Qmp { control, splitter: Splitter::default(), negotiated: false, pretty, in_garbage: false };
        qmp.write(&json!({ "QMP": { "version": version(), "capabilities": [] } }), out);
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
        let name = match request.remove("execute") {
            Some(Value::String(name)) => name,
            Some(_) => return Ok(Err(generic("QMP input member 'execute' must be a string"))),
            None if request.contains_key("exec-oob") => {
                return Ok(Err(generic("Out-Of-Band capability is not offered")));
            }
            None => return Ok(Err(generic("QMP input lacks member 'execute'"))),
        };
        let args = match request.remove("arguments") {
            None => Map::new(),
            Some(Value::Object(args)) => args,
            Some(_) => return Ok(Err(generic("QMP input member 'arguments' must be an object"))),
        };
        if let Some(member) = request.keys().next() {
            return Ok(Err(generic(format!("QMP input member '{member}' is unexpected"))));
        }
        let not_found = |text: String| Ok(Err(("CommandNotFound", text)));
        if name == CAPABILITIES {
            if std::mem::replace(&mut self.negotiated, true) {
                return not_found(
                    "Capabilities negotiation is already complete, command 'qmp_capabilities' ignored".to_owned(),
                );
            }
            let wanted = args.get("enable").and_then(Value::as_array);
            if let Some(capability) = wanted.and_then(|list| list.first()) {
                self.negotiated = false;
                return Ok(Err(generic(format!("Capability {capability} is not available"))));
            }
            return Ok(Ok(json!({})));
        }
        if !self.negotiated {
            return not_found("Expecting capabilities negotiation with 'qmp_capabilities'".to_owned());
        }
        match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => self.control.call(move |machine| execute(machine, command, &args)),
            None => not_found(format!("The command {name} has not been found")),
        }
    }
}

/// An event's name and data.
fn event(notice: Notice) -> (&'static str, Option<Value>) {
    match notice {
        Notice::Stop(StopReason::User | StopReason::Breakpoint | StopReason::Watchpoint(_) | StopReason::Step) => {
            ("STOP", None)
        }
        Notice::Resume => ("RESUME", None),
        Notice::Powerdown => ("POWERDOWN", None),
        Notice::Reset { guest } => (
            "RESET",
            Some(json!({ "guest": guest, "reason": if guest { "guest-reset" } else { "host-qmp-system-reset" } })),
        ),
        Notice::Shutdown { guest, reason } => ("SHUTDOWN", Some(json!({ "guest": guest, "reason": reason }))),
    }
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
            self.in_garbage = garbage || self.in_garbage && byte != b'\n' && self.splitter.depth == 0;
        }
        Flow::Go
    }

    fn notices(&mut self, notices: &[(Notice, SystemTime)], out: &mut Vec<u8>) -> Flow {
        for (notice, time) in notices.iter().filter(|_| self.negotiated) {
            let (name, data) = event(*notice);
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
    use crate::kick::Kicker;

    fn pieces(bytes: &[u8]) -> Vec<Piece> {
        let mut splitter = Splitter::default();
        bytes.iter().filter_map(|&byte| splitter.push(byte)).collect()
    }

    #[test]
    fn objects_end_with_their_last_brace() {
        let two = br#" {"a": "}\"{", "b": [{}, 1]}{"c":1}"#;
        let expected = [&br#"{"a": "}\"{", "b": [{}, 1]}"#[..], br#"{"c":1}"#];
        assert_eq!(pieces(two), expected.map(|object| Piece::Object(object.to_vec())));
        assert_eq!(pieces(b"x{}"), [Piece::Garbage, Piece::Object(b"{}".to_vec())]);
    }

    #[test]
    fn an_object_without_an_end_takes_no_memory_without_an_end() {
        let mut splitter = Splitter::default();
        splitter.push(b'{');
        assert!((0..3 * OBJECT).all(|_| splitter.push(b' ').is_none()));
        assert!(splitter.bytes.len() <= OBJECT);
        assert_eq!(splitter.push(b'}'), Some(Piece::TooLong));
        assert_eq!(splitter.push(b'{'), None);
        assert_eq!(splitter.push(b'}'), Some(Piece::Object(b"{}".to_vec())));
    }

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
            (r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#, "GenericError", Value::Null),
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
    fn commands_are_sorted() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
    }
}
