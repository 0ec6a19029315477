//! `kiln config`: what holds, where it was said, and what of a file is not used.

use std::ffi::OsString;

use clap::Command;

use crate::{
    cli::farm::{ConfigArgs, ConfigCommand},
    config::{
        Layers, Place, Role, ServeConfig, ServeSettings, Source, WorkerConfig, WorkerSettings, keys,
    },
    exit::{Exit, Failure},
    ui,
};

/// Runs the command.
pub fn run(command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => check(&layers(args)?),
        ConfigCommand::Show(args) => show(&layers(args)?),
    }
}

/// What a variable of this process is set to.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn layers(args: &ConfigArgs) -> Result<Layers, Failure> {
    match Role::from(args.of) {
        Role::Serve => Layers::read(&parse::<ServeSettings>(args)?, &variable),
        Role::Worker => Layers::read(&parse::<WorkerSettings>(args)?, &variable),
    }
}

/// As that command would read these flags.
fn parse<S: clap::Args>(args: &ConfigArgs) -> Result<S, Failure> {
    let config = args
        .config
        .iter()
        .flat_map(|file| ["--config".into(), file.clone().into_os_string()]);
    let words = config.chain(args.flags.iter().map(OsString::from));
    let command = Command::new(Role::from(args.of).command()).no_binary_name(true);
    let matches = S::augment_args(command).try_get_matches_from(words);
    let read = matches.and_then(|matches| S::from_arg_matches(&matches));
    read.map_err(|error| Failure::usage(error.to_string().trim_end().trim_start_matches("error: ")))
}

fn check(layers: &Layers) -> Result<Exit, Failure> {
    for remark in &layers.remarks {
        ui::note(&format!("{} {}", remark.place, remark.what));
    }
    match layers.role() {
        Role::Serve => drop(ServeConfig::read(layers)?),
        Role::Worker => drop(WorkerConfig::read(layers)?),
    }
    ui::line(&format!(
        "the settings of `{}` are right",
        layers.role().command()
    ));
    Ok(Exit::Success)
}

/// As a file that would say the same; what nobody said is a comment.
fn show(layers: &Layers) -> Result<Exit, Failure> {
    for key in keys::of(layers.role()) {
        let value = layers.value(key);
        let texts: Vec<String> = value.texts.iter().map(|text| shown(key, text)).collect();
        let written = match (key.kind, texts.as_slice()) {
            (_, []) => {
                ui::line(&format!("# {} is not set", key.name));
                continue;
            }
            (keys::Kind::Many, texts) => format!("[{}]", texts.join(", ")),
            (_, texts) => texts.last().cloned().unwrap_or_default(),
        };
        let comment = if value.source == Source::Default {
            "# "
        } else {
            ""
        };
        ui::line(&format!(
            "{comment}{} = {written} # {}",
            key.name, value.source
        ));
    }
    if layers.role() == Role::Serve && layers.remarks.is_empty() {
        // Where that is depends on the environment alone.
        ui::line(&format!(
            "# the data directory is {}",
            Place::read(layers)?.data.display()
        ));
    }
    Ok(Exit::Success)
}

fn shown(key: &keys::Key, text: &str) -> String {
    let text = match key.secret {
        true => masked(text),
        false => text.to_owned(),
    };
    match key.kind {
        keys::Kind::Switch => text,
        _ if text.parse::<u64>().is_ok() => text,
        // A text of TOML's, which JSON's are too.
        _ => serde_json::Value::from(text).to_string(),
    }
}

/// A URL without its password, wherever somebody put it.
fn masked(url: &str) -> String {
    if !url.contains("://") {
        // It is no URL: all of it may be secret.
        return "…".to_owned();
    }
    let (url, query) = url
        .split_once('?')
        .map_or((url, ""), |(url, _)| (url, "?…"));
    match (url.split_once("://"), url.rfind('@')) {
        (Some((scheme, rest)), Some(at)) if at > scheme.len() => {
            let user = rest.split([':', '@']).next().unwrap_or_default();
            let after = url.get(at..).unwrap_or_default();
            format!("{scheme}://{user}:…{after}{query}")
        }
        _ => format!("{url}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_database_is_shown() {
        for (url, shown) in [
            (
                "postgres://kiln:hunter2@db/kiln",
                "postgres://kiln:…@db/kiln",
            ),
            (
                "postgres://kiln:hunter@2@db/kiln",
                "postgres://kiln:…@db/kiln",
            ),
            (
                "postgres://db/kiln?password=hunter2",
                "postgres://db/kiln?…",
            ),
            ("sqlite:///srv/kiln.db", "sqlite:///srv/kiln.db"),
        ] {
            assert_eq!(masked(url), shown);
        }
    }
}
