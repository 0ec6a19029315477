//! `kiln run`: a manifest in a fresh guest on this machine.
//!
//! ```text
//! manifest, secrets, variables ─► addresses ─► run folder ─► machine ─► kiln_worker::run
//! ```
//!
//! Everything that the user may have got wrong is found before a guest starts.

pub mod allow;
mod environment;
mod folder;
mod here;
mod hold;
pub mod interrupt;
mod secrets;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_core::{
    job::JobStatus,
    manifest::{Arch, EnvName, Manifest},
};
use kiln_vm::{
    machine::{GuestSpec, Machine},
    qemu::accelerator::{Accelerator, TCG_WARNING},
};
use kiln_worker::{Cause, Job, Limits, Outcome, Secret};
use tokio::sync::watch;

use super::manifest;
use crate::{
    cli::RunArgs,
    exit::{Exit, Failure},
    farm::rerun::{self, Recorded},
    host::{self, paths, preparation, scratch},
    ui::{self, display::Display},
};
use folder::{Folder, Recorder};

/// All logs of a job together, of which one task may have `--log-limit`.
const JOB_LOG_LIMIT: u64 = 1 << 30;

/// What the user asked for, read and right.
struct Request {
    manifest: Manifest,
    secrets: Vec<Secret>,
    environment: Vec<(EnvName, String)>,
}

/// A job and what is to run it.
struct Prepared {
    machine: Box<dyn Machine>,
    job: Job,
    folder: Folder,
}

/// Runs the command.
pub async fn run(args: RunArgs) -> Result<Exit, Failure> {
    let cancel = interrupt::cancel();
    let args = Arc::new(args);
    let mut prepared = interrupt::unless(cancel.clone(), prepare(&args)).await?;
    prepared.folder.keep();
    let outcome = supervise(&prepared, &args, cancel).await;
    finish(&args, &prepared.folder, &outcome)
}

/// Everything before the job begins. Dropped half-way, it leaves nothing.
async fn prepare(args: &Arc<RunArgs>) -> Result<Prepared, Failure> {
    let recorded = match &args.job {
        Some(job) => Some(rerun::fetch(job, &args.farm).await?),
        None => None,
    };
    let again = recorded.as_ref().map(|recorded| recorded.manifest.clone());
    // A file may be a pipe that somebody fills slowly.
    let reading = Arc::clone(args);
    let request = tokio::task::spawn_blocking(move || read_request(&reading, again)).await;
    let request = request.map_err(Failure::host)??;
    let network = allow::network(args, &request.manifest).await?;
    let runs = paths::runs()?;
    folder::tidy(&runs);
    scratch::tidy(&paths::scratch()?);
    let folder = Folder::create(&runs)?;
    let overlays = if args.here {
        vec![here::overlay(Path::new("."), &request.manifest, &folder.scratch()).await?]
    } else {
        Vec::new()
    };
    let images = paths::images(&args.images)?;
    let (machine, image) = machine(args, &request.manifest, &images).await?;
    if let Some(recorded) = &recorded {
        say_version(recorded, &image).await?;
    }
    let job = Job {
        id: 0,
        url: folder.path().display().to_string(),
        environment: request.environment,
        secrets: request.secrets,
        overlays,
        artifacts_dir: folder.artifacts()?,
        deadline: args.timeout,
        limits: Limits {
            log: args.log_limit,
            logs: JOB_LOG_LIMIT.max(args.log_limit),
            ..Limits::default()
        },
        guest: GuestSpec {
            image,
            memory_mib: args.memory,
            cpus: args.cpus,
            disk_mib: args.disk,
            network,
            preparation: preparation::of(
                &request.manifest,
                // Templates are this user's own.
                rustix::process::getuid().as_raw().to_string(),
                args.derived_ttl,
                args.fresh,
            ),
            farm: None,
            dir: folder.scratch(),
        },
        manifest: request.manifest,
    };
    Ok(Prepared {
        machine,
        job,
        folder,
    })
}

/// Whether the image here is the one that a farm's job ran on.
async fn say_version(recorded: &Recorded, image: &kiln_vm::image::Image) -> Result<(), Failure> {
    let image = image.clone();
    let digest = tokio::task::spawn_blocking(move || image.digest()).await;
    match digest.map_err(Failure::host)? {
        Ok(digest) => rerun::compare_image(recorded, &digest),
        Err(error) => ui::warning(&format!("the image's version can't be told: {error}")),
    }
    Ok(())
}

/// The user's files and words; whatever is wrong with them is found here.
/// `again` is the manifest of a job that is run once more.
fn read_request(args: &RunArgs, again: Option<Manifest>) -> Result<Request, Failure> {
    let manifest = match (again, &args.file) {
        (Some(manifest), _) => of_arch(manifest, args)?,
        (None, Some(file)) => read(file, args)?,
        (None, None) => read(&default_manifest(Path::new("."))?, args)?,
    };
    let secrets = secrets::gather(&manifest, &args.secret)?;
    let environment = environment::parse(&args.env)?;
    if let Some(dir) = &args.artifacts {
        let made = std::fs::create_dir_all(dir);
        made.map_err(|error| Failure::usage(format!("--artifacts {}: {error}", dir.display())))?;
    }
    Ok(Request {
        manifest,
        secrets,
        environment,
    })
}

