//! Networks: `-netdev`, `-nic`, `-net`, and what of `-device` goes with them.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use mimus_hw::net::mac_address;
use mimus_hw::registry::{self, Board, E1000, Model, VIRTIO_NET};

use super::Stop;
use super::chardev::Chardevs;
use super::error::CliError;
use super::families::{DEVICES_LATER, Family, Offer, lacks, later, yes};
use super::keyval::{self, Item, Key, Kind, Values, accepted, key, key_later as not_yet};
use super::{disks, subjects};
use mimus_host::config::{Capture, Endpoint, FIRST_MAC, Link, NetBackend, Netdev, Plug};
use user::USER;

mod user;

const ID: Key = key("id", Kind::Text("a name"), "what -device calls it");
const SLOT: Key = Key::of(&registry::ADDR);
const ON_OFF: Kind = Kind::Word(&["on", "off"]);
const ADDRESS: Kind = Kind::Text("an IPv4 address");
const ADDRESS_TYPE: Kind = Kind::Word(&["unix", "inet"]);
const PATH: Kind = Kind::Text("a file name");
const HOST: Kind = Kind::Text("an address or a name");
const PORT: Kind = Kind::Number(0, 65535);

const STREAM: &[Key] = &[
    ID,
    key("server", ON_OFF, "on: wait for the other program to connect"),
    key("reconnect", Kind::Number(0, 3600), "connect again, each second, when the connection is gone; 0: do not"),
    key("addr.type", ADDRESS_TYPE, "the kind of socket"),
    key("addr.path", PATH, "a unix socket"),
    key("addr.host", HOST, "an inet socket's address"),
    key("addr.port", PORT, "an inet socket's port"),
    not_yet("addr.str"),
    not_yet("addr.to"),
];

const DGRAM: &[Key] = &[
    ID,
    key("local.type", ADDRESS_TYPE, "the kind of socket that receives"),
    key("local.path", PATH, "a unix socket"),
    key("local.host", HOST, "an inet socket's address, or of the interface to a multicast group"),
    key("local.port", PORT, "an inet socket's port"),
    key("remote.type", ADDRESS_TYPE, "the kind of socket that is sent to"),
    key("remote.path", PATH, "a unix socket"),
    key("remote.host", HOST, "an inet socket's address, which may be a multicast group's"),
    key("remote.port", PORT, "an inet socket's port"),
    not_yet("local.str"),
    not_yet("remote.str"),
];

const SOCKET: &[Key] = &[
    ID,
    key("listen", Kind::Text("[HOST]:PORT"), "wait there for the other program to connect"),
    key("connect", Kind::Text("HOST:PORT"), "connect there"),
    key("mcast", Kind::Text("GROUP:PORT"), "exchange datagrams with a multicast group"),
    key("udp", Kind::Text("HOST:PORT"), "send datagrams there"),
    key("localaddr", Kind::Text("ADDRESS or ADDRESS:PORT"), "the interface to the group, or where datagrams come"),
    not_yet("fd"),
];

/// `-netdev`.
pub(super) const NETDEV: Family = Family {
    option: "-netdev",
    noun: "a network",
    implied: "type",
    heading: "Available netdev backend types:",
    common: &[],
    choices: &[
        yes("user", "a gateway with the host's sockets behind it", USER),
        yes("stream", "frames over a stream, as to passt", STREAM),
        yes("dgram", "frames in datagrams", DGRAM),
        yes("socket", "frames to another guest", SOCKET),
        lacks("tap", &subjects::TAP),
        lacks("bridge", &subjects::TAP),
        later("l2tpv3"),
        later("vde"),
        later("netmap"),
        later("hubport"),
        lacks("vhost-user", &subjects::VHOST),
        lacks("vhost-vdpa", &subjects::VHOST),
        later("vmnet-*"),
        later("af-xdp"),
        later("passt"),
    ],
};

/// Models of adapters for `-nic` and `-net nic`: their names, and what they are on each board, if they are there.
const MODELS: &[(&str, Option<&Model>, &Model)] = &[
    (E1000.name, None, E1000),
    (E1000.aliases[0], None, E1000),
    ("virtio", Some(VIRTIO_NET.slot), VIRTIO_NET.pci),
    (VIRTIO_NET.pci.name, Some(VIRTIO_NET.slot), VIRTIO_NET.pci),
    (VIRTIO_NET.slot.name, Some(VIRTIO_NET.slot), VIRTIO_NET.pci),
];

