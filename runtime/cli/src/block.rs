//! Images in the words of QEMU's block layer: nodes in each other, with dots, as JSON, or one by one by `-blockdev`.

use super::error::CliError;
use super::families;
use super::keyval::{self, Item, Key, Kind, Values, accepted, among, fixed, key};
use super::{Stop, subjects};
use mimus_host::config::{Disk, ImageFormat, Layers, Limits, Zeroes};

/// On or off.
const SWITCH: Kind = Kind::Word(&["on", "off"]);
/// How deep nodes may be in each other.
const DEPTH: usize = 100;

/// The keys of a node.
const NODE: &[Key] = &[
    key(
        "driver",
        Kind::Word(&[
            "raw",
            "qcow2",
            "vmdk",
            "file",
            "host_device",
            "host_cdrom",
            "null-co",
            "null-aio",
            "throttle",
            "copy-on-read",
        ]),
        "what it is: a format, where its bytes are, or something between two others",
    ),
    key("node-name", Kind::Text("a name"), "what others call it"),
    key("throttle-group", Kind::Text("the id of an -object"), "of throttle: the limits"),
    key("filename", Kind::Text("a file name"), "of file and host_device"),
    key("file", Kind::Text("the name of a node"), "where a format's bytes are"),
    key("backing", Kind::Text("the name of a node, or nothing"), "what an image's unwritten parts are read from"),
    key("data-file", Kind::Text("the name of a node"), "where the data of an image are"),
    key("offset", Kind::Bytes, "of raw: the first byte of the disk"),
    key("size", Kind::Bytes, "of raw and null-co: bytes of the disk"),
    key("read-only", SWITCH, "the guest may not write"),
    key("auto-read-only", SWITCH, "it may not if the file cannot be written to"),
    key("copy-on-read", SWITCH, "what is read from a backing image is written into the image above it"),
    key("locking", Kind::Word(&["auto", "on", "off"]), "others are kept from the file; default on"),
    key("cache.direct", SWITCH, "past the host's page cache"),
    key("cache.no-flush", SWITCH, "flushes are ignored"),
    key("discard", Kind::Word(&["ignore", "off", "unmap", "on"]), "what the guest discards is given back to the host"),
    key("detect-zeroes", Kind::Word(&["off", "on", "unmap"]), "zeroes that the guest writes take no space"),
    among("aio", &["threads", "native", "io_uring"]),
    accepted("aio-max-batch"),
    among("read-zeroes", &["on", "off"]),
    fixed("force-share", "off"),
    among("overlap-check", &["none", "constant", "cached", "all"]),
    accepted("cache-size"),
    accepted("cache-clean-interval"),
    accepted("drop-cache"),
    accepted("l2-cache-size"),
    accepted("l2-cache-entry-size"),
    accepted("latency-ns"),
    accepted("lazy-refcounts"),
    accepted("pass-discard-other"),
    accepted("pass-discard-request"),
    accepted("pass-discard-snapshot"),
    accepted("refcount-cache-size"),
    accepted("x-check-cache-dropped"),
];

/// The keys that have a node inside.
const CHILDREN: [&str; 3] = ["file", "backing", "data-file"];

/// A node that was read.
#[derive(Debug, Clone)]
struct Layer {
    disk: Disk,
    /// It says where bytes are, and not what they mean.
    protocol: bool,
}

/// The nodes of `-blockdev`, and the groups of limits that they can be in.
#[derive(Debug)]
pub(super) struct Nodes {
    named: Vec<Named>,
    groups: Vec<Limits>,
}

#[derive(Debug)]
struct Named {
    name: String,
    layer: Layer,
    used: bool,
}

/// Whether a key of `-drive` is one of its image's.
pub(super) fn is_key(name: &str) -> bool {
    let (first, nested) = name.split_once('.').map_or((name, false), |(first, _)| (first, true));
    (nested && CHILDREN.contains(&first)) || NODE.iter().any(|key| key.name == name)
}

impl Nodes {
    pub(super) fn new(groups: Vec<Limits>) -> Nodes {
        Nodes { named: Vec::new(), groups }
    }

