//! Disks.

use std::path::PathBuf;

use super::Plug;

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
    /// The most bytes that are read and written in a second; 0 for no limit.
    pub bytes_per_second: u64,
    /// The most requests in a second; 0 for no limit.
    pub requests_per_second: u64,
    /// What the guest sees as its serial number.
    pub serial: String,
    /// What monitors call the drive; empty for a name that follows from its place.
    pub id: String,
    /// The device that it is in.
    pub plug: Plug,
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
            bytes_per_second: 0,
            requests_per_second: 0,
            serial: String::new(),
            id: String::new(),
            plug: Plug::default(),
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

    /// Its name on the command line and in monitors.
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
