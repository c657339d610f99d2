//! Commands that change networks, objects and devices, and those that say why they cannot.

use serde_json::{Map, Value, json};

use super::{Context, Outcome};
use crate::monitor::qmp;

/// Commands of QEMU's that cannot do anything here: name, and why.
pub(super) static REFUSED: &[(&str, &str)] = &[
    ("announce_self", "networks are not told of the guest: it does that by itself when it starts"),
    ("balloon", "No balloon device has been activated"),
    ("block_resize", "images keep their size while a machine runs: resize the file with qemu-img before"),
    ("block_set_io_throttle", "limits are set on the command line: -drive throttling.bps-total=..."),
    ("block_stream", "there are no block jobs"),
    ("boot_set", "what is booted is chosen on the command line: -boot"),
    ("chardev-add", "character devices cannot be added while a machine runs: name it on the command line by -chardev"),
    ("chardev-change", "character devices stay as they are while a machine runs"),
    ("chardev-remove", "character devices stay as they are while a machine runs"),
    ("commit", "there are no block jobs: qemu-img commit does it while no machine runs"),
    ("delvm", "the state of a whole machine cannot be saved yet"),
    ("drive_add", "drives cannot be added while a machine runs: name it on the command line by -drive"),
    ("drive_backup", "there are no block jobs"),
    ("drive_del", "drives stay as long as the machine runs"),
    ("drive_mirror", "there are no block jobs"),
    ("dump-guest-memory", "dumps are not supported yet: pmemsave writes memory to a file"),
    ("expire_password", "passwords do not expire"),
    ("gdbserver", "a place for debuggers is opened on the command line: -gdb"),
    ("gpa2hpa", "host addresses are not told"),
    ("loadvm", "the state of a whole machine cannot be saved yet"),
    ("log", "what is logged is chosen on the command line: -d"),
    ("logfile", "where the log goes is chosen on the command line: -D"),
    ("migrate", "this machine cannot be migrated"),
    ("nbd_server_start", "there is no NBD server: qemu-nbd serves an image while no machine runs"),
    ("netdev_add", "networks cannot be added while a machine runs: name it on the command line by -netdev"),
    ("qemu-io", "images are not changed behind the guest's back"),
    ("savevm", "the state of a whole machine cannot be saved yet"),
    ("singlestep", "blocks of one instruction are chosen on the command line: -accel tcg,one-insn-per-tb=on"),
    ("snapshot_blkdev", "snapshots of disks are not supported yet: qemu-img snapshot while no machine runs"),
    ("trace-event", "there are no trace events; -d chooses what is logged"),
];

/// Has QMP do it; what it answers is not printed.
fn ask(c: &mut Context<'_>, command: &str, arguments: Value) -> Outcome {
    let arguments = if let Value::Object(arguments) = arguments { arguments } else { Map::new() };
    qmp::perform(c.machine, command, &arguments).map(drop)
}

/// Arguments as options have them: `FIRST,KEY=VALUE,...`, where the first is the value of `implied`.
fn options(text: &str, implied: &str) -> Value {
    let mut all = Map::new();
    for (index, item) in text.split(',').enumerate() {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key, value),
            None if index == 0 => (implied, item),
            None => (item, "on"),
        };
        all.insert(key.to_owned(), value.into());
    }
    all.into()
}

pub(super) fn set_link(c: &mut Context<'_>, args: &str) -> Outcome {
    let wrong = || "a name and 'on' or 'off' are needed".to_owned();
    let (name, state) = args.split_once(char::is_whitespace).ok_or_else(wrong)?;
    let up = match state.trim() {
        "on" => true,
        "off" => false,
        _ => return Err(wrong()),
    };
    c.machine.set_link(name, up)
}

/// The network, if one is named, and the rule.
fn rule(args: &str) -> (Option<&str>, &str) {
    args.split_once(char::is_whitespace).map_or((None, args), |(network, rule)| (Some(network), rule.trim()))
}

pub(super) fn hostfwd_add(c: &mut Context<'_>, args: &str) -> Outcome {
    let (network, rule) = rule(args);
    c.machine.forward(network, rule, true)
}

pub(super) fn hostfwd_remove(c: &mut Context<'_>, args: &str) -> Outcome {
    let (network, rule) = rule(args);
    c.machine.forward(network, rule, false)?;
    c.out.push_str(&format!("host forwarding rule for {rule} removed\n"));
    Ok(())
}

pub(super) fn object_add(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "object-add", options(args, "qom-type"))
}

pub(super) fn object_del(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "object-del", json!({ "id": args }))
}

pub(super) fn device_add(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "device_add", options(args, "driver"))
}

pub(super) fn device_del(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "device_del", json!({ "id": args }))
}

pub(super) fn netdev_del(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "netdev_del", json!({ "id": args }))
}

pub(super) fn closefd(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "closefd", json!({ "fdname": args }))
}

pub(super) fn watchdog_action(c: &mut Context<'_>, args: &str) -> Outcome {
    ask(c, "watchdog-set-action", json!({ "action": args }))
}

/// There is one, which is always chosen.
pub(super) fn cpu(_: &mut Context<'_>, args: &str) -> Outcome {
    if args == "0" { Ok(()) } else { Err("invalid CPU index".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_in_order_and_no_command() {
        assert!(REFUSED.is_sorted_by_key(|(name, _)| *name));
        assert!(super::super::names().all(|name| REFUSED.iter().all(|(refused, _)| *refused != name)));
    }

    #[test]
    fn arguments_are_as_options_have_them() {
        let expected = json!({ "driver": "e1000", "id": "a", "x": "on" });
        assert_eq!(options("e1000,id=a,x", "driver"), expected);
        assert_eq!(options("driver=e1000,id=a,x", "driver"), expected);
        assert_eq!((rule("net0 tcp::1-:2"), rule("tcp::1-:2")), ((Some("net0"), "tcp::1-:2"), (None, "tcp::1-:2")));
    }
}
