//! A processor's mailbox: what others have for it, in atomic words.
//!
//! I/O APIC, PCI functions, other local APICs, the chipset's lines and monitors post, each from its own thread and without a lock,
//! and wake the processor, which takes from it in its dispatcher. Interrupt requests stay where they were posted: IRR and TMR of
//! the local APIC are here, as in the descriptors of posted interrupts (SDM vol. 3C, 29.6). So that senders need not look into the
//! local APIC, it publishes what its registers say to them: its [`Reception`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Delivery, Destination, LVT_MASKED, Message, highest};

/// What waits, in bits of one word: above the vector of a start-up IPI.
const START_UP: u32 = 1 << 8;
const NMI: u32 = 1 << 9;
const INIT: u32 = 1 << 10;
/// An ExtINT message came that no acknowledge has answered.
const EXT_INT: u32 = 1 << 11;
/// LINT0 is high.
const LINT0: u32 = 1 << 12;
/// A message with an illegal vector came.
const ILLEGAL: u32 = 1 << 13;
/// The processor was woken, and has not looked since: it need not be woken again.
const NOTIFIED: u32 = 1 << 14;

const VECTOR: u32 = 0xff;
/// What the processor takes when it looks.
const TAKEN: u32 = VECTOR | START_UP | NMI | INIT | NOTIFIED;
const SAVED: u32 = VECTOR | START_UP | NMI | INIT | EXT_INT | LINT0 | ILLEGAL;

/// Gets the attention of a processor.
type Wake = Box<dyn Fn() + Send + Sync>;

/// What a local APIC's registers say to those who send to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reception {
    /// The global enable of IA32_APIC_BASE, and the software enable.
    pub(crate) enabled: bool,
    pub(crate) software_enabled: bool,
    pub(crate) id: u8,
    /// LDR's and DFR's upper bits: the logical name, and 0xf for the flat model.
    pub(crate) logical: u8,
    pub(crate) model: u8,
    /// PPR, by which messages with lowest priority choose.
    pub(crate) priority: u8,
    /// The local vector table's entries of LINT0 and LINT1.
    pub(crate) lint: [u32; 2],
}

impl Reception {
    fn encode(self) -> [u64; 2] {
        let bytes =
            [self.id, self.logical, self.model, self.priority, self.enabled.into(), self.software_enabled.into(), 0, 0];
        let [lint0, lint1] = self.lint.map(u64::from);
        [u64::from_le_bytes(bytes), lint0 | lint1 << 32]
    }

    fn decode([bytes, lints]: [u64; 2]) -> Reception {
        let [id, logical, model, priority, enabled, software_enabled, ..] = bytes.to_le_bytes();
        Reception {
            enabled: enabled != 0,
            software_enabled: software_enabled != 0,
            id,
            logical,
            model,
            priority,
            lint: [lints as u32, (lints >> 32) as u32],
        }
    }

    /// Whether a message with this destination, sent by another agent, is for this APIC (SDM vol. 3A, 10.6.2).
    pub(crate) fn matches(&self, destination: Destination) -> bool {
        match destination {
            Destination::Physical(id) => id == 0xff || id == self.id,
            Destination::Logical(0xff) => true,
            Destination::Logical(mda) if self.model == 0xf => mda & self.logical != 0,
            Destination::Logical(mda) => mda >> 4 == self.logical >> 4 && mda & self.logical & 0x0f != 0,
            Destination::All => true,
            Destination::Sender | Destination::AllButSender => false,
        }
    }
}

/// A bit for each vector.
#[derive(Debug, Default)]
struct Vectors([AtomicU32; 8]);

impl Vectors {
    fn set(&self, vector: u8, value: bool) {
        let (word, bit) = (&self.0[usize::from(vector >> 5)], 1 << (vector & 31));
        match value {
            true => word.fetch_or(bit, Ordering::AcqRel),
            false => word.fetch_and(!bit, Ordering::AcqRel),
        };
    }

    fn words(&self) -> [u32; 8] {
        self.0.each_ref().map(|word| word.load(Ordering::Acquire))
    }

    fn replace(&self, words: [u32; 8]) {
        self.0.iter().zip(words).for_each(|(word, value)| word.store(value, Ordering::Release));
    }
}