/// An adapter that `-nic` or `-net nic` asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// As typed.
    pub option: String,
    /// The name of its model; the default of the machine if there is none.
    model: Option<&'static str>,
    /// As typed.
    pub mac: Option<String>,
    /// Where it is.
    pub plug: Plug,
    /// What it is plugged into.
    pub netdev: Option<Netdev>,
}

impl Wanted {
    /// The row of what it is on this board.
    pub(super) fn row(&self, board: Board) -> Result<&'static Model, CliError> {
        let Some(name) = self.model else { return Ok(if board == Board::Pc { E1000 } else { VIRTIO_NET.slot }) };
        let row = MODELS.iter().find(|(known, ..)| *known == name);
        let row = row.and_then(|(_, slot, pci)| if board == Board::Pc { Some(*pci) } else { *slot });
        row.ok_or_else(|| CliError::new(&*self.option, "model: this machine has no bus for it, but virtio-net-device"))
    }
}

/// Networks that wait for an adapter, and adapters that wait for a slot.
#[derive(Debug, Default)]
pub(super) struct Networks {
    waiting: Vec<Netdev>,
    ids: Vec<String>,
    wanted: Vec<Wanted>,
    /// Networks of `-net`, which all adapters of `-net nic` are on.
    shared: Vec<Netdev>,
    /// There was an option about networks: the machine's own adapter is left out.
    any: bool,
    warnings: Vec<String>,
}

impl Networks {
    /// Parses a `-netdev`.
    pub(super) fn netdev(&mut self, text: &str, chardevs: &mut Chardevs) -> Result<(), Stop> {
        self.any = true;
        let items = keyval::split("-netdev", text)?;
        let netdev = self.network(&NETDEV, items, chardevs)?;
        if netdev.id.is_empty() {
            return Err(CliError::new("-netdev", "needs id=ID for a -device").into());
        }
        if self.ids.contains(&netdev.id) {
            return Err(CliError::new("-netdev", format!("the id '{}' is given twice", netdev.id)).into());
        }
        self.ids.push(netdev.id.clone());
        self.waiting.push(netdev);
        Ok(())
    }

    /// Parses a `-nic`.
    pub(super) fn nic(&mut self, text: &str, chardevs: &mut Chardevs) -> Result<(), Stop> {
        self.any = true;
        if text == "none" {
            return Ok(());
        }
        let mut items = keyval::split("-nic", text)?;
        let wanted = adapter("-nic", &mut items, "mac")?;
        let netdev = self.network(&Family { option: "-nic", ..NETDEV }, items, chardevs)?;
        self.wanted.push(Wanted { netdev: Some(netdev), ..wanted });
        Ok(())
    }

    /// Parses a `-net`.
    pub(super) fn net(&mut self, text: &str, chardevs: &mut Chardevs) -> Result<(), Stop> {
        self.any = true;
        let mut items = keyval::split("-net", text)?;
        match items.first() {
            Some(Item { key: None, value }) if value == "none" && items.len() == 1 => return Ok(()),
            Some(Item { key: None, value }) if value == "nic" => {}
            _ => {
                let netdev = self.network(&Family { option: "-net", ..NETDEV }, items, chardevs)?;
                self.shared.push(netdev);
                return Ok(());
            }
        }
        items.remove(0);
        let wanted = adapter("-net nic", &mut items, "macaddr")?;
        const KEYS: &[Key] =
            &[ID, SLOT, key("netdev", Kind::Text("the id of a -netdev"), ""), accepted("name"), accepted("vectors")];
        let values = keyval::typed("-net nic", &items, KEYS)?;
        let netdev = values.text("netdev").map(|id| self.take("-net nic", id)).transpose()?;
        let plug = Plug { addr: disks::plug("-net nic", &values)?.addr, ..Plug::default() };
        self.wanted.push(Wanted { netdev, plug, ..wanted });
        Ok(())
    }

    /// Has these records made, each of the network with its id.
    pub(super) fn record(&mut self, captures: &[(String, Capture)]) -> Result<(), CliError> {
        for (id, capture) in captures {
            let adapters = self.wanted.iter_mut().filter_map(|wanted| wanted.netdev.as_mut());
            let mut all = self.waiting.iter_mut().chain(adapters).chain(&mut self.shared);
            let netdev = all.find(|netdev| netdev.id == *id).ok_or_else(|| {
                CliError::new("-object filter-dump", format!("netdev: there is no network with id={id}"))
                    .following("-netdev")
            })?;
            netdev.captures.push(capture.clone());
        }
        Ok(())
    }

