//! Every row of the registry of devices, as the command line has it.

use mimus_hw::registry::{Board, Host, Kind, Model, Property, models, offered};

use super::*;

/// What a device can refer to, and where ports go.
const HOSTS: &str = "-chardev null,id=chars -netdev user,id=net -drive file=/d,if=none,id=drive,format=raw \
                     -object rng-random,id=random,filename=/dev/urandom -object iothread,id=thread \
                     -fsdev local,id=folder,path=/p,security_model=none";

/// What begins the line of a board's machine, and the controller of ports there.
const BOARDS: [(Board, &str, &str); 2] =
    [(Board::Pc, "", "virtio-serial-pci"), (Board::Virt, "-arch riscv64", "virtio-serial-device")];

/// A value that a property takes.
fn sample(property: &Property) -> String {
    match property.kind {
        Kind::Number(_, high) => high.to_string(),
        Kind::Address(low, _) => low.to_string(),
        Kind::Word(words) | Kind::Among(words) => words[0].to_owned(),
        Kind::Text(_) => match property.name {
            "addr" => "5",
            "mac" => "52:54:00:12:34:56",
            "bus" => "ports.0",
            _ => "x",
        }
        .to_owned(),
        Kind::Id(Host::Chardev | Host::Output) => "chars".to_owned(),
        Kind::Id(Host::Netdev) => "net".to_owned(),
        Kind::Id(Host::Drive) => "drive".to_owned(),
        Kind::Id(Host::Folder) => "folder".to_owned(),
        Kind::Id(Host::Random) => "random".to_owned(),
        Kind::Id(Host::Thread) => "thread".to_owned(),
        Kind::Fixed(word) => word.to_owned(),
        Kind::Accepted | Kind::NotYet => "on".to_owned(),
        Kind::Without(_) => "off".to_owned(),
    }
}

/// A line with a device that is called `name`, and that has `property` beside what it cannot do without.
fn line(board: &str, controller: &str, model: &Model, name: &str, property: Option<&Property>) -> String {
    let needed = |other: &&Property| matches!(other.kind, Kind::Id(_)) || other.name == "mount_tag";
    let others = model.properties.iter().filter(needed).filter(|other| Some(other.name) != property.map(|p| p.name));
    let keys: String = others.chain(property).map(|key| format!(",{}={}", key.name, sample(key))).collect();
    format!("{board} {HOSTS} -device {controller},id=ports -device {name}{keys}")
}

#[test]
fn each_device_is_offered_by_each_of_its_names_and_with_each_property() {
    for (board, begin, controller) in BOARDS {
        let list = printed(&format!("{begin} -device help"));
        for model in offered(board) {
            let aliases: String = model.aliases.iter().map(|alias| format!(", alias \"{alias}\"")).collect();
            let told = format!("name \"{}\"{aliases}, desc \"{}\"\n", model.name, model.help);
            assert!(list.contains(&told), "{told}{list}");
            let keys = printed(&format!("{begin} -device {},help", model.name));
            for name in model.aliases.iter().chain([&model.name]) {
                config_of(&line(begin, controller, model, name, None));
                assert_eq!(printed(&format!("{begin} -device {name},help")), keys);
            }
            for property in model.properties {
                let is_listed = keys.contains(&format!("\n  {:<12} {}", property.name, property.help));
                assert_eq!(is_listed, !property.help.is_empty(), "{model:?}: {}: {keys}", property.name);
                let default = property.default_text().map(|text| format!(", default {text} ("));
                assert!(default.is_none_or(|default| keys.contains(&default)), "{model:?}: {}: {keys}", property.name);
                let line = line(begin, controller, model, model.name, Some(property));
                match property.kind {
                    Kind::NotYet => assert!(parsed(&line).unwrap_err().to_string().contains("not supported yet")),
                    _ => drop(config_of(&line)),
                }
            }
        }
    }
}

#[test]
fn a_device_that_is_there_is_not_among_what_is_missing() {
    for model in models().filter(|model| !model.help.is_empty()) {
        for name in model.aliases.iter().chain([&model.name]) {
            assert!(families::DEVICES_LATER.iter().all(|missing| missing.name != *name), "{name}");
        }
    }
}
