//! The `mimus` command line, which is QEMU's: arguments in; a [`Config`], a text to print or one clear error out.
//!
//! `argv` rewrites QEMU's spelling by the table in `options`, clap collects the options, and this module gives each its
//! meaning. Nothing is silently ignored: what cannot be honoured is an error that names the option.
#![forbid(unsafe_code)]

mod accel;
mod argv;
mod block;
mod catalogue;
mod chardev;
mod cpu;
mod disks;
mod display;
mod error;
mod families;
mod family;
mod firmware;
mod globals;
mod help;
mod isa;
mod json;
mod keyval;
mod loader;
pub mod logging;
mod monitors;
mod net;
mod objects;
mod options;
mod process;
mod readconfig;
mod riscv;
mod settings;
mod share;
mod smp;
mod subjects;
mod suggest;
mod surface;
#[cfg(test)]
mod tests;
mod throttling;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub use error::CliError;
pub use surface::surface;

use mimus_hw::registry::{self, Bus, Host, Kind as RowKind};
use mimus_hw::virt::VIRTIO_SLOTS;
use mimus_machine::offers::Catalogue;

use families::{Chosen, DEVICE, DEVICE_RISCV, Family, MACHINE, MACHINE_RISCV};
use keyval::{Key, Kind, Values};
use mimus_host::config::{Disk, NetBackend, Netdev, UserNet};
use mimus_machine::config::{Backend, CD_ROM_OPTION, CD_ROM_PLACE, Config, Device, LOG_ITEMS, LogItems, MachineKind};
use options::{OPTIONS, Shape, Status};

/// What monitors of a machine may ask for by name: what the command line offers.
pub const OFFERED: Catalogue = Catalogue(&catalogue::Catalogue);

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run this machine.
    Run(Box<Config>),
    /// Print this text, which ends in a newline, to standard output and exit with code 0.
    Print(String),
}

/// The architecture of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arch {
    X86,
    Riscv,
}

/// Names of architectures, as `-arch` and programs' names have them.
const ARCHES: &[(&str, Arch)] = &[("x86_64", Arch::X86), ("i386", Arch::X86), ("riscv64", Arch::Riscv)];

/// What a program's name ends in the name of an architecture after.
const PROGRAMS: &[&str] = &["mimus-system-", "qemu-system-"];

impl Arch {
    fn named(option: &str, name: &str) -> Result<Arch, CliError> {
        ARCHES.iter().find(|(known, _)| *known == name).map(|(_, arch)| *arch).ok_or_else(|| {
            let names: Vec<&str> = ARCHES.iter().map(|(name, _)| *name).collect();
            CliError::new(
                option,
                format!("'{name}' is not an architecture that mimus has (supported: {})", names.join(", ")),
            )
        })
    }

    /// The families of values of `-machine` and `-device`, and the machine that is the default.
    fn families(self) -> (&'static Family, &'static Family, &'static str) {
        match self {
            Arch::X86 => (&MACHINE, &DEVICE, "pc"),
            Arch::Riscv => (&MACHINE_RISCV, &DEVICE_RISCV, "virt"),
        }
    }
}

/// Parses all arguments, of which the first is the program's name. Looks at no file.
pub fn parse_program(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let mut args = args.into_iter();
    let program = args.next().map(PathBuf::from).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let arch = match PROGRAMS.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        Some(arch) => Arch::named(&name, arch)?,
        None => Arch::X86,
    };
    parse_for(arch, args)
}

/// Parses the arguments after the program's name. Looks at no file.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    parse_for(Arch::X86, args)
}

/// Parses arguments for a guest of `arch` unless they name another.
fn parse_for(arch: Arch, args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let argv::Normalised { mut words, mut refused } = argv::normalise(args);
    refused.extend(process::fd_sets(&mut words).err());
    let matches = command()
        .try_get_matches_from(words)
        .map_err(|error| CliError::new("command line", error.kind().to_string()))?;
    let given = Given { matches };
    if given.flag("help") {
        return Ok(Invocation::Print(help::help()));
    }
    if given.flag("version") {
        return Ok(Invocation::Print(help::version()));
    }
    if given.flag("V") {
        return Ok(Invocation::Print(format!("mimus {}\n", env!("CARGO_PKG_VERSION"))));
    }
    match config(arch, &given, Refused(refused)) {
        Ok(config) => Ok(Invocation::Run(Box::new(config))),
        Err(Stop::Print(text)) => Ok(Invocation::Print(text)),
        Err(Stop::Error(error)) => Err(error),
    }
}

