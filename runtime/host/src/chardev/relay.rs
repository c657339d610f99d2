//! Monitors on any character device: what is typed there goes to a socket at whose other end a monitor is, and its answers come back.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;

use super::{CharThread, Source};
use crate::config::Chardev;
use crate::error::HostError;

/// A connection between a monitor and a character device, for as long as it is kept.
#[derive(Debug)]
pub struct Relay {
    _threads: Vec<CharThread>,
}

impl Relay {
    /// Opens `chardev`; the monitor's end of the connection.
    ///
    /// # Errors
    ///
    /// What the host refuses.
    pub fn open(option: &str, chardev: &Chardev) -> Result<(UnixStream, Relay), HostError> {
        let failed = |error: std::io::Error| HostError::new(option, format!("{chardev}: {error}"));
        let what = format!("{option}: {chardev}");
        let lost = Box::new(move |error| tracing::warn!("{what}: output is lost from here on: {error}"));
        let (mut sink, source) = match chardev.plain() {
            Chardev::Mux(mux) => mux.attach(option, option, true, lost).map(|(sink, source)| (sink, Some(source)))?,
            _ => super::open(option, chardev, lost)?,
        };
        let (monitor, own) = UnixStream::pair().map_err(failed)?;
        own.set_nonblocking(true).map_err(failed)?;
        let answers = Source { input: Some(own.try_clone().map_err(failed)?.into()), ..Source::default() };
        let say = Box::new(move |bytes: &[u8]| {
            sink.write(bytes);
            bytes.len()
        });
        let mut threads = vec![CharThread::start(answers, say).map_err(failed)?];
        let own = OwnedFd::from(own);
        let hear = Box::new(move |bytes: &[u8]| match rustix::io::write(&own, bytes) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // The monitor has ended; nobody hears it.
            Err(_) => bytes.len(),
        });
        if let Some(source) = source {
            threads.push(CharThread::start(source, hear).map_err(failed)?);
        }
        Ok((monitor, Relay { _threads: threads }))
    }
}
