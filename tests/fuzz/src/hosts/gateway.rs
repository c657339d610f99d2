//! A guest that sends the gateway frames of any kind. Whatever they say they go to, they go no further than to two sockets here.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mimus_host::config::{NetBackend, Netdev, UserNet};
use mimus_host::net::{Exchange, NetQueue};
use mimus_hw::net::{Batch, FrameQueue, MAX_SEGMENTED, Offload, Offloads};

use super::ANSWER;
use crate::input::Input;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const GUEST: [u8; 4] = [10, 0, 2, 15];
/// Where nobody listens.
const CLOSED: u16 = 1;
const ARP: [u8; 2] = [8, 6];
const IPV4: [u8; 2] = [8, 0];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a peer's last segment was: our port, its sequence number behind it.
type Heard = (u16, u32);

#[derive(Default)]
struct State {
    frames: VecDeque<(Vec<u8>, Offload)>,
    heard: Vec<Heard>,
    /// Answers to requests for the gateway's address.
    answers: u64,
    takes: Offloads,
}

#[derive(Clone, Default)]
struct Guest(Arc<Mutex<State>>);

impl Guest {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Exchange for Guest {
    fn transmit(&self, batch: &mut Batch) -> bool {
        self.with(|state| {
            while batch.has_room() {
                let Some((frame, offload)) = state.frames.pop_front() else { return false };
                batch.add(frame.len(), offload, |out| {
                    out.copy_from_slice(frame.get(..out.len()).unwrap_or_default());
                    true
                });
            }
            !state.frames.is_empty()
        })
    }

    fn receive(&self, queue: &mut FrameQueue) -> bool {
        self.with(|state| {
            while let Some(frame) = queue.front() {
                let bytes = &frame.bytes;
                assert!(bytes.len() <= MAX_SEGMENTED, "a frame of {} bytes", bytes.len());
                if bytes.get(12..14) == Some(&ARP) && bytes.get(20..22) == Some(&[0, 2]) {
                    state.answers += 1;
                }
                if bytes.get(12..14) == Some(&IPV4)
                    && bytes.get(23) == Some(&TCP)
                    && let Some(tcp) = bytes.get(34..50)
                {
                    let port = u16::from_be_bytes([tcp[2], tcp[3]]);
                    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                    let len = bytes.len() - 34 - 4 * usize::from(tcp[12] >> 4).min((bytes.len() - 34) / 4);
                    let syn = u32::from(tcp[13] & 3 != 0);
                    state.heard.retain(|(heard, _)| *heard != port);
                    state.heard.push((port, sequence.wrapping_add(len as u32 + syn)));
                }
                queue.pop();
            }
        });
        false
    }

    fn offloads(&self) -> Offloads {
        self.with(|state| state.takes)
    }

    fn set_link(&self, _: bool) {}
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum = bytes.chunks(2).map(word).fold(start, u32::wrapping_add);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ethernet(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &MAC, &kind, payload].concat()
}

fn arp(input: &mut Input) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 1];
    payload.extend(MAC);
    payload.extend(GUEST);
    payload.extend([0; 6]);
    payload.extend(GATEWAY);
    for _ in 0..input.u8() % 4 {
        let at = input.below(payload.len() as u64) as usize;
        payload[at] = input.u8();
    }
    ethernet(ARP, &payload)
}

/// The ports that something may go to, and where from.
struct Ports {
    open: u16,
}

impl Ports {
    fn to(&self, input: &mut Input) -> u16 {
        if input.one_in(8) { CLOSED } else { self.open }
    }
}

