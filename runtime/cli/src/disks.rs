//! Disks: `-drive`, `-hda`, `-cdrom`, and what of `-device` goes with them.

use std::ffi::OsStr;

use mimus_hw::registry::{IDE_CD, IDE_HD, Model, Value, put_drive};

use super::Stop;
use super::error::CliError;
use super::globals::Globals;
use super::keyval::{self, Item, Key, Kind, Values, accepted, key, without};
use super::{block, families, throttling};
use mimus_host::config::{Cache, Disk, Limits, OnError, Plug};
use mimus_machine::config::{Backend, CD_ROM_OPTION, Device};

/// What there is not.
const GEOMETRY: &str = "a disk's geometry is that of its size";

/// On or off.
const SWITCH: Kind = Kind::Word(&["on", "off"]);

/// The keys of `-drive` that are not about its image: see [`block`] for those.
const DRIVE: &[Key] = &[
    key("file", Kind::Text("a file name, in which ',' is written ',,', or json:{...}"), "the image"),
    key("format", Kind::Word(&["raw", "qcow2", "vmdk"]), "what the image is, default what it looks like"),
    key(
        "if",
        Kind::Word(&["ide", "virtio", "none"]),
        "how the disk is connected, default ide on a PC, virtio elsewhere unless a -device has it; none: by a -device",
    ),
    key("media", Kind::Word(&["disk", "cdrom"]), "what it is, default disk"),
    key("index", Kind::Number(0, 255), "place on the IDE controller: bus * 2 + unit; default the first free one"),
    key("bus", Kind::Number(0, 255), "the same, the cable"),
    key("unit", Kind::Number(0, 255), "the same, the place on it"),
    key("id", Kind::Text("a name"), "what -device calls it"),
    key("readonly", SWITCH, "the guest may not write"),
    key("snapshot", SWITCH, "what the guest writes is forgotten at the end"),
    key("serial", Kind::Text("up to 20 characters"), "serial number"),
    key(
        "cache",
        Kind::Word(&["writeback", "none", "writethrough", "directsync", "unsafe"]),
        "none and directsync avoid the host's page cache, writethrough and directsync make each write last, unsafe none",
    ),
    key("cache.writeback", SWITCH, "off: each write lasts before the guest hears of its end"),
    key(
        "rerror",
        Kind::Word(&["report", "ignore", "stop"]),
        "a read that failed: the guest is told, or not, or the machine stops; default report",
    ),
    key(
        "werror",
        Kind::Word(&["report", "ignore", "stop", "enospc"]),
        "the same of a write; enospc, the default: it stops where there is no room, and the guest is told of the rest",
    ),
    accepted("stats-account-failed"),
    accepted("stats-account-invalid"),
    without("cyls", GEOMETRY),
    without("heads", GEOMETRY),
    without("secs", GEOMETRY),
    without("trans", GEOMETRY),
];

/// All keys of `-drive` that are not about its image.
fn drive_keys() -> Vec<Key> {
    [DRIVE, throttling::DRIVE, &[throttling::GROUP]].concat()
}

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
}

/// Disks on their way to a device.
#[derive(Debug)]
pub(super) struct Disks {
    default: Interface,
    /// `-snapshot`.
    snapshot: bool,
    waiting: Vec<(String, Drive)>,
    /// Disks with an id that become virtio devices unless a `-device` takes them.
    undecided: Vec<(String, Drive)>,
    ids: Vec<String>,
    /// What is on the IDE controller.
    ide: Vec<Device>,
    nodes: block::Nodes,
    warnings: Vec<String>,
}

fn value_of<T: Copy>(table: &[(&str, T)], word: Option<&str>) -> Option<T> {
    table.iter().find(|(name, _)| Some(*name) == word).map(|(_, value)| *value)
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
    Ok(Plug { id, addr: addr.transpose()?, slot, boot_index })
}

impl Disks {
    /// Disks of a machine with these groups of limits.
    pub(super) fn new(default: Interface, snapshot: bool, groups: Vec<Limits>) -> Disks {
        Disks {
            default,
            snapshot,
            waiting: Vec::new(),
            undecided: Vec::new(),
            ids: Vec::new(),
            ide: Vec::new(),
            nodes: block::Nodes::new(groups),
            warnings: Vec::new(),
        }
    }

