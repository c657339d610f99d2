//! What the gateway's network has beside the host's: TFTP, services at addresses of their own, answers from third parties, fragments.

use super::*;
use crate::config::{GuestForward, NetBoot, Service};

/// A folder with one file.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("mimus-services-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("boot.ipxe"), pattern(700)).unwrap();
    folder
}

#[test]
fn a_guest_boots_from_the_network() {
    let folder = folder("tftp");
    let boot = NetBoot { tftp: Some(folder.clone()), file: "boot.ipxe".into(), server: "server".into() };
    // Also where it reaches nothing else.
    let (mut guest, _thread) = plug(
        user(|net| {
            net.boot = boot;
            net.restrict = true;
        }),
        Offloads::default(),
    );
    guest.send(dhcp(DhcpMessageType::Discover, None));
    let bytes = udp(&guest.next(PATIENCE).unwrap()).2;
    let offer = DhcpPacket::new_checked(bytes.as_slice()).unwrap();
    assert_eq!((offer.get_boot_file().unwrap(), offer.server_ip()), ("boot.ipxe", HOST));
    let server = offer.options().find(|option| option.kind == 66).map(|option| option.data.to_vec());
    assert_eq!(server, Some(b"server".to_vec()));
    guest.send(dhcp(DhcpMessageType::Request, Some(GUEST)));
    guest.next(PATIENCE).unwrap();
    guest.send(datagram((HOST, 69), 2000, b"\0\x01/boot.ipxe\0octet\0tsize\x000\0"));
    assert_eq!(udp(&guest.next(PATIENCE).unwrap()), (HOST, 69, b"\0\x06tsize\x00700\0".to_vec()));
    guest.send(datagram((HOST, 69), 2000, &[0, 4, 0, 0]));
    assert_eq!(udp(&guest.next(PATIENCE).unwrap()).2, [&[0, 3, 0, 1], &pattern(512)[..]].concat());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_answer_may_come_from_another_port() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let (mut guest, _thread) = plug(user(|_| ()), Offloads::default());
    guest.send(datagram((HOST, port(&server)), 1234, b"read"));
    let mut buffer = [0; 10];
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    other.send_to(b"data", peer).unwrap();
    assert_eq!(udp(&guest.next(PATIENCE).unwrap()), (HOST, port(&other), b"data".to_vec()));
    // Its answer leaves by the same port.
    guest.send(datagram((HOST, port(&other)), 1234, b"ack"));
    assert_eq!(other.recv_from(&mut buffer).unwrap(), (3, peer));
    // The guest has not written to this one's address.
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger.send_to(b"spoofed", (Ipv4Addr::LOCALHOST, peer.port())).unwrap();
    server.send_to(b"real", peer).unwrap();
    assert_eq!(udp(&guest.next(PATIENCE).unwrap()).2, b"real");
}

#[test]
fn errors_name_who_they_are_of() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mut guest, _thread) = plug(user(|_| ()), Offloads::default());
    guest.send(datagram((HOST, nobody), 1234, b"x"));
    let (_, _, protocol, bytes) = payload(&guest.next(PATIENCE).unwrap());
    // Behind the header of the message and that of the packet (RFC 792): the ports.
    assert_eq!((protocol, &bytes[..2]), (IpProtocol::Icmp, &[3, 3][..]));
    assert_eq!(bytes[28..32], [1234u16, nobody].map(u16::to_be_bytes).concat());
    guest.send(datagram((HOST, port), 1234, b"y"));
    assert_eq!(server.recv_from(&mut [0; 9]).unwrap().0, 1, "the error of before does not hold it up");
}

#[test]
fn fragments_of_the_guest_are_put_together() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let (mut guest, _thread) = plug(user(|_| ()), Offloads::default());
    let whole = datagram((HOST, port), 1234, &pattern(3000));
    let bytes = &whole[34..];
    for (at, end) in [(1480, 2960), (2960, bytes.len()), (0, 1480)] {
        let mut frame = packet(HOST, IpProtocol::Udp, &bytes[at..end]);
        let mut piece = Ipv4Packet::new_unchecked(&mut frame[14..]);
        piece.set_ident(7);
        piece.set_dont_frag(false);
        piece.set_more_frags(end < bytes.len());
        piece.set_frag_offset(at as u16);
        piece.fill_checksum();
        guest.send(frame);
    }
    let mut buffer = [0; 4000];
    let (len, _) = server.recv_from(&mut buffer).unwrap();
    assert!(buffer[..len] == pattern(3000));
}

