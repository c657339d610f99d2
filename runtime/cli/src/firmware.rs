//! What is booted, and what firmware and guest are told: `-bios`, `-boot`, `-kernel` and its kin, and keys of `-machine`.

use std::path::PathBuf;

use super::keyval::{self, Key, Kind, Values};
use super::{Arch, CliError, Given, monitors, utf8};
use mimus_machine::config::{AcpiTable, Bios, Boot, Config, FwCfgFile, FwCfgSource};

/// Takes over the keys of a PC's `-machine` that are about firmware.
pub(super) fn machine(values: &Values, config: &mut Config) -> Result<(), CliError> {
    match values.text("firmware") {
        Some("on") => config.firmware.before_kernel = Some(true),
        Some("off") => config.firmware.before_kernel = Some(false),
        Some(file) => config.bios = Bios::File(file.into()),
        None => {}
    }
    if values.word("pit") == Some("off") {
        config.warnings.push("-machine pit=off: the interval timer is there all the same".to_owned());
    }
    let firmware = &mut config.firmware;
    if let Some(acpi) = values.word("acpi") {
        firmware.acpi = acpi != "off";
    }
    if let Some(identity) = values.word("identity") {
        firmware.qemu_identity = identity == "qemu";
    }
    if let Some(width) = values.word("smbios-entry-point-type") {
        firmware.smbios_wide = width == "64";
    }
    for (key, name, most) in [("x-oem-id", &mut firmware.oem.0, 6), ("x-oem-table-id", &mut firmware.oem.1, 8)] {
        if let Some(text) = values.text(key) {
            if text.len() > most || !text.is_ascii() {
                return Err(CliError::new(format!("-machine pc: {key}"), format!("'{text}': up to {most} letters")));
            }
            *name = text.to_owned();
        }
    }
    Ok(())
}

/// What is booted.
pub(super) fn boot(given: &Given, arch: Arch, config: &mut Config) -> Result<(), CliError> {
    config.bios = match given.path("bios")? {
        None => config.bios.clone(),
        Some(file) if file.as_os_str() == "none" => Bios::None,
        Some(file) if file.as_os_str() == "default" => Bios::Default,
        Some(file) => Bios::File(file),
    };
    for directory in given.all("L") {
        config.data_dirs.push(PathBuf::from(directory));
    }
    if let Some(texts) = given.merged("boot")? {
        if arch != Arch::X86 {
            return Err(CliError::new("-boot", "only the machine pc has firmware that it is for"));
        }
        config.boot = boot_order(texts)?;
    }
    tables(given, arch, config)?;
    config.kernel = given.path("kernel")?;
    config.initrd = given.path("initrd")?;
    if let Some(text) = given.text("append")? {
        config.append = text.to_owned();
    }
    let without_kernel = if config.initrd.is_some() { Some("-initrd") } else { given.one("append").map(|_| "-append") };
    match without_kernel {
        Some(option) if config.kernel.is_none() => Err(CliError::new(option, "needs -kernel").following("-kernel")),
        _ if matches!(config.bios, Bios::File(_)) && config.firmware.before_kernel == Some(false) => {
            Err(CliError::new("-bios", "contradicts -machine firmware=off"))
        }
        _ if arch == Arch::X86 && config.bios == Bios::None && config.firmware.before_kernel == Some(true) => {
            Err(CliError::new("-bios", "none: contradicts -machine firmware=on"))
        }
        _ if arch == Arch::X86 && config.bios == Bios::None && config.kernel.is_none() => {
            Err(CliError::new("-bios", "none: the machine pc then needs -kernel"))
        }
        _ if config.firmware.before_kernel == Some(false) && config.kernel.is_none() => {
            Err(CliError::new("-machine pc: firmware", "off: the machine then needs -kernel"))
        }
        _ => Ok(()),
    }
}

