//! Segment and gate descriptors (SDM vol. 3A, 3.4.5, 3.5, 5.8.3).

use super::super::cpu::{Cpu, Result};
use super::super::exception::vector;
use super::super::state::Segment;

/// Types of system descriptors (SDM vol. 3A, table 3-2).
#[allow(missing_docs)]
pub mod kind {
    pub const TSS16: u16 = 1;
    pub const LDT: u16 = 2;
    pub const TSS16_BUSY: u16 = 3;
    pub const CALL16: u16 = 4;
    pub const TASK_GATE: u16 = 5;
    pub const INTERRUPT16: u16 = 6;
    pub const TRAP16: u16 = 7;
    pub const TSS32: u16 = 9;
    pub const TSS32_BUSY: u16 = 0xb;
    pub const CALL32: u16 = 0xc;
    pub const INTERRUPT32: u16 = 0xe;
    pub const TRAP32: u16 = 0xf;
    /// Bit that makes a TSS busy.
    pub const BUSY: u16 = 2;
    /// Bit that tells 32-bit from 16-bit gates and TSSs.
    pub const WIDE: u16 = 8;
}

/// Whether a selector is null.
pub const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// Requested privilege level of a selector.
pub const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// A descriptor as found in GDT, LDT or IDT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Its first 8 bytes.
    pub raw: u64,
    /// The next 8 bytes of a 16-byte system descriptor; 0 for others.
    pub upper: u64,
    /// Its linear address.
    pub address: u64,
}

impl Descriptor {
    /// Descriptor bits 40..56 as in [`Segment::access`].
    pub const fn access(&self) -> u16 {
        (self.raw >> 40) as u16 & 0xf0ff
    }

    /// As a segment register's hidden part.
    pub const fn segment(&self, selector: u16) -> Segment {
        let raw = self.raw;
        let base = raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000 | self.upper << 32;
        let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
        let granular = raw >> 55 & 1 != 0;
        let limit = if granular { limit << 12 | 0xfff } else { limit };
        Segment { base, limit, selector, access: self.access() }
    }

    /// Whether S is clear: a system segment or gate.
    pub const fn is_system(&self) -> bool {
        self.access() & 0x10 == 0
    }

    /// Type (4 bits).
    pub const fn kind(&self) -> u16 {
        self.access() & 0xf
    }

    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.access() >> 5 & 3) as u8
    }

    /// P.
    pub const fn present(&self) -> bool {
        self.access() & 0x80 != 0
    }

    /// Selector in a gate.
    pub const fn gate_selector(&self) -> u16 {
        (self.raw >> 16) as u16
    }

    /// Offset in a gate: 16 bits for types below [`kind::WIDE`].
    pub const fn gate_offset(&self) -> u64 {
        let low = self.raw & 0xffff;
        if self.kind() & kind::WIDE == 0 { low } else { low | self.raw >> 32 & 0xffff_0000 | self.upper << 32 }
    }

    /// Parameter count of a call gate (legacy) or interrupt stack table index (IDT gates in IA-32e mode).
    pub const fn gate_count(&self) -> u64 {
        self.raw >> 32 & 0x1f
    }

    /// Conforming code.
    pub const fn conforming(&self) -> bool {
        self.access() & 0x1c == 0x1c
    }
}

impl Cpu {
    /// Linear address of `bytes` of the descriptor of `selector`; `None` outside its table.
    fn descriptor_address(&self, selector: u16, bytes: u64) -> Option<u64> {
        let s = &self.state;
        let (base, limit) = if selector & 4 == 0 {
            (s.gdtr.base, s.gdtr.limit)
        } else if s.ldtr.present() {
            (s.ldtr.base, s.ldtr.limit.into())
        } else {
            return None;
        };
        let offset = u64::from(selector & !7);
        (offset + bytes - 1 <= limit).then(|| s.linear(base.wrapping_add(offset)))
    }

