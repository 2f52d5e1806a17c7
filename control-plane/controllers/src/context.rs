//! What the shells of all controllers share: the write path, the caches and the clock.
//!
//! *Guarantees*: a reconcile that used [`settle`] after its writes ends only when the cache shows them. As one key is
//! never reconciled twice at once, the next reconcile of that key sees what the last one did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_api::{Status, registry};
use flotilla_resources::{Cache, EventRecord, EventType, Resources, TypedObject};
use flotilla_store::{Revision, Stored};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, ObjectReference, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::runner::ReconcileError;
use crate::{NodeLiveness, Options};

/// A cache is behind by milliseconds; when it takes this long something is wrong and the key comes again.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Everything that a controller may use, for the time in which this replica leads.
pub(crate) struct Context {
    /// The write path; refused once another replica leads.
    pub(crate) resources: Resources,
    /// The term in which this replica leads.
    pub(crate) term: u64,
    /// Settings.
    pub(crate) options: Options,
    /// Which nodes are heard.
    pub(crate) liveness: Arc<dyn NodeLiveness>,
    /// When this replica began to lead; nodes are given their grace from then on.
    pub(crate) leading_since: Instant,
    pub(crate) pods: Cache<Pod>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) replication_controllers: Cache<ReplicationController>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) stateful_sets: Cache<StatefulSet>,
    pub(crate) revisions: Cache<ControllerRevision>,
    /// Nothing while there is no such kind.
    pub(crate) claims: Option<Cache<PersistentVolumeClaim>>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) services: Cache<Service>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) endpoint_slices: Cache<EndpointSlice>,
}

impl Context {
    /// Starts the caches and waits until they are filled.
    pub(crate) async fn start(
        resources: &Resources,
        term: u64,
        options: Options,
        liveness: Arc<dyn NodeLiveness>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Context {
        let replica = resources.replica().clone();
        let context = Context {
            resources: resources.fenced(term),
            term,
            options,
            liveness,
            leading_since: Instant::now(),
            pods: Cache::start(&replica, tracker, shutdown),
            replica_sets: Cache::start(&replica, tracker, shutdown),
            replication_controllers: Cache::start(&replica, tracker, shutdown),
            deployments: Cache::start(&replica, tracker, shutdown),
            stateful_sets: Cache::start(&replica, tracker, shutdown),
            revisions: Cache::start(&replica, tracker, shutdown),
            claims: registry()
                .by_kind("", "v1", "PersistentVolumeClaim")
                .map(|_| Cache::start(&replica, tracker, shutdown)),
            nodes: Cache::start(&replica, tracker, shutdown),
            namespaces: Cache::start(&replica, tracker, shutdown),
            services: Cache::start(&replica, tracker, shutdown),
            endpoints: Cache::start(&replica, tracker, shutdown),
            endpoint_slices: Cache::start(&replica, tracker, shutdown),
        };
        context.pods.synced().await;
        context.replica_sets.synced().await;
        context.replication_controllers.synced().await;
        context.deployments.synced().await;
        context.stateful_sets.synced().await;
        context.revisions.synced().await;
        if let Some(claims) = &context.claims {
            claims.synced().await;
        }
        context.nodes.synced().await;
        context.namespaces.synced().await;
        context.services.synced().await;
        context.endpoints.synced().await;
        context.endpoint_slices.synced().await;
        context
    }

    /// Takes down an event about an object.
    pub(crate) fn event<T: TypedObject>(
        &self,
        component: &str,
        object: &T,
        type_: EventType,
        reason: &str,
        message: String,
    ) {
        self.resources.record_event(EventRecord {
            regarding: reference(object),
            type_,
            reason: reason.to_owned(),
            message,
            component: component.to_owned(),
            host: None,
        });
    }
}

/// Waits until the cache has seen a write of ours.
pub(crate) async fn settle<T: TypedObject>(
    cache: &Cache<T>,
    written: Revision,
) -> Result<(), ReconcileError> {
    let mut reached = cache.revision();
    let caught_up = reached.wait_for(|reached| reached.is_some_and(|reached| reached >= written));
    match tokio::time::timeout(SETTLE_LIMIT, caught_up).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ReconcileError::Behind(written)),
    }
}

/// The revision of an object as it was answered by a write.
pub(crate) fn revision_of<T: TypedObject>(object: &T) -> Revision {
    let version = object.metadata().resource_version.as_deref();
    Revision(version.and_then(|version| version.parse().ok()).unwrap_or(0))
}

/// The revision that a deletion, or the mark for one, was given.
pub(crate) fn revision_of_deletion(deleted: &flotilla_resources::Deleted) -> Revision {
    let stored: &Stored = match deleted {
        flotilla_resources::Deleted::Gone(stored) | flotilla_resources::Deleted::Pending(stored) => stored,
    };
    stored.modified
}

/// Keeps the later of two revisions.
pub(crate) fn later(written: &mut Revision, revision: Revision) {
    *written = (*written).max(revision);
}

/// Turns "it is gone" into nothing: what was to be done needs no doing.
pub(crate) fn unless_gone<T>(outcome: Result<T, Status>) -> Result<Option<T>, Status> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.reason == flotilla_api::Reason::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// How an event names its object.
pub(crate) fn reference<T: TypedObject>(object: &T) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(T::API_VERSION.to_owned()),
        kind: Some(T::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The time.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// The time as objects carry it: whole seconds.
pub(crate) fn stamp(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
