//! Answers the calls of other servers.

mod caller;
mod membership;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::peer::{
    NotLeader, ProposeRequest, ProposeResponse, ReadIndexResponse, SnapshotChunk, SpaceReport,
    propose_response, read_index_response,
};
use flotilla_store::Transaction;
use futures::stream::{BoxStream, StreamExt as _};
use openraft::raft::AppendEntriesRequest;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::consensus::{self, TypeConfig};
use crate::leadership::may_lead;
use crate::network::install_header;
use crate::platform::DiskFile;
use crate::proposer::{ProposeError, Refusal, check_size, write_refusal};
use crate::replica::Core;
use crate::space::SpaceUse;
use crate::storage::{self, SnapshotFile};

/// How long a forwarded proposal may wait for its turn and its majority.
const PROPOSE_LIMIT: Duration = Duration::from_secs(8);
/// How long a call of the consensus waits for a replica that is about to be admitted.
const ADMISSION_LIMIT: Duration = Duration::from_secs(2);

/// Why a call is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The replica is gone, or goes.
    #[error("this server is shutting down")]
    Stopping,
    /// It does not want to; nothing has happened.
    #[error("{0}")]
    Refused(String),
    /// The caller's cluster was reset or restored without it; nothing has happened.
    #[error("{0}")]
    LeftBehind(String),
    /// The message cannot be decoded; nothing has happened.
    #[error("the message is not of this version")]
    Unreadable,
    /// Anything else. It may have been carried out.
    #[error("{0}")]
    Failed(String),
}

/// Answers the calls of other servers, whatever carries them; see
/// [`Replica::peer_answers`](crate::Replica::peer_answers).
///
/// It does not keep the replica alive: connections that are still open may hold it long after.
#[derive(Clone)]
pub struct PeerService {
    core: Weak<Core>,
}

impl PeerService {
    pub(crate) fn new(core: &Arc<Core>) -> PeerService {
        PeerService {
            core: Arc::downgrade(core),
        }
    }

    fn core(&self) -> Result<Arc<Core>, AnswerError> {
        self.core.upgrade().ok_or(AnswerError::Stopping)
    }

    /// A replica without data takes part only after a cluster has said that it knows it as new. Otherwise one
    /// that lost its disk could vote twice in a term, or acknowledge again what it has forgotten.
    async fn admitted(&self) -> Result<Arc<Core>, AnswerError> {
        let core = self.core()?;
        let mut admitted = core.admitted.subscribe();
        match tokio::time::timeout(ADMISSION_LIMIT, admitted.wait_for(|admitted| *admitted)).await {
            Ok(Ok(_)) => Ok(core),
            _ => Err(AnswerError::Refused(
                "this server is not a member of a cluster".to_owned(),
            )),
        }
    }

    /// Openraft's append.
    pub async fn append_entries(&self, message: Bytes) -> Result<Bytes, AnswerError> {
        let message: AppendEntriesRequest<TypeConfig> = read(&message)?;
        let core = self.admitted().await?;
        core.check_term(message.vote.leader_id.term)?;
        let answer = core.raft.append_entries(message).await.map_err(failed)?;
        Ok(consensus::encode(&answer))
    }

    /// Openraft's request of a vote.
    pub async fn vote(&self, message: Bytes) -> Result<Bytes, AnswerError> {
        let core = self.core()?;
        let message = read(&message)?;
        if !core.is_initialized() {
            return Err(AnswerError::Refused(
                "this server has no data and does not vote".to_owned(),
            ));
        }
        let answer = core.raft.vote(message).await.map_err(failed)?;
        Ok(consensus::encode(&answer))
    }

    /// A whole snapshot in order; the first chunk has the header.
    pub async fn install_snapshot(
        &self,
        mut chunks: BoxStream<'static, Result<SnapshotChunk, AnswerError>>,
    ) -> Result<Bytes, AnswerError> {
        let core = self.admitted().await?;
        let first = match chunks.next().await {
            Some(first) => first?,
            None => return Err(AnswerError::Unreadable),
        };
        let (vote, meta) = install_header(&first.header).map_err(|_| AnswerError::Unreadable)?;
        core.check_term(vote.leader_id.term)?;
        let received = receive(&core, first, chunks).await?;
        let snapshot = openraft::Snapshot {
            meta,
            snapshot: Box::new(received),
        };
        let installed = core.raft.install_full_snapshot(vote, snapshot).await;
        Ok(consensus::encode(&installed.map_err(failed)?))
    }

