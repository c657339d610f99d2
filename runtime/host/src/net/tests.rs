//! Networks with a guest made of smoltcp at the other end. Only the host's loopback interface is used.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mimus_hw::net::Frame;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::*;

use super::*;
use crate::config::{Endpoint, Forward, Link, Protocol, UserNet};

mod services;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const PATIENCE: Duration = Duration::from_secs(30);

/// What is between the thread and the guest.
#[derive(Default)]
struct Cable {
    sent: Mutex<VecDeque<(Vec<u8>, Offload)>>,
    got: Mutex<VecDeque<Frame>>,
    offloads: Offloads,
    unplugged: AtomicBool,
}

impl Exchange for Arc<Cable> {
    fn transmit(&self, batch: &mut Batch) -> bool {
        let mut sent = self.sent.lock().unwrap();
        while let Some((bytes, offload)) = sent.pop_front() {
            batch.add(bytes.len(), offload, |out| (out.copy_from_slice(&bytes), true).1);
        }
        false
    }

    fn receive(&self, queue: &mut FrameQueue) -> bool {
        let mut got = self.got.lock().unwrap();
        while let Some(frame) = queue.front() {
            got.push_back(frame.clone());
            queue.pop();
        }
        false
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn set_link(&self, up: bool) {
        self.unplugged.store(!up, Ordering::Release);
    }
}

/// The guest's adapter.
struct Adapter {
    cable: Arc<Cable>,
    peer: Box<dyn NetPeer>,
    largest: usize,
}

impl Adapter {
    fn send(&mut self, bytes: Vec<u8>) {
        self.cable.sent.lock().unwrap().push_back((bytes, Offload::default()));
        self.peer.notify();
    }

