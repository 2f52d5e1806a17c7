//! Rolls Deployments out: one ReplicaSet per revision of the template.
//!
//! Never touches pods; that is the ReplicaSets' business.

mod annotations;
mod plan;
mod scale;
mod size;
mod status;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use flotilla_api::{Reason, Status, controller_of};
use flotilla_resources::{CacheEvent, DeleteOptions, EventType};
use flotilla_store::Revision;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{self, Context, later, revision_of, revision_of_deletion, settle, unless_gone};
use crate::labels::{self, controller_ref};
use crate::ownership;
use crate::pods;
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};
use plan::{Observed, Plan, Step};

const COMPONENT: &str = "deployment-controller";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    let feed = queue.clone();
    ctx.deployments
        .subscribe(move |event| feed.add(ObjectKey::of(&**event.object())));
    let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
    ctx.replica_sets.subscribe(move |event| {
        let Some(ctx) = known.upgrade() else { return };
        concerned(&ctx, event).into_iter().for_each(|key| feed.add(key));
    });
    let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
    ctx.pods.subscribe(move |event| {
        // Only `Recreate` waits for pods to be gone; everything else comes through the ReplicaSets' status.
        let Some(ctx) = known.upgrade() else { return };
        recreating(&ctx, event).into_iter().for_each(|key| feed.add(key));
    });
    runner.start(DeploymentController { ctx: Arc::clone(ctx) }, queue);
}

fn concerned(ctx: &Context, event: &CacheEvent<ReplicaSet>) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    let mut note = |set: &ReplicaSet| match controller_of(&set.metadata) {
        Some(owner) => {
            let namespace = set.metadata.namespace.clone().unwrap_or_default();
            keys.push(ObjectKey {
                namespace,
                name: owner.name.clone(),
            });
        }
        None => {
            let all = ctx.deployments.list(set.metadata.namespace.as_deref());
            let fitting = all.iter().filter(|deployment| selects(deployment, &set.metadata));
            keys.extend(fitting.map(|deployment| ObjectKey::of(&**deployment)));
        }
    };
    note(event.object());
    if let CacheEvent::Modified { old, new } = event
        && old.metadata.owner_references != new.metadata.owner_references
    {
        note(old);
    }
    keys
}

fn recreating(ctx: &Context, event: &CacheEvent<Pod>) -> Option<ObjectKey> {
    let pod = event.object();
    if !matches!(event, CacheEvent::Deleted(_)) && !pods::is_finished(pod) {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref()?;
    let set = ctx
        .replica_sets
        .get(namespace, &controller_of(&pod.metadata)?.name)?;
    let deployment = ctx
        .deployments
        .get(namespace, &controller_of(&set.metadata)?.name)?;
    size::is_recreate(&deployment).then(|| ObjectKey::of(&*deployment))
}

fn selects(deployment: &Deployment, meta: &ObjectMeta) -> bool {
    let selector = labels::selector(deployment.spec.as_ref().map(|spec| &spec.selector));
    selector.matches_optional(meta.labels.as_ref())
}

struct DeploymentController {
    ctx: Arc<Context>,
}

impl Reconcile for DeploymentController {
    type Key = ObjectKey;
    const NAME: &'static str = COMPONENT;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(deployment) = self.ctx.deployments.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        let sets = self.claim(&deployment).await?;
        let old_pods_run = size::is_recreate(&deployment) && self.old_pods_run(&deployment, &sets);
        let now = context::stamp(context::now());
        let plan = plan::plan(Observed {
            deployment: &deployment,
            sets,
            old_pods_run,
            now,
        });
        self.carry_out(&deployment, &plan).await?;
        self.publish(&deployment, &plan).await?;
        Ok(plan.recheck.map_or(Next::Wait, Next::RecheckAfter))
    }
}

