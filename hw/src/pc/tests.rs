//! Tests of the board: what answers where, which line leads to which interrupt, reset, state and hostile accesses.

use super::*;
use crate::Signals;
use crate::error::StateError;
use crate::fabric::CharSink;
use crate::isa::{Ib700, Pvpanic};
use std::sync::{Arc, Mutex};

mod event_timer;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl CharSink for Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

impl Sink {
    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

const LAPIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;
const MS: u64 = 1_000_000;
const TSC_HZ: u64 = 2_000_000_000;

fn config(cpus: u8) -> PcConfig {
    PcConfig { ram_size: 512 << 20, cpus, tsc_hz: TSC_HZ, unix_time_at_power_on: 1_700_000_000 }
}

/// With a serial port and the debugging ports.
fn board(cpus: u8, serial: &Sink, console: &Sink) -> Pc {
    let mut pc = Pc::new(config(cpus));
    pc.plug_serial(COM_PORTS[0], Box::new(serial.clone()));
    pc.plug_debugcon(0xe9, 0xe9, Box::new(console.clone()));
    pc.plug_debug_exit(0xf4, 4);
    pc
}

fn pc(cpus: u8) -> Pc {
    let mut pc = board(cpus, &Sink::default(), &Sink::default());
    pc.set_up_as_firmware();
    pc
}

fn outb(pc: &mut Pc, port: u16, value: u8) {
    pc.port_write(0, port, 1, u32::from(value));
}

fn inb(pc: &mut Pc, port: u16) -> u8 {
    pc.port_read(0, port, 1) as u8
}

fn init_pics(pc: &mut Pc, master_mask: u8, slave_mask: u8) {
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 0x04),
        (0x21, 0x01),
        (0xa0, 0x11),
        (0xa1, 0x38),
        (0xa1, 0x02),
        (0xa1, 0x01),
        (0x21, master_mask),
        (0xa1, slave_mask),
    ] {
        outb(pc, port, value);
    }
}

fn lapic_write(pc: &mut Pc, cpu: usize, offset: u64, value: u32) {
    pc.mmio_write(0, cpu, LAPIC + offset, 4, u64::from(value));
}

fn redirect(pc: &mut Pc, pin: u32, entry: u64) {
    for (index, half) in [(0x11 + 2 * pin, entry >> 32), (0x10 + 2 * pin, entry & 0xffff_ffff)] {
        pc.mmio_write(0, 0, IOAPIC, 4, u64::from(index));
        pc.mmio_write(0, 0, IOAPIC + 0x10, 4, half);
    }
}

/// Channel 0 of the timer in mode 2 at 100 Hz.
fn start_timer(pc: &mut Pc) {
    for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
        outb(pc, port, value);
    }
}

#[test]
fn the_fixed_port_ranges_are_in_order_and_apart() {
    for pair in PORTS.windows(2) {
        assert!(pair[0].1 < pair[1].0, "{pair:x?}");
    }
    assert!(PORTS.iter().all(|(first, last, _)| first <= last));
}

#[test]
fn nothing_is_pending_at_power_on() {
    let mut p = pc(2);
    assert!(!p.interrupts.pending(0) && !p.interrupts.pending(1));
    outb(&mut p, 0x21, 0);
    outb(&mut p, 0xa1, 0);
    assert!(!p.interrupts.pending(0), "not even unmasked");
    // The timer ticks 18.2 times a second.
    assert_eq!(p.next_deadline().map(|at| at / MS), Some(54));
}

#[test]
fn timer_interrupts_through_the_8259a() {
    let mut p = pc(1);
    init_pics(&mut p, 0xfe, 0xff);
    start_timer(&mut p);
    for _ in 0..3 {
        let due = p.next_deadline().unwrap();
        p.advance(due - 1);
        assert!(!p.interrupts.pending(0));
        p.advance(due);
        assert!(p.interrupts.pending(0));
        assert_eq!(p.interrupts.acknowledge(0), Some(0x30));
        assert!(!p.interrupts.pending(0));
        assert_eq!(p.interrupts.acknowledge(0), None);
        outb(&mut p, 0x20, 0x20);
    }
    // With the local APIC switched off INTR goes straight to the processor.
    assert!(p.interrupts.set_apic_base(0, LAPIC | 0x100));
    p.advance(1000 * MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x30));
    assert_eq!(p.mmio_read(0, 0, LAPIC + 0x30, 4), 0xffff_ffff);
}

