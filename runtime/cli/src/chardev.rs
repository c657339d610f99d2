//! Character devices: `-chardev` and who refers to it.

use std::ffi::OsStr;
use std::path::PathBuf;

use mimus_hw::virtio::MAX_PORTS;

use super::families::{Chosen, Family, lacks, later, yes};
use super::keyval::{self, Item, Key, Kind, Values};
use super::{CliError, Given, Refused, Stop, argv, disks, monitors, subjects, utf8};
use mimus_host::chardev::Mux;
use mimus_host::config::{Chardev, MonitorSocket, PtyName};
use mimus_host::terminal::ESCAPE;
use mimus_hw::registry::{Model, VIRTCONSOLE};
use mimus_machine::config::{Backend, Config, Device};

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

const fn not_yet(name: &'static str) -> Key {
    Key { name, kind: Kind::NotYet, help: "" }
}

const ID: Key = key("id", Kind::Text("a name"), "what others call it");
const ON_OFF: Kind = Kind::Word(&["on", "off"]);
const PATH: Kind = Kind::Text("a file name");
const LOG: Key = key("logfile", PATH, "a copy of the output goes there");
const LOG_APPEND: Key = key("logappend", ON_OFF, "on: at its end");
const MUX: Key = key("mux", ON_OFF, "on: for several devices and monitors, the escape key and c lead to the next");

/// The ring's contents cannot be read in a monitor.
const RINGBUF: &[Key] = &[ID, key("size", Kind::Text("a power of two"), ""), MUX, LOG, LOG_APPEND];

/// The port's speed is as it was set on the host.
const DEVICE: &[Key] = &[ID, key("path", PATH, "the device's"), MUX, LOG, LOG_APPEND];

/// `-chardev`.
pub(super) const CHARDEV: Family = Family {
    option: "-chardev",
    noun: "a character device",
    implied: "backend",
    heading: "Available chardev backend types:",
    common: &[],
    choices: &[
        yes(
            "stdio",
            "standard input and output",
            &[
                ID,
                key("mux", ON_OFF, "on: Ctrl-C goes to the guest, and Ctrl-A c to the monitor"),
                key("signal", ON_OFF, "off: Ctrl-C goes to the guest; needs mux=on"),
                LOG,
                LOG_APPEND,
            ],
        ),
        yes("null", "nothing", &[ID, MUX, LOG, LOG_APPEND]),
        yes(
            "file",
            "output only",
            &[
                ID,
                key("path", PATH, "it is truncated"),
                key("append", ON_OFF, "on: it is not"),
                not_yet("input-path"),
                MUX,
                LOG,
                LOG_APPEND,
            ],
        ),
        yes(
            "pipe",
            "two named pipes, or one",
            &[ID, key("path", PATH, "the name without .in and .out"), MUX, LOG, LOG_APPEND],
        ),
        yes("pty", "a pseudo-terminal, whose name is told", &[ID, not_yet("path"), MUX, LOG, LOG_APPEND]),
        yes(
            "socket",
            "a Unix or TCP socket",
            &[
                ID,
                key("path", PATH, "a Unix socket"),
                key("host", Kind::Text("an address or a name"), "of a TCP socket, default the loopback interface"),
                key("port", Kind::Number(1, 65535), "of a TCP socket"),
                key("server", ON_OFF, "on: wait for others to connect"),
                key("wait", ON_OFF, "off: the guest starts before somebody has (default with server: on)"),
                key("fd", Kind::Text("a number"), "a socket that the process was started with"),
                key("reconnect", Kind::Number(0, 86_400), "connect again after so many seconds; 0: never"),
                key("telnet", ON_OFF, "on: clients speak telnet"),
                key("nodelay", Kind::Fixed("on"), ""),
                key("websocket", Kind::Fixed("off"), ""),
                key("abstract", Kind::Fixed("off"), ""),
                key("tight", Kind::Fixed("on"), ""),
                key("ipv4", Kind::Fixed("on"), ""),
                key("ipv6", Kind::Fixed("off"), ""),
                not_yet("tls-creds"),
                not_yet("tls-authz"),
                not_yet("to"),
                MUX,
                LOG,
                LOG_APPEND,
            ],
        ),
        yes(
            "udp",
            "datagrams",
            &[
                ID,
                key(
                    "host",
                    Kind::Text("an address or a name"),
                    "where they are sent to, default the loopback interface",
                ),
                key("port", Kind::Number(1, 65535), "where they are sent to"),
                key("localaddr", Kind::Text("an address"), "where they are received, default any"),
                key("localport", Kind::Number(0, 65535), "where they are received, default any"),
                key("ipv4", Kind::Fixed("on"), ""),
                key("ipv6", Kind::Fixed("off"), ""),
                MUX,
                LOG,
                LOG_APPEND,
            ],
        ),
        later("vc"),
        yes("ringbuf", "nowhere but to its logfile", RINGBUF),
        yes("memory", "the same", RINGBUF),
        yes("serial", "a serial port of the host's, or another device that is like one", DEVICE),
        yes("tty", "the same", DEVICE),
        lacks("parallel", &subjects::PARALLEL),
        lacks("parport", &subjects::PARALLEL),
        later("console"),
        later("msmouse"),
        later("wctablet"),
        later("braille"),
        later("testdev"),
        later("spice*"),
        later("dbus"),
        later("qemu-vdagent"),
        later("hub"),
    ],
};

