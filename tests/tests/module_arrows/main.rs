//! Which module may use which, for every crate that has rooms inside: the table of `docs/architecture.md`, "Rooms and arrows",
//! read from the sources. `crate_arrows.rs` is about crates.

#![forbid(unsafe_code)]

mod imports;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use imports::{Arrow, Names, Sources};
use table::{Row, TABLE};

fn names(path: &str) -> Names {
    if path == table::ROOT { Names::new() } else { path.split("::").map(str::to_owned).collect() }
}

/// The rooms of a crate: the modules that its rows name.
fn rooms(rows: &[Row]) -> BTreeSet<Names> {
    rows.iter().flat_map(|(modules, _)| modules.split_whitespace()).map(names).collect()
}

/// The innermost room that a module is in; the crate's root is one.
fn room_of(rooms: &BTreeSet<Names>, module: &[String]) -> Option<Names> {
    let inner = (1..=module.len()).rev().map(|depth| module[..depth].to_vec()).find(|room| rooms.contains(room));
    inner.or_else(|| module.is_empty().then(Names::new))
}

/// Pairs of rooms of which the first may use the second.
fn allowed(rows: &[Row]) -> BTreeSet<Arrow> {
    let row = |&(modules, used): &Row| {
        let pairs = modules.split_whitespace().flat_map(|from| used.split_whitespace().map(move |to| (from, to)));
        pairs.map(|(from, to)| Arrow { from: names(from), to: names(to) }).collect::<Vec<_>>()
    };
    rows.iter().flat_map(row).collect()
}

/// What is wrong between a crate's sources and its rows.
fn wrong(sources: &Sources, rows: &[Row]) -> Vec<String> {
    let (rooms, allowed) = (rooms(rows), allowed(rows));
    let mut wrong = Vec::new();
    wrong.extend(
        sources.modules().filter(|module| room_of(&rooms, module).is_none()).map(|m| format!("no row has {m:?}")),
    );
    wrong.extend(
        rooms.iter().filter(|room| !sources.modules().any(|m| m == *room)).map(|r| format!("there is no {r:?}")),
    );
    let mut found = BTreeSet::new();
    for arrow in sources.arrows() {
        let (Some(from), Some(to)) = (room_of(&rooms, &arrow.from), room_of(&rooms, &arrow.to)) else { continue };
        let between = Arrow { from, to };
        // The root puts the rooms together.
        if between.from == between.to || between.from.is_empty() || allowed.contains(&between) {
            found.insert(between);
        } else {
            wrong.push(format!("{} uses {}", arrow.from.join("::"), arrow.to.join("::")));
        }
    }
    // A row may say of several modules what only one needs.
    for (modules, used) in rows {
        let needed = |to: &str| {
            modules.split_whitespace().any(|from| found.contains(&Arrow { from: names(from), to: names(to) }))
        };
        wrong.extend(used.split_whitespace().filter(|to| !needed(to)).map(|to| format!("{modules}: none uses {to}")));
    }
    wrong
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace's folder");
    let mut found = Vec::new();
    for (folder, rows) in TABLE {
        let sources = Sources::read(&root.join(folder).join("src"));
        found.extend(wrong(&sources, rows).into_iter().map(|what| format!("{folder}: {what}")));
    }
    assert!(found.is_empty(), "against the table of modules: {found:#?}");
}

/// A crate of two modules and what they have inside.
fn small(a: &str, b: &str) -> Sources {
    let mut sources = Sources::default();
    for (module, code) in [("a", a), ("b", b), ("a::inner", ""), ("tests", "use crate::b;")] {
        sources.code(code, &names(module));
    }
    sources.code("pub use a::{self, inner::Other as Renamed}; mod a; mod b; #[cfg(test)] mod tests;", &[]);
    sources
}

#[test]
fn a_path_is_an_arrow_to_the_module_that_has_its_end() {
    let rows = [("a b", "")];
    for used in [
        "use crate::a::Thing;",
        "use super::{a::{Thing, More as Less}};",
        "fn f() { let x = super::a::g(); }",
        "use crate::Renamed;",
        "macro_rules! m { () => { $crate::a::g() } }",
        "mod within { use super::super::a; }",
        "use crate::a::inner; #[cfg(test)] use crate::a;",
    ] {
        assert_eq!(wrong(&small("", used), &rows).len(), 1, "{used}");
        assert!(wrong(&small("", used), &[("a", ""), ("b", "a")]).is_empty(), "{used}");
    }
    for unused in [
        "// use crate::a;\nconst A: &str = \"crate::a::B\";",
        "#[cfg(test)] mod tests { use crate::a; }",
        "#[cfg(test)]\nuse crate::a::Thing;",
        "use std::a::b; use self::c; mod c {}",
        "use super::b::x;",
    ] {
        assert!(wrong(&small("", unused), &rows).is_empty(), "{unused}");
    }
}

#[test]
fn the_table_has_every_module_and_no_more() {
    let sources = small("fn f() { inner::g() }", "use crate::a::inner::X;");
    assert!(wrong(&sources, &[("a", ""), ("b", "a")]).is_empty());
    assert!(wrong(&sources, &[("a", "a::inner"), ("a::inner", ""), ("b", "a::inner")]).is_empty());
    for rows in [
        [("a", "b"), ("b", "a")].as_slice(),
        &[("a", "")],
        &[("a c", ""), ("b", "a")],
        &[("a", ""), ("a::inner", ""), ("b", "a::inner")],
    ] {
        assert!(!wrong(&sources, rows).is_empty(), "{rows:?}");
    }
}
