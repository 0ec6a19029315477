//! Whether a farm under faults keeps its promises.
//!
//! Servers, workers on the dummy machine and real engines run as processes of their own;
//! thousands of jobs go through them while a schedule of faults is made. What everybody saw
//! is written down, and [`kiln_core::testing::checker`] judges it. [docs/chaos.md] tells how
//! to read what this prints.
//!
//! | module | what |
//! |---|---|
//! | `plan` | what the seed decides: jobs and faults |
//! | `farm`, `process`, `engines`, `disk` | the farm, and its parts that can fail |
//! | `link` | what is between parts: slow, silent or cut |
//! | `kinds`, `faults` | the faults: what they are, how they are made |
//! | `api`, `clients` | who uses the farm |
//! | `witness`, `tap`, `record` | who sees what happened, and where it is written |
//! | `run`, `evidence`, `total` | a run, what it leaves, and all of them |
//!
//! Short in `make test`; `make chaos` runs ten seeds. All of it is in namespaces of its own,
//! so that it can mount small disks, and nothing outlives it.

#![expect(
    clippy::print_stdout,
    reason = "the tables are half of what this is for"
)]

mod api;
mod clients;
mod disk;
mod engines;
mod evidence;
mod farm;
mod faults;
mod kinds;
mod link;
mod plan;
mod process;
mod record;
mod run;
mod tap;
mod total;
mod witness;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use plan::Size;

/// Says that namespaces have been made.
const INSIDE: &str = "CHAOS_INSIDE";

/// The short form's size.
const SHORT: Size = Size {
    // Whose faults begin with a worker that is frozen past its leases: see `Kind::of`.
    seed: 1,
    jobs: 60,
    faults: 8,
    seconds: 24,
    owners: 6,
};

fn main() -> ExitCode {
    // A filter for tests that these are none of.
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    if words.next().is_some_and(|word| !"chaos".contains(&word)) || asked("--list") {
        return ExitCode::SUCCESS;
    }
    if let Some(file) = std::env::var_os("CHAOS_HISTORY") {
        return code(run::judge(Path::new(&file)));
    }
    if std::env::var_os(INSIDE).is_none() {
        return apart();
    }
    let seeds = number("CHAOS_SEEDS", 1);
    let first = number("CHAOS_SEED", SHORT.seed);
    let begun = Instant::now();
    let mut total = total::Total::default();
    let mut failed = 0;
    for seed in first..first + seeds {
        let size = Size {
            seed,
            jobs: usize::try_from(number("CHAOS_JOBS", SHORT.jobs as u64)).expect("a number"),
            faults: usize::try_from(number("CHAOS_FAULTS", SHORT.faults as u64)).expect("a number"),
            seconds: number("CHAOS_SECONDS", SHORT.seconds),
            owners: usize::try_from(number("CHAOS_OWNERS", SHORT.owners as u64)).expect("a number"),
        };
        let ran = runtime().block_on(run::run(&size, &folder(seed)));
        failed += u32::from(!ran.is_good());
        total.add(&ran);
    }
    total.print();
    let seconds = begun.elapsed().as_secs();
    let is_good = failed == 0 && total.lacks().is_empty();
    let (word, passed) = if is_good { ("ok", 1) } else { ("FAILED", 0) };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; finished in {seconds}s",
        1 - passed
    );
    code(is_good)
}

fn code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn asked(word: &str) -> bool {
    std::env::args().any(|said| said == word)
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}"))
    })
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads")
}

/// Where a run's files are. Those of one that failed stay.
fn folder(seed: u64) -> PathBuf {
    let base = std::env::var_os("CHAOS_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    base.join(format!("kiln-chaos-{seed}-{}", record::now() / 1_000_000))
}

/// Runs this program again in namespaces of its own: its first process, bash, takes all
/// that lose their parent, and all end with it.
fn apart() -> ExitCode {
    let root = rustix::process::getuid().is_root();
    let mut unshare = Command::new("unshare");
    if !root {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", "\"$@\"; exit $?", "chaos"])
        .arg(std::env::current_exe().expect("a path"))
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1");
    let ended = unshare
        .status()
        .expect("unshare; scripts/setup tests installs it");
    code(ended.success())
}
