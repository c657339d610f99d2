//! Command lines of RISC-V machines, and of the generic loader, which the PC has, too.

use super::*;
use mimus_machine::config::{LoadedPiece, PieceContent, Semihosting};

/// What is said of a line that is refused.
fn refused(line: &str) -> String {
    parsed(line).expect_err(line).to_string()
}

#[test]
fn pieces() {
    let file = |raw| PieceContent::File { path: "f".into(), raw };
    let rows = [
        ("file=f,addr=0x80000000", file(false), 0x8000_0000, false),
        ("file=f,cpu-num=0", file(false), 0, true),
        ("file=f,force-raw=on,addr=16", file(true), 16, false),
        ("data=0x1234,data-len=4,addr=8", PieceContent::Words(vec![0x34, 0x12, 0, 0]), 8, false),
        ("data=0x1234,data-len=2,data-be=on,addr=8", PieceContent::Words(vec![0x12, 0x34]), 8, false),
        ("addr=0x1000,cpu-num=0", PieceContent::Nothing, 0x1000, true),
    ];
    for machine in ["", "-arch riscv64"] {
        for (keys, content, addr, starts) in rows.clone() {
            let pieces = config_of(&format!("{machine} -device loader,{keys}")).pieces;
            assert_eq!(pieces, [LoadedPiece { content, addr, starts }], "{keys}");
        }
    }
    for keys in ["addr=1", "file=f,data=1,data-len=1", "data=1,addr=0", "data=1,data-len=9,addr=0", "file=f,cpu-num=1"]
    {
        assert!(refused(&format!("-device loader,{keys}")).starts_with("-device loader"), "{keys}");
    }
}

#[test]
fn slots_and_their_registers() {
    let config = config_of("-arch riscv64 -device virtio-rng-device,bus=virtio-mmio-bus.0 -device virtio-rng-device");
    let legacy = |config: &Config| config.board_values(registry::SLOTS).is_on("force-legacy");
    let slots: Vec<Option<u8>> = config.devices.iter().map(|device| device.plug.slot).collect();
    assert_eq!((slots, legacy(&config)), (vec![Some(0), None], true));
    let config = config_of("-arch riscv64 -global virtio-mmio.force-legacy=false");
    assert!(!legacy(&config));
    refused("-arch riscv64 -device virtio-rng-device,bus=virtio-mmio-bus.8");
    refused("-arch riscv64 -global virtio-mmio.force-legacy=maybe");
}

#[test]
fn boards_and_their_trees() {
    let config = config_of("-arch riscv64 -M spike,dumpdtb=/d");
    assert_eq!((config.machine, config.riscv.dump_dtb), (MachineKind::Spike, Some("/d".into())));
    let config = config_of("-arch riscv64 -M spike -machine dtb=/a");
    assert_eq!((config.machine, config.riscv.dtb), (MachineKind::Spike, Some("/a".into())));
    let config = config_of("-arch riscv64 -M virt,dtb=/a");
    assert_eq!((config.machine, config.riscv.dtb), (MachineKind::Virt, Some("/a".into())));
    assert_eq!(config_of("-arch riscv64 -dtb /b").riscv.dtb, Some("/b".into()));
    assert_eq!(refused("-dtb /b"), "-dtb: this machine has no device tree");
    assert!(refused("-arch riscv64 -M spike -device virtio-rng-device").contains("the machine spike has no place"));
}

#[test]
fn harts_and_what_they_lack() {
    let warnings = |cpu: &str| config_of(&format!("-arch riscv64 -cpu {cpu}")).warnings;
    for good in
        ["rv64", "max", "any", "sifive-u54", "rv64,zbb=on,+zba,sv57=on", "rv64,v=off,h=false", "rv64,Zfh=true,pmp=on"]
    {
        assert_eq!(warnings(good), Vec::<String>::new(), "{good}");
    }
    for good in ["rv64,priv_spec=v1.12.0,x-aia=on", "rv64,cbom_blocksize=64", "rva22s64,svpbmt=off,zicbop=off,zkt=off"]
    {
        assert_eq!(warnings(good), Vec::<String>::new(), "{good}");
    }
    let rows = [
        ("rv64,v=true,vlen=256,zbb=off", "-cpu rv64: the guest does without v vlen=256 -zbb"),
        ("rv64,cboz_blocksize=128", "-cpu rv64: the guest does without cboz_blocksize=128"),
        ("rva22u64", "-cpu rva22u64: the guest does without zicbop zkt"),
    ];
    for (cpu, warning) in rows {
        assert_eq!(warnings(cpu), [warning]);
    }
    assert!(refused("-arch riscv64 -cpu rv64,zbx=on").contains("'zbx' is not an extension or property; did you mean"));
    assert!(refused("-arch riscv64 -cpu rv64,zbb=2").contains("zbb: '2' is not known here"));
    assert!(refused("-arch riscv64 -cpu sifive-u34").contains("is not a hart with the instructions of RV64G"));
    assert!(refused("-arch riscv64 -cpu qemu64").contains("'qemu64' is not a CPU model"));
    assert!(printed("-arch riscv64 -cpu help").contains("\nrv64\n"));
}

