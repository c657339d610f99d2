//! Semihosting: what programs may ask of the host.

use std::sync::{Arc, Mutex};

use mimus_frontend::riscv::semihost::{Host, Semihosting, Stream};

use crate::hart::{BASE, DATA, HANDLER, Hart};

const MARK: [u32; 3] = [0x01f0_1013, 0x0010_0073, 0x4070_5013];

type Printed = Vec<(Stream, Vec<u8>)>;

#[derive(Clone, Default)]
struct Console {
    printed: Arc<Mutex<Printed>>,
    typed: Arc<Mutex<Vec<u8>>>,
    code: Arc<Mutex<Option<u8>>>,
    user_mode: bool,
}

impl Host for Console {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.printed.lock().unwrap().push((stream, bytes.to_vec()));
    }
    fn read(&mut self, out: &mut [u8]) -> Option<usize> {
        let mut typed = self.typed.lock().unwrap();
        let count = out.len().min(typed.len());
        out[..count].copy_from_slice(&typed[..count]);
        typed.drain(..count);
        (count != 0).then_some(count)
    }
    fn exit(&mut self, code: u8) {
        *self.code.lock().unwrap() = Some(code);
    }
    fn command_line(&self) -> &[u8] {
        b"prog a b"
    }
    fn unix_time(&self) -> u64 {
        1_700_000_000
    }
    fn user_mode(&self) -> bool {
        self.user_mode
    }
}

fn hart(console: &Console) -> Hart {
    let mut hart = Hart::new();
    hart.cpu.semihosting = Some(Semihosting::new(Box::new(console.clone())));
    hart
}

/// Makes a call: its result, or `None` if the EBREAK is still to be executed.
fn call(hart: &mut Hart, number: u64, argument: u64) -> Option<u64> {
    hart.write(BASE + 0x100, &MARK);
    hart.cpu.state.pc = BASE + 0x104;
    (hart.cpu.state.x[10], hart.cpu.state.x[11]) = (number, argument);
    hart.block(1);
    if hart.cpu.state.pc == BASE + 0x104 {
        return None;
    }
    assert_eq!(hart.cpu.state.pc, BASE + 0x108, "call {number:#x}");
    Some(hart.cpu.state.x[10])
}

/// Puts a parameter block, and what it points to, into memory.
fn block(hart: &Hart, words: &[u64], text: &[u8]) -> u64 {
    for (i, word) in (0..).zip(words) {
        hart.cpu.mmu.ram.write_u64(DATA + 8 * i, *word).unwrap();
    }
    assert!(hart.cpu.mmu.ram.write_bytes(DATA + 0x100, text));
    DATA
}

const TEXT: u64 = DATA + 0x100;

#[test]
fn a_program_prints_reads_and_ends() {
    let console = Console::default();
    let mut hart = hart(&console);
    let printed = || console.printed.lock().unwrap().drain(..).collect::<Vec<_>>();
    block(&hart, &[], b"hello\0more");
    call(&mut hart, 0x04, TEXT).unwrap();
    call(&mut hart, 0x03, TEXT + 1).unwrap();
    assert_eq!(printed(), [(Stream::Debug, b"hello".to_vec()), (Stream::Debug, b"e".to_vec())]);
    let open = |hart: &mut Hart, name: &[u8], mode| {
        let at = block(hart, &[TEXT, mode, name.len() as u64], name);
        call(hart, 0x01, at).unwrap()
    };
    let handles = [0, 4, 8].map(|mode| open(&mut hart, b":tt", mode));
    assert_eq!(handles, [1, 2, 3]);
    assert_eq!([open(&mut hart, b"/etc/passwd", 0), open(&mut hart, b":tt", 12)], [u64::MAX; 2], "no files");
    assert_eq!(call(&mut hart, 0x13, 0), Some(13));
    let at = block(&hart, &[handles[1], TEXT, 3], b"abc");
    assert_eq!(call(&mut hart, 0x05, at), Some(0), "nothing is left");
    let at = block(&hart, &[handles[2], TEXT, 1 << 40], b"abc");
    assert_eq!(call(&mut hart, 0x05, at), Some((1 << 40) - (1 << 16)), "as much as there is at once");
    assert_eq!(
        printed().iter().map(|(stream, bytes)| (*stream, bytes.len())).collect::<Vec<_>>(),
        [(Stream::Output, 3), (Stream::Error, 1 << 16),]
    );
    // What is typed is waited for.
    let at = block(&hart, &[handles[0], TEXT, 8], &[0; 8]);
    assert_eq!((call(&mut hart, 0x06, at), call(&mut hart, 0x07, 0)), (None, None));
    console.typed.lock().unwrap().extend(b"xyz");
    assert_eq!((call(&mut hart, 0x07, 0), call(&mut hart, 0x06, at)), (Some(b'x'.into()), Some(6)));
    assert_eq!(hart.cpu.mmu.ram.read_u64(TEXT), Some(u64::from_le_bytes(*b"yz\0\0\0\0\0\0")));
    for (reason, code, want) in [(0x2_0026, 7, 7), (0x2_0026, 0, 0), (0x2_0023, 0, 1)] {
        let at = block(&hart, &[reason, code], b"");
        call(&mut hart, 0x18, at).unwrap();
        assert_eq!(console.code.lock().unwrap().take(), Some(want));
    }
}