    /// Parses a `-drive`; the disk if it is to become a virtio device.
    pub(super) fn drive(&mut self, text: &str, globals: &Globals) -> Result<Option<Disk>, Stop> {
        const OPTION: &str = "-drive";
        let wrong = |message: String| Stop::from(CliError::new(OPTION, message));
        if families::is_help(text) {
            let keys = [&drive_keys(), block::keys()].concat();
            return Err(Stop::Print(families::list_keys(OPTION, &keys)));
        }
        let mut items = keyval::split(OPTION, text.strip_prefix("json:").unwrap_or(text))?;
        throttling::rename(&mut items);
        let keys = drive_keys();
        let of_image = |item: &&Item| {
            let name = item.key.as_deref().unwrap_or(&item.value);
            !keys.iter().any(|key| key.name == name) && block::is_key(name)
        };
        let own: Vec<Item> = items.iter().filter(|item| !of_image(item)).cloned().collect();
        interface(&own)?;
        let values = keyval::typed(OPTION, &own, &keys)?;
        self.warnings.extend(values.warnings(OPTION));
        let drive = self.parse(&values, items.iter().filter(of_image).cloned().collect())?;
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
        // What has no place on the IDE controller may name one all the same, as it may for QEMU.
        match interface {
            "none" => {
                let id = values.text("id").ok_or_else(|| wrong("if=none needs id=ID for a -device".into()))?;
                self.waiting.push((id.to_owned(), drive));
                Ok(None)
            }
            "virtio" if values.word("if").is_none() && !drive.cd_rom && !drive.id.is_empty() => {
                self.undecided.push((drive.id.clone(), drive));
                Ok(None)
            }
            "virtio" if drive.cd_rom => Err(wrong("media=cdrom: a CD-ROM drive needs if=ide".into())),
            "virtio" => Ok(drive.disk),
            _ if self.default == Interface::Virtio => {
                Err(wrong("if=ide: this machine has no IDE controller (supported: virtio, none)".into()))
            }
            _ => {
                self.connect(OPTION, drive, place(OPTION, &values)?, globals)?;
                Ok(None)
            }
        }
    }

    /// The drive of these values, whose image `items` are about.
    fn parse(&mut self, values: &Values, items: Vec<Item>) -> Result<Drive, CliError> {
        let cd_rom = values.word("media") == Some("cdrom");
        let serial = serial("-drive", values.text("serial"))?;
        let id = values.text("id").unwrap_or_default().to_owned();
        let (file, on) =
            (values.text("file").filter(|file| !file.is_empty()), |key: &str| values.word(key) == Some("on"));
        if file.is_none() && items.is_empty() {
            return match cd_rom {
                true => Ok(Drive { cd_rom, disk: None, serial, id }),
                false => Err(CliError::new("-drive", "needs file=FILE")),
            };
        }
        let image = self.nodes.image(&image(file, values.word("format"), items)?)?;
        let limits = self.nodes.limits(throttling::of_drive("-drive", values)?, &image)?;
        let mut cache = value_of(CACHES, values.word("cache")).unwrap_or_default();
        cache.direct |= image.cache.direct;
        cache.no_flush |= image.cache.no_flush;
        if let Some(writeback) = values.word("cache.writeback") {
            cache.writethrough = writeback == "off";
        }
        let on_error = |key: &str, default| values.word(key).and_then(OnError::named).unwrap_or(default);
        let disk = Disk {
            read_only: cd_rom || image.read_only || on("readonly"),
            snapshot: self.snapshot && values.word("snapshot") != Some("off") || on("snapshot"),
            cache,
            limits: Box::new(limits),
            on_error: (on_error("rerror", image.on_error.0), on_error("werror", image.on_error.1)),
            serial: serial.clone(),
            id: id.clone(),
            ..image
        };
        Ok(Drive { cd_rom, disk: Some(disk), serial, id })
    }

    /// Reads a `-blockdev`.
    pub(super) fn blockdev(&mut self, text: &str) -> Result<(), Stop> {
        self.nodes.add(text)
    }

