//! What a killed process leaves: every write to an image is recorded, and the image as it was after any of them is checked by
//! qemu-img, and for everything that was flushed by then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use imago::io_buffers::IoVector;

use crate::block::{Image, Store};
use crate::config::{Disk, ImageFormat};

thread_local! {
    /// The writes of this thread to images: where, and what.
    static WRITES: RefCell<Vec<(u64, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn record(offset: u64, bytes: &[u8]) {
    WRITES.with_borrow_mut(|writes| writes.push((offset, bytes.to_vec())));
}

pub(super) fn record_vector(offset: u64, bufv: &IoVector<'_>) {
    let mut bytes = vec![0; bufv.len() as usize];
    bufv.copy_into_slice(&mut bytes);
    record(offset, &bytes);
}

const SECTOR: u64 = 512;
/// A directory that goes with the value.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new(name: &str) -> TestFolder {
        let path = std::env::temp_dir().join(format!("mimus-guarded-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TestFolder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        // What is left behind in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn qemu_img(args: &[&str]) -> (i32, String) {
    let output = Command::new("qemu-img").args(args).output().expect("qemu-img: install the package qemu-utils");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn make(args: &[&str]) {
    let (code, text) = qemu_img(args);
    assert_eq!(code, 0, "{text}");
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// What a disk holds: a number for each sector, which fills it.
type Contents = Vec<u64>;

/// What was done, and after how many writes to the file it had begun.
struct Step {
    begun: usize,
    op: Op,
}

enum Op {
    /// Sectors from the first on get this number; 0 for a zeroed one.
    Write {
        first: usize,
        count: usize,
        value: u64,
    },
    /// Sectors whose contents are nobody's business any more.
    Discard {
        first: usize,
        count: usize,
    },
    Flush,
}

fn sector(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(SECTOR as usize / 8)
}

/// Does random things to the image at `path`, which holds `contents`.
fn work(path: &PathBuf, contents: &mut Contents, random: &mut Random, steps: u64) -> Vec<Step> {
    let writes = || WRITES.with_borrow(Vec::len);
    let disk = Disk { format: Some(ImageFormat::Qcow2), discard: true, ..Disk::new(path) };
    let mut image = Image::open("-drive", &disk).unwrap();
    let sectors = contents.len() as u64;
    let mut log = Vec::new();
    for value in 1..=steps {
        let first = random.below(sectors) as usize;
        let count = (random.below(if value % 4 == 0 { 200 } else { 6 }) as usize + 1).min(sectors as usize - first);
        let (offset, len) = (first as u64 * SECTOR, count as u64 * SECTOR);
        let begun = writes();
        let value = value << 32;
        let op = match random.below(16) {
            0 | 1 => {
                image.flush().unwrap();
                Op::Flush
            }
            2 => {
                image.discard(offset, len).unwrap();
                Op::Discard { first, count }
            }
            3 => {
                image.write_zeroes(offset, len, true, &false.into()).unwrap();
                Op::Write { first, count, value: 0 }
            }
            _ => {
                let bytes: Vec<u8> = (0..count as u64).flat_map(|index| sector(value + index)).collect();
                image.write(&bytes, offset).unwrap();
                Op::Write { first, count, value }
            }
        };
        apply(contents, &op);
        log.push(Step { begun, op });
    }
    // What it says while it runs, where nothing was discarded.
    let mut bytes = vec![0; (sectors * SECTOR) as usize];
    image.read(&mut bytes, 0).unwrap();
    compare(&bytes, &contents.iter().map(|value| vec![*value]).collect::<Vec<_>>(), "at the end");
    log
}

const ANYTHING: u64 = u64::MAX;

fn apply(contents: &mut Contents, op: &Op) {
    match *op {
        Op::Write { first, count, value } => {
            for (index, byte) in contents.iter_mut().skip(first).take(count).enumerate() {
                *byte = if value == 0 { 0 } else { value + index as u64 };
            }
        }
        Op::Discard { first, count } => contents.iter_mut().skip(first).take(count).for_each(|byte| *byte = ANYTHING),
        Op::Flush => {}
    }
}

/// Each sector must be one of what it may be.
fn compare(bytes: &[u8], allowed: &[Vec<u64>], when: &str) {
    for (index, (bytes, allowed)) in bytes.chunks(SECTOR as usize).zip(allowed).enumerate() {
        let good = allowed.iter().any(|value| *value == ANYTHING || *bytes == sector(*value));
        let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(good, "{when}: sector {index} is {found:#x} and none of {allowed:x?}");
    }
}

/// Does random things to an image and looks at `samples` of the states in which a killed process would have left it.
fn crash(folder: &TestFolder, name: &str, contents: &Contents, seed: u64, samples: usize) {
    let (path, original) = (folder.file(name), folder.file("original"));
    std::fs::copy(&path, &original).unwrap();
    WRITES.with_borrow_mut(Vec::clear);
    let mut random = Random(seed);
    let steps = work(&path, &mut contents.clone(), &mut random, 120);
    let writes = WRITES.take();
    assert!(writes.len() > samples, "{} writes", writes.len());
    let (crashed, raw) = (folder.file("crashed.qcow2"), folder.file("crashed.raw"));
    for sample in 0..samples {
        let kept = 1 + (sample * writes.len() + random.below(writes.len() as u64) as usize) / samples;
        std::fs::copy(&original, &crashed).unwrap();
        let file = std::fs::File::options().write(true).open(&crashed).unwrap();
        for (index, (offset, bytes)) in writes[..kept.min(writes.len())].iter().enumerate() {
            // The last one may have got part of its pages done.
            let cut = index + 1 == kept && sample % 2 == 0 && bytes.len() > 4096;
            file.write_all_at(if cut { &bytes[..4096] } else { bytes }, *offset).unwrap();
        }
        drop(file);
        let when = format!("{name}, seed {seed}, after write {kept} of {}", writes.len());
        let (code, text) = qemu_img(&["check", "-f", "qcow2", crashed.to_str().unwrap()]);
        assert!(code == 0 || code == 3, "{when}: qemu-img check ends with {code}: {text}");
        make(&["convert", "-f", "qcow2", "-O", "raw", crashed.to_str().unwrap(), raw.to_str().unwrap()]);
        let bytes = std::fs::read(&raw).unwrap();
        compare(&bytes, &allowed(contents, &steps, kept), &when);
    }
}

/// What each sector may be when the first `kept` writes were done.
fn allowed(contents: &Contents, steps: &[Step], kept: usize) -> Vec<Vec<u64>> {
    let mut allowed: Vec<Vec<u64>> = contents.iter().map(|value| vec![*value]).collect();
    let mut changed: BTreeMap<usize, u64> = BTreeMap::new();
    let ends = steps.iter().skip(1).map(|step| step.begun).chain([usize::MAX]);
    for (step, end) in steps.iter().zip(ends).take_while(|(step, _)| step.begun < kept) {
        match step.op {
            // Only one that has come to its end counts.
            Op::Flush if end <= kept => {
                for (index, value) in std::mem::take(&mut changed) {
                    allowed[index] = vec![value];
                }
            }
            Op::Flush => {}
            Op::Write { first, count, .. } | Op::Discard { first, count } => {
                let mut after = vec![ANYTHING; contents.len()];
                apply(&mut after, &step.op);
                for index in first..first + count {
                    allowed[index].push(after[index]);
                    changed.insert(index, after[index]);
                }
            }
        }
    }
    allowed
}

/// An image of `sectors` sectors, made by qemu-img with these arguments, of numbers if there is to be something in it.
fn numbers(sectors: u64) -> Contents {
    (1..=sectors).collect()
}

fn write_raw(folder: &TestFolder, contents: &Contents) -> PathBuf {
    let path = folder.file("base.raw");
    let bytes: Vec<u8> = contents.iter().flat_map(|value| sector(*value)).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn an_image_survives_a_kill_after_any_write() {
    let folder = TestFolder::new("plain");
    for (seed, cluster, sectors) in [(1, 512u64, 4096), (2, 4096, 20_000)] {
        let path = folder.file("plain");
        let options = format!("cluster_size={cluster}");
        let size = (sectors * SECTOR).to_string();
        make(&["create", "-q", "-f", "qcow2", "-o", &options, path.to_str().unwrap(), &size]);
        crash(&folder, "plain", &vec![0; sectors as usize], seed, 40);
    }
}

#[test]
fn a_compressed_image_survives_a_kill_after_any_write() {
    let folder = TestFolder::new("compressed");
    let contents = numbers(4096);
    let raw = write_raw(&folder, &contents);
    let path = folder.file("compressed");
    for (seed, cluster) in [(3, "cluster_size=512"), (4, "cluster_size=4096")] {
        let (raw, to) = (raw.to_str().unwrap(), path.to_str().unwrap());
        make(&["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", cluster, raw, to]);
        crash(&folder, "compressed", &contents, seed, 40);
    }
}

#[test]
fn an_image_with_a_backing_file_survives_a_kill_after_any_write() {
    let folder = TestFolder::new("backing");
    let contents = numbers(4096);
    let raw = write_raw(&folder, &contents);
    let path = folder.file("backing");
    // The name is beside the image.
    let raw = raw.file_name().and_then(|name| name.to_str()).unwrap();
    let options = ["-o", "cluster_size=1024,refcount_bits=1", "-F", "raw", "-b", raw];
    make(&[&["create", "-q", "-f", "qcow2"], &options[..], &[path.to_str().unwrap()]].concat());
    crash(&folder, "backing", &contents, 5, 40);
}
