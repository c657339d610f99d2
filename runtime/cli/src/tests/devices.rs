//! Command lines with disks, networks, character devices and other devices.

use super::*;
use mimus_host::chardev::Mux;
use mimus_host::config::{GuestForward, NetBoot, Service};

#[test]
fn character_devices() {
    let unix = |wait| MonitorSocket::Unix { path: "/s".into(), server: true, wait };
    let tcp = MonitorSocket::Tcp { host: "127.0.0.1".into(), port: 9, server: false, wait: false };
    let console = "-device virtio-serial-pci -device virtconsole,chardev=c -chardev";
    let named = |id: &str, chardev: Chardev| Chardev::Named { id: id.into(), chardev: chardev.into() };
    let of = |config: &Config| config.ports().filter_map(Device::chardev).cloned().collect::<Vec<_>>();
    let consoles = |line: &str| of(&config_of(&format!("{console} {line}")));
    let is = |chardev: Chardev| vec![named("c", chardev)];
    assert_eq!(consoles("pty,id=c"), is(Chardev::Pty(PtyName::default())));
    assert_eq!(consoles("pipe,id=c,path=/p"), is(Chardev::Pipe("/p".into())));
    assert_eq!(consoles("socket,id=c,path=/s,server,nowait"), is(Chardev::Socket(unix(false))));
    assert_eq!(consoles("socket,id=c,path=/s,server=on"), is(Chardev::Socket(unix(true))));
    assert_eq!(consoles("socket,id=c,port=9,host="), is(Chardev::Socket(tcp.clone())));
    let config = config_of(&format!("{console} stdio,id=c -nographic"));
    assert_eq!((of(&config), first_serial(&config)), (is(Chardev::Stdio { mux: false }), Chardev::Null));
    assert_eq!(first_serial(&config_of("-serial tcp::9")), Chardev::Socket(tcp));
    assert_eq!(first_serial(&config_of("-serial unix:/s,server=on,wait=off")), Chardev::Socket(unix(false)));
    let config = config_of("-chardev stdio,id=a,mux=on -serial chardev:a -mon chardev=a");
    assert_eq!((first_serial(&config), config.monitors.len()), (named("a", Chardev::Stdio { mux: true }), 0));
    let config = config_of(
        "-echr 0x14 -chardev socket,id=a,path=/s,server=on,mux=on -serial chardev:a -mon a -qmp chardev:a -chardev tty,id=b,path=/t \
         -serial chardev:b -serial /dev/ttyS0",
    );
    let mux = Chardev::Mux(Mux::new(Chardev::Socket(unix(true)), 0x14));
    let at = MonitorSocket::At(mux.clone().into());
    let ports: Vec<Chardev> = config.devices_of(registry::ISA_SERIAL).filter_map(Device::chardev).cloned().collect();
    assert_eq!((config.monitors, config.qmp), (vec![at.clone()], vec![at]));
    let devices = [named("b", Chardev::Device("/t".into())), Chardev::Device("/dev/ttyS0".into())];
    assert_eq!((&ports[0], &ports[1..]), (&named("a", mux), &devices[..]));
    assert_eq!(config.settings.escape_key, Some(0x14));
    let config = config_of("-chardev socket,id=q,path=/s,server=on,wait=off -mon chardev=q,mode=control");
    assert_eq!((config.qmp, config.monitors.len()), (vec![unix(false)], 0));
    assert!(printed("-chardev help").contains("\nsocket    "));
    assert!(printed("-chardev socket,help").contains("  path   "));
}

#[test]
fn ports_of_virtio_consoles() {
    let ports = |line: &str| -> Vec<Vec<(u32, String, bool)>> {
        let line =
            format!("-chardev null,id=a -chardev null,id=b -chardev null,id=c -device virtio-serial,id=s {line}");
        let row = |port: &Device| {
            let name = port.values.text("name").unwrap_or_default();
            (port.values.port("nr").into(), name, port.model == registry::VIRTCONSOLE)
        };
        let is_controller = |device: &&Device| matches!(device.backend, Backend::Ports(_));
        let config = config_of(&line);
        let all = config.devices.iter().filter(is_controller);
        all.map(|controller| controller.ports().iter().map(row).collect()).collect()
    };
    let row = |number, name: &str, console| (number, name.to_owned(), console);
    assert_eq!(ports(""), [[]]);
    assert_eq!(
        ports(
            "-device virtserialport,chardev=a,name=org.qemu.guest_agent.0 -device virtconsole,chardev=b \
               -device virtconsole,chardev=c"
        ),
        [[row(1, "org.qemu.guest_agent.0", false), row(0, "", true), row(2, "", true)]]
    );
    assert_eq!(
        ports(
            "-device virtio-serial,id=t -device virtserialport,chardev=a,bus=t.0,nr=7 -device virtserialport,chardev=b"
        ),
        [[row(1, "", false)], [row(7, "", false)]]
    );
}

