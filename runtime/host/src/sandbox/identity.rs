//! Who the process is on the host, and what it takes for the root of its file system: `-runas`, `-chroot`.
//!
//! Users are looked up while their names can be read; then comes the root, which only a process with all rights can change, and then
//! the user, for good.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, chroot, getgrouplist, setgid, setgroups, setuid};

use crate::config::{Process, RunAs};

/// What is left to become.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    root: Option<PathBuf>,
    user: Option<Ids>,
}

/// A user by numbers.
#[derive(Debug, Clone)]
struct Ids {
    name: String,
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Ids {
    fn of(user: &RunAs) -> Result<Ids> {
        let name = user.to_string();
        if let RunAs::Ids(uid, gid) = user {
            let group = Gid::from_raw(*gid);
            return Ok(Ids { name, user: Uid::from_raw(*uid), group, groups: vec![group] });
        }
        let option = || format!("-runas: cannot become {name}");
        let Some(found) = User::from_name(&name).with_context(option)? else {
            bail!("-runas: there is no user '{name}'");
        };
        let text = CString::new(name.as_str()).with_context(option)?;
        let groups = getgrouplist(&text, found.gid).with_context(option)?;
        Ok(Ids { user: found.uid, group: found.gid, groups, name })
    }

    /// Becomes that user for good.
    fn assume(&self) -> Result<()> {
        let option = || format!("-runas: cannot become {}", self.name);
        setgroups(&self.groups)
            .and_then(|()| setgid(self.group))
            .and_then(|()| setuid(self.user))
            .with_context(option)?;
        if !self.user.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            bail!("-runas: the rights of root are still there");
        }
        Ok(())
    }
}

impl Identity {
    /// What the options say.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub(super) fn look_up(process: &Process) -> Result<Identity> {
        let user = process.run_as.as_ref().map(Ids::of).transpose()?;
        Ok(Identity { root: process.root.clone(), user })
    }

    /// Whether another user comes.
    pub(super) fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// Becomes it.
    ///
    /// # Errors
    ///
    /// What the host refuses, which is all of it to who is not root.
    pub(super) fn assume(&self) -> Result<()> {
        if let Some(root) = &self.root {
            change_root(root).with_context(|| format!("-chroot: cannot have '{}' for the root", root.display()))?;
        }
        self.user.as_ref().map_or(Ok(()), Ids::assume)
    }
}

/// Takes `root` for the root of the file system; the current directory would lead out of it.
fn change_root(root: &Path) -> Result<()> {
    chroot(root)?;
    Ok(nix::unistd::chdir("/")?)
}