impl DeploymentController {
    /// Adopts and lets go. The sets that the Deployment controls afterwards.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, ReconcileError> {
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        let (mut owned, mut written) = (Vec::new(), Revision(0));
        for set in self
            .ctx
            .replica_sets
            .list(deployment.metadata.namespace.as_deref())
        {
            let matches = selects(deployment, &set.metadata);
            let owner = controller_of(&set.metadata).map(|owner| owner.uid.as_str());
            let change = match owner {
                Some(owner) if owner != uid => continue,
                None if !matches || deleting || set.metadata.deletion_timestamp.is_some() => continue,
                Some(_) if matches || deleting => {
                    owned.push((*set).clone());
                    continue;
                }
                Some(_) => ownership::release(&self.ctx.resources, &*set, uid).await?,
                None => self.adopt(deployment, &set).await?,
            };
            if let Some(changed) = change {
                later(&mut written, revision_of(&changed));
                if owner.is_none() {
                    owned.push(changed);
                }
            }
        }
        settle(&self.ctx.replica_sets, written).await?;
        Ok(owned)
    }

    async fn adopt(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<Option<ReplicaSet>, Status> {
        let resources = &self.ctx.resources;
        if !ownership::still_exists(resources, deployment).await? {
            return Ok(None);
        }
        let owner = controller_ref("apps/v1", "Deployment", &deployment.metadata);
        ownership::adopt(resources, set, &owner).await
    }

    /// Whether pods of other revisions than the current one are still there.
    fn old_pods_run(&self, deployment: &Deployment, sets: &[ReplicaSet]) -> bool {
        let old = sets
            .iter()
            .filter(|set| !template::is_of_template(set, deployment));
        let old: Vec<&str> = old.filter_map(|set| set.metadata.uid.as_deref()).collect();
        let of_old = |pod: &Pod| {
            let owner = controller_of(&pod.metadata);
            owner.is_some_and(|owner| old.contains(&owner.uid.as_str())) && !pods::is_finished(pod)
        };
        let pods = self.ctx.pods.list(deployment.metadata.namespace.as_deref());
        pods.iter().any(|pod| of_old(pod))
    }

    async fn carry_out(&self, deployment: &Deployment, plan: &Plan) -> Result<(), ReconcileError> {
        let mut written = Revision(0);
        for step in &plan.steps {
            let revision = match step {
                Step::Create(set) => self.create(deployment, plan, set).await?,
                Step::Update { set, from } => self.update(deployment, set, *from).await?,
                Step::Delete(set) => self.delete(set).await?,
            };
            later(&mut written, revision);
        }
        settle(&self.ctx.replica_sets, written).await
    }

    async fn create(
        &self,
        deployment: &Deployment,
        plan: &Plan,
        set: &ReplicaSet,
    ) -> Result<Revision, ReconcileError> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match self.ctx.resources.create_typed(set.clone()).await {
            Ok(created) => {
                let to = size::wanted(&created);
                if to > 0 {
                    self.event(
                        deployment,
                        "ScalingReplicaSet",
                        format!("Scaled up replica set {name} from 0 to {to}"),
                    );
                }
                Ok(revision_of(&created))
            }
            Err(status) if status.reason == Reason::AlreadyExists => {
                self.resolve_collision(deployment, set, status).await
            }
            Err(status) => {
                self.tell_failure(deployment, plan, name, &status).await?;
                Err(status.into())
            }
        }
    }

    /// The name is taken: by our own set that the cache does not show yet, or by another's, then the next name
    /// is made from another hash.
    async fn resolve_collision(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        status: Status,
    ) -> Result<Revision, ReconcileError> {
        let key = ObjectKey::of(set);
        let found = self
            .ctx
            .resources
            .get_typed::<ReplicaSet>(&key.namespace, &key.name)
            .await?;
        let owner = controller_of(&found.metadata).map(|owner| owner.uid.as_str());
        if owner == deployment.metadata.uid.as_deref() && template::is_of_template(&found, deployment) {
            return Ok(revision_of(&found));
        }
        let mut told = deployment.clone();
        let count = &mut told.status.get_or_insert_default().collision_count;
        *count = Some(count.unwrap_or(0) + 1);
        let written = self.ctx.resources.update_status_typed(told).await?;
        settle(&self.ctx.deployments, revision_of(&written)).await?;
        Err(status.into())
    }

    async fn tell_failure(
        &self,
        deployment: &Deployment,
        plan: &Plan,
        name: &str,
        status: &Status,
    ) -> Result<(), ReconcileError> {
        let message = format!("Failed to create new replica set {name:?}: {status}");
        let mut told = deployment.clone();
        let mut now = deployment.status.clone().unwrap_or_default();
        now.observed_generation = plan.status.observed_generation;
        let at = context::stamp(context::now());
        status::set_condition(
            &mut now,
            status::PROGRESSING,
            "False",
            "FailedCreate",
            &message,
            at,
        );
        if Some(&now) != told.status.as_ref() {
            told.status = Some(now);
            let written = self.ctx.resources.update_status_typed(told).await?;
            settle(&self.ctx.deployments, revision_of(&written)).await?;
        }
        Ok(())
    }

    async fn update(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        from: i32,
    ) -> Result<Revision, ReconcileError> {
        let updated = self.ctx.resources.update_typed(set.clone()).await?;
        let to = size::wanted(set);
        if to != from {
            let direction = if to > from { "up" } else { "down" };
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.event(deployment, "ScalingReplicaSet", message);
        }
        Ok(revision_of(&updated))
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<Revision, ReconcileError> {
        let key = ObjectKey::of(set);
        let options = DeleteOptions {
            uid: set.metadata.uid.clone(),
            resource_version: set.metadata.resource_version.clone(),
            ..DeleteOptions::default()
        };
        let outcome = self
            .ctx
            .resources
            .delete_typed::<ReplicaSet>(&key.namespace, &key.name, &options)
            .await;
        let deleted = unless_gone(outcome)?;
        Ok(deleted.as_ref().map_or(Revision(0), revision_of_deletion))
    }

    /// Writes the revision and the status, where they are news.
    async fn publish(&self, deployment: &Deployment, plan: &Plan) -> Result<(), ReconcileError> {
        let key = ObjectKey::of(deployment);
        let mut written = Revision(0);
        let mut told = deployment.clone();
        if let Some(revision) = &plan.revision {
            annotations::set(&mut told.metadata, annotations::REVISION, revision);
            let Some(updated) = unless_gone(self.ctx.resources.update_typed(told).await)? else {
                return Ok(());
            };
            later(&mut written, revision_of(&updated));
            told = updated;
        }
        if !same_status(deployment.status.as_ref(), &plan.status) {
            told.status = Some(plan.status.clone());
            let outcome = unless_gone(self.ctx.resources.update_status_typed(told).await)?;
            later(&mut written, outcome.as_ref().map_or(Revision(0), revision_of));
        }
        tracing::debug!(object = %key, revision = written.0, "a deployment was brought on");
        settle(&self.ctx.deployments, written).await
    }

    fn event(&self, deployment: &Deployment, reason: &str, message: String) {
        self.ctx
            .event(COMPONENT, deployment, EventType::Normal, reason, message);
    }
}

fn same_status(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    match old {
        Some(old) => old == new,
        None => *new == DeploymentStatus::default(),
    }
}
