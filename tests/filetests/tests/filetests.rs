//! Runs the tests in the data files of `tests/filetests`, a file at a time; with `--bless` writes the files anew instead.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use mimus_filetests::{FOLDERS, Producer, file};

/// The data files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    files.sort();
    files
}

/// Runs the tests of one file; with `bless` writes it anew instead.
fn run(path: &Path, producer: Producer, bless: bool) -> Result<(), Failed> {
    let text = fs::read_to_string(path)?;
    let (blessed, differences) = file::run(&text, producer)?;
    if bless {
        if blessed != text {
            fs::write(path, blessed)?;
        }
        return Ok(());
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!("{}Is it meant to be so? `-- --bless` writes it to the file.", differences.concat()).into())
}

fn main() -> ExitCode {
    let (ours, others): (Vec<String>, Vec<String>) = env::args().partition(|arg| arg == "--bless");
    let bless = !ours.is_empty();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut trials = Vec::new();
    for folder in FOLDERS {
        for path in files(&root.join(folder.name)) {
            let name = format!("{}/{}", folder.name, path.file_stem().unwrap_or_default().to_string_lossy());
            let trial = Trial::test(name, move || run(&path, folder.producer, bless));
            trials.push(trial.with_ignored_flag(!folder.possible));
        }
    }
    libtest_mimic::run(&Arguments::from_iter(others), trials).exit_code()
}
