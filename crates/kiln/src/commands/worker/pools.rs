//! Guests that stand ready, for the images that jobs use.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use kiln_vm::{
    machine::{GuestSpec, Machine},
    qemu::{QemuMachine, pool::Pool},
};

use crate::{
    exit::Failure,
    host::{locked::LockedDir, scratch},
};

/// For so many images guests are kept ready: those that were used last.
const IMAGES: usize = 4;
/// What the guests' directories are in.
const FILES: &str = "guests";

/// One pool for each image that is used.
pub struct Pools {
    machine: QemuMachine,
    dir: LockedDir,
    size: usize,
    /// The one that was used last comes last.
    pools: Mutex<Vec<Kept>>,
}

struct Kept {
    shape: GuestSpec,
    pool: Arc<Pool>,
}

impl Pools {
    /// None of them has a guest yet. What a worker that was killed left is cleared.
    ///
    /// # Errors
    /// When there is no place for them.
    pub fn new(machine: QemuMachine, data: &Path, size: usize) -> Result<Self, Failure> {
        let parent = data.join("pool");
        scratch::tidy(&parent);
        let name = std::process::id().to_string();
        let dir = LockedDir::create(&parent, &name, FILES);
        Ok(Self {
            machine,
            dir: dir.map_err(|error| Failure::host(format!("no directory for guests: {error}")))?,
            size,
            pools: Mutex::default(),
        })
    }

    /// What starts a guest like this.
    pub fn of(&self, spec: &GuestSpec) -> Arc<dyn Machine> {
        if self.size == 0 || self.machine.templates.is_none() || spec.preparation.is_some() {
            return Arc::new(self.machine.clone());
        }
        let shape = GuestSpec {
            farm: None,
            dir: self.dir.path().join(FILES),
            ..spec.clone()
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pools.iter().position(|kept| same(&kept.shape, &shape));
        let kept = known.map(|at| pools.remove(at)).unwrap_or_else(|| Kept {
            pool: Arc::new(Pool::new(
                self.machine.clone(),
                shape.clone(),
                shape.dir.clone(),
                self.size,
            )),
            shape,
        });
        let pool = Arc::clone(&kept.pool);
        pools.push(kept);
        if pools.len() > IMAGES {
            let oldest = pools.remove(0);
            tokio::spawn(async move { oldest.pool.drain().await });
        }
        pool
    }

    /// Ends all guests that wait.
    pub async fn end(&self) {
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        for kept in pools {
            kept.pool.drain().await;
        }
        // The next start removes what this could not.
        let _ = std::fs::remove_dir_all(self.dir.path());
    }
}

fn same(one: &GuestSpec, other: &GuestSpec) -> bool {
    one.image == other.image && one.network == other.network
}
