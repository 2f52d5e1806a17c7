//! Which pods belong to which node, and who has to be told of what; alive while this server leads.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use flotilla_api::claims;
use flotilla_proto::node::NodeRoute;
use flotilla_raft::Replica;
use flotilla_resources::{Cache, CacheEvent, Resources};
use flotilla_store::{ResourceName, Snapshot, Stored};
use k8s_openapi::api::core::v1::{Container, Node, PersistentVolume, Pod, PodSpec};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::subscription::{News, PodPlace};
use crate::options::ClusterNetwork;

/// The leader's view of nodes and their pods.
pub(crate) struct Assignments {
    pub(super) resources: Resources,
    pub(super) network: ClusterNetwork,
    /// Held while a node is registered, so that no two get the same addresses.
    pub(super) registration: tokio::sync::Mutex<()>,
    pub(super) nodes: Cache<Node>,
    pods: Cache<Pod>,
    listeners: Mutex<HashMap<String, Arc<News>>>,
    stopped: CancellationToken,
    _stop: DropGuard,
}

impl Assignments {
    /// Starts to follow nodes, pods and what pods refer to. `resources` is fenced with this server's term. Everything
    /// ends with the last handle.
    pub(crate) async fn start(
        resources: Resources,
        network: ClusterNetwork,
        tracker: &TaskTracker,
    ) -> Arc<Self> {
        let stopped = CancellationToken::new();
        let assignments = Arc::new(Self {
            nodes: Cache::start(resources.replica(), tracker, &stopped),
            pods: Cache::start(resources.replica(), tracker, &stopped),
            network,
            registration: tokio::sync::Mutex::default(),
            listeners: Mutex::default(),
            _stop: stopped.clone().drop_guard(),
            stopped: stopped.clone(),
            resources,
        });
        assignments.nodes.synced().await;
        assignments.pods.synced().await;
        assignments.follow_caches();
        for kind in ReferenceKind::ALL {
            let (weak, replica) = (
                Arc::downgrade(&assignments),
                assignments.resources.replica().clone(),
            );
            let stopped = stopped.clone();
            tracker.spawn(async move {
                // Dropping the follower loses nothing: a later leader's subscriptions start with everything.
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = follow_references(kind, &replica, &weak) => {}
                }
            });
        }
        assignments
    }

    /// Ends everything at once, although handles are left.
    pub(crate) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.stopped
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.resources.replica().snapshot()
    }

    /// Where news for `node` arrive from now on; who listened before is told to stop.
    pub(super) fn listen(&self, node: &str) -> Arc<News> {
        let news = Arc::new(News::default());
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = listeners.insert(node.to_owned(), news.clone()) {
            older.replaced();
        }
        news
    }

    pub(super) fn stop_listening(&self, node: &str, news: &Arc<News>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners
            .get(node)
            .is_some_and(|current| Arc::ptr_eq(current, news))
        {
            listeners.remove(node);
        }
    }

    /// Names of the pods that are bound to `node`.
    pub(super) fn pods_on(&self, node: &str) -> Vec<PodPlace> {
        let pods = self.pods.list(None);
        pods.iter()
            .filter(|pod| node_of(pod) == Some(node))
            .map(|pod| place_of(pod))
            .collect()
    }

    /// How to reach the pods of every node.
    pub(super) fn routes(&self) -> Vec<NodeRoute> {
        self.nodes
            .list(None)
            .iter()
            .filter_map(|node| route(node))
            .collect()
    }

    fn follow_caches(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.pods.subscribe(move |event| {
            if let Some(assignments) = weak.upgrade() {
                assignments.note_pod(event);
            }
        });
        let weak = Arc::downgrade(self);
        self.nodes.subscribe(move |event| {
            if let Some(assignments) = weak.upgrade() {
                assignments.note_node(event);
            }
        });
    }

    fn note_pod(&self, event: &CacheEvent<Pod>) {
        if let CacheEvent::Modified { old, new } = event
            && is_only_status(old, new)
        {
            return;
        }
        let pod = event.object();
        if let Some(node) = node_of(pod) {
            self.tell(node, pod);
        }
    }

    fn tell(&self, node: &str, pod: &Pod) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(news) = listeners.get(node) {
            news.pod(place_of(pod));
        }
    }

    fn note_node(&self, event: &CacheEvent<Node>) {
        if let CacheEvent::Modified { old, new } = event
            && route(old) == route(new)
        {
            return;
        }
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.values().for_each(|news| news.routes());
    }

    /// Sends the pods whose claim is bound to a changed volume once more.
    fn note_volume(&self, stored: &Stored) {
        let Ok(volume) = serde_json::from_slice::<PersistentVolume>(&stored.json) else {
            return;
        };
        let Some(claim) = volume.spec.and_then(|spec| spec.claim_ref) else {
            return;
        };
        let (namespace, name) = (
            claim.namespace.unwrap_or_default(),
            claim.name.unwrap_or_default(),
        );
        self.note_reference(ReferenceKind::PersistentVolumeClaim, &namespace, &name);
    }

    /// Sends the pods that refer to a changed object once more.
    fn note_reference(&self, kind: ReferenceKind, namespace: &str, name: &str) {
        for pod in self.pods.list(Some(namespace)) {
            let refers = || {
                references(&pod)
                    .iter()
                    .any(|(found, referred)| *found == kind && referred == name)
            };
            if let Some(node) = node_of(&pod).filter(|_| refers()) {
                self.tell(node, &pod);
            }
        }
    }
}