#[test]
fn timer_interrupts_through_the_ioapic_at_input_2() {
    let mut p = pc(1);
    init_pics(&mut p, 0xff, 0xff);
    lapic_write(&mut p, 0, 0x350, 0x1_0000);
    redirect(&mut p, 2, 0x51);
    start_timer(&mut p);
    p.advance(11 * MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x51));
    p.advance(21 * MS);
    assert!(!p.interrupts.pending(0), "not before EOI");
    lapic_write(&mut p, 0, 0xb0, 0);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x51));
}

#[test]
fn level_interrupt_repeats_after_eoi_until_its_cause_is_gone() {
    let mut p = pc(1);
    redirect(&mut p, 9, 0x8059);
    outb(&mut p, 0xb2, 0xf1);
    p.port_write(0, 0x602, 2, 0x100);
    p.press_power_button(0);
    for _ in 0..2 {
        assert_eq!(p.interrupts.acknowledge(0), Some(0x59));
        assert!(!p.interrupts.pending(0));
        lapic_write(&mut p, 0, 0xb0, 0);
        assert!(p.interrupts.pending(0));
    }
    p.interrupts.acknowledge(0);
    p.port_write(0, 0x600, 2, 0x100);
    lapic_write(&mut p, 0, 0xb0, 0);
    assert!(!p.interrupts.pending(0));
}

#[test]
fn ext_int_through_the_ioapic() {
    let mut p = pc(1);
    lapic_write(&mut p, 0, 0x350, 0x1_0000);
    init_pics(&mut p, 0xfc, 0xff);
    redirect(&mut p, 0, 0x700);
    start_timer(&mut p);
    outb(&mut p, 0x60, 0xf4);
    p.advance(11 * MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x30));
    outb(&mut p, 0x20, 0x20);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x31));
    assert_eq!(p.interrupts.acknowledge(0), None);
}

#[test]
fn serial_port_sends_receives_and_interrupts() {
    let (serial, console) = (Sink::default(), Sink::default());
    let mut p = board(1, &serial, &console);
    p.set_up_as_firmware();
    init_pics(&mut p, 0xef, 0xff);
    for byte in *b"hi" {
        outb(&mut p, 0x3f8, byte);
    }
    assert_eq!(serial.text(), b"hi");
    outb(&mut p, 0x3fc, 0x08);
    outb(&mut p, 0x3f9, 0x03);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x34));
    outb(&mut p, 0x20, 0x20);
    assert!(!p.interrupts.pending(0));
    // A byte written while the request is high makes a new edge.
    outb(&mut p, 0x3f8, b'!');
    assert_eq!(p.interrupts.acknowledge(0), Some(0x34));
    assert_eq!(inb(&mut p, 0x3fa), 0x02);
    outb(&mut p, 0x20, 0x20);
    assert_eq!(p.serial_room(0), 1);
    assert_eq!(p.serial_receive(0, 0, b"abc"), 1);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x34));
    assert_eq!(inb(&mut p, 0x3f8), b'a');
    outb(&mut p, 0xe9, b'd');
    assert_eq!((inb(&mut p, 0xe9), console.text()), (0xe9, b"d".to_vec()));
}

#[test]
fn a_string_of_reads_is_as_many_reads() {
    let mut p = pc(1);
    init_pics(&mut p, 0xef, 0xff);
    // A queue, and an interrupt when there is something in it.
    outb(&mut p, 0x3fa, 0x01);
    outb(&mut p, 0x3f9, 0x01);
    outb(&mut p, 0x3fc, 0x08);
    assert_eq!(p.serial_receive(0, 0, b"abcdef"), 6);
    p.advance(1_000_000_000);
    assert!(p.interrupts.pending(0));
    let mut bytes = [0; 6];
    p.port_read_string(1_000_000_000, 0x3f8, 1, &mut bytes[..4]);
    assert_eq!(&bytes, b"abcd\0\0");
    assert!(p.interrupts.pending(0));
    p.port_read_string(1_000_000_000, 0x3f8, 1, &mut bytes[4..]);
    assert_eq!((&bytes, p.interrupts.pending(0)), (b"abcdef", false));
    let mut nothing = [0; 8];
    p.port_read_string(1_000_000_000, 0x4000, 4, &mut nothing);
    assert_eq!(nothing, [0xff; 8]);
}

