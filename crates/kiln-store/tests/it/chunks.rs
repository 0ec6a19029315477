//! Logs in an object store: pieces and lines of each, and who may add them.

use kiln_core::{
    farm::{Fence, JobId, LogName},
    job::{JobStatus, TaskStatus},
};
use kiln_store::{
    Store, StoreError,
    model::{Added, Chunk, Held, NewChunk},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use crate::farm::{Builder, Farm, is_lost};

/// A job that runs, with a first line of 6 bytes.
struct Running {
    job: JobId,
    log: LogName,
    builder: Builder,
    fence: Fence,
}

const START: u64 = 6;

async fn running(farm: &Farm) -> Running {
    let ann = farm.user("ann").await;
    let builder = farm.builder("alder", 4).await;
    let job = farm.submit(ann).await;
    let assigned = farm
        .store
        .assign_after(async |_| Ok(Some("first\n".into())));
    assert_eq!(assigned.await.unwrap().jobs, [job]);
    let fence = farm.store.leases(&builder.session).await.unwrap()[0].0;
    Running {
        job,
        log: LogName::Job(job),
        builder,
        fence,
    }
}

fn piece(start: u64, length: u64) -> NewChunk {
    NewChunk {
        start,
        length,
        sha256: "0".repeat(64),
        object: format!("{start}-{length}"),
        mid_line: false,
    }
}

impl Running {
    async fn add(&self, store: &Store, chunk: &NewChunk) -> Result<Added, StoreError> {
        let key = self.builder.key(self.fence);
        store.add_chunk(key, &self.log, chunk).await
    }
}

/// All pieces, which have no hole and do not overlap, up to the log's end.
async fn whole(store: &Store, log: &LogName) -> Vec<Chunk> {
    let chunks = store.chunks(log, 0, 10_000).await.unwrap();
    let mut at = 0;
    for chunk in &chunks {
        assert_eq!(chunk.start, at, "{chunks:?}");
        at += chunk.length;
    }
    assert_eq!(store.log_end(log).await.unwrap(), at);
    chunks
}

pub async fn a_log_has_its_first_line_with_the_job_that_runs(farm: &Farm) {
    let running = running(farm).await;
    let chunks = whole(&farm.store, &running.log).await;
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].held, Held::Line("first\n".into()));
    let none = LogName::Task(running.job, "build".into());
    assert_eq!(farm.store.log_end(&none).await.unwrap(), 0);
    assert!(farm.store.chunks(&none, 0, 9).await.unwrap().is_empty());
}

pub async fn a_piece_is_added_where_the_log_ends_and_nowhere_else(farm: &Farm) {
    let running = running(farm).await;
    let added = running.add(&farm.store, &piece(START, 10)).await;
    assert_eq!(added.unwrap(), Added::Stored(16));
    for start in [0, START, 15, 17] {
        let added = running.add(&farm.store, &piece(start, 10)).await;
        assert_eq!(added.unwrap(), Added::Elsewhere(16));
    }
    let chunks = whole(&farm.store, &running.log).await;
    assert_eq!(chunks.len(), 2);
    let part = farm.store.chunks(&running.log, 15, 1).await.unwrap();
    assert_eq!((part[0].start, part[0].length), (START, 10));
    let task = LogName::Task(running.job, "build".into());
    let key = running.builder.key(running.fence);
    let early = farm.store.add_chunk(key, &task, &piece(0, 1)).await;
    assert_eq!(early.unwrap(), Added::Elsewhere(0));
    let later = farm.store.add_chunk(key, &task, &piece(1, 1)).await;
    assert_eq!(later.unwrap(), Added::Elsewhere(0));
}

pub async fn a_log_is_begun_once_and_only_under_its_lease(farm: &Farm) {
    let running = running(farm).await;
    let task = LogName::Task(running.job, "build".into());
    let key = running.builder.key(running.fence);
    let begin = async |log| farm.store.begin_log(key, log, "task\n").await;
    assert_eq!(begin(&running.log).await.unwrap(), START);
    assert_eq!(begin(&task).await.unwrap(), 5);
    assert_eq!(begin(&task).await.unwrap(), 5);
    assert_eq!(whole(&farm.store, &task).await.len(), 1);
    let another = LogName::Job(JobId(running.job.0 + 1));
    assert!(is_lost(begin(&another).await));
    farm.store.cancel(running.job, "enough").await.unwrap();
    let other = LogName::Task(running.job, "test".into());
    assert!(is_lost(begin(&other).await));
    assert_eq!(farm.store.log_end(&other).await.unwrap(), 0);
}

/// The last piece of a log, which is text.
async fn last_line(store: &Store, log: &LogName) -> String {
    match whole(store, log).await.pop().map(|chunk| chunk.held) {
        Some(Held::Line(line)) => line,
        held => panic!("the last piece is no line: {held:?}"),
    }
}

pub async fn why_an_attempt_ended_is_there_before_another_can_begin(farm: &Farm) {
    let running = running(farm).await;
    let unended = NewChunk {
        mid_line: true,
        ..piece(START, 3)
    };
    running.add(&farm.store, &unended).await.unwrap();
    let key = running.builder.key(running.fence);
    let changed = farm.store.give_back(key, "no\nroom", true).await.unwrap();
    let line = "[kiln] this attempt ended: no room\n";
    assert_eq!(changed.lines, [(running.log.clone(), line.to_owned())]);
    let said = last_line(&farm.store, &running.log).await;
    assert_eq!(said, format!("\n{line}"));
    let again = farm
        .store
        .assign_after(async |_| Ok(Some("second\n".into())));
    again.await.unwrap();
    assert_eq!(last_line(&farm.store, &running.log).await, "second\n");
}

