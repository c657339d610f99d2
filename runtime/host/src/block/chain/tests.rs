//! Images that somebody has made by hand, and the files that they name.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::block::file::named_inside;
use crate::block::{Image, Store};
use crate::config::{Disk, ImageFormat, Layers};

const CLUSTER: usize = 1 << 16;
const SIZE: u64 = 1 << 20;
/// What the files that nobody may reach are full of.
const DECOY: u8 = 0x5a;

/// A folder that goes with the value, with a file beside it.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new(name: &str) -> TestFolder {
        let path = std::env::temp_dir().join(format!("mimus-chain-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("folder")).unwrap();
        fs::write(path.join("decoy"), [DECOY; 4096]).unwrap();
        TestFolder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("folder").join(name)
    }

    fn decoy(&self) -> String {
        self.0.join("decoy").to_str().unwrap().to_owned()
    }

    fn make(&self, name: &str, image: &Made) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, image.bytes()).unwrap();
        path
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        assert_eq!(fs::read(self.0.join("decoy")).unwrap(), [DECOY; 4096], "a file that nobody named was written to");
        // What is left behind in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An image of six clusters: header, refcount table, refcount block, L1 table, L2 table, data.
#[derive(Clone)]
struct Made {
    incompatible: u64,
    crypt: u32,
    backing: String,
    extensions: Vec<(u32, String)>,
    refcount_clusters: u32,
    refcount_block: u64,
    refcounts: [u16; 6],
    l1: u64,
    l2: [u64; 2],
    len: usize,
}

/// The offset of a cluster, with the flag of those whose refcount is 1.
fn copied(cluster: u64) -> u64 {
    (cluster * CLUSTER as u64) | (1 << 63)
}

impl Made {
    fn new() -> Made {
        Made {
            incompatible: 0,
            crypt: 0,
            backing: String::new(),
            extensions: Vec::new(),
            refcount_clusters: 1,
            refcount_block: 2 * CLUSTER as u64,
            refcounts: [1; 6],
            l1: copied(4),
            l2: [copied(5), 0],
            len: 6 * CLUSTER,
        }
    }

    fn backed_by(name: &str) -> Made {
        Made { backing: name.into(), l2: [0; 2], ..Made::new() }
    }

