//! Code with other link slots is what would be made with them; files that are not as they were written are not used.

use std::os::unix::fs::{PermissionsExt, chown, symlink};

use mimus_backend::{Compiler, HostIsa};
use mimus_ir::{Builder, EnvSlot, Op, Type};

use super::file::write;
use super::slots::{self, find};
use super::*;
use crate::compile::Settings;

const HEADER: usize = 4096;

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("mimus-kept-{name}-{}", std::process::id()));
        prepare_folder(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A block that goes two ways, with a constant of the guest's.
fn block(pc: u64, constant: u64) -> mimus_ir::Block {
    let mut b = Builder::new(pc);
    b.insn(pc, 2);
    let slot = EnvSlot { offset: 16, ty: Type::I64 };
    let (constant, x) = (b.iconst(Type::I64, constant), b.load_env(slot));
    let sum = b.binary(Op::Add, Type::I64, x, constant);
    b.store_env(slot, sum);
    let low = b.binary(Op::Ult, Type::I64, sum, x);
    b.branch(low, pc);
    b.finish(pc + 2)
}

/// What the tiers make of blocks with these slots: the quick tier of the first, the compiler of each, and as a region.
fn codes(blocks: &[mimus_ir::Block], first_slot: u32) -> Vec<Vec<u8>> {
    let host = HostIsa::native().unwrap();
    let settings = Settings { header_offset: HEADER, counted: false, chain: true, sync: true, dump: false };
    let slots = (first_slot..).step_by(2);
    let parts: Vec<Part<'_>> = blocks.iter().zip(slots).map(|(block, link_slot)| Part { block, link_slot }).collect();
    let request = |parts, region| Request {
        parts,
        region,
        header_offset: settings.header_offset as i32,
        linear_offset: 0,
        counted: settings.counted,
        may_link: settings.chain,
        dump: None,
    };
    let mut compiler = Compiler::new(host.clone());
    let mut out = Vec::new();
    if let Some(mut quick) = QuickCompiler::new(&host) {
        quick.compile(&request(&parts[..1], false)).unwrap();
        out.push(quick.code().to_vec());
    }
    for (parts, region) in [(&parts[..1], false), (&parts[..], true)] {
        let mut code = Vec::new();
        compiler.compile(request(parts, region), &mut code).unwrap();
        out.push(code);
    }
    out
}

#[test]
fn code_with_other_slots_is_what_is_made_with_them() {
    let blocks = [block(0x100, 0x1234_5678), block(0x102, 5), block(0x200, u64::MAX)];
    let slots = |first: u32| [first, first + 2, first + 4];
    for from in [64, 1024, 99_998] {
        for to in [64, 70, 4000, 1_000_000] {
            let made = codes(&blocks, from).into_iter().zip(codes(&blocks, from + SHIFT)).zip(codes(&blocks, to));
            for ((mut code, again), fresh) in made {
                let names = find(&code, &again, &slots(from)).unwrap();
                assert!(!names.is_empty());
                slots::set(&mut code, &names, &slots(to)).unwrap();
                assert!(code == fresh, "from {from} to {to}");
            }
        }
    }
}

#[test]
fn what_looks_like_a_slot_and_is_none_stays() {
    let with = |constant| codes(&[block(0x100, constant)], 1024);
    for constant in [1024, 1025, 2048, 8192, 8200, 1024 | 8192 << 32] {
        let (made, again) = (with(constant), codes(&[block(0x100, constant)], 1024 + SHIFT));
        for ((mut code, again), fresh) in made.into_iter().zip(again).zip(codes(&[block(0x100, constant)], 5000)) {
            // Code in which the constant and the number share a register is not kept.
            let Some(names) = find(&code, &again, &[1024]) else { continue };
            slots::set(&mut code, &names, &[5000]).unwrap();
            assert!(code == fresh, "{constant:#x}");
        }
    }
    assert_eq!(find(&[1, 2, 3, 4], &[1, 2, 3, 5], &[64]), None, "it differs by no slot");
    assert_eq!(find(&[0; 4], &[0; 5], &[64]), None);
    let (mut code, names) = ([0; 4], [slots::Name { at: 1, part: 0, second: false, scale: 0 }]);
    assert_eq!(slots::set(&mut code, &names, &[64]), None, "it does not fit");
}

fn unit(pc: u64, tier: Tier, byte: u8) -> Unit<'static> {
    let part = unit::Part { pc, targets: [Some(pc), None], bytes: vec![byte; 3].into() };
    Unit {
        tier,
        level: u8::from(tier == Tier::Region),
        words: [1, 2],
        block: block(pc, 7),
        parts: [part].into_iter().collect(),
        code: vec![0x90; 21].into(),
        entry_offset: 4,
        names: [slots::Name { at: 3, part: 0, second: true, scale: 2 }].into_iter().collect(),
    }
}

