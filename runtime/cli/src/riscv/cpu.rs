//! `-cpu` of RISC-V machines: a model and what is different about it.
//!
//! The guest's hart is what mimus has. A warning names what it was to have and has not, and what it has and was not to have.

use mimus_frontend::riscv::isa::EXTENSIONS;

use crate::error::CliError;
use crate::families::is_help;
use crate::keyval::{self, Item};
use crate::suggest::nearest;
use crate::{Given, Stop};
use mimus_machine::config::Config;

const OPTION: &str = "-cpu";

/// Models, and what they have of extensions that not every hart here has.
const MODELS: &[(&str, &str)] = &[
    ("any", ""),
    ("base", ""),
    ("host", ""),
    ("max", ""),
    ("rv64", ""),
    ("rv64i", ""),
    ("rva22s64", "svpbmt zicbop zkt"),
    ("rva22u64", "zicbop zkt"),
    ("rva23s64", "h svnapot svpbmt v zawrs zcmop zfa zicbop zihintntl zimop zkt zvbb zvfhmin zvkt"),
    ("rva23u64", "v zawrs zcmop zfa zicbop zihintntl zimop zkt zvbb zvfhmin zvkt"),
    ("shakti-c", ""),
    ("sifive-e51", ""),
    ("sifive-u54", ""),
    (
        "thead-c906",
        "xtheadba xtheadbb xtheadbs xtheadcmo xtheadcondmov xtheadfmemidx xtheadmac xtheadmemidx xtheadmempair xtheadsync",
    ),
    ("tt-ascalon", "h smaia ssaia sscofpmf svnapot svpbmt v zfa zicbop zvbb zvfh"),
    ("veyron-v1", "h smaia smstateen ssaia sscofpmf svnapot svpbmt xventanacondops zicbop"),
    ("xiangshan-nanhu", "svpbmt zbkc zknd zkne zknh zksed zksh zkt"),
];

/// The names of the models, for monitors.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// Models of other harts than those of 64 bits.
const OTHERS: [&str; 6] = ["ibex", "rv32", "rv64e", "sifive-e", "sifive-u34", "x-rv128"];

/// Names for what [`EXTENSIONS`] has under others.
const ALSO: [&str; 12] = ["b", "counters", "g", "mmu", "pmp", "s", "sv39", "sv48", "sv57", "u", "zaamo", "zalrsc"];

/// Extensions that are not there.
const MISSING: &str = "debug e h j q sdtrig smaia smcdeleg smcntrpmf smcsrind smdbltrp smepmp smmpm smnpm smrnmi smstateen ssaia \
    ssccfg sscofpmf sscsrind ssdbltrp ssnpm svade svnapot svpbmt v xtheadba xtheadbb xtheadbs xtheadcmo xtheadcondmov \
    xtheadfmemidx xtheadfmv xtheadmac xtheadmemidx xtheadmempair xtheadsync xventanacondops zabha zacas zama16b zawrs zbkc \
    zce zcf zcmop zcmp zcmt zdinx zfa zfbfmin zfinx zhinx zhinxmin zicbop zicfilp zicfiss zihintntl zimop zk zkn \
    zknd zkne zknh zkr zks zksed zksh zkt zmmul ztso zvbb zvbc zve32f zve32x zve64d zve64f zve64x zvfbfmin zvfbfwma zvfh \
    zvfhmin zvkb zvkg zvkn zvknc zvkned zvkng zvknha zvknhb zvks zvksc zvksed zvksg zvksh zvkt";

/// Properties with values, none of which changes anything; a name that ends in `-` stands for all that begin so.
const VALUES: [&str; 12] = [
    "bext-spec",
    "elen",
    "marchid",
    "mimpid",
    "mvendorid",
    "pmu-mask",
    "pmu-num",
    "priv-spec",
    "resetvec",
    "short-isa-string",
    "start-powered-off",
    "vext-spec",
];

