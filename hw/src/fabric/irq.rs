//! Interrupt lines: a device drives one end, an interrupt controller's input is the other.
//!
//! Several lines may lead to one input, which is high while any of them is, as on a board whose devices share a line. Who changes
//! a line tells the controller at once, so nobody has to ask devices for their levels.

use std::sync::{Arc, Mutex, MutexGuard};

use super::lock::lock;
use crate::time::TimerLine;

/// An interrupt controller as lines see it.
pub trait IrqSink: Send + Sync {
    /// An input has this level now. It may have had it before.
    fn set_input(&self, input: u32, level: bool);

    /// A high input falls and rises again.
    fn pulse_input(&self, input: u32) {
        self.set_input(input, false);
        self.set_input(input, true);
    }

    /// An input is high for something that asks once, however long it stays high; `new`: something else than before. Most
    /// controllers do not tell the two apart, and see a level.
    fn request_once(&self, input: u32, new: bool) {
        let _ = new;
        self.set_input(input, true);
    }
}

/// An input, and how many lines hold it high.
struct Wire {
    sink: Arc<dyn IrqSink>,
    input: u32,
    // Held while the sink is told, so that it hears of changes in their order.
    high: Mutex<u32>,
}

impl Wire {
    fn high(&self) -> MutexGuard<'_, u32> {
        lock(&self.high)
    }

    fn change(&self, level: bool) {
        let mut high = self.high();
        let was = *high != 0;
        *high = if level { *high + 1 } else { high.saturating_sub(1) };
        let is = *high != 0;
        if is != was {
            self.sink.set_input(self.input, is);
        }
    }

    fn pulse(&self) {
        // While somebody else holds it high there is nothing to be seen of the line's fall.
        if *self.high() == 1 {
            self.sink.pulse_input(self.input);
        }
    }

    fn request_once(&self, rises: bool, new: bool) {
        let mut high = self.high();
        *high += u32::from(rises);
        self.sink.request_once(self.input, new);
    }

    /// Tells the controller again that the input is high, if it is.
    fn announce(&self) {
        if *self.high() != 0 {
            self.sink.set_input(self.input, true);
        }
    }
}

/// A device's end of an interrupt line. One that leads nowhere can be driven all the same.
#[derive(Default)]
pub struct IrqLine {
    wire: Option<Arc<Wire>>,
    level: bool,
    /// It is high for something that asks once.
    once: bool,
}

impl IrqLine {
    /// The level that it drives.
    pub fn level(&self) -> bool {
        self.level
    }

    /// Drives a level.
    pub fn set(&mut self, level: bool) {
        let (changes, once) = (level != self.level, std::mem::take(&mut self.once));
        self.level = level;
        match &self.wire {
            Some(wire) if changes => wire.change(level),
            // What asked once is a level from now on.
            Some(wire) if once => wire.announce(),
            _ => {}
        }
    }

    /// Drives it low and high again, for a controller that looks at edges.
    pub fn pulse(&mut self) {
        if !self.level {
            self.set(true);
        } else if let Some(wire) = &self.wire {
            wire.pulse();
        }
    }

    /// Drives it high for something that asks once: see [`IrqSink::request_once`].
    pub fn request_once(&mut self, new: bool) {
        let known = self.level && self.once && !new;
        if let Some(wire) = self.wire.as_ref().filter(|_| !known) {
            wire.request_once(!self.level, new);
        }
        (self.level, self.once) = (true, true);
    }

    /// Follows a timer's output.
    pub(crate) fn follow(&mut self, timer: TimerLine) {
        if timer.rose {
            self.pulse();
        }
        self.set(timer.level);
    }
}

impl Drop for IrqLine {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl std::fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let input = self.wire.as_ref().map(|wire| wire.input);
        f.debug_struct("IrqLine").field("input", &input).field("level", &self.level).finish()
    }
}

