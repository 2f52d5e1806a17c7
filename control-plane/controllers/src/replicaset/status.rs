//! What a set of pods says about itself.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::plan::PodSet;
use crate::pods::{self, Availability};

/// The status that ReplicaSet and ReplicationController share.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SetStatus {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: i32,
    pub(crate) observed_generation: Option<i64>,
    pub(crate) conditions: Vec<SetCondition>,
}

/// One condition of a set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SetCondition {
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_transition: Option<Timestamp>,
}

/// Why a set could not be brought to its size.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    /// What was answered.
    pub(crate) message: String,
}

/// The status that follows from the owned pods, and after which time it changes by itself.
pub(crate) fn observe(
    set: &PodSet<'_>,
    previous: &SetStatus,
    owned: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> (SetStatus, Option<Duration>) {
    let mut status = SetStatus {
        observed_generation: set.meta.generation,
        conditions: conditions(&previous.conditions, failure, now),
        ..SetStatus::default()
    };
    let mut recheck: Option<Duration> = None;
    for pod in owned.iter().filter(|pod| !pods::is_finished(pod)) {
        if pods::is_deleting(pod) {
            status.terminating += 1;
            continue;
        }
        status.replicas += 1;
        status.fully_labeled += i32::from(carries_template_labels(set, pod));
        status.ready += i32::from(pods::is_ready(pod));
        match pods::availability(pod, set.min_ready_seconds, now) {
            Availability::Now => status.available += 1,
            Availability::After(left) => recheck = Some(recheck.map_or(left, |other| other.min(left))),
            Availability::Never => {}
        }
    }
    (status, recheck)
}

fn carries_template_labels(set: &PodSet<'_>, pod: &Pod) -> bool {
    let wanted = set
        .template
        .and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let Some(wanted) = wanted else { return true };
    let labels = pod.metadata.labels.as_ref();
    wanted
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn conditions(previous: &[SetCondition], failure: Option<&Failure>, now: Timestamp) -> Vec<SetCondition> {
    const TYPE: &str = "ReplicaFailure";
    let mut conditions: Vec<SetCondition> = previous
        .iter()
        .filter(|condition| condition.type_ != TYPE)
        .cloned()
        .collect();
    let standing = previous.iter().find(|condition| condition.type_ == TYPE);
    match (failure, standing) {
        (Some(failure), Some(standing)) if standing.reason.as_deref() == Some(failure.reason) => {
            conditions.push(standing.clone());
        }
        (Some(failure), _) => conditions.push(SetCondition {
            type_: TYPE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition: Some(now),
        }),
        (None, _) => {}
    }
    conditions
}
