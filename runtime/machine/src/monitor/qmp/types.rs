//! The objects and words of QMP, a row a type, as far as mimus has them: names and members are those of QEMU 7.2 ("QEMU QMP
//! Reference Manual"). How a row is written is told in [`super::schema`].

use super::schema::Kind::{Enum, Struct, Union};
use super::schema::Row;

/// Every type, by name.
pub(super) const TYPES: &[Row] = &[
    ("AddfdInfo", Struct, "fdset-id:int fd:int"),
    ("BalloonInfo", Struct, "actual:int"),
    ("BlockDeviceInfo", Struct, BLOCK_DEVICE_INFO),
    ("BlockDeviceStats", Struct, BLOCK_DEVICE_STATS),
    ("BlockDeviceTimedStats", Struct, ""),
    ("BlockErrorAction", Enum, "ignore report stop"),
    ("BlockInfo", Struct, BLOCK_INFO),
    ("BlockStats", Struct, "device?:str qdev?:str node-name?:str stats:BlockDeviceStats"),
    ("BlockdevCacheInfo", Struct, "writeback:bool direct:bool no-flush:bool"),
    ("BlockdevChangeReadOnlyMode", Enum, "retain read-only read-write"),
    ("BlockdevDetectZeroesOptions", Enum, "off on unmap"),
    ("ChardevInfo", Struct, "label:str filename:str frontend-open:bool"),
    ("CommandInfo", Struct, "name:str"),
    ("CommandLineOptionInfo", Struct, "option:str parameters:[CommandLineParameterInfo]"),
    ("CommandLineParameterInfo", Struct, "name:str type:CommandLineParameterType help?:str default?:str"),
    ("CommandLineParameterType", Enum, "string boolean number size"),
    (
        "CpuDefinitionInfo",
        Struct,
        "name:str migration-safe?:bool static:bool unavailable-features?:[str] typename:str alias-of?:str deprecated:bool",
    ),
    (
        "CpuInfoFast",
        Struct,
        "cpu-index:int qom-path:str thread-id:int props?:CpuInstanceProperties target:SysEmuTarget",
    ),
    ("CpuInstanceProperties", Struct, "node-id?:int socket-id?:int die-id?:int core-id?:int thread-id?:int"),
    ("CpuModelExpansionInfo", Struct, "model:CpuModelInfo"),
    ("CpuModelExpansionType", Enum, "static full"),
    ("CpuModelInfo", Struct, "name:str props?:any"),
    ("CurrentMachineParams", Struct, "wakeup-suspend-support:bool"),
    ("DisplayProtocol", Enum, "vnc spice"),
    ("DumpQueryResult", Struct, "status:DumpStatus completed:int total:int"),
    ("DumpStatus", Enum, "none"),
    ("FdsetFdInfo", Struct, "fd:int opaque?:str"),
    ("FdsetInfo", Struct, "fdset-id:int fds:[FdsetFdInfo]"),
    ("GuestPanicAction", Enum, "pause poweroff run"),
    ("HostMemPolicy", Enum, "default"),
    ("HotpluggableCPU", Struct, "type:str vcpus-count:int props:CpuInstanceProperties qom-path?:str"),
    ("IOThreadInfo", Struct, "id:str thread-id:int poll-max-ns:int poll-grow:int poll-shrink:int aio-max-batch:int"),
    ("ImageFormat", Enum, "ppm png"),
    ("ImageInfo", Struct, IMAGE_INFO),
    ("InputAxis", Enum, "x y"),
    ("InputBtnEvent", Struct, "button:InputButton down:bool"),
    ("InputBtnEventWrapper", Struct, "data:InputBtnEvent"),
    ("InputButton", Enum, "left middle right wheel-up wheel-down side extra wheel-left wheel-right touch"),
    (
        "InputEvent",
        Union,
        "type:InputEventKind / key:InputKeyEventWrapper btn:InputBtnEventWrapper rel:InputMoveEventWrapper \
         abs:InputMoveEventWrapper",
    ),
    ("InputEventKind", Enum, "key btn rel abs"),
    ("InputKeyEvent", Struct, "key:KeyValue down:bool"),
    ("InputKeyEventWrapper", Struct, "data:InputKeyEvent"),
    ("InputMoveEvent", Struct, "axis:InputAxis value:int"),
    ("InputMoveEventWrapper", Struct, "data:InputMoveEvent"),
    ("IntWrapper", Struct, "data:int"),
    ("IoOperationType", Enum, "read write"),
    ("IoStatus", Enum, "ok failed nospace"),
    ("KeyValue", Union, "type:KeyValueKind / number:IntWrapper qcode:QKeyCodeWrapper"),
    ("KeyValueKind", Enum, "number qcode"),
    ("KvmInfo", Struct, "enabled:bool present:bool"),
    (
        "MachineInfo",
        Struct,
        "name:str alias?:str is-default?:bool cpu-max:int hotpluggable-cpus:bool numa-mem-supported:bool deprecated:bool \
         default-cpu-type?:str default-ram-id?:str",
    ),
    (
        "Memdev",
        Struct,
        "id?:str size:int merge:bool dump:bool prealloc:bool share:bool reserve?:bool host-nodes:[int] policy:HostMemPolicy",
    ),
    ("MemoryInfo", Struct, "base-memory:int plugged-memory?:int"),
    ("MigrationCapability", Enum, MIGRATION_CAPABILITY),
    ("MigrationCapabilityStatus", Struct, "capability:MigrationCapability state:bool"),
    ("MigrationInfo", Struct, ""),
    ("MouseInfo", Struct, "name:str index:int current:bool absolute:bool"),
    ("NameInfo", Struct, "name?:str"),
    ("NetworkAddressFamily", Enum, "ipv4 ipv6 unix vsock unknown"),
    ("ObjectPropertyInfo", Struct, "name:str type:str description?:str default-value?:any"),
    ("ObjectTypeInfo", Struct, "name:str abstract?:bool parent?:str"),
    ("PanicAction", Enum, "pause shutdown exit-failure none"),
    ("PciDeviceClass", Struct, "desc?:str class:int"),
    ("PciDeviceId", Struct, "device:int vendor:int subsystem?:int subsystem-vendor?:int"),
    (
        "PciDeviceInfo",
        Struct,
        "bus:int slot:int function:int class_info:PciDeviceClass id:PciDeviceId irq?:int irq_pin:int qdev_id:str \
         regions:[PciMemoryRegion]",
    ),
    ("PciInfo", Struct, "bus:int devices:[PciDeviceInfo]"),
    ("PciMemoryRegion", Struct, "bar:int type:str address:int size:int prefetch?:bool mem_type_64?:bool"),
    ("QKeyCode", Enum, Q_KEY_CODE),
    ("QKeyCodeWrapper", Struct, "data:QKeyCode"),
    ("QMPCapability", Enum, "oob"),
    ("RebootAction", Enum, "reset shutdown"),
    ("ReplayInfo", Struct, "mode:ReplayMode filename?:str icount:int"),
    ("ReplayMode", Enum, "none"),
    ("RunState", Enum, "debug io-error paused prelaunch running shutdown suspended watchdog guest-panicked"),
    (
        "RxFilterInfo",
        Struct,
        "name:str promiscuous:bool multicast:RxState unicast:RxState vlan:RxState broadcast-allowed:bool \
         multicast-overflow:bool unicast-overflow:bool main-mac:str vlan-table:[int] unicast-table:[str] multicast-table:[str]",
    ),
    ("RxState", Enum, "normal none all"),
    ("SchemaInfo", Struct, "name:str meta-type:SchemaMetaType ..."),
    ("SchemaMetaType", Enum, "builtin enum array object alternate command event"),
    ("SetPasswordAction", Enum, "keep fail disconnect"),
    ("SevInfo", Struct, "enabled:bool api-major:int api-minor:int build-id:int policy:int state:SevState handle:int"),
    ("SevState", Enum, "uninit"),
    ("ShutdownAction", Enum, "poweroff pause"),
    (
        "ShutdownCause",
        Enum,
        "none host-error host-qmp-quit host-qmp-system-reset host-signal host-ui guest-shutdown guest-reset guest-panic \
         subsystem-reset snapshot-load",
    ),
    ("SpiceInfo", Struct, "enabled:bool migrated:bool mouse-mode:SpiceQueryMouseMode"),
    ("SpiceQueryMouseMode", Enum, "client server unknown"),
    ("StatsTarget", Enum, "vm vcpu"),
    ("StatusInfo", Struct, "running:bool singlestep:bool status:RunState"),
    ("SysEmuTarget", Enum, "i386 riscv32 riscv64 x86_64"),
    ("TargetInfo", Struct, "arch:SysEmuTarget"),
    ("UuidInfo", Struct, "UUID:str"),
    ("VersionInfo", Struct, "qemu:VersionTriple package:str"),
    ("VersionTriple", Struct, "major:int minor:int micro:int"),
    ("VncInfo", Struct, "enabled:bool host?:str family?:NetworkAddressFamily service?:str auth?:str clients?:[any]"),
    ("VncInfo2", Struct, "id:str server:[VncServerInfo2] clients:[any] auth:VncPrimaryAuth"),
    ("VncPrimaryAuth", Enum, "none vnc"),
    ("VncServerInfo2", Struct, "host:str service:str family:NetworkAddressFamily websocket:bool auth:VncPrimaryAuth"),
    ("WatchdogAction", Enum, "reset shutdown poweroff pause debug none inject-nmi"),
    ("YankInstance", Union, "type:YankInstanceType / block-node:YankInstanceBlockNode chardev:YankInstanceChardev"),
    ("YankInstanceBlockNode", Struct, "node-name:str"),
    ("YankInstanceChardev", Struct, "id:str"),
    ("YankInstanceType", Enum, "block-node chardev migration"),
];

