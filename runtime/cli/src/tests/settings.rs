//! Command lines about how a machine is run, its objects and the properties of what it has.

use super::*;
use mimus_machine::config::{LockMemory, PanicAction, RtcBase, Settings, WatchdogAction};

/// What a line sets, without a warning.
fn settings(line: &str) -> Settings {
    let config = config_of(line);
    assert_eq!(config.warnings, [""; 0], "{line}");
    config.settings
}

fn warnings(line: &str) -> String {
    config_of(line).warnings.join("\n")
}

#[test]
fn a_daemon_without_default_devices_has_no_terminal() {
    assert!(config_of("-nographic -nodefaults -daemonize").process.daemonize);
}

#[test]
fn how_it_is_run() {
    let default = Settings::default;
    assert_eq!(settings("-no-shutdown"), Settings { no_shutdown: true, ..default() });
    let quiet = Settings { no_shutdown: true, panic: PanicAction::None, ..default() };
    assert_eq!(settings("-action shutdown=pause,panic=none"), quiet);
    assert_eq!(settings("-action panic=exit-failure -action reboot=reset").panic, PanicAction::ExitFailure);
    assert_eq!(settings("-watchdog-action inject-nmi").watchdog, WatchdogAction::InjectNmi);
    assert_eq!(settings("-watchdog-action none -action watchdog=pause").watchdog, WatchdogAction::Pause);
    assert_eq!(settings("-no-shutdown -action shutdown=poweroff"), default());
    assert!(config_of("-action reboot=shutdown -action watchdog=none -watchdog-action reset").no_reboot);
    assert!(config_of("-no-reboot").no_reboot && !config_of("-no-reboot -action reset").no_reboot);
    let rtc = |rtc| Settings { rtc, ..default() };
    assert_eq!(settings("-rtc base=utc,driftfix=slew"), default());
    assert_eq!(settings("-rtc base=localtime -rtc clock=vm"), rtc(RtcBase::LocalTime));
    assert_eq!(settings("-rtc 2006-06-17T16:01:21,clock=host"), rtc(RtcBase::Date(1_150_560_081)));
    assert_eq!(settings("-overcommit mem-lock=on,cpu-pm=on").lock_memory, LockMemory::All);
    assert_eq!(settings("-overcommit mem-lock=off -overcommit mem-lock=on-fault").lock_memory, LockMemory::Used);
    assert_eq!(settings("-msg timestamp=on"), Settings { message_time: true, ..default() });
    assert_eq!(settings("-msg timestamp,guest-name -msg timestamp=off"), Settings { message_name: true, ..default() });
    let config = config_of("-name guest=vm1,debug-threads=on,process=qemu:vm1");
    assert_eq!((config.name.as_deref(), config.settings.process_name.as_deref()), (Some("vm1"), Some("qemu:vm1")));
    let config = config_of("-M none -accel kvm");
    assert!(config.settings.no_machine && config.start_stopped);
    assert_eq!(settings("-M pc-i440fx-7.2,usb=off,dump-guest-core=off -M accel=jit,smm=off,vmport=auto"), default());
    assert_eq!(settings(r#"-audiodev {"id":"a","driver":"none"}"#), default());
    assert_eq!(settings("-audiodev none,id=a -audio driver=none -k de -compat x -win2k-hack"), default());
    assert_eq!(settings("-portrait -rotate 90 -old-param"), default());
    refused(&[
        (
            "-rtc base=now",
            "-rtc: base: 'now' is not utc, localtime, or a date after 1970 as in 2006-06-17T16:01:21 or 2006-06-17",
        ),
        ("-rtc clock=moon", "-rtc: clock: 'moon' is not supported yet: host or rt or vm"),
        ("-action shutdown=x", "-action: shutdown: 'x' is not known here: poweroff or pause"),
        ("-action panic=x", "-action: panic: 'x' is not known here: pause or shutdown or exit-failure or none"),
        (
            "-watchdog-action x",
            "-watchdog-action: 'x' is not known here: reset or shutdown or poweroff or pause or debug or none or inject-nmi",
        ),
        (
            "-audiodev pa,id=a",
            "-audiodev: 'pa' needs sound, which is not supported yet: leave it out, or use -audiodev none",
        ),
    ]);
}

#[test]
fn what_has_no_effect_is_told() {
    for (line, expected) in [
        ("-m 1G,slots=2,maxmem=4G", "-m: slots, maxmem: no memory can be added to the machine"),
        ("-seed 3", "-seed: random numbers are the host's"),
        ("-d cpu,int -d trace:x", "-d: nothing is logged of cpu\n-d: nothing is logged of trace:x"),
        ("-dfilter 0..10", "-dfilter: log items are of all addresses"),
    ] {
        assert_eq!(warnings(line), expected, "{line}");
    }
    assert_eq!(config_of("-d guest_errors,cpu_reset").log, LogItems::GUEST_ERRORS | LogItems::CPU_RESET);
}

#[test]
fn objects() {
    let rng = "-object rng-random,filename=/dev/urandom,id=r -device virtio-rng-pci,rng=r";
    assert_eq!((config_of(rng).virtio().count(), warnings(rng)), (1, String::new()));
    assert_eq!(
        config_of("-object {\"qom-type\":\"rng-builtin\",\"id\":\"r\"} -device virtio-rng,rng=r").virtio().count(),
        1
    );
    assert_eq!(
        warnings("-object rng-builtin,id=r -device virtio-rng-pci,rng=r,max-bytes=1024,period=1000"),
        "-device virtio-rng-pci: max-bytes: random numbers are not limited"
    );
    let config = config_of("-object memory-backend-ram,id=m,size=268435456 -M pc,memory-backend=m");
    assert_eq!((config.ram_size, config.warnings), (256 << 20, vec![]));
    assert_eq!(warnings("-object memory-backend-file,id=m,size=64M,mem-path=/dev/shm,share=on"), "");
    assert_eq!(warnings("-object iothread,id=t -object secret,id=s,data=x"), "");
    refused(&[
        (
            "-object tls-creds-x509,id=t,dir=.",
            "-object: 'tls-creds-x509' needs TLS, which is not supported yet: reach it by an encrypted tunnel, such as ssh's",
        ),
        ("-object rng-random", "-object rng-random: needs id=ID"),
        (
            "-object rng-random,id=a,filename=/x",
            "-object rng-random: filename: '/x' is not known here: /dev/random or /dev/urandom or /dev/hwrng",
        ),
        ("-object rng-builtin,id=a -object iothread,id=a", "-object iothread: the id 'a' is given twice"),
        ("-device virtio-rng-pci,rng=a", "-device virtio-rng-pci: rng: there is no -object rng-... with id=a"),
        ("-M memory-backend=a", "-machine: memory-backend: there is no -object memory-backend-... with id=a"),
        (
            "-object rng-egd,id=a -device virtio-rng-pci,rng=a",
            "-object: 'rng-egd' is not supported yet (supported: rng-random, rng-builtin, memory-backend-ram, memory-backend-file, \
             memory-backend-memfd, secret, throttle-group, iothread, filter-dump)",
        ),
    ]);
}

#[test]
fn properties_of_what_there_is() {
    let config = config_of("-global e1000.mac=02:00:00:00:00:01 -device e1000 -device e1000,mac=02:00:00:00:00:02");
    assert_eq!(config.adapters().map(|nic| nic.values.mac().unwrap()[5]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(config.warnings, [""; 0]);
    for line in [
        "-global kvm-pit.lost_tick_policy=delay",
        "-global driver=kvm-pit,property=lost_tick_policy,value=discard",
        "-global virtio-blk-pci.scsi=off",
        "-global isa-fdc.fdtypeA=none",
        "-global ICH9-LPC.disable_s3=1 -global PIIX4_PM.disable_s4=1",
        "-global driver=cfi.pflash01,property=secure,value=on",
        "-global PIIX4_PM.acpi-root-pci-hotplug=off",
        "-global pci-device.rombar=0",
        "-global VGA.xmax=1 -global isa-serial.irq=3 -serial none -serial null",
    ] {
        assert_eq!(warnings(line), "", "{line}");
    }
    for (line, expected) in [
        ("-global x.y=1", "-global x.y=1: there is no such device"),
        ("-net none -global e1000.nosuch=x", "-global e1000.nosuch=x: the machine has no such device"),
        ("-global isa-debugcon.iobase=0x402", "-global isa-debugcon.iobase=0x402: the machine has no such device"),
        ("-global isa-fdc.fdtypeA=144", "-global isa-fdc.fdtypeA=144: the machine has no such device"),
        ("-global PIIX4_PM.smm-enabled=on", "-global PIIX4_PM: smm-enabled: there is no system management mode"),
    ] {
        assert_eq!(warnings(line), expected, "{line}");
    }
    let sleeps = |line: &str| config_of(line).sleeps();
    assert_eq!(sleeps(""), [true, true]);
    assert_eq!(sleeps("-global PIIX4_PM.disable_s3=1"), [false, true]);
    assert_eq!(sleeps("-global PIIX4_PM.disable_s3=0 -global PIIX4_PM.disable_s4=on"), [true, false]);
    // By a type that the device is of, and by another name of it.
    let interface = |line: &str| of_rng(&format!("{line} -device virtio-rng-pci"));
    for driver in ["virtio-pci", "virtio-rng", "virtio-rng-pci"] {
        assert_eq!(interface(&format!("-global {driver}.disable-legacy=on")), Interface::Modern, "{driver}");
    }
    assert_eq!(interface("-global virtio-blk-pci.disable-legacy=on"), Interface::Transitional);
    // And whatever option the device is of.
    let mac = |line: &str| config_of(line).adapters().next().and_then(|nic| nic.values.mac()).map(|mac| mac[5]);
    assert_eq!(mac("-global e1000.mac=02:00:00:00:00:09"), Some(9));
    assert_eq!(mac("-global virtio-net-pci.mac=02:00:00:00:00:09 -nic user,model=virtio"), Some(9));
    assert_eq!(mac("-global e1000.mac=02:00:00:00:00:09 -nic user,mac=02:00:00:00:00:08"), Some(8));
    let config = config_of("-hda a -cdrom b -global ide-hd.serial=s -global ide-hd.model=m -global ide-cd.ver=7");
    let drives: Vec<&Device> = config.drives().collect();
    let [disk, cd_rom] = drives[..] else { panic!("{drives:?}") };
    let told = [disk.serial_number(), disk.values.text("model"), cd_rom.values.text("ver")];
    assert_eq!(told.map(Option::unwrap), ["s", "m", "7"]);
    assert_eq!(config.warnings, [""; 0]);
    // Also of the drive that there is without a word.
    let config = config_of("-global ide-cd.model=m -global ide-hd.model=h -hda a");
    let names: Vec<_> = config.drives().map(|drive| (drive.model.name, drive.values.text("model").unwrap())).collect();
    assert_eq!(names, [("ide-hd", "h".to_owned()), ("ide-cd", "m".to_owned())]);
    assert_eq!((config.drives().last().unwrap().is_usual_cd_rom(), config.warnings), (true, Vec::new()));
    assert!(config_of("-global ide-cd.model=m").runs_demo());
    let disk = config_of("-drive file=a,if=virtio -global virtio-blk-pci.disable-legacy=on");
    assert_eq!(disk.virtio().map(|disk| registry::interface(&disk.values)).next(), Some(Interface::Modern));
    refused(&[
        ("-global PIIX4_PM.disable_s3=x", "-global PIIX4_PM: disable_s3: 'x' is not known here: 0 or 1 or off or on"),
        ("-global mc146818rtc.nosuch=1", "-global mc146818rtc: unknown key 'nosuch' (no keys are supported)"),
        ("-global e1000.nosuch=x", "-global e1000: unknown key 'nosuch' (keys: mac, netdev, id, addr, bus, bootindex)"),
        ("-global isa-pit.nosuch=1", "-global isa-pit: unknown key 'nosuch' (no keys are supported)"),
        ("-global ide-cd.ver=123456789", "-global ide-cd: ver: longer than 8 characters"),
        ("-global e1000.mac=x -device e1000", "-device e1000: mac: 'x' is not six bytes"),
        ("-global e1000", "-global: 'e1000' is not of the form DRIVER.PROPERTY=VALUE"),
    ]);
}

#[test]
fn options_from_elsewhere() {
    let path = std::env::temp_dir().join(format!("mimus-options-{}", std::process::id()));
    std::fs::write(&path, "[device \"n\"]\n  driver = \"e1000\"\n[memory]\n  size = \"256\"\n").unwrap();
    let config = config_of(&format!("-readconfig {} -set device.n.mac=02:00:00:00:00:07 -m 512", path.display()));
    std::fs::remove_file(&path).unwrap();
    let nic = config.adapters().next().unwrap();
    assert_eq!((nic.values.mac().map(|mac| mac[5]), &*nic.plug.id, config.ram_size), (Some(7), "n", 512 << 20));
    refused(&[("-set device.n.mac=1", "-set: there is no -device with id=n")]);
}

#[test]
fn programs_that_look_for_qemus_version_find_one() {
    let text = printed("-version");
    let first = text.lines().next().unwrap();
    assert_eq!(first, format!("QEMU emulator version 7.2.0 (mimus {})", env!("CARGO_PKG_VERSION")));
    assert!(text.contains("is not QEMU"));
    assert_eq!(printed("--version"), text);
}
