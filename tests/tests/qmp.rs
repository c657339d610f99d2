//! QMP as others know it: every answer has the type that the schema and the crate `qapi-qmp` (QEMU 7.2's) say.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use mimus_tests::client::Qmp;
use mimus_tests::{Folder, Session};
use qapi_qmp::QmpCommand;
use serde_json::{Value, json};

/// How long a run may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// A machine that does not run, with a disk, and a client of it.
fn machine(name: &str, folder: &Folder, more: &[&str]) -> (Session, Qmp) {
    let (socket, disk) = (folder.path("qmp"), folder.write("disk", &[0; 65536]));
    let drive = format!("file={disk},if=virtio,format=raw,id=d");
    let qmp = format!("unix:{socket},server=on,wait=off");
    let mut args = vec!["-S", "-display", "none", "-qmp", &qmp, "-drive", &drive];
    args.extend(more);
    let mut session = Session::piped(name, &args, LIMIT);
    session.close_input();
    let mut client = Qmp::new(&socket);
    assert_eq!(
        client.ask(&json!({ "execute": "qmp_capabilities", "arguments": { "enable": ["oob"] } }))["return"],
        json!({})
    );
    (session, client)
}

/// What is wrong with a value of the type `name`.
fn wrong(schema: &HashMap<&str, &Value>, name: &str, value: &Value) -> Option<String> {
    let entity = schema[name];
    let bad = || Some(format!("{name}: {value}"));
    match entity["meta-type"].as_str()? {
        "builtin" => {
            let fits = match entity["json-type"].as_str()? {
                "string" => value.is_string(),
                "int" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "value" => true,
                _ => false,
            };
            if fits { None } else { bad() }
        }
        "enum" => {
            if entity["values"].as_array()?.contains(value) {
                None
            } else {
                bad()
            }
        }
        "array" => match value.as_array() {
            Some(list) => list.iter().find_map(|value| wrong(schema, entity["element-type"].as_str()?, value)),
            None => bad(),
        },
        "object" => {
            let Some(object) = value.as_object() else { return bad() };
            let members = entity["members"].as_array()?;
            // What it is tells more of its members than the table says.
            let open = name == "SchemaInfo";
            let listed = |known: &String| open || members.iter().any(|member| member["name"] == **known);
            if !object.keys().all(listed) {
                return bad();
            }
            members.iter().find_map(|member| match object.get(member["name"].as_str()?) {
                Some(value) => wrong(schema, member["type"].as_str()?, value),
                None if member.get("default").is_some() => None,
                None => bad(),
            })
        }
        other => Some(format!("{name} is of the unknown kind {other}")),
    }
}

/// Queries that are refused where there is nothing to be told.
const ABSENT: [&str; 6] = [
    "query-balloon",
    "query-hotpluggable-cpus",
    "query-sev-capabilities",
    "query-sgx",
    "query-sgx-capabilities",
    "query-vm-generation-id",
];

/// Asks for everything that takes no arguments, and compares it with what the schema says.
fn answers_fit_the_schema(q: &mut Qmp) {
    let all = q.execute("query-qmp-schema");
    let schema: HashMap<&str, &Value> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|entity| (entity["name"].as_str().expect("a name"), entity))
        .collect();
    let queries = schema.values().filter(|entity| {
        let name = entity["name"].as_str().unwrap_or_default();
        let arguments = entity["arg-type"].as_str().and_then(|args| schema[args]["members"].as_array());
        let none_needed = arguments.is_some_and(|args| args.iter().all(|member| member.get("default").is_some()));
        entity["meta-type"] == "command" && name.starts_with("query-") && none_needed
    });
    let mut count = 0;
    for query in queries {
        let name = query["name"].as_str().expect("a name");
        let answer = q.ask(&json!({ "execute": name }));
        count += 1;
        match answer.get("return") {
            Some(value) => {
                assert_eq!(wrong(&schema, query["ret-type"].as_str().expect("a type"), value), None, "{name}")
            }
            // As QEMU has it where there is no such device.
            None => assert!(ABSENT.contains(&name), "{name}: {answer}"),
        }
    }
    assert!(count > 30, "{count} queries");
}

/// Executes a command and has the crate read its result.
fn read<C: QmpCommand>(q: &mut Qmp, arguments: Value) {
    let answer = q.ask(&json!({ "execute": C::NAME, "arguments": arguments }));
    let result = answer.get("return").unwrap_or_else(|| panic!("{}: {answer}", C::NAME));
    if let Err(error) = serde_json::from_value::<C::Ok>(result.clone()) {
        panic!("{}: {error}: {result}", C::NAME);
    }
}

