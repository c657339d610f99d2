//! The platform-level interrupt controller (RISC-V Platform-Level Interrupt Controller Specification 1.0.0).
//!
//! Its sources are levels here, as those of all devices of the board are. The gateway of a source forwards one request at a
//! time: after a claim the next one waits for the completion. A level may be one that is requested once, like an edge: the
//! gateway of QEMU's board passes on that a device raises its line, and not that it is still high.

use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::fabric::{Drives, IrqLine, IrqSink, Wired, lock};

/// Interrupt sources, number 0 included, which means "none".
pub(crate) const SOURCES: usize = 96;
/// Size in bytes of its registers.
pub(crate) const SIZE: u64 = 0x60_0000;

/// Words of 32 sources.
const WORDS: usize = SOURCES.div_ceil(32);
/// Bits of a priority or threshold that are implemented.
const PRIORITY_MASK: u32 = 7;

// Section 4, "Memory Map".
pub(crate) const PENDING: u64 = 0x1000;
pub(crate) const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
pub(crate) const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;

type Set = [u32; WORDS];

fn has(set: &Set, source: usize) -> bool {
    set.get(source / 32).is_some_and(|word| word >> (source % 32) & 1 != 0)
}

fn put(set: &mut Set, source: usize, level: bool) {
    if let Some(word) = set.get_mut(source / 32) {
        let bit = 1 << (source % 32);
        *word = if level { *word | bit } else { *word & !bit };
    }
}

/// One target of interrupts: a hart in one of its modes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Context {
    enabled: Set,
    threshold: u32,
}

/// A PLIC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plic {
    priorities: Vec<u32>,
    /// The sources' levels.
    lines: Set,
    pending: Set,
    /// Claimed and not completed.
    claimed: Set,
    /// Lines whose level is requested once.
    once: Set,
    /// Of these, what was requested again since the claim.
    again: Set,
    contexts: Vec<Context>,
}

/// A register.
enum Register {
    Priority(usize),
    Pending(usize),
    Enable(usize, usize),
    Threshold(usize),
    Claim(usize),
    Nothing,
}

fn register(offset: u64) -> Register {
    let word = |at: u64| (at / 4) as usize;
    match offset & !3 {
        at if at < PENDING => Register::Priority(word(at)),
        at if at < ENABLE => Register::Pending(word(at - PENDING)),
        at if at < CONTEXT => {
            let at = at - ENABLE;
            Register::Enable((at / ENABLE_STRIDE) as usize, word(at % ENABLE_STRIDE))
        }
        at => {
            let context = ((at - CONTEXT) / CONTEXT_STRIDE) as usize;
            match (at - CONTEXT) % CONTEXT_STRIDE {
                0 => Register::Threshold(context),
                4 => Register::Claim(context),
                _ => Register::Nothing,
            }
        }
    }
}

impl Plic {
    pub(crate) fn new(contexts: usize) -> Self {
        Plic {
            priorities: vec![0; SOURCES],
            lines: [0; WORDS],
            pending: [0; WORDS],
            claimed: [0; WORDS],
            once: [0; WORDS],
            again: [0; WORDS],
            contexts: vec![Context::default(); contexts],
        }
    }

    /// Whether a restored state has the shape of one for `contexts` contexts.
    pub(crate) fn is_well_formed(&self, contexts: usize) -> bool {
        self.priorities.len() == SOURCES && self.contexts.len() == contexts
    }

    /// Drives the line of a source.
    pub(crate) fn set_line(&mut self, source: usize, level: bool) {
        if source == 0 || source >= SOURCES {
            return;
        }
        put(&mut self.lines, source, level);
        put(&mut self.once, source, false);
        put(&mut self.again, source, false);
        // A level that falls before it was claimed takes its request along.
        put(&mut self.pending, source, level && !has(&self.claimed, source));
    }

    /// Drives the line of a source high, for something that is requested once; `new`: it is something else than before.
    pub(crate) fn request_once(&mut self, source: usize, new: bool) {
        if source == 0 || source >= SOURCES {
            return;
        }
        let new = new || !has(&self.lines, source);
        put(&mut self.lines, source, true);
        put(&mut self.once, source, true);
        if new {
            let claimed = has(&self.claimed, source);
            put(if claimed { &mut self.again } else { &mut self.pending }, source, true);
        }
    }

    /// Whether the interrupt line to a context is raised: something enabled is pending above its threshold.
    pub(crate) fn output(&self, context: usize) -> bool {
        self.contexts
            .get(context)
            .and_then(|context| Some((self.best(context)?, context.threshold)))
            .is_some_and(|((_, priority), threshold)| priority > threshold)
    }

