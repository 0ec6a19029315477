//! `kiln worker`: a farm's jobs on this host.
//!
//! | file | what |
//! |---|---|
//! | `host` | what `kiln_worker::farm` needs of a host: QEMU's |
//! | `images` | the images that are here, with their versions |
//! | `room` | how many more guests memory and disk allow |
//! | `pools` | guests that stand ready |

#[cfg(feature = "testing")]
mod dummy;
mod host;
mod images;
mod pools;
mod room;

use std::{path::Path, sync::Arc};

use kiln_wire::client::{Client, Options, Target};
use kiln_worker::{
    Limits,
    farm::{self, Host, Wish},
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};

use self::host::QemuHost;
use super::config::variable;
use crate::{
    cli::farm::WorkerArgs,
    config::{GuestConfig, Layers, WorkerConfig},
    exit::{Exit, Failure},
    host::{private, proxy, signals},
    logging,
};

/// Runs the command.
pub async fn run(args: &WorkerArgs, verbose: u8) -> Result<Exit, Failure> {
    let layers = Layers::read(&args.settings, &variable)?;
    let config = WorkerConfig::read(&layers)?;
    logging::for_services(config.log_format, verbose);
    let signals = signals::asked_to_end();
    let proxy = config.proxy.clone();
    let options = Options {
        proxy: proxy.or_else(|| proxy::of_environment(&config.server)),
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
    guests: &GuestConfig,
    data: &Path,
    client: Client,
    mut signals: watch::Receiver<u32>,
) -> Result<(), Failure> {
    let config = farm::Config {
        client,
        slots: guests.slots,
        labels: guests.labels.clone(),
        data_dir: data.to_owned(),
        limits: Limits::default(),
        spool: farm::SPOOL,
    };
    #[cfg(feature = "testing")]
    if let Some(start) = guests.dummy {
        let host: Arc<dyn Host> = Arc::new(dummy::DummyHost(start));
        return Ok(farm::run(config, host, wishes(&signals)).await?);
    }
    let looked = QemuHost::look(guests, data);
    let host = tokio::select! {
        host = looked => Arc::new(host?),
        () = signals::asked(&mut signals, 1) => return Ok(()),
    };
    let shared: Arc<dyn Host> = Arc::clone(&host) as _;
    let worked = farm::run(config, shared, wishes(&signals)).await;
    host.end().await;
    Ok(worked?)
}

/// What the signals ask of the worker.
fn wishes(signals: &watch::Receiver<u32>) -> watch::Receiver<Wish> {
    let (wish, wishes) = watch::channel(Wish::Run);
    let mut signals = signals.clone();
    tokio::spawn(async move {
        for (times, asked) in [(1, Wish::Drain), (2, Wish::Stop)] {
            signals::asked(&mut signals, times).await;
            wish.send_replace(asked);
        }
        // Nobody must take the wish for one that can't be changed any more.
        wish.closed().await;
    });
    wishes
}
