//! What is known of each server: its role, how far its log is, when it was last heard of.
//!
//! Pure. The leader knows all of it; any other replica knows who is a member, and its own log.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Member, list};
use crate::consensus::{LogId, Membership};

/// What a server is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// Votes, and all writes go through it.
    Leader,
    /// Votes.
    Voter,
    /// Does not vote: it has not caught up yet.
    Learner,
}

/// What is known of a server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Who it is.
    pub member: Member,
    /// What it is.
    pub role: MemberRole,
    /// The last log entry that it surely has; unknown to anyone but the leader and itself.
    pub log_index: Option<u64>,
    /// How many entries it lacks of the leader's log.
    pub behind: Option<u64>,
    /// Time since the leader last had an answer of it.
    pub silence: Option<Duration>,
}

/// What a replica knows of the cluster.
#[derive(Default)]
pub(crate) struct Knowledge {
    /// This replica.
    pub(crate) own: u64,
    pub(crate) leader: Option<u64>,
    /// The last entry of its log.
    pub(crate) last: Option<LogId>,
    /// How far the logs of others match the leader's; of the leader only.
    pub(crate) matched: BTreeMap<u64, Option<LogId>>,
    /// Time since others have answered; of the leader only.
    pub(crate) silences: BTreeMap<u64, Duration>,
}

/// Each member's state, by id.
pub(crate) fn states(membership: &Membership, known: &Knowledge) -> Vec<MemberState> {
    let leads = known.leader == Some(known.own);
    let last = known.last.map(|log_id| log_id.index);
    list(membership)
        .into_iter()
        .map(|member| {
            let log_index = match member.id == known.own {
                true => last,
                false => known
                    .matched
                    .get(&member.id)
                    .copied()
                    .flatten()
                    .map(|log_id| log_id.index),
            };
            let behind = match (leads, last, log_index) {
                (true, Some(last), Some(index)) => Some(last.saturating_sub(index)),
                _ => None,
            };
            MemberState {
                role: role(&member, known.leader),
                log_index,
                behind,
                silence: known.silences.get(&member.id).copied().filter(|_| leads),
                member,
            }
        })
        .collect()
}

fn role(member: &Member, leader: Option<u64>) -> MemberRole {
    match (leader == Some(member.id), member.voter) {
        (true, _) => MemberRole::Leader,
        (false, true) => MemberRole::Voter,
        (false, false) => MemberRole::Learner,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use expect_test::{Expect, expect};
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::consensus::PeerNode;

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    /// Server 1 leads 2, and 3 learns; `own` tells what it knows.
    fn check(own: u64, expected: Expect) {
        let node = |id: u64| {
            let node = PeerNode {
                name: format!("server-{id}"),
                address: format!("a:{id}"),
            };
            (id, node)
        };
        let nodes: BTreeMap<u64, PeerNode> = (1..4).map(node).collect();
        let membership = Membership::new(vec![BTreeSet::from([1, 2])], nodes);
        let known = Knowledge {
            own,
            leader: Some(1),
            last: Some(log_id(9)),
            matched: match own {
                1 => BTreeMap::from([(1, Some(log_id(9))), (2, Some(log_id(7))), (3, None)]),
                _ => BTreeMap::new(),
            },
            silences: match own {
                1 => BTreeMap::from([(2, Duration::from_millis(30))]),
                _ => BTreeMap::new(),
            },
        };
        let lines = states(&membership, &known).into_iter().map(|state| {
            format!(
                "{} {:?} at {:?}, {:?} behind, heard {:?} ago\n",
                state.member.name, state.role, state.log_index, state.behind, state.silence
            )
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn the_leader_knows_everybody_and_others_know_themselves() {
        check(
            1,
            expect![[r#"
            server-1 Leader at Some(9), Some(0) behind, heard None ago
            server-2 Voter at Some(7), Some(2) behind, heard Some(30ms) ago
            server-3 Learner at None, None behind, heard None ago
        "#]],
        );
        check(
            2,
            expect![[r#"
            server-1 Leader at None, None behind, heard None ago
            server-2 Voter at Some(9), None behind, heard None ago
            server-3 Learner at None, None behind, heard None ago
        "#]],
        );
    }
}
