//! What `kiln serve` is told.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_server::Retention;

use super::{
    bus,
    objects::Objects,
    values::Layers,
    worker::{GuestConfig, number, path, url},
};
use crate::{
    exit::Failure,
    host::{paths, private},
    units,
};

/// How standard error is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

impl LogFormat {
    /// Reads its name.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is neither text nor json")),
        }
    }
}

/// The files for HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificates.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What `kiln serve` is told.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where else.
    pub unix: Option<PathBuf>,
    /// Where the state is.
    pub data: PathBuf,
    /// The database.
    pub database: String,
    /// How many connections to it.
    pub connections: u32,
    /// Whether to bring its schema up to date.
    pub migrate: bool,
    /// The bus, where there are several servers.
    pub bus: Option<kiln_bus::Config>,
    /// Where logs and artifacts are.
    pub objects: Objects,
    /// HTTPS.
    pub tls: Option<Tls>,
    /// The public URL, if somebody said it.
    pub origin: Option<String>,
    /// How the farm calls itself.
    pub site_name: String,
    /// `Job.runner`, if somebody said it.
    pub runner: Option<String>,
    /// The user of that.
    pub ssh_user: String,
    /// How long a job may take.
    pub job_timeout: Duration,
    /// How many jobs of one share at once.
    pub share_cap: Option<u32>,
    /// The largest artifact, in bytes.
    pub artifact_limit: u64,
    /// How long what ended jobs leave is kept.
    pub retention: Retention,
    /// How long to serve on when it ends, and say that it is not ready.
    pub drain: Duration,
    /// The worker inside, unless there is to be none.
    pub worker: Option<GuestConfig>,
    /// How it tells what happens.
    pub log_format: LogFormat,
}

impl ServeConfig {
    /// Reads it.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn read(layers: &Layers) -> Result<Self, Failure> {
        let place = Place::read(layers)?;
        let tls = tls(layers)?;
        // Looked at also where no worker needs it: a mistake is one all the same.
        let guests = GuestConfig::read(layers)?;
        let listen = layers.one("listen", address)?;
        if tls.is_none() && !listen.ip().is_loopback() && !layers.switch("insecure")? {
            return Err(layers.mistake(
                "listen",
                &format!(
                    "others can reach {listen}, and tokens would go there in the clear: give --tls-cert and \
                     --tls-key, or --insecure when a proxy before it speaks HTTPS"
                ),
            ));
        }
        Ok(Self {
            listen,
            unix: layers.maybe("unix", path)?,
            objects: Objects::read(layers, &place.data)?,
            data: place.data,
            database: place.database,
            bus: bus::read(layers)?,
            connections: layers.one("database-connections", |text| number(text, 2, 1000))?,
            migrate: !layers.switch("no-migrate")?,
            tls,
            origin: layers
                .maybe("origin", url)?
                .map(|url| url.trim_end_matches('/').to_owned()),
            site_name: layers.one("site-name", |text| Ok::<_, String>(text.to_owned()))?,
            runner: layers.maybe("runner", host)?,
            ssh_user: layers.one("ssh-user", |text| Ok::<_, String>(text.to_owned()))?,
            job_timeout: layers.one("job-timeout", units::duration)?,
            share_cap: layers.maybe("share-cap", |text| number(text, 1, u32::MAX))?,
            artifact_limit: layers.one("artifact-limit", units::bytes)?,
            retention: Retention {
                logs: layers.one("keep-logs", units::age)?,
                artifacts: layers.one("keep-artifacts", units::age)?,
                of_owner: layers.maybe("owner-storage", units::bytes)?,
            },
            drain: layers.one("drain", units::duration_or_none)?,
            worker: (!layers.switch("no-worker")?).then_some(guests),
            log_format: layers.one("log-format", LogFormat::read)?,
        })
    }
}

/// Where a server's state is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// The database's URL.
    pub database: String,
    /// The same for the role that owns its tables.
    pub owners: String,
}

impl Place {
    /// Reads it.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn read(layers: &Layers) -> Result<Self, Failure> {
        let data = match layers.maybe("data", path)? {
            Some(data) => data,
            None => paths::data()?.join("serve"),
        };
        let database = match layers.maybe("database", database)? {
            Some(url) => with_password(layers, url)?,
            None => sqlite(&data.join(DATABASE)),
        };
        let owners = layers.maybe("owner-database", self::database)?;
        Ok(Self {
            owners: owners.unwrap_or_else(|| database.clone()),
            database,
            data,
        })
    }

    /// The database's file, if it is one.
    pub fn file(&self) -> Option<PathBuf> {
        file_of(&self.database)
    }

    /// The same, of the database as the owner of its tables finds it.
    pub fn owners_file(&self) -> Option<PathBuf> {
        file_of(&self.owners)
    }
}

