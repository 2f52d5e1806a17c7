//! How many replicas each revision may have: Kubernetes' arithmetic of surge, unavailability and proportion.
//!
//! Pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::annotations;

/// The bounds of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Wanted replicas.
    pub(crate) replicas: i32,
    /// How many more there may be for a while.
    pub(crate) surge: i32,
    /// How many may be away for a while.
    pub(crate) unavailable: i32,
}

impl Bounds {
    /// The bounds that a Deployment asks for.
    pub(crate) fn of(deployment: &Deployment) -> Bounds {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        if is_recreate(deployment) {
            return Bounds {
                replicas,
                surge: 0,
                unavailable: 0,
            };
        }
        let rolling = spec.and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
        let quarter = || IntOrString::String("25%".to_owned());
        let surge = rolling
            .and_then(|rolling| rolling.max_surge.clone())
            .unwrap_or_else(quarter);
        let unavailable = rolling
            .and_then(|rolling| rolling.max_unavailable.clone())
            .unwrap_or_else(quarter);
        let surge = resolve(&surge, replicas, Round::Up);
        let mut unavailable = resolve(&unavailable, replicas, Round::Down);
        if surge == 0 && unavailable == 0 {
            // Both can round to nothing; then the rollout could never move.
            unavailable = 1;
        }
        Bounds {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
        }
    }

    /// The most replicas that all revisions may have together.
    pub(crate) fn total_max(self) -> i32 {
        self.replicas + self.surge
    }

    /// The fewest replicas that must be available.
    pub(crate) fn available_min(self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// Whether all old pods go before the first new one comes.
pub(crate) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref()?.type_.as_deref());
    strategy == Some("Recreate")
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

fn resolve(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredfold = percent.max(0) * i64::from(total);
            let scaled = match round {
                Round::Up => (hundredfold + 99) / 100,
                Round::Down => hundredfold / 100,
            };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
    }
}

/// The wanted size of a set.
pub(crate) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The available pods of a set, as far as they are to stay: a status may lag behind a scale-down.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    reported_available(set).min(wanted(set))
}

/// The available pods that a set reports.
pub(crate) fn reported_available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// How large the newest set may be now, given all sets.
pub(crate) fn newest(deployment: &Deployment, all_wanted: i32, newest_wanted: i32) -> i32 {
    let bounds = Bounds::of(deployment);
    if is_recreate(deployment) {
        return bounds.replicas;
    }
    let room = bounds.total_max() - all_wanted;
    if room <= 0 {
        return newest_wanted;
    }
    newest_wanted + room.min(bounds.replicas - newest_wanted)
}

/// The share of `to_add` (negative: to take away) that falls to `set`, of which `added` is given out already.
pub(crate) fn proportion(set: &ReplicaSet, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if wanted(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, deployment);
    let allowed = to_add - added;
    if to_add > 0 {
        fraction.min(allowed)
    } else {
        fraction.max(allowed)
    }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    let bounds = Bounds::of(deployment);
    let size = wanted(set);
    if bounds.replicas == 0 {
        return -size;
    }
    let before = annotations::max_replicas(set)
        .or_else(|| deployment.status.as_ref().and_then(|status| status.replicas))
        .filter(|before| *before > 0);
    let Some(before) = before else { return 0 };
    let new_size = f64::from(size) * f64::from(bounds.total_max()) / f64::from(before);
    // Sizes are far below 2^31, so the conversion is exact.
    new_size.round() as i32 - size
}
