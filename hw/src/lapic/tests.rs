//! Tests of the local APIC: priorities, the timer, interprocessor interrupts, what is reserved.

use super::*;

const TPR: u16 = 0x80;
const PPR: u16 = 0xa0;
const EOI: u16 = 0xb0;
const SVR: u16 = 0xf0;
const ESR: u16 = 0x280;
const ICR: u16 = 0x300;
const ICR_HIGH: u16 = 0x310;
const TIMER: u16 = 0x320;
const LINT0: u16 = 0x350;
const ERROR: u16 = 0x370;
const INITIAL: u16 = 0x380;
const CURRENT: u16 = 0x390;
const DIVIDE: u16 = 0x3e0;

/// A local APIC and its mailbox, as a board has them.
struct Apic(Lapic, Mailbox);

impl Apic {
    fn new(id: u8) -> Apic {
        let mut apic = Apic(Lapic::new(id), Mailbox::default());
        apic.with(|_, _| ());
        apic
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Lapic, &Mailbox) -> T) -> T {
        let result = f(&mut self.0, &self.1);
        self.1.publish(self.0.reception());
        result
    }

    fn read(&mut self, now: u64, offset: u16) -> u32 {
        self.with(|lapic, mailbox| lapic.read(mailbox, now, offset))
    }

    fn write(&mut self, now: u64, offset: u16, value: u32) -> Option<Effect> {
        self.with(|lapic, mailbox| lapic.write(mailbox, now, offset, value))
    }

    fn advance(&mut self, now: u64) {
        self.with(|lapic, mailbox| lapic.advance(mailbox, now));
    }

    fn set_tsc_deadline(&mut self, now: u64, tsc_now: u64, tsc_hz: u64, deadline: u64) {
        self.with(|lapic, mailbox| lapic.set_tsc_deadline(mailbox, now, (tsc_now, tsc_hz), deadline));
    }

    fn set_base(&mut self, value: u64) -> bool {
        self.with(|lapic, mailbox| lapic.set_base(mailbox, value))
    }

    fn acknowledge(&mut self) -> Option<u8> {
        self.with(Lapic::acknowledge)
    }

    fn pending(&self) -> Option<u8> {
        self.0.pending(&self.1)
    }

    fn ext_int_pending(&self) -> bool {
        self.0.ext_int_pending(&self.1)
    }

    fn next_deadline(&self) -> Option<u64> {
        self.0.next_deadline()
    }

    fn receive(&self, message: Message) -> bool {
        self.1.post(message)
    }
}

fn lapic() -> Apic {
    let mut lapic = Apic::new(0);
    lapic.write(0, SVR, 0x1ff);
    lapic
}

fn fixed(vector: u8, level: bool) -> Message {
    Message { destination: Destination::Physical(0), delivery: Delivery::Fixed, vector, level }
}

#[test]
fn reset_values() {
    let mut l = Apic::new(3);
    assert_eq!(l.read(0, 0x20), 3 << 24);
    assert_eq!(l.read(0, 0x30), 0x0005_0014);
    assert_eq!(l.read(0, 0xe0), u32::MAX);
    assert_eq!(l.read(0, SVR), 0xff);
    assert_eq!(l.read(0, LINT0), LVT_MASKED);
    assert_eq!(l.0.base(), 0xfee0_0800);
    assert_eq!(Apic::new(0).0.base(), 0xfee0_0900);
}

