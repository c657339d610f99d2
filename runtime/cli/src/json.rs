//! JSON in the place of a `key=value` list, as in `-device '{"driver": "e1000"}'`.

use serde_json::Value;

use super::error::CliError;
use super::keyval::Item;

/// How deep objects may be in each other.
const DEPTH: usize = 16;

/// The items of a list that is written as the JSON object `text`: what is inside another object or array is named with dots,
/// as QEMU does. `option` is named in errors.
pub(super) fn items(option: &str, text: &str) -> Result<Vec<Item>, CliError> {
    let value: Value = serde_json::from_str(text).map_err(|error| CliError::new(option, format!("JSON: {error}")))?;
    let mut items = Vec::new();
    flatten(String::new(), &value, DEPTH, &mut items).ok_or_else(|| CliError::new(option, "JSON: nested too deep"))?;
    match items.is_empty() {
        true => Err(CliError::new(option, "JSON: the object is empty")),
        false => Ok(items),
    }
}

/// Adds what `value` is under `name`; `None` if it is nested deeper than `depth`.
fn flatten(name: String, value: &Value, depth: usize, items: &mut Vec<Item>) -> Option<()> {
    let under = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    let word = match value {
        Value::Object(members) => {
            let depth = depth.checked_sub(1)?;
            return members.iter().try_for_each(|(part, value)| flatten(under(part), value, depth, items));
        }
        Value::Array(values) => {
            let depth = depth.checked_sub(1)?;
            let mut numbered = values.iter().enumerate();
            return numbered.try_for_each(|(index, value)| flatten(under(&index.to_string()), value, depth, items));
        }
        // No backing image is one that is not there, whatever an image says.
        Value::Null if name == "backing" || name.ends_with(".backing") => String::new(),
        // As if it were not there.
        Value::Null => return Some(()),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
    };
    items.push(Item { key: Some(name), value: word });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> String {
        match items("-x", text) {
            Ok(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| format!("{}={}", item.key.as_deref().unwrap_or("?"), item.value)).collect();
                items.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn objects_become_items() {
        assert_eq!(
            flat(r#"{"driver": "e1000", "n": 3, "on": true, "off": false, "no": null}"#),
            "driver=e1000 n=3 off=off on=on"
        );
        assert_eq!(flat(r#"{"a": {"b": {"c": "x,y"}}, "d": ["p", {"q": 1}]}"#), "a.b.c=x,y d.0=p d.1.q=1");
        assert_eq!(flat("{}"), "-x: JSON: the object is empty");
        assert_eq!(flat("{\"a\": }"), "-x: JSON: expected value at line 1 column 7");
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        assert_eq!(flat(&deep), "-x: JSON: nested too deep");
    }
}