/// A network with a service at 10.0.2.100.
fn with_service(to: Service) -> NetBackend {
    user(|net| {
        let guest = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 100), 7);
        net.guest_forwards = vec![GuestForward { guest, to }];
        net.restrict = true;
    })
}

fn reach(guest: &mut Guest, own: u16) -> SocketHandle {
    let handle = guest.tcp();
    let socket = guest.sockets.get_mut::<Socket>(handle);
    socket.connect(guest.iface.context(), (IpAddress::v4(10, 0, 2, 100), 7), own).unwrap();
    handle
}

#[test]
fn services_have_addresses_of_their_own() {
    let path = socket_path("service");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        }
    });
    let inet = Endpoint::Inet((Ipv4Addr::LOCALHOST, echo()).into());
    for (number, end) in [inet, Endpoint::Unix(path.clone())].into_iter().enumerate() {
        let mut guest = Guest::new(with_service(Service::Connect(end)), Offloads::default());
        let handle = reach(&mut guest, 40000 + number as u16);
        assert!(guest.exchange(handle, &pattern(100_000)) == pattern(100_000));
    }
    std::fs::remove_file(&path).unwrap();
    // Nobody there, and nobody who could be started.
    for to in [Service::Connect(Endpoint::Unix(path)), Service::Run(vec!["cat".into()])] {
        let mut guest = Guest::new(with_service(to), Offloads::default());
        let handle = reach(&mut guest, 40010);
        guest.until(handle, |socket| socket.state() == State::Closed);
    }
}

#[test]
fn the_hosts_loopback_interface_can_be_kept_away() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_port = server.local_addr().unwrap().port();
    let mut guest = Guest::new(user(|net| net.host_loopback = false), Offloads::default());
    let handle = guest.connect(echo(), 40000);
    guest.until(handle, |socket| socket.state() == State::Closed);
    guest.adapter.cable.got.lock().unwrap().clear();
    for address in [HOST, Ipv4Addr::new(169, 254, 169, 254)] {
        guest.adapter.send(datagram((address, udp_port), 1234, b"x"));
        let (_, _, protocol, bytes) = payload(&guest.adapter.next(PATIENCE).unwrap());
        assert_eq!((protocol, &bytes[..2]), (IpProtocol::Icmp, &[3, 1][..]), "{address}");
    }
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0]).is_err());
}

/// A SYN of the guest's from this port.
fn syn(own: u16, port: u16) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: own,
        dst_port: port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(5),
        ack_number: None,
        window_len: 0xffff,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut bytes = vec![0; segment.buffer_len()];
    let packet_of = &mut TcpPacket::new_unchecked(&mut bytes);
    segment.emit(packet_of, &GUEST.into(), &HOST.into(), &ChecksumCapabilities::default());
    packet(HOST, IpProtocol::Tcp, &bytes)
}

#[test]
fn connections_in_the_making_are_bounded() {
    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket};
    // Its queue is full, so that nothing that is sent to it is answered.
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    listen(&listener, 0).unwrap();
    let port = SocketAddrV4::try_from(getsockname(&listener).unwrap()).unwrap().port();
    let first = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    connect(&first, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();

    let cable = Arc::new(Cable::default());
    let queue = NetQueue::open(&Netdev::of(user(|_| ())), None).unwrap();
    let (peer, watcher) = (queue.peer(), queue.watcher());
    let _thread = queue.start(cable.clone()).unwrap();
    let mut guest = Adapter { cable, peer, largest: 0 };
    (0..200).for_each(|number| guest.send(syn(2000 + number, port)));
    // By the time that this is answered, all of them were looked at.
    guest.send(arp(ArpOperation::Request, HOST));
    while guest.next(PATIENCE).unwrap()[12..14] != [8, 6] {}
    let waiting = watcher.connections().iter().filter(|connection| connection.state == "SYN_SENT").count();
    assert_eq!(waiting, 64);
}
