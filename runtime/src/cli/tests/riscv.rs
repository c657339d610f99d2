//! Command lines of RISC-V machines, and of the generic loader, which the PC has, too.

use super::*;
use crate::config::{LoadedPiece, PieceContent, Semihosting};

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
    let slots: Vec<Option<u8>> = config.virtio.iter().map(|device| device.plug().slot).collect();
    assert_eq!((slots, config.riscv.modern_virtio), (vec![Some(0), None], false));
    let config = config_of("-arch riscv64 -global virtio-mmio.force-legacy=false");
    assert!(config.riscv.modern_virtio);
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
