//! What a StatefulSet says about itself.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity;
use super::plan::Revisions;
use crate::pods::{self, Availability};

/// The status that follows from the owned pods, and after which time it changes by itself.
pub(crate) fn observe(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: Revisions<'_>,
    now: Timestamp,
) -> (StatefulSetStatus, Option<Duration>) {
    let previous = set.status.as_ref();
    let mut count = Count::default();
    for pod in pods {
        count.add(set, pod, revisions, now);
    }
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count.replicas,
        ready_replicas: some(count.ready),
        available_replicas: Some(count.available),
        current_replicas: some(count.current),
        updated_replicas: some(count.updated),
        current_revision: Some(revisions.current.to_owned()),
        update_revision: Some(revisions.update.to_owned()),
        collision_count: Some(previous.and_then(|status| status.collision_count).unwrap_or(0)),
        conditions: previous.and_then(|status| status.conditions.clone()),
    };
    if is_complete(set, &count) {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    (status, count.recheck)
}

#[derive(Default)]
struct Count {
    replicas: i32,
    ready: i32,
    available: i32,
    current: i32,
    updated: i32,
    recheck: Option<Duration>,
}

impl Count {
    fn add(&mut self, set: &StatefulSet, pod: &Pod, revisions: Revisions<'_>, now: Timestamp) {
        self.replicas += 1;
        if pods::phase(pod) == "Running" && pods::is_ready(pod) {
            self.ready += 1;
            match pods::availability(pod, min_ready_seconds(set), now) {
                Availability::Now => self.available += 1,
                Availability::After(left) => {
                    self.recheck = Some(self.recheck.map_or(left, |other| other.min(left)));
                }
                Availability::Never => {}
            }
        }
        if !pods::is_deleting(pod) {
            let revision = identity::revision_of_pod(pod);
            self.current += i32::from(revision == revisions.current);
            self.updated += i32::from(revision == revisions.update);
        }
    }
}

/// How long a pod must be ready to count as available.
pub(crate) fn min_ready_seconds(set: &StatefulSet) -> i32 {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// A rolling update is complete when every wanted pod is ready and of the update revision, and no other is left.
fn is_complete(set: &StatefulSet, count: &Count) -> bool {
    let spec = set.spec.as_ref();
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
    let wanted = i32::try_from(identity::wanted(set).len()).unwrap_or(i32::MAX);
    strategy != Some("OnDelete")
        && [count.updated, count.ready, count.replicas]
            .iter()
            .all(|count| *count == wanted)
}

/// Kubernetes leaves zeroes out of these fields.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
