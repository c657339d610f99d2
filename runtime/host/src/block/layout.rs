//! Where the metadata of a qcow2 image are, and what may be written there.
//!
//! imago believes what an image says. One whose refcounts are wrong has it take a cluster of metadata for a free one, and give it
//! to the guest. So an image that is to be written is looked at as a whole when it is opened ([`Tables::check`]), and each
//! write to its file once more: the guest's data never go to metadata, and metadata change only as imago changes them.
//!
//! Names are those of "qcow2 format" (docs/interop/qcow2.txt of QEMU).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustc_hash::FxHashSet;

use super::file::{length, numbers, read_padded, wrong};
use super::qcow2::{HEADER, Header};

/// The bits of an entry of L1 or refcount table that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The bytes of the header that change while an image is used: size and place of the L1 table, place and size of the refcount
/// table.
const POINTERS: std::ops::Range<u64> = 36..60;
/// How far beyond a file's end its data may be written: more than what one request allocates, and than what is lost at a kill.
const GROWTH: u64 = 64 << 20;
/// Most bytes of the table of internal snapshots.
const MAX_SNAPSHOT_TABLE: usize = 64 << 20;
/// Most bytes of the L1 tables of all snapshots: each of their clusters is looked at.
const MAX_SNAPSHOT_L1: u64 = 256 << 20;

/// Offset and bytes of something in the file.
pub(super) type Extent = (u64, u64);

/// Where an image's tables are, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    cluster_bits: u32,
    /// Base-2 logarithm of the bits of a refcount.
    refcount_order: u32,
    /// The L1 table.
    pub l1: Extent,
    /// The refcount table.
    pub refcounts: Extent,
}

/// A refcount in the file: where, how many bytes, and which bits of them if it is narrower than one.
struct Refcount {
    at: u64,
    bytes: usize,
    shift: u32,
    mask: u8,
}

impl Layout {
    /// What a header of [`HEADER`] bytes says.
    pub(super) fn of(header: &[u8; HEADER]) -> io::Result<Layout> {
        let u32_at =
            |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |x| u32::from_be_bytes(*x));
        let u64_at =
            |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |x| u64::from_be_bytes(*x));
        let cluster_bits = u32_at(20);
        let refcount_order = if u32_at(4) < 3 { 4 } else { u32_at(96) };
        if !(9..=21).contains(&cluster_bits) || refcount_order > 6 {
            return Err(wrong("its clusters or refcounts have a size that is not possible"));
        }
        Ok(Layout {
            cluster_bits,
            refcount_order,
            l1: (u64_at(40), u64::from(u32_at(36)) * 8),
            refcounts: (u64_at(48), u64::from(u32_at(56)) << cluster_bits),
        })
    }

    /// Bytes of a cluster.
    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the disk that one L2 table maps.
    pub(super) fn l2_range(&self) -> u64 {
        1 << (2 * self.cluster_bits - 3)
    }

    /// Whole clusters around a place.
    fn whole(&self, (at, bytes): Extent) -> Extent {
        (at, bytes.next_multiple_of(self.cluster()))
    }

    /// Where the refcount of the cluster at `offset` is, if there is a refcount block for it.
    fn refcount(&self, file: &File, offset: u64) -> io::Result<Option<Refcount>> {
        // Counts in a block: as many as its bits hold.
        let block_bits = self.cluster_bits + 3 - self.refcount_order;
        let cluster = offset >> self.cluster_bits;
        let (table, bytes) = self.refcounts;
        let at = (cluster >> block_bits) * 8;
        if at >= bytes {
            return Ok(None);
        }
        let mut entry = [0; 8];
        read_padded(file, &mut entry, table.saturating_add(at))?;
        let block = u64::from_be_bytes(entry) & OFFSET;
        if block == 0 {
            return Ok(None);
        }
        let bit = (cluster & ((1 << block_bits) - 1)) << self.refcount_order;
        let width = 1u32 << self.refcount_order;
        let mask = if width < 8 { ((1u16 << width) - 1) as u8 } else { 0xff };
        Ok(Some(Refcount { at: block + bit / 8, bytes: width.div_ceil(8) as usize, shift: (bit % 8) as u32, mask }))
    }

    /// Makes the refcount of the cluster at `offset` at least 1, if there is a refcount block for it: one that is just being
    /// linked holds its own count.
    pub(super) fn hold(&self, file: &File, offset: u64, written: impl Fn(u64, &[u8])) -> io::Result<()> {
        let Some(refcount) = self.refcount(file, offset)? else { return Ok(()) };
        let mut count = [0; 8];
        let count = count.get_mut(..refcount.bytes).unwrap_or_default();
        read_padded(file, count, refcount.at)?;
        if refcount.is_held(count) {
            return Ok(());
        }
        if let Some(byte) = count.last_mut() {
            *byte |= 1 << refcount.shift;
        }
        written(refcount.at, count);
        file.write_all_at(count, refcount.at)
    }

    /// Whether the refcount of the cluster at `offset` is not 0.
    fn is_held(&self, file: &File, offset: u64) -> io::Result<bool> {
        let Some(refcount) = self.refcount(file, offset)? else { return Ok(false) };
        let mut count = [0; 8];
        let count = count.get_mut(..refcount.bytes).unwrap_or_default();
        read_padded(file, count, refcount.at)?;
        Ok(refcount.is_held(count))
    }
}

