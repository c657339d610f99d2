//! Runs one case a given number of times, for `tools/count-instructions` to count what the host executes.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimus_benches::{Case, cases};

const USAGE: &str = "Usage: bench-case --list | bench-case CASE WARM-UP ROUNDS
--list prints a line a case: its name, rounds that are enough to count it, and what an item is.
Otherwise runs ROUNDS rounds of CASE, after four times WARM-UP, and prints how many items a round has.";

const WARM_UPS: u32 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => {
            for case in cases() {
                println!("{}\t{}\t{}", case.full_name(), case.rounds, case.item);
            }
            ExitCode::SUCCESS
        }
        [name, warm_up, rounds] => match (find(name), warm_up.parse(), rounds.parse()) {
            (Some(case), Ok(warm_up), Ok(rounds)) => {
                let mut prepared = case.prepare();
                // Several times, since what runs once a time is to be compiled, too.
                (0..WARM_UPS).for_each(|_| (prepared.run)(warm_up));
                (prepared.run)(rounds);
                println!("{}", prepared.items);
                ExitCode::SUCCESS
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

fn find(name: &str) -> Option<Case> {
    cases().into_iter().find(|case| case.full_name() == name)
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::FAILURE
}
