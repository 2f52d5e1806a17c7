//! Keeps the wanted number of pods alive for ReplicaSets and ReplicationControllers.
//!
//! One implementation serves both kinds. Never touches a pod that another object controls.

mod kinds;
mod plan;
mod rank;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use flotilla_api::{Reason, Status, controller_of};
use flotilla_resources::{Cache, CacheEvent, DeleteOptions, EventType};
use flotilla_store::Revision;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{self, Context, later, revision_of, revision_of_deletion, settle, unless_gone};
use crate::labels::controller_ref;
use crate::ownership;
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};
use kinds::Replicated;
use plan::{Step, claim};
use status::Failure;

/// So many pods are made at once at first; if that goes well, twice as many the next time, and so on. A set whose
/// pods are refused thus does not flood the log.
const FIRST_BATCH: usize = 16;

/// Starts the controllers of both kinds.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    start_kind::<ReplicaSet>(ctx, runner, ctx.replica_sets.clone());
    start_kind::<ReplicationController>(ctx, runner, ctx.replication_controllers.clone());
}

fn start_kind<S: Replicated>(ctx: &Arc<Context>, runner: &Runner, sets: Cache<S>) {
    let queue = Queue::new();
    let feed = queue.clone();
    sets.subscribe(move |event| feed.add(ObjectKey::of(&**event.object())));
    let (feed, known) = (queue.clone(), sets.clone());
    ctx.pods.subscribe(move |event| {
        concerned(&known, event).into_iter().for_each(|key| feed.add(key));
    });
    runner.start(
        SetController {
            ctx: Arc::clone(ctx),
            sets,
        },
        queue,
    );
}

/// Which sets a change of a pod is about: its owner now and before, and those that could adopt it.
fn concerned<S: Replicated>(sets: &Cache<S>, event: &CacheEvent<Pod>) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    let mut note = |pod: &Pod| match controller_of(&pod.metadata) {
        Some(owner) if owner.kind == S::KIND => {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            keys.push(ObjectKey {
                namespace,
                name: owner.name.clone(),
            });
        }
        Some(_) => {}
        None => {
            let sets = sets.list(pod.metadata.namespace.as_deref());
            let fitting = sets
                .iter()
                .filter(|set| set.view().selector.matches_optional(pod.metadata.labels.as_ref()));
            keys.extend(fitting.map(|set| ObjectKey::of(&**set)));
        }
    };
    note(event.object());
    if let CacheEvent::Modified { old, new } = event
        && (old.metadata.owner_references != new.metadata.owner_references
            || old.metadata.labels != new.metadata.labels)
    {
        note(old);
    }
    keys
}

struct SetController<S> {
    ctx: Arc<Context>,
    sets: Cache<S>,
}

impl<S: Replicated> Reconcile for SetController<S> {
    type Key = ObjectKey;
    const NAME: &'static str = S::COMPONENT;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        let pods = self.ctx.pods.list(Some(&key.namespace));
        let owned = self.settle_ownership(&set, &pods).await?;
        let failed = match self.carry_out(&set, &owned, &pods).await {
            Ok(()) => None,
            Err(Stopped::Refused(failure, status)) => Some((failure, status)),
            Err(Stopped::Behind(error)) => return Err(error),
        };
        let recheck = self
            .publish_status(&set, failed.as_ref().map(|(failure, _)| failure))
            .await?;
        match failed {
            Some((_, status)) => Err(status.into()),
            None => Ok(recheck.map_or(Next::Wait, Next::RecheckAfter)),
        }
    }
}

/// Why a set could not be brought to its size.
enum Stopped {
    Refused(Failure, Status),
    Behind(ReconcileError),
}

impl<S: Replicated> SetController<S> {
    /// Adopts and lets go. The pods that the set controls afterwards.
    async fn settle_ownership(&self, set: &S, pods: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let claim = claim(&set.view(), pods);
        let mut owned = claim.owned;
        let mut written = Revision(0);
        let resources = &self.ctx.resources;
        if !claim.adopt.is_empty() && ownership::still_exists(resources, set).await? {
            let owner = controller_ref(S::API_VERSION, S::KIND, set.metadata());
            for pod in &claim.adopt {
                if let Some(adopted) = ownership::adopt(resources, &**pod, &owner).await? {
                    later(&mut written, revision_of(&adopted));
                    owned.push(Arc::new(adopted));
                }
            }
        }
        let uid = set.metadata().uid.as_deref().unwrap_or_default();
        for pod in &claim.release {
            if let Some(released) = ownership::release(resources, &**pod, uid).await? {
                later(&mut written, revision_of(&released));
            }
        }
        settle(&self.ctx.pods, written).await?;
        Ok(owned)
    }

    /// Makes or deletes what the plan says, and waits until the cache shows it.
    async fn carry_out(&self, set: &S, owned: &[Arc<Pod>], pods: &[Arc<Pod>]) -> Result<(), Stopped> {
        let related = self.related(set, pods);
        let mut written = Revision(0);
        let mut doomed = Vec::new();
        let mut failed = None;
        for step in plan::plan(&set.view(), owned, &related) {
            match step {
                Step::Create(count) => failed = self.create(set, count, &mut written).await,
                Step::Delete(pod) => doomed.push(pod),
            }
        }
        if !doomed.is_empty() {
            failed = self.delete(set, &doomed, &mut written).await;
        }
        settle(&self.ctx.pods, written).await.map_err(Stopped::Behind)?;
        match failed {
            Some((failure, status)) => Err(Stopped::Refused(failure, status)),
            None => Ok(()),
        }
    }

