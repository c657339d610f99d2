//! The screen: `-vga`, `-display`, `-vnc`.

use super::error::CliError;
use super::families::{DISPLAY, VGA};
use super::keyval::{self, Key, Kind};
use super::{Arch, Given, Stop, choose};
use crate::config::{Config, VgaKind, VncTarget};

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, help: "" }
}

/// The keys of `-vnc`.
const VNC: &[Key] = &[
    key("vnc", Kind::Text("a host and the number of a display, as in 127.0.0.1:1")),
    key("password", Kind::Fixed("off")),
    key("sasl", Kind::Fixed("off")),
    key("lossy", Kind::Fixed("off")),
    key("non-adaptive", Kind::Fixed("on")),
    key("reverse", Kind::Fixed("off")),
    key("share", Kind::Fixed("force-shared")),
    key("acl", Kind::NotYet),
    key("audiodev", Kind::NotYet),
    key("connections", Kind::NotYet),
    key("head", Kind::NotYet),
    key("key-delay-ms", Kind::NotYet),
    key("lock-key-sync", Kind::NotYet),
    key("password-secret", Kind::NotYet),
    key("power-control", Kind::NotYet),
    key("tls-creds", Kind::NotYet),
    key("to", Kind::NotYet),
    key("websocket", Kind::NotYet),
];

/// The largest number of a display: its port is 5900 more.
const LAST_DISPLAY: u16 = u16::MAX - 5900;

/// This host alone.
const LOOPBACK: &str = "127.0.0.1";

/// Parses what there is of a screen and who sees it.
pub(super) fn parse(given: &Given, arch: Arch, config: &mut Config) -> Result<(), Stop> {
    config.vga = match given.text("vga")? {
        None if arch == Arch::X86 && !given.flag("nodefaults") => VgaKind::Std,
        None => VgaKind::None,
        Some(text) => match choose(&VGA, text, None)?.0 {
            "none" => VgaKind::None,
            _ if arch != Arch::X86 => {
                return Err(CliError::new("-vga", "only the machine pc has a display adapter").into());
            }
            _ => VgaKind::Std,
        },
    };
    let mut shown = None;
    match given.text("display")? {
        None => {}
        Some(text) => match text.strip_prefix("vnc=") {
            Some(text) => {
                config.vnc = vnc("-display vnc", text)?;
                shown = Some("-display");
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
        config.vnc = vnc("-vnc", text)?;
        shown = config.vnc.is_some().then_some("-vnc").or(shown);
    }
    if let Some(option) = shown
        && config.vga == VgaKind::None
    {
        return Err(CliError::new(option, "the machine has no display adapter").into());
    }
    if config.curses && config.nographic {
        return Err(CliError::new("-display", "curses cannot be combined with -nographic").into());
    }
    Ok(())
}

/// Where a VNC server listens; nowhere for `none`.
fn vnc(option: &str, text: &str) -> Result<Option<VncTarget>, CliError> {
    let values = keyval::parse(option, text, "vnc", VNC)?;
    let target = values.text("vnc").unwrap_or_default();
    if target == "none" {
        return Ok(None);
    }
    let wrong = |what: &str| CliError::new(option, format!("'{target}' {what} (supported: [HOST]:N, none)"));
    if target.starts_with("unix:") {
        return Err(wrong("is not supported yet"));
    }
    let (host, display) = target.rsplit_once(':').ok_or_else(|| wrong("does not name a display"))?;
    let display: u16 = display.parse().map_err(|_| wrong("does not end in the number of a display"))?;
    if display > LAST_DISPLAY {
        return Err(wrong(&format!("has a display above {LAST_DISPLAY}")));
    }
    // An address of IPv6 is in brackets.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = if host.is_empty() { LOOPBACK } else { host };
    Ok(Some(VncTarget { host: host.to_owned(), display }))
}
