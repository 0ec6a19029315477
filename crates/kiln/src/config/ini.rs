//! SourceHut's `config.ini`: what of it a farm of ours can use, and what
//! becomes of the rest.

use std::path::Path;

use configparser::ini::Ini;

use super::{
    file::{Read, Remark},
    keys::{self, Role},
    values::{Source, Value},
};

const BUILDS: &str = "builds.sr.ht";
const WORKER: &str = "builds.sr.ht::worker";

/// What becomes of a key.
enum Fate {
    /// It is this setting of these commands.
    Is(&'static str, &'static [Role]),
    /// It is not used; why.
    Unused(&'static str),
}

use Fate::{Is, Unused};

const BOTH: &[Role] = &[Role::Serve, Role::Worker];
const SERVE: &[Role] = &[Role::Serve];

const PAGES: &str = "is for pages and mail, which this kiln does not have yet";
const MAIL: &str = "is for mail, which this kiln does not send yet";
const LOGINS: &str = "is not used: people come with tokens of `kiln admin token`";
const HOOKS: &str = "is not used: this kiln does not deliver webhooks yet";

/// What becomes of what, by section and key.
const FATES: &[(&str, &str, Fate)] = &[
    ("sr.ht", "site-name", Is("site-name", SERVE)),
    ("sr.ht", "site-info", Unused(PAGES)),
    ("sr.ht", "site-blurb", Unused(PAGES)),
    ("sr.ht", "owner-name", Unused(PAGES)),
    ("sr.ht", "owner-email", Unused(PAGES)),
    ("sr.ht", "environment", Unused(PAGES)),
    ("sr.ht", "source-url", Unused(PAGES)),
    ("sr.ht", "service-key", Unused(LOGINS)),
    ("sr.ht", "network-key", Unused(LOGINS)),
    ("sr.ht", "redis-host", Is("bus", SERVE)),
    ("mail", "smtp-host", Unused(MAIL)),
    ("mail", "smtp-port", Unused(MAIL)),
    ("mail", "smtp-user", Unused(MAIL)),
    ("mail", "smtp-password", Unused(MAIL)),
    ("mail", "smtp-from", Unused(MAIL)),
    ("mail", "smtp-encryption", Unused(MAIL)),
    ("mail", "error-to", Unused(MAIL)),
    ("mail", "error-from", Unused(MAIL)),
    ("mail", "pgp-privkey", Unused(MAIL)),
    ("mail", "pgp-pubkey", Unused(MAIL)),
    ("mail", "pgp-key-id", Unused(MAIL)),
    ("webhooks", "private-key", Unused(HOOKS)),
    ("objects", "s3-upstream", Is("s3-endpoint", SERVE)),
    ("objects", "s3-access-key", Is("s3-access-key", SERVE)),
    ("objects", "s3-secret-key", Is("s3-secret-key", SERVE)),
    ("objects", "s3-insecure", Is("s3-insecure", SERVE)),
    ("objects", "s3-region", Is("s3-region", SERVE)),
    (BUILDS, "origin", Is("origin", SERVE)),
    (
        BUILDS,
        "api-origin",
        Unused("is not used: the API is at the origin"),
    ),
    (BUILDS, "connection-string", Is("database", SERVE)),
    (BUILDS, "redis", Is("bus", SERVE)),
    (
        BUILDS,
        "migrate-on-upgrade",
        Unused("is not used: `kiln serve` brings its database up to date when it starts"),
    ),
    (
        BUILDS,
        "allow-free",
        Unused("is not used: every user may submit jobs"),
    ),
    (
        BUILDS,
        "shell",
        Unused("is not used: guests are not reached by SSH yet"),
    ),
    (
        BUILDS,
        "debug-host",
        Unused("is not used: --listen says where to listen"),
    ),
    (
        BUILDS,
        "debug-port",
        Unused("is not used: --listen says where to listen"),
    ),
    (BUILDS, "oauth-client-id", Unused(LOGINS)),
    (BUILDS, "oauth-client-secret", Unused(LOGINS)),
    (WORKER, "name", Is("runner", SERVE)),
    (
        WORKER,
        "buildlogs",
        Unused("is not used: logs are kept by the server, in its data directory"),
    ),
    (WORKER, "images", Is("images", BOTH)),
    (
        WORKER,
        "controlcmd",
        Unused("is not used: kiln calls the image's `functions` itself"),
    ),
    (WORKER, "timeout", Is("job-timeout", SERVE)),
    (
        WORKER,
        "bind-address",
        Unused("is not used: a worker listens nowhere"),
    ),
    (WORKER, "trigger-from", Unused(MAIL)),
    (WORKER, "s3-bucket", Is("objects", SERVE)),
    (
        WORKER,
        "s3-prefix",
        Unused("is a part of `objects`, where s3-bucket is there"),
    ),
    ("meta.sr.ht", "origin", Unused(LOGINS)),
];

/// Reads it for a command. What is not known is no error: the file is shared
/// with other services.
///
/// # Errors
/// When it is no INI file, with the line.
pub fn read(path: &Path, text: &str, role: Role) -> Result<Read, String> {
    // As Python's configparser has it, which the file is for.
    let mut ini = Ini::new_cs();
    ini.set_inline_comment_symbols(Some(&[]));
    let sections = ini.read(text.to_owned())?;
    let mut read = Read::default();
    for (section, properties) in &sections {
        let set = properties
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .filter(|(_, value)| !value.is_empty());
        for (name, value) in set {
            take(path, role, (section, name, value), &ini, &mut read);
        }
    }
    // The parser knows no order.
    read.remarks
        .sort_by(|one, other| one.place.cmp(&other.place));
    Ok(read)
}

fn take(
    path: &Path,
    role: Role,
    (section, name, value): (&str, &str, &str),
    ini: &Ini,
    read: &mut Read,
) {
    let place = format!("[{section}] {name}");
    let what = match fate(section, name) {
        Some(Is(key, roles)) if roles.contains(&role) => {
            // The worker's own section is newer, and stronger.
            let older = section == BUILDS && fate_in(BUILDS, name).is_none();
            let is_there = |section, name| {
                ini.get(section, name)
                    .is_some_and(|value| !value.is_empty())
            };
            if older && is_there(WORKER, name) {
                format!("is not used: [{WORKER}] {name} is there")
            } else if name == "redis-host" && is_there(BUILDS, "redis") {
                // The service's own is stronger than that of all services.
                format!("is not used: [{BUILDS}] redis is there")
            } else if let Some(key) = keys::find(role, key) {
                let source = Source::File(path.to_owned(), place.clone());
                let texts = vec![translate(key.name, value, ini)];
                read.values.insert(key.name, Value { texts, source });
                return;
            } else {
                return;
            }
        }
        Some(Is(..)) => format!("is not `{}`'s: the server says it", role.command()),
        Some(Unused(why)) => (*why).to_owned(),
        None if ours(section) => "is not known".to_owned(),
        None => "is another service's".to_owned(),
    };
    read.remarks.push(Remark { place, what });
}

fn ours(section: &str) -> bool {
    FATES.iter().any(|(known, ..)| *known == section)
}

fn fate_in(section: &str, name: &str) -> Option<&'static Fate> {
    let found = FATES.iter().find(|(s, n, _)| *s == section && *n == name);
    found.map(|(_, _, fate)| fate)
}

