//! Publishing, linking, unlinking and evicting while another thread runs the code.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mimus_backend::arena::Rotation;
use mimus_backend::{Arena, Compiler, HostAddr, HostIsa, Thunks};
use mimus_ir::{Builder, Op, Type};
use mimus_softmmu::ExitCode;

use crate::toy::{How, Toy, reg};

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
