//! `-cpu` of a PC: a model and what is different about it.
//!
//! The guest gets what there is of it. A warning names the features that it was to have and has not.

mod models;

use mimus_frontend::x86::cpuid::Identity;
use mimus_frontend::x86::features::{FEATURES, Feature, FeatureSet};

use super::error::CliError;
use super::families::is_help;
use super::keyval::{self, Item};
use super::suggest::nearest;
use super::{Given, Stop};
use mimus_machine::config::Config;
use mimus_machine::offers::CpuModel;
use models::{MODELS, Model};

const OPTION: &str = "-cpu";

/// Models that are whatever there is, and one that is nothing.
const GENERAL: &[(&str, &str)] = &[
    ("base", "no feature at all, for those that are added"),
    ("host", "every feature that mimus implements"),
    ("max", "every feature that mimus implements (default)"),
];

/// What is true of this CPU whatever it is called, and what guests are slower without: it does not execute speculatively, and
/// its clocks do not stop. A guest sees them unless they are switched off by name.
const KEPT: [&str; 4] = ["arat", "arch-capabilities", "invtsc", "spec-ctrl"];

/// What a property of a CPU that is no feature does.
#[derive(Clone, Copy)]
enum Does {
    /// Nothing, since it makes no difference here.
    Nothing,
    /// Nothing when it is off; on, it is missing.
    Missing,
    /// It is missing.
    Value,
    /// The CPU is called otherwise; nothing if the value cannot be.
    Name(fn(Identity, &str) -> Option<Identity>),
    /// The command line is refused when something is missing.
    Enforce,
}

/// Properties of a CPU that are no features. A name that ends in `*` stands for all that begin so.
const PROPERTIES: &[(&str, Does)] = &[
    ("check", Does::Nothing),
    ("cpuid-0xb", Does::Nothing),
    ("enforce", Does::Enforce),
    ("family", Does::Name(family)),
    ("fill-mtrr-mask", Does::Nothing),
    ("full-cpuid-auto-level", Does::Nothing),
    ("guest-phys-bits*", Does::Nothing),
    ("host-cache-info", Does::Nothing),
    ("host-phys-bits*", Does::Nothing),
    ("hv*", Does::Missing),
    ("kvm", Does::Nothing),
    ("kvm-*", Does::Missing),
    ("kvmclock*", Does::Missing),
    ("l3-cache", Does::Nothing),
    ("legacy-cache", Does::Nothing),
    ("level*", Does::Nothing),
    ("lmce", Does::Missing),
    ("migratable", Does::Nothing),
    ("min-level*", Does::Nothing),
    ("min-xlevel*", Does::Nothing),
    ("model", Does::Name(model_number)),
    ("model-id", Does::Name(model_id)),
    ("phys-bits", Does::Nothing),
    ("pmu", Does::Missing),
    ("start-powered-off", Does::Nothing),
    ("stepping", Does::Name(stepping)),
    ("tcg-cpuid", Does::Nothing),
    ("tsc-frequency", Does::Value),
    ("tsc-freq", Does::Value),
    ("ucode-rev", Does::Nothing),
    ("vendor", Does::Name(vendor)),
    ("vmware-cpuid-freq", Does::Nothing),
    ("vmx-*", Does::Missing),
    ("x-*", Does::Nothing),
    ("xen-*", Does::Missing),
    ("xlevel*", Does::Nothing),
];

fn number(text: &str, most: u64) -> Option<u32> {
    keyval::number(text).filter(|number| *number <= most).map(|number| number as u32)
}

fn family(identity: Identity, text: &str) -> Option<Identity> {
    // What four bits and eight more can tell.
    number(text, 0xf + 0xff).map(|family| identity.with_family(family))
}

fn model_number(identity: Identity, text: &str) -> Option<Identity> {
    number(text, 0xff).map(|model| identity.with_model(model as u8))
}

fn stepping(identity: Identity, text: &str) -> Option<Identity> {
    number(text, 0xf).map(|stepping| identity.with_stepping(stepping as u8))
}