/// The contents of an IPv4 packet.
fn transport(protocol: u8, input: &mut Input, ports: &Ports, state: &Guest) -> Vec<u8> {
    let from = 1000 + u16::from(input.u8() % 8);
    match protocol {
        TCP => {
            let heard = state.with(|state| state.heard.iter().find(|heard| heard.0 == from).map(|heard| heard.1));
            let flags = input.pick(&[2u8, 0x10, 0x10, 0x10, 0x18, 0x18, 0x11, 0x12, 4, 0, 0xff]);
            let sequence = if flags & 2 != 0 { 100 } else { 101 + u32::from(input.u8()) };
            let acknowledged = heard.unwrap_or(0).wrapping_add(if input.one_in(8) { input.u32() } else { 0 });
            let mut bytes = [from.to_be_bytes(), ports.to(input).to_be_bytes()].concat();
            bytes.extend(sequence.to_be_bytes());
            bytes.extend(acknowledged.to_be_bytes());
            bytes.push(if input.one_in(6) { input.u8() } else { 0x50 });
            bytes.push(flags);
            bytes.extend(u16::to_be_bytes(if input.one_in(4) { 0 } else { 60_000 }));
            bytes.extend([0, 0]);
            bytes.extend(input.bytes(8));
            if input.one_in(2) {
                bytes.extend(vec![7; input.u16() as usize % 3000]);
            }
            bytes
        }
        UDP if input.one_in(3) => dhcp(input),
        UDP => {
            let data = input.bytes(40);
            let len = if input.one_in(4) { input.u16() } else { data.len() as u16 + 8 };
            let ports = [from.to_be_bytes(), ports.to(input).to_be_bytes()].concat();
            [&ports[..], &len.to_be_bytes(), &[0, 0], &data].concat()
        }
        _ => {
            let kind = input.pick(&[8u8, 8, 8, 0, 3, 13]);
            [&[kind, 0, 0, 0, 0, input.u8(), 0, 1][..], &input.bytes(60)].concat()
        }
    }
}

/// A message for the DHCP server (RFC 2131), with options that are wrong.
fn dhcp(input: &mut Input) -> Vec<u8> {
    let mut bytes = vec![0, 68, 0, 67, 0, 0, 0, 0, 1, 1, 6, 0];
    bytes.extend(input.u32().to_be_bytes());
    bytes.extend([0; 20]);
    bytes.extend(MAC);
    bytes.extend([0; 202]);
    bytes.extend([99, 130, 83, 99]);
    bytes.extend([53, 1, input.u8() % 9]);
    for _ in 0..input.u8() % 6 {
        let (code, len) = (input.pick(&[50u8, 54, 55, 12, 61, 255, 0, 57]), input.u8() % 8);
        bytes.extend([code, if input.one_in(8) { 255 } else { len }]);
        bytes.extend((0..len).map(|_| input.u8()));
    }
    bytes.push(255);
    let len = (bytes.len() as u16).to_be_bytes();
    bytes[4..6].copy_from_slice(&len);
    bytes
}

fn ipv4(input: &mut Input, ports: &Ports, state: &Guest) -> Vec<u8> {
    let protocol = input.pick(&[TCP, TCP, TCP, UDP, UDP, 1, 2]);
    let inner = transport(protocol, input, ports, state);
    let options = if input.one_in(8) { usize::from(input.u8() % 11) } else { 0 };
    let len = 20 + 4 * options + inner.len();
    let total = if input.one_in(12) { input.u16() } else { len as u16 };
    let mut header = vec![0x45 + options as u8, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 0]);
    header.extend(if input.one_in(16) { input.u16() } else { 0 }.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(input.pick(&[GUEST, GUEST, GUEST, [0; 4], [10, 0, 2, 77], GATEWAY, [1, 2, 3, 4]]));
    header.extend(input.pick(&[GATEWAY, GATEWAY, GATEWAY, [255; 4], [10, 0, 2, 99], [224, 0, 0, 1], [127, 0, 0, 1]]));
    header.extend(vec![1; 4 * options]);
    let sum = checksum(&header, 0).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    let mut inner = inner;
    if let Some(at) = [(TCP, 16), (UDP, 6), (1, 2)].iter().find(|row| row.0 == protocol).map(|row| row.1)
        && inner.len() >= at + 2
        && !input.one_in(8)
    {
        let pseudo = [&header[12..20], &[0, protocol], &(inner.len() as u16).to_be_bytes()].concat();
        let start = if protocol == 1 { 0 } else { u32::from(!checksum(&pseudo, 0)) };
        inner[at..at + 2].fill(0);
        let sum = checksum(&inner, start).to_be_bytes();
        inner[at..at + 2].copy_from_slice(&sum);
    }
    ethernet(IPV4, &[header, inner].concat())
}

