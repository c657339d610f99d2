//! An x86 vCPU as debuggers see it, and the guest's own data breakpoints.

use std::fmt::Write;

use mimus_ir::FpEnv;
use mimus_softmmu::{Watch, WatchOwner};

use super::cpu::Cpu;
use super::fp::mxcsr::{MXCSR_MASK, to_mxcsr};
use super::fp::x87::EnvLayout;
use super::mode::Mode;
use super::paging;
use super::state::{Breakpoint, Condition, Cr3, Dr6, Rflags, Seg, Segment, State, TableReg};
use crate::common::debug::{DebugCpu, Description, Feature, Register, Tables};

/// General registers in gdb's order, by their numbers in encodings.
const GENERAL: [(&str, usize); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];

/// Segment registers in gdb's order.
const SEGMENTS: [(&str, Seg); 6] =
    [("cs", Seg::Cs), ("ss", Seg::Ss), ("ds", Seg::Ds), ("es", Seg::Es), ("fs", Seg::Fs), ("gs", Seg::Gs)];

/// Words of the x87 unit in gdb's order, and where [`super::fp::x87::Fpu::save`] has them: byte and bits.
const X87_WORDS: [(&str, usize, u16); 8] = [
    ("fctrl", 0, 16),
    ("fstat", 4, 16),
    ("ftag", 8, 16),
    ("fiseg", 16, 16),
    ("fioff", 12, 32),
    ("foseg", 24, 16),
    ("fooff", 20, 32),
    ("fop", 18, 16),
];

/// Offset of ST(0) there, in bytes.
const X87_STACK: usize = 28;

/// Registers that only system software sees, in the order of the description.
const SYSTEM: [&str; 6] = ["k_gs_base", "cr0", "cr2", "cr3", "cr4", "efer"];

const CORE_TYPES: &str = concat!(
    r#"<flags id="i386_eflags" size="4">"#,
    r#"<field name="CF" start="0" end="0"/><field name="" start="1" end="1"/><field name="PF" start="2" end="2"/>"#,
    r#"<field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>"#,
    r#"<field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/><field name="DF" start="10" end="10"/>"#,
    r#"<field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/>"#,
    r#"<field name="RF" start="16" end="16"/><field name="VM" start="17" end="17"/>"#,
    r#"<field name="AC" start="18" end="18"/><field name="VIF" start="19" end="19"/>"#,
    r#"<field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/></flags>"#,
);

const SSE_TYPES: &str = concat!(
    r#"<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>"#,
    r#"<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>"#,
    r#"<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>"#,
    r#"<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>"#,
    r#"<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>"#,
    r#"<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>"#,
);

// Numbers of the first register of each kind.
const RIP: usize = 16;
const EFLAGS: usize = 17;
const SEGMENT0: usize = 18;
const ST0: usize = 24;
const WORD0: usize = 32;
const XMM0: usize = 40;
const MXCSR: usize = 56;
const FS_BASE: usize = 57;
const GS_BASE: usize = 58;
const SYSTEM0: usize = 59;

fn description() -> Description {
    let mut core: Vec<Register> = GENERAL
        .iter()
        .map(|&(name, _)| {
            let pointer = matches!(name, "rbp" | "rsp");
            Register::new(name, 64, if pointer { "data_ptr" } else { "int64" })
        })
        .collect();
    core.push(Register::new("rip", 64, "code_ptr"));
    core.push(Register::new("eflags", 32, "i386_eflags"));
    core.extend(SEGMENTS.iter().map(|&(name, _)| Register::new(name, 32, "int32")));
    core.extend((0..8).map(|i| Register::new(format!("st{i}"), 80, "i387_ext")));
    core.extend(X87_WORDS.iter().map(|&(name, ..)| Register::new(name, 32, "int").in_group("float")));
    let mut sse: Vec<Register> = (0..16).map(|i| Register::new(format!("xmm{i}"), 128, "vec128")).collect();
    sse.push(Register::new("mxcsr", 32, "int").in_group("vector"));
    let bases = ["fs_base", "gs_base"].map(|name| Register::new(name, 64, "int")).to_vec();
    let system = SYSTEM.map(|name| Register::new(name, 64, "int64").in_group("system")).to_vec();
    let feature = |name, types, registers| Feature { name, types, registers };
    Description {
        architecture: "i386:x86-64",
        features: vec![
            feature("org.gnu.gdb.i386.core", CORE_TYPES, core),
            feature("org.gnu.gdb.i386.sse", SSE_TYPES, sse),
            feature("org.gnu.gdb.i386.segments", "", bases),
            feature("org.mimus.i386.system", "", system),
        ],
        general: SYSTEM0,
        pc: "rip",
    }
}