async fn supervise(prepared: &Prepared, args: &RunArgs, cancel: watch::Receiver<bool>) -> Outcome {
    let Prepared {
        machine,
        job,
        folder,
    } = prepared;
    let display = Arc::new(Display::new(args.json));
    let recorder = Recorder::new(folder.path(), Arc::clone(&display));
    let hold = hold::AfterRun {
        shell: args.shell,
        keep: args.keep,
        keep_always: job.manifest.wants_shell(),
        run: folder.name(),
        door: folder.scratch().join("door"),
        display: Arc::clone(&display),
        interrupted: cancel.clone(),
    };
    let spinner = tokio::spawn({
        let display = Arc::clone(&display);
        async move { display.spin().await }
    });
    let outcome = kiln_worker::run(&**machine, job, &recorder, &hold, cancel).await;
    spinner.abort();
    outcome
}

fn finish(args: &RunArgs, folder: &Folder, outcome: &Outcome) -> Result<Exit, Failure> {
    // A log that takes no more does not take its own end either.
    if let (Cause::LogLost, Some(reason)) = (&outcome.cause, &outcome.reason) {
        ui::error(reason);
    }
    if let Some(operator) = &outcome.operator {
        ui::note(operator);
    }
    folder.clear_scratch();
    if let Some(dir) = &args.artifacts {
        folder::copy_artifacts(folder, outcome, dir)?;
    }
    if !args.json {
        ui::note(&format!(
            "logs and artifacts are in {}",
            folder.path().display()
        ));
    }
    Ok(match (outcome.status, &outcome.cause) {
        (JobStatus::Success, _) => Exit::Success,
        (JobStatus::Timeout, _) => Exit::Timeout,
        (JobStatus::Cancelled, _) => Exit::Interrupted,
        (_, Cause::NotStarted | Cause::HostFailed | Cause::LogLost) => Exit::Host,
        _ => Exit::Failed,
    })
}

/// The manifest that a directory has without saying its name.
pub fn default_manifest(dir: &Path) -> Result<PathBuf, Failure> {
    for name in [".build.yml", ".build.yaml"] {
        let file = dir.join(name);
        if file.exists() {
            return Ok(strip_dot(&file));
        }
    }
    let entries = std::fs::read_dir(dir.join(".builds"))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ext| ext == "yml" || ext == "yaml")
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(strip_dot(one)),
        [] => Err(Failure::usage(
            "there is no .build.yml and nothing in .builds/ here; name a manifest",
        )),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|path| strip_dot(path).display().to_string())
                .collect();
            Err(Failure::usage(format!(
                "several manifests are here; name one of {}",
                names.join(", ")
            )))
        }
    }
}

fn strip_dot(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

fn read(file: &Path, args: &RunArgs) -> Result<Manifest, Failure> {
    let parsed = manifest::read(file).map_err(|errors| Failure::usage(errors.join("\nkiln: ")))?;
    manifest::warn(file, &parsed.warnings);
    of_arch(parsed.manifest, args)
}

/// With the architecture of the command line, if it names one.
fn of_arch(mut manifest: Manifest, args: &RunArgs) -> Result<Manifest, Failure> {
    if let Some(arch) = &args.arch {
        let arch =
            Arch::parse(arch).map_err(|problem| Failure::usage(format!("--arch: {problem}")))?;
        manifest.arch = Some(arch);
    }
    Ok(manifest)
}

#[cfg(feature = "testing")]
fn dummy(
    args: &RunArgs,
    manifest: &Manifest,
    images: &Path,
) -> Option<(Box<dyn Machine>, kiln_vm::image::Image)> {
    args.dummy.then(|| {
        let image = kiln_vm::image::Image {
            name: manifest.image.to_string(),
            arch: std::env::consts::ARCH.into(),
            base: images.to_owned(),
            dir: images.join(manifest.image.to_string()),
            login: kiln_vm::machine::Login::default(),
        };
        let machine: Box<dyn Machine> =
            Box::new(kiln_vm::dummy::Dummy::new(kiln_vm::dummy::Start::Ready));
        (machine, image)
    })
}

async fn machine(
    args: &RunArgs,
    manifest: &Manifest,
    images: &Path,
) -> Result<(Box<dyn Machine>, kiln_vm::image::Image), Failure> {
    #[cfg(feature = "testing")]
    if let Some(dummy) = dummy(args, manifest, images) {
        return Ok(dummy);
    }
    let mut host = host::machine::look(images, args.boot_timeout).await?;
    if args.cold {
        host.machine.templates = None;
    }
    let name = manifest.image.to_string();
    let arch = manifest.arch.as_ref().map(Arch::as_str);
    let image = host::machine::find_image(&host.machine, images, &name, arch).await?;
    if let Accelerator::Tcg { reason } = &host.accelerator {
        ui::warning(&format!("{reason}; {TCG_WARNING}"));
    }
    if host.machine.isolation == kiln_vm::namespace::Isolation::None && !args.no_network {
        let (cause, _) = host::namespaces::Settings::read().cause(&host.machine.helper);
        ui::warning(&format!(
            "this host forbids user namespaces, so the guest has no network: {cause}; see `kiln doctor`"
        ));
    }
    Ok((Box::new(host.machine), image))
}