#[test]
fn priorities_and_end_of_interrupt() {
    let mut l = lapic();
    assert!(l.receive(fixed(0x31, false)));
    assert!(l.receive(fixed(0x52, true)));
    assert_eq!(l.acknowledge(), Some(0x52));
    assert_eq!(l.read(0, PPR), 0x50);
    assert_eq!(l.pending(), None);
    assert!(l.receive(fixed(0x58, false)));
    assert_eq!(l.pending(), None, "same priority class");
    assert!(l.receive(fixed(0x60, false)));
    assert_eq!(l.acknowledge(), Some(0x60));
    assert_eq!(l.write(0, EOI, 0), None, "edge: no broadcast");
    assert_eq!(l.write(0, EOI, 0), Some(Effect::EndOfInterrupt(0x52)));
    assert_eq!(l.acknowledge(), Some(0x58));
    l.write(0, EOI, 0);
    assert_eq!(l.read(0, 0x200 + 0x10), 1 << 17);
    assert_eq!(l.acknowledge(), Some(0x31));
    assert_eq!(l.read(0, 0x100 + 0x10), 1 << 17);
}

#[test]
fn task_priority_holds_back() {
    let mut l = lapic();
    l.receive(fixed(0x45, false));
    l.write(0, TPR, 0x40);
    assert_eq!(l.pending(), None);
    l.with(|lapic, _| lapic.set_tpr(0x3f));
    assert_eq!(l.read(0, TPR), 0x3f);
    assert_eq!(l.read(0, PPR), 0x3f);
    assert_eq!(l.pending(), Some(0x45));
}

#[test]
fn one_shot_timer() {
    let mut l = lapic();
    l.write(0, TIMER, 0x40);
    l.write(0, DIVIDE, 0x3);
    l.write(1000, INITIAL, 100);
    assert_eq!(l.next_deadline(), Some(1000 + 1600));
    assert_eq!(l.read(1000 + 160, CURRENT), 90);
    l.advance(2599);
    assert_eq!(l.pending(), None);
    l.advance(2600);
    assert_eq!(l.acknowledge(), Some(0x40));
    assert_eq!(l.read(9999, CURRENT), 0);
    assert_eq!(l.next_deadline(), None);
}

#[test]
fn periodic_timer_catches_up_in_one_step() {
    let mut l = lapic();
    l.write(0, DIVIDE, 0xb);
    l.write(0, TIMER, 0x2_0041);
    l.write(0, INITIAL, 1000);
    l.advance(1_000_000_500);
    assert_eq!(l.acknowledge(), Some(0x41));
    assert_eq!(l.pending(), None);
    assert_eq!(l.next_deadline(), Some(1_000_001_000));
    assert_eq!(l.read(1_000_000_500, CURRENT), 500);
    // Stopping: an initial count of 0.
    l.write(1_000_000_600, INITIAL, 0);
    assert_eq!(l.next_deadline(), None);
}

#[test]
fn dividers() {
    let mut l = lapic();
    l.write(0, TIMER, 0x40);
    for (field, divisor) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
        l.write(0, DIVIDE, field);
        l.write(0, INITIAL, 10);
        assert_eq!(l.next_deadline(), Some(10 * divisor));
    }
}

#[test]
fn changing_the_divider_keeps_the_count() {
    let mut l = lapic();
    l.write(0, TIMER, 0x40);
    l.write(0, DIVIDE, 0xb);
    l.write(0, INITIAL, 1000);
    l.write(400, DIVIDE, 0);
    assert_eq!(l.read(400, CURRENT), 600);
    assert_eq!(l.next_deadline(), Some(400 + 1200));
}

#[test]
fn tsc_deadline_timer() {
    let mut l = lapic();
    l.set_tsc_deadline(0, 0, 2_000_000_000, 1000);
    assert_eq!(l.0.tsc_deadline(), 0, "ignored in another mode");
    l.write(0, TIMER, 0x4_0042);
    l.set_tsc_deadline(100, 5000, 2_000_000_000, 7001);
    assert_eq!(l.0.tsc_deadline(), 7001);
    assert_eq!(l.next_deadline(), Some(100 + 1001));
    l.write(100, INITIAL, 55);
    assert_eq!(l.read(100, INITIAL), 0);
    l.advance(1101);
    assert_eq!(l.acknowledge(), Some(0x42));
    assert_eq!(l.0.tsc_deadline(), 0);
    l.write(1101, EOI, 0);
    l.set_tsc_deadline(2000, 9000, 2_000_000_000, 8999);
    assert_eq!(l.pending(), Some(0x42), "a deadline in the past fires at once");
    l.acknowledge();
    l.set_tsc_deadline(2000, 9000, 2_000_000_000, 90_000);
    l.write(2000, TIMER, 0x42);
    assert_eq!((l.next_deadline(), l.0.tsc_deadline()), (None, 0), "leaving the mode disarms");
}

