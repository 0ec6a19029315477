//! The commands, a file or a folder each.

mod doctor;
mod documents;
mod image;
mod manifest;
mod run;
pub mod ssh;

use crate::{
    cli::{Command, ManifestCommand},
    exit::{Exit, Failure},
};

/// Runs a command.
pub async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => Box::pin(run::run(*args)).await,
        Command::Manifest(ManifestCommand::Check { files, json }) => {
            Ok(manifest::check(&files, json))
        }
        Command::Image(command) => image::dispatch(command).await,
        Command::Ssh(args) => ssh::run(&args).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Completions { shell } => Ok(documents::completions(shell)),
        Command::Man { dir } => documents::man(&dir),
    }
}
