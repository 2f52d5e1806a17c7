//! Sends a node its pods: all of them first, then each that changes.
//!
//! Keeps no queue of messages, only the names of pods that have news; what is sent is the state at that moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use flotilla_api::{claims, registry};
use flotilla_proto::node::{
    NodeRoutes, PodAssignment, PodRemoved, Reference, SyncBegin, SyncEnd, server_message::Kind as Said,
};
use flotilla_store::{Key, ResourceName, Snapshot, Stored};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use tokio::sync::Notify;

use super::{
    Assignments, Outbox,
    assignments::{ReferenceKind, references},
    say,
};

/// Namespace and name of a pod.
pub(super) type PodPlace = (String, String);

/// What has to be sent to one node.
#[derive(Default)]
pub(super) struct News {
    pending: Mutex<Pending>,
    arrived: Notify,
}

#[derive(Default)]
struct Pending {
    pods: BTreeSet<PodPlace>,
    routes: bool,
    /// A newer subscription of the same node has taken over.
    replaced: bool,
}

impl News {
    pub(super) fn pod(&self, place: PodPlace) {
        self.change(|pending| {
            pending.pods.insert(place);
        });
    }

    pub(super) fn routes(&self) {
        self.change(|pending| pending.routes = true);
    }

    pub(super) fn replaced(&self) {
        self.change(|pending| pending.replaced = true);
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }

    async fn take(&self) -> Pending {
        loop {
            let arrived = self.arrived.notified();
            if let Some(taken) = self.take_now() {
                return taken;
            }
            arrived.await;
        }
    }

    fn take_now(&self) -> Option<Pending> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let news = pending.replaced || pending.routes || !pending.pods.is_empty();
        let replaced = pending.replaced;
        news.then(|| {
            std::mem::replace(
                &mut *pending,
                Pending {
                    replaced,
                    ..Pending::default()
                },
            )
        })
    }
}

/// One node's subscription to its pods.
pub(super) struct Subscription {
    assignments: Arc<Assignments>,
    node: String,
    news: Arc<News>,
    /// Uids of the pods that the agent knows from this subscription.
    sent: BTreeMap<PodPlace, String>,
}

impl Subscription {
    /// Opens a subscription; an older one of the same node ends.
    pub(super) fn open(assignments: &Arc<Assignments>, node: &str) -> Self {
        Self {
            assignments: assignments.clone(),
            node: node.to_owned(),
            news: assignments.listen(node),
            sent: BTreeMap::new(),
        }
    }

    /// Sends until the agent is gone or a newer subscription takes over.
    pub(super) async fn serve(mut self, outbox: &Outbox) {
        // The agent being gone is the normal end of it.
        let _ = self.send_all(outbox).await;
        self.assignments.stop_listening(&self.node, &self.news);
    }

    async fn send_all(&mut self, outbox: &Outbox) -> Result<(), Gone> {
        send(outbox, Said::Routes(self.routes())).await?;
        let term = self.assignments.resources.term().unwrap_or_default();
        send(outbox, Said::SyncBegin(SyncBegin { term })).await?;
        for place in self.assignments.pods_on(&self.node) {
            self.send_pod(outbox, place).await?;
        }
        send(outbox, Said::SyncEnd(SyncEnd {})).await?;
        loop {
            let pending = self.news.take().await;
            if pending.replaced {
                return Err(Gone);
            }
            if pending.routes {
                send(outbox, Said::Routes(self.routes())).await?;
            }
            for place in pending.pods {
                self.send_pod(outbox, place).await?;
            }
        }
    }

    fn routes(&self) -> NodeRoutes {
        NodeRoutes {
            routes: self.assignments.routes(),
        }
    }

    async fn send_pod(&mut self, outbox: &Outbox, place: PodPlace) -> Result<(), Gone> {
        let snapshot = self.assignments.snapshot();
        let (namespace, name) = &place;
        let (group, resource) = registry().of::<Pod>().resource_name();
        let key = Key::new(
            ResourceName::new(group, resource),
            namespace.as_str(),
            name.as_str(),
        );
        let found = snapshot
            .get(&key)
            .and_then(|stored| Assigned::of(stored, &self.node));
        let known = self.sent.get(&place);
        if let Some(uid) = known.filter(|uid| found.as_ref().is_none_or(|found| found.uid != **uid)) {
            let removed = PodRemoved {
                namespace: namespace.clone(),
                name: name.clone(),
                uid: uid.clone(),
            };
            send(outbox, Said::PodRemoved(removed)).await?;
            self.sent.remove(&place);
        }
        let Some(found) = found else { return Ok(()) };
        let references = references_of(&snapshot, namespace, &found.pod);
        send(
            outbox,
            Said::Pod(PodAssignment {
                pod_json: found.stored.json.clone(),
                references,
            }),
        )
        .await?;
        self.sent.insert(place, found.uid);
        Ok(())
    }
}

/// The agent has gone.
struct Gone;

async fn send(outbox: &Outbox, kind: Said) -> Result<(), Gone> {
    outbox.send(say(kind)).await.map_err(|_| Gone)
}

/// A pod that is bound to the node.
struct Assigned {
    stored: Arc<Stored>,
    pod: Arc<Pod>,
    uid: String,
}

impl Assigned {
    fn of(stored: &Arc<Stored>, node: &str) -> Option<Self> {
        let pod: Arc<Pod> = stored
            .cached(|stored| serde_json::from_slice(&stored.json).ok().map(Arc::new))
            .as_ref()
            .clone()?;
        let bound = pod.spec.as_ref()?.node_name.as_deref() == Some(node);
        let uid = pod.metadata.uid.clone()?;
        bound.then(|| Self {
            stored: stored.clone(),
            pod,
            uid,
        })
    }
}

/// The objects that the pod refers to, and the volumes of its claims, as far as they exist.
fn references_of(snapshot: &Snapshot, namespace: &str, pod: &Pod) -> Vec<Reference> {
    let mut found = Vec::new();
    for (kind, name) in references(pod) {
        let Some(object) = reference(snapshot, kind, namespace, name) else {
            continue;
        };
        if kind == ReferenceKind::PersistentVolumeClaim
            && let Ok(claim) = serde_json::from_slice::<PersistentVolumeClaim>(&object.object_json)
            && let Some(volume) = claims::volume_name(&claim)
        {
            let volume = volume.to_owned();
            found.extend(reference(snapshot, ReferenceKind::PersistentVolume, "", volume));
        }
        found.push(object);
    }
    found
}

fn reference(snapshot: &Snapshot, kind: ReferenceKind, namespace: &str, name: String) -> Option<Reference> {
    let key = Key::new(ResourceName::new("", kind.resource()), namespace, name.as_str());
    let stored = snapshot.get(&key)?;
    Some(Reference {
        kind: kind.as_str().to_owned(),
        name,
        object_json: stored.json.clone(),
    })
}
