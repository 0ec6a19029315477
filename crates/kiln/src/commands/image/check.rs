//! `kiln image check`: boots an image and runs its own tests.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_vm::{
    image::{Image, functions::GUEST_PORT},
    machine::{ExitCode, Sink},
    qemu::{QemuMachine, control::Control},
};

use super::{BOOT_DEADLINE, hosted::Hosted};
use crate::{
    cli::ImagesArgs,
    commands::run::interrupt,
    exit::{Exit, Failure},
    host::{machine, paths, scratch::Scratch},
    ui,
};

/// Shows what an image's scripts say.
pub struct Show;

#[async_trait]
impl Sink for Show {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        let mut out = tokio::io::stdout();
        out.write_all(bytes).await?;
        out.flush().await
    }
}

/// Runs the command.
pub async fn run(
    args: &ImagesArgs,
    name: &str,
    arch: Option<&str>,
    allow: &[String],
) -> Result<Exit, Failure> {
    let cancel = interrupt::cancel();
    let looking = async {
        let images = paths::images(args)?;
        let host = machine::look(&images, BOOT_DEADLINE).await?;
        let image = machine::find_image(&host.machine, &images, name, arch).await?;
        let network = super::network(&image, allow).await?;
        Ok((host.machine, image, network))
    };
    let (machine, image, network) = interrupt::unless(cancel.clone(), looking).await?;
    let hosted = Hosted::new(machine.clone(), image.clone(), network);
    let checked = interrupt::unless(cancel, sanity_check(&machine, &image, &hosted)).await;
    // The check may be over, or interrupted, with guests of it running.
    hosted.stop_all().await;
    let status = checked?;
    if status.success() {
        ui::line(&format!("{name} ({}): OK", image.arch));
        Ok(Exit::Success)
    } else {
        ui::error(&format!(
            "{name} ({}): sanity_check ended with {}",
            image.arch, status.0
        ));
        Ok(Exit::Failed)
    }
}

async fn sanity_check(
    machine: &QemuMachine,
    image: &Image,
    hosted: &Arc<Hosted>,
) -> Result<ExitCode, Failure> {
    let scratch = Scratch::create()?;
    let socket = scratch.path().join("control");
    let server = Control::bind(&socket, Arc::clone(hosted) as _).map_err(Failure::host)?;
    let server = tokio::spawn(server.serve());
    let functions = machine.functions(&image.base, &image.dir);
    let status = functions
        .call(
            &["sanity_check"],
            GUEST_PORT,
            &image.arch,
            &socket,
            &**hosted,
            &mut Show,
        )
        .await;
    server.abort();
    status.map_err(Failure::host)
}
