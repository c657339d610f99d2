//! The host's side of networks: what an adapter is plugged into, and the thread that serves it.
//!
//! A [`Network`] is a gateway with host sockets behind it ([`gateway`]) or a way to another program ([`link`]). Its thread takes
//! what the guest has sent from the adapter's rings, lets the network work, and gives the guest what has come. It sleeps
//! when none of them has anything to do.

mod capture;
mod gateway;
mod link;
pub mod rules;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimus_hw::net::{Batch, FrameQueue, NetPeer, Offload, Offloads};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::config::{NetBackend, Netdev};
use crate::error::HostError;
use crate::sandbox::Runner;
use crate::wake::Wake;
use capture::Recorder;
use mimus_softmmu::halt_polling::HaltPolling;

/// The event that says that there is something for the thread to do.
const WAKE: u64 = u64::MAX;
/// Events that are taken at once.
const EVENTS: usize = 64;

/// How long who asks for connections waits for the answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// A connection or a socket of a network, for a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Protocol: `TCP`, `UDP`.
    pub protocol: &'static str,
    /// What it is doing.
    pub state: String,
    /// Who has begun it.
    pub source: SocketAddrV4,
    /// And with whom.
    pub dest: SocketAddrV4,
    /// Bytes on their way to the guest, and to the host.
    pub to_guest: usize,
    /// See `to_guest`.
    pub to_host: usize,
}

impl Connection {
    /// A port of the host that leads to the guest; ports have IPv4 addresses here.
    fn forwarded(protocol: &'static str, host: SocketAddr, guest: SocketAddrV4) -> Connection {
        let source = match host {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port()),
        };
        Connection { protocol, state: "HOST_FORWARD".to_owned(), source, dest: guest, to_guest: 0, to_host: 0 }
    }
}

/// Who can ask the thread of a network for its connections.
#[derive(Clone, Debug)]
pub struct Watcher(Arc<Told>);

impl Watcher {
    /// Asks the thread; nothing when it does not answer in half a second.
    fn ask<T>(&self, asked: impl FnOnce(SyncSender<T>) -> Asked) -> Option<T> {
        let (sender, receiver) = sync_channel(1);
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked(sender));
        self.0.wake.signal();
        receiver.recv_timeout(PATIENCE).ok()
    }

    /// The present connections.
    pub fn connections(&self) -> Vec<Connection> {
        self.ask(Asked::Connections).unwrap_or_default()
    }

    /// Plugs the cable in, or pulls it out.
    ///
    /// # Errors
    ///
    /// A sentence, when the thread does not answer.
    pub fn set_link(&self, up: bool) -> Result<(), String> {
        self.ask(|sender| Asked::SetLink(up, sender)).ok_or_else(|| BUSY.to_owned())
    }

    /// Adds a forwarded port as `hostfwd=` has it, or removes it.
    ///
    /// # Errors
    ///
    /// A sentence: what is wrong with the rule.
    pub fn forward(&self, rule: &str, add: bool) -> Result<(), String> {
        let rule = rule.to_owned();
        self.ask(|sender| Asked::Forward(rule, add, sender)).unwrap_or_else(|| Err(BUSY.to_owned()))
    }
}

/// What to say when the thread does not answer.
const BUSY: &str = "the network's thread does not answer";

/// What the thread is asked, and where the answer goes.
#[derive(Debug)]
enum Asked {
    Connections(SyncSender<Vec<Connection>>),
    SetLink(bool, SyncSender<()>),
    Forward(String, bool, SyncSender<Result<(), String>>),
}

/// What the thread needs of the machine. None of it is called with a lock held that a machine needs to stop.
pub trait Exchange: Send {
    /// See [`Adapter::transmit`](mimus_hw::net::Adapter::transmit).
    fn transmit(&self, batch: &mut Batch) -> bool;
    /// See [`Adapter::receive`](mimus_hw::net::Adapter::receive).
    fn receive(&self, queue: &mut FrameQueue) -> bool;
    /// See [`Adapter::offloads`](mimus_hw::net::Adapter::offloads).
    fn offloads(&self) -> Offloads;
    /// See [`Adapter::set_link`](mimus_hw::net::Adapter::set_link).
    fn set_link(&self, up: bool);
}

