//! Code that is written: which blocks a write ends, and which bytes of code are written again and again.

use std::sync::Arc;

use mimus_softmmu::ram::GRANULE_SHIFT;
use mimus_softmmu::{CodeSink, Dropped, PAGE_SIZE};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{Cache, Inner, PAGE_BLOCKS, Tb};

/// A bit for each byte of a page.
type Bytes = [u64; 64];

/// The blocks that begin or end in one page.
#[derive(Debug)]
pub(super) struct PageBlocks {
    /// Oldest first, each with the granules of the page that it has bytes in.
    list: Vec<(Arc<Tb>, u64)>,
    /// By granule, how many of them have bytes in it.
    counts: [u16; GRANULES],
    /// The bytes that are translated, once somebody has stored near them and until a block goes.
    bytes: Option<Box<Bytes>>,
}

/// Granules of a page.
const GRANULES: usize = (PAGE_SIZE >> GRANULE_SHIFT) as usize;

const _: () = assert!(PAGE_BLOCKS < u16::MAX as usize);

impl Default for PageBlocks {
    fn default() -> Self {
        PageBlocks { list: Vec::new(), counts: [0; GRANULES], bytes: None }
    }
}

/// The words of [`Bytes`] that `len` bytes from `start` on have bits in, with these bits.
fn words(start: u64, len: u64) -> impl Iterator<Item = (usize, u64)> {
    let first = start & (PAGE_SIZE - 1);
    let end = (first + len).min(PAGE_SIZE);
    (first / 64..end.div_ceil(64)).map(move |word| {
        let (from, to) = (first.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64);
        (word as usize, u64::MAX >> (64 - (to - from)) << from)
    })
}

/// The numbers of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        bit
    })
}

fn mark(bytes: &mut Bytes, page: u64, tb: &Tb) {
    for &(start, len) in tb.bytes.iter().filter(|&&(start, len)| len != 0 && start & !(PAGE_SIZE - 1) == page) {
        words(start, len.into()).for_each(|(word, bits)| bytes[word] |= bits);
    }
}

impl PageBlocks {
    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The block that has been here for the longest time.
    pub(super) fn oldest(&self) -> Option<&Arc<Tb>> {
        self.list.first().map(|(tb, _)| tb)
    }

    /// Adds a block that has bytes in these granules of this page, `page`.
    pub(super) fn push(&mut self, page: u64, tb: Arc<Tb>, granules: u64) {
        if let Some(bytes) = &mut self.bytes {
            mark(bytes, page, &tb);
        }
        bits(granules).for_each(|granule| self.counts[granule] += 1);
        self.list.push((tb, granules));
    }

    /// Takes a block out; whether it was here.
    pub(super) fn take(&mut self, tb: &Arc<Tb>) -> bool {
        let Some(at) = self.list.iter().position(|(other, _)| Arc::ptr_eq(other, tb)) else { return false };
        let (_, granules) = self.list.remove(at);
        bits(granules).for_each(|granule| self.counts[granule] -= 1);
        self.give_back();
        true
    }

    /// Gives back most of the room that blocks had which are gone: a page had many at one time, other pages will at others.
    fn give_back(&mut self) {
        if self.list.capacity() / 4 > self.list.len().max(4) {
            self.list.shrink_to(2 * self.list.len());
        }
    }

    /// Takes out the blocks that any of `len` bytes at guest-physical `gpa` belong to.
    fn take_translations(&mut self, gpa: u64, len: u64) -> Vec<Arc<Tb>> {
        let gone: Vec<(Arc<Tb>, u64)> = self.list.extract_if(.., |(tb, _)| tb.translates(gpa, len)).collect();
        let granules = gone.iter().flat_map(|&(_, granules)| bits(granules));
        granules.for_each(|granule| self.counts[granule] -= 1);
        self.give_back();
        gone.into_iter().map(|(tb, _)| tb).collect()
    }

    /// The granules of the page that hold code.
    pub(super) fn granules(&self) -> u64 {
        self.counts.iter().zip(0..).fold(0, |all, (&count, granule)| all | u64::from(count != 0) << granule)
    }

    /// Lets go of the map of bytes, as after blocks have gone; how many bytes that took.
    pub(super) fn forget_bytes(&mut self) -> usize {
        let size = self.size();
        self.bytes = None;
        size
    }

