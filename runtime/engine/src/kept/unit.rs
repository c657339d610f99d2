//! A translation as it is kept: what it was made of, its micro-ops, and its host code if it had any.

use std::borrow::Cow;
use std::sync::Arc;

use mimus_frontend::guest::TbWords;
use mimus_ir::{Block, Inst};
use mimus_softmmu::PAGE_SIZE;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::slots::Name;
use crate::cache::{Tb, TbKey};

/// Which tier's code a translation has; what is later in this list is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Tier {
    /// None: it was executed too rarely.
    Cold = 0,
    /// The quick tier.
    Quick = 1,
    /// The compiler.
    Compiled = 2,
    /// The compiler, as a region.
    Region = 3,
}

impl Tier {
    const ALL: [Tier; 4] = [Tier::Cold, Tier::Quick, Tier::Compiled, Tier::Region];
}

/// A block that the code is made of: the translation's own first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    /// Its guest PC, as in [`TbKey`].
    pub pc: u64,
    /// Guest PCs that its two link slots lead to.
    pub targets: [Option<u64>; 2],
    /// The guest's bytes.
    pub bytes: Cow<'a, [u8]>,
}

/// A translation that is kept. All of its bytes are in one page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit<'a> {
    /// Its tier.
    pub tier: Tier,
    /// As [`Tb::level`].
    pub level: u8,
    /// As in [`TbKey`].
    pub words: TbWords,
    /// Its micro-ops.
    pub block: Block,
    /// Its blocks.
    pub parts: SmallVec<[Part<'a>; 1]>,
    /// Host code, with any link slots.
    pub code: Cow<'a, [u8]>,
    /// Where to enter it, in bytes from its start.
    pub entry_offset: u32,
    /// Where it names its link slots.
    pub names: SmallVec<[Name; 8]>,
}

/// Bytes from a translation's first on by which it is looked for, at most: those behind its own, too, if they are in the page.
pub const PREFIX: usize = 8;

/// How many those are at a place.
pub fn prefix(gpa: u64) -> usize {
    PREFIX.min((PAGE_SIZE - gpa % PAGE_SIZE) as usize)
}

/// What a translation is looked for by: its guest PC, the other words of its key, and the page's bytes from its first on.
pub fn hash(key: &TbKey, bytes: &[u8]) -> u64 {
    let mut known = [0; 8 + 8 + PREFIX];
    let (pc, rest) = known.split_at_mut(8);
    let (words, prefix) = rest.split_at_mut(8);
    pc.copy_from_slice(&key.pc.to_le_bytes());
    words.copy_from_slice(&(u64::from(key.words[0]) | u64::from(key.words[1]) << 32).to_le_bytes());
    let shorter = bytes.len().min(PREFIX);
    prefix[..shorter].copy_from_slice(&bytes[..shorter]);
    // No entry of the table has 0.
    xxh3_64(&known) | 1
}

/// What a unit begins with, 8 bytes each: checksum of all that follows, length, [`Unit::source_of`].
const HEAD: usize = 24;

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Its length and what is in it.
    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn insts(&mut self) -> Option<Vec<Inst>> {
        let count = self.u32()? as usize;
        let (bytes, _) = self.take(count.checked_mul(size_of::<Inst>())?)?.as_chunks();
        let mut insts = Vec::with_capacity(count);
        for inst in bytes {
            insts.push(Inst::from_bytes(inst)?);
        }
        Some(insts)
    }
}

impl<'a> Unit<'a> {
    /// What it is looked for by.
    pub fn key(&self) -> TbKey {
        TbKey { gpa: 0, pc: self.block.pc, words: self.words }
    }

    fn source(&self) -> u64 {
        let mut sum = Xxh3::new();
        sum.update(&[u8::from(self.tier == Tier::Region), self.level]);
        for Part { pc, bytes, .. } in &self.parts {
            [*pc, bytes.len() as u64].into_iter().for_each(|word| sum.update(&word.to_le_bytes()));
            sum.update(bytes);
        }
        sum.digest()
    }

    /// As bytes, a multiple of 8 of them, which say how many they are.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![0; HEAD]);
        out.0.extend_from_slice(&[self.tier as u8, self.level, 0, 0]);
        self.words.iter().for_each(|&word| out.u32(word));
        let Block { pc, fallthrough, guest_insns, guest_bytes, insts } = &self.block;
        out.u64(*pc);
        out.u64(*fallthrough);
        out.u32(*guest_insns);
        out.u32(*guest_bytes);
        out.u32(self.parts.len() as u32);
        for Part { pc, targets, bytes } in &self.parts {
            out.u64(*pc);
            for target in targets {
                out.u32(target.is_some().into());
                out.u64(target.unwrap_or(0));
            }
            out.bytes(bytes);
        }
        out.u32(insts.len() as u32);
        insts.iter().for_each(|inst| out.0.extend_from_slice(&inst.to_bytes()));
        out.u32(self.names.len() as u32);
        for name in &self.names {
            out.u32(name.at);
            out.0.extend_from_slice(&[name.part, name.second.into(), name.scale, 0]);
        }
        out.u32(self.entry_offset);
        out.bytes(&self.code);
        let Writer(mut bytes) = out;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let len = bytes.len() as u64;
        bytes[8..16].copy_from_slice(&len.to_le_bytes());
        bytes[16..HEAD].copy_from_slice(&self.source().to_le_bytes());
        let sum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The bytes that one begins with has as a whole, if they are what was written.
    pub fn whole(bytes: &[u8]) -> Option<&[u8]> {
        let mut head = Reader(bytes);
        let (sum, len) = (head.u64()?, head.u64()?);
        let whole = bytes.get(..usize::try_from(len).ok()?)?;
        (whole.len() >= HEAD && xxh3_64(&whole[8..]) == sum).then_some(whole)
    }

