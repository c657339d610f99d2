//! Hardware task switches (SDM vol. 3A, 7.3).

use super::super::cpu::{Cpu, Raised, Result};
use super::super::exception::{Exception, vector};
use super::super::state::{Cr0, Cr3, Dr6, Dr7, Rflags, Seg, Segment, State};
use super::descriptor::{is_null, kind, rpl};
use super::interrupt::Event;
use super::stack::Stack;
use super::truncate;

/// What makes the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    Jump,
    /// CALL, or an interrupt through a task gate: the new task is nested.
    Nested,
    Iret,
}

/// A task switch to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    pub cause: Cause,
    /// EIP to save in the old task.
    pub rip: u64,
    /// Set RF in the EFLAGS image saved.
    pub resume: bool,
    /// Error code to push on the new task's stack.
    pub error: Option<u32>,
    /// Bit 0 of error codes.
    pub ext: u32,
}

impl Switch {
    /// By an instruction.
    pub(crate) fn instruction(cause: Cause, rip: u64) -> Switch {
        Switch { cause, rip, resume: false, error: None, ext: 0 }
    }

    /// By an interrupt or exception through a task gate.
    pub(crate) fn gate(event: &Event) -> Switch {
        Switch { cause: Cause::Nested, rip: event.rip, resume: event.resume, error: event.error, ext: event.ext() }
    }
}

/// Where a TSS keeps what a switch saves and loads (SDM vol. 3A, figures 7-2 and 7-10), in bytes.
struct Layout {
    word: u8,
    min_limit: u32,
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    gpr: u64,
    /// ES, CS, SS, DS and, with six of them, FS, GS.
    segs: u64,
    seg_count: usize,
    ldt: u64,
    trap: Option<u64>,
}

static TSS16: Layout = Layout {
    word: 2,
    min_limit: 0x2b,
    cr3: None,
    ip: 0x0e,
    flags: 0x10,
    gpr: 0x12,
    segs: 0x22,
    seg_count: 4,
    ldt: 0x2a,
    trap: None,
};

static TSS32: Layout = Layout {
    word: 4,
    min_limit: 0x67,
    cr3: Some(0x1c),
    ip: 0x20,
    flags: 0x24,
    gpr: 0x28,
    segs: 0x48,
    seg_count: 6,
    ldt: 0x60,
    trap: Some(0x64),
};

impl Layout {
    fn of(access: u16) -> &'static Layout {
        if access & kind::WIDE != 0 { &TSS32 } else { &TSS16 }
    }

    fn at(&self, first: u64, index: usize) -> u64 {
        first + u64::from(self.word) * index as u64
    }
}