    /// Reads a `-blockdev`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Stop> {
        const OPTION: &str = "-blockdev";
        if families::is_help(text) {
            return Err(Stop::Print(families::list_keys(OPTION, NODE)));
        }
        let mut items = keyval::split(OPTION, text)?;
        if let Some(first) = items.first_mut().filter(|first| first.key.is_none()) {
            first.key = Some("driver".to_owned());
        }
        let name = items.iter().find(|item| item.key.as_deref() == Some("node-name")).map(|item| item.value.clone());
        let name = name.ok_or_else(|| CliError::new(OPTION, "needs node-name=NAME"))?;
        if self.named.iter().any(|node| node.name == name) {
            return Err(CliError::new(OPTION, format!("the name '{name}' is given twice")).into());
        }
        let layer = self.read(OPTION, &items, DEPTH)?;
        self.named.push(Named { name, layer, used: false });
        Ok(())
    }

    /// The disk that is `name`, if that is a node, for a device.
    pub(super) fn take(&mut self, option: &str, name: &str) -> Result<Option<Disk>, CliError> {
        if !self.named.iter().any(|node| node.name == name) {
            return Ok(None);
        }
        let mut disk = self.find(option, name)?.disk;
        name.clone_into(&mut disk.id);
        // Where bytes are, and nothing else: they are the disk's.
        disk.format = disk.format.or(Some(ImageFormat::Raw));
        Ok(Some(disk))
    }

    /// A warning for each node that nothing uses.
    pub(super) fn unused(&self) -> impl Iterator<Item = String> {
        self.named
            .iter()
            .filter(|node| !node.used)
            .map(|node| format!("-blockdev: nothing uses the node '{}'", node.name))
    }

    fn find(&mut self, option: &str, name: &str) -> Result<Layer, CliError> {
        let node = self.named.iter_mut().find(|node| node.name == name);
        let node = node.ok_or_else(|| CliError::new(option, format!("there is no -blockdev with node-name={name}")))?;
        if std::mem::replace(&mut node.used, true) {
            return Err(CliError::new(option, format!("the node '{name}' is used twice")));
        }
        Ok(node.layer.clone())
    }

    /// The disk that the keys of a `-drive` about its image describe.
    pub(super) fn image(&mut self, items: &[Item]) -> Result<Disk, CliError> {
        Ok(self.read("-drive", items, DEPTH)?.disk)
    }

    /// Reads a node, and those in it.
    fn read(&mut self, option: &str, items: &[Item], depth: usize) -> Result<Layer, CliError> {
        let wrong = |message: String| CliError::new(option, message);
        let depth = depth.checked_sub(1).ok_or_else(|| wrong("nodes are nested too deep".into()))?;
        let inside = |item: &Item| CHILDREN.iter().any(|child| under(item, child).is_some());
        let own: Vec<Item> = items.iter().filter(|item| !inside(item)).cloned().collect();
        missing(option, &own)?;
        let values = keyval::typed(option, &own, NODE)?;
        let driver = values.word("driver");
        let layer = match driver {
            Some("file" | "host_device" | "host_cdrom") => {
                let file = values.text("filename").ok_or_else(|| wrong("filename=FILE is missing".into()))?;
                Layer { disk: Disk::new(file), protocol: true }
            }
            Some(filter @ ("throttle" | "copy-on-read")) => {
                let below = self.child(option, "file", (items, &values), depth)?;
                let below = below.ok_or_else(|| wrong("file: is missing".into()))?;
                self.filter(option, filter, below, &values)?
            }
            Some("null-co" | "null-aio") => {
                let size = values.number("size").unwrap_or(1 << 30);
                Layer { disk: Disk { null: Some(size), ..Disk::new("null-co") }, protocol: true }
            }
            _ => {
                let format = driver.and_then(ImageFormat::named);
                self.format(option, format, (items, &values), depth)?
            }
        };
        Ok(Layer { disk: with(option, layer.disk, &values)?, ..layer })
    }

    /// What is between two nodes.
    fn filter(&self, option: &str, driver: &str, below: Layer, values: &Values) -> Result<Layer, CliError> {
        let wrong = |message: String| CliError::new(option, message);
        let Layer { mut disk, protocol } = below;
        if driver == "copy-on-read" {
            disk.copy_on_read = true;
            return Ok(Layer { disk, protocol });
        }
        let id = values.text("throttle-group").ok_or_else(|| wrong("throttle-group=ID is missing".into()))?;
        let limits = self.groups.iter().find(|limits| limits.group == id).cloned();
        let missing = || wrong(format!("throttle-group: there is no -object throttle-group with id={id}"));
        let limits = limits.ok_or_else(|| missing().following("-object"))?;
        if *disk.limits != Limits::default() {
            return Err(wrong("a disk can be in one throttle-group only".into()));
        }
        Ok(Layer { disk: Disk { limits: Box::new(limits), ..disk }, protocol })
    }

    /// The limits of a `-drive` whose own are these: those of its group, which may be an object, if it has none.
    pub(super) fn limits(&self, own: Limits, image: &Disk) -> Result<Limits, CliError> {
        if own == Limits::default() {
            return Ok(Limits::clone(&image.limits));
        }
        if *image.limits != Limits::default() {
            return Err(CliError::new("-drive", "throttling: its image has a node with limits already"));
        }
        let none = own == Limits { group: own.group.clone(), ..Limits::default() };
        let group = self.groups.iter().find(|limits| none && limits.group == own.group).cloned();
        Ok(group.unwrap_or(own))
    }

    /// A format above where its bytes are.
    fn format(
        &mut self,
        option: &str,
        format: Option<ImageFormat>,
        (items, values): (&[Item], &Values),
        depth: usize,
    ) -> Result<Layer, CliError> {
        let wrong = |message: &str| CliError::new(option, message);
        let bytes = self.child(option, "file", (items, values), depth)?.ok_or_else(|| wrong("file: is missing"))?;
        if !bytes.protocol {
            return Err(wrong("file: a format within a format is not supported"));
        }
        let mut disk = Disk { format, ..bytes.disk };
        if let Some(offset) = values.number("offset").or(values.number("size").map(|_| 0)) {
            if format != Some(ImageFormat::Raw) {
                return Err(wrong("offset, size: only raw images have them"));
            }
            disk.range = Some((offset, values.number("size")));
        }
        let backing = match values.text("backing") {
            Some("") => None,
            _ => self.child(option, "backing", (items, values), depth)?,
        };
        let data = self.child(option, "data-file", (items, values), depth)?;
        let plain = !matches!(format, None | Some(ImageFormat::Qcow2));
        if plain && (backing.is_some() || data.is_some()) {
            return Err(wrong("backing, data-file: only qcow2 images have them"));
        }
        disk.layers.end = values.text("backing") == Some("");
        if let Some(Layer { disk: below, protocol }) = backing {
            let filtered = below.copy_on_read || *below.limits != Limits::default();
            if below.null.is_some() || below.range.is_some() || below.layers.data_file.is_some() || filtered {
                return Err(wrong("backing: it must be a file, as a whole"));
            }
            let format = if protocol { Some(ImageFormat::Raw) } else { below.format };
            let deeper = below.layers.backing;
            disk.layers = Layers {
                backing: std::iter::once((below.file, format)).chain(deeper).collect(),
                end: below.layers.end,
                data_file: None,
            };
        }
        if let Some(Layer { disk: data, protocol }) = data {
            if !protocol || data.null.is_some() {
                return Err(wrong("data-file: it must be a file"));
            }
            disk.layers.data_file = Some(data.file);
        }
        Ok(Layer { disk, protocol: false })
    }

    /// The node that is under `name`, with dots or by its name.
    fn child(
        &mut self,
        option: &str,
        name: &str,
        (items, values): (&[Item], &Values),
        depth: usize,
    ) -> Result<Option<Layer>, CliError> {
        if let Some(node) = values.text(name) {
            return self.find(&format!("{option}: {name}"), node).map(Some);
        }
        let mut nested: Vec<Item> = items.iter().filter_map(|item| under(item, name)).collect();
        if nested.is_empty() {
            return Ok(None);
        }
        let has = |key: &str| nested.iter().any(|item| item.key.as_deref() == Some(key));
        // As -drive has it: a name alone is a file's.
        if !has("driver") && has("filename") {
            nested.push(Item { key: Some("driver".into()), value: "file".into() });
        }
        self.read(&format!("{option}: {name}"), &nested, depth).map(Some)
    }
}

