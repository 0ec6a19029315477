//! Compares what is there with what rows refer to: removes objects that no row refers to, and
//! tells of rows whose objects are missing.
//!
//! It looks at one shard (a thousand jobs) at a time, so that it costs little at any moment,
//! and begins anew some hours after it has seen all. An object is written before its row: so
//! only one that is older than a day is nobody's, and was nobody's in the round before: that is
//! true whatever the clocks of the database and of the objects say. Nothing is removed where another
//! farm's name is written: somebody has a database that does not belong to these objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kiln_objects::{Found, Objects, SHARD};
use kiln_store::{Store, StoreError, model::Referred};
use tokio::time::Instant;

use super::duty;
use crate::{index::StoreIndex, state::State};

/// An object that no row refers to stays so long: it may be an upload that is on its way.
pub(crate) const GRACE: Duration = Duration::from_hours(24);
/// So many objects that may be nobody's are remembered from one round to the next.
const SUSPECTS: usize = 100_000;
/// So long after all was seen it begins anew.
pub(super) const EVERY: Duration = Duration::from_hours(6);

/// What a look at some jobs found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What rows refer to and is not there, or not as it should be: a sentence each.
    pub missing: Vec<String>,
    /// The keys of objects that no row refers to, and that are old enough to go.
    pub orphans: Vec<String>,
    /// How many objects there are.
    pub objects: u64,
}

/// Where a round is.
#[derive(Debug, Default)]
pub(crate) struct Round(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// The shards that are to be looked at yet.
    left: BTreeSet<i32>,
    /// Rows without objects that this round has found so far.
    missing: u64,
    /// Objects that this round has found to be nobody's so far, and those of the round before.
    orphans: BTreeSet<String>,
    before: BTreeSet<String>,
    ended: Option<Instant>,
}

impl Round {
    fn next(&self) -> Option<i32> {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.left.pop_first()
    }

    /// Whether there is something to look at: more of this one, or it is time for another.
    fn is_due(&self, every: Duration) -> bool {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let again = progress.ended.is_none_or(|ended| ended.elapsed() >= every);
        again || !progress.left.is_empty()
    }

    fn begin(&self, shards: BTreeSet<i32>) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.left = shards;
        progress.missing = 0;
        progress.before = std::mem::take(&mut progress.orphans);
    }

    /// Notes what is nobody's; gives what was so in the round before as well.
    fn suspect(&self, orphans: Vec<String>) -> Vec<String> {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, new): (Vec<_>, Vec<_>) = orphans
            .into_iter()
            .partition(|orphan| progress.before.contains(orphan));
        let room = SUSPECTS.saturating_sub(progress.orphans.len());
        progress.orphans.extend(new.into_iter().take(room));
        known
    }

    /// Notes what a shard lacks; gives the sum of the round when that was the last one.
    fn found(&self, missing: usize) -> Option<u64> {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.missing += missing as u64;
        let over = progress.left.is_empty();
        if over {
            progress.ended = Some(Instant::now());
        }
        over.then_some(progress.missing)
    }
}

/// Looks at the next shard.
pub(super) async fn pass(state: &State) -> Result<(), StoreError> {
    if !state.round.is_due(EVERY) || !duty(state, "sweep").await? {
        return Ok(());
    }
    swept(state, GRACE, EVERY).await.map_err(unavailable)
}

fn unavailable(error: anyhow::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}

/// Whoever removes objects makes sure before that they are this farm's.
///
/// # Errors
/// When they are another's, or the database or the objects don't answer.
pub(super) async fn is_ours(state: &State) -> Result<(), StoreError> {
    let ours = ours(&state.store, &state.objects, &state.name);
    ours.await.map_err(unavailable)
}

/// Looks at the next shard of the round; the first one of another when that is due, so long
/// after the last one.
pub(super) async fn swept(state: &State, grace: Duration, every: Duration) -> anyhow::Result<()> {
    let round = &state.round;
    let shard = match round.next() {
        Some(shard) => shard,
        None if !round.is_due(every) => return Ok(()),
        None => {
            ours(&state.store, &state.objects, &state.name).await?;
            round.begin(shards(&state.store, &state.objects).await?);
            let Some(shard) = round.next() else {
                return Ok(());
            };
            shard
        }
    };
    let looked = look(&state.store, &state.objects, shard, grace).await;
    // Also of a shard that could not be looked at: the round goes on, and ends.
    let missing = looked.as_ref().map_or(0, |findings| findings.missing.len());
    if let Some(missing) = round.found(missing) {
        let missing = i64::try_from(missing).unwrap_or(i64::MAX);
        state.metrics.missing.set(missing);
    }
    let findings = looked?;
    for orphan in round.suspect(findings.orphans) {
        match state.objects.remove(&orphan).await {
            Ok(()) => {
                tracing::info!("{orphan} is removed: nothing refers to it");
                state.metrics.orphans.inc();
            }
            Err(error) => tracing::warn!("{orphan} can't be removed: {error}"),
        }
    }
    for missing in &findings.missing {
        tracing::error!("{missing}");
    }
    Ok(())
}

