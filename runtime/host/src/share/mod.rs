//! The host side of shared folders: a server of 9P2000.L, and the thread that it works on.
//!
//! The crate `p9` 0.3, which the design named, is for a process that is confined to the folder: it follows `..` out of it, waits for pipes
//! to be opened, has no bound on what a client has open, knows no symbolic links, extended attributes and security models, and keeps its
//! types of the protocol to itself.

mod attributes;
mod folder;
mod node;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use mimus_hw::virtio::{ShareBackend, ShareRequest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::SharedFolder;
use mimus_softmmu::halt_polling::HaltPolling;
use node::Budget;
use server::Server;

/// What the thread needs of the machine.
pub trait Exchange: Send {
    /// See [`Virtio::share_request`](mimus_hw::virtio::Virtio::share_request).
    fn request(&self, token: u64) -> Option<ShareRequest>;
    /// See [`Virtio::share_answer`](mimus_hw::virtio::Virtio::share_answer).
    fn answer(&self, token: u64, answer: &[u8]);
}

/// What the thread is told.
enum Task {
    Serve(u64),
    Reset,
    Stop,
}

/// A device's way to the thread.
struct Tasks {
    sender: Sender<Task>,
    /// There was something since the last reset: a driver must not make resets more and more.
    is_used: bool,
}

impl ShareBackend for Tasks {
    fn submit(&mut self, token: u64) {
        self.is_used = true;
        // Fails when the thread is gone: then the machine is about to go, too.
        let _ = self.sender.send(Task::Serve(token));
    }

    fn reset(&mut self) {
        if std::mem::replace(&mut self.is_used, false) {
            let _ = self.sender.send(Task::Reset);
        }
    }
}

/// A folder that is open, and where its device's messages go before its thread runs.
pub struct ShareQueue {
    server: Server,
    sender: Sender<Task>,
    receiver: Receiver<Task>,
}

/// Descriptors that a guest may have of one folder, whatever the host allows.
const MOST_DESCRIPTORS: u64 = 1 << 18;

/// Has the host allow as many descriptors as it does, and takes a part of them for one folder's guest.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised is as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (allowed / 4).min(MOST_DESCRIPTORS) as usize
}

impl ShareQueue {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// When the folder, or /proc, cannot be opened.
    pub fn open(config: &SharedFolder) -> Result<ShareQueue> {
        let what = || format!("{}: cannot open the folder '{}'", config.option, config.path.display());
        let server = Server::new(config, Budget::new(descriptors())).with_context(what)?;
        std::fs::metadata("/proc/self/fd").with_context(|| format!("{}: /proc is needed", config.option))?;
        let (sender, receiver) = channel();
        Ok(ShareQueue { server, sender, receiver })
    }

    /// What to make the device with.
    pub fn backend(&self) -> Box<dyn ShareBackend> {
        Box::new(Tasks { sender: self.sender.clone(), is_used: false })
    }

    /// The answer to a client's message, of at most `room` bytes: what the thread does.
    pub fn serve(&mut self, message: &[u8], room: usize) -> Vec<u8> {
        self.server.serve(message, room)
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(self, exchange: impl Exchange + 'static) -> io::Result<ShareThread> {
        let ShareQueue { mut server, sender, receiver } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("share".into()).spawn(move || {
            let mut polling = HaltPolling::default();
            while !stopped.load(Ordering::Acquire) {
                let next = polling.wait(|| receiver.try_recv().ok(), || receiver.recv().unwrap_or(Task::Stop));
                match next {
                    Task::Serve(token) => {
                        // Who was reset gets no answer, but the device hears that this is over.
                        let answer = exchange.request(token).map(|request| {
                            let room = usize::try_from(request.room).unwrap_or(usize::MAX);
                            server.serve(&request.message, room)
                        });
                        exchange.answer(token, &answer.unwrap_or_default());
                    }
                    Task::Reset => server.reset(),
                    Task::Stop => break,
                }
            }
        })?;
        Ok(ShareThread { sender, stop, thread: Some(thread) })
    }
}

/// The thread of a shared folder. Dropping it ends the thread and waits for what it is doing.
#[derive(Debug)]
pub struct ShareThread {
    sender: Sender<Task>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ShareThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Fails when the thread has ended already.
        let _ = self.sender.send(Task::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Task::Serve(_) => "Serve",
            Task::Reset => "Reset",
            Task::Stop => "Stop",
        })
    }
}
