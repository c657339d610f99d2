//! A machine's screen, keyboard and mouse, and who shows and uses them: VNC clients, a terminal, a file.
//!
//! [`Console`] is the way to the devices. [`View`] keeps a picture of the screen up to date on a thread of its own for as long as
//! somebody looks at it, and wakes who does.

mod curses;
mod handles;
mod image;
mod rfb;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mimus_hw::MouseEvent;
use mimus_hw::keys::Key;
use mimus_hw::vga::Screen;
use mimus_softmmu::{DirtyPages, Vram};

use crate::clock::Clock;
use mimus_softmmu::kick::Kicker;

pub use curses::{Curses, LEAVE, typing};
pub use handles::{Adapter, DisplayHandle, Inputs};
pub use image::{ImageFormat, write_image};
pub use rfb::{VncPlace, VncServer, VncTarget};

/// How often the picture is made while there is a viewer.
const REFRESH: Duration = Duration::from_millis(25);

/// The record of written display memory, on its way from the vCPU, which alone can say that it has no stores under way.
#[derive(Debug, Default)]
pub struct Harvest {
    wanted: AtomicBool,
    taken: Mutex<DirtyPages>,
}

impl Harvest {
    /// Whether a display waits for the record of written pages.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// The vCPU hands over what was written. Its TLBs let no stores to display memory through that go unrecorded: see
    /// [`Mmu::record_stores`](mimus_softmmu::Mmu::record_stores).
    pub fn hand_over(&self, vram: &Vram) {
        vram.take_dirty(&mut lock(&self.taken));
        self.wanted.store(false, Ordering::Release);
    }
}

/// Screen, keyboard and mouse of a machine.
#[derive(Clone)]
pub struct Console {
    inputs: Arc<dyn Inputs>,
    display: Option<DisplayHandle>,
    clock: Clock,
    kicker: Arc<Kicker>,
    harvest: Arc<Harvest>,
    /// The buttons of the mouse that monitors hold down.
    buttons: Arc<AtomicU8>,
}

impl Console {
    /// A keyboard and a mouse, and a display adapter where there is one. `kicker` gets the attention of the vCPU that hands over
    /// what was written to display memory.
    pub fn new(inputs: Arc<dyn Inputs>, display: Option<DisplayHandle>, clock: Clock, kicker: Arc<Kicker>) -> Console {
        Console { inputs, display, clock, kicker, harvest: Arc::default(), buttons: Arc::default() }
    }

    /// The display memory.
    pub fn vram(&self) -> Option<&Arc<Vram>> {
        self.display.as_ref().map(|display| &display.vram)
    }

    /// Where the vCPU hands over what was written to display memory.
    pub fn harvest(&self) -> &Harvest {
        &self.harvest
    }

    /// Presses or releases a key.
    pub fn key(&self, key: Key, down: bool) {
        self.inputs.key(self.clock.now(), key, down);
        self.kicker.kick();
    }

    /// How many bytes of scan codes the keyboard can take now.
    pub fn keyboard_room(&self) -> usize {
        self.inputs.keyboard_room()
    }

    /// Moves the mouse or its buttons.
    pub fn mouse(&self, event: MouseEvent) {
        self.inputs.mouse(self.clock.now(), event);
        self.kicker.kick();
    }

    /// A monitor moves the mouse: counts to the right, down, and steps of the wheel towards the user.
    pub fn move_mouse(&self, dx: i32, dy: i32, dz: i32) {
        self.mouse(MouseEvent { dx, dy, dz, buttons: self.buttons.load(Ordering::Relaxed) });
    }

    /// A monitor presses or releases buttons of the mouse, which are bits as in [`MouseEvent`].
    pub fn button(&self, bits: u8, down: bool) {
        let buttons = if down {
            self.buttons.fetch_or(bits, Ordering::Relaxed) | bits
        } else {
            self.buttons.fetch_and(!bits, Ordering::Relaxed) & !bits
        };
        self.mouse(MouseEvent { buttons, ..MouseEvent::default() });
    }

