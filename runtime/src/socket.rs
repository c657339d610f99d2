//! Sockets that others connect to, or that they listen at: TCP, or in the file system.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::MonitorSocket;

/// Binds a socket in the file system by `bind`. One of before, which nobody listens at, is replaced.
///
/// # Errors
///
/// Those of `bind`; a file that is no socket stays.
pub(crate) fn bind_unix<T>(path: &Path, bind: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    match bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            if std::fs::symlink_metadata(path)?.file_type().is_socket() {
                std::fs::remove_file(path)?;
            }
            bind(path)
        }
        result => result,
    }
}

/// A socket that clients connect to. Accepting does not wait; a socket in the file system goes with it.
#[derive(Debug)]
pub(crate) enum Listener {
    /// At a TCP port.
    Tcp(TcpListener),
    /// In the file system, with its name.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens at a TCP port.
    ///
    /// # Errors
    ///
    /// When there is no such address, or somebody listens there already.
    pub(crate) fn tcp(address: impl ToSocketAddrs) -> io::Result<Listener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(listener))
    }

    /// Listens at a socket in the file system.
    ///
    /// # Errors
    ///
    /// As of [`bind_unix`].
    pub(crate) fn unix(path: &Path) -> io::Result<Listener> {
        let listener = bind_unix(path, |path| UnixListener::bind(path))?;
        let listener = Listener::Unix(listener, path.to_owned());
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(listener)
    }

    /// The address of a TCP port.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// The next client, which waits when it is read, and how it is called.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when there is none yet.
    pub(crate) fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                // What is small is waited for.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), peer.to_string()))
            }
            Listener::Unix(listener, path) => Ok((Stream::Unix(listener.accept()?.0), path.display().to_string())),
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

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// By TCP.
    Tcp(TcpStream),
    /// By a socket in the file system.
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
    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }

    /// How long reading waits.
    pub(crate) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(time))
    }

    /// How long writing waits.
    pub(crate) fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(time))
    }

    /// Ends the connection, whoever uses it.
    pub(crate) fn close(&self) {
        // Fails when it has ended already.
        let _ = either!(self, stream => stream.shutdown(Shutdown::Both));
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> OwnedFd {
        either!(stream, stream => stream.into())
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

/// A place that the command line names, once it is open.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Standard input and output.
    Stdio,
    /// Connected to somebody who listens there.
    Stream(Stream),
    /// Clients connect to it; whether the first one is to be waited for.
    Listener(Listener, bool),
}

impl MonitorSocket {
    /// Connects to it, or listens there.
    ///
    /// # Errors
    ///
    /// What the host refuses.
    pub(crate) fn open(&self) -> io::Result<Opened> {
        Ok(match self {
            MonitorSocket::Stdio => Opened::Stdio,
            MonitorSocket::Unix { path, server: true, wait } => Opened::Listener(Listener::unix(path)?, *wait),
            MonitorSocket::Unix { path, .. } => Opened::Stream(Stream::Unix(UnixStream::connect(path)?)),
            MonitorSocket::Tcp { host, port, server: true, wait } => {
                Opened::Listener(Listener::tcp((host.as_str(), *port))?, *wait)
            }
            MonitorSocket::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                Opened::Stream(Stream::Tcp(stream))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_over_from_the_dead_only() {
        let path = std::env::temp_dir().join(format!("mimus-socket-{}", std::process::id()));
        let first = Listener::unix(&path).unwrap();
        assert_eq!(first.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody listens there");
        drop(first);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::unix(&path).unwrap());
        std::fs::write(&path, "a file").unwrap();
        assert!(Listener::unix(&path).is_err() && path.exists(), "not what is no socket");
        std::fs::remove_file(&path).unwrap();
    }
}