/// Why no machine is to be run.
enum Stop {
    Print(String),
    Error(CliError),
}

/// What is refused, to be told all at once.
struct Refused(Vec<CliError>);

impl Refused {
    /// Notes why there is no value. A request for a list ends the parsing.
    fn note<T>(&mut self, result: Result<T, impl Into<Stop>>) -> Result<Option<T>, Stop> {
        match result.map_err(Into::into) {
            Ok(value) => Ok(Some(value)),
            Err(Stop::Error(error)) => {
                self.0.push(error);
                Ok(None)
            }
            Err(print) => Err(print),
        }
    }

    /// Has `parse` look at each value of an option.
    fn each(&mut self, given: &Given, name: &str, mut parse: impl FnMut(&str) -> Result<(), Stop>) -> Result<(), Stop> {
        for value in given.all(name) {
            self.note(utf8(name, value).map_err(Stop::from).and_then(&mut parse))?;
        }
        Ok(())
    }
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        Stop::Error(error)
    }
}

/// The clap command that reads normalised arguments.
fn command() -> Command {
    let offered = OPTIONS.iter().filter(|option| matches!(option.status, Status::Offered(..)));
    let args = offered.map(|option| {
        let arg = Arg::new(option.name).long(option.name);
        match option.shape {
            Shape::Flag => arg.action(ArgAction::Count),
            Shape::Value(_) | Shape::FreeText(_) => {
                arg.action(ArgAction::Append).value_parser(value_parser!(OsString)).require_equals(true)
            }
        }
    });
    Command::new("mimus").no_binary_name(true).disable_help_flag(true).disable_version_flag(true).args(args)
}

/// The options that were given.
struct Given {
    matches: ArgMatches,
}

