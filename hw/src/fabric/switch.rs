//! A switch between two interrupt lines: the event timer takes the places of timer and clock by it.

use std::sync::{Arc, Mutex, MutexGuard};

use super::lock::lock;

use super::{IrqInputs, IrqLine, IrqSink};

struct State {
    output: IrqLine,
    levels: [bool; 2],
    selected: usize,
}

/// Drives a line as the selected one of two others is driven.
pub(crate) struct IrqSwitch(Mutex<State>);

impl IrqSwitch {
    /// A switch in front of `output`, with the first of its inputs selected; and its inputs.
    pub(crate) fn new(output: IrqLine) -> (Arc<IrqSwitch>, [IrqLine; 2]) {
        let switch = Arc::new(IrqSwitch(Mutex::new(State { output, levels: [false; 2], selected: 0 })));
        let sink: Arc<dyn IrqSink> = switch.clone();
        let inputs = IrqInputs::new(&sink, 2);
        (switch, [inputs.line(0), inputs.line(1)])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Selects the second input, or the first.
    pub(crate) fn select(&self, second: bool) {
        let state = &mut *self.lock();
        state.selected = usize::from(second);
        state.output.set(state.levels[state.selected]);
    }
}

impl IrqSink for IrqSwitch {
    fn set_input(&self, input: u32, level: bool) {
        let state = &mut *self.lock();
        if let Some(place) = state.levels.get_mut(input as usize) {
            *place = level;
        }
        if state.selected == input as usize {
            state.output.set(level);
        }
    }

    fn pulse_input(&self, input: u32) {
        let state = &mut *self.lock();
        if state.selected == input as usize {
            state.output.pulse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Notes(Mutex<Vec<bool>>);

    impl IrqSink for Notes {
        fn set_input(&self, _: u32, level: bool) {
            self.0.lock().unwrap().push(level);
        }
    }

    #[test]
    fn only_the_selected_line_is_heard() {
        let notes = Arc::new(Notes::default());
        let sink: Arc<dyn IrqSink> = notes.clone();
        let (switch, [mut a, mut b]) = IrqSwitch::new(IrqInputs::new(&sink, 1).line(0));
        let take = || std::mem::take(&mut *notes.0.lock().unwrap());
        b.set(true);
        assert!(take().is_empty());
        switch.select(true);
        assert_eq!(take(), [true]);
        a.pulse();
        assert!(take().is_empty());
        b.pulse();
        assert_eq!(take(), [false, true]);
        switch.select(false);
        assert!(take().is_empty(), "the first is high, too");
        a.set(false);
        assert_eq!(take(), [false]);
    }
}