    /// The pending and enabled source of the highest priority, the lowest number among equals, and its priority.
    fn best(&self, context: &Context) -> Option<(usize, u32)> {
        let mut best: Option<(usize, u32)> = None;
        for (index, (pending, enabled)) in self.pending.iter().zip(&context.enabled).enumerate() {
            let mut ready = pending & enabled;
            while ready != 0 {
                let source = 32 * index + ready.trailing_zeros() as usize;
                ready &= ready - 1;
                let priority = self.priorities.get(source).copied().unwrap_or(0);
                // Priority 0 means "never interrupt".
                if priority > best.map_or(0, |(_, priority)| priority) {
                    best = Some((source, priority));
                }
            }
        }
        best
    }

    fn claim(&mut self, context: usize) -> u32 {
        let Some((source, _)) = self.contexts.get(context).and_then(|context| self.best(context)) else { return 0 };
        put(&mut self.pending, source, false);
        put(&mut self.claimed, source, true);
        source as u32
    }

    /// Completion of a source that is not enabled for the context is ignored (section 9).
    fn complete(&mut self, context: usize, source: usize) {
        let enabled = self.contexts.get(context).is_some_and(|context| has(&context.enabled, source));
        if enabled && has(&self.claimed, source) {
            put(&mut self.claimed, source, false);
            let asks = if has(&self.once, source) { has(&self.again, source) } else { has(&self.lines, source) };
            put(&mut self.again, source, false);
            put(&mut self.pending, source, asks);
        }
    }

    /// Reads the 32-bit register at `offset`; a claim has its effect.
    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        match register(offset) {
            Register::Priority(source) => self.priorities.get(source).copied().unwrap_or(0),
            Register::Pending(word) => self.pending.get(word).copied().unwrap_or(0),
            Register::Enable(context, word) => {
                self.contexts.get(context).and_then(|context| context.enabled.get(word)).copied().unwrap_or(0)
            }
            Register::Threshold(context) => self.contexts.get(context).map_or(0, |context| context.threshold),
            Register::Claim(context) => self.claim(context),
            Register::Nothing => 0,
        }
    }

    /// Writes the 32-bit register at `offset`.
    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        match register(offset) {
            // Source 0 does not exist.
            Register::Priority(source) if source != 0 => {
                if let Some(priority) = self.priorities.get_mut(source) {
                    *priority = value & PRIORITY_MASK;
                }
            }
            Register::Enable(context, word) => {
                let enabled = self.contexts.get_mut(context).and_then(|context| context.enabled.get_mut(word));
                if let Some(enabled) = enabled {
                    *enabled = if word == 0 { value & !1 } else { value };
                }
            }
            Register::Threshold(context) => {
                if let Some(context) = self.contexts.get_mut(context) {
                    context.threshold = value & PRIORITY_MASK;
                }
            }
            Register::Claim(context) => self.complete(context, value as usize),
            Register::Priority(_) | Register::Pending(_) | Register::Nothing => {}
        }
    }
}

impl Drives for Plic {
    /// The line of each context.
    type Handles = Vec<IrqLine>;

    fn drive(&mut self, outputs: &mut Vec<IrqLine>) {
        for (context, line) in outputs.iter_mut().enumerate() {
            line.set(self.output(context));
        }
    }
}

/// A PLIC under a lock of its own, so that devices drive its sources without the board's.
pub(crate) struct SharedPlic(Mutex<Wired<Plic>>);

impl SharedPlic {
    /// A PLIC with a context for each of these lines.
    pub(crate) fn new(outputs: Vec<IrqLine>) -> SharedPlic {
        SharedPlic(Mutex::new(Wired::new(Plic::new(outputs.len()), outputs)))
    }

    fn lock(&self) -> MutexGuard<'_, Wired<Plic>> {
        lock(&self.0)
    }

    /// Does something with it, then drives its outputs.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Plic) -> T) -> T {
        self.lock().with(f)
    }

    /// The state, to be saved.
    pub(crate) fn save(&self) -> Plic {
        self.lock().state().clone()
    }

    /// Replaces its state.
    pub(crate) fn restore(&self, plic: Plic) {
        self.lock().restore(plic);
    }
}

impl IrqSink for SharedPlic {
    fn set_input(&self, input: u32, level: bool) {
        self.with(|plic| plic.set_line(input as usize, level));
    }