    /// Proposes on this replica, which should lead.
    pub async fn propose(&self, request: ProposeRequest) -> Result<ProposeResponse, AnswerError> {
        let core = self.core()?;
        // What enters the log must be readable by every replica.
        let transaction: Transaction = read(&request.transaction)?;
        if let Err(error) = check_size(&transaction) {
            return Ok(refused(&error));
        }
        let result = core
            .proposer
            .propose_here(&transaction, request.transaction, Instant::now() + PROPOSE_LIMIT)
            .await;
        let outcome = match result {
            Ok(outcome) => propose_response::Outcome::Applied(consensus::encode(&outcome)),
            Err(Refusal::NotLeader) => propose_response::Outcome::NotLeader(not_leader(&core)),
            Err(Refusal::Unavailable(reason)) => propose_response::Outcome::Unavailable(reason),
            Err(Refusal::Final(error)) => return Ok(refused(&error)),
            Err(Refusal::Unknown(reason)) => return Err(AnswerError::Failed(reason)),
        };
        Ok(ProposeResponse {
            outcome: Some(outcome),
        })
    }

    /// How far a reader has to be, confirmed with a majority.
    pub async fn read_index(&self) -> Result<ReadIndexResponse, AnswerError> {
        let core = self.core()?;
        let outcome = if may_lead(&core.raft) {
            match core.reader.read_index().await {
                Ok(index) => read_index_response::Outcome::Index(index),
                Err(error) => read_index_response::Outcome::Unavailable(error.to_string()),
            }
        } else {
            read_index_response::Outcome::NotLeader(not_leader(&core))
        };
        Ok(ReadIndexResponse {
            outcome: Some(outcome),
        })
    }

    /// Takes note of how full another server's data folder is.
    pub fn report_space(&self, report: SpaceReport) -> Result<(), AnswerError> {
        let said = SpaceUse {
            server: report.server,
            used_bytes: report.used_bytes,
            quota_bytes: report.quota_bytes,
        };
        self.core()?.space.heard(report.member, said);
        Ok(())
    }
}

/// Receives into a file, and makes it the newest snapshot once it is whole.
async fn receive(
    core: &Core,
    first: SnapshotChunk,
    chunks: BoxStream<'static, Result<SnapshotChunk, AnswerError>>,
) -> Result<SnapshotFile, AnswerError> {
    let (path, file) = core
        .snapshots
        .create_partial()
        .map_err(|error| disk_failed(&error))?;
    let received = receive_into(core, path.clone(), file, first, chunks).await;
    if received.is_err() {
        core.snapshots.discard(&path);
    }
    received
}

/// Writes all chunks to the file, reads it back, verifies it and makes it the newest snapshot.
///
/// That comes before openraft hears of it, because openraft purges the log up to a snapshot as soon as it has
/// begun to install it. A crash between leaves a snapshot that is ahead of the log, which is no hole.
async fn receive_into(
    core: &Core,
    path: PathBuf,
    mut file: Box<dyn DiskFile>,
    first: SnapshotChunk,
    mut chunks: BoxStream<'static, Result<SnapshotChunk, AnswerError>>,
) -> Result<SnapshotFile, AnswerError> {
    let mut next = Some(first);
    let mut offset = 0;
    while let Some(chunk) = next {
        if chunk.offset != offset {
            return Err(AnswerError::Failed(
                "a part of the snapshot is missing".to_owned(),
            ));
        }
        let start = offset;
        offset += chunk.data.len() as u64;
        file = blocking(core, move || {
            file.write_all_at(&chunk.data, start)?;
            Ok(file)
        })
        .await?;
        next = chunks.next().await.transpose()?;
    }
    let folder = Arc::clone(&core.snapshots);
    blocking(core, move || {
        let saved = storage::read_snapshot(&*file).map_err(io::Error::other)?;
        folder.keep(&path, &*file, &saved.meta)?;
        Ok(SnapshotFile {
            file,
            content: Some(saved),
        })
    })
    .await
}

fn refused(error: &ProposeError) -> ProposeResponse {
    ProposeResponse {
        outcome: Some(propose_response::Outcome::Refused(write_refusal(error))),
    }
}

fn not_leader(core: &Core) -> NotLeader {
    let leader = core.leadership.borrow().leader.clone();
    leader
        .filter(|leader| leader.id != core.options.id)
        .map(|leader| NotLeader {
            leader_id: leader.id,
            leader_address: leader.address,
        })
        .unwrap_or_default()
}

async fn blocking<T: Send + 'static>(
    core: &Core,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, AnswerError> {
    let done = core.options.platform.blocking(work).await;
    done.unwrap_or_else(Err).map_err(|error| disk_failed(&error))
}

fn read<T: DeserializeOwned>(message: &Bytes) -> Result<T, AnswerError> {
    consensus::decode(message).map_err(|_| AnswerError::Unreadable)
}

fn disk_failed(error: &io::Error) -> AnswerError {
    AnswerError::Failed(format!("the snapshot cannot be stored: {error}"))
}

fn failed(error: impl std::error::Error) -> AnswerError {
    AnswerError::Failed(error.to_string())
}