/// What a processor takes from its mailbox, beside interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// An INIT came, before the others here; the local APIC is reset.
    pub init: bool,
    /// An NMI came.
    pub nmi: bool,
    /// A start-up IPI came, with this vector: a processor that waits for one starts at vector << 12.
    pub start_up: Option<u8>,
}

/// What is in a mailbox, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MailboxData {
    irr: [u32; 8],
    tmr: [u32; 8],
    signals: u32,
}

/// One processor's mailbox.
#[derive(Default)]
pub(crate) struct Mailbox {
    irr: Vectors,
    /// Which of them are level-triggered.
    tmr: Vectors,
    signals: AtomicU32,
    reception: [AtomicU64; 2],
    /// How to get the processor's attention, where somebody listens.
    wake: OnceLock<Wake>,
}

impl Mailbox {
    /// Says how to get the processor's attention, which is had at once if something waits. Later calls change nothing.
    pub(crate) fn connect(&self, wake: impl Fn() + Send + Sync + 'static) {
        // Only the first one counts.
        let _ = self.wake.set(Box::new(wake));
        if self.irr().iter().any(|&word| word != 0) || self.signals.load(Ordering::Acquire) != 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Gets the processor's attention, if nobody has since it last looked. What it is to see must be posted.
    pub(crate) fn notify(&self) {
        if self.signals.fetch_or(NOTIFIED, Ordering::AcqRel) & NOTIFIED == 0 {
            self.wake();
        }
    }

    fn signal(&self, bit: u32) {
        self.signals.fetch_or(bit, Ordering::AcqRel);
        self.notify();
    }

    /// Publishes what the local APIC's registers say to senders.
    pub(crate) fn publish(&self, reception: Reception) {
        for (word, value) in self.reception.iter().zip(reception.encode()) {
            if word.load(Ordering::Relaxed) != value {
                word.store(value, Ordering::Release);
            }
        }
    }

    /// What the local APIC's registers say to senders.
    pub(crate) fn reception(&self) -> Reception {
        Reception::decode(self.reception.each_ref().map(|word| word.load(Ordering::Acquire)))
    }

    /// Posts a message; false when the local APIC can not take it now.
    pub(crate) fn post(&self, message: Message) -> bool {
        let reception = self.reception();
        if !reception.enabled {
            return false;
        }
        match message.delivery {
            Delivery::Fixed | Delivery::LowestPriority if !reception.software_enabled => return false,
            Delivery::Fixed | Delivery::LowestPriority => self.post_vector(message.vector, message.level),
            Delivery::Nmi => self.signal(NMI),
            Delivery::ExtInt => self.signal(EXT_INT),
            Delivery::Init => {
                // A start-up IPI from before is for a processor that there is no more.
                self.change(|old| old & !(START_UP | VECTOR) | INIT);
                self.notify();
            }
            Delivery::StartUp => {
                // A second one finds the processor running.
                self.change(|old| if old & START_UP == 0 { old | START_UP | u32::from(message.vector) } else { old });
                self.notify();
            }
            Delivery::Smi => tracing::warn!(cpu = reception.id, "SMI ignored: there is no system management mode"),
        }
        true
    }

    fn change(&self, f: impl Fn(u32) -> u32) {
        let changed = self.signals.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(f(old)));
        debug_assert!(changed.is_ok(), "every value has a successor");
    }

    fn post_vector(&self, vector: u8, level: bool) {
        if vector < 16 {
            return self.signal(ILLEGAL);
        }
        self.request(vector, level);
        self.notify();
    }

    /// Requests an interrupt, on behalf of the local APIC itself.
    pub(crate) fn request(&self, vector: u8, level: bool) {
        // Before its request, whose end looks at it.
        self.tmr.set(vector, level);
        self.irr.set(vector, true);
    }

