//! The human monitor's commands: a row each, as QEMU names them.

mod devices;
mod topics;

use std::fmt::Write;

use mimus_frontend::debug::Tables;

use super::chardevs;
use super::expression::{evaluate, number, whole};
use super::memory::{Format, dump};
use crate::control::{Controlled, RunState, Space};
use mimus_host::config::{Disk, ImageFormat};

/// Bytes of memory written to a file, or summed, by one command.
const MAX_BYTES: u64 = 1 << 30;

/// What a monitor remembers from one command to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    format: Format,
    /// Lines typed, the last one last.
    pub history: Vec<String>,
}

/// What a command works on.
struct Context<'a> {
    machine: &'a mut dyn Controlled,
    state: &'a mut State,
    out: &'a mut String,
    /// What followed a slash behind the command's name.
    format: &'a str,
}

type Outcome = Result<(), String>;

/// A command.
struct Command {
    /// Names, the first of which is the usual one.
    names: &'static [&'static str],
    /// Arguments, for the help.
    args: &'static str,
    help: &'static str,
    run: fn(&mut Context<'_>, &str) -> Outcome,
}

macro_rules! commands {
    ($([$($name:literal),+] $args:literal $help:literal $run:expr;)*) => {
        &[$(Command { names: &[$($name),+], args: $args, help: $help, run: $run }),*]
    };
}

/// All commands.
static COMMANDS: &[Command] = commands! {
    ["change"] "device filename [format]|vnc password text" "change a removable medium, or the password of the VNC server" change;
    ["closefd"] "name" "close a file descriptor previously passed via SCM_RIGHTS" devices::closefd;
    ["cont", "c"] "" "resume emulation" cont;
    ["cpu"] "index" "set the default CPU" devices::cpu;
    ["device_add"] "driver[,prop=value][,...]" "say why devices cannot be added" devices::device_add;
    ["device_del"] "device" "say why devices cannot be removed" devices::device_del;
    ["eject"] "[-f] device" "eject a removable medium (use -f to force it)" eject;
    ["gpa2hva"] "addr" "say that host addresses are not told" no_host_address;
    ["gva2gpa"] "addr" "print the guest physical address of a guest virtual one" gva2gpa;
    ["help", "?"] "[cmd]" "show the help" help;
    ["hostfwd_add"] "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport" "redirect TCP or UDP connections from host to guest" devices::hostfwd_add;
    ["hostfwd_remove"] "[netdev_id] [tcp|udp]:[hostaddr]:hostport" "remove host-to-guest TCP or UDP redirection" devices::hostfwd_remove;
    ["i"] "/fmt addr" "I/O port read" port_in;
    ["info"] "[subcommand]" "show various information about the system state" info;
    ["memsave"] "addr size file" "save to disk virtual memory dump starting at 'addr' of size 'size'" memsave;
    ["mouse_button"] "state" "hold down mouse buttons (1=L, 2=M, 4=R)" mouse_button;
    ["mouse_move"] "dx dy [dz]" "send mouse move events" mouse_move;
    ["netdev_del"] "id" "say why networks cannot be removed" devices::netdev_del;
    ["nmi"] "" "inject an NMI" nmi;
    ["o"] "/fmt addr value" "I/O port write" port_out;
    ["object_add"] "type,id=name[,prop=value][,...]" "create an object" devices::object_add;
    ["object_del"] "id" "remove an object" devices::object_del;
    ["pmemsave"] "addr size file" "save to disk physical memory dump starting at 'addr' of size 'size'" pmemsave;
    ["print", "p"] "/fmt expr" "print expression value (use $reg for CPU register access)" print;
    ["quit", "q"] "" "quit the emulator" quit;
    ["screendump"] "filename [-f format]" "save screen as an image; format is png (default) or ppm" screendump;
    ["sendkey"] "keys [hold_ms]" "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)" sendkey;
    ["set_link"] "name on|off" "change the link status of a network adapter" devices::set_link;
    ["set_password"] "vnc text [keep]" "set the password of the VNC server" set_password;
    ["stop", "s"] "" "stop emulation" stop;
    ["sum"] "addr size" "compute the checksum of a memory region" sum;
    ["system_powerdown"] "" "send system power down event" system_powerdown;
    ["system_reset"] "" "reset the system" system_reset;
    ["system_wakeup"] "" "wakeup guest from suspend" system_wakeup;
    ["watchdog_action"] "[reset|shutdown|poweroff|pause|debug|none|inject-nmi]" "change watchdog action" devices::watchdog_action;
    ["x"] "/fmt addr" "virtual memory dump starting at 'addr'" examine;
    ["xp"] "/fmt addr" "physical memory dump starting at 'addr'" examine_physical;
};

