//! Linearizable reads: the leader confirms with a majority how far a reader has to be, then the reader waits
//! until its own copy is there.
//!
//! One round serves everyone who was waiting when it began. Whoever comes later waits for the next round: the
//! one under way may have been confirmed before a write that the newcomer knows of.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::peer::read_index_response;
use flotilla_store::Snapshot;
use flotilla_store::planted::{PlantedBug, is_planted};
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::Raft;
use crate::leadership::may_lead;
use crate::members::Member;
use crate::network::Cluster;
use crate::shared::Shared;

/// How long one round may take before another leader is looked for.
const ROUND_LIMIT: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Readers waiting for a round; beyond it they are refused. An API server lets in 1,024 that read and 512 that write,
/// each of which reads once at a time; the rest is for controllers and nodes' sessions.
const QUEUE_MAX: usize = 4096;

/// Why there is no linearizable snapshot now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader has confirmed the read in time.
    #[error("no leader has confirmed the read: {0}")]
    Unavailable(String),
    /// Too many readers are waiting.
    #[error("too many reads are waiting for their turn, please try again later")]
    Overloaded,
}

/// The index after the last entry that a reader must have applied, or why it is not known.
type ReadIndex = Result<u64, String>;

/// Answers reads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    queue: mpsc::Sender<oneshot::Sender<ReadIndex>>,
    shared: Arc<Shared>,
    patience: Duration,
}

/// Makes the rounds.
struct Rounds {
    cluster: Cluster,
    closed: CancellationToken,
}

impl Reader {
    /// The reader, and the task that makes its rounds.
    pub(crate) fn new(
        cluster: Cluster,
        patience: Duration,
        shared: Arc<Shared>,
    ) -> (Reader, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let rounds = Rounds {
            cluster,
            closed: shared.closed.clone(),
        };
        (
            Reader {
                queue,
                shared,
                patience,
            },
            rounds.run(waiting),
        )
    }

    /// How many readers wait for their turn here.
    pub(crate) fn waiting(&self) -> usize {
        QUEUE_MAX - self.queue.capacity()
    }

    /// A snapshot with everything that was acknowledged anywhere before this call.
    pub(crate) async fn read(&self) -> Result<Snapshot, ReadError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let reason = match self.read_once(deadline).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(ReadError::Overloaded) => return Err(ReadError::Overloaded),
                Err(ReadError::Unavailable(reason)) => reason,
            };
            if self.shared.closed.is_cancelled() || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ReadError::Unavailable(reason));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn read_once(&self, deadline: Instant) -> Result<Snapshot, ReadError> {
        if is_planted(PlantedBug::ReadWithoutIndex) {
            return Ok(self.shared.snapshot());
        }
        let next_index = tokio::time::timeout_at(deadline, self.read_index())
            .await
            .map_err(|_| unavailable("no round has ended in time"))??;
        let mut applied = self.shared.applied();
        let caught_up = applied.wait_for(|applied| applied.next_index >= next_index);
        let caught_up = tokio::time::timeout_at(deadline, caught_up);
        tokio::select! {
            biased;
            // A replica that has stopped applies nothing more; the reader has nothing to lose.
            () = self.shared.closed.cancelled() => return Err(stopping()),
            caught_up = caught_up => caught_up
                .map_err(|_| unavailable("this replica lags behind the leader"))?
                .map_err(|_| stopping())?,
        };
        Ok(self.shared.snapshot())
    }

    /// Waits for a round that begins after this call.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(answer).map_err(|unsent| match unsent {
            TrySendError::Full(_) => ReadError::Overloaded,
            TrySendError::Closed(_) => stopping(),
        })?;
        let index = answered.await.map_err(|_| stopping())?;
        index.map_err(ReadError::Unavailable)
    }
}

fn unavailable(reason: &str) -> ReadError {
    ReadError::Unavailable(reason.to_owned())
}

fn stopping() -> ReadError {
    unavailable("the replica is shutting down")
}

impl Rounds {
    async fn run(self, mut queue: mpsc::Receiver<oneshot::Sender<ReadIndex>>) {
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                biased;
                // Readers that are dropped here are told that the replica stops.
                () = self.closed.cancelled() => return,
                count = queue.recv_many(&mut waiting, QUEUE_MAX) => if count == 0 { return },
            }
            let round = tokio::time::timeout(ROUND_LIMIT, self.round());
            let index = round
                .await
                .unwrap_or_else(|_| Err("the leader has not answered in time".to_owned()));
            for answer in waiting.drain(..) {
                // Nobody waits for it any more: the reader has given up.
                let _ = answer.send(index.clone());
            }
        }
    }

    async fn round(&self) -> ReadIndex {
        if may_lead(&self.cluster.raft) {
            return confirm_here(&self.cluster.raft).await;
        }
        match self.cluster.other_leader() {
            Some(leader) => self.ask(&leader).await,
            None => Err("no leader is known".to_owned()),
        }
    }

    async fn ask(&self, leader: &Member) -> ReadIndex {
        let call = self.cluster.peers.transport.read_index(&leader.address);
        let answer = call
            .await
            .map_err(|error| format!("the leader {} cannot be asked: {error}", leader.name))?;
        match answer.outcome {
            Some(read_index_response::Outcome::Index(index)) => Ok(index),
            Some(read_index_response::Outcome::Unavailable(reason)) => Err(reason),
            Some(read_index_response::Outcome::NotLeader(_)) => Err("the leader has changed".to_owned()),
            None => Err("the leader's answer is empty".to_owned()),
        }
    }
}

async fn confirm_here(raft: &Raft) -> ReadIndex {
    match raft.get_read_log_id().await {
        Ok((read, _applied)) => Ok(read.map_or(0, |log_id| log_id.index + 1)),
        Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
            Err("the leader has changed".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