    /// Drives LINT0, which carries the 8259A's INTR. A level-triggered fixed entry is taken as an edge.
    pub(crate) fn set_lint0(&self, level: bool) {
        if !level {
            self.signals.fetch_and(!(LINT0 | EXT_INT), Ordering::AcqRel);
        } else if self.signals.fetch_or(LINT0, Ordering::AcqRel) & LINT0 == 0 {
            let Reception { enabled, lint: [lvt, _], .. } = self.reception();
            match Delivery::from_bits(lvt >> 8) {
                // It is the processor's INTR, and looked at, not latched.
                _ if !enabled => self.notify(),
                Some(Delivery::ExtInt) if lvt & LVT_MASKED == 0 => self.notify(),
                delivery => self.raise_lint(lvt, delivery),
            }
        }
    }

    /// Raises LINT1, which carries the chipset's NMI. An edge: nothing of it is left afterwards.
    pub(crate) fn raise_lint1(&self) {
        let Reception { enabled, lint: [_, lvt], .. } = self.reception();
        match enabled {
            true => self.raise_lint(lvt, Delivery::from_bits(lvt >> 8)),
            false => self.signal(NMI),
        }
    }

    fn raise_lint(&self, lvt: u32, delivery: Option<Delivery>) {
        match delivery.filter(|_| lvt & LVT_MASKED == 0) {
            Some(Delivery::Fixed) => self.post_vector(lvt as u8, false),
            Some(Delivery::Nmi) => self.signal(NMI),
            _ => {}
        }
    }

    /// Takes what is there beside interrupts: the processor looks, and is woken again for what comes afterwards.
    pub(crate) fn take(&self) -> Signals {
        if self.signals.load(Ordering::Acquire) & TAKEN == 0 {
            return Signals::default();
        }
        let taken = self.signals.fetch_and(!TAKEN, Ordering::AcqRel);
        Signals {
            init: taken & INIT != 0,
            nmi: taken & NMI != 0,
            start_up: (taken & START_UP != 0).then_some((taken & VECTOR) as u8),
        }
    }

    /// Whether messages with illegal vectors have come that nobody has taken note of.
    pub(crate) fn has_illegal(&self) -> bool {
        self.signals.load(Ordering::Acquire) & ILLEGAL != 0
    }

    /// Takes note of them.
    pub(crate) fn take_illegal(&self) -> bool {
        self.has_illegal() && self.signals.fetch_and(!ILLEGAL, Ordering::AcqRel) & ILLEGAL != 0
    }

    /// Whether LINT0 is high, and whether an ExtINT message waits.
    pub(crate) fn lint0_and_ext_int(&self) -> (bool, bool) {
        let signals = self.signals.load(Ordering::Acquire);
        (signals & LINT0 != 0, signals & EXT_INT != 0)
    }

    /// Answers an ExtINT message.
    pub(crate) fn clear_ext_int(&self) {
        self.signals.fetch_and(!EXT_INT, Ordering::AcqRel);
    }

    /// The interrupt request registers.
    pub(crate) fn irr(&self) -> [u32; 8] {
        self.irr.words()
    }

    /// The trigger mode registers.
    pub(crate) fn tmr(&self) -> [u32; 8] {
        self.tmr.words()
    }

    /// The highest vector that is requested.
    pub(crate) fn highest(&self) -> Option<u8> {
        highest(&self.irr())
    }

    /// The request of `vector` goes into service.
    pub(crate) fn clear(&self, vector: u8) {
        self.irr.set(vector, false);
    }

    /// Forgets all requests, as the local APIC does when it is reset.
    pub(crate) fn clear_requests(&self) {
        self.irr.replace([0; 8]);
        self.tmr.replace([0; 8]);
        self.clear_ext_int();
    }

    /// As at power-on: forgets everything.
    pub(crate) fn reset(&self) {
        self.clear_requests();
        self.signals.store(0, Ordering::Release);
    }

    /// What is in it.
    pub(crate) fn save(&self) -> MailboxData {
        let signals = self.signals.load(Ordering::Acquire) & SAVED;
        MailboxData { irr: self.irr(), tmr: self.tmr(), signals }
    }

    /// Replaces what is in it, and has the processor look.
    pub(crate) fn restore(&self, data: &MailboxData) {
        self.tmr.replace(data.tmr);
        self.irr.replace(data.irr);
        self.signals.store(data.signals & SAVED, Ordering::Release);
        self.notify();
    }
}

#[cfg(test)]
mod tests;
