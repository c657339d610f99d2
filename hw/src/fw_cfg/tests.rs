//! Tests of the device as firmware reads it: items, files and DMA.

use std::sync::Arc;

use mimus_softmmu::{CodeSink, Dropped, Ram};
use vm_memory::GuestMemoryMmap;

use super::*;

struct Deaf;

impl CodeSink for Deaf {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

fn device() -> (FwCfg, Dma) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
    let mem = Dma::new(Arc::new(Ram::new(memory)), Arc::new(Deaf));
    (FwCfg::new(mem.clone()), mem)
}

fn read(device: &mut FwCfg, key: u16, count: usize) -> Vec<u8> {
    device.write(0, 2, key.into(), None);
    (0..count).map(|_| device.read(1, 1) as u8).collect()
}

fn transfer(device: &mut FwCfg, mem: &Dma, control: u32, length: u32, target: u64) -> u32 {
    mem.write_obj(control.to_be(), GuestAddress(0x800)).unwrap();
    mem.write_obj(length.to_be(), GuestAddress(0x804)).unwrap();
    mem.write_obj(target.to_be(), GuestAddress(0x808)).unwrap();
    device.write(4, 4, 0, None);
    device.write(8, 4, 0x800u32.swap_bytes(), None);
    u32::from_be(mem.read_obj(GuestAddress(0x800)).unwrap())
}

#[test]
fn the_signature_and_what_it_can() {
    let (mut device, _) = device();
    assert_eq!(read(&mut device, 0, 6), b"QEMU\0\0");
    assert_eq!(read(&mut device, 1, 4), [3, 0, 0, 0]);
    assert_eq!(read(&mut device, 0x4000, 4), b"QEMU", "the bit that asks for writing");
    assert_eq!(read(&mut device, 0x7777, 3), [0; 3]);
    assert_eq!([device.read(4, 4), device.read(8, 4)], [*b"QEMU", *b" CFG"].map(u32::from_le_bytes));
    assert_eq!(device.read(11, 4), u32::from(b'G'), "past the end");
}

#[test]
fn files_are_in_the_directory_by_name() {
    let (mut device, _) = device();
    device.add_file("etc/two", vec![2; 5]);
    device.add_file("etc/one", vec![1; 3]);
    device.add_file("etc/two", vec![7; 9]);
    let directory = read(&mut device, 0x19, 4 + 2 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..10], [0, 0, 0, 3, 0, 0x21]);
    assert_eq!(&directory[12..20], b"etc/one\0");
    assert_eq!(directory[68..74], [0, 0, 0, 9, 0, 0x20]);
    assert_eq!(read(&mut device, 0x20, 10), [7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
}

#[test]
fn acpi_tables_tell_where_power_management_is_when_they_are_read() {
    let (mut device, mem) = device();
    device.add_acpi(AcpiConfig { cpus: 1, ..AcpiConfig::default() });
    let timer_port = |tables: &[u8]| {
        let fadt = tables.windows(4).position(|name| name == b"FACP").unwrap();
        u32::from_le_bytes(tables[fadt + 76..fadt + 80].try_into().unwrap())
    };
    let key = device.files["etc/acpi/tables"];
    let length = device.items[&key].len();
    assert_eq!(timer_port(&read(&mut device, key, length)), 0x608);
    device.write(0, 2, key.into(), Some(0xb000));
    let moved: Vec<u8> = (0..length).map(|_| device.read(1, 1) as u8).collect();
    assert_eq!(timer_port(&moved), 0xb008);
    assert_eq!(device.items[&key].len(), length, "the directory says so");
    // By DMA, too.
    for (at, word) in [u32::from(key) << 16 | DMA_SELECT | DMA_READ, length as u32, 0, 0x2000].into_iter().enumerate() {
        mem.write_obj(word.to_be(), GuestAddress(0x800 + 4 * at as u64)).unwrap();
    }
    device.write(8, 4, 0x800u32.swap_bytes(), Some(0x6040));
    let mut tables = vec![0; length];
    mem.read_slice(&mut tables, GuestAddress(0x2000)).unwrap();
    assert_eq!(timer_port(&tables), 0x6048);
}

#[test]
fn dma_reads_skips_and_refuses() {
    let (mut device, mem) = device();
    device.add_file("file", (0..200).collect());
    assert_eq!(transfer(&mut device, &mem, 0x20 << 16 | DMA_SELECT | DMA_READ, 4, 0x1000), 0);
    assert_eq!(transfer(&mut device, &mem, DMA_SKIP, 190, 0), 0);
    assert_eq!(transfer(&mut device, &mem, DMA_READ, 8, 0x1004), 0);
    let mut bytes = [9; 12];
    mem.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 194, 195, 196, 197, 198, 199, 0, 0]);
    assert_eq!(transfer(&mut device, &mem, DMA_WRITE, 4, 0x1000), DMA_ERROR);
    assert_eq!(transfer(&mut device, &mem, DMA_READ, u32::MAX, 0xf_fff0), DMA_ERROR, "not RAM");
    // A request outside RAM has no place for an answer.
    device.write(4, 4, u32::MAX, None);
    device.write(8, 4, u32::MAX, None);
    device.write(8, 4, 0xffffu32.swap_bytes(), None);
}

#[test]
fn state_round_trips() {
    let (mut device, _) = device();
    read(&mut device, 0, 2);
    let data: FwCfgData = postcard::from_bytes(&postcard::to_stdvec(&device.save()).unwrap()).unwrap();
    device.reset();
    device.restore(data);
    assert_eq!([device.read(1, 1), device.read(1, 1)], [u32::from(b'M'), u32::from(b'U')]);
}

#[test]
fn any_access_is_survived() {
    let (mut device, mem) = device();
    device.add_file("file", vec![5; 300]);
    let mut state = 1u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, d, e, ..] = (state >> 16).to_le_bytes();
        let value = u32::from_le_bytes([b, c, d, e]);
        if a & 0x80 != 0 {
            let request = [u32::from(b) << 12 | u32::from(d), u32::from(c), 0, value >> (c & 31)];
            for (index, word) in request.into_iter().enumerate() {
                mem.write_obj(word.to_be(), GuestAddress(0x800 + 4 * index as u64)).unwrap();
            }
            device.write(8, 4, 0x800u32.swap_bytes(), None);
        }
        device.write(u16::from(a & 15), 1 << (d & 2), value, None);
        device.read(u16::from(a & 15), 1 << (e & 2));
    }
}