async fn follow_references(kind: ReferenceKind, replica: &Replica, assignments: &Weak<Assignments>) {
    let resource = ResourceName::new("", kind.resource());
    loop {
        let Ok(mut watch) = replica.watch(resource.clone(), None, replica.snapshot().revision()) else {
            return;
        };
        // A watch that fell behind starts anew; what changed in the gap is sent with the pods' next news.
        while let Ok(batch) = watch.next().await {
            let Some(assignments) = assignments.upgrade() else {
                return;
            };
            for event in batch.events {
                let key = &event.object.key;
                match kind {
                    ReferenceKind::PersistentVolume => assignments.note_volume(&event.object),
                    kind => assignments.note_reference(kind, &key.namespace, &key.name),
                }
            }
        }
    }
}

/// What a pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReferenceKind {
    ConfigMap,
    Secret,
    PersistentVolumeClaim,
    /// Not by pods themselves, but by their claims.
    PersistentVolume,
}

impl ReferenceKind {
    const ALL: [ReferenceKind; 4] = [
        ReferenceKind::ConfigMap,
        ReferenceKind::Secret,
        ReferenceKind::PersistentVolumeClaim,
        ReferenceKind::PersistentVolume,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            ReferenceKind::ConfigMap => "ConfigMap",
            ReferenceKind::Secret => "Secret",
            ReferenceKind::PersistentVolumeClaim => "PersistentVolumeClaim",
            ReferenceKind::PersistentVolume => "PersistentVolume",
        }
    }

    pub(super) fn resource(self) -> &'static str {
        match self {
            ReferenceKind::ConfigMap => "configmaps",
            ReferenceKind::Secret => "secrets",
            ReferenceKind::PersistentVolumeClaim => "persistentvolumeclaims",
            ReferenceKind::PersistentVolume => "persistentvolumes",
        }
    }
}

/// Every ConfigMap, Secret and claim that the pod names, each once.
pub(super) fn references(pod: &Pod) -> BTreeSet<(ReferenceKind, String)> {
    let mut found = BTreeSet::new();
    let Some(spec) = &pod.spec else { return found };
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    containers.for_each(|container| collect_environment(container, &mut found));
    collect_volumes(spec, &mut found);
    let claims = claims::claims_of(pod).into_iter();
    found.extend(claims.map(|(name, _)| (ReferenceKind::PersistentVolumeClaim, name)));
    found.extend(
        spec.image_pull_secrets
            .iter()
            .flatten()
            .map(|secret| (ReferenceKind::Secret, secret.name.clone())),
    );
    found
}

fn collect_environment(container: &Container, found: &mut BTreeSet<(ReferenceKind, String)>) {
    for source in container.env_from.iter().flatten() {
        found.extend(
            source
                .config_map_ref
                .iter()
                .map(|map| (ReferenceKind::ConfigMap, map.name.clone())),
        );
        found.extend(
            source
                .secret_ref
                .iter()
                .map(|secret| (ReferenceKind::Secret, secret.name.clone())),
        );
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        found.extend(
            source
                .config_map_key_ref
                .iter()
                .map(|map| (ReferenceKind::ConfigMap, map.name.clone())),
        );
        found.extend(
            source
                .secret_key_ref
                .iter()
                .map(|secret| (ReferenceKind::Secret, secret.name.clone())),
        );
    }
}

fn collect_volumes(spec: &PodSpec, found: &mut BTreeSet<(ReferenceKind, String)>) {
    for volume in spec.volumes.iter().flatten() {
        found.extend(
            volume
                .config_map
                .iter()
                .map(|map| (ReferenceKind::ConfigMap, map.name.clone())),
        );
        found.extend(
            volume
                .secret
                .iter()
                .filter_map(|secret| Some((ReferenceKind::Secret, secret.secret_name.clone()?))),
        );
        let projected = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        for source in projected {
            found.extend(
                source
                    .config_map
                    .iter()
                    .map(|map| (ReferenceKind::ConfigMap, map.name.clone())),
            );
            found.extend(
                source
                    .secret
                    .iter()
                    .map(|secret| (ReferenceKind::Secret, secret.name.clone())),
            );
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|node| !node.is_empty())
}

fn place_of(pod: &Pod) -> PodPlace {
    let meta = &pod.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Whether nothing changed that the agent did not report itself.
fn is_only_status(old: &Pod, new: &Pod) -> bool {
    let (old_meta, new_meta) = (&old.metadata, &new.metadata);
    old.spec == new.spec
        && old_meta.uid == new_meta.uid
        && old_meta.labels == new_meta.labels
        && old_meta.annotations == new_meta.annotations
        && old_meta.deletion_timestamp == new_meta.deletion_timestamp
        && old_meta.deletion_grace_period_seconds == new_meta.deletion_grace_period_seconds
}

fn route(node: &Node) -> Option<NodeRoute> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let address = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    Some(NodeRoute {
        node_name: node.metadata.name.clone()?,
        pod_cidr: node.spec.as_ref()?.pod_cidr.clone()?,
        address: address.address.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_a_pod_may_name_them() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{
                    "name": "c",
                    "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
                    "env": [
                        {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}},
                    ],
                }],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "e"}}]}],
                "volumes": [
                    {"name": "v", "secret": {"secretName": "f"}},
                    {"name": "w", "projected": {"sources": [{"configMap": {"name": "g"}}]}},
                ],
                "imagePullSecrets": [{"name": "h"}],
            },
        }))
        .unwrap();
        let found: Vec<String> = references(&pod)
            .into_iter()
            .map(|(kind, name)| format!("{}/{name}", kind.as_str()))
            .collect();
        assert_eq!(
            found.join(" "),
            "ConfigMap/a ConfigMap/c ConfigMap/g Secret/b Secret/d Secret/e Secret/f Secret/h"
        );
    }
}