/// What firmware boots.
fn boot_order(texts: Vec<&str>) -> Result<Boot, CliError> {
    const KEYS: &[Key] = &[
        Key { name: "order", kind: Kind::Text("drives"), help: "" },
        Key { name: "once", kind: Kind::Text("drives"), help: "" },
        Key { name: "menu", kind: Kind::Word(&["on", "off"]), help: "" },
        Key { name: "splash", kind: Kind::Text("a file name"), help: "" },
        Key { name: "splash-time", kind: Kind::Number(0, 65_535), help: "" },
        Key { name: "reboot-timeout", kind: Kind::Number(0, 65_535), help: "" },
        Key { name: "strict", kind: Kind::Word(&["on", "off"]), help: "" },
    ];
    let values = keyval::parse_all("-boot", texts, "order", KEYS)?;
    let mut boot = Boot::default();
    if let Some(order) = values.text("order") {
        boot.order = drives("order", order)?;
    }
    boot.once = values.text("once").map(|order| drives("once", order)).transpose()?;
    boot.strict = values.word("strict") == Some("on");
    boot.reboot_timeout = values.number("reboot-timeout").and_then(|time| u32::try_from(time).ok());
    boot.menu = values.word("menu") == Some("on");
    boot.splash = values.text("splash").map(PathBuf::from);
    if let Some(time) = values.number("splash-time").and_then(|time| u32::try_from(time).ok()) {
        boot.splash_time = time;
    }
    Ok(boot)
}

/// The numbers of drives by their letters.
fn drives(key: &str, letters: &str) -> Result<[u8; 3], CliError> {
    let (mut order, mut seen) = ([0; 3], String::new());
    for letter in letters.chars() {
        let error = |what: &str| CliError::new("-boot", format!("{key}={letters}: '{letter}' {what}"));
        if seen.contains(letter) {
            return Err(error("is there twice"));
        }
        let place = order.get_mut(seen.len()).ok_or_else(|| error("is one too many: firmware tries three"))?;
        *place = match letter {
            'a' => 1,
            'c' => 2,
            'd' => 3,
            'n' => 4,
            _ => return Err(error("is none of a, c, d and n")),
        };
        seen.push(letter);
    }
    Ok(order)
}

/// What firmware and guest are told: tables, files and ROMs.
fn tables(given: &Given, arch: Arch, config: &mut Config) -> Result<(), CliError> {
    if given.flag("no-acpi") {
        config.firmware.acpi = false;
    }
    type Parse = fn(&str, &mut Config) -> Result<(), CliError>;
    let options: [(&str, Parse); 4] =
        [("smbios", smbios), ("fw_cfg", fw_cfg), ("acpitable", acpi_table), ("option-rom", option_rom)];
    for (name, parse) in options {
        for value in given.all(name) {
            if arch != Arch::X86 {
                return Err(CliError::new(format!("-{name}"), "only the machine pc has this"));
            }
            parse(utf8(name, value)?, config)?;
        }
    }
    if arch != Arch::X86 && given.flag("no-acpi") {
        return Err(CliError::new("-no-acpi", "this machine never has ACPI"));
    }
    Ok(())
}

fn option_rom(text: &str, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        Key { name: "romfile", kind: Kind::Text("a file"), help: "" },
        Key { name: "bootindex", kind: Kind::NotYet, help: "" },
    ];
    let values = keyval::parse("-option-rom", text, "romfile", KEYS)?;
    let file = values.text("romfile").ok_or_else(|| CliError::new("-option-rom", "needs a file"))?;
    config.firmware.option_roms.push(file.into());
    Ok(())
}

/// The longest name of a file of the firmware configuration device, in bytes.
const FW_CFG_NAME: usize = 55;
/// Names of users' own begin with this.
const FW_CFG_OWN: &str = "opt/";

