//! The `mimus` command.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use mimus_cli::Invocation;
use mimus_cli::logging::{Messages, ONCE};
use mimus_machine::config::{Config, ExitStatus, LockMemory, Settings};
use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use signal_hook::consts::SIGPIPE;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let result = match mimus_cli::parse_program(args.iter().cloned()) {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Run(config)) => start(*config, &args),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(ExitStatus::OutputClosed) => {
            // Ends the process as SIGPIPE does by default, so quietly; the code is for a host that refuses.
            let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
            ExitCode::from(ExitStatus::OutputClosed.code())
        }
        Ok(status) => ExitCode::from(status.code()),
        Err(error) => {
            // Without a standard error there is nobody to tell.
            for line in format!("{error:#}").lines() {
                let _ = writeln!(io::stderr(), "mimus: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> anyhow::Result<ExitStatus> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitStatus::OutputClosed),
        Err(error) => Err(anyhow::Error::new(error).context("standard output")),
        Ok(()) => Ok(ExitStatus::PowerOff),
    }
}

fn start(mut config: Config, args: &[OsString]) -> anyhow::Result<ExitStatus> {
    // Files and sockets that are made are this user's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let file = config.log_file.as_deref().map(|path| mimus_host::error::open_output("-D", path)).transpose()?;
    tracing::subscriber::set_global_default(mimus_cli::logging::subscriber(config.log, Messages::of(&config), file))?;
    for warning in &config.warnings {
        tracing::warn!(target: ONCE, "{warning}");
    }
    let needs = config.needs();
    let settling = mimus_host::sandbox::begin(&mut config.process, needs, args.get(1..).unwrap_or_default())?;
    settle(&config.settings)?;
    mimus_machine::machine::run(&config, settling)
}

/// Does to the process what is asked for.
fn settle(settings: &Settings) -> anyhow::Result<()> {
    if let Some(name) = &settings.process_name {
        let name = CString::new(name.as_str()).context("-name: process")?;
        rustix::thread::set_name(&name).context("-name: process")?;
    }
    let flags = match settings.lock_memory {
        LockMemory::None => return Ok(()),
        LockMemory::All => MlockAllFlags::CURRENT | MlockAllFlags::FUTURE,
        LockMemory::Used => MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT,
    };
    mlockall(flags).context("-overcommit: mem-lock: the host does not lock that much memory (ulimit -l)")
}
