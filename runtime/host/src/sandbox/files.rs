//! Files that the process may open, by landlock(7): those that its arguments name, and what the host's libraries read.
//!
//! The arguments are not parsed once more: whatever part of one is the name of something may be meant. What does not exist yet is made
//! here where an option makes it, so that it alone can be written, and not all that is beside it.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, FileType, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use super::Needs;

/// The newest rights that are known here; older kernels have fewer.
const RIGHTS: ABI = ABI::V6;

/// What programs read wherever they run, the packages of firmware included.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/run/systemd/resolve",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/net",
    "/sys/devices/system",
    "/sys/fs/cgroup",
];

/// Devices that hold no data of a user's.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Pseudo-terminals.
const TERMINALS: &[&str] = &["/dev/ptmx", "/dev/pts"];

/// Where people keep images that a monitor may name, beside their home.
const SHELVES: &[&str] = &["/srv", "/mnt", "/media", "/opt", "/var/lib/libvirt/images"];

/// Options whose value names no file, whatever it looks like.
const FREE_TEXT: &[&str] = &["append", "name", "uuid", "cpu", "smp", "m"];

/// Options whose value is a file that is made.
const OUTPUTS: &[&str] = &["D", "stats", "pidfile"];

/// What ends a name in an argument, and begins one.
const DELIMITERS: &[u8] = b" ,=:\"'{}[]";

/// Parts of an argument that are looked at, at most.
const PARTS: usize = 64;

/// Lines of a file with options that are looked at, at most.
const LINES: usize = 4096;

/// What may be done to a file or below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    path: PathBuf,
    access: BitFlags<AccessFs>,
}

fn grant(path: impl Into<PathBuf>, access: impl Into<BitFlags<AccessFs>>) -> Grant {
    Grant { path: path.into(), access: access.into() }
}

fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

fn using() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
}

/// To make files, and sockets, and remove them.
fn making() -> BitFlags<AccessFs> {
    using() | AccessFs::ReadDir | AccessFs::MakeReg | AccessFs::RemoveFile
}

/// What a guest does in a shared folder.
fn sharing() -> BitFlags<AccessFs> {
    let made = AccessFs::MakeDir | AccessFs::MakeSym | AccessFs::MakeFifo | AccessFs::MakeSock;
    making() | made | AccessFs::RemoveDir | AccessFs::Refer
}

fn sockets() -> BitFlags<AccessFs> {
    AccessFs::MakeSock | AccessFs::RemoveFile
}

/// The directory that `path` is in.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A directory that a user keeps secrets in, or that has such directories in it.
#[derive(Debug)]
struct Home(Option<PathBuf>);

impl Home {
    fn of_user() -> Home {
        Home(std::env::var_os("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok()))
    }

    /// Whether all that is below `directory` may be opened when something in it was named.
    fn is_apart_from(&self, directory: &Path) -> bool {
        let Ok(directory) = directory.canonicalize() else { return false };
        let above_home = self.0.as_ref().is_some_and(|home| home.starts_with(&directory));
        directory.parent().is_some() && !above_home && !directory.starts_with("/etc") && !directory.starts_with("/proc")
    }

    /// What is in `directory` and not hidden.
    fn visible(directory: &Path, wanted: impl Fn(&FileType) -> bool) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let shown = entries.filter(|entry| !entry.file_name().as_bytes().starts_with(b"."));
        shown.filter(|entry| entry.file_type().is_ok_and(|kind| wanted(&kind))).map(|entry| entry.path()).collect()
    }

    /// Reading what lies beside an image: files that it is based on.
    fn beside(&self, image: &Path) -> Vec<Grant> {
        let folder = folder(image);
        if self.is_apart_from(&folder) {
            return vec![grant(folder, reading())];
        }
        Home::visible(&folder, FileType::is_file).into_iter().map(|path| grant(path, AccessFs::ReadFile)).collect()
    }
}

/// What an argument names, and what is right before it in the argument.
struct Named<'a> {
    option: &'a str,
    argument: &'a [u8],
    before: &'a [u8],
    path: PathBuf,
}