#[test]
fn a_string_of_writes_ends_where_the_vcpu_has_to_hear_of_it() {
    let console = Sink::default();
    let mut p = board(1, &Sink::default(), &console);
    p.set_up_as_firmware();
    p.take_map_changed();
    assert_eq!(p.port_write_string(0, 0xe9, 1, b"abc"), (3, false));
    assert_eq!(console.text(), b"abc");
    // The debug exit: the guest is not to go on.
    assert_eq!(p.port_write_string(0, 0xf4, 4, &[1; 12]), (1, false));
    assert!(p.take_event().is_some());
    // PAM0 of the host bridge by way of its configuration address and data.
    p.port_write(0, 0xcf8, 4, 0x8000_0000 | 0x58);
    assert_eq!(p.port_write_string(0, 0xcfd, 1, &[0x30, 0x10, 0]), (1, true));
}

#[test]
fn keyboard_bytes_interrupt_one_by_one() {
    let mut p = pc(1);
    init_pics(&mut p, 0xfd, 0xff);
    outb(&mut p, 0x60, 0xff);
    for byte in [0xfa, 0xaa] {
        assert_eq!(p.interrupts.acknowledge(0), Some(0x31));
        outb(&mut p, 0x20, 0x20);
        assert!(!p.interrupts.pending(0));
        assert_eq!(inb(&mut p, 0x60), byte);
    }
    assert!(!p.interrupts.pending(0));
}

#[test]
fn clock_interrupts_on_the_slave() {
    let mut p = pc(1);
    init_pics(&mut p, 0xfb, 0xfe);
    // The timer waits for a count.
    outb(&mut p, 0x43, 0x30);
    outb(&mut p, 0x70, 0x0b);
    outb(&mut p, 0x71, 0x12);
    assert_eq!(p.next_deadline(), Some(1000 * MS));
    p.advance(1000 * MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x38));
}

#[test]
fn local_timer_and_tsc_deadline() {
    let mut p = pc(1);
    lapic_write(&mut p, 0, 0x320, 0x4_00ec);
    p.interrupts.set_tsc_deadline(0, 1000, 2_000, TSC_HZ, 12_000);
    assert_eq!((p.interrupts.tsc_deadline(0), p.interrupts.next_deadline(0)), (12_000, Some(6_000)));
    p.interrupts.advance(0, 6_000);
    assert_eq!((p.interrupts.acknowledge(0), p.interrupts.tsc_deadline(0)), (Some(0xec), 0));
    p.interrupts.set_tpr(0, 0xf0);
    lapic_write(&mut p, 0, 0xb0, 0);
    p.interrupts.set_tsc_deadline(0, 7_000, 14_000, TSC_HZ, 1);
    assert!(!p.interrupts.pending(0));
    p.interrupts.set_tpr(0, 0);
    assert_eq!((p.interrupts.tpr(0), p.interrupts.acknowledge(0)), (0, Some(0xec)));
}

#[test]
fn interprocessor_interrupts() {
    let mut p = pc(3);
    for cpu in 0..3 {
        lapic_write(&mut p, cpu, 0xf0, 0x1ff);
        lapic_write(&mut p, cpu, 0xd0, 0x0100_0000 << cpu);
    }
    let pending = |p: &Pc| [0, 1, 2].map(|cpu| p.interrupts.pending(cpu));
    lapic_write(&mut p, 0, 0x300, 0x4_0040);
    assert_eq!(pending(&p), [true, false, false]);
    lapic_write(&mut p, 0, 0x300, 0xc_0041);
    assert_eq!(pending(&p), [true, true, true]);
    for (cpu, vector) in [(0, 0x40), (1, 0x41), (2, 0x41)] {
        assert_eq!(p.interrupts.acknowledge(cpu), Some(vector));
        lapic_write(&mut p, cpu, 0xb0, 0);
    }
    // Lowest priority among processors 1 and 2, of which 1 is busier.
    p.interrupts.set_tpr(1, 0x20);
    lapic_write(&mut p, 0, 0x310, 0x0600_0000);
    lapic_write(&mut p, 0, 0x300, 0x0942);
    assert_eq!(pending(&p), [false, false, true]);
    lapic_write(&mut p, 0, 0x300, 0x8_0400);
    assert!((0..3).all(|cpu| p.interrupts.take_signals(cpu).nmi));
    lapic_write(&mut p, 0, 0x310, 0x0100_0000);
    lapic_write(&mut p, 0, 0x300, 0x4500);
    lapic_write(&mut p, 0, 0x300, 0x4610);
    assert_eq!(p.interrupts.take_signals(1), Signals { init: true, nmi: false, start_up: Some(0x10) });
    assert_eq!(p.interrupts.take_signals(2), Signals::default());
    assert_eq!(p.mmio_read(0, 1, LAPIC + 0xf0, 4), 0xff, "its local APIC is reset");
}

