//! Who waits for whom in PostgreSQL, where appends go on beside the one who writes.

use std::time::Duration;

use kiln_core::farm::LogName;
use kiln_store::{
    StoreError,
    model::{Added, Held, NewChunk},
};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use tokio::task::JoinHandle;

use crate::farm::{Builder, Farm};

/// A log whose appends wait until somebody else lets go of its row.
struct Blocked {
    farm: Farm,
    builder: Builder,
    fence: kiln_core::farm::Fence,
    log: LogName,
    holder: AnyConnection,
    watcher: AnyConnection,
}

impl Blocked {
    async fn new() -> Self {
        let farm = Farm::postgres().await;
        let ann = farm.user("ann").await;
        let builder = farm.builder("alder", 1).await;
        let log = LogName::Job(farm.submit(ann).await);
        let fence = farm.assigned(&builder).await;
        let key = builder.key(fence);
        farm.store.begin_log(key, &log, "first\n").await.unwrap();
        let mut holder = AnyConnection::connect(&farm.config.url).await.unwrap();
        holder.execute("BEGIN").await.unwrap();
        let watcher = AnyConnection::connect(&farm.config.url).await.unwrap();
        let row = "SELECT stored FROM logs FOR UPDATE";
        holder.execute(row).await.unwrap();
        Self {
            farm,
            builder,
            fence,
            log,
            holder,
            // In a transaction what others do is seen once.
            watcher,
        }
    }

    fn append(&self) -> JoinHandle<Result<Added, StoreError>> {
        let (store, log, fence) = (self.farm.store.clone(), self.log.clone(), self.fence);
        let builder = Builder {
            worker: self.builder.worker,
            session: self.builder.session.clone(),
        };
        tokio::spawn(async move {
            let chunk = NewChunk {
                start: 6,
                length: 5,
                sha256: "00".into(),
                object: "piece".into(),
                mid_line: false,
            };
            store.add_chunk(builder.key(fence), &log, &chunk).await
        })
    }

    /// Waits until so many wait for rows.
    async fn waiting(&mut self, count: i64) {
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        loop {
            let found = sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut self.watcher);
            if found.await.unwrap() >= count {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_passes_an_append_that_is_on_its_way_and_the_end_of_the_attempt_does_not() {
    let mut blocked = Blocked::new().await;
    let append = blocked.append();
    blocked.waiting(1).await;
    let leases = [blocked.fence];
    let renewed = blocked.farm.renew(&blocked.builder, &leases);
    let renewed = tokio::time::timeout(Duration::from_secs(10), renewed).await;
    assert_eq!(renewed.expect("nobody waits for an append"), []);
    let (store, job) = (blocked.farm.store.clone(), blocked.log.job());
    let cancel = tokio::spawn(async move { store.cancel(job, "enough").await });
    blocked.waiting(2).await;
    assert!(!append.is_finished() && !cancel.is_finished());
    blocked.holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(append.await.unwrap().unwrap(), Added::Stored(11));
    cancel.await.unwrap().unwrap();
    let pieces = blocked.farm.store.chunks(&blocked.log, 0, 9).await.unwrap();
    let last = "[kiln] the job ended as cancelled: enough\n";
    assert_eq!(pieces.last().unwrap().held, Held::Line(last.into()));
    assert_eq!(pieces.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_leave_connections_to_all_others() {
    let mut blocked = Blocked::new().await;
    let appends: Vec<_> = (0..40).map(|_| blocked.append()).collect();
    blocked.waiting(8).await;
    for _ in 0..100 {
        blocked.farm.store.now().await.unwrap();
    }
    blocked.holder.execute("ROLLBACK").await.unwrap();
    let mut stored = 0;
    for append in appends {
        stored += u32::from(append.await.unwrap().unwrap() == Added::Stored(11));
    }
    assert_eq!(stored, 1);
}
