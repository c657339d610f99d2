//! The object model as QEMU has it: types with their properties, and a tree of what the machine is made of.

use mimus_hw::registry::{self, Bus, Default};
use serde_json::{Map, Value, json};

use super::commands::listed;
use super::{Failure, generic, machine, probe, text};
use crate::control::Controlled;
use crate::machine::board_drivers;
use crate::monitor::chardevs;
use crate::offers::{Property, ValueKind};

/// Types that others are of: name and parent.
const BASES: &[(&str, &str)] = &[
    ("accel", "object"),
    ("bus", "object"),
    ("container", "object"),
    ("cpu", "device"),
    ("device", "object"),
    ("ide-device", "device"),
    ("isa-device", "device"),
    ("machine", "object"),
    ("object", ""),
    ("pci-device", "device"),
    ("sys-bus-device", "device"),
    ("virtio-device", "device"),
    ("virtio-serial-port", "device"),
];

fn not_found(text: String) -> Failure {
    ("DeviceNotFound", text)
}

fn parent_of(device: &str) -> &'static str {
    registry::model(device).map_or(Bus::System, |model| model.bus).parent()
}

/// A type that something can be.
struct Class {
    name: String,
    parent: String,
    properties: Vec<Property>,
}

/// All types that something can be.
fn classes(m: &dyn Controlled) -> Vec<Class> {
    let (kind, catalogue) = (m.config().machine, m.config().catalogue);
    let class = |name: String, parent: &str, properties| Class { name, parent: parent.to_owned(), properties };
    let devices = catalogue.devices(kind).into_iter().map(|device| {
        let parent = parent_of(device.name);
        class(device.name.to_owned(), parent, device.properties)
    });
    let machines = catalogue
        .machines(kind)
        .into_iter()
        .map(|offered| class(format!("{}-machine", probe::full_name(offered.name)), "machine", offered.properties));
    let cpus = catalogue.cpus(kind).into_iter().map(|model| {
        let switch =
            |(name, _): &(&'static str, bool)| Property { name, kind: ValueKind::Switch, help: "", default: None };
        class(machine::cpu_type(m, model.name), "cpu", model.features.iter().map(switch).collect())
    });
    let objects = catalogue.objects().into_iter().map(|made| class(made.name.to_owned(), "object", made.properties));
    let mut all: Vec<Class> = devices.chain(machines).chain(cpus).chain(objects).collect();
    // The one that there is; libvirt asks for it.
    all.push(class("tcg-accel".to_owned(), "accel", Vec::new()));
    for name in board_drivers(kind) {
        if all.iter().all(|known| known.name != name) {
            let rows = registry::model(name).map_or(&[][..], |model| model.properties);
            all.push(class(name.to_owned(), parent_of(name), rows.iter().filter_map(Property::of).collect()));
        }
    }
    all
}

/// Whether a type of this parent is a `wanted`.
fn is_a(mut parent: &str, wanted: &str) -> bool {
    while !parent.is_empty() {
        if parent == wanted {
            return true;
        }
        parent = BASES.iter().find(|(name, _)| *name == parent).map_or("", |(_, parent)| parent);
    }
    false
}

/// How a property is described.
fn described(name: &str, kind: &str, help: &str) -> Value {
    let mut row = json!({ "name": name, "type": kind });
    if !help.is_empty() {
        row["description"] = help.into();
    }
    row
}

fn property(property: &Property) -> Value {
    let kind = match property.kind {
        ValueKind::Switch => "bool",
        ValueKind::Number => "uint32",
        ValueKind::Size => "size",
        ValueKind::Text => "str",
    };
    let mut row = described(property.name, kind, property.help);
    if let Some(default) = property.default {
        row["default-value"] = match default {
            Default::Number(number) => number.into(),
            Default::Word(word) if property.kind == ValueKind::Switch => matches!(word, "on" | "1").into(),
            Default::Word(word) => word.into(),
        };
    }
    row
}

pub(super) fn types(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let wanted = if args.contains_key("implements") { text(args, "implements") } else { "object" };
    let mut all: Vec<Value> = classes(m)
        .iter()
        .filter(|class| class.name == wanted || is_a(&class.parent, wanted))
        .map(|class| json!({ "name": class.name, "parent": class.parent }))
        .collect();
    if args.get("abstract").and_then(Value::as_bool) == Some(true) {
        let bases = BASES.iter().filter(|(name, _)| is_a(name, wanted));
        all.extend(bases.map(|(name, parent)| match *parent {
            "" => json!({ "name": name, "abstract": true }),
            parent => json!({ "name": name, "abstract": true, "parent": parent }),
        }));
    }
    Ok(all.into())
}

pub(super) fn device_properties(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let name = text(args, "typename");
    let class = classes(m).into_iter().find(|class| class.name == name);
    let class = class.ok_or_else(|| not_found(format!("Device '{name}' not found")))?;
    if !is_a(&class.parent, "device") {
        return Err(generic("Parameter 'typename' expects a non-abstract device type"));
    }
    Ok(class.properties.iter().map(property).collect())
}

pub(super) fn class_properties(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let name = text(args, "typename");
    let found = classes(m).into_iter().find(|class| class.name == name).map(|class| class.properties);
    let base = BASES.iter().any(|(known, _)| *known == name).then(Vec::new);
    let properties = found.or(base).ok_or_else(|| not_found(format!("Class '{name}' not found")))?;
    let own = std::iter::once(described("type", "string", ""));
    Ok(own.chain(properties.iter().map(property)).collect())
}

pub(super) fn device_add(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let name = text(args, "driver");
    if classes(m).iter().all(|class| class.name != name || !is_a(&class.parent, "device")) {
        return Err(generic(format!("'{name}' is not a valid device model name")));
    }
    Err(generic("devices cannot be plugged in while a machine runs: name it on the command line"))
}

pub(super) fn device_del(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let id = text(args, "id");
    if !tree(m).iter().any(|node| node.path == format!("/machine/peripheral/{id}") || node.path == id) {
        return Err(not_found(format!("Device '{id}' not found")));
    }
    Err(generic(format!("Device '{id}' does not support hotplugging")))
}

/// Something in the tree.
struct Node {
    path: String,
    class: String,
    properties: Map<String, Value>,
}

impl Node {
    fn new(path: impl Into<String>, class: impl Into<String>, properties: Value) -> Node {
        let properties = if let Value::Object(properties) = properties { properties } else { Map::new() };
        Node { path: path.into(), class: class.into(), properties }
    }

    /// Its name, if it is in the node at `parent`.
    fn name_in(&self, parent: &str) -> Option<&str> {
        let name = self.path.strip_prefix(parent.trim_end_matches('/'))?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}

/// Everything that the machine is made of.
fn tree(m: &mut dyn Controlled) -> Vec<Node> {
    let kind = m.config().machine;
    let containers =
        ["/", "/objects", "/chardevs", "/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached"];
    let mut all: Vec<Node> = containers.iter().map(|path| Node::new(*path, "container", Value::Null)).collect();
    let config = m.config();
    if config.settings.no_machine {
        all.push(Node::new("/machine", "none-machine", Value::Null));
    } else {
        let class = format!("{}-machine", probe::full_name(kind.name()));
        let memory = json!({ "memory-backend": machine::ram_name(m), "ram-size": config.ram_size });
        let cpu = json!({ "realized": true, "hotplugged": false, "unavailable-features": [] });
        all.push(Node::new("/machine", class, memory));
        all.push(Node::new(machine::CPU_PATH, machine::cpu_type(m, &config.cpu), cpu));
    }
    for object in &m.kept().objects {
        all.push(Node::new(format!("/objects/{}", object.id), object.kind, Value::Null));
    }
    for (label, place) in chardevs::all(m.config()) {
        all.push(Node::new(format!("/chardevs/{label}"), "chardev", json!({ "filename": place })));
    }
    if let Value::Array(devices) = listed(m, "qmp-devices") {
        all.extend(devices.into_iter().map(|mut device| {
            let word = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
            Node::new(word("path"), word("type"), device["properties"].take())
        }));
    }
    all
}

/// The node at `path`, which may leave out its beginning when that leaves one only.
fn find(all: Vec<Node>, path: &str) -> Result<(Vec<Node>, usize), Failure> {
    let wanted = if path == "/" { path } else { path.trim_end_matches('/') };
    let suffix = format!("/{wanted}");
    let fits = |node: &Node| if wanted.starts_with('/') { node.path == wanted } else { node.path.ends_with(&suffix) };
    let mut found = all.iter().enumerate().filter(|(_, node)| fits(node)).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok((all, index)),
        (Some(_), Some(_)) => Err(generic(format!("Path '{path}' does not uniquely identify an object"))),
        _ => Err(not_found(format!("Device '{path}' not found"))),
    }
}

/// What QEMU calls the type of a value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::Array(_) => "strList",
        _ => "str",
    }
}

