//! Tests of the RISC-V boards: what answers where, interrupt lines, the test devices, state and hostile accesses.

use std::sync::{Arc, Mutex};

use mimus_softmmu::{CodeSink, Dropped, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::StateError;
use crate::virtio::{BlockBackend, BlockInfo, BlockJob};

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl CharSink for Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

struct NoDisk;

impl BlockBackend for NoDisk {
    fn submit(&mut self, _: BlockJob) {}
}

const MS: u64 = 1_000_000;

/// Bits of mip.
mod bit {
    pub(super) const MSIP: u64 = 1 << super::MSIP;
    pub(super) const MTIP: u64 = 1 << super::MTIP;
    pub(super) const SEIP: u64 = 1 << super::SEIP;
    pub(super) const MEIP: u64 = 1 << super::MEIP;
}

fn mem() -> Dma {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM_BASE), 1 << 20)]).unwrap();
    Dma::new(Arc::new(Ram::new(memory)), Arc::new(NoCode))
}

fn board(harts: usize) -> (Virt, Sink, Dma) {
    model(VirtModel::Virt, harts)
}

fn model(model: VirtModel, harts: usize) -> (Virt, Sink, Dma) {
    let (sink, mem) = (Sink::default(), mem());
    let config = VirtConfig { model, harts, unix_time_at_power_on: 1_700_000_000, modern_virtio: true };
    (Virt::new(&config, Box::new(sink.clone()), mem.clone()), sink, mem)
}

fn write(v: &mut Virt, gpa: u64, value: u32) {
    v.mmio_write(0, gpa, 4, value.into());
}

fn enable(v: &mut Virt, context: u64, source: u32) {
    write(v, PLIC.base + 4 * u64::from(source), 1);
    write(v, PLIC.base + 0x2000 + 0x80 * context, 1 << source);
}

fn claim(context: u64) -> u64 {
    PLIC.base + 0x20_0004 + 0x1000 * context
}

#[test]
fn regions_are_apart_and_exist() {
    let mut all: Vec<Region> = REGIONS.iter().map(|(region, _)| *region).collect();
    all.extend((0..VIRTIO_SLOTS as u64).map(|slot| Region { base: VIRTIO.base + slot * VIRTIO.size, ..VIRTIO }));
    all.sort_by_key(|region| region.base);
    for pair in all.windows(2) {
        assert!(pair[0].base + pair[0].size <= pair[1].base, "{pair:x?}");
    }
    for region in &all {
        assert!(
            Virt::exists(VirtModel::Virt, region.base, 8)
                && Virt::exists(VirtModel::Virt, region.base + region.size - 1, 1)
        );
        assert!(!Virt::exists(VirtModel::Virt, region.base + region.size - 1, 2), "{region:x?}");
    }
    assert!(
        !Virt::exists(VirtModel::Virt, 0, 1)
            && !Virt::exists(VirtModel::Virt, RAM_BASE, 1)
            && !Virt::exists(VirtModel::Virt, u64::MAX, 8)
    );
}

#[test]
fn serial_port_interrupts_through_both_contexts() {
    let (mut v, sink, _) = board(1);
    v.mmio_write(0, UART.base, 1, b'h'.into());
    v.mmio_write(0, UART.base, 4, b'i'.into());
    assert_eq!(*sink.0.lock().unwrap(), b"hi");
    assert_eq!(v.mmio_read(0, UART.base + 5, 1), 0x60);
    v.mmio_write(0, UART.base + 1, 1, 1);
    enable(&mut v, 1, UART_IRQ);
    assert_eq!(v.interrupts(0, 0), 0);
    assert_eq!((v.serial_room(), v.serial_receive(0, b"ab")), (1, 1));
    assert_eq!(v.interrupts(0, 0), bit::SEIP);
    enable(&mut v, 0, UART_IRQ);
    assert_eq!(v.interrupts(0, 0), bit::SEIP | bit::MEIP);
    assert_eq!(v.mmio_read(0, claim(1), 4), u64::from(UART_IRQ));
    assert_eq!(v.interrupts(0, 0), 0);
    assert_eq!(v.mmio_read(0, UART.base, 1), u64::from(b'a'));
    write(&mut v, claim(1), UART_IRQ);
    assert_eq!(v.interrupts(0, 0), 0);
}

