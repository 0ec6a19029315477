//! From claim to the first byte of the first task, by every way there is, turn
//! by turn on one image: the host may be shared.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kiln_vm::{
    machine::Machine,
    qemu::{QemuMachine, pool::Pool},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    PACKAGES, bare,
    farm::{Farm, Ran, manifest},
    laps::Laps,
    table,
};

/// How often each way is measured unless `BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 3;
/// How long a pool may take to be full again.
const REFILL_DEADLINE: Duration = Duration::from_mins(2);

/// A way to start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Seed,
    Cold,
    Template,
    Command,
    Pool,
    SeedPackages,
    Derived,
}

/// All, in the order of their turns.
const WAYS: [Way; 7] = [
    Way::Seed,
    Way::Cold,
    Way::Template,
    Way::Command,
    Way::Pool,
    Way::SeedPackages,
    Way::Derived,
];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Cold => "cold",
            Self::Template => "template",
            Self::Command => "kiln run",
            Self::Pool => "pool",
            Self::SeedPackages => "seed + jq",
            Self::Derived => "derived",
        }
    }

    /// What it is compared with.
    fn against(self) -> Self {
        match self {
            Self::SeedPackages | Self::Derived => Self::SeedPackages,
            _ => Self::Seed,
        }
    }

    /// How many times sooner it is to be.
    fn aim(self) -> Option<f64> {
        match self {
            Self::Template => Some(15.0),
            Self::Pool => Some(80.0),
            Self::Derived => Some(25.0),
            _ => None,
        }
    }

    fn installs(self) -> bool {
        matches!(self, Self::SeedPackages | Self::Derived)
    }
}

/// One measurement: seconds, and where they went in milliseconds.
struct Sample {
    seconds: f64,
    parts: Vec<(String, f64)>,
}

struct Bench<'a> {
    farm: &'a Farm,
    laps: &'a Laps,
    cold: QemuMachine,
    pool: Pool,
}

type Samples = BTreeMap<Way, Vec<Sample>>;

/// Measures, prints, and writes `bench-start.json`.
pub async fn measure(farm: &Farm, laps: &Laps) -> Result<()> {
    let rounds = match std::env::var("BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse().context("BENCH_ROUNDS is no number")?,
        Err(_) => ROUNDS,
    };
    // Makes the template, and warms the host's caches.
    farm.run(&farm.machine, &[]).await?;
    let pool_dir = farm.new_dir()?;
    let bench = Bench {
        farm,
        laps,
        cold: QemuMachine {
            templates: None,
            ..farm.machine.clone()
        },
        pool: Pool::new(
            farm.machine.clone(),
            farm.spec(&pool_dir),
            pool_dir.clone(),
            1,
        ),
    };
    let mut ways = WAYS.to_vec();
    bench.command().await?;
    // Keeps the guest that later ones start from.
    if let Err(error) = farm.run(&farm.machine, PACKAGES).await {
        println!("packages can't be installed here, so that is not measured: {error}");
        ways.retain(|way| !way.installs());
    }
    let mut samples = Samples::new();
    for _ in 0..rounds {
        for &way in &ways {
            let sample = bench.sample(way).await.context(way.name())?;
            samples.entry(way).or_default().push(sample);
        }
    }
    bench.pool.drain().await;
    print(&samples);
    table::write_json("bench-start.json", &as_json(&samples))
}