#[test]
fn serial_ports() {
    let ports = |line: &str| {
        let config = config_of(line);
        let place = |serial: &Device| (serial.values.port("iobase"), serial.values.port("irq"));
        let all = config.devices_of(registry::ISA_SERIAL);
        all.map(|serial| (place(serial), serial.chardev().unwrap().to_string())).collect::<Vec<_>>()
    };
    let row = |iobase: u16, irq: u16, name: &str| ((iobase, irq), name.to_owned());
    let devices = "-chardev null,id=a -chardev pty,id=b -chardev file,path=f,id=c";
    assert_eq!(
        ports("-serial stdio -serial null -serial none -serial pty"),
        [row(0x3f8, 4, "stdio"), row(0x2f8, 3, "null"), row(0x2e8, 3, "pty")]
    );
    // Without -serial the first of -device is the first of all, as with QEMU.
    assert_eq!(ports(&format!("{devices} -device isa-serial,chardev=b")), [row(0x3f8, 4, "pty")]);
    let line = format!("-serial none -device isa-serial,chardev=a,index=2,id=s -device isa-serial,chardev=b {devices}");
    assert_eq!(ports(&line), [row(0x3e8, 4, "null"), row(0x3f8, 4, "pty")]);
    let line =
        format!("-serial null -device isa-serial,chardev=a -device isa-serial,chardev=b,iobase=0x3220,irq=5 {devices}");
    assert_eq!(ports(&line), [row(0x3f8, 4, "null"), row(0x2f8, 3, "null"), row(0x3220, 5, "pty")]);
    // What is said of all counts for the first, too.
    assert_eq!(ports("-global isa-serial.irq=5"), [row(0x3f8, 5, "stdio")]);
    assert_eq!(config_of("-global isa-serial.irq=5").warnings, [""; 0]);
    let line = "-global isa-serial.iobase=0x3220 -serial null -serial pty";
    let twice = "-serial: iobase=0x3220: another serial port is there";
    assert_eq!(parsed(line).unwrap_err().to_string(), twice);
}

#[test]
fn interfaces_of_virtio_devices() {
    let interface = |keys: &str| of_rng(&format!("-device virtio-rng-pci{keys}"));
    assert_eq!(interface(""), Interface::Transitional);
    assert_eq!(interface(",disable-legacy=off,disable-modern=off"), Interface::Transitional);
    assert_eq!(interface(",disable-legacy=on"), Interface::Modern);
    assert_eq!(interface(",disable-legacy=auto,disable-modern=true"), Interface::Legacy);
    let config = config_of("-device virtio-net-pci,disable-modern=on");
    assert_eq!(config.adapters().map(|nic| registry::interface(&nic.values)).next(), Some(Interface::Legacy));
    refused(&[(
        "-device virtio-rng-pci,disable-modern=on,disable-legacy=on",
        "-device virtio-rng-pci: disable-legacy=on,disable-modern=on leaves no way to reach it",
    )]);
}

#[test]
fn devices_for_tests_of_kernels() {
    let line = "-nodefaults -device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -device isa-debug-exit,id=x \
                -vnc none -serial stdio -device pci-testdev -chardev null,id=d \
                -device isa-debugcon,iobase=0x402,chardev=d,readback=7";
    let config = config_of(line);
    assert_eq!(first_serial(&config), Chardev::Stdio { mux: false });
    let devices: Vec<_> = config.devices.iter().map(|device| (device.model.name, &*device.plug.id)).collect();
    let names = ["isa-serial", "pc-testdev", "isa-debug-exit", "isa-debug-exit", "pci-testdev", "isa-debugcon"];
    assert_eq!(devices, [0, 1, 2, 3, 4, 5].map(|index| (names[index], if index == 3 { "x" } else { "" })));
    let told = |index: usize| config.devices[index].values.told().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!((told(2), told(3)), (vec!["0xf4".into(), "4".into()], vec!["0x501".into(), "2".into()]));
    assert_eq!(told(5), ["d", "0x402", "0x7"]);
}