impl Cpu {
    fn x87_word(&self, index: usize) -> Option<u128> {
        let &(_, at, bits) = X87_WORDS.get(index)?;
        let image = self.state.fpu.save(EnvLayout::Protected32);
        let bytes = image.get(at..at + usize::from(bits) / 8)?;
        Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte)))
    }

    fn set_x87(&mut self, at: usize, bytes: &[u8]) {
        let mut image = self.state.fpu.save(EnvLayout::Protected32);
        if let Some(place) = image.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
            self.state.fpu.restore(EnvLayout::Protected32, &image);
        }
    }

    /// Writes a segment register as a debugger asks for: in real and virtual-8086 mode its base follows. Elsewhere a selector
    /// without its descriptor would be a lie: only the one that is there already is accepted.
    fn set_selector(&mut self, seg: Seg, selector: u16) -> bool {
        let real = self.mode.real_or_vm86();
        let segment = &mut self.state.seg[seg as usize];
        if real {
            segment.selector = selector;
            segment.base = u64::from(selector) << 4;
        }
        segment.selector == selector
    }

    /// Watches what DR7 says (SDM vol. 3B, 17.2.4). To be called after any change of DR0-DR3 and DR7.
    pub(crate) fn update_data_breakpoints(&mut self) {
        let dr7 = self.state.dr7;
        let watches: Vec<Watch> = (0..)
            .zip(self.state.dr)
            .filter_map(|(i, addr)| {
                let Breakpoint { condition, len } = dr7.breakpoint(i)?;
                let read = match condition {
                    Condition::Write => false,
                    Condition::Access => true,
                    Condition::Execution | Condition::Port => return None,
                };
                let addr = addr & !(len - 1);
                Some(Watch { addr, len, read, write: true, owner: WatchOwner::Guest, tag: i })
            })
            .collect();
        let old = self.mmu.watches.list().iter().filter(|watch| watch.owner == WatchOwner::Guest);
        if !old.eq(&watches) {
            self.mmu.set_watches(WatchOwner::Guest, watches);
        }
    }

    /// The data breakpoints that were hit, as DR6 has them.
    pub(crate) fn take_data_breakpoints(&mut self) -> Dr6 {
        if !self.mmu.watches.has_hits() {
            return Dr6::empty();
        }
        self.mmu.watches.take_hits(WatchOwner::Guest).iter().map(|hit| Dr6::hit(hit.watch.tag)).collect()
    }

    /// What depends on control registers and segments follows after a debugger's write.
    fn settle(&mut self) {
        self.update_mode();
        self.flush_tlb(false);
    }

    fn set_system(&mut self, index: usize, value: u64) -> bool {
        let s = &mut self.state;
        match index {
            0 => s.kernel_gs_base = value,
            2 => s.cr2 = value,
            3 => s.cr3 = Cr3::from_bits_retain(value),
            // Of the other registers the processor checks and derives much: those that they have already are accepted.
            1 => return s.cr0.bits() == value,
            4 => return s.cr4.bits() == value,
            5 => return s.efer.bits() == value,
            _ => return false,
        }
        true
    }
}

impl DebugCpu for Cpu {
    fn description() -> Description {
        description()
    }