    /// The next frame, or none in a while.
    fn next(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(frame) = self.cable.got.lock().unwrap().pop_front() {
                return Some(frame.bytes);
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sender<'a>(&'a mut Adapter);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.send(bytes);
        result
    }
}

impl Device for Adapter {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sender<'_>)> {
        let frame = self.cable.got.lock().unwrap().pop_front()?;
        self.largest = self.largest.max(frame.bytes.len());
        assert!(frame.bytes.len() <= 1514 || frame.offload.segment == 1460, "{:?}", frame.offload);
        Some((Received(frame.bytes), Sender(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sender<'_>> {
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        if self.cable.offloads.checksum {
            capabilities.checksum = ChecksumCapabilities::ignored();
            capabilities.checksum.ipv4 = smoltcp::phy::Checksum::Both;
            capabilities.checksum.tcp = smoltcp::phy::Checksum::Tx;
        }
        capabilities
    }
}

/// A guest with an address.
struct Guest {
    adapter: Adapter,
    iface: Interface,
    sockets: SocketSet<'static>,
    start: Instant,
    // Ends before the others go.
    _thread: NetThread,
}

fn user(change: impl FnOnce(&mut UserNet)) -> NetBackend {
    let mut net = UserNet::default();
    change(&mut net);
    NetBackend::User(net)
}

fn plug(backend: NetBackend, offloads: Offloads) -> (Adapter, NetThread) {
    let cable = Arc::new(Cable { offloads, ..Cable::default() });
    let queue = NetQueue::open(&Netdev::of(backend), None).unwrap();
    let peer = queue.peer();
    let thread = queue.start(cable.clone()).unwrap();
    (Adapter { cable, peer, largest: 0 }, thread)
}

impl Guest {
    fn new(backend: NetBackend, offloads: Offloads) -> Guest {
        let (mut adapter, thread) = plug(backend, offloads);
        let config = Config::new(HardwareAddress::Ethernet(MAC));
        let mut iface = Interface::new(config, &mut adapter, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|list| list.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        iface.routes_mut().add_default_ipv4_route(HOST).unwrap();
        Guest { adapter, iface, sockets: SocketSet::new(vec![]), start: Instant::now(), _thread: thread }
    }

    fn tcp(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 1 << 18]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    fn connect(&mut self, port: u16, own: u16) -> SocketHandle {
        let handle = self.tcp();
        let socket = self.sockets.get_mut::<Socket>(handle);
        socket.connect(self.iface.context(), (IpAddress::from(HOST), port), own).unwrap();
        handle
    }

    /// Lets the stack work until `done` says so.
    fn until(&mut self, handle: SocketHandle, mut done: impl FnMut(&mut Socket) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = smoltcp::time::Instant::from_micros(self.start.elapsed().as_micros() as i64);
            self.iface.poll(now, &mut self.adapter, &mut self.sockets);
            let socket = self.sockets.get_mut::<Socket>(handle);
            if done(socket) {
                self.iface.poll(now, &mut self.adapter, &mut self.sockets);
                return;
            }
            assert!(Instant::now() < end, "{:?}", socket.state());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Sends all of `data`, and at the same time receives up to the end; what came.
    fn exchange(&mut self, handle: SocketHandle, data: &[u8]) -> Vec<u8> {
        let (mut sent, mut received) = (0, Vec::new());
        self.until(handle, |socket| {
            if socket.can_send() {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            if sent == data.len() && socket.may_send() {
                socket.close();
            }
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
            }
            matches!(socket.state(), State::TimeWait | State::Closed | State::LastAck)
        });
        received
    }
}

/// A server on the loopback interface that sends back what it gets, up to the end.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
        }
    });
    port
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn connections_carry_data_both_ways_and_end() {
    let port = echo();
    for offloads in [Offloads::default(), Offloads { checksum: true, segment: true }] {
        let mut guest = Guest::new(user(|_| ()), offloads);
        let handle = guest.connect(port, 40000);
        let data = pattern(3_000_001);
        assert!(guest.exchange(handle, &data) == data);
        assert_eq!(guest.adapter.largest > 1514, offloads.segment, "{}", guest.adapter.largest);
    }
}

#[test]
fn what_nobody_listens_at_refuses() {
    let mut guest = Guest::new(user(|_| ()), Offloads::default());
    let handle = guest.connect(free_port(), 40000);
    guest.until(handle, |socket| socket.state() == State::Closed);
}

#[test]
fn a_reset_goes_through() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::new(user(|_| ()), Offloads::default());
    let handle = guest.connect(listener.local_addr().unwrap().port(), 40000);
    guest.until(handle, |socket| socket.state() == State::Established);
    let (mut stream, _) = listener.accept().unwrap();
    guest.sockets.get_mut::<Socket>(handle).abort();
    guest.until(handle, |socket| socket.remote_endpoint().is_none());
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn forwarded_ports_lead_to_the_guest() {
    let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
    let forward = Forward { protocol: Protocol::Tcp, host, guest: SocketAddrV4::new(GUEST, 80) };
    let restricted = user(|net| {
        net.forwards = vec![forward];
        net.restrict = true;
    });
    let mut guest = Guest::new(restricted, Offloads::default());
    let handle = guest.tcp();
    guest.sockets.get_mut::<Socket>(handle).listen(80).unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(&pattern(500_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    guest.until(handle, |socket| socket.state() == State::Established);
    assert!(guest.exchange(handle, b"served") == pattern(500_000));
    guest.until(handle, |socket| socket.state() == State::Closed || socket.state() == State::TimeWait);
    assert_eq!(client.join().unwrap(), b"served");
}

#[test]
fn ports_are_forwarded_and_the_cable_is_pulled_while_the_network_runs() {
    let mut guest = Guest::new(user(|_| ()), Offloads::default());
    let watcher = Watcher(guest._thread.told.clone());
    let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
    let (port, udp) = (format!("tcp:{host}"), format!("udp:127.0.0.1:{}", free_port()));
    for (rule, udp) in [(&port, false), (&udp, true)] {
        assert_eq!(watcher.forward(&format!("{rule}-:80"), true), Ok(()));
        assert!(watcher.forward(&format!("{rule}-:80"), true).unwrap_err().starts_with("Could not set up"));
        assert_eq!(watcher.connections().len(), 1 + usize::from(udp));
    }
    let handle = guest.tcp();
    guest.sockets.get_mut::<Socket>(handle).listen(80).unwrap();
    let client = std::thread::spawn(move || TcpStream::connect(host));
    guest.until(handle, |socket| socket.state() == State::Established);
    drop(client.join().unwrap().unwrap());
    for rule in [&port, &udp] {
        assert_eq!(watcher.forward(rule, false), Ok(()));
        assert_eq!(watcher.forward(rule, false), Err(format!("host forwarding rule for {rule} not found")));
    }
    assert!(TcpStream::connect(host).is_err());
    for rule in ["nonsense", "tcp::0-:1", "sctp::1-:1"] {
        assert_eq!(watcher.forward(rule, true), Err(format!("Invalid host forwarding rule '{rule}'")));
    }
    for up in [false, true] {
        assert_eq!(watcher.set_link(up), Ok(()));
        assert_eq!(guest.adapter.cable.unplugged.load(Ordering::Acquire), !up);
    }
}

/// A frame with an IPv4 packet from the guest.
fn packet(to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let ip =
        Ipv4Repr { src_addr: GUEST, dst_addr: to, next_header: protocol, payload_len: payload.len(), hop_limit: 64 };
    let mut bytes = vec![0; 14 + 20 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(MAC);
    frame.set_dst_addr(EthernetAddress::BROADCAST);
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

fn datagram(to: (Ipv4Addr, u16), from: u16, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from, dst_port: to.1 };
    let mut bytes = vec![0; 8 + payload.len()];
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &GUEST.into(),
        &to.0.into(),
        payload.len(),
        |out| out.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    packet(to.0, IpProtocol::Udp, &bytes)
}

/// Source, destination, protocol and payload of the IPv4 packet in a frame.
fn payload(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr, IpProtocol, Vec<u8>) {
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(packet.verify_checksum());
    (packet.src_addr(), packet.dst_addr(), packet.next_header(), packet.payload().to_vec())
}

/// Source port, and payload of a datagram for the guest.
fn udp(frame: &[u8]) -> (Ipv4Addr, u16, Vec<u8>) {
    let (from, to, _, bytes) = payload(frame);
    let packet = UdpPacket::new_checked(bytes.as_slice()).unwrap();
    assert!(packet.verify_checksum(&from.into(), &to.into()));
    (from, packet.src_port(), packet.payload().to_vec())
}

#[test]
fn datagrams_go_out_and_their_answers_come_back() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let (mut guest, _thread) = plug(user(|_| ()), Offloads::default());
    guest.send(datagram((HOST, port), 1234, b"question"));
    let mut buffer = [0; 100];
    let (len, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"question");
    server.send_to(b"answer", peer).unwrap();
    assert_eq!(udp(&guest.next(PATIENCE).unwrap()), (HOST, port, b"answer".to_vec()));
    // A long one comes in fragments.
    server.send_to(&pattern(4000), peer).unwrap();
    let whole: Vec<u8> = (0..3).flat_map(|_| payload(&guest.next(PATIENCE).unwrap()).3).collect();
    assert_eq!(whole[8..], pattern(4000));
    // Nobody is there.
    guest.send(datagram((HOST, free_port()), 1234, b"x"));
    let (_, _, protocol, bytes) = payload(&guest.next(PATIENCE).unwrap());
    assert_eq!((protocol, &bytes[..2]), (IpProtocol::Icmp, &[3, 3][..]));
}

#[test]
fn forwarded_datagrams_are_answered_by_the_guest() {
    let host =
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    let forward = Forward { protocol: Protocol::Udp, host, guest: SocketAddrV4::new(GUEST, 69) };
    let (mut guest, _thread) = plug(user(|net| net.forwards = vec![forward]), Offloads::default());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"early", host).unwrap();
    // Who the guest is has to be found out first.
    let frame = guest.next(PATIENCE).unwrap();
    let asked = ArpPacket::new_checked(&frame[14..]).unwrap();
    assert_eq!((asked.operation(), asked.target_protocol_addr()), (ArpOperation::Request, &GUEST.octets()[..]));
    guest.send(arp(ArpOperation::Reply, HOST));
    let end = Instant::now() + PATIENCE;
    let (from, port, bytes) = loop {
        // It is lost until the answer has come.
        client.send_to(b"hello", host).unwrap();
        if let Some(frame) = guest.next(Duration::from_millis(100)).filter(|frame| frame[12..14] == [8, 0]) {
            break udp(&frame);
        }
        assert!(Instant::now() < end);
    };
    assert_eq!((from, bytes), (HOST, b"hello".to_vec()));
    assert_eq!(port, client.local_addr().unwrap().port());
    guest.send(datagram((HOST, port), 69, b"back"));
    let mut buffer = [0; 10];
    let (len, peer) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], peer), (&b"back"[..], host.into()));
}

