//! Small 32-bit kernels for the tests, as Multiboot and PVH images.
//!
//! A kernel is loaded at [`BASE`]. Before its code runs it has segments and a stack of its own and an interrupt table whose
//! every gate ends the run with the number of the vector, by way of `isa-debug-exit`.

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, al, dx};

/// Where kernels are loaded.
pub const BASE: u32 = 0x10_0000;
/// RAM above every kernel that is the guest's to use, if there is that much.
pub const FREE: u32 = 0x40_0000;
/// The port of `isa-debug-exit`.
pub const EXIT_PORT: u32 = 0x501;
/// The port of the debug console.
pub const DEBUG_PORT: u32 = 0xe9;

/// Offsets in an image.
const GDT: usize = 0x40;
const GDT_POINTER: usize = 0x70;
const IDT_POINTER: usize = 0x78;
const IDT: usize = 0x100;
const STUBS: usize = 0x200;
const CODE: usize = 0x400;

/// Exceptions that have a gate.
const VECTORS: usize = 32;
const STUB_SIZE: usize = 8;

/// Segments of privilege level 0 (SDM vol. 3A, 3.4.5): none, flat code, flat data, data of one byte.
const SEGMENTS: [u64; 4] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0040_9300_0000_0000];
const CODE_SELECTOR: u32 = 8;
/// The selector of a data segment that has one byte, at address 0.
pub const TINY_SELECTOR: u32 = 24;

/// The exit code of a run whose guest wrote `value` to `isa-debug-exit`.
pub fn exit_code(value: u8) -> i32 {
    i32::from(value) << 1 & 0xff | 1
}

/// Ends the run with `value`.
pub fn exit(a: &mut CodeAssembler, value: u32) -> Result<(), IcedError> {
    a.mov(dx, EXIT_PORT)?;
    a.mov(al, value)?;
    a.out(dx, al)
}

/// What runs first: the tables are loaded and the data segments and the stack set.
fn prelude() -> Vec<u8> {
    let pointer = |offset: usize| (BASE + offset as u32).to_le_bytes();
    let mut code = vec![0x0f, 0x01, 0x15];
    code.extend(pointer(GDT_POINTER));
    // A far jump to what follows it.
    let after = CODE + code.len() + 7;
    code.push(0xea);
    code.extend(pointer(after));
    code.extend([CODE_SELECTOR as u8, 0]);
    // mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax; mov esp, 0x90000
    code.extend([0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x00, 0x09, 0x00]);
    code.extend([0x0f, 0x01, 0x1d]);
    code.extend(pointer(IDT_POINTER));
    code
}

/// Assembles a kernel, ready for [`multiboot`] or [`pvh`].
pub fn kernel(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let prelude = prelude();
    let mut assembler = CodeAssembler::new(32).expect("32 bits are supported");
    build(&mut assembler).expect("the instructions exist");
    let start = u64::from(BASE) + (CODE + prelude.len()) as u64;
    let code = assembler.assemble(start).expect("the code can be assembled");
    raw(&[prelude, code].concat())
}

/// A kernel of these bytes, entered at the first, with its tables not loaded.
pub fn raw(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; CODE];
    let put =
        |image: &mut Vec<u8>, offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    for (index, segment) in SEGMENTS.iter().enumerate() {
        put(&mut image, GDT + index * 8, &segment.to_le_bytes());
    }
    for (pointer, table, size) in [(GDT_POINTER, GDT, SEGMENTS.len() * 8), (IDT_POINTER, IDT, VECTORS * 8)] {
        put(&mut image, pointer, &(size as u16 - 1).to_le_bytes());
        put(&mut image, pointer + 2, &(BASE + table as u32).to_le_bytes());
    }
    for vector in 0..VECTORS {
        let stub = STUBS + vector * STUB_SIZE;
        let target = BASE + stub as u32;
        // mov al, vector; mov dx, 0x501; out dx, al; hlt
        put(&mut image, stub, &[0xb0, vector as u8, 0x66, 0xba, 0x01, 0x05, 0xee, 0xf4]);
        // A 32-bit interrupt gate (SDM vol. 3A, 6.11).
        let (low, high) = (CODE_SELECTOR << 16 | target & 0xffff, target & 0xffff_0000 | 0x8e00);
        put(&mut image, IDT + vector * 8, &low.to_le_bytes());
        put(&mut image, IDT + vector * 8 + 4, &high.to_le_bytes());
    }
    image.extend_from_slice(code);
    image
}

/// A Multiboot file (Multiboot Specification 0.6.96, 3.1): the kernel with its header at the beginning.
pub fn multiboot(mut kernel: Vec<u8>) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    const ADDRESSES: u32 = 1 << 16;
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES);
    let header = [MAGIC, ADDRESSES, checksum, BASE, BASE, 0, 0, BASE + CODE as u32];
    let bytes: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    kernel[..bytes.len()].copy_from_slice(&bytes);
    kernel
}

/// A 32-bit ELF file with one segment and a PVH note (Xen, "x86/HVM direct boot ABI").
pub fn pvh(kernel: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 52;
    const PROGRAM_HEADER: u32 = 32;
    const NOTE: u32 = HEADER + 2 * PROGRAM_HEADER;
    const NOTE_SIZE: u32 = 20;
    const SEGMENT: u32 = 0x1000;
    let (entry, size) = (BASE + CODE as u32, kernel.len() as u32);
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut words = |words: &[u32]| file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    // Executable for the 80386; version; entry; program headers; no sections; flags; sizes and counts.
    words(&[2 | 3 << 16, 1, entry, HEADER, 0, 0, HEADER | PROGRAM_HEADER << 16, 2, 0]);
    words(&[1, SEGMENT, BASE, BASE, size, size, 7, 0x1000]);
    words(&[4, NOTE, 0, 0, NOTE_SIZE, NOTE_SIZE, 4, 4]);
    words(&[4, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry]);
    file.resize(SEGMENT as usize, 0);
    file.extend_from_slice(kernel);
    file
}