/// A topic of `info`.
struct Topic {
    name: &'static str,
    help: &'static str,
    run: fn(&mut Context<'_>) -> Outcome,
}

/// Topics that every machine has, and those that its devices may have.
static TOPICS: &[Topic] = &[
    Topic { name: "block", help: "show the block devices", run: |c| devices(c, "block") },
    Topic { name: "blockstats", help: "show block device statistics", run: |c| devices(c, "blockstats") },
    Topic { name: "chardev", help: "show the character devices", run: chardev },
    Topic { name: "cpus", help: "show infos for each CPU", run: cpus },
    Topic { name: "history", help: "show the command line history", run: history },
    Topic {
        name: "hotpluggable-cpus",
        help: "show information about hotpluggable CPUs",
        run: topics::hotpluggable_cpus,
    },
    Topic { name: "iothreads", help: "show iothreads", run: topics::iothreads },
    Topic { name: "jit", help: "show dynamic compiler info", run: jit },
    Topic { name: "kvm", help: "show KVM information", run: kvm },
    Topic { name: "mem", help: "show the active virtual memory mappings", run: mem },
    Topic { name: "memdev", help: "show memory backends", run: topics::memdev },
    Topic { name: "memory_size_summary", help: "show the amount of memory", run: topics::memory_size },
    Topic { name: "mice", help: "show which guest mouse is receiving events", run: mice },
    Topic { name: "migrate_capabilities", help: "show current migration capabilities", run: topics::capabilities },
    Topic { name: "mtree", help: "show memory tree", run: |c| devices(c, "mtree") },
    Topic { name: "name", help: "show the current VM name", run: name },
    Topic { name: "network", help: "show the network state", run: |c| devices(c, "network") },
    Topic { name: "pci", help: "show PCI info", run: |c| devices(c, "pci") },
    Topic { name: "pic", help: "show PIC state", run: |c| devices(c, "pic") },
    Topic { name: "qmp", help: "show QMP's commands with their arguments and results", run: qmp },
    Topic { name: "qom-tree", help: "show QOM composition tree", run: qom_tree },
    Topic { name: "qtree", help: "show device tree", run: |c| devices(c, "qtree") },
    Topic { name: "registers", help: "show the cpu registers", run: registers },
    Topic { name: "roms", help: "show roms", run: |c| devices(c, "roms") },
    Topic { name: "status", help: "show the current VM status (running|paused)", run: status },
    Topic { name: "tlb", help: "show virtual to physical memory mappings", run: tlb },
    Topic { name: "usernet", help: "show user network stack connection states", run: |c| devices(c, "usernet") },
    Topic { name: "uuid", help: "show the current VM UUID", run: uuid },
    Topic { name: "version", help: "show the version of mimus", run: version },
    Topic { name: "virtio", help: "show virtio devices", run: topics::virtio },
    Topic { name: "vnc", help: "show the vnc server status", run: vnc },
];

/// Names of all commands, for QMP and tests.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|command| command.names).copied()
}

/// Executes a line; what it prints.
pub(super) fn execute(machine: &mut dyn Controlled, state: &mut State, line: &str) -> String {
    let line = line.trim();
    let mut out = String::new();
    let end = line.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return out;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.names.contains(&name)) else {
        let why = devices::REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why);
        return why.map_or_else(|| format!("unknown command: '{name}'\n"), |why| format!("Error: {why}\n"));
    };
    // "x/4i" or "x /4i"; another command's argument may be a file's name.
    let format = if command.args.starts_with('/') { rest.trim_start() } else { rest };
    let (format, args) = match format.strip_prefix('/') {
        Some(rest) => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        None => ("", rest),
    };
    let wants_args = !command.args.is_empty() && !command.args.starts_with('[');
    let mut context = Context { machine, state, out: &mut out, format };
    let result = match args.trim() {
        "" if wants_args => Err(format!("arguments are missing; try 'help {name}'")),
        extra if !extra.is_empty() && command.args.is_empty() => Err(format!("extraneous characters at '{extra}'")),
        args => (command.run)(&mut context, args),
    };
    if let Err(error) = result {
        out.push_str(&format!("Error: {error}\n"));
    }
    out
}

