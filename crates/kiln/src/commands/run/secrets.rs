//! `--secret NAME=…`: gives a manifest's secrets from files of this host.

use std::path::Path;

use kiln_core::manifest::{Manifest, SecretRef};
use kiln_worker::{Secret, SecretKind};

use crate::{exit::Failure, host::files, ui};

/// A key or a password; larger things belong into the sources.
const MAX_SECRET: u64 = 1 << 20;
/// Only the build user may read what nobody gave a mode.
const DEFAULT_MODE: u32 = 0o600;

/// Reads what the options name and checks that the manifest lacks nothing.
pub fn gather(manifest: &Manifest, options: &[String]) -> Result<Vec<Secret>, Failure> {
    let mut secrets: Vec<Secret> = Vec::new();
    for option in options {
        let (name, what) = option.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--secret {option}: write it as NAME=FILE, NAME=ssh:FILE, NAME=pgp:FILE or NAME=file:FILE:PATH[:MODE]"))
        })?;
        let Some(reference) = manifest
            .secrets()
            .iter()
            .find(|secret| secret.as_str() == name)
        else {
            ui::warning(&format!(
                "the manifest has no secret `{name}`: it stays here"
            ));
            continue;
        };
        let kind = kind(name, what)?;
        let uuid = match reference {
            SecretRef::Uuid(uuid) => uuid.clone(),
            SecretRef::Name(_) => random_uuid(),
        };
        secrets.retain(|secret| secret.reference != name);
        secrets.push(Secret {
            reference: name.to_owned(),
            uuid,
            kind,
        });
    }
    let lacks = |secret: &&SecretRef| !secrets.iter().any(|s| s.reference == secret.as_str());
    let missing: Vec<&str> = manifest
        .secrets()
        .iter()
        .filter(lacks)
        .map(SecretRef::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(secrets);
    }
    Err(Failure::usage(format!(
        "the manifest's secrets {} were not given; give each with --secret NAME=FILE",
        missing.join(", ")
    )))
}

fn kind(name: &str, what: &str) -> Result<SecretKind, Failure> {
    if let Some(file) = what.strip_prefix("ssh:") {
        return Ok(SecretKind::SshKey(read(name, file)?));
    }
    if let Some(file) = what.strip_prefix("pgp:") {
        return Ok(SecretKind::PgpKey(read(name, file)?));
    }
    if let Some(rest) = what.strip_prefix("file:") {
        return file_kind(name, rest);
    }
    let bytes = read(name, what)?;
    let first = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    Ok(if first.contains("PGP PRIVATE KEY") {
        SecretKind::PgpKey(bytes)
    } else if first.starts_with("-----BEGIN ") && first.contains("PRIVATE KEY") {
        SecretKind::SshKey(bytes)
    } else {
        let file_name = Path::new(what)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        SecretKind::File {
            path: format!("~/{}", file_name.unwrap_or_else(|| name.to_owned())),
            mode: DEFAULT_MODE,
            bytes,
        }
    })
}

/// `FILE:PATH[:MODE]`
fn file_kind(name: &str, rest: &str) -> Result<SecretKind, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "--secret {name}=file:{rest}: write it as NAME=file:FILE:PATH[:MODE], the mode like 600"
        ))
    };
    let (file, target) = rest.split_once(':').ok_or_else(wrong)?;
    let (path, mode) = match target.rsplit_once(':') {
        Some((path, mode)) => (path, u32::from_str_radix(mode, 8).map_err(|_| wrong())?),
        None => (target, DEFAULT_MODE),
    };
    if path.is_empty() || mode > 0o7777 {
        return Err(wrong());
    }
    Ok(SecretKind::File {
        path: path.to_owned(),
        mode,
        bytes: read(name, file)?,
    })
}

fn read(name: &str, file: &str) -> Result<Vec<u8>, Failure> {
    let fail =
        |why: &dyn std::fmt::Display| Failure::usage(format!("--secret {name}: {file}: {why}"));
    let bytes = files::read(Path::new(file), MAX_SECRET + 1).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(fail(&"more than 1 MiB is no secret"));
    }
    Ok(bytes)
}

/// A farm gives each secret a UUID; here its only use is an SSH key's file name.
fn random_uuid() -> String {
    let mut bytes = [0u8; 16];
    // It names a file; a repeat would do no harm.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let number = u128::from_be_bytes(bytes);
    // RFC 9562: version 4, variant 10.
    let number = number & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(secrets: &str) -> Manifest {
        let text = format!("image: debian/bookworm\nsecrets: [{secrets}]\ntasks: [{{a: b}}]\n");
        kiln_core::manifest::parse(text.as_bytes())
            .unwrap()
            .manifest
    }

    #[test]
    fn what_nobody_gave_is_listed() {
        let error = gather(&manifest("deploy-key, token"), &[]).unwrap_err();
        assert!(
            error.message.contains("deploy-key, token"),
            "{}",
            error.message
        );
    }

    #[test]
    fn keys_are_told_by_their_first_line_and_the_rest_are_files() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n").unwrap();
        let text = dir.path().join("token");
        std::fs::write(&text, "s3cr3t").unwrap();
        let options = [
            format!("deploy={}", key.display()),
            format!("token={}", text.display()),
            format!("conf=file:{}:.config/x:0640", text.display()),
        ];
        let secrets = gather(&manifest("deploy, token, conf"), &options).unwrap();
        assert!(matches!(secrets[0].kind, SecretKind::SshKey(_)));
        assert!(
            matches!(&secrets[1].kind, SecretKind::File { path, mode: 0o600, .. } if path == "~/token")
        );
        assert!(
            matches!(&secrets[2].kind, SecretKind::File { path, mode: 0o640, .. } if path == ".config/x")
        );
    }

    #[test]
    fn a_uuid_looks_like_one() {
        let uuid = random_uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(SecretRef::parse(&uuid).is_ok_and(|secret| matches!(secret, SecretRef::Uuid(_))));
    }
}
