//! What a configuration says of character devices, and where monitors and debuggers connect.

use std::fmt;
use std::path::PathBuf;

use super::PtyName;
use crate::chardev::Mux;

/// The host side of a character device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chardev {
    /// Standard input and output.
    Stdio {
        /// The terminal belongs to the guest: Ctrl-C reaches it, and Ctrl-A is the escape key. When false, Ctrl-C
        /// and its kin act on the process and every other byte reaches the guest.
        mux: bool,
    },
    /// Output goes to this file, which is truncated; there is no input.
    File(PathBuf),
    /// Output goes to the end of this file; there is no input.
    Append(PathBuf),
    /// Output is discarded; there is no input.
    Null,
    /// There is no such device.
    None,
    /// Named pipes of this name and `.in` and `.out`, or one for both directions.
    Pipe(PathBuf),
    /// A pseudo-terminal, whose name is told when it is made.
    Pty(PtyName),
    /// A device of the host's, such as a serial port.
    Device(PathBuf),
    /// One that several devices and monitors share.
    Mux(Mux),
    /// A socket, never [`MonitorSocket::Stdio`].
    Socket(MonitorSocket),
    /// A socket that somebody else listens at. It is connected to again after so many seconds when the connection is gone.
    Reconnecting(MonitorSocket, u32),
    /// Datagrams: where they are received, and where they are sent to, each `HOST:PORT`.
    Udp {
        /// Here.
        local: String,
        /// There.
        remote: String,
    },
    /// Another one, which has a name.
    Named {
        /// What monitors call it.
        id: String,
        /// The other one.
        chardev: Box<Chardev>,
    },
    /// Another one, of whose output a copy goes to a file, which is truncated unless it is told to `append`.
    Logged {
        /// The other one.
        chardev: Box<Chardev>,
        /// The file.
        file: PathBuf,
        /// What is in it stays.
        append: bool,
    },
}

impl Chardev {
    /// The character device itself, without its name and the log of its output.
    pub fn plain(&self) -> &Chardev {
        match self {
            Chardev::Logged { chardev, .. } | Chardev::Named { chardev, .. } => chardev.plain(),
            plain => plain,
        }
    }
}

impl fmt::Display for Chardev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chardev::Stdio { mux: true } => f.write_str("mux"),
            Chardev::Stdio { mux: false } => f.write_str("stdio"),
            Chardev::File(path) | Chardev::Append(path) => write!(f, "file:{}", path.display()),
            Chardev::Logged { chardev, .. } | Chardev::Named { chardev, .. } => chardev.fmt(f),
            Chardev::Udp { local, remote } => write!(f, "udp:{remote}@{local}"),
            Chardev::Reconnecting(place, seconds) => write!(f, "{place},reconnect={seconds}"),
            Chardev::Null => f.write_str("null"),
            Chardev::None => f.write_str("none"),
            Chardev::Pipe(path) => write!(f, "pipe:{}", path.display()),
            Chardev::Pty(name) => name.fmt(f),
            Chardev::Device(path) => write!(f, "{}", path.display()),
            Chardev::Mux(mux) => mux.fmt(f),
            Chardev::Socket(place) => place.fmt(f),
        }
    }
}

/// Where a monitor or debugger is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MonitorSocket {
    /// Standard input and output.
    Stdio,
    /// A socket in the file system.
    Unix {
        /// Its name.
        path: PathBuf,
        /// Clients connect to it; otherwise somebody else listens there.
        server: bool,
        /// The guest does not start before the first client has connected.
        wait: bool,
    },
    /// A TCP port.
    Tcp {
        /// Name or address of the host; one of this host's to listen at.
        host: String,
        /// Port.
        port: u16,
        /// As for a socket in the file system.
        server: bool,
        /// As for a socket in the file system.
        wait: bool,
    },
    /// A TCP port at whose other end the telnet protocol is spoken.
    Telnet(Box<MonitorSocket>),
    /// A pseudo-terminal, whose name is told when it is made.
    Pty(PtyName),
    /// Any other character device.
    At(Box<Chardev>),
    /// A socket that the process was started with.
    Inherited {
        /// The number of its file descriptor.
        fd: i32,
        /// As for a socket in the file system.
        server: bool,
        /// As for a socket in the file system.
        wait: bool,
    },
}

impl fmt::Display for MonitorSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = |server: bool| if server { ",server=on" } else { "" };
        match self {
            MonitorSocket::Stdio => f.write_str("stdio"),
            MonitorSocket::Unix { path, server: listens, .. } => {
                write!(f, "unix:{}{}", path.display(), server(*listens))
            }
            MonitorSocket::Tcp { host, port, server: listens, .. } => {
                write!(f, "tcp:{host}:{port}{}", server(*listens))
            }
            MonitorSocket::Telnet(place) => write!(f, "{place},telnet=on"),
            MonitorSocket::Pty(name) => name.fmt(f),
            MonitorSocket::At(chardev) => chardev.fmt(f),
            MonitorSocket::Inherited { fd, server: listens, .. } => write!(f, "fd:{fd}{}", server(*listens)),
        }
    }
}
