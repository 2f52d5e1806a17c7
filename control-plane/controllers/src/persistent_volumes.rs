//! Binds claims to persistent volumes, has volumes made, protects both from going too early, and lets them go.
//!
//! Disks are made, grown and deleted by the nodes; here only objects change. Never deletes a volume whose claim may
//! still exist.

mod claim;
mod classes;
mod ephemeral;
mod plan;
mod protection;
mod provision;
#[cfg(test)]
mod tests;
mod volume;

use std::sync::Arc;

use flotilla_api::claims;
use flotilla_resources::{Cache, Part, TypedObject};
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::context::{Context, revision_of, settle};
use crate::runner::{ObjectKey, Queue, ReconcileError, Runner};

/// What all controllers of volumes know.
struct Known {
    ctx: Arc<Context>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
}

/// Starts the controllers.
pub(crate) async fn start(ctx: &Arc<Context>, runner: &Runner) {
    let replica = ctx.resources.replica();
    let known = Arc::new(Known {
        ctx: Arc::clone(ctx),
        claims: Cache::start(replica, &runner.tracker, &runner.shutdown),
        volumes: Cache::start(replica, &runner.tracker, &runner.shutdown),
        classes: Cache::start(replica, &runner.tracker, &runner.shutdown),
    });
    known.claims.synced().await;
    known.volumes.synced().await;
    known.classes.synced().await;
    let (claims, volumes, pods) = (Queue::new(), Queue::new(), Queue::new());
    feed_from_claims(&known, &claims, &volumes);
    feed_from_volumes(&known, &claims, &volumes);
    feed_from_pods(&known, &claims, &pods);
    runner.start(claim::ClaimController::new(&known), claims);
    runner.start(volume::VolumeController::new(&known), volumes);
    runner.start(ephemeral::EphemeralController::new(&known), pods);
    classes::start(ctx, runner);
}

fn feed_from_claims(known: &Known, claims: &Queue<ObjectKey>, volumes: &Queue<ObjectKey>) {
    let (claims, volumes) = (claims.clone(), volumes.clone());
    known.claims.subscribe(move |event| {
        let claim = event.object();
        claims.add(ObjectKey::of(&**claim));
        if let Some(volume) = claims::volume_name(claim) {
            volumes.add(ObjectKey::cluster(volume));
        }
    });
}

fn feed_from_volumes(known: &Known, claims: &Queue<ObjectKey>, volumes: &Queue<ObjectKey>) {
    let (of_volumes, own) = (claims.clone(), volumes.clone());
    let waiting = known.claims.clone();
    known.volumes.subscribe(move |event| {
        let volume = event.object();
        own.add(ObjectKey::of(&**volume));
        let reserved = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        match reserved {
            Some(reference) => of_volumes.add(ObjectKey {
                namespace: reference.namespace.clone().unwrap_or_default(),
                name: reference.name.clone().unwrap_or_default(),
            }),
            // A volume that is free may be what a claim waits for.
            None => add_unbound(&waiting, &of_volumes),
        }
    });
    let (of_classes, waiting) = (claims.clone(), known.claims.clone());
    known
        .classes
        .subscribe(move |_| add_unbound(&waiting, &of_classes));
}

fn add_unbound(claims: &Cache<PersistentVolumeClaim>, queue: &Queue<ObjectKey>) {
    let all = claims.list(None);
    for claim in all.iter().filter(|claim| !claims::is_bound(claim)) {
        queue.add(ObjectKey::of(&**claim));
    }
}

/// A pod that ends, or goes, lets go of its claims; one that comes may want claims made for it.
fn feed_from_pods(known: &Known, claims: &Queue<ObjectKey>, pods: &Queue<ObjectKey>) {
    let (claims, pods) = (claims.clone(), pods.clone());
    known.ctx.pods.subscribe(move |event| {
        let pod = event.object();
        let used = claims::claims_of(pod);
        if used.iter().any(|(_, is_ephemeral)| *is_ephemeral) {
            pods.add(ObjectKey::of(&**pod));
        }
        for (name, _) in used {
            claims.add(ObjectKey {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                name,
            });
        }
    });
}

/// Changes an object as `change` says, and waits until the cache shows it.
async fn modify<T: TypedObject>(
    known: &Known,
    cache: &Cache<T>,
    key: &ObjectKey,
    part: Part,
    change: impl FnMut(&mut T) -> bool + Send,
) -> Result<(), ReconcileError> {
    let changed = known
        .ctx
        .resources
        .modify(&key.namespace, &key.name, part, change)
        .await?;
    settle(cache, changed.as_ref().map_or(Revision(0), revision_of)).await
}

/// Takes a finalizer away; says whether it was there.
fn drop_finalizer(finalizers: &mut Option<Vec<String>>, finalizer: &str) -> bool {
    let Some(list) = finalizers else { return false };
    let before = list.len();
    list.retain(|known| known != finalizer);
    let is_changed = list.len() != before;
    if list.is_empty() {
        *finalizers = None;
    }
    is_changed
}