/// All parts of an argument that may be names.
fn parts<'a>(option: &'a str, argument: &'a [u8]) -> Vec<Named<'a>> {
    let at = |index: &usize| argument.get(*index).is_some_and(|byte| DELIMITERS.contains(byte));
    let cuts: Vec<usize> = (0..argument.len()).filter(at).take(PARTS).collect();
    let begins = || std::iter::once(0).chain(cuts.iter().map(|cut| cut + 1));
    let ends = || cuts.iter().copied().chain(std::iter::once(argument.len()));
    let mut all = Vec::new();
    for begin in begins() {
        for end in ends().filter(|end| *end > begin) {
            let (before, part) = (argument.get(..begin), argument.get(begin..end));
            let part = part.unwrap_or_default().to_vec();
            // A comma is written twice.
            let text = String::from_utf8_lossy(&part).replace(",,", ",");
            let names = [OsString::from_vec(part), OsString::from(text)];
            let before = before.unwrap_or_default();
            all.extend(names.into_iter().map(|name| Named { option, argument, before, path: name.into() }));
        }
    }
    all
}

impl Named<'_> {
    /// What it grants; nothing for what is no name.
    fn grants(&self, home: &Home) -> Vec<Grant> {
        let path = &self.path;
        if path.as_os_str().as_bytes().contains(&0) || path.as_os_str().is_empty() {
            return Vec::new();
        }
        match path.metadata() {
            Ok(data) if data.is_dir() => self.directory(),
            Ok(data) if data.file_type().is_socket() => vec![grant(folder(path), sockets())],
            Ok(data) if data.is_file() => {
                let mut all = vec![grant(path, using())];
                all.extend(home.beside(path));
                if self.option == "pidfile" {
                    all.push(grant(folder(path), AccessFs::RemoveFile));
                }
                all
            }
            Ok(_) => vec![grant(path, using())],
            Err(_) => self.made(),
        }
    }

    /// A directory is meant only where options have some.
    fn directory(&self) -> Vec<Grant> {
        if self.option == "L" || self.before.ends_with(b"tftp=") {
            return vec![grant(&self.path, reading())];
        }
        if ["virtfs", "fsdev"].contains(&self.option) && self.before.ends_with(b"path=") {
            return vec![grant(&self.path, if self.is_read_only() { reading() } else { sharing() })];
        }
        Vec::new()
    }

    /// Whether the argument says that nothing is to be changed.
    fn is_read_only(&self) -> bool {
        let said = |item: &[u8]| [&b"readonly"[..], b"readonly=on", b"readonly=true"].contains(&item);
        self.argument.split(|byte| *byte == b',').rfind(|item| item.starts_with(b"readonly")).is_some_and(said)
    }

    /// Something that does not exist yet.
    fn made(&self) -> Vec<Grant> {
        let path = &self.path;
        let after = |words: &[&[u8]]| words.iter().any(|word| self.before.ends_with(word));
        let in_chardev = self.option == "chardev" && after(&[b"path="]);
        if after(&[b"unix:"])
            || in_chardev && self.argument.starts_with(b"socket")
            || after(&[b"addr.path=", b"local.path="])
        {
            return vec![grant(folder(path), sockets())];
        }
        if after(&[b"pipe:"]) || in_chardev && self.argument.starts_with(b"pipe") {
            let end = |end: &str| {
                let mut name = path.clone().into_os_string();
                name.push(end);
                grant(name, using())
            };
            return vec![end(".in"), end(".out")];
        }
        let output = OUTPUTS.contains(&self.option) && self.before.is_empty();
        let whole = self.before.len() + path.as_os_str().len() == self.argument.len();
        let output = output || after(&[b"logfile=", b"dumpdtb="]) || in_chardev || after(&[b"file:"]) && whole;
        // What cannot be made is told by who opens it.
        if !output || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).is_err() {
            return Vec::new();
        }
        let mut all = vec![grant(path, using())];
        if self.option == "pidfile" {
            all.push(grant(folder(path), AccessFs::RemoveFile));
        }
        all
    }
}

/// The options among `args` with their values; an option that has none has an empty one.
fn options(args: &[OsString]) -> impl Iterator<Item = (String, &OsStr)> {
    let name = |arg: &OsStr| {
        let bytes = arg.as_bytes();
        let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    };
    args.iter().enumerate().filter_map(move |(index, arg)| match index.checked_sub(1).and_then(|at| args.get(at)) {
        // An image without an option.
        None => name(arg).is_none().then_some((String::new(), arg.as_os_str())),
        Some(option) => match name(option) {
            // A value may begin with a dash.
            Some(option) => Some((option, arg.as_os_str())),
            None => name(arg).is_none().then_some((String::new(), arg.as_os_str())),
        },
    })
}

