//! Scales a Deployment whose size changed, or that is paused, without moving its rollout on.
//!
//! Pure.

use super::plan::Rollout;
use super::size;

/// Gives every revision its share of the new size.
pub(crate) fn scale(rollout: &mut Rollout<'_>) {
    if let Some(only) = only_active_or_latest(rollout) {
        let replicas = rollout.bounds.replicas;
        rollout.resize_if_needed(only, replicas);
        return;
    }
    if is_saturated(rollout) {
        for index in rollout.active_old() {
            rollout.resize_if_needed(index, 0);
        }
        return;
    }
    if !size::is_recreate(rollout.deployment) {
        scale_in_proportion(rollout);
    }
}

/// The one set that scaling means, where there is just one.
fn only_active_or_latest(rollout: &Rollout<'_>) -> Option<usize> {
    let active = active(rollout);
    match active.as_slice() {
        [] => rollout.newest.or_else(|| rollout.old().pop()),
        [only] => Some(*only),
        _ => None,
    }
}

fn active(rollout: &Rollout<'_>) -> Vec<usize> {
    (0..rollout.members.len())
        .filter(|index| rollout.wanted(*index) > 0)
        .collect()
}

/// Whether the newest set alone serves all that is wanted.
fn is_saturated(rollout: &Rollout<'_>) -> bool {
    let Some(newest) = rollout.newest else {
        return false;
    };
    let set = &rollout.members[newest].set;
    let replicas = Some(rollout.bounds.replicas);
    super::annotations::desired_replicas(set) == replicas
        && Some(size::wanted(set)) == replicas
        && Some(size::reported_available(set)) == replicas
}

fn scale_in_proportion(rollout: &mut Rollout<'_>) {
    let mut sets = active(rollout);
    let allowed = match rollout.bounds.replicas {
        0 => 0,
        _ => rollout.bounds.total_max(),
    };
    let total: i32 = sets.iter().map(|index| rollout.wanted(*index)).sum();
    let to_add = allowed - total;
    // Largest first; of two alike the newer one grows and the older one shrinks first. Indices grow with age's end.
    sets.sort_by_key(|index| {
        (
            -rollout.wanted(*index),
            if to_add > 0 {
                -(*index as i64)
            } else {
                *index as i64
            },
        )
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for &index in &sets {
        let share = size::proportion(&rollout.members[index].set, rollout.deployment, to_add, added);
        added += share;
        sizes.push(rollout.wanted(index) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in sets.into_iter().zip(sizes) {
        rollout.resize(index, size);
    }
}