    /// Whether any of `len` bytes of the page at guest-physical `gpa` is translated.
    fn translates(&mut self, gpa: u64, len: u64) -> bool {
        let list = &self.list;
        let bytes = self.bytes.get_or_insert_with(|| {
            let mut bytes = Box::new([0; 64]);
            list.iter().for_each(|(tb, _)| mark(&mut bytes, gpa & !(PAGE_SIZE - 1), tb));
            bytes
        });
        words(gpa, len).any(|(word, bits)| bytes[word] & bits != 0)
    }

    /// Bytes that the map of bytes takes.
    fn size(&self) -> usize {
        if self.bytes.is_some() { size_of::<Bytes>() } else { 0 }
    }
}

/// Bytes of a page that were code when they were written, and how often.
#[derive(Clone, Copy, Debug)]
struct Patch {
    at: u16,
    len: u8,
    times: u8,
}

/// Writes after which what they change is no longer translated but read as it runs.
const OFTEN: u8 = 4;

/// Most patches of a page that are remembered.
const PATCHES: usize = 16;

/// Most pages whose patches are remembered.
const PATCHED_PAGES: usize = 256;

/// Which bytes of code are written, by page.
#[derive(Debug, Default)]
pub(super) struct Patches(FxHashMap<u64, SmallVec<[Patch; 4]>>);

impl Patches {
    fn note(&mut self, gpa: u64, len: u64) {
        let (page, at) = (gpa & !(PAGE_SIZE - 1), (gpa & (PAGE_SIZE - 1)) as u16);
        if self.0.len() >= PATCHED_PAGES && !self.0.contains_key(&page) {
            // None is known to matter more than another; those that do are back soon.
            self.0.clear();
        }
        let len = len.min(PAGE_SIZE).try_into().unwrap_or(u8::MAX);
        let patches = self.0.entry(page).or_default();
        if let Some(same) = patches.iter_mut().find(|patch| (patch.at, patch.len) == (at, len)) {
            same.times = same.times.saturating_add(1);
            return;
        }
        if patches.len() >= PATCHES
            && let Some(rarest) = (0..patches.len()).min_by_key(|&i| patches[i].times)
        {
            patches.swap_remove(rarest);
        }
        patches.push(Patch { at, len, times: 1 });
    }

    /// Guest-physical addresses and lengths of what is written often in the page of `gpa`.
    fn often(&self, gpa: u64) -> SmallVec<[(u64, u64); 4]> {
        let page = gpa & !(PAGE_SIZE - 1);
        let patches = self.0.get(&page).map_or(&[][..], |patches| patches);
        let often = patches.iter().filter(|patch| patch.times >= OFTEN);
        often.map(|patch| (page + u64::from(patch.at), u64::from(patch.len))).collect()
    }
}

impl Cache {
    /// Guest-physical addresses and lengths of code in the page of `gpa` that is written again and again: what is best not
    /// translated but read as it runs.
    pub fn patched(&self, gpa: u64) -> SmallVec<[(u64, u64); 4]> {
        if self.ram.is_mixed(gpa) { self.lock().patches.often(gpa) } else { SmallVec::new() }
    }

    /// Whether any of `len` bytes at `gpa`, within a page, is translated; and what remembers that.
    fn hits(inner: &mut Inner, gpa: u64, len: u64) -> bool {
        let Some(blocks) = inner.pages.get_mut(&(gpa & !(PAGE_SIZE - 1))) else { return false };
        let before = blocks.size();
        let hits = blocks.translates(gpa, len);
        inner.live_bytes += blocks.size() - before;
        hits
    }
}

impl CodeSink for Cache {
    fn table_written(&self, gpa: u64, len: u64) {
        if self.code_written(gpa, len).any() {
            self.lock().participants.iter().for_each(|p| p.kicker.kick());
        }
    }