#[test]
fn nmis_of_local_apics_and_of_the_chipset() {
    let mut p = pc(1);
    let locals = p.interrupts().clone();
    let nmi = || locals.take_signals(0).nmi;
    outb(&mut p, 0x70, 0x80);
    lapic_write(&mut p, 0, 0x300, 0x4_0400);
    lapic_write(&mut p, 0, 0x300, 0x8_0400);
    assert!(nmi() && !nmi(), "bit 7 of port 0x70 holds none back");
    lapic_write(&mut p, 0, 0xf0, 0x1ff);
    lapic_write(&mut p, 0, 0x360, 0x1_0400);
    locals.raise_nmi();
    assert!(!nmi(), "LINT1 is masked");
    lapic_write(&mut p, 0, 0x360, 0x400);
    locals.raise_nmi();
    assert!(nmi() && !nmi());
    lapic_write(&mut p, 0, 0x360, 0x45);
    locals.raise_nmi();
    assert_eq!((nmi(), locals.acknowledge(0)), (false, Some(0x45)), "a fixed interrupt instead");
}

/// A processor has its local APIC to itself, whatever the board is busy with, and hears once of what is new.
#[test]
fn a_processor_is_woken_for_what_is_new() {
    let mut p = pc(2);
    let locals = p.interrupts().clone();
    let heard = Arc::new(Mutex::new(0));
    let count = heard.clone();
    locals.on_wake(1, move || *count.lock().unwrap() += 1);
    let heard = || std::mem::take(&mut *heard.lock().unwrap());
    let write = |cpu, offset, value| assert!(locals.write(0, cpu, LAPIC + offset, 4, value));
    write(1, 0xf0, 0x1ff);
    write(0, 0x310, 0x0100_0000);
    assert_eq!(heard(), 0);
    write(0, 0x300, 0x41);
    write(0, 0x300, 0x42);
    assert_eq!(heard(), 1, "it has not looked for the first yet");
    locals.take_signals(1);
    write(0, 0x300, 0x400);
    assert_eq!((heard(), locals.take_signals(1).nmi), (1, true));
    locals.set_tpr(1, 0xf0);
    assert_eq!((heard(), locals.pending(1)), (0, false));
    locals.set_tpr(1, 0);
    assert_eq!((heard(), locals.acknowledge(1), locals.read(0, 1, LAPIC + 0x120, 4)), (1, Some(0x42), Some(4)));
    locals.take_signals(1);
    write(1, 0xb0, 0);
    assert_eq!(heard(), 1, "the first of the two");
    locals.take_signals(1);
    // Its timer is its own, not the board's.
    let set = Arc::new(Mutex::new(None));
    let alarm = set.clone();
    let board = p.next_deadline();
    locals.on_earlier(1, move |deadline| *alarm.lock().unwrap() = Some(deadline));
    write(1, 0x320, 0x50);
    write(1, 0x380, 100);
    assert_eq!((locals.acknowledge(1), *set.lock().unwrap(), locals.next_deadline(0)), (Some(0x41), Some(200), None));
    p.advance(200);
    assert_eq!((heard(), p.next_deadline(), locals.next_deadline(1)), (0, board, Some(200)));
    locals.advance(1, 200);
    assert!(heard() == 1 && locals.pending(1) && locals.next_deadline(1).is_none());
    assert_eq!((locals.read(0, 1, 0x1000, 4), locals.write(0, 1, 0x1000, 4, 0)), (None, false));
}

