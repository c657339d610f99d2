//! Control and status registers: one line each (vol. II, "CSR Listing"). A number's bits 8 and 9 are the lowest privilege that
//! may use it, bits 10 and 11 both set say that it is read-only.

use super::bus::irq;
use super::cpu::Cpu;
use super::float;
use super::helpers::Helper;
use super::paging::satp;
use super::state::{Counter, Countinhibit, Envcfg, Exceptions, Interrupts, Mstatus, State, privilege};

/// Reads a register; the argument is its place in the row.
pub type Read = fn(&mut Cpu, usize) -> u64;
/// Writes a register.
pub type Write = fn(&mut Cpu, usize, u64);

/// What a register is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A word of env of which nothing else depends; writes keep the bits of the mask.
    Plain {
        /// Offset in env.
        offset: u16,
        /// Bits that can be set.
        mask: u64,
    },
    /// Reads as this; writes are ignored.
    Fixed(u64),
    /// Whatever its functions do.
    Special(Read, Write),
}

/// What else must be so for it to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Nothing.
    Open,
    /// The floating-point unit is not off.
    Float,
    /// The counter is enabled for lower modes: bit `number & 31` of mcounteren and scounteren.
    Counter,
    /// mstatus.TVM does not keep it from supervisor mode.
    Satp,
    /// menvcfg.STCE and mcounteren.TM let supervisor mode have it.
    Stimecmp,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Number of the first.
    pub number: u16,
    /// How many there are.
    pub count: u16,
    /// Step from one number to the next.
    pub step: u16,
    /// Name; of the first, without its number, if there are several.
    pub name: &'static str,
    /// Number in the name of the first, if there are several.
    pub first: u16,
    /// Further condition.
    pub gate: Gate,
    /// What it is.
    pub kind: Kind,
}

macro_rules! csrs {
    ($($number:literal $name:literal $([$first:literal x $count:literal by $step:literal])? $gate:ident $kind:ident ($($arg:tt)*);)*) => {
        /// The table, by number.
        pub static TABLE: &[Row] = &[$(Row {
            number: $number,
            count: csrs!(@or 1 $($count)?),
            step: csrs!(@or 1 $($step)?),
            name: $name,
            first: csrs!(@or 0 $($first)?),
            gate: Gate::$gate,
            kind: csrs!(@$kind $($arg)*),
        }),*];
    };
    (@or $default:literal) => { $default };
    (@or $default:literal $value:literal) => { $value };
    (@plain $field:ident, $mask:expr) => {
        Kind::Plain { offset: std::mem::offset_of!(State, $field) as u16, mask: $mask }
    };
    (@fixed $value:expr) => { Kind::Fixed($value) };
    (@special $read:expr, $write:expr) => { Kind::Special($read, $write) };
}

/// MXL of 64 bits, A, C, D, F, I, M, S, U.
const MISA: u64 = 2 << 62 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12 | 1 << 18 | 1 << 20;
/// The mode of a trap vector is 0 or 1.
const TVEC: u64 = !2;
/// Exception codes and the interrupt bit.
const CAUSE: u64 = 1 << 63 | 0x3f;
const MIP: u16 = 0x344;

