//! `kiln worker`: a farm's jobs on this host.

use std::path::Path;

use kiln_wire::client::{Client, Options, Target};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};

use super::config::variable;
use crate::{
    cli::farm::WorkerArgs,
    config::{GuestConfig, Layers, WorkerConfig},
    exit::{Exit, Failure},
    host::{data_dir::DataDir, private, proxy, signals},
    logging,
};

/// Runs the command.
pub async fn run(args: &WorkerArgs, verbose: u8) -> Result<Exit, Failure> {
    let layers = Layers::read(&args.settings, &variable)?;
    let config = WorkerConfig::read(&layers)?;
    logging::for_services(config.log_format, verbose);
    let signals = signals::asked_to_end();
    let options = Options {
        proxy: config.proxy.clone().or_else(|| proxy::of_environment(&config.server)),
        insecure: config.insecure,
        ca: config.ca.clone(),
        token: Some(private::token(&config.token_file)?),
    };
    let client = Client::new(&config.server, &options).map_err(Failure::usage)?;
    work(&config.guests, &config.data, client, signals).await?;
    Ok(Exit::Success)
}

/// The worker inside a server: the same, over memory.
pub async fn inside(
    guests: &GuestConfig,
    data: &Path,
    connections: mpsc::Sender<DuplexStream>,
    token: String,
    signals: watch::Receiver<u32>,
) -> Result<(), Failure> {
    let options = Options {
        token: Some(token),
        ..Options::default()
    };
    let client = Client::new(&Target::Memory(connections), &options).map_err(Failure::host)?;
    work(guests, data, client, signals).await
}

async fn work(
    _guests: &GuestConfig,
    data: &Path,
    _client: Client,
    mut signals: watch::Receiver<u32>,
) -> Result<(), Failure> {
    let _data = DataDir::take(data)?;
    signals::asked(&mut signals, 1).await;
    Ok(())
}
