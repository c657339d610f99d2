//! Disks: `-drive`, `-hda`, `-cdrom`, and what of `-device` goes with them.

use std::ffi::OsStr;

use super::Stop;
use super::error::CliError;
use super::families;
use super::keyval::{self, Key, Kind, Values};
use crate::config::{Cache, Disk, IdeDrive, ImageFormat, Interface as VirtioInterface, Layers, Plug};

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

const fn later(name: &'static str) -> Key {
    Key { name, kind: Kind::NotYet, help: "" }
}

/// The keys of `-drive`.
const DRIVE: &[Key] = &[
    key("file", Kind::Text("a file name, in which ',' is written ',,'"), "the image"),
    key("format", Kind::Word(&["raw", "qcow2", "vmdk"]), "what the image is, default what it looks like"),
    key(
        "if",
        Kind::Word(&["ide", "virtio", "none"]),
        "how the disk is connected, default ide on a PC and virtio elsewhere; none: by a -device",
    ),
    key("media", Kind::Word(&["disk", "cdrom"]), "what it is, default disk"),
    key("index", Kind::Number(0, 3), "place on the IDE controller: bus * 2 + unit; default the first free one"),
    key("bus", Kind::Number(0, 1), "the same, the cable"),
    key("unit", Kind::Number(0, 1), "the same, the place on it"),
    key("id", Kind::Text("a name"), "what -device calls it"),
    key("readonly", Kind::Word(&["on", "off"]), "the guest may not write"),
    key("snapshot", Kind::Word(&["on", "off"]), "what the guest writes is forgotten at the end"),
    key("serial", Kind::Text("up to 20 characters"), "serial number"),
    key(
        "cache",
        Kind::Word(&["writeback", "none", "writethrough", "directsync", "unsafe"]),
        "none and directsync avoid the host's page cache, writethrough and directsync make each write last, unsafe none",
    ),
    key(
        "discard",
        Kind::Word(&["ignore", "off", "unmap", "on"]),
        "whether what the guest discards is given back to the host; default ignore",
    ),
    key("backing.file.filename", Kind::Text("a file name"), "the image's backing file, whatever the image says"),
    key("backing.driver", Kind::Word(&["raw", "qcow2"]), "what that is, default what it looks like"),
    key("data-file.filename", Kind::Text("a file name"), "the file with the image's data, whatever the image says"),
    key("throttling.bps-total", Kind::Number(0, MOST), "most bytes a second; 0, the default: no limit"),
    key("throttling.iops-total", Kind::Number(0, MOST), "most requests a second; 0, the default: no limit"),
    later("aio"),
    later("auto-read-only"),
    later("copy-on-read"),
    later("cyls"),
    later("detect-zeroes"),
    later("driver"),
    later("heads"),
    later("rerror"),
    later("secs"),
    later("throttling.bps-read"),
    later("throttling.bps-write"),
    later("throttling.iops-read"),
    later("throttling.iops-write"),
    later("werror"),
];

/// The largest limit that is one.
const MOST: u64 = 1 << 50;

/// How the host treats what is written, by name.
const CACHES: &[(&str, Cache)] = &[
    ("writeback", Cache { direct: false, writethrough: false, no_flush: false }),
    ("none", Cache { direct: true, writethrough: false, no_flush: false }),
    ("writethrough", Cache { direct: false, writethrough: true, no_flush: false }),
    ("directsync", Cache { direct: true, writethrough: true, no_flush: false }),
    ("unsafe", Cache { direct: false, writethrough: false, no_flush: true }),
];

/// How disks are connected that do not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// To the IDE controller.
    Ide,
    /// As a virtio device; there is no IDE controller.
    Virtio,
}

/// What a drive is, before it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Drive {
    cd_rom: bool,
    /// A CD-ROM drive may be empty.
    disk: Option<Disk>,
    serial: String,
    id: String,
    plug: Plug,
}

/// Disks on their way to a device.
#[derive(Debug)]
pub(super) struct Disks {
    default: Interface,
    /// `-snapshot`.
    snapshot: bool,
    waiting: Vec<(String, Drive)>,
    ids: Vec<String>,
    ide: [[Option<Drive>; 2]; 2],
}