#[test]
fn an_x87_error_is_interrupt_13() {
    let mut p = pc(1);
    p.set_up_as_firmware();
    outb(&mut p, 0x21, 0xfb);
    outb(&mut p, 0xa1, 0xdf);
    assert!(!p.set_ferr(true));
    assert_eq!(p.interrupts.acknowledge(0), Some(0x75));
    outb(&mut p, 0xf0, 0);
    assert!(p.set_ferr(true), "ignored until it is over");
    outb(&mut p, 0xa0, 0x20);
    outb(&mut p, 0x20, 0x20);
    assert_eq!(p.interrupts.acknowledge(0), None);
    assert!(!p.set_ferr(false) && !p.set_ferr(true));
    assert_eq!(p.interrupts.acknowledge(0), Some(0x75));
}

#[test]
fn the_guest_leaves() {
    let events: [(u16, u8, u32, PcEvent); 6] = [
        (0x604, 2, 0x2000, PcEvent::PowerOff),
        (0xcf9, 1, 0x06, PcEvent::Reset),
        (0x64, 1, 0xfe, PcEvent::Reset),
        (0x92, 1, 0x03, PcEvent::Reset),
        (0xf4, 4, 0x10, PcEvent::DebugExit(0x21)),
        (0xf6, 1, 0x01, PcEvent::DebugExit(0x03)),
    ];
    for (port, size, value, event) in events {
        let mut p = pc(1);
        p.port_write(0, port, size, value);
        assert_eq!(p.take_event(), Some(event));
        assert_eq!(p.take_event(), None);
    }
    let mut p = pc(1);
    p.port_write(0, 0xf4, 1, 0);
    p.port_write(0, 0xcf9, 1, 6);
    assert_eq!(p.take_event(), Some(PcEvent::DebugExit(1)), "the first one stands");
}

#[test]
fn unclaimed_addresses_float() {
    let mut p = pc(1);
    assert_eq!(p.port_read(0, 0x1234, 1), 0xff);
    assert_eq!(p.port_read(0, 0x1234, 2), 0xffff);
    assert_eq!(p.port_read(0, 0xfffc, 4), 0xffff_ffff);
    assert_eq!(p.port_read(0, 0xffff, 4) & 0xff, 0xff, "the others are those from 0 on");
    assert_eq!(p.mmio_read(0, 0, 0xd000_0000, 8), u64::MAX);
    assert_eq!(p.mmio_read(0, 0, 0xd000_0000, 2), 0xffff);
    assert_eq!(p.mmio_read(0, 9, LAPIC, 4), 0xffff_ffff, "no such processor");
}

#[test]
fn wide_accesses_reach_the_right_device() {
    let mut p = pc(1);
    p.port_write(0, 0xcf8, 4, 0x8000_0000);
    assert_eq!(p.port_read(0, 0xcfc, 4), 0x1237_8086);
    assert_eq!(p.port_read(1_000_000_000, 0x608, 4), 3_579_545);
    // A word write to the clock's index port sets index and data.
    p.port_write(0, 0x70, 2, 0x5a_0e);
    outb(&mut p, 0x70, 0x0e);
    assert_eq!(inb(&mut p, 0x71), 0x5a);
}

#[test]
fn reset_keeps_the_clock_and_its_memory() {
    let mut p = pc(1);
    init_pics(&mut p, 0, 0);
    outb(&mut p, 0x70, 0x0e);
    outb(&mut p, 0x71, 0x77);
    outb(&mut p, 0x92, 0);
    start_timer(&mut p);
    p.reset(5_000 * MS);
    assert!(p.a20_enabled());
    assert_eq!((p.next_deadline(), p.take_event()), (None, None));
    outb(&mut p, 0x70, 0x0e);
    assert_eq!(inb(&mut p, 0x71), 0x77);
    outb(&mut p, 0x70, 0x00);
    assert_eq!(inb(&mut p, 0x71), 0x25, "five seconds after 22:13:20");
}

