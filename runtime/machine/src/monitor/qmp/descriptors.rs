//! QMP's commands about file descriptors that clients hand over.

use std::os::fd::OwnedFd;

use serde_json::{Map, Value, json};

use super::commands::done;
use super::{Failure, Qmp, generic, text};
use crate::control::Controlled;
use crate::descriptors::{Descriptors, InSet};

impl Qmp {
    /// Has the machine do something with the descriptor that came with the command, or before it.
    fn hand_over<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut Descriptors, OwnedFd) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Failure> {
        let fd = self.handed.pop_front().ok_or_else(|| generic("No file descriptor supplied via SCM_RIGHTS"))?;
        let called = self.control.call(move |machine| f(&mut machine.kept().descriptors, fd));
        called.map_err(|gone| generic(gone.to_string()))?.map_err(generic)
    }
}

pub(super) fn get(session: &mut Qmp, args: &Map<String, Value>) -> Result<Value, Failure> {
    let name = text(args, "fdname").to_owned();
    session.hand_over(move |all, fd| all.name(&name, fd))?;
    done()
}

pub(super) fn close(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let name = text(args, "fdname");
    let found = machine.kept().descriptors.close(name);
    if found { done() } else { Err(generic(format!("File descriptor named '{name}' not found"))) }
}

/// The set that is named, if one is.
fn set(args: &Map<String, Value>) -> Result<Option<u64>, Failure> {
    let wrong = || generic("Parameter 'fdset-id' expects a non-negative value");
    args.get("fdset-id").map(|set| set.as_u64().ok_or_else(wrong)).transpose()
}

pub(super) fn add(session: &mut Qmp, args: &Map<String, Value>) -> Result<Value, Failure> {
    let set = set(args)?;
    let opaque = args.get("opaque").and_then(Value::as_str).map(str::to_owned);
    let (set, number) = session.hand_over(move |all, fd| all.add(set, fd, opaque))?;
    Ok(json!({ "fdset-id": set, "fd": number }))
}

pub(super) fn remove(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let (set, number) = (set(args)?.unwrap_or_default(), args.get("fd").and_then(Value::as_i64));
    if machine.kept().descriptors.remove(set, number) {
        return done();
    }
    let which = number.map_or(String::new(), |number| format!(", fd:{number}"));
    Err(generic(format!("File descriptor named 'fdset-id:{set}{which}' not found")))
}

pub(super) fn sets(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let one = |fd: &InSet| match &fd.opaque {
        Some(opaque) => json!({ "fd": fd.number(), "opaque": opaque }),
        None => json!({ "fd": fd.number() }),
    };
    let set = |(set, fds): (u64, &[InSet])| json!({ "fdset-id": set, "fds": fds.iter().map(one).collect::<Value>() });
    Ok(machine.kept().descriptors.sets().map(set).collect())
}
