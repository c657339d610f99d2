//! Where host code names its link slots, which are others each time that it is used.
//!
//! Neither code generator tells. So code is made twice, with numbers that differ by [`SHIFT`]: what then differs in it is what names
//! a slot, and nothing else does. Where that cannot be told for sure (a constant of the guest's was the number of a slot by chance,
//! so that code of another shape came out), the code is not kept.

use smallvec::SmallVec;

/// What is added to the numbers of the slots the second time. The lowest byte of each multiple in [`SCALES`] is not zero, so that the
/// first byte of every name differs.
pub const SHIFT: u32 = 0x26;

/// By what the numbers of slots are multiplied in code: as they are, as offsets in the counts of pairs, and in the table of slots.
const SCALES: [u32; 3] = [1, 2, 8];

const _: () = assert!((SHIFT as u8) != 0 && (2 * SHIFT) as u8 != 0 && (8 * SHIFT) as u8 != 0);

/// A place in host code that names a link slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    /// Offset in the code of four bytes, in bytes.
    pub at: u32,
    /// Which of the code's parts has the slot.
    pub part: u8,
    /// Whether it is the second of the part's pair.
    pub second: bool,
    /// Which of [`SCALES`] it is multiplied by.
    pub scale: u8,
}

fn field(code: &[u8], at: usize) -> Option<u32> {
    code.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The names in `code`, whose parts have these first slots; `shifted` is the same made with slots whose numbers are larger by
/// [`SHIFT`]. `None` if that does not explain how they differ.
pub fn find(code: &[u8], shifted: &[u8], slots: &[u32]) -> Option<SmallVec<[Name; 8]>> {
    let mut names = SmallVec::new();
    if code.len() != shifted.len() {
        return None;
    }
    let mut at = 0;
    while let Some(more) = code.get(at..)?.iter().zip(shifted.get(at..)?).position(|(a, b)| a != b) {
        at += more;
        let (first, second) = (field(code, at)?, field(shifted, at)?);
        let scale = SCALES.iter().position(|&scale| second.wrapping_sub(first) == scale * SHIFT)?;
        let number = first / SCALES[scale];
        let part = slots.iter().position(|&slot| slot == number & !1)?;
        if number * SCALES[scale] != first {
            return None;
        }
        names.push(Name { at: at as u32, part: part.try_into().ok()?, second: number & 1 != 0, scale: scale as u8 });
        at += 4;
    }
    Some(names)
}

/// Writes other slots into code; `None` if a name is not one of this code.
pub fn set(code: &mut [u8], names: &[Name], slots: &[u32]) -> Option<()> {
    for name in names {
        let number = slots.get(usize::from(name.part))? + u32::from(name.second);
        let value = number.checked_mul(*SCALES.get(usize::from(name.scale))?)?;
        code.get_mut(name.at as usize..)?.first_chunk_mut::<4>()?.copy_from_slice(&value.to_le_bytes());
    }
    Some(())
}
