//! Blocks as the tests write them: ops alone, in the text form of `mimus_ir::text`. What all of these tests have in common (the
//! header, the marker of the one instruction, an exit without anything to tell) is left out.

use mimus_ir::passes::{Scratch, optimize};
use mimus_ir::text::{Names, parse, print};
use mimus_ir::{Block, verify};

use crate::file::Produced;

/// Bytes of env that a test's ops may name.
const ENV_BYTES: usize = 256;

/// Guest PC of the instruction whose ops are written.
pub const PC: u64 = 0x1000;

/// Its length in bytes, if the test is none of a guest.
const LEN: u32 = 4;

/// Whether `ops` have an end of their own.
pub fn ends(ops: &str) -> bool {
    let last = ops.rsplit(';').next().unwrap_or_default().trim();
    ["exit", "jump", "jump_ind", "branch"].iter().any(|end| last.split(' ').next() == Some(end))
}

/// The block of `ops`, which are separated by semicolons. An exit is added if none ends it.
///
/// # Errors
///
/// An op that cannot be read, or a block that breaks the op table's rules.
pub fn block(ops: &str) -> Result<Block, String> {
    let exit = if ends(ops) { "" } else { "\nexit 0x0" };
    let text = format!(
        "block pc={PC:#x} fallthrough={:#x} insns=1 bytes={LEN}\ninsn {PC:#x}, len={LEN}\n{}{exit}\n",
        PC + u64::from(LEN),
        ops.replace(';', "\n")
    );
    let block = parse(&text).map_err(|error| error.to_string())?;
    verify(&block, ENV_BYTES).map_err(|error| format!("no valid block: {error:?}"))?;
    Ok(block)
}

/// The ops of a block, without the first instruction's marker, and without what ends it if that only goes on behind it.
pub fn ops(block: &Block, names: Option<&dyn Names>) -> Vec<String> {
    let text = print(block, names);
    let on = [format!("jump {:#x}, slot=0", block.fallthrough), "exit 0x0".to_owned()];
    let mut ops: Vec<String> = text.lines().skip(2).map(|line| line.trim().to_owned()).collect();
    if ops.last().is_some_and(|op| on.contains(op)) {
        ops.pop();
    }
    ops
}

/// The folder `passes`: ops become those that the passes leave of them.
pub fn passes(_: &[String], input: &str) -> Result<Produced, String> {
    let mut block = block(input)?;
    optimize(&mut block, &mut Scratch::default());
    verify(&block, ENV_BYTES).map_err(|error| format!("the passes made no valid block: {error:?}"))?;
    Ok(Produced { input: input.to_owned(), output: ops(&block, None) })
}
