//! Disks: `-drive`, and what of `-device` goes with it.

use mimus_hw::virt::VIRTIO_SLOTS;

use super::Stop;
use super::error::CliError;
use super::families;
use super::keyval::{self, Key, Kind, Values};
use crate::config::Disk;

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

const fn later(name: &'static str) -> Key {
    Key { name, kind: Kind::NotYet, help: "" }
}

/// The keys of `-drive`.
const DRIVE: &[Key] = &[
    key("file", Kind::Text("a file name, in which ',' is written ',,'"), "the image"),
    key("format", Kind::Word(&["raw"]), "what the image is; without it, what looks like another format is refused"),
    key("if", Kind::Word(&["virtio", "none"]), "how the disk is connected, default virtio; none: by a -device"),
    key("id", Kind::Text("a name"), "what -device calls it"),
    key("readonly", Kind::Word(&["on", "off"]), "the guest may not write"),
    key("media", Kind::Fixed("disk"), ""),
    key("cache", Kind::Fixed("writeback"), ""),
    key("discard", Kind::Fixed("unmap"), ""),
    later("aio"),
    later("auto-read-only"),
    later("bus"),
    later("copy-on-read"),
    later("cyls"),
    later("detect-zeroes"),
    later("driver"),
    later("heads"),
    later("index"),
    later("rerror"),
    later("secs"),
    later("snapshot"),
    later("throttling.bps-total"),
    later("throttling.iops-total"),
    later("unit"),
    later("werror"),
];

/// Disks that wait for a device.
#[derive(Debug, Default)]
pub(super) struct Disks {
    waiting: Vec<(String, Disk)>,
    ids: Vec<String>,
    plugged: usize,
}

impl Disks {
    /// Parses a `-drive`; the disk unless it waits for a `-device`.
    pub(super) fn drive(&mut self, text: &str) -> Result<Option<Disk>, Stop> {
        if families::is_help(text) {
            return Err(Stop::Print(families::list_keys("-drive", DRIVE)));
        }
        let items = keyval::split("-drive", text)?;
        let values = keyval::typed("-drive", &items, DRIVE)?;
        let file = values.text("file").filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| CliError::new("-drive", "needs file=FILE"))?;
        let disk = Disk {
            file: file.into(),
            raw: values.word("format").is_some(),
            read_only: values.word("readonly") == Some("on"),
            serial: String::new(),
        };
        if let Some(id) = values.text("id") {
            if self.ids.iter().any(|known| known == id) {
                return Err(CliError::new("-drive", format!("the id '{id}' is given twice")).into());
            }
            self.ids.push(id.to_owned());
        }
        if values.word("if") == Some("none") {
            let id = values.text("id").ok_or_else(|| CliError::new("-drive", "if=none needs id=ID for a -device"))?;
            self.waiting.push((id.to_owned(), disk));
            return Ok(None);
        }
        self.plugged += 1;
        if self.plugged > VIRTIO_SLOTS {
            return Err(CliError::new("-drive", format!("there are no more than {VIRTIO_SLOTS} slots")).into());
        }
        Ok(Some(disk))
    }

    /// The disk that a `-device` with these keys names.
    pub(super) fn device(&mut self, option: &str, values: &Values) -> Result<Disk, CliError> {
        let id = values.text("drive").ok_or_else(|| CliError::new(option, "needs drive=ID"))?;
        let found = self.waiting.iter().position(|(known, _)| known == id);
        let Some(index) = found else {
            let message = match self.ids.iter().any(|known| known == id) {
                true => format!("drive: '{id}' has a device already"),
                false => format!("drive: there is no -drive with id={id}"),
            };
            return Err(CliError::new(option, message));
        };
        let (_, disk) = self.waiting.remove(index);
        let serial = values.text("serial").unwrap_or_default();
        if serial.len() > 20 {
            return Err(CliError::new(option, "serial: longer than 20 characters"));
        }
        Ok(Disk { serial: serial.to_owned(), ..disk })
    }

    /// Every disk must have got its device.
    pub(super) fn check(&self) -> Result<(), CliError> {
        match self.waiting.first() {
            Some((id, _)) => Err(CliError::new("-drive", format!("no -device uses the drive '{id}'"))),
            None => Ok(()),
        }
    }
}