/// The state a TSS holds.
#[derive(Default)]
struct Image {
    cr3: Cr3,
    ip: u64,
    flags: Rflags,
    gpr: [u64; 8],
    segs: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Cpu {
    /// [`Cpu::switch_task`] for an instruction: a fault of the new task is delivered to it.
    pub(crate) fn switch_by_instruction(&mut self, selector: u16, cause: Cause, rip: u64) -> Result<()> {
        if self.switch_task(selector, Switch::instruction(cause, rip))? {
            self.deliver_pending();
        }
        Ok(())
    }

    /// Switches to the task of TSS `selector`. `Err`: nothing was changed. `Ok(true)`: the switch was made, `state.rip` is
    /// the new task's, and an exception of the new task is pending.
    pub(crate) fn switch_task(&mut self, selector: u16, switch: Switch) -> Result<bool> {
        let ext = switch.ext;
        let invalid = if switch.cause == Cause::Iret { vector::TS } else { vector::GP };
        if selector & 4 != 0 || is_null(selector) || self.state.long_active() {
            return Err(self.selector_fault(invalid, selector, ext));
        }
        let descriptor = self.descriptor(selector, invalid, ext)?;
        let busy = if switch.cause == Cause::Iret { kind::BUSY } else { 0 };
        if !descriptor.is_system() || descriptor.kind() & !kind::WIDE != kind::TSS16 | busy {
            return Err(self.selector_fault(invalid, selector, ext));
        }
        if !descriptor.present() {
            return Err(self.selector_fault(vector::NP, selector, ext));
        }
        let (new, old) = (descriptor.segment(selector), self.state.tr);
        let (layout, old_layout) = (Layout::of(new.access), Layout::of(old.access));
        if new.limit < layout.min_limit {
            return Err(self.selector_fault(vector::TS, selector, ext));
        }
        if old.limit < old_layout.min_limit {
            return Err(self.selector_fault(vector::TS, old.selector, ext));
        }

        // Everything that can fault comes before the first write.
        let image = self.read_tss(&new, layout)?;
        let bank = self.data_bank(0);
        let (first, end) = (old_layout.ip, u64::from(old_layout.min_limit));
        self.probe_write_as(bank, self.tss_address(&old, first), end - first)?;
        if switch.cause == Cause::Nested {
            self.probe_write_as(bank, self.tss_address(&new, 0), 2)?;
        }
        let old_descriptor = if switch.cause == Cause::Nested { None } else { self.find_descriptor(old.selector)? };
        for address in [Some(descriptor.address), old_descriptor.map(|d| d.address)].into_iter().flatten() {
            self.probe_write_as(bank, address.wrapping_add(5), 1)?;
        }
        self.write_tss(&old, old_layout, &switch)?;
        if let Some(old_descriptor) = old_descriptor {
            self.mark_busy(&old_descriptor, false)?;
        }
        if switch.cause == Cause::Nested {
            self.write_system(self.tss_address(&new, 0), 2, old.selector.into())?;
        }
        if switch.cause != Cause::Iret {
            self.mark_busy(&descriptor, true)?;
        }
        self.state.tr = Segment { access: new.access | kind::BUSY, ..new };
        Ok(self.load_task(&image, layout, &switch).is_err())
    }

    fn tss_address(&self, tss: &Segment, offset: u64) -> u64 {
        self.state.linear(tss.base.wrapping_add(offset))
    }

    fn read_tss(&mut self, tss: &Segment, layout: &Layout) -> Result<Image> {
        let mut image = Image::default();
        let mut read = |offset: u64, size: u8| {
            let address = self.tss_address(tss, offset);
            self.read_system(address, size)
        };
        if let Some(offset) = layout.cr3 {
            image.cr3 = Cr3::from_bits_retain(read(offset, 4)?);
        }
        image.ip = read(layout.ip, layout.word)?;
        image.flags = Rflags::from_bits_retain(read(layout.flags, layout.word)?);
        for (i, register) in image.gpr.iter_mut().enumerate() {
            *register = read(layout.at(layout.gpr, i), layout.word)?;
        }
        for (i, selector) in image.segs.iter_mut().take(layout.seg_count).enumerate() {
            *selector = read(layout.at(layout.segs, i), 2)? as u16;
        }
        image.ldt = read(layout.ldt, 2)? as u16;
        if let Some(offset) = layout.trap {
            image.trap = read(offset, 2)? & 1 != 0;
        }
        Ok(image)
    }

    fn write_tss(&mut self, tss: &Segment, layout: &Layout, switch: &Switch) -> Result<()> {
        let mut flags = self.state.rflags();
        if switch.cause == Cause::Iret {
            flags.remove(Rflags::NT);
        }
        if switch.resume {
            flags |= Rflags::RF;
        }
        let write = |cpu: &mut Cpu, offset: u64, size: u8, value: u64| {
            let address = cpu.tss_address(tss, offset);
            cpu.write_system(address, size, value)
        };
        write(self, layout.ip, layout.word, switch.rip)?;
        write(self, layout.flags, layout.word, flags.bits())?;
        for i in 0..8 {
            write(self, layout.at(layout.gpr, i), layout.word, self.state.gpr[i])?;
        }
        for i in 0..layout.seg_count {
            write(self, layout.at(layout.segs, i), 2, self.state.seg[i].selector.into())?;
        }
        Ok(())
    }

    /// Loads the new task. On failure its exception is pending, in its own context.
    fn load_task(&mut self, image: &Image, layout: &Layout, switch: &Switch) -> Result<()> {
        let (ext, word) = (switch.ext, u32::from(layout.word));
        self.state.cr0 |= Cr0::TS;
        self.state.dr7.remove(Dr7::LOCAL);
        self.update_data_breakpoints();
        let mut flags = image.flags & Rflags::EXIST & !self.stale_resume();
        if switch.cause == Cause::Nested {
            flags |= Rflags::NT;
        }
        self.state.set_rflags(flags);
        // A 16-bit TSS has the lower halves; processors set the upper ones.
        let upper = if layout.word == 2 { 0xffff_0000 } else { 0 };
        for (register, value) in self.state.gpr.iter_mut().zip(image.gpr) {
            *register = upper | value;
        }
        self.state.rip = truncate(image.ip, word);
        let vm86 = self.state.vm86();
        let cpl = if vm86 { 3 } else { rpl(image.segs[Seg::Cs as usize]) };
        // Visible parts first: a fault below is the new task's, with its selectors in place and nothing usable.
        for (segment, &selector) in self.state.seg.iter_mut().zip(&image.segs) {
            *segment = Segment { base: 0, limit: 0, selector, access: 0 };
        }
        self.state.seg[Seg::Ss as usize].access = u16::from(cpl) << 5;
        self.state.ldtr = Segment { base: 0, limit: 0, selector: image.ldt, access: 0 };
        let mut pdptes_valid = true;
        if layout.cr3.is_some() && self.state.cr0.contains(Cr0::PG) {
            self.state.cr3 = image.cr3;
            if self.state.pae_paging() {
                let pdptes = State::read_pdptes(&self.mmu.ram, image.cr3);
                pdptes_valid = pdptes.is_some();
                self.state.pdpte = pdptes.unwrap_or_default();
            }
            self.flush_tlb(true);
        }
        self.update_mode();
        if !pdptes_valid {
            return Err(self.selector_fault(vector::TS, self.state.tr.selector, ext));
        }

        self.load_task_ldt(image.ldt, ext)?;
        if vm86 {
            for seg in Seg::ALL {
                self.state.seg[seg as usize] = self.real_segment(seg, image.segs[seg as usize]);
            }
        } else {
            let code = self.task_code(image.segs[Seg::Cs as usize], ext)?;
            self.state.seg[Seg::Cs as usize] = code;
            let stack = self.stack_segment(image.segs[Seg::Ss as usize], cpl, vector::TS, ext)?;
            self.state.seg[Seg::Ss as usize] = stack;
            for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
                let segment = self.data_segment(image.segs[seg as usize], cpl, vector::TS, ext)?;
                self.state.seg[seg as usize] = segment;
            }
        }
        self.update_mode();
        let code = self.state.seg[Seg::Cs as usize];
        if let Some(error) = switch.error {
            let mut stack = Stack::current(self).with_code(ext);
            stack.push(self, layout.word, &[error.into()])?;
            stack.commit(self);
        }
        self.check_rip(&code, self.state.rip, ext)?;
        if image.trap {
            return Err(self.raise(Exception::debug(Dr6::BT)));
        }
        Ok(())
    }