/// A character device and who uses it.
#[derive(Debug)]
struct Named {
    id: String,
    chardev: Chardev,
    user: Option<String>,
}

/// Those of `-chardev`.
#[derive(Debug, Default)]
pub(super) struct Chardevs {
    all: Vec<Named>,
    /// The key that leads from one user of a shared one to the next.
    escape: Option<u8>,
}

/// The key of `-echr`.
pub(super) fn escape_key(given: &Given) -> Result<Option<u8>, CliError> {
    let parse = |text: &str| {
        let number = keyval::number(text).and_then(|number| u8::try_from(number).ok());
        number.ok_or_else(|| CliError::new("-echr", format!("'{text}' is not a number from 0 to 255")))
    };
    given.text("echr")?.map(parse).transpose()
}

/// Words that stand for a key with a value, as older command lines have them.
const WORDS: [(&str, &str, &str); 5] = [
    ("server", "server", "on"),
    ("nowait", "wait", "off"),
    ("wait", "wait", "on"),
    ("mux", "mux", "on"),
    ("telnet", "telnet", "on"),
];

impl Chardevs {
    /// Parses every `-chardev`.
    pub(super) fn parse(given: &Given, refused: &mut Refused) -> Result<Chardevs, Stop> {
        let escape = refused.note(escape_key(given))?.flatten();
        let mut all = Chardevs { all: Vec::new(), escape };
        refused.each(given, "chardev", |text| all.add(text))?;
        Ok(all)
    }

    fn add(&mut self, text: &str) -> Result<(), Stop> {
        let mut items = keyval::split("-chardev", text)?;
        for item in items.iter_mut().skip(1) {
            let word = WORDS.iter().find(|(word, ..)| item.key.is_none() && item.value == *word);
            if let Some((_, key, value)) = word {
                *item = Item { key: Some((*key).to_owned()), value: (*value).to_owned() };
            }
        }
        let (name, values) = match CHARDEV.parse_items(items, None)? {
            Chosen::Help(text) => return Err(Stop::Print(text)),
            Chosen::One(name, values) => (name, values),
        };
        let option = format!("-chardev {name}");
        let id = values.text("id").ok_or_else(|| CliError::new(&option, "needs id=ID"))?.to_owned();
        if self.all.iter().any(|named| named.id == id) {
            return Err(CliError::new("-chardev", format!("the id '{id}' is given twice")).into());
        }
        let chardev = backend(&option, name, &values)?;
        let shared = values.word("mux") == Some("on") && !is_stdio(&chardev);
        let chardev = match shared {
            true => Chardev::Mux(Mux::new(chardev, self.escape.unwrap_or(ESCAPE))),
            false => chardev,
        };
        self.all.push(Named { id, chardev, user: None });
        Ok(())
    }

