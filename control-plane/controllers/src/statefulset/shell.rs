//! Reads the world of one StatefulSet, asks for the plan and carries it out.

use std::sync::Arc;

use flotilla_api::{Reason, Status, controller_of};
use flotilla_resources::{Cache, DeleteOptions, EventType, TypedObject};
use flotilla_store::Revision;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::claims::Claims;
use super::plan::{self, Observed, Revisions, Step, Why};
use super::revisions::{self, Change, History};
use super::{identity, is_member, selects, status};
use crate::context::{self, Context, later, revision_of, revision_of_deletion, settle, unless_gone};
use crate::labels::controller_ref;
use crate::ownership;
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

const COMPONENT: &str = "statefulset-controller";
/// So many pods of a set with the policy `Parallel` are made or deleted at once; each waits for the log most of its
/// time.
const STEPS_AT_ONCE: usize = 16;

/// The controller of StatefulSets.
pub(super) struct StatefulSetController {
    ctx: Arc<Context>,
}

/// How far the caches must have come to show what was written.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    pods: Revision,
    claims: Revision,
}

impl Reconcile for StatefulSetController {
    type Key = ObjectKey;
    const NAME: &'static str = COMPONENT;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(set) = self.ctx.stateful_sets.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        let pods = self
            .claim(&set, &self.ctx.pods, |pod| is_member(&set, pod))
            .await?;
        let known = self
            .claim(&set, &self.ctx.revisions, |revision| {
                selects(&set, &revision.metadata)
            })
            .await?;
        let (history, known) = self.bring_history(&set, known).await?;
        let outcome = self.carry_out(&set, &pods, &history).await;
        let recheck = self.publish(&set, &history).await?;
        self.forget(&set, &known, &history, &pods).await?;
        outcome?;
        Ok(recheck.map_or(Next::Wait, Next::RecheckAfter))
    }
}