/// Looks at everything, and changes nothing.
///
/// # Errors
/// When the database or the objects don't answer.
pub async fn check(store: &Store, objects: kiln_objects::Config) -> anyhow::Result<Findings> {
    let index = Arc::new(StoreIndex(store.clone()));
    compare(store, &Objects::look(objects, index)?).await
}

/// All that there is, and what is missing.
pub(super) async fn compare(store: &Store, objects: &Objects) -> anyhow::Result<Findings> {
    let mut all = Findings::default();
    for shard in shards(store, objects).await? {
        let found = look(store, objects, shard, GRACE).await?;
        all.missing.extend(found.missing);
        all.orphans.extend(found.orphans);
        all.objects += found.objects;
    }
    Ok(all)
}

/// Makes sure that the objects are this farm's.
async fn ours(store: &Store, objects: &Objects, new: &str) -> anyhow::Result<()> {
    let identity = store.identity(new).await?;
    let written = objects.mark(&identity).await?;
    anyhow::ensure!(
        written == identity,
        "the logs and artifacts are another farm's, by the name that is written there ({written}, and this farm is {identity}): \
         nothing of them is removed. Is this the right database?"
    );
    Ok(())
}

/// All shards in which there are jobs or objects.
async fn shards(store: &Store, objects: &Objects) -> anyhow::Result<BTreeSet<i32>> {
    let mut shards = objects.shards().await?;
    shards.extend(store.shards(SHARD).await?);
    Ok(shards)
}

/// Looks at a shard. What seems to be missing is looked for twice: a log that is packed or
/// removed meanwhile is not missing.
async fn look(
    store: &Store,
    objects: &Objects,
    shard: i32,
    grace: Duration,
) -> anyhow::Result<Findings> {
    let jobs = shard.saturating_mul(SHARD)..=shard.saturating_mul(SHARD).saturating_add(SHARD - 1);
    let before = store.referred(&jobs).await?;
    let found = list(objects, shard).await?;
    let after = store.referred(&jobs).await?;
    let mut missing = missing(objects, &before, &found)?;
    missing.retain_keys(&self::missing(objects, &after, &found)?);
    if !missing.0.is_empty() {
        let again = list(objects, shard).await?;
        let rows = store.referred(&jobs).await?;
        missing.retain_keys(&self::missing(objects, &rows, &again)?);
    }
    let now = u64::try_from(store.now().await?.0).unwrap_or_default();
    let now = UNIX_EPOCH + Duration::from_micros(now);
    let known = names(objects, &after)?;
    let orphans = found
        .values()
        .filter(|found| !known.contains(&found.key) && age(now, found.modified) >= grace);
    Ok(Findings {
        orphans: orphans.map(|found| found.key.clone()).collect(),
        missing: missing.0.into_values().collect(),
        objects: found.len() as u64,
    })
}

fn age(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

async fn list(objects: &Objects, shard: i32) -> anyhow::Result<BTreeMap<String, Found>> {
    let found = objects.list(shard).await?;
    Ok(found
        .into_iter()
        .map(|found| (found.key.clone(), found))
        .collect())
}

/// The keys of all that may be there.
fn names(objects: &Objects, rows: &Referred) -> anyhow::Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = rows.objects.iter().map(|(key, _)| key.clone()).collect();
    for (job, place, _) in &rows.artifacts {
        names.insert(objects.artifact_key(*job, *place));
    }
    for log in &rows.logs {
        names.extend(objects.log_files(log)?);
    }
    Ok(names)
}

/// What is missing, by key.
struct Missing(BTreeMap<String, String>);

impl Missing {
    fn retain_keys(&mut self, other: &Self) {
        self.0.retain(|key, _| other.0.contains_key(key));
    }
}

fn missing(
    objects: &Objects,
    rows: &Referred,
    found: &BTreeMap<String, Found>,
) -> anyhow::Result<Missing> {
    let mut missing = BTreeMap::new();
    let artifacts = rows.artifacts.iter();
    let artifacts = artifacts.map(|(job, place, size)| (objects.artifact_key(*job, *place), *size));
    for (key, size) in rows.objects.iter().cloned().chain(artifacts) {
        let sentence = match found.get(&key) {
            None => format!("{key} is missing: it should have {size} bytes"),
            Some(found) if found.size != size => {
                format!("{key} has {} bytes, and should have {size}", found.size)
            }
            Some(_) => continue,
        };
        missing.insert(key, sentence);
    }
    for log in &rows.begun {
        let files = objects.log_files(log)?;
        let there = |file: &String| found.get(file).is_some_and(|found| found.size > 0);
        if let Some(first) = files.first()
            && !files.iter().any(there)
        {
            missing.insert(first.clone(), format!("{first} is missing, or empty"));
        }
    }
    Ok(Missing(missing))
}
