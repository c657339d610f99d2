//! `-monitor`, `-qmp`, `-gdb` and what identifies a machine to who manages it.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::chardev::{self, Chardevs};
use super::keyval::{self, Item};
use super::{CliError, Given, isa, utf8};
use mimus_host::config::{Chardev, MonitorSocket, PtyName};
use mimus_machine::config::Config;

/// The port of `-s`.
const GDB_PORT: u16 = 1234;

/// Where to listen unless another host is named: nobody else is to reach a machine's insides.
pub(super) const LOOPBACK: &str = "127.0.0.1";

const SUPPORTED: &str = "(supported: stdio, file:FILE, pipe:FILE, pty, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, udp:HOST:PORT, \
                         /dev/PORT, chardev:ID, none)";

/// What an endpoint does unless it says otherwise.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    server: bool,
    wait: bool,
}

/// QEMU's defaults for monitors: a client; a server waits.
pub(super) const MONITOR: Defaults = Defaults { server: false, wait: true };

/// And for debuggers.
const DEBUGGER: Defaults = Defaults { server: true, wait: false };

/// What the items behind an address say.
struct Settings {
    server: bool,
    wait: bool,
    telnet: bool,
    /// Seconds; 0 for never.
    reconnect: u32,
}

/// Which setting an item behind an address means.
fn setting(option: &str, item: &Item, settings: &mut Settings) -> Result<(), CliError> {
    let on = match &*item.value {
        "on" | "yes" | "true" => Some(true),
        "off" | "no" | "false" => Some(false),
        _ => None,
    };
    match (item.key.as_deref(), &*item.value, on) {
        (None, "server", _) => settings.server = true,
        (None, "wait", _) => settings.wait = true,
        (None, "nowait", _) => settings.wait = false,
        (None, "telnet", _) => settings.telnet = true,
        (Some("server"), _, Some(on)) => settings.server = on,
        (Some("wait"), _, Some(on)) => settings.wait = on,
        (Some("telnet"), _, Some(on)) => settings.telnet = on,
        (Some("reconnect"), value, _) => {
            let wrong = || CliError::new(option, format!("reconnect={value}: seconds are expected"));
            settings.reconnect = value.parse().map_err(|_| wrong())?;
        }
        // Small answers are never held back, and addresses are taken as they are.
        (None, "nodelay" | "ipv4", _) | (Some("nodelay" | "ipv4"), _, Some(true)) => {}
        (Some("ipv6" | "websocket"), _, Some(false)) => {}
        (Some(key @ ("server" | "wait" | "telnet")), value, None) => {
            return Err(CliError::new(option, format!("{key}={value}: on or off is expected")));
        }
        (key, value, _) => {
            let name = key.unwrap_or(value);
            let message = format!("'{name}' is not supported here (settings: server, wait, telnet, reconnect)");
            return Err(CliError::new(option, message));
        }
    }
    Ok(())
}