csrs! {
    0x001 "fflags" Float special(read_fflags, write_fflags);
    0x002 "frm" Float special(|c, _| c.state.frm, |c, _, v| c.write_frm(v));
    0x003 "fcsr" Float special(read_fcsr, write_fcsr);
    0x100 "sstatus" Open special(read_sstatus, write_sstatus);
    0x104 "sie" Open special(|c, _| (c.state.mie & c.state.mideleg).bits(), write_sie);
    0x105 "stvec" Open plain(stvec, TVEC);
    0x106 "scounteren" Open plain(scounteren, 0xffff_ffff);
    0x10a "senvcfg" Open special(|c, _| c.state.senvcfg.bits(), write_senvcfg);
    0x140 "sscratch" Open plain(sscratch, u64::MAX);
    0x141 "sepc" Open plain(sepc, !1);
    0x142 "scause" Open plain(scause, CAUSE);
    0x143 "stval" Open plain(stval, u64::MAX);
    0x144 "sip" Open special(|c, _| (c.mip() & c.state.mideleg).bits(), write_sip);
    0x14d "stimecmp" Stimecmp special(|c, _| c.state.stimecmp, write_stimecmp);
    0x180 "satp" Satp special(|c, _| c.state.satp, write_satp);
    0x300 "mstatus" Open special(read_mstatus, write_mstatus);
    0x301 "misa" Open fixed(MISA);
    0x302 "medeleg" Open plain(medeleg, Exceptions::DELEGABLE.bits());
    0x303 "mideleg" Open special(|c, _| c.state.mideleg.bits(), write_mideleg);
    0x304 "mie" Open special(|c, _| c.state.mie.bits(), write_mie);
    0x305 "mtvec" Open plain(mtvec, TVEC);
    0x306 "mcounteren" Open plain(mcounteren, 0xffff_ffff);
    0x30a "menvcfg" Open special(|c, _| c.state.menvcfg.bits(), write_menvcfg);
    0x320 "mcountinhibit" Open special(|c, _| c.state.mcountinhibit.bits(), write_mcountinhibit);
    0x323 "mhpmevent" [3 x 29 by 1] Open fixed(0);
    0x340 "mscratch" Open plain(mscratch, u64::MAX);
    0x341 "mepc" Open plain(mepc, !1);
    0x342 "mcause" Open plain(mcause, CAUSE);
    0x343 "mtval" Open plain(mtval, u64::MAX);
    0x344 "mip" Open special(|c, _| c.mip().bits(), write_mip);
    0x3a0 "pmpcfg" [0 x 8 by 2] Open special(|c, i| c.state.read_pmpcfg(8 * i), write_pmpcfg);
    0x3b0 "pmpaddr" [0 x 64 by 1] Open special(|c, i| c.state.read_pmpaddr(i), write_pmpaddr);
    0x7a0 "tselect" Open fixed(0);
    0x7a1 "tdata" [1 x 3 by 1] Open fixed(0);
    0xb00 "mcycle" Open special(read_cycle, write_cycle);
    0xb02 "minstret" Open special(|c, _| c.state.instret, |c, _, v| c.state.instret = v);
    0xb03 "mhpmcounter" [3 x 29 by 1] Open fixed(0);
    0xc00 "cycle" Counter special(read_cycle, |_, _, _| ());
    0xc01 "time" Counter special(|c, _| c.bus.time(), |_, _, _| ());
    0xc02 "instret" Counter special(|c, _| c.state.instret, |_, _, _| ());
    0xc03 "hpmcounter" [3 x 29 by 1] Counter fixed(0);
    0xf11 "mvendorid" Open fixed(0);
    0xf12 "marchid" Open fixed(0);
    0xf13 "mimpid" Open fixed(0);
    0xf14 "mhartid" Open special(|c, _| c.features.hart, |_, _, _| ());
    0xf15 "mconfigptr" Open fixed(0);
}

/// The row of register `number` and its place there.
pub fn lookup(number: u16) -> Option<(&'static Row, usize)> {
    let row = TABLE.partition_point(|row| row.number <= number).checked_sub(1).and_then(|i| TABLE.get(i))?;
    let offset = number - row.number;
    (offset.is_multiple_of(row.step) && offset / row.step < row.count).then_some((row, usize::from(offset / row.step)))
}

/// The name of register `number`.
pub fn name(number: u16) -> Option<String> {
    let (row, place) = lookup(number)?;
    // pmpcfg's numbers go up by two as those of the registers do.
    let n = usize::from(row.first) + place * usize::from(row.step);
    Some(if row.count == 1 { row.name.to_owned() } else { format!("{}{n}", row.name) })
}

/// Lowest privilege that may use register `number`.
pub const fn least_privilege(number: u16) -> u64 {
    (number >> 8 & 3) as u64
}

