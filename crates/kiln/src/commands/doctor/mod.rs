//! `kiln doctor`: looks for what keeps this host from running guests.
//!
//! Everything that can be tried is tried: a kernel is booted, namespaces are
//! made, rules are loaded, the uplink is attached. The looks run side by side,
//! each with a deadline, and are shown in a fixed order as they end.
//!
//! * A look takes no part in another's: what depends on something (the network
//!   on namespaces) is one look.
//! * `!!` is what `kiln run` fails on, and nothing else is.

mod accelerator;
mod building;
mod finding;
mod hardware;
mod images;
mod limits;
mod mirror;
mod namespaces;
mod network;
mod programs;
mod qemu;

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};

use crate::{
    cli::DoctorArgs,
    exit::{Exit, Failure},
    host::paths,
    ui,
};
use finding::Finding;
pub use qemu::is_installed as has_qemu;

/// For what only reads and asks.
const SHORT: Duration = Duration::from_secs(5);
/// For what starts programs, on a host with much to do.
const MEDIUM: Duration = Duration::from_secs(15);
/// The boot has 8 s of its own; namespaces around it need theirs.
const BOOT: Duration = Duration::from_secs(20);

/// Runs the command.
pub async fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let directories = paths::images(&args.images).and_then(|images| {
        let runs = paths::runs()?;
        Ok((images, runs, paths::this_program()?))
    });
    let (images, runs, program) = match directories {
        Ok(directories) => directories,
        Err(failure) => {
            let finding = Finding::broken(format!("directories: {}", failure.message), "set HOME");
            return Ok(conclude(show(&[finding])));
        }
    };
    let build = images::build_command(args.images.images.as_ref().map(|_| images.as_path()));
    // Before anything is started: kiln itself may have to move.
    let limits = limits::look();
    let looks = [
        Look::at_files("processor and memory", hardware::look),
        Look::start("accelerator", BOOT, accelerator::look(images.clone())),
        Look::at_files("disk space", {
            let images = images.clone();
            move || hardware::disks(&runs, &images)
        }),
        Look::start("namespaces and network", MEDIUM, contained(program)),
        Look::start("limits", SHORT, std::future::ready(limits)),
        Look::start("QEMU", SHORT, qemu::look()),
        Look::at_files("programs", programs::look),
        Look::at_files("images", move || images::look(&images, &build)),
        Look::start("image building", SHORT, building::look()),
        Look::start("package mirror", SHORT, mirror::look()),
    ];
    let mut broken = 0;
    for look in looks {
        broken += show(&look.findings().await);
    }
    Ok(conclude(broken))
}

/// The namespaces, and what is in them.
async fn contained(program: std::path::PathBuf) -> Vec<Finding> {
    let (mut findings, made) = namespaces::look(&program).await;
    if made {
        findings.extend(network::look(&program).await);
    }
    findings
}

/// Prints, and counts what is in the way.
fn show(findings: &[Finding]) -> usize {
    for finding in findings {
        ui::line(&finding.to_string());
    }
    findings
        .iter()
        .filter(|finding| finding.is_broken())
        .count()
}

fn conclude(broken: usize) -> Exit {
    if broken == 0 {
        return Exit::Success;
    }
    ui::error("`kiln run` does not work here until what is marked `!!` is right");
    Exit::Failed
}

/// A look that is being taken.
struct Look {
    name: &'static str,
    task: JoinHandle<Option<Vec<Finding>>>,
}

impl Look {
    fn start(
        name: &'static str,
        deadline: Duration,
        work: impl Future<Output = Vec<Finding>> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(async move { timeout(deadline, work).await.ok() });
        Self { name, task }
    }

    /// A file system may be on a server that is gone: nobody waits for that.
    fn at_files(name: &'static str, work: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Self {
        let files = tokio::task::spawn_blocking(work);
        Self::start(name, SHORT, async move {
            let gone = || {
                vec![Finding::broken(
                    format!("{name}: kiln's own look failed"),
                    "run it with -vv and tell us",
                )]
            };
            files.await.unwrap_or_else(|_| gone())
        })
    }

    async fn findings(self) -> Vec<Finding> {
        match self.task.await {
            Ok(Some(findings)) => findings,
            _ => vec![Finding::broken(
                format!("{}: no answer in time", self.name),
                "try again when the host has less to do",
            )],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_without_an_end_is_given_up() {
        let look = Look::start("the moon", Duration::from_millis(1), std::future::pending());
        let findings = look.findings().await;
        assert!(findings[0].is_broken());
        assert!(
            findings[0]
                .to_string()
                .starts_with("!!  the moon: no answer in time — ")
        );
    }

    #[tokio::test]
    async fn a_look_that_panics_is_one_line() {
        let look = Look::at_files("the sun", || panic!("too bright"));
        assert!(
            look.findings().await[0]
                .to_string()
                .starts_with("!!  the sun: ")
        );
    }
}
