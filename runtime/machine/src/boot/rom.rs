//! The option ROM by which firmware starts a kernel (BIOS Boot Specification 1.01, 3.2 and 3.3): a bootable device whose entry
//! copies pieces of memory by DMA of the firmware configuration device, completes what only firmware knows, and jumps to the
//! kernel.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::BootState;

/// What the firmware's list of what to boot calls it, behind the folder of such files.
pub const ROM_FILE: &str = "genroms/mimus-kernel.bin";

/// The unit of a ROM's size in bytes, and of the size of its expansion header.
const BLOCK: usize = 512;
const PARAGRAPH: usize = 16;
/// Where the parts of the ROM are: the entry that firmware calls while it sets itself up, the pointer to the expansion header, that
/// header, the product's name, and what the code reads.
const INIT: usize = 3;
const HEADER_POINTER: usize = 0x1a;
const HEADER: usize = 0x20;
const HEADER_SIZE: usize = 0x20;
const NAME: usize = HEADER + HEADER_SIZE;
const DATA: usize = 0x60;
const NAME_TEXT: &[u8] = b"kernel of -kernel\0";
/// A far return.
const RETF: u8 = 0xcb;

/// The code's memory in segment 0: the request for DMA, and the end of its stack. Nothing may be loaded here.
pub(super) const WORK: (u64, u64) = (0x7a00, 0x7c00);
/// Bytes of room for a memory map, and of each of its entries in either form.
pub(super) const MAP_ROOM: u64 = 0x1000;
const MAP_ENTRY: u32 = 24;
/// What BIOS writes of an entry.
const MAP_BIOS_ENTRY: u32 = 20;

/// Ports of the firmware configuration device's DMA address, high and low half, big-endian; bits of the control word.
const DMA_HIGH: u32 = 0x514;
const DMA_LOW: u32 = 0x518;
const DMA_READ: u32 = 1 << 1;
const DMA_SELECT: u32 = 1 << 3;
/// The error bit as a little-endian word has it.
const DMA_ERROR: u32 = 1 << 24;

/// The most pieces, which leave room for the code in a ROM of less than 64 KiB.
pub(super) const JOBS_MOST: usize = 2048;

/// A piece of memory: `len` bytes of an item from its beginning, with zeros where it ends before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The item's number.
    pub(super) key: u16,
    /// Bytes.
    pub(super) len: u32,
    /// Where they go.
    pub(super) address: u64,
}

impl Job {
    /// The request as the device reads it, all big-endian.
    fn request(&self) -> [u8; 16] {
        let mut request = [0; 16];
        let control = u32::from(self.key) << 16 | DMA_SELECT | DMA_READ;
        request[..4].copy_from_slice(&control.to_be_bytes());
        request[4..8].copy_from_slice(&self.len.to_be_bytes());
        request[8..].copy_from_slice(&self.address.to_be_bytes());
        request
    }
}

/// Which protocol's structure has the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    /// Multiboot's information: entries with their size in front, the map's length in bytes, and the amounts of memory.
    Multiboot,
    /// PVH's start information: entries with a word behind them, their number, and the address of the RSDP.
    Pvh,
}

/// How the kernel is entered.
pub(super) enum Start<'a> {
    /// In real mode, 32 bytes of paragraphs behind a segment that all data segment registers have.
    Real {
        /// The segment.
        segment: u16,
        /// The stack pointer in it.
        stack: u16,
    },
    /// In 32-bit protected mode.
    Protected {
        /// The registers; EBX has the address of the protocol's structure, at the start of a paragraph.
        state: &'a BootState,
        /// Where there is room for a memory map, at the start of a paragraph.
        map: u64,
        /// What it looks like.
        kind: MapKind,
    },
}

