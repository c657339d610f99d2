//! What a debugger or a monitor sees of a vCPU that is between two instructions.

use crate::common::guest::GuestCpu;

/// A register as a debugger sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Register {
    /// Its name, as gdb knows it.
    pub name: String,
    /// Width in bits: a multiple of 8, up to 128.
    pub bits: u16,
    /// gdb's type of it, predefined or declared in [`Feature::types`].
    pub kind: &'static str,
    /// gdb's group of it where its type does not say.
    pub group: Option<&'static str>,
}

impl Register {
    /// A register without a group of its own.
    pub fn new(name: impl Into<String>, bits: u16, kind: &'static str) -> Register {
        Register { name: name.into(), bits, kind, group: None }
    }

    /// The same in `group`.
    pub fn in_group(self, group: &'static str) -> Register {
        Register { group: Some(group), ..self }
    }

    /// Width in bytes.
    pub const fn bytes(&self) -> usize {
        self.bits as usize / 8
    }
}

/// Registers that belong together ("Debugging with GDB", appendix "Target Descriptions").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// gdb's name of them.
    pub name: &'static str,
    /// Types of registers, as XML.
    pub types: &'static str,
    /// The registers; those of all features are numbered in order.
    pub registers: Vec<Register>,
}

/// A kind of vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// gdb's name of the architecture.
    pub architecture: &'static str,
    /// Its registers.
    pub features: Vec<Feature>,
    /// How many of the first are looked at after every stop.
    pub general: usize,
    /// Name of the program counter.
    pub pc: &'static str,
}

impl Description {
    /// All registers by number.
    pub fn registers(&self) -> impl Iterator<Item = &Register> {
        self.features.iter().flat_map(|feature| &feature.registers)
    }

    /// Number of a register.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.registers().position(|register| register.name == name)
    }
}

/// What of the page tables is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tables {
    /// Each page.
    Pages,
    /// Ranges of pages with the same rights.
    Ranges,
}

/// Page-table entries looked at for one listing: a guest's tables may be made so that there is no end.
pub const MAX_ENTRIES: usize = 4 << 20;

/// Bytes of one listing, at which it is cut.
pub const MAX_LISTING: usize = 8 << 20;

/// A vCPU that can be looked at.
pub trait DebugCpu: GuestCpu {
    /// Its registers.
    fn description() -> Description;
    /// Register `number` in its lowest bits.
    fn register(&mut self, number: usize) -> Option<u128>;
    /// Writes a register, and whatever depends on it follows; whether that was possible.
    fn set_register(&mut self, number: usize, value: u128) -> bool;
    /// Physical address of virtual address `addr` in the present mode, whatever its rights. Sets no accessed bits.
    fn translate_debug(&mut self, addr: u64) -> Option<u64>;
    /// All registers as lines of text, as QEMU's monitor has them.
    fn registers_text(&mut self) -> String;
    /// What is mapped, as lines of text, as QEMU's monitor has them.
    fn tables_text(&mut self, tables: Tables) -> String;
    /// Whether the vCPU waits for an interrupt.
    fn is_halted(&self) -> bool;
    /// Width in bytes of an address in the present mode.
    fn address_bytes(&self) -> usize;
}

/// Appends to a listing unless that is as long as it may be; whether it was done.
pub(crate) fn append(out: &mut String, line: &str) -> bool {
    if out.len() + line.len() > MAX_LISTING {
        return false;
    }
    out.push_str(line);
    true
}
