//! What the controllers ask about a pod.
//!
//! Pure. Never changes a pod in the store; `unready` and its kin change a copy.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The reason written on a pod's `Ready` condition while its node is silent, so that the condition can be told
/// from one that the node wrote itself.
pub(crate) const NODE_NOT_READY: &str = "NodeNotReady";

/// The pod's phase, empty when it has none yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod has ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody asked for the pod's deletion.
pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as a replica: neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

/// The node that the pod is bound to, empty when it waits for one.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// One condition of the pod.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether the pod serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod has been ready; nothing when it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When a pod counts as available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It has been ready for long enough.
    Now,
    /// It is ready and will be available after this time.
    After(Duration),
    /// It is not ready.
    Never,
}

/// Whether the pod has been ready for `min_ready_seconds`.
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::Never;
    }
    if min_ready_seconds <= 0 {
        return Availability::Now;
    }
    let min_ready = Duration::from_secs(u64::from(min_ready_seconds.unsigned_abs()));
    let ready_for = ready_since(pod).map_or(Duration::ZERO, |since| elapsed(since, now));
    match min_ready.checked_sub(ready_for) {
        None | Some(Duration::ZERO) => Availability::Now,
        Some(left) => Availability::After(left),
    }
}

/// The time between two moments, zero when they are the wrong way round.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// How often the pod's containers were restarted, the highest of them.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}

/// Sets a condition; the transition time moves only with the status. Says whether anything changed.
pub(crate) fn set_condition(
    status: &mut PodStatus,
    type_: &str,
    value: &str,
    reason: Option<&str>,
    message: Option<String>,
    now: Timestamp,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let mut wanted = PodCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    let Some(found) = conditions.iter_mut().find(|condition| condition.type_ == type_) else {
        conditions.push(wanted);
        return true;
    };
    if found.status == wanted.status {
        wanted
            .last_transition_time
            .clone_from(&found.last_transition_time);
    }
    wanted.observed_generation = found.observed_generation;
    wanted.last_probe_time.clone_from(&found.last_probe_time);
    let changed = *found != wanted;
    *found = wanted;
    changed
}
