//! Publishing, linking, unlinking and evicting while another thread runs the code; what other threads see of its stores.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use mimus_backend::arena::Rotation;
use mimus_backend::{Arena, Compiler, HostAddr, HostIsa, Thunks};
use mimus_ir::{Builder, MemFlags, Op, Type};
use mimus_softmmu::ExitCode;

use crate::toy::{How, RAM, Toy, one, reg};

#[test]
fn what_moves_between_threads_is_send() {
    fn send<T: Send>() {}
    send::<HostIsa>();
    send::<Compiler>();
    send::<Arena>();
    send::<Thunks>();
}

/// What the two threads share. The pointers are into the toy, which outlives the second thread.
struct Shared {
    link: usize,
    exit_request: usize,
    /// How often the vCPU was in its dispatcher.
    passes: AtomicU64,
}

impl Shared {
    fn link(&self, entry: HostAddr) {
        // SAFETY: the toy's link table, in a box of its own, used atomically by everyone.
        unsafe { &*(self.link as *const AtomicU64) }.store(entry.0, Ordering::Release);
    }

    /// Asks the vCPU to pass its dispatcher and waits until it has.
    fn wait_for_dispatcher(&self) {
        let before = self.passes.load(Ordering::Acquire);
        let start = Instant::now();
        while self.passes.load(Ordering::Acquire) < before + 2 {
            assert!(start.elapsed() < Duration::from_secs(20), "the vCPU does not come back");
            // SAFETY: a field of the toy's env, used atomically by everyone while the threads run.
            unsafe { &*(self.exit_request as *const AtomicU32) }.store(1, Ordering::Release);
            std::thread::yield_now();
        }
    }
}

#[test]
fn code_comes_and_goes_under_a_running_vcpu() {
    let mut toy = Toy::new();
    // An endless loop that counts in register 0 and leaves by link 0.
    let mut b = Builder::new(0x1000);
    b.insn(0x1000, 4);
    let value = b.load_env(reg(0, Type::I64));
    let more = b.binary_imm(Op::AddI, Type::I64, value, 1);
    b.store_env(reg(0, Type::I64), more);
    b.jump(0x1000);
    let block = b.finish(0x1004);
    let (entry, info) = toy.compile(&block, How { counted: true, ..How::default() });
    let (code, stub) = (toy.code.clone(), toy.thunks.exit_stub());
    let shared = Shared {
        link: toy.link_address(0),
        exit_request: &raw const toy.env.header.exit_request as usize,
        passes: AtomicU64::new(0),
    };
    toy.env.regs[0] = 0;
    toy.env.header.insns = 0;
    let (mut linked, mut requested) = (0u64, 0u64);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut arena = Arena::with_generations(1 << 20, 4).unwrap();
            let mut evicted = 0;
            for i in 0..60_000u32 {
                let slot = match arena.alloc(code.len()) {
                    Some(slot) => slot,
                    None => {
                        if let Rotation::Evict(generation) = arena.rotate() {
                            shared.link(stub);
                            shared.wait_for_dispatcher();
                            // SAFETY: the one link that leads into this arena was cut, and the vCPU has been in its
                            // dispatcher since.
                            unsafe { arena.free(generation) };
                            evicted += 1;
                        }
                        arena.alloc(code.len()).unwrap()
                    }
                };
                let start = arena.publish(slot, &code);
                if i % 5 == 0 {
                    shared.link(stub);
                }
                shared.link(HostAddr(start.0 + u64::from(info.entry_offset)));
            }
            shared.link(stub);
            // The arena is dropped with this thread's end.
            shared.wait_for_dispatcher();
            evicted
        });
        while !publisher.is_finished() {
            match toy.enter(entry) {
                ExitCode::Link => linked += 1,
                ExitCode::Requested => {
                    requested += 1;
                    toy.env.header.exit_request.store(0, Ordering::Relaxed);
                }
                other => panic!("{other:?}"),
            }
            shared.passes.fetch_add(1, Ordering::Release);
        }
        assert!(publisher.join().unwrap() > 3, "generations were reused");
    });
    assert!(linked > 10 && requested > 3, "{linked} {requested}");
    assert_eq!(toy.env.header.insns, toy.env.regs[0]);
    assert!(toy.env.regs[0] > linked);
}

/// A page of the toy's RAM that both threads use.
struct Page(usize);

impl Page {
    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: within the toy's RAM, which outlives the other thread; all access it as whole words.
        unsafe { &*((self.0 + offset as usize) as *const AtomicU64) }
    }
}

/// The threads store to a word each and then load the other's: one of them sees a store, if there is a fence in each.
#[test]
fn no_load_overtakes_a_store_across_a_fence() {
    const ROUNDS: u64 = 30_000;
    const OTHER: u64 = 512;
    let mut toy = Toy::new();
    let block = one(0x1000, |b| {
        let addr = b.load_env(reg(0, Type::I64));
        let one = b.iconst(Type::I64, 1);
        b.store(Type::I64, addr, 0, one, MemFlags::empty());
        b.fence();
        let seen = b.load(Type::I64, addr, OTHER as i32, MemFlags::empty());
        b.store_env(reg(1, Type::I64), seen);
    });
    let how = How::default();
    let entries = [Some(toy.compile(&block, how)), toy.compile_quick(&block, how)];
    for (entry, _) in entries.into_iter().flatten() {
        let page = Page(toy.machine.ram.as_ptr() as usize);
        let (begun, ended, seen) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let wait = |counter: &AtomicU64, round: u64| {
            let mut turns = 0u32;
            while counter.load(Ordering::Acquire) != round {
                turns += 1;
                // The other thread may have no processor.
                if turns.is_multiple_of(1000) { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
        };
        let mut missed = 0;
        toy.env.regs[0] = RAM;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait(&begun, round);
                    // A little earlier or later each time.
                    (0..round % 61).for_each(|_| std::hint::spin_loop());
                    page.word(OTHER).store(1, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                    seen.store(page.word(0).load(Ordering::Relaxed) != 0, Ordering::Relaxed);
                    ended.store(round, Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                page.word(0).store(0, Ordering::Relaxed);
                page.word(OTHER).store(0, Ordering::Relaxed);
                begun.store(round, Ordering::Release);
                (0..round % 67).for_each(|_| std::hint::spin_loop());
                toy.enter(entry);
                wait(&ended, round);
                missed += u32::from(!seen.load(Ordering::Relaxed) && toy.env.regs[1] == 0);
            }
        });
        assert_eq!(missed, 0, "rounds in which neither saw the other's store");
    }
}