    /// What to say of logs of those that monitors are at.
    pub(super) fn monitors_with_logs(&self) -> impl Iterator<Item = String> {
        let monitors = ["-mon", "-monitor", "-qmp", "-qmp-pretty"];
        let logged = self.all.iter().filter(move |named| {
            let monitor = named.user.as_deref().is_some_and(|user| monitors.contains(&user));
            monitor && matches!(named.chardev, Chardev::Logged { .. })
        });
        logged.map(|named| format!("-chardev id={}: logfile: what a monitor says is not logged", named.id))
    }

    /// The character device `id` for `option`. With `mux` several may use it.
    pub(super) fn take(&mut self, option: &str, id: &str) -> Result<Chardev, CliError> {
        let named = self.all.iter_mut().find(|named| named.id == id);
        let missing = || CliError::new(option, format!("there is no -chardev with id={id}")).following("-chardev");
        let named = named.ok_or_else(missing)?;
        let shared = matches!(named.chardev.plain(), Chardev::Stdio { mux: true } | Chardev::Mux(_));
        if let Some(user) = named.user.replace(option.to_owned()).filter(|_| !shared) {
            return Err(CliError::new(option, format!("the character device '{id}' is in use by {user}")));
        }
        Ok(Chardev::Named { id: id.to_owned(), chardev: named.chardev.clone().into() })
    }
}

/// The character device that `-chardev` describes.
fn backend(option: &str, name: &str, values: &Values) -> Result<Chardev, CliError> {
    let chardev = plain(option, name, values)?;
    let append = values.word("logappend") == Some("on");
    Ok(match values.text("logfile") {
        Some(file) => Chardev::Logged { chardev: chardev.into(), file: file.into(), append },
        None if append => return Err(CliError::new(option, "logappend= is for logfile=")),
        None => chardev,
    })
}

fn plain(option: &str, name: &str, values: &Values) -> Result<Chardev, CliError> {
    let path = || {
        let path = values.text("path").filter(|path| !path.is_empty());
        path.map(PathBuf::from).ok_or_else(|| CliError::new(option, "needs path=PATH"))
    };
    Ok(match name {
        "stdio" => {
            let mux = values.word("mux") == Some("on");
            if !mux && values.word("signal") == Some("off") {
                return Err(CliError::new(option, "signal=off is not supported yet without mux=on"));
            }
            Chardev::Stdio { mux }
        }
        "ringbuf" | "memory" if values.text("logfile").is_none() => {
            return Err(CliError::new(
                option,
                "ringbuf-read is not supported yet: only logfile=FILE shows what was written",
            ));
        }
        "null" | "ringbuf" | "memory" => Chardev::Null,
        "file" if values.word("append") == Some("on") => Chardev::Append(path()?),
        "file" => Chardev::File(path()?),
        "pipe" => Chardev::Pipe(path()?),
        "pty" => Chardev::Pty(PtyName::default()),
        "serial" | "tty" => Chardev::Device(path()?),
        "udp" => {
            let port = values.number("port").ok_or_else(|| CliError::new(option, "needs port=PORT"))?;
            let host = values.text("host").filter(|host| !host.is_empty()).unwrap_or(monitors::LOOPBACK);
            let local = values.text("localaddr").filter(|host| !host.is_empty()).unwrap_or("0.0.0.0");
            let local = format!("{local}:{}", values.number("localport").unwrap_or(0));
            Chardev::Udp { local, remote: format!("{host}:{port}") }
        }
        _ => socket(option, values)?,
    })
}

