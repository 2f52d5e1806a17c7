//! Answers the calls of other servers.

use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::peer::peer_server::Peer;
use flotilla_proto::peer::{
    AddMemberRequest, AddMemberResponse, Member as MemberMessage, Members as MembersMessage, NotLeader,
    ProposeRequest, ProposeResponse, RaftMessage, ReadIndexRequest, ReadIndexResponse, SnapshotChunk,
    TakeOverRequest, TakeOverResponse, add_member_response, propose_response, read_index_response,
};
use flotilla_store::Transaction;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::consensus;
use crate::leadership::may_lead;
use crate::members::{AddMemberError, Candidate, Member};
use crate::network::install_header;
use crate::proposer::Refusal;
use crate::replica::Core;
use crate::storage::{self, SnapshotFile, SnapshotFolder};

/// How long a forwarded proposal may wait for its turn and its majority.
const PROPOSE_LIMIT: Duration = Duration::from_secs(8);
/// How long a call of the consensus waits for a replica that is about to be admitted.
const ADMISSION_LIMIT: Duration = Duration::from_secs(2);

/// Answers the calls of other servers; see [`Replica::peer_service`](crate::Replica::peer_service).
///
/// It does not keep the replica alive: connections that are still open may hold it long after.
pub struct PeerService {
    core: Weak<Core>,
}

impl PeerService {
    pub(crate) fn new(core: &Arc<Core>) -> PeerService {
        PeerService {
            core: Arc::downgrade(core),
        }
    }

    fn core(&self) -> Result<Arc<Core>, Status> {
        self.core
            .upgrade()
            .ok_or_else(|| Status::unavailable("this server is shutting down"))
    }

