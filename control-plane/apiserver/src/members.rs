//! `members.flotilla.dev`: the servers of the cluster, from what the leader knows; deletion takes one out.
//!
//! Nothing of it is stored. A server comes by joining, so nobody creates or changes it here.

use std::sync::Arc;

use flotilla_api::members::{Member, MemberStatus};
use flotilla_api::{Kind, Reason, Status};
use flotilla_raft::{MemberRole, MemberState, RemoveMemberError};
use flotilla_store::Stored;
use http::{Method, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use crate::body::Body;
use crate::call::Call;
use crate::list::{self, ListMeta};
use crate::metrics::imagined;
use crate::path::ResourcePath;
use crate::render::{Renderer, json_response, object_response};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::write::{delete_options, success};

/// Answers a request for servers.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &mut Call,
    kind: &'static Kind,
    path: &ResourcePath,
) -> Result<Response<Body>, Status> {
    match (&call.method, &path.name, &path.subresource) {
        (&Method::GET, _, None) => read(server, call, kind, path.name.as_deref()).await,
        (&Method::DELETE, Some(name), None) => remove(server, call, kind, name).await,
        _ => Err(Status::method_not_allowed()),
    }
}

async fn read(
    server: &ApiServer,
    call: &Call,
    kind: &'static Kind,
    name: Option<&str>,
) -> Result<Response<Body>, Status> {
    let renderer = Renderer::of(kind, call)?;
    let now = Timestamp::now();
    let states = server.resources().replica().member_states().await;
    let mut stored: Vec<Arc<Stored>> = states
        .iter()
        .map(|state| Arc::new(imagined(kind, &object(state, now))))
        .collect();
    if let Some(name) = name {
        let found = stored.iter().find(|object| *object.key.name == *name);
        let found = found.ok_or_else(|| Status::not_found(kind, name))?;
        return object_response(&renderer, StatusCode::OK, found, &[]);
    }
    stored.sort_by(|one, other| one.key.name.cmp(&other.key.name));
    let selection = Selection::parse(kind, &call.query)?;
    stored.retain(|object| selection.picks(object));
    Ok(list::body(renderer, &ListMeta::default(), stored))
}

/// Takes a server out. A grace period of 0, which is `kubectl delete --force`, forces it.
async fn remove(
    server: &ApiServer,
    call: &mut Call,
    kind: &'static Kind,
    name: &str,
) -> Result<Response<Body>, Status> {
    let body = call.read_json().await?;
    let options = delete_options(&call.query, &body)?;
    if options.dry_run {
        return Err(Status::bad_request("the removal of a member cannot be tried out"));
    }
    let replica = server.resources().replica();
    let members = replica.members();
    let member = members.iter().find(|member| member.name == name);
    let member = member.ok_or_else(|| Status::not_found(kind, name))?;
    let uid = member.id.to_string();
    if let Some(wanted) = options.uid.filter(|wanted| *wanted != uid) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(Status::conflict(kind, name, &why));
    }
    let force = options.grace_seconds == Some(0);
    replica
        .remove_member(member.id, force)
        .await
        .map_err(|error| refused(kind, name, &error))?;
    let details = json!({"name": name, "group": kind.group, "kind": kind.resource, "uid": uid});
    Ok(json_response(StatusCode::OK, success(Some(details)).to_string()))
}

fn refused(kind: &Kind, name: &str, error: &RemoveMemberError) -> Status {
    match error {
        RemoveMemberError::Unknown(_) => Status::not_found(kind, name),
        RemoveMemberError::Refused(reason) => Status::new(Reason::Conflict, reason.as_str()),
        RemoveMemberError::Unavailable(_) => Status::unavailable(error.to_string()),
    }
}

fn object(state: &MemberState, now: Timestamp) -> Member {
    let role = match state.role {
        MemberRole::Leader => "Leader",
        MemberRole::Voter => "Voter",
        MemberRole::Learner => "Learner",
    };
    let heard = state.silence.and_then(|silence| {
        let silence = SignedDuration::try_from(silence).ok()?;
        now.checked_sub(silence).ok()
    });
    Member {
        metadata: ObjectMeta {
            name: Some(state.member.name.clone()),
            uid: Some(state.member.id.to_string()),
            ..ObjectMeta::default()
        },
        status: MemberStatus {
            address: state.member.address.clone(),
            role: role.to_owned(),
            log_index: state.log_index,
            behind: state.behind,
            last_heard_time: heard.map(Time),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_member_is_shown_with_the_time_when_it_was_heard() {
        let state = MemberState {
            member: flotilla_raft::Member {
                id: 7,
                name: "server-2".to_owned(),
                address: "a:1".to_owned(),
                voter: true,
            },
            role: MemberRole::Voter,
            log_index: Some(40),
            behind: Some(2),
            silence: Some(Duration::from_secs(3)),
        };
        let now = "2026-11-25T10:00:05Z".parse().unwrap();
        let shown = serde_json::to_value(object(&state, now)).unwrap();
        assert_eq!(
            shown,
            json!({
                "apiVersion": "flotilla.dev/v1alpha1", "kind": "Member",
                "metadata": {"name": "server-2", "uid": "7"},
                "status": {"address": "a:1", "role": "Voter", "logIndex": 40, "behind": 2,
                           "lastHeardTime": "2026-11-25T10:00:02Z"},
            })
        );
    }
}
