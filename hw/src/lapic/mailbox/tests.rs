//! Tests of the mailbox: what is posted, taken and saved, and threads that post at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

fn message(delivery: Delivery, vector: u8) -> Message {
    Message { destination: Destination::Physical(0), delivery, vector, level: false }
}

fn mailbox() -> Mailbox {
    let mailbox = Mailbox::default();
    mailbox.publish(Reception { enabled: true, software_enabled: true, ..Reception::default() });
    mailbox
}

fn start_up(vector: u8) -> Signals {
    Signals { start_up: Some(vector), ..Signals::default() }
}

#[test]
fn reception_is_read_as_it_was_published() {
    let mailbox = Mailbox::default();
    let reception = Reception {
        enabled: true,
        software_enabled: false,
        id: 0x12,
        logical: 0x34,
        model: 0xf,
        priority: 0x56,
        lint: [0x1_0700, 0x8400],
    };
    mailbox.publish(reception);
    assert_eq!(mailbox.reception(), reception);
}

#[test]
fn what_the_local_apic_refuses_is_not_posted() {
    let mailbox = Mailbox::default();
    assert!(!mailbox.post(message(Delivery::Nmi, 0)), "globally disabled");
    mailbox.publish(Reception { enabled: true, ..Reception::default() });
    assert!(!mailbox.post(message(Delivery::Fixed, 0x40)), "disabled by software");
    assert!(mailbox.post(message(Delivery::Nmi, 0)));
    assert_eq!((mailbox.take(), mailbox.highest()), (Signals { nmi: true, ..Signals::default() }, None));
}

#[test]
fn init_comes_before_the_start_up_that_follows_it() {
    let mailbox = mailbox();
    mailbox.post(message(Delivery::StartUp, 0x77));
    mailbox.post(message(Delivery::Init, 0));
    mailbox.post(message(Delivery::StartUp, 0x9a));
    mailbox.post(message(Delivery::StartUp, 0x9b));
    assert_eq!(mailbox.take(), Signals { init: true, ..start_up(0x9a) });
    mailbox.post(message(Delivery::StartUp, 0));
    assert_eq!(mailbox.take(), start_up(0));
    mailbox.post(message(Delivery::StartUp, 0x10));
    mailbox.post(message(Delivery::Init, 0));
    assert_eq!(mailbox.take(), Signals { init: true, ..Signals::default() });
    assert_eq!(mailbox.take(), Signals::default());
}

#[test]
fn the_processor_is_woken_once_until_it_looks() {
    let (mailbox, woken) = (mailbox(), Arc::new(AtomicUsize::new(0)));
    mailbox.post(message(Delivery::Fixed, 0x40));
    let count = woken.clone();
    mailbox.connect(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(woken.swap(0, Ordering::Relaxed), 1, "for what was there before");
    mailbox.take();
    mailbox.post(message(Delivery::Fixed, 0x41));
    mailbox.post(message(Delivery::Nmi, 0));
    assert_eq!(woken.swap(0, Ordering::Relaxed), 1);
    assert!(mailbox.take().nmi);
    mailbox.post(message(Delivery::ExtInt, 0));
    assert_eq!((woken.swap(0, Ordering::Relaxed), mailbox.lint0_and_ext_int()), (1, (false, true)));
    mailbox.restore(&mailbox.save());
    assert_eq!(woken.load(Ordering::Relaxed), 1, "it looks at what it has now");
}

#[test]
fn local_interrupt_pins_do_what_their_entries_say() {
    let with = |enabled, entry| {
        let mailbox = Mailbox::default();
        mailbox.publish(Reception { enabled, lint: [entry, entry], ..Reception::default() });
        mailbox.set_lint0(true);
        let lint0 = (mailbox.take().nmi, mailbox.highest());
        mailbox.clear_requests();
        mailbox.set_lint0(true);
        assert_eq!((mailbox.take().nmi, mailbox.highest()), (false, None), "an edge");
        mailbox.raise_lint1();
        (lint0, (mailbox.take().nmi, mailbox.highest()))
    };
    let nothing = (false, None);
    assert_eq!(with(false, 0x400), (nothing, (true, None)), "the pins are INTR and NMI");
    assert_eq!(with(true, 0x400), ((true, None), (true, None)));
    assert_eq!(with(true, 0x61), ((false, Some(0x61)), (false, Some(0x61))));
    assert_eq!(with(true, LVT_MASKED | 0x400), (nothing, nothing));
    assert_eq!(with(true, 0x700), (nothing, nothing), "ExtINT is not latched");
    let mailbox = mailbox();
    mailbox.publish(Reception { enabled: true, lint: [0x05, 0], ..Reception::default() });
    mailbox.set_lint0(true);
    assert!(mailbox.take_illegal() && !mailbox.take_illegal(), "vector 5");
}

#[test]
fn state_round_trips() {
    let full = mailbox();
    for (delivery, vector) in [(Delivery::Fixed, 0x40), (Delivery::Init, 0), (Delivery::StartUp, 9), (Delivery::Nmi, 0)]
    {
        full.post(message(delivery, vector));
    }
    full.post(Message { level: true, ..message(Delivery::LowestPriority, 0xfe) });
    full.set_lint0(true);
    full.post(message(Delivery::ExtInt, 0));
    let back = Mailbox::default();
    back.restore(&postcard::from_bytes(&postcard::to_stdvec(&full.save()).unwrap()).unwrap());
    assert_eq!(back.save(), full.save());
    assert_eq!((back.highest(), back.tmr()[7], back.lint0_and_ext_int()), (Some(0xfe), 1 << 30, (true, true)));
    assert_eq!(back.take(), Signals { init: true, nmi: true, start_up: Some(9) });
    back.reset();
    assert_eq!(back.save(), Mailbox::default().save());
}

/// The processor sleeps until it is woken, so a request that is lost or that does not wake it hangs.
#[test]
fn threads_that_post_to_one_mailbox_lose_nothing() {
    const ROUNDS: usize = 2_000;
    const VECTORS: [u8; 3] = [0x31, 0x32, 0xf1];
    let (mailbox, woken) = (Arc::new(mailbox()), Arc::new(AtomicBool::new(false)));
    let bell = woken.clone();
    mailbox.connect(move || bell.store(true, Ordering::Release));
    let taken: [AtomicUsize; VECTORS.len() + 1] = Default::default();
    let (mailbox, taken) = (&*mailbox, &taken);
    let sender = |index: usize| {
        let what = match VECTORS.get(index) {
            Some(&vector) => message(Delivery::Fixed, vector),
            None => message(Delivery::Nmi, 0),
        };
        for round in 0..ROUNDS {
            assert!(mailbox.post(what));
            while taken[index].load(Ordering::Acquire) <= round {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        (0..taken.len()).for_each(|index| drop(scope.spawn(move || sender(index))));
        while taken.iter().any(|count| count.load(Ordering::Acquire) < ROUNDS) {
            if !woken.swap(false, Ordering::AcqRel) {
                std::thread::yield_now();
                continue;
            }
            let nmi = usize::from(mailbox.take().nmi);
            taken[VECTORS.len()].fetch_add(nmi, Ordering::AcqRel);
            while let Some(vector) = mailbox.highest() {
                mailbox.clear(vector);
                let index = VECTORS.iter().position(|&other| other == vector).expect("one of those that were posted");
                taken[index].fetch_add(1, Ordering::AcqRel);
            }
        }
    });
    assert!(taken.iter().all(|count| count.load(Ordering::Acquire) == ROUNDS), "each as often as it was posted");
}
