//! Reading the file, whichever kind it is.

use std::{collections::BTreeMap, path::Path};

use super::{ini, keys::Role, toml, values::Value};
use crate::host::files;

/// A longer file is none of ours.
const MAX_FILE: u64 = 1 << 20;

/// What a file said.
#[derive(Debug, Default)]
pub struct Read {
    /// By key.
    pub values: BTreeMap<&'static str, Value>,
    /// What else there is to say about it.
    pub remarks: Vec<Remark>,
}

/// What becomes of a line of a file of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// `[section] key`.
    pub place: String,
    /// What becomes of it.
    pub what: String,
}

/// Reads a file for a command.
///
/// # Errors
/// A sentence with the file's name, and the line where that is known.
pub fn read(path: &Path, role: Role) -> Result<Read, String> {
    let name = path.display();
    let bytes = files::read(path, MAX_FILE + 1).map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("{name}: more than 1 MiB is no configuration"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let upto = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(upto)
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1;
        format!("{name}: line {line} is not UTF-8")
    })?;
    let read = match path.extension().is_some_and(|extension| extension == "ini") {
        true => ini::read(path, &text, role),
        false => toml::read(path, &text, role),
    };
    read.map_err(|problem| format!("{name}: {problem}"))
}
