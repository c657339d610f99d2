//! The house keeps its shape: which crate and which module may use which, that each dependency is used, what lies at the
//! top, and where `unsafe` may be.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate: its name, its folder, and what it may use of ours.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("mimus-ir", "ir", &[]),
    ("mimus-softmmu", "softmmu", &[]),
    ("mimus-hw", "hw", &["mimus-softmmu"]),
    ("mimus-frontend", "frontend", &["mimus-ir", "mimus-softmmu"]),
    ("mimus-backend", "backend", &["mimus-ir", "mimus-softmmu"]),
    ("mimus-engine", "runtime/engine", &["mimus-ir", "mimus-softmmu", "mimus-frontend", "mimus-backend"]),
    ("mimus-host", "runtime/host", &["mimus-hw", "mimus-softmmu"]),
    ("mimus-machine", "runtime/machine", BELOW_MACHINES),
    ("mimus-cli", "runtime/cli", BELOW_CLI),
    ("mimus", "runtime", BELOW_MIMUS),
    ("mimus-tests", "tests", ALL),
    ("mimus-filetests", "tests/filetests", &["mimus-ir", "mimus-frontend", "mimus-backend"]),
    ("mimus-fuzz", "tests/fuzz", ALL),
    ("mimus-benches", "benches", ALL),
    ("mimus-tools", "tools", ALL),
];
/// Those below the crate of this place in [`ALL`].
const fn below(place: usize) -> &'static [&'static str] {
    ALL.split_at(place).0
}
const BELOW_MACHINES: &[&str] = below(7);
const BELOW_CLI: &[&str] = below(8);
const BELOW_MIMUS: &[&str] = below(9);
/// From the lowest on.
const ALL: &[&str] = &[
    "mimus-ir",
    "mimus-softmmu",
    "mimus-hw",
    "mimus-frontend",
    "mimus-backend",
    "mimus-engine",
    "mimus-host",
    "mimus-machine",
    "mimus-cli",
    "mimus",
];

/// What a newcomer sees at the top of the repository. Hidden files and the
/// build's `target` are not looked at.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "backend",
    "benches",
    "docs",
    "frontend",
    "hw",
    "ir",
    "runtime",
    "rust-toolchain.toml",
    "softmmu",
    "tests",
    "tools",
];

/// The crates that may say `unsafe`; the others forbid it.
const MAY_BE_UNSAFE: &[&str] = &["softmmu", "backend", "runtime"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace's folder").into()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("there are packages").clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let listed: BTreeSet<&str> = ARROWS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(ours, listed, "the table names each crate of the workspace");
    let mut wrong = Vec::new();
    for package in &packages {
        let name = text(package, "name");
        let (.., allowed) = ARROWS.iter().find(|(listed, ..)| *listed == name).expect("compared above");
        // Normal, dev and build dependencies alike.
        for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
            let target = text(dependency, "name");
            if ours.contains(target) && !allowed.contains(&target) {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies against the table in docs: {wrong:?}");
}

#[test]
fn each_crate_lies_in_its_folder() {
    for package in packages() {
        let name = text(&package, "name");
        let (_, folder, _) = ARROWS.iter().find(|(listed, ..)| *listed == name).expect("the table names each crate");
        assert_eq!(Path::new(text(&package, "manifest_path")), root().join(folder).join("Cargo.toml"));
    }
}

#[test]
fn nothing_else_lies_at_the_top() {
    let found: BTreeSet<String> = fs::read_dir(root())
        .expect("the workspace's folder can be read")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a UTF-8 name"))
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let expected: BTreeSet<String> = TOP.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected);
}

/// All Rust files below a folder, but for what cargo builds beside a manifest.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let built = folder.join("Cargo.toml").exists().then(|| folder.join("target"));
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && Some(&path) != built.as_ref() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Whether `code` has a word.
fn has_word(code: &str, word: &str) -> bool {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|said| said == word)
}

/// Whether a line of code, its comment left out, names something of crate `name`, or the crate itself.
fn uses_crate(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let apart = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric() && !"_:".contains(letter));
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let whole = before.trim_end().ends_with("use") && [";", " as"].iter().any(|end| after.starts_with(end));
        apart(before.chars().next_back()) && (after.starts_with("::") || whole)
    })
}

#[test]
fn a_crate_is_used_where_its_name_begins_a_path() {
    for (line, name) in [("use des::Des;", "des"), ("    -> libc::c_int", "libc"), ("use a_b;", "a_b")] {
        assert!(uses_crate(line, name), "{line}");
    }
    assert!(!uses_crate("nodes::new(des)", "des") && !uses_crate("crate::des::f(); // des::g", "des"));
}

