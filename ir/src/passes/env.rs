//! What is known of each byte of env while a block is walked.

use crate::block::Value;
use crate::op::Type;

/// Bytes of env a granule covers: the widest slot, so that an aligned slot lies in one granule.
const GRANULE: usize = 16;
const ENV_SIZE: usize = 1 << 16;

/// Facts about [`GRANULE`] bytes of env, void unless `epoch` is the current one.
#[derive(Clone, Copy, Default)]
struct Granule {
    epoch: u32,
    /// Forward: bit `i` is set if a slot that starts at byte `i` has a known value.
    /// Backward: bit `i` is set if byte `i` is written later and not observed before.
    bytes: u16,
}

/// A map from env offsets to facts, emptied in constant time.
pub(super) struct EnvMap {
    epoch: u32,
    granules: Box<[Granule]>,
    /// By offset, for slots whose start bit is set: value in bits 0..16, type in bits 16..24.
    known: Box<[u32]>,
}

fn byte_mask(offset: u16, ty: Type) -> u16 {
    debug_assert!(u32::from(offset) % ty.bytes() == 0, "env slot {offset:#x} is not aligned");
    (((1u32 << ty.bytes()) - 1) << (offset as usize % GRANULE)) as u16
}

/// Start bytes of the wider slots that contain byte `start` and begin before it.
const fn enclosing(start: u32) -> u16 {
    (1 << (start & !1) | 1 << (start & !3) | 1 << (start & !7) | 1) & ((1 << start) - 1)
}

impl EnvMap {
    pub(super) fn new() -> EnvMap {
        EnvMap {
            epoch: 0,
            granules: vec![Granule::default(); ENV_SIZE / GRANULE].into(),
            known: vec![0; ENV_SIZE].into(),
        }
    }

    /// Forgets every fact.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.granules.fill(Granule::default());
            self.epoch = 1;
        }
    }

    #[inline(always)]
    fn granule(&mut self, offset: u16) -> &mut Granule {
        let granule = &mut self.granules[usize::from(offset) / GRANULE];
        if granule.epoch != self.epoch {
            *granule = Granule { epoch: self.epoch, bytes: 0 };
        }
        granule
    }

    /// The value that the slot holds, or the [`crate::Op::StoreEnvI`] that wrote it.
    #[inline]
    pub(super) fn known(&mut self, offset: u16, ty: Type) -> Option<Value> {
        let start = 1 << (usize::from(offset) % GRANULE);
        if self.granule(offset).bytes & start == 0 {
            return None;
        }
        let known = self.known[usize::from(offset)];
        (known >> 16 == ty as u32).then_some(known as Value)
    }

    /// Notes that the slot, unchanged, holds `value`.
    #[inline]
    pub(super) fn learn(&mut self, offset: u16, ty: Type, value: Value) {
        self.granule(offset).bytes |= 1 << (usize::from(offset) % GRANULE);
        self.known[usize::from(offset)] = u32::from(value) | (ty as u32) << 16;
    }

    /// Notes a write of `value` to the slot, which ends what was known of slots that overlap it.
    #[inline]
    pub(super) fn write(&mut self, offset: u16, ty: Type, value: Value) {
        let start = u32::from(offset) % GRANULE as u32;
        let base = usize::from(offset) - start as usize;
        let mut bytes = self.granule(offset).bytes & !byte_mask(offset, ty);
        let mut wider = bytes & enclosing(start);
        while wider != 0 {
            let other = wider.trailing_zeros();
            if other + (1 << (self.known[base + other as usize] >> 16)) > start {
                bytes &= !(1 << other);
            }
            wider &= wider - 1;
        }
        self.granule(offset).bytes = bytes;
        self.learn(offset, ty, value);
    }

    /// Backward: notes a write of the slot; whether any byte of it can be observed.
    #[inline]
    pub(super) fn hide(&mut self, offset: u16, ty: Type) -> bool {
        let mask = byte_mask(offset, ty);
        let granule = self.granule(offset);
        let observed = granule.bytes & mask != mask;
        granule.bytes |= mask;
        observed
    }

    /// Backward: notes a read of the slot.
    #[inline]
    pub(super) fn expose(&mut self, offset: u16, ty: Type) {
        self.granule(offset).bytes &= !byte_mask(offset, ty);
    }
}
