//! Device trees from files: what the command line says of the kernel is put into them (Devicetree Specification 0.4, chapter 5).

use vm_fdt::{FdtReserveEntry, FdtWriter, FdtWriterNode};

use super::fdt::TreeConfig;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Bytes of the header.
const HEADER: usize = 40;
/// The deepest nodes that are taken.
const DEPTH: usize = 64;

/// Why a tree is not taken.
type Reason = String;

/// The big-endian word at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The text at `at`, without its NUL.
fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

/// The tree in `blob`, with the kernel's command line and the initrd of `config` if there are any: as it is if there are none.
///
/// # Errors
///
/// A sentence: this is no tree, or a damaged one.
pub(super) fn with_chosen(blob: &[u8], config: &TreeConfig) -> Result<Vec<u8>, Reason> {
    let size = word(blob, 4).unwrap_or(0) as usize;
    if word(blob, 0) != Some(MAGIC) || blob.len() < HEADER {
        return Err("no device tree (flattened, as the device tree compiler writes it)".into());
    }
    let blob = blob.get(..size).ok_or("the device tree is truncated")?;
    if config.bootargs.is_empty() && config.initrd.is_none() {
        return Ok(blob.to_vec());
    }
    let copy = Copy::new(blob, config).ok_or("the device tree is damaged")?;
    copy.0.finish().map_err(|error| format!("the device tree cannot be changed: {error}"))
}

/// A tree that is copied.
struct Copy(FdtWriter);

impl Copy {
    fn new(blob: &[u8], config: &TreeConfig) -> Option<Copy> {
        let mut reserved = Vec::new();
        let at = word(blob, 16)? as usize;
        for entry in blob.get(at..)?.chunks_exact(16) {
            let [address, size] = [0, 8]
                .map(|at| u64::from(word(entry, at).unwrap_or(0)) << 32 | u64::from(word(entry, at + 4).unwrap_or(0)));
            if (address, size) == (0, 0) {
                break;
            }
            reserved.push(FdtReserveEntry::new(address, size).ok()?);
        }
        let writer = FdtWriter::new_with_mem_reserv(&reserved).ok()?;
        let mut copy = Copy(writer);
        copy.nodes(blob, config)?;
        Some(copy)
    }

    /// Copies all nodes; `None` if they are damaged.
    fn nodes(&mut self, blob: &[u8], config: &TreeConfig) -> Option<()> {
        let (mut at, strings) = (word(blob, 8)? as usize, blob.get(word(blob, 12)? as usize..)?);
        let mut open: Vec<(FdtWriterNode, bool)> = Vec::new();
        let mut seen = false;
        loop {
            let token = word(blob, at)?;
            at = at.checked_add(4)?;
            match token {
                BEGIN_NODE => {
                    let name = text(blob, at)?;
                    at = at.checked_add(name.len() + 1)?.checked_next_multiple_of(4)?;
                    let chosen = open.len() == 1 && name == "chosen";
                    if open.len() == DEPTH {
                        return None;
                    }
                    open.push((self.0.begin_node(name).ok()?, chosen));
                    if chosen && !std::mem::replace(&mut seen, true) {
                        self.chosen(config).ok()?;
                    }
                }
                END_NODE => {
                    if open.len() == 1 && !seen {
                        let node = self.0.begin_node("chosen").ok()?;
                        self.chosen(config).ok()?;
                        self.0.end_node(node).ok()?;
                    }
                    self.0.end_node(open.pop()?.0).ok()?;
                }
                PROPERTY => {
                    let (len, name) =
                        (word(blob, at)? as usize, text(strings, word(blob, at.checked_add(4)?)? as usize)?);
                    let start = at.checked_add(8)?;
                    let end = start.checked_add(len)?;
                    let value = blob.get(start..end)?;
                    at = end.checked_next_multiple_of(4)?;
                    let ours = open.last()?.1 && replaces(config, name);
                    if !ours {
                        self.0.property(name, value).ok()?;
                    }
                }
                NOP => {}
                END if open.is_empty() => return Some(()),
                _ => return None,
            }
        }
    }

    fn chosen(&mut self, config: &TreeConfig) -> Result<(), vm_fdt::Error> {
        if !config.bootargs.is_empty() {
            self.0.property_string("bootargs", config.bootargs)?;
        }
        if let Some((start, end)) = config.initrd {
            self.0.property_u64("linux,initrd-start", start)?;
            self.0.property_u64("linux,initrd-end", end)?;
        }
        Ok(())
    }
}

/// Whether a property of `/chosen` is not copied, since the command line says it.
fn replaces(config: &TreeConfig, name: &str) -> bool {
    match name {
        "bootargs" => !config.bootargs.is_empty(),
        "linux,initrd-start" | "linux,initrd-end" => config.initrd.is_some(),
        _ => false,
    }
}
