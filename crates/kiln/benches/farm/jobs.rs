//! Null jobs, from the first submission over HTTP to the last end; and beside them, in
//! alternate rounds on the same PostgreSQL, as many empty tasks through Celery on Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kiln_store::testing::Postgres;
use kiln_wire::client::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    Report,
    celery::{Celery, Processes},
    counting::{Counting, rate},
    farm::{Farm, Process, client, manifest, of_postgres},
    table::{Table, ends, median},
};

/// Jobs of a round, and tasks of one.
const JOBS: usize = 4_000;
/// Jobs of a round whose task is a shell.
const SHELLS: usize = 200;
/// Rounds of each.
const ROUNDS: usize = 3;
/// Connections that submit, a user each.
const CONNECTIONS: usize = 16;
/// Workers, and slots of each.
const WORKERS: usize = 2;
const SLOTS: u32 = 64;
/// Slots of each where a task is a shell.
const SHELL_SLOTS: u32 = 4;
/// Celery's processes that are tried: those that submit, and those that run.
const PRODUCERS: [usize; 3] = [1, 2, 4];
const CELERY_WORKERS: [usize; 3] = [2, 4, 8];
/// The aims: jobs in a second, and times Celery's.
const AIM: f64 = 2_000.0;
const TIMES: f64 = 3.0;

pub async fn measure() -> Result<Report> {
    let postgres = Postgres::start_durable()?;
    let mut celery = Celery::start(&postgres).await?;
    let (processes, tried) = best(&mut celery).await?;
    let database = postgres.database()?;
    let farm = Farm::start(Some(&database), &[]).await?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(farm.null_worker(&format!("null{number}"), SLOTS).await?);
    }
    let mut counting = Counting::start(&postgres, &database)?;
    let mut tokens = Vec::new();
    for number in 0..CONNECTIONS {
        tokens.push(farm.user(&format!("user{number}")).await?);
    }
    // Connections and statements are there after that.
    round(&farm, &mut counting, &tokens, JOBS / 4).await?;
    let mut seen = Seen::default();
    let processor = || -> Result<[Duration; 3]> {
        let workers = workers.iter().map(Process::processor);
        Ok([
            farm.server().processor()?,
            of_postgres(postgres.directory())?,
            workers.sum::<Result<_>>()?,
        ])
    };
    for _ in 0..ROUNDS {
        let before = processor()?;
        let rate = round(&farm, &mut counting, &tokens, JOBS).await?;
        let after = processor()?;
        seen.kiln.push(rate);
        for (place, (after, before)) in std::iter::zip(after, before).enumerate() {
            let took = (after - before).as_secs_f64() * 1e3;
            seen.processor[place].push(took / f64::from(u32::try_from(JOBS)?));
        }
        seen.celery.push(celery.round(processes, JOBS).await?);
    }
    for worker in workers {
        worker.end().await?;
    }
    let mut shells = Vec::new();
    for number in 0..WORKERS {
        shells.push(farm.worker(&format!("shell{number}"), SHELL_SLOTS).await?);
    }
    for _ in 0..ROUNDS {
        let rate = round(&farm, &mut counting, &tokens, SHELLS).await?;
        seen.shells.push(rate);
    }
    Ok(seen.report(processes, &tried))
}

/// With how many processes Celery is fastest, and how fast it was with each number.
async fn best(celery: &mut Celery<'_>) -> Result<(Processes, Vec<Value>)> {
    let (mut best, mut fastest, mut all) = (None, 0.0, Vec::new());
    for producers in PRODUCERS {
        for workers in CELERY_WORKERS {
            let tried = Processes { producers, workers };
            let rate = celery.round(tried, JOBS / 2).await?;
            all.push(json!({
                "producers": producers, "workers": workers, "tasks_per_second": rate,
            }));
            if rate > fastest {
                (best, fastest) = (Some(tried), rate);
            }
        }
    }
    Ok((best.context("none was tried")?, all))
}

