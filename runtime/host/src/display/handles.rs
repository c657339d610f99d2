//! What displays reach of a machine's devices: a display adapter, and what takes keys and the mouse.
//!
//! Boards wire them, and displays know nothing else of a machine.

use std::sync::Arc;

use mimus_hw::MouseEvent;
use mimus_hw::keys::Key;
use mimus_hw::vga::{Regs, Screen};
use mimus_softmmu::Vram;

/// A display adapter.
pub trait Adapter: Send + Sync {
    /// Its registers at `now`, by which display memory is drawn.
    fn registers(&self, now: u64) -> Option<Regs>;

    /// What is on the screen at `now`.
    fn picture(&self, now: u64) -> Option<Screen>;
}

/// A keyboard and a mouse. Times are guest nanoseconds.
pub trait Inputs: Send + Sync {
    /// A key is pressed or released.
    fn key(&self, now: u64, key: Key, down: bool);

    /// How many bytes of scan codes the keyboard can take.
    fn keyboard_room(&self) -> usize;

    /// The mouse is moved, or its buttons are.
    fn mouse(&self, now: u64, event: MouseEvent);
}

/// A display adapter and its memory.
#[derive(Clone)]
pub struct DisplayHandle {
    /// The adapter.
    pub adapter: Arc<dyn Adapter>,
    /// What it shows.
    pub vram: Arc<Vram>,
}

impl std::fmt::Debug for DisplayHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DisplayHandle").field("vram", &self.vram).finish_non_exhaustive()
    }
}