    /// The pods of all sets with the same owner, by which the pods to delete are ranked.
    fn related(&self, set: &S, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let mine = controller_of(set.metadata()).map(|owner| owner.uid.as_str());
        let siblings = self.sets.list(set.metadata().namespace.as_deref());
        let is_sibling = |meta: &ObjectMeta| {
            meta.uid == set.metadata().uid
                || (mine.is_some() && controller_of(meta).map(|owner| owner.uid.as_str()) == mine)
        };
        let uids: Vec<&str> = siblings
            .iter()
            .filter(|sibling| is_sibling(sibling.metadata()))
            .filter_map(|sibling| sibling.metadata().uid.as_deref())
            .collect();
        let of_sibling = |pod: &&Arc<Pod>| {
            controller_of(&pod.metadata).is_some_and(|owner| uids.contains(&owner.uid.as_str()))
        };
        pods.iter().filter(of_sibling).cloned().collect()
    }

    async fn create(&self, set: &S, count: usize, written: &mut Revision) -> Option<(Failure, Status)> {
        let (mut left, mut batch) = (count, FIRST_BATCH);
        while left > 0 {
            let now = batch.min(left);
            let pods = (0..now).map(|_| self.ctx.resources.create_typed(new_pod(set)));
            let mut refused = None;
            for outcome in join_all(pods).await {
                match outcome {
                    Ok(pod) => {
                        later(written, revision_of(&pod));
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        self.event(
                            set,
                            EventType::Normal,
                            "SuccessfulCreate",
                            format!("Created pod: {name}"),
                        );
                    }
                    Err(status) => refused = Some(status),
                }
            }
            if let Some(status) = refused {
                // A namespace on its way out refuses new pods; that is no news for anybody.
                if status.reason != Reason::Forbidden {
                    self.event(
                        set,
                        EventType::Warning,
                        "FailedCreate",
                        format!("Error creating: {status}"),
                    );
                }
                return Some((
                    Failure {
                        reason: "FailedCreate",
                        message: status.to_string(),
                    },
                    status,
                ));
            }
            left -= now;
            batch *= 2;
        }
        None
    }

    async fn delete(
        &self,
        set: &S,
        doomed: &[Arc<Pod>],
        written: &mut Revision,
    ) -> Option<(Failure, Status)> {
        let deletions = doomed.iter().map(|pod| async move {
            let key = ObjectKey::of(&**pod);
            let options = DeleteOptions {
                uid: pod.metadata.uid.clone(),
                ..DeleteOptions::default()
            };
            let outcome = self
                .ctx
                .resources
                .delete_typed::<Pod>(&key.namespace, &key.name, &options)
                .await;
            (key.name, unless_gone(outcome))
        });
        let mut refused = None;
        for (name, outcome) in join_all(deletions).await {
            match outcome {
                Ok(Some(deleted)) => {
                    later(written, revision_of_deletion(&deleted));
                    self.event(
                        set,
                        EventType::Normal,
                        "SuccessfulDelete",
                        format!("Deleted pod: {name}"),
                    );
                }
                Ok(None) => {}
                Err(status) => {
                    self.event(
                        set,
                        EventType::Warning,
                        "FailedDelete",
                        format!("Error deleting: {status}"),
                    );
                    refused = Some((
                        Failure {
                            reason: "FailedDelete",
                            message: status.to_string(),
                        },
                        status,
                    ));
                }
            }
        }
        refused
    }

    /// Writes the status if it is news, and tells after which time it changes by itself.
    async fn publish_status(
        &self,
        set: &S,
        failure: Option<&Failure>,
    ) -> Result<Option<std::time::Duration>, ReconcileError> {
        let namespace = set.metadata().namespace.as_deref().unwrap_or_default();
        let view = set.view();
        let owned = claim(&view, &self.ctx.pods.list(Some(namespace))).owned;
        let (now, previous) = (context::now(), set.status());
        let (status, recheck) = status::observe(&view, &previous, &owned, failure, now);
        let mut told = set.clone();
        told.set_status(status);
        if told.status() != previous {
            let outcome = self.ctx.resources.update_status_typed(told).await;
            if let Some(written) = unless_gone(outcome)? {
                settle(&self.sets, revision_of(&written)).await?;
            }
        }
        Ok(recheck)
    }

    fn event(&self, set: &S, type_: EventType, reason: &str, message: String) {
        self.ctx.event(S::COMPONENT, set, type_, reason, message);
    }
}

/// A pod as the set's template describes it.
fn new_pod<S: Replicated>(set: &S) -> Pod {
    let template = set.view().template.cloned().unwrap_or_default();
    let described = template.metadata.unwrap_or_default();
    let name = set.metadata().name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: set.metadata().namespace.clone(),
            labels: described.labels,
            annotations: described.annotations,
            finalizers: described.finalizers,
            owner_references: Some(vec![controller_ref(S::API_VERSION, S::KIND, set.metadata())]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
