//! `kiln serve`: the farm's server, and a worker inside.
//!
//! ```text
//! settings ─► data directory (locked) ─► database ─► bucket ─► listeners ─► kiln_server
//!                                                                  │ memory
//!                                                                  └──────── the worker inside
//! ```

mod database;
mod listen;
mod tls;
mod wait;

use std::time::Duration;

use kiln_bus::Bus;
use kiln_objects::ReachError;
use kiln_server::{Listener, Running};
use kiln_store::{Store, token};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};

use self::wait::{Why, until_there};
use super::{config::variable, worker};
use crate::{
    cli::farm::ServeArgs,
    config::{GuestConfig, Layers, ServeConfig},
    exit::{Exit, Failure},
    host::{data_dir::DataDir, private, signals},
    logging,
};

/// Connections of the worker inside that wait to be taken.
const CONNECTIONS: usize = 16;

/// Runs the command.
pub async fn run(args: &ServeArgs, verbose: u8) -> Result<Exit, Failure> {
    private::close().map_err(Failure::host)?;
    let layers = Layers::read(&args.settings, &variable)?;
    let config = ServeConfig::read(&layers)?;
    logging::for_services(config.log_format, verbose);
    for remark in &layers.remarks {
        tracing::debug!("{} {}", remark.place, remark.what);
    }
    let mut signals = signals::asked_to_end();
    let data = DataDir::take(&config.data)?;
    let Some(store) = database::open(&config, &mut signals).await? else {
        return Ok(Exit::Success);
    };
    let objects = config.objects.with_secret()?;
    if reach(&objects, &mut signals).await?.is_none() {
        return Ok(Exit::Success);
    }
    let (connections, memory) = mpsc::channel(CONNECTIONS);
    let bound = listen::bind(&config).await?;
    let origin = config
        .origin
        .clone()
        .unwrap_or_else(|| bound.origin.clone());
    let mut listeners = bound.listeners;
    listeners.push(Listener::Memory(memory));
    let told = of_server(&config, &origin, objects, bus(&config, &store).await?);
    let server = kiln_server::start(told, store.clone(), listeners).await?;
    tracing::info!(origin, data = %data.path().display(), "serving {}", bound.origin);
    say_how_to_begin(&store, &config).await;
    let ended = match &config.worker {
        Some(guests) => work_inside(&store, &config, guests, connections, signals.clone()).await,
        None => {
            signals::asked(&mut signals, 1).await;
            Ok(())
        }
    };
    end(server, config.drain, &mut signals).await;
    ended.map(|()| Exit::Success)
}

/// Asks the place of logs and artifacts whether it is there; none when this process is asked to
/// end before it is.
async fn reach(
    objects: &kiln_objects::Config,
    signals: &mut watch::Receiver<u32>,
) -> Result<Option<()>, Failure> {
    let reach = async || {
        objects.reach().await.map_err(|error| match error {
            ReachError::Away(why) => Why::Away(why.to_string()),
            ReachError::Wrong(why) => Why::Wrong(why.to_string()),
        })
    };
    until_there(signals, reach).await
}

/// The way to other servers. It connects in the background: one that is away keeps nobody
/// from serving.
async fn bus(config: &ServeConfig, store: &Store) -> Result<Bus, Failure> {
    let Some(config) = &config.bus else {
        return Ok(Bus::in_process());
    };
    let key = store.bus_key().await.map_err(Failure::host)?;
    if config.url.starts_with("redis://") && !config.is_near() {
        tracing::warn!(
            "the bus is on another host and has no TLS: whoever is on the way there reads its password, and logs as they grow"
        );
    }
    Bus::redis(config, kiln_bus::Key(key)).map_err(Failure::host)
}

fn of_server(
    config: &ServeConfig,
    origin: &str,
    objects: kiln_objects::Config,
    bus: Bus,
) -> kiln_server::Config {
    kiln_server::Config {
        bus,
        objects,
        origin: origin.to_owned(),
        site_name: config.site_name.clone(),
        runner: config
            .runner
            .clone()
            .unwrap_or_else(|| listen::host(origin).to_owned()),
        ssh_user: config.ssh_user.clone(),
        job_timeout: config.job_timeout,
        share_cap: config.share_cap,
        artifact_limit: config.artifact_limit,
        retention: config.retention.clone(),
    }
}

/// The first user is made by whoever may write the database.
async fn say_how_to_begin(store: &Store, config: &ServeConfig) {
    if store.users().await.is_ok_and(|users| users.is_empty()) {
        let data = config.data.display().to_string();
        let data = kiln_core::guest_files::shell_quote(&data);
        tracing::info!(
            "there are no users yet: `kiln admin --data {data} user add NAME --email ADDRESS --admin` makes the first, \
             `kiln admin --data {data} token NAME --grants \"JOBS:RW LOGS:RO SECRETS:RW PROFILE:RO\"` a token for `kiln login`"
        );
    }
}

/// Until it has ended: nobody but us starts jobs here.
async fn work_inside(
    store: &Store,
    config: &ServeConfig,
    guests: &GuestConfig,
    connections: mpsc::Sender<DuplexStream>,
    signals: watch::Receiver<u32>,
) -> Result<(), Failure> {
    let (token, hash) = token::make(token::Kind::Worker).map_err(Failure::host)?;
    store
        .renew_worker(&database::inside(config), hash)
        .await
        .map_err(Failure::host)?;
    let data = config.data.join("worker");
    worker::inside(guests, &data, connections, token, signals).await
}

/// In order, and in bounded time.
async fn end(server: Running, drain: Duration, signals: &mut watch::Receiver<u32>) {
    server.leave();
    tokio::select! {
        () = tokio::time::sleep(drain) => {}
        () = signals::asked(signals, 2) => {}
    }
    server.stop().await;
    tracing::info!("the server has ended");
}
