//! File descriptors that clients have handed over: each under a name, or in a set that files are opened from as `/dev/fdset/SET`
//! (QEMU QMP Reference Manual, `getfd` and `add-fd`).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How many are kept in all; each is one of the process's.
const MOST: usize = 64;

/// What the name of a set's file begins with.
const FD_SET: &str = "/dev/fdset/";

/// One of a set.
#[derive(Debug)]
pub struct InSet {
    fd: OwnedFd,
    /// What the client calls it.
    pub opaque: Option<String>,
}

impl InSet {
    /// Its number in this process.
    pub fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Whether one may be read (and written if `write`) by it.
    fn serves(&self, write: bool) -> bool {
        use rustix::fs::OFlags;
        let mode = rustix::fs::fcntl_getfl(&self.fd).map(|flags| flags & OFlags::RWMODE);
        mode.is_ok_and(|mode| mode == OFlags::RDWR || !write && mode == OFlags::RDONLY)
    }
}

/// Those that a machine keeps.
#[derive(Debug, Default)]
pub struct Descriptors {
    named: BTreeMap<String, OwnedFd>,
    sets: BTreeMap<u64, Vec<InSet>>,
}

impl Descriptors {
    fn check_room(&self) -> Result<(), String> {
        let kept = self.named.len() + self.sets.values().map(Vec::len).sum::<usize>();
        if kept < MOST { Ok(()) } else { Err(format!("no more than {MOST} file descriptors are kept")) }
    }

    /// Keeps `fd` under a name; one that had it is closed.
    ///
    /// # Errors
    ///
    /// A sentence: a name that cannot be one, too many.
    pub fn name(&mut self, name: &str, fd: OwnedFd) -> Result<(), String> {
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("Parameter 'fdname' expects a name not starting with a digit".to_owned());
        }
        if !self.named.contains_key(name) {
            self.check_room()?;
        }
        self.named.insert(name.to_owned(), fd);
        Ok(())
    }

    /// Closes the one of this name; whether there was one.
    pub fn close(&mut self, name: &str) -> bool {
        self.named.remove(name).is_some()
    }

    /// Adds `fd` to a set, to a new one if none is named: the set and the number.
    ///
    /// # Errors
    ///
    /// A sentence: too many.
    pub fn add(&mut self, set: Option<u64>, fd: OwnedFd, opaque: Option<String>) -> Result<(u64, RawFd), String> {
        self.check_room()?;
        let free = || (0..).find(|number| !self.sets.contains_key(number)).unwrap_or_default();
        let set = set.unwrap_or_else(free);
        let number = fd.as_raw_fd();
        self.sets.entry(set).or_default().push(InSet { fd, opaque });
        Ok((set, number))
    }

    /// Closes those of a set, or the one of this number; whether there were any.
    pub fn remove(&mut self, set: u64, number: Option<i64>) -> bool {
        let Some(all) = self.sets.get_mut(&set) else { return false };
        let before = all.len();
        all.retain(|one| number.is_some_and(|number| i64::from(one.number()) != number));
        let found = all.len() < before;
        if all.is_empty() {
            self.sets.remove(&set);
        }
        found
    }

    /// The sets.
    pub fn sets(&self) -> impl Iterator<Item = (u64, &[InSet])> {
        self.sets.iter().map(|(set, all)| (*set, &all[..]))
    }

    /// The name by which the host opens the file that is to be read: another one for files of sets only.
    ///
    /// # Errors
    ///
    /// A sentence: the set has no file that can be read.
    pub fn host_name(&self, file: &str) -> Result<String, String> {
        let Some(set) = file.strip_prefix(FD_SET).and_then(|set| set.parse::<u64>().ok()) else {
            return Ok(file.to_owned());
        };
        let found = self.sets.get(&set).into_iter().flatten().find(|one| one.serves(false));
        let found = found.ok_or_else(|| format!("{file}: no file of this set can be read"))?;
        Ok(format!("/proc/self/fd/{}", found.number()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(write: bool) -> OwnedFd {
        std::fs::OpenOptions::new().read(!write).write(write).open("/dev/null").unwrap().into()
    }

    #[test]
    fn sets_are_opened_by_what_suits() {
        let mut all = Descriptors::default();
        assert_eq!(all.add(None, file(true), None).map(|(set, _)| set), Ok(0));
        assert!(all.host_name("/dev/fdset/0").unwrap_err().contains("can be read"));
        let (_, number) = all.add(Some(0), file(false), Some("r".into())).unwrap();
        assert_eq!(all.host_name("/dev/fdset/0"), Ok(format!("/proc/self/fd/{number}")));
        assert_eq!(all.host_name("/dev/fdset/x"), Ok("/dev/fdset/x".to_owned()));
        assert_eq!(all.sets().map(|(set, fds)| (set, fds.len())).collect::<Vec<_>>(), [(0, 2)]);
        assert!(!all.remove(1, None) && !all.remove(0, Some(-1)));
        assert!(all.remove(0, Some(number.into())) && all.remove(0, None) && !all.remove(0, None));
    }

    #[test]
    fn there_are_not_too_many() {
        let mut all = Descriptors::default();
        (0..MOST / 2).for_each(|i| all.name(&format!("n{i}"), file(false)).unwrap());
        assert!((0..MOST / 2).all(|_| all.add(None, file(false), None).is_ok()));
        assert!(all.name("other", file(false)).is_err() && all.add(Some(3), file(false), None).is_err());
        assert!(all.name("n0", file(false)).is_ok() && all.close("n0") && !all.close("n0"));
        assert!(all.name("7", file(false)).unwrap_err().contains("digit"));
    }
}
