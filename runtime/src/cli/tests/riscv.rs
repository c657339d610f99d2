//! Command lines of RISC-V machines, and of the generic loader, which the PC has, too.

use super::*;
use crate::config::{LoadedPiece, PieceContent};

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
    refused("-global virtio-mmio.force-legacy=false");
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
