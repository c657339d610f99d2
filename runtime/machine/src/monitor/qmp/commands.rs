//! QMP's commands and events: a row each, as QEMU names them. Rows of [`super::types`] say what is in them.

use serde_json::{Map, Value, json};

use super::{Failure, Qmp, control, descriptors, input, machine, media, migrate, network, objects, probe, qom};
use crate::control::Controlled;
use crate::monitor::commands::CANNOT_GO_ON;

/// What a command does with its arguments, which have the types that its row says.
pub(super) type Run = fn(&mut dyn Controlled, &Map<String, Value>) -> Result<Value, Failure>;

/// A command.
pub(super) struct Command {
    pub name: &'static str,
    /// Its arguments, as members of an object.
    pub args: &'static str,
    /// The type of its result; empty for an empty object.
    pub returns: &'static str,
    /// What executes it.
    pub by: By,
}

/// Who executes a command.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// The vCPU's thread.
    Machine(Run),
    /// The session, without the machine.
    Session(fn(&mut Qmp, &Map<String, Value>) -> Result<Value, Failure>),
    /// Whoever reads the request: it may be executed out of band.
    Anybody(fn(&Map<String, Value>) -> Result<Value, Failure>),
}

impl Command {
    /// Whether it may be executed out of band.
    pub fn is_oob(&self) -> bool {
        matches!(self.by, By::Anybody(_))
    }
}

macro_rules! commands {
    ($($name:literal [$($args:literal)?] $([-> $returns:literal])? $by:ident $run:expr;)*) => {
        &[$(Command { name: $name, args: concat!($($args)?), returns: concat!($($returns)?), by: By::$by($run) }),*]
    };
}

