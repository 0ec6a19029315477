//! Many operations in one transaction.
//!
//! A commit costs the same for one operation as for a hundred: a lock, the disk, and a
//! statement of each kind. What servers do most therefore waits here for its turn to write,
//! together, and is done as sets by [`crate::ops`]: each operation sees what those before it
//! did, one that is refused changes nothing, and all are answered after the one commit.
//! If that fails, all of them have failed.

use std::{error::Error, fmt, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    Store, StoreError,
    dialect::Engine,
    model::{Job, NewJob, Reported},
    ops::{
        reports::{self, Report},
        submit,
    },
    tx::{Tx, again},
};

/// Operations in one transaction, at the most: others want to write too.
const MOST: usize = 256;
/// Bytes of manifests and of tasks' names in one transaction, or one job that has more.
const BYTES: usize = 4 << 20;

/// An operation that can be one of many.
#[derive(Debug)]
pub(crate) enum Operation {
    Submit(Box<NewJob>),
    Report(Box<Report>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The job, and whether it is new.
    Submitted(Box<Job>, bool),
    Reported(Reported),
}

type Verdict = Result<Answer, StoreError>;

/// One that waits.
struct Waiting {
    operation: Operation,
    answer: oneshot::Sender<Verdict>,
}

/// Where they wait. Whoever waits here is somebody's request, so there are not too many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue(Option<mpsc::UnboundedSender<Waiting>>);

impl Store {
    /// This store, with somebody who does what waits. That one ends with the store.
    pub(crate) fn grouping(self) -> Self {
        let (sender, queue) = mpsc::unbounded_channel();
        tokio::spawn(serve(self.clone(), queue));
        Self {
            grouped: Queue(Some(sender)),
            ..self
        }
    }

    /// Does an operation with others.
    pub(crate) async fn grouped(&self, operation: Operation) -> Verdict {
        self.enqueue(operation)?
            .await
            .unwrap_or_else(|_| Err(gone()))
    }

    fn enqueue(&self, operation: Operation) -> Result<oneshot::Receiver<Verdict>, StoreError> {
        let (answer, verdict) = oneshot::channel();
        let Queue(Some(queue)) = &self.grouped else {
            return Err(gone());
        };
        let sent = queue.send(Waiting { operation, answer });
        sent.map_err(|_| gone())?;
        Ok(verdict)
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("nobody writes any more".into())
}

async fn serve(store: Store, queue: mpsc::UnboundedReceiver<Waiting>) {
    let queue = Arc::new(Mutex::new(queue));
    let all = async |store: Store, queue: Arc<Mutex<mpsc::UnboundedReceiver<Waiting>>>| {
        let mut queue = queue.lock().await;
        while let Some(first) = queue.recv().await {
            // Nobody waits for it any more, and nobody is to wait for its turn.
            if first.answer.is_closed() {
                continue;
            }
            group(&store, first, &mut queue).await;
        }
    };
    // After a panic whoever waited hears that there is no answer, and the next are served.
    while tokio::spawn(all(store.clone(), Arc::clone(&queue)))
        .await
        .is_err()
    {
        tracing::error!("a group of operations panicked");
    }
}

/// Does this one, and those that have come when it has its turn.
async fn group(store: &Store, first: Waiting, queue: &mut mpsc::UnboundedReceiver<Waiting>) {
    let mut tx = match store.in_time(store.write()).await {
        Ok(tx) => Some(tx),
        Err(error) => return fail(vec![first], error),
    };
    let mut bytes = first.operation.bytes();
    let mut group = vec![first];
    while group.len() < MOST && bytes < BYTES {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.operation.bytes();
        group.push(next);
    }
    // Nobody waits for these any more.
    group.retain(|waiting| !waiting.answer.is_closed());
    let mut count = 0;
    while !group.is_empty() {
        let error = match store.in_time(attempt(store, tx.take(), &group)).await {
            Ok(verdicts) => return answer(group, verdicts),
            Err(error) => error,
        };
        if again(&error, count) {
            count += 1;
        } else if group.len() > 1 && is_unfit(&error) {
            return each_alone(store, group).await;
        } else {
            return fail(group, error);
        }
    }
}

/// All of a group in one transaction, or an error and nothing.
async fn attempt(
    store: &Store,
    tx: Option<Tx>,
    group: &[Waiting],
) -> Result<Vec<Verdict>, StoreError> {
    let mut tx = match tx {
        Some(tx) => tx,
        None => store.write().await?,
    };
    let mut verdicts: Vec<Option<Verdict>> = Vec::new();
    verdicts.resize_with(group.len(), || None);
    let (mut jobs, mut told) = (Vec::new(), Vec::new());
    for (place, waiting) in group.iter().enumerate() {
        match &waiting.operation {
            Operation::Submit(job) => jobs.push((place, &**job)),
            Operation::Report(report) => told.push((place, &**report)),
        }
    }
    for (place, verdict) in submit::all(&mut tx, &jobs).await? {
        verdicts[place] = Some(verdict.map(|(job, new)| Answer::Submitted(Box::new(job), new)));
    }
    for (place, verdict) in reports::all(&mut tx, &told).await? {
        verdicts[place] = Some(verdict.map(Answer::Reported));
    }
    tx.commit().await?;
    let verdicts = verdicts.into_iter();
    Ok(verdicts
        .map(|verdict| verdict.unwrap_or_else(|| Err(gone())))
        .collect())
}

/// One of a group is to blame: found out by doing each by itself.
async fn each_alone(store: &Store, group: Vec<Waiting>) {
    for waiting in group {
        let one = vec![waiting];
        match store.in_time(attempt(store, None, &one)).await {
            Ok(verdicts) => answer(one, verdicts),
            Err(error) => fail(one, error),
        }
    }
}

fn answer(group: Vec<Waiting>, verdicts: Vec<Verdict>) {
    for (waiting, verdict) in group.into_iter().zip(verdicts) {
        // Whoever went away meanwhile sees it when it looks.
        drop(waiting.answer.send(verdict));
    }
}

fn fail(group: Vec<Waiting>, error: StoreError) {
    let StoreError::Unavailable(source) = error else {
        for waiting in group {
            drop(
                waiting
                    .answer
                    .send(Err(StoreError::Conflict(error.to_string()))),
            );
        }
        return;
    };
    let source = Shared(source.into());
    for waiting in group {
        let error = StoreError::Unavailable(Box::new(source.clone()));
        drop(waiting.answer.send(Err(error)));
    }
}

/// Whether one operation's words are the reason, and not the database's state.
fn is_unfit(error: &StoreError) -> bool {
    let StoreError::Unavailable(source) = error else {
        return true;
    };
    let database = source
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error);
    database.is_some_and(Engine::unfit)
}

/// An error that many are told.
#[derive(Debug, Clone)]
struct Shared(Arc<dyn Error + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Operation {
    /// About how much there is to write.
    fn bytes(&self) -> usize {
        match self {
            Self::Submit(job) => job.manifest.len(),
            Self::Report(report) => report.bytes(),
        }
    }
}
