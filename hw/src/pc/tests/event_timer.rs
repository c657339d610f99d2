//! Tests of the HPET on the board: whose place its timers take, and what a reset leaves of it.

use super::*;

const HPET: u64 = 0xfed0_0000;

/// A machine whose event timer 0, or 1, has a period of 1 ms and the place of the timer, or the clock. It is used with 32 bits, as
/// Linux does: of 64, the upper half is all ones after a reset.
fn pc_with_hpet(timer: u64) -> Pc {
    let mut p = board(1, &Sink::default(), &Sink::default());
    p.plug_hpet();
    p.set_up_as_firmware();
    let registers = HPET + 0x100 + 0x20 * timer;
    for (address, value) in [(registers, 0x14c), (registers + 8, 100_000), (registers + 8, 100_000), (HPET + 0x10, 3)] {
        p.mmio_write(0, 0, address, 4, value);
    }
    p
}

#[test]
fn the_event_timer_takes_the_timers_place() {
    let mut p = pc_with_hpet(0);
    init_pics(&mut p, 0xfe, 0xff);
    redirect(&mut p, 2, 0x1_0051);
    start_timer(&mut p);
    for round in 1..4 {
        assert_eq!(p.next_deadline(), Some((round * MS).min(10 * MS)));
        p.advance(round * MS);
        assert_eq!(p.interrupts.acknowledge(0), Some(0x30), "ISA interrupt 0");
        outb(&mut p, 0x20, 0x20);
        assert_eq!(p.interrupts.acknowledge(0), None);
    }
    outb(&mut p, 0x21, 0xff);
    redirect(&mut p, 2, 0x51);
    p.advance(4 * MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x51), "input 2 of the I/O APIC");
    lapic_write(&mut p, 0, 0xb0, 0);
    // Given back, the 8254 is what is heard.
    p.mmio_write(4 * MS, 0, HPET + 0x10, 4, 0);
    p.advance(9 * MS);
    assert_eq!(p.interrupts.acknowledge(0), None);
    p.advance(11 * MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x51));
}

#[test]
fn the_event_timer_takes_the_clocks_place() {
    let mut p = pc_with_hpet(1);
    redirect(&mut p, 8, 0x58);
    // The clock's own interrupt: at each update.
    outb(&mut p, 0x70, 0x0b);
    outb(&mut p, 0x71, 0x12);
    p.advance(MS);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x58));
    lapic_write(&mut p, 0, 0xb0, 0);
    p.mmio_write(MS, 0, HPET + 0x120, 4, 0);
    p.advance(3_000 * MS);
    assert_eq!(p.interrupts.acknowledge(0), None, "the clock is not heard");
    p.mmio_write(3_000 * MS, 0, HPET + 0x10, 4, 1);
    assert_eq!(p.interrupts.acknowledge(0), Some(0x58));
}

#[test]
fn an_event_timer_that_has_nobodys_place_has_an_input_of_its_own() {
    let mut p = pc_with_hpet(2);
    redirect(&mut p, 20, 0x64);
    p.mmio_write(0, 0, HPET + 0x140, 4, 20 << 9 | 0x10c);
    for round in 1..3 {
        p.advance(round * MS);
        assert_eq!(p.interrupts.acknowledge(0), Some(0x64));
        lapic_write(&mut p, 0, 0xb0, 0);
        assert_eq!(p.interrupts.acknowledge(0), None);
    }
}

#[test]
fn a_machine_without_an_event_timer_has_nothing_there() {
    let mut p = pc(1);
    assert_eq!(p.mmio_read(0, 0, HPET, 8), u64::MAX);
    let with = pc_with_hpet(0).save();
    assert_eq!(p.restore(with), Err(StateError::Machine("set of timers")));
}

#[test]
fn a_reset_stops_the_event_timer_and_masks_dma() {
    let mut p = pc_with_hpet(0);
    outb(&mut p, 0x0e, 0);
    outb(&mut p, 0x87, 0x12);
    assert_eq!((inb(&mut p, 0x0f), inb(&mut p, 0x87)), (0xf0, 0x12));
    p.reset(MS);
    assert_eq!((p.mmio_read(2 * MS, 0, HPET + 0xf0, 8), p.next_deadline()), (0, None));
    assert_eq!((inb(&mut p, 0x0f), inb(&mut p, 0x87)), (0xff, 0));
}
