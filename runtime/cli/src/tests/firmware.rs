//! What firmware and guests are told.

use super::*;
use mimus_machine::config::{AcpiTable, Firmware, FwCfgFile, FwCfgSource};

/// The machine of `line` but for its firmware's settings, which are returned.
fn firmware(line: &str) -> Firmware {
    let config = config_of(line);
    assert_eq!(Config { firmware: Firmware::default(), ..config.clone() }, Config::default(), "{line}");
    config.firmware
}

/// What an option changes.
type Change<'a> = &'a dyn Fn(&mut Firmware);

#[test]
fn what_is_told_to_guests() {
    let file = |name: &str, source| FwCfgFile { name: name.into(), source };
    let text = |text: &str| FwCfgSource::Text(text.into());
    let told = |change: Change| {
        let mut firmware = Firmware::default();
        change(&mut firmware);
        firmware
    };
    let rows: &[(&str, Change)] = &[
        ("-fw_cfg name=opt/a,file=f -fw_cfg opt/b,string=x=1,,2", &|f| {
            f.files = vec![file("opt/a", FwCfgSource::File("f".into())), file("opt/b", text("x=1,2"))];
        }),
        ("-option-rom rom.bin", &|f| f.option_roms = vec!["rom.bin".into()]),
        ("-no-acpi", &|f| f.acpi = false),
        ("-machine pc,acpi=off", &|f| f.acpi = false),
        ("-machine acpi=auto,x-oem-id=ME,x-oem-table-id=TABLE", &|f| f.oem = ("ME".into(), "TABLE".into())),
        ("-machine smbios-entry-point-type=64", &|f| f.smbios_wide = true),
        ("-machine identity=qemu", &|f| f.qemu_identity = true),
        ("-acpitable sig=SLIC,rev=3,oem_id=me,data=a:b", &|f| {
            let fields = vec![(0, b"SLIC".to_vec()), (8, vec![3]), (10, b"me    ".to_vec())];
            f.acpi_tables = vec![AcpiTable { files: vec!["a".into(), "b".into()], has_header: false, fields }];
        }),
        ("-acpitable file=t", &|f| {
            f.acpi_tables = vec![AcpiTable { files: vec!["t".into()], has_header: true, fields: vec![] }];
        }),
        ("-smbios file=t -smbios type=11,value=a,value=b", &|f| {
            (f.smbios_files, f.smbios_strings) = (vec!["t".into()], vec!["a".into(), "b".into()]);
        }),
        ("-smbios type=1,serial=ds=nocloud;s=http://x/ -smbios type=4,processor-id=0x10,max-speed=2000", &|f| {
            let field = |kind, key, value: &str| (kind, key, value.to_owned());
            f.smbios_fields = vec![
                field(1, "serial", "ds=nocloud;s=http://x/"),
                field(4, "max-speed", "2000"),
                field(4, "processor-id", "16"),
            ];
        }),
    ];
    for (line, change) in rows {
        assert_eq!(firmware(line), told(change), "{line}");
    }
    let uuid = "77046f18-e107-48e7-939c-57eba163c478";
    assert_eq!(config_of(&format!("-smbios type=1,uuid={}", uuid.to_uppercase())).uuid.as_deref(), Some(uuid));
    assert!(config_of("-fw_cfg etc/x,string=y").warnings[0].contains("'etc/x' may be firmware's own"));
}

#[test]
fn order_of_booting() {
    let boot = config_of("-boot order=c,once=d,strict=on,reboot-timeout=5000").boot;
    assert_eq!(
        (boot.order, boot.once, boot.strict, boot.reboot_timeout),
        ([2, 0, 0], Some([3, 0, 0]), true, Some(5000))
    );
    let config = config_of("-drive file=a,if=none,id=a -device virtio-blk-pci,drive=a,bootindex=7 -net none");
    assert_eq!(config.virtio().next().unwrap().plug.boot_index, Some(7));
}

#[test]
fn what_cannot_be_told() {
    for (line, message) in [
        ("-fw_cfg opt/a", "-fw_cfg: needs either file= or string="),
        ("-fw_cfg name=opt/a,file=f,string=s", "-fw_cfg: needs either file= or string="),
        ("-smbios type=9", "-smbios: needs file=, or type= with one of 0, 1, 2, 3, 4, 11, 17"),
        ("-smbios type=0,release=1", "-smbios: release: '1' is not MAJOR.MINOR, both up to 255"),
        ("-smbios type=1,uuid=1", "-smbios: '1' is not a UUID"),
        ("-acpitable data=f", "-acpitable: data= needs sig="),
        ("-acpitable sig=LONGER,data=f", "-acpitable: sig: 'LONGER' has over 4 letters"),
        ("-machine x-oem-id=TOOLONG", "-machine pc: x-oem-id: 'TOOLONG': up to 6 letters"),
        ("-boot once=cc", "-boot: once=cc: 'c' is there twice"),
        ("-arch riscv64 -fw_cfg opt/a,string=b", "-fw_cfg: only the machine pc has this"),
    ] {
        match parsed(line) {
            Err(error) => assert_eq!(error.to_string(), message, "{line}"),
            Ok(other) => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn devices_have_no_expansion_rom_and_the_timer_stays() {
    for line in ["e1000", "virtio-net-pci", "VGA", "virtio-blk-pci,drive=d -drive if=none,id=d,file=x"] {
        let (device, rest) = line.split_once(',').unwrap_or((line, "id=x"));
        let line = |key: &str| format!("-device {device},{key},{rest}");
        for none in ["romfile=", "rombar=0"] {
            config_of(&line(none));
        }
        let expected = format!("-device {device}: romfile: 'x' is not known here: only '' is supported yet");
        refused(&[(&line("romfile=x"), &expected)]);
    }
    assert_eq!(config_of("-machine pit=off").warnings, ["-machine pit=off: the interval timer is there all the same"]);
    assert_eq!(config_of("-machine pit=on").warnings, [""; 0]);
}