fn vendor(identity: Identity, text: &str) -> Option<Identity> {
    text.as_bytes().try_into().ok().map(|vendor| Identity { vendor, ..identity })
}

fn model_id(identity: Identity, text: &str) -> Option<Identity> {
    (text.len() <= 48).then(|| Identity { brand: Identity::brand(text), ..identity })
}

/// The CPU that is wanted.
struct Wanted {
    identity: Identity,
    features: FeatureSet,
    /// Features that were switched off by name.
    off: FeatureSet,
    /// What cannot be had or left out, by name.
    missing: Vec<String>,
    enforce: bool,
    la57: bool,
}

/// Reads `-cpu`.
pub(super) fn parse(given: &Given, config: &mut Config) -> Result<(), Stop> {
    let Some(text) = given.text("cpu")? else { return Ok(()) };
    let mut items = keyval::split(OPTION, text)?;
    let Item { key: None, value: name } = items.remove(0) else {
        return Err(
            CliError::new(OPTION, format!("'{text}' does not begin with a CPU model (-cpu help lists all)")).into()
        );
    };
    if is_help(&name) {
        return Err(Stop::Print(help()));
    }
    let offered = FeatureSet::offered();
    let features = model(&name, &offered)?;
    let mut wanted = Wanted {
        identity: Identity::default(),
        features,
        off: FeatureSet::default(),
        missing: Vec::new(),
        enforce: false,
        la57: false,
    };
    // Those with a sign count whatever stands behind them, as QEMU has it.
    let signed = |item: &Item| item.key.is_none() && item.value.starts_with(['+', '-']);
    let (last, first): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| signed(item));
    let wrong: Vec<CliError> =
        first.into_iter().chain(last).filter_map(|item| property(&name, item, &mut wanted).err()).collect();
    if let Some(error) = CliError::all(wrong) {
        return Err(error.into());
    }
    config.cpu = name;
    config.cpu_features.la57 = wanted.la57;
    config.cpu_features.identity = wanted.identity;
    config.cpu_features.hidden = kept(&offered.except(&wanted.features), &wanted.off);
    let cannot_hide = wanted.off.common(&offered);
    let cannot_hide = cannot_hide.iter().filter(|feature| !feature.can_be_hidden());
    let lacking = wanted.features.except(&offered);
    let lacking = lacking.iter().filter(|feature| !(feature.name == "la57" && wanted.la57));
    let missing =
        lacking.map(|feature| feature.name.to_owned()).chain(cannot_hide.map(|feature| format!("-{}", feature.name)));
    let missing: Vec<String> = missing.chain(wanted.missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("the guest does without {}", missing.join(" "));
    if wanted.enforce {
        return Err(CliError::new(format!("{OPTION} {}", config.cpu), format!("enforce: {message}")).into());
    }
    config.warnings.push(format!("{OPTION} {}: {message}", config.cpu));
    Ok(())
}

/// The features of a model.
fn model(name: &str, offered: &FeatureSet) -> Result<FeatureSet, CliError> {
    match name {
        "max" | "host" => return Ok(*offered),
        "base" => return Ok(FeatureSet::default()),
        _ => {}
    }
    let Some(model) = Model::named(name) else {
        let names = MODELS.iter().flat_map(|model| model.names.split(' ')).filter(|name| !name.ends_with('*'));
        let mut message = format!("'{name}' is not a CPU model");
        if let Some(near) = nearest(name, GENERAL.iter().map(|(name, _)| *name).chain(names)) {
            message.push_str(&format!("; did you mean '{near}'?"));
        }
        return Err(CliError::new(OPTION, format!("{message} (-cpu help lists all)")));
    };
    Ok(model.features().into_iter().filter_map(Feature::named).fold(FeatureSet::default(), FeatureSet::with))
}

/// What of `hidden` can be, without what a guest sees unless it is switched off by name.
fn kept(hidden: &FeatureSet, off: &FeatureSet) -> FeatureSet {
    let kept = |feature: &Feature| KEPT.contains(&feature.name) && !off.has(feature);
    let hidden = hidden.iter().filter(|feature| feature.can_be_hidden() && !kept(feature));
    hidden.fold(FeatureSet::default(), FeatureSet::with)
}

