//! How monitors and debuggers reach a machine that runs: closures, done by the vCPU's thread between two blocks while their
//! sender waits, and notices of what happens to the machine.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use mimus_frontend::debug::{Description, Tables};
use mimus_softmmu::{Watch, WatchHit};
use rustix::event::{EventfdFlags, eventfd};

use crate::config::{Actions, Config, UserObject, WatchdogAction};
use crate::descriptors::Descriptors;
use mimus_engine::stats::Stats;
use mimus_host::block::Fault;
use mimus_host::config::Disk;
use mimus_host::display::Console;
use mimus_softmmu::kick::Kicker;

/// Commands that wait for the vCPU's thread; senders of more wait for room.
const COMMANDS: usize = 64;

/// Notices that a listener has not read; it misses those that come then.
const NOTICES: usize = 256;

/// Whether the guest runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// It does, or sleeps of its own will.
    Running,
    /// It has not started yet (`-S`).
    Prelaunch,
    /// A user stopped it.
    Paused,
    /// A debugger did.
    Debug,
    /// A disk did, which cannot do what it should.
    IoError,
    /// The guest powered the machine off, which has to be reset before it goes on.
    Shutdown,
    /// The guest sleeps with its state in RAM.
    Suspended,
    /// The guest's kernel has panicked.
    GuestPanicked,
    /// The guest's watchdog has expired.
    Watchdog,
}

impl RunState {
    /// QMP's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Prelaunch => "prelaunch",
            RunState::Paused => "paused",
            RunState::Debug => "debug",
            RunState::IoError => "io-error",
            RunState::Shutdown => "shutdown",
            RunState::Suspended => "suspended",
            RunState::GuestPanicked => "guest-panicked",
            RunState::Watchdog => "watchdog",
        }
    }
}

/// Why a guest stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// Somebody asked for it.
    User,
    /// It is at a breakpoint.
    Breakpoint,
    /// It made an access that is watched.
    Watchpoint(WatchHit),
    /// It has executed one instruction.
    Step,
}

/// Something that happened to the machine.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A disk could not do what it should.
    Disk(Fault),
    /// It stopped.
    Stop(StopReason),
    /// It goes on.
    Resume,
    /// It was reset, by the guest or by a user.
    Reset {
        /// By the guest.
        guest: bool,
    },
    /// The power button was pressed.
    Powerdown,
    /// The guest sleeps with its state in RAM.
    Suspend,
    /// It has its state on a disk, and switches the machine off.
    SuspendToDisk,
    /// It was woken.
    Wakeup,
    /// The guest's kernel has panicked.
    GuestPanicked {
        /// QMP's word for what becomes of it.
        action: &'static str,
    },
    /// The guest's kernel has panicked, and starts another one that makes a dump.
    GuestCrashLoaded,
    /// The guest's watchdog has expired, and this is done.
    Watchdog(WatchdogAction),
    /// It ends.
    Shutdown {
        /// Because the guest wants it.
        guest: bool,
        /// QMP's word for why.
        reason: &'static str,
    },
}

/// Where an address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// The guest's virtual addresses in its present mode.
    Virtual,
    /// Physical addresses: RAM and devices.
    Physical,
}

/// What monitors set, and what only they look at again.
#[derive(Debug, Default)]
pub struct Kept {
    /// Migrations are to be told of.
    pub migration_events: bool,
    /// File descriptors that clients have handed over.
    pub descriptors: Descriptors,
    /// What options and devices may refer to by id.
    pub objects: Vec<UserObject>,
}

/// A stopped or running machine in the hands of the vCPU's thread.
pub trait Controlled {
    /// What monitors keep in it.
    fn kept(&mut self) -> &mut Kept;
    /// What it was made from.
    fn config(&self) -> &Config;
    /// Whether the guest runs.
    fn state(&self) -> RunState;
    /// Stops the guest and its clock, if it runs.
    fn stop(&mut self, state: RunState);
    /// Goes on; whether it can.
    fn resume(&mut self) -> bool;
    /// Executes one instruction, without interrupts, and stops again.
    fn step(&mut self);
    /// Resets the machine as soon as this command is done.
    fn reset(&mut self);
    /// Ends the run as soon as this command is done.
    fn quit(&mut self);
    /// Presses the power button; whether there is one.
    fn press_power_button(&mut self) -> bool;
    /// Wakes a guest that sleeps; whether it did.
    fn wake_up(&mut self) -> bool;
    /// Whether the guest can sleep with its state in RAM.
    fn can_sleep(&self) -> bool;
    /// Raises a non-maskable interrupt; whether the vCPU has one.
    fn raise_nmi(&mut self) -> bool;

