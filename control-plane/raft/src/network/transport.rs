//! openraft's messages over gRPC.

use std::future::Future;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::peer::{RaftMessage, SnapshotChunk};
use flotilla_report::report;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::Peers;
use crate::consensus::{self, LogId, PeerNode, SnapshotMeta, TypeConfig, Vote};
use crate::storage::SnapshotFile;

/// How long openraft leaves a server alone that cannot be reached. Short: a restarted server is wanted back.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);
const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the network.
const SNAPSHOT_CHUNKS_AHEAD: usize = 2;
/// Limit for sending and installing a whole snapshot.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(120);

type CallError = RPCError<u64, PeerNode, RaftError<u64>>;

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = PeerLink;

    async fn new_client(&mut self, _target: u64, node: &PeerNode) -> PeerLink {
        PeerLink {
            peers: self.clone(),
            address: node.address.clone(),
            unfinished: None,
        }
    }
}

/// The way to one other server.
pub(crate) struct PeerLink {
    peers: Peers,
    address: String,
    /// An append that openraft gave up waiting for, and what it was.
    unfinished: Option<(AppendKey, AppendTask)>,
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
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        let key = (
            request.vote,
            request.prev_log_id,
            request.entries.last().map(|entry| entry.log_id),
        );
        let has_entries = !request.entries.is_empty();
        let task = match self.unfinished.take() {
            Some((unfinished, task)) if unfinished == key && has_entries => task,
            _ => self.start_append(&request),
        };
        let (_, task) = self.unfinished.insert((key, task));
        let answer = task.await;
        self.unfinished = None;
        let answer = answer.unwrap_or_else(|error| Err(Unreachable::new(&error)));
        answer.map_err(RPCError::Unreachable)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError> {
        let message = RaftMessage {
            payload: consensus::encode(&request),
        };
        let answer = self.peers.client(&self.address).vote(message).await;
        read_answer(answer).map_err(RPCError::Unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let (chunks, stream) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let header = consensus::encode(&(vote, &snapshot.meta));
        self.peers
            .tracker
            .spawn_blocking(move || send_chunks(&snapshot.snapshot, header, &chunks));
        let mut client = self.peers.client(&self.address);
        let call = client.install_snapshot(ReceiverStream::new(stream));
        let answer = tokio::select! {
            // Dropping the call ends the stream, and the receiver discards what it has.
            closed = cancel => return Err(closed.into()),
            answer = tokio::time::timeout(SNAPSHOT_LIMIT, call) => answer,
        };
        let answer = answer.map_err(|elapsed| NetworkError::new(&elapsed))?;
        let message = answer.map_err(|status| NetworkError::new(&status))?.into_inner();
        Ok(consensus::decode(&message.payload).map_err(|error| NetworkError::new(&error))?)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

impl PeerLink {
    fn start_append(&self, request: &AppendEntriesRequest<TypeConfig>) -> AppendTask {
        let mut client = self.peers.client(&self.address);
        let message = RaftMessage {
            payload: consensus::encode(request),
        };
        self.peers
            .tracker
            .spawn(async move { read_answer(client.append_entries(message).await) })
    }
}

/// Every failure is called unreachable: then openraft pauses. Other errors it repeats at once, without end.
fn read_answer<T: DeserializeOwned>(
    answer: Result<tonic::Response<RaftMessage>, tonic::Status>,
) -> Result<T, Unreachable> {
    let message = answer.map_err(|status| Unreachable::new(&status))?;
    consensus::decode(&message.into_inner().payload).map_err(|error| Unreachable::new(&error))
}

/// Reads the vote and the description that come with the first chunk of a snapshot.
pub(crate) fn install_header(header: &[u8]) -> Result<(Vote, SnapshotMeta), postcard::Error> {
    consensus::decode(header)
}

/// Sends a whole file; ends early when the receiver is gone. Blocks.
fn send_chunks(snapshot: &SnapshotFile, header: Bytes, chunks: &mpsc::Sender<SnapshotChunk>) {
    let mut header = Some(header);
    let mut offset = 0;
    loop {
        let mut data = vec![0; SNAPSHOT_CHUNK_BYTES];
        let read = match snapshot.file.read_at(&mut data, offset) {
            Ok(read) => read,
            Err(error) => {
                // The receiver notices that the file is not whole, and openraft tries again.
                tracing::error!(error = report(&error), path = %snapshot.path.display(), "a snapshot cannot be read");
                return;
            }
        };
        data.truncate(read);
        let chunk = SnapshotChunk {
            header: header.take().unwrap_or_default(),
            offset,
            data: Bytes::from(data),
        };
        if read == 0 || chunks.blocking_send(chunk).is_err() {
            return;
        }
        offset += read as u64;
    }
}
