//! Renewals of leases, those of many sessions in one transaction, and a look at all leases.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::farm::{Fence, SessionId};
use serde_json::json;
use sqlx::Row as _;

use super::sessions::LEASE;
use crate::{
    Store, StoreError,
    dialect::each,
    model::{Renewal, Renewed},
    rows,
    tx::{Tx, write},
};

impl Store {
    /// Renews these leases of a session. Gives those that are not its own, or have
    /// ended.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn renew(
        &self,
        session: &SessionId,
        leases: &[Fence],
    ) -> Result<Vec<Fence>, StoreError> {
        write!(self, |tx| one(tx, session, leases).await?)
    }

    /// Renews leases of many sessions, each of which is here once, in one transaction.
    /// Says of each, in their order, what became of it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: then none is renewed.
    pub async fn renew_many(&self, renewals: &[Renewal]) -> Result<Vec<Renewed>, StoreError> {
        write!(self, |tx| many(tx, renewals).await?)
    }

    /// The leases of all sessions that have not ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leases_of_sessions(&self) -> Result<Vec<(SessionId, Fence)>, StoreError> {
        let rows = sqlx::query("SELECT session_id, id FROM attempts WHERE ended IS NULL")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let session = rows::session_id(row, "session_id")?;
                Ok((session, Fence(row.try_get("id")?)))
            })
            .collect()
    }
}

/// Renews for one session.
pub(crate) async fn one(
    tx: &mut Tx,
    session: &SessionId,
    leases: &[Fence],
) -> Result<Vec<Fence>, StoreError> {
    let renewal = Renewal {
        session: session.clone(),
        token: None,
        leases: leases.to_vec(),
    };
    match many(tx, &[renewal]).await?.pop() {
        Some(Renewed::Lost(lost)) => Ok(lost),
        _ => Err(StoreError::NotFound("session")),
    }
}

/// A session as it is now.
struct Present {
    /// Its worker's token.
    token: String,
    revoked: bool,
    own: BTreeSet<Fence>,
}

async fn many(tx: &mut Tx, renewals: &[Renewal]) -> Result<Vec<Renewed>, StoreError> {
    let present = present(tx, renewals).await?;
    let (mut seen, mut renewed) = (Vec::new(), Vec::new());
    let verdicts = renewals.iter().map(|renewal| {
        let Some(session) = present.get(renewal.session.as_str()) else {
            return Renewed::Gone;
        };
        let is_same = |token| rows::hex(token) == session.token && !session.revoked;
        if !renewal.token.is_none_or(is_same) {
            return Renewed::TakenBack;
        }
        seen.push(json!([renewal.session.as_str()]));
        let is_own = |fence: &&Fence| session.own.contains(fence);
        let (own, lost): (Vec<Fence>, Vec<Fence>) = renewal.leases.iter().partition(is_own);
        // Leases of a worker whose token was taken back run out.
        if !session.revoked {
            renewed.extend(own.iter().map(|fence| json!([fence.0])));
        }
        Renewed::Lost(lost)
    });
    let verdicts = verdicts.collect();
    see(tx, &seen).await?;
    prolong(tx, &renewed).await?;
    Ok(verdicts)
}

/// Those of the sessions that have not ended.
async fn present(
    tx: &mut Tx,
    renewals: &[Renewal],
) -> Result<BTreeMap<String, Present>, StoreError> {
    let names = renewals.iter().map(|renewal| [renewal.session.as_str()]);
    let rows = sqlx::query(each!(tx.engine,
        "SELECT s.id, w.hash, w.revoked, a.id AS fence FROM" EACH
        "JOIN sessions s ON s.id = e.value->>0 JOIN workers w ON w.id = s.worker_id
         LEFT JOIN attempts a ON a.session_id = s.id AND a.ended IS NULL
         WHERE s.ended IS NULL"
    ))
    .bind(rows::to_json(&names.collect::<Vec<_>>())?)
    .fetch_all(&mut **tx)
    .await?;
    let mut present = BTreeMap::new();
    for row in &rows {
        let session = match present.entry(row.try_get::<String, _>("id")?) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Present {
                token: row.try_get("hash")?,
                revoked: rows::truth(row, "revoked")?,
                own: BTreeSet::new(),
            }),
        };
        let fence: Option<i64> = row.try_get("fence")?;
        session.own.extend(fence.map(Fence));
    }
    Ok(present)
}

async fn see(tx: &mut Tx, sessions: &[serde_json::Value]) -> Result<(), StoreError> {
    sqlx::query(each!(tx.engine,
        "UPDATE sessions SET seen = $2 WHERE id IN (SELECT e.value->>0 FROM" EACH ")"
    ))
    .bind(rows::to_json(&sessions)?)
    .bind(tx.now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A clock that is behind for a moment makes no lease shorter.
async fn prolong(tx: &mut Tx, fences: &[serde_json::Value]) -> Result<(), StoreError> {
    if fences.is_empty() {
        return Ok(());
    }
    sqlx::query(each!(tx.engine,
        "UPDATE attempts SET expires = $2 WHERE outcome IS NULL AND expires < $2
         AND id IN (SELECT CAST(e.value->>0 AS BIGINT) FROM" EACH ")"
    ))
    .bind(rows::to_json(&fences)?)
    .bind(tx.now.0 + LEASE)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