fn arp(operation: ArpOperation, target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: MAC,
        source_protocol_addr: GUEST,
        target_hardware_addr: EthernetAddress::BROADCAST,
        target_protocol_addr: target,
    };
    let mut bytes = vec![0; 14 + repr.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(MAC);
    frame.set_dst_addr(EthernetAddress::BROADCAST);
    frame.set_ethertype(EthernetProtocol::Arp);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

#[test]
fn the_gateway_answers_arp_and_pings() {
    let (mut guest, _thread) = plug(user(|_| ()), Offloads::default());
    for address in [HOST, Ipv4Addr::new(10, 0, 2, 3)] {
        guest.send(arp(ArpOperation::Request, address));
        let frame = guest.next(PATIENCE).unwrap();
        let reply = ArpPacket::new_checked(&frame[14..]).unwrap();
        assert_eq!((reply.operation(), reply.source_protocol_addr()), (ArpOperation::Reply, &address.octets()[..]));
        assert_eq!(frame[..6], MAC.0);
    }
    guest.send(arp(ArpOperation::Request, Ipv4Addr::new(10, 0, 2, 77)));
    let echo = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 2, data: b"abcdefgh" };
    let mut bytes = vec![0; echo.buffer_len()];
    echo.emit(&mut Icmpv4Packet::new_unchecked(bytes.as_mut_slice()), &ChecksumCapabilities::default());
    guest.send(packet(HOST, IpProtocol::Icmp, &bytes));
    let (_, _, _, answer) = payload(&guest.next(PATIENCE).unwrap());
    assert_eq!((answer[0], &answer[4..]), (0, &bytes[4..]), "nobody answers for 10.0.2.77");
    guest.send(packet(Ipv4Addr::new(10, 0, 2, 77), IpProtocol::Icmp, &bytes));
    let (_, _, _, answer) = payload(&guest.next(PATIENCE).unwrap());
    assert_eq!(answer[..2], [3, 1]);
}