/// Names of the dependencies of a package, and those of them that no source file below `folder` and outside `others` uses.
fn dependencies(package: &Value, folder: &Path, others: &[PathBuf]) -> (Vec<String>, Vec<String>) {
    let inner = |file: &PathBuf| others.iter().any(|other| other.starts_with(folder) && file.starts_with(other));
    let files = rust_files(folder).into_iter().filter(|file| !inner(file));
    let code: Vec<String> = files.map(|file| fs::read_to_string(file).expect("a source file")).collect();
    let used = |name: &str| code.iter().flat_map(|code| code.lines()).any(|line| uses_crate(line, name));
    let (mut all, mut unused) = (Vec::new(), Vec::new());
    for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
        let name = text(dependency, "name");
        if !used(&dependency["rename"].as_str().unwrap_or(name).replace('-', "_")) {
            unused.push(format!("{}: {name}", text(package, "name")));
        }
        all.push(name.to_owned());
    }
    (all, unused)
}

#[test]
fn each_dependency_is_used() {
    let packages = packages();
    let folder_of = |package: &Value| PathBuf::from(text(package, "manifest_path")).with_file_name("");
    let folders: Vec<PathBuf> = packages.iter().map(folder_of).collect();
    let (mut declared, mut unused) = (BTreeSet::new(), Vec::new());
    for (package, folder) in packages.iter().zip(&folders) {
        let others: Vec<PathBuf> = folders.iter().filter(|other| *other != folder).cloned().collect();
        let (all, idle) = dependencies(package, folder, &others);
        declared.extend(all);
        unused.extend(idle);
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace's manifest");
    let table = manifest.split("[workspace.dependencies]").nth(1).expect("a table of dependencies");
    let rows = table.lines().take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    unused.extend(rows.filter(|(name, _)| !declared.contains(*name)).map(|(name, _)| format!("the workspace: {name}")));
    assert!(unused.is_empty(), "dependencies that nothing uses: {unused:#?}");
}

/// Whether a line of code, its comment left out, has `unsafe` as a word.
fn says_unsafe(line: &str) -> bool {
    has_word(line.split("//").next().unwrap_or_default(), "unsafe")
}

/// Whether a line of code, its comment and what it quotes left out, has a word.
fn says(line: &str, word: &str) -> bool {
    line.split("//").next().unwrap_or_default().split('"').step_by(2).any(|code| has_word(code, word))
}

/// The lines of the Rust files below a folder that say one of `words`.
fn lines_that_say(folder: &Path, words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files(folder) {
        let code = fs::read_to_string(&file).expect("a source file");
        for (number, line) in (1..).zip(code.lines()) {
            let said = words.iter().filter(|word| says(line, word));
            found.extend(said.map(|word| format!("{}:{number} says {word}", file.display())));
        }
    }
    found
}

/// The folder of what all guests have; the other folders of the frontend are a guest each.
const COMMON: &str = "common";

#[test]
fn no_guest_names_another_and_what_is_common_names_none() {
    assert!(says("use crate::{riscv::isa, x86};", "x86") && says("    super::super::riscv::Cpu", "riscv"));
    assert!(!says("let x86_64 = 1; // x86", "x86") && !says(r#"let name = "x86";"#, "x86"));
    let frontend = root().join("frontend/src");
    let folders = fs::read_dir(&frontend).expect("the frontend's folder").map(|entry| entry.expect("an entry").path());
    let modules: Vec<String> =
        folders.filter(|path| path.is_dir()).filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
    assert!(modules.iter().any(|module| module == COMMON) && modules.len() > 2, "{modules:?}");
    let mut wrong = Vec::new();
    for module in &modules {
        let others: Vec<String> = modules.iter().filter(|&other| other != module && other != COMMON).cloned().collect();
        wrong.extend(lines_that_say(&frontend.join(module), &others));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_is_only_where_it_may_be() {
    assert!(says_unsafe("let x = unsafe { *p };") && !says_unsafe("#![forbid(unsafe_code)] // unsafe"));
    let mut wrong = Vec::new();
    for package in packages() {
        let manifest = PathBuf::from(text(&package, "manifest_path"));
        let folder = manifest.parent().expect("a manifest is in a folder");
        if MAY_BE_UNSAFE.iter().any(|name| folder.starts_with(root().join(name))) {
            continue;
        }
        for target in package["targets"].as_array().expect("a list of targets") {
            let source = text(target, "src_path");
            let code = fs::read_to_string(source).expect("the target's source");
            if !code.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]") {
                wrong.push(format!("{source} lacks #![forbid(unsafe_code)]"));
            }
        }
        for file in rust_files(folder) {
            // This test talks about it.
            if file.ends_with("tests/crate_arrows.rs") {
                continue;
            }
            let code = fs::read_to_string(&file).expect("a source file");
            for (number, _) in code.lines().enumerate().filter(|(_, line)| says_unsafe(line)) {
                wrong.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