/// Every model, for monitors.
pub(super) fn models() -> Vec<CpuModel> {
    let offered = FeatureSet::offered();
    let one = |name: &'static str, alias_of| {
        let wanted = model(name, &offered).unwrap_or_default();
        let missing = wanted.except(&offered).iter().map(|feature| feature.name).collect();
        let guest = wanted.common(&offered);
        let features = FEATURES.iter().map(|feature| (feature.name, guest.has(feature))).collect();
        CpuModel { name, alias_of, features, missing }
    };
    let named = MODELS.iter().flat_map(|model| {
        let mut names = model.names.split(' ').filter(|name| !name.ends_with('*'));
        let first = names.next();
        first.into_iter().map(|name| (name, None)).chain(names.map(move |name| (name, first)))
    });
    GENERAL.iter().map(|(name, _)| (*name, None)).chain(named).map(|(name, alias)| one(name, alias)).collect()
}

/// What one item behind the model says.
fn property(model: &str, item: &Item, wanted: &mut Wanted) -> Result<(), CliError> {
    let (name, value) = match (&item.key, item.value.as_str()) {
        (Some(name), value) => (name.as_str(), value),
        (None, word) => match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (name, "on"),
            (_, Some(name)) => (name, "off"),
            _ => (word, "on"),
        },
    };
    let option = || format!("{OPTION} {model}");
    let switch = || match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(CliError::new(option(), format!("{name}: '{value}' is not known here: on or off"))),
    };
    if let Some(feature) = Feature::named(name) {
        let on = switch()?;
        wanted.features = if on { wanted.features.with(feature) } else { wanted.features.without(feature) };
        wanted.off = if on { wanted.off.without(feature) } else { wanted.off.with(feature) };
        if feature.name == "la57" {
            wanted.la57 = on;
        }
        return Ok(());
    }
    let spelling = name.replace('_', "-");
    let is = |known: &str| match known.strip_suffix('*') {
        Some(start) => spelling.starts_with(start),
        None => known == spelling,
    };
    match PROPERTIES.iter().find(|(known, _)| is(known)).map(|(_, does)| *does) {
        Some(Does::Nothing) => {}
        Some(Does::Missing) if matches!(value, "off" | "no" | "false" | "n") => {}
        Some(Does::Missing) => wanted.missing.push(name.to_owned()),
        Some(Does::Value) => wanted.missing.push(format!("{name}={value}")),
        Some(Does::Name(name_it)) => {
            let wrong = || {
                CliError::new(
                    option(),
                    format!("{name}: '{value}' is not one (vendors have 12 characters, names up to 48)"),
                )
            };
            wanted.identity = name_it(wanted.identity, value).ok_or_else(wrong)?;
        }
        Some(Does::Enforce) => wanted.enforce = switch()?,
        None => {
            let mut message = format!("'{name}' is not a feature or property");
            if let Some(near) = nearest(name, FEATURES.iter().map(|feature| feature.name)) {
                message.push_str(&format!("; did you mean '{near}'?"));
            }
            return Err(CliError::new(option(), format!("{message} (-cpu help lists all)")));
        }
    }
    Ok(())
}

/// What `-cpu help` prints, in the form that QEMU has.
fn help() -> String {
    let mut text = String::from("Available CPUs:\n");
    for model in MODELS {
        let mut names = model.names.split(' ').filter(|name| !name.ends_with('*'));
        let Some(first) = names.next() else { continue };
        text.push_str(&format!("x86 {first}\n"));
        for name in names {
            text.push_str(&format!("x86 {name:<20}  (alias of {first})\n"));
        }
    }
    for (name, help) in GENERAL {
        text.push_str(&format!("x86 {name:<20}  {help}\n"));
    }
    text.push_str("\nRecognized CPUID flags:\n");
    let mut names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
    names.sort_unstable();
    super::help::wrap(&mut text, 2, &names.join(" "));
    text
}