/// Rates of both, and the milliseconds of processor time for a job of ours: the server's,
/// the database's, the workers'. By rounds.
#[derive(Default)]
struct Seen {
    kiln: Vec<f64>,
    shells: Vec<f64>,
    celery: Vec<f64>,
    processor: [Vec<f64>; 3],
}

impl Seen {
    fn report(&self, processes: Processes, tried: &[Value]) -> Report {
        let mut table = Table::new(
            "Null jobs in a second, end to end",
            &["what", "median", "least", "most", "aim", ""],
        );
        let times = median(&self.kiln) / median(&self.celery);
        for (what, rates, aim) in [
            ("kiln", &self.kiln, Some(AIM)),
            ("Celery", &self.celery, None),
            ("kiln, a shell for each task", &self.shells, None),
        ] {
            let (least, most) = ends(rates);
            table.row([
                what.to_owned(),
                format!("{:.0}", median(rates)),
                format!("{least:.0}"),
                format!("{most:.0}"),
                aim.map_or(String::new(), |aim| format!("{aim:.0}")),
                aim.map_or(String::new(), |aim| met(median(rates) >= aim)),
            ]);
        }
        table.row([
            "times Celery's".to_owned(),
            format!("{times:.1}"),
            String::new(),
            String::new(),
            format!("{TIMES:.0}"),
            met(times >= TIMES),
        ]);
        let [server, database, workers] = &self.processor;
        table.note(format!(
            "kiln: {CONNECTIONS} connections submit, {WORKERS} workers with {SLOTS} slots have guests that do nothing;"
        ));
        table.note(format!(
            "of processor time a job takes {:.2} ms at its server, {:.2} at PostgreSQL, {:.2} at its worker;",
            median(server), median(database), median(workers)
        ));
        let Processes { producers, workers } = processes;
        table.note(format!(
            "Celery: {producers} processes submit and {workers} run, the best of {PRODUCERS:?} and {CELERY_WORKERS:?};"
        ));
        table.note(
            "a task writes two rows in one transaction; both on one PostgreSQL with fsync on",
        );
        Report {
            tables: vec![table],
            figures: json!({
                "kiln_jobs_per_second": self.kiln,
                "kiln_jobs_with_a_shell_per_second": self.shells,
                "celery_tasks_per_second": self.celery,
                "celery_producers": producers,
                "celery_workers": workers,
                "celery_tried": tried,
                "times": times,
                "processor_ms_per_job": {
                    "server": server, "database": database, "workers": self.processor[2],
                },
            }),
        }
    }
}

fn met(is: bool) -> String {
    if is { "met" } else { "missed" }.to_owned()
}

/// Submits so many jobs and waits until all have succeeded; how many that were in a second.
async fn round(
    farm: &Farm,
    counting: &mut Counting,
    tokens: &[String],
    count: usize,
) -> Result<f64> {
    let manifest: Arc<str> = manifest("true").into();
    // What is looked at are the jobs since this one.
    let first = farm.submit(&farm.client()?, &manifest).await?;
    let done = format!(
        "SELECT count(*) FILTER (WHERE status = 'success') || ' ' ||
                count(*) FILTER (WHERE ended IS NOT NULL AND status <> 'success')
         FROM jobs WHERE id >= {};",
        first.0
    );
    counting.wait(&done, 1, Instant::now()).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<Client> = tokens
        .iter()
        .map(|token| client(farm.url(), token))
        .collect::<Result<_>>()?;
    let began = Instant::now();
    let mut all = JoinSet::new();
    for client in clients {
        let (next, manifest) = (Arc::clone(&next), Arc::clone(&manifest));
        all.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                crate::farm::submit(&client, &manifest).await?;
            }
            anyhow::Ok(())
        });
    }
    let time = counting.wait(&done, count + 1, began).await?;
    while let Some(submitted) = all.join_next().await {
        submitted??;
    }
    Ok(rate(count, time))
}
