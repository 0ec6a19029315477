//! `kiln admin`: users, tokens, workers, backups, the schema; straight in the farm's
//! database, also while the server runs.

mod backup;
mod check;
mod tokens;
mod users;
mod workers;

use kiln_store::{Store, StoreError, model::Moment};

use crate::{
    cli::farm::{AdminArgs, AdminCommand, UserCommand, WorkerCommand},
    commands::config::variable,
    config::{Layers, Objects, Place},
    exit::{Exit, Failure},
    ui,
};

/// Runs the command.
pub async fn run(args: &AdminArgs) -> Result<Exit, Failure> {
    let layers = Layers::read(&args.settings, &variable)?;
    let place = Place::read(&layers)?;
    if let AdminCommand::Restore { file } = &args.command {
        return backup::restore(&place, file).await;
    }
    match args.command {
        AdminCommand::Migrate => return migrate(&place).await,
        AdminCommand::Restored => return backup::restored(&place).await,
        _ => {}
    }
    let adds = matches!(
        args.command,
        AdminCommand::User(UserCommand::Add { .. })
            | AdminCommand::Worker(WorkerCommand::Add { .. })
    );
    let store = open(&place, adds).await?;
    match &args.command {
        AdminCommand::User(command) => users::run(&store, command).await,
        AdminCommand::Token(args) => tokens::run(&store, args).await,
        AdminCommand::Worker(command) => workers::run(&store, command).await,
        AdminCommand::Check => check::check(&store, &Objects::read(&layers, &place.data)?).await,
        AdminCommand::Backup { file } => backup::backup(&store, file).await,
        AdminCommand::Restore { .. } | AdminCommand::Restored | AdminCommand::Migrate => {
            Ok(Exit::Success)
        }
    }
}

/// Brings the schema up to date, with the role that may.
async fn migrate(place: &Place) -> Result<Exit, Failure> {
    if let Some(file) = place.owners_file().filter(|file| !file.exists()) {
        return Err(Failure::usage(format!(
            "there is no {}; `kiln serve` makes it",
            file.display()
        )));
    }
    let config = kiln_store::Config {
        url: place.owners.clone(),
        migrate: true,
    };
    Store::open(&config).await.map_err(Failure::host)?;
    ui::note("the database's schema is up to date");
    Ok(Exit::Success)
}

/// The farm's store. A database that is there is left at the version that it
/// has: the server is the one that brings it up to date. Where there is none, one is made
/// for who adds something to it: all others have the wrong directory.
async fn open(place: &Place, adds: bool) -> Result<Store, Failure> {
    let fresh = place.file().is_some_and(|file| !file.exists());
    if fresh && !adds {
        return Err(Failure::usage(format!(
            "{} has no farm's database; --data says where `kiln serve` keeps it",
            place.data.display()
        )));
    }
    if fresh {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut dir = std::fs::DirBuilder::new();
        let made = dir.recursive(true).mode(0o700).create(&place.data);
        made.map_err(|error| Failure::host(format!("{}: {error}", place.data.display())))?;
    }
    let config = kiln_store::Config {
        url: place.database.clone(),
        migrate: fresh,
    };
    Store::open(&config).await.map_err(Failure::host)
}

/// What of the store's answers is the operator's mistake.
fn failed(error: StoreError) -> Failure {
    match error {
        StoreError::NotFound(_) | StoreError::Conflict(_) => Failure::usage(error),
        _ => Failure::host(error),
    }
}

/// Of what is done by name.
fn done(found: bool, what: &str, name: &str) -> Result<Exit, Failure> {
    match found {
        true => Ok(Exit::Success),
        false => Err(Failure::usage(format!("there is no {what} {name}"))),
    }
}

/// A moment, to the minute.
fn date(moment: Moment) -> String {
    let time = jiff::Timestamp::from_microsecond(moment.0);
    time.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string())
        .unwrap_or_default()
}
