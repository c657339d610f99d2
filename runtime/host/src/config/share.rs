//! What a configuration says of folders that are shared with the guest.

use std::path::PathBuf;

/// A folder of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// What devices call it.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whose its files are.
    pub model: SecurityModel,
    /// The guest may not change anything.
    pub read_only: bool,
    /// The host's disk has what the guest writes before the guest is told that it is written.
    pub writes_through: bool,
    /// Permissions of a new file on the host where the guest's are kept apart.
    pub file_mode: u32,
    /// The permissions of a new directory.
    pub directory_mode: u32,
    /// What becomes of files on another file system than the folder's.
    pub devices: OtherDevices,
    /// The option that it is of, as typed.
    pub option: String,
}

/// How owner, permissions and kind of a file in the guest become the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityModel {
    /// Owners and permissions are the host's, as far as this process may set them; a failure to set an owner is ignored.
    None,
    /// Owners and permissions are the host's.
    Passthrough,
    /// Owners and permissions are kept in extended attributes, with the names that QEMU gives them.
    MappedXattr,
}

/// What becomes of files on another file system than the shared folder's, whose numbers may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherDevices {
    /// Files keep the host's numbers, and the log has a warning.
    Warn,
    /// Files of other file systems are not shown.
    Forbid,
    /// Files of other file systems get other numbers.
    Remap,
}
