//! A TFTP server for the files below one folder, to be read only (RFC 1350; its options by RFC 2347, 2348 and 2349).
//!
//! It keeps no timers: a client that misses a block acknowledges the one before once more, and gets the next again.

use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The server's port.
pub(super) const PORT: u16 = 69;

/// Transfers at a time, at most; the one that is silent for the longest time makes room.
const TRANSFERS: usize = 32;
/// How long a transfer is kept whose client is silent.
const LIFETIME: Duration = Duration::from_secs(120);
/// Bytes of a block, unless the client asks for another size (RFC 1350, 2).
const BLOCK: u16 = 512;
/// The largest block that needs no fragments: what a packet has beside its headers (IPv4, UDP, and 4 bytes).
const LARGEST_BLOCK: u16 = 1500 - 20 - 8 - 4;
/// The smallest that a client may ask for (RFC 2348).
const SMALLEST_BLOCK: u16 = 8;

/// Kinds of packets (RFC 1350, 5; RFC 2347).
mod opcode {
    pub(super) const READ: u16 = 1;
    pub(super) const WRITE: u16 = 2;
    pub(super) const DATA: u16 = 3;
    pub(super) const ACK: u16 = 4;
    pub(super) const ERROR: u16 = 5;
    pub(super) const OPTIONS_ACK: u16 = 6;
}

/// Why a client gets nothing: the number and the text of the error (RFC 1350, "Error Codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal(u16, &'static str);

const NOT_FOUND: Refusal = Refusal(1, "file not found");
const DENIED: Refusal = Refusal(2, "access violation");
const ILLEGAL: Refusal = Refusal(4, "illegal operation");

impl Refusal {
    fn packet(self) -> Vec<u8> {
        let Refusal(number, text) = self;
        [&opcode::ERROR.to_be_bytes()[..], &number.to_be_bytes(), text.as_bytes(), &[0]].concat()
    }
}

/// A file on its way to a client.
#[derive(Debug)]
struct Transfer {
    client: SocketAddrV4,
    file: File,
    block: u16,
    /// Blocks that the client has acknowledged.
    acknowledged: u64,
    /// The next block is the last one.
    at_end: bool,
    last: Instant,
}

impl Transfer {
    /// The block behind those that were acknowledged.
    fn data(&mut self) -> Vec<u8> {
        let mut packet = [opcode::DATA, (self.acknowledged + 1) as u16].map(u16::to_be_bytes).concat();
        let mut block = vec![0; self.block.into()];
        let mut len = 0;
        while let Some(rest) = block.get_mut(len..).filter(|rest| !rest.is_empty()) {
            let at = self.acknowledged * u64::from(self.block) + len as u64;
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!("-netdev user: tftp: {error}");
                    return Refusal(0, "the file cannot be read").packet();
                }
            }
        }
        self.at_end = len < block.len();
        packet.extend_from_slice(block.get(..len).unwrap_or_default());
        packet
    }
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    root: OwnedFd,
    transfers: Vec<Transfer>,
}