    fn with_data_in(name: &str) -> Made {
        let extensions = vec![(0x4441_5441, name.to_owned())];
        Made { incompatible: 1 << 2, extensions, l2: [1 << 63, 0], ..Made::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        let (mut image, backing) = (vec![0; 6 * CLUSTER], self.backing.as_bytes());
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb\0\0\0\x03");
        if !backing.is_empty() {
            put(8, &0x400u64.to_be_bytes());
            put(16, &(backing.len() as u32).to_be_bytes());
            put(0x400, backing);
        }
        put(20, &16u32.to_be_bytes());
        put(24, &SIZE.to_be_bytes());
        put(32, &self.crypt.to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &(3 * CLUSTER as u64).to_be_bytes());
        put(48, &(CLUSTER as u64).to_be_bytes());
        put(56, &self.refcount_clusters.to_be_bytes());
        put(72, &self.incompatible.to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        let mut at = 104;
        for (kind, text) in &self.extensions {
            put(at, &kind.to_be_bytes());
            put(at + 4, &(text.len() as u32).to_be_bytes());
            put(at + 8, text.as_bytes());
            at += 8 + text.len().next_multiple_of(8);
        }
        put(CLUSTER, &self.refcount_block.to_be_bytes());
        (0..).zip(self.refcounts).for_each(|(index, count)| put(2 * CLUSTER + 2 * index, &count.to_be_bytes()));
        put(3 * CLUSTER, &self.l1.to_be_bytes());
        (0..).zip(self.l2).for_each(|(index, entry)| put(4 * CLUSTER + 8 * index, &entry.to_be_bytes()));
        put(5 * CLUSTER, &[0x77; 512]);
        image.truncate(self.len);
        image
    }
}

fn disk(path: &Path) -> Disk {
    Disk { format: Some(ImageFormat::Qcow2), discard: true, ..Disk::new(path) }
}

/// What is said about an image that is not opened.
fn error(disk: &Disk) -> String {
    Image::open("-drive", disk).map(|_| ()).expect_err("this is refused").to_string()
}

/// Opens an image and writes two clusters and flushes: whether all went well.
fn use_it(path: &Path, bytes: &[u8]) -> bool {
    let mut image = Image::open("-drive", &disk(path)).unwrap();
    let results = [image.write(bytes, 0), image.write(bytes, CLUSTER as u64), image.flush()];
    results.iter().all(Result::is_ok)
}

#[test]
fn a_good_image_is_written() {
    let folder = TestFolder::new("good");
    let path = folder.make("a", &Made::new());
    assert!(use_it(&path, &[0x11; 4096]));
    let mut image = Image::open("-drive", &disk(&path)).unwrap();
    let mut read = [0; 4096];
    image.read(&mut read, CLUSTER as u64).unwrap();
    assert_eq!(read, [0x11; 4096]);
}

#[test]
fn damaged_metadata_are_not_written() {
    let folder = TestFolder::new("damaged");
    let good = Made::new;
    let refused = [
        (Made { refcounts: [0, 1, 1, 1, 1, 1], ..good() }, "the refcount of the header at 0x0 is 0"),
        (Made { refcounts: [1, 0, 1, 1, 1, 1], ..good() }, "the refcount of the refcount table at 0x10000 is 0"),
        (Made { refcounts: [1, 1, 0, 1, 1, 1], ..good() }, "refcount block at 0x20000 is 0"),
        (Made { refcounts: [1, 1, 1, 0, 1, 1], ..good() }, "the refcount of the L1 table at 0x30000 is 0"),
        (Made { refcounts: [1, 1, 1, 1, 0, 1], ..good() }, "an L2 table or refcount block at 0x40000 is 0"),
        (Made { refcount_block: 0, ..good() }, "first refcount block is missing"),
        (Made { refcount_clusters: 0, ..good() }, "refcount table is not in the file"),
        (Made { refcount_clusters: 1 << 20, ..good() }, "refcount table is too large"),
        (Made { refcount_clusters: 3, ..good() }, "are at the same place"),
        (Made { refcount_block: 4 * CLUSTER as u64, ..good() }, "L2 table 0 cannot be at 0x40000"),
        (Made { refcount_block: 9 * CLUSTER as u64, ..good() }, "refcount block 0 cannot be at 0x90000"),
        (Made { l1: copied(0) | 512, ..good() }, "L2 table 0 cannot be at 0x200"),
        (Made { l1: copied(1), ..good() }, "L2 table 0 cannot be at 0x10000"),
        (Made { len: 104, ..good() }, "L1 table is beyond the end of the file"),
    ];
    for (index, (image, words)) in refused.iter().enumerate() {
        let path = folder.make(&format!("{index}"), image);
        let told = error(&disk(&path));
        assert!(told.contains(words), "{told}");
        let after = fs::read(&path).unwrap();
        assert!(after == image.bytes(), "{words}: the file was written to");
    }
}

#[test]
fn features_that_are_not_honoured_are_refused() {
    let folder = TestFolder::new("features");
    let with = |incompatible| Made { incompatible, ..Made::new() };
    let refused = [
        (Made { crypt: 1, ..Made::new() }, "encrypted"),
        (Made { crypt: 2, ..Made::new() }, "encrypted"),
        (Made { crypt: 9, ..Made::new() }, "encrypted"),
        (Made { extensions: vec![(0x0537_be77, "12345678".into())], ..Made::new() }, "encryption"),
        (with(1), "not closed in order"),
        (with(2), "marked as damaged"),
        (with(8), "zstd"),
        (with(16), "extended L2 entries"),
        (with(1 << 63), "not known here (bit 63)"),
    ];
    for (image, words) in refused {
        let path = folder.make("a", &image);
        for read_only in [false, true] {
            let told = error(&Disk { read_only, ..disk(&path) });
            assert!(told.contains(words), "{told}");
        }
    }
}

/// An image whose mappings lie has the guest write to metadata: nothing of them changes.
#[test]
fn the_guest_does_not_write_metadata() {
    let folder = TestFolder::new("overlap");
    // The guest's writes look like a header that names another file.
    let forged = Made::with_data_in(&folder.decoy()).bytes();
    for target in 1..5 {
        let image = Made { l2: [copied(target), copied(target)], ..Made::new() };
        let path = folder.make("a", &image);
        assert!(!use_it(&path, &forged[..4096]), "cluster {target}");
        let after = fs::read(&path).unwrap();
        assert!(after[..5 * CLUSTER] == image.bytes()[..5 * CLUSTER], "cluster {target} was written to");
    }
    let image = Made { l2: [copied(1 << 30), 0], ..Made::new() };
    let path = folder.make("a", &image);
    assert!(!use_it(&path, &[1; 512]));
    // The other write was to a cluster of its own.
    assert!(fs::metadata(&path).unwrap().len() <= 8 * CLUSTER as u64, "the file does not grow to anywhere");
}

/// A compressed cluster that is said to be in the header's cluster: writing over it frees that.
#[test]
fn a_header_that_was_freed_is_not_given_to_the_guest() {
    let folder = TestFolder::new("freed");
    let forged = Made::with_data_in(&folder.decoy()).bytes();
    for cluster in 0..5u64 {
        let image = Made { l2: [(1 << 62) | (cluster * CLUSTER as u64), 0], ..Made::new() };
        let path = folder.make("a", &image);
        // That it cannot be unpacked is an error; written as a whole it need not be.
        let mut opened = Image::open("-drive", &disk(&path)).unwrap();
        for at in 0..8 {
            let _ = opened.write(&forged[..CLUSTER], at * CLUSTER as u64);
            let _ = opened.flush();
        }
        drop(opened);
        let after = fs::read(&path).unwrap();
        assert!(after[..36] == image.bytes()[..36] && after[60..512] == image.bytes()[60..512], "cluster {cluster}");
        if let Ok(mut image) = Image::open("-drive", &disk(&path)) {
            let mut read = [0; 512];
            let _ = image.read(&mut read, 0);
            assert_ne!(read, [DECOY; 512]);
        }
    }
}

#[test]
fn names_from_inside_stay_inside() {
    let folder = TestFolder::new("names");
    std::os::unix::fs::symlink(folder.decoy(), folder.file("link")).unwrap();
    let decoy = folder.decoy();
    for name in
        [decoy.as_str(), "../decoy", "link", "./../decoy", "nbd://host/x", "json:{\"driver\":\"null-co\"}", "/dev/null"]
    {
        for image in [Made::backed_by(name), Made::with_data_in(name)] {
            let told = error(&disk(&folder.make("a", &image)));
            assert!(told.contains("a name from inside an image must be"), "{name}: {told}");
        }
    }
    let told = error(&disk(&folder.make("a", &Made::backed_by(&decoy))));
    assert!(told.contains("backing.file.filename=FILE"), "{told}");
    let vmdk = format!("# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\nRW 8 FLAT \"{decoy}\" 0\n");
    fs::write(folder.file("v"), vmdk).unwrap();
    let told = error(&Disk { read_only: true, ..Disk::new(folder.file("v")) });
    assert!(told.contains("a name from inside an image must be"), "{told}");
}

/// As qemu-img writes them, which has their format said.
#[test]
fn absolute_names_are_of_the_same_folder() {
    let folder = TestFolder::new("absolute");
    fs::write(folder.file("base"), [7; 4096]).unwrap();
    let called = |name: &str| folder.file(name).to_str().unwrap().to_owned();
    let raw = |name: &str| Made { extensions: vec![(0xe279_2aca, "raw".to_owned())], ..Made::backed_by(name) };
    Image::open("-drive", &disk(&folder.make("a", &raw(&called("base"))))).unwrap();
    for image in
        [raw(&called("../decoy")), raw(&called("sub/../../decoy")), raw(&called("")), Made::backed_by(&called("base"))]
    {
        let told = error(&disk(&folder.make("a", &image)));
        assert!(told.contains("a name from inside an image must be"), "{}: {told}", image.backing);
    }
}

#[test]
fn special_files_are_not_waited_for() {
    let folder = TestFolder::new("special");
    let fifo = folder.file("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for image in [Made::backed_by("fifo"), Made::with_data_in("fifo")] {
        let told = error(&disk(&folder.make("a", &image)));
        assert!(told.contains("neither a regular file nor a block device"), "{told}");
    }
    let told = error(&Disk::new(&fifo));
    assert!(told.contains("neither a regular file nor a block device"), "{told}");
}

#[test]
fn chains_end() {
    let folder = TestFolder::new("chains");
    let told = error(&Disk { read_only: true, ..disk(&folder.make("a", &Made::backed_by("a"))) });
    assert!(told.contains("its own backing file"), "{told}");
    folder.make("b", &Made::backed_by("a"));
    let told = error(&Disk { read_only: true, ..disk(&folder.make("a", &Made::backed_by("b"))) });
    assert!(told.contains("its own backing file"), "{told}");

    let chain = |count: u32| {
        (0..count).for_each(|index| {
            folder.make(&format!("{index}"), &Made::backed_by(&format!("{}", index + 1)));
        });
        folder.make(&count.to_string(), &Made::new());
        Image::open("-drive", &disk(&folder.file("0")))
    };
    let mut read = [0; 512];
    chain(99).unwrap().read(&mut read, 0).unwrap();
    assert_eq!(read, [0x77; 512]);
    let told = chain(100).map(|_| ()).expect_err("this is refused").to_string();
    assert!(told.contains("more than 100 backing files"), "{told}");
}

#[test]
fn names_on_the_command_line_go_anywhere() {
    let folder = TestFolder::new("layers");
    let path = folder.make("a", &Made::backed_by("/nowhere/at/all"));
    let layers = Layers { backing: vec![(folder.decoy().into(), Some(ImageFormat::Raw))], ..Layers::default() };
    let mut image = Image::open("-drive", &Disk { layers, ..disk(&path) }).unwrap();
    let mut read = [0; 512];
    image.read(&mut read, 0).unwrap();
    assert_eq!(read, [DECOY; 512]);
    // It is only read: what is written goes to the image.
    image.write(&[0x11; 512], 0).unwrap();
    image.flush().unwrap();
    drop(image);
    let mut image =
        Image::open("-drive", &Disk { layers: Layers { end: true, ..Layers::default() }, ..disk(&path) }).unwrap();
    image.read(&mut read, CLUSTER as u64).unwrap();
    assert_eq!(read, [0; 512], "without any backing file");

    let data = folder.0.join("data");
    fs::write(&data, [0x33; 4096]).unwrap();
    let path = folder.make("d", &Made::with_data_in("/nowhere/at/all"));
    let layers = Layers { data_file: Some(data.clone()), ..Layers::default() };
    let mut image = Image::open("-drive", &Disk { layers, ..disk(&path) }).unwrap();
    image.read(&mut read, 512).unwrap();
    assert_eq!(read, [0x33; 512]);
    image.write(&[0x44; 512], 512).unwrap();
    image.flush().unwrap();
    assert_eq!(fs::read(&data).unwrap()[512..1024], [0x44; 512]);
}

#[test]
fn a_device_has_no_folder() {
    // Whatever is in /dev: beside an image on a device are all others.
    let error =
        named_inside(Path::new("/dev/null"), "zero", false, "backing file", Some("backing.file.filename")).unwrap_err();
    let expected = "its backing file 'zero' is a name beside a device: a name from inside an image must be that of a file \
                    beside it; backing.file.filename=FILE names one on the command line";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_tables_of_snapshots_are_looked_at_within_limits() {
    let folder = TestFolder::new("snapshots");
    let path = folder.file("0");
    let mut bytes = Made::new().bytes();
    bytes.resize(8 * CLUSTER, 0);
    // A table of one snapshot in the last cluster, whose L1 table has 2^26 entries of a file that is long enough for them.
    bytes[60..64].copy_from_slice(&1u32.to_be_bytes());
    bytes[64..72].copy_from_slice(&(7 * CLUSTER as u64).to_be_bytes());
    bytes[7 * CLUSTER..][..8].copy_from_slice(&(8 * CLUSTER as u64).to_be_bytes());
    bytes[7 * CLUSTER + 8..][..4].copy_from_slice(&(1u32 << 26).to_be_bytes());
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    assert!(error(&disk(&path)).ends_with("its snapshots have too large tables"));
}

/// This process's descriptors of a file once more, as a child has them until it runs a program of its own.
fn inherited(path: &Path) -> Vec<OwnedFd> {
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let of_file = open.filter(|link| fs::read_link(link).is_ok_and(|target| target == path));
    let numbers = of_file.filter_map(|link| link.file_name()?.to_str()?.parse().ok());
    // SAFETY: the image that the caller has open keeps its descriptors open.
    numbers.map(|number| unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().unwrap()).collect()
}

#[test]
fn locks_end_with_an_image_though_a_child_has_its_file() {
    let folder = TestFolder::new("inherited");
    let (raw, qcow2) = (folder.file("raw"), folder.file("qcow2"));
    fs::write(&raw, vec![0; 1 << 16]).unwrap();
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&qcow2).arg("1M").status();
    let formatted = made.is_ok_and(|status| status.success()).then_some(&qcow2);
    for path in formatted.into_iter().chain([&raw]) {
        let image = Image::open("-drive", &Disk::new(path)).unwrap();
        let theirs = inherited(path);
        assert!(!theirs.is_empty());
        assert!(Image::open("-drive", &Disk::new(path)).is_err(), "it is in use");
        drop(image);
        Image::open("-drive", &Disk::new(path)).unwrap();
        drop(theirs);
    }
}

#[test]
fn what_is_read_from_a_backing_image_is_copied_if_that_is_wanted() {
    let folder = TestFolder::new("copy");
    let raw = folder.file("raw");
    let mut below = vec![0; 1 << 20];
    below[..1 << 16].fill(5);
    fs::write(&raw, &below).unwrap();
    let path = folder.file("0");
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "raw"];
    let made = Command::new("qemu-img").args(create).arg(&path).status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let mut bytes = vec![0; 4096];
    for (copy_on_read, offset) in [(false, 1 << 18), (true, 1 << 19), (true, 4096)] {
        let mut image = Image::open("-drive", &Disk { copy_on_read, ..disk(&path) }).unwrap();
        image.read(&mut bytes, offset).unwrap();
        assert!(bytes == below[offset as usize..][..4096]);
        image.flush().unwrap();
    }
    // What was read is the image's own now, a cluster of it.
    fs::write(&raw, vec![9; 1 << 20]).unwrap();
    let mut image = Image::open("-drive", &disk(&path)).unwrap();
    for (offset, contents) in [(0, 5), (1 << 16, 9), (1 << 18, 9), (1 << 19, 0)] {
        image.read(&mut bytes, offset).unwrap();
        assert!(bytes == [contents; 4096], "{offset}");
    }
}
