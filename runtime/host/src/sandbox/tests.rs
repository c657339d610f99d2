//! Each in a process of its own: what is given up is given up for good.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::config::RunAs;

/// Tells this test program, run again as a child, what to do.
const CHILD: &str = "MIMUS_TEST_HOST_CHILD";

/// Runs the test `name` of this program again as a child, which has to pass; whether this is the child.
fn is_child(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some_and(|value| value == name) {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args([&format!("sandbox::tests::{name}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .status()
        .unwrap();
    assert!(status.success(), "{status:?}");
    false
}

/// A folder of this test's own, and a secret outside of it.
fn folder(name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let folder = std::env::temp_dir().join(format!("mimus-host-{name}-{}", std::process::id()));
    fs::create_dir_all(folder.join("images")).unwrap();
    fs::create_dir_all(folder.join("secrets")).unwrap();
    fs::write(folder.join("secrets/key"), "secret").unwrap();
    fs::write(folder.join("images/disk"), "disk").unwrap();
    fs::write(folder.join("images/base"), "base").unwrap();
    (folder.join("images"), folder.join("secrets/key"))
}

fn args(text: &str) -> Vec<OsString> {
    text.split(' ').map(OsString::from).collect()
}

fn needs(is_monitored: bool, keeps_to_itself: bool) -> Needs {
    Needs { is_monitored, keeps_to_itself, ..Needs::default() }
}

#[test]
fn what_a_snapshot_takes_has_its_place() {
    if !is_child("what_a_snapshot_takes_has_its_place") {
        return;
    }
    files::restrict(&args("-hda disk -snapshot"), &needs(false, true)).unwrap();
    let file = crate::block::temporary_folder().join(format!("mimus-host-temporary-{}", std::process::id()));
    fs::write(&file, "").unwrap();
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_folder_for_files_of_its_own_is_made_and_can_be_written() {
    if !is_child("a_folder_for_files_of_its_own_is_made_and_can_be_written") {
        return;
    }
    let (images, secret) = folder("of-its-own");
    let own = images.join("a/b");
    let needs = Needs { folders: vec![own.clone()], ..needs(false, true) };
    if !files::restrict(&args("-accel jit"), &needs).unwrap() {
        println!("no landlock here");
        return;
    }
    fs::write(own.join("new"), "text").unwrap();
    fs::rename(own.join("new"), own.join("kept")).unwrap();
    fs::remove_file(own.join("kept")).unwrap();
    assert!(fs::read(&secret).is_err() && fs::write(images.join("a/new"), "text").is_err());
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn nothing_but_what_is_named_can_be_opened() {
    if !is_child("nothing_but_what_is_named_can_be_opened") {
        return;
    }
    let (images, secret) = folder("named");
    let (disk, base, log) = (images.join("disk"), images.join("base"), images.join("log"));
    fs::write(images.join("more"), format!("[drive]\n  file = \"{}\"\n", images.join("listed").display())).unwrap();
    fs::write(images.join("listed"), "").unwrap();
    let line = format!(
        "-readconfig {} -drive file={},format=qcow2 -append root={} -serial file:{} -qmp unix:{},server=on",
        images.join("more").display(),
        disk.display(),
        secret.display(),
        log.display(),
        images.join("socket").display()
    );
    if !files::restrict(&args(&line), &needs(false, true)).unwrap() {
        println!("no landlock here");
        return;
    }
    fs::write(&disk, "other").unwrap();
    fs::write(&log, "text").unwrap();
    fs::write(images.join("listed"), "text").unwrap();
    assert_eq!(fs::read_to_string(&base).unwrap(), "base", "what an image is based on lies beside it");
    assert!(fs::write(&base, "x").is_err() && fs::read(&secret).is_err());
    assert!(fs::write(images.join("new"), "x").is_err());
    let socket = std::os::unix::net::UnixListener::bind(images.join("socket")).unwrap();
    drop(socket);
    fs::remove_file(images.join("socket")).unwrap();
    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err(), "there is no network");
}

#[test]
fn a_monitor_names_more() {
    if !is_child("a_monitor_names_more") {
        return;
    }
    let (images, _) = folder("monitor");
    if !files::restrict(&args("-nographic"), &needs(true, true)).unwrap() {
        println!("no landlock here");
        return;
    }
    assert_eq!(fs::read_to_string(images.join("disk")).unwrap(), "disk");
    fs::write(images.join("screen.ppm"), "picture").unwrap();
    assert!(fs::read("/etc/passwd").is_err());
    std::net::TcpListener::bind("127.0.0.1:0").unwrap();
}

#[test]
fn system_calls_that_no_machine_makes_fail() {
    if !is_child("system_calls_that_no_machine_makes_fail") {
        return;
    }
    let refused = |result: std::io::Result<()>| result.unwrap_err().kind() == std::io::ErrorKind::PermissionDenied;
    calls::forbid(calls::Groups::default()).unwrap();
    assert!(refused(Command::new("/bin/true").status().map(drop)));
    assert_eq!(nix::unistd::setuid(nix::unistd::Uid::current()), Err(nix::errno::Errno::EPERM));
    assert_eq!(nix::unistd::chroot("/"), Err(nix::errno::Errno::EPERM));
    std::thread::spawn(|| fs::read("/dev/null").unwrap()).join().unwrap();
    std::os::unix::net::UnixStream::pair().unwrap();
    let packet = rustix::net::socket(rustix::net::AddressFamily::PACKET, rustix::net::SocketType::RAW, None);
    assert_eq!(packet.unwrap_err(), rustix::io::Errno::PERM);
}

#[test]
fn a_shared_folder_is_the_guests_and_no_more() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    if !is_child("a_shared_folder_is_the_guests_and_no_more") {
        return;
    }
    let (shared, secret) = folder("shared");
    let read_only = shared.parent().unwrap().join("read-only");
    fs::create_dir_all(&read_only).unwrap();
    fs::write(read_only.join("file"), "file").unwrap();
    let line = format!(
        "-fsdev local,id=a,path={},security_model=none,readonly=on -virtfs local,path={},mount_tag=t,security_model=none",
        read_only.display(),
        shared.display()
    );
    if !files::restrict(&args(&line), &needs(false, true)).unwrap() {
        println!("no landlock here");
        return;
    }
    fs::create_dir_all(shared.join("a/b")).unwrap();
    fs::write(shared.join("a/b/file"), "text").unwrap();
    fs::rename(shared.join("a/b/file"), shared.join("file")).unwrap();
    fs::hard_link(shared.join("file"), shared.join("a/link")).unwrap();
    std::os::unix::fs::symlink("file", shared.join("symbolic")).unwrap();
    fs::remove_dir(shared.join("a/b")).unwrap();
    assert_eq!(fs::read_to_string(read_only.join("file")).unwrap(), "file");
    assert!(fs::write(read_only.join("file"), "x").is_err() && fs::write(read_only.join("new"), "x").is_err());
    assert!(fs::read(&secret).is_err());
    calls::forbid(calls::Groups::default()).unwrap();
    let make = |name: &str, kind, device| mknodat(CWD, shared.join(name), kind, Mode::RUSR, device);
    make("pipe", FileType::Fifo, 0).unwrap();
    make("socket", FileType::Socket, 0).unwrap();
    assert_eq!(make("null", FileType::CharacterDevice, 0x103), Err(rustix::io::Errno::PERM));
    assert_eq!(make("disk", FileType::BlockDevice, 0x800), Err(rustix::io::Errno::PERM));
}

#[test]
fn root_becomes_another_user_in_another_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("this is not root");
        return;
    }
    if !is_child("root_becomes_another_user_in_another_root") {
        return;
    }
    let (images, secret) = folder("root");
    let mut process = Process { run_as: Some(RunAs::Name("nobody".into())), root: Some(images), ..Process::default() };
    // Names of users are looked up before their file is out of sight, for one reason or the other.
    let settling = begin(&mut process, Needs::default(), &args("-serial null")).unwrap();
    settling.settle().unwrap();
    assert!(!nix::unistd::geteuid().is_root() && nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_err());
    let groups = nix::unistd::getgroups().unwrap();
    assert!(groups.iter().all(|group| group.as_raw() != 0), "{groups:?}");
    assert!(!secret.exists() && std::path::Path::new("/disk").exists() && std::path::Path::new("disk").exists());
}

#[test]
fn named_programs_run_although_no_others_do() {
    if !is_child("named_programs_run_although_no_others_do") {
        return;
    }
    let echo = vec!["cat".to_owned()];
    let runner = Runner::start(vec![vec!["/no/such/program".into()], echo.clone()], false, || Ok(())).unwrap();
    files::restrict(&args("-nographic"), &needs(false, true)).unwrap();
    calls::forbid(calls::Groups::default()).unwrap();
    let talk = |command: &[String]| {
        let mut stream = std::os::unix::net::UnixStream::from(runner.run(command).unwrap());
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"hello").unwrap_or_default();
        stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap_or_default();
        all
    };
    assert_eq!((talk(&echo), talk(&echo)), ("hello".into(), "hello".into()));
    assert_eq!(talk(&["/no/such/program".to_owned()]), "");
    assert!(runner.run(&["true".to_owned()]).is_err(), "nobody has named it");
}