impl Given {
    fn flag(&self, name: &str) -> bool {
        self.matches.get_count(name) > 0
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &OsStr> {
        self.matches.get_many::<OsString>(name).into_iter().flatten().map(OsString::as_os_str)
    }

    /// The value of an option of which the last one counts.
    fn one(&self, name: &str) -> Option<&OsStr> {
        self.all(name).last()
    }

    /// All values of an option that count as one, if there are any.
    fn merged(&self, name: &str) -> Result<Option<Vec<&str>>, CliError> {
        let values: Vec<&str> = self.all(name).map(|value| utf8(name, value)).collect::<Result<_, _>>()?;
        Ok((!values.is_empty()).then_some(values))
    }

    /// The value of an option whose syntax is text.
    fn text(&self, name: &str) -> Result<Option<&str>, CliError> {
        self.one(name).map(|value| utf8(name, value)).transpose()
    }

    /// A file name.
    fn path(&self, name: &str) -> Result<Option<PathBuf>, CliError> {
        match self.one(name) {
            Some(value) if value.is_empty() => Err(CliError::new(format!("-{name}"), "the file name is empty")),
            value => Ok(value.map(PathBuf::from)),
        }
    }
}

fn utf8<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, CliError> {
    value
        .to_str()
        .ok_or_else(|| CliError::new(format!("-{name}"), format!("'{}' is not valid UTF-8", value.to_string_lossy())))
}

fn config(arch: Arch, given: &Given, mut refused: Refused) -> Result<Config, Stop> {
    let named = given.text("arch").and_then(|name| name.map(|name| Arch::named("-arch", name)).transpose());
    let arch = refused.note(named)?.flatten().unwrap_or(arch);
    let mut config = Config {
        nographic: given.flag("nographic"),
        no_reboot: given.flag("no-reboot"),
        catalogue: OFFERED,
        ..Config::default()
    };
    config.settings.no_shutdown = given.flag("no-shutdown");
    let objects = objects::Objects::parse(given, &mut refused, &mut config)?;
    refused.note(board(given, arch, &objects, &mut config))?;
    refused.note(cpu(given, arch, &mut config))?;
    refused.note(smp::parse(given, arch, &mut config))?;
    refused.note(smp::numa(given, &objects, &mut config))?;
    refused.note(ram_size(given, &mut config))?;
    devices(given, arch, &objects, &mut refused, &mut config)?;
    settings::parse(given, &mut refused, &mut config)?;
    refused.note(firmware::boot(given, arch, &mut config))?;
    refused.note(riscv::parse(given, arch, &mut config))?;
    config.warnings.extend(display::hint(given, &config));
    refused.each(given, "d", |text| log_items(text, &mut config))?;
    config.log_file = refused.note(given.path("D"))?.flatten();
    config.stats = refused.note(given.path("stats"))?.flatten();
    config.perf_map = given.flag("perfmap");
    CliError::all(refused.0).map_or(Ok(config), |error| Err(error.into()))
}

/// The board and what executes its code.
fn board(given: &Given, arch: Arch, objects: &objects::Objects, config: &mut Config) -> Result<(), Stop> {
    let (machines, _, default_machine) = arch.families();
    config.machine = match arch {
        Arch::X86 => MachineKind::Pc,
        Arch::Riscv => MachineKind::Virt,
    };
    config.hpet = given.flag("no-hpet").then_some(false);
    if arch == Arch::Riscv && config.hpet.is_some() {
        return Err(CliError::new("-no-hpet", "this machine never has an event timer").into());
    }
    let of_machine = machine(given, machines, default_machine, objects, config)?;
    accel::parse(given, default_machine, of_machine, config)
}

fn cpu(given: &Given, arch: Arch, config: &mut Config) -> Result<(), Stop> {
    if arch == Arch::X86 {
        return cpu::parse(given, config);
    }
    riscv::cpu::parse(given, config)
}

/// All devices, and what of the host is behind them.
fn devices(
    given: &Given,
    arch: Arch,
    objects: &objects::Objects,
    refused: &mut Refused,
    config: &mut Config,
) -> Result<(), Stop> {
    let globals = globals::Globals::parse(given, refused)?;
    config.devices.clear();
    let mut disks = drives(given, arch, objects, &globals, refused, config)?;
    let mut chardevs = chardev::Chardevs::parse(given, refused)?;
    let mut networks = networks(given, &mut chardevs, refused)?;
    refused.note(networks.record(objects.captures()))?;
    let folders = share::Folders::parse(given, arch, &globals, refused, config)?;
    refused.note(adapters(arch, &mut networks, &globals, config))?;
    let (_, family, _) = arch.families();
    refused.each(given, "device", |text| {
        let (disks, networks, chardevs) = (&mut disks, &mut networks, &mut chardevs);
        let mut hosts = Hosts { disks, networks, chardevs, folders: &folders, objects, globals: &globals };
        device(text, arch, family, &mut hosts, config)
    })?;
    refused.note(globals.board(config))?;
    for disk in disks.undecided() {
        refused.note(check_slots("-drive", arch, config))?;
        refused.note(plug_disk(disk, &globals, config))?;
    }
    config.warnings.extend(disks.warnings());
    let has_usual = arch == Arch::X86 && !given.flag("nodefaults");
    refused.note(connect_drives(disks.on_ide(), has_usual, &globals, config))?;
    config.warnings.extend(networks.warnings());
    refused.note(check_ids(config))?;
    // A PC has an adapter unless something is said of networks, as QEMU's has.
    if has_usual && networks.silent() {
        refused.note(usual_adapter(&globals, config))?;
    }
    refused.note(display::parse(given, arch, &globals, config))?;
    refused.note(riscv::semihosting(given, arch, &mut chardevs, config))?;
    refused.note(isa::ports(given, arch, &globals, &mut chardevs, config))?;
    refused.note(place(&mut config.devices))?;
    refused.note(monitors::monitors(given, given.one("serial").is_some(), &mut chardevs, config))?;
    refused.note(monitors::identity(given, config))?;
    refused.note(process::parse(given, config))?;
    globals.warn(config);
    Ok(())
}

/// What is said of disks.
fn drives(
    given: &Given,
    arch: Arch,
    objects: &objects::Objects,
    globals: &globals::Globals,
    refused: &mut Refused,
    config: &mut Config,
) -> Result<disks::Disks, Stop> {
    let default = match arch {
        Arch::X86 => disks::Interface::Ide,
        Arch::Riscv => disks::Interface::Virtio,
    };
    let mut disks = disks::Disks::new(default, given.flag("snapshot"), objects.throttle_groups());
    // Those with a place come first, and leave the others the rest.
    for (name, index) in [("hda", 0), ("hdb", 1), ("hdc", 2), ("hdd", 3), ("cdrom", 2)] {
        for file in given.all(name) {
            refused.note(disks.at_place(&format!("-{name}"), file, index, globals))?;
        }
    }
    refused.each(given, "blockdev", |text| disks.blockdev(text))?;
    refused.each(given, "drive", |text| {
        let Some(disk) = disks.drive(text, globals)? else { return Ok(()) };
        check_slots("-drive", arch, config)?;
        Ok(plug_disk(disk, globals, config)?)
    })?;
    Ok(disks)
}

/// Parses a choice by name; a request for a list ends the parsing.
fn choose(family: &Family, text: &str, default: Option<&'static str>) -> Result<(&'static str, Values), Stop> {
    chosen(family.parse(text, default)?)
}

/// What was chosen, unless a list was asked for.
fn chosen(what: Chosen) -> Result<(&'static str, Values), Stop> {
    match what {
        Chosen::Help(text) => Err(Stop::Print(text)),
        Chosen::One(name, values) => Ok((name, values)),
    }
}

/// Takes over every `-machine`; each architecture has one. Returns the accelerators that they name.
fn machine(
    given: &Given,
    family: &Family,
    name: &'static str,
    objects: &objects::Objects,
    config: &mut Config,
) -> Result<Option<String>, Stop> {
    let (mut accel, mut name) = (None, name);
    for items in family.merged(given.merged("machine")?.unwrap_or_default())? {
        let named = family.named(&items).is_some();
        let (chosen, values) = chosen(family.parse_items(items, Some(name))?)?;
        // One that only has keys leaves the choice of another as it is.
        if named {
            config.settings.no_machine = chosen == "none";
        }
        if chosen != "none" {
            name = chosen;
        }
        config.warnings.extend(values.warnings(&format!("-machine {chosen}")));
        riscv::machine(chosen, &values, config);
        if let Some(id) = values.text("memory-backend") {
            let size = objects.check("-machine", "memory-backend", id, "memory-backend-")?;
            config.ram_size = size.unwrap_or(config.ram_size);
            config.memory = objects.memory(id);
        }
        if let Some(word) = values.word("hpet") {
            config.hpet = Some(word == "on");
        }
        if let Some(word) = values.word("dump-guest-core") {
            config.process.dump_guest_ram = word == "on";
        }
        firmware::machine(&values, config)?;
        accel = values.text("accel").map(str::to_owned).or(accel);
    }
    Ok(accel)
}

/// Reads `-m`.
fn ram_size(given: &Given, config: &mut Config) -> Result<(), CliError> {
    const KEYS: &[Key] = &[
        Key { name: "size", kind: Kind::MegaBytes, help: "" },
        Key { name: "slots", kind: Kind::Number(0, 256), help: "" },
        Key { name: "maxmem", kind: Kind::MegaBytes, help: "" },
    ];
    let Some(texts) = given.merged("m")? else { return Ok(()) };
    let text = texts.join(",");
    let values = keyval::parse_all("-m", texts, "size", KEYS)?;
    if values.number("slots").or(values.number("maxmem")).is_some() {
        config.warnings.push("-m: slots, maxmem: no memory can be added to the machine".to_owned());
    }
    let Some(size) = values.number("size") else { return Ok(()) };
    if !(1 << 20..=1 << 40).contains(&size) {
        return Err(CliError::new("-m", format!("'{text}' is out of range: 1M to 1T")));
    }
    // As QEMU does.
    config.ram_size = size.next_multiple_of(8192);
    Ok(())
}

/// What is said of networks.
fn networks(given: &Given, chardevs: &mut chardev::Chardevs, refused: &mut Refused) -> Result<net::Networks, Stop> {
    let mut networks = net::Networks::default();
    refused.each(given, "netdev", |text| networks.netdev(text, chardevs))?;
    refused.each(given, "nic", |text| networks.nic(text, chardevs))?;
    refused.each(given, "net", |text| networks.net(text, chardevs))?;
    Ok(networks)
}

/// Plugs in a disk that is a virtio device without a `-device`.
fn plug_disk(disk: Disk, globals: &globals::Globals, config: &mut Config) -> Result<(), CliError> {
    let device = globals.device(registry::VIRTIO_BLK.on(config.machine.board()), "-drive")?;
    config.devices.push(device.behind(Backend::Disk(Box::new(disk))));
    Ok(())
}

/// Gives an adapter its hardware address: this one, or the one that is said of all of its kind, or the next in the usual order.
fn address(device: Device, own: Option<&str>, config: &Config) -> Result<Device, CliError> {
    let of_all = device.values.text("mac");
    let mac = net::mac(&device.option, own.or(of_all.as_deref()), config.adapters().count())?;
    Ok(device.called(mac))
}

/// Plugs in the adapter that a PC has of itself.
fn usual_adapter(globals: &globals::Globals, config: &mut Config) -> Result<(), CliError> {
    let netdev = Netdev::of(NetBackend::User(UserNet::default()));
    let device = address(globals.device(registry::E1000, "-nic")?, None, config)?;
    config.devices.insert(0, device.behind(Backend::Network(Some(Box::new(netdev)))));
    Ok(())
}

/// Plugs in the network adapters that have no `-device`.
fn adapters(
    arch: Arch,
    networks: &mut net::Networks,
    globals: &globals::Globals,
    config: &mut Config,
) -> Result<(), CliError> {
    for wanted in networks.adapters() {
        let model = wanted.row(config.machine.board())?;
        if model.bus == Bus::Slot {
            check_slots(&wanted.option, arch, config)?;
        }
        let device = address(globals.device(model, &wanted.option)?, wanted.mac.as_deref(), config)?;
        let backend = Backend::Network(wanted.netdev.map(Box::new));
        config.devices.push(Device { plug: wanted.plug, backend, ..device });
    }
    Ok(())
}

/// Takes over what is on the IDE controller, and with `usual` the empty CD-ROM drive that a PC has unless something is there.
fn connect_drives(
    mut drives: Vec<Device>,
    usual: bool,
    globals: &globals::Globals,
    config: &mut Config,
) -> Result<(), CliError> {
    place(&mut drives)?;
    if usual && drives.iter().all(|drive| registry::drive_place(&drive.values) != Some(CD_ROM_PLACE)) {
        drives.push(globals.device(registry::IDE_CD, CD_ROM_OPTION)?.on_cable(CD_ROM_PLACE));
    }
    config.devices.splice(0..0, drives);
    Ok(())
}

/// Gives each device the place that was left to the board; those that have one keep it.
fn place(devices: &mut [Device]) -> Result<(), CliError> {
    let mut placed: Vec<registry::Values> = Vec::new();
    for Device { model, option, values, .. } in devices {
        let others: Vec<&registry::Values> = placed.iter().filter(|other| other.model().bus == model.bus).collect();
        (model.place)(values, &others).map_err(|wrong| CliError::new(&*option, wrong))?;
        placed.push(values.clone());
    }
    Ok(())
}

/// Checks that no two devices have the same id.
fn check_ids(config: &Config) -> Result<(), CliError> {
    let mut ids: Vec<&str> = config.devices.iter().map(|device| &*device.plug.id).filter(|id| !id.is_empty()).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[&str]>::first) {
        Some(id) => Err(CliError::new("-device", format!("the id '{id}' is given twice"))),
        None => Ok(()),
    }
}