fn value_of<T: Copy>(table: &[(&str, T)], word: Option<&str>) -> Option<T> {
    table.iter().find(|(name, _)| Some(*name) == word).map(|(_, value)| *value)
}

/// The files of an image that are named beside it.
fn layers(values: &Values) -> Layers {
    let format = values.word("backing.driver").and_then(ImageFormat::named);
    let backing = values.text("backing.file.filename").map(|file| (file.into(), format));
    Layers {
        backing: backing.into_iter().collect(),
        end: false,
        data_file: values.text("data-file.filename").map(Into::into),
    }
}

fn serial(option: &str, text: Option<&str>) -> Result<String, CliError> {
    let serial = text.unwrap_or_default();
    if serial.len() > 20 {
        return Err(CliError::new(option, "serial: longer than 20 characters"));
    }
    Ok(serial.to_owned())
}

/// What a `-device` says that is the same for all.
pub(super) fn plug(option: &str, values: &Values) -> Result<Plug, CliError> {
    let wrong = |text: &str, what: &str| CliError::new(option, format!("addr: '{text}' {what}"));
    let addr = values.text("addr").map(|text| {
        let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
        let hex = |digits: &str| u8::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok();
        match (hex(slot), hex(function)) {
            (Some(slot), Some(0)) if slot < 32 => Ok(slot << 3),
            (Some(slot), Some(1..8)) if slot < 32 => Err(wrong(text, "is not function 0 of a slot, as all here are")),
            _ => Err(wrong(text, "is not a slot from 0 to 1f")),
        }
    });
    let slot = values.word("bus").and_then(|bus| bus.strip_prefix(families::SLOT_BUS)?.parse().ok());
    let id = values.text("id").unwrap_or_default().to_owned();
    let boot_index = values.number("bootindex").and_then(|index| u32::try_from(index).ok());
    Ok(Plug { id, addr: addr.transpose()?, slot, interface: virtio_interface(option, values)?, boot_index })
}

/// How drivers reach a virtio device on the PCI bus.
fn virtio_interface(option: &str, values: &Values) -> Result<VirtioInterface, CliError> {
    let on = |key: &str| matches!(values.word(key), Some("on" | "true"));
    match (on("disable-legacy"), on("disable-modern")) {
        (false, false) => Ok(VirtioInterface::Transitional),
        (true, false) => Ok(VirtioInterface::Modern),
        (false, true) => Ok(VirtioInterface::Legacy),
        (true, true) => Err(CliError::new(option, "disable-legacy=on,disable-modern=on leaves no way to reach it")),
    }
}

impl Disks {
    pub(super) fn new(default: Interface, snapshot: bool) -> Disks {
        Disks { default, snapshot, waiting: Vec::new(), ids: Vec::new(), ide: Default::default() }
    }

    /// Parses a `-drive`; the disk if it is to become a virtio device.
    pub(super) fn drive(&mut self, text: &str) -> Result<Option<Disk>, Stop> {
        const OPTION: &str = "-drive";
        let wrong = |message: String| Stop::from(CliError::new(OPTION, message));
        if families::is_help(text) {
            return Err(Stop::Print(families::list_keys(OPTION, DRIVE)));
        }
        let items = keyval::split(OPTION, text)?;
        let values = keyval::typed(OPTION, &items, DRIVE)?;
        let drive = self.parse(&values)?;
        if let Some(id) = values.text("id") {
            if self.ids.iter().any(|known| known == id) {
                return Err(wrong(format!("the id '{id}' is given twice")));
            }
            self.ids.push(id.to_owned());
        }
        let interface = values.word("if").unwrap_or(match self.default {
            Interface::Ide => "ide",
            Interface::Virtio => "virtio",
        });
        let placed = ["index", "bus", "unit"].into_iter().find(|key| values.number(key).is_some());
        if let Some(key) = placed
            && interface != "ide"
        {
            return Err(wrong(format!("{key}: only disks with if=ide have a place")));
        }
        match interface {
            "none" => {
                let id = values.text("id").ok_or_else(|| wrong("if=none needs id=ID for a -device".into()))?;
                self.waiting.push((id.to_owned(), drive));
                Ok(None)
            }
            "virtio" if drive.cd_rom => Err(wrong("media=cdrom: a CD-ROM drive needs if=ide".into())),
            "virtio" => Ok(drive.disk),
            _ if self.default == Interface::Virtio => {
                Err(wrong("if=ide: this machine has no IDE controller (supported: virtio, none)".into()))
            }
            _ => {
                self.connect(OPTION, drive, place(OPTION, &values)?)?;
                Ok(None)
            }
        }
    }

