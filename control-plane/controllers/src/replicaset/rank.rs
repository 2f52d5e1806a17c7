//! Which pods go first when there are too many.
//!
//! Pure. The order is Kubernetes': what costs least to lose goes first.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts `owned` so that the first is the first to delete.
///
/// `related` are the pods of all sets with the same owner: of two pods that are alike, the one with more
/// relatives on its node goes.
pub(crate) fn sort(owned: &mut [&Arc<Pod>], related: &[Arc<Pod>]) {
    let mut neighbours: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *neighbours.entry(pods::node_name(pod)).or_default() += 1;
    }
    owned.sort_by_cached_key(|pod| {
        let crowd = neighbours.get(pods::node_name(pod)).copied().unwrap_or(0);
        Loss::of(pod, crowd)
    });
}

/// How much is lost with a pod; fields in order of weight.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    neighbours: Reverse<usize>,
    ready_since: Newest,
    restarts: Reverse<i32>,
    created: Newest,
    uid: String,
}

impl Loss {
    fn of(pod: &Pod, neighbours: usize) -> Loss {
        Loss {
            assigned: !pods::node_name(pod).is_empty(),
            phase: match pods::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready: pods::is_ready(pod),
            deletion_cost: deletion_cost(pod),
            neighbours: Reverse(neighbours),
            ready_since: Newest(pods::ready_since(pod)),
            restarts: Reverse(pods::restarts(pod)),
            created: Newest(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// Newer before older, and no time at all before every time.
#[derive(PartialEq, Eq)]
struct Newest(Option<Timestamp>);

impl Ord for Newest {
    fn cmp(&self, other: &Newest) -> Ordering {
        match (self.0, other.0) {
            (Some(mine), Some(theirs)) => theirs.cmp(&mine),
            (mine, theirs) => mine.is_some().cmp(&theirs.is_some()),
        }
    }
}

impl PartialOrd for Newest {
    fn partial_cmp(&self, other: &Newest) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}
