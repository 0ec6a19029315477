//! Passes that look at the truth and do one step. Each runs when hinted or by the clock,
//! and may be repeated: what one that failed did not do, the next does.

mod pack;
mod reception;
mod retain;
mod sweep;
#[cfg(test)]
mod tests;

use std::{io::ErrorKind, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use kiln_store::{
    StoreError,
    model::{Changed, Given},
};
use tokio::{task::JoinSet, time::Instant};

pub(crate) use pack::Failed;
pub(crate) use reception::Reception;
pub(crate) use sweep::Round;
pub use sweep::{Findings, check};

use crate::{
    app::{failed, narrate, renewals, sessions},
    state::{Shared, State, stopped},
};

/// How often passes look without a hint.
const LOOK: Duration = Duration::from_secs(1);
/// How often they look for jobs that nobody serves.
const LOOK_FOR_UNSERVED: Duration = Duration::from_mins(1);
/// How often they look after what ended jobs keep.
const LOOK_AFTER_ENDED: Duration = Duration::from_secs(10);
const LOOK_FOR_OLD: Duration = Duration::from_mins(1);
const LOOK_FOR_ROWS: Duration = Duration::from_hours(1);
/// A server that does what one is enough for is not waited for longer than this.
const DUTY_SECONDS: u32 = 120;
/// The longest wait after passes that failed.
const LONGEST: Duration = Duration::from_secs(10);

/// Starts them; each ends when the server does, after the pass that it is in.
pub(crate) fn start(state: &Shared) -> JoinSet<()> {
    let mut passes = JoinSet::new();
    passes.spawn(hear(state.clone(), state.hints.bus().subscribe()));
    passes.spawn(repeat(state.clone(), "assign", LOOK, true, assign));
    passes.spawn(repeat(state.clone(), "reap", LOOK, false, reap));
    passes.spawn(repeat(state.clone(), "look", LOOK, false, sessions::look));
    passes.spawn(renewals::keep(state.clone()));
    let unserved = LOOK_FOR_UNSERVED;
    passes.spawn(repeat(
        state.clone(),
        "cancel-unserved",
        unserved,
        false,
        cancel_unserved,
    ));
    let (ended, old, rows) = (LOOK_AFTER_ENDED, LOOK_FOR_OLD, LOOK_FOR_ROWS);
    passes.spawn(repeat(state.clone(), "pack", ended, false, pack::pass));
    passes.spawn(repeat(state.clone(), "retain", old, false, retain::pass));
    passes.spawn(repeat(
        state.clone(),
        "collect",
        ended,
        false,
        retain::collect,
    ));
    passes.spawn(repeat(state.clone(), "sweep", ended, false, sweep::pass));
    passes.spawn(repeat(state.clone(), "tidy", rows, false, retain::tidy));
    passes
}

/// Tells those who listen here what the other servers say.
async fn hear(state: Shared, mut said: kiln_bus::Subscription) {
    let mut stopping = state.stopping.clone();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return,
            heard = said.next() => match heard {
                Some(heard) => state.hints.heard(heard),
                None => return,
            },
        }
    }
}

/// Whether this server is to do what one is enough for.
async fn duty(state: &State, name: &str) -> Result<bool, StoreError> {
    state.store.take_duty(name, &state.name, DUTY_SECONDS).await
}

/// One pass after another. Whatever happens in one, there is a next; the more failed in
/// a row, the later.
async fn repeat(
    state: Shared,
    name: &'static str,
    every: Duration,
    hinted: bool,
    pass: impl AsyncFn(&State) -> Result<(), StoreError>,
) {
    let mut stopping = state.stopping.clone();
    let mut failures: u32 = 0;
    loop {
        let done = AssertUnwindSafe(pass(&state)).catch_unwind().await;
        failures = match done {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                failed!(&error, pass = name, "the pass `{name}` failed: {error}");
                failures.saturating_add(1)
            }
            Err(_) => {
                tracing::error!(pass = name, "the pass `{name}` panicked");
                failures.saturating_add(1)
            }
        };
        let wait = every.max(every.saturating_mul(failures).min(LONGEST));
        // A hint does not shorten the wait after a failure.
        let hint = async {
            if hinted && failures == 0 {
                state.hints.assign().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stopped(&mut stopping) => return,
            () = tokio::time::sleep(wait) => {}
            () = hint => {}
        }
    }
}

/// Gives queued jobs to free slots.
async fn assign(state: &State) -> Result<(), StoreError> {
    let began = Instant::now();
    let turn = state.lines.turn().await;
    let changed = state
        .store
        .assign_after(async |given| first_lines(state, given).await);
    let changed = changed.await?;
    drop(turn);
    state.metrics.passes.observe(began.elapsed().as_secs_f64());
    state.hints.changed(&changed);
    Ok(())
}

/// Nobody sees a job running whose log is empty. One log that can't be written does not keep
/// all others waiting: its worker hears of it with the first append, and the job ends.
async fn first_lines(state: &State, given: Given) -> Result<Option<String>, StoreError> {
    let written = tokio::time::timeout(LONGEST, narrate::attempt(state, &given)).await;
    let error = match written.unwrap_or_else(|late| Err(late.into())) {
        Ok(lines) => return Ok(lines),
        Err(error) => error,
    };
    let is_full = matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    );
    if is_full || state.objects.check().await.is_err() {
        return Err(StoreError::Unavailable(error.into()));
    }
    let job = given.job;
    tracing::error!(%job, "the log of job {job} can't be written: {error}");
    Ok(None)
}

/// Ends leases that ran out, and jobs that are overdue.
async fn reap(state: &State) -> Result<(), StoreError> {
    let reaped = async {
        let clock = state.store.now().await?;
        let whole = state.reception.is_whole(clock);
        if let Some((before, by)) = state.reception.put_forward() {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            state.store.put_forward(before, by).await?;
            state.reception.moved();
        }
        match whole {
            true => state.store.reap(clock).await,
            false => Ok(Changed::default()),
        }
    };
    let reaped = narrate::deciding(state, reaped).await;
    let changed = reaped.inspect_err(|_| state.reception.broke_off())?;
    state.metrics.lost.inc_by(changed.sessions.len() as u64);
    Ok(())
}

/// Cancels jobs that nobody serves.
async fn cancel_unserved(state: &State) -> Result<(), StoreError> {
    narrate::deciding(state, state.store.cancel_unserved()).await?;
    Ok(())
}
