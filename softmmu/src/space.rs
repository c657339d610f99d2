//! The address spaces of which the TLB keeps entries.

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Space {
    /// What the guest calls it; [`NONE`] when it is free.
    asid: u64,
    /// See [`Spaces::generation`].
    generation: u64,
    /// When it was last entered.
    entered: u64,
}

/// The name that no address space has.
const NONE: u64 = u64::MAX;

/// The address spaces used last, by the guest's number for them (a PCID, an ASID).
#[derive(Debug)]
pub(crate) struct Spaces {
    spaces: [Space; Spaces::COUNT],
    current: usize,
    /// Counts both generations and entries.
    clock: u64,
}

impl Default for Spaces {
    fn default() -> Self {
        let mut spaces = [Space { asid: NONE, generation: 0, entered: 0 }; Spaces::COUNT];
        spaces[0] = Space { asid: 0, generation: 1, entered: 1 };
        Spaces { spaces, current: 0, clock: 1 }
    }
}

impl Spaces {
    /// How many are kept. Linux uses six numbers at a time.
    pub const COUNT: usize = 8;

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Enters `asid`: its place, and whether its non-global translations are those of before. Otherwise, because `keep` is
    /// false or it was not among those kept, they are to be flushed.
    pub fn enter(&mut self, asid: u64, keep: bool) -> (usize, bool) {
        let now = self.tick();
        let found = self.spaces.iter().position(|space| space.asid == asid);
        let kept = found.is_some() && keep;
        let age = |space: &Space| if space.asid == NONE { 0 } else { space.entered };
        let oldest = (0..Spaces::COUNT).min_by_key(|&place| age(&self.spaces[place]));
        let place = found.or(oldest).unwrap_or(0);
        let space = &mut self.spaces[place];
        space.asid = asid;
        space.entered = now;
        if !kept {
            space.generation = now;
        }
        self.current = place;
        (place, kept)
    }

    /// Forgets the non-global translations of `asid`; whether it is the current one, whose are to be flushed.
    pub fn forget(&mut self, asid: u64) -> bool {
        let now = self.tick();
        let current = self.spaces[self.current].asid == asid;
        if current {
            self.spaces[self.current].generation = now;
        } else if let Some(space) = self.spaces.iter_mut().find(|space| space.asid == asid) {
            space.asid = NONE;
        }
        current
    }

    /// Forgets the non-global translations of all; the current space is called `asid` from now on.
    pub fn forget_all(&mut self, asid: u64) {
        let now = self.tick();
        self.spaces.iter_mut().for_each(|space| space.asid = NONE);
        self.spaces[self.current] = Space { asid, generation: now, entered: now };
    }

    /// The current space's place.
    pub fn current(&self) -> usize {
        self.current
    }

    /// A number that the current space's non-global translations have had since they were last flushed, and that nothing
    /// else ever has. Never 0.
    pub fn generation(&self) -> u64 {
        self.spaces[self.current].generation
    }
}

#[cfg(test)]
mod tests {
    use super::Spaces;

    #[test]
    fn a_space_keeps_its_generation_until_it_is_flushed_or_pushed_out() {
        let mut spaces = Spaces::default();
        assert!(!spaces.enter(1, true).1, "never seen");
        let one = spaces.generation();
        assert!(!spaces.enter(2, true).1);
        assert_ne!(spaces.generation(), one);
        assert_eq!((spaces.enter(1, true).1, spaces.generation()), (true, one));
        assert!(!spaces.enter(1, false).1);
        let again = spaces.generation();
        assert_ne!(again, one);
        for asid in 10..10 + Spaces::COUNT as u64 - 1 {
            assert!(!spaces.enter(asid, true).1);
        }
        assert_eq!((spaces.enter(1, true).1, spaces.generation()), (true, again), "the least recent of eight");
        assert!(!spaces.enter(100, true).1);
        assert!(!spaces.enter(10, true).1, "pushed out");
    }

    #[test]
    fn places_differ_and_what_is_forgotten_is_flushed_on_return() {
        let mut spaces = Spaces::default();
        let (a, _) = spaces.enter(1, true);
        let (b, _) = spaces.enter(2, true);
        assert_ne!(a, b);
        assert!(!spaces.forget(1), "not the current one");
        assert!(!spaces.enter(1, true).1);
        let one = spaces.generation();
        assert!(spaces.forget(1), "the current one is flushed now");
        assert_ne!(spaces.generation(), one);
        spaces.enter(2, true);
        let two = spaces.generation();
        spaces.forget_all(3);
        assert_ne!(spaces.generation(), two);
        assert!(spaces.enter(3, true).1, "its name since then");
        assert!(!spaces.enter(2, true).1);
    }
}