    fn request_once(&self, input: u32, new: bool) {
        self.with(|plic| plic.request_once(input as usize, new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enable(p: &mut Plic, context: u64, source: u64, priority: u32) {
        p.write(4 * source, priority);
        let at = ENABLE + ENABLE_STRIDE * context + source / 32 * 4;
        let old = p.read(at);
        p.write(at, old | 1 << (source % 32));
    }

    fn claim(p: &mut Plic, context: u64) -> u32 {
        p.read(CONTEXT + CONTEXT_STRIDE * context + 4)
    }

    fn complete(p: &mut Plic, context: u64, source: u32) {
        p.write(CONTEXT + CONTEXT_STRIDE * context + 4, source);
    }

    #[test]
    fn a_level_is_claimed_once_and_comes_again_when_it_stays() {
        let mut p = Plic::new(2);
        enable(&mut p, 1, 10, 1);
        p.set_line(10, true);
        assert!(p.output(1) && !p.output(0));
        assert_eq!(p.read(PENDING), 1 << 10);
        assert_eq!(claim(&mut p, 1), 10);
        assert!(!p.output(1) && p.read(PENDING) == 0);
        assert_eq!(claim(&mut p, 1), 0, "nothing else");
        complete(&mut p, 1, 10);
        assert!(p.output(1), "the line is still high");
        assert_eq!(claim(&mut p, 1), 10);
        p.set_line(10, false);
        complete(&mut p, 1, 10);
        assert!(!p.output(1));
        p.set_line(10, true);
        p.set_line(10, false);
        assert_eq!(claim(&mut p, 1), 0, "the level fell before the claim");
    }

    #[test]
    fn what_is_requested_once_does_not_come_again_by_itself() {
        let mut p = Plic::new(1);
        enable(&mut p, 0, 10, 1);
        p.request_once(10, true);
        assert_eq!(claim(&mut p, 0), 10);
        p.request_once(10, false);
        complete(&mut p, 0, 10);
        assert!(!p.output(0), "nothing new");
        p.request_once(10, true);
        assert_eq!(claim(&mut p, 0), 10);
        p.request_once(10, true);
        assert!(!p.output(0), "claimed");
        complete(&mut p, 0, 10);
        assert_eq!(claim(&mut p, 0), 10, "and again");
        // What it was gives way to a level, which stays.
        p.set_line(10, true);
        complete(&mut p, 0, 10);
        assert_eq!(claim(&mut p, 0), 10);
        p.request_once(10, false);
        complete(&mut p, 0, 10);
        assert!(!p.output(0));
        p.set_line(10, false);
        p.request_once(10, false);
        assert!(p.output(0), "the line was low");
        p.set_line(10, false);
        assert!(!p.output(0));
        p.request_once(0, true);
        p.request_once(usize::MAX, true);
    }

    #[test]
    fn priorities_thresholds_and_ties() {
        let mut p = Plic::new(1);
        for (source, priority) in [(3, 2), (40, 5), (41, 5), (7, 0)] {
            enable(&mut p, 0, source, priority);
            p.set_line(source as usize, true);
        }
        p.write(CONTEXT, 5);
        assert!(!p.output(0), "not above the threshold");
        p.write(CONTEXT, 4);
        assert!(p.output(0));
        assert_eq!([claim(&mut p, 0), claim(&mut p, 0)], [40, 41]);
        assert!(!p.output(0));
        assert_eq!(claim(&mut p, 0), 3, "a claim does not look at the threshold");
        assert_eq!(claim(&mut p, 0), 0, "priority 0 never interrupts");
    }

    #[test]
    fn completion_needs_the_source_enabled() {
        let mut p = Plic::new(2);
        enable(&mut p, 0, 5, 1);
        p.set_line(5, true);
        assert_eq!(claim(&mut p, 0), 5);
        complete(&mut p, 1, 5);
        complete(&mut p, 0, 6);
        complete(&mut p, 0, u32::MAX);
        assert!(!p.output(0));
        complete(&mut p, 0, 5);
        assert!(p.output(0));
    }

    #[test]
    fn registers_keep_what_is_implemented() {
        let mut p = Plic::new(2);
        p.write(4, 0xff);
        p.write(0, 7);
        p.write(4 * SOURCES as u64, 7);
        assert_eq!([p.read(4), p.read(0), p.read(4 * SOURCES as u64)], [7, 0, 0]);
        p.write(ENABLE, u32::MAX);
        p.write(ENABLE + ENABLE_STRIDE + 8, u32::MAX);
        p.write(ENABLE + 12, u32::MAX);
        p.write(ENABLE + 2 * ENABLE_STRIDE, u32::MAX);
        assert_eq!([p.read(ENABLE), p.read(ENABLE + ENABLE_STRIDE + 8)], [u32::MAX - 1, u32::MAX]);
        assert_eq!([p.read(ENABLE + 12), p.read(ENABLE + 2 * ENABLE_STRIDE)], [0, 0]);
        p.write(PENDING, u32::MAX);
        assert_eq!(p.read(PENDING), 0);
        p.set_line(0, true);
        p.set_line(SOURCES, true);
        p.set_line(usize::MAX, true);
        for offset in (0..SIZE).step_by(0x7fc) {
            p.write(offset, u32::MAX);
            p.read(offset);
        }
    }

    #[test]
    fn state_round_trips() {
        let mut p = Plic::new(2);
        enable(&mut p, 1, 8, 3);
        enable(&mut p, 1, 9, 4);
        p.set_line(8, true);
        p.set_line(9, true);
        claim(&mut p, 1);
        let mut back: Plic = postcard::from_bytes(&postcard::to_stdvec(&p).unwrap()).unwrap();
        assert_eq!(back, p);
        assert!(back.is_well_formed(2) && !back.is_well_formed(4));
        complete(&mut back, 1, 9);
        assert_eq!(claim(&mut back, 1), 9);
    }
}