    fn register(&mut self, number: usize) -> Option<u128> {
        let s = &self.state;
        let value = match number {
            0..RIP => s.gpr[GENERAL[number].1],
            RIP => s.rip,
            EFLAGS => s.rflags().bits(),
            SEGMENT0..ST0 => s.seg[SEGMENTS[number - SEGMENT0].1 as usize].selector.into(),
            ST0..WORD0 => {
                let image = s.fpu.save(EnvLayout::Protected32);
                let bytes = image.get(X87_STACK + 10 * (number - ST0)..)?.get(..10)?;
                return Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte)));
            }
            WORD0..XMM0 => return self.x87_word(number - WORD0),
            XMM0..MXCSR => {
                let [low, high] = s.xmm[number - XMM0];
                return Some(u128::from(low) | u128::from(high) << 64);
            }
            MXCSR => to_mxcsr(s.float_env()).into(),
            FS_BASE => s.seg[Seg::Fs as usize].base,
            GS_BASE => s.seg[Seg::Gs as usize].base,
            _ => *[s.kernel_gs_base, s.cr0.bits(), s.cr2, s.cr3.bits(), s.cr4.bits(), s.efer.bits()]
                .get(number - SYSTEM0)?,
        };
        Some(value.into())
    }

    fn set_register(&mut self, number: usize, value: u128) -> bool {
        let low = value as u64;
        match number {
            0..RIP => self.state.gpr[GENERAL[number].1] = low,
            RIP => self.state.rip = low,
            EFLAGS => {
                // Bits that exist, and not VM: it changes the mode of segments, too.
                let kept = self.state.rflags() & Rflags::VM;
                let new = Rflags::from_bits_retain(low) & Rflags::EXIST & !Rflags::VM;
                self.state.set_rflags(new | kept);
            }
            SEGMENT0..ST0 => {
                if !self.set_selector(SEGMENTS[number - SEGMENT0].1, low as u16) {
                    return false;
                }
            }
            ST0..WORD0 => self.set_x87(X87_STACK + 10 * (number - ST0), &value.to_le_bytes()[..10]),
            WORD0..XMM0 => {
                let (_, at, bits) = X87_WORDS[number - WORD0];
                self.set_x87(at, &value.to_le_bytes()[..usize::from(bits) / 8]);
            }
            XMM0..MXCSR => self.state.xmm[number - XMM0] = [low, (value >> 64) as u64],
            MXCSR => self.state.set_float_env(FpEnv::from_bits_retain(low as u32 & MXCSR_MASK)),
            FS_BASE => self.state.seg[Seg::Fs as usize].base = low,
            GS_BASE => self.state.seg[Seg::Gs as usize].base = low,
            _ => {
                if number < SYSTEM0 || !self.set_system(number - SYSTEM0, low) {
                    return false;
                }
            }
        }
        self.settle();
        true
    }

    fn translate_debug(&mut self, addr: u64) -> Option<u64> {
        self.state.translate_debug(&self.mmu.ram, addr)
    }

    fn registers_text(&mut self) -> String {
        registers_text(&self.state, self.mode)
    }

    fn tables_text(&mut self, tables: Tables) -> String {
        paging::tables_text(&self.state, &self.mmu.ram, tables)
    }

    fn is_halted(&self) -> bool {
        self.waits()
    }

    fn address_bytes(&self) -> usize {
        if self.mode.intersects(Mode::CODE64) { 8 } else { 4 }
    }
}

/// Lines of general registers, `width` hexadecimal digits each.
fn general_text(out: &mut String, s: &State, wide: bool) {
    const NAMES: [(&str, usize); 8] =
        [("AX", 0), ("BX", 3), ("CX", 1), ("DX", 2), ("SI", 6), ("DI", 7), ("BP", 5), ("SP", 4)];
    let mut items: Vec<String> = Vec::new();
    for (name, at) in NAMES {
        let value = s.gpr[at];
        items.push(if wide { format!("R{name}={value:016x}") } else { format!("E{name}={:08x}", value as u32) });
    }
    if wide {
        items.extend((8..16).map(|i| format!("R{i:<2}={:016x}", s.gpr[i])));
    }
    for line in items.chunks(4) {
        let _ = writeln!(out, "{}", line.join(" "));
    }
}