/// The ROM that does `jobs` and enters the kernel.
pub(super) fn build(jobs: &[Job], start: &Start) -> Result<Vec<u8>, IcedError> {
    let mut rom = vec![0; DATA];
    for (at, bytes) in [(0, &[0x55, 0xaa][..]), (INIT, &[RETF]), (HEADER_POINTER, &[HEADER as u8]), (NAME, NAME_TEXT)] {
        put(&mut rom, at, bytes);
    }
    jobs.iter().for_each(|job| rom.extend(job.request()));
    let gdtr = rom.len();
    if let Start::Protected { state, .. } = start {
        rom.extend(state.gdt.limit.to_le_bytes());
        rom.extend((state.gdt.base as u32).to_le_bytes());
    }
    let entry = rom.len();
    rom.extend(code(jobs.len(), gdtr, start)?.assemble(entry as u64)?);
    expansion_header(&mut rom, entry);
    // One byte more for the sum.
    let size = (rom.len() + 1).next_multiple_of(BLOCK);
    rom.resize(size, 0);
    put(&mut rom, 2, &[(size / BLOCK) as u8]);
    let sum = negated_sum(&rom);
    put(&mut rom, size - 1, &[sum]);
    Ok(rom)
}

fn put(rom: &mut [u8], at: usize, bytes: &[u8]) {
    rom.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
}

fn negated_sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// The Plug and Play expansion header (BIOS Boot Specification 1.01, 3.2) with the bootstrap entry vector.
fn expansion_header(rom: &mut [u8], entry: usize) {
    let word = |value: usize| (value as u16).to_le_bytes();
    put(rom, HEADER, b"$PnP\x01");
    put(rom, HEADER + 5, &[(HEADER_SIZE / PARAGRAPH) as u8]);
    put(rom, HEADER + 16, &word(NAME));
    put(rom, HEADER + 26, &word(entry));
    let sum = rom.get(HEADER..HEADER + HEADER_SIZE).map_or(0, negated_sum);
    put(rom, HEADER + 9, &[sum]);
}

type Asm = Result<(), IcedError>;

fn code(jobs: usize, gdtr: usize, start: &Start) -> Result<CodeAssembler, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let mut failed = a.create_label();
    a.cld()?;
    a.xor(ax, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, WORK.1 as u32)?;
    // While nothing of the BIOS' memory is overwritten.
    if let Start::Protected { map, kind, .. } = start {
        ask_for_memory(&mut a, *map, *kind)?;
    }
    copy(&mut a, jobs, failed)?;
    match start {
        Start::Real { segment, stack } => enter_real(&mut a, *segment, *stack)?,
        Start::Protected { state, kind, .. } => {
            complete(&mut a, state, *kind)?;
            enter_protected(&mut a, gdtr, state)?;
        }
    }
    a.set_label(&mut failed)?;
    fail(&mut a)?;
    Ok(a)
}

/// Reads the memory map by INT 15h, AX=E820h (ACPI specification 6.5, 15.1), and pushes what [`complete`] needs.
fn ask_for_memory(a: &mut CodeAssembler, map: u64, kind: MapKind) -> Asm {
    const SMAP: u32 = u32::from_be_bytes(*b"SMAP");
    const EXTENDED: u32 = 0x10_0000;
    let (mut next, mut other, mut end) = (a.create_label(), a.create_label(), a.create_label());
    let first: u32 = if kind == MapKind::Multiboot { 4 } else { 0 };
    a.mov(ax, (map >> 4) as u32)?;
    a.mov(es, ax)?;
    a.mov(di, first)?;
    a.xor(ebx, ebx)?;
    a.xor(ebp, ebp)?;
    a.set_label(&mut next)?;
    a.mov(eax, 0xe820)?;
    a.mov(ecx, MAP_BIOS_ENTRY)?;
    a.mov(edx, SMAP)?;
    a.int(0x15)?;
    a.jc(end)?;
    match kind {
        MapKind::Multiboot => {
            a.mov(dword_ptr(di - 4).es(), MAP_BIOS_ENTRY)?;
            a.cmp(dword_ptr(di).es(), EXTENDED)?;
            a.jne(other)?;
            a.cmp(dword_ptr(di + 4).es(), 0)?;
            a.jne(other)?;
            a.mov(ebp, dword_ptr(di + 8).es())?;
        }
        MapKind::Pvh => a.mov(dword_ptr(di + MAP_BIOS_ENTRY as i32).es(), 0)?,
    }
    a.set_label(&mut other)?;
    a.add(di, MAP_ENTRY)?;
    a.cmp(di, MAP_ROOM as u32 - MAP_ENTRY)?;
    a.ja(end)?;
    a.test(ebx, ebx)?;
    a.jnz(next)?;
    a.set_label(&mut end)?;
    a.movzx(edi, di)?;
    a.sub(edi, first)?;
    a.push(edi)?;
    a.push(ebp)
}