fn key(pc: u64) -> TbKey {
    TbKey { gpa: 0x5000 | pc, pc, words: [1, 2] }
}

const IDENTITY: &[u8] = b"a mimus";

/// A file with three translations.
fn written(folder: &Folder) -> (PathBuf, Vec<(u64, Vec<u8>)>) {
    let path = folder.0.join("a.translations");
    let units: Vec<(u64, Vec<u8>)> = [(0x100, Tier::Cold), (0x200, Tier::Quick), (0x300, Tier::Region)]
        .map(|(pc, tier)| (hash(&key(pc), &[9; 3]), unit(pc, tier, 9).encode()))
        .to_vec();
    let borrowed: Vec<(u64, &[u8])> = units.iter().map(|(hash, unit)| (*hash, &unit[..])).collect();
    write(&path, IDENTITY, &borrowed).unwrap();
    (path, units)
}

#[test]
fn what_is_written_is_found() {
    let folder = Folder::new("found");
    let (path, units) = written(&folder);
    let file = File::open(&path, IDENTITY).unwrap().unwrap();
    for (hash, unit) in &units {
        assert!(file.find(*hash).map(Unit::whole).eq([Some(&unit[..])]));
        let decoded = Unit::decode(unit, &key(0x200)).map(|decoded| (decoded.encode(), decoded.names, decoded.tier));
        let expected = self::unit(0x200, Tier::Quick, 9);
        let expected = (*hash == units[1].0).then(|| (expected.encode(), expected.names, expected.tier));
        assert!(decoded == expected);
    }
    assert_eq!(file.find(12345).count(), 0);
    assert_eq!(file.units().count(), 3);
    let seen = |at: u64, out: &mut [u8]| {
        assert_eq!(at, 0x5200);
        out.fill(9);
        true
    };
    assert!(unit(0x200, Tier::Quick, 9).is_at(0x5200, seen));
    assert!(!unit(0x200, Tier::Quick, 8).is_at(0x5200, seen));
    assert!(!unit(0x200, Tier::Quick, 9).is_at(0x5ffe, |_, _| true), "it does not fit the page");
}

#[test]
fn damage_is_noticed() {
    let folder = Folder::new("damage");
    let (path, units) = written(&folder);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let Ok(Some(file)) = File::open(&path, IDENTITY) else { continue };
        let found = units.iter().filter(|(hash, _)| file.find(*hash).filter_map(Unit::whole).count() == 1).count();
        let all = units
            .iter()
            .flat_map(|(hash, _)| file.find(*hash))
            .filter_map(Unit::whole)
            .all(|unit| units.iter().any(|(_, u)| u == unit));
        assert!(all, "byte {at}");
        // What is between the units is not looked at.
        assert!(found >= 2, "byte {at}");
    }
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(matches!(File::open(&path, IDENTITY), Err(Unfit::Damaged | Unfit::Io(_))), "{len} bytes");
    }
}

#[test]
fn what_others_can_have_written_is_not_used() {
    let folder = Folder::new("others");
    let (path, _) = written(&folder);
    assert!(matches!(File::open(&path, b"another"), Err(Unfit::Identity)));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for bits in [0o620, 0o602] {
        mode(&path, bits);
        assert!(matches!(File::open(&path, IDENTITY), Err(Unfit::Writable(_))));
    }
    mode(&path, 0o600);
    let link = folder.0.join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(File::open(&link, IDENTITY), Err(Unfit::Io(_))));
    assert!(matches!(File::open(&folder.0, IDENTITY), Err(Unfit::Kind(_))));
    // root can give things away, and others have what is root's.
    let foreign = if chown(&path, Some(1), None).is_ok() { path } else { PathBuf::from("/etc/passwd") };
    assert!(matches!(File::open(&foreign, IDENTITY), Err(Unfit::Foreign(_))));
    mode(&folder.0, 0o770);
    assert!(matches!(prepare_folder(&folder.0), Err(Unfit::Writable(0o770))));
    mode(&folder.0, 0o700);
    assert!(matches!(prepare_folder(&link), Err(Unfit::Kind(_))));
}