/// As xv6's driver does it: interrupts of an empty transmitter are enabled, and IIR is never read.
#[test]
fn an_empty_transmitter_interrupts_once_for_each_byte() {
    let (mut v, ..) = board(1);
    enable(&mut v, 1, UART_IRQ);
    v.mmio_write(0, UART.base + 1, 1, 3);
    let handle = |v: &mut Virt, send: bool| {
        assert_eq!(v.mmio_read(0, claim(1), 4), u64::from(UART_IRQ));
        if send {
            v.mmio_write(0, UART.base, 1, b'x'.into());
        }
        write(v, claim(1), UART_IRQ);
        v.interrupts(0, 0)
    };
    assert_eq!(v.interrupts(0, 0), bit::SEIP, "enabled while it is empty");
    assert_eq!(handle(&mut v, true), bit::SEIP, "another byte has gone");
    assert_eq!(handle(&mut v, false), 0, "nothing new, and the line is still high");
    assert_eq!((v.mmio_read(0, UART.base + 5, 1), v.interrupts(0, 0)), (0x60, 0));
    v.mmio_write(0, UART.base, 1, b'y'.into());
    assert_eq!(handle(&mut v, false), 0);
    // What was received is a level: it comes until it is read.
    v.serial_receive(0, b"a");
    assert_eq!((v.interrupts(0, 0), handle(&mut v, false)), (bit::SEIP, bit::SEIP));
    assert_eq!(v.mmio_read(0, UART.base, 1), u64::from(b'a'));
    assert_eq!(handle(&mut v, false), 0);
}

#[test]
fn timer_and_software_interrupts_of_each_hart() {
    let (mut v, ..) = board(2);
    v.mmio_write(0, CLINT.base + 0x4008, 8, 10_000);
    assert_eq!((v.next_deadline(), v.clint().next_deadline(1)), (None, Some(MS)));
    assert_eq!([v.interrupts(MS - 1, 1), v.interrupts(MS, 1), v.interrupts(MS, 0)], [0, bit::MTIP, 0]);
    write(&mut v, CLINT.base, 1);
    assert_eq!([v.interrupts(0, 0), v.interrupts(0, 1), v.interrupts(0, 2)], [bit::MSIP, 0, 0]);
    v.mmio_write(5 * MS, CLINT.base + 0xbff8, 8, 3);
    assert_eq!((v.clint().time(5 * MS), v.clint().time(6 * MS)), (3, 10_003));
}

/// A hart has its timer to itself, whatever the board is busy with, and hears of what changes.
#[test]
fn a_hart_hears_of_its_lines() {
    let (mut v, ..) = board(2);
    let (clint, heard) = (v.clint().clone(), Arc::new(Mutex::new(Vec::new())));
    let notes = heard.clone();
    v.lines().on_change(1, move |line, level| notes.lock().unwrap().push((line, level)));
    let take = || std::mem::take(&mut *heard.lock().unwrap());
    clint.write(0, 4, 4, 1);
    clint.write(0, 0, 4, 1);
    clint.write(0, 0x4008, 8, 10_000);
    clint.write(0, 0x4000, 8, 20_000);
    let deadlines = || [0, 1].map(|hart| clint.next_deadline(hart));
    assert_eq!((take(), deadlines()), (vec![(super::MSIP, true)], [Some(2 * MS), Some(MS)]));
    clint.advance(1, MS - 1);
    clint.advance(0, MS);
    assert!(take().is_empty());
    clint.advance(1, MS);
    assert_eq!((take(), deadlines()), (vec![(super::MTIP, true)], [Some(2 * MS), None]));
    clint.write(MS, 0x4008, 8, u64::MAX);
    assert_eq!((take(), clint.read(MS, 0xbff8, 8), clint.time(MS)), (vec![(super::MTIP, false)], 10_000, 10_000));
    v.reset(MS);
    assert_eq!((take(), deadlines()), (vec![(super::MSIP, false)], [None, None]));
}