    /// The vCPU's registers.
    fn description(&self) -> Arc<Description>;
    /// A register by number, in the lowest bits.
    fn register(&mut self, number: usize) -> Option<u128>;
    /// Writes a register; whether that was possible.
    fn set_register(&mut self, number: usize, value: u128) -> bool;
    /// The program counter as a virtual address.
    fn linear_pc(&self) -> u64;
    /// Whether the vCPU waits for an interrupt.
    fn is_halted(&self) -> bool;
    /// Width in bytes of an address in the vCPU's present mode.
    fn address_bytes(&self) -> usize;
    /// All registers as text.
    fn registers_text(&mut self) -> String;
    /// The page tables as text.
    fn tables_text(&mut self, tables: Tables) -> String;
    /// The physical address of a virtual one.
    fn translate(&mut self, addr: u64) -> Option<u64>;
    /// Reads memory; how many of the first bytes are mapped.
    fn read(&mut self, space: Space, addr: u64, out: &mut [u8]) -> usize;
    /// Writes memory, whether or not the guest itself might; how many of the first bytes are mapped.
    fn write(&mut self, space: Space, addr: u64, bytes: &[u8]) -> usize;
    /// The `bytes` at `pc` as instructions: address and text of each.
    fn disassemble(&mut self, bytes: &[u8], pc: u64) -> Vec<(u64, String)>;
    /// The guest stops before the instructions at these virtual addresses, and no others.
    fn set_breakpoints(&mut self, addresses: &[u64]);
    /// The guest stops behind accesses to these ranges, and no others.
    fn set_watchpoints(&mut self, list: Vec<Watch>);

    /// Reads an I/O port of `size` (1, 2, 4) bytes, where the machine has them.
    fn port_read(&mut self, port: u16, size: u8) -> Option<u32>;
    /// Writes an I/O port; whether the machine has them.
    fn port_write(&mut self, port: u16, size: u8, value: u32) -> bool;
    /// What the machine's devices tell about `topic`, such as `pic`, as lines of text; `None` if it has none of that.
    fn info(&mut self, topic: &str) -> Option<String>;
    /// Puts a medium into the drive of this name, or takes out what is in it. A guest that has locked the drive is asked to let
    /// go of it first, unless `force` is set.
    ///
    /// # Errors
    ///
    /// A sentence: there is no such drive, its medium cannot be changed, the image cannot be opened, the guest has locked it.
    fn change_medium(&mut self, drive: &str, disk: Option<Disk>, force: bool) -> Result<(), String>;
    /// Plugs or unplugs the cable of a network adapter, which its name or its network's says.
    ///
    /// # Errors
    ///
    /// A sentence: there is none of that name, or nothing that it is plugged into.
    fn set_link(&mut self, name: &str, up: bool) -> Result<(), String>;
    /// Adds or removes a forwarded port of the user-mode network of this name, or of the only one: `rule` is as `hostfwd=` has it.
    ///
    /// # Errors
    ///
    /// A sentence: there is no such network, or the rule is wrong or cannot be.
    fn forward(&mut self, network: Option<&str>, rule: &str, add: bool) -> Result<(), String>;
    /// Changes what the machine does when something happens to its guest.
    fn set_actions(&mut self, actions: &Actions);
    /// Counters.
    fn stats(&mut self) -> Stats;
    /// Presses keys, named as in QEMU's `sendkey`, one after another, and lets go of them all after `hold` milliseconds.
    ///
    /// # Errors
    ///
    /// A sentence: no keyboard, or no such key.
    fn send_keys(&mut self, keys: &[String], hold: u64) -> Result<(), String>;
    /// What is on the screen, as a PNG image, or a PPM if `ppm`.
    ///
    /// # Errors
    ///
    /// A sentence: no screen.
    fn screen(&mut self, ppm: bool) -> Result<Vec<u8>, String>;
    /// Screen, keyboard and mouse, where there are any.
    fn console(&self) -> Option<Console>;
    /// Where the VNC server listens, if it does at a TCP port.
    fn vnc_address(&self) -> Option<SocketAddr>;
    /// Sets the password of the VNC server.
    ///
    /// # Errors
    ///
    /// A sentence: no server, or one that asks for none.
    fn set_vnc_password(&mut self, password: &str) -> Result<(), String>;
}

type Command = Box<dyn FnOnce(&mut dyn Controlled) + Send>;