fn dhcp(message: DhcpMessageType, requested: Option<Ipv4Addr>) -> Vec<u8> {
    let repr = DhcpRepr {
        message_type: message,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: requested,
        client_identifier: Some(MAC),
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice())).unwrap();
    let mut frame = datagram((Ipv4Addr::BROADCAST, 67), 68, &bytes);
    // From nobody yet; a datagram need not have a checksum.
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    packet.set_src_addr(Ipv4Addr::UNSPECIFIED);
    packet.fill_checksum();
    packet.payload_mut()[6..8].fill(0);
    frame
}

#[test]
fn dhcp_gives_an_address_and_what_belongs_to_it() {
    let (mut guest, _thread) = plug(user(|net| net.hostname = "box".into()), Offloads::default());
    let mut ask = |frame| {
        guest.send(frame);
        let (from, _, bytes) = udp(&guest.next(PATIENCE).unwrap());
        let packet = DhcpPacket::new_checked(bytes.as_slice()).unwrap();
        let name = packet.options().find(|option| option.kind == 12).map(|option| option.data.to_vec());
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((from, repr.transaction_id, repr.server_identifier), (HOST, 0x1234_5678, Some(HOST)));
        (repr.message_type, repr.your_ip, repr.router, repr.dns_servers.map(|servers| servers.to_vec()), name)
    };
    let settings = |kind| (kind, GUEST, Some(HOST), Some(vec![Ipv4Addr::new(10, 0, 2, 3)]), Some(b"box".to_vec()));
    assert_eq!(ask(dhcp(DhcpMessageType::Discover, None)), settings(DhcpMessageType::Offer));
    assert_eq!(ask(dhcp(DhcpMessageType::Request, Some(GUEST))), settings(DhcpMessageType::Ack));
    let refused = ask(dhcp(DhcpMessageType::Request, Some(Ipv4Addr::new(10, 0, 2, 99))));
    assert_eq!((refused.0, refused.1, refused.2), (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED, None));
}

