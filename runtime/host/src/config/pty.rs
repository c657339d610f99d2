//! Names of pseudo-terminals.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// What the host calls a pseudo-terminal, once it is made: all copies know then.
#[derive(Debug, Clone, Default)]
pub struct PtyName(Arc<OnceLock<String>>);

impl PtyName {
    /// Stores the name of the pseudo-terminal, which was made now.
    pub fn set(&self, name: &str) {
        // One is made once.
        let _ = self.0.set(name.to_owned());
    }
}

impl PartialEq for PtyName {
    /// What is asked for is the same, whatever the host calls it.
    fn eq(&self, _: &PtyName) -> bool {
        true
    }
}

impl Eq for PtyName {}

impl fmt::Display for PtyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get() {
            Some(name) => write!(f, "pty:{name}"),
            None => f.write_str("pty"),
        }
    }
}