#[test]
fn the_best_and_what_was_used_last_are_kept() {
    let units = [(0x100, Tier::Quick), (0x100, Tier::Compiled), (0x100, Tier::Region), (0x200, Tier::Cold)]
        .map(|(pc, tier)| (pc, unit(pc, tier, 9).encode()));
    let all = |new: [bool; 4]| {
        let written = units.iter().zip(new).zip(0..);
        let written = written.map(|(((pc, unit), new), number)| Written { hash: *pc, unit, new, number });
        written.collect::<Vec<Written<'_>>>()
    };
    let tiers = |chosen: Vec<Written<'_>>| -> Vec<(u64, Tier)> {
        chosen.iter().map(|w| (w.hash, Unit::tier_of(w.unit).unwrap())).collect()
    };
    let len = units[0].1.len() as u64;
    // A region is kept beside its first block: the rest of it may be other code.
    let best = [(0x100, Tier::Compiled), (0x100, Tier::Region), (0x200, Tier::Cold)];
    assert_eq!(tiers(choose(all([false; 4]), &[], 100 * len)), best);
    assert_eq!(tiers(choose(all([false, false, false, true]), &[], len)), [(0x200, Tier::Cold)]);
    let used = [3, 0].map(|index: usize| Unit::source_of(&units[index].1).unwrap());
    assert_eq!(tiers(choose(all([false; 4]), &used[1..], len)), [(0x100, Tier::Compiled)], "as compiled code");
    let order = [(0x200, Tier::Cold), (0x100, Tier::Compiled), (0x100, Tier::Region)];
    assert_eq!(tiers(choose(all([false; 4]), &used, 100 * len)), order, "in the order in which they are taken");
}

#[test]
fn files_that_were_not_used_for_longest_make_room() {
    let folder = Folder::new("room");
    let file = |name: &str| folder.0.join(name).with_extension(EXTENSION);
    for (name, age) in [("own", 9), ("old", 3), ("older", 4), ("new", 1)] {
        fs::write(file(name), [0; 100]).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        fs::File::open(file(name)).unwrap().set_modified(used).unwrap();
    }
    fs::write(folder.0.join("something"), [0; 100]).unwrap();
    let left = || ["own", "old", "older", "new"].map(|name| file(name).is_file());
    for (bound, expected) in [
        (400, [true; 4]),
        (399, [true, true, false, true]),
        (250, [true, false, false, true]),
        (1, [true, false, false, false]),
    ] {
        make_room(&file("own"), bound).unwrap();
        assert_eq!(left(), expected, "{bound}");
    }
    assert!(folder.0.join("something").is_file());
}

#[test]
fn nothing_waits_for_long_for_others_that_write() {
    let folder = Folder::new("lock");
    let first = lock(&folder.0).unwrap();
    assert_eq!(lock(&folder.0).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(first);
    lock(&folder.0).unwrap();
}

#[test]
fn code_is_given_to_a_block_of_the_same_bytes_alone() {
    use crate::cache::tests::{Vcpu, cache, insert};
    let cache = cache(64 << 20);
    let vcpu = Vcpu::new(&cache);
    let tb = insert(&cache, &vcpu, 0x1100);
    let mut kept = unit(0x1100, Tier::Compiled, 9);
    assert_eq!(cache.publish_kept(&tb, &kept, 1), None, "the block has four bytes");
    kept.parts[0].bytes = vec![9; 4].into();
    kept.parts.push(unit::Part { pc: 0x1200, targets: [None; 2], bytes: vec![9].into() });
    assert_eq!(cache.publish_kept(&tb, &kept, 1), None, "a region's bytes are more");
    kept.parts.pop();
    assert!(cache.publish_kept(&tb, &kept, 1).is_some() && tb.stage() == Stage::Compiled && tb.entry() != 0);
    assert_eq!(cache.publish_kept(&tb, &kept, 1), None, "it has code");
}
