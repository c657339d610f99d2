//! Rules of forwarded ports as text: the command line and monitors have them.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::config::{Forward, Protocol};

/// An address and a port as `[ADDRESS:]PORT`.
fn address(text: &str, default: Ipv4Addr) -> Option<SocketAddrV4> {
    let (address, port) = text.rsplit_once(':').unwrap_or(("", text));
    let address = if address.is_empty() { default } else { address.parse().ok()? };
    Some(SocketAddrV4::new(address, port.parse().ok().filter(|&port| port != 0)?))
}

/// A port of the host as `[tcp|udp]:[ADDRESS]:PORT`.
pub fn forwarded(text: &str) -> Option<(Protocol, SocketAddrV4)> {
    let (protocol, rest) = text.split_once(':')?;
    let protocol = match protocol {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((protocol, address(rest, Ipv4Addr::UNSPECIFIED)?))
}

/// What `hostfwd=` says; `guest` is the guest's address unless it is named.
pub fn forward(text: &str, guest: Ipv4Addr) -> Option<Forward> {
    let (from, to) = text.split_once('-')?;
    let (protocol, host) = forwarded(from)?;
    Some(Forward { protocol, host, guest: address(to, guest)? })
}