/// A database's URL with the password of its file.
fn with_password(layers: &Layers, url: String) -> Result<String, Failure> {
    let Some(file) = layers.maybe("database-password-file", path)? else {
        return Ok(url);
    };
    let mistake = |problem: &str| Err(layers.mistake("database-password-file", &problem));
    if !url.starts_with("postgres:") {
        return mistake("only PostgreSQL wants a password");
    }
    let text = private::read(&file)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return mistake("the file is empty");
    }
    let between = if url.contains('?') { '&' } else { '?' };
    let encoded: String = password
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    Ok(format!("{url}{between}password={encoded}"))
}

/// The parameters of a URL of PostgreSQL's.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Whether all parameters of a URL are known: one that is not would be passed over, which
/// would be bad for `sslmod=verify-full`.
fn known_parameters(url: &str) -> Result<(), String> {
    let query = url.split_once('?').map(|(_, query)| query);
    for pair in query.unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !name.is_empty() && !PARAMETERS.contains(&name) {
            return Err(format!(
                "the URL has a parameter `{name}`, which is none of {}",
                PARAMETERS.join(", ")
            ));
        }
        let modes = [
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ];
        if name == "sslmode" && !modes.contains(&value) {
            return Err(format!("`sslmode` is one of {}", modes.join(", ")));
        }
    }
    Ok(())
}

fn file_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?;
    Some(PathBuf::from(decode(path.split('?').next()?)))
}

/// The database in the data directory.
const DATABASE: &str = "kiln.db";

/// A file's URL.
pub fn sqlite(path: &Path) -> String {
    let mut url = "sqlite://".to_owned();
    for character in path.display().to_string().chars() {
        match character {
            '%' | '?' | '#' | ' ' => url.push_str(&format!("%{:02X}", character as u32)),
            _ => url.push(character),
        }
    }
    url
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn database(text: &str) -> Result<String, String> {
    if let Some(rest) = text.strip_prefix("postgresql://") {
        return database(&format!("postgres://{rest}"));
    }
    match text.split_once(':') {
        Some(("postgres", rest)) if rest.starts_with("//") => {
            known_parameters(rest)?;
            Ok(text.to_owned())
        }
        Some(("sqlite", rest)) if rest.starts_with("///") => Ok(text.to_owned()),
        // What it was may have a password in it.
        _ => Err("this is no URL of a database; write postgres://USER:PASSWORD@HOST/NAME or sqlite:///FILE".into()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
    {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .map_err(|_| format!("`{text}` is no address with a port; write it like 127.0.0.1:8080, 0.0.0.0:443 or [::]:443"))
}

fn host(text: &str) -> Result<String, String> {
    match text.contains([':', '/', ' ']) {
        true => Err(format!("`{text}` is more than a host's name")),
        false => Ok(text.to_owned()),
    }
}

fn tls(layers: &Layers) -> Result<Option<Tls>, Failure> {
    match (
        layers.maybe("tls-cert", path)?,
        layers.maybe("tls-key", path)?,
    ) {
        (Some(cert), Some(key)) => Ok(Some(Tls { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(layers.mistake("tls-cert", &"--tls-key is missing")),
        (None, Some(_)) => Err(layers.mistake("tls-key", &"--tls-cert is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_url_gives_the_file_back() {
        for path in ["/srv/kiln/kiln.db", "/srv/100% mine?/#1/kiln.db", "/a/%41"] {
            let place = Place {
                data: PathBuf::new(),
                database: sqlite(Path::new(path)),
                owners: String::new(),
            };
            assert_eq!(place.file(), Some(PathBuf::from(path)));
        }
    }

    #[test]
    fn a_wrong_database_is_not_repeated_for_it_may_have_a_password() {
        assert!(
            !database("mysql://root:hunter2@db/x")
                .unwrap_err()
                .contains("hunter2")
        );
        assert_eq!(database("postgresql://a@b/c").unwrap(), "postgres://a@b/c");
        assert!(database("sqlite::memory:").is_err());
    }

    #[test]
    fn a_parameter_that_nobody_knows_is_refused_without_its_value() {
        let error = database("postgres://a@b/c?sslmode=require&pasword=hunter2").unwrap_err();
        assert!(
            error.contains("`pasword`") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(database("postgres://a@b/c?sslmode=verify_full").is_err());
        assert!(database("postgres:///c?host=/run/pg&sslmode=verify-full&user=a").is_ok());
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        assert_eq!(address("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(address("[::1]:0").unwrap().to_string(), "[::1]:0");
        assert!(address("8080").is_err() && address("example.org:80").is_err());
    }
}
