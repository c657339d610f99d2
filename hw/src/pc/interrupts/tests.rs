//! Tests of which locks interrupts take: none of the processor's to send one, and none of the machine's to take one.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

const LAPIC: u64 = 0xfee0_0000;

/// Interrupt controllers of two processors whose local APICs are enabled by software.
fn interrupts() -> Arc<Interrupts> {
    let interrupts = Arc::new(Interrupts::new(2));
    for cpu in 0..2 {
        interrupts.write(0, cpu, LAPIC + 0xf0, 4, 0x1ff);
    }
    interrupts
}

/// Does something on another thread, which must need nothing that this one holds.
fn elsewhere(interrupts: &Arc<Interrupts>, f: impl FnOnce(&Interrupts) + Send + 'static) {
    let (interrupts, (done, wait)) = (interrupts.clone(), mpsc::channel());
    std::thread::spawn(move || {
        f(&interrupts);
        let _ = done.send(());
    });
    // A thread that waits for a lock waits for ever.
    wait.recv_timeout(Duration::from_secs(100)).expect("it needs no lock that is held");
}

#[test]
fn senders_take_no_lock_of_the_local_apic_they_send_to() {
    let interrupts = interrupts();
    let held = lock(&interrupts.locals[1].apic);
    elsewhere(&interrupts, |interrupts| {
        // An IPI, an NMI by the local APIC, a message of a PCI function, and the chipset's.
        interrupts.write(0, 0, LAPIC + 0x310, 4, 0x0100_0000);
        interrupts.write(0, 0, LAPIC + 0x300, 4, 0x41);
        interrupts.write(0, 0, LAPIC + 0x300, 4, 0x400);
        interrupts.send(MsiMessage { address: 0xfee0_1000, data: 0x52 });
        interrupts.raise_nmi();
        // The I/O APIC's, with the 8259As' INTR besides.
        interrupts.write_ioapic(0, 0x14);
        interrupts.write_ioapic(0x10, 0x63);
        interrupts.write_ioapic(0, 0x15);
        interrupts.write_ioapic(0x10, 0x0100_0000);
        interrupts.set_input(0, true);
        interrupts.write(0, 0, LAPIC + 0x300, 4, 0x500);
        interrupts.write(0, 0, LAPIC + 0x300, 4, 0x677);
    });
    drop(held);
    let requested = interrupts.locals[1].mailbox.irr();
    assert_eq!((requested[2], requested[3]), (1 << 1 | 1 << 0x12, 1 << 3));
    let signals = interrupts.take_signals(1);
    assert_eq!((signals.init, signals.nmi, signals.start_up), (true, true, Some(0x77)));
}

#[test]
fn a_processor_takes_no_lock_of_the_machines() {
    let interrupts = interrupts();
    let _shared = lock(&interrupts.chips);
    let _other = lock(&interrupts.locals[1].apic);
    elsewhere(&interrupts, |interrupts| {
        let write = |offset, value| interrupts.write(0, 0, LAPIC + offset, 4, value);
        interrupts.set_tpr(0, 0x20);
        assert_eq!((interrupts.tpr(0), interrupts.read(0, 0, LAPIC + 0x80, 4)), (0x20, Some(0x20)));
        // An IPI to itself and to the other, its acknowledge cycle, and its end.
        write(0x300, 0x4_0041);
        write(0x300, 0xc_0041);
        assert!(interrupts.pending(0));
        assert_eq!(interrupts.acknowledge(0), Some(0x41));
        write(0xb0, 0);
        // The timer, by a deadline and by a count.
        write(0x320, 0x4_00ec);
        interrupts.set_tsc_deadline(0, 0, 0, 1_000_000_000, 500);
        assert_eq!(interrupts.next_deadline(0), Some(500));
        interrupts.advance(0, 500);
        assert_eq!(interrupts.acknowledge(0), Some(0xec));
        write(0xb0, 0);
        write(0x320, 0x2_00ed);
        write(0x380, 100);
        assert!(interrupts.next_deadline(0).is_some());
        assert_eq!(interrupts.take_signals(0), crate::Signals::default());
    });
}
