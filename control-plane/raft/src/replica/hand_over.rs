//! A leader that stops makes another replica lead at once, without an election timeout.
//!
//! openraft 0.9 has no transfer of leadership, and its followers refuse to vote until the lease of the leader that
//! they know has run out. So the leader that stops takes no more proposals, waits until the follower that is
//! furthest on has its whole log, and tells every voter that its term has ended. Each of them moves its replica's
//! clock forward by the lease, which has then run out, and no longer listens to that leader, which could renew
//! it. Then the successor stands for election, and the old leader is there to vote for it.
//!
//! Clocks that run ahead are nothing that Raft relies on, and neither do we: a read is confirmed with a majority,
//! never by the lease.
//!
//! *Guarantees*: a proposal that comes meanwhile is carried out by the next leader, or fails as it would without
//! a hand-over. If anything of it fails, an election follows after the usual time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use flotilla_proto::peer::{EndTermRequest, TakeOverRequest};
use futures::stream::{FuturesUnordered, StreamExt};

use super::Core;
use crate::members::{self, Member};
use crate::service::AnswerError;

/// How long proposals under way may take before the hand-over goes on without their outcome.
const QUIET_LIMIT: Duration = Duration::from_millis(500);
/// How long the successor may take to get what it lacks of the log.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(500);
/// How long the voters may take to hear that the term ends.
const ANNOUNCE_LIMIT: Duration = Duration::from_millis(100);
/// How long the successor may take to win its election.
const ELECTION_LIMIT: Duration = Duration::from_millis(500);
/// How much further than the lease a clock is moved: the lease includes its last moment.
const LEASE_MARGIN: Duration = Duration::from_millis(1);

/// Who leads next, and who has to hear of it.
struct Heirs {
    successor: Member,
    /// The other voters but this replica.
    others: Vec<Member>,
}

impl Core {
    /// Stops leading, and waits until another replica leads or that has failed.
    pub(crate) async fn hand_over(&self) {
        // A change of members that is half done when the term ends may need votes that the successor lacks.
        let changes = tokio::time::timeout(QUIET_LIMIT, self.members.pause()).await;
        if changes.is_err() {
            tracing::info!("members are being changed while leadership is handed over");
        }
        let Some(heirs) = self.heirs() else {
            return;
        };
        if tokio::time::timeout(QUIET_LIMIT, self.proposer.pause())
            .await
            .is_err()
        {
            tracing::info!("proposals are still under way while leadership is handed over");
        }
        self.raft.runtime_config().heartbeat(false);
        let term = self.leadership.borrow().term;
        if self.hand_over_to(&heirs, term).await {
            tracing::info!(successor = heirs.successor.name, "leadership was handed over");
        } else {
            tracing::info!(
                successor = heirs.successor.name,
                "the successor does not lead yet; an election follows"
            );
        }
        self.raft.runtime_config().heartbeat(true);
        self.proposer.resume();
    }

    /// The voter that is furthest on, and the others; none when this replica is the only voter.
    fn heirs(&self) -> Option<Heirs> {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.unwrap_or_default();
        let mut voters: Vec<Member> = membership
            .voter_ids()
            .filter(|id| *id != self.options.id)
            .filter_map(|id| members::find(membership, id))
            .collect();
        voters.sort_by_key(|voter| matched.get(&voter.id).copied().flatten());
        let successor = voters.pop()?;
        Some(Heirs {
            successor,
            others: voters,
        })
    }

    async fn hand_over_to(&self, heirs: &Heirs, term: u64) -> bool {
        if !self.has_whole_log(heirs.successor.id).await {
            return false;
        }
        self.announce_end(&heirs.others, term).await;
        // This replica votes as well.
        self.end_lease();
        let request = TakeOverRequest {
            term,
            leader_id: self.options.id,
        };
        let call = self.peers.transport.take_over(&heirs.successor.address, request);
        if !matches!(tokio::time::timeout(ELECTION_LIMIT, call).await, Ok(Ok(_))) {
            return false;
        }
        let mut leadership = self.leadership.clone();
        let succeeded = leadership.wait_for(|now| {
            now.leader
                .as_ref()
                .is_some_and(|leader| leader.id != self.options.id)
        });
        matches!(tokio::time::timeout(ELECTION_LIMIT, succeeded).await, Ok(Ok(_)))
    }

    /// Waits until a follower has everything that this leader has.
    async fn has_whole_log(&self, id: u64) -> bool {
        let mut data = self.raft.data_metrics();
        let caught_up = data.wait_for(|data| {
            let matched = data.replication.as_ref().and_then(|all| all.get(&id).copied());
            matched.flatten() == data.last_log
        });
        matches!(tokio::time::timeout(CATCH_UP_LIMIT, caught_up).await, Ok(Ok(_)))
    }

    /// Tells voters that the term ends, and waits for all that answer soon.
    async fn announce_end(&self, voters: &[Member], term: u64) {
        let request = EndTermRequest {
            term,
            leader_id: self.options.id,
        };
        let mut calls: FuturesUnordered<_> = voters
            .iter()
            .map(|voter| self.peers.transport.end_term(&voter.address, request))
            .collect();
        // Who has not heard of it refuses its vote until its lease has run out; the others may be enough.
        let all = async { while calls.next().await.is_some() {} };
        let _ = tokio::time::timeout(ANNOUNCE_LIMIT, all).await;
    }

    /// Believes the leader of the present term that it stops: from now on nothing of that term is taken, and
    /// the lease that it had has run out. Anyone else is not believed.
    pub(crate) fn end_term(&self, term: u64, leader_id: u64) -> bool {
        let server = self.raft.server_metrics().borrow().clone();
        let is_leader = server.current_leader == Some(leader_id) && server.vote.leader_id().term == term;
        if !is_leader || leader_id == self.options.id {
            return false;
        }
        self.ended_term.fetch_max(term, Ordering::AcqRel);
        self.end_lease();
        true
    }

    /// Refuses what a leader sends that has said that it stops: it would renew the lease that is to be over.
    pub(crate) fn check_term(&self, term: u64) -> Result<(), AnswerError> {
        match term > self.ended_term.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(AnswerError::Refused(format!(
                "the leader of term {term} has said that it stops"
            ))),
        }
    }

    fn end_lease(&self) {
        self.clock
            .advance(self.options.timing.election_max + LEASE_MARGIN);
    }

    /// Stands for election, if it is the leader of the present term that asks for it.
    pub(crate) async fn take_over(&self, term: u64, leader_id: u64) -> bool {
        self.end_term(term, leader_id) && self.raft.trigger().elect().await.is_ok()
    }
}
