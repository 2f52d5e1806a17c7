//! Which of the node's user and group ids belong to which pod with users of its own (`hostUsers: false`).
//!
//! Each such pod has a range to itself, as long as its sandbox exists; the sandbox's record keeps it for the next agent.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Ids of a pod, 0 to 65,535 inside, as Kubernetes has it.
pub(crate) const IDS_PER_POD: u32 = 65_536;

/// The first id that is handed out, a multiple of [`IDS_PER_POD`]: above what `useradd`, `/etc/subuid` and systemd give
/// away (its containers end here), below 2^31, which some programs take for negative.
const FIRST: u32 = 0x7000_0000;

/// Ranges from there on: they end below systemd's ids for foreign images (`0x7FFE_0000`).
const RANGES: u32 = 4094;

/// The ids of one pod on the node: `first` is its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct UserRange {
    pub(crate) first: u32,
}

impl UserRange {
    /// The node's id for one of the pod's; `None`: the pod has no such id.
    pub(crate) fn on_node(self, id: u32) -> Option<u32> {
        (id < IDS_PER_POD).then(|| self.first + id)
    }

    /// The line of `/proc/PID/uid_map`.
    pub(crate) fn map(self) -> String {
        format!("0 {} {IDS_PER_POD}", self.first)
    }
}

/// The ranges of all pods, lowest first, and the uids of their pods.
#[derive(Debug, Default)]
pub(crate) struct UserRanges(Mutex<BTreeMap<UserRange, String>>);

impl UserRanges {
    /// Gives the pod the lowest range that no other has, or the one that it has already. `None`: there is none left.
    pub(crate) fn take(&self, uid: &str) -> Option<UserRange> {
        let mut taken = self.lock();
        if let Some((range, _)) = taken.iter().find(|(_, owner)| *owner == uid) {
            return Some(*range);
        }
        let all = (0..RANGES).map(|index| UserRange {
            first: FIRST + index * IDS_PER_POD,
        });
        // Both are in order, so the first that differs is free.
        let mut others = taken.keys();
        let range = all.into_iter().find(|range| others.next() != Some(range))?;
        taken.insert(range, uid.to_owned());
        Some(range)
    }

    /// The pod of an earlier agent has this one.
    pub(crate) fn remember(&self, uid: &str, range: UserRange) {
        self.lock().insert(range, uid.to_owned());
    }

    /// The pod has ended.
    pub(crate) fn release(&self, uid: &str) {
        self.lock().retain(|_, owner| owner != uid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserRange, String>> {
        // Each change is one insertion or removal: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_multiples_and_never_shared() {
        let ranges = UserRanges::default();
        ranges.remember("earlier", UserRange { first: FIRST });
        let mut taken: Vec<u32> = (1..RANGES)
            .map(|pod| ranges.take(&pod.to_string()).unwrap().first)
            .collect();
        assert_eq!(ranges.take("one too many"), None);
        taken.push(FIRST);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), RANGES as usize);
        assert!(taken.iter().all(|first| first % IDS_PER_POD == 0));
        assert!(taken.iter().all(|first| first + (IDS_PER_POD - 1) < 0x7FFE_0000));
        let of_seven = ranges.take("7").unwrap();
        assert_eq!(ranges.take("7"), Some(of_seven), "asked for twice");
        ranges.release("7");
        assert_eq!(ranges.take("new"), Some(of_seven), "and free again");
    }

    #[test]
    fn ids_beyond_the_range_are_nobodys() {
        let range = UserRange { first: 131_072 };
        assert_eq!(range.on_node(0), Some(131_072));
        assert_eq!(range.on_node(65_535), Some(196_607));
        assert_eq!(range.on_node(65_536), None);
        assert_eq!(range.map(), "0 131072 65536");
    }
}
