//! Shared folders: `-fsdev`, `-virtfs`, and the devices that they are mounted by.

use std::path::PathBuf;

use super::error::CliError;
use super::families::{Choice, Chosen, Family, Offer, yes};
use super::globals::Globals;
use super::keyval::{Key, Kind, Values};
use super::{Arch, Given, Refused, Stop, check_slots};
use mimus_host::config::{OtherDevices, SecurityModel, SharedFolder};
use mimus_hw::registry::VIRTIO_9P;
use mimus_machine::config::{Backend, Config};

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

const fn key_later(name: &'static str) -> Key {
    Key { name, kind: Kind::NotYet, help: "" }
}

/// Words for a security model.
const MODELS: &[&str] = &["none", "passthrough", "mapped-xattr", "mapped", "mapped-file"];

const TAG: Key = key("mount_tag", Kind::Text("up to 32 bytes"), "what the guest mounts it by");
const ID: Key = key("id", Kind::Text("a name"), "what a device's fsdev= calls it");
const PATH: Key = key("path", Kind::Text("a file name"), "the folder");
const MODEL: Key = key("security_model", Kind::Word(MODELS), "how owners and permissions become the host's");
const READ_ONLY: Key = key("readonly", Kind::Word(&["on", "off", "true", "false"]), "the guest may not change it");
const WRITE_OUT: Key = key("writeout", Kind::Word(&["immediate"]), "what is written is on the host's disk at once");
const FILE_MODE: Key = key("fmode", Kind::Text("octal digits"), "permissions of new files on the host, default 0600");
const DIRECTORY_MODE: Key = key("dmode", Kind::Text("octal digits"), "the same of directories, default 0700");
const DEVICES: Key =
    key("multidevs", Kind::Word(&["remap", "forbid", "warn"]), "what becomes of other file systems below the folder");

/// The keys of a folder; a `-virtfs` has a tag, too.
const LOCAL: &[Key] = &[
    ID,
    PATH,
    MODEL,
    READ_ONLY,
    WRITE_OUT,
    FILE_MODE,
    DIRECTORY_MODE,
    DEVICES,
    key_later("throttling.bps-total"),
    key_later("throttling.bps-read"),
    key_later("throttling.bps-write"),
    key_later("throttling.iops-total"),
    key_later("throttling.iops-read"),
    key_later("throttling.iops-write"),
];
const LOCAL_MOUNTED: &[Key] = &[TAG, ID, PATH, MODEL, READ_ONLY, WRITE_OUT, FILE_MODE, DIRECTORY_MODE, DEVICES];

const fn instead(name: &'static str, what: &'static str) -> Choice {
    Choice { name, help: "", offer: Offer::Instead(what) }
}
const PROXY: Choice = instead("proxy", "a helper of QEMU's that is no more: use local");
const SYNTH: Choice = instead("synth", "files for QEMU's own tests: use local");

/// `-fsdev`.
pub(super) const FSDEV: Family = Family {
    option: "-fsdev",
    noun: "a file system",
    implied: "fsdriver",
    heading: "Supported file systems are:",
    common: &[],
    choices: &[yes("local", "a folder of the host's", LOCAL), PROXY, SYNTH],
};

/// `-virtfs`.
pub(super) const VIRTFS: Family = Family {
    option: "-virtfs",
    noun: "a file system",
    implied: "fsdriver",
    heading: "Supported file systems are:",
    common: &[],
    choices: &[yes("local", "a folder of the host's, and the device for it", LOCAL_MOUNTED), PROXY, SYNTH],
};

/// What a device can name.
#[derive(Debug, Default)]
pub(super) struct Folders(Vec<SharedFolder>);

