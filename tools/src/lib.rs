//! What is made of mimus's command line for its users: the man page and shells' completions.
#![forbid(unsafe_code)]

use std::io;

use clap::Command;
use clap_complete::Shell;

/// The man page, section 1, in roff.
///
/// # Errors
///
/// None but those of writing to memory.
pub fn man_page(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page).replace(r"\-\-", r"\-");
    Ok(format!(
        "{page}.SH NOTES\nAn option that QEMU has and mimus has not is refused with a message.\n\
         \\fBmimus \\-help\\fR, \\fB\\-machine help\\fR, \\fB\\-device help\\fR and their like print what there is.\n"
    ))
}

/// The completion script of `shell`.
pub fn completions(command: &Command, shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), "mimus", &mut script);
    one_dash(&String::from_utf8_lossy(&script), command, shell)
}

/// Options with the one dash that QEMU's have: clap gives them two.
fn one_dash(script: &str, command: &Command, shell: Shell) -> String {
    if shell == Shell::Fish {
        // fish calls such options old.
        return script.replace(" -l ", " -o ");
    }
    let mut names: Vec<&str> = command
        .get_arguments()
        .flat_map(|arg| arg.get_long().into_iter().chain(arg.get_visible_aliases().unwrap_or_default()))
        .collect();
    // The longer first: one name may be the beginning of another.
    names.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
    // Zsh would take an option with one dash for several of one letter.
    let script = if shell == Shell::Zsh { script.replace("(-s ", "(") } else { script.to_owned() };
    names.iter().fold(script, |script, name| script.replace(&format!("--{name}"), &format!("-{name}")))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let kernel = Arg::new("kernel").long("kernel").help("kernel image").value_name("FILE");
        let machine = Arg::new("machine").long("machine").visible_alias("M").help("board").value_name("NAME");
        let m = Arg::new("m").long("m").help("RAM").value_name("SIZE");
        Command::new("mimus").disable_help_flag(true).args([kernel, machine, m])
    }

    #[test]
    fn options_have_one_dash() {
        let page = man_page(&command()).expect("a page");
        assert!(page.contains(r"\fB\-kernel\fR") && page.contains(r"\fB\-m\fR"), "{page}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(&command(), shell);
            let kernel = if shell == Shell::Fish { "-o kernel" } else { "-kernel" };
            assert!(script.contains(kernel), "{script}");
            assert!(!script.contains("(-s "), "{script}");
            for option in ["kernel", "machine", "M", "m"] {
                assert!(!script.contains(&format!("--{option}")), "{script}");
            }
        }
    }
}
