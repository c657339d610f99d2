//! `-device loader`.

use super::error::CliError;
use super::keyval::Values;
use mimus_machine::config::{LoadedPiece, PieceContent};

/// What the keys of the device ask for, with QEMU's rules of what goes together.
pub(super) fn loader(option: &str, values: &Values) -> Result<LoadedPiece, CliError> {
    let wrong = |message: &str| Err(CliError::new(option, message));
    let on = |key| matches!(values.word(key), Some("on" | "true"));
    let starts = values.number("cpu-num").is_some();
    let addr = values.number("addr");
    let content = match (values.text("file"), values.number("data")) {
        (Some(_), Some(_)) => return wrong("file and data cannot be combined"),
        (Some(""), None) => return wrong("file: the name is empty"),
        (Some(file), None) => PieceContent::File { path: file.into(), raw: on("force-raw") },
        (None, Some(data)) => {
            let (Some(_), Some(len)) = (addr, values.number("data-len")) else {
                return wrong("data needs addr and data-len");
            };
            let mut bytes = data.to_le_bytes().to_vec();
            bytes.truncate(len as usize);
            if on("data-be") {
                bytes.reverse();
            }
            PieceContent::Words(bytes)
        }
        (None, None) if starts && addr.is_some() => PieceContent::Nothing,
        (None, None) => return wrong("needs file, or data and data-len, or addr and cpu-num"),
    };
    if !matches!(content, PieceContent::Words(_)) && (values.number("data-len").is_some() || on("data-be")) {
        return wrong("data-len and data-be need data");
    }
    Ok(LoadedPiece { content, addr: addr.unwrap_or(0), starts })
}
