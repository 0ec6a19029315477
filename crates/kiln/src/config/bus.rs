//! The bus between several servers, as `kiln serve` is told of it.

use super::{values::Layers, worker::path};
use crate::{exit::Failure, host::private};

/// Reads it; none when there is one server, or several that do without.
///
/// # Errors
/// When a value makes no sense, or a file can't be read.
pub(super) fn read(layers: &Layers) -> Result<Option<kiln_bus::Config>, Failure> {
    let url = layers.maybe("bus", url)?;
    let password = layers.maybe("bus-password-file", path)?;
    let ca = layers.maybe("bus-ca", path)?;
    let Some(url) = url else {
        let without = ["bus-password-file", "bus-ca"];
        let given = [password.is_some(), ca.is_some()];
        return match without.iter().zip(given).find(|(_, given)| *given) {
            Some((name, _)) => Err(layers.mistake(name, &"there is no --bus for it")),
            None => Ok(None),
        };
    };
    let password = password.map(|file| private::token(&file)).transpose()?;
    let pem = |file: std::path::PathBuf| {
        std::fs::read(&file)
            .map_err(|error| layers.mistake("bus-ca", &format!("{}: {error}", file.display())))
    };
    let config = kiln_bus::Config {
        url,
        password,
        ca: ca.map(pem).transpose()?,
    };
    config
        .check()
        .map_err(|error| layers.mistake("bus", &error))?;
    Ok(Some(config))
}

/// What it was may have a password in it: it is not repeated.
fn url(text: &str) -> Result<String, String> {
    let schemes = ["redis://", "rediss://", "redis+unix://"];
    if schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    Err(kiln_bus::ConfigError::Url.to_string())
}
