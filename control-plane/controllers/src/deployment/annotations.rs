//! The annotations by which a Deployment remembers revisions and sizes on its ReplicaSets.
//!
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::size::Bounds;

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HISTORY_CHARS_MAX: usize = 2000;

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// One annotation.
pub(crate) fn get<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Sets one annotation. Says whether that changed anything.
pub(crate) fn set(meta: &mut ObjectMeta, key: &str, value: &str) -> bool {
    if get(meta, key) == Some(value) {
        return false;
    }
    meta.annotations
        .get_or_insert_default()
        .insert(key.to_owned(), value.to_owned());
    true
}

/// The revision of a set, 0 when it has none.
pub(crate) fn revision(meta: &ObjectMeta) -> i64 {
    get(meta, REVISION)
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0)
}

/// The wanted replicas of the Deployment when the set was last scaled.
pub(crate) fn desired_replicas(set: &ReplicaSet) -> Option<i32> {
    get(&set.metadata, DESIRED)?.parse().ok()
}

/// The most replicas the Deployment allowed when the set was last scaled.
pub(crate) fn max_replicas(set: &ReplicaSet) -> Option<i32> {
    get(&set.metadata, MAX)?.parse().ok()
}

/// Writes the Deployment's size on the set. Says whether that changed anything.
pub(crate) fn set_sizes(set_: &mut ReplicaSet, bounds: Bounds) -> bool {
    let desired = set(&mut set_.metadata, DESIRED, &bounds.replicas.to_string());
    let max = set(&mut set_.metadata, MAX, &bounds.total_max().to_string());
    desired || max
}

/// Makes the set carry the Deployment's annotations and at least `revision`. Says whether that changed anything.
pub(crate) fn inherit(set_: &mut ReplicaSet, deployment: &Deployment, new_revision: i64) -> bool {
    let mut changed = false;
    for (key, value) in inherited(deployment) {
        changed |= set(&mut set_.metadata, key, value);
    }
    let old = get(&set_.metadata, REVISION).unwrap_or_default().to_owned();
    if revision(&set_.metadata) >= new_revision {
        return changed;
    }
    set(&mut set_.metadata, REVISION, &new_revision.to_string());
    if !old.is_empty() {
        let history = get(&set_.metadata, HISTORY).unwrap_or_default();
        let history = lengthen(history, &old);
        set(&mut set_.metadata, HISTORY, &history);
    }
    true
}

fn inherited(deployment: &Deployment) -> impl Iterator<Item = (&str, &str)> {
    let annotations: Option<&BTreeMap<String, String>> = deployment.metadata.annotations.as_ref();
    let all = annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    all.filter(|(key, _)| !OWN.contains(key))
}

/// Appends a revision and drops the oldest ones once the list grows too long.
fn lengthen(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    revisions.push(revision);
    while revisions.iter().map(|entry| entry.len() + 1).sum::<usize>() > HISTORY_CHARS_MAX {
        revisions.remove(0);
    }
    revisions.join(",")
}
