//! What guests cost: memory, disk, time when there are many, and what the jail
//! and the network's rules add.

use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kiln_vm::{
    machine::{Guest as _, Kept},
    qemu::{QemuGuest, QemuMachine, pool::Pool},
};
use serde_json::{Map, Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    PACKAGES,
    bare::Bare,
    farm::{Farm, Ran, preparation, taken},
    laps::Laps,
    memory::Memory,
    network, table,
};

/// Guests that are looked at for their memory.
const IDLE: usize = 4;
/// How many idle guests are to fit into a GiB.
const AIM_PER_GIB: f64 = 8.0;
/// Guests that start at once.
const CROWD: usize = 20;
/// How long a guest runs and does nothing before it is looked at.
const SETTLING: Duration = Duration::from_secs(5);
/// How often a start of QEMU is measured.
const STARTS: usize = 5;
/// How long a pool may take to be full.
const REFILL_DEADLINE: Duration = Duration::from_mins(2);
const MIB: f64 = (1 << 20) as f64;

/// Prints as it goes, and keeps everything for programs.
#[derive(Default)]
struct Report(Map<String, Value>);

fn heading(text: &str) {
    println!("\n{text}");
}

impl Report {
    /// A figure for people, and the same under a name for programs.
    fn add(&mut self, what: &str, unit: &str, name: &str, value: f64) {
        println!("  {what:<56}{value:>10.2} {unit}");
        self.0.insert(name.to_owned(), json!(value));
    }
}

/// Measures, prints, and writes `bench-density.json`.
pub async fn measure(farm: Farm, laps: &Laps) -> Result<()> {
    println!("load {}", table::load());
    let mut report = Report::default();
    let farm = Arc::new(farm);
    template(&farm, &mut report).await?;
    waiting(&farm, &mut report).await?;
    running(&farm, &mut report).await?;
    crowd(&farm, &mut report).await?;
    if let Err(error) = derived(&farm, &mut report).await {
        println!("  not measured: {error:#}");
    }
    jail(&farm, laps, &mut report).await?;
    heading("from a guest to its host (a connection and a byte there and back; bytes per second)");
    let paths = network::measure(&farm).await?;
    for path in &paths {
        println!(
            "  {:<24}{:>9.2} ms{:>12.1} MB/s to the guest{:>9.1} MB/s from it",
            path.name,
            path.connection,
            path.down / 1e6,
            path.up / 1e6
        );
    }
    let paths = paths.iter().map(network::Path::as_json).collect();
    report.0.insert("network".into(), Value::Array(paths));
    report.0.insert("load".into(), json!(table::load()));
    table::write_json("bench-density.json", &Value::Object(report.0))
}

/// Making one, and what it takes.
async fn template(farm: &Farm, report: &mut Report) -> Result<()> {
    heading("the template");
    let dir = farm.new_dir()?;
    let begun = Instant::now();
    let made = farm.machine.prepare_template(&farm.spec(&dir)).await;
    made.map_err(anyhow::Error::msg)?;
    let took = begun.elapsed().as_secs_f64();
    report.add("time to make it", "s", "template_build_s", took);
    let dir = templates(farm)
        .into_iter()
        .next()
        .context("no template was made")?;
    for (what, file, name) in [
        (
            "memory, shared by all its guests",
            "memory",
            "template_memory_mib",
        ),
        ("state of the devices", "state", "template_state_mib"),
        ("disk", "machine/disk.qcow2", "template_disk_mib"),
    ] {
        report.add(what, "MiB", name, taken(&dir.join(file)) as f64 / MIB);
    }
    Ok(())
}

/// A pool's guests.
async fn waiting(farm: &Farm, report: &mut Report) -> Result<()> {
    heading("a guest of a pool, which stands still (its share of the template not counted)");
    let dir = farm.new_dir()?;
    let spec = farm.spec(&dir);
    let pool = Pool::new(farm.machine.clone(), spec.clone(), dir.clone(), IDLE);
    filled(&pool).await?;
    per_guest("waiting", report);
    let begun = Instant::now();
    let guest = pool.take(&spec).await.context("the pool gave no guest")?;
    filled(&pool).await?;
    let took = begun.elapsed().as_secs_f64();
    report.add(
        "from its taking until its place is filled again",
        "s",
        "refill_s",
        took,
    );
    guest.stop().await;
    pool.drain().await;
    Ok(())
}

async fn filled(pool: &Pool) -> Result<()> {
    let filled = timeout(REFILL_DEADLINE, pool.filled()).await;
    filled.context("the pool is not filled")
}

/// Guests that run and have nothing to do.
async fn running(farm: &Farm, report: &mut Report) -> Result<()> {
    heading("a guest that runs and has nothing to do (likewise)");
    let mut guests: Vec<Arc<QemuGuest>> = Vec::new();
    for _ in 0..IDLE {
        let dir = farm.new_dir()?;
        guests.push(farm.machine.start_guest(&farm.spec(&dir)).await?);
    }
    sleep(SETTLING).await;
    per_guest("running", report);
    for guest in guests {
        guest.stop().await;
    }
    Ok(())
}

/// Memory of one of [`IDLE`] guests.
fn per_guest(state: &str, report: &mut Report) {
    let memory = Memory::of_guests();
    for (program, own) in &memory.own {
        let count = memory.processes.get(program).copied().unwrap_or_default();
        let what = format!("{program}, {} of them", count as f64 / IDLE as f64);
        let name = format!("{state}_{program}_mib");
        report.add(&what, "MiB", &name, *own as f64 / MIB / IDLE as f64);
    }
    let each = memory.total() as f64 / MIB / IDLE as f64;
    report.add("all", "MiB", &format!("{state}_guest_mib"), each);
    let fit = 1024.0 / each;
    let verdict = if fit >= AIM_PER_GIB { "met" } else { "MISSED" };
    let what = format!("guests in a GiB (aim {AIM_PER_GIB}, {verdict})");
    report.add(&what, "", &format!("{state}_per_gib"), fit);
}

