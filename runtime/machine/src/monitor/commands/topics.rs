//! Topics of `info` that are told of what the machine has, or that say that it has none.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Context, Outcome};
use crate::monitor::qmp;

/// A topic of which there is nothing, and what `info` prints of it: as QEMU does where there is nothing.
pub(super) struct Nothing {
    pub name: &'static str,
    pub help: &'static str,
    /// The text, or an error.
    pub says: Result<&'static str, &'static str>,
}

const fn nothing(name: &'static str, help: &'static str, says: &'static str) -> Nothing {
    Nothing { name, help, says: Ok(says) }
}

const fn error(name: &'static str, help: &'static str, says: &'static str) -> Nothing {
    Nothing { name, help, says: Err(says) }
}

/// All of those.
pub(super) static NOTHING: &[Nothing] = &[
    error("balloon", "show balloon information", "No balloon device has been activated"),
    nothing("block-jobs", "show progress of ongoing block device operations", "No active jobs\n"),
    nothing("capture", "show capture information", ""),
    nothing("dump", "show the latest dump status", "Status: none\n"),
    error("irq", "show the interrupts statistics (if available)", "interrupts are not counted"),
    nothing("memory-devices", "show memory devices", ""),
    nothing("migrate", "show migration status", "this machine cannot be migrated\n"),
    nothing("migrate_parameters", "show current migration parameters", "this machine cannot be migrated\n"),
    nothing("numa", "show NUMA information", "0 nodes\n"),
    nothing("replay", "show record/replay information", "Record/replay is not active\n"),
    nothing("sev", "show SEV information", "SEV is not enabled\n"),
    nothing("sgx", "show intel SGX information", "No EPC regions defined, SGX not available\n"),
    nothing("snapshots", "show the currently saved VM snapshots", "no block device can store vmstate for snapshot\n"),
    nothing("spice", "show the spice server status", "Server: disabled\n"),
    nothing("tpm", "show the TPM device", ""),
    error("usb", "show guest USB devices", "USB support not enabled"),
    nothing("vcpu_dirty_limit", "show dirty page limit information of all vCPU", "Dirty page limit not enabled!\n"),
    error("vm-generation-id", "show Virtual Machine Generation ID", "VM Generation ID device not found"),
];

/// Prints each of what a query of QMP lists with `line`.
fn each(c: &mut Context<'_>, query: &str, mut line: impl FnMut(&mut String, &Map<String, Value>)) -> Outcome {
    let answer = qmp::query(c.machine, query)?;
    let list = if let Value::Array(list) = answer { list } else { vec![answer] };
    list.iter().filter_map(Value::as_object).for_each(|one| line(c.out, one));
    Ok(())
}

/// A value as people read it.
fn plain(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

pub(super) fn hotpluggable_cpus(c: &mut Context<'_>) -> Outcome {
    c.out.push_str("Hotpluggable CPUs:\n");
    each(c, "query-hotpluggable-cpus", |out, cpu| {
        for (key, name) in [("type", "type"), ("vcpus-count", "vcpus_count"), ("qom-path", "qom_path")] {
            let _ = writeln!(out, "  {name}: \"{}\"", plain(cpu.get(key)));
        }
        out.push_str("  CPUInstance Properties:\n");
        for key in ["socket-id", "core-id", "thread-id"] {
            let _ = writeln!(out, "    {key}: \"{}\"", cpu["props"][key]);
        }
    })
}

pub(super) fn iothreads(c: &mut Context<'_>) -> Outcome {
    each(c, "query-iothreads", |out, thread| {
        let _ = writeln!(out, "{}:\n  thread_id={}", plain(thread.get("id")), plain(thread.get("thread-id")));
        for key in ["poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch"] {
            let _ = writeln!(out, "  {key}={}", plain(thread.get(key)));
        }
    })
}

pub(super) fn memdev(c: &mut Context<'_>) -> Outcome {
    each(c, "query-memdev", |out, memory| {
        let _ = writeln!(out, "memory backend: {}", plain(memory.get("id")));
        for key in ["size", "merge", "dump", "prealloc", "share", "reserve", "policy"] {
            let _ = writeln!(out, "  {:<11}{}", format!("{key}:"), plain(memory.get(key)));
        }
        out.push_str("  host nodes:\n\n");
    })
}

pub(super) fn memory_size(c: &mut Context<'_>) -> Outcome {
    each(c, "query-memory-size-summary", |out, size| {
        let _ = writeln!(out, "base memory: {}", plain(size.get("base-memory")));
        let _ = writeln!(out, "plugged memory: {}", plain(size.get("plugged-memory")));
    })
}

pub(super) fn capabilities(c: &mut Context<'_>) -> Outcome {
    each(c, "query-migrate-capabilities", |out, one| {
        let state = if one["state"] == true { "on" } else { "off" };
        let _ = writeln!(out, "{}: {state}", plain(one.get("capability")));
    })
}

pub(super) fn virtio(c: &mut Context<'_>) -> Outcome {
    let devices = qmp::devices(c.machine);
    let mut any = false;
    for device in devices.as_array().into_iter().flatten() {
        let (path, kind) = (plain(device.get("path")), plain(device.get("type")));
        let Some(kind) = kind.strip_prefix("virtio-") else { continue };
        any = true;
        let _ = match kind.strip_suffix("-pci") {
            Some(kind) => writeln!(c.out, "{path}/virtio-backend [virtio-{kind}]"),
            None => writeln!(c.out, "{path} [virtio-{}]", kind.trim_end_matches("-device")),
        };
    }
    if !any {
        c.out.push_str("No VirtIO devices\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_in_order() {
        assert!(NOTHING.is_sorted_by_key(|topic| topic.name));
        assert!(NOTHING.iter().all(|topic| super::super::TOPICS.iter().all(|other| other.name != topic.name)));
    }
}
