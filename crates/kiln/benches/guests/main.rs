//! Benchmarks of guests: how soon they start, what they cost.
//!
//! ```text
//! cargo bench --bench guests -- start      time to the first task's output, by all ways
//! cargo bench --bench guests -- density    memory, disk, time and network of many
//! ```
//!
//! docs/benchmarks.md says what the figures mean.

#![expect(clippy::print_stdout, reason = "tables are what this is for")]

#[expect(
    dead_code,
    unused_imports,
    reason = "only the servers are asked for here, and its tests do not run"
)]
#[path = "../../src/host/apt.rs"]
mod apt;
mod bare;
mod density;
mod farm;
mod laps;
mod memory;
mod network;
mod start;
#[expect(dead_code, reason = "benchmarks of the farm use the rest")]
#[path = "../shared/table.rs"]
mod table;

use anyhow::{Context as _, Result, bail};

use farm::Farm;
use laps::Laps;

/// What is installed where something is.
const PACKAGES: &[&str] = &["jq"];

fn main() -> Result<()> {
    // Cargo adds a `--bench` of its own.
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let which = words.next().unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(async {
        let laps = Laps::listen();
        let mut farm = Farm::open().await?;
        farm.allow = mirrors().await;
        match which.as_str() {
            "start" => start::measure(&farm, &laps).await,
            "density" => density::measure(farm, &laps).await,
            _ => bail!("name a benchmark: start or density"),
        }
    });
    runtime.shutdown_background();
    done.context("the benchmark did not come to its end")
}

/// The package mirrors that `kiln run` opens by itself.
async fn mirrors() -> Vec<kiln_vm::network::Allowed> {
    let closed = apt::closed(&apt::servers()).await.into_iter();
    closed
        .filter(|(server, allowed)| server.opens_by_itself(allowed.address))
        .map(|(_, allowed)| allowed)
        .collect()
}