    /// A network from its kind and the keys of that.
    fn network(&mut self, family: &Family, items: Vec<Item>, chardevs: &mut Chardevs) -> Result<Netdev, Stop> {
        let (name, values) = super::chosen(family.parse_items(items, None)?)?;
        let option = format!("{} {name}", family.option);
        let backend = match name {
            "user" => {
                self.warnings.extend(user::lacking(&option, &values));
                NetBackend::User(user::parse(&option, &values, chardevs)?)
            }
            "stream" => NetBackend::Link(stream(&option, &values)?),
            "dgram" => NetBackend::Link(dgram(&option, &values)?),
            _ => NetBackend::Link(socket(&option, &values)?),
        };
        Ok(Netdev { id: values.text("id").unwrap_or_default().to_owned(), ..Netdev::of(backend) })
    }

    fn take(&mut self, option: &str, id: &str) -> Result<Netdev, CliError> {
        let Some(index) = self.waiting.iter().position(|netdev| netdev.id == id) else {
            return Err(match self.ids.iter().any(|known| known == id) {
                true => CliError::new(option, format!("netdev: '{id}' has a device already")),
                false => {
                    CliError::new(option, format!("netdev: there is no -netdev with id={id}")).following("-netdev")
                }
            });
        };
        Ok(self.waiting.remove(index))
    }

    /// The network that a `-device` with these keys is plugged into.
    pub(super) fn device(&mut self, option: &str, values: &Values) -> Result<Option<Netdev>, CliError> {
        self.any = true;
        values.text("netdev").map(|id| self.take(option, id)).transpose()
    }

    /// Whether nothing was said about networks.
    pub(super) fn silent(&self) -> bool {
        !self.any
    }

    /// The adapters that have no `-device`. Each has one `-net` network at most.
    pub(super) fn adapters(&mut self) -> Vec<Wanted> {
        for netdev in std::mem::take(&mut self.shared) {
            let free = self.wanted.iter_mut().find(|wanted| wanted.option == "-net nic" && wanted.netdev.is_none());
            match free {
                Some(wanted) => wanted.netdev = Some(netdev),
                None => self.warnings.push("-net: a network without a -net nic of its own is left out".to_owned()),
            }
        }
        std::mem::take(&mut self.wanted)
    }

    /// What is to be told of networks that no adapter is in, and of what is missing.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let unused = self.waiting.iter().map(|netdev| format!("-netdev: no -device uses the network '{}'", netdev.id));
        self.warnings.iter().cloned().chain(unused)
    }
}

/// Takes what is about the adapter out of `items`.
fn adapter(option: &str, items: &mut Vec<Item>, mac: &str) -> Result<Wanted, CliError> {
    let mut take = |name: &str| -> Option<String> {
        let index = items.iter().position(|item| item.key.as_deref() == Some(name))?;
        Some(items.remove(index).value)
    };
    let (model, mac) = (take("model"), take(mac));
    let model = model.map(|name| {
        let found = MODELS.iter().find(|(known, ..)| *known == name).map(|(name, ..)| *name);
        found.ok_or_else(|| {
            let lacking = DEVICES_LATER.iter().find(|choice| choice.is(&name)).map(|choice| choice.offer);
            if let Some(Offer::Lacks(subject)) = lacking {
                return CliError::new(option, subject.lacking(&format!("model={name}")));
            }
            let names: Vec<&str> = MODELS.iter().map(|(name, ..)| *name).collect();
            CliError::new(option, format!("model: '{name}' is not supported yet (supported: {})", names.join(", ")))
        })
    });
    Ok(Wanted { option: option.to_owned(), model: model.transpose()?, mac, plug: Plug::default(), netdev: None })
}

/// The address of a host, whose name is looked up.
fn lookup(option: &str, host: &str, port: u16) -> Result<SocketAddr, CliError> {
    let wrong = |why: String| CliError::new(option, format!("'{host}': {why}"));
    let mut found = (host, port).to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("has no address".to_owned()))
}