pub async fn why_the_farm_ended_a_job_is_said_in_all_logs_of_it_that_were_open(farm: &Farm) {
    let running = running(farm).await;
    let key = running.builder.key(running.fence);
    let task = |name: &str| LogName::Task(running.job, name.into());
    farm.store.begun(key).await.unwrap();
    farm.store
        .begin_log(key, &task("build"), "task\n")
        .await
        .unwrap();
    let runs = TaskStatus::Running;
    farm.store.set_task(key, "build", runs).await.unwrap();
    farm.pass(31).await;
    farm.reap().await;
    for log in [running.log.clone(), task("build")] {
        let said = last_line(&farm.store, &log).await;
        assert!(
            said.starts_with("[kiln] the job ended as failed: worker lost"),
            "{said}"
        );
    }
    assert_eq!(farm.store.log_end(&task("test")).await.unwrap(), 0);
}

pub async fn nothing_is_added_under_a_lease_that_ended_or_is_anothers(farm: &Farm) {
    let running = running(farm).await;
    let another = LogName::Job(JobId(running.job.0 + 1));
    let key = running.builder.key(running.fence);
    assert!(is_lost(
        farm.store.add_chunk(key, &another, &piece(0, 1)).await
    ));
    let stranger = farm.another_session(running.builder.worker);
    let key = stranger.key(running.fence);
    assert!(is_lost(
        farm.store
            .add_chunk(key, &running.log, &piece(START, 1))
            .await
    ));
    farm.end(&running.builder, running.fence, JobStatus::Failed)
        .await;
    assert!(is_lost(running.add(&farm.store, &piece(START, 1)).await));
    assert_eq!(whole(&farm.store, &running.log).await.len(), 1);
}

/// Two servers append what they can, until the lease has ended. Gives how many pieces were
/// stored.
async fn append_until_lost(store: Store, running: &Running) -> u64 {
    let mut stored = 0;
    let mut at = START;
    loop {
        match running.add(&store, &piece(at, 3)).await {
            Ok(Added::Stored(end)) => {
                stored += 1;
                at = end;
            }
            Ok(Added::Elsewhere(end)) => at = end,
            Err(StoreError::LeaseLost) => return stored,
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn of_all_that_append_at_once_nobody_follows_the_servers_last_line(farm: &Farm) {
    let running = running(farm).await;
    let ends = async {
        // Some pieces come first.
        while farm.store.log_end(&running.log).await.unwrap() < START + 30 {
            tokio::task::yield_now().await;
        }
        farm.store.cancel(running.job, "enough").await.unwrap();
    };
    let (one, two, ()) = tokio::join!(
        append_until_lost(farm.store.clone(), &running),
        append_until_lost(farm.another_store().await, &running),
        ends,
    );
    let said = last_line(&farm.store, &running.log).await;
    assert_eq!(said, "[kiln] the job ended as cancelled: enough\n");
    let chunks = whole(&farm.store, &running.log).await;
    assert_eq!(
        chunks.len() as u64,
        one + two + 2,
        "what was acknowledged is there"
    );
}

pub async fn appends_do_not_wait_for_the_one_who_writes(farm: &Farm) {
    let running = running(farm).await;
    let bob = farm.user("bob").await;
    let log = LogName::Job(farm.submit(bob).await);
    // A pass that takes long, in the middle of its transaction.
    let assigned = farm.store.assign_after(async |_| {
        if farm.config.url.starts_with("postgres") {
            let other = farm.another_store().await;
            let added = running.add(&other, &piece(START, 3)).await;
            assert_eq!(added.unwrap(), Added::Stored(9));
        }
        Ok(Some("first\n".into()))
    });
    assigned.await.unwrap();
    assert_eq!(farm.store.log_end(&log).await.unwrap(), START);
}

/// Appends as a bad connection makes them, against a plain list of bytes.
pub async fn any_appends_make_the_stream_that_was_sent(farm: &Farm) {
    let running = running(farm).await;
    let case = prop::collection::vec((0u64..40, 1u64..20), 1..40);
    let mut runner = TestRunner::default();
    let mut model: Vec<u8> = vec![0; 6];
    for round in 0u8..6 {
        for (back, length) in case.new_tree(&mut runner).unwrap().current() {
            let end = model.len() as u64;
            // Mostly at the end, else before or behind it.
            let start = if back > 20 {
                end
            } else {
                (end + 10).saturating_sub(back)
            };
            let added = running
                .add(&farm.store, &piece(start, length))
                .await
                .unwrap();
            if start == end {
                model.extend(vec![round; usize::try_from(length).unwrap()]);
                assert_eq!(added, Added::Stored(model.len() as u64));
            } else {
                assert_eq!(added, Added::Elsewhere(end));
            }
        }
    }
    let chunks = whole(&farm.store, &running.log).await;
    let sum: u64 = chunks.iter().map(|chunk| chunk.length).sum();
    assert_eq!(sum, model.len() as u64);
}
