//! QMP's queries about the machine as a whole: its state, processors, memory, name, displays.

use serde_json::{Map, Value, json};

use super::{Failure, generic};
use crate::config::MachineKind;
use crate::control::{Controlled, RunState};
use crate::monitor::chardevs;
use mimus_host::display::{VncPlace, VncTarget};

const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// Where the one vCPU is in the object model.
pub(super) const CPU_PATH: &str = "/machine/unattached/device[0]";

pub(super) fn status(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let state = machine.state();
    Ok(json!({ "running": state == RunState::Running, "singlestep": false, "status": state.name() }))
}

/// The name of the guest's architecture.
pub(super) fn arch(machine: &dyn Controlled) -> &'static str {
    match machine.config().machine {
        MachineKind::Pc => "x86_64",
        MachineKind::Virt | MachineKind::Spike => "riscv64",
    }
}

/// What QEMU calls the CPU model `model` in its object model.
pub(super) fn cpu_type(machine: &dyn Controlled, model: &str) -> String {
    match machine.config().machine {
        MachineKind::Pc => format!("{model}-x86_64-cpu"),
        MachineKind::Virt | MachineKind::Spike => format!("{model}-riscv-cpu"),
    }
}

/// Where the one vCPU is among processors.
fn topology() -> Value {
    json!({ "core-id": 0, "thread-id": 0, "socket-id": 0 })
}

pub(super) fn cpus(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    if machine.config().settings.no_machine {
        return Ok(json!([]));
    }
    Ok(json!([{
        "cpu-index": 0,
        "qom-path": CPU_PATH,
        "thread-id": std::process::id(),
        "target": arch(machine),
        "props": topology(),
    }]))
}

pub(super) fn hotpluggable_cpus(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    if machine.config().settings.no_machine {
        return Err(generic("The feature 'query-hotpluggable-cpus' is not enabled"));
    }
    let model = cpu_type(machine, &machine.config().cpu);
    Ok(json!([{ "type": model, "vcpus-count": 1, "props": topology(), "qom-path": CPU_PATH }]))
}

/// What the machine's RAM is called.
pub(super) fn ram_name(machine: &dyn Controlled) -> &'static str {
    match machine.config().machine {
        MachineKind::Pc => "pc.ram",
        MachineKind::Virt => "riscv_virt_board.ram",
        MachineKind::Spike => "riscv.spike.ram",
    }
}

/// Bytes of RAM.
fn ram_size(machine: &dyn Controlled) -> u64 {
    let config = machine.config();
    if config.settings.no_machine { 0 } else { config.ram_size }
}

pub(super) fn memory_backends(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    if machine.config().settings.no_machine {
        return Ok(json!([]));
    }
    Ok(json!([{
        "id": ram_name(machine),
        "size": machine.config().ram_size,
        "merge": false,
        "dump": true,
        "prealloc": false,
        "share": false,
        "reserve": false,
        "host-nodes": [],
        "policy": "default",
    }]))
}

pub(super) fn memory_size(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(json!({ "base-memory": ram_size(machine), "plugged-memory": 0 }))
}

pub(super) fn name(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(machine.config().name.as_ref().map_or(json!({}), |name| json!({ "name": name })))
}

pub(super) fn uuid(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(json!({ "UUID": machine.config().uuid.as_deref().unwrap_or(NO_UUID) }))
}

pub(super) fn chardevs(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let all = chardevs::all(machine.config()).into_iter();
    Ok(all.map(|(label, place)| json!({ "label": label, "filename": place, "frontend-open": true })).collect())
}

/// No guest's memory is encrypted.
pub(super) fn no_sev(_: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    Ok(json!({
        "enabled": false,
        "api-major": 0,
        "api-minor": 0,
        "build-id": 0,
        "policy": 0,
        "state": "uninit",
        "handle": 0,
    }))
}

/// No machine has a balloon yet.
pub(super) fn no_balloon() -> Failure {
    ("DeviceNotActive", "No balloon device has been activated".to_owned())
}

/// Host, service and family of addresses, as QMP tells them, of the VNC server.
fn vnc_address(machine: &dyn Controlled, target: &VncTarget) -> (String, String, &'static str) {
    match (&target.place, machine.vnc_address()) {
        (VncPlace::Unix(path), _) => (String::new(), path.display().to_string(), "unix"),
        (_, Some(address)) => {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            (address.ip().to_string(), address.port().to_string(), family)
        }
        (_, None) => (String::new(), String::new(), "unknown"),
    }
}

fn vnc_auth(target: &VncTarget) -> &'static str {
    if target.password { "vnc" } else { "none" }
}

pub(super) fn vnc(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let Some(target) = &machine.config().vnc else { return Ok(json!({ "enabled": false })) };
    let (host, service, family) = vnc_address(machine, target);
    Ok(json!({ "enabled": true, "host": host, "service": service, "family": family, "auth": vnc_auth(target) }))
}

pub(super) fn vnc_servers(machine: &mut dyn Controlled, _: &Map<String, Value>) -> Result<Value, Failure> {
    let Some(target) = &machine.config().vnc else { return Ok(json!([])) };
    let ((host, service, family), auth) = (vnc_address(machine, target), vnc_auth(target));
    let server = json!({ "host": host, "service": service, "family": family, "websocket": false, "auth": auth });
    Ok(json!([{ "id": "default", "server": [server], "clients": [], "auth": auth }]))
}