/// The worker's keys were once in the service's own section.
fn fate(section: &str, name: &str) -> Option<&'static Fate> {
    fate_in(section, name).or_else(|| match section {
        BUILDS => fate_in(WORKER, name),
        _ => None,
    })
}

fn translate(key: &str, value: &str, ini: &Ini) -> String {
    match key {
        // A host, and whether it speaks plain HTTP.
        "s3-endpoint" => match ini.get("objects", "s3-insecure").as_deref() {
            Some("yes" | "true" | "on" | "1") => format!("http://{value}"),
            _ => format!("https://{value}"),
        },
        "objects" => {
            let prefix = [WORKER, BUILDS].into_iter().find_map(|section| {
                let prefix = ini.get(section, "s3-prefix");
                prefix.filter(|prefix| !prefix.is_empty())
            });
            format!("s3://{value}/{}", prefix.unwrap_or_default())
        }
        // SQLAlchemy's spelling has the driver's name in it.
        "database" => match value.split_once("://") {
            Some((scheme, rest)) if scheme.starts_with("postgresql") => {
                format!("postgres://{rest}")
            }
            _ => value.to_owned(),
        },
        // The name of a worker once had its port.
        "runner" => value.split(':').next().unwrap_or(value).to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str, role: Role) -> Vec<(&'static str, String)> {
        let read = read(Path::new("config.ini"), text, role).unwrap();
        let values = read.values.into_iter();
        values
            .map(|(key, value)| (key, value.texts.join(" ")))
            .collect()
    }

    const FILE: &str = "[sr.ht]\nsite-name=our forge\nnetwork-key=x=y\n; a comment\n[git.sr.ht]\norigin=https://git.example\n\
        [builds.sr.ht]\norigin=https://builds.example\nconnection-string=postgresql://sr:s%20cret@db/builds\nnonsense=1\n\
        [builds.sr.ht::worker]\nname=runner.example:5050\nimages=/var/lib/images\ntimeout=1h30m\nbuildlogs=/var/log\n";

    #[test]
    fn what_a_server_can_use_is_mapped() {
        assert_eq!(
            values(FILE, Role::Serve),
            [
                ("database", "postgres://sr:s%20cret@db/builds".to_owned()),
                ("images", "/var/lib/images".to_owned()),
                ("job-timeout", "1h30m".to_owned()),
                ("origin", "https://builds.example".to_owned()),
                ("runner", "runner.example".to_owned()),
                ("site-name", "our forge".to_owned()),
            ]
        );
        assert_eq!(
            values(FILE, Role::Worker),
            [("images", "/var/lib/images".to_owned())]
        );
    }

    #[test]
    fn an_object_store_is_one_address() {
        let file = "[objects]\ns3-upstream=s3.example:9000\ns3-access-key=key\ns3-secret-key=se=cret\n\
            [builds.sr.ht::worker]\ns3-bucket=farm\ns3-prefix=builds\n";
        assert_eq!(
            values(file, Role::Serve),
            [
                ("objects", "s3://farm/builds".to_owned()),
                ("s3-access-key", "key".to_owned()),
                ("s3-endpoint", "https://s3.example:9000".to_owned()),
                ("s3-secret-key", "se=cret".to_owned()),
            ]
        );
        let plain = format!("{file}[objects]\ns3-insecure=yes\n");
        let endpoint = ("s3-endpoint", "http://s3.example:9000".to_owned());
        assert!(values(&plain, Role::Serve).contains(&endpoint));
        assert_eq!(values(file, Role::Worker), []);
    }

    #[test]
    fn every_other_key_is_listed_with_what_becomes_of_it() {
        let read = read(Path::new("config.ini"), FILE, Role::Worker).unwrap();
        let remarks: Vec<String> = read
            .remarks
            .iter()
            .map(|remark| format!("{} {}", remark.place, remark.what))
            .collect();
        for expected in [
            "[git.sr.ht] origin is another service's",
            "[builds.sr.ht] nonsense is not known",
            "[builds.sr.ht] connection-string is not `kiln worker`'s: the server says it",
            "[builds.sr.ht::worker] buildlogs is not used: logs are kept by the server, in its data directory",
        ] {
            assert!(
                remarks.iter().any(|remark| remark == expected),
                "{expected}: {remarks:#?}"
            );
        }
    }

    #[test]
    fn the_workers_keys_are_taken_from_their_older_place_too_but_the_newer_one_is_stronger() {
        let older = "[builds.sr.ht]\nimages=/old\nname=old.example\n";
        assert_eq!(
            values(older, Role::Serve),
            [
                ("images", "/old".to_owned()),
                ("runner", "old.example".to_owned())
            ]
        );
        for both in [
            "[builds.sr.ht]\nimages=/old\n[builds.sr.ht::worker]\nimages=/new\n",
            "[builds.sr.ht::worker]\nimages=/new\n[builds.sr.ht]\nimages=/old\n",
        ] {
            assert_eq!(values(both, Role::Worker), [("images", "/new".to_owned())]);
        }
    }

    #[test]
    fn the_services_own_redis_is_stronger_than_that_of_all() {
        let all = "[sr.ht]\nredis-host=redis://all\n";
        assert_eq!(
            values(all, Role::Serve),
            [("bus", "redis://all".to_owned())]
        );
        assert_eq!(values(all, Role::Worker), []);
        let both = format!("[builds.sr.ht]\nredis=redis://own/3\n{all}");
        assert_eq!(
            values(&both, Role::Serve),
            [("bus", "redis://own/3".to_owned())]
        );
    }

    #[test]
    fn every_setting_that_a_key_becomes_is_there() {
        for (section, name, fate) in FATES {
            if let Is(key, roles) = fate {
                for role in *roles {
                    assert!(keys::find(*role, key).is_some(), "[{section}] {name}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_line() {
        let error = read(
            Path::new("config.ini"),
            "[sr.ht\nsite-name=x\n",
            Role::Serve,
        )
        .unwrap_err();
        assert!(error.starts_with("line "), "{error}");
    }
}
