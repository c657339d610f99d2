//! QMP's commands about objects that devices and options refer to by id.

use serde_json::{Map, Value, json};

use super::commands::done;
use super::{Failure, generic, text};
use crate::config::UserObject;
use crate::control::Controlled;

/// How many there are at most.
const MOST: usize = 256;

/// What a machine may have begun with to use it all the time, by how its kind begins.
const USED: [&str; 3] = ["memory-backend-", "rng-", "throttle-group"];

pub(super) fn add(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let object = machine.config().catalogue.object(&Value::Object(args.clone()).to_string()).map_err(generic)?;
    let objects = &mut machine.kept().objects;
    if objects.iter().any(|known| known.id == object.id) {
        let id = object.id;
        return Err(generic(format!("attempt to add duplicate property '{id}' to object (type 'container')")));
    }
    if objects.len() >= MOST {
        return Err(generic(format!("there are no more than {MOST} objects")));
    }
    objects.push(object);
    done()
}

pub(super) fn remove(machine: &mut dyn Controlled, args: &Map<String, Value>) -> Result<Value, Failure> {
    let id = text(args, "id");
    let Some(index) = machine.kept().objects.iter().position(|object| object.id == id) else {
        return Err(generic(format!("object '{id}' not found")));
    };
    let from_the_start = machine.config().settings.objects.iter().any(|object| object.id == id);
    let objects = &mut machine.kept().objects;
    if from_the_start && USED.iter().any(|kind| objects[index].kind.starts_with(kind)) {
        return Err(generic(format!("object '{id}' is in use, can not be deleted")));
    }
    objects.remove(index);
    done()
}

/// Threads for disks. Each disk has its own, which is none of these, so they are the process as others see it.
pub(super) fn threads(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let one = |object: &UserObject| {
        json!({
            "id": object.id,
            "thread-id": std::process::id(),
            "poll-max-ns": 0,
            "poll-grow": 0,
            "poll-shrink": 0,
            "aio-max-batch": 0,
        })
    };
    Ok(machine.kept().objects.iter().filter(|object| object.kind == "iothread").map(one).collect())
}
