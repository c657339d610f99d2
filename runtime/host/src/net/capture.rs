//! Records of what passes a network: files in the format of libpcap (draft-ietf-opsawg-pcap), whose first version every reader
//! knows.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Capture;
use crate::error::{HostError, open_output};

/// The file's first word, its version, and the kind of link, Ethernet.
const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const ETHERNET: u32 = 1;

/// A file of packets.
#[derive(Debug)]
pub(super) struct Recorder<W: Write = BufWriter<File>> {
    /// `None` once it could not be written.
    output: Option<W>,
    /// Bytes of a packet at most.
    limit: u32,
}

impl Recorder {
    /// Begins the file.
    pub(super) fn open(capture: &Capture) -> Result<Recorder, HostError> {
        const OPTION: &str = "-object filter-dump";
        let file = open_output(OPTION, &capture.file)?;
        let begun = Recorder::begin(BufWriter::new(file), capture.limit);
        begun.map_err(|error| HostError::new(OPTION, format!("cannot write '{}': {error}", capture.file.display())))
    }
}

impl<W: Write> Recorder<W> {
    fn begin(mut output: W, limit: u32) -> io::Result<Recorder<W>> {
        output.write_all(&MAGIC.to_le_bytes())?;
        VERSION.iter().try_for_each(|word| output.write_all(&word.to_le_bytes()))?;
        // Two words that are always 0.
        [0, 0, limit, ETHERNET].iter().try_for_each(|word| output.write_all(&word.to_le_bytes()))?;
        output.flush()?;
        Ok(Recorder { output: Some(output), limit })
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, bytes: &[u8]) {
        self.add(bytes, SystemTime::now());
    }

    fn add(&mut self, bytes: &[u8], now: SystemTime) {
        let Some(output) = &mut self.output else { return };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (len, limit) = (u32::try_from(bytes.len()).unwrap_or(u32::MAX), self.limit as usize);
        let kept = bytes.get(..limit).unwrap_or(bytes);
        // Seconds have a word in this format.
        let words = [now.as_secs() as u32, now.subsec_micros(), kept.len() as u32, len];
        let written = words.iter().try_for_each(|word| output.write_all(&word.to_le_bytes()));
        if let Err(error) = written.and_then(|()| output.write_all(kept)) {
            self.fail(&error);
        }
    }

    /// Brings what was added to the file.
    pub(super) fn flush(&mut self) {
        if let Some(Err(error)) = self.output.as_mut().map(Write::flush) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::warn!("-object filter-dump: packets are not recorded any longer: {error}");
        self.output = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn packets_are_cut_and_have_their_length_and_time() {
        let mut recorder = Recorder::begin(Vec::new(), 4).unwrap();
        recorder.add(&[1, 2, 3, 4, 5, 6], UNIX_EPOCH + Duration::new(7, 8000));
        let bytes = recorder.output.unwrap();
        let words: Vec<u32> = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words[..6], [MAGIC, 0x0004_0002, 0, 0, 4, 1]);
        assert_eq!(words[6..], [7, 8, 4, 6, 0x0403_0201]);
    }

    #[test]
    fn a_full_disk_ends_the_record_and_nothing_else() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut recorder = Recorder { output: Some(Full), limit: 10 };
        recorder.packet(&[0; 60]);
        assert!(recorder.output.is_none());
        recorder.packet(&[0; 60]);
        recorder.flush();
    }
}