pub(super) fn list(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let (all, index) = find(tree(m), text(args, "path"))?;
    let node = &all[index];
    let own = std::iter::once(json!({ "name": "type", "type": "string" }));
    let properties = node.properties.iter().map(|(name, value)| json!({ "name": name, "type": kind_of(value) }));
    let children = all.iter().filter_map(|other| {
        let name = other.name_in(&node.path)?;
        Some(json!({ "name": name, "type": format!("child<{}>", other.class) }))
    });
    Ok(own.chain(properties).chain(children).collect())
}

pub(super) fn get(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let (all, index) = find(tree(m), text(args, "path"))?;
    let (node, wanted) = (&all[index], text(args, "property"));
    if wanted == "type" {
        return Ok(node.class.clone().into());
    }
    let child =
        || all.iter().find(|other| other.name_in(&node.path) == Some(wanted)).map(|other| other.path.clone().into());
    let value = node.properties.get(wanted).cloned().or_else(child);
    value.ok_or_else(|| generic(format!("Property '{}.{wanted}' not found", node.class)))
}

pub(super) fn set(m: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    get(m, args)?;
    let (all, index) = find(tree(m), text(args, "path"))?;
    Err(generic(format!("Property '{}.{}' is not writable", all[index].class, text(args, "property"))))
}

/// What `info qom-tree` prints.
pub(in crate::monitor) fn tree_text(m: &mut dyn Controlled) -> String {
    fn branch(all: &[Node], parent: &Node, depth: usize, out: &mut String) {
        for node in all {
            let Some(name) = node.name_in(&parent.path) else { continue };
            out.push_str(&format!("{}/{name} ({})\n", "  ".repeat(depth), node.class));
            branch(all, node, depth + 1, out);
        }
    }
    let all = tree(m);
    let mut out = String::new();
    if let Some(root) = all.iter().find(|node| node.path == "/machine") {
        out.push_str(&format!("/machine ({})\n", root.class));
        branch(&all, root, 1, &mut out);
    }
    out
}