/// Checks that there is room for another virtio device.
fn check_slots(option: &str, arch: Arch, config: &Config) -> Result<(), CliError> {
    if config.machine == MachineKind::Spike {
        return Err(CliError::new(option, "the machine spike has no place for devices: use -machine virt"));
    }
    if arch == Arch::Riscv && config.devices.len() == VIRTIO_SLOTS {
        return Err(CliError::new(option, format!("there are no more than {VIRTIO_SLOTS} slots")));
    }
    Ok(())
}

/// What of the host's side devices refer to.
struct Hosts<'a> {
    disks: &'a mut disks::Disks,
    networks: &'a mut net::Networks,
    chardevs: &'a mut chardev::Chardevs,
    folders: &'a share::Folders,
    objects: &'a objects::Objects,
    globals: &'a globals::Globals,
}

fn device(text: &str, arch: Arch, family: &Family, hosts: &mut Hosts, config: &mut Config) -> Result<(), Stop> {
    let Hosts { chardevs, objects, globals, .. } = hosts;
    let items = keyval::split("-device", text)?;
    let (name, values) = match family.parse_with(items, None, |model| globals.items(model))? {
        Chosen::Help(text) => return Err(Stop::Print(text)),
        Chosen::One(name, values) => (name, values),
    };
    let option = format!("-device {name}");
    if let Some(what) = values.left_out() {
        config.warnings.push(format!("{option}: it is left out: {what}"));
        return Ok(());
    }
    config.warnings.extend(values.warnings(&option));
    if let Some(id) = values.text("iothread") {
        objects.check(&option, "iothread", id, "iothread")?;
    }
    let Some(model) = registry::model(name) else {
        // The one choice that is no device.
        config.pieces.push(loader::loader(&option, &values)?);
        return Ok(());
    };
    if model.bus == Bus::Ports {
        return Ok(chardev::port(model, &option, &values, chardevs, config)?);
    }
    if model.bus == Bus::Slot {
        check_slots(&option, arch, config)?;
    }
    if let Some(why) = model.only_one
        && config.devices_of(model).next().is_some()
    {
        return Err(CliError::new(option, why).into());
    }
    let plug = disks::plug(&option, &values)?;
    let device = Device { plug, values: values.of(model), ..Device::new(model, option) };
    (model.check)(&device.values).map_err(|wrong| CliError::new(&*device.option, wrong))?;
    if model.bus == Bus::Ide {
        return Ok(hosts.disks.ide_device(device, &values)?);
    }
    let backend = backend(&device, &values, hosts)?;
    let device = if model.is_adapter() { address(device, None, config)? } else { device };
    config.devices.push(device.behind(backend));
    Ok(())
}