#[test]
fn state_round_trips_in_the_middle_of_activity() {
    let mut p = pc(2);
    init_pics(&mut p, 0, 0);
    start_timer(&mut p);
    lapic_write(&mut p, 1, 0x320, 0x2_0044);
    lapic_write(&mut p, 1, 0x380, 12_345);
    outb(&mut p, 0x60, 0xff);
    p.port_write(0, 0xf4, 1, 3);
    p.advance(33 * MS);
    p.interrupts.advance(1, 33 * MS);
    p.interrupts.acknowledge(0);
    let bytes = postcard::to_stdvec(&p.save()).unwrap();
    let mut q = pc(2);
    q.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
    for pc in [&mut p, &mut q] {
        pc.advance(77 * MS);
        pc.interrupts.advance(1, 77 * MS);
        outb(pc, 0x20, 0x20);
        inb(pc, 0x60);
    }
    assert_eq!(p.save(), q.save());
    assert_eq!((p.next_deadline(), p.interrupts.next_deadline(1)), (q.next_deadline(), q.interrupts.next_deadline(1)));
    assert_eq!((p.take_event(), q.take_event()), (Some(PcEvent::DebugExit(7)), Some(PcEvent::DebugExit(7))));
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let p = pc(1);
    let mut q = pc(2);
    assert_eq!(q.restore(p.save()), Err(StateError::Machine("number of processors")));
    let mut bytes = postcard::to_stdvec(&q.save()).unwrap();
    bytes[0] = 99;
    let result = q.restore(postcard::from_bytes(&bytes).unwrap());
    assert_eq!(result, Err(StateError::Version { found: 99, expected: 12 }));
}