/// Every command, by name.
pub(super) static COMMANDS: &[Command] = commands! {
    "add-fd" ["fdset-id?:int opaque?:str"] [-> "AddfdInfo"] Session descriptors::add;
    "balloon" ["value:int"] Machine |_, _| Err(machine::no_balloon());
    "blockdev-change-medium" [
        "device?:str id?:str filename:str format?:str force?:bool read-only-mode?:BlockdevChangeReadOnlyMode"
    ] Machine media::change_medium;
    "change-vnc-password" ["password:str"] Machine control::change_vnc_password;
    "closefd" ["fdname:str"] Machine descriptors::close;
    "cont" [] Machine |m, _| if m.resume() { done() } else { Err(super::generic(CANNOT_GO_ON)) };
    "device-list-properties" ["typename:str"] [-> "[ObjectPropertyInfo]"] Machine qom::device_properties;
    "device_add" ["driver:str bus?:str id?:str ..."] Machine qom::device_add;
    "device_del" ["id:str"] Machine qom::device_del;
    "eject" ["device?:str id?:str force?:bool"] Machine media::eject;
    "getfd" ["fdname:str"] Session descriptors::get;
    "human-monitor-command" ["command-line:str cpu-index?:int"] [-> "str"] Machine control::human;
    "inject-nmi" [] Machine control::inject_nmi;
    "input-send-event" ["device?:str head?:int events:[InputEvent]"] Machine input::send_event;
    "memsave" ["val:int size:int filename:str cpu-index?:int"] Machine |m, args| control::save(m, args, "memsave");
    "migrate" ["uri:str blk?:bool inc?:bool detach?:bool resume?:bool"] Machine migrate::refused;
    "migrate-set-capabilities" ["capabilities:[MigrationCapabilityStatus]"] Machine migrate::set_capabilities;
    "migrate-set-parameters" ["..."] Machine migrate::set_parameters;
    "migrate_cancel" [] Machine |_, _| done();
    "netdev_add" ["type:str id:str ..."] Machine network::add;
    "netdev_del" ["id:str"] Machine network::remove;
    "object-add" ["qom-type:str id:str ..."] Machine objects::add;
    "object-del" ["id:str"] Machine objects::remove;
    "pmemsave" ["val:int size:int filename:str"] Machine |m, args| control::save(m, args, "pmemsave");
    "qmp_capabilities" ["enable?:[QMPCapability]"] Session Qmp::negotiate;
    "qom-get" ["path:str property:str"] [-> "any"] Machine qom::get;
    "qom-list" ["path:str"] [-> "[ObjectPropertyInfo]"] Machine qom::list;
    "qom-list-properties" ["typename:str"] [-> "[ObjectPropertyInfo]"] Machine qom::class_properties;
    "qom-list-types" ["implements?:str abstract?:bool"] [-> "[ObjectTypeInfo]"] Machine qom::types;
    "qom-set" ["path:str property:str value:any"] Machine qom::set;
    "query-acpi-ospm-status" [] [-> "[any]"] Machine |_, _| nothing();
    "query-balloon" [] [-> "BalloonInfo"] Machine |_, _| Err(machine::no_balloon());
    "query-block" [] [-> "[BlockInfo]"] Machine |m, _| Ok(listed(m, "qmp-block"));
    "query-block-exports" [] [-> "[any]"] Machine |_, _| nothing();
    "query-block-jobs" [] [-> "[any]"] Machine |_, _| nothing();
    "query-blockstats" ["query-nodes?:bool"] [-> "[BlockStats]"] Machine |m, _| Ok(listed(m, "qmp-blockstats"));
    "query-chardev" [] [-> "[ChardevInfo]"] Machine machine::chardevs;
    "query-command-line-options" ["option?:str"] [-> "[CommandLineOptionInfo]"] Machine probe::options;
    "query-commands" [] [-> "[CommandInfo]"] Machine |_, _| Ok(COMMANDS.iter().map(|c| json!({ "name": c.name })).collect());
    "query-cpu-definitions" [] [-> "[CpuDefinitionInfo]"] Machine probe::cpu_definitions;
    "query-cpu-model-expansion" ["type:CpuModelExpansionType model:CpuModelInfo"] [-> "CpuModelExpansionInfo"]
        Machine probe::cpu_model;
    "query-cpus-fast" [] [-> "[CpuInfoFast]"] Machine machine::cpus;
    "query-current-machine" [] [-> "CurrentMachineParams"] Machine |m, _| Ok(json!({ "wakeup-suspend-support": m.can_sleep() }));
    "query-dump" [] [-> "DumpQueryResult"] Machine |_, _| Ok(json!({ "status": "none", "completed": 0, "total": 0 }));
    "query-fdsets" [] [-> "[FdsetInfo]"] Machine descriptors::sets;
    "query-hotpluggable-cpus" [] [-> "[HotpluggableCPU]"] Machine machine::hotpluggable_cpus;
    "query-iothreads" [] [-> "[IOThreadInfo]"] Machine objects::threads;
    "query-jobs" [] [-> "[any]"] Machine |_, _| nothing();
    "query-kvm" [] [-> "KvmInfo"] Machine |_, _| Ok(json!({ "enabled": false, "present": false }));
    "query-machines" [] [-> "[MachineInfo]"] Machine probe::machines;
    "query-memdev" [] [-> "[Memdev]"] Machine machine::memory_backends;
    "query-memory-devices" [] [-> "[any]"] Machine |_, _| nothing();
    "query-memory-size-summary" [] [-> "MemoryInfo"] Machine machine::memory_size;
    "query-mice" [] [-> "[MouseInfo]"] Machine input::mice;
    "query-migrate" [] [-> "MigrationInfo"] Machine |_, _| done();
    "query-migrate-capabilities" [] [-> "[MigrationCapabilityStatus]"] Machine migrate::capabilities;
    "query-migrate-parameters" [] [-> "MigrationInfo"] Machine |_, _| done();
    "query-name" [] [-> "NameInfo"] Machine machine::name;
    "query-named-block-nodes" ["flat?:bool"] [-> "[BlockDeviceInfo]"] Machine |m, _| Ok(listed(m, "qmp-block-nodes"));
    "query-pci" [] [-> "[PciInfo]"] Machine |m, _| Ok(listed(m, "qmp-pci"));
    "query-pr-managers" [] [-> "[any]"] Machine |_, _| nothing();
    "query-qmp-schema" [] [-> "[SchemaInfo]"] Machine |_, _| Ok(probe::schema());
    "query-replay" [] [-> "ReplayInfo"] Machine |_, _| Ok(json!({ "mode": "none", "icount": 0 }));
    "query-rx-filter" ["name?:str"] [-> "[RxFilterInfo]"] Machine network::filters;
    "query-sev" [] [-> "SevInfo"] Machine machine::no_sev;
    "query-sev-capabilities" [] [-> "any"] Machine |_, _| Err(super::generic("KVM not enabled"));
    "query-sgx" [] [-> "any"] Machine |_, _| Err(super::generic("No EPC regions defined, SGX not available"));
    "query-sgx-capabilities" [] [-> "any"] Machine |_, _| Err(super::generic("SGX is not enabled in KVM"));
    "query-spice" [] [-> "SpiceInfo"]
        Machine |_, _| Ok(json!({ "enabled": false, "migrated": false, "mouse-mode": "client" }));
    "query-stats" ["target:StatsTarget ..."] [-> "[any]"] Machine |_, _| nothing();
    "query-stats-schemas" ["provider?:str"] [-> "[any]"] Machine |_, _| nothing();
    "query-status" [] [-> "StatusInfo"] Machine machine::status;
    "query-target" [] [-> "TargetInfo"] Machine |m, _| Ok(json!({ "arch": machine::arch(m) }));
    "query-tpm" [] [-> "[any]"] Machine |_, _| nothing();
    "query-tpm-models" [] [-> "[str]"] Machine |_, _| nothing();
    "query-tpm-types" [] [-> "[str]"] Machine |_, _| nothing();
    "query-uuid" [] [-> "UuidInfo"] Machine machine::uuid;
    "query-version" [] [-> "VersionInfo"] Machine |_, _| Ok(super::version());
    "query-vm-generation-id" [] [-> "any"] Machine |_, _| Err(super::generic("VM Generation ID device not found"));
    "query-vnc" [] [-> "VncInfo"] Machine machine::vnc;
    "query-vnc-servers" [] [-> "[VncInfo2]"] Machine machine::vnc_servers;
    "query-yank" [] [-> "[YankInstance]"] Anybody |_| nothing();
    "quit" [] Machine |m, _| { m.quit(); done() };
    "remove-fd" ["fdset-id:int fd?:int"] Machine descriptors::remove;
    "screendump" ["filename:str device?:str head?:int format?:ImageFormat"] Machine control::screendump;
    "send-key" ["keys:[KeyValue] hold-time?:int"] Machine input::send_key;
    "set-action" ["reboot?:RebootAction shutdown?:ShutdownAction panic?:PanicAction watchdog?:WatchdogAction"]
        Machine control::set_action;
    "set_link" ["name:str up:bool"] Machine network::set_link;
    "set_password" ["protocol:DisplayProtocol password:str connected?:SetPasswordAction display?:str"]
        Machine control::set_password;
    "stop" [] Machine |m, _| { m.stop(crate::control::RunState::Paused); done() };
    "system_powerdown" [] Machine |m, _| { m.press_power_button(); done() };
    "system_reset" [] Machine |m, _| { m.reset(); done() };
    "system_wakeup" [] Machine control::wake_up;
    "watchdog-set-action" ["action:WatchdogAction"] Machine control::set_watchdog_action;
    "x-exit-preconfig" [] Machine control::no_preconfig;
    "yank" ["instances:[YankInstance]"] Anybody control::yank;
};

