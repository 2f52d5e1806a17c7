//! What a namespace on its way out says about itself, in Kubernetes' words.
//!
//! Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::contents::Left;

/// Says what is left. Tells whether that is news.
pub(crate) fn describe(status: &mut NamespaceStatus, left: &Left, now: Timestamp) -> bool {
    let before = status.clone();
    status.phase = Some("Terminating".to_owned());
    let mut say = |type_: &str, holds: bool, reason: &str, message: &str| {
        set(
            status,
            type_,
            if holds { "True" } else { "False" },
            reason,
            message,
            now,
        );
    };
    let discovered = "All resources successfully discovered";
    say(
        "NamespaceDeletionDiscoveryFailure",
        false,
        "ResourcesDiscovered",
        discovered,
    );
    let parsed = "All legacy kube types successfully parsed";
    say(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        "ParsedGroupVersions",
        parsed,
    );
    let deleted = "All content successfully deleted, may be waiting on finalization";
    say(
        "NamespaceDeletionContentFailure",
        false,
        "ContentDeleted",
        deleted,
    );
    match left.is_empty() {
        true => say(
            "NamespaceContentRemaining",
            false,
            "ContentRemoved",
            "All content successfully removed",
        ),
        false => {
            let list = listed(&left.resources, "has", "resource instances");
            let message = format!("Some resources are remaining: {list}");
            say("NamespaceContentRemaining", true, "SomeResourcesRemain", &message);
        }
    }
    match left.finalizers.is_empty() {
        true => {
            let finished = "All content-preserving finalizers finished";
            say(
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                finished,
            );
        }
        false => {
            let list = listed(&left.finalizers, "in", "resource instances");
            let message = format!("Some content in the namespace has finalizers remaining: {list}");
            say(
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                &message,
            );
        }
    }
    *status != before
}

fn listed(counts: &BTreeMap<String, usize>, verb: &str, noun: &str) -> String {
    let entries: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {verb} {count} {noun}"))
        .collect();
    entries.join(", ")
}

fn set(status: &mut NamespaceStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let mut wanted = NamespaceCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        None => conditions.push(wanted),
        Some(found) => {
            if found.status == wanted.status {
                wanted
                    .last_transition_time
                    .clone_from(&found.last_transition_time);
            }
            *found = wanted;
        }
    }
}