const BLOCK_INFO: &str = "device:str qdev?:str type:str removable:bool locked:bool inserted?:BlockDeviceInfo tray_open?:bool \
     io-status?:IoStatus";

const BLOCK_DEVICE_INFO: &str = "file:str node-name?:str ro:bool drv:str backing_file?:str backing_file_depth:int \
     encrypted:bool detect_zeroes:BlockdevDetectZeroesOptions bps:int bps_rd:int bps_wr:int iops:int iops_rd:int iops_wr:int \
     bps_max?:int bps_rd_max?:int bps_wr_max?:int iops_max?:int iops_rd_max?:int iops_wr_max?:int bps_max_length?:int \
     bps_rd_max_length?:int bps_wr_max_length?:int iops_max_length?:int iops_rd_max_length?:int iops_wr_max_length?:int \
     iops_size?:int group?:str \
     image:ImageInfo cache:BlockdevCacheInfo write_threshold:int";

const IMAGE_INFO: &str = "filename:str format:str dirty-flag?:bool actual-size?:int virtual-size:int";

const BLOCK_DEVICE_STATS: &str = "rd_bytes:int wr_bytes:int unmap_bytes:int rd_operations:int wr_operations:int \
     flush_operations:int unmap_operations:int rd_total_time_ns:int wr_total_time_ns:int flush_total_time_ns:int \
     unmap_total_time_ns:int wr_highest_offset:int rd_merged:int wr_merged:int unmap_merged:int idle_time_ns?:int \
     failed_rd_operations:int failed_wr_operations:int failed_flush_operations:int failed_unmap_operations:int \
     invalid_rd_operations:int invalid_wr_operations:int invalid_flush_operations:int invalid_unmap_operations:int \
     account_invalid:bool account_failed:bool timed_stats:[BlockDeviceTimedStats]";