/// What of the host's is behind a device, by the property of its row that refers to it.
fn backend(device: &Device, values: &Values, hosts: &mut Hosts) -> Result<Backend, CliError> {
    let Hosts { disks, networks, chardevs, folders, objects, .. } = hosts;
    let Device { model, option, .. } = device;
    let Some((name, RowKind::Id(host))) = model.host().map(|property| (property.name, property.kind)) else {
        let is_controller = registry::VIRTIO_SERIAL.has(model);
        return Ok(if is_controller { Backend::Ports(Vec::new()) } else { Backend::Nothing });
    };
    Ok(match host {
        Host::Chardev | Host::Output => {
            let id = values.text(name).ok_or_else(|| CliError::new(&**option, format!("needs {name}=ID")))?;
            Backend::Chardev(chardevs.take(option, id)?)
        }
        Host::Netdev => Backend::Network(networks.device(option, values)?.map(Box::new)),
        Host::Drive => Backend::Disk(Box::new(disks.device(option, values)?)),
        Host::Folder => Backend::Folder(folders.device(option, values)?),
        Host::Random | Host::Thread => {
            if let Some(id) = values.text(name) {
                objects.check(option, name, id, "rng-")?;
            }
            Backend::Nothing
        }
    })
}

/// Log items of QEMU that mimus does not have; a name that ends in `:` begins a value.
const LOG_ITEMS_NOT_YET: &[&str] = &[
    "op_ind",
    "op_plugin",
    "cpu",
    "fpu",
    "vpu",
    "pcall",
    "page",
    "plugin",
    "strace",
    "tid",
    "trace:",
    "none",
    "invalid_mem",
];