/// Copies every piece.
fn copy(a: &mut CodeAssembler, jobs: usize, failed: CodeLabel) -> Asm {
    const REQUEST: u32 = WORK.0 as u32;
    let (mut next, mut wait, mut done) = (a.create_label(), a.create_label(), a.create_label());
    a.push(cs)?;
    a.pop(ds)?;
    a.mov(si, DATA as u32)?;
    a.mov(bp, jobs as u32)?;
    a.set_label(&mut next)?;
    a.xor(ax, ax)?;
    a.mov(es, ax)?;
    a.mov(di, REQUEST)?;
    a.mov(cx, 8)?;
    a.rep().movsw()?;
    a.xor(eax, eax)?;
    a.mov(dx, DMA_HIGH)?;
    a.out(dx, eax)?;
    a.mov(eax, REQUEST.swap_bytes())?;
    a.mov(dx, DMA_LOW)?;
    a.out(dx, eax)?;
    a.set_label(&mut wait)?;
    a.mov(eax, dword_ptr(REQUEST).es())?;
    a.test(eax, eax)?;
    a.jz(done)?;
    a.test(eax, DMA_ERROR)?;
    a.jz(wait)?;
    a.jmp(failed)?;
    a.set_label(&mut done)?;
    a.dec(bp)?;
    a.jnz(next)
}

/// Writes into the protocol's structure what firmware has told.
fn complete(a: &mut CodeAssembler, state: &BootState, kind: MapKind) -> Asm {
    a.mov(ax, (info(state) >> 4) as u32)?;
    a.mov(es, ax)?;
    a.pop(ebp)?;
    a.pop(edi)?;
    match kind {
        // Memory below 640 KiB and above 1 MiB in KiB, and the map's length.
        MapKind::Multiboot => {
            a.mov(dword_ptr(44).es(), edi)?;
            a.shr(ebp, 10)?;
            a.mov(dword_ptr(8).es(), ebp)?;
            a.int(0x12)?;
            a.movzx(eax, ax)?;
            a.mov(dword_ptr(4).es(), eax)
        }
        MapKind::Pvh => {
            a.mov(ax, di)?;
            a.xor(dx, dx)?;
            a.mov(cx, MAP_ENTRY)?;
            a.div(cx)?;
            a.mov(word_ptr(48).es(), ax)?;
            find_rsdp(a)
        }
    }
}

/// Writes the address of the RSDP (ACPI specification 6.5, 5.2.5.1), which stays 0 if there is none.
fn find_rsdp(a: &mut CodeAssembler) -> Asm {
    let (mut next, mut other, mut found) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(ax, 0xe000)?;
    a.set_label(&mut next)?;
    a.mov(ds, ax)?;
    a.cmp(dword_ptr(0).ds(), u32::from_le_bytes(*b"RSD "))?;
    a.jne(other)?;
    a.cmp(dword_ptr(4).ds(), u32::from_le_bytes(*b"PTR "))?;
    a.je(found)?;
    a.set_label(&mut other)?;
    a.inc(ax)?;
    a.jnz(next)?;
    a.set_label(&mut found)?;
    a.movzx(eax, ax)?;
    a.shl(eax, 4)?;
    a.mov(dword_ptr(32).es(), eax)
}

/// Where the protocol's structure is.
fn info(state: &BootState) -> u64 {
    const RBX: usize = 3;
    state.gpr[RBX]
}

