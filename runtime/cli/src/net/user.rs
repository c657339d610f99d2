//! `-netdev user` and what is in its network.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::super::chardev::Chardevs;
use super::super::error::CliError;
use super::super::keyval::{Key, Kind, Values, key, key_lacks};
use super::super::{monitors, subjects};
use super::{ADDRESS, ID, ON_OFF, PATH};
use mimus_host::config::{Chardev, Endpoint, GuestForward, MonitorSocket, NetBoot, Service, UserNet};
use mimus_host::net::rules::forward;

pub(super) const USER: &[Key] = &[
    ID,
    key("net", Kind::Text("ADDRESS[/MASK]"), "the guest's network, default 10.0.2.0/24"),
    key("host", ADDRESS, "the gateway, behind which the host's loopback interface is, default 10.0.2.2"),
    key("dns", ADDRESS, "the name server, default 10.0.2.3"),
    key("dhcpstart", ADDRESS, "the guest's address, default 10.0.2.15"),
    key("hostname", Kind::Text("a name"), "what DHCP calls the guest"),
    key("domainname", Kind::Text("a name"), "what DHCP says the domain is"),
    key("dnssearch", Kind::Texts("a domain"), "where DHCP says names are looked for; may be repeated"),
    key("restrict", ON_OFF, "on: the guest reaches nothing but what reaches it"),
    key("host-loopback", ON_OFF, "off: it reaches neither the host's loopback interface nor link-local addresses"),
    key(
        "hostfwd",
        Kind::Texts("[tcp|udp]:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT"),
        "a port of the host that leads to the guest; may be repeated",
    ),
    key("ipv4", Kind::Fixed("on"), ""),
    key("ipv6", ON_OFF, ""),
    key("ipv6-prefix", Kind::Text("an IPv6 address"), ""),
    key("ipv6-prefixlen", Kind::Number(0, 128), ""),
    key("ipv6-host", Kind::Text("an IPv6 address"), ""),
    key("ipv6-dns", Kind::Text("an IPv6 address"), ""),
    key(
        "guestfwd",
        Kind::Texts("[tcp]:ADDRESS:PORT-cmd:COMMAND, -tcp:HOST:PORT, -unix:PATH or -chardev:ID"),
        "a port of the guest's network that leads there, for each connection anew; may be repeated",
    ),
    key("tftp", PATH, "a folder whose files the gateway serves by TFTP, to be read"),
    key("bootfile", Kind::Text("a name"), "the file that DHCP has a guest boot"),
    key("tftp-server-name", Kind::Text("a name"), "the TFTP server that DHCP names"),
    key_lacks("smb", &subjects::SMB),
    key_lacks("smbserver", &subjects::SMB),
];

/// The network that `values` describe.
pub(super) fn parse(option: &str, values: &Values, chardevs: &mut Chardevs) -> Result<UserNet, CliError> {
    let address = |name: &str, default: Ipv4Addr, net: &UserNet| match values.text(name) {
        None => Ok(default),
        Some(text) => {
            let wrong = |what| CliError::new(option, format!("{name}: '{text}' is {what}"));
            let address: Ipv4Addr = text.parse().map_err(|_| wrong("not an IPv4 address"))?;
            if net.contains(address) { Ok(address) } else { Err(wrong("not in the guest's network")) }
        }
    };
    let mut net = match values.text("net") {
        Some(text) => network(text).ok_or_else(|| {
            CliError::new(option, format!("net: '{text}' is not a network of 8 addresses or more, as in 10.0.2.0/24"))
        })?,
        None => UserNet::default(),
    };
    net.host = address("host", net.host, &net)?;
    net.dns = address("dns", net.dns, &net)?;
    net.dhcp_start = address("dhcpstart", net.dhcp_start, &net)?;
    if net.host == net.dns || net.host == net.dhcp_start || net.dns == net.dhcp_start {
        return Err(CliError::new(option, "host, dns and dhcpstart are not all different"));
    }
    tell(option, values, &mut net)?;
    net.restrict = values.word("restrict") == Some("on");
    net.host_loopback = values.word("host-loopback") != Some("off");
    for text in values.texts("hostfwd") {
        let forward = forward(text, net.dhcp_start).ok_or_else(|| {
            let form = "[tcp|udp]:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT";
            CliError::new(option, format!("hostfwd: '{text}' is not of the form {form}"))
        })?;
        net.forwards.push(forward);
    }
    for text in values.texts("guestfwd") {
        let forward = guest_forward(text, &net, chardevs)?;
        if net.guest_forwards.iter().any(|known| known.guest == forward.guest) {
            return Err(CliError::new(GUESTFWD, format!("{} is given twice", forward.guest)));
        }
        net.guest_forwards.push(forward);
    }
    Ok(net)
}

