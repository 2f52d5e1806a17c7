//! Proposals: gathered into few log entries on the leader, forwarded to it from elsewhere.
//!
//! *Guarantees*: a proposal is tried again only when it surely has not entered any log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::peer::refusal::Why;
use flotilla_proto::peer::{ProposeRequest, Refusal as RefusalMessage, propose_response};
use flotilla_store::{Outcome, Transaction};
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::error::{ClientWriteError, Fatal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::{self, Outcomes, PeerNode, Proposals, Raft};
use crate::leadership::may_lead;
use crate::members::Member;
use crate::network::{CallError, Cluster};
use crate::shared::Shared;
use crate::space::Space;

/// Proposals waiting for their turn; beyond it they are refused. Three API servers let in 512 writes each, which leaves
/// more than half for nodes' sessions and controllers. A leader that is asked for so many answers the last of them
/// after about a second.
const QUEUE_MAX: usize = 4096;
/// Proposals of one log entry, and their bytes: an append must fit well into a heartbeat interval.
const ENTRY_PROPOSALS_MAX: usize = 512;
const ENTRY_BYTES_MAX: usize = 256 << 10;
/// Log entries on their way. Each costs every server a write, a sync and a message whatever is in it, so what comes
/// meanwhile waits for the next,
const IN_FLIGHT_MAX: usize = 3;
/// unless so many wait that an entry of their own is worth it.
const WORTH_AN_ENTRY: usize = 128;
/// Pause before another try when nothing says that the leader has changed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It surely has not happened and will not.
    #[error("the proposal could not be made: {0}")]
    Unavailable(String),
    /// It may have happened, or may happen yet.
    #[error("it is not known whether the proposal was carried out: {0}")]
    Unknown(String),
    /// Too many proposals are waiting. It has not happened; later there may be room.
    #[error("too many writes are waiting for their turn, please try again later")]
    Overloaded,
    /// It has not happened and never will.
    #[error("{0}")]
    TooLarge(String),
    /// The data folder of a server is full. It has not happened and will not until somebody makes room.
    #[error("{0}")]
    NoSpace(String),
}

/// What a try with one server gave, other than an outcome.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// That server does not lead. Nothing happened.
    NotLeader,
    /// Nothing happened, and trying again may help.
    Unavailable(String),
    /// Nothing happened, and the proposer is told so at once.
    Final(ProposeError),
    /// It may have happened.
    Unknown(String),
}

struct Proposal {
    transaction: Bytes,
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
    /// Whoever sets it first decides: the proposer that gives up, or the gatherer that puts it into an entry.
    claimed: Arc<AtomicBool>,
}

/// Proposes through this replica's openraft. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    cluster: Cluster,
    shared: Arc<Shared>,
    space: Arc<Space>,
    patience: Duration,
    gate: Gate,
}

/// Whether proposals may become log entries. A leader that hands over shuts it.
#[derive(Clone)]
struct Gate {
    open: watch::Sender<bool>,
    /// Shut, and no entry is on its way; set by the gatherer.
    is_quiet: watch::Sender<bool>,
}

impl Proposer {
    /// The proposer, and the task that gathers its proposals.
    pub(crate) fn new(
        cluster: Cluster,
        shared: Arc<Shared>,
        space: Arc<Space>,
        patience: Duration,
    ) -> (Proposer, impl Future<Output = ()> + Send + 'static) {
        let (queue, proposals) = mpsc::channel(QUEUE_MAX);
        let gate = Gate {
            open: watch::Sender::new(true),
            is_quiet: watch::Sender::new(false),
        };
        let gather = gather(
            cluster.raft.clone(),
            proposals,
            gate.clone(),
            shared.closed.clone(),
        );
        (
            Proposer {
                queue,
                cluster,
                shared,
                space,
                patience,
                gate,
            },
            gather,
        )
    }

    /// How many proposals wait for their turn here.
    pub(crate) fn waiting(&self) -> usize {
        QUEUE_MAX - self.queue.capacity()
    }

    /// Makes no more log entries on this replica, and waits until those under way have their outcome. Whoever
    /// proposes meanwhile is told that this replica does not lead, and so turns to the next leader.
    pub(crate) async fn pause(&self) {
        self.gate.open.send_replace(false);
        // The sender is in `self`.
        let _ = self
            .gate
            .is_quiet
            .subscribe()
            .wait_for(|is_quiet| *is_quiet)
            .await;
    }

    /// Takes proposals again, if this replica leads again.
    pub(crate) fn resume(&self) {
        self.gate.open.send_replace(true);
    }