impl Server {
    /// A server of what is below `folder`.
    ///
    /// # Errors
    ///
    /// When it is no folder that can be opened.
    pub(super) fn open(folder: &Path) -> io::Result<Server> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Server { root: rustix::fs::open(folder, flags, Mode::empty())?, transfers: Vec::new() })
    }

    /// The answer to a packet of `client`.
    pub(super) fn answer(&mut self, client: SocketAddrV4, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (opcode, rest) = packet.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*opcode) {
            opcode::READ => Some(self.read(client, rest, now).unwrap_or_else(Refusal::packet)),
            opcode::WRITE => Some(DENIED.packet()),
            opcode::ACK => self.acknowledge(client, rest, now),
            opcode::ERROR => {
                self.transfers.retain(|transfer| transfer.client != client);
                None
            }
            _ => Some(ILLEGAL.packet()),
        }
    }

    /// A file that a client names, and its bytes.
    fn file(&self, name: &[u8]) -> Result<(File, u64), Refusal> {
        let start = name.iter().position(|&byte| byte != b'/').unwrap_or(name.len());
        let name = name.get(start..).unwrap_or_default();
        if name.is_empty() || name.split(|&byte| byte == b'/').any(|part| part == b"..") {
            return Err(DENIED);
        }
        // Without waiting for somebody at the other end of a pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.root, name, flags, Mode::empty(), inside).map_err(|error| {
            tracing::debug!("tftp: {}: {error}", String::from_utf8_lossy(name));
            if error == Errno::NOENT { NOT_FOUND } else { DENIED }
        })?;
        let file = File::from(file);
        let data = file.metadata().map_err(|_| DENIED)?;
        if data.is_file() { Ok((file, data.len())) } else { Err(DENIED) }
    }

    /// A client wants to read a file: name, mode, and options with their values, each with a zero at its end.
    fn read(&mut self, client: SocketAddrV4, request: &[u8], now: Instant) -> Result<Vec<u8>, Refusal> {
        let request = request.strip_suffix(&[0]).ok_or(ILLEGAL)?;
        let mut fields = request.split(|&byte| byte == 0);
        let (name, mode) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if !mode.eq_ignore_ascii_case(b"octet") {
            return Err(Refusal(4, "the transfer mode is not octet"));
        }
        let (file, size) = self.file(name)?;
        let (mut block, mut accepted) = (BLOCK, Vec::new());
        while let (Some(option), Some(value)) = (fields.next(), fields.next()) {
            let value: Option<u64> = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            let answer = match option.to_ascii_lowercase().as_slice() {
                b"blksize" => value.filter(|&size| size >= SMALLEST_BLOCK.into()).map(|size| {
                    block = size.min(LARGEST_BLOCK.into()) as u16;
                    block.into()
                }),
                b"tsize" => Some(size),
                _ => None,
            };
            if let Some(answer) = answer.filter(|_| accepted.len() < 2) {
                accepted.push([option, &[0], answer.to_string().as_bytes(), &[0]].concat());
            }
        }
        self.transfers.retain(|old| old.client != client && old.last + LIFETIME > now);
        if self.transfers.len() == TRANSFERS {
            let oldest = self.transfers.iter().enumerate().min_by_key(|(_, transfer)| transfer.last);
            if let Some(index) = oldest.map(|(index, _)| index) {
                self.transfers.swap_remove(index);
            }
        }
        let mut transfer = Transfer { client, file, block, acknowledged: 0, at_end: false, last: now };
        let answer = match accepted.is_empty() {
            true => transfer.data(),
            false => [opcode::OPTIONS_ACK.to_be_bytes().to_vec(), accepted.concat()].concat(),
        };
        self.transfers.push(transfer);
        Ok(answer)
    }

    /// A client has a block; the next one.
    fn acknowledge(&mut self, client: SocketAddrV4, number: &[u8], now: Instant) -> Option<Vec<u8>> {
        let number = u16::from_be_bytes(*number.first_chunk()?);
        let index = self.transfers.iter().position(|transfer| transfer.client == client)?;
        let transfer = self.transfers.get_mut(index)?;
        transfer.last = now;
        if number == (transfer.acknowledged + 1) as u16 {
            if transfer.at_end {
                self.transfers.swap_remove(index);
                return None;
            }
            transfer.acknowledged += 1;
        } else if number != transfer.acknowledged as u16 {
            return None;
        }
        Some(transfer.data())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 2000);

    /// A folder with a file, links, a pipe and a secret beside it.
    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("mimus-tftp-{name}-{}", std::process::id()));
        let root = folder.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(folder.join("secret"), "secret").unwrap();
        std::fs::write(root.join("sub/boot"), [7; 1100]).unwrap();
        for (to, link) in [("sub/boot", "inside"), ("../secret", "outside"), ("/etc/passwd", "absolute")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        root
    }

    fn request(opcode: u16, fields: &[&str]) -> Vec<u8> {
        let fields: String = fields.iter().map(|field| format!("{field}\0")).collect();
        [&opcode.to_be_bytes()[..], fields.as_bytes()].concat()
    }

    fn ack(number: u16) -> Vec<u8> {
        [opcode::ACK, number].map(u16::to_be_bytes).concat()
    }

    #[test]
    fn a_file_comes_block_by_block() {
        let root = folder("blocks");
        let (mut server, now) = (Server::open(&root).unwrap(), Instant::now());
        let mut ask = |packet: &[u8]| server.answer(CLIENT, packet, now);
        let block = |number, len| [[opcode::DATA, number].map(u16::to_be_bytes).concat(), vec![7; len]].concat();
        assert_eq!(ask(&request(1, &["/sub/boot", "OCTET"])), Some(block(1, 512)));
        assert_eq!(ask(&ack(0)), Some(block(1, 512)), "the first was lost");
        assert_eq!(ask(&ack(1)), Some(block(2, 512)));
        assert_eq!((ask(&ack(7)), ask(&ack(1))), (None, Some(block(2, 512))));
        assert_eq!(ask(&ack(2)), Some(block(3, 76)));
        assert_eq!((ask(&ack(3)), ask(&ack(3))), (None, None), "it is over");
        std::fs::remove_dir_all(root.parent().unwrap()).unwrap();
    }

    #[test]
    fn sizes_are_agreed_on() {
        let root = folder("sizes");
        std::fs::write(root.join("empty"), "").unwrap();
        let (mut server, now) = (Server::open(&root).unwrap(), Instant::now());
        let mut ask = |packet: &[u8]| server.answer(CLIENT, packet, now).unwrap();
        let fields = ["inside", "octet", "blksize", "9000", "windowsize", "4", "tsize", "0"];
        assert_eq!(ask(&request(1, &fields)), request(6, &["blksize", "1468", "tsize", "1100"]));
        assert_eq!(ask(&ack(0)).len(), 4 + 1100);
        assert_eq!(ask(&request(1, &["inside", "octet", "blksize", "7"])).len(), 4 + 512);
        assert_eq!(ask(&request(1, &["empty", "octet"])), [0, 3, 0, 1]);
        std::fs::remove_dir_all(root.parent().unwrap()).unwrap();
    }

    #[test]
    fn nothing_but_files_below_the_folder_is_read() {
        let root = folder("names");
        let (mut server, now) = (Server::open(&root).unwrap(), Instant::now());
        let mut ask = |packet: Vec<u8>| server.answer(CLIENT, &packet, now);
        for name in ["../secret", "sub/../../secret", "outside", "absolute", "sub", "pipe", "", "/", ".."] {
            assert_eq!(ask(request(1, &[name, "octet"])), Some(DENIED.packet()), "{name}");
        }
        assert_eq!(ask(request(1, &["no", "octet"])), Some(NOT_FOUND.packet()));
        assert_eq!(ask(request(2, &["new", "octet"])), Some(DENIED.packet()), "a write");
        assert!(!root.join("new").exists());
        for wrong in [request(1, &["inside", "netascii"]), request(1, &["inside"]), request(9, &[]), vec![0, 1, 65]] {
            assert_eq!(ask(wrong).unwrap()[..2], [0, 5]);
        }
        assert_eq!((ask(vec![0]), ask(vec![0, 4, 0]), ask(ack(1))), (None, None, None));
        std::fs::remove_dir_all(root.parent().unwrap()).unwrap();
    }

    #[test]
    fn transfers_are_bounded() {
        let root = folder("many");
        let (mut server, now) = (Server::open(&root).unwrap(), Instant::now());
        for port in 1..200 {
            let client = SocketAddrV4::new(*CLIENT.ip(), port);
            let at = now + Duration::from_millis(port.into());
            assert!(server.answer(client, &request(1, &["inside", "octet"]), at).is_some());
        }
        assert_eq!(server.transfers.len(), TRANSFERS);
        assert!(server.transfers.iter().all(|transfer| usize::from(transfer.client.port()) >= 200 - TRANSFERS));
        server.answer(CLIENT, &request(1, &["inside", "octet"]), now + 2 * LIFETIME);
        assert_eq!(server.transfers.len(), 1, "who is silent is forgotten");
        std::fs::remove_dir_all(root.parent().unwrap()).unwrap();
    }
}