impl Refcount {
    /// Counts narrower than a byte begin with its lowest bits; wider ones are big-endian.
    fn is_held(&self, count: &[u8]) -> bool {
        match count {
            [byte] => *byte >> self.shift & self.mask != 0,
            bytes => bytes.iter().any(|byte| *byte != 0),
        }
    }
}

/// The metadata of an image that may be written.
#[derive(Debug)]
pub(super) struct Tables {
    layout: Layout,
    /// The table of internal snapshots and the L1 tables in it: nobody writes there.
    snapshots: Vec<Extent>,
    /// Header, tables of the first level, and what is of snapshots: what, and where, by whole clusters and in order.
    extents: Vec<(&'static str, Extent)>,
    /// The clusters that are L2 tables and refcount blocks, by offset.
    tables: FxHashSet<u64>,
    /// The file has changed in a way that could not be followed.
    lost: bool,
}

/// Entries of the L1 or refcount table that a write changes: what they referred to, and what they will.
pub(super) type Changes = Vec<(u64, u64)>;

fn touches(offset: u64, len: u64, (at, bytes): Extent) -> bool {
    offset < at.saturating_add(bytes) && at < offset.saturating_add(len)
}

impl Tables {
    /// Looks at all metadata of `file`, which has `len` bytes.
    ///
    /// # Errors
    ///
    /// Metadata that are outside the file or on top of each other, or whose refcounts are 0.
    pub(super) fn check(file: &File, header: &Header, len: u64) -> io::Result<Tables> {
        let layout = header.layout;
        let snapshots = snapshots(file, header, len)?;
        let tables = Tables::read(file, layout, snapshots, len)?;
        let (cluster, repaired) = (layout.cluster(), "(`qemu-img check -r all` may repair it)");
        let extents = tables.extents.iter().flat_map(|(what, (at, bytes))| {
            (*at..at.saturating_add(*bytes)).step_by(cluster as usize).map(move |at| (*what, at))
        });
        let linked = tables.tables.iter().map(|at| ("an L2 table or refcount block", *at));
        for (what, at) in extents.chain(linked) {
            if !layout.is_held(file, at)? {
                return Err(wrong(format!("it is damaged: the refcount of {what} at {at:#x} is 0 {repaired}")));
            }
        }
        Ok(tables)
    }

