//! A host whose guests are the dummy machine's.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_core::farm::OfferedImage;
use kiln_vm::{
    dummy::{Dummy, Start},
    image::Image,
    machine::{GuestSpec, Login},
    network::Network,
};
use kiln_worker::farm::{Host, Place, Request, Room, Unfit};

/// For tests.
pub struct DummyHost(pub Start);

const IMAGE: &str = "debian/bookworm";
const DIGEST: &str = "00000000000000000000000000000000000000000000000000000000000000dd";

#[async_trait]
impl Host for DummyHost {
    async fn images(&self) -> Vec<OfferedImage> {
        vec![OfferedImage {
            name: IMAGE.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            digest: DIGEST.to_owned(),
            default: true,
        }]
    }

    async fn room(&self, _coming: u32) -> Room {
        Room {
            more: u32::MAX,
            short_of: None,
        }
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    async fn place(&self, request: Request<'_>) -> Result<Place, Unfit> {
        let image = Image {
            name: IMAGE.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            base: request.dir.to_owned(),
            dir: request.dir.join(IMAGE),
            login: Login::default(),
        };
        Ok(Place {
            machine: Arc::new(Dummy::new(self.0)),
            spec: GuestSpec {
                image,
                memory_mib: None,
                cpus: 1,
                disk_mib: None,
                network: Network::None,
                preparation: None,
                farm: Some(request.farm),
                dir: request.dir.to_owned(),
            },
            digest: DIGEST.to_owned(),
        })
    }
}
