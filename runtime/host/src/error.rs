//! Errors of what an option asks the host for, and the files that options name.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Which option asks for what the host does not do, and why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {message}")]
pub struct HostError {
    /// The option as a user types it, for example `-drive`.
    pub option: String,
    /// What is wrong, in one line.
    pub message: String,
}

impl HostError {
    /// An error about `option`. Control characters of either text, which may quote what was typed, are escaped: the
    /// error stays one line and cannot drive the terminal.
    pub fn new(option: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        HostError { option: one_line(option.as_ref()), message: one_line(message.as_ref()) }
    }

    /// The host refused to do `action` (such as "cannot open") to the file that `option` names.
    pub fn file(option: &str, action: &str, path: &Path, reason: &io::Error) -> Self {
        Self::new(option, format!("{action} '{}': {}", path.display(), os_reason(reason)))
    }
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

/// The operating system's words, without the error number that `std` adds.
fn os_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_owned(),
        _ => text,
    }
}

/// Opens the file that `option` (as typed, such as `-kernel`) names for reading. A directory is an error here rather
/// than at the first read.
pub fn open_input(option: &str, path: &Path) -> Result<File, HostError> {
    let failed = |error: &io::Error| HostError::file(option, "cannot open", path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    if file.metadata().map_err(|error| failed(&error))?.is_dir() {
        return Err(failed(&io::Error::from(rustix::io::Errno::ISDIR)));
    }
    Ok(file)
}

/// Creates or truncates the file that `option` (as typed, such as `-D`) names, for writing.
pub fn open_output(option: &str, path: &Path) -> Result<File, HostError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|error| HostError::file(option, "cannot create", path, &error))
}

/// The same for writing at the end of the file, of which nothing is lost.
pub fn append_output(option: &str, path: &Path) -> Result<File, HostError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| HostError::file(option, "cannot create", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_option_path_and_reason() {
        let missing = Path::new("/nonexistent/vmlinuz");
        assert_eq!(
            open_input("-kernel", missing).unwrap_err().to_string(),
            "-kernel: cannot open '/nonexistent/vmlinuz': No such file or directory"
        );
        assert_eq!(
            open_input("-initrd", Path::new("/")).unwrap_err().to_string(),
            "-initrd: cannot open '/': Is a directory"
        );
        assert_eq!(
            open_output("-D", missing).unwrap_err().to_string(),
            "-D: cannot create '/nonexistent/vmlinuz': No such file or directory"
        );
        assert_eq!(
            open_output("-stats", Path::new("/")).unwrap_err().to_string(),
            "-stats: cannot create '/': Is a directory"
        );
        assert!(open_input("-kernel", Path::new("/dev/null")).is_ok());
        assert!(open_output("-D", Path::new("/dev/null")).is_ok());
    }
}
