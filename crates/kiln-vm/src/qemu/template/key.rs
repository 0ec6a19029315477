//! What a template depends on.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{
    super::command::{self, Ram},
    Boot, Failed,
};
use crate::machine::GuestSpec;

/// A template's name: a digest of the image's version, the architecture,
/// QEMU's version and command line (which has memory, processors, network and
/// accelerator in it), and of this program's way to make templates.
pub(super) struct Key {
    name: String,
    image: String,
    digest: String,
}

/// To be raised when templates are made differently.
const VERSION: &str = "2";

impl Key {
    pub async fn of(boot: &Boot<'_>, cache: &Path) -> Result<Self, Failed> {
        let image = &boot.spec.image;
        let (of, remembered) = (image.clone(), cache.to_owned());
        // Some hundred megabytes are read when they are new.
        let digest = tokio::task::spawn_blocking(move || of.digest_remembered(&remembered)).await;
        let digest = digest
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| format!("{} can't be read: {error}", image.name))?;
        // Where this one guest's files are says nothing of the template.
        let spec = GuestSpec {
            dir: "/guest".into(),
            ..boot.spec.clone()
        };
        let line = boot
            .machine
            .command_line(boot.request, &spec, Some(Ram::Private), true)?;
        let program = line.argv.first().cloned().unwrap_or_default();
        let version = command::version(&program)
            .await
            .ok_or_else(|| format!("{program} does not tell its version"))?;
        // The template's layer has it in its header.
        let disk = image.disk().canonicalize()?.display().to_string();
        let processor = if boot.functions.kvm {
            processor()
        } else {
            String::new()
        };
        let words = line.argv.iter().map(String::as_str);
        let mut hash = Sha256::new();
        let own = [VERSION, &digest, &image.arch, &version, &disk, &processor];
        for part in own.into_iter().chain(words) {
            hash.update(part);
            hash.update([0]);
        }
        Ok(Self {
            name: short(hash),
            image: format!("{} {} {}", image.base.display(), image.name, image.arch),
            digest,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn image(&self) -> &str {
        &self.image
    }

    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file whose time is that of the last attempt that failed.
    pub fn failed(&self) -> String {
        format!("{}.failed", self.name)
    }

    /// The file that says that there can be no template.
    pub fn unsuited(&self) -> String {
        format!("{}.unsuited", self.name)
    }
}

/// A digest as a name.
pub(super) fn short(hash: Sha256) -> String {
    crate::image::hex(&hash.finalize())
        .chars()
        .take(32)
        .collect()
}

/// What a guest under KVM may have found out about the processor: a template
/// made on another one would make it use what is not there.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let changing = ["cpu MHz", "bogomips", "BogoMIPS"];
    let lines = first
        .lines()
        .filter(|line| !changing.iter().any(|name| line.starts_with(name)));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    lines.chain([release.trim()]).collect::<Vec<_>>().join("\n")
}