/// Keeps a frame of whatever contents from going to others: addresses and ports that are not ours become so.
fn keep_home(frame: &mut [u8], ports: &Ports) {
    if frame.get(12..14) != Some(&IPV4) {
        return;
    }
    let Some(ip) = frame.get_mut(14..).filter(|ip| ip.len() >= 20) else { return };
    let ours = [GATEWAY, [255; 4], [10, 0, 2, 99], [224, 0, 0, 1], [127, 0, 0, 1]];
    if !ours.iter().any(|address| ip[16..20] == *address) {
        ip[16..20].copy_from_slice(&GATEWAY);
    }
    let at = 4 * usize::from(ip[0] & 15) + 2;
    let protocol = ip[9];
    if let Some(port) = ip.get_mut(at..at + 2).filter(|_| protocol == TCP || protocol == UDP)
        && ![ports.open, CLOSED, 67, 68].contains(&u16::from_be_bytes([port[0], port[1]]))
    {
        port.copy_from_slice(&ports.open.to_be_bytes());
    }
}

/// What listens behind the gateway: sends back what comes.
struct Echo {
    listener: TcpListener,
    socket: UdpSocket,
    streams: Vec<TcpStream>,
}

impl Echo {
    /// Both on one port.
    fn new() -> Echo {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("it is bound");
            if let Ok(socket) = UdpSocket::bind(address) {
                listener.set_nonblocking(true).expect("a socket");
                socket.set_nonblocking(true).expect("a socket");
                return Echo { listener, socket, streams: Vec::new() };
            }
        }
    }

    fn work(&mut self) {
        if let Ok((stream, _)) = self.listener.accept()
            && self.streams.len() < 16
            && stream.set_nonblocking(true).is_ok()
        {
            self.streams.push(stream);
        }
        let mut bytes = [0; 4096];
        self.streams.retain_mut(|stream| match stream.read(&mut bytes) {
            // What does not fit is lost; nobody counts.
            Ok(count) => count != 0 && stream.write(&bytes[..count]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        while let Ok((count, from)) = self.socket.recv_from(&mut bytes) {
            // As above.
            let _ = self.socket.send_to(&bytes[..count], from);
        }
    }
}

/// Runs a case.
pub fn run(input: &mut Input) {
    let mut echo = Echo::new();
    let ports = Ports { open: echo.socket.local_addr().expect("it is bound").port() };
    let netdev = Netdev { id: "fuzz".into(), ..Netdev::of(NetBackend::User(UserNet::default())) };
    let queue = NetQueue::open(&netdev, None).expect("a gateway");
    let mut peer = queue.peer();
    let guest = Guest::default();
    let flag = input.u8();
    guest.with(|state| state.takes = Offloads { checksum: flag & 1 != 0, segment: flag & 3 == 3 });
    let thread = queue.start(guest.clone()).expect("a thread");
    while !input.is_over() {
        let mut frame = match input.u8() % 8 {
            0 => arp(input),
            1 => input.bytes(200),
            _ => ipv4(input, &ports, &guest),
        };
        for _ in 0..(input.u8() % 16).saturating_sub(12) {
            let at = input.below(frame.len().max(1) as u64) as usize;
            if let Some(byte) = frame.get_mut(at) {
                *byte = input.u8();
            }
        }
        keep_home(&mut frame, &ports);
        let mut offload = Offload::default();
        if input.one_in(4) {
            offload.checksum = Some((input.u8().into(), input.u8().into()));
            offload.segment = input.u16() & if input.one_in(4) { 0xffff } else { 0x7ff };
            offload.headers = input.u8().into();
        }
        guest.with(|state| state.frames.push_back((frame, offload)));
        peer.notify();
        echo.work();
        if input.one_in(4) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    // It answers still.
    let before = guest.with(|state| state.answers);
    let end = Instant::now() + ANSWER;
    while guest.with(|state| state.answers) == before {
        assert!(Instant::now() < end, "the gateway does not answer any more");
        let frame = arp(&mut Input::new(&[]));
        guest.with(|state| state.frames.push_back((frame, Offload::default())));
        peer.notify();
        echo.work();
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(thread);
}