/// `item` as it is in the node that is under `name`.
fn under(item: &Item, name: &str) -> Option<Item> {
    let key = item.key.as_deref()?.strip_prefix(name)?.strip_prefix('.')?;
    Some(Item { key: Some(key.to_owned()), value: item.value.clone() })
}

/// Refuses a driver that is known and missing by what it is.
fn missing(option: &str, items: &[Item]) -> Result<(), CliError> {
    let named = items.iter().filter(|item| item.key.as_deref() == Some("driver"));
    for Item { value, .. } in named {
        if let Some((_, subject)) = DRIVERS.iter().find(|(names, _)| names.contains(&value.as_str())) {
            return Err(CliError::new(option, format!("driver: {}", subject.lacking(&format!("'{value}'")))));
        }
    }
    Ok(())
}

/// A disk with what is said of any node.
fn with(option: &str, mut disk: Disk, values: &Values) -> Result<Disk, CliError> {
    let on = |key: &str| values.word(key) == Some("on");
    disk.node = values.text("node-name").unwrap_or_default().to_owned();
    disk.copy_on_read |= on("copy-on-read");
    disk.read_only |= on("read-only");
    disk.auto_read_only |= on("auto-read-only");
    disk.cache.direct |= on("cache.direct");
    disk.cache.no_flush |= on("cache.no-flush");
    disk.locking &= values.word("locking") != Some("off");
    if let Some(discard) = values.word("discard") {
        disk.discard = matches!(discard, "unmap" | "on");
    }
    match values.word("detect-zeroes") {
        Some("on") => disk.zeroes = Zeroes::Written,
        Some("unmap") if !disk.discard => {
            return Err(CliError::new(option, "detect-zeroes: 'unmap' needs discard=unmap"));
        }
        Some("unmap") => disk.zeroes = Zeroes::Unmapped,
        _ => {}
    }
    if disk.copy_on_read && disk.read_only {
        return Err(CliError::new(option, "copy-on-read: cannot be combined with read-only"));
    }
    Ok(disk)
}

