//! The command line as one clap command with its help, for what is made of it: the man page and shells' completions.

use clap::{Arg, ArgAction, Command};

use super::options::{OPTIONS, SECTIONS, Shape, Status};

/// Every option that is offered, under the headings of `-help`. clap knows options with two dashes only; whoever prints
/// it takes one away.
pub fn surface() -> Command {
    let args = OPTIONS.iter().filter_map(|option| {
        let Status::Offered(section, help, _) = option.status else { return None };
        let heading = SECTIONS.iter().find(|(known, _)| *known == section).map(|(_, title)| *title);
        let arg = Arg::new(option.name).long(option.name).help(help).help_heading(heading);
        let arg = match option.alias {
            Some(alias) => arg.visible_alias(alias),
            None => arg,
        };
        Some(match option.shape {
            Shape::Flag => arg.action(ArgAction::SetTrue),
            Shape::Value(value) | Shape::FreeText(value) => arg.action(ArgAction::Append).value_name(value),
        })
    });
    Command::new("mimus")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs whole x86 and RISC-V machines without hardware virtualization. The options are QEMU's.")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_table() {
        surface().debug_assert();
        let offered = OPTIONS.iter().filter(|option| matches!(option.status, Status::Offered(..)));
        assert_eq!(surface().get_arguments().count(), offered.count());
    }
}
