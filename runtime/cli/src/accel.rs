//! What executes guest code: `-accel`, `-machine accel=`, `-enable-kvm`, `-singlestep`.

use std::path::PathBuf;

use super::families::{Choice, Chosen, Family, Offer, later, yes};
use super::keyval::{Key, Kind, Values};
use super::{CliError, Given, Stop, monitors, utf8};
use mimus_machine::config::{Accel, CompileMode, Config, JitConfig};

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

/// The keys of the translator.
const JIT: &[Key] = &[
    key("tb-size", Kind::Number(1, 4096), "bound on translated code, in MiB"),
    key(
        "quick",
        Kind::Number(0, 1_000_000_000),
        "interpreted executions before a block gets quickly made code; 0: never",
    ),
    key("threshold", Kind::Number(1, 1_000_000_000), "executions before a block is compiled"),
    key("region", Kind::Number(0, 1_000_000_000), "loops before what is around a block is compiled as one; 0: never"),
    key("compile", Kind::Word(&["background", "sync"]), "compile on a thread of its own, or in place"),
    key(
        "cache",
        Kind::Text("DIR|auto"),
        "keep translations in a folder for later runs (auto: in the user's cache folder)",
    ),
    key("cache-size", Kind::Number(1, 1 << 20), "bound on what is kept there, in MiB"),
    key("cpu-limit", Kind::Text("N%"), "share of a host CPU that mimus may take, 1% to 100%"),
    key("one-insn-per-tb", Kind::Word(&["on", "off"]), "translate each instruction on its own"),
    // There is one vCPU.
    key("thread", Kind::Among(&["single", "multi"]), ""),
    // Code is never writable where it is executed.
    key("split-wx", Kind::Accepted, ""),
];

/// The keys of accelerators that need the host's processor. What is translated has none of it.
const HARDWARE: &[Key] = &[
    key("device", Kind::Accepted, ""),
    key("dirty-ring-size", Kind::Accepted, ""),
    key("eager-split-size", Kind::Accepted, ""),
    key("honor-guest-pat", Kind::Accepted, ""),
    key("igd-passthru", Kind::Accepted, ""),
    key("kernel-irqchip", Kind::Accepted, ""),
    key("kvm-shadow-mem", Kind::Accepted, ""),
    key("notify-vmexit", Kind::Accepted, ""),
    key("notify-window", Kind::Accepted, ""),
    key("thread", Kind::Accepted, ""),
    key("tb-size", Kind::Accepted, ""),
    key("xen-version", Kind::Accepted, ""),
];

/// An accelerator that needs the host's processor.
const fn hardware(name: &'static str) -> Choice {
    Choice { name, help: "", offer: Offer::Yes(HARDWARE) }
}

/// Those, and what to call them.
const HARDWARE_NAMES: &[(&str, &str)] = &[
    ("kvm", "KVM"),
    ("hax", "HAX"),
    ("hvf", "HVF"),
    ("mshv", "MSHV"),
    ("nvmm", "NVMM"),
    ("whpx", "WHPX"),
    ("xen", "Xen"),
];

/// `-accel`.
const ACCEL: Family = Family {
    option: "-accel",
    noun: "an accelerator",
    implied: "accel",
    heading: "Accelerators supported by mimus:",
    common: &[
        hardware("kvm"),
        hardware("hax"),
        hardware("hvf"),
        hardware("mshv"),
        hardware("nvmm"),
        hardware("whpx"),
        hardware("xen"),
    ],
    choices: &[
        yes("jit", "interpret what is cold, compile what is hot (default)", JIT),
        yes("tcg", "the same, as QEMU calls it", JIT),
        yes("interp", "interpret only", &[]),
        later("qtest"),
    ],
};

/// Reads what is to execute guest code. Of several accelerators the first that can be had counts, and where none can, the
/// guest is translated.
pub(super) fn parse(given: &Given, machine: &str, of_machine: Option<String>, config: &mut Config) -> Result<(), Stop> {
    let mut wanted: Vec<(&'static str, Values)> = Vec::new();
    for value in given.all("accel") {
        wanted.push(choose(utf8("accel", value)?)?);
    }
    if let Some(names) = of_machine {
        if !wanted.is_empty() {
            return Err(CliError::new("-accel", "cannot be combined with -machine accel=").into());
        }
        for name in names.split(':') {
            wanted.push(choose(name).map_err(|stop| match stop {
                Stop::Error(error) => CliError::new(format!("-machine {machine}: accel"), error.message).into(),
                print => print,
            })?);
        }
    }
    if given.flag("enable-kvm") && wanted.is_empty() {
        wanted.push(("kvm", Values::default()));
    }
    let hardware = |name: &str| HARDWARE_NAMES.iter().find(|(known, _)| *known == name).map(|(_, called)| *called);
    let had = wanted.iter().position(|(name, _)| hardware(name).is_none());
    let tried = wanted.iter().take(had.unwrap_or(wanted.len()));
    let mut missing: Vec<&str> = tried.filter_map(|(name, _)| hardware(name)).collect();
    missing.dedup();
    if !missing.is_empty() {
        config.warnings.push(format!("no {}: translating instead", missing.join(", no ")));
    }
    let (name, values) = had.map(|index| wanted.swap_remove(index)).unwrap_or_default();
    config.accel = if name == "interp" { Accel::Interp } else { Accel::Jit(jit(&values)?) };
    config.one_insn_per_tb = given.flag("singlestep") || values.word("one-insn-per-tb") == Some("on");
    Ok(())
}

fn choose(text: &str) -> Result<(&'static str, Values), Stop> {
    match ACCEL.parse(text, None)? {
        Chosen::Help(text) => Err(Stop::Print(text)),
        Chosen::One(name, values) => Ok((name, values)),
    }
}

fn jit(values: &Values) -> Result<JitConfig, CliError> {
    let number = |key| values.number(key).and_then(|number| u32::try_from(number).ok());
    Ok(JitConfig {
        tb_size_mib: number("tb-size"),
        quick: number("quick"),
        threshold: number("threshold"),
        region: number("region"),
        compile: match values.word("compile") {
            Some("sync") => CompileMode::Sync,
            _ => CompileMode::Background,
        },
        cpu_limit: values.text("cpu-limit").map(monitors::cpu_limit).transpose()?,
        cache: values.text("cache").map(cache_folder).transpose()?,
        cache_size_mib: number("cache-size"),
    })
}

/// The folder that `cache=` names.
fn cache_folder(name: &str) -> Result<PathBuf, CliError> {
    if name.is_empty() {
        return Err(CliError::new("-accel", "cache: no folder is named"));
    }
    if name != "auto" {
        // The process may be elsewhere when the machine ends.
        let absolute = std::path::absolute(name);
        return absolute.map_err(|error| CliError::new("-accel", format!("cache: {name}: {error}")));
    }
    // The XDG Base Directory Specification: a path that is not absolute is to be ignored.
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_user = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let of_user =
        of_user.ok_or_else(|| CliError::new("-accel", "cache=auto: HOME names no folder; name one yourself"))?;
    Ok(of_user.join("mimus"))
}