#[test]
fn calls_to_the_host() {
    let named = Chardev::Named { id: "c".into(), chardev: Chardev::Null.into() };
    let of = |line: &str| config_of(&format!("-arch riscv64 {line}")).riscv.semihosting;
    assert_eq!((of(""), of("-semihosting")), (None, Some(Semihosting::default())));
    assert_eq!(of("-semihosting -semihosting-config enable=off"), None);
    assert_eq!(
        of("-chardev null,id=c -semihosting-config enable=on,target=native,chardev=c,userspace=on,arg=a,arg=b"),
        Some(Semihosting { chardev: Some(named), user_mode: true, arguments: vec!["a".into(), "b".into()] })
    );
    assert!(refused("-arch riscv64 -semihosting-config target=gdb").starts_with("-semihosting-config: target"));
    assert!(refused("-semihosting").starts_with("-semihosting: "));
}

/// A disk of `-drive`.
fn drive(disk: Disk) -> Device {
    Device::new(registry::VIRTIO_BLK.slot, "-drive").behind(Backend::Disk(disk.into()))
}

/// A network adapter that is plugged into nothing.
fn net(mac: [u8; 6]) -> Device {
    plugged("virtio-net-device").called(mac).behind(Backend::Network(None))
}

/// What `-arch riscv64` gives, without anything else.
fn virt() -> Config {
    Config { machine: MachineKind::Virt, devices: Vec::new(), ..Config::default() }
}

