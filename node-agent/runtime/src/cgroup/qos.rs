//! The cgroups of the classes of service, as kubelet has them: guaranteed pods directly below the parent, the others
//! below `burstable` and `besteffort`.
//!
//! Best-effort pods together weigh as little as can be, burstable ones as much as they request together: so no number
//! of pods without requests takes time from one that has asked for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Cgroups, limits};
use crate::spec::{QosClass, Resources};

/// The least that a cgroup can weigh.
const SHARES_MIN: u64 = 2;

/// The most that one can.
const SHARES_MAX: u64 = 262_144;

/// The cgroups of one node's pods.
#[derive(Debug)]
pub(crate) struct QosTree {
    cgroups: Cgroups,
    parent: String,
    /// What burstable pods weigh, by uid.
    burstable: Mutex<HashMap<String, u64>>,
}

impl QosTree {
    /// The tree below `parent`, an absolute path.
    pub(crate) fn new(cgroups: Cgroups, parent: &str) -> QosTree {
        QosTree {
            cgroups,
            parent: parent.trim_end_matches('/').to_owned(),
            burstable: Mutex::default(),
        }
    }

    /// The cgroup of a pod.
    pub(crate) fn pod(&self, class: QosClass, uid: &str) -> String {
        match folder(class) {
            Some(folder) => format!("{}/{folder}/pod{uid}", self.parent),
            None => format!("{}/pod{uid}", self.parent),
        }
    }

    /// Where a pod's cgroup may be, for a pod of which nothing else is known.
    pub(crate) fn candidates(&self, uid: &str) -> Vec<String> {
        [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort]
            .map(|class| self.pod(class, uid))
            .into()
    }

    /// Counts a pod in, whose cgroup exists.
    pub(crate) fn add(&self, class: QosClass, uid: &str, resources: &Resources) {
        match class {
            QosClass::Guaranteed => {}
            QosClass::BestEffort => self.weigh("besteffort", SHARES_MIN),
            QosClass::Burstable => {
                let shares = resources.cpu_shares.unwrap_or(SHARES_MIN);
                self.change(|pods| {
                    pods.insert(uid.to_owned(), shares);
                });
            }
        }
    }

    /// Counts a pod out.
    pub(crate) fn remove(&self, class: QosClass, uid: &str) {
        if class == QosClass::Burstable {
            self.change(|pods| {
                pods.remove(uid);
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, u64>)) {
        // Each change is one insertion or removal: a panic elsewhere leaves the map whole.
        let mut pods = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pods);
        let total: u64 = pods.values().sum();
        self.weigh("burstable", total.clamp(SHARES_MIN, SHARES_MAX));
    }

    fn weigh(&self, folder: &str, shares: u64) {
        let resources = Resources {
            cpu_shares: Some(shares),
            ..Resources::default()
        };
        let settings = limits::early(self.cgroups.unified, &resources);
        // The weight only matters once processors are short; a pod must not fail for want of it.
        self.cgroups
            .set(&format!("{}/{folder}", self.parent), &settings)
            .ok();
    }

    /// Removes the classes' cgroups, once no pod is left.
    pub(crate) fn close(&self) {
        for folder in ["burstable", "besteffort"] {
            let cgroup = format!("{}/{folder}", self.parent);
            let folders: Vec<PathBuf> = self.cgroups.folders(&cgroup).collect();
            for folder in folders {
                // One that still has pods stays.
                std::fs::remove_dir(folder).ok();
            }
        }
    }
}

fn folder(class: QosClass) -> Option<&'static str> {
    match class {
        QosClass::Guaranteed => None,
        QosClass::Burstable => Some("burstable"),
        QosClass::BestEffort => Some("besteffort"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn burstable_pods_weigh_what_they_request_together() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("f/burstable");
        fs::create_dir_all(&folder).unwrap();
        let tree = QosTree::new(Cgroups::unified_at(root.path()), "/f/");
        let weight = || fs::read_to_string(folder.join("cpu.weight")).unwrap();
        let pod = |shares| Resources {
            cpu_shares: Some(shares),
            ..Resources::default()
        };
        tree.add(QosClass::Burstable, "a", &pod(1024));
        assert_eq!(weight(), "39");
        tree.add(QosClass::Burstable, "b", &pod(1024));
        assert_eq!(weight(), "79");
        tree.remove(QosClass::Burstable, "a");
        tree.remove(QosClass::Burstable, "b");
        assert_eq!(weight(), "1");
    }

    #[test]
    fn pods_lie_where_kubelet_puts_them() {
        let tree = QosTree::new(Cgroups::unified_at(std::path::Path::new("/nowhere")), "/f");
        assert_eq!(
            tree.candidates("u").join(" "),
            "/f/podu /f/burstable/podu /f/besteffort/podu"
        );
    }
}