#[test]
fn disks_of_a_pc() {
    let cd = |index: usize, option: &str, file: &str| {
        let medium = Disk { read_only: true, option: option.into(), ..Disk::new(file) };
        on_ide(index, Device::new(registry::IDE_CD, option).behind(Backend::Disk(medium.into())))
    };
    let new = |file: &str| Disk::new(file);
    let by = |option: &str, file: &str| Disk { option: option.into(), ..new(file) };
    let named = |index: usize, device: Device, disk: Disk| {
        on_ide(index, device.with_text("drive", "x").behind(Backend::Disk(Disk { id: "x".into(), ..disk }.into())))
    };
    let [com1, vga, adapter, usual] = <[Device; 4]>::try_from(Config::default().devices).unwrap();
    // The drives of the line, and whether there is the usual one.
    let rows: Vec<(&str, Vec<Device>, bool)> = vec![
        ("", vec![], true),
        ("a.img", vec![ide_disk(0, by("-hda", "a.img"))], true),
        ("-hda a -cdrom c", vec![ide_disk(0, by("-hda", "a")), cd(2, "-cdrom", "c")], false),
        ("-hdc c", vec![ide_disk(2, by("-hdc", "c"))], false),
        (
            "-hdb a -hdd d -snapshot",
            vec![
                ide_disk(1, Disk { snapshot: true, ..by("-hdb", "a") }),
                ide_disk(3, Disk { snapshot: true, ..by("-hdd", "d") }),
            ],
            true,
        ),
        (
            "-drive file=a,format=qcow2 -drive file=b,index=3",
            vec![ide_disk(0, Disk { format: Some(ImageFormat::Qcow2), ..new("a") }), ide_disk(3, new("b"))],
            true,
        ),
        (
            "-drive file=b,bus=1 -drive file=c,unit=1,media=cdrom",
            vec![ide_disk(2, new("b")), cd(1, "-drive", "c")],
            false,
        ),
        ("-drive media=cdrom", vec![on_ide(0, Device::new(registry::IDE_CD, "-drive"))], true),
        (
            "-drive media=cdrom,id=x,serial=s",
            vec![on_ide(0, Device::new(registry::IDE_CD, "-drive").with_text("serial", "s").with_text("drive", "x"))],
            true,
        ),
        (
            "-drive file=a,cache=none,discard=unmap,throttling.bps-total=1000,throttling.iops-total=20",
            vec![ide_disk(
                0,
                Disk {
                    cache: Cache { direct: true, ..Cache::default() },
                    discard: true,
                    limits: Box::new(Limits {
                        bytes: limits(1000, 0, 0),
                        requests: limits(20, 0, 0),
                        ..Limits::default()
                    }),
                    ..new("a")
                },
            )],
            true,
        ),
        (
            "-drive file=a,if=none,id=x,media=cdrom -device ide-cd,drive=x,bus=ide.1,unit=1,id=y",
            vec![Device {
                plug: Plug { id: "y".into(), ..Plug::default() },
                ..named(3, plugged("ide-cd").with_text("id", "y"), Disk { read_only: true, ..new("a") })
            }],
            true,
        ),
        (
            "-drive file=a,if=none,id=x -device ide-hd,drive=x,serial=abc",
            vec![named(0, plugged("ide-hd").with_text("serial", "abc"), Disk { serial: "abc".into(), ..new("a") })],
            true,
        ),
    ];
    for (line, drives, has_usual) in rows {
        let usual = has_usual.then(|| usual.clone());
        let devices = [&com1, &vga, &adapter].into_iter().cloned().chain(drives).chain(usual).collect();
        assert_eq!(config_of(line), Config { devices, ..Config::default() }, "{line}");
    }
    let disk = Disk { serial: "s".into(), snapshot: true, ..new("a") };
    assert_eq!(virtio_disks("-drive file=a,if=virtio,serial=s,snapshot=on"), [disk]);
    let rows = [
        ("-hda a -hda b", "-hda: there is a drive at bus=0,unit=0 already"),
        ("-hdc a -cdrom b", "-cdrom: there is a drive at bus=1,unit=0 already"),
        ("-drive file=a,index=4", "-drive: index, bus, unit: the IDE controller has two buses with two places each"),
        ("-drive file=a,index=1,unit=0", "-drive: index: cannot be combined with bus and unit"),
        ("-drive file=a,if=virtio,media=cdrom", "-drive: media=cdrom: a CD-ROM drive needs if=ide"),
        (
            "-drive file=a,readonly=on",
            "-drive: readonly=on: an IDE disk can be written to (use if=virtio, media=cdrom or snapshot=on)",
        ),
        ("-hda a -hdb b -hdc c -hdd d e", "-hda: there is a drive at bus=0,unit=0 already"),
        ("-hda a -hdb b -hdc c -hdd d -drive file=e", "-drive: no place is left on the IDE controller, which has four"),
        ("-device ide-hd", "-device ide-hd: needs drive=ID"),
        ("-drive file=a,serial=123456789012345678901", "-drive: serial: longer than 20 characters"),
        (
            "-drive file=a,throttling.bps-total=x",
            "-drive: throttling.bps-total: 'x' is not a number: a number from 0 to 1125899906842624",
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(parsed(line).unwrap_err().to_string(), expected, "{line}");
    }
}

#[test]
fn devices_have_names_and_places() {
    let config = config_of(
        "-drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,addr=0x1f,bus=pci.0 -device virtio-rng-pci,id=r,addr=a.0 \
         -device e1000,id=n,addr=1d",
    );
    let plug = |id: &str, slot: u8| Plug { id: id.into(), addr: Some(slot << 3), ..Plug::default() };
    let is_one = |device: &&Device| device.model.bus == Bus::Pci && device.model != registry::VGA;
    let devices = config.devices.iter().filter(is_one);
    let found: Vec<_> = devices.map(|device| (device.disk().map(|disk| &*disk.id), device.plug.clone())).collect();
    assert_eq!(found, [(Some("d"), plug("", 0x1f)), (None, plug("r", 0xa)), (None, plug("n", 0x1d))]);
    for (line, expected) in [
        ("-device e1000,addr=20", "-device e1000: addr: '20' is not a slot from 0 to 1f"),
        ("-device e1000,addr=3.8", "-device e1000: addr: '3.8' is not a slot from 0 to 1f"),
        ("-device e1000,addr=3.1", "-device e1000: addr: '3.1' is not function 0 of a slot, as all here are"),
        ("-device virtio-rng-pci,id=a -device e1000,id=a", "-device: the id 'a' is given twice"),
        ("-device virtio-rng-pci,bus=pci.1", "-device virtio-rng-pci: bus: 'pci.1' is not known here: pci.0"),
    ] {
        assert_eq!(parsed(line).unwrap_err().to_string(), expected, "{line}");
    }
}

#[test]
fn without_defaults_there_is_what_was_asked_for() {
    let bare = Config { devices: Vec::new(), ..Config::default() };
    assert_eq!(config_of("-nodefaults"), bare);
    assert_eq!(config_of("-nodefaults -daemonize").devices, []);
    let some = config_of("-nodefaults -vga std -serial mon:stdio -device e1000");
    let serial = first_serial(&some);
    assert_eq!((some.devices.len(), some.adapters().count(), serial), (3, 1, Chardev::Stdio { mux: true }));
}

#[test]
fn networks() {
    let adapters = |config: Config| config.adapters().cloned().collect::<Vec<Device>>();
    let nics = |line: &str| adapters(config_of(line));
    assert_eq!(nics("-nic user"), adapters(Config::default()));
    assert_eq!(nics("-nic none"), []);
    let models: Vec<(&Model, u8)> = nics(
        "-nic user -nic user,model=virtio-net-pci -netdev user,id=n -device virtio-net-pci,netdev=n -device e1000,mac=02:00:00:00:00:09",
    )
    .iter()
    .map(|nic| (nic.model, nic.values.mac().unwrap()[5]))
    .collect();
    let (e1000, virtio) = (registry::E1000, registry::VIRTIO_NET.pci);
    assert_eq!(models, [(e1000, 0x56), (virtio, 0x57), (virtio, 0x58), (e1000, 9)]);
    let backend = |line: &str| match netdev(line) {
        Some(netdev) => netdev.backend,
        None => panic!("{line}: nothing is plugged in"),
    };
    let user = |change: fn(&mut UserNet)| {
        let mut net = UserNet::default();
        change(&mut net);
        NetBackend::User(net)
    };
    let end = |text: &str| text.parse().unwrap();
    assert_eq!(backend("-net nic,model=e1000 -net user,hostname=h"), user(|net| net.hostname = "h".into()));
    assert_eq!(backend("-nic user,restrict=on,ipv6=off"), user(|net| net.restrict = true));
    let NetBackend::User(net) = backend(
        "-nic user,net=192.168.5.0/24,dhcpstart=192.168.5.9,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::69-192.168.5.20:69",
    ) else {
        panic!("another kind")
    };
    assert_eq!((net.host, net.dns), ("192.168.5.2".parse().unwrap(), "192.168.5.3".parse().unwrap()));
    let forward = |protocol, host, guest| Forward { protocol, host: end(host), guest: end(guest) };
    let expected = [
        forward(Protocol::Tcp, "127.0.0.1:2222", "192.168.5.9:22"),
        forward(Protocol::Udp, "0.0.0.0:69", "192.168.5.20:69"),
    ];
    assert_eq!(net.forwards, expected);
    let inet = |text: &str| Endpoint::Inet(text.parse().unwrap());
    let rows = [
        (
            "stream,addr.type=unix,addr.path=/tmp/x",
            Link::Connect { end: Endpoint::Unix("/tmp/x".into()), reconnect: false },
        ),
        ("stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=5", Link::Listen(inet("127.0.0.1:5"))),
        (
            "dgram,local.type=inet,local.host=127.0.0.1,local.port=5,remote.type=inet,remote.host=127.0.0.1,remote.port=6",
            Link::Datagrams { local: Some(inet("127.0.0.1:5")), remote: Some(inet("127.0.0.1:6")) },
        ),
        ("socket,listen=:7", Link::Listen(inet("0.0.0.0:7"))),
        ("socket,connect=127.0.0.1:7", Link::Connect { end: inet("127.0.0.1:7"), reconnect: false }),
        ("socket,mcast=230.0.0.1:1234", Link::Multicast { group: end("230.0.0.1:1234"), interface: None }),
    ];
    for (line, expected) in rows {
        assert_eq!(backend(&format!("-nic {line}")), NetBackend::Link(expected), "{line}");
    }
    let wrong = [
        ("-netdev user", "-netdev: needs id=ID for a -device"),
        ("-netdev user,id=a -netdev user,id=a", "-netdev: the id 'a' is given twice"),
        ("-device e1000,netdev=a", "-device e1000: netdev: there is no -netdev with id=a"),
        ("-nic tap", "-nic: 'tap' needs tap, which is not supported yet: use -netdev user, stream or socket"),
        (
            "-nic user,model=rtl8139",
            "-nic: model=rtl8139 needs rtl8139, which is not supported yet: use e1000 or virtio-net-pci",
        ),
        (
            "-nic user,net=10.0.0.0/31",
            "-nic user: net: '10.0.0.0/31' is not a network of 8 addresses or more, as in 10.0.2.0/24",
        ),
        ("-nic user,host=10.1.1.1", "-nic user: host: '10.1.1.1' is not in the guest's network"),
        ("-nic user,dns=10.0.2.2", "-nic user: host, dns and dhcpstart are not all different"),
        (
            "-nic user,hostfwd=tcp:80",
            "-nic user: hostfwd: 'tcp:80' is not of the form [tcp|udp]:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT",
        ),
        (
            "-nic user,smb=x",
            "-nic user: smb: it needs a server of SMB, which is not supported yet: have one of the host's listen, which the guest \
             reaches at 10.0.2.2",
        ),
        (
            "-nic user,guestfwd=tcp:10.0.2.3:80-tcp:127.0.0.1:80",
            "-netdev user: guestfwd: '10.0.2.3' is not a free address of the guest's network",
        ),
        ("-nic user,guestfwd=:10.0.2.9:80-cmd:", "-netdev user: guestfwd: '' is not a command"),
        (
            "-nic user,guestfwd=:10.0.2.9:80-cmd:a,guestfwd=:10.0.2.9:80-cmd:b",
            "-netdev user: guestfwd: 10.0.2.9:80 is given twice",
        ),
        (
            "-chardev null,id=n -nic user,guestfwd=:10.0.2.9:80-chardev:n",
            "-netdev user: guestfwd: cannot lead to null yet, only to sockets",
        ),
        ("-nic stream,addr.type=unix", "-nic stream: needs addr.path="),
        ("-nic socket,listen=:1,connect=:2", "-nic socket: needs one of listen=, connect=, mcast= and udp="),
        ("-nic socket,mcast=10.0.0.1:5", "-nic socket: mcast: not the address of a multicast group"),
        ("-arch riscv64 -nic user,model=e1000", "-nic: model: this machine has no bus for it, but virtio-net-device"),
    ];
    refused(&wrong);
    assert_eq!(config_of("-netdev user,id=a").warnings, ["-netdev: no -device uses the network 'a'"]);
    let missing = ["-nic user: ipv6: the guest's network has IPv4 only"];
    assert_eq!(config_of("-nic user,ipv6=on").warnings, missing);
    assert_eq!(config_of("-nic user,ipv6-prefix=fec0::,ipv6-prefixlen=64").warnings, missing);
}

#[test]
fn what_a_guest_boots_and_reaches_in_its_network() {
    let net = |line: &str| match netdev(line).map(|netdev| netdev.backend) {
        Some(NetBackend::User(net)) => net,
        other => panic!("{other:?}"),
    };
    let booted = net("-nic user,tftp=/srv/tftp,bootfile=/pxelinux.0,tftp-server-name=here").boot;
    let expected = NetBoot { tftp: Some("/srv/tftp".into()), file: "/pxelinux.0".into(), server: "here".into() };
    assert_eq!(booted, expected);
    let long = format!("-nic user,bootfile={}", "x".repeat(128));
    assert!(parsed(&long).unwrap_err().to_string().contains("bootfile: longer than 127 characters"));
    let services = net("-chardev socket,id=s,path=/tmp/s -nic user,guestfwd=tcp:10.0.2.100:80-cmd:'nc',\
         guestfwd=tcp:10.0.2.100:81-tcp:127.0.0.1:8080,guestfwd=tcp::82-chardev:s");
    let at = |text: &str| text.parse().unwrap();
    let expected = [
        ("10.0.2.100:80", Service::Run(vec!["nc".into()])),
        ("10.0.2.100:81", Service::Connect(Endpoint::Inet("127.0.0.1:8080".parse().unwrap()))),
        ("10.0.2.4:82", Service::Connect(Endpoint::Unix("/tmp/s".into()))),
    ];
    let expected = expected.map(|(guest, to)| GuestForward { guest: at(guest), to });
    assert_eq!(services.guest_forwards, expected);
}

#[test]
fn a_screen_that_nothing_shows_is_told_unless_it_was_asked_for() {
    let hints = |line: &str| match parsed(line) {
        Ok(Invocation::Run(config)) => config.warnings.iter().filter(|warning| warning.contains("screen")).count(),
        other => panic!("{line}: {other:?}"),
    };
    for line in ["-kernel k", "-hda d", "-kernel k -serial stdio"] {
        assert_eq!(hints(line), 1, "{line}");
    }
    for seen in ["-nographic", "-display none", "-display curses", "-vnc :1", "-vnc none", "-vga none", "-nodefaults"] {
        assert_eq!(hints(&format!("-kernel k {seen}")), 0, "{seen}");
    }
    assert_eq!(hints(""), 0, "the demo draws nothing");
    assert_eq!(hints("-arch riscv64 -kernel k"), 0);
}

#[test]
fn a_monitors_log_is_warned_of() {
    let config = config_of("-chardev socket,id=q,path=/s,server=on,wait=off,logfile=l -qmp chardev:q");
    assert_eq!(config.qmp.len(), 1);
    assert_eq!(config.warnings, ["-chardev id=q: logfile: what a monitor says is not logged"]);
}

#[test]
fn the_display_adapter_may_be_a_device() {
    // Width, height, MiB, and whether there is an EDID.
    let display = |line: &str| {
        let values = config_of(line).display().expect("an adapter").values.clone();
        ["xres", "yres", "vgamem_mb"]
            .map(|name| values.port(name))
            .into_iter()
            .chain([values.is_on("edid").into()])
            .collect::<Vec<u16>>()
    };
    assert_eq!(display("-nodefaults -device VGA,edid=on,xres=1024,yres=768,vgamem_mb=32 -vnc :1"), [1024, 768, 32, 1]);
    assert_eq!(display("-vga none -global VGA.edid=off -device VGA"), [1280, 800, 16, 0]);
    assert_eq!(display("-global VGA.xres=800 -device VGA,yres=600"), [800, 600, 16, 1]);
    assert_eq!(display("-global VGA.xres=800"), [800, 800, 16, 1]);
    assert_eq!(config_of("-nodefaults -device VGA,id=video0,addr=0x2").display().unwrap().plug.id, "video0");
    assert_eq!(config_of("-nodefaults").devices, []);
    refused(&[
        ("-vga std -device VGA", "-device VGA: more than one display adapter is not supported yet"),
        ("-device VGA -device VGA", "-device VGA: more than one display adapter is not supported yet"),
        ("-device VGA,vgamem_mb=3", "-device VGA: vgamem_mb=3 is not a power of two"),
        (
            "-nodefaults -device VGA,addr=5",
            "-device VGA: addr: '5' is not supported yet: 0x2 or 2 or 02 or 2.0 or 0x2.0",
        ),
        (
            "-nodefaults -vnc :1 -device cirrus-vga",
            "-device: 'cirrus-vga' needs cirrus, which is not supported yet: use -vga std",
        ),
        (
            "-M microvm -device virtio-blk-device,drive=x -drive file=a,if=none,id=x",
            "-machine: 'microvm' needs microvm, which is not supported yet: use -machine pc\n\
             -device: 'virtio-blk-device' needs microvm, which is not supported yet: use the device whose name ends in -pci",
        ),
    ]);
}

/// The first disk of a command line, which is virtio's.
fn first(line: &str) -> Disk {
    virtio_disks(line).remove(0)
}

/// Of reads and writes together, of reads, of writes.
fn limits(total: u64, read: u64, write: u64) -> [Limit; 3] {
    [total, read, write].map(|average| Limit { average, ..Limit::default() })
}

#[test]
fn limits_of_disks_and_of_groups() {
    let raw = Disk { format: Some(ImageFormat::Raw), ..Disk::new("a") };
    let burst = |average, burst, seconds| Limit { average, burst, seconds };
    let group = "-object throttle-group,id=g,limits.bps-total=100,x-iops-total=10,x-iops-total-max=50 ";
    let of_group = Limits {
        bytes: limits(100, 0, 0),
        requests: [burst(10, 50, 1), Limit::default(), Limit::default()],
        group: "g".into(),
        ..Limits::default()
    };
    let rows = [
        (
            "-drive file=a,format=raw,if=virtio,bps=9,bps_max=20,throttling.bps-total-max-length=60,iops_wr=5,iops_size=4096,\
             group=h"
                .to_owned(),
            Disk {
                limits: Box::new(Limits {
                    bytes: [burst(9, 20, 60), Limit::default(), Limit::default()],
                    requests: limits(0, 0, 5),
                    request_bytes: 4096,
                    group: "h".into(),
                }),
                ..raw.clone()
            },
        ),
        (
            format!("{group}-drive file=a,format=raw,if=virtio,throttling.group=g"),
            Disk { limits: Box::new(of_group.clone()), ..raw.clone() },
        ),
        (
            format!(
                "{group}-blockdev file,filename=a,node-name=f -blockdev throttle,node-name=t,throttle-group=g,file=f \
                 -blockdev raw,node-name=d,file=t -device virtio-blk-pci,drive=d"
            ),
            Disk { limits: Box::new(of_group.clone()), id: "d".into(), node: "d".into(), option: "-blockdev".into(), ..raw.clone() },
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(first(&line), expected, "{line}");
    }
    let drive = |rest: &str| format!("-drive file=a,{rest}");
    for (line, expected) in [
        (drive("bps=1,bps_rd=1"), "-drive: bps-total: excludes bps-read and bps-write"),
        (drive("bps_max=1"), "-drive: bps-total-max: needs the limit itself, too"),
        (drive("bps=2,bps_max=1"), "-drive: bps-total-max: is lower than the limit itself"),
        (
            drive("iops=2,throttling.iops-total-max-length=2"),
            "-drive: iops-total-max-length: needs the rate of the burst, whose key ends in -max",
        ),
        (drive("iops=2,throttling.iops-total-max-length=0"), "-drive: iops-total-max-length: cannot be 0"),
        (
            drive("iops=2,iops_max=2000000000,throttling.iops-total-max-length=2000000000"),
            "-drive: iops-total-max-length: is too long for a burst of this rate",
        ),
        (
            drive("bps=1,iops_size=1"),
            "-drive: iops-size: needs a limit of requests (iops-total, iops-read, iops-write)",
        ),
        (
            "-blockdev throttle,node-name=t,throttle-group=g,file.driver=null-co".to_owned(),
            "-blockdev: throttle-group: there is no -object throttle-group with id=g",
        ),
        (
            format!(
                "{group}-blockdev throttle,node-name=t,throttle-group=g,file.driver=throttle,file.throttle-group=g,\
                 file.file.driver=null-co"
            ),
            "-blockdev: a disk can be in one throttle-group only",
        ),
    ] {
        assert_eq!(parsed(&line).unwrap_err().to_string(), expected, "{line}");
    }
}

#[test]
fn images_in_words_of_the_block_layer() {
    let raw = |file: &str| Disk { format: Some(ImageFormat::Raw), ..Disk::new(file) };
    let qcow2 = |file: &str| Disk { format: Some(ImageFormat::Qcow2), ..Disk::new(file) };
    let node = |disk: Disk| Disk { id: "d".into(), node: "d".into(), option: "-blockdev".into(), ..disk };
    let rows: Vec<(&str, Disk)> = vec![
        (
            "-drive file=a,if=virtio,index=1,media=disk,cache=none,aio=native",
            Disk { cache: Cache { direct: true, ..Cache::default() }, ..Disk::new("a") },
        ),
        (
            "-drive file=file:a,if=virtio,driver=raw,file.locking=off,auto-read-only=on,discard=unmap,detect-zeroes=unmap",
            Disk { locking: false, auto_read_only: true, discard: true, zeroes: Zeroes::Unmapped, ..raw("a") },
        ),
        (
            "-drive file=a,if=virtio,rerror=stop,werror=enospc,bps_rd=7,throttling.iops-write=8",
            Disk {
                on_error: (OnError::Stop, OnError::StopWithoutSpace),
                limits: Box::new(Limits { bytes: limits(0, 7, 0), requests: limits(0, 0, 8), ..Limits::default() }),
                ..Disk::new("a")
            },
        ),
        (
            r#"-drive json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file","filename":"a"},"if":"virtio"}"#,
            Disk { range: Some((512, Some(1024))), ..raw("a") },
        ),
        (r#"-drive if=virtio,file=json:{"driver":"qcow2",,"file":{"driver":"file",,"filename":"a"}}"#, qcow2("a")),
        (
            "-drive file=a,if=virtio,format=qcow2,backing.driver=qcow2,backing.file.filename=/b,data-file.filename=/d",
            Disk {
                layers: Layers {
                    backing: vec![("/b".into(), Some(ImageFormat::Qcow2))],
                    end: false,
                    data_file: Some("/d".into()),
                },
                ..qcow2("a")
            },
        ),
        (
            "-blockdev driver=file,filename=a,node-name=f,cache.direct=on -blockdev raw,node-name=d,file=f,read-only=on \
          -device virtio-blk-pci,drive=d",
            Disk { cache: Cache { direct: true, ..Cache::default() }, read_only: true, ..node(raw("a")) },
        ),
        (
            "-blockdev file,filename=b,node-name=b -blockdev qcow2,node-name=d,file.driver=file,file.filename=a,backing=b \
          -device virtio-blk-pci,drive=d",
            Disk {
                layers: Layers { backing: vec![("b".into(), Some(ImageFormat::Raw))], ..Layers::default() },
                ..node(qcow2("a"))
            },
        ),
        (
            r#"-blockdev {"driver":"qcow2","node-name":"d","file":{"driver":"file","filename":"a"},"backing":null} -device virtio-blk-pci,drive=d"#,
            Disk { layers: Layers { end: true, ..Layers::default() }, ..node(qcow2("a")) },
        ),
        (
            "-blockdev null-co,node-name=d,size=1M -device virtio-blk-pci,drive=d",
            Disk { null: Some(1 << 20), ..node(raw("null-co")) },
        ),
        (
            "-blockdev null-aio,node-name=d,size=1M,read-zeroes=on -device virtio-blk-pci,drive=d",
            Disk { null: Some(1 << 20), ..node(raw("null-co")) },
        ),
        ("-drive file=null-co://,format=raw,if=virtio", Disk { null: Some(1 << 30), ..raw("null-co") }),
        ("-drive file=host_device:a,format=raw,if=virtio", raw("a")),
        ("-drive file=a,if=virtio,copy-on-read=on", Disk { copy_on_read: true, ..Disk::new("a") }),
        (
            r#"-blockdev {"driver":"copy-on-read","node-name":"d","file":{"driver":"qcow2","file":{"driver":"file","filename":"a"}}} -device virtio-blk-pci,drive=d"#,
            Disk { copy_on_read: true, ..node(qcow2("a")) },
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(first(line), expected, "{line}");
    }
    let config = config_of("-blockdev file,filename=a,node-name=x");
    assert_eq!(config.warnings, ["-blockdev: nothing uses the node 'x'"]);
    assert!(printed("-blockdev help").contains("  node-name "));
    assert!(printed("-drive help").contains("  detect-zeroes "));
    refused(&[
        ("-blockdev file,filename=a", "-blockdev: needs node-name=NAME"),
        ("-blockdev qcow2,node-name=a", "-blockdev: file: is missing"),
        ("-blockdev qcow2,node-name=a,file=b", "-blockdev: file: there is no -blockdev with node-name=b"),
        (
            "-blockdev null-co,node-name=a -blockdev raw,node-name=b,file=a -blockdev raw,node-name=c,file=a",
            "-blockdev: file: the node 'a' is used twice",
        ),
        (
            "-blockdev raw,node-name=a,file.driver=raw,file.file.filename=b",
            "-blockdev: file: a format within a format is not supported",
        ),
        ("-drive file=a,copy-on-read=on,read-only=on", "-drive: copy-on-read: cannot be combined with read-only"),
        ("-drive file=a,detect-zeroes=unmap", "-drive: detect-zeroes: 'unmap' needs discard=unmap"),
        (
            "-drive file=fat:rw:dir,if=virtio",
            "-drive: file: driver: 'vvfat' needs vvfat, which is not supported yet: make an image of the folder (`mformat`, \
             `mcopy`)",
        ),
        (
            "-blockdev blkdebug,node-name=a,image=b",
            "-blockdev: driver: 'blkdebug' needs a driver for tests of QEMU itself, which is not supported yet: leave the node \
             out",
        ),
        (
            "-blockdev preallocate,node-name=a,file=b",
            "-blockdev: driver: 'preallocate' needs preallocate, which is not supported yet: leave the node out",
        ),
        (
            "-drive file=nbd://localhost/x,format=raw",
            "-drive: file: driver: 'nbd' needs a disk that is reached by a network, which is not supported yet: attach it to \
             the host, and name its device",
        ),
        (
            "-drive file=a,if=floppy",
            "-drive: if: 'floppy' needs floppy, which is not supported yet: use -hda or -cdrom",
        ),
    ]);
}