    /// Proposes wherever the leader is, and waits for the outcome.
    pub(crate) async fn propose(&self, transaction: &Transaction) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + self.patience;
        check_size(transaction)?;
        let encoded = consensus::encode(transaction);
        let mut leadership = self.cluster.leadership.clone();
        loop {
            leadership.mark_unchanged();
            let refusal = match self.cluster.other_leader() {
                Some(leader) => self.forward(&leader, &encoded, deadline).await,
                None if may_lead(&self.cluster.raft) => {
                    self.propose_here(transaction, encoded.clone(), deadline).await
                }
                None => Err(Refusal::Unavailable("no leader is known".to_owned())),
            };
            let reason = match refusal {
                Ok(outcome) => return Ok(outcome),
                Err(Refusal::Unknown(reason)) => return Err(ProposeError::Unknown(reason)),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Unavailable(reason)) => reason,
                Err(Refusal::NotLeader) => "the leader has changed".to_owned(),
            };
            if self.queue.is_closed() || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ProposeError::Unavailable(reason));
            }
            tokio::select! {
                biased;
                // Both arms only end the pause.
                _ = leadership.changed() => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Proposes on this replica, which should lead.
    pub(crate) async fn propose_here(
        &self,
        transaction: &Transaction,
        encoded: Bytes,
        deadline: Instant,
    ) -> Result<Outcome, Refusal> {
        if !may_lead(&self.cluster.raft) || !*self.gate.open.borrow() {
            return Err(Refusal::NotLeader);
        }
        let admitted = self.space.admit(transaction, &self.shared.snapshot());
        admitted.map_err(Refusal::Final)?;
        let (answer, mut answered) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let proposal = Proposal {
            transaction: encoded,
            answer,
            claimed: Arc::clone(&claimed),
        };
        let stopping = || Refusal::Unavailable("the replica is shutting down".to_owned());
        match self.queue.try_send(proposal) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Refusal::Final(ProposeError::Overloaded)),
            Err(TrySendError::Closed(_)) => return Err(stopping()),
        }
        match tokio::time::timeout_at(deadline, &mut answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if !claimed.swap(true, Ordering::AcqRel) => Err(stopping()),
            Ok(Err(_)) => Err(Refusal::Unknown("the replica was shut down meanwhile".to_owned())),
            Err(_) if !claimed.swap(true, Ordering::AcqRel) => {
                Err(Refusal::Unavailable("it did not get its turn in time".to_owned()))
            }
            Err(_) => Err(Refusal::Unknown(
                "no majority has confirmed it in time".to_owned(),
            )),
        }
    }

    async fn forward(
        &self,
        leader: &Member,
        transaction: &Bytes,
        deadline: Instant,
    ) -> Result<Outcome, Refusal> {
        let request = ProposeRequest {
            transaction: transaction.clone(),
        };
        let call = self.cluster.peers.transport.propose(&leader.address, request);
        let answer = match tokio::time::timeout_at(deadline, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(CallError::NotDelivered(_))) => {
                return Err(Refusal::Unavailable(format!(
                    "the leader {} cannot be reached",
                    leader.name
                )));
            }
            Ok(Err(error)) => {
                let reason = format!("the connection to the leader {} broke: {error}", leader.name);
                return Err(Refusal::Unknown(reason));
            }
            Err(_) => {
                return Err(Refusal::Unknown(format!(
                    "the leader {} has not answered",
                    leader.name
                )));
            }
        };
        match answer.outcome {
            Some(propose_response::Outcome::Applied(outcome)) => {
                consensus::decode(&outcome).map_err(|error| Refusal::Unknown(error.to_string()))
            }
            Some(propose_response::Outcome::NotLeader(_)) => Err(Refusal::NotLeader),
            Some(propose_response::Outcome::Unavailable(reason)) => Err(Refusal::Unavailable(reason)),
            Some(propose_response::Outcome::Refused(refused)) => Err(read_refusal(refused)),
            None => Err(Refusal::Unknown("the leader's answer is empty".to_owned())),
        }
    }
}

/// Refuses what is too large for the log.
pub(crate) fn check_size(transaction: &Transaction) -> Result<(), ProposeError> {
    transaction
        .check_size()
        .map_err(|error| ProposeError::TooLarge(error.to_string()))
}

/// A final refusal as the leader tells it to another server. The rest of the errors have answers of their own.
pub(crate) fn write_refusal(error: &ProposeError) -> RefusalMessage {
    let why = match error {
        ProposeError::Overloaded => Why::Overloaded,
        ProposeError::TooLarge(_) => Why::TooLarge,
        ProposeError::NoSpace(_) => Why::NoSpace,
        ProposeError::Unavailable(_) | ProposeError::Unknown(_) => Why::Unspecified,
    };
    RefusalMessage {
        why: why.into(),
        reason: error.to_string(),
    }
}

