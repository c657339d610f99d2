//! The one table of option names: mimus's own, and QEMU 7.2's other system options, which say what is missing.

use super::subjects::{self, Subject};
use Section::{Boot, Console, General, Logs, Machine};

/// An option.
pub(super) struct Opt {
    /// The name without its dash; also the name clap knows it by.
    pub name: &'static str,
    /// A second spelling.
    pub alias: Option<&'static str>,
    /// Whether a value follows, and what it is.
    pub shape: Shape,
    /// Whether it is offered.
    pub status: Status,
}

/// Whether a value follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// None.
    Flag,
    /// One, called this in the help.
    Value(&'static str),
    /// One, called this in the help, which may well look like an option itself.
    FreeText(&'static str),
}

/// Whether an option is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Yes: its section of the help, its lines there, and whether it may be repeated.
    Offered(Section, &'static str, Repeat),
    /// Accepted, with any value if there is one, because mimus always behaves so.
    Always,
    /// QEMU has it and mimus does not, yet.
    NotYet,
    /// The same, since this is missing.
    Lacks(&'static Subject),
    /// QEMU had it once; this is what to use.
    Gone(&'static str),
}

/// A part of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// The machine itself.
    Machine,
    /// What it runs.
    Boot,
    /// Its terminal and other character devices.
    Console,
    /// Seeing what happens.
    Logs,
    /// About mimus.
    General,
}

/// The sections in the order of the help.
pub(super) const SECTIONS: &[(Section, &str)] = &[
    (Section::Boot, "What to run"),
    (Section::Machine, "The machine"),
    (Section::Console, "Terminal and devices"),
    (Section::Logs, "Logs and counters"),
    (Section::General, "General"),
];

/// What giving an option again means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The last one counts, as QEMU has it.
    Once,
    /// Each counts.
    Each,
}

const fn flag(name: &'static str, section: Section, help: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Flag, status: Status::Offered(section, help, Repeat::Each) }
}

const fn once(name: &'static str, value: &'static str, section: Section, help: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Value(value), status: Status::Offered(section, help, Repeat::Once) }
}

const fn each(name: &'static str, value: &'static str, section: Section, help: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Value(value), status: Status::Offered(section, help, Repeat::Each) }
}

const fn also(alias: &'static str, option: Opt) -> Opt {
    Opt { name: option.name, alias: Some(alias), shape: option.shape, status: option.status }
}

const fn free_text(option: Opt) -> Opt {
    let shape = match option.shape {
        Shape::Value(value) => Shape::FreeText(value),
        shape => shape,
    };
    Opt { name: option.name, alias: option.alias, shape, status: option.status }
}

const fn always(name: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Flag, status: Status::Always }
}

/// Not supported yet, with a value.
const fn later(name: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::FreeText(""), status: Status::NotYet }
}

/// Not supported yet, without a value.
const fn later_flag(name: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Flag, status: Status::NotYet }
}

/// Accepted with any value, because it makes no difference here.
const fn accepted(name: &'static str, value: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Value(value), status: Status::Always }
}

/// Not supported yet for want of a subject, with a value.
const fn lacks(name: &'static str, subject: &'static Subject) -> Opt {
    Opt { name, alias: None, shape: Shape::FreeText(""), status: Status::Lacks(subject) }
}

/// Not supported yet for want of a subject, without a value.
const fn lacks_flag(name: &'static str, subject: &'static Subject) -> Opt {
    Opt { name, alias: None, shape: Shape::Flag, status: Status::Lacks(subject) }
}

/// QEMU had it once, with a value.
const fn gone(name: &'static str, instead: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::FreeText(""), status: Status::Gone(instead) }
}

/// QEMU had it once, without a value.
const fn gone_flag(name: &'static str, instead: &'static str) -> Opt {
    Opt { name, alias: None, shape: Shape::Flag, status: Status::Gone(instead) }
}