#[test]
fn masked_timer_expires_silently() {
    let mut l = lapic();
    l.write(0, TIMER, LVT_MASKED | 0x2_0040);
    l.write(0, INITIAL, 100);
    assert_eq!(l.next_deadline(), None);
    assert_eq!(l.read(1010, CURRENT), 95);
    assert_eq!(l.pending(), None);
    l.write(1010, TIMER, 0x2_0040);
    assert_eq!((l.pending(), l.next_deadline()), (None, Some(1200)), "it kept counting");
}

#[test]
fn software_disable_masks_every_entry() {
    let mut l = lapic();
    l.write(0, TIMER, 0x40);
    l.write(0, SVR, 0xff);
    assert_eq!(l.read(0, TIMER), LVT_MASKED | 0x40);
    l.write(0, TIMER, 0x41);
    assert_eq!(l.read(0, TIMER), LVT_MASKED | 0x41);
    assert!(!l.receive(fixed(0x50, false)));
    let nmi = Message { delivery: Delivery::Nmi, ..fixed(0, false) };
    assert!(l.receive(nmi));
    assert!(l.1.take().nmi);
    assert!(!l.1.take().nmi);
}

#[test]
fn lint0_passes_the_8259a_through() {
    let mut l = Apic::new(0);
    l.1.set_lint0(true);
    assert!(!l.ext_int_pending(), "masked after reset");
    l.with(|lapic, _| lapic.enter_virtual_wire_mode());
    assert!(l.ext_int_pending());
    l.1.set_lint0(false);
    assert!(!l.ext_int_pending());
    // As a fixed interrupt, once for each rise.
    l.write(0, LINT0, 0x61);
    l.1.set_lint0(true);
    l.1.set_lint0(true);
    assert!(!l.ext_int_pending());
    assert_eq!(l.acknowledge(), Some(0x61));
    l.write(0, EOI, 0);
    assert_eq!(l.pending(), None);
    // Globally disabled, the pin is INTR.
    assert!(l.set_base(DEFAULT_BASE));
    assert!(l.ext_int_pending());
}

#[test]
fn interrupt_command() {
    let mut l = lapic();
    l.write(0, ICR_HIGH, 0x0300_0000);
    let sent = l.write(0, ICR, 0x4077);
    let expected =
        Message { destination: Destination::Physical(3), delivery: Delivery::Fixed, vector: 0x77, level: false };
    assert_eq!(sent, Some(Effect::Send(expected)));
    assert_eq!(l.read(0, ICR), 0x4077);
    let destination = |effect| match effect {
        Some(Effect::Send(message)) => message.destination,
        _ => panic!("nothing was sent"),
    };
    assert_eq!(destination(l.write(0, ICR, 0x4_0077)), Destination::Sender);
    assert_eq!(destination(l.write(0, ICR, 0x8_0077)), Destination::All);
    assert_eq!(destination(l.write(0, ICR, 0xc_4500)), Destination::AllButSender);
    assert_eq!(destination(l.write(0, ICR, 0x0877)), Destination::Logical(3));
    assert_eq!(l.write(0, ICR, 0xc_8500), None, "INIT de-assert");
}

