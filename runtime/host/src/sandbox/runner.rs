//! Programs that the guest's connections lead to (`-netdev user,guestfwd=...-cmd:`).
//!
//! A process of their own starts them: it is made before this one gives up the right to do so, and files that programs may need. It is
//! asked by the number of a command that the command line has, so whoever has taken over this process starts nothing else.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::unistd::{ForkResult, fork, setsid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Programs that run at a time, at most.
const PROGRAMS: usize = 64;

/// A handle of the process that starts programs.
#[derive(Debug, Clone)]
pub struct Runner(Arc<Way>);

#[derive(Debug)]
struct Way {
    socket: OwnedFd,
    commands: Vec<Vec<String>>,
}

impl PartialEq for Runner {
    fn eq(&self, other: &Runner) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Runner {}

/// Two ends of a socket.
fn pair(kind: SocketType, flags: SocketFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, kind, flags | SocketFlags::CLOEXEC, None)?)
}

impl Runner {
    /// Starts the process; a `silent` one has no standard error. `settle` is what it does first, such as to become another user. To be
    /// called before there are threads.
    ///
    /// # Errors
    ///
    /// When the host has no room for another process.
    pub(super) fn start(
        commands: Vec<Vec<String>>,
        silent: bool,
        settle: impl FnOnce() -> anyhow::Result<()>,
    ) -> io::Result<Runner> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let (socket, other) = pair(SocketType::SEQPACKET, SocketFlags::empty())?;
        // SAFETY: no thread was started yet, so the child has all that it needs.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => Ok(Runner(Arc::new(Way { socket, commands }))),
            ForkResult::Child => {
                drop(socket);
                let apart = detach(&null, silent).map_err(anyhow::Error::new);
                match apart.and_then(|()| settle()).and_then(|()| Ok(serve(&other, &commands)?)) {
                    Ok(()) => std::process::exit(0),
                    Err(error) => {
                        tracing::warn!("-netdev user: guestfwd: no commands can be run: {error:#}");
                        std::process::exit(1);
                    }
                }
            }
        }
    }

    /// Has `command` run, which the process knows; the other end of its standard input and output, which does not wait.
    ///
    /// # Errors
    ///
    /// When the process is gone, or the host has no sockets left. A command that cannot be started closes its end.
    pub fn run(&self, command: &[String]) -> io::Result<OwnedFd> {
        let Way { socket, commands } = &*self.0;
        let index = commands.iter().position(|known| known == command).ok_or(io::ErrorKind::NotFound)?;
        let (own, theirs) = pair(SocketType::STREAM, SocketFlags::empty())?;
        rustix::io::ioctl_fionbio(&own, true)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        let number = (index as u32).to_ne_bytes();
        // It has room for as many as it has time for; a guest waits for its next try.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(socket, &[IoSlice::new(&number)], &mut control, flags)?;
        Ok(own)
    }
}

/// Leaves the terminal, and the pipes that somebody waits for the end of.
fn detach(null: &File, silent: bool) -> io::Result<()> {
    setsid()?;
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    if silent {
        rustix::stdio::dup2_stderr(null)?;
    }
    Ok(())
}

/// Starts programs until the last handle is closed.
fn serve(socket: &OwnedFd, commands: &[Vec<String>]) -> io::Result<()> {
    let mut running: Vec<Child> = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut control, mut number) = (RecvAncillaryBuffer::new(&mut space), [0; 4]);
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut number)], &mut control, RecvFlags::CMSG_CLOEXEC);
        match received {
            Ok(message) if message.bytes == 0 => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let Some(file) = files.flatten().next() else { continue };
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let command = commands.get(u32::from_ne_bytes(number) as usize).and_then(|words| words.split_first());
        let Some((program, arguments)) = command.filter(|_| running.len() < PROGRAMS) else { continue };
        let child = file.try_clone().and_then(|output| {
            Command::new(program).args(arguments).stdin(Stdio::from(file)).stdout(Stdio::from(output)).spawn()
        });
        match child {
            Ok(child) => running.push(child),
            Err(error) => tracing::warn!("-netdev user: guestfwd: cannot run '{program}': {error}"),
        }
    }
}