/// A xorshift generator: the same traffic on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn garbage_traffic_never_panics_and_leaves_nothing_overdue() {
    for seed in [1, 0x9e37_79b9_7f4a_7c15, 0xdead_beef_cafe_f00d] {
        let mut random = Random(seed);
        let mut p = pc(2);
        let mut now = 0;
        for step in 0..100_000u64 {
            now += match random.below(8) {
                0 => random.below(10_000_000_000),
                1..4 => random.below(100_000),
                _ => 0,
            };
            let port = match random.below(4) {
                0 => random.next() as u16,
                _ => {
                    let (first, last, _) = p.ports[random.below(p.ports.len() as u64) as usize];
                    first.wrapping_add(random.below(u64::from(last - first) + 2) as u16)
                }
            };
            let size = [1, 2, 4, 0, 3, 8][random.below(6) as usize];
            let cpu = random.below(3) as usize;
            let gpa = match random.below(3) {
                0 => random.next(),
                1 => LAPIC + random.below(0x1000),
                _ => LAPIC + 0x10 * random.below(0x40),
            };
            let value = random.next();
            match random.below(12) {
                0..3 => p.port_write(now, port, size, value as u32),
                3..5 => {
                    p.port_read(now, port, size);
                }
                5 => p.mmio_write(now, cpu, gpa, size, value),
                6 => {
                    p.mmio_write(now, cpu, IOAPIC + 0x10 * random.below(6), 4, value & random.next());
                }
                7 => {
                    p.mmio_read(now, cpu, gpa, size);
                }
                8 => {
                    p.interrupts.acknowledge(cpu);
                }
                9 => p.interrupts.set_tsc_deadline(cpu, now, value >> 3, TSC_HZ, random.next() >> random.below(64)),
                10 => {
                    p.serial_receive(0, now, &value.to_le_bytes());
                }
                _ => {
                    p.take_event();
                    p.interrupts.set_tpr(cpu, value as u8);
                    p.interrupts.set_apic_base(cpu, LAPIC | value & 0xb00);
                }
            }
            if step % 3 == 0 {
                p.advance(now);
                (0..3).for_each(|cpu| p.interrupts.advance(cpu, now));
                let mut deadlines =
                    (0..3).map(|cpu| p.interrupts.next_deadline(cpu)).chain([p.next_deadline()]).flatten();
                assert!(deadlines.all(|due| due > now), "step {step}");
                p.interrupts.take_signals(cpu);
            }
            if step % 5_000 == 0 {
                let bytes = postcard::to_stdvec(&p.save()).unwrap();
                assert!(bytes.len() < 4096);
                p.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn pci_interrupts_by_pin_and_by_message() {
    use crate::pci::testing::Probe;
    let mut p = Pc::new(config(1));
    let devfn = p.plug(None, Box::new(Probe::new())).unwrap();
    p.set_up_as_firmware();
    lapic_write(&mut p, 0, 0xf0, 0x1ff);
    // Pin A of device 2 is on the second line, which is ISA line 10: level-triggered.
    redirect(&mut p, 10, 0x8051);
    p.function(0, devfn, |probe: &mut Probe, _| probe.pin = true).unwrap();
    assert_eq!(p.interrupts.acknowledge(0), Some(0x51));
    assert!(p.function(0, 1 << 3, |_: &mut Probe, _| ()).is_none(), "the chipset is none");
    lapic_write(&mut p, 0, 0xb0, 0);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x51), "the level stands");
    p.function(0, devfn, |probe: &mut Probe, _| probe.pin = false).unwrap();
    lapic_write(&mut p, 0, 0xb0, 0);
    assert_eq!(p.interrupts.acknowledge(0), None);
    // Vector 0 of MSI-X, the table of which is in the second window.
    let window = p.function(0, devfn, |probe: &mut Probe, _| probe.config.windows().find(|w| w.bar == 1).unwrap().base);
    let table = window.unwrap();
    for (offset, value) in [(0, 0xfee0_0000u64), (8, 0x62), (12, 0)] {
        p.mmio_write(0, 0, table + offset, 4, value);
    }
    p.port_write(0, 0xcf8, 4, 0x8000_1004);
    p.port_write(0, 0xcfc, 2, 6);
    let capability = p.function(0, devfn, |probe: &mut Probe, _| probe.config.u8(0x34)).unwrap();
    p.port_write(0, 0xcf8, 4, 0x8000_1000 | u32::from(capability));
    p.port_write(0, 0xcff, 1, 0x80);
    p.function(0, devfn, |probe: &mut Probe, _| probe.msix.signal(&probe.config, 0)).unwrap();
    assert_eq!(p.interrupts.acknowledge(0), Some(0x62));
    // Wide accesses reach a function in one piece, where nothing of the board is.
    p.port_write(0, 0x1f0, 4, 0x1122_3344);
    assert_eq!(p.port_read(0, 0x1f0, 2), 0x3344);
    assert_eq!(p.function(0, devfn, |probe: &mut Probe, _| probe.last), Some((100, 0, 2)));
}

#[test]
fn serial_ports_share_lines_and_are_apart() {
    let sinks: [Sink; 4] = Default::default();
    let mut p = Pc::new(config(1));
    for (port, sink) in COM_PORTS.into_iter().zip(&sinks) {
        p.plug_serial(port, Box::new(sink.clone()));
    }
    p.set_up_as_firmware();
    init_pics(&mut p, 0xe7, 0xff);
    for (port, byte) in COM_PORTS.into_iter().zip(*b"abcd") {
        outb(&mut p, port.iobase, byte);
        outb(&mut p, port.iobase + 1, 1);
    }
    assert_eq!(sinks.each_ref().map(Sink::text), [b"a", b"b", b"c", b"d"]);
    for (index, vector) in [(2, 0x34), (3, 0x33)] {
        assert_eq!(p.serial_receive(index, 0, b"x"), 1);
        assert_eq!(p.interrupts.acknowledge(0), Some(vector));
        assert_eq!((inb(&mut p, COM_PORTS[index].iobase), inb(&mut p, COM_PORTS[index - 2].iobase)), (b'x', 0));
        outb(&mut p, 0x20, 0x20);
    }
    assert_eq!((p.serial_room(4), p.serial_receive(4, 0, b"x")), (0, 0), "there is no fifth");
    let mut other = Pc::new(config(1));
    assert_eq!(other.restore(p.save()), Err(StateError::Machine("set of serial ports")));
}

/// What kernels' unit tests do with it.
#[test]
fn the_test_device_drives_lines_and_keeps_data() {
    let mut p = pc(1);
    p.plug_testdev();
    init_pics(&mut p, 0xfb, 0xbf);
    lapic_write(&mut p, 0, 0xf0, 0x1ff);
    outb(&mut p, 0x200e, 1);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x3e));
    outb(&mut p, 0x200e, 0);
    redirect(&mut p, 0x14, 0x60);
    outb(&mut p, 0x2014, 1);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x60));
    p.port_write(0, 0xe0, 4, 0x1234_5678);
    assert_eq!((p.port_read(0, 0xe2, 2), p.port_read(0, 0xe8, 1), p.port_read(0, 0xea, 2)), (0x1234, 0x78, 0x1234));
    assert_eq!(p.port_read(0, 0xe9, 1), 0xe9, "the debug console");
    p.mmio_write(0, 0, 0xff00_1000, 8, 0x1122_3344_5566_7788);
    assert_eq!(p.mmio_read(0, 0, 0xff00_1002, 2), 0x5566);
    let (state, mut other) = (p.save(), pc(1));
    assert_eq!(other.restore(state.clone()), Err(StateError::Machine("set of test devices")));
    other.plug_testdev();
    other.restore(state).unwrap();
    assert_eq!(other.mmio_read(0, 0, 0xff00_1000, 4), 0x5566_7788);
    p.reset(0);
    assert_eq!(p.port_read(0, 0xe0, 4), 0);
}

