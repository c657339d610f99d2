//! `-daemonize`: whoever started the process gets on with their work once the machine is set up.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::{ForkResult, fork, setsid};

/// A process in the background, whose beginning is still watched by the one that was started.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Closed without a byte when it has failed.
    told: OwnedFd,
    /// What takes the terminal's place, from before there is another root.
    null: File,
}

impl Daemon {
    /// Goes on in the background. The process that was started waits there for [`Daemon::ready`], and ends: with 0, or 1 if it is not
    /// called.
    ///
    /// # Errors
    ///
    /// When the host has no room for another process, or no `/dev/null`.
    pub(super) fn start() -> io::Result<Daemon> {
        let (heard, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: no thread was started yet, so the child has all that it needs.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(heard);
                setsid()?;
                let null = File::options().read(true).write(true).open("/dev/null")?;
                Ok(Daemon { told, null })
            }
            ForkResult::Parent { .. } => {
                drop(told);
                let ready = rustix::io::read(&heard, &mut [0]) == Ok(1);
                std::process::exit(i32::from(!ready));
            }
        }
    }

    /// The machine is set up: lets go of the terminal, and of whoever waits.
    ///
    /// # Errors
    ///
    /// When nobody waits any more.
    pub(super) fn ready(self) -> io::Result<()> {
        rustix::stdio::dup2_stdin(&self.null)?;
        rustix::stdio::dup2_stdout(&self.null)?;
        rustix::stdio::dup2_stderr(&self.null)?;
        rustix::io::write(&self.told, &[0])?;
        Ok(())
    }
}