/// Every option there is.
pub(super) const OPTIONS: &[Opt] = &[
    once(
        "kernel",
        "FILE",
        Boot,
        "kernel image: Linux bzImage, multiboot, or ELF with a PVH entry; on RISC-V ELF, a Linux Image or any flat binary",
    ),
    once("initrd", "FILE", Boot, "initial RAM disk; a multiboot kernel's modules, with arguments: -initrd \"a x=1,b\""),
    free_text(once("append", "TEXT", Boot, "kernel command line")),
    flag("semihosting", Boot, "a RISC-V program may call the host: print, read what is typed, end"),
    each(
        "semihosting-config",
        "KEYS",
        Boot,
        "the same with keys: enable=on|off, chardev=ID for its console, userspace=on: by user mode, too, arg=TEXT for each \
         word of its command line",
    ),
    once("dtb", "FILE", Boot, "device tree of a RISC-V machine, instead of its own"),
    once(
        "bios",
        "FILE",
        Boot,
        "firmware: a PC's is SeaBIOS from the package seabios, which starts kernels, too, but for Linux, which needs none; \
         that of a RISC-V machine OpenSBI from the package opensbi; none: there is none",
    ),
    each("L", "DIR", Boot, "look for firmware's files here first"),
    once(
        "boot",
        "[order=]DRIVES[,KEY=VALUE...]",
        Boot,
        "what a PC's firmware boots, first choice first: a floppy, c hard disk, d CD-ROM, n network (default cad);\n\
         menu=on offers its menu, for splash-time=MS, with the picture splash=FILE; once=DRIVES until the first reset; strict=on: only devices with a \
         bootindex; reboot-timeout=MS",
    ),
    each("option-rom", "FILE", Boot, "an option ROM that a PC's firmware runs"),
    each(
        "fw_cfg",
        "[name=]NAME,file=FILE|string=TEXT",
        Machine,
        "a file for firmware and guest, in /sys/firmware/qemu_fw_cfg there; names of users' own begin with opt/",
    ),
    each(
        "smbios",
        "file=FILE|type=N[,KEY=VALUE...]",
        Machine,
        "what SMBIOS tells of a PC: structures in their binary form, or fields of types 0, 1, 2, 3, 4, 11 and 17",
    ),
    each(
        "acpitable",
        "[sig=NAME,...]data=FILE|file=FILE",
        Machine,
        "one more ACPI table of a PC: file= with its header, data= without",
    ),
    flag("no-acpi", Machine, "no ACPI tables in a PC; -machine acpi=off"),
    once(
        "arch",
        "NAME",
        Machine,
        "guest architecture, x86_64 (default) or riscv64; a program name like mimus-system-riscv64 chooses it, too",
    ),
    also("M", each("machine", "NAME[,KEY=VALUE...]", Machine, "board, default pc or virt; see -machine help")),
    once(
        "cpu",
        "MODEL[,+FEATURE][,-FEATURE][,KEY=VALUE...]",
        Machine,
        "CPU model, default max; see -cpu help. The guest sees those of its features that there are",
    ),
    once("smp", "[cpus=]N[,KEY=VALUE...]", Machine, "number of vCPUs; there is one, whatever it is"),
    once("m", "[size=]SIZE", Machine, "RAM, default 128 MiB; in MiB, or with a suffix K, M, G or T"),
    each(
        "accel",
        "NAME[,KEY=VALUE...]",
        Machine,
        "jit or tcg (default) compiles hot guest code, interp only interprets; kvm and its like are not had, so the next \
         counts, or jit.\n\
         jit,tb-size=MiB bounds translated code;\n\
         jit,quick=N makes simple code after N executions;\n\
         jit,threshold=N compiles after N executions;\n\
         jit,region=N compiles loops as one after N rounds;\n\
         jit,compile=sync compiles in place, not on a thread of its own;\n\
         jit,cpu-limit=N% takes no more of a host CPU",
    ),
    flag("enable-kvm", Machine, "the same as -accel kvm"),
    flag("singlestep", Machine, "translate each instruction on its own; -accel jit,one-insn-per-tb=on"),
    flag("no-hpet", Machine, "no high precision event timer in a PC; -machine hpet=off"),
    flag("no-reboot", Machine, "exit when the guest resets the machine"),
    flag(
        "nographic",
        Console,
        "no display; the terminal is the serial port, Ctrl-C goes to the guest, Ctrl-A x quits, Ctrl-A h helps",
    ),
    once(
        "display",
        "TYPE",
        Console,
        "none: no display; curses: the screen's text in this terminal, Ctrl-A x quits; vnc=HOST:N: as -vnc.\n\
         There is no serial port then unless -serial is given",
    ),
    once(
        "vnc",
        "[HOST]:N[,password=on]",
        Console,
        "show the screen to VNC clients at TCP port 5900 + N, of this host only unless another HOST is named, or unix:PATH.\n\
         Whoever reaches it may use the machine, unless it asks for a password, which a monitor sets (set_password)",
    ),
    once("vga", "TYPE", Machine, "a PC's display adapter: std (default) or none"),
    each(
        "serial",
        "DEV",
        Console,
        "a serial port, the first one first, up to four: stdio (Ctrl-C ends mimus; default), mon:stdio (Ctrl-C goes to the \
         guest; default with -nographic), file:FILE, pipe:FILE, pty, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, udp:HOST:PORT, /dev/PORT, chardev:ID, null or \
         none",
    ),
    each(
        "chardev",
        "TYPE,id=ID[,KEY=VALUE...]",
        Console,
        "what a console or a monitor is connected to; see -chardev help",
    ),
    each("mon", "[chardev=]ID[,mode=readline|control]", Console, "a human monitor, or QMP, on a -chardev"),
    each("debugcon", "DEV", Console, "a debug console at port 0xe9, to stdio, file:FILE or null"),
    once("hda", "FILE", Console, "the first IDE disk; -hdb, -hdc and -hdd the others"),
    once("hdb", "FILE", Console, "the second IDE disk"),
    once("hdc", "FILE", Console, "the third IDE disk"),
    once("hdd", "FILE", Console, "the fourth IDE disk"),
    once("cdrom", "FILE", Console, "a CD-ROM in the place of the third IDE disk"),
    each(
        "drive",
        "file=FILE[,KEY=VALUE...]",
        Console,
        "a disk or a CD-ROM with an image, raw, qcow2 or vmdk: if=ide or if=virtio plugs it in, if=none,id=ID leaves that to \
         -device; see -drive help",
    ),
    each(
        "blockdev",
        "DRIVER,node-name=NAME[,KEY=VALUE...]",
        Console,
        "an image, or the file that one is in, for drive=NAME of a -device and for other nodes; see -blockdev help",
    ),
    each(
        "netdev",
        "TYPE,id=ID[,KEY=VALUE...]",
        Console,
        "a network for a -device: user is a gateway with the host's sockets behind it; see -netdev help and -netdev user,help",
    ),
    each("nic", "TYPE[,model=NAME][,KEY=VALUE...]", Console, "a network and an adapter in it; none: no adapter at all"),
    each("net", "nic|TYPE[,KEY=VALUE...]", Console, "the same in two, adapter and network; none: no adapter at all"),
    flag("snapshot", Console, "what the guest writes to disks is forgotten at the end"),
    flag(
        "nodefaults",
        Console,
        "no device that is not asked for: no display adapter, network adapter or CD-ROM drive, and a serial port that leads \
         nowhere",
    ),
    each("device", "NAME[,KEY=VALUE...]", Console, "add a device, such as isa-debug-exit; see -device help"),
    each(
        "monitor",
        "DEV",
        Console,
        "the human monitor: stdio, unix:PATH,server=on,wait=off, tcp:HOST:PORT,server=on,wait=off or none; with \
         -nographic Ctrl-A c leads to one, too",
    ),
    each("qmp", "DEV", Console, "the QEMU machine protocol, at places as for -monitor"),
    each("qmp-pretty", "DEV", Console, "the same with answers that are easy to read"),
    once("gdb", "DEV", Console, "a gdb server at tcp::PORT (of 127.0.0.1), unix:PATH or stdio"),
    flag("s", Console, "short for -gdb tcp::1234"),
    flag("S", Machine, "do not start the guest before a monitor or debugger says so"),
    once("name", "[guest=]NAME[,process=NAME]", Machine, "name of the machine, for monitors, and of the process"),
    once("uuid", "UUID", Machine, "UUID of the machine"),
    each("d", "ITEM[,...]", Logs, "log these items; see -d help"),
    once("D", "FILE", Logs, "log to FILE instead of standard error"),
    once("stats", "FILE", Logs, "write counters to FILE when the run ends"),
    once("pidfile", "FILE", Logs, "write the number of the process to FILE while it runs"),
    flag("perfmap", Logs, "name compiled code in /tmp/perf-PID.map for perf"),
    also("h", flag("help", General, "print this text and exit")),
    flag("version", General, "print the version and exit, so that programs that look for QEMU's find one"),
    flag("V", General, "print mimus's own version and exit"),
    each(
        "global",
        "DEVICE.PROPERTY=VALUE",
        Machine,
        "a property of every -device of this name, isa-debugcon.iobase, or VGA.vgamem_mb, VGA.edid=on|off, VGA.xres, VGA.yres",
    ),
    each(
        "fsdev",
        "local,id=ID,path=FOLDER,security_model=MODEL[,...]",
        Machine,
        "a folder for a -device virtio-9p-pci",
    ),
    each(
        "virtfs",
        "local,path=FOLDER,mount_tag=TAG,security_model=MODEL[,...]",
        Machine,
        "a folder that the guest mounts: mount -t 9p -o trans=virtio TAG DIRECTORY; see -virtfs local,help",
    ),
    each("object", "TYPE,id=ID[,KEY=VALUE...]", Machine, "what devices refer to; see -object help"),
    each(
        "rtc",
        "[base=]utc|localtime|DATE[,KEY=VALUE...]",
        Machine,
        "what the real-time clock shows at the start, default utc; a date as in 2006-06-17T16:01:21",
    ),
    each("set", "GROUP.ID.KEY=VALUE", Machine, "set a key of the option -GROUP that has id=ID"),
    each("readconfig", "FILE", Machine, "options from a file, as QEMU has them"),
    each(
        "action",
        "EVENT=ACTION[,...]",
        Machine,
        "what an event leads to: reboot=reset|shutdown, shutdown=poweroff|pause, sigterm=exit|powerdown (the power button; a \
         second SIGTERM ends the machine), panic=shutdown|exit-failure|pause|none, \
         watchdog=reset|shutdown|poweroff|pause|debug|none or inject-nmi",
    ),
    flag("no-shutdown", Machine, "stop, but do not exit when the guest powers the machine off"),
    each(
        "overcommit",
        "mem-lock=on|off|on-fault",
        Machine,
        "keep all memory of the process in the host's, never swapped out",
    ),
    each("msg", "[timestamp=on|off][,guest-name=on|off]", Logs, "begin messages with the time and the machine's name"),
    // Nothing but a warning, or a check of what is said.
    once(
        "mem-path",
        "PATH",
        Machine,
        "the guest's RAM is in a file without a name in this folder, or a copy of this file's",
    ),
    flag("mem-prealloc", Machine, "the guest's RAM is allocated before it starts"),
    each("audiodev", "none[,KEY=VALUE...]", Machine, "no sound"),
    each("audio", "none[,KEY=VALUE...]", Machine, "no sound"),
    once("seed", "N", Machine, "accepted; random numbers are the host's"),
    once(
        "echr",
        "NUMBER",
        Console,
        "the key that escapes of a terminal begin with, by its ASCII number, default 1 (Ctrl-A)",
    ),
    once("watchdog-action", "ACTION", Machine, "the same as -action watchdog=ACTION"),
    each("trace", "EVENTS", Logs, "accepted; there are no trace events"),
    once("dfilter", "RANGES", Logs, "accepted; log items are of all addresses"),
    // True of mimus as it is.
    accepted("compat", "POLICY"),
    always("async-teardown"),
    always("audio-help"),
    always("enable-sync-profile"),
    always("nodefconfig"),
    always("win2k-hack"),
    each("parallel", "DEV", Console, "accepted; there is no parallel port"),
    always("no-user-config"),
    always("no-fd-bootchk"),
    // Of older command lines.
    lacks("balloon", &subjects::VIRTIO_BALLOON),
    gone_flag("curses", "-display curses"),
    gone_flag("localtime", "-rtc base=localtime"),
    always("no-kvm"),
    always("no-kvm-irqchip"),
    gone("realtime", "-overcommit mem-lock=on|off"),
    gone_flag("sdl", "-vnc or -display curses"),
    lacks("soundhw", &subjects::SOUND),
    gone("startdate", "-rtc base=DATE"),
    gone("watchdog", "-device ib700"),
    // Standard options.
    each("numa", "node[,KEY=VALUE...]", Machine, "accepted; all memory is in one node"),
    each(
        "add-fd",
        "fd=FD,set=SET",
        General,
        "an open file that the process was started with, which other options name as /dev/fdset/SET",
    ),
    accepted("k", "LAYOUT"),
    // Block devices.
    lacks("fda", &subjects::FLOPPY),
    lacks("fdb", &subjects::FLOPPY),
    later("mtdblock"),
    lacks("sd", &subjects::SD),
    lacks("pflash", &subjects::PFLASH),
    later("iscsi"),
    // USB.
    lacks_flag("usb", &subjects::USB),
    lacks("usbdevice", &subjects::USB),
    // Display.
    flag("full-screen", Console, "accepted; there is no window"),
    later("g"),
    // Of the screens of handheld boards; a PC's does not turn in QEMU either.
    always("portrait"),
    accepted("rotate", "DEGREES"),
    lacks("spice", &subjects::SPICE),
    // PC only.
    // Network, character devices, TPM.
    lacks("tpmdev", &subjects::TPM),
    // Boot.
    // Debugging and the rest.
    once("chroot", "DIR", General, "take DIR for the root of the file system once the machine is set up (root only)"),
    each("run-with", "[chroot=DIR][,user=USER|UID:GID]", General, "the same as -chroot and -runas"),
    flag("daemonize", General, "go on in the background once the machine is set up"),
    later("dump-vmstate"),
    once("icount", "KEYS", Machine, "accepted; the guest's time is the host's"),
    lacks("incoming", &subjects::MIGRATION),
    lacks("loadvm", &subjects::MIGRATION),
    // How Arm boards hand over arguments.
    always("old-param"),
    lacks_flag("only-migratable", &subjects::MIGRATION),
    lacks("plugin", &subjects::PLUGINS),
    later_flag("preconfig"),
    later("prom-env"),
    later("qtest"),
    later("qtest-log"),
    once("runas", "USER|UID:GID", General, "become this user once the machine is set up"),
    once(
        "sandbox",
        "on|off[,KEY=allow|deny...]",
        General,
        "what is given up of the user's rights on the host: by default, as far as the host can, files that no option names and \
         system calls that no machine makes (KEY is obsolete, elevateprivileges, spawn or resourcecontrol); on tells what the host \
         cannot take away; off: nothing",
    ),
    lacks_flag("xen-attach", &subjects::XEN),
    lacks("xen-domid", &subjects::XEN),
    lacks_flag("xen-domid-restrict", &subjects::XEN),
];

/// The option of this name or alias (without dash). Case counts: `-m` is not `-M`.
pub(super) fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.name == name || option.alias == Some(name))
}

/// Every name and alias.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().flat_map(|option| [Some(option.name), option.alias]).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_plain() {
        let mut seen = HashSet::new();
        for name in names() {
            assert!(seen.insert(name), "{name} twice");
            assert!(!name.is_empty() && !name.starts_with('-') && !name.contains(['=', ' ']), "{name}");
        }
    }

    #[test]
    fn values_that_stand_for_what_mimus_does_follow_from_the_table() {
        for option in OPTIONS {
            match option.status {
                Status::Always => assert!(!matches!(option.shape, Shape::FreeText(_)), "{}", option.name),
                Status::Offered(section, help, _) => {
                    assert!(SECTIONS.iter().any(|(known, _)| *known == section), "{}", option.name);
                    assert!(!help.is_empty(), "{}", option.name);
                }
                Status::NotYet | Status::Lacks(_) | Status::Gone(_) => {}
            }
        }
    }
}
