//! A VNC server: the Remote Framebuffer protocol, versions 3.3 to 3.8 (RFC 6143), without authentication.
//!
//! Each client has two threads: one reads what it sends, one sends what has changed. Clients may send anything; what is kept of
//! it is bounded.

mod client;
mod input;
mod pixels;

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{View, lock};
use input::Input;

/// Clients at a time; others are sent away.
const MOST_CLIENTS: usize = 8;

/// Port of display 0.
const FIRST_PORT: u16 = 5900;

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VncTarget {
    /// A name or an address of this host.
    pub host: String,
    /// The display: TCP port 5900 and so many.
    pub display: u16,
}

impl VncTarget {
    /// The TCP port.
    pub fn port(&self) -> u16 {
        FIRST_PORT.saturating_add(self.display)
    }
}

impl fmt::Display for VncTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.display)
    }
}

/// A running server. Dropping it disconnects its clients.
#[derive(Debug)]
pub struct VncServer {
    stop: Arc<Stop>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Stop {
    event: OwnedFd,
    stopped: AtomicBool,
}

impl VncServer {
    /// Listens at `target` and shows `view`.
    ///
    /// # Errors
    ///
    /// When the host has no such address, or somebody listens there already.
    pub fn start(target: &VncTarget, view: &View) -> io::Result<VncServer> {
        let addresses: Vec<SocketAddr> = (target.host.as_str(), target.port()).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(&addresses[..])?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(Stop { event, stopped: AtomicBool::new(false) });
        let own = stop.clone();
        // Looked at by nobody yet: clients have viewers of their own, made where the view is.
        let viewers = view.viewers();
        let server = Server { viewers, input: Arc::default(), clients: Vec::new() };
        let thread = std::thread::Builder::new().name("vnc".into()).spawn(move || server.run(&listener, &own))?;
        Ok(VncServer { stop, address, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for VncServer {
    fn drop(&mut self) {
        self.stop.stopped.store(true, Ordering::Release);
        // Fails only when the counter is full: the thread is being woken already.
        let _ = rustix::io::write(&self.stop.event, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

struct Server {
    viewers: super::Viewers,
    input: Arc<Mutex<Input>>,
    clients: Vec<(TcpStream, JoinHandle<()>)>,
}

impl Server {
    fn run(mut self, listener: &TcpListener, stop: &Stop) {
        while !stop.stopped.load(Ordering::Acquire) {
            match listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [
                        PollFd::new(&stop.event, PollFlags::IN),
                        PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                    ];
                    // Interrupted or not: look again.
                    let _ = poll(&mut fds, None);
                }
                Err(error) => {
                    tracing::debug!("VNC: {error}");
                    // A client that has gone already, or no descriptors left, which passes.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
        for (stream, _) in &self.clients {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for (_, thread) in self.clients {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.clients.retain(|(_, thread)| !thread.is_finished());
        if self.clients.len() >= MOST_CLIENTS {
            tracing::warn!("VNC: {peer} is one client too many");
            return;
        }
        let (viewer, input) = (self.viewers.viewer(), self.input.clone());
        let begin = || -> io::Result<(TcpStream, JoinHandle<()>)> {
            stream.set_nonblocking(false)?;
            let own = stream.try_clone()?;
            let serve = move || {
                let result = client::serve(own, &viewer, &input);
                lock(&input).release_keys(viewer.console());
                if let Err(error) = result {
                    tracing::debug!("VNC: {peer}: {error}");
                }
            };
            let thread = std::thread::Builder::new().name("vnc client".into()).spawn(serve)?;
            Ok((stream, thread))
        };
        match begin() {
            Ok(client) => self.clients.push(client),
            Err(error) => tracing::warn!("VNC: {peer}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