#[test]
fn a_client_of_dhcp_is_reached_without_a_question() {
    let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
    let forward = Forward { protocol: Protocol::Tcp, host, guest: SocketAddrV4::new(GUEST, 22) };
    let (mut guest, _thread) = plug(user(|net| net.forwards = vec![forward]), Offloads::default());
    for message in [DhcpMessageType::Discover, DhcpMessageType::Request] {
        guest.send(dhcp(message, Some(GUEST)));
        guest.next(PATIENCE).unwrap();
    }
    let _client = TcpStream::connect(host).unwrap();
    let first = guest.next(PATIENCE).unwrap();
    assert_eq!(EthernetFrame::new_unchecked(&first).ethertype(), EthernetProtocol::Ipv4);
    let (_, to, protocol, segment) = payload(&first);
    assert_eq!((to, protocol, TcpPacket::new_unchecked(&segment).syn()), (GUEST, IpProtocol::Tcp, true));
}

/// Random numbers, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }
}

#[test]
fn hostile_frames_are_survived() {
    let port = echo();
    let udp_server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_port = udp_server.local_addr().unwrap().port();
    let (mut adapter, thread) = plug(user(|_| ()), Offloads { checksum: true, segment: true });
    let mut syn = vec![0; 20 + 8];
    let segment = TcpRepr {
        src_port: 1000,
        dst_port: port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(5),
        ack_number: None,
        window_len: 0xffff,
        window_scale: Some(7),
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut syn),
        &GUEST.into(),
        &HOST.into(),
        &ChecksumCapabilities::default(),
    );
    let templates = [
        packet(HOST, IpProtocol::Tcp, &syn),
        datagram((HOST, udp_port), 7, b"text"),
        dhcp(DhcpMessageType::Discover, Some(GUEST)),
        arp(ArpOperation::Request, HOST),
    ];
    let mut random = Random(1);
    for round in 0..60_000usize {
        let mut frame = templates[round % templates.len()].clone();
        let ports = frame[34..38].to_vec();
        for _ in 0..random.next() % 5 {
            let at = random.next() as usize % frame.len();
            frame[at] = random.next() as u8;
        }
        if round % 8 == 0 {
            frame.truncate(random.next() as usize % frame.len());
        }
        if let Some(place) = frame.get_mut(34..38).filter(|_| round % templates.len() < 2) {
            // To our own servers only, from a few ports, so that connections get on.
            place.copy_from_slice(&ports);
            place[1] = (random.next() % 8) as u8;
            let protocol = if round % 2 == 0 { 6 } else { 17 };
            frame[23] = protocol;
            frame[30..34].copy_from_slice(&HOST.octets());
            if let Some(flags) = frame.get_mut(46..50).filter(|_| round % 3 == 0) {
                flags.copy_from_slice(&(random.next() as u32).to_be_bytes());
            }
            Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum_if_whole();
        }
        let offload =
            Offload { checksum: Some((34, 16)), segment: random.next() as u16, headers: random.next() as u16 };
        adapter.cable.sent.lock().unwrap().push_back((frame, offload));
        if round % 64 == 0 {
            adapter.peer.notify();
            adapter.cable.got.lock().unwrap().clear();
            while adapter.cable.sent.lock().unwrap().len() > 1000 {
                assert!(!thread.thread.as_ref().unwrap().is_finished());
                std::thread::yield_now();
            }
        }
    }
    // It still works.
    adapter.cable.got.lock().unwrap().clear();
    adapter.send(arp(ArpOperation::Request, HOST));
    let end = Instant::now() + PATIENCE;
    while adapter.next(PATIENCE).is_none_or(|frame| frame[12..14] != [8, 6]) {
        assert!(Instant::now() < end);
    }
}

