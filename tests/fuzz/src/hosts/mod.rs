//! What the host's side of a machine is told by others: a guest's frames, clients of displays and monitors, disk images.
//!
//! These have threads of their own, so what a seed stands for is what is sent, and not what comes of it in every detail. A
//! thread that has panicked or hangs is noticed by what does not answer any more.

mod gateway;
mod image;
mod kept;
mod monitors;
mod rfb;
mod share;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::input::Input;

/// A target: its name, and what runs a case.
type Host = (&'static str, fn(&mut Input));

/// Each by its name.
pub const HOSTS: &[Host] = &[
    ("gateway", gateway::run),
    ("rfb", rfb::run),
    ("hmp", monitors::hmp),
    ("qmp", monitors::qmp),
    ("gdb", monitors::gdb),
    ("qcow2", image::qcow2),
    ("vmdk", image::vmdk),
    ("share", share::run),
    ("kept", kept::run),
];

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        // A name of its own for each; nothing else depends on it.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In memory where that is to be had: images are flushed again and again.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = parent.join(format!("mimus-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind there harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