macro_rules! read_all {
    ($q:expr; $($command:ident)*) => { $(read::<qapi_qmp::$command>($q, json!({}));)* };
}

fn answers_are_qemus(q: &mut Qmp) {
    let accelerators = q.ask(&json!({ "execute": "qom-list-types", "arguments": { "implements": "accel" } }));
    assert_eq!(accelerators["return"], json!([{ "name": "tcg-accel", "parent": "accel" }]));
    read_all!(q;
        query_block query_block_jobs query_blockstats query_chardev query_command_line_options query_commands
        query_cpu_definitions query_current_machine query_dump query_fdsets query_hotpluggable_cpus query_iothreads query_jobs
        query_kvm query_machines query_memdev query_memory_devices query_memory_size_summary query_mice query_migrate
        query_migrate_capabilities query_migrate_parameters query_name query_named_block_nodes query_pci query_qmp_schema
        query_replay query_rx_filter query_spice query_stats_schemas query_status query_target query_tpm query_tpm_models query_tpm_types query_uuid query_version
        query_vnc query_vnc_servers query_yank qom_list_types
    );
    read::<qapi_qmp::query_stats>(q, json!({ "target": "vm" }));
    for path in ["/", "/machine", "/machine/unattached/device[0]", "/machine/peripheral", "/chardevs"] {
        read::<qapi_qmp::qom_list>(q, json!({ "path": path }));
    }
}

