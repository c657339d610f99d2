//! A client of the tests' own in front of folders of the tests' own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::*;
use crate::config::{OtherDevices, SecurityModel};

/// A folder that goes with the value: what is shared is in `root`, and beside it is what nobody may reach.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new(name: &str) -> TestFolder {
        let path = std::env::temp_dir().join(format!("mimus-share-{}-{name}", std::process::id()));
        // What a test that failed has left behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root/sub")).unwrap();
        fs::write(path.join("secret"), SECRET).unwrap();
        fs::write(path.join("root/file"), "contents").unwrap();
        TestFolder(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn config(&self, model: SecurityModel) -> SharedFolder {
        SharedFolder {
            id: "fs".into(),
            path: self.root(),
            model,
            read_only: false,
            writes_through: false,
            file_mode: 0o600,
            directory_mode: 0o700,
            devices: OtherDevices::Warn,
            option: "-fsdev local".into(),
        }
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        assert_eq!(fs::read_to_string(self.0.join("secret")).unwrap(), SECRET);
        // What is left behind in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SECRET: &str = "what is beside the folder";
const ROOM: usize = 1 << 16;

/// A field of a request.
enum F<'a> {
    B(u8),
    H(u16),
    W(u32),
    D(u64),
    S(&'a [u8]),
    Data(&'a [u8]),
}
use F::*;

fn message(kind: u8, fields: &[F]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind, 5, 0];
    for field in fields {
        match *field {
            B(value) => bytes.push(value),
            H(value) => bytes.extend(value.to_le_bytes()),
            W(value) => bytes.extend(value.to_le_bytes()),
            D(value) => bytes.extend(value.to_le_bytes()),
            S(value) => {
                bytes.extend((value.len() as u16).to_le_bytes());
                bytes.extend(value);
            }
            Data(value) => {
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(value);
            }
        }
    }
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes
}

struct Client(Server);

/// An answer's fields, or the number of an error.
type Answer = std::result::Result<Vec<u8>, i32>;

impl Client {
    /// With the folder itself as fid 0.
    fn new(config: &SharedFolder, descriptors: usize) -> Client {
        let mut client = Client(Server::new(config, Budget::new(descriptors)).unwrap());
        client.ask(100, &[W(1 << 16), S(b"9P2000.L")]).unwrap();
        client.ask(104, &[W(0), W(u32::MAX), S(b"me"), S(b""), W(rustix::process::geteuid().as_raw())]).unwrap();
        client
    }

    fn of(folder: &TestFolder) -> Client {
        Client::new(&folder.config(SecurityModel::None), 1000)
    }

    fn ask(&mut self, kind: u8, fields: &[F]) -> Answer {
        let answer = self.0.serve(&message(kind, fields), ROOM);
        assert_eq!(answer[..4], (answer.len() as u32).to_le_bytes());
        assert_eq!(answer[5..7], [5, 0]);
        match answer[4] {
            7 => Err(i32::from_le_bytes(answer[7..].try_into().unwrap())),
            answered => {
                assert_eq!(answered, kind + 1);
                Ok(answer[7..].to_vec())
            }
        }
    }

    /// Walks from the folder itself; how far that went.
    fn walk(&mut self, new: u32, names: &[&[u8]]) -> std::result::Result<u16, i32> {
        let mut fields = vec![W(0), W(new), H(names.len() as u16)];
        fields.extend(names.iter().map(|name| S(name)));
        self.ask(110, &fields).map(|answer| u16::from_le_bytes([answer[0], answer[1]]))
    }

    fn open(&mut self, fid: u32, flags: u32) -> std::result::Result<(), i32> {
        self.ask(12, &[W(fid), W(flags)]).map(|_| ())
    }

    fn read(&mut self, fid: u32) -> std::result::Result<Vec<u8>, i32> {
        self.ask(116, &[W(fid), D(0), W(ROOM as u32)]).map(|answer| answer[4..].to_vec())
    }

    fn create(&mut self, fid: u32, name: &[u8], flags: u32, mode: u32) -> Answer {
        self.ask(14, &[W(fid), S(name), W(flags), W(mode), W(rustix::process::getegid().as_raw())])
    }

    /// Mode, owner, group and the device that it is.
    fn stat(&mut self, fid: u32) -> (u32, u32, u32, u64) {
        let answer = self.ask(24, &[W(fid), D(0x7ff)]).unwrap();
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        (word(21), word(25), word(29), u64::from(word(41)) | u64::from(word(45)) << 32)
    }

    /// Names of a directory, by answers of so many bytes.
    fn names(&mut self, fid: u32, count: u32) -> Vec<Vec<u8>> {
        let (mut offset, mut names) = (0, Vec::new());
        loop {
            let answer = self.ask(40, &[W(fid), D(offset), W(count)]).unwrap();
            let mut rest = &answer[4..];
            assert!(rest.len() <= count as usize);
            if rest.is_empty() {
                names.sort();
                return names;
            }
            while !rest.is_empty() {
                offset = u64::from_le_bytes(rest[13..21].try_into().unwrap());
                let len = usize::from(u16::from_le_bytes([rest[22], rest[23]]));
                names.push(rest[24..24 + len].to_vec());
                rest = &rest[24 + len..];
            }
        }
    }
}

const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EBADF: i32 = 9;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
const EROFS: i32 = 30;
const ENOTDIR: i32 = 20;
const EPROTO: i32 = 71;
const EOPNOTSUPP: i32 = 95;

#[test]
fn files_are_read_and_written() {
    let folder = TestFolder::new("files");
    let mut client = Client::of(&folder);
    assert_eq!(client.walk(1, &[b"file"]), Ok(1));
    assert_eq!(client.read(1), Err(EBADF));
    client.open(1, 2).unwrap();
    assert_eq!(client.read(1).unwrap(), b"contents");
    assert_eq!(client.ask(118, &[W(1), D(3), Data(b"---")]).unwrap(), 3u32.to_le_bytes());
    client.walk(2, &[b"sub"]).unwrap();
    client.create(2, b"new", 0o101, 0o640).unwrap();
    client.ask(118, &[W(2), D(0), Data(b"new")]).unwrap();
    client.ask(50, &[W(2), W(0)]).unwrap();
    assert_eq!(fs::read(folder.root().join("file")).unwrap(), b"con---ts");
    assert_eq!(fs::read(folder.root().join("sub/new")).unwrap(), b"new");
    assert_eq!(folder.root().join("sub/new").metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    client.ask(120, &[W(1)]).unwrap();
    assert_eq!(client.read(1), Err(EBADF));
}

/// What a file is after it was renamed and removed: still the same.
#[test]
fn a_fid_is_a_file_and_not_a_name() {
    let folder = TestFolder::new("moved");
    let mut client = Client::of(&folder);
    client.walk(1, &[b"file"]).unwrap();
    client.ask(74, &[W(0), S(b"file"), W(0), S(b"other")]).unwrap();
    fs::write(folder.root().join("file"), "another").unwrap();
    client.open(1, 0).unwrap();
    fs::remove_file(folder.root().join("other")).unwrap();
    assert_eq!((client.read(1).unwrap(), client.stat(1).0 & 0o170000), (b"contents".to_vec(), 0o100000));
}

#[test]
fn nothing_outside_is_reached_by_names() {
    let folder = TestFolder::new("names");
    symlink("../secret", folder.root().join("relative")).unwrap();
    symlink(folder.0.join("secret"), folder.root().join("absolute")).unwrap();
    symlink("..", folder.root().join("up")).unwrap();
    let mut client = Client::of(&folder);
    let secret = folder.0.join("secret");
    let rows: [(&[&[u8]], _); 9] = [
        (&[b"..", b"secret"], Ok(1)),
        (&[b"sub", b"..", b"..", b"..", b"secret"], Ok(4)),
        (&[b"../secret"], Err(ENOENT)),
        (&[secret.to_str().unwrap().as_bytes()], Err(ENOENT)),
        (&[b"up", b"secret"], Ok(1)),
        (&[b"file", b".."], Ok(1)),
        (&[b"sub\0/.."], Err(ENOENT)),
        (&[b""], Err(ENOENT)),
        (&[b"sub", b".", b"..", b"file"], Ok(4)),
    ];
    for (number, (names, expected)) in (10..).zip(rows) {
        assert_eq!(client.walk(number, names), expected, "{names:?}");
        let is_there = expected == Ok(names.len() as u16);
        assert_eq!(client.stat_of(number).is_ok(), is_there, "{names:?}");
    }
    for (fid, name) in [(1, &b"relative"[..]), (2, b"absolute"), (3, b"up")] {
        client.walk(fid, &[name]).unwrap();
        assert_eq!(client.open(fid, 0), Err(ENXIO));
        assert_eq!(client.create(fid, b"secret", 0o1101, 0o600), Err(ENOTDIR));
    }
    // By all requests that take names.
    let name = || S(b"../secret");
    let all = [
        client.create(0, b"../secret", 0o1101, 0o600),
        client.create(0, b"relative", 0o1101, 0o600),
        client.ask(16, &[W(0), name(), S(b"x"), W(0)]),
        client.ask(18, &[W(0), name(), W(0o100644), W(0), W(0), W(0)]),
        client.ask(70, &[W(0), W(0), name()]),
        client.ask(72, &[W(0), S(b".."), W(0o755), W(0)]),
        client.ask(74, &[W(0), name(), W(0), S(b"file")]),
        client.ask(74, &[W(0), S(b"file"), W(0), name()]),
        client.ask(76, &[W(0), name(), W(0)]),
        client.ask(76, &[W(0), S(b".."), W(0x200)]),
    ];
    assert_eq!(all.map(|answer| answer.is_err()), [true; 10]);
}

impl Client {
    fn stat_of(&mut self, fid: u32) -> Answer {
        self.ask(24, &[W(fid), D(0)])
    }
}

/// A directory that the host has put elsewhere leads back to where it was found, and not above where it is.
#[test]
fn nothing_outside_is_reached_while_the_host_renames() {
    let folder = TestFolder::new("renamed");
    fs::create_dir(folder.root().join("sub/deeper")).unwrap();
    let mut client = Client::of(&folder);
    client.walk(1, &[b"sub", b"deeper"]).unwrap();
    fs::rename(folder.root().join("sub/deeper"), folder.0.join("moved")).unwrap();
    for (new, names) in [(2, vec![&b".."[..], b"secret"]), (3, vec![b"..", b"..", b"secret"])] {
        let mut fields = vec![W(1), W(new), H(names.len() as u16)];
        fields.extend(names.iter().map(|name| S(name)));
        client.ask(110, &fields).unwrap();
        assert_eq!(client.stat_of(new), Err(EBADF));
    }
    // A link takes the place of a directory that is held.
    client.walk(4, &[b"sub"]).unwrap();
    fs::rename(folder.root().join("sub"), folder.root().join("was")).unwrap();
    symlink(&folder.0, folder.root().join("sub")).unwrap();
    client.create(4, b"made", 0o101, 0o600).unwrap();
    assert!(folder.root().join("was/made").exists() && !folder.0.join("made").exists());
    assert_eq!(client.walk(5, &[b"sub", b"secret"]), Ok(1));
}

#[test]
fn what_would_wait_is_not_opened() {
    let folder = TestFolder::new("pipes");
    let mut client = Client::of(&folder);
    let gid = rustix::process::getegid().as_raw();
    client.ask(18, &[W(0), S(b"pipe"), W(0o010600), W(0), W(0), W(gid)]).unwrap();
    client.ask(18, &[W(0), S(b"socket"), W(0o140600), W(0), W(0), W(gid)]).unwrap();
    assert_eq!(client.ask(18, &[W(0), S(b"null"), W(0o020600), W(1), W(3), W(gid)]), Err(EPERM));
    for (fid, name) in [(1, &b"pipe"[..]), (2, b"socket")] {
        client.walk(fid, &[name]).unwrap();
        assert_eq!([client.open(fid, 0), client.open(fid, 1), client.open(fid, 2)], [Err(ENXIO); 3]);
        assert_eq!(client.create(0, name, 0o101, 0o600), Err(ENXIO));
    }
}

#[test]
fn the_mapped_model_keeps_what_the_guest_says_beside_the_files() {
    let folder = TestFolder::new("mapped");
    let config = folder.config(SecurityModel::MappedXattr);
    let mut client = Client::new(&config, 1000);
    let path = |name: &str| folder.root().join(name);
    client.ask(18, &[W(0), S(b"disk"), W(0o060640), W(8), W(17), W(7)]).unwrap();
    client.walk(1, &[b"disk"]).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(client.stat(1), (0o060640, uid, 7, 8 << 8 | 17));
    assert_eq!(path("disk").metadata().unwrap().mode(), 0o100600);
    client.ask(16, &[W(0), S(b"link"), S(b"../secret"), W(7)]).unwrap();
    client.walk(2, &[b"link"]).unwrap();
    assert_eq!((client.stat(2).0, client.ask(22, &[W(2)]).unwrap()), (0o120777, b"\x09\0../secret".to_vec()));
    assert_eq!(fs::read(path("link")).unwrap(), b"../secret");
    client.ask(72, &[W(0), S(b"dir"), W(0o1777), W(7)]).unwrap();
    client.walk(3, &[b"dir"]).unwrap();
    assert_eq!((client.stat(3).0, path("dir").metadata().unwrap().mode()), (0o041777, 0o040700));
    // Owners and permissions that only the guest knows.
    client.walk(4, &[b"file"]).unwrap();
    let before = path("file").metadata().unwrap();
    let set = |valid| [W(4), W(valid), W(0o4711), W(12), W(34), D(0), D(0), D(0), D(0), D(0)];
    client.ask(26, &set(7)).unwrap();
    assert_eq!(client.stat(4), (0o104711, 12, 34, 0));
    let after = path("file").metadata().unwrap();
    assert_eq!((before.mode(), before.uid(), before.gid()), (after.mode(), after.uid(), after.gid()));
    let mut kept = [0; 4];
    assert_eq!(rustix::fs::getxattr(path("file"), "user.virtfs.uid", &mut kept), Ok(4));
    assert_eq!(u32::from_le_bytes(kept), 12);
    // Nor does the guest see how they are kept.
    assert_eq!(client.ask(30, &[W(4), W(5), S(b"user.virtfs.mode")]), Err(61));
    assert_eq!(client.ask(30, &[W(4), W(5), S(b"")]).unwrap(), 0u64.to_le_bytes());
    assert_eq!(client.ask(32, &[W(4), S(b"user.virtfs.mode"), D(4), W(0)]), Err(13));
    // A kind that is none for a directory is not believed.
    rustix::fs::setxattr(path("dir"), "user.virtfs.mode", &0o120777u32.to_le_bytes(), rustix::fs::XattrFlags::empty())
        .unwrap();
    assert_eq!(client.stat(3).0, 0o040777);
}

#[test]
fn extended_attributes_of_users_are_the_hosts() {
    let folder = TestFolder::new("attributes");
    let mut client = Client::of(&folder);
    client.walk(1, &[b"file"]).unwrap();
    client.walk(2, &[b"file"]).unwrap();
    client.ask(32, &[W(2), S(b"user.key"), D(5), W(0)]).unwrap();
    assert_eq!(client.ask(118, &[W(2), D(0), Data(b"too long")]), Err(28));
    client.ask(118, &[W(2), D(0), Data(b"val")]).unwrap();
    client.ask(118, &[W(2), D(3), Data(b"ue")]).unwrap();
    client.ask(120, &[W(2)]).unwrap();
    assert_eq!(client.ask(30, &[W(1), W(3), S(b"user.key")]).unwrap(), 5u64.to_le_bytes());
    assert_eq!(client.read(3).unwrap(), b"value");
    client.ask(30, &[W(1), W(4), S(b"")]).unwrap();
    assert_eq!(client.read(4).unwrap(), b"user.key\0");
    for name in [&b"security.capability"[..], b"trusted.x", b"system.posix_acl_access"] {
        assert_eq!(client.ask(30, &[W(1), W(5), S(name)]), Err(EOPNOTSUPP));
    }
    assert_eq!(client.ask(32, &[W(1), S(b"user.huge"), D(1 << 40), W(0)]), Err(7));
    // One that was not written to its end is not set; an empty one is removed.
    client.walk(6, &[b"file"]).unwrap();
    client.ask(32, &[W(6), S(b"user.half"), D(5), W(0)]).unwrap();
    assert_eq!(client.ask(120, &[W(6)]), Err(EINVAL));
    client.walk(7, &[b"file"]).unwrap();
    client.ask(32, &[W(7), S(b"user.key"), D(0), W(2)]).unwrap();
    client.ask(120, &[W(7)]).unwrap();
    assert_eq!(client.ask(30, &[W(1), W(8), S(b"user.key")]), Err(61));
}

#[test]
fn a_read_only_folder_stays_as_it_is() {
    let folder = TestFolder::new("readonly");
    let mut client = Client::new(&SharedFolder { read_only: true, ..folder.config(SecurityModel::None) }, 1000);
    client.walk(1, &[b"file"]).unwrap();
    let zeros = || [D(0), D(0), D(0), D(0)];
    let set: Vec<F> = [W(1), W(8), W(0), W(0), W(0), D(0)].into_iter().chain(zeros()).collect();
    let all = [
        client.open(1, 1).map(|()| vec![]),
        client.open(1, 2).map(|()| vec![]),
        client.open(1, 0o1000).map(|()| vec![]),
        client.create(0, b"new", 0o101, 0o600),
        client.create(0, b"file", 0o101, 0o600),
        client.ask(16, &[W(0), S(b"new"), S(b"x"), W(0)]),
        client.ask(18, &[W(0), S(b"new"), W(0o100644), W(0), W(0), W(0)]),
        client.ask(20, &[W(1), W(0), S(b"new")]),
        client.ask(26, &set),
        client.ask(32, &[W(1), S(b"user.key"), D(5), W(0)]),
        client.ask(70, &[W(0), W(1), S(b"new")]),
        client.ask(72, &[W(0), S(b"new"), W(0o755), W(0)]),
        client.ask(74, &[W(0), S(b"file"), W(0), S(b"new")]),
        client.ask(76, &[W(0), S(b"file"), W(0)]),
        client.ask(122, &[W(1)]),
    ];
    assert_eq!(all, [const { Err(EROFS) }; 15]);
    client.walk(1, &[b"file"]).unwrap();
    client.open(1, 0).unwrap();
    assert_eq!(client.read(1).unwrap(), b"contents");
    assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 2);
}

#[test]
fn a_client_has_no_more_than_its_share_of_descriptors() {
    let folder = TestFolder::new("descriptors");
    let mut client = Client::new(&folder.config(SecurityModel::None), 20);
    let got: Vec<_> = (1..40).map(|fid| client.walk(fid, &[b"file"])).collect();
    let count = got.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((count, got[38]), (9, Err(EMFILE)));
    assert_eq!(client.open(1, 0), Err(EMFILE));
    // A walk holds what it has gone through only as long as it needs it.
    client.ask(120, &[W(9)]).unwrap();
    assert_eq!(client.walk(9, &[b"sub", b"..", b"file"]), Ok(3));
    client.ask(120, &[W(9)]).unwrap();
    client.ask(120, &[W(8)]).unwrap();
    client.open(1, 0).unwrap();
    client.ask(100, &[W(1 << 16), S(b"9P2000.L")]).unwrap();
    client.ask(104, &[W(0), W(u32::MAX), S(b""), S(b""), W(0)]).unwrap();
    assert_eq!(client.walk(1, &[b"file"]), Ok(1));
    // Attributes that are open are bytes.
    rustix::fs::setxattr(folder.root().join("file"), "user.a", b"a", rustix::fs::XattrFlags::empty()).unwrap();
    let mut client = Client::of(&folder);
    client.walk(1, &[b"file"]).unwrap();
    let opened = (2..400).filter(|fid| client.ask(30, &[W(1), W(*fid), S(b"user.a")]).is_ok()).count();
    assert_eq!(opened, 256);
}

/// Each directory is held by the one in it, so the last to be given up takes all others with it.
#[test]
fn folders_in_folders_need_no_stack() {
    const DEPTH: u32 = 1000;
    let folder = TestFolder::new("deep");
    let config = folder.config(SecurityModel::None);
    let deep = move || {
        let mut client = Client::new(&config, 10_000);
        client.walk(1, &[]).unwrap();
        for _ in 0..DEPTH {
            client.ask(72, &[W(1), S(b"d"), W(0o755), W(rustix::process::getegid().as_raw())]).unwrap();
            client.ask(110, &[W(1), W(1), H(1), S(b"d")]).unwrap();
        }
        client.ask(120, &[W(1)]).unwrap();
        assert_eq!(client.walk(1, &[b"d", b"d", b".."]), Ok(3));
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(deep).unwrap().join().unwrap();
}

#[test]
fn answers_fit_where_they_go() {
    let folder = TestFolder::new("sizes");
    fs::write(folder.root().join("file"), vec![7; 100_000]).unwrap();
    let mut client = Client::of(&folder);
    client.walk(1, &[b"file"]).unwrap();
    client.open(1, 0).unwrap();
    let huge = message(116, &[W(1), D(0), W(u32::MAX)]);
    for (room, len) in [(1 << 20, 1 << 16), (1000, 1000), (11, 11), (10, 11), (7, 11)] {
        assert_eq!(client.0.serve(&huge, room).len(), len, "{room}");
    }
    assert_eq!(client.ask(116, &[W(1), D(u64::MAX), W(1)]), Err(EINVAL));
    // An answer without room is said to be too long.
    assert_eq!(client.0.serve(&message(24, &[W(1), D(0)]), 100)[4..7], [7, 5, 0]);
    // No name of an answer is cut.
    for number in 0..300 {
        fs::write(folder.root().join(format!("sub/a-file-with-the-number-{number}")), "").unwrap();
    }
    client.walk(2, &[b"sub"]).unwrap();
    client.open(2, 0o200000).unwrap();
    let (few, many) = (client.names(2, 200), client.names(2, 60_000));
    assert_eq!((few.len(), few == many), (302, true));
    assert_eq!(client.ask(40, &[W(2), D(0), W(10)]).unwrap(), [0; 4]);
}

#[test]
fn what_is_no_request_is_refused() {
    let folder = TestFolder::new("garbage");
    let mut server = Server::new(&folder.config(SecurityModel::None), Budget::new(100)).unwrap();
    let code = |answer: Vec<u8>| (answer[4] == 7).then(|| i32::from_le_bytes(answer[7..].try_into().unwrap()));
    assert_eq!(code(server.serve(&message(120, &[W(0)]), ROOM)), Some(EPROTO));
    let unknown = server.serve(&message(100, &[W(1 << 16), S(b"9P2000.u")]), ROOM);
    assert_eq!(unknown[7..], *b"\0\0\x01\0\x07\0unknown");
    assert_eq!(code(server.serve(&message(100, &[W(100), S(b"9P2000.L")]), ROOM)), Some(90));
    let longest = server.serve(&message(100, &[W(u32::MAX), S(b"9P2000.L")]), ROOM);
    assert_eq!(longest[7..11], (1u32 << 20).to_le_bytes());
    let attach = |auth| message(104, &[W(0), W(auth), S(b""), S(b""), W(0)]);
    assert_eq!(code(server.serve(&attach(3), ROOM)), Some(EOPNOTSUPP));
    assert_eq!(code(server.serve(&attach(u32::MAX), ROOM)), None);
    assert_eq!(code(server.serve(&attach(u32::MAX), ROOM)), Some(EINVAL));
    for kind in [0, 6, 102, 112, 255] {
        assert_eq!(code(server.serve(&message(kind, &[W(0)]), ROOM)), Some(EOPNOTSUPP), "{kind}");
    }
    assert_eq!(code(server.serve(&message(52, &[W(9), B(0)]), ROOM)), Some(EOPNOTSUPP));
    assert!(server.serve(b"short", ROOM).is_empty());
}

#[test]
fn names_change_by_fids_too() {
    let folder = TestFolder::new("fids");
    let mut client = Client::of(&folder);
    client.walk(1, &[b"file"]).unwrap();
    client.walk(2, &[b"sub"]).unwrap();
    client.ask(20, &[W(1), W(2), S(b"there")]).unwrap();
    client.ask(20, &[W(1), W(0), S(b"back")]).unwrap();
    assert!(folder.root().join("back").exists());
    client.ask(70, &[W(2), W(1), S(b"hard")]).unwrap();
    assert_eq!(folder.root().join("sub/hard").metadata().unwrap().nlink(), 2);
    // What has taken the name of what was found is left alone.
    client.walk(3, &[b"back"]).unwrap();
    fs::rename(folder.root().join("sub/hard"), folder.root().join("kept")).unwrap();
    fs::remove_file(folder.root().join("back")).unwrap();
    fs::write(folder.root().join("back"), "new").unwrap();
    assert_eq!(client.ask(122, &[W(3)]), Err(ENOENT));
    assert_eq!(client.ask(122, &[W(0)]), Err(16));
    assert_eq!(fs::read(folder.root().join("back")).unwrap(), b"new");
    client.ask(122, &[W(2)]).unwrap();
    assert!(!folder.root().join("sub").exists());
}

#[test]
fn other_file_systems_have_numbers_of_their_own_if_told_so() {
    let folder = TestFolder::new("devices");
    let opened = |devices| {
        let config = SharedFolder { devices, ..folder.config(SecurityModel::None) };
        folder::Folder::open(&config, Budget::new(10)).unwrap()
    };
    let own = fs::metadata(folder.root()).unwrap().dev();
    let (mut warn, mut forbid, mut remap) =
        (opened(OtherDevices::Warn), opened(OtherDevices::Forbid), opened(OtherDevices::Remap));
    assert_eq!([warn.number((own, 5)), warn.number((own + 1, 5))], [Ok(5), Ok(5)]);
    assert_eq!([forbid.number((own, 5)), forbid.number((own + 1, 5))], [Ok(5), Err(rustix::io::Errno::NODEV)]);
    assert_eq!(
        [remap.number((own, 5)), remap.number((own + 1, 5)), remap.number((own + 2, 5))],
        [Ok(5), Ok(1 << 48 | 5), Ok(2 << 48 | 5)]
    );
    assert_eq!(remap.number((own + 1, 5)), Ok(1 << 48 | 5));
}

/// A device without a machine: its messages, and the answers.
struct Guest(Answers);
type Answers = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

impl Exchange for Guest {
    fn request(&self, token: u64) -> Option<ShareRequest> {
        let message = message(100, &[W(8192 + token as u32), S(b"9P2000.L")]);
        (token != 2).then_some(ShareRequest { message, room: 100 })
    }

    fn answer(&self, token: u64, answer: &[u8]) {
        self.0.lock().unwrap().push((token, answer.get(7..11).unwrap_or_default().to_vec()));
    }
}

#[test]
fn the_thread_answers_in_order() {
    let folder = TestFolder::new("thread");
    let queue = ShareQueue::open(&folder.config(SecurityModel::None)).unwrap();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let mut backend = queue.backend();
    (1..4).for_each(|token| backend.submit(token));
    backend.reset();
    let thread = queue.start(Guest(answers.clone())).unwrap();
    while answers.lock().unwrap().len() < 3 {
        std::thread::yield_now();
    }
    drop(thread);
    let expected = [(1, 8193u32.to_le_bytes().to_vec()), (2, vec![]), (3, 8195u32.to_le_bytes().to_vec())];
    assert_eq!(*answers.lock().unwrap(), expected);
    // Nobody is left to be told.
    backend.submit(4);
}

#[test]
fn a_folder_that_is_none_is_told() {
    let folder = TestFolder::new("none");
    let mut config = folder.config(SecurityModel::None);
    config.path = folder.root().join("file");
    let error = ShareQueue::open(&config).map(|_| ()).unwrap_err();
    assert!(format!("{error:#}").starts_with("-fsdev local: cannot open the folder '"), "{error:#}");
    assert!(Path::new(&config.path).exists());
}