    /// The descriptor of `selector`, its first 8 bytes; `None` outside its table. Raises page faults only.
    pub fn find_descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>> {
        match self.descriptor_address(selector, 8) {
            Some(address) => Ok(Some(Descriptor { raw: self.read_system(address, 8)?, upper: 0, address })),
            None => Ok(None),
        }
    }

    /// The descriptor of `selector`; `fault` with the selector outside its table.
    pub fn descriptor(&mut self, selector: u16, fault: u8, ext: u32) -> Result<Descriptor> {
        match self.find_descriptor(selector)? {
            Some(descriptor) => Ok(descriptor),
            None => Err(self.selector_fault(fault, selector, ext)),
        }
    }

    /// Adds the upper half of a system descriptor in IA-32e mode, where it has 16 bytes; #GP when it does not fit its table
    /// or its second type field is not 0 (SDM vol. 3A, 5.8.3.1, 7.2.3).
    pub fn complete_system_descriptor(&mut self, selector: u16, descriptor: Descriptor) -> Result<Descriptor> {
        if !self.state.long_active() {
            return Ok(descriptor);
        }
        let Some(address) = self.descriptor_address(selector, 16) else {
            return Err(self.selector_fault(vector::GP, selector, 0));
        };
        let upper = self.read_system(address.wrapping_add(8), 8)?;
        if upper >> 40 & 0x1f != 0 {
            return Err(self.selector_fault(vector::GP, selector, 0));
        }
        Ok(Descriptor { upper: upper & 0xffff_ffff, ..descriptor })
    }

    /// Sets the accessed bit of a code or data descriptor.
    pub fn mark_accessed(&mut self, descriptor: &Descriptor) -> Result<()> {
        if descriptor.is_system() || descriptor.access() & 1 != 0 {
            return Ok(());
        }
        self.update_system(descriptor.address.wrapping_add(5), 1, 0)
    }

    /// Sets or clears the busy bit of a TSS descriptor.
    pub fn mark_busy(&mut self, descriptor: &Descriptor, busy: bool) -> Result<()> {
        let bit = kind::BUSY as u8;
        let (set, clear) = if busy { (bit, 0) } else { (0, bit) };
        self.update_system(descriptor.address.wrapping_add(5), set, clear)
    }

    /// The segment for SS that `selector` names at privilege level `cpl` (SDM vol. 2B, MOV). `fault` is #GP or #TS.
    pub fn stack_segment(&mut self, selector: u16, cpl: u8, fault: u8, ext: u32) -> Result<Segment> {
        if is_null(selector) {
            return Err(self.selector_fault(fault, 0, ext));
        }
        let descriptor = self.descriptor(selector, fault, ext)?;
        let segment = descriptor.segment(selector);
        let fits = segment.is_code_or_data() && segment.writable() && segment.dpl() == cpl && rpl(selector) == cpl;
        if !fits {
            return Err(self.selector_fault(fault, selector, ext));
        }
        if !segment.present() {
            return Err(self.selector_fault(vector::SS, selector, ext));
        }
        self.mark_accessed(&descriptor)?;
        Ok(segment)
    }

    /// The segment for DS, ES, FS or GS that `selector` names at privilege level `cpl`. `fault` is #GP or #TS.
    pub fn data_segment(&mut self, selector: u16, cpl: u8, fault: u8, ext: u32) -> Result<Segment> {
        if is_null(selector) {
            return Ok(Segment { base: 0, limit: 0, selector, access: 0 });
        }
        let descriptor = self.descriptor(selector, fault, ext)?;
        let segment = descriptor.segment(selector);
        let privileged = descriptor.conforming() || segment.dpl() >= cpl.max(rpl(selector));
        if !segment.is_code_or_data() || !segment.readable() || !privileged {
            return Err(self.selector_fault(fault, selector, ext));
        }
        if !segment.present() {
            return Err(self.selector_fault(vector::NP, selector, ext));
        }
        self.mark_accessed(&descriptor)?;
        Ok(segment)
    }
}