    /// The tier of what was written as these bytes.
    pub fn tier_of(whole: &[u8]) -> Option<Tier> {
        Tier::ALL.get(usize::from(*whole.get(HEAD)?)).copied()
    }

    /// What tells those of the same key apart, of what was written as these bytes: what guest memory must have, and whether it is a
    /// region, and which.
    pub fn source_of(whole: &[u8]) -> Option<u64> {
        whole.get(16..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// What [`Unit::encode`] has written, of which [`Unit::whole`] says that it is whole; `None` if it is for another key.
    pub fn decode(whole: &'a [u8], key: &TbKey) -> Option<Unit<'a>> {
        let mut read = Reader(whole.get(HEAD..)?);
        let [tier, level, _, _] = read.array()?;
        let words = [read.u32()?, read.u32()?];
        let (pc, fallthrough) = (read.u64()?, read.u64()?);
        if words != key.words || pc != key.pc {
            return None;
        }
        let (guest_insns, guest_bytes) = (read.u32()?, read.u32()?);
        let mut parts = SmallVec::new();
        for _ in 0..read.u32()? {
            let pc = read.u64()?;
            let mut targets = [None; 2];
            for target in &mut targets {
                let used = read.u32()? != 0;
                let pc = read.u64()?;
                *target = used.then_some(pc);
            }
            parts.push(Part { pc, targets, bytes: read.bytes()?.into() });
        }
        let insts = read.insts()?;
        let mut names = SmallVec::new();
        for _ in 0..read.u32()? {
            let at = read.u32()?;
            let [part, second, scale, _] = read.array()?;
            names.push(Name { at, part, second: second != 0, scale });
        }
        let entry_offset = read.u32()?;
        let code = read.bytes()?.into();
        let block = Block { pc, fallthrough, guest_insns, guest_bytes, insts };
        let tier = *Tier::ALL.get(usize::from(tier))?;
        Some(Unit { tier, level, words, block, parts, code, entry_offset, names })
    }

    /// Where a part is in its page, in bytes.
    pub fn offset(&self, part: &Part<'_>, gpa: u64) -> u64 {
        // Blocks of one page differ in their guest PCs as they do in their places.
        let first = self.parts.first().map_or(part.pc, |first| first.pc);
        gpa.wrapping_add(part.pc.wrapping_sub(first)) & (PAGE_SIZE - 1)
    }

    /// Whether guest memory has what this was made of, where its first byte is guest-physical `gpa`; `read` reads some of the page.
    pub fn is_at(&self, gpa: u64, mut read: impl FnMut(u64, &mut [u8]) -> bool) -> bool {
        const PIECE: usize = 64;
        let mut now = [0; PIECE];
        self.parts.iter().all(|part| {
            let at = self.offset(part, gpa);
            let in_page = at + part.bytes.len() as u64 <= PAGE_SIZE;
            let mut pieces = (gpa & !(PAGE_SIZE - 1) | at..).step_by(PIECE).zip(part.bytes.chunks(PIECE));
            in_page && pieces.all(|(gpa, piece)| read(gpa, &mut now[..piece.len()]) && now[..piece.len()] == *piece)
        })
    }

    /// The translation that is kept of a block or region, without host code: `blocks` are those that it is made of. `None` if it is not
    /// of a kind that is kept, or its bytes are not what was translated any more.
    pub fn of(tb: &Tb, blocks: &[Arc<Tb>], mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<Unit<'a>> {
        let mut parts = SmallVec::new();
        for block in blocks {
            let len = block.block.guest_bytes as usize;
            let in_page = (block.key.gpa ^ tb.key.gpa) < PAGE_SIZE;
            let mut bytes = vec![0; len];
            if block.straddles() || block.reads() || !in_page || len == 0 || !read(block.key.gpa, &mut bytes) {
                return None;
            }
            parts.push(Part { pc: block.key.pc, targets: [None; 2], bytes: bytes.into() });
        }
        // Who lives has had its bytes unchanged: a write waits until it is dead.
        if blocks.iter().any(|block| block.is_dead()) {
            return None;
        }
        let tier = if tb.blocks > 0 { Tier::Region } else { Tier::Cold };
        let (level, words, block) = (tb.level, tb.key.words, tb.block.clone());
        Some(Unit { tier, level, words, block, parts, code: Cow::default(), entry_offset: 0, names: SmallVec::new() })
    }
}