/// What the arguments name.
fn named(args: &[OsString], home: &Home) -> Vec<Grant> {
    let mut all = Vec::new();
    for (option, value) in options(args).filter(|(option, _)| !FREE_TEXT.contains(&option.as_str())) {
        all.extend(named_in(&option, value.as_bytes(), home));
        if option == "readconfig" {
            // More options, one a line; whoever reads it tells what is wrong with it.
            let text = std::fs::read(value).unwrap_or_default();
            let lines = text.split(|byte| *byte == b'\n').take(LINES);
            all.extend(lines.flat_map(|line| named_in("", line, home)));
        }
    }
    all
}

/// What one argument names.
fn named_in(option: &str, argument: &[u8], home: &Home) -> Vec<Grant> {
    let mut seen = HashSet::new();
    let mut parts = parts(option, argument);
    parts.retain(|part| seen.insert((part.before.len(), part.path.clone())));
    parts.iter().flat_map(|part| part.grants(home)).collect()
}

/// What a monitor's commands may name later on: to read, what is not hidden where people keep images; to write, what is in the current
/// directory and among temporary files.
fn monitored(home: &Home) -> Vec<Grant> {
    let mut all: Vec<Grant> = SHELVES.iter().map(|shelf| grant(*shelf, reading())).collect();
    all.extend(["/tmp", "/var/tmp"].map(|place| grant(place, making())));
    all.push(grant(std::env::temp_dir(), making()));
    let here = Path::new(".");
    if home.is_apart_from(here) {
        all.push(grant(here, making()));
    }
    let shown = home.0.iter().flat_map(|home| Home::visible(home, |_| true));
    all.extend(shown.map(|path| grant(path, reading())));
    all
}

/// All that may be opened.
fn grants(args: &[OsString], is_monitored: bool) -> Vec<Grant> {
    let home = Home::of_user();
    let mut all: Vec<Grant> = SYSTEM.iter().map(|path| grant(*path, reading())).collect();
    // A panic tells where it was.
    all.extend(std::env::current_exe().ok().map(|program| grant(program, AccessFs::ReadFile)));
    all.extend(DEVICES.iter().map(|path| grant(*path, using())));
    let has = |text: &str| args.iter().any(|arg| arg.to_string_lossy().contains(text));
    if has("pty") {
        all.extend(TERMINALS.iter().map(|path| grant(*path, using() | AccessFs::ReadDir)));
    }
    if has("add-fd") {
        let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let named = open.map(|entry| entry.path()).filter(|path| path.is_file());
        all.extend(named.map(|path| grant(path, using())));
    }
    if has("snapshot") {
        all.push(grant(crate::block::temporary_folder(), making()));
    }
    if has("perfmap") {
        all.push(grant("/tmp", making()));
    }
    all.extend(named(args, &home));
    if is_monitored {
        all.extend(monitored(&home));
    }
    all
}

/// Restricts this thread, and those that it starts, to what `args` name. With a monitor there is more, and with a machine that has no
/// network there are no ports but those of `args`. Whether the kernel can.
pub(super) fn restrict(args: &[OsString], needs: &Needs) -> Result<bool, landlock::RulesetError> {
    let port =
        |arg: &OsString| ["tcp", "telnet:", "port=", "hostfwd"].iter().any(|at| arg.to_string_lossy().contains(at));
    let mut all = grants(args, needs.is_monitored);
    all.extend(needs.folders.iter().map(|folder| {
        // What is wrong with it, those tell who use it.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        grant(folder, making())
    }));
    restrict_to(all, needs.keeps_to_itself && !needs.is_monitored && !args.iter().any(port))
}

fn restrict_to(grants: Vec<Grant>, without_ports: bool) -> Result<bool, landlock::RulesetError> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?.scope(Scope::from_all(RIGHTS))?;
    if without_ports {
        ruleset = ruleset.handle_access(AccessNet::from_all(RIGHTS))?;
    }
    let mut created = ruleset.create()?;
    for Grant { path, access } in grants {
        // What is not there cannot be opened either.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(RIGHTS) };
        created = created.add_rule(PathBeneath::new(fd, access))?;
    }
    Ok(created.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
