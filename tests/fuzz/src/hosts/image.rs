//! Disk images that somebody has made by hand, and a guest that reads and writes all of them: what is opened must be refused or
//! read, cost no more than it has, and never reach a file that nobody named.

mod qcow2;
mod vmdk;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use mimus_host::block::{Image, Store};
use mimus_host::config::{Disk, ImageFormat};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::Folder;
use crate::input::Input;

pub use qcow2::run as qcow2;
pub use vmdk::run as vmdk;

/// Bytes of the disks.
const SIZE: u64 = 1 << 20;
/// What the file that nobody names is full of.
const DECOY: &[u8; 16] = b"nobody named it!";

/// A folder with an image in it, other files beside that, and a file that must neither be read nor written to outside.
struct TestFolder(Folder);

impl TestFolder {
    fn new() -> TestFolder {
        let folder = TestFolder(Folder::new());
        std::fs::create_dir(folder.0.file("images")).expect("a folder");
        std::fs::write(folder.decoy(), DECOY.repeat(256)).expect("a file");
        // Read as a backing file, and written to as a data file.
        std::fs::write(folder.file("raw"), vec![0x55; SIZE as usize / 2]).expect("a file");
        symlink(folder.decoy(), folder.file("link")).expect("a link");
        mknodat(CWD, folder.file("fifo"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        folder
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.file("images").join(name)
    }

    fn decoy(&self) -> std::path::PathBuf {
        self.0.file("decoy")
    }

    /// What an image may call a file.
    fn name(&self, input: &mut Input) -> String {
        let decoy = self.decoy();
        let decoy = decoy.to_str().unwrap_or_default();
        match input.u8() % 12 {
            0 => decoy.to_owned(),
            1 => format!("file:{decoy}"),
            2 => format!("raw/../{decoy}"),
            other => input.pick(&["../decoy", "link", "./link", "fifo", "raw", "disk", "", "nbd://h/x", "."])[..]
                .repeat(if other == 3 { 200 } else { 1 }),
        }
    }
}

/// The disk's client: it reads and writes all of an image, opened twice.
fn using(input: &mut Input, folder: &TestFolder, bytes: &[u8], disk: &Disk, forged: &[u8]) {
    std::fs::write(&disk.file, bytes).expect("a file");
    for _ in 0..2 {
        if let Ok(image) = Image::open("-drive", disk) {
            client(input, image, disk.read_only, forged);
        }
    }
    assert!(std::fs::read(folder.decoy()).expect("the file is there") == DECOY.repeat(256), "somebody wrote to it");
    let len = std::fs::metadata(&disk.file).expect("the file is there still").len();
    assert!(len < 256 << 20, "the image has grown to {len} bytes");
}

fn client(input: &mut Input, mut image: Image, read_only: bool, forged: &[u8]) {
    let bytes = (image.info("").sectors * 512).min(4 * SIZE);
    let mut piece = vec![0; 64 << 10];
    read_all(&mut image, &mut piece, bytes);
    for _ in 0..12 {
        let offset = match input.u8() % 4 {
            0 => input.value() & !511,
            1 => bytes.saturating_sub(4096),
            _ => 512 * input.below(bytes / 512 + 1),
        };
        let count = 512 << input.below(8);
        let data = match input.u8() % 3 {
            // What would be a header.
            0 => forged.get(..count).unwrap_or(forged),
            _ => &piece[..count],
        };
        if read_only {
            continue;
        }
        // Whatever comes of it: it is done, or an error.
        let _ = match input.u8() % 6 {
            0 => image.discard(offset, input.below(SIZE) & !511),
            1 => image.write_zeroes(offset, input.below(SIZE) & !511, input.one_in(2), &AtomicBool::new(false)),
            2 => image.flush(),
            _ => image.write(data, offset),
        };
    }
    if !read_only {
        let mut at = 0;
        while at < bytes {
            let _ = image.write(forged.get(..4096).unwrap_or(forged), at);
            at += 4096 << input.below(5);
        }
        let _ = image.flush();
    }
    read_all(&mut image, &mut piece, bytes);
}

fn read_all(image: &mut Image, piece: &mut [u8], bytes: u64) {
    for offset in (0..bytes).step_by(piece.len()) {
        let count = (bytes - offset).min(piece.len() as u64) as usize;
        let part = &mut piece[..count];
        let read = image.read(part, offset).is_ok();
        assert!(!read || !part.chunks_exact(512).any(|sector| sector.starts_with(DECOY)), "somebody read it");
    }
}

fn disk(path: &Path, format: ImageFormat) -> Disk {
    Disk { format: Some(format), discard: true, ..Disk::new(path) }
}
