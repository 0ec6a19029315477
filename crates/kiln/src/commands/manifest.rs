//! `kiln manifest check`.

use std::path::Path;

use kiln_core::manifest::{self, Diagnostic, MAX_BYTES, Parsed};

use crate::{exit::Exit, host::files, ui};

/// Checks each file: 0 when all are right, 2 when one is not.
pub fn check(files: &[impl AsRef<Path>], json: bool) -> Exit {
    let mut exit = Exit::Success;
    for file in files.iter().map(AsRef::as_ref) {
        match read(file) {
            Ok(parsed) => {
                warn(file, &parsed.warnings);
                if json {
                    ui::line(&parsed.manifest.to_json().to_string());
                } else {
                    ui::line(&format!("{}: OK", file.display()));
                }
            }
            Err(errors) => {
                errors.iter().for_each(|error| ui::error(error));
                exit = Exit::Usage;
            }
        }
    }
    exit
}

/// Reads and parses a manifest. Errors are lines for the user.
pub fn read(file: &Path) -> Result<Parsed, Vec<String>> {
    let name = file.display();
    let bytes = read_bytes(file).map_err(|error| vec![format!("{name}: {error}")])?;
    manifest::parse(&bytes).map_err(|refused| {
        let lines = refused.diagnostics.iter();
        lines
            .map(|diagnostic| format!("{name}: {diagnostic}"))
            .collect()
    })
}

/// Says what an author should know.
pub fn warn(file: &Path, warnings: &[Diagnostic]) {
    for warning in warnings {
        ui::warning(&format!("{}: {warning}", file.display()));
    }
}

/// One byte more than may be there, so that the parser can say that it is too
/// much, whatever the file's size is.
fn read_bytes(file: &Path) -> Result<Vec<u8>, String> {
    if file.is_dir() {
        return Err("is a directory; name a manifest in it".into());
    }
    files::read(file, MAX_BYTES as u64 + 1).map_err(|error| error.to_string())
}