#[test]
fn the_clocks_alarm_interrupts() {
    let (mut v, ..) = board(1);
    enable(&mut v, 0, RTC_IRQ);
    assert_eq!(v.mmio_read(0, RTC.base + 2, 4), 0, "unaligned");
    let low = v.mmio_read(0, RTC.base, 4);
    assert_eq!(v.mmio_read(0, RTC.base + 4, 4) << 32 | low, 1_700_000_000_000_000_000);
    let at = 1_700_000_000_000_000_000 + 2 * MS;
    write(&mut v, RTC.base + 0xc, (at >> 32) as u32);
    write(&mut v, RTC.base + 8, at as u32);
    write(&mut v, RTC.base + 0x10, 1);
    assert_eq!(v.next_deadline(), Some(2 * MS));
    v.advance(2 * MS);
    assert_eq!(v.interrupts(2 * MS, 0), bit::MEIP);
}

#[test]
fn finisher_events_come_once_and_in_order() {
    let (mut v, ..) = board(1);
    for (value, event) in [(0x5555, VirtEvent::PowerOff), (0x7777, VirtEvent::Reset), (0x7_3333, VirtEvent::Exit(7))] {
        write(&mut v, TEST.base, value);
        write(&mut v, TEST.base, 0x5555);
        assert!(v.has_event());
        assert_eq!((v.take_event(), v.take_event()), (Some(event), None));
    }
}

#[test]
fn host_target_interface_prints_and_ends() {
    let (mut v, sink, mem) = board(1);
    let put = |at: u64, word: u64| mem.write_obj(word, GuestAddress(at)).unwrap();
    let get = |at: u64| mem.read_obj::<u64>(GuestAddress(at)).unwrap();
    let (tohost, fromhost, call, text) = (RAM_BASE + 0x1000, RAM_BASE + 0x1040, RAM_BASE + 0x2000, RAM_BASE + 0x3000);
    put(tohost, 1);
    v.advance(MS);
    assert_eq!((v.take_event(), v.next_deadline()), (None, None), "nobody looks");
    v.set_htif(Some(Htif { tohost, fromhost: Some(fromhost) }));
    put(tohost, 0x0101_0000_0000_0041);
    v.advance(2 * MS);
    assert_eq!((get(tohost), get(fromhost)), (0, 0x0101_0000_0000_0001));
    mem.write_slice(b"hello", GuestAddress(text)).unwrap();
    for (i, word) in [64, 1, text, 5].into_iter().enumerate() {
        put(call + 8 * i as u64, word);
    }
    put(tohost, call);
    v.advance(3 * MS);
    assert_eq!((*sink.0.lock().unwrap()).as_slice(), b"Ahello");
    assert_eq!((get(tohost), get(call)), (0, 5));
    // Arguments and text outside RAM.
    put(call, 64);
    put(call + 16, 0x10);
    put(tohost, call);
    v.advance(4 * MS);
    assert_eq!(get(call), u64::MAX);
    put(tohost, 0x100);
    v.advance(5 * MS);
    assert_eq!(v.next_deadline(), Some(5 * MS + 10_000), "it has asked for something, and may again");
    v.advance(6 * MS);
    assert_eq!(v.next_deadline(), Some(7 * MS));
    put(tohost, 7 << 1 | 1);
    v.advance(6 * MS);
    assert_eq!(v.take_event(), Some(VirtEvent::Exit(7)));
    put(tohost, 1);
    v.advance(7 * MS);
    assert_eq!(v.take_event(), Some(VirtEvent::PowerOff));
    v.set_htif(Some(Htif { tohost: 0, fromhost: None }));
    v.advance(8 * MS);
}

