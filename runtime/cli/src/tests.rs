//! Command lines and what becomes of them.

mod cpus;
mod devices;
mod firmware;
mod lines;

mod riscv;
mod rows;
mod settings;
mod share;

use super::*;
use mimus_host::config::Plug;
use mimus_host::config::{
    Cache, Disk, Endpoint, Forward, ImageFormat, Layers, Limit, Limits, Link, MonitorSocket, NetBackend, OnError,
    Protocol, UserNet, Zeroes,
};
use mimus_host::config::{Chardev, PtyName, RunAs, Sandbox};
use mimus_host::display::{VncPlace, VncTarget};
use mimus_host::sandbox::Groups;
use mimus_hw::ide::IdePlace;
use mimus_hw::registry::Model;
use mimus_hw::virtio::Interface;
use mimus_machine::config::{Accel, Bios, Boot, CompileMode, Device, JitConfig};
use std::os::unix::ffi::OsStrExt;

/// The device of `-device isa-debug-exit`.
fn debug_exit() -> Device {
    Device::new(registry::model("isa-debug-exit").unwrap(), "-device isa-debug-exit")
}

/// What a message says of the names that a family offers.
fn offered(family: &Family) -> String {
    let names: Vec<&str> =
        family.choices.iter().filter(|choice| choice.is_offered()).map(|choice| choice.name).collect();
    format!("(supported: {})", names.join(", "))
}

/// Parses a command line written with blanks between arguments.
fn parsed(line: &str) -> Result<Invocation, CliError> {
    parse(line.split_whitespace().map(OsString::from))
}

/// The configuration, without the hint at a screen that most lines here lead to.
fn config_of(line: &str) -> Config {
    match parsed(line) {
        Ok(Invocation::Run(mut config)) => {
            config.warnings.retain(|warning| !warning.starts_with(super::display::HINT));
            *config
        }
        other => panic!("{line}: {other:?}"),
    }
}