fn help(c: &mut Context<'_>, args: &str) -> Outcome {
    let mut any = false;
    for command in COMMANDS.iter().filter(|command| args.is_empty() || command.names.contains(&args)) {
        let names = command.names.join("|");
        let args = if command.args.starts_with('/') { command.args.to_owned() } else { format!(" {}", command.args) };
        let _ = writeln!(c.out, "{} -- {}", format!("{names}{args}").trim_end(), command.help);
        any = true;
    }
    if args == "info" {
        return topics(c);
    }
    if let Some((name, why)) = devices::REFUSED.iter().find(|(name, _)| *name == args) {
        let _ = writeln!(c.out, "{name} -- not supported: {why}");
        return Ok(());
    }
    if any { Ok(()) } else { Err(format!("no help for '{args}'")) }
}

fn topics(c: &mut Context<'_>) -> Outcome {
    let here = TOPICS.iter().map(|topic| (topic.name, topic.help));
    let mut all: Vec<_> = here.chain(topics::NOTHING.iter().map(|topic| (topic.name, topic.help))).collect();
    all.sort_unstable();
    for (name, help) in all {
        let _ = writeln!(c.out, "info {name} -- {help}");
    }
    Ok(())
}

fn info(c: &mut Context<'_>, args: &str) -> Outcome {
    let name = args.split_whitespace().next().unwrap_or_default();
    if name.is_empty() {
        return topics(c);
    }
    match TOPICS.iter().find(|topic| topic.name == name) {
        Some(topic) => (topic.run)(c),
        None => {
            let nothing = topics::NOTHING.iter().find(|topic| topic.name == name);
            let says = nothing.ok_or_else(|| format!("unknown command: 'info {name}'"))?.says?;
            c.out.push_str(says);
            Ok(())
        }
    }
}

fn devices(c: &mut Context<'_>, topic: &str) -> Outcome {
    let text = c.machine.info(topic).ok_or_else(|| format!("this machine has nothing to tell of '{topic}'"))?;
    c.out.push_str(&text);
    Ok(())
}

fn change(c: &mut Context<'_>, args: &str) -> Outcome {
    let (device, rest) = args.split_once(char::is_whitespace).ok_or("a device and a file name are needed")?;
    if device == "vnc" {
        return change_vnc(c, rest);
    }
    let (file, format) = match rest.trim().rsplit_once(char::is_whitespace) {
        Some((file, format)) if ImageFormat::named(format).is_some() => (file.trim(), ImageFormat::named(format)),
        _ => (rest, None),
    };
    let disk = medium(c.machine, file_name(file)?, format)?;
    c.machine.change_medium(device, Some(disk), false)
}

fn change_vnc(c: &mut Context<'_>, args: &str) -> Outcome {
    match args.split_whitespace().collect::<Vec<_>>()[..] {
        ["password" | "passwd", password] => c.machine.set_vnc_password(password),
        ["password" | "passwd"] => Err("the password is missing: it is not asked for".to_owned()),
        _ => Err("of vnc only 'password' can be changed".to_owned()),
    }
}

/// An image as a medium: nothing writes to it.
///
/// # Errors
///
/// A sentence: a file of a set that has none.
pub(super) fn medium(machine: &mut dyn Controlled, file: &str, format: Option<ImageFormat>) -> Result<Disk, String> {
    let file = machine.kept().descriptors.host_name(file)?;
    Ok(Disk { format, read_only: true, ..Disk::new(file) })
}

fn eject(c: &mut Context<'_>, args: &str) -> Outcome {
    let (first, rest) = args.split_once(char::is_whitespace).unwrap_or((args, ""));
    let (force, device) = if first == "-f" { (true, rest.trim()) } else { (false, args) };
    if device.is_empty() {
        return Err("a device is needed; see 'info block'".to_owned());
    }
    c.machine.change_medium(device, None, force)
}

/// Why a machine that was switched off does not go on.
pub(super) const CANNOT_GO_ON: &str = "the machine is switched off: system_reset, then cont";

fn cont(c: &mut Context<'_>, _: &str) -> Outcome {
    if c.machine.resume() { Ok(()) } else { Err(CANNOT_GO_ON.to_owned()) }
}

fn stop(c: &mut Context<'_>, _: &str) -> Outcome {
    c.machine.stop(RunState::Paused);
    Ok(())
}

fn quit(c: &mut Context<'_>, _: &str) -> Outcome {
    c.machine.quit();
    Ok(())
}