impl StatefulSetController {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self { ctx }
    }

    /// Adopts what fits and has no controller, lets go of what no longer fits. What the set controls afterwards.
    async fn claim<T: TypedObject>(
        &self,
        set: &StatefulSet,
        cache: &Cache<T>,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Vec<Arc<T>>, ReconcileError> {
        let resources = &self.ctx.resources;
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let deleting = set.metadata.deletion_timestamp.is_some();
        let owner = controller_ref("apps/v1", "StatefulSet", &set.metadata);
        let (mut owned, mut written) = (Vec::new(), Revision(0));
        for object in cache.list(set.metadata.namespace.as_deref()) {
            let fits = fits(&object);
            let leaving = object.metadata().deletion_timestamp.is_some();
            match controller_of(object.metadata()) {
                Some(found) if found.uid != uid => {}
                Some(_) if fits || deleting => owned.push(object),
                Some(_) => {
                    let released = ownership::release(resources, &*object, uid).await?;
                    later(&mut written, released.as_ref().map_or(Revision(0), revision_of));
                }
                None if fits && !deleting && !leaving => {
                    if !ownership::still_exists(resources, set).await? {
                        continue;
                    }
                    if let Some(adopted) = ownership::adopt(resources, &*object, &owner).await? {
                        later(&mut written, revision_of(&adopted));
                        owned.push(Arc::new(adopted));
                    }
                }
                None => {}
            }
        }
        settle(cache, written).await?;
        Ok(owned)
    }

    /// Writes down the revision of the template, if it is new or wanted again. The history and all revisions.
    async fn bring_history(
        &self,
        set: &StatefulSet,
        mut known: Vec<Arc<ControllerRevision>>,
    ) -> Result<(History, Vec<Arc<ControllerRevision>>), ReconcileError> {
        revisions::sort(&mut known);
        let mut history = revisions::history(set, &known);
        if set.metadata.deletion_timestamp.is_some() {
            return Ok((history, known));
        }
        let update = history.update.clone();
        let written = match history.change {
            Change::None => return Ok((history, known)),
            Change::Create => match self.ctx.resources.create_typed(update).await {
                Ok(created) => created,
                Err(status) if status.reason == Reason::AlreadyExists => {
                    self.resolve_collision(set, &history.update, status).await?
                }
                Err(status) => return Err(status.into()),
            },
            Change::Renumber => self.ctx.resources.update_typed(update).await?,
        };
        settle(&self.ctx.revisions, revision_of(&written)).await?;
        if history.current.metadata.name == history.update.metadata.name {
            history.current = written.clone();
        }
        history.update = written.clone();
        known.retain(|revision| revision.metadata.name != written.metadata.name);
        known.push(Arc::new(written));
        Ok((history, known))
    }

    /// The name is taken: by our own revision that the cache does not show yet, or by another's, then the next name is
    /// made from another hash.
    async fn resolve_collision(
        &self,
        set: &StatefulSet,
        wanted: &ControllerRevision,
        status: Status,
    ) -> Result<ControllerRevision, ReconcileError> {
        let key = ObjectKey::of(wanted);
        let found = self
            .ctx
            .resources
            .get_typed::<ControllerRevision>(&key.namespace, &key.name)
            .await?;
        let owner = controller_of(&found.metadata).map(|owner| owner.uid.as_str());
        if owner == set.metadata.uid.as_deref() && found.data == wanted.data {
            return Ok(found);
        }
        let mut told = set.clone();
        let count = &mut told.status.get_or_insert_default().collision_count;
        *count = Some(count.unwrap_or(0) + 1);
        let written = self.ctx.resources.update_status_typed(told).await?;
        settle(&self.ctx.stateful_sets, revision_of(&written)).await?;
        Err(status.into())
    }

    /// Does what the plan says, and waits until the caches show it.
    async fn carry_out(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        history: &History,
    ) -> Result<(), ReconcileError> {
        let namespace = set.metadata.namespace.as_deref();
        let claims = match &self.ctx.claims {
            Some(claims) if !identity::claim_templates(set).is_empty() => claims.list(namespace),
            _ => Vec::new(),
        };
        let current = revisions::template(&history.current).unwrap_or_else(|| identity::spec(set).template);
        let steps = plan::plan(&Observed {
            set,
            pods,
            claims: Claims::new(&claims),
            revisions: names(history),
            current: &current,
            now: context::now(),
        });
        let outcomes: Vec<Result<Written, ReconcileError>> = stream::iter(steps)
            .map(|step| self.perform(set, step))
            .buffered(STEPS_AT_ONCE)
            .collect()
            .await;
        let (mut written, mut failed) = (Written::default(), None);
        for outcome in outcomes {
            match outcome {
                Ok(one) => {
                    later(&mut written.pods, one.pods);
                    later(&mut written.claims, one.claims);
                }
                Err(error) => failed = Some(error),
            }
        }
        settle(&self.ctx.pods, written.pods).await?;
        if let Some(claims) = &self.ctx.claims {
            settle(claims, written.claims).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    async fn perform(&self, set: &StatefulSet, step: Step) -> Result<Written, ReconcileError> {
        let mut written = Written::default();
        match step {
            Step::Create { pod, claims } => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                written.claims = self.create_claims(set, &name, claims).await?;
                written.pods = self.create_pod(set, &name, *pod).await?;
            }
            Step::CreateClaims { pod, claims } => {
                written.claims = self.create_claims(set, &pod, claims).await?;
            }
            Step::Correct(pod, ordinal) => {
                let change = |found: &mut Pod| identity::correct(found, ordinal);
                let changed = ownership::modify_same(&self.ctx.resources, &*pod, change).await?;
                written.pods = changed.as_ref().map_or(Revision(0), revision_of);
            }
            Step::Own(claim) => {
                let owners = claim.metadata.owner_references.clone();
                let change = |found: &mut PersistentVolumeClaim| {
                    std::mem::replace(&mut found.metadata.owner_references, owners.clone()) != owners
                };
                let changed = ownership::modify_same(&self.ctx.resources, &*claim, change).await?;
                written.claims = changed.as_ref().map_or(Revision(0), revision_of);
            }
            Step::Delete(pod, why) => written.pods = self.delete(set, &pod, why).await?,
        }
        Ok(written)
    }

    async fn create_claims(
        &self,
        set: &StatefulSet,
        pod: &str,
        claims: Vec<PersistentVolumeClaim>,
    ) -> Result<Revision, ReconcileError> {
        let mut written = Revision(0);
        if self.ctx.claims.is_none() && !claims.is_empty() {
            let why = "this version has no PersistentVolumeClaims";
            let message = format!(
                "create Pod {pod} in StatefulSet {} failed error: {why}",
                identity::name(set)
            );
            self.event(set, EventType::Warning, "FailedCreate", message);
            return Err(Status::internal(why).into());
        }
        for claim in claims {
            let name = claim.metadata.name.clone().unwrap_or_default();
            let subject = format!(
                "create Claim {name} Pod {pod} in StatefulSet {}",
                identity::name(set)
            );
            match self.ctx.resources.create_typed(claim).await {
                Ok(created) => {
                    later(&mut written, revision_of(&created));
                    self.event(
                        set,
                        EventType::Normal,
                        "SuccessfulCreate",
                        format!("{subject} success"),
                    );
                }
                // The cache lags behind; the next look shows whose it is.
                Err(status) if status.reason == Reason::AlreadyExists => {}
                Err(status) => {
                    let message = format!("{subject} failed error: {status}");
                    self.event(set, EventType::Warning, "FailedCreate", message);
                    return Err(status.into());
                }
            }
        }
        Ok(written)
    }

    async fn create_pod(&self, set: &StatefulSet, name: &str, pod: Pod) -> Result<Revision, ReconcileError> {
        let subject = format!("create Pod {name} in StatefulSet {}", identity::name(set));
        match self.ctx.resources.create_typed(pod).await {
            Ok(created) => {
                let message = format!("{subject} successful");
                self.event(set, EventType::Normal, "SuccessfulCreate", message);
                Ok(revision_of(&created))
            }
            Err(status) => {
                // Two refusals are no news: a namespace on its way out, and a pod of this name that just goes.
                if !matches!(status.reason, Reason::Forbidden | Reason::AlreadyExists) {
                    let message = format!("{subject} failed error: {status}");
                    self.event(set, EventType::Warning, "FailedCreate", message);
                }
                Err(status.into())
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod, why: Why) -> Result<Revision, ReconcileError> {
        let key = ObjectKey::of(pod);
        let of_set = format!("StatefulSet {}/{}", key.namespace, identity::name(set));
        match why {
            Why::Failed => {
                let message = format!("{of_set} is recreating failed Pod {}", key.name);
                self.event(set, EventType::Warning, "RecreatingFailedPod", message);
            }
            Why::Succeeded => {
                let message = format!("{of_set} is recreating terminated Pod {}", key.name);
                self.event(set, EventType::Normal, "RecreatingTerminatedPod", message);
            }
            Why::Condemned | Why::Outdated => {}
        }
        let options = DeleteOptions {
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        let resources = &self.ctx.resources;
        let outcome = resources
            .delete_typed::<Pod>(&key.namespace, &key.name, &options)
            .await;
        let subject = format!("delete Pod {} in StatefulSet {}", key.name, identity::name(set));
        match unless_gone(outcome) {
            Ok(deleted) => {
                let message = format!("{subject} successful");
                self.event(set, EventType::Normal, "SuccessfulDelete", message);
                Ok(deleted.as_ref().map_or(Revision(0), revision_of_deletion))
            }
            Err(status) => {
                let message = format!("{subject} failed error: {status}");
                self.event(set, EventType::Warning, "FailedDelete", message);
                Err(status.into())
            }
        }
    }

    /// Writes the status if it is news, and tells after which time it changes by itself.
    async fn publish(
        &self,
        set: &StatefulSet,
        history: &History,
    ) -> Result<Option<std::time::Duration>, ReconcileError> {
        let uid = set.metadata.uid.as_deref();
        let mut pods = self.ctx.pods.list(set.metadata.namespace.as_deref());
        pods.retain(|pod| controller_of(&pod.metadata).map(|owner| owner.uid.as_str()) == uid);
        let (status, recheck) = status::observe(set, &pods, names(history), context::now());
        if set.status.as_ref() != Some(&status) {
            let mut told = set.clone();
            told.status = Some(status);
            let outcome = self.ctx.resources.update_status_typed(told).await;
            let written = unless_gone(outcome)?;
            settle(
                &self.ctx.stateful_sets,
                written.as_ref().map_or(Revision(0), revision_of),
            )
            .await?;
        }
        Ok(recheck)
    }

    /// Removes revisions beyond the limit.
    async fn forget(
        &self,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
        history: &History,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let mut written = Revision(0);
        for revision in revisions::surplus(set, known, history, pods) {
            let key = ObjectKey::of(&*revision);
            let options = DeleteOptions {
                uid: revision.metadata.uid.clone(),
                ..DeleteOptions::default()
            };
            let resources = &self.ctx.resources;
            let outcome = resources
                .delete_typed::<ControllerRevision>(&key.namespace, &key.name, &options)
                .await;
            let deleted = unless_gone(outcome)?;
            later(
                &mut written,
                deleted.as_ref().map_or(Revision(0), revision_of_deletion),
            );
        }
        settle(&self.ctx.revisions, written).await
    }

    fn event(&self, set: &StatefulSet, type_: EventType, reason: &str, message: String) {
        self.ctx.event(COMPONENT, set, type_, reason, message);
    }
}

fn names(history: &History) -> Revisions<'_> {
    Revisions {
        current: history.current.metadata.name.as_deref().unwrap_or_default(),
        update: history.update.metadata.name.as_deref().unwrap_or_default(),
    }
}