/// What a migration may be told to do.
pub(super) const MIGRATION_CAPABILITY: &str = "xbzrle rdma-pin-all auto-converge zero-blocks compress events postcopy-ram x-colo \
     release-ram block return-path pause-before-switchover multifd dirty-bitmaps postcopy-blocktime late-block-activate \
     x-ignore-shared validate-uuid background-snapshot zero-copy-send postcopy-preempt";

/// The keys that the keyboard has.
const Q_KEY_CODE: &str = "esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p bracket_left bracket_right ret \
     ctrl a s d f g h j k l semicolon apostrophe grave_accent shift backslash z x c v b n m comma dot slash shift_r \
     kp_multiply asterisk alt spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_7 kp_8 kp_9 kp_subtract kp_4 \
     kp_5 kp_6 kp_add kp_1 kp_2 kp_3 kp_0 kp_decimal sysrq less f11 f12 kp_enter ctrl_r kp_divide print alt_r home up pgup left \
     right end down pgdn insert delete meta_l meta_r compose power sleep wake audiomute volumedown volumeup pause";

#[cfg(test)]
mod tests {
    use mimus_hw::keys::Key;

    use super::*;

    #[test]
    fn the_words_for_keys_are_the_keyboards() {
        let words: Vec<&str> = Q_KEY_CODE.split_whitespace().collect();
        assert!(words.iter().all(|word| Key::named(word).is_some()), "{words:?}");
        // And an alias.
        assert_eq!(words.len(), Key::COUNT + 1);
    }
}