fn enter_real(a: &mut CodeAssembler, segment: u16, stack: u16) -> Asm {
    a.cli()?;
    a.mov(ax, u32::from(segment))?;
    data_segments(a)?;
    a.mov(sp, u32::from(stack))?;
    // JMP ptr16:16 to the 32nd paragraph.
    let mut jump = vec![0xea, 0, 0];
    jump.extend(segment.wrapping_add(0x20).to_le_bytes());
    a.db(&jump)
}

fn enter_protected(a: &mut CodeAssembler, gdtr: usize, state: &BootState) -> Asm {
    const CR0_PE: u32 = 1 << 0;
    a.cli()?;
    a.push(cs)?;
    a.pop(ds)?;
    a.lgdt(ptr(gdtr as u32))?;
    a.mov(eax, cr0)?;
    a.or(eax, CR0_PE)?;
    a.mov(cr0, eax)?;
    a.mov(ax, u32::from(state.segments.ds.selector))?;
    data_segments(a)?;
    a.mov(esp, WORK.1 as u32)?;
    let [magic, _, _, structure, _, _, parameters, ..] = state.gpr;
    let registers = [(eax, magic), (ebx, structure), (ecx, 0), (edx, 0), (esi, parameters), (edi, 0), (ebp, 0)];
    for (register, value) in registers {
        a.mov(register, value as u32)?;
    }
    // JMP ptr16:32.
    let mut jump = vec![0x66, 0xea];
    jump.extend((state.rip as u32).to_le_bytes());
    jump.extend(state.segments.cs.selector.to_le_bytes());
    a.db(&jump)
}

/// Emits: all data segment registers get AX.
fn data_segments(a: &mut CodeAssembler) -> Asm {
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, ax)?;
    }
    Ok(())
}

/// Says that a piece could not be copied, and stops.
fn fail(a: &mut CodeAssembler) -> Asm {
    let mut stop = a.create_label();
    for character in b"mimus: the kernel cannot be copied\r\n" {
        a.mov(ax, 0x0e00 | u32::from(*character))?;
        a.mov(bx, 7)?;
        a.int(0x10)?;
    }
    a.set_label(&mut stop)?;
    a.hlt()?;
    a.jmp(stop)
}

#[cfg(test)]
mod tests {
    use super::super::state::BootMode;
    use super::*;

    fn word(rom: &[u8], at: usize) -> usize {
        u16::from_le_bytes([rom[at], rom[at + 1]]).into()
    }

    #[test]
    fn firmware_finds_a_bootable_device() {
        let state = BootState::new(BootMode::Protected32 { entry: 0x10_0000, eax: 1, ebx: 0x9000, esi: 0 }, 0x1000);
        let starts = [
            Start::Real { segment: 0x1000, stack: 0xfff0 },
            Start::Protected { state: &state, map: 0x2000, kind: MapKind::Multiboot },
            Start::Protected { state: &state, map: 0x2000, kind: MapKind::Pvh },
        ];
        let jobs = [Job { key: 0x18, len: 0x1234, address: 0x1_0000 }, Job { key: 0x11, len: 5, address: 0x10_0000 }];
        for start in starts {
            let rom = build(&jobs, &start).unwrap();
            assert_eq!((rom[..2].to_vec(), usize::from(rom[2]) * BLOCK), (vec![0x55, 0xaa], rom.len()));
            assert_eq!((negated_sum(&rom), rom[INIT]), (0, RETF));
            let header = word(&rom, HEADER_POINTER);
            assert_eq!(&rom[header..header + 4], b"$PnP");
            let size = usize::from(rom[header + 5]) * PARAGRAPH;
            assert_eq!(negated_sum(&rom[header..header + size]), 0);
            assert!(rom[word(&rom, header + 16)..].starts_with(NAME_TEXT));
            assert_eq!(rom[DATA..DATA + 16], [0, 0x18, 0, 10, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 1, 0, 0]);
            // CLD.
            assert_eq!(rom[word(&rom, header + 26)], 0xfc);
        }
    }
}