    /// What is on the screen now; `None` without an adapter.
    pub fn picture(&self) -> Option<Screen> {
        self.display.as_ref()?.adapter.picture(self.clock.now())
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("display", &self.display).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The picture that viewers see.
struct Seen {
    screen: Screen,
    viewers: usize,
    stop: bool,
}

struct Shared {
    console: Console,
    seen: Mutex<Seen>,
    changed: Condvar,
}

/// A picture of the screen that is kept up to date.
pub struct View {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A user of a [`View`], which keeps the picture up to date for as long as it has a viewer.
pub struct Viewer {
    shared: Arc<Shared>,
}

impl View {
    /// Starts the thread that keeps it up to date.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(console: Console) -> std::io::Result<View> {
        let seen = Seen { screen: Screen::default(), viewers: 0, stop: false };
        let shared = Arc::new(Shared { console, seen: Mutex::new(seen), changed: Condvar::new() });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("display".into()).spawn(move || own.run())?;
        Ok(View { shared, thread: Some(thread) })
    }

    /// A new viewer.
    pub fn viewer(&self) -> Viewer {
        Viewer::new(self.shared.clone())
    }

    /// A source of viewers, for a display that has no client yet.
    pub fn viewers(&self) -> Viewers {
        Viewers { shared: self.shared.clone() }
    }
}

/// Makes viewers of a [`View`].
pub struct Viewers {
    shared: Arc<Shared>,
}

impl Viewers {
    /// A new viewer.
    pub fn viewer(&self) -> Viewer {
        Viewer::new(self.shared.clone())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        lock(&self.shared.seen).stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut dirty = DirtyPages::default();
        let mut seen = lock(&self.seen);
        while !seen.stop {
            if seen.viewers == 0 {
                seen = self.changed.wait(seen).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if self.refresh(&mut seen.screen, &mut dirty) {
                self.changed.notify_all();
            }
            let waiting = self.changed.wait_timeout_while(seen, REFRESH, |seen| !seen.stop);
            seen = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Brings the picture up to date; whether it has changed.
    fn refresh(&self, screen: &mut Screen, dirty: &mut DirtyPages) -> bool {
        let console = &self.console;
        let Some(DisplayHandle { adapter, vram }) = &console.display else { return false };
        dirty.clear();
        std::mem::swap(dirty, &mut lock(&console.harvest.taken));
        if vram.is_dirty() && !console.harvest.wanted.swap(true, Ordering::AcqRel) {
            console.kicker.kick();
        }
        // The registers are copied: drawing is too long to hold up the devices.
        let now = console.clock.now();
        adapter.registers(now).is_some_and(|regs| screen.update(&regs, vram, dirty, now))
    }
}

impl Viewer {
    fn new(shared: Arc<Shared>) -> Viewer {
        lock(&shared.seen).viewers += 1;
        shared.changed.notify_all();
        Viewer { shared }
    }

    /// The console that is looked at.
    pub fn console(&self) -> &Console {
        &self.shared.console
    }

    /// Does something with the picture.
    pub fn look<T>(&self, f: impl FnOnce(&Screen) -> T) -> T {
        f(&lock(&self.shared.seen).screen)
    }

    /// Waits until the picture is another than version `version`, `timeout` is over, or [`Viewer::wake`] is called.
    pub fn wait(&self, version: u64, timeout: Duration) {
        let seen = lock(&self.shared.seen);
        if seen.screen.version() == version && !seen.stop {
            drop(self.shared.changed.wait_timeout(seen, timeout));
        }
    }

    /// Makes every [`Viewer::wait`] return.
    pub fn wake(&self) {
        // With the lock held, nobody is between looking and waiting.
        let _seen = lock(&self.shared.seen);
        self.shared.changed.notify_all();
    }
}

impl Clone for Viewer {
    fn clone(&self) -> Self {
        Viewer::new(self.shared.clone())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        lock(&self.shared.seen).viewers -= 1;
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("console", &self.shared.console).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Viewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Viewer").field("console", &self.shared.console).finish_non_exhaustive()
    }
}
