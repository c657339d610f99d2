//! Where the server listens.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::socket::Listener;

/// Port of display 0.
pub const FIRST_PORT: u16 = 5900;

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VncPlace {
    /// A TCP port.
    Display {
        /// A name or an address of this host.
        host: String,
        /// The display: TCP port 5900 and so many.
        display: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for VncPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VncPlace::Display { host, display } => write!(f, "{host}:{display}"),
            VncPlace::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl VncPlace {
    /// Listens there.
    ///
    /// # Errors
    ///
    /// When the host has no such address, or somebody listens there already.
    pub(super) fn listen(&self) -> io::Result<Listener> {
        match self {
            VncPlace::Display { host, display } => Listener::tcp((host.as_str(), FIRST_PORT.saturating_add(*display))),
            VncPlace::Unix(path) => Listener::unix(path),
        }
    }
}