fn read_refusal(refused: RefusalMessage) -> Refusal {
    match refused.why() {
        Why::Overloaded => Refusal::Final(ProposeError::Overloaded),
        Why::TooLarge => Refusal::Final(ProposeError::TooLarge(refused.reason)),
        Why::NoSpace => Refusal::Final(ProposeError::NoSpace(refused.reason)),
        // A newer leader's reason that this version does not know: nothing has happened.
        Why::Unspecified => Refusal::Unavailable(refused.reason),
    }
}

/// Puts what is waiting into log entries, a few at a time: while those are on their way, the next fills up.
async fn gather(raft: Raft, mut queue: mpsc::Receiver<Proposal>, gate: Gate, closed: CancellationToken) {
    let mut in_flight = FuturesUnordered::new();
    let mut waiting = VecDeque::new();
    let mut received = Vec::new();
    let mut open = gate.open.subscribe();
    loop {
        let is_open = *open.borrow_and_update();
        if !is_open {
            turn_away(&mut waiting);
        }
        gate.is_quiet.send_replace(!is_open && in_flight.is_empty());
        while is_open
            && is_time(in_flight.len(), waiting.len())
            && let Some((proposals, answers)) = next_entry(&mut waiting)
        {
            in_flight.push(write_entry(raft.clone(), proposals, answers));
        }
        let room = ENTRY_PROPOSALS_MAX.saturating_sub(waiting.len());
        tokio::select! {
            biased;
            // Proposals that are dropped here were never claimed: their proposers know that nothing happened.
            () = closed.cancelled() => return,
            // Cancel safe: nothing is received without being returned.
            count = queue.recv_many(&mut received, room), if room > 0 => {
                if count == 0 {
                    return;
                }
                waiting.extend(received.drain(..));
            }
            // Only wakes the loop, which looks again. The sender is in `gate`.
            _ = open.changed() => {}
            // An unfinished entry stays in the set.
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
        }
    }
}

/// Whether those who wait get a log entry now.
fn is_time(in_flight: usize, waiting: usize) -> bool {
    in_flight == 0 || (in_flight < IN_FLIGHT_MAX && waiting >= WORTH_AN_ENTRY)
}

/// Tells proposers that another replica will lead.
fn turn_away(waiting: &mut VecDeque<Proposal>) {
    for proposal in waiting.drain(..) {
        if !proposal.claimed.swap(true, Ordering::AcqRel) {
            // Nobody waits for it any more: the proposer has given up.
            let _ = proposal.answer.send(Err(Refusal::NotLeader));
        }
    }
}

type Answers = Vec<oneshot::Sender<Result<Outcome, Refusal>>>;

/// Takes the first proposals that make a log entry and that are still wanted.
fn next_entry(waiting: &mut VecDeque<Proposal>) -> Option<(Proposals, Answers)> {
    let mut entry = Proposals::default();
    let mut answers = Answers::new();
    let mut bytes = 0;
    while answers.len() < ENTRY_PROPOSALS_MAX && bytes < ENTRY_BYTES_MAX {
        let Some(proposal) = waiting.pop_front() else {
            break;
        };
        if proposal.claimed.swap(true, Ordering::AcqRel) {
            continue;
        }
        bytes += proposal.transaction.len();
        entry.transactions.push(proposal.transaction);
        answers.push(proposal.answer);
    }
    (!answers.is_empty()).then_some((entry, answers))
}

/// Proposes one entry and tells every proposer what became of it.
async fn write_entry(raft: Raft, entry: Proposals, answers: Answers) {
    let appended = entry.appended.clone();
    let result = match raft.client_write_ff(entry).await {
        Ok(answer) => match answer.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) => Err(client_write_reason(&error)),
            Err(_) => Err(None),
        },
        Err(fatal) => Err(Some(fatal_reason(&fatal))),
    };
    match result {
        Ok(Outcomes(outcomes)) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Nobody waits for it any more: the proposer has given up.
                let _ = answer.send(Ok(outcome));
            }
        }
        Err(reason) => {
            let refusal = match (appended.get(), reason) {
                // It is in a log, from which a new leader may yet commit it.
                (true, _) => Refusal::Unknown("this replica stopped leading meanwhile".to_owned()),
                (false, Some(reason)) => Refusal::Unavailable(reason),
                (false, None) => Refusal::NotLeader,
            };
            for answer in answers {
                let _ = answer.send(Err(refusal.clone()));
            }
        }
    }
}

fn client_write_reason(error: &ClientWriteError<u64, PeerNode>) -> Option<String> {
    match error {
        ClientWriteError::ForwardToLeader(_) => None,
        ClientWriteError::ChangeMembershipError(error) => Some(error.to_string()),
    }
}

fn fatal_reason(fatal: &Fatal<u64>) -> String {
    match fatal {
        Fatal::Stopped => "the replica is shutting down".to_owned(),
        fatal => fatal.to_string(),
    }
}
