//! The screen: `-vga`, `-display`, `-vnc`.

use mimus_hw::registry;

use super::error::CliError;
use super::families::{DISPLAY, VGA};
use super::globals::Globals;
use super::keyval::{self, Key, Kind};
use super::{Arch, Given, Stop, choose};
use mimus_host::display::{VncPlace, VncTarget};
use mimus_machine::config::Config;

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, help: "" }
}

/// The keys of `-vnc`.
const VNC: &[Key] = &[
    key("vnc", Kind::Text("a host and the number of a display, as in 127.0.0.1:1")),
    key("password", Kind::Word(&["on", "off"])),
    key("sasl", Kind::Fixed("off")),
    // Every picture is sent whole and exact.
    key("lossy", Kind::Accepted),
    key("non-adaptive", Kind::Accepted),
    key("reverse", Kind::Fixed("off")),
    // Nobody is sent away for somebody who would be alone.
    key("share", Kind::Word(&["ignore", "force-shared"])),
    key("acl", Kind::NotYet),
    key("audiodev", Kind::NotYet),
    key("connections", Kind::Accepted),
    key("head", Kind::NotYet),
    key("key-delay-ms", Kind::Accepted),
    key("lock-key-sync", Kind::Accepted),
    key("password-secret", Kind::NotYet),
    key("power-control", Kind::Fixed("off")),
    key("tls-creds", Kind::NotYet),
    key("to", Kind::Number(0, 65_535)),
    key("websocket", Kind::Without("there is no VNC by WebSocket")),
];

/// The largest number of a display: its port is 5900 more.
const LAST_DISPLAY: u16 = u16::MAX - 5900;

/// This host alone.
const LOOPBACK: &str = "127.0.0.1";

/// Whether `-vga`, or what a machine has without it, asks for an adapter beside those that are `plugged` in by `-device`.
fn is_wanted(given: &Given, arch: Arch, plugged: bool) -> Result<bool, Stop> {
    let Some(text) = given.text("vga")? else {
        return Ok(!plugged && arch == Arch::X86 && !given.flag("nodefaults"));
    };
    if choose(&VGA, text, None)?.0 == "none" {
        return Ok(false);
    }
    match (plugged, arch) {
        (true, _) => Err(CliError::new("-device VGA", registry::VGA.only_one.unwrap_or_default()).into()),
        (_, Arch::X86) => Ok(true),
        _ => Err(CliError::new("-vga", "only the machine pc has a display adapter").into()),
    }
}

/// Parses what there is of a screen and who sees it.
pub(super) fn parse(given: &Given, arch: Arch, globals: &Globals, config: &mut Config) -> Result<(), Stop> {
    if is_wanted(given, arch, config.display().is_some())? {
        config.devices.insert(0, globals.device(registry::VGA, "-vga")?);
    }
    let mut shown = None;
    match given.text("display")? {
        None => {}
        Some(text) => match text.strip_prefix("vnc=") {
            Some(text) => {
                config.vnc = vnc("-display vnc", text, config)?;
                shown = Some("-display");
            }
            None if let Some(window) = window(text) => {
                config.warnings.push(format!("-display {window}: there is no window: {SHOWN}"));
            }
            None => {
                config.curses = choose(&DISPLAY, text, None)?.0 == "curses";
                shown = config.curses.then_some("-display");
            }
        },
    }
    if let Some(text) = given.text("vnc")? {
        if config.vnc.is_some() {
            return Err(CliError::new("-vnc", "given with -display vnc, which is the same").into());
        }
        config.vnc = vnc("-vnc", text, config)?;
        shown = config.vnc.is_some().then_some("-vnc").or(shown);
    }
    if let Some(option) = shown
        && config.display().is_none()
    {
        return Err(CliError::new(option, "the machine has no display adapter").following("-device").into());
    }
    if given.flag("full-screen") {
        config.warnings.push("-full-screen: there is no window".to_owned());
    }
    if config.curses && config.nographic {
        return Err(CliError::new("-display", "curses cannot be combined with -nographic").into());
    }
    Ok(())
}

/// The name of a display that would be a window of the host's, without its keys.
fn window(text: &str) -> Option<&str> {
    let name = text.split(',').next().unwrap_or_default();
    let name = name.strip_prefix("type=").unwrap_or(name);
    ["gtk", "sdl", "cocoa", "default", "egl-headless"].into_iter().find(|known| *known == name)
}

/// What shows a screen.
const SHOWN: &str = "-vnc :0 shows the screen to VNC clients on this host, and -display curses its text";

/// How that begins.
pub(super) const HINT: &str = "nothing shows the guest's screen";

/// What to say where a guest draws on a screen that nobody sees, and nobody asked for that: QEMU would open a window.
pub(super) fn hint(given: &Given, config: &Config) -> Option<String> {
    let asked = config.nographic || given.one("display").is_some() || given.one("vnc").is_some();
    let drawn = config.display().is_some() && !config.runs_demo();
    (drawn && !asked).then(|| format!("{HINT}: {SHOWN}; -nographic and -display none say that nothing has to"))
}

/// Where a VNC server listens; nowhere for `none`.
fn vnc(option: &str, text: &str, config: &mut Config) -> Result<Option<VncTarget>, CliError> {
    let values = keyval::parse(option, text, "vnc", VNC)?;
    config.warnings.extend(values.warnings(option));
    let target = values.text("vnc").unwrap_or_default();
    if target == "none" {
        return Ok(None);
    }
    let password = values.word("password") == Some("on");
    let wrong = |what: &str| CliError::new(option, format!("'{target}' {what} (supported: [HOST]:N, unix:PATH, none)"));
    if let Some(path) = target.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(wrong("names no socket"));
        }
        return Ok(Some(VncTarget { place: VncPlace::Unix(path.into()), password }));
    }
    let (host, display) = target.rsplit_once(':').ok_or_else(|| wrong("does not name a display"))?;
    let display: u16 = display.parse().map_err(|_| wrong("does not end in the number of a display"))?;
    if display > LAST_DISPLAY {
        return Err(wrong(&format!("has a display above {LAST_DISPLAY}")));
    }
    // An address of IPv6 is in brackets.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = if host.is_empty() { LOOPBACK } else { host }.to_owned();
    let place = match values.number("to").and_then(|last| u16::try_from(last).ok()) {
        Some(last) if last > LAST_DISPLAY => return Err(wrong(&format!("has a to= above {LAST_DISPLAY}"))),
        Some(last) if last < display => return Err(wrong("has a to= below it")),
        Some(last) => VncPlace::Range { host, first: display, last },
        None => VncPlace::Display { host, display },
    };
    Ok(Some(VncTarget { place, password }))
}
