//! A perf map: names for compiled code, read by `perf report`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::BackendError;
use crate::exec::HostAddr;

/// The file `/tmp/perf-PID.map`, with a line `START SIZE name` (hexadecimal) for each piece of code.
#[derive(Debug)]
pub struct PerfMap {
    file: File,
    path: PathBuf,
}

impl PerfMap {
    /// Creates the file where perf looks for it.
    ///
    /// # Errors
    ///
    /// [`BackendError::PerfMap`] if it cannot be created.
    pub fn create() -> Result<PerfMap, BackendError> {
        PerfMap::create_in(Path::new("/tmp"))
    }

    /// Creates the file in another directory.
    ///
    /// # Errors
    ///
    /// As for [`PerfMap::create`].
    pub fn create_in(directory: &Path) -> Result<PerfMap, BackendError> {
        let path = directory.join(format!("perf-{}.map", std::process::id()));
        // Created anew and never followed: the directory is everybody's.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(BackendError::PerfMap(e)),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(BackendError::PerfMap)?;
        Ok(PerfMap { file, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the code of `size` bytes at `start`. A line break in `name` is written as a space.
    ///
    /// # Errors
    ///
    /// [`BackendError::PerfMap`] if the file cannot be written.
    pub fn append(&mut self, start: HostAddr, size: usize, name: &str) -> Result<(), BackendError> {
        let line = format!("{:x} {size:x} {}\n", start.0, name.replace(['\n', '\r'], " "));
        self.file.write_all(line.as_bytes()).map_err(BackendError::PerfMap)
    }
}
