//! What a configuration says of a disk: its image, how that is opened, and what happens on errors.

use std::path::PathBuf;

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub file: PathBuf,
    /// What the image is; `None`: what it looks like.
    pub format: Option<ImageFormat>,
    /// The other files of the image that the command line names.
    pub layers: Layers,
    /// The guest may not write.
    pub read_only: bool,
    /// What the guest writes is forgotten at the end.
    pub snapshot: bool,
    /// How the host treats what is written.
    pub cache: Cache,
    /// What the guest discards is given back to the host.
    pub discard: bool,
    /// Nothing is behind the disk: it has so many bytes of zeroes.
    pub null: Option<u64>,
    /// The part of a raw image that is the disk: its first byte, and how many, if not all.
    pub range: Option<(u64, Option<u64>)>,
    /// An image that cannot be written to is one that the guest may not write to.
    pub auto_read_only: bool,
    /// Other processes are kept from the file.
    pub locking: bool,
    /// What becomes of zeroes that the guest writes.
    pub zeroes: Zeroes,
    /// What is read is written into the image above its backing image.
    pub copy_on_read: bool,
    /// How much may be done.
    pub limits: Box<Limits>,
    /// What becomes of a read that fails, and of a write.
    pub on_error: (OnError, OnError),
    /// The option that the disk is of, as typed.
    pub option: String,
    /// What the guest sees as its serial number.
    pub serial: String,
    /// What monitors call the drive; empty for a name that follows from its place.
    pub id: String,
    /// What monitors call its image; empty for a name that follows from the drive's.
    pub node: String,
}

impl Disk {
    /// A disk with this image, and everything else as it is by default.
    pub fn new(file: impl Into<PathBuf>) -> Disk {
        Disk {
            file: file.into(),
            format: None,
            layers: Layers::default(),
            read_only: false,
            snapshot: false,
            cache: Cache::default(),
            discard: false,
            null: None,
            range: None,
            auto_read_only: false,
            locking: true,
            zeroes: Zeroes::AsTheyAre,
            copy_on_read: false,
            limits: Box::default(),
            on_error: (OnError::Report, OnError::StopWithoutSpace),
            option: "-drive".to_owned(),
            serial: String::new(),
            id: String::new(),
            node: String::new(),
        }
    }
}

/// How much a disk, or all of a group of disks together, may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of bytes: of reads and writes together, of reads, of writes.
    pub bytes: [Limit; 3],
    /// Of requests, the same.
    pub requests: [Limit; 3],
    /// A request of more bytes than this counts as several; 0: as one.
    pub request_bytes: u64,
    /// The disks with which it shares the limits; empty: none.
    pub group: String,
}

/// A limit of what is done in a second; the default is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How much is done in a second in the long run; 0: any amount.
    pub average: u64,
    /// How much is done in a second of a burst; 0: bursts are short.
    pub burst: u64,
    /// Seconds that a burst may last.
    pub seconds: u64,
}

impl Default for Limit {
    fn default() -> Limit {
        Limit { average: 0, burst: 0, seconds: 1 }
    }
}

/// What becomes of zeroes that the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroes {
    /// Zeroes are written like other data.
    AsTheyAre,
    /// The host is told that the range is zeroes, and keeps its space.
    Written,
    /// The host is told that the range is zeroes, and may free its space.
    Unmapped,
}

/// What becomes of a request that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The guest is told.
    Report,
    /// The guest is told that all went well.
    Ignore,
    /// The machine stops, and the request is done again when it goes on.
    Stop,
    /// The same if the host has no room for it; or else the guest is told.
    StopWithoutSpace,
}

impl OnError {
    /// As `rerror=` and `werror=` name it.
    pub fn named(name: &str) -> Option<OnError> {
        match name {
            "report" => Some(OnError::Report),
            "ignore" => Some(OnError::Ignore),
            "stop" => Some(OnError::Stop),
            "enospc" => Some(OnError::StopWithoutSpace),
            _ => None,
        }
    }
}

/// Files that take the place of those that an image itself names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// Backing images, that of the disk's image first, then that of this one.
    pub backing: Vec<(PathBuf, Option<ImageFormat>)>,
    /// The last of them, or else the disk's image, has no backing image.
    pub end: bool,
    /// What has the guest's data, if the image's own file has not.
    pub data_file: Option<PathBuf>,
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// The disk's bytes.
    Raw,
    /// QEMU's, with or without backing files.
    Qcow2,
    /// VMware's, as far as its parts are flat; read only.
    Vmdk,
}

impl ImageFormat {
    /// The format of this name.
    pub fn named(name: &str) -> Option<ImageFormat> {
        [ImageFormat::Raw, ImageFormat::Qcow2, ImageFormat::Vmdk].into_iter().find(|format| format.name() == name)
    }

    /// The word for it on the command line and in monitors.
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Vmdk => "vmdk",
        }
    }
}

/// How the host treats what the guest writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cache {
    /// Past the host's page cache.
    pub direct: bool,
    /// Each write lasts before the guest hears of its end.
    pub writethrough: bool,
    /// Flushes are ignored.
    pub no_flush: bool,
}