/// Parses a socket's address and settings; what kind of socket it is has been split off. With it, the seconds after which it is to
/// be connected to again, 0 for never.
pub(super) fn socket(
    option: &str,
    kind: &str,
    address: &str,
    Defaults { server, wait }: Defaults,
) -> Result<(MonitorSocket, u32), CliError> {
    let items = keyval::split(option, address)?;
    let (first, rest) = items.split_first().ok_or_else(|| CliError::new(option, "the address is missing"))?;
    let mut settings = Settings { server, wait, telnet: kind == "telnet", reconnect: 0 };
    rest.iter().try_for_each(|item| setting(option, item, &mut settings))?;
    let Settings { server, wait, telnet, reconnect } = settings;
    if server && reconnect != 0 {
        return Err(CliError::new(option, "reconnect= is for server=off"));
    }
    // A name may have an equals sign.
    let address = match &first.key {
        Some(key) => format!("{key}={}", first.value),
        None => first.value.clone(),
    };
    let wait = server && wait;
    if kind == "unix" {
        if telnet {
            return Err(CliError::new(option, "telnet is for tcp:"));
        }
        return Ok((MonitorSocket::Unix { path: PathBuf::from(address), server, wait }, reconnect));
    }
    let wrong = || CliError::new(option, format!("'{address}' is not HOST:PORT"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { LOOPBACK } else { host }.to_owned();
    let place = MonitorSocket::Tcp { host, port, server, wait };
    Ok((if telnet { MonitorSocket::Telnet(place.into()) } else { place }, reconnect))
}

/// Parses a place to connect at; `None` for none.
pub(super) fn endpoint(
    name: &str,
    value: &OsStr,
    defaults: Defaults,
    chardevs: &mut Chardevs,
) -> Result<Option<MonitorSocket>, CliError> {
    let option = format!("-{name}");
    let text = utf8(name, value)?;
    match text.split_once(':') {
        _ if chardev::is_virtual(value) => Ok(None),
        None if matches!(text, "none" | "null" | "/dev/null") => Ok(None),
        None if text == "stdio" => Ok(Some(MonitorSocket::Stdio)),
        None if text == "pty" => Ok(Some(MonitorSocket::Pty(PtyName::default()))),
        Some(("mon", "stdio")) => Ok(Some(MonitorSocket::Stdio)),
        Some(("chardev", id)) => place(&option, chardevs.take(&option, id)?, name != "monitor"),
        Some((kind @ ("unix" | "tcp" | "telnet"), address)) => match socket(&option, kind, address, defaults)? {
            (place, 0) => Ok(Some(place)),
            (socket, seconds) => place(&option, Chardev::Reconnecting(socket, seconds), true),
        },
        Some(("file" | "pipe" | "udp", _)) => place(&option, chardev::parse(name, value, false, chardevs)?, true),
        None if text.starts_with("/dev/") => place(&option, chardev::parse(name, value, false, chardevs)?, true),
        _ => Err(CliError::new(option, format!("'{text}' is not supported {SUPPORTED}"))),
    }
}

/// Where a monitor on a character device is; nowhere of its own for `None`. `control` is for programs.
pub(super) fn place(option: &str, chardev: Chardev, control: bool) -> Result<Option<MonitorSocket>, CliError> {
    match chardev {
        Chardev::Socket(place) => Ok(Some(place)),
        Chardev::Pty(name) => Ok(Some(MonitorSocket::Pty(name))),
        // Ctrl-A c leads there.
        Chardev::Stdio { mux: true } if !control => Ok(None),
        Chardev::Stdio { mux: false } => Ok(Some(MonitorSocket::Stdio)),
        Chardev::Null => Ok(None),
        Chardev::Logged { chardev, .. } | Chardev::Named { chardev, .. } => place(option, *chardev, control),
        Chardev::Stdio { mux: true } => {
            Err(CliError::new(option, "QMP cannot share standard input and output with others yet"))
        }
        other => Ok(Some(MonitorSocket::At(other.into()))),
    }
}

fn endpoints(given: &Given, name: &'static str, chardevs: &mut Chardevs) -> Result<Vec<MonitorSocket>, CliError> {
    let all = given.all(name).map(|value| endpoint(name, value, MONITOR, chardevs));
    Ok(all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Reads the options that say where monitors and debuggers are. To be called when the serial port is settled; whether that was
/// `explicit`.
pub(super) fn monitors(
    given: &Given,
    explicit: bool,
    chardevs: &mut Chardevs,
    config: &mut Config,
) -> Result<(), CliError> {
    config.monitors = endpoints(given, "monitor", chardevs)?;
    config.qmp = endpoints(given, "qmp", chardevs)?;
    let pretty = endpoints(given, "qmp-pretty", chardevs)?;
    if !pretty.is_empty() && !config.qmp.is_empty() {
        return Err(CliError::new("-qmp-pretty", "cannot be combined with -qmp yet"));
    }
    config.qmp_pretty = !pretty.is_empty();
    config.qmp.extend(pretty);
    chardev::mon(given, chardevs, config)?;
    config.warnings.extend(chardevs.monitors_with_logs());
    config.gdb = match given.one("gdb") {
        Some(_) if given.flag("s") => return Err(CliError::new("-s", "cannot be combined with -gdb")),
        Some(value) => endpoint("gdb", value, DEBUGGER, chardevs)?,
        None if given.flag("s") => {
            Some(MonitorSocket::Tcp { host: LOOPBACK.to_owned(), port: GDB_PORT, server: true, wait: false })
        }
        None => None,
    };
    config.start_stopped = given.flag("S") || config.settings.no_machine;
    let named = [("-monitor", &*config.monitors), ("-qmp", &*config.qmp), ("-gdb", config.gdb.as_slice())];
    let users: Vec<&str> = named
        .iter()
        .flat_map(|(option, all)| all.iter().map(move |endpoint| (*option, endpoint)))
        .filter_map(|(option, endpoint)| (*endpoint == MonitorSocket::Stdio).then_some(option))
        .collect();
    let serial = isa::readers_of_stdio(config) != 0;
    match users.split_first() {
        // In QEMU the port would be in a window then.
        Some((_, [])) if serial && !explicit && !config.nographic => isa::disconnect(config),
        Some((user, more)) if serial || !more.is_empty() => {
            return Err(CliError::new(*user, "cannot use stdio by multiple character devices"));
        }
        _ => {}
    }
    Ok(())
}

/// Reads `-uuid` and `-pidfile`.
pub(super) fn identity(given: &Given, config: &mut Config) -> Result<(), CliError> {
    if let Some(text) = given.text("uuid")? {
        config.uuid = Some(uuid("-uuid", text)?);
    }
    config.pid_file = given.path("pidfile")?;
    Ok(())
}

/// A UUID in its usual form, in lower case.
pub(super) fn uuid(option: &str, text: &str) -> Result<String, CliError> {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if parts != [8, 4, 4, 4, 12] || !hex {
        return Err(CliError::new(option, format!("'{text}' is not a UUID")));
    }
    Ok(text.to_ascii_lowercase())
}

/// The share of a host CPU in percent that `cpu-limit` names, such as `25%`.
pub(super) fn cpu_limit(text: &str) -> Result<u8, CliError> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|percent| (1..=100).contains(percent));
    number.ok_or_else(|| CliError::new("-accel jit", format!("cpu-limit={text}: a share from 1% to 100% is expected")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, defaults: Defaults) -> Result<Option<MonitorSocket>, String> {
        let mut chardevs = Chardevs::default();
        endpoint("monitor", OsStr::new(text), defaults, &mut chardevs).map_err(|error| error.to_string())
    }

    fn tcp(host: &str, port: u16, server: bool, wait: bool) -> Result<Option<MonitorSocket>, String> {
        Ok(Some(MonitorSocket::Tcp { host: host.to_owned(), port, server, wait }))
    }

    #[test]
    fn places_are_written_as_qemu_has_them() {
        let unix = |server, wait| Ok(Some(MonitorSocket::Unix { path: "/tmp/a=b".into(), server, wait }));
        assert_eq!(parse("unix:/tmp/a=b,server=on,wait=off", MONITOR), unix(true, false));
        assert_eq!(parse("unix:/tmp/a=b,server,nowait", MONITOR), unix(true, false));
        assert_eq!(parse("unix:/tmp/a=b,server", MONITOR), unix(true, true));
        assert_eq!(parse("unix:/tmp/a=b", MONITOR), unix(false, false));
        assert_eq!(parse("tcp::1234", DEBUGGER), tcp("127.0.0.1", 1234, true, false));
        assert_eq!(parse("tcp:[::1]:4,server=off,nodelay", DEBUGGER), tcp("::1", 4, false, false));
        assert_eq!(parse("stdio", MONITOR), Ok(Some(MonitorSocket::Stdio)));
        assert_eq!(parse("pty", MONITOR), Ok(Some(MonitorSocket::Pty(PtyName::default()))));
        assert!(["none", "null", "/dev/null"].iter().all(|none| parse(none, MONITOR) == Ok(None)));
        let at = |chardev| Ok(Some(MonitorSocket::At(Box::new(chardev))));
        assert_eq!(
            parse("udp::7", MONITOR),
            at(Chardev::Udp { local: "0.0.0.0:0".into(), remote: "127.0.0.1:7".into() })
        );
        assert_eq!(parse("/dev/ttyS9", MONITOR), at(Chardev::Device("/dev/ttyS9".into())));
        let socket = MonitorSocket::Unix { path: "/x".into(), server: false, wait: false };
        assert_eq!(parse("unix:/x,reconnect=1", MONITOR), at(Chardev::Reconnecting(socket, 1)));
        let telnet = tcp("h", 4, true, false).map(|place| place.map(|place| MonitorSocket::Telnet(place.into())));
        assert_eq!(parse("telnet:h:4,server,nowait", MONITOR), telnet);
        assert_eq!(parse("tcp:h:4,telnet=on,server=on,wait=off,ipv4", MONITOR), telnet);
    }

    #[test]
    fn what_is_wrong_names_the_option() {
        for wrong in
            ["chardev:x", "tcp:1234", "tcp:a:b", "tcp::70000", "unix:", "unix:/x,server=maybe", "unix:/x,telnet=on"]
        {
            let error = parse(wrong, MONITOR).unwrap_err();
            assert!(error.starts_with("-monitor"), "{wrong}: {error}");
        }
        assert_eq!((cpu_limit("25%").ok(), cpu_limit("7").ok()), (Some(25), Some(7)));
        assert!(["0", "101%", "x", "%"].iter().all(|wrong| cpu_limit(wrong).is_err()));
    }
}
