//! Repeated string instructions: a page at a time they do what they do element by element, which a breakpoint makes them do.

use mimus_frontend::x86::exception::Exception;
use mimus_frontend::x86::state::{Dr7, Rflags, Seg, reg};

use super::fixture::{Machine, RAM_SIZE, TABLES};

/// Virtual pages of 64-bit mode that are mapped at random, and the page table that maps them.
const WINDOW: u64 = 0x40_0000;
const PAGE_TABLE: u64 = TABLES + 0x8000;
/// Physical pages with data.
const DATA: u64 = 0x50_0000;
const PAGES: u64 = 8;
const PAGE: u64 = 0x1000;

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// Two machines in the same state, of which the second has a breakpoint that nothing meets.
struct Both([Machine; 2]);

impl Both {
    fn each(&mut self, mut change: impl FnMut(&mut Machine)) {
        self.0.iter_mut().for_each(&mut change);
    }

    /// 64-bit mode with pages of RAM, some of them the same, of device memory, and of none.
    fn long() -> Both {
        Both([0, 1].map(|_| {
            let m = Machine::long(0);
            m.set(TABLES + 0x2000 + 8 * (WINDOW >> 21), 8, PAGE_TABLE | 7);
            m
        }))
    }

    /// 32-bit mode without paging, with segments that end.
    fn protected() -> Both {
        Both([0, 1].map(|_| Machine::protected(0)))
    }

    fn map_at_random(&mut self, rng: &mut Rng) {
        for i in 0..PAGES {
            let entry = match rng.below(12) {
                0 => 0,
                1 => RAM_SIZE as u64 | 7,
                2 => (DATA + rng.below(PAGES) * PAGE) | 5,
                _ => (DATA + rng.below(PAGES) * PAGE) | 7,
            };
            self.each(|m| m.set(PAGE_TABLE + 8 * i, 8, entry));
        }
        self.each(|m| m.cpu.flush_tlb(false));
    }

    fn limit_at_random(&mut self, rng: &mut Rng) {
        for seg in [Seg::Ds, Seg::Es] {
            let (base, limit) = (DATA + rng.below(64) * 8, rng.pick(&[0x2345, 0x7fff, 0xffff, u32::MAX]));
            let expand_down = if rng.below(4) == 0 { 4 } else { 0 };
            self.each(|m| {
                let segment = &mut m.cpu.state.seg[seg as usize];
                (segment.base, segment.limit) = (base, limit);
                segment.access = segment.access & !4 | expand_down;
            });
        }
        self.each(|m| m.cpu.update_mode());
    }

    fn fill_at_random(&mut self, rng: &mut Rng) {
        let sparse = rng.pick(&[2, 50, 5000]);
        for at in (DATA..DATA + PAGES * PAGE).step_by(8) {
            let word = if rng.below(sparse) == 0 { 1 << rng.below(64) } else { 0 };
            self.each(|m| m.set(at, 8, word));
        }
    }

    fn set_registers(&mut self, rng: &mut Rng, from: u64, elements: u64) {
        let di = from + rng.below(PAGES * PAGE);
        // Often they overlap.
        let si = if rng.below(2) == 0 { di.wrapping_add(rng.below(128)) - 64 } else { from + rng.below(PAGES * PAGE) };
        let (down, accumulator) =
            (rng.below(2) == 0, rng.pick(&[0, 0, 1, 0x0101_0101_0101_0101, 0x1234_5678_9abc_def0]));
        self.each(|m| {
            let s = &mut m.cpu.state;
            (s.gpr[reg::RSI], s.gpr[reg::RDI], s.gpr[reg::RCX]) = (si, di, elements);
            (s.gpr[reg::RAX], s.gpr[reg::RDX]) = (accumulator, 0x1f0);
            s.flags.set(Rflags::DF, down);
        });
    }

    /// Executes an instruction on both, and says what the first one raised, if all is the same.
    fn run(&mut self, bytes: &[u8]) -> Option<Exception> {
        let [paged, singly] = &mut self.0;
        let raised = paged.raised(bytes);
        singly.cpu.state.dr[0] = 0x77_0000_0000;
        singly.cpu.state.dr7 |= Dr7::L0;
        singly.cpu.update_mode();
        assert_eq!(singly.raised(bytes), raised, "{bytes:x?}");
        singly.cpu.state.dr[0] = 0;
        singly.cpu.state.dr7 -= Dr7::L0;
        singly.cpu.update_mode();
        assert!(paged.cpu.state == singly.cpu.state, "{bytes:x?}: {:x?}\n{:x?}", paged.cpu.state, singly.cpu.state);
        for (start, len) in [(DATA, PAGES * PAGE), (PAGE_TABLE, PAGE)] {
            let [mut left, mut right] = [(); 2].map(|()| vec![0; len as usize]);
            assert!(paged.cpu.mmu.ram.read_bytes(start, &mut left) && singly.cpu.mmu.ram.read_bytes(start, &mut right));
            let differs = left.iter().zip(&right).position(|(left, right)| left != right);
            assert_eq!(differs, None, "{bytes:x?}: memory from {start:#x}");
        }
        let [left, right] = [paged, singly].map(|m| std::mem::take(&mut m.bus.lock().unwrap().ports));
        assert!(left == right, "{bytes:x?}: ports");
        raised
    }
}

