//! What the runtime needs of a guest's vCPU, whichever guest it is. A dispatcher is generic over it, so that each guest has one
//! of its own and no call is indirect.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::DerefMut;

use mimus_ir::text::Names;
use mimus_ir::{Block, EnvSlot, Guest, Stop, VecInfo};

use super::helpers::{self, GuestNames, HelperRow};
use super::vcpu::{Arch, Core};

pub use super::vcpu::Raised;

/// The first instruction goes beyond the bytes given, which are fewer than the longest instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncated;

/// Code to be translated, at the vCPU's program counter.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Code bytes; translation does not go past them.
    pub bytes: &'a [u8],
    /// How many of `bytes` are in the page of the first: only the first instruction may go beyond.
    pub in_page: usize,
    /// Most instructions to translate.
    pub max_insns: u32,
}

/// Code that is written again and again, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Patched<'a> {
    /// Guest-physical address of the first byte to translate, which is RAM.
    pub gpa: u64,
    /// Guest-physical addresses and lengths of what is written at once.
    pub writes: &'a [(u64, u64)],
}

/// What a translation depends on beside its bytes and where they are. Each guest packs it into these words as it likes; the cache
/// only compares them.
pub type TbWords = [u32; 2];

/// A vCPU: what its guest adds to its [`Core`], which is its first field, so that its address is the env pointer of compiled code.
pub trait GuestCpu: Guest + Arch + DerefMut<Target = Core<Self>> {
    /// Offset of the [`EnvHeader`](mimus_softmmu::EnvHeader) from the env pointer, in bytes.
    const HEADER_OFFSET: usize = Core::<Self>::HEADER_OFFSET;
    /// Bytes of env that ops address.
    const STATE_BYTES: usize = size_of::<Self::State>();
    /// Longest instruction in bytes; at most 16.
    const MAX_INSN_LEN: usize;
    /// Most instructions of a block.
    const MAX_BLOCK_INSNS: u32;

    /// The helper table.
    fn helper_table() -> &'static [HelperRow<Self>];
    /// Name of a register for dumps.
    fn slot_name(_slot: EnvSlot) -> Option<Cow<'static, str>> {
        None
    }

    /// The helper table for [`EnvHeader::helpers`](mimus_softmmu::EnvHeader::helpers): host addresses by number.
    fn helpers() -> Vec<u64> {
        Self::helper_table().iter().map(|row| row.function as usize as u64).collect()
    }
    /// Names of registers and helpers for dumps.
    fn names() -> &'static dyn Names {
        &GuestNames::<Self>(PhantomData)
    }

    /// What [`Guest::call`] asks for.
    ///
    /// # Errors
    ///
    /// As for that.
    #[inline(always)]
    fn call_helper(&mut self, helper: u16, args: [u64; 3], arg: u32) -> Result<u64, Stop> {
        helpers::call(self, helper, args, arg)
    }
    /// What [`Guest::float`] asks for.
    fn compute_float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128;
    /// What [`Guest::trap`] asks for.
    fn raise_trap(&mut self, code: u64);

    /// Program counter, as blocks have it.
    fn pc(&self) -> u64;
    /// Sets the program counter.
    fn set_pc(&mut self, pc: u64);
    /// What code translated at the program counter depends on beside its bytes and addresses.
    fn tb_words(&self) -> TbWords;
    /// Whether code at the program counter may be translated relative to its page: blocks have guest PCs less its address
    /// ([`mimus_softmmu::EnvHeader::pc_base`]), and depend on no other part of where they are.
    fn page_relative(&self) -> bool {
        false
    }
    /// Linear address of the program counter.
    #[inline]
    fn linear_pc(&self) -> u64 {
        self.pc()
    }
    /// Recomputes everything that is derived from registers.
    fn update_mode(&mut self);

    /// Checks the program counter before a block there is looked for.
    ///
    /// # Errors
    ///
    /// [`Raised`] with the fault pending.
    #[inline]
    fn check_pc(&mut self) -> Result<(), Raised> {
        Ok(())
    }
    /// Guest-physical address of an instruction byte at linear address `addr`.
    ///
    /// # Errors
    ///
    /// [`Raised`] with the fault pending.
    fn translate_fetch(&mut self, addr: u64) -> Result<u64, Raised> {
        let bank = self.bank;
        self.fetch(bank, addr)
    }
    /// Translates a block at the program counter in the present mode, its guest PCs relative to
    /// [`EnvHeader::pc_base`](mimus_softmmu::EnvHeader::pc_base), which is 0 unless the guest is [`GuestCpu::page_relative`]. The result has
    /// at least one instruction: one that cannot be decoded raises its exception.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when more bytes are needed for the first instruction.
    fn lift(&self, code: &Code<'_>) -> Result<Block, Truncated>;
    /// The same, but operands in the code that are written again and again may be read when they are executed: to `read` go
    /// their offsets and lengths in bytes. The block stays valid when these bytes change.
    ///
    /// # Errors
    ///
    /// As for [`GuestCpu::lift`].
    fn lift_patched(&self, code: &Code<'_>, _: &Patched<'_>, _: &mut Vec<(u32, u32)>) -> Result<Block, Truncated> {
        self.lift(code)
    }
    /// Makes pending what an instruction raises that is longer than any may be.
    fn raise_too_long(&mut self) -> Raised;

    /// Whether instructions are to be run one at a time: a trap follows each, or may come before it.
    #[inline]
    fn single_steps(&self) -> bool {
        false
    }
    /// Before an instruction run by itself; `Err` when a fault is pending instead.
    ///
    /// # Errors
    ///
    /// [`Raised`] with the fault pending.
    fn before_step(&mut self) -> Result<(), Raised> {
        Ok(())
    }
    /// After it, unless it faulted.
    fn after_step(&mut self) {}
    /// Enters the handler of the pending fault of the instruction at the program counter.
    fn deliver(&mut self);

    /// Names of the extensions that the helpers with the effect [`mimus_ir::Effects::EXTENSION`] are operations of, of which the
    /// backend's targets have some.
    const EXTENSIONS: &'static [&'static str] = &[];
    /// Takes the state of the guest's extension, which a host's unit had, from [`EnvHeader::extension_image`] into env, and clears
    /// [`EnvHeader::extension_live`]. Nothing for guests without an extension.
    fn park_extension(&mut self) {}
    /// If a host's unit can have it now: fills [`EnvHeader::extension_image`] and sets [`EnvHeader::extension_live`] to
    /// [`EnvHeader::extension_ops`]. Nothing for guests without an extension.
    fn offer_extension(&mut self) {}

    /// The instructions in `bytes`, the first at `pc`, as text: each on a new line after its address.
    fn disassemble(&self, bytes: &[u8], pc: u64) -> String;
    /// The pending fault, for the log.
    fn pending_text(&self) -> Option<Cow<'static, str>>;
}