/// The folder that an option's values describe.
fn folder(option: &str, id: &str, values: &Values) -> Result<SharedFolder, CliError> {
    let wrong = |message: String| CliError::new(option, message);
    let path = values.text("path").ok_or_else(|| wrong("needs path=FOLDER".to_owned()))?;
    let model = match values.word("security_model") {
        Some("none") => SecurityModel::None,
        Some("passthrough") => SecurityModel::Passthrough,
        Some("mapped-xattr" | "mapped") => SecurityModel::MappedXattr,
        Some(word) => return Err(wrong(format!("security_model: {word} is not supported: use mapped-xattr"))),
        None => return Err(wrong("needs security_model=none, passthrough or mapped-xattr".to_owned())),
    };
    let mode = |key: &str, default| match values.text(key) {
        None => Ok(default),
        Some(_) if model != SecurityModel::MappedXattr => {
            Err(wrong(format!("{key}: is for security_model=mapped-xattr, others take the guest's permissions")))
        }
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| wrong(format!("{key}: '{text}' are not permissions, as 0644 is"))),
    };
    Ok(SharedFolder {
        id: id.to_owned(),
        path: PathBuf::from(path),
        model,
        read_only: matches!(values.word("readonly"), Some("on" | "true")),
        writes_through: values.word("writeout").is_some(),
        file_mode: mode("fmode", 0o600)?,
        directory_mode: mode("dmode", 0o700)?,
        devices: match values.word("multidevs") {
            Some("remap") => OtherDevices::Remap,
            Some("forbid") => OtherDevices::Forbid,
            _ => OtherDevices::Warn,
        },
        option: option.to_owned(),
    })
}

/// A tag that fits in the device.
fn tag(option: &str, values: &Values) -> Result<String, CliError> {
    const LONGEST: usize = 32;
    match values.text("mount_tag") {
        None | Some("") => Err(CliError::new(option, "needs mount_tag=TAG")),
        Some(tag) if tag.len() > LONGEST => {
            Err(CliError::new(option, format!("mount_tag: '{tag}' is longer than {LONGEST} bytes")))
        }
        Some(tag) => Ok(tag.to_owned()),
    }
}

impl Folders {
    /// Reads every `-fsdev`, and plugs in a device for every `-virtfs`.
    pub(super) fn parse(
        given: &Given,
        arch: Arch,
        globals: &Globals,
        refused: &mut Refused,
        config: &mut Config,
    ) -> Result<Folders, Stop> {
        let mut all = Folders::default();
        refused.each(given, "fsdev", |text| {
            let values = chosen(&FSDEV, text)?;
            let id = values.text("id").ok_or_else(|| CliError::new("-fsdev local", "needs id=ID"))?;
            all.add(folder("-fsdev local", id, &values)?)
        })?;
        refused.each(given, "virtfs", |text| {
            const OPTION: &str = "-virtfs local";
            let values = chosen(&VIRTFS, text)?;
            let tag = tag(OPTION, &values)?;
            let folder = folder(OPTION, values.text("id").unwrap_or(&tag), &values)?;
            all.add(folder.clone())?;
            check_slots(OPTION, arch, config)?;
            let device = globals.device(VIRTIO_9P.on(config.machine.board()), OPTION)?.with_text("mount_tag", tag);
            config.devices.push(device.behind(Backend::Folder(folder)));
            Ok(())
        })?;
        Ok(all)
    }

    fn add(&mut self, folder: SharedFolder) -> Result<(), Stop> {
        if self.0.iter().any(|other| other.id == folder.id) {
            return Err(CliError::new(&*folder.option, format!("the id '{}' is given twice", folder.id)).into());
        }
        self.0.push(folder);
        Ok(())
    }

    /// A device that names one of the folders.
    pub(super) fn device(&self, option: &str, values: &Values) -> Result<SharedFolder, CliError> {
        let id = values.text("fsdev").ok_or_else(|| CliError::new(option, "needs fsdev=ID"))?;
        let found = self.0.iter().find(|folder| folder.id == id);
        let missing = || CliError::new(option, format!("fsdev: there is no -fsdev with id={id}")).following("-fsdev");
        tag(option, values)?;
        Ok(found.ok_or_else(missing)?.clone())
    }
}

/// The values of the one file system that there is.
fn chosen(family: &Family, text: &str) -> Result<Values, Stop> {
    match family.parse(text, None)? {
        Chosen::Help(text) => Err(Stop::Print(text)),
        Chosen::One(_, values) => Ok(values),
    }
}
