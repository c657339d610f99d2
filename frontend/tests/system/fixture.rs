//! A vCPU with a little RAM, a recording bus, and a GDT with one segment of every kind.

use std::sync::{Arc, Mutex};

use mimus_frontend::x86::exception::Exception;
use mimus_frontend::x86::helpers::{Helper, TABLE};
use mimus_frontend::x86::lift::{MAX_INSN_LEN, Request, lift};
use mimus_frontend::x86::state::{Cr0, Cr3, Cr4, Efer, Rflags, Seg, Segment, reg};
use mimus_frontend::x86::{Bus, Cpu, Features};
use mimus_ir::Interp;
use mimus_softmmu::{CodeSink, Dropped, MmioBus, Ram};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub const RAM_SIZE: usize = 16 << 20;
pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x4000;
pub const LDT: u64 = 0x5000;
pub const TSS_B: u64 = 0x6000;
pub const TABLES: u64 = 0x10000;
/// Stack pointer the modes start with.
pub const STACK: u64 = 0x9000;
/// Stack pointers in the TSS.
pub const STACK0: u64 = 0xa000;
pub const STACK_IST: u64 = 0xb008;

/// Flags as images of them have them, on stacks, in TSSs and in general registers.
pub mod rflags {
    use mimus_frontend::x86::state::Rflags;

    pub const CF: u64 = Rflags::CF.bits();
    pub const ZF: u64 = Rflags::ZF.bits();
    pub const TF: u64 = Rflags::TF.bits();
    pub const IF: u64 = Rflags::IF.bits();
    pub const IOPL: u64 = Rflags::IOPL.bits();
    pub const NT: u64 = Rflags::NT.bits();
    pub const RF: u64 = Rflags::RF.bits();
    pub const VM: u64 = Rflags::VM.bits();
    pub const AC: u64 = Rflags::AC.bits();
    pub const ID: u64 = Rflags::ID.bits();
    pub const ARITH: u64 = Rflags::ARITH.bits();
}

/// Selectors of the GDT.
pub mod sel {
    pub const CODE: u16 = 0x08;
    pub const DATA: u16 = 0x10;
    pub const USER_CODE: u16 = 0x18 | 3;
    pub const USER_DATA: u16 = 0x20 | 3;
    pub const CODE64: u16 = 0x28;
    pub const USER_CODE64: u16 = 0x30 | 3;
    pub const TSS: u16 = 0x38;
    pub const LDT: u16 = 0x48;
    pub const CONFORMING: u16 = 0x58;
    pub const ABSENT_DATA: u16 = 0x60;
    pub const READ_ONLY: u16 = 0x68;
    pub const CODE16: u16 = 0x70;
    pub const DATA16: u16 = 0x78;
    pub const GATE: u16 = 0x80;
    pub const TSS_B: u16 = 0x90;
    pub const TASK_GATE: u16 = 0x98;
    pub const ABSENT_CODE: u16 = 0xa0;
    pub const EXPAND_DOWN: u16 = 0xa8;
    pub const SMALL: u16 = 0xb0;
    pub const EXECUTE_ONLY: u16 = 0xb8;
    /// First one beyond the table.
    pub const BEYOND: u16 = 0xc0;
}

#[derive(Default)]
pub struct Record {
    pub ports: Vec<(u16, u8, Option<u32>)>,
    pub tsc: u64,
    pub tpr: u8,
    pub apic_base: u64,
    pub deadline: u64,
    /// What was driven at FERR#.
    pub ferr: Vec<bool>,
    pub ignne: bool,
}

struct TestBus(Arc<Mutex<Record>>);

impl MmioBus for TestBus {
    fn mmio_read(&mut self, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: u64, _: u8, _: u64) {}
}

impl Bus for TestBus {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        self.0.lock().unwrap().ports.push((port, size, None));
        0x1234_5678
    }
    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.0.lock().unwrap().ports.push((port, size, Some(value)));
    }
    fn tsc(&mut self) -> u64 {
        self.0.lock().unwrap().tsc
    }
    fn apic_base(&mut self) -> u64 {
        self.0.lock().unwrap().apic_base
    }
    fn set_apic_base(&mut self, value: u64) -> bool {
        self.0.lock().unwrap().apic_base = value;
        value & 0xff == 0
    }
    fn tsc_deadline(&mut self) -> u64 {
        self.0.lock().unwrap().deadline
    }
    fn set_tsc_deadline(&mut self, value: u64) {
        self.0.lock().unwrap().deadline = value;
    }
    fn tpr(&mut self) -> u8 {
        self.0.lock().unwrap().tpr
    }
    fn set_tpr(&mut self, value: u8) {
        self.0.lock().unwrap().tpr = value;
    }
    fn set_ferr(&mut self, asserted: bool) -> bool {
        let mut record = self.0.lock().unwrap();
        record.ferr.push(asserted);
        record.ignne
    }
}

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::UNKNOWN
    }
}

