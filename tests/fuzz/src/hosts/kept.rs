//! Files with translations that are kept between runs, damaged: what is found in them is what was written, or nothing is.

use std::path::Path;

use mimus_engine::cache::TbKey;
use mimus_engine::kept::file::{File, write};
use mimus_engine::kept::slots::Name;
use mimus_engine::kept::unit::{Part, Tier, Unit, hash};
use mimus_ir::{Block, Inst, NONE, Op, Type};

use super::Folder;
use crate::input::Input;

const IDENTITY: &[u8] = b"this machine";

fn unit(input: &mut Input) -> Unit<'static> {
    let tier = input.pick(&[Tier::Cold, Tier::Quick, Tier::Compiled, Tier::Region]);
    let pc = u64::from(input.u16() % 4096);
    let part = |input: &mut Input| Part {
        pc: u64::from(input.u16() % 4096),
        targets: [Some(u64::from(input.u8())), None],
        bytes: vec![input.u8(); usize::from(input.u8())].into(),
    };
    let inst = |input: &mut Input| {
        let (op, ty) = (input.pick(Op::ALL), input.pick(&Type::ALL));
        Inst { op, ty, a: input.u16(), b: NONE, c: input.u16(), imm: u64::from(input.u32()) }
    };
    let name =
        |input: &mut Input| Name { at: u32::from(input.u8()), part: input.u8(), second: true, scale: input.u8() };
    Unit {
        tier,
        level: input.u8(),
        words: [input.u32(), 0],
        block: Block {
            pc,
            fallthrough: pc + 1,
            guest_insns: 1,
            guest_bytes: 1,
            insts: (0..input.u8()).map(|_| inst(input)).collect(),
        },
        parts: (0..input.u8() % 24).map(|_| part(input)).collect(),
        code: vec![input.u8(); usize::from(input.u16() % 2048)].into(),
        entry_offset: u32::from(input.u8()),
        names: (0..input.u8() % 16).map(|_| name(input)).collect(),
    }
}

/// Changes some of a file, or cuts it off, or makes it longer.
fn damage(input: &mut Input, bytes: &mut Vec<u8>) {
    for _ in 0..=input.u8() % 4 {
        let at = input.u32() as usize % bytes.len().max(1);
        match (input.u8() % 8, bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, _) => bytes.extend_from_within(at..),
            (2, Some(_)) => drop(bytes.drain(at..)),
            // Lengths, offsets and numbers become large.
            (3, Some(byte)) => *byte = 0xff,
            (_, Some(byte)) => *byte = byte.wrapping_add(input.u8()),
            (_, None) => {}
        }
    }
}

/// Looks everything up that was written, and something else.
fn look(file: &File, units: &[(TbKey, u64, Vec<u8>)]) {
    let other = (TbKey { gpa: 0, pc: 0, words: [0; 2] }, 1, Vec::new());
    for (key, hash, _) in units.iter().chain([&other]) {
        // Of what is not whole nothing is believed, but it is looked at.
        file.find(*hash).for_each(|found| drop(Unit::decode(found, key)));
        for found in file.find(*hash).filter_map(Unit::whole) {
            assert!(units.iter().any(|(.., unit)| unit == found), "something that nobody wrote");
            if let Some(unit) = Unit::decode(found, key) {
                assert!(unit.encode() == found);
                let _ = unit.is_at(key.gpa, |_, out| out.len() <= 4096);
            }
        }
    }
}

fn open(path: &Path, units: &[(TbKey, u64, Vec<u8>)]) {
    if let Ok(Some(file)) = File::open(path, IDENTITY) {
        look(&file, units);
        assert!(file.units().all(|(_, found)| units.iter().any(|(.., unit)| unit == found)));
    }
}

/// Runs a case.
pub fn run(input: &mut Input) {
    let folder = Folder::new();
    let path = folder.file("translations");
    let made = |input: &mut Input| {
        let unit = unit(input);
        let key = TbKey { gpa: 0x1000 | unit.block.pc, pc: unit.block.pc, words: unit.words };
        (key, hash(&key, &[input.u8(); 8]), unit.encode())
    };
    let units: Vec<(TbKey, u64, Vec<u8>)> = (0..1 + input.u8() % 8).map(|_| made(input)).collect();
    let borrowed: Vec<(u64, &[u8])> = units.iter().map(|(_, hash, unit)| (*hash, &unit[..])).collect();
    write(&path, IDENTITY, &borrowed).expect("a file");
    let file = File::open(&path, IDENTITY).expect("it is in order").expect("it is there");
    assert!(units.iter().all(|(_, hash, unit)| file.find(*hash).filter_map(Unit::whole).any(|found| found == unit)));
    let whole = std::fs::read(&path).expect("a file");
    for _ in 0..8 {
        let mut bytes = whole.clone();
        damage(input, &mut bytes);
        // Written anew rather than over what is mapped.
        std::fs::remove_file(&path).expect("it is there");
        std::fs::write(&path, &bytes).expect("a file");
        open(&path, &units);
    }
}
