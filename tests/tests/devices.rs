//! Every row of the registry of devices in a machine that has it: what monitors tell of it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use mimus_hw::registry::{Board, Host, Kind, Model, Property, fixed, models, offered};
use mimus_tests::client::Qmp;
use mimus_tests::{Folder, Session};
use serde_json::{Value, json};

/// How long a run may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// The options that plug `model` in as `id`, behind what it refers to on the host.
fn plugged(model: &Model, id: &str, folder: &Folder) -> Vec<String> {
    let mut args = Vec::new();
    let mut keys = format!("{},id={id}", model.name);
    for Property { name, kind, .. } in model.properties {
        let (option, value) = match kind {
            Kind::Id(Host::Chardev | Host::Output) => ("-chardev", format!("null,id={id}-{name}")),
            Kind::Id(Host::Netdev) => ("-netdev", format!("user,id={id}-{name}")),
            Kind::Id(Host::Drive) => {
                let file = folder.write(&format!("{id}-disk"), &[0; 65536]);
                ("-drive", format!("file={file},if=none,format=raw,id={id}-{name}"))
            }
            Kind::Id(Host::Folder) => {
                ("-fsdev", format!("local,id={id}-{name},path={},security_model=none", folder.path("")))
            }
            _ => continue,
        };
        args.extend([option.to_owned(), value]);
        keys.push_str(&format!(",{name}={id}-{name}"));
    }
    if model.property("mount_tag").is_some() {
        keys.push_str(",mount_tag=tag");
    }
    args.extend(["-device".to_owned(), keys]);
    args
}

/// The names that an answer lists.
fn names(answer: &Value) -> BTreeSet<&str> {
    answer.as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect()
}

/// Starts a machine with each device that a user can plug into `board`, and looks at what is told of them.
fn each_device_is_told_of(board: Board, more: &[&str]) {
    let folder = Folder::new();
    let socket = folder.path("qmp");
    let qmp = format!("unix:{socket},server=on,wait=off");
    let mut args: Vec<String> = ["-S", "-nodefaults", "-display", "none", "-qmp", &qmp].map(str::to_owned).to_vec();
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    // Ports come behind their controller, which is on another bus.
    let plugged_in: Vec<&Model> = offered(board).collect();
    for (index, model) in plugged_in.iter().enumerate() {
        args.extend(plugged(model, &format!("row{index}"), &folder));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut session = Session::piped("every device", &args, LIMIT);
    session.close_input();
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    let line = json!({ "execute": "human-monitor-command", "arguments": { "command-line": "info qtree" } });
    let tree = q.ask(&line)["return"].as_str().expect("text").replace('\r', "");
    for (index, model) in plugged_in.iter().enumerate() {
        let head = format!("dev: {}, id \"row{index}\"\n", model.name);
        let (_, rest) = tree.split_once(&head).unwrap_or_else(|| panic!("{head}{tree}"));
        let own = rest.split("dev: ").next().unwrap_or_default();
        let defaults = model.properties.iter().filter(|_| model.is_plain());
        for (property, text) in defaults.filter_map(|property| Some((property, property.default_text()?))) {
            let line = format!("{} = {text}\n", property.name);
            assert!(own.contains(&line), "{}: {line}{own}", model.name);
        }
    }
    for (model, _) in fixed(board).filter(|(_, fixed)| !fixed.optional) {
        assert!(tree.contains(&format!("dev: {}, id \"\"\n", model.name)), "{}: {tree}", model.name);
    }
    let types = q.execute("qom-list-types");
    for model in models() {
        let here = model.is_offered(board) || model.fixed.iter().any(|fixed| fixed.board == board && !fixed.optional);
        let class = types.as_array().expect("a list").iter().find(|class| class["name"] == model.name);
        assert_eq!(class.map(|class| &class["parent"]), here.then_some(&json!(model.bus.parent())), "{}", model.name);
        if !here {
            continue;
        }
        let ask = json!({ "execute": "device-list-properties", "arguments": { "typename": model.name } });
        let answer = q.ask(&ask)["return"].clone();
        let known = model.properties.iter().filter(|property| property.kind != Kind::NotYet);
        assert_eq!(names(&answer), known.map(|property| property.name).collect(), "{}", model.name);
        for row in answer.as_array().expect("a list") {
            let property = model.property(row["name"].as_str().unwrap_or_default()).expect("it was found before");
            assert_eq!(row.get("default-value").is_some(), property.default.is_some(), "{}: {row}", model.name);
        }
    }
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn each_device_of_a_pc_is_told_of() {
    each_device_is_told_of(Board::Pc, &[]);
}

#[test]
fn each_device_of_a_risc_v_board_is_told_of() {
    let folder = Folder::new();
    let firmware = folder.write("firmware", &0x0000_006fu32.to_le_bytes());
    each_device_is_told_of(Board::Virt, &["-arch", "riscv64", "-bios", &firmware]);
}

#[test]
fn what_is_said_of_all_of_a_kind_is_told() {
    let folder = Folder::new();
    let socket = folder.path("qmp");
    let qmp = format!("unix:{socket},server=on,wait=off");
    let globals = ["VGA.xres=800", "PIIX4_PM.disable_s3=1", "isa-serial.irq=5"];
    let mut args = vec!["-S", "-display", "none", "-qmp", &qmp];
    args.extend(globals.iter().flat_map(|global| ["-global", global]));
    let mut session = Session::piped("globals", &args, LIMIT);
    session.close_input();
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    let line = json!({ "execute": "human-monitor-command", "arguments": { "command-line": "info qtree" } });
    let tree = q.ask(&line)["return"].as_str().expect("text").replace('\r', "");
    for (device, expected) in [
        ("VGA", "xres = 800\n"),
        ("VGA", "yres = 800\n"),
        ("PIIX4_PM", "disable_s3 = 1\n"),
        ("isa-serial", "irq = 5\n"),
    ] {
        let own = tree.split("dev: ").find(|part| part.starts_with(&format!("{device},"))).expect("it is there");
        assert!(own.contains(expected), "{device}: {expected}{own}");
    }
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

/// What a port is connected to on the host is opened once: a second time, the socket's name would be taken.
#[test]
fn each_serial_port_has_its_socket() {
    let folder = Folder::new();
    let [socket, ports @ ..] = ["qmp", "port0", "port1", "port2"].map(|name| folder.path(name));
    let listening = |path: &String| format!("unix:{path},server=on,wait=off");
    let (qmp, serial) = (listening(&socket), ports.each_ref().map(listening));
    let mut args = vec!["-S", "-display", "none", "-qmp", &qmp];
    serial.iter().for_each(|port| args.extend(["-serial", port]));
    let mut session = Session::piped("serial ports", &args, LIMIT);
    session.close_input();
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    for port in &ports {
        std::os::unix::net::UnixStream::connect(port).unwrap_or_else(|error| panic!("{port}: {error}"));
    }
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}
