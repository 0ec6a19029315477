//! Which settings there are.

/// Which command a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `kiln serve`, and `kiln admin` for where the state is.
    Serve,
    /// `kiln worker`.
    Worker,
}

impl Role {
    /// The command.
    pub fn command(self) -> &'static str {
        match self {
            Self::Serve => "kiln serve",
            Self::Worker => "kiln worker",
        }
    }
}

/// What a setting's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One text or number.
    One,
    /// Yes or no.
    Switch,
    /// Any number of texts: a list in a file, the flag again and again, words
    /// with spaces between them in a variable.
    Many,
}

/// A setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The key in a file; the flag is `--name`.
    pub name: &'static str,
    /// Who has it.
    pub roles: &'static [Role],
    /// What its value is.
    pub kind: Kind,
    /// What stands for the value in help texts.
    pub placeholder: &'static str,
    /// What it means, without a full stop.
    pub help: &'static str,
    /// What holds when nobody says anything; empty when that is nothing, or
    /// depends on the host, which the help says.
    pub default: &'static str,
    /// Whether the value may hold a password.
    pub secret: bool,
}

impl Key {
    /// The variable of the environment.
    pub fn variable(&self) -> String {
        format!("KILN_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// The keys of a command, in the order of its help.
pub fn of(role: Role) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.roles.contains(&role))
}

/// One key of a command.
pub fn find(role: Role, name: &str) -> Option<&'static Key> {
    of(role).find(|key| key.name == name)
}

const fn one(
    name: &'static str,
    roles: &'static [Role],
    placeholder: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        roles,
        kind: Kind::One,
        placeholder,
        help,
        default,
        secret: false,
    }
}

const fn switch(name: &'static str, roles: &'static [Role], help: &'static str) -> Key {
    Key {
        kind: Kind::Switch,
        ..one(name, roles, "BOOL", "false", help)
    }
}

const fn many(
    name: &'static str,
    roles: &'static [Role],
    placeholder: &'static str,
    help: &'static str,
) -> Key {
    Key {
        kind: Kind::Many,
        ..one(name, roles, placeholder, "", help)
    }
}

const SERVE: &[Role] = &[Role::Serve];
const WORKER: &[Role] = &[Role::Worker];
const BOTH: &[Role] = &[Role::Serve, Role::Worker];

