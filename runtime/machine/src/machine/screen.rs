//! The PC's display adapter, and keys that a monitor types.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use mimus_hw::Pc;
use mimus_hw::keys::Key;
use mimus_hw::registry::Handle;
use mimus_hw::vga::{DEVFN, StdVga};
use mimus_softmmu::Vram;

use super::{Parts, firmware};
use crate::boot::BootScreen;
use crate::config::{Config, Device};
use crate::memory_map::DISPLAY_HOME;
use mimus_host::display::{Console, ImageFormat, write_image};

/// Modes that `vga=` on a kernel's command line chooses, with their size: numbers of VBE (VBE 3.0, "VBE Mode Numbers"), and
/// what Linux adds 0x200 to. All of them get 32 bits a pixel.
const MODES: &[(&[u16], u16, u16)] = &[
    (&[0x101, 0x110, 0x111, 0x112], 640, 480),
    (&[0x103, 0x113, 0x114, 0x115], 800, 600),
    (&[0x105, 0x116, 0x117, 0x118], 1024, 768),
    (&[0x107, 0x119, 0x11a, 0x11b], 1280, 1024),
];

/// In a value of `vga=`: the number is one of VBE's.
const VBE: u16 = 0x200;

/// The file of the adapter's BIOS, beside the machine's.
const VIDEO_BIOS: &str = "vgabios-stdvga.bin";

/// Memory for the adapter that `config` asks for, and where backings find it.
pub(super) fn memory(config: &Config) -> Result<Option<(u64, Arc<Vram>)>> {
    let Some(Device { option, values, .. }) = config.display() else { return Ok(None) };
    let bytes = usize::from(values.port("vgamem_mb")) << 20;
    let vram = Vram::new(bytes).with_context(|| format!("{option}: cannot allocate display memory"))?;
    Ok(Some((DISPLAY_HOME, Arc::new(vram))))
}

/// What an adapter is made of: its memory, and its BIOS where the machine has firmware that would run it.
pub(super) fn handle(parts: &Parts, option: &str) -> Result<Handle> {
    let Some(vram) = parts.ram.display() else { return Ok(Handle::Nothing) };
    let path = if firmware::is_used(parts.config) { firmware::find(parts.config, VIDEO_BIOS) } else { None };
    let read =
        |path: PathBuf| std::fs::read(&path).with_context(|| format!("{option}: cannot read {}", path.display()));
    Ok(Handle::Display(vram.clone(), path.map(read).transpose()?))
}

/// Sets the mode that a boot loader would leave to a kernel with this command line.
pub(super) fn set_up(pc: &mut Pc, cmdline: &str) -> BootScreen {
    let screen = pc.function(0, DEVFN, |adapter: &mut StdVga, _| {
        let address = adapter.memory_window();
        let vga = adapter.vga_mut();
        vga.set_text_mode();
        match (mode(cmdline), address) {
            (Some((width, height)), Some(address)) if vga.set_linear_mode(width, height) => {
                BootScreen::Linear { address, size: vga.vram().len(), width, height }
            }
            _ => BootScreen::Text,
        }
    });
    screen.unwrap_or(BootScreen::None)
}

/// The size of the mode that the last `vga=` of a command line chooses, if it is one with a linear frame buffer.
fn mode(cmdline: &str) -> Option<(u16, u16)> {
    let value = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("vga=")).next_back()?;
    let number = match value.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok()?,
        None => value.parse().ok()?,
    };
    let number = number.checked_sub(VBE)?;
    MODES.iter().find(|(numbers, ..)| numbers.contains(&number)).map(|(_, width, height)| (*width, *height))
}

/// What is on the screen, as a file.
pub(super) fn image(console: &Console, ppm: bool) -> Result<Vec<u8>, String> {
    let picture = console.picture().ok_or("the machine has no display adapter")?;
    let mut bytes = Vec::new();
    let format = if ppm { ImageFormat::Ppm } else { ImageFormat::Png };
    write_image(picture.frame(), format, &mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Keys that a monitor holds down.
#[derive(Debug, Default)]
pub(super) struct Held {
    keys: Vec<Key>,
    /// When they are let go, in guest nanoseconds.
    until: Option<u64>,
}

impl Held {
    /// Presses keys, named as QEMU's `sendkey` does, for `hold` milliseconds. Those that are held are let go before.
    pub(super) fn press(&mut self, pc: &mut Pc, now: u64, names: &[String], hold: u64) -> Result<(), String> {
        let key = |name: &String| {
            let code = name.strip_prefix("0x").and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let key = Key::named(name).or_else(|| Key::of_code(code?));
            key.ok_or_else(|| format!("'{name}' is not a key"))
        };
        let keys = names.iter().map(key).collect::<Result<Vec<Key>, String>>()?;
        self.release(pc, now);
        for key in &keys {
            pc.key(now, *key, true);
        }
        self.keys = keys;
        self.until = Some(now.saturating_add(hold.saturating_mul(1_000_000)));
        Ok(())
    }

    /// Lets keys go whose time is over.
    pub(super) fn look(&mut self, pc: &mut Pc, now: u64) {
        if self.until.is_some_and(|until| until <= now) {
            self.release(pc, now);
        }
    }

    fn release(&mut self, pc: &mut Pc, now: u64) {
        for key in std::mem::take(&mut self.keys).into_iter().rev() {
            pc.key(now, key, false);
        }
        self.until = None;
    }

    /// When [`Held::look`] has something to do, or what else there is before that.
    pub(super) fn deadline(&self, other: Option<u64>) -> Option<u64> {
        [self.until, other].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_command_lines() {
        for (cmdline, size) in [
            ("", None),
            ("console=tty0 vga=791 quiet", Some((1024, 768))),
            ("vga=0x311", Some((640, 480))),
            ("vga=0x311 vga=0x318", Some((1024, 768))),
            ("vga=normal", None),
            ("vga=1", None),
            ("vga=0x999", None),
            ("video=vga=791", None),
        ] {
            assert_eq!(mode(cmdline), size, "{cmdline}");
        }
    }
}
