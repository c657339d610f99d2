//! What a configuration says of networks and their adapters.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

/// The hardware address of a machine's first adapter when none is given (QEMU's); the others follow.
pub const FIRST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// What a network adapter is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netdev {
    /// What the command line calls it; empty when only its adapter knows it.
    pub id: String,
    /// What it is.
    pub backend: NetBackend,
    /// Records of what passes it.
    pub captures: Vec<Capture>,
}

impl Netdev {
    /// One without a name and records.
    pub fn of(backend: NetBackend) -> Netdev {
        Netdev { id: String::new(), backend, captures: Vec::new() }
    }
}

/// A record of what passes a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The file.
    pub file: PathBuf,
    /// The most bytes of a packet.
    pub limit: u32,
}

/// The kinds of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetBackend {
    /// A gateway with the host's sockets behind it.
    User(UserNet),
    /// Another program.
    Link(Link),
}

/// The network that a gateway is in, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNet {
    /// The first address of the network.
    pub network: Ipv4Addr,
    /// Bits of the network's addresses that are the same, 1 to 30.
    pub prefix: u8,
    /// The gateway, behind which the host's loopback interface is.
    pub host: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
    /// The first address that the DHCP server gives away.
    pub dhcp_start: Ipv4Addr,
    /// What the DHCP server calls the guest, empty for nothing.
    pub hostname: String,
    /// What it says the domain is, empty for nothing.
    pub domain: String,
    /// Domains in which it says names are looked for.
    pub search: Vec<String>,
    /// The gateway's address leads to the host's loopback interface, and link-local addresses (such as that of a cloud's metadata) to
    /// the host's network.
    pub host_loopback: bool,
    /// The guest reaches neither the host nor what is behind it; forwarded ports still lead to the guest.
    pub restrict: bool,
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Ports of the guest's network that lead elsewhere than the network does.
    pub guest_forwards: Vec<GuestForward>,
    /// What a guest boots that starts from the network.
    pub boot: NetBoot,
}

/// What a guest boots that starts from the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetBoot {
    /// The folder whose files the gateway serves by TFTP.
    pub tftp: Option<PathBuf>,
    /// The boot file that DHCP names, up to [`NetBoot::LONGEST`] bytes; empty for none.
    pub file: String,
    /// The name of the TFTP server that DHCP tells, empty for none.
    pub server: String,
}

impl NetBoot {
    /// What there is room for in a packet (RFC 2131, 2).
    pub const LONGEST: usize = 127;
}

/// A port of an address in the guest's network where something else than the network answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestForward {
    /// Where the guest connects to.
    pub guest: SocketAddrV4,
    /// What it reaches.
    pub to: Service,
}

/// What a guest reaches at a port of its own network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A connection of its own to this address, for each of the guest's.
    Connect(Endpoint),
    /// A program of its own, for each connection, whose standard input and output it is.
    Run(Vec<String>),
}

impl UserNet {
    /// The network whose addresses begin with `prefix` bits of `network`, with QEMU's addresses in it.
    pub fn new(network: Ipv4Addr, prefix: u8) -> UserNet {
        let network = network.to_bits() & UserNet::mask_of(prefix);
        // In a network too small for QEMU's numbers the first address is free for the guest.
        let at = |number: u32| Ipv4Addr::from_bits(network | number & !UserNet::mask_of(prefix));
        UserNet {
            network: Ipv4Addr::from_bits(network),
            prefix,
            host: at(2),
            dns: at(3),
            dhcp_start: at(if prefix <= 27 { 15 } else { 1 }),
            hostname: String::new(),
            domain: String::new(),
            search: Vec::new(),
            host_loopback: true,
            restrict: false,
            forwards: Vec::new(),
            guest_forwards: Vec::new(),
            boot: NetBoot::default(),
        }
    }

    fn mask_of(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
    }

    /// The network's mask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(UserNet::mask_of(self.prefix))
    }

    /// The network's address of this number.
    pub fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | number & !self.mask().to_bits())
    }

    /// Whether `address` is in the network, and not its first or last.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let (bits, mask) = (address.to_bits(), UserNet::mask_of(self.prefix));
        bits & mask == self.network.to_bits() && bits & !mask != 0 && bits | mask != u32::MAX
    }

    /// The last address that a host of the network may have.
    pub fn last_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.network.to_bits() | !UserNet::mask_of(self.prefix)) - 1)
    }
}

impl Default for UserNet {
    /// QEMU's.
    fn default() -> UserNet {
        UserNet::new(Ipv4Addr::new(10, 0, 2, 0), 24)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of the host that leads to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Of this protocol.
    pub protocol: Protocol,
    /// The host's end.
    pub host: SocketAddrV4,
    /// The guest's end.
    pub guest: SocketAddrV4,
}

/// How another program is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A stream that it connects to.
    Listen(Endpoint),
    /// A stream to it.
    Connect {
        /// Where it listens.
        end: Endpoint,
        /// Connect again each second when the connection is gone.
        reconnect: bool,
    },
    /// Datagrams.
    Datagrams {
        /// Where they are received.
        local: Option<Endpoint>,
        /// Where they are sent to.
        remote: Option<Endpoint>,
    },
    /// Datagrams to a group.
    Multicast {
        /// The group.
        group: SocketAddrV4,
        /// The address of the host's interface that they leave by; the host chooses one if none is given.
        interface: Option<Ipv4Addr>,
    },
}

/// An end of a connection on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address and port.
    Inet(SocketAddr),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "'{}'", path.display()),
            Endpoint::Inet(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_network() {
        let net = UserNet::default();
        let show =
            |net: &UserNet| [net.host, net.dns, net.dhcp_start, net.mask(), net.last_address()].map(|a| a.to_string());
        assert_eq!(show(&net), ["10.0.2.2", "10.0.2.3", "10.0.2.15", "255.255.255.0", "10.0.2.254"]);
        let inside = ["10.0.2.0", "10.0.2.1", "10.0.2.254", "10.0.2.255", "10.0.3.1"];
        assert_eq!(inside.map(|a| net.contains(a.parse().unwrap())), [false, true, true, false, false]);
        let small = UserNet::new(Ipv4Addr::new(192, 168, 7, 77), 30);
        assert_eq!(show(&small)[..3], ["192.168.7.78", "192.168.7.79", "192.168.7.77"].map(str::to_owned));
        assert!(UserNet::new(Ipv4Addr::new(10, 0, 0, 0), 8).contains(Ipv4Addr::new(10, 9, 9, 9)));
    }
}
