//! The commands, a file or a folder each.

mod admin;
mod client;
pub mod config;
mod doctor;
mod documents;
mod image;
mod manifest;
mod run;
mod serve;
pub mod ssh;
mod worker;

use crate::{
    cli::{Command, ManifestCommand},
    exit::{Exit, Failure},
};

/// Runs a command.
pub async fn dispatch(command: Command, verbose: u8) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => Box::pin(run::run(*args)).await,
        Command::Manifest(ManifestCommand::Check { files, json }) => {
            Ok(manifest::check(&files, json))
        }
        Command::Image(command) => image::dispatch(command).await,
        Command::Ssh(args) => ssh::run(&args).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Serve(args) => Box::pin(serve::run(&args, verbose)).await,
        Command::Worker(args) => Box::pin(worker::run(&args, verbose)).await,
        Command::Config(command) => config::run(&command),
        Command::Admin(args) => Box::pin(admin::run(&args)).await,
        Command::Completions { shell } => Ok(documents::completions(shell)),
        Command::Man { dir } => documents::man(&dir),
        command => Box::pin(client::dispatch(command)).await,
    }
}
