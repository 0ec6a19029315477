//! The flags, one for each key.

use std::{marker::PhantomData, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::Str, parser::ValueSource,
};

use super::keys::{self, Key, Kind, Role};

/// Which keys a command line has.
pub trait Flags: std::fmt::Debug {
    /// Whose they are.
    const ROLE: Role;
    /// Whether they may stand behind the words of subcommands too.
    const GLOBAL: bool = false;
    /// Whether it has this one of them.
    fn has(_key: &Key) -> bool {
        true
    }
}

/// `kiln serve`'s.
#[derive(Debug)]
pub struct ForServe;

impl Flags for ForServe {
    const ROLE: Role = Role::Serve;
}

/// `kiln worker`'s.
#[derive(Debug)]
pub struct ForWorker;

impl Flags for ForWorker {
    const ROLE: Role = Role::Worker;
}

/// `kiln admin`'s: those of `kiln serve` that say where the state is.
#[derive(Debug)]
pub struct ForAdmin;

impl Flags for ForAdmin {
    const ROLE: Role = Role::Serve;
    const GLOBAL: bool = true;

    fn has(key: &Key) -> bool {
        matches!(
            key.name,
            "data" | "database" | "database-password-file" | "owner-database" | "objects"
        ) || key.name.starts_with("s3-")
    }
}

/// What a command line said.
#[derive(Debug)]
pub struct Settings<F> {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Keys and their values.
    pub given: Vec<(&'static Key, Vec<String>)>,
    flags: PhantomData<F>,
}

/// Of `kiln serve`.
pub type ServeSettings = Settings<ForServe>;
/// Of `kiln worker`.
pub type WorkerSettings = Settings<ForWorker>;
/// Of `kiln admin`.
pub type AdminSettings = Settings<ForAdmin>;

const CONFIG: &str = "config";

impl<F: Flags> Settings<F> {
    /// Whose keys these are.
    pub fn role(&self) -> Role {
        F::ROLE
    }
}

fn keys_of<F: Flags>() -> impl Iterator<Item = &'static Key> {
    keys::of(F::ROLE).filter(|key| F::has(key))
}

impl<F: Flags> Args for Settings<F> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .env("KILN_CONFIG")
            .hide_env_values(true)
            .global(F::GLOBAL)
            .value_parser(clap::value_parser!(PathBuf))
            .help("Read settings from this file: TOML, or SourceHut's config.ini");
        keys_of::<F>().fold(command.arg(config), |command, key| {
            command.arg(flag(key).global(F::GLOBAL))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Variables are read with the file, so that each value's origin is known.
fn flag(key: &'static Key) -> Arg {
    let default = match key.default {
        "" | "false" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let help = format!("{} [env: {}]{default}", key.help, key.variable());
    let arg = Arg::new(Str::from(key.name))
        .long(key.name)
        .value_name(key.placeholder)
        .hide([keys::DUMMY, keys::DUMMY_NULL].contains(&key.name))
        .help(help);
    match key.kind {
        // Of one that is repeated the last counts.
        Kind::One => arg.action(ArgAction::Set).overrides_with(key.name),
        Kind::Many => arg.action(ArgAction::Append),
        Kind::Switch => arg
            .action(ArgAction::Set)
            .overrides_with(key.name)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

impl<F: Flags> FromArgMatches for Settings<F> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = |key: &&Key| matches.value_source(key.name) == Some(ValueSource::CommandLine);
        let given = keys_of::<F>().filter(said).map(|key| {
            let values = matches.get_many::<String>(key.name);
            (key, values.into_iter().flatten().cloned().collect())
        });
        Ok(Self {
            config: matches.get_one::<PathBuf>(CONFIG).cloned(),
            given: given.collect(),
            flags: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags<F: Flags>() -> Vec<String> {
        let command = Settings::<F>::augment_args(Command::new("x"));
        let flags = command.get_arguments().filter_map(Arg::get_long);
        flags.map(str::to_owned).collect()
    }

    #[test]
    fn every_key_has_a_flag_and_every_flag_a_key() {
        fn same<F: Flags>() {
            let mut expected = vec![CONFIG.to_owned()];
            expected.extend(keys::of(F::ROLE).map(|key| key.name.to_owned()));
            assert_eq!(flags::<F>(), expected);
        }
        same::<ForServe>();
        same::<ForWorker>();
        assert_eq!(
            flags::<ForAdmin>(),
            [
                CONFIG,
                "data",
                "database",
                "database-password-file",
                "owner-database",
                "objects",
                "s3-endpoint",
                "s3-region",
                "s3-access-key",
                "s3-secret-key-file",
                "s3-secret-key",
                "s3-virtual-host",
                "s3-ca",
                "s3-insecure",
            ]
        );
    }

    #[test]
    fn a_switch_may_be_turned_off_and_a_list_be_given_piece_by_piece() {
        let command = ForServeCommand::augment_args(Command::new("x"));
        let words = [
            "x",
            "--no-worker=false",
            "--insecure",
            "--label",
            "a=1",
            "--label",
            "b=2",
        ];
        let matches = command.try_get_matches_from(words).unwrap();
        let settings = ForServeCommand::from_arg_matches(&matches).unwrap();
        let given: Vec<(&str, String)> = settings
            .given
            .iter()
            .map(|(key, values)| (key.name, values.join(" ")))
            .collect();
        assert_eq!(
            given,
            [
                ("insecure", "true".to_owned()),
                ("no-worker", "false".to_owned()),
                ("label", "a=1 b=2".to_owned())
            ]
        );
    }

    type ForServeCommand = Settings<ForServe>;
}
