//! Kinds of words that public command lines have: taken, and what is told of those without effect.

use super::*;
use mimus_host::config::{Capture, OnError};
use mimus_machine::config::{GuestMemory, RamFile};

/// The warnings of a line.
fn warned(line: &str) -> Vec<String> {
    let of_screen = |text: &String| !text.starts_with(crate::display::HINT);
    config_of(line).warnings.into_iter().filter(of_screen).collect()
}

#[test]
fn what_makes_no_difference_is_taken_in_silence() {
    for line in [
        "-object iothread,id=t -drive file=a,if=none,id=d -device virtio-blk-pci,drive=d,iothread=t,scsi=off,num-queues=1",
        "-netdev user,id=n,ipv6=off -device virtio-net-pci,netdev=n,mq=off,packed=off,romfile=,vectors=4,csum=off,gso=off",
        "-device e1000,mitigation=off,rombar=0 -parallel none",
        "-device virtio-serial,max_ports=2 -machine pc,smm=off,vmport=off,pcspk-audiodev=a",
        "-object memory-backend-ram,id=m,size=128M -numa node,memdev=m -numa node",
        "-vnc :1,lossy=on,non-adaptive=on -net nic,addr=5,vectors=0 -net user",
    ] {
        let warnings = warned(line);
        assert!(warnings.iter().all(|text| text.starts_with("-numa")), "{line}: {warnings:?}");
    }
}