#[test]
fn errors_are_latched_and_reported() {
    let mut l = lapic();
    l.write(0, ERROR, 0xfe);
    assert_eq!(l.write(0, ICR, 0x4005), None);
    assert_eq!(l.acknowledge(), Some(0xfe));
    assert_eq!(l.read(0, ESR), 0);
    l.write(0, ESR, 0);
    assert_eq!(l.read(0, ESR), ESR_SEND_ILLEGAL);
    l.receive(fixed(3, false));
    l.read(0, 0x500);
    l.write(0, ESR, 0);
    assert_eq!(l.read(0, ESR), ESR_RECEIVE_ILLEGAL | ESR_ILLEGAL_REGISTER);
    l.write(0, ESR, 0);
    assert_eq!(l.read(0, ESR), 0);
}

#[test]
fn destinations() {
    let mut l = Apic::new(2);
    assert!(l.1.reception().matches(Destination::Physical(2)) && l.1.reception().matches(Destination::Physical(0xff)));
    assert!(!l.1.reception().matches(Destination::Physical(1)));
    l.write(0, 0xd0, 0x0400_0000);
    assert!(
        l.1.reception().matches(Destination::Logical(0x0c)) && !l.1.reception().matches(Destination::Logical(0x0b))
    );
    l.write(0, 0xe0, 0x0fff_ffff);
    l.write(0, 0xd0, 0x2100_0000);
    assert!(
        l.1.reception().matches(Destination::Logical(0x23)) && !l.1.reception().matches(Destination::Logical(0x11))
    );
    assert!(l.1.reception().matches(Destination::Logical(0xff)));
}

#[test]
fn init_resets_the_registers() {
    let mut l = lapic();
    l.write(0, LINT0, 0x700);
    l.receive(fixed(0x50, false));
    l.1.set_lint0(true);
    assert!(l.receive(Message { delivery: Delivery::Init, ..fixed(0, false) }) && l.1.take().init);
    assert_eq!(l.pending(), Some(0x50), "until the processor takes it");
    l.with(Lapic::clear_registers);
    assert_eq!((l.read(0, SVR), l.read(0, LINT0), l.read(0, 0x220)), (0xff, LVT_MASKED, 0));
    assert!(!l.receive(fixed(0x51, false)));
    l.with(|lapic, _| lapic.enter_virtual_wire_mode());
    assert!(l.ext_int_pending(), "the wire is as it was");
}

#[test]
fn base_register() {
    let mut l = lapic();
    assert!(!l.set_base(0xfee0_0d00), "x2APIC");
    assert!(!l.set_base(1 << 52 | 0xfee0_0900));
    assert!(l.set_base(0x1234_5000 | BASE_ENABLE));
    assert_eq!(l.0.base(), 0x1234_5900);
    assert_eq!(l.0.page_offset(0x1234_50b0), Some(0xb0));
    assert_eq!(l.0.page_offset(DEFAULT_BASE), None);
    assert!(l.set_base(0x1234_5000));
    assert_eq!(l.0.page_offset(0x1234_50b0), None);
    assert!(!l.receive(fixed(0x40, false)));
    assert!(l.set_base(0x1234_5000 | BASE_ENABLE));
    assert_eq!(l.read(0, SVR), 0xff);
}

#[test]
fn state_round_trips() {
    let mut l = lapic();
    l.write(0, TIMER, 0x2_0041);
    l.write(5, INITIAL, 1000);
    l.receive(fixed(0x90, true));
    l.acknowledge();
    l.receive(fixed(0x50, false));
    let bytes = postcard::to_stdvec(&(&l.0, l.1.save())).unwrap();
    let (lapic, mailbox): (Lapic, MailboxData) = postcard::from_bytes(&bytes).unwrap();
    let mut back = Apic(lapic, Mailbox::default());
    back.1.restore(&mailbox);
    assert_eq!((&back.0, back.1.save()), (&l.0, l.1.save()));
    for lapic in [&mut back, &mut l] {
        lapic.advance(77_777);
        assert_eq!(lapic.write(77_778, EOI, 0), Some(Effect::EndOfInterrupt(0x90)));
    }
    assert_eq!((&back.0, back.1.save()), (&l.0, l.1.save()));
}