/// `-chardev socket`.
fn socket(option: &str, values: &Values) -> Result<Chardev, CliError> {
    let server = values.word("server") == Some("on");
    let wait = server && values.word("wait") != Some("off");
    if values.word("wait").is_some() && !server {
        return Err(CliError::new(option, "wait= is for server=on"));
    }
    let port = values.number("port").and_then(|port| u16::try_from(port).ok());
    let place = match (values.text("path"), port, values.text("fd")) {
        (Some(path), None, None) => MonitorSocket::Unix { path: path.into(), server, wait },
        (None, Some(port), None) => {
            let host = values.text("host").filter(|host| !host.is_empty()).unwrap_or(monitors::LOOPBACK);
            MonitorSocket::Tcp { host: host.to_owned(), port, server, wait }
        }
        (None, None, Some(fd)) => {
            let fd = fd.parse().map_err(|_| CliError::new(option, format!("fd={fd}: not a number")))?;
            MonitorSocket::Inherited { fd, server, wait }
        }
        _ => return Err(CliError::new(option, "needs path=PATH, or port=PORT and perhaps host=HOST")),
    };
    let place = match values.word("telnet") {
        Some("on") if values.text("path").is_some() => return Err(CliError::new(option, "telnet is for TCP")),
        Some("on") => MonitorSocket::Telnet(place.into()),
        _ => place,
    };
    Ok(match values.number("reconnect").and_then(|seconds| u32::try_from(seconds).ok()) {
        None | Some(0) => Chardev::Socket(place),
        Some(_) if server => return Err(CliError::new(option, "reconnect= is for server=off")),
        Some(seconds) => Chardev::Reconnecting(place, seconds),
    })
}

/// A port of a virtio console's controller, by `-device virtconsole` or `virtserialport`.
pub(super) fn port(
    model: &'static Model,
    option: &str,
    values: &Values,
    chardevs: &mut Chardevs,
    config: &mut Config,
) -> Result<(), CliError> {
    let id = values.text("chardev").ok_or_else(|| CliError::new(option, "needs chardev=ID"))?;
    let chardev = chardevs.take(option, id)?;
    let mut controllers = config.devices.iter_mut().filter_map(|device| match &mut device.backend {
        Backend::Ports(ports) => Some((ports, &device.plug.id)),
        _ => None,
    });
    let ports = match values.text("bus") {
        Some(bus) => {
            let id = bus.strip_suffix(".0").unwrap_or(bus);
            let found = controllers.find(|(_, controller)| **controller == id);
            found.ok_or_else(|| {
                CliError::new(option, format!("bus={bus}: no virtio-serial device before it is called so"))
            })?
        }
        None => {
            let mut any = false;
            let free = controllers.find(|(ports, _)| {
                any = true;
                ports.len() < MAX_PORTS as usize
            });
            let missing = || match any {
                true => CliError::new(option, format!("the virtio-serial device has its {MAX_PORTS} ports")),
                false => CliError::new(option, "needs a virtio-serial device before it"),
            };
            free.ok_or_else(missing)?
        }
    };
    let number = port_number(option, model == VIRTCONSOLE, values, ports.0)?;
    let port = Device { plug: disks::plug(option, values)?, values: values.of(model), ..Device::new(model, option) };
    ports.0.push(port.with("nr", number.into()).at(chardev));
    Ok(())
}

/// The number of a port to be: 0 is for a console, since drivers that know of no others use it as one.
fn port_number(option: &str, console: bool, values: &Values, ports: &[Device]) -> Result<u32, CliError> {
    let taken = |number: u32| ports.iter().any(|port| port.values.number("nr") == Some(number.into()));
    let first = u32::from(!console);
    match values.number("nr").and_then(|number| u32::try_from(number).ok()) {
        Some(0) if !console => Err(CliError::new(option, "nr=0 is for a virtconsole")),
        Some(number) if taken(number) => Err(CliError::new(option, format!("nr={number}: another port has it"))),
        Some(number) => Ok(number),
        None => {
            let free = (first..MAX_PORTS).find(|number| !taken(*number));
            free.ok_or_else(|| CliError::new(option, format!("the virtio-serial device has its {MAX_PORTS} ports")))
        }
    }
}

/// Whether it is standard input and output.
pub(super) fn is_stdio(chardev: &Chardev) -> bool {
    matches!(chardev.plain(), Chardev::Stdio { .. })
}

