//! Decides which pods must leave a tainted node, and when.
//!
//! Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::pods::{elapsed, is_active};

/// What becomes of a pod on a tainted node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It may stay.
    ForEver,
    /// It must leave after this time.
    For(Duration),
    /// It must leave.
    Over,
}

/// The taints that drive pods away.
pub(crate) fn driving(node: &Node) -> Vec<&Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .collect()
}

/// How long the pod may stay. Pods that say nothing about a silent or unready node bear it for `default_seconds`.
pub(crate) fn stay(pod: &Pod, taints: &[&Taint], default_seconds: i64, now: Timestamp) -> Stay {
    if !is_active(pod) {
        return Stay::ForEver;
    }
    let own = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let stays = taints
        .iter()
        .map(|taint| match seconds(own, taint, default_seconds) {
            Bears::ForEver => Stay::ForEver,
            Bears::Not => Stay::Over,
            Bears::Seconds(seconds) => left(taint, seconds, now),
        });
    stays
        .min_by_key(|stay| match stay {
            Stay::Over => Duration::ZERO,
            Stay::For(left) => *left,
            Stay::ForEver => Duration::MAX,
        })
        .unwrap_or(Stay::ForEver)
}

enum Bears {
    Not,
    Seconds(i64),
    ForEver,
}

fn seconds(tolerations: &[Toleration], taint: &Taint, default_seconds: i64) -> Bears {
    let fitting: Vec<&Toleration> = tolerations
        .iter()
        .filter(|toleration| covers(toleration, taint))
        .collect();
    if fitting.is_empty() {
        let is_about_readiness = matches!(
            taint.key.as_str(),
            "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
        );
        return if is_about_readiness {
            Bears::Seconds(default_seconds)
        } else {
            Bears::Not
        };
    }
    let limits = fitting
        .iter()
        .filter_map(|toleration| toleration.toleration_seconds);
    limits.min().map_or(Bears::ForEver, Bears::Seconds)
}

fn left(taint: &Taint, seconds: i64, now: Timestamp) -> Stay {
    let Ok(allowed) = u64::try_from(seconds).map(Duration::from_secs) else {
        return Stay::Over;
    };
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    match allowed.checked_sub(elapsed(since, now)) {
        None | Some(Duration::ZERO) => Stay::Over,
        Some(left) => Stay::For(left),
    }
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let unset = |field: &Option<String>| field.as_deref().unwrap_or_default().is_empty();
    let effect = unset(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let key = unset(&toleration.key) || toleration.key.as_deref() == Some(&taint.key);
    let value = toleration.operator.as_deref() == Some("Exists")
        || (!unset(&toleration.key)
            && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default());
    effect && key && value
}
