//! Images in formats that imago reads, with the other files that they have: every one is opened here, and by nobody else.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Storage, StorageOpenOptions};
use mimus_hw::virtio::SECTOR_SIZE;

use super::file::{identity, length, make_direct, named_inside, open_file, wrong};
use super::guarded::Guarded;
use super::image::look;
use super::layout::{Layout, Tables};
use super::qcow2::Header;
use crate::config::{Disk, ImageFormat};

/// Most images in a chain of backing images.
const DEEPEST: usize = 100;

type Access = FormatAccess<Guarded>;

/// An image of a chain.
struct Link {
    path: PathBuf,
    file: File,
    /// A qcow2 image has a header, and the others are raw.
    header: Option<Header>,
}

/// How the files of a disk are opened.
struct Opening<'a> {
    disk: &'a Disk,
    options: StorageOpenOptions,
}

/// Opens the image in `file`; where its tables are, if it is a qcow2 image that may be written.
///
/// # Errors
///
/// Whatever the host says; what is wrong with the image, and with the files that it names.
pub(super) fn open(
    file: File,
    format: ImageFormat,
    disk: &Disk,
    read_only: bool,
) -> io::Result<(Access, Option<Layout>)> {
    let opening = Opening { disk, options: StorageOpenOptions::new().direct(disk.cache.direct) };
    match format {
        ImageFormat::Raw => {
            let len = length(&file)?;
            if !read_only && !len.is_multiple_of(SECTOR_SIZE) {
                // A sector that is written is written whole.
                file.set_len(len.next_multiple_of(SECTOR_SIZE))?;
            }
            let storage = opening.storage(file, &disk.file, read_only)?;
            let options = opening.options.clone();
            let raw = Raw::builder(storage).write(!read_only).storage_open_options(options);
            Ok((FormatAccess::new(raw.open(DenyImplicitOpenGate::default())?), None))
        }
        ImageFormat::Qcow2 => opening.chain(file, read_only),
        ImageFormat::Vmdk => Err(io::ErrorKind::Unsupported.into()),
    }
}