/// Reads `-mon`: monitors on character devices.
pub(super) fn mon(given: &Given, chardevs: &mut Chardevs, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        key("chardev", Kind::Text("the id of a -chardev"), ""),
        key("mode", Kind::Word(&["readline", "control"]), ""),
        key("pretty", ON_OFF, ""),
        key("id", Kind::Text("a name"), ""),
    ];
    for value in given.all("mon") {
        let values = keyval::parse("-mon", utf8("mon", value)?, "chardev", KEYS)?;
        let id = values.text("chardev").ok_or_else(|| CliError::new("-mon", "needs chardev=ID"))?;
        let control = values.word("mode") == Some("control");
        let Some(place) = monitors::place("-mon", chardevs.take("-mon", id)?, control)? else { continue };
        match control {
            true => {
                config.qmp_pretty |= values.word("pretty") == Some("on");
                config.qmp.push(place);
            }
            false => config.monitors.push(place),
        }
    }
    Ok(())
}

/// Character devices of QEMU that mimus does not have; a name that ends in `:` begins a value.
const NOT_YET: &[&str] =
    &["con:", "COM", "/dev/parport", "parport", "websocket:", "msmouse", "wctablet", "braille", "fake", "mon:"];

/// `udp:[HOST]:PORT[@[HOST]:PORT]`: where datagrams are sent to, and where they are received.
fn udp(option: &str, address: &str) -> Result<Chardev, CliError> {
    let (remote, local) = address.split_once('@').unwrap_or((address, ":0"));
    let end = |text: &str, host: &str| match text.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => {
            Ok(format!("{}:{port}", if name.is_empty() { host } else { name }))
        }
        _ => Err(CliError::new(option, format!("'{text}' is not HOST:PORT"))),
    };
    Ok(Chardev::Udp { local: end(local, "0.0.0.0")?, remote: end(remote, monitors::LOOPBACK)? })
}

/// Whether it is a console in the window that shows a screen, of which there is none.
pub(super) fn is_virtual(value: &OsStr) -> bool {
    let text = value.to_string_lossy();
    let text = text.strip_prefix("mon:").unwrap_or(&text);
    text == "vc" || text.starts_with("vc:")
}

/// Parses a character device as `-serial` and its kin have it.
pub(super) fn parse(name: &str, value: &OsStr, nographic: bool, chardevs: &mut Chardevs) -> Result<Chardev, CliError> {
    let option = format!("-{name}");
    for (prefix, make) in [("file:", Chardev::File as fn(PathBuf) -> Chardev), ("pipe:", Chardev::Pipe)] {
        if let Some(file) = argv::strip_prefix(value, prefix) {
            return match file.is_empty() {
                true => Err(CliError::new(option, format!("'{prefix}' needs a file name: {prefix}FILE"))),
                false => Ok(make(PathBuf::from(file))),
            };
        }
    }
    let text = value.to_string_lossy();
    let begins = |known: &&str| match known.ends_with(':') || ["COM", "/dev/parport"].contains(known) {
        true => text.starts_with(*known),
        false => text == *known,
    };
    let supported = "(supported: stdio, mon:stdio, file:FILE, pipe:FILE, pty, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, udp:HOST:PORT, \
         /dev/PORT, chardev:ID, null, none)";
    match &*text {
        "stdio" => Ok(Chardev::Stdio { mux: nographic }),
        "mon:stdio" => Ok(Chardev::Stdio { mux: true }),
        "null" | "mon:null" | "/dev/null" => Ok(Chardev::Null),
        _ if is_virtual(value) => Ok(Chardev::Null),
        "none" => Ok(Chardev::None),
        "pty" => Ok(Chardev::Pty(PtyName::default())),
        _ if let Some((kind @ ("unix" | "tcp" | "telnet"), address)) = utf8(name, value)?.split_once(':') => {
            Ok(match monitors::socket(&option, kind, address, monitors::MONITOR)? {
                (place, 0) => Chardev::Socket(place),
                (place, seconds) => Chardev::Reconnecting(place, seconds),
            })
        }
        _ if let Some(address) = text.strip_prefix("udp:") => udp(&option, address),
        _ if let Some(id) = text.strip_prefix("chardev:") => chardevs.take(&option, id),
        _ if text.starts_with("/dev/") && !NOT_YET.iter().any(begins) => Ok(Chardev::Device(value.into())),
        _ if NOT_YET.iter().any(begins) => {
            Err(CliError::new(option, format!("'{text}' is not supported yet {supported}")))
        }
        _ => Err(CliError::new(option, format!("'{text}' is not a character device {supported}"))),
    }
}