#[test]
fn spike_has_a_console_by_registers_of_the_interface() {
    let (mut v, sink, mem) = model(VirtModel::Spike, 1);
    let (fromhost, tohost) = (HTIF.base, HTIF.base + 8);
    for gone in [UART, PLIC, TEST, RTC, VIRTIO] {
        assert!(!Virt::exists(VirtModel::Spike, gone.base, 4), "{gone:?}");
    }
    assert!(Virt::exists(VirtModel::Spike, tohost, 8) && Virt::exists(VirtModel::Spike, CLINT.base, 4));
    assert!(!Virt::exists(VirtModel::Virt, tohost, 8));
    assert_eq!((v.free_slot(&[]), v.next_deadline()), (None, None), "nothing is looked at from time to time");
    v.mmio_write(0, tohost, 8, 0x0101_0000_0000_0041);
    assert_eq!((v.mmio_read(0, tohost, 8), v.mmio_read(0, fromhost, 8)), (0, 0x0101_0000_0000_0001));
    // In halves: the upper one asks.
    write(&mut v, tohost, 0x42);
    write(&mut v, tohost + 4, 0x0101_0000);
    assert_eq!((*sink.0.lock().unwrap()).as_slice(), b"AB");
    assert_eq!(v.mmio_read(0, fromhost + 4, 4), 0x0101_0000);
    // A character is given when it was asked for, it has come, and the answer before was taken.
    v.mmio_write(0, tohost, 8, 0x0100_0000_0000_0000);
    assert_eq!((v.serial_receive(0, &[7; 100]), v.serial_room()), (64, 0));
    assert_eq!(v.mmio_read(0, fromhost, 8), 0x0101_0000_0000_0001);
    v.mmio_write(0, fromhost, 8, 0);
    assert_eq!((v.mmio_read(0, fromhost, 8), v.serial_room()), (0x0100_0000_0000_0107, 1));
    v.mmio_write(0, fromhost, 8, 0);
    assert_eq!(v.mmio_read(0, fromhost, 8), 0, "asked once");
    v.mmio_write(0, tohost, 8, 5 << 1 | 1);
    assert_eq!(v.take_event(), Some(VirtEvent::Exit(5)));
    // A program that has words of its own has its console there.
    let words = Htif { tohost: RAM_BASE, fromhost: Some(RAM_BASE + 8) };
    v.set_htif(Some(words));
    v.reset(0);
    mem.write_obj(0x0100_0000_0000_0000u64, GuestAddress(words.tohost)).unwrap();
    v.advance(MS);
    v.serial_receive(MS, b"x");
    assert_eq!(mem.read_obj::<u64>(GuestAddress(RAM_BASE + 8)).unwrap(), 0x0100_0000_0000_0178);
    for offset in 0..64 {
        for size in [1, 2, 4, 8] {
            v.mmio_write(0, HTIF.base + offset, size, u64::MAX);
            v.mmio_read(0, HTIF.base + offset, size);
        }
    }
}

#[test]
fn devices_go_into_the_last_free_slot_or_where_they_are_told() {
    let (mut v, _, mem) = board(1);
    let net = || Virtio::net(mem.clone(), [0; 6], None);
    assert!(v.plug(6, net()) && !v.plug(6, net()) && !v.plug(VIRTIO_SLOTS, net()));
    let mut slots = Vec::new();
    while let Some(slot) = v.free_slot(&[0]) {
        slots.push(slot);
        assert!(v.plug(slot, net()));
    }
    assert_eq!((slots, v.free_slot(&[])), (vec![7, 5, 4, 3, 2, 1], Some(0)));
    assert_eq!(v.mmio_read(0, VIRTIO.base + 7 * VIRTIO.size + 8, 4), 1);
    assert_eq!((v.virtio(7, |device| device.is_block()), v.virtio(8, |_| ())), (Some(false), None));
}

