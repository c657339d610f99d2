//! `-object`: what devices and other options refer to by id.

use super::error::CliError;
use super::families::{Chosen, Family, lacks, later, yes};
use super::keyval::{Key, Kind, Values, accepted, fixed, key, without};
use super::{Given, Refused, Stop, subjects, throttling};
use mimus_host::config::{Capture, Limits};
use mimus_machine::config::{Config, GuestMemory, RamFile, UserObject};

const ID: Key = key("id", Kind::Text("a name"), "what others call it");
const ON_OFF: Kind = Kind::Word(&["on", "off"]);

/// Where the random numbers of a device come from: the host, whatever its file for them is called.
const RANDOM_FILES: &[&str] = &["/dev/random", "/dev/urandom", "/dev/hwrng"];

/// The keys of memory. Where it lies, and how it is kept, is the host's business.
const MEMORY: &[Key] = &[
    ID,
    key("size", Kind::Bytes, "its size"),
    key("mem-path", Kind::Text("a file name"), "the file; in a folder one without a name is made"),
    key("prealloc", ON_OFF, "on: all of it is allocated before the guest starts"),
    key("share", ON_OFF, "on: what the guest writes is seen in the file"),
    fixed("readonly", "off"),
    accepted("align"),
    accepted("discard-data"),
    accepted("dump"),
    accepted("host-nodes"),
    accepted("hugetlb"),
    accepted("hugetlbsize"),
    accepted("merge"),
    accepted("policy"),
    accepted("prealloc-context"),
    accepted("prealloc-threads"),
    accepted("reserve"),
    accepted("seal"),
    accepted("x-use-canonical-path-for-ramblock-id"),
];

/// Bytes of a packet that are recorded if nobody says.
const CAPTURED: u64 = 65_536;

/// The keys of a record of packets.
const FILTER_DUMP: &[Key] = &[
    ID,
    key("netdev", Kind::Text("the id of a -netdev"), "the network"),
    key("file", Kind::Text("a file name"), "the record"),
    key("maxlen", Kind::Number(0, u32::MAX as u64), "the most bytes of a packet, default 65536"),
    without("queue", "packets of both ways are recorded"),
    fixed("status", "on"),
    accepted("insert"),
    accepted("position"),
];

/// The keys of a secret, which nothing here asks for.
const SECRET: &[Key] = &[ID, accepted("data"), accepted("file"), accepted("format"), accepted("keyid"), accepted("iv")];

/// The keys of a thread for disks, which have one each.
const IO_THREAD: &[Key] = &[
    ID,
    accepted("poll-max-ns"),
    accepted("poll-grow"),
    accepted("poll-shrink"),
    accepted("aio-max-batch"),
    accepted("thread-pool-min"),
    accepted("thread-pool-max"),
];

/// The keys of a group of disks that share their limits.
const THROTTLE_GROUP: &[Key] = &{
    let [now, before] = throttling::OBJECT;
    let mut keys = [ID; 1 + 2 * 19];
    let mut index = 0;
    while index < 19 {
        (keys[1 + index], keys[20 + index]) = (now[index], before[index]);
        index += 1;
    }
    keys
};

/// `-object`.
pub(super) const OBJECT: Family = Family {
    option: "-object",
    noun: "an object",
    implied: "qom-type",
    heading: "List of user creatable objects:",
    common: &[
        lacks("tls-*", &subjects::TLS),
        lacks("sev-*", &subjects::CONFIDENTIAL),
        lacks("tdx-*", &subjects::CONFIDENTIAL),
        lacks("memory-backend-epc", &subjects::CONFIDENTIAL),
        later("authz-*"),
        later("can-*"),
        later("colo-compare"),
        later("cryptodev-*"),
        later("dbus-vmstate"),
        later("filter-*"),
        later("input-*"),
        later("main-loop"),
        later("pr-manager-helper"),
        later("qtest"),
        later("rng-egd"),
        later("secret_keyring"),
        later("x-*"),
    ],
    choices: &[
        yes("rng-random", "random numbers of the host's", &[ID, key("filename", Kind::Word(RANDOM_FILES), "its file")]),
        yes("rng-builtin", "random numbers", &[ID]),
        yes("memory-backend-ram", "the guest's RAM", MEMORY),
        yes("memory-backend-file", "the guest's RAM, in a file", MEMORY),
        yes("memory-backend-memfd", "the guest's RAM", MEMORY),
        yes("secret", "a password; nothing asks for one", SECRET),
        yes("throttle-group", "limits that disks share", THROTTLE_GROUP),
        yes("iothread", "a thread; each disk has one", IO_THREAD),
        yes("filter-dump", "a record of what passes a network, for tcpdump and wireshark", FILTER_DUMP),
    ],
};