/// Whether register `number` is read-only.
pub const fn read_only(number: u16) -> bool {
    number >> 10 & 3 == 3
}

impl Row {
    /// The helper that reads and writes it.
    pub fn helper(&self) -> Helper {
        if self.gate == Gate::Float { Helper::CsrFloat } else { Helper::Csr }
    }
}

/// Whether register `number` is minstret or instret.
pub const fn counts_instructions(number: u16) -> bool {
    matches!(number, MINSTRET | INSTRET)
}

/// What a CSR instruction does with its operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Action {
    /// Nothing is written.
    Read = 0,
    /// The operand is written.
    Write = 1,
    /// The operand's bits are set.
    Set = 2,
    /// The operand's bits are cleared.
    Clear = 3,
}

impl Action {
    /// As held in bits 12 and 13 of the helper's constant.
    pub fn from_code(code: u32) -> Action {
        [Action::Read, Action::Write, Action::Set, Action::Clear][(code >> 12 & 3) as usize]
    }

    /// What is to be written where `old` is.
    pub const fn apply(self, old: u64, operand: u64) -> u64 {
        match self {
            Action::Read => old,
            Action::Write => operand,
            Action::Set => old | operand,
            Action::Clear => old & !operand,
        }
    }
}

impl Cpu {
    /// Whether the gate of register `number` is open for the present mode, whose privilege is sufficient.
    fn gate_open(&self, gate: Gate, number: u16) -> bool {
        let s = &self.state;
        let counter = |bit: u32| match s.privilege {
            privilege::MACHINE => true,
            privilege::SUPERVISOR => s.mcounteren >> bit & 1 != 0,
            _ => s.mcounteren & s.scounteren & 1 << bit != 0,
        };
        match gate {
            Gate::Open => true,
            Gate::Float => s.mstatus.intersects(Mstatus::FS),
            Gate::Counter => counter(u32::from(number) & 31),
            Gate::Satp => s.privilege == privilege::MACHINE || !s.mstatus.intersects(Mstatus::TVM),
            Gate::Stimecmp => {
                s.privilege == privilege::MACHINE || s.menvcfg.intersects(Envcfg::STCE) && counter(u32::from(TIME) & 31)
            }
        }
    }

    /// The row of a register and its place there; `None` if the present mode may not do `action`.
    fn allowed(&self, number: u16, action: Action) -> Option<(&'static Row, usize)> {
        let (row, place) = lookup(number)?;
        let denied = self.state.privilege < least_privilege(number) || action != Action::Read && read_only(number);
        (!denied && self.gate_open(row.gate, number)).then_some((row, place))
    }

    /// Has all code count instructions from here on, for an instruction that does `action` on minstret or instret; whether the
    /// present mode may do that.
    pub fn count_instructions(&mut self, number: u16, action: Action) -> bool {
        let allowed = self.allowed(number, action).is_some();
        if allowed {
            self.state.counting = 1;
            self.update_mode();
        }
        allowed
    }

    /// Reads a register and then does `action`; `None` if the present mode may not do so.
    pub fn access_csr(&mut self, number: u16, action: Action, operand: u64) -> Option<u64> {
        let (row, place) = self.allowed(number, action)?;
        Some(match row.kind {
            Kind::Fixed(value) => value,
            Kind::Plain { offset, mask } => {
                let bytes = bytemuck::bytes_of_mut(&mut self.state);
                let word = bytes.get_mut(usize::from(offset)..usize::from(offset) + 8)?;
                let old = u64::from_ne_bytes(word.try_into().ok()?);
                if action != Action::Read {
                    word.copy_from_slice(&(action.apply(old, operand) & mask).to_ne_bytes());
                }
                old
            }
            Kind::Special(read, write) => {
                let old = read(self, place);
                if action != Action::Read {
                    // A line that is high is not set by reading it and writing it back.
                    let base = if number == MIP { self.state.mip.bits() } else { old };
                    write(self, place, action.apply(base, operand));
                }
                old
            }
        })
    }