    /// Warnings of what nothing uses, and of what is not honoured.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let unused = self.waiting.iter().map(|(id, _)| format!("-drive: no -device uses the drive '{id}'"));
        self.warnings.iter().cloned().chain(unused).chain(self.nodes.unused())
    }

    /// `-hda` and the like, and `-cdrom`: what is at a place of the IDE controller.
    pub(super) fn at_place(
        &mut self,
        option: &str,
        file: &OsStr,
        index: u64,
        globals: &Globals,
    ) -> Result<(), CliError> {
        if file.is_empty() {
            return Err(CliError::new(option, "the file name is empty"));
        }
        if self.default == Interface::Virtio {
            return Err(CliError::new(option, "this machine has no IDE controller: use -drive if=virtio"));
        }
        let cd_rom = option == CD_ROM_OPTION;
        let disk = Disk { read_only: cd_rom, snapshot: self.snapshot, option: option.to_owned(), ..Disk::new(file) };
        let drive = Drive { cd_rom, disk: Some(disk), serial: String::new(), id: String::new() };
        self.connect(option, drive, address(index), globals)
    }

    /// Puts a drive on the IDE controller that no `-device` has: at this address, and for the rest as `globals` say.
    fn connect(
        &mut self,
        option: &str,
        mut drive: Drive,
        (bus, unit): IdeAddress,
        globals: &Globals,
    ) -> Result<(), CliError> {
        let mut device = globals.device(drive.model(), option)?;
        put_drive(&mut device.values, bus, unit);
        if drive.serial.is_empty() {
            drive.serial = serial("-global", device.values.text("serial").as_deref())?;
        }
        if let Some(disk) = &mut drive.disk {
            of_device(disk, |key| device.values.word(key));
        }
        self.plug_ide(device, drive)
    }

    /// Puts a drive on the IDE controller as this device.
    fn plug_ide(&mut self, mut device: Device, Drive { cd_rom, disk, serial, id }: Drive) -> Result<(), CliError> {
        if !cd_rom && disk.as_ref().is_some_and(|disk| disk.read_only) {
            let message = "readonly=on: an IDE disk can be written to (use if=virtio, media=cdrom or snapshot=on)";
            return Err(CliError::new(device.option, message));
        }
        for (name, text) in [("serial", &serial), ("drive", &id)].into_iter().filter(|(_, text)| !text.is_empty()) {
            device.values.set(name, Value::Text(text.clone()));
        }
        let backend = disk.map_or(Backend::Nothing, |disk| Backend::Disk(Box::new(Disk { serial, ..disk })));
        self.ide.push(device.behind(backend));
        Ok(())
    }

    /// The drive that a `-device` with these keys names, if it names one.
    fn take(&mut self, option: &str, values: &Values) -> Result<Option<Drive>, CliError> {
        let Some(id) = values.text("drive") else { return Ok(None) };
        let from = |drives: &mut Vec<(String, Drive)>| {
            let index = drives.iter().position(|(known, _)| known == id)?;
            Some(drives.remove(index).1)
        };
        let Some(mut drive) = from(&mut self.waiting).or_else(|| from(&mut self.undecided)) else {
            if let Some(disk) = self.nodes.take(option, id)? {
                return self.node(option, disk, values).map(Some);
            }
            return Err(match self.ids.iter().any(|known| known == id) {
                true => CliError::new(option, format!("drive: '{id}' has a device already")),
                false => CliError::new(option, format!("drive: there is no -drive with id={id}")).following("-drive"),
            });
        };
        if values.text("serial").is_some() {
            drive.serial = serial(option, values.text("serial"))?;
        }
        if let Some(disk) = &mut drive.disk {
            disk.serial.clone_from(&drive.serial);
            of_device(disk, |key| values.word(key));
        }
        Ok(Some(drive))
    }

    /// The drive that a `-device` with these keys makes of a node.
    fn node(&self, option: &str, disk: Disk, values: &Values) -> Result<Drive, CliError> {
        let serial = serial(option, values.text("serial"))?;
        let (id, option) = (disk.id.clone(), "-blockdev".to_owned());
        let snapshot = self.snapshot;
        let mut disk = Disk { serial: serial.clone(), option, snapshot, ..disk };
        of_device(&mut disk, |key| values.word(key));
        Ok(Drive { cd_rom: false, disk: Some(disk), serial, id })
    }

    /// The disks that are virtio devices since no `-device` has taken them.
    pub(super) fn undecided(&mut self) -> impl Iterator<Item = Disk> {
        self.undecided.drain(..).filter_map(|(_, drive)| drive.disk)
    }

    /// The disk that a `-device` of virtio with these keys names.
    pub(super) fn device(&mut self, option: &str, values: &Values) -> Result<Disk, CliError> {
        let drive = self.take(option, values)?.ok_or_else(|| CliError::new(option, "needs drive=ID"))?;
        drive.disk.ok_or_else(|| CliError::new(option, "drive: it is empty"))
    }

    /// A `-device` on the IDE controller, of which `values` name the drive.
    pub(super) fn ide_device(&mut self, device: Device, values: &Values) -> Result<(), CliError> {
        let (option, cd_rom) = (&*device.option, device.model == IDE_CD);
        let drive = match self.take(option, values)? {
            Some(drive) => drive,
            None if cd_rom => {
                Drive { cd_rom, disk: None, serial: serial(option, values.text("serial"))?, id: String::new() }
            }
            None => return Err(CliError::new(option, "needs drive=ID")),
        };
        let disk = drive.disk.map(|disk| Disk { read_only: cd_rom || disk.read_only, ..disk });
        if disk.is_none() && !cd_rom {
            return Err(CliError::new(option, "drive: it is empty"));
        }
        self.plug_ide(device, Drive { cd_rom, disk, ..drive })
    }

    /// What is on the IDE controller when each disk has got its device.
    pub(super) fn on_ide(self) -> Vec<Device> {
        self.ide
    }
}

