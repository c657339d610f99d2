//! `-smp`: how many vCPUs there are, and what they are parts of; `-numa`: which memory is near to which.

use super::keyval::{self, Key, Kind, Values};
use super::objects::Objects;
use super::{Arch, CliError, Given, utf8};
use mimus_machine::config::Config;

const COUNT: Kind = Kind::Number(1, 4096);

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, help: "" }
}

const KEYS: &[Key] = &[
    key("cpus", COUNT),
    key("maxcpus", COUNT),
    key("drawers", Kind::Fixed("1")),
    key("books", Kind::Fixed("1")),
    key("sockets", COUNT),
    key("dies", COUNT),
    key("clusters", Kind::Fixed("1")),
    key("modules", Kind::Fixed("1")),
    key("cores", COUNT),
    key("threads", COUNT),
];

/// Most vCPUs that QEMU's machines have.
fn most(arch: Arch) -> u64 {
    match arch {
        Arch::X86 => 255,
        Arch::Riscv => 512,
    }
}

/// Reads `-smp`. More than one vCPU is a warning.
pub(super) fn parse(given: &Given, arch: Arch, config: &mut Config) -> Result<(), CliError> {
    let Some(texts) = given.merged("smp")? else { return Ok(()) };
    let values = keyval::parse_all("-smp", texts, "cpus", KEYS)?;
    let cpus = count(&values).map_err(|message| CliError::new("-smp", message))?;
    if cpus > most(arch) {
        return Err(CliError::new("-smp", format!("{cpus} vCPUs are more than the {} of this machine", most(arch))));
    }
    if cpus > 1 {
        config.warnings.push(format!("-smp: one vCPU instead of {cpus}: more are not supported yet"));
    }
    Ok(())
}

/// The keys of `-numa node`.
const NODE: &[Key] = &[
    key("nodeid", Kind::Number(0, 127)),
    key("cpus", Kind::Texts("numbers of vCPUs, as in 0-3")),
    key("mem", Kind::MegaBytes),
    key("memdev", Kind::Text("the id of a -object memory-backend-...")),
    key("initiator", Kind::Number(0, 127)),
];

/// Reads every `-numa`. There is one node, of which guests need not be told.
pub(super) fn numa(given: &Given, objects: &Objects, config: &mut Config) -> Result<(), CliError> {
    let (mut nodes, mut others) = (0, false);
    for value in given.all("numa") {
        let text = utf8("numa", value)?;
        let (kind, keys) = text.split_once(',').unwrap_or((text, ""));
        match kind.strip_prefix("type=").unwrap_or(kind) {
            "node" => {
                nodes += 1;
                let values =
                    if keys.is_empty() { Values::default() } else { keyval::parse("-numa", keys, "nodeid", NODE)? };
                if let Some(id) = values.text("memdev") {
                    objects.check("-numa", "memdev", id, "memory-backend-")?;
                    if nodes == 1 {
                        config.memory = objects.memory(id);
                    }
                }
            }
            "dist" | "cpu" | "hmat-lb" | "hmat-cache" => others = true,
            _ => {
                return Err(CliError::new(
                    "-numa",
                    format!("'{kind}' is none of node, dist, cpu, hmat-lb, hmat-cache"),
                ));
            }
        }
    }
    if nodes > 1 || others {
        config.warnings.push("-numa: all memory and the vCPU are in one node".to_owned());
    }
    Ok(())
}

/// How many there are to be at the start, where all that is said fits together. What is left out follows from the rest as in
/// QEMU since 6.2: cores first, then sockets, then threads.
fn count(values: &Values) -> Result<u64, String> {
    let get = |name| values.number(name);
    let known = get("maxcpus").or(get("cpus"));
    let (dies, given_threads) = (get("dies").unwrap_or(1), get("threads"));
    let threads = given_threads.unwrap_or(1);
    let per_core = dies * threads;
    let (sockets, cores, threads) = match (get("sockets"), get("cores"), known) {
        (sockets, cores, None) => (sockets.unwrap_or(1), cores.unwrap_or(1), threads),
        (sockets, None, Some(known)) => {
            let sockets = sockets.unwrap_or(1);
            (sockets, known / (sockets * per_core), threads)
        }
        (None, Some(cores), Some(known)) => (known / (cores * per_core), cores, threads),
        (Some(sockets), Some(cores), Some(known)) => {
            (sockets, cores, given_threads.unwrap_or(known / (sockets * cores * dies)))
        }
    };
    let product = sockets * cores * dies * threads;
    let most = known.unwrap_or(product);
    let cpus = get("cpus").unwrap_or(most);
    if get("maxcpus").is_some_and(|most| cpus > most) {
        return Err(format!("cpus ({cpus}) is more than maxcpus ({most})"));
    }
    if product != most {
        let topology = format!("sockets ({sockets}) * dies ({dies}) * cores ({cores}) * threads ({threads})");
        return Err(format!("{topology} is not maxcpus ({most})"));
    }
    Ok(cpus)
}
