//! What `kiln worker` is told, and what of it the worker inside `kiln serve` is.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use kiln_core::farm::{self, limits};
use kiln_wire::client::Target;

use super::{serve::LogFormat, values::Layers};
use crate::{exit::Failure, host::paths, units};

/// More jobs at once than a host can have.
const MAX_SLOTS: u32 = 1000;

/// What jobs run in.
#[derive(Debug, Clone)]
pub struct GuestConfig {
    /// How many jobs at once.
    pub slots: u32,
    /// Where images are.
    pub images: PathBuf,
    /// What jobs may ask for.
    pub labels: BTreeMap<String, String>,
    /// Each guest's memory in MiB, over the image's own.
    pub memory_mib: Option<u32>,
    /// Each guest's processors.
    pub cpus: u32,
    /// How much a guest may write, in MiB.
    pub disk_mib: Option<u32>,
    /// What guests may reach besides the public internet, as `--allow` has it.
    pub allow: Vec<String>,
    /// Whether guests have a network.
    pub network: bool,
    /// How old kept guests may be.
    pub derived_ttl: Duration,
    /// How long a guest may take to let us in.
    pub boot_timeout: Duration,
    /// How many guests stand ready.
    pub pool: usize,
    /// How guests of the dummy machine start, if jobs run on it.
    #[cfg(feature = "testing")]
    pub dummy: Option<kiln_vm::dummy::Start>,
}

impl GuestConfig {
    /// Reads it.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn read(layers: &Layers) -> Result<Self, Failure> {
        let images = layers.maybe("images", path)?;
        let labels = farm::labels(&layers.many("label"));
        let network = !layers.switch("no-network")?;
        let allow = layers.many("allow");
        if !network && !allow.is_empty() {
            return Err(layers.mistake(
                "no-network",
                &"without a network guests reach nothing that --allow names",
            ));
        }
        Ok(Self {
            slots: layers.one("slots", |text| number(text, 1, MAX_SLOTS))?,
            images: paths::images_at(images.as_deref())?,
            labels: labels.map_err(|error| layers.mistake("label", &error))?,
            memory_mib: layers.maybe("memory", units::mebibytes)?,
            cpus: layers.one("cpus", |text| number(text, 1, 255))?,
            disk_mib: layers.maybe("disk", units::disk)?,
            allow,
            network,
            derived_ttl: layers.one("derived-ttl", units::duration_or_none)?,
            boot_timeout: layers.one("boot-timeout", units::duration)?,
            pool: layers.one("pool", |text| number(text, 0, MAX_SLOTS))? as usize,
            #[cfg(feature = "testing")]
            dummy: dummy(layers)?,
        })
    }
}

#[cfg(feature = "testing")]
fn dummy(layers: &Layers) -> Result<Option<kiln_vm::dummy::Start>, Failure> {
    use kiln_vm::dummy::Start;
    let null = layers.switch(super::keys::DUMMY_NULL)?;
    let ready = layers.switch(super::keys::DUMMY)?;
    Ok(null
        .then_some(Start::Null)
        .or(ready.then_some(Start::Ready)))
}

/// What `kiln worker` is told.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where the server is.
    pub server: Target,
    /// The file with the worker's token.
    pub token_file: PathBuf,
    /// Where its own files are.
    pub data: PathBuf,
    /// A proxy on the way.
    pub proxy: Option<String>,
    /// Further certificates.
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP to other hosts is allowed.
    pub insecure: bool,
    /// What jobs run in.
    pub guests: GuestConfig,
    /// How it tells what happens.
    pub log_format: LogFormat,
}

impl WorkerConfig {
    /// Reads it.
    ///
    /// # Errors
    /// When a value is missing or makes no sense.
    pub fn read(layers: &Layers) -> Result<Self, Failure> {
        Ok(Self {
            server: layers.one("server", target)?,
            token_file: layers.one("token-file", path)?,
            data: match layers.maybe("data", path)? {
                Some(data) => data,
                None => paths::data()?.join("worker"),
            },
            proxy: layers.maybe("proxy", url)?,
            ca: layers.maybe("ca", path)?,
            insecure: layers.switch("insecure")?,
            guests: GuestConfig::read(layers)?,
            log_format: layers.one("log-format", LogFormat::read)?,
        })
    }
}

/// `https://HOST`, `http://HOST`, `unix:PATH`.
///
/// # Errors
/// A sentence.
pub fn target(text: &str) -> Result<Target, String> {
    if let Some(socket) = text.strip_prefix("unix:") {
        return path(socket).map(Target::Unix);
    }
    url(text).map(|url| Target::Url(url.trim_end_matches('/').to_owned()))
}

pub(super) fn url(text: &str) -> Result<String, String> {
    let host = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') && text.len() <= limits::URL => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "`{text}` is no URL; write it like https://builds.example.org"
        )),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("a path is missing".into());
    }
    std::path::absolute(text).map_err(|error| format!("{text}: {error}"))
}

pub(super) fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("`{text}` is no number from {least} to {most}"))
}
