//! What a qcow2 image says of itself, looked at before imago does: whether it can be used, and which files it names.
//!
//! Names are those of "qcow2 format" (docs/interop/qcow2.txt of QEMU); limits are QEMU's.

use std::fs::File;
use std::io;

use super::file::{read_padded, wrong};
use super::layout::Layout;

/// Bytes of the header of version 3, without what may follow.
pub(super) const HEADER: usize = 104;
/// A header begins with it.
pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// The longest name of a backing file, and of an external data file here.
const LONGEST_NAME: usize = 1023;
/// Most entries of an L1 table, and bytes of a refcount table.
const MAX_L1: u64 = (32 << 20) / 8;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Most internal snapshots.
const MAX_SNAPSHOTS: u32 = 65_536;
/// The largest disk: offsets and what is added to them stay far from overflowing.
const MAX_SIZE: u64 = 1 << 61;

/// Incompatible features that can be used: an external data file.
const EXTERNAL_DATA: u64 = 1 << 2;
/// What to say of those that cannot, by bit.
const INCOMPATIBLE: &[(u32, &str)] = &[
    (0, "was not closed in order (`qemu-img check -r all` repairs it)"),
    (1, "is marked as damaged (`qemu-img check -r all` may repair it)"),
    (3, "is compressed by zstd (`qemu-img convert` makes an image that is not)"),
    (4, "has extended L2 entries (`qemu-img convert` makes an image without)"),
];

/// Types of header extensions.
const BACKING_FORMAT: u32 = 0xe279_2aca;
const ENCRYPTION: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;

/// A header.
#[derive(Debug)]
pub(super) struct Header {
    /// Where the tables are.
    pub layout: Layout,
    /// Offset of the table of internal snapshots, and how many there are.
    pub snapshots: (u64, u32),
    /// What the disk's unwritten parts are read from, and its format.
    pub backing: Option<String>,
    pub backing_format: Option<String>,
    /// The guest's data are in another file; the name of it, if the header has one.
    pub external_data: bool,
    pub data_file: Option<String>,
}

/// Numbers of a header by their offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_be_bytes)
    }
}

fn text(bytes: &[u8], what: &str) -> io::Result<String> {
    if bytes.len() > LONGEST_NAME || bytes.contains(&0) {
        return Err(wrong(format!("its {what} is no name")));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| wrong(format!("its {what} is not UTF-8")))
}

impl Header {
    /// Reads and checks the header of `file`, which has `len` bytes.
    ///
    /// # Errors
    ///
    /// Whatever makes the image one that cannot be used, for reading only included.
    pub(super) fn read(file: &File, len: u64) -> io::Result<Header> {
        let mut bytes = [0; HEADER];
        read_padded(file, &mut bytes, 0)?;
        let fields = Fields(&bytes);
        let version = fields.u32(4);
        if !bytes.starts_with(MAGIC) || !(2..=3).contains(&version) {
            return Err(wrong("no qcow2 image of version 2 or 3"));
        }
        if fields.u32(32) != 0 {
            return Err(wrong(
                "it is encrypted, which is not supported (`qemu-img convert` makes an image that is not)",
            ));
        }
        let layout = Layout::of(&bytes)?;
        let features = if version == 3 { features(file, &fields, layout.cluster())? } else { 0 };
        check_tables(&fields, layout, len)?;
        let snapshots = (fields.u64(64), fields.u32(60));
        if snapshots.1 > MAX_SNAPSHOTS {
            return Err(wrong("it has too many snapshots"));
        }
        let mut header = Header {
            layout,
            snapshots,
            backing: None,
            backing_format: None,
            external_data: features & EXTERNAL_DATA != 0,
            data_file: None,
        };
        header.read_names(file, &fields, version)?;
        Ok(header)
    }

    /// Reads the name of the backing file, and the extensions.
    fn read_names(&mut self, file: &File, fields: &Fields, version: u32) -> io::Result<()> {
        let cluster = self.layout.cluster();
        let mut first = vec![0; cluster as usize];
        read_padded(file, &mut first, 0)?;
        let backing_at = fields.u64(8);
        let end = if backing_at == 0 { cluster } else { backing_at };
        if backing_at != 0 {
            let (from, count) = (usize::try_from(backing_at).unwrap_or(usize::MAX), fields.u32(16) as usize);
            let name = first.get(from..).and_then(|rest| rest.get(..count));
            let name = name.ok_or_else(|| wrong("the name of its backing file is beyond the first cluster"))?;
            self.backing = Some(text(name, "backing file")?);
        }
        let start = if version == 3 { fields.u32(100) as usize } else { 72 };
        let mut rest = first.get(start..end as usize).unwrap_or_default();
        while let Some((head, tail)) = rest.split_first_chunk::<8>() {
            let (kind, len) = (Fields(head).u32(0), Fields(head).u32(4) as usize);
            if kind == 0 {
                break;
            }
            let data =
                tail.get(..len).ok_or_else(|| wrong("an extension of its header is beyond the first cluster"))?;
            match kind {
                BACKING_FORMAT => self.backing_format = Some(text(data, "backing file's format")?),
                DATA_FILE => self.data_file = Some(text(data, "data file")?),
                ENCRYPTION => return Err(wrong("it has a header of an encryption, which is not supported")),
                // What must be understood has a bit among the incompatible features.
                _ => {}
            }
            rest = tail.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The incompatible features of a header of version 3.
fn features(file: &File, fields: &Fields, cluster: u64) -> io::Result<u64> {
    let features = fields.u64(72);
    let unusable = features & !EXTERNAL_DATA;
    if let Some((_, what)) = INCOMPATIBLE.iter().find(|(bit, _)| unusable >> bit & 1 != 0) {
        return Err(wrong(format!("it {what}")));
    }
    if unusable != 0 {
        return Err(wrong(format!("it has a feature that is not known here (bit {})", unusable.trailing_zeros())));
    }
    let len = u64::from(fields.u32(100));
    if !(HEADER as u64..=cluster).contains(&len) || len % 8 != 0 {
        return Err(wrong(format!("its header cannot have {len} bytes")));
    }
    let mut compression = [0];
    if len > HEADER as u64 {
        read_padded(file, &mut compression, HEADER as u64)?;
    }
    if compression != [0] {
        return Err(wrong("its compression is not known here"));
    }
    Ok(features)
}

/// Whether the tables can be where the header says.
fn check_tables(fields: &Fields, layout: Layout, len: u64) -> io::Result<()> {
    let size = fields.u64(24);
    let ((l1, l1_bytes), (refcounts, refcount_bytes)) = (layout.l1, layout.refcounts);
    if size > MAX_SIZE || l1_bytes / 8 > MAX_L1 || size.div_ceil(layout.l2_range()) > l1_bytes / 8 {
        return Err(wrong(format!("its L1 table of {} entries cannot map {size} bytes", l1_bytes / 8)));
    }
    if refcount_bytes > MAX_REFCOUNT_TABLE {
        return Err(wrong("its refcount table is too large"));
    }
    if l1 % layout.cluster() != 0 || refcounts % layout.cluster() != 0 {
        return Err(wrong("its tables do not begin at clusters"));
    }
    if l1.checked_add(l1_bytes).is_none_or(|end| end > len) {
        return Err(wrong("its L1 table is beyond the end of the file"));
    }
    Ok(())
}