impl Opening<'_> {
    fn storage(&self, file: File, path: &Path, read_only: bool) -> io::Result<Guarded> {
        if self.disk.cache.direct {
            make_direct(&file)?;
        }
        Guarded::new(file, self.options.clone().write(!read_only).filename(path))
    }

    /// Opens a qcow2 image with its backing images, the last of those first.
    fn chain(&self, file: File, read_only: bool) -> io::Result<(Access, Option<Layout>)> {
        let mut links = self.links(file)?;
        let mut below = None;
        while let Some(link) = links.pop() {
            let first = links.is_empty();
            let path = link.path.clone();
            let opened = match link.header {
                None => {
                    let raw = Raw::builder(self.storage(link.file, &link.path, true)?);
                    Ok((FormatAccess::new(raw.open(DenyImplicitOpenGate::default())?), None))
                }
                Some(ref header) => self.qcow2(header, &link, below.take(), !first || read_only),
            };
            let in_backing = |error: io::Error| match first {
                true => error,
                false => io::Error::new(error.kind(), format!("its backing file '{}': {error}", path.display())),
            };
            let (access, layout) = opened.map_err(in_backing)?;
            if first {
                return Ok((access, layout));
            }
            below = Some(access);
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// The images of the chain that begins with the one in `file`.
    fn links(&self, file: File) -> io::Result<Vec<Link>> {
        let mut known = vec![identity(&file)?];
        let header = Header::read(&file, length(&file)?)?;
        let mut links = vec![Link { path: self.disk.file.clone(), file, header: Some(header) }];
        while let Some(Link { path, header: Some(header), .. }) = links.last() {
            let Some((next, format)) = self.backing(path, header, links.len() - 1)? else { break };
            if links.len() == DEEPEST {
                return Err(wrong(format!("it has more than {DEEPEST} backing files")));
            }
            let inside = |error: io::Error| {
                io::Error::new(error.kind(), format!("its backing file '{}': {error}", next.display()))
            };
            let file = open_file(&next, true, self.disk.locking).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    wrong(format!("its backing file '{}' is in use for writing", next.display()))
                }
                _ => inside(error),
            })?;
            let own = identity(&file)?;
            if known.contains(&own) {
                return Err(wrong(format!("it is its own backing file, by way of '{}'", next.display())));
            }
            known.push(own);
            let format = format.map_or_else(|| backing_format(&file), Ok).map_err(inside)?;
            let header = match format {
                ImageFormat::Qcow2 => Some(Header::read(&file, length(&file)?).map_err(inside)?),
                ImageFormat::Raw => None,
                ImageFormat::Vmdk => return Err(inside(wrong("a backing file can be raw or qcow2"))),
            };
            links.push(Link { path: next, file, header });
        }
        Ok(links)
    }

    /// The backing file of the image at `path`, which is `depth` images below the first; and its format, if somebody says it.
    fn backing(
        &self,
        path: &Path,
        header: &Header,
        depth: usize,
    ) -> io::Result<Option<(PathBuf, Option<ImageFormat>)>> {
        let layers = &self.disk.layers;
        if let Some((file, format)) = layers.backing.get(depth) {
            return Ok(Some((file.clone(), *format)));
        }
        let Some(name) = header.backing.as_ref().filter(|name| !name.is_empty()) else { return Ok(None) };
        if layers.end && depth == layers.backing.len() {
            return Ok(None);
        }
        let option = format!("{}backing.file.filename", "backing.".repeat(depth));
        // qemu-img writes the name that it was given, and has insisted on a format since 6.1. One that nobody says would be guessed.
        let absolute = header.backing_format.is_some();
        let file = named_inside(path, name, absolute, "backing file", Some(&option))?;
        let format = match header.backing_format.as_deref() {
            None => None,
            // Old images have the protocol's name there.
            Some("raw" | "file" | "host_device") => Some(ImageFormat::Raw),
            Some("qcow2") => Some(ImageFormat::Qcow2),
            Some(other) => return Err(wrong(format!("its backing file is of the format '{}'", other.escape_debug()))),
        };
        Ok(Some((file, format)))
    }

    /// Opens one qcow2 image above what is `below` it.
    fn qcow2(
        &self,
        header: &Header,
        link: &Link,
        below: Option<Access>,
        read_only: bool,
    ) -> io::Result<(Access, Option<Layout>)> {
        let len = length(&link.file)?;
        let tables = if read_only { None } else { Some(Tables::check(&link.file, header, len)?) };
        let layout = tables.as_ref().map(Tables::layout);
        let data_file = self.data_file(header, link, read_only)?;
        let storage = self.storage(link.file.try_clone()?, &link.path, read_only)?;
        if !read_only && storage.req_align() as u64 > header.layout.cluster() {
            return Err(wrong("its clusters are too small for cache=none and cache=directsync"));
        }
        let (arming, data) = (storage.again(), data_file.unwrap_or_else(|| storage.for_data()));
        let builder = Qcow2::<Guarded>::builder(storage).write(!read_only).backing(below).data_file(Some(data));
        let image = builder.storage_open_options(self.options.clone()).open(DenyImplicitOpenGate::default())?;
        if let Some(tables) = tables {
            arming.arm(tables);
        }
        Ok((FormatAccess::new(image), layout))
    }

    /// The file with an image's data, if its own file has none.
    fn data_file(&self, header: &Header, link: &Link, read_only: bool) -> io::Result<Option<Guarded>> {
        let own = self.disk.layers.data_file.as_ref().filter(|_| link.path == self.disk.file);
        if !header.external_data {
            return match own {
                Some(_) => Err(wrong("data-file: its data are in its own file")),
                None => Ok(None),
            };
        }
        let path = match (own, &header.data_file) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => named_inside(&link.path, name, false, "data file", Some("data-file.filename"))?,
            (None, None) => return Err(wrong("its data are in another file: data-file.filename=FILE names it")),
        };
        let inside =
            |error: io::Error| io::Error::new(error.kind(), format!("its data file '{}': {error}", path.display()));
        let file = open_file(&path, read_only, self.disk.locking).map_err(inside)?;
        if identity(&file)? == identity(&link.file)? {
            return Err(wrong("its data file is itself"));
        }
        Ok(Some(self.storage(file, &path, read_only)?))
    }
}

/// The format of a backing file that nobody says.
fn backing_format(file: &File) -> io::Result<ImageFormat> {
    let (name, format) = look(file)?;
    format.ok_or_else(|| wrong(format!("it looks like {name}, which is not supported")))
}

#[cfg(test)]
mod tests;
