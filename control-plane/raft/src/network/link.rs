//! openraft's network over our transport.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{CallError, Peers};
use crate::consensus::{self, LogId, PeerNode, SnapshotMeta, TypeConfig, Vote};

/// How long openraft leaves a server alone that cannot be reached. Short: a restarted server is wanted back.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);
/// Appends that may be unanswered by a server. Heartbeats that openraft gives up after an interval go on by themselves: to a
/// server that is connected and answers nothing, as one with a slow disk, they would pile up without end.
const UNANSWERED_MAX: usize = 8;
/// Limit for sending and installing a whole snapshot.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(120);

type OpenraftCallError = RPCError<u64, PeerNode, RaftError<u64>>;

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerLink {
        PeerLink {
            peers: self.clone(),
            target,
            address: node.address.clone(),
            unfinished: None,
            unanswered: Arc::new(Semaphore::new(UNANSWERED_MAX)),
        }
    }
}

/// The way to one other server.
pub(crate) struct PeerLink {
    peers: Peers,
    target: u64,
    address: String,
    /// An append that openraft gave up waiting for, and what it was.
    unfinished: Option<(AppendKey, AppendTask)>,
    /// Room for appends that nobody has answered yet, given up ones too.
    unanswered: Arc<Semaphore>,
}

type AppendTask = JoinHandle<Result<AppendEntriesResponse<u64>, Unreachable>>;
/// What makes two appends the same: vote, what they follow, and their last entry.
type AppendKey = (Vote, Option<LogId>, Option<LogId>);

impl RaftNetwork<TypeConfig> for PeerLink {
    /// openraft waits for one heartbeat interval only and then sends the same again. A large append over a slow
    /// link would never arrive that way, so it goes on by itself and the repetition picks up its answer.
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, OpenraftCallError> {
        let key = (
            request.vote,
            request.prev_log_id,
            request.entries.last().map(|entry| entry.log_id),
        );
        let has_entries = !request.entries.is_empty();
        let task = match self.unfinished.take() {
            Some((unfinished, task)) if unfinished == key && has_entries => task,
            _ => self.start_append(&request).map_err(RPCError::Unreachable)?,
        };
        let (_, task) = self.unfinished.insert((key, task));
        let answer = task.await;
        self.unfinished = None;
        let answer = answer.unwrap_or_else(|error| Err(Unreachable::new(&error)));
        if answer.is_ok() {
            self.peers.hear(self.target);
        }
        answer.map_err(RPCError::Unreachable)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, OpenraftCallError> {
        let message = consensus::encode(&request);
        let answer = self.peers.transport.vote(&self.address, message).await;
        read_answer(self.peers.notice(answer)).map_err(RPCError::Unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let header = consensus::encode(&(vote, &snapshot.meta));
        let file = Arc::from(snapshot.snapshot.file);
        let call = self.peers.transport.install_snapshot(&self.address, header, file);
        let answer = tokio::select! {
            biased;
            // Dropping the call ends the stream, and the receiver discards what it has.
            closed = cancel => return Err(closed.into()),
            answer = tokio::time::timeout(SNAPSHOT_LIMIT, call) => answer,
        };
        let answer = answer.map_err(|elapsed| NetworkError::new(&elapsed))?;
        let message = answer.map_err(|error| NetworkError::new(&error))?;
        self.peers.hear(self.target);
        Ok(consensus::decode(&message).map_err(|error| NetworkError::new(&error))?)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

impl PeerLink {
    fn start_append(&self, request: &AppendEntriesRequest<TypeConfig>) -> Result<AppendTask, Unreachable> {
        let permit = Arc::clone(&self.unanswered)
            .try_acquire_owned()
            .map_err(|error| Unreachable::new(&error))?;
        let message = consensus::encode(request);
        let call = self.peers.transport.append_entries(&self.address, message);
        let peers = self.peers.clone();
        Ok(self.peers.tracker.spawn(async move {
            let _permit = permit;
            read_answer(peers.notice(call.await))
        }))
    }
}

/// Every failure is called unreachable: then openraft pauses. Other errors it repeats at once, without end.
fn read_answer<T: DeserializeOwned>(answer: Result<Bytes, CallError>) -> Result<T, Unreachable> {
    let message = answer.map_err(|error| Unreachable::new(&error))?;
    consensus::decode(&message).map_err(|error| Unreachable::new(&error))
}

/// Reads the vote and the description that come with the first chunk of a snapshot.
pub(crate) fn install_header(header: &[u8]) -> Result<(Vote, SnapshotMeta), postcard::Error> {
    consensus::decode(header)
}
