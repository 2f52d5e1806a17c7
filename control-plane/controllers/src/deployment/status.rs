//! What a Deployment says about its rollout: counts, conditions and when it is late.
//!
//! Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::size::{self, Bounds};
use crate::pods::elapsed;

pub(crate) const AVAILABLE: &str = "Available";
pub(crate) const PROGRESSING: &str = "Progressing";
pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// The sets of a Deployment after a plan.
pub(crate) struct Sets<'a> {
    /// The set of the current template.
    pub(crate) newest: Option<&'a ReplicaSet>,
    /// All sets, the newest included.
    pub(crate) all: Vec<&'a ReplicaSet>,
}

/// Counts and availability; leaves the other conditions as they are in `previous`.
pub(crate) fn count(
    deployment: &Deployment,
    previous: &DeploymentStatus,
    sets: &Sets<'_>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |pick: fn(&ReplicaSet) -> i32| sets.all.iter().map(|set| pick(set)).sum::<i32>();
    let available = sum(size::reported_available);
    let wanted = sum(size::wanted);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(replicas)),
        updated_replicas: some(sets.newest.map_or(0, replicas)),
        ready_replicas: some(sum(ready)),
        available_replicas: some(available),
        unavailable_replicas: some((wanted - available).max(0)),
        terminating_replicas: some(sum(terminating)),
        collision_count: previous.collision_count,
        conditions: previous.conditions.clone(),
    };
    let enough = available >= Bounds::of(deployment).available_min();
    let (value, reason, message) = match enough {
        true => (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    set_condition(&mut status, AVAILABLE, value, reason, message, now);
    status
}

/// [`count`], and how the rollout gets on.
pub(crate) fn progress(
    deployment: &Deployment,
    previous: &DeploymentStatus,
    sets: &Sets<'_>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = count(deployment, previous, sets, now);
    let standing = condition(previous, PROGRESSING).cloned();
    if deadline(deployment).is_none() {
        remove_condition(&mut status, PROGRESSING);
    } else if !was_complete(&status, standing.as_ref()) {
        judge(deployment, previous, &mut status, sets.newest, now);
    }
    match replica_failure(sets) {
        Some((reason, message)) => {
            set_condition(&mut status, REPLICA_FAILURE, "True", &reason, &message, now)
        }
        None => remove_condition(&mut status, REPLICA_FAILURE),
    }
    status
}

/// A rollout that was complete stays so while its pods come and go.
fn was_complete(status: &DeploymentStatus, standing: Option<&DeploymentCondition>) -> bool {
    status.replicas == status.updated_replicas
        && standing.is_some_and(|standing| standing.reason.as_deref() == Some(NEW_AVAILABLE))
}

fn judge(
    deployment: &Deployment,
    previous: &DeploymentStatus,
    status: &mut DeploymentStatus,
    newest: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let subject = match newest {
        Some(set) => format!(
            "ReplicaSet {:?}",
            set.metadata.name.as_deref().unwrap_or_default()
        ),
        None => format!(
            "Deployment {:?}",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(status, PROGRESSING, "True", NEW_AVAILABLE, &message, now);
    } else if has_moved(previous, status) {
        // The update time is the mark from which the deadline runs, so it moves even when the words stay.
        let standing = condition(previous, PROGRESSING)
            .filter(|standing| standing.status == "True")
            .cloned();
        remove_condition(status, PROGRESSING);
        let message = format!("{subject} is progressing.");
        set_condition(status, PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
        if let (Some(standing), Some(condition)) = (standing, condition_mut(status, PROGRESSING)) {
            condition.last_transition_time = standing.last_transition_time;
        }
    } else if is_late(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set_condition(status, PROGRESSING, "False", DEADLINE_EXCEEDED, &message, now);
    }
}

/// Whether every wanted replica is of the current template and available.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Bounds::of(deployment).replicas;
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let grew = |pick: fn(&DeploymentStatus) -> Option<i32>| pick(new).unwrap_or(0) > pick(old).unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    grew(|status| status.updated_replicas)
        || outdated(new) < outdated(old)
        || grew(|status| status.ready_replicas)
        || grew(|status| status.available_replicas)
}

fn is_late(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(standing) = condition(status, PROGRESSING) else {
        return false;
    };
    match standing.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(DEADLINE_EXCEEDED) => true,
        _ => time_left(deployment, standing, now) == Some(Duration::ZERO),
    }
}

fn time_left(deployment: &Deployment, standing: &DeploymentCondition, now: Timestamp) -> Option<Duration> {
    let since = standing.last_update_time.as_ref()?.0;
    Some(deadline(deployment)?.saturating_sub(elapsed(since, now)))
}

/// After which time the rollout would be late, if nothing happens until then.
pub(crate) fn recheck(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let standing = condition(status, PROGRESSING)?;
    if is_complete(deployment, status) || standing.reason.as_deref() == Some(DEADLINE_EXCEEDED) {
        return None;
    }
    // Kubernetes compares whole seconds, so one more makes sure that the deadline has passed.
    Some(time_left(deployment, standing, now)? + Duration::from_secs(1))
}

/// How long a rollout may stand still; nothing when it may do so for ever.
pub(crate) fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.progress_deadline_seconds)
        .unwrap_or(600);
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::from(seconds.max(0).unsigned_abs())))
}

/// Notes that a Deployment was paused or resumed. Says whether there was something to note.
pub(crate) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let reason = condition(status, PROGRESSING).and_then(|standing| standing.reason.as_deref());
    if deadline(deployment).is_none() || reason == Some(DEADLINE_EXCEEDED) {
        return;
    }
    let noted = reason == Some("DeploymentPaused");
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    if paused && !noted {
        set_condition(
            status,
            PROGRESSING,
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused",
            now,
        );
    } else if !paused && noted {
        set_condition(
            status,
            PROGRESSING,
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed",
            now,
        );
    }
}

fn replica_failure(sets: &Sets<'_>) -> Option<(String, String)> {
    let newest_first = sets.newest.into_iter().chain(sets.all.iter().copied());
    let mut conditions = newest_first
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref())
        .flatten();
    let failure = conditions.find(|condition| condition.type_ == REPLICA_FAILURE)?;
    Some((
        failure.reason.clone().unwrap_or_default(),
        failure.message.clone().unwrap_or_default(),
    ))
}

/// One condition of the status.
pub(crate) fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn condition_mut<'a>(status: &'a mut DeploymentStatus, type_: &str) -> Option<&'a mut DeploymentCondition> {
    status
        .conditions
        .as_mut()?
        .iter_mut()
        .find(|condition| condition.type_ == type_)
}

fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
}

/// Sets a condition, unless it stands with the same status and reason.
pub(crate) fn set_condition(
    status: &mut DeploymentStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let standing = condition(status, type_);
    if standing.is_some_and(|found| found.status == value && found.reason.as_deref() == Some(reason)) {
        return;
    }
    let unmoved = standing
        .filter(|found| found.status == value)
        .and_then(|found| found.last_transition_time.clone());
    remove_condition(status, type_);
    status
        .conditions
        .get_or_insert_default()
        .push(DeploymentCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(now)),
            last_transition_time: Some(unmoved.unwrap_or(Time(now))),
        });
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0)
}

fn terminating(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.terminating_replicas)
        .unwrap_or(0)
}

/// Kubernetes leaves counts of zero out.
fn some(value: i32) -> Option<i32> {
    (value != 0).then_some(value)
}