fn system_reset(c: &mut Context<'_>, _: &str) -> Outcome {
    c.machine.reset();
    Ok(())
}

fn system_powerdown(c: &mut Context<'_>, _: &str) -> Outcome {
    if c.machine.press_power_button() { Ok(()) } else { Err("this machine has no power button".to_owned()) }
}

fn system_wakeup(c: &mut Context<'_>, _: &str) -> Outcome {
    wake_up(c.machine)
}

/// Wakes a guest that sleeps, or says why that cannot be.
pub(super) fn wake_up(machine: &mut dyn Controlled) -> Outcome {
    if !machine.can_sleep() {
        return Err("wake-up from suspend is not supported by this guest".to_owned());
    }
    if machine.wake_up() { Ok(()) } else { Err("Unable to wake up: guest is not in suspended state".to_owned()) }
}

fn nmi(c: &mut Context<'_>, _: &str) -> Outcome {
    if c.machine.raise_nmi() { Ok(()) } else { Err("machine does not provide NMIs".to_owned()) }
}

fn examine_in(c: &mut Context<'_>, args: &str, space: Space) -> Outcome {
    let format = Format::parse(c.format, c.state.format)?;
    let addr = whole(c.machine, args)?;
    c.state.format = Format { count: 1, ..format };
    c.out.push_str(&dump(c.machine, format, space, addr));
    Ok(())
}

fn examine(c: &mut Context<'_>, args: &str) -> Outcome {
    examine_in(c, args, Space::Virtual)
}

fn examine_physical(c: &mut Context<'_>, args: &str) -> Outcome {
    examine_in(c, args, Space::Physical)
}

fn print(c: &mut Context<'_>, args: &str) -> Outcome {
    let format = Format::parse(c.format, Format { size: 8, ..Format::default() })?;
    let value = whole(c.machine, args)?;
    let _ = writeln!(c.out, "{}", format.value(value));
    Ok(())
}

fn gva2gpa(c: &mut Context<'_>, args: &str) -> Outcome {
    let addr = whole(c.machine, args)?;
    match c.machine.translate(addr) {
        Some(gpa) => drop(writeln!(c.out, "gpa: {gpa:#x}")),
        None => c.out.push_str("Unmapped\n"),
    }
    Ok(())
}

fn no_host_address(_: &mut Context<'_>, _: &str) -> Outcome {
    Err("host addresses are not told".to_owned())
}

/// A port's number and the size that the format asks for, 1 if it does not.
fn port(c: &mut Context<'_>, text: &str) -> Result<(u16, u8), String> {
    let size = Format::parse(c.format, Format { size: 1, ..Format::default() })?.size;
    let port = u16::try_from(whole(c.machine, text)?).map_err(|_| "ports are below 0x10000")?;
    if size > 4 { Err("a port has 4 bytes at most".to_owned()) } else { Ok((port, size as u8)) }
}

fn port_in(c: &mut Context<'_>, args: &str) -> Outcome {
    let (port, size) = port(c, args)?;
    let value = c.machine.port_read(port, size).ok_or("this machine has no ports")?;
    let letter = ['b', 'b', 'w', 'l', 'l'][usize::from(size)];
    let _ = writeln!(c.out, "port{letter}[0x{port:04x}] = 0x{value:0width$x}", width = 2 * usize::from(size));
    Ok(())
}

fn port_out(c: &mut Context<'_>, args: &str) -> Outcome {
    let (first, value) = args.split_once(char::is_whitespace).ok_or("a port and a value are needed")?;
    let (port, size) = port(c, first)?;
    let value = whole(c.machine, value.trim())?;
    if c.machine.port_write(port, size, value as u32) { Ok(()) } else { Err("this machine has no ports".to_owned()) }
}

/// Calls `f` with memory piece by piece.
fn each_piece(
    c: &mut Context<'_>,
    space: Space,
    (addr, size): (u64, u64),
    mut f: impl FnMut(&[u8]) -> Outcome,
) -> Outcome {
    if size > MAX_BYTES {
        return Err(format!("no more than {MAX_BYTES} bytes at once"));
    }
    let mut piece = [0; 4096];
    let mut done = 0;
    while done < size {
        let part = &mut piece[..(size - done).min(4096) as usize];
        let at = addr.wrapping_add(done);
        if c.machine.read(space, at, part) < part.len() {
            return Err(format!("cannot access memory near {at:#x}"));
        }
        f(part)?;
        done += part.len() as u64;
    }
    Ok(())
}

