//! The gateway's DHCP server (RFC 2131).

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, IpProtocol,
};

use super::{Gateway, packet};
use crate::net::Context;

/// Addresses that are given away, at most.
const LEASES: usize = 16;
/// Seconds that an address is leased for.
const LEASE_TIME: u32 = 24 * 3600;
/// Options that smoltcp has no fields for (RFC 2132, 3.14 and 3.17).
const OPTION_HOST_NAME: u8 = 12;
const OPTION_DOMAIN_NAME: u8 = 15;
/// RFC 2132, 9.4.
const OPTION_TFTP_SERVER: u8 = 66;
/// RFC 3397.
const OPTION_DOMAIN_SEARCH: u8 = 119;
/// Where the name of the boot file is in a packet (RFC 2131, 2); a zero is behind it.
const BOOT_FILE: std::ops::Range<usize> = 108..235;

/// Domains as the option has them: each label with its length before it, and an empty one at the end (RFC 1035, 3.1).
pub fn encode_search(domains: &[String]) -> Vec<u8> {
    let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
    let domain = |domain: &String| {
        let mut bytes: Vec<u8> = domain.split('.').filter(|part| !part.is_empty()).flat_map(label).collect();
        bytes.push(0);
        bytes
    };
    domains.iter().flat_map(domain).collect()
}

/// Who has which address: the first has the first that is given away.
#[derive(Debug, Default)]
pub(super) struct Leases {
    clients: Vec<EthernetAddress>,
    /// Which one a client too many replaces.
    oldest: usize,
}

impl Leases {
    /// The number of the address that `client` has or gets.
    fn number(&mut self, client: EthernetAddress, most: usize) -> usize {
        if let Some(number) = self.clients.iter().position(|&known| known == client) {
            return number;
        }
        if self.clients.len() < most {
            self.clients.push(client);
            return self.clients.len() - 1;
        }
        let number = self.oldest % most.max(1);
        self.oldest = number + 1;
        if let Some(known) = self.clients.get_mut(number) {
            *known = client;
        }
        number
    }
}

impl Gateway {
    /// The address that `client` gets.
    fn lease(&mut self, client: EthernetAddress) -> Ipv4Addr {
        let first = self.config.dhcp_start.to_bits();
        let last = self.config.last_address().to_bits();
        let most = LEASES.min(last.saturating_sub(first) as usize + 1);
        let number = self.leases.number(client, most);
        Ipv4Addr::from_bits(first.saturating_add(number as u32))
    }

    /// A datagram to the server's port.
    pub(super) fn dhcp(&mut self, payload: &[u8], cx: &mut Context) {
        let Ok(packet) = DhcpPacket::new_checked(payload) else { return };
        let Ok(request) = DhcpRepr::parse(&packet) else { return };
        let server = self.config.host;
        let client = request.client_hardware_address;
        if !client.is_unicast() {
            return;
        }
        let (kind, address) = match request.message_type {
            DhcpMessageType::Discover => (DhcpMessageType::Offer, self.lease(client)),
            DhcpMessageType::Request => {
                // It answers another server's offer (4.3.2).
                if request.server_identifier.is_some_and(|chosen| chosen != server) {
                    return;
                }
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                match self.lease(client) {
                    address if address == wanted => (DhcpMessageType::Ack, address),
                    _ => (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED),
                }
            }
            DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
            _ => return,
        };
        let settings = kind != DhcpMessageType::Nak;
        let leased = settings && !address.is_unspecified();
        if kind == DhcpMessageType::Ack && leased {
            // What is forwarded to it needs not ask for it first.
            self.learn(address, client);
        }
        let search = encode_search(&self.config.search);
        let texts = [
            (OPTION_HOST_NAME, self.config.hostname.as_bytes()),
            (OPTION_DOMAIN_NAME, self.config.domain.as_bytes()),
            (OPTION_TFTP_SERVER, self.config.boot.server.as_bytes()),
            (OPTION_DOMAIN_SEARCH, &search),
        ];
        let given = texts.into_iter().filter(|(_, data)| settings && !data.is_empty());
        let options: Vec<DhcpOption> = given.map(|(kind, data)| DhcpOption { kind, data }).collect();
        let reply = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: client,
            client_ip: if leased { request.client_ip } else { Ipv4Addr::UNSPECIFIED },
            your_ip: address,
            server_ip: server,
            router: (settings && !self.config.restrict).then_some(server),
            subnet_mask: settings.then(|| self.config.mask()),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(server),
            parameter_request_list: None,
            dns_servers: settings.then(|| [self.config.dns].into_iter().collect()),
            max_size: None,
            lease_duration: leased.then_some(LEASE_TIME),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &options,
        };
        let mut bytes = vec![0; reply.buffer_len()];
        if reply.emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice())).is_err() {
            return;
        }
        if let Some(field) = bytes.get_mut(BOOT_FILE).filter(|_| settings) {
            // A longer name is refused when it is given.
            field.iter_mut().zip(self.config.boot.file.as_bytes()).for_each(|(to, from)| *to = *from);
        }
        // A client that has no address yet hears broadcasts only (4.1).
        let (to, hardware) = match kind != DhcpMessageType::Nak && !request.client_ip.is_unspecified() {
            true => (request.client_ip, client),
            false => (Ipv4Addr::BROADCAST, EthernetAddress::BROADCAST),
        };
        let datagram = packet::udp((server, DHCP_SERVER_PORT), (to, DHCP_CLIENT_PORT), &bytes);
        let link = self.link(hardware);
        packet::ipv4(cx.queue, link, (server, to), IpProtocol::Udp, 0, &datagram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_labels() {
        let domains = ["eng.example.com".to_owned(), "local.".to_owned()];
        assert_eq!(encode_search(&domains), b"\x03eng\x07example\x03com\0\x05local\0");
    }
}