fn printed(line: &str) -> String {
    match parsed(line) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

/// Checks that each line is refused with its message.
fn refused(rows: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (line, expected) in rows {
        let told = parsed(line).map_or_else(|error| error.to_string(), |other| format!("{other:?}"));
        if told != *expected {
            wrong.push_str(&format!("{line}\n  is: {told}\n  not: {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn disk(file: &str) -> Disk {
    Disk { format: Some(ImageFormat::Raw), ..Disk::new(file) }
}

/// Has COM1 connected there; it is the first device of a PC.
fn com1(config: &mut Config, chardev: Chardev) {
    config.devices[0] = Device::com1(chardev);
}

/// Where the first serial port of a PC is connected.
fn first_serial(config: &Config) -> Chardev {
    config.devices_of(registry::ISA_SERIAL).next().and_then(Device::chardev).cloned().unwrap_or(Chardev::None)
}

/// The same device at a place of the IDE controller: channel times two, and unit.
fn on_ide(index: usize, device: Device) -> Device {
    device.on_cable(IdePlace { channel: index / 2, unit: index % 2 })
}

/// A disk that an option puts there.
fn ide_disk(index: usize, disk: Disk) -> Device {
    on_ide(index, Device::new(registry::IDE_HD, disk.option.clone()).behind(Backend::Disk(disk.into())))
}

/// A device that is named by `-device`, of which nothing else is said.
fn plugged(name: &str) -> Device {
    Device::new(registry::model(name).unwrap(), format!("-device {name}"))
}

/// What the first adapter of a command line is plugged into.
fn netdev(line: &str) -> Option<Netdev> {
    config_of(line).adapters().next().and_then(Device::netdev).cloned()
}

/// The disks of a command line that are virtio devices.
fn virtio_disks(line: &str) -> Vec<Disk> {
    config_of(line).virtio().filter_map(Device::disk).cloned().collect()
}

/// How drivers reach the source of random numbers of a command line.
fn of_rng(line: &str) -> Interface {
    let config = config_of(line);
    let rng = config.devices_of(registry::VIRTIO_RNG.pci).next().expect("there is one");
    registry::interface(&rng.values)
}

fn vnc(host: &str, display: u16, password: bool) -> Option<VncTarget> {
    Some(VncTarget { place: VncPlace::Display { host: host.into(), display }, password })
}

#[test]
fn good_lines() {
    type Change = fn(&mut Config);
    let rows: &[(&str, Change)] = &[
        ("", |_| ()),
        ("-m 512", |c| c.ram_size = 512 << 20),
        ("--m 512M", |c| c.ram_size = 512 << 20),
        ("-m 1G", |c| c.ram_size = 1 << 30),
        ("-m size=1.5G", |c| c.ram_size = 3 << 29),
        ("-m 640M -smp 1", |c| c.ram_size = 640 << 20),
        ("-m 1", |c| c.ram_size = 1 << 20),
        ("-m 1T", |c| c.ram_size = 1 << 40),
        // The last counts, and the rest of a list stays.
        ("-m 512 -m 1G", |c| c.ram_size = 1 << 30),
        ("-m 512,size=1G", |c| c.ram_size = 1 << 30),
        ("-kernel a -kernel b", |c| c.kernel = Some("b".into())),
        ("-M pc,hpet=on -M accel=interp -M accel=jit", |c| c.hpet = Some(true)),
        ("-boot menu=on -boot c", |c| c.boot = Boot { order: [2, 0, 0], menu: true, ..Boot::default() }),
        ("-smp cpus=1,sockets=1,cores=1,threads=1,maxcpus=1", |_| ()),
        ("-kernel vmlinuz", |c| c.kernel = Some("vmlinuz".into())),
        ("-bios f -kernel k", |c| {
            c.bios = Bios::File("f".into());
            c.kernel = Some("k".into());
        }),
        ("-machine firmware=f", |c| c.bios = Bios::File("f".into())),
        ("-machine firmware=on -kernel k", |c| {
            c.firmware.before_kernel = Some(true);
            c.kernel = Some("k".into());
        }),
        ("-kernel k -initrd i -append console=ttyS0", |c| {
            c.kernel = Some("k".into());
            c.initrd = Some("i".into());
            c.append = "console=ttyS0".into();
        }),
        ("-kernel k -append -s", |c| {
            c.kernel = Some("k".into());
            c.append = "-s".into();
        }),
        ("-nographic", |c| {
            c.nographic = true;
            com1(c, Chardev::Stdio { mux: true });
        }),
        ("-nographic -nographic -serial stdio", |c| {
            c.nographic = true;
            com1(c, Chardev::Stdio { mux: true });
        }),
        ("-nographic -serial null", |c| {
            c.nographic = true;
            com1(c, Chardev::Null);
        }),
        ("-serial stdio", |_| ()),
        ("-serial mon:stdio -display none", |c| com1(c, Chardev::Stdio { mux: true })),
        ("-display none", |c| com1(c, Chardev::Null)),
        ("-display curses", |c| {
            com1(c, Chardev::Null);
            c.curses = true;
        }),
        ("-vnc :1", |c| {
            com1(c, Chardev::Null);
            c.vnc = vnc("127.0.0.1", 1, false);
        }),
        ("-vnc [::1]:2,password=off -serial stdio", |c| {
            c.vnc = vnc("::1", 2, false);
        }),
        ("-display vnc=h:3", |c| {
            com1(c, Chardev::Null);
            c.vnc = vnc("h", 3, false);
        }),
        ("-vnc :4,to=99,share=ignore -serial stdio", |c| {
            let place = VncPlace::Range { host: "127.0.0.1".into(), first: 4, last: 99 };
            c.vnc = Some(VncTarget { place, password: false });
        }),
        ("-vnc :4,password=on -serial stdio", |c| c.vnc = vnc("127.0.0.1", 4, true)),
        ("-vnc unix:/x -serial stdio", |c| {
            c.vnc = Some(VncTarget { place: VncPlace::Unix("/x".into()), password: false });
        }),
        ("-vga std", |_| ()),
        ("-vga none -vnc none -serial stdio", |c| drop(c.devices.remove(1))),
        ("-global VGA.xres=1024 -global driver=VGA,property=yres,value=768 -global VGA.vgamem_mb=64", |c| {
            c.devices[1] = c.devices[1].clone().with("xres", 1024).with("yres", 768).with("vgamem_mb", 64);
        }),
        ("-global VGA.edid=off", |c| c.devices[1].values.set("edid", registry::Value::Word("off"))),
        ("-global isa-debugcon.iobase=0x402 -debugcon null", |c| {
            let debugcon = Device::new(registry::ISA_DEBUGCON, "-debugcon").at(Chardev::Null);
            c.devices.push(debugcon.with("iobase", 0x402));
        }),
        ("-display none -nographic", |c| {
            c.nographic = true;
            com1(c, Chardev::Stdio { mux: true });
        }),
        ("-serial file:a,b=c", |c| com1(c, Chardev::File("a,b=c".into()))),
        ("-debugcon file:log", |c| {
            c.devices.push(Device::new(registry::ISA_DEBUGCON, "-debugcon").at(Chardev::File("log".into())));
        }),
        ("-debugcon stdio -nographic", |c| {
            c.nographic = true;
            com1(c, Chardev::Stdio { mux: true });
            c.devices.push(Device::new(registry::ISA_DEBUGCON, "-debugcon").at(Chardev::Stdio { mux: true }));
        }),
        ("-device isa-debug-exit", |c| c.devices.push(debug_exit())),
        ("-device isa-debug-exit,iobase=0xf4,iosize=0x04", |c| {
            c.devices.push(debug_exit().with("iobase", 0xf4).with("iosize", 4));
        }),
        ("-device driver=isa-debug-exit,iobase=0xffff,iosize=1", |c| {
            c.devices.push(debug_exit().with("iobase", 0xffff).with("iosize", 1));
        }),
        ("-M pc", |_| ()),
        ("-machine type=pc,usb=off,acpi", |_| ()),
        ("-machine type=q35,usb=off -machine pc", |_| ()),
        ("-machine none,hpet=off -M pc", |c| c.hpet = Some(false)),
        ("-machine usb=off -M pc,accel=interp", |c| c.accel = Accel::Interp),
        ("-accel interp", |c| c.accel = Accel::Interp),
        ("-accel jit", |_| ()),
        ("-accel accel=jit,tb-size=64,quick=7,threshold=1,region=0,compile=sync", |c| {
            let (tb_size_mib, quick, threshold, region) = (Some(64), Some(7), Some(1), Some(0));
            c.accel = Accel::Jit(JitConfig {
                tb_size_mib,
                quick,
                threshold,
                region,
                compile: CompileMode::Sync,
                ..JitConfig::default()
            });
        }),
        ("-accel jit,cache=/some/where,cache-size=64", |c| {
            let (cache, cache_size_mib) = (Some("/some/where".into()), Some(64));
            c.accel = Accel::Jit(JitConfig { cache, cache_size_mib, ..JitConfig::default() });
        }),
        ("-accel jit,compile=background", |_| ()),
        ("-cpu max", |_| ()),
        ("-no-reboot", |c| c.no_reboot = true),
        ("-monitor none -net none -nic none -parallel none -no-user-config", |c| drop(c.devices.remove(2))),
        ("-monitor /dev/null -serial none", |c| drop(c.devices.remove(0))),
        ("-chardev socket,id=c,fd=5,server=on,wait=off -qmp chardev:c", |c| {
            c.qmp.push(MonitorSocket::Inherited { fd: 5, server: true, wait: false });
        }),
        ("-chardev file,id=c,path=o,append=on,logfile=l -serial chardev:c", |c| {
            let chardev = Chardev::Append("o".into()).into();
            let chardev = Chardev::Logged { chardev, file: "l".into(), append: false }.into();
            com1(c, Chardev::Named { id: "c".into(), chardev });
        }),
        ("-chardev ringbuf,id=c,logfile=l,logappend=on -serial chardev:c", |c| {
            let chardev = Chardev::Logged { chardev: Chardev::Null.into(), file: "l".into(), append: true }.into();
            com1(c, Chardev::Named { id: "c".into(), chardev });
        }),
        ("-chardev socket,id=c,path=m,server,nowait -mon chardev=c,id=monitor,mode=control", |c| {
            c.qmp.push(MonitorSocket::Unix { path: "m".into(), server: true, wait: false });
        }),
        ("-serial udp::7@:8", |c| {
            com1(c, Chardev::Udp { local: "0.0.0.0:8".into(), remote: "127.0.0.1:7".into() });
        }),
        ("-serial unix:p,reconnect=2", |c| {
            let place = MonitorSocket::Unix { path: "p".into(), server: false, wait: false };
            com1(c, Chardev::Reconnecting(place, 2));
        }),
        ("-action sigterm=powerdown,reboot=shutdown", |c| {
            (c.process.sigterm, c.no_reboot) = (mimus_host::config::OnSigterm::PowerDown, true);
        }),
        ("-machine dump-guest-core=on", |c| c.process.dump_guest_ram = true),
        ("-sandbox off", |c| c.process.sandbox = Sandbox::Off),
        ("-sandbox on,obsolete=deny,spawn=allow,resourcecontrol=deny", |c| {
            c.process.sandbox = Sandbox::On(Groups::OBSOLETE | Groups::ELEVATE | Groups::RESOURCES);
        }),
        ("-runas nobody", |c| c.process.run_as = Some(RunAs::Name("nobody".into()))),
        ("-chroot /srv", |c| c.process.root = Some("/srv".into())),
        ("-run-with async-teardown=on,chroot=/srv,user=1:2", |c| {
            c.process.root = Some("/srv".into());
            c.process.run_as = Some(RunAs::Ids(1, 2));
        }),
        ("-runas 12:34", |c| c.process.run_as = Some(RunAs::Ids(12, 34))),
        ("-daemonize", |c| {
            com1(c, Chardev::Null);
            c.process.daemonize = true;
        }),
        ("-no-hpet", |c| c.hpet = Some(false)),
        ("-machine hpet=off", |c| c.hpet = Some(false)),
        ("-M pc,hpet=on", |c| c.hpet = Some(true)),
        ("-d in_asm,op_opt -d int -D log -stats s.json", |c| {
            c.log = LogItems::IN_ASM | LogItems::OP_OPT | LogItems::INT;
            c.log_file = Some("log".into());
            c.stats = Some("s.json".into());
        }),
        ("-d all", |c| c.log = LogItems::all() - LogItems::NOCHAIN),
    ];
    for (line, change) in rows {
        let mut expected = Config::default();
        change(&mut expected);
        assert_eq!(config_of(line), expected, "{line}");
    }
}

#[test]
fn bad_lines() {
    let devices = "(supported: stdio, mon:stdio, file:FILE, pipe:FILE, pty, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, udp:HOST:PORT, /dev/PORT, \
         chardev:ID, null, none)";
    let rows = [
        ("-krenel x", "-krenel: unknown option; did you mean -kernel? (-help lists all)"),
        ("--krenel x", "--krenel: unknown option; did you mean -kernel? (-help lists all)"),
        ("-xyzzyx", "-xyzzyx: unknown option (-help lists all)"),
        ("-", "-: an option without a name"),
        ("--", "--: unknown option (-help lists all)"),
        ("-m=512", "-m=512: the value is an argument of its own: -m '512'"),
        ("-nographic=on", "-nographic=on: -nographic takes no value"),
        ("-m", "-m: needs a value: [size=]SIZE"),
        ("-append", "-append: needs a value: TEXT"),
        ("-kernel -initrd x", "-kernel: needs a value (FILE), but the option -initrd follows"),
        ("-hda", "-hda: needs a value: FILE"),
        // QEMU's own.
        ("-fda disk.img", "-fda: -fda needs floppy, which is not supported yet: use -hda or -cdrom"),
        ("-bios none", "-bios: none: the machine pc then needs -kernel"),
        ("-bios f -kernel k -machine firmware=off", "-bios: contradicts -machine firmware=off"),
        ("-bios none -kernel k -machine firmware=on", "-bios: none: contradicts -machine firmware=on"),
        ("-machine firmware=off", "-machine pc: firmware: off: the machine then needs -kernel"),
        ("-boot x", "-boot: order=x: 'x' is none of a, c, d and n"),
        ("-boot order=cc", "-boot: order=cc: 'c' is there twice"),
        ("-boot acdn", "-boot: order=acdn: 'n' is one too many: firmware tries three"),
        ("-global x.y", "-global: 'x.y' is not of the form DRIVER.PROPERTY=VALUE"),
        ("-global VGA.xres=4096", "-global VGA: xres: '4096' is out of range: a number from 64 to 2560"),
        ("-global VGA.vgamem_mb=24", "-global VGA: vgamem_mb=24 is not a power of two"),
        (
            "-fdb a.img -krenel",
            "-fdb: -fdb needs floppy, which is not supported yet: use -hda or -cdrom\n\
             -krenel: unknown option; did you mean -kernel? (-help lists all)",
        ),
        ("-vga cirrus", "-vga: 'cirrus' needs cirrus, which is not supported yet: use -vga std"),
        ("-vnc 1", "-vnc: '1' does not name a display (supported: [HOST]:N, unix:PATH, none)"),
        ("-vnc :x", "-vnc: ':x' does not end in the number of a display (supported: [HOST]:N, unix:PATH, none)"),
        ("-vnc :60000", "-vnc: ':60000' has a display above 59635 (supported: [HOST]:N, unix:PATH, none)"),
        ("-vnc unix:", "-vnc: 'unix:' names no socket (supported: [HOST]:N, unix:PATH, none)"),
        ("-vnc :1 -vga none", "-vnc: the machine has no display adapter"),
        ("-vnc :1 -display vnc=:2", "-vnc: given with -display vnc, which is the same"),
        ("-display curses -nographic", "-display: curses cannot be combined with -nographic"),
        ("-display curses -serial stdio", "-serial: stdio is where -display curses draws"),
        ("-arch riscv64 -vga std", "-vga: only the machine pc has a display adapter"),
        // Memory and CPUs.
        ("-m lots", "-m: size: 'lots' is not a size: a number of MiB, or one with a suffix K, M, G or T"),
        ("-m 0", "-m: '0' is out of range: 1M to 1T"),
        ("-m 512K", "-m: '512K' is out of range: 1M to 1T"),
        ("-m 2T", "-m: '2T' is out of range: 1M to 1T"),
        ("-m sise=1G", "-m: unknown key 'sise'; did you mean 'size'? (keys: size, slots, maxmem)"),
        ("-smp 0", "-smp: cpus: '0' is out of range: a number from 1 to 4096"),
        ("-smp two", "-smp: cpus: 'two' is not a number: a number from 1 to 4096"),
        ("-cpu mex", "-cpu: 'mex' is not a CPU model; did you mean 'max'? (-cpu help lists all)"),
        // Machines and accelerators.
        ("-M q35", "-machine: 'q35' needs q35, which is not supported yet: use -machine pc"),
        ("-M virt", "-machine: 'virt': a machine of riscv64: use -arch riscv64"),
        ("-arch arm", "-arch: 'arm' is not an architecture that mimus has (supported: x86_64, i386, riscv64)"),
        ("-machine p", "-machine: 'p' is not a machine (supported: pc, none)"),
        ("-machine pc,usb=on", "-machine pc: usb: 'on' is not supported yet (it is always 'off')"),
        (
            "-machine pc,smp.cpus=2",
            "-machine pc: unknown key 'smp.cpus' (keys: accel, acpi, hpet, firmware, identity, pit, dump-guest-core, memory-backend, smbios-entry-point-type, x-oem-id, x-oem-table-id)",
        ),
        ("-M pc,accel=jit -accel jit", "-accel: cannot be combined with -machine accel="),
        ("-accel git", "-accel: 'git' is not an accelerator; did you mean 'jit'? (supported: jit, tcg, interp)"),
        ("-accel tb-size=4", "-accel: 'tb-size=4' does not name an accelerator (supported: jit, tcg, interp)"),
        (
            "-accel jit,tb-sise=64",
            "-accel jit: unknown key 'tb-sise'; did you mean 'tb-size'? (keys: tb-size, quick, threshold, region, compile, cache, cache-size, cpu-limit, one-insn-per-tb)",
        ),
        ("-accel jit,tb-size=0", "-accel jit: tb-size: '0' is out of range: a number from 1 to 4096"),
        ("-accel jit,cache-size=0", "-accel jit: cache-size: '0' is out of range: a number from 1 to 1048576"),
        ("-accel jit,cache=", "-accel: cache: no folder is named"),
        ("-accel jit,tb-size=big", "-accel jit: tb-size: 'big' is not a number: a number from 1 to 4096"),
        ("-accel jit,compile=later", "-accel jit: compile: 'later' is not known here: background or sync"),
        ("-accel interp,threshold=1", "-accel interp: unknown key 'threshold' (no keys are supported)"),
        ("-accel jit,", "-accel: 'jit,' has an empty item (a literal comma is written ',,')"),
        // Devices.
        (
            "-device rtl8139",
            "-device: 'rtl8139' needs rtl8139, which is not supported yet: use e1000 or virtio-net-pci",
        ),
        (
            "-device isa-debug-exti",
            &format!(
                "-device: 'isa-debug-exti' is not supported yet; did you mean 'isa-debug-exit'? {}",
                offered(&DEVICE)
            ),
        ),
        ("-device frobnicator", &format!("-device: 'frobnicator' is not a device {}", offered(&DEVICE))),
        ("-device isa-debugcon,iobase=0x402", "-device isa-debugcon: needs chardev=ID"),
        ("-device isa-debugcon,chardev=x", "-device isa-debugcon: there is no -chardev with id=x"),
        ("-device pc-testdev -device pc-testdev", "-device pc-testdev: its ports are fixed: there can be only one"),
        ("-device pc-testdev,id=x -device isa-debug-exit,id=x", "-device: the id 'x' is given twice"),
        (
            "-device isa-debug-exit,iobase=0x10000",
            "-device isa-debug-exit: iobase: '0x10000' is out of range: a number from 0 to 65535",
        ),
        (
            "-device isa-debug-exit,iobase=0xffff,iosize=4",
            "-device isa-debug-exit: iobase=0xffff,iosize=4 reaches past port 0xffff",
        ),
        ("-display nome", "-display: 'nome' is not a display; did you mean 'none'? (supported: none, curses)"),
        // Character devices.
        ("-serial mon:pty", &format!("-serial: 'mon:pty' is not supported yet {devices}")),
        ("-serial studio", &format!("-serial: 'studio' is not a character device {devices}")),
        ("-serial unix:/x,telnet=on", "-serial: telnet is for tcp:"),
        ("-serial tcp:h:1,to=2", "-serial: 'to' is not supported here (settings: server, wait, telnet, reconnect)"),
        ("-serial tcp:h:1,server,reconnect=2", "-serial: reconnect= is for server=off"),
        ("-serial udp:h", "-serial: 'h' is not HOST:PORT"),
        ("-serial chardev:x", "-serial: there is no -chardev with id=x"),
        ("-serial pipe:", "-serial: 'pipe:' needs a file name: pipe:FILE"),
        ("-chardev null", "-chardev null: needs id=ID"),
        ("-chardev null,id=a -chardev pty,id=a", "-chardev: the id 'a' is given twice"),
        ("-chardev file,id=a", "-chardev file: needs path=PATH"),
        ("-chardev socket,id=a,host=h", "-chardev socket: needs path=PATH, or port=PORT and perhaps host=HOST"),
        ("-chardev socket,id=a,path=p,nowait", "-chardev socket: wait= is for server=on"),
        ("-chardev socket,id=a,path=p,telnet=on", "-chardev socket: telnet is for TCP"),
        (
            "-chardev socket,id=a,path=p,websocket=on",
            "-chardev socket: websocket: 'on' is not supported yet (it is always 'off')",
        ),
        ("-chardev socket,id=a,fd=x", "-chardev socket: fd=x: not a number"),
        (
            "-chardev ringbuf,id=a",
            "-chardev ringbuf: ringbuf-read is not supported yet: only logfile=FILE shows what was written",
        ),
        ("-chardev null,id=a,logappend=on", "-chardev null: logappend= is for logfile="),
        ("-chardev stdio,id=a,signal=off", "-chardev stdio: signal=off is not supported yet without mux=on"),
        ("-device virtio-serial-pci -device virtconsole", "-device virtconsole: needs chardev=ID"),
        (
            "-chardev pty,id=a -device virtio-serial -device virtserialport,chardev=a,nr=0",
            "-device virtserialport: nr=0 is for a virtconsole",
        ),
        (
            "-chardev pty,id=a -device virtio-serial -device virtserialport,chardev=a,bus=x.0",
            "-device virtserialport: bus=x.0: no virtio-serial device before it is called so",
        ),
        (
            "-chardev pty,id=a -device virtconsole,chardev=a",
            "-device virtconsole: needs a virtio-serial device before it",
        ),
        (
            "-chardev pty,id=a -device virtio-serial -device virtconsole,chardev=a -serial chardev:a",
            "-serial: the character device 'a' is in use by -device virtconsole",
        ),
        (
            "-chardev stdio,id=a -device virtio-serial -device virtconsole,chardev=a -serial stdio",
            "-serial: cannot use stdio by multiple character devices",
        ),
        (
            "-chardev stdio,id=a,mux=on -mon a,mode=control",
            "-mon: QMP cannot share standard input and output with others yet",
        ),
        ("-serial file:", "-serial: 'file:' needs a file name: file:FILE"),
        (
            "-serial null -serial null -serial null -serial null -serial null",
            "-serial: a PC has no more than four serial ports, unless iobase= and irq= are given",
        ),
        ("-serial stdio -serial mon:stdio", "-serial: cannot use stdio by multiple character devices"),
        (
            "-chardev null,id=a -serial null -device isa-serial,chardev=a,index=0",
            "-device isa-serial: iobase=0x3f8: another serial port is there",
        ),
        ("-daemonize -nographic", "-daemonize: cannot be used with -nographic"),
        ("-machine pc -machine q35", "-machine: 'q35' needs q35, which is not supported yet: use -machine pc"),
        ("-daemonize -display none -monitor stdio", "-daemonize: cannot be used with stdio"),
        ("-runas 12:x", "-runas: '12:x' is neither USER nor UID:GID"),
        ("-sandbox maybe", "-sandbox: enable: 'maybe' is not known here: on or off"),
        // Boot and logs.
        ("-append quiet", "-append: needs -kernel"),
        ("-initrd x", "-initrd: needs -kernel"),
        (
            "-d in_asn",
            "-d: 'in_asn' is not a log item; did you mean 'in_asm'? \
             (items: in_asm, op, op_opt, clif, out_asm, int, exec, mmu, unimp, cpu_reset, guest_errors, nochain, block)",
        ),
        (
            "-d int,,mmu",
            "-d: '' is not a log item (items: in_asm, op, op_opt, clif, out_asm, int, exec, mmu, unimp, cpu_reset, guest_errors, nochain, block)",
        ),
    ];
    refused(&rows);
}

#[test]
fn every_option_of_qemu_without_support_says_so() {
    for option in OPTIONS.iter().filter(|option| option.status == Status::NotYet) {
        let mut line = vec![OsString::from(format!("-{}", option.name))];
        if option.shape != Shape::Flag {
            line.push("x".into());
        }
        assert_eq!(parse(line).unwrap_err().to_string(), format!("-{}: not supported yet", option.name));
    }
    for (line, expected) in [
        // A device that refers to something refused is not told, nor is what only it would have used.
        (
            "-drive if=pflash,file=x,id=a -device virtio-blk-pci,drive=a -loadvm x",
            "-loadvm: -loadvm needs migration, which is not supported yet: start the guest anew\n-drive: if: 'pflash' needs pflash, which is not supported yet: use -bios FILE with the whole firmware",
        ),
        (
            "-netdev user,id=n -device e1000e,netdev=n -usb -device usb-tablet -smp 2,cores=4 -m 0",
            "-usb: -usb needs USB, which is not supported yet: leave it out, a PC has a keyboard and a mouse without\n\
             -smp: sockets (0) * dies (1) * cores (4) * threads (1) is not maxcpus (2)\n\
             -m: '0' is out of range: 1M to 1T\n\
             -device: 'e1000e' needs e1000e, which is not supported yet: use e1000 or virtio-net-pci\n\
             -device: 'usb-tablet' needs USB, which is not supported yet: leave it out, a PC has a keyboard and a mouse \
             without",
        ),
        (
            "-soundhw hda -localtime -hda a -balloon none -xyzzy 3 -device ahci,id=s -device ide-hd,drive=d,bus=s.0 -drive \
             file=x,if=none,id=d",
            "-soundhw: -soundhw needs sound, which is not supported yet: leave it out, or use -audiodev none\n\
             -localtime: QEMU has it no longer: use -rtc base=localtime\n\
             -balloon: -balloon needs virtio-balloon, which is not supported yet: leave it out\n\
             -xyzzy: unknown option (-help lists all)\n\
             -device: 'ahci' needs AHCI, which is not supported yet: use if=virtio or ide-hd",
        ),
        (
            "-nic user,model=ne2k_pci -netdev tap,id=a",
            "-netdev: 'tap' needs tap, which is not supported yet: use -netdev user, stream or socket\n\
             -nic: model=ne2k_pci needs ne2k, which is not supported yet: use e1000 or virtio-net-pci",
        ),
    ] {
        assert_eq!(parsed(line).unwrap_err().to_string(), expected);
    }
}

#[test]
fn arguments_that_no_shell_would_split() {
    let args = |list: &[&str]| parse(list.iter().map(OsString::from));
    let config = match args(&["-kernel", "a b", "-append", "console=ttyS0 a=b,c  quiet", "-initrd", "-"]) {
        Ok(Invocation::Run(config)) => config,
        other => panic!("{other:?}"),
    };
    assert_eq!(config.kernel, Some("a b".into()));
    assert_eq!(config.append, "console=ttyS0 a=b,c  quiet");
    assert_eq!(config.initrd, Some("-".into()));
    let rows: &[(&[&str], &str)] = &[
        (&[""], "-hda: the file name is empty"),
        (&["-kernel", ""], "-kernel: the file name is empty"),
        (&["-stats", ""], "-stats: the file name is empty"),
        (&["-m", ""], "-m: the value is empty"),
        (
            &["-serial", ""],
            "-serial: '' is not a character device (supported: stdio, mon:stdio, file:FILE, pipe:FILE, pty, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, udp:HOST:PORT, /dev/PORT, chardev:ID, null, none)",
        ),
        (
            &["-d", ""],
            "-d: '' is not a log item (items: in_asm, op, op_opt, clif, out_asm, int, exec, mmu, unimp, cpu_reset, guest_errors, nochain, block)",
        ),
        (&["-cpu", "a\nb\x1b[2J"], "-cpu: 'a\\nb\\u{1b}[2J' is not a CPU model (-cpu help lists all)"),
        (&["-a\nb"], "-a\\nb: unknown option (-help lists all)"),
    ];
    for (line, expected) in rows {
        assert_eq!(args(line).unwrap_err().to_string(), *expected, "{line:?}");
    }
}

#[test]
fn bytes_that_are_not_utf8() {
    let odd = || OsStr::from_bytes(b"\xff.img").to_owned();
    let two = |option: &str| parse([OsString::from(option), odd()]);
    match two("-kernel") {
        Ok(Invocation::Run(config)) => assert_eq!(config.kernel, Some(odd().into())),
        other => panic!("{other:?}"),
    }
    match parse([OsString::from("-serial"), OsStr::from_bytes(b"file:\xff.img").to_owned()]) {
        Ok(Invocation::Run(config)) => assert_eq!(first_serial(&config), Chardev::File(odd().into())),
        other => panic!("{other:?}"),
    }
    assert_eq!(two("-m").unwrap_err().to_string(), "-m: '\u{fffd}.img' is not valid UTF-8");
    match parse([odd()]) {
        Ok(Invocation::Run(config)) => {
            let disk = ide_disk(0, Disk { option: "-hda".into(), ..Disk::new(odd()) });
            assert_eq!(config.drives().next(), Some(&disk));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn texts() {
    assert_eq!(printed("-V"), format!("mimus {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(printed("-m 512 -help"), help::help());
    assert_eq!(printed("-h"), help::help());
    // A user who asks for help gets it, whatever else is wrong.
    assert_eq!(printed("-hda x -foo --help"), help::help());
    assert_eq!(printed("-d help"), help::log_items());
    assert_eq!(printed("-d in_asm,?"), help::log_items());
    assert_eq!(
        printed("-accel help"),
        "Accelerators supported by mimus:\n\
         jit                  interpret what is cold, compile what is hot (default)\n\
         tcg                  the same, as QEMU calls it\n\
         interp               interpret only\n"
    );
    assert_eq!(
        printed("-M help"),
        "Supported machines are:\n\
         pc                   PC with ISA devices, APICs and a PCI host bridge (default)\n\
         none                 no machine, for programs that ask what there is\n"
    );
    assert_eq!(printed("-machine ?"), printed("-M help"));
    let devices = printed("-device help");
    assert!(
        devices.starts_with("Supported devices are:\nname \"isa-debug-exit\", desc \"a port that ends"),
        "{devices}"
    );
    assert!(devices.contains("\nname \"virtio-rng-pci\", alias \"virtio-rng\", desc \""), "{devices}");
    assert_eq!(
        printed("-device isa-debug-exit,help"),
        "isa-debug-exit options:\n\
         \x20 iobase       first I/O port, default 0x501 (a number from 0 to 65535)\n\
         \x20 iosize       number of ports, default 2 (a number from 1 to 4)\n\
         \x20 id           what monitors call it (a name)\n"
    );
    assert_eq!(printed("-accel interp,help"), "There are no options for interp.\n");
    assert_eq!(
        printed("-display help"),
        "Available display backend types:\nnone                 no display\ncurses               the screen's text in this terminal\n"
    );
}

#[test]
fn log_items_have_unique_flags_that_cover_the_type() {
    let mut all = LogItems::empty();
    for (item, name, _) in LOG_ITEMS {
        assert!(!all.intersects(*item), "{name}");
        all |= *item;
    }
    assert_eq!(all, LogItems::all());
}

#[test]
fn the_programs_name_chooses_the_architecture() {
    let machine = |program: &str, rest: &str| {
        let args = std::iter::once(program).chain(rest.split_whitespace()).map(OsString::from);
        match parse_program(args) {
            Ok(Invocation::Run(config)) => config.machine,
            other => panic!("{program}: {other:?}"),
        }
    };
    for (program, expected) in [
        ("mimus", MachineKind::Pc),
        ("/usr/bin/mimus-system-riscv64", MachineKind::Virt),
        ("./qemu-system-riscv64", MachineKind::Virt),
        ("qemu-system-x86_64", MachineKind::Pc),
        ("qemu-system-i386", MachineKind::Pc),
        ("riscv64", MachineKind::Pc),
        ("", MachineKind::Pc),
    ] {
        assert_eq!(machine(program, ""), expected, "{program}");
    }
    assert_eq!(machine("mimus-system-riscv64", "-arch x86_64"), MachineKind::Pc);
    let error = parse_program(["qemu-system-arm".into()]).unwrap_err().to_string();
    assert!(error.starts_with("qemu-system-arm: 'arm' is not an architecture"), "{error}");
}