#[test]
fn a_pc_answers_as_qemu_does() {
    let folder = Folder::new();
    let vnc = format!("unix:{}", folder.path("vnc"));
    let (session, mut q) = machine("QMP of a PC", &folder, &["-vnc", &vnc, "-device", "virtio-rng-pci,id=r"]);
    answers_fit_the_schema(&mut q);
    answers_are_qemus(&mut q);
    let model = json!({ "type": "full", "model": { "name": "max", "props": { "sse4.2": false } } });
    read::<qapi_qmp::query_cpu_model_expansion>(&mut q, model.clone());
    let expansion = q.ask(&json!({ "execute": "query-cpu-model-expansion", "arguments": model }));
    let props = &expansion["return"]["model"]["props"];
    assert_eq!((&props["sse4.1"], &props["sse4.2"], &props["avx"]), (&json!(true), &json!(false), &json!(false)));
    for name in ["virtio-blk-pci", "e1000", "VGA", "piix3-ide"] {
        read::<qapi_qmp::device_list_properties>(&mut q, json!({ "typename": name }));
    }
    read::<qapi_qmp::qom_list_properties>(&mut q, json!({ "typename": "pc-i440fx-7.2-machine" }));
    let get = json!({ "execute": "qom-get", "arguments": { "path": "/machine/peripheral/r", "property": "type" } });
    assert_eq!(q.ask(&get)["return"], "virtio-rng-pci");
    let errors = [
        ("device-list-properties", json!({ "typename": "nonsense" }), "DeviceNotFound", "Device 'nonsense' not found"),
        ("qom-list-properties", json!({ "typename": "nonsense" }), "DeviceNotFound", "Class 'nonsense' not found"),
        ("qom-list", json!({ "path": "/nonsense" }), "DeviceNotFound", "Device '/nonsense' not found"),
        (
            "qom-set",
            json!({ "path": "/machine", "property": "type", "value": 1 }),
            "GenericError",
            "Property 'pc-i440fx-7.2-machine.type' is not writable",
        ),
        (
            "device_add",
            json!({ "driver": "nonsense", "x": 1 }),
            "GenericError",
            "'nonsense' is not a valid device model name",
        ),
        ("device_del", json!({ "id": "nonsense" }), "DeviceNotFound", "Device 'nonsense' not found"),
        ("query-balloon", json!({}), "DeviceNotActive", "No balloon device has been activated"),
        ("eject", json!({ "device": "nonsense" }), "DeviceNotFound", "Device 'nonsense' not found"),
        ("input-send-event", json!({ "events": [] }), "GenericError", "VM not running"),
        (
            "migrate-set-capabilities",
            json!({ "capabilities": [{ "capability": "events", "state": true }, { "capability": "block", "state": true }] }),
            "GenericError",
            "'block' cannot be switched on: this machine cannot be migrated",
        ),
        (
            "migrate-set-parameters",
            json!({ "max-bandwidth": 1 }),
            "GenericError",
            "'max-bandwidth' cannot be set: this machine cannot be migrated",
        ),
    ];
    for (name, arguments, class, desc) in errors {
        let answer = q.ask(&json!({ "execute": name, "arguments": arguments }));
        assert_eq!((&answer["error"]["class"], &answer["error"]["desc"]), (&json!(class), &json!(desc)), "{name}");
    }
    for on in [true, false] {
        let wanted = json!([{ "capability": "events", "state": on }, { "capability": "xbzrle", "state": false }]);
        let set = json!({ "execute": "migrate-set-capabilities", "arguments": { "capabilities": wanted } });
        assert_eq!(q.ask(&set)["return"], json!({}));
        let all = q.execute("query-migrate-capabilities");
        let is_on = |one: &Value| one["state"] == true;
        assert_eq!(all.as_array().map(|all| all.iter().filter(|one| is_on(one)).count()), Some(usize::from(on)));
    }
    let oob = q.ask(&json!({ "exec-oob": "query-yank", "id": 7 }));
    assert_eq!((&oob["return"], &oob["id"]), (&json!([]), &json!(7)));
    let oob = q.ask(&json!({ "exec-oob": "stop" }));
    assert_eq!(oob["error"]["desc"], "The command stop does not support OOB");
    q.execute("cont");
    for event in [
        json!({ "type": "key", "data": { "down": true, "key": { "type": "qcode", "data": "a" } } }),
        json!({ "type": "btn", "data": { "down": true, "button": "left" } }),
        json!({ "type": "rel", "data": { "axis": "x", "value": -5 } }),
    ] {
        let answer = q.ask(&json!({ "execute": "input-send-event", "arguments": { "events": [event] } }));
        assert_eq!(answer["return"], json!({}), "{event}");
    }
    // What is asked for after a reset comes after it.
    q.stream.write_all(br#"{"execute":"system_reset"}{"execute":"quit"}"#).expect("QMP reads");
    q.event("RESET");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn what_is_no_machine_answers_who_asks_what_there_is() {
    let folder = Folder::new();
    let socket = folder.path("qmp");
    let qmp = format!("unix:{socket},server=on,wait=off");
    let args = ["-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=kvm:tcg", "-qmp", &qmp];
    let mut session = Session::piped("QMP of no machine", &args, LIMIT);
    session.close_input();
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    answers_fit_the_schema(&mut q);
    assert_eq!(q.execute("query-cpus-fast"), json!([]));
    assert_eq!(q.execute("query-memory-size-summary")["base-memory"], 0);
    let machines = q.execute("query-machines");
    assert!(
        machines.as_array().is_some_and(|all| all.iter().any(|one| one["alias"] == "pc" && one["is-default"] == true))
    );
    assert_eq!(
        q.ask(&json!({ "execute": "qom-get", "arguments": { "path": "/machine", "property": "type" } }))["return"],
        "none-machine"
    );
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn a_risc_v_board_answers_as_qemu_does() {
    let folder = Folder::new();
    let firmware = folder.write("firmware", &0x0000_006fu32.to_le_bytes());
    let (session, mut q) = machine("QMP of RISC-V", &folder, &["-arch", "riscv64", "-bios", &firmware]);
    answers_fit_the_schema(&mut q);
    answers_are_qemus(&mut q);
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

/// The class and the description of an error.
fn error(answer: &Value) -> (&str, &str) {
    let word = |name: &str| answer["error"][name].as_str().unwrap_or_default();
    (word("class"), word("desc"))
}

#[test]
fn clients_hand_over_file_descriptors() {
    let folder = Folder::new();
    let (session, mut q) = machine("QMP, descriptors", &folder, &[]);
    let cd = std::fs::File::open(folder.write("cd", &[0; 8192])).expect("the file is there");
    let getfd = json!({ "execute": "getfd", "arguments": { "fdname": "x" } });
    let missing = ("GenericError", "No file descriptor supplied via SCM_RIGHTS");
    assert_eq!(error(&q.ask(&getfd)), missing);
    assert_eq!(q.hand_over(&getfd, &[cd.as_fd()])["return"], json!({}));
    assert_eq!(error(&q.ask(&getfd)), missing, "one is used once");
    let closefd = json!({ "execute": "closefd", "arguments": { "fdname": "x" } });
    assert_eq!(q.ask(&closefd)["return"], json!({}));
    assert_eq!(error(&q.ask(&closefd)).1, "File descriptor named 'x' not found");
    let add = json!({ "execute": "add-fd", "arguments": { "fdset-id": 3, "opaque": "the cd" } });
    let added = q.hand_over(&add, &[cd.as_fd()])["return"].clone();
    assert_eq!(added["fdset-id"], 3);
    assert_eq!(
        q.execute("query-fdsets"),
        json!([{ "fdset-id": 3, "fds": [{ "fd": added["fd"], "opaque": "the cd" }] }])
    );
    let change = json!({ "device": "ide1-cd0", "filename": "/dev/fdset/3", "format": "raw" });
    let change = json!({ "execute": "blockdev-change-medium", "arguments": change });
    assert_eq!(q.ask(&change)["return"], json!({}));
    let remove = json!({ "execute": "remove-fd", "arguments": { "fdset-id": 3 } });
    assert_eq!(q.ask(&remove)["return"], json!({}));
    assert_eq!(error(&q.ask(&remove)).1, "File descriptor named 'fdset-id:3' not found");
    assert!(q.ask(&change)["error"].is_object());
    // More than are kept: the rest is refused, and nothing else happens.
    for _ in 0..80 {
        q.hand_over(&add, &[cd.as_fd(); 8]);
    }
    assert_eq!(q.execute("query-fdsets")[0]["fds"].as_array().map(Vec::len), Some(64));
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0));
}

#[test]
fn links_objects_and_actions_are_changed() {
    let folder = Folder::new();
    let net = ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,id=nic", "-object", "iothread,id=t"];
    let (session, mut q) = machine("QMP, links and objects", &folder, &net);
    let mut ask = |name: &str, arguments: Value| q.ask(&json!({ "execute": name, "arguments": arguments }));
    for (name, up) in [("nic", false), ("n", true)] {
        assert_eq!(ask("set_link", json!({ "name": name, "up": up }))["return"], json!({}));
    }
    let missing = ask("set_link", json!({ "name": "x", "up": true }));
    assert_eq!(error(&missing), ("DeviceNotFound", "Device 'x' not found"));
    let filter = ask("query-rx-filter", json!({ "name": "nic" }));
    assert_eq!((&filter["return"][0]["name"], &filter["return"][0]["promiscuous"]), (&json!("nic"), &json!(true)));
    assert_eq!(error(&ask("query-rx-filter", json!({ "name": "x" }))).1, "invalid net client name: x");
    assert_eq!(error(&ask("netdev_del", json!({ "id": "x" }))).0, "DeviceNotFound");
    assert!(error(&ask("netdev_del", json!({ "id": "n" }))).1.contains("in use"));
    let add = json!({ "qom-type": "iothread", "id": "u", "poll-max-ns": 5 });
    assert_eq!(ask("object-add", add.clone())["return"], json!({}));
    assert!(error(&ask("object-add", add)).1.contains("duplicate property 'u'"));
    assert!(error(&ask("object-add", json!({ "qom-type": "nonsense", "id": "v" }))).1.contains("nonsense"));
    let threads = ask("query-iothreads", json!({}));
    assert_eq!((&threads["return"][0]["id"], &threads["return"][1]["id"]), (&json!("t"), &json!("u")));
    assert_eq!(ask("qom-list", json!({ "path": "/objects" }))["return"][2]["type"], "child<iothread>");
    assert_eq!(ask("object-del", json!({ "id": "u" }))["return"], json!({}));
    assert_eq!(error(&ask("object-del", json!({ "id": "u" }))).1, "object 'u' not found");
    assert!(error(&ask("set-action", json!({ "reboot": "never" }))).1.contains("does not accept"));
    assert_eq!(ask("set-action", json!({ "reboot": "shutdown", "panic": "none" }))["return"], json!({}));
    ask("system_reset", json!({}));
    assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "host-qmp-system-reset");
    assert_eq!(session.finish().code, Some(0));
}

/// As libvirt, which counts by device and by node, wants it.
#[test]
fn a_drive_is_its_node_or_has_one() {
    let folder = Folder::new();
    let node = ["-blockdev", "driver=null-co,node-name=n,size=1M", "-device", "virtio-blk-pci,drive=n"];
    let (session, mut q) = machine("QMP, nodes", &folder, &node);
    for command in ["query-block", "query-blockstats"] {
        let all = q.ask(&json!({ "execute": command, "arguments": {} }));
        let devices: Vec<&Value> = all["return"].as_array().expect("a list").iter().map(|one| &one["device"]).collect();
        assert!(devices.contains(&&json!("")) && devices.contains(&&json!("d")), "{command}: {all}");
    }
    let stats = q.ask(&json!({ "execute": "query-blockstats", "arguments": {} }));
    let nodes = stats["return"].as_array().expect("a list").iter().map(|one| &one["node-name"]);
    assert_eq!(nodes.filter(|name| *name == "n").count(), 1, "{stats}");
    q.ask(&json!({ "execute": "quit", "arguments": {} }));
    assert_eq!(session.finish().code, Some(0));
}