/// Where a network registers its files.
struct Poll(OwnedFd);

impl Poll {
    fn new() -> io::Result<Poll> {
        Ok(Poll(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Tells of `flags` of `source` under the number `token`, until it is closed.
    fn add(&self, source: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, source, EventData::new_u64(token), flags)?)
    }

    /// As [`Poll::add`], of a file that is told of already.
    fn change(&self, source: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, source, EventData::new_u64(token), flags)?)
    }

    fn wait(&self, events: &mut Vec<Event>, until: Option<Instant>) -> io::Result<()> {
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Not too early: what waits for the time would be looked at in vain.
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        events.clear();
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(events), wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a network works with.
struct Context<'a> {
    now: Instant,
    /// Frames for the guest.
    queue: &'a mut FrameQueue,
    /// What the guest takes.
    offloads: Offloads,
    poll: &'a Poll,
}

/// The other end of an adapter's cable.
trait Network: Send {
    /// Whether it takes and gives unfinished frames.
    fn offloads(&self) -> bool {
        false
    }

    /// Registers its files.
    fn start(&mut self, poll: &Poll) -> io::Result<()>;

    /// A frame from the guest.
    fn send(&mut self, frame: &[u8], offload: Offload, cx: &mut Context);

    /// Something happened that was registered under `token`.
    fn event(&mut self, token: u64, flags: EventFlags, cx: &mut Context);

    /// Does what is left to do, for a bounded time; whether to call again when the queue has room.
    fn work(&mut self, cx: &mut Context) -> bool;

    /// When to call [`Network::work`] without an event.
    fn deadline(&self) -> Option<Instant>;

    /// What goes through it, for a monitor.
    fn connections(&self) -> Vec<Connection> {
        Vec::new()
    }

    /// Adds a forwarded port as `hostfwd=` has it, or removes it; what is wrong with that.
    fn forward(&mut self, rule: &str, add: bool, poll: &Poll) -> Result<(), String> {
        let _ = (rule, add, poll);
        Err("this network forwards no ports".to_owned())
    }
}

/// How the thread is told something.
#[derive(Debug)]
struct Told {
    wake: Wake,
    /// Somebody waits for the answer.
    asked: Mutex<Option<Asked>>,
}

/// The adapter's way to the thread.
struct Notifier {
    told: Arc<Told>,
    offloads: bool,
}

impl NetPeer for Notifier {
    fn notify(&mut self) {
        self.told.wake.signal();
    }

    fn offloads(&self) -> bool {
        self.offloads
    }
}

/// A network whose thread does not run yet.
pub struct NetQueue {
    told: Arc<Told>,
    network: Box<dyn Network>,
    recorders: Vec<Recorder>,
}

impl NetQueue {
    /// Opens what `netdev` describes; `runner` runs the programs that it names.
    ///
    /// # Errors
    ///
    /// Addresses that cannot be bound or connected to.
    pub fn open(netdev: &Netdev, runner: Option<Runner>) -> Result<NetQueue, HostError> {
        let failed = |error: io::Error| HostError::new("-netdev", error.to_string());
        let told = Arc::new(Told { wake: Wake::new().map_err(failed)?, asked: Mutex::new(None) });
        let network: Box<dyn Network> = match &netdev.backend {
            NetBackend::User(user) => Box::new(gateway::Gateway::open(user, runner)?),
            NetBackend::Link(config) => link::open(config)?,
        };
        let recorders = netdev.captures.iter().map(Recorder::open).collect::<Result<_, _>>()?;
        Ok(NetQueue { told, network, recorders })
    }

    /// What to make the adapter with.
    pub fn peer(&self) -> Box<dyn NetPeer> {
        Box::new(Notifier { told: self.told.clone(), offloads: self.network.offloads() })
    }

    /// Who can ask for its connections.
    pub fn watcher(&self) -> Watcher {
        Watcher(self.told.clone())
    }

