//! Decides what a node's silence or return means: conditions and taints.
//!
//! Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const READY: &str = "Ready";
/// What the controller says about a node that stopped talking; a node that talks again may be told from this.
pub(crate) const STATUS_UNKNOWN: &str = "NodeStatusUnknown";
/// What it says about a condition that the node never mentioned.
const NEVER_UPDATED: &str = "NodeStatusNeverUpdated";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Conditions that a silent node's agent can no longer vouch for.
const WATCHED: [&str; 4] = [READY, "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions that keep new pods away while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Whether a node was heard lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was.
    Lately,
    /// It has been silent for too long.
    Silent,
}

/// What the node's `Ready` condition amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    NotReady,
    Unreachable,
}

/// The node's readiness as its condition tells it.
pub(crate) fn readiness(node: &Node) -> Readiness {
    match condition(node, READY).map(|ready| ready.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unreachable,
        Some(_) | None => Readiness::NotReady,
    }
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Brings the conditions in line with what was heard. Says whether anything changed.
pub(crate) fn set_conditions(node: &mut Node, heard: Heard, now: Timestamp) -> bool {
    match heard {
        Heard::Silent => doubt(node, now),
        Heard::Lately => trust(node, now),
    }
}

/// Nothing is known about a silent node.
fn doubt(node: &mut Node, now: Timestamp) -> bool {
    let conditions = node
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let mut changed = false;
    for type_ in WATCHED {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                "Unknown".clone_into(&mut known.status);
                known.reason = Some(STATUS_UNKNOWN.to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(Time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: type_.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some(NEVER_UPDATED.to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_transition_time: Some(Time(now)),
                    last_heartbeat_time: None,
                });
                changed = true;
            }
        }
    }
    changed
}

/// A node that is heard again may have nothing new to report; then what was doubted holds again.
fn trust(node: &mut Node, now: Timestamp) -> bool {
    let Some(conditions) = node.status.as_mut().and_then(|status| status.conditions.as_mut()) else {
        return false;
    };
    let doubted = |condition: &&mut NodeCondition| {
        condition.status == "Unknown" && condition.reason.as_deref() == Some(STATUS_UNKNOWN)
    };
    let before = conditions.len();
    conditions
        .retain(|condition| condition.type_ == READY || condition.reason.as_deref() != Some(NEVER_UPDATED));
    let mut changed = conditions.len() != before;
    for condition in conditions.iter_mut().filter(doubted) {
        let ready = condition.type_ == READY;
        condition.status = if ready { "True" } else { "False" }.to_owned();
        condition.reason = Some(if ready { "KubeletReady" } else { "KubeletIsBack" }.to_owned());
        condition.message = Some("kubelet is posting ready status".to_owned());
        condition.last_transition_time = Some(Time(now));
        condition.last_heartbeat_time = Some(Time(now));
        changed = true;
    }
    changed
}

/// Brings the taints in line with conditions and `spec.unschedulable`. Says whether anything changed.
pub(crate) fn set_taints(node: &mut Node, now: Timestamp) -> bool {
    let readiness = readiness(node);
    let closed = node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false);
    let unreachable = readiness == Readiness::Unreachable;
    let not_ready = readiness == Readiness::NotReady;
    let mut wanted = vec![
        (UNREACHABLE, "NoSchedule", unreachable),
        (UNREACHABLE, "NoExecute", unreachable),
        (NOT_READY, "NoSchedule", not_ready),
        (NOT_READY, "NoExecute", not_ready),
        ("node.kubernetes.io/unschedulable", "NoSchedule", closed),
    ];
    let is_true = |type_: &str| condition(node, type_).is_some_and(|condition| condition.status == "True");
    let pressures: Vec<_> = PRESSURES
        .iter()
        .map(|(type_, key)| (*key, "NoSchedule", is_true(type_)))
        .collect();
    wanted.extend(pressures);
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    let mut changed = false;
    for (key, effect, wanted) in wanted {
        let at = taints
            .iter()
            .position(|taint| taint.key == key && taint.effect == effect);
        match (at, wanted) {
            (None, true) => taints.push(taint(key, effect, now)),
            (Some(at), false) => drop(taints.remove(at)),
            (Some(_), true) | (None, false) => continue,
        }
        changed = true;
    }
    changed
}

fn taint(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        value: None,
        time_added: Some(Time(now)),
    }
}