/// Many at once.
async fn crowd(farm: &Arc<Farm>, report: &mut Report) -> Result<()> {
    heading(&format!(
        "{CROWD} jobs at once on {} processors",
        processors()
    ));
    let mut jobs = JoinSet::new();
    for _ in 0..CROWD {
        let farm = Arc::clone(farm);
        jobs.spawn(async move { farm.run(&farm.machine, &[]).await });
    }
    let ended: Vec<Result<Ran>> = jobs.join_all().await;
    let failed = ended.iter().filter(|ran| ran.is_err()).count();
    for error in ended.iter().filter_map(|ran| ran.as_ref().err()) {
        println!("  {error:#}");
    }
    let good: Vec<&Ran> = ended.iter().flatten().collect();
    let first: Vec<f64> = good.iter().map(|ran| ran.first.as_secs_f64()).collect();
    let disks: Vec<f64> = good.iter().map(|ran| ran.disk as f64 / MIB).collect();
    report.add(
        "first byte of a task: median",
        "s",
        "crowd_median_s",
        table::median(&first),
    );
    report.add(
        "first byte of a task: last",
        "s",
        "crowd_last_s",
        table::ends(&first).1,
    );
    report.add("failed", "", "crowd_failed", failed as f64);
    report.add(
        "disk of one after its task: median",
        "MiB",
        "disk_mib",
        table::median(&disks),
    );
    ensure!(failed == 0, "{failed} of {CROWD} jobs failed");
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Keeping a guest with its packages.
async fn derived(farm: &Farm, report: &mut Report) -> Result<()> {
    heading(&format!("a guest that is kept with {}", PACKAGES.join(" ")));
    let before = templates(farm);
    let dir = farm.new_dir()?;
    let mut spec = farm.spec(&dir);
    spec.preparation = Some(preparation(PACKAGES));
    let guest = farm.machine.start_guest(&spec).await?;
    let packages: Vec<String> = PACKAGES.iter().map(|&name| name.to_owned()).collect();
    let mut said = Vec::new();
    let begun = Instant::now();
    let code = guest.install(&packages, &mut said).await?;
    ensure!(code.success(), "{}", String::from_utf8_lossy(&said));
    report.add(
        "installing",
        "s",
        "install_s",
        begun.elapsed().as_secs_f64(),
    );
    let begun = Instant::now();
    match guest.keep().await {
        Kept::As(next) => next.stop().await,
        Kept::Not | Kept::Lost => bail!("the guest could not be kept"),
    }
    report.add(
        "keeping it, and going on in its clone",
        "s",
        "keep_s",
        begun.elapsed().as_secs_f64(),
    );
    let mut made = templates(farm);
    made.retain(|dir| !before.contains(dir));
    let dir = made.first().context("nothing was kept")?;
    report.add(
        "its memory on the disk",
        "MiB",
        "derived_memory_mib",
        taken(&dir.join("memory")) as f64 / MIB,
    );
    report.add(
        "its layer of the disk",
        "MiB",
        "derived_disk_mib",
        taken(&dir.join("machine/disk.qcow2")) as f64 / MIB,
    );
    Ok(())
}

/// The directories of whole templates.
fn templates(farm: &Farm) -> Vec<std::path::PathBuf> {
    let dir = farm.dir().join("cache/kiln/templates");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.map(|entry| entry.path());
    dirs.filter(|dir| dir.join("about.json").is_file())
        .collect()
}

/// A start of QEMU up to its control socket's greeting, its disk's layer
/// included.
async fn jail(farm: &Farm, laps: &Laps, report: &mut Report) -> Result<()> {
    heading("QEMU until its control socket answers, the layer of its disk included (median)");
    // What is wanted is there before it is known that nobody is let in.
    let impatient = QemuMachine {
        templates: None,
        boot_deadline: Duration::ZERO,
        ..farm.machine.clone()
    };
    let mut bare = Vec::new();
    let mut jailed = Vec::new();
    for _ in 0..STARTS {
        let dir = farm.new_dir()?;
        let begun = Instant::now();
        layer(&farm.image.disk(), &dir).await?;
        Bare::start(farm)?.greeting().await?;
        bare.push(begun.elapsed().as_secs_f64() * 1000.0);
        let dir = farm.new_dir()?;
        laps.take(Instant::now());
        let started = impatient.start_guest(&farm.spec(&dir)).await;
        ensure!(started.is_err(), "a guest let us in at once");
        let all = laps.take(Instant::now());
        let lap = all
            .iter()
            .find(|lap| lap.what.contains("QEMU") && !lap.what.contains("QMP"));
        jailed.push(
            lap.context("kiln did not say how long QEMU took")?
                .milliseconds,
        );
    }
    let (bare, jailed) = (table::median(&bare), table::median(&jailed));
    report.add("by hand", "ms", "qemu_bare_ms", bare);
    report.add(
        "by kiln: namespaces, empty root, rules, uplink",
        "ms",
        "qemu_jailed_ms",
        jailed,
    );
    report.add("the difference", "ms", "jail_ms", jailed - bare);
    Ok(())
}

async fn layer(disk: &Path, dir: &Path) -> Result<()> {
    let status = tokio::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(disk)
        .arg(dir.join("disk.qcow2"))
        .stdin(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "qemu-img failed");
    Ok(())
}
