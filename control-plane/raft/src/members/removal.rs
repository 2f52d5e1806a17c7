//! Decides whether and how a server is taken out of the cluster.
//!
//! Pure. Never lets the voters that answer become fewer than a majority, unless it is forced to; never removes
//! the last voter.

use std::collections::BTreeSet;

use super::{Member, RemoveMemberError, find, list};
use crate::consensus::Membership;

/// Whom to remove, and how insistently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) id: u64,
    /// Also when those that are left and answer are no majority.
    pub(crate) force: bool,
}

/// The next step of a removal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The one to be removed leads: another has to lead first.
    HandOver,
    RemoveVoter,
    RemoveLearner,
}

/// Why a server is not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such member.
    #[error("no member has the ID {0}: `flotilla member list` shows who is there")]
    Unknown(u64),
    /// It alone votes.
    #[error(
        "{0} is the only voter of the cluster: without it nothing is left. To end the cluster, stop the server \
         and remove its data folder"
    )]
    LastVoter(String),
    /// Those that are left could not agree on anything.
    #[error(
        "without {name}, {left} voters would be left, of which {needed} have to answer, but only {answering} do \
         (silent: {silent}). Bring those back or remove them first; --force removes {name} all the same, and \
         the cluster then takes no writes until they are back"
    )]
    LosesQuorum {
        /// Whom the removal is about.
        name: String,
        /// Voters that would be left.
        left: usize,
        /// How many of them are a majority.
        needed: usize,
        /// How many of them have answered lately.
        answering: usize,
        /// The names of the others.
        silent: String,
    },
}

impl From<Refusal> for RemoveMemberError {
    fn from(refusal: Refusal) -> RemoveMemberError {
        match refusal {
            Refusal::Unknown(id) => RemoveMemberError::Unknown(id),
            refusal => RemoveMemberError::Refused(refusal.to_string()),
        }
    }
}

/// The next step; none when the server is no member any more, which `begun` tells apart from a mistake.
pub(super) fn plan(
    membership: &Membership,
    leader: u64,
    answering: &BTreeSet<u64>,
    removal: Removal,
    begun: bool,
) -> Result<Option<Step>, Refusal> {
    let Some(member) = find(membership, removal.id) else {
        return match begun {
            true => Ok(None),
            false => Err(Refusal::Unknown(removal.id)),
        };
    };
    if !member.voter {
        return Ok(Some(Step::RemoveLearner));
    }
    let left: Vec<Member> = list(membership)
        .into_iter()
        .filter(|other| other.voter && other.id != removal.id)
        .collect();
    if left.is_empty() {
        return Err(Refusal::LastVoter(member.name));
    }
    let needed = left.len() / 2 + 1;
    let (present, silent): (Vec<&Member>, Vec<&Member>) =
        left.iter().partition(|other| answering.contains(&other.id));
    if present.len() < needed && !removal.force {
        let names: Vec<&str> = silent.iter().map(|other| other.name.as_str()).collect();
        return Err(Refusal::LosesQuorum {
            name: member.name,
            left: left.len(),
            needed,
            answering: present.len(),
            silent: names.join(", "),
        });
    }
    Ok(Some(match removal.id == leader {
        true => Step::HandOver,
        false => Step::RemoveVoter,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::consensus::PeerNode;

    /// Members 1, 2, … of which the first `voters` vote, 1 leads, and `answering` answer.
    fn check(voters: u64, learners: u64, answering: &[u64], id: u64, force: bool, expected: Expect) {
        let node = |id: u64| {
            let node = PeerNode {
                name: format!("server-{id}"),
                address: format!("a:{id}"),
            };
            (id, node)
        };
        let nodes: BTreeMap<u64, PeerNode> = (1..=voters + learners).map(node).collect();
        let membership = Membership::new(vec![(1..=voters).collect()], nodes);
        let answering = answering.iter().copied().collect();
        let said = match plan(&membership, 1, &answering, Removal { id, force }, false) {
            Ok(step) => format!("{step:?}"),
            Err(refusal) => refusal.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn a_follower_goes_at_once_and_a_leader_hands_over_first() {
        check(3, 0, &[1, 2, 3], 2, false, expect!["Some(RemoveVoter)"]);
        check(3, 0, &[1, 2, 3], 1, false, expect!["Some(HandOver)"]);
        check(3, 0, &[1, 2], 3, false, expect!["Some(RemoveVoter)"]);
        check(2, 0, &[1, 2], 1, false, expect!["Some(HandOver)"]);
        check(1, 1, &[1], 2, false, expect!["Some(RemoveLearner)"]);
    }

    #[test]
    fn what_would_lose_the_quorum_is_refused_unless_forced() {
        check(
            3,
            0,
            &[1, 2],
            2,
            false,
            expect![
                "without server-2, 2 voters would be left, of which 2 have to answer, but only 1 do (silent: server-3). Bring those back or remove them first; --force removes server-2 all the same, and the cluster then takes no writes until they are back"
            ],
        );
        check(3, 0, &[1, 2], 2, true, expect!["Some(RemoveVoter)"]);
        check(
            5,
            0,
            &[1, 2, 3],
            3,
            false,
            expect![
                "without server-3, 4 voters would be left, of which 3 have to answer, but only 2 do (silent: server-4, server-5). Bring those back or remove them first; --force removes server-3 all the same, and the cluster then takes no writes until they are back"
            ],
        );
    }

    #[test]
    fn the_last_voter_and_strangers_are_refused_even_when_forced() {
        check(
            1,
            0,
            &[1],
            1,
            true,
            expect![
                "server-1 is the only voter of the cluster: without it nothing is left. To end the cluster, stop the server and remove its data folder"
            ],
        );
        check(
            3,
            0,
            &[1, 2, 3],
            9,
            true,
            expect!["no member has the ID 9: `flotilla member list` shows who is there"],
        );
    }

    #[test]
    fn a_removal_that_has_been_done_has_no_further_step() {
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::<u64, PeerNode>::new());
        let removal = Removal { id: 2, force: false };
        assert_eq!(plan(&membership, 1, &BTreeSet::new(), removal, true), Ok(None));
    }
}