fn segment_text(out: &mut String, name: &str, segment: &Segment, wide: bool) {
    let Segment { base, limit, selector, access } = *segment;
    let base = if wide { format!("{base:016x}") } else { format!("{:08x}", base as u32) };
    let _ = writeln!(out, "{name:<3}={selector:04x} {base} {limit:08x} {:08x}", u32::from(access) << 8);
}

/// All registers as QEMU's `info registers` shows them.
fn registers_text(s: &State, mode: Mode) -> String {
    let wide = mode.intersects(Mode::CODE64);
    let mut out = String::new();
    general_text(&mut out, s, wide);
    let flags = s.rflags();
    const LETTERS: [(Rflags, char); 7] = [
        (Rflags::DF, 'D'),
        (Rflags::OF, 'O'),
        (Rflags::SF, 'S'),
        (Rflags::ZF, 'Z'),
        (Rflags::AF, 'A'),
        (Rflags::PF, 'P'),
        (Rflags::CF, 'C'),
    ];
    let letters: String = LETTERS.iter().map(|&(bit, c)| if flags.contains(bit) { c } else { '-' }).collect();
    let (name, rip) = if wide { ("RIP", format!("{:016x}", s.rip)) } else { ("EIP", format!("{:08x}", s.rip as u32)) };
    let _ = writeln!(
        out,
        "{name}={rip} {}FL={flags:08x} [{letters}] CPL={} II={} A20=1 SMM=0 HLT={}",
        if wide { 'R' } else { 'E' },
        s.cpl(),
        s.shadow,
        s.halted
    );
    let all = [("ES", Seg::Es), ("CS", Seg::Cs), ("SS", Seg::Ss), ("DS", Seg::Ds), ("FS", Seg::Fs), ("GS", Seg::Gs)];
    for (name, seg) in all {
        segment_text(&mut out, name, &s.seg[seg as usize], wide);
    }
    segment_text(&mut out, "LDT", &s.ldtr, wide);
    segment_text(&mut out, "TR", &s.tr, wide);
    for (name, TableReg { base, limit }) in [("GDT", s.gdtr), ("IDT", s.idtr)] {
        let base = if wide { format!("{base:016x}") } else { format!("{:08x}", base as u32) };
        let _ = writeln!(out, "{name}=     {base} {limit:08x}");
    }
    let control = |value: u64| if wide { format!("{value:016x}") } else { format!("{:08x}", value as u32) };
    let _ = writeln!(out, "CR0={:08x} CR2={} CR3={} CR4={:08x}", s.cr0, control(s.cr2), control(s.cr3.bits()), s.cr4);
    let debug: Vec<String> = (0..4).map(|i| format!("DR{i}={}", control(s.dr[i]))).collect();
    let _ = writeln!(out, "{} \nDR6={} DR7={}", debug.join(" "), control(s.dr6.bits()), control(s.dr7.bits()));
    let _ = writeln!(out, "EFER={:016x}", s.efer);
    float_text(&mut out, s);
    out
}