/// What DHCP tells the guest.
fn tell(option: &str, values: &Values, net: &mut UserNet) -> Result<(), CliError> {
    for (key, field) in
        [("hostname", &mut net.hostname), ("domainname", &mut net.domain), ("tftp-server-name", &mut net.boot.server)]
    {
        let text = values.text(key).unwrap_or_default();
        // The length of an option of DHCP is one byte; what fits into the packet is less.
        if text.len() > 64 {
            return Err(CliError::new(option, format!("{key}: longer than 64 characters")));
        }
        text.clone_into(field);
    }
    net.search = values.texts("dnssearch").map(str::to_owned).collect();
    let labels = net.search.iter().flat_map(|domain| domain.split('.'));
    // A packet has room for that beside the rest; a label's length has six bits (RFC 1035, 2.3.4).
    if labels.map(str::len).any(|len| len > 63) || net.search.iter().map(|domain| domain.len() + 2).sum::<usize>() > 128
    {
        return Err(CliError::new(option, "dnssearch: longer than 128 characters"));
    }
    let file = values.text("bootfile").unwrap_or_default();
    if file.len() > NetBoot::LONGEST {
        return Err(CliError::new(option, format!("bootfile: longer than {} characters", NetBoot::LONGEST)));
    }
    net.boot.file = file.to_owned();
    net.boot.tftp = values.text("tftp").map(Into::into);
    Ok(())
}

/// What guestfwd= is told as.
const GUESTFWD: &str = "-netdev user: guestfwd";

/// `[tcp]:ADDRESS:PORT-SERVICE`.
fn guest_forward(text: &str, net: &UserNet, chardevs: &mut Chardevs) -> Result<GuestForward, CliError> {
    let wrong = || {
        let form = "[tcp]:ADDRESS:PORT-SERVICE, where SERVICE is cmd:COMMAND, tcp:HOST:PORT, unix:PATH or chardev:ID";
        CliError::new(GUESTFWD, format!("'{text}' is not of the form {form}"))
    };
    let (place, service) = text.split_once('-').ok_or_else(wrong)?;
    let place = place.strip_prefix("tcp:").or_else(|| place.strip_prefix(':')).ok_or_else(wrong)?;
    let (address, port) = place.split_once(':').ok_or_else(wrong)?;
    // QEMU's, if there is none.
    let address = if address.is_empty() { Ok(net.address(4)) } else { address.parse() }.map_err(|_| wrong())?;
    let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
    let guest = SocketAddrV4::new(address, port);
    if !net.contains(address) || [net.host, net.dns, net.dhcp_start].contains(&address) {
        return Err(CliError::new(GUESTFWD, format!("'{address}' is not a free address of the guest's network")));
    }
    let place = match service.split_once(':').ok_or_else(wrong)? {
        ("cmd", command) => {
            let words = shlex::split(command).filter(|words| !words.is_empty());
            let words = words.ok_or_else(|| CliError::new(GUESTFWD, format!("'{command}' is not a command")))?;
            return Ok(GuestForward { guest, to: Service::Run(words) });
        }
        ("chardev", id) => match chardevs.take(GUESTFWD, id)?.plain() {
            Chardev::Socket(place) => place.clone(),
            other => return Err(CliError::new(GUESTFWD, format!("cannot lead to {other} yet, only to sockets"))),
        },
        (kind @ ("tcp" | "unix"), address) => monitors::socket(GUESTFWD, kind, address, monitors::MONITOR)?.0,
        _ => return Err(wrong()),
    };
    let to = match place {
        MonitorSocket::Unix { path, server: false, .. } => Endpoint::Unix(path),
        MonitorSocket::Tcp { host, port, server: false, .. } => Endpoint::Inet(super::lookup(GUESTFWD, &host, port)?),
        other => return Err(CliError::new(GUESTFWD, format!("cannot lead to {other} yet, only to a server"))),
    };
    Ok(GuestForward { guest, to: Service::Connect(to) })
}

/// A network as `ADDRESS[/BITS]` or `ADDRESS/MASK`.
fn network(text: &str) -> Option<UserNet> {
    let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix = match mask {
        Some(mask) if mask.contains('.') => {
            let mask = mask.parse::<Ipv4Addr>().ok()?.to_bits();
            (mask.leading_ones() == mask.count_ones()).then_some(mask.leading_ones() as u8)?
        }
        Some(bits) => bits.parse().ok()?,
        // The classes of before (RFC 791, 3.2), as QEMU does.
        None if address.octets()[0] < 128 => 8,
        None if address.octets()[0] < 192 => 16,
        None => 24,
    };
    // DHCP gives away an address beside the gateway's and the name server's.
    (8..=29).contains(&prefix).then(|| UserNet::new(address, prefix))
}

/// The keys of what is not there, among those given.
pub(super) fn lacking(option: &str, values: &Values) -> Option<String> {
    let texts = ["ipv6-prefix", "ipv6-host", "ipv6-dns"].iter().any(|key| values.text(key).is_some());
    let wanted = texts || values.number("ipv6-prefixlen").is_some() || values.word("ipv6") == Some("on");
    wanted.then(|| format!("{option}: ipv6: the guest's network has IPv4 only"))
}
