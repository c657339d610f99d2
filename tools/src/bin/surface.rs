//! Writes mimus's man page and shells' completions into a folder, in the layout of `/usr/share`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use clap_complete::Shell;
use mimus_cli::surface;
use mimus_tools::{completions, man_page};

/// Shell, and its script's place.
const SCRIPTS: &[(Shell, &str)] = &[
    (Shell::Bash, "bash-completion/completions/mimus"),
    (Shell::Zsh, "zsh/vendor-completions/_mimus"),
    (Shell::Fish, "fish/vendor_completions.d/mimus.fish"),
];

/// Writes mimus's man page and shells' completions, in the layout of /usr/share.
#[derive(Parser)]
struct Arguments {
    /// Where to, made if missing
    folder: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { folder } = Arguments::parse();
    let command = surface();
    let scripts = SCRIPTS.iter().map(|(shell, place)| (*place, completions(&command, *shell)));
    for (place, text) in scripts.chain([("man/man1/mimus.1", man_page(&command)?)]) {
        let path = folder.join(place);
        let parent = path.parent().context("a file has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