fn sum(c: &mut Context<'_>, args: &str) -> Outcome {
    let (addr, rest) = evaluate(c.machine, args)?;
    let size = whole(c.machine, rest)?;
    let mut sum = 0u16;
    each_piece(c, Space::Physical, (addr, size), |piece| {
        // BSD's checksum.
        sum = piece.iter().fold(sum, |sum, &byte| sum.rotate_right(1).wrapping_add(byte.into()));
        Ok(())
    })?;
    let _ = writeln!(c.out, "{sum:05}");
    Ok(())
}

/// A file's name, which may be in quotes.
fn file_name(text: &str) -> Result<&str, String> {
    let name = text.trim();
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    if name.is_empty() { Err("a file name is missing".to_owned()) } else { Ok(name) }
}

fn save(c: &mut Context<'_>, args: &str, space: Space) -> Outcome {
    use std::io::Write as _;
    let (addr, rest) = evaluate(c.machine, args)?;
    let (size, rest) = rest.split_once(char::is_whitespace).ok_or("a size and a file name are needed")?;
    let size = number(size).ok_or_else(|| format!("'{size}' is not a number"))?;
    let name = file_name(rest)?;
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let mut file = std::fs::File::create(name).map_err(failed)?;
    each_piece(c, space, (addr, size), |piece| file.write_all(piece).map_err(failed))
}

fn memsave(c: &mut Context<'_>, args: &str) -> Outcome {
    save(c, args, Space::Virtual)
}

fn pmemsave(c: &mut Context<'_>, args: &str) -> Outcome {
    save(c, args, Space::Physical)
}

fn screendump(c: &mut Context<'_>, args: &str) -> Outcome {
    let (name, format) = args.split_once(" -f ").unwrap_or((args, ""));
    let name = file_name(name)?;
    screen_to(c.machine, name, format.trim())
}

/// Writes the screen to a file. Without a format its name's ending decides.
///
/// # Errors
///
/// A sentence.
pub(super) fn screen_to(machine: &mut dyn Controlled, name: &str, format: &str) -> Outcome {
    let ppm = match format {
        "" => name.ends_with(".ppm"),
        "png" => false,
        "ppm" => true,
        other => return Err(format!("'{other}' is not a format: png or ppm")),
    };
    let image = machine.screen(ppm)?;
    std::fs::write(name, image).map_err(|error| format!("{name}: {error}"))
}

fn sendkey(c: &mut Context<'_>, args: &str) -> Outcome {
    let (keys, hold) = args.split_once(char::is_whitespace).unwrap_or((args, "100"));
    let hold = number(hold.trim()).filter(|&ms| ms <= 60_000).ok_or("the hold time is in milliseconds, below 60000")?;
    let keys: Vec<String> = split_keys(keys);
    c.machine.send_keys(&keys, hold)
}

/// The keys of `ctrl-alt-f1`; `-` between hyphens is a hyphen.
fn split_keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().skip(1).find(|(_, c)| *c == '-').map_or(rest.len(), |(at, _)| at);
        keys.push(match &rest[..end] {
            "-" => "minus".to_owned(),
            key => key.to_owned(),
        });
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    keys
}

fn set_password(c: &mut Context<'_>, args: &str) -> Outcome {
    match args.split_whitespace().collect::<Vec<_>>()[..] {
        ["vnc", password] | ["vnc", password, "keep"] => c.machine.set_vnc_password(password),
        ["vnc", _, _] => Err("who is connected stays so: 'keep' is all there is".to_owned()),
        _ => Err("a protocol, which is vnc, and a password are needed".to_owned()),
    }
}

fn mouse_move(c: &mut Context<'_>, args: &str) -> Outcome {
    let counts: Option<Vec<i32>> = args.split_whitespace().map(|word| word.parse().ok()).collect();
    let (dx, dy, dz) = match counts.as_deref() {
        Some(&[dx, dy]) => (dx, dy, 0),
        Some(&[dx, dy, dz]) => (dx, dy, dz),
        _ => return Err("two or three whole numbers are needed".to_owned()),
    };
    c.machine.console().ok_or("this machine has no mouse")?.move_mouse(dx, dy, dz);
    Ok(())
}

