//! Errors of the command line.

use std::fmt;

use mimus_host::error::HostError;

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
        HostError::new(option, message).into()
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
}

impl From<HostError> for CliError {
    fn from(error: HostError) -> Self {
        CliError { option: error.option, message: error.message, cause: None, others: Vec::new() }
    }
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
}