fn log_items(text: &str, config: &mut Config) -> Result<(), Stop> {
    let mut missing = Vec::new();
    for word in text.split(',') {
        if families::is_help(word) {
            return Err(Stop::Print(help::log_items()));
        }
        if word == "all" {
            config.log |= LogItems::all() - LogItems::NOCHAIN;
            continue;
        }
        let later = |known: &&str| *known == word || known.ends_with(':') && word.starts_with(*known);
        match LOG_ITEMS.iter().find(|(_, name, _)| *name == word) {
            Some((item, _, _)) => config.log |= *item,
            None if LOG_ITEMS_NOT_YET.iter().any(later) => missing.push(word),
            None => return Err(CliError::new("-d", unknown_log_item(word)).into()),
        }
    }
    if !missing.is_empty() {
        config.warnings.push(format!("-d: nothing is logged of {}", missing.join(" ")));
    }
    Ok(())
}

fn unknown_log_item(word: &str) -> String {
    let names = || LOG_ITEMS.iter().map(|(_, name, _)| *name);
    let items = format!("(items: {})", names().collect::<Vec<_>>().join(", "));
    match suggest::nearest(word, names()) {
        Some(near) => format!("'{word}' is not a log item; did you mean '{near}'? {items}"),
        None => format!("'{word}' is not a log item {items}"),
    }
}
