//! Who belongs to the cluster: joining, address changes, promotion of learners, removal.
//!
//! A member is its id; name and address describe it. A new member is a learner until it has caught up, so
//! that it never delays commits; then the leader makes it a voter.

mod removal;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_report::report;
use openraft::ChangeMembers;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::consensus::{Membership, PeerNode, Raft};
use crate::leadership::may_lead;

pub(crate) use removal::Removal;
pub(crate) use state::{Knowledge, states};
pub use state::{MemberRole, MemberState};

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: u64,
    /// Its node name.
    pub name: String,
    /// `host:port` under which others dial it.
    pub address: String,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
}

/// Why a cluster cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It is a member of a cluster already.
    #[error("this server is already a member of a cluster")]
    AlreadyInitialized,
    /// It did not become the leader of itself.
    #[error("the new cluster does not start: {0}")]
    Failed(String),
}

/// Why a replica could not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster does not want it.
    #[error("the cluster refuses this server: {0}")]
    Refused(String),
    /// No leader has taken it in within the limit.
    #[error("this server has not become a voter in time: {0}")]
    TimedOut(String),
}

/// Why a server was not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveMemberError {
    /// There is no such member.
    #[error("no member has the ID {0}: `flotilla member list` shows who is there")]
    Unknown(u64),
    /// It would do harm.
    #[error("{0}")]
    Refused(String),
    /// No leader has carried it out in time; it may yet happen.
    #[error("no leader has confirmed the removal: {0}")]
    Unavailable(String),
}

/// Entries that a learner may lag behind when it becomes a voter.
const PROMOTION_LAG_MAX: u64 = 100;
/// Pause after a promotion that failed.
const PROMOTION_PAUSE: Duration = Duration::from_millis(100);
/// Limit for one change of the membership.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// The member with an id.
pub(crate) fn find(membership: &Membership, id: u64) -> Option<Member> {
    let node = membership.get_node(&id)?;
    Some(Member {
        id,
        name: node.name.clone(),
        address: node.address.clone(),
        voter: membership.voter_ids().any(|voter| voter == id),
    })
}

/// All members, by id.
pub(crate) fn list(membership: &Membership) -> Vec<Member> {
    membership
        .nodes()
        .filter_map(|(id, _)| find(membership, *id))
        .collect()
}

/// Whether a change of voters is half done.
pub(crate) fn is_joint(membership: &Membership) -> bool {
    membership.get_joint_config().len() > 1
}

/// Someone who wants to be a member, or is one and has another address now.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) address: String,
    /// It has no log: it is new, or it lost its data.
    pub(crate) empty: bool,
}

/// One change of the membership that a candidate needs.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// An older member of the same name lost its data and comes back under a new id.
    RemoveVoter(u64),
    RemoveLearner(u64),
    AddLearner,
    ChangeAddress,
}

/// The next step for a candidate; none when there is nothing to do.
///
/// A voter that lost its log must not come back under its old id: it has forgotten whom it voted for and
/// what it acknowledged. Under a new id it takes over the place of its name.
fn plan(membership: &Membership, candidate: &Candidate) -> Result<Option<Step>, String> {
    if let Some(known) = find(membership, candidate.id) {
        if known.voter && candidate.empty {
            return Err(format!(
                "member {} had data before and has none now; it has to come back under a new id",
                candidate.id
            ));
        }
        let unchanged = known.address == candidate.address && known.name == candidate.name;
        return Ok((!unchanged).then_some(Step::ChangeAddress));
    }
    if !candidate.empty {
        return Err(format!(
            "member {} has the data of another cluster, or was removed",
            candidate.id
        ));
    }
    let namesake = list(membership)
        .into_iter()
        .find(|member| member.name == candidate.name);
    Ok(Some(match namesake {
        Some(member) if member.voter => Step::RemoveVoter(member.id),
        Some(member) => Step::RemoveLearner(member.id),
        None => Step::AddLearner,
    }))
}

/// Why a candidate is not taken in by this replica.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddMemberError {
    /// Another replica leads.
    #[error("another server leads")]
    NotLeader,
    /// Trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// The cluster does not want it.
    #[error("{0}")]
    Refused(String),
}