/// A segment descriptor; `access` as in [`Segment::access`].
pub const fn descriptor(base: u64, limit: u64, access: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (access & 0xf000) << 40
        | (base >> 24 & 0xff) << 56
}

/// A gate: low and high half.
pub const fn gate(selector: u16, offset: u64, access: u64, count: u64) -> (u64, u64) {
    let low = offset & 0xffff | (selector as u64) << 16 | count << 32 | access << 40 | (offset >> 16 & 0xffff) << 48;
    (low, offset >> 32)
}

pub struct Machine {
    pub cpu: Box<Cpu>,
    pub bus: Arc<Mutex<Record>>,
}

impl Machine {
    /// In real mode as after reset, tables in RAM.
    pub fn new() -> Machine {
        Machine::with(Features::default())
    }

    pub fn with(features: Features) -> Machine {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_SIZE)]).unwrap();
        let bus = Arc::new(Mutex::new(Record::default()));
        let cpu = Cpu::new(Arc::new(Ram::new(memory)), Arc::new(NoCode), Box::new(TestBus(bus.clone())), features);
        let m = Machine { cpu, bus };
        let flat = |access: u64| descriptor(0, 0xfffff, 0x8000 | access);
        let entries = [
            (sel::CODE, flat(0x409a)),
            (sel::DATA, flat(0x4092)),
            (sel::USER_CODE, flat(0x40fa)),
            (sel::USER_DATA, flat(0x40f2)),
            (sel::CODE64, flat(0x209a)),
            (sel::USER_CODE64, flat(0x20fa)),
            (sel::TSS, descriptor(TSS, 0x200, 0x89)),
            (sel::LDT, descriptor(LDT, 0xff, 0x82)),
            (sel::CONFORMING, flat(0x409e)),
            (sel::ABSENT_DATA, flat(0x4012)),
            (sel::READ_ONLY, flat(0x4090)),
            (sel::CODE16, descriptor(0, 0xffff, 0x9a)),
            (sel::DATA16, descriptor(0, 0xffff, 0x92)),
            (sel::TSS_B, descriptor(TSS_B, 0x67, 0x89)),
            (sel::TASK_GATE, gate(sel::TSS_B, 0, 0x85, 0).0),
            (sel::ABSENT_CODE, flat(0x401a)),
            (sel::EXPAND_DOWN, descriptor(0, 0xfff, 0x4096)),
            (sel::SMALL, descriptor(0x10_0000, 0x1f, 0x4092)),
            (sel::EXECUTE_ONLY, flat(0x4098)),
        ];
        for (selector, value) in entries {
            m.set(GDT + u64::from(selector & !7), 8, value);
        }
        m
    }

    /// 32-bit protected mode without paging, at privilege level `cpl`, interrupts on.
    pub fn protected(cpl: u8) -> Machine {
        let mut m = Machine::new();
        m.enter_protected(cpl);
        m
    }

    pub fn enter_protected(&mut self, cpl: u8) {
        let s = &mut self.cpu.state;
        s.cr0 |= Cr0::PE | Cr0::WP;
        s.gdtr.base = GDT;
        s.gdtr.limit = u64::from(sel::BEYOND) - 1;
        s.idtr.base = IDT;
        s.idtr.limit = 0x7ff;
        s.flags = Rflags::FIXED | Rflags::IF;
        s.gpr[reg::RSP] = STACK;
        s.rip = 0x1234;
        let (code, data) = if cpl == 3 { (sel::USER_CODE, sel::USER_DATA) } else { (sel::CODE, sel::DATA) };
        for seg in Seg::ALL {
            let selector = if seg == Seg::Cs { code } else { data };
            let kind = if seg == Seg::Cs { 0xb } else { 3 };
            let access = 0xc090 | kind | u16::from(cpl) << 5;
            s.seg[seg as usize] = Segment { base: 0, limit: u32::MAX, selector, access };
        }
        s.tr = Segment { base: TSS, limit: 0x200, selector: sel::TSS, access: 0x8b };
        self.set(GDT + u64::from(sel::TSS) + 5, 1, 0x8b);
        self.set(TSS + 4, 4, STACK0);
        self.set(TSS + 8, 2, sel::DATA.into());
        self.set(TSS + 0x66, 2, 0x88);
        self.cpu.update_mode();
    }

    /// 64-bit mode with an identity map of RAM, user-accessible.
    pub fn long(cpl: u8) -> Machine {
        Machine::long_with(cpl, Features::default())
    }

    pub fn long_with(cpl: u8, features: Features) -> Machine {
        let mut m = Machine::with(features);
        m.enter_protected(cpl);
        m.set(TABLES, 8, TABLES + 0x1000 + 7);
        m.set(TABLES + 0x1000, 8, TABLES + 0x2000 + 7);
        for i in 0..8 {
            m.set(TABLES + 0x2000 + 8 * i, 8, i << 21 | 0x87);
        }
        let s = &mut m.cpu.state;
        s.cr3 = Cr3::from_bits_retain(TABLES);
        s.cr4 |= Cr4::PAE | Cr4::FSGSBASE;
        s.efer |= Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
        s.cr0 |= Cr0::PG;
        s.idtr.limit = 0xfff;
        let cs = &mut s.seg[Seg::Cs as usize];
        cs.selector = if cpl == 3 { sel::USER_CODE64 } else { sel::CODE64 };
        cs.access = 0xa09b | u16::from(cpl) << 5;
        m.set(TSS + 4, 8, STACK0);
        m.set(TSS + 0x24, 8, STACK_IST);
        m.cpu.flush_tlb(false);
        m.cpu.update_mode();
        m
    }

    /// Writes physical memory.
    pub fn set(&self, gpa: u64, size: u8, value: u64) {
        let bytes = &value.to_le_bytes()[..size.into()];
        assert!(self.cpu.mmu.ram.write_bytes(gpa, bytes), "outside RAM: {gpa:#x}");
    }

    /// Reads physical memory.
    pub fn get(&self, gpa: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.cpu.mmu.ram.read_bytes(gpa, &mut bytes[..size.into()]), "outside RAM: {gpa:#x}");
        u64::from_le_bytes(bytes)
    }

    /// `count` words of `size` bytes from `gpa` up.
    pub fn words(&self, gpa: u64, size: u8, count: u64) -> Vec<u64> {
        (0..count).map(|i| self.get(gpa + i * u64::from(size), size)).collect()
    }

    /// Sets an IDT entry: 8 bytes, 16 in long mode.
    pub fn set_gate(&self, vector: u8, selector: u16, offset: u64, access: u64, count: u64) {
        let (low, high) = gate(selector, offset, access, count);
        let wide = self.cpu.state.long_active();
        let address = IDT + u64::from(vector) * if wide { 16 } else { 8 };
        self.set(address, 8, low);
        if wide {
            self.set(address + 8, 8, high);
        }
    }

    /// Calls a helper with all operands.
    pub fn call(&mut self, helper: Helper, [a, b, c]: [u64; 3], arg: u32) -> Result<u64, Exception> {
        self.cpu.pending = None;
        self.cpu.header.verdict = 0;
        let value = (TABLE[helper as usize].function)(&mut self.cpu, a, b, c, arg);
        match self.cpu.pending.take() {
            None => {
                assert_eq!(self.cpu.header.verdict, 0);
                Ok(value)
            }
            Some(exception) => {
                assert_eq!((self.cpu.header.verdict, value), (1, 0));
                Err(exception)
            }
        }
    }

    /// Interprets one instruction, and says what exception it raised, by vector and error code.
    pub fn run(&mut self, bytes: &[u8]) -> Option<(u8, Option<u32>)> {
        self.raised(bytes).map(|e| (e.vector, e.error))
    }

    /// Interprets one instruction, and says what exception it raised.
    pub fn raised(&mut self, bytes: &[u8]) -> Option<Exception> {
        let mut code = [0; MAX_INSN_LEN];
        code[..bytes.len()].copy_from_slice(bytes);
        let rip = self.cpu.state.rip;
        let request = Request { bytes: &code, in_page: code.len(), rip, base: 0, mode: self.cpu.mode, max_insns: 1 };
        let block = lift(&request).expect("a whole instruction");
        self.cpu.pending = None;
        self.cpu.header.verdict = 0;
        Interp::default().run(&block, &mut *self.cpu);
        self.cpu.pending.take()
    }

    /// [`Machine::call`], after which a failed helper must have left the registers alone.
    pub fn fails(&mut self, helper: Helper, operands: [u64; 3], arg: u32) -> (u8, Option<u32>) {
        let before = self.cpu.state;
        let exception = self.call(helper, operands, arg).expect_err("no exception");
        assert!(self.cpu.state == before, "{helper:?} changed state before it failed");
        (exception.vector, exception.error)
    }

    /// Delivers an exception raised at `state.rip`.
    pub fn deliver(&mut self, exception: Exception) {
        self.cpu.raise(exception);
        self.cpu.deliver_pending();
        assert_eq!((self.cpu.pending, self.cpu.header.verdict), (None, 0));
    }

    pub fn selector(&self, seg: Seg) -> u16 {
        self.cpu.state.seg[seg as usize].selector
    }

    pub fn rsp(&self) -> u64 {
        self.cpu.state.gpr[reg::RSP]
    }
}