    fn parse(&self, values: &Values) -> Result<Drive, CliError> {
        let cd_rom = values.word("media") == Some("cdrom");
        let file = values.text("file").filter(|file| !file.is_empty());
        if file.is_none() && !cd_rom {
            return Err(CliError::new("-drive", "needs file=FILE"));
        }
        let serial = serial("-drive", values.text("serial"))?;
        let id = values.text("id").unwrap_or_default().to_owned();
        let disk = file.map(|file| Disk {
            format: values.word("format").and_then(ImageFormat::named),
            read_only: cd_rom || values.word("readonly") == Some("on"),
            snapshot: self.snapshot && values.word("snapshot") != Some("off") || values.word("snapshot") == Some("on"),
            cache: value_of(CACHES, values.word("cache")).unwrap_or_default(),
            discard: matches!(values.word("discard"), Some("unmap" | "on")),
            layers: layers(values),
            bytes_per_second: values.number("throttling.bps-total").unwrap_or(0),
            requests_per_second: values.number("throttling.iops-total").unwrap_or(0),
            serial: serial.clone(),
            id: id.clone(),
            ..Disk::new(file)
        });
        Ok(Drive { cd_rom, disk, serial, id, plug: Plug::default() })
    }

    /// `-hda` and the like, and `-cdrom`: what is at a place of the IDE controller.
    pub(super) fn at_place(&mut self, option: &str, file: &OsStr, index: u64) -> Result<(), CliError> {
        if file.is_empty() {
            return Err(CliError::new(option, "the file name is empty"));
        }
        if self.default == Interface::Virtio {
            return Err(CliError::new(option, "this machine has no IDE controller: use -drive if=virtio"));
        }
        let cd_rom = option == "-cdrom";
        let disk = Disk { read_only: cd_rom, snapshot: self.snapshot, ..Disk::new(file) };
        self.connect(
            option,
            Drive { cd_rom, disk: Some(disk), serial: String::new(), id: String::new(), plug: Plug::default() },
            (Some(index / 2), Some(index % 2)),
        )
    }

    /// Puts a drive on the IDE controller: bus and unit where they are given, or the first free place.
    fn connect(&mut self, option: &str, drive: Drive, (bus, unit): Place) -> Result<(), CliError> {
        if !drive.cd_rom && drive.disk.as_ref().is_some_and(|disk| disk.read_only) {
            let message = "readonly=on: an IDE disk can be written to (use if=virtio, media=cdrom or snapshot=on)";
            return Err(CliError::new(option, message));
        }
        let mut places = (0..2).flat_map(|bus| (0..2).map(move |unit| (bus, unit))).filter(|&(at_bus, at_unit)| {
            bus.is_none_or(|bus| bus == at_bus) && unit.is_none_or(|unit| unit == at_unit)
        });
        let free = places.find(|&(bus, unit)| self.ide_mut(bus, unit).is_some_and(|place| place.is_none()));
        let Some((bus, unit)) = free else {
            let message = match (bus, unit) {
                (Some(bus), Some(unit)) => format!("there is a drive at bus={bus},unit={unit} already"),
                _ => "no place is left on the IDE controller, which has four".to_owned(),
            };
            return Err(CliError::new(option, message));
        };
        if let Some(place) = self.ide_mut(bus, unit) {
            *place = Some(drive);
        }
        Ok(())
    }

