//! The files that guest tests use: the command, the guests, and folders of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The `mimus` command of the profile that the tests are built with, which cargo puts two folders above a test's program
/// and one above a binary's.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("mimus")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let build = "cargo build --release -p mimus -p mimus-tests --bin mimus";
        panic!("no mimus beside {}: run tools/test, or first {build}", own.display())
    })
}

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace's folder")
}

/// A file below `target/guest`, which `tools/fetch-guest`, `tools/fetch-guest-riscv64` and
/// `tools/make-initramfs` fill.
pub fn guest(name: &str) -> PathBuf {
    let path = root().join("target/guest").join(name);
    assert!(
        path.is_file(),
        "no {}: run tools/test, or tools/test --guests, which fetches and builds it",
        path.display()
    );
    path
}

/// A file below `target/suite`, which `tools/make-suite` fills.
pub fn suite(name: &str) -> PathBuf {
    let path = root().join("target/suite").join(name);
    assert!(path.is_file(), "no {}: run tools/test, or tools/make-suite, which builds it", path.display());
    path
}

/// A Linux guest.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Name of its kernel's folder below `target/guest`.
    pub kernel: &'static str,
    /// Name of its initramfs.
    pub initramfs: &'static str,
    /// Its architecture, if it is not that of a PC.
    pub arch: Option<&'static str>,
    /// The firmware below `target/guest` that it is started by.
    pub firmware: Option<&'static str>,
}

/// A guest for a PC without firmware.
const fn pc(kernel: &'static str, initramfs: &'static str) -> Guest {
    Guest { kernel, initramfs, arch: None, firmware: None }
}

/// `linux-image-cloud-amd64`.
pub const CLOUD: Guest = pc("cloud", "initramfs.gz");
/// `linux-image-amd64`.
pub const GENERIC: Guest = pc("generic", "initramfs.gz");
/// `linux-image-686`, with a 32-bit BusyBox.
pub const I386: Guest = pc("i386", "initramfs-i386.gz");

/// `linux-image-riscv64`, with a BusyBox and OpenSBI for it; `tools/fetch-guest-riscv64` has made all of it.
pub const RISCV64: Guest = Guest {
    kernel: "riscv64",
    initramfs: "riscv64/initramfs.gz",
    arch: Some("riscv64"),
    firmware: Some("riscv64/fw_dynamic.bin"),
};

impl Guest {
    /// The arguments that boot it on the serial port with 512 MiB, this added to the kernel's command line.
    pub fn args(&self, append: &str) -> Vec<String> {
        self.args_with(&guest(self.initramfs), append)
    }

    /// The same with another initramfs.
    pub fn args_with(&self, initramfs: &Path, append: &str) -> Vec<String> {
        let kernel = guest(&format!("{}/vmlinuz", self.kernel)).display().to_string();
        let initrd = initramfs.display().to_string();
        let append = format!("console=ttyS0 {append}");
        let mut args: Vec<String> =
            ["-m", "512", "-nographic", "-kernel", &kernel, "-initrd", &initrd, "-append", &append]
                .map(str::to_owned)
                .into();
        let firmware = self.firmware.map(|name| guest(name).display().to_string());
        for (option, value) in [("-arch", self.arch.map(str::to_owned)), ("-bios", firmware)] {
            args.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
        }
        args
    }
}

/// A folder of a test's own, removed when it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes an empty one.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Folder {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mimus-tests-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Folder { path }
    }

    /// The path of the file `name` in it.
    pub fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Writes the file `name` and returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is in the system's folder for such things.
        let _ = fs::remove_dir_all(&self.path);
    }
}
