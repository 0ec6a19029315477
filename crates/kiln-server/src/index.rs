//! What logs and artifacts need of the database: `kiln_objects::Index` over the store.

use async_trait::async_trait;
use bytes::Bytes;
use kiln_core::farm::{JobId, LeaseKey, LogName};
use kiln_objects::{Held, Index, IndexError, NewPiece, PackedLog, Piece};
use kiln_store::{
    Store, StoreError,
    model::{self, Added, NewChunk},
};

/// The store, as logs and artifacts see it.
#[derive(Debug)]
pub(crate) struct StoreIndex(pub(crate) Store);

fn failed(error: StoreError) -> IndexError {
    match error {
        StoreError::LeaseLost => IndexError::LeaseLost,
        other => IndexError::Unavailable(other.into()),
    }
}

fn piece(chunk: model::Chunk) -> Piece {
    Piece {
        start: chunk.start,
        length: chunk.length,
        time: chunk.created.0,
        held: match chunk.held {
            model::Held::Object { key, sha256 } => Held::Object { key, sha256 },
            model::Held::Line(line) => Held::Text(Bytes::from(line)),
            model::Held::Packed { key, length } => Held::Packed { key, length },
        },
    }
}

#[async_trait]
impl Index for StoreIndex {
    async fn holds(&self, lease: LeaseKey<'_>) -> Result<JobId, IndexError> {
        self.0.holds(lease).await.map_err(failed)
    }

    async fn end(&self, log: &LogName) -> Result<u64, IndexError> {
        self.0.log_end(log).await.map_err(failed)
    }

    async fn pieces(&self, log: &LogName, from: u64, most: u32) -> Result<Vec<Piece>, IndexError> {
        let chunks = self.0.chunks(log, from, most).await.map_err(failed)?;
        Ok(chunks.into_iter().map(piece).collect())
    }

    async fn commit(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        piece: &NewPiece,
    ) -> Result<(), IndexError> {
        let chunk = NewChunk {
            start: piece.start,
            length: piece.length,
            sha256: piece.sha256.clone(),
            object: piece.key.clone(),
            mid_line: piece.mid_line,
        };
        match self.0.add_chunk(lease, log, &chunk).await {
            Ok(Added::Stored(_)) => Ok(()),
            Ok(Added::Elsewhere(stored)) => Err(IndexError::Offset { stored }),
            Err(error) => Err(failed(error)),
        }
    }

    async fn begin(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        text: &str,
    ) -> Result<u64, IndexError> {
        self.0.begin_log(lease, log, text).await.map_err(failed)
    }

    async fn pack(&self, log: &LogName, packed: &PackedLog) -> Result<(), IndexError> {
        let new = model::NewPacked {
            stored: packed.stored,
            object: packed.key.clone(),
            length: packed.length,
        };
        match self.0.pack_log(log, &new).await {
            Ok(Added::Stored(_)) => Ok(()),
            Ok(Added::Elsewhere(stored)) => Err(IndexError::Offset { stored }),
            Err(error) => Err(failed(error)),
        }
    }
}