/// What a removal through this replica came to.
#[derive(Debug)]
pub(crate) enum Removed {
    /// It is no member; these are left.
    Done(Vec<Member>),
    /// It is this replica, which leads: another has to lead first.
    HandOver,
}

/// Why a removal was not carried out by this replica.
#[derive(Debug)]
pub(crate) enum RemoveHereError {
    /// Another replica leads.
    NotLeader,
    /// Trying again may help.
    Unavailable(String),
    /// It would do harm, or there is no such member.
    Refused(removal::Refusal),
}

impl From<AddMemberError> for RemoveHereError {
    fn from(error: AddMemberError) -> RemoveHereError {
        match error {
            AddMemberError::NotLeader => RemoveHereError::NotLeader,
            AddMemberError::Unavailable(reason) | AddMemberError::Refused(reason) => {
                RemoveHereError::Unavailable(reason)
            }
        }
    }
}

/// Changes the membership through this replica, one change at a time.
pub(crate) struct Members {
    raft: Raft,
    changing: Mutex<()>,
}

impl Members {
    pub(crate) fn new(raft: Raft) -> Members {
        Members {
            raft,
            changing: Mutex::new(()),
        }
    }

    /// What is in force.
    pub(crate) fn membership(&self) -> Membership {
        self.raft
            .server_metrics()
            .borrow()
            .membership_config
            .membership()
            .clone()
    }

    /// Waits until no change is under way, and lets none begin while the guard is held.
    pub(crate) async fn pause(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Takes a candidate in, as a learner, or notes its new address.
    pub(crate) async fn add(&self, candidate: &Candidate) -> Result<Vec<Member>, AddMemberError> {
        let _changing = self.changing.lock().await;
        loop {
            if !may_lead(&self.raft) {
                return Err(AddMemberError::NotLeader);
            }
            let membership = self.membership();
            let Some(step) = plan(&membership, candidate).map_err(AddMemberError::Refused)? else {
                return Ok(list(&membership));
            };
            tracing::info!(
                member = candidate.id,
                name = candidate.name,
                ?step,
                "membership changes"
            );
            self.change(changes(&step, candidate), false).await?;
        }
    }

    /// Takes a server out, unless `answering`, those that have answered this leader lately, speak against it.
    pub(crate) async fn remove(
        &self,
        own: u64,
        answering: &BTreeSet<u64>,
        removal: Removal,
    ) -> Result<Removed, RemoveHereError> {
        let _changing = self.changing.lock().await;
        let mut begun = false;
        loop {
            if !may_lead(&self.raft) {
                return Err(RemoveHereError::NotLeader);
            }
            let membership = self.membership();
            let step = removal::plan(&membership, own, answering, removal, begun);
            let Some(step) = step.map_err(RemoveHereError::Refused)? else {
                return Ok(Removed::Done(list(&membership)));
            };
            tracing::info!(
                member = removal.id,
                force = removal.force,
                ?step,
                "a member is removed"
            );
            let ids = BTreeSet::from([removal.id]);
            let changes = match step {
                removal::Step::HandOver => return Ok(Removed::HandOver),
                removal::Step::RemoveVoter => ChangeMembers::RemoveVoters(ids),
                removal::Step::RemoveLearner => ChangeMembers::RemoveNodes(ids),
            };
            self.change(changes, false).await?;
            begun = true;
        }
    }

    /// Makes learners that have caught up voters, and completes a change that an earlier leader began.
    async fn promote(&self) {
        let _changing = self.changing.lock().await;
        let membership = self.membership();
        let ready = self.caught_up(&membership);
        if ready.is_empty() && !is_joint(&membership) {
            return;
        }
        tracing::info!(members = ?ready, "learners have caught up and become voters");
        if let Err(error) = self.change(ChangeMembers::AddVoterIds(ready), true).await {
            tracing::warn!(
                error = report(&error),
                "a learner could not be made a voter; it is tried again"
            );
            tokio::time::sleep(PROMOTION_PAUSE).await;
        }
    }

    fn caught_up(&self, membership: &Membership) -> BTreeSet<u64> {
        let metrics = self.raft.data_metrics().borrow().clone();
        let Some(replication) = metrics.replication else {
            return BTreeSet::new();
        };
        let last = metrics.last_log.map_or(0, |log_id| log_id.index);
        membership
            .learner_ids()
            .filter(|id| {
                let matched = replication.get(id).copied().flatten();
                matched.is_some_and(|matched| matched.index + PROMOTION_LAG_MAX >= last)
            })
            .collect()
    }

    async fn change(
        &self,
        changes: ChangeMembers<u64, PeerNode>,
        retain: bool,
    ) -> Result<(), AddMemberError> {
        let change = self.raft.change_membership(changes, retain);
        match tokio::time::timeout(CHANGE_LIMIT, change).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(AddMemberError::NotLeader)
            }
            Ok(Err(error)) => Err(AddMemberError::Unavailable(error.to_string())),
            Err(_) => Err(AddMemberError::Unavailable(
                "no majority has confirmed the change".to_owned(),
            )),
        }
    }

    /// Promotes learners whenever this replica leads, until the replica stops.
    pub(crate) async fn promote_learners(&self, closed: CancellationToken) {
        let mut server = self.raft.server_metrics();
        let mut data = self.raft.data_metrics();
        loop {
            let unfinished = {
                let server = server.borrow_and_update();
                data.mark_unchanged();
                let membership = server.membership_config.membership();
                server.state == openraft::ServerState::Leader
                    && (is_joint(membership) || membership.learner_ids().next().is_some())
            };
            if unfinished {
                self.promote().await;
            }
            tokio::select! {
                biased;
                // Each arm only wakes the loop, which looks at everything again.
                () = closed.cancelled() => return,
                changed = server.changed() => if changed.is_err() { return },
                changed = data.changed(), if unfinished => if changed.is_err() { return },
            }
        }
    }
}