    /// Starts the thread that serves the adapter.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(self, exchange: impl Exchange + 'static) -> io::Result<NetThread> {
        let NetQueue { told, mut network, recorders } = self;
        let poll = Poll::new()?;
        poll.add(&told.wake, WAKE, EventFlags::IN)?;
        network.start(&poll)?;
        let own = told.clone();
        let thread = std::thread::Builder::new().name("net".into()).spawn(move || {
            let (queue, polling) = (FrameQueue::default(), HaltPolling::default());
            let mut server = Server { told: own, network, exchange, poll, queue, polling, recorders, recorded: 0 };
            if let Err(error) = server.run() {
                tracing::warn!("the network is down: {error}");
            }
        })?;
        Ok(NetThread { told, thread: Some(thread) })
    }
}

impl std::fmt::Debug for NetQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetQueue").finish_non_exhaustive()
    }
}

/// The thread of a network. Dropping it ends the thread, and with it all connections, and waits for it.
#[derive(Debug)]
pub struct NetThread {
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for NetThread {
    fn drop(&mut self) {
        self.told.wake.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Server<E> {
    told: Arc<Told>,
    network: Box<dyn Network>,
    exchange: E,
    poll: Poll,
    queue: FrameQueue,
    polling: HaltPolling,
    recorders: Vec<Recorder>,
    /// Frames at the beginning of the queue that are in records already.
    recorded: usize,
}

impl<E: Exchange> Server<E> {
    /// Puts the frames for the guest that are new in the queue into the records.
    fn record(&mut self) {
        let Server { queue, recorders, recorded, .. } = self;
        for frame in queue.iter().skip(*recorded) {
            recorders.iter_mut().for_each(|recorder| recorder.packet(&frame.bytes));
        }
        recorders.iter_mut().for_each(Recorder::flush);
    }

    /// Waits until there is something to do.
    fn go_offline(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let Server { poll, network, polling, .. } = self;
        let events = RefCell::new(events);
        let look = || {
            let looked = poll.wait(&mut events.borrow_mut(), Some(Instant::now()));
            (looked.is_err() || !events.borrow().is_empty()).then_some(looked)
        };
        polling.wait(look, || poll.wait(&mut events.borrow_mut(), network.deadline()))
    }

    fn run(&mut self) -> io::Result<()> {
        let (mut events, mut batch) = (Vec::with_capacity(EVENTS), Batch::default());
        // What the guest has sent, what the network has left to do.
        let (mut sent, mut busy) = (true, true);
        loop {
            if sent || busy {
                self.poll.wait(&mut events, Some(Instant::now()))?;
            } else {
                self.go_offline(&mut events)?;
            }
            let mut cx = Context {
                now: Instant::now(),
                queue: &mut self.queue,
                offloads: self.exchange.offloads(),
                poll: &self.poll,
            };
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        self.told.wake.clear();
                        sent = true;
                    }
                    token => self.network.event(token, event.flags, &mut cx),
                }
            }
            let asked = self.told.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Who does not wait any longer is not told.
            let _ = match asked {
                None => true,
                Some(Asked::Connections(asker)) => asker.try_send(self.network.connections()).is_ok(),
                Some(Asked::SetLink(up, asker)) => {
                    self.exchange.set_link(up);
                    asker.try_send(()).is_ok()
                }
                Some(Asked::Forward(rule, add, asker)) => {
                    asker.try_send(self.network.forward(&rule, add, &self.poll)).is_ok()
                }
            };
            if self.told.wake.is_stopped() {
                return Ok(());
            }
            if sent {
                batch.clear();
                sent = self.exchange.transmit(&mut batch);
                for (frame, offload) in batch.iter() {
                    self.recorders.iter_mut().for_each(|recorder| recorder.packet(frame));
                    self.network.send(frame, offload, &mut cx);
                }
            }
            busy = self.network.work(&mut cx);
            if !self.recorders.is_empty() {
                self.record();
            }
            let more = !self.queue.is_empty() && self.exchange.receive(&mut self.queue);
            self.recorded = self.queue.len();
            busy = more || busy && self.queue.has_room();
        }
    }
}