#[test]
fn what_is_missing_is_told_and_the_guest_runs() {
    let rows = [
        ("-device virtio-net-pci,mq=on", "-device virtio-net-pci: mq: there is one pair of queues"),
        (
            "-device virtio-rng-pci,max-bytes=1024,period=1000",
            "-device virtio-rng-pci: max-bytes: random numbers are not limited",
        ),
        ("-net user", "-net: a network without a -net nic of its own is left out"),
        ("-drive file=a,if=none,id=x", "-drive: no -device uses the drive 'x'"),
        ("-machine pc,smm=on", "-machine pc: smm: there is no system management mode"),
        ("-machine max-ram-below-4g=2G", "-machine pc: max-ram-below-4g: RAM below 4 GiB ends at 3 GiB"),
        ("-vnc :1,websocket=on", "-vnc: websocket: there is no VNC by WebSocket"),
        ("-icount shift=5,align=off,sleep=off", "-icount: the guest's time is the host's"),
        ("-numa node,nodeid=0,cpus=0 -numa node,cpus=1", "-numa: all memory and the vCPU are in one node"),
        ("-serial mon:vc", "-serial: vc: there is no console beside the screen: nothing is seen of it"),
        ("-monitor vc", "-monitor: vc: there is no console beside the screen: nothing is seen of it"),
        ("-parallel file:x", "-parallel: there is no parallel port"),
        (
            "-display gtk,zoom-to-fit=off",
            "-display gtk: there is no window: -vnc :0 shows the screen to VNC clients on this host, and -display curses its text",
        ),
        (
            "-arch riscv64 -serial mon:stdio -serial null -serial file:x",
            "-serial: this machine has one serial port: the others are left out",
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(warned(line), [expected], "{line}");
    }
    refused(&[
        (
            "-icount shift=1,rr=record",
            "-icount: rr: it needs record and replay, which is not supported yet: leave it out",
        ),
        ("-numa node,memdev=x", "-numa: memdev: there is no -object memory-backend-... with id=x"),
        ("-numa tree", "-numa: 'tree' is none of node, dist, cpu, hmat-lb, hmat-cache"),
        (
            "-device virtio-blk-pci,drive=x,logical_block_size=4096",
            "-device virtio-blk-pci: logical_block_size: '4096' is not supported yet: 512",
        ),
        ("-device ide-hd,ver=123456789", "-device ide-hd: ver: longer than 8 characters"),
    ]);
}

#[test]
fn what_a_guest_does_without_is_left_out() {
    let missing = [
        ("i6300esb,id=w", "the guest has no watchdog"),
        ("pvpanic-pci", "the host is not told that the guest panics"),
        ("vmgenid,guid=auto", "the guest finds no identity of its machine that changes with copies"),
    ];
    for (device, what) in missing {
        let name = device.split(',').next().unwrap_or_default();
        assert_eq!(warned(&format!("-device {device}")), [format!("-device {name}: it is left out: {what}")]);
    }
}

#[test]
fn guest_ram_may_be_in_a_file() {
    let file = |option: &str, shared| RamFile { option: option.to_owned(), path: "r".into(), shared };
    let backend = "-object memory-backend-file,id=m,size=64M,mem-path=r,share=on,prealloc=on";
    for line in [format!("{backend} -machine memory-backend=m"), format!("{backend} -m 64M -numa node,memdev=m")] {
        let config = config_of(&line);
        let file = Some(file("-object memory-backend-file", true));
        assert_eq!((config.ram_size, config.memory), (64 << 20, GuestMemory { file, allocated: true }), "{line}");
    }
    assert_eq!(config_of(backend).memory, GuestMemory::default());
    let memory = config_of("-mem-path r -mem-prealloc").memory;
    assert_eq!(memory, GuestMemory { file: Some(file("-mem-path", false)), allocated: true });
    refused(&[("-object memory-backend-file,id=m,size=1M", "-object memory-backend-file: needs mem-path=PATH")]);
}

#[test]
fn packets_are_recorded() {
    let line = "-object filter-dump,id=d,netdev=n,file=a.pcap,maxlen=96 -netdev user,id=n -device e1000,netdev=n";
    let netdev = netdev(line);
    let capture = Capture { file: "a.pcap".into(), limit: 96 };
    assert_eq!(netdev.map(|netdev| netdev.captures), Some(vec![capture]));
    refused(&[
        ("-object filter-dump,id=d,netdev=n,file=a", "-object filter-dump: netdev: there is no network with id=n"),
        ("-object filter-dump,id=d,file=a", "-object filter-dump: needs netdev=ID"),
    ]);
    // A network that is there already has nobody who asks for one.
    let late = crate::objects::described("filter-dump,id=d,netdev=n,file=a").unwrap_err();
    assert!(late.to_string().contains("on the command line"), "{late}");
}

#[test]
fn what_devices_say_of_their_disks_counts() {
    let virtio =
        "-drive file=a,if=none,id=d,werror=report -device virtio-blk-pci,drive=d,write-cache=off,werror=enospc";
    let [disk] = &virtio_disks(virtio)[..] else { panic!("one disk") };
    assert_eq!((disk.cache.writethrough, disk.on_error), (true, (OnError::Report, OnError::StopWithoutSpace)));
    let ide = "-drive file=a,if=none,id=d -device ide-hd,drive=d,model=disk,ver=1.0,wwn=0x5001,write-cache=on";
    let config = config_of(ide);
    let values = &config.devices_of(registry::IDE_HD).next().expect("one disk").values;
    let texts = ["model", "ver"].map(|name| values.text(name).unwrap());
    assert_eq!((texts, values.number("wwn")), (["disk".to_owned(), "1.0".to_owned()], Some(0x5001)));
    refused(&[(
        "-drive file=a,if=none,id=d -device ide-hd,drive=d,ver=123456789",
        "-device ide-hd: ver: longer than 8 characters",
    )]);
}

#[test]
fn a_disk_of_a_board_is_virtio_unless_a_device_has_it() {
    let line =
        "-arch riscv64 -drive file=a,format=raw,id=hd0 -device virtio-blk-device,drive=hd0,bus=virtio-mmio-bus.3";
    let found = |line: &str| {
        let config = config_of(line);
        let [device] = &config.devices[..] else { panic!("one disk") };
        (device.plug.slot, device.disk().map(|disk| disk.id.clone()))
    };
    assert_eq!(found(line), (Some(3), Some("hd0".to_owned())));
    assert_eq!(found("-arch riscv64 -drive file=a,id=hd0"), (None, Some("hd0".to_owned())));
}

#[test]
fn sizes_are_rounded_as_qemu_does() {
    assert_eq!(config_of("-m 1.9G").ram_size, 2_040_111_104);
    assert_eq!(config_of("-m 1048577B").ram_size, 1_056_768);
}