    fn write_frm(&mut self, value: u64) {
        self.state.frm = value & 7;
        float::set_rounding(&mut self.state);
        self.update_mode();
    }

    /// mstatus changed: what depends on it follows.
    fn set_mstatus(&mut self, value: Mstatus) {
        let changed = self.state.mstatus ^ value;
        self.state.mstatus = value;
        if changed.contains(Mstatus::MXR) {
            // The TLB has pages by whether they may be read.
            self.flush_tlb();
        }
        self.update_mode();
        self.open_interrupts();
    }
}

const TIME: u16 = 0xc01;
const INSTRET: u16 = 0xc02;
/// minstret's number.
pub const MINSTRET: u16 = 0xb02;

fn read_fflags(cpu: &mut Cpu, _: usize) -> u64 {
    float::fflags(&cpu.state)
}

fn write_fflags(cpu: &mut Cpu, _: usize, value: u64) {
    float::set_fflags(&mut cpu.state, value);
}

fn read_fcsr(cpu: &mut Cpu, _: usize) -> u64 {
    float::fflags(&cpu.state) | cpu.state.frm << 5
}

fn write_fcsr(cpu: &mut Cpu, _: usize, value: u64) {
    float::set_fflags(&mut cpu.state, value);
    cpu.write_frm(value >> 5);
}

fn read_mstatus(cpu: &mut Cpu, _: usize) -> u64 {
    let mut value = cpu.state.mstatus | Mstatus::UXL | Mstatus::SXL;
    value.set(Mstatus::SD, value.contains(Mstatus::FS));
    value.bits()
}

fn write_mstatus(cpu: &mut Cpu, _: usize, value: u64) {
    let mut value = Mstatus::from_bits_retain(value) & Mstatus::WRITABLE;
    // There is no mode 2: MPP stays what it was.
    if (value & Mstatus::MPP).bits() == 2 << Mstatus::MPP_SHIFT {
        value = value & !Mstatus::MPP | cpu.state.mstatus & Mstatus::MPP;
    }
    cpu.set_mstatus(value);
}

fn read_sstatus(cpu: &mut Cpu, place: usize) -> u64 {
    read_mstatus(cpu, place) & (Mstatus::SUPERVISOR | Mstatus::SD | Mstatus::UXL).bits()
}

fn write_sstatus(cpu: &mut Cpu, _: usize, value: u64) {
    let value = Mstatus::from_bits_retain(value);
    cpu.set_mstatus(cpu.state.mstatus & !Mstatus::SUPERVISOR | value & Mstatus::SUPERVISOR);
}

fn write_mie(cpu: &mut Cpu, _: usize, value: u64) {
    cpu.state.mie = Interrupts::from_bits_retain(value) & Interrupts::EXIST;
    cpu.open_interrupts();
}

fn write_sie(cpu: &mut Cpu, _: usize, value: u64) {
    let s = &mut cpu.state;
    s.mie = s.mie & !s.mideleg | Interrupts::from_bits_retain(value) & s.mideleg;
    cpu.open_interrupts();
}

fn write_mideleg(cpu: &mut Cpu, _: usize, value: u64) {
    cpu.state.mideleg = Interrupts::from_bits_retain(value) & Interrupts::SUPERVISOR;
    cpu.open_interrupts();
}

fn write_mip(cpu: &mut Cpu, _: usize, value: u64) {
    let s = &mut cpu.state;
    let value = Interrupts::from_bits_retain(value);
    let mut writable = Interrupts::SUPERVISOR;
    // With Sstc, STIP is the comparator's.
    writable.set(Interrupts::STI, !s.menvcfg.intersects(Envcfg::STCE));
    s.mip = s.mip & !writable | value & writable;
    if !value.contains(Interrupts::SSI) {
        // What the machine's software-interrupt device has raised is taken back in the same place.
        cpu.lines.set(irq::SSIP, false);
    }
    cpu.open_interrupts();
}