/// Reads `-cpu`.
pub(crate) fn parse(given: &Given, config: &mut Config) -> Result<(), Stop> {
    let Some(text) = given.text("cpu")? else { return Ok(()) };
    let mut items = keyval::split(OPTION, text)?;
    let first = items.remove(0);
    if first.key.is_none() && is_help(&first.value) {
        return Err(Stop::Print(help()));
    }
    let name = match first {
        Item { key: None, value } => value,
        Item { key: Some(key), .. } => {
            return Err(CliError::new(OPTION, format!("'{key}=...' is not a CPU model ({})", supported())).into());
        }
    };
    let mut missing: Vec<String> = lacking(&name)?.into_iter().map(str::to_owned).collect();
    let wrong: Vec<CliError> = items.iter().filter_map(|item| property(&name, item, &mut missing).err()).collect();
    if let Some(error) = CliError::all(wrong) {
        return Err(error.into());
    }
    config.cpu = name;
    if !missing.is_empty() {
        config.warnings.push(format!("{OPTION} {}: the guest does without {}", config.cpu, missing.join(" ")));
    }
    Ok(())
}

fn supported() -> String {
    let names: Vec<&str> = MODELS.iter().map(|(name, _)| *name).collect();
    format!("supported: {}", names.join(", "))
}

/// What a model has and the guest's hart has not.
fn lacking(name: &str) -> Result<Vec<&'static str>, CliError> {
    if let Some((_, extensions)) = MODELS.iter().find(|(model, _)| *model == name) {
        return Ok(extensions.split_whitespace().filter(|extension| !is_there(extension)).collect());
    }
    let message = if OTHERS.iter().any(|other| name.starts_with(other)) {
        format!("'{name}' is not a hart with the instructions of RV64G, and no others are supported yet")
    } else {
        match nearest(name, MODELS.iter().map(|(model, _)| *model)) {
            Some(near) => format!("'{name}' is not a CPU model; did you mean '{near}'?"),
            None => format!("'{name}' is not a CPU model"),
        }
    };
    Err(CliError::new(OPTION, format!("{message} ({})", supported())))
}

fn is_there(extension: &str) -> bool {
    EXTENSIONS.contains(&extension) || ALSO.contains(&extension)
}

/// What one item behind the model says.
fn property(model: &str, item: &Item, missing: &mut Vec<String>) -> Result<(), CliError> {
    let (name, value) = match (&item.key, item.value.as_str()) {
        (Some(name), value) => (name.as_str(), value),
        (None, word) => match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (name, "on"),
            (_, Some(name)) => (name, "off"),
            _ => (word, "on"),
        },
    };
    let refused = |message: String| Err(CliError::new(format!("{OPTION} {model}"), message));
    // QEMU has had names with capitals, and with other strokes.
    let spelling = name.to_ascii_lowercase().replace('_', "-");
    if VALUES.contains(&spelling.as_str()) || spelling.starts_with("x-") {
        return Ok(());
    }
    if let Some(size) = spelling.strip_suffix("-blocksize").or_else(|| (spelling == "vlen").then_some("vlen")) {
        let here = size != "vlen" && value == mimus_frontend::riscv::isa::CACHE_BLOCK.to_string();
        missing.extend((!here).then(|| format!("{name}={value}")));
        return Ok(());
    }
    let on = match value {
        "on" | "yes" | "true" | "y" => true,
        "off" | "no" | "false" | "n" => false,
        _ => return refused(format!("{name}: '{value}' is not known here: on or off")),
    };
    match (is_there(&spelling), on) {
        (true, true) => missing.retain(|other| other.trim_start_matches('-') != spelling),
        (true, false) => missing.push(format!("-{spelling}")),
        (false, _) if !MISSING.split_whitespace().any(|known| known == spelling) => {
            let names = EXTENSIONS.iter().copied().chain(ALSO).chain(MISSING.split_whitespace());
            let near = nearest(&spelling, names).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            return refused(format!("'{name}' is not an extension or property{near}"));
        }
        (false, true) => missing.push(spelling),
        (false, false) => missing.retain(|other| *other != spelling),
    }
    Ok(())
}

/// What `-cpu help` prints: a name on each line, as QEMU has it.
fn help() -> String {
    MODELS.iter().fold(String::new(), |text, (name, _)| text + name + "\n")
}
