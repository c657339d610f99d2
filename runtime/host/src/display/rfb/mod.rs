//! A VNC server: the Remote Framebuffer protocol, versions 3.3 to 3.8 (RFC 6143).
//!
//! Each client has two threads: one reads what it sends, one sends what has changed. Clients may send anything; what is kept of
//! it is bounded.

mod client;
mod input;
mod password;
mod pixels;
mod place;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

use super::{View, lock};
use crate::socket::{Listener, Stream};
use crate::wake::Wake;
use input::Input;
use password::{Password, Penalty};
pub use place::VncPlace;

/// Clients at a time; others are sent away.
const MOST_CLIENTS: usize = 8;

/// Where the server listens, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VncTarget {
    /// Where.
    pub place: VncPlace,
    /// Clients must know a password, which is set later: none can before.
    pub password: bool,
}

impl fmt::Display for VncTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

/// A running server. Dropping it disconnects its clients.
#[derive(Debug)]
pub struct VncServer {
    wake: Arc<Wake>,
    address: Option<SocketAddr>,
    security: Security,
    thread: Option<JoinHandle<()>>,
}

/// Whom clients must prove to be.
#[derive(Debug, Clone)]
enum Security {
    /// Nobody.
    None,
    /// Who knows this, once it is set.
    Password(Arc<Mutex<Option<Password>>>, Arc<Mutex<Penalty>>),
}

impl VncServer {
    /// Listens at `target` and shows `view`.
    ///
    /// # Errors
    ///
    /// When the host has no such address, or somebody listens there already.
    pub fn start(target: &VncTarget, view: &View) -> io::Result<VncServer> {
        let listener = target.place.listen()?;
        let address = listener.address();
        let security =
            if target.password { Security::Password(Arc::default(), Arc::default()) } else { Security::None };
        let wake = Arc::new(Wake::new()?);
        let own = wake.clone();
        // Looked at by nobody yet: clients have viewers of their own, made where the view is.
        let viewers = view.viewers();
        let server = Server { viewers, security: security.clone(), input: Arc::default(), clients: Vec::new() };
        let thread = std::thread::Builder::new().name("vnc".into()).spawn(move || server.run(&listener, &own))?;
        Ok(VncServer { wake, address, security, thread: Some(thread) })
    }

    /// Where it listens, if that is a TCP port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sets the password that clients must know from now on, of which eight bytes count; whether this server asks for one.
    pub fn set_password(&self, text: &str) -> bool {
        match &self.security {
            Security::None => false,
            Security::Password(password, _) => {
                *lock(password) = Some(Password::new(text));
                true
            }
        }
    }
}

impl Drop for VncServer {
    fn drop(&mut self) {
        self.wake.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

struct Server {
    viewers: super::Viewers,
    security: Security,
    input: Arc<Mutex<Input>>,
    clients: Vec<(Stream, JoinHandle<()>)>,
}

impl Server {
    fn run(mut self, listener: &Listener, wake: &Wake) {
        while !wake.is_stopped() {
            match listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, &peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(wake, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
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
            stream.close();
        }
        for (_, thread) in self.clients {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }

    fn welcome(&mut self, stream: Stream, peer: &str) {
        self.clients.retain(|(_, thread)| !thread.is_finished());
        if self.clients.len() >= MOST_CLIENTS {
            tracing::warn!("VNC: {peer} is one client too many");
            return;
        }
        let (viewer, security, input) = (self.viewers.viewer(), self.security.clone(), self.input.clone());
        let begin = || -> io::Result<(Stream, JoinHandle<()>)> {
            let own = stream.try_clone()?;
            let name = peer.to_owned();
            let serve = move || {
                let result = client::serve(&own, &viewer, &security, &input);
                lock(&input).release_keys(viewer.console());
                // There is another handle.
                own.close();
                if let Err(error) = result {
                    tracing::debug!("VNC: {name}: {error}");
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
