//! The roll of members: what is known of each, removal, and whether this replica is still one of them.
//!
//! The leader answers; any other replica asks it.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_proto::peer::{
    ConfirmMemberRequest, RemoveMemberRequest, confirm_member_response, member_states_response,
    remove_member_response,
};
use tokio::time::Instant;

use super::{Core, Expulsion};
use crate::members::{
    self, Knowledge, Member, MemberRole, MemberState, Removal, RemoveHereError, RemoveMemberError, Removed,
};

/// How long one server may take to answer a question.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a removal may take in all, the hand-over of a leader that is removed included.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long no leader may be known before a replica asks whether it is still a member.
const DOUBT_AFTER: Duration = Duration::from_secs(1);
/// Pause between such questions.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// What this replica knows of each member.
    pub(crate) fn member_states_here(&self) -> Vec<MemberState> {
        let data = self.raft.data_metrics().borrow().clone();
        let server = self.raft.server_metrics().borrow().clone();
        let known = Knowledge {
            own: self.options.id,
            leader: server.current_leader,
            last: data.last_log,
            matched: data.replication.unwrap_or_default(),
            silences: self.peers.silences(),
        };
        members::states(server.membership_config.membership(), &known)
    }

    /// The leader's knowledge of each member, or this replica's own where no leader answers.
    pub(crate) async fn member_states(&self) -> Vec<MemberState> {
        let leader = self.leadership.borrow().leader.clone();
        let other = leader.filter(|leader| leader.id != self.options.id);
        if let Some(leader) = other {
            let call = self.peers.transport.member_states(&leader.address);
            let answer = tokio::time::timeout(ASK_LIMIT, call).await;
            if let Ok(Ok(answer)) = answer
                && let Some(member_states_response::Outcome::States(told)) = answer.outcome
            {
                return told.states.into_iter().filter_map(read_state).collect();
            }
        }
        self.member_states_here()
    }

    /// Members that have answered this leader within the time after which it no longer believes that it leads.
    fn answering(&self) -> BTreeSet<u64> {
        let silence_max = self.options.timing.election_max * 2;
        let silences = self.peers.silences().into_iter();
        silences
            .filter(|(_, silence)| *silence <= silence_max)
            .map(|(id, _)| id)
            .chain([self.options.id])
            .collect()
    }

    /// Removes a member through this replica, which should lead; hands leadership over if it is this one.
    pub(crate) async fn remove_member_here(&self, removal: Removal) -> Result<Vec<Member>, RemoveHereError> {
        match self
            .members
            .remove(self.options.id, &self.answering(), removal)
            .await?
        {
            Removed::Done(members) => Ok(members),
            Removed::HandOver => {
                self.hand_over().await;
                Err(RemoveHereError::NotLeader)
            }
        }
    }

    /// Removes a member wherever the leader is.
    pub(crate) async fn remove_member(&self, removal: Removal) -> Result<(), RemoveMemberError> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        loop {
            let leader = self.leadership.borrow().leader.clone();
            let tried = match leader {
                Some(leader) if leader.id != self.options.id => self.ask_to_remove(&leader, removal).await,
                _ => match self.remove_member_here(removal).await {
                    Ok(_) => Ok(()),
                    Err(RemoveHereError::NotLeader) => Err(unavailable("no leader is known")),
                    Err(RemoveHereError::Unavailable(reason)) => Err(unavailable(&reason)),
                    Err(RemoveHereError::Refused(refusal)) => Err(refusal.into()),
                },
            };
            match tried {
                Err(RemoveMemberError::Unavailable(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                settled => return settled,
            }
        }
    }

    async fn ask_to_remove(&self, leader: &Member, removal: Removal) -> Result<(), RemoveMemberError> {
        let Removal { id, force } = removal;
        let request = RemoveMemberRequest { id, force };
        let call = self.peers.transport.remove_member(&leader.address, request);
        let answer = match tokio::time::timeout(REMOVE_LIMIT, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unavailable(&format!("{}: {error}", leader.name))),
            Err(_) => return Err(unavailable(&format!("{} has not answered", leader.name))),
        };
        match answer.outcome {
            Some(remove_member_response::Outcome::Members(_)) => Ok(()),
            Some(remove_member_response::Outcome::Unknown(_)) => Err(RemoveMemberError::Unknown(id)),
            Some(remove_member_response::Outcome::Refused(reason)) => Err(RemoveMemberError::Refused(reason)),
            Some(remove_member_response::Outcome::Unavailable(reason)) => Err(unavailable(&reason)),
            Some(remove_member_response::Outcome::NotLeader(_)) | None => {
                Err(unavailable("the leader has changed"))
            }
        }
    }

    /// Whether a replica is a member, as this one knows when it leads; an error says why it does not know.
    pub(crate) async fn confirm_member_here(&self, id: u64) -> Result<bool, String> {
        // Only a leader that a majority follows has the membership that is in force.
        let confirmed = self.reader.read_index().await;
        confirmed.map_err(|error| error.to_string())?;
        Ok(members::find(&self.members.membership(), id).is_some())
    }

    /// Ends when this replica is no member any more, or when it stops.
    ///
    /// A removed member is not told: it may be away when it happens. It notices that it hears of no leader, and asks.
    /// One that a reset or restored cluster has left behind is told by the answer to whatever it calls.
    pub(crate) async fn watch_standing(&self) -> Expulsion {
        let mut told = self.peers.left_behind.subscribe();
        let left_behind = async {
            // The sender is in `self`.
            let said = told.wait_for(Option::is_some).await;
            said.ok().and_then(|said| said.clone()).unwrap_or_default()
        };
        tokio::select! {
            biased;
            // Looking again later is all that is lost.
            () = self.shared.closed.cancelled() => Expulsion::Stopped,
            said = left_behind => Expulsion::LeftBehind(said),
            () = self.removed() => Expulsion::Removed,
        }
    }

    /// Ends when the cluster says that this replica is no member any more.
    async fn removed(&self) {
        let mut leadership = self.leadership.clone();
        loop {
            let doubts = async {
                // The sender lives as long as the replica.
                let _ = leadership.wait_for(|now| now.leader.is_none()).await;
                let found = leadership.wait_for(|now| now.leader.is_some());
                tokio::time::timeout(DOUBT_AFTER, found).await.is_err()
            };
            let in_doubt = doubts.await;
            if in_doubt && self.is_initialized() && self.is_expelled().await {
                return;
            }
            if in_doubt {
                tokio::time::sleep(DOUBT_PAUSE).await;
            }
        }
    }

    /// Asks every other member; true when the leader is among them and says that this replica is none.
    async fn is_expelled(&self) -> bool {
        for member in members::list(&self.members.membership()) {
            if member.id == self.options.id {
                continue;
            }
            let request = ConfirmMemberRequest { id: self.options.id };
            let call = self.peers.transport.confirm_member(&member.address, request);
            let Ok(answer) = tokio::time::timeout(ASK_LIMIT, call).await else {
                continue;
            };
            let Ok(answer) = self.peers.notice(answer) else {
                continue;
            };
            if let Some(confirm_member_response::Outcome::IsMember(is_member)) = answer.outcome {
                return !is_member;
            }
        }
        false
    }
}

fn unavailable(reason: &str) -> RemoveMemberError {
    RemoveMemberError::Unavailable(reason.to_owned())
}

fn read_state(told: flotilla_proto::peer::MemberState) -> Option<MemberState> {
    let member = told.member?;
    let role = match (told.leads, member.voter) {
        (true, _) => MemberRole::Leader,
        (false, true) => MemberRole::Voter,
        (false, false) => MemberRole::Learner,
    };
    Some(MemberState {
        member: Member {
            id: member.id,
            name: member.name,
            address: member.address,
            voter: member.voter,
        },
        role,
        log_index: told.log_index,
        behind: told.behind,
        silence: told.silence_millis.map(Duration::from_millis),
    })
}