    fn code_written(&self, gpa: u64, len: u64) -> Dropped {
        let mut dropped = Dropped::NONE;
        let page = gpa & !(PAGE_SIZE - 1);
        let mut inner = self.lock();
        if !Cache::hits(&mut inner, gpa, len) {
            return dropped;
        }
        let Some(blocks) = inner.pages.get_mut(&page) else { return dropped };
        let victims = blocks.take_translations(gpa, len);
        self.refresh_page(&mut inner, page);
        inner.stats.invalidations += victims.len() as u64;
        inner.patches.note(gpa, len);
        for tb in &victims {
            // Even of one without code: another vCPU may have evicted that a moment ago, so that this one's jump caches still
            // have it.
            dropped.push(tb.ways().as_deref());
            self.remove(&mut inner, tb);
        }
        // Another vCPU that learns of the new code by a later store of this one must not come by its old jump cache: it leaves
        // at its next indirect exit.
        if inner.participants.len() > 1 {
            inner.participants.iter().for_each(|p| p.kicker.kick());
        }
        if inner.dead_bytes > self.metadata_bound / 8 {
            self.sweep(&mut inner);
        }
        dropped
    }

    fn translates(&self, gpa: u64, len: u64, pc: u64) -> bool {
        let mut inner = self.lock();
        Cache::hits(&mut inner, gpa, len)
            && inner
                .pages
                .get(&(gpa & !(PAGE_SIZE - 1)))
                .is_some_and(|blocks| blocks.list.iter().any(|(tb, _)| tb.translates(gpa, len) && tb.may_contain(pc)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_a_bit_for_each_byte_within_the_page() {
        for (start, len) in [(0x1000, 1), (0x103f, 1), (0x103f, 2), (0x1040, 64), (0x1ffe, 9), (0x1001, 4000)] {
            let mut bytes = [0u64; 64];
            words(start, len).for_each(|(word, bits)| bytes[word] |= bits);
            let first = start & 0xfff;
            for byte in 0..PAGE_SIZE {
                let want = (first..first + len).contains(&byte);
                assert_eq!(bytes[byte as usize / 64] >> (byte % 64) & 1 == 1, want, "{byte} of {len} from {start:#x}");
            }
        }
    }

    #[test]
    fn a_granule_is_code_until_its_last_block_goes() {
        use crate::cache::tests::{key, tb};
        // Two pages of the guest may be one of RAM: then a block is in it twice.
        let (one, two, twice) = (Arc::new(tb(key(0x1000))), Arc::new(tb(key(0x1020))), Arc::new(tb(key(0x1ffe))));
        let mut blocks = PageBlocks::default();
        blocks.push(0x1000, one.clone(), 1);
        blocks.push(0x1000, two.clone(), 1);
        blocks.push(0x1000, twice.clone(), 1 << 63);
        blocks.push(0x1000, twice.clone(), 1);
        assert_eq!((blocks.granules(), blocks.len()), (1 << 63 | 1, 4));
        assert!(blocks.take(&twice) && blocks.granules() == 1);
        assert!(blocks.take(&one) && !blocks.take(&one));
        assert!(blocks.translates(0x1020, 1) && !blocks.translates(0x1000, 4), "the map was made when one had gone");
        assert_eq!(blocks.take_translations(0x1020, 1).len(), 1);
        assert_eq!(blocks.granules(), 1);
        assert!(blocks.take(&twice) && blocks.granules() == 0);
    }

    #[test]
    fn a_page_that_had_many_blocks_gives_their_room_back() {
        use crate::cache::tests::{key, tb};
        let mut blocks = PageBlocks::default();
        let all: Vec<Arc<Tb>> = (0..1000).map(|i| Arc::new(tb(key(0x1000 + 4 * i)))).collect();
        all.iter().for_each(|tb| blocks.push(0x1000, tb.clone(), 1));
        let (first, rest) = all.split_at(10);
        assert!(rest.iter().all(|tb| blocks.take(tb)));
        assert!(blocks.list.capacity() <= 64, "{}", blocks.list.capacity());
        assert!(first.iter().all(|tb| blocks.take(tb)) && blocks.len() == 0);
    }

    #[test]
    fn what_is_written_often_is_remembered_and_the_rest_bounded() {
        let mut patches = Patches::default();
        for i in 0..100 {
            patches.note(0x1010, 4);
            patches.note(0x1020 + 8 * i, 8);
            assert_eq!(patches.often(0x1fff).is_empty(), i < u64::from(OFTEN) - 1);
        }
        assert_eq!(patches.often(0x1000)[..], [(0x1010, 4)]);
        assert_eq!(patches.0[&0x1000].len(), PATCHES);
        assert!(patches.often(0x2000).is_empty());
        (0..10_000).for_each(|page| patches.note(page * PAGE_SIZE, 1));
        assert!(patches.0.len() <= PATCHED_PAGES);
    }
}
