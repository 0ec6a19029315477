//! Where logs and artifacts are: a directory, or a bucket.

use std::path::{Path, PathBuf};

use kiln_objects::S3Config;

use super::{
    values::{Layers, Source},
    worker::{path, url},
};
use crate::{exit::Failure, host::private};

/// How an object store's address begins.
const SCHEME: &str = "s3://";

/// Where logs and artifacts are.
#[derive(Debug, Clone)]
pub enum Objects {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket: how one connects, but for the secret.
    S3(S3Config, Secret),
}

/// By what it is proven who comes.
#[derive(Clone)]
pub enum Secret {
    /// The text.
    Text(String),
    /// The file with it.
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Objects {
    /// Reads it. The secret's file is not opened yet.
    ///
    /// # Errors
    /// When a value is missing or makes no sense.
    pub fn read(layers: &Layers, data: &Path) -> Result<Self, Failure> {
        let said = layers.maybe("objects", place)?;
        let bucket = match said {
            None => return Ok(Self::Directory(data.join("objects"))),
            Some(Place::Directory(dir)) => return Ok(Self::Directory(dir)),
            Some(Place::Bucket(bucket)) => bucket,
        };
        let text = |text: &str| Ok::<_, String>(text.to_owned());
        let needs = |name: &str| {
            layers.mistake(
                "objects",
                &format!("a bucket needs {name} (or its variable, or it in a file)"),
            )
        };
        let access_key = layers.maybe("s3-access-key", text)?;
        let config = S3Config {
            endpoint: layers.maybe("s3-endpoint", url)?,
            region: layers.one("s3-region", text)?,
            bucket: bucket.name,
            prefix: bucket.prefix,
            virtual_host: layers.switch("s3-virtual-host")?,
            access_key: access_key.ok_or_else(|| needs("--s3-access-key"))?,
            secret_key: String::new(),
            ca: layers.maybe("s3-ca", path)?,
            insecure: layers.switch("s3-insecure")?,
        };
        let secret = secret(layers)?.ok_or_else(|| needs("--s3-secret-key-file"))?;
        Ok(Self::S3(config, secret))
    }

    /// With the secret, as the server is told.
    ///
    /// # Errors
    /// When its file can't be read, or others can read it too.
    pub fn with_secret(&self) -> Result<kiln_objects::Config, Failure> {
        Ok(match self {
            Self::Directory(dir) => kiln_objects::Config::Directory(dir.clone()),
            Self::S3(config, secret) => kiln_objects::Config::S3(S3Config {
                secret_key: match secret {
                    Secret::Text(text) => text.clone(),
                    Secret::File(path) => private::token(path)?,
                },
                ..config.clone()
            }),
        })
    }
}

fn secret(layers: &Layers) -> Result<Option<Secret>, Failure> {
    let text = layers.maybe("s3-secret-key", |text| Ok::<_, String>(text.to_owned()))?;
    let file = layers.maybe("s3-secret-key-file", path)?;
    match (text, file) {
        (Some(_), _) if layers.source("s3-secret-key") == Source::Flag => Err(layers.mistake(
            "s3-secret-key",
            &"others can see the command line; give --s3-secret-key-file, or KILN_S3_SECRET_KEY in the environment",
        )),
        (Some(_), Some(_)) => {
            Err(layers.mistake("s3-secret-key-file", &"there is an s3-secret-key too"))
        }
        (Some(text), None) => Ok(Some(Secret::Text(text))),
        (None, file) => Ok(file.map(Secret::File)),
    }
}

/// What `objects` may say.
enum Place {
    Directory(PathBuf),
    Bucket(Bucket),
}

struct Bucket {
    name: String,
    prefix: String,
}

fn place(text: &str) -> Result<Place, String> {
    let Some(rest) = text.strip_prefix(SCHEME) else {
        return match text.contains("://") {
            true => Err(format!(
                "`{text}` is neither a directory nor like s3://BUCKET/PREFIX"
            )),
            false => path(text).map(Place::Directory),
        };
    };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(fine) {
        return Err(format!(
            "`{name}` is no bucket's name; write it like s3://BUCKET/PREFIX"
        ));
    }
    Ok(Place::Bucket(Bucket {
        name: name.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(text: &str) -> Option<(String, String)> {
        match place(text) {
            Ok(Place::Bucket(bucket)) => Some((bucket.name, bucket.prefix)),
            _ => None,
        }
    }

    #[test]
    fn a_bucket_may_have_a_prefix_and_anything_else_is_a_directory_or_a_mistake() {
        let named = |name: &str, prefix: &str| Some((name.to_owned(), prefix.to_owned()));
        assert_eq!(bucket("s3://farm"), named("farm", ""));
        assert_eq!(bucket("s3://farm/a/b/"), named("farm", "a/b"));
        assert!(matches!(place("/srv/objects"), Ok(Place::Directory(_))));
        for wrong in ["s3://", "s3:///x", "s3://a b", "gs://farm", ""] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let shown = format!("{:?}", Secret::Text("hunter2".to_owned()));
        assert!(!shown.contains("hunter2"));
    }
}