/// A repeated string instruction.
fn encode(rng: &mut Rng, long: bool) -> Vec<u8> {
    let opcode = rng.pick(&[0xa4, 0xa6, 0xa6, 0xaa, 0xac, 0xae, 0xae, 0x6c, 0x6e]);
    let ports = opcode < 0x70;
    let address = [0x67].into_iter().filter(|_| !long && rng.below(2) == 0).collect::<Vec<u8>>();
    let repeat = rng.pick(&[0xf2, 0xf3]);
    let size = match rng.below(if long && !ports { 4 } else { 3 }) {
        0 => vec![repeat, opcode],
        1 => vec![0x66, repeat, opcode + 1],
        2 => vec![repeat, opcode + 1],
        _ => vec![repeat, 0x48, opcode + 1],
    };
    [address, size].concat()
}

#[test]
fn pages_of_every_kind_give_what_single_elements_do() {
    let mut rng = Rng(0x9e37_79b9);
    let mut both = Both::long();
    let (mut faults, mut whole) = (0, 0);
    for round in 0..3000 {
        if round % 8 == 0 {
            both.map_at_random(&mut rng);
            both.fill_at_random(&mut rng);
        }
        let most = rng.pick(&[8, 600, 2 * PAGE]);
        let elements = rng.below(most);
        both.set_registers(&mut rng, WINDOW, elements);
        match both.run(&encode(&mut rng, true)) {
            None => whole += 1,
            Some(exception) => {
                assert_eq!(exception.vector, 14);
                faults += 1;
            }
        }
    }
    assert!(faults > 300 && whole > 300, "{faults} {whole}");
}

#[test]
fn segments_that_end_and_addresses_that_wrap() {
    let mut rng = Rng(0x7f4a_7c15);
    let mut both = Both::protected();
    let (mut faults, mut whole) = (0, 0);
    for round in 0..2000 {
        if round % 8 == 0 {
            both.limit_at_random(&mut rng);
            both.fill_at_random(&mut rng);
        }
        let elements = rng.below(2 * PAGE);
        let from = rng.pick(&[0, 0, 0x1_0000 - 4 * PAGE]);
        both.set_registers(&mut rng, from, elements);
        match both.run(&encode(&mut rng, false)) {
            None => whole += 1,
            Some(exception) => {
                assert_eq!(exception.vector, 13);
                faults += 1;
            }
        }
    }
    assert!(faults > 200 && whole > 200, "{faults} {whole}");
}

#[test]
fn a_fault_finds_the_flags_and_registers_of_the_element_before() {
    let mut both = Both::long();
    both.each(|m| {
        m.set(PAGE_TABLE, 8, DATA | 7);
        m.cpu.flush_tlb(false);
        let s = &mut m.cpu.state;
        s.set_arith_flags(Rflags::CF | Rflags::SF);
        (s.gpr[reg::RDI], s.gpr[reg::RCX], s.gpr[reg::RAX]) = (WINDOW + 0xff0, 100, 0);
    });
    // REPE SCASB, and the second page is not there. (SDM vol. 2B, REP, has the flags of before the instruction; processors do not.)
    let raised = both.run(&[0xf3, 0xae]).expect("a page fault");
    let s = &both.0[0].cpu.state;
    assert_eq!((raised.vector, raised.address), (14, WINDOW + PAGE));
    assert_eq!((s.gpr[reg::RDI], s.gpr[reg::RCX], s.arith_flags()), (WINDOW + PAGE, 84, Rflags::ZF | Rflags::PF));
}

#[test]
fn a_fault_of_the_first_element_changes_no_register() {
    let mut both = Both::long();
    let wide = 0x1234_0000_0000_0000;
    both.each(|m| {
        let s = &mut m.cpu.state;
        (s.gpr[reg::RDI], s.gpr[reg::RSI], s.gpr[reg::RCX]) = (wide | WINDOW, wide | WINDOW, wide | 9);
    });
    // With 32-bit addresses, whose registers are cleared above when they are written.
    for opcode in [0xa4, 0xa6, 0xaa, 0xac, 0xae, 0x6c, 0x6e] {
        let before = both.0[0].cpu.state;
        assert_eq!(both.run(&[0x67, 0xf3, opcode]).map(|e| e.vector), Some(14), "{opcode:x}");
        assert!(both.0[0].cpu.state.gpr == before.gpr, "{opcode:x}");
    }
}
