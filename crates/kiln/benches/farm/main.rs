//! Benchmarks of the farm: what server, workers and store take and how soon.
//!
//! ```text
//! cargo bench --features testing --bench farm              all
//! cargo bench --features testing --bench farm -- logs      one
//! ```
//!
//! Servers and workers are processes of the binary, workers with the dummy machine.
//! docs/benchmarks.md says what the figures mean.

#![expect(clippy::print_stdout, reason = "tables are what this is for")]

mod celery;
mod claims;
mod counting;
mod engines;
mod farm;
mod jobs;
mod logs;
mod memory;
#[path = "../shared/table.rs"]
mod table;
mod tail;
mod workers;

use std::{pin::Pin, time::Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use table::Table;

/// What a benchmark found.
pub struct Report {
    /// For people.
    pub tables: Vec<Table>,
    /// For programs: numbers, with units in their names.
    pub figures: Value,
}

type Measuring = Pin<Box<dyn Future<Output = Result<Report>>>>;

struct Bench {
    name: &'static str,
    what: &'static str,
    measure: fn() -> Measuring,
}

/// All, in the order in which they run: the name is the word of the command line.
const BENCHES: &[Bench] = &[
    Bench {
        name: "logs",
        what: "bytes and lines of logs in a second, from workers to stored",
        measure: || Box::pin(logs::measure()),
    },
    Bench {
        name: "tail",
        what: "from the moment in which a task says a line until who follows its log reads it",
        measure: || Box::pin(tail::measure()),
    },
    Bench {
        name: "claims",
        what: "claims in a second and how soon, with a long queue of many shares",
        measure: || Box::pin(claims::measure()),
    },
    Bench {
        name: "jobs",
        what: "null jobs in a second, end to end, and Celery beside them",
        measure: || Box::pin(jobs::measure()),
    },
    Bench {
        name: "memory",
        what: "resident memory of an idle server and an idle worker",
        measure: || Box::pin(memory::measure()),
    },
    Bench {
        name: "workers",
        what: "a server with many workers that renew: memory, processor, and claims then",
        measure: || Box::pin(workers::measure()),
    },
];

fn main() -> Result<()> {
    // Cargo adds a `--bench` of its own.
    let words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let words: Vec<String> = words.collect();
    if let Some(word) = words
        .iter()
        .find(|word| !BENCHES.iter().any(|bench| bench.name == *word))
    {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!(
            "there is no benchmark `{word}`; there are {}",
            names.join(", ")
        );
    }
    let runtime = tokio::runtime::Runtime::new()?;
    for bench in BENCHES {
        if words.is_empty() || words.iter().any(|word| word == bench.name) {
            runtime.block_on(run(bench)).with_context(|| {
                format!("the benchmark `{}` did not come to its end", bench.name)
            })?;
        }
    }
    runtime.shutdown_background();
    Ok(())
}

async fn run(bench: &Bench) -> Result<()> {
    println!("\n{}: {}", bench.name, bench.what);
    let programs = engines::programs()?;
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    let mut machine = table::machine(&programs);
    for (name, version) in engines::packages() {
        machine["engines"][name] = version.into();
    }
    let started = Instant::now();
    let report = (bench.measure)().await?;
    let seconds = started.elapsed().as_secs_f64();
    for table in &report.tables {
        table.print();
    }
    let load = table::load();
    println!(
        "\n  took {seconds:.0} s; the host's load was {} before and {load} after",
        machine["load"]
    );
    let tables = report.tables.iter().map(Table::json).collect::<Vec<_>>();
    let value = json!({
        "bench": bench.name,
        "what": bench.what,
        "machine": machine,
        "seconds": seconds,
        "load_after": load,
        "figures": report.figures,
        "tables": tables,
    });
    table::write_json(&format!("bench-{}.json", bench.name), &value)
}
