//! Lets nodes follow some resources: what services, names and policies are made of on every node.
//!
//! Answers from this server's own state, so any server will do. Never sends what a node has no business to know: the
//! list of resources is fixed, pods and nodes are cut down ([`slim`]), and of secrets only the certificates go out that
//! the nodes' proxies show ([`secrets`]).

mod secrets;
mod slim;

use std::time::Duration;

use flotilla_proto::node::{
    FollowBookmark, FollowEvent, FollowGone, FollowList, FollowObject, FollowRequest, follow_event::Kind,
};
use flotilla_raft::{Replica, Watch, WatchError};
use flotilla_store::{Change, Event, ResourceName, Revision};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use slim::Slim;

/// What nodes may follow, and how it is cut down.
const ALLOWED: [(&str, &str, Slim); 12] = [
    ("", "secrets", Slim::Certificates),
    ("", "services", Slim::Whole),
    ("discovery.k8s.io", "endpointslices", Slim::Whole),
    ("", "namespaces", Slim::Whole),
    ("", "nodes", Slim::Node),
    ("", "pods", Slim::Pod),
    ("", "persistentvolumes", Slim::Whole),
    ("", "persistentvolumeclaims", Slim::Whole),
    ("networking.k8s.io", "networkpolicies", Slim::Whole),
    ("networking.k8s.io", "ingresses", Slim::Whole),
    ("networking.k8s.io", "ingressclasses", Slim::Whole),
    ("storage.k8s.io", "storageclasses", Slim::Whole),
];
/// So often a node hears that it is up to date.
const BOOKMARK: Duration = Duration::from_secs(2);
/// A server that has known no leader for this long may be cut off from the cluster: its nodes go to another one.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

type Outgoing = mpsc::Sender<Result<FollowEvent, Status>>;

/// Whether and how the resource may be followed.
pub(super) fn allowed(request: &FollowRequest) -> Result<Slim, Status> {
    let fits =
        |(group, resource, _): &&(&str, &str, Slim)| *group == request.group && *resource == request.resource;
    ALLOWED
        .iter()
        .find(fits)
        .map(|(_, _, slim)| *slim)
        .ok_or_else(|| {
            let name = ResourceName::new(request.group.as_str(), request.resource.as_str());
            Status::permission_denied(format!("nodes may not follow {name}"))
        })
}

/// Sends the resource to one node until it goes away, this server stops, or it has lost the cluster.
pub(super) async fn serve(
    replica: Replica,
    request: FollowRequest,
    slim: Slim,
    outgoing: Outgoing,
    shutdown: CancellationToken,
) {
    let follower = Follower {
        resource: ResourceName::new(request.group.as_str(), request.resource.as_str()),
        replica: &replica,
        slim,
        outgoing: &outgoing,
    };
    // Dropping a follower half-way is harmless: the node goes on from the last revision that it got.
    let ended = tokio::select! {
        () = shutdown.cancelled() => Status::unavailable("the server is shutting down"),
        () = leaderless(&replica) => Status::unavailable("this server knows no leader; follow another one"),
        ended = follower.follow_as(Revision(request.revision)) => match ended { Err(ended) => ended },
        () = outgoing.closed() => return,
    };
    // The node may be gone already; then nobody needs to be told.
    let _ = outgoing.send(Err(ended)).await;
}

/// Ends when no leader has been known for a while.
async fn leaderless(replica: &Replica) {
    let mut leadership = replica.leadership();
    loop {
        let lost = leadership.wait_for(|now| now.leader.is_none()).await.is_err();
        if lost {
            return;
        }
        let found = leadership.wait_for(|now| now.leader.is_some());
        match tokio::time::timeout(LEADERLESS_MAX, found).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

struct Follower<'a> {
    resource: ResourceName,
    replica: &'a Replica,
    slim: Slim,
    outgoing: &'a Outgoing,
}

impl Follower<'_> {
    async fn follow_as(&self, known: Revision) -> Result<std::convert::Infallible, Status> {
        match self.slim {
            Slim::Certificates => self.follow_certificates().await,
            Slim::Whole | Slim::Pod | Slim::Node => self.follow(known).await,
        }
    }

    async fn follow(&self, known: Revision) -> Result<std::convert::Infallible, Status> {
        let resumed = (known != Revision(0)).then(|| self.watch(known));
        let mut watch = match resumed {
            Some(Ok(watch)) => {
                self.bookmark(known).await?;
                watch
            }
            _ => self.list().await?,
        };
        loop {
            match self.send_changes(&mut watch).await? {
                WatchError::Expired { .. } => watch = self.list().await?,
                WatchError::Closed => return Err(Status::unavailable("the server is shutting down")),
            }
        }
    }

    fn watch(&self, after: Revision) -> Result<Watch, WatchError> {
        self.replica.watch(self.resource.clone(), None, after)
    }

    async fn list(&self) -> Result<Watch, Status> {
        let snapshot = self.replica.snapshot();
        self.send(Kind::List(FollowList {})).await?;
        for stored in snapshot.list(&self.resource, None, None) {
            let object_json = self.slim.cut(&stored.json);
            self.send(Kind::Object(FollowObject { object_json })).await?;
        }
        self.bookmark(snapshot.revision()).await?;
        self.watch(snapshot.revision())
            .map_err(|_| Status::unavailable("the list took too long to send; follow again"))
    }

    /// Sends changes until the watch ends; says why it did.
    async fn send_changes(&self, watch: &mut Watch) -> Result<WatchError, Status> {
        let mut bookmark = tokio::time::interval(BOOKMARK);
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The watch's next batch is cancel safe, the other arm only waits.
            let batch = tokio::select! {
                batch = watch.next() => batch,
                _ = bookmark.tick() => {
                    self.bookmark(watch.progress()).await?;
                    continue;
                }
            };
            match batch {
                Ok(batch) => {
                    for event in &batch.events {
                        self.send_change(event).await?;
                    }
                }
                Err(error) => return Ok(error),
            }
        }
    }

    async fn send_change(&self, event: &Event) -> Result<(), Status> {
        let key = &event.object.key;
        if event.change == Change::Deleted {
            let gone = FollowGone {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                revision: event.revision.0,
            };
            return self.send(Kind::Gone(gone)).await;
        }
        if self.slim.is_same(event.previous.as_deref(), &event.object) {
            return Ok(());
        }
        let object_json = self.slim.cut(&event.object.json);
        self.send(Kind::Object(FollowObject { object_json })).await
    }

    async fn bookmark(&self, revision: Revision) -> Result<(), Status> {
        self.send(Kind::Bookmark(FollowBookmark { revision: revision.0 }))
            .await
    }

    async fn send(&self, kind: Kind) -> Result<(), Status> {
        self.outgoing
            .send(Ok(FollowEvent { kind: Some(kind) }))
            .await
            .map_err(|_| Status::cancelled("the node has gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_follow_what_they_need_and_nothing_else() {
        let ask = |group: &str, resource: &str| {
            allowed(&FollowRequest {
                group: group.into(),
                resource: resource.into(),
                revision: 0,
            })
        };
        assert_eq!(ask("", "pods").unwrap(), Slim::Pod);
        assert_eq!(ask("discovery.k8s.io", "endpointslices").unwrap(), Slim::Whole);
        assert_eq!(ask("", "secrets").unwrap(), Slim::Certificates);
        for resource in ["configmaps", "serviceaccounts", "endpointslices"] {
            assert_eq!(
                ask("", resource).unwrap_err().code(),
                tonic::Code::PermissionDenied
            );
        }
    }
}