    fn load_task_ldt(&mut self, selector: u16, ext: u32) -> Result<()> {
        if is_null(selector) {
            return Ok(());
        }
        let bad = |cpu: &mut Cpu| -> Raised { cpu.selector_fault(vector::TS, selector, ext) };
        if selector & 4 != 0 {
            return Err(bad(self));
        }
        let descriptor = self.descriptor(selector, vector::TS, ext)?;
        if !descriptor.is_system() || descriptor.kind() != kind::LDT || !descriptor.present() {
            return Err(bad(self));
        }
        self.state.ldtr = descriptor.segment(selector);
        Ok(())
    }

    /// CS of a new task: its RPL is the task's privilege level.
    fn task_code(&mut self, selector: u16, ext: u32) -> Result<Segment> {
        if is_null(selector) {
            return Err(self.selector_fault(vector::TS, 0, ext));
        }
        let descriptor = self.descriptor(selector, vector::TS, ext)?;
        let code = descriptor.segment(selector);
        let level = rpl(selector);
        let privileged = if descriptor.conforming() { code.dpl() <= level } else { code.dpl() == level };
        if !code.is_code() || !privileged {
            return Err(self.selector_fault(vector::TS, selector, ext));
        }
        if !code.present() {
            return Err(self.selector_fault(vector::NP, selector, ext));
        }
        self.mark_accessed(&descriptor)?;
        Ok(code)
    }

    /// IRET with NT set: back to the task whose TSS the current one links to.
    pub(crate) fn return_to_task(&mut self, next_rip: u64) -> Result<()> {
        let link = self.read_system(self.tss_address(&self.state.tr, 0), 2)? as u16;
        self.switch_by_instruction(link, Cause::Iret, next_rip)
    }
}
