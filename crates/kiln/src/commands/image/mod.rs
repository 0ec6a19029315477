//! `kiln image`: images for guests.

mod build;
mod check;
mod control;
mod hosted;
mod list;
mod recipe;

use std::time::Duration;

use crate::{
    cli::ImageCommand,
    exit::{Exit, Failure},
};

/// How long a guest of these commands may take to let us in.
const BOOT_DEADLINE: Duration = Duration::from_mins(10);

/// Runs a command.
pub async fn dispatch(command: ImageCommand) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Build(args) => build::run(&args).await,
        ImageCommand::List { images, json } => list::run(&images, json),
        ImageCommand::Check { name, arch, images } => {
            check::run(&images, &name, arch.as_deref()).await
        }
        ImageCommand::Control(args) => control::run(&args).await,
    }
}