    fn ide_mut(&mut self, bus: u64, unit: u64) -> Option<&mut Option<Drive>> {
        self.ide.get_mut(bus as usize)?.get_mut(unit as usize)
    }

    /// The drive that a `-device` with these keys names, if it names one.
    fn take(&mut self, option: &str, values: &Values) -> Result<Option<Drive>, CliError> {
        let Some(id) = values.text("drive") else { return Ok(None) };
        let found = self.waiting.iter().position(|(known, _)| known == id);
        let Some(index) = found else {
            return Err(match self.ids.iter().any(|known| known == id) {
                true => CliError::new(option, format!("drive: '{id}' has a device already")),
                false => CliError::new(option, format!("drive: there is no -drive with id={id}")).following("-drive"),
            });
        };
        let (_, mut drive) = self.waiting.remove(index);
        if values.text("serial").is_some() {
            drive.serial = serial(option, values.text("serial"))?;
        }
        drive.plug = plug(option, values)?;
        if let Some(disk) = &mut drive.disk {
            disk.serial.clone_from(&drive.serial);
            disk.plug.clone_from(&drive.plug);
        }
        Ok(Some(drive))
    }

    /// The disk that a `-device` of virtio with these keys names.
    pub(super) fn device(&mut self, option: &str, values: &Values) -> Result<Disk, CliError> {
        let drive = self.take(option, values)?.ok_or_else(|| CliError::new(option, "needs drive=ID"))?;
        drive.disk.ok_or_else(|| CliError::new(option, "drive: it is empty"))
    }

    /// A `-device` ide-hd or ide-cd.
    pub(super) fn ide_device(&mut self, option: &str, values: &Values) -> Result<(), CliError> {
        let cd_rom = option.ends_with("ide-cd");
        let drive = match self.take(option, values)? {
            Some(drive) => drive,
            None if cd_rom => {
                let serial = serial(option, values.text("serial"))?;
                Drive { cd_rom, disk: None, serial, id: String::new(), plug: plug(option, values)? }
            }
            None => return Err(CliError::new(option, "needs drive=ID")),
        };
        let disk = drive.disk.map(|disk| Disk { read_only: cd_rom || disk.read_only, ..disk });
        if disk.is_none() && !cd_rom {
            return Err(CliError::new(option, "drive: it is empty"));
        }
        let bus = match values.word("bus") {
            Some("ide.0") => Some(0),
            Some("ide.1") => Some(1),
            _ => None,
        };
        self.connect(option, Drive { cd_rom, disk, ..drive }, (bus, values.number("unit")))
    }

    /// Every disk must have got its device. What is on the IDE controller then.
    pub(super) fn finish(self) -> Result<[[Option<IdeDrive>; 2]; 2], CliError> {
        if let Some((id, _)) = self.waiting.first() {
            return Err(CliError::new("-drive", format!("no -device uses the drive '{id}'")).following("-device"));
        }
        let mut index = 0;
        let mut finished = |drive: Option<Drive>| {
            index += 1;
            let Drive { cd_rom, disk, serial, id, plug } = drive?;
            // Of a length that no guest cuts.
            let serial = if serial.is_empty() { format!("MM{index:05}") } else { serial };
            let disk = disk.map(|disk| Disk { serial: serial.clone(), ..disk });
            match disk {
                Some(disk) if !cd_rom => Some(IdeDrive::Disk(disk)),
                medium => Some(IdeDrive::CdRom { medium, serial, id, plug }),
            }
        };
        Ok(self.ide.map(|channel| channel.map(&mut finished)))
    }
}

/// Bus and unit, where they are given.
type Place = (Option<u64>, Option<u64>);

fn place(option: &str, values: &Values) -> Result<Place, CliError> {
    match (values.number("index"), values.number("bus"), values.number("unit")) {
        (Some(_), bus, unit) if bus.or(unit).is_some() => {
            Err(CliError::new(option, "index: cannot be combined with bus and unit"))
        }
        (Some(index), ..) => Ok((Some(index / 2), Some(index % 2))),
        (None, bus, unit) => Ok((bus, unit)),
    }
}