/// The events that are sent, and their data.
pub(super) const EVENTS: &[(&str, &str)] = &[
    (
        "BLOCK_IO_ERROR",
        "device:str node-name?:str operation:IoOperationType action:BlockErrorAction nospace?:bool reason:str",
    ),
    ("GUEST_CRASHLOADED", "action:GuestPanicAction"),
    ("GUEST_PANICKED", "action:GuestPanicAction"),
    ("POWERDOWN", ""),
    ("RESET", "guest:bool reason:ShutdownCause"),
    ("RESUME", ""),
    ("SHUTDOWN", "guest:bool reason:ShutdownCause"),
    ("STOP", ""),
    ("SUSPEND", ""),
    ("SUSPEND_DISK", ""),
    ("WAKEUP", ""),
    ("WATCHDOG", "action:WatchdogAction"),
];

/// The result of a command that has none.
pub(super) fn done() -> Result<Value, Failure> {
    Ok(json!({}))
}

/// An empty list.
fn nothing() -> Result<Value, Failure> {
    Ok(json!([]))
}

/// What the machine's devices list under `topic`, as JSON text; an empty list if there are none.
pub(super) fn listed(machine: &mut dyn Controlled, topic: &str) -> Value {
    if machine.config().settings.no_machine {
        return json!([]);
    }
    let text = machine.info(topic).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| json!([]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        assert!(EVENTS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