fn write_sip(cpu: &mut Cpu, _: usize, value: u64) {
    let writable = cpu.state.mideleg & Interrupts::SSI;
    let new = cpu.state.mip & !writable | Interrupts::from_bits_retain(value) & writable;
    if !writable.is_empty() && !new.contains(Interrupts::SSI) {
        cpu.lines.set(irq::SSIP, false);
    }
    cpu.state.mip = new;
    cpu.open_interrupts();
}

/// CBIE 2 is reserved: it stays what it was.
fn envcfg_value(old: Envcfg, value: u64, exist: Envcfg) -> Envcfg {
    let value = Envcfg::from_bits_retain(value) & exist;
    if (value & Envcfg::CBIE).bits() == 2 << 4 { value & !Envcfg::CBIE | old & Envcfg::CBIE } else { value }
}

fn write_senvcfg(cpu: &mut Cpu, _: usize, value: u64) {
    cpu.state.senvcfg = envcfg_value(cpu.state.senvcfg, value, Envcfg::SUPERVISOR);
}

fn write_menvcfg(cpu: &mut Cpu, _: usize, value: u64) {
    let old = cpu.state.menvcfg;
    cpu.state.menvcfg = envcfg_value(old, value, Envcfg::MACHINE);
    if (old ^ cpu.state.menvcfg).contains(Envcfg::STCE) {
        cpu.arm_timer();
    }
    cpu.open_interrupts();
}

fn write_stimecmp(cpu: &mut Cpu, _: usize, value: u64) {
    cpu.state.stimecmp = value;
    cpu.arm_timer();
    cpu.open_interrupts();
}

/// A mode of satp that is not there leaves all of it as it was.
fn write_satp(cpu: &mut Cpu, _: usize, value: u64) {
    let mode = value >> satp::MODE_SHIFT;
    if mode != satp::BARE && !(satp::SV39..=satp::SV57).contains(&mode) {
        return;
    }
    let old = cpu.state.satp;
    cpu.state.satp = value;
    if old >> satp::MODE_SHIFT != mode {
        cpu.flush_tlb();
    } else {
        cpu.enter_space();
    }
}

fn write_pmpcfg(cpu: &mut Cpu, i: usize, value: u64) {
    cpu.state.write_pmpcfg(8 * i, value);
    cpu.flush_tlb();
}

fn write_pmpaddr(cpu: &mut Cpu, i: usize, value: u64) {
    cpu.state.write_pmpaddr(i, value);
    cpu.flush_tlb();
}

/// mcycle counts the machine's nanoseconds: there is no other rate that its cycles have.
fn read_cycle(cpu: &mut Cpu, _: usize) -> u64 {
    let Counter { value, since } = cpu.state.cycle;
    let stopped = cpu.state.mcountinhibit.intersects(Countinhibit::CY);
    if stopped { value } else { value.wrapping_add(cpu.bus.nanoseconds().saturating_sub(since)) }
}

fn write_cycle(cpu: &mut Cpu, _: usize, value: u64) {
    cpu.state.cycle = Counter { value, since: cpu.bus.nanoseconds() };
}

fn write_mcountinhibit(cpu: &mut Cpu, _: usize, value: u64) {
    let cycle = read_cycle(cpu, 0);
    cpu.state.mcountinhibit = Countinhibit::from_bits_retain(value) & (Countinhibit::CY | Countinhibit::IR);
    write_cycle(cpu, 0, cycle);
    cpu.update_mode();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_apart() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].number + (pair[0].count - 1) * pair[0].step < pair[1].number, "{}", pair[1].name);
        }
    }

    #[test]
    fn names_are_the_manuals() {
        for (number, expected) in
            [(0x300, "mstatus"), (0x3a2, "pmpcfg2"), (0x3bf, "pmpaddr15"), (0xb1f, "mhpmcounter31"), (0xc01, "time")]
        {
            assert_eq!(name(number).as_deref(), Some(expected));
        }
        for number in [0x3a1, 0x3b0 + 64, 0xb01, 0x345, 0xfff] {
            assert_eq!(name(number), None, "{number:#x}");
        }
    }
}
