//! Two vCPUs with one RAM, each with a translation cache of its own, so that each has its tier.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use mimus_backend::{Arena, HostIsa, Thunks};
use mimus_engine::cache::{Cache, MIN_BYTES};
use mimus_engine::compile::{Compiling, Settings};
use mimus_engine::vcpu::{Jit, Regions, Vcpu};
use mimus_frontend::guest::GuestCpu;
use mimus_softmmu::Ram;
use mimus_softmmu::kick::Kicker;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// What executes a vCPU's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    Interpreter,
    Quick,
    Compiled,
}

/// Every tier with itself and each other one.
pub const PAIRS: [[Tier; 2]; 6] = {
    use Tier::*;
    [
        [Interpreter, Interpreter],
        [Quick, Quick],
        [Compiled, Compiled],
        [Interpreter, Quick],
        [Interpreter, Compiled],
        [Quick, Compiled],
    ]
};

/// Bytes of RAM.
pub const RAM_BYTES: usize = 4 << 20;

pub fn ram(base: u64) -> Arc<Ram> {
    Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(base), RAM_BYTES)]).unwrap()))
}

/// A guest's vCPU as these tests use it.
pub trait Guest: GuestCpu + Sized {
    /// One with this RAM.
    fn make(ram: &Arc<Ram>, cache: &Arc<Cache>) -> Box<Self>;
    /// Has it start at `pc`; general registers by number.
    fn start(&mut self, pc: u64, registers: &[(usize, u64)]);
    /// Whether it has come to its end.
    fn ended(&self) -> bool;
}

fn vcpu<C: Guest>(ram: &Arc<Ram>, tier: Tier) -> (Vcpu<C>, Arc<Kicker>) {
    let host = HostIsa::native().unwrap();
    let thunks = Thunks::new(&host, C::HEADER_OFFSET as i32).unwrap();
    let arena = Arena::with_generations(1 << 20, 3).unwrap();
    let cache = Arc::new(Cache::new(ram.clone(), MIN_BYTES, Some((arena, thunks.exit_stub().0))));
    let header_offset = C::HEADER_OFFSET;
    let settings = Settings { header_offset, counted: false, chain: true, sync: true, dump: false };
    let (quick, threshold) = if tier == Tier::Quick { (1, u32::MAX) } else { (0, 1) };
    let jit = (tier != Tier::Interpreter).then(|| {
        let compiling = Compiling::start(host, settings, None).unwrap();
        Arc::new(Jit { thunks, compiling, quick, threshold, regions: Regions::after(16) })
    });
    let kicker = Kicker::new();
    (Vcpu::new(C::make(ram, &cache), cache, jit, None, kicker.clone()), kicker)
}

/// What one vCPU is to execute: where from, and with which registers.
pub type Start = (u64, Vec<(usize, u64)>);

/// Runs it to its end, or until a run has `failed`.
fn run<C: Guest>(vcpu: &mut Vcpu<C>, kicker: &Kicker, (pc, registers): &Start, failed: &AtomicBool) {
    vcpu.cpu.start(*pc, registers);
    vcpu.moved();
    while !vcpu.cpu.ended() && !failed.load(Ordering::Relaxed) {
        if vcpu.cpu.header().exit_request.swap(0, Ordering::AcqRel) != 0 {
            kicker.clear();
        }
        vcpu.step().unwrap();
    }
}

/// Looks at what two vCPUs have left.
pub type Check<'a, C> = Box<dyn Fn(&Ram, [&C; 2]) + Sync + 'a>;

/// A run of both vCPUs, from what is in RAM before to the look at what is there afterwards.
pub struct Run<'a, C> {
    pub prepare: Box<dyn Fn(&Ram) + Sync + 'a>,
    pub starts: [Start; 2],
    pub check: Check<'a, C>,
}

/// Has two vCPUs in these tiers do the runs, one after the other.
pub fn run_pair<C: Guest>(ram: &Arc<Ram>, tiers: [Tier; 2], runs: &[Run<'_, C>])
where
    Vcpu<C>: Send,
{
    let mut vcpus = tiers.map(|tier| vcpu::<C>(ram, tier));
    let kickers = [vcpus[0].1.clone(), vcpus[1].1.clone()];
    for Run { prepare, starts, check } in runs {
        prepare(ram);
        let (barrier, failed) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for ((vcpu, kicker), start) in vcpus.iter_mut().zip(starts) {
                let (barrier, failed, kickers) = (&barrier, &failed, &kickers);
                scope.spawn(move || {
                    barrier.wait();
                    vcpu.wake();
                    let result = catch_unwind(AssertUnwindSafe(|| run(vcpu, kicker, start, failed)));
                    vcpu.go_offline();
                    if result.is_err() {
                        // The other one may wait for this one's code.
                        failed.store(true, Ordering::Relaxed);
                        kickers.iter().for_each(|kicker| kicker.kick());
                    }
                });
            }
        });
        assert!(!failed.into_inner(), "{tiers:?}");
        let [(one, _), (two, _)] = &vcpus;
        check(ram, [&*one.cpu, &*two.cpu]);
    }
}