fn changes(step: &Step, candidate: &Candidate) -> ChangeMembers<u64, PeerNode> {
    let node = PeerNode {
        name: candidate.name.clone(),
        address: candidate.address.clone(),
    };
    match step {
        Step::RemoveVoter(id) => ChangeMembers::RemoveVoters(BTreeSet::from([*id])),
        Step::RemoveLearner(id) => ChangeMembers::RemoveNodes(BTreeSet::from([*id])),
        Step::AddLearner => ChangeMembers::AddNodes(BTreeMap::from([(candidate.id, node)])),
        Step::ChangeAddress => ChangeMembers::SetNodes(BTreeMap::from([(candidate.id, node)])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let node = |name: &str| PeerNode {
            name: name.to_owned(),
            address: format!("{name}:1"),
        };
        let nodes = BTreeMap::from([
            (1, node("server-1")),
            (2, node("server-2")),
            (3, node("server-3")),
        ]);
        Membership::new(vec![BTreeSet::from([1, 2])], nodes)
    }

    fn candidate(id: u64, name: &str, address: &str, empty: bool) -> Candidate {
        Candidate {
            id,
            name: name.to_owned(),
            address: address.to_owned(),
            empty,
        }
    }

    #[test]
    fn a_new_server_becomes_a_learner() {
        let step = plan(&membership(), &candidate(9, "server-9", "x:1", true));
        assert_eq!(step, Ok(Some(Step::AddLearner)));
    }

    #[test]
    fn a_known_server_changes_nothing_but_its_address() {
        assert_eq!(
            plan(&membership(), &candidate(2, "server-2", "server-2:1", false)),
            Ok(None)
        );
        let moved = plan(&membership(), &candidate(2, "server-2", "elsewhere:1", false));
        assert_eq!(moved, Ok(Some(Step::ChangeAddress)));
    }

    #[test]
    fn a_voter_without_its_data_is_refused_under_its_old_id_and_replaced_under_a_new_one() {
        assert!(plan(&membership(), &candidate(2, "server-2", "server-2:1", true)).is_err());
        let step = plan(&membership(), &candidate(9, "server-2", "server-2:1", true));
        assert_eq!(step, Ok(Some(Step::RemoveVoter(2))));
        let step = plan(&membership(), &candidate(9, "server-3", "server-3:1", true));
        assert_eq!(step, Ok(Some(Step::RemoveLearner(3))));
    }

    #[test]
    fn a_server_with_foreign_data_is_refused() {
        assert!(plan(&membership(), &candidate(9, "server-9", "x:1", false)).is_err());
    }
}