#[test]
fn what_is_on_the_isa_bus_is_routed_timed_saved_and_reset() {
    let plugged = || {
        let mut p = Pc::new(config(1));
        p.plug_isa("pvpanic", Box::new(Pvpanic::new(0x505, 3)));
        p.plug_isa("ib700", Box::new(Ib700::default()));
        p
    };
    let mut p = plugged();
    assert!(p.port_ranges().any(|range| range == (0x505, 0x505, "pvpanic")));
    assert_eq!((inb(&mut p, 0x505), inb(&mut p, 0x506)), (3, 0xff));
    for value in [2, 1, 2] {
        outb(&mut p, 0x505, value);
    }
    assert_eq!((p.take_event(), p.take_event()), (Some(PcEvent::Panicked), None));
    // Two bytes are a byte at each port: the second is nobody's.
    p.port_write(MS, 0x443, 2, 0x000e);
    assert_eq!(p.next_deadline(), Some(2001 * MS));
    let mut other = plugged();
    other.restore(p.save()).unwrap();
    assert_eq!(Pc::new(config(1)).restore(p.save()), Err(StateError::Machine("set of ISA devices")));
    for p in [&mut p, &mut other] {
        p.advance(2001 * MS);
        assert_eq!((p.take_event(), p.next_deadline()), (Some(PcEvent::Watchdog), None));
    }
    outb(&mut p, 0x443, 0);
    p.reset(3000 * MS);
    assert_eq!(p.next_deadline(), None);
}

#[test]
fn a_sleeping_machine_wakes() {
    let mut p = pc(1);
    outb(&mut p, 0xb2, 0xf1);
    // The alarm in 10 seconds is wanted, by the clock and by the power management.
    for (index, value) in [(0x0b, 0x22), (0x05, 0xff), (0x03, 0xff), (0x01, 0x30)] {
        outb(&mut p, 0x70, index);
        outb(&mut p, 0x71, value);
    }
    p.port_write(0, 0x602, 2, 0x400);
    p.port_write(0, 0xcf8, 4, 0x8000_0058);
    p.port_write(0, 0xcfd, 1, 0x10);
    p.port_write(0, 0x604, 2, 1 << 10 | 1 << 13);
    assert_eq!((p.take_event(), p.wakes()), (Some(PcEvent::Suspend), false));
    outb(&mut p, 0x70, 0x0f);
    assert_eq!(inb(&mut p, 0x71), 0xfe, "firmware is told");
    let due = p.wake_deadline().unwrap();
    p.advance(due - 1);
    assert!(!p.wakes());
    let state = postcard::to_stdvec(&p.save()).unwrap();
    p.restore(postcard::from_bytes(&state).unwrap()).unwrap();
    p.advance(due);
    assert!(p.wakes());
    p.resume(due);
    assert!(!p.wakes() && p.take_event().is_none());
    p.port_write(due, 0xcf8, 4, 0x8000_0058);
    assert_eq!(p.port_read(due, 0xcfd, 1), 0x10, "what is RAM");
    p.port_write(due, 0xcf8, 4, 0x8000_0b40);
    p.port_write(due, 0xcfc, 4, 0x601);
    p.port_write(due, 0xcf8, 4, 0x8000_0b80);
    p.port_write(due, 0xcfc, 1, 1);
    assert_eq!(p.port_read(due, 0x600, 2), 0x8400, "the alarm");
    // A key, and somebody who asks for it.
    assert!(!p.wake(due), "it is awake");
    p.port_write(due, 0x604, 2, 1 << 10 | 1 << 13);
    p.key(due, Key::named("a").unwrap(), true);
    assert!(p.wakes());
    p.reset(due);
    assert!(!p.wakes());
}
