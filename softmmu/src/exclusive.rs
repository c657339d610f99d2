//! Exclusive sections: the rest of a machine's vCPUs stands still between two blocks while one of them is in its section.
//!
//! For what a guest does in one step and the host cannot: atomic operations on an operand in two pages that are not neighbours
//! on the host, on devices, or wider or less aligned than the host's instructions allow.
//!
//! Whoever drives a vCPU calls [`Member::attend`] before each piece of guest code, [`Member::leave`] before it sleeps, and gives
//! it a way to be called ([`Member::set_kick`]). A vCPU that was never driven, or has left, is not waited for. The section begins
//! when each other vCPU that runs has attended: as soon as compiled code looks at its exit request (each back edge and indirect
//! exit). Device threads are not stopped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// In a member's word: it runs no guest code, or waits.
const ASIDE: u32 = 1;
/// In a member's word: a section wants to begin.
const WANTED: u32 = 2;

/// After so long whoever runs still is called again: its dispatcher may have taken the call for another.
const REPEAT: Duration = Duration::from_millis(1);

type Kick = Arc<dyn Fn() + Send + Sync>;

struct Entry {
    /// [`ASIDE`] and [`WANTED`]; changed with the state locked.
    word: Arc<AtomicU32>,
    kick: Option<Kick>,
}

#[derive(Default)]
struct State {
    members: Vec<Entry>,
    /// Somebody is in its section, or about to be.
    taken: bool,
}

/// The vCPUs of one guest RAM.
#[derive(Default)]
pub(crate) struct Exclusive {
    state: Mutex<State>,
    changed: Condvar,
}

impl Exclusive {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes another vCPU one of them; it runs nothing yet.
    pub(crate) fn join(self: &Arc<Self>) -> Arc<Member> {
        let word = Arc::new(AtomicU32::new(ASIDE));
        self.lock().members.push(Entry { word: word.clone(), kick: None });
        Arc::new(Member { word, all: self.clone() })
    }
}

/// One vCPU's part in its machine's exclusive sections.
pub struct Member {
    word: Arc<AtomicU32>,
    all: Arc<Exclusive>,
}

impl Member {
    /// Says how the vCPU is made to come to its dispatcher soon.
    pub fn set_kick(&self, kick: Arc<dyn Fn() + Send + Sync>) {
        let mut state = self.all.lock();
        let own = state.members.iter_mut().find(|entry| Arc::ptr_eq(&entry.word, &self.word));
        if let Some(entry) = own {
            entry.kick = Some(kick);
        }
    }

    /// To be called between pieces of guest code: waits while another vCPU is in its section. From now on the vCPU is one that
    /// runs.
    #[inline]
    pub fn attend(&self) {
        if self.word.load(Ordering::Acquire) != 0 {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        let mut state = self.stand_aside();
        state = self.wait_turn(state);
        drop(state);
    }

    /// Says that the vCPU runs no guest code until it attends again.
    pub fn leave(&self) {
        drop(self.stand_aside());
    }

    fn stand_aside(&self) -> MutexGuard<'_, State> {
        let state = self.all.lock();
        self.word.fetch_or(ASIDE, Ordering::AcqRel);
        self.all.changed.notify_all();
        state
    }

    /// Waits until nobody is in a section, and runs then.
    fn wait_turn<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waits = |state: &mut State| state.taken;
        let state = self.all.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        self.word.store(0, Ordering::Release);
        state
    }

    /// Does `f` while no other vCPU runs guest code. To be called by the vCPU's own thread, between two accesses to memory;
    /// others may have their sections before.
    pub fn exclusively<T>(&self, f: impl FnOnce() -> T) -> T {
        let ran = self.word.load(Ordering::Acquire) & ASIDE == 0;
        let mut state = self.wait_turn(self.stand_aside());
        state.taken = true;
        let _release = Release { member: self, ran };
        let others = |entry: &&Entry| !Arc::ptr_eq(&entry.word, &self.word);
        state.members.iter().filter(others).for_each(|entry| {
            entry.word.fetch_or(WANTED, Ordering::AcqRel);
        });
        loop {
            let runs = |entry: &&Entry| entry.word.load(Ordering::Acquire) & ASIDE == 0;
            let mut late = state.members.iter().filter(others).filter(runs).peekable();
            if late.peek().is_none() {
                break;
            }
            late.filter_map(|entry| entry.kick.as_ref()).for_each(|kick| kick());
            let waited = self.all.changed.wait_timeout(state, REPEAT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        f()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.members.retain(|entry| !Arc::ptr_eq(&entry.word, &self.word));
        self.all.changed.notify_all();
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("word", &self.word).finish_non_exhaustive()
    }
}

/// Ends a section, however it ends.
struct Release<'a> {
    member: &'a Member,
    /// The vCPU was one that runs before.
    ran: bool,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let mut state = self.member.all.lock();
        state.taken = false;
        state.members.iter().for_each(|entry| {
            entry.word.fetch_and(!WANTED, Ordering::AcqRel);
        });
        self.member.word.store(if self.ran { 0 } else { ASIDE }, Ordering::Release);
        self.member.all.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_section_waits_for_those_that_run_and_for_nobody_else() {
        let all = Arc::new(Exclusive::default());
        let (me, idle, gone) = (all.join(), all.join(), all.join());
        gone.attend();
        gone.leave();
        drop(idle);
        assert_eq!(me.exclusively(|| 5), 5, "whether it runs itself or not");
        me.attend();
        assert_eq!(me.exclusively(|| 6), 6);
    }

    /// Two counters that are changed one after the other in sections, and by who runs when the others do not.
    struct Pair(UnsafeCell<[u64; 2]>);

    // SAFETY: what it holds is accessed in exclusive sections only.
    unsafe impl Sync for Pair {}

    #[test]
    fn sections_of_several_exclude_each_other_and_code_that_attends() {
        const ROUNDS: u64 = 2000;
        let all = Arc::new(Exclusive::default());
        let pair = Pair(UnsafeCell::new([0; 2]));
        let (kicks, running) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (member, kicks) = (all.join(), kicks.clone());
                let (pair, running) = (&pair, &running);
                scope.spawn(move || {
                    member.set_kick(Arc::new(move || {
                        kicks.fetch_add(1, Ordering::Relaxed);
                    }));
                    for _ in 0..ROUNDS {
                        member.attend();
                        running.fetch_add(1, Ordering::Relaxed);
                        std::hint::spin_loop();
                        running.fetch_sub(1, Ordering::Relaxed);
                        member.exclusively(|| {
                            assert_eq!(running.load(Ordering::Relaxed), 0, "somebody runs");
                            // SAFETY: no other thread is in a section, and no reference is kept.
                            let [a, b] = unsafe { &mut *pair.0.get() };
                            *a += 1;
                            *b += *a;
                        });
                    }
                    member.leave();
                });
            }
        });
        assert_eq!(pair.0.into_inner()[0], 3 * ROUNDS);
    }

    #[test]
    fn a_section_that_panics_ends() {
        let all = Arc::new(Exclusive::default());
        let (one, two) = (all.join(), all.join());
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one.exclusively(|| panic!("as it should"))));
        assert!(result.is_err());
        two.attend();
        assert_eq!(two.exclusively(|| 1), 1);
    }
}