/// An end of a connection from the keys that begin with `prefix`.
fn endpoint(option: &str, values: &Values, [kind, path, host, port]: [&str; 4]) -> Result<Option<Endpoint>, CliError> {
    let needs = |key: &str| CliError::new(option, format!("needs {key}="));
    match values.word(kind) {
        Some("unix") => {
            let path = values.text(path).filter(|path| !path.is_empty()).ok_or_else(|| needs(path))?;
            Ok(Some(Endpoint::Unix(path.into())))
        }
        Some(_) => {
            let host = values.text(host).ok_or_else(|| needs(host))?;
            let port = values.number(port).ok_or_else(|| needs(port))?;
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            Ok(Some(Endpoint::Inet(lookup(option, host, u16::try_from(port).unwrap_or(0))?)))
        }
        None => Ok(None),
    }
}

const ADDR: [&str; 4] = ["addr.type", "addr.path", "addr.host", "addr.port"];
const LOCAL: [&str; 4] = ["local.type", "local.path", "local.host", "local.port"];
const REMOTE: [&str; 4] = ["remote.type", "remote.path", "remote.host", "remote.port"];

fn stream(option: &str, values: &Values) -> Result<Link, CliError> {
    let end = endpoint(option, values, ADDR)?.ok_or_else(|| CliError::new(option, "needs addr.type="))?;
    Ok(match values.word("server") {
        Some("on") => Link::Listen(end),
        _ => Link::Connect { end, reconnect: values.number("reconnect").unwrap_or(0) != 0 },
    })
}

fn dgram(option: &str, values: &Values) -> Result<Link, CliError> {
    let local = endpoint(option, values, LOCAL)?;
    match (endpoint(option, values, REMOTE)?, local) {
        (None, None) => Err(CliError::new(option, "needs local.type= or remote.type=")),
        (Some(Endpoint::Inet(SocketAddr::V4(group))), local) if group.ip().is_multicast() => {
            let interface = match local {
                Some(Endpoint::Inet(SocketAddr::V4(local))) => Some(*local.ip()),
                _ => None,
            };
            Ok(Link::Multicast { group, interface })
        }
        (remote, local) => Ok(Link::Datagrams { local, remote }),
    }
}

fn socket(option: &str, values: &Values) -> Result<Link, CliError> {
    let end = |name: &str| -> Result<Option<SocketAddr>, CliError> {
        let Some(text) = values.text(name) else { return Ok(None) };
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) =
            parts.ok_or_else(|| CliError::new(option, format!("{name}: '{text}' is not of the form HOST:PORT")))?;
        lookup(option, if host.is_empty() { "0.0.0.0" } else { host }, port).map(Some)
    };
    let given = ["listen", "connect", "mcast", "udp"].map(|name| values.text(name).is_some());
    if given.iter().filter(|&&given| given).count() != 1 {
        return Err(CliError::new(option, "needs one of listen=, connect=, mcast= and udp="));
    }
    if let Some(end) = end("listen")? {
        return Ok(Link::Listen(Endpoint::Inet(end)));
    }
    if let Some(end) = end("connect")? {
        return Ok(Link::Connect { end: Endpoint::Inet(end), reconnect: false });
    }
    if let Some(remote) = end("udp")? {
        let local = end("localaddr")?.ok_or_else(|| CliError::new(option, "udp= needs localaddr=ADDRESS:PORT"))?;
        let (local, remote) = (Some(Endpoint::Inet(local)), Some(Endpoint::Inet(remote)));
        return Ok(Link::Datagrams { local, remote });
    }
    let interface = values.text("localaddr").map(str::parse::<Ipv4Addr>).transpose();
    let interface = interface.map_err(|_| CliError::new(option, "localaddr: not an IPv4 address"))?;
    match end("mcast")? {
        Some(SocketAddr::V4(group)) if group.ip().is_multicast() => Ok(Link::Multicast { group, interface }),
        _ => Err(CliError::new(option, "mcast: not the address of a multicast group")),
    }
}

/// A hardware address; the default of adapter number `index` if there is no text.
pub(super) fn mac(option: &str, text: Option<&str>, index: usize) -> Result<[u8; 6], CliError> {
    let Some(text) = text else {
        let [a, b, c, d, e, last] = FIRST_MAC;
        return Ok([a, b, c, d, e, last.wrapping_add(index as u8)]);
    };
    let wrong = |what: &str| CliError::new(option, format!("mac: '{text}' is {what}"));
    let address = mac_address(text).ok_or_else(|| wrong("not six bytes"))?;
    // The lowest bit of the first byte marks groups (IEEE 802, 8.2.2).
    if address[0] & 1 != 0 {
        return Err(wrong("an address of a group"));
    }
    Ok(address)
}