/// The machine is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the machine has ended")]
pub struct Gone;

#[derive(Default)]
struct Inner {
    commands: VecDeque<Command>,
    listeners: Vec<Weak<Listener>>,
}

/// A machine's control channel.
pub struct Control {
    inner: Mutex<Inner>,
    room: Condvar,
    closed: AtomicBool,
    kicker: Arc<Kicker>,
}

/// One who hears of notices, and is woken by them.
#[derive(Debug)]
pub struct Listener {
    notices: Mutex<VecDeque<(Notice, SystemTime)>>,
    event: OwnedFd,
}

impl Listener {
    /// Takes what has come since the last call.
    pub fn take(&self) -> Vec<(Notice, SystemTime)> {
        // Fails when nothing has come.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.drain(..).collect()
    }

    fn wake(&self) {
        // Fails only when the counter is full: it is being woken already.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    fn push(&self, notice: Notice) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < NOTICES {
            notices.push_back((notice, SystemTime::now()));
        }
        drop(notices);
        self.wake();
    }
}

impl AsFd for Listener {
    /// Readable when something has come, or the machine has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Control {
    /// The channel of a machine whose vCPU `kicker` brings to its dispatcher.
    pub fn new(kicker: Arc<Kicker>) -> Arc<Control> {
        Arc::new(Control { inner: Mutex::default(), room: Condvar::new(), closed: AtomicBool::new(false), kicker })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the vCPU's thread do something with the machine, and waits for the result.
    ///
    /// # Errors
    ///
    /// [`Gone`] when the machine ends before.
    pub fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut dyn Controlled) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (sender, receiver) = sync_channel(1);
        let command: Command = Box::new(move |machine| {
            // Its sender waits for it.
            let _ = sender.send(f(machine));
        });
        let mut inner = self.lock();
        while inner.commands.len() >= COMMANDS && !self.is_closed() {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_closed() {
            return Err(Gone);
        }
        inner.commands.push_back(command);
        drop(inner);
        self.kicker.kick();
        receiver.recv().map_err(|_| Gone)
    }

    /// The next command, for the vCPU's thread.
    pub(crate) fn take(&self) -> Option<Command> {
        let command = self.lock().commands.pop_front();
        if command.is_some() {
            self.room.notify_one();
        }
        command
    }

    /// A new listener.
    ///
    /// # Errors
    ///
    /// When the host gives no file descriptor.
    pub fn listen(&self) -> std::io::Result<Arc<Listener>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let listener = Arc::new(Listener { notices: Mutex::default(), event });
        let mut inner = self.lock();
        inner.listeners.retain(|listener| listener.strong_count() > 0);
        inner.listeners.push(Arc::downgrade(&listener));
        Ok(listener)
    }

    /// Tells every listener.
    pub(crate) fn tell(&self, notice: Notice) {
        self.lock().listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.push(notice.clone()));
    }

    /// The machine ends: whoever waits for it, now or later, gets [`Gone`].
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        self.closed.store(true, Ordering::Release);
        inner.commands.clear();
        inner.listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.wake());
        drop(inner);
        self.room.notify_all();
    }

    /// Whether the machine has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// The machine's own end of its channel, which closes it when dropped.
#[derive(Debug)]
pub(crate) struct Closer(pub Arc<Control>);

impl std::ops::Deref for Closer {
    type Target = Arc<Control>;

    fn deref(&self) -> &Arc<Control> {
        &self.0
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_of_too_many_commands_wait_and_all_hear_of_the_end() {
        let control = Control::new(Kicker::new());
        let listener = control.listen().unwrap();
        let senders: Vec<_> = (0..COMMANDS + 3)
            .map(|_| {
                let control = control.clone();
                std::thread::spawn(move || control.call(|machine| machine.state()))
            })
            .collect();
        while control.lock().commands.len() < COMMANDS {
            std::thread::yield_now();
        }
        control.tell(Notice::Resume);
        control.close();
        assert!(senders.into_iter().all(|sender| sender.join().unwrap() == Err(Gone)));
        assert_eq!(control.call(|machine| machine.state()), Err(Gone));
        assert!(matches!(&*listener.take(), [(Notice::Resume, _)]));
    }

    #[test]
    fn a_listener_that_does_not_read_misses_what_is_too_much() {
        let control = Control::new(Kicker::new());
        let listener = control.listen().unwrap();
        (0..2 * NOTICES).for_each(|_| control.tell(Notice::Powerdown));
        assert_eq!(listener.take().len(), NOTICES);
        assert!(listener.take().is_empty());
    }
}
