//! Errors of the command line, and the files that its options name.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Which option is wrong and why, a line for each that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CliError {
    /// The option as a user types it, for example `-m`, or `-accel jit` when the message is about that choice.
    pub option: String,
    /// What is wrong, in one line.
    pub message: String,
    /// The option whose refusal would be the cause of this one.
    cause: Option<&'static str>,
    /// What else is wrong.
    others: Vec<CliError>,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.message)?;
        self.others.iter().try_for_each(|other| write!(f, "\n{other}"))
    }
}

impl CliError {
    /// An error about `option`. Control characters of either text, which may quote what was typed, are escaped: the
    /// error stays one line and cannot drive the terminal.
    pub fn new(option: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        let (option, message) = (one_line(option.as_ref()), one_line(message.as_ref()));
        CliError { option, message, cause: None, others: Vec::new() }
    }

    /// Marks an error that there would not be if `cause`, an option as typed, had not been refused: it is not told then.
    pub(super) fn following(self, cause: &'static str) -> Self {
        CliError { cause: Some(cause), ..self }
    }

    /// One error of all of them, without consequences of others and repetitions; `None` if there are none.
    pub(super) fn all(errors: Vec<CliError>) -> Option<CliError> {
        let mut flat: Vec<CliError> = Vec::new();
        for mut error in errors {
            let others = std::mem::take(&mut error.others);
            for error in std::iter::once(error).chain(others) {
                if !flat.contains(&error) {
                    flat.push(error);
                }
            }
        }
        let about = |error: &CliError, cause: &str| {
            error.option.strip_prefix(cause).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':']))
        };
        let followed: Vec<bool> = flat
            .iter()
            .map(|error| {
                let causes = flat.iter().filter(|other| other.cause.is_none());
                error.cause.is_some_and(|cause| causes.into_iter().any(|other| about(other, cause)))
            })
            .collect();
        let mut told = flat.into_iter().zip(followed).filter(|(_, followed)| !followed).map(|(error, _)| error);
        let mut first = told.next()?;
        first.others = told.collect();
        Some(first)
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
pub fn open_input(option: &str, path: &Path) -> Result<File, CliError> {
    let failed = |error: &io::Error| CliError::file(option, "cannot open", path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    if file.metadata().map_err(|error| failed(&error))?.is_dir() {
        return Err(failed(&io::Error::from(rustix::io::Errno::ISDIR)));
    }
    Ok(file)
}

/// Creates or truncates the file that `option` (as typed, such as `-D`) names, for writing.
pub fn open_output(option: &str, path: &Path) -> Result<File, CliError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|error| CliError::file(option, "cannot create", path, &error))
}

/// The same for writing at the end of the file, of which nothing is lost.
pub fn append_output(option: &str, path: &Path) -> Result<File, CliError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| CliError::file(option, "cannot create", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_together_without_their_consequences() {
        let error = |option: &str| CliError::new(option, "x");
        let told = |errors: Vec<CliError>| CliError::all(errors).map(|error| error.to_string());
        assert_eq!(told(vec![]), None);
        assert_eq!(told(vec![error("-a"), error("-b"), error("-a")]).unwrap(), "-a: x\n-b: x");
        let nested = CliError::all(vec![error("-a"), error("-b")]).unwrap();
        assert_eq!(told(vec![error("-c"), nested]).unwrap(), "-c: x\n-a: x\n-b: x");
        let follows = || error("-device d").following("-drive");
        assert_eq!(told(vec![follows()]).unwrap(), "-device d: x");
        assert_eq!(told(vec![follows(), error("-drive: if")]).unwrap(), "-drive: if: x");
        assert_eq!(told(vec![follows(), error("-drives")]).unwrap(), "-device d: x\n-drives: x");
        let bus = || error("-device e: bus").following("-device");
        assert_eq!(told(vec![bus()]).unwrap(), "-device e: bus: x");
        assert_eq!(told(vec![bus(), error("-device")]).unwrap(), "-device: x");
    }

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
