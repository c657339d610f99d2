//! QMP's commands that press keys and move the mouse.

use mimus_hw::keys::Key;
use serde_json::{Map, Value, json};

use super::commands::done;
use super::{Failure, generic, number};
use crate::control::{Controlled, RunState};
use mimus_host::display::Console;

/// The wheel's buttons, and steps of the wheel towards the user.
const WHEEL: [(&str, i32); 2] = [("wheel-up", -1), ("wheel-down", 1)];

/// Buttons of the mouse: name, and bit in what it reports.
const BUTTONS: [(&str, u8); 5] = [("left", 1), ("right", 2), ("middle", 4), ("side", 8), ("extra", 16)];

/// What `sendkey` calls a key that QMP names by its kind and its name or number.
fn key_name(key: &Value) -> Option<String> {
    match (key.get("type")?.as_str()?, key.get("data")?) {
        ("qcode", data) => Some(data.as_str()?.to_owned()),
        ("number", data) => Some(format!("{:#x}", data.as_u64()?)),
        _ => None,
    }
}

pub(super) fn send_key(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let keys = args.get("keys").and_then(Value::as_array).into_iter().flatten();
    let keys: Option<Vec<String>> = keys.map(key_name).collect();
    let hold = number(args, "hold-time", 100).min(60_000);
    machine.send_keys(&keys.ok_or_else(|| generic("Invalid key"))?, hold).map_err(generic)?;
    done()
}

/// What an event does.
enum Act {
    Key(Key, bool),
    Button(u8, bool),
    /// To the right, down, and of the wheel towards the user.
    Move(i32, i32, i32),
    /// The release of a wheel's button.
    Nothing,
}

fn act(event: &Value) -> Result<Act, Failure> {
    let data = &event["data"];
    let down = data["down"].as_bool().unwrap_or_default();
    match event["type"].as_str() {
        Some("key") => {
            let name = key_name(&data["key"]).unwrap_or_default();
            let code = name.strip_prefix("0x").and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let key = Key::named(&name).or_else(|| Key::of_code(code?));
            key.map(|key| Act::Key(key, down)).ok_or_else(|| generic(format!("'{name}' is not a key")))
        }
        Some("btn") => {
            let name = data["button"].as_str().unwrap_or_default();
            let of = |(known, _): &&(&str, _)| *known == name;
            match (BUTTONS.iter().find(of), WHEEL.iter().find(|(known, _)| *known == name)) {
                (Some((_, bit)), _) => Ok(Act::Button(*bit, down)),
                (_, Some((_, steps))) if down => Ok(Act::Move(0, 0, *steps)),
                (_, Some(_)) => Ok(Act::Nothing),
                _ => Err(generic(format!("the mouse has no button '{name}'"))),
            }
        }
        Some("rel") => {
            let counts = data["value"].as_i64().unwrap_or_default();
            let counts = counts.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            Ok(if data["axis"] == "x" { Act::Move(counts, 0, 0) } else { Act::Move(0, counts, 0) })
        }
        _ => Err(generic("Input handler not found for event type abs")),
    }
}

impl Act {
    fn happen(self, console: &Console) {
        match self {
            Act::Key(key, down) => console.key(key, down),
            Act::Button(bit, down) => console.button(bit, down),
            Act::Move(dx, dy, dz) => console.move_mouse(dx, dy, dz),
            Act::Nothing => {}
        }
    }
}

pub(super) fn send_event(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    if machine.state() != RunState::Running {
        return Err(generic("VM not running"));
    }
    let console = machine.console().ok_or_else(|| generic("this machine has neither keyboard nor mouse"))?;
    let events = args.get("events").and_then(Value::as_array).into_iter().flatten();
    // All or none.
    let acts = events.map(act).collect::<Result<Vec<Act>, Failure>>()?;
    acts.into_iter().for_each(|act| act.happen(&console));
    done()
}

pub(super) fn mice(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let mouse = json!({ "name": "PS/2 Mouse", "index": 0, "current": true, "absolute": false });
    let there = machine.console().is_some() && !machine.config().settings.no_machine;
    Ok(there.then_some(mouse).into_iter().collect())
}
