//! When a pod's volumes are to be made, looked over and removed.
//!
//! Before anything of a pod is started its volumes are made, and they are removed when all of it has ended, as kubelet
//! does it. What a volume is made of is not known here.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::history::History;

/// Kubelet's waits between attempts: the first, doubled each time up to the last.
const FIRST_WAIT_MILLIS: i64 = 500;
const LONGEST_WAIT_MILLIS: i64 = 122_000;

/// The state of a pod's volumes on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Volumes {
    /// Nothing was made yet.
    #[default]
    Absent,
    /// An agent before this one has made them; whether they are still there is not known.
    Unsure,
    /// Some could not be made or brought up to date.
    Failed {
        /// When.
        since: Timestamp,
        /// How many times in a row.
        tries: u32,
        /// All are there nevertheless, with what they held before.
        usable: bool,
    },
    /// All are as they should be.
    Ready,
    /// All are there, and what they hold may have changed.
    Stale,
    /// Removed for good.
    Removed,
}

/// What is to be done about the volumes now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    SetUp,
    /// Again, but not before then.
    Wait(Timestamp),
}

impl Volumes {
    /// Whether containers can be started.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(
            self,
            Volumes::Ready | Volumes::Stale | Volumes::Failed { usable: true, .. }
        )
    }

    /// Whether anything has to be removed.
    pub fn is_present(&self) -> bool {
        !matches!(self, Volumes::Absent | Volumes::Removed)
    }

    pub(crate) fn need(&self, now: Timestamp) -> Need {
        match self {
            Volumes::Ready => Need::Nothing,
            Volumes::Failed { since, tries, .. } => {
                let next = *since + wait(*tries);
                if next <= now {
                    Need::SetUp
                } else {
                    Need::Wait(next)
                }
            }
            Volumes::Absent | Volumes::Unsure | Volumes::Stale | Volumes::Removed => Need::SetUp,
        }
    }
}

fn wait(tries: u32) -> SignedDuration {
    let factor = 1_i64
        .checked_shl(tries.saturating_sub(1).min(16))
        .unwrap_or(i64::MAX);
    SignedDuration::from_millis(FIRST_WAIT_MILLIS.saturating_mul(factor).min(LONGEST_WAIT_MILLIS))
}

/// Whether the pod has any volume.
pub(crate) fn are_wanted(pod: &Pod) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.is_some_and(|volumes| !volumes.is_empty())
}

impl History {
    /// The volumes are as they should be.
    pub fn volumes_ready(&mut self) {
        self.volumes = Volumes::Ready;
    }

    /// Not all volumes could be made or brought up to date.
    pub fn volumes_failed(&mut self, now: Timestamp) {
        let tries = match self.volumes {
            Volumes::Failed { tries, .. } => tries + 1,
            _ => 1,
        };
        self.volumes = Volumes::Failed {
            since: now,
            tries,
            usable: self.volumes.is_usable(),
        };
    }

    /// What the volumes are made from has changed, or is about to expire.
    pub fn volumes_stale(&mut self) {
        self.volumes = match self.volumes {
            Volumes::Ready | Volumes::Stale | Volumes::Failed { usable: true, .. } => Volumes::Stale,
            Volumes::Unsure | Volumes::Failed { usable: false, .. } => Volumes::Unsure,
            Volumes::Absent => Volumes::Absent,
            Volumes::Removed => Volumes::Removed,
        };
    }

    /// An agent takes over from another one.
    pub fn volumes_unsure(&mut self) {
        if self.volumes.is_present() {
            self.volumes = Volumes::Unsure;
        }
    }

    /// Nothing of the volumes is left.
    pub fn volumes_removed(&mut self) {
        self.volumes = Volumes::Removed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn attempts_come_after_kubelets_waits() {
        let mut history = History::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            history.volumes_failed(at(0));
            match history.volumes.need(at(0)) {
                Need::Wait(next) => waits.push(next.as_millisecond()),
                need => panic!("{need:?}"),
            }
        }
        assert_eq!(
            waits,
            [
                500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 122_000, 122_000
            ]
        );
        assert_eq!(history.volumes.need(at(122_000)), Need::SetUp);
    }

    #[test]
    fn what_was_ready_stays_usable_while_it_cannot_be_brought_up_to_date() {
        let mut history = History::default();
        history.volumes_failed(at(0));
        assert!(!history.volumes.is_usable());
        history.volumes_stale();
        assert!(!history.volumes.is_usable());
        assert_eq!(
            history.volumes.need(at(0)),
            Need::SetUp,
            "news are worth a try at once"
        );
        history.volumes_ready();
        history.volumes_stale();
        history.volumes_failed(at(0));
        assert!(history.volumes.is_usable());
        history.volumes_unsure();
        assert!(!history.volumes.is_usable());
        assert!(history.volumes.is_present());
    }
}