/// All of them.
pub const KEYS: &[Key] = &[
    one(
        "listen",
        SERVE,
        "ADDR",
        "127.0.0.1:8080",
        "Where to listen for HTTP: an address and a port, of which 0 is any that is free",
    ),
    one(
        "unix",
        SERVE,
        "PATH",
        "",
        "Listen at this socket of the host too: for a proxy, or for workers that come through a tunnel",
    ),
    one(
        "data",
        SERVE,
        "DIR",
        "",
        "Where the farm's state is; default $XDG_DATA_HOME/kiln/serve. One server at a time uses it",
    ),
    Key {
        secret: true,
        ..one(
            "database",
            SERVE,
            "URL",
            "",
            "The database: postgres://USER@HOST/NAME, or sqlite:///FILE; default the file kiln.db in the data directory",
        )
    },
    one(
        "database-password-file",
        SERVE,
        "FILE",
        "",
        "The file with the password for --database; nobody else may read it. PGPASSWORD and ~/.pgpass are read too",
    ),
    one(
        "database-connections",
        SERVE,
        "N",
        "16",
        "How many connections to PostgreSQL this server has at the most",
    ),
    Key {
        secret: true,
        ..one(
            "owner-database",
            SERVE,
            "URL",
            "",
            "The database with the role that owns its tables, for `kiln admin migrate`; default --database",
        )
    },
    switch(
        "no-migrate",
        SERVE,
        "Don't bring an older schema up to date: only `kiln admin migrate` does",
    ),
    Key {
        secret: true,
        ..one(
            "bus",
            SERVE,
            "URL",
            "",
            "The bus between several servers: redis://HOST, or rediss:// with TLS, of a Redis, Valkey or Redict; a number at the end (/3) tells farms on one apart",
        )
    },
    one(
        "bus-password-file",
        SERVE,
        "FILE",
        "",
        "The file with the password for --bus; nobody else may read it",
    ),
    one(
        "bus-ca",
        SERVE,
        "FILE",
        "",
        "The certificates (PEM) by which --bus is known, instead of the host's",
    ),
    one(
        "objects",
        SERVE,
        "DIR|s3://BUCKET/PREFIX",
        "",
        "Where logs and artifacts are: a directory, or a bucket that is there; default the directory objects in the data directory",
    ),
    one(
        "s3-endpoint",
        SERVE,
        "URL",
        "",
        "The object store's URL; default Amazon's in the region",
    ),
    one(
        "s3-region",
        SERVE,
        "REGION",
        "us-east-1",
        "The object store's region",
    ),
    one(
        "s3-access-key",
        SERVE,
        "KEY",
        "",
        "The name of the key to the bucket",
    ),
    one(
        "s3-secret-key-file",
        SERVE,
        "FILE",
        "",
        "The file with the secret of that key; nobody else may read it",
    ),
    Key {
        secret: true,
        ..one(
            "s3-secret-key",
            SERVE,
            "SECRET",
            "",
            "The secret itself: in a file or the environment only, for others see command lines",
        )
    },
    switch(
        "s3-virtual-host",
        SERVE,
        "The bucket is part of the object store's host name, not of the path",
    ),
    one(
        "s3-ca",
        SERVE,
        "FILE",
        "",
        "Further certificates to trust of the object store (PEM), besides the host's",
    ),
    switch(
        "s3-insecure",
        SERVE,
        "Allow plain HTTP to an object store on another host",
    ),
    one(
        "tls-cert",
        SERVE,
        "FILE",
        "",
        "Serve HTTPS with these certificates (PEM), the server's own first",
    ),
    one(
        "tls-key",
        SERVE,
        "FILE",
        "",
        "The certificate's private key (PEM); nobody else may read the file",
    ),
    switch(
        "insecure",
        SERVE,
        "Allow plain HTTP on an address that others can reach: behind a proxy that speaks HTTPS",
    ),
    one(
        "origin",
        SERVE,
        "URL",
        "",
        "The farm's URL as people and workers see it; default from --listen",
    ),
    one(
        "site-name",
        SERVE,
        "NAME",
        "kiln",
        "How the farm calls itself",
    ),
    one(
        "runner",
        SERVE,
        "HOST",
        "",
        "The host by which people reach guests by SSH, without a port; default the origin's host",
    ),
    one(
        "ssh-user",
        SERVE,
        "USER",
        "builds",
        "The user's name of that",
    ),
    one(
        "job-timeout",
        SERVE,
        "TIME",
        "45m",
        "How long a job may take, its guest's start included",
    ),
    one(
        "share-cap",
        SERVE,
        "N",
        "",
        "How many jobs of one owner run at once at the most; default as many as there are slots",
    ),
    one(
        "artifact-limit",
        SERVE,
        "SIZE",
        "1G",
        "The largest artifact that is kept",
    ),
    one(
        "keep-logs",
        SERVE,
        "TIME",
        "forever",
        "How long the logs of a job are kept after its end",
    ),
    one(
        "keep-artifacts",
        SERVE,
        "TIME",
        "90d",
        "How long the artifacts of a job are kept after its end",
    ),
    one(
        "owner-storage",
        SERVE,
        "SIZE",
        "",
        "How much one owner's ended jobs may keep; the oldest artifacts go first, then the oldest logs; default any",
    ),
    one(
        "drain",
        SERVE,
        "TIME",
        "0s",
        "How long a server that ends serves on while /readyz says so: behind a proxy, as long as that takes to see it",
    ),
    switch("no-worker", SERVE, "Run no jobs here: only workers do"),
    one(
        "server",
        WORKER,
        "URL|unix:PATH",
        "",
        "Where the server is: https://HOST, http://localhost:PORT, or a socket of this host at the end of a tunnel",
    ),
    one(
        "token-file",
        WORKER,
        "FILE",
        "",
        "The file with the token that `kiln admin worker add` printed; nobody else may read it",
    ),
    one(
        "data",
        WORKER,
        "DIR",
        "",
        "Where guests' files and what waits to be sent are; default $XDG_DATA_HOME/kiln/worker. One worker at a time uses it",
    ),
    Key {
        secret: true,
        ..one(
            "proxy",
            WORKER,
            "URL",
            "",
            "A proxy on the way to the server: http://HOST:PORT; default what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say",
        )
    },
    one(
        "ca",
        WORKER,
        "FILE",
        "",
        "Further certificates to trust (PEM), besides the host's",
    ),
    switch("insecure", WORKER, "Allow plain HTTP to another host"),
    one(
        "slots",
        BOTH,
        "N",
        "2",
        "How many jobs run at once at the most; fewer when memory or disk are short",
    ),
    one(
        "images",
        BOTH,
        "DIR",
        "",
        "The images directory; default $XDG_DATA_HOME/kiln/images where that exists, else /var/lib/kiln/images",
    ),
    many(
        "label",
        BOTH,
        "KEY=VALUE",
        "What jobs may ask for with --require, besides image and architecture",
    ),
    one(
        "memory",
        BOTH,
        "SIZE",
        "",
        "Each guest's memory: 2048, 2G; default the image's own",
    ),
    one("cpus", BOTH, "N", "2", "Each guest's processors"),
    one(
        "disk",
        BOTH,
        "SIZE",
        "",
        "How much a guest may write to its disk: 4096, 4G; default all that the disk holds",
    ),
    many(
        "allow",
        BOTH,
        "HOST[:PORT]",
        "An address outside the public internet that guests may reach",
    ),
    switch("no-network", BOTH, "No network for guests"),
    one(
        "derived-ttl",
        BOTH,
        "TIME",
        "1d",
        "How old a kept guest with a job's packages may be; with 0 none is used or kept",
    ),
    one(
        "boot-timeout",
        BOTH,
        "TIME",
        "5m",
        "How long a guest may take to let us in",
    ),
    one(
        "pool",
        BOTH,
        "N",
        "1",
        "How many guests of an image that jobs use stand ready; with 0 none",
    ),
    one(
        "log-format",
        BOTH,
        "FORMAT",
        "text",
        "What is written to standard error: text, or json with one object per line",
    ),
    #[cfg(feature = "testing")]
    switch(DUMMY, BOTH, "Run jobs on the dummy machine"),
    #[cfg(feature = "testing")]
    switch(
        DUMMY_NULL,
        BOTH,
        "Run jobs on the dummy machine, in guests that do nothing",
    ),
];

/// For tests and benchmarks: left out of help texts.
pub const DUMMY: &str = "dummy";
pub const DUMMY_NULL: &str = "dummy-null";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_command_has_each_key_once_and_each_says_what_it_means() {
        for role in [Role::Serve, Role::Worker] {
            let mut names = BTreeSet::new();
            for key in of(role) {
                assert!(names.insert(key.name), "{} is there twice", key.name);
                assert!(!key.help.is_empty() && !key.help.ends_with('.'));
            }
            assert!(names.len() > 10);
        }
    }
}
