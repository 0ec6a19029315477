//! `kiln image check`: boots an image and runs its own tests.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_vm::{image::functions::GUEST_PORT, machine::Sink, qemu::control::Control};

use super::{BOOT_DEADLINE, hosted::Hosted};
use crate::{
    cli::ImagesArgs,
    exit::{Exit, Failure},
    host::{machine, paths},
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
pub async fn run(args: &ImagesArgs, name: &str, arch: Option<&str>) -> Result<Exit, Failure> {
    let images = paths::images(args)?;
    let host = machine::look(&images, BOOT_DEADLINE).await?;
    let image = machine::find_image(&host.machine, &images, name, arch).await?;
    let functions = host.machine.functions(&images, &image.dir);
    let hosted = Hosted::new(host.machine, image.clone()).await;
    let dir = tempfile::tempdir().map_err(Failure::host)?;
    let socket = dir.path().join("control");
    let server = Control::bind(&socket, Arc::clone(&hosted) as _).map_err(Failure::host)?;
    let server = tokio::spawn(server.serve());
    let status = functions
        .call(&["sanity_check"], GUEST_PORT, &image.arch, &socket, &*hosted, &mut Show)
        .await;
    server.abort();
    let status = status.map_err(Failure::host)?;
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