/// The inputs of an interrupt controller, from which a board wires its devices. Clones are the same inputs.
#[derive(Clone)]
pub struct IrqInputs {
    wires: Vec<Arc<Wire>>,
}

impl IrqInputs {
    /// The inputs below `count` of `sink`.
    pub fn new(sink: &Arc<dyn IrqSink>, count: u32) -> IrqInputs {
        let wire = |input| Arc::new(Wire { sink: sink.clone(), input, high: Mutex::new(0) });
        IrqInputs { wires: (0..count).map(wire).collect() }
    }

    /// A line to `input`; one that leads nowhere if there is no such input.
    pub fn line(&self, input: u32) -> IrqLine {
        IrqLine { wire: self.wires.get(input as usize).cloned(), level: false, once: false }
    }

    /// Tells the controller, which has forgotten them in a reset, which inputs are high.
    pub fn announce(&self) {
        self.wires.iter().for_each(|wire| wire.announce());
    }
}

impl std::fmt::Debug for IrqInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IrqInputs").field("count", &self.wires.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what it is told.
    #[derive(Default)]
    struct Notes(Mutex<Vec<(u32, bool)>>);

    impl IrqSink for Notes {
        fn set_input(&self, input: u32, level: bool) {
            self.0.lock().unwrap().push((input, level));
        }
    }

    impl Notes {
        fn take(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    fn inputs() -> (Arc<Notes>, IrqInputs) {
        let notes = Arc::new(Notes::default());
        let sink: Arc<dyn IrqSink> = notes.clone();
        (notes, IrqInputs::new(&sink, 16))
    }

    #[test]
    fn a_shared_input_is_high_while_any_line_is() {
        let (notes, inputs) = inputs();
        let [mut a, mut b] = [inputs.line(5), inputs.line(5)];
        a.set(true);
        a.set(true);
        b.set(true);
        assert_eq!(notes.take(), [(5, true)]);
        a.set(false);
        assert_eq!((notes.take(), a.level(), b.level()), (vec![], false, true));
        b.set(false);
        b.set(false);
        assert_eq!(notes.take(), [(5, false)]);
    }

    #[test]
    fn edges_are_seen_unless_somebody_holds_the_input() {
        let (notes, inputs) = inputs();
        let [mut a, mut b] = [inputs.line(0), inputs.line(0)];
        a.pulse();
        assert_eq!(notes.take(), [(0, true)]);
        a.pulse();
        assert_eq!(notes.take(), [(0, false), (0, true)]);
        b.set(true);
        a.pulse();
        assert_eq!((notes.take(), a.level()), (vec![], true));
        b.set(false);
        a.follow(TimerLine { rose: true, level: false });
        assert_eq!(notes.take(), [(0, false), (0, true), (0, false)]);
    }

    #[test]
    fn what_asks_once_is_a_level_for_most_controllers() {
        let (notes, inputs) = inputs();
        let mut a = inputs.line(3);
        a.request_once(true);
        a.request_once(false);
        assert_eq!(notes.take(), [(3, true)]);
        a.set(true);
        a.set(true);
        assert_eq!(notes.take(), [(3, true)], "told that it is a level");
        a.set(false);
        assert_eq!(notes.take(), [(3, false)]);
    }

    #[test]
    fn a_controller_that_was_reset_hears_what_is_high() {
        let (notes, inputs) = inputs();
        let [mut a, mut b] = [inputs.line(1), inputs.line(2)];
        a.set(true);
        b.set(true);
        b.set(false);
        notes.take();
        inputs.announce();
        assert_eq!(notes.take(), [(1, true)]);
        drop(a);
        assert_eq!(notes.take(), [(1, false)], "nobody is left to drive it");
    }

    #[test]
    fn a_line_to_nowhere_can_be_driven() {
        let (notes, inputs) = inputs();
        let mut line = inputs.line(16);
        line.pulse();
        line.request_once(true);
        line.set(false);
        assert!(notes.take().is_empty());
    }
}