    /// A replica without data takes part only after a cluster has said that it knows it as new. Otherwise one
    /// that lost its disk could vote twice in a term, or acknowledge again what it has forgotten.
    async fn admitted(&self) -> Result<Arc<Core>, Status> {
        let core = self.core()?;
        let mut admitted = core.admitted.subscribe();
        match tokio::time::timeout(ADMISSION_LIMIT, admitted.wait_for(|admitted| *admitted)).await {
            Ok(Ok(_)) => Ok(core),
            _ => Err(Status::failed_precondition(
                "this server is not a member of a cluster",
            )),
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = read(&request.into_inner().payload)?;
        let core = self.admitted().await?;
        let answer = core.raft.append_entries(message).await.map_err(stopped)?;
        Ok(reply(&answer))
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let core = self.core()?;
        let message = read(&request.into_inner().payload)?;
        if !core.is_initialized() {
            return Err(Status::failed_precondition(
                "this server has no data and does not vote",
            ));
        }
        let answer = core.raft.vote(message).await.map_err(stopped)?;
        Ok(reply(&answer))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let core = self.admitted().await?;
        let mut chunks = request.into_inner();
        let first = chunks
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        let (vote, meta) = install_header(&first.header).map_err(|_| unreadable())?;
        let (path, file) = core
            .snapshots
            .create_partial()
            .map_err(|error| disk_failed(&error))?;
        let partial = SnapshotFile {
            path: path.clone(),
            file,
            content: None,
        };
        let received = match receive(partial, first, &mut chunks, &core.snapshots).await {
            Ok(received) => received,
            Err(status) => {
                // The next start removes it otherwise.
                let _ = std::fs::remove_file(&path);
                return Err(status);
            }
        };
        let snapshot = openraft::Snapshot {
            meta,
            snapshot: Box::new(received),
        };
        let answer = core
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(stopped)?;
        Ok(reply(&answer))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let core = self.core()?;
        let transaction = request.into_inner().transaction;
        // What enters the log must be readable by every replica.
        let _: Transaction = read(&transaction)?;
        let result = core
            .proposer
            .propose_here(transaction, Instant::now() + PROPOSE_LIMIT)
            .await;
        let outcome = match result {
            Ok(outcome) => propose_response::Outcome::Applied(consensus::encode(&outcome)),
            Err(Refusal::NotLeader) => propose_response::Outcome::NotLeader(not_leader(&core)),
            Err(Refusal::Unavailable(reason)) => propose_response::Outcome::Unavailable(reason),
            Err(Refusal::Unknown(reason)) => return Err(Status::aborted(reason)),
        };
        Ok(Response::new(ProposeResponse {
            outcome: Some(outcome),
        }))
    }

    async fn read_index(
        &self,
        _request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        let core = self.core()?;
        let outcome = if may_lead(&core.raft) {
            match core.reader.read_index().await {
                Ok(index) => read_index_response::Outcome::Index(index),
                Err(reason) => read_index_response::Outcome::Unavailable(reason),
            }
        } else {
            read_index_response::Outcome::NotLeader(not_leader(&core))
        };
        Ok(Response::new(ReadIndexResponse {
            outcome: Some(outcome),
        }))
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<AddMemberResponse>, Status> {
        let core = self.core()?;
        let AddMemberRequest {
            id,
            name,
            address,
            empty,
        } = request.into_inner();
        let candidate = Candidate {
            id,
            name,
            address,
            empty,
        };
        let outcome = match core.members.add(&candidate).await {
            Ok(members) => add_member_response::Outcome::Members(members_message(members)),
            Err(AddMemberError::NotLeader) => add_member_response::Outcome::NotLeader(not_leader(&core)),
            Err(AddMemberError::Unavailable(reason)) => add_member_response::Outcome::Unavailable(reason),
            Err(AddMemberError::Refused(reason)) => return Err(Status::failed_precondition(reason)),
        };
        Ok(Response::new(AddMemberResponse {
            outcome: Some(outcome),
        }))
    }

    async fn take_over(
        &self,
        request: Request<TakeOverRequest>,
    ) -> Result<Response<TakeOverResponse>, Status> {
        let core = self.core()?;
        let term = request.into_inner().term;
        let tracker = core.tracker.clone();
        tracker.spawn(async move { core.take_over(term).await });
        Ok(Response::new(TakeOverResponse {}))
    }
}

/// Writes all chunks to the file, reads it back, verifies it and makes it the newest snapshot.
///
/// That comes before openraft hears of it, because openraft purges the log up to a snapshot as soon as it has
/// begun to install it. A crash between leaves a snapshot that is ahead of the log, which is no hole.
async fn receive(
    mut partial: SnapshotFile,
    first: SnapshotChunk,
    chunks: &mut Streaming<SnapshotChunk>,
    folder: &Arc<SnapshotFolder>,
) -> Result<SnapshotFile, Status> {
    let mut next = Some(first);
    let mut offset = 0;
    while let Some(chunk) = next {
        if chunk.offset != offset {
            return Err(Status::data_loss("a part of the snapshot is missing"));
        }
        offset += chunk.data.len() as u64;
        partial = blocking(move || {
            partial.file.write_all(&chunk.data)?;
            Ok(partial)
        })
        .await?;
        next = chunks.message().await?;
    }
    let folder = Arc::clone(folder);
    blocking(move || {
        let saved = storage::read_snapshot(&mut partial.file).map_err(io::Error::other)?;
        partial.path = folder.keep(&partial.path, &partial.file, &saved.meta)?;
        partial.content = Some(saved);
        Ok(partial)
    })
    .await
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

fn members_message(members: Vec<Member>) -> MembersMessage {
    let members = members.into_iter().map(|member| MemberMessage {
        id: member.id,
        name: member.name,
        address: member.address,
        voter: member.voter,
    });
    MembersMessage {
        members: members.collect(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| disk_failed(&error))
}

fn read<T: DeserializeOwned>(payload: &Bytes) -> Result<T, Status> {
    consensus::decode(payload).map_err(|_| unreadable())
}

fn reply<T: serde::Serialize>(answer: &T) -> Response<RaftMessage> {
    Response::new(RaftMessage {
        payload: consensus::encode(answer),
    })
}

fn unreadable() -> Status {
    Status::invalid_argument("the message is not of this version")
}

fn disk_failed(error: &io::Error) -> Status {
    Status::internal(format!("the snapshot cannot be stored: {error}"))
}

fn stopped(error: impl std::error::Error) -> Status {
    Status::unavailable(error.to_string())
}