fn fw_cfg(text: &str, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        Key { name: "name", kind: Kind::Text("a name, as in opt/org.example/name"), help: "" },
        Key { name: "file", kind: Kind::Text("a file"), help: "" },
        Key { name: "string", kind: Kind::Text("text"), help: "" },
        Key { name: "gen_id", kind: Kind::NotYet, help: "" },
    ];
    let error = |message: &str| CliError::new("-fw_cfg", message);
    let values = keyval::parse("-fw_cfg", text, "name", KEYS)?;
    let name = values.text("name").unwrap_or_default();
    if name.is_empty() || name.len() > FW_CFG_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(error(&format!("'{name}' is not a name of 1 to {FW_CFG_NAME} letters")));
    }
    let source = match (values.text("file"), values.text("string")) {
        (Some(file), None) => FwCfgSource::File(file.into()),
        (None, Some(text)) => FwCfgSource::Text(text.to_owned()),
        _ => return Err(error("needs either file= or string=")),
    };
    if !name.starts_with(FW_CFG_OWN) {
        config
            .warnings
            .push(format!("-fw_cfg: '{name}' may be firmware's own: names of users' begin with {FW_CFG_OWN}"));
    }
    config.firmware.files.push(FwCfgFile { name: name.to_owned(), source });
    Ok(())
}

/// Fields of an ACPI table's header by their keys: where they are, how many bytes, and whether they are numbers (ACPI specification
/// 6.5, 5.2.6).
const ACPI_FIELDS: &[(&str, usize, usize, bool)] = &[
    ("sig", 0, 4, false),
    ("rev", 8, 1, true),
    ("oem_id", 10, 6, false),
    ("oem_table_id", 16, 8, false),
    ("oem_rev", 24, 4, true),
    ("asl_compiler_id", 28, 4, false),
    ("asl_compiler_rev", 32, 4, true),
];

fn acpi_table(text: &str, config: &mut Config) -> Result<(), CliError> {
    const NUMBER: Kind = Kind::Number(0, u32::MAX as u64);
    const KEYS: &[Key] = &[
        Key { name: "sig", kind: Kind::Text("four letters"), help: "" },
        Key { name: "rev", kind: Kind::Number(0, 255), help: "" },
        Key { name: "oem_id", kind: Kind::Text("up to 6 letters"), help: "" },
        Key { name: "oem_table_id", kind: Kind::Text("up to 8 letters"), help: "" },
        Key { name: "oem_rev", kind: NUMBER, help: "" },
        Key { name: "asl_compiler_id", kind: Kind::Text("up to 4 letters"), help: "" },
        Key { name: "asl_compiler_rev", kind: NUMBER, help: "" },
        Key { name: "data", kind: Kind::Text("files, separated by colons"), help: "" },
        Key { name: "file", kind: Kind::Text("files, separated by colons"), help: "" },
    ];
    let error = |message: &str| CliError::new("-acpitable", message);
    let values = keyval::parse("-acpitable", text, "file", KEYS)?;
    let (files, has_header) = match (values.text("file"), values.text("data")) {
        (Some(files), None) => (files, true),
        (None, Some(files)) => (files, false),
        _ => return Err(error("needs either file= or data=")),
    };
    if !has_header && values.text("sig").is_none() {
        return Err(error("data= needs sig="));
    }
    let mut fields = Vec::new();
    for &(key, at, size, number) in ACPI_FIELDS {
        let bytes = match (values.text(key), values.number(key)) {
            (Some(text), _) if text.len() > size => {
                return Err(error(&format!("{key}: '{text}' has over {size} letters")));
            }
            (Some(text), _) => format!("{text:size$}").into_bytes(),
            (_, Some(value)) if number => value.to_le_bytes().into_iter().take(size).collect(),
            _ => continue,
        };
        fields.push((at, bytes));
    }
    let files = files.split(':').map(PathBuf::from).collect();
    config.firmware.acpi_tables.push(AcpiTable { files, has_header, fields });
    Ok(())
}

const fn field(name: &'static str) -> Key {
    Key { name, kind: Kind::Text("text"), help: "" }
}