/// Those of `-object`.
#[derive(Debug, Default)]
pub(super) struct Objects {
    objects: Vec<Object>,
    /// Records, and the networks that they are of.
    captures: Vec<(String, Capture)>,
}

#[derive(Debug)]
struct Object {
    kind: &'static str,
    id: String,
    /// Of memory, in bytes.
    size: Option<u64>,
    memory: GuestMemory,
    /// Of a group of disks.
    limits: Limits,
}

impl Objects {
    /// Reads every `-object`.
    pub(super) fn parse(given: &Given, refused: &mut Refused, config: &mut Config) -> Result<Objects, Stop> {
        let mut all = Objects::default();
        refused.each(given, "object", |text| all.add(text, config))?;
        Ok(all)
    }

    fn add(&mut self, text: &str, config: &mut Config) -> Result<(), Stop> {
        let (kind, values) = match OBJECT.parse(text, None)? {
            Chosen::Help(text) => return Err(Stop::Print(text)),
            Chosen::One(kind, values) => (kind, values),
        };
        let option = format!("-object {kind}");
        let id = values.text("id").ok_or_else(|| CliError::new(&option, "needs id=ID"))?.to_owned();
        if self.objects.iter().any(|object| object.id == id) {
            return Err(CliError::new(&option, format!("the id '{id}' is given twice")).into());
        }
        config.warnings.extend(values.warnings(&option));
        let memory = if kind.starts_with("memory-") { memory(&option, &values)? } else { GuestMemory::default() };
        if kind == "filter-dump" {
            self.captures.push(capture(&option, &values)?);
        }
        config.settings.objects.push(UserObject { id: id.clone(), kind });
        let limits = match kind {
            "throttle-group" => throttling::of_object(&option, &values, &id)?,
            _ => Limits::default(),
        };
        self.objects.push(Object { kind, id, size: values.number("size"), memory, limits });
        Ok(())
    }

    /// How the memory `id` is kept.
    pub(super) fn memory(&self, id: &str) -> GuestMemory {
        self.objects.iter().find(|object| object.id == id).map(|object| object.memory.clone()).unwrap_or_default()
    }

    /// Records, and the networks that they are of.
    pub(super) fn captures(&self) -> &[(String, Capture)] {
        &self.captures
    }

    /// The limits of every group of disks, which have its id.
    pub(super) fn throttle_groups(&self) -> Vec<Limits> {
        self.objects
            .iter()
            .filter(|object| object.kind == "throttle-group")
            .map(|object| object.limits.clone())
            .collect()
    }

    /// Checks that `id`, which `key` of `option` names, is an object whose kind begins so. The size of memory.
    pub(super) fn check(&self, option: &str, key: &str, id: &str, kind: &str) -> Result<Option<u64>, CliError> {
        let found = self.objects.iter().find(|object| object.id == id && object.kind.starts_with(kind));
        let missing =
            || CliError::new(option, format!("{key}: there is no -object {kind}... with id={id}")).following("-object");
        found.map(|object| object.size).ok_or_else(missing)
    }
}

/// An object that a monitor describes, in JSON as `-object` has it.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn described(text: &str) -> Result<UserObject, CliError> {
    match OBJECT.parse(text, None)? {
        Chosen::Help(_) => Err(CliError::new("object-add", "'help' is not an object")),
        Chosen::One(kind @ "filter-dump", _) => Err(CliError::new(
            "object-add",
            format!("{kind}: networks are recorded from the start: name it on the command line"),
        )),
        Chosen::One(kind, values) => Ok(UserObject { id: values.text("id").unwrap_or_default().to_owned(), kind }),
    }
}

/// How memory is kept.
fn memory(option: &str, values: &Values) -> Result<GuestMemory, CliError> {
    if values.number("size").is_none() {
        return Err(CliError::new(option, "needs size=SIZE"));
    }
    let (file, on) = (values.text("mem-path"), |key: &str| values.word(key) == Some("on"));
    let file = file.map(|path| RamFile { option: option.to_owned(), path: path.into(), shared: on("share") });
    if file.is_none() && option.ends_with("-file") {
        return Err(CliError::new(option, "needs mem-path=PATH"));
    }
    Ok(GuestMemory { file, allocated: on("prealloc") })
}

/// A record of what passes a network.
fn capture(option: &str, values: &Values) -> Result<(String, Capture), CliError> {
    let text = |key: &str, what: &str| {
        values.text(key).map(str::to_owned).ok_or_else(|| CliError::new(option, format!("needs {key}={what}")))
    };
    let limit = values.number("maxlen").unwrap_or(CAPTURED);
    Ok((text("netdev", "ID")?, Capture { file: text("file", "FILE")?.into(), limit: limit as u32 }))
}