/// What block drivers are called that mimus has not.
const DRIVERS: &[(&[&str], &subjects::Subject)] = &[
    (&["blkdebug", "blkverify", "blklogwrites", "blkreplay", "compress", "replication"], &subjects::BLOCK_TEST),
    (&["vvfat"], &subjects::VVFAT),
    (&["preallocate"], &subjects::PREALLOCATE),
    (&["quorum"], &subjects::QUORUM),
    (&["luks"], &subjects::LUKS),
    (&["ftp", "ftps", "gluster", "http", "https", "iscsi", "nbd", "nfs", "rbd", "ssh", "nvme"], &subjects::REMOTE),
    (&["bochs", "cloop", "dmg", "parallels", "qcow", "qed", "vdi", "vhdx", "vpc"], &subjects::IMAGE_FORMATS),
];

/// What the names of files begin with that are none, and the driver that each is for.
const PREFIXES: &[(&str, &str)] = &[
    ("blkdebug:", "blkdebug"),
    ("blkverify:", "blkverify"),
    ("fat:", "vvfat"),
    ("ftp://", "ftp"),
    ("ftps://", "ftps"),
    ("gluster+", "gluster"),
    ("gluster://", "gluster"),
    ("http://", "http"),
    ("https://", "https"),
    ("iscsi:", "iscsi"),
    ("nbd:", "nbd"),
    ("nbd+", "nbd"),
    ("nfs://", "nfs"),
    ("nvme://", "nvme"),
    ("rbd:", "rbd"),
    ("ssh://", "ssh"),
    ("file:", "file"),
    ("host_cdrom:", "host_cdrom"),
    ("host_device:", "host_device"),
    ("null-aio://", "null-aio"),
    ("null-co://", "null-co"),
];

/// The items that stand for a file's name as `-drive` has it.
pub(super) fn named(file: &str) -> Vec<Item> {
    let item = |key: &str, value: &str| Item { key: Some(key.to_owned()), value: value.to_owned() };
    match PREFIXES.iter().find(|(prefix, _)| file.starts_with(prefix)) {
        Some((prefix, driver @ ("file" | "host_cdrom" | "host_device"))) => {
            vec![item("file.driver", driver), item("file.filename", file.strip_prefix(prefix).unwrap_or(file))]
        }
        Some((_, driver)) => vec![item("file.driver", driver)],
        None => vec![item("file.filename", file)],
    }
}

/// What `-drive if=` names and mimus has not.
pub(super) const INTERFACES: &[(&str, &subjects::Subject)] = &[
    ("pflash", &subjects::PFLASH),
    ("floppy", &subjects::FLOPPY),
    ("scsi", &subjects::SCSI),
    ("sd", &subjects::SD),
    ("mtd", &subjects::PFLASH),
    ("xen", &subjects::XEN),
];

/// The keys of `-drive` that are about its image, for its list of keys.
pub(super) fn keys() -> &'static [Key] {
    NODE
}