/// The type, for a structure whose fields are given.
const TYPE: Key = Key { name: "type", kind: Kind::Number(0, 127), help: "" };
const MEGAHERTZ: Kind = Kind::Number(0, 0xffff);

/// Fields of SMBIOS structures by type.
const SMBIOS: &[(u64, &[Key])] = &[
    (
        0,
        &[
            TYPE,
            field("vendor"),
            field("version"),
            field("date"),
            Key { name: "release", kind: Kind::Text("MAJOR.MINOR"), help: "" },
            Key { name: "uefi", kind: Kind::Word(&["on", "off"]), help: "" },
        ],
    ),
    (
        1,
        &[
            TYPE,
            field("manufacturer"),
            field("product"),
            field("version"),
            field("serial"),
            field("uuid"),
            field("sku"),
            field("family"),
        ],
    ),
    (
        2,
        &[
            TYPE,
            field("manufacturer"),
            field("product"),
            field("version"),
            field("serial"),
            field("asset"),
            field("location"),
        ],
    ),
    (3, &[TYPE, field("manufacturer"), field("version"), field("serial"), field("asset"), field("sku")]),
    (
        4,
        &[
            TYPE,
            field("sock_pfx"),
            field("manufacturer"),
            field("version"),
            field("serial"),
            field("asset"),
            field("part"),
            Key { name: "max-speed", kind: MEGAHERTZ, help: "" },
            Key { name: "current-speed", kind: MEGAHERTZ, help: "" },
            Key { name: "processor-id", kind: Kind::Number(0, u64::MAX), help: "" },
        ],
    ),
    (
        11,
        &[
            TYPE,
            Key { name: "value", kind: Kind::Texts("text"), help: "" },
            Key { name: "path", kind: Kind::NotYet, help: "" },
        ],
    ),
    (
        17,
        &[
            TYPE,
            field("loc_pfx"),
            field("bank"),
            field("manufacturer"),
            field("serial"),
            field("asset"),
            field("part"),
            Key { name: "speed", kind: MEGAHERTZ, help: "" },
        ],
    ),
];

fn smbios(text: &str, config: &mut Config) -> Result<(), CliError> {
    let items = keyval::split("-smbios", text)?;
    let given = |name: &str| items.iter().find(|item| item.key.as_deref() == Some(name)).map(|item| &*item.value);
    if let Some(file) = given("file") {
        keyval::typed("-smbios", &items, &[field("file")])?;
        config.firmware.smbios_files.push(file.into());
        return Ok(());
    }
    let number = given("type").and_then(keyval::number);
    let (number, keys) = SMBIOS.iter().find(|row| Some(row.0) == number).ok_or_else(|| {
        let types: Vec<String> = SMBIOS.iter().map(|row| row.0.to_string()).collect();
        CliError::new("-smbios", format!("needs file=, or type= with one of {}", types.join(", ")))
    })?;
    let values = keyval::typed("-smbios", &items, keys)?;
    if *number == 11 {
        config.firmware.smbios_strings.extend(values.texts("value").map(str::to_owned));
        return Ok(());
    }
    for key in keys.iter().map(|key| key.name).filter(|key| *key != "type") {
        let text = values.text(key).or(values.word(key)).map(str::to_owned);
        let Some(text) = text.or_else(|| Some(values.number(key)?.to_string())) else { continue };
        match key {
            "uuid" => config.uuid = Some(monitors::uuid("-smbios", &text)?),
            "release" if !is_release(&text) => {
                return Err(CliError::new("-smbios", format!("release: '{text}' is not MAJOR.MINOR, both up to 255")));
            }
            _ => config.firmware.smbios_fields.push((*number as u8, key, text)),
        }
    }
    Ok(())
}

fn is_release(text: &str) -> bool {
    text.split_once('.').is_some_and(|(major, minor)| [major, minor].iter().all(|part| part.parse::<u8>().is_ok()))
}
