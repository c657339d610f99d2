//! Images as qemu-img makes them, and others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::block::{Image, Store};
use crate::config::{Disk, ImageFormat};

const LEN: usize = 3 << 20;

/// A folder that goes with the value.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new(name: &str) -> TestFolder {
        let path = std::env::temp_dir().join(format!("mimus-vmdk-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TestFolder(path)
    }

    /// A disk with something in a few places, as a vmdk image of the kind `subformat`.
    fn image(&self, subformat: &str) -> (PathBuf, Vec<u8>) {
        let mut contents = vec![0; LEN];
        for at in [0, 70_000, 1 << 20, LEN - 600] {
            contents[at..at + 512].iter_mut().enumerate().for_each(|(i, byte)| *byte = (at + i * 7) as u8 | 1);
        }
        let (raw, path) = (self.0.join("raw"), self.0.join(format!("{subformat}.vmdk")));
        fs::write(&raw, &contents).unwrap();
        let kind = format!("subformat={subformat}");
        let mut command = Command::new("qemu-img");
        command.args(["convert", "-f", "raw", "-O", "vmdk", "-o", &kind]).args([&raw, &path]);
        let output = command.output().expect("qemu-img: install the package qemu-utils");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (path, contents)
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        // What is left behind in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_kind_that_qemu_img_makes_is_read() {
    let folder = TestFolder::new("kinds");
    for kind in ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse", "monolithicFlat", "twoGbMaxExtentFlat"]
    {
        let (path, contents) = folder.image(kind);
        let mut image = Image::open("-drive", &Disk { read_only: true, ..Disk::new(&path) }).unwrap();
        assert_eq!((image.format(), image.bytes()), (ImageFormat::Vmdk, LEN as u64), "{kind}");
        let mut read = vec![0xff; LEN];
        image.read(&mut read, 0).unwrap();
        assert!(read == contents, "{kind}");
        image.read(&mut read[..4096], 69_632).unwrap();
        assert!(read[..4096] == contents[69_632..73_728], "{kind}: a part");
    }
}

#[test]
fn it_is_written_above_only() {
    let folder = TestFolder::new("written");
    let (path, contents) = folder.image("monolithicSparse");
    let told = Image::open("-hda", &Disk::new(&path)).map(|_| ()).expect_err("it cannot be written").to_string();
    assert!(told.starts_with("-hda: ") && told.contains("can only be read: use readonly=on or snapshot=on"), "{told}");
    let mut image = Image::open("-hda", &Disk { snapshot: true, ..Disk::new(&path) }).unwrap();
    image.write(&[7; 512], 512).unwrap();
    let mut read = [0; 1024];
    image.read(&mut read, 0).unwrap();
    assert!(read[..512] == contents[..512] && read[512..] == [7; 512]);
}

#[test]
fn what_is_wrong_is_refused() {
    let folder = TestFolder::new("wrong");
    let (sparse, _) = folder.image("monolithicSparse");
    let good = fs::read(&sparse).unwrap();
    let told = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let path = folder.0.join("changed");
        fs::write(&path, bytes).unwrap();
        let disk = Disk { read_only: true, format: Some(ImageFormat::Vmdk), ..Disk::new(path) };
        Image::open("-drive", &disk).map(|_| ()).expect_err("this is refused").to_string()
    };
    let put =
        |at: usize, value: u64| move |bytes: &mut Vec<u8>| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    for (change, words) in [
        (put(4, 9), "version"),
        (put(8, 1 << 31), "flags"),
        (put(20, 0), "grains of 0"),
        (put(12, u64::MAX), "it cannot have"),
        (put(44, 1 << 20), "tables of 1048576"),
        (put(56, 1 << 40), "directory is beyond"),
        (put(28, 1 << 40), "descriptor is not in the file"),
    ] {
        let told = told(&change);
        assert!(told.contains(words), "{told}");
    }
    let told = told(&|bytes| {
        let text = b"parentCID=ffffffff";
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        bytes[at + 10..at + 18].copy_from_slice(b"12345678");
    });
    assert!(told.contains("above another image"), "{told}");
}
