//! `kiln image`: images for guests.

mod build;
mod check;
mod control;
mod hosted;
mod list;
mod recipe;

use std::time::Duration;

use kiln_vm::{image::Image, network::Network};

use crate::{
    cli::ImageCommand,
    commands::run::allow,
    exit::{Exit, Failure},
};

/// How long a guest of these commands may take to let us in.
const BOOT_DEADLINE: Duration = Duration::from_mins(10);

/// Runs a command.
pub async fn dispatch(command: ImageCommand) -> Result<Exit, Failure> {
    match command {
        ImageCommand::Build(args) => build::run(&args).await,
        ImageCommand::List { images, json } => list::run(&images, json),
        ImageCommand::Check {
            name,
            arch,
            allow,
            images,
        } => check::run(&images, &name, arch.as_deref(), &allow).await,
        ImageCommand::Control(args) => control::run(&args).await,
    }
}

/// What an image's guests may reach.
async fn network(image: &Image, options: &[String]) -> Result<Network, Failure> {
    let distro = image.name.split('/').next().unwrap_or(&image.name);
    let apt = allow::installs_with_apt(distro);
    allow::public(options, apt, &allow::TO_A_PERSON).await
}
