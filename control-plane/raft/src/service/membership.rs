//! Answers what concerns members and who leads.

use flotilla_proto::peer::{
    AddMemberRequest, AddMemberResponse, ConfirmMemberRequest, ConfirmMemberResponse, EndTermRequest,
    EndTermResponse, Member as MemberMessage, MemberState as MemberStateMessage,
    MemberStates as MemberStatesMessage, MemberStatesResponse, Members as MembersMessage,
    RemoveMemberRequest, RemoveMemberResponse, TakeOverRequest, add_member_response, confirm_member_response,
    member_states_response, remove_member_response,
};

use super::{AnswerError, PeerService, not_leader};
use crate::leadership::may_lead;
use crate::members::{
    AddMemberError, Candidate, Member, MemberRole, MemberState, Removal, RemoveHereError, RemoveMemberError,
};

impl PeerService {
    /// Takes a server in, or notes its new address.
    pub async fn add_member(&self, request: AddMemberRequest) -> Result<AddMemberResponse, AnswerError> {
        let core = self.core()?;
        let AddMemberRequest {
            id,
            name,
            address,
            empty,
        } = request;
        let candidate = Candidate {
            id,
            name,
            address,
            empty,
        };
        let outcome = match core.members.add(&candidate).await {
            Ok(members) => {
                let about = core.about.load();
                let about = about.as_deref();
                add_member_response::Outcome::Members(MembersMessage {
                    cluster: about.map(|about| about.cluster.clone()).unwrap_or_default(),
                    former_clusters: about.map(|about| about.former.clone()).unwrap_or_default(),
                    ..members_message(members)
                })
            }
            Err(AddMemberError::NotLeader) => add_member_response::Outcome::NotLeader(not_leader(&core)),
            Err(AddMemberError::Unavailable(reason)) => add_member_response::Outcome::Unavailable(reason),
            Err(AddMemberError::Refused(reason)) => return Err(AnswerError::Refused(reason)),
        };
        Ok(AddMemberResponse {
            outcome: Some(outcome),
        })
    }

    /// Believes the leader that it stops; see `replica::hand_over`.
    pub fn end_term(&self, request: &EndTermRequest) -> Result<EndTermResponse, AnswerError> {
        let believed = self.core()?.end_term(request.term, request.leader_id);
        Ok(EndTermResponse { believed })
    }

    /// Stands for election, if the leader of the present term asks for it.
    pub async fn take_over(&self, request: &TakeOverRequest) -> Result<(), AnswerError> {
        let core = self.core()?;
        match core.take_over(request.term, request.leader_id).await {
            true => Ok(()),
            false => Err(AnswerError::Refused(
                "whoever asks for it is not known to lead".to_owned(),
            )),
        }
    }

    /// What this replica knows of each member, if it leads.
    pub fn member_states(&self) -> Result<MemberStatesResponse, AnswerError> {
        let core = self.core()?;
        let outcome = match may_lead(&core.raft) {
            true => {
                let states = core.member_states_here().into_iter().map(state_message);
                member_states_response::Outcome::States(MemberStatesMessage {
                    states: states.collect(),
                })
            }
            false => member_states_response::Outcome::NotLeader(not_leader(&core)),
        };
        Ok(MemberStatesResponse {
            outcome: Some(outcome),
        })
    }

    /// Takes a member out.
    pub async fn remove_member(
        &self,
        request: &RemoveMemberRequest,
    ) -> Result<RemoveMemberResponse, AnswerError> {
        let core = self.core()?;
        let removal = Removal {
            id: request.id,
            force: request.force,
        };
        let outcome = match core.remove_member_here(removal).await {
            Ok(members) => remove_member_response::Outcome::Members(members_message(members)),
            Err(RemoveHereError::NotLeader) => remove_member_response::Outcome::NotLeader(not_leader(&core)),
            Err(RemoveHereError::Unavailable(reason)) => remove_member_response::Outcome::Unavailable(reason),
            Err(RemoveHereError::Refused(refusal)) => match refusal.into() {
                error @ RemoveMemberError::Unknown(_) => {
                    remove_member_response::Outcome::Unknown(error.to_string())
                }
                error => remove_member_response::Outcome::Refused(error.to_string()),
            },
        };
        Ok(RemoveMemberResponse {
            outcome: Some(outcome),
        })
    }

    /// Whether a server is a member, confirmed with a majority.
    pub async fn confirm_member(
        &self,
        request: &ConfirmMemberRequest,
    ) -> Result<ConfirmMemberResponse, AnswerError> {
        let core = self.core()?;
        let outcome = match may_lead(&core.raft) {
            true => match core.confirm_member_here(request.id).await {
                Ok(is_member) => confirm_member_response::Outcome::IsMember(is_member),
                Err(reason) => confirm_member_response::Outcome::Unavailable(reason),
            },
            false => confirm_member_response::Outcome::NotLeader(not_leader(&core)),
        };
        Ok(ConfirmMemberResponse {
            outcome: Some(outcome),
        })
    }
}

fn member_message(member: Member) -> MemberMessage {
    MemberMessage {
        id: member.id,
        name: member.name,
        address: member.address,
        voter: member.voter,
    }
}

fn members_message(members: Vec<Member>) -> MembersMessage {
    MembersMessage {
        members: members.into_iter().map(member_message).collect(),
        ..MembersMessage::default()
    }
}

fn state_message(state: MemberState) -> MemberStateMessage {
    MemberStateMessage {
        leads: state.role == MemberRole::Leader,
        log_index: state.log_index,
        behind: state.behind,
        silence_millis: state
            .silence
            .map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)),
        member: Some(member_message(state.member)),
    }
}
