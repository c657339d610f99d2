//! Where the VNC server listens: a display's port, a range of them, or a socket in the file system.

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
    /// The first of these displays that is free.
    Range {
        /// A name or an address of this host.
        host: String,
        /// The first display.
        first: u16,
        /// The last one.
        last: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for VncPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VncPlace::Display { host, display } => write!(f, "{host}:{display}"),
            VncPlace::Range { host, first, last } => write!(f, "{host}:{first}-{last}"),
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
            VncPlace::Display { host, display } => at(host, *display),
            VncPlace::Range { host, first, last } => {
                let in_use = |result: &io::Result<Listener>| {
                    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
                };
                let free = (*first..*last).map(|display| at(host, display)).find(|result| !in_use(result));
                free.unwrap_or_else(|| at(host, *last))
            }
            VncPlace::Unix(path) => Listener::unix(path),
        }
    }
}

/// Listens at the port of a display.
fn at(host: &str, display: u16) -> io::Result<Listener> {
    Listener::tcp((host, FIRST_PORT.saturating_add(display)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_display() {
        let taken = Listener::tcp("127.0.0.1:0").unwrap();
        let first = taken.address().unwrap().port() - FIRST_PORT;
        let range = |last| VncPlace::Range { host: "127.0.0.1".into(), first, last }.listen();
        assert_eq!(range(first).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let port = range(first + 20).unwrap().address().unwrap().port();
        assert!((first + 1..=first + 20).contains(&(port - FIRST_PORT)), "{port}");
    }
}