impl Bench<'_> {
    async fn sample(&self, way: Way) -> Result<Sample> {
        match way {
            Way::Seed => Ok(plain(bare::first_byte(self.farm, &[]).await?)),
            Way::SeedPackages => Ok(plain(bare::first_byte(self.farm, PACKAGES).await?)),
            Way::Command => Ok(plain(self.command().await?)),
            Way::Cold => self.job(&self.cold, &[]).await,
            Way::Template => self.job(&self.farm.machine, &[]).await,
            Way::Derived => self.job(&self.farm.machine, PACKAGES).await,
            Way::Pool => {
                self.filled().await?;
                let sample = self.job(&self.pool, &[]).await?;
                // What refills it shall not meet the next measurement.
                self.filled().await?;
                Ok(sample)
            }
        }
    }

    async fn filled(&self) -> Result<()> {
        let filled = timeout(REFILL_DEADLINE, self.pool.filled()).await;
        filled.context("the pool is not refilled")
    }

    async fn job(&self, machine: &dyn Machine, packages: &[&str]) -> Result<Sample> {
        self.laps.take(Instant::now());
        let ran = self.farm.run(machine, packages).await?;
        Ok(Sample {
            seconds: ran.first.as_secs_f64(),
            parts: self.parts(&ran),
        })
    }

    /// Where the time went: what kiln's log says of the start, then the steps,
    /// then what is left for the first task.
    fn parts(&self, ran: &Ran) -> Vec<(String, f64)> {
        let mut parts: Vec<(String, f64)> = Vec::new();
        for lap in self.laps.take(ran.claimed + ran.first) {
            let name = format!("  {}", lap.what);
            match parts.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum += lap.milliseconds,
                None => parts.push((name, lap.milliseconds)),
            }
        }
        let mut left = milliseconds(ran.first);
        for (step, took) in &ran.steps {
            let took = milliseconds(*took);
            left -= took;
            parts.push(((*step).to_owned(), took));
        }
        parts.push(("the task's first byte, and all else".to_owned(), left));
        parts
    }

    /// `kiln run` as a person sees it: from its exec to the task's first line.
    async fn command(&self) -> Result<Duration> {
        let dir = self.farm.dir();
        let file = dir.join("bench.yml");
        std::fs::write(&file, manifest(&[]))?;
        let begun = Instant::now();
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["run", "--json", "--images"])
            .arg(&self.farm.image.base)
            .arg(&file)
            .env("HOME", dir)
            .env("XDG_STATE_HOME", dir.join("state"))
            .env("XDG_CACHE_HOME", dir.join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = kiln.stdout.take().context("asked once")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut first = None;
        while let Some(line) = lines.next_line().await? {
            let event: Value = serde_json::from_str(&line)?;
            let said = event["event"] == "log" && event["task"] == "hello";
            if said
                && event["text"]
                    .as_str()
                    .is_some_and(|text| text.contains("+ echo"))
            {
                first.get_or_insert_with(|| begun.elapsed());
            }
        }
        kiln.wait().await?;
        first.context("`kiln run` failed; run it by hand to see why")
    }
}

fn plain(took: Duration) -> Sample {
    Sample {
        seconds: took.as_secs_f64(),
        parts: Vec::new(),
    }
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn seconds(samples: &Samples, way: Way) -> Vec<f64> {
    let samples = samples.get(&way).into_iter().flatten();
    samples.map(|sample| sample.seconds).collect()
}

/// How many times sooner the first byte is there than by the seed's way.
fn sooner(samples: &Samples, way: Way) -> f64 {
    table::median(&seconds(samples, way.against())) / table::median(&seconds(samples, way))
}

fn print(samples: &Samples) {
    let rounds = samples.values().map(Vec::len).max().unwrap_or_default();
    println!(
        "\nto the first byte of the first task, {rounds} rounds, load {}\n",
        table::load()
    );
    println!(
        "{:<10}{:>10}{:>9}{:>9}{:>14}{:>8}",
        "way", "median s", "min s", "max s", "times sooner", "aim"
    );
    for way in WAYS.into_iter().filter(|way| samples.contains_key(way)) {
        let all = seconds(samples, way);
        let (min, max) = table::ends(&all);
        let sooner = sooner(samples, way);
        let aim = match way.aim() {
            Some(aim) if sooner >= aim => format!("{aim} met"),
            Some(aim) => format!("{aim} MISSED"),
            None => String::new(),
        };
        println!(
            "{:<10}{:>10.3}{min:>9.3}{max:>9.3}{sooner:>14.1}  {aim}",
            way.name(),
            table::median(&all)
        );
    }
    for (way, samples) in samples {
        print_parts(*way, samples);
    }
}

fn print_parts(way: Way, samples: &[Sample]) {
    let Some(first) = samples.first().filter(|sample| !sample.parts.is_empty()) else {
        return;
    };
    println!(
        "\n{}, where it goes (median ms; indented: inside `start`)",
        way.name()
    );
    for (name, _) in &first.parts {
        let parts = samples.iter().flat_map(|sample| &sample.parts);
        let same = parts.filter(|(other, _)| other == name);
        let values: Vec<f64> = same.map(|(_, value)| *value).collect();
        println!("  {name:<48}{:>9.1}", table::median(&values));
    }
}

fn as_json(samples: &Samples) -> Value {
    let ways = samples.iter().map(|(way, all)| {
        let rounds: Vec<Value> = all.iter().map(sample_as_json).collect();
        let value = json!({
            "median_s": table::median(&seconds(samples, *way)),
            "times_sooner": sooner(samples, *way),
            "aim": way.aim(),
            "rounds": rounds,
        });
        (way.name().to_owned(), value)
    });
    json!({ "load": table::load(), "ways": ways.collect::<serde_json::Map<_, _>>() })
}

fn sample_as_json(sample: &Sample) -> Value {
    let parts = sample.parts.iter();
    let parts = parts.map(|(name, took)| (name.trim().to_owned(), json!(took)));
    json!({ "s": sample.seconds, "parts_ms": parts.collect::<serde_json::Map<_, _>>() })
}
