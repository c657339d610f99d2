//! `-readconfig` and `-set`: other places for what options say.

use std::ffi::{OsStr, OsString};
use std::io::Read;

use mimus_host::error::{HostError, open_input};

use super::error::CliError;
use super::options::{self, Shape};

/// Most bytes of a file of options.
const MOST: u64 = 1 << 20;

/// Groups of a file that are not called as their option is.
const GROUPS: &[(&str, &str)] = &[("memory", "m"), ("smp-opts", "smp"), ("boot-opts", "boot")];

/// The options that a file has, each with its value, as somebody would type them.
pub(super) fn read(path: &OsStr) -> Result<Vec<[OsString; 2]>, CliError> {
    const OPTION: &str = "-readconfig";
    let mut text = String::new();
    let mut file = open_input(OPTION, path.as_ref())?.take(MOST + 1);
    file.read_to_string(&mut text).map_err(|error| HostError::file(OPTION, "cannot read", path.as_ref(), &error))?;
    if text.len() as u64 > MOST {
        return Err(CliError::new(OPTION, format!("'{}' has more than {MOST} bytes", path.to_string_lossy())));
    }
    let wrong = |line: usize, message: String| {
        CliError::new(OPTION, format!("'{}', line {}: {message}", path.to_string_lossy(), line + 1))
    };
    let mut groups: Vec<(&'static str, Vec<String>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            groups.push(begin(group).map_err(|message| wrong(number, message))?);
            continue;
        }
        let item = item(line).ok_or_else(|| wrong(number, format!("'{line}' is not of the form KEY = \"VALUE\"")))?;
        let (_, items) = groups.last_mut().ok_or_else(|| wrong(number, "no group comes before it".to_owned()))?;
        items.push(item);
    }
    let groups = groups.into_iter().filter(|(_, items)| !items.is_empty());
    Ok(groups.map(|(name, items)| [format!("-{name}").into(), items.join(",").into()]).collect())
}

/// What `name` or `name "id"` begins: the option, and its items so far.
fn begin(group: &str) -> Result<(&'static str, Vec<String>), String> {
    let (name, id) = group.split_once(char::is_whitespace).unwrap_or((group, ""));
    let name = GROUPS.iter().find(|(known, _)| *known == name).map_or(name, |(_, option)| option);
    // A file does not name another.
    let option = options::find(name).filter(|option| option.shape != Shape::Flag && option.name != "readconfig");
    let option = option.ok_or_else(|| format!("there is no group '{name}'"))?;
    let id = id.trim().trim_matches('"');
    Ok((option.name, if id.is_empty() { Vec::new() } else { vec![format!("id={}", escaped(id))] }))
}

/// `KEY = "VALUE"` as an item of a list.
fn item(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    let key = key.trim();
    (!key.is_empty()).then(|| format!("{key}={}", escaped(value)))
}

fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

/// Does what `-set GROUP.ID.KEY=VALUE` says to the option of that group and id among `words`, which are clap's.
pub(super) fn set(text: &str, words: &mut [OsString]) -> Result<(), CliError> {
    let wrong = |message: String| CliError::new("-set", message);
    let parts = text.split_once('=').and_then(|(place, value)| {
        let mut parts = place.splitn(3, '.');
        Some((parts.next()?, parts.next()?, parts.next()?, value))
    });
    let (group, id, key, value) =
        parts.ok_or_else(|| wrong(format!("'{text}' is not of the form GROUP.ID.KEY=VALUE")))?;
    let id_item = format!("id={id}");
    let prefix = format!("--{group}=");
    let found = words.iter_mut().find(|word| {
        let list = word.to_str().and_then(|word| word.strip_prefix(&prefix));
        list.is_some_and(|list| list.split(',').any(|item| item == id_item))
    });
    let word = found.ok_or_else(|| wrong(format!("there is no -{group} with id={id}")))?;
    word.push(format!(",{key}={}", escaped(value)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_options() {
        let path = std::env::temp_dir().join(format!("mimus-readconfig-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let read = read(path.as_os_str());
            std::fs::remove_file(&path).unwrap();
            read.map_err(|error| error.message.replace(&*path.to_string_lossy(), "F"))
        };
        let text = "# qemu config file\n\n[drive \"d,1\"]\n  file = \"a,b=c\"\n  if = \"none\"\n[memory]\nsize = \"64\"\n[machine]\n";
        let expected = [["-drive", "id=d,,1,file=a,,b=c,if=none"], ["-m", "size=64"]];
        assert_eq!(read(text).unwrap(), expected.map(|option| option.map(OsString::from)));
        for (text, message) in [
            ("[readconfig]", "'F', line 1: there is no group 'readconfig'"),
            ("[drives]", "'F', line 1: there is no group 'drives'"),
            ("\nfile = \"x\"", "'F', line 2: no group comes before it"),
            ("[drive]\nfile = x", "'F', line 2: 'file = x' is not of the form KEY = \"VALUE\""),
            ("[drive]\nfile", "'F', line 2: 'file' is not of the form KEY = \"VALUE\""),
        ] {
            assert_eq!(read(text).unwrap_err(), message);
        }
        assert!(super::read(OsStr::new("/nonexistent")).unwrap_err().message.starts_with("cannot open"));
    }

    #[test]
    fn a_key_of_an_option_is_set_by_id() {
        let mut words = [OsString::from("--drive=id=a,file=x"), OsString::from("--device=e1000,id=a")];
        set("device.a.mac=1,2", &mut words).unwrap();
        assert_eq!(words[1], "--device=e1000,id=a,mac=1,,2");
        assert_eq!(set("device.b.mac=1", &mut words).unwrap_err().to_string(), "-set: there is no -device with id=b");
        let wrong = set("device.b=1", &mut words).unwrap_err().to_string();
        assert_eq!(wrong, "-set: 'device.b=1' is not of the form GROUP.ID.KEY=VALUE");
    }
}