fn mouse_button(c: &mut Context<'_>, args: &str) -> Outcome {
    let state = number(args).filter(|&state| state < 8).ok_or("the state is a number below 8")?;
    let console = c.machine.console().ok_or("this machine has no mouse")?;
    // The mouse has the right button before the middle one.
    let held = state as u8 & 1 | (state as u8 & 2) << 1 | (state as u8 & 4) >> 1;
    console.button(held, true);
    console.button(!held, false);
    Ok(())
}

fn mice(c: &mut Context<'_>) -> Outcome {
    c.machine.console().ok_or("this machine has no mouse")?;
    c.out.push_str("* Mouse #0: PS/2 Mouse\n");
    Ok(())
}

fn qmp(c: &mut Context<'_>) -> Outcome {
    c.out.push_str(&super::qmp::commands_text());
    Ok(())
}

fn qom_tree(c: &mut Context<'_>) -> Outcome {
    c.out.push_str(&super::qmp::tree_text(c.machine));
    Ok(())
}

fn vnc(c: &mut Context<'_>) -> Outcome {
    let target = c.machine.config().vnc.as_ref().ok_or("there is no VNC server")?;
    let auth = if target.password { "vnc" } else { "none" };
    let _ = writeln!(c.out, "default:\n  Server: {target} (Auth: {auth}, Sub: none)");
    Ok(())
}

fn registers(c: &mut Context<'_>) -> Outcome {
    let text = c.machine.registers_text();
    let _ = write!(c.out, "\nCPU#0\n{text}");
    Ok(())
}

fn tlb(c: &mut Context<'_>) -> Outcome {
    c.out.push_str(&c.machine.tables_text(Tables::Pages));
    Ok(())
}

fn mem(c: &mut Context<'_>) -> Outcome {
    c.out.push_str(&c.machine.tables_text(Tables::Ranges));
    Ok(())
}

fn jit(c: &mut Context<'_>) -> Outcome {
    c.out.push_str(&c.machine.stats().to_table());
    Ok(())
}

fn kvm(c: &mut Context<'_>) -> Outcome {
    c.out.push_str("kvm support: not compiled\n");
    Ok(())
}

fn status(c: &mut Context<'_>) -> Outcome {
    let text = match c.machine.state() {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Prelaunch => "paused (prelaunch)",
        RunState::Debug => "paused (debug)",
        RunState::IoError => "paused (io-error)",
        RunState::Shutdown => "paused (shutdown)",
        RunState::Suspended => "paused (suspended)",
        RunState::GuestPanicked => "paused (guest-panicked)",
        RunState::Watchdog => "paused (watchdog)",
    };
    let _ = writeln!(c.out, "VM status: {text}");
    Ok(())
}

fn version(c: &mut Context<'_>) -> Outcome {
    let _ = writeln!(c.out, "{} (mimus)", env!("CARGO_PKG_VERSION"));
    Ok(())
}

fn cpus(c: &mut Context<'_>) -> Outcome {
    let halted = if c.machine.is_halted() { " (halted)" } else { "" };
    let _ = writeln!(c.out, "* CPU #0: thread_id={}{halted}", std::process::id());
    Ok(())
}

fn history(c: &mut Context<'_>) -> Outcome {
    for (number, line) in c.state.history.iter().enumerate() {
        let _ = writeln!(c.out, "{number}: '{line}'");
    }
    Ok(())
}

fn name(c: &mut Context<'_>) -> Outcome {
    if let Some(name) = &c.machine.config().name {
        let _ = writeln!(c.out, "{name}");
    }
    Ok(())
}

fn uuid(c: &mut Context<'_>) -> Outcome {
    let uuid = c.machine.config().uuid.as_deref().unwrap_or("00000000-0000-0000-0000-000000000000");
    let _ = writeln!(c.out, "{uuid}");
    Ok(())
}

fn chardev(c: &mut Context<'_>) -> Outcome {
    for (name, place) in chardevs::all(c.machine.config()) {
        let _ = writeln!(c.out, "{name}: filename={place}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_sorted() {
        let mut seen = HashSet::new();
        assert!(names().all(|name| seen.insert(name)));
        assert!(COMMANDS.is_sorted_by_key(|command| command.names[0]));
        assert!(TOPICS.is_sorted_by_key(|topic| topic.name));
    }

    #[test]
    fn combinations_of_keys_are_split() {
        assert_eq!(split_keys("ctrl-alt-f1"), ["ctrl", "alt", "f1"]);
        assert_eq!(split_keys("shift--"), ["shift", "minus"]);
        assert_eq!(split_keys("a"), ["a"]);
        assert!(split_keys("").is_empty());
    }
}
