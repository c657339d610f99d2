//! Where the server listens and what its clients come by: TCP, or a socket in the file system.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::net::bind_unix;

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

/// A socket that clients connect to; one in the file system goes with it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens at `place`, without waiting in [`Listener::accept`].
    pub fn bind(place: &VncPlace) -> io::Result<Listener> {
        Ok(match place {
            VncPlace::Display { host, display } => {
                let port = FIRST_PORT.saturating_add(*display);
                let addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs()?.collect();
                let listener = TcpListener::bind(&addresses[..])?;
                listener.set_nonblocking(true)?;
                Listener::Tcp(listener)
            }
            VncPlace::Unix(path) => {
                let listener = bind_unix(path, |path| UnixListener::bind(path))?;
                listener.set_nonblocking(true)?;
                Listener::Unix(listener, path.clone())
            }
        })
    }

    /// The address of a TCP port.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// The next client, which waits when it is read, and how it is called.
    pub fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), peer.to_string()))
            }
            Listener::Unix(listener, path) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Stream::Unix(stream), path.display().to_string()))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // It may have been taken away by somebody else.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Does the same with either.
macro_rules! either {
    ($stream:expr, $own:ident => $do:expr) => {
        match $stream {
            Stream::Tcp($own) => $do,
            Stream::Unix($own) => $do,
        }
    };
}

impl Stream {
    /// Another handle of the same connection.
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }

    /// How long reading waits.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(time))
    }

    /// How long writing waits.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(time))
    }

    /// Ends the connection, whoever uses it.
    pub fn close(&self) {
        // Fails when it has ended already.
        let _ = either!(self, stream => stream.shutdown(Shutdown::Both));
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(out))
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => { let mut stream = stream; stream.write(bytes) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
