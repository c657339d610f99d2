//! The folders `lower` and `quick`: ops become Cranelift's form of them, and the quick tier's host code. The host is one that is
//! fixed here, so that the text does not depend on the machine that the test runs on.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use mimus_backend::{Compiler, Dump, HostIsa, Part, QuickCompiler, Request};
use mimus_ir::Block;

use crate::block;
use crate::file::Produced;

/// The host whose code is looked at.
const HOST: &str = "x86_64";

/// What the quick tier wants of it.
const FEATURES: &[&str] = &["has_sse3", "has_ssse3", "has_sse41"];

/// Offset of the header in env, beyond what the tests' ops name.
const HEADER_OFFSET: i32 = 0x400;

fn host() -> Result<HostIsa, String> {
    HostIsa::with_features(HOST, FEATURES).map_err(|error| error.to_string())
}

fn request<'a>(parts: &'a [Part<'a>], dump: Option<&'a mut Dump>) -> Request<'a> {
    Request {
        parts,
        region: false,
        header_offset: HEADER_OFFSET,
        linear_offset: 0,
        counted: false,
        may_link: true,
        dump,
    }
}

/// What the ops themselves became: without the beginning that an empty block has too, and without the exit behind the ops, which
/// is as long as an empty block's.
fn produced(input: &str, lines: fn(&Block) -> Result<Vec<String>, String>) -> Result<Produced, String> {
    let (mut text, empty) = (lines(&block::block(input)?)?, lines(&block::block("")?)?);
    let head = text.iter().zip(&empty).take_while(|(a, b)| a == b).count();
    if !block::ends(input) {
        text.truncate(text.len().saturating_sub(empty.len() - head));
    }
    Ok(Produced { input: input.to_owned(), output: text.split_off(head.min(text.len())) })
}

/// Cranelift's form of the ops.
pub fn clif(_: &[String], input: &str) -> Result<Produced, String> {
    produced(input, |block| {
        let mut dump = Dump::default();
        let parts = [Part { block, link_slot: 0 }];
        let mut compiler = Compiler::new(host()?);
        compiler.compile(request(&parts, Some(&mut dump)), &mut Vec::new()).map_err(|error| error.to_string())?;
        // Comments repeat constants.
        let lines = dump.clif.lines().filter_map(|line| line.split("  ; ").next());
        let lines = lines.map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    })
}

/// The quick tier's code for the ops.
pub fn quick(_: &[String], input: &str) -> Result<Produced, String> {
    produced(input, |block| {
        let mut quick = QuickCompiler::new(&host()?).ok_or("the quick tier has no such host")?;
        let parts = [Part { block, link_slot: 0 }];
        quick.compile(&request(&parts, None)).ok_or("the quick tier has no template for this")?;
        let mut nasm = NasmFormatter::new();
        let lines = Decoder::new(64, quick.code(), DecoderOptions::NONE).into_iter().map(|insn| {
            let mut text = String::new();
            match insn.is_jcc_short_or_near() {
                // Where it leads depends on the length of the code.
                true => nasm.format_mnemonic(&insn, &mut text),
                false => nasm.format(&insn, &mut text),
            }
            text
        });
        Ok(lines.collect())
    })
}