fn float_text(out: &mut String, s: &State) {
    let fpu = &s.fpu;
    let full = (0..8).fold(0u8, |bits, i| bits | u8::from(fpu.tag_word() >> (2 * i) & 3 != 3) << i);
    let _ = writeln!(
        out,
        "FCW={:04x} FSW={:04x} [ST={}] FTW={full:02x} MXCSR={:08x}",
        fpu.control_word(),
        fpu.status_word(),
        fpu.top(),
        to_mxcsr(s.float_env())
    );
    let stack: Vec<String> =
        fpu.regs.iter().enumerate().map(|(i, reg)| format!("FPR{i}={:016x} {:04x}", reg.sig, reg.se)).collect();
    let vectors: Vec<String> =
        s.xmm.iter().enumerate().map(|(i, [low, high])| format!("XMM{i:02}={high:016x}{low:016x}")).collect();
    for line in stack.chunks(2).chain(vectors.chunks(2)) {
        let _ = writeln!(out, "{}", line.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mimus_softmmu::{CodeSink, Dropped, Ram};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::x86::{Features, NoDevices};

    struct NoCode;

    impl CodeSink for NoCode {
        fn code_written(&self, _: u64, _: u64) -> Dropped {
            Dropped::NONE
        }

        fn translates(&self, _: u64, _: u64, _: u64) -> bool {
            false
        }
    }

    fn cpu() -> Box<Cpu> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        Cpu::new(Arc::new(Ram::new(memory)), Arc::new(NoCode), Box::new(NoDevices), Features::default())
    }

    #[test]
    fn every_register_is_read_and_written_by_its_number() {
        let mut cpu = cpu();
        let description = Cpu::description();
        for (name, number) in [
            ("rip", RIP),
            ("eflags", EFLAGS),
            ("cs", SEGMENT0),
            ("st0", ST0),
            ("fctrl", WORD0),
            ("xmm0", XMM0),
            ("mxcsr", MXCSR),
            ("fs_base", FS_BASE),
            ("gs_base", GS_BASE),
            ("k_gs_base", SYSTEM0),
        ] {
            assert_eq!(description.number(name), Some(number), "{name}");
        }
        let fixed = ["cr0", "cr4", "efer", "fstat", "ftag", "fctrl", "fiseg", "foseg", "fop", "eflags", "mxcsr"];
        for (number, register) in description.registers().enumerate() {
            let old = cpu.register(number).unwrap();
            assert!(cpu.set_register(number, old), "{}", register.name);
            assert_eq!(cpu.register(number), Some(old), "{}", register.name);
            if fixed.contains(&&*register.name) || register.name.starts_with("st") {
                continue;
            }
            let value = 0x1122_3344_5566_7788_99aa_bbcc_ddee_f001u128 & (u128::MAX >> (128 - register.bits));
            let value = if (SEGMENT0..ST0).contains(&number) { 0x1234 } else { value };
            assert!(cpu.set_register(number, value), "{}", register.name);
            assert_eq!(cpu.register(number), Some(value), "{}", register.name);
        }
        assert_eq!(cpu.register(description.registers().count()), None);
        assert!(!cpu.set_register(description.registers().count(), 0));
        assert!(!cpu.set_register(SYSTEM0 + 1, 0x8000_0011), "CR0 is not written");
    }

    #[test]
    fn debug_registers_become_watches() {
        let mut cpu = cpu();
        cpu.state.dr[0] = 0x1003;
        cpu.state.dr[1] = 0x2000;
        // 0: writes of 4 bytes; 1: reads and writes of 8; 2: an instruction; 3 is not enabled.
        cpu.state.dr7 = crate::x86::state::Dr7::from_bits_retain(0x3f | 0b1101 << 16 | 0b1011 << 20 | 0b0001 << 28);
        cpu.update_data_breakpoints();
        let list: Vec<_> = cpu.mmu.watches.list().iter().map(|w| (w.addr, w.len, w.read, w.tag)).collect();
        assert_eq!(list, [(0x1000, 4, false, 0), (0x2000, 8, true, 1)]);
        cpu.write(0x1001, 1, 5).unwrap();
        cpu.read(0x2004, 1).unwrap();
        assert_eq!(cpu.take_data_breakpoints(), Dr6::B0 | Dr6::B1);
        cpu.reset();
        assert!(cpu.mmu.watches.is_empty());
    }

    #[test]
    fn the_text_has_every_register() {
        let text = cpu().registers_text();
        for part in ["EAX=00000000", "EIP=0000fff0 EFL=00000002 [-------] CPL=0", "CS =f000 ffff0000 0000ffff 00009b00"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("XMM15=") && text.contains("FPR7="));
    }
}
