//! A guest that asks anything of a shared folder: what is outside of it must stay as it is and never be read.

use std::os::unix::fs::symlink;

use mimus_host::config::{OtherDevices, SecurityModel, SharedFolder};
use mimus_host::share::ShareQueue;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::Folder;
use crate::input::Input;

/// What the file outside is full of.
const DECOY: &[u8] = b"nobody shares it!";
/// The most that is written to a file at once, and how far: a case costs little on the host's disk.
const FAR: u64 = 1 << 20;
/// Bytes of the longest answer.
const ROOM: usize = 1 << 16;

/// The fields of each request after its type: b, h, w, d of 1, 2, 4 and 8 bytes, f a fid, s a name, D data, n names, m a mode and o an
/// offset.
const REQUESTS: &[(u8, &str)] = &[
    (8, "f"),
    (12, "fw"),
    (14, "fswmw"),
    (16, "fssw"),
    (18, "fsmwww"),
    (20, "ffs"),
    (22, "f"),
    (24, "fd"),
    (26, "fwmwwodddd"),
    (30, "ffs"),
    (32, "fsow"),
    (40, "fow"),
    (50, "fw"),
    (52, "fbwddws"),
    (54, "fbddws"),
    (70, "ffs"),
    (72, "fsmw"),
    (74, "fsfs"),
    (76, "fsw"),
    (104, "fwssw"),
    (108, "h"),
    (110, "ffn"),
    (110, "ffn"),
    (110, "ffn"),
    (116, "fow"),
    (118, "foD"),
    (120, "f"),
    (122, "f"),
];

struct TestFolder(Folder);

impl TestFolder {
    fn new() -> TestFolder {
        let folder = TestFolder(Folder::new());
        let root = folder.0.file("root");
        std::fs::create_dir_all(root.join("a/b")).expect("a folder");
        std::fs::write(folder.0.file("decoy"), DECOY).expect("a file");
        std::fs::write(root.join("f"), "file").expect("a file");
        symlink("../decoy", root.join("link")).expect("a link");
        symlink("..", root.join("up")).expect("a link");
        mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        folder
    }

    fn name(&self, input: &mut Input) -> Vec<u8> {
        let decoy = self.0.file("decoy");
        match input.u8() % 16 {
            0 => decoy.to_str().unwrap_or_default().into(),
            1 => input.bytes(300),
            _ => input
                .pick(&[
                    "a",
                    "b",
                    "f",
                    "..",
                    ".",
                    "link",
                    "up",
                    "pipe",
                    "",
                    "../decoy",
                    "decoy",
                    "a/b",
                    "new",
                    "user.x",
                    "user.virtfs.mode",
                    "security.x",
                ])
                .into(),
        }
    }

    fn string(&self, input: &mut Input, bytes: &mut Vec<u8>) {
        let name = self.name(input);
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend(name);
    }

    /// One request, with a slip now and then.
    fn request(&self, input: &mut Input) -> Vec<u8> {
        let (kind, fields) = input.pick(REQUESTS);
        let mut bytes = vec![0, 0, 0, 0, kind, 0, 0];
        for field in fields.chars() {
            match field {
                'b' => bytes.push(input.u8()),
                'h' => bytes.extend(input.u16().to_le_bytes()),
                'f' => bytes.extend(u32::from(input.u8() % 8).to_le_bytes()),
                's' => self.string(input, &mut bytes),
                'D' => {
                    let data = input.bytes(100);
                    bytes.extend((data.len() as u32).to_le_bytes());
                    bytes.extend(data);
                }
                'n' => {
                    let count = input.u8() % 5;
                    bytes.extend(u16::from(count).to_le_bytes());
                    (0..count).for_each(|_| self.string(input, &mut bytes));
                }
                'o' => {
                    let somewhere = input.below(FAR);
                    bytes.extend(input.pick(&[0, 3, somewhere, u64::MAX]).to_le_bytes());
                }
                'd' => bytes.extend(input.value().to_le_bytes()),
                'm' => {
                    let kind =
                        input.pick(&[0u32, 0o010000, 0o020000, 0o040000, 0o100000, 0o120000, 0o140000, 0o170000]);
                    // What cannot be removed by its owner would stay behind.
                    bytes.extend((kind | 0o700 | u32::from(input.u16() % 0o1000)).to_le_bytes());
                }
                _ => {
                    let length = input.length();
                    bytes.extend(input.pick(&[0, 1, 2, 0o101, 0o1102, 0x200, u32::MAX, length]).to_le_bytes());
                }
            }
        }
        if input.one_in(20) {
            bytes.truncate(input.below(bytes.len() as u64) as usize);
        }
        let size = if input.one_in(20) { input.length() } else { bytes.len() as u32 };
        bytes.iter_mut().zip(size.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// Asks one thing after another.
pub fn run(input: &mut Input) {
    let folder = TestFolder::new();
    let config = SharedFolder {
        id: "fs".into(),
        path: folder.0.file("root"),
        model: input.pick(&[SecurityModel::None, SecurityModel::Passthrough, SecurityModel::MappedXattr]),
        read_only: input.one_in(8),
        writes_through: false,
        file_mode: 0o600,
        directory_mode: 0o700,
        devices: OtherDevices::Remap,
        option: "-fsdev local".into(),
    };
    let mut server = ShareQueue::open(&config).expect("a folder");
    let version = b"\x15\0\0\0\x64\xff\xff\0\0\x01\0\x08\x009P2000.L";
    let mut attach = b"\x17\0\0\0\x68\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0".to_vec();
    attach.extend(rustix::process::geteuid().as_raw().to_le_bytes());
    server.serve(version, ROOM);
    server.serve(&attach, ROOM);
    while !input.is_over() {
        let request = folder.request(input);
        let room = if input.one_in(10) { input.u16().into() } else { ROOM };
        let answer = server.serve(&request, room);
        assert!(answer.len() <= room.max(11), "an answer of {} bytes for {room}", answer.len());
        assert!(!answer.windows(DECOY.len()).any(|part| part == DECOY), "what is outside was read");
        if input.one_in(100) {
            server.serve(version, ROOM);
            server.serve(&attach, ROOM);
        }
    }
    assert_eq!(std::fs::read(folder.0.file("decoy")).expect("the file is there"), DECOY, "what is outside was changed");
    let outside = std::fs::read_dir(&folder.0.0).expect("the folder is there").count();
    assert_eq!(outside, 2, "something was made outside");
}
