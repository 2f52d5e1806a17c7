//! Becoming a member.

use std::collections::VecDeque;
use std::time::Duration;

use flotilla_proto::peer::{AddMemberRequest, add_member_response};
use tokio::time::Instant;

use super::Core;
use crate::members::{self, AddMemberError, Candidate, JoinError};
use crate::network::CallError;
use crate::storage::{About, FORMAT};

/// How long joining may take in all, catching up with a large store included.
const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// How long one server may take to answer.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long to wait for promotion before the request is repeated.
const PROMOTION_PATIENCE: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What one server said.
enum Answer {
    Accepted,
    AskInstead(String),
    Later(String),
}

/// Asks the servers, and whoever they name as the leader, until this replica votes under its address.
pub(super) async fn join(core: &Core, servers: &[String]) -> Result<(), JoinError> {
    let deadline = Instant::now() + JOIN_LIMIT;
    let mut reason = "no server was named".to_owned();
    let mut waiting: VecDeque<String> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            waiting = known_servers(core, servers);
        }
        let answer = match waiting.pop_front() {
            Some(server) => ask(core, &server).await?,
            None => Answer::Later("no server is known".to_owned()),
        };
        match answer {
            Answer::Accepted => {
                core.admitted.send_replace(true);
                let patience = deadline.min(Instant::now() + PROMOTION_PATIENCE);
                if becomes_voter(core, patience).await {
                    return Ok(());
                }
                reason = "it has not caught up yet".to_owned();
            }
            Answer::AskInstead(leader) => waiting.push_front(leader),
            Answer::Later(said) => reason = said,
        }
        if Instant::now() >= deadline || core.shared.closed.is_cancelled() {
            return Err(JoinError::TimedOut(reason));
        }
        if waiting.is_empty() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The servers to ask: those named, then those that the log names, this one among them.
fn known_servers(core: &Core, servers: &[String]) -> VecDeque<String> {
    let mut known: VecDeque<String> = servers.iter().cloned().collect();
    for member in members::list(&core.members.membership()) {
        if member.id != core.options.id && !known.contains(&member.address) {
            known.push_back(member.address);
        }
    }
    if core.is_initialized() {
        // It may lead: then the others name it under its old address, and only itself can change that.
        known.push_back(core.options.address.clone());
    }
    known
}

async fn ask(core: &Core, server: &str) -> Result<Answer, JoinError> {
    let options = &core.options;
    let empty = !core.is_initialized();
    let (id, name, address) = (options.id, options.name.clone(), options.address.clone());
    if *server == options.address {
        let candidate = Candidate {
            id,
            name,
            address,
            empty,
        };
        return match core.members.add(&candidate).await {
            Ok(_) => Ok(Answer::Accepted),
            Err(AddMemberError::NotLeader) => Ok(Answer::Later("this server does not lead".to_owned())),
            Err(AddMemberError::Unavailable(reason)) => Ok(Answer::Later(reason)),
            Err(AddMemberError::Refused(reason)) => Err(JoinError::Refused(reason)),
        };
    }
    let request = AddMemberRequest {
        id,
        name,
        address,
        empty,
    };
    let call = core.peers.transport.add_member(server, request);
    let answer = match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(answer)) => answer,
        // The log may have arrived while the request was on its way: then it is no longer refused.
        Ok(Err(CallError::Refused(reason))) if empty != core.is_initialized() => {
            return Err(JoinError::Refused(reason));
        }
        Ok(Err(error)) => return Ok(Answer::Later(format!("{server}: {error}"))),
        Err(_) => return Ok(Answer::Later(format!("{server} has not answered"))),
    };
    Ok(match answer.outcome {
        Some(add_member_response::Outcome::Members(members)) => {
            let about = About {
                format: FORMAT,
                cluster: members.cluster,
                former: members.former_clusters,
            };
            match core.belong_to(about).await {
                Ok(()) => Answer::Accepted,
                Err(error) => Answer::Later(format!("the data folder cannot be written: {error}")),
            }
        }
        Some(add_member_response::Outcome::NotLeader(leader)) if !leader.leader_address.is_empty() => {
            Answer::AskInstead(leader.leader_address)
        }
        Some(add_member_response::Outcome::NotLeader(_)) => {
            Answer::Later(format!("{server} knows no leader"))
        }
        Some(add_member_response::Outcome::Unavailable(reason)) => {
            Answer::Later(format!("{server}: {reason}"))
        }
        None => Answer::Later(format!("{server} gave an empty answer")),
    })
}

/// Waits until this replica's own log says that it votes, and under which address; and that nobody's vote counts
/// only for a change that is half done: losing another server just then would stop the cluster.
async fn becomes_voter(core: &Core, deadline: Instant) -> bool {
    let mut metrics = core.raft.server_metrics();
    let voting = metrics.wait_for(|metrics| {
        let membership = metrics.membership_config.membership();
        let own = members::find(membership, core.options.id);
        own.is_some_and(|own| own.voter && own.address == core.options.address)
            && !members::is_joint(membership)
    });
    matches!(tokio::time::timeout_at(deadline, voting).await, Ok(Ok(_)))
}
