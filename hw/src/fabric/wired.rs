//! A device's state machine together with the handles that it owns; boards hold devices in this form.

/// A state machine that drives handles.
pub(crate) trait Drives {
    /// What it is wired to.
    type Handles;

    /// Brings the handles up to date with the state. Called after each access; a state that has not changed changes nothing.
    fn drive(&mut self, handles: &mut Self::Handles);
}

/// A device: its state, and what it is wired to. The state is what is saved.
pub(crate) struct Wired<D: Drives> {
    device: D,
    handles: D::Handles,
}

impl<D: Drives> Wired<D> {
    /// Wires `device`, and drives what it is wired to.
    pub(crate) fn new(device: D, handles: D::Handles) -> Wired<D> {
        let mut wired = Wired { device, handles };
        wired.device.drive(&mut wired.handles);
        wired
    }

    /// The state.
    pub(crate) fn state(&self) -> &D {
        &self.device
    }

    /// Does something with the device, then settles what it drives.
    pub(crate) fn with<T>(&mut self, f: impl FnOnce(&mut D) -> T) -> T {
        let result = f(&mut self.device);
        self.device.drive(&mut self.handles);
        result
    }

    /// Replaces the state. What the device drives follows, so controllers of interrupts are to be restored after it.
    pub(crate) fn restore(&mut self, device: D) {
        self.with(|state| *state = device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often it was driven.
    struct Counter(u32);

    impl Drives for Counter {
        type Handles = Vec<u32>;

        fn drive(&mut self, handles: &mut Vec<u32>) {
            handles.push(self.0);
        }
    }

    #[test]
    fn handles_follow_each_access() {
        let mut wired = Wired::new(Counter(1), Vec::new());
        assert_eq!(wired.with(|counter| std::mem::replace(&mut counter.0, 2)), 1);
        wired.restore(Counter(7));
        assert_eq!((wired.state().0, &wired.handles[..]), (7, &[1, 2, 7][..]));
    }
}