    /// Reads the tables of the first level, and where those are that they refer to.
    fn read(file: &File, layout: Layout, snapshots: Vec<Extent>, len: u64) -> io::Result<Tables> {
        let mut extents = vec![
            ("the header", (0, layout.cluster())),
            ("the L1 table", layout.whole(layout.l1)),
            ("the refcount table", layout.whole(layout.refcounts)),
        ];
        extents.extend(snapshots.iter().map(|extent| ("a snapshot's table", layout.whole(*extent))));
        extents.retain(|(_, (_, bytes))| *bytes != 0);
        extents.sort_by_key(|(_, extent)| *extent);
        for pair in extents.windows(2) {
            if let [(what, (at, bytes)), (other, (next, _))] = pair
                && at.saturating_add(*bytes) > *next
            {
                return Err(wrong(format!("it is damaged: {what} and {other} are at the same place")));
            }
        }
        let mut tables = Tables { layout, snapshots, extents, tables: FxHashSet::default(), lost: false };
        tables.fill(file, len)?;
        Ok(tables)
    }

    /// Notes the tables that the L1 and the refcount table of `file` refer to.
    fn fill(&mut self, file: &File, len: u64) -> io::Result<()> {
        let layout = self.layout;
        let (table, bytes) = layout.refcounts;
        if bytes == 0 || table.checked_add(bytes).is_none_or(|end| end > len.next_multiple_of(layout.cluster())) {
            return Err(wrong("it is damaged: its refcount table is not in the file"));
        }
        for (what, (at, bytes)) in [("refcount block", layout.refcounts), ("L2 table", layout.l1)] {
            let mut entries = vec![0; bytes as usize];
            read_padded(file, &mut entries, at)?;
            for (index, entry) in numbers(&entries).enumerate() {
                let target = entry & OFFSET;
                if target == 0 && (what, index) == ("refcount block", 0) {
                    return Err(wrong("it is damaged: its first refcount block is missing"));
                }
                if target == 0 {
                    continue;
                }
                if target >= len || !self.is_free(target) {
                    return Err(wrong(format!("it is damaged: {what} {index} cannot be at {target:#x}")));
                }
                self.tables.insert(target);
            }
        }
        Ok(())
    }

    /// Whether a table could begin at `at`.
    fn is_free(&self, at: u64) -> bool {
        at.is_multiple_of(self.layout.cluster()) && self.metadata_in(at, self.layout.cluster()).is_none()
    }

    /// The metadata that a range of the file has a part of.
    fn metadata_in(&self, offset: u64, len: u64) -> Option<&'static str> {
        // The last one that begins before the range ends is the one that ends last.
        let before = self.extents.partition_point(|(_, (at, _))| *at < offset.saturating_add(len));
        if let Some((what, extent)) = before.checked_sub(1).and_then(|index| self.extents.get(index))
            && touches(offset, len, *extent)
        {
            return Some(what);
        }
        let cluster = self.layout.cluster();
        let mut clusters = (offset / cluster * cluster..offset.saturating_add(len)).step_by(cluster as usize);
        clusters.any(|at| self.tables.contains(&at)).then_some("an L2 table or refcount block")
    }

