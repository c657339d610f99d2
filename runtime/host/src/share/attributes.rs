//! Extended attributes by way of fids: one is read or written like a file, and set when its fid is given up.
//!
//! Those of users are the host's. What the mapped model keeps there is not shown, and there are none of other kinds.

use std::ffi::CString;
use std::sync::Arc;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::{Errno, Result};

use super::folder::MAPPED;
use super::node::{Budget, Node, Unit};
use super::server::{Server, State};

/// The names that there are.
const OF_USERS: &[u8] = b"user.";
/// Bytes of an attribute, or of a list of names, at most (xattr(7)).
const LONGEST: usize = 64 << 10;
/// Attributes of a client that are open at once.
const MOST: usize = 256;

/// An attribute that is open.
#[derive(Debug)]
pub(super) struct Attribute {
    bytes: Vec<u8>,
    /// What is set in the end: the name, how many bytes there must be, and how.
    set: Option<(CString, usize, XattrFlags)>,
    _unit: Unit,
}

/// How many more may be open.
pub(super) fn budget() -> Budget {
    Budget::new(MOST)
}

/// A name that there may be.
fn known(name: &[u8]) -> Result<CString> {
    if !name.starts_with(OF_USERS) {
        return Err(Errno::OPNOTSUPP);
    }
    if name.starts_with(MAPPED.as_bytes()) {
        return Err(Errno::ACCESS);
    }
    CString::new(name).map_err(|_| Errno::INVAL)
}

impl Attribute {
    /// Up to `count` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, count: usize) -> Result<&[u8]> {
        if self.set.is_some() {
            return Err(Errno::BADF);
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let rest = self.bytes.get(from..).unwrap_or_default();
        Ok(rest.get(..count).unwrap_or(rest))
    }

    /// More of what is to be set, in order.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<u32> {
        let size = self.set.as_ref().ok_or(Errno::BADF)?.1;
        if offset != self.bytes.len() as u64 || size - self.bytes.len() < data.len() {
            return Err(Errno::NOSPC);
        }
        self.bytes.extend(data);
        Ok(data.len() as u32)
    }

    /// Sets it, if it was to be written; an empty one is removed.
    pub(super) fn close(self, node: &Node) -> Result<()> {
        match self.set {
            None => Ok(()),
            Some((_, size, _)) if size != self.bytes.len() => Err(Errno::INVAL),
            Some((name, 0, _)) => removexattr(node.path(), &name),
            Some((name, _, flags)) => setxattr(node.path(), &name, &self.bytes, flags),
        }
    }
}

/// The names of a file's attributes, each with a zero behind it.
fn names(node: &Node) -> Result<Vec<u8>> {
    let mut all = vec![0; LONGEST];
    let len = match listxattr(node.path(), &mut all[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    all.truncate(len);
    let shown =
        all.split_inclusive(|byte| *byte == 0).filter(|name| known(name.strip_suffix(b"\0").unwrap_or(name)).is_ok());
    Ok(shown.flatten().copied().collect())
}

fn value(node: &Node, name: &[u8]) -> Result<Vec<u8>> {
    let name = known(name).map_err(|error| if error == Errno::ACCESS { Errno::NODATA } else { error })?;
    let mut value = vec![0; LONGEST];
    let len = getxattr(node.path(), &name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

impl Server {
    /// Opens an attribute of a file, or the list of them, by another fid; its size.
    pub(super) fn walk_attribute(&mut self, fid: u32, new: u32, name: &[u8]) -> Result<u64> {
        let unit = self.attributes.take()?;
        let from = self.fid(fid)?;
        let (node, uid) = (Arc::clone(&from.node), from.uid);
        let mut bytes = if name.is_empty() { names(&node)? } else { value(&node, name)? };
        bytes.shrink_to_fit();
        let size = bytes.len() as u64;
        self.insert(new, node, uid, State::Attribute(Attribute { bytes, set: None, _unit: unit }))?;
        Ok(size)
    }

    /// Makes a fid one by which an attribute of its file is written.
    pub(super) fn create_attribute(&mut self, fid: u32, name: &[u8], size: u64, flags: u32) -> Result<()> {
        self.folder.writable()?;
        let unit = self.attributes.take()?;
        let node = self.closed(fid)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST).ok_or(Errno::TOOBIG)?;
        let set = (known(name)?, size, XattrFlags::from_bits_truncate(flags));
        let attribute = Attribute { bytes: Vec::new(), set: Some(set), _unit: unit };
        self.set_state(fid, node, State::Attribute(attribute));
        Ok(())
    }
}