#[test]
fn a_virtio_interrupt_is_its_slots() {
    let (mut v, _, mem) = board(1);
    let slot = 7;
    v.plug(slot as usize, Virtio::net(mem, [0; 6], None));
    enable(&mut v, 1, VIRTIO_IRQ + slot);
    let base = VIRTIO.base + u64::from(slot) * VIRTIO.size;
    for (offset, value) in [(0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x70, 15)] {
        write(&mut v, base + offset, value);
    }
    // A queue whose rings are not in RAM: the driver is told that the device needs a reset.
    write(&mut v, base + 0x44, 1);
    assert_eq!((v.mmio_read(0, base + 0x70, 4), v.mmio_read(0, base + 0x60, 4)), (79, 2));
    assert_eq!(v.interrupts(0, 0), bit::SEIP);
    assert_eq!(v.mmio_read(0, claim(1), 4), u64::from(VIRTIO_IRQ + slot));
    write(&mut v, base + 0x64, 2);
    write(&mut v, claim(1), VIRTIO_IRQ + slot);
    assert_eq!(v.interrupts(0, 0), 0);
}

#[test]
fn state_round_trips_and_must_fit() {
    let (mut v, _, mem) = board(2);
    v.plug(7, Virtio::net(mem, [0; 6], None));
    v.set_htif(Some(Htif { tohost: RAM_BASE, fromhost: None }));
    enable(&mut v, 3, UART_IRQ);
    v.mmio_write(0, UART.base + 1, 1, 1);
    v.serial_receive(7, b"x");
    v.mmio_write(9, CLINT.base + 0x4000, 8, 77);
    write(&mut v, TEST.base, 0x7777);
    let state: VirtState = postcard::from_bytes(&postcard::to_stdvec(&v.save()).unwrap()).unwrap();
    assert_eq!(state, v.save());

    let (mut other, _, mem) = board(2);
    let before = other.save();
    assert_eq!(other.restore(state.clone()), Err(StateError::Machine("set of virtio devices")));
    let info = BlockInfo { sectors: 1, read_only: false, discard: false, serial: String::new() };
    other.plug(7, Virtio::block(mem, info, Box::new(NoDisk)));
    assert_eq!(other.restore(state.clone()), Err(StateError::Machine("set of virtio devices")));
    let (mut small, ..) = board(1);
    assert_eq!(small.restore(state.clone()), Err(StateError::Machine("number of harts")));
    assert_eq!(board(2).0.save(), before);

    let (mut back, _, mem) = board(2);
    back.plug(7, Virtio::net(mem, [0; 6], None));
    back.restore(state.clone()).unwrap();
    assert_eq!(back.save(), state);
    assert_eq!(back.interrupts(9, 1), bit::SEIP);
    assert_eq!((back.clint().next_deadline(0), back.take_event()), (Some(7_700), Some(VirtEvent::Reset)));
    back.reset(10);
    assert_eq!((back.interrupts(u64::MAX, 0), back.interrupts(u64::MAX, 1)), (0, 0));
}

#[test]
fn any_access_is_survived() {
    let (mut v, _, mem) = board(1);
    v.plug(7, Virtio::net(mem, [0; 6], None));
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let regions: Vec<Region> = REGIONS.iter().map(|(region, _)| *region).chain([VIRTIO]).collect();
    for i in 0..200_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let region = regions[i % regions.len()];
        let gpa = region.base + (random >> 20) % (region.size * 9);
        let size = 1 << (random >> 18 & 3);
        v.mmio_write(random >> 10, gpa, size, random >> 5);
        v.mmio_read(random >> 12, gpa, size);
        v.advance(random >> 8);
        v.clint().advance(0, random >> 8);
        v.interrupts(random, 0);
        v.next_deadline();
    }
}