/// What the test of hostile frames needs.
trait FillIfWhole {
    fn fill_checksum_if_whole(&mut self);
}

impl FillIfWhole for Ipv4Packet<&mut [u8]> {
    fn fill_checksum_if_whole(&mut self) {
        if self.check_len().is_ok() {
            self.fill_checksum();
        }
    }
}

fn socket_path(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("mimus-net-{}-{name}", std::process::id()))
}

#[test]
fn two_guests_on_a_stream() {
    let path = socket_path("stream");
    let (mut first, _a) = plug(NetBackend::Link(Link::Listen(Endpoint::Unix(path.clone()))), Offloads::default());
    let connect = Link::Connect { end: Endpoint::Unix(path.clone()), reconnect: false };
    let (mut second, b) = plug(NetBackend::Link(connect), Offloads::default());
    let frames: Vec<Vec<u8>> = (60..1514).map(pattern).collect();
    second.send(frames[0].clone());
    assert_eq!(first.next(PATIENCE).as_ref(), Some(&frames[0]));
    for (from, to) in [(0, 1), (1, 0)] {
        let both = [&mut first, &mut second];
        for piece in frames.chunks(100) {
            piece
                .iter()
                .for_each(|frame| both[from].cable.sent.lock().unwrap().push_back((frame.clone(), Offload::default())));
            both[from].peer.notify();
            for frame in piece {
                let end = Instant::now() + PATIENCE;
                let got = loop {
                    if let Some(frame) = both[to].cable.got.lock().unwrap().pop_front() {
                        break frame.bytes;
                    }
                    assert!(Instant::now() < end);
                    std::thread::sleep(Duration::from_micros(100));
                };
                assert!(got == *frame);
            }
        }
    }
    // What is no stream of frames is cut off, and another may come.
    drop(b);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(&[0xff; 100]).unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(&[&60u32.to_be_bytes()[..], &[7; 60]].concat()).unwrap();
    assert_eq!(first.next(PATIENCE), Some(vec![7; 60]));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn two_guests_on_datagrams() {
    let (a, b) = (socket_path("a"), socket_path("b"));
    let link = |local: &std::path::PathBuf, remote: &std::path::PathBuf| {
        let ends = (Some(Endpoint::Unix(local.clone())), Some(Endpoint::Unix(remote.clone())));
        plug(NetBackend::Link(Link::Datagrams { local: ends.0, remote: ends.1 }), Offloads::default())
    };
    let ((mut first, _first), (mut second, _second)) = (link(&a, &b), link(&b, &a));
    first.send(pattern(1514));
    assert_eq!(second.next(PATIENCE), Some(pattern(1514)));
    second.send(pattern(60));
    assert_eq!(first.next(PATIENCE), Some(pattern(60)));
    [a, b].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}