    /// Whether the guest's data may be written to a range of the file, which has `end` bytes; what is in the way if not.
    pub(super) fn allow_data(&self, offset: u64, len: u64, end: u64) -> Result<(), &'static str> {
        if self.lost || offset.checked_add(len).is_none_or(|to| to > end.saturating_add(GROWTH)) {
            return Err("a place that cannot be the guest's");
        }
        self.metadata_in(offset, len).map_or(Ok(()), Err)
    }

    /// Whether `bytes` may be written to metadata of `file`, and which tables that links; what is in the way if not.
    pub(super) fn allow_metadata(
        &self,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<Result<Changes, &'static str>> {
        let (layout, len) = (&self.layout, bytes.len() as u64);
        if self.lost {
            return Ok(Err("tables that are lost"));
        }
        if offset < layout.cluster() {
            let mut old = vec![0; bytes.len()];
            read_padded(file, &mut old, offset)?;
            let same =
                (offset..).zip(old.iter().zip(bytes)).all(|(at, (old, new))| old == new || POINTERS.contains(&at));
            let within = offset + len <= layout.cluster();
            return Ok(if same && within { Ok(Changes::new()) } else { Err("the header") });
        }
        for (what, table) in [("the L1 table", layout.l1), ("the refcount table", layout.refcounts)] {
            let whole = layout.whole(table);
            if touches(offset, len, whole) {
                let within = whole.0 <= offset && offset + len <= whole.0 + whole.1;
                let changes = if within { self.changes(file, bytes, offset)? } else { None };
                return Ok(changes.ok_or(what));
            }
        }
        let aligned = offset.is_multiple_of(layout.cluster()) && len == layout.cluster();
        // A table that is written again.
        if aligned && self.tables.contains(&offset) {
            return Ok(Ok(Changes::new()));
        }
        Ok(self.metadata_in(offset, len).map_or(Ok(Changes::new()), Err))
    }

    /// The entries that `bytes` at `offset`, which is in the L1 or refcount table, change; `None` if one of them cannot be.
    fn changes(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<Option<Changes>> {
        let mut old = vec![0; bytes.len()];
        read_padded(file, &mut old, offset)?;
        if !offset.is_multiple_of(8) || !bytes.len().is_multiple_of(8) {
            return Ok((old == bytes).then(Changes::new));
        }
        let pairs = numbers(&old).zip(numbers(bytes)).map(|(old, new)| (old & OFFSET, new & OFFSET));
        let changed: Changes = pairs.filter(|(old, new)| old != new).collect();
        Ok(changed.iter().all(|(_, new)| *new != 0 && self.is_free(*new)).then_some(changed))
    }

    /// `bytes` were written at `offset`, which `changes` is about.
    pub(super) fn written(&mut self, file: &File, offset: u64, changes: &Changes) {
        for (old, new) in changes {
            self.tables.remove(old);
            self.tables.insert(*new);
        }
        if offset < POINTERS.end && self.follow(file).is_err() {
            self.lost = true;
        }
    }

    /// Sees where the tables are after the header was written.
    fn follow(&mut self, file: &File) -> io::Result<()> {
        let mut header = [0; HEADER];
        read_padded(file, &mut header, 0)?;
        let layout = Layout::of(&header)?;
        if layout != self.layout {
            *self = Tables::read(file, layout, std::mem::take(&mut self.snapshots), length(file)?)?;
        }
        Ok(())
    }

    /// Where the L1 and the refcount table are.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }
}

/// The table of internal snapshots, and the L1 tables of the snapshots.
fn snapshots(file: &File, header: &Header, len: u64) -> io::Result<Vec<Extent>> {
    let (start, count) = header.snapshots;
    if count == 0 {
        return Ok(Vec::new());
    }
    let damaged = || wrong("it is damaged: its table of snapshots cannot be where it is said to be");
    let (mut extents, mut at, mut in_all) = (Vec::new(), start, 0u64);
    for _ in 0..count {
        let mut head = [0; 40];
        read_padded(file, &mut head, at)?;
        let field = |at: usize, count: usize| {
            head.get(at..at + count).unwrap_or_default().iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        // Offset and entries of the L1 table; bytes of id, name and extra data.
        let (l1, entries) = (field(0, 8), field(8, 4));
        let bytes = 40 + field(36, 4) + field(12, 2) + field(14, 2);
        at = at
            .checked_add(bytes.next_multiple_of(8))
            .filter(|end| end - start <= MAX_SNAPSHOT_TABLE as u64)
            .ok_or_else(damaged)?;
        if l1 % header.layout.cluster() != 0 || l1.checked_add(entries * 8).is_none_or(|end| end > len) {
            return Err(damaged());
        }
        in_all += entries * 8;
        if in_all > MAX_SNAPSHOT_L1 {
            return Err(wrong("its snapshots have too large tables"));
        }
        if entries != 0 {
            extents.push((l1, entries * 8));
        }
    }
    if start % header.layout.cluster() != 0 || at > len.next_multiple_of(header.layout.cluster()) {
        return Err(damaged());
    }
    extents.push((start, at - start));
    Ok(extents)
}