impl Drive {
    /// The device that it is on the IDE controller.
    fn model(&self) -> &'static Model {
        if self.cd_rom { IDE_CD } else { IDE_HD }
    }
}

/// What a device says of how its disk is written, by its words for the properties of these names.
fn of_device(disk: &mut Disk, word: impl Fn(&str) -> Option<&'static str>) {
    if let Some(cached @ ("on" | "off")) = word("write-cache") {
        disk.cache.writethrough = cached == "off";
    }
    let on_error = |key: &str, now| word(key).and_then(OnError::named).unwrap_or(now);
    disk.on_error = (on_error("rerror", disk.on_error.0), on_error("werror", disk.on_error.1));
}

/// The keys of an image whose file and format are given as `-drive` has them.
fn image(file: Option<&str>, format: Option<&str>, mut items: Vec<Item>) -> Result<Vec<Item>, CliError> {
    let item = |key: &str, value: &str| Item { key: Some(key.to_owned()), value: value.to_owned() };
    match file {
        Some(file) if file.starts_with("json:") => items.extend(keyval::split("-drive: file", &file["json:".len()..])?),
        Some(file) => items.extend(block::named(file)),
        None => {}
    }
    // What looks like one of these is a format by another name.
    items.extend(format.map(|format| item("driver", format)));
    let locking = items.iter().position(|item| item.key.as_deref() == Some("locking"));
    if let Some(index) = locking {
        let locking = items.remove(index);
        items.push(Item { key: Some("file.locking".to_owned()), ..locking });
    }
    Ok(items)
}

/// Refuses an interface that is known and missing by what it is.
fn interface(items: &[Item]) -> Result<(), CliError> {
    let named = items.iter().filter(|item| item.key.as_deref() == Some("if"));
    for item in named {
        if let Some((_, subject)) = block::INTERFACES.iter().find(|(name, _)| *name == item.value) {
            return Err(CliError::new("-drive: if", subject.lacking(&format!("'{}'", item.value))));
        }
    }
    Ok(())
}

/// Bus and unit, where they are given.
type IdeAddress = (Option<usize>, Option<usize>);

/// What `index` is short for.
fn address(index: u64) -> IdeAddress {
    (Some(index as usize / 2), Some(index as usize % 2))
}

fn place(option: &str, values: &Values) -> Result<IdeAddress, CliError> {
    let number = |key: &str| values.number(key).and_then(|number| usize::try_from(number).ok());
    let place = match (values.number("index"), number("bus"), number("unit")) {
        (Some(_), bus, unit) if bus.or(unit).is_some() => {
            return Err(CliError::new(option, "index: cannot be combined with bus and unit"));
        }
        (Some(index), ..) => address(index),
        (None, bus, unit) => (bus, unit),
    };
    let beyond = |part: Option<usize>| part.is_some_and(|part| part > 1);
    if beyond(place.0) || beyond(place.1) {
        return Err(CliError::new(option, "index, bus, unit: the IDE controller has two buses with two places each"));
    }
    Ok(place)
}