#[test]
fn good_lines_of_riscv() {
    type Change = fn(&mut Config);
    let rows: &[(&str, Change)] = &[
        ("", |_| ()),
        ("-M virt -cpu rv64", |c| c.cpu = "rv64".into()),
        ("-M virt,accel=interp,aclint=off", |c| c.accel = Accel::Interp),
        ("-bios none -kernel k", |c| {
            c.bios = Bios::None;
            c.kernel = Some("k".into());
        }),
        ("-bios default", |_| ()),
        ("-bios fw.bin", |c| c.bios = Bios::File("fw.bin".into())),
        ("-drive file=a,format=raw,if=virtio", |c| c.devices = vec![drive(disk("a"))]),
        ("-drive file=a,,b,readonly=on", |c| {
            c.devices = vec![drive(Disk { read_only: true, ..Disk::new("a,b") })];
        }),
        (
            "-device virtio-blk-device,drive=x,serial=s1 -drive if=none,id=x,file=a,format=raw -drive file=b,format=raw",
            |c| {
                let first = Disk { serial: "s1".into(), id: "x".into(), ..disk("a") };
                let device = plugged("virtio-blk-device").with_text("drive", "x").with_text("serial", "s1");
                c.devices = vec![drive(disk("b")), device.behind(Backend::Disk(first.into()))];
            },
        ),
        ("-device virtio-rng-device -device virtio-net-device -device virtio-net-device,mac=02:00:00:00:00:aF", |c| {
            let first = net([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
            c.devices = vec![plugged("virtio-rng-device"), first, net([2, 0, 0, 0, 0, 0xaf])];
        }),
        ("-device virtio-net-device -device virtio-net-device", |c| {
            c.devices = [0x56, 0x57].map(|last| net([0x52, 0x54, 0, 0x12, 0x34, last])).to_vec();
        }),
    ];
    for (line, change) in rows {
        let mut expected = virt();
        change(&mut expected);
        assert_eq!(config_of(&format!("-arch riscv64 {line}")), expected, "{line}");
    }
}

#[test]
fn bad_lines_of_riscv() {
    let supported = offered(&DEVICE_RISCV);
    let rng = "-device virtio-rng-device ".repeat(9);
    let drives = "-drive file=x ".repeat(9);
    let rows = [
        ("-M pc", "-machine: 'pc': a machine of x86_64: use -arch x86_64"),
        ("-M sifive_u", "-machine: 'sifive_u' needs this board, which is not supported yet: use -machine virt"),
        (
            "-M virt,accel=hvm",
            "-machine virt: accel: 'hvm' is not an accelerator; did you mean 'kvm'? (supported: jit, tcg, interp)",
        ),
        ("-M virt,acpi=on", "-machine virt: acpi: 'on' is not supported yet (it is always 'off')"),
        ("-device isa-debug-exit", &format!("-device: 'isa-debug-exit' is not supported yet {supported}")),
        (
            "-device e1000",
            "-device: 'e1000' needs PCI on this machine, which is not supported yet: use the device whose name ends in -device",
        ),
        ("-device virtio-blk-device", "-device virtio-blk-device: needs drive=ID"),
        ("-device virtio-blk-device,drive=x", "-device virtio-blk-device: drive: there is no -drive with id=x"),
        (
            "-drive file=a,id=x -device virtio-blk-device,drive=x -device virtio-blk-device,drive=x",
            "-device virtio-blk-device: drive: 'x' has a device already",
        ),
        (
            "-drive file=a,id=x,if=none -device virtio-blk-device,drive=x,serial=123456789012345678901",
            "-device virtio-blk-device: serial: longer than 20 characters",
        ),
        ("-drive file=a,if=none", "-drive: if=none needs id=ID for a -device"),
        ("-drive file=a,id=x -drive file=b,id=x", "-drive: the id 'x' is given twice"),
        ("-drive format=raw", "-drive: needs file=FILE"),
        ("-drive file=", "-drive: needs file=FILE"),
        (
            "-drive a.img",
            "-drive: unknown key 'a.img' (keys: file, format, if, media, index, bus, unit, id, readonly, snapshot, serial, \
             cache, cache.writeback, rerror, werror, throttling.bps-total, throttling.bps-read, throttling.bps-write, \
             throttling.iops-total, throttling.iops-read, throttling.iops-write, throttling.bps-total-max, throttling.bps-read-max, throttling.bps-write-max, throttling.iops-total-max, throttling.iops-read-max, throttling.iops-write-max, throttling.bps-total-max-length, throttling.bps-read-max-length, throttling.bps-write-max-length, \
             throttling.iops-total-max-length, throttling.iops-read-max-length, throttling.iops-write-max-length, \
             throttling.iops-size, throttling.group)",
        ),
        ("-drive file=a,format=vhdx", "-drive: format: 'vhdx' is not known here: raw or qcow2 or vmdk"),
        ("-drive file=a,if=ide", "-drive: if=ide: this machine has no IDE controller (supported: virtio, none)"),
        ("-no-hpet", "-no-hpet: this machine never has an event timer"),
        ("-hda a", "-hda: this machine has no IDE controller: use -drive if=virtio"),
        ("-device virtio-net-device,mac=1", "-device virtio-net-device: mac: '1' is not six bytes"),
        (
            "-device virtio-net-device,mac=01:00:00:00:00:00",
            "-device virtio-net-device: mac: '01:00:00:00:00:00' is an address of a group",
        ),
        ("-device virtio-net-device,netdev=x", "-device virtio-net-device: netdev: there is no -netdev with id=x"),
        (&rng, "-device virtio-rng-device: there are no more than 8 slots"),
        (&drives, "-drive: there are no more than 8 slots"),
    ];
    for (line, expected) in rows {
        match parsed(&format!("-arch riscv64 {line}")) {
            Err(error) => assert_eq!(error.to_string(), expected, "{line}"),
            Ok(other) => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn texts_of_riscv() {
    assert!(printed("-arch riscv64 -M help").contains("virt    "));
    assert!(printed("-arch riscv64 -cpu help").contains("\nrv64\n"));
    assert!(printed("-arch riscv64 -device help").contains("name \"virtio-blk-device\", "));
    assert!(printed("-arch riscv64 -drive help").contains("  file   "));
}
