//! Keeps the pods of StatefulSets: each with an ordinal, a name and claims of its own.
//!
//! Never touches a pod that another object controls, and never deletes a claim: retention is carried out by owner
//! references.

mod claims;
mod identity;
mod plan;
mod revisions;
mod shell;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use flotilla_api::controller_of;
use flotilla_resources::CacheEvent;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::context::Context;
use crate::labels;
use crate::runner::{ObjectKey, Queue, Runner};
use shell::StatefulSetController;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    let feed = queue.clone();
    ctx.stateful_sets
        .subscribe(move |event| feed.add(ObjectKey::of(&**event.object())));
    let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
    ctx.pods.subscribe(move |event| {
        let Some(ctx) = known.upgrade() else { return };
        concerned(&ctx, event).into_iter().for_each(|key| feed.add(key));
    });
    let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
    if let Some(claims) = &ctx.claims {
        claims.subscribe(move |event| {
            // A pod may have waited for its ordinal's old claim to go.
            let CacheEvent::Deleted(claim) = event else { return };
            let Some(ctx) = known.upgrade() else { return };
            waiting(&ctx, claim).into_iter().for_each(|key| feed.add(key));
        });
    }
    runner.start(StatefulSetController::new(Arc::clone(ctx)), queue);
}

/// Which sets a change of a pod is about: its owner now and before, and those that could adopt it.
fn concerned(ctx: &Context, event: &CacheEvent<Pod>) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    let mut note = |pod: &Pod| match controller_of(&pod.metadata) {
        Some(owner) if owner.kind == "StatefulSet" => keys.push(ObjectKey {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: owner.name.clone(),
        }),
        Some(_) => {}
        None => {
            let sets = ctx.stateful_sets.list(pod.metadata.namespace.as_deref());
            let fitting = sets.iter().filter(|set| is_member(set, pod));
            keys.extend(fitting.map(|set| ObjectKey::of(&**set)));
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

fn waiting(ctx: &Context, claim: &PersistentVolumeClaim) -> Vec<ObjectKey> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let sets = ctx.stateful_sets.list(claim.metadata.namespace.as_deref());
    sets.iter()
        .filter(|set| identity::makes_claim(set, name))
        .map(|set| ObjectKey::of(&**set))
        .collect()
}

fn selector_of(set: &StatefulSet) -> Option<&LabelSelector> {
    set.spec.as_ref().map(|spec| &spec.selector)
}

fn selects(set: &StatefulSet, meta: &ObjectMeta) -> bool {
    labels::selector(selector_of(set)).matches_optional(meta.labels.as_ref())
}

/// Whether a pod is one that the set could have made.
fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    identity::ordinal_of(set, pod).is_some() && selects(set, &pod.metadata)
}