#[test]
fn what_else_may_be_asked() {
    let console = Console::default();
    let mut hart = hart(&console);
    assert_eq!(call(&mut hart, 0x11, 0), Some(1_700_000_000));
    assert_eq!(call(&mut hart, 0x31, 0), Some(1_000_000_000));
    for (handle, want) in [(2, 1), (9, u64::MAX)] {
        let at = block(&hart, &[handle], b"");
        assert_eq!(call(&mut hart, 0x09, at), Some(want));
    }
    let at = block(&hart, &[u64::MAX], b"");
    assert_eq!(call(&mut hart, 0x08, at), Some(1));
    let at = block(&hart, &[TEXT, 9], b"");
    assert_eq!(call(&mut hart, 0x15, at), Some(0));
    let mut line = [0; 9];
    assert!(hart.cpu.mmu.ram.read_bytes(TEXT, &mut line));
    assert_eq!((&line, hart.cpu.mmu.ram.read_u64(DATA + 8)), (b"prog a b\0", Some(8)));
    let at = block(&hart, &[TEXT, 8], b"");
    assert_eq!(call(&mut hart, 0x15, at), Some(u64::MAX), "no room for its NUL");
    assert_eq!(call(&mut hart, 0x30, TEXT), Some(0));
    assert_eq!((call(&mut hart, 0x0c, at), call(&mut hart, 0x99, at)), (Some(u64::MAX), Some(u64::MAX)));
    // Addresses where nothing is.
    for number in 0..0x40 {
        for argument in [0, 0x1000, BASE - 4, u64::MAX - 3] {
            call(&mut hart, number, argument);
        }
        let at = block(&hart, &[1, u64::MAX - 5, 100], b"");
        call(&mut hart, number, at);
        let at = block(&hart, &[u64::MAX - 5, 0, 100], b"");
        call(&mut hart, number, at);
    }
    assert_eq!(hart.cpu.header.verdict, 0);
}

#[test]
fn only_the_marked_ebreak_is_a_call_and_only_where_it_is_allowed() {
    let console = Console::default();
    let mut hart = hart(&console);
    for (words, at) in [
        ([MARK[0], MARK[1], 0x4060_5013], BASE + 0x104),
        ([0x13, MARK[1], MARK[2]], BASE + 0x104),
        // Not all in one page.
        (MARK, BASE + 0x2000),
        (MARK, BASE + 0x1ffc),
    ] {
        hart.write(at - 4, &words);
        hart.cpu.state.pc = at;
        hart.block(1);
        assert_eq!((hart.cpu.state.pc, hart.cpu.state.mcause), (HANDLER, 3));
    }
    for user_mode in [false, true] {
        let console = Console { user_mode, ..Console::default() };
        let mut hart = self::hart(&console).open_pmp();
        hart.write(BASE + 0x100, &MARK);
        hart.enter(0, BASE + 0x104);
        (hart.cpu.state.x[10], hart.cpu.state.x[11]) = (0x11, 0);
        hart.block(1);
        assert_eq!(hart.cpu.state.pc == BASE + 0x108, user_mode);
    }
    // Without a host it is a breakpoint.
    let mut hart = Hart::new();
    hart.write(BASE + 0x100, &MARK);
    hart.cpu.state.pc = BASE + 0x104;
    hart.block(1);
    assert_eq!(hart.cpu.state.pc, HANDLER);
}
