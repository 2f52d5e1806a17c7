//! Moments that unfinished lists still need.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flotilla_store::{Revision, Snapshot};

/// As long as Kubernetes' default compaction keeps them.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// A snapshot costs only what has changed since, but that may be everything.
const KEPT_MAX: usize = 32;

/// The snapshots from which lists may be continued.
#[derive(Default)]
pub(crate) struct RecentSnapshots(Mutex<VecDeque<(Instant, Snapshot)>>);

impl RecentSnapshots {
    pub(crate) fn keep(&self, snapshot: Snapshot) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, other)| other.revision() != snapshot.revision());
        kept.push_back((Instant::now(), snapshot));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }

    pub(crate) fn find(&self, revision: Revision) -> Option<Snapshot> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .find(|(_, snapshot)| snapshot.revision() == revision)
            .map(|(_, snapshot)| snapshot.clone())
    }

    /// Lets go of what is too old; called with every request.
    pub(crate) fn forget_old(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.front().is_some_and(|(since, _)| since.elapsed() > KEPT_FOR) {
            kept.pop_front();
        }
    }
}
