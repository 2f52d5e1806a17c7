//! Who leads, as far as this replica knows.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::error::Fatal;
use tokio::sync::watch;

use crate::consensus::{Raft, ServerMetrics};
use crate::members::{self, Member};
use crate::shared::{AppliedTo, Shared};

/// Who leads, and who is there, as far as this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Raft's term.
    pub term: u64,
    /// The leader of the term, once known.
    pub leader: Option<Member>,
    /// This replica leads: it has applied an entry of its own term, so its state has everything that earlier
    /// leaders acknowledged, and a majority has answered it lately.
    pub is_self: bool,
    /// The servers of the cluster; a change of members is a change of this.
    pub members: Vec<Member>,
}

/// How often a leader checks whether a majority still answers. openraft 0.9 never steps down by itself.
const QUORUM_CHECK: Duration = Duration::from_millis(500);

/// Derives the leadership from what openraft and the state machine say.
fn derive(id: u64, metrics: &ServerMetrics, applied: AppliedTo, quorum_answers: bool) -> Leadership {
    let term = metrics.vote.leader_id().term;
    let leader = metrics
        .current_leader
        .and_then(|leader| members::find(metrics.membership_config.membership(), leader));
    let leads = metrics.state == ServerState::Leader && metrics.current_leader == Some(id);
    Leadership {
        term,
        leader,
        is_self: leads && applied.term == term && quorum_answers,
        members: members::list(metrics.membership_config.membership()),
    }
}

/// Keeps the channel up to date until the replica stops.
pub(crate) async fn observe(
    id: u64,
    raft: Raft,
    shared: Arc<Shared>,
    silence_max: Duration,
    leadership: watch::Sender<Leadership>,
) {
    let mut metrics = raft.server_metrics();
    let mut applied = shared.applied();
    loop {
        let current = {
            let metrics = metrics.borrow_and_update();
            let applied = *applied.borrow_and_update();
            derive(id, &metrics, applied, quorum_answers(&raft, silence_max))
        };
        let leads = current.leader.as_ref().is_some_and(|leader| leader.id == id);
        // A new term's first entry is what turns a winner into a leader; later entries change nothing.
        let settled = !leads || applied.borrow().term == current.term;
        leadership.send_if_modified(|known| {
            let changed = *known != current;
            *known = current;
            changed
        });
        tokio::select! {
            biased;
            // Each arm only wakes the loop, which looks at everything again.
            () = shared.closed.cancelled() => break,
            changed = metrics.changed() => if changed.is_err() { break },
            changed = applied.changed(), if !settled => if changed.is_err() { break },
            () = tokio::time::sleep(QUORUM_CHECK), if leads => {}
        }
    }
    if let Some(reason) = failure(&raft) {
        tracing::error!(
            reason,
            "the store has stopped: this server answers neither reads nor writes until it is started again"
        );
        shared.fail(reason);
    }
    leadership.send_modify(|known| {
        known.is_self = false;
        // It will not hear of another.
        known.leader = None;
    });
}

/// Why openraft has stopped by itself: it does when the disk fails, since it cannot know what was kept.
fn failure(raft: &Raft) -> Option<String> {
    match &raft.metrics().borrow().running_state {
        Ok(()) | Err(Fatal::Stopped) => None,
        Err(Fatal::StorageError(error)) => Some(format!(
            "its disk has failed ({error}); repair the disk or make room on it, then start the server again"
        )),
        Err(Fatal::Panicked) => Some("consensus has panicked; the log of this server says where".to_owned()),
    }
}

fn quorum_answers(raft: &Raft, silence_max: Duration) -> bool {
    let silence = raft.data_metrics().borrow().millis_since_quorum_ack;
    silence.is_none_or(|silence| u128::from(silence) <= silence_max.as_millis())
}

/// Whether openraft holds this replica for the leader; enough to try a proposal.
pub(crate) fn may_lead(raft: &Raft) -> bool {
    raft.server_metrics().borrow().state == ServerState::Leader
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::consensus::{Membership, PeerNode, StoredMembership, Vote};

    fn metrics(state: ServerState, leader: Option<u64>) -> ServerMetrics {
        let node = PeerNode {
            name: "server-1".to_owned(),
            address: "a:1".to_owned(),
        };
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)]));
        ServerMetrics {
            id: 1,
            vote: Vote::new_committed(7, 1),
            state,
            current_leader: leader,
            membership_config: std::sync::Arc::new(StoredMembership::new(None, membership)),
        }
    }

    fn applied(term: u64) -> AppliedTo {
        AppliedTo { next_index: 10, term }
    }

    #[test]
    fn a_winner_leads_once_it_has_applied_an_entry_of_its_term_and_a_majority_answers() {
        let won = metrics(ServerState::Leader, Some(1));
        assert!(!derive(1, &won, applied(6), true).is_self);
        assert!(!derive(1, &won, applied(7), false).is_self);
        assert!(derive(1, &won, applied(7), true).is_self);
    }

    #[test]
    fn a_new_member_is_news() {
        let metrics = metrics(ServerState::Follower, Some(1));
        let names = |leadership: Leadership| -> Vec<String> {
            leadership.members.into_iter().map(|member| member.name).collect()
        };
        assert_eq!(names(derive(2, &metrics, applied(7), true)), ["server-1"]);
    }

    #[test]
    fn a_follower_names_the_leader_and_a_candidate_names_none() {
        let follower = derive(2, &metrics(ServerState::Follower, Some(1)), applied(7), true);
        assert_eq!(
            (follower.leader.map(|leader| leader.id), follower.is_self),
            (Some(1), false)
        );
        assert_eq!(
            derive(1, &metrics(ServerState::Candidate, None), applied(7), true).leader,
            None
        );
    }
}
